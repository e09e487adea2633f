/*
 * Frames, beyond what the vectors hold (tests/vectors/test_stateful.c): where an error is said to
 * be, what the serializer refuses to write, room, flags, and the odd corners of both modes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lonely/message.h>

#include "tables.h"

/* SHA-512 of nothing and of "hello". */
#define SHA_EMPTY                                                      \
    "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce" \
    "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
#define SHA_HELLO                                                      \
    "9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca7" \
    "2323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043"

#define X_TOPIC   "0007 782d746f706963"
#define X_TRACING "0009 782d74726163696e67"
#define AUTH      "000d 617574686f72697a6174696f6e"

static uint8_t frame_bytes[1024];

static struct lonely_span frame_of(const char *hex)
{
    return (struct lonely_span){ frame_bytes, table_unhex(hex, frame_bytes, sizeof(frame_bytes)) };
}

static struct lonely_message parsed(enum lonely_direction direction, const char *hex)
{
    struct lonely_message m;

    assert_int_equal(lonely_message_parse(direction, frame_of(hex), &m).err, LONELY_OK);
    return m;
}

/* --- Where the error is. --- */

static const struct at_case {
    const char *name;
    enum lonely_direction direction;
    const char *hex;
    enum lonely_error err;
    size_t at;
} at_cases[] = {
    { "plain", LONELY_S2B, "0001 0002 0000 0000 0003 612f62", LONELY_OK, 13 },
    { "bytes after the last header", LONELY_S2B, "0001 0002 0000 0000 0000 00", LONELY_OK, 10 },
    { "empty", LONELY_S2B, "", LONELY_E_TRUNCATED, 0 },
    { "half the flags", LONELY_S2B, "00", LONELY_E_TRUNCATED, 0 },
    { "half a type", LONELY_S2B, "0001 00", LONELY_E_TRUNCATED, 2 },
    { "type 0", LONELY_S2B, "0001 0000", LONELY_E_TYPE, 2 },
    { "first type after the last, s2b", LONELY_S2B, "0001 000a", LONELY_E_TYPE, 2 },
    { "first type after the last, b2s", LONELY_B2S, "0001 000d", LONELY_E_TYPE, 2 },
    { "largest type", LONELY_B2S, "0001 ffff", LONELY_E_TYPE, 2 },
    { "half a length", LONELY_S2B, "0001 0002 0000 0000 00", LONELY_E_TRUNCATED, 8 },
    { "value past the end", LONELY_S2B, "0001 0002 0000 0000 0004 612f62", LONELY_E_TRUNCATED, 8 },
    { "authorization not UTF-8", LONELY_S2B, "0001 0002 0001 ff 0000 0000", LONELY_E_UTF8, 6 },
    { "glob not UTF-8", LONELY_S2B, "0001 0003 0000 0000 0002 61ff", LONELY_E_UTF8, 10 },
    { "no count", LONELY_S2B, "0000 0002 00", LONELY_E_TRUNCATED, 4 },
    { "count too large", LONELY_S2B, "0000 0002 0001", LONELY_E_TRUNCATED, 6 },
    { "name cut", LONELY_S2B, "0000 0002 0001 0003 6162", LONELY_E_TRUNCATED, 6 },
    { "name not ASCII, value cut", LONELY_S2B, "0000 0002 0001 0002 6180 ffff",
      LONELY_E_HEADER_NAME, 6 },
    { "nothing there", LONELY_S2B, "0000 0002 0000", LONELY_E_HEADER_MISSING, 6 },
    { "part id of nine bytes", LONELY_S2B, "0001 0007 0000 0000 0000 0009 000000000000000000",
      LONELY_E_INTEGER_SIZE, 12 },
    { "no start headers", LONELY_S2B, "0001 0007 0000 0000 0000 0000", LONELY_E_TRUNCATED, 12 },
    { "nonce short", LONELY_B2S, "0001 0001 0001 00 0000 0000", LONELY_E_NONCE_SIZE, 6 },
    { "notify without its body", LONELY_S2B,
      "0001 0006 0000 0000 0000 0000 0001 00 0001 05 0001 05 0040" SHA_HELLO, LONELY_E_BODY_LENGTH,
      87 },
    { "notify with another body", LONELY_S2B,
      "0001 0006 0000 0000 0000 0000 0001 00 0001 05 0001 05 0040" SHA_HELLO "68656c6c70",
      LONELY_E_BODY_HASH, 87 },
    { "notify with two lengths", LONELY_S2B,
      "0001 0006 0000 0000 0000 0000 0001 00 0001 05 0001 06 0040" SHA_HELLO "68656c6c6f",
      LONELY_E_LENGTH_PAIR, 87 },
    { "notify", LONELY_S2B,
      "0001 0006 0000 0000 0000 0000 0001 00 0001 05 0001 05 0040" SHA_HELLO "68656c6c6f",
      LONELY_OK, 87 },
};

