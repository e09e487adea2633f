/*
 * Tests of a session: what it answers and in which order, every violation with its code, subscriptions,
 * the end. What it sends of messages is in test_session_send.c; the reference's conversations are in
 * tests/vectors/test_sessions_replay.c.
 */
#include "session_fixture.h"

#include "session_peer.h"

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

static void open_session(void)
{
    fx_open(NULL, TRANSPORT_WEBSOCKET, false);
    peer_configures();
}

static void assert_ended(enum transport_code code)
{
    fx_run();
    assert_true(fx.t.closed);
    assert_int_equal(fx.t.code, code);
}

/* ---- The beginning ---- */

static void the_first_frame_is_configure(void **state)
{
    (void)state;
    fx_open(NULL, TRANSPORT_WEBSOCKET, false);
    peer_subscribes(LONELY_S2B_SUBSCRIBE_EXACT, "t");
    assert_ended(TRANSPORT_POLICY);
    fx_no_more();
}

static void malformed_first_frames(void **state)
{
    static const char *const frames[] = { "", "0001", "0001 00ff", "0001 0001 0020 00" };
    uint8_t bytes[16];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(frames); i++) {
        if (i > 0)
            fx_init();
        fx_open(NULL, TRANSPORT_TCP, false);
        fx_feed(bytes, table_unhex(frames[i], bytes, sizeof(bytes)));
        assert_ended(TRANSPORT_MALFORMED);
        if (i + 1 < TABLE_LEN(frames))
            fx_fini();
    }
}

static void configure_comes_in_time(void **state)
{
    (void)state;
    fx.conf.websocket.configure_timeout_ms = 1;
    fx_open(NULL, TRANSPORT_WEBSOCKET, false);
    while (!fx.t.closed)
        uv_run(&fx.worker.loop, UV_RUN_ONCE);
    assert_ended(TRANSPORT_POLICY);
}

static void configure_comes_once(void **state)
{
    (void)state;
    open_session();
    peer_sends_configure();
    assert_ended(TRANSPORT_POLICY);
}

/* ---- Subscriptions ---- */

static void a_row_comes_before_its_confirmation(void **state)
{
    (void)state;
    open_session();
    fx.store = STORE_PENDING;
    peer_subscribes(LONELY_S2B_SUBSCRIBE_EXACT, "t");
    fx_no_more();
    assert_false(fx.t.reading); /* nothing behind it is looked at */
    assert_int_equal(fx.subscription_count, 0);
    fx_store_answers(STORE_OK);
    assert_true(table_span_equal(fx_next(LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT).as.subscription.topic,
                                 LIT("t")));
    assert_int_equal(fx.subscription_count, 1);
    assert_true(fx.t.reading);
    peer_subscribes(LONELY_S2B_UNSUBSCRIBE_EXACT, "t");
    assert_int_equal(fx.subscription_count, 0); /* at once */
    fx_no_more();
    fx_store_answers(STORE_OK);
    fx_next(LONELY_B2S_CONFIRM_UNSUBSCRIBE_EXACT);
    assert_int_equal(fx.row_count, 0);
}

static void a_store_that_fails_ends_it(void **state)
{
    (void)state;
    open_session();
    fx.store = STORE_UNAVAILABLE;
    peer_subscribes(LONELY_S2B_SUBSCRIBE_GLOB, "*");
    assert_ended(TRANSPORT_FAILED);
    fx_no_more();
}

static void a_row_stored_too_late_is_removed(void **state)
{
    (void)state;
    open_session();
    fx.store = STORE_PENDING;
    peer_subscribes(LONELY_S2B_SUBSCRIBE_EXACT, "t");
    peer_leaves(TRANSPORT_LOST);
    fx_run();
    fx_gone();
    assert_int_equal(sessions_count(fx.worker.sessions), 1); /* the store still owes an answer */
    fx_store_answers(STORE_OK);
    assert_int_equal(fx.row_count, 0);
    assert_int_equal(sessions_count(fx.worker.sessions), 0);
}

static void a_topic_and_a_glob_are_different(void **state)
{
    (void)state;
    open_session();
    peer_subscribes(LONELY_S2B_SUBSCRIBE_EXACT, "t");
    peer_subscribes(LONELY_S2B_SUBSCRIBE_GLOB, "t");
    fx_next(LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT);
    fx_next(LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB);
    assert_int_equal(fx.row_count, 2);
    peer_subscribes(LONELY_S2B_UNSUBSCRIBE_GLOB, "t");
    fx_next(LONELY_B2S_CONFIRM_UNSUBSCRIBE_GLOB);
    peer_subscribes(LONELY_S2B_SUBSCRIBE_EXACT, "t"); /* has it */
    assert_ended(TRANSPORT_POLICY);
}

