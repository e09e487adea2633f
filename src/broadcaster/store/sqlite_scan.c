/*
 * Pages of rows for CHECK and SET (sqlite_scan.h).
 */
#include "sqlite_scan.h"

#include "sqlite_conn.h"

/* --- scan --------------------------------------------------------------------------------- */

bool sqlite_scan_start(struct sqlite_scan *s, sqlite3_stmt *exacts, sqlite3_stmt *globs,
                       struct lonely_span url, const struct store_place *from)
{
    s->st[STORE_EXACT] = exacts;
    s->st[STORE_GLOB] = globs;
    s->url = url;
    s->ended = false;
    s->at = 0;
    store_page_clear(&s->page);
    s->place.kind = STORE_EXACT;
    s->place.is_behind = false;
    if (from == NULL || !from->is_behind)
        return true;
    return store_place_set(&s->place, from->kind, (struct lonely_span){ from->key, from->len });
}

void sqlite_scan_fini(struct sqlite_scan *s)
{
    store_page_fini(&s->page);
    store_place_fini(&s->place);
}

static int bind_scan(struct sqlite_scan *s, sqlite3_stmt *st)
{
    struct lonely_span key = { s->place.key, s->place.is_behind ? s->place.len : 0 };
    int rc = sqlite_bind_text(st, 1, s->url);

    if (rc == SQLITE_OK)
        rc = sqlite_bind_key(st, 2, s->place.kind, key);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_int(st, 3, STORE_PAGE_ROWS + 1);
    return rc;
}

/* Copies the row that the statement is at, unless it is the one that the scan stands behind. */
static int take_row(struct sqlite_scan *s, sqlite3_stmt *st)
{
    struct store_row row = { .kind = s->place.kind, .key = sqlite_column_span(st, 0) };

    if (s->place.is_behind &&
        store_span_compare(row.key, (struct lonely_span){ s->place.key, s->place.len }) == 0)
        return SQLITE_OK;
    if (sqlite3_column_type(st, 1) == SQLITE_TEXT)
        row.recovery = sqlite_column_span(st, 1);
    return store_page_add(&s->page, &row) ? SQLITE_OK : SQLITE_NOMEM;
}

/* Moves the scan behind its page, or to the next kind, or to the end. `rc` is how the page ended. */
static int move_on(struct sqlite_scan *s, int rc)
{
    struct store_row last;

    if (rc == SQLITE_DONE) {
        s->ended = s->place.kind == STORE_GLOB;
        s->place.kind = STORE_GLOB;
        s->place.is_behind = false;
        return SQLITE_OK;
    }
    last = store_page_get(&s->page, s->page.count - 1);
    return store_place_set(&s->place, last.kind, last.key) ? SQLITE_OK : SQLITE_NOMEM;
}

static int read_page(struct sqlite_scan *s)
{
    sqlite3_stmt *st = s->st[s->place.kind];
    int rc = bind_scan(s, st);

    store_page_clear(&s->page);
    s->at = 0;
    while (rc == SQLITE_OK && !store_page_is_full(&s->page)) {
        rc = sqlite3_step(st);
        if (rc == SQLITE_ROW)
            rc = take_row(s, st);
    }
    sqlite3_reset(st);
    if (rc != SQLITE_OK && rc != SQLITE_DONE)
        return rc;
    return move_on(s, rc);
}

int sqlite_scan_fill(struct sqlite_scan *s)
{
    int rc = SQLITE_OK;

    while (rc == SQLITE_OK && s->at == s->page.count && !s->ended)
        rc = read_page(s);
    return rc;
}