static void errors_have_a_place(void **state)
{
    struct guard g = guard_create(sizeof(frame_bytes));

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(at_cases); i++) {
        const struct at_case *c = &at_cases[i];
        struct lonely_message m;
        struct lonely_result r =
            lonely_message_parse(c->direction, guard_lay(&g, frame_of(c->hex)), &m);

        print_message("# %s\n", c->name);
        assert_int_equal(r.err, c->err);
        assert_int_equal(r.at, c->at);
    }
    guard_destroy(&g);
}

/* A direction that does not exist has no types. */
static void directions_are_two(void **state)
{
    struct lonely_message m = { .direction = (enum lonely_direction)2, .type = 1 };
    size_t len = 7;

    (void)state;
    assert_int_equal(lonely_message_parse((enum lonely_direction)2, frame_of("0001 0001"), &m).err,
                     LONELY_E_TYPE);
    assert_int_equal(lonely_message_serialize(&m, NULL, 0, &len), LONELY_E_TYPE);
    assert_int_equal(len, 0);
    assert_null(lonely_message_name((enum lonely_direction)2, 1));
}

static void types_have_names(void **state)
{
    (void)state;
    assert_string_equal(lonely_message_name(LONELY_S2B, LONELY_S2B_NOTIFY), "NOTIFY");
    assert_string_equal(lonely_message_name(LONELY_B2S, LONELY_B2S_MISSED), "MISSED");
    assert_null(lonely_message_name(LONELY_S2B, 0));
    assert_null(lonely_message_name(LONELY_S2B, 10));
    assert_null(lonely_message_name(LONELY_B2S, 13));
    assert_true(lonely_message_has_body(LONELY_B2S, LONELY_B2S_ENABLE_ZSTD_CUSTOM));
    assert_false(lonely_message_has_body(LONELY_B2S, LONELY_B2S_ENABLE_ZSTD_PRESET));
    assert_false(lonely_message_has_body(LONELY_B2S, 99));
}

/* --- Odd corners of expanded mode. --- */

static void the_last_duplicate_wins_and_the_loser_is_not_validated(void **state)
{
    struct lonely_message m = parsed(LONELY_S2B, "0000 0003 0005" AUTH "0001 ff"
                                                 "0006 782d676c6f62 0001 61" /* x-glob */
                                                 "000d 415554484f52495a4154494f4e 0001 62"
                                                 "0006 582d674c6f42 0001 63" /* X-gLoB */
                                     X_TRACING "0000");

    (void)state;
    assert_true(table_span_equal(m.as.subscription.authorization, LIT("b")));
    assert_true(table_span_equal(m.as.subscription.topic, LIT("c")));
}

