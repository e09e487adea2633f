/*
 * Tests of a session's sending: parts, windows, what waits and how much of it, nothing between parts, files,
 * counters and authorization of both directions.
 */
#include "session_fixture.h"

#include <lonely/auth.h>
#include <lonely/connection.h>

#include "session_peer.h"

#define BOTH_HMAC                                                                \
    "{\"version\": \"2\", \"to-broadcaster\": {\"type\": \"hmac\", \"secret\": " \
    "\"" SECRET_SUBSCRIBER                                                       \
    "\"}, \"to-subscriber\": {\"type\": \"hmac\", \"secret\": \"" SECRET_SUBSCRIBER "\"}}"

static int setup(void **state)
{
    (void)state;
    fx_init();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fx_fini();
    return 0;
}

static void open_subscribed(enum transport_kind kind)
{
    fx_open(NULL, kind, false);
    peer_configures();
    peer_subscribes(LONELY_S2B_SUBSCRIBE_EXACT, "t");
    fx_next(LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT);
}

static void assert_ended(enum transport_code code)
{
    fx_run();
    assert_true(fx.t.closed);
    assert_int_equal(fx.t.code, code);
}

static void keep_body(void *arg, enum body_error err, struct body *body)
{
    assert_int_equal(err, BODY_OK);
    *(struct body **)arg = body;
}

/* A body of `len` bytes that differ. */
static struct body *body_of(size_t len)
{
    struct body_writer *w = body_writer_create(fx.worker.lane, len);
    uint8_t *bytes = mem_alloc(len);
    struct body *body = NULL;

    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 8));
    body_writer_add(w, (struct lonely_span){ bytes, len }, NULL, NULL);
    body_writer_finish(w, keep_body, &body);
    while (body == NULL)
        uv_run(&fx.worker.loop, UV_RUN_ONCE);
    mem_free(bytes);
    return body;
}

static bool deliver(const char identifier[5], size_t len)
{
    struct body *body = body_of(len);
    bool taken = fx_deliver(LIT("t"), body, identifier);

    body_unref(body);
    return taken;
}

/* Name of the message `i`. */
static const char *name_of(unsigned i)
{
    static char name[5];

    snprintf(name, sizeof(name), "%04u", i);
    return name;
}

/* ---- Windows and queues ---- */

static void the_window_counts_across_messages(void **state)
{
    (void)state;
    fx.conf.websocket.websocket_send_max_unacknowledged = 3;
    open_subscribed(TRANSPORT_WEBSOCKET);
    for (unsigned i = 0; i < 5; i++)
        assert_true(deliver(name_of(i), 10));
    for (unsigned i = 0; i < 3; i++)
        assert_memory_equal(fx_next(LONELY_B2S_RECEIVE_STREAM).as.stream.identifier.ptr, name_of(i),
                            4);
    fx_no_more();
    peer_confirms("0000");
    assert_memory_equal(fx_next(LONELY_B2S_RECEIVE_STREAM).as.stream.identifier.ptr, "0003", 4);
    fx_no_more();
    peer_confirms("0001");
    fx_next(LONELY_B2S_RECEIVE_STREAM);
    peer_confirms("0002");
    peer_confirms("0003");
    peer_confirms("0004");
    fx_no_more();
}

static void no_window(void **state)
{
    (void)state;
    fx.conf.websocket.websocket_send_max_unacknowledged = CONF_NONE;
    open_subscribed(TRANSPORT_WEBSOCKET);
    for (unsigned i = 0; i < 400; i++) {
        assert_true(deliver(name_of(i), 1));
        fx_next(LONELY_B2S_RECEIVE_STREAM);
    }
    for (unsigned i = 0; i < 400; i++)
        peer_confirms(name_of(i));
    assert_false(fx.t.closed);
}

/* 3 on the wire, 1 that would be next, 255 behind it. (doc/protocol/session.md, 3.3) */
static void who_never_acknowledges_is_dropped(void **state)
{
    (void)state;
    fx.conf.websocket.websocket_send_max_unacknowledged = 3;
    open_subscribed(TRANSPORT_WEBSOCKET);
    for (unsigned i = 0; i < 259; i++)
        assert_true(deliver(name_of(i), 1));
    assert_false(fx.t.closed);
    assert_false(deliver("over", 1));
    assert_ended(TRANSPORT_OVERLOAD);
    assert_null(fx.receiver);
}

