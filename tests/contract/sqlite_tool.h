/*
 * For the tests of the SQLite store: another program's connection to its file.
 */
#ifndef SQLITE_TOOL_H
#define SQLITE_TOOL_H

#include <sqlite3.h>

#include "tables.h"

/* Opens with a wait for locks of `busy_ms`. */
static inline sqlite3 *tool_open(const char *path, int busy_ms)
{
    sqlite3 *db;

    table_require(sqlite3_open(path, &db) == SQLITE_OK, path);
    sqlite3_busy_timeout(db, busy_ms);
    return db;
}

static inline void tool_exec(sqlite3 *db, const char *sql)
{
    char *error = NULL;

    sqlite3_exec(db, sql, NULL, NULL, &error);
    table_require(error == NULL, error == NULL ? "" : error);
}

/* The first column of the first row as a number; -1 when there is none. */
static inline sqlite3_int64 tool_number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st;
    sqlite3_int64 n = -1;

    table_require(sqlite3_prepare_v2(db, sql, -1, &st, NULL) == SQLITE_OK, sqlite3_errmsg(db));
    if (sqlite3_step(st) == SQLITE_ROW && sqlite3_column_type(st, 0) != SQLITE_NULL)
        n = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return n;
}

/* The same on a connection for this one question. */
static inline sqlite3_int64 tool_ask(const char *path, const char *sql)
{
    sqlite3 *db = tool_open(path, 10000);
    sqlite3_int64 n = tool_number(db, sql);

    sqlite3_close(db);
    return n;
}

static inline void tool_run(const char *path, const char *sql)
{
    sqlite3 *db = tool_open(path, 10000);

    tool_exec(db, sql);
    sqlite3_close(db);
}

#define EXACTS "httppubsub_subscription_exacts"
#define GLOBS  "httppubsub_subscription_globs"

#endif
