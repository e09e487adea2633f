/*
 * What every HTTP server behind http.h shares.
 */
#include "http.h"

#include <string.h>
#include <strings.h>

const struct http_header *http_head_find(const struct http_head *head, const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < head->header_count; i++) {
        const struct http_header *h = &head->headers[i];

        if (h->name.len == len && strncasecmp((const char *)h->name.ptr, name, len) == 0)
            return h;
    }
    return NULL;
}
