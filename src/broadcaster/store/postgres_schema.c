/*
 * Creates what is absent in the PostgreSQL database (postgres_schema.h). Called when a writing
 * connection is opened. All of bytea: text can hold no NUL, and does not sort as bytes.
 *
 * The change log: what was added to or removed from the subscription tables, by whatever program,
 * in the order of the commits. A change of the MISSED columns is not logged. `mark` is random: when
 * a failover has lost the end of the log, and its numbers are given again, who has read the lost
 * rows sees that they are others.
 */
#include "postgres_schema.h"

#include <stdio.h>
#include <string.h>

#define VERSION       1
#define DEADLOCKS_MAX 5 /* in a row, while the tables are made */
#define STRING(x)     STRING_(x)
#define STRING_(x)    #x

#define MISSED_COLUMNS(topic)                                                        \
    "missed_url bytea, missed_lock_id bigint, missed_lock_expires_at bigint, " topic \
    "missed_attempts bigint, missed_next_retry_at bigint"

#define SUBSCRIPTIONS(table, short_name, key, topic)                                             \
    "CREATE TABLE IF NOT EXISTS " table " (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, " \
    "url bytea NOT NULL, " key " bytea NOT NULL, " MISSED_COLUMNS(                               \
        topic) ");"                                                                              \
               "CREATE UNIQUE INDEX IF NOT EXISTS lonely_" short_name "_identity ON " table      \
               " (sha256(" key "), sha256(url));"                                                \
               "CREATE INDEX IF NOT EXISTS lonely_" short_name "_sorted ON " table               \
               " (sha256(url), " SORTED_BY(                                                      \
                   key) ");"                                                                     \
                        "CREATE INDEX IF NOT EXISTS lonely_" short_name "_due ON " table         \
                        " (missed_next_retry_at) WHERE missed_next_retry_at IS NOT NULL;"

/* Whoever changes rows need not be allowed to change the log: SECURITY DEFINER. */
#define FUNCTION(name, body)                                                  \
    "CREATE OR REPLACE FUNCTION " name "() RETURNS trigger LANGUAGE plpgsql " \
    "SECURITY DEFINER SET search_path FROM CURRENT AS $$ BEGIN " body         \
    " PERFORM pg_notify('" CHANNEL_CHANGES "', ''); RETURN NULL; END $$;"

#define LOG(values) "INSERT INTO " TABLE_CHANGES " (kind, op, url, key, recovery) " values "; "

#define TRIGGER(table, short_name, what, when, function)                                      \
    "DROP TRIGGER IF EXISTS lonely_" short_name "_" what " ON " table ";"                     \
    "CREATE TRIGGER lonely_" short_name "_" what " AFTER " when " EXECUTE FUNCTION " function \
    "();"

/* An INSERT that conflicted with a row has changed nothing, and must take no lock. */
#define LOGGING(table, short_name, kind, key)                                                      \
    FUNCTION("lonely_log_" short_name,                                                             \
             "IF NOT EXISTS (SELECT FROM changed) THEN RETURN NULL; END IF; " LOCK_CHANGES         \
             "; " LOG("SELECT " kind ", CASE TG_OP WHEN 'INSERT' THEN 1 ELSE 2 END, url, " key     \
                      ", missed_url FROM changed"))                                                \
    FUNCTION(                                                                                      \
        "lonely_log_" short_name "_update", LOCK_CHANGES                                           \
        "; IF OLD.url <> NEW.url OR OLD." key " <> NEW." key                                       \
        " THEN " LOG("VALUES (" kind ", 2, OLD.url, OLD." key ", OLD.missed_url)") "END IF; " LOG( \
            "VALUES (" kind ", 1, NEW.url, NEW." key ", NEW.missed_url)"))                         \
    TRIGGER(table, short_name, "inserted",                                                         \
            "INSERT ON " table " REFERENCING NEW TABLE AS changed FOR EACH STATEMENT",             \
            "lonely_log_" short_name)                                                              \
    TRIGGER(table, short_name, "deleted",                                                          \
            "DELETE ON " table " REFERENCING OLD TABLE AS changed FOR EACH STATEMENT",             \
            "lonely_log_" short_name)                                                              \
    TRIGGER(table, short_name, "updated",                                                          \
            "UPDATE OF url, " key ", missed_url ON " table " FOR EACH ROW WHEN "                   \
            "(OLD.url <> NEW.url OR OLD." key " <> NEW." key                                       \
            " OR OLD.missed_url IS DISTINCT FROM NEW.missed_url)",                                 \
            "lonely_log_" short_name "_update")                                                    \
    TRIGGER(table, short_name, "truncated", "TRUNCATE ON " table " FOR EACH STATEMENT",            \
            "lonely_log_reset")

