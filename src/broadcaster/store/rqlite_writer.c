/*
 * The thread that makes every change of the rqlite backend: what has queued up while a transaction ran
 * shares the next one, and is answered after it. Long SETs take turns with that (rqlite_set.c). What
 * a single operation does is in rqlite_ops.c, how a transaction is sent in rqlite_batch.c.
 */
#include <stdio.h>

#include "rqlite_store.h"
#include "store_process.h"

#define BATCH_MAX      500 /* operations a transaction */
#define IDLE_WAIT_MS   10000
#define LOG_ROWS_MAX   "1000000"
#define LOG_AGE_MS     3600000
#define PRUNE_ROWS     "1000" /* a transaction */
#define PRUNE_EVERY_MS 10000
#define SILENT_MS      30000 /* a process that notes nothing for so long has ended */
#define MAC_RETRY_MS   100
#define MAC_LINGER_MS  10 /* used macs alone wait so long for company: nobody waits for them */

/* The oldest rows, without a gap, so that a reader which finds the last row it applied has missed
 * nothing; never the newest. */
#define SQL_PRUNE_LOG                                                                             \
    "DELETE FROM " RQ_CHANGES " WHERE seq IN (SELECT seq FROM " RQ_CHANGES " WHERE seq < "        \
    "(SELECT max(coalesce((SELECT seq FROM " RQ_CHANGES " WHERE at >= ? ORDER BY seq LIMIT 1), "  \
    "max(seq)), max(seq) - " LOG_ROWS_MAX ") FROM " RQ_CHANGES ") ORDER BY seq LIMIT " PRUNE_ROWS \
    ") AND seq < (SELECT max(seq) FROM " RQ_CHANGES ")"
#define SQL_PRUNE_MACS                                               \
    "DELETE FROM " RQ_MACS " WHERE seq IN (SELECT seq FROM " RQ_MACS \
    " WHERE expires_at <= ? LIMIT " PRUNE_ROWS ")"

bool rqlite_writer_ready(struct rqlite_writer *w)
{
    char error[256];

    if (!w->batches.schema_is_missing)
        return true;
    if (rqlite_schema_ensure(&w->batches.conn, rqlite_now_ms() + w->timeout_ms, error) !=
        RQLITE_OK) {
        rqlite_failed(&w->batches.conn, "create tables", error);
        return false;
    }
    w->batches.schema_is_missing = false;
    return true;
}

/* --- batches -------------------------------------------------------------------------------- */

static void answer_batch(struct list *batch)
{
    struct list *node;

    while ((node = list_pop_front(batch)) != NULL) {
        struct store_request *r = list_entry(node, struct store_request, node);

        store_request_answer(r, r->status);
    }
}

static bool is_done(enum rqlite_outcome outcome)
{
    return outcome == RQLITE_DONE || outcome == RQLITE_APPLIED;
}

/* The oldest comes first. */
static uint64_t deadline_of(const struct list *batch)
{
    return list_entry(batch->next, struct store_request, node)->deadline_ms;
}

/* One transaction for the requests and, if `macs`, for those that wait. The requests get their
 * statuses unless it is RQLITE_FAILED or RQLITE_UNKNOWN. */
static enum rqlite_outcome execute(struct rqlite_writer *w, struct list *batch, bool macs,
                                   uint64_t until_ms)
{
    enum rqlite_outcome outcome;
    json_t *results;

    list_foreach (batch, node, next)
        rqlite_op_add(&w->batches, list_entry(node, struct store_request, node));
    if (macs)
        rqlite_macs_add(&w->macs, &w->batches.body);
    outcome = rqlite_batch_run(&w->batches, until_ms, &results);
    if (outcome == RQLITE_DONE)
        rqlite_ops_done(&w->batches, batch, results, until_ms);
    else if (outcome == RQLITE_APPLIED)
        rqlite_ops_applied(&w->batches, batch, until_ms);
    if (macs && is_done(outcome))
        rqlite_macs_written(&w->macs, results);
    json_decref(results);
    return outcome;
}

/* One failed: each gets a transaction of its own, so that it harms nobody else. */
static void execute_singly(struct rqlite_writer *w, struct list *batch)
{
    struct list *node;

    while ((node = list_pop_front(batch)) != NULL) {
        struct list single;
        enum rqlite_outcome outcome = RQLITE_UNKNOWN;

        list_init(&single);
        list_push_back(&single, node);
        if (rqlite_writer_ready(w))
            outcome = execute(w, &single, false, deadline_of(&single));
        if (is_done(outcome))
            answer_batch(&single);
        else
            store_requests_answer(&single, STORE_UNAVAILABLE);
    }
}

