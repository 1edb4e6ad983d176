/* The keys that a call looks at one after the other: names from a service's list or from the setting `keys`. */
#ifndef PKCS11_NAMES_H
#define PKCS11_NAMES_H

#include <stdbool.h>
#include <stddef.h>

struct names {
    char **items;
    size_t count;
    size_t at; /* the one in hand */
};

/* {0} is an empty list. False for want of memory; nothing is raised. */
bool names_add(struct names *names, const char *name, size_t length);
/* Those of a list like "one, two". */
bool names_add_list(struct names *names, const char *list);
/* The one in hand, NULL behind the last. */
const char *names_current(const struct names *names);
void names_clear(struct names *names);

#endif
