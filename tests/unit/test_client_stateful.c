/* The client over TCP with a broadcaster that the test plays: what it must not believe, what it sends again, what it
 * holds back, and its end in every state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "compressor.h"
#include "scripted_broadcaster.h"

static struct lonely_subscription *subscription;
static struct compressor *zstd;
static uint8_t sha512[64];

static struct lonely_span text(const char *s)
{
    return (struct lonely_span){ (const uint8_t *)s, strlen(s) };
}

/* ---- The client ---- */

static void open_client(const char *name, const char *value)
{
    const char *const options[][2] = {
        { "io", "caller" },
        { "broadcaster", sb.url },
        { "outgoing_min_reconnect_interval", "0" },
        { "outgoing_reconnect_retries", "none" },
        { "websocket_close_timeout", "200ms" },
        { name, value },
    };
    struct lonely_client_options *o = lonely_client_options_create();
    struct lonely_client_why why = { "" };

    for (size_t i = 0; i < TABLE_LEN(options); i++)
        if (options[i][0] != NULL &&
            lonely_client_options_set(o, options[i][0], options[i][1], &why) != LONELY_CLIENT_OK)
            fail_msg("%s", why.text);
    assert_int_equal(lonely_client_open(o, &sb.client, &why), LONELY_CLIENT_OK);
    lonely_client_options_destroy(o);
}

static void confirm_subscribe(void)
{
    struct lonely_message asked = sb_next(LONELY_S2B_SUBSCRIBE_EXACT);

    sb_send((struct lonely_message){ .type = LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT,
                                     .as.subscription.topic = asked.as.subscription.topic });
}

static void wait_connected(void)
{
    assert_int_equal(lonely_client_wait_connected(sb.client, SB_PATIENCE_MS), LONELY_CLIENT_OK);
}

/* Connected, and subscribed to "t". */
static void begin(const char *name, const char *value)
{
    sb_listen();
    open_client(name, value);
    assert_int_equal(lonely_subscription_create(sb.client, NULL, &subscription), 0);
    assert_int_equal(lonely_subscription_add_exact(subscription, LIT("t"), 0), 0);
    assert_int_equal(lonely_subscription_enter(subscription, 0), 0);
    sb_configure();
    confirm_subscribe();
    wait_connected();
}

static void end(void)
{
    lonely_subscription_destroy(subscription);
    sb_hang_up();
    assert_int_equal(lonely_client_close(sb.client), LONELY_CLIENT_OK);
    sb_close();
}

/* ---- What the broadcaster says ---- */

static void part(const char *identifier, uint64_t part_id, uint64_t length, struct lonely_span body)
{
    sb_send((struct lonely_message){
        .type = LONELY_B2S_RECEIVE_STREAM,
        .as.stream = {
            .identifier = text(identifier),
            .part_id = part_id,
            .topic = LIT_INIT("t"),
            .compressed_length = length,
            .decompressed_length = length,
            .compressed_sha512 = { sha512, sizeof(sha512) },
        },
        .body = body,
    });
}

static void message(const char *body)
{
    SHA512(text(body).ptr, text(body).len, sha512);
    part("m", 0, text(body).len, text(body));
}

static void enable(uint64_t id, struct lonely_span dictionary, struct lonely_span hash)
{
    sb_send((struct lonely_message){
        .type = (uint16_t)(dictionary.len > 0 ? LONELY_B2S_ENABLE_ZSTD_CUSTOM
                                              : LONELY_B2S_ENABLE_ZSTD_PRESET),
        .as.enable_zstd = { .identifier = id,
                            .compression_level = 3,
                            .min_size = 0,
                            .max_size = 0,
                            .sha512 = hash },
        .body = dictionary,
    });
}

/* 50 blanks, compressed; it says that they are `plain` long. */
static void packed(uint64_t plain, size_t cut, size_t extra)
{
    static const char blanks[] = "                                                  ";
    uint8_t bytes[1024] = { 0 };
    size_t len = compressor_compress(zstd, LIT(blanks), bytes, sizeof(bytes)) - cut + extra;

    enable(1, (struct lonely_span){ 0 }, (struct lonely_span){ 0 });
    SHA512(bytes, len, sha512);
    sb_send((struct lonely_message){
        .type = LONELY_B2S_RECEIVE_STREAM,
        .as.stream = { .identifier = LIT_INIT("z"),
                       .topic = LIT_INIT("t"),
                       .compressor = 1,
                       .compressed_length = len,
                       .decompressed_length = plain,
                       .compressed_sha512 = { sha512, sizeof(sha512) } },
        .body = { bytes, len },
    });
}

