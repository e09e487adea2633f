/*
 * What is wanted of the broadcasters: each topic and glob once, however many hold it; and who waits for it
 * to be in force. Called by subscription.c and direct.c on one side, by the link on the other.
 */
#include <string.h>

#include "link.h"
#include "mem.h"

/* A change that waits for a want. */
struct waiter {
    struct list node; /* in want.waits */
    struct change *change;
};

struct want *want_find(struct lonely_client *c, enum want_kind kind, struct lonely_span key)
{
    uint8_t small[1024];
    uint8_t *id = key.len < sizeof(small) ? small : mem_try_alloc(1 + key.len);
    struct map_node *node;

    if (id == NULL)
        return NULL;
    id[0] = (uint8_t)kind;
    if (key.len > 0)
        memcpy(id + 1, key.ptr, key.len);
    node = map_find(&c->wants, id, 1 + key.len);
    if (id != small)
        mem_free(id);
    return node == NULL ? NULL : map_entry(node, struct want, node);
}

static struct want *want_create(struct lonely_client *c, enum want_kind kind,
                                struct lonely_span key)
{
    struct want *w = mem_try_calloc(1, sizeof(*w) + 1 + key.len);

    if (w == NULL)
        return NULL;
    w->kind = kind;
    w->id[0] = (uint8_t)kind;
    if (key.len > 0)
        memcpy(w->id + 1, key.ptr, key.len);
    w->key = (struct lonely_span){ w->id + 1, key.len };
    if (kind == WANT_GLOB)
        lonely_glob_compile(w->key, &w->compiled);
    list_init(&w->dirty);
    list_init(&w->waits);
    list_init(&w->holdings);
    list_push_back(kind == WANT_GLOB ? &c->globs : &c->exacts, &w->all);
    map_insert(&c->wants, &w->node, w->id, 1 + key.len);
    return w;
}

static void want_free(struct lonely_client *c, struct want *w)
{
    map_remove(&c->wants, &w->node);
    list_remove(&w->all);
    list_remove(&w->dirty);
    mem_free(w);
}

static void free_if_idle(struct lonely_client *c, struct want *w)
{
    if (w->refs == 0 && !w->busy && w->state == WANT_OFF && list_is_empty(&w->waits) &&
        c->wants_kept == 0)
        want_free(c, w);
}

static void mark(struct lonely_client *c, struct want *w)
{
    if (!want_is_settled(w) && !list_is_linked(&w->dirty))
        list_push_back(&c->dirty, &w->dirty);
}

static void tell_waiters(struct lonely_client *c, struct want *w, enum lonely_client_error err);

/* Who waits for a want that was given up before the broadcaster heard of it, waits for nothing. */
static void tell_if_settled(struct lonely_client *c, struct want *w)
{
    if (!w->busy && want_is_settled(w))
        tell_waiters(c, w, LONELY_CLIENT_OK);
}

struct want *want_hold(struct lonely_client *c, enum want_kind kind, struct lonely_span key)
{
    struct want *w = want_find(c, kind, key);

    if (w == NULL)
        w = want_create(c, kind, key);
    if (w == NULL)
        return NULL;
    if (w->refs++ == 0) {
        c->wanted++;
        if (w->state != WANT_ON)
            c->unsettled++;
    }
    mark(c, w);
    return w;
}

void want_drop(struct lonely_client *c, struct want *w)
{
    if (--w->refs == 0) {
        c->wanted--;
        if (w->state != WANT_ON)
            c->unsettled--;
    }
    mark(c, w);
    tell_if_settled(c, w);
}

void holding_attach(struct holding *h, struct want *w, struct lonely_subscription *s)
{
    h->want = w;
    h->subscription = s;
    list_push_back(&w->holdings, &h->of_want);
    list_push_back(&s->holdings, &h->of_subscription);
    uv_mutex_lock(&s->client->lock);
    s->gap = true; /* what came on that topic before is not known */
    if (w->state != WANT_ON)
        s->unsettled++;
    uv_mutex_unlock(&s->client->lock);
}

void holding_give_up(struct holding *h)
{
    struct want *w = h->want;
    struct lonely_client *c = h->subscription->client;

    list_remove(&h->of_want);
    list_remove(&h->of_subscription);
    uv_mutex_lock(&c->lock);
    if (w->state != WANT_ON)
        h->subscription->unsettled--;
    uv_mutex_unlock(&c->lock);
    mem_free(h);
    want_drop(c, w);
}

/* ---- Changes ---- */

static void change_settle(struct change *change, enum lonely_client_error err)
{
    if (change->err == LONELY_CLIENT_OK)
        change->err = err;
    if (--change->pending > 0)
        return;
    if (change->err != LONELY_CLIENT_OK && change->undo != NULL) {
        change->undo(change);
        client_update_status(change->cmd.client);
    }
    command_done(&change->cmd, change->err);
}

