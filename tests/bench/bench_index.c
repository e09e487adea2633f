/*
 * What a match costs, by what is stored, and what a subscription occupies. CPU time of the thread;
 * topics are drawn uniformly in an order fixed beforehand; one process a case, so that none finds
 * the heap of another.
 *
 * Usage: bench_index [name of a case]...
 */
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "index.h"

enum { KEY_MAX = 64, ORDER = 1 << 20 };

static uint64_t rng = 42;

static uint32_t draw(uint32_t below)
{
    rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((rng >> 33) % below);
}

static double cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Writes a number's text, or six letters that only the number decides. */
static void fill(char out[KEY_MAX], const char *format, uint32_t n)
{
    char word[7];
    uint32_t x = (n + 1) * 2654435761u;

    for (int i = 0; i < 6; i++, x /= 26)
        word[i] = (char)('a' + x % 26);
    word[6] = '\0';
    const char *at = strpbrk(format, "#%");
    if (at == NULL)
        snprintf(out, KEY_MAX, "%s", format);
    else if (*at == '#')
        snprintf(out, KEY_MAX, "%.*s%u%s", (int)(at - format), format, n, at + 1);
    else
        snprintf(out, KEY_MAX, "%.*s%s%s", (int)(at - format), format, word, at + 1);
}

static struct lonely_span text(const char *s)
{
    return (struct lonely_span){ (const uint8_t *)s, strlen(s) };
}

static void feed(struct index *index, enum store_kind kind, const char *format, uint32_t n,
                 uint32_t urls)
{
    struct store_feed f = index_feed(index);
    char key[KEY_MAX], url[KEY_MAX];

    f.load_begin(f.arg);
    for (uint32_t i = 0; i < n; i++) {
        fill(key, format, i);
        fill(url, "http://subscriber-#.example.org/v1/receive", i % urls);
        struct store_row row = { .kind = kind, .url = text(url), .key = text(key) };
        f.add(f.arg, &row);
    }
    f.load_end(f.arg);
}

static const struct bench_case {
    const char *name;
    enum store_kind kind;
    const char *format; /* of the keys: # a number, % a word */
    uint32_t n;
    uint32_t urls;
    const char *topic;
} cases[] = {
    { "exact-1", STORE_EXACT, "sensors/building/#/temp", 1, 1, "sensors/building/#/temp" },
    { "exact-1k", STORE_EXACT, "sensors/building/#/temp", 1000, 1000, "sensors/building/#/temp" },
    { "exact-1k-miss", STORE_EXACT, "sensors/building/#/temp", 1000, 1000, "sensors/house/#/temp" },
    { "exact-1M", STORE_EXACT, "sensors/building/#/temp", 1000000, 1000,
      "sensors/building/#/temp" },
    { "exact-1M-miss", STORE_EXACT, "sensors/building/#/temp", 1000000, 1000,
      "sensors/house/#/temp" },
    { "exact-1M-urls", STORE_EXACT, "sensors/building/#/temp", 1000000, 1000000,
      "sensors/building/#/temp" },
    { "prefix-100k", STORE_GLOB, "tenant/#/*", 100000, 1000, "tenant/#/inbox/new" },
    { "prefix-100k-miss", STORE_GLOB, "tenant/#/*", 100000, 1000, "sensors/building/#/temp" },
    { "prefix-100k-near", STORE_GLOB, "tenant/#/*", 100000, 1000, "tenant/x#/inbox/new" },
    { "shared-100k", STORE_GLOB, "tenant/*/cache/#", 100000, 1000, "tenant/7/cache/#" },
    { "shared-100k-near", STORE_GLOB, "tenant/*/cache/#", 100000, 1000, "tenant/7/cache/x#" },
    { "shared-100k-inside", STORE_GLOB, "tenant/*/cache/#/*", 100000, 1000, "tenant/7/cache/#/x" },
    { "star-10k", STORE_GLOB, "*/cache/#", 10000, 1000, "images/cache/#" },
    { "star-10k-miss", STORE_GLOB, "*/cache/#", 10000, 1000, "sensors/building/#/temp" },
    { "star-10k-near", STORE_GLOB, "*/cache/#", 10000, 1000, "images/cache/x#" },
    { "word-10k", STORE_GLOB, "*%*", 10000, 1000, "images/%/new" },
    { "word-10k-miss", STORE_GLOB, "*%*", 10000, 1000, "sensors/building/#/temp" },
    { "inside-10k-near", STORE_GLOB, "*/cache/#/*", 10000, 1000, "images/cache/x/#" },
    { "no-literal-1k", STORE_GLOB, "*[#]?", 1000, 1000, "sensors/building/#/temp" },
};