/* 65,535 headers that nobody knows cost time in proportion to their bytes and no memory. */
static void the_largest_header_section_is_read(void **state)
{
    size_t len = 6 + (size_t)65535 * 4, tail;
    uint8_t known[64], *frame = malloc(len + sizeof(known));
    struct lonely_message m;

    (void)state;
    assert_non_null(frame);
    memset(frame, 0, len);
    table_unhex("0000 0002 ffff", frame, 6);
    assert_int_equal(lonely_message_parse(LONELY_S2B, (struct lonely_span){ frame, len }, &m).err,
                     LONELY_E_HEADER_MISSING);
    tail = table_unhex(AUTH "0000" X_TRACING "0000" X_TOPIC "0001 74", known, sizeof(known));
    memcpy(frame + len - 12, known, tail);
    assert_int_equal(
        lonely_message_parse(LONELY_S2B, (struct lonely_span){ frame, len - 12 + tail }, &m).err,
        LONELY_OK);
    assert_true(table_span_equal(m.as.subscription.topic, LIT("t")));
    free(frame);
}

static void start_headers_of_a_later_part_are_not_looked_at(void **state)
{
    struct lonely_message m =
        parsed(LONELY_B2S, "0000 0008 0006" AUTH "0000" X_TRACING "0000"
                           "000c 782d6964656e746966696572 0001 69"
                           "0009 782d706172742d6964 0001 01" X_TOPIC "0001 74"
                           "000c 782d636f6d70726573736f72 0009 000000000000000000"
                           "626f6479");

    (void)state;
    assert_true(m.as.stream.part_id == 1);
    assert_null(m.as.stream.topic.ptr);
    assert_true(table_span_equal(m.body, LIT("body")));
}

/* --- Flags. --- */

static void hashing_can_be_left_to_the_caller(void **state)
{
    struct lonely_span wrong = frame_of(
        "0001 0006 0000 0000 0000 0000 0001 00 0001 05 0001 05 0040" SHA_EMPTY "68656c6c6f");
    struct lonely_span longer = { wrong.ptr, wrong.len + 1 };
    struct lonely_message m;

    (void)state;
    assert_int_equal(lonely_message_parse(LONELY_S2B, wrong, &m).err, LONELY_E_BODY_HASH);
    assert_int_equal(lonely_message_parse_with(LONELY_S2B, wrong, LONELY_PARSE_NO_HASH, &m).err,
                     LONELY_OK);
    assert_true(table_span_equal(m.body, LIT("hello")));
    assert_int_equal(lonely_message_parse_with(LONELY_S2B, longer, LONELY_PARSE_NO_HASH, &m).err,
                     LONELY_E_BODY_LENGTH);
}

static void the_head_of_a_frame_can_be_parsed_alone(void **state)
{
    struct lonely_span whole = frame_of(
        "0001 0006 0000 0000 0000 0000 0001 00 0001 05 0001 05 0040" SHA_HELLO "68656c6c6f");
    struct lonely_message m;

    (void)state;
    for (size_t n = 0; n <= whole.len; n++) {
        struct lonely_span part = { whole.ptr, n };
        struct lonely_result r = lonely_message_parse_with(LONELY_S2B, part, LONELY_PARSE_HEAD, &m);

        assert_int_equal(r.err, n < 87 ? LONELY_E_TRUNCATED : LONELY_OK);
        if (r.err == LONELY_OK)
            assert_int_equal(m.body.len, n - 87);
    }
    /* What the headers alone show is still refused. */
    whole = frame_of("0001 0006 0000 0000 0000 0000 0001 00 0001 05 0001 06 0040" SHA_HELLO);
    assert_int_equal(lonely_message_parse_with(LONELY_S2B, whole, LONELY_PARSE_HEAD, &m).err,
                     LONELY_E_LENGTH_PAIR);
}

/* --- Writing. --- */

static uint8_t filler[LONELY_HEADER_MAX_BYTES + 1]; /* NULs: valid UTF-8 */

static struct lonely_span fill(size_t n)
{
    return (struct lonely_span){ filler, n };
}

static struct lonely_message valid_notify(void)
{
    return (struct lonely_message){
        .direction = LONELY_S2B,
        .type = LONELY_S2B_NOTIFY,
        .minimal = true,
        .as.notify = { .identifier = LIT("id"),
                       .topic = LIT("topic"),
                       .compressed_length = 5,
                       .decompressed_length = 5,
                       .compressed_sha512 = fill(LONELY_SHA512_BYTES) },
        .body = LIT("hello"),
    };
}

