/*
 * Loads everything from rqlite, in pages that are bounded in rows and bytes. Called by rqlite_feed.c.
 * A page is one string, "id,url,key,recovery;...", the texts as hexadecimal digits or "-": a value a
 * column costs rqlite and us twice as much.
 *
 * There is no transaction over several pages. So the newest number of the change log is read first,
 * and the log is applied from there on afterwards: a row that was changed while the pages were read
 * is made right by its last change, and of one that was not there is one truth. Until the log has
 * been applied, nobody is told that the feed is up to date.
 */
#include <stdlib.h>

#include "rqlite_store.h"

#define PAGE_ROWS  "10000"
#define PAGE_BYTES "2097152"

#define ROWS_OF(key, table)                            \
    "(SELECT id, url, " key ", missed_url FROM " table \
    " WHERE id > ?1 ORDER BY id LIMIT " PAGE_ROWS ")"
#define OR_DASH(digits) "coalesce(" digits ", '-')"
#define SHOWN(key)                                                              \
    "group_concat(id || ',' || " OR_DASH(RQ_TEXT("url")) " || ',' || " OR_DASH( \
        key) " || ',' || " OR_DASH(RQ_TEXT("missed_url")) ", ';')"
#define SHOWN_EXACT  SHOWN(RQ_BLOB("exact"))
#define SHOWN_GLOB   SHOWN(RQ_TEXT("glob"))
#define SIZE_OF(key) RQ_SIZE("url") " + " RQ_SIZE(key) " + " RQ_SIZE("missed_url")
#define SIZE_BEFORE(key)     \
    "coalesce(sum(" SIZE_OF( \
        key) ") OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)"

/* Nothing when these rows are too many bytes. */
#define WHOLE(shown, rows, size) \
    "SELECT " shown " FROM " rows " WHERE (SELECT sum(" size ") FROM " rows ") < " PAGE_BYTES
/* As many of them as are not; three times as slow. */
#define PART(shown, rows, before)                                      \
    "SELECT " shown " FROM (SELECT *, " before " AS before FROM " rows \
    ") WHERE before < " PAGE_BYTES

static const char *const whole_page[2] = {
    WHOLE(SHOWN_EXACT, ROWS_OF("exact", RQ_EXACTS), SIZE_OF("exact")),
    WHOLE(SHOWN_GLOB, ROWS_OF("glob", RQ_GLOBS), SIZE_OF("glob")),
};
static const char *const part_of_page[2] = {
    PART(SHOWN_EXACT, ROWS_OF("exact", RQ_EXACTS), SIZE_BEFORE("exact")),
    PART(SHOWN_GLOB, ROWS_OF("glob", RQ_GLOBS), SIZE_BEFORE("glob")),
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

/* The digits up to `end` or a separator, which is stepped over. */
static struct rqlite_digits next_digits(const char **at, const char *end)
{
    const char *from = *at;
    size_t len = 0;

    while (from + len < end && from[len] != ',' && from[len] != ';')
        len++;
    *at = from + len < end ? from + len + 1 : end;
    return (struct rqlite_digits){ len == 1 && from[0] == '-' ? NULL : from, len };
}

/* Feeds the rows of a page; `*id` becomes the largest. Their number. */
static long feed_page(struct rqlite_feed *f, enum store_kind kind, json_t *page, int64_t *id)
{
    const char *at = json_string_value(page);
    const char *end = at == NULL ? NULL : at + json_string_length(page);
    long rows = 0;

    for (; at < end; rows++) {
        struct lonely_span spans[RQLITE_SPANS_MAX];
        struct rqlite_digits digits[3];
        struct store_row row = { .kind = kind };
        int64_t row_id = strtoll(at, NULL, 10);

        (void)next_digits(&at, end);
        for (size_t i = 0; i < 3; i++)
            digits[i] = next_digits(&at, end);
        if (row_id > *id)
            *id = row_id;
        if ((rqlite_text_decode(&f->text, digits, 3, spans) & 3) != 3)
            continue; /* not one that the protocol could have made */
        row.url = spans[0];
        row.key = spans[1];
        row.recovery = spans[2];
        f->to.add(f->to.arg, &row);
    }
    return rows;
}

/* Feeds the rows behind `*id`, which moves on; their number, or -1. */
static long load_page(struct rqlite_feed *f, enum store_kind kind, const char *sql, int64_t *id)
{
    uint64_t until_ms = rqlite_now_ms() + f->conn.cluster->timeout_ms;
    struct rqlite_body body;
    json_t *results;
    long rows = -1;

    rqlite_body_init(&body, 8192);
    rqlite_body_statement(&body, sql);
    rqlite_body_int(&body, *id);
    (void)rqlite_body_end(&body);
    if (rqlite_read(&f->conn, RQLITE_READ, &body, until_ms, &results) == RQLITE_OK)
        rows = feed_page(f, kind, json_array_get(rqlite_row(results, 0, 0), 0), id);
    json_decref(results);
    rqlite_body_fini(&body);
    return rows;
}

static bool load_kind(struct rqlite_feed *f, enum store_kind kind)
{
    int64_t id = INT64_MIN;
    long rows;

    do {
        rows = load_page(f, kind, whole_page[kind], &id);
        if (rows == 0) /* too many bytes, or the end */
            rows = load_page(f, kind, part_of_page[kind], &id);
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
