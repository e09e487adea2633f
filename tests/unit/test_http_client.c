/*
 * The HTTP client against a scripted server on the same loop: the path of a request names what the
 * server does. Every test ends with the descriptors with which it began.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "http_client_private.h"
#include "mem.h"

enum { HEAD_MAX = 8192, CALLS_AT_ONCE = 1000, REPLY_MAX = 1000 };

struct server {
    uv_tcp_t listener;
    uv_loop_t *loop;
    int port;
    unsigned accepted, requests, broken_requests;
    uint64_t stall_ms;   /* at a /stall, the whole process behind its answer */
    char head[HEAD_MAX]; /* of the last request */
    uint64_t body_len;
    bool body_good; /* every byte is byte_at(its offset) */
};

struct peer {
    uv_tcp_t tcp;
    uv_timer_t timer;
    struct server *server;
    char head[HEAD_MAX];
    size_t head_len;
    uint64_t body_left, body_at;
    unsigned requests;
    bool in_body, closing;
    unsigned handles;
};

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)(at * 31 + (at >> 8));
}

/* ---- the server ---- */

static void on_peer_closed(uv_handle_t *handle)
{
    struct peer *p = handle->data;

    if (--p->handles == 0)
        free(p);
}

static void peer_close(struct peer *p, bool reset)
{
    if (p->closing)
        return;
    p->closing = true;
    if (!reset || uv_tcp_close_reset(&p->tcp, on_peer_closed) != 0)
        uv_close((uv_handle_t *)&p->tcp, on_peer_closed);
    uv_close((uv_handle_t *)&p->timer, on_peer_closed);
}

static void on_written(uv_write_t *req, int status)
{
    struct peer *p = req->handle->data;

    (void)status;
    if (strstr(p->head, "/headers") != NULL || strstr(p->head, "/continue") != NULL) {
        static char endless[][64] = { "X-Header: 0123456789012345678901234567890123456789\r\n",
                                      "HTTP/1.1 100 Continue\r\n\r\n" };
        char *text = endless[strstr(p->head, "/continue") != NULL];
        uv_buf_t buf = uv_buf_init(text, (unsigned)strlen(text));

        if (status == 0 && !p->closing &&
            uv_write(req, (uv_stream_t *)&p->tcp, &buf, 1, on_written) == 0)
            return;
    }
    free(req);
}

static void peer_send(struct peer *p, const char *text)
{
    uv_write_t *req = calloc(1, sizeof *req + strlen(text));
    char *copy = (char *)(req + 1);
    uv_buf_t buf = uv_buf_init(copy, (unsigned)strlen(text));

    memcpy(copy, text, strlen(text));
    assert_int_equal(uv_write(req, (uv_stream_t *)&p->tcp, &buf, 1, on_written), 0);
}

static void on_drip(uv_timer_t *timer)
{
    peer_send(timer->data, "x");
}

#define OK_HEAD "HTTP/1.1 200 OK\r\n"

