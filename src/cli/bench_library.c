/*
 * A run of `lonelypsc bench` through liblonelypsc, over any of its transports: a client for each publisher and
 * each subscriber, each with its own thread. Called by bench.c.
 */
#include "bench.h"

#include <lonely/client.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "mem.h"

#define GRACE_MS 10000 /* for what is under way at the end, without a sign of life */
#define OPEN_MS  60000

struct library;

/* A publisher or a subscriber. The numbers are its client's thread's until it is closed. */
struct member {
    struct library *run;
    struct lonely_client *client;
    uint64_t id;        /* of the direct subscription */
    uint64_t delivered; /* under the lock */
    struct bench_latency latency;
};

struct library {
    const struct bench_settings *set;
    struct bench_results *results;
    struct member *members;
    size_t count;
    uint64_t began_ns;
    uint8_t *payload;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t moved; /* a message was confirmed or delivered */
    uint64_t confirmed, failed, notified, delivered, delivered_bytes;
    enum lonely_client_error error; /* the first */
    bool waits;
};

static void fail(struct library *r, const char *what, enum lonely_client_error err,
                 const struct lonely_client_why *why)
{
    if (r->results->error[0] != '\0')
        return;
    r->results->unreachable = err == LONELY_CLIENT_UNREACHABLE;
    snprintf(r->results->error, sizeof(r->results->error), "%s: %s", what,
             why != NULL && why->text[0] != '\0' ? why->text : lonely_client_error_str(err));
}

static struct lonely_span topic_of(const struct library *r)
{
    return (struct lonely_span){ (const uint8_t *)r->set->topic, strlen(r->set->topic) };
}

/* ---- On the clients' threads ---- */

/* As in bench_load.c. Under the lock. */
static uint64_t under_way(const struct library *r)
{
    uint64_t done = r->confirmed + r->failed;

    for (size_t i = r->set->publishers; i < r->count; i++) {
        if (r->members[i].delivered < done)
            done = r->members[i].delivered;
    }
    return r->results->published - done;
}

/* May a whole write of messages begin? Under the lock. */
static bool has_room(const struct library *r)
{
    uint64_t batch = r->set->batch < r->set->window ? r->set->batch : r->set->window;

    return r->set->publishers > 0 && under_way(r) + batch <= r->set->window;
}

static void wake(struct library *r)
{
    if (r->waits && has_room(r))
        pthread_cond_signal(&r->moved);
}

static void on_delivery(void *arg, struct lonely_delivery *d)
{
    struct member *m = arg;
    struct library *r = m->run;
    struct lonely_span bytes = lonely_delivery_span(d);
    uint64_t sent_ns, now_ns = bench_now_ns();

    if (bytes.len >= sizeof(sent_ns)) {
        memcpy(&sent_ns, bytes.ptr, sizeof(sent_ns));
        if (sent_ns < now_ns && sent_ns >= r->began_ns)
            bench_latency_add(&m->latency, now_ns - sent_ns);
    }
    pthread_mutex_lock(&r->lock);
    m->delivered++;
    r->delivered++;
    r->delivered_bytes += lonely_delivery_size(d);
    wake(r);
    pthread_mutex_unlock(&r->lock);
}

static void on_notified(void *arg, enum lonely_client_error err, uint64_t notified)
{
    struct library *r = arg;

    pthread_mutex_lock(&r->lock);
    r->notified += notified;
    if (err == LONELY_CLIENT_OK)
        r->confirmed++;
    else
        r->failed++;
    if (err != LONELY_CLIENT_OK && r->error == LONELY_CLIENT_OK)
        r->error = err;
    wake(r);
    pthread_mutex_unlock(&r->lock);
}

/* ---- Opening ---- */

static bool open_client(struct library *r, struct member *m)
{
    struct lonely_client_why why;
    enum lonely_client_error err;

    m->run = r;
    err = lonely_client_open(r->set->options, &m->client, &why);
    if (err != LONELY_CLIENT_OK)
        fail(r, "cannot open a client", err, &why);
    return err == LONELY_CLIENT_OK;
}

static bool open_subscriber(struct library *r, struct member *m)
{
    enum lonely_client_error err;
    uint64_t id;

    if (!open_client(r, m))
        return false;
    err = lonely_client_on_message(m->client, on_delivery, m, &id);
    if (err == LONELY_CLIENT_OK)
        err = lonely_client_direct_subscribe_exact(m->client, topic_of(r), OPEN_MS, &m->id);
    if (err != LONELY_CLIENT_OK)
        fail(r, "cannot subscribe", err, NULL);
    return err == LONELY_CLIENT_OK;
}

static bool open_publisher(struct library *r, struct member *m)
{
    enum lonely_client_error err = LONELY_CLIENT_OK;

    if (!open_client(r, m))
        return false;
    if (!r->set->receives_posts)
        err = lonely_client_wait_connected(m->client, OPEN_MS);
    if (err != LONELY_CLIENT_OK)
        fail(r, "cannot connect", err, NULL);
    return err == LONELY_CLIENT_OK;
}

static bool open_all(struct library *r)
{
    uint64_t began_ns = bench_now_ns();

    for (size_t i = 0; i < r->count; i++) {
        struct member *m = &r->members[i];

        if (!(i < r->set->publishers ? open_publisher(r, m) : open_subscriber(r, m)))
            return false;
    }
    r->results->open_s = (double)(bench_now_ns() - began_ns) / 1e9;
    return true;
}

