/*
 * The bar (bar.h). Called by cmd_notify.c and cmd_subscribe.c.
 */
#include "bar.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

#define LARGE_BYTES ((uint64_t)1 << 20)
#define WIDTH       30

void bar_init(struct bar *b, uint64_t size)
{
    atomic_init(&b->done, 0);
    b->size = size;
    b->drawn_ms = 0;
    b->began_ms = clock_mono_ms(&clock_system);
    b->shown = size >= LARGE_BYTES && isatty(STDERR_FILENO);
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

void bar_draw(struct bar *b)
{
    uint64_t sent = atomic_load(&b->done);
    uint64_t done = sent < b->size ? sent : b->size; /* a file may have grown since */
    uint64_t now_ms = clock_mono_ms(&clock_system);
    double spent_s = (double)(now_ms - b->began_ms) / 1000;
    double part = b->size > 0 ? (double)done / (double)b->size : 1;
    char filled[WIDTH + 1];

    if (!b->shown || now_ms - b->drawn_ms < BAR_INTERVAL_MS)
        return;
    b->drawn_ms = now_ms;
    memset(filled, ' ', WIDTH);
    filled[WIDTH] = '\0';
    memset(filled, '#', (size_t)(part * WIDTH));
    fprintf(stderr, "\r[%s] %3.0f%%  %.1f of %.1f MiB  %.1f MiB/s ", filled, part * 100, mib(done),
            mib(b->size), spent_s > 0 ? mib(done) / spent_s : 0.0);
}

void bar_clear(struct bar *b)
{
    if (b->shown)
        fputs("\r\033[K", stderr);
    b->shown = false;
}
