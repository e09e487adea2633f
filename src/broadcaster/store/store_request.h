/*
 * What the backends share: a request (one call of store.h, with copies of its arguments), the
 * replies that wait for the loop that asked, and the bounded queue in which requests wait for a
 * thread of the store.
 */
#ifndef STORE_REQUEST_H
#define STORE_REQUEST_H

#include <stdatomic.h>

#include "list.h"
#include "store.h"

enum request_op {
    REQUEST_SUBSCRIBE = 1,
    REQUEST_UNSUBSCRIBE = 2,
    REQUEST_SET = 4,
    REQUEST_CHECK = 8,
    REQUEST_SYNC = 16,
    REQUEST_MISSED_UPSERT = 32,
    REQUEST_MISSED_LOCK = 64,
    REQUEST_MISSED_CLEAR = 128,
    REQUEST_MISSED_RETRY = 256
};
#define REQUEST_ANY 511u /* all of them, as a mask */

struct store_replies;

struct store_request {
    struct list node; /* in a queue, a thread's own list, or ready in replies */
    struct list owed; /* of its replies, from making to calling back */
    struct store_replies *replies;
    enum request_op op;
    uint64_t deadline_ms; /* monotonic; set by store_queue_push */

    /* The arguments; spans point into `data`. */
    struct store_row row; /* CHECK and SET: only url */
    struct lonely_span topic;
    uint32_t attempts;
    int64_t lock_id;
    int64_t due_s;                 /* MISSED_UPSERT, _RETRY: when; MISSED_LOCK: due until */
    int64_t lock_until_s;          /* MISSED_LOCK */
    const struct store_list *list; /* SET: the caller's */
    uint8_t *data;
    atomic_bool cancelled; /* the client closes: a long SET or CHECK ends early */

    /* The answer. */
    enum store_status status;
    uint8_t etag[64];
    struct store_missed missed; /* spans point into `missed_data` */
    uint8_t *missed_data;
    union {
        store_done_fn *done;
        store_etag_fn *etag;
        store_missed_fn *missed;
    } fn;
    void *arg;
};

/* One loop's side. Everything but store_request_answer is called on the loop's thread. */
struct store_replies {
    uv_async_t async;
    uv_mutex_t lock; /* guards `ready` */
    struct list ready;
    struct list owed; /* requests made and not yet called back */
    bool closing;
    void (*on_closed)(void *arg);
    void *arg;
};

bool store_replies_open(struct store_replies *o, uv_loop_t *loop);
/* Calls back what is owed, then `on_closed`; all of it later, from the loop. Marks the requests as
 * cancelled; others must see to it that every one is answered. */
void store_replies_close(struct store_replies *o, void (*on_closed)(void *arg), void *arg);

/* Spans of a request's arguments; what is not used stays empty. */
struct store_request_args {
    enum store_kind kind;
    struct lonely_span url, key, recovery, topic;
};

/* Makes a request with copies. When memory for them is out, the request comes with `data` NULL
 * and must be answered with STORE_UNAVAILABLE: store_request_lacks_memory. */
struct store_request *store_request_create(struct store_replies *o, enum request_op op,
                                           const struct store_request_args *args);
bool store_request_lacks_memory(const struct store_request *r);

/* Copies an item into the request's answer; false: no memory. */
bool store_request_keep_missed(struct store_request *r, const struct store_missed *item);

/* Gives the request back to its loop, which calls back and frees it. Any thread, once. */
void store_request_answer(struct store_request *r, enum store_status status);

/* Whole seconds for the database: rounded up, within what an INTEGER of ours may hold. */
int64_t store_seconds_up(double seconds);
int64_t store_seconds_down(double seconds);

/* Requests that wait for one thread. Any thread. */
struct store_queue {
    uv_mutex_t lock;
    uv_cond_t cond;
    struct list waiting; /* oldest first */
    size_t count, limit;
    uint64_t timeout_ms;
    bool stopping;
    bool nudged; /* there is work that is no request */
};

void store_queue_init(struct store_queue *q, size_t limit, uint64_t timeout_ms);
void store_queue_fini(struct store_queue *q);
bool store_queue_push(struct store_queue *q,
                      struct store_request *r); /* false: full; the caller answers */
/* Moves up to `max` requests of the ops in `mask` to `out`, oldest first; overdue ones are answered
 * with STORE_UNAVAILABLE instead. Returns how many were moved. */
size_t store_queue_take(struct store_queue *q, unsigned mask, size_t max, struct list *out);
/* Answers those that waited too long. Returns how many still wait. */
size_t store_queue_expire(struct store_queue *q);
/* Answers all requests of `o`. */
void store_queue_cancel(struct store_queue *q, const struct store_replies *o);
/* Waits until a request waits, or store_queue_nudge or _stop, or `wait_ms` passed. false: stopped. */
bool store_queue_wait(struct store_queue *q, uint64_t wait_ms);
void store_queue_nudge(struct store_queue *q);
void store_queue_stop(struct store_queue *q);

/* Answers all of a thread's own list. */
void store_requests_answer(struct list *requests, enum store_status status);

#endif
