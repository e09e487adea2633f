/*
 * The HTTP API of the broadcaster: which path does what, and how every route answers.
 * (doc/protocol/http.md, 2)
 *
 * Threads: everything on the worker's loop.
 */
#ifndef ROUTES_H
#define ROUTES_H

#include <stdbool.h>
#include <stdint.h>

#include <lonely/stateless.h>

#include "buf.h"
#include "gate.h"
#include "http.h"
#include "worker.h"

struct request;
struct route;

/* Frees what a route keeps of a request beside `struct request` itself. */
typedef void request_release_fn(struct request *r);

/* One request under way. A route's own structure begins with it. */
struct request {
    struct worker *worker;
    struct http_exchange *exchange;
    const struct route *route;
    request_release_fn *release; /* NULL: nothing to do; the route sets it */
    struct buf collected;        /* the fields of the body, as far as they have arrived in pieces */
    bool no_memory;              /* for what request_on_fields was given; to be answered with 503 */
    uint64_t started_ns;         /* wall clock */
    uint64_t started_mono_ns;    /* for how long it took */
    /* Why it is about to be turned away, when the status alone would not tell; else
     * METRICS_REASON_NONE. */
    enum metrics_reason reason;
    bool asks; /* authorization is needed; as the secrets were when the head came */
    struct lonely_span authorization; /* the first header of that name, copied; ptr NULL: absent */
    uint8_t *authorization_copy;
    struct gate_wait *wait; /* a check under way */
    void (*then)(struct request *r, int status);
};

/* http_on_request_fn of the workers' servers; `app` is the worker. */
void routes_on_request(void *app, struct http_exchange *x);
/* on_reject of the same servers. */
void routes_on_reject(void *app, int status, const struct sockaddr *peer);

/* For what is answered at once: counts it and tells the access log. */
void routes_tell(struct worker *w, const struct http_exchange *x, enum metrics_route route,
                 int status);
/* And answers. `headers`: more lines, each ending in "\r\n", or "". */
void routes_refuse(struct worker *w, struct http_exchange *x, enum metrics_route route, int status,
                   const char *headers);

/* Makes the structure of a route's request, `size` bytes, zeroed but for its beginning. */
void *request_create(struct worker *w, struct http_exchange *x, const struct route *route,
                     size_t size);

#define REQUEST_LATER (-1)

/* Checks the authorization of a request over `in`, which may die on return. 0: go on; a status to refuse
 * it with; or REQUEST_LATER: `then` runs later with one of these, unless the request is freed before. */
int request_authorize(struct request *r, const struct lonely_auth_input *in,
                      void (*then)(struct request *r, int status));

/* Each of these ends the exchange; the structure stays, to be freed by request_free. */
void request_answer(struct request *r, int status); /* no body; 503 says when to come back */
/* 200; signed over `in`, whose tracing is set here to that of the body. */
void request_answer_body(struct request *r, enum lonely_stateless_type type,
                         struct lonely_stateless *body, struct lonely_auth_input *in);
void request_answer_generic(struct request *r, struct lonely_auth_input *in); /* RESPONSE_GENERIC */
/* These bytes, unsigned. */
void request_answer_with(struct request *r, int status, const char *content_type,
                         struct lonely_span body);

/*
 * May this url be stored, to be posted to? What needs no look-up is judged here, the rest when
 * connecting (policy.h). False: log has it, and the answer is 400. Any thread.
 */
bool request_url_allowed(const struct request *r, struct lonely_span url);

/* Adds bytes to `collected`. False: there is no memory for them, or too much is held for requests that
 * are not complete (limits.max_body_memory); to be answered with 503. */
bool request_collect(struct request *r, const uint8_t *ptr, size_t len);

/* Collects bytes off the front of `piece` until `needed` are held, or the piece is empty. False: as
 * request_collect. */
bool request_collect_until(struct request *r, size_t needed, struct lonely_span *piece);

/* on_piece of a body that is fields only, its argument the request: collects as much as the longest fields
 * can have, and ignores what follows. */
void request_on_fields(void *arg, struct lonely_span piece);

/* Frees what was collected, before the request ends. */
void request_drop_collected(struct request *r);

/* Releases and frees the structure. The exchange must have been answered, or this is called in its
 * on_abort. */
void request_free(struct request *r);

/* request_answer and request_free. */
void request_end(struct request *r, int status);
/* on_abort of a body whose argument is the request. */
void request_on_abort(void *arg);

/* What a route says when the request's head is complete. Reads the body or answers. */
typedef void route_fn(struct worker *w, struct http_exchange *x, const struct route *route);

struct route {
    const char *path;
    route_fn *on_request;
    enum lonely_stateless_type type; /* of the request's body */
    enum metrics_route metric;
};

route_fn route_fields; /* route_fields.c: the five requests that are a few fields */
route_fn route_set;    /* route_set.c */
route_fn route_notify; /* route_notify.c */
/* From other broadcasters: route_receive.c, route_missed.c */
route_fn route_receive;
route_fn route_missed;

void route_websocket(struct worker *w, struct http_exchange *x); /* route_websocket.c: an upgrade */

#endif
