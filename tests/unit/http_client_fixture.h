/*
 * The HTTP client against a scripted server on the same loop: the path of a request names what the
 * server does. Every test ends with the descriptors with which it began.
 *
 * Header only; behind <cmocka.h>.
 */
#ifndef TESTS_HTTP_CLIENT_FIXTURE_H
#define TESTS_HTTP_CLIENT_FIXTURE_H

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static inline uint8_t byte_at(uint64_t at)
{
    return (uint8_t)(at * 31 + (at >> 8));
}

/* ---- the server ---- */

static inline void on_peer_closed(uv_handle_t *handle)
{
    struct peer *p = handle->data;

    if (--p->handles == 0)
        free(p);
}

static inline void peer_close(struct peer *p, bool reset)
{
    if (p->closing)
        return;
    p->closing = true;
    if (!reset || uv_tcp_close_reset(&p->tcp, on_peer_closed) != 0)
        uv_close((uv_handle_t *)&p->tcp, on_peer_closed);
    uv_close((uv_handle_t *)&p->timer, on_peer_closed);
}

static inline void on_written(uv_write_t *req, int status)
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

static inline void peer_send(struct peer *p, const char *text)
{
    uv_write_t *req = calloc(1, sizeof *req + strlen(text));
    char *copy = (char *)(req + 1);
    uv_buf_t buf = uv_buf_init(copy, (unsigned)strlen(text));

    memcpy(copy, text, strlen(text));
    assert_int_equal(uv_write(req, (uv_stream_t *)&p->tcp, &buf, 1, on_written), 0);
}

static inline void on_drip(uv_timer_t *timer)
{
    peer_send(timer->data, "x");
}

static inline void on_leave(uv_timer_t *timer)
{
    peer_close(timer->data, true);
}

#define OK_HEAD "HTTP/1.1 200 OK\r\n"

static const struct answer {
    const char *path, *text;
    enum { KEEP, CLOSE, RESET, DRIP, LATE } then; /* LATE: it says more later */
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
    { "/parting", OK_HEAD "Content-Length: 5\r\n\r\nhello", RESET },
    { "/begun", OK_HEAD "Content-Length: 500\r\n\r\nhello", RESET },
    { "/stall", OK_HEAD "Content-Length: 5\r\n\r\nhello", KEEP },
    { "/quick", "", KEEP }, /* these three have answered at the head */
    { "/refuse", "", KEEP },
    { "/leave", "", KEEP },
    { "/once", OK_HEAD "Content-Length: 5\r\n\r\nhello", KEEP },
    { "/more", OK_HEAD "Content-Length: 5\r\n\r\nhelloHTTP/1.1 404 No\r\n\r\n", KEEP },
    { "/last", OK_HEAD "Connection: close\r\nContent-Length: 5\r\n\r\nhello", KEEP },
    { "/older", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", KEEP },
    { "/hints",
      "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" OK_HEAD "Content-Length: 5\r\n\r\nhello",
      KEEP },
    { "/switch", "HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", KEEP },
    { "/both", OK_HEAD "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", KEEP },
    { "/two", OK_HEAD "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", KEEP },
    { "/late", OK_HEAD "Content-Length: 5\r\n\r\nhello", LATE },
    { "/", OK_HEAD "Content-Length: 5\r\n\r\nhello", KEEP },
};

/* As if the process had been stopped. */
static inline void stall(uint64_t ms)
{
    uint64_t end_ns = uv_hrtime() + ms * 1000000;

    while (uv_hrtime() < end_ns)
        ;
}

static inline void peer_answer(struct peer *p)
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
    if (a->then == LATE)
        uv_timer_start(&p->timer, on_drip, 20, 0);
    else if (a->then == DRIP)
        uv_timer_start(&p->timer, on_drip, 1, 1);
    else if (a->then != KEEP)
        peer_close(p, a->then == RESET);
}

static inline void peer_request_done(struct peer *p)
{
    p->server->requests++;
    p->server->body_len = p->body_at;
    p->in_body = false;
    peer_answer(p);
    p->head_len = 0;
}

static inline void peer_body(struct peer *p, const uint8_t *ptr, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (ptr[i] != byte_at(p->body_at + i))
            p->server->body_good = false;
    p->body_at += len;
    p->body_left -= len;
    if (p->body_left == 0)
        peer_request_done(p);
}

/* At the head. /refuse and /leave read no more; /leave goes as soon as its answer has arrived. */
static inline void peer_answer_early(struct peer *p)
{
    if (strstr(p->head, " /refuse") != NULL) {
        peer_send(p, "HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy");
        uv_read_stop((uv_stream_t *)&p->tcp);
        uv_timer_start(&p->timer, on_leave, 200, 0); /* long after */
    } else if (strstr(p->head, " /quick") != NULL) {
        peer_send(p, OK_HEAD "Content-Length: 5\r\n\r\nhello");
    } else if (strstr(p->head, " /leave") != NULL) {
        peer_send(p, OK_HEAD "Content-Length: 5\r\n\r\nhello");
        uv_read_stop((uv_stream_t *)&p->tcp);
        uv_timer_start(&p->timer, on_leave, 20, 0);
    }
}

static inline void peer_head(struct peer *p, const uint8_t *ptr, size_t len)
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
    peer_answer_early(p);
    if (!p->closing)
        peer_body(p, (uint8_t *)p->head + used, p->head_len - used);
}

static inline void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
    static char shared[HEAD_MAX / 2]; /* emptied before the next read */

    (void)handle;
    (void)size;
    *buf = uv_buf_init(shared, sizeof shared);
}

static inline void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
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

static inline void on_connection(uv_stream_t *listener, int status)
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

static inline void server_start(struct server *server, uv_loop_t *loop)
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

static inline size_t count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t n = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static inline void on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    fprintf(stderr, "test hangs\n");
    abort();
}

static inline int setup(void **state)
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

static inline void on_closed(void *arg)
{
    struct fixture *f = arg;

    f->closed = true;
    uv_stop(&f->loop);
}

static inline void close_client(struct fixture *f)
{
    if (f->client == NULL)
        return;
    http_client_close(f->client, on_closed, f);
    f->client = NULL;
    while (!f->closed)
        uv_run(&f->loop, UV_RUN_ONCE);
    f->closed = false;
}

static inline void close_any(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static inline int teardown(void **state)
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

static inline void client_start(struct fixture *f)
{
    char error[256];

    f->client = http_client_create(&f->loop, &f->conf, error);
    assert_non_null(f->client);
}

static inline void on_done(void *arg, const struct http_reply *reply)
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
static inline struct http_call *post(struct fixture *f, const char *path,
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

static inline void wait_done(struct fixture *f)
{
    while (!f->result.done)
        assert_int_not_equal(uv_run(&f->loop, UV_RUN_ONCE), 0);
}

static inline void post_and_wait(struct fixture *f, const char *path,
                                 struct http_call_request *request)
{
    post(f, path, request);
    wait_done(f);
}

static inline void assert_status(struct fixture *f, enum http_call_status status)
{
    if (f->result.status != status)
        print_error("detail: %s\n", f->result.detail);
    assert_int_equal(f->result.status, status);
}

/* ---- main ---- */

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* To be called before the tests. */
static inline void prepare_process(void)
{
    uv_loop_t first; /* takes the descriptors that libuv keeps for the whole process */

    signal(SIGPIPE, SIG_IGN); /* as every program does that uses libuv */
    uv_loop_init(&first);
    uv_loop_close(&first);
}

#endif
