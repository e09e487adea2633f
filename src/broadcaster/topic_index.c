/*
 * Exact topics: a table from the hash of a topic to its subscribers. The first of them holds the
 * text to compare with, so that a lookup among a million costs two cache misses. Used by index.c.
 */
#include "topic_index.h"

#include <string.h>

static struct index_slot *topic_slot(const struct topic_index *t, uint64_t hash,
                                     struct lonely_span topic)
{
    struct index_slot *slot = index_table_find(&t->topics, hash);

    for (; slot != NULL; slot = index_table_next(&t->topics, hash, slot)) {
        /* The text, on the next cache line, is waited for together with what says its length. */
        __builtin_prefetch((const char *)slot->item + 64);
        struct lonely_span key = subscribers_first((struct subscribers){ slot->item })->key;
        if (key.len == topic.len && (key.len == 0 || memcmp(key.ptr, topic.ptr, key.len) == 0))
            break;
    }
    return slot;
}

struct subscribers topic_index_find(const struct topic_index *t, uint64_t hash,
                                    struct lonely_span topic)
{
    const struct index_slot *slot = topic_slot(t, hash, topic);

    return (struct subscribers){ slot != NULL ? slot->item : NULL };
}

struct subscription *topic_index_put(struct topic_index *t, struct subscriber_places *places,
                                     uint64_t hash, struct subscription *s)
{
    struct index_slot *slot = topic_slot(t, hash, s->key);
    struct subscribers all = { slot != NULL ? slot->item : NULL };
    struct subscription *left = subscribers_put(&all, places, s);

    if (slot != NULL)
        slot->item = all.any;
    else
        index_table_add(&t->topics, hash, all.any);
    return left;
}

struct subscription *topic_index_take(struct topic_index *t, struct subscriber_places *places,
                                      uint64_t hash, const struct subscription *like)
{
    struct index_slot *slot = topic_slot(t, hash, like->key);

    if (slot == NULL)
        return NULL;

    struct subscribers all = { slot->item };
    struct subscription *taken = subscribers_take(&all, places, like->url);
    if (all.any != NULL)
        slot->item = all.any;
    else
        index_table_remove(&t->topics, slot);
    return taken;
}

static void release(void *arg, void *item)
{
    (void)arg;
    subscribers_release((struct subscribers){ item });
}

void topic_index_fini(struct topic_index *t)
{
    index_table_each(&t->topics, release, NULL);
    index_table_fini(&t->topics);
}
