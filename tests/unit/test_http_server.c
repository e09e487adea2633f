/*
 * The HTTP server: http_server.h, over real sockets on loopback. What the application does with a
 * request depends on its target:
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
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sys/resource.h>

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

static void on_closed(void *arg)
{
    ((struct fixture *)arg)->closed = true;
}

static void quit(struct fixture *f)
{
    struct http_server *server = f->server;

    f->server = NULL;
    http_server_close(server, on_closed, f);
}

static void answer(struct request *r, int status, const char *text)
{
    struct http_response response = { .status = status, .content_type = "text/plain" };

    response.body = (struct lonely_span){ (const uint8_t *)text, strlen(text) };
    http_exchange_respond(r->x, &response);
    free(r);
}

static void hold(struct request *r)
{
    r->f->held = r;
    r->f->held_count++;
}

static void answer_held(struct fixture *f, const char *text)
{
    struct request *r = f->held;

    assert_non_null(r);
    f->held = NULL;
    f->held_count--;
    answer(r, 200, text);
}

static void on_piece(void *arg, struct lonely_span piece)
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

static void on_end(void *arg)
{
    struct request *r = arg;

    assert_false(r->paused);
    r->f->ends++;
    if (strstr(r->text, "/late") != NULL)
        hold(r);
    else
        answer(r, 200, r->text);
}

static void on_abort(void *arg)
{
    struct request *r = arg;

    r->f->aborts++;
    if (r->f->held == r)
        r->f->held = NULL;
    free(r);
}

static const struct http_body_ops body_ops = { on_piece, on_end, on_abort };

static bool is_target(const struct http_exchange *x, const char *s)
{
    return table_span_equal(x->head.target, (struct lonely_span){ (const uint8_t *)s, strlen(s) });
}

static void answer_big(struct request *r)
{
    struct http_response response = { .status = 200 };
    uint8_t *body = calloc(1, BIG_ANSWER);

    assert_non_null(body);
    response.body = (struct lonely_span){ body, BIG_ANSWER };
    http_exchange_respond(r->x, &response);
    free(body);
    free(r);
}

static void on_request(void *app, struct http_exchange *x)
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

static void start(struct fixture *f, const struct http_server_conf *conf)
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

static bool is_closed(void *arg)
{
    return ((struct fixture *)arg)->closed;
}

/* Nothing of the server may be left on the loop. */
static void stop(struct fixture *f)
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

static bool has_connections(void *arg)
{
    const struct count_wish *w = arg;

    return http_server_connections(w->f->server) == w->connections;
}

static void await_connections(struct fixture *f, uint32_t n)
{
    struct count_wish w = { f, n };

    peer_until(&f->loop, has_connections, &w);
}

static bool has_held(void *arg)
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

