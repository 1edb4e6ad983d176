/* store_check: SQLite's own checks, then what the tables must say to each other. */
#include "store/sqlite.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

static envelope_status damaged(const struct connection *c, const char *what)
{
    return error_raise(ENVELOPE_E_STORE_CORRUPT, "store %s: %s; keep the file and restore a backup", c->sqlite->printed,
                       what);
}

static envelope_status check_integrity(struct connection *c)
{
    static const char sql[] = "PRAGMA integrity_check(1)";
    struct query q = store_query(c, sql);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status)
        return status;
    const char *answer = found ? (const char *)sqlite3_column_text(q.statement, 0) : NULL;
    if (answer && strcmp(answer, "ok") == 0)
        return ENVELOPE_OK;
    char printed[256];
    answer = answer ? text_printable(answer, strlen(answer), printed, sizeof printed) : "no answer";
    return error_raise(ENVELOPE_E_STORE_CORRUPT,
                       "store %s: its integrity check says: %s; keep the file and restore a backup", c->sqlite->printed,
                       answer);
}

static envelope_status check_references(struct connection *c)
{
    static const char sql[] = "PRAGMA foreign_key_check";
    struct query q = store_query(c, sql);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status || !found)
        return status;
    char what[192];
    snprintf(what, sizeof what, "row %lld of %s refers to a row of %s that is not there",
             (long long)sqlite3_column_int64(q.statement, 1), (const char *)sqlite3_column_text(q.statement, 0),
             (const char *)sqlite3_column_text(q.statement, 2));
    return damaged(c, what);
}

/* Each query finds the rows that break a rule: the name of the key, and the version (0: the key as a whole). */
struct rule {
    const char *sql;
    const char *broken;
};

static const struct rule rules[] = {
    {"SELECT k.name, k.primary_version FROM encryption_key k WHERE NOT EXISTS "
     "(SELECT 1 FROM encryption_key_version v WHERE v.key_id = k.key_id AND v.version = k.primary_version)",
     "is the primary but does not exist"},
    {"SELECT k.name, v.version FROM encryption_key_version v JOIN encryption_key k ON k.key_id = v.key_id "
     "WHERE v.state = 'active' AND v.version <> k.primary_version",
     "is active but not the primary"},
    {"SELECT k.name, v.version FROM encryption_key_version v JOIN encryption_key k ON k.key_id = v.key_id "
     "WHERE v.version = k.primary_version AND k.state = 'enabled' AND v.state NOT IN ('active', 'suspended')",
     "is the primary of an enabled key but neither active nor suspended"},
    {"SELECT k.name, v.version FROM encryption_key_version v JOIN encryption_key k ON k.key_id = v.key_id "
     "WHERE k.state = 'destroyed' AND v.state <> 'destroyed'",
     "is not destroyed, but its key is"},
    {"SELECT k.name, v.version FROM encryption_key_version v JOIN encryption_key k ON k.key_id = v.key_id "
     "WHERE v.version > k.primary_version",
     "is newer than the primary"},
    {"SELECT k.name, k.primary_version FROM encryption_key k WHERE k.primary_version <> "
     "(SELECT count(*) FROM encryption_key_version v WHERE v.key_id = k.key_id)",
     "is the primary, but the versions before it are not all there"},
    {"SELECT k.name, v.version FROM encryption_key_version v JOIN encryption_key k ON k.key_id = v.key_id "
     "WHERE (v.state = 'destroyed') <> (v.encrypted_key_blob IS NULL)",
     "lacks its wrapped key, or should not have one"},
    {"SELECT k.name, v.version FROM encryption_key_version v JOIN encryption_key k ON k.key_id = v.key_id "
     "WHERE v.dek_id >= (SELECT next_dek_id FROM store_meta WHERE id = 1)",
     "has a DEK id that would be given out again"},
    {"SELECT k.name, v.version FROM encryption_key_version v JOIN encryption_key k ON k.key_id = v.key_id "
     "WHERE v.messages_reserved > v.message_limit",
     "has more messages given out than its limit"},
};

static envelope_status check_rule(struct connection *c, const struct rule *rule)
{
    struct query q = store_query(c, rule->sql);
    bool found = false;
    envelope_status status = store_query_row(&q, &found);
    if (status || !found)
        return status;
    char name[KEY_NAME_MAX + 1];
    const char *text = (const char *)sqlite3_column_text(q.statement, 0);
    text_printable(text ? text : "", text ? strlen(text) : 0, name, sizeof name);
    return error_raise(ENVELOPE_E_STORE_CORRUPT,
                       "store %s: version %lld of key \"%s\" %s; keep the file and restore a backup",
                       c->sqlite->printed, (long long)sqlite3_column_int64(q.statement, 1), name, rule->broken);
}

static envelope_status check_meta(struct connection *c)
{
    uint8_t id[STORE_ID_SIZE];
    envelope_status status = store_sqlite_read_id(c, id);
    if (!status && memcmp(id, c->sqlite->base.id, STORE_ID_SIZE) != 0)
        return damaged(c, "its id changed while it was open");
    return status;
}

static envelope_status check(struct connection *c)
{
    envelope_status status = check_integrity(c);
    if (!status)
        status = check_references(c);
    if (!status)
        status = check_meta(c);
    for (size_t i = 0; !status && i < sizeof rules / sizeof rules[0]; i++)
        status = check_rule(c, &rules[i]);
    return status;
}

envelope_status store_sqlite_check(store *opened)
{
    struct connection *c;
    envelope_status status = store_sqlite_begin(store_sqlite_of(opened), TRANSACTION_SNAPSHOT, &c);
    return status ? status : store_sqlite_end(c, check(c));
}
