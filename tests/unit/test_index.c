/*
 * The index of subscriptions: every match against a brute force over all rows, the feed's rules,
 * loads, lifetimes and threads. Its limits: test_index_limits.c.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <lonely/glob.h>

#include "index_fixture.h"
#include "tables.h"

/* Tables: the keys, those with a capital E in front exact, and which of them match. */

static const struct match_case {
    const char *name;
    const char *keys[6]; /* E<topic> or G<glob> */
    struct lonely_span topic;
    const char *matches; /* a digit a key, in the order of the answer */
} match_cases[] = {
    { "nothing there", { "Eb", "Gb*" }, TEXT("a"), "" },
    { "exact before glob", { "Ga*", "Eab" }, TEXT("ab"), "10" },
    { "an exact is no glob", { "Ea*", "E?" }, TEXT("a*"), "0" },
    { "empty topic", { "E", "G", "G*", "G?" }, TEXT(""), "012" },
    { "prefix", { "Gfoo/*", "Gfoo*", "Gfo/*" }, TEXT("foo/bar"), "01" },
    { "suffix", { "G*/bar", "G*bar", "G*/baz" }, TEXT("foo/bar"), "01" },
    { "inside", { "G*oo/b*", "G*o*", "G*oo*", "G*oo/*", "G*xx*" }, TEXT("foo/bar"), "0123" },
    { "a gram that repeats", { "G*aaaa*", "G*a*" }, TEXT("aaaaaaaaaa"), "01" },
    { "all literal", { "Gfoo", "Gfo", "Gfooo" }, TEXT("foo"), "0" },
    { "no literal", { "G*", "G???", "G[a-f]*", "G??" }, TEXT("foo"), "012" },
    { "set not closed", { "Ga[", "Ga*[b", "Ga*" }, TEXT("a["), "2" },
    { "NUL ends both", { "Ga*c", "Gab", "Ga" }, TEXT("ab\0c"), "1" },
    { "NUL in an exact", { "Eab" }, TEXT("ab\0"), "" },
    { "not UTF-8", { "G*", "Ga*", "Ea\xff" }, TEXT("a\xff"), "2" },
    { "U+FFFE is U+FFFD",
      { "G*\xef\xbf\xbd", "Gx\xef\xbf\xbf*", "G*\xef\xbf\xbe*" },
      TEXT("x\xef\xbf\xbe"),
      "012" },
    { "U+FFFD beside literals",
      { "Gab\xef\xbf\xbd"
        "cd",
        "G*b\xef\xbf\xbf"
        "c*" },
      TEXT("ab\xef\xbf\xbe"
           "cd"),
      "01" },
    { "part of a code point", { "G*\xc3\xa9*", "G\xc3\xa9*", "G*\xa9" }, TEXT("\xc3\xa9"), "01" },
};

static struct store_row case_row(const char *key, const char *url)
{
    return row_of(key[0] == 'E' ? STORE_EXACT : STORE_GLOB, url, key + 1, "");
}

static void test_tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(match_cases); i++) {
        const struct match_case *c = &match_cases[i];
        struct index *index = index_create();
        char got[8] = "", url[2] = "0";
        struct index_matches m;

        for (; url[0] - '0' < 6 && c->keys[url[0] - '0'] != NULL; url[0]++)
            feed_one(index, true, case_row(c->keys[url[0] - '0'], url));
        assert_true(index_match(index, c->topic, UINT64_MAX, &m));
        for (size_t k = 0; k < m.count; k++)
            got[k] = m.items[k]->url->text[0];
        /* The order of globs among themselves is nobody's business. */
        size_t exacts = 0;
        while (exacts < m.count && m.items[exacts]->kind == STORE_EXACT)
            exacts++;
        for (size_t k = exacts; k < m.count; k++)
            for (size_t j = k + 1; j < m.count; j++)
                if (got[j] < got[k]) {
                    char swap = got[j];
                    got[j] = got[k];
                    got[k] = swap;
                }
        if (strcmp(got, c->matches) != 0)
            fail_msg("%s: expected \"%s\", got \"%s\"", c->name, c->matches, got);
        index_matches_release(&m);
        index_destroy(index);
    }
}

/* A model of the index: rows in an array, matched one by one. */

enum { TEXT_MAX = 160, MODEL_MAX = 3000 };

