/* Which keys there are: ListKeys, ListAliases, DescribeKey, GetPublicKey. */
#include "aws.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "json.h"
#include "web.h"

enum { KEYS_MAX = 10000, NAME_MAX_LENGTH = 2048 };

enum stage { STAGE_LIST_KEYS, STAGE_LIST_ALIASES, STAGE_DESCRIBE, STAGE_PUBLIC_KEY };

/* One key on its way: what to ask DescribeKey for, and the names that lead to it. */
struct candidate {
    char *name;
    char **aliases;
    size_t alias_count;
};

struct survey {
    struct candidate *items;
    size_t count, at;
    char *marker;
    bool from_list; /* a key that vanished meanwhile is no error */
};

static void survey_free(void *work)
{
    struct survey *survey = work;
    for (size_t i = 0; i < survey->count; i++) {
        for (size_t k = 0; k < survey->items[i].alias_count; k++)
            free(survey->items[i].aliases[k]);
        free(survey->items[i].aliases);
        free(survey->items[i].name);
    }
    free(survey->items);
    free(survey->marker);
    free(survey);
}

static enum backend_step no_memory(struct backend_call *call)
{
    return backend_fail(call, CKR_HOST_MEMORY, error_raise(ENVELOPE_E_NO_MEMORY, "no memory for the list of keys"));
}

static bool add_candidate(struct survey *survey, const char *name, size_t length)
{
    if (survey->count == KEYS_MAX)
        return false;
    struct candidate *items = reallocarray(survey->items, survey->count + 1, sizeof *items);
    if (!items)
        return false;
    survey->items = items;
    items[survey->count] = (struct candidate){.name = strndup(name, length)};
    return items[survey->count++].name != NULL;
}

static bool add_alias(struct candidate *candidate, const char *alias)
{
    char **aliases = reallocarray(candidate->aliases, candidate->alias_count + 1, sizeof *aliases);
    if (!aliases)
        return false;
    candidate->aliases = aliases;
    aliases[candidate->alias_count] = text_copy(alias);
    return aliases[candidate->alias_count] && ++candidate->alias_count;
}

static enum backend_step ask_list(const struct aws *aws, struct backend_call *call, const char *action,
                                  struct http_request *request)
{
    const struct survey *survey = call->work;
    http_request_clear(request);
    enum backend_step step = aws_request_open(aws, call, action, request);
    if (step != BACKEND_SEND)
        return step;
    buffer_append_text(&request->body, "\"Limit\":100");
    if (survey->marker)
        web_body_text(request, "Marker", survey->marker);
    return web_body_close(call, request);
}

static enum backend_step ask_about(const struct aws *aws, struct backend_call *call, const char *action,
                                   const char *name, struct http_request *request)
{
    http_request_clear(request);
    enum backend_step step = aws_request_open(aws, call, action, request);
    if (step != BACKEND_SEND)
        return step;
    char *id = aws_local_id(aws, call, name);
    if (!id)
        return BACKEND_FAILED;
    web_body_text(request, "KeyId", id);
    free(id);
    aws_add_grants(aws, request); /* a grant may take minutes to be known without its token */
    return web_body_close(call, request);
}

/* --- The answers --- */

/* Notes where the next page begins; *more tells whether there is one. */
static enum backend_step next_page(struct backend_call *call, const char *action, const json_t *root, bool *more)
{
    struct survey *survey = call->work;
    const char *marker = json_member(root, "NextMarker");
    *more = json_is_true(json_object_get(root, "Truncated"));
    if (*more && (!marker || (survey->marker && strcmp(marker, survey->marker) == 0)))
        return aws_bad_reply(call, action, "a list that does not come to its end");
    free(survey->marker);
    survey->marker = *more ? text_copy(marker) : NULL;
    return *more && !survey->marker ? no_memory(call) : BACKEND_DONE;
}

static enum backend_step read_keys(struct backend_call *call, const json_t *root)
{
    struct survey *survey = call->work;
    json_t *keys = json_object_get(root, "Keys"), *item;
    size_t i;
    if (!json_is_array(keys))
        return aws_bad_reply(call, "ListKeys", "no list of keys");
    json_array_foreach(keys, i, item)
    {
        const char *arn = json_member(item, "KeyArn");
        if (!arn || strlen(arn) > NAME_MAX_LENGTH)
            return aws_bad_reply(call, "ListKeys", "a key without its ARN");
        if (survey->count == KEYS_MAX)
            return backend_fail(call, CKR_DEVICE_MEMORY,
                                error_raise(ENVELOPE_E_HSM,
                                            "the account has over %d keys; name the ones to show with "
                                            "keys = alias/…, …",
                                            (int)KEYS_MAX));
        if (!add_candidate(survey, arn, strlen(arn)))
            return no_memory(call);
    }
    return BACKEND_DONE;
}

