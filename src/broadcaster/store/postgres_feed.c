/*
 * Keeps the feed (the index) up to date from the change log, on a thread: loads everything, reads
 * what the loops' looks leave to it, and makes the loops' connections. (doc/protocol/http.md, 13)
 */
#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "mem.h"
#include "postgres_store.h"

#define BATCH_ROWS   2000    /* of news applied at once ... */
#define BATCH_BYTES  4194304 /* ... and the bytes of all but the last */
#define STRING(x)    STRING_(x)
#define STRING_(x)   #x
#define IDLE_WAIT_MS 10000
#define RETRY_MS     500 /* what failed although there is a connection */

/* The row that was applied last comes first, without what it holds. `total` is of the bytes up to a row;
 * news ends with the row that exceeds BATCH_BYTES. */
#define NEW(column) "CASE WHEN seq > $1 THEN " column " END"
#define SIZE        SIZE_OF("url") " + " SIZE_OF("key") " + " SIZE_OF("recovery")
#define LISTED                                                                        \
    "SELECT seq, mark, kind, op, " NEW("url") " AS url, " NEW("key") " AS key, " NEW( \
        "recovery") " AS recovery, CASE WHEN seq > $1 THEN " SIZE                     \
                    " ELSE 0 END AS size FROM " TABLE_CHANGES                         \
                    " WHERE seq >= $1 ORDER BY seq LIMIT 2001"
#define SQL_NEWS                                                                       \
    "SELECT seq, mark, kind, op, url, key, recovery, total FROM (SELECT *, sum(size) " \
    "OVER (ORDER BY seq) AS total FROM (" LISTED ") AS listed) AS summed "             \
    "WHERE total - size < " STRING(BATCH_BYTES) " ORDER BY seq"
#define SQL_MACS                                   \
    "SELECT seq, mac, expires_at FROM " TABLE_MACS \
    " WHERE seq > $1 ORDER BY seq LIMIT " STRING(BATCH_ROWS)

static const char *const feed_sql[F_COUNT] = {
    [F_NEWS] = SQL_NEWS,
    [F_MACS] = SQL_MACS,
    [F_NEWEST] = "SELECT seq, mark FROM " TABLE_CHANGES " ORDER BY seq DESC LIMIT 1",
};

static const struct postgres_kind kind_of_feeder = {
    .sql = feed_sql, .n = F_COUNT, .session = "SET enable_seqscan = off", .schema = true
};

const struct postgres_kind postgres_kind_of_look = {
    .sql = feed_sql,
    .n = F_LOOK_COUNT,
    .session = "SET enable_seqscan = off; LISTEN " CHANNEL_CHANGES,
    .pipeline = true,
};

/* --- news ----------------------------------------------------------------------------------- */

struct postgres_position postgres_feed_at(struct postgres_feed *f)
{
    struct postgres_position at;

    uv_mutex_lock(&f->at_lock);
    at = f->at;
    uv_mutex_unlock(&f->at_lock);
    return at;
}

static void set_at(struct postgres_feed *f, const struct postgres_position *at)
{
    uv_mutex_lock(&f->at_lock);
    f->at = *at;
    uv_mutex_unlock(&f->at_lock);
}

void postgres_news_params(struct postgres_params *p, const struct postgres_position *asked)
{
    p->n = 0;
    postgres_add_number(p, asked->seq);
}

enum postgres_news postgres_news_of(const PGresult *result, const struct postgres_position *asked)
{
    int n = PQntuples(result);

    if (n == 0 || postgres_number(result, 0, 0) != asked->seq ||
        postgres_number(result, 0, 1) != asked->mark)
        return NEWS_GAP;
    return n == 1 ? NEWS_NONE : NEWS_SOME;
}

/* false: not a row that the protocol could have made (over 65,535 bytes): another program's. */
static bool is_row(const struct store_row *row)
{
    return row->url.len <= UINT16_MAX && row->key.len <= UINT16_MAX &&
           row->recovery.len <= UINT16_MAX;
}

