/* PKCS#11 URIs (RFC 7512), read strictly: what p11-kit would silently drop is refused, since less matches more. */
#ifndef HSM_URI_H
#define HSM_URI_H

#include <stdbool.h>
#include <stddef.h>

#include <p11-kit/pkcs11.h>
#include <p11-kit/uri.h>

#include <envelope/status.h>

struct hsm_uri {
    P11KitUri *parsed; /* without pin-value */
    char *token_text;  /* the token's part alone, for comparing and for messages */
    char *module_path; /* NULL: the configured module */
    char *pin_source;  /* NULL: the configured one */
    char *pin_value;   /* secret memory; NULL: none */
    bool has_class;
    CK_OBJECT_CLASS class; /* CKO_SECRET_KEY, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY */
    char object_name[64];  /* the label, or the id in hex; printable, for messages */
    char token_name[64];
};

/* ENVELOPE_E_KEK_URI. Does not mind whether an object or a token is named. */
envelope_status hsm_uri_parse(const char *text, struct hsm_uri **uri);
/* As hsm_check_uri says: names a token, and an object of a usable type. */
envelope_status hsm_uri_parse_kek(const char *text, struct hsm_uri **uri);
void hsm_uri_free(struct hsm_uri *uri);

#endif