static enum backend_step read_aliases(struct backend_call *call, const json_t *root)
{
    struct survey *survey = call->work;
    json_t *aliases = json_object_get(root, "Aliases"), *item;
    size_t i;
    if (!json_is_array(aliases))
        return aws_bad_reply(call, "ListAliases", "no list of aliases");
    json_array_foreach(aliases, i, item)
    {
        const char *name = json_member(item, "AliasName"), *id = json_member(item, "TargetKeyId");
        if (!name || !id || !*id)
            continue; /* AWS's own aliases point nowhere until first used */
        size_t id_length = strlen(id);
        for (size_t k = 0; k < survey->count; k++) {
            size_t length = strlen(survey->items[k].name);
            if (length > id_length && survey->items[k].name[length - id_length - 1] == '/' &&
                strcmp(survey->items[k].name + length - id_length, id) == 0 && !add_alias(&survey->items[k], name))
                return no_memory(call);
        }
    }
    return BACKEND_DONE;
}

static bool read_spec(const char *spec, struct backend_key *key)
{
    static const struct {
        const char *name;
        enum backend_key_type type;
        unsigned bits;
    } specs[] = {{"SYMMETRIC_DEFAULT", BACKEND_KEY_SYMMETRIC, 256},
                 {"RSA_2048", BACKEND_KEY_RSA, 2048},
                 {"RSA_3072", BACKEND_KEY_RSA, 3072},
                 {"RSA_4096", BACKEND_KEY_RSA, 4096}};
    for (size_t i = 0; spec && i < sizeof specs / sizeof specs[0]; i++)
        if (strcmp(spec, specs[i].name) == 0) {
            key->type = specs[i].type;
            key->bits = specs[i].bits;
            return true;
        }
    return false;
}

static char *label_from(const char *arn)
{
    const char *slash = strrchr(arn, '/');
    return text_copy(slash ? slash + 1 : arn);
}

enum backend_step aws_read_metadata(struct backend_call *call, const char *action, const struct http_reply *reply,
                                    const char *label, struct backend_key *key, bool *usable)
{
    json_t *root = json_read(&reply->body);
    const json_t *data = root ? json_object_get(root, "KeyMetadata") : NULL;
    const char *arn = data ? json_member(data, "Arn") : NULL;
    const char *state = data ? json_member(data, "KeyState") : NULL;
    const char *usage = data ? json_member(data, "KeyUsage") : NULL;
    const char *manager = data ? json_member(data, "KeyManager") : NULL;
    const char *spec = data ? json_member(data, "KeySpec") : NULL;
    if (!spec && data)
        spec = json_member(data, "CustomerMasterKeySpec");
    enum backend_step step = BACKEND_DONE;
    if (!arn || !*arn || strlen(arn) > NAME_MAX_LENGTH || !state || !usage) {
        step = aws_bad_reply(call, action, "no description of the key");
        goto out;
    }
    snprintf(key->state, sizeof key->state, "%s", state);
    key->enabled = strcmp(state, "Enabled") == 0;
    key->can_encrypt = key->can_decrypt = true;
    const char *origin = json_member(data, "Origin");
    key->imported = origin && strcmp(origin, "EXTERNAL") == 0;
    key->created = (int64_t)(json_number_value(json_object_get(data, "CreationDate")) * CLOCK_SECOND);
    *usable = read_spec(spec, key) && strcmp(usage, "ENCRYPT_DECRYPT") == 0 &&
              (!manager || strcmp(manager, "CUSTOMER") == 0) && strcmp(state, "PendingDeletion") != 0 &&
              strcmp(state, "PendingReplicaDeletion") != 0;
    key->id = text_copy(arn);
    key->label = label ? text_copy(label) : label_from(arn);
    if (!key->id || !key->label)
        step = no_memory(call);
out:
    json_decref(root);
    return step;
}

/* alias/NAME, or, for those of other accounts, arn:…:alias/NAME. */
static bool is_alias(const char *name)
{
    return strncmp(name, "alias/", 6) == 0 || (strncmp(name, "arn:", 4) == 0 && strstr(name, ":alias/"));
}

static enum backend_step take_key(struct backend_call *call, const struct http_reply *reply, bool *rsa)
{
    struct survey *survey = call->work;
    struct candidate *candidate = &survey->items[survey->at];
    struct backend_key *key = backend_add_key(call);
    if (!key)
        return BACKEND_FAILED;
    bool usable = false;
    const char *label = candidate->alias_count ? candidate->aliases[0] : NULL;
    if (!label && is_alias(candidate->name))
        label = candidate->name;
    enum backend_step step = aws_read_metadata(call, "DescribeKey", reply, label, key, &usable);
    if (step != BACKEND_DONE)
        return step;
    if (!usable) {
        backend_note(call, "KeyState", key->state, NULL);
        backend_key_clear(key);
        call->keys.count--;
        return BACKEND_DONE;
    }
    if (candidate->alias_count) {
        char **ended = reallocarray(candidate->aliases, candidate->alias_count + 1, sizeof *ended);
        if (!ended)
            return no_memory(call);
        ended[candidate->alias_count] = NULL;
        key->aliases = ended;
        candidate->aliases = NULL;
        candidate->alias_count = 0;
    }
    *rsa = key->type == BACKEND_KEY_RSA;
    return BACKEND_DONE;
}

