/*
 * What the tests of the index share: rows in, matches counted.
 */
#ifndef INDEX_FIXTURE_H
#define INDEX_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "index.h"
#include "tables.h"

/* As LIT, for static tables. */
#define TEXT(s)                             \
    {                                       \
        (const uint8_t *)(s), sizeof(s) - 1 \
    }

static inline struct lonely_span span(const char *s)
{
    return (struct lonely_span){ (const uint8_t *)s, strlen(s) };
}

static inline struct store_row row_of(enum store_kind kind, const char *url, const char *key,
                                      const char *recovery)
{
    return (struct store_row){ kind, span(url), span(key), span(recovery) };
}

static inline void feed_one(struct index *index, bool add, struct store_row row)
{
    struct store_feed f = index_feed(index);

    f.change_begin(f.arg);
    (add ? f.add : f.remove)(f.arg, &row);
    f.change_end(f.arg);
}

static inline void add(struct index *index, enum store_kind kind, const char *url, const char *key)
{
    feed_one(index, true, row_of(kind, url, key, ""));
}

/* How many match, under a budget that must suffice. */
static inline size_t match_count(struct index *index, struct lonely_span topic, uint64_t max_steps)
{
    struct index_matches m;

    assert_true(index_match(index, topic, max_steps, &m));
    size_t n = m.count;
    index_matches_release(&m);
    return n;
}

#endif
