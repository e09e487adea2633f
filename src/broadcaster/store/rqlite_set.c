/*
 * SET: makes the rows of one url equal to a list, in several transactions that other writes get in
 * between. (doc/protocol/http.md, 9)
 *
 * The sorted list and pages of the sorted rows are walked together; what differs is put into a
 * transaction. A row that is in the list is never deleted and one that is not is never inserted; one
 * that is in the list was there when its page was read, or is inserted; one that is not was absent
 * then, or is deleted. So the four promises of the specification hold whatever others do meanwhile.
 * Memory: a page of rows and one transaction.
 */
#include <string.h>

#include "mem.h"
#include "rqlite_store.h"

#define TURN_ROWS 1000 /* rows of either side looked at for one transaction */

struct rqlite_set {
    struct list node;
    struct store_request *request;
    struct rqlite_scan scan;
    struct store_row listed; /* when has_listed */
    bool has_listed;         /* read from the list and not yet treated */
    bool list_ended;
    struct store_place last; /* of the list */
};

struct rqlite_set *rqlite_set_create(struct rqlite_writer *w, struct store_request *r)
{
    struct rqlite_set *s = mem_calloc(1, sizeof *s);

    list_init(&s->node);
    s->request = r;
    rqlite_scan_init(&s->scan, &w->batches.conn, r->row.url);
    return s;
}

struct list *rqlite_set_node(struct rqlite_set *s)
{
    return &s->node;
}

struct rqlite_set *rqlite_set_of_node(struct list *node)
{
    return list_entry(node, struct rqlite_set, node);
}

static bool set_end(struct rqlite_set *s, enum store_status status)
{
    rqlite_scan_fini(&s->scan);
    store_place_fini(&s->last);
    store_request_answer(s->request, status);
    mem_free(s);
    return true;
}

/* The list is the caller's promise; a merge over an unsorted one would delete what it must not. */
static bool is_next(const struct rqlite_set *s, const struct store_row *row)
{
    struct store_row last = { .kind = s->last.kind, .key = { s->last.key, s->last.len } };

    return row->key.len <= UINT16_MAX && row->recovery.len <= UINT16_MAX &&
           (!s->last.is_behind || store_row_compare(&last, row) < 0);
}

/* Reads an entry unless one is still untreated. false: it cannot be read. */
static bool list_fill(struct rqlite_set *s)
{
    const struct store_list *list = s->request->list;
    int got;

    if (s->has_listed || s->list_ended)
        return true;
    got = list->next(list->arg, &s->listed);
    s->list_ended = got == 0;
    s->has_listed = got == 1;
    if (got < 0 || (got == 1 && !is_next(s, &s->listed)))
        return false;
    s->listed.url = s->request->row.url;
    return got == 0 || store_place_set(&s->last, s->listed.kind, s->listed.key);
}

/* Treats the first of what is left on either side; at least one of the two is there. */
static void merge_row(struct rqlite_body *body, struct rqlite_set *s)
{
    bool is_stored = s->scan.at < s->scan.count;
    int order = !is_stored ? 1 : !s->has_listed ? -1 : store_row_compare(&s->scan.row, &s->listed);

    if (order < 0)
        rqlite_op_delete(body, &s->scan.row);
    else if (order > 0 || store_span_compare(s->scan.row.recovery, s->listed.recovery) != 0)
        rqlite_op_put(body, &s->listed);
    if (order <= 0)
        rqlite_scan_next(&s->scan);
    if (order >= 0)
        s->has_listed = false;
}

enum merge { MERGE_MORE, MERGE_DONE, MERGE_FAILED };

/* Fills a transaction. */
static enum merge merge(struct rqlite_writer *w, struct rqlite_set *s, uint64_t until_ms)
{
    struct rqlite_body *body = &w->batches.body;

    for (int n = 0; n < TURN_ROWS && body->text.len < RQLITE_BODY_FULL; n++) {
        if (!list_fill(s) || !rqlite_scan_fill(&s->scan, until_ms))
            return MERGE_FAILED;
        if (!s->has_listed && s->scan.at == s->scan.count)
            return MERGE_DONE;
        merge_row(body, s);
    }
    return MERGE_MORE;
}

bool rqlite_set_turn(struct rqlite_writer *w, struct rqlite_set *s)
{
    uint64_t until_ms = rqlite_now_ms() + w->timeout_ms;
    enum rqlite_outcome outcome = RQLITE_DONE;
    json_t *results = NULL;
    enum merge merged;

    if (atomic_load(&s->request->cancelled) || rqlite_is_down(w->batches.conn.cluster) ||
        !rqlite_writer_ready(w))
        return set_end(s, STORE_UNAVAILABLE);
    merged = merge(w, s, until_ms);
    if (merged == MERGE_FAILED) {
        rqlite_body_clear(&w->batches.body);
        return set_end(s, STORE_UNAVAILABLE);
    }
    if (w->batches.body.count > 0)
        outcome = rqlite_batch_run(&w->batches, until_ms, &results);
    json_decref(results);
    if (outcome != RQLITE_DONE && outcome != RQLITE_APPLIED)
        return set_end(s, STORE_UNAVAILABLE);
    return merged == MERGE_DONE ? set_end(s, STORE_OK) : false;
}
