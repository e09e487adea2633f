/* The strong etag against etag.jsonl: every line.                   (tests/vectors/README.md) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <lonely/etag.h>

#include "tables.h"
#include "vectors.h"

static struct lonely_etag etag;
static struct guard guard;

static struct lonely_span text(const json_t *value)
{
    if (value == NULL || json_is_null(value))
        return (struct lonely_span){ 0 };
    return (struct lonely_span){ (const uint8_t *)json_string_value(value),
                                 json_string_length(value) };
}

static enum lonely_error add_topics(const json_t *topics)
{
    enum lonely_error err = LONELY_OK;
    size_t i;
    json_t *row;

    json_array_foreach(topics, i, row)
    {
        struct vec_bytes topic = vec_get_bytes(row, "topic_hex");

        if (err == LONELY_OK)
            err = lonely_etag_add_topic(&etag, guard_lay(&guard, vec_span(&topic)),
                                        text(json_object_get(row, "recovery")));
        vec_bytes_free(&topic);
    }
    return err;
}

static enum lonely_error add_globs(const json_t *globs)
{
    enum lonely_error err = LONELY_OK;
    size_t i;
    json_t *row;

    json_array_foreach(globs, i, row)
    {
        if (err == LONELY_OK)
            err = lonely_etag_add_glob(&etag, guard_lay(&guard, text(vec_get(row, "glob"))),
                                       text(json_object_get(row, "recovery")));
    }
    return err;
}

static void check_line(void **state)
{
    const json_t *line = *state;
    uint8_t got[LONELY_ETAG_BYTES];
    enum lonely_error err = lonely_etag_init(&etag, text(vec_get(line, "url")));

    if (err == LONELY_OK)
        err = add_topics(vec_get(line, "topics"));
    if (err == LONELY_OK)
        err = add_globs(vec_get(line, "globs"));
    if (vec_bool(line, "valid")) {
        struct vec_bytes want = vec_get_bytes(line, "etag_hex");

        assert_int_equal(err, LONELY_OK);
        assert_int_equal(lonely_etag_final(&etag, got), LONELY_OK);
        assert_int_equal(want.len, sizeof(got));
        assert_memory_equal(got, want.ptr, sizeof(got));
        vec_bytes_free(&want);
    } else {
        assert_int_equal(err, LONELY_E_ORDER);
    }
}

int main(void)
{
    json_t *lines = vec_load_lines("etag.jsonl");
    int failed;

    guard = guard_create(65535);
    failed = vec_run("etag.jsonl", lines, "id", check_line, NULL, NULL);
    guard_destroy(&guard);
    json_decref(lines);
    return failed;
}
