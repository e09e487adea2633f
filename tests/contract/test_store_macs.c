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

#include "mem.h"
#include "sqlite_tool.h"
#include "store_fixture.h"
#include "tables.h"

/* What a store has fed. */
struct fed {
    pthread_mutex_t lock;
    uint8_t seen[65536]; /* by the number in the code */
    size_t count;
    int lost;
};

struct macs {
    struct fixture f; /* first */
    struct fed fed;
};

static struct store_mac mac_of(uint32_t n)
{
    struct store_mac mac = { .keep_until_s = (uint64_t)time(NULL) + 121 };

    memset(mac.code, 0xa5, sizeof mac.code);
    memcpy(mac.code, &n, sizeof n);
    return mac;
}

static void on_mac(void *arg, const struct store_mac *mac)
{
    struct fed *fed = arg;
    uint32_t n;

    memcpy(&n, mac->code, sizeof n);
    pthread_mutex_lock(&fed->lock);
    fed->seen[n % sizeof fed->seen]++;
    fed->count++;
    pthread_mutex_unlock(&fed->lock);
}

static void on_lost(void *arg)
{
    ((struct fed *)arg)->lost++;
}

static bool has(struct fed *fed, uint32_t n)
{
    bool seen;

    pthread_mutex_lock(&fed->lock);
    seen = fed->seen[n % sizeof fed->seen] > 0;
    pthread_mutex_unlock(&fed->lock);
    return seen;
}

static void forget(struct fed *fed)
{
    pthread_mutex_lock(&fed->lock);
    memset(fed->seen, 0, sizeof fed->seen);
    fed->count = 0;
    fed->lost = 0;
    pthread_mutex_unlock(&fed->lock);
}

static void fed_init(struct fed *fed, struct store_conf *conf)
{
    pthread_mutex_init(&fed->lock, NULL);
    conf->macs = (struct store_macs){ on_mac, on_lost, fed };
}

static int setup(void **state)
{
    struct macs *m = mem_calloc(1, sizeof *m);

    fixture_init(&m->f, *state);
    fed_init(&m->fed, &m->f.conf);
    fixture_open(&m->f);
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    struct macs *m = *state;

    fixture_fini(&m->f);
    pthread_mutex_destroy(&m->fed.lock);
    mem_free(m);
    return 0;
}

static enum store_status sync_macs(struct fixture *f)
{
    struct reply *r = mem_calloc(1, sizeof *r);
    enum store_status status;

    reply_expect(r);
    status = f->ops->sync_macs(f->client, on_reply, r);
    if (status == STORE_PENDING) {
        r->may_run = true;
        reply_wait(f, r);
        status = r->status;
    }
    mem_free(r);
    return status;
}

static bool add(struct fixture *f, uint32_t n)
{
    struct store_mac mac = mac_of(n);

    return f->ops->add_mac(f->client, &mac);
}

/* --- every backend -------------------------------------------------------------------------- */

static void test_added(void **state)
{
    struct macs *m = *state;

    assert_int_equal(m->fed.lost, 0);
    assert_int_equal(sync_macs(&m->f), STORE_OK);
    for (uint32_t n = 0; n < 100; n++)
        assert_true(add(&m->f, n));
    assert_int_equal(sync_macs(&m->f), STORE_OK);
}

static void on_closed(void *arg)
{
    *(bool *)arg = true;
}

static void test_closing(void **state)
{
    struct macs *m = *state;
    struct store_client *c;
    char error[256];
    bool closed = false;
    struct store_mac mac = mac_of(1);

    assert_true(m->f.ops->client_open(m->f.store, &m->f.loop, &c, error));
    m->f.ops->client_close(c, on_closed, &closed);
    assert_int_equal(m->f.ops->sync_macs(c, NULL, NULL), STORE_UNAVAILABLE);
    assert_false(m->f.ops->add_mac(c, &mac));
    while (!closed)
        uv_run(&m->f.loop, UV_RUN_ONCE);
}

