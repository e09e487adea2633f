/*
 * The HTTP client's own way, without libcurl: which connections it uses again, and for whom.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "http_client_fixture.h"

static size_t count_idle(const struct fixture *f)
{
    size_t n = 0;

    list_foreach (&f->client->idle, node, next)
        n++;
    return n;
}

/* A reply that says, or has, more than it should is taken; its connection is not used again. */
static void test_not_kept(void **state)
{
    static const char *const paths[] = { "/more", "/last", "/older", "/eof" };
    struct fixture *f = *state;

    for (unsigned i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        post_and_wait(f, paths[i], NULL);
        assert_status(f, HTTP_CALL_REPLIED);
        assert_int_equal(f->result.http_status, 200);
        assert_memory_equal(f->result.body, "hello", 5);
        assert_int_equal(f->server.accepted, i + 1);
        assert_int_equal(count_idle(f), 0);
    }
    post_and_wait(f, "/ok", NULL);
    assert_int_equal(f->result.http_status, 200);
    assert_int_equal(count_idle(f), 1);
}

/* What could be read in two ways is not a reply. */
static void test_ambiguous(void **state)
{
    static const char *const paths[] = { "/both", "/two", "/switch" };
    struct fixture *f = *state;

    for (unsigned i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        post_and_wait(f, paths[i], NULL);
        assert_status(f, HTTP_CALL_BROKEN);
        assert_int_equal(count_idle(f), 0);
    }
}

/* The detail is the socket's reason; and a reply that came before the reset counts. */
static void test_reset(void **state)
{
    struct fixture *f = *state;

    post_and_wait(f, "/ok", NULL); /* the next one goes without libcurl */
    post_and_wait(f, "/parting", NULL);
    assert_status(f, HTTP_CALL_REPLIED);
    assert_int_equal(f->result.http_status, 200);
    post_and_wait(f, "/ok", NULL);
    post_and_wait(f, "/begun", NULL);
    assert_status(f, HTTP_CALL_BROKEN);
    assert_non_null(strstr(f->result.detail, uv_strerror(UV_ECONNRESET)));
}

/* Bytes that come while nothing was asked end the connection. */
static void test_talks_out_of_turn(void **state)
{
    struct fixture *f = *state;

    post_and_wait(f, "/late", NULL);
    assert_int_equal(count_idle(f), 1);
    while (count_idle(f) > 0)
        uv_run(&f->loop, UV_RUN_ONCE);
    post_and_wait(f, "/ok", NULL);
    assert_status(f, HTTP_CALL_REPLIED);
    assert_int_equal(f->server.accepted, 2);
}

/* The same host is the same, however it is spelled; another port is another. */
static void test_origins(void **state)
{
    static const char *const urls[] = { "http://localhost:PORT/ok", "HTTP://LocalHost:PORT/ok",
                                        "http://localhost:PORT?x", "http://localhost:PORT" };
    struct fixture *f = *state;

    for (unsigned i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        post_and_wait(f, urls[i], NULL);
        assert_status(f, HTTP_CALL_REPLIED);
        assert_non_null(
            strstr(f->server.head, i == 1 ? "\r\nHost: LocalHost:" : "\r\nHost: localhost:"));
        assert_ptr_equal(strstr(f->server.head, i < 2    ? "POST /ok HTTP/1.1\r\n"
                                                : i == 2 ? "POST /?x HTTP/1.1\r\n"
                                                         : "POST / HTTP/1.1\r\n"),
                         f->server.head);
    }
    assert_int_equal(f->server.accepted, 1);
    post_and_wait(f, "/ok", NULL);
    assert_int_equal(f->server.accepted, 2);
    assert_int_equal(f->client->origins.count, 2);
}

/* What this way does not do is left to libcurl. */
static void test_left_to_libcurl(void **state)
{
    static const char *const lines[] = { "Accept: x/y", "Host: other", "Connection: close",
                                         "User-Agent: me" };
    static const char *const urls[] = { "http://user@127.0.0.1:PORT/ok",
                                        "http://%31%32%37.0.0.1:PORT/ok" };
    struct fixture *f = *state;
    struct http_call_request request;

    for (unsigned i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        request = (struct http_call_request){ .headers = &lines[i], .header_count = 1 };
        post_and_wait(f, "/ok", &request);
        assert_status(f, HTTP_CALL_REPLIED);
        assert_non_null(strstr(f->server.head, lines[i]));
        assert_int_equal(f->client->origins.count, 0);
    }
    for (unsigned i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        post_and_wait(f, urls[i], NULL);
        assert_status(f, HTTP_CALL_REPLIED);
        assert_int_equal(f->client->origins.count, 0);
    }
}

static void count_replied(void *arg, const struct http_reply *reply)
{
    assert_int_equal(reply->status, HTTP_CALL_REPLIED);
    ++*(unsigned *)arg;
}

/* Half of max_connections are kept. */
static void test_bound_of_idle(void **state)
{
    struct fixture *f = *state;
    struct http_call_request request = { 0 };
    unsigned replied = 0;
    char url[64];

    f->conf.max_connections = 6;
    client_start(f);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/ok", f->server.port);
    request.url = url;
    for (unsigned round = 1; round <= 2; round++) {
        for (unsigned i = 0; i < 6; i++)
            http_client_post(f->client, &request, count_replied, &replied);
        while (replied < 6 * round)
            uv_run(&f->loop, UV_RUN_ONCE);
        assert_int_equal(count_idle(f), 3);
        assert_int_equal(f->client->direct_count, 3);
        assert_int_equal(f->server.accepted, round == 1 ? 6 : 9);
    }
    http_client_forget_connections(f->client);
    assert_int_equal(count_idle(f), 0);
    assert_int_equal(f->client->origins.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_not_kept),          TEST(test_ambiguous), TEST(test_reset),
        TEST(test_talks_out_of_turn), TEST(test_origins),   TEST(test_left_to_libcurl),
        TEST(test_bound_of_idle),
    };

    prepare_process();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
