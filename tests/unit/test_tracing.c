/* The tracing field of RESPONSE_NOTIFY: minimal, bounded, read back, cut short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <lonely/tracing.h>

#include "tables.h"

static uint8_t field[65535 + 64];

static void writes_the_minimum(void **state)
{
    static const char want[] =
        "00 0002"
        "000d 617574685f6163636570746564 0002 7b7d 3ff8000000000000"
        "0013 6e6f5f6d6f72655f7375627363726962657273 0002 7b7d 4000000000000000"
        "0000000000000003 0102030405060708";
    uint8_t expected[LONELY_TRACING_MINIMAL_BYTES];
    struct guard g = guard_create(LONELY_TRACING_MINIMAL_BYTES);
    uint8_t *got = guard_room(&g, LONELY_TRACING_MINIMAL_BYTES);

    (void)state;
    assert_int_equal(table_unhex(want, expected, sizeof(expected)), sizeof(expected));
    lonely_tracing_minimal(1.5, 2.0, 3, UINT64_C(0x0102030405060708), got);
    assert_memory_equal(got, expected, sizeof(expected));
    guard_destroy(&g);
}

static void prefix_is_truncated(struct lonely_span prefix, void *arg)
{
    struct lonely_tracing t;
    struct lonely_result r = lonely_tracing_parse(prefix, &t);

    (void)arg;
    assert_int_equal(r.err, LONELY_E_TRUNCATED);
    assert_true(r.at <= prefix.len);
}

static void reads_what_was_written(void **state)
{
    uint8_t minimal[LONELY_TRACING_MINIMAL_BYTES];
    struct guard g = guard_create(sizeof(minimal) + 1);
    struct lonely_span span = { minimal, sizeof(minimal) };
    struct lonely_tracing_entry e;
    struct lonely_tracing t;
    struct lonely_result r;

    (void)state;
    lonely_tracing_minimal(1.5, 2.25, 3, UINT64_MAX, minimal);
    r = lonely_tracing_parse(guard_lay(&g, span), &t);
    assert_int_equal(r.err, LONELY_OK);
    assert_int_equal(r.at, sizeof(minimal));
    assert_false(t.truncated);
    assert_int_equal(t.count, 2);
    assert_true(t.received_ns == 3 && t.sent_ns == UINT64_MAX);
    assert_true(lonely_tracing_next(&t, &e));
    assert_true(table_span_equal(e.name, LIT("auth_accepted")) && e.occurred_s == 1.5);
    assert_true(table_span_equal(e.extra, LIT("{}")));
    assert_true(lonely_tracing_next(&t, &e));
    assert_true(table_span_equal(e.name, LIT("no_more_subscribers")) && e.occurred_s == 2.25);
    assert_false(lonely_tracing_next(&t, &e));
    assert_int_equal(t.count + t.entries.len, 0);
    guard_each_prefix(&g, span, prefix_is_truncated, NULL);
    guard_destroy(&g);
}

static const struct foreign_case {
    const char *name, *hex;
    enum lonely_error err;
    size_t at;
} foreign_cases[] = {
    { "no entry", "00 0000 0000000000000001 0000000000000002", LONELY_OK, 19 },
    { "bytes behind", "01 0000 0000000000000001 0000000000000002 ff", LONELY_OK, 19 },
    { "empty entry", "00 0001 0000 0000 7ff8000000000000 0000000000000000 0000000000000000",
      LONELY_OK, 31 },
    { "empty field", "", LONELY_E_TRUNCATED, 0 },
    { "count without entries", "00 ffff", LONELY_E_TRUNCATED, 3 },
    { "name runs past the end", "00 0001 ffff 61", LONELY_E_TRUNCATED, 3 },
    { "extra runs past the end", "00 0001 0000 0001", LONELY_E_TRUNCATED, 5 },
};

static void reads_what_others_write(void **state)
{
    struct guard g = guard_create(64);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(foreign_cases); i++) {
        const struct foreign_case *c = &foreign_cases[i];
        uint8_t bytes[64];
        struct lonely_span span = { bytes, table_unhex(c->hex, bytes, sizeof(bytes)) };
        struct lonely_tracing t;
        struct lonely_result r = lonely_tracing_parse(guard_lay(&g, span), &t);

        if (r.err != c->err || r.at != c->at)
            fail_msg("%s: %s at %zu", c->name, lonely_error_name(r.err), r.at);
        if (r.err == LONELY_OK)
            assert_int_equal(t.truncated, bytes[0]);
    }
    guard_destroy(&g);
}

/* An entry of `len` bytes on the wire. */
static void add_of_size(struct lonely_tracing_writer *w, size_t len)
{
    static uint8_t extra[65536];

    lonely_tracing_writer_add(w, LIT("n"), (struct lonely_span){ extra, len - 13 }, 0.0);
}

static void stops_at_the_limit(void **state)
{
    struct lonely_tracing_writer w;
    struct lonely_tracing t;
    size_t len;

    (void)state;
    for (size_t over = 0; over < 2; over++) {
        memset(field, 0xee, sizeof(field));
        assert_int_equal(lonely_tracing_writer_init(&w, field, sizeof(field)), LONELY_OK);
        add_of_size(&w, 1000);
        add_of_size(&w, LONELY_TRACING_ENTRIES_MAX_BYTES - 3 - 1000 + over);
        add_of_size(&w, over == 0 ? 13 : 14); /* would fit in the second round */
        len = lonely_tracing_writer_finish(&w, 1, 2);
        assert_int_equal(len, over == 0 ? 65534 : 3 + 1000 + 16); /* (doc/protocol/tracing.md, 3) */
        assert_int_equal(field[65534], 0xee);
        assert_int_equal(lonely_tracing_parse((struct lonely_span){ field, len }, &t).at, len);
        assert_true(t.truncated);
        assert_int_equal(t.count, over == 0 ? 2 : 1);
    }
}

static void fields_longer_than_16_bits_are_left_out(void **state)
{
    struct lonely_tracing_writer w;

    (void)state;
    assert_int_equal(lonely_tracing_writer_init(&w, field, sizeof(field)), LONELY_OK);
    add_of_size(&w, 13 + 65536);
    assert_int_equal(lonely_tracing_writer_finish(&w, 0, 0), 19);
    assert_int_equal(field[0], 1);
}

static void uses_the_room_there_is(void **state)
{
    struct guard g = guard_create(32);
    struct lonely_tracing_writer w;

    (void)state;
    assert_int_equal(lonely_tracing_writer_init(&w, field, 18), LONELY_E_NO_SPACE);
    assert_int_equal(lonely_tracing_writer_init(&w, guard_room(&g, 32), 32), LONELY_OK);
    add_of_size(&w, 13);
    assert_int_equal(lonely_tracing_writer_finish(&w, 0, 0), 32);
    assert_int_equal(guard_room(&g, 32)[0], 0);
    assert_int_equal(lonely_tracing_writer_init(&w, guard_room(&g, 31), 31), LONELY_OK);
    add_of_size(&w, 13);
    assert_int_equal(lonely_tracing_writer_finish(&w, 0, 0), 19);
    assert_int_equal(guard_room(&g, 31)[0], 1);
    guard_destroy(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_the_minimum),
        cmocka_unit_test(reads_what_was_written),
        cmocka_unit_test(reads_what_others_write),
        cmocka_unit_test(stops_at_the_limit),
        cmocka_unit_test(fields_longer_than_16_bits_are_left_out),
        cmocka_unit_test(uses_the_room_there_is),
    };

    return cmocka_run_group_tests_name("tracing", tests, NULL, NULL);
}
