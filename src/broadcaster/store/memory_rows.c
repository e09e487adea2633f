/*
 * A skip list of subscriptions (memory_rows.h), for store_memory.c.
 */
#include "memory_rows.h"

#include <string.h>

#include "mem.h"
#include "store_place.h"

static int compare(const struct store_row *a, const struct store_row *b)
{
    int order = store_span_compare(a->url, b->url);

    return order != 0 ? order : store_row_compare(a, b);
}

/* Fills `links` with the link of each level that a row at that place would change. */
static void search(struct memory_rows *rows, const struct store_row *row, bool behind,
                   struct memory_row **links[MEMORY_LEVELS])
{
    struct memory_row **next = rows->first;

    for (size_t level = MEMORY_LEVELS; level-- > 0;) {
        while (next[level] != NULL && compare(&next[level]->row, row) < (behind ? 1 : 0))
            next = next[level]->next;
        links[level] = &next[level];
    }
}

struct memory_row *memory_rows_seek(struct memory_rows *rows, const struct store_row *row,
                                    bool behind)
{
    struct memory_row **links[MEMORY_LEVELS];

    search(rows, row, behind, links);
    return *links[0];
}

struct memory_row *memory_rows_find(struct memory_rows *rows, const struct store_row *row)
{
    struct memory_row *r = memory_rows_seek(rows, row, false);

    return r != NULL && compare(&r->row, row) == 0 ? r : NULL;
}

/* Half of the rows have one level, a quarter two, and so on. (xorshift64) */
static unsigned draw_levels(struct memory_rows *rows)
{
    unsigned levels = 1;

    rows->random ^= rows->random << 13;
    rows->random ^= rows->random >> 7;
    rows->random ^= rows->random << 17;
    for (uint64_t bits = rows->random; (bits & 1) != 0 && levels < MEMORY_LEVELS; bits >>= 1)
        levels++;
    return levels;
}

bool memory_span_set(struct lonely_span *owned, struct lonely_span from)
{
    uint8_t *copy = NULL;

    if (from.len > 0) {
        copy = mem_try_alloc(from.len);
        if (copy == NULL)
            return false;
        memcpy(copy, from.ptr, from.len);
    }
    if (owned->len > 0)
        mem_free((void *)(uintptr_t)owned->ptr);
    *owned = (struct lonely_span){ copy, from.len };
    return true;
}

static void free_row(struct memory_row *r)
{
    (void)memory_span_set(&r->row.recovery, (struct lonely_span){ 0 });
    (void)memory_span_set(&r->topic, (struct lonely_span){ 0 });
    mem_free(r);
}

static struct memory_row *create_row(const struct store_row *row, unsigned levels)
{
    size_t head = sizeof(struct memory_row) + levels * sizeof(struct memory_row *);
    struct memory_row *r = mem_try_calloc(1, head + row->url.len + row->key.len);
    uint8_t *text;

    if (r == NULL)
        return NULL;
    list_init(&r->pending);
    r->levels = levels;
    text = (uint8_t *)r + head;
    r->row = (struct store_row){ .kind = row->kind,
                                 .url = { text, row->url.len },
                                 .key = { text + row->url.len, row->key.len } };
    if (row->url.len > 0)
        memcpy(text, row->url.ptr, row->url.len);
    if (row->key.len > 0)
        memcpy(text + row->url.len, row->key.ptr, row->key.len);
    if (!memory_span_set(&r->row.recovery, row->recovery)) {
        mem_free(r);
        return NULL;
    }
    return r;
}

struct memory_row *memory_rows_insert(struct memory_rows *rows, const struct store_row *row)
{
    struct memory_row **links[MEMORY_LEVELS];
    struct memory_row *r = create_row(row, draw_levels(rows));

    if (r == NULL)
        return NULL;
    search(rows, row, false, links);
    for (unsigned level = 0; level < r->levels; level++) {
        r->next[level] = *links[level];
        *links[level] = r;
    }
    return r;
}

void memory_rows_remove(struct memory_rows *rows, struct memory_row *r)
{
    struct memory_row **links[MEMORY_LEVELS];

    search(rows, &r->row, false, links);
    for (unsigned level = 0; level < r->levels; level++)
        *links[level] = r->next[level];
    list_remove(&r->pending);
    free_row(r);
}

void memory_rows_fini(struct memory_rows *rows)
{
    struct memory_row *next;

    for (struct memory_row *r = rows->first[0]; r != NULL; r = next) {
        next = r->next[0];
        free_row(r);
    }
    *rows = (struct memory_rows){ 0 };
}
