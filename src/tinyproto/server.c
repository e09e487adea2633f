/*
 * Servers (tinyproto/server.h): addresses, accepting, the limit. What they share with clients is in
 * endpoint.c, connections in conn.c.                          (doc/protocol/tinyproto.md, 2 and 7)
 */
#include <tinyproto/server.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "acceptor.h"
#include "conn_private.h"
#include "listening.h"
#include "mem.h"

#define DESCRIPTOR_RESERVE 32 /* of the process's, for everything but connections */
#define REFUSED_MAX        16 /* orderly ends of refused connections at a time; half the reserve */

struct listening {
    struct tinyproto_address address;
    char bound[TINYPROTO_ADDRESS_TEXT_MAX];
    int fd;
};

struct tinyproto_server {
    struct endpoint e; /* first: hooks of connections find the server by it */
    struct tinyproto_server_hooks hooks;
    struct listening *listens;
    size_t n_listens;
    struct acceptor *acceptor;
    size_t descriptor_limit; /* connections that the process has descriptors for */
    char error[LISTENING_ERROR_MAX];
};

static struct tinyproto_server *of_endpoint(struct endpoint *e)
{
    return (struct tinyproto_server *)(void *)e;
}

/* ---- Hooks ---- */

static void on_pre_loop(struct endpoint *e)
{
    struct tinyproto_server *s = of_endpoint(e);

    if (s->hooks.pre_loop != NULL)
        s->hooks.pre_loop(s);
}

static void on_loop_pass(struct endpoint *e)
{
    struct tinyproto_server *s = of_endpoint(e);

    s->hooks.loop_pass(s);
}

static void on_acceptor_closed(void *arg)
{
    struct tinyproto_server *s = arg;

    s->acceptor = NULL;
    endpoint_release(&s->e);
}

static void on_stopping(struct endpoint *e)
{
    struct tinyproto_server *s = of_endpoint(e);

    for (size_t i = 0; i < s->n_listens; i++) /* first: afterwards they may be another server's */
        listening_remove(&s->listens[i].address);
    acceptor_close(s->acceptor, on_acceptor_closed, s);
}

static void on_post_loop(struct endpoint *e)
{
    struct tinyproto_server *s = of_endpoint(e);

    if (s->hooks.post_loop != NULL)
        s->hooks.post_loop(s); /* may free it */
}

static void on_conn_shutdown(struct endpoint *e, struct tinyproto_conn *c,
                             const struct tinyproto_cause *why)
{
    struct tinyproto_server *s = of_endpoint(e);

    if (s->hooks.conn_shutdown != NULL)
        s->hooks.conn_shutdown(s, c, why);
}

static const struct endpoint_ops server_ops = {
    .pre_loop = on_pre_loop,
    .loop_pass = on_loop_pass,
    .stopping = on_stopping,
    .post_loop = on_post_loop,
    .conn_shutdown = on_conn_shutdown,
};

/* ---- Accepting ---- */

static bool is_full(const struct tinyproto_server *s)
{
    uint32_t limit = s->e.options.connection_limit;

    return (limit != 0 && s->e.count >= limit) || s->e.count >= s->descriptor_limit;
}

/* Too many to end them all in order. What came is read: else the close would be a reset, which may
 * destroy the answer. */
