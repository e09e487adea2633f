/*
 * The thread that makes every change of the SQLite backend: what has queued up while a commit ran
 * shares the next one, and is answered after it. Long SETs take turns with that (sqlite_set.c).
 * What a single operation does is in sqlite_ops.c.
 *
 * SQLite's locks are not fair: other processes poll for the lock. So the writer, when it is never
 * idle, leaves the lock free now and then for longer than the longest step of SQLite's own polling.
 */
#include "clock.h"
#include "sqlite_store.h"

#define BATCH_MAX      1000  /* operations a commit */
#define IDLE_WAIT_MS   10000 /* between two looks at the age of the change log */
#define LOCK_POLL_MS   10u   /* the longest step of ours */
#define GREEDY_MS      2000  /* in such a time, when it waited for work less than ... */
#define GREEDY_IDLE_MS 200   /* ... this, it leaves the lock free for ... */
#define GENEROUS_MS    110   /* ... so long: SQLite polls every 100 ms */
#define LOG_ROWS_MAX   1000000
#define LOG_AGE_S      3600
#define PRUNE_BATCH    1000 /* rows a transaction */
#define PRUNE_EVERY_MS 10000
#define MAC_RETRY_MS   100
#define MAC_LINGER_MS  5 /* used macs alone wait so long for company: nobody waits for them */

static uint64_t now_ms(void)
{
    return clock_mono_ms(&clock_system);
}

/* --- transactions --------------------------------------------------------------------------- */

int sqlite_writer_begin(struct sqlite_writer *w, uint64_t until_ms)
{
    unsigned pause_ms = 1;

    for (;;) {
        int rc = sqlite_conn_run(&w->conn, W_BEGIN);
        size_t waiting;

        if (rc == SQLITE_OK)
            return rc;
        waiting = store_queue_expire(&w->queue);
        if (rc != SQLITE_BUSY || (until_ms == 0 ? waiting == 0 : now_ms() >= until_ms)) {
            sqlite_conn_failed(&w->conn, "begin", rc);
            return rc;
        }
        uv_sleep(pause_ms);
        pause_ms = pause_ms * 2 > LOCK_POLL_MS ? LOCK_POLL_MS : pause_ms * 2;
    }
}

void sqlite_writer_rollback(struct sqlite_writer *w)
{
    if (sqlite3_get_autocommit(w->conn.db) == 0)
        (void)sqlite_conn_run(&w->conn, W_ROLLBACK);
    /* A transaction that cannot be ended would block every other writer. */
    if (sqlite3_get_autocommit(w->conn.db) == 0)
        w->conn.faulty = true;
}

int sqlite_writer_commit(struct sqlite_writer *w)
{
    int rc = sqlite_conn_run(&w->conn, W_COMMIT);

    if (rc != SQLITE_OK) {
        sqlite_conn_failed(&w->conn, "commit", rc);
        sqlite_writer_rollback(w);
    }
    return rc;
}

int sqlite_writer_change(struct sqlite_writer *w, size_t statement, int *changed)
{
    int rc = sqlite_conn_run(&w->conn, statement);

    *changed = rc == SQLITE_OK ? sqlite3_changes(w->conn.db) : 0;
    return rc;
}

/* --- batches -------------------------------------------------------------------------------- */

/* Errors of a single operation, such as a constraint or a trigger that somebody added, and those
 * that a new connection may cure. */
static bool is_own_fault(int rc)
{
    return rc == SQLITE_CONSTRAINT || rc == SQLITE_ERROR || rc == SQLITE_TOOBIG ||
           rc == SQLITE_MISMATCH || rc == SQLITE_ABORT || rc == SQLITE_NOMEM;
}

/* Executes a batch inside the transaction. On any failure nothing of it remains. */
static int execute_requests(struct sqlite_writer *w, struct list *batch)
{
    list_foreach (batch, node, next) {
        int rc = sqlite_op_run(w, list_entry(node, struct store_request, node));

        if (rc != SQLITE_OK) {
            sqlite_conn_failed(&w->conn, "write", rc);
            sqlite_writer_rollback(w);
            return rc;
        }
    }
    return SQLITE_OK;
}

/* The same, with the used macs that wait, and commits. */
static int execute(struct sqlite_writer *w, struct list *batch)
{
    int rc = execute_requests(w, batch);

    if (rc != SQLITE_OK)
        return rc;
    rc = sqlite_macs_write(w);
    if (rc != SQLITE_OK) {
        sqlite_conn_failed(&w->conn, "write used macs", rc);
        sqlite_writer_rollback(w);
        return rc;
    }
    rc = sqlite_writer_commit(w);
    if (rc == SQLITE_OK)
        sqlite_macs_written(w);
    return rc;
}