static void wrong_acknowledgements(void **state)
{
    static const struct {
        bool last;
        const char *identifier;
        uint64_t part_id;
    } cases[] = {
        { true, "0000", 0 }, { false, "0000", 1 }, { false, "0001", 0 },
        { false, "000", 0 }, { false, "", 0 },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        if (i > 0)
            fx_init();
        fx.conf.websocket.outgoing_max_ws_message_size = 1000;
        open_subscribed(TRANSPORT_WEBSOCKET);
        deliver("0000", 2000); /* expects CONTINUE_RECEIVE(0000, 0) */
        if (cases[i].last)
            peer_confirms(cases[i].identifier);
        else
            peer_continues(cases[i].identifier, cases[i].part_id);
        assert_ended(TRANSPORT_POLICY);
        if (i + 1 < TABLE_LEN(cases))
            fx_fini();
    }
}

static void missed_waits_its_turn(void **state)
{
    (void)state;
    fx.conf.websocket.websocket_send_max_unacknowledged = 1;
    open_subscribed(TRANSPORT_WEBSOCKET);
    assert_true(fx.receiver->ops->on_missed(fx.receiver, LIT("a")));
    assert_true(table_span_equal(fx_next(LONELY_B2S_MISSED).as.missed.topic, LIT("a")));
    deliver("0000", 1);
    deliver("0001", 1);
    assert_true(fx.receiver->ops->on_missed(fx.receiver, LIT("b")));
    fx_next(LONELY_B2S_RECEIVE_STREAM);
    fx_no_more();
    peer_confirms("0000");
    fx_next(LONELY_B2S_RECEIVE_STREAM);
    assert_true(table_span_equal(fx_next(LONELY_B2S_MISSED).as.missed.topic, LIT("b")));
}

/* ---- Parts ---- */

/* Takes a whole message and acknowledges it. How many frames it had. */
static unsigned take_message(const char *identifier, size_t len, size_t limit)
{
    size_t got = 0;
    unsigned frames = 0;

    do {
        struct lonely_message m;
        size_t frame;

        while (fx.read_count == fx.frame_count ||
               fx.frames[fx.read_count].len < fx.frames[fx.read_count].want)
            uv_run(&fx.worker.loop, UV_RUN_ONCE);
        frame = fx.frames[fx.read_count].len;
        m = fx_next(LONELY_B2S_RECEIVE_STREAM);
        assert_int_equal(m.as.stream.part_id, frames);
        assert_memory_equal(m.as.stream.identifier.ptr, identifier, 4);
        if (frames == 0)
            assert_int_equal(m.as.stream.compressed_length, len);
        for (size_t i = 0; i < m.body.len; i++)
            if (m.body.ptr[i] != (uint8_t)((got + i) * 7 + ((got + i) >> 8)))
                fail_msg("byte %zu", got + i);
        got += m.body.len;
        if (got < len) {
            assert_int_equal(frame, limit);
            peer_continues(identifier, frames);
        }
        frames++;
    } while (got < len);
    assert_int_equal(got, len);
    peer_confirms(identifier);
    return frames;
}

static void messages_of_all_sizes(void **state)
{
    /* Around the bytes that are copied, the parts, and what stays in memory. */
    static const size_t sizes[] = { 0,    1,     856,   857,    1000,   4096,   4097,
                                    9000, 65536, 99999, 100000, 100001, 700000, 2100000 };
    static const struct {
        enum transport_kind kind;
        uint64_t limit;
    } cases[] = {
        { TRANSPORT_WEBSOCKET, 1000 },      { TRANSPORT_WEBSOCKET, 4194303 },
        { TRANSPORT_WEBSOCKET, CONF_NONE }, { TRANSPORT_TCP, 1000000 },
        { TRANSPORT_TCP, CONF_NONE },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        if (i > 0)
            fx_init();
        fx.conf.websocket.outgoing_max_ws_message_size = cases[i].limit;
        fx.conf.tcp.outgoing_max_message_size = cases[i].limit;
        open_subscribed(cases[i].kind);
        for (size_t j = 0; j < TABLE_LEN(sizes); j++) {
            if (sizes[j] / cases[i].limit > 100)
                continue;
            assert_true(deliver("abcd", sizes[j]));
            take_message("abcd", sizes[j], (size_t)cases[i].limit);
        }
        fx_no_more();
        if (i + 1 < TABLE_LEN(cases))
            fx_fini();
    }
}

