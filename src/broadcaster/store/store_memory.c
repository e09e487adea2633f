/*
 * The memory backend behind store.h, for tests and embedding: nothing survives. One thread owns the
 * rows and does one request after the other; SET and CHECK, which may be long, take turns with the
 * rest. Every change reaches the feed before it is answered, so sync has nothing to do.
 */
#include <lonely/etag.h>

#include <stdio.h>

#include "mem.h"
#include "memory_rows.h"
#include "store_front.h"
#include "store_place.h"

#define TURN_ROWS    1000 /* of a SET or CHECK, before others have their turn */
#define IDLE_WAIT_MS 10000

struct store {
    struct store_feed feed;
    struct store_queue queue;
    struct memory_rows rows;
    struct list pending; /* memory_row, those with a pending MISSED */
    struct list jobs;    /* SET and CHECK under way */
    uint64_t missed_lock_s;
    int64_t last_lock_id;
    uv_thread_t thread;
};

/* A SET or CHECK under way: `place` is how far it got. */
struct job {
    struct list node;
    struct store_request *request;
    struct store_place place;
    struct lonely_etag *etag; /* CHECK */
    bool has_row, list_ended; /* SET: `row` was read from the list and not yet treated */
    struct store_row row;
};

/* --- changes -------------------------------------------------------------------------------- */

static void tell_added(struct store *s, const struct memory_row *r)
{
    s->feed.change_begin(s->feed.arg);
    s->feed.add(s->feed.arg, &r->row);
    s->feed.change_end(s->feed.arg);
}

static enum store_status do_insert(struct store *s, const struct store_row *row)
{
    struct memory_row *r = memory_rows_find(&s->rows, row);

    if (r != NULL)
        return STORE_CONFLICT;
    r = memory_rows_insert(&s->rows, row);
    if (r == NULL)
        return STORE_UNAVAILABLE;
    tell_added(s, r);
    return STORE_OK;
}

static void do_remove(struct store *s, struct memory_row *r)
{
    s->feed.change_begin(s->feed.arg);
    s->feed.remove(s->feed.arg, &r->row);
    s->feed.change_end(s->feed.arg);
    memory_rows_remove(&s->rows, r);
}

static enum store_status run_unsubscribe(struct store *s, const struct store_row *row)
{
    struct memory_row *r = memory_rows_find(&s->rows, row);

    if (r == NULL)
        return STORE_NOT_FOUND;
    do_remove(s, r);
    return STORE_OK;
}

/* --- MISSED --------------------------------------------------------------------------------- */

static void unlock_row(struct memory_row *r)
{
    r->lock_id = 0;
    r->lock_until_s = 0;
}

static enum store_status run_missed_upsert(struct store *s, const struct store_request *q)
{
    struct memory_row *r = memory_rows_find(&s->rows, &q->row);

    if (r == NULL)
        return STORE_OK;
    if (q->row.kind == STORE_GLOB && !memory_span_set(&r->topic, q->topic))
        return STORE_UNAVAILABLE;
    r->attempts = q->attempts;
    r->due_s = q->due_s;
    unlock_row(r);
    if (!list_is_linked(&r->pending))
        list_push_back(&s->pending, &r->pending);
    return STORE_OK;
}

static struct memory_row *oldest_due(struct store *s, int64_t now_s)
{
    struct memory_row *oldest = NULL;

    list_foreach (&s->pending, node, next) {
        struct memory_row *r = list_entry(node, struct memory_row, pending);

        if (r->due_s <= now_s && (r->lock_id == 0 || r->lock_until_s <= now_s) &&
            r->row.recovery.len > 0 && (oldest == NULL || r->due_s < oldest->due_s))
            oldest = r;
    }
    return oldest;
}

static enum store_status run_missed_lock(struct store *s, struct store_request *q)
{
    struct memory_row *r = oldest_due(s, q->due_s);
    struct store_missed item;

    if (r == NULL)
        return STORE_NOT_FOUND;
    item = (struct store_missed){ .kind = r->row.kind,
                                  .url = r->row.url,
                                  .key = r->row.key,
                                  .recovery = r->row.recovery,
                                  .topic = r->row.kind == STORE_EXACT ? r->row.key : r->topic,
                                  .attempts = r->attempts,
                                  .lock_id = s->last_lock_id + 1 };
    if (!store_request_keep_missed(q, &item))
        return STORE_UNAVAILABLE;
    r->lock_id = ++s->last_lock_id; /* nobody else knows this store: a counter is enough */
    r->lock_until_s = q->lock_until_s;
    return STORE_OK;
}

static enum store_status run_missed_end(struct store *s, const struct store_request *q)
{
    struct memory_row *r = memory_rows_find(&s->rows, &q->row);

    if (r == NULL || r->lock_id == 0 || r->lock_id != q->lock_id)
        return STORE_CONFLICT;
    unlock_row(r);
    if (q->op == REQUEST_MISSED_CLEAR) {
        list_remove(&r->pending);
    } else {
        r->attempts = q->attempts;
        r->due_s = q->due_s;
    }
    return STORE_OK;
}

