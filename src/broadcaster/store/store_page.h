/*
 * Pages of rows, for CHECK and SET: copies of some of the sorted rows of one url.
 */
#ifndef STORE_PAGE_H
#define STORE_PAGE_H

#include "store_place.h"

#define STORE_PAGE_ROWS  1000
#define STORE_PAGE_BYTES (1u << 20) /* a page ends with the row that exceeds it */

/* Copies of some rows: kind, key, recovery. */
struct store_page {
    uint8_t *data;
    size_t len, cap;
    size_t count;
    struct page_row {
        enum store_kind kind;
        size_t key_at, key_len, recovery_len; /* the recovery url lies behind the key */
    } rows[STORE_PAGE_ROWS];
};

void store_page_clear(struct store_page *p);
void store_page_fini(struct store_page *p);
static inline bool store_page_is_full(const struct store_page *p)
{
    return p->count == STORE_PAGE_ROWS || p->len > STORE_PAGE_BYTES;
}
bool store_page_add(struct store_page *p, const struct store_row *row); /* false: no memory */
struct store_row store_page_get(const struct store_page *p, size_t i);  /* without url */

/* The sorted list of a SET, read a page at a time. A zeroed struct is its beginning. */
struct store_list_pages {
    struct store_page page;
    size_t at;                 /* its next row */
    bool ended;                /* nothing behind the page */
    struct store_place listed; /* the last row that was read */
};

/* Reads the next page when this one is used up. false: it cannot be read, or is not sorted. */
bool store_list_fill(struct store_list_pages *l, const struct store_list *list);
void store_list_fini(struct store_list_pages *l);

#endif
