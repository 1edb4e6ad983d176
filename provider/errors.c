/* From our thread error to an entry in OpenSSL's error queue, under our own reason codes. */
#include "provider.h"

#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/proverr.h>

#include "base/error.h"

/* Reason codes are the values of envelope_status; see include/envelope/status.h for the groups. */
enum { REASON_MAX = 255 };

static OSSL_ITEM reasons[REASON_MAX + 1];
static pthread_once_t reasons_once = PTHREAD_ONCE_INIT;

static void reasons_fill(void)
{
    const char *unknown = envelope_status_name((envelope_status)REASON_MAX);
    size_t count = 0;
    for (unsigned code = 1; code < REASON_MAX; code++) {
        envelope_status status = (envelope_status)code;
        if (strcmp(envelope_status_name(status), unknown) == 0)
            continue;
        /* OSSL_ITEM has no const; OpenSSL only reads the text. */
        union {
            const char *text;
            void *pointer;
        } item = {.text = envelope_status_text(status)};
        reasons[count++] = (OSSL_ITEM){.id = code, .ptr = item.pointer};
    }
}

const OSSL_ITEM *provider_reasons(void)
{
    pthread_once(&reasons_once, reasons_fill);
    return reasons;
}

static void put(const struct provider_core *core, envelope_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void put(const struct provider_core *core, envelope_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    core->vset_error(core->handle, (uint32_t)status, format, args);
    va_end(args);
}

int provider_result(const struct provider *provider, envelope_status status, const char *file, int line,
                    const char *function)
{
    if (status == ENVELOPE_OK)
        return 1;
    const struct provider_core *core = &provider->core;
    if (!core->new_error || !core->vset_error)
        return 0;
    core->new_error(core->handle);
    if (core->set_error_debug)
        core->set_error_debug(core->handle, file, line, function);
    put(core, status, "%s", error_status() == status && error_text()[0] ? error_text() : envelope_status_text(status));
    return 0;
}

int provider_null_context(void)
{
    ERR_raise(ERR_LIB_PROV, ERR_R_PASSED_NULL_PARAMETER);
    return 0;
}
