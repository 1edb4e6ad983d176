/* Encrypt or decrypt one message under the default key, as any program would. */
#ifndef INTEGRATION_ONE_MESSAGE_H
#define INTEGRATION_ONE_MESSAGE_H

#include <openssl/evp.h>

/* The length of what was written to out, or -1 with OpenSSL's error queue filled. out: 64 bytes more than in. */
static inline int one_message(EVP_CIPHER_CTX *context, const EVP_CIPHER *cipher, int encrypt, const unsigned char *in,
                              int in_length, unsigned char *out)
{
    static const unsigned char default_key[32];
    int updated = 0, finished = 0;
    if (EVP_CipherInit_ex2(context, cipher, default_key, NULL, encrypt, NULL) != 1 ||
        EVP_CipherUpdate(context, out, &updated, in, in_length) != 1 ||
        EVP_CipherFinal_ex(context, out + updated, &finished) != 1)
        return -1;
    return updated + finished;
}

#endif