static void answer_batch(struct list *batch)
{
    struct list *node;

    while ((node = list_pop_front(batch)) != NULL) {
        struct store_request *r = list_entry(node, struct store_request, node);

        store_request_answer(r, r->status);
    }
}

/* One failed: each gets a transaction of its own, so that it harms nobody else. Savepoints would not
 * do: a trigger may end the whole transaction. */
static void execute_singly(struct sqlite_writer *w, struct list *batch)
{
    struct list *node;

    while ((node = list_pop_front(batch)) != NULL) {
        struct store_request *r = list_entry(node, struct store_request, node);
        struct list single;

        list_init(&single);
        list_push_back(&single, node);
        if (sqlite_conn_ready(&w->conn) && sqlite_writer_begin(w, r->deadline_ms) == SQLITE_OK &&
            execute_requests(w, &single) == SQLITE_OK && sqlite_writer_commit(w) == SQLITE_OK)
            answer_batch(&single);
        else
            store_requests_answer(&single, STORE_UNAVAILABLE);
    }
}

static void run_batch(struct sqlite_writer *w)
{
    struct list batch;
    int rc;

    list_init(&batch);
    sqlite_conn_look_for_file(&w->conn);
    rc = sqlite_conn_ready(&w->conn) ? sqlite_writer_begin(w, 0) : SQLITE_CANTOPEN;
    if (rc == SQLITE_BUSY) /* nobody waits any more */
        return;
    if (rc != SQLITE_OK) {
        store_queue_take(&w->queue, REQUEST_ANY, SIZE_MAX, &batch);
        store_requests_answer(&batch, STORE_UNAVAILABLE);
        return;
    }
    store_queue_take(&w->queue, REQUEST_ANY & ~(unsigned)REQUEST_SET, BATCH_MAX, &batch);
    rc = execute(w, &batch);
    if (rc == SQLITE_OK)
        answer_batch(&batch);
    else if (is_own_fault(rc & 0xff))
        execute_singly(w, &batch);
    else
        store_requests_answer(&batch, STORE_UNAVAILABLE);
}

/* Used macs alone, when no request waits. */
static void run_macs(struct sqlite_writer *w)
{
    struct list none;

    list_init(&none);
    if (store_mac_queue_waits(&w->macs.queue))
        w->macs_failed = !sqlite_conn_ready(&w->conn) ||
                         sqlite_writer_begin(w, now_ms() + GENEROUS_MS) != SQLITE_OK ||
                         execute(w, &none) != SQLITE_OK;
}

/* --- SETs ----------------------------------------------------------------------------------- */

static void start_sets(struct sqlite_writer *w)
{
    struct list requests;
    struct list *node;

    list_init(&requests);
    w->n_sets += store_queue_take(&w->queue, REQUEST_SET, SETS_ACTIVE_MAX - w->n_sets, &requests);
    while ((node = list_pop_front(&requests)) != NULL)
        list_push_back(&w->sets, sqlite_set_node(sqlite_set_create(
                                     list_entry(node, struct store_request, node))));
}

static void run_set(struct sqlite_writer *w)
{
    struct list *node = list_pop_front(&w->sets);

    if (node == NULL)
        return;
    if (sqlite_set_turn(w, sqlite_set_of_node(node)))
        w->n_sets--;
    else
        list_push_back(&w->sets, node);
}

/* --- pruning the change log ----------------------------------------------------------------- */

/*
 * The number up to which rows may go: the oldest ones, without a gap, so that a reader which finds
 * the last row it applied has missed nothing; never the newest. 0: none. `*more` tells whether
 * there may be others behind.
 */
static sqlite3_int64 prune_limit(struct sqlite_writer *w, bool *more)
{
    sqlite3_stmt *oldest = w->conn.st[W_LOG_OLDEST];
    sqlite3_stmt *newest = w->conn.st[W_LOG_NEWEST];
    sqlite3_int64 old_s = clock_wall_ns(&clock_system) / 1000000000 - LOG_AGE_S;
    sqlite3_int64 limit = 0;
    sqlite3_int64 max = 0;
    int n = 0;

    if (sqlite3_step(newest) == SQLITE_ROW)
        max = sqlite3_column_int64(newest, 0);
    sqlite3_reset(newest);
    sqlite3_bind_int(oldest, 1, PRUNE_BATCH);
    while (sqlite3_step(oldest) == SQLITE_ROW) {
        sqlite3_int64 seq = sqlite3_column_int64(oldest, 0);

        if (seq >= max || (sqlite3_column_int64(oldest, 1) >= old_s && seq > max - LOG_ROWS_MAX))
            break;
        limit = seq;
        n++;
    }
    sqlite3_reset(oldest);
    *more = n == PRUNE_BATCH;
    return limit;
}

