/*
 * A progress bar on standard error: for large bodies, on a terminal, else nothing.
 */
#ifndef BAR_H
#define BAR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define BAR_INTERVAL_MS 100

struct bar {
    atomic_uint_least64_t done; /* set by any thread */
    uint64_t size;
    uint64_t began_ms, drawn_ms;
    bool shown;
};

void bar_init(struct bar *b, uint64_t size);
void bar_draw(struct bar *b); /* at most once in BAR_INTERVAL_MS */
void bar_clear(struct bar *b);

#endif