#define VIEWED(kind, key, topic)                                                                  \
    "SELECT '" kind "' AS kind, encode(url, 'escape') AS url, encode(" key ", 'escape') AS key, " \
    "encode(missed_url, 'escape') AS recovery, encode(" topic ", 'escape') AS missed_topic, "     \
    "missed_attempts, to_timestamp(missed_next_retry_at) AS missed_next_retry_at FROM "

static const char *const ddl[] = {
    SUBSCRIPTIONS(TABLE_EXACTS, "exacts", "exact", ""),
    SUBSCRIPTIONS(TABLE_GLOBS, "globs", "glob", "missed_topic bytea, "),

    "CREATE TABLE IF NOT EXISTS lonely_change_order (unused int);"
    "CREATE TABLE IF NOT EXISTS lonely_hmac_order (unused int);"
    "CREATE TABLE IF NOT EXISTS " TABLE_CHANGES
    " (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
    "at bigint NOT NULL DEFAULT extract(epoch FROM clock_timestamp()), "
    "mark bigint NOT NULL DEFAULT random() * 9007199254740991, "
    "kind smallint NOT NULL, op smallint NOT NULL, url bytea, key bytea, recovery bytea)",

    /* Emptied, and one number further: everybody loads everything. */
    FUNCTION("lonely_log_reset",
             LOCK_CHANGES "; DELETE FROM " TABLE_CHANGES "; "
                          "INSERT INTO " TABLE_CHANGES " (kind, op) VALUES (0, 0);"),
    LOGGING(TABLE_EXACTS, "exacts", "0", "exact"),
    LOGGING(TABLE_GLOBS, "globs", "1", "glob"),
    /* While a trigger was missing, so were rows of the log. */
    LOCK_CHANGES "; DELETE FROM " TABLE_CHANGES "; " SQL_FIRST_CHANGE,

    "CREATE TABLE IF NOT EXISTS " TABLE_MACS
    " (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mac bytea NOT NULL, "
    "expires_at bigint NOT NULL)",
    /* A table that was dropped and made again goes on behind what others have read of the old one. */
    LOCK_MACS "; SELECT setval(seq, greatest(nextval(seq), "
              "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint)) "
              "FROM pg_get_serial_sequence('" TABLE_MACS "', 'seq') AS seq",
    "CREATE TABLE IF NOT EXISTS " TABLE_MARKS
    " (id bigint PRIMARY KEY, process text NOT NULL, at bigint NOT NULL)",

    /* For operators: bytes that are not ASCII as \ooo. */
    "CREATE OR REPLACE VIEW lonely_subscriptions AS " VIEWED(
        "exact", "exact", "CASE WHEN missed_next_retry_at IS NOT NULL THEN exact END") TABLE_EXACTS
    " UNION ALL " VIEWED("glob", "glob", "missed_topic") TABLE_GLOBS,

    "CREATE TABLE IF NOT EXISTS lonely_schema (version bigint NOT NULL)",
    "DELETE FROM lonely_schema; INSERT INTO lonely_schema VALUES (" STRING(VERSION) ")",
};

/* Is everything there, apart from the version? Nobody is disturbed when it is. And is there a version? */
#define COMPLETE                                                                             \
    "(SELECT count(to_regclass(name)) = 8 FROM unnest(ARRAY['lonely_schema', '" TABLE_EXACTS \
    "', '" TABLE_GLOBS "', '" TABLE_CHANGES "', '" TABLE_MACS "', '" TABLE_MARKS             \
    "', 'lonely_change_order', 'lonely_hmac_order']) AS name)"
#define TRIGGERED                                                                             \
    "(SELECT count(*) = 8 FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')" \
    " AND tgname LIKE 'lonely\\_%' AND tgrelid IN (to_regclass('" TABLE_EXACTS                \
    "'), to_regclass('" TABLE_GLOBS "')))"
