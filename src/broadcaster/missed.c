/*
 * The schedule of MISSED and the sweep that sends what is due. hub.c schedules; the store keeps what is
 * pending and its locks; outbox.c posts.
 */
#include <math.h>
#include <string.h>

#include <lonely/stateless.h>

#include "forwarding.h"
#include "log.h"
#include "mem.h"
#include "missed.h"

/* Calls that may be under way at once. Enough that the items of one dead recovery URL, of which the
 * outbox lets few run, leave room for others. */
#define CALLS_MAX 1024

struct missed_sweeper {
    struct worker *worker;
    uv_timer_t timer;
    size_t calls;  /* under way; a sweep does not wait for them */
    bool sweeping; /* more may be due */
    bool locking;  /* the store is asked for the next item */
    bool closed;
};

/* One MISSED call. The spans of the item point behind the structure. */
struct missed_call {
    struct outbox_post post; /* first: the outbox hands it back */
    struct missed_sweeper *sweeper;
    struct store_missed item;
    double locked_at;
    bool late; /* its turn came when its lock was nearly over */
    const char *headers[2];
    char *authorization; /* the header line; NULL: none */
    size_t body_len;
    uint8_t *body;
    uint8_t bytes[];
};

bool missed_delay(const struct conf *conf, uint32_t attempts, double random, double *delay_s)
{
    double exponent = fmin(conf->missed.expo_max, (double)attempts);

    if (attempts >= conf->missed.max_retries)
        return false;
    *delay_s = conf->missed.expo_factor * pow(conf->missed.expo_base, exponent) +
               conf->missed.constant + random * conf->missed.jitter;
    return true;
}

static double random_unit(struct worker *w)
{
    uint32_t n;

    worker_random(w, (uint8_t *)&n, sizeof(n));
    return (double)n / 4294967296.0;
}

bool missed_schedule(struct worker *w, const struct store_row *row, struct lonely_span topic,
                     store_done_fn *done, void *arg)
{
    double delay;

    if (!missed_delay(w->b->conf, 0, random_unit(w), &delay))
        return false;
    metrics_add(&w->metrics->missed_scheduled, 1);
    w->b->store_ops->missed_upsert(w->store, row, topic, 0, clock_wall_s(w->b->clock) + delay, done,
                                   arg);
    return true;
}

static void lock_next(struct missed_sweeper *s);

static void on_timer_closed(uv_handle_t *handle)
{
    mem_free(handle->data);
}

/* After each step: takes the next item, or closes. */
static void advance(struct missed_sweeper *s)
{
    if (s->sweeping && !s->locking && !s->closed && s->calls < CALLS_MAX &&
        outbox_has_room(s->worker->outbox, 1)) {
        lock_next(s);
        return;
    }
    if (s->closed && !s->locking && s->calls == 0 && !uv_is_closing((uv_handle_t *)&s->timer))
        uv_close((uv_handle_t *)&s->timer, on_timer_closed);
}

static void call_free(struct missed_call *call)
{
    struct missed_sweeper *s = call->sweeper;

    gate_header_free(call->authorization);
    mem_free(call->body);
    mem_free(call);
    s->calls--;
    advance(s);
    worker_release(s->worker);
}

/* The lock was lost, or the store is down: then the lock runs out by itself. Nothing to do in both. */
static void on_item_stored(void *arg, enum store_status status)
{
    (void)status;
    call_free(arg);
}