static void what_is_not_subscribed_cannot_be_unsubscribed(void **state)
{
    (void)state;
    open_session();
    peer_subscribes(LONELY_S2B_SUBSCRIBE_GLOB, "t");
    fx_next(LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB);
    peer_subscribes(LONELY_S2B_UNSUBSCRIBE_EXACT, "t");
    assert_ended(TRANSPORT_POLICY);
}

static void a_change_waits_for_what_is_in_front(void **state)
{
    (void)state;
    open_session();
    peer_notifies("n1", "t", "body");
    peer_subscribes(LONELY_S2B_SUBSCRIBE_EXACT, "t");
    assert_int_equal(fx.row_count, 0);
    assert_false(fx.t.reading);
    fx_notified(0, HUB_OK, 3);
    assert_int_equal(fx_next(LONELY_B2S_CONFIRM_NOTIFY).as.confirm_notify.subscribers, 3);
    fx_next(LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT);
    assert_true(fx.t.reading);
}

/* ---- Notifies ---- */

static void answers_come_in_order(void **state)
{
    static const char *const names[] = { "a", "b", "c" };

    (void)state;
    open_session();
    for (size_t i = 0; i < 3; i++)
        peer_notifies(names[i], "t", "body");
    assert_int_equal(fx.notify_count, 3);
    fx_notified(2, HUB_OK, 2);
    fx_notified(1, HUB_OK, 1);
    fx_no_more();
    fx_notified(0, HUB_OK, 0);
    for (size_t i = 0; i < 3; i++) {
        struct lonely_message m = fx_next(LONELY_B2S_CONFIRM_NOTIFY);

        assert_int_equal(m.as.confirm_notify.subscribers, i);
        assert_memory_equal(m.as.confirm_notify.identifier.ptr, names[i], 1);
    }
}

static void failures_of_the_hub(void **state)
{
    (void)state;
    open_session();
    peer_notifies("a", "t", "body");
    fx_notified(0, HUB_BUSY, 0);
    assert_ended(TRANSPORT_OVERLOAD);
    fx_no_more();
    fx_fini();
    fx_init();
    open_session();
    peer_notifies("a", "t", "body");
    fx_notified(0, HUB_UNAVAILABLE, 0);
    assert_ended(TRANSPORT_FAILED);
}

static void reading_stops_at_the_limit(void **state)
{
    (void)state;
    fx.conf.websocket.websocket_max_unprocessed_receives = 3;
    open_session();
    for (int i = 0; i < 3; i++) {
        assert_true(fx.t.reading);
        peer_notifies("a", "t", "body");
    }
    assert_false(fx.t.reading);
    fx_notified(0, HUB_OK, 0);
    assert_true(fx.t.reading);
}

static void bodies_of_all_sizes(void **state)
{
    static const size_t sizes[] = { 0, 1, 65535, 65536, 70000, 100000, 100001, 400000 };
    uint8_t *bytes = mem_alloc(400000);

    (void)state;
    open_session();
    for (size_t i = 0; i < 400000; i++)
        bytes[i] = (uint8_t)(i * 31 >> 3);
    for (size_t i = 0; i < TABLE_LEN(sizes); i++) {
        peer_notifies_bytes("a", "t", bytes, sizes[i]);
        while (fx.notify_count == i)
            uv_run(&fx.worker.loop, UV_RUN_ONCE);
        assert_int_equal(body_size(fx.notifies[i].body), sizes[i]);
        assert_int_equal(body_in_memory(fx.notifies[i].body), sizes[i] <= 100000);
        if (sizes[i] > 0 && sizes[i] <= 100000)
            assert_memory_equal(body_span(fx.notifies[i].body).ptr, bytes, sizes[i]);
        fx_notified(i, HUB_OK, 0);
        fx_next(LONELY_B2S_CONFIRM_NOTIFY);
    }
    mem_free(bytes);
}

/* ---- NOTIFY_STREAM ---- */

