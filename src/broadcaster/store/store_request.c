/*
 * Requests, their way back to the loop and their queues (store_request.h). Called by the backends; what a
 * request means is theirs.
 */
#include "store_request.h"

#include <math.h>
#include <string.h>

#include "clock.h"
#include "mem.h"

static uint64_t now_ms(void)
{
    return clock_mono_ms(&clock_system);
}

/* --- replies ------------------------------------------------------------------------------- */

static void request_free(struct store_request *r)
{
    mem_free(r->data);
    mem_free(r->missed_data);
    mem_free(r);
}

static void call_back(struct store_request *r)
{
    if (r->op == REQUEST_CHECK)
        r->fn.etag(r->arg, r->status, r->etag);
    else if (r->op == REQUEST_MISSED_LOCK)
        r->fn.missed(r->arg, r->status, r->status == STORE_OK ? &r->missed : NULL);
    else
        r->fn.done(r->arg, r->status);
}

static void on_async_closed(uv_handle_t *handle)
{
    struct store_replies *o = handle->data;

    uv_mutex_destroy(&o->lock);
    o->on_closed(o->arg);
}

static void close_when_even(struct store_replies *o)
{
    if (o->closing && list_is_empty(&o->owed) && !uv_is_closing((uv_handle_t *)&o->async))
        uv_close((uv_handle_t *)&o->async, on_async_closed);
}

static void on_ready(uv_async_t *async)
{
    struct store_replies *o = async->data;
    struct list ready;
    struct list *node;

    list_init(&ready);
    uv_mutex_lock(&o->lock);
    list_move_all(&ready, &o->ready);
    uv_mutex_unlock(&o->lock);
    while ((node = list_pop_front(&ready)) != NULL) {
        struct store_request *r = list_entry(node, struct store_request, node);

        call_back(r);
        list_remove(&r->owed);
        request_free(r);
    }
    close_when_even(o);
}

bool store_replies_open(struct store_replies *o, uv_loop_t *loop)
{
    *o = (struct store_replies){ 0 };
    list_init(&o->ready);
    list_init(&o->owed);
    if (uv_mutex_init(&o->lock) != 0)
        return false;
    if (uv_async_init(loop, &o->async, on_ready) != 0) {
        uv_mutex_destroy(&o->lock);
        return false;
    }
    o->async.data = o;
    return true;
}

void store_replies_close(struct store_replies *o, void (*on_closed)(void *arg), void *arg)
{
    o->closing = true;
    o->on_closed = on_closed;
    o->arg = arg;
    list_foreach (&o->owed, node, next)
        atomic_store(&list_entry(node, struct store_request, owed)->cancelled, true);
    close_when_even(o);
}

/* --- request ------------------------------------------------------------------------------ */

/* Appends a copy of `from` at `*to`. */
static struct lonely_span keep(uint8_t **to, struct lonely_span from)
{
    struct lonely_span kept = { *to, from.len };

    if (from.len > 0)
        memcpy(*to, from.ptr, from.len);
    *to += from.len;
    return kept;
}

struct store_request *store_request_create(struct store_replies *o, enum request_op op,
                                           const struct store_request_args *args)
{
    struct store_request *r = mem_calloc(1, sizeof *r);
    uint8_t *to;

    list_init(&r->node);
    r->replies = o;
    r->op = op;
    list_push_back(&o->owed, &r->owed);
    r->data = mem_try_alloc(args->url.len + args->key.len + args->recovery.len + args->topic.len);
    if (r->data == NULL)
        return r;
    to = r->data;
    r->row.kind = args->kind;
    r->row.url = keep(&to, args->url);
    r->row.key = keep(&to, args->key);
    r->row.recovery = keep(&to, args->recovery);
    r->topic = keep(&to, args->topic);
    return r;
}

bool store_request_lacks_memory(const struct store_request *r)
{
    return r->data == NULL;
}

bool store_request_keep_missed(struct store_request *r, const struct store_missed *item)
{
    uint8_t *to =
        mem_try_alloc(item->url.len + item->key.len + item->recovery.len + item->topic.len);

    if (to == NULL)
        return false;
    mem_free(r->missed_data);
    r->missed_data = to;
    r->missed = *item;
    r->missed.url = keep(&to, item->url);
    r->missed.key = keep(&to, item->key);
    r->missed.recovery = keep(&to, item->recovery);
    r->missed.topic = keep(&to, item->topic);
    return true;
}

void store_request_answer(struct store_request *r, enum store_status status)
{
    struct store_replies *o = r->replies;

    r->status = status;
    /* The signal is sent under the lock: once the loop has the request, it may close the handle. */
    uv_mutex_lock(&o->lock);
    list_push_back(&o->ready, &r->node);
    uv_async_send(&o->async);
    uv_mutex_unlock(&o->lock);
}

