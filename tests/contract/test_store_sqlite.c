/*
 * The SQLite store and other programs on the same file: their changes, their schemas, their locks,
 * their rows that make no sense.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mem.h"
#include "sqlite_tool.h"
#include "store_fixture.h"

static const struct lonely_span url_a = { (const uint8_t *)"http://a/", 9 };
static const struct lonely_span rec_1 = { (const uint8_t *)"http://r/1", 10 };
static const struct lonely_span none = { NULL, 0 };

static struct store_row exact(const char *key, struct lonely_span recovery)
{
    return (struct store_row){ STORE_EXACT, url_a, span_of(key), recovery };
}

static struct store_row glob(const char *key, struct lonely_span recovery)
{
    return (struct store_row){ STORE_GLOB, url_a, span_of(key), recovery };
}

static int setup(void **state)
{
    struct fixture *f = mem_alloc(sizeof *f);

    fixture_init(f, &store_sqlite);
    *state = f;
    return 0;
}

static int setup_open(void **state)
{
    setup(state);
    fixture_open(*state);
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

/* --- changes of others ---------------------------------------------------------------------- */

static void test_others_changes(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *sql;
        size_t count; /* rows afterwards */
        struct store_row has, lacks;
    } steps[] = {
#define A(key, recovery)                        \
    { STORE_EXACT,                              \
      { (const uint8_t *)"http://a/", 9 },      \
      { (const uint8_t *)key, sizeof key - 1 }, \
      { (const uint8_t *)recovery, sizeof recovery - 1 } }
#define G(key, recovery)                                                                           \
    {                                                                                              \
        STORE_GLOB, { (const uint8_t *)"http://a/", 9 }, { (const uint8_t *)key, sizeof key - 1 }, \
        {                                                                                          \
            (const uint8_t *)recovery, sizeof recovery - 1                                         \
        }                                                                                          \
    }
        { "INSERT INTO " EXACTS " (url, exact) VALUES ('http://a/', x'78')", 1, A("x", ""),
          A("y", "") },
        { "INSERT INTO " GLOBS " (url, glob, missed_url) VALUES ('http://a/', 'x*', 'r')", 2,
          G("x*", "r"), G("x", "") },
        { "UPDATE " EXACTS " SET exact = x'79'", 2, A("y", ""), A("x", "") },
        { "UPDATE " EXACTS " SET missed_url = 'q'", 2, A("y", "q"), A("x", "") },
        { "UPDATE " EXACTS " SET missed_url = 'p', exact = x'7a'", 2, A("z", "p"), A("y", "") },
        { "UPDATE " GLOBS " SET missed_url = NULL", 2, G("x*", ""), G("x", "") },
        { "UPDATE " GLOBS " SET url = 'http://b/'", 2, A("z", "p"), G("x*", "") },
        { "INSERT OR REPLACE INTO " EXACTS " (url, exact, missed_url) VALUES ('http://a/', x'7a', "
          "'n')",
          2, A("z", "n"), A("y", "") },
        { "BEGIN; INSERT INTO " EXACTS " (url, exact) VALUES ('http://a/', x'77'); ROLLBACK", 2,
          A("z", "n"), A("w", "") },
        { "DELETE FROM " EXACTS,
          1,
          { STORE_GLOB,
            { (const uint8_t *)"http://b/", 9 },
            { (const uint8_t *)"x*", 2 },
            { NULL, 0 } },
          A("z", "") },
        { "DELETE FROM " GLOBS " WHERE glob = 'x*'; INSERT INTO " GLOBS
          " (url, glob) VALUES ('http://a/', '')",
          1, G("", ""), G("x*", "") },
    };
    sqlite3 *db = tool_open(f->path, 10000);

    for (size_t i = 0; i < TABLE_LEN(steps); i++) {
        tool_exec(db, steps[i].sql);
        assert_int_equal(do_sync(f), STORE_OK);
        if (model_count(&f->model) != steps[i].count || !model_has(&f->model, &steps[i].has) ||
            model_has_key(&f->model, &steps[i].lacks))
            fail_msg("%s", steps[i].sql);
    }
    assert_int_equal(atomic_load(&f->model.loads), 1);
    sqlite3_close(db);
}

