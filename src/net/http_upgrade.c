/*
 * A connection of the HTTP server that becomes something else: 101 leaves, then the stream is given
 * away with what was read behind the request, in a turn of the loop of its own. From then on the server
 * only counts it, against its own bound and the peer's, until the stream is closed.
 */
#include <assert.h>

#include "http_conn.h"
#include "mem.h"

/* What remains of the connection. */
struct upgraded {
    struct http_server *server; /* waits for it */
    union peer_address peer;
};

bool http_upgrade(struct http_exchange *x, const char *headers, http_on_upgraded_fn *on_upgraded,
                  void *arg)
{
    struct http_conn *c = list_entry(x, struct http_conn, x);

    if (c->state == CONN_CLOSED) {
        c->awaited = false;
        http_conn_release(c);
        return false;
    }
    assert(c->state == CONN_ASKED && c->body_done);
    c->on_upgraded = on_upgraded;
    c->upgraded_arg = arg;
    http_conn_enter(c, CONN_SWITCHING);
    http_conn_stop_reading(c);
    c->lost = !http_answer_switch(c, headers);
    http_conn_schedule(c);
    return true;
}

static void on_gone(void *arg)
{
    struct upgraded *u = arg;
    struct http_server *server = u->server;

    http_server_peer_gone(server, &u->peer);
    mem_free(u);
    server->upgraded--;
    server->streams--;
    http_server_conn_gone(server);
    http_server_check_closed(server);
}

void http_upgrade_go_on(struct http_conn *c)
{
    struct http_server *server = c->server;
    struct upgraded *u;

    if (c->lost) {
        http_conn_close(c);
        return;
    }
    if (c->sending)
        return;
    u = mem_alloc(sizeof(*u));
    *u = (struct upgraded){ server, c->peer };
    c->stream->on_gone = on_gone;
    c->stream->gone_arg = u;
    deadline_clear(&c->due);
    request_parser_fini(&c->parser);
    list_remove(&c->node);
    server->count--;
    server->upgraded++;
    c->on_upgraded(c->upgraded_arg, c->stream, (struct lonely_span){ c->kept.ptr, c->kept.len });
    buf_fini(&c->kept);
    mem_free(c);
    http_server_conn_gone(server); /* a drain does not wait for it */
}
