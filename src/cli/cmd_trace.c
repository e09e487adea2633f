/*
 * `lonelypsc trace`: what the file of the option `tracing` says: how many notifies, how long they took,
 * and between which two points the time went.                     (doc/protocol/tracing.md, 3)
 */
#include <sqlite3.h>

#include "commands.h"
#include "text.h"

#define BUSY_MS       5000
#define DEFAULT_STEPS 10

static const struct cli_option options[] = {
    { "steps", "N", "so many of the slowest steps (default: 10)" },
    { NULL, NULL, NULL },
};

static const char summary[] =
    "SELECT count(*), coalesce(sum(length), 0),"
    " avg(finished_at - created_at) * 1000, max(finished_at - created_at) * 1000"
    " FROM stateless_notifies";
static const char outcomes[] =
    "SELECT count(*) FILTER (WHERE last NOT IN ('retry_prevented', 'retries_exhausted')),"
    " count(*) FILTER (WHERE last = 'retry_prevented'),"
    " count(*) FILTER (WHERE last = 'retries_exhausted') FROM"
    " (SELECT name AS last, max(ord) FROM stateless_notify_timings GROUP BY notify_id)";
static const char points[] = "SELECT name, count(*) FROM stateless_notify_timings GROUP BY name"
                             " ORDER BY min(ord), name";
/* In the order in which they happened: those of the broadcaster lie between ours. */
static const char steps[] =
    "SELECT before || ' - ' || name, count(*), avg(took) * 1000, max(took) * 1000 FROM ("
    " SELECT name, lag(name) OVER happened AS before,"
    " occurred_at - lag(occurred_at) OVER happened AS took FROM stateless_notify_timings"
    " WINDOW happened AS (PARTITION BY notify_id ORDER BY occurred_at, ord))"
    " WHERE before IS NOT NULL GROUP BY before, name ORDER BY max(took) DESC, before, name LIMIT ?";

static bool fail(sqlite3 *db, const char *path)
{
    cli_complain("%s: %s", path, sqlite3_errmsg(db));
    return false;
}

/* Calls `print` for each row. False: complained. */
static bool query(sqlite3 *db, const char *path, const char *sql, int64_t limit,
                  void (*print)(sqlite3_stmt *row))
{
    sqlite3_stmt *statement;
    int status;

    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        return fail(db, path);
    if (limit >= 0)
        sqlite3_bind_int64(statement, 1, limit);
    while ((status = sqlite3_step(statement)) == SQLITE_ROW)
        print(statement);
    sqlite3_finalize(statement);
    return status == SQLITE_DONE || fail(db, path);
}

/* Names may be a broadcaster's: nothing of them moves the terminal's cursor. */
static void print_name(sqlite3_stmt *row, int width)
{
    const struct lonely_span name = { sqlite3_column_text(row, 0),
                                      (size_t)sqlite3_column_bytes(row, 0) };
    int len = (int)name.len;

    text_print(stdout, name, false);
    printf("%*s", len < width ? width - len : 1, "");
}

static void print_summary(sqlite3_stmt *row)
{
    long long count = sqlite3_column_int64(row, 0);

    printf("notifies   %lld, %lld bytes\n", count, (long long)sqlite3_column_int64(row, 1));
    if (count > 0)
        printf("took       %.3f ms on average, %.3f ms at most\n", sqlite3_column_double(row, 2),
               sqlite3_column_double(row, 3));
}

static void print_outcomes(sqlite3_stmt *row)
{
    printf("ended      %lld accepted, %lld refused or ambiguous, %lld without a broadcaster\n",
           (long long)sqlite3_column_int64(row, 0), (long long)sqlite3_column_int64(row, 1),
           (long long)sqlite3_column_int64(row, 2));
}

static void print_point(sqlite3_stmt *row)
{
    fputs("  ", stdout);
    print_name(row, 36);
    printf("%10lld\n", (long long)sqlite3_column_int64(row, 1));
}

static void print_step(sqlite3_stmt *row)
{
    fputs("  ", stdout);
    print_name(row, 56);
    printf("%8lld %12.3f %12.3f\n", (long long)sqlite3_column_int64(row, 1),
           sqlite3_column_double(row, 2), sqlite3_column_double(row, 3));
}

static bool print_all(sqlite3 *db, const char *path, uint64_t limit)
{
    if (!query(db, path, summary, -1, print_summary) ||
        !query(db, path, outcomes, -1, print_outcomes))
        return false;
    fputs("\npoints\n", stdout);
    if (!query(db, path, points, -1, print_point))
        return false;
    printf("\nslowest steps                                             %8s %12s %12s\n", "count",
           "average ms", "longest ms");
    return query(db, path, steps, (int64_t)limit, print_step);
}

/* A database, but not one of traces, or none at all: that is the argument's fault. */
static enum cli_code code_of(sqlite3 *db)
{
    int err = sqlite3_errcode(db);

    return err == SQLITE_NOTADB || err == SQLITE_ERROR ? CLI_USAGE : CLI_FAILED;
}

static enum cli_code run(struct cli_args *args)
{
    const char *path = args->operand_count > 0 ? args->operands[0] : NULL;
    uint64_t limit = DEFAULT_STEPS;
    enum cli_code code;
    sqlite3 *db;

    if (path == NULL)
        cli_complain("a file is needed, the one of --tracing; see lonelypsc trace --help");
    if (path == NULL || !cli_number(args, "steps", 0, 1000000, &limit))
        return CLI_USAGE;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) {
        fail(db, path);
        sqlite3_close(db);
        return CLI_USAGE;
    }
    sqlite3_busy_timeout(db, BUSY_MS);
    code = print_all(db, path, limit) ? CLI_GOOD : code_of(db);
    sqlite3_close(db);
    return code;
}

const struct cli_command cmd_trace = {
    .name = "trace",
    .usage = "[--steps N] FILE",
    .meaning = "Prints what --tracing has written to a file: counts, and the slowest steps.",
    .options = options,
    .max_operands = 1,
    .run = run,
};
