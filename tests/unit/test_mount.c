/* Mounted requests with a scripted host and a scripted application (tests/mount_fixture.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mount_fixture.h"

#define UNKNOWN LONELY_EXCHANGE_LENGTH_UNKNOWN

static void header_is(const struct lonely_exchange_header *h, const char *name, const char *value)
{
    assert_int_equal(h->name.len, strlen(name));
    assert_memory_equal(h->name.ptr, name, h->name.len);
    assert_int_equal(h->value.len, strlen(value));
    assert_memory_equal(h->value.ptr, value, h->value.len);
}

static void answers_at_once(void **state)
{
    struct fixture f;
    struct lonely_exchange *x;
    const struct lonely_exchange_response *r;

    (void)state;
    fixture_open(&f, APP_ANSWERS, 10);
    x = fixture_begin(&f, "/p/v1/x?y", 0);
    assert_int_equal(lonely_exchange_state(x), LONELY_EXCHANGE_WAITS);
    assert_null(lonely_exchange_response(x));
    assert_true(lonely_exchange_wait(x));
    fixture_turn(&f);
    assert_int_equal(f.ready, 1);
    assert_false(lonely_exchange_wait(x));
    assert_int_equal(lonely_exchange_state(x), LONELY_EXCHANGE_ANSWERED);
    assert_string_equal(f.app.method, "POST");
    assert_string_equal(f.app.target, "/v1/x?y");
    assert_string_equal(f.app.mounted, "/p");
    assert_string_equal(f.app.host, "h:1");
    r = lonely_exchange_response(x);
    assert_int_equal(r->status, 204);
    assert_int_equal(r->header_count, 3);
    header_is(&r->headers[0], "X-One", "1");
    header_is(&r->headers[1], "X-Two", "two: 2");
    header_is(&r->headers[2], "Content-Type", "text/plain");
    lonely_exchange_free(x);
    fixture_fini(&f);
}

static void prefixes(void **state)
{
    static const struct {
        const char *target, *seen; /* NULL: 404 */
    } cases[] = {
        { "/p/v1/notify", "/v1/notify" },
        { "/p/", "/" },
        { "/p", NULL },
        { "/pp/v1", NULL },
        { "/", NULL },
        { "", NULL },
        { "p/v1", NULL },
        { "*", NULL },
        { "/%70/v1", NULL },
        { "http://h/p/v1", "/v1" },
        { "http://h", NULL },
        { "http://h/q/v1", NULL },
        { "https://h:1/p/a//b?c", "/a//b?c" },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct fixture f;
        struct lonely_exchange *x;

        fixture_open(&f, APP_ANSWERS, 10);
        x = fixture_begin(&f, cases[i].target, 0);
        fixture_turn(&f);
        assert_int_equal(status_of(x), cases[i].seen == NULL ? 404 : 204);
        assert_string_equal(f.app.target, cases[i].seen == NULL ? "" : cases[i].seen);
        lonely_exchange_free(x);
        fixture_fini(&f);
    }
    assert_true(mount_prefix_is_good(""));
    assert_true(mount_prefix_is_good("/a/b.c"));
    assert_false(mount_prefix_is_good("a"));
    assert_false(mount_prefix_is_good("/a?b"));
    assert_false(mount_prefix_is_good("/a b"));
}

/* Writes all of it in pieces, turning the loop when there is no room. */
static void write_in_pieces(struct fixture *f, struct lonely_exchange *x, const uint8_t *body,
                            size_t len, size_t piece)
{
    for (size_t at = 0; at < len;) {
        size_t n = len - at < piece ? len - at : piece;
        size_t taken = lonely_exchange_write(x, body + at, n);

        at += taken;
        if (taken < n) {
            assert_true(lonely_exchange_wait(x));
            f->ready = 0;
            fixture_turn(f);
            assert_int_equal(f->ready, 1);
        }
    }
}

