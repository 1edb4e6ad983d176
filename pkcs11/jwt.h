/* JSON Web Tokens by which a program proves who it is (RFC 7515, 7523). libcrypto signs. */
#ifndef PKCS11_JWT_H
#define PKCS11_JWT_H

#include <openssl/evp.h>

#include <envelope/status.h>

#include "buffer.h"

enum jwt_algorithm { JWT_RS256, JWT_PS256 };

/* For libcrypto's readers of PEM, which would ask at the terminal otherwise. */
int jwt_no_passphrase(char *text, int size, int writing, void *context);
/* The RSA private key in a text in PEM form; NULL with the error raised. A key that wants a passphrase is none. */
EVP_PKEY *jwt_read_key(const struct buffer *pem);
/* Both parts, JSON, as HEADER.CLAIMS.SIGNATURE into jwt. Raises. */
envelope_status jwt_sign(const struct buffer *header, const struct buffer *claims, enum jwt_algorithm algorithm,
                         EVP_PKEY *key, struct buffer *jwt);

#endif
