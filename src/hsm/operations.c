/* What is done with a KEK: describe it, make DEKs, wrap and unwrap them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "base/fork.h"
#include "base/error.h"
#include "base/libctx.h"
#include "base/secmem.h"
#include "hsm/ckr.h"
#include "hsm/instance.h"
#include "hsm/service.h"

/* A padded field of CK_TOKEN_INFO. */
static void field_text(char *to, size_t size, const unsigned char *field, size_t length)
{
    while (length > 0 && (field[length - 1] == ' ' || field[length - 1] == '\0'))
        length--;
    snprintf(to, size, "%.*s", (int)length, (const char *)field);
}

static envelope_status describe(struct hsm_wrap *wrap, void *argument)
{
    struct hsm_kek_info *info = argument;
    const struct hsm_token *token = wrap->session->token;
    const struct hsm_kek_view *view = &wrap->view;
    hsm_lock();
    CK_TOKEN_INFO raw = token->info;
    hsm_unlock();
    memset(info, 0, sizeof *info);
    field_text(info->token_label, sizeof info->token_label, raw.label, sizeof raw.label);
    field_text(info->token_model, sizeof info->token_model, raw.model, sizeof raw.model);
    field_text(info->token_serial, sizeof info->token_serial, raw.serialNumber, sizeof raw.serialNumber);
    snprintf(info->module, sizeof info->module, "%s", token->module->path);
    snprintf(info->label, sizeof info->label, "%s", view->label);
    info->rsa = view->rsa;
    info->bits = view->bits;
    info->extractable = view->extractable;
    info->sensitive = view->sensitive;
    info->always_sensitive = view->always_sensitive;
    info->never_extractable = view->never_extractable;
    info->can_encrypt = view->can_encrypt;
    info->can_wrap = view->can_wrap;
    return hsm_kek_mechanism(wrap->kek, view, &info->mechanism);
}

envelope_status hsm_kek_info(hsm *instance, const char *uri, struct hsm_kek_info *info)
{
    return hsm_run(instance, uri, false, describe, info);
}

bool hsm_kek_in_service(hsm *instance, const char *uri)
{
    struct hsm_kek *kek = NULL;
    if (hsm_enter() != ENVELOPE_OK || hsm_kek_get(instance, uri, hsm_deadline(instance), &kek) != ENVELOPE_OK) {
        error_clear();
        return false;
    }
    return kek->token->module->service != NULL;
}

static envelope_status token_random(struct hsm_wrap *wrap, void *argument)
{
    CK_RV rv = HSM_SESSION_CALL(wrap->session, C_GenerateRandom, argument, HSM_DEK_SIZE);
    if (rv == CKR_RANDOM_NO_RNG)
        return error_raise(ENVELOPE_E_HSM,
                           "token \"%s\": CKR_RANDOM_NO_RNG: it has no random number generator to make a data key "
                           "with; random = local in [hsm] makes them from libcrypto's alone",
                           wrap->session->token->name);
    if (rv != CKR_OK)
        return hsm_session_fail(wrap->session, rv, false, "its random generator");
    return ENVELOPE_OK;
}

static bool mix(uint8_t material[2 * HSM_DEK_SIZE], uint8_t dek[HSM_DEK_SIZE])
{
    char digest[] = "SHA256";
    char info[] = "envelope dek v1";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, material, 2 * HSM_DEK_SIZE),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, sizeof info - 1),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF *hkdf = EVP_KDF_fetch(libctx_private(), "HKDF", NULL);
    EVP_KDF_CTX *context = hkdf ? EVP_KDF_CTX_new(hkdf) : NULL;
    bool done = context && EVP_KDF_derive(context, dek, HSM_DEK_SIZE, params) > 0;
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(hkdf);
    return done;
}

static bool own_random(uint8_t *bytes, size_t count)
{
    return RAND_priv_bytes_ex(libctx_private(), bytes, count, 256) == 1;
}

