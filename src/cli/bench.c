/*
 * Loads (bench.h): their settings, by name, and what is printed of a run. Called by cmd_bench.c and by the
 * load of the benchmarks; runs are bench_load.c's and bench_library.c's.
 */
#include "bench.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "bench_wire.h"

/* ---- For the runs ---- */

uint64_t bench_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double bench_cpu_s(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

void bench_ready(const struct bench_settings *set)
{
    if (set->json)
        puts("{\"event\": \"ready\"}");
    fflush(stdout);
}

/* ---- Settings ---- */

const struct bench_settings bench_defaults = {
    .topic = "lonely/bench",
    .publishers = 1,
    .subscribers = 1,
    .size = 128,
    .part_bytes = 1048576,
    .window = 128,
    .batch = 16,
    .seconds = 5,
};

#define NUMBER(name, field, least, most)                          \
    {                                                             \
        name, offsetof(struct bench_settings, field), least, most \
    }

static const struct number {
    const char *name;
    size_t field; /* of type uint64_t or size_t */
    uint64_t least, most;
} numbers[] = {
    NUMBER("publishers", publishers, 0, BENCH_PEERS_MAX),
    NUMBER("subscribers", subscribers, 0, BENCH_PEERS_MAX),
    NUMBER("idle", idle, 0, BENCH_PEERS_MAX),
    NUMBER("size", size, 0, BENCH_SIZE_MAX),
    NUMBER("part-size", part_bytes, 1024, 1 << 30),
    NUMBER("window", window, 1, 1 << 20),
    NUMBER("batch", batch, 1, 1 << 16),
    NUMBER("rate", rate, 1, 100000000),
    NUMBER("messages", messages, 1, UINT64_C(1) << 50),
    NUMBER("expect", expect, 1, UINT64_C(1) << 50),
};
static_assert(sizeof(size_t) == sizeof(uint64_t), "fields are set as one type");

static bool set_number(struct bench_settings *set, const struct number *n, const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || value < n->least || value > n->most)
        return false;
    memcpy((char *)set + n->field, &value, sizeof(value));
    return true;
}

static bool set_seconds(struct bench_settings *set, const char *text)
{
    char *end;

    set->seconds = strtod(text, &end);
    return end != text && *end == '\0' && set->seconds >= 0 && set->seconds <= 1e6;
}

bool bench_set(struct bench_settings *set, const char *name, const char *value)
{
    if (strcmp(name, "seconds") == 0)
        return set_seconds(set, value);
    if (strcmp(name, "topic") == 0) {
        set->topic = value;
        return strlen(value) <= BENCH_TOPIC_MAX;
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        if (strcmp(name, numbers[i].name) == 0)
            return set_number(set, &numbers[i], value);
    }
    return false;
}

bool bench_set_address(struct bench_settings *set, const char *text, const char *default_port)
{
    size_t len = strcspn(text, "/ "); /* a path or a priority is of no interest */
    const char *close = *text == '[' ? memchr(text, ']', len) : NULL;
    const char *host = close != NULL ? text + 1 : text;
    const char *from = close != NULL ? close : text;
    const char *colon = memchr(from, ':', len - (size_t)(from - text));
    const char *host_end = close != NULL ? close : colon != NULL ? colon : text + len;
    const char *port = colon != NULL ? colon + 1 : default_port;
    size_t port_len = colon != NULL ? (size_t)(text + len - port) : strlen(port);
    size_t host_len = (size_t)(host_end - host);

    if (host_len == 0 || host_len >= sizeof(set->host) || port_len == 0 ||
        port_len >= sizeof(set->port))
        return false;
    memcpy(set->host, host, host_len);
    memcpy(set->port, port, port_len);
    return true;
}

/* ---- What is printed ---- */

static double per(double what, double seconds)
{
    return seconds > 0 ? what / seconds : 0;
}

static double latency_us(const struct bench_results *r, double part)
{
    return (double)bench_latency_ns(&r->latency, part) / 1e3;
}

static void print_json(const struct bench_results *r)
{
    printf("{\"open_s\": %.6f, \"run_s\": %.6f, \"client_cpu_s\": %.6f, \"published\": %" PRIu64
           ", \"confirmed\": %" PRIu64 ", \"notified\": %" PRIu64 ", \"delivered\": %" PRIu64
           ", \"delivered_bytes\": %" PRIu64 ", \"complete\": %s, "
           "\"latency_us\": {\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, "
           "\"max\": %.1f}}\n",
           r->open_s, r->run_s, r->cpu_s, r->published, r->confirmed, r->notified, r->delivered,
           r->delivered_bytes, r->complete ? "true" : "false", latency_us(r, 0.5),
           latency_us(r, 0.9), latency_us(r, 0.99), latency_us(r, 0.999),
           (double)r->latency.max_ns / 1e3);
}

static void print_text(const struct bench_settings *set, const struct bench_results *r)
{
    printf("connections  %zu publishers, %zu subscribers, %zu idle, open after %.3f s\n",
           set->publishers, set->subscribers, set->idle, r->open_s);
    printf("published    %" PRIu64 " messages of %" PRIu64 " bytes in %.3f s: %.0f/s, %.2f MB/s\n",
           r->published, set->size, r->run_s, per((double)r->published, r->run_s),
           per((double)r->published * (double)set->size / 1e6, r->run_s));
    printf("confirmed    %" PRIu64 "\n", r->confirmed);
    printf("delivered    %" PRIu64 ": %.0f/s, %.2f MB/s\n", r->delivered,
           per((double)r->delivered, r->run_s), per((double)r->delivered_bytes / 1e6, r->run_s));
    if (r->latency.count > 0)
        printf("latency      median %.0f us, 90 %% %.0f us, 99 %% %.0f us, 99.9 %% %.0f us, most "
               "%.0f us\n",
               latency_us(r, 0.5), latency_us(r, 0.9), latency_us(r, 0.99), latency_us(r, 0.999),
               (double)r->latency.max_ns / 1e3);
    printf("client CPU   %.3f s\n", r->cpu_s);
}

bool bench_run(struct bench_settings *set, struct bench_results *out)
{
    bool good;

    if (set->size > set->part_bytes)
        set->batch = 1;
    good = set->options != NULL ? bench_library(set, out) : bench_load(set, out);
    if (good && set->json)
        print_json(out);
    else if (good)
        print_text(set, out);
    if (good && !out->complete)
        snprintf(out->error, sizeof(out->error), "not every message was confirmed and delivered");
    fflush(stdout);
    return good && out->complete;
}
