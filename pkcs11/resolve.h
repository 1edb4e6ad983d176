/*
 * Names of hosts, for programs that forbid their libraries to create threads (CKF_LIBRARY_CANT_CREATE_OS_THREADS; NSS
 * and GnuTLS always do): libcurl asks the name server in a thread of its own, to keep deadlines. For these programs the
 * calling thread asks, before libcurl begins.
 */
#ifndef PKCS11_RESOLVE_H
#define PKCS11_RESOLVE_H

#include <stdbool.h>
#include <curl/curl.h>

/* For the whole process, from now on. */
void resolve_without_threads(bool without);
bool resolve_is_without_threads(void);

/*
 * The addresses of every host that a request may connect to, as CURLOPT_RESOLVE wants them: to be set, and freed with
 * curl_slist_free_all after the request. proxy: NULL the environment's, "" none. Waits for the name server as long as
 * the system does. CURLE_COULDNT_RESOLVE_HOST with the text in detail if none of the names has an address.
 */
CURLcode resolve_names(const char *url, const char *proxy, struct curl_slist **names, char detail[CURL_ERROR_SIZE]);

#endif
