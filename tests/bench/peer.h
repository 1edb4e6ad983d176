/*
 * libmongocrypt's explicit encryption of one value (AEAD_AES_256_CBC_HMAC_SHA_512,
 * random), its data key cached: the other field-level encryption that Debian has.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stddef.h>
#include <stdint.h>

enum { PEER_SIZE_MAX = 4096 };

struct peer;

/* NULL where the benchmark was built without libmongocrypt. */
struct peer *peer_new(void);
void peer_free(struct peer *peer);
void peer_encrypt(void *peer, size_t size, uint64_t messages);

#endif
