/*
 * What the HTTP server says of its peers: who asks, how much came, whom it turned away by itself; and
 * the limit of connections an address.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http_peer.h"
#include "http_server.h"
#include "listener.h"
#include "tables.h"

struct fixture {
    uv_loop_t loop;
    struct http_server *server;
    struct peer_limit *limit;
    struct http_exchange *x; /* the last one; its body goes unread */
    uint16_t port;
    bool closed;
    unsigned pieces, ends, aborts, rejects;
    uint64_t received;
    int rejected;                 /* the last status */
    char asked[PEER_TEXT_MAX];    /* who asked */
    char turned[PEER_TEXT_MAX];   /* who was turned away */
    unsigned aborts_at_rejection; /* how many there were then */
};

static void on_piece(void *arg, struct lonely_span piece)
{
    struct fixture *f = arg;

    f->pieces++;
    f->received += piece.len;
    assert_int_equal(f->x->received, f->received);
}

static void on_end(void *arg)
{
    struct fixture *f = arg;

    f->ends++;
    assert_int_equal(f->x->received, f->received);
    peer_print(f->x->peer, f->asked);
    http_exchange_respond(f->x, &(struct http_response){ .status = 200 });
}

static void on_abort(void *arg)
{
    struct fixture *f = arg;

    f->aborts++;
    assert_int_equal(f->x->received, f->received); /* may still be read here */
    peer_print(f->x->peer, f->asked);
}

static void on_request(void *app, struct http_exchange *x)
{
    static const struct http_body_ops ops = { on_piece, on_end, on_abort };
    struct fixture *f = app;

    f->x = x;
    f->received = 0;
    assert_int_equal(x->received, 0);
    peer_print(x->peer, f->asked);
    http_exchange_read_body(x, &ops, f);
}

static void on_reject(void *app, int status, const struct sockaddr *peer)
{
    struct fixture *f = app;

    f->rejects++;
    f->rejected = status;
    f->aborts_at_rejection = f->aborts;
    peer_print(peer, f->turned);
}

static void start(struct fixture *f, uint64_t per_address)
{
    struct http_server_conf conf = {
        .header_timeout_ms = 60000,
        .body_idle_timeout_ms = 100,
        .keepalive_timeout_ms = 60000,
        .discard_bytes = 1 << 20,
        .max_header_bytes = 1024,
        .max_connections = 100,
        .on_reject = on_reject,
    };
    char bound[80], error[256];
    int fd;

    memset(f, 0, sizeof(*f));
    f->rejected = -1;
    if (per_address > 0)
        conf.peers = f->limit = peer_limit_create(per_address);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_true(listener_open("127.0.0.1:0", 128, 1, &fd, bound, error));
    f->port = (uint16_t)atoi(strrchr(bound, ':') + 1);
    f->server = http_server_create(&f->loop, &conf, on_request, f);
    assert_int_equal(http_server_listen(f->server, fd), 0);
}

static void on_closed(void *arg)
{
    ((struct fixture *)arg)->closed = true;
}

static bool is_closed(void *arg)
{
    return ((struct fixture *)arg)->closed;
}

