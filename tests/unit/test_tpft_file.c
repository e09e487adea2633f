/* The files of tpft on a real folder: both ways into it against links and escapes, sources, sinks
 * (doc/protocol/tinyproto.md, 14.4). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "file.h"
#include "root.h"
#include "tables.h"

struct place {
    char folder[64]; /* holds outside/secret, root/file, root/sub/file, root/link -> outside, ... */
    struct root root;
};

static void run(const struct place *p, const char *what)
{
    char command[1024];

    (void)snprintf(command, sizeof(command), "cd %s && %s", p->folder, what);
    table_require(system(command) == 0, command);
}

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof(*p));
    char name[128];

    (void)strcpy(p->folder, "/tmp/test_tpft_XXXXXX");
    table_require(mkdtemp(p->folder) != NULL, "mkdtemp");
    run(p, "mkdir -p outside root/sub && echo secret >outside/secret && echo old >root/file && "
           "echo x >root/sub/file && ln -s ../outside root/link && ln -s sub root/inner && "
           "ln -s file root/alias && mkfifo root/fifo && ln -s /dev/null root/null");
    (void)snprintf(name, sizeof(name), "%s/root", p->folder);
    table_require(!is_fault(root_open(&p->root, name)), "root");
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;

    root_close(&p->root);
    run(p, "rm -rf ../${PWD##*/}");
    free(p);
    return 0;
}

/* ---- Ways in ---- */

static const struct {
    const char *path;
    enum fault_kind fault;
} ways[] = {
    { "file", FAULT_NONE },
    { "sub/file", FAULT_NONE },
    { "link/secret", FAULT_PATH_LINK },
    { "inner/file", FAULT_PATH_LINK },
    { "file/x", FAULT_SYSTEM },
    { "none/x", FAULT_SYSTEM },
    { "../outside/secret", FAULT_PATH_OUTSIDE }, /* root_below() lets none through */
};

static void test_ways_in(void **state)
{
    struct place *p = *state;

    for (size_t i = 0; i < TABLE_LEN(ways); i++) {
        const char *name;
        int folder;
        struct fault fault = root_enter(&p->root, ways[i].path, &folder, &name);

        print_message("%s\n", ways[i].path);
        assert_int_equal(fault.kind, ways[i].fault);
        if (is_fault(fault))
            continue;
        assert_int_equal(faccessat(folder, name, F_OK, 0), 0);
        (void)close(folder);
    }
}

static void test_ways_in_by_walking(void **state)
{
    struct place *p = *state;

    for (size_t i = 0; i + 1 < TABLE_LEN(ways); i++) {
        const char *name;
        int folder;
        struct fault fault = root_walk(&p->root, ways[i].path, &folder, &name);

        print_message("%s\n", ways[i].path);
        assert_int_equal(is_fault(fault), ways[i].fault != FAULT_NONE);
        if (is_fault(fault))
            continue;
        assert_int_equal(faccessat(folder, name, F_OK, 0), 0);
        (void)close(folder);
    }
}

static void test_names_of_the_root(void **state)
{
    struct place *p = *state;
    char path[128], out[PATH_BYTES_MAX + 1];

    (void)snprintf(path, sizeof(path), "%s/root/sub/file", p->folder);
    assert_false(is_fault(root_below(&p->root, (struct json_text){ path, strlen(path) }, out)));
    assert_string_equal(out, "sub/file");
    (void)snprintf(path, sizeof(path), "%s/outside/secret", p->folder);
    assert_int_equal(root_below(&p->root, (struct json_text){ path, strlen(path) }, out).kind,
                     FAULT_PATH_OUTSIDE);
}

/* ---- Sources ---- */

