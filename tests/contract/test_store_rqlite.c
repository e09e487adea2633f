/*
 * The rqlite store and other programs on the same database: their changes, their rows that make no
 * sense, what they drop; other broadcasters' used macs; and nodes that are not there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "macs_fixture.h"
#include "mem.h"
#include "rqlite_tool.h"
#include "tables.h"

static const struct lonely_span url_a = { (const uint8_t *)"http://a/", 9 };
static const struct lonely_span rec_1 = { (const uint8_t *)"http://r/1", 10 };
static const struct lonely_span none = { NULL, 0 };

static int setup(void **state)
{
    *state = (void *)(uintptr_t)&store_rqlite;
    return macs_fixture_setup(state);
}

static struct store_row exact(const char *key, struct lonely_span recovery)
{
    return (struct store_row){ STORE_EXACT, url_a, span_of(key), recovery };
}

static struct store_row glob(const char *key, struct lonely_span recovery)
{
    return (struct store_row){ STORE_GLOB, url_a, span_of(key), recovery };
}

static void wait_for(const char *sql, int64_t number)
{
    for (int i = 0; rqlite_tool_number(sql) != number; i++) {
        table_require(i < 5000, sql);
        uv_sleep(2);
    }
}

/* --- changes of others ---------------------------------------------------------------------- */

static void test_others_changes(void **state)
{
    struct fixture *f = *state;
    const struct {
        const char *sql;
        size_t count; /* rows afterwards */
        struct store_row has, lacks;
    } steps[] = {
        { "INSERT INTO " EXACTS " (url, exact) VALUES ('http://a/', x'78')", 1, exact("x", none),
          exact("y", none) },
        { "INSERT INTO " GLOBS " (url, glob, missed_url) VALUES ('http://a/', 'x*', 'r')", 2,
          glob("x*", span_of("r")), glob("x", none) },
        { "UPDATE " EXACTS " SET exact = x'79'", 2, exact("y", none), exact("x", none) },
        { "UPDATE " EXACTS " SET missed_url = 'p', exact = x'7a'", 2, exact("z", span_of("p")),
          exact("y", none) },
        { "UPDATE " GLOBS " SET missed_url = NULL", 2, glob("x*", none), glob("x", none) },
        { "UPDATE " GLOBS " SET url = 'http://b/'", 2, exact("z", span_of("p")), glob("x*", none) },
        { "INSERT OR REPLACE INTO " EXACTS " (url, exact, missed_url) VALUES ('http://a/', x'7a', "
          "'n')",
          2, exact("z", span_of("n")), exact("y", none) },
        { "INSERT INTO " EXACTS " (url, exact) VALUES (x'75', x'77'), ('http://a/', 'w'), "
          "('http://a/', zeroblob(65536))",
          2, exact("z", span_of("n")), exact("w", none) },
        { "DELETE FROM " GLOBS, 1, exact("z", span_of("n")), glob("x*", none) },
    };

    for (size_t i = 0; i < TABLE_LEN(steps); i++) {
        rqlite_tool_exec(steps[i].sql);
        assert_int_equal(do_sync(f), STORE_OK);
        if (model_count(&f->model) != steps[i].count || !model_has(&f->model, &steps[i].has) ||
            model_has_key(&f->model, &steps[i].lacks))
            fail_msg("%s", steps[i].sql);
    }
    assert_int_equal(atomic_load(&f->model.loads), 1);
}

/* More news than one reading takes, in rows and in bytes. */
static void test_much_news(void **state)
{
    struct fixture *f = *state;
    uint8_t got[64], want[64];

    rqlite_tool_exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE "
                     "i < 12000) INSERT INTO " EXACTS " (url, exact) SELECT 'http://a/', CAST(i AS "
                     "BLOB) FROM n");
    assert_int_equal(do_sync(f), STORE_OK);
    assert_int_equal(model_count(&f->model), 12000);
    rqlite_tool_exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE "
                     "i < 100) INSERT INTO " EXACTS " (url, exact) SELECT 'http://a/', "
                     "CAST(printf('%060000d', i) AS BLOB) FROM n");
    assert_int_equal(do_sync(f), STORE_OK);
    assert_int_equal(model_count(&f->model), 12100);
    assert_int_equal(atomic_load(&f->model.loads), 1);
    model_etag(&f->model, url_a, want);
    assert_int_equal(do_check(f, url_a, got), STORE_OK);
    assert_memory_equal(got, want, 64);
    fixture_close(f);
    fixture_open(f); /* the same by pages of the tables */
    assert_int_equal(model_count(&f->model), 12100);
}

