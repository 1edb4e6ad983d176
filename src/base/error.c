#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ERROR_TEXT_MAX = 1024 };

/* Ends a text that was too long. */
static const char cut_mark[] = "...";

static _Thread_local struct {
    envelope_status status;
    char text[ERROR_TEXT_MAX];
} last;

/* wrote: what snprintf returned for text from used on. */
static void mark_if_cut(char text[ERROR_TEXT_MAX], size_t used, int wrote)
{
    if (wrote < 0 || (size_t)wrote >= ERROR_TEXT_MAX - used)
        memcpy(text + ERROR_TEXT_MAX - sizeof cut_mark, cut_mark, sizeof cut_mark);
}

envelope_status error_raise(envelope_status status, const char *format, ...)
{
    /* Formatted aside first: an argument may be the old text itself. */
    char text[ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    mark_if_cut(text, 0, vsnprintf(text, sizeof text, format, args));
    va_end(args);
    last.status = status;
    memcpy(last.text, text, sizeof text);
    return status;
}

envelope_status error_context(envelope_status status, const char *format, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    mark_if_cut(text, 0, vsnprintf(text, sizeof text, format, args));
    va_end(args);
    size_t used = strlen(text);
    int wrote = snprintf(text + used, sizeof text - used, ": %s",
                         last.status == status && last.text[0] ? last.text : envelope_status_text(status));
    mark_if_cut(text, used, wrote);
    last.status = status;
    memcpy(last.text, text, sizeof text);
    return status;
}

const char *error_text(void)
{
    return last.text;
}

envelope_status error_status(void)
{
    return last.status;
}

void error_clear(void)
{
    last.status = ENVELOPE_OK;
    last.text[0] = '\0';
}

struct status_row {
    envelope_status status;
    const char *name;
    const char *text;
};

static const struct status_row status_table[] = {
    {ENVELOPE_OK, "OK", "ok"},
    {ENVELOPE_E_INTERNAL, "INTERNAL", "internal error"},
    {ENVELOPE_E_NO_MEMORY, "NO_MEMORY", "out of memory"},
    {ENVELOPE_E_ARGUMENT, "ARGUMENT", "bad argument"},
    {ENVELOPE_E_IO, "IO", "file cannot be read or written"},
    {ENVELOPE_E_CONFIG, "CONFIG", "configuration error"},
    {ENVELOPE_E_RECURSION, "RECURSION", "called back from inside the token"},
    {ENVELOPE_E_TIMEOUT, "TIMEOUT", "deadline passed"},
    {ENVELOPE_E_CRYPTO, "CRYPTO", "libcrypto error"},
    {ENVELOPE_E_KEY_NAME, "KEY_NAME", "not a valid key name"},
    {ENVELOPE_E_KEY_UNKNOWN, "KEY_UNKNOWN", "unknown key"},
    {ENVELOPE_E_KEY_EXISTS, "KEY_EXISTS", "key exists already"},
    {ENVELOPE_E_KEY_STATE, "KEY_STATE", "the key's state forbids it"},
    {ENVELOPE_E_VERSION_UNKNOWN, "VERSION_UNKNOWN", "unknown key version"},
    {ENVELOPE_E_VERSION_STATE, "VERSION_STATE", "the version's state forbids it"},
    {ENVELOPE_E_MESSAGE_LIMIT, "MESSAGE_LIMIT", "message limit reached"},
    {ENVELOPE_E_NOT_A_KEY, "NOT_A_KEY", "the key bytes name no key"},
    {ENVELOPE_E_REFERENCE, "REFERENCE", "key reference refused"},
    {ENVELOPE_E_KEY_MISMATCH, "KEY_MISMATCH", "data belongs to another key"},
    {ENVELOPE_E_DATA_AUTH, "DATA_AUTH", "authentication failed"},
    {ENVELOPE_E_DATA_TRUNCATED, "DATA_TRUNCATED", "data is truncated"},
    {ENVELOPE_E_DATA_FORMAT, "DATA_FORMAT", "not Envelope's data"},
    {ENVELOPE_E_DATA_TOO_LONG, "DATA_TOO_LONG", "message is too long"},
    {ENVELOPE_E_CONTEXT_STATE, "CONTEXT_STATE", "call out of order"},
    {ENVELOPE_E_COPY_REFUSED, "COPY_REFUSED", "copy refused"},
    {ENVELOPE_E_HSM_MODULE, "HSM_MODULE", "PKCS#11 module unusable"},
    {ENVELOPE_E_HSM_UNAVAILABLE, "HSM_UNAVAILABLE", "token unavailable"},
    {ENVELOPE_E_HSM_LOGIN, "HSM_LOGIN", "token login failed"},
    {ENVELOPE_E_HSM_PIN_LOCKED, "HSM_PIN_LOCKED", "token PIN locked"},
    {ENVELOPE_E_KEK_URI, "KEK_URI", "unusable KEK URI"},
    {ENVELOPE_E_KEK_UNKNOWN, "KEK_UNKNOWN", "KEK not found"},
    {ENVELOPE_E_KEK_REFUSED, "KEK_REFUSED", "KEK use refused"},
    {ENVELOPE_E_KEK_ATTRIBUTES, "KEK_ATTRIBUTES", "KEK attributes unfit"},
    {ENVELOPE_E_WRAP_MECHANISM, "WRAP_MECHANISM", "no usable wrap mechanism"},
    {ENVELOPE_E_UNWRAP, "UNWRAP", "wrapped key does not unwrap"},
    {ENVELOPE_E_HSM, "HSM", "token error"},
    {ENVELOPE_E_STORE_UNAVAILABLE, "STORE_UNAVAILABLE", "store unavailable"},
    {ENVELOPE_E_STORE_BUSY, "STORE_BUSY", "store busy"},
    {ENVELOPE_E_STORE_READ_ONLY, "STORE_READ_ONLY", "store is read-only"},
    {ENVELOPE_E_STORE_CORRUPT, "STORE_CORRUPT", "store is corrupt"},
    {ENVELOPE_E_STORE_SCHEMA, "STORE_SCHEMA", "store schema not supported"},
    {ENVELOPE_E_STORE_CONFLICT, "STORE_CONFLICT", "changed by somebody else"},
};

static const struct status_row *status_find(envelope_status status)
{
    for (size_t i = 0; i < sizeof status_table / sizeof status_table[0]; i++)
        if (status_table[i].status == status)
            return &status_table[i];
    return NULL;
}

const char *envelope_status_text(envelope_status status)
{
    const struct status_row *row = status_find(status);
    return row ? row->text : "unknown status";
}

const char *envelope_status_name(envelope_status status)
{
    const struct status_row *row = status_find(status);
    return row ? row->name : "UNKNOWN";
}
