/*
 * A token's credentials: fetched by one thread at a time while others wait with
 * a deadline, kept until shortly before they expire, dropped when refused.
 */
#ifndef PKCS11_LOGIN_H
#define PKCS11_LOGIN_H

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"

struct login;
struct login *login_new(void); /* NULL with the error raised */
void login_free(struct login *login);

/* Fetches: runs BACKEND_AUTHENTICATE with pin until deadline. previous: what is to be renewed, NULL if nothing is. */
typedef CK_RV (*login_fetch)(void *context, const char *pin, struct credentials *previous, int64_t deadline,
                             struct credentials **made);

/* Valid credentials, to be unref'ed. */
CK_RV login_get(struct login *login, login_fetch fetch, void *context, int64_t deadline, struct credentials **got);
/*
 * Around a C_Login as a whole, so that nobody's is undone by another's wrong PIN. False: others had their turns until
 * the deadline.
 */
bool login_turn_begin(struct login *login, int64_t deadline);
void login_turn_end(struct login *login);
/* The service refused these: the next login_get fetches others. */
void login_drop(struct login *login, const struct credentials *refused);
/* NULL: as at first. */
envelope_status login_set_pin(struct login *login, const char *pin);
bool login_has_pin(struct login *login);

#endif
