/*
 * The PostgreSQL backend behind store.h: opening and closing, the clients, and which thread does what.
 * The parts are declared in postgres_store.h.
 */
#include <stdio.h>

#include "clock.h"
#include "mem.h"
#include "postgres_store.h"

#define EXPIRE_MS 100 /* between two looks for requests that wait too long */

struct store {
    struct postgres_place place;
    uint64_t missed_lock_s;
    struct postgres_writer writer;
    struct postgres_reader reader;
    struct postgres_feed feed;
};

struct postgres_client {
    struct store_client base; /* first: a store_client of this store is one of these */
    struct postgres_look look;
    uv_timer_t expiry;
    unsigned wants; /* LOOK_..., of the sync that is being submitted */
};

/* --- the store ------------------------------------------------------------------------------ */

static void store_free(struct store *s)
{
    postgres_place_fini(&s->place);
    mem_free(s);
}

static bool open_parts(struct store *s, const struct store_conf *conf,
                       const struct store_feed *feed, char error[256])
{
    if (!postgres_writer_open(&s->writer, &s->place, conf, error))
        return false;
    if (!postgres_reader_open(&s->reader, &s->place, conf, error)) {
        postgres_writer_close(&s->writer);
        return false;
    }
    if (!postgres_feed_open(&s->feed, &s->place, conf, feed, error)) {
        postgres_reader_close(&s->reader);
        postgres_writer_close(&s->writer);
        return false;
    }
    s->writer.macs_applied = &s->feed.macs_applied;
    if (postgres_writer_start(&s->writer) && postgres_reader_start(&s->reader) &&
        postgres_feed_start(&s->feed))
        return true;
    snprintf(error, 256, "%s: cannot start a thread for it", s->place.shown);
    postgres_feed_close(&s->feed);
    postgres_reader_close(&s->reader);
    postgres_writer_close(&s->writer);
    return false;
}

static bool postgres_conf_check(const struct store_conf *conf, char error[256])
{
    struct postgres_place place;

    if (!postgres_place_init(&place, conf, error))
        return false;
    postgres_place_fini(&place);
    return true;
}

static bool postgres_open(const struct store_conf *conf, const struct store_feed *feed,
                          struct store **out, char error[256])
{
    struct store *s = mem_calloc(1, sizeof *s);

