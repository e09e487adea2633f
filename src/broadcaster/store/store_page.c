/*
 * Pages of rows (store_page.h). Called by the backends.
 */
#include "store_page.h"

#include <string.h>

#include "mem.h"

void store_page_clear(struct store_page *p)
{
    p->count = 0;
    p->len = 0;
}

void store_page_fini(struct store_page *p)
{
    mem_free(p->data);
    *p = (struct store_page){ 0 };
}

static void append(struct store_page *p, struct lonely_span s)
{
    if (s.len > 0)
        memcpy(p->data + p->len, s.ptr, s.len);
    p->len += s.len;
}

bool store_page_add(struct store_page *p, const struct store_row *row)
{
    if (!store_grow(&p->data, &p->cap, p->len + row->key.len + row->recovery.len + 1))
        return false;
    p->rows[p->count++] = (struct page_row){ row->kind, p->len, row->key.len, row->recovery.len };
    append(p, row->key);
    append(p, row->recovery);
    return true;
}

struct store_row store_page_get(const struct store_page *p, size_t i)
{
    const struct page_row *r = &p->rows[i];

    return (struct store_row){ .kind = r->kind,
                               .key = { p->data + r->key_at, r->key_len },
                               .recovery = { p->data + r->key_at + r->key_len, r->recovery_len } };
}

/* The list is the caller's promise; a merge over an unsorted one would delete what it must not. */
static bool is_next(const struct store_list_pages *l, const struct store_row *row)
{
    struct store_row last = { .kind = l->listed.kind, .key = { l->listed.key, l->listed.len } };

    return row->key.len <= UINT16_MAX && row->recovery.len <= UINT16_MAX &&
           (!l->listed.is_behind || store_row_compare(&last, row) < 0);
}

bool store_list_fill(struct store_list_pages *l, const struct store_list *list)
{
    if (l->at < l->page.count || l->ended)
        return true;
    store_page_clear(&l->page);
    l->at = 0;
    while (!store_page_is_full(&l->page)) {
        struct store_row row;
        int got = list->next(list->arg, &row);

        if (got == 0) {
            l->ended = true;
            break;
        }
        if (got < 0 || !is_next(l, &row) || !store_page_add(&l->page, &row) ||
            !store_place_set(&l->listed, row.kind, row.key))
            return false;
    }
    return true;
}

void store_list_fini(struct store_list_pages *l)
{
    store_page_fini(&l->page);
    store_place_fini(&l->listed);
}