static void refuse_at_once(int fd)
{
    const uint8_t byte = TINYPROTO_BYTE_LIMIT;
    uint8_t unread[256];
    ssize_t n = recv(fd, unread, sizeof(unread), MSG_DONTWAIT);

    (void)n;
    (void)send(fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(fd);
}

static void introduce(struct tinyproto_server *s, struct tinyproto_conn *c)
{
    enum tinyproto_error err = conn_open_plugins(c);

    if (err != TINYPROTO_OK) {
        conn_end(c, err, 0);
        return;
    }
    c->is_introduced = true;
    if (s->hooks.conn_init != NULL && !s->hooks.conn_init(s, c))
        tinyproto_abort(c);
}

static void on_accept(void *arg, void *socket_arg, int fd, const union peer_address *peer)
{
    struct tinyproto_server *s = arg;
    const struct listening *l = socket_arg;
    bool full = is_full(s);
    char text[PEER_TEXT_MAX];
    struct tinyproto_conn *c;

    if (full && s->e.n_refused >= REFUSED_MAX) {
        refuse_at_once(fd);
        return;
    }
    peer_print(&peer->sa, text);
    c = conn_create(&s->e, full, l->address.is_unix ? l->bound : text);
    if (c == NULL) {
        close(fd);
        return;
    }
    c->peer = *peer;
    if (!conn_poll_open(c, fd)) {
        conn_end(c, TINYPROTO_E_SYSTEM, ENOMEM);
        return;
    }
    if (!full)
        introduce(s, c);
    if (conn_is_alive(c))
        conn_handshake(c);
}

/* ---- Made ---- */

void tinyproto_server_options(struct tinyproto_options *options)
{
    *options = (struct tinyproto_options){
        .receive_max = TINYPROTO_MESSAGE_MAX,
        .send_max = TINYPROTO_MESSAGE_MAX,
        .queue_max_bytes = (size_t)64 * 1024 * 1024,
        .incoming_max_bytes = UINT64_C(4) * 1024 * 1024 * 1024,
        .open_timeout_ms = 10000,
        .stall_timeout_ms = 60000,
        .grace_ms = 2000,
        .linger_ms = 1000,
        .stop_timeout_ms = 2000,
        .interval_ms = 30,
    };
}

enum tinyproto_error tinyproto_server_new(const struct tinyproto_server_hooks *hooks,
                                          const struct tinyproto_options *options,
                                          struct uv_loop_s *loop, struct tinyproto_server **out)
{
    struct tinyproto_server *s = mem_try_calloc(1, sizeof(*s));
    struct tinyproto_options defaults;
    enum tinyproto_error err;

    *out = NULL;
    if (s == NULL)
        return TINYPROTO_E_MEMORY;
    tinyproto_server_options(&defaults);
    err = endpoint_init(&s->e, &server_ops, options != NULL ? options : &defaults, loop);
    if (err != TINYPROTO_OK) {
        mem_free(s);
        return err;
    }
    if (hooks != NULL)
        s->hooks = *hooks;
    s->e.is_server = true;
    s->e.wants_passes = s->hooks.loop_pass != NULL;
    *out = s;
    return TINYPROTO_OK;
}

void tinyproto_server_free(struct tinyproto_server *s)
{
    if (s == NULL)
        return;
    endpoint_fini(&s->e);
    mem_free(s->listens);
    mem_free(s);
}

void tinyproto_server_set_handler(struct tinyproto_server *s,
                                  const struct tinyproto_handler *handler)
{
    s->e.handler = handler;
}

void tinyproto_server_set_limit(struct tinyproto_server *s, uint32_t connections)
{
    s->e.options.connection_limit = connections;
}

enum tinyproto_error tinyproto_server_add_plugin(struct tinyproto_server *s,
                                                 const struct tinyproto_plugin *plugin)
{
    return endpoint_add_plugin(&s->e, plugin);
}

enum tinyproto_error tinyproto_server_add_address(struct tinyproto_server *s,
                                                  const struct tinyproto_address *address)
{
    struct listening *grown;

    if (s->e.is_open)
        return TINYPROTO_E_STATE;
    if (!address_is_valid(address))
        return TINYPROTO_E_ARGUMENT;
    grown = mem_try_realloc(s->listens, (s->n_listens + 1) * sizeof(*s->listens));
    if (grown == NULL)
        return TINYPROTO_E_MEMORY;
    s->listens = grown;
    s->listens[s->n_listens++] = (struct listening){ .address = *address, .fd = -1 };
    return TINYPROTO_OK;
}

enum tinyproto_error tinyproto_server_add_addr(struct tinyproto_server *s, const char *host,
                                               int port)
{
    struct tinyproto_address address;
    enum tinyproto_error err = tinyproto_address_set(&address, host, port);

    return err != TINYPROTO_OK ? err : tinyproto_server_add_address(s, &address);
}

const char *tinyproto_server_addr(const struct tinyproto_server *s, size_t i)
{
    return s->e.is_open && s->acceptor != NULL && i < s->n_listens ? s->listens[i].bound : NULL;
}

/* ---- Started ---- */

static size_t descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return SIZE_MAX;
    return limit.rlim_cur > DESCRIPTOR_RESERVE ? (size_t)limit.rlim_cur - DESCRIPTOR_RESERVE : 1;
}

