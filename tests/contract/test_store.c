/*
 * The contract of store.h, held against every backend. What only the SQLite file can show is in
 * test_store_sqlite.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mem.h"
#include "store_fixture.h"
#include "tables.h"

#define EXACT(u, k, r)       \
    {                        \
        STORE_EXACT, u, k, r \
    }
#define GLOB(u, k, r)       \
    {                       \
        STORE_GLOB, u, k, r \
    }
#define NO      \
    {           \
        NULL, 0 \
    }

static const struct lonely_span url_a = { (const uint8_t *)"http://a/", 9 };
static const struct lonely_span url_b = { (const uint8_t *)"http://b/", 9 };
static const struct lonely_span rec_1 = { (const uint8_t *)"http://r/1", 10 };
static const struct lonely_span rec_2 = { (const uint8_t *)"http://r/2", 10 };

static struct store_row exact(struct lonely_span url, const char *key, struct lonely_span recovery)
{
    return (struct store_row){ STORE_EXACT, url, span_of(key), recovery };
}

static struct store_row glob(struct lonely_span url, const char *key, struct lonely_span recovery)
{
    return (struct store_row){ STORE_GLOB, url, span_of(key), recovery };
}

static const struct lonely_span none = { NULL, 0 };

static int setup(void **state)
{
    struct fixture *f = mem_alloc(sizeof *f);

    fixture_init(f, *state);
    fixture_open(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(*state);
    mem_free(*state);
    return 0;
}

static void assert_etag(struct fixture *f, struct lonely_span url)
{
    uint8_t got[64], want[64];

    assert_int_equal(do_sync(f), STORE_OK);
    model_etag(&f->model, url, want);
    assert_int_equal(do_check(f, url, got), STORE_OK);
    assert_memory_equal(got, want, 64);
}

/* --- one row -------------------------------------------------------------------------------- */

static void test_names(void **state)
{
    struct fixture *f = *state;

    assert_ptr_equal(store_find(f->ops->name), f->ops);
    assert_null(store_find("no such backend"));
    for (int status = STORE_OK; status <= STORE_PENDING; status++)
        assert_string_not_equal(store_status_str((enum store_status)status), "unknown status");
    assert_string_equal(store_status_str((enum store_status)99), "unknown status");
}

enum action { SUB, UNSUB };

