/*
 * Subscriptions: what each holds, and the messages that wait in it. (doc/protocol/session.md, 7)
 *
 * Its topics and globs are the loop's; its queue is shared with the thread that calls `next`.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core.h"
#include "link.h"
#include "mem.h"

/* A topic or glob: of a subscription that is not entered yet, or that an edit has just added. */
struct plan {
    struct list node;
    enum want_kind kind;
    struct lonely_span key;
    uint8_t bytes[];
};

/* ---- The queue ---- */

static bool is_ready(const struct lonely_subscription *s)
{
    const struct lonely_client *c = s->client;

    return s->entered && c->status != LONELY_CLIENT_DEAD && c->standing && s->unsettled == 0;
}

/* Would `next` not wait? Under lock. */
static bool has_something(const struct lonely_subscription *s)
{
    if (s->client->status == LONELY_CLIENT_DEAD || !s->entered)
        return true;
    return is_ready(s) &&
           (s->queue_len > 0 || s->lost_one || (s->gap && s->on_receiving.fn != NULL));
}

void subscription_signal(struct lonely_subscription *s)
{
    bool set = has_something(s);
    uint64_t one = 1;
    ssize_t ignored;

    if (s->fd < 0 || set == s->fd_set)
        return;
    s->fd_set = set;
    ignored = set ? write(s->fd, &one, sizeof(one)) : read(s->fd, &one, sizeof(one));
    (void)ignored; /* neither can fail: nobody else writes or reads it */
}

int lonely_subscription_fd(struct lonely_subscription *s)
{
    uv_mutex_lock(&s->client->lock);
    if (s->fd < 0)
        s->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    subscription_signal(s);
    uv_mutex_unlock(&s->client->lock);
    return s->fd;
}

/* Under lock. false: no memory. */
static bool push(struct lonely_subscription *s, struct lonely_delivery *d)
{
    size_t cap = s->queue_cap == 0 ? 16 : s->queue_cap * 2;

    if (s->queue_len == s->queue_cap) {
        struct lonely_delivery **grown = mem_try_calloc(cap, sizeof(struct lonely_delivery *));

        if (grown == NULL)
            return false;
        for (size_t i = 0; i < s->queue_len; i++)
            grown[i] = s->queue[(s->queue_first + i) % s->queue_cap];
        mem_free(s->queue);
        s->queue = grown;
        s->queue_cap = cap;
        s->queue_first = 0;
    }
    lonely_delivery_ref(d);
    s->queue[(s->queue_first + s->queue_len++) % s->queue_cap] = d;
    return true;
}

static struct lonely_delivery *pop(struct lonely_subscription *s)
{
    struct lonely_delivery *d = s->queue[s->queue_first];

    s->queue_first = (s->queue_first + 1) % s->queue_cap;
    s->queue_len--;
    return d;
}

/* Under lock: the length of the longest queue. */
static size_t longest_queue(const struct lonely_client *c)
{
    size_t longest = 0;

    list_foreach (&c->subscriptions, node, next) {
        size_t len = list_entry(node, struct lonely_subscription, node)->queue_len;

        longest = len > longest ? len : longest;
    }
    return longest;
}

bool client_has_room(struct lonely_client *c)
{
    bool room;

    uv_mutex_lock(&c->lock);
    room = !c->full;
    uv_mutex_unlock(&c->lock);
    return room;
}

static void tell_link(struct lonely_client *c)
{
    if (!c->closing && !c->dead)
        c->link->ops->room_again(c->link);
}

static void run_room_again(struct command *cmd)
{
    tell_link(cmd->client);
    command_done(cmd, LONELY_CLIENT_OK);
}

/* Half of the bound is free again. */
static void tell_room(struct lonely_client *c)
{
    struct command *cmd = command_create(c, sizeof(*cmd), run_room_again);

    if (cmd != NULL)
        client_submit(cmd, 0);
}

/* Under lock. True: the link is to be told. */
static bool check_room(struct lonely_client *c)
{
    if (!c->full || longest_queue(c) > c->conf.max_received / 2)
        return false;
    c->full = false;
    return true;
}

static void offer(struct lonely_subscription *s, struct lonely_delivery *d)
{
    struct lonely_client *c = s->client;

    if (s->stamp == c->stamp)
        return;
    s->stamp = c->stamp;
    if (!push(s, d))
        s->lost_one = true;
    if (s->queue_len >= c->conf.max_received)
        c->full = true;
    subscription_signal(s);
}