static bool on_start(struct outbox_post *post, struct http_call_request *request)
{
    struct missed_call *call = (struct missed_call *)post;
    const struct broadcaster *b = call->sweeper->worker->b;
    struct lonely_stateless body = { .topic = call->item.topic };
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_MISSED,
        .recovery = call->item.recovery,
        .topic = call->item.topic,
    };

    call->late =
        clock_wall_s(b->clock) - call->locked_at > (double)b->conf->database.missed_lock_time_s / 2;
    if (call->late)
        return false;
    call->body_len = lonely_stateless_write(LONELY_STATELESS_MISSED, &body, NULL, 0).at;
    call->body = mem_alloc(call->body_len);
    if (lonely_stateless_write(LONELY_STATELESS_MISSED, &body, call->body, call->body_len).err !=
            LONELY_OK ||
        !gate_header(call->sweeper->worker->gate, &in, &call->authorization))
        return false;
    call->headers[0] = "Content-Type: application/octet-stream";
    call->headers[1] = call->authorization;
    request->headers = call->headers;
    request->header_count = call->authorization != NULL ? 2 : 1;
    request->prefix = (struct lonely_span){ call->body, call->body_len };
    metrics_add(&call->sweeper->worker->metrics->missed_sent, 1);
    return true;
}

static void count(const struct missed_call *call, enum metrics_missed outcome)
{
    metrics_add(&call->sweeper->worker->metrics->missed[outcome], 1);
}

static void retry_later(struct missed_call *call)
{
    struct worker *w = call->sweeper->worker;
    const struct store_ops *store = w->b->store_ops;
    uint32_t attempts = call->item.attempts + 1;
    double delay;

    if (missed_delay(w->b->conf, attempts, random_unit(w), &delay)) {
        count(call, METRICS_MISSED_RETRIED);
        store->missed_retry(w->store, &call->item, attempts, clock_wall_s(w->b->clock) + delay,
                            on_item_stored, call);
        return;
    }
    count(call, METRICS_MISSED_GIVEN_UP);
    log_warn_limited(w->b->log, "missed_given_up",
                     LOG_URL("recovery", call->item.recovery.ptr, call->item.recovery.len),
                     LOG_U64("attempts", attempts), LOG_END);
    store->missed_clear(w->store, &call->item, on_item_stored, call);
}

static bool is_reply(enum lonely_stateless_type type, const struct http_reply *reply,
                     struct lonely_stateless *body)
{
    return reply->status == HTTP_CALL_REPLIED &&
           lonely_stateless_parse(type, reply->body, body).err == LONELY_OK;
}

static void on_checked(void *arg, enum lonely_auth_result result)
{
    struct missed_call *call = arg;
    struct worker *w = call->sweeper->worker;

    if (result == LONELY_AUTH_OK) {
        count(call, METRICS_MISSED_CONFIRMED);
        w->b->store_ops->missed_clear(w->store, &call->item, on_item_stored, call);
        return;
    }
    log_warn_limited(w->b->log, "missed_reply_refused",
                     LOG_URL("recovery", call->item.recovery.ptr, call->item.recovery.len),
                     LOG_STR("authorization", lonely_auth_result_str(result)), LOG_END);
    retry_later(call);
}

static void check_confirmation(struct missed_call *call, const struct lonely_stateless *reply)
{
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_CONFIRM_MISSED,
        .tracing = reply->tracing,
        .topic = call->item.topic,
        .url = call->item.recovery,
    };
    struct gate_wait *wait;
    enum lonely_auth_result result =
        gate_check(call->sweeper->worker->gate, &in, lonely_auth_field(&reply->authorization),
                   &wait, on_checked, call);

    if (wait == NULL)
        on_checked(call, result);
}

static void on_done(struct outbox_post *post, const struct http_reply *reply)
{
    struct missed_call *call = (struct missed_call *)post;
    struct worker *w = call->sweeper->worker;
    const struct store_ops *store = w->b->store_ops;
    const struct store_row row = { call->item.kind, call->item.url, call->item.key, { NULL, 0 } };
    struct lonely_stateless body;

    if (reply->status == HTTP_CALL_CANCELLED || call->late) {
        /* Release the lock, count no attempt. */
        count(call, METRICS_MISSED_CANCELLED);
        store->missed_retry(w->store, &call->item, call->item.attempts, clock_wall_s(w->b->clock),
                            on_item_stored, call);
    } else if (is_reply(LONELY_STATELESS_RESPONSE_CONFIRM_MISSED, reply, &body)) {
        check_confirmation(call, &body);
    } else if (is_reply(LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE, reply, &body)) {
        count(call, METRICS_MISSED_UNSUBSCRIBED);
        store->unsubscribe(w->store, &row, on_item_stored, call);
    } else {
        retry_later(call);
    }
}

