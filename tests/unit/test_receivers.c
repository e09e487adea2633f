/*
 * Who is given what: sessions that only count, and the globs that match named by the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "receivers.h"
#include "tables.h"

/* ---- Sessions ---- */

struct session {
    struct receiver r; /* first */
    bool refuses;
    unsigned messages, missed;
    char last[32]; /* topic */
};

static void note(struct session *s, struct lonely_span topic)
{
    size_t len = topic.len < sizeof(s->last) ? topic.len : sizeof(s->last) - 1;

    memcpy(s->last, topic.ptr, len);
    s->last[len] = '\0';
}

static bool on_message(struct receiver *r, struct outgoing *m)
{
    struct session *s = (struct session *)r;

    s->messages++;
    note(s, m->topic);
    return !s->refuses;
}

static bool on_missed(struct receiver *r, struct lonely_span topic)
{
    struct session *s = (struct session *)r;

    s->missed++;
    note(s, topic);
    return !s->refuses;
}

static const struct receiver_ops ops = { on_message, on_missed };

static void join(struct receivers *all, struct session *s)
{
    *s = (struct session){ .r.ops = &ops };
    receivers_join(all, &s->r);
}

static struct lonely_span text(const char *s)
{
    return (struct lonely_span){ (const uint8_t *)s, strlen(s) };
}

/* The globs that match, as forwarding.c finds them: each a word. */
struct globs {
    struct subscription subscriptions[4], *items[4];
    struct index_matches matches;
};

static const struct index_matches *globs(struct globs *g, const char *const *words)
{
    size_t n = 0;

    for (; words[n] != NULL; n++) {
        g->subscriptions[n].key = text(words[n]);
        g->items[n] = &g->subscriptions[n];
    }
    g->matches = (struct index_matches){ g->items, n };
    return &g->matches;
}

static uint32_t deliver(struct receivers *all, const char *topic, const struct index_matches *found)
{
    static const uint8_t identifier[4] = { 1, 2, 3, 4 };
    struct outgoing *m = outgoing_create(text(topic), NULL, identifier);
    uint32_t n = receivers_deliver(all, m, found);

    assert_memory_equal(m->identifier, identifier, sizeof(identifier));
    outgoing_unref(m);
    return n;
}

/* An outgoing needs no body here. */
void body_ref(struct body *b)
{
    assert_null(b);
}

void body_unref(struct body *b)
{
    assert_null(b);
}

/* ---- Tests ---- */

/* One session with these subscriptions; how often it is given a message on `topic`, when `matching` are
 * the globs that match it. */
static const struct once_case {
    const char *name;
    const char *exacts[3], *globs[3];
    const char *topic, *matching[4];
    unsigned times;
} once_cases[] = {
    { "nothing", { NULL }, { NULL }, "a", { NULL }, 0 },
    { "its topic", { "a" }, { NULL }, "a", { NULL }, 1 },
    { "another topic", { "a" }, { NULL }, "b", { NULL }, 0 },
    { "the empty topic", { "" }, { NULL }, "", { NULL }, 1 },
    { "a glob", { NULL }, { "a*" }, "abc", { "a*" }, 1 },
    { "a glob that does not match", { NULL }, { "b*" }, "abc", { "a*" }, 0 },
    { "both, once", { "abc" }, { "a*" }, "abc", { "a*" }, 1 },
    { "several globs, once", { "abc" }, { "a*", "*c", "b" }, "abc", { "*c", "a*", "*" }, 1 },
    { "a topic spelt like a glob", { "a*" }, { NULL }, "abc", { "a*" }, 0 },
    { "a glob spelt like the topic", { NULL }, { "abc" }, "abc", { NULL }, 0 },
};

static void test_each_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(once_cases); i++) {
        const struct once_case *c = &once_cases[i];
        struct receivers *all = receivers_create();
        struct session s;
        struct globs found;
        const struct index_matches *matching = globs(&found, c->matching);

        join(all, &s);
        for (size_t n = 0; n < 3 && c->exacts[n] != NULL; n++)
            assert_true(receivers_subscribe(all, &s.r, STORE_EXACT, text(c->exacts[n])));
        for (size_t n = 0; n < 3 && c->globs[n] != NULL; n++)
            assert_true(receivers_subscribe(all, &s.r, STORE_GLOB, text(c->globs[n])));
        if (receivers_match(all, text(c->topic), matching) != (c->times > 0) ||
            deliver(all, c->topic, matching) != c->times || s.messages != c->times ||
            receivers_missed(all, text(c->topic), matching) != c->times || s.missed != c->times)
            fail_msg("%s: %u messages, %u missed", c->name, s.messages, s.missed);
        receivers_leave(all, &s.r);
        assert_int_equal(receivers_keys(all), 0);
        receivers_destroy(all);
    }
}

