/*
 * Our own rows and the way of messages to the sessions, over the memory store: the test lets each call to
 * the store go on, or fail, when it likes. Two workers on one thread, so that every order of events can be
 * made; several threads are in test_forwarding_threads.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "forwarding.h"
#include "forwarding_fixture.h"
#include "tables.h"

/* ---- The store: calls wait for the test ---- */

static bool hold; /* else they go on at once */
static bool refuse;

struct held {
    struct list node;
    struct store_client *client;
    struct store_row row;
    bool insert;
    store_done_fn *done;
    void *arg;
    uint8_t key[10000];
};
static struct list held_calls = LIST_INIT(held_calls);
static size_t under_way; /* let go on, not yet answered */
static size_t inserts, deletes, sets;

static void on_call_done(void *arg, enum store_status status)
{
    struct held *h = arg;

    under_way--;
    h->done(h->arg, status);
    mem_free(h);
}

static void call(struct store_client *c, const struct store_row *row, bool insert,
                 store_done_fn *done, void *arg)
{
    struct held *h = mem_calloc(1, sizeof(*h));

    *(insert ? &inserts : &deletes) += 1;
    h->client = c;
    h->row = *row;
    h->row.key.ptr = h->key;
    assert_true(row->key.len <= sizeof(h->key));
    memcpy(h->key, row->key.ptr, row->key.len);
    h->insert = insert;
    h->done = done;
    h->arg = arg;
    list_push_back(&held_calls, &h->node);
}

static void subscribe(struct store_client *c, const struct store_row *row, store_done_fn *done,
                      void *arg)
{
    call(c, row, true, done, arg);
}

static void unsubscribe(struct store_client *c, const struct store_row *row, store_done_fn *done,
                        void *arg)
{
    call(c, row, false, done, arg);
}

static void set(struct store_client *c, struct lonely_span url, const struct store_list *list,
                store_done_fn *done, void *arg)
{
    sets++;
    store_memory.set(c, url, list, done, arg);
}

/* The oldest call that waits goes on, or fails. false: there is none. */
static bool next_call(bool fails)
{
    struct list *node = list_pop_front(&held_calls);
    struct held *h;

    if (node == NULL)
        return false;
    h = list_entry(node, struct held, node);
    under_way++;
    if (fails)
        on_call_done(h, STORE_UNAVAILABLE);
    else if (h->insert)
        store_memory.subscribe(h->client, &h->row, on_call_done, h);
    else
        store_memory.unsubscribe(h->client, &h->row, on_call_done, h);
    return true;
}

/* Until nothing more happens. */
static void settle(struct forwarding_fixture *t)
{
    do {
        fixture_turn(t);
    } while (under_way > 0 || (!hold && next_call(refuse)));
}

/* ---- What is asked ---- */

struct answer {
    unsigned times;
    enum store_status status;
};

static void on_answer(void *arg, enum store_status status)
{
    struct answer *a = arg;

    a->times++;
    a->status = status;
}

static void on_count(void *arg, uint32_t count)
{
    uint32_t *out = arg;

    assert_int_equal(*out, UINT32_MAX);
    *out = count;
}

static void add(struct forwarding_fixture *t, size_t worker, enum store_kind kind, const char *key,
                struct answer *a)
{
    *a = (struct answer){ 0 };
    forwarding_add(t->f, &t->workers[worker], kind, fixture_text(key), on_answer, a);
}

static void take_away(struct forwarding_fixture *t, size_t worker, enum store_kind kind,
                      const char *key, struct answer *a)
{
    *a = (struct answer){ 0 };
    forwarding_remove(t->f, &t->workers[worker], kind, fixture_text(key), on_answer, a);
}

static void assert_answer(const struct answer *a, enum store_status status)
{
    assert_int_equal(a->times, 1);
    assert_int_equal(a->status, status);
}

static uint32_t match(struct forwarding_fixture *t, const char *topic)
{
    uint32_t n = UINT32_MAX;

    forwarding_match(t->f, &t->workers[0], fixture_text(topic), on_count, &n);
    fixture_turn(t);
    return n;
}

/* Is there a row of ours? */
static bool is_stored(struct forwarding_fixture *t, enum store_kind kind, const char *key)
{
    return fixture_has_row(t, fixture_url, kind, key);
}

