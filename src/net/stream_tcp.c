/*
 * Streams on libuv's TCP handles. Made by whoever accepts or connects a socket; what the bytes mean
 * is their user's business.
 */
#include "stream_tcp.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "list.h"
#include "mem.h"

struct stream_tcp {
    struct stream stream;
    uv_tcp_t handle; /* handle.data is this */
    struct stream_buffer *buffer;
};

/* Apart, since most answers leave at once and need none. */
struct pending_send {
    uv_write_t req;
    struct stream_tcp *owner;
};

static struct stream_tcp *of_stream(struct stream *s)
{
    return list_entry(s, struct stream_tcp, stream);
}

static uv_stream_t *uv_stream_of(struct stream_tcp *t)
{
    return (uv_stream_t *)&t->handle;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct stream_tcp *t = handle->data;

    (void)suggested;
    *buf = uv_buf_init(t->buffer->bytes, sizeof(t->buffer->bytes));
}

static void on_uv_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *buf)
{
    struct stream_tcp *t = handle->data;
    struct stream *s = &t->stream;

    if (n > 0) {
        s->events->on_read(s->arg, (struct lonely_span){ (const uint8_t *)buf->base, (size_t)n });
        return;
    }
    if (n == 0)
        return;
    uv_read_stop(handle);
    if (n == UV_EOF)
        s->events->on_end(s->arg);
    else
        s->events->on_lost(s->arg);
}

/* Fails only on a handle that is being closed, which no user does. */
static void tcp_read_start(struct stream *s)
{
    (void)uv_read_start(uv_stream_of(of_stream(s)), on_alloc, on_uv_read);
}

static void tcp_read_stop(struct stream *s)
{
    (void)uv_read_stop(uv_stream_of(of_stream(s)));
}

static unsigned to_uv(uv_buf_t to[STREAM_PARTS_MAX], const struct lonely_span *parts, size_t count)
{
    unsigned n;

    for (n = 0; n < count && n < STREAM_PARTS_MAX; n++) {
        to[n].base = (char *)(uintptr_t)parts[n].ptr; /* libuv only reads from it */
        to[n].len = parts[n].len;
    }
    return n;
}

static ptrdiff_t tcp_try_send(struct stream *s, const struct lonely_span *parts, size_t count)
{
    uv_buf_t bufs[STREAM_PARTS_MAX];
    unsigned n = to_uv(bufs, parts, count);
    int sent = uv_try_write(uv_stream_of(of_stream(s)), bufs, n);

    if (sent == UV_EAGAIN)
        return 0;
    return sent < 0 ? STREAM_LOST : sent;
}

static void on_uv_write(uv_write_t *req, int status)
{
    struct pending_send *p = list_entry(req, struct pending_send, req);
    struct stream *s = &p->owner->stream;
    bool closing = uv_is_closing((uv_handle_t *)&p->owner->handle);

    mem_free(p);
    if (closing)
        return;
    if (status == 0)
        s->events->on_sent(s->arg);
    else
        s->events->on_lost(s->arg);
}

static void tcp_send(struct stream *s, const struct lonely_span *parts, size_t count)
{
    struct stream_tcp *t = of_stream(s);
    uv_buf_t bufs[STREAM_PARTS_MAX];
    unsigned n = to_uv(bufs, parts, count);
    struct pending_send *p = mem_alloc(sizeof(*p));

    p->owner = t;
    if (uv_write(&p->req, uv_stream_of(t), bufs, n, on_uv_write) != 0)
        abort(); /* no memory for the list of parts; other failures come through on_uv_write */
}

/* Not uv_shutdown, which needs a request and a turn of the loop: nothing is queued here. */
static void tcp_shutdown(struct stream *s)
{
    uv_os_fd_t fd;

    if (uv_fileno((uv_handle_t *)&of_stream(s)->handle, &fd) == 0)
        (void)shutdown(fd, SHUT_WR); /* fails when the peer has gone: the reader will see it */
}

static bool tcp_has_unread(struct stream *s)
{
    uv_os_fd_t fd;
    int bytes = 0;

    return uv_fileno((uv_handle_t *)&of_stream(s)->handle, &fd) == 0 &&
           ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0;
}

static void on_uv_close(uv_handle_t *handle)
{
    struct stream_tcp *t = handle->data;

    if (t->stream.events != NULL) {
        t->stream.events->on_closed(t->stream.arg);
        stream_gone(&t->stream);
    }
    mem_free(t);
}

static void tcp_close(struct stream *s)
{
    uv_close((uv_handle_t *)&of_stream(s)->handle, on_uv_close);
}

static const struct stream_ops tcp_ops = {
    .read_start = tcp_read_start,
    .read_stop = tcp_read_stop,
    .try_send = tcp_try_send,
    .send = tcp_send,
    .shutdown = tcp_shutdown,
    .close = tcp_close,
    .has_unread = tcp_has_unread,
};

struct stream *stream_tcp_open(uv_loop_t *loop, int fd, struct stream_buffer *buffer,
                               const struct stream_events *events, void *arg)
{
    struct stream_tcp *t = mem_try_alloc(sizeof(*t));

    if (t == NULL || uv_tcp_init(loop, &t->handle) != 0) {
        mem_free(t);
        close(fd);
        return NULL;
    }
    t->stream = (struct stream){ .ops = &tcp_ops, .events = events, .arg = arg };
    t->handle.data = t;
    t->buffer = buffer;
    if (uv_tcp_open(&t->handle, fd) != 0) {
        close(fd);
        t->stream.events = NULL; /* on_closed is for streams that were given out */
        tcp_close(&t->stream);
        return NULL;
    }
    (void)uv_tcp_nodelay(&t->handle, 1); /* answers leave in one write: waiting gains nothing */
    return &t->stream;
}