static const struct answer {
    const char *path, *text;
    enum { KEEP, CLOSE, RESET, DRIP } then;
} answers[] = {
    { "/ok", OK_HEAD "Content-Length: 5\r\n\r\nhello", KEEP },
    { "/none", "HTTP/1.1 204 No Content\r\n\r\n", KEEP },
    { "/chunked", OK_HEAD "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
      KEEP },
    { "/eof", OK_HEAD "\r\nhello", CLOSE },
    { "/redirect", "HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n", KEEP },
    { "/broken", "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy", KEEP },
    { "/large", OK_HEAD "Content-Length: 1001\r\n\r\n", KEEP },
    { "/huge", OK_HEAD "Content-Length: 99999999999999999999\r\n\r\n", KEEP },
    { "/endless", OK_HEAD "\r\n", DRIP },
    { "/early", OK_HEAD "Content-Length: 500\r\n\r\nhello", CLOSE },
    { "/half", "HTTP/1.1 200 OK\r\nConte", CLOSE },
    { "/cut", OK_HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhel", CLOSE },
    { "/badchunk", OK_HEAD "Transfer-Encoding: chunked\r\n\r\nzz\r\nhello", CLOSE },
    { "/garbage", "garbage, not HTTP\r\n\r\n", CLOSE },
    { "/drip", OK_HEAD "Content-Length: 500\r\n\r\n", DRIP },
    { "/headers", OK_HEAD, KEEP },
    { "/continue", "HTTP/1.1 100 Continue\r\n\r\n", KEEP },
    { "/hang", "", KEEP },
    { "/partial", OK_HEAD "Content-Length: 500\r\n\r\nhello", KEEP },
    { "/close", "", CLOSE },
    { "/reset", "", RESET },
    { "/stall", OK_HEAD "Content-Length: 5\r\n\r\nhello", KEEP },
    { "/once", OK_HEAD "Content-Length: 5\r\n\r\nhello", KEEP },
};

/* As if the process had been stopped. */
static void stall(uint64_t ms)
{
    uint64_t end_ns = uv_hrtime() + ms * 1000000;

    while (uv_hrtime() < end_ns)
        ;
}

static void peer_answer(struct peer *p)
{
    const struct answer *a = answers;
    const char *path = strchr(p->head, ' ') + 1;

    if (strncmp(path, "http://", 7) == 0) /* to a proxy */
        path = strchr(path + 7, '/');
    while (strncmp(path, a->path, strlen(a->path)) != 0 ||
           isalpha((unsigned char)path[strlen(a->path)])) {
        a++;
        assert_true(a < answers + sizeof answers / sizeof answers[0]);
    }
    if (a->text[0] != '\0')
        peer_send(p, a->text);
    if (strcmp(a->path, "/stall") == 0)
        stall(p->server->stall_ms);
    if (a->then == DRIP)
        uv_timer_start(&p->timer, on_drip, 1, 1);
    else if (a->then != KEEP)
        peer_close(p, a->then == RESET);
}

static void peer_request_done(struct peer *p)
{
    p->server->requests++;
    p->server->body_len = p->body_at;
    p->in_body = false;
    peer_answer(p);
    p->head_len = 0;
}

static void peer_body(struct peer *p, const uint8_t *ptr, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (ptr[i] != byte_at(p->body_at + i))
            p->server->body_good = false;
    p->body_at += len;
    p->body_left -= len;
    if (p->body_left == 0)
        peer_request_done(p);
}

static void peer_head(struct peer *p, const uint8_t *ptr, size_t len)
{
    const char *length;
    char *end;
    size_t used;

    assert_true(p->head_len + len < sizeof p->head);
    memcpy(p->head + p->head_len, ptr, len);
    p->head_len += len;
    p->head[p->head_len] = '\0';
    end = strstr(p->head, "\r\n\r\n");
    if (end == NULL)
        return;
    used = (size_t)(end + 4 - p->head);
    end[2] = '\0';
    snprintf(p->server->head, sizeof p->server->head, "%s", p->head);
    p->requests++;
    if (strstr(p->head, " /once") != NULL && p->requests > 1) {
        peer_close(p, true);
        return;
    }
    length = strstr(p->head, "\r\nContent-Length: ");
    assert_non_null(length);
    p->body_left = strtoull(length + 18, NULL, 10);
    p->body_at = 0;
    p->in_body = true;
    p->server->body_good = true;
    peer_body(p, (uint8_t *)p->head + used, p->head_len - used);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
    static char shared[HEAD_MAX / 2]; /* emptied before the next read */

    (void)handle;
    (void)size;
    *buf = uv_buf_init(shared, sizeof shared);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct peer *p = stream->data;

    if (n < 0) {
        p->server->broken_requests += p->in_body;
        peer_close(p, false);
    } else if (n > 0 && p->in_body) {
        peer_body(p, (uint8_t *)buf->base, (size_t)n);
    } else if (n > 0) {
        peer_head(p, (uint8_t *)buf->base, (size_t)n);
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct server *server = listener->data;
    struct peer *p = calloc(1, sizeof *p);

    assert_int_equal(status, 0);
    p->server = server;
    p->handles = 2;
    uv_tcp_init(server->loop, &p->tcp);
    uv_timer_init(server->loop, &p->timer);
    p->tcp.data = p->timer.data = p;
    assert_int_equal(uv_accept(listener, (uv_stream_t *)&p->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&p->tcp, on_alloc, on_read), 0);
    server->accepted++;
}

static void server_start(struct server *server, uv_loop_t *loop)
{
    struct sockaddr_in address;
    int len = sizeof address;

    server->loop = loop;
    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_init(loop, &server->listener);
    server->listener.data = server;
    assert_int_equal(uv_tcp_bind(&server->listener, (struct sockaddr *)&address, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&server->listener, 1024, on_connection), 0);
    uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address, &len);
    server->port = ntohs(address.sin_port);
}

/* ---- fixture ---- */

struct result {
    bool done;
    enum http_call_status status;
    int http_status;
    char body[64];
    size_t body_len;
    char detail[300];
};

struct fixture {
    uv_loop_t loop;
    uv_timer_t watchdog;
    struct server server;
    struct http_client_conf conf;
    struct http_client *client;
    struct result result;
    unsigned ended;
    size_t descriptors;
    bool closed;
};

static size_t count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static void on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    fprintf(stderr, "test hangs\n");
    abort();
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->descriptors = count_descriptors();
    uv_loop_init(&f->loop);
    uv_timer_init(&f->loop, &f->watchdog);
    uv_timer_start(&f->watchdog, on_watchdog, 30000, 0);
    server_start(&f->server, &f->loop);
    f->conf = (struct http_client_conf){ .max_reply_bytes = REPLY_MAX, .max_connections = 2000 };
    *state = f;
    return 0;
}

