/*
 * Used macs on their way into rqlite: a queue that the writer empties with its transactions. Reading
 * what others wrote is rqlite_feed.c's. (doc/protocol/auth.md, 3)
 */
#include "rqlite_store.h"

#define BATCH_MAX 1000 /* macs a transaction */

/* Groups of a fixed size share a statement; what remains gets one each. */
#define ROW       "(?, ?)"
#define ROWS_5    ROW ", " ROW ", " ROW ", " ROW ", " ROW
#define ROWS_25   ROWS_5 ", " ROWS_5 ", " ROWS_5 ", " ROWS_5 ", " ROWS_5
#define ROWS      25
#define INSERT_OF "INSERT INTO " RQ_MACS " (mac, expires_at) VALUES "

static void add_values(struct rqlite_body *body, const struct store_mac *macs, size_t n)
{
    rqlite_body_statement(body, n == ROWS ? INSERT_OF ROWS_25 : INSERT_OF ROW);
    for (size_t i = 0; i < n; i++) {
        rqlite_body_bytes(body, (struct lonely_span){ macs[i].code, sizeof macs[i].code });
        rqlite_body_int(body, store_seconds_up((double)macs[i].keep_until_s));
    }
}

void rqlite_macs_add(struct rqlite_macs *m, struct rqlite_body *body)
{
    const struct store_mac *macs;
    size_t left = store_mac_queue_batch(&m->queue, BATCH_MAX, &macs);

    m->statement = body->count;
    while (left > 0) {
        size_t n = left >= ROWS ? ROWS : 1;

        add_values(body, macs, n);
        macs += n;
        left -= n;
    }
}

void rqlite_macs_written(struct rqlite_macs *m, json_t *results)
{
    size_t n = m->queue.n_batch;
    size_t statements = n / ROWS + n % ROWS;
    long long last, before;

    if (n == 0)
        return;
    store_mac_queue_done(&m->queue);
    /* Our own rows need not be read again. If others wrote between, they are, which does no harm. */
    last = rqlite_last_insert_id(results, m->statement + statements - 1);
    before = last - (long long)n;
    if (results != NULL)
        atomic_compare_exchange_strong(m->applied, &before, last);
}