static void run_batch(struct rqlite_writer *w)
{
    enum rqlite_outcome outcome;
    struct list batch;
    size_t bytes = 0;

    list_init(&batch);
    for (size_t n = 0; n < BATCH_MAX && bytes < RQLITE_BODY_FULL; n++) {
        const struct store_request *r;

        if (store_queue_take(&w->queue, REQUEST_ANY & ~(unsigned)REQUEST_SET, 1, &batch) == 0)
            break;
        r = list_entry(batch.prev, struct store_request, node);
        bytes += 2 * (r->row.url.len + r->row.key.len + r->row.recovery.len + r->topic.len) + 256;
    }
    if (list_is_empty(&batch))
        return;
    if (!rqlite_writer_ready(w)) {
        store_requests_answer(&batch, STORE_UNAVAILABLE);
        return;
    }
    outcome = execute(w, &batch, true, deadline_of(&batch));
    if (is_done(outcome))
        answer_batch(&batch);
    else if (outcome == RQLITE_FAILED)
        execute_singly(w, &batch);
    else
        store_requests_answer(&batch, STORE_UNAVAILABLE);
}

/* Used macs alone, when no request waits. */
static void run_macs(struct rqlite_writer *w)
{
    enum rqlite_outcome outcome = RQLITE_UNKNOWN;
    struct list none;

    list_init(&none);
    if (!store_mac_queue_waits(&w->macs.queue))
        return;
    if (!rqlite_is_down(w->batches.conn.cluster) && rqlite_writer_ready(w))
        outcome = execute(w, &none, true, rqlite_now_ms() + w->timeout_ms);
    w->macs_failed = !is_done(outcome);
}

/* --- SETs ----------------------------------------------------------------------------------- */

static void start_sets(struct rqlite_writer *w)
{
    struct list requests;
    struct list *node;

    list_init(&requests);
    w->n_sets += store_queue_take(&w->queue, REQUEST_SET, RQLITE_SETS_MAX - w->n_sets, &requests);
    while ((node = list_pop_front(&requests)) != NULL)
        list_push_back(&w->sets, rqlite_set_node(rqlite_set_create(
                                     w, list_entry(node, struct store_request, node))));
}

static void run_set(struct rqlite_writer *w)
{
    struct list *node = list_pop_front(&w->sets);

    if (node == NULL)
        return;
    if (rqlite_set_turn(w, rqlite_set_of_node(node)))
        w->n_sets--;
    else
        list_push_back(&w->sets, node);
}

/* --- upkeep --------------------------------------------------------------------------------- */

/* Prunes the change log and used macs, and tells others that this process is alive. */
static void run_prune(struct rqlite_writer *w)
{
    struct rqlite_batches *b = &w->batches;
    uint64_t now_ms = rqlite_now_ms();
    json_t *results;

    if (now_ms < w->prune_at_ms)
        return;
    w->prune_at_ms = now_ms + PRUNE_EVERY_MS;
    if (rqlite_is_down(b->conn.cluster) || !rqlite_writer_ready(w))
        return;
    rqlite_body_statement(&b->body, SQL_PRUNE_LOG);
    rqlite_body_int(&b->body, rqlite_batch_time_ms(b) - LOG_AGE_MS);
    rqlite_body_statement(&b->body, SQL_PRUNE_MACS);
    rqlite_body_int(&b->body, rqlite_batch_time_ms(b) / 1000);
    if (rqlite_batch_run(b, now_ms + w->timeout_ms, &results) == RQLITE_DONE &&
        (rqlite_rows_affected(results, 0) > 0 || rqlite_rows_affected(results, 1) > 0))
        w->prune_at_ms = now_ms; /* there may be more */
    if (b->schema_is_missing)
        w->prune_at_ms = now_ms; /* readers wait for it */
    json_decref(results);
}

/* --- the thread ----------------------------------------------------------------------------- */

/* Waits for work. false: stop. */
static bool wait_for_work(struct rqlite_writer *w)
{
    uint64_t now_ms = rqlite_now_ms();
    uint64_t linger_ms = w->macs_failed ? MAC_RETRY_MS : MAC_LINGER_MS;
    uint64_t idle_ms = w->prune_at_ms > now_ms ? w->prune_at_ms - now_ms : 0;

    if (w->n_sets > 0 || idle_ms == 0)
        return store_queue_wait(&w->queue, 0);
    if (!store_mac_queue_waits(&w->macs.queue) && !store_queue_wait(&w->queue, idle_ms))
        return false;
    return store_queue_wait(&w->queue, store_mac_queue_waits(&w->macs.queue) ? linger_ms : 0);
}

static void writer_main(void *arg)
{
    struct rqlite_writer *w = arg;

    while (wait_for_work(w)) {
        start_sets(w);
        if (store_queue_expire(&w->queue) > 0)
            run_batch(w);
        else
            run_macs(w);
        run_set(w);
        run_prune(w);
    }
}

/* --- open and close ------------------------------------------------------------------------- */

/* A process that has ended: if not in order, its used macs are lost, and its mark says so once. The
 * mark itself stays until no transaction of it can be under way any more. true: they are lost. */