/* --- SET and CHECK -------------------------------------------------------------------------- */

static void start_job(struct store *s, struct store_request *request)
{
    struct job *j = mem_calloc(1, sizeof *j);

    list_init(&j->node);
    j->request = request;
    if (request->op == REQUEST_CHECK) {
        j->etag = mem_calloc(1, sizeof *j->etag);
        if (lonely_etag_init(j->etag, request->row.url) != LONELY_OK) {
            mem_free(j->etag);
            mem_free(j);
            store_request_answer(request, STORE_UNAVAILABLE);
            return;
        }
    }
    list_push_back(&s->jobs, &j->node);
}

static void end_job(struct job *j, enum store_status status)
{
    store_request_answer(j->request, status);
    mem_free(j->etag);
    store_place_fini(&j->place);
    mem_free(j);
}

/* The first row of the job's url behind its place, or NULL. */
static struct memory_row *row_at_place(struct store *s, const struct job *j)
{
    struct store_row at = { .kind = j->place.kind,
                            .url = j->request->row.url,
                            .key = { j->place.key, j->place.len } };
    struct memory_row *r = memory_rows_seek(&s->rows, &at, j->place.is_behind);

    return r != NULL && store_span_compare(r->row.url, at.url) == 0 ? r : NULL;
}

/* STORE_PENDING: there is more to do. */
static enum store_status check_turn(struct store *s, struct job *j)
{
    struct memory_row *r = row_at_place(s, j);

    for (int n = 0; n < TURN_ROWS; n++) {
        enum lonely_error err;
        struct memory_row *next;

        if (r == NULL)
            return lonely_etag_final(j->etag, j->request->etag) == LONELY_OK ? STORE_OK
                                                                             : STORE_UNAVAILABLE;
        err = r->row.kind == STORE_EXACT
                  ? lonely_etag_add_topic(j->etag, r->row.key, r->row.recovery)
                  : lonely_etag_add_glob(j->etag, r->row.key, r->row.recovery);
        if (err != LONELY_OK || !store_place_set(&j->place, r->row.kind, r->row.key))
            return STORE_UNAVAILABLE;
        next = r->next[0];
        r = next != NULL && store_span_compare(next->row.url, j->request->row.url) == 0 ? next
                                                                                        : NULL;
    }
    return STORE_PENDING;
}

/* Reads the next entry of the list unless one is still untreated. false: it cannot be read, or is
 * not sorted. */
static bool read_list(struct job *j)
{
    const struct store_list *list = j->request->list;
    struct store_row last = { .kind = j->row.kind };
    struct lonely_span key;
    int got;

    if (j->has_row || j->list_ended)
        return true;
    got = list->next(list->arg, &j->row);
    if (got < 0)
        return false;
    j->has_row = got == 1;
    j->list_ended = got == 0;
    key = (struct lonely_span){ j->place.key, j->place.len };
    last = (struct store_row){ .kind = j->place.kind, .key = key };
    j->row.url = j->request->row.url;
    return !j->has_row || !j->place.is_behind || store_row_compare(&last, &j->row) < 0;
}

static enum store_status set_recovery(struct store *s, struct memory_row *r,
                                      const struct store_row *row)
{
    if (store_span_compare(r->row.recovery, row->recovery) == 0)
        return STORE_OK;
    if (!memory_span_set(&r->row.recovery, row->recovery))
        return STORE_UNAVAILABLE;
    tell_added(s, r);
    return STORE_OK;
}

/* Treats what comes first, the row or the entry of the list. */
static enum store_status set_step(struct store *s, struct job *j)
{
    struct memory_row *r = row_at_place(s, j);
    int order = !j->has_row ? -1 : r == NULL ? 1 : store_row_compare(&r->row, &j->row);
    enum store_status status = STORE_OK;

    if (!j->has_row && r == NULL)
        return STORE_OK;
    if (order < 0) {
        do_remove(s, r);
        return STORE_PENDING;
    }
    if (!store_place_set(&j->place, j->row.kind, j->row.key))
        return STORE_UNAVAILABLE;
    j->has_row = false;
    status = order == 0 ? set_recovery(s, r, &j->row) : do_insert(s, &j->row);
    return status == STORE_OK ? STORE_PENDING : status;
}

static enum store_status set_turn(struct store *s, struct job *j)
{
    enum store_status status = STORE_PENDING;

    for (int n = 0; n < TURN_ROWS && status == STORE_PENDING; n++)
        status = read_list(j) ? set_step(s, j) : STORE_UNAVAILABLE;
    return status;
}

static void run_job(struct store *s)
{
    struct list *node = list_pop_front(&s->jobs);
    enum store_status status = STORE_UNAVAILABLE;
    struct job *j;

    if (node == NULL)
        return;
    j = list_entry(node, struct job, node);
    if (!atomic_load(&j->request->cancelled))
        status = j->request->op == REQUEST_SET ? set_turn(s, j) : check_turn(s, j);
    if (status == STORE_PENDING)
        list_push_back(&s->jobs, node);
    else
        end_job(j, status);
}

