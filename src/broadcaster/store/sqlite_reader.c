/*
 * The thread that computes etags for CHECK: pages of sorted rows, no transaction longer than a page,
 * several checks taking turns. (doc/protocol/http.md, 9)
 */
#include <lonely/etag.h>

#include "mem.h"
#include "sqlite_store.h"

#define CHECKS_ACTIVE_MAX 16
#define IDLE_WAIT_MS      10000

struct check {
    struct list node;
    struct store_request *request;
    struct lonely_etag etag;
    struct sqlite_scan scan;
};

enum reader_statement { R_PAGE };

static const char *const reader_sql[] = { [R_PAGE] = SCAN_EXACTS, SCAN_GLOBS };

static const struct sqlite_conn_kind conn_of_reader = {
    .flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX,
    .pragmas = "PRAGMA cache_size = -8000",
    .sql = reader_sql,
    .n = 2,
};

static void check_end(struct sqlite_reader *r, struct check *c, enum store_status status)
{
    store_request_answer(c->request, status);
    sqlite_scan_fini(&c->scan);
    mem_free(c);
    r->n_active--;
}

/* Takes over the request. The statements are of the connection as it is at each turn. */
static void check_start(struct sqlite_reader *r, struct store_request *request)
{
    struct check *c = mem_calloc(1, sizeof *c);

    list_init(&c->node);
    c->request = request;
    r->n_active++;
    if (lonely_etag_init(&c->etag, request->row.url) != LONELY_OK ||
        !sqlite_scan_start(&c->scan, NULL, NULL, request->row.url, NULL))
        check_end(r, c, STORE_UNAVAILABLE);
    else
        list_push_back(&r->active, &c->node);
}

/* Rows that the protocol cannot have made have no place in an etag; they are not delivered either.
 * (sqlite_conn.h, sqlite_column_row) */
static bool hash_page(struct check *c)
{
    for (; c->scan.at < c->scan.page.count; c->scan.at++) {
        struct store_row row = store_page_get(&c->scan.page, c->scan.at);
        enum lonely_error err;

        if (row.key.len > UINT16_MAX)
            continue;
        if (row.recovery.len > UINT16_MAX)
            row.recovery.len = 0;
        err = row.kind == STORE_EXACT ? lonely_etag_add_topic(&c->etag, row.key, row.recovery)
                                      : lonely_etag_add_glob(&c->etag, row.key, row.recovery);
        if (err != LONELY_OK)
            return false;
    }
    return true;
}

/* One page. */
static void check_turn(struct sqlite_reader *r, struct check *c)
{
    int rc;

    if (atomic_load(&c->request->cancelled) || !sqlite_conn_ready(&r->conn)) {
        check_end(r, c, STORE_UNAVAILABLE);
        return;
    }
    c->scan.st[STORE_EXACT] = r->conn.st[R_PAGE + STORE_EXACT];
    c->scan.st[STORE_GLOB] = r->conn.st[R_PAGE + STORE_GLOB];
    rc = sqlite_scan_fill(&c->scan);
    if (rc != SQLITE_OK) {
        sqlite_conn_failed(&r->conn, "check", rc);
        check_end(r, c, STORE_UNAVAILABLE);
    } else if (!hash_page(c)) {
        check_end(r, c, STORE_UNAVAILABLE);
    } else if (!c->scan.ended) {
        list_push_back(&r->active, &c->node);
    } else if (lonely_etag_final(&c->etag, c->request->etag) != LONELY_OK) {
        check_end(r, c, STORE_UNAVAILABLE);
    } else {
        check_end(r, c, STORE_OK);
    }
}

static void reader_main(void *arg)
{
    struct sqlite_reader *r = arg;

    while (store_queue_wait(&r->queue, r->n_active > 0 ? 0 : IDLE_WAIT_MS)) {
        struct list requests;
        struct list *node;

        list_init(&requests);
        store_queue_take(&r->queue, REQUEST_ANY, CHECKS_ACTIVE_MAX - r->n_active, &requests);
        while ((node = list_pop_front(&requests)) != NULL)
            check_start(r, list_entry(node, struct store_request, node));
        node = list_pop_front(&r->active);
        if (node != NULL)
            check_turn(r, list_entry(node, struct check, node));
    }
}

bool sqlite_reader_open(struct sqlite_reader *r, struct sqlite_conn_place *place,
                        const struct store_conf *conf, char error[256])
{
    *r = (struct sqlite_reader){ 0 };
    list_init(&r->active);
    if (!sqlite_conn_open(&r->conn, &conn_of_reader, place, conf->timeout_ms, error))
        return false;
    store_queue_init(&r->queue, conf->max_queued, conf->timeout_ms);
    return true;
}

bool sqlite_reader_start(struct sqlite_reader *r)
{
    r->running = uv_thread_create(&r->thread, reader_main, r) == 0;
    return r->running;
}

void sqlite_reader_close(struct sqlite_reader *r)
{
    store_queue_stop(&r->queue);
    if (r->running)
        uv_thread_join(&r->thread);
    store_queue_fini(&r->queue);
    sqlite_conn_close(&r->conn);
}
