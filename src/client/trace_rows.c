/*
 * The tables of traces (trace_rows.h). Names of tables and columns are those of doc/protocol/tracing.md, 3.
 */
#include "trace_rows.h"

#include <stdio.h>

#include <sqlite3.h>

#include "mem.h"

#define BUSY_MS 2000 /* others may read and write it, too */

enum { INSERT_NOTIFY, INSERT_POINT, DELETE_OLD, BEGIN, COMMIT, STATEMENTS };

struct trace_rows {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENTS];
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS stateless_notifies ("
    " id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, topic BLOB NOT NULL,"
    " length INTEGER NOT NULL, created_at REAL NOT NULL, finished_at REAL);"
    "CREATE INDEX IF NOT EXISTS stateless_notifies_created_at"
    " ON stateless_notifies (created_at);"
    "CREATE TABLE IF NOT EXISTS stateless_notify_timings ("
    " id INTEGER PRIMARY KEY, notify_id INTEGER NOT NULL REFERENCES stateless_notifies (id)"
    " ON DELETE CASCADE, ord INTEGER NOT NULL, name TEXT NOT NULL, extra TEXT NOT NULL,"
    " occurred_at REAL, raw_occurred_at REAL, UNIQUE (notify_id, ord));";

static const char *const texts[STATEMENTS] = {
    [INSERT_NOTIFY] = "INSERT INTO stateless_notifies (uid, topic, length, created_at, finished_at)"
                      " VALUES (?, ?, ?, ?, ?)",
    [INSERT_POINT] = "INSERT INTO stateless_notify_timings"
                     " (notify_id, ord, name, extra, occurred_at, raw_occurred_at)"
                     " VALUES (?, ?, ? || ?, ?, ?, ?)",
    [DELETE_OLD] = "DELETE FROM stateless_notifies WHERE created_at < ?",
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
};

void trace_free(struct trace *t)
{
    for (size_t i = 0; i < t->count; i++) {
        mem_free(t->points[i].name);
        mem_free(t->points[i].extra);
    }
    mem_free(t->points);
    mem_free(t->topic);
    mem_free(t);
}

static bool run(sqlite3_stmt *statement)
{
    bool good = sqlite3_step(statement) == SQLITE_DONE;

    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return good;
}

static bool prepare(struct trace_rows *r)
{
    for (size_t i = 0; i < STATEMENTS; i++) {
        if (sqlite3_prepare_v2(r->db, texts[i], -1, &r->statements[i], NULL) != SQLITE_OK)
            return false;
    }
    return true;
}

struct trace_rows *trace_rows_open(const char *path, struct lonely_client_why *why)
{
    struct trace_rows *r = mem_calloc(1, sizeof(*r));
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;

    if (sqlite3_open_v2(path, &r->db, flags, NULL) == SQLITE_OK &&
        sqlite3_busy_timeout(r->db, BUSY_MS) == SQLITE_OK &&
        sqlite3_exec(r->db,
                     "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                     "PRAGMA foreign_keys = ON;",
                     NULL, NULL, NULL) == SQLITE_OK &&
        sqlite3_exec(r->db, schema, NULL, NULL, NULL) == SQLITE_OK && prepare(r))
        return r;
    snprintf(why->text, sizeof(why->text), "tracing: %.300s: %s", path, sqlite3_errmsg(r->db));
    trace_rows_close(r);
    return NULL;
}

void trace_rows_close(struct trace_rows *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(r->statements[i]);
    sqlite3_close(r->db);
    mem_free(r);
}

static bool add_point(struct trace_rows *r, sqlite3_int64 notify_id, int ord,
                      const struct trace_point *p)
{
    sqlite3_stmt *s = r->statements[INSERT_POINT];

    sqlite3_bind_int64(s, 1, notify_id);
    sqlite3_bind_int(s, 2, ord);
    sqlite3_bind_text(s, 3, p->prefix, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 4, p->name, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 5, p->extra, -1, SQLITE_STATIC);
    sqlite3_bind_double(s, 6, p->occurred_at_s);
    sqlite3_bind_double(s, 7, p->raw_s);
    return run(s);
}

static bool add_trace(struct trace_rows *r, const struct trace *t)
{
    sqlite3_stmt *s = r->statements[INSERT_NOTIFY];
    sqlite3_int64 id;
    bool good;

    sqlite3_bind_text(s, 1, t->uid, -1, SQLITE_STATIC);
    sqlite3_bind_blob64(s, 2, t->topic, t->topic_len, SQLITE_STATIC);
    sqlite3_bind_int64(s, 3, (sqlite3_int64)t->length);
    sqlite3_bind_double(s, 4, t->created_at_s);
    sqlite3_bind_double(s, 5, t->finished_at_s);
    good = run(s);
    id = sqlite3_last_insert_rowid(r->db);
    for (size_t i = 0; good && i < t->count; i++)
        good = add_point(r, id, (int)i, &t->points[i]);
    return good;
}

bool trace_rows_add(struct trace_rows *r, const struct list *traces)
{
    bool good = run(r->statements[BEGIN]);

    list_foreach (traces, node, next)
        good = good && add_trace(r, list_entry(node, struct trace, node));
    good = good && run(r->statements[COMMIT]);
    if (!good)
        sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL); /* if one has begun */
    return good;
}

void trace_rows_delete_before(struct trace_rows *r, double created_at_s)
{
    sqlite3_bind_double(r->statements[DELETE_OLD], 1, created_at_s);
    (void)run(r->statements[DELETE_OLD]); /* else the next time */
}