static void test_missed_columns_are_not_logged(void **state)
{
    struct fixture *f = *state;
    struct store_row e = exact("e", rec_1);
    struct reply *r = mem_alloc(sizeof *r);
    sqlite3_int64 before;

    assert_int_equal(do_subscribe(f, &e), STORE_OK);
    before = tool_ask(f->path, "SELECT max(seq) FROM lonely_changes");
    assert_int_equal(do_missed_upsert(f, &e, span_of("e"), 0, 1.5), STORE_OK);
    assert_int_equal(tool_ask(f->path, "SELECT missed_next_retry_at FROM " EXACTS), 2);
    assert_int_equal(do_missed_lock(f, 2, r), STORE_OK);
    assert_int_equal(tool_ask(f->path, "SELECT missed_lock_expires_at FROM " EXACTS), 32);
    assert_int_equal(do_missed_clear(f, &r->item), STORE_OK);
    assert_int_equal(tool_ask(f->path, "SELECT count(*) FROM " EXACTS " WHERE missed_url = "
                                       "'http://r/1' AND coalesce(missed_lock_id, "
                                       "missed_lock_expires_at, missed_attempts, "
                                       "missed_next_retry_at) IS NULL"),
                     1);
    assert_int_equal(tool_ask(f->path, "SELECT max(seq) FROM lonely_changes"), before);
    mem_free(r);
}

/* What was applied last is gone: everything is loaded anew. */
static void test_lost_log(void **state)
{
    struct fixture *f = *state;
    static const char *const losses[] = {
        "DELETE FROM lonely_changes WHERE seq < (SELECT max(seq) FROM lonely_changes)",
        "DELETE FROM lonely_changes",
        "DELETE FROM lonely_changes; DELETE FROM sqlite_sequence",
    };
    struct store_row kept = exact("kept", rec_1);

    assert_int_equal(do_subscribe(f, &kept), STORE_OK);
    for (size_t i = 0; i < TABLE_LEN(losses); i++) {
        char sql[300];
        char key[8];
        struct store_row row = glob(key, none);
        int loads = atomic_load(&f->model.loads);

        assert_int_equal(do_sync(f), STORE_OK);
        snprintf(key, sizeof key, "g%zu", i);
        snprintf(sql, sizeof sql, "INSERT INTO " GLOBS " (url, glob) VALUES ('http://a/', '%s')",
                 key);
        tool_run(f->path, sql);
        tool_run(f->path, losses[i]);
        row.key = span_of(key);
        assert_int_equal(do_sync(f), STORE_OK);
        assert_int_equal(atomic_load(&f->model.loads), loads + 1);
        assert_true(model_has(&f->model, &row));
        assert_true(model_has(&f->model, &kept));
        assert_int_equal(model_count(&f->model), i + 2);
        assert_int_equal(do_sync(f), STORE_OK);
        assert_int_equal(atomic_load(&f->model.loads), loads + 1);
    }
}

/* News of more than one batch: a store thread goes on with it. */
static void test_many_news(void **state)
{
    struct fixture *f = *state;

    tool_run(f->path, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
                      "7001) INSERT INTO " EXACTS
                      " (url, exact) SELECT 'http://a/', CAST(i AS BLOB) FROM n");
    assert_int_equal(do_sync(f), STORE_OK);
    assert_int_equal(model_count(&f->model), 7001);
    assert_int_equal(atomic_load(&f->model.loads), 1);
    assert_etag(f, url_a);
}

