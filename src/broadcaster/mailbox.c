/*
 * A locked list and a wake-up of the loop (mailbox.h). Used by sessions/forwarding.c; made and closed by
 * worker.c.
 */
#include "mailbox.h"

/* What is posted meanwhile waits for the next turn of the loop, so that workers that answer each other
 * leave room for their other work. */
static void open_waiting(struct mailbox *m)
{
    struct list *node;

    uv_mutex_lock(&m->lock);
    list_move_all(&m->taken, &m->letters);
    uv_mutex_unlock(&m->lock);
    while ((node = list_pop_front(&m->taken)) != NULL) {
        struct letter *l = list_entry(node, struct letter, node);

        l->open(l);
    }
}

static void on_wakeup(uv_async_t *wakeup)
{
    open_waiting(wakeup->data);
}

int mailbox_init(struct mailbox *m, uv_loop_t *loop)
{
    int err = uv_mutex_init(&m->lock);

    if (err != 0)
        return err;
    err = uv_async_init(loop, &m->wakeup, on_wakeup);
    if (err != 0) {
        uv_mutex_destroy(&m->lock);
        return err;
    }
    m->wakeup.data = m;
    list_init(&m->letters);
    list_init(&m->taken);
    m->closed = false;
    return 0;
}

void mailbox_close(struct mailbox *m)
{
    uv_mutex_lock(&m->lock);
    m->closed = true;
    uv_mutex_unlock(&m->lock);
    open_waiting(m);
    uv_close((uv_handle_t *)&m->wakeup, NULL);
}

void mailbox_fini(struct mailbox *m)
{
    uv_mutex_destroy(&m->lock);
}

bool mailbox_post(struct mailbox *m, struct letter *l)
{
    bool posted, first = false;

    uv_mutex_lock(&m->lock);
    posted = !m->closed;
    if (posted) {
        first = list_is_empty(&m->letters);
        list_push_back(&m->letters, &l->node);
    }
    /* Within the lock: once it is free the mailbox may close its handle. */
    if (first)
        uv_async_send(&m->wakeup);
    uv_mutex_unlock(&m->lock);
    return posted;
}
