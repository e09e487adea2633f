/*
 * Looks at the change log and the used macs on a loop's own connection, without a thread in between.
 * All who ask in one turn of the loop, or while a look is under way, share the next one: one round
 * trip. What a look cannot do (too much news, a gap, a connection that broke) the feeder does.
 *
 * NOTIFY makes a look that nobody waits for, so that the next one finds less to do. It is trusted no
 * further than that.
 */
#include "clock.h"
#include "mem.h"
#include "postgres_store.h"

#define EXPIRE_MS 100 /* between two looks whether the server has answered */
#define WAKE_MS   10  /* news of so long share a look */

static void look_begin(struct postgres_look *l);

static uint64_t now_ms(void)
{
    return clock_mono_ms(&clock_system);
}

/* --- the ends of a look --------------------------------------------------------------------- */

/* The feeder may do better, unless it knows better. */
static void forward(struct postgres_look *l, struct list *requests)
{
    struct list *node;

    while ((node = list_pop_front(requests)) != NULL) {
        struct store_request *r = list_entry(node, struct store_request, node);

        if (l->closing || atomic_load(&l->feed->conn.down) || !store_queue_push(&l->feed->queue, r))
            store_request_answer(r, STORE_UNAVAILABLE);
    }
}

static void on_poll_closed(uv_handle_t *handle)
{
    mem_free(handle);
}

static void drop(struct postgres_look *l)
{
    if (l->pg == NULL)
        return;
    uv_close((uv_handle_t *)l->poll, on_poll_closed);
    PQfinish(l->pg);
    l->poll = NULL;
    l->pg = NULL;
    l->under_way = false;
    l->woken = false;
}

static void broken(struct postgres_look *l)
{
    drop(l);
    postgres_slot_want(l->feed, l->slot);
    forward(l, &l->looking);
    forward(l, &l->asked);
}

/* Nobody need wait for the server until the feeder has seen it again. */
static void silent(struct postgres_look *l)
{
    atomic_store(&l->feed->conn.down, true);
    atomic_store(&l->feed->suspect, true);
    broken(l);
}

static void look_end(struct postgres_look *l)
{
    l->under_way = false;
    if (l->forward)
        forward(l, &l->looking);
    else
        store_requests_answer(&l->looking, STORE_OK);
    if (!list_is_empty(&l->asked))
        look_begin(l);
}

/* --- results -------------------------------------------------------------------------------- */

static void on_news(struct postgres_look *l, const PGresult *result)
{
    struct postgres_feed *f = l->feed;
    enum postgres_news news = postgres_news_of(result, &l->asked_at);

    /* Somebody else may be loading everything: a loop does not wait for that. */
    if (news == NEWS_SOME && uv_mutex_trylock(&f->lock) == 0) {
        news = postgres_news_apply(f, result, &l->asked_at);
        uv_mutex_unlock(&f->lock);
    }
    if (news != NEWS_NONE)
        l->forward = true;
}

static void on_macs(struct postgres_look *l, const PGresult *result)
{
    if (postgres_macs_apply(l->feed, result) != NEWS_NONE)
        l->forward = true;
}

/* Results come in the order of sending: news, macs, the end. false: the connection is of no use. */
static bool on_result(struct postgres_look *l, const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);

    if (status == PGRES_PIPELINE_SYNC) {
        look_end(l);
        return true;
    }
    if (status == PGRES_PIPELINE_ABORTED)
        return true;
    if (status != PGRES_TUPLES_OK) {
        l->forward = true;
        l->doing = 0;
        return postgres_fault_of(result) != POSTGRES_FAULT_CONNECTION;
    }
    if ((l->doing & LOOK_NEWS) != 0) {
        l->doing &= ~LOOK_NEWS;
        on_news(l, result);
    } else {
        on_macs(l, result);
    }
    return true;
}

static bool read_results(struct postgres_look *l)
{
    bool was_end = false;

    while (l->under_way && PQisBusy(l->pg) == 0) {
        PGresult *result = PQgetResult(l->pg);
        bool good = result == NULL ? !was_end : on_result(l, result);

        was_end = result == NULL; /* one after each statement, never two */
        PQclear(result);
        if (!good)
            return false;
    }
    return true;
}

/* --- the socket ----------------------------------------------------------------------------- */

static void on_poll(uv_poll_t *poll, int status, int events);

/* Sends what is queued, and waits for what is missing. */
static bool flush(struct postgres_look *l)
{
    int unsent = PQflush(l->pg);

    return unsent >= 0 &&
           uv_poll_start(l->poll, unsent > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE, on_poll) ==
               0;
}

static void take_notifications(struct postgres_look *l)
{
    PGnotify *notify;

    while ((notify = PQnotifies(l->pg)) != NULL) {
        l->woken = true;
        PQfreemem(notify);
    }
}

static bool consume(struct postgres_look *l)
{
    do {
        if (PQconsumeInput(l->pg) == 0)
            return false;
    } while (postgres_has_more(l->pg));
    return true;
}

