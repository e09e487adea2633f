/*
 * Computes the strong etag of a url's subscriptions, as CHECK_SUBSCRIPTIONS returns it and
 * SET_SUBSCRIPTIONS carries it.
 *
 *     compute_etag URL RECOVERY [TOPIC]... [-- GLOB...]
 *
 * RECOVERY is the recovery url of all of them; empty for none.
 * Build: cc compute_etag.c $(pkg-config --cflags --libs lonelypsp)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lonely/etag.h>

static struct lonely_span span_of(const char *text)
{
    return (struct lonely_span){ (const uint8_t *)text, strlen(text) };
}

/* strcmp compares as unsigned bytes, a prefix first: the order that the etag wants. */
static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All topics first, then all globs, each in ascending order and without duplicates. */
static enum lonely_error compute(struct lonely_etag *e, char **topics, size_t n_topics,
                                 char **globs, size_t n_globs, const char *url,
                                 const char *recovery, uint8_t etag[LONELY_ETAG_BYTES])
{
    enum lonely_error err = lonely_etag_init(e, span_of(url));

    qsort(topics, n_topics, sizeof *topics, by_bytes);
    qsort(globs, n_globs, sizeof *globs, by_bytes);
    for (size_t i = 0; i < n_topics && err == LONELY_OK; i++)
        err = lonely_etag_add_topic(e, span_of(topics[i]), span_of(recovery));
    for (size_t i = 0; i < n_globs && err == LONELY_OK; i++)
        err = lonely_etag_add_glob(e, span_of(globs[i]), span_of(recovery));
    return err == LONELY_OK ? lonely_etag_final(e, etag) : err;
}

int main(int argc, char **argv)
{
    static struct lonely_etag e; /* 64 KiB: not on the stack */
    uint8_t etag[LONELY_ETAG_BYTES];
    enum lonely_error err;
    int dashes = 3, globs;

    if (argc < 3) {
        fprintf(stderr, "usage: %s URL RECOVERY [TOPIC]... [-- GLOB...]\n", argv[0]);
        return 2;
    }
    while (dashes < argc && strcmp(argv[dashes], "--") != 0)
        dashes++;
    globs = dashes < argc ? dashes + 1 : argc;

    err = compute(&e, argv + 3, (size_t)(dashes - 3), argv + globs, (size_t)(argc - globs), argv[1],
                  argv[2], etag);
    if (err != LONELY_OK) {
        fprintf(stderr, "compute_etag: %s\n", lonely_error_str(err));
        return 1;
    }
    for (size_t i = 0; i < sizeof etag; i++)
        printf("%02x", (unsigned)etag[i]);
    putchar('\n');
    return 0;
}
