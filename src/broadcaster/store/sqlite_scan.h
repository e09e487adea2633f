/*
 * The rows of one url in the order of the protocol (exact topics, then globs, each ascending as
 * bytes), a page at a time. Between two pages no statement is open, so a scan may end a
 * transaction and go on in another; what others change behind its position meanwhile, it sees.
 */
#ifndef SQLITE_SCAN_H
#define SQLITE_SCAN_H

#include <sqlite3.h>

#include "sqlite_schema.h"
#include "store_place.h"

#define PAGE_ROWS  1000
#define PAGE_BYTES (1u << 20) /* a page ends with the row that exceeds it */

/*
 * The statements of a scan: url, first key, number of rows. The bounds keep to one storage class,
 * the one that the protocol's rows have: TEXT sorts before BLOB, and `x''` is the first BLOB.
 */
#define SCAN_EXACTS                               \
    "SELECT exact, missed_url FROM " TABLE_EXACTS \
    " WHERE url = ?1 AND exact >= ?2 ORDER BY exact LIMIT ?3"
#define SCAN_GLOBS                              \
    "SELECT glob, missed_url FROM " TABLE_GLOBS \
    " WHERE url = ?1 AND glob >= ?2 AND glob < x'' ORDER BY glob LIMIT ?3"

/* Copies of some rows: kind, key, recovery. */
struct sqlite_page {
    uint8_t *data;
    size_t len, cap;
    size_t count;
    struct page_row {
        enum store_kind kind;
        size_t key_at, key_len, recovery_len; /* the recovery url lies behind the key */
    } rows[PAGE_ROWS];
};

void sqlite_page_clear(struct sqlite_page *p);
void sqlite_page_fini(struct sqlite_page *p);
static inline bool sqlite_page_is_full(const struct sqlite_page *p)
{
    return p->count == PAGE_ROWS || p->len > PAGE_BYTES;
}
bool sqlite_page_add(struct sqlite_page *p, const struct store_row *row); /* false: no memory */
struct store_row sqlite_page_get(const struct sqlite_page *p, size_t i);  /* without url */

struct sqlite_scan {
    sqlite3_stmt *st[2]; /* by kind; the caller's connection */
    struct lonely_span url;
    struct store_place place; /* behind what the page holds */
    bool ended;               /* nothing behind the page */
    struct sqlite_page page;
    size_t at; /* in the page: the next row */
};

/* Starts behind `from` (NULL: at the first row); false: no memory. A zeroed struct may be given. */
bool sqlite_scan_start(struct sqlite_scan *s, sqlite3_stmt *exacts, sqlite3_stmt *globs,
                       struct lonely_span url, const struct store_place *from);
void sqlite_scan_fini(struct sqlite_scan *s);

/* When the page is used up, reads the next one that has rows. SQLITE_OK; then at == count means the
 * end. Or the error. */
int sqlite_scan_fill(struct sqlite_scan *s);

#endif
