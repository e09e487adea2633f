/* Deadlines by one timer: deadline.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#include "deadline.h"

#define COUNT 6

static struct fixture {
    uv_loop_t loop;
    struct deadlines all;
    struct deadline d[COUNT];
    unsigned fired[2 * COUNT], kinds[2 * COUNT], count; /* which, in order */
    struct deadline *clears;                            /* by the first that fires */
    bool closed;
} f;

static void on_due(void *arg, unsigned kind, struct deadline *d)
{
    assert_ptr_equal(arg, &f);
    assert_false(d->set);
    assert_true(uv_now(&f.loop) >= d->at_ms);
    f.fired[f.count] = (unsigned)(d - f.d);
    f.kinds[f.count++] = kind;
    if (f.clears != NULL)
        deadline_clear(f.clears);
    f.clears = NULL;
}

static int set_up(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    assert_int_equal(uv_loop_init(&f.loop), 0);
    deadlines_init(&f.all, &f.loop, on_due, &f);
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    assert_ptr_equal(handle->data, &f);
    f.closed = true;
}

static int tear_down(void **state)
{
    (void)state;
    deadlines_close(&f.all, on_closed);
    while (!f.closed)
        uv_run(&f.loop, UV_RUN_ONCE);
    return uv_loop_close(&f.loop);
}

/* The loop ends by itself once no deadline is left. */
static void run_and_expect(const char *order)
{
    uv_run(&f.loop, UV_RUN_DEFAULT);
    assert_int_equal(f.count, strlen(order));
    for (unsigned i = 0; i < f.count; i++)
        assert_int_equal(f.fired[i], order[i] - '0');
}

static void fires_in_order_whatever_the_order_of_setting(void **state)
{
    static const uint64_t after_ms[COUNT] = { 20, 5, 30, 10, 1, 25 };

    (void)state;
    for (unsigned i = 0; i < COUNT; i++)
        deadline_set(&f.all, 3, &f.d[i], after_ms[i]);
    run_and_expect("413052");
}

static void kinds_do_not_wait_for_each_other(void **state)
{
    (void)state;
    deadline_set(&f.all, 0, &f.d[0], 20);
    deadline_set(&f.all, DEADLINE_KINDS - 1, &f.d[1], 2);
    deadline_set(&f.all, 1, &f.d[2], 10);
    run_and_expect("120");
    assert_int_equal(f.kinds[0], DEADLINE_KINDS - 1);
    assert_int_equal(f.kinds[1], 1);
    assert_int_equal(f.kinds[2], 0);
}

static void setting_again_moves(void **state)
{
    (void)state;
    deadline_set(&f.all, 0, &f.d[0], 1);
    deadline_set(&f.all, 0, &f.d[1], 5);
    deadline_set(&f.all, 1, &f.d[0], 15);
    run_and_expect("10");
    assert_int_equal(f.kinds[1], 1);
}

static void cleared_ones_do_not_fire(void **state)
{
    (void)state;
    deadline_clear(&f.d[5]); /* never set */
    deadline_set(&f.all, 0, &f.d[0], 1);
    deadline_set(&f.all, 0, &f.d[1], 1);
    deadline_set(&f.all, 0, &f.d[2], 1);
    deadline_set(&f.all, 0, &f.d[3], 1);
    deadline_set(&f.all, 0, &f.d[0], 0);
    f.clears = &f.d[2]; /* while they fire */
    run_and_expect("13");
    assert_false(f.d[0].set);
}

/* As if the process had been stopped. */
static void stall(uint64_t ms)
{
    uint64_t end_ns = uv_hrtime() + ms * 1000000;

    while (uv_hrtime() < end_ns)
        ;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    deadline_clear(&f.d[0]);
    uv_close((uv_handle_t *)poll, NULL);
}

/* What came in time counts, although the timer would be first; what did not come is still due. */
static void sockets_come_before_a_late_timer(void **state)
{
    uv_poll_t poll;
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(uv_poll_init(&f.loop, &poll, ends[0]), 0);
    assert_int_equal(uv_poll_start(&poll, UV_READABLE, on_readable), 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    deadline_set(&f.all, 0, &f.d[0], 5);
    deadline_set(&f.all, 1, &f.d[1], 6);
    stall(5 + DEADLINE_SLACK_MS + 50);
    run_and_expect("1");
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(fires_in_order_whatever_the_order_of_setting, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(kinds_do_not_wait_for_each_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(setting_again_moves, set_up, tear_down),
        cmocka_unit_test_setup_teardown(cleared_ones_do_not_fire, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sockets_come_before_a_late_timer, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
