/*
 * The accept loop, on uv_poll: libuv's own listener cannot pause at a limit, and answers a lack of
 * descriptors by dropping connections. Servers (http_server.c) receive the sockets and count them.
 */
#include "acceptor.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "list.h"
#include "mem.h"

#define ACCEPTS_A_TURN    64  /* then the connections that are open have their turn */
#define NO_DESCRIPTORS_MS 100 /* how long to wait for one to be closed */
#define LOG_EVERY_MS      1000

struct listening {
    struct list node;
    struct acceptor *owner;
    void *socket_arg;
    uv_poll_t poll;
    int fd;
};

struct acceptor {
    uv_loop_t *loop;
    struct log *log;
    acceptor_fn *on_accept;
    void *arg;
    struct list sockets;
    uv_timer_t timer;
    bool held;          /* by the server */
    bool exhausted;     /* until the timer fires */
    uint64_t logged_ms; /* 0: never */
    size_t open_handles;
    void (*on_closed)(void *arg);
    void *closed_arg;
};

static void on_readable(uv_poll_t *poll, int status, int events);

/* Watches the sockets, or does not, as the flags say. */
static void update_polls(struct acceptor *a)
{
    list_foreach (&a->sockets, node, next) {
        struct listening *l = list_entry(node, struct listening, node);

        if (a->held || a->exhausted)
            (void)uv_poll_stop(&l->poll);
        else if (!uv_is_active((uv_handle_t *)&l->poll))
            (void)uv_poll_start(&l->poll, UV_READABLE, on_readable);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct acceptor *a = timer->data;

    a->exhausted = false;
    update_polls(a);
}

static void wait_for_descriptors(struct acceptor *a, int error)
{
    uint64_t now = uv_now(a->loop);

    if (a->logged_ms == 0 || now - a->logged_ms >= LOG_EVERY_MS) {
        log_error(a->log, "accept_failed", LOG_STR("error", strerror(error)),
                  LOG_U64("retry_ms", NO_DESCRIPTORS_MS), LOG_END);
        a->logged_ms = now > 0 ? now : 1;
    }
    a->exhausted = true;
    update_polls(a);
    (void)uv_timer_start(&a->timer, on_timer, NO_DESCRIPTORS_MS, 0);
}

static bool lacks_resources(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct listening *l = poll->data;
    struct acceptor *a = l->owner;

    (void)status; /* accept tells more */
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN && !a->held && !uv_is_closing((uv_handle_t *)poll); i++) {
        union peer_address peer = { .sa = { .sa_family = AF_UNSPEC } };
        socklen_t len = sizeof(peer);
        int fd = accept4(l->fd, &peer.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            a->on_accept(a->arg, l->socket_arg, fd, &peer);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (lacks_resources(errno)) {
            wait_for_descriptors(a, errno);
            return;
        } /* anything else is the fate of one peer, which has left already */
    }
}

struct acceptor *acceptor_create(uv_loop_t *loop, struct log *log, acceptor_fn *on_accept,
                                 void *arg)
{
    struct acceptor *a = mem_calloc(1, sizeof(*a));

    a->loop = loop;
    a->log = log;
    a->on_accept = on_accept;
    a->arg = arg;
    list_init(&a->sockets);
    (void)uv_timer_init(loop, &a->timer);
    a->timer.data = a;
    a->open_handles = 1;
    return a;
}

int acceptor_listen(struct acceptor *a, int fd, void *socket_arg)
{
    struct listening *l = mem_calloc(1, sizeof(*l));
    int err = uv_poll_init(a->loop, &l->poll, fd);

    if (err != 0) {
        mem_free(l);
        close(fd);
        return err;
    }
    l->owner = a;
    l->socket_arg = socket_arg;
    l->fd = fd;
    l->poll.data = l;
    list_push_back(&a->sockets, &l->node);
    a->open_handles++;
    update_polls(a);
    return 0;
}

void acceptor_hold(struct acceptor *a, bool hold)
{
    if (a->held == hold)
        return;
    a->held = hold;
    update_polls(a);
}

static void handle_closed(struct acceptor *a)
{
    if (--a->open_handles > 0)
        return;
    a->on_closed(a->closed_arg);
    mem_free(a);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct listening *l = handle->data;
    struct acceptor *a = l->owner;

    mem_free(l);
    handle_closed(a);
}

static void on_timer_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

void acceptor_stop(struct acceptor *a)
{
    list_foreach (&a->sockets, node, next) {
        struct listening *l = list_entry(node, struct listening, node);

        list_remove(node);
        uv_close((uv_handle_t *)&l->poll, on_poll_closed);
        close(l->fd); /* at once: the port is free when this returns, and libuv watches no more */
    }
}

void acceptor_close(struct acceptor *a, void (*on_closed)(void *arg), void *arg)
{
    a->on_closed = on_closed;
    a->closed_arg = arg;
    acceptor_stop(a);
    uv_close((uv_handle_t *)&a->timer, on_timer_closed);
}
