/*
 * The rows of one url, for CHECK and SET (rqlite_store.h). Each page is read by one query, bounded in
 * rows and in bytes.
 */
#include "rqlite_store.h"

#include <string.h>

#define PAGE_ROWS  "1001" /* one of them may be where we stand */
#define PAGE_BYTES "1048576"

/* The bounds keep to one storage class, the one that the protocol's rows have: TEXT sorts before BLOB,
 * and `x''` is the first BLOB. A page ends before the row that follows so many bytes. */
#define PAGE(key, shown, table, where)                                                             \
    "SELECT " shown                                                                                \
    ", " RQ_TEXT("missed_url") " FROM (SELECT " key ", missed_url, coalesce(sum(" RQ_SIZE(         \
        key) " + " RQ_SIZE("missed_url") ") OVER (ORDER BY " key                                   \
                                         " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) " \
                                         "AS before "                                              \
                                         "FROM (SELECT " key ", missed_url FROM " table            \
                                         " WHERE url = CAST(? AS TEXT) AND " where                 \
                                         " AND length(CAST(" key                                   \
                                         " AS BLOB)) <= 65535 ORDER BY " key " LIMIT " PAGE_ROWS   \
                                         ")) WHERE before < " PAGE_BYTES " ORDER BY " key

static const char *const sql[2] = {
    PAGE("exact", RQ_BLOB("exact"), RQ_EXACTS, "exact >= ?"),
    PAGE("glob", RQ_TEXT("glob"), RQ_GLOBS, "glob >= CAST(? AS TEXT) AND glob < x''"),
};

void rqlite_scan_init(struct rqlite_scan *s, struct rqlite_conn *conn, struct lonely_span url)
{
    memset(s, 0, sizeof *s);
    s->conn = conn;
    s->url = url;
    rqlite_text_init(&s->text);
}

void rqlite_scan_fini(struct rqlite_scan *s)
{
    json_decref(s->page);
    s->page = NULL;
    rqlite_text_fini(&s->text);
    store_place_fini(&s->place);
}

static void read_row(struct rqlite_scan *s)
{
    struct lonely_span spans[RQLITE_SPANS_MAX] = { { 0 } };

    (void)rqlite_text_read(&s->text, rqlite_row(s->page, 0, s->at), 0, 2, spans);
    s->row =
        (struct store_row){ .kind = s->kind, .url = s->url, .key = spans[0], .recovery = spans[1] };
}

void rqlite_scan_next(struct rqlite_scan *s)
{
    if (++s->at < s->count)
        read_row(s);
}

/* Moves behind the last row of the page, or to the next kind, or to the end. */
static bool move_on(struct rqlite_scan *s)
{
    struct lonely_span last[RQLITE_SPANS_MAX] = { { 0 } };

    if (s->at == s->count) {
        s->ended = s->place.kind == STORE_GLOB;
        s->place.kind = STORE_GLOB;
        s->place.is_behind = false;
        return true;
    }
    (void)rqlite_text_read(&s->text, rqlite_row(s->page, 0, s->count - 1), 0, 1, last);
    if (!store_place_set(&s->place, s->kind, last[0]))
        return false;
    read_row(s); /* another was decoded */
    return true;
}

static bool read_page(struct rqlite_scan *s, uint64_t until_ms)
{
    struct lonely_span from = { s->place.key, s->place.is_behind ? s->place.len : 0 };
    struct rqlite_body body;
    bool good;

    json_decref(s->page);
    s->page = NULL;
    s->kind = s->place.kind;
    s->at = s->count = 0;
    rqlite_body_init(&body, RQLITE_BODY_MAX);
    rqlite_body_statement(&body, sql[s->kind]);
    rqlite_body_bytes(&body, s->url);
    rqlite_body_bytes(&body, from);
    good = rqlite_body_end(&body) &&
           rqlite_read(s->conn, RQLITE_READ, &body, until_ms, &s->page) == RQLITE_OK;
    rqlite_body_fini(&body);
    if (!good)
        return false;
    s->count = rqlite_row_count(s->page, 0);
    if (s->count == 0)
        return true;
    read_row(s);
    if (s->place.is_behind && store_span_compare(s->row.key, from) == 0)
        rqlite_scan_next(s);
    return true;
}

bool rqlite_scan_fill(struct rqlite_scan *s, uint64_t until_ms)
{
    while (s->at == s->count && !s->ended)
        if (!read_page(s, until_ms) || !move_on(s))
            return false;
    return true;
}