static void nothing_comes_between_parts(void **state)
{
    (void)state;
    fx.conf.websocket.outgoing_max_ws_message_size = 1000;
    fx.conf.websocket.websocket_send_max_unacknowledged = 1;
    fx.conf.websocket.websocket_max_unprocessed_receives = 2;
    open_subscribed(TRANSPORT_WEBSOCKET);
    deliver("abcd", 2000); /* three parts */
    fx_next(LONELY_B2S_RECEIVE_STREAM);
    for (size_t i = 0; i < 3; i++) { /* beyond the limit: the acknowledgement is behind them */
        assert_true(fx.t.reading);
        peer_notifies("n", "t", "body");
        fx_notified(i, HUB_OK, 0);
    }
    peer_subscribes(LONELY_S2B_SUBSCRIBE_EXACT, "u");
    assert_int_equal(fx.subscription_count, 2);
    assert_true(deliver("efgh", 0));
    assert_true(fx.receiver->ops->on_missed(fx.receiver, LIT("t")));
    peer_subscribes(LONELY_S2B_UNSUBSCRIBE_EXACT, "u");
    fx_no_more();
    peer_continues("abcd", 0);
    fx_next(LONELY_B2S_RECEIVE_STREAM);
    fx_no_more();
    peer_continues("abcd", 1);
    fx_next(LONELY_B2S_RECEIVE_STREAM);
    for (size_t i = 0; i < 3; i++)
        fx_next(LONELY_B2S_CONFIRM_NOTIFY);
    fx_next(LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT); /* before the first message of the subscription */
    fx_next(LONELY_B2S_CONFIRM_UNSUBSCRIBE_EXACT);
    fx_no_more();
    peer_confirms("abcd");
    fx_next(LONELY_B2S_RECEIVE_STREAM);
    fx_next(LONELY_B2S_MISSED);
    assert_true(fx.t.reading);
}

static void requests_behind_a_message_have_a_bound(void **state)
{
    unsigned sent = 0;

    (void)state;
    fx.conf.websocket.outgoing_max_ws_message_size = 1000;
    fx.conf.websocket.websocket_send_max_unacknowledged = 1;
    fx.conf.websocket.websocket_max_unprocessed_receives = 10;
    fx.conf.websocket.websocket_max_pending_sends = 20;
    open_subscribed(TRANSPORT_WEBSOCKET);
    deliver("abcd", 2000);
    for (; !fx.t.closed && sent < 100; sent++)
        peer_notifies("n", "t", "body");
    assert_int_equal(sent, 31);
    assert_ended(TRANSPORT_OVERLOAD);
}

/* ---- A peer that does not read ---- */

static void a_full_transport_is_not_filled(void **state)
{
    unsigned count;

    (void)state;
    fx.conf.websocket.websocket_send_max_unacknowledged = CONF_NONE;
    open_subscribed(TRANSPORT_WEBSOCKET);
    fx.t.blocked = true;
    for (unsigned i = 0; i < 100; i++)
        assert_true(deliver(name_of(i), 50000));
    count = (unsigned)fx.frame_count;
    assert_true(count > 2 && count < 20);
    peer_notifies("n", "t", "body");
    fx_notified(0, HUB_OK, 0);
    assert_int_equal(fx.frame_count, count); /* answers wait, too */
    fx.t.blocked = false;
    fx.t.queued = 0;
    fx.t.events->on_drained(fx.t.arg);
    for (unsigned i = 0; i < count - 2; i++)
        fx_next(LONELY_B2S_RECEIVE_STREAM);
    fx_next(LONELY_B2S_CONFIRM_NOTIFY);
    for (unsigned i = count - 2; i < 100; i++)
        fx_next(LONELY_B2S_RECEIVE_STREAM);
    fx_no_more();
}

