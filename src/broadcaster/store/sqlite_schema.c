/*
 * Creates what is absent in the SQLite file (sqlite_schema.h). Names of tables, columns and indices
 * are those of the reference, which may have made the file, or may open it later; what begins with
 * lonely_ is ours and does not disturb it. Called when a writing connection is opened.
 */
#include "sqlite_schema.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define CREATE_TABLE(name, columns)    "CREATE TABLE IF NOT EXISTS " name " (" columns ")"
#define CREATE_INDEX(unique, name, on) "CREATE " unique "INDEX IF NOT EXISTS " name " ON " on

#define MISSED_COLUMNS(topic)                                                         \
    "missed_url TEXT, missed_lock_id INTEGER, missed_lock_expires_at INTEGER, " topic \
    "missed_attempts INTEGER, missed_next_retry_at INTEGER"

/*
 * The change log: what was added to or removed from the subscription tables, by whatever program,
 * in the order of the commits (SQLite has one writer at a time). AUTOINCREMENT: a number is never
 * given twice, even when somebody empties the table. An UPDATE of the MISSED columns is not logged.
 */
#define LOG_ROW(kind, op, of, key)                                                               \
    "INSERT INTO " TABLE_CHANGES "(at, kind, op, url, key, recovery) VALUES "                    \
    "(CAST(strftime('%s', 'now') AS INTEGER), " kind ", " op ", " of ".url, " of "." key ", " of \
    ".missed_url); "

#define TRIGGERS(table, short_name, kind, key)                                                 \
    "CREATE TRIGGER IF NOT EXISTS lonely_" short_name "_inserted AFTER INSERT ON " table       \
    " BEGIN " LOG_ROW(kind, "1", "NEW", key) "END",                                            \
        "CREATE TRIGGER IF NOT EXISTS lonely_" short_name "_deleted AFTER DELETE ON " table    \
        " BEGIN " LOG_ROW(kind, "2", "OLD", key) "END",                                        \
        "CREATE TRIGGER IF NOT EXISTS lonely_" short_name "_renamed AFTER UPDATE OF url, " key \
        " ON " table " WHEN OLD.url IS NOT NEW.url OR OLD." key " IS NOT NEW." key             \
        " BEGIN " LOG_ROW(kind, "2", "OLD", key) LOG_ROW(kind, "1", "NEW", key) "END",         \
        "CREATE TRIGGER IF NOT EXISTS lonely_" short_name "_recovery AFTER UPDATE OF "         \
        "missed_url ON " table " WHEN OLD.url IS NEW.url AND OLD." key " IS NEW." key          \
        " AND OLD.missed_url IS NOT NEW.missed_url BEGIN " LOG_ROW(kind, "1", "NEW", key) "END"

static const char *const ddl[] = {
    CREATE_TABLE(
        TABLE_EXACTS,
        "id INTEGER PRIMARY KEY, url TEXT NOT NULL, exact BLOB NOT NULL, " MISSED_COLUMNS("")),
    CREATE_INDEX("UNIQUE ", "idx_httppubsub_subscription_exacts_exact_url",
                 TABLE_EXACTS " (exact, url)"),
    CREATE_INDEX("", "idx_httppubsub_subscription_exacts_next_retry_at",
                 TABLE_EXACTS " (missed_next_retry_at) WHERE missed_next_retry_at IS NOT NULL"),
    CREATE_INDEX("", "idx_httppubsub_subscription_exacts_missed_url_topic",
                 TABLE_EXACTS " (missed_url, exact) WHERE missed_url IS NOT NULL"),
    CREATE_INDEX("", "lonely_exacts_url_exact", TABLE_EXACTS " (url, exact)"),

    CREATE_TABLE(TABLE_GLOBS,
                 "id INTEGER PRIMARY KEY, url TEXT NOT NULL, glob TEXT NOT NULL, " MISSED_COLUMNS(
                     "missed_topic BLOB, ")),
    CREATE_INDEX("UNIQUE ", "idx_httppubsub_subscription_globs_glob_url",
                 TABLE_GLOBS " (glob, url)"),
    CREATE_INDEX("", "idx_httppubsub_subscription_globs_next_retry_at",
                 TABLE_GLOBS " (missed_next_retry_at) WHERE missed_next_retry_at IS NOT NULL"),
    CREATE_INDEX("", "idx_httppubsub_subscription_globs_missed_url_topic",
                 TABLE_GLOBS " (missed_url, missed_topic) WHERE missed_url IS NOT NULL"),
    CREATE_INDEX("", "lonely_globs_url_glob", TABLE_GLOBS " (url, glob)"),

    CREATE_TABLE(TABLE_CHANGES, "seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, "
                                "kind INTEGER NOT NULL, op INTEGER NOT NULL, url, key, recovery"),
    /* Without its triggers the log has a gap: with a new one, everybody loads everything. */
    "DELETE FROM " TABLE_CHANGES
    " WHERE (SELECT count(*) FROM sqlite_master WHERE type = 'trigger' "
    "AND (name GLOB 'lonely_exacts_*' OR name GLOB 'lonely_globs_*')) < 8",
    TRIGGERS(TABLE_EXACTS, "exacts", "0", "exact"),
    TRIGGERS(TABLE_GLOBS, "globs", "1", "glob"),
    SQL_FIRST_CHANGE,

    /* AUTOINCREMENT: who has read up to a number has read all before it. Also when somebody has dropped
     * the table: a new one begins with the time in microseconds, by a row that goes. */
    CREATE_TABLE(TABLE_MACS, "seq INTEGER PRIMARY KEY AUTOINCREMENT, mac BLOB NOT NULL, "
                             "expires_at INTEGER NOT NULL"),
    "INSERT INTO " TABLE_MACS " SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) "
    "* 1000, x'', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = '" TABLE_MACS "')",
    "DELETE FROM " TABLE_MACS " WHERE seq = (SELECT min(seq) FROM " TABLE_MACS ") AND mac = x''",
    CREATE_TABLE(TABLE_MARKS, "id INTEGER PRIMARY KEY, process TEXT NOT NULL, at INTEGER NOT NULL"),
};

