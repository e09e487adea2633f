/*
 * Used macs on their way into rqlite: a queue that the writer empties with its transactions. Reading
 * what others wrote is rqlite_feed.c's. (doc/protocol/auth.md, 3)
 */
#include "mem.h"
#include "rqlite_store.h"

#define BATCH_MAX 1000 /* macs a transaction */

void rqlite_macs_init(struct rqlite_macs *m, const struct store_conf *conf)
{
    *m = (struct rqlite_macs){ .kept = conf->macs.add != NULL, .limit = conf->max_queued };
    if (m->kept)
        uv_mutex_init(&m->lock);
}

void rqlite_macs_fini(struct rqlite_macs *m)
{
    if (!m->kept)
        return;
    mem_free(m->waiting);
    mem_free(m->writing);
    uv_mutex_destroy(&m->lock);
    m->kept = false;
}

static bool make_room(struct rqlite_macs *m)
{
    size_t cap = m->waiting_cap == 0 ? 256 : m->waiting_cap * 2;
    struct store_mac *macs;

    if (m->n_waiting < m->waiting_cap)
        return true;
    macs = mem_try_realloc(m->waiting, cap * sizeof *macs);
    if (macs == NULL)
        return false;
    m->waiting = macs;
    m->waiting_cap = cap;
    return true;
}

bool rqlite_writer_add_mac(struct rqlite_writer *w, const struct store_mac *mac)
{
    struct rqlite_macs *m = &w->macs;
    bool first, room;

    if (!m->kept)
        return true;
    uv_mutex_lock(&m->lock);
    room = m->n_waiting < m->limit && make_room(m);
    first = m->n_waiting == 0;
    if (room)
        m->waiting[m->n_waiting++] = *mac;
    uv_mutex_unlock(&m->lock);
    if (room && first)
        store_queue_nudge(&w->queue);
    return room;
}

bool rqlite_macs_wait(struct rqlite_macs *m)
{
    bool any;

    if (!m->kept)
        return false;
    if (m->at < m->n_writing)
        return true;
    uv_mutex_lock(&m->lock);
    any = m->n_waiting > 0;
    uv_mutex_unlock(&m->lock);
    return any;
}

/* Takes over all that wait, once the last ones are written. */
static void swap_queues(struct rqlite_macs *m)
{
    struct store_mac *macs = m->writing;
    size_t cap = m->writing_cap;

    if (m->at < m->n_writing)
        return;
    uv_mutex_lock(&m->lock);
    m->writing = m->waiting;
    m->writing_cap = m->waiting_cap;
    m->n_writing = m->n_waiting;
    m->waiting = macs;
    m->waiting_cap = cap;
    m->n_waiting = 0;
    uv_mutex_unlock(&m->lock);
    m->at = 0;
}

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
    size_t left;

    m->n_batch = 0;
    if (!m->kept)
        return;
    swap_queues(m);
    left = m->n_writing - m->at;
    left = left < BATCH_MAX ? left : BATCH_MAX;
    m->statement = body->count;
    while (left > 0) {
        size_t n = left >= ROWS ? ROWS : 1;

        add_values(body, &m->writing[m->at + m->n_batch], n);
        m->n_batch += n;
        left -= n;
    }
}

void rqlite_macs_written(struct rqlite_macs *m, json_t *results)
{
    size_t statements = m->n_batch / ROWS + m->n_batch % ROWS;
    long long last, before;

    if (m->n_batch == 0)
        return;
    m->at += m->n_batch;
    /* Our own rows need not be read again. If others wrote between, they are, which does no harm. */
    last = rqlite_last_insert_id(results, m->statement + statements - 1);
    before = last - (long long)m->n_batch;
    if (results != NULL)
        atomic_compare_exchange_strong(m->applied, &before, last);
    m->n_batch = 0;
}