static void a_stream_of_parts(void **state)
{
    (void)state;
    open_session();
    peer_begins_stream(6, "abcdef");
    peer_sends_part("s", 0, "ab");
    assert_int_equal(fx_next(LONELY_B2S_CONTINUE_NOTIFY).as.continuation.part_id, 0);
    peer_sends_part("s", 1, ""); /* legal */
    assert_int_equal(fx_next(LONELY_B2S_CONTINUE_NOTIFY).as.continuation.part_id, 1);
    peer_notifies("n", "t", "between"); /* tolerated */
    peer_sends_part("s", 2, "cd");
    fx_no_more(); /* the NOTIFY comes first */
    fx_notified(0, HUB_OK, 0);
    fx_next(LONELY_B2S_CONFIRM_NOTIFY);
    assert_int_equal(fx_next(LONELY_B2S_CONTINUE_NOTIFY).as.continuation.part_id, 2);
    peer_sends_part("s", 3, "ef");
    assert_int_equal(fx.notify_count, 2);
    assert_memory_equal(body_span(fx.notifies[1].body).ptr, "abcdef", 6);
    fx_notified(1, HUB_OK, 7);
    assert_int_equal(fx_next(LONELY_B2S_CONFIRM_NOTIFY).as.confirm_notify.subscribers, 7);
    peer_begins_stream(0, ""); /* one part, and the name is free again */
    peer_sends_part("s", 0, "");
    assert_int_equal(fx.notify_count, 3);
}

static void violations_of_streams(void **state)
{
    static const struct {
        const char *name;
        struct {
            const char *identifier, *body;
            uint64_t part_id;
        } parts[3];
        enum transport_code code;
    } cases[] = {
        { "a later part first", { { "s", "ab", 1 } }, TRANSPORT_POLICY },
        { "part 0 twice", { { "s", "ab", 0 }, { "s", "cd", 0 } }, TRANSPORT_POLICY },
        { "another stream within", { { "s", "ab", 0 }, { "r", "cd", 0 } }, TRANSPORT_POLICY },
        { "another name", { { "s", "ab", 0 }, { "r", "cd", 1 } }, TRANSPORT_POLICY },
        { "a part left out", { { "s", "ab", 0 }, { "s", "cd", 2 } }, TRANSPORT_POLICY },
        { "a part again",
          { { "s", "ab", 0 }, { "s", "b", 1 }, { "s", "b", 1 } },
          TRANSPORT_POLICY },
        { "more than announced", { { "s", "ab", 0 }, { "s", "cdefg", 1 } }, TRANSPORT_MALFORMED },
        { "another content", { { "s", "ab", 0 }, { "s", "cdeX", 1 } }, TRANSPORT_MALFORMED },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        if (i > 0)
            fx_init();
        open_session();
        peer_begins_stream(6, "abcdef");
        for (size_t j = 0; j < 3 && cases[i].parts[j].body != NULL; j++)
            peer_sends_part(cases[i].parts[j].identifier, cases[i].parts[j].part_id,
                            cases[i].parts[j].body);
        if (!fx.t.closed)
            print_error("%s\n", cases[i].name);
        assert_ended(cases[i].code);
        assert_int_equal(fx.notify_count, 0);
        if (i + 1 < TABLE_LEN(cases))
            fx_fini();
    }
}

/* ---- Other violations ---- */

static void no_compressor(struct lonely_message *m)
{
    m->as.notify.compressor = 1;
}

static void wrong_hash(struct lonely_message *m)
{
    static const uint8_t zeros[LONELY_SHA512_BYTES];

    m->as.notify.compressed_sha512 = (struct lonely_span){ zeros, sizeof(zeros) };
}

static void long_topic(struct lonely_message *m)
{
    m->as.notify.topic = LIT("123456789");
}

static void long_message(struct lonely_message *m)
{
    m->body = LIT("12345678901");
    m->as.notify.compressed_length = m->as.notify.decompressed_length = m->body.len;
    peer_hash(m->body, peer_sha512);
}

static void notifies_that_are_refused(void **state)
{
    static const struct {
        void (*change)(struct lonely_message *m);
        enum transport_code code;
    } cases[] = {
        { no_compressor, TRANSPORT_POLICY },
        { wrong_hash, TRANSPORT_MALFORMED },
        { long_topic, TRANSPORT_TOO_BIG },
        { long_message, TRANSPORT_TOO_BIG },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct lonely_message m;

        if (i > 0)
            fx_init();
        fx.conf.limits.max_topic_bytes = 8;
        fx.conf.limits.max_message_bytes = 10;
        open_session();
        m = peer_notify("n", "t", LIT("body"));
        cases[i].change(&m);
        fx_send(m);
        assert_ended(cases[i].code);
        assert_int_equal(fx.notify_count, 0);
        if (i + 1 < TABLE_LEN(cases))
            fx_fini();
    }
}

static void globs_have_a_limit(void **state)
{
    (void)state;
    fx.conf.limits.max_glob_bytes = 3;
    open_session();
    peer_subscribes(LONELY_S2B_SUBSCRIBE_EXACT, "abcd");
    peer_subscribes(LONELY_S2B_SUBSCRIBE_GLOB, "abcd");
    assert_ended(TRANSPORT_TOO_BIG);
}

