/*
 * What bench_http.py compares a large message with: the least that a broadcaster must do with the same
 * bytes. It receives a NOTIFY, hashes the message, keeps it in a file, then has the kernel send the file
 * to one webhook. One connection after the other, one thread, no limits, no time limits.
 *
 *     http_bare SINK_PORT     # on 127.0.0.1; prints "ready 127.0.0.1:PORT"
 *
 * Started by bench_http.py, between http_load.c and http_sink.c.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <lonely/stateless.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench_http.h"

#define PIECE_BYTES ((size_t)256 * 1024)
#define HEAD_MAX    1024

static char piece[PIECE_BYTES];

static void require(bool ok, const char *what)
{
    bench_require(ok, what);
}

static int open_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    require(fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0,
            "http_bare: socket");
    return fd;
}

static void send_all(int fd, const char *bytes, size_t len)
{
    require(send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len, "http_bare: send");
}

/* Reads until the head of the request and that of NOTIFY are in `piece`. Returns the bytes read; 0: the
 * peer has closed. */
static size_t read_heads(int fd, struct lonely_stateless *notify, size_t *message_at)
{
    size_t len = 0;

    for (;;) {
        ssize_t n = recv(fd, piece + len, PIECE_BYTES - len, 0);
        size_t head_len;

        if (n <= 0)
            return 0;
        len += (size_t)n;
        head_len = bench_head_len(piece, len);
        if (head_len > 0) {
            struct lonely_span body = { (const uint8_t *)piece + head_len, len - head_len };
            struct lonely_result parsed =
                lonely_stateless_parse(LONELY_STATELESS_NOTIFY, body, notify);

            *message_at = head_len + parsed.at;
            if (parsed.err == LONELY_OK)
                return len;
        }
        require(len < PIECE_BYTES, "http_bare: no NOTIFY");
    }
}

/* Hashes and keeps what is in `piece` from `from` on, and what follows. */
static void keep_message(int fd, int file, size_t from, size_t have, uint64_t message_len,
                         uint8_t sha512[LONELY_SHA512_BYTES])
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    uint64_t done = 0;

    require(hash != NULL && EVP_DigestInit_ex(hash, EVP_sha512(), NULL) == 1, "http_bare: hash");
    for (;;) {
        require(EVP_DigestUpdate(hash, piece + from, have - from) == 1 &&
                    write(file, piece + from, have - from) == (ssize_t)(have - from),
                "http_bare: write");
        done += have - from;
        if (done == message_len)
            break;
        uint64_t left = message_len - done;
        ssize_t n = recv(fd, piece, left < PIECE_BYTES ? (size_t)left : PIECE_BYTES, MSG_WAITALL);

        require(n > 0, "http_bare: the message is cut");
        from = 0;
        have = (size_t)n;
    }
    EVP_DigestFinal_ex(hash, sha512, NULL);
    EVP_MD_CTX_free(hash);
}

static void deliver(int sink, int file, const struct lonely_stateless *receive)
{
    uint8_t fields[HEAD_MAX];
    struct lonely_result written =
        lonely_stateless_write(LONELY_STATELESS_RECEIVE, receive, fields, sizeof(fields));
    off_t at = 0;

    require(written.err == LONELY_OK, "http_bare: a long topic");
    int len = snprintf(piece, PIECE_BYTES,
                       "POST /r/0 HTTP/1.1\r\nHost: sink\r\nContent-Length: %llu\r\n\r\n",
                       (unsigned long long)(written.at + receive->message_len));
    send_all(sink, piece, (size_t)len);
    send_all(sink, (const char *)fields, written.at);
    while ((uint64_t)at < receive->message_len)
        require(sendfile(sink, file, &at, (size_t)receive->message_len - (size_t)at) > 0,
                "http_bare: sendfile");
    require(recv(sink, piece, PIECE_BYTES, 0) > 0 && strncmp(piece, "HTTP/1.1 200", 12) == 0,
            "http_bare: the webhook refuses");
}

static void answer(int fd, struct lonely_span identifier)
{
    uint8_t body[HEAD_MAX];
    struct lonely_stateless confirmed = { .identifier = identifier, .count = 1 };
    struct lonely_result written =
        lonely_stateless_write(LONELY_STATELESS_RESPONSE_NOTIFY, &confirmed, body, sizeof(body));
    char head[HEAD_MAX];
    int len =
        snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", written.at);

    require(written.err == LONELY_OK, "http_bare: a long identifier");
    send_all(fd, head, (size_t)len);
    send_all(fd, (const char *)body, written.at);
}

static void serve(int fd, const struct sockaddr_in *sink_address)
{
    struct lonely_stateless notify;
    size_t message_at, have;

    while ((have = read_heads(fd, &notify, &message_at)) > 0) {
        uint8_t sha512[LONELY_SHA512_BYTES], kept[HEAD_MAX];
        int file = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), sink = open_socket();
        struct lonely_stateless receive = { .message_len = notify.message_len };

        require(notify.topic.len + notify.identifier.len <= sizeof(kept), "http_bare: long fields");
        memcpy(kept, notify.topic.ptr, notify.topic.len);
        receive.topic = (struct lonely_span){ kept, notify.topic.len };
        memcpy(kept + notify.topic.len, notify.identifier.ptr, notify.identifier.len);
        receive.identifier = (struct lonely_span){ kept + notify.topic.len, notify.identifier.len };
        keep_message(fd, file, message_at, have, notify.message_len, sha512);
        receive.hash = (struct lonely_span){ sha512, sizeof(sha512) };
        require(connect(sink, (const struct sockaddr *)sink_address, sizeof(*sink_address)) == 0,
                "http_bare: connect");
        deliver(sink, file, &receive);
        close(sink);
        close(file);
        answer(fd, receive.identifier);
    }
    close(fd);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_in sink = address;
    socklen_t len = sizeof(address);
    int listener = open_socket();

    require(argc == 2, "http_bare: SINK_PORT");
    sink.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
    require(bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 16) == 0 &&
                getsockname(listener, (struct sockaddr *)&address, &len) == 0,
            "http_bare: listen");
    printf("ready 127.0.0.1:%u\n", ntohs(address.sin_port));
    (void)fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        require(fd >= 0, "http_bare: accept");
        serve(fd, &sink);
    }
}