static void offer_holders(const struct want *w, struct lonely_delivery *d)
{
    list_foreach (&w->holdings, node, next)
        offer(list_entry(node, struct holding, of_want)->subscription, d);
}

/* Calls `fn` for each want that `topic` matches. */
static void each_match(struct lonely_client *c, struct lonely_span topic,
                       void (*fn)(const struct want *w, struct lonely_delivery *d),
                       struct lonely_delivery *d)
{
    struct want *exact = want_find(c, WANT_EXACT, topic);
    struct lonely_glob_topic text;

    if (exact != NULL)
        fn(exact, d);
    if (list_is_empty(&c->globs) || !lonely_glob_topic_init(topic, &text))
        return;
    list_foreach (&c->globs, node, next) {
        struct want *w = list_entry(node, struct want, all);

        if (lonely_glob_match(&w->compiled, &text, NULL, NULL) == LONELY_GLOB_MATCH)
            fn(w, d);
    }
}

void client_deliver(struct lonely_client *c, struct lonely_delivery *d)
{
    handlers_tell_message(c, d);
    c->stamp++;
    uv_mutex_lock(&c->lock);
    each_match(c, d->topic, offer_holders, d);
    uv_cond_broadcast(&c->changed);
    uv_mutex_unlock(&c->lock);
}

static void note_gap(const struct want *w, struct lonely_delivery *d)
{
    (void)d;
    list_foreach (&w->holdings, node, next)
        list_entry(node, struct holding, of_want)->subscription->gap = true;
}

static void note_loss(const struct want *w, struct lonely_delivery *d)
{
    (void)d;
    list_foreach (&w->holdings, node, next)
        list_entry(node, struct holding, of_want)->subscription->lost_one = true;
}

static void signal_matching(struct lonely_client *c, struct lonely_span topic,
                            void (*fn)(const struct want *w, struct lonely_delivery *d))
{
    uv_mutex_lock(&c->lock);
    each_match(c, topic, fn, NULL);
    list_foreach (&c->subscriptions, node, next)
        subscription_signal(list_entry(node, struct lonely_subscription, node));
    uv_cond_broadcast(&c->changed);
    uv_mutex_unlock(&c->lock);
}

void client_missed(struct lonely_client *c, struct lonely_span topic)
{
    signal_matching(c, topic, note_gap);
    if (c->status != LONELY_CLIENT_CONNECTED)
        return;
    handlers_tell_status(c, LONELY_CLIENT_LOST, topic);
    handlers_tell_status(c, LONELY_CLIENT_CONNECTED, topic);
}

void client_lost_one(struct lonely_client *c, struct lonely_span topic)
{
    signal_matching(c, topic, note_loss);
}

/* ---- Next ---- */

static bool next_is_ready(void *arg)
{
    const struct lonely_subscription *s = arg;

    return s->client->status == LONELY_CLIENT_DEAD || !s->entered ||
           (is_ready(s) && (s->queue_len > 0 || s->lost_one || s->gap));
}

enum next_step { NEXT_MESSAGE, NEXT_GAP, NEXT_ERROR, NEXT_NOTHING };

static enum next_step look(struct lonely_subscription *s, struct lonely_delivery **out,
                           enum lonely_client_error *err, bool *room)
{
    if (!s->entered || s->client->status == LONELY_CLIENT_DEAD) {
        *err = s->entered ? LONELY_CLIENT_ABANDONED : LONELY_CLIENT_STATE;
        return NEXT_ERROR;
    }
    if (!is_ready(s))
        return NEXT_NOTHING;
    if (s->gap) {
        s->gap = false;
        return NEXT_GAP;
    }
    if (s->lost_one) {
        s->lost_one = false;
        *err = LONELY_CLIENT_SPOOL;
        return NEXT_ERROR;
    }
    if (s->queue_len == 0)
        return NEXT_NOTHING;
    *out = pop(s);
    *room = check_room(s->client);
    return NEXT_MESSAGE;
}

static bool run_on_receiving(struct lonely_subscription *s)
{
    bool good = s->on_receiving.fn == NULL || s->on_receiving.fn(s->on_receiving.arg);

    if (!good) {
        uv_mutex_lock(&s->client->lock);
        s->gap = true;
        uv_mutex_unlock(&s->client->lock);
    }
    return good;
}

