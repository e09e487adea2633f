/*
 * The sessions of one worker: subscribers and publishers that keep a connection, by websocket or raw
 * TCP. (doc/protocol/session.md, 1 to 3)
 *
 * Threads: everything on the worker's loop.
 */
#ifndef SESSION_H
#define SESSION_H

#include <stdbool.h>
#include <stddef.h>

#include <lonely/span.h>

#include "stream.h"
#include "tls.h"
#include "transport.h"
#include "worker.h"

struct sessions;

/* Sessions of a worker that hold samples of their messages: 64 KiB and a file each, at most. */
#define SESSIONS_TRAINERS_MAX 256

/* worker.receivers must exist. */
struct sessions *sessions_create(struct worker *w);

/* Who is there, and how. */
struct session_peer {
    enum transport_kind kind;
    const char *name; /* as peer_print has it; copied */
    /* It counts the parts of a message as one (websocket_count_parts); never with TCP. */
    bool counts_first;
};

/*
 * Begins one on `stream`, which belongs to it from now on; a websocket's handshake is over. `rest`: what
 * the peer has sent behind it already (copied).
 */
void sessions_open(struct sessions *all, struct stream *stream, struct lonely_span rest,
                   const struct session_peer *peer);

/* Serves raw TCP on `fd`, a bound and listening socket, which is owned from now on, also on failure. `tls`
 * NULL: plain. 0, or a negative error of libuv. */
int sessions_listen(struct sessions *all, int fd, struct tls_server *tls);
/* Connections over raw TCP, those whose handshake is under way too. */
uint32_t sessions_tcp_connections(const struct sessions *all);

size_t sessions_count(const struct sessions *all);

/* Accepts no more, takes no more frames; what was taken is answered, then each session is closed (code 1012), also those that
 * are opened from now on. `on_drained` runs once, later, when none is left; not after sessions_close. */
void sessions_drain(struct sessions *all, void (*on_drained)(void *arg), void *arg);

/* Ends all at once. `on_closed` runs once, later, when the last is gone, and nothing that belongs to one is
 * under way. */
void sessions_close(struct sessions *all, void (*on_closed)(void *arg), void *arg);

/* After on_closed. NULL is allowed. */
void sessions_destroy(struct sessions *all);

#endif
