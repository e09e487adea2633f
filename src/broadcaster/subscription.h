/*
 * Subscription objects as index.h declares them, and the pool in which their urls are shared.
 */
#ifndef SUBSCRIPTION_H
#define SUBSCRIPTION_H

#include "index.h"
#include "index_table.h"

/* The urls of one content of the index, each once. One thread at a time. */
struct url_pool {
    struct index_table urls;
    const uint8_t *seed; /* 16 bytes of secret */
    size_t bytes;
};

/* Frees the pool; the urls live as long as their subscriptions. */
void url_pool_fini(struct url_pool *pool);

/* A subscription with one reference, whose urls are in the pool until subscription_drop. */
struct subscription *subscription_create(struct url_pool *pool, const struct store_row *row);

/* Takes it out of the pool's accounts and releases it. NULL is allowed. */
void subscription_drop(struct url_pool *pool, struct subscription *s);

static inline size_t subscription_bytes(const struct subscription *s)
{
    return sizeof(*s) + s->key.len;
}

#endif
