/*
 * What the store tells of our own rows on its way to the index: so a row that somebody else deleted,
 * and one that a crash left behind, are known without asking. The sweep of forwarding.c acts on it.
 */
#include "forwarding_private.h"

/* A row of ours is there. One that nobody wants is of no use; while a call of ours is under way the call
 * decides. */
static void on_seen(struct forwarding *f, const struct store_row *stored)
{
    struct forwarding_row *row = forwarding_row_find(f, stored->kind, stored->key);

    if (row == NULL)
        row = forwarding_row_create(f, stored->kind, stored->key);
    row->seen = true;
    row->load = f->load;
    if (!row->wanted && !row->busy)
        forwarding_row_suspect(f, row);
}

static void on_gone(struct forwarding *f, struct forwarding_row *row)
{
    row->seen = false;
    if (!row->busy)
        forwarding_row_suspect(f, row);
}

static void feed_add(void *arg, const struct store_row *stored)
{
    struct forwarding *f = arg;

    if (forwarding_is_own(f, stored->url)) {
        uv_mutex_lock(&f->lock);
        on_seen(f, stored);
        uv_mutex_unlock(&f->lock);
    }
    f->inner.add(f->inner.arg, stored);
}

static void feed_remove(void *arg, const struct store_row *stored)
{
    struct forwarding *f = arg;
    struct forwarding_row *row;

    if (forwarding_is_own(f, stored->url)) {
        uv_mutex_lock(&f->lock);
        row = forwarding_row_find(f, stored->kind, stored->key);
        if (row != NULL)
            on_gone(f, row);
        uv_mutex_unlock(&f->lock);
    }
    f->inner.remove(f->inner.arg, stored);
}

static void feed_load_begin(void *arg)
{
    struct forwarding *f = arg;

    uv_mutex_lock(&f->lock);
    f->load++;
    uv_mutex_unlock(&f->lock);
    f->inner.load_begin(f->inner.arg);
}

/* What the whole content did not have is gone. */
static void feed_load_end(void *arg)
{
    struct forwarding *f = arg;

    uv_mutex_lock(&f->lock);
    for (size_t kind = 0; kind < 2; kind++) {
        for (struct map_node *n = map_first(&f->rows[kind]); n != NULL;
             n = map_next(&f->rows[kind], n)) {
            struct forwarding_row *row = map_entry(n, struct forwarding_row, node);

            if (row->load != f->load && row->seen)
                on_gone(f, row);
        }
    }
    uv_mutex_unlock(&f->lock);
    f->inner.load_end(f->inner.arg);
}

static void feed_load_abort(void *arg)
{
    struct forwarding *f = arg;

    f->inner.load_abort(f->inner.arg);
}

static void feed_change_begin(void *arg)
{
    struct forwarding *f = arg;

    f->inner.change_begin(f->inner.arg);
}

static void feed_change_end(void *arg)
{
    struct forwarding *f = arg;

    f->inner.change_end(f->inner.arg);
}

struct store_feed forwarding_feed(struct forwarding *f, const struct store_feed *inner)
{
    f->inner = *inner;
    return (struct store_feed){
        .load_begin = feed_load_begin,
        .load_end = feed_load_end,
        .load_abort = feed_load_abort,
        .change_begin = feed_change_begin,
        .change_end = feed_change_end,
        .add = feed_add,
        .remove = feed_remove,
        .arg = f,
    };
}
