/*
 * The recorded conversations of sessions/ that need no compression, held against our broadcaster's
 * session: what the subscriber sent goes in, and what comes out equals, byte for byte, what the reference
 * said. The clock, nonces and identifiers are those of the recording.
 */
#include "session_fixture.h"
#include "vectors.h"

enum { MAX_FRAMES = 64 };

/* `channel`: the websocket in a file of several; NULL: there is one. What goes from one broadcaster to the
 * other is replayed by tests/integration/test_peer_broadcasters.py. */
static const struct conversation {
    const char *file, *channel;
} conversations[] = {
    { "none_basic_minimal.json", NULL },
    { "none_basic_expanded.json", NULL },
    { "token_basic.json", NULL },
    { "hmac_basic.json", NULL },
    { "hmac_basic_expanded.json", NULL },
    { "none_stream_notifier.json", NULL },
    { "none_stream_receiver.json", NULL },
    { "hmac_stream_notifier.json", NULL },
    { "hmac_stream_receiver.json", NULL },
    { "none_missed.json", NULL },
    { "hmac_missed.json", NULL },
    { "none_two_broadcasters.json", "ws: subscriber 1 at broadcaster 1" },
    { "none_two_broadcasters.json", "ws: subscriber 2 at broadcaster 2" },
    { "none_two_broadcasters.json", "ws: notifier at broadcaster 1" },
};

static struct recording {
    struct vec_bytes said[MAX_FRAMES]; /* by the broadcaster */
    size_t said_count;
    double recorded_at;
} rec;

/* ---- What the recording says of chance and time ---- */

/* "X-HMAC 1795253839:WOGD_w:..." in the frame that the session is about to send; NULL: there is none. */
static const char *next_hmac(void)
{
    static const char prefix[] = "X-HMAC ";
    const struct vec_bytes *frame = &rec.said[fx.frame_count];
    const char *at;

    if (fx.frame_count >= rec.said_count)
        return NULL;
    at = memmem(frame->ptr, frame->len, prefix, sizeof(prefix) - 1);
    return at == NULL ? NULL : at + sizeof(prefix) - 1;
}

static double recorded_time(void)
{
    const char *hmac = next_hmac();

    return hmac == NULL ? rec.recorded_at : (double)strtoull(hmac, NULL, 10);
}

static uint32_t sextet(char c)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const char *at = strchr(alphabet, c);

    table_require(at != NULL, "base64");
    return (uint32_t)(at - alphabet);
}

static void recorded_random(uint8_t *to, size_t len)
{
    const char *hmac = next_hmac();
    struct lonely_message m;
    uint64_t bits = 0;

    if (len == LONELY_NONCE_BYTES) {
        table_require(lonely_message_parse(LONELY_B2S, vec_span(&rec.said[0]), &m).err == LONELY_OK,
                      "CONFIRM_CONFIGURE");
        memcpy(to, m.as.confirm_configure.broadcaster_nonce.ptr, len);
        return;
    }
    memset(to, 0, len);
    if (hmac == NULL || len != 4) /* a token uses no nonce */
        return;
    hmac = strchr(hmac, ':') + 1;
    for (int i = 0; i < 6; i++)
        bits = bits << 6 | sextet(hmac[i]);
    bits >>= 4;
    for (size_t i = 0; i < 4; i++)
        to[i] = (uint8_t)(bits >> (24 - 8 * i));
}

/* ---- What others did ---- */

static struct lonely_message said(size_t i)
{
    struct lonely_message m;

    table_require(lonely_message_parse(LONELY_B2S, vec_span(&rec.said[i]), &m).err == LONELY_OK,
                  "a recorded frame");
    return m;
}

/* The message whose first part is recorded as `i` reaches the session. */
static void deliver(size_t i)
{
    struct lonely_message first = said(i);
    struct body *body;
    uint8_t *bytes = mem_alloc((size_t)first.as.stream.compressed_length);
    size_t len = 0;

    for (; i < rec.said_count && len < first.as.stream.compressed_length; i++) {
        struct lonely_message part = said(i);

        memcpy(bytes + len, part.body.ptr, part.body.len);
        len += part.body.len;
    }
    body = body_create(fx.b.bodies, (struct lonely_span){ bytes, len },
                       first.as.stream.compressed_sha512.ptr);
    table_require(body != NULL && first.as.stream.identifier.len == 4, "a body");
    assert_true(
        fx_deliver(first.as.stream.topic, body, (const char *)first.as.stream.identifier.ptr));
    body_unref(body);
    mem_free(bytes);
}