/* --- the thread ----------------------------------------------------------------------------- */

static void run_request(struct store *s, struct store_request *r)
{
    enum store_status status = STORE_UNAVAILABLE;

    switch (r->op) {
    case REQUEST_SUBSCRIBE:
        status = do_insert(s, &r->row);
        break;
    case REQUEST_UNSUBSCRIBE:
        status = run_unsubscribe(s, &r->row);
        break;
    case REQUEST_MISSED_UPSERT:
        status = run_missed_upsert(s, r);
        break;
    case REQUEST_MISSED_LOCK:
        status = run_missed_lock(s, r);
        break;
    case REQUEST_MISSED_CLEAR:
    case REQUEST_MISSED_RETRY:
        status = run_missed_end(s, r);
        break;
    case REQUEST_SET:
    case REQUEST_CHECK:
        start_job(s, r);
        return;
    case REQUEST_SYNC:
        break; /* never queued here */
    }
    store_request_answer(r, status);
}

static void memory_main(void *arg)
{
    struct store *s = arg;

    while (store_queue_wait(&s->queue, list_is_empty(&s->jobs) ? IDLE_WAIT_MS : 0)) {
        struct list requests;
        struct list *node;

        list_init(&requests);
        store_queue_take(&s->queue, REQUEST_ANY, TURN_ROWS, &requests);
        while ((node = list_pop_front(&requests)) != NULL)
            run_request(s, list_entry(node, struct store_request, node));
        run_job(s);
    }
}

/* --- store.h -------------------------------------------------------------------------------- */

static bool memory_open(const struct store_conf *conf, const struct store_feed *feed,
                        struct store **out, char error[256])
{
    struct store *s = mem_calloc(1, sizeof *s);

    *out = NULL;
    s->feed = *feed;
    s->rows.random = UINT64_C(88172645463325252); /* any value but 0 */
    s->missed_lock_s = conf->missed_lock_time_s;
    list_init(&s->pending);
    list_init(&s->jobs);
    store_queue_init(&s->queue, conf->max_queued, conf->timeout_ms);
    s->feed.load_begin(s->feed.arg);
    s->feed.load_end(s->feed.arg);
    if (uv_thread_create(&s->thread, memory_main, s) != 0) {
        snprintf(error, 256, "memory store: cannot start a thread");
        store_queue_fini(&s->queue);
        mem_free(s);
        return false;
    }
    *out = s;
    return true;
}

static void memory_close(struct store *s)
{
    if (s == NULL)
        return;
    store_queue_stop(&s->queue);
    uv_thread_join(&s->thread);
    store_queue_fini(&s->queue);
    memory_rows_fini(&s->rows);
    mem_free(s);
}

static bool memory_submit(struct store_client *c, struct store_request *r)
{
    return store_queue_push(&c->store->queue, r);
}

static bool memory_client_open(struct store *s, uv_loop_t *loop, struct store_client **out,
                               char error[256])
{
    struct store_client *c = mem_calloc(1, sizeof *c);

    *out = NULL;
    c->store = s;
    c->missed_lock_s = s->missed_lock_s;
    c->submit = memory_submit;
    if (!store_replies_open(&c->replies, loop)) {
        snprintf(error, 256, "memory store: cannot add a handle to the loop");
        mem_free(c);
        return false;
    }
    *out = c;
    return true;
}

static void on_replies_closed(void *arg)
{
    struct store_client *c = arg;
    void (*on_closed)(void *) = c->on_closed;
    void *closed_arg = c->arg;

    mem_free(c);
    on_closed(closed_arg);
}

static void memory_client_close(struct store_client *c, void (*on_closed)(void *arg), void *arg)
{
    c->on_closed = on_closed;
    c->arg = arg;
    store_queue_cancel(&c->store->queue, &c->replies);
    store_replies_close(&c->replies, on_replies_closed, c);
}

static enum store_status memory_sync(struct store_client *c, store_done_fn *done, void *arg)
{
    (void)done;
    (void)arg;
    return c->replies.closing ? STORE_UNAVAILABLE : STORE_OK;
}

/* The process's own set of used macs is all there is. */
static bool memory_add_mac(struct store_client *c, const struct store_mac *mac)
{
    (void)mac;
    return !c->replies.closing;
}

const struct store_ops store_memory = {
    .name = "memory",
    .open = memory_open,
    .close = memory_close,
    .client_open = memory_client_open,
    .client_close = memory_client_close,
    .sync = memory_sync,
    .sync_macs = memory_sync,
    .add_mac = memory_add_mac,
    .subscribe = store_front_subscribe,
    .unsubscribe = store_front_unsubscribe,
    .set = store_front_set,
    .check = store_front_check,
    .missed_upsert = store_front_missed_upsert,
    .missed_lock = store_front_missed_lock,
    .missed_clear = store_front_missed_clear,
    .missed_retry = store_front_missed_retry,
};