static void test_statuses(void **state)
{
    static uint8_t long_text[65535];
    struct fixture *f = *state;
    struct lonely_span longest = { long_text, sizeof long_text };
    const struct status_case {
        enum action action;
        struct store_row row;
        enum store_status status;
    } cases[] = {
        { SUB, exact(url_a, "t", none), STORE_OK },
        { SUB, exact(url_a, "t", none), STORE_CONFLICT },
        { SUB, exact(url_a, "t", rec_1), STORE_CONFLICT },
        { SUB, glob(url_a, "t", none), STORE_OK }, /* another subscription than the topic t */
        { SUB, glob(url_a, "t", none), STORE_CONFLICT },
        { SUB, exact(url_b, "t", rec_1), STORE_OK },
        { SUB, exact(url_a, "T", none), STORE_OK },
        { SUB, exact(url_a, "", none), STORE_OK },
        { SUB, exact(none, "", none), STORE_OK },
        { SUB, glob(none, "", none), STORE_OK },
        { SUB, { STORE_EXACT, SPAN("u\0a"), SPAN("k\0a"), SPAN("r\0a") }, STORE_OK },
        { SUB, { STORE_EXACT, SPAN("u\0b"), SPAN("k\0a"), none }, STORE_OK },
        { SUB, { STORE_EXACT, SPAN("u\0a"), SPAN("k\0b"), none }, STORE_OK },
        { SUB, { STORE_GLOB, SPAN("u\0a"), SPAN("k\0a"), none }, STORE_OK },
        { SUB, { STORE_GLOB, SPAN("u\0a"), SPAN("k\0b"), none }, STORE_OK },
        { SUB, { STORE_EXACT, SPAN("u"), SPAN("\xff\xfe\x00\x80"), none }, STORE_OK },
        { SUB, { STORE_EXACT, longest, longest, longest }, STORE_OK },
        { SUB, { STORE_GLOB, longest, longest, longest }, STORE_OK },
        { SUB, { STORE_GLOB, longest, longest, longest }, STORE_CONFLICT },
        { UNSUB, exact(url_a, "missing", none), STORE_NOT_FOUND },
        { UNSUB, glob(url_b, "t", none), STORE_NOT_FOUND },
        { UNSUB, { STORE_EXACT, SPAN("u"), SPAN("k\0a"), none }, STORE_NOT_FOUND },
        { UNSUB, { STORE_EXACT, SPAN("u\0b"), SPAN("k\0a"), none }, STORE_OK },
        { UNSUB, { STORE_GLOB, SPAN("u\0a"), SPAN("k\0b"), none }, STORE_OK },
        { UNSUB, { STORE_GLOB, SPAN("u\0a"), SPAN("k\0b"), none }, STORE_NOT_FOUND },
        { UNSUB, exact(url_a, "t", none), STORE_OK },
        { UNSUB, exact(url_a, "t", none), STORE_NOT_FOUND },
        { SUB, exact(url_a, "t", rec_2), STORE_OK },
        { UNSUB, exact(none, "", none), STORE_OK },
    };

    memset(long_text, 'x', sizeof long_text);
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        const struct status_case *c = &cases[i];
        enum store_status status =
            c->action == SUB ? do_subscribe(f, &c->row) : do_unsubscribe(f, &c->row);

        if (status != c->status)
            fail_msg("case %zu: %s", i, store_status_str(status));
        assert_int_equal(do_sync(f), STORE_OK);
        assert_int_equal(model_has_key(&f->model, &c->row),
                         c->action == SUB || status == STORE_CONFLICT);
        if (c->action == SUB && status == STORE_OK)
            assert_true(model_has(&f->model, &c->row));
    }
    assert_int_equal(model_count(&f->model), 12);
    assert_etag(f, url_a);
    assert_etag(f, longest);
    assert_etag(f, SPAN("u\0a"));
}

static void test_conflict_keeps_recovery(void **state)
{
    struct fixture *f = *state;
    struct store_row first = exact(url_a, "t", rec_1);
    struct store_row second = exact(url_a, "t", rec_2);
    uint8_t before[64], after[64];

    assert_int_equal(do_subscribe(f, &first), STORE_OK);
    assert_int_equal(do_check(f, url_a, before), STORE_OK);
    assert_int_equal(do_subscribe(f, &second), STORE_CONFLICT);
    assert_int_equal(do_check(f, url_a, after), STORE_OK);
    assert_memory_equal(before, after, 64);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_true(model_has(&f->model, &first));
}

/* --- CHECK and SET -------------------------------------------------------------------------- */

static void test_check_of_nothing(void **state)
{
    struct fixture *f = *state;

    assert_etag(f, url_a);
    assert_etag(f, none);
}

/* Sizes around those of a page and a transaction. */
static void test_set_sizes(void **state)
{
    static const size_t sizes[] = { 1, 999, 1000, 1001, 2001, 12000, 3, 0, 2000 };
    struct fixture *f = *state;

    for (size_t i = 0; i < TABLE_LEN(sizes); i++) {
        struct number_list list;

        number_list_init(&list, sizes[i], 1, i % 2 == 0 ? rec_1 : none);
        assert_int_equal(do_set(f, url_a, &list.list), STORE_OK);
        assert_int_equal(do_sync(f), STORE_OK);
        assert_int_equal(model_count(&f->model), sizes[i]);
        assert_etag(f, url_a);
    }
}