/* Nanoseconds a match, the best of some runs, and how many matched on average. */
static double match_ns(struct index *index, const struct bench_case *c, double *matched)
{
    char(*topics)[KEY_MAX] = malloc(ORDER * sizeof(*topics));
    uint32_t rounds = c->n >= 100000 ? ORDER : 200000;
    double best = 1e18;
    uint64_t count = 0;

    if (topics == NULL)
        abort();
    for (uint32_t i = 0; i < ORDER; i++)
        fill(topics[i], c->topic, draw(c->n));
    for (int run = 0; run < 5; run++) {
        double from = cpu_ns();
        count = 0;
        for (uint32_t i = 0; i < rounds; i++) {
            struct index_matches m;
            if (!index_match(index, text(topics[i]), UINT64_MAX, &m))
                abort();
            count += m.count;
            index_matches_release(&m);
        }
        double ns = (cpu_ns() - from) / rounds;
        best = ns < best ? ns : best;
    }
    free(topics);
    *matched = (double)count / rounds;
    return best;
}

static void run_case(const struct bench_case *c)
{
    struct index *index = index_create();
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    double from = cpu_ns(), matched;

    feed(index, c->kind, c->format, c->n, c->urls);
    double load_ns = (cpu_ns() - from) / c->n;
    size_t heap = mallinfo2().uordblks + mallinfo2().hblkhd - before;
    double ns = match_ns(index, c, &matched);
    printf("%-20s %8u %10.0f %9.2f %10.0f %10.0f %10.0f\n", c->name, c->n, ns, matched,
           (double)heap / c->n, (double)index_counts(index).bytes / c->n, load_ns);
    index_destroy(index);
}

/* The longest single change while a million topics are added and removed, one by one. */
static void run_growth(void)
{
    struct index *index = index_create();
    struct store_feed f = index_feed(index);
    double worst[2] = { 0, 0 }, total[2] = { 0, 0 };
    enum { N = 1000000 };
    char key[KEY_MAX];

    for (uint32_t i = 0; i < 2 * N; i++) {
        fill(key, "sensors/building/#/temp", i % N);
        struct store_row row = { .kind = STORE_EXACT, .url = text("u"), .key = text(key) };
        double from = cpu_ns();
        f.change_begin(f.arg);
        (i < N ? f.add : f.remove)(f.arg, &row);
        f.change_end(f.arg);
        double ns = cpu_ns() - from;
        total[i / N] += ns;
        worst[i / N] = ns > worst[i / N] ? ns : worst[i / N];
    }
    printf("\nadding 1M one by one: %.0f ns each, longest %.0f us; removing: %.0f ns, %.0f us\n",
           total[0] / N, worst[0] / 1e3, total[1] / N, worst[1] / 1e3);
    index_destroy(index);
}

/* A topic of 64 KiB, all of whose ends and grams must be looked up. */
static void run_longest_topic(void)
{
    static const char *const formats[] = { "*%*", "*x#?*", "*#?*", "%*", "*%" };
    struct index *index = index_create();
    struct store_feed f = index_feed(index);
    static uint8_t topic[65535];
    struct index_matches m;
    char key[KEY_MAX];

    for (size_t i = 0; i < sizeof(topic); i++)
        topic[i] = (uint8_t)('A' + draw(26));
    f.load_begin(f.arg);
    for (uint32_t i = 0; i < 100000; i++) {
        fill(key, formats[i % 5], i);
        struct store_row row = { .kind = STORE_GLOB, .url = text("u"), .key = text(key) };
        f.add(f.arg, &row);
    }
    f.load_end(f.arg);
    double from = cpu_ns();
    for (int i = 0; i < 100; i++) {
        index_match(index, (struct lonely_span){ topic, sizeof(topic) }, UINT64_MAX, &m);
        index_matches_release(&m);
    }
    printf("topic of 65,535 bytes against 100k globs of five shapes: %.0f us\n",
           (cpu_ns() - from) / 100 / 1e3);
    index_destroy(index);
}

static void in_child(void (*fn)(void), const struct bench_case *c)
{
    int status = 0;

    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (c != NULL)
            run_case(c);
        else
            fn();
        fflush(stdout);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        exit(1);
}

int main(int argc, char **argv)
{
    printf("%-20s %8s %10s %9s %10s %10s %10s\n", "case", "stored", "ns/match", "matched", "heap B",
           "counted B", "load ns");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool wanted = argc == 1;
        for (int k = 1; k < argc; k++)
            wanted = wanted || strcmp(argv[k], cases[i].name) == 0;
        if (wanted)
            in_child(NULL, &cases[i]);
    }
    if (argc == 1 || strcmp(argv[1], "limits") == 0) {
        in_child(run_growth, NULL);
        in_child(run_longest_topic, NULL);
    }
    return 0;
}
