/*
 * Measures the calls of a loop to its store (store_meter.h): stands between whoever calls (routes, hub,
 * missed, readiness) and the backend.
 *
 * Each call under way has a record, which holds the caller's callback. Records are kept for the next
 * calls, so that a notify, which syncs, takes no memory.
 */
#include "store_meter.h"

#include "list.h"
#include "mem.h"

#define SPARE_MAX 64 /* records kept */

struct meter {
    const struct store_ops *backend;
    struct store_client *client; /* of the backend */
    const struct clock *clock;
    struct metrics *metrics;
    struct list spare; /* meter_call.node */
    size_t spare_count;
    void (*on_closed)(void *arg);
    void *arg;
};

struct meter_call {
    struct list node;
    struct meter *meter;
    enum metrics_store_op op;
    uint64_t started_ns;
    union {
        store_done_fn *done;
        store_etag_fn *etag;
        store_missed_fn *missed;
    } fn;
    void *arg;
};

/* To the rest of the program a meter is a store_client, whose inside only backends know. */
static struct meter *meter_of(struct store_client *c)
{
    return (struct meter *)(void *)c;
}

static struct meter_call *call_begin(struct meter *m, enum metrics_store_op op, void *arg)
{
    struct list *node = list_pop_front(&m->spare);
    struct meter_call *call;

    if (node != NULL) {
        call = list_entry(node, struct meter_call, node);
        m->spare_count--;
    } else {
        call = mem_alloc(sizeof(*call));
    }
    list_init(&call->node);
    call->meter = m;
    call->op = op;
    call->arg = arg;
    call->started_ns = clock_mono_ns(m->clock);
    metrics_add(&m->metrics->store_pending[op], 1);
    return call;
}

/* Counts the call and gives its record back. */
static void call_end(struct meter_call *call, enum store_status status)
{
    struct meter *m = call->meter;

    metrics_observe(&m->metrics->store_time[call->op], clock_mono_ns(m->clock) - call->started_ns);
    metrics_add(&m->metrics->store_pending[call->op], UINT64_MAX); /* one less */
    if (status == STORE_UNAVAILABLE)
        metrics_add(&m->metrics->store_failures[call->op], 1);
    if (m->spare_count == SPARE_MAX) {
        mem_free(call);
        return;
    }
    list_push_back(&m->spare, &call->node);
    m->spare_count++;
}

static void on_done(void *arg, enum store_status status)
{
    struct meter_call *call = arg;
    store_done_fn *done = call->fn.done;
    void *done_arg = call->arg;

    call_end(call, status);
    done(done_arg, status);
}

static void on_etag(void *arg, enum store_status status, const uint8_t etag[64])
{
    struct meter_call *call = arg;
    store_etag_fn *done = call->fn.etag;
    void *done_arg = call->arg;

    call_end(call, status);
    done(done_arg, status, etag);
}

static void on_missed(void *arg, enum store_status status, const struct store_missed *item)
{
    struct meter_call *call = arg;
    store_missed_fn *done = call->fn.missed;
    void *done_arg = call->arg;

    call_end(call, status);
    done(done_arg, status, item);
}

static struct meter_call *call_done(struct meter *m, enum metrics_store_op op, store_done_fn *done,
                                    void *arg)
{
    struct meter_call *call = call_begin(m, op, arg);

    call->fn.done = done;
    return call;
}

static enum store_status meter_sync(struct store_client *c, store_done_fn *done, void *arg)
{
    struct meter *m = meter_of(c);
    struct meter_call *call = call_done(m, METRICS_STORE_SYNC, done, arg);
    enum store_status status = m->backend->sync(m->client, on_done, call);

    if (status != STORE_PENDING)
        call_end(call, status);
    return status;
}

static enum store_status meter_sync_macs(struct store_client *c, store_done_fn *done, void *arg)
{
    struct meter *m = meter_of(c);
    struct meter_call *call = call_done(m, METRICS_STORE_SYNC_MACS, done, arg);
    enum store_status status = m->backend->sync_macs(m->client, on_done, call);

    if (status != STORE_PENDING)
        call_end(call, status);
    return status;
}

/* Nobody waits for it, so there is no time to take. */
static bool meter_add_mac(struct store_client *c, const struct store_mac *mac)
{
    struct meter *m = meter_of(c);

    return m->backend->add_mac(m->client, mac);
}

static void meter_subscribe(struct store_client *c, const struct store_row *row,
                            store_done_fn *done, void *arg)
{
    struct meter *m = meter_of(c);

    m->backend->subscribe(m->client, row, on_done,
                          call_done(m, METRICS_STORE_SUBSCRIBE, done, arg));
}

