/*
 * Rotate a key many times from one process: rotate_often NAME COUNT. Prints "ready" when store and token are open,
 * then the new primary version after each rotation.
 */
#include <stdio.h>
#include <stdlib.h>

#include <openssl/crypto.h>

#include "base/error.h"
#include "base/settings.h"
#include "keyring/keyring.h"

static int failed(void)
{
    fprintf(stderr, "rotate_often: %s\n", error_text());
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 3 || OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1)
        return 2;
    const char *name = argv[1];
    long count = strtol(argv[2], NULL, 10);
    setvbuf(stdout, NULL, _IOLBF, 0);

    struct settings settings;
    keyring *ring;
    struct hsm_kek_info info;
    if (settings_load(settings_path(NULL), &settings) || keyring_new(&settings, &ring) || !keyring_store(ring) ||
        !keyring_hsm(ring) || hsm_kek_info(keyring_hsm(ring), keyring_settings(ring)->kek, &info))
        return failed();
    printf("ready\n");
    for (long i = 0; i < count; i++) {
        uint32_t version;
        if (keyring_rotate(ring, name, NULL, &version, NULL))
            return failed();
        printf("%u\n", version);
    }
    keyring_free(ring);
    return 0;
}
