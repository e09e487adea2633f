/* Bodies that the HTTP client takes from a source, piece by piece. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "http_client_fixture.h"

/* How a body may be had: by libcurl, or by ourselves, from where it lies; NO_FILE is a descriptor from
 * which sendfile does not send. */
enum way { BY_CURL, FROM_MEMORY, FROM_FILE, FROM_NO_FILE, WAYS };

enum { CONTENT_BYTES = 20000000, CURL_READ_BYTES = 100000, LOOK_BYTES = 300000 };

static uint8_t content[CONTENT_BYTES];
static int content_fd, no_file_fds[2];

struct pipe_source {
    struct http_source source;
    struct fixture *f;
    uv_timer_t timer;
    struct http_call *call;
    enum way way;
    uint64_t fail_at;
    unsigned asked, reads, looks, waits;
    uint64_t wait_ms;
    bool always_ready, waiting;
};

static void on_source_ready(uv_timer_t *timer)
{
    struct pipe_source *s = timer->data;

    s->waiting = false;
    if (!s->f->result.done) /* else the call is gone, in this very turn */
        http_call_resume(s->call);
}

/* Every other time it waits. 0: it is there. */
static ptrdiff_t source_ask(struct pipe_source *s, uint64_t at)
{
    assert_false(s->waiting);
    assert_true(at < s->source.size);
    if (at >= s->fail_at)
        return HTTP_SOURCE_FAIL;
    if (s->always_ready || s->asked++ % 2 != 0)
        return 0;
    s->waiting = true;
    s->waits++;
    uv_timer_start(&s->timer, on_source_ready, s->wait_ms, 0);
    return HTTP_SOURCE_WAIT;
}

static ptrdiff_t source_read(void *arg, uint64_t at, uint8_t *to, size_t len)
{
    struct pipe_source *s = arg;
    ptrdiff_t asked = source_ask(s, at);

    s->reads++;
    assert_true(len >= 1 && at + len <= s->source.size);
    if (asked < 0)
        return asked;
    if (len > CURL_READ_BYTES)
        len = CURL_READ_BYTES;
    memcpy(to, content + at, len);
    return (ptrdiff_t)len;
}

static ptrdiff_t source_look(void *arg, uint64_t at, struct http_piece *piece)
{
    struct pipe_source *s = arg;
    ptrdiff_t asked = source_ask(s, at);
    uint64_t left = s->source.size - at;

    s->looks++;
    if (asked < 0)
        return asked;
    piece->ptr = s->way == FROM_MEMORY ? content + at : NULL;
    piece->fd = s->way == FROM_FILE ? content_fd : no_file_fds[0];
    return left < LOOK_BYTES ? (ptrdiff_t)left : LOOK_BYTES;
}

static void source_init(struct pipe_source *s, struct fixture *f, enum way way, uint64_t size)
{
    *s = (struct pipe_source){ .f = f, .way = way, .fail_at = UINT64_MAX };
    s->source = (struct http_source){ .size = size, .read = source_read, .arg = s };
    if (way != BY_CURL)
        s->source.look = source_look;
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
    static const uint64_t sizes[] = {
        0,     1,     1000,   16379,  16380,  16381,   65531,
        65532, 65533, 262139, 262140, 262141, 5000000, CONTENT_BYTES
    };
    struct fixture *f = *state;
    struct pipe_source s;

    for (size_t i = 0; i < 2 * WAYS * sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t size = sizes[i / (2 * WAYS)];
        enum way way = (enum way)(i / 2 % WAYS);
        bool large = size + 4 > HTTP_SMALL_BODY_BYTES;

        source_init(&s, f, way, size);
        s.always_ready = i % 2 != 0;
        source_post(&s, "/ok");
        assert_status(f, HTTP_CALL_REPLIED);
        assert_int_equal(f->server.body_len, size + 4);
        assert_true(f->server.body_good);
        assert_true(s.always_ready || size == 0 || s.waits > 0);
        assert_int_equal(s.looks > 0, large && way != BY_CURL);
        assert_int_equal(s.reads > 0,
                         size > 0 && (!large || way == BY_CURL || way == FROM_NO_FILE));
        source_fini(&s);
    }
    assert_int_equal(f->server.accepted, 2); /* ours, and libcurl's */
}

static void test_source_waits_longer_than_silence(void **state)
{
    struct fixture *f = *state;
    struct pipe_source s;

    f->conf.timeout_sock_read_ms = 50;
    for (enum way way = BY_CURL; way < WAYS; way++) {
        source_init(&s, f, way, 200000);
        s.wait_ms = 120;
        source_post(&s, "/ok");
        assert_status(f, HTTP_CALL_REPLIED);
        assert_int_equal(f->server.body_len, 200004);
        source_fini(&s);
    }
}

/* Resumed, the peer's time runs again. */
static void test_source_then_silence(void **state)
{
    struct fixture *f = *state;
    struct pipe_source s;

    f->conf.timeout_sock_read_ms = 50;
    for (enum way way = BY_CURL; way < WAYS; way++) {
        source_init(&s, f, way, 200000);
        source_post(&s, "/hang");
        assert_status(f, HTTP_CALL_TIMEOUT);
        source_fini(&s);
    }
}

