/* Histograms of times (bench_latency.h), filled by the runs of `lonelypsc bench` and printed by bench.c. */
#include "bench_latency.h"

#define SUB_BITS 3

static unsigned bucket_of(uint64_t ns)
{
    unsigned exponent;

    if (ns < (1u << SUB_BITS))
        return (unsigned)ns;
    exponent = 63u - (unsigned)__builtin_clzll(ns);
    return ((exponent - SUB_BITS + 1) << SUB_BITS) +
           ((unsigned)(ns >> (exponent - SUB_BITS)) & ((1u << SUB_BITS) - 1));
}

/* The middle of a bucket. */
static uint64_t middle_of(unsigned bucket)
{
    unsigned shift;

    if (bucket < (2u << SUB_BITS))
        return bucket;
    shift = (bucket >> SUB_BITS) - 1;
    return (((UINT64_C(1) << SUB_BITS) + (bucket & ((1u << SUB_BITS) - 1))) << shift) +
           ((UINT64_C(1) << shift) >> 1);
}

void bench_latency_add(struct bench_latency *l, uint64_t ns)
{
    l->counts[bucket_of(ns)]++;
    l->count++;
    if (ns > l->max_ns)
        l->max_ns = ns;
}

void bench_latency_merge(struct bench_latency *into, const struct bench_latency *l)
{
    for (unsigned i = 0; i < BENCH_LATENCY_BUCKETS; i++)
        into->counts[i] += l->counts[i];
    into->count += l->count;
    if (l->max_ns > into->max_ns)
        into->max_ns = l->max_ns;
}

uint64_t bench_latency_ns(const struct bench_latency *l, double part)
{
    double wanted = part * (double)l->count;
    uint64_t seen = 0;

    for (unsigned i = 0; i < BENCH_LATENCY_BUCKETS; i++) {
        seen += l->counts[i];
        if (l->counts[i] > 0 && (double)seen >= wanted)
            return middle_of(i) < l->max_ns ? middle_of(i) : l->max_ns;
    }
    return 0;
}
