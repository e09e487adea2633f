/* Names of tpft: what a peer may ask for, what a user may type (doc/protocol/tinyproto.md, 14.1, 14.4). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "path.h"
#include "tables.h"

static const char *const roots[] = { "/srv/files", "/mnt/link//" };

static const struct below_case {
    const char *path, *want;
    enum fault_kind fault;
} belows[] = {
    { "a", "a", FAULT_NONE },
    { "a/b/c.txt", "a/b/c.txt", FAULT_NONE },
    { "./a//b/./c", "a/b/c", FAULT_NONE },
    { "...", "...", FAULT_NONE },
    { "..a/b..", "..a/b..", FAULT_NONE },
    { "a\\..\\b", "a\\..\\b", FAULT_NONE },
    { "gr\xc3\xbc\xff\n", "gr\xc3\xbc\xff\n", FAULT_NONE },
    { "/srv/files/a", "a", FAULT_NONE },
    { "/srv/files//a/b", "a/b", FAULT_NONE },
    { "/mnt/link/a", "a", FAULT_NONE },
    { "", NULL, FAULT_PATH_EMPTY },
    { ".", NULL, FAULT_NOT_REGULAR },
    { "./", NULL, FAULT_NOT_REGULAR },
    { "a/", NULL, FAULT_NOT_REGULAR },
    { "a/.", NULL, FAULT_NOT_REGULAR },
    { "/srv/files", NULL, FAULT_NOT_REGULAR },
    { "/srv/files/", NULL, FAULT_NOT_REGULAR },
    { "..", NULL, FAULT_PATH_OUTSIDE },
    { "../a", NULL, FAULT_PATH_OUTSIDE },
    { "a/../b", NULL, FAULT_PATH_OUTSIDE },
    { "a/..", NULL, FAULT_PATH_OUTSIDE },
    { "/", NULL, FAULT_PATH_OUTSIDE },
    { "/etc/passwd", NULL, FAULT_PATH_OUTSIDE },
    { "//srv/files/a", NULL, FAULT_PATH_OUTSIDE },
    { "/srv/files2/a", NULL, FAULT_PATH_OUTSIDE },
    { "/srv/files/../a", NULL, FAULT_PATH_OUTSIDE },
    { "/srv/file", NULL, FAULT_PATH_OUTSIDE },
    { ".tpft-0123", NULL, FAULT_PATH_RESERVED },
    { "a/.tpft-", NULL, FAULT_PATH_RESERVED },
    { ".tpft-a/b", ".tpft-a/b", FAULT_NONE },
};

static void test_below(void **state)
{
    char out[PATH_BYTES_MAX + 1];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(belows); i++) {
        const struct below_case *c = &belows[i];
        char *exact = malloc(strlen(c->path) + 1);
        struct fault fault;

        print_message("# case %zu\n", i);
        memcpy(exact, c->path, strlen(c->path));
        fault = path_below((struct json_text){ exact, strlen(c->path) }, roots, 2, out);
        assert_int_equal(fault.kind, c->fault);
        if (c->want != NULL)
            assert_string_equal(out, c->want);
        free(exact);
    }
}

static void test_root_of_everything(void **state)
{
    static const char *const slash[] = { "/" };
    char out[PATH_BYTES_MAX + 1];

    (void)state;
    assert_false(is_fault(path_below((struct json_text){ "/etc/passwd", 11 }, slash, 1, out)));
    assert_string_equal(out, "etc/passwd");
}

static enum fault_kind below_of(const char *ptr, size_t len)
{
    char out[PATH_BYTES_MAX + 1];

    return path_below((struct json_text){ ptr, len }, roots, 2, out).kind;
}

static void test_lengths(void **state)
{
    static char path[PATH_BYTES_MAX + 2];

    (void)state;
    memset(path, 'a', sizeof(path));
    assert_int_equal(below_of(path, 255), FAULT_NONE);
    assert_int_equal(below_of(path, 256), FAULT_PATH_LONG);
    for (size_t i = 250; i < sizeof(path); i += 250)
        path[i] = '/';
    assert_int_equal(below_of(path, PATH_BYTES_MAX), FAULT_NONE);
    assert_int_equal(below_of(path, PATH_BYTES_MAX + 1), FAULT_PATH_LONG);
    assert_int_equal(below_of("a\0b", 3), FAULT_PATH_NUL);
    assert_int_equal(below_of("a\0", 2), FAULT_PATH_NUL);
}

static const struct remote_case {
    const char *argument;
    bool is_remote, is_good;
    const char *host, *path;
    int port;
} remotes[] = {
    { "host:file", true, true, "host", "file", 8088 },
    { "host:99:file", true, true, "host", "file", 99 },
    { "host:/abs/file", true, true, "host", "/abs/file", 8088 },
    { "host:99", true, true, "host", "99", 8088 },
    { "[::1]:file", true, true, "::1", "file", 8088 },
    { "[::1]:99:dir/", true, true, "::1", "dir/", 99 },
    { "file", false, false, NULL, NULL, 0 },
    { "./a:b", false, false, NULL, NULL, 0 },
    { "../a:b", false, false, NULL, NULL, 0 },
    { "/a:b", false, false, NULL, NULL, 0 },
    { "a:b:c:d", true, false, NULL, NULL, 0 },
    { "a:b:c", true, false, NULL, NULL, 0 },
    { "a:0:c", true, false, NULL, NULL, 0 },
    { "a:65536:c", true, false, NULL, NULL, 0 },
    { "a::c", true, false, NULL, NULL, 0 },
    { "a:-1:c", true, false, NULL, NULL, 0 },
    { ":c", true, false, NULL, NULL, 0 },
    { "a:", true, false, NULL, NULL, 0 },
    { "a:1:", true, false, NULL, NULL, 0 },
    { "[::1:file", true, false, NULL, NULL, 0 },
    { "[::1]file:x", true, false, NULL, NULL, 0 },
    { "[]:file", true, false, NULL, NULL, 0 },
    { "::1:file", true, false, NULL, NULL, 0 },
};

static void test_remote(void **state)
{
    struct path_remote out;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(remotes); i++) {
        const struct remote_case *c = &remotes[i];

        print_message("# case %zu\n", i);
        assert_int_equal(path_is_remote(c->argument), c->is_remote);
        if (!c->is_remote)
            continue;
        assert_int_equal(path_parse_remote(c->argument, &out), c->is_good);
        if (!c->is_good)
            continue;
        assert_string_equal(out.host, c->host);
        assert_string_equal(out.path, c->path);
        assert_int_equal(out.port, c->port);
    }
}

static const struct {
    const char *text, *host;
    int port; /* -1: wrong */
} addresses[] = {
    { "host", "host", 8088 }, { "host:0", "host", 0 },    { "[::1]", "::1", 8088 },
    { "[::1]:7", "::1", 7 },  { "", NULL, -1 },           { ":1", NULL, -1 },
    { "host:", NULL, -1 },    { "host:65536", NULL, -1 }, { "host:1:2", NULL, -1 },
    { "host:1x", NULL, -1 },  { "::1", NULL, -1 },        { "[::1]7", NULL, -1 },
};

static void test_addresses(void **state)
{
    struct path_remote out;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(addresses); i++) {
        print_message("# case %zu\n", i);
        assert_int_equal(path_parse_address(addresses[i].text, &out), addresses[i].port >= 0);
        if (addresses[i].port < 0)
            continue;
        assert_string_equal(out.host, addresses[i].host);
        assert_int_equal(out.port, addresses[i].port);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_below),     cmocka_unit_test(test_root_of_everything),
        cmocka_unit_test(test_lengths),   cmocka_unit_test(test_remote),
        cmocka_unit_test(test_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