/* Rows that the protocol cannot have made: passed over, everywhere. */
static void test_senseless_rows(void **state)
{
    struct fixture *f = *state;
    struct store_row good = exact("good", rec_1);
    struct reply *r = mem_alloc(sizeof *r);

    assert_int_equal(do_subscribe(f, &good), STORE_OK);
    tool_run(f->path,
             "INSERT INTO " EXACTS " (url, exact, missed_url, missed_next_retry_at) VALUES "
             "('http://a/', 'a text', 'r', NULL), (x'61', x'61', 'r', 1), "
             "('http://a/', zeroblob(70000), 'r', 1), ('http://a/', 5, NULL, NULL), "
             "('http://a/', x'00', x'00', 1); INSERT INTO " GLOBS
             " (url, glob, missed_url, missed_next_retry_at) VALUES ('http://a/', x'61', 'r', "
             "NULL), ('http://a/', 7, x'61', 'soon')");
    assert_int_equal(do_sync(f), STORE_OK);
    /* A recovery url that is none, or a number for a glob, is not worth losing the row for. */
    assert_int_equal(model_count(&f->model), 3);
    assert_true(model_has(&f->model, &good));
    assert_true(model_has(&f->model, &(struct store_row){ STORE_EXACT, url_a, SPAN("\0"), none }));
    assert_true(model_has(&f->model, &(struct store_row){ STORE_GLOB, url_a, SPAN("7"), none }));
    assert_etag(f, url_a);
    assert_int_equal(do_missed_lock(f, 100, r), STORE_NOT_FOUND);
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(model_count(&f->model), 3);
    mem_free(r);
}

/* --- files of others ------------------------------------------------------------------------ */

#define MISSED \
    "missed_url TEXT NULL, missed_lock_id INTEGER NULL, missed_lock_expires_at INTEGER NULL, "
#define DUE "missed_attempts INTEGER NULL, missed_next_retry_at INTEGER NULL)"
#define E_TABLE            \
    "CREATE TABLE " EXACTS \
    "(id INTEGER PRIMARY KEY, url TEXT NOT NULL, exact BLOB NOT NULL, " MISSED DUE ";"
#define G_TABLE                                                               \
    "CREATE TABLE " GLOBS                                                     \
    "(id INTEGER PRIMARY KEY, url TEXT NOT NULL, glob TEXT NOT NULL, " MISSED \
    "missed_topic BLOB NULL, " DUE ";"
#define E_UNIQUE \
    "CREATE UNIQUE INDEX idx_httppubsub_subscription_exacts_exact_url ON " EXACTS "(exact, url);"
#define G_UNIQUE \
    "CREATE UNIQUE INDEX idx_httppubsub_subscription_globs_glob_url ON " GLOBS "(glob, url);"
#define E_ROW "INSERT INTO " EXACTS "(url, exact) VALUES ('http://a/', x'65');"
#define G_ROW \
    "INSERT INTO " GLOBS "(url, glob, missed_url) VALUES ('http://a/', 'g', 'http://r/1');"

static void test_partial_schemas(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *sql;
        bool e, g;
    } cases[] = {
        { "SELECT 1", false, false },
        { E_TABLE E_ROW, true, false },
        { G_TABLE G_ROW, false, true },
        { E_TABLE G_TABLE E_UNIQUE G_UNIQUE E_ROW G_ROW, true, true },
        { E_TABLE G_TABLE E_UNIQUE E_ROW G_ROW, true, true },
        { "CREATE TABLE httppubsub_hmacs(id INTEGER)", false, false },
    };
    const struct store_row e = exact("e", none), g = glob("g", rec_1), x = exact("x", none);

    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        remove(f->path);
        tool_run(f->path, cases[i].sql);
        for (int again = 0; again < 2; again++) {
            fixture_open(f);
            assert_int_equal(model_has(&f->model, &e), cases[i].e || again == 1);
            assert_int_equal(model_has(&f->model, &g), cases[i].g);
            assert_int_equal(do_subscribe(f, &x), again == 0 ? STORE_OK : STORE_CONFLICT);
            assert_int_equal(do_subscribe(f, &e),
                             cases[i].e || again == 1 ? STORE_CONFLICT : STORE_OK);
            assert_int_equal(do_sync(f), STORE_OK);
            assert_true(model_has(&f->model, &x));
            assert_etag(f, url_a);
            fixture_close(f);
        }
        assert_int_equal(tool_ask(f->path, "SELECT count(*) FROM sqlite_master WHERE type = "
                                           "'index' AND (name GLOB 'idx_httppubsub_subscription_*' "
                                           "OR name GLOB 'lonely_*')"),
                         8);
        assert_int_equal(tool_ask(f->path, "SELECT count(*) FROM sqlite_master WHERE type = "
                                           "'trigger'"),
                         8);
    }
}