/* Everything at once, from several ranges of ids: what JSON would lose, what is long, what is far away
 * and what makes no sense. The change log, which brings it in another way, is the measure. */
static void test_load(void **state)
{
    static const char *const sql[] = {
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 90000) INSERT "
        "INTO " EXACTS " (url, exact) SELECT 'http://a/', CAST('plain/' || i AS BLOB) FROM n",
        "INSERT INTO " EXACTS " (id, url, exact, missed_url) VALUES "
        "(-9223372036854775807 - 1, 'http://a/', x'', 'http://r/1'), "
        "(9223372036854775807, 'http://a/', x'00', NULL), (-5, 'http://a/', x'80', 'http://r/1'), "
        "(200000, 'http://a/', x'6100ff', NULL), (200001, 'http://a/', x'efbfbd', NULL), "
        "(200002, 'http://a/', x'eda080c3', 'http://r/1'), (200003, 'http://a/', x'225c0a7f', x'')",
        "INSERT INTO " EXACTS " (url, exact, id) VALUES ('http://a/', '9,1,0:http://b/x', 300000), "
        "('http://a/', CAST('9,1,0:http://b/x' AS BLOB), 300001), (x'75', x'77', 300002), "
        "('http://a/', zeroblob(65536), 300003), ('http://a/', zeroblob(3000000), 300004)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT "
        "INTO " EXACTS " (id, url, exact, missed_url) SELECT 400000 + i, 'http://a/', CAST("
        "printf('%065000d', i) AS BLOB), printf('%065000d', i) FROM n",
        "INSERT INTO " GLOBS " (url, glob, missed_url) VALUES ('http://a/', CAST(x'2aff' AS TEXT), "
        "NULL), ('http://a/', 'a*', 'http://r/1'), ('http://a/', x'2a', NULL)",
    };
    struct fixture *f = *state;
    uint8_t before[64], after[64];
    size_t count;

    for (size_t i = 0; i < TABLE_LEN(sql); i++)
        rqlite_tool_exec(sql[i]);
    assert_int_equal(do_sync(f), STORE_OK);
    count = model_count(&f->model);
    assert_int_equal(count, 90000 + 7 + 1 + 100 + 2);
    model_etag(&f->model, url_a, before);
    assert_int_equal(atomic_load(&f->model.loads), 1);
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(model_count(&f->model), count);
    model_etag(&f->model, url_a, after);
    assert_memory_equal(after, before, 64);
    fixture_close(f);
}

/* What was applied last is gone: everything is loaded anew. */
static void test_lost_log(void **state)
{
    struct fixture *f = *state;
    struct store_row row = exact("e", rec_1), other = exact("o", none);

    assert_int_equal(do_subscribe(f, &row), STORE_OK);
    assert_int_equal(do_sync(f), STORE_OK);
    rqlite_tool_run(
        "[\"DELETE FROM " EXACTS "\",\"INSERT INTO " EXACTS
        " (url, exact) VALUES ('http://a/', x'6f')\",\"DELETE FROM lonely_changes WHERE "
        "seq < (SELECT max(seq) FROM lonely_changes)\"]");
    assert_int_equal(do_sync(f), STORE_OK);
    assert_int_equal(atomic_load(&f->model.loads), 2);
    assert_true(model_has(&f->model, &other));
    assert_false(model_has_key(&f->model, &row));
}

static void test_pruned_log(void **state)
{
    struct fixture *f = *state;

    rqlite_tool_exec(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE "
        "i < 2500) INSERT INTO lonely_changes (at, kind, op) SELECT 1000, 0, 0 FROM n");
    rqlite_tool_exec("UPDATE lonely_changes SET at = 1000");
    fixture_close(f);
    fixture_open(f);
    wait_for("SELECT count(*) FROM lonely_changes", 1); /* never the newest */
    assert_int_equal(do_sync(f), STORE_OK);
}

