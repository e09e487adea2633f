/*
 * The SQLite store when things break: files that cannot be opened, full disks, triggers of others
 * that fail, busy writers, and its own sudden death.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mem.h"
#include "sqlite_tool.h"
#include "store_fixture.h"

static const struct lonely_span url_a = { (const uint8_t *)"http://a/", 9 };
static const struct lonely_span none = { NULL, 0 };

static struct store_row exact(const char *key)
{
    return (struct store_row){ STORE_EXACT, url_a, span_of(key), none };
}

static int setup(void **state)
{
    struct fixture *f = mem_alloc(sizeof *f);

    fixture_init(f, &store_sqlite);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(*state);
    mem_free(*state);
    return 0;
}

/* --- files that cannot be opened ------------------------------------------------------------ */

static void write_file(const char *path, const char *text, size_t len)
{
    FILE *file = fopen(path, "wb");

    table_require(file != NULL && fwrite(text, 1, len, file) == len && fclose(file) == 0, path);
}

/* The store must refuse, with one line that names the file and holds `word`. */
static void assert_refused(struct fixture *f, const char *path, const char *word)
{
    struct store_conf conf = f->conf;
    struct store_feed feed = model_feed(&f->model);
    struct store *store = (struct store *)(void *)f;
    char error[256];

    conf.path = path;
    conf.timeout_ms = 100;
    assert_false(f->ops->open(&conf, &feed, &store, error));
    assert_null(store);
    if (strstr(error, path) == NULL || strstr(error, word) == NULL || strchr(error, '\n') != NULL)
        fail_msg("%s, not %s", error, word);
}

static void test_unusable_files(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *sql; /* NULL: `text` is written instead */
        const char *text;
        const char *word;
    } cases[] = {
        { NULL, "This is no database at all, and it is long enough to be seen as such. ", "not a" },
        { "CREATE TABLE orders(id)", NULL, "another application" },
        { "CREATE TABLE lonely_changes(seq INTEGER PRIMARY KEY)", NULL, "no column named at" },
        { "CREATE TABLE " EXACTS "(id INTEGER PRIMARY KEY, url, exact)", NULL, "missed_" },
        { "CREATE VIEW " GLOBS " AS SELECT 1; CREATE TABLE " EXACTS "(id)", NULL, "cannot" },
        { "PRAGMA encoding = 'UTF-16'; CREATE TABLE lonely_x(a)", NULL, "UTF-16" },
    };
    char path[320];

    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        remove(f->path);
        if (cases[i].sql == NULL)
            write_file(f->path, cases[i].text, strlen(cases[i].text));
        else
            tool_run(f->path, cases[i].sql);
        assert_refused(f, f->path, cases[i].word);
    }
    assert_refused(f, f->dir, "open");
    snprintf(path, sizeof path, "%s/no/such/folder.db", f->dir);
    assert_refused(f, path, "No such file");
}

/* A valid header and nonsense behind it. */
static void test_corrupt_file(void **state)
{
    struct fixture *f = *state;
    char *nonsense = mem_alloc(20000);
    FILE *file;

    fixture_open(f);
    fixture_close(f);
    memset(nonsense, 0x5a, 20000);
    file = fopen(f->path, "r+b");
    table_require(file != NULL && fseek(file, 100, SEEK_SET) == 0 &&
                      fwrite(nonsense, 1, 20000, file) == 20000 && fclose(file) == 0,
                  "overwrite");
    assert_refused(f, f->path, "cannot");
    mem_free(nonsense);
}

static void test_locked_at_open(void **state)
{
    struct fixture *f = *state;
    sqlite3 *db = tool_open(f->path, 1000);

    tool_exec(db, "BEGIN EXCLUSIVE; CREATE TABLE lonely_x(a)");
    assert_refused(f, f->path, "lock");
    tool_exec(db, "ROLLBACK");
    sqlite3_close(db);
    fixture_open(f);
}

/* Runs `child` as a process of its own, which the permissions of files concern also when the test
 * is run by root. Returns its exit code. */
