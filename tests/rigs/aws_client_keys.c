/*
 * Of aws-client: data keys, versions and batches.
 *
 *   data-key LABEL AAD N           "ok BLOB PLAINTEXT", and " here" if the module made it
 *   wrapped-key LABEL AAD N        "ok BLOB", and " here"
 *   versions LABEL                 "ok LATEST MIN-DECRYPTION MIN-ENCRYPTION"
 *   rotate LABEL                   "ok VERSION"
 *   min-versions LABEL D E         "-" leaves one as it is
 *   many encrypt|decrypt|rewrap LABEL TO|- ITEM…
 *                                  ITEM is AAD:HEX, or AAD>AAD:HEX for rewrap; a leading "?" asks for a dry run. The
 *                                  answer: "ok" or "CKR_… text", then " | ok:HEX" (" | left:HEX" if the plaintext
 *                                  left the service) or " | CKR_…" for each
 *   files                          "ok COUNT": open files of this process
 *   many-arguments LABEL           what crypt_many and generate_data_key say to what is no good
 *   many-round LABEL COUNT         COUNT pieces encrypted, rewrapped to other associated data, decrypted, compared
 */
#include "aws_client.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS_MAX = 64, ROUND_MAX = 5000, AAD_SIZE = 24, VALUE_SIZE = 32, ROUND_BLOB = 512 };

static void answer_failure(CK_RV rv)
{
    CK_ENVELOPE_KMS_MESSAGE message;
    vendor->last_message(session, &message, sizeof message);
    printf("%s %s [%s]", rv_name(rv), message.text, message.service_code);
}

static CK_RV data_key(char *const word[], bool wanted)
{
    static struct bytes blob, plain;
    CK_ENVELOPE_KMS_PARAMS params;
    CK_OBJECT_HANDLE key;
    CK_BBOOL here = CK_FALSE;
    mechanism_of(&params, word[2], 0);
    plain.length = strtoul(word[3], NULL, 10);
    blob.length = sizeof blob.data;
    if (plain.length > sizeof plain.data)
        return CKR_ARGUMENTS_BAD;
    CK_RV rv = find_key(session, word[1], CKO_SECRET_KEY, &key);
    if (rv == CKR_OK)
        rv = vendor->generate_data_key(session, key, &params, plain.length, wanted ? plain.data : NULL, blob.data,
                                       &blob.length, &here);
    if (rv != CKR_OK)
        return rv;
    printf("ok");
    print_hex(&blob);
    if (wanted)
        print_hex(&plain);
    printf("%s", here ? " here" : "");
    return CKR_OK;
}

static CK_RV versions(const char *label)
{
    CK_ENVELOPE_KMS_VERSIONS found;
    CK_OBJECT_HANDLE key;
    CK_RV rv = find_key(session, label, CKO_SECRET_KEY, &key);
    if (rv == CKR_OK)
        rv = vendor->get_versions(session, key, &found, sizeof found);
    if (rv == CKR_OK)
        printf("ok %lu %lu %lu", found.latest, found.min_decryption, found.min_encryption);
    return rv;
}

static CK_RV rotate(const char *label)
{
    unsigned long version = 0;
    CK_OBJECT_HANDLE key;
    CK_RV rv = find_key(session, label, CKO_SECRET_KEY, &key);
    if (rv == CKR_OK)
        rv = vendor->rotate_key(session, key, &version);
    if (rv == CKR_OK)
        printf("ok %lu", version);
    return rv;
}

static unsigned long limit(const char *text)
{
    return strcmp(text, "-") == 0 ? CK_UNAVAILABLE_INFORMATION : strtoul(text, NULL, 10);
}

static CK_RV min_versions(char *const word[])
{
    CK_OBJECT_HANDLE key;
    CK_RV rv = find_key(session, word[1], CKO_SECRET_KEY, &key);
    if (rv == CKR_OK)
        rv = vendor->set_min_versions(session, key, limit(word[2]), limit(word[3]));
    if (rv == CKR_OK)
        printf("ok");
    return rv;
}

/* --- many --- */

struct piece {
    CK_ENVELOPE_KMS_PARAMS from, to;
    struct bytes in, out;
};

