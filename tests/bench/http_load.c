/*
 * A load generator for the HTTP API of a broadcaster: so many connections, kept alive, one request
 * at a time on each. One thread, epoll. Prints one line of JSON.
 *
 *     http_load --to HOST:PORT [--connections N] [--requests N] [--seconds S] WHAT
 *
 *     --notify TOPIC [--topics N] [--message-bytes N]   '#' in TOPIC: a number drawn below --topics
 *     --subscribe TOPIC --url URL                       '#' in TOPIC: 0, 1, 2, ...
 *     --bodies FILE --path PATH                         the requests of the file in turn: length (4
 *                                                       bytes, little-endian) and body, each
 *
 * --hmac SECRET signs each notify with that secret, as it stands in a secrets file, and takes an answer
 * that is not signed for an error.
 *
 * It ends after --requests requests, or when --seconds are over: then nothing new is sent, and what
 * has no answer GRACE_S later counts as an error. Anything but a 200 is an error. "notified" sums
 * the counts of the answers to notify. Exit status 1 when there was an error.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <lonely/auth.h>
#include <lonely/stateless.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bench_http.h"

#define GRACE_S          10
#define CONNECTIONS_MAX  4096
#define REQUESTS_MAX     20000000u
#define TOPIC_MAX        200
#define PREFIX_MAX       2048 /* HTTP head, and what precedes the message */
#define REPLY_MAX        4096
#define MESSAGE_PIECE    ((size_t)256 * 1024)
#define IDENTIFIER_BYTES 4

enum what { WHAT_NOTHING, WHAT_NOTIFY, WHAT_SUBSCRIBE, WHAT_BODIES };

struct settings {
    struct sockaddr_in to;
    const char *host, *path, *topic, *url, *file, *secret;
    enum what what;
    size_t connections, requests, topics, message_bytes;
    double seconds;
};

struct connection {
    int fd;
    bool waits_to_write;
    double began_s;
    char prefix[PREFIX_MAX];
    size_t prefix_len, prefix_sent;
    const uint8_t *tail; /* sent after the prefix, again and again until ... */
    size_t tail_len;
    size_t tail_total; /* ... so many bytes are out */
    size_t tail_sent;
    size_t have; /* of the reply */
    char reply[REPLY_MAX];
};

struct load {
    struct settings set;
    struct connection *connections;
    size_t open;
    int poll;
    size_t started, answered, ok, errors;
    unsigned long long notified;
    uint32_t *latencies_us; /* of those answered 200 */
    uint64_t random;
    uint8_t *message;
    uint8_t hash[LONELY_SHA512_BYTES];
    struct lonely_auth_ctx *auth; /* NULL: nothing is signed */
    struct lonely_auth_key *key;
    char authorization[64 + LONELY_AUTH_HMAC_MAX_BYTES]; /* the header line; empty: none */
    uint8_t *bodies;                                     /* the file */
    size_t bodies_len, bodies_at;
    double stop_s; /* nothing is started afterwards */
};

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct lonely_span span(const void *ptr, size_t len)
{
    return (struct lonely_span){ ptr, len };
}

/* xorshift64: which topics are drawn differs from run to run, and costs nothing. */
static uint64_t draw(struct load *l, uint64_t below)
{
    l->random ^= l->random << 13;
    l->random ^= l->random >> 7;
    l->random ^= l->random << 17;
    return l->random % below;
}

/* ---- Requests -------------------------------------------------------------------------------- */

static size_t write_topic(char out[TOPIC_MAX + 24], const char *format, uint64_t number)
{
    const char *at = strchr(format, '#');

    if (at == NULL)
        return (size_t)snprintf(out, TOPIC_MAX + 24, "%s", format);
    return (size_t)snprintf(out, TOPIC_MAX + 24, "%.*s%llu%s", (int)(at - format), format,
                            (unsigned long long)number, at + 1);
}

