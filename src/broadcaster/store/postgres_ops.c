/*
 * The statements of the writer and what each request does with them, inside a transaction that
 * postgres_writer.c has begun. (doc/protocol/http.md, 11 to 13)
 */
#include <string.h>

#include "postgres_store.h"

#define OF_KEY(key)                           "sha256(" key ") = sha256($2) AND " key " = $2"
#define OF_ROW(key)                           " WHERE " OF_KEY(key) " AND " OF_URL("$1")
#define PAIR(before, exact_after, glob_after) before exact_after, before glob_after

#define SET_MISSED(topic, attempts, at)                                                      \
    " SET missed_lock_id = NULL, missed_lock_expires_at = NULL, missed_attempts = " attempts \
    ", missed_next_retry_at = " at topic

/* The row of a table longest due: not locked, or the lock has expired; and such that the protocol can
 * carry it. Rows that another one is just locking are passed over. */
#define DUE(table, key)                                                             \
    "SELECT id, missed_next_retry_at AS at FROM " table                             \
    " WHERE missed_next_retry_at IS NOT NULL AND missed_next_retry_at <= $1 AND "   \
    "(missed_lock_id IS NULL OR missed_lock_expires_at IS NULL OR "                 \
    "missed_lock_expires_at <= $1) AND length(missed_url) BETWEEN 1 AND 65535 AND " \
    "length(url) <= 65535 AND length(" key ") <= 65535 "                            \
    "ORDER BY missed_next_retry_at LIMIT 1 FOR UPDATE SKIP LOCKED"
#define TAKE(table, key, topic, which)                                                  \
    "UPDATE " table " SET missed_lock_id = $2, missed_lock_expires_at = $3 WHERE id = " \
    "(" which ") RETURNING url, " key " AS key, missed_url, " topic " AS topic, missed_attempts"

#define UPDATE_EXACTS "UPDATE " TABLE_EXACTS
#define UPDATE_GLOBS  "UPDATE " TABLE_GLOBS

/* Of a SET: several keys of one url. */
#define LISTED(key)                                                                        \
    " listed WHERE sha256(t." key ") = sha256(listed.key) AND t." key " = listed.key AND " \
    "sha256(t.url) = sha256($1) AND t.url = $1"
#define LISTED_KEYS "unnest($2::bytea[]) AS l(key)"
#define LISTED_ROWS "unnest($2::bytea[], $3::bytea[]) AS l(key, recovery)"

/* The oldest rows, as far as all are old, and never the newest: so who finds the last row that it has
 * applied has missed nothing. */
#define LOG_PRUNE                                                                      \
    "WITH oldest AS (SELECT seq, at FROM " TABLE_CHANGES " ORDER BY seq LIMIT 1000), " \
    "newest AS (SELECT max(seq) AS seq FROM " TABLE_CHANGES "), "                      \
    "kept AS (SELECT min(seq) AS seq FROM oldest WHERE "                               \
    "at >= extract(epoch FROM clock_timestamp())::bigint - 3600 AND "                  \
    "seq > (SELECT seq FROM newest) - 1000000) "                                       \
    "DELETE FROM " TABLE_CHANGES " WHERE seq IN (SELECT seq FROM oldest) AND "         \
    "seq < coalesce((SELECT seq FROM kept), 9223372036854775807) AND "                 \
    "seq < (SELECT seq FROM newest)"