struct text {
    uint8_t bytes[TEXT_MAX];
    size_t len;
};

struct model_row {
    enum store_kind kind;
    struct text url, key, recovery;
};

struct model {
    struct model_row rows[MODEL_MAX];
    size_t count;
    uint64_t rng;
};

static uint32_t draw(struct model *m, uint32_t below)
{
    m->rng = m->rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((m->rng >> 33) % below);
}

static void text_add(struct text *t, struct lonely_span s)
{
    if (t->len + s.len > TEXT_MAX)
        return;
    memcpy(t->bytes + t->len, s.ptr, s.len);
    t->len += s.len;
}

static struct lonely_span text_span(const struct text *t)
{
    return (struct lonely_span){ t->bytes, t->len };
}

static bool text_equal(const struct text *a, const struct text *b)
{
    return table_span_equal(text_span(a), text_span(b)) != 0;
}

static const struct lonely_span literals[] = {
    TEXT("a"),
    TEXT("b"),
    TEXT("ab"),
    TEXT("/"),
    TEXT("users/"),
    TEXT("cache"),
    TEXT("7"),
    TEXT("42"),
    TEXT("aaaa"),
    TEXT("\xc3\xa9"),
    TEXT("\xf0\x9f\x98\x80"),
    TEXT("]"),
    TEXT("-"),
    TEXT("users/4"),
    TEXT("c"),
    TEXT("\xef\xbf\xbd"),
    TEXT("\xef\xbf\xbe"),
    TEXT("\xef\xbf\xbf"),
    TEXT("\0"),
    TEXT("\xef\xbf\xbc"),
    TEXT("\xff"),
    TEXT("\xef"),
};
enum { PLAIN_LITERALS = 18 }; /* the last four are rare */

static const struct lonely_span specials[] = {
    TEXT("*"),     TEXT("*"),    TEXT("*"),
    TEXT("?"),     TEXT("[ab]"), TEXT("[^a]"),
    TEXT("[a-z]"), TEXT("[*]"),  TEXT("[\xef\xbf\xbd]"),
    TEXT("["),
};
enum { PLAIN_SPECIALS = 9 };

static struct lonely_span draw_literal(struct model *m)
{
    uint32_t n = draw(m, 30) == 0 ? TABLE_LEN(literals) : PLAIN_LITERALS;

    return literals[draw(m, n)];
}

static struct text draw_glob(struct model *m)
{
    struct text t = { .len = 0 };
    uint32_t tokens = draw(m, 7);

    for (uint32_t i = 0; i < tokens; i++) {
        uint32_t n = draw(m, 20) == 0 ? TABLE_LEN(specials) : PLAIN_SPECIALS;
        text_add(&t, draw(m, 3) == 0 ? specials[draw(m, n)] : draw_literal(m));
    }
    return t;
}

static struct text draw_topic(struct model *m)
{
    struct text t = { .len = 0 };
    uint32_t tokens = draw(m, 7);

    for (uint32_t i = 0; i < tokens; i++)
        text_add(&t, draw(m, 12) == 0 ? LIT("*") : draw_literal(m));
    return t;
}

/* A topic that probably matches: a row's key with its special characters filled in. */
static struct text draw_topic_of_row(struct model *m)
{
    const struct text *key = &m->rows[draw(m, (uint32_t)m->count)].key;
    struct text t = { .len = 0 };

    for (size_t i = 0; i < key->len; i++) {
        if (key->bytes[i] == '*')
            for (uint32_t n = draw(m, 3); n > 0; n--)
                text_add(&t, draw_literal(m));
        else if (key->bytes[i] == '?')
            text_add(&t, draw_literal(m));
        else if (key->bytes[i] == '[') {
            text_add(&t, LIT("b"));
            while (i + 1 < key->len && key->bytes[i] != ']')
                i++;
        } else
            text_add(&t, (struct lonely_span){ key->bytes + i, 1 });
    }
    return t;
}

static struct text draw_url(struct model *m, uint32_t urls)
{
    char buf[32];
    struct text t = { .len = 0 };

    snprintf(buf, sizeof(buf), "http://u/%u", (unsigned)draw(m, urls));
    text_add(&t, span(buf));
    return t;
}