static struct lonely_message valid_of(enum lonely_direction direction, uint16_t type)
{
    return (struct lonely_message){ .direction = direction, .type = type, .minimal = true };
}

/* What section Q16 lets the reference write, and other things a reader would refuse. */
static void refuses_to_write_what_a_reader_refuses(void **state)
{
    struct refusal {
        const char *name;
        enum lonely_error err;
        struct lonely_message m;
    } cases[16] = { 0 };
    size_t n = 0;

    (void)state;
#define CASE(text, error, from, change)                   \
    do {                                                  \
        cases[n] = (struct refusal){ text, error, from }; \
        cases[n].m.change;                                \
        n++;                                              \
    } while (0)
    CASE("unknown type", LONELY_E_TYPE, valid_notify(), type = 10);
    CASE("id of 65", LONELY_E_IDENTIFIER_SIZE, valid_notify(), as.notify.identifier = fill(65));
    CASE("topic of 65536", LONELY_E_FIELD_SIZE, valid_notify(), as.notify.topic = fill(65536));
    CASE("authorization of 65536", LONELY_E_FIELD_SIZE, valid_notify(),
         as.notify.authorization = fill(65536));
    CASE("authorization not UTF-8", LONELY_E_UTF8, valid_notify(),
         as.notify.authorization = LIT("\xff"));
    CASE("hash of 63", LONELY_E_HASH_SIZE, valid_notify(), as.notify.compressed_sha512.len = 63);
    CASE("body of another length", LONELY_E_BODY_LENGTH, valid_notify(), body = LIT("hell"));
    CASE("two lengths", LONELY_E_LENGTH_PAIR, valid_notify(), as.notify.decompressed_length = 6);
    CASE("glob not UTF-8", LONELY_E_UTF8, valid_of(LONELY_S2B, LONELY_S2B_SUBSCRIBE_GLOB),
         as.subscription.topic = LIT("\x80"));
    CASE("body where there is none", LONELY_E_ARGUMENT, valid_of(LONELY_B2S, LONELY_B2S_MISSED),
         body = LIT("x"));
    CASE("nonce of 31", LONELY_E_NONCE_SIZE, valid_of(LONELY_S2B, LONELY_S2B_CONFIGURE),
         as.configure.subscriber_nonce = fill(31));
    CASE("33 bits of 32", LONELY_E_INTEGER_SIZE, valid_of(LONELY_S2B, LONELY_S2B_CONFIRM_RECEIVE),
         as.confirm_receive.num_subscribers = UINT64_C(1) << 32);
    CASE("min size of 5 bytes", LONELY_E_INTEGER_SIZE,
         valid_of(LONELY_B2S, LONELY_B2S_ENABLE_ZSTD_PRESET),
         as.enable_zstd.min_size = UINT64_C(1) << 32);
    CASE("level below 16 bits", LONELY_E_INTEGER_SIZE,
         valid_of(LONELY_B2S, LONELY_B2S_ENABLE_ZSTD_PRESET),
         as.enable_zstd.compression_level = INT16_MIN - 1);
    CASE("level above 16 bits", LONELY_E_INTEGER_SIZE,
         valid_of(LONELY_B2S, LONELY_B2S_ENABLE_ZSTD_PRESET),
         as.enable_zstd.compression_level = INT16_MAX + 1);
#undef CASE
    for (size_t i = 0; i < n; i++) {
        static uint8_t out[2 * sizeof(filler)];
        size_t len = 1;

        print_message("# %s\n", cases[i].name);
        for (int minimal = 0; minimal < 2; minimal++) {
            cases[i].m.minimal = minimal != 0;
            assert_int_equal(lonely_message_serialize(&cases[i].m, out, sizeof(out), &len),
                             cases[i].err);
            assert_int_equal(len, 0);
            /* The fault of the message counts more than that of the buffer. */
            assert_int_equal(lonely_message_serialize(&cases[i].m, out, 0, &len), cases[i].err);
            assert_int_equal(lonely_message_serialize(&cases[i].m, NULL, 0, &len), cases[i].err);
        }
    }
}

