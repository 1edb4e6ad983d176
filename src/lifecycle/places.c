#include "lifecycle/lifecycle.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

#if defined(__GNUC__) && defined(__x86_64__)
#define MULTIARCH "x86_64-linux-gnu"
#elif defined(__GNUC__) && defined(__aarch64__)
#define MULTIARCH "aarch64-linux-gnu"
#endif

const char *lifecycle_modules_directory(void)
{
    return ENVELOPE_MODULESDIR;
}

static char *in_build_tree(void)
{
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (length <= 0)
        return NULL;
    program[length] = '\0';
    /* TREE/bin/envelope -> TREE/provider/envelope.so */
    for (int level = 0; level < 2; level++) {
        char *slash = strrchr(program, '/');
        if (!slash)
            return NULL;
        *slash = '\0';
    }
    char module[PATH_MAX + 32];
    snprintf(module, sizeof(module), "%s/provider/envelope.so", program);
    return access(module, R_OK) == 0 ? text_copy(module) : NULL;
}

char *lifecycle_provider_module(void)
{
    char *module = in_build_tree();
    if (module)
        return module;
    static const char installed[] = ENVELOPE_MODULESDIR "/envelope.so";
    return access(installed, R_OK) == 0 ? text_copy(installed) : NULL;
}

const char *lifecycle_softhsm_module(void)
{
    static const char *const candidates[] = {
        "/usr/lib/softhsm/libsofthsm2.so",
#ifdef MULTIARCH
        "/usr/lib/" MULTIARCH "/softhsm/libsofthsm2.so",
#endif
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    };
    for (size_t i = 0; i < sizeof(candidates) / sizeof(*candidates); i++)
        if (access(candidates[i], R_OK) == 0)
            return candidates[i];
    return NULL;
}
