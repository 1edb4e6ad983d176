/* Where a PIN comes from; and the PINs that were refused, which are never sent again. */
#ifndef HSM_PIN_H
#define HSM_PIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <envelope/status.h>

#include "base/settings.h"
#include "hsm/uri.h"

enum { HSM_PIN_MAX = 1024 };

struct hsm_pin {
    size_t length;
    char source[256];               /* "pin-file \"/run/pin\"", for messages; without the PIN */
    uint8_t bytes[HSM_PIN_MAX + 3]; /* room to see that it is too long, and its line end */
};

/*
 * From the URI's pin-value or pin-source (file:PATH, a PATH, |COMMAND), else from pin-file, pin-env or pin-command.
 * One trailing newline is not part of it. A command is not given to a shell: its words are separated by blanks,
 * the first is the program (searched for in PATH), and it has until deadline. ENVELOPE_E_HSM_LOGIN.
 * Secret memory; free with secmem_free.
 */
envelope_status hsm_pin_read(const struct settings *settings, const struct hsm_uri *uri, int64_t deadline,
                             struct hsm_pin **pin);

/* Remembered for the life of the process and its forked children, as a salted hash. token names one token. */
envelope_status hsm_pin_was_refused(const char *token, const struct hsm_pin *pin, bool *refused);
envelope_status hsm_pin_refuse(const char *token, const struct hsm_pin *pin);

#endif
