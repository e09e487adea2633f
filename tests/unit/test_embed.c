/*
 * The broadcaster as a library (<lonely/broadcaster.h>): its life in every order that a program may choose,
 * what it refuses, and what it leaves behind. Requests go in through the mount, so no socket is needed but
 * for addresses that are taken. With clients over sockets it is tested by tests/integration/test_embedding.py.
 */
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <lonely/broadcaster.h>

#include "tables.h"

#define OK LONELY_BROADCASTER_OK

static char folder[32], spool[64];

/* ---- Broadcasters ---- */

static struct lonely_broadcaster_options *options(void)
{
    static const char *const set[][2] = {
        { "broadcaster.listen", "none" },
        { "broadcaster.receiver_url", "http://127.0.0.1:1/pubsub/v1/receive_for_websockets" },
        { "broadcaster.workers", "2" },
        { "database.type", "memory" },
        { "auth.secrets", "none" },
        { "log.level", "error" },
    };
    struct lonely_broadcaster_options *o = lonely_broadcaster_options_create();

    for (size_t i = 0; i < TABLE_LEN(set); i++)
        assert_int_equal(lonely_broadcaster_options_set(o, set[i][0], set[i][1], NULL), OK);
    assert_int_equal(lonely_broadcaster_options_set(o, "broadcaster.spool_dir", spool, NULL), OK);
    assert_int_equal(lonely_broadcaster_options_set_mount(o, "/pubsub", NULL), OK);
    return o;
}

/* Takes the options over. */
static struct lonely_broadcaster *open_with(struct lonely_broadcaster_options *o)
{
    struct lonely_broadcaster_why why = { "" };
    struct lonely_broadcaster *b;

    if (lonely_broadcaster_open(o, &b, &why) != OK)
        fail_msg("%s", why.text);
    lonely_broadcaster_options_destroy(o);
    return b;
}

static struct lonely_broadcaster *started(void)
{
    struct lonely_broadcaster *b = open_with(options());

    assert_int_equal(lonely_broadcaster_start(b, NULL), OK);
    return b;
}

static size_t count_entries(const char *path)
{
    DIR *dir = opendir(path);
    size_t n = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

/* ---- Requests ---- */

struct asker {
    pthread_mutex_t lock;
    pthread_cond_t told;
    bool ready;
    struct lonely_broadcaster *stops; /* NULL: on_ready only tells */
};

static void asker_init(struct asker *a)
{
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->told, NULL);
    a->ready = false;
    a->stops = NULL;
}

static void on_ready(void *arg)
{
    struct asker *a = arg;

    if (a->stops != NULL)
        lonely_broadcaster_stop(a->stops);
    pthread_mutex_lock(&a->lock);
    a->ready = true;
    pthread_cond_signal(&a->told);
    pthread_mutex_unlock(&a->lock);
}

static void await(struct asker *a)
{
    pthread_mutex_lock(&a->lock);
    while (!a->ready)
        pthread_cond_wait(&a->told, &a->lock);
    a->ready = false;
    pthread_mutex_unlock(&a->lock);
}

static enum lonely_exchange_state next_state(struct asker *a, struct lonely_exchange *x)
{
    if (lonely_exchange_wait(x))
        await(a);
    return lonely_exchange_state(x);
}

static struct lonely_exchange *begin(struct lonely_broadcaster *b, struct asker *a,
                                     const char *method, uint64_t length)
{
    const struct lonely_exchange_request request = {
        .method = { (const uint8_t *)method, strlen(method) },
        .target = LIT("/pubsub/v1/notify"),
        .content_length = length,
    };
    struct lonely_exchange *x =
        lonely_mount_begin(lonely_broadcaster_mount(b), &request, on_ready, a);

    assert_non_null(x);
    return x;
}

/* What a GET of /v1/notify is answered. */
static int ask(struct lonely_broadcaster *b)
{
    struct lonely_exchange *x;
    struct asker a;
    int status;

    asker_init(&a);
    x = begin(b, &a, "GET", 0);
    assert_int_equal(next_state(&a, x), LONELY_EXCHANGE_ANSWERED);
    status = lonely_exchange_response(x)->status;
    lonely_exchange_free(x);
    return status;
}