    *out = NULL;
    if (!postgres_place_init(&s->place, conf, error)) {
        mem_free(s);
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

static void postgres_close(struct store *s)
{
    if (s == NULL)
        return;
    atomic_store(&s->place.stop_by_ms, clock_mono_ms(&clock_system) + s->place.timeout_ms);
    postgres_feed_close(&s->feed);
    postgres_reader_close(&s->reader);
    postgres_writer_close(&s->writer);
    store_free(s);
}

/* --- clients -------------------------------------------------------------------------------- */

/* A thread that waits for the server cannot answer those who wait for the thread. */
static void on_expiry(uv_timer_t *timer)
{
    struct postgres_client *c = timer->data;

    store_queue_expire(&c->base.store->writer.queue);
    store_queue_expire(&c->base.store->reader.queue);
    store_queue_expire(&c->base.store->feed.queue);
    if (list_is_empty(&c->base.replies.owed))
        uv_timer_stop(timer);
}

/* Nobody waits for a server that is known not to answer. */
static bool push(struct store_queue *q, struct postgres_conn *conn, struct store_request *r)
{
    return !atomic_load(&conn->down) && store_queue_push(q, r);
}

static bool postgres_submit(struct store_client *base, struct store_request *r)
{
    struct postgres_client *c = (struct postgres_client *)base;
    struct store *s = base->store;
    bool taken = true;

    if (r->op == REQUEST_CHECK)
        taken = push(&s->reader.queue, &s->reader.conn, r);
    else if (r->op != REQUEST_SYNC)
        taken = push(&s->writer.queue, &s->writer.conn, r);
    else if (postgres_look_is_ready(&c->look))
        postgres_look_ask(&c->look, c->wants, r);
    else
        taken = push(&s->feed.queue, &s->feed.conn, r);
    if (taken && !uv_is_active((uv_handle_t *)&c->expiry))
        uv_timer_start(&c->expiry, on_expiry, EXPIRE_MS, EXPIRE_MS);
    return taken;
}

static bool postgres_client_open(struct store *s, uv_loop_t *loop, struct store_client **out,
                                 char error[256])
{
    struct postgres_client *c = mem_calloc(1, sizeof *c);

    *out = NULL;
    c->base.store = s;
    c->base.missed_lock_s = s->missed_lock_s;
    c->base.submit = postgres_submit;
    if (!store_replies_open(&c->base.replies, loop)) {
        snprintf(error, 256, "%s: cannot add a handle to the loop", s->place.shown);
        mem_free(c);
        return false;
    }
    postgres_look_open(&c->look, &s->feed, loop);
    uv_timer_init(loop, &c->expiry);
    c->expiry.data = c;
    *out = &c->base;
    return true;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct postgres_client *c = handle->data;
    void (*on_closed)(void *arg) = c->base.on_closed;
    void *arg = c->base.arg;

    mem_free(c);
    on_closed(arg);
}

static void on_replies_closed(void *arg)
{
    struct postgres_client *c = arg;

    uv_close((uv_handle_t *)&c->expiry, on_timer_closed);
}

static void on_look_closed(void *arg)
{
    struct postgres_client *c = arg;

    store_replies_close(&c->base.replies, on_replies_closed, c);
}

static void postgres_client_close(struct store_client *base, void (*on_closed)(void *arg),
                                  void *arg)
{
    struct postgres_client *c = (struct postgres_client *)base;

    base->on_closed = on_closed;
    base->arg = arg;
    base->replies.closing = true;
    store_queue_cancel(&base->store->writer.queue, &base->replies);
    store_queue_cancel(&base->store->reader.queue, &base->replies);
    store_queue_cancel(&base->store->feed.queue, &base->replies);
    postgres_look_close(&c->look, on_look_closed, c);
}

static enum store_status ask(struct store_client *base, unsigned wants, store_done_fn *done,
                             void *arg)
{
    struct postgres_client *c = (struct postgres_client *)base;

    if (base->replies.closing ||
        (!postgres_look_is_ready(&c->look) && atomic_load(&base->store->feed.conn.down)))
        return STORE_UNAVAILABLE;
    c->wants = wants;
    store_front_sync(base, done, arg);
    return STORE_PENDING;
}

static enum store_status postgres_store_sync(struct store_client *base, store_done_fn *done,
                                             void *arg)
{
    return ask(base, LOOK_NEWS, done, arg);
}

static enum store_status postgres_sync_macs(struct store_client *base, store_done_fn *done,
                                            void *arg)
{
    if (base->store->feed.macs.add == NULL)
        return base->replies.closing ? STORE_UNAVAILABLE : STORE_OK;
    return ask(base, LOOK_MACS, done, arg);
}

static bool postgres_add_mac(struct store_client *c, const struct store_mac *mac)
{
    return !c->replies.closing && store_mac_queue_add(&c->store->writer.macs, mac);
}

const struct store_ops store_postgres = {
    .name = "postgres",
    .conf_check = postgres_conf_check,
    .open = postgres_open,
    .close = postgres_close,
    .client_open = postgres_client_open,
    .client_close = postgres_client_close,
    .sync = postgres_store_sync,
    .sync_macs = postgres_sync_macs,
    .add_mac = postgres_add_mac,
    .subscribe = store_front_subscribe,
    .unsubscribe = store_front_unsubscribe,
    .set = store_front_set,
    .check = store_front_check,
    .missed_upsert = store_front_missed_upsert,
    .missed_lock = store_front_missed_lock,
    .missed_clear = store_front_missed_clear,
    .missed_retry = store_front_missed_retry,
};