/* [?]AAD[>AAD]:HEX, cut up in place. */
static bool read_item(char *text, struct piece *piece, CK_ENVELOPE_KMS_ITEM *item)
{
    CK_FLAGS flags = *text == '?' ? CKF_ENVELOPE_KMS_DRY_RUN : 0;
    char *colon = strrchr(text, ':');
    if (!colon || !unhex(colon + 1, &piece->in))
        return false;
    *colon = '\0';
    char *other = strchr(text, '>');
    if (other)
        *other++ = '\0';
    mechanism_of(&piece->from, text + (flags != 0), flags);
    mechanism_of(&piece->to, other ? other : "-", 0);
    *item = (CK_ENVELOPE_KMS_ITEM){.params = &piece->from,
                                   .to_params = other ? &piece->to : NULL,
                                   .in = piece->in.data,
                                   .in_len = piece->in.length,
                                   .out = piece->out.data,
                                   .out_len = sizeof piece->out.data};
    return true;
}

static void print_items(struct piece *pieces, const CK_ENVELOPE_KMS_ITEM *items, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        printf(" | %s", items[i].rv != CKR_OK ? rv_name(items[i].rv) : items[i].plaintext_left ? "left:" : "ok:");
        pieces[i].out.length = items[i].out_len;
        for (CK_ULONG at = 0; items[i].rv == CKR_OK && at < items[i].out_len; at++)
            printf("%02x", pieces[i].out.data[at]);
    }
}

static unsigned long operation_of(const char *name)
{
    return *name == 'e' ? CK_ENVELOPE_KMS_ENCRYPT : *name == 'd' ? CK_ENVELOPE_KMS_DECRYPT : CK_ENVELOPE_KMS_REWRAP;
}

static CK_RV many(int count, char *const word[])
{
    static struct piece pieces[ITEMS_MAX];
    CK_ENVELOPE_KMS_ITEM items[ITEMS_MAX];
    CK_OBJECT_HANDLE key, key_to = CK_INVALID_HANDLE;
    unsigned long number = (unsigned long)count - 4;
    if (number > ITEMS_MAX)
        return CKR_ARGUMENTS_BAD;
    for (unsigned long i = 0; i < number; i++)
        if (!read_item(word[4 + i], &pieces[i], &items[i]))
            return CKR_ARGUMENTS_BAD;
    CK_RV rv = find_key(session, word[2], CKO_SECRET_KEY, &key);
    if (rv == CKR_OK && strcmp(word[3], "-") != 0)
        rv = find_key(session, word[3], CKO_SECRET_KEY, &key_to);
    if (rv != CKR_OK)
        return rv;
    for (unsigned long i = 0; i < number; i++)
        items[i].rv = CKR_GENERAL_ERROR; /* so that one not touched is seen */
    rv = vendor->crypt_many(session, operation_of(word[1]), key, key_to, items, number, sizeof items[0]);
    if (rv == CKR_OK)
        printf("ok");
    else
        answer_failure(rv);
    print_items(pieces, items, number);
    return CKR_OK;
}

/* --- a round trip of many pieces --- */

struct round {
    unsigned long count;
    CK_ENVELOPE_KMS_ITEM *items;
    CK_ENVELOPE_KMS_PARAMS *params;
    char (*aad)[AAD_SIZE];
    CK_BYTE *values, *blobs, *moved;
};

static void aim(struct round *round, const CK_BYTE *in, CK_BYTE *out, size_t out_size)
{
    for (unsigned long i = 0; i < round->count; i++) {
        CK_ENVELOPE_KMS_ITEM *item = &round->items[i];
        unsigned long length = item->out_len;
        *item = (CK_ENVELOPE_KMS_ITEM){.params = &round->params[i],
                                       .in = in + i * (in == round->values ? VALUE_SIZE : ROUND_BLOB),
                                       .in_len = in == round->values ? VALUE_SIZE : length,
                                       .out = out + i * out_size,
                                       .out_len = out_size};
    }
}

static void bind(struct round *round, const char *word)
{
    for (unsigned long i = 0; i < round->count; i++) {
        snprintf(round->aad[i], AAD_SIZE, "%s %lu", word, i);
        mechanism_of(&round->params[i], round->aad[i], 0);
    }
}

static CK_RV all_of(struct round *round, unsigned long operation, CK_OBJECT_HANDLE key)
{
    CK_OBJECT_HANDLE to = operation == CK_ENVELOPE_KMS_REWRAP ? key : CK_INVALID_HANDLE;
    return vendor->crypt_many(session, operation, key, to, round->items, round->count, sizeof round->items[0]);
}

