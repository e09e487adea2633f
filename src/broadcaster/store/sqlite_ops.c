/*
 * The statements of the writer and what each request does with them, inside a transaction that
 * sqlite_writer.c has begun. (doc/protocol/http.md, 11 to 13)
 */
#include "sqlite_store.h"

#define PAIR(before, exact_after, glob_after) before exact_after, before glob_after
#define OF_ROW(key)                           " WHERE url = ?1 AND " key " = ?2"

/* Due, not locked (or the lock has expired), and such that the protocol can carry it. */
#define DUE(topic, key, table)                                                             \
    "SELECT id, url, " key ", missed_url, " topic ", missed_attempts, "                    \
    "missed_next_retry_at FROM " table                                                     \
    " WHERE missed_next_retry_at IS NOT NULL AND missed_next_retry_at <= ?1 AND "          \
    "(missed_lock_id IS NULL OR missed_lock_expires_at IS NULL OR "                        \
    "missed_lock_expires_at <= ?1) AND "                                                   \
    "typeof(missed_url) = 'text' AND length(CAST(missed_url AS BLOB)) BETWEEN 1 AND 65535" \
    " AND typeof(url) = 'text' AND length(CAST(url AS BLOB)) <= 65535 AND "                \
    "length(CAST(" key " AS BLOB)) <= 65535 ORDER BY missed_next_retry_at, id LIMIT 1"

#define SET_MISSED(topic, attempts, at)                                                      \
    " SET missed_lock_id = NULL, missed_lock_expires_at = NULL, missed_attempts = " attempts \
    ", missed_next_retry_at = " at topic

/* Expiry grows with the number but for minutes, so it needs no index. */
#define OLDEST_MACS(column) \
    "SELECT " column " FROM " TABLE_MACS " ORDER BY seq LIMIT " STRING(MAC_PRUNE_BATCH)
#define STRING(x)  STRING_(x)
#define STRING_(x) #x

#define UPDATE_EXACTS "UPDATE " TABLE_EXACTS
#define UPDATE_GLOBS  "UPDATE " TABLE_GLOBS

const char *const sqlite_writer_sql[W_COUNT] = {
    [W_BEGIN] = "BEGIN IMMEDIATE",
    [W_COMMIT] = "COMMIT",
    [W_ROLLBACK] = "ROLLBACK",
    [W_LOG_OLDEST] = "SELECT seq, at FROM " TABLE_CHANGES " ORDER BY seq LIMIT ?1",
    [W_LOG_NEWEST] = "SELECT max(seq) FROM " TABLE_CHANGES,
    [W_LOG_PRUNE] = "DELETE FROM " TABLE_CHANGES " WHERE seq <= ?1",

    [W_MAC_INSERT] = "INSERT INTO " TABLE_MACS " (mac, expires_at) VALUES (?1, ?2)",
    [W_MAC_NEWEST] = "SELECT seq FROM sqlite_sequence WHERE name = '" TABLE_MACS "'",
    [W_MAC_STALE] = "SELECT 1 FROM (" OLDEST_MACS("expires_at") ") WHERE expires_at <= ?1 LIMIT 1",
    [W_MAC_PRUNE] =
        "DELETE FROM " TABLE_MACS " WHERE seq IN (" OLDEST_MACS("seq") ") AND expires_at <= ?1",
    [W_MARKS] = "SELECT id, process FROM " TABLE_MARKS,
    [W_MARK] = "INSERT OR REPLACE INTO " TABLE_MARKS " (id, process, at) VALUES (?1, ?2, ?3)",
    [W_UNMARK] = "DELETE FROM " TABLE_MARKS " WHERE id = ?1",

    [W_INSERT] = "INSERT INTO " TABLE_EXACTS
                 " (url, exact, missed_url) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    "INSERT INTO " TABLE_GLOBS
    " (url, glob, missed_url) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",

    [W_DELETE] = PAIR("DELETE FROM ", TABLE_EXACTS OF_ROW("exact"), TABLE_GLOBS OF_ROW("glob")),

    [W_RECOVERY] = PAIR("UPDATE ", TABLE_EXACTS " SET missed_url = ?3" OF_ROW("exact"),
                        TABLE_GLOBS " SET missed_url = ?3" OF_ROW("glob")),

    [W_MISSED_UPSERT] = UPDATE_EXACTS SET_MISSED("", "?3", "?4") OF_ROW("exact"),
    UPDATE_GLOBS SET_MISSED(", missed_topic = ?5", "?3", "?4") OF_ROW("glob"),

    [W_MISSED_DUE] = DUE("exact", "exact", TABLE_EXACTS),
    DUE("missed_topic", "glob", TABLE_GLOBS),

    [W_MISSED_LOCK] =
        PAIR("UPDATE ",
             TABLE_EXACTS " SET missed_lock_id = ?2, missed_lock_expires_at = ?3 WHERE id = ?1",
             TABLE_GLOBS " SET missed_lock_id = ?2, missed_lock_expires_at = ?3 WHERE id = ?1"),

    [W_MISSED_CLEAR] =
        UPDATE_EXACTS SET_MISSED("", "NULL", "NULL") OF_ROW("exact") " AND missed_lock_id = ?3",
    UPDATE_GLOBS SET_MISSED(", missed_topic = NULL", "NULL", "NULL")
        OF_ROW("glob") " AND missed_lock_id = ?3",

    [W_MISSED_RETRY] =
        UPDATE_EXACTS SET_MISSED("", "?4", "?5") OF_ROW("exact") " AND missed_lock_id = ?3",
    UPDATE_GLOBS SET_MISSED("", "?4", "?5") OF_ROW("glob") " AND missed_lock_id = ?3",

    [W_PAGE] = SCAN_EXACTS,
    SCAN_GLOBS,
};

