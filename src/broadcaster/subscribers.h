/*
 * The subscriptions that share one key, a url each: mostly one, sometimes hundreds of thousands.
 */
#ifndef SUBSCRIBERS_H
#define SUBSCRIBERS_H

#include "index_table.h"
#include "subscription.h"

/* NULL: none; a subscription; or, with the lowest bit set, a group of them. */
struct subscribers {
    void *any;
};

/* What all groups of one content share: where in a large group the subscription of a url is. */
struct subscriber_places {
    struct index_table table;
    uint64_t last_id;
    uint64_t seed;
    size_t group_bytes;
};

size_t subscribers_count(struct subscribers all);
struct subscription *subscribers_first(struct subscribers all); /* NULL: none */

/* Writes them all to `out`, with a reference each. */
void subscribers_copy(struct subscribers all, struct subscription **out);

/*
 * Adds `s`, taking its reference, or lets it replace the subscription of its url. Returns what is
 * left over: NULL, the one replaced, or `s` itself when the two say the same.
 */
struct subscription *subscribers_put(struct subscribers *all, struct subscriber_places *places,
                                     struct subscription *s);

/* Takes out and returns the subscription of `url`, or NULL. */
struct subscription *subscribers_take(struct subscribers *all, struct subscriber_places *places,
                                      const struct index_url *url);

/* Releases them all; `places` is not kept up to date. */
void subscribers_release(struct subscribers all);

#endif