enum lonely_client_error lonely_subscription_next(struct lonely_subscription *s, int64_t timeout_ms,
                                                  struct lonely_delivery **out)
{
    struct lonely_client *c = s->client;
    uint64_t began_ms = uv_hrtime() / 1000000;
    int64_t left_ms = timeout_ms;
    enum lonely_client_error err = LONELY_CLIENT_OK;
    bool room = false;

    *out = NULL;
    for (;;) {
        bool ready = client_wait(c, next_is_ready, s, left_ms);
        enum next_step step;

        uv_mutex_lock(&c->lock);
        step = look(s, out, &err, &room);
        subscription_signal(s);
        uv_mutex_unlock(&c->lock);
        if (room)
            tell_room(c);
        if (step == NEXT_MESSAGE || step == NEXT_ERROR)
            return err;
        if (step == NEXT_GAP && !run_on_receiving(s))
            return LONELY_CLIENT_CALLBACK;
        if (step == NEXT_NOTHING && !ready)
            return LONELY_CLIENT_TIMED_OUT;
        if (timeout_ms > 0) {
            uint64_t spent_ms = uv_hrtime() / 1000000 - began_ms;

            left_ms = spent_ms < (uint64_t)timeout_ms ? timeout_ms - (int64_t)spent_ms : 0;
        }
    }
}

/* ---- Editing ---- */

enum edit_what { EDIT_ADD, EDIT_REMOVE, EDIT_ENTER };

struct edit {
    struct change change; /* first */
    struct lonely_subscription *subscription;
    enum edit_what what;
    struct list added; /* plan.node: what to give up when it fails */
    struct plan *plan; /* what to add or remove; NULL: done with */
};

static struct holding *find_holding(struct lonely_subscription *s, enum want_kind kind,
                                    struct lonely_span key)
{
    const struct want *w = want_find(s->client, kind, key);

    if (w == NULL)
        return NULL;
    list_foreach (&w->holdings, node, next) {
        struct holding *h = list_entry(node, struct holding, of_want);

        if (h->subscription == s)
            return h;
    }
    return NULL;
}

static struct plan *find_plan(struct lonely_subscription *s, enum want_kind kind,
                              struct lonely_span key)
{
    list_foreach (&s->plans, node, next) {
        struct plan *p = list_entry(node, struct plan, node);

        if (p->kind == kind && p->key.len == key.len &&
            (key.len == 0 || memcmp(p->key.ptr, key.ptr, key.len) == 0))
            return p;
    }
    return NULL;
}

/* Takes the plan, also when it fails. */
static enum lonely_client_error hold(struct edit *e, struct plan *p)
{
    struct lonely_subscription *s = e->subscription;
    struct holding *h;
    struct want *w;

    list_push_back(&e->added, &p->node);
    if (find_holding(s, p->kind, p->key) != NULL) {
        list_remove(&p->node);
        mem_free(p);
        return LONELY_CLIENT_OK;
    }
    h = mem_try_alloc(sizeof(*h));
    w = h == NULL ? NULL : want_hold(s->client, p->kind, p->key);
    if (w == NULL) {
        mem_free(h);
        return LONELY_CLIENT_NO_MEMORY;
    }
    holding_attach(h, w, s);
    return change_wait(&e->change, w) ? LONELY_CLIENT_OK : LONELY_CLIENT_NO_MEMORY;
}

static enum lonely_client_error add(struct edit *e)
{
    struct lonely_subscription *s = e->subscription;
    struct plan *p = e->plan;

    if (!s->entered && find_plan(s, p->kind, p->key) != NULL)
        return LONELY_CLIENT_OK;
    e->plan = NULL;
    if (s->entered)
        return hold(e, p);
    list_push_back(&s->plans, &p->node);
    return LONELY_CLIENT_OK;
}

static enum lonely_client_error remove_one(struct edit *e)
{
    struct lonely_subscription *s = e->subscription;
    struct plan *p = find_plan(s, e->plan->kind, e->plan->key);
    struct holding *h = find_holding(s, e->plan->kind, e->plan->key);

