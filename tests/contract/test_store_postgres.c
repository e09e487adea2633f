/*
 * What only the PostgreSQL store can show: rows changed by others, gaps in the change log, sessions
 * that end, locks that others hold, used macs of several broadcasters.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <libpq-fe.h>

#include "macs_fixture.h"
#include "mem.h"
#include "postgres_tool.h"

#define EXACTS "httppubsub_subscription_exacts"
#define GLOBS  "httppubsub_subscription_globs"

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

/* --- another program ------------------------------------------------------------------------ */

static void wait_for(struct fixture *f, const char *sql, long long number)
{
    PGconn *pg = postgres_tool_open(f);

    for (int i = 0; postgres_tool_number(pg, sql) != number; i++) {
        table_require(i < 6000, sql);
        uv_sleep(5);
    }
    PQfinish(pg);
}

#define END_SESSIONS                                                              \
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> " \
    "pg_backend_pid() AND application_name = 'lonelypss'"

static int setup(void **state)
{
    *state = (void *)(uintptr_t)&store_postgres;
    return macs_fixture_setup(state);
}

/* The feeder, for a lock. */
#define WAITING                                                       \
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = " \
    "'lonelypss' AND wait_event_type = 'Lock' AND query LIKE 'SELECT seq, mark%'"

static void reopen(struct fixture *f, uint64_t timeout_ms)
{
    fixture_close(f);
    f->conf.timeout_ms = timeout_ms;
    fixture_open(f);
}

/* --- rows of others ------------------------------------------------------------------------- */

static void test_rows_of_others(void **state)
{
    struct macs_fixture *t = *state;
    const struct {
        const char *sql;
        struct store_row there, gone;
    } steps[] = {
        { "INSERT INTO " EXACTS " (url, exact) VALUES ('http://a/', 't')", exact("t", none),
          exact("u", none) },
        { "UPDATE " EXACTS " SET exact = 'u'", exact("u", none), exact("t", none) },
        { "UPDATE " EXACTS " SET missed_url = 'http://r/1'", exact("u", rec_1), exact("t", none) },
        { "INSERT INTO " GLOBS " (url, glob) VALUES ('http://a/', 'g*')", glob("g*", none),
          exact("t", none) },
        { "UPDATE " GLOBS " SET url = 'http://b/'", exact("u", rec_1), glob("g*", none) },
        { "UPDATE " GLOBS " SET url = 'http://a/'; DELETE FROM " EXACTS, glob("g*", none),
          exact("u", rec_1) },
        { "INSERT INTO " EXACTS " (url, exact) VALUES ('http://a/', 'x'); TRUNCATE " GLOBS,
          exact("x", none), glob("g*", none) },
    };

    for (size_t i = 0; i < TABLE_LEN(steps); i++) {
        postgres_tool_run(&t->f, steps[i].sql);
        assert_int_equal(do_sync(&t->f), STORE_OK);
        assert_true(model_has(&t->f.model, &steps[i].there));
        assert_false(model_has_key(&t->f.model, &steps[i].gone));
    }
}

static void test_what_is_not_logged(void **state)
{
    struct macs_fixture *t = *state;
    struct store_row row = exact("t", rec_1);
    long long before;

    assert_int_equal(do_subscribe(&t->f, &row), STORE_OK);
    before = postgres_tool_run(&t->f, "SELECT max(seq) FROM lonely_changes");
    assert_int_equal(do_subscribe(&t->f, &row), STORE_CONFLICT);
    assert_int_equal(do_missed_upsert(&t->f, &row, span_of("t"), 1, 10), STORE_OK);
    postgres_tool_run(&t->f, "UPDATE " EXACTS
                             " SET missed_attempts = 3, url = url, missed_url = missed_url");
    postgres_tool_run(&t->f, "BEGIN; DELETE FROM " EXACTS "; ROLLBACK");
    assert_int_equal(
        postgres_tool_run(&t->f, "SELECT count(*) FROM lonely_changes WHERE kind = 0 AND op > 0"),
        1);
    assert_int_equal(postgres_tool_run(&t->f, "SELECT max(seq) FROM lonely_changes"), before);
}

