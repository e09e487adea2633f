/*
 * A message, or a MISSED, on its way to the sessions of all workers (forwarding.h): matched once, then
 * offered by each worker to its own. Called by hub.c for what is notified here and by route_receive.c
 * and route_missed.c for what peers send.
 */
#include "forwarding_private.h"

#include <string.h>

#include "mem.h"
#include "receivers.h"

/* Steps that a match may take on the loop, about a millisecond; longer ones go on in the pool. */
#define MATCH_STEPS UINT64_C(1000000)

enum errand_kind { ERRAND_MATCH, ERRAND_DELIVER, ERRAND_MISSED };

/* What is asked for. */
struct task {
    struct forwarding *f;
    struct worker *worker; /* who asks */
    enum errand_kind kind;
    struct lonely_span topic;
    struct body *body; /* of ERRAND_DELIVER */
    struct outgoing
        *message; /* made of it once it is known that somebody wants it; NULL: not yet */
    struct index_matches globs; /* those that match */
    forwarding_count_fn *done;
    void *arg;
};

/* Of another worker: goes there, and comes back with its count. */
struct parcel {
    struct letter letter; /* first */
    struct errand *errand;
    struct worker *to;
    uint32_t count;
};

/* A task that does not end at once: its globs are long to match, or there are other workers. */
struct errand {
    struct task task;
    uint64_t count;
    size_t pending; /* parcels under way, and one while they are being sent */
    uv_work_t work;
    struct list node; /* of worker.long_errands */
    bool found;
    struct parcel *parcels;
    uint8_t topic[];
};

/* ---- One worker's part ---- */

static bool wants(const struct task *t)
{
    const struct forwarding_row *row;
    bool wanted;

    if (t->globs.count > 0)
        return true;
    uv_mutex_lock(&t->f->lock);
    row = forwarding_row_find(t->f, STORE_EXACT, t->topic);
    wanted = row != NULL && row->wanted;
    uv_mutex_unlock(&t->f->lock);
    return wanted;
}

static void make_message(struct task *t)
{
    uint8_t identifier[4];

    worker_random(t->worker, identifier, sizeof(identifier));
    t->message = outgoing_create(t->topic, t->body, identifier);
}

static uint32_t offer(const struct task *t, struct worker *to)
{
    if (t->kind == ERRAND_MISSED)
        return receivers_missed(to->receivers, t->topic, &t->globs);
    return receivers_deliver(to->receivers, t->message, &t->globs);
}

static void task_fini(struct task *t)
{
    outgoing_unref(t->message);
    index_matches_release(&t->globs);
}

/* Alone there is nobody to write to, and no memory to take but the message's. */
static uint32_t do_alone(struct task *t)
{
    struct worker *w = t->worker;

    if (t->kind == ERRAND_MATCH)
        return wants(t);
    if (!receivers_match(w->receivers, t->topic, &t->globs))
        return 0;
    if (t->kind == ERRAND_DELIVER)
        make_message(t);
    return offer(t, w);
}

/* ---- Errands ---- */

static void errand_finish(struct errand *e)
{
    struct worker *w = e->task.worker;
    uint32_t count = e->count > UINT32_MAX ? UINT32_MAX : (uint32_t)e->count;

    e->task.done(e->task.arg, count);
    task_fini(&e->task);
    body_unref(e->task.body);
    mem_free(e->parcels);
    mem_free(e);
    worker_release(w);
}

static void errand_release(struct errand *e)
{
    if (--e->pending == 0)
        errand_finish(e);
}

static void on_parcel_back(struct letter *letter)
{
    struct parcel *p = (struct parcel *)letter;

    p->errand->count += p->count;
    errand_release(p->errand);
}

/* At the other worker. The errand's worker is held, so that its mailbox is open. */
static void on_parcel(struct letter *letter)
{
    struct parcel *p = (struct parcel *)letter;

    p->count = offer(&p->errand->task, p->to);
    p->letter.open = on_parcel_back;
    mailbox_post(&p->errand->task.worker->mailbox, &p->letter);
}

static void send_parcel(struct errand *e, struct parcel *p, struct worker *to)
{
    *p = (struct parcel){ .letter.open = on_parcel, .errand = e, .to = to };
    if (mailbox_post(&to->mailbox, &p->letter))
        e->pending++;
}

