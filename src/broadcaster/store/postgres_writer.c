/*
 * The thread that makes every change of the PostgreSQL backend: what has queued up while a commit ran
 * shares the next one, goes to the server in one piece, and is answered after the commit. Long SETs
 * take turns with that (postgres_set.c). What a single operation does is in postgres_ops.c.
 */
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "postgres_store.h"

#define BATCH_MAX      1000       /* operations a commit ... */
#define BATCH_BYTES    (4u << 20) /* ... and what they hold together */
#define IDLE_WAIT_MS   10000
#define LOG_BATCH      1000 /* of W_LOG_PRUNE */
#define MAC_BATCH      10000
#define PRUNE_EVERY_MS 10000
#define MAC_RETRY_MS   100
#define MAC_LINGER_MS  5 /* used macs alone wait so long for company: nobody waits for them */

static uint64_t now_ms(void)
{
    return clock_mono_ms(&clock_system);
}

/* --- transactions --------------------------------------------------------------------------- */

static void fail(struct postgres_writer *w, enum postgres_outcome outcome)
{
    if (w->outcome == OUTCOME_DONE)
        w->outcome = outcome;
}

void postgres_tx_fail(struct postgres_writer *w)
{
    fail(w, OUTCOME_FAILED);
}

void postgres_tx_send(struct postgres_writer *w, size_t statement,
                      const struct postgres_params *params)
{
    if (w->conn.pg != NULL && !postgres_send(w->conn.pg, statement, params))
        postgres_conn_close(&w->conn);
    if (w->conn.pg == NULL)
        fail(w, OUTCOME_FAILED);
}

void postgres_tx_begin(struct postgres_writer *w, bool lock, uint64_t until_ms)
{
    w->outcome = OUTCOME_DONE;
    w->until_ms = until_ms;
    w->n_heads = lock ? 2 : 1;
    postgres_tx_send(w, W_BEGIN, NULL);
    if (lock)
        postgres_tx_send(w, W_LOCK, NULL);
}

void postgres_tx_flush(struct postgres_writer *w)
{
    if (w->conn.pg != NULL && PQsendFlushRequest(w->conn.pg) != 1)
        postgres_conn_close(&w->conn);
}

static PGresult *take_one(struct postgres_writer *w)
{
    PGresult *result = postgres_take(&w->conn, w->until_ms);
    ExecStatusType status = PQresultStatus(result);

    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_PIPELINE_SYNC)
        return result;
    if (result != NULL && status == PGRES_FATAL_ERROR &&
        postgres_conn_failed(&w->conn, "write", result) == POSTGRES_FAULT_OWN)
        fail(w, OUTCOME_OWN_FAULT);
    fail(w, OUTCOME_FAILED);
    PQclear(result);
    return NULL;
}

PGresult *postgres_tx_take(struct postgres_writer *w)
{
    for (; w->n_heads > 0; w->n_heads--)
        PQclear(take_one(w));
    return take_one(w);
}

static void send_sync(struct postgres_writer *w)
{
    if (w->conn.pg != NULL && !postgres_sync(w->conn.pg))
        postgres_conn_close(&w->conn);
}

void postgres_tx_send_end(struct postgres_writer *w)
{
    struct postgres_params p = { 0 };

    w->n_tail = w->outcome == OUTCOME_DONE ? 2 : 1;
    if (w->outcome == OUTCOME_DONE) {
        postgres_add_number(&p, (int64_t)(w->conn.clock_ms + (double)w->until_ms));
        postgres_tx_send(w, W_GUARD, &p);
        postgres_tx_send(w, W_COMMIT, NULL);
    } else {
        postgres_tx_send(w, W_ROLLBACK, NULL);
    }
    send_sync(w);
}

enum postgres_outcome postgres_tx_end(struct postgres_writer *w)
{
    for (; w->n_tail > 0; w->n_tail--)
        PQclear(postgres_tx_take(w));
    PQclear(take_one(w)); /* the sync */
    if (w->conn.pg != NULL && PQtransactionStatus(w->conn.pg) != PQTRANS_IDLE) {
        postgres_tx_send(w, W_ROLLBACK, NULL);
        send_sync(w);
        PQclear(take_one(w));
        PQclear(take_one(w));
        if (w->conn.pg != NULL && PQtransactionStatus(w->conn.pg) != PQTRANS_IDLE)
            postgres_conn_close(&w->conn);
    }
    return w->outcome;
}

