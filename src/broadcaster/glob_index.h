/*
 * Globs and their subscribers, found by what they have in common with a topic, so that a match
 * tries few patterns that do not match.
 *
 * Every pattern hangs from one anchor, something that each topic it matches has: the pattern's
 * literal beginning, its literal end, or a gram: eight (else four, three, two, one) bytes somewhere
 * inside; only patterns without any literal are tried on every topic. Of the anchors that a pattern offers it
 * takes the one at which few others hang already, so that a million patterns that begin alike
 * spread over what distinguishes them.
 */
#ifndef GLOB_INDEX_H
#define GLOB_INDEX_H

#include <stdbool.h>

#include <lonely/glob.h>

#include "index_table.h"
#include "subscribers.h"

enum { GLOB_GRAM_MAX = 8 };

/* One pattern, whatever the number of its subscribers. */
struct glob {
    struct glob *next, *prev; /* at the same anchor */
    struct subscribers subscribers;
    uint64_t anchor;       /* hash */
    uint32_t anchor_len;   /* of a prefix, suffix or gram */
    uint32_t anchor_count; /* how many hang there; valid in the first of them */
    uint8_t anchor_kind;
    uint32_t len;
    struct lonely_glob compiled; /* views into `text` */
    uint8_t text[];
};

/* Which lengths of prefixes or suffixes are in use: ascending. */
struct glob_lengths {
    struct glob_length {
        uint32_t len, users;
    } * items;
    size_t count, cap;
};

struct glob_index {
    struct index_table globs;   /* by the hash of the text */
    struct index_table anchors; /* by their hash; items are the first glob of each */
    struct glob_lengths prefixes, suffixes;
    size_t grams[GLOB_GRAM_MAX + 1]; /* globs that hang from a gram, by its length */
    uint8_t *gram_filter; /* the anchors that are grams, counted by some bits of their hash */
    size_t gram_anchors;
    uint64_t secret[4];
    size_t bytes;
};

/* Zeroed before; `secret` is 32 random bytes, so that a peer cannot steer where patterns go. */
void glob_index_init(struct glob_index *g, const uint8_t secret[32]);
void glob_index_fini(struct glob_index *g); /* releases the subscriptions */

/* As subscribers_put and subscribers_take. `hash` is the keyed hash of the pattern's bytes. */
struct subscription *glob_index_put(struct glob_index *g, struct subscriber_places *places,
                                    uint64_t hash, struct subscription *s);
struct subscription *glob_index_take(struct glob_index *g, struct subscriber_places *places,
                                     uint64_t hash, const struct subscription *like);

/* Called for a pattern that may match; false ends the search. */
typedef bool glob_candidate_fn(void *arg, const struct glob *glob);

/*
 * Every pattern that may match `text`, a topic as globs see it, once. Looking costs steps, too
 * (about a nanosecond each). False: `fn` said so, or the steps are used up.
 */
bool glob_index_search(const struct glob_index *g, struct lonely_span text, uint64_t *steps,
                       glob_candidate_fn *fn, void *arg);

#endif