static void set_prefix(const struct load *l, struct connection *c, const uint8_t *start,
                       size_t start_len, size_t tail_len)
{
    size_t len = (size_t)snprintf(c->prefix, sizeof(c->prefix),
                                  "POST %s HTTP/1.1\r\nHost: %s\r\n"
                                  "Content-Type: application/octet-stream\r\n"
                                  "%sContent-Length: %zu\r\n\r\n",
                                  l->set.path, l->set.host, l->authorization, start_len + tail_len);

    bench_require(len + start_len <= sizeof(c->prefix), "http_load: a shorter path, URL or topic");
    if (start_len > 0)
        memcpy(c->prefix + len, start, start_len);
    c->prefix_len = len + start_len;
    c->prefix_sent = 0;
    c->tail_total = tail_len;
    c->tail_sent = 0;
}

static void prepare_fields(struct load *l, struct connection *c, enum lonely_stateless_type type,
                           const struct lonely_stateless *fields, size_t tail_len)
{
    uint8_t start[PREFIX_MAX];
    struct lonely_result written = lonely_stateless_write(type, fields, start, sizeof(start));

    bench_require(written.err == LONELY_OK, "http_load: a shorter URL or topic");
    set_prefix(l, c, start, written.at, tail_len);
}

static void sign_notify(struct load *l, const struct lonely_stateless *fields)
{
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_NOTIFY,
        .topic = fields->topic,
        .identifier = fields->identifier,
        .hash = fields->hash,
    };
    uint64_t number = draw(l, UINT64_MAX);
    uint8_t random[4], nonce[LONELY_AUTH_NONCE_BYTES], text[LONELY_AUTH_HMAC_MAX_BYTES];
    size_t len;

    memcpy(random, &number, sizeof(random));
    lonely_auth_nonce_text(random, nonce);
    bench_require(lonely_auth_sign(l->auth, l->key, &in, (uint64_t)time(NULL),
                                   span(nonce, sizeof(nonce)), text, sizeof(text),
                                   &len) == LONELY_OK,
                  "http_load: signing");
    snprintf(l->authorization, sizeof(l->authorization), "Authorization: %.*s\r\n", (int)len,
             (const char *)text);
}

static void prepare_notify(struct load *l, struct connection *c)
{
    char topic[TOPIC_MAX + 24];
    uint32_t identifier = (uint32_t)l->started;
    struct lonely_stateless fields = {
        .topic = span(topic, write_topic(topic, l->set.topic, draw(l, l->set.topics))),
        .hash = span(l->hash, sizeof(l->hash)),
        .identifier = span(&identifier, IDENTIFIER_BYTES),
        .message_len = l->set.message_bytes,
    };

    if (l->auth != NULL)
        sign_notify(l, &fields);
    prepare_fields(l, c, LONELY_STATELESS_NOTIFY, &fields, l->set.message_bytes);
    c->tail = l->message;
    c->tail_len = MESSAGE_PIECE;
}

static void prepare_subscribe(struct load *l, struct connection *c)
{
    char topic[TOPIC_MAX + 24];
    struct lonely_stateless fields = {
        .url = span(l->set.url, strlen(l->set.url)),
        .topic = span(topic, write_topic(topic, l->set.topic, l->started)),
    };

    prepare_fields(l, c, LONELY_STATELESS_SUBSCRIBE_EXACT, &fields, 0);
}

static void prepare_body(struct load *l, struct connection *c)
{
    uint32_t len;

    if (l->bodies_at == l->bodies_len)
        l->bodies_at = 0;
    memcpy(&len, l->bodies + l->bodies_at, sizeof(len)); /* checked by load_bodies */
    c->tail = l->bodies + l->bodies_at + sizeof(len);
    c->tail_len = len;
    l->bodies_at += sizeof(len) + len;
    set_prefix(l, c, NULL, 0, len);
}

/* ---- Connections ----------------------------------------------------------------------------- */

static void connection_fail(struct load *l, struct connection *c)
{
    close(c->fd); /* and leaves the poll */
    c->fd = -1;
    l->open--;
    l->errors++;
}

static void poll_for(struct load *l, struct connection *c, int op, bool writing)
{
    struct epoll_event event = { .events = EPOLLIN | (writing ? (uint32_t)EPOLLOUT : 0),
                                 .data.ptr = c };

    c->waits_to_write = writing;
    bench_require(epoll_ctl(l->poll, op, c->fd, &event) == 0, "http_load: epoll_ctl");
}

/* The next piece of what follows the prefix. */
static struct iovec tail_piece(const struct connection *c)
{
    size_t left = c->tail_total - c->tail_sent, at, len;

