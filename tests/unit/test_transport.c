/*
 * Transports: transport.h, over a stream in memory. What a peer may do wrong, frame by frame, is in
 * test_transport_frames.c; real sockets are in test_transport_sockets.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "transport_fake.h"
#include "websocket.h"

static const struct transport_conf patient = { .max_frame_bytes = 16u << 20,
                                               .ping_interval_ms = 60000,
                                               .ping_timeout_ms = 60000,
                                               .close_timeout_ms = 60000,
                                               .low_water_bytes = 1000 };

#define FRAME "\x82\x83\1\2\3\4\x60\x60\x60" /* a client's frame "abc" */
#define TFRAM "\0\0\0\5hello"

static void come(struct user *u, struct lonely_span bytes)
{
    user_come(u, bytes.ptr, bytes.len);
}

static void assert_out(const struct user *u, struct lonely_span want)
{
    assert_int_equal(u->fake.len, want.len);
    assert_memory_equal(u->fake.out, want.ptr, want.len);
}

static void gives_frames_of_both_kinds(void **state)
{
    struct user u;

    (void)state;
    user_open(&u, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
    come(&u, LIT(FRAME FRAME));
    assert_string_equal(u.log, "[616263][616263]");
    assert_int_equal(u.pieces, 2);
    assert_int_equal(u.frame_bytes, 3);
    user_close(&u);
    user_open(&u, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_CLIENT);
    come(&u, LIT("\x82\3abc"));
    assert_string_equal(u.log, "[616263]");
    user_close(&u);
    user_open(&u, &patient, TRANSPORT_TCP, TRANSPORT_SERVER);
    come(&u, LIT(TFRAM TFRAM));
    assert_string_equal(u.log, "[68656c6c6f][68656c6c6f]");
    assert_int_equal(u.pieces, 2);
    assert_int_equal(u.frame_bytes, 5);
    user_close(&u);
}

static void sends_a_turns_frames_in_one_go(void **state)
{
    static const struct lonely_span want[] = { LIT_INIT("\x82\3abc\x82\5hello"),
                                               LIT_INIT("\0\0\0\4abcd\0\0\0\5hello") };

    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct user u;

        user_open(&u, &patient, (enum transport_kind)kind, TRANSPORT_SERVER);
        transport_frame(u.t, kind == 0 ? 3 : 4);
        transport_put(u.t, LIT("ab"));
        transport_put(u.t, kind == 0 ? LIT("c") : LIT("cd"));
        transport_frame(u.t, 5);
        memcpy(transport_reserve(u.t, 5), "hello", 5);
        transport_commit(u.t, 5);
        assert_int_equal(u.fake.tries, 0);
        assert_int_equal(transport_queued(u.t), want[kind].len);
        user_turn(&u);
        assert_int_equal(u.fake.tries, 1);
        assert_int_equal(transport_queued(u.t), 0);
        assert_out(&u, want[kind]);
        assert_string_equal(u.log, "");
        user_close(&u);
    }
}

/* Frames of a client, put in pieces of every size, are what a server reads. */
/* Like announcing and putting it, whatever its length and what else is in the queue. */
static void puts_whole_frames(void **state)
{
    static const size_t lens[] = { 4, 125, 126, 1024, 1025, 70000 };
    static uint8_t body[70000];

    (void)state;
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < 2 * sizeof lens / sizeof *lens; i++) {
        struct lonely_span frame = { body, lens[i / 2] };
        struct user whole, parts;

        user_open(&whole, &patient, (enum transport_kind)(i % 2), TRANSPORT_SERVER);
        user_open(&parts, &patient, (enum transport_kind)(i % 2), TRANSPORT_SERVER);
        for (int n = 0; n < 20; n++) {
            transport_put_frame(whole.t, frame);
            transport_frame(parts.t, frame.len);
            transport_put(parts.t, frame);
        }
        assert_int_equal(transport_queued(whole.t), transport_queued(parts.t));
        user_turn(&whole);
        user_turn(&parts);
        assert_out(&whole, (struct lonely_span){ parts.fake.out, parts.fake.len });
        user_close(&whole);
        user_close(&parts);
    }
}

