/* Compressors: what one makes the other reads, within limits, whatever the pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <zstd.h>

#include "compressor.h"
#include "mem.h"
#include "tables.h"

#define BODY_BYTES ((size_t)300 * 1024)

static struct lonely_span body(void)
{
    static uint8_t bytes[BODY_BYTES];

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)((size_t) "lonely pub/sub "[i % 15] + i / 4096 % 3);
    return (struct lonely_span){ bytes, sizeof(bytes) };
}

static struct compressor *plain(void)
{
    struct compressor *c = compressor_create(COMPRESSOR_PLAIN, (struct lonely_span){ 0 }, 3);

    assert_non_null(c);
    return c;
}

static size_t compress(struct compressor *c, struct lonely_span in, uint8_t **out)
{
    size_t len;

    *out = mem_alloc(compressor_bound(in.len));
    len = compressor_compress(c, in, *out, compressor_bound(in.len));
    assert_true(len > 0);
    return len;
}

static void test_round_trips(void **state)
{
    static const size_t sizes[] = { 1, 32, 100, 16384, BODY_BYTES };
    struct compressor *c = plain();

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(sizes); i++) {
        struct lonely_span in = { body().ptr, sizes[i] };
        uint8_t *packed, *back = mem_alloc(in.len);
        size_t len = compress(c, in, &packed);

        assert_int_equal(
            compressor_decompress(c, (struct lonely_span){ packed, len }, 0, back, in.len),
            DECOMPRESS_OK);
        assert_memory_equal(back, in.ptr, in.len);
        mem_free(back);
        mem_free(packed);
    }
    compressor_unref(c);
}

/* Neither checksum nor content size nor dictionary id, and a small window for a small input. */
static void test_the_frame_says_no_more_than_it_must(void **state)
{
    struct compressor *c = plain();
    uint8_t *packed;

    (void)state;
    compress(c, (struct lonely_span){ body().ptr, 20000 }, &packed);
    assert_memory_equal(packed, "\x28\xb5\x2f\xfd\x00", 5);
    assert_true((packed[5] >> 3) + 10 <= 15);
    mem_free(packed);
    compressor_unref(c);
}

static enum decompress_status unpack(struct compressor *c, const uint8_t *packed, size_t len,
                                     size_t announced, uint64_t max_window)
{
    uint8_t *back = mem_alloc(announced + 1);
    enum decompress_status status =
        compressor_decompress(c, (struct lonely_span){ packed, len }, max_window, back, announced);

    mem_free(back);
    return status;
}

static void test_lies_about_the_length_are_found(void **state)
{
    struct compressor *c = plain();
    uint8_t *packed;
    size_t len = compress(c, (struct lonely_span){ body().ptr, 5000 }, &packed);

    (void)state;
    assert_int_equal(unpack(c, packed, len, 5000, 0), DECOMPRESS_OK);
    assert_int_equal(unpack(c, packed, len, 4999, 0), DECOMPRESS_LENGTH);
    assert_int_equal(unpack(c, packed, len, 5001, 0), DECOMPRESS_LENGTH);
    assert_int_equal(unpack(c, packed, len, 0, 0), DECOMPRESS_LENGTH);
    assert_int_equal(unpack(c, packed, len - 1, 5000, 0), DECOMPRESS_MALFORMED);
    assert_int_equal(unpack(c, packed, 0, 5000, 0), DECOMPRESS_MALFORMED);
    assert_int_equal(unpack(c, packed, 0, 0, 0), DECOMPRESS_MALFORMED);
    packed[0] ^= 1;
    assert_int_equal(unpack(c, packed, len, 5000, 0), DECOMPRESS_MALFORMED);
    mem_free(packed);
    compressor_unref(c);
}

static void test_an_empty_frame_is_an_empty_body(void **state)
{
    struct compressor *c = plain();
    uint8_t *packed;
    size_t len = compress(c, (struct lonely_span){ (const uint8_t *)"", 0 }, &packed);

    (void)state;
    assert_int_equal(unpack(c, packed, len, 0, 0), DECOMPRESS_OK);
    assert_int_equal(unpack(c, packed, len, 1, 0), DECOMPRESS_LENGTH);
    mem_free(packed);
    compressor_unref(c);
}

