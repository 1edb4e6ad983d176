#include "http_memory.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>

/* The C library's memory, wiped before it is given back: whoever frees with free() what he has from here does no harm.
 */

static void wiped_free(void *memory)
{
    if (memory)
        OPENSSL_cleanse(memory, malloc_usable_size(memory));
    free(memory);
}

static void *wiped_realloc(void *memory, size_t size)
{
    if (!memory)
        return malloc(size);
    size_t had = malloc_usable_size(memory);
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
    return curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, wiped_free, wiped_realloc, strdup, calloc);
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
