#include "lifecycle/setup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "base/error.h"
#include "base/secmem.h"
#include "base/text.h"
#include "lifecycle/files.h"

envelope_status setup_note(struct lifecycle_made *made, const char *what, const char *where)
{
    if (made->count == LIFECYCLE_MADE_MAX)
        return error_raise(ENVELOPE_E_INTERNAL, "a set-up makes more than %d things", LIFECYCLE_MADE_MAX);
    char *copy = text_copy(where);
    if (!copy)
        return ENVELOPE_E_NO_MEMORY;
    made->items[made->count].what = what;
    made->items[made->count++].where = copy;
    return ENVELOPE_OK;
}

void lifecycle_made_clear(struct lifecycle_made *made)
{
    for (size_t i = 0; i < made->count; i++)
        free(made->items[i].where);
    made->count = 0;
}

/* RFC 7512: everything but unreserved characters as %XX. */
static char *uri_escape(const char *text)
{
    static const char unreserved[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
    char *escaped = malloc(3 * strlen(text) + 1);
    if (!escaped) {
        error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
        return NULL;
    }
    char *to = escaped;
    for (; *text; text++) {
        if (strchr(unreserved, *text))
            *to++ = *text;
        else
            to += snprintf(to, 4, "%%%02X", (unsigned char)*text);
    }
    *to = '\0';
    return escaped;
}

char *setup_kek_uri(const char *token, const char *label)
{
    LIFECYCLE_TEXT token_escaped = uri_escape(token);
    LIFECYCLE_TEXT label_escaped = uri_escape(label);
    if (!token_escaped || !label_escaped)
        return NULL;
    return text_format("pkcs11:token=%s;object=%s;type=secret-key", token_escaped, label_escaped);
}

char *setup_config(const char *store_at, const char *kek, const char *module, const char *pin_file)
{
    LIFECYCLE_TEXT quoted_store = lifecycle_quote_conf(store_at);
    LIFECYCLE_TEXT quoted_kek = lifecycle_quote_conf(kek);
    LIFECYCLE_TEXT quoted_module = lifecycle_quote_conf(module);
    LIFECYCLE_TEXT quoted_pin = pin_file ? lifecycle_quote_conf(pin_file) : text_copy("");
    if (!quoted_store || !quoted_kek || !quoted_module || !quoted_pin)
        return NULL;
    return text_format("# Made by `envelope init`; envelope.cnf(5) tells what each line means.\n"
                       "[envelope]\n"
                       "store       = %s\n"
                       "default-key = default\n"
                       "kek         = %s\n"
                       "\n"
                       "[hsm]\n"
                       "module      = %s\n"
                       "%s%s%s",
                       quoted_store, quoted_kek, quoted_module, pin_file ? "pin-file    = " : "", quoted_pin,
                       pin_file ? "\n" : "");
}

envelope_status setup_try_wrap(hsm *token, const char *kek)
{
    static const uint8_t aad[] = "envelope trial wrap";
    uint8_t *dek = secmem_alloc((size_t)2 * HSM_DEK_SIZE);
    if (!dek)
        return error_status();
    uint8_t *blob = NULL;
    size_t blob_length;
    envelope_status status = hsm_generate_dek(token, kek, dek);
    if (status == ENVELOPE_OK)
        status = hsm_wrap(token, kek, aad, sizeof(aad), dek, &blob, &blob_length);
    if (status == ENVELOPE_OK)
        status = hsm_unwrap(token, kek, aad, sizeof(aad), blob, blob_length, dek + HSM_DEK_SIZE);
    if (status == ENVELOPE_OK && CRYPTO_memcmp(dek, dek + HSM_DEK_SIZE, HSM_DEK_SIZE) != 0)
        status = error_raise(ENVELOPE_E_UNWRAP, "the token unwraps another key than it wrapped under %s", kek);
    free(blob);
    secmem_free(dek);
    return status;
}

envelope_status setup_store(const keyring *ring, struct lifecycle_made *made, bool *created)
{
    const struct settings *settings = keyring_settings(ring);
    store *keys;
    envelope_status status = store_create(settings->store, settings->deadline, &keys, created);
    if (status != ENVELOPE_OK)
        return status;
    store_close(keys);
    return *created ? setup_note(made, "store", settings->store) : ENVELOPE_OK;
}

envelope_status setup_default_key(keyring *ring, struct lifecycle_made *made)
{
    store *keys = keyring_store(ring);
    if (!keys)
        return error_status();
    const char *name = keyring_settings(ring)->default_key;
    struct store_key found;
    envelope_status status = store_key_find(keys, name, &found);
    if (status != ENVELOPE_E_KEY_UNKNOWN)
        return status;

    error_clear();
    struct keyring_key_options options = {0};
    status = keyring_create(ring, name, &options);
    if (status == ENVELOPE_OK)
        status = setup_note(made, "key", name);
    return status;
}

void setup_drop_store(const char *url)
{
    static const char scheme[] = "sqlite:";
    if (strncmp(url, scheme, sizeof(scheme) - 1) != 0)
        return;
    const char *path = url + sizeof(scheme) - 1;
    static const char *const endings[] = {"-wal", "-shm", "-journal", ""};
    for (size_t i = 0; i < sizeof(endings) / sizeof(*endings); i++) {
        LIFECYCLE_TEXT file = text_format("%s%s", path, endings[i]);
        if (file)
            unlink(file);
    }
}

void setup_free_keyring(keyring **ring)
{
    if (*ring)
        keyring_free(*ring);
}
