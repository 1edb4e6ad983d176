/* keyring_rig.h for a token that has a key service beside it: the hsm room's module, which does what it is told. */
#ifndef SERVICE_RIG_H
#define SERVICE_RIG_H

#include "keyring_rig.h"
#include "service_module.h"

/* Behind a URI: its key is that service's. */
#define AT_SERVICE "?module-path=" SERVICE_MODULE_IN_URI

extern struct service_control *rig_service;

/* Group fixture: the token with SECOND, and the service. */
int service_rig_setup(void **state);
/* Test fixture: keyring_store_setup(), with a service that works and has counted nothing yet. */
int service_store_setup(void **state);

#endif
