/*
 * The order of topics and globs in sorted lists: bytewise, unsigned, a prefix first
 * (doc/protocol/http.md, 2.4 and 9). Shared by the readers and writers of such lists.
 */
#ifndef KEY_ORDER_H
#define KEY_ORDER_H

#include <string.h>

#include <lonely/stateless.h>

/* Whether `key` may come next; an equal one may not. */
static inline bool order_ascends(const struct lonely_set_order *last, struct lonely_span key)
{
    size_t common = key.len < last->len ? key.len : last->len;
    int diff = common == 0 ? 0 : memcmp(key.ptr, last->key, common);

    return !last->any || diff > 0 || (diff == 0 && key.len > last->len);
}

/* `key` is at most LONELY_FIELD16_MAX_BYTES long. */
static inline void order_keep(struct lonely_set_order *last, struct lonely_span key)
{
    last->any = true;
    last->len = (uint32_t)key.len;
    if (key.len > 0)
        memcpy(last->key, key.ptr, key.len);
}

#endif