static void test_sources(void **state)
{
    static const struct {
        const char *name;
        bool follow;
        enum fault_kind fault;
    } cases[] = {
        { "file", false, FAULT_NONE },       { "alias", false, FAULT_PATH_LINK },
        { "alias", true, FAULT_NONE },       { "fifo", false, FAULT_NOT_REGULAR },
        { "sub", false, FAULT_NOT_REGULAR }, { "null", true, FAULT_NOT_REGULAR },
        { "missing", false, FAULT_SYSTEM },
    };
    struct place *p = *state;
    struct source source;

    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct fault fault = source_open(&source, p->root.fd, cases[i].name, cases[i].follow);

        print_message("%s\n", cases[i].name);
        assert_int_equal(fault.kind, cases[i].fault);
        if (is_fault(fault)) {
            assert_int_equal(source.fd, -1);
            continue;
        }
        assert_int_equal(source.size, 4);
        assert_false(is_fault(source_check(&source)));
        run(p, "echo more >>root/file");
        assert_int_equal(source_check(&source).kind, FAULT_CHANGED);
        run(p, "echo old >root/file");
        source_close(&source);
    }
}

/* ---- Sinks ---- */

static int folder_of(const struct place *p)
{
    return openat(p->root.fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static struct fault open_sink(const struct place *p, struct sink *sink, const char *name,
                              uint64_t size, bool resume)
{
    const struct sink_wish wish = { .size = size, .mode = 0640, .resume = resume };

    return sink_open(sink, folder_of(p), name, &wish);
}

/* Names in the root that begin with the reserved prefix. */
static int count_temporary(const struct place *p)
{
    DIR *dir = fdopendir(openat(p->root.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int n = 0;

    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        n += strncmp(e->d_name, PATH_RESERVED, strlen(PATH_RESERVED)) == 0;
    (void)closedir(dir);
    return n;
}

static void assert_content(const struct place *p, const char *name, const char *want)
{
    char got[64] = "";
    int fd = openat(p->root.fd, name, O_RDONLY | O_CLOEXEC);

    table_require(fd >= 0 && read(fd, got, sizeof(got) - 1) >= 0, name);
    (void)close(fd);
    assert_string_equal(got, want);
}

static void test_a_sink_appears_complete(void **state)
{
    struct place *p = *state;
    struct sink sink;
    struct stat st;

    assert_false(is_fault(open_sink(p, &sink, "file", 3, false)));
    assert_false(is_fault(sink_write(&sink, "new", 3)));
    assert_int_equal(fstat(sink.fd, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_content(p, "file", "old\n");
    assert_int_equal(count_temporary(p), 1);
    assert_false(is_fault(sink_commit(&sink, NULL)));
    assert_content(p, "file", "new");
    assert_int_equal(count_temporary(p), 0);
    assert_int_equal(fstatat(p->root.fd, "file", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    sink_drop(&sink); /* closed already */
}

static void test_a_sink_that_breaks_off_leaves_nothing(void **state)
{
    struct place *p = *state;
    struct sink sink;

    assert_false(is_fault(open_sink(p, &sink, "file", 3, false)));
    assert_false(is_fault(sink_write(&sink, "ne", 2)));
    sink_drop(&sink);
    assert_content(p, "file", "old\n");
    assert_int_equal(count_temporary(p), 0);
}

static void test_targets(void **state)
{
    static const struct {
        const char *name;
        enum fault_kind fault;
    } cases[] = { { "sub", FAULT_NOT_REGULAR },
                  { "fifo", FAULT_NOT_REGULAR },
                  { "alias", FAULT_PATH_LINK },
                  { "null", FAULT_PATH_LINK } };
    struct place *p = *state;
    struct sink sink;

    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        print_message("%s\n", cases[i].name);
        assert_int_equal(open_sink(p, &sink, cases[i].name, 1, false).kind, cases[i].fault);
        assert_int_equal(count_temporary(p), 0);
    }
    assert_int_equal(open_sink(p, &sink, "huge", (uint64_t)INT64_MAX, false).system, ENOSPC);
    assert_int_equal(count_temporary(p), 0);
}

/* What takes the name while the bytes come is not followed, nor replaced if it is no file. */
static void test_a_target_that_becomes_a_folder(void **state)
{
    struct place *p = *state;
    struct sink sink;

    assert_false(is_fault(open_sink(p, &sink, "later", 1, false)));
    run(p, "mkdir root/later");
    assert_int_equal(sink_commit(&sink, NULL).kind, FAULT_NOT_REGULAR);
    assert_int_equal(count_temporary(p), 0);
}

static void test_checksum(void **state)
{
    static const uint8_t of_new[] = { 0x11, 0x50, 0x7a,
                                      0x0e }; /* SHA-256 of "new", its beginning */
    struct place *p = *state;
    struct sink sink;
    uint8_t sum[SUM_BYTES] = { 0 };

    assert_false(is_fault(open_sink(p, &sink, "file", 3, true)));
    assert_false(is_fault(sink_write(&sink, "new", 3)));
    assert_int_equal(sink_commit(&sink, sum).kind, FAULT_CHECKSUM);
    assert_content(p, "file", "old\n");
    assert_int_equal(count_temporary(p), 0);

    assert_false(is_fault(open_sink(p, &sink, "file", 3, true)));
    assert_false(is_fault(sink_write(&sink, "new", 3)));
    sum_read(sink.sum, sum);
    assert_memory_equal(sum, of_new, sizeof(of_new));
    assert_false(is_fault(sink_commit(&sink, sum)));
    assert_content(p, "file", "new");
}

static void test_resuming(void **state)
{
    struct place *p = *state;
    struct sink sink, second;
    uint8_t sum[SUM_BYTES];

    assert_false(is_fault(open_sink(p, &sink, "file", 6, true)));
    assert_false(is_fault(sink_write(&sink, "abc", 3)));
    assert_int_equal(open_sink(p, &second, "file", 6, true).kind, FAULT_BUSY);
    sum_read(sink.sum, sum);
    sink_drop(&sink);
    assert_int_equal(count_temporary(p), 1);

    assert_false(is_fault(open_sink(p, &sink, "file", 6, true)));
    assert_int_equal(sink.got, 3);
    sum_read(sink.sum, sum + 0);
    assert_false(is_fault(sink_write(&sink, "def", 3)));
    sum_read(sink.sum, sum);
    assert_false(is_fault(sink_commit(&sink, sum)));
    assert_content(p, "file", "abcdef");
    assert_int_equal(count_temporary(p), 0);

    assert_false(is_fault(open_sink(p, &sink, "file", 6, true)));
    assert_false(is_fault(sink_write(&sink, "wrong", 5)));
    sink_drop(&sink);
    assert_false(is_fault(open_sink(p, &sink, "file", 2, true))); /* shorter than what was left */
    assert_int_equal(sink.got, 0);
    assert_false(is_fault(sink_write(&sink, "ab", 2)));
    assert_false(is_fault(sink_restart(&sink)));
    assert_false(is_fault(sink_write(&sink, "xy", 2)));
    assert_false(is_fault(sink_commit(&sink, NULL)));
    assert_content(p, "file", "xy");
}

/* What lies under the name of an unfinished file is used only if it is a plain file of our own. */
static void test_planted_partial_files(void **state)
{
    static const char *const plants[] = { "ln -s ../outside/secret", "ln ../outside/secret",
                                          "mkfifo" };
    struct place *p = *state;
    struct sink sink;
    char partial[SINK_TEMPORARY_MAX], command[256];

    assert_false(is_fault(open_sink(p, &sink, "file", 10, true)));
    (void)strcpy(partial, sink.temporary);
    sink_drop(&sink);
    for (size_t i = 0; i < TABLE_LEN(plants); i++) {
        (void)snprintf(command, sizeof(command), "cd root && rm -f %s && %s %s", partial, plants[i],
                       partial);
        print_message("%s\n", plants[i]);
        run(p, command);
        assert_true(is_fault(open_sink(p, &sink, "file", 10, true)));
    }
    run(p, "grep -qx secret outside/secret");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_ways_in),
        TEST(test_ways_in_by_walking),
        TEST(test_names_of_the_root),
        TEST(test_sources),
        TEST(test_a_sink_appears_complete),
        TEST(test_a_sink_that_breaks_off_leaves_nothing),
        TEST(test_targets),
        TEST(test_a_target_that_becomes_a_folder),
        TEST(test_checksum),
        TEST(test_resuming),
        TEST(test_planted_partial_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
