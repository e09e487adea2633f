/*
 * A queue in one block that grows: what a session waits for, and what waits for it. An empty ring holds
 * no memory once it was long. One thread at a time.
 */
#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <stdint.h>

#include "mem.h"

#define RING_FIRST 8  /* slots at the beginning; a power of two, as all sizes are */
#define RING_KEPT  64 /* slots that an empty ring may keep */

/* An acknowledgement that is expected, or something to be sent. */
union ring_slot {
    struct {
        uint8_t identifier[4];
        bool last; /* CONFIRM_RECEIVE, else CONTINUE_RECEIVE */
        uint64_t part_id;
    } ack;
    struct {
        int kind; /* an enum send_kind */
        void *what;
    } send;
};

/* Zeroed: empty. */
struct ring {
    union ring_slot *slots;
    uint32_t first, count, cap;
};

static inline union ring_slot *ring_at(const struct ring *r, uint32_t i)
{
    return &r->slots[(r->first + i) & (r->cap - 1)];
}

/* The slot that comes out next; there must be one. */
static inline union ring_slot *ring_front(const struct ring *r)
{
    return &r->slots[r->first];
}

static inline void ring_grow(struct ring *r)
{
    uint32_t cap = r->cap == 0 ? RING_FIRST : 2 * r->cap;
    union ring_slot *slots = mem_alloc(cap * sizeof(*slots));

    for (uint32_t i = 0; i < r->count; i++)
        slots[i] = *ring_at(r, i);
    mem_free(r->slots);
    *r = (struct ring){ slots, 0, r->count, cap };
}

static inline union ring_slot *ring_push(struct ring *r)
{
    if (r->count == r->cap)
        ring_grow(r);
    return ring_at(r, r->count++);
}

static inline void ring_fini(struct ring *r)
{
    mem_free(r->slots);
    *r = (struct ring){ 0 };
}

static inline void ring_pop(struct ring *r)
{
    r->first = (r->first + 1) & (r->cap - 1);
    if (--r->count == 0 && r->cap > RING_KEPT)
        ring_fini(r);
}

#endif
