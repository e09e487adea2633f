/*
 * The rows of forwarding.h: who wants what, and one store call after another until the store says the
 * same. Called by the sessions (add, remove), by the sweep of missed.c and by worker.c (end).
 */
#include "forwarding_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "mem.h"

/* Rows that one sweep corrects; the next one goes on. */
#define SWEEP_ROWS 10000

/* A session that is to be told, on its own worker. In a list of its row, later in a mailbox. */
struct waiter {
    struct letter letter; /* first */
    struct worker *worker;
    store_done_fn *done;
    void *arg;
    enum store_status status;
};

/* A store call for a row. */
enum action { ACTION_NONE, ACTION_INSERT, ACTION_DELETE };
struct call {
    struct forwarding *f;
    struct worker *worker;
    struct forwarding_row *row;
    enum action action;
};

/* ---- Rows ---- */

struct forwarding_row *forwarding_row_find(const struct forwarding *f, enum store_kind kind,
                                           struct lonely_span key)
{
    struct map_node *node = map_find(&f->rows[kind], key.ptr, key.len);

    return node != NULL ? map_entry(node, struct forwarding_row, node) : NULL;
}

struct forwarding_row *forwarding_row_create(struct forwarding *f, enum store_kind kind,
                                             struct lonely_span key)
{
    struct forwarding_row *row = mem_alloc(sizeof(*row) + key.len);
    uint8_t *text = (uint8_t *)(row + 1);

    memset(row, 0, sizeof(*row));
    if (key.len > 0)
        memcpy(text, key.ptr, key.len);
    row->kind = kind;
    row->key = (struct lonely_span){ text, key.len };
    list_init(&row->suspect);
    list_init(&row->waiting);
    list_init(&row->leaving);
    map_insert(&f->rows[kind], &row->node, text, key.len);
    return row;
}

void forwarding_row_suspect(struct forwarding *f, struct forwarding_row *row)
{
    list_remove(&row->suspect);
    list_push_back(&f->suspects, &row->suspect);
}

static void row_free(struct forwarding *f, struct forwarding_row *row)
{
    list_remove(&row->suspect);
    map_remove(&f->rows[row->kind], &row->node);
    mem_free(row);
}

static struct store_row store_row_of(const struct forwarding *f, const struct forwarding_row *row)
{
    struct store_row out = {
        .kind = row->kind,
        .url = { (const uint8_t *)f->url, f->url_len },
        .key = row->key,
    };

    if (f->missed_url != NULL)
        out.recovery =
            (struct lonely_span){ (const uint8_t *)f->missed_url, strlen(f->missed_url) };
    return out;
}

/* Keeps what is matched against in step with who wants it. */
static void row_count(struct forwarding *f, struct forwarding_row *row)
{
    const struct store_row glob = store_row_of(f, row);
    const struct store_feed *feed = &f->globs_feed;
    bool wanted = row->holders > 0 || !list_is_empty(&row->waiting);

    if (wanted == row->wanted)
        return;
    row->wanted = wanted;
    if (row->kind == STORE_GLOB) {
        feed->change_begin(feed->arg);
        (wanted ? feed->add : feed->remove)(feed->arg, &glob);
        feed->change_end(feed->arg);
    }
    if (wanted)
        atomic_fetch_add(&f->wanted[row->kind], 1);
    else
        atomic_fetch_sub(&f->wanted[row->kind], 1);
}

/* What is to be done about the row; the caller does it once the lock is released (call_start). A row that
 * is of no use any more is freed. */
static enum action row_settle(struct forwarding *f, struct forwarding_row *row)
{
    if (row->busy || f->ended)
        return ACTION_NONE;
    if (row->wanted == row->stored) {
        if (!row->wanted)
            row_free(f, row);
        return ACTION_NONE;
    }
    row->busy = true;
    f->calls++;
    return row->wanted ? ACTION_INSERT : ACTION_DELETE;
}

