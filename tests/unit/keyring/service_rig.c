#include "service_rig.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

struct service_control *rig_service;

int service_rig_setup(void **state)
{
    if (keyring_rig_setup_second(state) != 0)
        return -1;
    void *handle = dlopen(SERVICE_MODULE, RTLD_NOW | RTLD_LOCAL);
    rig_service = handle ? dlsym(handle, "service_control") : NULL;
    if (!rig_service)
        fprintf(stderr, "%s\n", dlerror());
    return rig_service ? 0 : -1;
}

int service_store_setup(void **state)
{
    memset(rig_service, 0, sizeof *rig_service);
    return keyring_store_setup(state);
}
