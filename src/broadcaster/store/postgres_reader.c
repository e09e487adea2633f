/*
 * The thread that computes etags for CHECK: pages of sorted rows, several checks taking turns.
 * (doc/protocol/http.md, 9)
 */
#include <lonely/etag.h>

#include "mem.h"
#include "postgres_store.h"

#define CHECKS_ACTIVE_MAX 16
#define IDLE_WAIT_MS      10000

struct check {
    struct list node;
    struct store_request *request;
    struct lonely_etag etag;
    struct store_place place; /* how far it got */
    struct store_page page;
};

enum reader_statement { R_PAGE, R_COUNT = R_PAGE + 2 };

static const char *const reader_sql[R_COUNT] = { [R_PAGE] = SQL_PAGE(TABLE_EXACTS, "exact"),
                                                 SQL_PAGE(TABLE_GLOBS, "glob") };

static const struct postgres_kind kind_of_reader = { .sql = reader_sql,
                                                     .n = R_COUNT,
                                                     .session = SQL_USE_INDICES };

/* --- pages ---------------------------------------------------------------------------------- */

void postgres_page_params(struct postgres_params *p, struct lonely_span url,
                          const struct store_place *from)
{
    struct lonely_span key = { from->key, from->is_behind ? from->len : 0 };

    p->n = 0;
    postgres_add_bytes(p, url);
    postgres_add_bytes(p, key);
}

bool postgres_page_read(const PGresult *result, const struct store_place *from,
                        struct store_page *page, bool *ended)
{
    int n = PQntuples(result);
    int i = 0;

    store_page_clear(page);
    for (; i < n && !store_page_is_full(page); i++) {
        struct store_row row = { .kind = from->kind,
                                 .key = postgres_bytes(result, i, 0),
                                 .recovery = postgres_bytes(result, i, 1) };

        if (from->is_behind &&
            store_span_compare(row.key, (struct lonely_span){ from->key, from->len }) == 0)
            continue;
        if (!store_page_add(page, &row))
            return false;
    }
    *ended = i == n && n <= STORE_PAGE_ROWS &&
             (n == 0 || postgres_number(result, n - 1, 2) < STORE_PAGE_BYTES);
    return true;
}

/* --- checks --------------------------------------------------------------------------------- */

static void check_end(struct postgres_reader *r, struct check *c, enum store_status status)
{
    store_request_answer(c->request, status);
    store_place_fini(&c->place);
    store_page_fini(&c->page);
    mem_free(c);
    r->n_active--;
}

/* Takes over the request. */
static void check_start(struct postgres_reader *r, struct store_request *request)
{
    struct check *c = mem_calloc(1, sizeof *c);

    list_init(&c->node);
    c->request = request;
    r->n_active++;
    if (lonely_etag_init(&c->etag, request->row.url) != LONELY_OK)
        check_end(r, c, STORE_UNAVAILABLE);
    else
        list_push_back(&r->active, &c->node);
}

/* Rows that the protocol cannot have made have no place in an etag; they are not delivered either. */
static bool hash_page(struct check *c)
{
    for (size_t i = 0; i < c->page.count; i++) {
        struct store_row row = store_page_get(&c->page, i);
        enum lonely_error err;

        if (row.key.len > UINT16_MAX || row.recovery.len > UINT16_MAX)
            continue;
        err = row.kind == STORE_EXACT ? lonely_etag_add_topic(&c->etag, row.key, row.recovery)
                                      : lonely_etag_add_glob(&c->etag, row.key, row.recovery);
        if (err != LONELY_OK)
            return false;
    }
    return true;
}

/* Behind the page, or in front of the next kind. false: no memory. */
static bool move_on(struct check *c, bool ended)
{
    struct store_row last;

    if (ended) {
        c->place.kind = STORE_GLOB;
        c->place.is_behind = false;
        return true;
    }
    last = store_page_get(&c->page, c->page.count - 1);
    return store_place_set(&c->place, last.kind, last.key);
}

/* Reads and hashes a page. STORE_PENDING: there is more. */
static enum store_status check_page(struct postgres_reader *r, struct check *c)
{
    enum store_kind kind = c->place.kind;
    struct postgres_params p;
    PGresult *result;
    bool ended = false, good;

    if (!postgres_conn_ready(&r->conn))
        return STORE_UNAVAILABLE;
    postgres_page_params(&p, c->request->row.url, &c->place);
    result = postgres_run(&r->conn, R_PAGE + (size_t)kind, &p, postgres_until(&r->conn));
    if (result == NULL)
        return STORE_UNAVAILABLE;
    good = postgres_page_read(result, &c->place, &c->page, &ended) && hash_page(c) &&
           move_on(c, ended);
    PQclear(result);
    if (!good)
        return STORE_UNAVAILABLE;
    if (!ended || kind == STORE_EXACT)
        return STORE_PENDING;
    return lonely_etag_final(&c->etag, c->request->etag) == LONELY_OK ? STORE_OK
                                                                      : STORE_UNAVAILABLE;
}

static void check_turn(struct postgres_reader *r, struct check *c)
{
    bool was_open = r->conn.pg != NULL;
    enum store_status status = STORE_UNAVAILABLE;

    if (!atomic_load(&c->request->cancelled)) {
        status = check_page(r, c);
        /* A connection may have ended unnoticed, long ago. */
        if (status == STORE_UNAVAILABLE && was_open && r->conn.pg == NULL)
            status = check_page(r, c);
    }
    if (status == STORE_PENDING)
        list_push_back(&r->active, &c->node);
    else
        check_end(r, c, status);
}

static uint64_t idle_ms(const struct postgres_reader *r)
{
    if (r->n_active > 0)
        return 0;
    return r->conn.pg != NULL ? IDLE_WAIT_MS : postgres_conn_pause_ms(&r->conn);
}

static void reader_main(void *arg)
{
    struct postgres_reader *r = arg;

    while (store_queue_wait(&r->queue, idle_ms(r))) {
        struct list requests;
        struct list *node;

        list_init(&requests);
        store_queue_take(&r->queue, REQUEST_ANY, CHECKS_ACTIVE_MAX - r->n_active, &requests);
        while ((node = list_pop_front(&requests)) != NULL)
            check_start(r, list_entry(node, struct store_request, node));
        node = list_pop_front(&r->active);
        if (node != NULL)
            check_turn(r, list_entry(node, struct check, node));
        else
            (void)postgres_conn_ready(&r->conn);
    }
}

bool postgres_reader_open(struct postgres_reader *r, struct postgres_place *place,
                          const struct store_conf *conf, char error[256])
{
    *r = (struct postgres_reader){ 0 };
    list_init(&r->active);
    postgres_conn_init(&r->conn, &kind_of_reader, place);
    if (!postgres_conn_open(&r->conn, error))
        return false;
    store_queue_init(&r->queue, conf->max_queued, conf->timeout_ms);
    return true;
}

bool postgres_reader_start(struct postgres_reader *r)
{
    r->running = uv_thread_create(&r->thread, reader_main, r) == 0;
    return r->running;
}

void postgres_reader_close(struct postgres_reader *r)
{
    store_queue_stop(&r->queue);
    if (r->running)
        uv_thread_join(&r->thread);
    store_queue_fini(&r->queue);
    postgres_conn_close(&r->conn);
}