/* ---- Those who wait ---- */

static void waiter_add(struct list *list, struct worker *w, store_done_fn *done, void *arg)
{
    struct waiter *waiter = mem_calloc(1, sizeof(*waiter));

    waiter->worker = w;
    waiter->done = done;
    waiter->arg = arg;
    worker_hold(w);
    list_push_back(list, &waiter->letter.node);
}

static void waiter_tell(struct letter *letter)
{
    struct waiter *waiter = (struct waiter *)letter;
    struct worker *w = waiter->worker;

    waiter->done(waiter->arg, waiter->status);
    mem_free(waiter);
    worker_release(w);
}

/* Moves them to `told`. How many there were. */
static size_t waiters_take(struct list *list, enum store_status status, struct list *told)
{
    size_t n = 0;

    list_foreach (list, node, next) {
        list_entry(node, struct waiter, letter.node)->status = status;
        n++;
    }
    list_move_all(told, list);
    return n;
}

/* Without the lock. Each worker is held until it has been told, so its mailbox is open. */
static void waiters_tell(struct worker *w, struct list *told)
{
    struct list *node;

    while ((node = list_pop_front(told)) != NULL) {
        struct waiter *waiter = list_entry(node, struct waiter, letter.node);

        waiter->letter.open = waiter_tell;
        if (waiter->worker == w)
            waiter_tell(&waiter->letter);
        else
            mailbox_post(&waiter->worker->mailbox, &waiter->letter);
    }
}

/* ---- Calls to the store ---- */

static void call_start(struct forwarding *f, struct worker *w, struct forwarding_row *row,
                       enum action action);
static void end_rows(struct forwarding *f);

static void on_end_letter(struct letter *letter)
{
    struct forwarding *f = list_entry(&letter->node, struct forwarding, end_letter.node);
    struct worker *w = f->end_worker;

    end_rows(f);
    worker_release(w);
}

static void on_inserted(struct forwarding *f, struct forwarding_row *row, bool ok,
                        struct list *told)
{
    enum store_status status = ok && !f->ended ? STORE_OK : STORE_UNAVAILABLE;
    size_t n = waiters_take(&row->waiting, status, told);

    row->stored = ok;
    if (status == STORE_OK)
        row->holders += n;
    if (!ok || row->holders > 0 || f->ended) /* else it is about to be deleted */
        waiters_take(&row->leaving, STORE_OK, told);
}

static void on_deleted(struct forwarding *f, struct forwarding_row *row, bool ok, struct list *told)
{
    /* Who came meanwhile wants it stored, whether it is still there or not. */
    row->stored = !ok && !row->wanted;
    if (f->ended) /* nothing more will be */
        waiters_take(&row->waiting, STORE_UNAVAILABLE, told);
    waiters_take(&row->leaving, row->stored ? STORE_UNAVAILABLE : STORE_OK, told);
}

static void on_stored(void *arg, enum store_status status)
{
    struct call *call = arg;
    struct forwarding *f = call->f;
    struct worker *w = call->worker;
    struct forwarding_row *row = call->row;
    bool ok = status != STORE_UNAVAILABLE;
    enum action action = ACTION_NONE;
    struct list told;
    bool last;

    list_init(&told);
    uv_mutex_lock(&f->lock);
    row->busy = false;
    f->calls--;
    if (call->action == ACTION_INSERT)
        on_inserted(f, row, ok, &told);
    else
        on_deleted(f, row, ok, &told);
    row_count(f, row);
    if (!ok && (row->holders > 0 || row->stored)) /* not at once again */
        forwarding_row_suspect(f, row);
    else
        action = row_settle(f, row);
    last = f->ended && f->calls == 0;
    uv_mutex_unlock(&f->lock);

    mem_free(call);
    if (action != ACTION_NONE)
        call_start(f, w, row, action);
    waiters_tell(w, &told);
    if (last)
        mailbox_post(&f->end_worker->mailbox, &f->end_letter);
    worker_release(w);
}