static void a_file_is_read_as_the_peer_takes_it(void **state)
{
    (void)state;
    open_subscribed(TRANSPORT_WEBSOCKET);
    fx.t.blocked = true;
    assert_true(deliver("abcd", 3000000)); /* one frame */
    for (int i = 0; i < 50; i++) {
        fx_run();
        usleep(1000);
    }
    assert_true(fx.t.queued > 0 && fx.t.queued < 1000000);
    fx.t.blocked = false;
    fx.t.queued = 0;
    fx.t.events->on_drained(fx.t.arg);
    assert_int_equal(take_message("abcd", 3000000, 0), 1);
}

static void the_end_while_a_file_is_read(void **state)
{
    (void)state;
    open_subscribed(TRANSPORT_WEBSOCKET);
    assert_true(deliver("abcd", 3000000));
    peer_leaves(TRANSPORT_LOST);
    assert_ended(TRANSPORT_LOST);
    fx_gone();
    while (sessions_count(fx.worker.sessions) > 0)
        uv_run(&fx.worker.loop, UV_RUN_ONCE);
}

/* ---- Counters and authorization ---- */

static struct lonely_auth_ctx *auth_ctx;
static struct lonely_auth_key *auth_key;
static struct lonely_connection connection;
static char url_text[LONELY_CONNECTION_URL_MAX_BYTES];
static uint8_t auth_text[LONELY_AUTH_MAX_BYTES];

static struct lonely_span url_of(int64_t number)
{
    size_t len = lonely_connection_url(&connection, number, url_text);

    return (struct lonely_span){ (const uint8_t *)url_text, len };
}

static struct lonely_span sign(struct lonely_auth_input in)
{
    static unsigned count;
    char nonce[16];
    size_t len;

    snprintf(nonce, sizeof(nonce), "%06u", ++count);
    assert_int_equal(lonely_auth_sign(auth_ctx, auth_key, &in, (uint64_t)fx.now_s, peer_span(nonce),
                                      auth_text, sizeof(auth_text), &len),
                     LONELY_OK);
    return (struct lonely_span){ auth_text, len };
}

static bool fits(struct lonely_auth_input in, struct lonely_span authorization)
{
    const struct lonely_auth_key *keys[] = { auth_key };
    struct lonely_auth_verified verified;

    return lonely_auth_verify(auth_ctx, keys, 1, &in, &authorization, fx.now_s, &verified) ==
           LONELY_AUTH_OK;
}

static void open_signed(bool counts_first)
{
    static const uint8_t nonce[LONELY_NONCE_BYTES] = { 9 };
    struct lonely_message m = {
        .type = LONELY_S2B_CONFIGURE,
        .as.configure.subscriber_nonce = { nonce, sizeof(nonce) },
    };

    fx_open(BOTH_HMAC, TRANSPORT_WEBSOCKET, counts_first);
    m.as.configure.authorization = sign((struct lonely_auth_input){
        .op = LONELY_AUTH_STATEFUL_CONFIGURE, .nonce = m.as.configure.subscriber_nonce });
    fx_send(m);
    m = fx_next(LONELY_B2S_CONFIRM_CONFIGURE);
    lonely_connection_init(&connection, (struct lonely_span){ nonce, sizeof(nonce) },
                           m.as.confirm_configure.broadcaster_nonce);
    assert_true(
        fits((struct lonely_auth_input){ .op = LONELY_AUTH_STATEFUL_CONFIRM_CONFIGURE,
                                         .nonce = m.as.confirm_configure.broadcaster_nonce },
             m.as.confirm_configure.authorization));
}

static int auth_setup(void **state)
{
    assert_int_equal(lonely_auth_ctx_create(&auth_ctx), LONELY_OK);
    assert_int_equal(lonely_auth_key_create(LONELY_AUTH_HMAC, LIT(SECRET_SUBSCRIBER), &auth_key),
                     LONELY_OK);
    return setup(state);
}

static int auth_teardown(void **state)
{
    lonely_auth_ctx_destroy(auth_ctx);
    lonely_auth_key_destroy(auth_key);
    return teardown(state);
}

