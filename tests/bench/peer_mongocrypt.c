#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <mongocrypt/mongocrypt.h>

enum { KEY_ID_SIZE = 16, MASTER_SIZE = 96, DOCUMENT_MAX = 4096, VALUE_MAX = PEER_SIZE_MAX + 32 };

struct peer {
    mongocrypt_t *crypt;
    uint8_t key_id[KEY_ID_SIZE];
    uint8_t document[DOCUMENT_MAX]; /* the wrapped data key, as its key vault would give it */
    uint32_t document_length;
    uint8_t value[VALUE_MAX]; /* BSON { "v": binary } */
    mongocrypt_binary_t *key_id_view, *document_view;
};

static void require(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "bench: libmongocrypt: %s failed\n", what);
    exit(1);
}

static void put_i32(uint8_t *to, size_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static size_t make_value(uint8_t *to, size_t size)
{
    size_t length = 4 + 1 + 2 + 4 + 1 + size + 1;
    put_i32(to, length);
    memcpy(to + 4, "\x05v", 3); /* binary "v" */
    put_i32(to + 7, size);
    to[11] = 0;
    memset(to + 12, 'e', size);
    to[length - 1] = 0;
    return length;
}

static void make_data_key(struct peer *peer)
{
    mongocrypt_ctx_t *ctx = mongocrypt_ctx_new(peer->crypt);
    require(mongocrypt_ctx_setopt_masterkey_local(ctx) && mongocrypt_ctx_datakey_init(ctx), "making a data key");
    mongocrypt_binary_t *out = mongocrypt_binary_new();
    require(mongocrypt_ctx_state(ctx) == MONGOCRYPT_CTX_READY && mongocrypt_ctx_finalize(ctx, out),
            "making a data key");
    peer->document_length = mongocrypt_binary_len(out);
    require(peer->document_length <= DOCUMENT_MAX, "keeping a data key");
    memcpy(peer->document, mongocrypt_binary_data(out), peer->document_length);
    static const uint8_t id_field[] = {5, '_', 'i', 'd', 0, KEY_ID_SIZE, 0, 0, 0, 4};
    const uint8_t *at = memmem(peer->document, peer->document_length, id_field, sizeof id_field);
    require(at != NULL, "finding the data key's id");
    memcpy(peer->key_id, at + sizeof id_field, KEY_ID_SIZE);
    mongocrypt_binary_destroy(out);
    mongocrypt_ctx_destroy(ctx);
}

struct peer *peer_new(void)
{
    struct peer *peer = calloc(1, sizeof *peer);
    uint8_t master[MASTER_SIZE];
    require(peer != NULL, "memory");
    memset(master, 'm', sizeof master);
    peer->crypt = mongocrypt_new();
    mongocrypt_binary_t *view = mongocrypt_binary_new_from_data(master, sizeof master);
    require(mongocrypt_setopt_kms_provider_local(peer->crypt, view) && mongocrypt_init(peer->crypt), "setting up");
    mongocrypt_binary_destroy(view);
    make_data_key(peer);
    peer->key_id_view = mongocrypt_binary_new_from_data(peer->key_id, KEY_ID_SIZE);
    peer->document_view = mongocrypt_binary_new_from_data(peer->document, peer->document_length);
    return peer;
}

void peer_free(struct peer *peer)
{
    if (!peer)
        return;
    mongocrypt_binary_destroy(peer->key_id_view);
    mongocrypt_binary_destroy(peer->document_view);
    mongocrypt_destroy(peer->crypt);
    free(peer);
}

/* Only when the key is not in the library's cache. */
static void feed_key(struct peer *peer, mongocrypt_ctx_t *ctx)
{
    mongocrypt_binary_t *query = mongocrypt_binary_new();
    require(mongocrypt_ctx_mongo_op(ctx, query) && mongocrypt_ctx_mongo_feed(ctx, peer->document_view) &&
                mongocrypt_ctx_mongo_done(ctx),
            "giving the data key");
    mongocrypt_binary_destroy(query);
}

void peer_encrypt(void *state, size_t size, uint64_t messages)
{
    struct peer *peer = state;
    size_t length = make_value(peer->value, size);
    mongocrypt_binary_t *value = mongocrypt_binary_new_from_data(peer->value, (uint32_t)length);
    mongocrypt_binary_t *out = mongocrypt_binary_new();
    while (messages-- > 0) {
        mongocrypt_ctx_t *ctx = mongocrypt_ctx_new(peer->crypt);
        require(mongocrypt_ctx_setopt_key_id(ctx, peer->key_id_view) &&
                    mongocrypt_ctx_setopt_algorithm(ctx, "AEAD_AES_256_CBC_HMAC_SHA_512-Random", -1) &&
                    mongocrypt_ctx_explicit_encrypt_init(ctx, value),
                "beginning to encrypt");
        if (mongocrypt_ctx_state(ctx) == MONGOCRYPT_CTX_NEED_MONGO_KEYS)
            feed_key(peer, ctx);
        require(mongocrypt_ctx_state(ctx) == MONGOCRYPT_CTX_READY && mongocrypt_ctx_finalize(ctx, out), "encrypting");
        mongocrypt_ctx_destroy(ctx);
    }
    mongocrypt_binary_destroy(out);
    mongocrypt_binary_destroy(value);
}
