/*
 * The recorded conversations of sessions/, one test a websocket: every frame parses and is written
 * as it was, nonces, counters, streams and the order of answers hold (doc/protocol/session.md, 2).
 * The authorizations in them are verified in test_sessions_auth.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lonely/connection.h>
#include <lonely/message.h>
#include <openssl/sha.h>

#include "tables.h"
#include "vectors.h"

enum { QUEUE_MAX = 64, STREAM_MAX_BYTES = 1 << 20, FRAME_MAX_BYTES = 1 << 20 };

/* An answer that one end waits for. */
struct expected {
    unsigned type;
    struct lonely_span key; /* the topic, glob or identifier that it echoes */
    uint64_t part_id;
    int64_t number; /* counter of the request, 0 if it used none */
};

/* Everything that one end has said. */
struct end {
    struct expected expected[QUEUE_MAX]; /* answers it waits for, oldest first */
    size_t n_expected;
    uint8_t stream[STREAM_MAX_BYTES]; /* parts of the notification it is sending */
    size_t stream_len;
    struct lonely_msg_stream first; /* part 0 */
    uint64_t next_part;
    size_t uses; /* of its counter, as the test counts them */
};

struct session {
    struct lonely_connection connection;
    struct end ends[2]; /* by enum lonely_direction */
    struct lonely_span nonce;
};

static struct session s;
static struct guard input, output;

/* --- Answers. --- */

static void expect(enum lonely_direction from, struct expected e)
{
    struct end *end = &s.ends[from];

    assert_true(end->n_expected < QUEUE_MAX);
    end->expected[end->n_expected++] = e;
}

/* An answer to the oldest of the questions, or a failed test. */
static struct expected answered(enum lonely_direction asked_by, unsigned type,
                                struct lonely_span key, uint64_t part_id)
{
    struct end *end = &s.ends[asked_by];
    struct expected e;

    assert_true(end->n_expected > 0);
    e = end->expected[0];
    assert_int_equal(e.type, type);
    assert_true(table_span_equal(e.key, key));
    assert_true(e.part_id == part_id);
    end->n_expected--;
    memmove(end->expected, end->expected + 1, end->n_expected * sizeof(e));
    return e;
}

/* --- Streams. --- */

static void assert_sha512(struct lonely_span body, struct lonely_span want)
{
    uint8_t got[LONELY_SHA512_BYTES];

    SHA512(body.ptr, body.len, got);
    assert_int_equal(want.len, sizeof(got));
    assert_memory_equal(got, want.ptr, sizeof(got));
}

/* Takes one part. True if it was the last: then length and hash have been compared. */
static bool stream_part(struct end *end, const struct lonely_message *m)
{
    const struct lonely_msg_stream *part = &m->as.stream;

    assert_true(part->part_id == end->next_part);
    if (part->part_id == 0) {
        assert_int_equal(end->stream_len, 0);
        end->first = *part;
    }
    assert_true(table_span_equal(part->identifier, end->first.identifier));
    assert_true(m->body.len <= sizeof(end->stream) - end->stream_len);
    if (m->body.len > 0)
        memcpy(end->stream + end->stream_len, m->body.ptr, m->body.len);
    end->stream_len += m->body.len;
    end->next_part++;
    assert_true(end->stream_len <= end->first.compressed_length);
    if (end->stream_len < end->first.compressed_length)
        return false;
    assert_sha512((struct lonely_span){ end->stream, end->stream_len },
                  end->first.compressed_sha512);
    end->stream_len = 0;
    end->next_part = 0;
    return true;
}

/* --- One message. `number` is the position that it took, 0 for none. --- */