/* ---- What is refused ---- */

static void test_bad_options(void **state)
{
    static const char *const bad[][2] = {
        { "broadcaster.nothing", "1" },
        { "nothing", "1" },
        { "", "" },
        { "broadcaster.workers", "x" },
        { "broadcaster.workers", "" },
    };
    static const char *const prefixes[] = { "x", "/a?b", "/a b", "/\x7f", "/a#b" };
    struct lonely_broadcaster_options *o = options();
    struct lonely_broadcaster_why why;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(bad); i++) {
        why.text[0] = '\0';
        assert_int_equal(lonely_broadcaster_options_set(o, bad[i][0], bad[i][1], &why),
                         LONELY_BROADCASTER_CONFIGURATION);
        assert_true(why.text[0] != '\0' && strchr(why.text, '\n') == NULL);
        assert_int_equal(lonely_broadcaster_options_set(o, bad[i][0], bad[i][1], NULL),
                         LONELY_BROADCASTER_CONFIGURATION);
    }
    for (size_t i = 0; i < TABLE_LEN(prefixes); i++)
        assert_int_equal(lonely_broadcaster_options_set_mount(o, prefixes[i], &why),
                         LONELY_BROADCASTER_CONFIGURATION);
    lonely_broadcaster_close(open_with(o)); /* nothing of that was taken */
    lonely_broadcaster_options_destroy(NULL);
    lonely_broadcaster_close(NULL);
}

/* Options that only open finds to be unusable. */
static const struct open_case {
    const char *name, *value; /* name NULL: of the file */
    enum lonely_broadcaster_error err;
    const char *says;
} open_cases[] = {
    { NULL, "/nowhere/lonelypss.ini", LONELY_BROADCASTER_CONFIGURATION, "/nowhere/lonelypss.ini" },
    { "auth.secrets", "/nowhere/secrets.json", LONELY_BROADCASTER_CONFIGURATION,
      "/nowhere/secrets.json" },
    { "broadcaster.spool_dir", "/nowhere/spool", LONELY_BROADCASTER_MACHINE, "/nowhere/spool" },
    { "compression.dictionary", "2 3 /nowhere/dictionary", LONELY_BROADCASTER_CONFIGURATION,
      "/nowhere/dictionary" },
    { "broadcaster.admin_listen", "192.0.2.1:1", LONELY_BROADCASTER_MACHINE, "192.0.2.1:1" },
    { "broadcaster.listen", "192.0.2.1:1", LONELY_BROADCASTER_MACHINE, "192.0.2.1:1" },
};

static void test_cannot_be_opened(void **state)
{
    size_t descriptors;

    (void)state;
    lonely_broadcaster_close(open_with(options())); /* what the libraries open once for all */
    descriptors = count_entries("/proc/self/fd");
    for (size_t i = 0; i < TABLE_LEN(open_cases); i++) {
        const struct open_case *c = &open_cases[i];
        struct lonely_broadcaster_options *o = options();
        struct lonely_broadcaster_why why = { "" };
        struct lonely_broadcaster *b;

        if (c->name == NULL)
            lonely_broadcaster_options_set_file(o, c->value);
        else
            assert_int_equal(lonely_broadcaster_options_set(o, c->name, c->value, &why), OK);
        assert_int_equal(lonely_broadcaster_open(o, &b, &why), c->err);
        assert_null(b);
        assert_non_null(strstr(why.text, c->says));
        assert_int_equal(lonely_broadcaster_open(o, &b, NULL), c->err);
        lonely_broadcaster_options_destroy(o);
    }
    assert_int_equal(count_entries("/proc/self/fd"), descriptors);
}