static void test_none_kept(void **state)
{
    struct macs *m = *state;

    fixture_close(&m->f);
    m->f.conf.macs = (struct store_macs){ 0 };
    fixture_open(&m->f);
    assert_true(add(&m->f, 1));
    assert_int_equal(sync_macs(&m->f), STORE_OK);
    assert_int_equal(m->fed.count, 0);
}

/* --- the SQLite file ------------------------------------------------------------------------ */

static long long stored(struct macs *m)
{
    return tool_ask(m->f.path, "SELECT count(*) FROM lonely_hmacs");
}

static void wait_for(struct macs *m, const char *sql, long long number)
{
    for (int i = 0; tool_ask(m->f.path, sql) != number; i++) {
        table_require(i < 20000, sql);
        uv_sleep(1);
    }
}

static void wait_stored(struct macs *m, long long count)
{
    wait_for(m, "SELECT count(*) FROM lonely_hmacs", count);
}

static void test_restart(void **state)
{
    struct macs *m = *state;

    for (uint32_t n = 0; n < 10000; n++)
        assert_true(add(&m->f, n));
    fixture_close(&m->f); /* writes them */
    assert_int_equal(stored(m), 10000);
    assert_int_equal(tool_ask(m->f.path, "SELECT count(*) FROM lonely_processes"), 0);
    forget(&m->fed);
    fixture_open(&m->f);
    assert_int_equal(m->fed.lost, 0);
    for (uint32_t n = 0; n < 10000; n++)
        assert_true(has(&m->fed, n));
}

/* A second store on the file: what one adds the other sees; own macs are not read again. */
static void test_others(void **state)
{
    struct macs *m = *state;
    struct fixture *other = mem_alloc(sizeof *other);
    struct fed *fed = mem_calloc(1, sizeof *fed);
    uint32_t n = 0;

    fixture_init(other, m->f.ops);
    other->conf.path = m->f.path;
    fed_init(fed, &other->conf);
    fixture_open(other);
    assert_int_equal(fed->lost, 0);
    assert_int_equal(tool_ask(m->f.path, "SELECT count(*) FROM lonely_processes"), 2);
    for (int size = 1; size <= 5000; size *= 10) {
        uint32_t first = n;

        for (int i = 0; i < size; i++)
            assert_true(add(&m->f, n++));
        wait_stored(m, n);
        assert_int_equal(sync_macs(other), STORE_OK);
        for (uint32_t i = first; i < n; i++)
            assert_true(has(fed, i));
    }
    assert_int_equal(fed->count, n);

    assert_int_equal(sync_macs(&m->f), STORE_OK);
    assert_true(m->fed.count <= 1000); /* a batch that is read before its number is noted */
    assert_true(add(other, 60000));
    wait_stored(m, n + 1);
    assert_int_equal(sync_macs(&m->f), STORE_OK);
    assert_true(has(&m->fed, 60000));
    fixture_fini(other);
    pthread_mutex_destroy(&fed->lock);
    mem_free(fed);
    mem_free(other);
}

static void test_lock_held(void **state)
{
    struct macs *m = *state;
    struct sqlite3 *db = tool_open(m->f.path, 10000);

    tool_exec(db, "BEGIN IMMEDIATE");
    for (uint32_t n = 0; n < 500; n++)
        assert_true(add(&m->f, n));
    assert_int_equal(sync_macs(&m->f), STORE_OK); /* reading waits for nobody */
    assert_int_equal(stored(m), 0);
    tool_exec(db, "COMMIT");
    sqlite3_close(db);
    wait_stored(m, 500);
}

static void test_bound(void **state)
{
    struct macs *m = *state;
    struct sqlite3 *db;
    uint32_t n = 0;

    fixture_close(&m->f);
    m->f.conf.max_queued = 100;
    fixture_open(&m->f);
    db = tool_open(m->f.path, 10000);
    tool_exec(db, "BEGIN IMMEDIATE");
    while (add(&m->f, n))
        n++;
    assert_in_range(n, 100, 200); /* twice: what waits, and what the writer has taken */
    tool_exec(db, "COMMIT");
    sqlite3_close(db);
    wait_stored(m, n);
    assert_true(add(&m->f, n));
}