static void from_subscriber(const struct lonely_message *m, int64_t number)
{
    switch ((enum lonely_s2b)m->type) {
    case LONELY_S2B_CONFIGURE:
        assert_null(s.nonce.ptr);
        s.nonce = m->as.configure.subscriber_nonce;
        break;
    case LONELY_S2B_SUBSCRIBE_EXACT:
    case LONELY_S2B_SUBSCRIBE_GLOB:
    case LONELY_S2B_UNSUBSCRIBE_EXACT:
    case LONELY_S2B_UNSUBSCRIBE_GLOB: /* the confirmations have the same numbers */
        expect(LONELY_S2B, (struct expected){ m->type, m->as.subscription.topic, 0, number });
        break;
    case LONELY_S2B_NOTIFY:
        expect(LONELY_S2B,
               (struct expected){ LONELY_B2S_CONFIRM_NOTIFY, m->as.notify.identifier, 0, 0 });
        break;
    case LONELY_S2B_NOTIFY_STREAM:
        if (stream_part(&s.ends[LONELY_S2B], m))
            expect(LONELY_S2B,
                   (struct expected){ LONELY_B2S_CONFIRM_NOTIFY, m->as.stream.identifier, 0, 0 });
        else
            expect(LONELY_S2B,
                   (struct expected){ LONELY_B2S_CONTINUE_NOTIFY, m->as.stream.identifier,
                                      m->as.stream.part_id, 0 });
        break;
    case LONELY_S2B_CONTINUE_RECEIVE:
        answered(LONELY_B2S, m->type, m->as.continuation.identifier, m->as.continuation.part_id);
        break;
    case LONELY_S2B_CONFIRM_RECEIVE:
        answered(LONELY_B2S, m->type, m->as.confirm_receive.identifier, 0);
        assert_true(m->as.confirm_receive.num_subscribers == 1);
        break;
    }
}

static void from_broadcaster(const struct lonely_message *m, int64_t number)
{
    switch ((enum lonely_b2s)m->type) {
    case LONELY_B2S_CONFIRM_CONFIGURE:
        assert_non_null(s.nonce.ptr);
        assert_int_equal(lonely_connection_init(&s.connection, s.nonce,
                                                m->as.confirm_configure.broadcaster_nonce),
                         LONELY_OK);
        break;
    case LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT:
    case LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB:
    case LONELY_B2S_CONFIRM_UNSUBSCRIBE_EXACT:
    case LONELY_B2S_CONFIRM_UNSUBSCRIBE_GLOB:
        assert_true(answered(LONELY_S2B, m->type, m->as.subscription.topic, 0).number < 0);
        break;
    case LONELY_B2S_CONFIRM_NOTIFY:
        answered(LONELY_S2B, m->type, m->as.confirm_notify.identifier, 0);
        break;
    case LONELY_B2S_CONTINUE_NOTIFY:
        answered(LONELY_S2B, m->type, m->as.continuation.identifier, m->as.continuation.part_id);
        break;
    case LONELY_B2S_RECEIVE_STREAM:
        assert_true(number > 0);
        if (stream_part(&s.ends[LONELY_B2S], m))
            expect(LONELY_B2S, (struct expected){ LONELY_S2B_CONFIRM_RECEIVE,
                                                  m->as.stream.identifier, 0, number });
        else
            expect(LONELY_B2S,
                   (struct expected){ LONELY_S2B_CONTINUE_RECEIVE, m->as.stream.identifier,
                                      m->as.stream.part_id, number });
        break;
    case LONELY_B2S_ENABLE_ZSTD_CUSTOM: /* an honest dictionary matches its hash (Q6) */
        assert_true(m->as.enable_zstd.identifier >= 65536);
        assert_sha512(m->body, m->as.enable_zstd.sha512);
        break;
    case LONELY_B2S_ENABLE_ZSTD_PRESET:
    case LONELY_B2S_DISABLE_ZSTD_CUSTOM:
    case LONELY_B2S_MISSED:
        assert_true(number > 0);
        assert_int_equal(s.ends[LONELY_B2S].stream_len, 0); /* never between parts */
        break;
    }
}

/* The next number of a counter is what the sender's uses so far make it. */
static int64_t position(const struct lonely_message *m)
{
    enum lonely_counter counter = lonely_connection_counter(m->direction, m->type);
    int64_t number = 0;

    if (counter != LONELY_COUNTER_SUBSCRIBER && counter != LONELY_COUNTER_BROADCASTER)
        return 0;
    assert_int_equal(counter == LONELY_COUNTER_SUBSCRIBER, m->direction == LONELY_S2B);
    assert_int_equal(lonely_connection_take(&s.connection, counter, &number), LONELY_OK);
    s.ends[m->direction].uses++;
    assert_true(number ==
                (m->direction == LONELY_S2B ? -1 : 1) * (int64_t)s.ends[m->direction].uses);
    return number;
}

/* The reference writes canonical frames, so ours has to be the same byte for byte. */
static void written_again(const struct lonely_message *m, struct lonely_span frame)
{
    uint8_t *out = guard_room(&output, frame.len);
    size_t len;

    assert_int_equal(lonely_message_serialize(m, out, frame.len, &len), LONELY_OK);
    assert_int_equal(len, frame.len);
    assert_memory_equal(out, frame.ptr, frame.len);
}