/* One connection each: what is sent, and all that comes back until the server closes. */
static const struct talk {
    const char *name, *sent, *got;
    bool open; /* the server does not close afterwards */
} talks[] = {
    { "kept alive", "GET /echo HTTP/1.1\r\n" H "\r\n", OK(10, "GET /echo "), true },
    { "closed as asked", "GET /echo HTTP/1.1\r\n" H "Connection: close\r\n\r\n",
      OK_CLOSE(10, "GET /echo "), false },
    { "1.0", "GET /echo HTTP/1.0\r\n\r\n", OK_CLOSE(10, "GET /echo "), false },
    { "1.0 kept alive", "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
      "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Type: text/plain\r\n"
      "Content-Length: 10\r\n\r\nGET /echo ",
      true },
    { "HEAD has no body", "HEAD /echo HTTP/1.1\r\n" H "\r\nGET /now HTTP/1.1\r\n" H "\r\n",
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\n" OK(3, "now"),
      true },
    { "body", "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello",
      OK(16, "POST /echo hello"), true },
    { "chunked body",
      "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
      "3\r\nhel\r\n2;x\r\nlo\r\n0\r\nT: x\r\n\r\n",
      OK(16, "POST /echo hello"), true },
    { "CONNECT and unknown methods are the application's",
      "CONNECT a:1 HTTP/1.1\r\n" H "\r\nBREW /echo HTTP/1.1\r\n" H "\r\n",
      OK(12, "CONNECT a:1 ") OK(11, "BREW /echo "), true },
    { "an upgrade is not made",
      "GET /echo HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
      "GET /now HTTP/1.1\r\n" H "\r\n",
      OK(10, "GET /echo ") OK(3, "now"), true },
    { "absolute target", "GET http://h/echo HTTP/1.1\r\n" H "\r\n", OK(10, "GET /echo "), true },
    { "body not asked for",
      "POST /now HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\nabGET /now "
      "HTTP/1.1\r\n" H "\r\n",
      OK(3, "now") OK(3, "now"), true },
    { "malformed", "GET / HTTP/1.1\r\nX : a\r\n\r\n", OWN("400 Bad Request"), false },
    { "malformed second", "GET /now HTTP/1.1\r\n" H "\r\nGET  / HTTP/1.1\r\n" H "\r\n",
      OK(3, "now") OWN("400 Bad Request"), false },
    { "no Host", "GET / HTTP/1.1\r\n\r\n", OWN("400 Bad Request"), false },
    { "two Host", "GET / HTTP/1.1\r\n" H H "\r\n", OWN("400 Bad Request"), false },
    { "length and chunked",
      "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      OWN("400 Bad Request"), false },
    { "two lengths", "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
      OWN("400 Bad Request"), false },
    { "gzip, chunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n",
      OWN("400 Bad Request"), false },
    { "folded header", "GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n", OWN("400 Bad Request"), false },
    { "HTTP/2.0", "GET / HTTP/2.0\r\n" H "\r\n", OWN("505 HTTP Version Not Supported"), false },
    { "unknown Expect", "POST / HTTP/1.1\r\n" H "Expect: more\r\n\r\n",
      OWN("417 Expectation Failed"), false },
    { "nonsense in a body",
      "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n2\r\nabX",
      OWN("400 Bad Request"), false },
    { "nonsense behind an answer",
      "POST /now HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n2\r\nabX", OK(3, "now"),
      false },
    { "asks before it sends, is refused",
      "POST /now HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
      OK_CLOSE(3, "now"), false },
    { "has sent before it is asked to",
      "POST /echo HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
      OK(12, "POST /echo x"), true },
};

/* Sends `bytes` and reads what `t` says comes back. */
static void talk(struct fixture *f, const struct talk *t, bool byte_by_byte)
{
    struct peer p;
    size_t len = strlen(t->sent);

    peer_open(&f->loop, &p, f->port);
    if (byte_by_byte) {
        int on = 1;

        setsockopt(p.fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof(on));
        for (size_t i = 0; i < len; i++) {
            peer_try_send(&p, t->sent + i, 1);
            uv_run(&f->loop, UV_RUN_NOWAIT);
        }
    } else {
        peer_send(&p, t->sent);
    }
    peer_expect(&f->loop, &p, t->got);
    if (!t->open)
        peer_expect_end(&f->loop, &p);
    assert_int_equal(p.len, 0);
    assert_int_equal(p.ended, !t->open);
    peer_close(&f->loop, &p, false);
}

static void answers_what_it_is_sent(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, &patient);
    for (size_t i = 0; i < TABLE_LEN(talks); i++) {
        fprintf(stderr, "%s\n", talks[i].name); /* which one, if it fails */
        talk(&f, &talks[i], false);
    }
    await_connections(&f, 0);
    stop(&f);
}

/* "100 Continue" depends on what has been sent already, so those cases are left out. */
static void answers_the_same_byte_by_byte(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, &patient);
    for (size_t i = 0; i < TABLE_LEN(talks); i++)
        if (strstr(talks[i].sent, "100-continue") == NULL)
            talk(&f, &talks[i], true);
    await_connections(&f, 0);
    stop(&f);
}

static void refuses_long_heads(void **state)
{
    struct fixture f;
    char target[2000] = "GET /", header[2000] = "GET / HTTP/1.1\r\nX: ";
    const struct talk cases[] = {
        { "target", target, OWN("414 URI Too Long"), false },
        { "header", header, OWN("431 Request Header Fields Too Large"), false },
    };

    (void)state;
    memset(target + 5, 'x', 1500);
    memset(header + strlen(header), 'x', 1500);
    start(&f, &patient);
    for (size_t i = 0; i < TABLE_LEN(cases); i++)
        talk(&f, &cases[i], false);
    stop(&f);
}

/* Beyond the bound that the library has by itself, ours decides. */
static void bounds_heads_as_configured(void **state)
{
    static char sent[90100];
    const struct talk passes = { "passes", sent, OK(3, "now"), true },
                      refused = { "refused", sent, OWN("431 Request Header Fields Too Large"),
                                  false };
    struct http_server_conf conf = patient;
    struct fixture f;
    size_t len;

    (void)state;
    len = (size_t)snprintf(sent, sizeof(sent), "GET /now HTTP/1.1\r\n" H "X: ");
    memset(sent + len, 'x', 90000 - len);
    memcpy(sent + 90000, "\r\n\r\n", 5);
    for (int i = 0; i < 2; i++) {
        conf.max_header_bytes = i == 0 ? 16384 : 1 << 20;
        start(&f, &conf);
        talk(&f, i == 0 ? &refused : &passes, false);
        stop(&f);
    }
}

