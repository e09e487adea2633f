/*
 * The segments of the index's hash tables: linear probing, removal by shifting back, so that no
 * traces of removed items slow down what follows. Used by the topic and glob indexes, the
 * subscribers of a key and the urls; what an item is they know.
 */
#include "index_table.h"

#include <stdbool.h>

#include "mem.h"

enum { SEGMENT_MIN_CAP = 4 };

static void segment_place(struct index_segment *s, struct index_slot slot)
{
    uint64_t mask = s->cap - 1;
    uint64_t i = slot.hash & mask;

    while (s->slots[i].item != NULL)
        i = (i + 1) & mask;
    s->slots[i] = slot;
}

static void segment_resize(struct index_table *t, struct index_segment *s, uint32_t cap)
{
    struct index_segment old = *s;

    s->slots = cap > 0 ? mem_calloc(cap, sizeof(*s->slots)) : NULL;
    s->cap = cap;
    for (uint32_t i = 0; i < old.cap; i++)
        if (old.slots[i].item != NULL)
            segment_place(s, old.slots[i]);
    mem_free(old.slots);
    t->slots = t->slots - old.cap + cap;
}

static struct index_segment *segment_of(struct index_table *t, uint64_t hash)
{
    return &t->segments[hash >> (64 - INDEX_TABLE_SEGMENT_BITS)];
}

void index_table_add(struct index_table *t, uint64_t hash, void *item)
{
    struct index_segment *s = segment_of(t, hash);

    if (s->count + 1 > s->cap / 4 * 3) /* three quarters full */
        segment_resize(t, s, s->cap > 0 ? s->cap * 2 : SEGMENT_MIN_CAP);
    segment_place(s, (struct index_slot){ hash, item });
    s->count++;
    t->count++;
}

/* Fills the hole at `i` with the next slot that may not stand behind a hole, and so on. */
static void segment_close_hole(struct index_segment *s, uint64_t i)
{
    uint64_t mask = s->cap - 1;

    for (uint64_t j = (i + 1) & mask; s->slots[j].item != NULL; j = (j + 1) & mask) {
        uint64_t home = s->slots[j].hash & mask;
        if (((j - home) & mask) >= ((j - i) & mask)) {
            s->slots[i] = s->slots[j];
            i = j;
        }
    }
    s->slots[i].item = NULL;
}

void index_table_remove(struct index_table *t, struct index_slot *slot)
{
    struct index_segment *s = segment_of(t, slot->hash);

    segment_close_hole(s, (uint64_t)(slot - s->slots));
    s->count--;
    t->count--;
    if (s->count == 0)
        segment_resize(t, s, 0);
    else if (s->cap > SEGMENT_MIN_CAP && s->count < s->cap / 8)
        segment_resize(t, s, s->cap / 2);
}

void index_table_each(const struct index_table *t, void (*fn)(void *arg, void *item), void *arg)
{
    for (size_t i = 0; i < INDEX_TABLE_SEGMENTS; i++) {
        const struct index_segment *s = &t->segments[i];
        for (uint32_t k = 0; k < s->cap; k++)
            if (s->slots[k].item != NULL)
                fn(arg, s->slots[k].item);
    }
}

void index_table_fini(struct index_table *t)
{
    for (size_t i = 0; i < INDEX_TABLE_SEGMENTS; i++)
        mem_free(t->segments[i].slots);
    *t = (struct index_table){ 0 };
}
