/*
 * Used macs: the part of the contract of store.h that is theirs, against every backend; then what the
 * SQLite file shows: others' macs, restarts, marks of processes, pruning. (doc/protocol/auth.md, 3)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "macs_fixture.h"
#include "postgres_tool.h"
#include "rqlite_tool.h"
#include "sqlite_tool.h"
#include "tables.h"

/* --- every backend -------------------------------------------------------------------------- */

static void test_added(void **state)
{
    struct macs_fixture *m = *state;

    assert_int_equal(m->fed.lost, 0);
    assert_int_equal(macs_sync(m), STORE_OK);
    for (uint32_t n = 0; n < 100; n++)
        assert_true(macs_add(m, n));
    assert_int_equal(macs_sync(m), STORE_OK);
}

static void on_closed(void *arg)
{
    *(bool *)arg = true;
}

static void test_closing(void **state)
{
    struct macs_fixture *m = *state;
    struct store_client *c;
    char error[256];
    bool closed = false;
    struct store_mac mac = { .keep_until_s = (uint64_t)time(NULL) + 121 };

    assert_true(m->f.ops->client_open(m->f.store, &m->f.loop, &c, error));
    m->f.ops->client_close(c, on_closed, &closed);
    assert_int_equal(m->f.ops->sync_macs(c, NULL, NULL), STORE_UNAVAILABLE);
    assert_false(m->f.ops->add_mac(c, &mac));
    while (!closed)
        uv_run(&m->f.loop, UV_RUN_ONCE);
}

static void test_none_kept(void **state)
{
    struct macs_fixture *m = *state;

    fixture_close(&m->f);
    m->f.conf.macs = (struct store_macs){ 0 };
    fixture_open(&m->f);
    assert_true(macs_add(m, 1));
    assert_int_equal(macs_sync(m), STORE_OK);
    assert_int_equal(m->fed.count, 0);
}

/* --- those with a database ------------------------------------------------------------------ */

/* Until it was fed with those of [from, to). */
static void await_macs(struct macs_fixture *m, uint32_t from, uint32_t to)
{
    for (int i = 0; from < to; i++) {
        table_require(i < 5000, "macs that others see");
        (void)macs_sync(m); /* not while a table is missing */
        while (from < to && macs_has(m, from))
            from++;
        if (from < to)
            uv_sleep(2);
    }
}

static void test_others(void **state)
{
    struct macs_fixture *m = *state;
    struct macs_fixture *other = macs_fixture_create(m->f.ops, m);
    uint32_t n = 0;

    fixture_open(&other->f);
    assert_int_equal(other->fed.lost, 0);
    for (int size = 1; size <= 5000; size *= 10) {
        uint32_t first = n;

        for (int i = 0; i < size; i++)
            assert_true(macs_add(m, n++));
        await_macs(other, first, n);
        assert_int_equal(macs_sync(m), STORE_OK);
    }
    assert_true(m->fed.count <= 1001); /* a batch that is read before its number is noted */
    assert_true(macs_add(other, 60000));
    await_macs(m, 60000, 60001);
    macs_fixture_destroy(other);
}

static void test_restart(void **state)
{
    struct macs_fixture *m = *state;

    for (uint32_t n = 0; n < 10000; n++)
        assert_true(macs_add(m, n));
    fixture_close(&m->f); /* writes them */
    macs_forget(m);
    fixture_open(&m->f);
    assert_int_equal(m->fed.lost, 0);
    for (uint32_t n = 0; n < 10000; n++)
        assert_true(macs_has(m, n));
}

static void drop_table(struct fixture *f)
{
    if (f->ops == &store_sqlite)
        tool_run(f->path, "DROP TABLE lonely_hmacs");
    else if (f->ops == &store_rqlite)
        rqlite_tool_exec("DROP TABLE lonely_hmacs");
    else
        postgres_tool_run(f, "DROP TABLE lonely_hmacs");
}

/* The new table's numbers are behind those of the old one, up to which another has read. It looks when
 * the table is there again. */