void store_requests_answer(struct list *requests, enum store_status status)
{
    struct list *node;

    while ((node = list_pop_front(requests)) != NULL)
        store_request_answer(list_entry(node, struct store_request, node), status);
}

/* 2^53: exact as a double, and sums with lock times stay far from the end of int64_t. */
#define SECONDS_MAX 9007199254740992.0

static int64_t seconds_clamp(double seconds)
{
    if (!(seconds > 0)) /* NaN too */
        return 0;
    return (int64_t)(seconds < SECONDS_MAX ? seconds : SECONDS_MAX);
}

int64_t store_seconds_up(double seconds)
{
    return seconds_clamp(ceil(seconds));
}

int64_t store_seconds_down(double seconds)
{
    return seconds_clamp(floor(seconds));
}

/* --- queue -------------------------------------------------------------------------------- */

void store_queue_init(struct store_queue *q, size_t limit, uint64_t timeout_ms)
{
    *q = (struct store_queue){ .limit = limit, .timeout_ms = timeout_ms };
    list_init(&q->waiting);
    uv_mutex_init(&q->lock);
    uv_cond_init(&q->cond);
}

void store_queue_fini(struct store_queue *q)
{
    uv_cond_destroy(&q->cond);
    uv_mutex_destroy(&q->lock);
}

bool store_queue_push(struct store_queue *q, struct store_request *r)
{
    bool room;

    uv_mutex_lock(&q->lock);
    room = q->count < q->limit && !q->stopping;
    if (room) {
        r->deadline_ms = now_ms() + q->timeout_ms;
        list_push_back(&q->waiting, &r->node);
        q->count++;
        uv_cond_signal(&q->cond);
    }
    uv_mutex_unlock(&q->lock);
    return room;
}

/* Under the lock. All wait equally long, so the overdue ones are at the front. */
static void take_overdue(struct store_queue *q, struct list *overdue)
{
    uint64_t now = now_ms();

    list_foreach (&q->waiting, node, next) {
        if (list_entry(node, struct store_request, node)->deadline_ms > now)
            break;
        list_remove(node);
        list_push_back(overdue, node);
        q->count--;
    }
}

size_t store_queue_take(struct store_queue *q, unsigned mask, size_t max, struct list *out)
{
    struct list overdue;
    size_t n = 0;

    list_init(&overdue);
    uv_mutex_lock(&q->lock);
    take_overdue(q, &overdue);
    list_foreach (&q->waiting, node, next) {
        if (n == max)
            break;
        if ((list_entry(node, struct store_request, node)->op & mask) == 0)
            continue;
        list_remove(node);
        list_push_back(out, node);
        q->count--;
        n++;
    }
    uv_mutex_unlock(&q->lock);
    store_requests_answer(&overdue, STORE_UNAVAILABLE);
    return n;
}

size_t store_queue_expire(struct store_queue *q)
{
    struct list overdue;
    size_t left;

    list_init(&overdue);
    uv_mutex_lock(&q->lock);
    take_overdue(q, &overdue);
    left = q->count;
    uv_mutex_unlock(&q->lock);
    store_requests_answer(&overdue, STORE_UNAVAILABLE);
    return left;
}

void store_queue_cancel(struct store_queue *q, const struct store_replies *o)
{
    struct list cancelled;

    list_init(&cancelled);
    uv_mutex_lock(&q->lock);
    list_foreach (&q->waiting, node, next) {
        if (list_entry(node, struct store_request, node)->replies != o)
            continue;
        list_remove(node);
        list_push_back(&cancelled, node);
        q->count--;
    }
    uv_mutex_unlock(&q->lock);
    store_requests_answer(&cancelled, STORE_UNAVAILABLE);
}

bool store_queue_wait(struct store_queue *q, uint64_t wait_ms)
{
    bool running;

    uv_mutex_lock(&q->lock);
    if (q->count == 0 && !q->stopping && !q->nudged && wait_ms > 0)
        (void)uv_cond_timedwait(&q->cond, &q->lock, wait_ms * 1000000u);
    q->nudged = false;
    running = !q->stopping;
    uv_mutex_unlock(&q->lock);
    return running;
}

void store_queue_nudge(struct store_queue *q)
{
    uv_mutex_lock(&q->lock);
    q->nudged = true;
    uv_cond_signal(&q->cond);
    uv_mutex_unlock(&q->lock);
}

void store_queue_stop(struct store_queue *q)
{
    uv_mutex_lock(&q->lock);
    q->stopping = true;
    uv_cond_signal(&q->cond);
    uv_mutex_unlock(&q->lock);
}