/* What a peer sends behind its last request does not cost it the answer. */
static void closes_softly_before_unread_input(void **state)
{
    static char more[300000];

    (void)state;
    memset(more, '\n', sizeof(more));
    for (int together = 0; together < 2; together++) {
        struct fixture f;
        struct peer p;

        start(&f, &patient);
        peer_open(&f.loop, &p, f.port);
        peer_send(&p, "GET /hold HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
        if (together)
            peer_send(&p, "x");
        peer_until(&f.loop, has_held, &f);
        if (!together)
            peer_send_bytes(&p, more, sizeof(more));
        answer_held(&f, "bye");
        peer_expect(&f.loop, &p, OK_CLOSE(3, "bye"));
        peer_expect_end(&f.loop, &p);
        assert_int_equal(http_server_connections(f.server), 1);
        peer_send(&p, "y"); /* no reset either */
        peer_let_pass(&f.loop, 20);
        assert_int_equal(recv(p.fd, more, 1, 0), 0);
        peer_close(&f.loop, &p, false);
        await_connections(&f, 0);
        stop(&f);
    }
}

static void answers_pipelined_requests_in_order(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, "GET /hold HTTP/1.1\r\n" H "\r\nPOST /late HTTP/1.1\r\n" H
                  "Content-Length: 3\r\n\r\nabcGET /now HTTP/1.1\r\n" H "\r\nGET /echo HT");
    peer_until(&f.loop, has_held, &f);
    peer_let_pass(&f.loop, 5);
    assert_int_equal(f.requests, 1);
    assert_int_equal(p.len, 0);
    answer_held(&f, "first");
    peer_expect(&f.loop, &p, OK(5, "first"));
    peer_until(&f.loop, has_held, &f);
    assert_int_equal(f.requests, 2);
    assert_int_equal(f.body_bytes, 3);
    answer_held(&f, "second");
    peer_expect(&f.loop, &p, OK(6, "second") OK(3, "now"));
    peer_send(&p, "TP/1.1\r\n" H "\r\n");
    peer_expect(&f.loop, &p, OK(10, "GET /echo "));
    peer_close(&f.loop, &p, false);
    stop(&f);
}

/* What comes while an answer is awaited waits, much of it outside of the server. */
static void answers_what_came_while_it_waited(void **state)
{
    static const char request[] = "GET /now HTTP/1.1\r\n" H "\r\n", reply[] = OK(3, "now");
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &p, f.port);
    for (int round = 0; round < 3; round++) {
        peer_send(&p, "GET /hold HTTP/1.1\r\n" H "\r\n");
        peer_until(&f.loop, has_held, &f);
        for (int i = 0; i < 500; i++) {
            peer_send(&p, request);
            uv_run(&f.loop, UV_RUN_NOWAIT);
        }
        assert_int_equal(f.requests, round * 501 + 1);
        answer_held(&f, "held");
        assert_int_equal(f.requests, round * 501 + 1); /* not within the call */
        peer_expect(&f.loop, &p, OK(4, "held"));
        for (int i = 0; i < 500; i++)
            peer_expect(&f.loop, &p, reply);
    }
    peer_close(&f.loop, &p, false);
    stop(&f);
}

/* Many requests in few packets: no recursion, nothing lost. */
static void answers_a_thousand_pipelined_requests(void **state)
{
    static const char request[] = "GET /now HTTP/1.1\r\n" H "\r\n", reply[] = OK(3, "now");
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &p, f.port);
    for (int i = 0; i < 1000; i++)
        peer_send(&p, request);
    for (int i = 0; i < 1000; i++)
        peer_expect(&f.loop, &p, reply);
    peer_close(&f.loop, &p, false);
    stop(&f);
}

static void says_continue_when_the_body_is_asked_for(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &p, f.port);
    for (int i = 0; i < 2; i++) {
        peer_send(&p,
                  "POST /echo HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
        peer_expect(&f.loop, &p, "HTTP/1.1 100 Continue\r\n\r\n");
        peer_send(&p, "ab");
        peer_expect(&f.loop, &p, OK(13, "POST /echo ab"));
    }
    peer_close(&f.loop, &p, false);
    stop(&f);
}

/* Sends `len` bytes of body as the socket takes them, or until the server has closed. */
static void send_much(struct fixture *f, struct peer *p, size_t len)
{
    static const char zeros[65536];

    while (len > 0 && !p->ended) {
        size_t n = len < sizeof(zeros) ? len : sizeof(zeros);

        len -= peer_try_send(p, zeros, n);
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
}

static void reads_large_bodies(void **state)
{
    struct fixture f;
    struct peer p;
    char got[400];

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, "POST /echo HTTP/1.1\r\n" H "Content-Length: 5000000\r\n\r\n");
    send_much(&f, &p, 5000000);
    snprintf(got, sizeof(got), "HTTP/1.1 200 OK\r\n");
    peer_expect(&f.loop, &p, got);
    assert_int_equal(f.body_bytes, 5000000);
    assert_int_equal(f.ends, 1);
    peer_close(&f.loop, &p, false);
    stop(&f);
}