static void test_survives_reopening(void **state)
{
    struct fixture *f = *state;
    struct store_row rows[] = { exact("one", rec_1),
                                { STORE_EXACT, SPAN("u\0v"), SPAN("\0\xff"), SPAN("r\0s") },
                                glob("*", none) };

    for (size_t i = 0; i < TABLE_LEN(rows); i++)
        assert_int_equal(do_subscribe(f, &rows[i]), STORE_OK);
    for (int again = 0; again < 3; again++) {
        fixture_close(f);
        assert_int_equal(tool_ask(f->path, "SELECT count(*) FROM " EXACTS), 2);
        fixture_open(f);
        assert_int_equal(model_count(&f->model), TABLE_LEN(rows));
        for (size_t i = 0; i < TABLE_LEN(rows); i++)
            assert_true(model_has(&f->model, &rows[i]));
    }
}

/* --- pruning -------------------------------------------------------------------------------- */

static void wait_until_zero(struct fixture *f, const char *sql)
{
    uint64_t end_ns = uv_hrtime() + 30u * UINT64_C(1000000000);
    sqlite3 *db = tool_open(f->path, 10000);

    while (tool_number(db, sql) != 0) {
        if (uv_hrtime() > end_ns)
            fail_msg("%s", sql);
        uv_sleep(5);
    }
    sqlite3_close(db);
}

static void test_pruning(void **state)
{
    struct fixture *f = *state;
    struct store_row row = exact("e", none);
    sqlite3_int64 newest;

    fixture_open(f);
    fixture_close(f);
    tool_run(f->path, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
                      "4500) INSERT INTO lonely_changes (at, kind, op) SELECT 1000, 0, 0 FROM n; "
                      "UPDATE lonely_changes SET at = 1000");
    newest = tool_ask(f->path, "SELECT max(seq) FROM lonely_changes");
    fixture_open(f);
    wait_until_zero(f, "SELECT count(*) - 1 FROM lonely_changes"); /* the newest stays */
    assert_int_equal(tool_ask(f->path, "SELECT seq FROM lonely_changes"), newest);
    assert_int_equal(do_subscribe(f, &row), STORE_OK);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_true(model_has(&f->model, &row));
    assert_int_equal(atomic_load(&f->model.loads), 2); /* once at each opening */
    fixture_close(f);

    /* Young rows go when there are too many; an old one behind a young one has to wait. */
    tool_run(f->path, "DELETE FROM lonely_changes; INSERT INTO lonely_changes (seq, at, kind, op) "
                      "VALUES (5000, 32503680000, 0, 0), (5001, 32503680000, 0, 0), "
                      "(1005000, 32503680000, 0, 0), (1005001, 1000, 0, 0), "
                      "(1005002, 32503680000, 0, 0)");
    fixture_open(f);
    wait_until_zero(f, "SELECT count(*) - 3 FROM lonely_changes");
    assert_int_equal(tool_ask(f->path, "SELECT min(seq) FROM lonely_changes"), 1005000);
}

/* --- locks ---------------------------------------------------------------------------------- */