static void masks_what_a_client_sends(void **state)
{
    uint8_t body[70000];

    (void)state;
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 7 + i / 251);
    for (size_t piece = 1; piece < sizeof body; piece = piece * 3 + 1) {
        struct user client, server;

        user_open(&client, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_CLIENT);
        user_open(&server, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
        transport_frame(client.t, sizeof body);
        for (size_t at = 0, turn = 0; at < sizeof body; at += piece, turn++) {
            size_t n = sizeof body - at < piece ? sizeof body - at : piece;
            uint8_t *to;

            if (turn % 3 == 0) {
                transport_put(client.t, (struct lonely_span){ body + at, n });
            } else if (turn % 3 == 1 || n > 65536) {
                transport_put_shared(client.t, (struct lonely_span){ body + at, n }, user_release,
                                     &client);
            } else {
                to = transport_reserve(client.t, n);
                assert_non_null(to);
                memcpy(to, body + at, n);
                transport_commit(client.t, n);
            }
        }
        user_turn(&client);
        assert_true(memmem(client.fake.out, client.fake.len, body, 16) == NULL);
        user_come(&server, client.fake.out, client.fake.len);
        assert_int_equal(server.pieces, 1);
        assert_int_equal(server.frame_len, sizeof body);
        assert_memory_equal(server.frame, body, sizeof body);
        user_close(&client);
        user_close(&server);
    }
}

static void shares_large_parts_until_they_have_left(void **state)
{
    static uint8_t body[100000];
    struct user u;

    (void)state;
    memset(body, 'x', sizeof body);
    user_open(&u, &patient, TRANSPORT_TCP, TRANSPORT_SERVER);
    u.fake.takes = 50000;
    transport_frame(u.t, sizeof body + 3);
    transport_put(u.t, LIT("abc"));
    transport_put_shared(u.t, (struct lonely_span){ body, sizeof body }, user_release, &u);
    user_turn(&u);
    assert_int_equal(u.released, 0);
    assert_true(u.fake.sending);
    assert_int_equal(u.fake.parts[0].ptr - body, 50000 - 7);
    transport_frame(u.t, 4); /* waits behind it */
    transport_put(u.t, LIT("next"));
    user_turn(&u);
    assert_int_equal(u.fake.tries, 1);
    u.fake.takes = SIZE_MAX;
    fake_take(&u);
    assert_int_equal(u.released, 1);
    assert_int_equal(u.fake.len, 4 + 3 + sizeof body + 8);
    assert_memory_equal(u.fake.out + u.fake.len - 8, "\0\0\0\4next", 8);
    assert_string_equal(u.log, "drained;");
    user_close(&u);
}

/* Also when it is closed with the parts unsent. */
static void releases_each_part_once(void **state)
{
    static uint8_t body[5000];

    (void)state;
    for (int flying = 0; flying < 2; flying++) {
        struct user u;

        user_open(&u, &patient, TRANSPORT_TCP, TRANSPORT_SERVER);
        u.fake.takes = 0;
        for (int i = 0; i < 3; i++) {
            transport_frame(u.t, sizeof body);
            transport_put_shared(u.t, (struct lonely_span){ body, sizeof body }, user_release, &u);
            if (i < flying)
                user_turn(&u);
        }
        assert_int_equal(u.released, 0);
        transport_abort(u.t);
        transport_frame(u.t, sizeof body); /* nothing happens, but */
        transport_put_shared(u.t, (struct lonely_span){ body, sizeof body }, user_release, &u);
        assert_int_equal(u.released, 1);
        user_fake_closed(&u);
        assert_int_equal(u.released, 4);
        assert_string_equal(u.log, "closed;");
        user_close(&u);
    }
}

static void tells_when_the_queue_has_shrunk(void **state)
{
    uint8_t body[3000] = { 0 };
    struct user u;

    (void)state;
    user_open(&u, &patient, TRANSPORT_TCP, TRANSPORT_SERVER);
    u.fake.takes = 0;
    transport_frame(u.t, 900);
    transport_put(u.t, (struct lonely_span){ body, 900 });
    user_turn(&u);
    u.fake.takes = 0;
    fake_take(&u);
    assert_string_equal(u.log, ""); /* it was never above */
    transport_frame(u.t, 3000);
    transport_put(u.t, (struct lonely_span){ body, 3000 });
    u.fake.takes = 2003;
    user_turn(&u);
    assert_int_equal(transport_queued(u.t), 1001);
    assert_string_equal(u.log, "");
    fake_take(&u);
    assert_string_equal(u.log, "drained;");
    user_close(&u);
}

