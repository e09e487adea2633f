/*
 * Output of the HTTP server: http_response.h, and http_answer.c on a stream that takes only as many
 * bytes at once as the test allows, as sockets rarely do when asked to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "http_conn.h"
#include "http_response.h"
#include "mem.h"
#include "tables.h"

static const struct response_case {
    const char *name;
    struct http_response response;
    enum http_response_connection connection;
    bool no_body;
    const char *out;
} cases[] = {
    { "empty",
      { .status = 200 },
      HTTP_CONNECTION_UNSAID,
      false,
      "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" },
    { "all of it",
      { .status = 503,
        .content_type = "text/plain",
        .headers = "Retry-After: 1\r\nX: y\r\n",
        .body = { (const uint8_t *)"later", 5 } },
      HTTP_CONNECTION_CLOSE,
      false,
      "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: text/plain\r\n"
      "Retry-After: 1\r\nX: y\r\nContent-Length: 5\r\n\r\nlater" },
    { "told to keep",
      { .status = 409 },
      HTTP_CONNECTION_KEEP_ALIVE,
      false,
      "HTTP/1.1 409 Conflict\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n" },
    { "to a HEAD",
      { .status = 404, .body = { (const uint8_t *)"gone", 4 } },
      HTTP_CONNECTION_UNSAID,
      true,
      "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n" },
    { "204 has no length",
      { .status = 204, .body = { (const uint8_t *)"x", 1 } },
      HTTP_CONNECTION_UNSAID,
      false,
      "HTTP/1.1 204 No Content\r\n\r\n" },
    { "304 has no length",
      { .status = 304 },
      HTTP_CONNECTION_UNSAID,
      false,
      "HTTP/1.1 304 Not Modified\r\n\r\n" },
    { "unknown status",
      { .status = 599 },
      HTTP_CONNECTION_UNSAID,
      false,
      "HTTP/1.1 599 Unknown\r\nContent-Length: 0\r\n\r\n" },
};

static void writes_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        const struct response_case *c = &cases[i];
        size_t room = http_response_room(&c->response), len;
        uint8_t *out = malloc(room);

        assert_non_null(out);
        len = http_response_write(&c->response, c->connection, NULL, c->no_body, out);
        assert_true(len <= room);
        assert_true(
            table_span_equal((struct lonely_span){ out, len },
                             (struct lonely_span){ (const uint8_t *)c->out, strlen(c->out) }));
        free(out);
    }
}

/* A stream to nowhere. */
struct fake {
    struct stream stream;
    char out[1024];
    size_t len;
    size_t takes; /* bytes that try_send may still take */
    bool lost;    /* try_send says so */
    bool sending, read, shut, closed;
    const uint8_t *rest; /* of the send under way */
    size_t rest_len;
};

static void fake_read_start(struct stream *s)
{
    ((struct fake *)s)->read = true;
}

static void fake_read_stop(struct stream *s)
{
    ((struct fake *)s)->read = false;
}

static ptrdiff_t fake_try_send(struct stream *s, const struct lonely_span *parts, size_t count)
{
    struct fake *f = (struct fake *)s;
    size_t n = parts->len < f->takes ? parts->len : f->takes;

    assert_int_equal(count, 1);
    assert_false(f->sending);
    if (f->lost)
        return STREAM_LOST;
    memcpy(f->out + f->len, parts->ptr, n);
    f->len += n;
    f->takes -= n;
    return (ptrdiff_t)n;
}

static void fake_send(struct stream *s, const struct lonely_span *parts, size_t count)
{
    struct fake *f = (struct fake *)s;

    assert_int_equal(count, 1);
    assert_false(f->sending);
    f->sending = true;
    f->rest = parts->ptr;
    f->rest_len = parts->len;
}

/* The peer has taken the rest. */
static void fake_flush(struct fake *f)
{
    memcpy(f->out + f->len, f->rest, f->rest_len);
    f->len += f->rest_len;
    f->sending = false;
    f->stream.events->on_sent(f->stream.arg);
}

static void fake_shutdown(struct stream *s)
{
    assert_false(((struct fake *)s)->sending);
    ((struct fake *)s)->shut = true;
}

static void fake_close(struct stream *s)
{
    assert_false(((struct fake *)s)->closed);
    ((struct fake *)s)->closed = true;
}

static const struct stream_ops fake_ops = { .read_start = fake_read_start,
                                            .read_stop = fake_read_stop,
                                            .try_send = fake_try_send,
                                            .send = fake_send,
                                            .shutdown = fake_shutdown,
                                            .close = fake_close };

