/*
 * An application on the HTTP server of http_server.h, over real sockets on loopback. What it does with
 * a request depends on its target:
 *
 *     /echo   reads the body, answers "METHOD TARGET BODY"
 *     /now    answers 200 at once, whatever the body
 *     /early  asks for the body, answers 413 to its first piece
 *     /late   reads the body, answers when the test says
 *     /hold   reads no body, answers when the test says
 *     /pause  reads the body, pauses at each piece until the test resumes; then as /echo
 *     /quit   closes the server before it answers
 *     /quit-read, /quit-piece   the same before it asks for the body, at the first piece
 *     /big    answers with BIG_ANSWER bytes
 *
 * Header only; behind <cmocka.h>.
 */
#ifndef TESTS_HTTP_SERVER_FIXTURE_H
#define TESTS_HTTP_SERVER_FIXTURE_H

#include "http_peer.h"
#include "http_server.h"
#include "listener.h"

#define BIG_ANSWER (8u << 20)

struct request {
    struct fixture *f;
    struct http_exchange *x;
    char text[256]; /* "METHOD TARGET BODY", cut */
    size_t len;
    uint64_t body_bytes;
    bool early, pauses, paused, quits;
};

struct fixture {
    uv_loop_t loop;
    struct http_server *server; /* NULL: closing or closed */
    bool closed, drained;
    uint16_t port;
    unsigned requests, ends, aborts;
    uint64_t body_bytes;
    struct request *held; /* the last one that waits for the test */
    unsigned held_count;
};

static inline void on_closed(void *arg)
{
    ((struct fixture *)arg)->closed = true;
}

static inline void quit(struct fixture *f)
{
    struct http_server *server = f->server;

    f->server = NULL;
    http_server_close(server, on_closed, f);
}

static inline void answer(struct request *r, int status, const char *text)
{
    struct http_response response = { .status = status, .content_type = "text/plain" };

    response.body = (struct lonely_span){ (const uint8_t *)text, strlen(text) };
    http_exchange_respond(r->x, &response);
    free(r);
}

static inline void hold(struct request *r)
{
    r->f->held = r;
    r->f->held_count++;
}

static inline void answer_held(struct fixture *f, const char *text)
{
    struct request *r = f->held;

    assert_non_null(r);
    f->held = NULL;
    f->held_count--;
    answer(r, 200, text);
}

static inline void on_piece(void *arg, struct lonely_span piece)
{
    struct request *r = arg;
    size_t room = sizeof(r->text) - 1 - r->len, n = piece.len < room ? piece.len : room;

    assert_true(piece.len > 0);
    assert_false(r->paused);
    memcpy(r->text + r->len, piece.ptr, n);
    r->len += n;
    r->body_bytes += piece.len;
    r->f->body_bytes += piece.len;
    if (r->quits) {
        quit(r->f); /* calls on_abort, which frees r */
    } else if (r->early) {
        answer(r, 413, "too much");
    } else if (r->pauses) {
        http_exchange_pause(r->x);
        r->paused = true;
        r->f->held = r;
    }
}

static inline void on_end(void *arg)
{
    struct request *r = arg;

    assert_false(r->paused);
    r->f->ends++;
    if (strstr(r->text, "/late") != NULL)
        hold(r);
    else
        answer(r, 200, r->text);
}

static inline void on_abort(void *arg)
{
    struct request *r = arg;

    r->f->aborts++;
    if (r->f->held == r)
        r->f->held = NULL;
    free(r);
}

static const struct http_body_ops body_ops = { on_piece, on_end, on_abort };

static inline bool is_target(const struct http_exchange *x, const char *s)
{
    return table_span_equal(x->head.target, (struct lonely_span){ (const uint8_t *)s, strlen(s) });
}

static inline void answer_big(struct request *r)
{
    struct http_response response = { .status = 200 };
    uint8_t *body = calloc(1, BIG_ANSWER);

    assert_non_null(body);
    response.body = (struct lonely_span){ body, BIG_ANSWER };
    http_exchange_respond(r->x, &response);
    free(body);
    free(r);
}

static inline void on_request(void *app, struct http_exchange *x)
{
    struct fixture *f = app;
    struct request *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    f->requests++;
    r->f = f;
    r->x = x;
    snprintf(r->text, sizeof(r->text), "%.*s %.*s ", (int)x->head.method.len,
             (const char *)x->head.method.ptr, (int)x->head.target.len,
             (const char *)x->head.target.ptr);
    r->len = strlen(r->text);
    r->early = is_target(x, "/early");
    r->pauses = is_target(x, "/pause");
    r->quits = is_target(x, "/quit-piece");
    if (is_target(x, "/now")) {
        answer(r, 200, "now");
    } else if (is_target(x, "/big")) {
        answer_big(r);
    } else if (is_target(x, "/hold")) {
        hold(r);
    } else if (is_target(x, "/quit")) {
        quit(f);
        answer(r, 200, "nobody hears it");
    } else {
        if (is_target(x, "/quit-read"))
            quit(f);
        http_exchange_read_body(x, &body_ops, r);
    }
}

static const struct http_server_conf patient = {
    .header_timeout_ms = 60000,
    .body_idle_timeout_ms = 60000,
    .keepalive_timeout_ms = 60000,
    .discard_bytes = 1 << 20,
    .max_header_bytes = 1024,
    .max_connections = 100,
};

static inline void start(struct fixture *f, const struct http_server_conf *conf)
{
    char bound[LISTENER_ADDRESS_MAX], error[256];
    int fd;

    memset(f, 0, sizeof(*f));
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_true(listener_open("127.0.0.1:0", 128, 1, &fd, bound, error));
    f->port = (uint16_t)atoi(strrchr(bound, ':') + 1);
    f->server = http_server_create(&f->loop, conf, on_request, f);
    assert_int_equal(http_server_listen(f->server, fd), 0);
}

static inline bool is_closed(void *arg)
{
    return ((struct fixture *)arg)->closed;
}

/* Nothing of the server may be left on the loop. */
static inline void stop(struct fixture *f)
{
    if (f->server != NULL)
        quit(f);
    peer_until(&f->loop, is_closed, f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

struct count_wish {
    struct fixture *f;
    uint32_t connections;
};

static inline bool has_connections(void *arg)
{
    const struct count_wish *w = arg;

    return http_server_connections(w->f->server) == w->connections;
}

static inline void await_connections(struct fixture *f, uint32_t n)
{
    struct count_wish w = { f, n };

    peer_until(&f->loop, has_connections, &w);
}

static inline bool has_held(void *arg)
{
    return ((struct fixture *)arg)->held != NULL;
}

#define OK(len, body) \
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " #len "\r\n\r\n" body
#define OK_CLOSE(len, body)                                                                     \
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: " #len \
    "\r\n\r\n" body
#define OWN(status) "HTTP/1.1 " status "\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
#define TOO_MUCH                                                                                  \
    "HTTP/1.1 413 Content Too Large\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\ntoo " \
    "much"
#define H "Host: a\r\n"

#endif
