#include "hsm/uri.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/secmem.h"
#include "base/text.h"
#include "hsm/hsm.h"

static const char SCHEME[] = "pkcs11:";

/* One attribute of the text: length bytes, of which the first `name` are its name. */
struct attribute {
    const char *at;
    size_t length, name;
    bool query;
};

/* Where a walk over the attributes is. */
struct walk {
    const char *at;
    bool query; /* behind the '?' */
};

static struct walk walk_start(const char *text)
{
    return (struct walk){.at = text + sizeof SCHEME - 1};
}

/* The path separates with ';' and may hold '&'; the query separates with '&' and may hold '?'. */
static bool walk_next(struct walk *walk, struct attribute *attribute)
{
    for (;;) {
        size_t length = strcspn(walk->at, walk->query ? "&" : ";?");
        *attribute = (struct attribute){walk->at, length, strcspn(walk->at, "=;&?"), walk->query};
        if (attribute->name > length)
            attribute->name = length;
        walk->at += length;
        if (*walk->at == '?' && !walk->query)
            walk->query = true;
        if (*walk->at)
            walk->at++;
        else if (length == 0)
            return false;
        if (length > 0)
            return true;
    }
}

static bool is_named(const struct attribute *attribute, const char *name)
{
    return attribute->name == strlen(name) && strncmp(attribute->at, name, attribute->name) == 0;
}

static envelope_status refuse_duplicates(const char *text)
{
    struct walk walk = walk_start(text);
    struct attribute one, other;
    while (walk_next(&walk, &one)) {
        struct walk rest = walk;
        while (walk_next(&rest, &other)) {
            char name[64];
            if (other.name == one.name && strncmp(other.at, one.at, one.name) == 0)
                return error_raise(ENVELOPE_E_KEK_URI, "the PKCS#11 URI has the attribute \"%s\" twice",
                                   text_printable(one.at, one.name, name, sizeof name));
        }
    }
    return ENVELOPE_OK;
}

static bool is_among(const struct attribute *attribute, const char *const *names)
{
    for (size_t i = 0; names[i]; i++)
        if (is_named(attribute, names[i]))
            return true;
    return false;
}