/* ---- What must not be believed ---- */

static void unknown_type(void)
{
    sb_send_bytes(LIT("\0\1\0\143"));
}

static void too_short(void)
{
    sb_send_bytes(LIT("\0\1\0"));
}

static void too_long(void)
{
    sb_send_all((const uint8_t *)"\377\377\377\377", 4);
}

static void configured_again(void)
{
    static const uint8_t nonce[LONELY_NONCE_BYTES];

    sb_send((struct lonely_message){ .type = LONELY_B2S_CONFIRM_CONFIGURE,
                                     .as.confirm_configure.broadcaster_nonce = { nonce, 32 } });
}

static void subscribed_unasked(void)
{
    sb_send((struct lonely_message){ .type = LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT,
                                     .as.subscription.topic = LIT_INIT("t") });
}

static void notified_unasked(void)
{
    sb_send((struct lonely_message){ .type = LONELY_B2S_CONFIRM_NOTIFY,
                                     .as.confirm_notify.identifier = LIT_INIT("1234") });
}

static void continued_unasked(void)
{
    sb_send((struct lonely_message){ .type = LONELY_B2S_CONTINUE_NOTIFY,
                                     .as.continuation.identifier = LIT_INIT("1234") });
}

static void later_part_first(void)
{
    part("a", 1, 10, LIT("x"));
}

static void part_left_out(void)
{
    part("a", 0, 10, LIT("x"));
    part("a", 2, 10, LIT("x"));
}

static void another_between(void)
{
    part("a", 0, 10, LIT("x"));
    part("b", 0, 10, LIT("x"));
}

static void part_of_another(void)
{
    part("a", 0, 10, LIT("x"));
    part("b", 1, 10, LIT("x"));
}

static void longer_than_announced(void)
{
    part("a", 0, 3, LIT("12345"));
}

static void wrong_hash(void)
{
    memset(sha512, 1, sizeof(sha512));
    part("a", 0, 3, LIT("123"));
}

static void compressor_not_enabled(void)
{
    sb_send((struct lonely_message){
        .type = LONELY_B2S_RECEIVE_STREAM,
        .as.stream = { .identifier = LIT_INIT("z"),
                       .topic = LIT_INIT("t"),
                       .compressor = 1,
                       .compressed_length = 1,
                       .decompressed_length = 1,
                       .compressed_sha512 = { sha512, sizeof(sha512) } },
        .body = LIT_INIT("x"),
    });
}

static void preset_not_here(void)
{
    enable(5, (struct lonely_span){ 0 }, (struct lonely_span){ 0 });
}

static void enabled_twice(void)
{
    enable(1, (struct lonely_span){ 0 }, (struct lonely_span){ 0 });
    enable(1, (struct lonely_span){ 0 }, (struct lonely_span){ 0 });
}

static void dictionary_of_another_hash(void)
{
    static const uint8_t zero[64];

    enable(65536, LIT("some content, some content, some content"),
           (struct lonely_span){ zero, sizeof(zero) });
}

static void too_many_dictionaries(void)
{
    static const char content[] = "some content, some content, some content";
    uint8_t hash[64];

    SHA512((const uint8_t *)content, sizeof(content) - 1, hash);
    for (uint64_t id = 65536; id < 65536 + 20; id++)
        enable(id, LIT(content), (struct lonely_span){ hash, sizeof(hash) });
}

static void disabled_unknown(void)
{
    sb_send((struct lonely_message){ .type = LONELY_B2S_DISABLE_ZSTD_CUSTOM,
                                     .as.disable_zstd.identifier = 65536 });
}

static void expands_further(void)
{
    packed(20, 0, 0);
}

static void expands_less(void)
{
    packed(80, 0, 0);
}

static void cut_short(void)
{
    packed(50, 2, 0);
}

static void garbage_behind(void)
{
    packed(50, 0, 3);
}

static const struct hostile {
    const char *name;
    void (*say)(void);
} hostile[] = {
    { "unknown type", unknown_type },
    { "frame without type", too_short },
    { "frame of 4 GiB", too_long },
    { "CONFIRM_CONFIGURE again", configured_again },
    { "CONFIRM_SUBSCRIBE of nothing", subscribed_unasked },
    { "CONFIRM_NOTIFY of nothing", notified_unasked },
    { "CONTINUE_NOTIFY of nothing", continued_unasked },
    { "a later part first", later_part_first },
    { "a part left out", part_left_out },
    { "a message inside another", another_between },
    { "a part of another message", part_of_another },
    { "longer than announced", longer_than_announced },
    { "wrong hash", wrong_hash },
    { "compressor that was not enabled", compressor_not_enabled },
    { "preset that is not here", preset_not_here },
    { "compressor enabled twice", enabled_twice },
    { "dictionary of another hash", dictionary_of_another_hash },
    { "dictionaries without end", too_many_dictionaries },
    { "DISABLE of the unknown", disabled_unknown },
    { "expands to more than announced", expands_further },
    { "expands to less than announced", expands_less },
    { "compressed and cut", cut_short },
    { "garbage behind the compressed", garbage_behind },
};

