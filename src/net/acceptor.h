/*
 * Accepts connections from listening sockets. When the program runs out of descriptors it pauses
 * instead of spinning.
 *
 * Threads: everything on the thread of the loop.
 */
#ifndef NET_ACCEPTOR_H
#define NET_ACCEPTOR_H

#include <stdbool.h>
#include <uv.h>

#include "log.h"
#include "peer.h"

struct acceptor;

/* `fd`: connected, non-blocking, close-on-exec; the receiver's. `socket_arg` came with its listening
 * socket. `peer` dies on return. */
typedef void acceptor_fn(void *arg, void *socket_arg, int fd, const union peer_address *peer);

/* `log` may be NULL and must outlive it. Never fails. */
struct acceptor *acceptor_create(uv_loop_t *loop, struct log *log, acceptor_fn *on_accept,
                                 void *arg);

/* Accepts on `fd`, a bound and listening socket, owned from now on, also when it fails. Returns 0 or
 * a negative libuv error. */
int acceptor_listen(struct acceptor *a, int fd, void *socket_arg);

/* While held nobody is accepted; peers wait in the backlog. Starts not held. */
void acceptor_hold(struct acceptor *a, bool hold);

/* Closes the sockets. Nobody is accepted afterwards. May be called again. */
void acceptor_stop(struct acceptor *a);

/* Stops, then frees; `on_closed` runs later, once. */
void acceptor_close(struct acceptor *a, void (*on_closed)(void *arg), void *arg);

#endif
