#include "http_memory.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>

#include "base/error.h"
#include "base/secmem.h"

/* --- Slots in secret memory, for copies of one text --- */

enum { SLOT_SIZE = 64, SLOT_COUNT = 1024 };

static char *slots; /* NULL: none were to be had */
static atomic_bool taken[SLOT_COUNT];
static _Thread_local const char *guarded;

static bool is_slot(const void *memory)
{
    uintptr_t at = (uintptr_t)memory, from = (uintptr_t)slots;
    return slots && at >= from && at - from < (size_t)SLOT_SIZE * SLOT_COUNT;
}

/* No lock: a child forked meanwhile must not find it held. */
static char *slot_take(void)
{
    for (size_t i = 0; slots && i < SLOT_COUNT; i++)
        if (!atomic_load(&taken[i]) && !atomic_exchange(&taken[i], true))
            return slots + i * SLOT_SIZE;
    return NULL;
}

static void slot_give_back(char *slot)
{
    secmem_wipe(slot, SLOT_SIZE);
    atomic_store(&taken[(size_t)(slot - slots) / SLOT_SIZE], false);
}

void http_memory_guard(const char *secret)
{
    guarded = secret && *secret && strlen(secret) < SLOT_SIZE ? secret : NULL;
}

/*
 * --- The C library's memory, wiped before it is given back: whoever frees with free() what he has from here does no
 * harm. Slots are for requests of ours alone, and stay within libcurl. ---
 */

static char *guarded_strdup(const char *text)
{
    char *slot = guarded && strcmp(text, guarded) == 0 ? slot_take() : NULL;
    if (slot)
        return memcpy(slot, text, strlen(text) + 1);
    return strdup(text);
}

static size_t size_of(void *memory)
{
    return is_slot(memory) ? SLOT_SIZE : malloc_usable_size(memory);
}

static void wiped_free(void *memory)
{
    if (is_slot(memory)) {
        slot_give_back(memory);
        return;
    }
    if (memory)
        OPENSSL_cleanse(memory, malloc_usable_size(memory));
    free(memory);
}

static void *wiped_realloc(void *memory, size_t size)
{
    if (!memory)
        return malloc(size);
    size_t had = size_of(memory);
    if (size != 0 && size <= had)
        return memory;
    void *moved = malloc(size ? size : 1);
    if (!moved)
        return NULL;
    memcpy(moved, memory, had < size ? had : size);
    wiped_free(memory);
    return moved;
}

CURLcode http_memory_init(void)
{
    slots = secmem_alloc((size_t)SLOT_SIZE * SLOT_COUNT);
    if (!slots)
        error_clear(); /* then its copies lie where all else does */
    return curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiped_free, wiped_realloc, guarded_strdup, calloc);
}

static CURLcode cleanse_plaintext(CURL *easy, void *tls, void *unused)
{
    (void)easy;
    (void)unused;
    SSL_CTX_set_options(tls, SSL_OP_CLEANSE_PLAINTEXT);
    return CURLE_OK;
}

CURLcode http_memory_tls(CURL *easy)
{
    /* A libcurl with another TLS library would hand over something else. */
    const char *library = curl_version_info(CURLVERSION_NOW)->ssl_version;
    if (!library || strncmp(library, "OpenSSL/", 8) != 0)
        return CURLE_OK;
    return curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, cleanse_plaintext);
}
