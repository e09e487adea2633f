/*
 * A webhook receiver that costs little: confirms each RECEIVE and throws the message away. One
 * thread, epoll, keep-alive, 127.0.0.1, any free port.
 *
 *     http_sink            # prints "ready 127.0.0.1:PORT"; at SIGTERM or SIGINT
 *                          # {"receives": N, "bytes": BODIES, "bad": REQUESTS THAT WERE NO RECEIVE}
 *
 * Started by bench_http.py, with http_load.c at the other end of the broadcaster.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <lonely/stateless.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench_http.h"

#define REQUEST_MAX   16384 /* head of the request, and of RECEIVE */
#define DISCARD_BYTES ((size_t)256 * 1024)
#define EVENTS_MAX    256
#define FD_MAX        65536

struct connection {
    int fd;
    size_t have;       /* bytes in `buf` */
    size_t left;       /* of the body, to be thrown away */
    size_t answer_len; /* what is sent once `left` is 0; 0: no request under way */
    char answer[512];  /* an identifier has at most 255 bytes */
    char buf[REQUEST_MAX];
};

struct sink {
    int poll, listener, signals;
    unsigned long long receives, bytes, bad;
    struct connection *connections[FD_MAX]; /* by descriptor */
    char discard[DISCARD_BYTES];
};

static void connection_close(struct sink *s, struct connection *c)
{
    s->connections[c->fd] = NULL;
    close(c->fd); /* and leaves the poll */
    free(c);
}

static void prepare_answer(struct sink *s, struct connection *c, struct lonely_span body)
{
    struct lonely_stateless receive, confirmation = { .count = 1 };
    uint8_t bytes[LONELY_STATELESS_IDENTIFIER_MAX_BYTES + 16];
    struct lonely_result written = { LONELY_OK, 0 };
    const char *status = "200 OK";

    if (lonely_stateless_parse(LONELY_STATELESS_RECEIVE, body, &receive).err == LONELY_OK) {
        confirmation.identifier = receive.identifier;
        written = lonely_stateless_write(LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE, &confirmation,
                                         bytes, sizeof(bytes));
        s->receives++;
    } else {
        status = "400 Bad Request";
        s->bad++;
    }
    c->answer_len = (size_t)snprintf(c->answer, sizeof(c->answer),
                                     "HTTP/1.1 %s\r\nContent-Type: application/octet-stream\r\n"
                                     "Content-Length: %zu\r\n\r\n",
                                     status, written.at);
    memcpy(c->answer + c->answer_len, bytes, written.at);
    c->answer_len += written.at;
}

static bool reply(struct connection *c, const char *bytes, size_t len)
{
    return send(c->fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len; /* always fits a socket buffer */
}

/* The head of RECEIVE is at hand, or will be with more of the body. */
static bool body_begins(const struct connection *c, size_t head_len, size_t content_length)
{
    struct lonely_span body = { (const uint8_t *)c->buf + head_len, c->have - head_len };
    struct lonely_stateless receive;

    return body.len >= content_length ||
           lonely_stateless_parse(LONELY_STATELESS_RECEIVE, body, &receive).err !=
               LONELY_E_TRUNCATED;
}

/* Takes a request off the buffer once its beginning is there. False: the connection is of no use. */
static bool take_request(struct sink *s, struct connection *c)
{
    size_t head_len = bench_head_len(c->buf, c->have), content_length, body_len;

    if (head_len == 0)
        return c->have < sizeof(c->buf);
    if (!bench_content_length(c->buf, head_len, &content_length))
        return false;
    if (!body_begins(c, head_len, content_length)) {
        if (c->have == head_len && bench_header(c->buf, head_len, "expect:") != NULL)
            return reply(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
        return c->have < sizeof(c->buf);
    }
    body_len = c->have - head_len;
    if (body_len > content_length)
        return false; /* nobody here pipelines */
    prepare_answer(s, c, (struct lonely_span){ (const uint8_t *)c->buf + head_len, body_len });
    s->bytes += content_length;
    c->left = content_length - body_len;
    c->have = 0;
    return true;
}

static bool on_readable(struct sink *s, struct connection *c)
{
    bool discarding = c->answer_len > 0;
    ssize_t n = discarding
                    ? recv(c->fd, s->discard, c->left < DISCARD_BYTES ? c->left : DISCARD_BYTES, 0)
                    : recv(c->fd, c->buf + c->have, sizeof(c->buf) - c->have, 0);
    size_t len;

    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    if (discarding) {
        c->left -= (size_t)n;
    } else {
        c->have += (size_t)n;
        if (!take_request(s, c))
            return false;
    }
    if (c->answer_len == 0 || c->left > 0)
        return true;
    len = c->answer_len;
    c->answer_len = 0;
    return reply(c, c->answer, len);
}

static void on_connection(struct sink *s)
{
    int fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    struct connection *c;

    if (fd < 0)
        return;
    if (fd >= FD_MAX) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    c = malloc(sizeof(*c));
    bench_require(c != NULL, "http_sink: memory");
    c->fd = fd;
    s->connections[fd] = c;
    c->have = c->left = c->answer_len = 0;
    bench_require(epoll_ctl(s->poll, EPOLL_CTL_ADD, fd,
                            &(struct epoll_event){ .events = EPOLLIN, .data.ptr = c }) == 0,
                  "http_sink: epoll_ctl");
}

static int open_listener(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    bench_require(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0 &&
                      listen(fd, 1024) == 0 &&
                      getsockname(fd, (struct sockaddr *)&address, &len) == 0,
                  "http_sink: listen");
    printf("ready 127.0.0.1:%u\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static int open_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static void sink_open(struct sink *s)
{
    struct epoll_event of_signals = { .events = EPOLLIN, .data.ptr = &s->signals };
    struct epoll_event of_listener = { .events = EPOLLIN, .data.ptr = &s->listener };

    s->signals = open_signals();
    s->poll = epoll_create1(EPOLL_CLOEXEC);
    s->listener = open_listener();
    bench_require(s->signals >= 0 && s->poll >= 0 &&
                      epoll_ctl(s->poll, EPOLL_CTL_ADD, s->signals, &of_signals) == 0 &&
                      epoll_ctl(s->poll, EPOLL_CTL_ADD, s->listener, &of_listener) == 0,
                  "http_sink: epoll");
}

int main(void)
{
    static struct sink sink;
    struct epoll_event events[EVENTS_MAX];
    bool running = true;

    sink_open(&sink);
    while (running) {
        int n = epoll_wait(sink.poll, events, EVENTS_MAX, -1);

        for (int i = 0; i < n; i++) {
            void *what = events[i].data.ptr;

            if (what == &sink.signals)
                running = false;
            else if (what == &sink.listener)
                on_connection(&sink);
            else if (!on_readable(&sink, what))
                connection_close(&sink, what);
        }
    }
    for (size_t fd = 0; fd < FD_MAX; fd++)
        if (sink.connections[fd] != NULL)
            connection_close(&sink, sink.connections[fd]);
    printf("{\"receives\": %llu, \"bytes\": %llu, \"bad\": %llu}\n", sink.receives, sink.bytes,
           sink.bad);
    return 0;
}