static void test_missed_columns_are_not_logged(void **state)
{
    struct fixture *f = *state;
    struct store_row e = exact("e", rec_1);
    struct reply *r = mem_alloc(sizeof *r);
    int64_t before;

    assert_int_equal(do_subscribe(f, &e), STORE_OK);
    before = rqlite_tool_number("SELECT max(seq) FROM lonely_changes");
    assert_int_equal(do_missed_upsert(f, &e, span_of("e"), 0, 1.5), STORE_OK);
    assert_int_equal(rqlite_tool_number("SELECT missed_next_retry_at FROM " EXACTS), 2);
    assert_int_equal(do_missed_lock(f, 2, r), STORE_OK);
    assert_int_equal(rqlite_tool_number("SELECT missed_lock_expires_at FROM " EXACTS), 32);
    assert_int_equal(do_missed_clear(f, &r->item), STORE_OK);
    assert_int_equal(rqlite_tool_number("SELECT max(seq) FROM lonely_changes"), before);
    mem_free(r);
}

/* Somebody dropped a table of ours: it is made again, and the index follows. */
static void test_dropped_tables(void **state)
{
    struct fixture *f = *state;
    static const char *const drops[] = { "lonely_changes", EXACTS, "lonely_processes", GLOBS };
    struct store_row row = exact("e", none), again = exact("again", none);
    char sql[100];

    for (size_t i = 0; i < TABLE_LEN(drops); i++) {
        do_subscribe(f, &row);
        assert_int_equal(do_sync(f), STORE_OK);
        snprintf(sql, sizeof sql, "DROP TABLE %s", drops[i]);
        rqlite_tool_exec(sql);
        if (i == 3)
            rqlite_tool_exec("DROP TABLE " EXACTS);
        assert_int_equal(do_subscribe(f, &again), STORE_OK);
        assert_int_equal(do_sync(f), STORE_OK);
        assert_true(model_has(&f->model, &again));
        assert_int_equal(model_has_key(&f->model, &row), i == 0 || i == 2);
        assert_int_equal(do_unsubscribe(f, &again), STORE_OK);
        assert_int_equal(do_sync(f), STORE_OK);
        assert_false(model_has_key(&f->model, &again));
    }
}

/* What somebody's trigger does to one operation does not concern the others of its transaction. */
static void test_failing_trigger(void **state)
{
    struct fixture *f = *state;
    enum { N = 40 };
    struct reply *replies = mem_calloc(N, sizeof *replies);

    rqlite_tool_exec("CREATE TRIGGER mean BEFORE INSERT ON " EXACTS
                     " WHEN NEW.exact = x'6d' BEGIN SELECT RAISE(ABORT, 'no'); END");
    for (int i = 0; i < N; i++) {
        char key[8];
        struct store_row row;

        snprintf(key, sizeof key, i % 10 == 0 ? "m" : "k%d", i);
        row = exact(key, none);
        reply_expect(&replies[i]);
        f->ops->subscribe(f->client, &row, on_reply, &replies[i]);
        replies[i].may_run = true;
    }
    for (int i = 0; i < N; i++) {
        reply_wait(f, &replies[i]);
        assert_int_equal(replies[i].status, i % 10 == 0 ? STORE_UNAVAILABLE : STORE_OK);
    }
    assert_int_equal(do_sync(f), STORE_OK);
    assert_int_equal(model_count(&f->model), N - N / 10);
    mem_free(replies);
}

/* --- used macs ------------------------------------------------------------------------------ */

static void test_odd_macs(void **state)
{
    struct macs_fixture *e = *state;

    rqlite_tool_exec("INSERT INTO lonely_hmacs (mac, expires_at) VALUES ('x', 9e9), (x'', 9), "
                     "(randomblob(64), 9), (zeroblob(16), -1), (5, 'x')");
    e->fed.count = 0;
    assert_int_equal(macs_sync(e), STORE_OK);
    assert_int_equal(e->fed.count, 0);
}

static void test_expired_macs_are_pruned(void **state)
{
    struct macs_fixture *e = *state;

    fixture_close(&e->f);
    rqlite_tool_exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE "
                     "i < 2500) INSERT INTO lonely_hmacs (mac, expires_at) SELECT zeroblob(16), "
                     "CASE WHEN i % 500 = 0 THEN 9000000000 ELSE 1000 END FROM n");
    fixture_open(&e->f);
    wait_for("SELECT count(*) FROM lonely_hmacs", 5);
}

