/* Between the parts of doctor, and between it and the process it starts. */
#ifndef LIFECYCLE_DOCTOR_H
#define LIFECYCLE_DOCTOR_H

#include <stdbool.h>

#include <envelope/status.h>

/* ---- doctor_advice.c: what to do about a failure, beyond what its own text says; NULL: nothing ---- */
const char *doctor_advice(envelope_status status, bool key_service);

/* ---- the line that the process prints: "MARK CATEGORY text" ---- */
#define DOCTOR_PROBE_MARK "envelope-probe: "

enum doctor_probe_category {
    DOCTOR_PROBE_GOOD = 'G',
    DOCTOR_PROBE_LOAD = 'L',          /* the provider or the configuration does not load */
    DOCTOR_PROBE_INACTIVE = 'I',      /* the configuration does not mention us */
    DOCTOR_PROBE_NOT_ACTIVATED = 'A', /* it names us, and lacks activate = 1 */
    DOCTOR_PROBE_NO_DEFAULT = 'N',    /* it switches the default provider off */
    DOCTOR_PROBE_FETCH = 'F',
    DOCTOR_PROBE_ENCRYPT = 'E',
    DOCTOR_PROBE_DECRYPT = 'D',
    DOCTOR_PROBE_UNASKED = 'U',   /* key-references is not set */
    DOCTOR_PROBE_PASSED_BY = 'P', /* it is, but programs get the default provider's ciphers */
    DOCTOR_PROBE_TLS = 'T'        /* no handshake */
};

/* For the probe of key references: one in hexadecimal, in the environment. Not a secret. */
#define DOCTOR_REFERENCE "ENVELOPE_DOCTOR_REFERENCE"

/* ---- doctor_references.c, doctor_tls.c: in the process of the probe; the category, 0 if all is well ---- */
int doctor_probe_references(void);
int doctor_probe_tls(void);

#endif
