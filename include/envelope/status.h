/*
 * The reasons an operation of Envelope can fail for. One table serves the
 * provider (as OpenSSL reason codes), the command and the C API.
 *
 * Values are stable: new ones are added at the end of their group.
 */
#ifndef ENVELOPE_STATUS_H
#define ENVELOPE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum envelope_status {
    ENVELOPE_OK = 0,

    /* The caller, the machine */
    ENVELOPE_E_INTERNAL = 1,
    ENVELOPE_E_NO_MEMORY = 2,
    ENVELOPE_E_ARGUMENT = 3,  /* a bad argument: a size, a name, a state the call does not allow */
    ENVELOPE_E_IO = 4,        /* a file could not be read or written */
    ENVELOPE_E_CONFIG = 5,    /* configuration missing, unreadable or wrong */
    ENVELOPE_E_RECURSION = 6, /* the token itself called back into us */
    ENVELOPE_E_TIMEOUT = 7,   /* the operation's deadline passed */
    ENVELOPE_E_CRYPTO = 8,    /* libcrypto refused something it should not have */

    /* Keys and versions */
    ENVELOPE_E_KEY_NAME = 20,        /* not a valid key name */
    ENVELOPE_E_KEY_UNKNOWN = 21,     /* no key of that name */
    ENVELOPE_E_KEY_EXISTS = 22,      /* a key of that name is there already */
    ENVELOPE_E_KEY_STATE = 23,       /* the key's state forbids it */
    ENVELOPE_E_VERSION_UNKNOWN = 24, /* no such version or DEK id */
    ENVELOPE_E_VERSION_STATE = 25,   /* suspended, pending destruction, destroyed */
    ENVELOPE_E_MESSAGE_LIMIT = 26,   /* the DEK's message budget is used up */
    ENVELOPE_E_NOT_A_KEY = 27,       /* the 32 key bytes name nothing: a raw or password-derived key */
    ENVELOPE_E_REFERENCE = 28,       /* a key reference that is damaged or of another store */
    ENVELOPE_E_KEY_MISMATCH = 29,    /* the ciphertext belongs to another key than the one named */

    /* Data */
    ENVELOPE_E_DATA_AUTH = 40,      /* tag, AAD or context do not match */
    ENVELOPE_E_DATA_TRUNCATED = 41, /* shorter than its format allows */
    ENVELOPE_E_DATA_FORMAT = 42,    /* not made by Envelope */
    ENVELOPE_E_DATA_TOO_LONG = 43,  /* over the limit of one message */
    ENVELOPE_E_CONTEXT_STATE = 44,  /* the cipher context is not in a state for this call */
    ENVELOPE_E_COPY_REFUSED = 45,   /* copying this context would repeat a nonce */

    /* Token */
    ENVELOPE_E_HSM_MODULE = 60,      /* the PKCS#11 module cannot be loaded or initialised */
    ENVELOPE_E_HSM_UNAVAILABLE = 61, /* token missing, device or session lost, no session in time */
    ENVELOPE_E_HSM_LOGIN = 62,       /* no PIN, or a PIN was refused */
    ENVELOPE_E_HSM_PIN_LOCKED = 63,  /* locked, or one try left and left alone */
    ENVELOPE_E_KEK_URI = 64,         /* not a usable PKCS#11 URI */
    ENVELOPE_E_KEK_UNKNOWN = 65,     /* no object, or more than one, matches the KEK's URI */
    ENVELOPE_E_KEK_REFUSED = 66,     /* the token refuses to use the KEK (disabled, usage flags) */
    ENVELOPE_E_KEK_ATTRIBUTES = 67,  /* the KEK is extractable, or not sensitive, or of the wrong type */
    ENVELOPE_E_WRAP_MECHANISM = 68,  /* the token has no mechanism we can wrap with */
    ENVELOPE_E_UNWRAP = 69,          /* a blob does not unwrap: wrong KEK, moved or damaged */
    ENVELOPE_E_HSM = 70,             /* any other token error */

    /* Store */
    ENVELOPE_E_STORE_UNAVAILABLE = 80, /* cannot be opened or reached */
    ENVELOPE_E_STORE_BUSY = 81,        /* locked by others for longer than the deadline */
    ENVELOPE_E_STORE_READ_ONLY = 82,
    ENVELOPE_E_STORE_CORRUPT = 83, /* not a database, failed integrity */
    ENVELOPE_E_STORE_SCHEMA = 84,  /* from a newer (or unknown) Envelope */
    ENVELOPE_E_STORE_CONFLICT = 85 /* somebody else changed it first; read again */
} envelope_status;

/* The fixed, short English name of a status ("unknown key"). Never NULL; static storage. */
const char *envelope_status_text(envelope_status status);

/* The symbol's own name ("KEY_UNKNOWN"), for JSON and logs. Never NULL; static storage. */
const char *envelope_status_name(envelope_status status);

#ifdef __cplusplus
}
#endif
#endif