/* Without the lock; the row is busy, so it stays. */
static void call_start(struct forwarding *f, struct worker *w, struct forwarding_row *row,
                       enum action action)
{
    const struct store_ops *store = w->b->store_ops;
    const struct store_row stored = store_row_of(f, row);
    struct call *call = mem_alloc(sizeof(*call));

    *call = (struct call){ f, w, row, action };
    worker_hold(w);
    if (action == ACTION_INSERT)
        store->subscribe(w->store, &stored, on_stored, call);
    else
        store->unsubscribe(w->store, &stored, on_stored, call);
}

/* ---- Sessions come and go ---- */

void forwarding_add(struct forwarding *f, struct worker *w, enum store_kind kind,
                    struct lonely_span key, store_done_fn *done, void *arg)
{
    enum store_status status = STORE_PENDING;
    enum action action = ACTION_NONE;
    struct forwarding_row *row = NULL;

    uv_mutex_lock(&f->lock);
    if (f->ended) {
        status = STORE_UNAVAILABLE;
    } else {
        row = forwarding_row_find(f, kind, key);
        if (row == NULL)
            row = forwarding_row_create(f, kind, key);
        if (row->stored && !row->busy) {
            status = STORE_OK;
            row->holders++;
        } else {
            waiter_add(&row->waiting, w, done, arg);
        }
        row_count(f, row);
        action = row_settle(f, row);
    }
    uv_mutex_unlock(&f->lock);

    if (action != ACTION_NONE)
        call_start(f, w, row, action);
    if (status != STORE_PENDING)
        done(arg, status);
}

void forwarding_remove(struct forwarding *f, struct worker *w, enum store_kind kind,
                       struct lonely_span key, store_done_fn *done, void *arg)
{
    enum store_status status = STORE_OK;
    enum action action = ACTION_NONE;
    struct forwarding_row *row;

    uv_mutex_lock(&f->lock);
    row = forwarding_row_find(f, kind, key);
    assert(row != NULL && row->holders > 0); /* it was added */
    row->holders--;
    row_count(f, row);
    if (!row->wanted && !f->ended && (row->stored || row->busy)) {
        status = STORE_PENDING;
        if (done != NULL)
            waiter_add(&row->leaving, w, done, arg);
    }
    action = row_settle(f, row);
    uv_mutex_unlock(&f->lock);

    if (action != ACTION_NONE)
        call_start(f, w, row, action);
    if (status != STORE_PENDING && done != NULL)
        done(arg, status);
}

/* ---- The sweep ---- */

struct sweep {
    struct forwarding *f;
    struct worker *worker;
};

/* The feed is up to date. */
static void on_synced(void *arg, enum store_status status)
{
    struct sweep *sweep = arg;
    struct forwarding *f = sweep->f;
    size_t n = status == STORE_OK ? SWEEP_ROWS : 0;
    struct list *node = NULL;

    for (; n > 0; n--) {
        struct forwarding_row *row;
        enum action action;

        uv_mutex_lock(&f->lock);
        node = list_pop_front(&f->suspects);
        if (node == NULL) {
            uv_mutex_unlock(&f->lock);
            break;
        }
        row = list_entry(node, struct forwarding_row, suspect);
        if (!row->busy)
            row->stored = row->seen;
        action = row_settle(f, row);
        uv_mutex_unlock(&f->lock);
        if (action != ACTION_NONE)
            call_start(f, sweep->worker, row, action);
    }
    worker_release(sweep->worker);
    mem_free(sweep);
}

void forwarding_sweep(struct forwarding *f, struct worker *w)
{
    struct sweep *sweep;
    enum store_status status;
    bool any;

    uv_mutex_lock(&f->lock);
    any = !f->ended;
    uv_mutex_unlock(&f->lock);
    if (!any)
        return;
    sweep = mem_alloc(sizeof(*sweep));
    *sweep = (struct sweep){ f, w };
    worker_hold(w);
    status = w->b->store_ops->sync(w->store, on_synced, sweep);
    if (status != STORE_PENDING)
        on_synced(sweep, status);
}

