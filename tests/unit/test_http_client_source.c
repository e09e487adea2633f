/* Bodies that the HTTP client takes from a source, piece by piece. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "http_client_fixture.h"

struct pipe_source {
    struct http_source source;
    struct fixture *f;
    uv_timer_t timer;
    struct http_call *call;
    uint64_t fail_at;
    unsigned reads, waits;
    uint64_t wait_ms;
    bool always_ready, waiting;
};

static void on_source_ready(uv_timer_t *timer)
{
    struct pipe_source *s = timer->data;

    s->waiting = false;
    http_call_resume(s->call);
}

/* Every other read waits. */
static ptrdiff_t source_read(void *arg, uint64_t at, uint8_t *to, size_t len)
{
    struct pipe_source *s = arg;

    assert_false(s->waiting);
    assert_true(len >= 1 && at + len <= s->source.size);
    if (at >= s->fail_at)
        return HTTP_SOURCE_FAIL;
    if (!s->always_ready && s->reads++ % 2 == 0) {
        s->waiting = true;
        s->waits++;
        uv_timer_start(&s->timer, on_source_ready, s->wait_ms, 0);
        return HTTP_SOURCE_WAIT;
    }
    if (len > 100000)
        len = 100000;
    for (size_t i = 0; i < len; i++)
        to[i] = byte_at(at + i + 4);
    return (ptrdiff_t)len;
}

static void source_init(struct pipe_source *s, struct fixture *f, uint64_t size)
{
    *s = (struct pipe_source){ .f = f, .fail_at = UINT64_MAX };
    s->source = (struct http_source){ .size = size, .read = source_read, .arg = s };
    uv_timer_init(&f->loop, &s->timer);
    s->timer.data = s;
}

static void source_post(struct pipe_source *s, const char *path)
{
    static const uint8_t prefix[] = { 0, 31, 62, 93 };
    struct http_call_request request = { .prefix = { prefix, sizeof prefix },
                                         .source = &s->source };

    s->call = post(s->f, path, &request);
    wait_done(s->f);
    uv_timer_stop(&s->timer);
    s->waiting = false;
}

static void source_fini(struct pipe_source *s)
{
    uv_close((uv_handle_t *)&s->timer, NULL);
    uv_run(&s->f->loop, UV_RUN_NOWAIT);
}

static void test_source(void **state)
{
    static const uint64_t sizes[] = { 0,     1,     1000,   16379,  16380,  16381,   65531,
                                      65532, 65533, 262139, 262140, 262141, 5000000, 20000000 };
    struct fixture *f = *state;
    struct pipe_source s;

    for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t size = sizes[i / 2];

        source_init(&s, f, size);
        s.always_ready = i % 2 != 0;
        source_post(&s, "/ok");
        assert_status(f, HTTP_CALL_REPLIED);
        assert_int_equal(f->server.body_len, size + 4);
        assert_true(f->server.body_good);
        assert_true(s.always_ready || size == 0 || s.waits > 0);
        source_fini(&s);
    }
    assert_int_equal(f->server.accepted, 2); /* of small bodies, and of libcurl */
}

static void test_source_waits_longer_than_silence(void **state)
{
    struct fixture *f = *state;
    struct pipe_source s;

    f->conf.timeout_sock_read_ms = 50;
    source_init(&s, f, 200000);
    s.wait_ms = 120;
    source_post(&s, "/ok");
    assert_status(f, HTTP_CALL_REPLIED);
    assert_int_equal(f->server.body_len, 200004);
    source_fini(&s);
}

static void test_source_total_timeout(void **state)
{
    struct fixture *f = *state;
    struct pipe_source s;

    f->conf.timeout_total_ms = 100;
    source_init(&s, f, 200000);
    s.wait_ms = 10000;
    source_post(&s, "/ok");
    assert_status(f, HTTP_CALL_TIMEOUT);
    source_fini(&s);
}

static void test_source_fails(void **state)
{
    static const uint64_t at[] = { 0, 1, 300000 };
    struct fixture *f = *state;
    struct pipe_source s;

    for (size_t i = 0; i < 6; i++) {
        source_init(&s, f, i / 2 == 0 ? 100 : 1000000);
        s.fail_at = at[i / 2];
        s.always_ready = i % 2 != 0;
        source_post(&s, "/ok");
        assert_status(f, HTTP_CALL_BROKEN);
        assert_non_null(strstr(f->result.detail, "could not be read"));
        source_fini(&s);
    }
    assert_int_equal(f->server.requests, 0);
}

/*
 * The server takes one request a connection, and resets it when a second one comes: libcurl sends
 * that one again only if it cannot have been acted on, else the call is broken; the next one works.
 */
static void test_kept_connection_breaks(void **state)
{
    static const uint64_t sizes[] = { 10, 3000000 };
    struct fixture *f = *state;
    struct pipe_source s;

    for (unsigned i = 0; i < 8; i++) {
        source_init(&s, f, sizes[i / 4]);
        s.always_ready = true;
        source_post(&s, "/once");
        source_fini(&s);
        if (f->result.status == HTTP_CALL_REPLIED) {
            assert_true(f->server.body_good);
            assert_int_equal(f->server.body_len, sizes[i / 4] + 4);
        } else {
            assert_status(f, HTTP_CALL_BROKEN);
            assert_true(i % 2 != 0);
        }
    }
    assert_in_range(f->server.requests, 4, 8);
}
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_source),
        TEST(test_source_waits_longer_than_silence),
        TEST(test_source_total_timeout),
        TEST(test_source_fails),
        TEST(test_kept_connection_breaks),
    };

    prepare_process();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
