/*
 * Keeps the feed (the index) up to date from the change log: on a loop's own connection as long as
 * there is little to read (sqlite_feed_sync), else on a thread. (doc/protocol/http.md, 13)
 *
 * `applied` is the last row of the log that the feed has seen. Rows are numbered in the order of
 * the commits and pruned from the oldest, never the newest; so while the row `applied` is there,
 * what lies behind it is all the news. When it is gone, everything is loaded anew.
 */
#include <string.h>

#include "sqlite_schema.h"
#include "sqlite_store.h"

#define BATCH_ROWS   2000 /* of news applied at once */
#define STRING(x)    STRING_(x)
#define STRING_(x)   #x
#define IDLE_WAIT_MS 10000

enum feed_statement {
    F_NEWS,
    F_MACS,
    F_BEGIN,
    F_COMMIT,
    F_NEWEST,
    F_LOAD,
    F_FIRST = F_LOAD + 2,
    F_COUNT
};

/* The row `applied` itself comes first. */
#define SQL_NEWS                                                   \
    "SELECT seq, kind, op, url, key, recovery FROM " TABLE_CHANGES \
    " WHERE seq >= ?1 ORDER BY seq LIMIT 2001"

static const char *const feed_sql[F_COUNT] = {
    [F_NEWS] = SQL_NEWS,
    [F_MACS] = "SELECT seq, mac, expires_at FROM " TABLE_MACS
               " WHERE seq > ?1 ORDER BY seq LIMIT " STRING(BATCH_ROWS),
    [F_BEGIN] = "BEGIN",
    [F_COMMIT] = "COMMIT",
    [F_NEWEST] = "SELECT max(seq) FROM " TABLE_CHANGES,
    [F_LOAD] = "SELECT url, exact, missed_url FROM " TABLE_EXACTS,
    "SELECT url, glob, missed_url FROM " TABLE_GLOBS,
    [F_FIRST] = SQL_FIRST_CHANGE,
};

static const struct sqlite_conn_kind conn_of_feeder = {
    .flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
    .pragmas = "PRAGMA synchronous = FULL; PRAGMA cache_size = -8000",
    .sql = feed_sql,
    .n = F_COUNT,
};

const struct sqlite_conn_kind sqlite_conn_of_client = {
    .flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX,
    .pragmas = "",
    .sql = feed_sql,
    .n = F_MACS + 1,
};

/* --- news ----------------------------------------------------------------------------------- */

enum news {
    NEWS_NONE, /* the feed has seen everything */
    NEWS_SOME, /* there is some */
    NEWS_GAP,  /* the row `applied` is gone */
    NEWS_ERROR
};

/* Steps over the row `applied` to the first one behind it. The caller resets the statement. */
static enum news news_first(struct sqlite_feed *f, struct sqlite_conn *c)
{
    sqlite3_stmt *st = c->st[F_NEWS];
    sqlite3_int64 applied = (sqlite3_int64)atomic_load(&f->applied);
    int rc;

    sqlite3_bind_int64(st, 1, applied);
    rc = sqlite3_step(st);
    if (rc == SQLITE_DONE || (rc == SQLITE_ROW && sqlite3_column_int64(st, 0) != applied))
        return NEWS_GAP;
    if (rc == SQLITE_ROW)
        rc = sqlite3_step(st);
    if (rc == SQLITE_ROW)
        return NEWS_SOME;
    return rc == SQLITE_DONE ? NEWS_NONE : NEWS_ERROR;
}

static void apply(struct sqlite_feed *f, sqlite3_stmt *st)
{
    enum store_kind kind = sqlite3_column_int(st, 1) == 0 ? STORE_EXACT : STORE_GLOB;
    struct store_row row;

    if (!sqlite_column_row(st, 3, kind, &row))
        return;
    if (sqlite3_column_int(st, 2) == CHANGE_ADD)
        f->to.add(f->to.arg, &row);
    else if (sqlite3_column_int(st, 2) == CHANGE_REMOVE)
        f->to.remove(f->to.arg, &row);
}

/* Applies up to BATCH_ROWS; NEWS_SOME: there may be more. The caller holds the lock. */
static enum news news_apply(struct sqlite_feed *f, struct sqlite_conn *c)
{
    sqlite3_stmt *st = c->st[F_NEWS];
    enum news news = news_first(f, c);
    int rc = SQLITE_ROW;
    int n = 0;