static sqlite3_stmt *bound_row(struct sqlite_writer *w, size_t pair, const struct store_row *row)
{
    sqlite3_stmt *st = w->conn.st[W_OF(pair, row->kind)];

    /* Binding fails only on a statement in use, or for sizes far beyond those of a row. */
    sqlite_bind_text(st, 1, row->url);
    sqlite_bind_key(st, 2, row->kind, row->key);
    return st;
}

int sqlite_op_insert(struct sqlite_writer *w, const struct store_row *row, int *changed)
{
    sqlite_bind_text_or_null(bound_row(w, W_INSERT, row), 3, row->recovery);
    return sqlite_writer_change(w, W_OF(W_INSERT, row->kind), changed);
}

int sqlite_op_delete(struct sqlite_writer *w, const struct store_row *row, int *changed)
{
    bound_row(w, W_DELETE, row);
    return sqlite_writer_change(w, W_OF(W_DELETE, row->kind), changed);
}

int sqlite_op_recovery(struct sqlite_writer *w, const struct store_row *row, int *changed)
{
    sqlite_bind_text_or_null(bound_row(w, W_RECOVERY, row), 3, row->recovery);
    return sqlite_writer_change(w, W_OF(W_RECOVERY, row->kind), changed);
}

static int run_subscribe(struct sqlite_writer *w, struct store_request *r)
{
    int changed;
    int rc = sqlite_op_insert(w, &r->row, &changed);

    r->status = changed > 0 ? STORE_OK : STORE_CONFLICT;
    return rc;
}

static int run_unsubscribe(struct sqlite_writer *w, struct store_request *r)
{
    int changed;
    int rc = sqlite_op_delete(w, &r->row, &changed);

    r->status = changed > 0 ? STORE_OK : STORE_NOT_FOUND;
    return rc;
}

static int run_missed_upsert(struct sqlite_writer *w, struct store_request *r)
{
    sqlite3_stmt *st = bound_row(w, W_MISSED_UPSERT, &r->row);
    int changed;

    sqlite3_bind_int64(st, 3, r->attempts);
    sqlite3_bind_int64(st, 4, r->due_s);
    if (r->row.kind == STORE_GLOB)
        sqlite_bind_blob(st, 5, r->topic);
    r->status = STORE_OK; /* also when the subscription is gone */
    return sqlite_writer_change(w, W_OF(W_MISSED_UPSERT, r->row.kind), &changed);
}

