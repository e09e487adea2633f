/* The cursors of the core: reader.h, writer.h, and the strict UTF-8 check of utf8.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "reader.h"
#include "tables.h"
#include "utf8.h"
#include "writer.h"

static uint8_t input[64];

static struct reader reader_over(const char *hex)
{
    return reader_of((struct lonely_span){ input, table_unhex(hex, input, sizeof(input)) });
}

static void reads_integers_big_endian(void **state)
{
    struct reader r = reader_over("01 0203 04050607 08090a0b0c0d0e0f");

    (void)state;
    assert_int_equal(reader_u8(&r), 1);
    assert_int_equal(reader_u16(&r), 0x0203);
    assert_int_equal(reader_u32(&r), 0x04050607);
    assert_true(reader_u64(&r) == UINT64_C(0x08090a0b0c0d0e0f));
    assert_true(reader_ok(&r));
    assert_int_equal(reader_left(&r), 0);
}

static void reads_counted_bytes_as_views(void **state)
{
    struct reader r = reader_over("02 aabb 0001 cc 00 0000 dd");
    struct lonely_span s = reader_b8(&r);

    (void)state;
    assert_ptr_equal(s.ptr, input + 1);
    assert_int_equal(s.len, 2);
    s = reader_b16(&r);
    assert_ptr_equal(s.ptr, input + 5);
    assert_int_equal(s.len, 1);
    s = reader_b8(&r);
    assert_null(s.ptr);
    assert_int_equal(s.len, 0);
    s = reader_b16(&r);
    assert_null(s.ptr);
    s = reader_rest(&r);
    assert_int_equal(s.len, 1);
    assert_true(table_span_equal(s, LIT("\xdd")));
    assert_int_equal(reader_rest(&r).len, 0);
    assert_true(reader_ok(&r));
}

static const struct cut_case {
    const char *name, *hex;
    size_t skip, width; /* bytes taken before, size of the length */
    size_t at;
} cut_cases[] = {
    { "no length at all", "aa", 1, 1, 1 },
    { "half a length", "aa 00", 1, 2, 1 },
    { "length past the end", "aa 0002 bb", 1, 2, 1 },
    { "largest two-byte length", "ffff 00", 0, 2, 0 },
    { "length wider than any memory", "ffffffffffffffff 00", 0, 8, 0 },
    { "length that would wrap the offset", "aaaa fffffffffffffffe 00", 2, 8, 2 },
};

static void cut_fields_name_their_start(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cut_cases); i++) {
        const struct cut_case *c = &cut_cases[i];
        struct reader r = reader_over(c->hex);
        struct lonely_span s;

        print_message("# %s\n", c->name);
        reader_take(&r, c->skip);
        s = reader_counted(&r, c->width);
        assert_int_equal(r.err, LONELY_E_TRUNCATED);
        assert_int_equal(r.at, c->at);
        assert_null(s.ptr);
        assert_int_equal(s.len, 0);
    }
}

static void the_first_error_sticks(void **state)
{
    struct reader r = reader_over("0102 03");

    (void)state;
    reader_u16(&r);
    reader_fail_at(&r, LONELY_E_UTF8, 1);
    assert_int_equal(reader_u8(&r), 0);
    assert_int_equal(reader_take(&r, 0).len, 0);
    assert_int_equal(reader_take(&r, 100).len, 0);
    assert_int_equal(reader_b8(&r).len, 0);
    reader_fail(&r, LONELY_E_TYPE);
    reader_fail_at(&r, LONELY_E_TYPE, 0);
    assert_int_equal(r.err, LONELY_E_UTF8);
    assert_int_equal(r.at, 1);
}

static void reads_nothing_from_nothing(void **state)
{
    struct reader r = reader_of((struct lonely_span){ 0 });

    (void)state;
    assert_null(reader_rest(&r).ptr);
    assert_true(reader_ok(&r));
    reader_u8(&r);
    assert_int_equal(r.err, LONELY_E_TRUNCATED);
    assert_int_equal(r.at, 0);
}

static void write_everything(struct writer *w)
{
    writer_u8(w, 0x01);
    writer_u16(w, 0x0203);
    writer_u32(w, 0x04050607);
    writer_u64(w, UINT64_C(0x08090a0b0c0d0e0f));
    writer_uint(w, 0x123456, 3);
    writer_uint(w, 0xff, 0);
    writer_b8(w, LIT("ab"));
    writer_b16(w, LIT("c"));
    writer_b16(w, (struct lonely_span){ 0 });
    writer_span(w, LIT("d"));
}

static const char everything[] = "01 0203 04050607 08090a0b0c0d0e0f 123456 02 6162 0001 63 0000 64";