static void assert_next(const char *body)
{
    struct lonely_delivery *d;
    char read[64];

    assert_int_equal(lonely_subscription_next(subscription, SB_PATIENCE_MS, &d), LONELY_CLIENT_OK);
    assert_int_equal(lonely_delivery_read(d, 0, read, sizeof(read)), strlen(body));
    assert_memory_equal(read, body, strlen(body));
    lonely_delivery_release(d);
}

/* The connection ends, nothing of it is delivered, and the next one is as good as new. */
static void test_hostile(void **state)
{
    const struct hostile *h = *state;
    struct lonely_delivery *d;
    struct lonely_client_why why;

    begin(NULL, NULL);
    h->say();
    sb_expect_end();
    lonely_client_last_error(sb.client, &why);
    assert_true(why.text[0] != '\0');
    assert_int_equal(lonely_client_status(sb.client), LONELY_CLIENT_LOST);
    assert_int_equal(lonely_subscription_next(subscription, 0, &d), LONELY_CLIENT_TIMED_OUT);
    sb_configure();
    confirm_subscribe();
    wait_connected();
    message("good");
    sb_next(LONELY_S2B_CONFIRM_RECEIVE);
    assert_next("good");
    assert_int_equal(lonely_subscription_next(subscription, 0, &d), LONELY_CLIENT_TIMED_OUT);
    end();
}

/* ---- Messages that are not taken ---- */

static void add_more(void)
{
    struct lonely_message asked;

    assert_int_equal(lonely_subscription_add_exact(subscription, LIT("u"), 0), 0);
    asked = sb_next(LONELY_S2B_SUBSCRIBE_EXACT);
    assert_true(table_span_equal(asked.as.subscription.topic, LIT("u")));
    sb_send((struct lonely_message){ .type = LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT,
                                     .as.subscription.topic = LIT_INIT("u") });
}

/* A full queue keeps acknowledgements back, and nothing else. */
static void test_full_queue(void **state)
{
    static const char *const bodies[] = { "0", "1", "2", "3", "4", "5", "6" };

    (void)state;
    begin("max_received", "4");
    for (size_t i = 0; i < TABLE_LEN(bodies); i++)
        message(bodies[i]);
    for (int i = 0; i < 4; i++)
        sb_next(LONELY_S2B_CONFIRM_RECEIVE);
    sb_idle();
    add_more();
    wait_connected();
    for (size_t i = 0; i < TABLE_LEN(bodies); i++)
        assert_next(bodies[i]);
    for (int i = 0; i < 3; i++)
        sb_next(LONELY_S2B_CONFIRM_RECEIVE);
    end();
}

/* Who ignores that is not listened to for ever. */
static void test_flood(void **state)
{
    (void)state;
    begin("max_unsent_acks", "10");
    for (int i = 0; i < 1024 + 10 + 1; i++)
        message("x");
    sb_expect_end();
    sb_configure();
    end();
}

/* ---- Notifies ---- */

static struct outcome {
    enum lonely_client_error err;
    uint64_t notified;
    int calls;
} outcomes[8];

static void on_done(void *arg, enum lonely_client_error err, uint64_t notified)
{
    struct outcome *o = arg;

    o->err = err;
    o->notified = notified;
    o->calls++;
}

static void start_notify(int i, const char *body)
{
    struct lonely_notify n;

    outcomes[i] = (struct outcome){ 0 };
    lonely_notify_init(&n);
    n.topic = LIT("n");
    n.bytes = text(body);
    assert_int_equal(lonely_client_notify_start(sb.client, &n, on_done, &outcomes[i]),
                     LONELY_CLIENT_OK);
}

static void wait_outcome(int i)
{
    for (int waited = 0; outcomes[i].calls == 0 && waited < SB_PATIENCE_MS; waited += 10)
        sb_work(sb.listener, 10);
    assert_int_equal(outcomes[i].calls, 1);
}

static void confirm_notify(const struct lonely_message *m, uint32_t count)
{
    sb_send((struct lonely_message){
        .type = LONELY_B2S_CONFIRM_NOTIFY,
        .as.confirm_notify = { .identifier = m->as.notify.identifier, .subscribers = count } });
}

