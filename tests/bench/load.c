/*
 * The load of `lonelypsc bench` that speaks to nats-server and redis-server, too, so that bench_ws.py gives
 * every server the very same publishers and subscribers.
 *
 *     load --broadcaster ws://|tcp://|nats://|redis://HOST:PORT [--secrets FILE] [--NAME VALUE]...
 *
 * The names are those of lonelypsc bench. Prints two lines of JSON, as that does with --json.
 */
#include <stdio.h>
#include <string.h>

#include "bench_wire.h"

#define LINE_MAX_BYTES 8192

/* The end of the line at `in`, behind its "\r\n"; NULL: not all of it has come. */
static const uint8_t *line_end(const uint8_t *in, size_t len)
{
    const uint8_t *cr = memchr(in, '\r', len);

    return cr != NULL && (size_t)(cr - in) + 1 < len ? cr + 2 : NULL;
}

static bool begins(const uint8_t *in, size_t len, const char *with)
{
    return len >= strlen(with) && memcmp(in, with, strlen(with)) == 0;
}

static uint64_t number_at(const uint8_t *at)
{
    uint64_t n = 0;

    for (; *at >= '0' && *at <= '9'; at++)
        n = 10 * n + (uint64_t)(*at - '0');
    return n;
}

/* ---- NATS ---- */

static void nats_open(struct bench_peer *p)
{
    char text[LINE_MAX_BYTES];
    int n = snprintf(text, sizeof(text),
                     "CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":true}\r\n");

    if (p->role == BENCH_SUBSCRIBER)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "SUB %s 1\r\n", p->load->set->topic);
    n += snprintf(text + n, sizeof(text) - (size_t)n, "PING\r\n");
    bench_put(p, text, (size_t)n);
}

static void nats_publish(struct bench_peer *p)
{
    struct bench_load *l = p->load;
    char head[LINE_MAX_BYTES];
    int n = snprintf(head, sizeof(head), "PUB %s %zu\r\n", l->set->topic, l->payload_len);

    bench_put(p, head, (size_t)n);
    bench_put(p, l->payload, l->payload_len);
    bench_put(p, "\r\n", 2);
}

/* Its answer confirms the whole write. */
static void nats_end_write(struct bench_peer *p, unsigned messages)
{
    p->batches[(p->first_batch + p->batch_count++) % BENCH_BATCHES] = messages;
    bench_put(p, "PING\r\n", 6);
}

static void nats_on_pong(struct bench_peer *p)
{
    if (!p->ready) {
        bench_peer_ready(p);
    } else {
        bench_confirmed(p->load, p->batches[p->first_batch % BENCH_BATCHES], 0);
        p->first_batch++;
        p->batch_count--;
    }
}

/* "MSG <subject> <sid> <bytes>\r\n<payload>\r\n". 0: not all of it has come. */
static size_t nats_take_message(struct bench_peer *p, const uint8_t *in, const uint8_t *end,
                                size_t len, size_t *wanted)
{
    const uint8_t *at = end - 2;
    uint64_t size;

    while (at[-1] != ' ')
        at--;
    size = number_at(at);
    *wanted = (size_t)(end - in) + (size_t)size + 2;
    if (len < *wanted)
        return 0;
    bench_delivered(p, (struct lonely_span){ end, (size_t)size }, size);
    return *wanted;
}

static size_t nats_take(struct bench_peer *p, uint8_t *in, size_t len, size_t *wanted)
{
    size_t at = 0;
    const uint8_t *end;

    *wanted = 65536;
    while ((end = line_end(in + at, len - at)) != NULL) {
        size_t used = (size_t)(end - (in + at));

        if (begins(in + at, len - at, "MSG "))
            used = nats_take_message(p, in + at, end, len - at, wanted);
        else if (begins(in + at, len - at, "PONG"))
            nats_on_pong(p);
        else if (begins(in + at, len - at, "PING"))
            bench_put(p, "PONG\r\n", 6);
        else if (begins(in + at, len - at, "-ERR"))
            bench_failed(p->load, "nats-server says -ERR");
        if (used == 0)
            break;
        at += used;
    }
    return at;
}

static const struct bench_wire nats = { "nats", nats_open, nats_take, nats_publish,
                                        nats_end_write };

/* ---- Redis ---- */

static void redis_open(struct bench_peer *p)
{
    char text[LINE_MAX_BYTES];
    const char *topic = p->load->set->topic;
    int n;

    if (p->role == BENCH_SUBSCRIBER)
        n = snprintf(text, sizeof(text), "*2\r\n$9\r\nSUBSCRIBE\r\n$%zu\r\n%s\r\n", strlen(topic),
                     topic);
    else
        n = snprintf(text, sizeof(text), "*1\r\n$4\r\nPING\r\n");
    bench_put(p, text, (size_t)n);
}

