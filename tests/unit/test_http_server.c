/* Requests and their answers on the HTTP server. How connections begin, last and end is in
 * test_http_server_life.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "http_server_fixture.h"

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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
