/*
 * The checks behind GET /readyz (readiness.h). Called by admin.c.
 *
 * A part that does not answer in time counts as bad, is asked nothing more until it has answered, and
 * holds nobody up but those who wait for this look.
 */
#include "readiness.h"

#include <string.h>

#include "mem.h"
#include "store_meter.h"

#define KEPT_MS 1000

struct waiter {
    struct list node;
    readiness_done_fn *done;
    void *arg;
};

static void answer_waiting(struct readiness *r)
{
    struct list now, *node;

    list_init(&now);
    list_move_all(&now, &r->waiting);
    while ((node = list_pop_front(&now)) != NULL) {
        struct waiter *w = list_entry(node, struct waiter, node);

        w->done(w->arg, r->reasons);
        mem_free(w);
    }
}

static void look_ends(struct readiness *r)
{
    r->looking = false;
    r->looked = true;
    r->looked_at_ms = clock_mono_ms(r->b->clock);
    uv_timer_stop(&r->timer);
    r->reasons[0] = '\0';
    for (size_t i = 0; i < READINESS_PARTS; i++)
        if (r->parts[i].running || !r->parts[i].good)
            strcat(r->reasons, r->parts[i].reason);
    answer_waiting(r);
}

static void part_ends(struct readiness *r, size_t part, bool good)
{
    bool running = false;

    r->parts[part].running = false;
    r->parts[part].good = good;
    for (size_t i = 0; i < READINESS_PARTS; i++)
        running = running || r->parts[i].running;
    if (r->looking && !running)
        look_ends(r);
}

static void on_timer(uv_timer_t *timer)
{
    look_ends(timer->data);
}

static void on_probed(void *arg, enum store_status status)
{
    part_ends(arg, READINESS_STORE, status != STORE_UNAVAILABLE);
}

static void on_synced(void *arg, enum store_status status)
{
    struct readiness *r = arg;

    if (status == STORE_OK && !r->closed)
        store_meter_probe(r->store, on_probed, r);
    else
        part_ends(r, READINESS_STORE, false);
}

static void check_store(struct readiness *r)
{
    enum store_status status = r->b->store_ops->sync(r->store, on_synced, r);

    if (status != STORE_PENDING)
        on_synced(r, status);
}

static void spool_in_pool(uv_work_t *work)
{
    struct readiness *r = work->data;

    r->spool_good = bodies_can_spool(r->b->bodies);
}

static void on_spooled(uv_work_t *work, int status)
{
    struct readiness *r = work->data;

    (void)status; /* never cancelled */
    part_ends(r, READINESS_SPOOL, r->spool_good);
}

static void look(struct readiness *r)
{
    bool ask[READINESS_PARTS];

    r->looking = true;
    uv_timer_start(&r->timer, on_timer, r->b->conf->database.timeout_ms, 0);
    for (size_t i = 0; i < READINESS_PARTS; i++) { /* all, before the first one may answer */
        ask[i] = !r->parts[i].running;
        r->parts[i].running = true;
    }
    if (ask[READINESS_SPOOL] && uv_queue_work(r->loop, &r->work, spool_in_pool, on_spooled) != 0)
        part_ends(r, READINESS_SPOOL, false);
    if (ask[READINESS_STORE])
        check_store(r);
}

void readiness_ask(struct readiness *r, readiness_done_fn *done, void *arg)
{
    struct waiter *w;

    if (!r->looking && r->looked && clock_mono_ms(r->b->clock) - r->looked_at_ms < KEPT_MS) {
        done(arg, r->reasons);
        return;
    }
    w = mem_alloc(sizeof(*w));
    w->done = done;
    w->arg = arg;
    list_init(&w->node);
    list_push_back(&r->waiting, &w->node);
    if (!r->looking)
        look(r);
}

void readiness_init(struct readiness *r, struct broadcaster *b, uv_loop_t *loop,
                    struct store_client *store)
{
    *r = (struct readiness){ .b = b, .loop = loop, .store = store };
    r->parts[READINESS_STORE].reason = "the database does not answer\n";
    r->parts[READINESS_SPOOL].reason = "broadcaster.spool_dir cannot be written\n";
    list_init(&r->waiting);
    uv_timer_init(loop, &r->timer);
    r->timer.data = r;
    r->work.data = r;
}

void readiness_close(struct readiness *r)
{
    r->closed = true;
    r->looking = false;
    strcpy(r->reasons, "draining\n");
    answer_waiting(r);
    uv_close((uv_handle_t *)&r->timer, NULL);
}