    if (news == NEWS_SOME) {
        sqlite3_int64 last = 0;

        f->to.change_begin(f->to.arg);
        for (; rc == SQLITE_ROW; rc = sqlite3_step(st)) {
            apply(f, st);
            last = sqlite3_column_int64(st, 0);
            n++;
        }
        f->to.change_end(f->to.arg);
        atomic_store(&f->applied, (unsigned long long)last);
        if (rc != SQLITE_DONE)
            news = NEWS_ERROR;
        else if (n < BATCH_ROWS)
            news = NEWS_NONE;
    }
    sqlite3_reset(st);
    return news;
}

enum store_status sqlite_feed_sync(struct sqlite_feed *f, struct sqlite_conn *c)
{
    enum news news;

    if (!sqlite_conn_ready(c))
        return STORE_PENDING;
    news = news_first(f, c);
    if (news == NEWS_ERROR && sqlite3_errcode(c->db) != SQLITE_BUSY)
        c->faulty = true;
    sqlite3_reset(c->st[F_NEWS]);
    if (news == NEWS_NONE)
        return STORE_OK;
    /* Somebody else may be loading everything: a loop does not wait for that. */
    if (news != NEWS_SOME || uv_mutex_trylock(&f->lock) != 0)
        return STORE_PENDING;
    news = news_apply(f, c);
    uv_mutex_unlock(&f->lock);
    return news == NEWS_NONE ? STORE_OK : STORE_PENDING;
}

/* --- used macs ------------------------------------------------------------------------------ */

/* No lock: to see a mac twice does no harm, and `macs` has seen a number before `applied` says so. */
static void macs_applied(struct sqlite_feed *f, sqlite3_int64 seq)
{
    unsigned long long last = atomic_load(&f->macs_applied);

    while (last < (unsigned long long)seq &&
           !atomic_compare_exchange_weak(&f->macs_applied, &last, (unsigned long long)seq))
        ;
}

static void add_mac(struct sqlite_feed *f, sqlite3_stmt *st)
{
    struct lonely_span code = sqlite_column_span(st, 1);
    sqlite3_int64 expires = sqlite3_column_int64(st, 2);
    struct store_mac mac;

    if (code.len != sizeof mac.code || expires <= 0)
        return;
    memcpy(mac.code, code.ptr, sizeof mac.code);
    mac.keep_until_s = (uint64_t)expires;
    f->macs.add(f->macs.arg, &mac);
}

/* Applies up to BATCH_ROWS; NEWS_SOME: there may be more. */
static enum news macs_apply(struct sqlite_feed *f, struct sqlite_conn *c)
{
    sqlite3_stmt *st = c->st[F_MACS];
    sqlite3_int64 last = 0;
    int n = 0;
    int rc;

    sqlite3_bind_int64(st, 1, (sqlite3_int64)atomic_load(&f->macs_applied));
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        add_mac(f, st);
        last = sqlite3_column_int64(st, 0);
        n++;
    }
    sqlite3_reset(st);
    macs_applied(f, last);
    if (rc != SQLITE_DONE)
        return NEWS_ERROR;
    return n < BATCH_ROWS ? NEWS_NONE : NEWS_SOME;
}

enum store_status sqlite_feed_sync_macs(struct sqlite_feed *f, struct sqlite_conn *c)
{
    enum news news;

    if (f->macs.add == NULL)
        return STORE_OK;
    if (!sqlite_conn_ready(c))
        return STORE_PENDING;
    news = macs_apply(f, c);
    if (news == NEWS_ERROR && sqlite3_errcode(c->db) != SQLITE_BUSY)
        c->faulty = true;
    return news == NEWS_NONE ? STORE_OK : STORE_PENDING;
}

static int macs_catch_up(struct sqlite_feed *f)
{
    enum news news = NEWS_NONE;

    if (f->macs.add != NULL) {
        do
            news = macs_apply(f, &f->conn);
        while (news == NEWS_SOME);
    }
    return news == NEWS_NONE ? SQLITE_OK : sqlite3_errcode(f->conn.db);
}

/* --- everything ----------------------------------------------------------------------------- */