/* Encrypt; rewrap from one binding to the other, which shares its memory, so both are kept; decrypt; compare. */
static CK_RV go_round(struct round *round, CK_OBJECT_HANDLE key)
{
    CK_ENVELOPE_KMS_PARAMS *other = calloc(round->count, sizeof *other);
    CK_BYTE *back = calloc(round->count, VALUE_SIZE);
    CK_RV rv = other && back ? CKR_OK : CKR_HOST_MEMORY;
    if (rv == CKR_OK) {
        bind(round, "first");
        for (unsigned long i = 0; i < round->count * VALUE_SIZE; i++)
            round->values[i] = (CK_BYTE)(i * 131 >> 3);
        aim(round, round->values, round->blobs, ROUND_BLOB);
        rv = all_of(round, CK_ENVELOPE_KMS_ENCRYPT, key);
    }
    if (rv == CKR_OK) {
        aim(round, round->blobs, round->moved, ROUND_BLOB);
        for (unsigned long i = 0; i < round->count; i++) {
            other[i] = (CK_ENVELOPE_KMS_PARAMS){.pAAD = (unsigned char *)"moved", .ulAADLen = 5};
            round->items[i].to_params = i % 7 ? &other[i] : NULL;
        }
        rv = all_of(round, CK_ENVELOPE_KMS_REWRAP, key);
    }
    if (rv == CKR_OK) {
        aim(round, round->moved, back, VALUE_SIZE);
        for (unsigned long i = 0; i < round->count; i++)
            round->items[i].params = i % 7 ? &other[i] : NULL;
        rv = all_of(round, CK_ENVELOPE_KMS_DECRYPT, key);
    }
    if (rv == CKR_OK && memcmp(back, round->values, round->count * VALUE_SIZE) != 0)
        rv = CKR_GENERAL_ERROR;
    free(other);
    free(back);
    return rv;
}

static CK_RV many_round(char *const word[])
{
    struct round round = {.count = strtoul(word[2], NULL, 10)};
    CK_OBJECT_HANDLE key;
    if (!round.count || round.count > ROUND_MAX)
        return CKR_ARGUMENTS_BAD;
    round.items = calloc(round.count, sizeof *round.items);
    round.params = calloc(round.count, sizeof *round.params);
    round.aad = calloc(round.count, sizeof *round.aad);
    round.values = calloc(round.count, VALUE_SIZE);
    round.blobs = calloc(round.count, ROUND_BLOB);
    round.moved = calloc(round.count, ROUND_BLOB);
    CK_RV rv = CKR_HOST_MEMORY;
    if (round.items && round.params && round.aad && round.values && round.blobs && round.moved) {
        rv = find_key(session, word[1], CKO_SECRET_KEY, &key);
        if (rv == CKR_OK)
            rv = go_round(&round, key);
    }
    free(round.items);
    free(round.params);
    free(round.aad);
    free(round.values);
    free(round.blobs);
    free(round.moved);
    if (rv == CKR_OK)
        printf("ok");
    return rv;
}

static bool wrong_arguments_are_refused(CK_OBJECT_HANDLE key)
{
    CK_BYTE out[BLOB_MAX], in[16] = {0};
    CK_ENVELOPE_KMS_PARAMS bad = {.ulAADLen = 3}, strange = {.flags = 64};
    CK_ENVELOPE_KMS_ITEM item = {.in = in, .in_len = sizeof in, .out = out, .out_len = sizeof out};
    unsigned long size = sizeof item;
    unsigned long length = sizeof out;
    CK_ENVELOPE_KMS_ITEM items[] = {item, item, item, item, item};
    items[0].params = &bad;
    items[1].params = &strange;
    items[2].in = NULL;
    items[3].in_len = 0;
    items[4].to_params = &(CK_ENVELOPE_KMS_PARAMS){0};
    CK_RV first = vendor->crypt_many(session, CK_ENVELOPE_KMS_ENCRYPT, key, 0, items, 5, size);
    return vendor->crypt_many(session, CK_ENVELOPE_KMS_ENCRYPT, key, 0, NULL, 1, size) == CKR_ARGUMENTS_BAD &&
           vendor->crypt_many(session, CK_ENVELOPE_KMS_ENCRYPT, key, 0, &item, 0, size) == CKR_ARGUMENTS_BAD &&
           vendor->crypt_many(session, CK_ENVELOPE_KMS_ENCRYPT, key, 0, &item, 1, size - 1) == CKR_ARGUMENTS_BAD &&
           vendor->crypt_many(session, CK_ENVELOPE_KMS_ENCRYPT, key, key, &item, 1, size) == CKR_ARGUMENTS_BAD &&
           vendor->crypt_many(session, 0, key, 0, &item, 1, size) == CKR_ARGUMENTS_BAD &&
           vendor->crypt_many(session, CK_ENVELOPE_KMS_REWRAP, key, 0, &item, 1, size) == CKR_KEY_HANDLE_INVALID &&
           vendor->crypt_many(session, CK_ENVELOPE_KMS_ENCRYPT, 77777, 0, &item, 1, size) == CKR_KEY_HANDLE_INVALID &&
           vendor->crypt_many(0, CK_ENVELOPE_KMS_ENCRYPT, key, 0, &item, 1, size) == CKR_SESSION_HANDLE_INVALID &&
           vendor->generate_data_key(session, key, NULL, 32, NULL, out, NULL, NULL) == CKR_ARGUMENTS_BAD &&
           vendor->generate_data_key(session, key, NULL, 0, NULL, out, &length, NULL) == CKR_DATA_LEN_RANGE &&
           vendor->batch_size(session, NULL) == CKR_ARGUMENTS_BAD &&
           vendor->batch_size(0, &length) == CKR_SESSION_HANDLE_INVALID &&
           vendor->batch_size(session, &length) == CKR_OK && (length == 1 || length == 200) &&
           vendor->get_versions(session, key, NULL, 0) == CKR_ARGUMENTS_BAD && first == CKR_MECHANISM_PARAM_INVALID &&
           items[1].rv == CKR_MECHANISM_PARAM_INVALID && items[2].rv == CKR_ARGUMENTS_BAD &&
           items[3].rv == CKR_DATA_LEN_RANGE && items[4].rv == CKR_MECHANISM_PARAM_INVALID;
}

