/*
 * Could a request be served now? Asks the store for a read and a write and the spool folder for a file,
 * waits for database.timeout at most, and keeps the answer for a second. Those who ask meanwhile share it.
 *
 * Threads: everything on the loop of the admin listener.
 */
#ifndef READINESS_H
#define READINESS_H

#include <stdbool.h>
#include <uv.h>

#include "broadcaster.h"
#include "list.h"
#include "store.h"

/* `reasons`: a line for each that makes it not ready, empty when it is; dies on return. */
typedef void readiness_done_fn(void *arg, const char *reasons);

struct readiness_part {
    const char *reason; /* the line when it is not good */
    bool running;       /* the answer is still due, perhaps from an earlier look */
    bool good;          /* what the last answer said */
};

enum { READINESS_STORE, READINESS_SPOOL, READINESS_PARTS };

struct readiness {
    struct broadcaster *b;
    uv_loop_t *loop;
    struct store_client *store;
    uv_timer_t timer;
    uv_work_t work;
    bool spool_good; /* the pool's answer */
    struct readiness_part parts[READINESS_PARTS];
    struct list waiting;
    bool looking, looked, closed;
    uint64_t looked_at_ms;
    char reasons[256]; /* of the last look */
};

/* `store`: a client that measures (store_meter.h). Must live until the loop has run out. */
void readiness_init(struct readiness *r, struct broadcaster *b, uv_loop_t *loop,
                    struct store_client *store);

/* `done` runs once, possibly before this returns. */
void readiness_ask(struct readiness *r, readiness_done_fn *done, void *arg);

/* Answers those who wait. The store is to be closed after this. */
void readiness_close(struct readiness *r);

#endif
