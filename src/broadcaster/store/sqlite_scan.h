/*
 * The rows of one url in the order of the protocol (exact topics, then globs, each ascending as
 * bytes), a page at a time. Between two pages no statement is open, so a scan may end a
 * transaction and go on in another; what others change behind its position meanwhile, it sees.
 */
#ifndef SQLITE_SCAN_H
#define SQLITE_SCAN_H

#include <sqlite3.h>

#include "sqlite_schema.h"
#include "store_page.h"

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

struct sqlite_scan {
    sqlite3_stmt *st[2]; /* by kind; the caller's connection */
    struct lonely_span url;
    struct store_place place; /* behind what the page holds */
    bool ended;               /* nothing behind the page */
    struct store_page page;
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
