/*
 * Used macs in the database: a queue that the writer empties with its groups of writes, and a mark
 * for each process that takes macs. A mark that stays behind says that its process ended without
 * having written them all. Called by postgres_writer.c; reading what others wrote is postgres_feed.c's.
 */
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "postgres_store.h"

#define BATCH_MAX    4096 /* macs a commit */
#define DEAD_AFTER_S 60   /* without a sign of life of a process on another machine */

/* --- marks ---------------------------------------------------------------------------------- */

static void mark(struct postgres_writer *w)
{
    struct lonely_span process = { (const uint8_t *)w->process, strlen(w->process) };
    struct postgres_params p = { 0 };

    postgres_add_number(&p, w->mark_id);
    postgres_add_bytes(&p, process);
    postgres_tx_send(w, W_MARK, &p);
}

static void unmark(struct postgres_writer *w, int64_t id)
{
    struct postgres_params p = { 0 };

    postgres_add_number(&p, id);
    postgres_tx_send(w, W_UNMARK, &p);
}

/* Sends what is queued, and takes the answers of `n` statements. */
static void take(struct postgres_writer *w, size_t n)
{
    postgres_tx_flush(w);
    for (; n > 0; n--)
        PQclear(postgres_tx_take(w));
}

static bool is_dead(const PGresult *result, int row)
{
    const char *process = PQgetvalue(result, row, 1);

    if (store_process_is_local(process))
        return !store_process_is_alive(process);
    return postgres_number(result, row, 2) > DEAD_AFTER_S;
}

/* One transaction: those of dead processes go, ours comes. */
static bool change_marks(struct postgres_writer *w, bool *lost)
{
    size_t n = 1;
    PGresult *result;

    postgres_tx_begin(w, true, postgres_until(&w->conn));
    postgres_tx_send(w, W_MARKS, NULL);
    postgres_tx_flush(w);
    result = postgres_tx_take(w);
    for (int i = 0; result != NULL && i < PQntuples(result); i++) {
        if (!is_dead(result, i))
            continue;
        *lost = true;
        unmark(w, postgres_number(result, i, 0));
        n++;
    }
    PQclear(result);
    mark(w);
    postgres_tx_send_end(w);
    take(w, n);
    return postgres_tx_end(w) == OUTCOME_DONE;
}

bool postgres_macs_open(struct postgres_writer *w, const struct store_conf *conf, char error[256])
{
    bool lost = false;

    store_mac_queue_init(&w->macs, conf, &w->queue);
    if (!w->macs.kept)
        return true;
    store_process_self(w->process);
    if (uv_random(NULL, NULL, &w->mark_id, sizeof w->mark_id, 0, NULL) != 0 ||
        !change_marks(w, &lost)) {
        snprintf(error, 256, "%s: cannot write it", w->conn.place->shown);
        store_mac_queue_fini(&w->macs);
        return false;
    }
    if (lost && conf->macs.lost != NULL)
        conf->macs.lost(conf->macs.arg);
    return true;
}

void postgres_macs_sign_of_life(struct postgres_writer *w)
{
    if (!w->macs.kept)
        return;
    postgres_tx_begin(w, false, postgres_until(&w->conn));
    mark(w);
    postgres_tx_send_end(w);
    take(w, 1);
    (void)postgres_tx_end(w);
}

/* --- macs ----------------------------------------------------------------------------------- */

bool postgres_macs_send(struct postgres_writer *w)
{
    struct postgres_params p = { 0 };
    const struct store_mac *macs;
    bool good = true;
    size_t n;

    if (!store_mac_queue_waits(&w->macs))
        return false;
    n = store_mac_queue_batch(&w->macs, BATCH_MAX, &macs);
    postgres_array_clear(&w->mac_codes);
    postgres_array_clear(&w->mac_times);
    for (size_t i = 0; i < n; i++) {
        struct lonely_span code = { macs[i].code, sizeof macs[i].code };

        good = good && postgres_array_bytes(&w->mac_codes, code) &&
               postgres_array_number(&w->mac_times, store_seconds_up((double)macs[i].keep_until_s));
    }
    if (!good) {
        postgres_tx_fail(w);
        return false;
    }
    postgres_add_array(&p, &w->mac_codes, POSTGRES_OID_BYTEA);
    postgres_add_array(&p, &w->mac_times, POSTGRES_OID_BIGINT);
    postgres_tx_send(w, W_MAC_LOCK, NULL);
    postgres_tx_send(w, W_MAC_INSERT, &p);
    return true;
}

struct postgres_macs_batch postgres_macs_take(struct postgres_writer *w)
{
    struct postgres_macs_batch batch = { 0, 0 };
    PGresult *result;

    PQclear(postgres_tx_take(w)); /* the lock */
    result = postgres_tx_take(w);
    if (result != NULL && PQntuples(result) == 1) {
        batch.last = postgres_number(result, 0, 0);
        batch.before = postgres_number(result, 0, 1);
    }
    PQclear(result);
    return batch;
}

void postgres_macs_written(struct postgres_writer *w, const struct postgres_macs_batch *batch)
{
    long long before = batch->before;

    store_mac_queue_done(&w->macs);
    /* Our own rows need not be read again. If others wrote between, they are, which does no harm. */
    if (batch->last > 0)
        atomic_compare_exchange_strong(w->macs_applied, &before, batch->last);
}

/* --- the end -------------------------------------------------------------------------------- */

/* One transaction; the last one takes the mark away. */
static bool write_rest(struct postgres_writer *w)
{
    struct postgres_macs_batch batch = { 0, 0 };
    bool any, last;

    if (!postgres_conn_ready(&w->conn))
        return false;
    postgres_tx_begin(w, false, postgres_until(&w->conn));
    any = postgres_macs_send(w);
    last = store_mac_queue_is_last(&w->macs);
    if (last)
        unmark(w, w->mark_id);
    postgres_tx_send_end(w);
    postgres_tx_flush(w);
    if (any)
        batch = postgres_macs_take(w);
    if (last)
        PQclear(postgres_tx_take(w));
    if (postgres_tx_end(w) != OUTCOME_DONE)
        return false;
    if (any)
        postgres_macs_written(w, &batch);
    return true;
}

void postgres_macs_close(struct postgres_writer *w)
{
    if (!w->macs.kept)
        return;
    while (write_rest(w) && store_mac_queue_waits(&w->macs))
        ; /* else the mark stays and tells the next one */
    store_mac_queue_fini(&w->macs);
}