static void apply(struct postgres_feed *f, const PGresult *result, int i)
{
    struct store_row row = {
        .kind = postgres_number(result, i, 2) == 0 ? STORE_EXACT : STORE_GLOB,
        .url = postgres_bytes(result, i, 4),
        .key = postgres_bytes(result, i, 5),
        .recovery = postgres_bytes(result, i, 6),
    };
    int64_t op = postgres_number(result, i, 3);

    if (!is_row(&row))
        return;
    if (op == CHANGE_ADD)
        f->to.add(f->to.arg, &row);
    else if (op == CHANGE_REMOVE)
        f->to.remove(f->to.arg, &row);
}

/* Others may have applied a part of it since it was asked for. */
enum postgres_news postgres_news_apply(struct postgres_feed *f, const PGresult *result,
                                       const struct postgres_position *asked)
{
    struct postgres_position at = postgres_feed_at(f);
    enum postgres_news news = postgres_news_of(result, asked);
    int n = PQntuples(result);

    if (at.loads != asked->loads)
        return NEWS_GAP;
    if (news != NEWS_SOME)
        return news;
    f->to.change_begin(f->to.arg);
    for (int i = 1; i < n; i++) {
        int64_t seq = postgres_number(result, i, 0);

        if (seq <= at.seq)
            continue;
        apply(f, result, i);
        at.seq = seq;
        at.mark = postgres_number(result, i, 1);
    }
    f->to.change_end(f->to.arg);
    set_at(f, &at);
    return n > BATCH_ROWS || postgres_number(result, n - 1, 7) >= BATCH_BYTES ? NEWS_SOME
                                                                              : NEWS_NONE;
}

/* --- used macs ------------------------------------------------------------------------------ */

static int64_t add_mac(struct postgres_feed *f, const PGresult *result, int i)
{
    struct lonely_span code = postgres_bytes(result, i, 1);
    int64_t expires = postgres_number(result, i, 2);
    struct store_mac mac;

    if (code.len == sizeof mac.code && expires > 0) {
        memcpy(mac.code, code.ptr, sizeof mac.code);
        mac.keep_until_s = (uint64_t)expires;
        f->macs.add(f->macs.arg, &mac);
    }
    return postgres_number(result, i, 0);
}

/* No lock: to see a mac twice does no harm, and `macs` has seen a number before `applied` says so. */
enum postgres_news postgres_macs_apply(struct postgres_feed *f, const PGresult *result)
{
    long long applied = atomic_load(&f->macs_applied);
    int n = PQntuples(result);
    int64_t last = 0;

    for (int i = 0; i < n; i++)
        last = add_mac(f, result, i);
    while (applied < last && !atomic_compare_exchange_weak(&f->macs_applied, &applied, last))
        ;
    return n < BATCH_ROWS ? NEWS_NONE : NEWS_SOME;
}

/* From the newest that was seen on; with a new connection from the oldest: the server may be another,
 * which never had some of the numbers, and gives them again. */
static bool macs_catch_up(struct postgres_feed *f)
{
    enum postgres_news news = f->macs.add == NULL ? NEWS_NONE : NEWS_SOME;

    if (f->macs_read_for != f->conn.opened)
        atomic_store(&f->macs_applied, 0);
    while (news == NEWS_SOME) {
        struct postgres_params p = { 0 };
        PGresult *result;

        postgres_add_number(&p, atomic_load(&f->macs_applied));
        result = postgres_run(&f->conn, F_MACS, &p, postgres_until(&f->conn));
        if (result == NULL)
            return false;
        news = postgres_macs_apply(f, result);
        PQclear(result);
    }
    f->macs_read_for = f->conn.opened;
    return true;
}

/* --- everything ----------------------------------------------------------------------------- */

static uint32_t read_32(const char *at)
{
    uint32_t big;

    memcpy(&big, at, 4);
    return be32toh(big);
}

