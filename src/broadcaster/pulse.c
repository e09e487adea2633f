/*
 * Signs of life of a worker (pulse.h). Kept by worker.c, read by admin.c.
 */
#include "pulse.h"

#include "missed.h"
#include "session.h"
#include "worker.h"

#define BEAT_MS 1000

static void beat(struct pulse *p)
{
    atomic_store_explicit(&p->beat_ms, clock_mono_ms(p->worker->b->clock), memory_order_relaxed);
}

static void on_timer(uv_timer_t *timer)
{
    beat(timer->data);
}

static uint32_t connections(const struct worker *w)
{
    uint32_t tcp = w->sessions == NULL ? 0 : sessions_tcp_connections(w->sessions);

    return http_server_connections(w->http) + tcp;
}

/* Runs when all that was to be done has been done: what is seen then stays true until the next event. */
static void on_prepare(uv_prepare_t *prepare)
{
    const struct pulse *p = prepare->data;
    const struct worker *w = p->worker;
    struct metrics *m = w->metrics;
    bool stopping = w->state >= WORKER_STOPPING; /* then server and sweeper may be gone */

    metrics_set(&m->connections, stopping ? 0 : connections(w));
    metrics_set(&m->outbox_running, outbox_running(w->outbox));
    metrics_set(&m->outbox_queued, outbox_queued(w->outbox));
    metrics_set(&m->missed_running,
                stopping || w->sweeper == NULL ? 0 : missed_sweeper_calls(w->sweeper));
}

void pulse_init(struct pulse *p, struct worker *w)
{
    p->worker = w;
    uv_prepare_init(&w->loop, &p->prepare);
    uv_timer_init(&w->loop, &p->timer);
    p->prepare.data = p->timer.data = p;
    uv_prepare_start(&p->prepare, on_prepare);
    uv_timer_start(&p->timer, on_timer, BEAT_MS, BEAT_MS);
    uv_unref((uv_handle_t *)&p->prepare);
    uv_unref((uv_handle_t *)&p->timer);
    beat(p);
}

void pulse_close(struct pulse *p)
{
    atomic_store_explicit(&p->beat_ms, UINT64_MAX, memory_order_relaxed);
    uv_close((uv_handle_t *)&p->prepare, NULL);
    uv_close((uv_handle_t *)&p->timer, NULL);
}

uint64_t pulse_lag_ms(const struct pulse *p, uint64_t now_ms)
{
    uint64_t at = atomic_load_explicit(&p->beat_ms, memory_order_relaxed);

    return at < now_ms ? now_ms - at : 0;
}
