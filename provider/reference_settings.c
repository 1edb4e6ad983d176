/*
 * key-references and raw-keys of openssl.cnf. They are kept as the texts they are and read once, when the tables are
 * made.
 *     key-references = all                     or AES-256-GCM, AES-256-CBC
 *     raw-keys       = allow                   or warn, deny; and for single ciphers deny:AES-256-CBC,
 * allow:AES-256-CTR
 */
#include "reference.h"

#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/text.h"

static const char apart[] = ", \t\r\n";

struct word {
    const char *text;
    size_t length;
};

/* The next word of a list; false at its end. */
static bool word_next(const char **list, struct word *word)
{
    if (!*list)
        return false;
    *list += strspn(*list, apart);
    word->text = *list;
    word->length = strcspn(*list, apart);
    *list += word->length;
    return word->length > 0;
}

static bool word_is(struct word word, const char *text)
{
    return strlen(text) == word.length && strncasecmp(word.text, text, word.length) == 0;
}

/* Is the word one of names, "AES-256-CBC:AES256:2.16.…"? */
static bool word_among(struct word word, const char *names)
{
    for (const char *at = names; *at;) {
        size_t length = strcspn(at, ":");
        if (length == word.length && strncasecmp(at, word.text, length) == 0)
            return true;
        at += length;
        at += *at == ':';
    }
    return false;
}

bool reference_settings_lists(const char *list, const char *names)
{
    struct word word;
    while (word_next(&list, &word))
        if (word_is(word, "all") || word_among(word, names))
            return true;
    return false;
}

/* "deny:AES-256-CBC" taken apart; false if the word is no policy. subject.length 0: every cipher. */
static bool policy_parse(struct word word, enum reference_raw *policy, struct word *subject)
{
    static const char *const names[] = {
        [REFERENCE_RAW_ALLOW] = "allow", [REFERENCE_RAW_WARN] = "warn", [REFERENCE_RAW_DENY] = "deny"};
    const char *colon = memchr(word.text, ':', word.length);
    struct word verb = {word.text, colon ? (size_t)(colon - word.text) : word.length};
    *subject = (struct word){colon ? colon + 1 : word.text, colon ? word.length - verb.length - 1 : 0};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (word_is(verb, names[i])) {
            *policy = (enum reference_raw)i;
            return !colon || subject->length > 0;
        }
    return false;
}

/*
 * OpenSSL itself keys these with keys of its own, which are never references and cannot be told from a program's: TLS
 * records and tickets, encrypted private keys, CMAC, QUIC; and AES-256-CTR and -ECB are its random generator. A policy
 * without a name must not break them.
 */
static const char used_by_random[] = "AES-256-CTR:AES-256-ECB";
static const char used_by_openssl[] =
    "AES-256-CTR:AES-256-ECB:AES-256-GCM:AES-256-CCM:AES-256-CBC:ChaCha20:ChaCha20-Poly1305:ARIA-256-GCM:ARIA-256-CCM:"
    "ARIA-256-CBC:CAMELLIA-256-CBC:AES-256-WRAP:AES-256-CBC-HMAC-SHA1:AES-256-CBC-HMAC-SHA256";

static bool spared(enum reference_raw policy, const char *names)
{
    const char *sparing = policy == REFERENCE_RAW_DENY   ? used_by_openssl
                          : policy == REFERENCE_RAW_WARN ? used_by_random
                                                         : "";
    struct word own = {names, strcspn(names, ":")};
    return word_among(own, sparing);
}

enum reference_raw reference_settings_raw(const char *raw_keys, const char *names)
{
    enum reference_raw general = REFERENCE_RAW_ALLOW, own = REFERENCE_RAW_ALLOW;
    bool named = false;
    struct word word, subject;
    while (word_next(&raw_keys, &word)) {
        enum reference_raw policy;
        if (!policy_parse(word, &policy, &subject))
            continue;
        if (subject.length == 0) {
            general = policy;
        } else if (word_among(subject, names)) {
            own = policy;
            named = true;
        }
    }
    if (named)
        return own;
    return spared(general, names) ? REFERENCE_RAW_ALLOW : general;
}

static envelope_status cipher_check(const char *setting, struct word name, const struct reference_lookup *lookup,
                                    bool must_fit)
{
    char shown[64];
    text_printable(name.text, name.length, shown, sizeof shown);
    bool fits = false;
    if (!lookup->known(lookup->context, name.text, name.length, &fits))
        return error_raise(ENVELOPE_E_CONFIG,
                           "openssl.cnf: %s: there is no cipher \"%s\"; `openssl list -cipher-algorithms` shows them",
                           setting, shown);
    if (must_fit && !fits)
        return error_raise(
            ENVELOPE_E_CONFIG,
            "openssl.cnf: %s: %s does not take one key of 256 bits, so no key reference can stand for it", setting,
            shown);
    return ENVELOPE_OK;
}

envelope_status reference_settings_check(const char *list, const char *raw_keys, const struct reference_lookup *lookup)
{
    struct word word, subject;
    bool any = false;
    while (word_next(&list, &word)) {
        any = true;
        envelope_status status =
            word_is(word, "all") ? ENVELOPE_OK : cipher_check("key-references", word, lookup, true);
        if (status != ENVELOPE_OK)
            return status;
    }
    if (!any)
        return error_raise(ENVELOPE_E_CONFIG, "openssl.cnf: key-references is empty; write all, or names of ciphers");
    while (word_next(&raw_keys, &word)) {
        enum reference_raw policy;
        if (!policy_parse(word, &policy, &subject)) {
            char shown[64];
            text_printable(word.text, word.length, shown, sizeof shown);
            return error_raise(ENVELOPE_E_CONFIG,
                               "openssl.cnf: raw-keys: \"%s\" is none of allow, warn, deny, nor one of them with a "
                               "cipher (deny:AES-256-CBC)",
                               shown);
        }
        envelope_status status = subject.length ? cipher_check("raw-keys", subject, lookup, true) : ENVELOPE_OK;
        if (status != ENVELOPE_OK)
            return status;
    }
    return ENVELOPE_OK;
}