static void test_dropped(void **state)
{
    struct macs_fixture *m = *state;
    struct macs_fixture *other = macs_fixture_create(m->f.ops, m);
    struct macs_fixture *third = macs_fixture_create(m->f.ops, m);

    fixture_open(&other->f);
    for (uint32_t n = 0; n < 200; n++)
        assert_true(macs_add(m, n));
    await_macs(other, 0, 200);
    drop_table(&m->f);
    for (uint32_t n = 200; n < 210; n++)
        assert_true(macs_add(m, n));
    fixture_open(&third->f);
    await_macs(third, 200, 210);
    await_macs(other, 200, 210);
    macs_fixture_destroy(third);
    macs_fixture_destroy(other);
}

/* --- the SQLite file ------------------------------------------------------------------------ */

static long long stored(struct macs_fixture *m)
{
    return tool_ask(m->f.path, "SELECT count(*) FROM lonely_hmacs");
}

static void wait_for(struct macs_fixture *m, const char *sql, long long number)
{
    for (int i = 0; tool_ask(m->f.path, sql) != number; i++) {
        table_require(i < 20000, sql);
        uv_sleep(1);
    }
}

static void wait_stored(struct macs_fixture *m, long long count)
{
    wait_for(m, "SELECT count(*) FROM lonely_hmacs", count);
}

static void test_lock_held(void **state)
{
    struct macs_fixture *m = *state;
    struct sqlite3 *db = tool_open(m->f.path, 10000);

    tool_exec(db, "BEGIN IMMEDIATE");
    for (uint32_t n = 0; n < 500; n++)
        assert_true(macs_add(m, n));
    assert_int_equal(macs_sync(m), STORE_OK); /* reading waits for nobody */
    assert_int_equal(stored(m), 0);
    tool_exec(db, "COMMIT");
    sqlite3_close(db);
    wait_stored(m, 500);
}

static void test_bound(void **state)
{
    struct macs_fixture *m = *state;
    struct sqlite3 *db;
    uint32_t n = 0;

    fixture_close(&m->f);
    m->f.conf.max_queued = 100;
    fixture_open(&m->f);
    db = tool_open(m->f.path, 10000);
    tool_exec(db, "BEGIN IMMEDIATE");
    while (macs_add(m, n))
        n++;
    assert_in_range(n, 100, 200); /* twice: what waits, and what the writer has taken */
    tool_exec(db, "COMMIT");
    sqlite3_close(db);
    wait_stored(m, n);
    assert_true(macs_add(m, n));
}

/* What its constraint refuses does not keep the other writes of its commit from being made. */
static void test_failing_table(void **state)
{
    struct macs_fixture *m = *state;
    struct store_row row = { STORE_EXACT, SPAN("http://a/"), SPAN("t"), { NULL, 0 } };

    tool_run(m->f.path, "CREATE TRIGGER mean BEFORE INSERT ON lonely_hmacs BEGIN "
                        "SELECT RAISE(ROLLBACK, 'no'); END");
    assert_true(macs_add(m, 1));
    assert_int_equal(do_subscribe(&m->f, &row), STORE_OK);
    assert_int_equal(stored(m), 0);
    tool_run(m->f.path, "DROP TRIGGER mean");
    wait_stored(m, 1);
}

static void test_marks(void **state)
{
    struct macs_fixture *m = *state;
    char sql[256];

    /* Ended long ago, or before the last boot, or never existed: all have lost their macs. */
    snprintf(sql, sizeof sql,
             "UPDATE lonely_processes SET process = replace(process, ':%ld:', ':4194303:')",
             (long)getpid());
    for (int i = 0; i < 3; i++) {
        const char *const dead[] = { "INSERT INTO lonely_processes VALUES (1, 'nonsense', 0)",
                                     "INSERT INTO lonely_processes VALUES (1, 'boot:1:1', 0)",
                                     sql };

        fixture_close(&m->f);
        fixture_open(&m->f);
        assert_int_equal(m->fed.lost, 0);
        tool_run(m->f.path, dead[i]);
        if (i == 2) { /* ours, which is closed below, took the place of the dead one */
            tool_run(m->f.path, "UPDATE lonely_processes SET id = 2");
        }
        fixture_close(&m->f);
        assert_int_equal(tool_ask(m->f.path, "SELECT count(*) FROM lonely_processes"), 1);
        fixture_open(&m->f);
        assert_int_equal(m->fed.lost, 1);
        assert_int_equal(tool_ask(m->f.path, "SELECT count(*) FROM lonely_processes"), 1);
        macs_forget(m);
    }
}

