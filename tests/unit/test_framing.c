/* Frames on a byte stream, fed in every way it can be cut (doc/protocol/stateful.md, 2.2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lonely/framing.h>

#include "tables.h"

enum { LIMIT = LONELY_FRAME_LIMIT_MIN_BYTES };

/* What a caller makes of the pieces: the frames, one after another, each ended by its length. */
struct collected {
    uint8_t bytes[256];
    size_t len, frame_start, frames;
    size_t lengths[16];
};

static void collect(struct collected *c, const struct lonely_framing_step *step)
{
    assert_true(c->len + step->piece.len <= sizeof(c->bytes));
    assert_int_equal(step->first, step->piece.len > 0 && c->len == c->frame_start);
    if (step->piece.len > 0)
        memcpy(c->bytes + c->len, step->piece.ptr, step->piece.len);
    c->len += step->piece.len;
    if (!step->complete)
        return;
    c->lengths[c->frames++] = c->len - c->frame_start;
    c->frame_start = c->len;
}

/* Feeds `in` in pieces of `piece` bytes, each laid against an unreadable page. */
static enum lonely_error feed(struct lonely_framing *f, struct lonely_span in, size_t piece,
                              struct collected *c)
{
    struct guard g = guard_create(256);
    enum lonely_error err = LONELY_OK;

    for (size_t at = 0; at < in.len && err == LONELY_OK; at += piece) {
        size_t n = in.len - at < piece ? in.len - at : piece;
        struct lonely_span left = guard_lay(&g, (struct lonely_span){ in.ptr + at, n });

        while (left.len > 0 && err == LONELY_OK) {
            struct lonely_framing_step step;

            err = lonely_framing_feed(f, left, &step);
            if (err != LONELY_OK)
                break;
            assert_true(step.consumed_bytes > 0 && step.consumed_bytes <= left.len);
            collect(c, &step);
            left.ptr += step.consumed_bytes;
            left.len -= step.consumed_bytes;
        }
    }
    guard_destroy(&g);
    return err;
}

static const char stream_hex[] = "00000004 00010203"
                                 "00000009 112233445566778899"
                                 "00000005 aabbccddee";

static void frames_come_out_however_the_stream_is_cut(void **state)
{
    uint8_t bytes[64], want[64];
    size_t len = table_unhex(stream_hex, bytes, sizeof(bytes));
    size_t want_len = table_unhex("00010203 112233445566778899 aabbccddee", want, sizeof(want));

    (void)state;
    for (size_t piece = 1; piece <= len; piece++) {
        struct collected c = { 0 };
        struct lonely_framing f;

        assert_int_equal(lonely_framing_init(&f, LIMIT), LONELY_OK);
        assert_int_equal(feed(&f, (struct lonely_span){ bytes, len }, piece, &c), LONELY_OK);
        assert_int_equal(c.frames, 3);
        assert_int_equal(c.lengths[0], 4);
        assert_int_equal(c.lengths[1], 9);
        assert_int_equal(c.lengths[2], 5);
        assert_int_equal(c.len, want_len);
        assert_memory_equal(c.bytes, want, want_len);
        assert_int_equal(lonely_framing_finish(&f), LONELY_OK);
    }
}

static void a_whole_frame_is_a_view_of_the_input(void **state)
{
    uint8_t bytes[64];
    size_t len = table_unhex(stream_hex, bytes, sizeof(bytes));
    struct lonely_framing f;
    struct lonely_framing_step step;

    (void)state;
    lonely_framing_init(&f, LIMIT);
    assert_int_equal(lonely_framing_feed(&f, (struct lonely_span){ bytes, len }, &step), LONELY_OK);
    assert_true(step.first && step.complete);
    assert_ptr_equal(step.piece.ptr, bytes + 4);
    assert_int_equal(step.piece.len, 4);
    assert_int_equal(step.consumed_bytes, 8);
}

/* Between frames the stream may end; anywhere else it must not. */
static void the_end_is_clean_only_between_frames(void **state)
{
    uint8_t bytes[64];
    size_t len = table_unhex(stream_hex, bytes, sizeof(bytes));

    (void)state;
    for (size_t cut = 0; cut <= len; cut++) {
        struct collected c = { 0 };
        struct lonely_framing f;
        bool clean = cut == 0 || cut == 8 || cut == 21 || cut == 30;

        lonely_framing_init(&f, LIMIT);
        assert_int_equal(feed(&f, (struct lonely_span){ bytes, cut }, 64, &c), LONELY_OK);
        assert_int_equal(lonely_framing_finish(&f), clean ? LONELY_OK : LONELY_E_TRUNCATED);
    }
}

