/*
 * One RECEIVE: a message posted to one subscription's URL, and what the reply means.
 * (doc/protocol/http.md, 3)
 */
#ifndef DELIVERY_H
#define DELIVERY_H

#include <stdint.h>

#include <lonely/span.h>
#include <lonely/stateless.h>

#include "body.h"
#include "index.h"
#include "worker.h"

/* What all deliveries of one notify share; must live until the last is done. */
struct delivery_message {
    struct lonely_span topic;
    struct body *body;
    char repr_digest[sizeof("Repr-Digest: ") + LONELY_REPR_DIGEST_BYTES]; /* the header line */
};

enum delivery_outcome {
    DELIVERY_CONFIRMED,
    DELIVERY_UNSUBSCRIBE, /* the subscriber wants no more of this subscription */
    DELIVERY_FAILED,
    DELIVERY_CANCELLED /* the worker stops; it is not known whether the message arrived */
};

/* `count`: with DELIVERY_CONFIRMED the num_subscribers of the reply. */
typedef void delivery_done_fn(void *arg, struct subscription *s, enum delivery_outcome outcome,
                              uint32_t count);

/* Queues the delivery to `s` (a reference is taken). `done` runs exactly once, on the loop; before this
 * returns when the URL holds a NUL or the worker is stopping. */
void delivery_start(struct worker *w, const struct delivery_message *message,
                    struct subscription *s, delivery_done_fn *done, void *arg);

#endif
