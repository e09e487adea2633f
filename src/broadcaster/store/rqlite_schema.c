/*
 * Creates what is absent in rqlite (rqlite_schema.h). Called when the store is opened, and when
 * somebody has dropped something.
 *
 * Nothing here may depend on the node that executes it: no clock, no random numbers in triggers. The
 * change log takes its time from the newest transaction of a broadcaster.
 */
#include "rqlite_schema.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"

#define TABLE(name, columns)    "CREATE TABLE IF NOT EXISTS " name "(" columns ")"
#define INDEX(unique, name, on) "CREATE " unique "INDEX IF NOT EXISTS " name " ON " on

#define MISSED_COLUMNS(topic)                                                         \
    "missed_url TEXT, missed_lock_id INTEGER, missed_lock_expires_at INTEGER, " topic \
    "missed_attempts INTEGER, missed_next_retry_at INTEGER"

/* An UPDATE of the MISSED columns is not logged. */
#define LOG_ROW(kind, op, of, key)                                                         \
    "INSERT INTO " RQ_CHANGES "(at, kind, op, url, key, recovery) VALUES "                 \
    "((SELECT coalesce(max(at), 0) FROM " RQ_PROCESSES "), " kind ", " op ", " of ".url, " \
    "" of "." key ", " of ".missed_url); "

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
    TABLE(RQ_EXACTS,
          "id INTEGER PRIMARY KEY, url TEXT NOT NULL, exact BLOB NOT NULL, " MISSED_COLUMNS("")),
    INDEX("UNIQUE ", "idx_httppubsub_subscription_exacts_exact_url", RQ_EXACTS "(exact, url)"),
    INDEX("", "idx_httppubsub_subscription_exacts_next_retry_at",
          RQ_EXACTS "(missed_next_retry_at) WHERE missed_next_retry_at IS NOT NULL"),
    INDEX("", "lonely_exacts_url_exact", RQ_EXACTS "(url, exact)"),

    TABLE(RQ_GLOBS,
          "id INTEGER PRIMARY KEY, url TEXT NOT NULL, glob TEXT NOT NULL, " MISSED_COLUMNS(
              "missed_topic BLOB, ")),
    INDEX("UNIQUE ", "idx_httppubsub_subscription_globs_glob_url", RQ_GLOBS "(glob, url)"),
    INDEX("", "idx_httppubsub_subscription_globs_next_retry_at",
          RQ_GLOBS "(missed_next_retry_at) WHERE missed_next_retry_at IS NOT NULL"),
    INDEX("", "lonely_globs_url_glob", RQ_GLOBS "(url, glob)"),

    /* `batch` is the last transaction, `at` its time in ms, `until` until when it is of use, `first`
     * the newest change before it. */
    TABLE(RQ_PROCESSES, "id INTEGER PRIMARY KEY, batch INTEGER NOT NULL, at INTEGER NOT NULL, "
                        "until INTEGER NOT NULL, first INTEGER, process TEXT, keeps_macs INTEGER"),
    "CREATE TRIGGER IF NOT EXISTS lonely_processes_order BEFORE INSERT ON " RQ_PROCESSES " BEGIN "
    "SELECT RAISE(ABORT, '" RQLITE_SAYS_REPEATED "') FROM " RQ_PROCESSES
    " WHERE id = NEW.id AND batch >= NEW.batch; "
    "SELECT RAISE(ABORT, '" RQLITE_SAYS_LATE "') FROM " RQ_PROCESSES " WHERE at > NEW.until; END",

    /* AUTOINCREMENT: a number is never given twice, even when somebody empties the table. */
    TABLE(RQ_CHANGES, "seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, "
                      "kind INTEGER NOT NULL, op INTEGER NOT NULL, url, key, recovery"),
    /* Without its triggers the log has a gap: with a new one, everybody loads everything. */
    "DELETE FROM " RQ_CHANGES " WHERE (SELECT count(*) FROM sqlite_master WHERE type = 'trigger' "
    "AND (name GLOB 'lonely_exacts_*' OR name GLOB 'lonely_globs_*')) < 8",
    TRIGGERS(RQ_EXACTS, "exacts", "0", "exact"),
    TRIGGERS(RQ_GLOBS, "globs", "1", "glob"),

    TABLE(RQ_MACS, "seq INTEGER PRIMARY KEY AUTOINCREMENT, mac BLOB NOT NULL, "
                   "expires_at INTEGER NOT NULL"),
    INDEX("", "lonely_hmacs_expires_at", RQ_MACS "(expires_at)"),
    TABLE(RQ_SCHEMA, "id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL"),
};

