/* Calls of the HTTP client: URLs, requests, replies, connections that are kept, where they may go, and how
 * they end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <sys/resource.h>

#include "http_client_fixture.h"

/* ---- replies ---- */

static void test_replies(void **state)
{
    static const struct {
        const char *path;
        enum http_call_status status;
        int http_status;
        const char *body;
    } cases[] = {
        { "/ok", HTTP_CALL_REPLIED, 200, "hello" },
        { "/none", HTTP_CALL_REPLIED, 204, "" },
        { "/chunked", HTTP_CALL_REPLIED, 200, "hello" },
        { "/eof", HTTP_CALL_REPLIED, 200, "hello" },
        { "/redirect", HTTP_CALL_REPLIED, 302, "" },
        { "/broken", HTTP_CALL_REPLIED, 503, "busy" },
        { "/large", HTTP_CALL_REPLY_SIZE, 0, NULL },
        { "/huge", HTTP_CALL_REPLY_SIZE, 0, NULL },
        { "/endless", HTTP_CALL_REPLY_SIZE, 0, NULL },
        { "/early", HTTP_CALL_BROKEN, 0, NULL },
        { "/half", HTTP_CALL_BROKEN, 0, NULL },
        { "/cut", HTTP_CALL_BROKEN, 0, NULL },
        { "/badchunk", HTTP_CALL_BROKEN, 0, NULL },
        { "/garbage", HTTP_CALL_BROKEN, 0, NULL },
        { "/headers", HTTP_CALL_BROKEN, 0, NULL },
        { "/continue", HTTP_CALL_BROKEN, 0, NULL },
        { "/close", HTTP_CALL_BROKEN, 0, NULL },
        { "/reset", HTTP_CALL_BROKEN, 0, NULL },
        { "/last", HTTP_CALL_REPLIED, 200, "hello" },
        { "/older", HTTP_CALL_REPLIED, 200, "hello" },
        { "/hints", HTTP_CALL_REPLIED, 200, "hello" },
    };
    static const uint8_t bytes[] = { 0, 31, 62, 93 }; /* byte_at */
    static const char *const headers[] = { "Accept: text/plain" };
    struct http_call_request for_libcurl = { .headers = headers,
                                             .header_count = 1,
                                             .prefix = { bytes, sizeof bytes } };
    struct fixture *f = *state;
    size_t n = sizeof cases / sizeof cases[0];

    for (size_t i = 0; i < 2 * n; i++) {
        size_t of = i % n;

        post_and_wait(f, cases[of].path, i < n ? NULL : &for_libcurl);
        if (f->result.status != cases[of].status)
            print_error("%s: status %d, %s\n", cases[of].path, f->result.status, f->result.detail);
        assert_int_equal(f->result.status, cases[of].status);
        if (cases[of].status != HTTP_CALL_REPLIED)
            continue;
        assert_int_equal(f->result.http_status, cases[of].http_status);
        assert_int_equal(f->result.body_len, strlen(cases[of].body));
        assert_memory_equal(f->result.body, cases[of].body, f->result.body_len);
        assert_int_equal(f->server.body_len, 4);
        assert_true(f->server.body_good);
    }
    assert_int_equal(f->ended, 2 * n);
}

/* Bound and not listening: nobody else can be there. */
static int closed_socket(int *port)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    getsockname(fd, (struct sockaddr *)&address, &len);
    *port = ntohs(address.sin_port);
    return fd;
}