static void test_port_in_use(void **state)
{
    struct lonely_broadcaster_options *o = options();
    struct lonely_broadcaster_why why = { "" };
    struct lonely_broadcaster *b, *other;
    const struct lonely_broadcaster_address *at;

    (void)state;
    assert_int_equal(lonely_broadcaster_options_set(o, "broadcaster.listen", "127.0.0.1:0", NULL),
                     OK);
    b = open_with(o);
    at = lonely_broadcaster_address(b, 0);
    assert_string_equal(at->scheme, "http");
    assert_null(lonely_broadcaster_address(b, 1));
    o = options();
    assert_int_equal(lonely_broadcaster_options_set(o, "broadcaster.listen", at->bound, NULL), OK);
    assert_int_equal(lonely_broadcaster_open(o, &other, &why), LONELY_BROADCASTER_MACHINE);
    assert_non_null(strstr(why.text, at->bound));
    lonely_broadcaster_close(b);
    assert_int_equal(lonely_broadcaster_open(o, &b, &why), OK); /* it is free again */
    lonely_broadcaster_close(b);
    lonely_broadcaster_options_destroy(o);
}

/* ---- Life ---- */

static void test_start_again(void **state)
{
    struct lonely_broadcaster_options *o = options();
    struct lonely_broadcaster_why why = { "" };
    struct lonely_broadcaster *b;
    size_t threads;

    (void)state;
    assert_int_equal(
        lonely_broadcaster_options_set(o, "broadcaster.admin_listen", "127.0.0.1:0", NULL), OK);
    b = open_with(o);
    assert_false(lonely_broadcaster_is_running(b));
    assert_int_equal(lonely_broadcaster_start(b, &why), OK);
    assert_true(lonely_broadcaster_is_running(b));
    threads = count_entries("/proc/self/task");
    assert_int_equal(lonely_broadcaster_start(b, &why), LONELY_BROADCASTER_MACHINE);
    assert_int_not_equal(why.text[0], '\0');
    assert_int_equal(count_entries("/proc/self/task"), threads);
    assert_int_equal(ask(b), 405);
    lonely_broadcaster_stop(b);
    lonely_broadcaster_join(b);
    assert_int_equal(lonely_broadcaster_start(b, NULL), LONELY_BROADCASTER_MACHINE);
    assert_false(lonely_broadcaster_is_running(b));
    lonely_broadcaster_join(b);
    assert_int_equal(ask(b), 503);
    lonely_broadcaster_close(b);
}

typedef void end_fn(struct lonely_broadcaster *b);

/* A program that is told to end while it starts: it must not run for ever. */
static void test_ends_before_start(void **state)
{
    static end_fn *const ends[] = { lonely_broadcaster_stop, lonely_broadcaster_drain };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(ends); i++) {
        struct lonely_broadcaster *b = open_with(options());

        ends[i](b);
        lonely_broadcaster_join(b); /* there is nothing to wait for */
        assert_int_equal(lonely_broadcaster_start(b, NULL), OK);
        lonely_broadcaster_join(b);
        assert_false(lonely_broadcaster_is_running(b));
        lonely_broadcaster_close(b);
        b = open_with(options());
        ends[i](b);
        lonely_broadcaster_close(b);
    }
}

static void *end_in_thread(void *arg)
{
    lonely_broadcaster_drain(arg);
    lonely_broadcaster_stop(arg);
    return NULL;
}

static void test_ends_during_start(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        struct lonely_broadcaster *b = open_with(options());
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, end_in_thread, b), 0);
        assert_int_equal(lonely_broadcaster_start(b, NULL), OK);
        lonely_broadcaster_join(b);
        pthread_join(thread, NULL);
        lonely_broadcaster_close(b);
    }
}

/* With a request in each state: nobody has looked at it, half of its body has come, it is answered. */
static void test_close_with_requests(void **state)
{
    struct lonely_broadcaster *b = open_with(options());
    struct lonely_exchange *x[3];
    struct asker a[3];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(a); i++)
        asker_init(&a[i]);
    x[0] = begin(b, &a[0], "POST", 8);
    assert_true(lonely_exchange_wait(x[0]));
    assert_int_equal(lonely_exchange_state(x[0]), LONELY_EXCHANGE_WAITS); /* for the start */
    assert_int_equal(lonely_broadcaster_start(b, NULL), OK);
    await(&a[0]);
    for (size_t i = 0; i < 3; i++) {
        if (i > 0)
            x[i] = begin(b, &a[i], "POST", 8);
        assert_int_equal(next_state(&a[i], x[i]), LONELY_EXCHANGE_READS);
    }
    assert_int_equal(lonely_exchange_write(x[1], "half", 4), 4);
    lonely_exchange_end(x[2]); /* of a body that has not come */
    assert_int_equal(next_state(&a[2], x[2]), LONELY_EXCHANGE_ANSWERED);
    lonely_broadcaster_close(b);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(lonely_exchange_state(x[i]), LONELY_EXCHANGE_ANSWERED);
        assert_int_equal(lonely_exchange_response(x[i])->status, i == 2 ? 400 : 503);
        assert_int_equal(lonely_exchange_write(x[i], "rest", 4), 4); /* thrown away */
        lonely_exchange_free(x[i]);
    }
}

