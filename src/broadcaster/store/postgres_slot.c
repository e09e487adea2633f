/*
 * Connections that the feeder's thread makes for the loops (postgres_store.h). A slot belongs to its
 * loop, but while the feeder connects for it to both: then who is last frees it.
 */
#include "mem.h"
#include "postgres_store.h"

struct postgres_slot {
    struct list node; /* in feed.slots; all guarded by feed.slots_lock */
    bool wanted, connecting, abandoned;
    PGconn *pg;          /* made, and not yet taken over by the loop */
    uv_async_t *arrived; /* until abandoned */
};

struct postgres_slot *postgres_slot_open(struct postgres_feed *f, uv_async_t *arrived)
{
    struct postgres_slot *slot = mem_calloc(1, sizeof *slot);

    slot->arrived = arrived;
    uv_mutex_lock(&f->slots_lock);
    list_push_back(&f->slots, &slot->node);
    uv_mutex_unlock(&f->slots_lock);
    postgres_slot_want(f, slot);
    return slot;
}

void postgres_slot_want(struct postgres_feed *f, struct postgres_slot *slot)
{
    uv_mutex_lock(&f->slots_lock);
    slot->wanted = true;
    uv_mutex_unlock(&f->slots_lock);
    store_queue_nudge(&f->queue);
}

PGconn *postgres_slot_take(struct postgres_feed *f, struct postgres_slot *slot)
{
    PGconn *pg;

    uv_mutex_lock(&f->slots_lock);
    pg = slot->pg;
    slot->pg = NULL;
    uv_mutex_unlock(&f->slots_lock);
    return pg;
}

static void slot_free(struct postgres_slot *slot)
{
    list_remove(&slot->node);
    if (slot->pg != NULL)
        PQfinish(slot->pg);
    mem_free(slot);
}

void postgres_slot_close(struct postgres_feed *f, struct postgres_slot *slot)
{
    uv_mutex_lock(&f->slots_lock);
    slot->abandoned = true;
    if (!slot->connecting)
        slot_free(slot);
    uv_mutex_unlock(&f->slots_lock);
}

static struct postgres_slot *next_wanted(struct postgres_feed *f)
{
    struct postgres_slot *found = NULL;

    uv_mutex_lock(&f->slots_lock);
    list_foreach (&f->slots, node, next) {
        struct postgres_slot *slot = list_entry(node, struct postgres_slot, node);

        if (!slot->wanted)
            continue;
        slot->wanted = false;
        slot->connecting = true;
        found = slot;
        break;
    }
    uv_mutex_unlock(&f->slots_lock);
    return found;
}

/* NULL `pg`: it remains a wish. */
static void deliver(struct postgres_feed *f, struct postgres_slot *slot, PGconn *pg)
{
    uv_mutex_lock(&f->slots_lock);
    slot->connecting = false;
    slot->pg = pg;
    slot->wanted = slot->wanted || pg == NULL;
    if (slot->abandoned)
        slot_free(slot);
    else if (pg != NULL)
        uv_async_send(slot->arrived); /* under the lock: its loop closes it without */
    uv_mutex_unlock(&f->slots_lock);
}

bool postgres_slots_serve(struct postgres_feed *f)
{
    struct postgres_slot *slot;
    bool good = true;

    while (good && (slot = next_wanted(f)) != NULL) {
        struct postgres_conn conn;

        postgres_conn_init(&conn, &postgres_kind_of_look, f->conn.place);
        good = postgres_conn_ready(&conn);
        deliver(f, slot, postgres_conn_release(&conn));
    }
    return good;
}
