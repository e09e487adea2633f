/*
 * The rows of the memory backend in the order (url, kind, key): a skip list. One thread at a time.
 */
#ifndef MEMORY_ROWS_H
#define MEMORY_ROWS_H

#include "list.h"
#include "store.h"

#define MEMORY_LEVELS 24

struct memory_row {
    struct store_row row; /* url and key lie behind the structure, recovery in a block of its own */
    struct list pending;  /* linked while a MISSED is pending */
    struct lonely_span topic; /* of that, in a block of its own */
    uint32_t attempts;
    int64_t due_s;
    int64_t lock_id, lock_until_s; /* 0, 0: not locked */
    unsigned levels;
    struct memory_row *next[]; /* `levels` of them; next[0] is the next row */
};

struct memory_rows {
    struct memory_row *first[MEMORY_LEVELS];
    uint64_t random; /* of the levels; not 0 */
};

/* The first row not before `row`, or NULL; with `behind` the first one after it. */
struct memory_row *memory_rows_seek(struct memory_rows *rows, const struct store_row *row,
                                    bool behind);
struct memory_row *memory_rows_find(struct memory_rows *rows, const struct store_row *row);
/* Adds a copy of a row that is not there. NULL: no memory. */
struct memory_row *memory_rows_insert(struct memory_rows *rows, const struct store_row *row);
/* Unlinks and frees. */
void memory_rows_remove(struct memory_rows *rows, struct memory_row *r);
void memory_rows_fini(struct memory_rows *rows);

/* Replaces the bytes of `*owned` (a block of its own) by a copy; false: no memory. */
bool memory_span_set(struct lonely_span *owned, struct lonely_span from);

#endif