static void keeps_what_was_read_when_stopped(void **state)
{
    struct user u;

    (void)state;
    user_open(&u, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
    u.stop_at_piece = true;
    come(&u, LIT(FRAME FRAME FRAME "\x82\x81"));
    assert_false(u.fake.reading);
    assert_string_equal(u.log, "[616263]");
    user_turn(&u);
    assert_string_equal(u.log, "[616263]");
    transport_read_start(u.t);
    assert_string_equal(u.log, "[616263]"); /* not inside the call */
    user_turn(&u);
    assert_string_equal(u.log, "[616263][616263]");
    u.stop_at_piece = false;
    transport_read_start(u.t);
    transport_read_stop(u.t);
    user_turn(&u);
    assert_string_equal(u.log, "[616263][616263]");
    transport_read_start(u.t);
    user_turn(&u);
    assert_string_equal(u.log, "[616263][616263][616263]");
    assert_true(u.fake.reading);
    come(&u, LIT("\0\0\0\0z"));
    assert_string_equal(u.log, "[616263][616263][616263][7a]");
    user_close(&u);
}

static void looks_at_the_rest_first(void **state)
{
    struct user u;

    (void)state;
    user_init(&u, &patient);
    u.fake.stream.ops = &fake_ops;
    u.fake.takes = SIZE_MAX;
    u.t = transport_open(u.group, &u.fake.stream, TRANSPORT_TCP, TRANSPORT_SERVER,
                         LIT(TFRAM "\0\0\0\4wor"), &user_events, &u);
    user_turn(&u);
    assert_false(u.fake.reading);
    assert_string_equal(u.log, "");
    transport_read_start(u.t);
    assert_false(u.fake.reading);
    user_turn(&u);
    assert_string_equal(u.log, "[68656c6c6f]");
    come(&u, LIT("d"));
    assert_string_equal(u.log, "[68656c6c6f][776f7264]");
    user_close(&u);
}

/* So many pongs in a turn, or in the queue, and one for the latest ping. */
static void bounds_what_a_flood_of_pings_costs(void **state)
{
    uint8_t want[17 * 3];
    struct user u;

    (void)state;
    user_open(&u, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
    for (int i = 0; i < 10000; i++)
        come(&u, LIT("\x89\x81\0\0\0\0a"));
    come(&u, LIT("\x89\x81\0\0\0\0z"));
    user_turn(&u);
    for (int i = 0; i < 17; i++)
        memcpy(want + 3 * i, i < 16 ? "\x8a\1a" : "\x8a\1z", 3);
    assert_out(&u, (struct lonely_span){ want, sizeof want });
    u.fake.len = 0;
    u.fake.takes = 0;
    for (int i = 0; i < 1000; i++) {
        come(&u, LIT("\x89\x81\0\0\0\0a"));
        user_turn(&u);
    }
    come(&u, LIT("\x89\x81\0\0\0\0z"));
    user_turn(&u);
    assert_int_equal(transport_queued(u.t), 16 * 3);
    u.fake.takes = SIZE_MAX;
    fake_take(&u);
    user_turn(&u);
    assert_out(&u, (struct lonely_span){ want, sizeof want });
    user_close(&u);
}

static void puts_no_pong_into_a_frame(void **state)
{
    struct user u;

    (void)state;
    user_open(&u, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
    transport_frame(u.t, 4);
    transport_put(u.t, LIT("ab"));
    come(&u, LIT("\x89\x80\0\0\0\0"));
    user_turn(&u);
    assert_out(&u, LIT("\x82\4"
                       "ab"));
    transport_put(u.t, LIT("cd"));
    transport_frame(u.t, 1);
    transport_put(u.t, LIT("e"));
    user_turn(&u);
    assert_out(&u, LIT("\x82\4"
                       "abcd\x8a\0\x82\1"
                       "e"));
    user_close(&u);
}

static void come_end(struct user *u)
{
    u->fake.stream.events->on_end(u->fake.stream.arg);
}

/* The server is the first to close, once both have said so; nobody is cut off. */
static void closes_in_order_as_server(void **state)
{
    struct user u;

    (void)state;
    user_open(&u, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
    transport_frame(u.t, 1);
    transport_put(u.t, LIT("a"));
    transport_read_stop(u.t);
    transport_close(u.t, TRANSPORT_RESTART);
    transport_close(u.t, TRANSPORT_FAILED);
    user_turn(&u);
    assert_out(&u, LIT("\x82\1a\x88\2\3\xf4"));
    assert_true(u.fake.reading);
    come(&u, LIT(FRAME "\x89\x80\0\0\0\0"));
    user_turn(&u);
    assert_false(u.fake.closed || u.fake.shut);
    come(&u, LIT("\x88\x82\0\0\0\0\3\xf4"));
    assert_true(u.fake.closed);
    user_fake_closed(&u);
    assert_string_equal(u.log, "closed;");
    assert_int_equal(u.fake.len, 3 + 4);
    user_close(&u);
}

static void closes_in_order_as_client(void **state)
{
    struct user u;

    (void)state;
    user_open(&u, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_CLIENT);
    transport_close(u.t, TRANSPORT_NORMAL);
    user_turn(&u);
    assert_int_equal(u.fake.len, 8);
    come(&u, LIT("\x88\0"));
    assert_true(u.fake.shut);
    assert_false(u.fake.closed);
    come_end(&u);
    assert_true(u.fake.closed);
    user_fake_closed(&u);
    assert_string_equal(u.log, "closed;");
    user_close(&u);
}

static void closes_in_order_over_tcp(void **state)
{
    struct user u;

    (void)state;
    user_open(&u, &patient, TRANSPORT_TCP, TRANSPORT_SERVER);
    transport_frame(u.t, 4);
    transport_put(u.t, LIT("last"));
    transport_close(u.t, TRANSPORT_POLICY);
    user_turn(&u);
    assert_out(&u, LIT("\0\0\0\4last"));
    assert_true(u.fake.shut);
    come(&u, LIT("\0\0\0\0thrown away"));
    assert_false(u.fake.closed);
    come_end(&u);
    assert_true(u.fake.closed);
    user_fake_closed(&u);
    assert_string_equal(u.log, "closed;");
    user_close(&u);
}

/* A close frame of the peer: answered at once, closed when the user is done. */
static void answers_a_close_frame(void **state)
{
    (void)state;
    for (int unread = 0; unread < 2; unread++) {
        struct user u;

        user_open(&u, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
        u.fake.unread = unread;
        come(&u, LIT("\x88\x82\0\0\0\0\3\xe9" FRAME));
        user_turn(&u);
        assert_string_equal(u.log, "end 1001;");
        assert_out(&u, LIT("\x88\2\3\xe9"));
        assert_false(u.fake.closed || u.fake.reading);
        transport_frame(u.t, 1); /* nothing happens */
        transport_put(u.t, LIT("a"));
        assert_null(transport_reserve(u.t, 1));
        transport_close(u.t, TRANSPORT_NORMAL);
        user_turn(&u);
        assert_int_equal(u.fake.shut, unread); /* to close would reset the connection */
        assert_int_equal(u.fake.closed, !unread);
        if (unread)
            come_end(&u);
        user_fake_closed(&u);
        assert_string_equal(u.log, "end 1001;closed;");
        assert_int_equal(u.fake.len, 4);
        user_close(&u);
    }
}

static const struct end_case {
    const char *name;
    enum transport_kind kind;
    struct lonely_span in;
    const char *log;
} ends[] = {
    { "between frames", TRANSPORT_TCP, LIT_INIT(TFRAM), "[68656c6c6f]end 1005;" },
    { "before any", TRANSPORT_TCP, LIT_INIT("\0"), "end 1006;" },
    { "in a length", TRANSPORT_TCP, LIT_INIT(TFRAM "\0\0"), "[68656c6c6f]end 1006;" },
    { "in a frame", TRANSPORT_TCP, LIT_INIT("\0\0\0\5hell"), "end 1006;" },
    { "without a close frame", TRANSPORT_WEBSOCKET, LIT_INIT(FRAME), "[616263]end 1006;" },
};

static void tells_how_the_stream_ended(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(ends); i++) {
        struct user u;

        fprintf(stderr, "%s\n", ends[i].name);
        user_open(&u, &patient, ends[i].kind, TRANSPORT_SERVER);
        come(&u, ends[i].in);
        come_end(&u);
        user_turn(&u);
        assert_string_equal(u.log, ends[i].log);
        assert_int_equal(u.fake.len, 0);
        transport_close(u.t, TRANSPORT_NORMAL);
        user_turn(&u);
        user_fake_closed(&u);
        assert_null(u.t);
        user_close(&u);
    }
}

/* Lengths that no frame has, over TCP: nothing is taken for them. */
static void refuses_lengths_over_tcp(void **state)
{
    static const struct {
        struct lonely_span in;
        const char *log;
    } cases[] = {
        { LIT_INIT("\0\0\0\0"), "end 1002;" },
        { LIT_INIT(TFRAM "\0\0\0\3abc" TFRAM), "[68656c6c6f]end 1002;" },
        { LIT_INIT("\1\0\0\1"), "end 1009;" },
        { LIT_INIT("\xff\xff\xff\xff" TFRAM), "end 1009;" },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        for (size_t step = 1; step < 40; step += 38) {
            struct user u;

            user_open(&u, &patient, TRANSPORT_TCP, TRANSPORT_SERVER);
            u.close_at_end = true;
            for (size_t at = 0; at < cases[i].in.len; at += step) {
                size_t left = cases[i].in.len - at;

                user_come(&u, cases[i].in.ptr + at, left < step ? left : step);
            }
            user_turn(&u);
            assert_string_equal(u.log, cases[i].log);
            assert_true(u.fake.shut);
            user_close(&u);
        }
    }
}

static void survives_a_lost_stream(void **state)
{
    (void)state;
    for (int closed_first = 0; closed_first < 2; closed_first++) {
        struct user u;

        user_open(&u, &patient, TRANSPORT_TCP, TRANSPORT_SERVER);
        if (closed_first)
            transport_close(u.t, TRANSPORT_NORMAL);
        u.fake.stream.events->on_lost(u.fake.stream.arg);
        assert_true(u.fake.closed);
        assert_string_equal(u.log, closed_first ? "" : "end 1006;");
        transport_frame(u.t, 4);
        transport_put(u.t, LIT("lost"));
        if (closed_first) {
            user_fake_closed(&u);
        } else {
            u.fake.stream.events->on_closed(u.fake.stream.arg);
            user_turn(&u);
            assert_non_null(u.t); /* until the user has closed it */
            assert_int_equal(transport_queued(u.t), 0);
            transport_close(u.t, TRANSPORT_NORMAL);
            assert_non_null(u.t);
            user_turn(&u);
        }
        assert_string_equal(u.log, closed_first ? "closed;" : "end 1006;closed;");
        user_close(&u);
    }
}

/* Sending notices first that the peer is gone: what it had sent is still read, up to its end. */
static void reads_on_when_sending_fails(void **state)
{
    static uint8_t body[5000];
    struct user u;

    (void)state;
    user_open(&u, &patient, TRANSPORT_TCP, TRANSPORT_SERVER);
    u.fake.lost = true;
    transport_frame(u.t, sizeof body);
    transport_put_shared(u.t, (struct lonely_span){ body, sizeof body }, user_release, &u);
    user_turn(&u);
    assert_int_equal(u.released, 1);
    assert_string_equal(u.log, "drained;");
    transport_frame(u.t, 1);
    assert_int_equal(transport_queued(u.t), 0);
    come(&u, LIT(TFRAM));
    come_end(&u);
    assert_string_equal(u.log, "drained;[68656c6c6f]end 1005;");
    transport_close(u.t, TRANSPORT_NORMAL);
    user_turn(&u);
    user_fake_closed(&u);
    user_close(&u);
}

/* Of a frame that is not complete the rest is missing, and no close frame is taken for it. */
static void cuts_an_incomplete_frame(void **state)
{
    struct user u;

    (void)state;
    user_open(&u, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
    transport_frame(u.t, 10);
    transport_put(u.t, LIT("ab"));
    transport_close(u.t, TRANSPORT_RESTART);
    user_turn(&u);
    assert_out(&u, LIT("\x82\x0a"
                       "ab"));
    assert_true(u.fake.shut);
    come_end(&u);
    user_fake_closed(&u);
    user_close(&u);
}

/* Times. */

static bool is_stream_closed(void *arg)
{
    return ((struct user *)arg)->fake.closed;
}

static bool has_ended(void *arg)
{
    return ((struct user *)arg)->ends > 0;
}

static bool has_sent(void *arg)
{
    return ((struct user *)arg)->fake.len > 0;
}

static void bounds_the_close(void **state)
{
    struct transport_conf conf = patient;
    static const char *const names[] = { "no answer", "output that is not taken", "no end" };

    (void)state;
    conf.close_timeout_ms = 20;
    for (int i = 0; i < 3; i++) {
        struct user u;

        fprintf(stderr, "%s\n", names[i]);
        user_open(&u, &conf, i == 2 ? TRANSPORT_TCP : TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
        u.fake.takes = i == 1 ? 0 : SIZE_MAX;
        transport_close(u.t, TRANSPORT_NORMAL);
        peer_until(&u.loop, is_stream_closed, &u);
        user_fake_closed(&u);
        assert_string_equal(u.log, "closed;");
        user_close(&u);
    }
}

static void notices_a_silent_peer(void **state)
{
    struct transport_conf conf = patient;
    struct user u;

    (void)state;
    conf.ping_interval_ms = 20;
    conf.ping_timeout_ms = 20;
    user_open(&u, &conf, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
    peer_until(&u.loop, has_sent, &u);
    assert_out(&u, LIT("\x89\0"));
    come(&u, LIT("\x8a\x80\0\0\0\0")); /* lives */
    u.fake.len = 0;
    peer_until(&u.loop, has_sent, &u);
    assert_int_equal(u.ends, 0);
    peer_until(&u.loop, has_ended, &u);
    user_turn(&u);
    assert_string_equal(u.log, "end 1011;");
    assert_out(&u, LIT("\x89\0\x88\2\3\xf3"));
    user_close(&u);
}

static void blames_nobody_while_stopped(void **state)
{
    struct transport_conf conf = patient;
    struct user u;

    (void)state;
    conf.ping_interval_ms = 10;
    conf.ping_timeout_ms = 10;
    user_open(&u, &conf, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
    peer_until(&u.loop, has_sent, &u);
    transport_read_stop(u.t);
    peer_let_pass(&u.loop, 60);
    assert_string_equal(u.log, "");
    transport_read_start(u.t);
    peer_until(&u.loop, has_ended, &u);
    assert_string_equal(u.log, "end 1011;");
    user_close(&u);
}

/* Takes what is being sent, again and again. However late the loop is, that comes before the deadlines that
 * were due after it. */
struct taker {
    uv_timer_t timer;
    struct user *u;
    unsigned left;
    bool closed;
};

static void on_taker_closed(uv_handle_t *timer)
{
    ((struct taker *)timer->data)->closed = true;
}

static void on_take(uv_timer_t *timer)
{
    struct taker *taker = timer->data;

    taker->u->fake.len = 0; /* nobody looks at it, and under a sanitizer a long one grows slowly */
    if (taker->u->ends == 0 && taker->u->fake.sending)
        fake_take(taker->u);
    if (--taker->left == 0)
        uv_close((uv_handle_t *)timer, on_taker_closed);
}

static bool is_taker_closed(void *arg)
{
    return ((struct taker *)arg)->closed;
}

/* A peer that takes what was queued before the ping has not seen it yet. While the user does not read, it still
 * has to take. */
static void waits_for_a_slow_peer(void **state)
{
    enum { TAKES = 8, FRAMES = TAKES * STREAM_PARTS_MAX, TAKE_MS = 25 };
    struct transport_conf conf = patient;
    uint8_t body[4096] = { 0 };

    (void)state;
    conf.ping_interval_ms = 10;
    conf.ping_timeout_ms = TAKES * TAKE_MS / 2;
    for (int reads = 0; reads < 2; reads++) {
        struct user u;
        struct taker taker = { .u = &u, .left = TAKES };

        user_open(&u, &conf, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
        u.fake.takes = 0;
        if (!reads)
            transport_read_stop(u.t);
        for (int i = 0; i < FRAMES; i++) { /* more than TAKES times what is sent at once */
            transport_frame(u.t, sizeof body);
            transport_put(u.t, (struct lonely_span){ body, sizeof body });
        }
        taker.timer.data = &taker;
        uv_timer_init(&u.loop, &taker.timer);
        uv_timer_start(&taker.timer, on_take, TAKE_MS, TAKE_MS);
        peer_until(&u.loop, is_taker_closed, &taker);
        assert_int_equal(u.ends, 0);
        peer_until(&u.loop, has_ended, &u);
        assert_string_equal(u.log, "end 1011;");
        user_close(&u);
    }
}

/* What the user may do in the middle of a read. */

static void abort_at_piece(struct user *u)
{
    transport_abort(u->t);
}

static void close_at_piece(struct user *u)
{
    transport_close(u->t, TRANSPORT_POLICY);
}

static void toggle_at_piece(struct user *u)
{
    transport_read_stop(u->t);
    transport_read_start(u->t);
}

static void may_be_closed_from_a_piece(void **state)
{
    static const struct {
        void (*at_piece)(struct user *u);
        const char *log;
        bool closed;
    } cases[] = {
        { abort_at_piece, "[616263]", true },
        { close_at_piece, "[616263]", true }, /* the close frame behind has come, too */
        { toggle_at_piece, "[616263][616263]end 1005;", false },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct user u;

        user_open(&u, &patient, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
        u.at_piece = cases[i].at_piece;
        come(&u, LIT(FRAME FRAME "\x88\x80\0\0\0\0"));
        user_turn(&u);
        assert_string_equal(u.log, cases[i].log);
        assert_int_equal(u.fake.closed, cases[i].closed);
        user_close(&u);
    }
}

/* A frame that is announced and does not come costs nothing; one that comes in pieces is given so. */
static void takes_no_memory_for_announcements(void **state)
{
    static uint8_t piece[60000];
    struct user u;

    (void)state;
    user_open(&u, &patient, TRANSPORT_TCP, TRANSPORT_SERVER);
    come(&u, LIT("\1\0\0\0a"));
    assert_int_equal(u.pieces, 1);
    assert_int_equal(u.frame_bytes, 1 << 24);
    for (size_t left = (1 << 24) - 1; left > 0;) {
        size_t n = left < sizeof piece ? left : sizeof piece;

        user_come(&u, piece, n);
        left -= n;
    }
    assert_string_equal(u.log, "[16777216 bytes]");
    user_close(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_frames_of_both_kinds),
        cmocka_unit_test(sends_a_turns_frames_in_one_go),
        cmocka_unit_test(puts_whole_frames),
        cmocka_unit_test(masks_what_a_client_sends),
        cmocka_unit_test(shares_large_parts_until_they_have_left),
        cmocka_unit_test(releases_each_part_once),
        cmocka_unit_test(tells_when_the_queue_has_shrunk),
        cmocka_unit_test(keeps_what_was_read_when_stopped),
        cmocka_unit_test(looks_at_the_rest_first),
        cmocka_unit_test(bounds_what_a_flood_of_pings_costs),
        cmocka_unit_test(puts_no_pong_into_a_frame),
        cmocka_unit_test(closes_in_order_as_server),
        cmocka_unit_test(closes_in_order_as_client),
        cmocka_unit_test(closes_in_order_over_tcp),
        cmocka_unit_test(answers_a_close_frame),
        cmocka_unit_test(tells_how_the_stream_ended),
        cmocka_unit_test(refuses_lengths_over_tcp),
        cmocka_unit_test(survives_a_lost_stream),
        cmocka_unit_test(reads_on_when_sending_fails),
        cmocka_unit_test(cuts_an_incomplete_frame),
        cmocka_unit_test(bounds_the_close),
        cmocka_unit_test(notices_a_silent_peer),
        cmocka_unit_test(blames_nobody_while_stopped),
        cmocka_unit_test(waits_for_a_slow_peer),
        cmocka_unit_test(may_be_closed_from_a_piece),
        cmocka_unit_test(takes_no_memory_for_announcements),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
