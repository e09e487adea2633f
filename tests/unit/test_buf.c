/* The growable buffer of src/base/buf.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "buf.h"
#include "mem.h"

static void assert_holds(const struct buf *b, const char *text)
{
    assert_int_equal(b->len, strlen(text));
    assert_memory_equal(b->ptr, text, b->len);
}

static void gathers_bytes(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 100);
    assert_null(b.ptr);
    assert_true(buf_append_str(&b, "abc"));
    assert_true(buf_append_byte(&b, 'd'));
    assert_true(buf_append(&b, "efgh", 2));
    assert_true(buf_append(&b, NULL, 0));
    assert_holds(&b, "abcdef");
    assert_int_equal(buf_room(&b), 94);
    buf_consume(&b, 2);
    assert_holds(&b, "cdef");
    buf_consume(&b, 4);
    assert_int_equal(b.len, 0);
    assert_true(buf_append_str(&b, "x"));
    buf_clear(&b);
    assert_int_equal(b.len, 0);
    assert_int_equal(buf_room(&b), 100);
    buf_fini(&b);
    assert_null(b.ptr);
    assert_true(buf_append_str(&b, "again"));
    assert_holds(&b, "again");
    buf_fini(&b);
}

static void nothing_to_consume_is_no_error_without_memory(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, 10);
    buf_consume(&b, 0);
    assert_int_equal(b.len, 0);
    buf_fini(&b);
}

/* For every maximum: one byte at a time up to it, and what is beyond changes nothing. */
static void stops_at_its_maximum(void **state)
{
    (void)state;
    for (size_t max = 0; max <= 300; max++) {
        struct buf b;

        buf_init(&b, max);
        for (size_t i = 0; i < max; i++)
            assert_true(buf_append_byte(&b, (uint8_t)i));
        assert_false(buf_append_byte(&b, 0));
        assert_false(buf_append_str(&b, "xx"));
        assert_null(buf_reserve(&b, 1));
        assert_null(buf_reserve(&b, SIZE_MAX));
        assert_int_equal(b.len, max);
        assert_true(b.cap <= max);
        for (size_t i = 0; i < max; i++)
            assert_int_equal(b.ptr[i], (uint8_t)i);
        buf_fini(&b);
    }
}

static void without_memory_it_keeps_what_it_holds(void **state)
{
    struct buf b;

    (void)state;
    buf_init(&b, SIZE_MAX);
    assert_true(buf_append_str(&b, "kept"));
    assert_null(buf_reserve(&b, SIZE_MAX / 8)); /* no allocator has that */
    assert_false(buf_append(&b, "", SIZE_MAX - 3));
    assert_holds(&b, "kept");
    assert_true(buf_append_str(&b, "!"));
    assert_holds(&b, "kept!");
    buf_fini(&b);
}

static void reserved_bytes_count_once_committed(void **state)
{
    struct buf b;
    uint8_t *to;

    (void)state;
    buf_init(&b, 1000);
    assert_true(buf_append_str(&b, "a"));
    to = buf_reserve(&b, 500);
    assert_non_null(to);
    memset(to, 'z', 500);
    assert_holds(&b, "a");
    buf_commit(&b, 2);
    assert_holds(&b, "azz");
    buf_fini(&b);
}

static void memory_can_be_detached(void **state)
{
    struct buf b;
    uint8_t *bytes;
    size_t len = 77;

    (void)state;
    buf_init(&b, 10);
    assert_null(buf_detach(&b, &len));
    assert_int_equal(len, 0);
    assert_true(buf_append_str(&b, "mine"));
    bytes = buf_detach(&b, &len);
    assert_int_equal(len, 4);
    assert_memory_equal(bytes, "mine", 4);
    assert_null(b.ptr);
    assert_int_equal(buf_room(&b), 10);
    mem_free(bytes);
    buf_fini(&b);
}

/* Lets the sanitizer's allocator refuse, as the system's does. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gathers_bytes),
        cmocka_unit_test(nothing_to_consume_is_no_error_without_memory),
        cmocka_unit_test(stops_at_its_maximum),
        cmocka_unit_test(without_memory_it_keeps_what_it_holds),
        cmocka_unit_test(reserved_bytes_count_once_committed),
        cmocka_unit_test(memory_can_be_detached),
    };

    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