static void test_source_total_timeout(void **state)
{
    struct fixture *f = *state;
    struct pipe_source s;

    f->conf.timeout_total_ms = 100;
    for (enum way way = BY_CURL; way < WAYS; way++) {
        source_init(&s, f, way, 200000);
        s.wait_ms = 10000;
        source_post(&s, "/ok");
        assert_status(f, HTTP_CALL_TIMEOUT);
        source_fini(&s);
    }
}

static void test_source_fails(void **state)
{
    static const uint64_t at[] = { 0, 1, 300000 };
    struct fixture *f = *state;
    struct pipe_source s;

    for (unsigned i = 0; i < 6 * WAYS; i++) {
        source_init(&s, f, (enum way)(i % WAYS), i / WAYS / 2 == 0 ? 100 : 1000000);
        s.fail_at = at[i / WAYS / 2];
        s.always_ready = i / WAYS % 2 != 0;
        source_post(&s, "/ok");
        assert_status(f, HTTP_CALL_BROKEN);
        assert_non_null(strstr(f->result.detail, "could not be read"));
        source_fini(&s);
    }
    assert_int_equal(f->server.requests, 0);
}

/* What the file lacks is asked for as a copy, which says that it cannot be had. */
static void test_file_too_short(void **state)
{
    struct fixture *f = *state;
    struct pipe_source s;

    assert_int_equal(ftruncate(content_fd, 500000), 0);
    source_init(&s, f, FROM_FILE, 1000000);
    s.always_ready = true;
    s.fail_at = 600000; /* LOOK_BYTES at a time: asked for at 300000, where 200000 are left */
    source_post(&s, "/ok");
    assert_status(f, HTTP_CALL_BROKEN);
    assert_non_null(strstr(f->result.detail, "could not be read"));
    assert_int_equal(f->server.requests, 0);
    source_fini(&s);
    assert_int_equal(pwrite(content_fd, content + 500000, CONTENT_BYTES - 500000, 500000),
                     CONTENT_BYTES - 500000);
}

/*
 * A reply that comes before all of the body has been sent: behind one that confirms the rest follows,
 * since the peer relies on it; behind an error nothing more. Neither connection is used again.
 */
static void test_early_reply(void **state)
{
    struct fixture *f = *state;
    struct pipe_source s;

    for (enum way way = BY_CURL; way < WAYS; way++) {
        source_init(&s, f, way, CONTENT_BYTES);
        source_post(&s, "/quick");
        assert_status(f, HTTP_CALL_REPLIED);
        assert_int_equal(f->result.http_status, 200);
        while (f->server.requests <= (unsigned)way)
            uv_run(&f->loop, UV_RUN_ONCE);
        assert_int_equal(f->server.body_len, CONTENT_BYTES + 4);
        assert_true(f->server.body_good);
        assert_true(list_is_empty(&f->client->idle));
        source_fini(&s);
    }
    for (enum way way = BY_CURL; way < WAYS; way++) {
        source_init(&s, f, way, CONTENT_BYTES);
        s.wait_ms = 1;
        source_post(&s, "/refuse");
        assert_status(f, HTTP_CALL_REPLIED);
        assert_int_equal(f->result.http_status, 503);
        assert_true(list_is_empty(&f->client->idle));
        source_fini(&s);
    }
    assert_int_equal(f->server.requests, WAYS);
}

/* It confirms, and goes without having read it all: that confirms nothing. */
static void test_early_reply_then_lost(void **state)
{
    struct fixture *f = *state;
    struct pipe_source s;

    for (enum way way = BY_CURL; way < WAYS; way++) {
        source_init(&s, f, way, CONTENT_BYTES);
        s.always_ready = true;
        source_post(&s, "/leave");
        assert_status(f, HTTP_CALL_BROKEN);
        assert_true(list_is_empty(&f->client->idle));
        source_fini(&s);
    }
}

/*
 * The server takes one request a connection, and resets it when a second one comes: that one is sent
 * again only if it cannot have been acted on, else the call is broken; the next one works.
 */
static void test_kept_connection_breaks(void **state)
{
    static const uint64_t sizes[] = { 10, 3000000 };
    struct fixture *f = *state;
    struct pipe_source s;

    for (unsigned i = 0; i < 8 * WAYS; i++) {
        source_init(&s, f, (enum way)(i / 8), sizes[i / 4 % 2]);
        s.always_ready = true;
        source_post(&s, "/once");
        source_fini(&s);
        if (f->result.status == HTTP_CALL_REPLIED) {
            assert_true(f->server.body_good);
            assert_int_equal(f->server.body_len, sizes[i / 4 % 2] + 4);
        } else {
            assert_status(f, HTTP_CALL_BROKEN);
            assert_true(i % 2 != 0);
        }
    }
    assert_in_range(f->server.requests, 4 * WAYS, 8 * WAYS);
}

static void prepare_content(void)
{
    for (uint64_t i = 0; i < CONTENT_BYTES; i++)
        content[i] = byte_at(i + 4);
    content_fd = memfd_create("content", MFD_CLOEXEC);
    if (content_fd < 0 || pwrite(content_fd, content, CONTENT_BYTES, 0) != CONTENT_BYTES ||
        pipe(no_file_fds) != 0)
        abort();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_source),
        TEST(test_source_waits_longer_than_silence),
        TEST(test_source_then_silence),
        TEST(test_source_total_timeout),
        TEST(test_source_fails),
        TEST(test_file_too_short),
        TEST(test_early_reply),
        TEST(test_early_reply_then_lost),
        TEST(test_kept_connection_breaks),
    };

    prepare_process();
    prepare_content();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
