/* The timeouts of the HTTP client. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "http_client_fixture.h"

static void test_timeouts(void **state)
{
    static const struct {
        const char *url;
        uint64_t total_ms, connect_ms, sock_connect_ms, sock_read_ms;
        const char *detail;
    } cases[] = {
        { "/hang", 100, 0, 0, 0, "" },
        { "/drip", 200, 0, 0, 100, "" },
        { "/hang", 0, 0, 0, 100, "no byte" },
        { "/partial", 0, 0, 0, 100, "no byte" },
        { "/hang", 5000, 5000, 5000, 100, "no byte" },
        { "https://127.0.0.1:PORT/", 0, 100, 0, 0, "" },
        { "https://127.0.0.1:PORT/", 0, 0, 100, 50, "no connection" },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t start_ms, took_ms;

        f->conf.timeout_total_ms = cases[i].total_ms;
        f->conf.timeout_connect_ms = cases[i].connect_ms;
        f->conf.timeout_sock_connect_ms = cases[i].sock_connect_ms;
        f->conf.timeout_sock_read_ms = cases[i].sock_read_ms;
        uv_update_time(&f->loop);
        start_ms = uv_now(&f->loop);
        post_and_wait(f, cases[i].url, NULL);
        took_ms = uv_now(&f->loop) - start_ms;
        if (f->result.status != HTTP_CALL_TIMEOUT ||
            strstr(f->result.detail, cases[i].detail) == NULL)
            print_error("case %zu: %s\n", i, f->result.detail);
        assert_status(f, HTTP_CALL_TIMEOUT);
        assert_non_null(strstr(f->result.detail, cases[i].detail));
        assert_in_range(took_ms, 95, 4000);
        close_client(f);
    }
}

/* A reply that came in time is read, however late the timer is. */
static void test_stall(void **state)
{
    static const char *const headers[] = { "Accept: text/plain" };
    struct http_call_request for_libcurl = { .headers = headers, .header_count = 1 };
    struct fixture *f = *state;

    f->conf.timeout_total_ms = 100;
    f->conf.timeout_connect_ms = 100;
    f->conf.timeout_sock_read_ms = 100;
    f->conf.timeout_sock_connect_ms = 100;
    f->server.stall_ms = 300;
    for (int i = 0; i < 4; i++) { /* both ways */
        post_and_wait(f, "/stall", i < 2 ? NULL : &for_libcurl);
        assert_status(f, HTTP_CALL_REPLIED);
        assert_memory_equal(f->result.body, "hello", 5);
    }
    post_and_wait(f, "/hang", NULL);
    assert_status(f, HTTP_CALL_TIMEOUT);
}

/* A listener whose queue is full drops what would open another connection. */
static int deaf_listener(int *port, int fillers[8])
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 0), 0);
    getsockname(fd, (struct sockaddr *)&address, &len);
    *port = ntohs(address.sin_port);
    for (int i = 0; i < 8; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&address, sizeof address);
    }
    return fd;
}

static void test_connect_timeouts(void **state)
{
    static const struct {
        uint64_t total_ms, connect_ms, sock_connect_ms;
    } cases[] = { { 100, 0, 0 }, { 0, 100, 0 }, { 0, 0, 100 }, { 5000, 5000, 100 } };
    struct fixture *f = *state;
    int fillers[8], port, fd = deaf_listener(&port, fillers);
    char url[64];

    snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t start_ms;

        f->conf.timeout_total_ms = cases[i].total_ms;
        f->conf.timeout_connect_ms = cases[i].connect_ms;
        f->conf.timeout_sock_connect_ms = cases[i].sock_connect_ms;
        f->conf.timeout_sock_read_ms = 20; /* does not run before there is a connection */
        uv_update_time(&f->loop);
        start_ms = uv_now(&f->loop);
        post_and_wait(f, url, NULL);
        assert_status(f, HTTP_CALL_TIMEOUT);
        assert_in_range(uv_now(&f->loop) - start_ms, 95, 3000);
        close_client(f);
    }
    for (int i = 0; i < 8; i++)
        close(fillers[i]);
    close(fd);
}
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_timeouts),
        TEST(test_stall),
        TEST(test_connect_timeouts),
    };

    prepare_process();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