/* ---- Publishing ---- */

static bool publish(struct library *r, size_t publisher)
{
    struct lonely_notify n;
    uint64_t now_ns = bench_now_ns();
    enum lonely_client_error err;

    if (r->set->size >= sizeof(now_ns))
        memcpy(r->payload, &now_ns, sizeof(now_ns));
    lonely_notify_init(&n);
    n.topic = topic_of(r);
    n.bytes = (struct lonely_span){ r->payload, (size_t)r->set->size };
    err = lonely_client_notify_start(r->members[publisher].client, &n, on_notified, r);
    if (err != LONELY_CLIENT_OK)
        fail(r, "cannot notify", err, NULL);
    r->results->published++;
    return err == LONELY_CLIENT_OK;
}

/* Waits until something is confirmed, or a while. Under the lock. */
static void wait_a_while(struct library *r, long ns)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += ns;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    r->waits = true;
    pthread_cond_timedwait(&r->moved, &r->lock, &until);
    r->waits = false;
}

static bool is_due(const struct library *r, uint64_t now_ns)
{
    return r->set->rate == 0 || (double)r->results->published <=
                                    (double)(now_ns - r->began_ns) / 1e9 * (double)r->set->rate;
}

/* How many messages may be published now; waits a while when none may. */
static uint64_t wait_for_room(struct library *r)
{
    const struct bench_settings *set = r->set;
    uint64_t room = 0;

    pthread_mutex_lock(&r->lock);
    if (has_room(r) && is_due(r, bench_now_ns()))
        room = set->rate > 0 ? 1 : set->window - under_way(r);
    else
        wait_a_while(r, set->publishers > 0 ? 1000000 : 10000000);
    pthread_mutex_unlock(&r->lock);
    if (set->messages > 0 && set->messages - r->results->published < room)
        room = set->messages - r->results->published;
    return room;
}

static bool is_over(struct library *r, uint64_t stop_ns)
{
    const struct bench_settings *set = r->set;
    bool expected;

    pthread_mutex_lock(&r->lock);
    expected = set->expect > 0 && r->delivered >= set->expect;
    pthread_mutex_unlock(&r->lock);
    return expected || bench_now_ns() >= stop_ns || r->results->error[0] != '\0' ||
           (set->messages > 0 && r->results->published >= set->messages);
}

static void publish_all(struct library *r)
{
    uint64_t stop_ns = r->began_ns + (uint64_t)(r->set->seconds * 1e9), number = 0;

    while (!is_over(r, stop_ns)) {
        for (uint64_t room = wait_for_room(r); room > 0; room--) {
            if (!publish(r, (size_t)(number++ % r->set->publishers)))
                return;
        }
    }
}

/* Until everything has come, or nothing comes any more. */
static void wait_for_rest(struct library *r)
{
    uint64_t last = UINT64_MAX, since_ns = bench_now_ns();

    pthread_mutex_lock(&r->lock);
    while (r->set->publishers > 0 && under_way(r) > 0) {
        if (r->delivered + r->confirmed != last)
            since_ns = bench_now_ns();
        last = r->delivered + r->confirmed;
        if (bench_now_ns() - since_ns > GRACE_MS * UINT64_C(1000000))
            break;
        wait_a_while(r, 1000000);
    }
    pthread_mutex_unlock(&r->lock);
}

static void collect(struct library *r)
{
    struct bench_results *out = r->results;

    pthread_mutex_lock(&r->lock);
    out->confirmed = r->confirmed;
    out->notified = r->notified;
    out->delivered = r->delivered;
    out->delivered_bytes = r->delivered_bytes;
    out->complete =
        r->failed == 0 && r->confirmed == out->published &&
        (r->set->publishers == 0 || r->delivered >= out->published * r->set->subscribers);
    if (r->error != LONELY_CLIENT_OK)
        fail(r, "a notify failed", r->error, NULL);
    pthread_mutex_unlock(&r->lock);
}

static void close_all(struct library *r)
{
    for (size_t i = 0; i < r->count; i++) {
        struct member *m = &r->members[i];

        if (m->client == NULL)
            continue;
        (void)lonely_client_close(m->client);
        bench_latency_merge(&r->results->latency, &m->latency);
    }
}

bool bench_library(const struct bench_settings *set, struct bench_results *out)
{
    struct library r = { .set = set, .results = out };
    double cpu_s;

    r.count = set->publishers + set->subscribers;
    r.members = mem_calloc(r.count + 1, sizeof(*r.members));
    r.payload = mem_calloc(1, (size_t)set->size + 1);
    pthread_mutex_init(&r.lock, NULL);
    pthread_cond_init(&r.moved, NULL);
    if (open_all(&r)) {
        bench_ready(set);
        cpu_s = bench_cpu_s();
        r.began_ns = bench_now_ns();
        publish_all(&r);
        wait_for_rest(&r);
        out->run_s = (double)(bench_now_ns() - r.began_ns) / 1e9;
        out->cpu_s = bench_cpu_s() - cpu_s;
        collect(&r);
    }
    close_all(&r);
    pthread_cond_destroy(&r.moved);
    pthread_mutex_destroy(&r.lock);
    mem_free(r.members);
    mem_free(r.payload);
    return out->error[0] == '\0';
}
