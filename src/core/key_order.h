/*
 * The order of topics and globs in sorted lists: bytewise, unsigned, a prefix first
 * (doc/protocol/http.md, 2.4 and 9). Shared by the readers and writers of such lists.
 */
#ifndef KEY_ORDER_H
#define KEY_ORDER_H

#include <stdbool.h>
#include <string.h>

#include <lonely/span.h>

/* Whether `key` comes after `last`; equal keys do not. */
static inline bool key_is_after(struct lonely_span key, struct lonely_span last)
{
    size_t common = key.len < last.len ? key.len : last.len;
    int diff = common == 0 ? 0 : memcmp(key.ptr, last.ptr, common);

    return diff > 0 || (diff == 0 && key.len > last.len);
}

#endif