/* true: there may be more to prune. */
static bool prune_log(struct sqlite_writer *w)
{
    bool more = false;
    sqlite3_int64 limit = prune_limit(w, &more);
    int changed;

    /* What is pruned is no request's concern: it does not wait for the lock. */
    if (limit == 0 || sqlite_conn_run(&w->conn, W_BEGIN) != SQLITE_OK)
        return false;
    sqlite3_bind_int64(w->conn.st[W_LOG_PRUNE], 1, limit);
    if (sqlite_writer_change(w, W_LOG_PRUNE, &changed) == SQLITE_OK)
        return sqlite_writer_commit(w) == SQLITE_OK && more;
    sqlite_writer_rollback(w);
    return false;
}

static void run_prune(struct sqlite_writer *w)
{
    uint64_t now = now_ms();
    bool more;

    if (now < w->prune_at_ms)
        return;
    w->prune_at_ms = now + PRUNE_EVERY_MS;
    sqlite_conn_look_for_file(&w->conn);
    if (!sqlite_conn_ready(&w->conn))
        return;
    more = prune_log(w);
    if (sqlite_macs_prune(w) || more)
        w->prune_at_ms = now;
}

/* --- the thread ----------------------------------------------------------------------------- */

/* Waits for work. false: stop. */
static bool wait_for_work(struct sqlite_writer *w)
{
    uint64_t since = now_ms();
    bool busy = w->n_sets > 0 || w->prune_at_ms <= since;
    uint64_t linger_ms = w->macs_failed ? MAC_RETRY_MS : MAC_LINGER_MS;
    bool running = true;

    if (busy || !store_mac_queue_waits(&w->macs.queue))
        running = store_queue_wait(&w->queue, busy ? 0 : IDLE_WAIT_MS);
    if (running && !busy && store_mac_queue_waits(&w->macs.queue))
        running = store_queue_wait(&w->queue, linger_ms);

    w->idle_ms += now_ms() - since;
    return running;
}

static void be_generous(struct sqlite_writer *w)
{
    uint64_t now = now_ms();

    if (now - w->window_at_ms < GREEDY_MS)
        return;
    if (w->idle_ms < GREEDY_IDLE_MS)
        uv_sleep(GENEROUS_MS);
    w->window_at_ms = now_ms();
    w->idle_ms = 0;
}

static void writer_main(void *arg)
{
    struct sqlite_writer *w = arg;

    while (wait_for_work(w)) {
        be_generous(w);
        start_sets(w);
        if (store_queue_expire(&w->queue) > 0)
            run_batch(w);
        else
            run_macs(w);
        run_set(w);
        run_prune(w);
    }
}

/* Checkpoints come after 16 MB of log instead of 4: pages that many rows share are copied less often,
 * and what a reader has to look through still fits one segment of the log's index, nearly. */
static const struct sqlite_conn_kind conn_of_writer = {
    .flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
    .pragmas = "PRAGMA synchronous = FULL; PRAGMA secure_delete = OFF; "
               "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16000; "
               "PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864",
    .sql = sqlite_writer_sql,
    .n = W_COUNT,
    .schema = true,
};

bool sqlite_writer_open(struct sqlite_writer *w, struct sqlite_conn_place *place,
                        const struct store_conf *conf, char error[256])
{
    *w = (struct sqlite_writer){ .timeout_ms = conf->timeout_ms };
    list_init(&w->sets);
    /* It waits for locks by itself, so that requests get their answers meanwhile. */
    if (!sqlite_conn_open(&w->conn, &conn_of_writer, place, 0, error))
        return false;
    store_queue_init(&w->queue, conf->max_queued, conf->timeout_ms);
    w->window_at_ms = now_ms();
    w->prune_at_ms = now_ms();
    if (!sqlite_macs_open(w, conf, error)) {
        store_queue_fini(&w->queue);
        sqlite_conn_close(&w->conn);
        return false;
    }
    return true;
}

bool sqlite_writer_start(struct sqlite_writer *w)
{
    w->running = uv_thread_create(&w->thread, writer_main, w) == 0;
    return w->running;
}

void sqlite_writer_close(struct sqlite_writer *w)
{
    store_queue_stop(&w->queue);
    if (w->running)
        uv_thread_join(&w->thread);
    sqlite_macs_close(w);
    store_queue_fini(&w->queue);
    sqlite_scan_fini(&w->scan);
    sqlite_conn_close(&w->conn);
}