static void bodies_in_pieces_of_every_size(void **state)
{
    static uint8_t body[1000000];
    const size_t sizes[] = { 1, 2, 3, 7, 100, 999, 1000 };

    (void)state;
    for (size_t i = 0; i < sizeof(body); i++)
        body[i] = (uint8_t)(i * 31 + i / 256);
    for (size_t i = 0; i < 2 * TABLE_LEN(sizes) + 4; i++) {
        bool small = i < 2 * TABLE_LEN(sizes);
        size_t len = small ? 1000 : sizeof(body);
        size_t piece = small ? sizes[i / 2] : i % 4 < 2 ? 65536 : sizeof(body);
        struct fixture f;
        struct lonely_exchange *x;

        fixture_open(&f, APP_READS, 10);
        x = fixture_begin(&f, "/p/", i % 2 == 0 ? len : UNKNOWN);
        assert_int_equal(lonely_exchange_write(x, body, 1), 0); /* nobody has asked for it */
        fixture_turn(&f);
        assert_int_equal(lonely_exchange_state(x), LONELY_EXCHANGE_READS);
        write_in_pieces(&f, x, body, len, piece);
        lonely_exchange_end(x);
        assert_true(lonely_exchange_wait(x));
        fixture_turn(&f);
        assert_int_equal(status_of(x), 200);
        assert_int_equal(f.app.len, len);
        assert_memory_equal(f.app.body, body, len);
        assert_int_equal(f.app.ends, 1);
        assert_true(f.app.largest <= LONELY_EXCHANGE_BUFFER);
        assert_memory_equal(lonely_exchange_response(x)->body.ptr, body, 8);
        lonely_exchange_free(x);
        fixture_fini(&f);
    }
}

static void empty_bodies(void **state)
{
    (void)state;
    for (int announced = 0; announced < 2; announced++) {
        struct fixture f;
        struct lonely_exchange *x;

        fixture_open(&f, APP_READS, 10);
        x = fixture_begin(&f, "/p/", announced ? 0 : UNKNOWN);
        fixture_turn(&f);
        assert_int_equal(f.app.ends, announced);
        lonely_exchange_end(x);
        fixture_turn(&f);
        assert_int_equal(f.app.ends, 1);
        assert_int_equal(status_of(x), 200);
        lonely_exchange_free(x);
        fixture_fini(&f);
    }
}

static void a_paused_application_holds_the_host_up(void **state)
{
    static const uint8_t bytes[100000];
    size_t sent = 0, taken, turns = 0;
    struct fixture f;
    struct lonely_exchange *x;

    (void)state;
    fixture_open(&f, APP_PAUSES, 10);
    x = fixture_begin(&f, "/p/", UNKNOWN);
    fixture_turn(&f);
    do {
        taken = lonely_exchange_write(x, bytes, sizeof(bytes));
        sent += taken;
        fixture_turn(&f);
    } while (taken > 0 && ++turns < 100);
    assert_true(sent <= 2 * LONELY_EXCHANGE_BUFFER); /* one looked at, one waiting */
    assert_true(sent >= LONELY_EXCHANGE_BUFFER);
    assert_int_equal(lonely_exchange_state(x), LONELY_EXCHANGE_WAITS);
    assert_true(lonely_exchange_wait(x));
    fixture_turn(&f);
    assert_int_equal(f.ready, 0);
    http_exchange_resume(f.app.x);
    http_exchange_resume(f.app.x);
    fixture_turn(&f);
    assert_int_equal(f.ready, 1);
    assert_int_equal(f.app.len, sent);
    lonely_exchange_end(x);
    fixture_turn(&f);
    assert_int_equal(f.app.ends, 0); /* the end waits, too: it was paused again */
    http_exchange_resume(f.app.x);
    fixture_turn(&f);
    assert_int_equal(f.app.ends, 1);
    assert_int_equal(status_of(x), 200);
    lonely_exchange_free(x);
    fixture_fini(&f);
}

static void bodies_of_another_size_than_announced(void **state)
{
    (void)state;
    for (int longer = 0; longer < 2; longer++) {
        struct fixture f;
        struct lonely_exchange *x;

        fixture_open(&f, APP_READS, 10);
        x = fixture_begin(&f, "/p/", 4);
        fixture_turn(&f);
        assert_int_equal(lonely_exchange_write(x, "abc", 3), 3);
        if (longer)
            assert_int_equal(lonely_exchange_write(x, "de", 2), 0);
        else
            lonely_exchange_end(x);
        assert_true(lonely_exchange_wait(x));
        fixture_turn(&f);
        assert_int_equal(f.ready, 1);
        assert_int_equal(status_of(x), 400);
        assert_int_equal(f.app.aborts, 1);
        assert_int_equal(f.app.ends, 0);
        lonely_exchange_free(x);
        fixture_fini(&f);
    }
}

