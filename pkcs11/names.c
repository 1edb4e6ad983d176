#include "names.h"

#include <stdlib.h>
#include <string.h>

bool names_add(struct names *names, const char *name, size_t length)
{
    char **items = reallocarray(names->items, names->count + 1, sizeof *items);
    if (!items)
        return false;
    names->items = items;
    items[names->count] = strndup(name, length);
    return items[names->count] && ++names->count;
}

bool names_add_list(struct names *names, const char *list)
{
    static const char between[] = ", \t";
    while (*(list += strspn(list, between))) {
        size_t length = strcspn(list, between);
        if (!names_add(names, list, length))
            return false;
        list += length;
    }
    return true;
}

const char *names_current(const struct names *names)
{
    return names->at < names->count ? names->items[names->at] : NULL;
}

void names_clear(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->items[i]);
    free(names->items);
    *names = (struct names){0};
}
