#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/output.h"

static struct {
    const char *kek, *message_limit, *version, *reason;
    bool names;
} given;

#define COUNT(array) (sizeof(array) / sizeof(*(array)))
#define MESSAGES_MOST (UINT64_C(1) << 32) /* SP 800-38D, 8.3 */

/* ---- key create ---- */

static const struct cli_option create_options[] = {
    {"kek", "URI", "the KEK that wraps it; else the configured one", &given.kek, NULL},
    {"message-limit", "N", "messages under one version before it rotates; else the configured limit",
     &given.message_limit, NULL},
};

static envelope_status create(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    (void)count;
    const char *name = arguments[0];
    struct keyring_key_options options = {.kek_uri = given.kek};
    envelope_status status = cli_number("message-limit", given.message_limit, 1, MESSAGES_MOST, &options.message_limit);
    if (status != ENVELOPE_OK)
        return status;
    CLI_KEYRING ring = cli_open();
    if (!ring)
        return error_status();
    status = keyring_create(ring, name, &options);
    if (status != ENVELOPE_OK)
        return status;
    if (cli_common.json)
        return output_json(json_pack("{ss si}", "key", name, "version", 1));
    printf("created key \"%s\", version 1\n", name);
    return ENVELOPE_OK;
}

const struct cli_verb cli_verb_key_create = {.name = "key create",
                                             .arguments = "NAME",
                                             .summary = "make a key and its first version",
                                             .least = 1,
                                             .most = 1,
                                             .options = create_options,
                                             .option_count = COUNT(create_options),
                                             .run = create};

/* ---- key list ---- */

static const struct cli_option list_options[] = {
    {"names", NULL, "only the names, one a line", NULL, &given.names},
};

/* The KEK's URI. malloc'ed. */
static envelope_status kek_uri(store *keys, uint32_t kek_id, char **uri)
{
    struct store_kek kek;
    envelope_status status = store_kek_find(keys, kek_id, &kek);
    if (status != ENVELOPE_OK)
        return status;
    *uri = text_copy(kek.uri);
    store_kek_clear(&kek);
    return *uri ? ENVELOPE_OK : ENVELOPE_E_NO_MEMORY;
}

/* Keys and versions come in the same order: the versions of the next key begin at *next, which is moved behind them. */
static size_t count_versions(const struct store_version *versions, size_t count, const char *name, size_t *next)
{
    size_t first = *next;
    while (*next < count && strcmp(versions[*next].key_name, name) == 0)
        ++*next;
    return *next - first;
}

struct listing {
    json_t *json;
    output_table *table;
};

static json_t *key_json(const struct store_key *key, size_t versions, const char *uri)
{
    return json_pack("{ss ss sI sI so ss sI}", "key", key->name, "state", store_key_state_text(key->state), "primary",
                     (json_int_t)key->primary_version, "versions", (json_int_t)versions, "created",
                     output_json_time(key->created), "kek", uri, "message_limit", (json_int_t)key->message_limit);
}

static void key_row(output_table *table, const struct store_key *key, size_t versions, const char *uri)
{
    char primary[24], total[24], created[CLOCK_TEXT_MAX];
    snprintf(primary, sizeof(primary), "%" PRIu32, key->primary_version);
    snprintf(total, sizeof(total), "%zu", versions);
    output_table_row(table, (const char *[]){key->name, store_key_state_text(key->state), primary, total,
                                             output_time(key->created, created), uri});
}

static envelope_status list_one(store *keys, const struct store_key *key, size_t versions, struct listing *to)
{
    char *uri = NULL;
    envelope_status status = kek_uri(keys, key->kek_id, &uri);
    if (status == ENVELOPE_OK && to->json)
        status = output_json_append(to->json, key_json(key, versions, uri));
    else if (status == ENVELOPE_OK)
        key_row(to->table, key, versions, uri);
    free(uri);
    return status;
}