static void test_close_without_start(void **state)
{
    struct lonely_broadcaster *b = open_with(options());
    struct lonely_exchange *x[2];
    struct asker a[2];

    (void)state;
    asker_init(&a[0]);
    asker_init(&a[1]);
    x[0] = begin(b, &a[0], "GET", 0);
    x[1] = begin(b, &a[1], "GET", 0);
    assert_true(lonely_exchange_wait(x[0]));
    lonely_exchange_free(x[1]); /* given up before anybody has seen it */
    lonely_broadcaster_close(b);
    await(&a[0]);
    assert_int_equal(lonely_exchange_response(x[0])->status, 503);
    lonely_exchange_free(x[0]);
}

/* on_ready runs on a worker, which is to end. */
static void test_stop_in_a_callback(void **state)
{
    struct lonely_broadcaster *b = open_with(options());
    struct lonely_exchange *x;
    struct asker a;

    (void)state;
    asker_init(&a);
    a.stops = b;
    x = begin(b, &a, "GET", 0);
    assert_true(lonely_exchange_wait(x));
    assert_int_equal(lonely_broadcaster_start(b, NULL), OK);
    lonely_broadcaster_join(b);
    await(&a);
    assert_int_equal(lonely_exchange_state(x), LONELY_EXCHANGE_ANSWERED);
    lonely_exchange_free(x);
    lonely_broadcaster_close(b);
}

static void test_leaves_nothing_open(void **state)
{
    size_t descriptors;

    (void)state;
    lonely_broadcaster_close(started());
    descriptors = count_entries("/proc/self/fd");
    for (int i = 0; i < 3; i++)
        lonely_broadcaster_close(started());
    assert_int_equal(count_entries("/proc/self/fd"), descriptors);
}

/* ---- What it does to the process ---- */

static bool blocks_all(const char *task)
{
    char path[64], line[256];
    unsigned long long blocked = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/self/task/%.16s/status", task);
    file = fopen(path, "r");
    if (file == NULL)
        return true; /* it has ended */
    while (fgets(line, sizeof(line), file) != NULL)
        if (sscanf(line, "SigBlk: %llx", &blocked) == 1)
            break;
    fclose(file);
    return (blocked & 0x7fffffff & ~(1u << 8 | 1u << 18)) ==
           (0x7fffffff & ~(1u << 8 | 1u << 18)); /* but SIGKILL and SIGSTOP */
}

/* Signals are for the program's threads. */
static void test_signals_are_blocked(void **state)
{
    struct lonely_broadcaster *b;
    size_t before = count_entries("/proc/self/task"), blocking = 0, after = 0;
    struct dirent *entry;
    DIR *dir;

    (void)state;
    for (dir = opendir("/proc/self/task"); (entry = readdir(dir)) != NULL;)
        blocking += entry->d_name[0] != '.' && blocks_all(entry->d_name);
    closedir(dir);
    b = started();
    for (dir = opendir("/proc/self/task"); (entry = readdir(dir)) != NULL;)
        after += entry->d_name[0] != '.' && blocks_all(entry->d_name);
    closedir(dir);
    assert_int_equal(count_entries("/proc/self/task") - before, after - blocking);
    assert_true(after - blocking >= 2); /* broadcaster.workers */
    lonely_broadcaster_close(b);
}

