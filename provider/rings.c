/* One keyring per configuration file and process, shared by every library context that loads the provider. */
#include "provider.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

struct ring {
    struct ring *next;
    char *path;
    keyring *ring;
    unsigned users;
};

/* Held while a file is parsed and a keyring made, neither of which waits for anything outside. */
static pthread_mutex_t rings_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ring *rings;

static envelope_status ring_make(const char *path, struct ring **made)
{
    struct settings settings;
    envelope_status status = settings_load(path, &settings);
    if (status != ENVELOPE_OK)
        return status;
    struct ring *entry = calloc(1, sizeof *entry);
    char *copy = text_copy(path);
    if (!entry || !copy) {
        settings_clear(&settings);
        status = error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
        goto fail;
    }
    status = keyring_new(&settings, &entry->ring);
    if (status != ENVELOPE_OK)
        goto fail;
    entry->path = copy;
    *made = entry;
    return ENVELOPE_OK;
fail:
    free(copy);
    free(entry);
    return status;
}

static envelope_status take_locked(const char *path, keyring **ring)
{
    struct ring *entry = rings;
    while (entry && strcmp(entry->path, path) != 0)
        entry = entry->next;
    if (!entry) {
        envelope_status status = ring_make(path, &entry);
        if (status != ENVELOPE_OK)
            return status;
        entry->next = rings;
        rings = entry;
    }
    entry->users++;
    *ring = entry->ring;
    return ENVELOPE_OK;
}

envelope_status provider_ring_take(const char *path, keyring **ring)
{
    /* Two spellings of one file are one configuration. A path that does not resolve fails when it is read. */
    char *resolved = realpath(path, NULL);
    pthread_mutex_lock(&rings_lock);
    envelope_status status = take_locked(resolved ? resolved : path, ring);
    pthread_mutex_unlock(&rings_lock);
    free(resolved);
    return status;
}

void provider_ring_give_back(keyring *ring)
{
    if (!ring)
        return;
    bool last = false;
    pthread_mutex_lock(&rings_lock);
    for (struct ring *entry = rings; entry; entry = entry->next)
        if (entry->ring == ring)
            last = --entry->users == 0;
    pthread_mutex_unlock(&rings_lock);
    if (last)
        keyring_wipe(ring);
}