static void do_sweep(struct forwarding_fixture *t)
{
    forwarding_sweep(t->f, &t->workers[0]);
    settle(t);
}

static int set_up(void **state)
{
    struct forwarding_fixture *t = fixture_create(2);

    t->ops.subscribe = subscribe;
    t->ops.unsubscribe = unsubscribe;
    t->ops.set = set;
    hold = refuse = false;
    inserts = deletes = sets = 0;
    *state = t;
    return 0;
}

static int tear_down(void **state)
{
    struct forwarding_fixture *t = *state;

    hold = refuse = false;
    settle(t);
    for (size_t i = 0; i < t->count; i++)
        assert_int_equal(t->workers[i].holds, 0);
    fixture_destroy(t);
    return 0;
}

/* ---- Rows ---- */

static void test_first_and_last(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a, b, c;

    add(t, 0, STORE_EXACT, "x", &a);
    assert_int_equal(a.times, 0); /* not before it is stored */
    settle(t);
    assert_answer(&a, STORE_OK);
    assert_true(is_stored(t, STORE_EXACT, "x"));
    add(t, 1, STORE_EXACT, "x", &b);
    assert_answer(&b, STORE_OK); /* it is there */
    assert_int_equal(inserts, 1);
    take_away(t, 0, STORE_EXACT, "x", &a);
    assert_answer(&a, STORE_OK);
    assert_true(is_stored(t, STORE_EXACT, "x"));
    take_away(t, 1, STORE_EXACT, "x", &c);
    assert_int_equal(c.times, 0);
    settle(t);
    assert_answer(&c, STORE_OK);
    assert_false(is_stored(t, STORE_EXACT, "x"));
    assert_int_equal(inserts, 1);
    assert_int_equal(deletes, 1);
}

static void test_kinds_are_apart(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a;

    add(t, 0, STORE_GLOB, "x*", &a);
    settle(t);
    assert_true(is_stored(t, STORE_GLOB, "x*"));
    assert_false(is_stored(t, STORE_EXACT, "x*"));
    add(t, 0, STORE_EXACT, "x*", &a);
    settle(t);
    take_away(t, 0, STORE_GLOB, "x*", &a);
    settle(t);
    assert_true(is_stored(t, STORE_EXACT, "x*"));
    assert_false(is_stored(t, STORE_GLOB, "x*"));
    forwarding_remove(t->f, &t->workers[0], STORE_EXACT, fixture_text("x*"), NULL, NULL);
    settle(t);
    assert_false(is_stored(t, STORE_EXACT, "x*"));
}

/* All that come while it is being stored are told together, each on its worker. */
static void test_waits_for_the_first(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a, b, c;

    hold = true;
    add(t, 0, STORE_EXACT, "x", &a);
    add(t, 1, STORE_EXACT, "x", &b);
    add(t, 0, STORE_EXACT, "x", &c);
    settle(t);
    assert_int_equal(a.times + b.times + c.times, 0);
    assert_int_equal(inserts, 1);
    assert_true(next_call(false));
    settle(t);
    assert_answer(&a, STORE_OK);
    assert_answer(&b, STORE_OK);
    assert_answer(&c, STORE_OK);
    hold = false;
    for (int i = 0; i < 3; i++) {
        assert_true(is_stored(t, STORE_EXACT, "x"));
        take_away(t, 0, STORE_EXACT, "x", &a);
        settle(t);
    }
    assert_false(is_stored(t, STORE_EXACT, "x"));
}

/* Who comes while it is being removed has it stored again. */
static void test_comes_back(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a, left, b;

    add(t, 0, STORE_EXACT, "x", &a);
    settle(t);
    hold = true;
    take_away(t, 0, STORE_EXACT, "x", &left);
    add(t, 1, STORE_EXACT, "x", &b);
    settle(t);
    assert_int_equal(left.times + b.times, 0);
    hold = false;
    settle(t);
    assert_answer(&left, STORE_OK);
    assert_answer(&b, STORE_OK);
    assert_true(is_stored(t, STORE_EXACT, "x"));
    take_away(t, 1, STORE_EXACT, "x", &a);
    settle(t);
}

