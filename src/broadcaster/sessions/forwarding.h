/*
 * The broadcaster's own rows in the store: one for each topic and glob that any session of the process
 * is subscribed to, under the broadcaster's receive URL, so that its peers send it what its sessions
 * want. And the way of a message, or of a MISSED, to the sessions of all workers.
 * (doc/protocol/session.md, 5; doc/protocol/http.md, 10)
 *
 * Threads: a forwarding belongs to the process; every call on the loop of the worker that it names,
 * where its callback runs, too. While one is owed the worker is held.
 */
#ifndef FORWARDING_H
#define FORWARDING_H

#include <stdbool.h>
#include <stdint.h>

#include <lonely/span.h>

#include "body.h"
#include "store.h"
#include "worker.h"

struct forwarding;

/* `url`, `missed_url` (NULL: none): as peers reach us; copied. */
struct forwarding *forwarding_create(const char *url, const char *missed_url);
/* After the workers and the store. NULL is allowed. */
void forwarding_destroy(struct forwarding *f);

/* What the store is to be given in place of `inner`: tells `inner` everything, and notes what becomes of
 * our rows, whoever changes them. Before the store is opened. */
struct store_feed forwarding_feed(struct forwarding *f, const struct store_feed *inner);

/* Is that the URL of our own rows? */
bool forwarding_is_own(const struct forwarding *f, struct lonely_span url);
const char *forwarding_url(const struct forwarding *f);
const char *forwarding_missed_url(const struct forwarding *f); /* NULL: none */

/*
 * One more session wants this. STORE_OK once its row is stored durably, also when it was there; else
 * STORE_UNAVAILABLE and nothing is counted. `done` runs exactly once, possibly before this returns.
 */
void forwarding_add(struct forwarding *f, struct worker *w, enum store_kind kind,
                    struct lonely_span key, store_done_fn *done, void *arg);
/* One less, of those that were answered STORE_OK; the row goes with the last. STORE_OK, or
 * STORE_UNAVAILABLE: the row may have stayed, and the sweep sees to it. `done` NULL: nobody waits. */
void forwarding_remove(struct forwarding *f, struct worker *w, enum store_kind kind,
                       struct lonely_span key, store_done_fn *done, void *arg);

/* Puts back rows of ours that somebody deleted, and removes those that nobody wants any more. Called
 * every missed.sweep_missed_interval on one worker. */
void forwarding_sweep(struct forwarding *f, struct worker *w);
/* Orderly end: deletes all our rows; nothing is added any more. `done` runs once, at the latest when the
 * worker closes its store. */
void forwarding_end(struct forwarding *f, struct worker *w, void (*done)(void *arg), void *arg);

/* Hands the message to the sessions of every worker, each at most once. `done` gets how many took it;
 * possibly before this returns. Globs that take longer than about a millisecond are matched in the
 * thread pool, one message of a worker at a time. */
typedef void forwarding_count_fn(void *arg, uint32_t count);
void forwarding_deliver(struct forwarding *f, struct worker *w, struct lonely_span topic,
                        struct body *body, forwarding_count_fn *done, void *arg);
/* Does any session of the process want it, or is it about to, its row being stored? 0: none. */
void forwarding_match(struct forwarding *f, struct worker *w, struct lonely_span topic,
                      forwarding_count_fn *done, void *arg);
void forwarding_missed(struct forwarding *f, struct worker *w, struct lonely_span topic,
                       forwarding_count_fn *done, void *arg);

#endif
