/*
 * 96-bit random nonces for AES-GCM (SP 800-38D, 8.2.2), cut from a block of
 * DRBG output that each thread keeps in secret memory. The block is zeroed in a
 * forked child, and zero means empty, so a nonce is never given out twice.
 */
#ifndef BASE_NONCE_H
#define BASE_NONCE_H

#include <stdint.h>

#include <envelope/status.h>

enum { NONCE_SIZE = 12 };
envelope_status nonce_next(uint8_t nonce[NONCE_SIZE]);

#endif