static void count_line(void *arg, enum lonely_broadcaster_level level, const char *line)
{
    assert_true(level <= LONELY_BROADCASTER_LOG_DEBUG);
    assert_int_equal(line[strlen(line) - 1], '\n');
    atomic_fetch_add((atomic_uint *)arg, 1);
}

static struct lonely_broadcaster *started_with_log(atomic_uint *lines)
{
    struct lonely_broadcaster_options *o = options();
    struct lonely_broadcaster *b;

    atomic_init(lines, 0);
    assert_int_equal(lonely_broadcaster_options_set(o, "log.level", "info", NULL), OK);
    assert_int_equal(lonely_broadcaster_options_set(o, "log.access", "yes", NULL), OK);
    lonely_broadcaster_options_set_log(o, count_line, lines);
    b = open_with(o);
    assert_int_equal(lonely_broadcaster_start(b, NULL), OK);
    return b;
}

static void test_two_in_a_process(void **state)
{
    atomic_uint lines[2];
    unsigned before;
    struct lonely_broadcaster *a, *b;

    (void)state;
    a = started_with_log(&lines[0]);
    b = started_with_log(&lines[1]);
    assert_int_equal(ask(a), 405);
    before = atomic_load(&lines[1]);
    assert_int_equal(ask(b), 405);
    assert_true(atomic_load(&lines[1]) > before);
    before = atomic_load(&lines[0]);
    lonely_broadcaster_close(b);
    assert_int_equal(atomic_load(&lines[0]), before);
    assert_int_equal(ask(a), 405);
    lonely_broadcaster_close(a);
}

/* ---- Reload ---- */

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void *reload_in_thread(void *arg)
{
    for (int i = 0; i < 20; i++)
        assert_int_equal(lonely_broadcaster_reload(arg, NULL), OK);
    return NULL;
}

static void test_reload(void **state)
{
    struct lonely_broadcaster_options *o = options();
    struct lonely_broadcaster_why why = { "" };
    struct lonely_broadcaster *b;
    pthread_t threads[2];
    char path[64];

    (void)state;
    snprintf(path, sizeof(path), "%s/lonelypss.ini", folder);
    write_file(path, "[limits]\nmax_topic_bytes = 100\n");
    lonely_broadcaster_options_set_file(o, path);
    b = open_with(o);
    assert_int_equal(lonely_broadcaster_reload(b, &why), OK); /* also before start */
    assert_int_equal(lonely_broadcaster_start(b, NULL), OK);
    for (size_t i = 0; i < TABLE_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reload_in_thread, b), 0);
    for (size_t i = 0; i < TABLE_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    write_file(path, "[limits]\nmax_topic_bytes = many\n");
    assert_int_equal(lonely_broadcaster_reload(b, &why), LONELY_BROADCASTER_CONFIGURATION);
    assert_non_null(strstr(why.text, "max_topic_bytes"));
    assert_int_equal(ask(b), 405);
    lonely_broadcaster_stop(b);
    lonely_broadcaster_join(b);
    unlink(path);
    assert_int_equal(lonely_broadcaster_reload(b, NULL), LONELY_BROADCASTER_CONFIGURATION);
    lonely_broadcaster_close(b);
}

static void test_error_texts(void **state)
{
    (void)state;
    assert_string_equal(lonely_broadcaster_error_str(LONELY_BROADCASTER_OK), "success");
    assert_string_equal(lonely_broadcaster_error_str((enum lonely_broadcaster_error)99),
                        "unknown error");
}

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/embed-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(spool, sizeof(spool), "%s/spool", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rmdir(spool);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_cannot_be_opened),
        cmocka_unit_test(test_port_in_use),
        cmocka_unit_test(test_start_again),
        cmocka_unit_test(test_ends_before_start),
        cmocka_unit_test(test_ends_during_start),
        cmocka_unit_test(test_close_with_requests),
        cmocka_unit_test(test_close_without_start),
        cmocka_unit_test(test_stop_in_a_callback),
        cmocka_unit_test(test_leaves_nothing_open),
        cmocka_unit_test(test_signals_are_blocked),
        cmocka_unit_test(test_two_in_a_process),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_error_texts),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
