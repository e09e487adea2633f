/*
 * Workers that are nothing but a loop, a mailbox and their sessions, over the memory store: what
 * forwarding.c needs of a broadcaster. For one thread, or with a loop on a thread each. Header only.
 */
#ifndef FORWARDING_FIXTURE_H
#define FORWARDING_FIXTURE_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "forwarding.h"
#include "index.h"
#include "log.h"
#include "mem.h"
#include "receivers.h"
#include "worker.h"

static const char fixture_url[] = "http://192.0.2.9:3003/v1/receive_for_websockets";
static const char fixture_missed_url[] = "http://192.0.2.9:3003/v1/missed_for_websockets";

struct forwarding_fixture {
    struct broadcaster b;
    struct store_ops ops; /* store_memory's, unless the test replaces some */
    struct forwarding *f;
    struct worker *workers;
    struct worker **pointers;
    size_t count;
    struct log log;
    struct bodies *bodies;
    struct body *body;
    char spool[32];
};

struct fixture_session {
    struct receiver r; /* first */
    enum store_kind kind;
    const char *key;
    unsigned messages, missed;
};

/* ---- What forwarding.c needs of worker.c ---- */

void worker_hold(struct worker *w)
{
    w->holds++;
}

void worker_release(struct worker *w)
{
    w->holds--;
}

void worker_random(struct worker *w, uint8_t *to, size_t len)
{
    (void)w;
    memset(to, 7, len);
}

/* ---- Life ---- */

static inline struct lonely_span fixture_text(const char *s)
{
    return (struct lonely_span){ (const uint8_t *)s, strlen(s) };
}

static inline void fixture_worker_init(struct forwarding_fixture *t, struct worker *w)
{
    char error[256];

    w->b = &t->b;
    if (uv_loop_init(&w->loop) != 0 || mailbox_init(&w->mailbox, &w->loop) != 0 ||
        !t->ops.client_open(t->b.store, &w->loop, &w->store, error))
        abort();
    w->receivers = receivers_create();
    list_init(&w->long_errands);
}

static inline struct forwarding_fixture *fixture_create(size_t workers)
{
    struct forwarding_fixture *t = mem_calloc(1, sizeof(*t));
    const struct store_conf conf = { .timeout_ms = 5000, .max_queued = 65536 };
    struct store_feed index, feed;
    char error[256];

    t->ops = store_memory;
    t->b.store_ops = &t->ops;
    t->b.index = index_create();
    t->f = t->b.forwarding = forwarding_create(fixture_url, fixture_missed_url);
    log_init(&t->log, 2, LOG_LEVEL_ERROR, LOG_FORMAT_TEXT, &clock_system);
    t->b.log = &t->log;
    index = index_feed(t->b.index);
    feed = forwarding_feed(t->f, &index);
    strcpy(t->spool, "/tmp/forwarding-XXXXXX");
    if (!t->ops.open(&conf, &feed, &t->b.store, error) || mkdtemp(t->spool) == NULL)
        abort();
    t->bodies = bodies_create(&(struct bodies_conf){ t->spool, 1 << 20, 1 << 20 }, error);
    t->body = body_create(t->bodies, fixture_text("hello"), (const uint8_t[64]){ 0 });
    t->workers = mem_calloc(workers, sizeof(*t->workers));
    t->pointers = mem_calloc(workers, sizeof(*t->pointers));
    t->count = t->b.worker_count = workers;
    t->b.workers = t->pointers;
    for (size_t i = 0; i < workers; i++) {
        fixture_worker_init(t, &t->workers[i]);
        t->pointers[i] = &t->workers[i];
    }
    return t;
}

static inline void fixture_on_closed(void *arg)
{
    (void)arg;
}

static inline void fixture_destroy(struct forwarding_fixture *t)
{
    for (size_t i = 0; i < t->count; i++) {
        struct worker *w = &t->workers[i];

        t->ops.client_close(w->store, fixture_on_closed, NULL);
        if (!w->mailbox.closed)
            mailbox_close(&w->mailbox);
        uv_run(&w->loop, UV_RUN_DEFAULT);
        mailbox_fini(&w->mailbox);
        receivers_destroy(w->receivers);
        if (uv_loop_close(&w->loop) != 0)
            abort();
    }
    t->ops.close(t->b.store);
    forwarding_destroy(t->f);
    index_destroy(t->b.index);
    body_unref(t->body);
    bodies_destroy(t->bodies);
    rmdir(t->spool);
    log_fini(&t->log);
    mem_free(t->workers);
    mem_free(t->pointers);
    mem_free(t);
}