/* Has the frame recorded as `i` be sent, if it was not yet. */
static void have_said(size_t i)
{
    struct lonely_message m = said(i);

    if (fx.frame_count > i)
        return;
    switch (m.type) {
    case LONELY_B2S_CONFIRM_NOTIFY:
        assert_true(fx.notify_done < fx.notify_count);
        fx_notified(fx.notify_done, HUB_OK, (uint32_t)m.as.confirm_notify.subscribers);
        break;
    case LONELY_B2S_RECEIVE_STREAM:
        deliver(i);
        break;
    case LONELY_B2S_MISSED:
        assert_true(fx.receiver->ops->on_missed(fx.receiver, m.as.missed.topic));
        break;
    default: /* answers come by themselves */
        break;
    }
    fx_run();
    assert_true(fx.frame_count > i);
}

/* ---- Replaying ---- */

static char *secrets_of(const json_t *auth)
{
    json_t *file;
    char *text;

    if (!json_is_object(auth))
        return NULL;
    file =
        json_pack("{s:s, s:O, s:O}", "version", "2", "to-broadcaster",
                  vec_get(auth, "to_broadcaster"), "to-subscriber", vec_get(auth, "to_subscriber"));
    text = json_dumps(file, 0);
    json_decref(file);
    return text;
}

/* The frames of the conversation. */
static json_t *load(const struct conversation *c)
{
    char path[128];
    json_t *all, *frames = json_array(), *frame;
    size_t i;

    snprintf(path, sizeof(path), "sessions/%s", c->file);
    all = vec_load_json(path);
    rec.said_count = 0;
    json_array_foreach(all, i, frame)
    {
        if (c->channel != NULL && strcmp(vec_str(frame, "channel"), c->channel) != 0)
            continue;
        json_array_append(frames, frame);
        if (strcmp(vec_str(frame, "from"), "broadcaster") != 0)
            continue;
        table_require(rec.said_count < MAX_FRAMES, "MAX_FRAMES");
        rec.said[rec.said_count++] = vec_get_bytes(frame, "hex");
    }
    json_decref(all);
    table_require(rec.said_count > 0, c->file);
    return frames;
}

static void open_as_recorded(const json_t *info)
{
    char *secrets = secrets_of(vec_get(info, "auth"));

    fx_init();
    rec.recorded_at = (double)vec_u64(info, "recorded_at");
    fx.time_s = recorded_time;
    fx.random = recorded_random;
    fx.conf.websocket.websocket_send_max_unacknowledged = 3;
    if (vec_has(info, "broadcaster_minimal_headers"))
        fx.conf.websocket.websocket_minimal_headers = vec_bool(info, "broadcaster_minimal_headers");
    if (vec_has(info, "outgoing_max_ws_message_size"))
        fx.conf.websocket.outgoing_max_ws_message_size =
            vec_u64(info, "outgoing_max_ws_message_size");
    fx_open(secrets, TRANSPORT_WEBSOCKET, false);
    free(secrets);
}

static void replay(void **state)
{
    const struct conversation *c = *state;
    json_t *index = vec_load_json("sessions/index.json"), *frames = load(c), *frame;
    size_t i, next = 0;

    open_as_recorded(vec_get(index, c->file));
    json_array_foreach(frames, i, frame)
    {
        struct vec_bytes bytes = vec_get_bytes(frame, "hex");

        if (strcmp(vec_str(frame, "from"), "subscriber") == 0) {
            fx_feed(bytes.ptr, bytes.len);
            fx_run();
        } else {
            have_said(next);
            assert_int_equal(fx.frames[next].len, bytes.len);
            assert_memory_equal(fx.frames[next].bytes, bytes.ptr, bytes.len);
            next++;
        }
        vec_bytes_free(&bytes);
    }
    assert_int_equal(fx.frame_count, next);
    assert_false(fx.t.closed);
    fx.time_s = NULL;
    fx_fini();
    for (i = 0; i < rec.said_count; i++)
        vec_bytes_free(&rec.said[i]);
    json_decref(frames);
    json_decref(index);
}

int main(void)
{
    struct CMUnitTest tests[TABLE_LEN(conversations)];

    for (size_t i = 0; i < TABLE_LEN(conversations); i++) {
        const struct conversation *c = &conversations[i];

        tests[i] = (struct CMUnitTest){ .name = c->channel != NULL ? c->channel : c->file,
                                        .test_func = replay,
                                        .initial_state = (void *)(uintptr_t)c };
    }
    return cmocka_run_group_tests_name("sessions_replay", tests, NULL, NULL);
}
