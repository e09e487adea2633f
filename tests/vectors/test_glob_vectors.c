/*
 * Globs against glob.jsonl: every line, in one go and a step at a time, pattern and topic against
 * an unreadable page.                                              (tests/vectors/README.md)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <lonely/glob.h>

#include "tables.h"
#include "vectors.h"

static struct guard pattern_guard, topic_guard;

static void check_line(void **state)
{
    const json_t *line = *state;
    struct vec_bytes pattern = vec_get_bytes(line, "pattern_hex");
    struct vec_bytes topic = vec_get_bytes(line, "topic_hex");
    struct lonely_span laid = guard_lay(&topic_guard, vec_span(&topic));
    enum lonely_glob_verdict want =
        vec_bool(line, "match") ? LONELY_GLOB_MATCH : LONELY_GLOB_NO_MATCH;
    enum lonely_glob_verdict got = LONELY_GLOB_MORE;
    struct lonely_glob_state at = { 0 };
    struct lonely_glob_topic t;
    struct lonely_glob g;

    assert_int_equal(lonely_glob_compile(guard_lay(&pattern_guard, vec_span(&pattern)), &g),
                     LONELY_OK);
    assert_int_equal(lonely_glob_topic_init(laid, &t), vec_bool(line, "topic_utf8"));
    assert_int_equal(lonely_glob_matches(vec_span(&pattern), laid), want == LONELY_GLOB_MATCH);
    if (vec_bool(line, "topic_utf8")) {
        assert_int_equal(lonely_glob_match(&g, &t, NULL, NULL), want);
        while (got == LONELY_GLOB_MORE)
            got = lonely_glob_match(&g, &t, &at, &(uint64_t){ 1 });
        assert_int_equal(got, want);
    }
    vec_bytes_free(&pattern);
    vec_bytes_free(&topic);
}

int main(void)
{
    json_t *lines = vec_load_lines("glob.jsonl");
    int failed;

    pattern_guard = guard_create(LONELY_GLOB_MAX_BYTES);
    topic_guard = guard_create(65535);
    failed = vec_run("glob.jsonl", lines, "id", check_line, NULL, NULL);
    guard_destroy(&pattern_guard);
    guard_destroy(&topic_guard);
    json_decref(lines);
    return failed;
}
