#include "backends.h"

const struct backend *const backends_known[] = {
    &aws_backend,
    &bao_backend,
    NULL,
};
