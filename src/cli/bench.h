/*
 * Loads for a broadcaster: publishers and subscribers, and how fast they were. bench.c has the settings and
 * prints; a run is bench_load.c's, on bare sockets, so that one core can load any broadcaster, or
 * bench_library.c's, through liblonelypsc. cmd_bench.c and the benchmarks call it.
 */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lonely/client.h>

#include "bench_latency.h"

#define BENCH_HOST_MAX         256
#define BENCH_PEERS_MAX        60000
#define BENCH_TOPIC_MAX        4096
#define BENCH_LIBRARY_SIZE_MAX (UINT64_C(1) << 30)
#define BENCH_SIZE_MAX         (UINT64_C(1) << 40)

/* How bytes lie on a connection. */
struct bench_wire;

struct bench_settings {
    const struct bench_wire *wire;
    char host[BENCH_HOST_MAX], port[6];
    const struct lonely_client_options *options; /* through liblonelypsc, as these say; NULL: not */
    bool receives_posts;                         /* over HTTP */
    const char *topic;
    const char *secrets; /* a file; NULL: authorization none */
    size_t publishers, subscribers, idle;
    uint64_t size;       /* bytes of a message */
    uint64_t part_bytes; /* larger messages are sent in parts of so many */
    uint64_t messages;   /* to be sent, in all; 0: no limit but the time */
    uint64_t expect;     /* ends when so many were delivered; 0: no such end */
    uint64_t rate;       /* messages a second, in all; 0: as fast as they are confirmed */
    uint64_t
        window;     /* messages that are not confirmed, or not delivered to all, at the same time */
    uint64_t batch; /* messages in one write */
    double seconds;
    bool json;
};

struct bench_results {
    double open_s; /* until every connection stood and every subscription was confirmed */
    double run_s;  /* from the first message to the last delivery */
    double cpu_s;  /* of this process, meanwhile */
    uint64_t published, confirmed, notified, delivered, delivered_bytes;
    struct bench_latency latency; /* from publishing to delivery */
    bool complete;                /* every message was confirmed, and came to every subscriber */
    bool unreachable;             /* the error: nobody there */
    char error[1024];             /* empty: none */
};

/* Wires of our own, for bench_load. */
extern const struct bench_wire bench_websocket, bench_tcp;
extern const struct bench_settings bench_defaults;

/* Monotonic. */
uint64_t bench_now_ns(void);
/* User and system time of this process. */
double bench_cpu_s(void);

/* Tells whoever waits for it that everything stands: a line, flushed. */
void bench_ready(const struct bench_settings *set);

/* One run. false: out->error. Called by bench_run. */
bool bench_load(const struct bench_settings *set, struct bench_results *out);
bool bench_library(const struct bench_settings *set, struct bench_results *out);

/* Sets what has a name: "size", "window", ...; the value must live as long. false: no such name or value. */
bool bench_set(struct bench_settings *set, const char *name, const char *value);
/* HOST, HOST:PORT or [ADDRESS]:PORT, of a URL: what follows its "//". */
bool bench_set_address(struct bench_settings *set, const char *text, const char *default_port);

/* One run, printed. false: out->error says why. */
bool bench_run(struct bench_settings *set, struct bench_results *out);

#endif
