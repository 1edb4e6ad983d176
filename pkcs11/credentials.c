#include "credentials.h"

#include <stdatomic.h>
#include <string.h>

#include "base/secmem.h"

struct credentials {
    atomic_uint references;
    int64_t expires, early;
    const char *source;
    const char *id, *secret, *token; /* within texts */
    char texts[];
};

struct credentials *credentials_new(const char *id, const char *secret, const char *token, int64_t expires)
{
    const char *given[3] = {id ? id : "", secret ? secret : "", token ? token : ""};
    size_t sizes[3], total = 0;
    for (size_t i = 0; i < 3; i++)
        total += sizes[i] = strlen(given[i]) + 1;
    struct credentials *made = secmem_alloc(sizeof *made + total);
    if (!made)
        return NULL;
    const char *copies[3];
    char *to = made->texts;
    for (size_t i = 0; i < 3; i++) {
        copies[i] = memcpy(to, given[i], sizes[i]);
        to += sizes[i];
    }
    made->id = copies[0];
    made->secret = copies[1];
    made->token = copies[2];
    made->expires = expires;
    made->early = 0;
    made->source = "";
    atomic_init(&made->references, 1);
    return made;
}

const char *credentials_id(const struct credentials *credentials)
{
    return credentials->id;
}

const char *credentials_secret(const struct credentials *credentials)
{
    return credentials->secret;
}

const char *credentials_token(const struct credentials *credentials)
{
    return credentials->token;
}

int64_t credentials_expires(const struct credentials *credentials)
{
    return credentials->expires;
}

void credentials_set_early(struct credentials *credentials, int64_t early)
{
    credentials->early = early;
}

int64_t credentials_early(const struct credentials *credentials)
{
    return credentials->early;
}

void credentials_set_source(struct credentials *credentials, const char *source)
{
    credentials->source = source;
}

const char *credentials_source(const struct credentials *credentials)
{
    return credentials->source;
}

struct credentials *credentials_ref(struct credentials *credentials)
{
    if (credentials)
        atomic_fetch_add(&credentials->references, 1);
    return credentials;
}

void credentials_unref(struct credentials *credentials)
{
    if (credentials && atomic_fetch_sub(&credentials->references, 1) == 1)
        secmem_free(credentials);
}