struct fixture {
    uv_loop_t loop;
    struct http_server *server;
    struct http_conn *conn;
    struct fake fake;
    struct http_exchange *x;
    unsigned requests, aborts, clock_reads;
    int64_t wall_ns;
    bool closed, drained;
};

static void on_piece(void *arg, struct lonely_span piece)
{
    (void)arg;
    (void)piece;
}

static void on_abort(void *arg)
{
    ((struct fixture *)arg)->aborts++;
}

static void answer(struct fixture *f)
{
    const struct http_response response = { .status = 200, .body = LIT("hello") };

    http_exchange_respond(f->x, &response);
}

static void on_end(void *arg)
{
    (void)arg;
}

static const struct http_body_ops body_ops = { on_piece, on_end, on_abort };

static void on_request(void *app, struct http_exchange *x)
{
    struct fixture *f = app;

    f->requests++;
    f->x = x;
    if (x->head.content_length > 0)
        http_exchange_read_body(x, &body_ops, f);
}

static void on_closed(void *arg)
{
    ((struct fixture *)arg)->closed = true;
}

static void start_with(struct fixture *f, uint64_t header_timeout_ms)
{
    const struct http_server_conf conf = { .header_timeout_ms = header_timeout_ms,
                                           .discard_bytes = 1000,
                                           .max_header_bytes = 1024,
                                           .max_connections = 10 };

    memset(f, 0, sizeof(*f));
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->server = http_server_create(&f->loop, &conf, on_request, f);
    f->conn = http_conn_create(f->server);
    f->fake.stream =
        (struct stream){ .ops = &fake_ops, .events = &http_conn_events, .arg = f->conn };
    http_conn_begin(f->conn, &f->fake.stream);
}

static void start(struct fixture *f)
{
    start_with(f, 60000);
}

static void come(struct fixture *f, const char *bytes)
{
    assert_true(f->fake.read);
    f->fake.stream.events->on_read(f->fake.stream.arg,
                                   (struct lonely_span){ (const uint8_t *)bytes, strlen(bytes) });
}

static void stop(struct fixture *f)
{
    http_server_close(f->server, on_closed, f);
    assert_true(f->fake.closed);
    if (f->fake.stream.arg != NULL)
        f->fake.stream.events->on_closed(f->fake.stream.arg);
    while (!f->closed)
        uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

#define GET    "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST   "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
#define ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
#define GO_ON  "HTTP/1.1 100 Continue\r\n\r\n"
#define LAST   "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
#define BAD    "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

static void assert_out(const struct fixture *f, const char *want)
{
    assert_int_equal(f->fake.len, strlen(want));
    assert_memory_equal(f->fake.out, want, strlen(want));
}

static void formats_dates(void **state)
{
    static const struct {
        int64_t unix_s;
        const char *text;
    } dates[] = {
        { 0, "Thu, 01 Jan 1970 00:00:00 GMT" },
        { 784111777, "Sun, 06 Nov 1994 08:49:37 GMT" },
        { 951782399, "Mon, 28 Feb 2000 23:59:59 GMT" },
        { 253402300799, "Fri, 31 Dec 9999 23:59:59 GMT" },
    };
    char text[HTTP_DATE_SIZE];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(dates); i++) {
        http_date_format(dates[i].unix_s, text);
        assert_string_equal(text, dates[i].text);
    }
}

static int64_t read_wall(void *arg)
{
    struct fixture *f = arg;

    f->clock_reads++;
    return f->wall_ns;
}

/* The clock is read, and the date made, once for all answers of a second. */
static void dates_its_answers(void **state)
{
#define DATED(second)                                         \
    "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:" second \
    " GMT\r\nContent-Length: 5\r\n\r\nhello"
    struct fixture f;
    const struct clock clock = { .wall_ns = read_wall, .arg = &f };

    (void)state;
    start(&f);
    f.server->conf.clock = &clock;
    f.wall_ns = 784111777600000000;
    f.fake.takes = sizeof(f.fake.out);
    for (int i = 0; i < 3; i++) {
        if (i == 2) { /* the second is over */
            assert_int_equal(f.server->date_until_ms, uv_now(&f.loop) + 400);
            f.wall_ns += 400000000;
            f.server->date_until_ms = uv_now(&f.loop);
        }
        come(&f, GET);
        answer(&f);
    }
    assert_out(&f, DATED("37") DATED("37") DATED("38"));
    assert_int_equal(f.clock_reads, 2);
    stop(&f);
}

