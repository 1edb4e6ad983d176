#include "bridge.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { INDEX_BITS = 16, ROOM_STEP = 64 };

void operation_clear(struct operation *operation)
{
    free(operation->key_id);
    buffer_clear(&operation->aad);
    buffer_clear(&operation->gathered);
    buffer_clear(&operation->result);
    *operation = (struct operation){0};
}

void session_unref(struct session *session)
{
    if (atomic_fetch_sub(&session->references, 1) != 1)
        return;
    operation_clear(&session->encrypt);
    operation_clear(&session->decrypt);
    keys_list_clear(&session->found);
    pthread_mutex_destroy(&session->lock);
    free(session);
}

/* With the bridge locked: a free place, or -1. */
static ptrdiff_t free_place(struct bridge *bridge)
{
    for (size_t *i = &bridge->sessions_taken; *i < bridge->session_room; ++*i)
        if (!bridge->sessions[*i])
            return (ptrdiff_t)*i;
    if (bridge->session_room >= SESSIONS_MAX)
        return -1;
    size_t room = bridge->session_room ? bridge->session_room * 2 : ROOM_STEP;
    if (room > SESSIONS_MAX)
        room = SESSIONS_MAX;
    struct session **sessions = reallocarray(bridge->sessions, room, sizeof(void *));
    if (!sessions)
        return -1;
    memset(sessions + bridge->session_room, 0, (room - bridge->session_room) * sizeof(void *));
    ptrdiff_t place = (ptrdiff_t)bridge->session_room;
    bridge->sessions = sessions;
    bridge->session_room = room;
    return place;
}

CK_RV session_open(struct bridge *bridge, CK_SLOT_ID slot, CK_FLAGS flags, CK_SESSION_HANDLE *handle)
{
    struct token *token = bridge_token(bridge, slot);
    if (!token)
        return CKR_SLOT_ID_INVALID;
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        return CKR_HOST_MEMORY;
    atomic_init(&session->references, 1);
    pthread_mutex_init(&session->lock, NULL);
    session->token = token;
    session->slot = slot;
    session->flags = flags;
    pthread_mutex_lock(&bridge->lock);
    ptrdiff_t place = free_place(bridge);
    if (place >= 0) {
        /* Number above, place below: a closed handle names nothing, even after its place is taken again. */
        uint64_t number = ++bridge->session_number & (((uint64_t)1 << (sizeof *handle * 8 - INDEX_BITS - 1)) - 1);
        session->handle = (CK_SESSION_HANDLE)(number << INDEX_BITS | (uint64_t)place);
        bridge->sessions[place] = session;
        bridge->open_sessions[slot - 1]++;
        *handle = session->handle;
    }
    pthread_mutex_unlock(&bridge->lock);
    if (place >= 0)
        return CKR_OK;
    session_unref(session);
    return call_refuse(CKR_SESSION_COUNT, "no more than %d sessions", (int)SESSIONS_MAX);
}

/* With the bridge locked. */
static struct session **place_of(struct bridge *bridge, CK_SESSION_HANDLE handle)
{
    size_t index = handle & (((CK_SESSION_HANDLE)1 << INDEX_BITS) - 1);
    if (index >= bridge->session_room || !bridge->sessions[index] || bridge->sessions[index]->handle != handle)
        return NULL;
    return &bridge->sessions[index];
}

bool session_is_open(struct bridge *bridge, CK_SESSION_HANDLE handle)
{
    return place_of(bridge, handle) != NULL;
}

struct session *session_ref(struct bridge *bridge, CK_SESSION_HANDLE handle)
{
    pthread_mutex_lock(&bridge->lock);
    struct session **place = place_of(bridge, handle), *session = place ? *place : NULL;
    if (session)
        atomic_fetch_add(&session->references, 1);
    pthread_mutex_unlock(&bridge->lock);
    return session;
}

/* The login of an application ends with its last session. */
static void log_out(struct bridge *bridge, CK_SLOT_ID slot)
{
    struct token *token = bridge_token(bridge, slot);
    if (token_logged_in(token))
        (void)token_logout(token); /* wiping a PIN cannot fail */
}

/* With the bridge locked, so that a login in a session opened meanwhile is not taken back: its objects go with it. */
static void remove_session(struct bridge *bridge, struct session **place)
{
    struct session *session = *place;
    CK_SLOT_ID slot = session->slot;
    *place = NULL;
    if ((size_t)(place - bridge->sessions) < bridge->sessions_taken)
        bridge->sessions_taken = (size_t)(place - bridge->sessions);
    objects_remove_owner(&bridge->objects[slot - 1], session->handle);
    session_unref(session);
    if (--bridge->open_sessions[slot - 1] == 0)
        log_out(bridge, slot);
}

CK_RV session_close(struct bridge *bridge, CK_SESSION_HANDLE handle)
{
    pthread_mutex_lock(&bridge->lock);
    struct session **place = place_of(bridge, handle);
    if (place)
        remove_session(bridge, place);
    pthread_mutex_unlock(&bridge->lock);
    return place ? CKR_OK : CKR_SESSION_HANDLE_INVALID;
}

void session_close_all(struct bridge *bridge, CK_SLOT_ID slot)
{
    pthread_mutex_lock(&bridge->lock);
    for (size_t i = 0; i < bridge->session_room; i++)
        if (bridge->sessions[i] && bridge->sessions[i]->slot == slot)
            remove_session(bridge, &bridge->sessions[i]);
    pthread_mutex_unlock(&bridge->lock);
}

size_t session_count(struct bridge *bridge, CK_SLOT_ID slot, bool read_write_only)
{
    size_t count = 0;
    pthread_mutex_lock(&bridge->lock);
    for (size_t i = 0; i < bridge->session_room; i++)
        if (bridge->sessions[i] && bridge->sessions[i]->slot == slot &&
            (!read_write_only || bridge->sessions[i]->flags & CKF_RW_SESSION))
            count++;
    pthread_mutex_unlock(&bridge->lock);
    return count;
}