/* To the workers with sessions, and to our own at last. */
static void errand_carry_out(struct errand *e)
{
    struct task *t = &e->task;
    struct broadcaster *b = t->worker->b;

    e->pending = 1;
    if (t->kind == ERRAND_MATCH) {
        e->count = wants(t);
    } else if (wants(t)) {
        if (t->kind == ERRAND_DELIVER)
            make_message(t);
        e->parcels = mem_calloc(b->worker_count, sizeof(*e->parcels));
        for (size_t i = 0; i < b->worker_count; i++) {
            struct worker *to = b->workers[i];

            if (to != t->worker && receivers_keys(to->receivers) > 0)
                send_parcel(e, &e->parcels[i], to);
        }
        e->count = offer(t, t->worker);
    }
    errand_release(e);
}

/* A copy of the task that lives as long as it needs, with the worker. */
static struct errand *errand_create(const struct task *t)
{
    struct errand *e = mem_alloc(sizeof(*e) + t->topic.len);

    memset(e, 0, sizeof(*e));
    e->task = *t;
    if (t->topic.len > 0)
        memcpy(e->topic, t->topic.ptr, t->topic.len);
    e->task.topic.ptr = e->topic;
    if (t->body != NULL)
        body_ref(t->body);
    worker_hold(t->worker);
    return e;
}

/* ---- Long matches ---- */

static void match_in_pool(uv_work_t *work)
{
    struct errand *e = work->data;
    struct task *t = &e->task;

    e->found = index_match_long(t->f->globs, t->topic, &t->worker->stopping, &t->globs);
}

static void on_matched(uv_work_t *work, int status);

/* One at a time, so that they leave the pool to others. */
static void start_long_match(struct worker *w)
{
    struct list *first = list_first(&w->long_errands);

    if (w->matching_errand || first == NULL)
        return;
    list_remove(first);
    w->matching_errand = true;
    uv_queue_work(&w->loop, &list_entry(first, struct errand, node)->work, match_in_pool,
                  on_matched);
}

static void on_matched(uv_work_t *work, int status)
{
    struct errand *e = work->data;
    struct worker *w = e->task.worker;

    (void)status; /* never cancelled */
    w->matching_errand = false;
    start_long_match(w);
    if (e->found) {
        errand_carry_out(e);
        return;
    }
    e->count = e->task.kind == ERRAND_MATCH; /* the worker stops: no reason to unsubscribe a peer */
    errand_finish(e);
}

static void carry_out_later(const struct task *t)
{
    struct errand *e = errand_create(t);

    e->work.data = e;
    list_push_back(&t->worker->long_errands, &e->node);
    start_long_match(t->worker);
}

/* ---- What others ask for ---- */

static void carry_out(struct task *t)
{
    struct forwarding *f = t->f;
    bool any_globs = atomic_load(&f->wanted[STORE_GLOB]) > 0;
    uint32_t count = 0;

    if (!any_globs && atomic_load(&f->wanted[STORE_EXACT]) == 0) {
        t->done(t->arg, 0);
    } else if (any_globs && !index_match(f->globs, t->topic, MATCH_STEPS, &t->globs)) {
        carry_out_later(t);
    } else if (t->worker->b->worker_count == 1) {
        count = do_alone(t);
        task_fini(t);
        t->done(t->arg, count);
    } else {
        errand_carry_out(errand_create(t));
    }
}

void forwarding_deliver(struct forwarding *f, struct worker *w, struct lonely_span topic,
                        struct body *body, forwarding_count_fn *done, void *arg)
{
    carry_out(&(struct task){ .f = f,
                              .worker = w,
                              .kind = ERRAND_DELIVER,
                              .topic = topic,
                              .body = body,
                              .done = done,
                              .arg = arg });
}

void forwarding_match(struct forwarding *f, struct worker *w, struct lonely_span topic,
                      forwarding_count_fn *done, void *arg)
{
    carry_out(&(struct task){
        .f = f, .worker = w, .kind = ERRAND_MATCH, .topic = topic, .done = done, .arg = arg });
}

void forwarding_missed(struct forwarding *f, struct worker *w, struct lonely_span topic,
                       forwarding_count_fn *done, void *arg)
{
    carry_out(&(struct task){
        .f = f, .worker = w, .kind = ERRAND_MISSED, .topic = topic, .done = done, .arg = arg });
}
