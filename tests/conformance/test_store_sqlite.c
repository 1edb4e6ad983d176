/* The conformance suite on SQLite: each store in a directory of its own. */
#include "store_conformance.h"

#include <ftw.h>
#include <unistd.h>

static char *make_place(void)
{
    const char *scratch = getenv("TMPDIR");
    char directory[4096];
    snprintf(directory, sizeof directory, "%s/envelope-store.XXXXXX", scratch ? scratch : "/tmp");
    if (!mkdtemp(directory))
        return NULL;
    char *url = NULL;
    return asprintf(&url, "sqlite:%s/keys.db", directory) < 0 ? NULL : url;
}

static int remove_one(const char *path, const struct stat *file, int type, struct FTW *where)
{
    (void)file;
    (void)type;
    (void)where;
    return remove(path);
}

static void drop_place(const char *url)
{
    const char *path = url + strlen("sqlite:");
    char directory[4096];
    snprintf(directory, sizeof directory, "%.*s", (int)(strrchr(path, '/') - path), path);
    nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    static const struct store_factory factory = {make_place, drop_place};
    return store_conformance(&factory);
}