static struct model_row draw_row(struct model *m, uint32_t urls, uint32_t keys)
{
    struct model_row r = { .kind = draw(m, 3) == 0 ? STORE_EXACT : STORE_GLOB };

    uint64_t rng = m->rng;

    if (keys > 0) { /* one of few keys, so that they get many urls */
        m->rng = draw(m, keys);
        r.kind = m->rng % 2 == 0 ? STORE_EXACT : STORE_GLOB;
    }
    r.key = r.kind == STORE_EXACT ? draw_topic(m) : draw_glob(m);
    if (keys > 0)
        m->rng = rng * 3 + 1;
    r.url = draw_url(m, urls);
    if (draw(m, 4) == 0)
        r.recovery = draw_url(m, 3);
    return r;
}

static struct model_row *model_find(struct model *m, const struct model_row *r)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->rows[i].kind == r->kind && text_equal(&m->rows[i].url, &r->url) &&
            text_equal(&m->rows[i].key, &r->key))
            return &m->rows[i];
    return NULL;
}

static void model_put(struct model *m, const struct model_row *r)
{
    struct model_row *present = model_find(m, r);

    if (present == NULL) {
        assert_true(m->count < MODEL_MAX);
        present = &m->rows[m->count++];
    }
    *present = *r;
}

static void model_take(struct model *m, const struct model_row *r)
{
    struct model_row *present = model_find(m, r);

    if (present != NULL)
        *present = m->rows[--m->count];
}

static struct store_row store_row_of(const struct model_row *r)
{
    return (struct store_row){ r->kind, text_span(&r->url), text_span(&r->key),
                               text_span(&r->recovery) };
}

static bool row_matches(const struct model_row *r, struct lonely_span topic)
{
    if (r->kind == STORE_EXACT)
        return table_span_equal(text_span(&r->key), topic) != 0;
    return lonely_glob_matches(text_span(&r->key), topic);
}

static bool same(const struct subscription *s, const struct model_row *r)
{
    struct lonely_span url = { (const uint8_t *)s->url->text, s->url->len };
    struct lonely_span recovery = { NULL, 0 };

    if (s->recovery != NULL)
        recovery = (struct lonely_span){ (const uint8_t *)s->recovery->text, s->recovery->len };
    return s->kind == r->kind && table_span_equal(url, text_span(&r->url)) &&
           table_span_equal(s->key, text_span(&r->key)) &&
           table_span_equal(recovery, text_span(&r->recovery));
}

/* Each matching row once, nothing else, exacts first. */
static void check_match(struct index *index, const struct model *m, struct lonely_span topic)
{
    static bool given[MODEL_MAX];
    struct index_matches matches;
    size_t expected = 0;
    bool globs_began = false;

    assert_true(index_match(index, topic, UINT64_MAX, &matches));
    memset(given, 0, sizeof(given));
    for (size_t i = 0; i < m->count; i++)
        expected += row_matches(&m->rows[i], topic);
    if (matches.count != expected)
        fail_msg("%zu matches instead of %zu", matches.count, expected);
    for (size_t k = 0; k < matches.count; k++) {
        size_t i = 0;
        while (i < m->count && (given[i] || !same(matches.items[k], &m->rows[i]) ||
                                !row_matches(&m->rows[i], topic)))
            i++;
        assert_true(i < m->count);
        given[i] = true;
        assert_false(globs_began && matches.items[k]->kind == STORE_EXACT);
        globs_began = matches.items[k]->kind == STORE_GLOB;
    }
    index_matches_release(&matches);
}

static void check_counts(struct index *index, const struct model *m)
{
    struct index_counts counts = index_counts(index);
    size_t exacts = 0;

    for (size_t i = 0; i < m->count; i++)
        exacts += m->rows[i].kind == STORE_EXACT;
    assert_int_equal(counts.exacts, exacts);
    assert_int_equal(counts.globs, m->count - exacts);
}

/* A batch of changes. */
static void random_changes(struct index *index, struct model *m, uint32_t urls, uint32_t keys)
{
    struct store_feed f = index_feed(index);

    f.change_begin(f.arg);
    for (uint32_t n = draw(m, 20); n > 0; n--) {
        bool removal = m->count > 0 && draw(m, m->count > 400 ? 2 : 3) == 0;
        struct model_row r = draw_row(m, urls, keys);
        if (removal && draw(m, 4) > 0)
            r = m->rows[draw(m, (uint32_t)m->count)];
        struct store_row row = store_row_of(&r);
        (removal ? f.remove : f.add)(f.arg, &row);
        (removal ? model_take : model_put)(m, &r);
    }
    f.change_end(f.arg);
}

