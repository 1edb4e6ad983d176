/*
 * Attributes of objects: of the service's keys, and of session objects (secret
 * keys of this process, such as C_UnwrapKey makes).
 */
#ifndef PKCS11_OBJECTS_H
#define PKCS11_OBJECTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "keys.h"

/* Session objects have handles from here on, the service's keys below. */
#define OBJECTS_SESSION_BASE ((CK_OBJECT_HANDLE)1 << 30)
enum { OBJECTS_VALUE_MAX = 4096, OBJECTS_MAX = 10000 };

struct session_object {
    CK_OBJECT_HANDLE handle;
    CK_SESSION_HANDLE owner;
    CK_KEY_TYPE key_type;
    uint8_t *value; /* secret memory */
    size_t length;
    bool sensitive, extractable, private;
    CK_MECHANISM_TYPE made_by; /* C_GenerateKey's mechanism, CK_UNAVAILABLE_INFORMATION for others */
    struct buffer label, id;
};

struct objects {
    struct session_object **items;
    size_t count;
};

/* CKR_OK if the template may be a session key's, as far as can be told without the key. Raises otherwise. */
CK_RV session_object_check(const CK_ATTRIBUTE *template, CK_ULONG count);
/* A session key from a template, of this type unless that says otherwise. NULL with *rv set. */
struct session_object *session_object_new(const CK_ATTRIBUTE *template, CK_ULONG count, CK_KEY_TYPE type,
                                          const uint8_t *value, size_t length, CK_RV *rv);
void session_object_free(struct session_object *object);
struct session_object *objects_find(const struct objects *objects, CK_OBJECT_HANDLE handle);
/* CKR_OK, CKR_HOST_MEMORY. Takes object over. */
CK_RV objects_add(struct objects *objects, struct session_object *object);
bool objects_remove(struct objects *objects, CK_OBJECT_HANDLE handle);
void objects_remove_owner(struct objects *objects, CK_SESSION_HANDLE owner);
void objects_clear(struct objects *objects);

/*
 * One attribute of an object, as C_GetAttributeValue fills it: CKR_OK, CKR_ATTRIBUTE_SENSITIVE,
 * CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL.
 */
CK_RV key_attribute(const struct token_settings *settings, const struct backend *backend, const struct backend_key *key,
                    enum keys_part part, CK_ATTRIBUTE *attribute);
CK_RV session_object_attribute(const struct session_object *object, CK_ATTRIBUTE *attribute);

/* Does it have every attribute of the template? Labels match by any alias. */
bool key_matches(const struct token_settings *settings, const struct backend *backend, const struct backend_key *key,
                 enum keys_part part, const CK_ATTRIBUTE *template, CK_ULONG count);
bool session_object_matches(const struct session_object *object, const CK_ATTRIBUTE *template, CK_ULONG count);

/* Reading templates. false: there, but of a wrong size. */
const CK_ATTRIBUTE *template_find(const CK_ATTRIBUTE *template, CK_ULONG count, CK_ATTRIBUTE_TYPE type);
bool template_bool(const CK_ATTRIBUTE *template, CK_ULONG count, CK_ATTRIBUTE_TYPE type, bool *value);
bool template_ulong(const CK_ATTRIBUTE *template, CK_ULONG count, CK_ATTRIBUTE_TYPE type, CK_ULONG *value);
/* A sane array: no NULL value with a length. */
bool template_is_valid(const CK_ATTRIBUTE *template, CK_ULONG count);
/* Of a new object: nothing in it that only the module may say, and no attribute with two values. Raises. */
CK_RV template_check(const CK_ATTRIBUTE *template, CK_ULONG count);

#endif
