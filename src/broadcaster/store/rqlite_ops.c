/*
 * What each request says to rqlite, and what its answer is. Called by the writer, which puts many
 * into one transaction, and by SET. (doc/protocol/http.md, 11 to 13)
 */
#include <string.h>

#include "rqlite_store.h"

/* By kind. Parameters are bytes, so BLOBs; what is TEXT in the table is made so. */
#define TEXT     "CAST(? AS TEXT)"
#define OF_EXACT " WHERE url = " TEXT " AND exact = ?"
#define OF_GLOB  " WHERE url = " TEXT " AND glob = " TEXT
#define NEW_EXACT \
    "INSERT INTO " RQ_EXACTS " (url, exact, missed_url) VALUES (" TEXT ", ?, " TEXT ")"
#define NEW_GLOB \
    "INSERT INTO " RQ_GLOBS " (url, glob, missed_url) VALUES (" TEXT ", " TEXT ", " TEXT ")"
#define SAME_TARGET                                    \
    " DO UPDATE SET missed_url = excluded.missed_url " \
    "WHERE missed_url IS NOT excluded.missed_url"

#define SET_MISSED(topic)                                                              \
    " SET missed_lock_id = NULL, missed_lock_expires_at = NULL, missed_attempts = ?, " \
    "missed_next_retry_at = ?" topic
#define SET_CLEAR(topic)                                                                  \
    " SET missed_lock_id = NULL, missed_lock_expires_at = NULL, missed_attempts = NULL, " \
    "missed_next_retry_at = NULL" topic

/* Due, not locked (or the lock has expired), and such that the protocol can carry it. */
#define DUE(key, table)                                                                          \
    " FROM " table " WHERE missed_next_retry_at IS NOT NULL AND missed_next_retry_at <= ?1 AND " \
    "(missed_lock_id IS NULL OR missed_lock_expires_at IS NULL OR "                              \
    "missed_lock_expires_at <= ?1) AND "                                                         \
    "typeof(missed_url) = 'text' AND length(CAST(missed_url AS BLOB)) BETWEEN 1 AND 65535"       \
    " AND typeof(url) = 'text' AND length(CAST(url AS BLOB)) <= 65535 AND "                      \
    "length(CAST(" key " AS BLOB)) <= 65535"
#define LOCK(key, table)                                                                \
    "UPDATE " table " SET missed_lock_id = ?2, missed_lock_expires_at = ?3 WHERE id = " \
    "(SELECT id" DUE(key, table) " ORDER BY missed_next_retry_at, id LIMIT 1)"
#define LOCKED(table) table " WHERE missed_next_retry_at IS NOT NULL AND missed_lock_id = ?"
#define ITEM(kind, key, topic, table)                                            \
    "SELECT " kind ", hex(url), hex(" key "), hex(missed_url), hex(" topic "), " \
    "missed_attempts FROM " LOCKED(table)

enum { S_INSERT, S_DELETE, S_PUT, S_MISSED, S_RETRY, S_CLEAR, S_LOCK, S_COUNT };

static const char *const sql[S_COUNT][2] = {
    [S_INSERT] = { NEW_EXACT " ON CONFLICT DO NOTHING", NEW_GLOB " ON CONFLICT DO NOTHING" },
    [S_DELETE] = { "DELETE FROM " RQ_EXACTS OF_EXACT, "DELETE FROM " RQ_GLOBS OF_GLOB },
    [S_PUT] = { NEW_EXACT " ON CONFLICT (exact, url)" SAME_TARGET,
                NEW_GLOB " ON CONFLICT (glob, url)" SAME_TARGET },
    [S_MISSED] = { "UPDATE " RQ_EXACTS SET_MISSED("") OF_EXACT,
                   "UPDATE " RQ_GLOBS SET_MISSED(", missed_topic = ?") OF_GLOB },
    [S_RETRY] = { "UPDATE " RQ_EXACTS SET_MISSED("") OF_EXACT " AND missed_lock_id = ?",
                  "UPDATE " RQ_GLOBS SET_MISSED("") OF_GLOB " AND missed_lock_id = ?" },
    [S_CLEAR] = { "UPDATE " RQ_EXACTS SET_CLEAR("") OF_EXACT " AND missed_lock_id = ?",
                  "UPDATE " RQ_GLOBS SET_CLEAR(", missed_topic = NULL") OF_GLOB
                  " AND missed_lock_id = ?" },
    /* The exact topic that is due, unless a glob is due longer; then that glob. */
    [S_LOCK] = { LOCK("exact", RQ_EXACTS) " AND missed_next_retry_at <= coalesce((SELECT "
                                          "min(missed_next_retry_at)" DUE(
                                              "glob", RQ_GLOBS) "), missed_next_retry_at)",
                 LOCK(
                     "glob",
                     RQ_GLOBS) " AND NOT EXISTS (SELECT 1 FROM " RQ_EXACTS
                               " WHERE missed_next_retry_at IS NOT NULL AND missed_lock_id = ?2)" },
};