static bool say(sqlite3 *db, const char *path, const char *doing, char error[256])
{
    if (sqlite3_errcode(db) == SQLITE_BUSY)
        snprintf(error, 256, "%s: cannot %s: another process holds its lock", path, doing);
    else
        snprintf(error, 256, "%s: cannot %s: %s", path, doing, sqlite3_errmsg(db));
    return false;
}

/* The first column of the first row as text; empty when there is none. */
static int read_text(sqlite3 *db, const char *sql, char *out, int out_size)
{
    sqlite3_stmt *st;
    int rc = sqlite3_prepare_v2(db, sql, -1, &st, NULL);

    out[0] = '\0';
    if (rc != SQLITE_OK)
        return rc;
    rc = sqlite3_step(st);
    if (rc == SQLITE_ROW && sqlite3_column_text(st, 0) != NULL)
        snprintf(out, (size_t)out_size, "%s", (const char *)sqlite3_column_text(st, 0));
    sqlite3_finalize(st);
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* An empty file, or one with tables of ours: of lonely or of the reference. */
static bool check_ours(sqlite3 *db, const char *path, char error[256])
{
    char text[64];

    if (sqlite3_db_readonly(db, "main") == 1) {
        snprintf(error, 256, "%s: is read-only for this process", path);
        return false;
    }
    if (read_text(db,
                  "SELECT CASE WHEN count(*) = 0 OR sum(name GLOB 'httppubsub_*' OR name GLOB "
                  "'lonely_*') > 0 THEN 'ours' ELSE 'foreign' END FROM sqlite_master "
                  "WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'",
                  text, sizeof text) != SQLITE_OK)
        return say(db, path, "read it", error);
    if (strcmp(text, "ours") != 0) {
        snprintf(error, 256, "%s: is the database of another application", path);
        return false;
    }
    if (read_text(db, "PRAGMA encoding", text, sizeof text) != SQLITE_OK)
        return say(db, path, "read it", error);
    if (strcmp(text, "UTF-8") != 0) {
        snprintf(error, 256, "%s: has the encoding %s; only UTF-8 is supported", path, text);
        return false;
    }
    return true;
}

static bool set_wal(sqlite3 *db, const char *path, char error[256])
{
    char mode[16];

    if (read_text(db, "PRAGMA journal_mode = WAL", mode, sizeof mode) != SQLITE_OK)
        return say(db, path, "switch it to WAL", error);
    if (strcmp(mode, "wal") != 0) {
        snprintf(error, 256,
                 "%s: cannot switch it to WAL: the file system lacks shared memory (mode %s)", path,
                 mode);
        return false;
    }
    return true;
}

static bool create_all(sqlite3 *db, const char *path, char error[256])
{
    for (size_t i = 0; i < sizeof ddl / sizeof ddl[0]; i++)
        if (sqlite3_exec(db, ddl[i], NULL, NULL, NULL) != SQLITE_OK)
            return say(db, path, "create its tables", error);
    return true;
}

bool sqlite_schema_ensure(sqlite3 *db, const char *path, char error[256])
{
    if (!check_ours(db, path, error) || !set_wal(db, path, error))
        return false;
    if (sqlite3_exec(db, "PRAGMA synchronous = FULL; BEGIN IMMEDIATE", NULL, NULL, NULL) !=
        SQLITE_OK)
        return say(db, path, "write it", error);
    if (!create_all(db, path, error)) {
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
        return false;
    }
    if (sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
        say(db, path, "write it", error);
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
        return false;
    }
    return true;
}