static int load_kind(struct sqlite_feed *f, enum store_kind kind)
{
    sqlite3_stmt *st = f->conn.st[F_LOAD + (size_t)kind];
    struct store_row row;
    int rc;

    while ((rc = sqlite3_step(st)) == SQLITE_ROW)
        if (sqlite_column_row(st, 0, kind, &row))
            f->to.add(f->to.arg, &row);
    sqlite3_reset(st);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int read_newest(struct sqlite_feed *f, sqlite3_int64 *out)
{
    sqlite3_stmt *st = f->conn.st[F_NEWEST];
    int rc = sqlite3_step(st);
    bool is_there = rc == SQLITE_ROW && sqlite3_column_type(st, 0) == SQLITE_INTEGER;

    if (is_there)
        *out = sqlite3_column_int64(st, 0);
    sqlite3_reset(st);
    if (rc != SQLITE_ROW)
        return rc;
    return is_there ? SQLITE_OK : SQLITE_EMPTY;
}

/* Loads inside a read transaction: rows and number are of one moment. */
static int load_snapshot(struct sqlite_feed *f)
{
    sqlite3_int64 newest = 0;
    int rc = read_newest(f, &newest);

    if (rc != SQLITE_OK)
        return rc;
    f->to.load_begin(f->to.arg);
    rc = load_kind(f, STORE_EXACT);
    if (rc == SQLITE_OK)
        rc = load_kind(f, STORE_GLOB);
    if (rc != SQLITE_OK) {
        f->to.load_abort(f->to.arg);
        return rc;
    }
    f->to.load_end(f->to.arg);
    atomic_store(&f->applied, (unsigned long long)newest);
    return SQLITE_OK;
}

/* The caller holds the lock. */
static int load(struct sqlite_feed *f)
{
    int rc = sqlite_conn_run(&f->conn, F_FIRST); /* somebody may have emptied the log */

    if (rc == SQLITE_OK)
        rc = sqlite_conn_run(&f->conn, F_BEGIN);
    if (rc != SQLITE_OK)
        return rc;
    rc = load_snapshot(f);
    if (sqlite3_get_autocommit(f->conn.db) == 0)
        (void)sqlite_conn_run(&f->conn, F_COMMIT);
    return rc;
}

/* --- the thread ----------------------------------------------------------------------------- */

/* Applies everything that was committed before the call. The caller holds the lock. */
static int catch_up(struct sqlite_feed *f)
{
    enum news news;
    int rc;

    do
        news = news_apply(f, &f->conn);
    while (news == NEWS_SOME);
    if (news == NEWS_GAP)
        return load(f);
    if (news == NEWS_NONE)
        return SQLITE_OK;
    rc = sqlite3_errcode(f->conn.db);
    return rc == SQLITE_OK ? SQLITE_ERROR : rc;
}

static enum store_status feeder_turn(struct sqlite_feed *f)
{
    int rc;

    if (!sqlite_conn_ready(&f->conn))
        return STORE_UNAVAILABLE;
    uv_mutex_lock(&f->lock);
    rc = catch_up(f);
    uv_mutex_unlock(&f->lock);
    if (rc == SQLITE_OK)
        rc = macs_catch_up(f);
    if (rc == SQLITE_OK)
        return STORE_OK;
    sqlite_conn_failed(&f->conn, "read changes", rc);
    return STORE_UNAVAILABLE;
}

static void feeder_main(void *arg)
{
    struct sqlite_feed *f = arg;

    while (store_queue_wait(&f->queue, IDLE_WAIT_MS)) {
        struct list requests;

        list_init(&requests);
        /* All that were asked until now share one reading; those asked meanwhile the next one. */
        if (store_queue_take(&f->queue, REQUEST_ANY, SIZE_MAX, &requests) > 0)
            store_requests_answer(&requests, feeder_turn(f));
    }
}

bool sqlite_feed_open(struct sqlite_feed *f, struct sqlite_conn_place *place,
                      const struct store_conf *conf, const struct store_feed *to, char error[256])
{
    int rc;

    *f = (struct sqlite_feed){ .to = *to, .macs = conf->macs };
    if (!sqlite_conn_open(&f->conn, &conn_of_feeder, place, conf->timeout_ms, error))
        return false;
    rc = load(f);
    if (rc == SQLITE_OK)
        rc = macs_catch_up(f);
    if (rc != SQLITE_OK) {
        sqlite_conn_error(&f->conn, "read the subscriptions", error);
        sqlite_conn_close(&f->conn);
        return false;
    }
    uv_mutex_init(&f->lock);
    store_queue_init(&f->queue, conf->max_queued, conf->timeout_ms);
    return true;
}

bool sqlite_feed_start(struct sqlite_feed *f)
{
    f->running = uv_thread_create(&f->thread, feeder_main, f) == 0;
    return f->running;
}

void sqlite_feed_close(struct sqlite_feed *f)
{
    store_queue_stop(&f->queue);
    if (f->running)
        uv_thread_join(&f->thread);
    store_queue_fini(&f->queue);
    uv_mutex_destroy(&f->lock);
    sqlite_conn_close(&f->conn);
}