static void stop(struct fixture *f)
{
    http_server_close(f->server, on_closed, f);
    peer_until(&f->loop, is_closed, f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    peer_limit_destroy(f->limit);
}

/* "127.0.0.1:PORT" of our end. */
static void assert_is(const struct peer *p, const char *text)
{
    struct sockaddr_in own;
    socklen_t len = sizeof(own);
    char expected[PEER_TEXT_MAX];

    assert_int_equal(getsockname(p->fd, (struct sockaddr *)&own, &len), 0);
    snprintf(expected, sizeof(expected), "127.0.0.1:%u", (unsigned)ntohs(own.sin_port));
    assert_string_equal(text, expected);
}

static bool has_reply(void *arg)
{
    return ((struct peer *)arg)->len > 0;
}

#define OK "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

static void says_who_asks_and_how_much_came(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, 0);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    peer_let_pass(&f.loop, 5);
    peer_send(&p, "cde");
    peer_expect(&f.loop, &p, OK);
    assert_int_equal(f.received, 5);
    assert_is(&p, f.asked);
    /* The next request of the connection begins at 0; frames of chunks are not counted. */
    peer_send(&p, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n");
    peer_expect(&f.loop, &p, OK);
    assert_int_equal(f.received, 3);
    assert_int_equal(f.ends, 2);
    assert_int_equal(f.rejects, 0);
    peer_close(&f.loop, &p, false);
    stop(&f);
}

static const struct rejection {
    const char *sent;
    int status; /* -1: nobody is told */
    unsigned aborts;
} rejections[] = {
    { "nonsense\r\n\r\n", 400, 0 },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, 0 },
    { "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", 408, 1 },
    { "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, 1 },
    { "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", -1, 0 },
};

static void says_whom_it_turned_away(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(rejections); i++) {
        struct fixture f;
        struct peer p;
        char begin[32];

        start(&f, 0);
        peer_open(&f.loop, &p, f.port);
        peer_send(&p, rejections[i].sent);
        peer_until(&f.loop, has_reply, &p);
        assert_int_equal(f.rejected, rejections[i].status);
        assert_int_equal(f.rejects, rejections[i].status > 0);
        assert_int_equal(f.aborts, rejections[i].aborts);
        if (rejections[i].status > 0) {
            assert_is(&p, f.turned);
            assert_int_equal(f.aborts_at_rejection, f.aborts); /* it comes after on_abort */
            snprintf(begin, sizeof(begin), "HTTP/1.1 %d ", rejections[i].status);
            assert_memory_equal(p.in, begin, strlen(begin));
        }
        peer_close(&f.loop, &p, false);
        stop(&f);
    }
}

static void closes_what_is_beyond_the_share_of_an_address(void **state)
{
    struct fixture f;
    struct peer p[3];

    (void)state;
    start(&f, 2);
    for (size_t i = 0; i < 3; i++)
        peer_open(&f.loop, &p[i], f.port);
    peer_until(&f.loop, peer_has_ended, &p[2]);
    assert_int_equal(p[2].len, 0);
    assert_int_equal(f.rejected, 0);
    assert_int_equal(f.rejects, 1);
    assert_is(&p[2], f.turned);
    assert_int_equal(http_server_connections(f.server), 2);
    peer_close(&f.loop, &p[2], false);
    /* The others are served, and one that leaves makes room for another. */
    peer_send(&p[1], "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    peer_expect(&f.loop, &p[1], OK);
    peer_send(&p[0], "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    peer_until(&f.loop, peer_has_ended, &p[0]);
    peer_close(&f.loop, &p[0], false);
    peer_open(&f.loop, &p[0], f.port);
    peer_send(&p[0], "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    peer_expect(&f.loop, &p[0], OK);
    assert_int_equal(f.rejects, 1);
    peer_close(&f.loop, &p[0], true);
    peer_close(&f.loop, &p[1], true);
    stop(&f);
}

/* Whatever way a connection ends, it is given back. */
static void gives_back_every_connection(void **state)
{
    static const char *const sent[] = {
        "",
        "GET",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "nonsense\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab",
    };
    struct fixture f;
    struct peer p;
    union peer_address own = { .in = { .sin_family = AF_INET } };
    bool refused;

    (void)state;
    start(&f, 1);
    own.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (size_t i = 0; i < 2 * TABLE_LEN(sent); i++) {
        do { /* closed without an answer: the last one has not been given back yet */
            peer_open(&f.loop, &p, f.port);
            peer_send(&p, sent[i / 2]);
            peer_let_pass(&f.loop, 2);
            refused = p.ended && p.len == 0;
            if (refused)
                peer_close(&f.loop, &p, false);
        } while (refused);
        peer_close(&f.loop, &p, i % 2 == 1);
    }
    while (!peer_limit_take(f.limit, &own.sa))
        peer_let_pass(&f.loop, 1);
    peer_limit_release(f.limit, &own.sa);
    stop(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_who_asks_and_how_much_came),
        cmocka_unit_test(says_whom_it_turned_away),
        cmocka_unit_test(closes_what_is_beyond_the_share_of_an_address),
        cmocka_unit_test(gives_back_every_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
