/*
 * Times, counted in buckets each an eighth of a power of two wide: whatever their range, percentiles are
 * right to a few per cent, and counting one costs nothing.
 */
#ifndef CLI_BENCH_LATENCY_H
#define CLI_BENCH_LATENCY_H

#include <stdint.h>

#define BENCH_LATENCY_BUCKETS 512

/* Zeroed: empty. One thread at a time. */
struct bench_latency {
    uint64_t counts[BENCH_LATENCY_BUCKETS];
    uint64_t count, max_ns;
};

void bench_latency_add(struct bench_latency *l, uint64_t ns);
void bench_latency_merge(struct bench_latency *into, const struct bench_latency *l);
/* The time that the share `part` (0 to 1) of all were below; 0 when there is none. */
uint64_t bench_latency_ns(const struct bench_latency *l, double part);

#endif