const char *const postgres_writer_sql[W_COUNT] = {
    [W_BEGIN] = "BEGIN",
    [W_COMMIT] = "COMMIT",
    [W_ROLLBACK] = "ROLLBACK",
    /* Too late is a division by zero; the commit then waits for a standby as long as it takes. */
    [W_GUARD] = "SELECT 1 / (extract(epoch FROM clock_timestamp()) * 1000 <= $1::bigint)::int, "
                "set_config('statement_timeout', '0', true)",
    [W_LOCK] = LOCK_CHANGES,
    [W_LOG_PRUNE] = LOG_PRUNE,

    [W_MAC_LOCK] = LOCK_MACS,
    [W_MAC_INSERT] =
        "WITH added AS (INSERT INTO " TABLE_MACS " (mac, expires_at) SELECT mac, expires_at FROM "
        "unnest($1::bytea[], $2::bigint[]) AS m(mac, expires_at) RETURNING seq) SELECT max(seq), "
        "coalesce((SELECT max(seq) FROM " TABLE_MACS "), 0) FROM added",
    [W_MAC_PRUNE] = "DELETE FROM " TABLE_MACS " WHERE seq IN (SELECT seq FROM " TABLE_MACS
                    " ORDER BY seq LIMIT 10000) AND "
                    "expires_at <= extract(epoch FROM clock_timestamp())::bigint",
    [W_MARKS] =
        "SELECT id, process, extract(epoch FROM clock_timestamp())::bigint - at FROM " TABLE_MARKS,
    [W_MARK] = "INSERT INTO " TABLE_MARKS " (id, process, at) VALUES ($1, convert_from($2::bytea, "
               "'UTF8'), extract(epoch FROM clock_timestamp())) ON CONFLICT (id) DO UPDATE SET "
               "at = excluded.at",
    [W_UNMARK] = "DELETE FROM " TABLE_MARKS " WHERE id = $1",

    [W_MISSED_LOCK] = "WITH e AS (" DUE(TABLE_EXACTS, "exact") "), g AS (" DUE(
        TABLE_GLOBS,
        "glob") "), "
                "le AS (" TAKE(TABLE_EXACTS, "exact", "exact",
                               "SELECT id FROM e WHERE NOT EXISTS (SELECT FROM g WHERE g.at < "
                               "e.at)") "), "
                                        "lg AS (" TAKE(
                                            TABLE_GLOBS, "glob", "missed_topic",
                                            "SELECT id FROM g WHERE NOT EXISTS (SELECT FROM e "
                                            "WHERE e.at <= g.at)") ") "
                                                                   "SELECT 0::bigint, * FROM le "
                                                                   "UNION ALL SELECT 1, * FROM lg",

    [W_INSERT] = "INSERT INTO " TABLE_EXACTS
                 " (url, exact, missed_url) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    "INSERT INTO " TABLE_GLOBS
    " (url, glob, missed_url) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",

    [W_DELETE] = PAIR("DELETE FROM ", TABLE_EXACTS OF_ROW("exact"), TABLE_GLOBS OF_ROW("glob")),

    [W_MISSED_UPSERT] = UPDATE_EXACTS SET_MISSED("", "$3", "$4") OF_ROW("exact"),
    UPDATE_GLOBS SET_MISSED(", missed_topic = $5", "$3", "$4") OF_ROW("glob"),

    [W_MISSED_CLEAR] =
        UPDATE_EXACTS SET_MISSED("", "NULL", "NULL") OF_ROW("exact") " AND missed_lock_id = $3",
    UPDATE_GLOBS SET_MISSED(", missed_topic = NULL", "NULL", "NULL")
        OF_ROW("glob") " AND missed_lock_id = $3",

    [W_MISSED_RETRY] =
        UPDATE_EXACTS SET_MISSED("", "$4", "$5") OF_ROW("exact") " AND missed_lock_id = $3",
    UPDATE_GLOBS SET_MISSED("", "$4", "$5") OF_ROW("glob") " AND missed_lock_id = $3",

    [W_PAGE] = SQL_PAGE(TABLE_EXACTS, "exact"),
    SQL_PAGE(TABLE_GLOBS, "glob"),

    [W_SET_INSERT] = "INSERT INTO " TABLE_EXACTS " (url, exact, missed_url) SELECT $1, key, "
                     "recovery FROM " LISTED_ROWS " ON CONFLICT DO NOTHING",
    "INSERT INTO " TABLE_GLOBS " (url, glob, missed_url) SELECT $1, key, recovery FROM " LISTED_ROWS
    " ON CONFLICT DO NOTHING",
    [W_SET_DELETE] =
        "DELETE FROM " TABLE_EXACTS " t USING (SELECT key FROM " LISTED_KEYS ")" LISTED("exact"),
    "DELETE FROM " TABLE_GLOBS " t USING (SELECT key FROM " LISTED_KEYS ")" LISTED("glob"),
    [W_SET_RECOVERY] =
        "UPDATE " TABLE_EXACTS
        " t SET missed_url = listed.recovery FROM (SELECT key, recovery FROM " LISTED_ROWS
        ")" LISTED("exact"),
    "UPDATE " TABLE_GLOBS
    " t SET missed_url = listed.recovery FROM (SELECT key, recovery FROM " LISTED_ROWS
    ")" LISTED("glob"),
};

