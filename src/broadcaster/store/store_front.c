/*
 * Calls of store.h turned into requests (store_front.h). Called by the loops, through store_ops.
 */
#include "store_front.h"

static void submit(struct store_client *c, struct store_request *r)
{
    if (c->replies.closing || store_request_lacks_memory(r) || !c->submit(c, r))
        store_request_answer(r, STORE_UNAVAILABLE);
}

static struct store_request *request_done(struct store_client *c, enum request_op op,
                                          const struct store_request_args *args,
                                          store_done_fn *done, void *arg)
{
    struct store_request *r = store_request_create(&c->replies, op, args);

    r->fn.done = done;
    r->arg = arg;
    return r;
}

static void submit_row(struct store_client *c, enum request_op op, const struct store_row *row,
                       store_done_fn *done, void *arg)
{
    submit(c, request_done(c, op,
                           &(struct store_request_args){ .kind = row->kind,
                                                         .url = row->url,
                                                         .key = row->key,
                                                         .recovery = row->recovery },
                           done, arg));
}

void store_front_subscribe(struct store_client *c, const struct store_row *row, store_done_fn *done,
                           void *arg)
{
    submit_row(c, REQUEST_SUBSCRIBE, row, done, arg);
}

void store_front_unsubscribe(struct store_client *c, const struct store_row *row,
                             store_done_fn *done, void *arg)
{
    submit_row(c, REQUEST_UNSUBSCRIBE, row, done, arg);
}

void store_front_set(struct store_client *c, struct lonely_span url, const struct store_list *list,
                     store_done_fn *done, void *arg)
{
    struct store_request *r =
        request_done(c, REQUEST_SET, &(struct store_request_args){ .url = url }, done, arg);

    r->list = list;
    submit(c, r);
}

void store_front_check(struct store_client *c, struct lonely_span url, store_etag_fn *done,
                       void *arg)
{
    struct store_request *r = store_request_create(&c->replies, REQUEST_CHECK,
                                                   &(struct store_request_args){ .url = url });

    r->fn.etag = done;
    r->arg = arg;
    submit(c, r);
}

void store_front_missed_upsert(struct store_client *c, const struct store_row *row,
                               struct lonely_span topic, uint32_t attempts, double next_retry_at,
                               store_done_fn *done, void *arg)
{
    struct store_request *r =
        request_done(c, REQUEST_MISSED_UPSERT,
                     &(struct store_request_args){
                         .kind = row->kind, .url = row->url, .key = row->key, .topic = topic },
                     done, arg);

    r->attempts = attempts;
    r->due_s = store_seconds_up(next_retry_at);
    submit(c, r);
}

void store_front_missed_lock(struct store_client *c, double now, store_missed_fn *done, void *arg)
{
    struct store_request *r =
        store_request_create(&c->replies, REQUEST_MISSED_LOCK, &(struct store_request_args){ 0 });

    r->due_s = store_seconds_down(now);
    r->lock_until_s = store_seconds_up(now + (double)c->missed_lock_s);
    r->fn.missed = done;
    r->arg = arg;
    submit(c, r);
}

static struct store_request *request_of_item(struct store_client *c, enum request_op op,
                                             const struct store_missed *item, store_done_fn *done,
                                             void *arg)
{
    struct store_request *r = request_done(
        c, op,
        &(struct store_request_args){ .kind = item->kind, .url = item->url, .key = item->key },
        done, arg);

    r->lock_id = item->lock_id;
    return r;
}

void store_front_missed_clear(struct store_client *c, const struct store_missed *item,
                              store_done_fn *done, void *arg)
{
    submit(c, request_of_item(c, REQUEST_MISSED_CLEAR, item, done, arg));
}

void store_front_missed_retry(struct store_client *c, const struct store_missed *item,
                              uint32_t attempts, double next_retry_at, store_done_fn *done,
                              void *arg)
{
    struct store_request *r = request_of_item(c, REQUEST_MISSED_RETRY, item, done, arg);

    r->attempts = attempts;
    r->due_s = store_seconds_up(next_retry_at);
    submit(c, r);
}

void store_front_sync(struct store_client *c, store_done_fn *done, void *arg)
{
    submit(c, request_done(c, REQUEST_SYNC, &(struct store_request_args){ 0 }, done, arg));
}