/* One row of COPY: the number of fields, then length and bytes of each. */
static void load_row(struct postgres_feed *f, enum store_kind kind, const char *at, size_t len)
{
    struct lonely_span fields[3] = { { NULL, 0 }, { NULL, 0 }, { NULL, 0 } };
    struct store_row row = { .kind = kind };

    if (len < 2 || at[0] != 0 || at[1] != 3) /* the end */
        return;
    at += 2;
    len -= 2;
    for (int i = 0; i < 3; i++) {
        uint32_t size = len < 4 ? UINT32_MAX : read_32(at);

        if (len < 4 || (size != UINT32_MAX && size > len - 4))
            return;
        at += 4;
        len -= 4;
        if (size == UINT32_MAX) /* NULL */
            continue;
        fields[i] = (struct lonely_span){ (const uint8_t *)at, size };
        at += size;
        len -= size;
    }
    row.url = fields[0];
    row.key = fields[1];
    row.recovery = fields[2];
    if (is_row(&row))
        f->to.add(f->to.arg, &row);
}

static bool load_kind(struct postgres_feed *f, enum store_kind kind)
{
    static const char head[11] = "PGCOPY\n\377\r\n";
    const char *sql = kind == STORE_EXACT ? "COPY " TABLE_EXACTS
                                            " (url, exact, missed_url) TO STDOUT (FORMAT binary)"
                                          : "COPY " TABLE_GLOBS
                                            " (url, glob, missed_url) TO STDOUT (FORMAT binary)";
    PGresult *result = postgres_exec(&f->conn, sql, PGRES_COPY_OUT, postgres_until(&f->conn));
    bool first = true;
    char *piece;
    int len;

    if (result == NULL)
        return false;
    PQclear(result);
    while ((len = postgres_copy_take(&f->conn, &piece, postgres_until(&f->conn))) > 0) {
        size_t skip = 0;

        if (first && len >= 19 && memcmp(piece, head, sizeof head) == 0)
            skip = 19 + read_32(piece + 15);
        if (skip <= (size_t)len)
            load_row(f, kind, piece + skip, (size_t)len - skip);
        PQfreemem(piece);
        first = false;
    }
    if (len != -1)
        return false;
    result = postgres_take(&f->conn, postgres_until(&f->conn));
    if (PQresultStatus(result) == PGRES_FATAL_ERROR)
        postgres_conn_failed(&f->conn, "load", result);
    first = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    return first;
}

/* 1: done, 0: the log is empty, -1: failed. */
static int read_newest(struct postgres_feed *f, struct postgres_position *out)
{
    PGresult *result = postgres_run(&f->conn, F_NEWEST, NULL, postgres_until(&f->conn));
    int n;

    if (result == NULL)
        return -1;
    n = PQntuples(result);
    if (n == 1) {
        out->seq = postgres_number(result, 0, 0);
        out->mark = postgres_number(result, 0, 1);
    }
    PQclear(result);
    return n;
}

static bool exec(struct postgres_feed *f, const char *sql)
{
    PGresult *result = postgres_exec(&f->conn, sql, PGRES_COMMAND_OK, postgres_until(&f->conn));

    PQclear(result);
    return result != NULL;
}

/* Inside a transaction: rows and number are of one moment. */
static bool load_snapshot(struct postgres_feed *f)
{
    struct postgres_position at = postgres_feed_at(f);

    if (read_newest(f, &at) != 1)
        return false;
    f->to.load_begin(f->to.arg);
    if (!load_kind(f, STORE_EXACT) || !load_kind(f, STORE_GLOB)) {
        f->to.load_abort(f->to.arg);
        return false;
    }
    f->to.load_end(f->to.arg);
    at.loads++;
    set_at(f, &at);
    return true;
}

/* The caller holds the lock. */
static bool load(struct postgres_feed *f)
{
    struct postgres_position newest;
    bool good;

    /* Somebody may have emptied the log. */
    if (read_newest(f, &newest) == 0 &&
        !exec(f, "BEGIN; " LOCK_CHANGES "; " SQL_FIRST_CHANGE "; COMMIT")) {
        exec(f, "ROLLBACK");
        return false;
    }
    if (!exec(f,
              "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0"))
        return false;
    good = load_snapshot(f);
    return exec(f, "COMMIT") && good;
}

/* --- the thread ----------------------------------------------------------------------------- */

