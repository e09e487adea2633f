/*
 * Exact topics and their subscribers.
 */
#ifndef TOPIC_INDEX_H
#define TOPIC_INDEX_H

#include "index_table.h"
#include "subscribers.h"

/* Zeroed, it is empty. `hash` is always the keyed hash of the topic. */
struct topic_index {
    struct index_table topics; /* items are struct subscribers */
};

void topic_index_fini(struct topic_index *t); /* releases the subscriptions */

/* As subscribers_put and subscribers_take. */
struct subscription *topic_index_put(struct topic_index *t, struct subscriber_places *places,
                                     uint64_t hash, struct subscription *s);
struct subscription *topic_index_take(struct topic_index *t, struct subscriber_places *places,
                                      uint64_t hash, const struct subscription *like);

struct subscribers topic_index_find(const struct topic_index *t, uint64_t hash,
                                    struct lonely_span topic);

#endif