/* ---- The end ---- */

static int list_nothing(void *arg, struct store_row *row)
{
    (void)arg;
    (void)row;
    return 0;
}

static const struct store_list nothing = { .next = list_nothing };

static void on_rows_ended(void *arg, enum store_status status)
{
    struct forwarding *f = arg;

    if (status != STORE_OK)
        log_warn(f->end_worker->b->log, "own_rows_stay", LOG_STR("url", f->url),
                 LOG_STR("store", store_status_str(status)), LOG_END);
    f->end_done(f->end_arg);
}

static bool has_rows(struct forwarding *f)
{
    bool has;

    uv_mutex_lock(&f->lock);
    has = f->rows[STORE_EXACT].count + f->rows[STORE_GLOB].count > 0;
    uv_mutex_unlock(&f->lock);
    return has;
}

/* All at once; also what a crash left behind. A store that cannot answer keeps nobody waiting for nothing. */
static void end_rows(struct forwarding *f)
{
    struct worker *w = f->end_worker;
    const struct lonely_span url = { (const uint8_t *)f->url, f->url_len };

    if (!has_rows(f))
        on_rows_ended(f, STORE_OK);
    else if (w->state >= WORKER_STOPPING)
        on_rows_ended(f, STORE_UNAVAILABLE);
    else
        w->b->store_ops->set(w->store, url, &nothing, on_rows_ended, f);
}

void forwarding_end(struct forwarding *f, struct worker *w, void (*done)(void *arg), void *arg)
{
    bool idle;

    f->end_worker = w;
    f->end_done = done;
    f->end_arg = arg;
    f->end_letter.open = on_end_letter;
    uv_mutex_lock(&f->lock);
    f->ended = true;
    idle = f->calls == 0;
    if (!idle)
        worker_hold(w); /* for the letter of the last call */
    uv_mutex_unlock(&f->lock);
    if (idle)
        end_rows(f);
}

/* ---- Life ---- */

struct forwarding *forwarding_create(const char *url, const char *missed_url)
{
    struct forwarding *f = mem_calloc(1, sizeof(*f));

    f->url = mem_strdup(url);
    f->url_len = strlen(url);
    f->missed_url = missed_url != NULL ? mem_strdup(missed_url) : NULL;
    if (uv_mutex_init(&f->lock) != 0)
        abort(); /* fails for want of memory only, as in mem_alloc */
    map_init(&f->rows[STORE_EXACT]);
    map_init(&f->rows[STORE_GLOB]);
    list_init(&f->suspects);
    atomic_init(&f->wanted[STORE_EXACT], 0);
    atomic_init(&f->wanted[STORE_GLOB], 0);
    f->globs = index_create();
    f->globs_feed = index_feed(f->globs);
    return f;
}

void forwarding_destroy(struct forwarding *f)
{
    if (f == NULL)
        return;
    for (size_t kind = 0; kind < 2; kind++) {
        for (struct map_node *n = map_first(&f->rows[kind]), *next; n != NULL; n = next) {
            next = map_next(&f->rows[kind], n);
            mem_free(map_entry(n, struct forwarding_row, node));
        }
        map_fini(&f->rows[kind]);
    }
    index_destroy(f->globs);
    uv_mutex_destroy(&f->lock);
    mem_free(f->missed_url);
    mem_free(f->url);
    mem_free(f);
}

bool forwarding_is_own(const struct forwarding *f, struct lonely_span url)
{
    return url.len == f->url_len && memcmp(url.ptr, f->url, url.len) == 0;
}

const char *forwarding_url(const struct forwarding *f)
{
    return f->url;
}

const char *forwarding_missed_url(const struct forwarding *f)
{
    return f->missed_url;
}