static void test_urls(void **state)
{
    int closed_port, closed_fd = closed_socket(&closed_port);
    char closed_url[64];
    static const struct {
        const char *url;
        enum http_call_status status;
    } cases[] = {
        { "", HTTP_CALL_URL },
        { "no url", HTTP_CALL_URL },
        { "127.0.0.1:PORT/ok", HTTP_CALL_URL },
        { "ftp://127.0.0.1:PORT/ok", HTTP_CALL_URL },
        { "file:///etc/passwd", HTTP_CALL_URL },
        { "gopher://127.0.0.1:PORT/ok", HTTP_CALL_URL },
        { "httpx://127.0.0.1:PORT/ok", HTTP_CALL_URL },
        { "http://", HTTP_CALL_URL },
        { "http://127.0.0.1:99999/ok", HTTP_CALL_URL },
        { "http://127.0.0.1:port/ok", HTTP_CALL_URL },
        { "http://[::1/ok", HTTP_CALL_URL },
        { "http://127.0.0.1:PORT/ok\r\nX: y", HTTP_CALL_URL },
        { "http://host name:PORT/ok", HTTP_CALL_URL },
        { "HTTP://127.0.0.1:PORT/ok", HTTP_CALL_REPLIED },
        { "http://0x7f000001:PORT/ok", HTTP_CALL_REPLIED },
        { "http://localhost:PORT/ok", HTTP_CALL_REPLIED }, /* ::1 is refused first */
        { "http://"
          "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:PORT/ok",
          HTTP_CALL_CONNECT },
    };
    struct fixture *f = *state;

    f->conf.timeout_sock_read_ms = 5000;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        post_and_wait(f, cases[i].url, NULL);
        if (f->result.status != cases[i].status)
            print_error("%s: status %d, %s\n", cases[i].url, f->result.status, f->result.detail);
        assert_int_equal(f->result.status, cases[i].status);
    }
    snprintf(closed_url, sizeof closed_url, "http://127.0.0.1:%d/", closed_port);
    post_and_wait(f, closed_url, NULL);
    assert_status(f, HTTP_CALL_CONNECT);
    close(closed_fd);
}

static void test_request(void **state)
{
    static const char *const headers[] = { "X-A: 1", "X-Empty:", "X-Blank:  ", "X-Tab: a\tb" };
    static const char *const with_type[] = { "content-type: application/octet-stream" };
    static const char *const bad[] = { "X-A: 1\r\nX-B: 2" };
    static const char *const nameless[] = { "X-A" };
    struct fixture *f = *state;
    struct http_call_request request = { .headers = headers, .header_count = 4 };
    const char *head = f->server.head;

    f->conf.user_agent = "agent/1";
    post_and_wait(f, "/ok/../a b\xc3\xa9?q=1&r=%20 x#frag", &request);
    assert_status(f, HTTP_CALL_REPLIED);
    assert_ptr_equal(strstr(head, "POST /ok/../a%20b%C3%A9?q=1&r=%20%20x HTTP/1.1\r\n"), head);
    assert_non_null(strstr(head, "\r\nX-A: 1\r\n"));
    assert_non_null(strstr(head, "\r\nX-Empty:\r\n"));
    assert_non_null(strstr(head, "\r\nX-Blank:\r\n"));
    assert_non_null(strstr(head, "\r\nX-Tab: a\tb\r\n"));
    assert_non_null(strstr(head, "\r\nUser-Agent: agent/1\r\n"));
    assert_non_null(strstr(head, "\r\nContent-Length: 0\r\n"));
    assert_null(strcasestr(head, "\r\nContent-Type"));
    assert_null(strcasestr(head, "\r\nExpect"));
    assert_null(strcasestr(head, "\r\nAccept-Encoding"));
    assert_null(strstr(head, "frag"));

    request = (struct http_call_request){ .headers = with_type, .header_count = 1 };
    post_and_wait(f, "/ok?x", &request);
    assert_non_null(strstr(head, "\r\ncontent-type: application/octet-stream\r\n"));
    assert_null(strstr(head, "urlencoded"));
    request.headers = bad;
    post_and_wait(f, "/ok", &request);
    assert_status(f, HTTP_CALL_BROKEN);
    request.headers = nameless;
    post_and_wait(f, "/ok", &request);
    assert_status(f, HTTP_CALL_BROKEN);
    assert_int_equal(f->server.requests, 2);
}

static void test_keepalive(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 20; i++) {
        post_and_wait(f, i % 2 != 0 ? "/ok" : "/chunked", NULL);
        assert_status(f, HTTP_CALL_REPLIED);
    }
    assert_int_equal(f->server.accepted, 1);
    http_client_forget_connections(f->client);
    for (int i = 0; i < 3; i++) {
        post_and_wait(f, "/ok", NULL);
        assert_status(f, HTTP_CALL_REPLIED);
    }
    assert_int_equal(f->server.accepted, 2);
    assert_int_equal(f->server.requests, 23);
}