/* The second half of the material is always ours; the first is the token's, or ours as well. */
static bool add_own_and_mix(bool all, uint8_t material[2 * HSM_DEK_SIZE], uint8_t dek[HSM_DEK_SIZE])
{
    fork_hold();
    bool done = (!all || own_random(material, HSM_DEK_SIZE)) && own_random(material + HSM_DEK_SIZE, HSM_DEK_SIZE) &&
                mix(material, dek);
    fork_release();
    return done;
}

envelope_status hsm_generate_dek(hsm *instance, const char *uri, uint8_t dek[HSM_DEK_SIZE])
{
    bool local = instance->settings->random == SETTINGS_RANDOM_LOCAL;
    uint8_t *material = secmem_alloc((size_t)2 * HSM_DEK_SIZE);
    if (!material)
        return error_status();
    envelope_status status = local ? hsm_enter() : hsm_run(instance, uri, true, token_random, material);
    if (status == ENVELOPE_OK && !add_own_and_mix(local, material, dek))
        status = error_raise(ENVELOPE_E_CRYPTO, "libcrypto's random generator or HKDF failed, so no data key was made");
    secmem_free(material);
    return status;
}

/* A KEK that could leave the token protects nothing. */
envelope_status hsm_kek_check_fit(const struct hsm_wrap *wrap)
{
    const struct hsm_kek_view *view = &wrap->view;
    const char *token = wrap->session->token->name, *name = wrap->kek->uri->object_name;
    bool allowed = wrap->session->token->settings->allow_extractable_kek;
    if (view->extractable && !allowed)
        return error_raise(
            ENVELOPE_E_KEK_ATTRIBUTES,
            "token \"%s\": the KEK \"%s\" is extractable (CKA_EXTRACTABLE), so it could leave the token; make "
            "one that is not, or set allow-extractable-kek",
            token, name);
    if (!view->sensitive && !allowed)
        return error_raise(
            ENVELOPE_E_KEK_ATTRIBUTES,
            "token \"%s\": the KEK \"%s\" is not sensitive (CKA_SENSITIVE), so its value can be read; make one "
            "that is, or set allow-extractable-kek",
            token, name);
    if (view->rsa ? view->bits < 2048 : view->bits != 256)
        return error_raise(ENVELOPE_E_KEK_ATTRIBUTES, "token \"%s\": the KEK \"%s\" has %u bits; a KEK has %s", token,
                           name, view->bits, view->rsa ? "at least 2048 (RSA; take 4096)" : "256 (AES)");
    return ENVELOPE_OK;
}

struct wrapping {
    const uint8_t *aad;
    size_t aad_length;
    const uint8_t *dek;
    uint8_t *made; /* dek of an unwrap */
    uint8_t *blob; /* HSM_BLOB_HEADER + HSM_BODY_MAX */
    size_t length;
};

static envelope_status wrap_dek(struct hsm_wrap *wrap, void *argument)
{
    struct wrapping *job = argument;
    enum hsm_mechanism mechanism;
    uint8_t *body = job->blob + HSM_BLOB_HEADER;
    wrap->aad = job->aad;
    wrap->aad_length = job->aad_length;
    envelope_status status = hsm_kek_check_fit(wrap);
    if (status == ENVELOPE_OK)
        status = hsm_kek_mechanism(wrap->kek, &wrap->view, &mechanism);
    if (status != ENVELOPE_OK)
        return status;
    if (mechanism == HSM_AES_GCM)
        status = hsm_gcm_wrap(wrap, job->dek, body, &job->length);
    else if (mechanism == HSM_AES_KWP)
        status = hsm_kwp_wrap(wrap, job->dek, body, &job->length);
    else if (mechanism == HSM_KEY_SERVICE)
        status = hsm_service_wrap(wrap, job->dek, body, &job->length);
    else
        status = hsm_rsa_wrap(wrap, job->dek, body, &job->length);
    job->blob[0] = HSM_BLOB_FORMAT;
    job->blob[1] = (uint8_t)mechanism;
    job->length += HSM_BLOB_HEADER;
    return status;
}