static const char sql_is_complete[] =
    "SELECT (" COMPLETE " AND " TRIGGERED ")::int, (to_regclass('lonely_schema') IS NOT NULL)::int";

static bool fail(const struct postgres_conn *c, const char *what, char error[256])
{
    snprintf(error, 256, "%s: %s", c->place->shown, what);
    return false;
}

/* false: it cannot be read. */
static bool look(struct postgres_conn *c, bool *complete, bool *has_version)
{
    PGresult *result = postgres_exec(c, sql_is_complete, PGRES_TUPLES_OK, postgres_until(c));

    if (result == NULL)
        return false;
    *complete = PQgetvalue(result, 0, 0)[0] == '1';
    *has_version = PQgetvalue(result, 0, 1)[0] == '1';
    PQclear(result);
    return true;
}

/* A later version may mean something else by what is there. */
static bool check_version(struct postgres_conn *c, char error[256])
{
    PGresult *result = postgres_exec(c, "SELECT coalesce(max(version), 0) FROM lonely_schema",
                                     PGRES_TUPLES_OK, postgres_until(c));
    bool good = result != NULL && strcmp(PQgetvalue(result, 0, 0), STRING(VERSION)) <= 0 &&
                strlen(PQgetvalue(result, 0, 0)) == strlen(STRING(VERSION));
    bool lost = result == NULL;

    PQclear(result);
    if (lost)
        return fail(c, "cannot read lonely_schema", error);
    return good || fail(c, "its tables were made by a later version of lonelypss", error);
}

/* What the server has against a statement. The transaction is over. */
static void refused(const struct postgres_conn *c, const PGresult *result, bool *deadlock,
                    char error[256])
{
    const char *why = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

    *deadlock = state != NULL && strcmp(state, "40P01") == 0;
    snprintf(error, 256, "%s: cannot create its tables: %s", c->place->shown,
             why == NULL ? "the connection was lost" : why);
}

/* After an error the caller closes the connection, but for a deadlock. */
static bool try_create(struct postgres_conn *c, bool *deadlock, char error[256])
{
    /* Broadcasters that are started together take turns; others have made everything by then. */
    static const char begin[] = "BEGIN; SELECT pg_advisory_xact_lock(7811898, 1)";
    PGresult *result = postgres_exec(c, begin, PGRES_TUPLES_OK, postgres_until(c));

    *deadlock = false;
    PQclear(result);
    for (size_t i = 0; result != NULL && i < sizeof ddl / sizeof ddl[0]; i++) {
        if (PQsendQuery(c->pg, ddl[i]) != 1)
            return fail(c, "cannot create its tables: the connection was lost", error);
        result = postgres_take(c, postgres_until(c));
        if (PQresultStatus(result) == PGRES_FATAL_ERROR) {
            refused(c, result, deadlock, error);
            PQclear(result);
            return false;
        }
        PQclear(result);
    }
    if (result == NULL)
        return fail(c, "cannot create its tables: it does not answer", error);
    result = postgres_exec(c, "COMMIT", PGRES_COMMAND_OK, postgres_until(c));
    PQclear(result);
    return result != NULL || fail(c, "cannot create its tables: it does not answer", error);
}

/* Others may write meanwhile, to the tables that are there, in another order than these statements take
 * their locks: when the server ends that by refusing one of ours, all is to be done again. */
static bool create(struct postgres_conn *c, char error[256])
{
    bool deadlock = false;

    for (int tries = 0; tries < DEADLOCKS_MAX; tries++) {
        PGresult *result;

        if (try_create(c, &deadlock, error))
            return true;
        if (!deadlock)
            return false;
        result = postgres_exec(c, "ROLLBACK", PGRES_COMMAND_OK, postgres_until(c));
        PQclear(result);
        if (result == NULL)
            return false;
    }
    return false;
}

bool postgres_schema_ensure(struct postgres_conn *c, char error[256])
{
    bool complete, has_version;

    if (!look(c, &complete, &has_version))
        return fail(c, "cannot be read", error);
    if (has_version && !check_version(c, error))
        return false;
    return complete || create(c, error);
}