static void writes_what_the_reader_reads(void **state)
{
    uint8_t want[64], got[64];
    size_t len = table_unhex(everything, want, sizeof(want));
    struct writer w = writer_of(got, sizeof(got));

    (void)state;
    write_everything(&w);
    assert_int_equal(w.err, LONELY_OK);
    assert_int_equal(w.at, len);
    assert_memory_equal(got, want, len);
}

static void counts_without_a_buffer_and_beyond_a_small_one(void **state)
{
    uint8_t want[64];
    size_t len = table_unhex(everything, want, sizeof(want));
    struct guard g = guard_create(len);

    (void)state;
    for (size_t cap = 0; cap <= len; cap++) {
        struct writer w = writer_of(guard_room(&g, cap), cap);

        write_everything(&w);
        assert_int_equal(w.at, len);
        assert_int_equal(w.err, cap == len ? LONELY_OK : LONELY_E_NO_SPACE);
    }
    guard_destroy(&g);

    struct writer w = writer_of(NULL, 0);
    write_everything(&w);
    assert_int_equal(w.at, len);
    assert_int_equal(w.err, LONELY_OK);
}

static void refuses_values_longer_than_their_length(void **state)
{
    static uint8_t big[UINT16_MAX + 1], out[UINT16_MAX + 8];
    struct writer w = writer_of(out, sizeof(out));

    (void)state;
    writer_b8(&w, (struct lonely_span){ big, UINT8_MAX });
    writer_b16(&w, (struct lonely_span){ big, UINT16_MAX - UINT8_MAX });
    assert_int_equal(w.err, LONELY_OK);
    w = writer_of(out, sizeof(out));
    writer_b8(&w, (struct lonely_span){ big, UINT8_MAX + 1 });
    assert_int_equal(w.err, LONELY_E_FIELD_SIZE);
    w = writer_of(out, sizeof(out));
    writer_b16(&w, (struct lonely_span){ big, UINT16_MAX + 1 });
    assert_int_equal(w.err, LONELY_E_FIELD_SIZE);
    w = writer_of(NULL, 0);
    w.at = SIZE_MAX - 1;
    writer_span(&w, LIT("ab"));
    assert_int_equal(w.err, LONELY_E_FIELD_SIZE);
}

static const struct utf8_case {
    const char *name, *hex;
    bool valid;
} utf8_cases[] = {
    { "empty", "", true },
    { "NUL", "00", true },
    { "ASCII in full steps", "6162636465666768 6162636465666768", true },
    { "ASCII with a rest", "6162636465666768 61", true },
    { "U+0080", "c280", true },
    { "U+07FF", "dfbf", true },
    { "U+0800", "e0a080", true },
    { "U+D7FF", "ed9fbf", true },
    { "U+E000", "ee8080", true },
    { "U+FFFF", "efbfbf", true },
    { "U+10000", "f0908080", true },
    { "U+10FFFF", "f48fbfbf", true },
    { "byte order mark", "efbbbf", true },
    { "multi-byte after a full step", "6162636465666768 c3a9 61", true },
    { "bare continuation", "80", false },
    { "bare continuation in a full step", "61626364 80 666768", false },
    { "overlong NUL", "c080", false },
    { "overlong 2", "c1bf", false },
    { "overlong 3", "e09fbf", false },
    { "overlong 4", "f08fbfbf", false },
    { "first surrogate", "eda080", false },
    { "last surrogate", "edbfbf", false },
    { "above U+10FFFF", "f4908080", false },
    { "lead f5", "f5808080", false },
    { "lead ff", "ff", false },
    { "2 cut after 1", "c3", false },
    { "3 cut after 2", "e282", false },
    { "4 cut after 3", "f09f98", false },
    { "second byte not a continuation", "c341", false },
    { "third byte not a continuation", "e28241", false },
    { "fourth byte not a continuation", "f09f9841", false },
    { "fourth byte is a lead", "f09f98c3a9", false },
};

static void utf8_is_strict(void **state)
{
    struct guard g = guard_create(sizeof(input));

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(utf8_cases); i++) {
        const struct utf8_case *c = &utf8_cases[i];
        size_t len = table_unhex(c->hex, input, sizeof(input));

        print_message("# %s\n", c->name);
        assert_int_equal(utf8_is_valid(guard_lay(&g, (struct lonely_span){ input, len })),
                         c->valid);
    }
    assert_true(utf8_is_valid((struct lonely_span){ 0 }));
    guard_destroy(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_integers_big_endian),
        cmocka_unit_test(reads_counted_bytes_as_views),
        cmocka_unit_test(cut_fields_name_their_start),
        cmocka_unit_test(the_first_error_sticks),
        cmocka_unit_test(reads_nothing_from_nothing),
        cmocka_unit_test(writes_what_the_reader_reads),
        cmocka_unit_test(counts_without_a_buffer_and_beyond_a_small_one),
        cmocka_unit_test(refuses_values_longer_than_their_length),
        cmocka_unit_test(utf8_is_strict),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
