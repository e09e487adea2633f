/*
 * Opening, statements, binding and failures of one SQLite connection (sqlite_conn.h). Called by the
 * writer, the reader, the feed and the clients of store_sqlite.c; transactions are theirs.
 */
#include "sqlite_conn.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "sqlite_schema.h"

#define RETRY_MS 100 /* between two attempts to open anew */

bool sqlite_conn_error(const struct sqlite_conn *c, const char *doing, char error[256])
{
    const char *why = c->db == NULL ? "out of memory" : sqlite3_errmsg(c->db);
    int rc = c->db == NULL ? SQLITE_NOMEM : sqlite3_errcode(c->db);
    int os = c->db == NULL ? 0 : sqlite3_system_errno(c->db);

    if (rc == SQLITE_BUSY)
        why = "another process holds its lock";
    if (os != 0 && rc == SQLITE_CANTOPEN)
        snprintf(error, 256, "%s: cannot %s: %s (%s)", c->place->path, doing, why, strerror(os));
    else
        snprintf(error, 256, "%s: cannot %s: %s", c->place->path, doing, why);
    return false;
}

static bool prepare_all(struct sqlite_conn *c, char error[256])
{
    for (size_t i = 0; i < c->kind->n; i++) {
        const char *sql = c->kind->sql[i];

        if (sql != NULL && sqlite3_prepare_v3(c->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &c->st[i],
                                              NULL) != SQLITE_OK)
            return sqlite_conn_error(c, "use it as a subscription database", error);
    }
    return true;
}

static int milliseconds(uint64_t ms)
{
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

static bool open_parts(struct sqlite_conn *c, char error[256])
{
    if (sqlite3_open_v2(c->place->path, &c->db, c->kind->flags, NULL) != SQLITE_OK)
        return sqlite_conn_error(c, "open it", error);
    sqlite3_busy_timeout(c->db, milliseconds(c->place->timeout_ms));
    if (c->kind->schema && !sqlite_schema_ensure(c->db, c->place->path, error))
        return false;
    if (sqlite3_exec(c->db, c->kind->pragmas, NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_conn_error(c, "configure the connection", error);
    if (!prepare_all(c, error))
        return false;
    sqlite3_busy_timeout(c->db, milliseconds(c->busy_ms));
    return true;
}

static bool open_whole(struct sqlite_conn *c, char error[256])
{
    if (!open_parts(c, error)) {
        sqlite_conn_close(c);
        return false;
    }
    c->faulty = false;
    return true;
}

bool sqlite_conn_open(struct sqlite_conn *c, const struct sqlite_conn_kind *kind,
                      struct sqlite_conn_place *place, uint64_t busy_ms, char error[256])
{
    *c = (struct sqlite_conn){ .kind = kind, .place = place, .busy_ms = busy_ms };
    return open_whole(c, error);
}

bool sqlite_conn_ready(struct sqlite_conn *c)
{
    char error[256];

    if (atomic_load_explicit(&c->place->has_moved, memory_order_relaxed))
        return false;
    if (c->db != NULL && !c->faulty)
        return true;
    if (clock_mono_ms(&clock_system) < c->retry_ms)
        return false;
    sqlite_conn_close(c);
    if (open_whole(c, error))
        return true;
    c->retry_ms = clock_mono_ms(&clock_system) + RETRY_MS;
    log_error_limited(c->place->log, "store_open_failed", LOG_STR("error", error), LOG_END);
    return false;
}

void sqlite_conn_look_for_file(struct sqlite_conn *c)
{
    int has_moved = 0;

    if (c->db == NULL)
        return;
    sqlite3_file_control(c->db, "main", SQLITE_FCNTL_HAS_MOVED, &has_moved);
    atomic_store(&c->place->has_moved, has_moved != 0);
    if (has_moved != 0)
        log_error_limited(c->place->log, "store_file_replaced", LOG_STR("path", c->place->path),
                          LOG_STR("hint", "put it back, or restart"), LOG_END);
}

void sqlite_conn_close(struct sqlite_conn *c)
{
    for (size_t i = 0; i < c->kind->n; i++) {
        sqlite3_finalize(c->st[i]);
        c->st[i] = NULL;
    }
    sqlite3_close(c->db);
    c->db = NULL;
}

/* Errors that pass by themselves; all others may need a new connection. */
static bool is_passing(int rc)
{
    return rc == SQLITE_BUSY || rc == SQLITE_LOCKED || rc == SQLITE_FULL || rc == SQLITE_NOMEM ||
           rc == SQLITE_CONSTRAINT || rc == SQLITE_INTERRUPT || rc == SQLITE_TOOBIG;
}

void sqlite_conn_failed(struct sqlite_conn *c, const char *doing, int rc)
{
    log_warn_limited(
        c->place->log, "store_failed", LOG_STR("path", c->place->path), LOG_STR("doing", doing),
        LOG_STR("error", c->db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(c->db)), LOG_END);
    if (!is_passing(rc & 0xff))
        c->faulty = true;
}

int sqlite_conn_run(struct sqlite_conn *c, size_t statement)
{
    sqlite3_stmt *st = c->st[statement];
    int rc = sqlite3_step(st);

    sqlite3_reset(st);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

/* SQLite takes a null pointer for NULL, also with length 0. */
static const void *not_null(struct lonely_span s)
{
    return s.ptr == NULL ? "" : (const void *)s.ptr;
}

int sqlite_bind_text(sqlite3_stmt *st, int at, struct lonely_span text)
{
    return sqlite3_bind_text64(st, at, not_null(text), text.len, SQLITE_STATIC, SQLITE_UTF8);
}

int sqlite_bind_text_or_null(sqlite3_stmt *st, int at, struct lonely_span text)
{
    return text.len == 0 ? sqlite3_bind_null(st, at) : sqlite_bind_text(st, at, text);
}

int sqlite_bind_blob(sqlite3_stmt *st, int at, struct lonely_span blob)
{
    return sqlite3_bind_blob64(st, at, not_null(blob), blob.len, SQLITE_STATIC);
}

int sqlite_bind_key(sqlite3_stmt *st, int at, enum store_kind kind, struct lonely_span key)
{
    return kind == STORE_EXACT ? sqlite_bind_blob(st, at, key) : sqlite_bind_text(st, at, key);
}

struct lonely_span sqlite_column_span(sqlite3_stmt *st, int at)
{
    /* The pointer is asked for first: asking may convert, and the length is then of the result. */
    const void *ptr = sqlite3_column_blob(st, at);

    return (struct lonely_span){ ptr, ptr == NULL ? 0 : (size_t)sqlite3_column_bytes(st, at) };
}

static bool is_type(sqlite3_stmt *st, int at, int type)
{
    return sqlite3_column_type(st, at) == type && sqlite3_column_bytes(st, at) <= UINT16_MAX;
}

bool sqlite_column_key(sqlite3_stmt *st, int at, enum store_kind kind, struct store_row *out)
{
    if (!is_type(st, at, kind == STORE_EXACT ? SQLITE_BLOB : SQLITE_TEXT))
        return false;
    out->kind = kind;
    out->key = sqlite_column_span(st, at);
    out->recovery = (struct lonely_span){ 0 };
    if (is_type(st, at + 1, SQLITE_TEXT))
        out->recovery = sqlite_column_span(st, at + 1);
    return true;
}

bool sqlite_column_row(sqlite3_stmt *st, int at, enum store_kind kind, struct store_row *out)
{
    if (!is_type(st, at, SQLITE_TEXT) || !sqlite_column_key(st, at + 1, kind, out))
        return false;
    out->url = sqlite_column_span(st, at);
    return true;
}
