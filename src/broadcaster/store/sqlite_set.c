/*
 * SET: makes the rows of one url equal to a list, in several transactions that other writes get in
 * between. (doc/protocol/http.md, 9)
 *
 * The sorted list and the sorted rows are walked together, each transaction from where the one
 * before it ended. A row that is in the list is never deleted and one that is not is never
 * inserted, whatever others do behind that place; so the four promises of the specification hold.
 * Memory: a page of the list and a page of rows.
 */
#include <string.h>

#include "clock.h"
#include "mem.h"
#include "sqlite_store.h"

#define TRANSACTION_ROWS 10000 /* rows of either side looked at in one transaction */

struct sqlite_set {
    struct list node;
    struct store_request *request;
    struct store_list_pages list; /* read outside of transactions */
    struct store_place merged;    /* up to here rows and list are equal */
};

struct sqlite_set *sqlite_set_create(struct store_request *r)
{
    struct sqlite_set *s = mem_calloc(1, sizeof *s);

    list_init(&s->node);
    s->request = r;
    return s;
}

struct list *sqlite_set_node(struct sqlite_set *s)
{
    return &s->node;
}

struct sqlite_set *sqlite_set_of_node(struct list *node)
{
    return list_entry(node, struct sqlite_set, node);
}

static bool set_end(struct sqlite_set *s, enum store_status status)
{
    store_request_answer(s->request, status);
    store_list_fini(&s->list);
    store_place_fini(&s->merged);
    mem_free(s);
    return true;
}

static bool same_recovery(const struct store_row *a, const struct store_row *b)
{
    return a->recovery.len == b->recovery.len &&
           (a->recovery.len == 0 || memcmp(a->recovery.ptr, b->recovery.ptr, a->recovery.len) == 0);
}

/* Treats the first of what is left on either side; at least one of the two is not NULL. */
static int merge_row(struct sqlite_writer *w, struct sqlite_set *s, struct store_row *stored,
                     struct store_row *listed)
{
    int order = stored == NULL ? 1 : listed == NULL ? -1 : store_row_compare(stored, listed);
    int changed;
    int rc = SQLITE_OK;

    if (stored != NULL)
        stored->url = s->request->row.url;
    if (listed != NULL)
        listed->url = s->request->row.url;
    if (order < 0)
        rc = sqlite_op_delete(w, stored, &changed);
    else if (order > 0)
        rc = sqlite_op_insert(w, listed, &changed);
    else if (!same_recovery(stored, listed))
        rc = sqlite_op_recovery(w, listed, &changed);
    if (order <= 0)
        w->scan.at++;
    if (order >= 0)
        s->list.at++;
    if (rc == SQLITE_OK && !store_place_set(&s->merged, order <= 0 ? stored->kind : listed->kind,
                                            order <= 0 ? stored->key : listed->key))
        rc = SQLITE_NOMEM;
    return rc;
}

/* Inside a transaction: goes on until the page of the list is used up, or the transaction is long
 * enough. `*done`: both sides have ended. */
static int merge(struct sqlite_writer *w, struct sqlite_set *s, bool *done)
{
    int rc = SQLITE_OK;

    *done = false;
    if (!sqlite_scan_start(&w->scan, w->conn.st[W_OF(W_PAGE, STORE_EXACT)],
                           w->conn.st[W_OF(W_PAGE, STORE_GLOB)], s->request->row.url, &s->merged))
        return SQLITE_NOMEM;
    for (int n = 0; rc == SQLITE_OK && n < TRANSACTION_ROWS; n++) {
        struct store_row stored, listed;
        bool is_stored, is_listed;

        rc = sqlite_scan_fill(&w->scan);
        if (rc != SQLITE_OK)
            return rc;
        is_stored = w->scan.at < w->scan.page.count;
        is_listed = s->list.at < s->list.page.count;
        if (!is_listed && !s->list.ended)
            return SQLITE_OK;
        if (!is_listed && !is_stored) {
            *done = true;
            return SQLITE_OK;
        }
        if (is_stored)
            stored = store_page_get(&w->scan.page, w->scan.at);
        if (is_listed)
            listed = store_page_get(&s->list.page, s->list.at);
        rc = merge_row(w, s, is_stored ? &stored : NULL, is_listed ? &listed : NULL);
    }
    return rc;
}

bool sqlite_set_turn(struct sqlite_writer *w, struct sqlite_set *s)
{
    bool done;
    int rc;

    sqlite_conn_look_for_file(&w->conn);
    if (atomic_load(&s->request->cancelled) || !store_list_fill(&s->list, s->request->list) ||
        !sqlite_conn_ready(&w->conn))
        return set_end(s, STORE_UNAVAILABLE);
    if (sqlite_writer_begin(w, clock_mono_ms(&clock_system) + w->timeout_ms) != SQLITE_OK)
        return set_end(s, STORE_UNAVAILABLE);
    rc = merge(w, s, &done);
    if (rc != SQLITE_OK) {
        sqlite_conn_failed(&w->conn, "set", rc);
        sqlite_writer_rollback(w);
        return set_end(s, STORE_UNAVAILABLE);
    }
    if (sqlite_writer_commit(w) != SQLITE_OK)
        return set_end(s, STORE_UNAVAILABLE);
    return done ? set_end(s, STORE_OK) : false;
}
