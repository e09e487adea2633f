/*
 * The websocket codec alone: websocket.h. What a peer may send is in test_transport_frames.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tables.h"
#include "websocket.h"

/* Of every length, from every byte of the payload on, at every alignment, in two pieces or one. */
static void masks_from_any_byte_on(void **state)
{
    static const uint8_t key[4] = { 0x12, 0x34, 0x56, 0x78 };
    uint8_t plain[80], masked[80], in[96];

    (void)state;
    for (size_t i = 0; i < sizeof plain; i++) {
        plain[i] = (uint8_t)(i * 5 + 1);
        masked[i] = plain[i] ^ key[i & 3];
    }
    for (size_t at = 0; at < 9; at++) {
        for (size_t len = 0; at + len <= sizeof plain; len++) {
            for (size_t cut = 0; cut <= len && cut < 20; cut++) {
                uint8_t *to = in + (at + len) % 8;

                memset(in, 0, sizeof in);
                memcpy(to, plain + at, len);
                websocket_mask(to, cut, key, at);
                websocket_mask(to + cut, len - cut, key, at + cut);
                assert_memory_equal(to, masked + at, len);
                assert_int_equal(to[len], 0);
            }
        }
    }
}

static const struct head_case {
    enum websocket_opcode opcode;
    uint64_t len;
    bool masked;
    const char *hex;
} heads[] = {
    { WEBSOCKET_BINARY, 0, false, "8200" },
    { WEBSOCKET_BINARY, 125, false, "827d" },
    { WEBSOCKET_BINARY, 126, false, "827e007e" },
    { WEBSOCKET_BINARY, 65535, false, "827effff" },
    { WEBSOCKET_BINARY, 65536, false, "827f0000000000010000" },
    { WEBSOCKET_TEXT, UINT64_C(0x7fffffffffffffff), false, "817f7fffffffffffffff" },
    { WEBSOCKET_CLOSE, 2, true, "8882 01020304" },
    { WEBSOCKET_PING, 126, true, "89fe007e 01020304" },
    { WEBSOCKET_PONG, 65536, true, "8aff0000000000010000 01020304" },
};

static void writes_the_shortest_heads(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(heads); i++) {
        static const uint8_t key[4] = { 1, 2, 3, 4 };
        uint8_t want[WEBSOCKET_HEAD_MAX], out[WEBSOCKET_HEAD_MAX];
        size_t len = table_unhex(heads[i].hex, want, sizeof want);

        assert_int_equal(
            websocket_write_head(out, heads[i].opcode, heads[i].len, heads[i].masked ? key : NULL),
            len);
        assert_memory_equal(out, want, len);
    }
}

/* A client reads what is not masked, and nothing else. */
static void reads_as_a_client(void **state)
{
    uint8_t good[] = { 0x82, 1, 'a' }, masked[] = { 0x82, 0x81, 0, 0, 0, 0, 'a' };
    struct websocket w;
    struct websocket_step step;

    (void)state;
    websocket_init(&w, false, false, 10);
    step = websocket_next(&w, good, sizeof good);
    assert_int_equal(step.event, WEBSOCKET_ON_PIECE);
    assert_ptr_equal(step.bytes.ptr, good + 2);
    assert_true(step.first && step.last);
    assert_int_equal(websocket_next(&w, masked, sizeof masked).event, WEBSOCKET_ON_BAD);
    step = websocket_next(&w, good, sizeof good); /* it sticks */
    assert_int_equal(step.event, WEBSOCKET_ON_BAD);
    assert_int_equal(step.code, WEBSOCKET_MALFORMED);
    assert_int_equal(step.used, 0);
}

/* The length of a message is known from its first piece, unless it comes in fragments. */
static void tells_the_length_of_a_message(void **state)
{
    uint8_t whole[] = { 0x82, 4, 'a', 'b' }, first[] = { 2, 1, 'a' }, last[] = { 0x80, 0 };
    struct websocket w;
    struct websocket_step step;

    (void)state;
    websocket_init(&w, false, false, 10);
    step = websocket_next(&w, whole, sizeof whole);
    assert_int_equal(step.message_bytes, 4);
    assert_true(step.first && !step.last);
    step = websocket_next(&w, whole + 2, 2);
    assert_int_equal(step.message_bytes, 4);
    assert_true(!step.first && step.last);
    step = websocket_next(&w, first, sizeof first);
    assert_true(step.message_bytes == WEBSOCKET_LENGTH_UNKNOWN && step.first && !step.last);
    step = websocket_next(&w, last, sizeof last);
    assert_true(step.message_bytes == WEBSOCKET_LENGTH_UNKNOWN && !step.first && step.last);
    assert_int_equal(step.bytes.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_from_any_byte_on),
        cmocka_unit_test(writes_the_shortest_heads),
        cmocka_unit_test(reads_as_a_client),
        cmocka_unit_test(tells_the_length_of_a_message),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
