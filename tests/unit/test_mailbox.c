/*
 * Letters between loops: in order, from several threads, and none lost at the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mailbox.h"
#include "mem.h"

enum { POSTERS = 4, LETTERS = 5000 };

struct note {
    struct letter letter; /* first */
    unsigned poster, number;
    struct reader *reader;
};

struct reader {
    uv_loop_t loop;
    struct mailbox mailbox;
    unsigned next[POSTERS]; /* the number that comes next */
    unsigned opened;
    unsigned close_at; /* after so many letters */
};

struct poster {
    uv_thread_t thread;
    struct reader *reader;
    struct note *notes;
    unsigned number, posted;
};

static void on_open(struct letter *l)
{
    struct note *n = (struct note *)l;
    struct reader *r = n->reader;

    assert_int_equal(n->number, r->next[n->poster]);
    r->next[n->poster]++;
    if (++r->opened == r->close_at)
        mailbox_close(&r->mailbox);
}

static void post_all(void *arg)
{
    struct poster *p = arg;

    for (unsigned i = 0; i < LETTERS; i++) {
        p->notes[i] = (struct note){ { .open = on_open }, p->number, i, p->reader };
        if (!mailbox_post(&p->reader->mailbox, &p->notes[i].letter))
            return;
        p->posted++;
    }
}

/* Closed after the last letter, or in the middle: what was posted is opened, and nothing else. */
static void run(unsigned close_at)
{
    struct reader r = { .close_at = close_at };
    struct poster posters[POSTERS];
    unsigned posted = 0;

    assert_int_equal(uv_loop_init(&r.loop), 0);
    assert_int_equal(mailbox_init(&r.mailbox, &r.loop), 0);
    for (unsigned i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){ .reader = &r, .number = i };
        posters[i].notes = mem_calloc(LETTERS, sizeof(struct note));
        assert_int_equal(uv_thread_create(&posters[i].thread, post_all, &posters[i]), 0);
    }
    assert_int_equal(uv_run(&r.loop, UV_RUN_DEFAULT), 0);
    for (unsigned i = 0; i < POSTERS; i++) {
        uv_thread_join(&posters[i].thread);
        posted += posters[i].posted;
        mem_free(posters[i].notes);
    }
    assert_int_equal(r.opened, posted);
    assert_true(posted >= close_at);
    assert_int_equal(uv_loop_close(&r.loop), 0);
    mailbox_fini(&r.mailbox);
}

static void test_all_arrive(void **state)
{
    (void)state;
    run(POSTERS * LETTERS);
}

static void test_closed_in_the_middle(void **state)
{
    (void)state;
    for (unsigned close_at = 1; close_at < LETTERS; close_at *= 7)
        run(close_at);
}

static void test_letters_that_are_never_read(void **state)
{
    struct reader r = { .close_at = 0 };
    struct note n = { { .open = on_open }, 0, 0, &r };

    (void)state;
    assert_int_equal(uv_loop_init(&r.loop), 0);
    assert_int_equal(mailbox_init(&r.mailbox, &r.loop), 0);
    assert_true(mailbox_post(&r.mailbox, &n.letter));
    mailbox_close(&r.mailbox); /* opens it */
    assert_int_equal(r.opened, 1);
    assert_false(mailbox_post(&r.mailbox, &n.letter));
    uv_run(&r.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&r.loop), 0);
    mailbox_fini(&r.mailbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_arrive),
        cmocka_unit_test(test_closed_in_the_middle),
        cmocka_unit_test(test_letters_that_are_never_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
