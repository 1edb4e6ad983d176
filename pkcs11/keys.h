/*
 * The service's keys as PKCS#11 sees them: stable object handles, descriptions
 * kept for a while, names that lead to them. Thread-safe; asks nobody itself.
 */
#ifndef PKCS11_KEYS_H
#define PKCS11_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"

struct keys;
struct keys *keys_new(int64_t refresh); /* NULL with the error raised */
void keys_free(struct keys *keys);

/* A symmetric key is one object; an RSA key two, with one id. Handles are never used twice. */
enum keys_part { KEYS_SECRET = 0, KEYS_PRIVATE = 0, KEYS_PUBLIC = 1 };

struct keys_list {
    CK_OBJECT_HANDLE *handles;
    size_t count;
};
void keys_list_clear(struct keys_list *list);

/* True if all keys are known freshly enough; *list has the handles of every part. rv: CKR_OK or CKR_HOST_MEMORY. */
bool keys_all(struct keys *keys, struct keys_list *list, CK_RV *rv);
/* The same for the keys found by one name, label or id; a name is known by keys_learn_name or keys_learn_all. */
bool keys_named(struct keys *keys, const char *name, struct keys_list *list, CK_RV *rv);

/*
 * What a LIST, or a DESCRIBE of name, said (also: no such key). Takes the keys over from learned; *list gets their
 * handles.
 */
CK_RV keys_learn_all(struct keys *keys, struct backend_keys *learned, struct keys_list *list);
CK_RV keys_learn_name(struct keys *keys, const char *name, struct backend_keys *learned, struct keys_list *list);
/* It was destroyed, or the service says it is gone. */
void keys_forget(struct keys *keys, CK_OBJECT_HANDLE handle);

/* The description under a handle; valid until keys_release. NULL if there is no such object. Short use only. */
const struct backend_key *keys_acquire(struct keys *keys, CK_OBJECT_HANDLE handle, enum keys_part *part);
void keys_release(struct keys *keys);

#endif
