/*
 * A peer that speaks raw bytes over a loopback socket, on the same loop as the server under test.
 * Nothing sleeps: `peer_until` runs the loop until something holds, and fails after PEER_PATIENCE_MS.
 * Header only.
 */
#ifndef TESTS_HTTP_PEER_H
#define TESTS_HTTP_PEER_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <uv.h>

#include "tables.h"

#define PEER_PATIENCE_MS 10000

struct peer {
    uv_poll_t poll;
    int fd;
    char *in; /* all that came, NUL-terminated */
    size_t len, cap;
    size_t dropped; /* bytes that came but are not kept: see drop */
    bool drop;
    bool ended; /* the server has closed, or shut its side */
    bool reset;
    bool closed; /* by us */
};

static inline void peer_on_poll(uv_poll_t *poll, int status, int events)
{
    struct peer *p = (struct peer *)poll->data;
    char buf[65536];
    ssize_t n;

    (void)status;
    (void)events;
    while ((n = read(p->fd, buf, sizeof(buf))) > 0) {
        if (p->drop) {
            p->dropped += (size_t)n;
            continue;
        }
        if (p->cap < p->len + (size_t)n + 1) {
            p->cap = 2 * (p->len + (size_t)n + 1);
            p->in = (char *)realloc(p->in, p->cap);
            table_require(p->in != NULL, "memory of a peer");
        }
        memcpy(p->in + p->len, buf, (size_t)n);
        p->len += (size_t)n;
        p->in[p->len] = '\0';
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    p->ended = true;
    p->reset = n < 0;
    uv_poll_stop(poll);
}

static inline void peer_on_tick(uv_timer_t *t)
{
    *(bool *)t->data = true;
}

static inline void peer_on_tick_closed(uv_handle_t *handle)
{
    *(bool *)handle->data = true;
}

/* Runs the loop until `holds(arg)`; false: it did not within `ms`. */
static inline bool peer_within(uv_loop_t *loop, uint64_t ms, bool (*holds)(void *arg), void *arg)
{
    uv_timer_t timer;
    bool over = false, gone = false, held;

    uv_update_time(loop);
    uv_timer_init(loop, &timer);
    timer.data = &over;
    uv_timer_start(&timer, peer_on_tick, ms, 0);
    while (!(held = holds(arg)) && !over)
        uv_run(loop, UV_RUN_ONCE);
    timer.data = &gone;
    uv_close((uv_handle_t *)&timer, peer_on_tick_closed);
    while (!gone)
        uv_run(loop, UV_RUN_NOWAIT);
    return held;
}

static inline bool peer_never(void *arg)
{
    (void)arg;
    return false;
}

/* Lets `ms` go by, to see that nothing happens. */
static inline void peer_let_pass(uv_loop_t *loop, uint64_t ms)
{
    peer_within(loop, ms, peer_never, NULL);
}

#define peer_until(loop, holds, arg) \
    assert_true(peer_within((loop), PEER_PATIENCE_MS, (holds), (arg)))

/* Connects; the server need not have accepted when this returns. */
static inline void peer_open(uv_loop_t *loop, struct peer *p, uint16_t port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };

    memset(p, 0, sizeof(*p));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    table_require(p->fd >= 0 && connect(p->fd, (struct sockaddr *)&to, sizeof(to)) == 0,
                  "connection of a peer");
    table_require(fcntl(p->fd, F_SETFL, O_NONBLOCK) == 0, "non-blocking peer");
    uv_poll_init(loop, &p->poll, p->fd);
    p->poll.data = p;
    uv_poll_start(&p->poll, UV_READABLE, peer_on_poll);
}

/* How many bytes the socket took; errors of a peer whose server has closed count as all. */
static inline size_t peer_try_send(struct peer *p, const void *bytes, size_t len)
{
    ssize_t n = send(p->fd, bytes, len, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN ? 0 : len;
    return (size_t)n;
}

static inline void peer_send_bytes(struct peer *p, const void *bytes, size_t len)
{
    table_require(peer_try_send(p, bytes, len) == len, "room in the socket");
}

static inline void peer_send(struct peer *p, const char *text)
{
    peer_send_bytes(p, text, strlen(text));
}

static inline void peer_on_closed(uv_handle_t *handle)
{
    ((struct peer *)handle->data)->closed = true;
}

static inline bool peer_is_closed(void *arg)
{
    return ((struct peer *)arg)->closed;
}

/* Closes (with a reset instead of an end, if asked) and frees. */
static inline void peer_close(uv_loop_t *loop, struct peer *p, bool with_reset)
{
    struct linger linger = { .l_onoff = 1, .l_linger = 0 };

    uv_close((uv_handle_t *)&p->poll, peer_on_closed);
    if (with_reset)
        setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(p->fd);
    while (!p->closed)
        uv_run(loop, UV_RUN_NOWAIT);
    free(p->in);
    p->in = NULL;
}

struct peer_wish {
    const struct peer *peer;
    const char *text;
};

static inline bool peer_begins(const struct peer *p, const char *text, size_t len)
{
    return p->len >= len && (len == 0 || memcmp(p->in, text, len) == 0);
}

/* It has come, or cannot come any more. */
static inline bool peer_has(void *arg)
{
    const struct peer_wish *w = (const struct peer_wish *)arg;
    size_t len = strlen(w->text), common = w->peer->len < len ? w->peer->len : len;

    return w->peer->ended || w->peer->len >= len || !peer_begins(w->peer, w->text, common);
}

static inline bool peer_take(struct peer *p, const char *text)
{
    size_t len = strlen(text);

    if (!peer_begins(p, text, len)) {
        fprintf(stderr, "got:  %s\nwant: %s\n", p->len > 0 ? p->in : "", text);
        return false;
    }
    if (len > 0)
        memmove(p->in, p->in + len, p->len - len + 1);
    p->len -= len;
    return true;
}

/* The next bytes that come are these; they are dropped. */
#define peer_expect(loop, p, want)                \
    do {                                          \
        struct peer_wish wish_ = { (p), (want) }; \
                                                  \
        peer_until((loop), peer_has, &wish_);     \
        assert_true(peer_take((p), (want)));      \
    } while (0)

static inline bool peer_has_ended(void *arg)
{
    return ((struct peer *)arg)->ended;
}

/* Nothing more comes but the end, in good order. */
#define peer_expect_end(loop, p)                         \
    do {                                                 \
        peer_until((loop), peer_has_ended, (void *)(p)); \
        assert_int_equal((p)->len, 0);                   \
        assert_false((p)->reset);                        \
    } while (0)

#endif