static void an_early_answer_throws_the_rest_away(void **state)
{
    static const uint8_t bytes[600000];
    struct fixture f;
    struct lonely_exchange *x;

    (void)state;
    fixture_open(&f, APP_ANSWERS_EARLY, 10);
    x = fixture_begin(&f, "/p/", UNKNOWN);
    fixture_turn(&f);
    assert_int_equal(lonely_exchange_write(x, bytes, 10), 10);
    fixture_turn(&f);
    assert_int_equal(status_of(x), 413);
    assert_int_equal(lonely_exchange_write(x, bytes, sizeof(bytes)), sizeof(bytes));
    lonely_exchange_end(x);
    fixture_turn(&f);
    assert_int_equal(f.app.len, 10);
    assert_int_equal(f.app.ends + f.app.aborts, 0);
    lonely_exchange_free(x);
    fixture_fini(&f);
}

/* How far a request goes before something happens to it. */
enum point {
    POINT_NEW,
    POINT_ASKED,
    POINT_BODY,
    POINT_PIECE_UNSEEN,
    POINT_PAUSED,
    POINT_ENDED,
    POINT_ANSWERED,
    POINT_UPGRADES,
    POINTS
};

static struct lonely_exchange *go_to(struct fixture *f, enum point point)
{
    static const enum app_does does[POINTS] = { APP_READS,  APP_KEEPS,  APP_READS,   APP_READS,
                                                APP_PAUSES, APP_AWAITS, APP_ANSWERS, APP_UPGRADES };
    bool has_body = point >= POINT_BODY && point <= POINT_ENDED;
    struct lonely_exchange *x;

    fixture_open(f, does[point], 10);
    x = fixture_begin(f, "/p/", has_body ? 3 : 0);
    if (point == POINT_NEW)
        return x;
    fixture_turn(f);
    if (point >= POINT_PIECE_UNSEEN && has_body)
        assert_int_equal(lonely_exchange_write(x, "abc", 3), 3);
    if (point == POINT_PIECE_UNSEEN)
        return x;
    if (point == POINT_ENDED)
        lonely_exchange_end(x);
    fixture_turn(f);
    return x;
}

static void check_aborted(const struct fixture *f, enum point point)
{
    bool read = point == POINT_BODY || point == POINT_PIECE_UNSEEN || point == POINT_PAUSED;

    assert_int_equal(f->app.heads, point == POINT_NEW ? 0 : 1);
    assert_int_equal(f->app.aborts, read ? 1 : 0);
    assert_int_equal(f->app.losses, point == POINT_UPGRADES ? 1 : 0);
    assert_int_equal(f->app.ends, point == POINT_ENDED ? 1 : 0);
}

/* An answer into nothing. */
static void answer_late(struct fixture *f, enum point point)
{
    assert_int_equal(f->app.x != NULL, point == POINT_ASKED || point == POINT_ENDED);
    if (f->app.x != NULL)
        app_answer(&f->app, 200);
}

static void the_host_leaves_at_every_point(void **state)
{
    (void)state;
    for (enum point point = POINT_NEW; point < POINTS; point++) {
        struct fixture f;
        struct lonely_exchange *x = go_to(&f, point);
        bool waits = lonely_exchange_wait(x);

        lonely_exchange_free(x);
        fixture_turn(&f);
        assert_int_equal(f.ready, 0);
        assert_int_equal(waits, point != POINT_ANSWERED && point != POINT_UPGRADES &&
                                    point != POINT_BODY && point != POINT_PIECE_UNSEEN &&
                                    point != POINT_PAUSED);
        check_aborted(&f, point);
        answer_late(&f, point);
        fixture_fini(&f);
    }
}

static void the_application_goes_at_every_point(void **state)
{
    (void)state;
    for (enum point point = POINT_NEW; point < POINTS; point++) {
        struct fixture f;
        struct lonely_exchange *x = go_to(&f, point);
        bool waits = lonely_exchange_wait(x);
        int status = point == POINT_ANSWERED ? 204 : point == POINT_UPGRADES ? 101 : 503;

        fixture_close_port(&f);
        assert_true(f.closed);
        assert_int_equal(f.ready, waits);
        assert_int_equal(status_of(x), status);
        assert_int_equal(lonely_exchange_write(x, "d", 1), 1);
        lonely_exchange_end(x);
        check_aborted(&f, point);
        if (point % 2 == 0)
            answer_late(&f, point);
        lonely_exchange_free(x);
        if (point % 2 == 1)
            answer_late(&f, point);
        x = fixture_begin(&f, "/p/", 0);
        assert_int_equal(status_of(x), 503);
        lonely_exchange_free(x);
        fixture_fini(&f);
    }
}