/* --- batches -------------------------------------------------------------------------------- */

/* Changes of the log need the lock. So do several rows: two broadcasters could each have one that the
 * other one waits for. */
static bool needs_lock(struct list *batch)
{
    size_t n = 0;

    list_foreach (batch, node, next) {
        enum request_op op = list_entry(node, struct store_request, node)->op;

        if (n++ > 0 || op == REQUEST_SUBSCRIBE || op == REQUEST_UNSUBSCRIBE)
            return true;
    }
    return false;
}

/* Those that wait longest have little time left, but some they get. */
static uint64_t until_of(const struct postgres_writer *w, struct list *batch)
{
    struct list *first = list_first(batch);
    uint64_t now = now_ms(), least = now + w->timeout_ms / 2;
    uint64_t deadline = first == NULL ? now + w->timeout_ms
                                      : list_entry(first, struct store_request, node)->deadline_ms;

    return deadline > least ? deadline : least;
}

/* On any failure nothing of it remains. */
static enum postgres_outcome execute(struct postgres_writer *w, struct list *batch, bool with_macs)
{
    struct postgres_macs_batch macs = { 0, 0 };

    postgres_tx_begin(w, needs_lock(batch), until_of(w, batch));
    list_foreach (batch, node, next)
        postgres_op_send(w, list_entry(node, struct store_request, node));
    with_macs = with_macs && postgres_macs_send(w);
    postgres_tx_send_end(w);
    list_foreach (batch, node, next)
        postgres_op_take(w, list_entry(node, struct store_request, node));
    if (with_macs)
        macs = postgres_macs_take(w);
    if (postgres_tx_end(w) == OUTCOME_DONE && with_macs)
        postgres_macs_written(w, &macs);
    return w->outcome;
}

static void answer_batch(struct list *batch)
{
    struct list *node;

    while ((node = list_pop_front(batch)) != NULL) {
        struct store_request *r = list_entry(node, struct store_request, node);

        store_request_answer(r, r->status);
    }
}

/* One failed: each gets a transaction of its own, so that it harms nobody else. */
static void execute_singly(struct postgres_writer *w, struct list *batch)
{
    struct list *node;

    while ((node = list_pop_front(batch)) != NULL) {
        struct list single;

        list_init(&single);
        list_push_back(&single, node);
        if (postgres_conn_ready(&w->conn) && execute(w, &single, false) == OUTCOME_DONE)
            answer_batch(&single);
        else
            store_requests_answer(&single, STORE_UNAVAILABLE);
    }
}

static void take_batch(struct postgres_writer *w, struct list *batch)
{
    size_t bytes = 0;
    struct list single;
    struct list *node;

    list_init(&single);
    for (int n = 0; n < BATCH_MAX && bytes < BATCH_BYTES; n++) {
        store_queue_take(&w->queue, REQUEST_ANY & ~(unsigned)REQUEST_SET, 1, &single);
        node = list_pop_front(&single);
        if (node == NULL)
            return;
        bytes += postgres_op_size(list_entry(node, struct store_request, node));
        list_push_back(batch, node);
    }
}

static void run_batch(struct postgres_writer *w)
{
    struct list batch;
    enum postgres_outcome outcome;

    list_init(&batch);
    if (!postgres_conn_ready(&w->conn)) {
        store_queue_take(&w->queue, REQUEST_ANY, SIZE_MAX, &batch);
        store_requests_answer(&batch, STORE_UNAVAILABLE);
        return;
    }
    take_batch(w, &batch);
    if (list_is_empty(&batch))
        return;
    outcome = execute(w, &batch, true);
    if (outcome == OUTCOME_DONE)
        answer_batch(&batch);
    else if (outcome == OUTCOME_OWN_FAULT)
        execute_singly(w, &batch);
    else
        store_requests_answer(&batch, STORE_UNAVAILABLE);
}

/* Used macs alone, when no request waits. */
static void run_macs(struct postgres_writer *w)
{
    struct list none;

    list_init(&none);
    if (store_mac_queue_waits(&w->macs))
        w->macs_failed = !postgres_conn_ready(&w->conn) || execute(w, &none, true) != OUTCOME_DONE;
}

/* --- SETs ----------------------------------------------------------------------------------- */

