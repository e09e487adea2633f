/*
 * The SQLite backend behind store.h: opening and closing, the clients, and which thread does what.
 * The parts are declared in sqlite_store.h.
 */
#include <stdio.h>
#include <string.h>

#include "mem.h"
#include "sqlite_store.h"
#include "store_front.h"

#define EXPIRE_MS 100 /* between two looks for requests that wait too long */

struct store {
    struct sqlite_conn_place place;
    uint64_t missed_lock_s;
    struct sqlite_writer writer;
    struct sqlite_reader reader;
    struct sqlite_feed feed;
};

struct sqlite_client {
    struct store_client base; /* first: a store_client of this store is one of these */
    struct sqlite_conn conn;  /* read-only, for the change log */
    uv_timer_t expiry;
};

/* --- the store ------------------------------------------------------------------------------ */

static void store_free(struct store *s)
{
    mem_free(s->place.path);
    mem_free(s);
}

static bool open_parts(struct store *s, const struct store_conf *conf,
                       const struct store_feed *feed, char error[256])
{
    if (!sqlite_writer_open(&s->writer, &s->place, conf, error))
        return false;
    if (!sqlite_reader_open(&s->reader, &s->place, conf, error)) {
        sqlite_writer_close(&s->writer);
        return false;
    }
    if (!sqlite_feed_open(&s->feed, &s->place, conf, feed, error)) {
        sqlite_reader_close(&s->reader);
        sqlite_writer_close(&s->writer);
        return false;
    }
    s->writer.macs.applied = &s->feed.macs_applied;
    if (sqlite_writer_start(&s->writer) && sqlite_reader_start(&s->reader) &&
        sqlite_feed_start(&s->feed))
        return true;
    snprintf(error, 256, "%s: cannot start a thread for it", conf->path);
    sqlite_feed_close(&s->feed);
    sqlite_reader_close(&s->reader);
    sqlite_writer_close(&s->writer);
    return false;
}

/* SQLite gives some names a meaning; here all are names of files. The caller frees it. */
static char *file_name(const char *path)
{
    bool is_special = path[0] == ':' || strncmp(path, "file:", 5) == 0;
    size_t size = strlen(path) + 3;
    char *name = mem_alloc(size);

    snprintf(name, size, "%s%s", is_special ? "./" : "", path);
    return name;
}

static bool sqlite_open(const struct store_conf *conf, const struct store_feed *feed,
                        struct store **out, char error[256])
{
    struct store *s;

    *out = NULL;
    if (conf->path[0] == '\0') { /* to SQLite, a temporary file */
        snprintf(error, 256, "the path of the database is empty");
        return false;
    }
    s = mem_calloc(1, sizeof *s);
    s->place.path = file_name(conf->path);
    s->place.log = conf->log;
    s->place.timeout_ms = conf->timeout_ms;
    s->missed_lock_s = conf->missed_lock_time_s;
    if (!open_parts(s, conf, feed, error)) {
        store_free(s);
        return false;
    }
    *out = s;
    return true;
}

static void sqlite_close(struct store *s)
{
    if (s == NULL)
        return;
    sqlite_feed_close(&s->feed);
    sqlite_reader_close(&s->reader);
    sqlite_writer_close(&s->writer); /* last: it leaves the file without a log behind */
    store_free(s);
}

/* --- clients -------------------------------------------------------------------------------- */

/* A thread that waits for the disk cannot answer those who wait for the thread. */
static void on_expiry(uv_timer_t *timer)
{
    struct sqlite_client *c = timer->data;

    store_queue_expire(&c->base.store->writer.queue);
    store_queue_expire(&c->base.store->reader.queue);
    store_queue_expire(&c->base.store->feed.queue);
    if (list_is_empty(&c->base.replies.owed))
        uv_timer_stop(timer);
}

static bool sqlite_submit(struct store_client *base, struct store_request *r)
{
    struct sqlite_client *c = (struct sqlite_client *)base;
    struct store_queue *q = &base->store->writer.queue;

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

static bool sqlite_client_open(struct store *s, uv_loop_t *loop, struct store_client **out,
                               char error[256])
{
    struct sqlite_client *c = mem_calloc(1, sizeof *c);

    *out = NULL;
    c->base.store = s;
    c->base.missed_lock_s = s->missed_lock_s;
    c->base.submit = sqlite_submit;
    /* It must not wait on the loop's thread; the feeder does. */
    if (!sqlite_conn_open(&c->conn, &sqlite_conn_of_client, &s->place, 0, error)) {
        mem_free(c);
        return false;
    }
    if (!store_replies_open(&c->base.replies, loop)) {
        snprintf(error, 256, "%s: cannot add a handle to the loop", s->place.path);
        sqlite_conn_close(&c->conn);
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
    struct sqlite_client *c = handle->data;
    void (*on_closed)(void *arg) = c->base.on_closed;
    void *arg = c->base.arg;

    sqlite_conn_close(&c->conn);
    mem_free(c);
    on_closed(arg);
}

static void on_replies_closed(void *arg)
{
    struct sqlite_client *c = arg;

    uv_close((uv_handle_t *)&c->expiry, on_timer_closed);
}

static void sqlite_client_close(struct store_client *c, void (*on_closed)(void *arg), void *arg)
{
    c->on_closed = on_closed;
    c->arg = arg;
    store_queue_cancel(&c->store->writer.queue, &c->replies);
    store_queue_cancel(&c->store->reader.queue, &c->replies);
    store_queue_cancel(&c->store->feed.queue, &c->replies);
    store_replies_close(&c->replies, on_replies_closed, c);
}

static enum store_status sqlite_sync(struct store_client *base, store_done_fn *done, void *arg)
{
    struct sqlite_client *c = (struct sqlite_client *)base;
    enum store_status status = STORE_UNAVAILABLE;

    if (!base->replies.closing)
        status = sqlite_feed_sync(&base->store->feed, &c->conn);
    if (status == STORE_PENDING)
        store_front_sync(base, done, arg);
    return status;
}

static enum store_status sqlite_sync_macs(struct store_client *base, store_done_fn *done, void *arg)
{
    struct sqlite_client *c = (struct sqlite_client *)base;
    enum store_status status = STORE_UNAVAILABLE;

    if (!base->replies.closing)
        status = sqlite_feed_sync_macs(&base->store->feed, &c->conn);
    if (status == STORE_PENDING)
        store_front_sync(base, done, arg);
    return status;
}

static bool sqlite_add_mac(struct store_client *c, const struct store_mac *mac)
{
    return !c->replies.closing && store_mac_queue_add(&c->store->writer.macs.queue, mac);
}

const struct store_ops store_sqlite = {
    .name = "sqlite",
    .open = sqlite_open,
    .close = sqlite_close,
    .client_open = sqlite_client_open,
    .client_close = sqlite_client_close,
    .sync = sqlite_sync,
    .sync_macs = sqlite_sync_macs,
    .add_mac = sqlite_add_mac,
    .subscribe = store_front_subscribe,
    .unsubscribe = store_front_unsubscribe,
    .set = store_front_set,
    .check = store_front_check,
    .missed_upsert = store_front_missed_upsert,
    .missed_lock = store_front_missed_lock,
    .missed_clear = store_front_missed_clear,
    .missed_retry = store_front_missed_retry,
};