static void acknowledgements_that_are_not_due(void **state)
{
    (void)state;
    open_session();
    peer_confirms("abcd");
    assert_ended(TRANSPORT_POLICY);
}

/* ---- Frames in pieces ---- */

static void frames_cut_at_every_byte(void **state)
{
    size_t len;

    (void)state;
    open_session();
    for (int minimal = 0; minimal < 2; minimal++) {
        struct lonely_message m = peer_notify("n", "t", LIT("body"));
        uint8_t large[512];

        m.direction = LONELY_S2B;
        m.minimal = minimal == 1;
        assert_int_equal(lonely_message_serialize(&m, large, sizeof(large), &len), LONELY_OK);
        for (size_t cut = 0; cut <= len; cut++) {
            size_t before = fx.notify_count;

            fx_piece(large, cut, len, true, false);
            fx_piece(large + cut, len - cut, len, false, true);
            assert_int_equal(fx.notify_count, before + 1);
            fx_notified(before, HUB_OK, 0);
            fx_next(LONELY_B2S_CONFIRM_NOTIFY);
            fx.notify_count--;
            fx.notify_done--;
        }
        for (size_t i = 0; i < len; i++) /* a byte at a time, of a length that is not known */
            fx_piece(large + i, 1, UINT64_MAX, i == 0, i + 1 == len);
        assert_int_equal(fx.notify_count, 1);
        fx_notified(0, HUB_OK, 0);
        fx_next(LONELY_B2S_CONFIRM_NOTIFY);
        fx.notify_count--;
        fx.notify_done--;
    }
}

static void a_subscription_in_pieces(void **state)
{
    static const char hex[] = "0001 0002 0000 0000 0001 74 ffff"; /* and bytes that mean nothing */
    uint8_t frame[32];
    size_t len = table_unhex(hex, frame, sizeof(frame));

    (void)state;
    open_session();
    for (size_t i = 0; i < len; i++) {
        fx_no_more(); /* nothing before the end */
        fx_piece(frame + i, 1, UINT64_MAX, i == 0, false);
    }
    fx_piece(NULL, 0, UINT64_MAX, false, true);
    fx_next(LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT);
}

static void bodies_that_lie(void **state)
{
    static const struct {
        size_t from, to; /* of the frame, sent as if it were all */
        enum transport_code code;
    } cases[] = { { 0, 1, TRANSPORT_MALFORMED }, { 0, 0, TRANSPORT_MALFORMED } };
    uint8_t frame[256];
    size_t len;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct lonely_message m;

        if (i > 0)
            fx_init();
        open_session();
        m = peer_notify("n", "t", LIT("body"));
        m.direction = LONELY_S2B;
        m.minimal = true;
        assert_int_equal(lonely_message_serialize(&m, frame, sizeof(frame), &len), LONELY_OK);
        fx_piece(frame, len - 2, UINT64_MAX, true, false);
        if (i == 0)
            fx_piece(frame, 1, UINT64_MAX, false, true); /* shorter */
        else
            fx_piece(frame, 100, UINT64_MAX, false, false); /* longer */
        assert_ended(cases[i].code);
        assert_int_equal(fx.notify_count, 0);
        if (i + 1 < TABLE_LEN(cases))
            fx_fini();
    }
}

static void endless_heads(void **state)
{
    static const uint8_t types[] = { LONELY_S2B_NOTIFY, LONELY_S2B_SUBSCRIBE_EXACT };
    static uint8_t zeros[4096];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(types); i++) {
        const uint8_t head[] = { 0, 0, 0, types[i], 0xff, 0xff }; /* 65535 headers follow */
        size_t sent = sizeof(head);

        if (i > 0)
            fx_init();
        open_session();
        fx_piece(head, sizeof(head), UINT64_MAX, true, false);
        for (; !fx.t.closed; sent += sizeof(zeros)) {
            assert_true(sent < 2 * LONELY_MESSAGE_HEAD_MAX_BYTES);
            fx_piece(zeros, sizeof(zeros), UINT64_MAX, false, false);
        }
        assert_ended(TRANSPORT_TOO_BIG);
        if (i + 1 < TABLE_LEN(types))
            fx_fini();
    }
}

