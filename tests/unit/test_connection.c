/* Connection nonce, counters and urls (doc/protocol/stateful.md, 9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lonely/connection.h>

#include "tables.h"

static const uint8_t zeros[LONELY_NONCE_BYTES];

static struct lonely_connection connection(void)
{
    struct lonely_connection c;
    struct lonely_span nonce = { zeros, sizeof(zeros) };

    assert_int_equal(lonely_connection_init(&c, nonce, nonce), LONELY_OK);
    return c;
}

static int64_t take(struct lonely_connection *c, enum lonely_counter counter)
{
    int64_t number = 0;

    assert_int_equal(lonely_connection_take(c, counter, &number), LONELY_OK);
    return number;
}

static void nonces_are_32_bytes(void **state)
{
    struct lonely_connection c;
    struct lonely_span good = { zeros, 32 }, bad = { zeros, 31 };

    (void)state;
    assert_int_equal(lonely_connection_init(&c, good, bad), LONELY_E_NONCE_SIZE);
    assert_int_equal(lonely_connection_init(&c, bad, good), LONELY_E_NONCE_SIZE);
    assert_int_equal(lonely_connection_init(&c, good, good), LONELY_OK);
}

static void the_order_of_the_nonces_counts(void **state)
{
    uint8_t ones[LONELY_NONCE_BYTES];
    struct lonely_connection a, b;

    (void)state;
    memset(ones, 1, sizeof(ones));
    lonely_connection_init(&a, (struct lonely_span){ zeros, 32 }, (struct lonely_span){ ones, 32 });
    lonely_connection_init(&b, (struct lonely_span){ ones, 32 }, (struct lonely_span){ zeros, 32 });
    assert_memory_not_equal(a.nonce, b.nonce, sizeof(a.nonce));
}

static void counters_go_apart_from_zero(void **state)
{
    struct lonely_connection c = connection();

    (void)state;
    for (int64_t i = 1; i < 300; i++) {
        assert_true(take(&c, LONELY_COUNTER_SUBSCRIBER) == -i);
        assert_true(take(&c, LONELY_COUNTER_BROADCASTER) == i);
    }
}

static void counters_end_and_do_not_wrap(void **state)
{
    struct lonely_connection c = connection();
    int64_t number = 77;

    (void)state;
    c.next_subscriber = INT64_MIN + 1;
    c.next_broadcaster = INT64_MAX - 1;
    assert_true(take(&c, LONELY_COUNTER_SUBSCRIBER) == INT64_MIN + 1);
    assert_true(take(&c, LONELY_COUNTER_SUBSCRIBER) == INT64_MIN);
    assert_true(take(&c, LONELY_COUNTER_BROADCASTER) == INT64_MAX - 1);
    assert_true(take(&c, LONELY_COUNTER_BROADCASTER) == INT64_MAX);
    for (int again = 0; again < 3; again++) {
        assert_int_equal(lonely_connection_take(&c, LONELY_COUNTER_SUBSCRIBER, &number),
                         LONELY_E_COUNTER);
        assert_int_equal(lonely_connection_take(&c, LONELY_COUNTER_BROADCASTER, &number),
                         LONELY_E_COUNTER);
    }
    assert_true(number == 77);
}

static void other_counters_cannot_be_taken(void **state)
{
    struct lonely_connection c = connection();
    int64_t number = 77;

    (void)state;
    assert_int_equal(lonely_connection_take(&c, LONELY_COUNTER_NONE, &number), LONELY_E_ARGUMENT);
    assert_int_equal(lonely_connection_take(&c, LONELY_COUNTER_REQUEST, &number),
                     LONELY_E_ARGUMENT);
    assert_true(number == 77);
}

static const struct use_case {
    enum lonely_direction direction;
    unsigned type;
    enum lonely_counter counter;
} use_cases[] = {
    { LONELY_S2B, 0, LONELY_COUNTER_NONE },
    { LONELY_S2B, LONELY_S2B_CONFIGURE, LONELY_COUNTER_NONE },
    { LONELY_S2B, LONELY_S2B_SUBSCRIBE_EXACT, LONELY_COUNTER_SUBSCRIBER },
    { LONELY_S2B, LONELY_S2B_SUBSCRIBE_GLOB, LONELY_COUNTER_SUBSCRIBER },
    { LONELY_S2B, LONELY_S2B_UNSUBSCRIBE_EXACT, LONELY_COUNTER_SUBSCRIBER },
    { LONELY_S2B, LONELY_S2B_UNSUBSCRIBE_GLOB, LONELY_COUNTER_SUBSCRIBER },
    { LONELY_S2B, LONELY_S2B_NOTIFY, LONELY_COUNTER_NONE },
    { LONELY_S2B, LONELY_S2B_NOTIFY_STREAM, LONELY_COUNTER_NONE },
    { LONELY_S2B, LONELY_S2B_CONTINUE_RECEIVE, LONELY_COUNTER_SUBSCRIBER },
    { LONELY_S2B, LONELY_S2B_CONFIRM_RECEIVE, LONELY_COUNTER_SUBSCRIBER },
    { LONELY_S2B, 10, LONELY_COUNTER_NONE },
    { LONELY_B2S, 0, LONELY_COUNTER_NONE },
    { LONELY_B2S, LONELY_B2S_CONFIRM_CONFIGURE, LONELY_COUNTER_NONE },
    { LONELY_B2S, LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT, LONELY_COUNTER_REQUEST },
    { LONELY_B2S, LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB, LONELY_COUNTER_REQUEST },
    { LONELY_B2S, LONELY_B2S_CONFIRM_UNSUBSCRIBE_EXACT, LONELY_COUNTER_REQUEST },
    { LONELY_B2S, LONELY_B2S_CONFIRM_UNSUBSCRIBE_GLOB, LONELY_COUNTER_REQUEST },
    { LONELY_B2S, LONELY_B2S_CONFIRM_NOTIFY, LONELY_COUNTER_NONE },
    { LONELY_B2S, LONELY_B2S_CONTINUE_NOTIFY, LONELY_COUNTER_NONE },
    { LONELY_B2S, LONELY_B2S_RECEIVE_STREAM, LONELY_COUNTER_BROADCASTER },
    { LONELY_B2S, LONELY_B2S_ENABLE_ZSTD_PRESET, LONELY_COUNTER_BROADCASTER },
    { LONELY_B2S, LONELY_B2S_ENABLE_ZSTD_CUSTOM, LONELY_COUNTER_BROADCASTER },
    { LONELY_B2S, LONELY_B2S_DISABLE_ZSTD_CUSTOM, LONELY_COUNTER_BROADCASTER },
    { LONELY_B2S, LONELY_B2S_MISSED, LONELY_COUNTER_BROADCASTER },
    { LONELY_B2S, 13, LONELY_COUNTER_NONE },
    { LONELY_B2S, 0xffffffff, LONELY_COUNTER_NONE },
};

static void messages_use_their_counter(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(use_cases); i++)
        assert_int_equal(lonely_connection_counter(use_cases[i].direction, use_cases[i].type),
                         use_cases[i].counter);
}

static const struct url_case {
    int64_t number;
    const char *tail;
} url_cases[] = {
    { 1, ":1" },
    { -1, ":-1" },
    { 10, ":a" },
    { -16, ":-10" },
    { 26, ":1a" },
    { -26, ":-1a" },
    { INT64_MAX, ":7fffffffffffffff" },
    { INT64_MIN, ":-8000000000000000" },
};

/* From shortest to longest, in exactly the room that the header asks for. */
static void urls_fit_their_buffer(void **state)
{
    static const char head[] = "websocket:9aX9QtFqIDAnmO9u0wmXm0MAPSMg2fDo6pgxqSdZ+0s=";
    struct lonely_connection c = connection();
    struct guard g = guard_create(LONELY_CONNECTION_URL_MAX_BYTES);
    char *url = (char *)guard_room(&g, LONELY_CONNECTION_URL_MAX_BYTES);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(url_cases); i++) {
        size_t len = lonely_connection_url(&c, url_cases[i].number, url);

        assert_int_equal(len, strlen(url));
        assert_int_equal(len, sizeof(head) - 1 + strlen(url_cases[i].tail));
        assert_memory_equal(url, head, sizeof(head) - 1);
        assert_string_equal(url + sizeof(head) - 1, url_cases[i].tail);
    }
    assert_int_equal(strlen(url), LONELY_CONNECTION_URL_MAX_BYTES - 1);
    guard_destroy(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonces_are_32_bytes),
        cmocka_unit_test(the_order_of_the_nonces_counts),
        cmocka_unit_test(counters_go_apart_from_zero),
        cmocka_unit_test(counters_end_and_do_not_wrap),
        cmocka_unit_test(other_counters_cannot_be_taken),
        cmocka_unit_test(messages_use_their_counter),
        cmocka_unit_test(urls_fit_their_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
