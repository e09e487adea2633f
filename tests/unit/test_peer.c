/* Addresses of peers, printed and counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "peer.h"
#include "tables.h"

static union peer_address address(const char *host, uint16_t port)
{
    union peer_address a;

    memset(&a, 0, sizeof a);
    if (inet_pton(AF_INET, host, &a.in.sin_addr) == 1) {
        a.in.sin_family = AF_INET;
        a.in.sin_port = htons(port);
    } else {
        table_require(inet_pton(AF_INET6, host, &a.in6.sin6_addr) == 1, host);
        a.in6.sin6_family = AF_INET6;
        a.in6.sin6_port = htons(port);
    }
    return a;
}

static void test_print(void **state)
{
    static const struct {
        const char *host;
        uint16_t port;
        const char *text;
    } cases[] = {
        { "127.0.0.1", 80, "127.0.0.1:80" },
        { "255.255.255.255", 65535, "255.255.255.255:65535" },
        { "::1", 1, "[::1]:1" },
        { "2001:db8:1111:2222:3333:4444:5555:6666", 65535,
          "[2001:db8:1111:2222:3333:4444:5555:6666]:65535" },
        { "::ffff:192.0.2.1", 0, "[::ffff:192.0.2.1]:0" },
    };
    const struct sockaddr local = { .sa_family = AF_UNIX };
    char text[PEER_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        union peer_address a = address(cases[i].host, cases[i].port);

        peer_print(&a.sa, text);
        assert_string_equal(text, cases[i].text);
    }
    peer_print(NULL, text);
    assert_string_equal(text, "-");
    peer_print(&local, text);
    assert_string_equal(text, "-");
}

static bool take(struct peer_limit *limit, const char *host)
{
    static uint16_t port;
    union peer_address a = address(host, ++port);

    return peer_limit_take(limit, &a.sa);
}

static void release(struct peer_limit *limit, const char *host)
{
    union peer_address a = address(host, 9);

    peer_limit_release(limit, &a.sa);
}

/* With a limit of 1, may `second` connect beside `first`? */
static void test_what_is_counted_together(void **state)
{
    static const struct {
        const char *first, *second;
        bool together;
    } cases[] = {
        { "192.0.2.1", "192.0.2.1", true },
        { "192.0.2.1", "192.0.2.2", false },
        { "192.0.2.1", "192.0.2.0", false },
        { "2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true },
        { "2001:db8:0:1::1", "2001:db8:0:2::1", false },
        { "2001:db8:0:1::1", "2001:db8:0:0::1", false },
        { "::ffff:192.0.2.1", "192.0.2.1", true },
        { "::ffff:192.0.2.1", "::ffff:192.0.2.2", false },
        { "c000:201::", "192.0.2.1", false }, /* begins with the same bytes */
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct peer_limit *limit = peer_limit_create(1);

        assert_true(take(limit, cases[i].first));
        assert_int_equal(take(limit, cases[i].second), !cases[i].together);
        peer_limit_destroy(limit);
    }
}

static void test_limit(void **state)
{
    struct peer_limit *limit = peer_limit_create(3);

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(take(limit, "192.0.2.1"));
    assert_false(take(limit, "192.0.2.1"));
    assert_false(take(limit, "192.0.2.1")); /* a refused one is not counted */
    assert_true(take(limit, "::1"));
    release(limit, "192.0.2.1");
    assert_true(take(limit, "192.0.2.1"));
    assert_false(take(limit, "192.0.2.1"));
    for (int i = 0; i < 3; i++)
        release(limit, "192.0.2.1");
    for (int i = 0; i < 3; i++)
        assert_true(take(limit, "192.0.2.1"));
    assert_false(take(limit, "192.0.2.1"));
    peer_limit_destroy(limit);
    peer_limit_destroy(NULL);
}

static void test_others_are_not_counted(void **state)
{
    const struct sockaddr local = { .sa_family = AF_UNIX };
    struct peer_limit *limit = peer_limit_create(1);

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(peer_limit_take(limit, &local));
    peer_limit_release(limit, &local);
    peer_limit_destroy(limit);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_print),
        cmocka_unit_test(test_what_is_counted_together),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_others_are_not_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
