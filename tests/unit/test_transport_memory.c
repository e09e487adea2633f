/*
 * Transports without memory: the first allocation that a peer, or a long output, makes necessary fails,
 * then the second, and so on. The connection ends; nothing else does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "transport_fake.h"

void *__real_mem_try_alloc(size_t size);
void *__wrap_mem_try_alloc(size_t size);

static unsigned fails_after; /* allocations that succeed; UINT_MAX: all */

void *__wrap_mem_try_alloc(size_t size)
{
    if (fails_after == 0)
        return NULL;
    if (fails_after != UINT_MAX)
        fails_after--;
    return __real_mem_try_alloc(size);
}

static const struct transport_conf conf = { .max_frame_bytes = 1 << 20,
                                            .close_timeout_ms = 60000,
                                            .low_water_bytes = 1000 };

/* false: it needed no more allocations than it got. */
static bool put_with(enum transport_kind kind, unsigned allocations)
{
    static uint8_t body[100000];
    struct user u;
    uint8_t *to;
    bool failed;

    user_open(&u, &conf, kind, TRANSPORT_SERVER);
    fails_after = allocations;
    transport_frame(u.t, 3 * sizeof body + 60000);
    transport_put(u.t, (struct lonely_span){ body, sizeof body });
    transport_put_shared(u.t, (struct lonely_span){ body, sizeof body }, user_release, &u);
    to = transport_reserve(u.t, 60000);
    if (to != NULL) {
        memset(to, 0, 60000);
        transport_commit(u.t, 60000);
    }
    transport_put(u.t, (struct lonely_span){ body, sizeof body });
    assert_string_equal(u.log, ""); /* not inside of a call */
    failed = fails_after == 0 && allocations != UINT_MAX;
    fails_after = UINT_MAX;
    user_turn(&u);
    assert_int_equal(u.released, 1);
    if (strstr(u.log, "end") == NULL)
        failed = false;
    else
        assert_non_null(strstr(u.log, "end 1013;"));
    if (failed) {
        transport_close(u.t, TRANSPORT_OVERLOAD);
        user_turn(&u);
        assert_true(u.fake.shut); /* no close frame within the frame that is cut */
        assert_true(u.fake.len < 3 * sizeof body + 60000);
    }
    user_close(&u);
    return failed;
}

static void ends_when_a_whole_frame_finds_no_memory(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct user u;

        user_open(&u, &conf, (enum transport_kind)kind, TRANSPORT_SERVER);
        fails_after = 0;
        transport_put_frame(u.t, LIT("frame"));
        transport_put_frame(u.t, LIT("frame"));
        assert_string_equal(u.log, ""); /* not inside of a call */
        fails_after = UINT_MAX;
        user_turn(&u);
        assert_non_null(strstr(u.log, "end 1013;"));
        assert_int_equal(u.fake.len, 0);
        user_close(&u);
    }
}

static void ends_when_output_finds_no_memory(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        unsigned n = 0;

        while (put_with((enum transport_kind)kind, n))
            n++;
        assert_in_range(n, 4, 20);
    }
}

static void ends_when_input_cannot_be_kept(void **state)
{
    struct user u;

    (void)state;
    user_open(&u, &conf, TRANSPORT_TCP, TRANSPORT_SERVER);
    u.stop_at_piece = true;
    fails_after = 0;
    user_come(&u, "\0\0\0\4abcd\0\0\0\4efgh", 16);
    fails_after = UINT_MAX;
    user_turn(&u);
    assert_string_equal(u.log, "[61626364]end 1013;");
    user_close(&u);
}

static void ends_when_the_rest_cannot_be_kept(void **state)
{
    struct user u;

    (void)state;
    user_init(&u, &conf);
    u.fake.stream.ops = &fake_ops;
    u.fake.takes = SIZE_MAX;
    fails_after = 0;
    u.t = transport_open(u.group, &u.fake.stream, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER,
                         LIT("\x82\x80\0\0\0\0"), &user_events, &u);
    fails_after = UINT_MAX;
    transport_read_start(u.t);
    assert_string_equal(u.log, "");
    user_turn(&u);
    assert_string_equal(u.log, "end 1013;");
    assert_int_equal(u.fake.len, 4); /* told so */
    assert_memory_equal(u.fake.out, "\x88\2\3\xf5", 4);
    user_close(&u);
}

/* A pong that cannot be queued is not sent now. */
static void does_without_a_pong(void **state)
{
    struct user u;

    (void)state;
    user_open(&u, &conf, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
    fails_after = 0;
    user_come(&u, "\x89\x80\0\0\0\0", 6);
    fails_after = UINT_MAX;
    user_turn(&u);
    assert_string_equal(u.log, "");
    assert_int_equal(u.fake.len, 2); /* but in the end of the turn */
    user_close(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_when_output_finds_no_memory),
        cmocka_unit_test(ends_when_a_whole_frame_finds_no_memory),
        cmocka_unit_test(ends_when_input_cannot_be_kept),
        cmocka_unit_test(ends_when_the_rest_cannot_be_kept),
        cmocka_unit_test(does_without_a_pong),
    };

    fails_after = UINT_MAX;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
