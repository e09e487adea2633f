/*
 * A session with everything around it played by the test: the transport in memory, the clock, random bytes,
 * the hub, the store and the other sessions. Real are gate, keys and bodies. Header only; one session at a
 * time.
 */
#ifndef TESTS_SESSION_FIXTURE_H
#define TESTS_SESSION_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lonely/message.h>

#include "broadcaster.h"
#include "compression.h"
#include "forwarding.h"
#include "hub.h"
#include "mem.h"
#include "receivers.h"
#include "routes.h"
#include "session.h"
#include "tables.h"
#include "transport.h"
#include "worker.h"

#define SECRET_SUBSCRIBER \
    "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQQ"

enum { FX_FRAMES = 1024, FX_HUB = 1024, FX_SUBSCRIPTIONS = 16 };

/* What the session put, whole frames in order. */
struct fx_frame {
    uint8_t *bytes;
    size_t len, want;
};

struct transport {
    const struct transport_events *events;
    void *arg;
    enum transport_kind kind;
    bool reading, closed;
    enum transport_code code; /* of transport_close; LOST: aborted */
    size_t queued;            /* when `blocked`: what was put since */
    bool blocked;
};

struct fx_notify {
    struct body *body;
    uint8_t topic[64];
    size_t topic_len;
    hub_done_fn *done;
    void *arg;
};

struct fx_row {
    enum store_kind kind;
    uint8_t key[64];
    size_t len;
};

static struct fx {
    struct broadcaster b;
    struct worker worker;
    struct conf conf;
    struct clock clock;
    struct log log;
    struct metrics metrics;
    char folder[64], secrets[80], spool[80];
    double now_s;
    double (*time_s)(void); /* of each look at the clock, when set */
    void (*random)(uint8_t *to, size_t len);
    uint8_t random_next;
    int log_fd;

    struct transport t;
    struct fx_frame frames[FX_FRAMES];
    size_t frame_count, read_count; /* put by the session; looked at by the test */

    struct fx_notify notifies[FX_HUB];
    size_t notify_count, notify_done;

    struct fx_row rows[FX_SUBSCRIPTIONS];
    size_t row_count;
    enum store_status store; /* PENDING: fx_store_answers answers */
    store_done_fn *store_done;
    void *store_arg;
    bool store_adds;
    struct fx_row store_row;

    struct receiver *receiver;
    struct fx_row subscriptions[FX_SUBSCRIPTIONS];
    size_t subscription_count;

    bool macs_wait; /* the store answers sync_macs with fx_macs_answer */
    store_done_fn *macs_done;
    void *macs_arg;

    unsigned closed, drained;
} fx;

static inline void fx_copy_row(struct fx_row *row, enum store_kind kind, struct lonely_span key)
{
    table_require(key.len <= sizeof(row->key), "a key of the fixture");
    row->kind = kind;
    row->len = key.len;
    if (key.len > 0)
        memcpy(row->key, key.ptr, key.len);
}

static inline bool fx_is_row(const struct fx_row *row, enum store_kind kind, struct lonely_span key)
{
    return row->kind == kind && row->len == key.len &&
           (key.len == 0 || memcmp(row->key, key.ptr, key.len) == 0);
}

static inline size_t fx_find(const struct fx_row *rows, size_t count, enum store_kind kind,
                             struct lonely_span key)
{
    size_t i = 0;

    while (i < count && !fx_is_row(&rows[i], kind, key))
        i++;
    return i;
}

/* ---- The transport ---- */

struct transport_group {
    void (*on_closed)(void *arg);
    void *arg;
    uv_timer_t timer;
};

struct transport_group *transport_group_create(uv_loop_t *loop, const struct transport_conf *conf)
{
    struct transport_group *g = mem_calloc(1, sizeof(*g));

    (void)conf;
    uv_timer_init(loop, &g->timer);
    g->timer.data = g;
    return g;
}

static inline void fx_group_closed(uv_handle_t *handle)
{
    struct transport_group *g = handle->data;

    g->on_closed(g->arg);
    mem_free(g);
}

void transport_group_close(struct transport_group *g, void (*on_closed)(void *arg), void *arg)
{
    g->on_closed = on_closed;
    g->arg = arg;
    uv_close((uv_handle_t *)&g->timer, fx_group_closed);
}