static void expect_notify(const char *body, uint32_t count)
{
    struct lonely_message m = sb_next(LONELY_S2B_NOTIFY);

    assert_true(table_span_equal(m.body, text(body)));
    if (count > 0)
        confirm_notify(&m, count);
}

static void test_sent_again_in_order(void **state)
{
    (void)state;
    begin(NULL, NULL);
    start_notify(0, "0");
    start_notify(1, "1");
    start_notify(2, "2");
    expect_notify("0", 7);
    wait_outcome(0);
    assert_int_equal(outcomes[0].notified, 7);
    expect_notify("1", 0);
    expect_notify("2", 0);
    sb_hang_up();
    sb_configure();
    start_notify(3, "3");
    confirm_subscribe();
    expect_notify("1", 1);
    expect_notify("2", 2);
    expect_notify("3", 3);
    for (int i = 1; i < 4; i++) {
        wait_outcome(i);
        assert_int_equal(outcomes[i].err, LONELY_CLIENT_OK);
        assert_int_equal(outcomes[i].notified, i);
    }
    end();
}

/* A broadcaster can only close when it does not like one: the others are not to suffer for ever. */
static void test_one_that_is_not_liked(void **state)
{
    (void)state;
    begin(NULL, NULL);
    start_notify(0, "bad");
    start_notify(1, "good");
    for (int i = 0; i < 3; i++) {
        expect_notify("bad", 0);
        expect_notify("good", 0);
        sb_hang_up();
        sb_configure();
        confirm_subscribe();
    }
    wait_outcome(0);
    assert_int_equal(outcomes[0].err, LONELY_CLIENT_AMBIGUOUS);
    expect_notify("good", 1);
    wait_outcome(1);
    assert_int_equal(outcomes[1].err, LONELY_CLIENT_OK);
    end();
}

static ptrdiff_t read_half(void *arg, uint64_t at, void *to, size_t cap)
{
    (void)arg;
    if (at >= 4000000)
        return -1;
    memset(to, 0, cap);
    return (ptrdiff_t)cap;
}

/* Neither is sent again, nor is anything else put into the frame that was begun. */
static void test_source_that_fails(void **state)
{
    static const uint8_t hash[64] = { 1 };
    struct lonely_notify n;

    (void)state;
    begin(NULL, NULL);
    lonely_notify_init(&n);
    n.topic = LIT("n");
    n.read = read_half;
    n.size = 8000000;
    n.sha512 = hash;
    outcomes[0] = (struct outcome){ 0 };
    assert_int_equal(lonely_client_notify_start(sb.client, &n, on_done, &outcomes[0]), 0);
    start_notify(1, "next");
    for (bool open = true; open;)
        open = sb_next_bytes().len > 0;
    sb_hang_up();
    wait_outcome(0);
    assert_int_equal(outcomes[0].err, LONELY_CLIENT_SOURCE);
    sb_configure();
    confirm_subscribe();
    expect_notify("next", 1);
    wait_outcome(1);
    end();
}