/* --- statements ----------------------------------------------------------------------------- */

static void add_row(struct rqlite_body *body, int statement, const struct store_row *row)
{
    rqlite_body_statement(body, sql[statement][row->kind]);
    rqlite_body_bytes(body, row->url);
    rqlite_body_bytes(body, row->key);
}

void rqlite_op_put(struct rqlite_body *body, const struct store_row *row)
{
    add_row(body, S_PUT, row);
    rqlite_body_bytes_or_null(body, row->recovery);
}

void rqlite_op_delete(struct rqlite_body *body, const struct store_row *row)
{
    add_row(body, S_DELETE, row);
}

static void add_missed(struct rqlite_body *body, int statement, const struct store_request *r)
{
    rqlite_body_statement(body, sql[statement][r->row.kind]);
    if (statement != S_CLEAR) {
        rqlite_body_int(body, r->attempts);
        rqlite_body_int(body, r->due_s);
    }
    if (statement == S_MISSED && r->row.kind == STORE_GLOB)
        rqlite_body_bytes(body, r->topic);
    rqlite_body_bytes(body, r->row.url);
    rqlite_body_bytes(body, r->row.key);
    if (statement != S_MISSED)
        rqlite_body_int(body, r->lock_id);
}

/* Two statements, of which at most one finds something. */
static void add_lock(struct rqlite_body *body, struct store_request *r)
{
    if (uv_random(NULL, NULL, &r->lock_id, sizeof r->lock_id, 0, NULL) != 0)
        body->failed = true;
    for (int kind = STORE_EXACT; kind <= STORE_GLOB; kind++) {
        rqlite_body_statement(body, sql[S_LOCK][kind]);
        rqlite_body_int(body, r->due_s);
        rqlite_body_int(body, r->lock_id);
        rqlite_body_int(body, r->lock_until_s);
    }
}

void rqlite_op_add(struct rqlite_batches *b, struct store_request *r)
{
    struct rqlite_body *body = &b->body;

    switch (r->op) {
    case REQUEST_SUBSCRIBE:
        add_row(body, S_INSERT, &r->row);
        rqlite_body_bytes_or_null(body, r->row.recovery);
        break;
    case REQUEST_UNSUBSCRIBE:
        rqlite_op_delete(body, &r->row);
        break;
    case REQUEST_MISSED_UPSERT:
        add_missed(body, S_MISSED, r);
        break;
    case REQUEST_MISSED_CLEAR:
        add_missed(body, S_CLEAR, r);
        break;
    case REQUEST_MISSED_RETRY:
        add_missed(body, S_RETRY, r);
        break;
    case REQUEST_MISSED_LOCK:
        add_lock(body, r);
        break;
    case REQUEST_SET:
    case REQUEST_CHECK:
    case REQUEST_SYNC:
        body->failed = true; /* never in a batch */
        break;
    }
}

/* --- answers -------------------------------------------------------------------------------- */

static enum store_status status_of(enum request_op op, bool changed)
{
    if (changed || op == REQUEST_MISSED_UPSERT) /* that also when the subscription is gone */
        return STORE_OK;
    return op == REQUEST_UNSUBSCRIBE ? STORE_NOT_FOUND : STORE_CONFLICT;
}