static void test_frames_behind_one_another(void **state)
{
    struct compressor *c = plain();
    uint8_t *packed, two[256];
    size_t len = compress(c, (struct lonely_span){ body().ptr, 100 }, &packed);

    (void)state;
    assert_true(2 * len < sizeof(two));
    memcpy(two, packed, len);
    memcpy(two + len, packed, len);
    assert_int_equal(unpack(c, two, 2 * len, 200, 0), DECOMPRESS_OK);
    assert_int_equal(unpack(c, two, 2 * len, 100, 0), DECOMPRESS_LENGTH);
    two[len] = 'x'; /* no frame: garbage behind the first */
    assert_int_equal(unpack(c, two, len + 3, 100, 0), DECOMPRESS_MALFORMED);
    assert_int_equal(unpack(c, two, 2 * len, 100, 0), DECOMPRESS_MALFORMED);
    mem_free(packed);
    compressor_unref(c);
}

/* 8 MiB pass a limit of 8 MiB, 16 MiB do not. */
static void test_windows_are_limited(void **state)
{
    static const struct {
        int log;
        enum decompress_status status;
    } rows[] = { { 23, DECOMPRESS_OK }, { 24, DECOMPRESS_WINDOW } };
    struct compressor *c = plain();

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        ZSTD_CCtx *foreign = ZSTD_createCCtx();
        uint8_t packed[8192];
        ZSTD_outBuffer out = { packed, sizeof(packed), 0 };
        ZSTD_inBuffer in = { body().ptr, 5000, 0 };

        ZSTD_CCtx_setParameter(foreign, ZSTD_c_windowLog, rows[i].log);
        ZSTD_CCtx_setParameter(foreign, ZSTD_c_checksumFlag, 1);
        ZSTD_compressStream2(foreign, &out, &in,
                             ZSTD_e_flush); /* size unknown: the window is told */
        assert_int_equal(ZSTD_compressStream2(foreign, &out, &in, ZSTD_e_end), 0);
        assert_int_equal(unpack(c, packed, out.pos, 5000, 8388608), rows[i].status);
        assert_int_equal(unpack(c, packed, out.pos, 5000, 0), DECOMPRESS_OK);
        ZSTD_freeCCtx(foreign);
    }
    compressor_unref(c);
}

static void test_dictionaries(void **state)
{
    struct lonely_span dictionary = { body().ptr, 1000 };
    struct compressor *with = compressor_create(2, dictionary, 99), *without = plain();
    uint8_t *small, *large;
    size_t small_len = compress(with, (struct lonely_span){ body().ptr, 200 }, &small);
    size_t large_len = compress(without, (struct lonely_span){ body().ptr, 200 }, &large);

    (void)state;
    assert_int_equal(compressor_id(with), 2);
    assert_int_equal(compressor_level(with), COMPRESSOR_LEVEL_MAX);
    assert_int_equal(compressor_dictionary(with).len, 1000);
    assert_true(small_len < large_len);
    assert_int_equal(unpack(with, small, small_len, 200, 0), DECOMPRESS_OK);
    assert_int_not_equal(unpack(without, small, small_len, 200, 0), DECOMPRESS_OK);
    mem_free(small);
    mem_free(large);
    compressor_unref(with);
    compressor_unref(without);
}

/* Through a stream, `step` bytes of input and of output at a time. */
static size_t pump(struct compress_stream *s, struct lonely_span in, size_t step, uint8_t *to,
                   enum decompress_status *status)
{
    size_t done = 0, taken = 0;

    do {
        size_t n = in.len - taken < step ? in.len - taken : step, len;
        struct lonely_span piece = { in.ptr + taken, n };

        *status = compress_stream_step(s, &piece, taken + n == in.len, to + done, step, &len);
        assert_true(len <= step);
        done += len;
        taken += n - piece.len;
    } while (*status == DECOMPRESS_MORE);
    return done;
}

static void test_streams(void **state)
{
    static const size_t steps[] = { 1, 7, 4096, BODY_BYTES };
    struct compressor *c = plain();
    struct lonely_span in = { body().ptr, 50000 };
    uint8_t *packed = mem_alloc(compressor_bound(in.len)), *back = mem_alloc(in.len);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(steps); i++) {
        struct compress_stream *s = compress_stream_begin(c, in.len);
        enum decompress_status status;
        size_t len = pump(s, in, steps[i], packed, &status);

        compress_stream_end(s);
        assert_int_equal(status, DECOMPRESS_OK);
        s = decompress_stream_begin(c, in.len, 8388608);
        assert_int_equal(pump(s, (struct lonely_span){ packed, len }, steps[i], back, &status),
                         in.len);
        compress_stream_end(s);
        assert_int_equal(status, DECOMPRESS_OK);
        assert_memory_equal(back, in.ptr, in.len);
    }
    mem_free(packed);
    mem_free(back);
    compressor_unref(c);
}

