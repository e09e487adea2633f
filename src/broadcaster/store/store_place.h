/*
 * The order of the subscriptions of one url (exact topics, then globs, each ascending as bytes), and
 * a place in it, at which a long operation goes on later. (doc/protocol/http.md, 9)
 */
#ifndef STORE_PLACE_H
#define STORE_PLACE_H

#include "store.h"

/* Behind the row (kind, key), or in front of the first row of `kind`. Zeroed: in front of all. */
struct store_place {
    enum store_kind kind;
    bool is_behind;
    uint8_t *key;
    size_t len, cap;
};

/* Moves it behind a row; false: no memory. */
bool store_place_set(struct store_place *p, enum store_kind kind, struct lonely_span key);
void store_place_fini(struct store_place *p);

/* Bytewise, a prefix first; negative, 0 or positive. */
int store_span_compare(struct lonely_span a, struct lonely_span b);
int store_row_compare(const struct store_row *a, const struct store_row *b); /* (kind, key) */

/* Makes room for `need` bytes at `*ptr`, which has `*cap`; false: no memory, nothing changed. */
bool store_grow(uint8_t **ptr, size_t *cap, size_t need);

#endif
