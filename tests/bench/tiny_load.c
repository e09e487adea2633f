/*
 * The load of bench_tinyproto.py, on plain sockets that wait: whoever measures a server must not be
 * made of what is measured.
 *
 *     tiny_load echo    HOST:PORT CONNECTIONS MESSAGES BYTES    tinyproto: messages, each after the echo
 *     tiny_load mirror  HOST:PORT CONNECTIONS MESSAGES BYTES    the same bytes without a protocol
 *     tiny_load put     HOST:PORT BYTES                         bytes, then a byte comes
 *     tiny_load get     HOST:PORT BYTES                         that many come
 *     tiny_load keep    HOST:PORT FILE BYTES                    that many come, into the file, to the disk
 *
 * A thread a connection; each sends its share of the messages. Prints the seconds it took.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES (256u * 1024)

struct load {
    struct sockaddr_in to;
    bool has_protocol;
    uint64_t messages; /* of a connection */
    uint64_t bytes;
};

static void require(bool ok, const char *what)
{
    if (ok)
        return;
    (void)fprintf(stderr, "tiny_load: %s\n", what);
    exit(1);
}

static int open_connection(const struct load *load)
{
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    require(connect(fd, (const struct sockaddr *)&load->to, sizeof(load->to)) == 0, "connect");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static void put(int fd, const uint8_t *ptr, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, ptr, len, MSG_NOSIGNAL);

        require(n > 0, "send");
        ptr += n;
        len -= (size_t)n;
    }
}

static void get(int fd, uint8_t *ptr, size_t len)
{
    while (len > 0) {
        ssize_t n = recv(fd, ptr, len, 0);

        require(n > 0, "the end came too early");
        ptr += n;
        len -= (size_t)n;
    }
}

static void expect(int fd, const uint8_t *want, size_t len)
{
    uint8_t got[8];

    get(fd, got, len);
    require(memcmp(got, want, len) == 0, "another byte than was expected");
}

/* (doc/protocol/tinyproto.md, 3) */
static void echo_once(int fd, const struct load *load, uint8_t *out, uint8_t *in)
{
    const uint8_t ok = 0xff;
    const uint32_t size = htonl((uint32_t)load->bytes);

    if (load->has_protocol) {
        put(fd, (const uint8_t *)&size, 4);
        expect(fd, &ok, 1);
    }
    put(fd, out, load->bytes);
    if (load->has_protocol) {
        expect(fd, (const uint8_t *)&size, 4);
        put(fd, &ok, 1);
    }
    get(fd, in, load->bytes);
    require(memcmp(in, out, load->bytes) == 0, "another message came back");
    out[0]++;
}

static void *run_connection(void *arg)
{
    const struct load *load = arg;
    const uint8_t ok = 0xff;
    uint8_t *out = calloc(1, load->bytes + 1), *in = calloc(1, load->bytes + 1);
    int fd = open_connection(load);

    require(out != NULL && in != NULL, "memory");
    memset(out, 'x', load->bytes);
    if (load->has_protocol) {
        put(fd, &ok, 1);
        expect(fd, &ok, 1);
    }
    for (uint64_t i = 0; i < load->messages; i++)
        echo_once(fd, load, out, in);
    (void)close(fd);
    free(out);
    free(in);
    return NULL;
}

static void run_echo(struct load *load, unsigned connections)
{
    pthread_t threads[256];

    require(connections >= 1 && connections <= 256, "1 to 256 connections");
    for (unsigned i = 0; i < connections; i++)
        require(pthread_create(&threads[i], NULL, run_connection, load) == 0, "thread");
    for (unsigned i = 0; i < connections; i++)
        (void)pthread_join(threads[i], NULL);
}

static void run_stream(const struct load *load, bool is_put, const char *name)
{
    static uint8_t piece[PIECE_BYTES];
    uint64_t left = load->bytes;
    int fd = open_connection(load), file = -1;

    if (name != NULL) {
        file = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        require(file >= 0, name);
    }
    while (left > 0) {
        size_t n = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;

        if (is_put)
            put(fd, piece, n);
        else
            get(fd, piece, n);
        require(file < 0 || write(file, piece, n) == (ssize_t)n, "write");
        left -= n;
    }
    if (is_put)
        get(fd, piece, 1);
    require(file < 0 || (fsync(file) == 0 && close(file) == 0), "fsync");
    (void)close(fd);
}

static double seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    struct load load = { .to.sin_family = AF_INET };
    char *colon;
    double began;

    require(argc >= 4 && argc <= 6, "what? see the source");
    colon = strchr(argv[2], ':');
    require(colon != NULL, "HOST:PORT");
    *colon = '\0';
    load.to.sin_port = htons((uint16_t)atoi(colon + 1));
    require(inet_pton(AF_INET, argv[2], &load.to.sin_addr) == 1, "an IPv4 address");
    load.bytes = strtoull(argv[argc - 1], NULL, 10);
    began = seconds();
    if (argc == 6) {
        unsigned connections = (unsigned)atoi(argv[3]);

        load.has_protocol = strcmp(argv[1], "echo") == 0;
        load.messages = strtoull(argv[4], NULL, 10) / (connections > 0 ? connections : 1);
        run_echo(&load, connections);
    } else {
        run_stream(&load, strcmp(argv[1], "put") == 0, argc == 5 ? argv[3] : NULL);
    }
    (void)printf("%.6f\n", seconds() - began);
    return 0;
}