static void test_row_was_there(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a;

    fixture_put_row(t, fixture_url, STORE_EXACT, "x");
    add(t, 0, STORE_EXACT, "x", &a);
    settle(t);
    assert_answer(&a, STORE_OK);
    do_sweep(t);
    assert_true(is_stored(t, STORE_EXACT, "x"));
    take_away(t, 0, STORE_EXACT, "x", &a);
    settle(t);
    assert_answer(&a, STORE_OK);
    assert_false(is_stored(t, STORE_EXACT, "x"));
}

static void test_store_fails(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a, b;

    refuse = true;
    add(t, 0, STORE_GLOB, "x*", &a);
    add(t, 1, STORE_GLOB, "x*", &b);
    settle(t);
    assert_answer(&a, STORE_UNAVAILABLE);
    assert_answer(&b, STORE_UNAVAILABLE);
    assert_int_equal(match(t, "xy"), 0); /* nothing was counted */
    refuse = false;
    add(t, 0, STORE_GLOB, "x*", &a);
    settle(t);
    assert_answer(&a, STORE_OK);
    refuse = true;
    take_away(t, 0, STORE_GLOB, "x*", &a);
    settle(t);
    assert_answer(&a, STORE_UNAVAILABLE);
    assert_true(is_stored(t, STORE_GLOB, "x*"));
    refuse = false;
    do_sweep(t); /* sees to it */
    assert_false(is_stored(t, STORE_GLOB, "x*"));
}

/* Removing failed, and somebody wants it again. */
static void test_store_fails_and_comes_back(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a, left, b;

    add(t, 0, STORE_EXACT, "x", &a);
    settle(t);
    hold = true;
    take_away(t, 0, STORE_EXACT, "x", &left);
    add(t, 1, STORE_EXACT, "x", &b);
    assert_true(next_call(true));
    settle(t);
    assert_answer(&left, STORE_OK); /* it is nobody's wish any more */
    hold = false;
    settle(t);
    assert_answer(&b, STORE_OK);
    assert_true(is_stored(t, STORE_EXACT, "x"));
    take_away(t, 1, STORE_EXACT, "x", &a);
    settle(t);
    assert_false(is_stored(t, STORE_EXACT, "x"));
}

static void test_puts_back_what_was_deleted(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a;

    add(t, 0, STORE_EXACT, "x", &a);
    add(t, 0, STORE_GLOB, "y*", &a);
    settle(t);
    do_sweep(t);
    assert_int_equal(inserts, 2); /* nothing to do */
    fixture_drop_row(t, fixture_url, STORE_EXACT, "x");
    fixture_drop_row(t, fixture_url, STORE_GLOB, "y*");
    refuse = true;
    do_sweep(t);
    assert_false(is_stored(t, STORE_EXACT, "x"));
    refuse = false;
    do_sweep(t); /* again and again */
    assert_true(is_stored(t, STORE_EXACT, "x"));
    assert_true(is_stored(t, STORE_GLOB, "y*"));
    assert_int_equal(match(t, "x"), 1);
    take_away(t, 0, STORE_EXACT, "x", &a);
    take_away(t, 0, STORE_GLOB, "y*", &a);
    settle(t);
    assert_false(is_stored(t, STORE_EXACT, "x"));
}

/* The last one leaves while a deleted row is being put back. */
static void test_leaves_during_repair(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a, b;

    add(t, 0, STORE_EXACT, "x", &a);
    settle(t);
    fixture_drop_row(t, fixture_url, STORE_EXACT, "x");
    hold = true;
    do_sweep(t);
    take_away(t, 0, STORE_EXACT, "x", &a);
    add(t, 1, STORE_EXACT, "x", &b);
    assert_int_equal(a.times, 0);
    hold = false;
    settle(t);
    assert_answer(&a, STORE_OK);
    assert_answer(&b, STORE_OK);
    assert_true(is_stored(t, STORE_EXACT, "x"));
    fixture_drop_row(t, fixture_url, STORE_EXACT, "x");
    hold = true;
    do_sweep(t);
    take_away(t, 1, STORE_EXACT, "x", &b);
    assert_true(next_call(true));
    settle(t);
    assert_answer(&b, STORE_OK); /* it is not there */
    assert_false(is_stored(t, STORE_EXACT, "x"));
}

