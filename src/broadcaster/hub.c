/*
 * One notify: bring the index up to date, match, deliver to each, count. Called by route_notify.c; the
 * posts are delivery.c's, the rows the store's.
 */
#include <stdlib.h>
#include <string.h>

#include "delivery.h"
#include "forwarding.h"
#include "hub.h"
#include "list.h"
#include "log.h"
#include "mem.h"
#include "missed.h"

/* Steps that a match may take on the loop, about a millisecond; longer ones go on in the pool. */
#define MATCH_STEPS UINT64_C(1000000)

struct notify {
    struct worker *worker;
    struct delivery_message message;
    struct index_matches matches;
    size_t pending; /* deliveries and store calls under way, and one while they are being started */
    uint64_t notified;
    bool unavailable;
    hub_done_fn *done;
    void *arg;
    struct list node; /* in worker.unsynced, a batch, then worker.long_matches */
    uv_work_t work;
    bool matched;
    uint8_t topic[];
};

/* The notifies of one turn of the loop: they share one look at the change log. */
struct batch {
    struct list notifies;
    uint64_t asked_at_ms; /* all that was committed before is seen */
};

static void notify_finish(struct notify *n, enum hub_status status)
{
    uint32_t notified = n->notified > UINT32_MAX ? UINT32_MAX : (uint32_t)n->notified;
    static const enum metrics_notify metric_of[] = {
        [HUB_OK] = METRICS_NOTIFY_OK,
        [HUB_BUSY] = METRICS_NOTIFY_BUSY,
        [HUB_UNAVAILABLE] = METRICS_NOTIFY_UNAVAILABLE,
    };
    hub_done_fn *done = n->done;
    void *arg = n->arg;

    metrics_add(&n->worker->metrics->notifies[metric_of[status]], 1);
    index_matches_release(&n->matches);
    body_unref(n->message.body);
    mem_free(n);
    done(arg, status, notified);
}

static void notify_release(struct notify *n)
{
    if (--n->pending == 0)
        notify_finish(n, n->unavailable ? HUB_UNAVAILABLE : HUB_OK);
}

static void on_stored(void *arg, enum store_status status)
{
    struct notify *n = arg;

    if (status == STORE_UNAVAILABLE)
        n->unavailable = true;
    notify_release(n);
}

static struct store_row row_of(const struct subscription *s)
{
    struct store_row row = {
        .kind = s->kind,
        .url = { (const uint8_t *)s->url->text, s->url->len },
        .key = s->key,
    };

    if (s->recovery != NULL)
        row.recovery = (struct lonely_span){ (const uint8_t *)s->recovery->text, s->recovery->len };
    return row;
}

static void unsubscribe(struct notify *n, const struct subscription *s)
{
    struct store_row row = row_of(s);

    log_info_limited(
        n->worker->b->log, "unsubscribed_by_reply", LOG_URL("url", row.url.ptr, row.url.len),
        LOG_SPAN(s->kind == STORE_GLOB ? "glob" : "topic", row.key.ptr, row.key.len), LOG_END);
    n->worker->b->store_ops->unsubscribe(n->worker->store, &row, on_stored, n);
}

static void on_delivered(void *arg, struct subscription *s, enum delivery_outcome outcome,
                         uint32_t count)
{
    struct notify *n = arg;
    struct store_row row;

    switch (outcome) {
    case DELIVERY_CONFIRMED:
        n->notified += count;
        break;
    case DELIVERY_UNSUBSCRIBE:
        unsubscribe(n, s);
        return;
    case DELIVERY_CANCELLED:
    case DELIVERY_FAILED:
        if (outcome == DELIVERY_CANCELLED) /* not every subscriber was tried: come again */
            n->unavailable = true;
        row = row_of(s);
        if (s->recovery != NULL && missed_schedule(n->worker, &row, n->message.topic, on_stored, n))
            return;
        break;
    }
    notify_release(n);
}

/* Is it the URL of a broadcaster, which hands the message to all its clients by itself? Its path tells,
 * whatever query or fragment follows. */
static bool is_peer(const struct index_url *url)
{
    static const char path[] = "/v1/receive_for_websockets";
    size_t len = sizeof(path) - 1;
    size_t end = strcspn(url->text, "?#");

    return end >= len && memcmp(url->text + end - len, path, len) == 0;
}

/* URLs are interned: equal when their pointers are. */
static int compare_urls(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)(*(struct subscription *const *)a)->url;
    uintptr_t y = (uintptr_t)(*(struct subscription *const *)b)->url;

    return (x > y) - (x < y);
}

/* Leaves one match for each broadcaster (doc/protocol/http.md, Q6). The order of calls is nobody's
 * business; and anybody may subscribe as many such URLs as they like, so this must not be quadratic. */
static void drop_repeated_peers(struct index_matches *matches)
{
    size_t peers = 0, kept = 0;

    for (size_t i = 0; i < matches->count; i++)
        peers += is_peer(matches->items[i]->url);
    if (peers < 2)
        return;
    qsort(matches->items, matches->count, sizeof(struct subscription *), compare_urls);
    for (size_t i = 0; i < matches->count; i++) {
        struct subscription *s = matches->items[i];

        if (kept > 0 && matches->items[kept - 1]->url == s->url && is_peer(s->url))
            subscription_unref(s);
        else
            matches->items[kept++] = s;
    }
    matches->count = kept;
}

