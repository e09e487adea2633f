/*
 * Globs: the odd cases of the rules, what a pattern is analysed to, literal runs, matching in
 * portions, and the verdicts of the SQLite at hand on random pairs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <sqlite3.h>

#include <lonely/glob.h>

#include "tables.h"

static const struct match_case {
    const char *name;
    struct lonely_span pattern, topic;
    bool match;
} match_cases[] = {
    { "empty on empty", LIT_INIT(""), LIT_INIT(""), true },
    { "empty on one", LIT_INIT(""), LIT_INIT("a"), false },
    { "star takes nothing", LIT_INIT("a*"), LIT_INIT("a"), true },
    { "stars around", LIT_INIT("**a**"), LIT_INIT("xay"), true },
    { "slash is ordinary", LIT_INIT("a*d"), LIT_INIT("a/b/c/d"), true },
    { "question is one code point", LIT_INIT("?"), LIT_INIT("\xf0\x9f\x98\x80"), true },
    { "question is not a byte", LIT_INIT("??"), LIT_INIT("\xc3\xa9"), false },
    { "pieces in order", LIT_INIT("*b*a*"), LIT_INIT("ab"), false },
    { "pieces do not overlap", LIT_INIT("*ab*ba*"), LIT_INIT("aba"), false },
    { "prefix and suffix do not overlap", LIT_INIT("aba*aba"), LIT_INIT("aba"), false },
    { "the last piece is at the end", LIT_INIT("*a?"), LIT_INIT("abac"), true },
    { "the second but last is not", LIT_INIT("*a?"), LIT_INIT("abca"), false },
    { "retry behind a false start", LIT_INIT("*aab?"), LIT_INIT("aaaabc"), true },
    { "set", LIT_INIT("[abc]"), LIT_INIT("b"), true },
    { "inverted", LIT_INIT("[^abc]"), LIT_INIT("b"), false },
    { "inverted needs one", LIT_INIT("[^abc]"), LIT_INIT(""), false },
    { "exclamation is a member", LIT_INIT("[!a]"), LIT_INIT("!"), true },
    { "bracket first", LIT_INIT("[]a]"), LIT_INIT("]"), true },
    { "bracket first, inverted", LIT_INIT("[^]a]"), LIT_INIT("]"), false },
    { "bracket first starts no range", LIT_INIT("[]-a]"), LIT_INIT("^"), false },
    { "so the hyphen is a member", LIT_INIT("[]-a]"), LIT_INIT("-"), true },
    { "range", LIT_INIT("[a-c]"), LIT_INIT("b"), true },
    { "range backwards holds its start", LIT_INIT("[c-a]"), LIT_INIT("c"), true },
    { "range backwards holds no more", LIT_INIT("[c-a]"), LIT_INIT("a"), false },
    { "end of a range starts none", LIT_INIT("[a-c-e]"), LIT_INIT("d"), false },
    { "hyphen last", LIT_INIT("[a-]"), LIT_INIT("-"), true },
    { "hyphen to letter", LIT_INIT("[--a]"), LIT_INIT("A"), true },
    { "range over code points", LIT_INIT("[\xc3\xa0-\xc3\xbf]"), LIT_INIT("\xc3\xa9"), true },
    { "unclosed", LIT_INIT("*["), LIT_INIT("["), false },
    { "unclosed behind its bracket", LIT_INIT("[]"), LIT_INIT("]"), false },
    { "unclosed behind all that matters", LIT_INIT("*a*[^"), LIT_INIT("a"), false },
    { "set of a star", LIT_INIT("[*]"), LIT_INIT("*"), true },
    { "backslash escapes nothing", LIT_INIT("\\*"), LIT_INIT("\\x"), true },
    { "bracket outside a set", LIT_INIT("a]"), LIT_INIT("a]"), true },
    { "topic ends at NUL", LIT_INIT("a"), LIT_INIT("a\0b"), true },
    { "pattern ends at NUL", LIT_INIT("a\0*"), LIT_INIT("ab"), false },
    { "a set is cut by NUL", LIT_INIT("[a\0]"), LIT_INIT("a"), false },
    { "not UTF-8 behind NUL", LIT_INIT("*"), LIT_INIT("a\0\xff"), false },
    { "not UTF-8", LIT_INIT("*"), LIT_INIT("\xff"), false },
    { "pattern not UTF-8", LIT_INIT("\xff"), LIT_INIT("\xff"), false },
    { "noncharacters are the replacement", LIT_INIT("\xef\xbf\xbe"), LIT_INIT("\xef\xbf\xbd"),
      true },
    { "and the other way round", LIT_INIT("\xef\xbf\xbd"), LIT_INIT("\xef\xbf\xbf"), true },
    { "in the middle", LIT_INIT("*\xef\xbf\xbe*b"),
      LIT_INIT("a\xef\xbf\xbf"
               "ab"),
      true },
    { "in a set", LIT_INIT("[\xef\xbf\xbe]"), LIT_INIT("\xef\xbf\xbf"), true },
    { "their neighbour is itself", LIT_INIT("\xef\xbf\xbc*"), LIT_INIT("\xef\xbf\xbc"), true },
    { "their neighbour is not they", LIT_INIT("?*\xef\xbf\xbc"), LIT_INIT("a\xef\xbf\xbd"), false },
    { "noncharacters of other planes", LIT_INIT("\xf0\x9f\xbf\xbe"), LIT_INIT("\xf0\x9f\xbf\xbf"),
      false },
};

static void gives_the_verdicts_of_the_rules(void **state)
{
    struct guard pattern = guard_create(64), topic = guard_create(64);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(match_cases); i++) {
        const struct match_case *c = &match_cases[i];

        if (lonely_glob_matches(guard_lay(&pattern, c->pattern), guard_lay(&topic, c->topic)) !=
            c->match)
            fail_msg("%s", c->name);
    }
    guard_destroy(&pattern);
    guard_destroy(&topic);
}

static const struct analysis_case {
    struct lonely_span pattern, prefix, suffix;
    unsigned min_len;
    bool never, literal, plain;
} analysis_cases[] = {
    { LIT_INIT(""), LIT_INIT(""), LIT_INIT(""), 0, false, true, true },
    { LIT_INIT("abc"), LIT_INIT("abc"), LIT_INIT(""), 3, false, true, true },
    { LIT_INIT("abc\0*"), LIT_INIT("abc"), LIT_INIT(""), 3, false, true, true },
    { LIT_INIT("*"), LIT_INIT(""), LIT_INIT(""), 0, false, false, true },
    { LIT_INIT("a/*/b"), LIT_INIT("a/"), LIT_INIT("/b"), 4, false, false, true },
    { LIT_INIT("a*bc*d"), LIT_INIT("a"), LIT_INIT("d"), 4, false, false, true },
    { LIT_INIT("a?b"), LIT_INIT("a"), LIT_INIT("b"), 3, false, false, false },
    { LIT_INIT("a[xyz]*[]]b"), LIT_INIT("a"), LIT_INIT("b"), 4, false, false, false },
    { LIT_INIT("a[xyz"), LIT_INIT("a"), LIT_INIT(""), 1, true, false, false },
    { LIT_INIT("a\xef\xbf\xbd"
               "b"),
      LIT_INIT("a"), LIT_INIT("b"), 5, false, false, false },
};

