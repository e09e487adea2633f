/*
 * Subscribes a URL of its own to a glob and prints what arrives there, a line a message:
 *
 *     webhook_subscriber 127.0.0.1:3003 'news.*'
 *
 * For a broadcaster whose authorization is none. On SIGINT or SIGTERM it unsubscribes and ends.
 * Build: cc webhook_subscriber.c $(pkg-config --cflags --libs lonelypsp)
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem in blocking_http.h */
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <lonely/stateless.h>
#include <signal.h>

#include "blocking_http.h"

#define MESSAGE_MAX (1 << 20)

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static struct lonely_span span(const void *ptr, size_t len)
{
    return (struct lonely_span){ ptr, len };
}

/* Any free port of 127.0.0.1; writes the URL that broadcasters are to post to. */
static int open_receiver(char *url, size_t cap)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        return -1;
    snprintf(url, cap, "http://127.0.0.1:%u/v1/receive", ntohs(address.sin_port));
    return fd;
}

static int change_subscription(const char *broadcaster, enum lonely_stateless_type type,
                               const char *url, const char *glob)
{
    const struct lonely_stateless fields = {
        .url = span(url, strlen(url)), .topic = span(glob, strlen(glob)), /* where the glob goes */
    };
    const char *path =
        type == LONELY_STATELESS_SUBSCRIBE_GLOB ? "/v1/subscribe/glob" : "/v1/unsubscribe/glob";
    uint8_t request[8192];
    char reply[4096];
    const char *body;
    size_t body_len;
    struct lonely_result written = lonely_stateless_write(type, &fields, request, sizeof(request));

    if (written.err != LONELY_OK)
        return -1;
    return http_post(broadcaster, path, request, written.at, reply, sizeof(reply), &body,
                     &body_len);
}

/* Prints one RECEIVE and confirms it. */
static void receive(int fd, char *buf)
{
    const char *body;
    size_t body_len;
    struct lonely_stateless call, confirmation = { .count = 1 };
    uint8_t answer[LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE_MAX_BYTES];
    char head[128];
    struct lonely_result parsed, written;

    if (!http_receive(fd, buf, MESSAGE_MAX, &body, &body_len))
        return;
    parsed = lonely_stateless_parse(LONELY_STATELESS_RECEIVE, span(body, body_len), &call);
    if (parsed.err != LONELY_OK || body_len - parsed.at != call.message_len) {
        static const char refusal[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";

        http_send(fd, refusal, sizeof(refusal) - 1);
        return;
    }
    printf("%.*s\t%.*s\n", (int)call.topic.len, (const char *)call.topic.ptr, (int)call.message_len,
           body + parsed.at);
    fflush(stdout);
    confirmation.identifier = call.identifier;
    written = lonely_stateless_write(LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE, &confirmation,
                                     answer, sizeof(answer));
    snprintf(head, sizeof(head),
             "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", written.at);
    if (http_send(fd, head, strlen(head)))
        http_send(fd, answer, written.at);
}

int main(int argc, char **argv)
{
    const struct sigaction action = { .sa_handler = on_signal };
    const struct timeval second = { .tv_sec = 1 }, patience = { .tv_sec = 10 };
    static char buf[MESSAGE_MAX];
    char url[64];
    int listener = open_receiver(url, sizeof(url)), status;

    if (argc != 3) {
        fprintf(stderr, "usage: webhook_subscriber HOST:PORT GLOB\n");
        return 2;
    }
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (listener < 0) {
        perror("webhook_subscriber");
        return 1;
    }
    status = change_subscription(argv[1], LONELY_STATELESS_SUBSCRIBE_GLOB, url, argv[2]);
    if (status != 200) {
        fprintf(stderr, "webhook_subscriber: http://%s did not subscribe us (status %d)\n", argv[1],
                status);
        return 1;
    }
    printf("subscribed %s to %s\n", url, argv[2]);
    fflush(stdout);
    setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second)); /* to see `stopped` */
    while (!stopped) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        receive(fd, buf);
        close(fd);
    }
    change_subscription(argv[1], LONELY_STATELESS_UNSUBSCRIBE_GLOB, url, argv[2]);
    return 0;
}