static void goes_on_behind_a_body_it_discards(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, "POST /early HTTP/1.1\r\n" H "Content-Length: 1000000\r\n\r\nx");
    peer_expect(&f.loop, &p, TOO_MUCH);
    send_much(&f, &p, 999999);
    peer_send(&p, "GET /now HTTP/1.1\r\n" H "\r\n");
    peer_expect(&f.loop, &p, OK(3, "now"));
    assert_int_equal(f.aborts + f.ends, 0);
    peer_close(&f.loop, &p, false);
    stop(&f);
}

static void closes_behind_a_body_too_long_to_discard(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, "POST /now HTTP/1.1\r\n" H "Content-Length: 100000000\r\n\r\n");
    peer_expect(&f.loop, &p, OK_CLOSE(3, "now"));
    peer_until(&f.loop, peer_has_ended, &p); /* our end; the body is still taken */
    assert_false(p.reset);
    assert_int_equal(http_server_connections(f.server), 1);
    p.ended = false; /* so that send_much sends into the bound */
    send_much(&f, &p, 3000000);
    await_connections(&f, 0);
    peer_close(&f.loop, &p, false);

    peer_open(&f.loop, &p, f.port); /* of unknown length */
    peer_send(&p, "POST /now HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\nffffffff\r\n");
    peer_expect(&f.loop, &p, OK(3, "now"));
    send_much(&f, &p, 3000000);
    await_connections(&f, 0);
    peer_close(&f.loop, &p, false);
    stop(&f);
}

static void answers_a_peer_that_has_ended(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, "GET /hold HTTP/1.1\r\n" H "\r\n");
    shutdown(p.fd, SHUT_WR);
    peer_until(&f.loop, has_held, &f);
    peer_let_pass(&f.loop, 5);
    answer_held(&f, "yes");
    peer_expect(&f.loop, &p, OK_CLOSE(3, "yes"));
    peer_expect_end(&f.loop, &p);
    peer_close(&f.loop, &p, false);

    peer_open(&f.loop, &p, f.port); /* both were sent, so both are answered */
    peer_send(&p, "GET /echo HTTP/1.1\r\n" H "\r\nGET /now HTTP/1.1\r\n" H "\r\n");
    shutdown(p.fd, SHUT_WR);
    peer_expect(&f.loop, &p, OK(10, "GET /echo ") OK(3, "now"));
    peer_expect_end(&f.loop, &p);
    peer_close(&f.loop, &p, false);
    await_connections(&f, 0);
    stop(&f);
}

static bool body_is_complete(void *arg)
{
    return ((struct fixture *)arg)->ends == 1;
}

static void pauses_and_resumes(void **state)
{
    struct fixture f;
    struct peer p;
    unsigned pieces = 0;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, "POST /pause HTTP/1.1\r\n" H "Content-Length: 200000\r\n\r\n");
    send_much(&f, &p, 200000);
    while (!body_is_complete(&f)) {
        struct request *r = f.held;
        uint64_t before = f.body_bytes;

        if (r != NULL) {
            peer_let_pass(&f.loop, 2);
            assert_int_equal(f.body_bytes, before); /* also the end waits */
            assert_int_equal(f.ends, 0);
            f.held = NULL;
            r->paused = false;
            pieces++;
            http_exchange_resume(r->x);
            assert_int_equal(f.body_bytes, before); /* not within the call */
        }
        uv_run(&f.loop, UV_RUN_NOWAIT);
    }
    assert_true(pieces >= 3);
    assert_int_equal(f.body_bytes, 200000);
    peer_expect(&f.loop, &p, "HTTP/1.1 200 OK\r\n");
    peer_close(&f.loop, &p, false);
    stop(&f);
}

/* Whatever part of a request comes before the peer leaves, nothing is left behind, and every body
 * that was asked for ends or is aborted. */