struct transport *transport_open(struct transport_group *g, struct stream *stream,
                                 enum transport_kind kind, enum transport_role role,
                                 struct lonely_span rest, const struct transport_events *events,
                                 void *arg)
{
    (void)g;
    (void)stream;
    (void)rest;
    table_require(role == TRANSPORT_SERVER && fx.t.events == NULL, "one server at a time");
    fx.t = (struct transport){ .events = events, .arg = arg, .kind = kind };
    return &fx.t;
}

void transport_read_start(struct transport *t)
{
    t->reading = true;
}

void transport_read_stop(struct transport *t)
{
    t->reading = false;
}

void transport_frame(struct transport *t, uint64_t frame_bytes)
{
    struct fx_frame *last = fx.frame_count > 0 ? &fx.frames[fx.frame_count - 1] : NULL;

    if (t->closed)
        return;
    table_require(last == NULL || last->len == last->want, "the frame before is complete");
    table_require(fx.frame_count < FX_FRAMES, "FX_FRAMES");
    fx.frames[fx.frame_count++] =
        (struct fx_frame){ mem_alloc((size_t)frame_bytes), 0, (size_t)frame_bytes };
}

void transport_put(struct transport *t, struct lonely_span bytes)
{
    struct fx_frame *f = &fx.frames[fx.frame_count - 1];

    if (t->closed)
        return;
    table_require(bytes.len <= f->want - f->len, "no more than announced");
    if (bytes.len > 0)
        memcpy(f->bytes + f->len, bytes.ptr, bytes.len);
    f->len += bytes.len;
    if (t->blocked)
        t->queued += bytes.len;
}

void transport_put_frame(struct transport *t, struct lonely_span frame)
{
    transport_frame(t, frame.len);
    transport_put(t, frame);
}

void transport_put_shared(struct transport *t, struct lonely_span bytes, void (*release)(void *arg),
                          void *arg)
{
    transport_put(t, bytes);
    release(arg);
}

size_t transport_queued(const struct transport *t)
{
    return t->queued;
}

/* on_closed comes with fx_gone. */
void transport_close(struct transport *t, enum transport_code code)
{
    if (!t->closed)
        t->code = code;
    t->closed = true;
}

void transport_abort(struct transport *t)
{
    if (!t->closed)
        t->code = TRANSPORT_LOST;
    t->closed = true;
}

/* ---- Worker, hub, store, receivers ---- */

void worker_random(struct worker *w, uint8_t *to, size_t len)
{
    (void)w;
    if (fx.random != NULL)
        fx.random(to, len);
    else
        memset(to, ++fx.random_next, len);
}

uint32_t worker_max_connections(const struct broadcaster *b)
{
    (void)b;
    return 1;
}

void routes_on_reject(void *app, int status, const struct sockaddr *peer)
{
    (void)app;
    (void)status;
    (void)peer;
}

void hub_notify(struct worker *w, struct lonely_span topic, struct body *body, hub_done_fn *done,
                void *arg)
{
    struct fx_notify *n = &fx.notifies[fx.notify_count];

    (void)w;
    table_require(fx.notify_count < FX_HUB, "FX_HUB");
    fx.notify_count++;
    *n = (struct fx_notify){ .body = body, .done = done, .arg = arg, .topic_len = topic.len };
    if (topic.len > 0)
        memcpy(n->topic, topic.ptr, topic.len < sizeof(n->topic) ? topic.len : sizeof(n->topic));
    body_ref(body);
}

/* The hub is done with the notify `i`. */
static inline void fx_notified(size_t i, enum hub_status status, uint32_t count)
{
    struct fx_notify *n = &fx.notifies[i];

    body_unref(n->body);
    n->body = NULL;
    fx.notify_done++;
    n->done(n->arg, status, count);
}

static inline void fx_store_later(bool adds, enum store_kind kind, struct lonely_span key,
                                  store_done_fn *done, void *arg)
{
    fx.store_adds = adds;
    fx_copy_row(&fx.store_row, kind, key);
    fx.store_done = done;
    fx.store_arg = arg;
}

static inline void fx_store_apply(bool adds, const struct fx_row *row)
{
    struct lonely_span key = { row->key, row->len };
    size_t i = fx_find(fx.rows, fx.row_count, row->kind, key);

    if (adds) {
        table_require(fx.row_count < FX_SUBSCRIPTIONS, "FX_SUBSCRIPTIONS");
        fx.rows[fx.row_count++] = *row;
    } else {
        table_require(i < fx.row_count, "a row to be removed");
        fx.rows[i] = fx.rows[--fx.row_count];
    }
}