static bool judge_mark(struct rqlite_batches *b, json_t *row)
{
    struct lonely_span spans[RQLITE_SPANS_MAX];
    char process[STORE_PROCESS_SIZE];
    struct rqlite_text text;
    int64_t id, at_ms, keeps;
    bool is_silent;

    rqlite_text_init(&text);
    (void)rqlite_int(row, 0, &id);
    (void)rqlite_int(row, 1, &at_ms);
    (void)rqlite_int(row, 2, &keeps);
    (void)rqlite_text_read(&text, row, 3, 1, spans);
    snprintf(process, sizeof process, "%.*s", (int)spans[0].len,
             spans[0].len == 0 ? "" : (const char *)spans[0].ptr);
    rqlite_text_fini(&text);
    is_silent = at_ms < rqlite_batch_time_ms(b) - SILENT_MS;
    if (id == b->process_id || store_process_is_alive(process) ||
        (!is_silent && !store_process_is_local(process)))
        return false;
    rqlite_body_statement(&b->body, is_silent ? "DELETE FROM " RQ_PROCESSES " WHERE id = ?"
                                              : "UPDATE " RQ_PROCESSES
                                                " SET keeps_macs = 0 WHERE id = ?");
    rqlite_body_int(&b->body, id);
    return keeps != 0;
}

/* Sets our mark, and looks at those of others. */
static bool change_marks(struct rqlite_batches *b, uint64_t until_ms, bool *lost)
{
    struct rqlite_body body;
    json_t *results;
    bool good;

    good = is_done(rqlite_batch_run(b, until_ms, &results));
    json_decref(results);
    if (!good)
        return false;
    rqlite_body_init(&body, 1024);
    rqlite_body_statement(&body,
                          "SELECT id, at, keeps_macs, " RQ_TEXT("process") " FROM " RQ_PROCESSES);
    (void)rqlite_body_end(&body);
    good = rqlite_read(&b->conn, RQLITE_READ, &body, until_ms, &results) == RQLITE_OK;
    for (size_t i = 0; i < rqlite_row_count(results, 0); i++)
        *lost = judge_mark(b, rqlite_row(results, 0, i)) || *lost;
    json_decref(results);
    rqlite_body_fini(&body);
    if (good && b->body.count > 0) {
        good = is_done(rqlite_batch_run(b, until_ms, &results));
        json_decref(results);
    }
    return good;
}

static bool prepare(struct rqlite_writer *w, const struct store_conf *conf, char error[256])
{
    struct rqlite_batches *b = &w->batches;
    uint64_t until_ms = rqlite_now_ms() + conf->timeout_ms;
    bool lost = false;

    if (rqlite_schema_ensure(&b->conn, until_ms, error) != RQLITE_OK)
        return false;
    if (!change_marks(b, until_ms, &lost)) {
        snprintf(error, 256, "rqlite: cannot write: %.200s", b->conn.trouble);
        return false;
    }
    if (lost && conf->macs.lost != NULL)
        conf->macs.lost(conf->macs.arg);
    return true;
}

bool rqlite_writer_open(struct rqlite_writer *w, struct rqlite_cluster *cluster,
                        const struct store_conf *conf, char error[256])
{
    *w = (struct rqlite_writer){ .timeout_ms = conf->timeout_ms };
    list_init(&w->sets);
    if (!rqlite_batches_open(&w->batches, cluster, conf->macs.add != NULL, error))
        return false;
    if (!prepare(w, conf, error)) {
        rqlite_batches_close(&w->batches);
        return false;
    }
    store_mac_queue_init(&w->macs.queue, conf, &w->queue);
    store_queue_init(&w->queue, conf->max_queued, conf->timeout_ms);
    w->prune_at_ms = rqlite_now_ms();
    return true;
}

bool rqlite_writer_start(struct rqlite_writer *w)
{
    w->running = uv_thread_create(&w->thread, writer_main, w) == 0;
    return w->running;
}

/* Writes the macs that wait; with the last ones goes word that this process has ended in order. */
static void write_rest(struct rqlite_writer *w)
{
    struct rqlite_batches *b = &w->batches;
    uint64_t until_ms = rqlite_now_ms() + w->timeout_ms;
    enum rqlite_outcome outcome = RQLITE_DONE;
    json_t *results;

    while (is_done(outcome) && store_mac_queue_waits(&w->macs.queue)) {
        rqlite_macs_add(&w->macs, &b->body);
        outcome = rqlite_batch_run(b, until_ms, &results);
        if (is_done(outcome))
            rqlite_macs_written(&w->macs, results);
        json_decref(results);
    }
    if (!is_done(outcome))
        return; /* the mark stays and tells the next one */
    rqlite_body_statement(&b->body, "UPDATE " RQ_PROCESSES " SET keeps_macs = 0 WHERE id = ?");
    rqlite_body_int(&b->body, b->process_id);
    (void)rqlite_batch_run(b, until_ms, &results);
    json_decref(results);
}

void rqlite_writer_close(struct rqlite_writer *w)
{
    store_queue_stop(&w->queue);
    if (w->running)
        uv_thread_join(&w->thread);
    if (!rqlite_is_down(w->batches.conn.cluster))
        write_rest(w);
    store_mac_queue_fini(&w->macs.queue);
    store_queue_fini(&w->queue);
    rqlite_batches_close(&w->batches);
}