static void tells_what_is_needed(void **state)
{
    static const size_t needed[] = { 4, 3, 2, 1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 4 };
    uint8_t bytes[64];
    struct lonely_framing f;
    struct lonely_framing_step step;

    (void)state;
    table_unhex("00000009 112233445566778899", bytes, sizeof(bytes));
    lonely_framing_init(&f, LIMIT);
    for (size_t i = 0; i < TABLE_LEN(needed); i++) {
        assert_int_equal(lonely_framing_needed(&f), needed[i]);
        assert_int_equal(f.frame_bytes, i < 4 || i == 13 ? 0 : 9);
        if (i < 13)
            lonely_framing_feed(&f, (struct lonely_span){ bytes + i, 1 }, &step);
    }
    assert_true(step.complete && !step.first);
}

static const struct length_case {
    const char *name, *hex;
    enum lonely_error err;
} length_cases[] = {
    { "0", "00000000", LONELY_E_FRAME_SIZE },
    { "3, one below a prefix", "00000003", LONELY_E_FRAME_SIZE },
    { "4, a bare prefix", "00000004", LONELY_OK },
    { "the limit", "00040000", LONELY_OK },
    { "one above the limit", "00040001", LONELY_E_FRAME_SIZE },
    { "the largest", "ffffffff", LONELY_E_FRAME_SIZE },
};

/* The verdict falls with the fourth byte, and it stays. */
static void lengths_are_judged_at_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(length_cases); i++) {
        const struct length_case *c = &length_cases[i];
        uint8_t bytes[4];
        struct lonely_span in = { bytes, table_unhex(c->hex, bytes, sizeof(bytes)) };

        print_message("# %s\n", c->name);
        for (size_t piece = 1; piece <= 4; piece += 3) {
            struct collected got = { 0 };
            struct lonely_framing f;
            struct lonely_framing_step step;

            lonely_framing_init(&f, LIMIT);
            assert_int_equal(feed(&f, in, piece, &got), c->err);
            assert_int_equal(lonely_framing_finish(&f),
                             c->err == LONELY_OK ? LONELY_E_TRUNCATED : c->err);
            assert_int_equal(lonely_framing_feed(&f, LIT("more"), &step), c->err);
            assert_int_equal(step.consumed_bytes, c->err == LONELY_OK ? 4 : 0);
        }
    }
}

static void the_limit_has_bounds(void **state)
{
    struct lonely_framing f;
    struct lonely_framing_step step;

    (void)state;
    assert_int_equal(lonely_framing_init(&f, LONELY_FRAME_LIMIT_DEFAULT_BYTES), LONELY_OK);
    assert_int_equal(lonely_framing_init(&f, LONELY_FRAME_LIMIT_MAX_BYTES), LONELY_OK);
    assert_int_equal(lonely_framing_init(&f, (size_t)LONELY_FRAME_LIMIT_MAX_BYTES + 1),
                     LONELY_E_ARGUMENT);
    assert_int_equal(lonely_framing_init(&f, LONELY_FRAME_LIMIT_MIN_BYTES - 1), LONELY_E_ARGUMENT);
    assert_int_equal(lonely_framing_feed(&f, LIT("more"), &step), LONELY_E_ARGUMENT);
}

static void nothing_fed_is_nothing_done(void **state)
{
    struct lonely_framing f;
    struct lonely_framing_step step;

    (void)state;
    lonely_framing_init(&f, LIMIT);
    assert_int_equal(lonely_framing_feed(&f, (struct lonely_span){ 0 }, &step), LONELY_OK);
    assert_int_equal(step.consumed_bytes, 0);
    lonely_framing_feed(&f, LIT("\0\0\0\4"), &step);
    assert_int_equal(lonely_framing_feed(&f, (struct lonely_span){ 0 }, &step), LONELY_OK);
    assert_false(step.first || step.complete);
}

static void announces_what_a_reader_accepts(void **state)
{
    uint8_t out[LONELY_FRAMING_LENGTH_BYTES] = { 1, 2, 3, 4 };

    (void)state;
    assert_int_equal(lonely_framing_announce(3, LIMIT, out), LONELY_E_FRAME_SIZE);
    assert_int_equal(lonely_framing_announce(LIMIT + 1, LIMIT, out), LONELY_E_FRAME_SIZE);
    assert_int_equal(
        lonely_framing_announce((size_t)LONELY_FRAME_LIMIT_MAX_BYTES + 1, SIZE_MAX, out),
        LONELY_E_FRAME_SIZE);
    assert_memory_equal(out, "\1\2\3\4", 4);
    assert_int_equal(lonely_framing_announce(0x00031234, LIMIT, out), LONELY_OK);
    assert_memory_equal(out, "\x00\x03\x12\x34", 4);
    assert_int_equal(lonely_framing_announce(17, LIMIT, out), LONELY_OK);
    assert_memory_equal(out, "\x00\x00\x00\x11", 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_come_out_however_the_stream_is_cut),
        cmocka_unit_test(a_whole_frame_is_a_view_of_the_input),
        cmocka_unit_test(the_end_is_clean_only_between_frames),
        cmocka_unit_test(tells_what_is_needed),
        cmocka_unit_test(lengths_are_judged_at_once),
        cmocka_unit_test(the_limit_has_bounds),
        cmocka_unit_test(nothing_fed_is_nothing_done),
        cmocka_unit_test(announces_what_a_reader_accepts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
