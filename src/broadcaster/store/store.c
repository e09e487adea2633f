/*
 * The list of backends (store.h). A new one is a line here and a file beside this one.
 */
#include "store.h"

#include <string.h>

static const struct store_ops *const backends[] = { &store_sqlite, &store_postgres, &store_rqlite,
                                                    &store_memory };

const struct store_ops *store_find(const char *name)
{
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++)
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
    return NULL;
}

const char *store_status_str(enum store_status status)
{
    switch (status) {
    case STORE_OK:
        return "success";
    case STORE_CONFLICT:
        return "conflict";
    case STORE_NOT_FOUND:
        return "not found";
    case STORE_UNAVAILABLE:
        return "store unavailable";
    case STORE_PENDING:
        return "pending";
    }
    return "unknown status";
}