size_t postgres_op_size(const struct store_request *r)
{
    return 64 + r->row.url.len + r->row.key.len + r->row.recovery.len + r->topic.len;
}

static int64_t random_id(void)
{
    int64_t id;

    return uv_random(NULL, NULL, &id, sizeof id, 0, NULL) == 0 ? id : (int64_t)uv_hrtime();
}

/* What all but the lock begin with. */
static void add_row(struct postgres_params *p, const struct store_row *row)
{
    postgres_add_bytes(p, row->url);
    postgres_add_bytes(p, row->key);
}

static size_t pair_of(const struct store_request *r)
{
    switch (r->op) {
    case REQUEST_SUBSCRIBE:
        return W_INSERT;
    case REQUEST_UNSUBSCRIBE:
        return W_DELETE;
    case REQUEST_MISSED_UPSERT:
        return W_MISSED_UPSERT;
    case REQUEST_MISSED_CLEAR:
        return W_MISSED_CLEAR;
    case REQUEST_MISSED_RETRY:
        return W_MISSED_RETRY;
    case REQUEST_MISSED_LOCK:
    case REQUEST_SET:
    case REQUEST_CHECK:
    case REQUEST_SYNC:
        break; /* not of a row, or never in a batch */
    }
    return W_COUNT;
}

static void send_missed_lock(struct postgres_writer *w, struct store_request *r)
{
    struct postgres_params p = { 0 };

    r->lock_id = random_id();
    postgres_add_number(&p, r->due_s);
    postgres_add_number(&p, r->lock_id);
    postgres_add_number(&p, r->lock_until_s);
    postgres_tx_send(w, W_MISSED_LOCK, &p);
}

void postgres_op_send(struct postgres_writer *w, struct store_request *r)
{
    struct postgres_params p = { 0 };

    if (r->op == REQUEST_MISSED_LOCK) {
        send_missed_lock(w, r);
        return;
    }
    add_row(&p, &r->row);
    if (r->op == REQUEST_SUBSCRIBE)
        postgres_add_bytes_or_null(&p, r->row.recovery);
    if (r->op == REQUEST_MISSED_CLEAR || r->op == REQUEST_MISSED_RETRY)
        postgres_add_number(&p, r->lock_id);
    if (r->op == REQUEST_MISSED_UPSERT || r->op == REQUEST_MISSED_RETRY) {
        postgres_add_number(&p, r->attempts);
        postgres_add_number(&p, r->due_s);
    }
    if (r->op == REQUEST_MISSED_UPSERT && r->row.kind == STORE_GLOB)
        postgres_add_bytes(&p, r->topic);
    postgres_tx_send(w, W_OF(pair_of(r), r->row.kind), &p);
}

static uint32_t attempts_of(const PGresult *result)
{
    int64_t n = postgres_number(result, 0, 5);

    if (n < 0)
        return 0;
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static enum store_status take_missed_lock(struct store_request *r, const PGresult *result)
{
    struct store_missed item;

    if (PQntuples(result) == 0)
        return STORE_NOT_FOUND;
    item = (struct store_missed){
        .kind = postgres_number(result, 0, 0) == 0 ? STORE_EXACT : STORE_GLOB,
        .url = postgres_bytes(result, 0, 1),
        .key = postgres_bytes(result, 0, 2),
        .recovery = postgres_bytes(result, 0, 3),
        .topic = postgres_bytes(result, 0, 4),
        .attempts = attempts_of(result),
        .lock_id = r->lock_id,
    };
    return store_request_keep_missed(r, &item) ? STORE_OK : STORE_UNAVAILABLE;
}

void postgres_op_take(struct postgres_writer *w, struct store_request *r)
{
    PGresult *result = postgres_tx_take(w);
    bool changed;

    r->status = STORE_UNAVAILABLE;
    if (result == NULL)
        return;
    changed = strcmp(PQcmdTuples(result), "0") != 0;
    if (r->op == REQUEST_MISSED_LOCK)
        r->status = take_missed_lock(r, result);
    else if (changed || r->op == REQUEST_MISSED_UPSERT)
        r->status = STORE_OK;
    else
        r->status = r->op == REQUEST_UNSUBSCRIBE ? STORE_NOT_FOUND : STORE_CONFLICT;
    PQclear(result);
}
