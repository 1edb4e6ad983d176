/* Message budgets: blocks of a version's messages, given out to processes once and for all. */
#include "store/sqlite.h"

#include <string.h>

#include "base/error.h"

struct budget {
    uint64_t reserved;
    uint64_t limit;
};

/* A suspended or destroyed version gives nothing out, however old the caller's view of it is. */
static envelope_status check_usable(const struct connection *c, uint32_t dek_id, const char *state,
                                    const char *key_state)
{
    if (strcmp(state, "active") != 0 && strcmp(state, "deactivated") != 0)
        return error_raise(ENVELOPE_E_VERSION_STATE,
                           "the version with DEK id %u in the store %s is %s: it encrypts nothing", (unsigned)dek_id,
                           c->sqlite->printed, state);
    if (strcmp(key_state, "enabled") != 0)
        return error_raise(ENVELOPE_E_KEY_STATE, "the key of DEK id %u in the store %s is %s: it encrypts nothing",
                           (unsigned)dek_id, c->sqlite->printed, key_state);
    return ENVELOPE_OK;
}

static envelope_status read_budget(struct connection *c, uint32_t dek_id, struct budget *budget)
{
    static const char sql[] = "SELECT v.messages_reserved, v.message_limit, v.state, k.state "
                              "FROM encryption_key_version v JOIN encryption_key k ON k.key_id = v.key_id "
                              "WHERE v.dek_id = ?";
    struct query q = store_query(c, sql);
    store_query_int(&q, dek_id);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status)
        return status;
    if (!found)
        return error_raise(ENVELOPE_E_VERSION_UNKNOWN, "there is no version with DEK id %u in the store %s",
                           (unsigned)dek_id, c->sqlite->printed);
    budget->limit = (uint64_t)store_query_get_int(&q, 1, 1, (int64_t)STORE_MESSAGE_LIMIT_MAX);
    budget->reserved = (uint64_t)store_query_get_int(&q, 0, 0, (int64_t)budget->limit);
    const char *state = store_query_get_text(&q, 2, KEY_NAME_MAX);
    const char *key_state = store_query_get_text(&q, 3, KEY_NAME_MAX);
    status = store_query_sound(&q, "encryption_key_version", dek_id);
    return status ? status : check_usable(c, dek_id, state, key_state);
}

static envelope_status reserve(struct connection *c, uint32_t dek_id, uint64_t want, uint64_t *granted,
                               struct budget *budget)
{
    static const char sql[] =
        "UPDATE encryption_key_version SET messages_reserved = messages_reserved + ? WHERE dek_id = ?";
    envelope_status status = read_budget(c, dek_id, budget);
    if (status)
        return status;
    uint64_t left = budget->limit - budget->reserved;
    *granted = want < left ? want : left;
    if (*granted == 0)
        return ENVELOPE_OK;
    budget->reserved += *granted;
    struct query q = store_query(c, sql);
    store_query_int(&q, (int64_t)*granted);
    store_query_int(&q, dek_id);
    return store_query_run(&q, NULL);
}

/*
 * Relaxed: this runs inside applications that want to encrypt. A reservation survives kill -9 of its process; what a
 * loss of power takes back was used by processes that it ended too, at most the blocks of the last moments.
 */
envelope_status store_sqlite_messages_reserve(store *opened, uint32_t dek_id, uint64_t want, uint64_t *granted,
                                              uint64_t *reserved, uint64_t *limit)
{
    struct connection *c;
    struct budget budget = {0};
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_WRITE_RELAXED, &c);
    if (status)
        return status;
    status = store_sqlite_end(c, reserve(c, dek_id, want, granted, &budget));
    if (status) {
        *granted = 0;
        return status;
    }
    *reserved = budget.reserved;
    *limit = budget.limit;
    return ENVELOPE_OK;
}