static void survives_a_peer_that_leaves_at_any_byte(void **state)
{
    static const char *const requests[] = {
        "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello",
        "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "POST /early HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "POST /now HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello",
    };
    struct fixture f;

    (void)state;
    start(&f, &patient);
    for (size_t i = 0; i < TABLE_LEN(requests); i++) {
        for (size_t n = 0; n <= 2 * strlen(requests[i]) + 1; n++) {
            struct peer p;

            peer_open(&f.loop, &p, f.port);
            peer_send_bytes(&p, requests[i], n / 2);
            if (n % 3 == 0)
                await_connections(&f, 1);
            peer_close(&f.loop, &p, n % 2 == 1);
            if (n % 3 == 0 || n % 2 == 0)
                await_connections(&f, 0);
        }
        await_connections(&f, 0);
        if (i < 2)
            assert_true(f.aborts > 0 && f.requests == f.aborts + f.ends);
    }
    stop(&f);
}

static void an_answer_to_nobody_frees_its_exchange(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, "GET /hold HTTP/1.1\r\n" H "\r\n");
    peer_until(&f.loop, has_held, &f);
    peer_close(&f.loop, &p, true);
    peer_let_pass(&f.loop, 5);
    assert_int_equal(http_server_connections(f.server), 1);
    answer_held(&f, "nobody hears it");
    await_connections(&f, 0);
    stop(&f);
}

static void pauses_accepting_at_the_cap(void **state)
{
    struct http_server_conf conf = patient;
    struct fixture f;
    struct peer peers[4];

    (void)state;
    conf.max_connections = 2;
    start(&f, &conf);
    for (int i = 0; i < 4; i++) {
        peer_open(&f.loop, &peers[i], f.port);
        peer_send(&peers[i], "GET /now HTTP/1.1\r\n" H "\r\n");
    }
    peer_expect(&f.loop, &peers[0], OK(3, "now"));
    peer_expect(&f.loop, &peers[1], OK(3, "now"));
    peer_let_pass(&f.loop, 10);
    assert_int_equal(peers[2].len + peers[3].len, 0);
    assert_int_equal(http_server_connections(f.server), 2);
    for (int i = 0; i < 2; i++) {
        peer_close(&f.loop, &peers[i], false);
        peer_expect(&f.loop, &peers[i + 2], OK(3, "now"));
        assert_int_equal(http_server_connections(f.server), 2);
    }
    peer_close(&f.loop, &peers[2], false);
    peer_close(&f.loop, &peers[3], false);
    stop(&f);
}

static void on_drained(void *arg)
{
    ((struct fixture *)arg)->drained = true;
}

static bool is_drained(void *arg)
{
    return ((struct fixture *)arg)->drained;
}

static void drains(void **state)
{
    struct fixture f;
    struct peer idle, busy, half;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &idle, f.port);
    peer_send(&idle, "GET /now HTTP/1.1\r\n" H "\r\n");
    peer_expect(&f.loop, &idle, OK(3, "now"));
    peer_open(&f.loop, &busy, f.port);
    peer_send(&busy, "GET /hold HTTP/1.1\r\n" H "\r\n");
    peer_open(&f.loop, &half, f.port);
    peer_send(&half, "GET /echo HTT");
    await_connections(&f, 3);
    peer_until(&f.loop, has_held, &f);
    peer_let_pass(&f.loop, 5);
    http_server_drain(f.server, on_drained, &f);
    peer_expect_end(&f.loop, &idle);
    peer_send(&half, "P/1.1\r\n" H "\r\n");
    peer_expect(&f.loop, &half, OK_CLOSE(10, "GET /echo "));
    peer_expect_end(&f.loop, &half);
    assert_false(f.drained);
    answer_held(&f, "last");
    assert_false(f.drained);
    peer_expect(&f.loop, &busy, OK_CLOSE(4, "last"));
    peer_expect_end(&f.loop, &busy);
    peer_until(&f.loop, is_drained, &f);
    assert_int_equal(http_server_connections(f.server), 0);
    peer_close(&f.loop, &idle, false);
    peer_close(&f.loop, &busy, false);
    peer_close(&f.loop, &half, false);
    stop(&f);
}

static void drains_at_once_when_idle(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, &patient);
    http_server_drain(f.server, on_drained, &f);
    assert_false(f.drained);
    peer_until(&f.loop, is_drained, &f);
    stop(&f);
}

static void closes_with_exchanges_pending(void **state)
{
    struct fixture f;
    struct peer held, reading, paused, half;
    struct request *r;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &half, f.port);
    peer_send(&half, "GET /");
    peer_open(&f.loop, &reading, f.port);
    peer_send(&reading, "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nab");
    peer_open(&f.loop, &paused, f.port);
    peer_send(&paused, "POST /pause HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nab");
    peer_until(&f.loop, has_held, &f);
    peer_open(&f.loop, &held, f.port);
    peer_send(&held, "GET /hold HTTP/1.1\r\n" H "\r\n");
    while (f.held_count == 0)
        uv_run(&f.loop, UV_RUN_ONCE);
    r = f.held;
    quit(&f);
    assert_int_equal(f.aborts, 2);
    peer_until(&f.loop, is_closed, &f);
    answer(r, 200, "nobody hears it"); /* the server is no more */
    peer_close(&f.loop, &held, false);
    peer_close(&f.loop, &reading, false);
    peer_close(&f.loop, &paused, false);
    peer_close(&f.loop, &half, false);
    stop(&f);
}

