/*
 * Connections that the HTTP server gives away: http_exchange_upgrade, over real sockets. The target says
 * what the application does: /now upgrades at once, /later when the test says, anything else is answered.
 * What was given away sends back what it reads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "http_server.h"
#include "stream.h"
#include "tls_client.h"

#define LINES       "Connection: Upgrade\r\nUpgrade: echo\r\n"
#define HEAD        "HTTP/1.1 101 Switching Protocols\r\n" LINES "\r\n"
#define ASK(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"

struct fixture {
    uv_loop_t loop;
    struct http_server *server;
    uint16_t port;
    struct http_exchange *held;
    struct stream *stream; /* the last that was given away */
    unsigned given, lost, ended, gone;
    bool inside, closed, drained;
};

static void on_read(void *arg, struct lonely_span bytes)
{
    struct fixture *f = arg;

    table_require(stream_try_send(f->stream, &bytes, 1) == (ptrdiff_t)bytes.len, "room");
}

static void on_end(void *arg)
{
    ((struct fixture *)arg)->ended++;
}

static void on_sent(void *arg)
{
    (void)arg;
}

static void on_gone(void *arg)
{
    ((struct fixture *)arg)->gone++;
}

static void on_lost(void *arg)
{
    stream_close(((struct fixture *)arg)->stream);
}

static const struct stream_events echo_events = { .on_read = on_read,
                                                  .on_end = on_end,
                                                  .on_sent = on_sent,
                                                  .on_lost = on_lost,
                                                  .on_closed = on_gone };

static void on_upgraded(void *arg, struct stream *stream, struct lonely_span rest)
{
    struct fixture *f = arg;

    assert_false(f->inside);
    f->lost += stream == NULL;
    if (stream == NULL)
        return;
    f->given++;
    f->stream = stream;
    stream_attach(stream, &echo_events, f);
    stream_read_start(stream);
    if (rest.len > 0)
        on_read(f, rest);
}

static bool upgrade(struct fixture *f, struct http_exchange *x)
{
    bool ok;

    f->inside = true;
    ok = http_exchange_upgrade(x, LINES, on_upgraded, f);
    f->inside = false;
    return ok;
}

static void on_request(void *app, struct http_exchange *x)
{
    const struct http_response response = { .status = 200 };
    struct fixture *f = app;

    if (table_span_equal(x->head.target, LIT("/now")))
        assert_true(upgrade(f, x));
    else if (table_span_equal(x->head.target, LIT("/later")))
        f->held = x;
    else
        http_exchange_respond(x, &response);
}

static void start(struct fixture *f, struct tls_server *tls, struct peer_limit *peers, uint32_t max)
{
    const struct http_server_conf conf = { .header_timeout_ms = 60000,
                                           .keepalive_timeout_ms = 60000,
                                           .max_header_bytes = 1024,
                                           .max_connections = max,
                                           .peers = peers };
    int fd;

    memset(f, 0, sizeof *f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    fd = listen_anywhere(&f->port);
    f->server = http_server_create(&f->loop, &conf, on_request, f);
    assert_int_equal(tls == NULL ? http_server_listen(f->server, fd)
                                 : http_server_listen_tls(f->server, fd, tls),
                     0);
}

static void on_closed(void *arg)
{
    ((struct fixture *)arg)->closed = true;
}

static void on_drained(void *arg)
{
    ((struct fixture *)arg)->drained = true;
}

static bool is_closed(void *arg)
{
    return ((struct fixture *)arg)->closed;
}

static bool is_drained(void *arg)
{
    return ((struct fixture *)arg)->drained;
}

static bool has_given(void *arg)
{
    return ((struct fixture *)arg)->given > 0;
}

static bool has_held(void *arg)
{
    return ((struct fixture *)arg)->held != NULL;
}

static bool has_ended(void *arg)
{
    return ((struct fixture *)arg)->ended > 0;
}

static bool is_alone(void *arg)
{
    return http_server_connections(((struct fixture *)arg)->server) == 0;
}

static void stop(struct fixture *f)
{
    http_server_close(f->server, on_closed, f);
    peer_until(&f->loop, is_closed, f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

static void gives_away_what_was_read_behind(void **state)
{
    static const char *const together[] = { ASK("/now") "rest", ASK("/x") ASK("/now") "rest" };

    (void)state;
    for (int i = 0; i < 4; i++) {
        const char *text = together[i / 2];
        size_t len = strlen(text);
        struct fixture f;
        struct peer p;

        start(&f, NULL, NULL, 10);
        peer_open(&f.loop, &p, f.port);
        for (size_t at = 0; at < len; at += i % 2 == 0 ? len : 1) {
            peer_send_bytes(&p, text + at, i % 2 == 0 ? len : 1);
            uv_run(&f.loop, UV_RUN_NOWAIT);
        }
        if (i / 2 == 1)
            peer_expect(&f.loop, &p, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        peer_expect(&f.loop, &p, HEAD "rest");
        peer_send(&p, " and more");
        peer_expect(&f.loop, &p, " and more");
        assert_int_equal(http_server_connections(f.server), 1);
        peer_close(&f.loop, &p, false);
        peer_until(&f.loop, has_ended, &f);
        assert_int_equal(http_server_connections(f.server), 1);
        stream_close(f.stream);
        peer_until(&f.loop, is_alone, &f);
        assert_int_equal(f.gone, 1);
        stop(&f);
    }
}

static void upgrades_later_too(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, NULL, NULL, 10);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, ASK("/later") "early");
    peer_until(&f.loop, has_held, &f);
    peer_let_pass(&f.loop, 5);
    peer_send(&p, "later");
    assert_true(upgrade(&f, f.held));
    peer_expect(&f.loop, &p, HEAD "earlylater");
    stream_close(f.stream);
    peer_expect_end(&f.loop, &p);
    peer_close(&f.loop, &p, false);
    stop(&f);
}

/* The peer leaves before, or just after. */
static void survives_a_peer_that_leaves(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, NULL, NULL, 10);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, ASK("/later"));
    peer_until(&f.loop, has_held, &f);
    peer_close(&f.loop, &p, true);
    peer_let_pass(&f.loop, 20);
    assert_false(upgrade(&f, f.held));
    peer_until(&f.loop, is_alone, &f);
    assert_int_equal(f.given + f.lost, 0);
    f.held = NULL;
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, ASK("/later"));
    peer_until(&f.loop, has_held, &f);
    assert_true(upgrade(&f, f.held));
    http_server_close(f.server, on_closed, &f); /* before the turn in which it is given away */
    assert_int_equal(f.lost, 1);
    peer_until(&f.loop, is_closed, &f);
    peer_close(&f.loop, &p, false);
    assert_int_equal(uv_loop_close(&f.loop), 0);
}

