/*
 * SET: makes the rows of one url equal to a list, in several transactions that other writes get in
 * between. (doc/protocol/http.md, 9)
 *
 * The sorted list and the sorted rows are walked together, a page of each in a transaction, from where
 * the one before it ended. A row that is in the list is never deleted and one that is not is never
 * inserted, whatever others do behind that place; so the four promises of the specification hold.
 */
#include <string.h>

#include "mem.h"
#include "postgres_store.h"

enum action { ACTION_INSERT, ACTION_DELETE, ACTION_RECOVERY, ACTIONS };

struct postgres_set {
    struct list node;
    struct store_request *request;
    struct store_list_pages list; /* read outside of transactions */
    struct store_place merged;    /* up to here rows and list are equal */
    /* Of the transaction under way. */
    struct store_page stored;
    size_t at;   /* its next row */
    bool ended;  /* nothing of the kind behind the page */
    bool failed; /* no memory */
    struct changes {
        struct postgres_array keys, recoveries;
    } changes[ACTIONS];
};

struct postgres_set *postgres_set_create(struct store_request *r)
{
    struct postgres_set *s = mem_calloc(1, sizeof *s);

    list_init(&s->node);
    s->request = r;
    return s;
}

struct list *postgres_set_node(struct postgres_set *s)
{
    return &s->node;
}

struct postgres_set *postgres_set_of_node(struct list *node)
{
    return list_entry(node, struct postgres_set, node);
}

static bool set_end(struct postgres_set *s, enum store_status status)
{
    store_request_answer(s->request, status);
    for (size_t i = 0; i < ACTIONS; i++) {
        postgres_array_fini(&s->changes[i].keys);
        postgres_array_fini(&s->changes[i].recoveries);
    }
    store_list_fini(&s->list);
    store_place_fini(&s->merged);
    store_page_fini(&s->stored);
    mem_free(s);
    return true;
}

static void note(struct postgres_set *s, enum action action, const struct store_row *row)
{
    struct changes *c = &s->changes[action];

    if (!postgres_array_bytes(&c->keys, row->key) ||
        !postgres_array_bytes_or_null(&c->recoveries, row->recovery))
        s->failed = true;
}

/* Treats the first of what is left on either side; at least one of the two is not NULL. */
static void merge_row(struct postgres_set *s, const struct store_row *stored,
                      const struct store_row *listed)
{
    int order = stored == NULL ? 1 : listed == NULL ? -1 : store_row_compare(stored, listed);

    if (order < 0)
        note(s, ACTION_DELETE, stored);
    else if (order > 0)
        note(s, ACTION_INSERT, listed);
    else if (store_span_compare(stored->recovery, listed->recovery) != 0)
        note(s, ACTION_RECOVERY, listed);
    if (order <= 0)
        s->at++;
    if (order >= 0)
        s->list.at++;
    if (!store_place_set(&s->merged, s->merged.kind, order <= 0 ? stored->key : listed->key))
        s->failed = true;
}

/* Goes on until a page is used up. `*done`: there is nothing more of the kind on either side. */
static void merge(struct postgres_set *s, bool *done)
{
    *done = false;
    while (!s->failed) {
        struct store_row stored, listed;
        bool is_stored = s->at < s->stored.count;
        bool is_listed = s->list.at < s->list.page.count;

        if ((!is_stored && !s->ended) || (!is_listed && !s->list.ended))
            return;
        if (is_stored)
            stored = store_page_get(&s->stored, s->at);
        if (is_listed)
            listed = store_page_get(&s->list.page, s->list.at);
        is_listed = is_listed && listed.kind == s->merged.kind;
        if (!is_stored && !is_listed) {
            *done = true;
            return;
        }
        merge_row(s, is_stored ? &stored : NULL, is_listed ? &listed : NULL);
    }
}

/* Sends the changes. Returns the number of statements. */
static size_t send_changes(struct postgres_writer *w, struct postgres_set *s)
{
    static const size_t statements[ACTIONS] = { [ACTION_INSERT] = W_SET_INSERT,
                                                [ACTION_DELETE] = W_SET_DELETE,
                                                [ACTION_RECOVERY] = W_SET_RECOVERY };
    size_t n = 0;

    for (size_t i = 0; i < ACTIONS; i++) {
        struct changes *c = &s->changes[i];
        struct postgres_params p = { 0 };

        if (c->keys.count == 0)
            continue;
        postgres_add_bytes(&p, s->request->row.url);
        postgres_add_array(&p, &c->keys, POSTGRES_OID_BYTEA);
        if (i != ACTION_DELETE)
            postgres_add_array(&p, &c->recoveries, POSTGRES_OID_BYTEA);
        postgres_tx_send(w, W_OF(statements[i], s->merged.kind), &p);
        n++;
    }
    return n;
}

/* Reads the rows behind `merged`. */
static void read_stored(struct postgres_writer *w, struct postgres_set *s)
{
    struct postgres_params p;
    PGresult *result;

    postgres_page_params(&p, s->request->row.url, &s->merged);
    postgres_tx_send(w, W_OF(W_PAGE, s->merged.kind), &p);
    postgres_tx_flush(w);
    result = postgres_tx_take(w);
    s->at = 0;
    if (result != NULL && !postgres_page_read(result, &s->merged, &s->stored, &s->ended))
        postgres_tx_fail(w);
    PQclear(result);
}

/* One transaction. */
static enum postgres_outcome run(struct postgres_writer *w, struct postgres_set *s, bool *done)
{
    size_t n = 0;

    s->failed = false;
    for (size_t i = 0; i < ACTIONS; i++) {
        postgres_array_clear(&s->changes[i].keys);
        postgres_array_clear(&s->changes[i].recoveries);
    }
    postgres_tx_begin(w, true, postgres_until(&w->conn));
    read_stored(w, s);
    if (w->outcome == OUTCOME_DONE) {
        merge(s, done);
        n = s->failed ? 0 : send_changes(w, s);
    }
    if (s->failed)
        postgres_tx_fail(w);
    postgres_tx_send_end(w);
    for (; n > 0; n--)
        PQclear(postgres_tx_take(w));
    return postgres_tx_end(w);
}

bool postgres_set_turn(struct postgres_writer *w, struct postgres_set *s)
{
    bool done = false;

    if (atomic_load(&s->request->cancelled) || !store_list_fill(&s->list, s->request->list) ||
        !postgres_conn_ready(&w->conn) || run(w, s, &done) != OUTCOME_DONE)
        return set_end(s, STORE_UNAVAILABLE);
    if (done && s->merged.kind == STORE_GLOB)
        return set_end(s, STORE_OK);
    if (done) {
        s->merged.kind = STORE_GLOB;
        s->merged.is_behind = false;
    }
    return false;
}