static void analyses_patterns(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(analysis_cases); i++) {
        const struct analysis_case *c = &analysis_cases[i];
        struct lonely_glob g;

        assert_int_equal(lonely_glob_compile(c->pattern, &g), LONELY_OK);
        if (!table_span_equal(g.prefix, c->prefix) || !table_span_equal(g.suffix, c->suffix) ||
            g.min_len != c->min_len || g.never != c->never || g.literal != c->literal ||
            g.plain != c->plain)
            fail_msg("pattern %.*s", (int)c->pattern.len, (const char *)c->pattern.ptr);
    }
}

static void refuses_patterns(void **state)
{
    static uint8_t longest[LONELY_GLOB_MAX_BYTES + 1];
    struct lonely_glob g;

    (void)state;
    memset(longest, 'a', sizeof(longest));
    assert_int_equal(lonely_glob_compile(LIT("a\xc3"), &g), LONELY_E_UTF8);
    assert_int_equal(lonely_glob_compile(LIT("a\0\xff"), &g), LONELY_E_UTF8);
    assert_int_equal(
        lonely_glob_compile((struct lonely_span){ longest, LONELY_GLOB_MAX_BYTES }, &g), LONELY_OK);
    assert_int_equal(
        lonely_glob_compile((struct lonely_span){ longest, LONELY_GLOB_MAX_BYTES + 1 }, &g),
        LONELY_E_FIELD_SIZE);
}

static const struct literal_case {
    struct lonely_span pattern;
    const char *runs; /* each followed by a comma */
} literal_cases[] = {
    { LIT_INIT(""), "" },
    { LIT_INIT("abc"), "abc," },
    { LIT_INIT("***"), "" },
    { LIT_INIT("ab*c?d[xyz]ef"), "ab,c,d,ef," },
    { LIT_INIT("[x]*?"), "" },
    { LIT_INIT("a[xyz"), "" },
    { LIT_INIT("ab*[]*]c*"), "ab,c," },
    { LIT_INIT("ab\0cd"), "ab," },
    { LIT_INIT("\xc3\xa9*\xef\xbf\xbd"
               "b\xef\xbf\xbe\xef\xbf\xbf\xef\xbf\xbc"),
      "\xc3\xa9,b,\xef\xbf\xbc," },
};