static void on_closed(void *arg)
{
    struct fixture *f = arg;

    f->closed = true;
    uv_stop(&f->loop);
}

static void close_client(struct fixture *f)
{
    if (f->client == NULL)
        return;
    http_client_close(f->client, on_closed, f);
    f->client = NULL;
    while (!f->closed)
        uv_run(&f->loop, UV_RUN_ONCE);
    f->closed = false;
}

static void close_any(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    close_client(f);
    uv_close((uv_handle_t *)&f->server.listener, NULL);
    uv_unref((uv_handle_t *)&f->watchdog);
    uv_run(&f->loop, UV_RUN_DEFAULT); /* the server's connections see the end of the client's */
    uv_walk(&f->loop, close_any, NULL);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    /* Resolver threads of cancelled calls close theirs when they end. */
    for (int i = 0; i < 20000 && count_descriptors() != f->descriptors; i++)
        usleep(1000);
    assert_int_equal(count_descriptors(), f->descriptors);
    free(f);
    return 0;
}

static void client_start(struct fixture *f)
{
    char error[256];

    f->client = http_client_create(&f->loop, &f->conf, error);
    assert_non_null(f->client);
}

static void on_done(void *arg, const struct http_reply *reply)
{
    struct fixture *f = arg;
    struct result *r = &f->result;

    f->ended++;
    r->done = true;
    uv_stop(&f->loop); /* UV_RUN_ONCE polls after it has run a timer */
    r->status = reply->status;
    r->http_status = reply->http_status;
    r->body_len = reply->body.len;
    r->detail[0] = '\0';
    if (reply->status != HTTP_CALL_REPLIED) {
        assert_non_null(reply->detail);
        assert_true(reply->detail[0] != '\0');
        assert_null(strchr(reply->detail, '\n'));
        snprintf(r->detail, sizeof r->detail, "%s", reply->detail);
    }
    if (reply->body.len < sizeof r->body && reply->body.len > 0)
        memcpy(r->body, reply->body.ptr, reply->body.len);
}

/* `path` is a path at the server, or a URL in which PORT is the server's. */
static struct http_call *post(struct fixture *f, const char *path,
                              struct http_call_request *request)
{
    static const uint8_t bytes[] = { 0, 31, 62, 93 }; /* byte_at */
    struct http_call_request plain = { .prefix = { bytes, sizeof bytes } };
    const char *port = strstr(path, "PORT");
    struct http_call *call;
    char url[1024];