    if (p != NULL) {
        list_remove(&p->node);
        mem_free(p);
        return LONELY_CLIENT_OK;
    }
    if (h == NULL)
        return LONELY_CLIENT_NOT_SUBSCRIBED;
    return change_wait_gone(&e->change, h) ? LONELY_CLIENT_OK : LONELY_CLIENT_NO_MEMORY;
}

static void set_entered(struct lonely_subscription *s, bool entered)
{
    uv_mutex_lock(&s->client->lock);
    s->entered = entered;
    list_remove(&s->node);
    if (entered)
        list_push_back(&s->client->subscriptions, &s->node);
    uv_mutex_unlock(&s->client->lock);
}

static enum lonely_client_error enter(struct edit *e)
{
    struct lonely_subscription *s = e->subscription;
    enum lonely_client_error err = LONELY_CLIENT_OK;
    struct list *node;

    if (s->entered)
        return LONELY_CLIENT_STATE;
    set_entered(s, true);
    while (err == LONELY_CLIENT_OK && (node = list_pop_front(&s->plans)) != NULL)
        err = hold(e, list_entry(node, struct plan, node));
    return err;
}

/* Over HTTP what failed is not asked for again; over a connection it is, after each reconnect. */
static void undo(struct change *change)
{
    struct edit *e = (struct edit *)change;
    struct lonely_subscription *s = e->subscription;

    if (s->client->link->ops != &link_http || s->left)
        return;
    list_foreach (&e->added, node, next) {
        struct plan *p = list_entry(node, struct plan, node);
        struct holding *h = find_holding(s, p->kind, p->key);

        if (h != NULL)
            holding_give_up(h);
    }
    if (e->what != EDIT_ENTER || list_is_empty(&e->added))
        return;
    set_entered(s, false);
    list_move_all(&s->plans, &e->added);
}