/* Applies everything that was committed before the call. The caller holds the lock. */
static bool catch_up(struct postgres_feed *f)
{
    enum postgres_news news = NEWS_SOME;

    while (news == NEWS_SOME) {
        struct postgres_position at = postgres_feed_at(f);
        struct postgres_params p;
        PGresult *result;

        postgres_news_params(&p, &at);
        result = postgres_run(&f->conn, F_NEWS, &p, postgres_until(&f->conn));
        if (result == NULL)
            return false;
        news = postgres_news_apply(f, result, &at);
        PQclear(result);
    }
    return news == NEWS_NONE || load(f);
}

static bool feeder_try(struct postgres_feed *f)
{
    bool good;

    if (!postgres_conn_ready(&f->conn))
        return false;
    uv_mutex_lock(&f->lock);
    good = catch_up(f);
    uv_mutex_unlock(&f->lock);
    return good && macs_catch_up(f);
}

/* A connection may have ended unnoticed, long ago: once more with a new one. */
static enum store_status feeder_turn(struct postgres_feed *f)
{
    bool was_suspect = atomic_exchange(&f->suspect, false);
    bool was_open = f->conn.pg != NULL;
    bool good = feeder_try(f) || (was_open && f->conn.pg == NULL && feeder_try(f));

    if (good && was_suspect)
        atomic_store(&f->conn.down, false);
    else if (was_suspect)
        atomic_store(&f->suspect, true); /* nobody else would look again */
    return good ? STORE_OK : STORE_UNAVAILABLE;
}

static uint64_t idle_ms(struct postgres_feed *f)
{
    if (f->conn.pg == NULL)
        return postgres_conn_pause_ms(&f->conn);
    return atomic_load(&f->suspect) || f->slots_retry_ms > clock_mono_ms(&clock_system)
               ? RETRY_MS
               : IDLE_WAIT_MS;
}

static void feeder_main(void *arg)
{
    struct postgres_feed *f = arg;
    uint64_t wait_ms = IDLE_WAIT_MS;

    while (store_queue_wait(&f->queue, wait_ms)) {
        struct list requests;
        size_t n;

        list_init(&requests);
        /* All that were asked until now share one reading; those asked meanwhile the next one. */
        n = store_queue_take(&f->queue, REQUEST_ANY, SIZE_MAX, &requests);
        if (n > 0 || f->conn.pg == NULL || atomic_load(&f->suspect))
            store_requests_answer(&requests, feeder_turn(f));
        if (f->conn.pg != NULL && clock_mono_ms(&clock_system) >= f->slots_retry_ms &&
            !postgres_slots_serve(f))
            f->slots_retry_ms = clock_mono_ms(&clock_system) + RETRY_MS;
        wait_ms = idle_ms(f);
    }
}

bool postgres_feed_open(struct postgres_feed *f, struct postgres_place *place,
                        const struct store_conf *conf, const struct store_feed *to, char error[256])
{
    *f = (struct postgres_feed){ .to = *to, .macs = conf->macs };
    postgres_conn_init(&f->conn, &kind_of_feeder, place);
    if (!postgres_conn_open(&f->conn, error))
        return false;
    uv_mutex_init(&f->lock);
    uv_mutex_init(&f->at_lock);
    uv_mutex_init(&f->slots_lock);
    list_init(&f->slots);
    store_queue_init(&f->queue, conf->max_queued, conf->timeout_ms);
    if (load(f) && macs_catch_up(f))
        return true;
    snprintf(error, 256, "%s: cannot read the subscriptions", place->shown);
    postgres_feed_close(f);
    return false;
}

bool postgres_feed_start(struct postgres_feed *f)
{
    f->running = uv_thread_create(&f->thread, feeder_main, f) == 0;
    return f->running;
}

void postgres_feed_close(struct postgres_feed *f)
{
    store_queue_stop(&f->queue);
    if (f->running)
        uv_thread_join(&f->thread);
    store_queue_fini(&f->queue);
    uv_mutex_destroy(&f->slots_lock);
    uv_mutex_destroy(&f->at_lock);
    uv_mutex_destroy(&f->lock);
    postgres_conn_close(&f->conn);
}