    if (left == 0)
        return (struct iovec){ NULL, 0 };
    at = c->tail_sent % c->tail_len;
    len = c->tail_len - at;
    return (struct iovec){ (void *)(uintptr_t)(c->tail + at), left < len ? left : len };
}

/* Sends what is left of the request, or as much as the socket takes. */
static void send_more(struct load *l, struct connection *c)
{
    while (c->prefix_sent < c->prefix_len || c->tail_sent < c->tail_total) {
        size_t prefix_left = c->prefix_len - c->prefix_sent;
        struct iovec parts[2] = { { c->prefix + c->prefix_sent, prefix_left }, tail_piece(c) };
        struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            if (!c->waits_to_write)
                poll_for(l, c, EPOLL_CTL_MOD, true);
            return;
        }
        if (n < 0) {
            connection_fail(l, c);
            return;
        }
        if ((size_t)n < prefix_left)
            prefix_left = (size_t)n;
        c->prefix_sent += prefix_left;
        c->tail_sent += (size_t)n - prefix_left;
    }
    if (c->waits_to_write)
        poll_for(l, c, EPOLL_CTL_MOD, false);
}

/* Starts the next request, unless all have been started. */
static void start_next(struct load *l, struct connection *c)
{
    static void (*const prepare[])(struct load *, struct connection *) = {
        [WHAT_NOTIFY] = prepare_notify,
        [WHAT_SUBSCRIBE] = prepare_subscribe,
        [WHAT_BODIES] = prepare_body,
    };

    c->began_s = now_s();
    c->have = 0;
    if (l->started == l->set.requests || c->began_s >= l->stop_s) {
        close(c->fd);
        c->fd = -1;
        l->open--;
        return;
    }
    prepare[l->set.what](l, c);
    l->started++;
    send_more(l, c);
}

static void count_reply(struct load *l, const struct connection *c, size_t head_len,
                        size_t body_len)
{
    struct lonely_stateless fields = { .count = 0 };
    double took_s = now_s() - c->began_s;
    bool good = strncmp(c->reply, "HTTP/1.1 200 ", 13) == 0;

    l->answered++;
    if (good && l->set.what == WHAT_NOTIFY)
        good = lonely_stateless_parse(LONELY_STATELESS_RESPONSE_NOTIFY,
                                      span(c->reply + head_len, body_len), &fields)
                       .err == LONELY_OK &&
               (l->auth == NULL || fields.authorization.len > 0);
    if (!good) {
        if (l->errors++ == 0)
            fprintf(stderr, "http_load: %.*s\n", (int)strcspn(c->reply, "\r"), c->reply);
        return;
    }
    l->latencies_us[l->ok++] = (uint32_t)(took_s * 1e6);
    l->notified += fields.count;
}

static void on_readable(struct load *l, struct connection *c)
{
    ssize_t n = recv(c->fd, c->reply + c->have, sizeof(c->reply) - c->have, 0);
    size_t head_len, body_len;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        c->have += (size_t)n;
        head_len = bench_head_len(c->reply, c->have);
        if (head_len == 0 && c->have < sizeof(c->reply))
            return;
        if (head_len > 0 && bench_content_length(c->reply, head_len, &body_len) &&
            body_len <= sizeof(c->reply) - head_len) {
            if (c->have - head_len < body_len)
                return;
            count_reply(l, c, head_len, body_len);
            start_next(l, c);
            return;
        }
    }
    connection_fail(l, c); /* it ended, or answers what we do not understand */
}

static void connect_all(struct load *l)
{
    size_t n = l->set.connections;
    int one = 1;

    l->poll = epoll_create1(EPOLL_CLOEXEC);
    l->connections = calloc(n, sizeof(*l->connections));
    bench_require(l->poll >= 0 && l->connections != NULL, "http_load: connections");
    for (l->open = 0; l->open < n; l->open++) {
        struct connection *c = &l->connections[l->open];

        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bench_require(c->fd >= 0 &&
                          connect(c->fd, (struct sockaddr *)&l->set.to, sizeof(l->set.to)) == 0,
                      "http_load: connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        bench_require(fcntl(c->fd, F_SETFL, O_NONBLOCK) == 0, "http_load: fcntl");
        poll_for(l, c, EPOLL_CTL_ADD, false);
    }
}

static void run(struct load *l)
{
    struct epoll_event events[256];

    for (size_t i = 0; i < l->set.connections; i++)
        start_next(l, &l->connections[i]);
    while (l->open > 0) {
        int n = epoll_wait(l->poll, events, 256, 100);

        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;

            if (events[i].events & EPOLLOUT)
                send_more(l, c);
            if (c->fd >= 0 && (events[i].events & ~(uint32_t)EPOLLOUT))
                on_readable(l, c);
        }
        if (now_s() > l->stop_s + GRACE_S) {
            l->errors += l->open;
            break;
        }
    }
}

