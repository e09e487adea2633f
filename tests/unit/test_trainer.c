/* When a connection trains, and out of what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "compressor.h"
#include "mem.h"
#include "tables.h"
#include "trainer.h"

#define SAMPLE_BYTES 200

static struct trainer *create(uint64_t low, uint64_t high)
{
    const struct trainer_conf conf = {
        .min_size = 32,
        .max_size = 16384,
        .low_watermark = low,
        .high_watermark = high,
        .retrain_interval_ms = 1000,
        .spool_dir = "/tmp",
    };

    return trainer_create(&conf);
}

/* A message like others, but not equal to them. */
static struct lonely_span sample(unsigned number)
{
    static char text[512];
    unsigned h = number * 2654435761u;

    snprintf(text, sizeof(text),
             "{\"event\": \"purchase\", \"user\": %10u, \"host\": \"web-%03u.example.internal\", "
             "\"t\": 17%08u, \"items\": [%10u, %10u], \"currency\": \"EUR\", \"total\": "
             "%10u.00}%-32s",
             h % 100000, h % 997, h % 99999999, h >> 3, h >> 7, h % 4711, "");
    return (struct lonely_span){ (const uint8_t *)text, SAMPLE_BYTES };
}

/* Offers until a build is due; how many samples that took, 0 when `max` did not suffice. */
static unsigned offer(struct trainer *t, unsigned from, unsigned max, uint64_t now_ms)
{
    for (unsigned i = 1; i <= max; i++) {
        if (trainer_offer(t, sample(from + i), now_ms))
            return i;
    }
    return 0;
}

/* Builds; the dictionary must help. */
static size_t build(struct trainer *t, int expected_level, uint64_t now_ms)
{
    static uint8_t dictionary[TRAINER_HIGH_DICTIONARY_BYTES];
    int level;
    size_t len = trainer_build(t, dictionary, &level);
    uint8_t packed[1024];

    assert_int_equal(level, expected_level);
    if (len > 0) {
        struct compressor *with =
            compressor_create(65536, (struct lonely_span){ dictionary, len }, level);
        struct compressor *without = compressor_create(1, (struct lonely_span){ 0 }, level);

        assert_true(compressor_compress(with, sample(999983), packed, sizeof(packed)) * 2 <
                    compressor_compress(without, sample(999983), packed, sizeof(packed)));
        compressor_unref(with);
        compressor_unref(without);
    }
    trainer_done(t, now_ms);
    return len;
}

static void test_stages(void **state)
{
    struct trainer *t = create(100 * 1024, 400 * 1024);
    size_t len;

    (void)state;
    assert_int_equal(offer(t, 0, 10000, 0), 512); /* 100 KiB / 200 */
    len = build(t, TRAINER_LOW_LEVEL, 0);
    assert_true(len > 0 && len <= TRAINER_LOW_DICTIONARY_BYTES);
    /* The same samples count on. */
    assert_int_equal(offer(t, 512, 10000, 0), 2048 - 512);
    len = build(t, TRAINER_HIGH_LEVEL, 5000);
    assert_true(len > 0 && len <= TRAINER_HIGH_DICTIONARY_BYTES);
    /* Then it waits, and begins anew with the high watermark. */
    assert_false(trainer_wants(t, SAMPLE_BYTES, 5999));
    assert_int_equal(offer(t, 5000, 10000, 5999), 0);
    assert_true(trainer_wants(t, SAMPLE_BYTES, 6000));
    assert_int_equal(offer(t, 20000, 10000, 6000), 2048);
    assert_true(build(t, TRAINER_HIGH_LEVEL, 6000) > 0);
    trainer_destroy(t);
}

static void test_the_low_stage_is_skipped(void **state)
{
    struct trainer *t = create(100, 200);

    (void)state;
    assert_true(trainer_offer(t, sample(1), 0)); /* reaches both */
    build(t, TRAINER_HIGH_LEVEL, 0);             /* one sample yields nothing, and does no harm */
    assert_false(trainer_wants(t, SAMPLE_BYTES, 999));
    trainer_destroy(t);
}

static void test_what_is_no_sample(void **state)
{
    static const struct {
        uint64_t size;
        bool wanted;
    } rows[] = { { 0, false }, { 31, false }, { 32, true }, { 16383, true }, { 16384, false } };
    struct trainer *t = create(1000, 100000);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(rows); i++)
        assert_int_equal(trainer_wants(t, rows[i].size, 0), rows[i].wanted);
    assert_int_equal(offer(t, 0, 10, 0), 5);
    /* While a dictionary is built nothing is kept. */
    assert_false(trainer_wants(t, SAMPLE_BYTES, 0));
    assert_false(trainer_offer(t, sample(7), 0));
    trainer_done(t, 0);
    assert_true(trainer_wants(t, SAMPLE_BYTES, 0));
    trainer_destroy(t);
}

static void test_without_a_folder_nothing_is_kept(void **state)
{
    const struct trainer_conf conf = {
        .min_size = 32,
        .max_size = 16384,
        .low_watermark = 100 * 1024,
        .high_watermark = 400 * 1024,
        .spool_dir = "/nonexistent",
    };
    struct trainer *t = trainer_create(&conf);

    (void)state;
    assert_int_equal(offer(t, 0, 10000, 0), 0); /* the buffer alone is smaller than the watermark */
    trainer_destroy(t);
}

/* Stands in for libc's, as a file system without O_TMPFILE when asked to. */
static bool no_tmpfile;
int open(const char *path, int flags, ...);
int open(const char *path, int flags, ...)
{
    va_list args;
    int mode;

    va_start(args, flags);
    mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, int) : 0;
    va_end(args);
    if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static void test_without_files_that_have_no_name(void **state)
{
    struct trainer *t = create(100 * 1024, 10 << 20);

    (void)state;
    no_tmpfile = true;
    assert_int_not_equal(offer(t, 0, 10000, 0), 0);
    build(t, TRAINER_LOW_LEVEL, 0);
    no_tmpfile = false;
    trainer_destroy(t);
}

static void test_what_is_forgotten(void **state)
{
    struct trainer *t = create(100 * 1024, 400 * 1024);

    (void)state;
    assert_false(trainer_holds(t));
    assert_int_equal(offer(t, 0, 400, 0), 0);
    assert_true(trainer_holds(t));
    trainer_forget(t);
    assert_false(trainer_holds(t));
    assert_int_equal(offer(t, 0, 10000, 0), 512); /* all anew */
    assert_true(build(t, TRAINER_LOW_LEVEL, 0) > 0);
    trainer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_the_low_stage_is_skipped),
        cmocka_unit_test(test_what_is_no_sample),
        cmocka_unit_test(test_without_a_folder_nothing_is_kept),
        cmocka_unit_test(test_without_files_that_have_no_name),
        cmocka_unit_test(test_what_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