static void closes_from_within_callbacks(void **state)
{
    static const char *const targets[] = { "/quit", "/quit-read", "/quit-piece" };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(targets); i++) {
        struct fixture f;
        struct peer p;
        char request[100];

        start(&f, &patient);
        peer_open(&f.loop, &p, f.port);
        snprintf(request, sizeof(request),
                 "POST %s HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabcGET", targets[i]);
        peer_send(&p, request);
        peer_until(&f.loop, is_closed, &f);
        assert_int_equal(f.aborts, i == 0 ? 0 : 1);
        peer_close(&f.loop, &p, false);
        stop(&f);
    }
}

/* Deadlines. A dripping peer sends a byte every other millisecond, on and on. */

struct drip {
    uv_timer_t timer;
    struct peer *peer;
    const char *text; /* its last byte is repeated */
    bool closed;
};

static void on_drip(uv_timer_t *timer)
{
    struct drip *d = timer->data;

    peer_try_send(d->peer, d->text, 1);
    if (d->text[1] != '\0')
        d->text++;
}

static void drip_start(struct fixture *f, struct drip *d, struct peer *p, const char *text)
{
    *d = (struct drip){ .peer = p, .text = text };
    uv_timer_init(&f->loop, &d->timer);
    d->timer.data = d;
    uv_timer_start(&d->timer, on_drip, 2, 2);
}

static void on_drip_closed(uv_handle_t *handle)
{
    ((struct drip *)handle->data)->closed = true;
}

static void drip_stop(struct fixture *f, struct drip *d)
{
    uv_close((uv_handle_t *)&d->timer, on_drip_closed);
    while (!d->closed)
        uv_run(&f->loop, UV_RUN_NOWAIT);
}

#define SLOW OWN("408 Request Timeout")
#define BODY "POST /echo HTTP/1.1\r\n" H "Content-Length: 100000\r\n\r\n"

static const struct slow_case {
    const char *name;
    uint64_t header_ms, idle_ms, body_ms, keepalive_ms;
    const char *sent, *dripped, *got; /* `got` until the server closes */
    unsigned aborts;
} slow_cases[] = {
    { "new and silent", 60000, 60000, 0, 20, "", NULL, "", 0 },
    { "silent behind an answer", 60000, 60000, 0, 150, "GET /now HTTP/1.1\r\n" H "\r\n", NULL,
      OK(3, "now"), 0 },
    { "part of a head", 20, 60000, 0, 60000, "GET / HT", NULL, SLOW, 0 },
    { "dripping head", 50, 60000, 0, 60000, "G", "ET / HTTP/1.1\r\nX: xxx", SLOW, 0 },
    { "dripping empty lines", 60000, 60000, 0, 50, "", "\n", "", 0 },
    { "an empty line behind a body", 20, 60000, 0, 150,
      "POST /echo HTTP/1.1\r\n" H "Content-Length: 1\r\n\r\nx\r\n", NULL, OK(12, "POST /echo x"),
      0 },
    { "dripping second head", 50, 60000, 0, 60000, "GET /now HTTP/1.1\r\n" H "\r\nG", "ET",
      OK(3, "now") SLOW, 0 },
    { "silent body", 60000, 20, 0, 60000, BODY "x", NULL, SLOW, 1 },
    { "body never begun", 60000, 20, 0, 60000, BODY, NULL, SLOW, 1 },
    { "dripping body", 50, 60000, 50, 60000, BODY, "x", SLOW, 1 },
    { "silent body, total time only", 60000, 0, 20, 60000, BODY "x", NULL, SLOW, 1 },
    { "dripping body behind its answer", 50, 60000, 0, 60000,
      "POST /early HTTP/1.1\r\n" H "Content-Length: 100000\r\n\r\nx", "x", TOO_MUCH, 0 },
    { "dripping behind a refusal", 50, 60000, 0, 60000, "G\r\n", "x", OWN("400 Bad Request"), 0 },
};

