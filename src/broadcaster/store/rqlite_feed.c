/*
 * The thread that keeps the feed (the index) and the set of used macs up to date: all who ask while
 * one reading of the change log runs share the next one. (doc/protocol/http.md, 13)
 *
 * `applied` is the last row of the log that the feed has seen. Rows are numbered in the order of the
 * commits (rqlite has one writer at a time) and pruned from the oldest, never the newest; so while the
 * row `applied` is there, what lies behind it is all the news. When it is gone, everything is loaded
 * anew. While no node works, this thread tries until one does.
 */
#include <stdio.h>
#include <string.h>

#include "rqlite_store.h"

#define IDLE_WAIT_MS   10000
#define PROBE_EVERY_MS 100
#define PROBE_MS       1000 /* the least time that a probe gets */
#define NEWS_ROWS      50   /* news of a reading; if there are as many, pages follow */
#define MAC_ROWS       2000

#define STRING(x)  STRING_(x)
#define STRING_(x) #x

/* The types that the tables have; what another program made otherwise is NULL, and passed over. */
#define KEY     "CASE kind WHEN 0 THEN " RQ_BLOB("key") " ELSE " RQ_TEXT("key") " END"
#define COLUMNS "seq, kind, op, " RQ_TEXT("url") ", " KEY ", " RQ_TEXT("recovery")

/* The row `applied` itself comes first. */
#define SQL_NEWS \
    "SELECT " COLUMNS " FROM " RQ_CHANGES " WHERE seq >= ? ORDER BY seq LIMIT " STRING(NEWS_ROWS)

/* A page ends before the row that follows 2 MiB. */
#define SQL_NEWS_PAGE                                                                            \
    "SELECT " COLUMNS                                                                            \
    " FROM (SELECT *, coalesce(sum(" RQ_SIZE("url") " + " RQ_SIZE("key") " + " RQ_SIZE(          \
        "recovery") ") OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 "               \
                    "PRECEDING), 0) AS before FROM (SELECT * FROM " RQ_CHANGES                   \
                    " WHERE seq >= ? ORDER BY seq LIMIT 5000)) WHERE before < 2097152 ORDER BY " \
                    "seq"

#define SQL_MACS                                                                          \
    "SELECT seq, CASE WHEN typeof(mac) = 'blob' AND length(mac) = 16 THEN hex(mac) END, " \
    "expires_at FROM " RQ_MACS " WHERE seq > ? ORDER BY seq LIMIT " STRING(MAC_ROWS)

/* --- news ----------------------------------------------------------------------------------- */

static void apply(struct rqlite_feed *f, json_t *row)
{
    struct lonely_span spans[RQLITE_SPANS_MAX];
    unsigned present = rqlite_text_read(&f->text, row, 3, 3, spans);
    struct store_row change = { .url = spans[0], .key = spans[1], .recovery = spans[2] };
    int64_t kind, op;

    if ((present & 3) != 3 || !rqlite_int(row, 1, &kind) || !rqlite_int(row, 2, &op))
        return;
    change.kind = kind == STORE_EXACT ? STORE_EXACT : STORE_GLOB;
    if (op == RQLITE_CHANGE_ADD)
        f->to.add(f->to.arg, &change);
    else if (op == RQLITE_CHANGE_REMOVE)
        f->to.remove(f->to.arg, &change);
}

/* false: the row `applied` is gone. `*count`: rows behind it. */
static bool apply_news(struct rqlite_feed *f, json_t *results, size_t *count)
{
    size_t rows = rqlite_row_count(results, 0);
    int64_t seq = 0;

    *count = 0;
    (void)rqlite_int(rqlite_row(results, 0, 0), 0, &seq);
    if (seq != f->applied)
        return false;
    if (rows < 2)
        return true;
    f->to.change_begin(f->to.arg);
    for (size_t i = 1; i < rows; i++)
        apply(f, rqlite_row(results, 0, i));
    f->to.change_end(f->to.arg);
    (void)rqlite_int(rqlite_row(results, 0, rows - 1), 0, &f->applied);
    *count = rows - 1;
    return true;
}

/* No lock: to see a mac twice does no harm, and `macs` has seen a number before it is noted. */
static void note_macs(struct rqlite_feed *f, int64_t seq)
{
    long long last = atomic_load(&f->macs_applied);

    while (last < seq && !atomic_compare_exchange_weak(&f->macs_applied, &last, seq))
        ;
}

static size_t apply_macs(struct rqlite_feed *f, json_t *results, size_t statement)
{
    size_t rows = rqlite_row_count(results, statement);
    int64_t seq = 0;

    for (size_t i = 0; i < rows; i++) {
        json_t *row = rqlite_row(results, statement, i);
        struct lonely_span code[RQLITE_SPANS_MAX];
        struct store_mac mac;
        int64_t expires;

        (void)rqlite_int(row, 0, &seq);
        (void)rqlite_text_read(&f->text, row, 1, 1, code);
        if (code[0].len != sizeof mac.code || !rqlite_int(row, 2, &expires) || expires <= 0)
            continue;
        memcpy(mac.code, code[0].ptr, sizeof mac.code);
        mac.keep_until_s = (uint64_t)expires;
        f->macs.add(f->macs.arg, &mac);
    }
    note_macs(f, seq);
    return rows;
}