/* ---- addresses ---- */

struct rule {
    bool allow;
    unsigned asked;
    int family, port;
    char text[64], url[128];
};

static bool judge(void *arg, const char *url, const struct sockaddr *address)
{
    struct rule *r = arg;

    snprintf(r->url, sizeof r->url, "%s", url);
    r->asked++;
    r->family = address->sa_family;
    uv_ip_name(address, r->text, sizeof r->text);
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, address, sizeof in);
        r->port = ntohs(in.sin_port);
    }
    return r->allow;
}

static void test_allow_address(void **state)
{
    static const char *const urls[] = { "/ok", "http://[::ffff:127.0.0.1]:PORT/ok",
                                        "http://0x7f.1:PORT/ok" };
    struct fixture *f = *state;
    struct rule rule = { 0 };

    f->conf.allow_address = judge;
    f->conf.allow_arg = &rule;
    for (int i = 0; i < 3; i++) {
        rule = (struct rule){ 0 };
        post_and_wait(f, urls[i], NULL);
        assert_status(f, HTTP_CALL_CONNECT);
        assert_non_null(strstr(f->result.detail, "not allowed"));
        assert_int_equal(rule.family, AF_INET);
        assert_string_equal(rule.text, "127.0.0.1");
        assert_int_equal(rule.port, f->server.port);
        assert_non_null(strstr(rule.url, i == 1 ? "http://[::ffff:127.0.0.1]:" : "/ok"));
    }
    assert_int_equal(f->server.accepted, 0);
    rule.allow = true;
    post_and_wait(f, "/ok", NULL);
    assert_status(f, HTTP_CALL_REPLIED);
    rule.allow = false; /* the kept connection is no way around the new rule */
    post_and_wait(f, "/ok", NULL);
    assert_status(f, HTTP_CALL_CONNECT);
    assert_int_equal(f->server.requests, 1);
}

static void test_proxy(void **state)
{
    static const struct {
        const char *url;
        enum http_call_status status;
    } cases[] = {
        { "http://name.invalid/ok", HTTP_CALL_REPLIED },
        { "http://192.0.2.1/ok", HTTP_CALL_CONNECT },
        { "http://0xc0000201/ok", HTTP_CALL_CONNECT },
        { "http://[::ffff:192.0.2.1]/ok", HTTP_CALL_CONNECT },
        { "http://[2001:db8::1]/ok", HTTP_CALL_CONNECT },
        { "http://192.0.2.1./ok", HTTP_CALL_CONNECT },
        { "http://%30xc0.0.513/ok", HTTP_CALL_CONNECT },
        { "http://[2001:db8::1/ok", HTTP_CALL_URL },
    };
    static const char *const foreign[] = {
        "http://\xef\xbc\x91\xef\xbc\x99\xef\xbc\x92.0.2.1/ok",
        "http://%EF%BC%91%EF%BC%99%EF%BC%92.0.2.1/ok",
        "http://na\xc3\xafve.invalid/ok",
    };
    struct fixture *f = *state;
    struct rule rule = { 0 };
    char proxy[64];

    snprintf(proxy, sizeof proxy, "http://127.0.0.1:%d", f->server.port);
    f->conf.proxy = proxy;
    f->conf.allow_address = judge;
    f->conf.allow_arg = &rule;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        post_and_wait(f, cases[i].url, NULL);
        assert_status(f, cases[i].status);
    }
    for (size_t i = 0; i < 3; i++) {
        post_and_wait(f, foreign[i], NULL);
        assert_status(f, HTTP_CALL_URL);
        assert_string_equal(f->result.detail, "the host is not ASCII");
    }
    assert_ptr_equal(strstr(f->server.head, "POST http://name.invalid/ok HTTP/1.1\r\n"),
                     f->server.head);
    assert_string_equal(rule.url, "http://%30xc0.0.513/ok");
    assert_int_equal(f->server.requests, 1);
}