/* What a crash left behind, or somebody put there. Rows of others stay. */
static void test_removes_what_nobody_wants(void **state)
{
    struct forwarding_fixture *t = *state;

    fixture_put_row(t, fixture_url, STORE_EXACT, "x");
    fixture_put_row(t, fixture_url, STORE_GLOB, "y*");
    fixture_put_row(t, "http://192.0.2.1/v1/receive", STORE_EXACT, "x");
    do_sweep(t);
    assert_false(is_stored(t, STORE_EXACT, "x"));
    assert_false(is_stored(t, STORE_GLOB, "y*"));
    assert_true(fixture_has_row(t, "http://192.0.2.1/v1/receive", STORE_EXACT, "x"));
}

/* ---- The end ---- */

static void on_ended(void *arg)
{
    *(unsigned *)arg += 1;
}

static void test_end(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a, b;
    unsigned ended = 0;

    add(t, 0, STORE_EXACT, "x", &a);
    add(t, 0, STORE_GLOB, "y*", &a);
    settle(t);
    fixture_put_row(t, fixture_url, STORE_EXACT, "left over");
    hold = true;
    add(t, 1, STORE_EXACT, "late", &a);
    forwarding_end(t->f, &t->workers[0], on_ended, &ended);
    settle(t);
    assert_int_equal(ended, 0); /* what is under way comes first */
    add(t, 1, STORE_EXACT, "later", &b);
    assert_answer(&b, STORE_UNAVAILABLE);
    hold = false;
    settle(t);
    assert_answer(&a, STORE_UNAVAILABLE);
    fixture_wait(t, &ended, 1);
    assert_int_equal(sets, 1);
    assert_int_equal(index_counts(t->b.index).exacts + index_counts(t->b.index).globs, 0);
    take_away(t, 0, STORE_EXACT, "x", &a); /* the sessions go after it */
    assert_answer(&a, STORE_OK);
    do_sweep(t);
    assert_int_equal(inserts, 3);
}

/* Who came while a row was being removed is told, too: a worker waits for them. */
static void test_end_during_removal(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a, left, b;
    unsigned ended = 0;

    add(t, 0, STORE_EXACT, "x", &a);
    settle(t);
    hold = true;
    take_away(t, 0, STORE_EXACT, "x", &left);
    add(t, 1, STORE_EXACT, "x", &b);
    forwarding_end(t->f, &t->workers[0], on_ended, &ended);
    hold = false;
    settle(t);
    assert_answer(&left, STORE_OK);
    assert_answer(&b, STORE_UNAVAILABLE);
    fixture_wait(t, &ended, 1);
    assert_int_equal(t->workers[1].holds, 0);
}

static void test_end_of_nothing(void **state)
{
    struct forwarding_fixture *t = *state;
    unsigned ended = 0;

    forwarding_end(t->f, &t->workers[0], on_ended, &ended);
    fixture_wait(t, &ended, 1);
}

/* ---- Messages ---- */

static void test_match(void **state)
{
    struct forwarding_fixture *t = *state;
    struct answer a;

    assert_int_equal(match(t, "x"), 0);
    hold = true;
    add(t, 1, STORE_EXACT, "x", &a);
    add(t, 1, STORE_GLOB, "y?z", &a);
    assert_int_equal(match(t, "x"), 1); /* before the row is stored: a peer may be quicker */
    assert_int_equal(match(t, "y-z"), 1);
    assert_int_equal(match(t, "yz"), 0);
    hold = false;
    settle(t);
    assert_int_equal(match(t, "x"), 1);
    take_away(t, 1, STORE_EXACT, "x", &a);
    take_away(t, 1, STORE_GLOB, "y?z", &a);
    settle(t);
    assert_int_equal(match(t, "x"), 0);
    assert_int_equal(match(t, "y-z"), 0);
}