static void one_frame(enum lonely_direction from, struct lonely_span frame, const char *note)
{
    struct lonely_message m, laid;
    const char *name;

    assert_int_equal(lonely_message_parse(from, guard_lay(&input, frame), &laid).err, LONELY_OK);
    assert_int_equal(lonely_message_parse(from, frame, &m).err, LONELY_OK);
    name = lonely_message_name(from, m.type);
    assert_int_equal(strncmp(note, name, strlen(name)), 0);
    written_again(&m, frame);
    if (from == LONELY_S2B)
        from_subscriber(&m, position(&m));
    else
        from_broadcaster(&m, position(&m));
}

static void assert_settled(const struct end *end)
{
    assert_int_equal(end->n_expected, 0);
    assert_int_equal(end->stream_len, 0);
}

static void one_session(void **state)
{
    const json_t *session = *state, *frames = vec_get(session, "frames");
    size_t n = json_array_size(frames);
    struct vec_bytes *kept = calloc(n, sizeof(*kept)); /* messages point into them */

    assert_true(kept != NULL && n >= 4);
    memset(&s, 0, sizeof(s));
    for (size_t i = 0; i < n; i++) {
        const json_t *frame = json_array_get(frames, i);
        const char *from = vec_str(frame, "from");

        kept[i] = vec_get_bytes(frame, "hex");
        one_frame(strcmp(from, "subscriber") == 0 ? LONELY_S2B : LONELY_B2S, vec_span(&kept[i]),
                  vec_str(frame, "note"));
    }
    assert_settled(&s.ends[LONELY_S2B]);
    assert_settled(&s.ends[LONELY_B2S]);
    if (vec_has(session, "connection_nonce_b64")) {
        char url[LONELY_CONNECTION_URL_MAX_BYTES];
        const char *want = vec_str(session, "connection_nonce_b64");

        lonely_connection_url(&s.connection, 1, url);
        assert_int_equal(strncmp(url + strlen("websocket:"), want, strlen(want)), 0);
    }
    for (size_t i = 0; i < n; i++)
        vec_bytes_free(&kept[i]);
    free(kept);
}

/* --- The files, one session for each websocket in them. --- */

static json_t *frames_of_channel(const json_t *all, const char *channel)
{
    json_t *frames = json_array(), *frame;
    size_t i;

    json_array_foreach(all, i, frame) if (strcmp(vec_str(frame, "channel"), channel) == 0)
        json_array_append(frames, frame);
    return frames;
}

static void add_session(json_t *sessions, const char *name, json_t *about, json_t *frames)
{
    json_t *session = json_copy(about);

    json_object_set_new(session, "name", json_string(name));
    json_object_set_new(session, "frames", frames);
    json_array_append_new(sessions, session);
}

/* In a file with channels the websockets are named "ws: ..."; the rest is HTTP. */
static void add_channels(json_t *sessions, const char *file, json_t *about, const json_t *all)
{
    json_t *seen = json_object(), *frame;
    size_t i;

    json_array_foreach(all, i, frame)
    {
        const char *channel = vec_str(frame, "channel");
        char name[256];

        if (strncmp(channel, "ws: ", 4) != 0 || vec_has(seen, channel))
            continue;
        snprintf(name, sizeof(name), "%s, %s", file, channel + 4);
        add_session(sessions, name, about, frames_of_channel(all, channel));
        json_object_set_new(seen, channel, json_true());
    }
    json_decref(seen);
}

static json_t *load_sessions(void)
{
    json_t *index = vec_load_json("sessions/index.json"), *sessions = json_array(), *about;
    const char *file;

    json_object_foreach(index, file, about)
    {
        char path[256];
        json_t *frames;

        snprintf(path, sizeof(path), "sessions/%s", file);
        frames = vec_load_json(path);
        if (vec_has(json_array_get(frames, 0), "channel")) {
            add_channels(sessions, file, about, frames);
            json_decref(frames);
        } else {
            add_session(sessions, file, about, frames);
        }
    }
    json_decref(index);
    return sessions;
}

int main(void)
{
    json_t *sessions = load_sessions();
    int failed;

    input = guard_create(FRAME_MAX_BYTES);
    output = guard_create(FRAME_MAX_BYTES);
    failed = vec_run("sessions", sessions, "name", one_session, NULL, NULL);
    json_decref(sessions);
    guard_destroy(&input);
    guard_destroy(&output);
    return failed;
}