/* ---- On one thread ---- */

/* All loops, until none has anything to do. The store answers in the pool or in the next turn. */
static inline void fixture_turn(struct forwarding_fixture *t)
{
    for (int i = 0; i < 20; i++)
        for (size_t n = 0; n < t->count; n++)
            uv_run(&t->workers[n].loop, UV_RUN_NOWAIT);
}

/* Until `*value` is that. */
static inline void fixture_wait(struct forwarding_fixture *t, const unsigned *value, unsigned is)
{
    while (*(const volatile unsigned *)value != is)
        fixture_turn(t);
}

static inline struct store_row fixture_row(const char *url, enum store_kind kind, const char *key)
{
    return (struct store_row){ .kind = kind, .url = fixture_text(url), .key = fixture_text(key) };
}

static inline void fixture_on_done(void *arg, enum store_status status)
{
    *(unsigned *)arg = status == STORE_OK;
}

/* Somebody else changes the rows. */
static inline void fixture_put_row(struct forwarding_fixture *t, const char *url,
                                   enum store_kind kind, const char *key)
{
    const struct store_row row = fixture_row(url, kind, key);
    unsigned done = 0;

    store_memory.subscribe(t->workers[0].store, &row, fixture_on_done, &done);
    fixture_wait(t, &done, 1);
}

static inline void fixture_drop_row(struct forwarding_fixture *t, const char *url,
                                    enum store_kind kind, const char *key)
{
    const struct store_row row = fixture_row(url, kind, key);
    unsigned done = 0;

    store_memory.unsubscribe(t->workers[0].store, &row, fixture_on_done, &done);
    fixture_wait(t, &done, 1);
}

/* A glob is found by the topic that is spelt like it, less its `*` and `?`. */
static inline bool fixture_has_row(struct forwarding_fixture *t, const char *url,
                                   enum store_kind kind, const char *key)
{
    struct index_matches matches;
    bool found = false;

    index_match(t->b.index, fixture_text(key), 1000000, &matches);
    for (size_t i = 0; i < matches.count; i++) {
        const struct subscription *s = matches.items[i];

        found |= s->kind == kind && strcmp(s->url->text, url) == 0 && s->key.len == strlen(key) &&
                 memcmp(s->key.ptr, key, s->key.len) == 0;
    }
    index_matches_release(&matches);
    return found;
}

/* ---- Sessions ---- */

static inline bool fixture_on_message(struct receiver *r, struct outgoing *m)
{
    (void)m;
    ((struct fixture_session *)r)->messages++;
    return true;
}

static inline bool fixture_on_missed(struct receiver *r, struct lonely_span topic)
{
    (void)topic;
    ((struct fixture_session *)r)->missed++;
    return true;
}

/* Wants it, as a session does: the row first. */
static inline void fixture_join(struct forwarding_fixture *t, size_t worker,
                                struct fixture_session *s, enum store_kind kind, const char *key)
{
    static const struct receiver_ops ops = { fixture_on_message, fixture_on_missed };
    static unsigned ignored;
    struct worker *w = &t->workers[worker];

    *s = (struct fixture_session){ .r.ops = &ops, .kind = kind, .key = key };
    forwarding_add(t->f, w, kind, fixture_text(key), fixture_on_done, &ignored);
    receivers_join(w->receivers, &s->r);
    receivers_subscribe(w->receivers, &s->r, kind, fixture_text(key));
}

static inline void fixture_leave(struct forwarding_fixture *t, size_t worker,
                                 struct fixture_session *s)
{
    struct worker *w = &t->workers[worker];

    receivers_leave(w->receivers, &s->r);
    forwarding_remove(t->f, w, s->kind, fixture_text(s->key), NULL, NULL);
}

static inline void fixture_on_count(void *arg, uint32_t count)
{
    *(unsigned *)arg = count;
}

static inline uint32_t fixture_deliver(struct forwarding_fixture *t, size_t worker,
                                       const char *topic)
{
    unsigned n = UINT32_MAX;

    forwarding_deliver(t->f, &t->workers[worker], fixture_text(topic), t->body, fixture_on_count,
                       &n);
    while (*(volatile unsigned *)&n == UINT32_MAX)
        fixture_turn(t);
    return n;
}

#endif