static void walks_literal_runs(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(literal_cases); i++) {
        struct lonely_span run;
        struct lonely_glob g;
        char got[64] = "";
        size_t at = 0, n = 0;

        assert_int_equal(lonely_glob_compile(literal_cases[i].pattern, &g), LONELY_OK);
        while (lonely_glob_next_literal(&g, &at, &run))
            n += (size_t)snprintf(got + n, sizeof(got) - n, "%.*s,", (int)run.len,
                                  (const char *)run.ptr);
        assert_string_equal(got, literal_cases[i].runs);
        assert_false(lonely_glob_next_literal(&g, &at, &run));
    }
}

/* xorshift: the same pairs in every run. */
static uint32_t random_below(uint64_t *seed, uint32_t n)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (uint32_t)(*seed >> 33) % n;
}

static size_t random_text(uint64_t *seed, const char *const *alphabet, uint32_t letters,
                          uint32_t longest, uint8_t *out)
{
    size_t at = 0;

    for (uint32_t n = random_below(seed, longest + 1); n > 0; n--) {
        const char *letter = alphabet[random_below(seed, letters)];
        size_t len = letter[0] == '\0' ? 1 : strlen(letter); /* "" stands for NUL */

        memcpy(out + at, letter, len);
        at += len;
    }
    return at;
}

static bool sqlite_matches(sqlite3_stmt *ask, struct lonely_span pattern, struct lonely_span topic)
{
    bool match;

    sqlite3_reset(ask);
    sqlite3_bind_text(ask, 1, (const char *)topic.ptr, (int)topic.len, SQLITE_STATIC);
    sqlite3_bind_text(ask, 2, (const char *)pattern.ptr, (int)pattern.len, SQLITE_STATIC);
    assert_int_equal(sqlite3_step(ask), SQLITE_ROW);
    match = sqlite3_column_int(ask, 0) != 0;
    return match;
}

static bool matches_in_portions(struct lonely_span pattern, struct lonely_span topic,
                                uint64_t portion)
{
    struct lonely_glob_state at = { 0 };
    enum lonely_glob_verdict v = LONELY_GLOB_MORE;
    struct lonely_glob_topic t;
    struct lonely_glob g;

    assert_int_equal(lonely_glob_compile(pattern, &g), LONELY_OK);
    assert_true(lonely_glob_topic_init(topic, &t));
    for (int calls = 0; v == LONELY_GLOB_MORE; calls++) {
        uint64_t steps = portion;

        v = lonely_glob_match(&g, &t, &at, &steps);
        assert_true(steps < portion && calls < 10000);
    }
    return v == LONELY_GLOB_MATCH;
}

static void agrees_with_sqlite(void **state)
{
    static const char *const alphabet[] = { "a",
                                            "b",
                                            "c",
                                            "*",
                                            "*",
                                            "?",
                                            "[",
                                            "]",
                                            "^",
                                            "-",
                                            "\xc3\xa9",
                                            "\xef\xbf\xbd",
                                            "a",
                                            "[a-c]",
                                            "\xef\xbf\xbe",
                                            "\xef\xbf\xbf",
                                            "",
                                            "\xe2\x98\x83" };
    static const char *const letters[] = { "a", "b", "c", "]", "-", "a", "\xc3\xa9", "\xef\xbf\xbf",
                                           "" };
    uint64_t seed = UINT64_C(0x9e3779b97f4a7c15);
    uint8_t pattern_bytes[128], topic_bytes[128];
    sqlite3 *db;
    sqlite3_stmt *ask;
    int matched = 0;

    (void)state;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT ?1 GLOB ?2", -1, &ask, NULL), SQLITE_OK);
    for (int i = 0; i < 20000; i++) {
        struct lonely_span p = { pattern_bytes, 0 }, t = { topic_bytes, 0 };
        bool want;

        p.len = random_text(&seed, alphabet, TABLE_LEN(alphabet), 8, pattern_bytes);
        t.len = random_text(&seed, letters, TABLE_LEN(letters) - (i % 8 != 0), 6, topic_bytes);
        want = sqlite_matches(ask, p, t);
        matched += want;
        if (lonely_glob_matches(p, t) != want || matches_in_portions(p, t, 1) != want)
            fail_msg("pair %d: pattern %.*s, topic %.*s", i, (int)p.len, (char *)pattern_bytes,
                     (int)t.len, (char *)topic_bytes);
    }
    assert_in_range(matched, 1000, 19000); /* or the pairs say little */
    sqlite3_finalize(ask);
    sqlite3_close(db);
}