static void closes_slow_peers(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(slow_cases); i++) {
        const struct slow_case *c = &slow_cases[i];
        struct http_server_conf conf = patient;
        struct fixture f;
        struct peer p;
        struct drip d;

        fprintf(stderr, "%s\n", c->name);
        conf.header_timeout_ms = c->header_ms;
        conf.body_idle_timeout_ms = c->idle_ms;
        conf.body_timeout_ms = c->body_ms;
        conf.keepalive_timeout_ms = c->keepalive_ms;
        start(&f, &conf);
        peer_open(&f.loop, &p, f.port);
        peer_send(&p, c->sent);
        if (c->dripped != NULL)
            drip_start(&f, &d, &p, c->dripped);
        peer_expect(&f.loop, &p, c->got);
        peer_until(&f.loop, peer_has_ended, &p);
        assert_int_equal(p.len, 0);
        assert_int_equal(f.aborts, c->aborts);
        if (c->dripped == NULL)
            peer_close(&f.loop, &p, false);
        await_connections(&f, 0); /* also without the peer's help */
        if (c->dripped != NULL) {
            drip_stop(&f, &d);
            peer_close(&f.loop, &p, false);
        }
        stop(&f);
    }
}

static void does_not_hurry_while_it_works_itself(void **state)
{
    const struct http_server_conf hurried = {
        .header_timeout_ms = 100,
        .body_idle_timeout_ms = 100,
        .body_timeout_ms = 150,
        .keepalive_timeout_ms = 60000,
        .discard_bytes = 1000,
        .max_header_bytes = 1024,
        .max_connections = 100,
    };
    struct fixture f;
    struct peer p;
    struct request *r;

    (void)state;
    start(&f, &hurried);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, "GET /hold HTTP/1.1\r\n" H "\r\n"); /* answer awaited */
    peer_until(&f.loop, has_held, &f);
    peer_let_pass(&f.loop, 250);
    answer_held(&f, "x");
    peer_expect(&f.loop, &p, OK(1, "x"));
    peer_send(&p, "POST /pause HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\na");
    peer_until(&f.loop, has_held, &f);
    peer_let_pass(&f.loop, 250); /* paused */
    peer_send(&p, "b");
    for (r = f.held; r != NULL; r = f.held) {
        f.held = NULL;
        r->paused = false;
        http_exchange_resume(r->x);
        while (f.held == NULL && f.ends + f.aborts == 0)
            uv_run(&f.loop, UV_RUN_ONCE);
    }
    peer_expect(&f.loop, &p, OK(14, "POST /pause ab"));
    assert_int_equal(f.aborts, 0);
    peer_close(&f.loop, &p, false);
    stop(&f);
}

/* Time before a pause counts, time in it does not. */
static void total_time_goes_on_behind_a_pause(void **state)
{
    struct http_server_conf conf = patient;
    struct fixture f;
    struct peer p;
    struct drip d;
    unsigned pauses = 0;

    (void)state;
    conf.body_timeout_ms = 60;
    start(&f, &conf);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, "POST /pause HTTP/1.1\r\n" H "Content-Length: 100000\r\n\r\na");
    drip_start(&f, &d, &p, "x");
    while (f.aborts == 0) {
        struct request *r = f.held;

        if (r != NULL) {
            f.held = NULL;
            r->paused = false;
            pauses++;
            http_exchange_resume(r->x);
        }
        uv_run(&f.loop, UV_RUN_ONCE);
    }
    assert_true(pauses > 1);
    peer_expect(&f.loop, &p, SLOW);
    drip_stop(&f, &d);
    peer_close(&f.loop, &p, false);
    stop(&f);
}

static bool has_dropped_all(void *arg)
{
    return ((struct peer *)arg)->dropped > BIG_ANSWER;
}

static void sends_large_answers(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, &patient);
    peer_open(&f.loop, &p, f.port);
    p.drop = true;
    peer_send(&p, "GET /big HTTP/1.1\r\n" H "\r\nGET /now HTTP/1.1\r\n" H "\r\n");
    peer_until(&f.loop, has_dropped_all, &p);
    peer_let_pass(&f.loop, 5);
    assert_int_equal(p.dropped, BIG_ANSWER + strlen("HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n"
                                                    "\r\n" OK(3, "now")));
    peer_close(&f.loop, &p, false);
    stop(&f);
}

static void survives_a_peer_that_leaves_in_an_answer(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, &patient);
    for (int with_reset = 0; with_reset < 2; with_reset++) {
        struct peer p;

        peer_open(&f.loop, &p, f.port);
        uv_poll_stop(&p.poll);
        peer_send(&p, "GET /big HTTP/1.1\r\n" H "\r\n");
        while (f.requests == (unsigned)with_reset)
            uv_run(&f.loop, UV_RUN_ONCE);
        peer_let_pass(&f.loop, 5);
        assert_int_equal(http_server_connections(f.server), 1);
        peer_close(&f.loop, &p, with_reset == 1);
        await_connections(&f, 0);
    }
    stop(&f);
}