/* What its constraint refuses does not keep the other writes of its commit from being made. */
static void test_failing_table(void **state)
{
    struct macs *m = *state;
    struct store_row row = { STORE_EXACT, SPAN("http://a/"), SPAN("t"), { NULL, 0 } };

    tool_run(m->f.path, "CREATE TRIGGER mean BEFORE INSERT ON lonely_hmacs BEGIN "
                        "SELECT RAISE(ROLLBACK, 'no'); END");
    assert_true(add(&m->f, 1));
    assert_int_equal(do_subscribe(&m->f, &row), STORE_OK);
    assert_int_equal(stored(m), 0);
    tool_run(m->f.path, "DROP TRIGGER mean");
    wait_stored(m, 1);
}

static void test_dropped_table(void **state)
{
    struct macs *m = *state;

    tool_run(m->f.path, "DROP TABLE lonely_hmacs");
    assert_true(add(&m->f, 1));
    wait_for(m, "SELECT count(*) FROM sqlite_master WHERE name = 'lonely_hmacs'", 1);
    wait_stored(m, 1);
    for (int i = 0; sync_macs(&m->f) != STORE_OK; i++) {
        table_require(i < 1000, "a table that is made again");
        uv_sleep(5);
    }
}

static void test_marks(void **state)
{
    struct macs *m = *state;
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
        forget(&m->fed);
    }
}

static void test_killed(void **state)
{
    struct macs *m = *state;
    int status;
    pid_t pid;

    fixture_close(&m->f);
    pid = fork();
    table_require(pid >= 0, "fork");
    if (pid == 0) {
        fixture_open(&m->f);
        add(&m->f, 7);
        raise(SIGKILL);
    }
    table_require(waitpid(pid, &status, 0) == pid, "waitpid");
    fixture_open(&m->f);
    assert_int_equal(m->fed.lost, 1);
}

static void test_pruning(void **state)
{
    struct macs *m = *state;

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
    struct macs *m = *state;

    tool_run(m->f.path,
             "INSERT INTO lonely_hmacs (mac, expires_at) VALUES ('x', 9e9), (x'', 9e9), "
             "(randomblob(64), 9e9), (zeroblob(16), -1), (5, 'x'), (randomblob(16), 'soon')");
    assert_int_equal(sync_macs(&m->f), STORE_OK);
    assert_int_equal(m->fed.count, 0);
}

static const struct {
    const char *name;
    CMUnitTestFunction function;
} suite[] = {
    { "added", test_added },
    { "closing", test_closing },
    { "none kept", test_none_kept },
};

int main(void)
{
#define TEST(name)                                                  \
    cmocka_unit_test_prestate_setup_teardown(name, setup, teardown, \
                                             (void *)(uintptr_t)&store_sqlite)
    const struct CMUnitTest of_sqlite[] = {
        TEST(test_restart),       TEST(test_others),        TEST(test_lock_held), TEST(test_bound),
        TEST(test_failing_table), TEST(test_dropped_table), TEST(test_marks),     TEST(test_killed),
        TEST(test_pruning),       TEST(test_odd_rows),
    };
    enum { N = TABLE_LEN(suite), OF_SQLITE = TABLE_LEN(of_sqlite), BACKENDS_MAX = 4 };
    static struct CMUnitTest tests[BACKENDS_MAX * N + OF_SQLITE];
    static char names[BACKENDS_MAX * N][100];
    const struct store_ops *backends[BACKENDS_MAX];
    size_t n = fixture_backends(backends) * N;

    for (size_t i = 0; i < n; i++) {
        const struct store_ops *ops = backends[i / N];

        snprintf(names[i], sizeof names[i], "%s: %s", ops->name, suite[i % N].name);
        tests[i] = (struct CMUnitTest){ .name = names[i],
                                        .test_func = suite[i % N].function,
                                        .setup_func = setup,
                                        .teardown_func = teardown,
                                        .initial_state = (void *)(uintptr_t)ops };
    }
    if (backends[0] == &store_sqlite) {
        memcpy(tests + n, of_sqlite, sizeof of_sqlite);
        n += OF_SQLITE;
    }
    return _cmocka_run_group_tests("store_macs", tests, n, NULL, NULL);
}
