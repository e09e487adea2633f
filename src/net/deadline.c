/*
 * Deadlines of the connections of one server: http_server.c and its like set them, what is to
 * happen when one is due is theirs too.
 */
#include "deadline.h"

static struct deadline *of_node(struct list *node)
{
    return list_entry(node, struct deadline, node);
}

static void on_timer(uv_timer_t *timer);

static void arm(struct deadlines *all, uint64_t at_ms)
{
    uint64_t now = uv_now(all->timer.loop);

    all->armed_ms = at_ms;
    (void)uv_timer_start(&all->timer, on_timer, at_ms > now ? at_ms - now : 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct deadlines *all = list_entry(timer, struct deadlines, timer);
    uint64_t now = uv_now(timer->loop), next = UINT64_MAX;

    if (!all->polls_first && deadline_is_late(timer->loop, all->armed_ms)) {
        all->polls_first = true;
        arm(all, now + DEADLINE_POLL_MS);
        return;
    }
    all->polls_first = false;
    all->armed_ms = now; /* what on_due sets need not arm */
    for (unsigned kind = 0; kind < DEADLINE_KINDS; kind++) {
        struct list *first;

        /* on_due may clear any deadline, so the head is looked at again each time. */
        while ((first = list_first(&all->lists[kind])) != NULL && of_node(first)->at_ms <= now) {
            deadline_clear(of_node(first));
            all->on_due(all->arg, kind, of_node(first));
        }
    }
    for (unsigned kind = 0; kind < DEADLINE_KINDS; kind++) {
        struct list *first = list_first(&all->lists[kind]);

        if (first != NULL && of_node(first)->at_ms < next)
            next = of_node(first)->at_ms;
    }
    all->armed_ms = UINT64_MAX;
    if (next != UINT64_MAX && !uv_is_closing((uv_handle_t *)timer))
        arm(all, next);
}

void deadlines_init(struct deadlines *all, uv_loop_t *loop,
                    void (*on_due)(void *arg, unsigned kind, struct deadline *d), void *arg)
{
    (void)uv_timer_init(loop, &all->timer);
    all->timer.data = arg;
    all->armed_ms = UINT64_MAX;
    all->polls_first = false;
    for (unsigned kind = 0; kind < DEADLINE_KINDS; kind++)
        list_init(&all->lists[kind]);
    all->on_due = on_due;
    all->arg = arg;
}

void deadlines_close(struct deadlines *all, uv_close_cb on_closed)
{
    all->armed_ms = 0;
    uv_close((uv_handle_t *)&all->timer, on_closed);
}

void deadline_set(struct deadlines *all, unsigned kind, struct deadline *d, uint64_t after_ms)
{
    struct list *head = &all->lists[kind], *at = head;

    deadline_clear(d);
    if (after_ms == 0)
        return;
    d->at_ms = uv_now(all->timer.loop) + after_ms;
    while (at->prev != head && of_node(at->prev)->at_ms > d->at_ms)
        at = at->prev;
    list_insert_before(at, &d->node);
    d->set = true;
    if (d->at_ms < all->armed_ms)
        arm(all, d->at_ms);
}
