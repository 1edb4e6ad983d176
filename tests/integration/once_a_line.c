/* For each line of standard input: encrypt and decrypt a message through EVP and say "ok", or OpenSSL's newest error.
 */
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "one_message.h"

static void answer(EVP_CIPHER_CTX *context, EVP_CIPHER *cipher)
{
    static const unsigned char message[] = "once a line";
    unsigned char sealed[sizeof(message) + 64], opened[sizeof(message) + 64];
    ERR_clear_error();
    int length = one_message(context, cipher, 1, message, sizeof(message), sealed);
    if (length > 0 && one_message(context, cipher, 0, sealed, length, opened) == (int)sizeof(message) &&
        memcmp(opened, message, sizeof(message)) == 0) {
        printf("ok\n");
        return;
    }
    const char *data = "";
    int flags;
    unsigned long code = ERR_peek_last_error_all(NULL, NULL, NULL, &data, &flags);
    printf("%s: %s\n", ERR_reason_error_string(code), data);
}

int main(void)
{
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "ENVELOPE-AES-256-GCM", NULL);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (!cipher || !context) {
        ERR_print_errors_fp(stderr);
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    char line[64];
    while (fgets(line, sizeof(line), stdin))
        answer(context, cipher);
    EVP_CIPHER_CTX_free(context);
    EVP_CIPHER_free(cipher);
    return 0;
}
