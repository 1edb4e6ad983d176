/* A configuration file in a scratch directory of its own. */
#ifndef CONFIG_FILE_H
#define CONFIG_FILE_H

#include "base_test.h"

static char scratch[64];
static char config_path[128];

static inline int make_scratch(void **state)
{
    (void)state;
    snprintf(scratch, sizeof scratch, "%s", "/tmp/envelope-config-XXXXXX");
    if (!mkdtemp(scratch))
        return -1;
    snprintf(config_path, sizeof config_path, "%s/envelope.cnf", scratch);
    return 0;
}

static inline int remove_scratch(void **state)
{
    (void)state;
    unlink(config_path);
    return rmdir(scratch);
}

static inline const char *write_config_bytes(const char *text, size_t length)
{
    FILE *file = fopen(config_path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    return config_path;
}

static inline const char *write_config(const char *text)
{
    return write_config_bytes(text, strlen(text));
}

#endif