/* However much of an answer leaves at once, the next request waits for the rest of it. */
static void sends_the_rest_later(void **state)
{
    (void)state;
    for (size_t takes = 0; takes <= strlen(ANSWER); takes++) {
        struct fixture f;

        start(&f);
        f.fake.takes = takes;
        come(&f, GET GET);
        answer(&f);
        uv_run(&f.loop, UV_RUN_NOWAIT);
        assert_int_equal(f.fake.len, takes);
        assert_int_equal(f.requests, takes < strlen(ANSWER) ? 1 : 2);
        f.fake.takes = 1000;
        if (f.fake.sending)
            fake_flush(&f.fake);
        uv_run(&f.loop, UV_RUN_NOWAIT);
        assert_int_equal(f.requests, 2);
        answer(&f);
        assert_out(&f, ANSWER ANSWER);
        stop(&f);
    }
}

/* An answer waits for the rest of its 100 Continue. */
static void answers_behind_an_unfinished_continue(void **state)
{
    (void)state;
    for (size_t takes = 0; takes <= strlen(GO_ON); takes++) {
        struct fixture f;

        start(&f);
        f.fake.takes = takes;
        come(&f, POST);
        assert_int_equal(f.fake.len, takes);
        answer(&f);
        f.fake.takes = takes % 2 == 0 ? 1000 : 3; /* the answer may be cut too */
        while (f.fake.sending)
            fake_flush(&f.fake);
        assert_out(&f, GO_ON ANSWER);
        come(&f, "ab" GET); /* the body is thrown away, the connection lives on */
        assert_int_equal(f.requests, 2);
        f.fake.takes = 1000;
        answer(&f);
        assert_out(&f, GO_ON ANSWER ANSWER);
        stop(&f);
    }
}

static void shuts_only_behind_a_whole_answer(void **state)
{
    (void)state;
    for (size_t takes = 0; takes <= strlen(BAD); takes++) {
        struct fixture f;

        start(&f);
        f.fake.takes = takes;
        come(&f, "GET /\r\n\r\n");
        assert_int_equal(f.fake.shut, takes == strlen(BAD));
        come(&f, "more nonsense");
        if (f.fake.sending)
            fake_flush(&f.fake);
        assert_out(&f, BAD);
        assert_true(f.fake.shut);
        assert_false(f.fake.closed);
        f.fake.stream.events->on_end(f.fake.stream.arg);
        assert_true(f.fake.closed);
        stop(&f);
    }
}

/* The peer ends its side while its answer waits, or leaves: the answer is sent whole, then closed. */
static void closes_only_behind_a_whole_answer(void **state)
{
    (void)state;
    for (size_t takes = 0; takes <= strlen(LAST); takes++) {
        struct fixture f;

        start(&f);
        come(&f, GET);
        f.fake.stream.events->on_end(f.fake.stream.arg);
        assert_false(f.fake.closed);
        f.fake.takes = takes;
        answer(&f);
        assert_int_equal(f.fake.closed, takes == strlen(LAST));
        if (f.fake.sending)
            fake_flush(&f.fake);
        assert_out(&f, LAST);
        assert_true(f.fake.closed);
        stop(&f);
    }
}

static void closes_a_lost_connection(void **state)
{
    struct fixture f;

    (void)state;
    start(&f); /* found when answering */
    come(&f, GET);
    f.fake.lost = true;
    answer(&f);
    assert_true(f.fake.closed);
    stop(&f);

    start(&f); /* found when sending the rest */
    come(&f, GET);
    answer(&f);
    assert_true(f.fake.sending);
    f.fake.stream.events->on_lost(f.fake.stream.arg);
    assert_true(f.fake.closed);
    stop(&f);

    start(&f); /* found by 100 Continue, told by reading on */
    f.fake.lost = true;
    come(&f, POST);
    assert_false(f.fake.closed);
    f.fake.stream.events->on_lost(f.fake.stream.arg);
    assert_true(f.fake.closed);
    assert_int_equal(f.aborts, 1);
    stop(&f);
}

static void stops_reading_while_an_answer_is_awaited(void **state)
{
    struct fixture f;

    (void)state;
    start(&f);
    f.fake.takes = 1000;
    come(&f, GET);
    assert_true(f.fake.read); /* nothing has come that would have to be kept */
    come(&f, GET);
    assert_false(f.fake.read);
    answer(&f);
    uv_run(&f.loop, UV_RUN_NOWAIT);
    assert_int_equal(f.requests, 2);
    answer(&f);
    uv_run(&f.loop, UV_RUN_NOWAIT);
    assert_true(f.fake.read);
    come(&f, GET GET); /* all at once */
    assert_false(f.fake.read);
    answer(&f);
    uv_run(&f.loop, UV_RUN_NOWAIT);
    answer(&f);
    uv_run(&f.loop, UV_RUN_NOWAIT);
    assert_true(f.fake.read);
    assert_int_equal(f.conn->kept.cap, 0); /* an idle connection holds no buffer */

    come(&f, POST);
    http_exchange_pause(f.x);
    assert_false(f.fake.read);
    http_exchange_resume(f.x);
    uv_run(&f.loop, UV_RUN_NOWAIT);
    assert_true(f.fake.read);
    stop(&f);
}

