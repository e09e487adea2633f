/*
 * The index with much in it: many urls of a key, many patterns of a shape, patterns that take long,
 * budgets of steps; and its table with hashes that crowd.
 */
#include <stdio.h>
#include <stdlib.h>

#include "index_fixture.h"
#include "index_table.h"

/* One key, many urls: all are found, removed in another order, and nothing is left. */
static void test_many_urls_of_one_key(void **state)
{
    enum { URLS = 5000 };
    static const enum store_kind kinds[] = { STORE_EXACT, STORE_GLOB };
    char url[32];

    (void)state;
    for (size_t k = 0; k < TABLE_LEN(kinds); k++) {
        struct index *index = index_create();
        uint64_t empty_bytes = index_counts(index).bytes;
        struct store_feed f = index_feed(index);

        f.change_begin(f.arg);
        for (unsigned i = 0; i < URLS; i++) {
            snprintf(url, sizeof(url), "http://%u", i);
            struct store_row row = row_of(kinds[k], url, "topic", i % 3 == 0 ? "r" : "");
            f.add(f.arg, &row);
        }
        f.change_end(f.arg);
        for (unsigned n = 0; n < URLS; n++) {
            if (n % 500 == 0)
                assert_int_equal(match_count(index, LIT("topic"), UINT64_MAX), URLS - n);
            snprintf(url, sizeof(url), "http://%u", n * 7 % URLS);
            feed_one(index, false, row_of(kinds[k], url, "topic", ""));
        }
        assert_int_equal(match_count(index, LIT("topic"), UINT64_MAX), 0);
        assert_int_equal(index_counts(index).bytes, empty_bytes);
        index_destroy(index);
    }
}

/* Budgets. */

static void add_numbered(struct index *index, const char *format, unsigned n)
{
    struct store_feed f = index_feed(index);
    char key[64];

    f.change_begin(f.arg);
    for (unsigned i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "%.*s%u%s", (int)strcspn(format, "#"), format, i,
                 strchr(format, '#') + 1);
        struct store_row row = row_of(STORE_GLOB, "u", key, "");
        f.add(f.arg, &row);
    }
    f.change_end(f.arg);
}

/* Ten thousand patterns of a shape, of which few look at all like the topic: few steps suffice. */
static const struct shape_case {
    const char *format; /* # is a number */
    struct lonely_span topic;
    size_t matches;
} shape_cases[] = {
    { "users/#/*", TEXT("users/4711/mail"), 1 },
    { "users/#/*", TEXT("nobody/4711/mail"), 0 },
    { "users/*/cache/#", TEXT("users/7/cache/4711"), 1 },
    { "users/*/cache/#/*", TEXT("users/7/cache/none/x"), 0 },
    { "users/*/#/x?", TEXT("users/7/4711/xy"), 1 },
    { "*/cache/#", TEXT("some/cache/x"), 0 },
    { "*/cache/#", TEXT("some/cache/4711"), 1 },
    { "*/cache/#/*", TEXT("some/cache/x/y"), 0 },
    { "*word#end*", TEXT("no such word in here"), 0 },
    { "[ab]*/x#", TEXT("a/x4711"), 1 },
    { "?#", TEXT("a4711"), 1 },
};

static void test_few_steps_suffice(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(shape_cases); i++) {
        const struct shape_case *c = &shape_cases[i];
        struct index *index = index_create();
        struct index_matches m;

        add_numbered(index, c->format, 10000);
        if (!index_match(index, c->topic, 4000, &m))
            fail_msg("%s: too many steps", c->format);
        if (m.count != c->matches)
            fail_msg("%s: %zu matches", c->format, m.count);
        index_matches_release(&m);
        index_destroy(index);
    }
}

static void expect_out_of_steps(struct index *index, struct lonely_span topic, uint64_t max_steps)
{
    struct index_matches m = { NULL, 99 };

    assert_false(index_match(index, topic, max_steps, &m));
    assert_null(m.items);
    assert_int_equal(m.count, 0);
}

/* Patterns that take longer than the lock is held, with a topic that they match and one that they
 * do not; neither the exact nor the quick glob is given out when the steps do not suffice. */
enum { SLOW_TOPIC = 20000, SLOW_SETS = 300 };

static void slow_pattern(char out[5 * SLOW_SETS], const char *end)
{
    strcpy(out, "*");
    for (int i = 0; i < SLOW_SETS; i++)
        memcpy(out + 1 + i * 4, "[ab]", 4);
    strcpy(out + 1 + SLOW_SETS * 4, end);
}