/* The store answers what it was asked last. */
static inline void fx_store_answers(enum store_status status)
{
    store_done_fn *done = fx.store_done;

    fx.store_done = NULL;
    if (status == STORE_OK)
        fx_store_apply(fx.store_adds, &fx.store_row);
    if (done != NULL)
        done(fx.store_arg, status);
}

void forwarding_add(struct forwarding *f, struct worker *w, enum store_kind kind,
                    struct lonely_span key, store_done_fn *done, void *arg)
{
    (void)f;
    (void)w;
    fx_store_later(true, kind, key, done, arg);
    if (fx.store != STORE_PENDING)
        fx_store_answers(fx.store);
}

void forwarding_remove(struct forwarding *f, struct worker *w, enum store_kind kind,
                       struct lonely_span key, store_done_fn *done, void *arg)
{
    (void)f;
    (void)w;
    fx_store_later(false, kind, key, done, arg);
    if (fx.store != STORE_PENDING || done == NULL)
        fx_store_answers(done == NULL ? STORE_OK : fx.store);
}

void receivers_join(struct receivers *all, struct receiver *r)
{
    (void)all;
    fx.receiver = r;
}

void receivers_leave(struct receivers *all, struct receiver *r)
{
    (void)all;
    table_require(fx.receiver == r, "a receiver that joined");
    fx.receiver = NULL;
    fx.subscription_count = 0;
}

bool receivers_has(const struct receivers *all, const struct receiver *r, enum store_kind kind,
                   struct lonely_span key)
{
    (void)all;
    (void)r;
    return fx_find(fx.subscriptions, fx.subscription_count, kind, key) < fx.subscription_count;
}

bool receivers_subscribe(struct receivers *all, struct receiver *r, enum store_kind kind,
                         struct lonely_span key)
{
    if (receivers_has(all, r, kind, key))
        return false;
    fx_copy_row(&fx.subscriptions[fx.subscription_count++], kind, key);
    return true;
}

bool receivers_unsubscribe(struct receivers *all, struct receiver *r, enum store_kind kind,
                           struct lonely_span key)
{
    size_t i = fx_find(fx.subscriptions, fx.subscription_count, kind, key);

    (void)all;
    (void)r;
    if (i == fx.subscription_count)
        return false;
    fx.subscriptions[i] = fx.subscriptions[--fx.subscription_count];
    return true;
}

void receivers_each(const struct receivers *all, const struct receiver *r,
                    void (*fn)(void *arg, enum store_kind kind, struct lonely_span key), void *arg)
{
    (void)all;
    (void)r;
    for (size_t i = 0; i < fx.subscription_count; i++)
        fn(arg, fx.subscriptions[i].kind,
           (struct lonely_span){ fx.subscriptions[i].key, fx.subscriptions[i].len });
}

struct outgoing *outgoing_create(struct lonely_span topic, struct body *body,
                                 const uint8_t identifier[4])
{
    struct outgoing *m = mem_calloc(1, sizeof(*m) + topic.len);

    atomic_init(&m->refs, 1);
    m->body = body;
    body_ref(body);
    memcpy(m->identifier, identifier, 4);
    if (topic.len > 0)
        memcpy(m + 1, topic.ptr, topic.len);
    m->topic = (struct lonely_span){ (uint8_t *)(m + 1), topic.len };
    return m;
}

void outgoing_ref(struct outgoing *m)
{
    atomic_fetch_add(&m->refs, 1);
}

void outgoing_unref(struct outgoing *m)
{
    if (atomic_fetch_sub(&m->refs, 1) != 1)
        return;
    body_unref(m->body);
    mem_free(m);
}

/* ---- Used macs ---- */

static inline enum store_status fx_sync_macs(struct store_client *c, store_done_fn *done, void *arg)
{
    (void)c;
    fx.macs_done = done;
    fx.macs_arg = arg;
    return STORE_PENDING;
}

static inline bool fx_add_mac(struct store_client *c, const struct store_mac *mac)
{
    (void)c;
    (void)mac;
    return true;
}

static const struct store_ops fx_store_ops = { .sync_macs = fx_sync_macs, .add_mac = fx_add_mac };

static inline void fx_macs_answer(enum store_status status)
{
    fx.macs_done(fx.macs_arg, status);
}