static void subscribe_signed(int64_t number)
{
    fx_send((struct lonely_message){
        .type = LONELY_S2B_SUBSCRIBE_EXACT,
        .as.subscription = { .topic = LIT_INIT("t"),
                             .authorization =
                                 sign((struct lonely_auth_input){ .op = LONELY_AUTH_SUBSCRIBE_EXACT,
                                                                  .url = url_of(number),
                                                                  .topic = LIT("t") }) },
    });
}

/* Parts of two messages, and MISSED: with the numbers that the peer expects. */
static void numbers_of_parts(void **state)
{
    static const struct {
        bool counts_first;
        int64_t parts[5], missed; /* 3 and 2 parts */
    } cases[] = {
        { false, { 1, 2, 3, 4, 5 }, 6 },
        { true, { 1, 1, 1, 2, 2 }, 3 },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        size_t part = 0;

        if (i > 0)
            fx_init();
        fx.conf.websocket.outgoing_max_ws_message_size = 1000;
        open_signed(cases[i].counts_first);
        subscribe_signed(-1);
        fx_next(LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT);
        for (size_t j = 0; j < 2; j++) {
            struct body *body = body_of(j == 0 ? 2000 : 1000);

            assert_true(fx_deliver(LIT("t"), body, "abcd"));
            for (size_t k = 0; k < 3 - j; k++)
                assert_true(fits((struct lonely_auth_input){ .op = LONELY_AUTH_RECEIVE,
                                                             .url = url_of(cases[i].parts[part++]),
                                                             .topic = LIT("t"),
                                                             .identifier = LIT("abcd"),
                                                             .hash = { body_sha512(body), 64 } },
                                 fx_next(LONELY_B2S_RECEIVE_STREAM).as.stream.authorization));
            body_unref(body);
        }
        assert_true(fx.receiver->ops->on_missed(fx.receiver, LIT("t")));
        assert_true(fits((struct lonely_auth_input){ .op = LONELY_AUTH_MISSED,
                                                     .recovery = url_of(cases[i].missed),
                                                     .topic = LIT("t") },
                         fx_next(LONELY_B2S_MISSED).as.missed.authorization));
        if (i + 1 < TABLE_LEN(cases))
            fx_fini();
    }
}

static void a_signature_counts_once(void **state)
{
    (void)state;
    open_signed(false);
    subscribe_signed(-1);
    fx_next(LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT);
    subscribe_signed(-1); /* -2 is due */
    assert_ended(TRANSPORT_POLICY);
}

static void no_signature(void **state)
{
    (void)state;
    open_signed(false);
    peer_subscribes(LONELY_S2B_SUBSCRIBE_EXACT, "t");
    assert_ended(TRANSPORT_POLICY);
}

static void a_notify_is_good_once(void **state)
{
    struct lonely_message m;

    (void)state;
    open_signed(false);
    m = peer_notify("n", "t", LIT("body"));
    m.as.notify.authorization =
        sign((struct lonely_auth_input){ .op = LONELY_AUTH_NOTIFY,
                                         .topic = LIT("t"),
                                         .identifier = LIT("n"),
                                         .hash = { peer_sha512, sizeof(peer_sha512) } });
    fx_send(m);
    assert_int_equal(fx.notify_count, 1);
    fx_send(m);
    assert_ended(TRANSPORT_POLICY);
    assert_int_equal(fx.notify_count, 1);
}

/* ---- Authorization that takes time ---- */

static struct lonely_message signed_notify(struct lonely_span body)
{
    struct lonely_message m = peer_notify("n", "t", body);

    m.as.notify.authorization =
        sign((struct lonely_auth_input){ .op = LONELY_AUTH_NOTIFY,
                                         .topic = LIT("t"),
                                         .identifier = LIT("n"),
                                         .hash = { peer_sha512, sizeof(peer_sha512) } });
    return m;
}

