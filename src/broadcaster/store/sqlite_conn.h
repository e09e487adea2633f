/*
 * One connection to the SQLite file with its prepared statements. A connection belongs to one
 * thread. After a failure that a new connection may cure it is opened anew at the next use.
 */
#ifndef SQLITE_CONN_H
#define SQLITE_CONN_H

#include <stdatomic.h>

#include <sqlite3.h>

#include "log.h"
#include "store.h"

#define CONN_STATEMENTS_MAX 32

/* What connections of one purpose have in common; constant. */
struct sqlite_conn_kind {
    int flags;              /* SQLITE_OPEN_... */
    const char *pragmas;    /* run after opening */
    const char *const *sql; /* its statements, in the order of its enum; NULL: none there */
    size_t n;               /* at most CONN_STATEMENTS_MAX */
    bool schema;            /* creates what is absent */
};

/* What all connections of a store have in common. */
struct sqlite_conn_place {
    char *path;
    struct log *log;       /* may be NULL */
    uint64_t timeout_ms;   /* for locks while opening */
    atomic_bool has_moved; /* the file is not at the path any more */
};

struct sqlite_conn {
    const struct sqlite_conn_kind *kind;
    struct sqlite_conn_place *place;
    uint64_t busy_ms;  /* SQLite's own wait for a lock, once open */
    sqlite3 *db;       /* NULL: not open */
    bool faulty;       /* open it anew */
    uint64_t retry_ms; /* not before */
    sqlite3_stmt *st[CONN_STATEMENTS_MAX];
};

/* `kind` and `place` must outlive it. false: one line in `error` that names the file, and nothing
 * is to be freed. */
bool sqlite_conn_open(struct sqlite_conn *c, const struct sqlite_conn_kind *kind,
                      struct sqlite_conn_place *place, uint64_t busy_ms, char error[256]);
/* Is it open, or could it be opened again? */
bool sqlite_conn_ready(struct sqlite_conn *c);
/*
 * Is the file still the one at the path? If not (somebody deleted or replaced it), no connection of
 * the store is ready until it is back: what is written would be lost at the next start. Opening
 * what is there now would not do: SQLite keeps its locks and shared memory by name, and some of
 * our connections still use those.
 */
void sqlite_conn_look_for_file(struct sqlite_conn *c);
void sqlite_conn_close(struct sqlite_conn *c); /* also one that is not open */

/* Writes the line for the last error of a call on it: "<path>: cannot <doing>: ...". Always false. */
bool sqlite_conn_error(const struct sqlite_conn *c, const char *doing, char error[256]);

/* Takes note of a failed call: logs it and decides whether to open anew. */
void sqlite_conn_failed(struct sqlite_conn *c, const char *doing, int rc);

/* Runs a statement that gives no row, and resets it: SQLITE_OK, or the error. */
int sqlite_conn_run(struct sqlite_conn *c, size_t statement);

/* Binding of the three types of doc/protocol/http.md, 13. The bytes must live until the statement
 * is reset. */
int sqlite_bind_text(sqlite3_stmt *st, int at, struct lonely_span text);
int sqlite_bind_text_or_null(sqlite3_stmt *st, int at, struct lonely_span text); /* len 0: NULL */
int sqlite_bind_blob(sqlite3_stmt *st, int at, struct lonely_span blob);
/* A topic as BLOB, a glob as TEXT. */
int sqlite_bind_key(sqlite3_stmt *st, int at, enum store_kind kind, struct lonely_span key);
/* A column's bytes: until the statement moves on. */
struct lonely_span sqlite_column_span(sqlite3_stmt *st, int at);

/* Reads a row of columns url, key, recovery from `at` on. false: not one that the protocol could
 * have made (other types, over 65,535 bytes): another program's, passed over. */
bool sqlite_column_row(sqlite3_stmt *st, int at, enum store_kind kind, struct store_row *out);
/* The same for key and recovery alone. */
bool sqlite_column_key(sqlite3_stmt *st, int at, enum store_kind kind, struct store_row *out);

#endif