static void test_no_globs(void **state)
{
    struct receivers *all = receivers_create();
    struct session s;

    (void)state;
    join(all, &s);
    receivers_subscribe(all, &s.r, STORE_EXACT, text("a"));
    assert_true(receivers_match(all, text("a"), NULL));
    assert_int_equal(deliver(all, "a", NULL), 1);
    assert_string_equal(s.last, "a");
    receivers_leave(all, &s.r);
    receivers_destroy(all);
}

static void test_twice_is_once(void **state)
{
    struct receivers *all = receivers_create();
    struct session s, other;

    (void)state;
    join(all, &s);
    join(all, &other);
    assert_false(receivers_has(all, &s.r, STORE_EXACT, text("a")));
    assert_false(receivers_unsubscribe(all, &s.r, STORE_EXACT, text("a")));
    assert_true(receivers_subscribe(all, &s.r, STORE_EXACT, text("a")));
    assert_false(receivers_subscribe(all, &s.r, STORE_EXACT, text("a")));
    assert_true(receivers_has(all, &s.r, STORE_EXACT, text("a")));
    assert_false(receivers_has(all, &s.r, STORE_GLOB, text("a")));
    assert_false(receivers_has(all, &other.r, STORE_EXACT, text("a")));
    assert_false(receivers_unsubscribe(all, &other.r, STORE_EXACT, text("a")));
    assert_true(receivers_subscribe(all, &other.r, STORE_EXACT, text("a")));
    assert_int_equal(deliver(all, "a", NULL), 2);
    assert_true(receivers_unsubscribe(all, &s.r, STORE_EXACT, text("a")));
    assert_int_equal(deliver(all, "a", NULL), 1);
    assert_int_equal(s.messages, 1);
    assert_int_equal(other.messages, 2);
    receivers_leave(all, &s.r);
    receivers_leave(all, &other.r);
    receivers_destroy(all);
}

static void test_not_taken_does_not_count(void **state)
{
    struct receivers *all = receivers_create();
    struct session s, ending;

    (void)state;
    join(all, &s);
    join(all, &ending);
    ending.refuses = true;
    receivers_subscribe(all, &s.r, STORE_EXACT, text("a"));
    receivers_subscribe(all, &ending.r, STORE_EXACT, text("a"));
    assert_int_equal(deliver(all, "a", NULL), 1);
    assert_int_equal(ending.messages, 1);
    assert_int_equal(receivers_missed(all, text("a"), NULL), 1);
    receivers_leave(all, &s.r);
    receivers_leave(all, &ending.r);
    receivers_destroy(all);
}

/* ---- Many ---- */

enum { SESSIONS = 200, TOPICS = 300 };

struct tally {
    size_t exacts, globs;
};

static void count_keys(void *arg, enum store_kind kind, struct lonely_span key)
{
    struct tally *t = arg;

    assert_true(key.len > 0);
    if (kind == STORE_EXACT)
        t->exacts++;
    else
        t->globs++;
}

static void leave(void *arg, struct receiver *r)
{
    receivers_leave(arg, r);
}

/* Session i has the topics that it divides, and one glob of its own. */
static void test_many(void **state)
{
    struct receivers *all = receivers_create();
    struct session *sessions = mem_calloc(SESSIONS, sizeof(*sessions));
    struct tally tally = { 0 };
    char key[16];

    (void)state;
    for (unsigned i = 0; i < SESSIONS; i++) {
        join(all, &sessions[i]);
        for (unsigned t = 0; t < TOPICS; t += i + 1) {
            snprintf(key, sizeof(key), "t%u", t);
            assert_true(receivers_subscribe(all, &sessions[i].r, STORE_EXACT, text(key)));
        }
        snprintf(key, sizeof(key), "*%u", i);
        assert_true(receivers_subscribe(all, &sessions[i].r, STORE_GLOB, text(key)));
    }
    assert_int_equal(receivers_count(all), SESSIONS);
    assert_int_equal(receivers_keys(all), TOPICS + SESSIONS);
    receivers_each(all, &sessions[2].r, count_keys, &tally);
    assert_int_equal(tally.exacts, TOPICS / 3);
    assert_int_equal(tally.globs, 1);
    for (unsigned t = 0; t < TOPICS; t++) {
        uint32_t expected = 0;

        for (unsigned i = 0; i < SESSIONS; i++)
            expected += t % (i + 1) == 0;
        snprintf(key, sizeof(key), "t%u", t);
        assert_int_equal(deliver(all, key, NULL), expected);
    }
    receivers_leave(all, &sessions[0].r);
    assert_int_equal(deliver(all, "t1", NULL), 0);
    assert_int_equal(deliver(all, "t2", NULL), 1);
    receivers_each_receiver(all, leave, all);
    assert_int_equal(receivers_count(all), 0);
    assert_int_equal(receivers_keys(all), 0);
    receivers_destroy(all);
    mem_free(sessions);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_once),     cmocka_unit_test(test_no_globs),
        cmocka_unit_test(test_twice_is_once), cmocka_unit_test(test_not_taken_does_not_count),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