static void test_a_source_of_another_size_is_refused(void **state)
{
    static const size_t sizes[] = { 0, 99, 101 };
    struct compressor *c = plain();

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(sizes); i++) {
        struct compress_stream *s = compress_stream_begin(c, 100);
        uint8_t packed[1024];
        enum decompress_status status;

        pump(s, (struct lonely_span){ body().ptr, sizes[i] }, 200, packed, &status);
        assert_int_equal(status, DECOMPRESS_LENGTH);
        compress_stream_end(s);
    }
    compressor_unref(c);
}

/* 1 GiB of zeros out of 32 KiB: no more than was announced comes out. */
static void test_bombs(void **state)
{
    struct compressor *c = plain();
    struct compress_stream *s = compress_stream_begin(c, UINT64_C(1) << 30);
    uint8_t *packed = mem_alloc(1 << 20), *zeros = mem_calloc(1, 1 << 20);
    size_t len = 0, n;
    enum decompress_status status;

    (void)state;
    for (int i = 0; i < 1024; i++) {
        struct lonely_span in = { zeros, 1 << 20 };

        while (in.len > 0) {
            compress_stream_step(s, &in, false, packed + len, ((size_t)1 << 20) - len, &n);
            len += n;
        }
    }
    do {
        status = compress_stream_step(s, &(struct lonely_span){ zeros, 0 }, true, packed + len,
                                      ((size_t)1 << 20) - len, &n);
        len += n;
    } while (status == DECOMPRESS_MORE);
    assert_int_equal(status, DECOMPRESS_OK);
    compress_stream_end(s);
    assert_int_equal(unpack(c, packed, len, 1000, 8388608), DECOMPRESS_LENGTH);
    mem_free(packed);
    mem_free(zeros);
    compressor_unref(c);
}

/* Contexts of one are good for the others, also once that is gone. */
static void test_contexts_are_shared(void **state)
{
    struct compressor_contexts *contexts = compressor_contexts_create();
    struct lonely_span in = { body().ptr, 5000 };
    uint8_t *packed;
    size_t len;

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        struct lonely_span dictionary = { body().ptr + i * 100, i % 3 * 1000 };
        struct compressor *c =
            compressor_create_in(contexts, 65536 + i, dictionary, 1 + (int)i * 3);
        struct compressor *own = compressor_create(65536 + i, dictionary, 1 + (int)i * 3);
        uint8_t *same;

        len = compress(c, in, &packed);
        assert_int_equal(compress(own, in, &same), len);
        assert_memory_equal(packed, same, len);
        assert_int_equal(unpack(c, packed, len, in.len, 8388608), DECOMPRESS_OK);
        assert_true(compressor_memory(c) >= dictionary.len);
        mem_free(packed);
        mem_free(same);
        compressor_unref(c);
        compressor_unref(own);
    }
    compressor_contexts_unref(contexts);
}

/* What the highest levels make of a long body, too, passes the limit that peers have. */
static void test_windows_of_ours_pass(void **state)
{
    static const int levels[] = { 19, 20, 22 };
    const size_t size = (size_t)17 << 20;
    uint8_t *zeros = mem_calloc(1, size), *packed;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(levels); i++) {
        struct compressor *c =
            compressor_create(2, (struct lonely_span){ body().ptr, 1000 }, levels[i]);
        size_t len = compress(c, (struct lonely_span){ zeros, size }, &packed);

        assert_int_equal(unpack(c, packed, len, size, 8388608), DECOMPRESS_OK);
        mem_free(packed);
        compressor_unref(c);
    }
    mem_free(zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_the_frame_says_no_more_than_it_must),
        cmocka_unit_test(test_lies_about_the_length_are_found),
        cmocka_unit_test(test_an_empty_frame_is_an_empty_body),
        cmocka_unit_test(test_frames_behind_one_another),
        cmocka_unit_test(test_windows_are_limited),
        cmocka_unit_test(test_dictionaries),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_a_source_of_another_size_is_refused),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_contexts_are_shared),
        cmocka_unit_test(test_windows_of_ours_pass),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
