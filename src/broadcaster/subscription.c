/*
 * Subscriptions and their urls: immutable, counted, released by whoever comes last, on any thread.
 * A url that many subscriptions have is stored once; two subscriptions of one content have the same
 * url when the pointers are equal. Made by index.c.
 */
#include "subscription.h"

#include <string.h>

#include "map.h"
#include "mem.h"

static void url_unref(struct index_url *url)
{
    if (url != NULL && atomic_fetch_sub_explicit(&url->refs, 1, memory_order_acq_rel) == 1)
        mem_free(url);
}

void subscription_ref(struct subscription *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
}

void subscription_unref(struct subscription *s)
{
    if (s == NULL || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    url_unref(s->url);
    url_unref(s->recovery);
    mem_free(s);
}

static size_t url_bytes(const struct index_url *url)
{
    return sizeof(*url) + url->len + 1;
}

static struct index_slot *url_slot(const struct url_pool *pool, uint64_t hash,
                                   struct lonely_span text)
{
    struct index_slot *slot = index_table_find(&pool->urls, hash);

    for (; slot != NULL; slot = index_table_next(&pool->urls, hash, slot)) {
        const struct index_url *url = slot->item;
        if (url->len == text.len && (text.len == 0 || memcmp(url->text, text.ptr, text.len) == 0))
            break;
    }
    return slot;
}

static struct index_url *url_create(struct lonely_span text)
{
    struct index_url *url = mem_alloc(sizeof(*url) + text.len + 1);

    atomic_init(&url->refs, 0);
    url->users = 0;
    url->len = (uint32_t)text.len;
    if (text.len > 0)
        memcpy(url->text, text.ptr, text.len);
    url->text[text.len] = '\0';
    return url;
}

static struct index_url *url_acquire(struct url_pool *pool, struct lonely_span text)
{
    uint64_t hash = map_siphash(pool->seed, text.ptr, text.len);
    struct index_slot *slot = url_slot(pool, hash, text);
    struct index_url *url = slot != NULL ? slot->item : url_create(text);
    if (slot == NULL) {
        index_table_add(&pool->urls, hash, url);
        pool->bytes += url_bytes(url);
    }
    url->users++;
    atomic_fetch_add_explicit(&url->refs, 1, memory_order_relaxed);
    return url;
}

/* The reference is the subscription's and goes with it. */
static void url_disuse(struct url_pool *pool, struct index_url *url)
{
    if (url == NULL || --url->users > 0)
        return;

    struct lonely_span text = { (const uint8_t *)url->text, url->len };
    index_table_remove(&pool->urls,
                       url_slot(pool, map_siphash(pool->seed, text.ptr, text.len), text));
    pool->bytes -= url_bytes(url);
}

void url_pool_fini(struct url_pool *pool)
{
    index_table_fini(&pool->urls);
}

struct subscription *subscription_create(struct url_pool *pool, const struct store_row *row)
{
    struct subscription *s = mem_alloc(sizeof(*s) + row->key.len);
    uint8_t *key = (uint8_t *)(s + 1);

    atomic_init(&s->refs, 1);
    s->kind = row->kind;
    s->url = url_acquire(pool, row->url);
    s->recovery = row->recovery.len > 0 ? url_acquire(pool, row->recovery) : NULL;
    if (row->key.len > 0)
        memcpy(key, row->key.ptr, row->key.len);
    s->key = (struct lonely_span){ key, row->key.len };
    return s;
}

void subscription_drop(struct url_pool *pool, struct subscription *s)
{
    if (s == NULL)
        return;
    url_disuse(pool, s->url);
    url_disuse(pool, s->recovery);
    subscription_unref(s);
}