static int by_key(const void *a, const void *b)
{
    const struct store_row *x = a, *y = b;
    size_t n = x->key.len < y->key.len ? x->key.len : y->key.len;
    int order =
        x->kind != y->kind ? (int)x->kind - (int)y->kind : memcmp(x->key.ptr, y->key.ptr, n);

    return order != 0 ? order : (x->key.len > y->key.len) - (x->key.len < y->key.len);
}

/* Random lists over the same keys, so that rows are inserted, kept, changed and deleted. */
static void test_set_random(void **state)
{
    enum { KEYS = 3000 };
    struct fixture *f = *state;
    static char text[KEYS][12];
    static struct store_row rows[KEYS];
    struct store_row other = exact(url_b, "stays", rec_1);
    unsigned seed = 7;

    assert_int_equal(do_subscribe(f, &other), STORE_OK);
    for (int round = 0; round < 12; round++) {
        struct array_list list;
        unsigned share = (unsigned)rand_r(&seed) % 100;
        size_t n = 0;

        for (int i = 0; i < KEYS; i++) {
            if ((unsigned)rand_r(&seed) % 100 >= share)
                continue;
            snprintf(text[n], sizeof text[n], "%x", (unsigned)i * 2654435u);
            rows[n] = (struct store_row){ i % 3 == 0 ? STORE_GLOB : STORE_EXACT, url_a,
                                          span_of(text[n]), rand_r(&seed) % 2 == 0 ? rec_1 : none };
            n++;
        }
        qsort(rows, n, sizeof rows[0], by_key);
        array_list_init(&list, rows, n);
        assert_int_equal(do_set(f, url_a, &list.list), STORE_OK);
        assert_int_equal(do_sync(f), STORE_OK);
        assert_int_equal(model_count(&f->model), n + 1);
        for (size_t i = 0; i < n; i++)
            assert_true(model_has(&f->model, &rows[i]));
        assert_etag(f, url_a);
    }
    assert_true(model_has(&f->model, &other));
}

static void test_set_bad_lists(void **state)
{
    struct fixture *f = *state;
    struct store_row there = exact(url_a, "m", rec_1);
    struct store_row rows[] = { exact(url_a, "m", rec_1), exact(url_a, "n", none),
                                exact(url_a, "c", none) };
    struct array_list list;

    assert_int_equal(do_subscribe(f, &there), STORE_OK);
    array_list_init(&list, rows, 2);
    list.fail_at = 0;
    assert_int_equal(do_set(f, url_a, &list.list), STORE_UNAVAILABLE);
    array_list_init(&list, rows, 2);
    list.fail_at = 2;
    assert_int_equal(do_set(f, url_a, &list.list), STORE_UNAVAILABLE);
    array_list_init(&list, rows, 3); /* unsorted */
    assert_int_equal(do_set(f, url_a, &list.list), STORE_UNAVAILABLE);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_true(model_has(&f->model, &there));
}

static void test_set_keeps_missed(void **state)
{
    struct fixture *f = *state;
    struct store_row stays = exact(url_a, "stays", rec_1);
    struct store_row goes = exact(url_a, "goes", rec_1);
    struct store_row rows[] = { glob(url_a, "stays", rec_2) };
    struct store_row both[] = { exact(url_a, "stays", rec_2), rows[0] };
    struct array_list list;
    struct reply *r = mem_alloc(sizeof *r);

    assert_int_equal(do_subscribe(f, &stays), STORE_OK);
    assert_int_equal(do_subscribe(f, &goes), STORE_OK);
    assert_int_equal(do_missed_upsert(f, &stays, span_of("stays"), 3, 100), STORE_OK);
    assert_int_equal(do_missed_upsert(f, &goes, span_of("goes"), 0, 50), STORE_OK);
    array_list_init(&list, both, 2);
    assert_int_equal(do_set(f, url_a, &list.list), STORE_OK);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_true(model_has(&f->model, &both[0]));
    assert_false(model_has_key(&f->model, &goes));
    assert_int_equal(do_missed_lock(f, 1000, r), STORE_OK);
    assert_int_equal(r->item.attempts, 3);
    assert_memory_equal(r->item.recovery.ptr, rec_2.ptr, rec_2.len);
    assert_int_equal(do_missed_lock(f, 1000, r), STORE_NOT_FOUND);
    mem_free(r);
}