static void on_drained(void *arg)
{
    ((struct fixture *)arg)->drained = true;
}

static void closes_behind_an_answer_begun_before_the_drain(void **state)
{
    struct fixture f;

    (void)state;
    start(&f);
    come(&f, GET);
    answer(&f);
    http_server_drain(f.server, on_drained, &f);
    assert_false(f.fake.closed);
    fake_flush(&f.fake);
    assert_out(&f, ANSWER);
    assert_true(f.fake.closed);
    stop(&f);
}

static void does_not_linger_for_a_peer_that_has_ended(void **state)
{
    struct fixture f;

    (void)state;
    start(&f);
    come(&f, POST "a");
    answer(&f);
    f.fake.stream.events->on_end(f.fake.stream.arg);
    assert_false(f.fake.closed);
    fake_flush(&f.fake);
    assert_true(f.fake.closed);
    stop(&f);
}

static void gives_one_time_to_all_behind_an_answer(void **state)
{
    struct fixture f;
    uint64_t at_ms, now;

    (void)state;
    start(&f);
    come(&f, "GET /\r\n\r\n");
    assert_true(f.conn->due.set);
    at_ms = f.conn->due.at_ms;
    for (now = uv_now(&f.loop); uv_now(&f.loop) == now;)
        uv_update_time(&f.loop);
    fake_flush(&f.fake);
    assert_int_equal(f.conn->state, CONN_LINGER);
    assert_true(f.conn->due.set);
    assert_int_equal(f.conn->due.at_ms, at_ms);
    stop(&f);
}

/* What comes behind a refusal is no request, even while the refusal is still leaving. */
static void is_deaf_behind_a_refusal(void **state)
{
    struct fixture f;

    (void)state;
    start_with(&f, 1);
    come(&f, "GET / HTTP/1.1\r\n");
    while (!f.fake.sending)
        uv_run(&f.loop, UV_RUN_ONCE); /* 408 */
    come(&f, "Host: a\r\n\r\n");
    assert_int_equal(f.requests, 0);
    stop(&f);

    start(&f); /* nonsense in a body that is being thrown away */
    come(&f, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    answer(&f);
    come(&f, "nonsense");
    come(&f, "0\r\n\r\n" GET);
    assert_int_equal(f.requests, 1);
    fake_flush(&f.fake);
    assert_true(f.fake.shut);
    stop(&f);
}

static void forgets_a_closed_connection_that_was_to_be_looked_at(void **state)
{
    struct fixture f;

    (void)state;
    start(&f);
    f.fake.takes = 1000;
    come(&f, GET GET);
    answer(&f); /* the second request is now for the next turn */
    f.fake.stream.events->on_lost(f.fake.stream.arg);
    assert_true(f.fake.closed);
    f.fake.stream.events->on_closed(f.fake.stream.arg);
    f.fake.stream.arg = NULL;
    uv_run(&f.loop, UV_RUN_NOWAIT);
    assert_int_equal(f.requests, 1);
    assert_int_equal(http_server_connections(f.server), 0);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_answers),
        cmocka_unit_test(formats_dates),
        cmocka_unit_test(dates_its_answers),
        cmocka_unit_test(sends_the_rest_later),
        cmocka_unit_test(answers_behind_an_unfinished_continue),
        cmocka_unit_test(shuts_only_behind_a_whole_answer),
        cmocka_unit_test(closes_only_behind_a_whole_answer),
        cmocka_unit_test(closes_a_lost_connection),
        cmocka_unit_test(stops_reading_while_an_answer_is_awaited),
        cmocka_unit_test(closes_behind_an_answer_begun_before_the_drain),
        cmocka_unit_test(does_not_linger_for_a_peer_that_has_ended),
        cmocka_unit_test(gives_one_time_to_all_behind_an_answer),
        cmocka_unit_test(is_deaf_behind_a_refusal),
        cmocka_unit_test(forgets_a_closed_connection_that_was_to_be_looked_at),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
