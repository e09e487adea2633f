/*
 * Inside of the mount: shared by mount.c (which requests, to which port), exchange.c (the host's end of a
 * request) and mount_port.c (the loop's end). Nobody else includes it.
 */
#ifndef MOUNT_PRIVATE_H
#define MOUNT_PRIVATE_H

#include <stdatomic.h>

#include "buf.h"
#include "list.h"
#include "mount_port.h"
#include "peer.h"
#include "stream_tcp.h"

/* In the order of a request's life; only mount_port.c changes it. */
enum exchange_life {
    EXCHANGE_NEW,       /* the application has not seen it */
    EXCHANGE_ASKED,     /* it has the head and has asked for nothing */
    EXCHANGE_BODY,      /* pieces go to the application */
    EXCHANGE_PAUSED,    /* it wants no pieces now */
    EXCHANGE_ENDED,     /* it has the body; its answer is awaited */
    EXCHANGE_SWITCHING, /* it wants the socket */
    EXCHANGE_AWAITED,   /* nobody will get the answer that is awaited */
    EXCHANGE_OVER       /* the application is done with it */
};

struct mount_port {
    uv_loop_t *loop;
    uv_async_t wakeup; /* something is due */
    size_t max;
    http_on_request_fn *on_request;
    void *app;
    struct stream_buffer buffer; /* of the streams that were given away */
    atomic_uint refs;
    void (*on_drained)(void *arg);
    void *drained_arg;
    void (*on_closed)(void *arg);
    void *closed_arg;
    bool wakeup_closed;
    uv_mutex_t lock; /* guards what follows */
    uv_cond_t told;
    bool draining, closed;
    size_t exchanges;                /* not freed */
    size_t streams;                  /* given away, not closed */
    struct list all;                 /* exchange.node: not over */
    struct list due;                 /* exchange.due: the loop is to look at them; each is held */
    struct lonely_exchange *telling; /* whose on_ready runs ... */
    uv_thread_t teller;              /* ... on this thread */
};

struct lonely_exchange {
    struct http_exchange x;
    struct mount_port *port;
    union peer_address peer;
    lonely_exchange_ready_fn *on_ready;
    void *ready_arg;
    /* The loop's: */
    enum exchange_life life;
    void *head; /* what x.head points into, until it was seen */
    const struct http_body_ops *body_ops;
    void *body_arg;
    http_on_upgraded_fn *on_upgraded;
    void *upgraded_arg;
    struct buf taken; /* of the body: being looked at */
    /* Under port->lock: */
    struct list node, due;
    unsigned refs;    /* the host's, the loop's, and one while due */
    bool reads;       /* the body is wanted */
    bool ended;       /* and has come whole */
    bool left;        /* the host has freed it */
    bool given;       /* its socket, and what came with it, are the loop's */
    bool waiting;     /* for on_ready */
    int bad;          /* not 0: the body is unusable, to be answered with this status */
    uint64_t written; /* bytes of the body */
    struct buf inbox;
    bool answered;
    struct lonely_exchange_response response; /* never changed once it is there */
    int fd;                                   /* given; -1 */
    struct buf rest;                          /* what came with it */
};

/* One that the application is not to see; answered by the caller. `refs` 1. NULL: no memory. */
struct lonely_exchange *exchange_create(struct mount_port *port);
void exchange_unref(struct lonely_exchange *e);
/* Makes the answer; whoever waits is told. `content_type`, `headers`: as in http_response. */
void exchange_answer(struct lonely_exchange *e, const struct http_response *r);
enum lonely_exchange_state exchange_state(const struct lonely_exchange *e); /* under lock */
void exchange_tell(struct lonely_exchange *e); /* under lock, which is let go meanwhile */

void mount_port_ref(struct mount_port *port);
void mount_port_unref(struct mount_port *port);
/* The application is to see it. Takes a reference. False: it is not, at present. Any thread. */
bool mount_port_add(struct mount_port *port, struct lonely_exchange *e);
void mount_port_schedule(struct lonely_exchange *e); /* under lock; any thread */

#endif
