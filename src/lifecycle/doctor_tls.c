/* In doctor's other process: does TLS work under this openssl.cnf? A handshake with ourselves, in memory. */
#include "lifecycle/doctor.h"

#include <stdbool.h>
#include <stddef.h>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

static X509 *make_certificate(EVP_PKEY *key)
{
    X509 *certificate = X509_new();
    X509_NAME *name = certificate ? X509_get_subject_name(certificate) : NULL;
    bool done = name && X509_set_version(certificate, X509_VERSION_3) == 1 &&
                ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) == 1 &&
                X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) &&
                X509_gmtime_adj(X509_getm_notAfter(certificate), 3600) &&
                X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"doctor", -1, -1, 0) == 1 &&
                X509_set_issuer_name(certificate, name) == 1 && X509_set_pubkey(certificate, key) == 1 &&
                X509_sign(certificate, key, EVP_sha256()) > 0;
    if (done)
        return certificate;
    X509_free(certificate);
    return NULL;
}

struct offer {
    int version;
    const char *cipher; /* NULL: a suite of TLS 1.3 */
    const char *suite;
};

static bool restrict_to(SSL_CTX *context, const struct offer *offer)
{
    return SSL_CTX_set_min_proto_version(context, offer->version) == 1 &&
           SSL_CTX_set_max_proto_version(context, offer->version) == 1 &&
           (!offer->cipher || SSL_CTX_set_cipher_list(context, offer->cipher) == 1) &&
           (!offer->suite || SSL_CTX_set_ciphersuites(context, offer->suite) == 1);
}

/* Turn by turn, until both ends are done or neither gets on. */
static bool shake(SSL *client, SSL *server)
{
    enum { TURNS = 20 };
    for (int i = 0; i < TURNS; i++) {
        int asked = SSL_do_handshake(client), answered = SSL_do_handshake(server);
        if (asked == 1 && answered == 1)
            return true;
        bool waits = (asked == 1 || SSL_get_error(client, asked) == SSL_ERROR_WANT_READ) &&
                     (answered == 1 || SSL_get_error(server, answered) == SSL_ERROR_WANT_READ);
        if (!waits)
            return false;
    }
    return false;
}

static bool exchange(SSL *client, SSL *server)
{
    char text[8] = "letter", read[8] = "";
    return SSL_write(client, text, sizeof(text)) == (int)sizeof(text) &&
           SSL_read(server, read, sizeof(read)) == (int)sizeof(read) &&
           SSL_write(server, read, sizeof(read)) == (int)sizeof(read) &&
           SSL_read(client, text, sizeof(text)) == (int)sizeof(text);
}

static bool connect_pair(SSL *client, SSL *server)
{
    BIO *near = NULL, *far = NULL;
    if (BIO_new_bio_pair(&near, 0, &far, 0) != 1)
        return false;
    SSL_set_bio(client, near, near);
    SSL_set_bio(server, far, far);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    return true;
}

static bool handshake(EVP_PKEY *key, X509 *certificate, const struct offer *offer)
{
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    SSL *client = NULL, *server = NULL;
    bool done = context && restrict_to(context, offer) && SSL_CTX_use_certificate(context, certificate) == 1 &&
                SSL_CTX_use_PrivateKey(context, key) == 1 && (client = SSL_new(context)) &&
                (server = SSL_new(context)) && connect_pair(client, server) && shake(client, server) &&
                exchange(client, server);
    SSL_free(client);
    SSL_free(server);
    SSL_CTX_free(context);
    return done;
}

int doctor_probe_tls(void)
{
    static const struct offer offers[] = {
        {TLS1_3_VERSION, NULL, "TLS_AES_256_GCM_SHA384"},
        {TLS1_3_VERSION, NULL, "TLS_CHACHA20_POLY1305_SHA256"},
        {TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384", NULL},
    };
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = key ? make_certificate(key) : NULL;
    bool done = certificate != NULL;
    for (size_t i = 0; done && i < sizeof(offers) / sizeof(*offers); i++)
        done = handshake(key, certificate, &offers[i]);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return done ? 0 : DOCTOR_PROBE_TLS;
}
