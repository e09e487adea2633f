/* The wire format of tinyproto as a push parser, whole and cut at every byte
 * (doc/protocol/tinyproto.md, 1 to 4). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <tinyproto/frame.h>

#include "tables.h"

/* Hexadecimal input; between `before` and `after`, if it `announces`, an own announcement. The
 * events as text: R ready, B<size> begin, D<bytes> data (merged), E end, G go, F<error> failure. */
static const struct frame_case {
    const char *name;
    const char *before, *after; /* input before and after an own announcement */
    bool announces;
    const char *events;
    enum tinyproto_error end; /* of the stream, after all of it */
} cases[] = {
    { "nothing", "", "", false, "", TINYPROTO_E_CLOSED_HANDSHAKE },
    { "handshake", "ff", "", false, "R", TINYPROTO_OK },
    { "limit reached", "fe", "", false, "F10", TINYPROTO_E_LIMIT },
    { "254 zeros", "000000", "", false, "F11", TINYPROTO_E_REFUSED },
    { "HTTP", "474554", "", false, "F12", TINYPROTO_E_NOT_TINYPROTO },
    { "conflict byte as handshake", "fd", "", false, "F12", TINYPROTO_E_NOT_TINYPROTO },
    { "message", "ff 00000002 6162", "", false, "RB2D2E", TINYPROTO_OK },
    { "empty message", "ff 00000000", "", false, "RB0E", TINYPROTO_OK },
    { "two messages", "ff 00000000 00000001 61", "", false, "RB0EB1D1E", TINYPROTO_OK },
    { "end in a size", "ff 0005", "", false, "R", TINYPROTO_E_CLOSED_INSIDE },
    { "end in a payload", "ff 00000002 61", "", false, "RB2D1", TINYPROTO_E_CLOSED_INSIDE },
    { "largest size", "ff f0ffffff", "", false, "RB4043309055", TINYPROTO_E_CLOSED_INSIDE },
    { "over the largest", "ff f1000000", "", false, "RF3", TINYPROTO_E_TOO_LARGE },
    { "far over", "ff ffffffff 00", "", false, "RF3", TINYPROTO_E_TOO_LARGE },
    { "admitted", "ff", "ff", true, "RG", TINYPROTO_OK },
    { "admitted, then a message", "ff", "ff 00000001 61", true, "RGB1D1E", TINYPROTO_OK },
    { "no status", "ff", "", true, "R", TINYPROTO_E_CLOSED_INSIDE },
    { "refused with fd", "ff", "fd", true, "RF13", TINYPROTO_E_CONFLICT },
    { "refused with fe", "ff", "fe", true, "RF11", TINYPROTO_E_REFUSED },
    { "refused with f1", "ff", "f1", true, "RF11", TINYPROTO_E_REFUSED },
    { "a lone zero", "ff", "00", true, "R", TINYPROTO_E_REFUSED },
    { "part of a crossing size", "ff", "0000", true, "R", TINYPROTO_E_CLOSED_INSIDE },
    { "crossing", "ff", "00000003 ff 616263", true, "RB3GD3E", TINYPROTO_OK },
    { "crossing, empty", "ff", "00000000 ff", true, "RB0GE", TINYPROTO_OK },
    { "crossing, large", "ff", "f0000000 ff", true, "RB4026531840G", TINYPROTO_E_CLOSED_INSIDE },
    { "crossing, then refused", "ff", "00000003 00", true, "RB3F11", TINYPROTO_E_REFUSED },
    { "crossing, then silence", "ff", "00000003", true, "RB3", TINYPROTO_E_CLOSED_INSIDE },
    { "crossing, then the next", "ff", "00000001 ff 61 00000000", true, "RB1GD1EB0E",
      TINYPROTO_OK },
};

struct run {
    struct tinyproto_frame frame;
    char events[128];
    size_t len, data;
};

static void note(struct run *r, char event, bool has_number, unsigned long n)
{
    char number[24] = "";

    if (has_number)
        snprintf(number, sizeof(number), "%lu", n);
    r->len +=
        (size_t)snprintf(r->events + r->len, sizeof(r->events) - r->len, "%c%s", event, number);
    assert_true(r->len < sizeof(r->events));
}

static void note_data(struct run *r)
{
    if (r->data > 0)
        note(r, 'D', true, r->data);
    r->data = 0;
}

static void note_step(struct run *r, const struct tinyproto_step *step)
{
    if (step->event == TINYPROTO_EVENT_DATA)
        r->data += step->len;
    else if (step->event != TINYPROTO_EVENT_MORE)
        note_data(r);
    if (step->event == TINYPROTO_EVENT_READY)
        note(r, 'R', false, 0);
    if (step->event == TINYPROTO_EVENT_BEGIN)
        note(r, 'B', true, step->len);
    if (step->event == TINYPROTO_EVENT_END)
        note(r, 'E', false, 0);
    if (step->event == TINYPROTO_EVENT_GO)
        note(r, 'G', false, 0);
    if (step->event == TINYPROTO_EVENT_FAIL)
        note(r, 'F', true, (unsigned long)step->err);
}

/* The input lies against nothing: an exactly sized block, so that a sanitizer sees an over-read. */
static bool feed(struct run *r, const uint8_t *bytes, size_t len)
{
    uint8_t *exact = malloc(len > 0 ? len : 1);
    struct tinyproto_step step;
    size_t at = 0;

    table_require(exact != NULL, "memory");
    memcpy(exact, bytes, len);
    do {
        step = tinyproto_frame_feed(&r->frame, exact + at, len - at);
        assert_true(step.used <= len - at);
        if (step.event == TINYPROTO_EVENT_DATA)
            assert_ptr_equal(step.ptr, exact + at);
        at += step.used;
        note_step(r, &step);
    } while (step.event != TINYPROTO_EVENT_MORE && step.event != TINYPROTO_EVENT_FAIL);
    if (step.event == TINYPROTO_EVENT_MORE)
        assert_int_equal(at, len);
    free(exact);
    return step.event != TINYPROTO_EVENT_FAIL;
}

