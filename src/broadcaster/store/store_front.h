/*
 * The front that backends with queues share: a client whose calls become requests. A backend embeds
 * the client as the first member of its own, and puts the functions below into its store_ops.
 */
#ifndef STORE_FRONT_H
#define STORE_FRONT_H

#include "store_request.h"

struct store_client {
    struct store *store;
    struct store_replies replies;
    uint64_t missed_lock_s;
    /* Queues a request, which has its data and belongs to a client that is not closing. false: no
     * room. */
    bool (*submit)(struct store_client *c, struct store_request *r);
    void (*on_closed)(void *arg); /* the caller's */
    void *arg;
};

void store_front_subscribe(struct store_client *c, const struct store_row *row, store_done_fn *done,
                           void *arg);
void store_front_unsubscribe(struct store_client *c, const struct store_row *row,
                             store_done_fn *done, void *arg);
void store_front_set(struct store_client *c, struct lonely_span url, const struct store_list *list,
                     store_done_fn *done, void *arg);
void store_front_check(struct store_client *c, struct lonely_span url, store_etag_fn *done,
                       void *arg);
void store_front_missed_upsert(struct store_client *c, const struct store_row *row,
                               struct lonely_span topic, uint32_t attempts, double next_retry_at,
                               store_done_fn *done, void *arg);
void store_front_missed_lock(struct store_client *c, double now, store_missed_fn *done, void *arg);
void store_front_missed_clear(struct store_client *c, const struct store_missed *item,
                              store_done_fn *done, void *arg);
void store_front_missed_retry(struct store_client *c, const struct store_missed *item,
                              uint32_t attempts, double next_retry_at, store_done_fn *done,
                              void *arg);

/* A SYNC (also of macs) that a thread must do. */
void store_front_sync(struct store_client *c, store_done_fn *done, void *arg);

#endif
