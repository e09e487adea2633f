/*
 * The subscriptions in memory, for matching: exact topics in a hash table, globs by their literal
 * parts, so that the cost of a match grows with what matches, not with what is stored. Fed by the
 * store (store_feed), read by every worker.
 *
 * Threads: index_match from any thread, at any time; it waits at most for a change being applied,
 * never for a database. A whole load is prepared beside the old content and swapped in.
 */
#ifndef INDEX_H
#define INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <lonely/span.h>

#include "store.h"

/* A url or recovery url, shared by the subscriptions that have it; immutable. */
struct index_url {
    atomic_uint refs;
    uint32_t users; /* subscriptions in the index that share it; the index's own */
    uint32_t len;
    char text[]; /* `len` bytes and a NUL; may hold other NULs */
};

/* One subscription, immutable and counted. */
struct subscription {
    atomic_uint refs;
    enum store_kind kind;
    struct index_url *url;
    struct index_url *recovery; /* NULL: none */
    struct lonely_span key;     /* topic or glob, stored behind this structure */
};

void subscription_ref(struct subscription *s);
void subscription_unref(struct subscription *s); /* NULL is allowed */

struct index;

struct index *index_create(void);
void index_destroy(struct index *index); /* matches given out stay valid until released */

/* The index as the store sees it. */
struct store_feed index_feed(struct index *index);

/* What matched: exacts first, then globs. Each holds a reference. */
struct index_matches {
    struct subscription **items;
    size_t count;
};

/*
 * All subscriptions that match `topic` now. At most `max_steps` steps are spent on globs (a step is
 * about a nanosecond's worth of work); when they do not suffice returns false with nothing in
 * `out`: the caller repeats with index_match_long in the thread pool.
 */
bool index_match(struct index *index, struct lonely_span topic, uint64_t max_steps,
                 struct index_matches *out);
/*
 * The same without a limit, for a thread that may take its time: patterns and topics can be made that take
 * minutes. Returns false with nothing in `out` soon after `*stop` has become true.
 */
bool index_match_long(struct index *index, struct lonely_span topic, const atomic_bool *stop,
                      struct index_matches *out);
void index_matches_release(struct index_matches *matches);

struct index_counts {
    uint64_t exacts, globs, urls;
    uint64_t bytes; /* about what the index occupies */
};
struct index_counts index_counts(struct index *index);

#endif