static void test_slow_patterns(void **state)
{
    static char topic[SLOW_TOPIC + 1], slow[5 * SLOW_SETS];
    struct index *index = index_create();

    (void)state;
    memset(topic, 'a', SLOW_TOPIC);
    add(index, STORE_EXACT, "u", topic);
    add(index, STORE_GLOB, "u", "a*");
    slow_pattern(slow, "?[ab]"); /* no literal: always tried */
    add(index, STORE_GLOB, "u", slow);
    slow_pattern(slow, "c*");
    for (char url[2] = "a"; url[0] < 'k'; url[0]++)
        add(index, STORE_GLOB, url, slow);

    assert_int_equal(match_count(index, span(topic), UINT64_MAX), 3);
    topic[SLOW_TOPIC - 1] = 'c';
    assert_int_equal(match_count(index, span(topic), UINT64_MAX), 11);
    expect_out_of_steps(index, span(topic), 1000000);
    expect_out_of_steps(index, span(topic), 1000);
    expect_out_of_steps(index, span(topic), 0);
    index_destroy(index);
}

static void test_out_of_steps(void **state)
{
    struct index *index = index_create();

    (void)state;
    add(index, STORE_EXACT, "u", "topic");
    assert_int_equal(match_count(index, LIT("topic"), 0), 1); /* exacts cost none */
    add_numbered(index, "*[a-f]?[#]", 10000);
    expect_out_of_steps(index, LIT("topic"), 100000);
    expect_out_of_steps(index, LIT("topic"), 0);
    assert_int_equal(match_count(index, LIT("topic"), UINT64_MAX), 1);
    index_destroy(index);
}

/* Many grams of one topic are anchors, and it repeats them: each pattern once all the same. */
static void test_topic_full_of_anchors(void **state)
{
    enum { WORDS = 2000 };
    static char topic[2 * WORDS * 6 + 1];
    struct index *index = index_create();
    struct store_feed f = index_feed(index);
    char key[32];

    (void)state;
    f.change_begin(f.arg);
    for (unsigned i = 0; i < WORDS; i++) {
        snprintf(key, sizeof(key), "*w%04u*", i);
        snprintf(topic + (size_t)i * 6, 7, "w%04u ", i);
        struct store_row row = row_of(STORE_GLOB, "u", key, "");
        f.add(f.arg, &row);
    }
    f.change_end(f.arg);
    memcpy(topic + sizeof(topic) / 2, topic, sizeof(topic) / 2);
    assert_int_equal(match_count(index, span(topic), UINT64_MAX), WORDS);
    index_destroy(index);
}

/* Removing patterns hides none of those that stay. */
static void test_every_other_glob_removed(void **state)
{
    enum { WORDS = 20000 };
    struct index *index = index_create();
    struct store_feed f = index_feed(index);
    char key[32];

    (void)state;
    add_numbered(index, "*<#>*", WORDS);
    f.change_begin(f.arg);
    for (unsigned i = 0; i < WORDS; i += 2) {
        snprintf(key, sizeof(key), "*<%u>*", i);
        struct store_row row = row_of(STORE_GLOB, "u", key, "");
        f.remove(f.arg, &row);
    }
    f.change_end(f.arg);
    for (unsigned i = 0; i < WORDS; i++) {
        snprintf(key, sizeof(key), "a<%u>z", i);
        assert_int_equal(match_count(index, span(key), UINT64_MAX), i % 2);
    }
    index_destroy(index);
}

/* The table, with hashes that crowd. */

static void test_table_with_crowded_hashes(void **state)
{
    enum { ITEMS = 300 };
    static char items[ITEMS];
    static bool present[ITEMS];
    struct index_table *t = calloc(1, sizeof(*t));
    uint32_t rng = 5;
    size_t count = 0;

    (void)state;
    for (int step = 0; step < 60000; step++) {
        rng = rng * 1664525 + 1013904223;
        uint32_t i = (rng >> 8) % (step / 10000 % 2 == 0 ? ITEMS : ITEMS / 30);
        uint64_t hash = i % 7; /* equal ones, neighbours, wrapping ones */
        hash = hash == 6 ? (UINT64_C(1) << 40) - 1 : hash;
        struct index_slot *slot = index_table_find(t, hash);
        while (slot != NULL && slot->item != &items[i])
            slot = index_table_next(t, hash, slot);
        assert_int_equal(slot != NULL, present[i]);
        if (slot != NULL)
            index_table_remove(t, slot);
        else
            index_table_add(t, hash, &items[i]);
        present[i] = !present[i];
        count += present[i] ? 1 : (size_t)-1;
        assert_int_equal(t->count, count);
    }
    index_table_fini(t);
    free(t);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_urls_of_one_key),
        cmocka_unit_test(test_few_steps_suffice),
        cmocka_unit_test(test_slow_patterns),
        cmocka_unit_test(test_out_of_steps),
        cmocka_unit_test(test_topic_full_of_anchors),
        cmocka_unit_test(test_every_other_glob_removed),
        cmocka_unit_test(test_table_with_crowded_hashes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
