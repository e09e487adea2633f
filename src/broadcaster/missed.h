/*
 * MISSED: after a failed delivery the subscription's recovery URL is told, again and again with growing
 * pauses, until it confirms or the retries are used up. The subscription itself always stays.
 * (doc/protocol/http.md, 4 and 11)
 *
 * Threads: everything on the worker's loop. One worker of a process sweeps.
 */
#ifndef MISSED_H
#define MISSED_H

#include <stdbool.h>

#include "conf.h"
#include "store.h"
#include "worker.h"

/* Seconds until the try after `attempts` failed ones; `random` is from [0, 1). false: no more tries. */
bool missed_delay(const struct conf *conf, uint32_t attempts, double random, double *delay_s);

/* Notes that `row` missed a message on `topic`. `done` runs once the store has it. false: nothing is to be
 * noted, `done` will not run. */
bool missed_schedule(struct worker *w, const struct store_row *row, struct lonely_span topic,
                     store_done_fn *done, void *arg);

struct missed_sweeper;

/* Starts sweeping every missed.sweep_missed_interval. */
struct missed_sweeper *missed_sweeper_create(struct worker *w);

/* Starts no further sweep or call; what is under way ends first (its holds keep the worker). Then, once the
 * loop has run its closing callbacks, the sweeper frees itself. */
void missed_sweeper_close(struct missed_sweeper *sweeper);

/* Calls under way. */
size_t missed_sweeper_calls(const struct missed_sweeper *s);

#endif