static void meter_unsubscribe(struct store_client *c, const struct store_row *row,
                              store_done_fn *done, void *arg)
{
    struct meter *m = meter_of(c);

    m->backend->unsubscribe(m->client, row, on_done,
                            call_done(m, METRICS_STORE_UNSUBSCRIBE, done, arg));
}

static void meter_set(struct store_client *c, struct lonely_span url, const struct store_list *list,
                      store_done_fn *done, void *arg)
{
    struct meter *m = meter_of(c);

    m->backend->set(m->client, url, list, on_done, call_done(m, METRICS_STORE_SET, done, arg));
}

static void meter_check(struct store_client *c, struct lonely_span url, store_etag_fn *done,
                        void *arg)
{
    struct meter *m = meter_of(c);
    struct meter_call *call = call_begin(m, METRICS_STORE_CHECK, arg);

    call->fn.etag = done;
    m->backend->check(m->client, url, on_etag, call);
}

static void meter_missed_upsert(struct store_client *c, const struct store_row *row,
                                struct lonely_span topic, uint32_t attempts, double next_retry_at,
                                store_done_fn *done, void *arg)
{
    struct meter *m = meter_of(c);

    m->backend->missed_upsert(m->client, row, topic, attempts, next_retry_at, on_done,
                              call_done(m, METRICS_STORE_MISSED_UPSERT, done, arg));
}

static void meter_missed_lock(struct store_client *c, double now, store_missed_fn *done, void *arg)
{
    struct meter *m = meter_of(c);
    struct meter_call *call = call_begin(m, METRICS_STORE_MISSED_LOCK, arg);

    call->fn.missed = done;
    m->backend->missed_lock(m->client, now, on_missed, call);
}

static void meter_missed_clear(struct store_client *c, const struct store_missed *item,
                               store_done_fn *done, void *arg)
{
    struct meter *m = meter_of(c);

    m->backend->missed_clear(m->client, item, on_done,
                             call_done(m, METRICS_STORE_MISSED_CLEAR, done, arg));
}

static void meter_missed_retry(struct store_client *c, const struct store_missed *item,
                               uint32_t attempts, double next_retry_at, store_done_fn *done,
                               void *arg)
{
    struct meter *m = meter_of(c);

    m->backend->missed_retry(m->client, item, attempts, next_retry_at, on_done,
                             call_done(m, METRICS_STORE_MISSED_RETRY, done, arg));
}

/* A lock that nobody holds ends, which changes nothing, but goes the way of all writes. */
void store_meter_probe(struct store_client *c, store_done_fn *done, void *arg)
{
    static const struct store_missed nobodys = { .kind = STORE_EXACT, .lock_id = 0 };
    struct meter *m = meter_of(c);

    m->backend->missed_clear(m->client, &nobodys, on_done,
                             call_done(m, METRICS_STORE_PROBE, done, arg));
}

static void on_client_closed(void *arg)
{
    struct meter *m = arg;
    void (*on_closed)(void *arg) = m->on_closed;
    void *closed_arg = m->arg;
    struct list *node;

    while ((node = list_pop_front(&m->spare)) != NULL)
        mem_free(list_entry(node, struct meter_call, node));
    mem_free(m);
    on_closed(closed_arg);
}

static void meter_close(struct store_client *c, void (*on_closed)(void *arg), void *arg)
{
    struct meter *m = meter_of(c);

    m->on_closed = on_closed;
    m->arg = arg;
    m->backend->client_close(m->client, on_client_closed, m);
}

bool store_meter_open(const struct store_ops *backend, struct store *store, uv_loop_t *loop,
                      const struct clock *clock, struct metrics *metrics, struct store_client **out,
                      char error[256])
{
    struct meter *m = mem_calloc(1, sizeof(*m));

    *out = NULL;
    m->backend = backend;
    m->clock = clock;
    m->metrics = metrics;
    list_init(&m->spare);
    if (!backend->client_open(store, loop, &m->client, error)) {
        mem_free(m);
        return false;
    }
    *out = (struct store_client *)(void *)m;
    return true;
}

const struct store_ops store_meter_ops = {
    .name = "meter",
    .client_close = meter_close,
    .sync = meter_sync,
    .sync_macs = meter_sync_macs,
    .add_mac = meter_add_mac,
    .subscribe = meter_subscribe,
    .unsubscribe = meter_unsubscribe,
    .set = meter_set,
    .check = meter_check,
    .missed_upsert = meter_missed_upsert,
    .missed_lock = meter_missed_lock,
    .missed_clear = meter_missed_clear,
    .missed_retry = meter_missed_retry,
};
