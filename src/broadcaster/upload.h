/*
 * What notify and set_subscriptions have in common: fields, and behind them a part of any length that
 * goes into a body (body.h) while it arrives; the authorization is checked between the two.
 *
 * Threads: everything on the worker's loop.
 */
#ifndef UPLOAD_H
#define UPLOAD_H

#include "body.h"
#include "routes.h"

/* A route's own structure begins with it. */
struct upload {
    struct request request; /* first */
    struct body_writer *writer;
    struct body *body; /* once it is complete */
    uint64_t message_len, message_received;
    bool checking; /* the authorization: no more is read meanwhile */
    bool writing;  /* the writer is full: the same */
    void (*then)(struct upload *u);
};

/* A request_release_fn, or part of one: gives up what has been written. */
void upload_release(struct request *r);

/* The fields have come. `status`: what request_authorize, given upload_authorized, has said of them, or
 * what else refuses the request. `expected`: as body_writer_create has it. false: the request has been
 * refused and is gone. */
bool upload_begin(struct upload *u, int status, uint64_t expected);
void upload_authorized(struct request *r, int status);

/* The next bytes behind the fields, and their end. Either may answer the request, which is gone then:
 * when the bytes cannot be kept. `then` runs when `body` is there, possibly before this returns. */
void upload_add(struct upload *u, struct lonely_span bytes);
void upload_end(struct upload *u, void (*then)(struct upload *u));

/* The same for a message, which must be as long as its fields say (else 400); its bytes are counted in
 * the metrics. */
bool upload_begin_message(struct upload *u, int status, uint64_t message_len);
void upload_add_message(struct upload *u, struct lonely_span bytes);
void upload_end_message(struct upload *u, void (*then)(struct upload *u));

#endif