    if (f->client == NULL)
        client_start(f);
    if (path[0] == '/')
        snprintf(url, sizeof url, "http://127.0.0.1:%d%s", f->server.port, path);
    else if (port != NULL)
        snprintf(url, sizeof url, "%.*s%d%s", (int)(port - path), path, f->server.port, port + 4);
    else
        snprintf(url, sizeof url, "%s", path);
    if (request == NULL)
        request = &plain;
    request->url = url;
    f->result.done = false;
    call = http_client_post(f->client, request, on_done, f);
    memset(url, '!', sizeof url); /* was copied */
    assert_false(f->result.done);
    return call;
}

static void wait_done(struct fixture *f)
{
    while (!f->result.done)
        assert_int_not_equal(uv_run(&f->loop, UV_RUN_ONCE), 0);
}

static void post_and_wait(struct fixture *f, const char *path, struct http_call_request *request)
{
    post(f, path, request);
    wait_done(f);
}

static void assert_status(struct fixture *f, enum http_call_status status)
{
    if (f->result.status != status)
        print_error("detail: %s\n", f->result.detail);
    assert_int_equal(f->result.status, status);
}

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
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        post_and_wait(f, cases[i].path, NULL);
        if (f->result.status != cases[i].status)
            print_error("%s: status %d, %s\n", cases[i].path, f->result.status, f->result.detail);
        assert_int_equal(f->result.status, cases[i].status);
        if (cases[i].status != HTTP_CALL_REPLIED)
            continue;
        assert_int_equal(f->result.http_status, cases[i].http_status);
        assert_int_equal(f->result.body_len, strlen(cases[i].body));
        assert_memory_equal(f->result.body, cases[i].body, f->result.body_len);
        assert_int_equal(f->server.body_len, 4);
        assert_true(f->server.body_good);
    }
    assert_int_equal(f->ended, sizeof cases / sizeof cases[0]);
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

/* ---- timeouts ---- */

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
    struct fixture *f = *state;

    f->conf.timeout_sock_read_ms = 100;
    f->conf.timeout_sock_connect_ms = 100;
    f->server.stall_ms = 300;
    for (int i = 0; i < 2; i++) {
        post_and_wait(f, "/stall", NULL);
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

/* ---- bodies from a source ---- */

struct pipe_source {
    struct http_source source;
    struct fixture *f;
    uv_timer_t timer;
    struct http_call *call;
    uint64_t fail_at;
    unsigned reads, waits;
    uint64_t wait_ms;
    bool always_ready, waiting;
};

static void on_source_ready(uv_timer_t *timer)
{
    struct pipe_source *s = timer->data;

    s->waiting = false;
    http_call_resume(s->call);
}

/* Every other read waits. */
static ptrdiff_t source_read(void *arg, uint64_t at, uint8_t *to, size_t len)
{
    struct pipe_source *s = arg;

    assert_false(s->waiting);
    assert_true(len >= 1 && at + len <= s->source.size);
    if (at >= s->fail_at)
        return HTTP_SOURCE_FAIL;
    if (!s->always_ready && s->reads++ % 2 == 0) {
        s->waiting = true;
        s->waits++;
        uv_timer_start(&s->timer, on_source_ready, s->wait_ms, 0);
        return HTTP_SOURCE_WAIT;
    }
    if (len > 100000)
        len = 100000;
    for (size_t i = 0; i < len; i++)
        to[i] = byte_at(at + i + 4);
    return (ptrdiff_t)len;
}

static void source_init(struct pipe_source *s, struct fixture *f, uint64_t size)
{
    *s = (struct pipe_source){ .f = f, .fail_at = UINT64_MAX };
    s->source = (struct http_source){ .size = size, .read = source_read, .arg = s };
    uv_timer_init(&f->loop, &s->timer);
    s->timer.data = s;
}

static void source_post(struct pipe_source *s, const char *path)
{
    static const uint8_t prefix[] = { 0, 31, 62, 93 };
    struct http_call_request request = { .prefix = { prefix, sizeof prefix },
                                         .source = &s->source };

    s->call = post(s->f, path, &request);
    wait_done(s->f);
    uv_timer_stop(&s->timer);
    s->waiting = false;
}

static void source_fini(struct pipe_source *s)
{
    uv_close((uv_handle_t *)&s->timer, NULL);
    uv_run(&s->f->loop, UV_RUN_NOWAIT);
}

static void test_source(void **state)
{
    static const uint64_t sizes[] = { 0,     1,     1000,   16379,  16380,  16381,   65531,
                                      65532, 65533, 262139, 262140, 262141, 5000000, 20000000 };
    struct fixture *f = *state;
    struct pipe_source s;

    for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t size = sizes[i / 2];

        source_init(&s, f, size);
        s.always_ready = i % 2 != 0;
        source_post(&s, "/ok");
        assert_status(f, HTTP_CALL_REPLIED);
        assert_int_equal(f->server.body_len, size + 4);
        assert_true(f->server.body_good);
        assert_true(s.always_ready || size == 0 || s.waits > 0);
        source_fini(&s);
    }
    assert_int_equal(f->server.accepted, 1);
}