/* What fails here ends with its reason, also when libcurl finds a connection meanwhile. */
static void test_fails_before_connection(void **state)
{
    static const char *const headers[] = { "Accept: text/plain" }; /* to go libcurl's way */
    struct http_call_request request = { .headers = headers, .header_count = 1 };
    struct fixture *f = *state;
    struct http_call *call;

    post_and_wait(f, "/ok", &request);
    call = post(f, "/ok", &request);
    http_call_trouble(call, HTTP_CALL_BROKEN, "no poll");
    http_call_fail_later(call);
    wait_done(f);
    assert_status(f, HTTP_CALL_BROKEN);
    assert_string_equal(f->result.detail, "no poll");
    assert_int_equal(f->server.requests, 1);
}

static const char *secret; /* must not be in memory that is freed; NULL: whatever */

void __real_mem_free(void *p);
void __wrap_mem_free(void *p);

void __wrap_mem_free(void *p)
{
    if (p != NULL && secret != NULL)
        assert_null(memmem(p, malloc_usable_size(p), secret, strlen(secret)));
    __real_mem_free(p);
}

static void test_wipes_requests(void **state)
{
    static const char *const headers[] = { "Authorization: bearer of-nobody-else" };
    struct http_call_request request = { .headers = headers, .header_count = 1 };
    struct fixture *f = *state;

    secret = "of-nobody-else";
    post_and_wait(f, "/ok", &request);
    assert_non_null(strstr(f->server.head, secret));
    post_and_wait(f, "nowhere:", &request);
    secret = NULL;
}

static void test_environment_is_ignored(void **state)
{
    struct fixture *f = *state;

    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    post_and_wait(f, "/ok", NULL);
    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
    assert_status(f, HTTP_CALL_REPLIED);
}

/* Names end in CONNECT; where the resolver itself does not answer, in TIMEOUT, and in time. */
static void test_unknown_name(void **state)
{
    struct fixture *f = *state;

    f->conf.timeout_connect_ms = 2000;
    post_and_wait(f, "http://name.invalid:PORT/ok", NULL);
    if (f->result.status != HTTP_CALL_TIMEOUT)
        assert_status(f, HTTP_CALL_CONNECT);
    do { /* until its thread is not the quicker one */
        post(f, "http://other.invalid/", NULL);
        uv_run(&f->loop, UV_RUN_NOWAIT);
    } while (f->result.done);
    close_client(f); /* while the resolver's thread runs: must not wait */
    assert_status(f, HTTP_CALL_CANCELLED);
}

/* ---- the ends of calls ---- */

static void test_cancel(void **state)
{
    struct fixture *f = *state;
    struct http_call *call;

    call = post(f, "/ok", NULL);
    http_call_cancel(call);
    assert_true(f->result.done);
    assert_status(f, HTTP_CALL_CANCELLED);
    call = post(f, "not a url", NULL);
    http_call_cancel(call);
    assert_status(f, HTTP_CALL_CANCELLED);
    call = post(f, "/partial", NULL);
    while (f->server.requests == 0)
        uv_run(&f->loop, UV_RUN_ONCE);
    uv_run(&f->loop, UV_RUN_NOWAIT);
    assert_false(f->result.done);
    http_call_cancel(call);
    assert_status(f, HTTP_CALL_CANCELLED);
    post_and_wait(f, "/ok", NULL);
    assert_status(f, HTTP_CALL_REPLIED);
    assert_int_equal(f->ended, 4);
}

static void test_close_with_calls(void **state)
{
    static const char *const paths[] = { "/ok", "/hang", "/drip", "bad", "http://x.invalid/" };
    struct fixture *f = *state;

    for (unsigned turns = 0; turns < 12; turns++) {
        f->ended = 0;
        for (unsigned i = 0; i < 50; i++)
            post(f, paths[i % 5], NULL);
        for (unsigned i = 0; i < turns; i++)
            uv_run(&f->loop, UV_RUN_NOWAIT);
        http_client_close(f->client, on_closed, f);
        assert_int_equal(f->ended, 50);
        f->client = NULL;
        while (!f->closed)
            uv_run(&f->loop, UV_RUN_ONCE);
        f->closed = false;
    }
}