static void test_many_at_once(void **state)
{
    struct macs_fixture *t = *state;

    postgres_tool_run(&t->f,
                      "INSERT INTO " EXACTS " (url, exact) SELECT 'http://a/', i::text::bytea FROM "
                      "generate_series(1, 9000) i");
    assert_int_equal(do_sync(&t->f), STORE_OK);
    assert_int_equal(model_count(&t->f.model), 9000);
    assert_int_equal(atomic_load(&t->f.model.loads), 1);
    postgres_tool_run(&t->f, "DELETE FROM " EXACTS " WHERE exact <> '77'");
    assert_int_equal(do_sync(&t->f), STORE_OK);
    assert_int_equal(model_count(&t->f.model), 1);
}

/* Sanitizers keep what was freed. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PEAK_MAX_MB 1000
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define PEAK_MAX_MB 1000
#endif
#endif
#ifndef PEAK_MAX_MB
#define PEAK_MAX_MB 60
#endif

/* The most memory that the process has had since, in MB. */
static long memory_peak_mb(bool begin)
{
    FILE *f = fopen(begin ? "/proc/self/clear_refs" : "/proc/self/status", begin ? "w" : "r");
    char line[256];
    long peak_kb = 0;

    table_require(f != NULL, "/proc");
    if (begin)
        fputs("5", f);
    while (!begin && fgets(line, sizeof line, f) != NULL)
        (void)sscanf(line, "VmHWM: %ld", &peak_kb);
    fclose(f);
    return begin ? memory_peak_mb(false) : peak_kb / 1024;
}

/* 120 MB of news, or of rows of one url, are not in memory at once. */
static void test_long_rows(void **state)
{
    struct macs_fixture *t = *state;
    struct store_row row = exact("short", none);
    uint8_t etag[64], want[64];
    long before;

    assert_int_equal(do_subscribe(&t->f, &row), STORE_OK);
    assert_int_equal(do_sync(&t->f), STORE_OK);
    postgres_tool_run(&t->f, "DO $$ BEGIN FOR i IN 1 .. 1000 LOOP UPDATE " EXACTS
                             " SET exact = convert_to(lpad(i::text, 60000, '0'), 'UTF8'), "
                             "missed_url = convert_to(lpad(i::text, 60000, '0'), 'UTF8'); "
                             "END LOOP; END $$");
    before = memory_peak_mb(true);
    assert_int_equal(do_sync(&t->f), STORE_OK);
    assert_in_range(memory_peak_mb(false) - before, 0, PEAK_MAX_MB);
    assert_int_equal(model_count(&t->f.model), 1);
    assert_int_equal(atomic_load(&t->f.model.loads), 1);

    postgres_tool_run(&t->f, "SET session_replication_role = replica; INSERT INTO " EXACTS
                             " (url, exact, missed_url) SELECT 'http://a/', "
                             "convert_to(rpad(i || '-', 60000, 'x'), 'UTF8'), "
                             "convert_to(rpad(i || '-', 60000, 'x'), 'UTF8') "
                             "FROM generate_series(1, 1000) i");
    before = memory_peak_mb(true);
    assert_int_equal(do_check(&t->f, url_a, etag), STORE_OK);
    assert_in_range(memory_peak_mb(false) - before, 0, PEAK_MAX_MB);
    reopen(&t->f, 20000);
    model_etag(&t->f.model, url_a, want);
    assert_memory_equal(etag, want, 64);
}

/* Longer than the protocol can say: passed over. */
static void test_odd_rows(void **state)
{
    struct macs_fixture *t = *state;
    struct store_row row = exact("t", none);
    uint8_t etag[64], want[64];

    postgres_tool_run(&t->f, "INSERT INTO " EXACTS
                             " (url, exact) VALUES ('http://a/', repeat('x', 70000)::bytea)");
    postgres_tool_run(&t->f,
                      "INSERT INTO " GLOBS " (url, glob, missed_url) VALUES ('http://a/', '', '')");
    postgres_tool_run(&t->f,
                      "INSERT INTO lonely_hmacs (mac, expires_at) VALUES ('x', 9e9), ('', 9e9), "
                      "(repeat('x', 16)::bytea, -1)");
    assert_int_equal(do_subscribe(&t->f, &row), STORE_OK);
    assert_int_equal(do_sync(&t->f), STORE_OK);
    assert_int_equal(model_count(&t->f.model), 2);
    model_etag(&t->f.model, url_a, want);
    assert_int_equal(do_check(&t->f, url_a, etag), STORE_OK);
    assert_memory_equal(etag, want, 64);
    assert_int_equal(macs_sync(t), STORE_OK);
    assert_int_equal(t->fed.count, 0);
    reopen(&t->f, 20000);
    assert_int_equal(model_count(&t->f.model), 2);
}