static void redis_publish(struct bench_peer *p)
{
    struct bench_load *l = p->load;
    char head[LINE_MAX_BYTES];
    int n = snprintf(head, sizeof(head), "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\n%s\r\n$%zu\r\n",
                     strlen(l->set->topic), l->set->topic, l->payload_len);

    bench_put(p, head, (size_t)n);
    bench_put(p, l->payload, l->payload_len);
    bench_put(p, "\r\n", 2);
}

static void redis_end_write(struct bench_peer *p, unsigned messages)
{
    (void)p;
    (void)messages;
}

/* A line; of "$<bytes>" also what follows. `value`: it. 0: not all has come. */
static size_t redis_item(const uint8_t *in, size_t len, size_t *wanted, struct lonely_span *value)
{
    const uint8_t *end = line_end(in, len);
    size_t line, size;

    if (end == NULL)
        return 0;
    line = (size_t)(end - in);
    *value = (struct lonely_span){ in, line };
    if (*in != '$')
        return line;
    size = (size_t)number_at(in + 1);
    *value = (struct lonely_span){ end, size };
    *wanted = line + size + 2 + LINE_MAX_BYTES;
    return len < line + size + 2 ? 0 : line + size + 2;
}

/* "*3", "message" or "subscribe", the channel, the message or a number. */
static size_t redis_take_push(struct bench_peer *p, const uint8_t *in, size_t len, size_t *wanted)
{
    struct lonely_span items[4];
    size_t at = 0, used;

    for (int i = 0; i < 4; i++) {
        used = redis_item(in + at, len - at, wanted, &items[i]);
        if (used == 0)
            return 0;
        at += used;
    }
    if (begins(items[1].ptr, items[1].len, "subscribe"))
        bench_peer_ready(p);
    else
        bench_delivered(p, items[3], items[3].len);
    return at;
}

static size_t redis_take(struct bench_peer *p, uint8_t *in, size_t len, size_t *wanted)
{
    size_t at = 0, used = 1;
    struct lonely_span value;

    *wanted = 65536;
    while (at < len && used > 0) {
        if (in[at] == '*') {
            used = redis_take_push(p, in + at, len - at, wanted);
        } else {
            used = redis_item(in + at, len - at, wanted, &value);
            if (used > 0 && in[at] == ':')
                bench_confirmed(p->load, 1, number_at(in + at + 1));
            else if (used > 0 && in[at] == '+')
                bench_peer_ready(p);
            else if (used > 0)
                bench_failed(p->load, "redis-server says -ERR");
        }
        at += used;
    }
    return at;
}

static const struct bench_wire redis = { "redis", redis_open, redis_take, redis_publish,
                                         redis_end_write };

/* ---- The program ---- */

static const struct scheme {
    const char *prefix;
    const struct bench_wire *wire;
} schemes[] = {
    { "ws://", &bench_websocket },
    { "tcp://", &bench_tcp },
    { "nats://", &nats },
    { "redis://", &redis },
};

static bool set_url(struct bench_settings *set, const char *url)
{
    for (size_t i = 0; i < sizeof(schemes) / sizeof(*schemes); i++) {
        size_t len = strlen(schemes[i].prefix);

        if (strncmp(url, schemes[i].prefix, len) != 0)
            continue;
        set->wire = schemes[i].wire;
        return bench_set_address(set, url + len, "");
    }
    return false;
}

static bool set_option(struct bench_settings *set, const char *name, const char *value)
{
    if (strcmp(name, "broadcaster") == 0)
        return set_url(set, value);
    if (strcmp(name, "secrets") != 0)
        return bench_set(set, name, value);
    set->secrets = value;
    return true;
}

int main(int argc, char **argv)
{
    struct bench_settings set = bench_defaults;
    struct bench_results results = { 0 };

    set.json = true;
    for (int i = 1; i < argc; i += 2) {
        if (strncmp(argv[i], "--", 2) != 0 || i + 1 == argc ||
            !set_option(&set, argv[i] + 2, argv[i + 1])) {
            fprintf(stderr, "load: what is %s?\n", argv[i]);
            return 2;
        }
    }
    if (set.wire == NULL) {
        fprintf(stderr, "load: --broadcaster is missing\n");
        return 2;
    }
    if (bench_run(&set, &results))
        return 0;
    fprintf(stderr, "load: %s\n", results.error);
    return 1;
}