/* ---- The session's life ---- */

static inline int64_t fx_wall_ns(void *arg)
{
    (void)arg;
    return (int64_t)((fx.time_s != NULL ? fx.time_s() : fx.now_s) * 1e9);
}

static inline uint64_t fx_mono(void *arg)
{
    (void)arg;
    return 0;
}

static inline void fx_random(void *arg, uint8_t *to, size_t len)
{
    worker_random(arg, to, len);
}

static inline void fx_on_closed(void *arg)
{
    (void)arg;
    fx.closed++;
}

static inline void fx_on_drained(void *arg)
{
    (void)arg;
    fx.drained++;
}

/* Before fx_open; fx.conf may be changed in between. */
static inline void fx_init(void)
{
    struct bodies_conf bodies;
    char error[256];

    memset(&fx, 0, sizeof(fx));
    conf_init(&fx.conf);
    strcpy(fx.folder, "/tmp/lonely-session-XXXXXX");
    table_require(mkdtemp(fx.folder) != NULL, "mkdtemp");
    snprintf(fx.spool, sizeof(fx.spool), "%s/spool", fx.folder);
    snprintf(fx.secrets, sizeof(fx.secrets), "%s/secrets.json", fx.folder);
    fx.now_s = 1700000000;
    fx.clock = (struct clock){ fx_wall_ns, fx_mono, fx_mono, NULL };
    log_init(&fx.log, -1, LOG_LEVEL_ERROR, LOG_FORMAT_TEXT, &fx.clock);
    bodies =
        (struct bodies_conf){ .spool_dir = fx.spool, .spool_size = 100000, .max_memory = 64 << 20 };
    fx.b.bodies = bodies_create(&bodies, error);
    table_require(fx.b.bodies != NULL, error);
    fx.b.conf = &fx.conf;
    fx.b.clock = &fx.clock;
    fx.b.log = &fx.log;
    uv_loop_init(&fx.worker.loop);
    fx.worker.b = &fx.b;
    fx.worker.lane = body_lane_create(fx.b.bodies, &fx.worker.loop, 64 << 20);
    fx.worker.metrics = &fx.metrics;
    fx.worker.max_collected_bytes = 1 << 20;
    mem_free(fx.conf.broadcaster.spool_dir);
    fx.conf.broadcaster.spool_dir = mem_strdup(fx.spool);
}

/* Compression as fx.conf says; between fx_init and fx_open. */
static inline void fx_compress(void)
{
    char error[256];

    fx.worker.max_collected_bytes = 64 << 20;
    fx.b.compression = compression_create(&fx.conf, error);
    table_require(fx.b.compression != NULL, error);
}

/* `secrets`: the content of a secrets file; NULL: authorization none. */
static inline void fx_open(const char *secrets, enum transport_kind kind, bool counts_first)
{
    struct keys_error error;
    struct keys *keys;
    FILE *file;

    mem_free(fx.conf.auth.secrets);
    fx.conf.auth.secrets = secrets == NULL ? NULL : mem_strdup(fx.secrets);
    if (secrets != NULL) {
        file = fopen(fx.secrets, "w");
        table_require(file != NULL && fputs(secrets, file) >= 0 && fclose(file) == 0 &&
                          chmod(fx.secrets, 0600) == 0,
                      fx.secrets);
    }
    keys = keys_load(&fx.conf, &fx.log, &error);
    table_require(keys != NULL, error.text);
    key_ring_init(&fx.b.keys, keys);
    fx.b.replay = replay_create(1000);
    fx.worker.gate = gate_create(&(struct gate_conf){ .keys = &fx.b.keys,
                                                      .replay = fx.b.replay,
                                                      .store_ops = &fx_store_ops,
                                                      .store = fx.macs_wait ? (void *)&fx : NULL,
                                                      .clock = &fx.clock,
                                                      .log = &fx.log,
                                                      .random = fx_random,
                                                      .random_arg = &fx.worker });
    fx.worker.sessions = sessions_create(&fx.worker);
    sessions_open(
        fx.worker.sessions, NULL, (struct lonely_span){ 0 },
        &(struct session_peer){ .kind = kind, .name = "[::1]:1", .counts_first = counts_first });
}

/* Lets everything happen that can. */
static inline void fx_run(void)
{
    for (int i = 0; i < 20; i++)
        uv_run(&fx.worker.loop, UV_RUN_NOWAIT);
}