static void refuses_to_listen_on_what_is_no_socket(void **state)
{
    int fd = (int)memfd_create("no socket", MFD_CLOEXEC);
    struct fixture f;

    (void)state;
    start(&f, &patient);
    assert_true(http_server_listen(f.server, fd) < 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* it was the server's to close */
    stop(&f);
}

static void closes_a_peer_that_does_not_read(void **state)
{
    struct http_server_conf conf = patient;
    struct fixture f;
    struct peer p;

    (void)state;
    conf.header_timeout_ms = 50;
    start(&f, &conf);
    peer_open(&f.loop, &p, f.port);
    uv_poll_stop(&p.poll);
    peer_send(&p, "GET /big HTTP/1.1\r\n" H "\r\n");
    await_connections(&f, 1);
    await_connections(&f, 0);
    assert_int_equal(f.requests, 1);
    peer_close(&f.loop, &p, false);
    stop(&f);
}

/* It plays the descriptor limit by itself, and closes what the kernel has accepted. */
static bool is_under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");

    return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

static bool count_turn(void *arg)
{
    ++*(unsigned *)arg;
    return false;
}

/* Descriptors run out: a pause and few lines, no spinning, and it goes on afterwards. */
static void survives_a_lack_of_descriptors(void **state)
{
    struct http_server_conf conf = patient;
    struct fixture f;
    struct peer p;
    struct log log;
    struct rlimit old, none;
    char lines[4096] = "";
    unsigned turns = 0;
    int memory;

    (void)state;
    if (is_under_valgrind())
        skip();
    memory = memfd_create("log", MFD_CLOEXEC);
    table_require(memory >= 0, "memory file");
    table_require(getrlimit(RLIMIT_NOFILE, &old) == 0, "descriptor limit");
    log_init(&log, memory, LOG_LEVEL_INFO, LOG_FORMAT_TEXT, &clock_system);
    conf.log = &log;
    start(&f, &conf);
    peer_open(&f.loop, &p, f.port);
    none = old;
    none.rlim_cur = 3; /* below what is open: no new one */
    table_require(setrlimit(RLIMIT_NOFILE, &none) == 0, "lower descriptor limit");
    peer_send(&p, "GET /now HTTP/1.1\r\n" H "\r\n");
    peer_within(&f.loop, 250, count_turn, &turns);
    assert_in_range(turns, 2, 20);
    assert_int_equal(http_server_connections(f.server), 0);
    table_require(setrlimit(RLIMIT_NOFILE, &old) == 0, "old descriptor limit");
    peer_expect(&f.loop, &p, OK(3, "now"));
    assert_true(pread(memory, lines, sizeof(lines) - 1, 0) > 0);
    assert_non_null(strstr(lines, "accept_failed"));
    assert_ptr_equal(strchr(lines, '\n'), lines + strlen(lines) - 1); /* one line */
    peer_close(&f.loop, &p, false);
    stop(&f);
    log_fini(&log);
    close(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_what_it_is_sent),
        cmocka_unit_test(answers_the_same_byte_by_byte),
        cmocka_unit_test(refuses_long_heads),
        cmocka_unit_test(bounds_heads_as_configured),
        cmocka_unit_test(closes_softly_before_unread_input),
        cmocka_unit_test(answers_pipelined_requests_in_order),
        cmocka_unit_test(answers_a_thousand_pipelined_requests),
        cmocka_unit_test(answers_what_came_while_it_waited),
        cmocka_unit_test(says_continue_when_the_body_is_asked_for),
        cmocka_unit_test(reads_large_bodies),
        cmocka_unit_test(goes_on_behind_a_body_it_discards),
        cmocka_unit_test(closes_behind_a_body_too_long_to_discard),
        cmocka_unit_test(answers_a_peer_that_has_ended),
        cmocka_unit_test(pauses_and_resumes),
        cmocka_unit_test(survives_a_peer_that_leaves_at_any_byte),
        cmocka_unit_test(an_answer_to_nobody_frees_its_exchange),
        cmocka_unit_test(pauses_accepting_at_the_cap),
        cmocka_unit_test(drains),
        cmocka_unit_test(drains_at_once_when_idle),
        cmocka_unit_test(closes_with_exchanges_pending),
        cmocka_unit_test(closes_from_within_callbacks),
        cmocka_unit_test(closes_slow_peers),
        cmocka_unit_test(does_not_hurry_while_it_works_itself),
        cmocka_unit_test(total_time_goes_on_behind_a_pause),
        cmocka_unit_test(sends_large_answers),
        cmocka_unit_test(survives_a_peer_that_leaves_in_an_answer),
        cmocka_unit_test(refuses_to_listen_on_what_is_no_socket),
        cmocka_unit_test(closes_a_peer_that_does_not_read),
        cmocka_unit_test(survives_a_lack_of_descriptors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