/* --- MISSED --------------------------------------------------------------------------------- */

static void test_missed_order_and_locks(void **state)
{
    struct fixture *f = *state;
    struct store_row e = exact(url_a, "e", rec_1);
    struct store_row g = glob(url_a, "g*", rec_2);
    struct store_row mute = exact(url_a, "mute", none);
    struct store_row gone = exact(url_a, "gone", rec_1);
    struct reply *r = mem_alloc(sizeof *r);

    assert_int_equal(do_subscribe(f, &e), STORE_OK);
    assert_int_equal(do_subscribe(f, &g), STORE_OK);
    assert_int_equal(do_subscribe(f, &mute), STORE_OK);
    assert_int_equal(do_missed_lock(f, 1e9, r), STORE_NOT_FOUND);
    assert_int_equal(do_missed_upsert(f, &gone, span_of("gone"), 0, 1), STORE_OK);
    assert_int_equal(do_missed_upsert(f, &mute, span_of("mute"), 0, 1), STORE_OK);
    assert_int_equal(do_missed_upsert(f, &e, span_of("e"), 4, 1000.25), STORE_OK);
    assert_int_equal(do_missed_upsert(f, &g, SPAN("g\0\xff"), 5, 990), STORE_OK);
    assert_int_equal(do_missed_lock(f, 989.9, r), STORE_NOT_FOUND);

    /* The oldest first; what is locked stays so for 30 s. */
    assert_int_equal(do_missed_lock(f, 1001, r), STORE_OK);
    assert_int_equal(r->item.kind, STORE_GLOB);
    assert_int_equal(r->item.attempts, 5);
    assert_int_equal(r->item.topic.len, 3);
    assert_memory_equal(r->item.topic.ptr, "g\0\xff", 3);
    assert_int_equal(r->item.key.len, 2);
    assert_memory_equal(r->item.url.ptr, url_a.ptr, url_a.len);
    assert_int_equal(do_missed_lock(f, 1000.5, r), STORE_NOT_FOUND); /* 1000.25 is rounded up */
    assert_int_equal(do_missed_lock(f, 1001, r), STORE_OK);
    assert_int_equal(r->item.kind, STORE_EXACT);
    assert_int_equal(r->item.topic.len, 1);
    assert_int_equal(do_missed_lock(f, 1030, r), STORE_NOT_FOUND);
    assert_int_equal(do_missed_lock(f, 1031, r), STORE_OK);
    assert_int_equal(r->item.kind, STORE_GLOB);
    mem_free(r);
}

