/*
 * The order of subscriptions (store_place.h).
 */
#include "store_place.h"

#include <string.h>

#include "mem.h"

bool store_grow(uint8_t **ptr, size_t *cap, size_t need)
{
    size_t larger = need > 2 * *cap ? need : 2 * *cap;
    uint8_t *grown;

    if (need <= *cap)
        return true;
    grown = mem_try_realloc(*ptr, larger);
    if (grown == NULL)
        return false;
    *ptr = grown;
    *cap = larger;
    return true;
}

bool store_place_set(struct store_place *p, enum store_kind kind, struct lonely_span key)
{
    if (!store_grow(&p->key, &p->cap, key.len + 1))
        return false;
    if (key.len > 0)
        memcpy(p->key, key.ptr, key.len);
    p->kind = kind;
    p->len = key.len;
    p->is_behind = true;
    return true;
}

void store_place_fini(struct store_place *p)
{
    mem_free(p->key);
    *p = (struct store_place){ 0 };
}

int store_span_compare(struct lonely_span a, struct lonely_span b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common == 0 ? 0 : memcmp(a.ptr, b.ptr, common);

    if (order != 0)
        return order;
    return (a.len > b.len) - (a.len < b.len);
}

int store_row_compare(const struct store_row *a, const struct store_row *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    return store_span_compare(a->key, b->key);
}
