/*
 * A broadcaster over raw TCP that says what a test says, to a client with "io" = "caller" in the same thread: whoever
 * waits for a frame does the client's work meanwhile. Header only; one at a time.
 */
#ifndef TESTS_SCRIPTED_BROADCASTER_H
#define TESTS_SCRIPTED_BROADCASTER_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <lonely/client.h>
#include <lonely/message.h>

#include "tables.h"

enum { SB_PATIENCE_MS = 20000, SB_FRAME_MAX = 1 << 22 };

static struct {
    int listener, fd; /* fd -1: nobody is connected */
    char url[64];
    struct lonely_client *client;
    uint8_t frame[SB_FRAME_MAX];
} sb;

static inline void sb_listen(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t len = sizeof(address);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sb.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sb.fd = -1;
    table_require(bind(sb.listener, (struct sockaddr *)&address, len) == 0 &&
                      listen(sb.listener, 8) == 0 &&
                      getsockname(sb.listener, (struct sockaddr *)&address, &len) == 0,
                  "a listener");
    snprintf(sb.url, sizeof(sb.url), "tcp://127.0.0.1:%d", ntohs(address.sin_port));
}

/* The client works until `fd` is readable. False: not in time. */
static inline bool sb_work(int fd, int patience_ms)
{
    for (int waited = 0; waited <= patience_ms; waited += 10) {
        struct pollfd fds[] = { { .fd = fd, .events = POLLIN },
                                { .fd = lonely_client_fd(sb.client), .events = POLLIN } };
        int ms = lonely_client_timeout_ms(sb.client);

        poll(fds, 2, ms >= 0 && ms < 10 ? ms : 10);
        lonely_client_process(sb.client);
        if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
            return true;
    }
    return false;
}

/* The client works for some turns, in which nothing is expected to be heard of it. */
static inline void sb_idle(void)
{
    assert_false(sb_work(sb.fd, 50));
}

static inline void sb_hang_up(void)
{
    if (sb.fd >= 0)
        close(sb.fd);
    sb.fd = -1;
}

static inline void sb_accept(void)
{
    int yes = 1;

    sb_hang_up();
    assert_true(sb_work(sb.listener, SB_PATIENCE_MS));
    sb.fd = accept4(sb.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(sb.fd >= 0);
    setsockopt(sb.fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)); /* what is sent is there */
}

/* `len` bytes. False: the client has closed. */
static inline bool sb_read(uint8_t *to, size_t len)
{
    while (len > 0) {
        ssize_t n = recv(sb.fd, to, len, 0);

        if (n > 0) {
            to += n;
            len -= (size_t)n;
        } else if (n == 0 || errno != EAGAIN) {
            return false;
        } else if (!sb_work(sb.fd, SB_PATIENCE_MS)) {
            fail_msg("no frame in time");
        }
    }
    return true;
}

/* The next frame's bytes, good until the one after it; len 0: the client has closed, perhaps inside one. */
static inline struct lonely_span sb_next_bytes(void)
{
    uint8_t length[4];
    uint32_t len;

    if (!sb_read(length, sizeof(length)))
        return (struct lonely_span){ 0 };
    len = (uint32_t)length[0] << 24 | (uint32_t)length[1] << 16 | (uint32_t)length[2] << 8 |
          length[3];
    assert_true(len <= SB_FRAME_MAX);
    if (!sb_read(sb.frame, len))
        return (struct lonely_span){ 0 };
    return (struct lonely_span){ sb.frame, len };
}

static inline struct lonely_message sb_next(enum lonely_s2b type)
{
    struct lonely_span bytes = sb_next_bytes();
    struct lonely_message m;

    if (bytes.len == 0)
        fail_msg("closed instead of a frame of type %d", (int)type);
    assert_int_equal(lonely_message_parse(LONELY_S2B, bytes, &m).err, LONELY_OK);
    assert_int_equal(m.type, type);
    return m;
}

static inline void sb_expect_end(void)
{
    while (sb_next_bytes().len > 0)
        ;
    sb_hang_up();
}

static inline void sb_send_all(const uint8_t *at, size_t len)
{
    while (len > 0) {
        ssize_t n = send(sb.fd, at, len, MSG_NOSIGNAL);

        if (n > 0) {
            at += n;
            len -= (size_t)n;
        } else if (n < 0 && errno != EAGAIN) {
            return; /* refused meanwhile */
        } else {
            lonely_client_process(sb.client);
        }
    }
}

static inline void sb_send_bytes(struct lonely_span frame)
{
    uint8_t length[4] = { (uint8_t)(frame.len >> 24), (uint8_t)(frame.len >> 16),
                          (uint8_t)(frame.len >> 8), (uint8_t)frame.len };

    sb_send_all(length, sizeof(length));
    sb_send_all(frame.ptr, frame.len);
}

static inline void sb_send(struct lonely_message m)
{
    static uint8_t head[LONELY_MESSAGE_HEAD_MAX_BYTES + (1 << 20)];
    size_t len = 0;

    m.direction = LONELY_B2S;
    m.minimal = true;
    table_require(lonely_message_serialize_head(&m, head, sizeof(head), &len) == LONELY_OK &&
                      len + m.body.len <= sizeof(head),
                  "a frame");
    if (m.body.len > 0)
        memcpy(head + len, m.body.ptr, m.body.len);
    sb_send_bytes((struct lonely_span){ head, len + m.body.len });
}

/* Accepts, and answers CONFIGURE. */
static inline void sb_configure(void)
{
    static const uint8_t nonce[LONELY_NONCE_BYTES] = { 2 };

    sb_accept();
    sb_next(LONELY_S2B_CONFIGURE);
    sb_send((struct lonely_message){
        .type = LONELY_B2S_CONFIRM_CONFIGURE,
        .as.confirm_configure.broadcaster_nonce = { nonce, sizeof(nonce) } });
}

static inline void sb_close(void)
{
    sb_hang_up();
    close(sb.listener);
}

#endif
