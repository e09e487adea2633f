/*
 * Globs matched and etag rows hashed a second.
 *
 * Method: one thread. A glob line matches one analysed pattern against 64 prepared topics in turn,
 * for a fifth of a second, five times; the best turn counts. `compile` analyses the pattern instead.
 * Steps are what lonely_glob_match() took off its budget for a match: the broadcaster counts on a
 * step being about a nanosecond. An etag line hashes 100,000 rows five times, the same way.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <lonely/etag.h>
#include <lonely/glob.h>

#define TOPICS 64
#define TURNS  5
#define TURN_S 0.2
#define ROWS   100000

static uint8_t topic_bytes[TOPICS][65535];
static struct lonely_glob_topic topics[TOPICS];
static unsigned long sink; /* keeps results alive */

static double now_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Topics like "sensors/17/temperature", or `len` times the letter a. */
static void make_topics(size_t len)
{
    for (int i = 0; i < TOPICS; i++) {
        struct lonely_span s = { topic_bytes[i], len };

        if (len > 0)
            memset(topic_bytes[i], 'a', len);
        else
            s.len = (size_t)sprintf((char *)topic_bytes[i], "sensors/%d/%s", i * 37,
                                    i % 2 ? "temperature" : "humidity");
        if (!lonely_glob_topic_init(s, &topics[i]))
            abort();
    }
}

static double matches_per_s(const struct lonely_glob *g, double *steps)
{
    double best = 0;

    for (int turn = 0; turn < TURNS; turn++) {
        uint64_t left = UINT64_MAX;
        double start = now_s(), took;
        unsigned n = 0;

        do {
            for (int i = 0; i < TOPICS; i++)
                sink += lonely_glob_match(g, &topics[i], NULL, &left) == LONELY_GLOB_MATCH;
            n += TOPICS;
            took = now_s() - start;
        } while (took < TURN_S);
        best = n / took > best ? n / took : best;
        *steps = (double)(UINT64_MAX - left) / n;
    }
    return best;
}

static double compiles_per_s(struct lonely_span pattern)
{
    double start = now_s(), took;
    unsigned n = 0;

    do {
        struct lonely_glob g;

        for (int i = 0; i < TOPICS; i++)
            sink += lonely_glob_compile(pattern, &g) == LONELY_OK;
        n += TOPICS;
        took = now_s() - start;
    } while (took < TURN_S);
    return n / took;
}

static void bench_pattern(const char *name, struct lonely_span pattern)
{
    struct lonely_glob g;
    double steps, per_s;

    if (lonely_glob_compile(pattern, &g) != LONELY_OK)
        abort();
    per_s = matches_per_s(&g, &steps);
    printf("%-34s %13.0f %11.1f %13.1f %13.0f\n", name, per_s, 1e9 / per_s, steps,
           compiles_per_s(pattern));
}

/* Patterns of long strings: `*`, then a run of a with what never comes at its end. */
static void bench_hostile(const char *name, size_t pattern_len, const char *end)
{
    static uint8_t pattern[65535];

    memset(pattern, 'a', pattern_len);
    pattern[0] = '*';
    memcpy(pattern + pattern_len - strlen(end), end, strlen(end));
    bench_pattern(name, (struct lonely_span){ pattern, pattern_len });
}

static double rows_per_s(size_t key_len, size_t recovery_len)
{
    static struct lonely_etag e;
    static uint8_t recovery[256];
    uint8_t etag[LONELY_ETAG_BYTES];
    double best = 0;

    for (int turn = 0; turn < TURNS; turn++) {
        double start = now_s(), took;

        if (lonely_etag_init(&e, (struct lonely_span){ recovery, 40 }) != LONELY_OK)
            abort();
        for (unsigned i = 0; i < ROWS; i++) {
            uint8_t key[256] = { (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i };

            if (lonely_etag_add_topic(&e, (struct lonely_span){ key, key_len },
                                      (struct lonely_span){ recovery, recovery_len }) != LONELY_OK)
                abort();
        }
        if (lonely_etag_final(&e, etag) != LONELY_OK)
            abort();
        took = now_s() - start;
        best = ROWS / took > best ? ROWS / took : best;
    }
    return best;
}

int main(void)
{
    static const char *const patterns[] = { "sensors/407/temperature",
                                            "sensors/*",
                                            "*/temperature",
                                            "sensors/*/temperature",
                                            "*7*/*hum*",
                                            "other/*",
                                            "sensors/?/*",
                                            "sensors/[0-9]*/temp*",
                                            "*[^x]er?ture" };

    printf("%-34s %13s %11s %13s %13s\n", "topics of about 20 bytes", "matches/s", "ns/match",
           "steps/match", "compiles/s");
    make_topics(0);
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        bench_pattern(patterns[i],
                      (struct lonely_span){ (const uint8_t *)patterns[i], strlen(patterns[i]) });
    printf("topics of 16,000 times a\n");
    make_topics(16000);
    bench_hostile("* 200 a b *", 203, "b*");
    bench_hostile("* 1,000 a b *", 1003, "b*");
    bench_hostile("* 200 a b ?", 203, "b?");
    bench_hostile("* 200 a [b]", 204, "[b]");
    printf("\n%-34s %13s\n", "etag", "rows/s");
    printf("%-34s %13.0f\n", "topics of 16 bytes, no recovery", rows_per_s(16, 0));
    printf("%-34s %13.0f\n", "topics of 32, recovery of 40", rows_per_s(32, 40));
    printf("%-34s %13.0f\n", "topics of 128, recovery of 200", rows_per_s(128, 200));
    return sink == 0;
}