/* The same, with nobody looking between closing and freeing. */
static void both_go_at_every_point(void **state)
{
    (void)state;
    for (enum point point = POINT_NEW; point < POINTS; point++) {
        struct fixture f;
        struct lonely_exchange *x = go_to(&f, point);

        lonely_exchange_free(x);
        fixture_close_port(&f);
        check_aborted(&f, point);
        answer_late(&f, point);
        fixture_fini(&f);
    }
}

static void on_ready_may_free(void **state)
{
    struct fixture f;
    struct lonely_exchange *x;

    (void)state;
    fixture_open(&f, APP_READS, 10);
    f.free_when_ready = x = fixture_begin(&f, "/p/", 5);
    assert_true(lonely_exchange_wait(x));
    fixture_turn(&f);
    assert_int_equal(f.ready, 1);
    assert_int_equal(f.app.aborts, 1);
    f.app.does = APP_ANSWERS;
    f.free_when_ready = x = fixture_begin(&f, "/p/", 0);
    assert_true(lonely_exchange_wait(x));
    fixture_turn(&f);
    assert_int_equal(f.ready, 2);
    fixture_fini(&f);
}

static void heads_have_bounds(void **state)
{
    static uint8_t big[LONELY_EXCHANGE_HEAD_MAX];
    static struct lonely_exchange_header headers[LONELY_EXCHANGE_HEADERS_MAX + 1];
    const struct {
        size_t value, count;
        int status;
    } cases[] = {
        { LONELY_EXCHANGE_HEAD_MAX - 9, 1, 204 },    { LONELY_EXCHANGE_HEAD_MAX - 8, 1, 431 },
        { LONELY_EXCHANGE_HEAD_MAX, 1, 431 },        { 0, LONELY_EXCHANGE_HEADERS_MAX, 204 },
        { 0, LONELY_EXCHANGE_HEADERS_MAX + 1, 431 },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct fixture f;
        struct lonely_exchange *x;
        const struct lonely_exchange_request request = {
            .method = text_span("POST"),
            .target = text_span("/p/x"),
            .headers = headers,
            .header_count = cases[i].count,
        };

        headers[0] = (struct lonely_exchange_header){ text_span("N"), { big, cases[i].value } };
        fixture_open(&f, APP_ANSWERS, 10);
        x = lonely_mount_begin(f.mount, &request, fixture_on_ready, &f);
        fixture_turn(&f);
        assert_int_equal(status_of(x), cases[i].status);
        lonely_exchange_free(x);
        fixture_fini(&f);
    }
}

static void only_so_many_at_once(void **state)
{
    struct fixture f;
    struct lonely_exchange *a, *b, *c;

    (void)state;
    fixture_open(&f, APP_ANSWERS, 2);
    a = fixture_begin(&f, "/p/", 0);
    b = fixture_begin(&f, "/p/", 0);
    c = fixture_begin(&f, "/p/", 0);
    fixture_turn(&f);
    assert_int_equal(status_of(a), 204);
    assert_int_equal(status_of(b), 204);
    assert_int_equal(status_of(c), 503);
    header_is(&lonely_exchange_response(c)->headers[0], "Retry-After", "1");
    lonely_exchange_free(c);
    lonely_exchange_free(a);
    a = fixture_begin(&f, "/p/", 0);
    fixture_turn(&f);
    assert_int_equal(status_of(a), 204);
    lonely_exchange_free(a);
    lonely_exchange_free(b);
    fixture_fini(&f);
}

static void draining(void **state)
{
    struct fixture f;
    struct lonely_exchange *x, *late;

    (void)state;
    fixture_open(&f, APP_READS, 10);
    x = fixture_begin(&f, "/p/", 3);
    fixture_turn(&f);
    mount_port_drain(f.port, fixture_on_drained, &f);
    late = fixture_begin(&f, "/p/", 3);
    assert_int_equal(status_of(late), 503);
    lonely_exchange_free(late);
    fixture_turn(&f);
    assert_int_equal(f.drained, 0);
    assert_int_equal(lonely_exchange_write(x, "abc", 3), 3);
    lonely_exchange_end(x);
    fixture_turn(&f);
    assert_int_equal(f.drained, 1); /* its answer may still be looked at */
    assert_int_equal(status_of(x), 200);
    lonely_exchange_free(x);
    fixture_turn(&f);
    assert_int_equal(f.drained, 1);
    fixture_fini(&f);

    fixture_open(&f, APP_READS, 10); /* with nothing under way */
    mount_port_drain(f.port, fixture_on_drained, &f);
    assert_int_equal(f.drained, 0);
    fixture_turn(&f);
    assert_int_equal(f.drained, 1);
    fixture_fini(&f);
}