static void on_timer(uv_timer_t *timer);

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct postgres_look *l = poll->data;

    if (status < 0 || ((events & UV_READABLE) != 0 && !consume(l)) || !read_results(l) ||
        PQstatus(l->pg) != CONNECTION_OK || !flush(l)) {
        broken(l);
        return;
    }
    if (!l->under_way)
        (void)PQisBusy(l->pg); /* parses: a notification that came alone */
    take_notifications(l);
    if (l->woken && !l->under_way && !uv_is_active((uv_handle_t *)&l->timer))
        uv_timer_start(&l->timer, on_timer, WAKE_MS, EXPIRE_MS);
}

/* --- looks ---------------------------------------------------------------------------------- */

static bool send_look(struct postgres_look *l)
{
    struct postgres_params p = { 0 };

    if ((l->doing & LOOK_NEWS) != 0) {
        l->asked_at = postgres_feed_at(l->feed);
        postgres_news_params(&p, &l->asked_at);
        if (!postgres_send(l->pg, F_NEWS, &p))
            return false;
    }
    if ((l->doing & LOOK_MACS) != 0) {
        p.n = 0;
        postgres_add_number(&p, atomic_load(&l->feed->macs_applied));
        if (!postgres_send(l->pg, F_MACS, &p))
            return false;
    }
    return postgres_sync(l->pg) && flush(l);
}

static void look_begin(struct postgres_look *l)
{
    list_move_all(&l->looking, &l->asked);
    l->doing = l->wants;
    l->wants = 0;
    l->forward = false;
    l->under_way = true;
    l->woken = l->woken && (l->doing & LOOK_NEWS) == 0;
    l->deadline_ms = now_ms() + l->feed->conn.place->timeout_ms;
    if (!uv_is_active((uv_handle_t *)&l->timer))
        uv_timer_start(&l->timer, on_timer, EXPIRE_MS, EXPIRE_MS);
    if (!send_look(l))
        broken(l);
}

static void on_turn(uv_prepare_t *prepare)
{
    struct postgres_look *l = prepare->data;

    uv_prepare_stop(prepare);
    if (l->pg == NULL || atomic_load(&l->feed->conn.down)) /* our connection may not know it yet */
        forward(l, &l->asked);
    else if (!l->under_way && !list_is_empty(&l->asked))
        look_begin(l);
}

static void on_timer(uv_timer_t *timer)
{
    struct postgres_look *l = timer->data;

    if (l->under_way) {
        if (now_ms() >= l->deadline_ms)
            silent(l);
        return;
    }
    if (l->woken && l->pg != NULL) {
        l->wants |= LOOK_NEWS;
        look_begin(l);
        return;
    }
    uv_timer_stop(timer);
}

void postgres_look_ask(struct postgres_look *l, unsigned wants, struct store_request *r)
{
    l->wants |= wants;
    list_push_back(&l->asked, &r->node);
    if (!l->under_way)
        uv_prepare_start(&l->turn, on_turn);
}

/* --- life ----------------------------------------------------------------------------------- */

static void on_arrived(uv_async_t *async)
{
    struct postgres_look *l = async->data;
    PGconn *pg = l->closing ? NULL : postgres_slot_take(l->feed, l->slot);

    if (pg == NULL)
        return;
    l->poll = mem_calloc(1, sizeof *l->poll);
    l->poll->data = l;
    if (uv_poll_init(l->loop, l->poll, PQsocket(pg)) != 0) {
        mem_free(l->poll);
        l->poll = NULL;
        PQfinish(pg);
        return;
    }
    l->pg = pg;
    uv_unref((uv_handle_t *)l->poll);
    if (!flush(l))
        broken(l);
}

void postgres_look_open(struct postgres_look *l, struct postgres_feed *f, uv_loop_t *loop)
{
    *l = (struct postgres_look){ .feed = f, .loop = loop, .open_handles = 3 };
    list_init(&l->asked);
    list_init(&l->looking);
    (void)uv_async_init(loop, &l->arrived, on_arrived);
    uv_prepare_init(loop, &l->turn);
    uv_timer_init(loop, &l->timer);
    l->arrived.data = l->turn.data = l->timer.data = l;
    l->slot = postgres_slot_open(f, &l->arrived);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct postgres_look *l = handle->data;

    if (--l->open_handles == 0)
        l->on_closed(l->arg);
}

void postgres_look_close(struct postgres_look *l, void (*on_closed)(void *arg), void *arg)
{
    l->closing = true;
    l->on_closed = on_closed;
    l->arg = arg;
    postgres_slot_close(l->feed, l->slot);
    drop(l);
    forward(l, &l->looking);
    forward(l, &l->asked);
    uv_close((uv_handle_t *)&l->arrived, on_handle_closed);
    uv_close((uv_handle_t *)&l->turn, on_handle_closed);
    uv_close((uv_handle_t *)&l->timer, on_handle_closed);
}