/* text without the attributes named, which are secret or lead to secrets. */
static char *without(const char *text, const char *const *names)
{
    char *copy = malloc(strlen(text) + 1);
    if (!copy) {
        error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a PKCS#11 URI");
        return NULL;
    }
    char *to = copy + sizeof SCHEME - 1;
    memcpy(copy, text, sizeof SCHEME - 1);
    struct walk walk = walk_start(text);
    struct attribute one;
    size_t in_path = 0, in_query = 0;
    while (walk_next(&walk, &one)) {
        if (is_among(&one, names))
            continue;
        if (one.query)
            *to++ = in_query++ ? '&' : '?';
        else if (in_path++)
            *to++ = ';';
        memcpy(to, one.at, one.length);
        to += one.length;
    }
    *to = '\0';
    return copy;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The value of pin-value into secret memory: p11-kit would keep it on the heap, and end it at %00. */
static envelope_status take_pin_value(const char *text, char **value)
{
    struct walk walk = walk_start(text);
    struct attribute one;
    bool found = false;
    while (!found && walk_next(&walk, &one))
        found = is_named(&one, "pin-value");
    if (!found)
        return ENVELOPE_OK;
    size_t skip = one.name < one.length ? one.name + 1 : one.length;
    char *to = secmem_alloc(one.length + 1);
    if (!to)
        return error_status();
    *value = to;
    for (size_t i = skip; i < one.length; i++) {
        char c = one.at[i];
        if (c == '%') {
            int high = i + 2 < one.length ? hex_digit(one.at[i + 1]) : -1;
            int low = i + 2 < one.length ? hex_digit(one.at[i + 2]) : -1;
            if (high < 0 || low < 0)
                return error_raise(ENVELOPE_E_KEK_URI,
                                   "the pin-value of the PKCS#11 URI is not percent-encoded properly");
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (c == '\0')
            return error_raise(ENVELOPE_E_KEK_URI, "the pin-value of the PKCS#11 URI has a NUL byte (%%00) in it");
        *to++ = c;
    }
    return ENVELOPE_OK;
}

static void name_token(struct hsm_uri *uri)
{
    const CK_TOKEN_INFO *info = p11_kit_uri_get_token_info(uri->parsed);
    const unsigned char *field = info->label;
    size_t length = sizeof info->label;
    if (field[0] == '\0') {
        field = info->serialNumber;
        length = sizeof info->serialNumber;
    }
    while (length > 0 && (field[length - 1] == ' ' || field[length - 1] == '\0'))
        length--;
    text_printable((const char *)field, length, uri->token_name, sizeof uri->token_name);
}

static void name_object(struct hsm_uri *uri)
{
    const CK_ATTRIBUTE *label = p11_kit_uri_get_attribute(uri->parsed, CKA_LABEL);
    const CK_ATTRIBUTE *id = p11_kit_uri_get_attribute(uri->parsed, CKA_ID);
    if (label) {
        text_printable(label->pValue, label->ulValueLen, uri->object_name, sizeof uri->object_name);
    } else if (id) {
        char hex[2 * 20 + 1];
        text_hex(id->pValue, id->ulValueLen < 20 ? id->ulValueLen : 20, hex);
        snprintf(uri->object_name, sizeof uri->object_name, "id %s", hex);
    }
}

static envelope_status parse(const char *text, struct hsm_uri *uri)
{
    static const char *const pin_value[] = {"pin-value", NULL};
    envelope_status status = refuse_duplicates(text);
    if (status == ENVELOPE_OK)
        status = take_pin_value(text, &uri->pin_value);
    if (status != ENVELOPE_OK)
        return status;
    char *plain = without(text, pin_value);
    if (!plain)
        return error_status();
    uri->parsed = p11_kit_uri_new();
    int result = uri->parsed ? p11_kit_uri_parse(plain, P11_KIT_URI_FOR_ANY, uri->parsed) : P11_KIT_URI_NO_MEMORY;
    free(plain);
    if (result != P11_KIT_URI_OK)
        return error_raise(ENVELOPE_E_KEK_URI, "not a PKCS#11 URI (RFC 7512): %s", p11_kit_uri_message(result));
    if (p11_kit_uri_any_unrecognized(uri->parsed))
        return error_raise(
            ENVELOPE_E_KEK_URI,
            "the PKCS#11 URI has an attribute or value that is not known or too long (a token label has at "
            "most 32 bytes; type is secret-key, private or public); leaving it out could match another key");
    const char *source = p11_kit_uri_get_pin_source(uri->parsed);
    const char *path = p11_kit_uri_get_module_path(uri->parsed);
    if (p11_kit_uri_get_module_name(uri->parsed))
        return error_raise(ENVELOPE_E_KEK_URI, "the PKCS#11 URI has a module-name; give a module-path instead");
    if (source && uri->pin_value)
        return error_raise(ENVELOPE_E_KEK_URI, "the PKCS#11 URI has both a pin-value and a pin-source");
    if (path && path[0] != '/')
        return error_raise(ENVELOPE_E_KEK_URI, "the module-path of the PKCS#11 URI is not an absolute path");
    if ((source && !(uri->pin_source = text_copy(source))) || (path && !(uri->module_path = text_copy(path))))
        return error_status();
    if (p11_kit_uri_format(uri->parsed,
                           P11_KIT_URI_FOR_TOKEN | P11_KIT_URI_FOR_SLOT | P11_KIT_URI_FOR_MODULE_WITH_VERSION,
                           &uri->token_text) != P11_KIT_URI_OK)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a PKCS#11 URI");
    CK_ATTRIBUTE *class = p11_kit_uri_get_attribute(uri->parsed, CKA_CLASS);
    if (class) {
        uri->has_class = true;
        memcpy(&uri->class, class->pValue, sizeof uri->class);
    }
    name_token(uri);
    name_object(uri);
    return ENVELOPE_OK;
}

envelope_status hsm_uri_parse(const char *text, struct hsm_uri **made)
{
    if (!text || strncasecmp(text, SCHEME, sizeof SCHEME - 1) != 0)
        return error_raise(ENVELOPE_E_KEK_URI, "not a PKCS#11 URI: it does not begin with \"pkcs11:\"");
    struct hsm_uri *uri = calloc(1, sizeof *uri);
    if (!uri)
        return error_raise(ENVELOPE_E_NO_MEMORY, "no memory for a PKCS#11 URI");
    envelope_status status = parse(text, uri);
    if (status != ENVELOPE_OK) {
        hsm_uri_free(uri);
        return status;
    }
    *made = uri;
    return ENVELOPE_OK;
}

static bool names_a_token(const struct hsm_uri *uri)
{
    const CK_TOKEN_INFO *info = p11_kit_uri_get_token_info(uri->parsed);
    return info->label[0] || info->serialNumber[0];
}

static envelope_status check_kek(const struct hsm_uri *uri)
{
    if (!names_a_token(uri))
        return error_raise(ENVELOPE_E_KEK_URI, "the PKCS#11 URI names no token; add token=LABEL or serial=NUMBER");
    if (!p11_kit_uri_get_attribute(uri->parsed, CKA_LABEL) && !p11_kit_uri_get_attribute(uri->parsed, CKA_ID))
        return error_raise(ENVELOPE_E_KEK_URI, "the PKCS#11 URI names no object; add object=LABEL or id=%%XX");
    if (uri->has_class && uri->class != CKO_SECRET_KEY && uri->class != CKO_PRIVATE_KEY && uri->class != CKO_PUBLIC_KEY)
        return error_raise(
            ENVELOPE_E_KEK_URI,
            "the PKCS#11 URI names an object that is no key; a KEK has type=secret-key (AES), private or "
            "public (RSA)");
    return ENVELOPE_OK;
}

envelope_status hsm_uri_parse_kek(const char *text, struct hsm_uri **made)
{
    struct hsm_uri *uri = NULL;
    envelope_status status = hsm_uri_parse(text, &uri);
    if (status != ENVELOPE_OK)
        return status;
    status = check_kek(uri);
    if (status != ENVELOPE_OK) {
        hsm_uri_free(uri);
        return status;
    }
    *made = uri;
    return ENVELOPE_OK;
}

void hsm_uri_free(struct hsm_uri *uri)
{
    if (!uri)
        return;
    p11_kit_uri_free(uri->parsed);
    free(uri->token_text);
    free(uri->module_path);
    free(uri->pin_source);
    secmem_free(uri->pin_value);
    free(uri);
}

envelope_status hsm_check_uri(const char *text)
{
    struct hsm_uri *uri = NULL;
    envelope_status status = hsm_uri_parse_kek(text, &uri);
    hsm_uri_free(uri);
    return status;
}

char *hsm_public_uri(const char *text)
{
    static const char *const secrets[] = {"pin-value", "pin-source", NULL};
    return hsm_check_uri(text) == ENVELOPE_OK ? without(text, secrets) : NULL;
}
