/*
 * Used macs on their way into a database: the loops add, one thread writes them in batches. What a
 * batch that failed held comes again.
 */
#ifndef STORE_MAC_QUEUE_H
#define STORE_MAC_QUEUE_H

#include "store_request.h"

struct store_mac_queue {
    bool kept;                  /* else all of this does nothing */
    struct store_queue *writer; /* woken by the first that waits */
    uv_mutex_t lock;            /* guards what waits */
    struct store_mac *waiting;  /* from the loops */
    size_t n_waiting, waiting_cap, limit;
    /* The writing thread's own. */
    struct store_mac *writing;
    size_t n_writing, writing_cap;
    size_t at, n_batch; /* written so far; in the batch */
};

void store_mac_queue_init(struct store_mac_queue *q, const struct store_conf *conf,
                          struct store_queue *writer);
void store_mac_queue_fini(struct store_mac_queue *q);

/* Any thread. false: too many wait. */
bool store_mac_queue_add(struct store_mac_queue *q, const struct store_mac *mac);

/* Of the writing thread. */
bool store_mac_queue_waits(struct store_mac_queue *q); /* is there anything to write? */
/* Begins a batch of at most `max`; they live until it is done or the next one begins. */
size_t store_mac_queue_batch(struct store_mac_queue *q, size_t max, const struct store_mac **out);
/* Nothing was waiting behind the batch when it began. */
bool store_mac_queue_is_last(const struct store_mac_queue *q);
void store_mac_queue_done(struct store_mac_queue *q); /* the batch is written */

#endif