enum news { NEWS_NONE, NEWS_SOME, NEWS_GAP, NEWS_ERROR };

/* One round trip. NEWS_SOME: there may be more. */
static enum news read_news(struct rqlite_feed *f, bool pages, uint64_t until_ms)
{
    struct rqlite_body body;
    enum news news = NEWS_ERROR;
    size_t changes = 0, macs = 0;
    json_t *results;

    rqlite_body_init(&body, 8192);
    rqlite_body_statement(&body, pages ? SQL_NEWS_PAGE : SQL_NEWS);
    rqlite_body_int(&body, f->applied);
    if (f->macs.add != NULL) {
        rqlite_body_statement(&body, SQL_MACS);
        rqlite_body_int(&body, atomic_load(&f->macs_applied));
    }
    (void)rqlite_body_end(&body);
    if (rqlite_read(&f->conn, RQLITE_READ_NEWS, &body, until_ms, &results) == RQLITE_OK) {
        news = apply_news(f, results, &changes) ? NEWS_NONE : NEWS_GAP;
        if (f->macs.add != NULL)
            macs = apply_macs(f, results, 1);
        /* A page may end for its bytes: only one without news is the last. */
        if (news == NEWS_NONE &&
            (macs >= MAC_ROWS || changes + 1 >= NEWS_ROWS || (pages && changes > 0)))
            news = NEWS_SOME;
    }
    json_decref(results);
    rqlite_body_fini(&body);
    return news;
}

static enum news catch_up(struct rqlite_feed *f, uint64_t until_ms)
{
    enum news news = read_news(f, false, until_ms);

    while (news == NEWS_SOME)
        news = read_news(f, true, until_ms);
    return news;
}

/* Applies everything that was committed before the call. */
static enum store_status feeder_turn(struct rqlite_feed *f, uint64_t wait_ms)
{
    enum news news = catch_up(f, rqlite_now_ms() + wait_ms);

    if (news == NEWS_GAP && rqlite_load(f))
        news = catch_up(f, rqlite_now_ms() + wait_ms);
    return news == NEWS_NONE ? STORE_OK : STORE_UNAVAILABLE;
}

/* --- the thread ----------------------------------------------------------------------------- */

/* Whoever has waited too long gets an answer, also while everything is loaded. */
void rqlite_feed_expire(struct rqlite_feed *f)
{
    uint64_t now_ms = rqlite_now_ms();
    struct list *node;

    while ((node = list_first(&f->asking)) != NULL) {
        struct store_request *r = list_entry(node, struct store_request, node);

        if (r->deadline_ms > now_ms)
            return;
        list_remove(node);
        store_request_answer(r, STORE_UNAVAILABLE);
    }
}

static void feeder_main(void *arg)
{
    struct rqlite_feed *f = arg;
    struct rqlite_cluster *cluster = f->conn.cluster;

    while (store_queue_wait(&f->queue, rqlite_is_down(cluster) ? PROBE_EVERY_MS : IDLE_WAIT_MS)) {
        uint64_t wait_ms = cluster->timeout_ms;
        bool probes = rqlite_is_down(cluster);

        if (probes && wait_ms > PROBE_MS)
            wait_ms = PROBE_MS;
        if (store_queue_take(&f->queue, REQUEST_ANY, SIZE_MAX, &f->asking) > 0 || probes)
            store_requests_answer(&f->asking, feeder_turn(f, wait_ms));
    }
}

bool rqlite_feed_open(struct rqlite_feed *f, struct rqlite_cluster *cluster,
                      const struct store_conf *conf, const struct store_feed *to, char error[256])
{
    *f = (struct rqlite_feed){ .to = *to, .macs = conf->macs };
    list_init(&f->asking);
    rqlite_text_init(&f->text);
    if (!rqlite_conn_open(&f->conn, cluster, error))
        return false;
    if (feeder_turn(f, conf->timeout_ms) != STORE_OK) {
        snprintf(error, 256, "rqlite: cannot read the subscriptions: %.180s", f->conn.trouble);
        rqlite_conn_close(&f->conn);
        rqlite_text_fini(&f->text);
        return false;
    }
    store_queue_init(&f->queue, conf->max_queued, conf->timeout_ms);
    cluster->prober = &f->queue;
    return true;
}

bool rqlite_feed_start(struct rqlite_feed *f)
{
    f->running = uv_thread_create(&f->thread, feeder_main, f) == 0;
    return f->running;
}

void rqlite_feed_close(struct rqlite_feed *f)
{
    store_queue_stop(&f->queue);
    if (f->running)
        uv_thread_join(&f->thread);
    store_queue_fini(&f->queue);
    rqlite_conn_close(&f->conn);
    rqlite_text_fini(&f->text);
}