static bool keep_item(struct store_request *r, json_t *row)
{
    struct lonely_span spans[RQLITE_SPANS_MAX];
    struct store_missed item = { .lock_id = r->lock_id };
    struct rqlite_text text;
    int64_t kind, attempts;
    bool kept;

    rqlite_text_init(&text);
    (void)rqlite_text_read(&text, row, 1, 4, spans);
    (void)rqlite_int(row, 0, &kind);
    (void)rqlite_int(row, 5, &attempts);
    item.kind = kind == STORE_EXACT ? STORE_EXACT : STORE_GLOB;
    item.url = spans[0];
    item.key = spans[1];
    item.recovery = spans[2];
    item.topic = spans[3];
    item.attempts = attempts < 0 ? 0 : attempts > UINT32_MAX ? UINT32_MAX : (uint32_t)attempts;
    kept = store_request_keep_missed(r, &item);
    rqlite_text_fini(&text);
    return kept;
}

/* Reads what the request has locked, if anything. */
static enum store_status read_locked(struct rqlite_batches *b, struct store_request *r,
                                     uint64_t until_ms)
{
    enum store_status status = STORE_UNAVAILABLE; /* the lock will expire */
    struct rqlite_body body;
    json_t *results;

    rqlite_body_init(&body, 4096);
    rqlite_body_statement(&body, ITEM("0", "exact", "exact", RQ_EXACTS) " UNION ALL " ITEM(
                                     "1", "glob", "missed_topic", RQ_GLOBS));
    rqlite_body_int(&body, r->lock_id);
    rqlite_body_int(&body, r->lock_id);
    (void)rqlite_body_end(&body);
    if (rqlite_read(&b->conn, RQLITE_READ, &body, until_ms, &results) == RQLITE_OK) {
        if (rqlite_row_count(results, 0) == 0)
            status = STORE_NOT_FOUND;
        else if (keep_item(r, rqlite_row(results, 0, 0)))
            status = STORE_OK;
    }
    json_decref(results);
    rqlite_body_fini(&body);
    return status;
}

void rqlite_ops_done(struct rqlite_batches *b, struct list *requests, json_t *results,
                     uint64_t until_ms)
{
    size_t at = 0;

    list_foreach (requests, node, next) {
        struct store_request *r = list_entry(node, struct store_request, node);
        bool changed = rqlite_rows_affected(results, at++) > 0;

        if (r->op == REQUEST_MISSED_LOCK) {
            changed = rqlite_rows_affected(results, at++) > 0 || changed;
            r->status = changed ? read_locked(b, r, until_ms) : STORE_NOT_FOUND;
        } else {
            r->status = status_of(r->op, changed);
        }
    }
}

/* --- answers when that of rqlite is lost ---------------------------------------------------- */

static bool same(struct lonely_span a, struct lonely_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/*
 * The changes of a row alternate, so its requests, in their order, explain them: the next change of
 * the row is the request's, if it is of the request's kind; else the request changed nothing. A change
 * that is explained is taken away.
 */
static bool take_change(json_t *changes, const struct store_request *r)
{
    int64_t wanted = r->op == REQUEST_SUBSCRIBE ? RQLITE_CHANGE_ADD : RQLITE_CHANGE_REMOVE;
    json_t *rows = json_object_get(json_array_get(changes, 0), "values");
    struct lonely_span spans[RQLITE_SPANS_MAX];
    struct rqlite_text text;
    bool taken = false;

    rqlite_text_init(&text);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        int64_t kind, op;

        if (!rqlite_int(row, 0, &kind) || !rqlite_int(row, 1, &op) || kind != (int64_t)r->row.kind)
            continue;
        (void)rqlite_text_read(&text, row, 2, 2, spans);
        if (!same(spans[0], r->row.url) || !same(spans[1], r->row.key))
            continue;
        taken = op == wanted;
        if (taken)
            (void)json_array_remove(rows, i);
        break;
    }
    rqlite_text_fini(&text);
    return taken;
}

void rqlite_ops_applied(struct rqlite_batches *b, struct list *requests, uint64_t until_ms)
{
    json_t *changes = rqlite_batch_changes(b, until_ms);

    list_foreach (requests, node, next) {
        struct store_request *r = list_entry(node, struct store_request, node);

        r->status = STORE_UNAVAILABLE; /* of what is pending: it comes again */
        if (r->op == REQUEST_MISSED_UPSERT)
            r->status = STORE_OK;
        else if (r->op == REQUEST_MISSED_LOCK)
            r->status = read_locked(b, r, until_ms);
        else if ((r->op == REQUEST_SUBSCRIBE || r->op == REQUEST_UNSUBSCRIBE) && changes != NULL)
            r->status = status_of(r->op, take_change(changes, r));
    }
    json_decref(changes);
}