static void the_extremes_of_every_width_are_written(void **state)
{
    struct lonely_message m = valid_of(LONELY_B2S, LONELY_B2S_ENABLE_ZSTD_PRESET), again;
    uint8_t out[128];
    size_t len;

    (void)state;
    for (int i = 0; i < 2; i++) {
        m.as.enable_zstd.compression_level = i == 0 ? INT16_MIN : INT16_MAX;
        m.as.enable_zstd.min_size = UINT32_MAX;
        m.as.enable_zstd.max_size = UINT64_MAX;
        m.as.enable_zstd.identifier = i == 0 ? 255 : 256;
        assert_int_equal(lonely_message_serialize(&m, out, sizeof(out), &len), LONELY_OK);
        assert_int_equal(
            lonely_message_parse(LONELY_B2S, (struct lonely_span){ out, len }, &again).err,
            LONELY_OK);
        assert_int_equal(again.as.enable_zstd.compression_level,
                         m.as.enable_zstd.compression_level);
        assert_true(again.as.enable_zstd.min_size == UINT32_MAX);
        assert_true(again.as.enable_zstd.max_size == UINT64_MAX);
        assert_true(again.as.enable_zstd.identifier == m.as.enable_zstd.identifier);
    }
}

/* Every size of buffer: only the right one is written to, none is written beyond. */
static void too_little_room_is_told_with_the_size(void **state)
{
    struct lonely_message m = valid_notify();
    struct guard g = guard_create(512);

    (void)state;
    for (int minimal = 0; minimal < 2; minimal++) {
        size_t want, len;

        m.minimal = minimal != 0;
        assert_int_equal(lonely_message_serialize(&m, NULL, 0, &want), LONELY_OK);
        for (size_t cap = 0; cap < want; cap++) {
            assert_int_equal(lonely_message_serialize(&m, guard_room(&g, cap), cap, &len),
                             LONELY_E_NO_SPACE);
            assert_int_equal(len, want);
        }
        assert_int_equal(lonely_message_serialize(&m, guard_room(&g, want), want, &len), LONELY_OK);
        assert_int_equal(len, want);
    }
    guard_destroy(&g);
}

static void the_head_goes_before_a_body_from_elsewhere(void **state)
{
    struct lonely_message m = valid_notify();
    uint8_t whole[256], head[256];
    size_t whole_len, head_len;

    (void)state;
    assert_int_equal(lonely_message_serialize(&m, whole, sizeof(whole), &whole_len), LONELY_OK);
    m.body = (struct lonely_span){ 0 };
    assert_int_equal(lonely_message_serialize_head(&m, head, sizeof(head), &head_len), LONELY_OK);
    assert_int_equal(head_len + 5, whole_len);
    assert_memory_equal(head, whole, head_len);
    m.as.notify.decompressed_length = 6;
    assert_int_equal(lonely_message_serialize_head(&m, head, sizeof(head), &head_len),
                     LONELY_E_LENGTH_PAIR);
}

/*
 * The sizes that section 10 of the specification names and the constant of the header. They allow
 * a part id 0 of eight bytes, which is read, but written as one.
 */