static int run_missed_end(struct sqlite_writer *w, struct store_request *r)
{
    size_t pair = r->op == REQUEST_MISSED_CLEAR ? W_MISSED_CLEAR : W_MISSED_RETRY;
    sqlite3_stmt *st = bound_row(w, pair, &r->row);
    int changed;
    int rc;

    sqlite3_bind_int64(st, 3, r->lock_id);
    if (r->op == REQUEST_MISSED_RETRY) {
        sqlite3_bind_int64(st, 4, r->attempts);
        sqlite3_bind_int64(st, 5, r->due_s);
    }
    rc = sqlite_writer_change(w, W_OF(pair, r->row.kind), &changed);
    r->status = changed > 0 ? STORE_OK : STORE_CONFLICT;
    return rc;
}

/* --- locking what is due -------------------------------------------------------------------- */

/* Steps to the oldest of `kind`. SQLITE_ROW, or SQLITE_DONE: none, or the error. */
static int due_step(struct sqlite_writer *w, enum store_kind kind, int64_t now_s)
{
    sqlite3_stmt *st = w->conn.st[W_OF(W_MISSED_DUE, kind)];

    sqlite3_bind_int64(st, 1, now_s);
    return sqlite3_step(st);
}

static uint32_t column_attempts(sqlite3_stmt *st, int at)
{
    sqlite3_int64 n = sqlite3_column_int64(st, at);

    if (n < 0)
        return 0;
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static int lock_row(struct sqlite_writer *w, struct store_request *r, enum store_kind kind)
{
    sqlite3_stmt *due = w->conn.st[W_OF(W_MISSED_DUE, kind)];
    sqlite3_stmt *lock = w->conn.st[W_OF(W_MISSED_LOCK, kind)];
    struct store_missed item = { .kind = kind };
    int changed;

    sqlite3_randomness(sizeof item.lock_id, &item.lock_id);
    item.url = sqlite_column_span(due, 1);
    item.key = sqlite_column_span(due, 2);
    item.recovery = sqlite_column_span(due, 3);
    item.topic = sqlite_column_span(due, 4);
    item.attempts = column_attempts(due, 5);
    if (!store_request_keep_missed(r, &item))
        return SQLITE_NOMEM;
    sqlite3_bind_int64(lock, 1, sqlite3_column_int64(due, 0));
    sqlite3_bind_int64(lock, 2, item.lock_id);
    sqlite3_bind_int64(lock, 3, r->lock_until_s);
    sqlite3_reset(due);
    r->status = STORE_OK;
    return sqlite_writer_change(w, W_OF(W_MISSED_LOCK, kind), &changed);
}

static int run_missed_lock(struct sqlite_writer *w, struct store_request *r)
{
    sqlite3_stmt *exact = w->conn.st[W_OF(W_MISSED_DUE, STORE_EXACT)];
    sqlite3_stmt *glob = w->conn.st[W_OF(W_MISSED_DUE, STORE_GLOB)];
    int exact_rc = due_step(w, STORE_EXACT, r->due_s);
    int glob_rc = due_step(w, STORE_GLOB, r->due_s);
    int rc = SQLITE_OK;

    r->status = STORE_NOT_FOUND;
    if (exact_rc != SQLITE_ROW && exact_rc != SQLITE_DONE)
        rc = exact_rc;
    else if (glob_rc != SQLITE_ROW && glob_rc != SQLITE_DONE)
        rc = glob_rc;
    else if (exact_rc == SQLITE_ROW &&
             (glob_rc == SQLITE_DONE ||
              sqlite3_column_int64(exact, 6) <= sqlite3_column_int64(glob, 6)))
        rc = lock_row(w, r, STORE_EXACT);
    else if (glob_rc == SQLITE_ROW)
        rc = lock_row(w, r, STORE_GLOB);
    sqlite3_reset(exact);
    sqlite3_reset(glob);
    return rc;
}

int sqlite_op_run(struct sqlite_writer *w, struct store_request *r)
{
    switch (r->op) {
    case REQUEST_SUBSCRIBE:
        return run_subscribe(w, r);
    case REQUEST_UNSUBSCRIBE:
        return run_unsubscribe(w, r);
    case REQUEST_MISSED_UPSERT:
        return run_missed_upsert(w, r);
    case REQUEST_MISSED_LOCK:
        return run_missed_lock(w, r);
    case REQUEST_MISSED_CLEAR:
    case REQUEST_MISSED_RETRY:
        return run_missed_end(w, r);
    case REQUEST_SET:
    case REQUEST_CHECK:
    case REQUEST_SYNC:
        break; /* never in a batch */
    }
    return SQLITE_MISUSE;
}