static int run_child(struct fixture *f, int (*child)(struct fixture *f), bool drop_root)
{
    int status = -1;
    pid_t pid = fork();

    table_require(pid >= 0, "fork");
    if (pid == 0) {
        if (drop_root && geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(99);
        _exit(child(f));
    }
    table_require(waitpid(pid, &status, 0) == pid, "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int child_is_refused(struct fixture *f)
{
    struct store_feed feed = model_feed(&f->model);
    struct store *store;
    char error[256] = "";

    if (f->ops->open(&f->conf, &feed, &store, error))
        return 1;
    return strstr(error, f->path) != NULL ? 0 : 2;
}

static void test_permissions(void **state)
{
    struct fixture *f = *state;

    table_require(chmod(f->dir, 0555) == 0, "chmod");
    assert_int_equal(run_child(f, child_is_refused, true), 0); /* cannot be made */
    table_require(chmod(f->dir, 0777) == 0, "chmod");
    fixture_open(f);
    fixture_close(f);
    table_require(chmod(f->path, 0444) == 0, "chmod");
    assert_int_equal(run_child(f, child_is_refused, true), 0); /* read-only */
    table_require(chmod(f->path, 0000) == 0, "chmod");
    assert_int_equal(run_child(f, child_is_refused, true), 0); /* unreadable */
    table_require(chmod(f->path, 0666) == 0 && chmod(f->dir, 0555) == 0, "chmod");
    assert_int_equal(run_child(f, child_is_refused, true), 0); /* its log cannot be made */
    table_require(chmod(f->dir, 0777) == 0, "chmod");
    fixture_open(f);
}

/* --- failures while running ----------------------------------------------------------------- */

/* The file may not grow: writes fail, reads go on, and it heals when there is room again. */
static int child_without_room(struct fixture *f)
{
    struct rlimit small = { 200000, RLIM_INFINITY }, large = { RLIM_INFINITY, RLIM_INFINITY };
    struct number_list list;
    struct store_row row = { STORE_EXACT, SPAN("http://c/"), SPAN("after"), { NULL, 0 } };
    uint8_t before[64], after[64];

    signal(SIGXFSZ, SIG_IGN);
    fixture_open(f);
    number_list_init(&list, 500, 1, none);
    if (do_set(f, url_a, &list.list) != STORE_OK || do_check(f, url_a, before) != STORE_OK)
        return 1;
    setrlimit(RLIMIT_FSIZE, &small);
    number_list_init(&list, 50000, 1, none);
    if (do_set(f, SPAN("http://b/"), &list.list) != STORE_UNAVAILABLE)
        return 2;
    for (int i = 0; i < 300; i++) /* a few may still fit */
        if (do_subscribe(f, &row) == STORE_UNAVAILABLE)
            break;
        else
            do_unsubscribe(f, &row);
    if (do_check(f, url_a, after) != STORE_OK || memcmp(before, after, 64) != 0)
        return 3;
    setrlimit(RLIMIT_FSIZE, &large);
    do_unsubscribe(f, &row);
    for (int i = 0; do_subscribe(f, &row) != STORE_OK; i++) {
        if (i == 1000)
            return 4;
        uv_sleep(5);
    }
    if (do_sync(f) != STORE_OK || !model_has(&f->model, &row))
        return 5;
    fixture_close(f);
    return tool_ask(f->path, "SELECT integrity_check = 'ok' FROM pragma_integrity_check") == 1 ? 0
                                                                                               : 6;
}

static void test_no_room(void **state)
{
    assert_int_equal(run_child(*state, child_without_room, false), 0);
}

/* What somebody's trigger does to one operation does not concern the others of its commit. */
static void test_failing_triggers(void **state)
{
    struct fixture *f = *state;
    enum { N = 60 };
    struct reply *replies = mem_calloc(N, sizeof *replies);
    size_t good = 0;

    fixture_open(f);
    tool_run(f->path,
             "CREATE TRIGGER mean_1 BEFORE INSERT ON " EXACTS " WHEN NEW.exact = x'6d31' BEGIN "
             "SELECT RAISE(ROLLBACK, 'no'); END; CREATE TRIGGER mean_2 BEFORE INSERT ON " EXACTS
             " WHEN NEW.exact = x'6d32' BEGIN SELECT RAISE(ABORT, 'no'); END; "
             "CREATE TRIGGER mean_3 AFTER INSERT ON " EXACTS
             " WHEN NEW.exact = x'6d33' BEGIN SELECT RAISE(FAIL, 'no'); END");
    for (int i = 0; i < N; i++) {
        char key[8];
        struct store_row row;

        snprintf(key, sizeof key, "%s%d", i % 10 < 3 ? "m" : "k", i % 10 < 3 ? i % 10 + 1 : i);
        row = exact(key);
        reply_expect(&replies[i]);
        f->ops->subscribe(f->client, &row, on_reply, &replies[i]);
        replies[i].may_run = true;
    }
    for (int i = 0; i < N; i++) {
        reply_wait(f, &replies[i]);
        if (i % 10 >= 3) {
            assert_int_equal(replies[i].status, STORE_OK);
            good++;
        } else {
            assert_int_equal(replies[i].status, STORE_UNAVAILABLE);
        }
    }
    assert_int_equal(do_sync(f), STORE_OK);
    assert_int_equal(model_count(&f->model), good);
    mem_free(replies);
}

/* Somebody dropped a table of ours: it is made again, and the index follows. */
static void test_dropped_tables(void **state)
{
    struct fixture *f = *state;
    static const char *const drops[] = {
        "DROP TABLE lonely_changes",
        "DROP TABLE " EXACTS,
        "DROP TABLE lonely_changes; DROP TABLE " EXACTS "; DROP TABLE " GLOBS,
    };
    struct store_row row = exact("e"), again = exact("again");

    fixture_open(f);
    for (size_t i = 0; i < TABLE_LEN(drops); i++) {
        do_subscribe(f, &row);
        assert_int_equal(do_sync(f), STORE_OK);
        tool_run(f->path, drops[i]);
        for (int n = 0; do_subscribe(f, &again) != STORE_OK; n++) {
            assert_true(n < 1000);
            uv_sleep(5);
        }
        assert_int_equal(do_sync(f), STORE_OK);
        assert_true(model_has(&f->model, &again));
        assert_int_equal(model_has_key(&f->model, &row), i == 0);
        assert_int_equal(do_unsubscribe(f, &again), STORE_OK);
        assert_int_equal(do_sync(f), STORE_OK);
        assert_false(model_has_key(&f->model, &again));
    }
}

/* Somebody moves or deletes the file: nothing is acknowledged that a restart would not find. */
static void test_moved_file(void **state)
{
    struct fixture *f = *state;
    struct store_row old = exact("old"), fresh = exact("fresh");
    struct number_list list;
    uint8_t etag[64];
    char aside[320];

    snprintf(aside, sizeof aside, "%s.aside", f->path);
    fixture_open(f);
    assert_int_equal(do_subscribe(f, &old), STORE_OK);
    table_require(rename(f->path, aside) == 0, "rename");
    number_list_init(&list, 3, 1, none);
    assert_int_equal(do_set(f, url_a, &list.list), STORE_UNAVAILABLE);
    assert_int_equal(do_subscribe(f, &fresh), STORE_UNAVAILABLE);
    assert_int_equal(do_check(f, url_a, etag), STORE_UNAVAILABLE);
    assert_int_equal(do_sync(f), STORE_UNAVAILABLE);
    assert_int_equal(access(f->path, F_OK), -1);

    table_require(rename(aside, f->path) == 0, "rename");
    assert_int_equal(do_subscribe(f, &fresh), STORE_OK);
    assert_int_equal(do_sync(f), STORE_OK);
    assert_int_equal(model_count(&f->model), 2);
    assert_int_equal(do_check(f, url_a, etag), STORE_OK);

    table_require(remove(f->path) == 0, "remove");
    assert_int_equal(do_unsubscribe(f, &fresh), STORE_UNAVAILABLE);
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(model_count(&f->model), 0);
}

/* Names that SQLite would take for something else. */
static void test_odd_names(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = { ":memory:", "file:x.db?mode=memory", "a b.db" };
    char cwd[1000];

    table_require(getcwd(cwd, sizeof cwd) != NULL && chdir(f->dir) == 0, "chdir");
    assert_refused(f, "", "empty");
    for (size_t i = 0; i < TABLE_LEN(names); i++) {
        struct store_row row = exact("e");

        snprintf(f->path, sizeof f->path, "%s", names[i]);
        for (int again = 0; again < 2; again++) {
            fixture_open(f);
            assert_int_equal(do_subscribe(f, &row), again == 0 ? STORE_OK : STORE_CONFLICT);
            fixture_close(f);
        }
        assert_int_equal(access(names[i], F_OK), 0);
    }
    table_require(chdir(cwd) == 0, "chdir");
}

/* Another program with SQLite's own patience gets its turn while we write without a pause. */
struct busy {
    struct fixture *f;
    struct reply *replies;
    atomic_bool enough;
    int refused;
};

static void write_on(void *arg)
{
    struct busy *b = arg;

    sqlite3 *db = tool_open(b->f->path, 5000);

    for (int i = 0; i < 3; i++)
        if (sqlite3_exec(db, "UPDATE " GLOBS " SET missed_url = 'x'", NULL, NULL, NULL) !=
            SQLITE_OK)
            b->refused++;
    sqlite3_close(db);
    atomic_store(&b->enough, true);
}

static void test_others_get_their_turn(void **state)
{
    enum { PENDING = 32 };
    struct fixture *f = *state;
    struct busy b = { .f = f, .replies = mem_calloc(PENDING, sizeof *b.replies) };
    struct store_row row = exact("e");
    uv_thread_t thread;

    fixture_open(f);
    for (int i = 0; i < PENDING; i++) {
        f->ops->subscribe(f->client, &row, on_reply, &b.replies[i]);
        b.replies[i].may_run = true;
    }
    table_require(uv_thread_create(&thread, write_on, &b) == 0, "thread");
    for (int next = 0; !atomic_load(&b.enough); next = (next + 1) % PENDING) {
        struct reply *r = &b.replies[next];

        reply_wait(f, r);
        assert_in_range(r->status, STORE_OK, STORE_NOT_FOUND);
        r->calls = 0;
        (next % 2 == 0 ? f->ops->subscribe : f->ops->unsubscribe)(f->client, &row, on_reply, r);
    }
    uv_thread_join(&thread);
    fixture_close(f);
    assert_int_equal(b.refused, 0);
    mem_free(b.replies);
}

/* --- sudden death --------------------------------------------------------------------------- */

/* Subscribes keys 0, 1, 2, ... and writes each acknowledged number to the pipe. */
static void write_and_tell(struct fixture *f, int fd)
{
    enum { PENDING = 16 };
    struct reply *replies = mem_calloc(PENDING, sizeof *replies);

    fixture_open(f);
    for (uint32_t i = 0;; i++) {
        struct reply *r = &replies[i % PENDING];
        char key[12];
        struct store_row row;

        if (i >= PENDING) {
            uint32_t acknowledged = i - PENDING;

            reply_wait(f, r);
            if (r->status != STORE_OK || write(fd, &acknowledged, 4) != 4)
                _exit(1);
        }
        snprintf(key, sizeof key, "%u", i);
        row = exact(key);
        reply_expect(r);
        f->ops->subscribe(f->client, &row, on_reply, r);
        r->may_run = true;
    }
}

/* Kills the child after `enough` acknowledgements; returns how many there were. */
static uint32_t kill_writer(struct fixture *f, uint32_t enough)
{
    int ends[2];
    uint32_t n = 0, number;
    int status;
    pid_t pid;

    table_require(pipe(ends) == 0, "pipe");
    pid = fork();
    table_require(pid >= 0, "fork");
    if (pid == 0) {
        close(ends[0]);
        write_and_tell(f, ends[1]);
    }
    close(ends[1]);
    while (n < enough && read(ends[0], &number, 4) == 4)
        n = number + 1;
    kill(pid, SIGKILL);
    table_require(waitpid(pid, &status, 0) == pid, "waitpid");
    while (read(ends[0], &number, 4) == 4)
        n = number + 1;
    close(ends[0]);
    return n;
}

static void test_killed(void **state)
{
    struct fixture *f = *state;

    for (uint32_t round = 0; round < 4; round++) {
        uint32_t n;

        remove(f->path);
        n = kill_writer(f, 100 + round * 777);
        assert_true(n >= 100);
        fixture_open(f);
        for (uint32_t i = 0; i < n; i++) {
            char key[12];
            struct store_row row;

            snprintf(key, sizeof key, "%u", i);
            row = exact(key);
            assert_true(model_has(&f->model, &row));
        }
        fixture_close(f);
        assert_int_equal(
            tool_ask(f->path, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unusable_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_corrupt_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locked_at_open, setup, teardown),
        cmocka_unit_test_setup_teardown(test_permissions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failing_triggers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dropped_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(test_moved_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_others_get_their_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
    };

    return cmocka_run_group_tests_name("store_faults", tests, NULL, NULL);
}
