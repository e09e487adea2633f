/*
 * A connection as a stream of bytes: the one interface under HTTP, websocket and raw TCP, plain
 * (stream_tcp.c) or TLS (stream_tls.c). Its user is one connection object at a time; an HTTP connection hands the
 * stream on to a websocket by stream_attach.
 *
 * Threads: everything on the thread of the loop that the stream belongs to.
 */
#ifndef NET_STREAM_H
#define NET_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include <lonely/span.h>

struct stream;

/* What a stream tells its user. None of these runs inside a call of the user into the stream. */
struct stream_events {
    /* Bytes, at least one; they die on return, and may be written over until then (a websocket unmasks
     * them in place). stream_read_stop, send, close are allowed here. */
    void (*on_read)(void *arg, struct lonely_span bytes);
    /* The peer sends no more; it may still read. */
    void (*on_end)(void *arg);
    /* All of the last stream_send has left; its parts are the user's again. */
    void (*on_sent)(void *arg);
    /* The connection is broken: the user must close it before it returns. Does not come when
     * stream_try_send said so before and the stream was closed. */
    void (*on_lost)(void *arg);
    /* After stream_close: parts being sent are the user's again. The stream is gone. */
    void (*on_closed)(void *arg);
    /* TLS only: the handshake is done. May be NULL. */
    void (*on_open)(void *arg);
};

#define STREAM_LOST      (-1)
#define STREAM_PARTS_MAX 64

struct stream_ops {
    void (*read_start)(struct stream *s);
    void (*read_stop)(struct stream *s);
    ptrdiff_t (*try_send)(struct stream *s, const struct lonely_span *parts, size_t count);
    void (*send)(struct stream *s, const struct lonely_span *parts, size_t count);
    void (*shutdown)(struct stream *s);
    void (*close)(struct stream *s);
    bool (*has_unread)(struct stream *s); /* NULL: cannot tell */
    bool is_tls;
};

/* The public beginning of each kind of stream. */
struct stream {
    const struct stream_ops *ops;
    const struct stream_events *events;
    void *arg;
    /* Told after on_closed, whoever its user was by then: for a listener that counts. NULL: nobody. */
    void (*on_gone)(void *arg);
    void *gone_arg;
};

/* For those who make streams: the last that happens to one, whose memory may be freed then. */
static inline void stream_gone(const struct stream *s)
{
    if (s->on_gone != NULL)
        s->on_gone(s->gone_arg);
}

/* From now on `events` are told to `arg`. Not while a stream_send is under way. */
static inline void stream_attach(struct stream *s, const struct stream_events *events, void *arg)
{
    s->events = events;
    s->arg = arg;
}

/* Reading starts stopped. Both may be called again without harm; no on_read, on_end comes while
 * stopped. A peer that vanishes is then not noticed, unless by sending. */
static inline void stream_read_start(struct stream *s)
{
    s->ops->read_start(s);
}

static inline void stream_read_stop(struct stream *s)
{
    s->ops->read_stop(s);
}

/* Sends what the peer takes at once, of at most STREAM_PARTS_MAX parts. Returns how many bytes that
 * was (0 while a stream_send is under way), or STREAM_LOST. Nothing is kept; if it took a part of
 * them, the first byte that it did not take is the next to send, or the stream is to be closed. */
static inline ptrdiff_t stream_try_send(struct stream *s, const struct lonely_span *parts,
                                        size_t count)
{
    return s->ops->try_send(s, parts, count);
}

/* Sends 1 to STREAM_PARTS_MAX parts as the peer takes them. The bytes (not the array) must live
 * until on_sent or on_closed. One at a time. */
static inline void stream_send(struct stream *s, const struct lonely_span *parts, size_t count)
{
    s->ops->send(s, parts, count);
}

/* Tells the peer that nothing more will be sent. Not while a stream_send is under way. */
static inline void stream_shutdown(struct stream *s)
{
    s->ops->shutdown(s);
}

/* Do bytes of the peer wait, which stream_close would answer by a reset? */
static inline bool stream_has_unread(struct stream *s)
{
    return s->ops->has_unread != NULL && s->ops->has_unread(s);
}

/* Closes at once. Only on_closed follows, later; once. */
static inline void stream_close(struct stream *s)
{
    s->ops->close(s);
}

#endif