static envelope_status print_list(store *keys, const struct store_key *found, size_t count)
{
    struct store_version *versions;
    size_t version_count;
    envelope_status status = store_versions(keys, NULL, &versions, &version_count);
    if (status != ENVELOPE_OK)
        return status;
    struct listing to = {0};
    if (cli_common.json)
        to.json = json_array();
    else
        to.table = output_table_new((const char *[]){"KEY", "STATE", "PRIMARY", "VERSIONS", "CREATED", "KEK"}, 6);
    if (!to.json && !to.table)
        status = error_raise(ENVELOPE_E_NO_MEMORY, "out of memory");
    size_t next = 0;
    for (size_t i = 0; status == ENVELOPE_OK && i < count; i++)
        status = list_one(keys, &found[i], count_versions(versions, version_count, found[i].name, &next), &to);
    store_versions_free(versions, version_count);
    if (status != ENVELOPE_OK) {
        json_decref(to.json);
        output_table_free(to.table);
        return status;
    }
    return to.json ? output_json(to.json) : output_table_print(to.table);
}

static envelope_status list(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    (void)count;
    (void)arguments;
    CLI_KEYRING ring = cli_open();
    store *keys = ring ? keyring_store(ring) : NULL;
    if (!keys)
        return error_status();
    struct store_key *found;
    size_t found_count;
    envelope_status status = store_keys(keys, &found, &found_count);
    if (status != ENVELOPE_OK)
        return status;
    if (given.names)
        for (size_t i = 0; i < found_count; i++)
            printf("%s\n", found[i].name);
    else
        status = print_list(keys, found, found_count);
    free(found);
    return status;
}

const struct cli_verb cli_verb_key_list = {.name = "key list",
                                           .arguments = "",
                                           .summary = "every key, its state and its primary version",
                                           .options = list_options,
                                           .option_count = COUNT(list_options),
                                           .run = list};

/* ---- key show ---- */

static json_t *version_json(const struct store_version *version, const char *uri, bool primary)
{
    return json_pack("{sI ss sb sI ss so so sI sI}", "version", (json_int_t)version->version, "state",
                     store_version_state_text(version->state), "primary", primary, "dek_id",
                     (json_int_t)version->dek_id, "kek", uri, "created", output_json_time(version->created),
                     "deactivated", output_json_time(version->deactivated), "messages_reserved",
                     (json_int_t)version->messages_reserved, "message_limit", (json_int_t)version->message_limit);
}

static void version_row(output_table *table, const struct store_version *version, const char *uri, bool primary)
{
    char number[24], dek_id[24], created[CLOCK_TEXT_MAX], messages[64];
    snprintf(number, sizeof(number), "%" PRIu32 "%s", version->version, primary ? " *" : "");
    snprintf(dek_id, sizeof(dek_id), "%" PRIu32, version->dek_id);
    snprintf(messages, sizeof(messages), "%" PRIu64 " of %" PRIu64, version->messages_reserved, version->message_limit);
    output_table_row(table, (const char *[]){number, store_version_state_text(version->state), dek_id,
                                             output_time(version->created, created), messages, uri});
}

static envelope_status collect_versions(store *keys, const struct store_key *key, json_t *array, output_table *table)
{
    struct store_version *versions;
    size_t count;
    envelope_status status = store_versions(keys, key->name, &versions, &count);
    if (status != ENVELOPE_OK)
        return status;
    for (size_t i = 0; status == ENVELOPE_OK && i < count; i++) {
        char *uri = NULL;
        bool primary = versions[i].version == key->primary_version;
        status = kek_uri(keys, versions[i].kek_id, &uri);
        if (status == ENVELOPE_OK && array)
            status = output_json_append(array, version_json(&versions[i], uri, primary));
        else if (status == ENVELOPE_OK)
            version_row(table, &versions[i], uri, primary);
        free(uri);
    }
    store_versions_free(versions, count);
    return status;
}

static envelope_status show_json(store *keys, const struct store_key *key)
{
    json_t *versions = json_array();
    envelope_status status = collect_versions(keys, key, versions, NULL);
    if (status != ENVELOPE_OK) {
        json_decref(versions);
        return status;
    }
    return output_json(json_pack("{ss ss sI so sI so}", "key", key->name, "state", store_key_state_text(key->state),
                                 "primary", (json_int_t)key->primary_version, "created", output_json_time(key->created),
                                 "message_limit", (json_int_t)key->message_limit, "versions", versions));
}