static void test_view(void **state)
{
    struct macs_fixture *t = *state;
    struct store_row row = { STORE_EXACT, SPAN("http://a/\0"), SPAN("t\xff"), none };

    assert_int_equal(do_subscribe(&t->f, &row), STORE_OK);
    assert_int_equal(
        postgres_tool_run(&t->f, "SELECT count(*) FROM lonely_subscriptions WHERE kind = 'exact' "
                                 "AND url = 'http://a/\\000' AND key = 't\\377'"),
        1);
}

/* Nobody syncs, and the row arrives. */
static void test_notify_wakes(void **state)
{
    struct macs_fixture *t = *state;
    struct store_row row = exact("woken", none);

    assert_int_equal(do_sync(&t->f), STORE_OK);
    while (postgres_tool_run(
               &t->f,
               "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lonelypss' "
               "AND query LIKE 'SELECT seq, mark, kind%'") == 0) { /* until the loop has looked */
        assert_int_equal(do_sync(&t->f), STORE_OK);
        uv_sleep(5);
    }
    postgres_tool_run(&t->f, "INSERT INTO " EXACTS " (url, exact) VALUES ('http://a/', 'woken')");
    for (int i = 0; !model_has(&t->f.model, &row); i++) {
        table_require(i < 6000, "news that come by themselves");
        uv_run(&t->f.loop, UV_RUN_NOWAIT);
        uv_sleep(5);
    }
}

/* --- the log -------------------------------------------------------------------------------- */

static void test_gaps(void **state)
{
    static const char *const causes[] = {
        "DELETE FROM lonely_changes",
        "TRUNCATE lonely_changes",
        "UPDATE lonely_changes SET mark = mark + 1", /* another history with the same numbers */
        "DELETE FROM lonely_changes; INSERT INTO lonely_changes (kind, op) VALUES (0, 0)",
    };
    struct macs_fixture *t = *state;

    for (size_t i = 0; i < TABLE_LEN(causes); i++) {
        struct store_row row = exact(causes[i], none);
        int loads = atomic_load(&t->f.model.loads);

        assert_int_equal(do_subscribe(&t->f, &row), STORE_OK);
        assert_int_equal(do_sync(&t->f), STORE_OK);
        postgres_tool_run(
            &t->f, "SET session_replication_role = replica; DELETE FROM " EXACTS); /* not logged */
        postgres_tool_run(&t->f, causes[i]);
        assert_int_equal(do_sync(&t->f), STORE_OK);
        assert_false(model_has_key(&t->f.model, &row));
        assert_int_equal(atomic_load(&t->f.model.loads), loads + 1);
    }
}

static void test_pruning(void **state)
{
    struct macs_fixture *t = *state;
    struct store_row row = exact("t", none);

    fixture_close(&t->f);
    postgres_tool_run(&t->f, "INSERT INTO lonely_changes (kind, op, at) SELECT 0, 0, 1000 FROM "
                             "generate_series(1, 3500)");
    postgres_tool_run(&t->f, "UPDATE lonely_changes SET at = 1000");
    postgres_tool_run(&t->f,
                      "INSERT INTO lonely_hmacs (mac, expires_at) SELECT repeat('x', 16)::bytea, "
                      "CASE WHEN i % 5000 = 0 THEN 9000000000 ELSE 1000 END FROM "
                      "generate_series(1, 25000) i");
    fixture_open(&t->f);
    wait_for(&t->f, "SELECT count(*) FROM lonely_changes", 1); /* never the newest */
    wait_for(&t->f, "SELECT count(*) FROM lonely_hmacs", 5);
    assert_int_equal(do_subscribe(&t->f, &row), STORE_OK);
    assert_int_equal(do_sync(&t->f), STORE_OK);
    assert_true(model_has(&t->f.model, &row));
}

/* --- trouble -------------------------------------------------------------------------------- */

