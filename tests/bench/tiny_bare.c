/*
 * What bench_tinyproto.py compares with: the least that a server of the same bytes must do. No limits,
 * no time limits, no protocol (but for `frames`); one connection after the other.
 *
 *     tiny_bare echo BYTES            receives so many bytes, sends them back, and again
 *     tiny_bare frames BYTES          the same as tinyproto messages; many connections at a time
 *     tiny_bare receive FILE BYTES    receives so many bytes into the file, to the disk; sends one
 *     tiny_bare swallow BYTES         receives so many bytes and keeps none; sends one
 *     tiny_bare send FILE             sends the file
 *
 * Prints "ready tcp HOST:PORT".
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PIECE_BYTES (256u * 1024)

static uint8_t piece[PIECE_BYTES];

static void require(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "tiny_bare: %s\n", what);
    exit(1);
}

static void set_no_delay(int fd)
{
    const int on = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void put(int fd, const uint8_t *ptr, size_t len, bool is_file)
{
    while (len > 0) {
        ssize_t n = is_file ? write(fd, ptr, len) : send(fd, ptr, len, MSG_NOSIGNAL);

        if (n <= 0)
            return; /* the peer has enough */
        ptr += n;
        len -= (size_t)n;
    }
}

static void echo(int fd, size_t bytes)
{
    uint8_t *message = malloc(bytes);
    size_t got = 0;
    ssize_t n;

    require(message != NULL, "memory");
    while ((n = recv(fd, message + got, bytes - got, 0)) > 0) {
        got += (size_t)n;
        if (got < bytes)
            continue;
        put(fd, message, bytes, false);
        got = 0;
    }
    free(message);
}

/* ---- The system calls that a message of tinyproto takes, and nothing else ---- */

enum turn { HANDSHAKE, SIZE, PAYLOAD, STATUS };

struct peer {
    int fd;
    enum turn turn;
    uint8_t size[4];
    uint8_t message[];
};

static void take_turn(struct peer *p, size_t bytes)
{
    static const uint8_t ok = 0xff;
    const size_t wants[] = { 1, 4, bytes, 1 };
    uint8_t *const places[] = { piece, p->size, p->message, piece };
    ssize_t n = recv(p->fd, places[p->turn], wants[p->turn], 0);

    if (n <= 0) {
        (void)close(p->fd);
        free(p);
        return;
    }
    require((size_t)n == wants[p->turn], "a small message comes in one piece");
    if (p->turn == SIZE || p->turn == HANDSHAKE)
        put(p->fd, &ok, 1, false);
    else if (p->turn == PAYLOAD)
        put(p->fd, p->size, 4, false);
    else
        put(p->fd, p->message, bytes, false);
    p->turn = p->turn == STATUS ? SIZE : p->turn + 1;
}

static void run_frames(int listener, size_t bytes)
{
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[64], event = { .events = EPOLLIN };
    struct peer *p;

    (void)epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(poll, events, 64, -1);

        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr != NULL) {
                take_turn(events[i].data.ptr, bytes);
                continue;
            }
            p = calloc(1, sizeof(*p) + bytes);
            require(p != NULL, "memory");
            p->fd = accept(listener, NULL, NULL);
            set_no_delay(p->fd);
            event.data.ptr = p;
            (void)epoll_ctl(poll, EPOLL_CTL_ADD, p->fd, &event);
        }
    }
}

/* Into a file, or, with -1, nowhere. */
static void swallow(int fd, int file, uint64_t bytes)
{
    ssize_t n = 1;

    while (bytes > 0 && n > 0) {
        n = recv(fd, piece, PIECE_BYTES, 0);
        if (n > 0 && file >= 0)
            put(file, piece, (size_t)n, true);
        bytes -= n > 0 ? (uint64_t)n : 0;
    }
    require(file < 0 || fsync(file) == 0, "fsync");
    put(fd, piece, 1, false);
}

static void receive(int fd, const char *name, uint64_t bytes)
{
    int file = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    require(file >= 0, name);
    swallow(fd, file, bytes);
    (void)close(file);
}

static void send_file(int fd, const char *name)
{
    int file = open(name, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    require(file >= 0, name);
    while ((n = read(file, piece, PIECE_BYTES)) > 0)
        put(fd, piece, (size_t)n, false);
    (void)close(file);
}

static int start_listening(void)
{
    struct sockaddr_in in = { .sin_family = AF_INET };
    socklen_t len = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    require(bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0 && listen(fd, 16) == 0 &&
                getsockname(fd, (struct sockaddr *)&in, &len) == 0,
            "listen");
    (void)printf("ready tcp 127.0.0.1:%d\n", ntohs(in.sin_port));
    (void)fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    int listener, fd;

    require(argc == 3 || argc == 4, "what? see the source");
    listener = start_listening();
    if (strcmp(argv[1], "frames") == 0)
        run_frames(listener, strtoull(argv[2], NULL, 10));
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        set_no_delay(fd);
        if (strcmp(argv[1], "echo") == 0)
            echo(fd, strtoull(argv[2], NULL, 10));
        else if (strcmp(argv[1], "receive") == 0)
            receive(fd, argv[2], strtoull(argv[3], NULL, 10));
        else if (strcmp(argv[1], "swallow") == 0)
            swallow(fd, -1, strtoull(argv[2], NULL, 10));
        else
            send_file(fd, argv[2]);
        (void)close(fd);
    }
    return 0;
}