envelope_status hsm_wrap_part(hsm *instance, const char *uri, const uint8_t *aad, size_t aad_length,
                              const uint8_t dek[HSM_DEK_SIZE], uint8_t **blob, size_t *blob_length)
{
    uint8_t space[HSM_BLOB_HEADER + HSM_BODY_MAX];
    struct wrapping job = {.aad = aad, .aad_length = aad_length, .dek = dek, .blob = space};
    envelope_status status = hsm_run(instance, uri, false, wrap_dek, &job);
    if (status != ENVELOPE_OK)
        return status;
    uint8_t *copy = malloc(job.length);
    if (!copy)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a wrapped data key");
    memcpy(copy, space, job.length);
    *blob = copy;
    *blob_length = job.length;
    atomic_fetch_add(&instance->counts.wraps, 1);
    return ENVELOPE_OK;
}

envelope_status hsm_wrap(hsm *instance, const char *uri, const uint8_t *aad, size_t aad_length,
                         const uint8_t dek[HSM_DEK_SIZE], uint8_t **blob, size_t *blob_length)
{
    hsm_requests_forget();
    return hsm_wrap_part(instance, uri, aad, aad_length, dek, blob, blob_length);
}

static envelope_status unwrap_dek(struct hsm_wrap *wrap, void *argument)
{
    struct wrapping *job = argument;
    const uint8_t *body = job->blob + HSM_BLOB_HEADER;
    size_t length = job->length - HSM_BLOB_HEADER;
    wrap->aad = job->aad;
    wrap->aad_length = job->aad_length;
    if (job->blob[1] == HSM_AES_GCM && !wrap->view.rsa)
        return hsm_gcm_unwrap(wrap, body, length, job->made);
    if (job->blob[1] == HSM_AES_KWP && !wrap->view.rsa)
        return hsm_kwp_unwrap(wrap, body, length, job->made);
    if (job->blob[1] == HSM_KEY_SERVICE && wrap->view.has_service)
        return hsm_service_unwrap(wrap, body, length, job->made);
    if (job->blob[1] == HSM_RSA_OAEP && wrap->view.rsa)
        return hsm_rsa_unwrap(wrap, body, length, job->made);
    return hsm_does_not_unwrap(wrap, "it was made with another mechanism than such a key has");
}

envelope_status hsm_unwrap_part(hsm *instance, const char *uri, const uint8_t *aad, size_t aad_length,
                                const uint8_t *blob, size_t blob_length, uint8_t dek[HSM_DEK_SIZE])
{
    /* Whatever is no blob of ours is refused without troubling the token. */
    if (blob_length <= HSM_BLOB_HEADER || blob_length > HSM_BLOB_HEADER + HSM_BODY_MAX)
        return error_raise(ENVELOPE_E_UNWRAP, "a wrapped data key has %zu bytes, which none of ours has", blob_length);
    if (blob[0] != HSM_BLOB_FORMAT)
        return error_raise(ENVELOPE_E_UNWRAP, "a wrapped data key is of format %u, which this version does not know",
                           blob[0]);
    uint8_t space[HSM_BLOB_HEADER + HSM_BODY_MAX];
    memcpy(space, blob, blob_length);
    struct wrapping job = {.aad = aad, .aad_length = aad_length, .made = dek, .blob = space, .length = blob_length};
    envelope_status status = hsm_run(instance, uri, false, unwrap_dek, &job);
    if (status == ENVELOPE_OK)
        atomic_fetch_add(&instance->counts.unwraps, 1);
    return status;
}

envelope_status hsm_unwrap(hsm *instance, const char *uri, const uint8_t *aad, size_t aad_length, const uint8_t *blob,
                           size_t blob_length, uint8_t dek[HSM_DEK_SIZE])
{
    hsm_requests_forget();
    return hsm_unwrap_part(instance, uri, aad, aad_length, blob, blob_length, dek);
}