/* All sessions end; what is asked then is done with new ones. */
static void test_ended_sessions(void **state)
{
    struct macs_fixture *t = *state;
    uint8_t etag[64];

    for (int i = 0; i < 5; i++) {
        char key[12];
        struct store_row row;

        snprintf(key, sizeof key, "%d", i);
        row = exact(key, none);
        assert_true(postgres_tool_run(&t->f, END_SESSIONS) >= 3);
        assert_int_equal(do_sync(&t->f), STORE_OK);
        assert_int_equal(do_subscribe(&t->f, &row), STORE_OK);
        assert_int_equal(do_check(&t->f, url_a, etag), STORE_OK);
        assert_int_equal(do_sync(&t->f), STORE_OK);
        assert_true(model_has(&t->f.model, &row));
    }
}

static void test_lock_held(void **state)
{
    struct macs_fixture *t = *state;
    struct store_row row = exact("t", none);
    PGconn *pg = postgres_tool_open(&t->f);
    uint64_t since;

    reopen(&t->f, 1000);
    postgres_tool_number(pg, "BEGIN; LOCK TABLE lonely_change_order IN EXCLUSIVE MODE");
    since = uv_hrtime();
    assert_int_equal(do_subscribe(&t->f, &row), STORE_UNAVAILABLE);
    assert_in_range((uv_hrtime() - since) / 1000000, 500, 5000);
    assert_int_equal(do_sync(&t->f), STORE_OK); /* reading waits for nobody */
    postgres_tool_number(pg, "COMMIT");
    PQfinish(pg);
    reopen(&t->f, 20000);
    assert_false(model_has_key(&t->f.model, &row)); /* it was not done later */
    assert_int_equal(do_subscribe(&t->f, &row), STORE_OK);
}

/* A loop's connection hangs, and what the feeder then tries fails as well; later all is well again, also
 * what only the feeder can do. */
static void test_hanging_session(void **state)
{
    static const char of_look[] = "SELECT max(pid) FROM pg_stat_activity WHERE application_name = "
                                  "'lonelypss' AND query LIKE 'SELECT seq, mark, kind%'";
    struct macs_fixture *t = *state;
    PGconn *pg = postgres_tool_open(&t->f);
    long long pid;

    reopen(&t->f, 1000);
    while ((pid = postgres_tool_number(pg, of_look)) < 0)
        (void)do_sync(&t->f);
    table_require(kill((pid_t)pid, SIGSTOP) == 0, "kill");
    postgres_tool_number(pg, "BEGIN; LOCK TABLE lonely_changes IN ACCESS EXCLUSIVE MODE");
    assert_int_equal(do_sync(&t->f), STORE_UNAVAILABLE);
    for (int i = 0; i < 3000 && postgres_tool_number(pg, WAITING) == 0; i++)
        uv_sleep(1);
    for (int i = 0; i < 3000 && postgres_tool_number(pg, WAITING) > 0; i++)
        uv_sleep(1);
    postgres_tool_number(pg, "COMMIT");
    table_require(kill((pid_t)pid, SIGCONT) == 0, "kill");
    for (int i = 0;; i++) { /* more than a look takes */
        postgres_tool_number(pg, "INSERT INTO lonely_changes (kind, op) SELECT 0, 0 FROM "
                                 "generate_series(1, 2500)");
        if (do_sync(&t->f) == STORE_OK)
            break;
        table_require(i < 100, "a feeder that tries again");
        uv_sleep(50);
    }
    PQfinish(pg);
}

static void test_dropped_tables(void **state)
{
    static const char *const causes[] = {
        "DROP TABLE lonely_changes CASCADE",
        "DROP TABLE httppubsub_subscription_exacts CASCADE",
        "DROP TABLE lonely_hmacs, lonely_change_order CASCADE",
        "DROP TRIGGER lonely_exacts_inserted ON httppubsub_subscription_exacts",
    };
    struct macs_fixture *t = *state;

    for (size_t i = 0; i < TABLE_LEN(causes); i++) {
        struct store_row row = exact(causes[i], none);
        int tries = 0;

        postgres_tool_run(&t->f, causes[i]);
        postgres_tool_run(&t->f, END_SESSIONS); /* else a missing trigger is not looked for */
        while (do_subscribe(&t->f, &row) != STORE_OK || do_sync(&t->f) != STORE_OK ||
               macs_sync(t) != STORE_OK) {
            table_require(tries++ < 1000, causes[i]);
            (void)do_unsubscribe(&t->f, &row);
            uv_sleep(5);
        }
        assert_true(model_has(&t->f.model, &row));
    }
}