/* And all that the pool was asked for. */
static inline void fx_run_pool(void)
{
    fx_run();
    while (fx.worker.loop.active_reqs.count > 0)
        uv_run(&fx.worker.loop, UV_RUN_ONCE);
    fx_run();
}

/* The transport of an ended session goes away. */
static inline void fx_gone(void)
{
    const struct transport_events *events = fx.t.events;

    if (events == NULL)
        return;
    table_require(fx.t.closed, "a session that has ended");
    fx.t.events = NULL;
    events->on_closed(fx.t.arg);
}

static inline void fx_fini(void)
{
    bool ended = fx.t.closed;

    for (size_t i = 0; i < fx.notify_count; i++)
        if (fx.notifies[i].body != NULL)
            fx_notified(i, HUB_OK, 0);
    sessions_close(fx.worker.sessions, fx_on_closed, NULL);
    if (!ended && fx.t.events != NULL)
        assert_int_equal(fx.t.code, TRANSPORT_RESTART);
    fx_gone();
    while (fx.closed == 0)
        uv_run(&fx.worker.loop, UV_RUN_ONCE);
    uv_run(&fx.worker.loop, UV_RUN_DEFAULT);
    assert_int_equal(sessions_count(fx.worker.sessions), 0);
    assert_int_equal(fx.row_count, 0); /* each row added was removed */
    assert_null(fx.receiver);
    assert_int_equal(fx.worker.collected_bytes, 0);
    sessions_destroy(fx.worker.sessions);
    for (size_t i = 0; i < fx.frame_count; i++)
        mem_free(fx.frames[i].bytes);
    assert_int_equal(uv_loop_close(&fx.worker.loop), 0);
    compression_destroy(fx.b.compression);
    gate_destroy(fx.worker.gate);
    key_ring_fini(&fx.b.keys);
    replay_destroy(fx.b.replay);
    assert_int_equal(bodies_memory(fx.b.bodies), 0);
    body_lane_destroy(fx.worker.lane);
    bodies_destroy(fx.b.bodies);
    conf_fini(&fx.conf);
    log_fini(&fx.log);
    unlink(fx.secrets);
    rmdir(fx.spool);
    rmdir(fx.folder);
}

/* ---- What the peer does ---- */

static inline void fx_piece(const void *bytes, size_t len, uint64_t frame_bytes, bool first,
                            bool last)
{
    uint8_t *copy = mem_dup(bytes, len); /* dies on return */
    const struct transport_piece piece = { { copy, len }, frame_bytes, first, last };

    table_require(fx.t.reading && !fx.t.closed, "a piece while the session reads");
    fx.t.events->on_piece(fx.t.arg, &piece);
    mem_free(copy);
}

static inline void fx_feed(const void *frame, size_t len)
{
    fx_piece(frame, len, len, true, true);
}

/* A frame of the subscriber. */
static inline void fx_send(struct lonely_message m)
{
    uint8_t small[2048];
    size_t len;
    uint8_t *bytes = small;

    m.direction = LONELY_S2B;
    m.minimal = true;
    if (lonely_message_serialize(&m, NULL, 0, &len) != LONELY_OK)
        abort();
    if (len > sizeof(small))
        bytes = mem_alloc(len);
    if (lonely_message_serialize(&m, bytes, len, &len) != LONELY_OK)
        abort();
    fx_feed(bytes, len);
    if (bytes != small)
        mem_free(bytes);
}

/* The next frame that the session put. */
static inline struct lonely_message fx_next(unsigned type)
{
    struct lonely_message m;
    struct fx_frame *f;

    assert_true(fx.read_count < fx.frame_count);
    f = &fx.frames[fx.read_count++];
    assert_int_equal(f->len, f->want);
    assert_int_equal(
        lonely_message_parse(LONELY_B2S, (struct lonely_span){ f->bytes, f->len }, &m).err,
        LONELY_OK);
    assert_int_equal(m.type, type);
    return m;
}

static inline void fx_no_more(void)
{
    assert_int_equal(fx.read_count, fx.frame_count);
}

static inline bool fx_deliver(struct lonely_span topic, struct body *body, const char identifier[5])
{
    struct outgoing *m = outgoing_create(topic, body, (const uint8_t *)identifier);
    bool taken = fx.receiver->ops->on_message(fx.receiver, m);

    outgoing_unref(m);
    return taken;
}

#endif
