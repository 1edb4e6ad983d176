/*
 * libcurl and libssl copy credentials, requests and replies into memory of their own, and leave them there. This makes
 * them wipe what can be wiped.
 */
#ifndef PKCS11_HTTP_MEMORY_H
#define PKCS11_HTTP_MEMORY_H

#include <curl/curl.h>

/* curl_global_init, with memory that is wiped when it is freed; where the program itself initialised libcurl before us,
   it stays with what the program chose. */
CURLcode http_memory_init(void);

/*
 * From now on, and until told NULL, what libcurl copies of this text in this thread lies in locked memory that is left
 * out of core dumps: it keeps the secret that it signs with beside an open connection. Best effort: long secrets, and
 * those of very many connections at once, lie where all else does, and so do all if the program initialised libcurl
 * before us.
 */
void http_memory_guard(const char *secret);

/* What a TLS connection has decrypted is wiped as soon as it is handed over, not when the next reply comes. */
CURLcode http_memory_tls(CURL *easy);

#endif