static void test_missed_release(void **state)
{
    struct fixture *f = *state;
    struct store_row e = exact(url_a, "e", rec_1);
    struct reply *r = mem_alloc(sizeof *r);
    struct store_missed stale;

    assert_int_equal(do_subscribe(f, &e), STORE_OK);
    assert_int_equal(do_missed_upsert(f, &e, span_of("e"), 0, 10), STORE_OK);
    assert_int_equal(do_missed_lock(f, 10, r), STORE_OK);
    assert_int_equal(do_missed_retry(f, &r->item, 1, 20.5), STORE_OK);
    assert_int_equal(do_missed_retry(f, &r->item, 2, 20), STORE_CONFLICT); /* not locked */
    assert_int_equal(do_missed_clear(f, &r->item), STORE_CONFLICT);
    assert_int_equal(do_missed_lock(f, 20, r), STORE_NOT_FOUND);
    assert_int_equal(do_missed_lock(f, 21, r), STORE_OK);
    assert_int_equal(r->item.attempts, 1);

    /* Somebody else took it over after the lock had expired. */
    stale = r->item;
    assert_int_equal(do_missed_lock(f, 51, r), STORE_OK);
    assert_true(stale.lock_id != r->item.lock_id);
    assert_int_equal(do_missed_clear(f, &(struct store_missed){ .kind = STORE_EXACT,
                                                                .url = url_a,
                                                                .key = span_of("e"),
                                                                .lock_id = stale.lock_id }),
                     STORE_CONFLICT);

    /* A new failure removes the lock. */
    assert_int_equal(do_missed_upsert(f, &e, span_of("e"), 0, 60), STORE_OK);
    assert_int_equal(do_missed_clear(f, &r->item), STORE_CONFLICT);
    assert_int_equal(do_missed_lock(f, 60, r), STORE_OK);
    assert_int_equal(r->item.attempts, 0);
    assert_int_equal(do_missed_clear(f, &r->item), STORE_OK);
    assert_int_equal(do_missed_lock(f, 1e12, r), STORE_NOT_FOUND);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_true(model_has(&f->model, &e)); /* the subscription stays */
    mem_free(r);
}

static void test_unsubscribe_drops_missed(void **state)
{
    struct fixture *f = *state;
    struct store_row g = glob(url_a, "g", rec_1);
    struct reply *r = mem_alloc(sizeof *r);

    assert_int_equal(do_subscribe(f, &g), STORE_OK);
    assert_int_equal(do_missed_upsert(f, &g, span_of("g"), 0, 10), STORE_OK);
    assert_int_equal(do_missed_lock(f, 10, r), STORE_OK);
    assert_int_equal(do_unsubscribe(f, &g), STORE_OK);
    assert_int_equal(do_missed_clear(f, &r->item), STORE_CONFLICT);
    assert_int_equal(do_subscribe(f, &g), STORE_OK);
    assert_int_equal(do_missed_lock(f, 1e6, r), STORE_NOT_FOUND);
    mem_free(r);
}

/* --- queues and closing --------------------------------------------------------------------- */

/* A SET whose list waits at a gate holds the thread that makes the changes. */
struct held {
    struct gate gate;
    struct array_list list;
    struct reply reply;
};

static struct held *hold_writer(struct fixture *f)
{
    struct held *h = mem_calloc(1, sizeof *h);

    gate_init(&h->gate);
    array_list_init(&h->list, NULL, 0);
    h->list.hold = &h->gate;
    reply_expect(&h->reply);
    f->ops->set(f->client, SPAN("http://held/"), &h->list.list, on_reply, &h->reply);
    h->reply.may_run = true;
    uv_sem_wait(&h->gate.reached);
    return h;
}

static void free_held(struct held *h)
{
    gate_fini(&h->gate);
    mem_free(h);
}

static void reopen(struct fixture *f, uint64_t timeout_ms, size_t max_queued)
{
    fixture_close(f);
    f->conf.timeout_ms = timeout_ms;
    f->conf.max_queued = max_queued;
    fixture_open(f);
}

enum { MANY = 40 };

static void subscribe_many(struct fixture *f, struct reply *replies)
{
    for (int i = 0; i < MANY; i++) {
        char key[12];
        struct store_row row;

        snprintf(key, sizeof key, "%d", i);
        row = exact(url_a, key, none);
        reply_expect(&replies[i]);
        f->ops->subscribe(f->client, &row, on_reply, &replies[i]);
        replies[i].may_run = true;
    }
}

