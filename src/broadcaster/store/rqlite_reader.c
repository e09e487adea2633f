/*
 * The thread that computes etags for CHECK: pages of sorted rows, several checks taking turns.
 * (doc/protocol/http.md, 9)
 */
#include <lonely/etag.h>

#include "mem.h"
#include "rqlite_store.h"

#define CHECKS_ACTIVE_MAX 16
#define IDLE_WAIT_MS      10000

struct check {
    struct list node;
    struct store_request *request;
    struct lonely_etag etag;
    struct rqlite_scan scan;
};

static void check_end(struct rqlite_reader *r, struct check *c, enum store_status status)
{
    rqlite_scan_fini(&c->scan);
    store_request_answer(c->request, status);
    mem_free(c);
    r->n_active--;
}

/* Takes over the request. */
static void check_start(struct rqlite_reader *r, struct store_request *request)
{
    struct check *c = mem_calloc(1, sizeof *c);

    list_init(&c->node);
    c->request = request;
    rqlite_scan_init(&c->scan, &r->conn, request->row.url);
    r->n_active++;
    if (lonely_etag_init(&c->etag, request->row.url) != LONELY_OK)
        check_end(r, c, STORE_UNAVAILABLE);
    else
        list_push_back(&r->active, &c->node);
}

static bool hash_page(struct check *c)
{
    for (; c->scan.at < c->scan.count; rqlite_scan_next(&c->scan)) {
        const struct store_row *row = &c->scan.row;
        enum lonely_error err = row->kind == STORE_EXACT
                                    ? lonely_etag_add_topic(&c->etag, row->key, row->recovery)
                                    : lonely_etag_add_glob(&c->etag, row->key, row->recovery);

        if (err != LONELY_OK)
            return false;
    }
    return true;
}

/* One page. */
static void check_turn(struct rqlite_reader *r, struct check *c)
{
    uint64_t until_ms = rqlite_now_ms() + r->conn.cluster->timeout_ms;

    if (atomic_load(&c->request->cancelled) || rqlite_is_down(r->conn.cluster) ||
        !rqlite_scan_fill(&c->scan, until_ms) || !hash_page(c))
        check_end(r, c, STORE_UNAVAILABLE);
    else if (!c->scan.ended)
        list_push_back(&r->active, &c->node);
    else
        check_end(r, c,
                  lonely_etag_final(&c->etag, c->request->etag) == LONELY_OK ? STORE_OK
                                                                             : STORE_UNAVAILABLE);
}

static void reader_main(void *arg)
{
    struct rqlite_reader *r = arg;

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

bool rqlite_reader_open(struct rqlite_reader *r, struct rqlite_cluster *cluster,
                        const struct store_conf *conf, char error[256])
{
    *r = (struct rqlite_reader){ 0 };
    list_init(&r->active);
    if (!rqlite_conn_open(&r->conn, cluster, error))
        return false;
    store_queue_init(&r->queue, conf->max_queued, conf->timeout_ms);
    return true;
}

bool rqlite_reader_start(struct rqlite_reader *r)
{
    r->running = uv_thread_create(&r->thread, reader_main, r) == 0;
    return r->running;
}

void rqlite_reader_close(struct rqlite_reader *r)
{
    store_queue_stop(&r->queue);
    if (r->running)
        uv_thread_join(&r->thread);
    store_queue_fini(&r->queue);
    rqlite_conn_close(&r->conn);
}