static void close_listens(struct tinyproto_server *s)
{
    for (size_t i = 0; i < s->n_listens; i++) {
        if (s->listens[i].fd < 0)
            continue;
        close(s->listens[i].fd);
        s->listens[i].fd = -1;
        listening_remove(&s->listens[i].address);
    }
}

static bool open_listens(struct tinyproto_server *s)
{
    for (size_t i = 0; i < s->n_listens; i++) {
        struct listening *l = &s->listens[i];

        l->fd = listening_open(&l->address, l->bound, s->error);
        if (l->fd < 0)
            return false;
    }
    return true;
}

static void accept_all(struct tinyproto_server *s)
{
    s->acceptor = acceptor_create(s->e.loop, NULL, on_accept, s);
    s->e.holds = 1;
    for (size_t i = 0; i < s->n_listens; i++) {
        (void)acceptor_listen(s->acceptor, s->listens[i].fd, &s->listens[i]);
        s->listens[i].fd = -1; /* the acceptor's */
    }
}

static struct tinyproto_cause fail_start(struct tinyproto_server *s, enum tinyproto_error err,
                                         int system, const char *text)
{
    int n = (int)sizeof(s->error) - 1;

    close_listens(s);
    if (text != NULL)
        (void)snprintf(s->error, sizeof(s->error), "%.*s", n, text);
    return cause_of(err, system);
}

struct tinyproto_cause tinyproto_server_start(struct tinyproto_server *s)
{
    enum tinyproto_error err;

    s->error[0] = '\0';
    if (s->e.is_open)
        return cause_of(TINYPROTO_E_STATE, 0);
    if (s->n_listens == 0)
        return fail_start(s, TINYPROTO_E_STATE, 0, "no address to listen on");
    if (!open_listens(s))
        return fail_start(s, TINYPROTO_E_SYSTEM, errno, NULL);
    err = endpoint_open(&s->e);
    if (err != TINYPROTO_OK)
        return fail_start(s, err, 0, tinyproto_strerror(err));
    s->descriptor_limit = descriptors();
    accept_all(s);
    return cause_of(TINYPROTO_OK, 0);
}

const char *tinyproto_server_error(const struct tinyproto_server *s)
{
    return s->error;
}

struct tinyproto_cause tinyproto_server_run(struct tinyproto_server *s)
{
    struct tinyproto_cause why = cause_of(TINYPROTO_OK, 0);

    if (!s->e.owns_loop)
        return cause_of(TINYPROTO_E_STATE, 0);
    if (!s->e.is_open)
        why = tinyproto_server_start(s);
    if (why.err == TINYPROTO_OK)
        endpoint_run(&s->e);
    return why;
}

void tinyproto_server_stop(struct tinyproto_server *s)
{
    endpoint_ask_stop(&s->e);
}

/* ---- Asked ---- */

void *tinyproto_server_arg(const struct tinyproto_server *s)
{
    return s->hooks.arg;
}

size_t tinyproto_server_count(const struct tinyproto_server *s)
{
    return s->e.count;
}

void tinyproto_server_each(struct tinyproto_server *s,
                           bool (*fn)(void *arg, struct tinyproto_conn *conn), void *arg)
{
    endpoint_each(&s->e, fn, arg);
}

struct tinyproto_conn *tinyproto_server_find(const struct tinyproto_server *s, const char *id)
{
    return endpoint_find(&s->e, id);
}

enum tinyproto_error tinyproto_server_post_transmit(struct tinyproto_server *s, const char *id,
                                                    const void *ptr, size_t len)
{
    return endpoint_post(&s->e, id, ptr, len);
}
