/*
 * forwarding.c with a thread a worker: sessions come and go and messages cross at random. At the end the
 * rows are those that are wanted, and every message was counted by exactly those who got it. Meant for
 * the thread sanitizer, too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "forwarding.h"
#include "forwarding_fixture.h"

enum { WORKERS = 3, SESSIONS = 8, STEPS = 3000 };

static const char *const keys[] = { "a", "b", "a*", "*" };
static const enum store_kind kinds[] = { STORE_EXACT, STORE_EXACT, STORE_GLOB, STORE_GLOB };

/* One worker: steps one after another, each begun when the one before has been answered. */
struct actor {
    struct forwarding_fixture *t;
    struct worker *w;
    uv_idle_t idle;
    uv_thread_t thread;
    unsigned seed, steps;
    bool waits;
    struct session {
        struct receiver r; /* first */
        struct actor *actor;
        bool has[4];
        unsigned messages;
    } sessions[SESSIONS];
    struct session *joining;
    size_t key;
    uint64_t counted; /* by the answers to its own deliveries */
    bool done;
};

static atomic_uint actors_left;

static bool on_message(struct receiver *r, struct outgoing *m)
{
    assert_int_equal(m->topic.len, 1);
    ((struct session *)r)->messages++;
    return true;
}

static const struct receiver_ops ops = { on_message, fixture_on_missed };

static void on_added(void *arg, enum store_status status)
{
    struct actor *a = arg;

    a->waits = false;
    if (status != STORE_OK)
        return;
    a->joining->has[a->key] = true;
    assert_true(receivers_subscribe(a->w->receivers, &a->joining->r, kinds[a->key],
                                    fixture_text(keys[a->key])));
}

static void on_removed(void *arg, enum store_status status)
{
    struct actor *a = arg;

    assert_int_equal(status, STORE_OK);
    a->waits = false;
}

static void on_delivered(void *arg, uint32_t count)
{
    struct actor *a = arg;

    a->counted += count;
    a->waits = false;
}

/* Toggles a subscription, or notifies. */
static void step(struct actor *a)
{
    struct session *s = &a->sessions[(unsigned)rand_r(&a->seed) % SESSIONS];
    size_t key = (unsigned)rand_r(&a->seed) % 4;

    a->waits = true;
    if (rand_r(&a->seed) % 2 == 0) {
        forwarding_deliver(a->t->f, a->w, fixture_text(keys[key % 2]), a->t->body, on_delivered, a);
    } else if (s->has[key]) {
        s->has[key] = false;
        receivers_unsubscribe(a->w->receivers, &s->r, kinds[key], fixture_text(keys[key]));
        forwarding_remove(a->t->f, a->w, kinds[key], fixture_text(keys[key]), on_removed, a);
    } else {
        a->joining = s;
        a->key = key;
        forwarding_add(a->t->f, a->w, kinds[key], fixture_text(keys[key]), on_added, a);
    }
}

static void on_idle(uv_idle_t *idle)
{
    struct actor *a = idle->data;

    if (a->waits)
        return;
    if (a->steps < STEPS) {
        a->steps++;
        step(a);
    } else if (!a->done) {
        a->done = true;
        atomic_fetch_sub(&actors_left, 1);
    }
    if (atomic_load(&actors_left) == 0) /* nobody waits for an answer of ours any more */
        uv_stop(&a->w->loop);
}

static void run_actor(void *arg)
{
    struct actor *a = arg;

    uv_run(&a->w->loop, UV_RUN_DEFAULT);
}

static void actor_start(struct actor *a, struct forwarding_fixture *t, size_t number)
{
    a->t = t;
    a->w = &t->workers[number];
    a->seed = (unsigned)number + 1;
    for (size_t i = 0; i < SESSIONS; i++) {
        a->sessions[i].r.ops = &ops;
        receivers_join(a->w->receivers, &a->sessions[i].r);
    }
    uv_idle_init(&a->w->loop, &a->idle);
    a->idle.data = a;
    uv_idle_start(&a->idle, on_idle);
}

static void test_random(void **state)
{
    struct forwarding_fixture *t = fixture_create(WORKERS);
    struct actor *actors = mem_calloc(WORKERS, sizeof(*actors));
    uint64_t counted = 0, messages = 0;

    (void)state;
    atomic_store(&actors_left, WORKERS);
    for (size_t i = 0; i < WORKERS; i++)
        actor_start(&actors[i], t, i);
    for (size_t i = 0; i < WORKERS; i++)
        assert_int_equal(uv_thread_create(&actors[i].thread, run_actor, &actors[i]), 0);
    for (size_t i = 0; i < WORKERS; i++) {
        uv_thread_join(&actors[i].thread);
        uv_close((uv_handle_t *)&actors[i].idle, NULL);
    }
    for (size_t i = 0; i < WORKERS; i++)
        counted += actors[i].counted;
    for (size_t i = 0; i < WORKERS * SESSIONS; i++)
        messages += actors[i / SESSIONS].sessions[i % SESSIONS].messages;
    assert_true(counted > 0);
    assert_int_equal(counted, messages);
    for (size_t key = 0; key < 4; key++) {
        bool wanted = false;

        for (size_t i = 0; i < WORKERS * SESSIONS; i++)
            wanted |= actors[i / SESSIONS].sessions[i % SESSIONS].has[key];
        assert_int_equal(fixture_has_row(t, fixture_url, kinds[key], keys[key]), wanted);
    }
    for (size_t i = 0; i < WORKERS * SESSIONS; i++)
        receivers_leave(actors[i / SESSIONS].w->receivers,
                        &actors[i / SESSIONS].sessions[i % SESSIONS].r);
    for (size_t i = 0; i < WORKERS; i++)
        assert_int_equal(t->workers[i].holds, 0);
    fixture_destroy(t);
    mem_free(actors);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_random) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
