#include "backends.h"

const struct backend *const backends_known[] = {
    &aws_backend, &bao_backend, &azure_backend, &azure_hsm_backend, &gcp_backend, NULL,
};