static void subscription_unref(struct lonely_subscription *s)
{
    if (atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    while (s->queue_len > 0)
        lonely_delivery_release(pop(s));
    mem_free(s->queue);
    if (s->fd >= 0)
        close(s->fd);
    mem_free(s);
}

static void free_plans(struct list *plans)
{
    list_foreach (plans, node, next)
        mem_free(list_entry(node, struct plan, node));
}

static void free_edit(struct command *cmd)
{
    struct edit *e = (struct edit *)cmd;

    free_plans(&e->added);
    mem_free(e->plan);
    subscription_unref(e->subscription);
}

static void run_edit(struct command *cmd)
{
    static enum lonely_client_error (*const steps[])(struct edit * e) = {
        [EDIT_ADD] = add,
        [EDIT_REMOVE] = remove_one,
        [EDIT_ENTER] = enter,
    };
    struct edit *e = (struct edit *)cmd;

    e->change.pending = 1;
    e->change.undo = undo;
    e->change.err = steps[e->what](e);
    change_ready(&e->change);
}

static struct plan *plan_create(enum want_kind kind, struct lonely_span key)
{
    struct plan *p = mem_try_alloc(sizeof(*p) + key.len);

    if (p == NULL)
        return NULL;
    list_init(&p->node);
    p->kind = kind;
    if (key.len > 0)
        memcpy(p->bytes, key.ptr, key.len);
    p->key = (struct lonely_span){ p->bytes, key.len };
    return p;
}

static enum lonely_client_error edit(struct lonely_subscription *s, enum edit_what what,
                                     enum want_kind kind, struct lonely_span key,
                                     int64_t timeout_ms)
{
    struct lonely_glob compiled;
    struct edit *e;

    if (key.len > 65535 || (kind == WANT_GLOB && lonely_glob_compile(key, &compiled) != LONELY_OK))
        return LONELY_CLIENT_ARGUMENT;
    e = command_create(s->client, sizeof(*e), run_edit);
    if (e == NULL)
        return LONELY_CLIENT_NO_MEMORY;
    e->change.cmd.free = free_edit;
    e->subscription = s;
    atomic_fetch_add(&s->refs, 1);
    e->what = what;
    list_init(&e->added);
    e->plan = plan_create(kind, key);
    if (e->plan != NULL)
        return client_submit(&e->change.cmd, timeout_ms);
    command_unref(&e->change.cmd);
    return LONELY_CLIENT_NO_MEMORY;
}

enum lonely_client_error lonely_subscription_add_exact(struct lonely_subscription *s,
                                                       struct lonely_span topic, int64_t timeout_ms)
{
    return edit(s, EDIT_ADD, WANT_EXACT, topic, timeout_ms);
}

enum lonely_client_error lonely_subscription_add_glob(struct lonely_subscription *s,
                                                      struct lonely_span glob, int64_t timeout_ms)
{
    return edit(s, EDIT_ADD, WANT_GLOB, glob, timeout_ms);
}

enum lonely_client_error lonely_subscription_remove_exact(struct lonely_subscription *s,
                                                          struct lonely_span topic,
                                                          int64_t timeout_ms)
{
    return edit(s, EDIT_REMOVE, WANT_EXACT, topic, timeout_ms);
}

enum lonely_client_error lonely_subscription_remove_glob(struct lonely_subscription *s,
                                                         struct lonely_span glob,
                                                         int64_t timeout_ms)
{
    return edit(s, EDIT_REMOVE, WANT_GLOB, glob, timeout_ms);
}

enum lonely_client_error lonely_subscription_enter(struct lonely_subscription *s,
                                                   int64_t timeout_ms)
{
    return edit(s, EDIT_ENTER, WANT_EXACT, (struct lonely_span){ 0 }, timeout_ms);
}

/* ---- Life ---- */

enum lonely_client_error lonely_subscription_create(struct lonely_client *c,
                                                    const struct lonely_on_receiving *on_receiving,
                                                    struct lonely_subscription **out)
{
    struct lonely_subscription *s = mem_try_calloc(1, sizeof(*s));

    *out = s;
    if (s == NULL)
        return LONELY_CLIENT_NO_MEMORY;
    s->client = c;
    atomic_init(&s->refs, 1);
    s->fd = -1;
    s->gap = true;
    if (on_receiving != NULL)
        s->on_receiving = *on_receiving;
    list_init(&s->node);
    list_init(&s->holdings);
    list_init(&s->plans);
    return LONELY_CLIENT_OK;
}

struct leave {
    struct change change; /* first */
    struct lonely_subscription *subscription;
};

static void run_leave(struct command *cmd)
{
    struct leave *leave = (struct leave *)cmd;
    struct lonely_subscription *s = leave->subscription;
    struct lonely_client *c = cmd->client;
    struct list *node;
    bool room;

    s->left = true; /* edits under way undo nothing any more */
    free_plans(&s->plans);
    list_init(&s->plans);
    while ((node = list_first(&s->holdings)) != NULL)
        holding_give_up(list_entry(node, struct holding, of_subscription));
    uv_mutex_lock(&c->lock);
    list_remove(&s->node);
    room = check_room(c);
    uv_mutex_unlock(&c->lock);
    subscription_unref(s);
    if (room)
        tell_link(c);
    leave->change.pending = 1;
    change_ready(&leave->change);
}

void lonely_subscription_destroy(struct lonely_subscription *s)
{
    struct leave *leave;

    if (s == NULL)
        return;
    do /* what cannot be told cannot be ended: memory comes back */
        leave = command_create(s->client, sizeof(*leave), run_leave);
    while (leave == NULL);
    leave->subscription = s;
    client_submit(&leave->change.cmd, 0);
}

static enum lonely_client_error subscribe(struct lonely_client *c, enum want_kind kind,
                                          struct lonely_span key,
                                          const struct lonely_on_receiving *on_receiving,
                                          struct lonely_subscription **out)
{
    enum lonely_client_error err = lonely_subscription_create(c, on_receiving, out);

    if (err == LONELY_CLIENT_OK)
        err = edit(*out, EDIT_ADD, kind, key, -1);
    if (err == LONELY_CLIENT_OK)
        err = lonely_subscription_enter(*out, -1);
    if (err != LONELY_CLIENT_OK) {
        lonely_subscription_destroy(*out);
        *out = NULL;
    }
    return err;
}

enum lonely_client_error lonely_subscribe_exact(struct lonely_client *c, struct lonely_span topic,
                                                const struct lonely_on_receiving *on_receiving,
                                                struct lonely_subscription **out)
{
    return subscribe(c, WANT_EXACT, topic, on_receiving, out);
}

enum lonely_client_error lonely_subscribe_glob(struct lonely_client *c, struct lonely_span glob,
                                               const struct lonely_on_receiving *on_receiving,
                                               struct lonely_subscription **out)
{
    return subscribe(c, WANT_GLOB, glob, on_receiving, out);
}
