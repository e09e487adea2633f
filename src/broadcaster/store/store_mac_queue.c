/*
 * See store_mac_queue.h. Two arrays: one grows while the other is written.
 */
#include "store_mac_queue.h"

#include "mem.h"

#define FIRST_CAP 256

void store_mac_queue_init(struct store_mac_queue *q, const struct store_conf *conf,
                          struct store_queue *writer)
{
    *q = (struct store_mac_queue){ .kept = conf->macs.add != NULL,
                                   .writer = writer,
                                   .limit = conf->max_queued };
    if (q->kept)
        uv_mutex_init(&q->lock);
}

void store_mac_queue_fini(struct store_mac_queue *q)
{
    if (!q->kept)
        return;
    mem_free(q->waiting);
    mem_free(q->writing);
    uv_mutex_destroy(&q->lock);
    q->kept = false;
}

static bool make_room(struct store_mac_queue *q)
{
    size_t cap = q->waiting_cap == 0 ? FIRST_CAP : q->waiting_cap * 2;
    struct store_mac *macs;

    if (q->n_waiting < q->waiting_cap)
        return true;
    macs = mem_try_realloc(q->waiting, cap * sizeof *macs);
    if (macs == NULL)
        return false;
    q->waiting = macs;
    q->waiting_cap = cap;
    return true;
}

bool store_mac_queue_add(struct store_mac_queue *q, const struct store_mac *mac)
{
    bool first, room;

    if (!q->kept)
        return true;
    uv_mutex_lock(&q->lock);
    room = q->n_waiting < q->limit && make_room(q);
    first = q->n_waiting == 0;
    if (room)
        q->waiting[q->n_waiting++] = *mac;
    uv_mutex_unlock(&q->lock);
    if (room && first)
        store_queue_nudge(q->writer);
    return room;
}

bool store_mac_queue_waits(struct store_mac_queue *q)
{
    bool any;

    if (!q->kept)
        return false;
    if (q->at < q->n_writing)
        return true;
    uv_mutex_lock(&q->lock);
    any = q->n_waiting > 0;
    uv_mutex_unlock(&q->lock);
    return any;
}

/* Takes over all that wait, once the last ones are written. */
static void swap(struct store_mac_queue *q)
{
    struct store_mac *macs = q->writing;
    size_t cap = q->writing_cap;

    if (q->at < q->n_writing)
        return;
    uv_mutex_lock(&q->lock);
    q->writing = q->waiting;
    q->writing_cap = q->waiting_cap;
    q->n_writing = q->n_waiting;
    q->waiting = macs;
    q->waiting_cap = cap;
    q->n_waiting = 0;
    uv_mutex_unlock(&q->lock);
    q->at = 0;
}

size_t store_mac_queue_batch(struct store_mac_queue *q, size_t max, const struct store_mac **out)
{
    size_t left;

    q->n_batch = 0;
    if (!q->kept)
        return 0;
    swap(q);
    left = q->n_writing - q->at;
    q->n_batch = left < max ? left : max;
    *out = q->n_batch > 0 ? q->writing + q->at : NULL;
    return q->n_batch;
}

bool store_mac_queue_is_last(const struct store_mac_queue *q)
{
    return q->at + q->n_batch == q->n_writing;
}

void store_mac_queue_done(struct store_mac_queue *q)
{
    q->at += q->n_batch;
    q->n_batch = 0;
}