static void test_killed(void **state)
{
    struct macs_fixture *m = *state;
    int status;
    pid_t pid;

    fixture_close(&m->f);
    pid = fork();
    table_require(pid >= 0, "fork");
    if (pid == 0) {
        fixture_open(&m->f);
        macs_add(m, 7);
        raise(SIGKILL);
    }
    table_require(waitpid(pid, &status, 0) == pid, "waitpid");
    fixture_open(&m->f);
    assert_int_equal(m->fed.lost, 1);
}

static void test_pruning(void **state)
{
    struct macs_fixture *m = *state;

    fixture_close(&m->f);
    tool_run(m->f.path,
             "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3500) "
             "INSERT INTO lonely_hmacs (mac, expires_at) SELECT randomblob(16), "
             "CASE WHEN i % 500 = 0 THEN strftime('%s', 'now') + 100 ELSE 1000 END FROM n");
    fixture_open(&m->f);
    wait_stored(m, 7); /* those that have not expired */
}

/* Rows that no broadcaster writes are passed over. */
static void test_odd_rows(void **state)
{
    struct macs_fixture *m = *state;

    tool_run(m->f.path,
             "INSERT INTO lonely_hmacs (mac, expires_at) VALUES ('x', 9e9), (x'', 9e9), "
             "(randomblob(64), 9e9), (zeroblob(16), -1), (5, 'x'), (randomblob(16), 'soon')");
    assert_int_equal(macs_sync(m), STORE_OK);
    assert_int_equal(m->fed.count, 0);
}

static const struct suite {
    const char *name;
    CMUnitTestFunction function;
    bool has_database;
} suite[] = {
    { "added", test_added, false },         { "closing", test_closing, false },
    { "none kept", test_none_kept, false }, { "others", test_others, true },
    { "restart", test_restart, true },      { "dropped table", test_dropped, true },
};

enum { SUITE = TABLE_LEN(suite), BACKENDS_MAX = 4, NAME_SIZE = 100 };

/* Their number. */
static size_t add_suite(const struct store_ops *ops, struct CMUnitTest *tests,
                        char (*names)[NAME_SIZE])
{
    size_t n = 0;

    for (size_t i = 0; i < SUITE; i++) {
        if (suite[i].has_database && ops == &store_memory)
            continue;
        snprintf(names[n], NAME_SIZE, "%s: %s", ops->name, suite[i].name);
        tests[n] = (struct CMUnitTest){ .name = names[n],
                                        .test_func = suite[i].function,
                                        .setup_func = macs_fixture_setup,
                                        .teardown_func = macs_fixture_teardown,
                                        .initial_state = (void *)(uintptr_t)ops };
        n++;
    }
    return n;
}

int main(void)
{
#define TEST(name)                                                                            \
    cmocka_unit_test_prestate_setup_teardown(name, macs_fixture_setup, macs_fixture_teardown, \
                                             (void *)(uintptr_t)&store_sqlite)
    const struct CMUnitTest of_sqlite[] = {
        TEST(test_lock_held), TEST(test_bound),   TEST(test_failing_table), TEST(test_marks),
        TEST(test_killed),    TEST(test_pruning), TEST(test_odd_rows),
    };
    enum { OF_SQLITE = TABLE_LEN(of_sqlite) };
    static struct CMUnitTest tests[BACKENDS_MAX * SUITE + OF_SQLITE];
    static char names[BACKENDS_MAX * SUITE][NAME_SIZE];
    const struct store_ops *backends[BACKENDS_MAX];
    size_t count = fixture_backends(backends), n = 0;

    for (size_t i = 0; i < count; i++)
        n += add_suite(backends[i], tests + n, names + n);
    if (backends[0] == &store_sqlite) {
        memcpy(tests + n, of_sqlite, sizeof of_sqlite);
        n += OF_SQLITE;
    }
    return _cmocka_run_group_tests("store_macs", tests, n, NULL, NULL);
}