/* Copies a span to `*at` with a NUL behind it and moves on. */
static struct lonely_span keep(uint8_t **at, struct lonely_span span)
{
    struct lonely_span copy = { *at, span.len };

    if (span.len > 0)
        memcpy(*at, span.ptr, span.len);
    (*at)[span.len] = 0;
    *at += span.len + 1;
    return copy;
}

static void on_sessions_told(void *arg, uint32_t n)
{
    struct missed_call *call = arg;
    struct worker *w = call->sweeper->worker;

    (void)n;
    count(call, METRICS_MISSED_CONFIRMED);
    w->b->store_ops->missed_clear(w->store, &call->item, on_item_stored, call);
}

static void call_start(struct missed_sweeper *s, const struct store_missed *item)
{
    struct forwarding *f = s->worker->b->forwarding;
    static const struct outbox_post_ops ops = { .start = on_start, .done = on_done };
    size_t bytes = item->url.len + item->key.len + item->recovery.len + item->topic.len + 4;
    struct missed_call *call = mem_calloc(1, sizeof(*call) + bytes);
    uint8_t *at = call->bytes;

    call->sweeper = s;
    call->locked_at = clock_wall_s(s->worker->b->clock);
    call->item = *item;
    call->item.url = keep(&at, item->url);
    call->item.key = keep(&at, item->key);
    call->item.recovery = keep(&at, item->recovery);
    call->item.topic = keep(&at, item->topic);
    call->post.ops = &ops;
    call->post.url = (const char *)call->item.recovery.ptr;
    call->post.url_len = call->item.recovery.len;
    s->calls++;
    worker_hold(s->worker);
    if (f != NULL && forwarding_is_own(f, item->url)) /* our own sessions need no post */
        forwarding_missed(f, s->worker, call->item.topic, on_sessions_told, call);
    else
        outbox_add(s->worker->outbox, &call->post);
}

static void on_locked(void *arg, enum store_status status, const struct store_missed *item)
{
    struct missed_sweeper *s = arg;

    s->locking = false;
    if (status == STORE_OK) {
        call_start(s, item);
    } else {
        s->sweeping = false;
        if (!s->closed)
            uv_timer_start(&s->timer, s->timer.timer_cb,
                           s->worker->b->conf->missed.sweep_missed_interval_ms, 0);
    }
    advance(s);
    worker_release(s->worker);
}

static void lock_next(struct missed_sweeper *s)
{
    s->locking = true;
    worker_hold(s->worker);
    s->worker->b->store_ops->missed_lock(s->worker->store, clock_wall_s(s->worker->b->clock),
                                         on_locked, s);
}

static void on_timer(uv_timer_t *timer)
{
    struct missed_sweeper *s = timer->data;

    if (s->worker->b->forwarding != NULL)
        forwarding_sweep(s->worker->b->forwarding, s->worker);
    s->sweeping = true;
    advance(s);
}

struct missed_sweeper *missed_sweeper_create(struct worker *w)
{
    struct missed_sweeper *s = mem_calloc(1, sizeof(*s));

    s->worker = w;
    uv_timer_init(&w->loop, &s->timer);
    s->timer.data = s;
    uv_timer_start(&s->timer, on_timer, w->b->conf->missed.sweep_missed_interval_ms, 0);
    return s;
}

void missed_sweeper_close(struct missed_sweeper *s)
{
    s->closed = true;
    uv_timer_stop(&s->timer);
    advance(s);
}

size_t missed_sweeper_calls(const struct missed_sweeper *s)
{
    return s->calls;
}