static void send_signed_configure(void)
{
    static const uint8_t nonce[LONELY_NONCE_BYTES] = { 9 };
    struct lonely_message m = {
        .type = LONELY_S2B_CONFIGURE,
        .as.configure.subscriber_nonce = { nonce, sizeof(nonce) },
    };

    m.as.configure.authorization = sign((struct lonely_auth_input){
        .op = LONELY_AUTH_STATEFUL_CONFIGURE, .nonce = m.as.configure.subscriber_nonce });
    fx_send(m);
}

/* Nothing behind a frame is looked at before its authorization is known, and nothing is done before. */
static void frames_wait_for_used_macs(void **state)
{
    struct lonely_message m;
    uint8_t frame[512];
    size_t len;

    (void)state;
    fx.macs_wait = true;
    fx_open(BOTH_HMAC, TRANSPORT_WEBSOCKET, false);
    send_signed_configure();
    fx_no_more();
    assert_false(fx.t.reading);
    fx_macs_answer(STORE_OK);
    fx_next(LONELY_B2S_CONFIRM_CONFIGURE);
    assert_true(fx.t.reading);
    fx_send(signed_notify(LIT("body"))); /* in one piece */
    assert_false(fx.t.reading);
    assert_int_equal(fx.notify_count, 0);
    fx_macs_answer(STORE_OK);
    assert_int_equal(fx.notify_count, 1);
    assert_memory_equal(body_span(fx.notifies[0].body).ptr, "body", 4);
    fx_notified(0, HUB_OK, 1);
    fx_next(LONELY_B2S_CONFIRM_NOTIFY);
    m = signed_notify(LIT("BODY"));
    m.direction = LONELY_S2B;
    m.minimal = true;
    assert_int_equal(lonely_message_serialize(&m, frame, sizeof(frame), &len), LONELY_OK);
    fx_piece(frame, len - 2, len, true, false); /* the rest after the verdict */
    assert_false(fx.t.reading);
    fx_macs_answer(STORE_OK);
    assert_true(fx.t.reading);
    fx_piece(frame + len - 2, 2, len, false, true);
    assert_int_equal(fx.notify_count, 2);
    assert_memory_equal(body_span(fx.notifies[1].body).ptr, "BODY", 4);
}

static void used_macs_that_are_not_known(void **state)
{
    (void)state;
    fx.macs_wait = true;
    fx_open(BOTH_HMAC, TRANSPORT_WEBSOCKET, false);
    send_signed_configure();
    fx_macs_answer(STORE_UNAVAILABLE);
    assert_ended(TRANSPORT_FAILED);
    fx_no_more();
}

static void the_end_before_the_verdict(void **state)
{
    (void)state;
    fx.macs_wait = true;
    fx_open(BOTH_HMAC, TRANSPORT_WEBSOCKET, false);
    send_signed_configure();
    fx_macs_answer(STORE_OK);
    fx_next(LONELY_B2S_CONFIRM_CONFIGURE);
    fx_send(signed_notify(LIT("body")));
    peer_leaves(TRANSPORT_LOST);
    fx_run();
    fx_macs_answer(STORE_OK);
    assert_int_equal(fx.notify_count, 0);
}

int main(void)
{
#define TEST(name)        cmocka_unit_test_setup_teardown(name, setup, teardown)
#define SIGNED_TEST(name) cmocka_unit_test_setup_teardown(name, auth_setup, auth_teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_window_counts_across_messages),
        TEST(no_window),
        TEST(who_never_acknowledges_is_dropped),
        TEST(wrong_acknowledgements),
        TEST(missed_waits_its_turn),
        TEST(messages_of_all_sizes),
        TEST(nothing_comes_between_parts),
        TEST(requests_behind_a_message_have_a_bound),
        TEST(a_full_transport_is_not_filled),
        TEST(a_file_is_read_as_the_peer_takes_it),
        TEST(the_end_while_a_file_is_read),
        SIGNED_TEST(numbers_of_parts),
        SIGNED_TEST(a_signature_counts_once),
        SIGNED_TEST(no_signature),
        SIGNED_TEST(a_notify_is_good_once),
        SIGNED_TEST(frames_wait_for_used_macs),
        SIGNED_TEST(used_macs_that_are_not_known),
        SIGNED_TEST(the_end_before_the_verdict),
    };

    return cmocka_run_group_tests_name("session_send", tests, NULL, NULL);
}
