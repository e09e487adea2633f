/*
 * A connection that carries frames of the stateful protocol: a websocket, whose binary messages are the
 * frames, or raw TCP, where a length goes before each (doc/protocol/stateful.md, 2). Either end of
 * one, over any stream. What a frame means is its user's business.
 *
 * Input is pushed, in pieces: nearly always a frame is one piece, a view into the loop's read buffer.
 * Output is queued and leaves once a turn of the loop, in one writev for each connection. An idle
 * connection holds no buffer.
 *
 * Threads: everything on the thread of the loop that the group belongs to.
 */
#ifndef NET_TRANSPORT_H
#define NET_TRANSPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include <lonely/span.h>

#include "stream.h"

enum transport_kind { TRANSPORT_WEBSOCKET, TRANSPORT_TCP };
enum transport_role { TRANSPORT_SERVER, TRANSPORT_CLIENT }; /* a websocket client masks */

/* Why a connection ends: the codes of RFC 6455, 7.4. Raw TCP sends none, but tells and is told them
 * through this interface all the same. */
enum transport_code {
    TRANSPORT_NORMAL = 1000,
    TRANSPORT_GOING_AWAY = 1001,
    TRANSPORT_MALFORMED = 1002, /* not the protocol */
    TRANSPORT_TEXT = 1003,      /* a text message */
    TRANSPORT_NO_CODE = 1005,   /* told only: an orderly end without one */
    TRANSPORT_LOST = 1006,      /* told only: broken, or ended inside a frame */
    TRANSPORT_BAD_PAYLOAD = 1007,
    TRANSPORT_POLICY = 1008, /* authorization, a message that is not allowed now */
    TRANSPORT_TOO_BIG = 1009,
    TRANSPORT_FAILED = 1011,  /* our fault, or no pong */
    TRANSPORT_RESTART = 1012, /* we stop */
    TRANSPORT_OVERLOAD = 1013 /* a bound is reached */
};

struct transport_conf {
    uint64_t max_frame_bytes;  /* inbound; more: TOO_BIG. Raw TCP: at least 262,144 */
    uint64_t ping_interval_ms; /* websocket: after so long without a byte of the peer; 0: never */
    /* No byte for so long after a ping: FAILED; 0: waits for ever. While reading is stopped no pong is
     * waited for; but output of which nothing leaves for both times together is FAILED, too. */
    uint64_t ping_timeout_ms;
    uint64_t
        close_timeout_ms; /* for the peer's part of an orderly close, and for what is queued then */
    size_t low_water_bytes; /* on_drained once the queue has shrunk to it */
};

/* What all transports of a loop and a configuration share. */
struct transport_group;
struct transport_group *transport_group_create(uv_loop_t *loop, const struct transport_conf *conf);
/* After the last on_closed; `on_closed` runs later, once, and the group is gone. */
void transport_group_close(struct transport_group *g, void (*on_closed)(void *arg), void *arg);

struct transport;

struct transport_piece {
    struct lonely_span bytes; /* they die on return; empty only as the end of a frame */
    uint64_t frame_bytes;     /* of the whole frame; UINT64_MAX: not known (fragments) */
    bool first, last;         /* the piece begins, ends a frame */
};

struct transport_events {
    /* Any call is allowed here. Runs inside no call of the user. */
    void (*on_piece)(void *arg, const struct transport_piece *piece);
    /* The queue, which transport_queued said was above the low water mark, has shrunk to it. */
    void (*on_drained)(void *arg);
    /* No piece follows: the peer closed (with its code), broke the rules or vanished, or a bound of the
     * group was reached (with ours, which the peer is told where it can be). Comes once, not after
     * transport_close; the user calls transport_close when it is done. */
    void (*on_end)(void *arg, enum transport_code code);
    /* After transport_close: the transport is gone. */
    void (*on_closed)(void *arg);
};

/*
 * Begins on `stream`, which belongs to the transport from now on; a websocket's handshake is over.
 * `rest`: bytes of the peer that were read already (copied); they are looked at in a later turn.
 * Reading starts stopped.
 */
struct transport *transport_open(struct transport_group *g, struct stream *stream,
                                 enum transport_kind kind, enum transport_role role,
                                 struct lonely_span rest, const struct transport_events *events,
                                 void *arg);
void transport_attach(struct transport *t, const struct transport_events *events, void *arg);

/* May be called again without harm. While stopped no on_piece and no on_end comes (but for a lost
 * connection that sending noticed); what was read by then is kept, at most a read's worth. */
void transport_read_start(struct transport *t);
void transport_read_stop(struct transport *t);

/*
 * Output: transport_frame announces a frame, then exactly its bytes are put, in any number of calls and
 * turns; then the next frame. Nothing happens on a transport that is closing or has ended. Without
 * memory for what is put the connection ends (on_end, OVERLOAD).
 */
void transport_frame(struct transport *t, uint64_t frame_bytes);
/* A whole frame at once: the same as announcing and putting it, but cheaper when it is short. */
void transport_put_frame(struct transport *t, struct lonely_span frame);
void transport_put(struct transport *t, struct lonely_span bytes); /* copied */
/* Room for `len` bytes (at most 64 KiB) to be written in place; then transport_commit of as many. NULL:
 * the connection is ending; commit nothing. */
uint8_t *transport_reserve(struct transport *t, size_t len);
void transport_commit(struct transport *t, size_t len);
/* Not copied (unless it is small, or a client masks it): must live until `release` runs, once, on this
 * thread, perhaps before this returns. */
void transport_put_shared(struct transport *t, struct lonely_span bytes, void (*release)(void *arg),
                          void *arg);

size_t transport_queued(const struct transport *t); /* bytes not taken by the kernel */
enum transport_kind transport_kind_of(const struct transport *t);
bool transport_is_tls(const struct transport *t);

/* Ends it in order: what is queued leaves, then `code` (websocket), then the end of the stream; what the
 * peer sends meanwhile is thrown away. Bounded by close_timeout_ms. Only on_closed follows, later. May be
 * called again. A frame that is not complete is cut. After on_end `code` is not used: the peer has been
 * told already, its own code when it closed. */
void transport_close(struct transport *t, enum transport_code code);
/* Ends it at once; only on_closed follows, later. */
void transport_abort(struct transport *t);

#endif