static void test_source_waits_longer_than_silence(void **state)
{
    struct fixture *f = *state;
    struct pipe_source s;

    f->conf.timeout_sock_read_ms = 50;
    source_init(&s, f, 200000);
    s.wait_ms = 120;
    source_post(&s, "/ok");
    assert_status(f, HTTP_CALL_REPLIED);
    assert_int_equal(f->server.body_len, 200004);
    source_fini(&s);
}

static void test_source_total_timeout(void **state)
{
    struct fixture *f = *state;
    struct pipe_source s;

    f->conf.timeout_total_ms = 100;
    source_init(&s, f, 200000);
    s.wait_ms = 10000;
    source_post(&s, "/ok");
    assert_status(f, HTTP_CALL_TIMEOUT);
    source_fini(&s);
}

static void test_source_fails(void **state)
{
    static const uint64_t at[] = { 0, 1, 300000 };
    struct fixture *f = *state;
    struct pipe_source s;

    for (size_t i = 0; i < 6; i++) {
        source_init(&s, f, i / 2 == 0 ? 100 : 1000000);
        s.fail_at = at[i / 2];
        s.always_ready = i % 2 != 0;
        source_post(&s, "/ok");
        assert_status(f, HTTP_CALL_BROKEN);
        assert_non_null(strstr(f->result.detail, "could not be read"));
        source_fini(&s);
    }
    assert_int_equal(f->server.requests, 0);
}

/*
 * The server takes one request a connection, and resets it when a second one comes: libcurl sends
 * that one again only if it cannot have been acted on, else the call is broken; the next one works.
 */
static void test_kept_connection_breaks(void **state)
{
    static const uint64_t sizes[] = { 10, 3000000 };
    struct fixture *f = *state;
    struct pipe_source s;

    for (unsigned i = 0; i < 8; i++) {
        source_init(&s, f, sizes[i / 4]);
        s.always_ready = true;
        source_post(&s, "/once");
        source_fini(&s);
        if (f->result.status == HTTP_CALL_REPLIED) {
            assert_true(f->server.body_good);
            assert_int_equal(f->server.body_len, sizes[i / 4] + 4);
        } else {
            assert_status(f, HTTP_CALL_BROKEN);
            assert_true(i % 2 != 0);
        }
    }
    assert_in_range(f->server.requests, 4, 8);
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
    struct fixture *f = *state;
    struct http_call *call;

    post_and_wait(f, "/ok", NULL);
    call = post(f, "/ok", NULL);
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
    post(f, "http://other.invalid/", NULL);
    uv_run(&f->loop, UV_RUN_NOWAIT); /* the resolver's thread runs: cancelling must not wait */
    close_client(f);
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
        skip();
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    uv_loop_t first; /* takes the descriptors that libuv keeps for the whole process */
    const struct CMUnitTest tests[] = {
        TEST(test_replies),
        TEST(test_urls),
        TEST(test_request),
        TEST(test_keepalive),
        TEST(test_timeouts),
        TEST(test_stall),
        TEST(test_connect_timeouts),
        TEST(test_source),
        TEST(test_source_waits_longer_than_silence),
        TEST(test_source_total_timeout),
        TEST(test_source_fails),
        TEST(test_kept_connection_breaks),
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

    signal(SIGPIPE, SIG_IGN); /* as every program does that uses libuv */
    uv_loop_init(&first);
    uv_loop_close(&first);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