static envelope_status show_text(store *keys, const struct store_key *key)
{
    output_table *table =
        output_table_new((const char *[]){"VERSION", "STATE", "DEK-ID", "CREATED", "MESSAGES RESERVED", "KEK"}, 6);
    if (!table)
        return error_status();
    envelope_status status = collect_versions(keys, key, NULL, table);
    if (status != ENVELOPE_OK) {
        output_table_free(table);
        return status;
    }
    char created[CLOCK_TEXT_MAX];
    printf("key \"%s\", %s, created %s (* is the primary version)\n", key->name, store_key_state_text(key->state),
           output_time(key->created, created));
    return output_table_print(table);
}

static envelope_status show(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    (void)count;
    CLI_KEYRING ring = cli_open();
    store *keys = ring ? keyring_store(ring) : NULL;
    if (!keys)
        return error_status();
    struct store_key key;
    envelope_status status = store_key_find(keys, arguments[0], &key);
    if (status != ENVELOPE_OK)
        return status;
    return cli_common.json ? show_json(keys, &key) : show_text(keys, &key);
}

const struct cli_verb cli_verb_key_show = {.name = "key show",
                                           .arguments = "NAME",
                                           .summary = "a key's versions: state, DEK id, KEK, message budget",
                                           .least = 1,
                                           .most = 1,
                                           .run = show};

/* ---- key rotate ---- */

static const struct cli_option rotate_options[] = {
    {"reason", "TEXT", "noted in the history", &given.reason, NULL},
};

static envelope_status rotate(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    (void)count;
    const char *name = arguments[0];
    CLI_KEYRING ring = cli_open();
    if (!ring)
        return error_status();
    uint32_t version;
    bool by_others = false;
    envelope_status status = keyring_rotate(ring, name, given.reason, &version, &by_others);
    if (status != ENVELOPE_OK)
        return status;
    if (cli_common.json)
        return output_json(
            json_pack("{ss sI sb}", "key", name, "version", (json_int_t)version, "by_others", (int)by_others));
    printf("rotated key \"%s\": version %" PRIu32 " is the primary%s\n", name, version,
           by_others ? " (another process rotated at the same moment)" : "");
    return ENVELOPE_OK;
}

const struct cli_verb cli_verb_key_rotate = {.name = "key rotate",
                                             .arguments = "NAME",
                                             .summary = "make a new primary version; old ones go on decrypting",
                                             .least = 1,
                                             .most = 1,
                                             .options = rotate_options,
                                             .option_count = COUNT(rotate_options),
                                             .run = rotate};

/* ---- key suspend, key resume ---- */

static const struct cli_option state_options[] = {
    {"version", "N", "this version only; else the key as a whole", &given.version, NULL},
    {"reason", "TEXT", "noted in the history", &given.reason, NULL},
};

static envelope_status change_state(const char *name, bool suspend)
{
    uint64_t number = 0;
    envelope_status status = cli_number("version", given.version, 1, UINT32_MAX, &number);
    if (status != ENVELOPE_OK)
        return status;
    CLI_KEYRING ring = cli_open();
    if (!ring)
        return error_status();
    status = suspend ? keyring_suspend(ring, name, (uint32_t)number, given.reason)
                     : keyring_resume(ring, name, (uint32_t)number, given.reason);
    if (status != ENVELOPE_OK)
        return status;
    const char *done = suspend ? "suspended" : "resumed";
    if (cli_common.json)
        return output_json(json_pack("{ss so ss}", "key", name, "version",
                                     number ? json_integer((json_int_t)number) : json_null(), "did", done));
    if (number)
        printf("%s version %" PRIu64 " of key \"%s\"\n", done, number, name);
    else
        printf("%s key \"%s\"\n", done, name);
    return ENVELOPE_OK;
}

static envelope_status suspend_key(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    (void)count;
    return change_state(arguments[0], true);
}

static envelope_status resume_key(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    (void)count;
    return change_state(arguments[0], false);
}

const struct cli_verb cli_verb_key_suspend = {.name = "key suspend",
                                              .arguments = "NAME",
                                              .summary = "forbid every use, until resumed",
                                              .least = 1,
                                              .most = 1,
                                              .options = state_options,
                                              .option_count = COUNT(state_options),
                                              .run = suspend_key};

const struct cli_verb cli_verb_key_resume = {.name = "key resume",
                                             .arguments = "NAME",
                                             .summary = "allow use again",
                                             .least = 1,
                                             .most = 1,
                                             .options = state_options,
                                             .option_count = COUNT(state_options),
                                             .run = resume_key};
