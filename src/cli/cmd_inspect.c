#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/text.h"
#include "cli/output.h"
#include "lifecycle/lifecycle.h"

static envelope_status read_head(const char *path, uint8_t head[LIFECYCLE_HEAD_SIZE], size_t *length)
{
    bool standard = strcmp(path, "-") == 0;
    int file = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return error_raise(ENVELOPE_E_IO, "%s", strerror(errno));
    envelope_status status = ENVELOPE_OK;
    *length = 0;
    while (*length < LIFECYCLE_HEAD_SIZE) {
        ssize_t got = read(file, head + *length, LIFECYCLE_HEAD_SIZE - *length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            status = error_raise(ENVELOPE_E_IO, "%s", strerror(errno));
        if (got <= 0)
            break;
        *length += (size_t)got;
    }
    if (!standard)
        close(file);
    return status;
}

static const char *subject_text(enum lifecycle_subject subject)
{
    return subject == LIFECYCLE_REFERENCE ? "key reference" : "ciphertext";
}

static json_t *found_json(const char *path, const struct lifecycle_inspection *found)
{
    return json_pack("{ss ss ss sI ss sb sI ss so}", "file", path, "is", subject_text(found->subject), "key",
                     found->key_name, "version", (json_int_t)found->version, "state",
                     store_version_state_text(found->state), "primary", (int)found->primary, "dek_id",
                     (json_int_t)found->dek_id, "key_state", store_key_state_text(found->key_state), "created",
                     output_json_time(found->created));
}

static void found_text(const char *path, const struct lifecycle_inspection *found)
{
    printf("%s: %s, key \"%s\", version %" PRIu32 "%s, %s", path, subject_text(found->subject), found->key_name,
           found->version, found->primary ? " (primary)" : "", store_version_state_text(found->state));
    if (found->key_state != STORE_KEY_ENABLED)
        printf(" (the key is %s)", store_key_state_text(found->key_state));
    printf(", DEK id %" PRIu32 "\n", found->dek_id);
}

static envelope_status inspect_one(store *keys, const char *path, json_t *array)
{
    uint8_t head[LIFECYCLE_HEAD_SIZE];
    size_t length = 0;
    struct lifecycle_inspection found;
    char shown[512];
    text_printable(path, strlen(path), shown, sizeof(shown));
    envelope_status status = read_head(path, head, &length);
    if (status == ENVELOPE_OK)
        status = lifecycle_inspect(keys, head, length, &found);
    if (status != ENVELOPE_OK)
        return error_context(status, "%s", shown);
    if (array)
        return output_json_append(array, found_json(shown, &found));
    found_text(shown, &found);
    return ENVELOPE_OK;
}

/* Every file is looked at; of several failures the last one decides the exit status, the others have their line. */
static envelope_status run(const struct cli_verb *verb, int count, char **arguments)
{
    (void)verb;
    CLI_KEYRING ring = cli_open();
    store *keys = ring ? keyring_store(ring) : NULL;
    if (!keys)
        return error_status();
    json_t *array = cli_common.json ? json_array() : NULL;
    envelope_status worst = ENVELOPE_OK;
    for (int i = 0; i < count; i++) {
        if (worst != ENVELOPE_OK && *error_text()) {
            fprintf(stderr, "envelope: %s\n", error_text());
            error_clear();
        }
        envelope_status status = inspect_one(keys, arguments[i], array);
        if (status != ENVELOPE_OK)
            worst = status;
    }
    if (array && output_json(array) != ENVELOPE_OK)
        return error_status();
    return worst;
}

const struct cli_verb cli_verb_inspect = {
    .name = "inspect",
    .arguments = "FILE...",
    .summary = "which key and version a ciphertext is under; - is standard input",
    .least = 1,
    .most = -1,
    .run = run,
};