/* The room needed is told without asking the service; too little of it costs that item only. */
static bool room_is_kept_to(CK_OBJECT_HANDLE key)
{
    static CK_BYTE out[2][BLOB_MAX];
    CK_BYTE in[16] = {0};
    CK_ENVELOPE_KMS_ITEM items[3] = {{.in = in, .in_len = sizeof in},
                                     {.in = in, .in_len = sizeof in, .out = out[0], .out_len = 3},
                                     {.in = in, .in_len = sizeof in, .out = out[1], .out_len = sizeof out[1]}};
    memset(out, 0x5a, sizeof out);
    CK_RV rv = vendor->crypt_many(session, CK_ENVELOPE_KMS_ENCRYPT, key, 0, items, 3, sizeof items[0]);
    CK_BYTE plaintext[32] = {0}, none[32] = {0};
    unsigned long length = 3, room = 0;
    CK_RV small = vendor->generate_data_key(session, key, NULL, 32, plaintext, out[0], &length, NULL);
    CK_RV asked = vendor->generate_data_key(session, key, NULL, 32, NULL, NULL, &room, NULL);
    return rv == CKR_BUFFER_TOO_SMALL && items[0].rv == CKR_OK && items[0].out_len >= items[2].out_len &&
           items[1].rv == CKR_BUFFER_TOO_SMALL && items[1].out_len > 3 && out[0][0] == 0x5a && items[2].rv == CKR_OK &&
           small == CKR_BUFFER_TOO_SMALL && length > 3 && memcmp(plaintext, none, sizeof none) == 0 &&
           asked == CKR_OK && room >= length;
}

static CK_RV many_arguments(const char *label)
{
    CK_OBJECT_HANDLE key;
    CK_RV rv = find_key(session, label, CKO_SECRET_KEY, &key);
    if (rv == CKR_OK && !wrong_arguments_are_refused(key))
        rv = CKR_ARGUMENTS_BAD;
    if (rv == CKR_OK && !room_is_kept_to(key))
        rv = CKR_BUFFER_TOO_SMALL;
    if (rv == CKR_OK)
        printf("ok");
    return rv;
}

static CK_RV files(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        return CKR_GENERAL_ERROR;
    for (const struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    printf("ok %u", count - 1); /* without this directory */
    return CKR_OK;
}

bool keys_command(int count, char *const word[])
{
    const char *verb = word[0];
    CK_RV rv;
    if (count == 4 && (strcmp(verb, "data-key") == 0 || strcmp(verb, "wrapped-key") == 0))
        rv = data_key(word, *verb == 'd');
    else if (count == 2 && strcmp(verb, "versions") == 0)
        rv = versions(word[1]);
    else if (count == 2 && strcmp(verb, "rotate") == 0)
        rv = rotate(word[1]);
    else if (count == 4 && strcmp(verb, "min-versions") == 0)
        rv = min_versions(word);
    else if (count >= 5 && strcmp(verb, "many") == 0)
        rv = many(count, word);
    else if (count == 2 && strcmp(verb, "many-arguments") == 0)
        rv = many_arguments(word[1]);
    else if (count == 1 && strcmp(verb, "files") == 0)
        rv = files();
    else if (count == 3 && strcmp(verb, "many-round") == 0)
        rv = many_round(word);
    else
        return false;
    if (rv != CKR_OK)
        answer_failure(rv);
    printf("\n");
    return true;
}