static void outlives_drain_and_close(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, NULL, NULL, 10);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, ASK("/now"));
    peer_until(&f.loop, has_given, &f);
    peer_expect(&f.loop, &p, HEAD);
    http_server_drain(f.server, on_drained, &f);
    peer_until(&f.loop, is_drained, &f);
    peer_send(&p, "alive");
    peer_expect(&f.loop, &p, "alive");
    http_server_close(f.server, on_closed, &f);
    peer_let_pass(&f.loop, 5);
    assert_false(f.closed);
    peer_send(&p, "still");
    peer_expect(&f.loop, &p, "still");
    stream_close(f.stream);
    peer_until(&f.loop, is_closed, &f);
    assert_int_equal(f.gone, 1);
    peer_close(&f.loop, &p, false);
    assert_int_equal(uv_loop_close(&f.loop), 0);
}

/* Against the bound of the server, and that of the address. */
static void goes_on_counting(void **state)
{
    (void)state;
    for (int by_address = 0; by_address < 2; by_address++) {
        struct peer_limit *peers = by_address ? peer_limit_create(1) : NULL;
        struct fixture f;
        struct peer first, second;

        start(&f, NULL, peers, by_address ? 10 : 1);
        peer_open(&f.loop, &first, f.port);
        peer_send(&first, ASK("/now"));
        peer_expect(&f.loop, &first, HEAD);
        peer_open(&f.loop, &second, f.port);
        if (by_address) {
            peer_until(&f.loop, peer_has_ended, &second);
            peer_close(&f.loop, &second, false);
        } else {
            peer_send(&second, ASK("/x"));
            peer_let_pass(&f.loop, 20);
            assert_int_equal(second.len, 0);
        }
        stream_close(f.stream);
        peer_until(&f.loop, is_alone, &f);
        if (by_address) {
            peer_open(&f.loop, &second, f.port);
            peer_send(&second, ASK("/x"));
        }
        peer_expect(&f.loop, &second, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        peer_close(&f.loop, &first, false);
        peer_close(&f.loop, &second, false);
        stop(&f);
        peer_limit_destroy(peers);
    }
}

static void upgrades_over_tls(void **state)
{
    struct tls_server *tls = make_server(TLS_CLIENT_NONE);
    struct fixture f;
    struct client c;

    (void)state;
    start(&f, tls, NULL, 10);
    client_open(&f.loop, f.port, &c, 0, ALL);
    client_say(&c, ASK("/now") "rest", strlen(ASK("/now") "rest"));
    client_expect(&f.loop, &c, HEAD "rest");
    assert_true(f.stream->ops->is_tls);
    client_say(&c, "more", 4);
    client_expect(&f.loop, &c, "more");
    http_server_close(f.server, on_closed, &f);
    client_say(&c, "after", 5);
    client_expect(&f.loop, &c, "after");
    stream_close(f.stream);
    peer_until(&f.loop, is_closed, &f);
    client_close(&f.loop, &c);
    assert_int_equal(uv_loop_close(&f.loop), 0);
    tls_server_destroy(tls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_away_what_was_read_behind),
        cmocka_unit_test(upgrades_later_too),
        cmocka_unit_test(survives_a_peer_that_leaves),
        cmocka_unit_test(outlives_drain_and_close),
        cmocka_unit_test(goes_on_counting),
        cmocka_unit_test(upgrades_over_tls),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
