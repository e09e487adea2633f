/*
 * Used macs in the SQLite file: a queue that the writer empties with its groups of writes, and a mark
 * for each process that takes macs. A mark that stays behind says that its process ended without
 * having written them all. Called by sqlite_writer.c; reading what others wrote is sqlite_feed.c's.
 */
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "sqlite_schema.h"
#include "sqlite_store.h"
#include "store_process.h"

#define BATCH_MAX     4096 /* macs a commit */
#define MARK_EVERY_MS 10000

static int64_t now_s(void)
{
    return clock_wall_ns(&clock_system) / 1000000000;
}

/* --- marks ---------------------------------------------------------------------------------- */

static int set_mark(struct sqlite_writer *w)
{
    sqlite3_stmt *st = w->conn.st[W_MARK];

    sqlite3_bind_int64(st, 1, w->macs.id);
    sqlite3_bind_text(st, 2, w->macs.process, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 3, now_s());
    return sqlite_conn_run(&w->conn, W_MARK);
}

static int delete_mark(struct sqlite_writer *w, int64_t id)
{
    sqlite3_bind_int64(w->conn.st[W_UNMARK], 1, id);
    return sqlite_conn_run(&w->conn, W_UNMARK);
}

/* Deletes one mark of a process that is gone. SQLITE_ROW: done; SQLITE_DONE: there is none. */
static int delete_dead_mark(struct sqlite_writer *w)
{
    sqlite3_stmt *st = w->conn.st[W_MARKS];
    int64_t id = 0;
    int rc;

    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        const char *process = (const char *)sqlite3_column_text(st, 1);

        id = sqlite3_column_int64(st, 0);
        if (process == NULL || !store_process_is_alive(process))
            break;
    }
    sqlite3_reset(st);
    if (rc == SQLITE_ROW && (rc = delete_mark(w, id)) == SQLITE_OK)
        rc = SQLITE_ROW;
    return rc;
}

/* Inside a transaction. */
static int change_marks(struct sqlite_writer *w, bool *lost)
{
    int rc;

    *lost = false;
    while ((rc = delete_dead_mark(w)) == SQLITE_ROW)
        *lost = true;
    return rc == SQLITE_DONE ? set_mark(w) : rc;
}

bool sqlite_macs_open(struct sqlite_writer *w, const struct store_conf *conf, char error[256])
{
    struct sqlite_macs *m = &w->macs;
    bool lost = false;
    int rc;

    *m = (struct sqlite_macs){ 0 };
    store_mac_queue_init(&m->queue, conf, &w->queue);
    if (!m->queue.kept)
        return true;
    sqlite3_randomness(sizeof m->id, &m->id);
    store_process_self(m->process);
    rc = sqlite_writer_begin(w, clock_mono_ms(&clock_system) + w->timeout_ms);
    if (rc == SQLITE_OK) {
        rc = change_marks(w, &lost);
        if (rc == SQLITE_OK)
            rc = sqlite_writer_commit(w);
    }
    if (rc != SQLITE_OK) {
        sqlite_conn_error(&w->conn, "write it", error);
        sqlite_writer_rollback(w);
        store_mac_queue_fini(&m->queue);
        return false;
    }
    m->marked_at_ms = clock_mono_ms(&clock_system);
    if (lost && conf->macs.lost != NULL)
        conf->macs.lost(conf->macs.arg);
    return true;
}

/* --- writing -------------------------------------------------------------------------------- */

/* The number of the newest row ever. */
static int read_newest(struct sqlite_writer *w, uint64_t *out)
{
    sqlite3_stmt *st = w->conn.st[W_MAC_NEWEST];
    int rc = sqlite3_step(st);

    *out = rc == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
    sqlite3_reset(st);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int insert(struct sqlite_writer *w, const struct store_mac *mac)
{
    sqlite3_stmt *st = w->conn.st[W_MAC_INSERT];

    sqlite3_bind_blob(st, 1, mac->code, sizeof mac->code, SQLITE_STATIC);
    sqlite3_bind_int64(st, 2, store_seconds_up((double)mac->keep_until_s));
    return sqlite_conn_run(&w->conn, W_MAC_INSERT);
}

static int refresh_mark(struct sqlite_writer *w)
{
    uint64_t now = clock_mono_ms(&clock_system);

    if (now - w->macs.marked_at_ms < MARK_EVERY_MS)
        return SQLITE_OK;
    w->macs.marked_at_ms = now;
    return set_mark(w); /* another process that cannot see ours may have deleted it */
}

int sqlite_macs_write(struct sqlite_writer *w)
{
    struct sqlite_macs *m = &w->macs;
    const struct store_mac *macs;
    size_t n = store_mac_queue_batch(&m->queue, BATCH_MAX, &macs);
    int rc = SQLITE_OK;

    if (n == 0)
        return rc;
    rc = read_newest(w, &m->before);
    if (rc == SQLITE_OK)
        rc = refresh_mark(w);
    for (size_t i = 0; rc == SQLITE_OK && i < n; i++)
        rc = insert(w, &macs[i]);
    m->last = (uint64_t)sqlite3_last_insert_rowid(w->conn.db);
    return rc;
}

void sqlite_macs_written(struct sqlite_writer *w)
{
    struct sqlite_macs *m = &w->macs;
    unsigned long long before = m->before;

    if (m->queue.n_batch == 0)
        return;
    store_mac_queue_done(&m->queue);
    /* Our own rows need not be read again. If others wrote between, they are, which does no harm. */
    atomic_compare_exchange_strong(m->applied, &before, m->last);
}

bool sqlite_macs_prune(struct sqlite_writer *w)
{
    sqlite3_stmt *stale = w->conn.st[W_MAC_STALE];
    int changed = 0;
    int rc;

    sqlite3_bind_int64(stale, 1, now_s());
    rc = sqlite3_step(stale);
    sqlite3_reset(stale);
    /* What is pruned is no request's concern: it does not wait for the lock. */
    if (rc != SQLITE_ROW || sqlite_conn_run(&w->conn, W_BEGIN) != SQLITE_OK)
        return false;
    sqlite3_bind_int64(w->conn.st[W_MAC_PRUNE], 1, now_s());
    if (sqlite_writer_change(w, W_MAC_PRUNE, &changed) == SQLITE_OK)
        return sqlite_writer_commit(w) == SQLITE_OK && changed > 0;
    sqlite_writer_rollback(w);
    return false;
}

/* --- the end -------------------------------------------------------------------------------- */

/* One transaction; the last one takes the mark away. */
static int write_rest(struct sqlite_writer *w)
{
    struct sqlite_macs *m = &w->macs;
    int rc = sqlite_writer_begin(w, clock_mono_ms(&clock_system) + w->timeout_ms);

    if (rc != SQLITE_OK)
        return rc;
    rc = sqlite_macs_write(w);
    if (rc == SQLITE_OK && store_mac_queue_is_last(&m->queue))
        rc = delete_mark(w, m->id);
    if (rc != SQLITE_OK) {
        sqlite_conn_failed(&w->conn, "write used macs", rc);
        sqlite_writer_rollback(w);
        return rc;
    }
    rc = sqlite_writer_commit(w);
    if (rc == SQLITE_OK)
        sqlite_macs_written(w);
    return rc;
}

void sqlite_macs_close(struct sqlite_writer *w)
{
    if (!w->macs.queue.kept)
        return;
    do {
        if (!sqlite_conn_ready(&w->conn) || write_rest(w) != SQLITE_OK)
            break; /* the mark stays and tells the next one */
    } while (store_mac_queue_waits(&w->macs.queue));
    store_mac_queue_fini(&w->macs.queue);
}