static bool feed_pieces(struct run *r, const char *hex, size_t piece)
{
    uint8_t bytes[64];
    size_t len = table_unhex(hex, bytes, sizeof(bytes));

    for (size_t at = 0; at < len; at += piece)
        if (!feed(r, bytes + at, len - at < piece ? len - at : piece))
            return false;
    return true;
}

static void check(const struct frame_case *c, size_t piece)
{
    struct run r = { .len = 0 };
    uint8_t size[TINYPROTO_SIZE_BYTES];

    tinyproto_frame_init(&r.frame, UINT32_MAX);
    if (feed_pieces(&r, c->before, piece) && c->announces) {
        assert_true(tinyproto_frame_may_announce(&r.frame));
        assert_int_equal(tinyproto_frame_announce(&r.frame, 5, size), TINYPROTO_OK);
        assert_memory_equal(size, "\0\0\0\5", 4);
        assert_false(tinyproto_frame_may_announce(&r.frame));
        (void)feed_pieces(&r, c->after, piece);
    }
    note_data(&r);
    assert_string_equal(r.events, c->events);
    assert_int_equal(tinyproto_frame_end(&r.frame), c->end);
    assert_int_equal(tinyproto_frame_may_announce(&r.frame), c->end == TINYPROTO_OK);
}

static void gives_events_however_it_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        print_message("# %s\n", cases[i].name);
        for (size_t piece = 1; piece <= 16; piece++)
            check(&cases[i], piece);
    }
}

static void fails_for_ever(void **state)
{
    struct tinyproto_frame frame;
    const uint8_t byte = 'A';

    (void)state;
    tinyproto_frame_init(&frame, 10);
    for (int i = 0; i < 3; i++) {
        struct tinyproto_step step = tinyproto_frame_feed(&frame, &byte, 1);

        assert_int_equal(step.event, TINYPROTO_EVENT_FAIL);
        assert_int_equal(step.err, TINYPROTO_E_NOT_TINYPROTO);
        assert_int_equal(step.used, i == 0);
    }
}

static void has_a_limit_that_can_change(void **state)
{
    struct run r = { .len = 0 };

    (void)state;
    tinyproto_frame_init(&r.frame, 10);
    assert_true(feed_pieces(&r, "ff 0000000a 61616161616161616161", 64));
    tinyproto_frame_set_receive_max(&r.frame, 11);
    assert_true(feed_pieces(&r, "0000000b 6161616161616161616161", 64));
    assert_false(feed_pieces(&r, "0000000c", 64));
    assert_string_equal(r.events, "RB10D10EB11D11EF3");
}

static void announces_only_what_may_be(void **state)
{
    struct run r = { .len = 0 };
    uint8_t size[TINYPROTO_SIZE_BYTES] = { 1, 2, 3, 4 };

    (void)state;
    tinyproto_frame_init(&r.frame, 10);
    assert_int_equal(tinyproto_frame_announce(&r.frame, 0, size), TINYPROTO_E_STATE);
    assert_true(feed_pieces(&r, "ff", 64));
    assert_int_equal(tinyproto_frame_announce(&r.frame, UINT64_C(0xf1000000), size),
                     TINYPROTO_E_TOO_LARGE);
    assert_int_equal(tinyproto_frame_announce(&r.frame, UINT64_C(0x100000005), size),
                     TINYPROTO_E_TOO_LARGE);
    assert_memory_equal(size, "\1\2\3\4", 4);
    assert_true(feed_pieces(&r, "00", 64)); /* a size is incomplete */
    assert_int_equal(tinyproto_frame_announce(&r.frame, 1, size), TINYPROTO_E_STATE);
    assert_true(feed_pieces(&r, "000001", 64)); /* a payload */
    assert_int_equal(tinyproto_frame_announce(&r.frame, 1, size), TINYPROTO_E_STATE);
    assert_true(feed_pieces(&r, "61", 64));
    assert_int_equal(tinyproto_frame_announce(&r.frame, TINYPROTO_MESSAGE_MAX, size), TINYPROTO_OK);
    assert_memory_equal(size, "\xf0\xff\xff\xff", 4);
    assert_int_equal(tinyproto_frame_announce(&r.frame, 1, size), TINYPROTO_E_STATE);
}

static void knows_a_lone_zero(void **state)
{
    struct run r = { .len = 0 };
    uint8_t size[TINYPROTO_SIZE_BYTES];

    (void)state;
    tinyproto_frame_init(&r.frame, 10);
    assert_true(feed_pieces(&r, "ff 00", 64));
    assert_false(tinyproto_frame_is_lone_zero(&r.frame)); /* a size, since nothing was announced */
    assert_true(feed_pieces(&r, "000000", 64));
    assert_int_equal(tinyproto_frame_announce(&r.frame, 1, size), TINYPROTO_OK);
    assert_true(feed_pieces(&r, "00", 64));
    assert_true(tinyproto_frame_is_lone_zero(&r.frame));
    assert_true(tinyproto_frame_is_waiting(&r.frame));
    assert_true(feed_pieces(&r, "00", 64));
    assert_false(tinyproto_frame_is_lone_zero(&r.frame));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_events_however_it_is_cut),
        cmocka_unit_test(fails_for_ever),
        cmocka_unit_test(has_a_limit_that_can_change),
        cmocka_unit_test(announces_only_what_may_be),
        cmocka_unit_test(knows_a_lone_zero),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
