/*
 * A client of the store that measures: how long each call takes, which fail, how many wait. It is
 * called through store_meter_ops like any other; the backend does the work.
 *
 * Threads: everything on the client's loop.
 */
#ifndef STORE_METER_H
#define STORE_METER_H

#include "clock.h"
#include "metrics.h"
#include "store.h"

/* Of these open, close and client_open are NULL: they are the backend's. */
extern const struct store_ops store_meter_ops;

/* Opens a client of the backend behind one that measures. `metrics` is the loop's thread's; all are
 * borrowed until the client is closed. */
bool store_meter_open(const struct store_ops *backend, struct store *store, uv_loop_t *loop,
                      const struct clock *clock, struct metrics *metrics, struct store_client **out,
                      char error[256]);

/* Asks for a write that changes nothing: STORE_UNAVAILABLE when none is possible, else STORE_OK. */
void store_meter_probe(struct store_client *c, store_done_fn *done, void *arg);

#endif