/* An empty log begins with a number that no reader has seen: the time in seconds and six random
 * digits, so also one that was dropped and made again. */
#define SQL_FIRST_CHANGE                                                                \
    "INSERT INTO " RQ_CHANGES "(seq, at, kind, op) SELECT ?, ?, 0, 0 WHERE NOT EXISTS " \
    "(SELECT 1 FROM " RQ_CHANGES ")"

/* Used macs begin with the time in microseconds, so behind all numbers of a table that was dropped:
 * who has read up to one of those would never see smaller ones. The row only moves AUTOINCREMENT. */
#define SQL_FIRST_MAC                                                                  \
    "INSERT INTO " RQ_MACS "(seq, mac, expires_at) SELECT ?, x'', 0 WHERE NOT EXISTS " \
    "(SELECT 1 FROM sqlite_sequence WHERE name = '" RQ_MACS "')"
#define SQL_NO_MAC \
    "DELETE FROM " RQ_MACS " WHERE seq = (SELECT min(seq) FROM " RQ_MACS ") AND mac = x''"

bool rqlite_schema_is_missing(const char *error)
{
    return strncmp(error, "no such table", 13) == 0 || strncmp(error, "no such column", 14) == 0;
}

/* `*version` is 0 when there is none. */
static enum rqlite_result read_version(struct rqlite_conn *c, uint64_t until_ms, int64_t *version,
                                       char error[256])
{
    enum rqlite_result result;
    struct rqlite_body body;
    const char *why;
    json_t *results;

    rqlite_body_init(&body, 1024);
    rqlite_body_statement(&body, "SELECT version FROM " RQ_SCHEMA);
    (void)rqlite_body_end(&body);
    result = rqlite_call(c, RQLITE_READ, &body, until_ms, &results);
    rqlite_body_fini(&body);
    why = rqlite_error(results);
    *version = 0;
    if (why == NULL)
        (void)rqlite_int(rqlite_row(results, 0, 0), 0, version);
    if (why != NULL && !rqlite_schema_is_missing(why)) {
        snprintf(error, 256, "rqlite: cannot read its tables: %s", why);
        result = RQLITE_REFUSED;
    }
    json_decref(results);
    return result;
}

static enum rqlite_result create_all(struct rqlite_conn *c, uint64_t until_ms, char error[256])
{
    int64_t now_ns = clock_wall_ns(&clock_system);
    uint64_t noise = uv_hrtime() ^ (uint64_t)(uintptr_t)c;
    enum rqlite_result result;
    struct rqlite_body body;
    json_t *results = NULL;

    rqlite_body_init(&body, 65536);
    for (size_t i = 0; i < sizeof ddl / sizeof ddl[0]; i++)
        rqlite_body_statement(&body, ddl[i]);
    (void)uv_random(NULL, NULL, &noise, sizeof noise, 0, NULL);
    rqlite_body_statement(&body, SQL_FIRST_CHANGE);
    rqlite_body_int(&body, now_ns / 1000000000 * 1000000 + (int64_t)(noise % 1000000));
    rqlite_body_int(&body, now_ns / 1000000);
    rqlite_body_statement(&body, SQL_FIRST_MAC);
    rqlite_body_int(&body, now_ns / 1000);
    rqlite_body_statement(&body, SQL_NO_MAC);
    rqlite_body_statement(&body, "INSERT INTO " RQ_SCHEMA " VALUES (1, ?) ON CONFLICT DO NOTHING");
    rqlite_body_int(&body, RQLITE_SCHEMA_VERSION);
    result = rqlite_body_end(&body) ? rqlite_call(c, RQLITE_WRITE, &body, until_ms, &results)
                                    : RQLITE_REFUSED;
    rqlite_body_fini(&body);
    if (result == RQLITE_OK && rqlite_error(results) != NULL) {
        snprintf(error, 256, "rqlite: cannot create its tables: %s", rqlite_error(results));
        result = RQLITE_REFUSED;
    }
    json_decref(results);
    return result;
}

enum rqlite_result rqlite_schema_ensure(struct rqlite_conn *c, uint64_t until_ms, char error[256])
{
    enum rqlite_result result;
    int64_t version;

    error[0] = '\0';
    result = read_version(c, until_ms, &version, error);
    if (result == RQLITE_OK && version > RQLITE_SCHEMA_VERSION) {
        snprintf(error, 256, "rqlite: its tables were made by a newer release (version %lld)",
                 (long long)version);
        return RQLITE_REFUSED;
    }
    if (result == RQLITE_OK)
        result = create_all(c, until_ms, error);
    if (result != RQLITE_OK && error[0] == '\0')
        snprintf(error, 256, "rqlite: %.200s", c->trouble);
    return result;
}
