/*
 * One notify: match, then a delivery for each subscriber, then the count.
 *
 * Threads: everything on the worker's loop.
 */
#ifndef HUB_H
#define HUB_H

#include <stdint.h>

#include <lonely/span.h>

#include "body.h"
#include "worker.h"

enum hub_status {
    HUB_OK,
    HUB_BUSY,       /* too much is queued already; nothing was sent */
    HUB_UNAVAILABLE /* the store did not answer, or the worker stops; what was sent stays sent */
};

/* `notified`: with HUB_OK the sum of what subscribers reported, capped at 2^32-1. */
typedef void hub_done_fn(void *arg, enum hub_status status, uint32_t notified);

/* Tells the subscribers of `topic` (copied). Takes a reference to `body` of its own. `done` runs exactly
 * once, after this has returned: the notifies of one turn of the loop share one look at the store. */
void hub_notify(struct worker *w, struct lonely_span topic, struct body *body, hub_done_fn *done,
                void *arg);

/* The loop has read all of a turn's input: the notifies of the turn go on. Called by worker.c. */
void hub_turn_end(struct worker *w);

#endif