static void test_limit_of_what_waits(void **state)
{
    (void)state;
    sb_listen();
    open_client("max_unsent_notifications", "2");
    for (int i = 0; i < 3; i++)
        start_notify(i, "x");
    assert_int_equal(outcomes[2].calls, 1);
    assert_int_equal(outcomes[2].err, LONELY_CLIENT_QUEUE_FULL);
    assert_int_equal(lonely_client_close(sb.client), LONELY_CLIENT_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(outcomes[i].err, LONELY_CLIENT_ABANDONED);
    sb_close();
}

/* ---- Callbacks that call back ---- */

static void on_status(void *arg, enum lonely_client_status status, struct lonely_span missed)
{
    (void)missed;
    ++*(int *)arg;
    if (status == LONELY_CLIENT_LOST && subscription != NULL) {
        lonely_subscription_destroy(subscription);
        subscription = NULL;
    }
    if (status == LONELY_CLIENT_CONNECTED)
        start_notify(0, "of a callback");
}

static void on_message(void *arg, struct lonely_delivery *d)
{
    uint64_t id;

    (void)d;
    ++*(int *)arg;
    assert_int_equal(lonely_client_direct_subscribe_exact(sb.client, LIT("d"), 0, &id), 0);
    assert_int_equal(lonely_client_direct_unsubscribe(sb.client, id, 0), 0);
    start_notify(1, "of a message");
}

static void test_callbacks_that_call_back(void **state)
{
    int told = 0, messages = 0;
    uint64_t status_id, message_id;

    (void)state;
    begin(NULL, NULL);
    assert_int_equal(lonely_client_on_message(sb.client, on_message, &messages, &message_id), 0);
    message("x");
    sb_next(LONELY_S2B_CONFIRM_RECEIVE);
    confirm_subscribe();
    expect_notify("of a message", 1);
    wait_outcome(1);
    sb_next(LONELY_S2B_UNSUBSCRIBE_EXACT); /* it was given up while it was under way */
    assert_int_equal(messages, 1);
    assert_int_equal(lonely_client_on_status(sb.client, on_status, &told, &status_id), 0);
    sb_hang_up();
    sb_configure();
    expect_notify("of a callback", 1); /* nothing is subscribed any more */
    wait_outcome(0);
    assert_true(told >= 2);
    lonely_client_off(sb.client, status_id);
    lonely_client_off(sb.client, message_id);
    end();
}

/* ---- The end, in every state ---- */

static void test_close_before_anybody_answers(void **state)
{
    (void)state;
    sb_listen();
    open_client(NULL, NULL);
    start_notify(0, "x");
    assert_int_equal(lonely_client_close(sb.client), LONELY_CLIENT_OK);
    assert_int_equal(outcomes[0].err, LONELY_CLIENT_ABANDONED);
    sb_close();
}

static void test_close_while_configuring(void **state)
{
    (void)state;
    sb_listen();
    open_client(NULL, NULL);
    sb_accept();
    sb_next(LONELY_S2B_CONFIGURE);
    assert_int_equal(lonely_client_close(sb.client), LONELY_CLIENT_OK);
    sb_close();
}

static void test_close_with_work_under_way(void **state)
{
    (void)state;
    begin(NULL, NULL);
    start_notify(0, "x");
    expect_notify("x", 0);
    part("half", 0, 10, LIT("12"));
    sb_next(LONELY_S2B_CONTINUE_RECEIVE);
    lonely_subscription_destroy(subscription);
    assert_int_equal(lonely_client_close(sb.client), LONELY_CLIENT_OK);
    assert_int_equal(outcomes[0].err, LONELY_CLIENT_AMBIGUOUS);
    sb_close();
}

static void test_close_while_waiting_to_retry(void **state)
{
    (void)state;
    sb_listen();
    close(sb.listener);
    open_client("outgoing_initial_connect_retries", "3");
    assert_int_equal(lonely_client_wait_connected(sb.client, 300), LONELY_CLIENT_TIMED_OUT);
    assert_int_equal(lonely_client_close(sb.client), LONELY_CLIENT_OK);
}

/* ---- Given up before it was asked for ---- */

static void test_given_up_early(void **state)
{
    struct lonely_subscription *s;

    (void)state;
    sb_listen();
    open_client(NULL, NULL);
    assert_int_equal(lonely_subscription_create(sb.client, NULL, &s), 0);
    assert_int_equal(lonely_subscription_add_exact(s, LIT("early"), 0), 0);
    assert_int_equal(lonely_subscription_enter(s, 0), 0);
    lonely_subscription_destroy(s);
    sb_configure();
    sb_idle(); /* nothing is asked */
    wait_connected();
    sb_hang_up();
    assert_int_equal(lonely_client_close(sb.client), LONELY_CLIENT_OK);
    sb_close();
}

int main(void)
{
    static const struct CMUnitTest others[] = {
        cmocka_unit_test(test_full_queue),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_sent_again_in_order),
        cmocka_unit_test(test_one_that_is_not_liked),
        cmocka_unit_test(test_source_that_fails),
        cmocka_unit_test(test_limit_of_what_waits),
        cmocka_unit_test(test_callbacks_that_call_back),
        cmocka_unit_test(test_close_before_anybody_answers),
        cmocka_unit_test(test_close_while_configuring),
        cmocka_unit_test(test_close_with_work_under_way),
        cmocka_unit_test(test_close_while_waiting_to_retry),
        cmocka_unit_test(test_given_up_early),
    };
    struct CMUnitTest tests[TABLE_LEN(hostile) + TABLE_LEN(others)];
    int failed;

    zstd = compressor_create(COMPRESSOR_PLAIN, (struct lonely_span){ 0 }, 3);
    for (size_t i = 0; i < TABLE_LEN(hostile); i++)
        tests[i] = (struct CMUnitTest){ .name = hostile[i].name,
                                        .test_func = test_hostile,
                                        .initial_state = (void *)(uintptr_t)&hostile[i] };
    memcpy(tests + TABLE_LEN(hostile), others, sizeof(others));
    failed = cmocka_run_group_tests_name("client_stateful", tests, NULL, NULL);
    compressor_unref(zstd);
    return failed;
}