/* ---- Settings -------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void print_results(struct load *l, double took_s)
{
    static const struct {
        const char *name;
        double part;
    } percentiles[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "max", 1 } };

    qsort(l->latencies_us, l->ok, sizeof(*l->latencies_us), compare);
    printf("{\"started\": %zu, \"ok\": %zu, \"errors\": %zu, \"notified\": %llu, "
           "\"seconds\": %.6f, \"latency_us\": {",
           l->started, l->ok, l->errors, l->notified, took_s);
    for (size_t i = 0; i < sizeof(percentiles) / sizeof(percentiles[0]); i++)
        printf("%s\"%s\": %u", i == 0 ? "" : ", ", percentiles[i].name,
               l->ok == 0 ? 0
                          : l->latencies_us[(size_t)(percentiles[i].part * (double)(l->ok - 1))]);
    printf("}}\n");
}

/* The message is zeros; its hash is the same for all requests. */
static void make_message(struct load *l)
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    unsigned len;

    l->message = calloc(1, MESSAGE_PIECE);
    bench_require(l->message != NULL && hash != NULL &&
                      EVP_DigestInit_ex(hash, EVP_sha512(), NULL) == 1,
                  "http_load: message");
    for (size_t left = l->set.message_bytes; left > 0;) {
        size_t n = left < MESSAGE_PIECE ? left : MESSAGE_PIECE;

        EVP_DigestUpdate(hash, l->message, n);
        left -= n;
    }
    EVP_DigestFinal_ex(hash, l->hash, &len);
    EVP_MD_CTX_free(hash);
}

static void make_key(struct load *l)
{
    errno = EINVAL;
    bench_require(lonely_auth_ctx_create(&l->auth) == LONELY_OK &&
                      lonely_auth_key_create(LONELY_AUTH_HMAC,
                                             span(l->set.secret, strlen(l->set.secret)),
                                             &l->key) == LONELY_OK,
                  "http_load: --hmac");
}

/* Reads the file and checks that it is a row of bodies. */
static void load_bodies(struct load *l)
{
    FILE *file = fopen(l->set.file, "rb");
    struct stat status;
    size_t at = 0;
    uint32_t len;

    bench_require(file != NULL && fstat(fileno(file), &status) == 0, l->set.file);
    l->bodies_len = (size_t)status.st_size;
    l->bodies = malloc(l->bodies_len + 1);
    bench_require(l->bodies != NULL && l->bodies_len > 0 &&
                      fread(l->bodies, 1, l->bodies_len, file) == l->bodies_len,
                  l->set.file);
    fclose(file);
    while (l->bodies_len - at >= sizeof(len)) {
        memcpy(&len, l->bodies + at, sizeof(len));
        if (len > l->bodies_len - at - sizeof(len))
            break;
        at += sizeof(len) + len;
    }
    errno = EINVAL;
    bench_require(at == l->bodies_len, l->set.file);
}

static void usage(void)
{
    fprintf(stderr,
            "usage: http_load --to HOST:PORT [--connections N] [--requests N] [--seconds S]\n"
            "                 --notify TOPIC [--topics N] [--message-bytes N] [--hmac SECRET] |\n"
            "                 --subscribe TOPIC --url URL | --bodies FILE --path PATH\n");
    exit(2);
}

static void parse_address(struct settings *set, const char *text)
{
    char host[64];
    const char *colon = strrchr(text, ':');

    if (colon == NULL || (size_t)(colon - text) >= sizeof(host))
        usage();
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    set->host = text;
    set->to.sin_family = AF_INET;
    set->to.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, host, &set->to.sin_addr) != 1)
        usage();
}

static size_t parse_count(const char *text, size_t max)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (*end != '\0' || end == text || value > max)
        usage();
    return value;
}