/* The worst there is for one `*`: every start looks good until the very end. */
static void bounds_every_call(void **state)
{
    static uint8_t pattern[4001], topic[20000];
    struct lonely_glob_state at = { 0 };
    struct lonely_glob_topic t;
    struct lonely_glob g;
    uint64_t spent = 0;

    (void)state;
    memset(topic, 'a', sizeof(topic));
    memset(pattern, 'a', sizeof(pattern));
    pattern[0] = '*';
    pattern[sizeof(pattern) - 2] = 'b';
    pattern[sizeof(pattern) - 1] = '?';
    assert_int_equal(lonely_glob_compile((struct lonely_span){ pattern, sizeof(pattern) }, &g),
                     LONELY_OK);
    assert_true(lonely_glob_topic_init((struct lonely_span){ topic, sizeof(topic) }, &t));
    for (;;) {
        uint64_t steps = 1000000;
        enum lonely_glob_verdict v = lonely_glob_match(&g, &t, &at, &steps);

        spent += 1000000 - steps;
        if (v == LONELY_GLOB_NO_MATCH)
            break;
        assert_int_equal(v, LONELY_GLOB_MORE);
        assert_true(steps == 0 && spent < 2 * sizeof(pattern) * sizeof(topic));
    }
    assert_true(spent > 3000 * 16000); /* it did have to look */
}

static void nothing_happens_without_steps(void **state)
{
    struct lonely_glob_state at = { 0 };
    struct lonely_glob_topic t;
    struct lonely_glob g;
    uint64_t steps = 0;

    (void)state;
    assert_int_equal(lonely_glob_compile(LIT("a"), &g), LONELY_OK);
    assert_true(lonely_glob_topic_init(LIT("a"), &t));
    assert_int_equal(lonely_glob_match(&g, &t, &at, &steps), LONELY_GLOB_MORE);
    assert_false(at.started);
    steps = 1;
    assert_int_equal(lonely_glob_match(&g, &t, NULL, &steps), LONELY_GLOB_MATCH);
}

/* What a match left behind must not become the beginning of another, on a shorter topic. */
static void a_finished_match_leaves_a_fresh_state(void **state)
{
    static const struct lonely_glob_state fresh;
    static const struct {
        struct lonely_span pattern, topic;
        enum lonely_glob_verdict verdict;
    } pairs[] = {
        { LIT_INIT("ab*?c*long suffix"), LIT_INIT("ab, xc, long suffix"), LONELY_GLOB_MATCH },
        { LIT_INIT("ab*?c*long suffix"), LIT_INIT("a"), LONELY_GLOB_NO_MATCH },
        { LIT_INIT("ab*?c*long suffix"), LIT_INIT("ab, xx, long suffix"), LONELY_GLOB_NO_MATCH },
        { LIT_INIT("*b"), LIT_INIT("b"), LONELY_GLOB_MATCH },
        { LIT_INIT("b"), LIT_INIT("b"), LONELY_GLOB_MATCH },
        { LIT_INIT("*long suffix"), LIT_INIT(""), LONELY_GLOB_NO_MATCH },
    };
    struct guard g = guard_create(64);
    struct lonely_glob_state at = { 0 };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(pairs); i++) {
        struct lonely_glob_topic t;
        struct lonely_glob pattern;

        assert_int_equal(lonely_glob_compile(pairs[i].pattern, &pattern), LONELY_OK);
        assert_true(lonely_glob_topic_init(guard_lay(&g, pairs[i].topic), &t));
        for (int twice = 0; twice < 2; twice++) {
            assert_int_equal(lonely_glob_match(&pattern, &t, &at, NULL), pairs[i].verdict);
            assert_memory_equal(&at, &fresh, sizeof(at));
        }
    }
    guard_destroy(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_verdicts_of_the_rules),
        cmocka_unit_test(analyses_patterns),
        cmocka_unit_test(refuses_patterns),
        cmocka_unit_test(walks_literal_runs),
        cmocka_unit_test(agrees_with_sqlite),
        cmocka_unit_test(bounds_every_call),
        cmocka_unit_test(nothing_happens_without_steps),
        cmocka_unit_test(a_finished_match_leaves_a_fresh_state),
    };

    return cmocka_run_group_tests_name("glob", tests, NULL, NULL);
}
