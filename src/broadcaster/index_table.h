/*
 * Hash table of pointers for the index: open addressing, the 64 bit hash beside the pointer. Cut
 * into segments that grow and shrink alone, so that no single change moves more than a few thousand
 * slots, whatever the table holds. Hashes come from the caller, are keyed, and are spread over all
 * bits; equal hashes are told apart by the caller.
 */
#ifndef INDEX_TABLE_H
#define INDEX_TABLE_H

#include <stddef.h>
#include <stdint.h>

enum { INDEX_TABLE_SEGMENT_BITS = 10, INDEX_TABLE_SEGMENTS = 1 << INDEX_TABLE_SEGMENT_BITS };

struct index_slot {
    uint64_t hash;
    void *item; /* NULL: free */
};

struct index_segment {
    struct index_slot *slots; /* `cap` of them, a power of two, or NULL */
    uint32_t cap;
    uint32_t count;
};

/* Zeroed, it is an empty table. */
struct index_table {
    struct index_segment segments[INDEX_TABLE_SEGMENTS];
    size_t count;
    size_t slots; /* of all segments, for statistics */
};

void index_table_fini(struct index_table *t); /* frees the slots, not the items */

/* `item` is not NULL. Pointers to slots die with every call that adds or removes. */
void index_table_add(struct index_table *t, uint64_t hash, void *item);
void index_table_remove(struct index_table *t, struct index_slot *slot);

void index_table_each(const struct index_table *t, void (*fn)(void *arg, void *item), void *arg);

static inline const struct index_segment *index_table_segment(const struct index_table *t,
                                                              uint64_t hash)
{
    return &t->segments[hash >> (64 - INDEX_TABLE_SEGMENT_BITS)];
}

/* The slots of `hash`, one by one: `after` is NULL, then the one before. NULL: no more. */
static inline struct index_slot *index_table_next(const struct index_table *t, uint64_t hash,
                                                  const struct index_slot *after)
{
    const struct index_segment *s = index_table_segment(t, hash);

    if (s->slots == NULL)
        return NULL;
    uint64_t mask = s->cap - 1;
    uint64_t i = after == NULL ? hash & mask : ((uint64_t)(after - s->slots) + 1) & mask;
    while (s->slots[i].item != NULL) { /* a segment is never full */
        if (s->slots[i].hash == hash)
            return &s->slots[i];
        i = (i + 1) & mask;
    }
    return NULL;
}

static inline struct index_slot *index_table_find(const struct index_table *t, uint64_t hash)
{
    return index_table_next(t, hash, NULL);
}

#endif