static void test_deliver_to_all_workers(void **state)
{
    struct forwarding_fixture *t = *state;
    struct fixture_session here, there, glob;
    uint32_t n = UINT32_MAX;

    fixture_join(t, 0, &here, STORE_EXACT, "a/b");
    fixture_join(t, 1, &there, STORE_EXACT, "a/b");
    fixture_join(t, 1, &glob, STORE_GLOB, "a/*");
    settle(t);
    assert_int_equal(fixture_deliver(t, 0, "a/b"), 3);
    assert_int_equal(fixture_deliver(t, 1, "a/b"), 3);
    assert_int_equal(fixture_deliver(t, 0, "a/c"), 1);
    assert_int_equal(fixture_deliver(t, 1, "b"), 0);
    assert_int_equal(here.messages, 2);
    assert_int_equal(there.messages, 2);
    assert_int_equal(glob.messages, 3);
    forwarding_missed(t->f, &t->workers[0], fixture_text("a/c"), on_count, &n);
    fixture_turn(t);
    assert_int_equal(n, 1);
    assert_int_equal(glob.missed, 1);
    fixture_leave(t, 0, &here);
    fixture_leave(t, 1, &there);
    fixture_leave(t, 1, &glob);
    settle(t);
    assert_int_equal(fixture_deliver(t, 0, "a/b"), 0);
}

/* A worker that is gone takes nothing and is waited for by nobody. */
static void test_deliver_to_a_closed_worker(void **state)
{
    struct forwarding_fixture *t = *state;
    struct fixture_session here, there;

    fixture_join(t, 0, &here, STORE_EXACT, "a");
    fixture_join(t, 1, &there, STORE_EXACT, "a");
    settle(t);
    mailbox_close(&t->workers[1].mailbox);
    assert_int_equal(fixture_deliver(t, 0, "a"), 1);
    fixture_leave(t, 0, &here);
    receivers_leave(t->workers[1].receivers, &there.r);
    settle(t);
}

/* A pattern and a topic that take millions of steps: in the pool, and the others go on. */
static void test_long_match(void **state)
{
    struct forwarding_fixture *t = *state;
    struct fixture_session s;
    uint32_t slow = UINT32_MAX, slower = UINT32_MAX, stopped = UINT32_MAX;
    static char glob[3000], a[10000];
    struct lonely_span topic = { memset(a, 'a', sizeof(a)), sizeof(a) };

    strcpy(glob, "*");
    while (strlen(glob) < 2400)
        strcat(glob, "[a]");
    fixture_join(t, 0, &s, STORE_GLOB, strcat(glob, "[b]"));
    settle(t);
    forwarding_match(t->f, &t->workers[0], topic, on_count, &slow);
    forwarding_deliver(t->f, &t->workers[0], topic, t->body, on_count, &slower);
    assert_int_equal(slow, UINT32_MAX);
    assert_int_equal(fixture_deliver(t, 0, "a?a?"), 0);
    fixture_wait(t, &slower, 0);
    assert_int_equal(slow, 0);
    atomic_store(&t->workers[0].stopping, true);
    forwarding_match(t->f, &t->workers[0], topic, on_count, &stopped);
    fixture_wait(t, &stopped, 1); /* not known: nobody is to unsubscribe us for that */
    atomic_store(&t->workers[0].stopping, false);
    fixture_leave(t, 0, &s);
}

static void test_own_url(void **state)
{
    struct forwarding_fixture *t = *state;
    static const char *const others[] = { "", "http://192.0.2.9:3003/v1/receive_for_websocket",
                                          "http://192.0.2.9:3004/v1/receive_for_websockets" };

    assert_true(forwarding_is_own(t->f, fixture_text(fixture_url)));
    for (size_t i = 0; i < TABLE_LEN(others); i++)
        assert_false(forwarding_is_own(t->f, fixture_text(others[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_first_and_last),
        TEST(test_kinds_are_apart),
        TEST(test_waits_for_the_first),
        TEST(test_comes_back),
        TEST(test_row_was_there),
        TEST(test_store_fails),
        TEST(test_store_fails_and_comes_back),
        TEST(test_puts_back_what_was_deleted),
        TEST(test_leaves_during_repair),
        TEST(test_removes_what_nobody_wants),
        TEST(test_end),
        TEST(test_end_during_removal),
        TEST(test_end_of_nothing),
        TEST(test_match),
        TEST(test_deliver_to_all_workers),
        TEST(test_deliver_to_a_closed_worker),
        TEST(test_long_match),
        TEST(test_own_url),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
