/* What doctor advises. */
#include "lifecycle/doctor.h"

#include <stddef.h>

/* A key service has no PIN, no plug and other owners. */
static const char *advice_for_service(envelope_status status)
{
    switch (status) {
    case ENVELOPE_E_HSM_UNAVAILABLE:
        return "Is the service reachable, are there credentials for it, and is the token's name in `kek` one of those "
               "in "
               "kms.cnf? ENVELOPE_KMS_LOG=stderr pkcs11-tool --module … -O asks it without Envelope.";
    case ENVELOPE_E_HSM_LOGIN:
        return "The service refuses the module's credentials, or its policy what they may do: correct the one or the "
               "other; kms.cnf says where the credentials come from.";
    case ENVELOPE_E_KEK_UNKNOWN:
        return "Correct `kek` in section [envelope], or make the key: envelope init --generate-kek, with create = yes "
               "in "
               "kms.cnf. A deleted key may be had back from its owner while its deletion is pending.";
    case ENVELOPE_E_KEK_REFUSED:
        return "Whoever owns the key can enable it again; until then what is under it stays closed.";
    default:
        return NULL;
    }
}

static const char *advice_for_all(envelope_status status)
{
    switch (status) {
    case ENVELOPE_E_HSM_MODULE:
        return "Install the token's PKCS#11 module, or correct `module` in section [hsm].";
    case ENVELOPE_E_HSM_UNAVAILABLE:
        return "Is the token plugged in, its service running, and the label in `kek` right? `pkcs11-tool --module … "
               "-L` "
               "lists the tokens. SoftHSM finds its tokens by SOFTHSM2_CONF.";
    case ENVELOPE_E_HSM_LOGIN:
        return "Correct the PIN that `pin-file`, `pin-env` or `pin-command` in section [hsm] gives.";
    case ENVELOPE_E_HSM_PIN_LOCKED:
        return "The token's security officer must reset the user PIN.";
    case ENVELOPE_E_KEK_URI:
    case ENVELOPE_E_KEK_UNKNOWN:
        return "Correct `kek` in section [envelope], or make the key: envelope init --generate-kek.";
    case ENVELOPE_E_KEK_ATTRIBUTES:
        return "Make a KEK that never leaves the token: CKA_SENSITIVE true, CKA_EXTRACTABLE false.";
    case ENVELOPE_E_KEK_REFUSED:
    case ENVELOPE_E_WRAP_MECHANISM:
        return "The KEK needs CKA_ENCRYPT and CKA_DECRYPT, or CKA_WRAP and CKA_UNWRAP; `wrap` in section [hsm] "
               "chooses.";
    case ENVELOPE_E_STORE_CORRUPT:
        return "Restore the store from a backup.";
    case ENVELOPE_E_STORE_SCHEMA:
        return "Use the version of Envelope that wrote the store, or a newer one.";
    case ENVELOPE_E_STORE_UNAVAILABLE:
        return "Correct `store` in section [envelope]; `envelope init` makes a store that is not there.";
    case ENVELOPE_E_KEY_UNKNOWN:
        return "Make it: envelope key create NAME; or correct `default-key` in section [envelope].";
    case ENVELOPE_E_KEY_STATE:
    case ENVELOPE_E_VERSION_STATE:
        return "envelope key resume NAME allows its use again.";
    default:
        return NULL;
    }
}

const char *doctor_advice(envelope_status status, bool key_service)
{
    const char *advice = key_service ? advice_for_service(status) : NULL;
    return advice ? advice : advice_for_all(status);
}