enum option_code {
    TO,
    CONNECTIONS,
    REQUESTS,
    SECONDS,
    NOTIFY,
    TOPICS,
    MESSAGE_BYTES,
    HMAC_SECRET,
    SUBSCRIBE,
    URL,
    BODIES,
    PATH
};

static const struct option long_options[] = {
    { "to", required_argument, NULL, TO },
    { "connections", required_argument, NULL, CONNECTIONS },
    { "requests", required_argument, NULL, REQUESTS },
    { "seconds", required_argument, NULL, SECONDS },
    { "notify", required_argument, NULL, NOTIFY },
    { "topics", required_argument, NULL, TOPICS },
    { "message-bytes", required_argument, NULL, MESSAGE_BYTES },
    { "hmac", required_argument, NULL, HMAC_SECRET },
    { "subscribe", required_argument, NULL, SUBSCRIBE },
    { "url", required_argument, NULL, URL },
    { "bodies", required_argument, NULL, BODIES },
    { "path", required_argument, NULL, PATH },
    { NULL, 0, NULL, 0 },
};

static void set_what(struct settings *set, enum what what, const char *path, const char *topic)
{
    if (topic != NULL && strlen(topic) > TOPIC_MAX)
        usage();
    set->what = what;
    set->topic = topic;
    if (path != NULL)
        set->path = path;
}

static void set_option(struct settings *set, int option, const char *value)
{
    switch (option) {
    case TO:
        parse_address(set, value);
        break;
    case CONNECTIONS:
        set->connections = parse_count(value, CONNECTIONS_MAX);
        break;
    case REQUESTS:
        set->requests = parse_count(value, REQUESTS_MAX);
        break;
    case SECONDS:
        set->seconds = strtod(value, NULL);
        break;
    case NOTIFY:
        set_what(set, WHAT_NOTIFY, "/v1/notify", value);
        break;
    case TOPICS:
        set->topics = parse_count(value, SIZE_MAX);
        break;
    case MESSAGE_BYTES:
        set->message_bytes = parse_count(value, SIZE_MAX / 2);
        break;
    case HMAC_SECRET:
        set->secret = value;
        break;
    case SUBSCRIBE:
        set_what(set, WHAT_SUBSCRIBE, "/v1/subscribe/exact", value);
        break;
    case URL:
        set->url = value;
        break;
    case BODIES:
        set->file = value;
        set_what(set, WHAT_BODIES, NULL, NULL);
        break;
    case PATH:
        set->path = value;
        break;
    default:
        usage();
    }
}

static void parse_arguments(struct settings *set, int argc, char **argv)
{
    int option;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        set_option(set, option, optarg);
    if (optind != argc || set->host == NULL || set->what == WHAT_NOTHING || set->path == NULL ||
        (set->what == WHAT_SUBSCRIBE) != (set->url != NULL) ||
        (set->secret != NULL && set->what != WHAT_NOTIFY) || set->connections == 0 ||
        set->requests == 0 || set->topics == 0 || !(set->seconds > 0))
        usage();
    if (set->connections > set->requests)
        set->connections = set->requests;
}

int main(int argc, char **argv)
{
    static struct load load = {
        .set = { .connections = 64,
                 .requests = 10000,
                 .seconds = 60,
                 .topics = 1,
                 .message_bytes = 128 },
    };
    double began_s;

    parse_arguments(&load.set, argc, argv);
    load.latencies_us = malloc(load.set.requests * sizeof(*load.latencies_us));
    bench_require(load.latencies_us != NULL, "http_load: memory");
    bench_require(getrandom(&load.random, sizeof(load.random), 0) == sizeof(load.random),
                  "http_load: getrandom");
    load.random |= 1; /* 0 would stay 0 */
    if (load.set.what == WHAT_NOTIFY)
        make_message(&load);
    if (load.set.secret != NULL)
        make_key(&load);
    if (load.set.what == WHAT_BODIES)
        load_bodies(&load);
    connect_all(&load);
    began_s = now_s();
    load.stop_s = began_s + load.set.seconds;
    run(&load);
    print_results(&load, now_s() - began_s);
    lonely_auth_key_destroy(load.key);
    lonely_auth_ctx_destroy(load.auth);
    return load.errors == 0 ? 0 : 1;
}