/* A statement that fails harms no other one of its commit. */
static void test_failing_trigger(void **state)
{
    struct macs_fixture *t = *state;
    struct reply *replies = mem_calloc(20, sizeof *replies);

    postgres_tool_run(
        &t->f, "CREATE FUNCTION mean() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.exact = "
               "'7' THEN RAISE 'no'; END IF; RETURN NEW; END $$; CREATE TRIGGER mean BEFORE INSERT "
               "ON " EXACTS " FOR EACH ROW EXECUTE FUNCTION mean()");
    for (int i = 0; i < 20; i++) {
        char key[12];
        struct store_row row;

        snprintf(key, sizeof key, "%d", i);
        row = exact(key, none);
        reply_expect(&replies[i]);
        t->f.ops->subscribe(t->f.client, &row, on_reply, &replies[i]);
    }
    for (int i = 0; i < 20; i++) /* they come in whatever order */
        replies[i].may_run = true;
    for (int i = 0; i < 20; i++) {
        reply_wait(&t->f, &replies[i]);
        assert_int_equal(replies[i].status, i == 7 ? STORE_UNAVAILABLE : STORE_OK);
    }
    mem_free(replies);
}

static void test_refused(void **state)
{
    struct macs_fixture *t = *state;
    static char unreachable[] = "postgresql://u:hush@127.0.0.1:1/d";
    static char nonsense[] = "postgresql://u:hu%zzsh@h/d";
    static const struct {
        char *url; /* NULL: that of the fixture */
        const char *word;
    } cases[] = { { unreachable, "127.0.0.1" }, { nonsense, "libpq" }, { NULL, "later version" } };

    fixture_close(&t->f);
    postgres_tool_run(&t->f, "UPDATE lonely_schema SET version = 2");
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct store_conf conf = t->f.conf;
        struct store_feed feed = model_feed(&t->f.model);
        char *urls[1] = { cases[i].url == NULL ? t->f.url : cases[i].url };
        char error[256] = "";
        struct store *store;

        conf.urls = urls;
        assert_false(t->f.ops->open(&conf, &feed, &store, error));
        assert_null(store);
        assert_non_null(strstr(error, cases[i].word));
        assert_null(strstr(error, "hu"));
        assert_null(strchr(error, '\n'));
    }
    postgres_tool_run(&t->f, "UPDATE lonely_schema SET version = 1");
    fixture_open(&t->f);
}

/* --- used macs ------------------------------------------------------------------------------ */

static void test_marks(void **state)
{
    static const struct {
        const char *sql;
        int lost;
    } cases[] = {
        { "INSERT INTO lonely_processes VALUES (1, 'other-machine:1:1', "
          "extract(epoch FROM now()))",
          0 },
        { "UPDATE lonely_processes SET at = at - 100", 1 },
        { "INSERT INTO lonely_processes VALUES (1, 'nonsense', 0)", 1 },
    };
    struct macs_fixture *t = *state;

    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        fixture_close(&t->f);
        postgres_tool_run(&t->f, cases[i].sql);
        t->fed.lost = 0;
        fixture_open(&t->f);
        assert_int_equal(t->fed.lost, cases[i].lost);
    }
}

static void test_killed(void **state)
{
    struct macs_fixture *t = *state;
    int status;
    pid_t pid;

    fixture_close(&t->f);
    pid = fork();
    table_require(pid >= 0, "fork");
    if (pid == 0) {
        fixture_open(&t->f);
        macs_add(t, 7);
        raise(SIGKILL);
    }
    table_require(waitpid(pid, &status, 0) == pid, "waitpid");
    fixture_open(&t->f);
    assert_int_equal(t->fed.lost, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, macs_fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_rows_of_others), TEST(test_what_is_not_logged),
        TEST(test_many_at_once),   TEST(test_odd_rows),
        TEST(test_long_rows),      TEST(test_hanging_session),
        TEST(test_view),           TEST(test_notify_wakes),
        TEST(test_gaps),           TEST(test_pruning),
        TEST(test_ended_sessions), TEST(test_lock_held),
        TEST(test_dropped_tables), TEST(test_failing_trigger),
        TEST(test_refused),        TEST(test_marks),
        TEST(test_killed),
    };

    return cmocka_run_group_tests_name("store_postgres", tests, NULL, NULL);
}