static void test_locked_by_another(void **state)
{
    struct fixture *f = *state;
    struct store_row row = exact("e", none), later = exact("later", none);
    struct number_list list;
    struct reply *waiting = mem_alloc(sizeof *waiting);
    uint8_t etag[64];
    uint64_t began_ns;
    sqlite3 *db;

    f->conf.timeout_ms = 300;
    fixture_open(f);
    db = tool_open(f->path, 10000);
    tool_exec(db, "BEGIN IMMEDIATE");
    began_ns = uv_hrtime();
    assert_int_equal(do_subscribe(f, &row), STORE_UNAVAILABLE);
    assert_in_range((uv_hrtime() - began_ns) / 1000000u, 290, 5000);
    number_list_init(&list, 5, 1, none);
    assert_int_equal(do_set(f, url_a, &list.list), STORE_UNAVAILABLE);
    assert_int_equal(do_check(f, url_a, etag), STORE_OK); /* readers are not disturbed */
    assert_int_equal(do_sync(f), STORE_OK);

    /* What still waits when the lock is released is done. */
    reply_expect(waiting);
    f->ops->subscribe(f->client, &later, on_reply, waiting);
    waiting->may_run = true;
    uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_int_equal(waiting->calls, 0);
    tool_exec(db, "COMMIT");
    reply_wait(f, waiting);
    assert_int_equal(waiting->status, STORE_OK);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_int_equal(model_count(&f->model), 1);
    assert_int_equal(do_subscribe(f, &row), STORE_OK);
    sqlite3_close(db);
    mem_free(waiting);
}

/* --- a long SET ----------------------------------------------------------------------------- */

enum { LONG = 100000 };

static void test_long_set(void **state)
{
    struct fixture *f = *state;
    struct number_list list;
    struct reply *set = mem_alloc(sizeof *set);
    sqlite3 *db = tool_open(f->path, 10000);
    int between = 0;

    number_list_init(&list, LONG, 3, none); /* every third is there ... */
    assert_int_equal(do_set(f, url_a, &list.list), STORE_OK);
    number_list_init(&list, LONG, 2, rec_1); /* ... every second shall be */
    reply_expect(set);
    f->ops->set(f->client, url_a, &list.list, on_reply, set);
    set->may_run = true;
    while (set->calls == 0) {
        struct store_row row = { STORE_EXACT, SPAN("http://b/"), { NULL, 0 }, none };
        char key[16];

        /* Those in both lists are never absent, those in none never present. */
        assert_int_equal(tool_number(db, "SELECT count(*) FROM " EXACTS
                                         " WHERE url = 'http://a/' AND CAST(CAST(exact AS TEXT) AS "
                                         "INTEGER) % 6 = 0"),
                         LONG / 6 + 1);
        assert_int_equal(tool_number(db, "SELECT count(*) FROM " EXACTS
                                         " WHERE url = 'http://a/' AND CAST(CAST(exact AS TEXT) AS "
                                         "INTEGER) % 6 IN (1, 5)"),
                         0);
        snprintf(key, sizeof key, "%d", between);
        row.key = span_of(key);
        assert_int_equal(do_subscribe(f, &row), STORE_OK);
        between++;
    }
    assert_int_equal(set->status, STORE_OK);
    assert_true(between >= 5);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_int_equal(model_count(&f->model), LONG / 2 + between);
    assert_etag(f, url_a);
    sqlite3_close(db);
    mem_free(set);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_others_changes, setup_open, teardown),
        cmocka_unit_test_setup_teardown(test_missed_columns_are_not_logged, setup_open, teardown),
        cmocka_unit_test_setup_teardown(test_lost_log, setup_open, teardown),
        cmocka_unit_test_setup_teardown(test_many_news, setup_open, teardown),
        cmocka_unit_test_setup_teardown(test_senseless_rows, setup_open, teardown),
        cmocka_unit_test_setup_teardown(test_partial_schemas, setup, teardown),
        cmocka_unit_test_setup_teardown(test_survives_reopening, setup_open, teardown),
        cmocka_unit_test_setup_teardown(test_pruning, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locked_by_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_set, setup_open, teardown),
    };

    return cmocka_run_group_tests_name("store_sqlite", tests, NULL, NULL);
}
