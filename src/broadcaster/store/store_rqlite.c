/*
 * The rqlite backend behind store.h: opening and closing, the clients, and which thread does what.
 * The parts are declared in rqlite_store.h.
 */
#include <stdio.h>

#include "mem.h"
#include "rqlite_store.h"
#include "store_front.h"

#define EXPIRE_MS 100 /* between two looks for requests that wait too long */

struct store {
    struct rqlite_cluster cluster;
    uint64_t missed_lock_s;
    struct rqlite_writer writer;
    struct rqlite_reader reader;
    struct rqlite_feed feed;
};

struct rqlite_client {
    struct store_client base; /* first: a store_client of this store is one of these */
    uv_timer_t expiry;
};

/* --- the store ------------------------------------------------------------------------------ */

static void store_free(struct store *s)
{
    rqlite_cluster_fini(&s->cluster);
    mem_free(s);
    curl_global_cleanup();
}

static bool open_parts(struct store *s, const struct store_conf *conf,
                       const struct store_feed *feed, char error[256])
{
    if (!rqlite_writer_open(&s->writer, &s->cluster, conf, error))
        return false;
    if (!rqlite_reader_open(&s->reader, &s->cluster, conf, error)) {
        rqlite_writer_close(&s->writer);
        return false;
    }
    if (!rqlite_feed_open(&s->feed, &s->cluster, conf, feed, error)) {
        rqlite_reader_close(&s->reader);
        rqlite_writer_close(&s->writer);
        return false;
    }
    s->writer.macs.applied = &s->feed.macs_applied;
    if (rqlite_feed_start(&s->feed) && rqlite_writer_start(&s->writer) &&
        rqlite_reader_start(&s->reader))
        return true;
    snprintf(error, 256, "rqlite: cannot start a thread for it");
    rqlite_reader_close(&s->reader);
    rqlite_writer_close(&s->writer);
    rqlite_feed_close(&s->feed);
    return false;
}

static bool rqlite_conf_check(const struct store_conf *conf, char error[256])
{
    struct rqlite_cluster cluster;
    bool good = rqlite_cluster_init(&cluster, conf, error);

    if (good)
        rqlite_cluster_fini(&cluster);
    return good;
}

static bool rqlite_open(const struct store_conf *conf, const struct store_feed *feed,
                        struct store **out, char error[256])
{
    struct store *s;

    *out = NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        snprintf(error, 256, "rqlite: libcurl cannot be initialised");
        return false;
    }
    s = mem_calloc(1, sizeof *s);
    if (!rqlite_cluster_init(&s->cluster, conf, error)) {
        store_free(s);
        return false;
    }
    s->missed_lock_s = conf->missed_lock_time_s;
    if (!open_parts(s, conf, feed, error)) {
        store_free(s);
        return false;
    }
    *out = s;
    return true;
}

static void rqlite_close(struct store *s)
{
    if (s == NULL)
        return;
    rqlite_reader_close(&s->reader);
    rqlite_writer_close(&s->writer); /* before the feed, whose thread it may nudge */
    rqlite_feed_close(&s->feed);
    store_free(s);
}

/* --- clients -------------------------------------------------------------------------------- */

/* A thread that waits for a node cannot answer those who wait for the thread. */
static void on_expiry(uv_timer_t *timer)
{
    struct rqlite_client *c = timer->data;

    store_queue_expire(&c->base.store->writer.queue);
    store_queue_expire(&c->base.store->reader.queue);
    store_queue_expire(&c->base.store->feed.queue);
    if (list_is_empty(&c->base.replies.owed))
        uv_timer_stop(timer);
}

static bool rqlite_submit(struct store_client *base, struct store_request *r)
{
    struct rqlite_client *c = (struct rqlite_client *)base;
    struct store_queue *q = &base->store->writer.queue;

    if (rqlite_is_down(&base->store->cluster))
        return false;
    if (r->op == REQUEST_CHECK)
        q = &base->store->reader.queue;
    else if (r->op == REQUEST_SYNC)
        q = &base->store->feed.queue;
    if (!store_queue_push(q, r))
        return false;
    if (!uv_is_active((uv_handle_t *)&c->expiry))
        uv_timer_start(&c->expiry, on_expiry, EXPIRE_MS, EXPIRE_MS);
    return true;
}

static bool rqlite_client_open(struct store *s, uv_loop_t *loop, struct store_client **out,
                               char error[256])
{
    struct rqlite_client *c = mem_calloc(1, sizeof *c);

    *out = NULL;
    c->base.store = s;
    c->base.missed_lock_s = s->missed_lock_s;
    c->base.submit = rqlite_submit;
    if (!store_replies_open(&c->base.replies, loop)) {
        snprintf(error, 256, "rqlite: cannot add a handle to the loop");
        mem_free(c);
        return false;
    }
    uv_timer_init(loop, &c->expiry);
    c->expiry.data = c;
    *out = &c->base;
    return true;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct rqlite_client *c = handle->data;
    void (*on_closed)(void *arg) = c->base.on_closed;
    void *arg = c->base.arg;

    mem_free(c);
    on_closed(arg);
}

static void on_replies_closed(void *arg)
{
    struct rqlite_client *c = arg;

    uv_close((uv_handle_t *)&c->expiry, on_timer_closed);
}

static void rqlite_client_close(struct store_client *c, void (*on_closed)(void *arg), void *arg)
{
    c->on_closed = on_closed;
    c->arg = arg;
    store_queue_cancel(&c->store->writer.queue, &c->replies);
    store_queue_cancel(&c->store->reader.queue, &c->replies);
    store_queue_cancel(&c->store->feed.queue, &c->replies);
    store_replies_close(&c->replies, on_replies_closed, c);
}

static enum store_status rqlite_sync(struct store_client *c, store_done_fn *done, void *arg)
{
    if (c->replies.closing || rqlite_is_down(&c->store->cluster))
        return STORE_UNAVAILABLE;
    store_front_sync(c, done, arg);
    return STORE_PENDING;
}

static enum store_status rqlite_sync_macs(struct store_client *c, store_done_fn *done, void *arg)
{
    if (c->replies.closing)
        return STORE_UNAVAILABLE;
    return c->store->writer.macs.queue.kept ? rqlite_sync(c, done, arg) : STORE_OK;
}

static bool rqlite_add_mac(struct store_client *c, const struct store_mac *mac)
{
    return !c->replies.closing && store_mac_queue_add(&c->store->writer.macs.queue, mac);
}

const struct store_ops store_rqlite = {
    .name = "rqlite",
    .conf_check = rqlite_conf_check,
    .open = rqlite_open,
    .close = rqlite_close,
    .client_open = rqlite_client_open,
    .client_close = rqlite_client_close,
    .sync = rqlite_sync,
    .sync_macs = rqlite_sync_macs,
    .add_mac = rqlite_add_mac,
    .subscribe = store_front_subscribe,
    .unsubscribe = store_front_unsubscribe,
    .set = store_front_set,
    .check = store_front_check,
    .missed_upsert = store_front_missed_upsert,
    .missed_lock = store_front_missed_lock,
    .missed_clear = store_front_missed_clear,
    .missed_retry = store_front_missed_retry,
};
