/*
 * Glob patterns over topics, with the verdicts of SQLite's GLOB.       (doc/protocol/http.md, 8)
 *
 *   *      any number of code points        [abc] [a-z]  one of these
 *   ?      exactly one                      [^abc]       one that is none of these
 *
 * The whole topic must match; there are no separators, no escapes and no case folding. Pattern and
 * topic end at their first NUL; U+FFFE and U+FFFF count as U+FFFD. Only topics that are UTF-8
 * match.
 *
 * A pattern is analysed once and matched many times, and so is a topic. Nothing allocates and
 * nothing is global: the structs may be shared by threads as long as nobody writes them.
 *
 * Time: patterns of literals and `*` take time linear in pattern and topic. With `?` or sets behind
 * a `*` it is at worst the product of the two lengths (never exponential), which is seconds for two
 * strings of 65,535 bytes; so a match can be done in portions.
 */
#ifndef LONELY_GLOB_H
#define LONELY_GLOB_H

#include <stdbool.h>

#include <lonely/error.h>
#include <lonely/span.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Most bytes of a pattern. */
#define LONELY_GLOB_MAX_BYTES 65535

/** An analysed pattern: views into the caller's bytes, which must outlive it. Read only. */
struct lonely_glob {
    struct lonely_span pattern; /**< up to its first NUL */

    /**
     * Bytes with which every matching topic starts and ends: literals without U+FFFD to U+FFFF
     * (which match bytes other than their own). They do not overlap. When the pattern is all
     * literal, `prefix` is the whole and `suffix` is empty.
     */
    struct lonely_span prefix;
    struct lonely_span suffix;

    uint32_t min_len; /**< fewest bytes of a matching topic */
    bool never;       /**< a set is not closed: nothing matches */
    bool literal;     /**< nothing but `prefix`: matches the topic text that equals it */
    bool plain;       /**< between prefix and suffix are only `*` and literals, of the kind above */
};

/**
 * Analyses a pattern; linear time.
 *
 * @return LONELY_OK, LONELY_E_UTF8 (a NUL does not hide what follows) or LONELY_E_FIELD_SIZE (over
 *         65,535 bytes); `out` is filled on LONELY_OK only
 */
LONELY_API enum lonely_error lonely_glob_compile(struct lonely_span pattern,
                                                 struct lonely_glob *out);

/** A topic as globs see it: up to its first NUL, a view into the caller's bytes. */
struct lonely_glob_topic {
    struct lonely_span text;
};

/** Prepares a topic. False: it is not UTF-8, no glob matches it, and `out` is not filled. */
LONELY_API bool lonely_glob_topic_init(struct lonely_span topic, struct lonely_glob_topic *out);

enum lonely_glob_verdict {
    LONELY_GLOB_NO_MATCH,
    LONELY_GLOB_MATCH,
    LONELY_GLOB_MORE /**< the steps are used up: call again with the same arguments */
};

/**
 * Where a match stands. Zero it (`= { 0 }`) to start; a final verdict makes it zero again, so that
 * the next match may use it. May be moved to another thread. Private.
 */
struct lonely_glob_state {
    bool started;
    uint32_t pattern_at, topic_at;   /**< offsets of the next code points */
    uint32_t star_at, star_topic_at; /**< where to retry from; star_at 0: no `*` yet */
};

/**
 * Matches, or continues to.
 *
 * @param state  zero before the first call of a match, and after its last: MATCH or NO_MATCH. NULL:
 *               not to be continued (then `steps` must be NULL or suffice, and LONELY_GLOB_MORE
 *               means that it is unknown)
 * @param steps  in: how many may be done (a step is a byte looked at: a nanosecond, ten at worst);
 *               out: what is left. NULL: no limit. A call may exceed it by the length of the
 *               topic and the pattern, and with at least 1 it always gets further
 */
LONELY_API enum lonely_glob_verdict lonely_glob_match(const struct lonely_glob *glob,
                                                      const struct lonely_glob_topic *topic,
                                                      struct lonely_glob_state *state,
                                                      uint64_t *steps);

/** The verdict on two byte strings, analysed here and without limit; false if either is refused. */
LONELY_API bool lonely_glob_matches(struct lonely_span pattern, struct lonely_span topic);

/**
 * Walks the literal runs of a pattern, for an index of patterns: byte strings that every matching
 * topic contains, in this order and without overlap (`prefix` first, `suffix` last if there are
 * such). U+FFFD to U+FFFF, `?`, `*` and sets end a run, bytes after a NUL are not in one; a run has
 * at least one byte and holds whole code points. A pattern with `never` has none.
 *
 *     size_t at = 0;
 *     while (lonely_glob_next_literal(&glob, &at, &run))
 *         ...
 *
 * @param at   0 before the first call; advanced
 * @param run  a view into the pattern
 * @return false when there is no further run
 */
LONELY_API bool lonely_glob_next_literal(const struct lonely_glob *glob, size_t *at,
                                         struct lonely_span *run);

#ifdef __cplusplus
}
#endif

#endif