bool change_wait(struct change *change, struct want *w)
{
    struct waiter *waiter;

    if (want_is_settled(w))
        return true;
    waiter = mem_try_alloc(sizeof(*waiter));
    if (waiter == NULL)
        return false;
    waiter->change = change;
    list_push_back(&w->waits, &waiter->node);
    change->pending++;
    return true;
}

/* The want stays until it is known whether to wait for it. */
static bool wait_after(struct change *change, struct want *w)
{
    bool waits;

    w->busy = false;
    waits = change_wait(change, w);
    tell_if_settled(change->cmd.client, w);
    return waits;
}

bool change_wait_gone(struct change *change, struct holding *h)
{
    struct want *w = h->want;

    w->busy = true;
    holding_give_up(h);
    return wait_after(change, w);
}

bool change_wait_drop(struct change *change, struct want *w)
{
    w->busy = true;
    want_drop(change->cmd.client, w);
    return wait_after(change, w);
}

void change_ready(struct change *change)
{
    struct lonely_client *c = change->cmd.client;

    if (c->dead)
        wants_abandon(c, LONELY_CLIENT_ABANDONED);
    else if (!list_is_empty(&c->dirty) && !c->closing)
        c->link->ops->flush(c->link, &c->dirty);
    client_update_status(c);
    change_settle(change, LONELY_CLIENT_OK);
}

static void settle_all(struct list *waits, enum lonely_client_error err)
{
    struct list *node;

    while ((node = list_pop_front(waits)) != NULL) {
        struct waiter *waiter = list_entry(node, struct waiter, node);

        change_settle(waiter->change, err);
        mem_free(waiter);
    }
}

/* Whoever waits for it is told. It may be gone then. */
static void tell_waiters(struct lonely_client *c, struct want *w, enum lonely_client_error err)
{
    struct list waits;

    list_init(&waits);
    list_move_all(&waits, &w->waits);
    w->busy = true; /* it stays meanwhile, whoever gives it up */
    settle_all(&waits, err);
    w->busy = false;
    free_if_idle(c, w);
}

/* ---- From the link ---- */

static void count_holders(struct lonely_client *c, struct want *w, bool on)
{
    if (w->refs > 0)
        c->unsettled += on ? (size_t)-1 : 1;
    uv_mutex_lock(&c->lock);
    list_foreach (&w->holdings, node, next)
        list_entry(node, struct holding, of_want)->subscription->unsettled += on ? (size_t)-1 : 1;
    uv_mutex_unlock(&c->lock);
}

static void set_state(struct lonely_client *c, struct want *w, enum want_state state)
{
    bool was_on = w->state == WANT_ON;

    w->state = state;
    if (was_on != (state == WANT_ON))
        count_holders(c, w, state == WANT_ON);
}

bool want_enter(struct lonely_client *c, struct want *w, enum want_state state)
{
    set_state(c, w, state);
    if (!want_is_settled(w))
        return true;
    list_remove(&w->dirty);
    tell_waiters(c, w, LONELY_CLIENT_OK);
    client_update_status(c);
    return false;
}

void want_failed(struct lonely_client *c, struct want *w, enum lonely_client_error err)
{
    tell_waiters(c, w, err);
    client_update_status(c);
}

static void each(struct lonely_client *c, void (*fn)(struct lonely_client *c, struct want *w))
{
    struct list *const lists[] = { &c->exacts, &c->globs };

    for (size_t i = 0; i < 2; i++) {
        list_foreach (lists[i], node, next)
            fn(c, list_entry(node, struct want, all));
    }
}

void wants_keep(struct lonely_client *c)
{
    c->wants_kept++;
}

void wants_let_go(struct lonely_client *c)
{
    if (--c->wants_kept == 0)
        each(c, free_if_idle);
}

static void reset(struct lonely_client *c, struct want *w)
{
    list_remove(&w->dirty);
    set_state(c, w, WANT_OFF);
    if (want_is_settled(w))
        tell_waiters(c, w, LONELY_CLIENT_OK); /* what was to be unsubscribed is */
}

void wants_reset(struct lonely_client *c)
{
    wants_keep(c);
    each(c, reset);
    wants_let_go(c);
}

void wants_abandon(struct lonely_client *c, enum lonely_client_error err)
{
    struct list *const lists[] = { &c->exacts, &c->globs };
    struct list waits;

    wants_keep(c);
    wants_reset(c);
    list_init(&waits);
    for (size_t i = 0; i < 2; i++) {
        list_foreach (lists[i], node, next)
            list_move_all(&waits, &list_entry(node, struct want, all)->waits);
    }
    settle_all(&waits, err);
    wants_let_go(c);
}

void wants_fini(struct lonely_client *c)
{
    each(c, want_free);
    map_fini(&c->wants);
}