/* ---- Upgrades ---- */

static int pair_open(int *theirs)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *theirs = fds[1];
    return fds[0];
}

static void a_socket_is_given_away(void **state)
{
    struct fixture f;
    struct lonely_exchange *x;
    char echo[8] = "";
    int theirs, ours;

    (void)state;
    fixture_open(&f, APP_UPGRADES, 1);
    ours = pair_open(&theirs);
    x = fixture_begin(&f, "/p/", 0);
    assert_true(lonely_exchange_wait(x));
    fixture_turn(&f);
    assert_int_equal(f.ready, 1);
    assert_int_equal(lonely_exchange_state(x), LONELY_EXCHANGE_UPGRADES);
    header_is(&lonely_exchange_response(x)->headers[0], "Upgrade", "x");
    assert_true(lonely_exchange_upgrade(x, ours, text_span("behind the head")));
    fixture_turn(&f);
    assert_int_equal(f.app.upgrades, 1);
    assert_string_equal(f.app.rest, "behind the head");
    assert_int_equal(write(theirs, "ping", 4), 4);
    fixture_turn(&f);
    assert_int_equal(read(theirs, echo, sizeof(echo)), 4);
    assert_string_equal(echo, "ping");
    x = fixture_begin(&f, "/p/", 0); /* it counts */
    assert_int_equal(status_of(x), 503);
    lonely_exchange_free(x);
    close(theirs);
    fixture_turn(&f);
    assert_true(f.app.stream_closed);
    x = fixture_begin(&f, "/p/", 0);
    fixture_turn(&f);
    assert_int_equal(status_of(x), 101);
    lonely_exchange_free(x);
    fixture_turn(&f);
    assert_int_equal(f.app.losses, 1);
    fixture_fini(&f);
}

static void a_socket_is_refused(void **state)
{
    static uint8_t big[LONELY_EXCHANGE_BUFFER + 1];

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct fixture f;
        struct lonely_exchange *x;
        struct lonely_span rest = { big, i == 0 ? sizeof(big) : 0 };
        int theirs, ours;

        fixture_open(&f, i == 1 ? APP_ANSWERS : APP_UPGRADES, 10);
        x = fixture_begin(&f, "/p/", 0);
        fixture_turn(&f);
        if (i == 2)
            fixture_close_port(&f);
        ours = pair_open(&theirs);
        assert_false(lonely_exchange_upgrade(x, ours, rest));
        assert_int_equal(read(theirs, big, 1), 0); /* closed */
        close(theirs);
        fixture_turn(&f);
        assert_int_equal(f.app.losses, i == 1 ? 0 : 1);
        fixture_fini(&f);
    }
}

/* Given, but not yet taken; and taken, with its user still there: the port waits for it. */
static void closing_with_sockets(void **state)
{
    (void)state;
    for (int taken = 0; taken < 2; taken++) {
        struct fixture f;
        struct lonely_exchange *x;
        int theirs, ours;

        fixture_open(&f, APP_UPGRADES, 10);
        ours = pair_open(&theirs);
        x = fixture_begin(&f, "/p/", 0);
        fixture_turn(&f);
        assert_true(lonely_exchange_upgrade(x, ours, text_span("")));
        if (taken)
            fixture_turn(&f);
        mount_port_close(f.port, fixture_on_closed, &f);
        fixture_turn(&f);
        assert_int_equal(f.closed, !taken);
        assert_int_equal(f.app.losses, !taken);
        close(theirs);
        uv_run(&f.loop, UV_RUN_DEFAULT);
        assert_true(f.closed);
        fixture_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_at_once),
        cmocka_unit_test(prefixes),
        cmocka_unit_test(bodies_in_pieces_of_every_size),
        cmocka_unit_test(empty_bodies),
        cmocka_unit_test(a_paused_application_holds_the_host_up),
        cmocka_unit_test(bodies_of_another_size_than_announced),
        cmocka_unit_test(an_early_answer_throws_the_rest_away),
        cmocka_unit_test(the_host_leaves_at_every_point),
        cmocka_unit_test(the_application_goes_at_every_point),
        cmocka_unit_test(both_go_at_every_point),
        cmocka_unit_test(on_ready_may_free),
        cmocka_unit_test(heads_have_bounds),
        cmocka_unit_test(only_so_many_at_once),
        cmocka_unit_test(draining),
        cmocka_unit_test(a_socket_is_given_away),
        cmocka_unit_test(a_socket_is_refused),
        cmocka_unit_test(closing_with_sockets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
