/*
 * Connects to a host by libcurl (names, TLS, proxies) and hands out the connection as a stream. The
 * connecting itself blocks a thread of the pool, bounded by its timeout.
 *
 * Threads: everything on the thread of the loop.
 */
#ifndef NET_DIAL_H
#define NET_DIAL_H

#include <uv.h>

#include "stream_tcp.h"

struct dial_conf {
    const char *url;          /* http://HOST:PORT or https://HOST:PORT: only the host counts */
    const char *ca;           /* PEM file: trust this instead of the system's; NULL: the system's */
    const char *cert, *key;   /* PEM files of the client's certificate; NULL: none */
    const char *proxy;        /* NULL: none; the environment is ignored */
    uint64_t timeout_ms;      /* for everything; 0: none */
    uint64_t user_timeout_ms; /* TCP_USER_TIMEOUT and keepalive; 0: as the system is set */
    struct stream_buffer *buffer; /* what is read lies there; outlives the stream */
};

struct dial;

/* Exactly once, never before dial_start has returned. `stream` NULL: `why` says in one line what failed.
 * Else it is the receiver's, who attaches to it before it returns; reading is stopped. */
typedef void dial_done_fn(void *arg, struct stream *stream, const char *why);

/* What `conf` points at is copied. Never fails. */
struct dial *dial_start(uv_loop_t *loop, const struct dial_conf *conf, dial_done_fn *done,
                        void *arg);

/* `done` runs soon, with no stream. */
void dial_cancel(struct dial *d);

#endif