static void test_killed(void **state)
{
    struct macs_fixture *e = *state;
    int status;
    pid_t pid;

    fixture_close(&e->f);
    pid = fork();
    table_require(pid >= 0, "fork");
    if (pid == 0) {
        fixture_open(&e->f);
        macs_add(e, 7);
        raise(SIGKILL);
    }
    table_require(waitpid(pid, &status, 0) == pid, "waitpid");
    fixture_open(&e->f);
    assert_int_equal(e->fed.lost, 1);
    fixture_close(&e->f);
    fixture_open(&e->f);
    assert_int_equal(e->fed.lost, 1); /* told once */

    /* One of another machine, that has said nothing for long; and one that has, of late. */
    fixture_close(&e->f);
    rqlite_tool_exec("INSERT INTO lonely_processes (id, batch, at, until, process, keeps_macs) "
                     "VALUES (2, 1, 1000, 9000000000000000, 'boot:1:1', 1), (4, 1, (SELECT max(at) "
                     "FROM lonely_processes), 9000000000000000, 'boot:2:2', 1)");
    fixture_open(&e->f);
    assert_int_equal(e->fed.lost, 2);
    assert_int_equal(rqlite_tool_number("SELECT count(*) FROM lonely_processes WHERE id = 2"), 0);
    assert_int_equal(rqlite_tool_number("SELECT keeps_macs FROM lonely_processes WHERE id = 4"), 1);
}

/* --- time ----------------------------------------------------------------------------------- */

/* Another broadcaster's clock is hours ahead: our writes are done all the same. */
static void test_clocks_need_not_agree(void **state)
{
    struct fixture *f = *state;
    struct store_row row = exact("e", none);

    rqlite_tool_exec("INSERT INTO lonely_processes (id, batch, at, until) SELECT 2, 1, "
                     "max(at) + 10000000, 9000000000000000 FROM lonely_processes");
    assert_int_equal(do_subscribe(f, &row), STORE_OK);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_true(model_has(&f->model, &row));
    assert_int_equal(do_unsubscribe(f, &row), STORE_OK);
}

/* --- nodes that are not there, and mistakes ------------------------------------------------- */

static void assert_refused(struct fixture *f, char *url, const char *word)
{
    char *urls[] = { url };
    struct store_conf conf = f->conf;
    struct store_feed feed = model_feed(&f->model);
    struct store *store = NULL;
    char error[256] = "";

    conf.urls = urls;
    conf.timeout_ms = 1000;
    assert_false(f->ops->open(&conf, &feed, &store, error));
    assert_null(store);
    if (strstr(error, word) == NULL || strchr(error, '\n') != NULL || strstr(error, "secret"))
        fail_msg("%s: %s, not %s", url, error, word);
}

static void test_bad_urls(void **state)
{
    struct fixture *f = *state;
    char *urls[] = { (char[]){ "ftp://u:secret@h:1" },
                     (char[]){ "http://u:secret@h:x" },
                     (char[]){ "http://u:secret@h:1/path" },
                     (char[]){ "http://u:secret@h:1#x" },
                     (char[]){ "http://u:secret@h:1?ca=x" },
                     (char[]){ "https://u:secret@h:1?key=x" },
                     (char[]){ "" } };

    for (size_t i = 0; i < TABLE_LEN(urls); i++)
        assert_refused(f, urls[i], "database.url, number 1");
    assert_refused(f, (char[]){ "http://u:secret@127.0.0.1:1" }, "onnect");
}

static void test_newer_schema(void **state)
{
    struct fixture *f = *state;

    fixture_close(f);
    rqlite_tool_exec("UPDATE lonely_schema SET version = 99");
    assert_refused(f, f->conf.urls[0], "newer release");
    rqlite_tool_exec("UPDATE lonely_schema SET version = 1");
    fixture_open(f);
}

/* The first node of two is nobody. */
static void test_dead_node(void **state)
{
    struct fixture *f = *state;
    char *urls[] = { (char[]){ "http://127.0.0.1:1" }, f->conf.urls[0] };
    struct store_row row = exact("e", none);

    fixture_close(f);
    f->conf.urls = urls;
    f->conf.n_urls = 2;
    fixture_open(f);
    assert_int_equal(do_subscribe(f, &row), STORE_OK);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_true(model_has(&f->model, &row));
    fixture_close(f);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, macs_fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_others_changes), TEST(test_much_news),
        TEST(test_load),           TEST(test_lost_log),
        TEST(test_pruned_log),     TEST(test_missed_columns_are_not_logged),
        TEST(test_dropped_tables), TEST(test_failing_trigger),
        TEST(test_odd_macs),       TEST(test_expired_macs_are_pruned),
        TEST(test_killed),         TEST(test_clocks_need_not_agree),
        TEST(test_bad_urls),       TEST(test_newer_schema),
        TEST(test_dead_node),
    };

    return cmocka_run_group_tests_name("store_rqlite", tests, NULL, NULL);
}