/* Our own sessions are given the message as it is, whether our row is there or not. */
static void drop_own(const struct forwarding *f, struct index_matches *matches)
{
    size_t kept = 0;

    for (size_t i = 0; i < matches->count; i++) {
        struct subscription *s = matches->items[i];

        if (forwarding_is_own(f,
                              (struct lonely_span){ (const uint8_t *)s->url->text, s->url->len }))
            subscription_unref(s);
        else
            matches->items[kept++] = s;
    }
    matches->count = kept;
}

static void on_forwarded(void *arg, uint32_t count)
{
    struct notify *n = arg;

    n->notified += count;
    notify_release(n);
}

static void fan_out(struct notify *n)
{
    struct worker *w = n->worker;

    if (w->b->forwarding != NULL)
        drop_own(w->b->forwarding, &n->matches);
    drop_repeated_peers(&n->matches);
    if (!outbox_has_room(w->outbox, n->matches.count)) {
        log_warn_limited(w->b->log, "notify_refused", LOG_STR("reason", "the outbox is full"),
                         LOG_U64("queued", outbox_queued(w->outbox)), LOG_END);
        notify_finish(n, HUB_BUSY);
        return;
    }
    if (n->matches.count > 0) {
        strcpy(n->message.repr_digest, "Repr-Digest: ");
        lonely_repr_digest_write(body_sha512(n->message.body),
                                 n->message.repr_digest + strlen(n->message.repr_digest));
    }
    n->pending = n->matches.count + 1;
    for (size_t i = 0; i < n->matches.count; i++)
        delivery_start(w, &n->message, n->matches.items[i], on_delivered, n);
    if (w->b->forwarding != NULL)
        forwarding_deliver(w->b->forwarding, w, n->message.topic, n->message.body, on_forwarded, n);
    else
        notify_release(n);
}

static void match_in_pool(uv_work_t *work)
{
    struct notify *n = work->data;

    n->matched =
        index_match_long(n->worker->b->index, n->message.topic, &n->worker->stopping, &n->matches);
}

static void on_matched(uv_work_t *work, int status);

/* Long matches of a worker run one after another, so that they leave the pool to others. */
static void start_long_match(struct worker *w)
{
    struct list *first = list_first(&w->long_matches);

    if (w->matching || first == NULL)
        return;
    list_remove(first);
    w->matching = true;
    uv_queue_work(&w->loop, &list_entry(first, struct notify, node)->work, match_in_pool,
                  on_matched);
}

static void on_matched(uv_work_t *work, int status)
{
    struct notify *n = work->data;
    struct worker *w = n->worker;

    (void)status; /* never cancelled */
    w->matching = false;
    start_long_match(w);
    if (n->matched)
        fan_out(n);
    else
        notify_finish(n, HUB_UNAVAILABLE);
}

static void match(struct notify *n)
{
    struct worker *w = n->worker;

    if (index_match(w->b->index, n->message.topic, MATCH_STEPS, &n->matches)) {
        fan_out(n);
        return;
    }
    n->work.data = n;
    list_push_back(&w->long_matches, &n->node);
    start_long_match(w);
}

static void on_synced(void *arg, enum store_status status)
{
    struct batch *batch = arg;
    struct list *node;

    if (status == STORE_OK && !list_is_empty(&batch->notifies)) {
        struct worker *w = list_entry(list_first(&batch->notifies), struct notify, node)->worker;

        if (batch->asked_at_ms > w->synced_at_ms)
            w->synced_at_ms = batch->asked_at_ms;
    }
    while ((node = list_pop_front(&batch->notifies)) != NULL) {
        struct notify *n = list_entry(node, struct notify, node);

        if (status == STORE_OK)
            match(n);
        else
            notify_finish(n, HUB_UNAVAILABLE);
    }
    mem_free(batch);
}

/* May the index be taken as it is? (database.index_max_staleness) */
static bool is_fresh(const struct worker *w, uint64_t now_ms)
{
    return w->synced_at_ms > 0 &&
           now_ms - w->synced_at_ms < w->b->conf->database.index_max_staleness_ms;
}

/* After all of the turn's input has been read, so that what they began after is seen. */
void hub_turn_end(struct worker *w)
{
    struct batch *batch;
    enum store_status status = STORE_OK;
    uint64_t now_ms = clock_mono_ms(w->b->clock);

    batch = mem_alloc(sizeof(*batch));
    list_init(&batch->notifies);
    list_move_all(&batch->notifies, &w->unsynced);
    batch->asked_at_ms = is_fresh(w, now_ms) ? 0 : now_ms;
    if (batch->asked_at_ms != 0)
        status = w->b->store_ops->sync(w->store, on_synced, batch);
    if (status != STORE_PENDING)
        on_synced(batch, status);
}

void hub_notify(struct worker *w, struct lonely_span topic, struct body *body, hub_done_fn *done,
                void *arg)
{
    struct notify *n = mem_alloc(sizeof(*n) + topic.len);

    memset(n, 0, sizeof(*n));
    n->worker = w;
    n->done = done;
    n->arg = arg;
    if (topic.len > 0)
        memcpy(n->topic, topic.ptr, topic.len);
    n->message.topic = (struct lonely_span){ n->topic, topic.len };
    n->message.body = body;
    body_ref(body);
    worker_at_turn_end(w, &n->node);
}
