/*
 * Accepts connections and gives them out as streams, plain or TLS: for raw TCP (doc/protocol/stateful.md,
 * 2.2), as http_server.h is for HTTP and websockets. Counts them until they are closed.
 *
 * Threads: everything on the thread of the loop.
 */
#ifndef NET_STREAM_LISTENER_H
#define NET_STREAM_LISTENER_H

#include <uv.h>

#include "log.h"
#include "peer.h"
#include "stream.h"
#include "tls.h"

struct stream_listener_conf {
    uint64_t handshake_timeout_ms; /* of TLS; 0: none */
    /* A peer that does not answer is noticed after so long, whether something is on its way to it
     * (TCP_USER_TIMEOUT) or not (keepalive); 0: as the system is set. */
    uint64_t user_timeout_ms;
    uint32_t max_connections; /* at the cap accepting pauses */
    struct log *log;          /* NULL: none; must outlive the listener */
    struct peer_limit *peers; /* connections an address; NULL: no limit; must outlive it too */
    /* A connection was closed at once, since its address has its share. NULL: nobody is told. */
    void (*on_reject)(void *arg, const struct sockaddr *peer);
};

/*
 * `stream` is the receiver's, who attaches to it before it returns; reading is stopped (but what came
 * together with the end of a TLS handshake is told right afterwards). `peer` dies on return.
 */
typedef void stream_listener_fn(void *arg, struct stream *stream, const union peer_address *peer);

struct stream_listener;

/* `conf` is copied. Never fails. */
struct stream_listener *stream_listener_create(uv_loop_t *loop,
                                               const struct stream_listener_conf *conf,
                                               stream_listener_fn *on_accept, void *arg);

/* Accepts on `fd`, a bound and listening non-blocking TCP socket, owned from now on, also when it
 * fails. `tls`: NULL: plain; must outlive the listener. Returns 0 or a negative libuv error. */
int stream_listener_listen(struct stream_listener *l, int fd, struct tls_server *tls);

/* Closes the sockets. Handshakes under way may still end in an on_accept. */
void stream_listener_stop(struct stream_listener *l);

/* Stops, ends handshakes, then frees it, once the streams that it has given out are closed, which is
 * their users' to do: they read through its memory. `on_closed` runs then. */
void stream_listener_close(struct stream_listener *l, void (*on_closed)(void *arg), void *arg);

/* Handshakes under way, and streams given out that are not closed. */
uint32_t stream_listener_connections(const struct stream_listener *l);

#endif