static void test_queue_bound(void **state)
{
    struct fixture *f = *state;
    struct reply *replies = mem_calloc(MANY, sizeof *replies);
    struct held *h;
    int refused = 0;

    reopen(f, 20000, 8);
    h = hold_writer(f);
    subscribe_many(f, replies);
    for (int i = 8; i < MANY; i++) { /* these are answered though the thread is held */
        reply_wait(f, &replies[i]);
        refused += replies[i].status == STORE_UNAVAILABLE;
    }
    assert_int_equal(refused, MANY - 8);
    for (int i = 0; i < 8; i++)
        assert_int_equal(replies[i].calls, 0);
    uv_sem_post(&h->gate.open);
    for (int i = 0; i < 8; i++) {
        reply_wait(f, &replies[i]);
        assert_int_equal(replies[i].status, STORE_OK);
    }
    reply_wait(f, &h->reply);
    assert_int_equal(h->reply.status, STORE_OK);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_int_equal(model_count(&f->model), 8);
    free_held(h);
    mem_free(replies);
}

static void test_too_old_is_not_executed(void **state)
{
    struct fixture *f = *state;
    struct reply *replies = mem_calloc(MANY, sizeof *replies);
    struct held *h;
    uint64_t late_ns;

    reopen(f, 150, 1000);
    h = hold_writer(f);
    subscribe_many(f, replies);
    late_ns = uv_hrtime() + 300u * 1000000u;
    while (uv_hrtime() < late_ns)
        uv_run(&f->loop, UV_RUN_NOWAIT);
    uv_sem_post(&h->gate.open);
    for (int i = 0; i < MANY; i++) {
        reply_wait(f, &replies[i]);
        assert_int_equal(replies[i].status, STORE_UNAVAILABLE);
    }
    reply_wait(f, &h->reply);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_int_equal(model_count(&f->model), 0);
    free_held(h);
    mem_free(replies);
}

static void on_closed(void *arg)
{
    (*(int *)arg)++;
}

static void test_close_answers_all(void **state)
{
    struct fixture *f = *state;
    struct reply *replies = mem_calloc(MANY, sizeof *replies);
    struct reply *check = mem_calloc(1, sizeof *check);
    struct held *h = hold_writer(f);
    int closed = 0;

    subscribe_many(f, replies);
    reply_expect(check);
    f->ops->check(f->client, url_a, on_etag_reply, check);
    check->may_run = true;
    f->ops->client_close(f->client, on_closed, &closed);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(replies[i].calls, 0);
    assert_int_equal(closed, 0);
    uv_sem_post(&h->gate.open);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(closed, 1);
    assert_int_equal(h->reply.calls, 1);
    assert_int_equal(check->calls, 1);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(replies[i].calls, 1);
        assert_int_equal(replies[i].status, STORE_UNAVAILABLE);
    }
    f->ops->close(f->store);
    f->store = NULL;
    fixture_open(f);
    assert_int_equal(model_count(&f->model), 0); /* none of those was executed */
    free_held(h);
    mem_free(check);
    mem_free(replies);
}

/* --- two loops ------------------------------------------------------------------------------ */

/* A thread with a loop and a client of its own. It owns its urls, so it knows what each operation
 * must answer, and that a sync shows it everything it wrote. */
struct walker {
    struct fixture f; /* only ops, loop, store and client are used */
    struct model *feed;
    unsigned seed;
    int rounds;
    char failed[128]; /* empty: nothing */
    uv_thread_t thread;
};

enum { WALK_URLS = 3, WALK_KEYS = 40 };

struct walk_row {
    bool is_there;
    char url[24], key[8];
    struct store_row row;
};

static void walk_init(struct walk_row rows[WALK_URLS][2][WALK_KEYS], const struct walker *w)
{
    for (int u = 0; u < WALK_URLS; u++)
        for (int kind = 0; kind < 2; kind++)
            for (int k = 0; k < WALK_KEYS; k++) {
                struct walk_row *r = &rows[u][kind][k];

                snprintf(r->url, sizeof r->url, "w%u/%d", w->seed, u);
                snprintf(r->key, sizeof r->key, "%02d", k);
                r->is_there = false;
                r->row = (struct store_row){ (enum store_kind)kind, span_of(r->url),
                                             span_of(r->key), none };
            }
}