static void start_sets(struct postgres_writer *w)
{
    struct list requests;
    struct list *node;

    list_init(&requests);
    w->n_sets += store_queue_take(&w->queue, REQUEST_SET, POSTGRES_SETS_MAX - w->n_sets, &requests);
    while ((node = list_pop_front(&requests)) != NULL)
        list_push_back(&w->sets, postgres_set_node(postgres_set_create(
                                     list_entry(node, struct store_request, node))));
}

static void run_set(struct postgres_writer *w)
{
    struct list *node = list_pop_front(&w->sets);

    if (node == NULL)
        return;
    if (postgres_set_turn(w, postgres_set_of_node(node)))
        w->n_sets--;
    else
        list_push_back(&w->sets, node);
}

/* --- pruning -------------------------------------------------------------------------------- */

/* How many rows went. */
static long prune(struct postgres_writer *w, size_t statement)
{
    PGresult *result;
    long n = 0;

    if (!postgres_conn_ready(&w->conn))
        return 0;
    postgres_tx_begin(w, false, postgres_until(&w->conn));
    postgres_tx_send(w, statement, NULL);
    postgres_tx_send_end(w);
    result = postgres_tx_take(w);
    if (result != NULL)
        n = strtol(PQcmdTuples(result), NULL, 10);
    PQclear(result);
    return postgres_tx_end(w) == OUTCOME_DONE ? n : 0;
}

static void run_prune(struct postgres_writer *w)
{
    uint64_t now = now_ms();

    if (now < w->prune_at_ms)
        return;
    w->prune_at_ms = now + PRUNE_EVERY_MS;
    if (postgres_conn_ready(&w->conn))
        postgres_macs_sign_of_life(w);
    if (prune(w, W_LOG_PRUNE) >= LOG_BATCH || prune(w, W_MAC_PRUNE) >= MAC_BATCH)
        w->prune_at_ms = now;
}

/* --- the thread ----------------------------------------------------------------------------- */

/* Waits for work. false: stop. */
static bool wait_for_work(struct postgres_writer *w)
{
    bool busy = w->n_sets > 0 || w->prune_at_ms <= now_ms();
    uint64_t linger_ms = w->macs_failed ? MAC_RETRY_MS : MAC_LINGER_MS;
    uint64_t idle_ms = w->conn.pg == NULL ? postgres_conn_pause_ms(&w->conn) : IDLE_WAIT_MS;
    bool running = true;

    if (busy || !store_mac_queue_waits(&w->macs))
        running = store_queue_wait(&w->queue, busy ? 0 : idle_ms);
    if (running && !busy && store_mac_queue_waits(&w->macs))
        running = store_queue_wait(&w->queue, linger_ms);
    return running;
}

static void writer_main(void *arg)
{
    struct postgres_writer *w = arg;

    while (wait_for_work(w)) {
        start_sets(w);
        if (store_queue_expire(&w->queue) > 0)
            run_batch(w);
        else
            run_macs(w);
        run_set(w);
        run_prune(w);
        if (w->conn.pg == NULL)
            (void)postgres_conn_ready(&w->conn);
    }
}

static const struct postgres_kind kind_of_writer = {
    .sql = postgres_writer_sql,
    .n = W_COUNT,
    .session = SQL_USE_INDICES,
    .schema = true,
    .pipeline = true,
};

bool postgres_writer_open(struct postgres_writer *w, struct postgres_place *place,
                          const struct store_conf *conf, char error[256])
{
    *w = (struct postgres_writer){ .timeout_ms = conf->timeout_ms };
    list_init(&w->sets);
    postgres_conn_init(&w->conn, &kind_of_writer, place);
    if (!postgres_conn_open(&w->conn, error))
        return false;
    store_queue_init(&w->queue, conf->max_queued, conf->timeout_ms);
    w->prune_at_ms = now_ms();
    if (postgres_macs_open(w, conf, error))
        return true;
    store_queue_fini(&w->queue);
    postgres_conn_close(&w->conn);
    return false;
}

bool postgres_writer_start(struct postgres_writer *w)
{
    w->running = uv_thread_create(&w->thread, writer_main, w) == 0;
    return w->running;
}

void postgres_writer_close(struct postgres_writer *w)
{
    store_queue_stop(&w->queue);
    if (w->running)
        uv_thread_join(&w->thread);
    postgres_macs_close(w);
    store_queue_fini(&w->queue);
    postgres_array_fini(&w->mac_codes);
    postgres_array_fini(&w->mac_times);
    postgres_conn_close(&w->conn);
}
