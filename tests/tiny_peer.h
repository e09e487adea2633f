/*
 * A scripted peer of tinyproto for tests: a plain blocking socket, hexadecimal in and out, every wait
 * bounded. And a log in which hooks of the other side leave their traces. Header only.
 */
#ifndef TESTS_TINY_PEER_H
#define TESTS_TINY_PEER_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <time.h>

#include <tinyproto/tinyproto.h>

#include "tables.h"

#define PEER_PATIENCE_S 20 /* generous, for sanitizers on busy machines */

/* ---- The socket ---- */

static inline void peer_set_up(int fd)
{
    const struct timeval patience = { .tv_sec = PEER_PATIENCE_S };
    const int on = 1;

    table_require(fd >= 0, "socket of the peer");
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* To "127.0.0.1:port". */
static inline int peer_connect(const char *address)
{
    struct sockaddr_in in = { .sin_family = AF_INET };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    in.sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1));
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    peer_set_up(fd);
    table_require(connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0, "connect");
    return fd;
}

static inline int peer_listen(int *port)
{
    struct sockaddr_in in = { .sin_family = AF_INET };
    socklen_t len = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    peer_set_up(fd);
    table_require(bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0 && listen(fd, 16) == 0 &&
                      getsockname(fd, (struct sockaddr *)&in, &len) == 0,
                  "listen");
    *port = ntohs(in.sin_port);
    return fd;
}

static inline int peer_accept(int listener)
{
    int fd = accept(listener, NULL, NULL);

    peer_set_up(fd);
    return fd;
}

static inline void peer_write(int fd, const uint8_t *ptr, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, ptr, len, MSG_NOSIGNAL);

        table_require(n > 0, "the other side takes what is sent");
        ptr += n;
        len -= (size_t)n;
    }
}

/* How many of `len` bytes come before the end. */
static inline size_t peer_read(int fd, uint8_t *out, size_t len)
{
    size_t got = 0;

    while (got < len) {
        ssize_t n = recv(fd, out + got, len - got, 0);

        if (n <= 0)
            return got;
        got += (size_t)n;
    }
    return got;
}

static inline void peer_send(int fd, const char *hex)
{
    uint8_t bytes[512];

    peer_write(fd, bytes, table_unhex(hex, bytes, sizeof(bytes)));
}

static inline void peer_expect(int fd, const char *hex)
{
    uint8_t want[512], got[512];
    size_t len = table_unhex(hex, want, sizeof(want));

    assert_int_equal(peer_read(fd, got, len), len);
    assert_memory_equal(got, want, len);
}

/* The stream ends in order, with nothing before its end; and is closed here. */
static inline void peer_expect_end(int fd)
{
    uint8_t byte;
    ssize_t n = recv(fd, &byte, 1, 0);

    if (n < 0)
        print_message("# recv: %s\n", strerror(errno));
    assert_int_equal(n, 0);
    close(fd);
}

/* ---- The log of hooks ---- */

struct hook_log {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    char text[2048]; /* entries with a space behind each */
    size_t len;
};

#define HOOK_LOG_INIT                                                           \
    {                                                                           \
        .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
    }

__attribute__((format(printf, 2, 3))) static inline void hook_log(struct hook_log *log,
                                                                  const char *format, ...)
{
    va_list args;
    int n;

    (void)pthread_mutex_lock(&log->mutex);
    va_start(args, format);
    n = vsnprintf(log->text + log->len, sizeof(log->text) - log->len, format, args);
    va_end(args);
    table_require(n > 0 && log->len + (size_t)n + 1 < sizeof(log->text), "room in the log");
    log->len += (size_t)n;
    log->text[log->len++] = ' ';
    log->text[log->len] = '\0';
    (void)pthread_cond_broadcast(&log->changed);
    (void)pthread_mutex_unlock(&log->mutex);
}

/* Waits until the log holds `part`. */
static inline void hook_log_wait(struct hook_log *log, const char *part)
{
    struct timespec until;
    bool found;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PEER_PATIENCE_S;
    (void)pthread_mutex_lock(&log->mutex);
    while (strstr(log->text, part) == NULL &&
           pthread_cond_timedwait(&log->changed, &log->mutex, &until) == 0)
        ;
    found = strstr(log->text, part) != NULL;
    if (!found)
        print_message("# waited in vain for \"%s\" in \"%s\"\n", part, log->text);
    (void)pthread_mutex_unlock(&log->mutex);
    assert_true(found);
}

/* ---- A server of ours in a thread ---- */

struct served {
    struct tinyproto_server *server;
    pthread_t thread;
    char address[TINYPROTO_ADDRESS_TEXT_MAX];
};

static inline void *served_main(void *arg)
{
    struct served *s = arg;

    (void)tinyproto_server_run(s->server);
    return NULL;
}

/* Listens on a port of its own before it returns. */
static inline void served_start(struct served *s, const struct tinyproto_server_hooks *hooks,
                                const struct tinyproto_handler *handler,
                                const struct tinyproto_options *options)
{
    table_require(tinyproto_server_new(hooks, options, NULL, &s->server) == TINYPROTO_OK &&
                      tinyproto_server_add_addr(s->server, "127.0.0.1", 0) == TINYPROTO_OK,
                  "server");
    tinyproto_server_set_handler(s->server, handler);
    table_require(tinyproto_server_start(s->server).err == TINYPROTO_OK, "start");
    strcpy(s->address, tinyproto_server_addr(s->server, 0));
}

static inline void served_run(struct served *s)
{
    table_require(pthread_create(&s->thread, NULL, served_main, s) == 0, "thread");
}

static inline void served_stop(struct served *s)
{
    tinyproto_server_stop(s->server);
    (void)pthread_join(s->thread, NULL);
    tinyproto_server_free(s->server);
}

#endif
