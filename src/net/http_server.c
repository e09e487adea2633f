/*
 * The HTTP server of one loop: accepts, counts, drains and closes its connections (http_conn.c).
 */
#include "http_server.h"

#include <unistd.h>

#include "http_conn.h"
#include "mem.h"

static void update_hold(struct http_server *server)
{
    acceptor_hold(server->acceptor,
                  http_server_connections(server) >= server->conf.max_connections);
}

static void on_accept(void *arg, void *socket_arg, int fd, const union peer_address *peer)
{
    struct http_server *server = arg;

    if (server->conf.peers != NULL && !peer_limit_take(server->conf.peers, &peer->sa)) {
        close(fd);
        if (server->conf.on_reject != NULL)
            server->conf.on_reject(server->app, 0, &peer->sa);
        return;
    }
    http_conn_open(server, fd, socket_arg, peer);
    update_hold(server);
}

void http_server_peer_gone(struct http_server *server, const union peer_address *peer)
{
    if (server->conf.peers != NULL)
        peer_limit_release(server->conf.peers, &peer->sa);
}

/* Reports the end of a drain. Connections are looked at in the order in which they became ready;
 * one that becomes ready meanwhile waits for the next turn. */
static void on_idle(uv_idle_t *idle)
{
    struct http_server *server = idle->data;
    struct list turn;

    list_init(&turn);
    list_move_all(&turn, &server->ready);
    while (!list_is_empty(&turn))
        http_conn_ready(list_entry(list_pop_front(&turn), struct http_conn, ready_node));
    if (server->draining && server->count == 0 && server->on_drained != NULL && !server->closing) {
        void (*on_drained)(void *arg) = server->on_drained;

        server->on_drained = NULL;
        on_drained(server->drained_arg);
    }
    if (list_is_empty(&server->ready) && !server->closing)
        (void)uv_idle_stop(&server->idle);
}

void http_server_schedule(struct http_server *server)
{
    if (!server->closing)
        (void)uv_idle_start(&server->idle, on_idle);
}

struct http_server *http_server_create(uv_loop_t *loop, const struct http_server_conf *conf,
                                       http_on_request_fn *on_request, void *app)
{
    struct http_server *server = mem_calloc(1, sizeof(*server));

    server->loop = loop;
    server->conf = *conf;
    server->on_request = on_request;
    server->app = app;
    server->acceptor = acceptor_create(loop, conf->log, on_accept, server);
    deadlines_init(&server->deadlines, loop, http_conn_on_due, server);
    (void)uv_idle_init(loop, &server->idle);
    server->idle.data = server;
    server->handles = 3; /* acceptor, timer of the deadlines, idle */
    list_init(&server->conns);
    list_init(&server->ready);
    request_pool_init(&server->pool);
    return server;
}

int http_server_listen(struct http_server *server, int fd)
{
    return acceptor_listen(server->acceptor, fd, NULL);
}

int http_server_listen_tls(struct http_server *server, int fd, struct tls_server *tls)
{
    if (server->tls == NULL) {
        server->tls = tls_loop_create(server->loop, server->conf.log);
        server->handles++;
    }
    return acceptor_listen(server->acceptor, fd, tls);
}

void http_server_conn_gone(struct http_server *server)
{
    if (server->closing)
        return;
    update_hold(server);
    if (server->draining && server->count == 0)
        http_server_schedule(server);
}

void http_server_drain(struct http_server *server, void (*on_drained)(void *arg), void *arg)
{
    server->draining = true;
    server->on_drained = on_drained;
    server->drained_arg = arg;
    acceptor_stop(server->acceptor);
    list_foreach (&server->conns, node, next) {
        struct http_conn *c = list_entry(node, struct http_conn, node);

        if (c->state == CONN_IDLE && c->kept.len == 0)
            http_conn_close(c);
    }
    http_server_schedule(server);
}

void http_server_check_closed(struct http_server *server)
{
    void (*on_closed)(void *arg) = server->on_closed;
    void *arg = server->closed_arg;

    if (!server->closing || server->handles > 0 || server->streams > 0)
        return;
    /* What remains awaits answers, which will go nowhere. */
    list_foreach (&server->conns, node, next) {
        list_remove(node);
        list_entry(node, struct http_conn, node)->server = NULL;
    }
    request_pool_fini(&server->pool);
    mem_free(server);
    if (on_closed != NULL)
        on_closed(arg);
}

static void handle_closed(void *arg)
{
    struct http_server *server = arg;

    server->handles--;
    http_server_check_closed(server);
}

static void on_uv_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

void http_server_close(struct http_server *server, void (*on_closed)(void *arg), void *arg)
{
    struct list open, *node;

    server->closing = true;
    server->on_closed = on_closed;
    server->closed_arg = arg;
    acceptor_close(server->acceptor, handle_closed, server);
    deadlines_close(&server->deadlines, on_uv_closed);
    uv_close((uv_handle_t *)&server->idle, on_uv_closed);
    if (server->tls != NULL)
        tls_loop_close(server->tls, handle_closed, server);
    /* An on_abort may answer, and so free, any other exchange: no pointer to it is held. */
    list_init(&open);
    list_move_all(&open, &server->conns);
    while ((node = list_pop_front(&open)) != NULL) {
        list_push_back(&server->conns, node);
        http_conn_close(list_entry(node, struct http_conn, node));
    }
}

uint32_t http_server_connections(const struct http_server *server)
{
    return server->count + server->upgraded;
}
