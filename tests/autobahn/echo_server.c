/*
 * A websocket server for the Autobahn suite (run.py): sends back each message as it came, text too, which
 * the broadcaster refuses; so it reaches into the transports to have text accepted.
 *
 *     echo_server        listens on a free port of 127.0.0.1, prints "ready PORT", ends with its input
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "http_server.h"
#include "listener.h"
#include "mem.h"
#include "transport_private.h"
#include "websocket_handshake.h"

#define MAX_BYTES (64u << 20) /* of a message; the largest of the suite has 16 MiB */

struct echo {
    struct transport *t;
    struct buf message;
};

static void on_piece(void *arg, const struct transport_piece *piece)
{
    struct echo *e = arg;

    if (!buf_append(&e->message, piece->bytes.ptr, piece->bytes.len))
        abort();
    if (!piece->last)
        return;
    e->t->opcode = e->t->in.websocket.text ? WEBSOCKET_TEXT : WEBSOCKET_BINARY;
    transport_frame(e->t, e->message.len);
    transport_put(e->t, (struct lonely_span){ e->message.ptr, e->message.len });
    buf_clear(&e->message);
    if (transport_queued(e->t) > MAX_BYTES)
        transport_read_stop(e->t);
}

static void on_drained(void *arg)
{
    transport_read_start(((struct echo *)arg)->t);
}

static void on_end(void *arg, enum transport_code code)
{
    (void)code;
    transport_close(((struct echo *)arg)->t, TRANSPORT_NORMAL);
}

static void on_closed(void *arg)
{
    struct echo *e = arg;

    buf_fini(&e->message);
    mem_free(e);
}

static const struct transport_events events = { on_piece, on_drained, on_end, on_closed };

static void on_upgraded(void *arg, struct stream *stream, struct lonely_span rest)
{
    struct echo *e;

    if (stream == NULL)
        return;
    e = mem_calloc(1, sizeof(*e));
    buf_init(&e->message, MAX_BYTES);
    e->t = transport_open(arg, stream, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER, rest, &events, e);
    e->t->in.websocket.accepts_text = true;
    transport_read_start(e->t);
}

static void on_request(void *app, struct http_exchange *x)
{
    const struct websocket_origins any = { .any = true };
    char headers[WEBSOCKET_ANSWER_MAX];
    struct http_response response = { .headers = headers };

    response.status = websocket_check_request(&x->head, &any, headers);
    if (response.status == 101)
        (void)http_exchange_upgrade(x, headers, on_upgraded, app);
    else
        http_exchange_respond(x, &response);
}

/* Nobody is left who wants us. */
static void on_input(uv_poll_t *poll, int status, int event)
{
    (void)poll;
    (void)status;
    (void)event;
    exit(0);
}

int main(void)
{
    const struct http_server_conf http = { .header_timeout_ms = 10000,
                                           .keepalive_timeout_ms = 10000,
                                           .max_header_bytes = 16384,
                                           .max_connections = 1000 };
    const struct transport_conf conf = { .max_frame_bytes = MAX_BYTES,
                                         .ping_interval_ms = 20000,
                                         .ping_timeout_ms = 20000,
                                         .close_timeout_ms = 1000,
                                         .low_water_bytes = 65536 };
    char bound[LISTENER_ADDRESS_MAX], error[256];
    struct http_server *server;
    uv_loop_t loop;
    uv_poll_t input;
    int fd;

    if (!listener_open("127.0.0.1:0", 128, 1, &fd, bound, error)) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    uv_loop_init(&loop);
    server = http_server_create(&loop, &http, on_request, transport_group_create(&loop, &conf));
    if (http_server_listen(server, fd) != 0 || uv_poll_init(&loop, &input, 0) != 0)
        return 1;
    uv_poll_start(&input, UV_READABLE, on_input);
    printf("ready %s\n", strrchr(bound, ':') + 1);
    fflush(stdout);
    return uv_run(&loop, UV_RUN_DEFAULT);
}