static void the_longest_heads_are_as_long_as_documented(void **state)
{
    struct lonely_message subscribe = valid_of(LONELY_S2B, LONELY_S2B_SUBSCRIBE_EXACT);
    struct lonely_message part = valid_of(LONELY_S2B, LONELY_S2B_NOTIFY_STREAM);
    struct lonely_span most = fill(LONELY_HEADER_MAX_BYTES);
    size_t len;

    (void)state;
    subscribe.as.subscription = (struct lonely_msg_subscription){ most, most, most };
    assert_int_equal(lonely_message_serialize_head(&subscribe, NULL, 0, &len), LONELY_OK);
    assert_int_equal(len, 196615);
    part.as.stream = (struct lonely_msg_stream){ .authorization = most,
                                                 .tracing = most,
                                                 .identifier = fill(64),
                                                 .topic = most,
                                                 .compressor = UINT64_MAX,
                                                 .compressed_length = UINT64_MAX,
                                                 .decompressed_length = UINT64_MAX,
                                                 .compressed_sha512 = fill(64) };
    assert_int_equal(lonely_message_serialize_head(&part, NULL, 0, &len), LONELY_OK);
    assert_int_equal(len, 196787 - 7);
    part.minimal = false;
    assert_int_equal(lonely_message_serialize_head(&part, NULL, 0, &len), LONELY_OK);
    assert_int_equal(len, LONELY_MESSAGE_HEAD_MAX_BYTES - 7);
}

/* So one struct serves all the parts of a notification. */
static void start_headers_of_a_later_part_are_neither_written_nor_checked(void **state)
{
    struct lonely_message m = valid_of(LONELY_S2B, LONELY_S2B_NOTIFY_STREAM);
    uint8_t out[64], want[64];
    size_t len, want_len = table_unhex("0001 0007 0000 0000 0001 69 0001 01", want, sizeof(want));

    (void)state;
    m.as.stream = (struct lonely_msg_stream){ .identifier = LIT("i"),
                                              .part_id = 1,
                                              .topic = LIT("t"),
                                              .compressed_length = 5,
                                              .decompressed_length = 6 };
    assert_int_equal(lonely_message_serialize(&m, out, sizeof(out), &len), LONELY_OK);
    assert_int_equal(len, want_len);
    assert_memory_equal(out, want, want_len);
}

/* Part 0 and compressor 0 are one byte in a stream, part 0 is empty in an acknowledgement (Q7). */
static void zero_has_two_forms(void **state)
{
    struct lonely_message m = valid_of(LONELY_B2S, LONELY_B2S_RECEIVE_STREAM);
    uint8_t out[256], want[256];
    size_t len, want_len;

    (void)state;
    m.as.stream.compressed_sha512 = fill(64);
    assert_int_equal(lonely_message_serialize(&m, out, sizeof(out), &len), LONELY_OK);
    want_len = table_unhex("0001 0008 0000 0000 0000 0001 00 0000 0001 00 0000 0000 0040", want,
                           sizeof(want));
    assert_int_equal(len, want_len + 64);
    assert_memory_equal(out, want, want_len);
    m = valid_of(LONELY_B2S, LONELY_B2S_CONTINUE_NOTIFY);
    assert_int_equal(lonely_message_serialize(&m, out, sizeof(out), &len), LONELY_OK);
    want_len = table_unhex("0001 0007 0000 0000 0000 0000", want, sizeof(want));
    assert_int_equal(len, want_len);
    assert_memory_equal(out, want, want_len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_have_a_place),
        cmocka_unit_test(directions_are_two),
        cmocka_unit_test(types_have_names),
        cmocka_unit_test(the_last_duplicate_wins_and_the_loser_is_not_validated),
        cmocka_unit_test(the_largest_header_section_is_read),
        cmocka_unit_test(start_headers_of_a_later_part_are_not_looked_at),
        cmocka_unit_test(hashing_can_be_left_to_the_caller),
        cmocka_unit_test(the_head_of_a_frame_can_be_parsed_alone),
        cmocka_unit_test(refuses_to_write_what_a_reader_refuses),
        cmocka_unit_test(the_extremes_of_every_width_are_written),
        cmocka_unit_test(too_little_room_is_told_with_the_size),
        cmocka_unit_test(the_head_goes_before_a_body_from_elsewhere),
        cmocka_unit_test(the_longest_heads_are_as_long_as_documented),
        cmocka_unit_test(start_headers_of_a_later_part_are_neither_written_nor_checked),
        cmocka_unit_test(zero_has_two_forms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
