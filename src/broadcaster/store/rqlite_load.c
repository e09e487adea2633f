/*
 * Loads everything from rqlite, in pages that are bounded in rows and bytes. Called by rqlite_feed.c.
 *
 * There is no transaction over several pages. So the newest number of the change log is read first,
 * and the log is applied from there on afterwards: a row that was changed while the pages were read
 * is made right by its last change, and of one that was not there is one truth. Until the log has
 * been applied, nobody is told that the feed is up to date.
 */
#include "rqlite_store.h"

#define PAGE(key, shown, table)                                                                \
    "SELECT id, " RQ_TEXT("url") ", " shown ", " RQ_TEXT(                                      \
        "missed_url") " FROM (SELECT id, url, " key                                            \
                      ", missed_url, coalesce(sum(" RQ_SIZE("url") " + " RQ_SIZE(              \
                          key) " + " RQ_SIZE("missed_url") ") OVER (ORDER BY id ROWS BETWEEN " \
                                                           "UNBOUNDED PRECEDING AND 1 "        \
                                                           "PRECEDING), 0) AS before FROM "    \
                                                           "(SELECT id, url, " key             \
                                                           ", missed_url FROM " table          \
                                                           " WHERE id > ? ORDER BY id LIMIT "  \
                                                           "10000)) "                          \
                                                           "WHERE before < 2097152 ORDER BY id"

static const char *const sql[2] = {
    PAGE("exact", RQ_BLOB("exact"), RQ_EXACTS),
    PAGE("glob", RQ_TEXT("glob"), RQ_GLOBS),
};

static bool read_newest(struct rqlite_feed *f, int64_t *out)
{
    uint64_t until_ms = rqlite_now_ms() + f->conn.cluster->timeout_ms;
    struct rqlite_body body;
    json_t *results;
    bool found;

    rqlite_body_init(&body, 1024);
    rqlite_body_statement(&body, "SELECT max(seq) FROM " RQ_CHANGES);
    (void)rqlite_body_end(&body);
    found = rqlite_read(&f->conn, RQLITE_READ, &body, until_ms, &results) == RQLITE_OK &&
            rqlite_int(rqlite_row(results, 0, 0), 0, out);
    json_decref(results);
    rqlite_body_fini(&body);
    return found;
}

/* Feeds the rows behind `*id`, which moves on; their number, or -1. */
static long load_page(struct rqlite_feed *f, enum store_kind kind, int64_t *id)
{
    uint64_t until_ms = rqlite_now_ms() + f->conn.cluster->timeout_ms;
    struct rqlite_body body;
    json_t *results;
    size_t rows;

    rqlite_body_init(&body, 4096);
    rqlite_body_statement(&body, sql[kind]);
    rqlite_body_int(&body, *id);
    (void)rqlite_body_end(&body);
    if (rqlite_read(&f->conn, RQLITE_READ, &body, until_ms, &results) != RQLITE_OK) {
        rqlite_body_fini(&body);
        return -1;
    }
    rows = rqlite_row_count(results, 0);
    for (size_t i = 0; i < rows; i++) {
        json_t *row = rqlite_row(results, 0, i);
        struct lonely_span spans[RQLITE_SPANS_MAX];
        struct store_row added = { .kind = kind };

        (void)rqlite_int(row, 0, id);
        if ((rqlite_text_read(&f->text, row, 1, 3, spans) & 3) != 3)
            continue; /* not one that the protocol could have made */
        added.url = spans[0];
        added.key = spans[1];
        added.recovery = spans[2];
        f->to.add(f->to.arg, &added);
    }
    json_decref(results);
    rqlite_body_fini(&body);
    return (long)rows;
}

static bool load_kind(struct rqlite_feed *f, enum store_kind kind)
{
    int64_t id = INT64_MIN;
    long rows;

    do {
        rows = load_page(f, kind, &id);
        rqlite_feed_expire(f);
    } while (rows > 0);
    return rows == 0;
}

bool rqlite_load(struct rqlite_feed *f)
{
    int64_t newest;

    if (!read_newest(f, &newest))
        return false;
    f->to.load_begin(f->to.arg);
    if (!load_kind(f, STORE_EXACT) || !load_kind(f, STORE_GLOB)) {
        f->to.load_abort(f->to.arg);
        return false;
    }
    f->to.load_end(f->to.arg);
    f->applied = newest;
    return true;
}
