/* Listening sockets: listener.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "listener.h"

static char bound[LISTENER_ADDRESS_MAX], error[256];

static bool is_listening(int fd)
{
    int yes = 0;
    socklen_t len = sizeof(yes);

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) == 0 && yes == 1;
}

static void opens_any_free_port(void **state)
{
    int fd = -1;

    (void)state;
    assert_true(listener_open("127.0.0.1:0", 16, 1, &fd, bound, error));
    assert_memory_equal(bound, "127.0.0.1:", 10);
    assert_true(atoi(bound + 10) > 0);
    assert_true(is_listening(fd));
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
}

static void opens_v6_and_prints_brackets(void **state)
{
    int fd = -1;

    (void)state;
    if (!listener_open("[::1]:0", 16, 1, &fd, bound, error))
        fail_msg("this needs an IPv6 loopback address: %s", error);
    assert_memory_equal(bound, "[::1]:", 6);
    assert_true(atoi(bound + 6) > 0);
    close(fd);
}

/* "[::]" is v6 only, so that "0.0.0.0" may have the same port. */
static void v4_and_v6_share_a_port(void **state)
{
    char v4[LISTENER_ADDRESS_MAX];
    int fds[2];

    (void)state;
    if (!listener_open("[::]:0", 16, 1, &fds[0], bound, error))
        fail_msg("this needs IPv6: %s", error);
    snprintf(v4, sizeof(v4), "0.0.0.0:%s", strrchr(bound, ':') + 1);
    assert_true(listener_open(v4, 16, 1, &fds[1], bound, error));
    close(fds[0]);
    close(fds[1]);
}

static void looks_names_up(void **state)
{
    int fd = -1;

    (void)state;
    assert_true(listener_open("localhost:0", 16, 1, &fd, bound, error));
    close(fd);
}

static void a_port_in_use_is_an_error_that_names_the_address(void **state)
{
    char address[LISTENER_ADDRESS_MAX];
    int fds[3] = { -1, -7, -7 };

    (void)state;
    for (size_t first = 1; first <= 2; first++) { /* also where the other one shares its port */
        assert_true(listener_open("127.0.0.1:0", 16, first, fds, address, error));
        for (size_t count = 1; count <= 2; count++) {
            int more[2] = { -7, -7 };

            error[0] = '\0';
            assert_false(listener_open(address, 16, count, more, bound, error));
            assert_non_null(strstr(error, address));
            assert_non_null(strstr(error, "in use"));
            assert_int_equal(more[0], -7);
            assert_int_equal(more[1], -7);
        }
        for (size_t i = 0; i < first; i++)
            close(fds[i]);
    }
}

/* Each of the sockets gets connections, together all of them. */
static void several_sockets_share_one_port(void **state)
{
    enum { SOCKETS = 3, PEERS = 60 };
    int fds[SOCKETS], peers[PEERS], accepted = 0;
    struct sockaddr_storage to;
    socklen_t len = sizeof(to);

    (void)state;
    assert_true(listener_open("127.0.0.1:0", PEERS, SOCKETS, fds, bound, error));
    assert_int_equal(getsockname(fds[0], (struct sockaddr *)&to, &len), 0);
    for (int i = 0; i < PEERS; i++) {
        peers[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(peers[i], (struct sockaddr *)&to, len), 0);
    }
    for (int i = 0; i < SOCKETS; i++) {
        int fd, own = 0;

        while ((fd = accept(fds[i], NULL, NULL)) >= 0) {
            close(fd);
            own++;
        }
        assert_true(own > 0);
        accepted += own;
        close(fds[i]);
    }
    assert_int_equal(accepted, PEERS);
    for (int i = 0; i < PEERS; i++)
        close(peers[i]);
}

static void refuses_bad_addresses(void **state)
{
    static const char *const bad[] = {
        "",
        "127.0.0.1",
        ":3003",
        "127.0.0.1:",
        "127.0.0.1:x",
        "[::1]",
        "[::1]3003",
        "::1:3003",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "[::1:3003",
        "127.0.0.1: 80",
        "[]:3003",
        "127.0.0.1:80x",
        "127.0.0.1:000080",
        "300.1.1.1:0",
        "no-such-host.invalid:0",
        "192.0.2.1:0",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int fd = -7;

        error[0] = '\0';
        assert_false(listener_open(bad[i], 16, 1, &fd, bound, error));
        assert_int_equal(fd, -7);
        assert_non_null(strstr(error, "cannot listen on"));
        assert_non_null(strstr(error, bad[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_any_free_port),
        cmocka_unit_test(opens_v6_and_prints_brackets),
        cmocka_unit_test(v4_and_v6_share_a_port),
        cmocka_unit_test(looks_names_up),
        cmocka_unit_test(a_port_in_use_is_an_error_that_names_the_address),
        cmocka_unit_test(several_sockets_share_one_port),
        cmocka_unit_test(refuses_bad_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