/* A load: given up, or a new content. */
static void random_load(struct index *index, struct model *m, uint32_t urls, uint32_t keys)
{
    struct store_feed f = index_feed(index);
    bool abort_it = draw(m, 2) == 0;
    uint32_t n = draw(m, 300);

    if (!abort_it)
        m->count = 0;
    f.load_begin(f.arg);
    for (; n > 0; n--) {
        struct model_row r = draw_row(m, urls, keys);
        struct store_row row = store_row_of(&r);
        f.add(f.arg, &row);
        if (!abort_it)
            model_put(m, &r);
    }
    (abort_it ? f.load_abort : f.load_end)(f.arg);
}

static void remove_all(struct index *index, struct model *m)
{
    while (m->count > 0) {
        uint32_t i = draw(m, (uint32_t)m->count);
        feed_one(index, false, store_row_of(&m->rows[i]));
        m->rows[i] = m->rows[--m->count];
    }
}

static void differential(uint64_t seed, uint32_t urls, uint32_t keys, int rounds)
{
    static struct model m;
    struct index *index = index_create();
    uint64_t empty_bytes = index_counts(index).bytes;

    m.count = 0;
    m.rng = seed;
    for (int i = 0; i < rounds; i++) {
        if (draw(&m, 100) == 0)
            random_load(index, &m, urls, keys);
        else
            random_changes(index, &m, urls, keys);
        for (int k = 0; k < 6; k++) {
            struct text topic =
                m.count > 0 && draw(&m, 4) > 0 ? draw_topic_of_row(&m) : draw_topic(&m);
            check_match(index, &m, text_span(&topic));
        }
        check_counts(index, &m);
    }
    remove_all(index, &m);
    assert_int_equal(index_counts(index).bytes, empty_bytes);
    assert_int_equal(index_counts(index).urls, 0);
    index_destroy(index);
}

static void test_differential_many_keys(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++)
        differential(seed, 5, 0, 700);
}

static void test_differential_many_urls(void **state)
{
    (void)state;
    for (uint64_t seed = 11; seed <= 14; seed++)
        differential(seed, 60, 12, 700);
}

/* The feed's rules. */

static void test_add_replaces_recovery(void **state)
{
    static const enum store_kind kinds[] = { STORE_EXACT, STORE_GLOB };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(kinds); i++) {
        struct index *index = index_create();
        struct index_matches before, same_again, after;

        feed_one(index, true, row_of(kinds[i], "u", "t", "r1"));
        assert_true(index_match(index, LIT("t"), UINT64_MAX, &before));
        feed_one(index, true, row_of(kinds[i], "u", "t", "r1"));
        assert_true(index_match(index, LIT("t"), UINT64_MAX, &same_again));
        assert_int_equal(same_again.count, 1);
        assert_ptr_equal(before.items[0], same_again.items[0]);

        feed_one(index, true, row_of(kinds[i], "u", "t", ""));
        assert_true(index_match(index, LIT("t"), UINT64_MAX, &after));
        assert_int_equal(after.count, 1);
        assert_null(after.items[0]->recovery);
        assert_string_equal(before.items[0]->recovery->text, "r1");
        assert_int_equal(index_counts(index).urls, 1);
        index_matches_release(&before);
        index_matches_release(&same_again);
        index_matches_release(&after);
        index_destroy(index);
    }
}

static void test_remove_of_what_is_not_there(void **state)
{
    struct index *index = index_create();

    (void)state;
    add(index, STORE_EXACT, "u", "t");
    uint64_t bytes = index_counts(index).bytes;
    feed_one(index, false, row_of(STORE_GLOB, "u", "t", ""));
    feed_one(index, false, row_of(STORE_EXACT, "v", "t", ""));
    feed_one(index, false, row_of(STORE_EXACT, "u", "s", ""));
    assert_int_equal(match_count(index, LIT("t"), UINT64_MAX), 1);
    assert_int_equal(index_counts(index).bytes, bytes);
    index_destroy(index);
}