static void walk_set(struct walker *w, struct walk_row rows[2][WALK_KEYS], unsigned *seed)
{
    struct store_row listed[2 * WALK_KEYS];
    struct array_list list;
    size_t n = 0;

    for (int kind = 0; kind < 2; kind++)
        for (int k = 0; k < WALK_KEYS; k++) {
            rows[kind][k].is_there = rand_r(seed) % 2 == 0;
            rows[kind][k].row.recovery = rand_r(seed) % 2 == 0 ? rec_1 : none;
            if (rows[kind][k].is_there)
                listed[n++] = rows[kind][k].row;
        }
    array_list_init(&list, listed, n);
    if (do_set(&w->f, rows[0][0].row.url, &list.list) != STORE_OK)
        snprintf(w->failed, sizeof w->failed, "set");
}

static void walk_one(struct walker *w, struct walk_row *r, unsigned *seed)
{
    enum store_status want;
    enum store_status got;

    if (rand_r(seed) % 2 == 0) {
        struct store_row row = r->row;

        row.recovery = rand_r(seed) % 2 == 0 ? rec_2 : none;
        want = r->is_there ? STORE_CONFLICT : STORE_OK;
        got = do_subscribe(&w->f, &row);
        if (!r->is_there)
            r->row.recovery = row.recovery;
        r->is_there = true;
    } else {
        want = r->is_there ? STORE_OK : STORE_NOT_FOUND;
        got = do_unsubscribe(&w->f, &r->row);
        r->is_there = false;
    }
    if (got != want)
        snprintf(w->failed, sizeof w->failed, "one row: %s instead of %s", store_status_str(got),
                 store_status_str(want));
}

static void walk_compare(struct walker *w, struct walk_row rows[2][WALK_KEYS])
{
    uint8_t got[64], want[64];

    if (do_sync(&w->f) != STORE_OK)
        snprintf(w->failed, sizeof w->failed, "sync");
    for (int kind = 0; kind < 2; kind++)
        for (int k = 0; k < WALK_KEYS; k++)
            if (rows[kind][k].is_there ? !model_has(w->feed, &rows[kind][k].row)
                                       : model_has_key(w->feed, &rows[kind][k].row))
                snprintf(w->failed, sizeof w->failed, "feed: kind %d key %d", kind, k);
    model_etag(w->feed, rows[0][0].row.url, want);
    if (do_check(&w->f, rows[0][0].row.url, got) != STORE_OK || memcmp(got, want, 64) != 0)
        snprintf(w->failed, sizeof w->failed, "etag");
}

static void walk(void *arg)
{
    static _Thread_local struct walk_row rows[WALK_URLS][2][WALK_KEYS];
    struct walker *w = arg;
    unsigned seed = w->seed;

    walk_init(rows, w);
    for (int i = 0; i < w->rounds && w->failed[0] == '\0'; i++) {
        int u = rand_r(&seed) % WALK_URLS;

        if (rand_r(&seed) % 20 == 0)
            walk_set(w, rows[u], &seed);
        else
            walk_one(w, &rows[u][rand_r(&seed) % 2][rand_r(&seed) % WALK_KEYS], &seed);
        if (rand_r(&seed) % 4 == 0)
            walk_compare(w, rows[u]);
    }
}

static void walker_start(struct walker *w, struct fixture *f, unsigned seed)
{
    char error[256];

    memset(w, 0, sizeof *w);
    w->f.ops = f->ops;
    w->f.store = f->store;
    w->feed = &f->model;
    w->seed = seed;
    w->rounds = 1500;
    table_require(uv_loop_init(&w->f.loop) == 0, "loop");
    table_require(f->ops->client_open(f->store, &w->f.loop, &w->f.client, error), error);
    table_require(uv_thread_create(&w->thread, walk, w) == 0, "thread");
}

