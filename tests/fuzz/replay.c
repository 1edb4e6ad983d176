/* Where libFuzzer is not to be had: run a fuzz target over the files and directories given, once each. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 1 << 20 };

static int total;

static int run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 1;
    }
    uint8_t *data = malloc(INPUT_MAX);
    size_t size = data ? fread(data, 1, INPUT_MAX, file) : 0;
    /* An exact copy, so that reading past the end is seen. */
    uint8_t *exact = malloc(size ? size : 1);
    if (exact && data) {
        memcpy(exact, data, size);
        LLVMFuzzerTestOneInput(exact, size);
    }
    free(exact);
    free(data);
    fclose(file);
    return 0;
}

static int run_directory(const char *path)
{
    DIR *directory = opendir(path);
    int failures = 0, files = 0;
    if (!directory) {
        perror(path);
        return 1;
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
        char name[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        failures += run_file(name);
        files++;
    }
    closedir(directory);
    printf("%s: %d inputs\n", path, files);
    total += files;
    return failures;
}

int main(int argc, char **argv)
{
    int failures = 0;
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        struct stat what;
        if (argv[i][0] == '-')
            continue; /* libFuzzer's options */
        if (stat(argv[i], &what) != 0) {
            perror(argv[i]);
            failures++;
        } else {
            failures += S_ISDIR(what.st_mode) ? run_directory(argv[i]) : run_file(argv[i]);
        }
    }
    return failures || !total ? 1 : 0;
}