static void test_references_outlive_the_index(void **state)
{
    struct index *index = index_create();
    struct index_matches m;

    (void)state;
    feed_one(index, true, row_of(STORE_EXACT, "u", "t", "r"));
    feed_one(index, true, row_of(STORE_GLOB, "u", "t*", ""));
    assert_true(index_match(index, LIT("t"), UINT64_MAX, &m));
    assert_int_equal(m.count, 2);
    struct subscription *kept = m.items[0];
    subscription_ref(kept);
    index_destroy(index);

    assert_string_equal(m.items[0]->url->text, "u");
    assert_true(table_span_equal(m.items[1]->key, LIT("t*")));
    index_matches_release(&m);
    assert_string_equal(kept->recovery->text, "r");
    assert_true(table_span_equal(kept->key, LIT("t")));
    subscription_unref(kept);
    subscription_unref(NULL);
    index_destroy(NULL);
}

/* Threads: whatever is fed, these are found. */

struct shared {
    struct index *index;
    atomic_bool stop;
    atomic_uint failures;
};

static void *reader(void *arg)
{
    struct shared *s = arg;
    struct index_matches m;

    while (!atomic_load(&s->stop)) {
        if (!index_match(s->index, LIT("stable"), UINT64_MAX, &m) || m.count != 3 ||
            m.items[0]->url->text[0] != 'u')
            atomic_fetch_add(&s->failures, 1);
        index_matches_release(&m);
        index_match(s->index, LIT("k7/other"), UINT64_MAX, &m);
        for (size_t i = 0; i < m.count; i++)
            if (m.items[i]->url->text[0] != 'v')
                atomic_fetch_add(&s->failures, 1);
        index_matches_release(&m);
        if (index_counts(s->index).globs < 1)
            atomic_fetch_add(&s->failures, 1);
    }
    return NULL;
}

static void feed_stable(const struct store_feed *f, bool remove_first)
{
    struct store_row rows[] = { row_of(STORE_EXACT, "u", "stable", "r"),
                                row_of(STORE_GLOB, "u", "st*", ""),
                                row_of(STORE_GLOB, "u", "*[k-m]?", "") };

    for (size_t i = 0; i < TABLE_LEN(rows); i++) {
        if (remove_first)
            f->remove(f->arg, &rows[i]);
        f->add(f->arg, &rows[i]);
    }
}

static void feed_noise(const struct store_feed *f, struct model *m, unsigned n)
{
    char key[32], url[32];

    for (unsigned i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "k%u/%s", (unsigned)draw(m, 50), i % 2 == 0 ? "*" : "other");
        snprintf(url, sizeof(url), "v%u", (unsigned)draw(m, 20));
        struct store_row row = row_of(i % 2 == 0 ? STORE_GLOB : STORE_EXACT, url, key, "");
        (draw(m, 2) == 0 ? f->add : f->remove)(f->arg, &row);
    }
}

static void test_threads(void **state)
{
    static struct model m = { .rng = 77 };
    struct shared s = { .index = index_create() };
    struct store_feed f = index_feed(s.index);
    pthread_t readers[2];

    (void)state;
    f.change_begin(f.arg);
    feed_stable(&f, false);
    f.change_end(f.arg);
    for (size_t i = 0; i < TABLE_LEN(readers); i++)
        assert_int_equal(pthread_create(&readers[i], NULL, reader, &s), 0);
    for (int round = 0; round < 2000; round++) {
        bool load = round % 20 == 0;
        (load ? f.load_begin : f.change_begin)(f.arg);
        feed_noise(&f, &m, draw(&m, 40));
        feed_stable(&f, !load); /* removed and added in one batch: never absent */
        (load ? f.load_end : f.change_end)(f.arg);
    }
    atomic_store(&s.stop, true);
    for (size_t i = 0; i < TABLE_LEN(readers); i++)
        pthread_join(readers[i], NULL);
    assert_int_equal(atomic_load(&s.failures), 0);
    index_destroy(s.index);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_differential_many_keys),
        cmocka_unit_test(test_differential_many_urls),
        cmocka_unit_test(test_add_replaces_recovery),
        cmocka_unit_test(test_remove_of_what_is_not_there),
        cmocka_unit_test(test_references_outlive_the_index),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
