/* Connections of the HTTP server: the cap, draining and closing, peers that are slow or leave, a lack
 * of descriptors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <sys/resource.h>

#include "http_server_fixture.h"

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