enum backend_step aws_read_public_key(struct backend_call *call, const struct http_reply *reply,
                                      struct backend_key *key)
{
    json_t *root = json_read(&reply->body);
    const char *text = root ? json_member(root, "PublicKey") : NULL;
    struct buffer der = {0};
    bool ok = text && buffer_append_unbase64(&der, text, strlen(text)) && der.length;
    json_decref(root);
    if (ok) {
        key->public_key = malloc(der.length);
        if (key->public_key) {
            memcpy(key->public_key, der.bytes, der.length);
            key->public_key_length = der.length;
        }
    }
    buffer_clear(&der);
    if (!ok)
        return aws_bad_reply(call, "GetPublicKey", "no public key");
    return key->public_key ? BACKEND_DONE : no_memory(call);
}

/* --- The order of things --- */

static enum backend_step next_candidate(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    struct survey *survey = call->work;
    if (survey->at == survey->count)
        return BACKEND_DONE;
    call->stage = STAGE_DESCRIBE;
    return ask_about(aws, call, "DescribeKey", survey->items[survey->at].name, request);
}

static enum backend_step begin(const struct aws *aws, struct backend_call *call, struct http_request *request)
{
    struct survey *survey = calloc(1, sizeof *survey);
    if (!survey)
        return no_memory(call);
    call->work = survey;
    call->work_free = survey_free;
    if (call->op == BACKEND_DESCRIBE) {
        if (!add_candidate(survey, call->key, strlen(call->key)))
            return no_memory(call);
        return next_candidate(aws, call, request);
    }
    const char *list = aws->settings->keys;
    if (!list) {
        survey->from_list = true;
        call->stage = STAGE_LIST_KEYS;
        return ask_list(aws, call, "ListKeys", request);
    }
    while (*(list += strspn(list, ", \t"))) {
        size_t length = strcspn(list, ", \t");
        if (!add_candidate(survey, list, length))
            return no_memory(call);
        list += length;
    }
    return next_candidate(aws, call, request);
}

static enum backend_step on_list(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                 struct http_request *request)
{
    bool keys = call->stage == STAGE_LIST_KEYS, more = false;
    const char *action = keys ? "ListKeys" : "ListAliases";
    json_t *root = json_read(&reply->body);
    if (!root)
        return aws_bad_reply(call, action, "not a JSON object");
    enum backend_step step = keys ? read_keys(call, root) : read_aliases(call, root);
    if (step == BACKEND_DONE)
        step = next_page(call, action, root, &more);
    json_decref(root);
    if (step != BACKEND_DONE)
        return step;
    if (more)
        return ask_list(aws, call, action, request);
    if (!keys)
        return next_candidate(aws, call, request);
    call->stage = STAGE_LIST_ALIASES;
    return ask_list(aws, call, "ListAliases", request);
}

static enum backend_step on_description(const struct aws *aws, struct backend_call *call,
                                        const struct http_reply *reply, struct http_request *request)
{
    struct survey *survey = call->work;
    bool rsa = false;
    enum backend_step step = take_key(call, reply, &rsa);
    if (step != BACKEND_DONE)
        return step;
    if (rsa) {
        call->stage = STAGE_PUBLIC_KEY;
        return ask_about(aws, call, "GetPublicKey", call->keys.items[call->keys.count - 1].id, request);
    }
    survey->at++;
    return next_candidate(aws, call, request);
}

/* Some failures mean "this key is not for us", which is an answer. */
static bool is_an_answer(const struct backend_call *call)
{
    const struct survey *survey = call->work;
    if (call->stage == STAGE_DESCRIBE && strcmp(call->service_code, "NotFoundException") == 0)
        return true;
    if (call->stage == STAGE_DESCRIBE && call->op == BACKEND_DESCRIBE)
        return strcmp(call->service_code, "ValidationException") == 0 ||
               strcmp(call->service_code, "InvalidArnException") == 0;
    /* Listing may be allowed where describing one foreign key is not; a public key may be kept from us. */
    return (call->stage == STAGE_PUBLIC_KEY || (call->stage == STAGE_DESCRIBE && survey->from_list)) &&
           strncmp(call->service_code, "AccessDenied", 12) == 0;
}

enum backend_step aws_step_keys(const struct aws *aws, struct backend_call *call, const struct http_reply *reply,
                                struct http_request *request)
{
    static const char *const actions[] = {"ListKeys", "ListAliases", "DescribeKey", "GetPublicKey"};
    if (!reply)
        return begin(aws, call, request);
    struct survey *survey = call->work;
    enum backend_step step = aws_judge(call, actions[call->stage], reply);
    if (step == BACKEND_FAILED && is_an_answer(call)) {
        survey->at++;
        return next_candidate(aws, call, request);
    }
    if (step != BACKEND_DONE)
        return step;
    if (call->stage <= STAGE_LIST_ALIASES)
        return on_list(aws, call, reply, request);
    if (call->stage == STAGE_DESCRIBE)
        return on_description(aws, call, reply, request);
    step = aws_read_public_key(call, reply, &call->keys.items[call->keys.count - 1]);
    if (step != BACKEND_DONE)
        return step;
    survey->at++;
    return next_candidate(aws, call, request);
}