static void heads_share_their_memory(void **state)
{
    static uint8_t zeros[20000];
    const uint8_t head[] = { 0, 0, 0, LONELY_S2B_NOTIFY, 0xff, 0xff };

    (void)state;
    fx.worker.max_collected_bytes = 10000;
    open_session();
    fx_piece(head, sizeof(head), UINT64_MAX, true, false);
    fx_piece(zeros, sizeof(zeros), UINT64_MAX, false, false);
    assert_ended(TRANSPORT_OVERLOAD);
}

/* ---- The end ---- */

static void what_came_before_the_end_is_done(void **state)
{
    (void)state;
    open_session();
    peer_subscribes(LONELY_S2B_SUBSCRIBE_EXACT, "t");
    fx_next(LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT);
    peer_notifies("a", "t", "body");
    peer_notifies("b", "t", "body");
    peer_leaves(TRANSPORT_NORMAL);
    assert_ended(TRANSPORT_NORMAL);
    assert_int_equal(fx.row_count, 0);
    assert_null(fx.receiver);
    assert_int_equal(fx.notify_count, 2);
    fx_gone();
    assert_int_equal(sessions_count(fx.worker.sessions), 1);
    fx_notified(0, HUB_OK, 0);
    fx_notified(1, HUB_OK, 0);
    assert_int_equal(sessions_count(fx.worker.sessions), 0);
    fx_no_more();
}

static void ends_of_the_transport(void **state)
{
    static const struct {
        enum transport_code told, code;
    } cases[] = {
        { TRANSPORT_NORMAL, TRANSPORT_NORMAL },     { TRANSPORT_NO_CODE, TRANSPORT_NORMAL },
        { TRANSPORT_GOING_AWAY, TRANSPORT_NORMAL }, { TRANSPORT_LOST, TRANSPORT_LOST },
        { TRANSPORT_TEXT, TRANSPORT_TEXT },         { TRANSPORT_MALFORMED, TRANSPORT_MALFORMED },
        { TRANSPORT_TOO_BIG, TRANSPORT_TOO_BIG },   { TRANSPORT_FAILED, TRANSPORT_FAILED },
        { TRANSPORT_OVERLOAD, TRANSPORT_OVERLOAD }, { (enum transport_code)3000, TRANSPORT_NORMAL },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        if (i > 0)
            fx_init();
        open_session();
        peer_leaves(cases[i].told);
        assert_ended(cases[i].code);
        if (i + 1 < TABLE_LEN(cases))
            fx_fini();
    }
}

static void a_drain_answers_first(void **state)
{
    (void)state;
    open_session();
    peer_notifies("a", "t", "body");
    sessions_drain(fx.worker.sessions, fx_on_drained, NULL);
    fx_run();
    assert_false(fx.t.closed);
    assert_false(fx.t.reading);
    fx_notified(0, HUB_OK, 5);
    fx_next(LONELY_B2S_CONFIRM_NOTIFY);
    assert_ended(TRANSPORT_RESTART);
    assert_int_equal(fx.drained, 0);
    fx_gone();
    fx_run();
    assert_int_equal(fx.drained, 1);
    assert_int_equal(sessions_count(fx.worker.sessions), 0);
}

static void a_stream_that_is_open_at_the_end(void **state)
{
    (void)state;
    open_session();
    peer_begins_stream(6, "abcdef");
    peer_sends_part("s", 0, "ab");
    fx_next(LONELY_B2S_CONTINUE_NOTIFY);
    peer_leaves(TRANSPORT_NORMAL);
    assert_ended(TRANSPORT_NORMAL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_first_frame_is_configure),
        TEST(malformed_first_frames),
        TEST(configure_comes_in_time),
        TEST(configure_comes_once),
        TEST(a_row_comes_before_its_confirmation),
        TEST(a_store_that_fails_ends_it),
        TEST(a_row_stored_too_late_is_removed),
        TEST(a_topic_and_a_glob_are_different),
        TEST(what_is_not_subscribed_cannot_be_unsubscribed),
        TEST(a_change_waits_for_what_is_in_front),
        TEST(answers_come_in_order),
        TEST(failures_of_the_hub),
        TEST(reading_stops_at_the_limit),
        TEST(bodies_of_all_sizes),
        TEST(a_stream_of_parts),
        TEST(violations_of_streams),
        TEST(notifies_that_are_refused),
        TEST(globs_have_a_limit),
        TEST(acknowledgements_that_are_not_due),
        TEST(frames_cut_at_every_byte),
        TEST(a_subscription_in_pieces),
        TEST(bodies_that_lie),
        TEST(endless_heads),
        TEST(heads_share_their_memory),
        TEST(what_came_before_the_end_is_done),
        TEST(ends_of_the_transport),
        TEST(a_drain_answers_first),
        TEST(a_stream_that_is_open_at_the_end),
    };

    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
