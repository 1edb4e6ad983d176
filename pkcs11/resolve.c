#include "resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { HOST_MAX = 256, ENTRY_MAX = 2048, ADDRESSES_MAX = 16 };

static atomic_bool without_threads;

void resolve_without_threads(bool without)
{
    atomic_store(&without_threads, without);
}

bool resolve_is_without_threads(void)
{
    return atomic_load(&without_threads);
}

struct place {
    char host[HOST_MAX];
    char port[8];
};

/* False for what has no host, or one that is an address already. */
static bool place_of(const char *url, const char *default_port, struct place *place)
{
    char *host = NULL, *port = NULL;
    struct in6_addr address;
    CURLU *parts = curl_url();
    bool named = parts && curl_url_set(parts, CURLUPART_URL, url, CURLU_GUESS_SCHEME | CURLU_NON_SUPPORT_SCHEME) == 0 &&
                 curl_url_get(parts, CURLUPART_HOST, &host, 0) == 0 && *host && *host != '[' &&
                 inet_pton(AF_INET, host, &address) != 1 && strlen(host) < sizeof place->host;
    if (named && curl_url_get(parts, CURLUPART_PORT, &port, default_port ? 0 : CURLU_DEFAULT_PORT) != 0)
        port = NULL;
    if (named) {
        snprintf(place->host, sizeof place->host, "%s", host);
        snprintf(place->port, sizeof place->port, "%s", port ? port : default_port ? default_port : "443");
    }
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parts);
    return named;
}

static void append(char entry[ENTRY_MAX], const char *before, const char *text, const char *after)
{
    size_t used = strlen(entry);
    snprintf(entry + used, ENTRY_MAX - used, "%s%s%s", before, text, after);
}

/* HOST:PORT:ADDRESS,[ADDRESS]… */
static CURLcode look_up(const struct place *place, struct curl_slist **names, char detail[CURL_ERROR_SIZE])
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *found = NULL;
    char entry[ENTRY_MAX] = "", text[INET6_ADDRSTRLEN];
    int code = getaddrinfo(place->host, place->port, &hints, &found);
    if (code != 0 || !found) {
        snprintf(detail, CURL_ERROR_SIZE, "Could not resolve host: %.180s (%.40s)", place->host, gai_strerror(code));
        return CURLE_COULDNT_RESOLVE_HOST;
    }
    append(entry, "", place->host, ":");
    append(entry, "", place->port, ":");
    size_t count = 0;
    for (const struct addrinfo *at = found; at && count < ADDRESSES_MAX; at = at->ai_next) {
        bool six = at->ai_family == AF_INET6;
        const void *address = six ? (const void *)&((const struct sockaddr_in6 *)(const void *)at->ai_addr)->sin6_addr
                                  : (const void *)&((const struct sockaddr_in *)(const void *)at->ai_addr)->sin_addr;
        if ((!six && at->ai_family != AF_INET) || !inet_ntop(at->ai_family, address, text, sizeof text))
            continue;
        append(entry, count++ ? "," : "", six ? "[" : "", "");
        append(entry, "", text, six ? "]" : "");
    }
    freeaddrinfo(found);
    struct curl_slist *longer = count ? curl_slist_append(*names, entry) : NULL;
    if (!longer)
        return count ? CURLE_OUT_OF_MEMORY : CURLE_COULDNT_RESOLVE_HOST;
    *names = longer;
    return CURLE_OK;
}

/* What libcurl would take from the environment. */
static const char *environment_proxy(const char *url)
{
    static const char *const for_https[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};
    static const char *const for_http[] = {"http_proxy", "all_proxy", "ALL_PROXY"};
    bool https = strncmp(url, "https:", 6) == 0;
    size_t count = https ? sizeof for_https / sizeof for_https[0] : sizeof for_http / sizeof for_http[0];
    for (size_t i = 0; i < count; i++) {
        const char *value = secure_getenv(https ? for_https[i] : for_http[i]);
        if (value && *value)
            return value;
    }
    return NULL;
}

CURLcode resolve_names(const char *url, const char *proxy, struct curl_slist **names, char detail[CURL_ERROR_SIZE])
{
    struct place place;
    CURLcode by_proxy = CURLE_OK, direct = CURLE_OK;
    const char *through = proxy ? proxy : environment_proxy(url);
    if (through && !*through)
        through = NULL;
    /* Behind a proxy the service's own name may well be unknown here, and a proxy may be left aside for it. */
    if (through && place_of(through, strncmp(through, "https:", 6) == 0 ? "443" : "1080", &place))
        by_proxy = look_up(&place, names, detail);
    if (place_of(url, NULL, &place))
        direct = look_up(&place, names, detail);
    return through && by_proxy == CURLE_OK ? CURLE_OK : direct;
}