static void walker_join(struct walker *w)
{
    int closed = 0;

    uv_thread_join(&w->thread);
    w->f.ops->client_close(w->f.client, on_closed, &closed);
    uv_run(&w->f.loop, UV_RUN_DEFAULT);
    assert_int_equal(closed, 1);
    assert_int_equal(uv_loop_close(&w->f.loop), 0);
    assert_string_equal(w->failed, "");
}

static void test_two_loops(void **state)
{
    struct fixture *f = *state;
    struct walker *walkers = mem_calloc(2, sizeof *walkers);

    walker_start(&walkers[0], f, 1);
    walker_start(&walkers[1], f, 2);
    walker_join(&walkers[0]);
    walker_join(&walkers[1]);
    assert_int_equal(do_sync(f), STORE_OK);
    mem_free(walkers);
}

/* A change that another client was told of is seen by a sync of ours. */
static void test_sync_sees_other_client(void **state)
{
    struct fixture *f = *state;
    struct fixture *other = mem_calloc(1, sizeof *other);
    struct store_row row = glob(url_a, "x*", rec_1);
    char error[256];
    int closed = 0;

    other->ops = f->ops;
    assert_int_equal(uv_loop_init(&other->loop), 0);
    assert_true(f->ops->client_open(f->store, &other->loop, &other->client, error));
    for (int i = 0; i < 50; i++) {
        assert_int_equal(do_subscribe(other, &row), STORE_OK);
        assert_int_equal(do_sync(f), STORE_OK);
        assert_true(model_has(&f->model, &row));
        assert_int_equal(do_unsubscribe(other, &row), STORE_OK);
        assert_int_equal(do_sync(f), STORE_OK);
        assert_false(model_has_key(&f->model, &row));
    }
    f->ops->client_close(other->client, on_closed, &closed);
    uv_run(&other->loop, UV_RUN_DEFAULT);
    assert_int_equal(closed, 1);
    uv_loop_close(&other->loop);
    mem_free(other);
}

static const struct {
    const char *name;
    CMUnitTestFunction function;
} suite[] = {
    { "names", test_names },
    { "statuses of subscribe and unsubscribe", test_statuses },
    { "a conflict keeps the recovery url", test_conflict_keeps_recovery },
    { "check of nothing", test_check_of_nothing },
    { "set of many sizes", test_set_sizes },
    { "set of random lists", test_set_random },
    { "set of lists that cannot be read", test_set_bad_lists },
    { "set keeps what is pending", test_set_keeps_missed },
    { "missed: order and locks", test_missed_order_and_locks },
    { "missed: release", test_missed_release },
    { "missed: unsubscribe drops it", test_unsubscribe_drops_missed },
    { "the queue is bounded", test_queue_bound },
    { "what waited too long is not executed", test_too_old_is_not_executed },
    { "closing answers all", test_close_answers_all },
    { "two clients on two loops", test_two_loops },
    { "sync sees the other client", test_sync_sees_other_client },
};

int main(void)
{
    enum { N = TABLE_LEN(suite), BACKENDS_MAX = 4 };
    static struct CMUnitTest tests[BACKENDS_MAX * N];
    static char names[BACKENDS_MAX * N][100];
    const struct store_ops *backends[BACKENDS_MAX];
    size_t n_tests = fixture_backends(backends) * N;

    for (size_t i = 0; i < n_tests; i++) {
        const struct store_ops *ops = backends[i / N];

        snprintf(names[i], sizeof names[i], "%s: %s", ops->name, suite[i % N].name);
        tests[i] = (struct CMUnitTest){ .name = names[i],
                                        .test_func = suite[i % N].function,
                                        .setup_func = setup,
                                        .teardown_func = teardown,
                                        .initial_state = (void *)(uintptr_t)ops };
    }
    return _cmocka_run_group_tests("store", tests, n_tests, NULL, NULL);
}