struct closing {
    struct fixture *f;
    unsigned ended;
};

static void close_when_done(void *arg, const struct http_reply *reply)
{
    struct closing *c = arg;

    uv_stop(&c->f->loop);
    if (c->ended++ == 0) {
        assert_int_equal(reply->status, HTTP_CALL_REPLIED);
        http_client_close(c->f->client, on_closed, c->f);
    }
}

static void test_close_in_done(void **state)
{
    struct fixture *f = *state;
    struct closing c = { .f = f };
    struct http_call_request request = { 0 };
    char url[64];

    snprintf(url, sizeof url, "http://127.0.0.1:%d/ok", f->server.port);
    request.url = url;
    client_start(f);
    for (int i = 0; i < 10; i++)
        http_client_post(f->client, &request, close_when_done, &c);
    while (!f->closed)
        uv_run(&f->loop, UV_RUN_ONCE);
    f->client = NULL;
    assert_int_equal(c.ended, 10);
}

static void again_when_done(void *arg, const struct http_reply *reply)
{
    struct closing *c = arg;
    struct http_call_request request = { .url = "bad" };

    assert_int_equal(reply->status, HTTP_CALL_URL);
    uv_stop(&c->f->loop);
    if (++c->ended < 100)
        http_client_post(c->f->client, &request, again_when_done, c);
}

static void test_post_in_done(void **state)
{
    struct fixture *f = *state;
    struct closing c = { .f = f };
    struct http_call_request request = { .url = "bad" };

    client_start(f);
    http_client_post(f->client, &request, again_when_done, &c);
    while (c.ended < 100)
        uv_run(&f->loop, UV_RUN_ONCE);
}

static void count_good(void *arg, const struct http_reply *reply)
{
    if (reply->status == HTTP_CALL_REPLIED && reply->http_status == 200)
        ++*(unsigned *)arg;
    else
        print_error("%s\n", reply->detail);
}

static void test_many_at_once(void **state)
{
    struct fixture *f = *state;
    struct http_call_request request = { .prefix = { (const uint8_t *)"", 1 } };
    struct rlimit limit;
    unsigned good = 0;
    char url[64];

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < 2 * CALLS_AT_ONCE + 100)
        fail_msg("this needs %d descriptors: raise the hard limit", 2 * CALLS_AT_ONCE + 100);
    client_start(f);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/ok", f->server.port);
    request.url = url;
    for (unsigned round = 1; round <= 2; round++) {
        for (int i = 0; i < CALLS_AT_ONCE; i++)
            http_client_post(f->client, &request, count_good, &good);
        while (good < round * CALLS_AT_ONCE)
            assert_int_not_equal(uv_run(&f->loop, UV_RUN_ONCE), 0);
    }
    assert_in_range(f->server.accepted, 1, CALLS_AT_ONCE);
    assert_int_equal(f->server.requests, 2 * CALLS_AT_ONCE);
}

static void test_ca_file(void **state)
{
    struct fixture *f = *state;
    char error[256] = "";

    f->conf.ca_file = "/nonexistent/ca.pem";
    assert_null(http_client_create(&f->loop, &f->conf, error));
    assert_non_null(strstr(error, "/nonexistent/ca.pem: No such file"));
    f->conf.ca_file = "/dev/null";
    assert_null(http_client_create(&f->loop, &f->conf, error));
    assert_non_null(strstr(error, "no PEM"));
}
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_replies),
        TEST(test_urls),
        TEST(test_request),
        TEST(test_keepalive),
        TEST(test_allow_address),
        TEST(test_proxy),
        TEST(test_fails_before_connection),
        TEST(test_wipes_requests),
        TEST(test_environment_is_ignored),
        TEST(test_unknown_name),
        TEST(test_cancel),
        TEST(test_close_with_calls),
        TEST(test_close_in_done),
        TEST(test_post_in_done),
        TEST(test_many_at_once),
        TEST(test_ca_file),
    };

    prepare_process();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
