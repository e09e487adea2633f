/*
 * The recorded conversations of sessions/ from the subscriber's end: our client does what the recorded one did, with
 * its clock, nonces and identifiers, and says the same, byte for byte; but for what it compresses, which must
 * be the same once decompressed.
 */
#include "client_fixture.h"

#include "compressor.h"
#include "scripted_broadcaster.h"

/* What the recorded subscriber drew, in its order. */
enum { MAX_DRAWN = 256 };

static struct drawn {
    uint8_t bytes[LONELY_NONCE_BYTES];
    size_t len;
    struct vec_bytes frame; /* in which it is a signature's nonce; ptr NULL: in none */
} drawn[MAX_DRAWN];
static size_t n_drawn, next_drawn;

void __wrap_client_random(struct lonely_client *c, uint8_t *to, size_t len);
void __wrap_client_random(struct lonely_client *c, uint8_t *to, size_t len)
{
    const struct drawn *d = &drawn[next_drawn];

    if (next_drawn == n_drawn) { /* the recording is over */
        __real_client_random(c, to, len);
        return;
    }
    next_drawn++;
    assert_int_equal(d->len, len);
    memcpy(to, d->bytes, len);
    if (d->frame.ptr != NULL) {
        uint32_t nonce;

        cf_expect_hmac(vec_span(&d->frame));
        nonce = htonl(atomic_load(&cf.nonce));
        memcpy(to, &nonce, len);
    }
}

static struct lonely_message parse(struct lonely_span bytes)
{
    struct lonely_message m;

    table_require(lonely_message_parse(LONELY_S2B, bytes, &m).err == LONELY_OK, "a recorded frame");
    return m;
}

static void add_drawn(struct lonely_span bytes, const struct vec_bytes *frame)
{
    struct drawn *d = &drawn[n_drawn++];

    table_require(n_drawn <= MAX_DRAWN && bytes.len <= sizeof(d->bytes), "MAX_DRAWN");
    memcpy(d->bytes, bytes.ptr, bytes.len);
    d->len = bytes.len;
    d->frame = frame != NULL ? *frame : (struct vec_bytes){ NULL, 0 };
}

/* A frame that is signed draws a nonce. */
static void note_drawn(const json_t *frames, bool signs)
{
    static const uint8_t zero[4];
    json_t *frame;
    size_t i;

    n_drawn = next_drawn = 0;
    json_array_foreach(frames, i, frame)
    {
        struct vec_bytes bytes = vec_get_bytes(frame, "hex");
        struct lonely_message m;

        if (strcmp(vec_str(frame, "from"), "subscriber") != 0) {
            vec_bytes_free(&bytes);
            continue;
        }
        m = parse(vec_span(&bytes));
        if (m.type == LONELY_S2B_CONFIGURE)
            add_drawn(m.as.configure.subscriber_nonce, NULL);
        if (m.type == LONELY_S2B_NOTIFY)
            add_drawn(m.as.notify.identifier, NULL);
        if (signs)
            add_drawn((struct lonely_span){ zero, sizeof(zero) }, &bytes); /* freed with it */
        else
            vec_bytes_free(&bytes);
    }
}

static void forget_drawn(void)
{
    for (size_t i = 0; i < n_drawn; i++)
        if (drawn[i].frame.ptr != NULL)
            vec_bytes_free(&drawn[i].frame);
}

/* ---- The client as it was recorded ---- */

static char dictionary[64];

static void write_dictionary(void)
{
    struct vec_bytes bytes = vec_load_file("sessions/preset_2.dict");
    int fd;

    strcpy(dictionary, "2 5 /tmp/lonely-dictionary-XXXXXX");
    fd = mkstemp(dictionary + 4);
    table_require(fd >= 0 && write(fd, bytes.ptr, bytes.len) == (ssize_t)bytes.len, "a dictionary");
    close(fd);
    vec_bytes_free(&bytes);
}

static void open_as_recorded(const json_t *info, const json_t *frames)
{
    struct vec_bytes first = vec_get_bytes(json_array_get(frames, 0), "hex");
    struct lonely_message m = parse(vec_span(&first));
    bool presets = m.as.configure.initial_dict > 1;
    const char *options[] = {
        "io",
        "caller",
        "broadcaster",
        sb.url,
        "websocket_minimal_headers",
        m.minimal ? "yes" : "no",
        "allow_compression",
        m.as.configure.enable_zstd ? "yes" : "no",
        "allow_training_compression",
        m.as.configure.enable_training ? "yes" : "no",
        "check_confirmations",
        "yes",
        presets ? "dictionary" : NULL,
        dictionary,
        "initial_compression_dict_id",
        "2",
        NULL,
    };

    write_dictionary();
    cf_open(vec_get(info, "auth"), (double)vec_u64(info, "recorded_at"), options);
    cf.client->clock = &cf_clock;
    sb.client = cf.client;
    vec_bytes_free(&first);
}

static uint64_t notified[64];
static size_t n_notified;

static void on_notified(void *arg, enum lonely_client_error err, uint64_t count)
{
    (void)arg;
    assert_int_equal(err, LONELY_CLIENT_OK);
    notified[n_notified++] = count;
}

/* What it held before it was compressed, as the client that recorded it; the caller frees it. */
static struct lonely_span plain_of(const struct lonely_message *m)
{
    size_t len = (size_t)m->as.notify.decompressed_length;
    uint8_t *plain = malloc(len + 1);
    struct vec_bytes preset = { NULL, 0 };
    struct compressor *c;

    if (m->as.notify.compressor == 0) {
        if (len > 0)
            memcpy(plain, m->body.ptr, len);
        return (struct lonely_span){ plain, len };
    }
    if (m->as.notify.compressor == 2)
        preset = vec_load_file("sessions/preset_2.dict");
    c = compressor_create(m->as.notify.compressor, vec_span(&preset), 3);
    assert_int_equal(compressor_decompress(c, m->body, 0, plain, len), DECOMPRESS_OK);
    compressor_unref(c);
    if (preset.ptr != NULL)
        vec_bytes_free(&preset);
    return (struct lonely_span){ plain, len };
}

static void send_notify(const struct lonely_message *m)
{
    struct lonely_notify n;
    struct lonely_span plain = plain_of(m);

    lonely_notify_init(&n);
    n.topic = m->as.notify.topic;
    n.bytes = plain;
    assert_int_equal(lonely_client_notify_start(cf.client, &n, on_notified, NULL),
                     LONELY_CLIENT_OK);
    free((void *)(uintptr_t)plain.ptr);
}

static void do_as(struct lonely_subscription *s, const struct lonely_message *m)
{
    switch ((enum lonely_s2b)m->type) {
    case LONELY_S2B_SUBSCRIBE_EXACT:
        assert_int_equal(lonely_subscription_add_exact(s, m->as.subscription.topic, 0), 0);
        break;
    case LONELY_S2B_SUBSCRIBE_GLOB:
        assert_int_equal(lonely_subscription_add_glob(s, m->as.subscription.topic, 0), 0);
        break;
    case LONELY_S2B_UNSUBSCRIBE_EXACT:
        assert_int_equal(lonely_subscription_remove_exact(s, m->as.subscription.topic, 0), 0);
        break;
    case LONELY_S2B_UNSUBSCRIBE_GLOB:
        assert_int_equal(lonely_subscription_remove_glob(s, m->as.subscription.topic, 0), 0);
        break;
    case LONELY_S2B_NOTIFY:
        send_notify(m);
        break;
    case LONELY_S2B_CONFIGURE:
    case LONELY_S2B_NOTIFY_STREAM:
    case LONELY_S2B_CONTINUE_RECEIVE:
    case LONELY_S2B_CONFIRM_RECEIVE:
        break; /* by itself */
    }
}

static void assert_same(struct lonely_span said, const struct lonely_message *recorded,
                        struct lonely_span bytes)
{
    struct lonely_message m = parse(said);
    struct lonely_span ours, theirs;

    if (recorded->type != LONELY_S2B_NOTIFY || recorded->as.notify.compressor == 0) {
        assert_int_equal(said.len, bytes.len);
        assert_memory_equal(said.ptr, bytes.ptr, bytes.len);
        return;
    }
    assert_int_equal(m.as.notify.compressor, recorded->as.notify.compressor);
    ours = plain_of(&m);
    theirs = plain_of(recorded);
    assert_true(table_span_equal(ours, theirs));
    free((void *)(uintptr_t)ours.ptr);
    free((void *)(uintptr_t)theirs.ptr);
}

/* ---- Replaying ---- */

/* What the frames of the broadcaster should have led to. */
static void check_results(struct lonely_subscription *s, const json_t *frames)
{
    struct lonely_delivery *d;
    size_t i, messages = 0, confirmed = 0;
    json_t *frame;

    json_array_foreach(frames, i, frame)
    {
        struct vec_bytes bytes = vec_get_bytes(frame, "hex");
        struct lonely_message m;

        if (strcmp(vec_str(frame, "from"), "broadcaster") == 0) {
            table_require(lonely_message_parse(LONELY_B2S, vec_span(&bytes), &m).err == LONELY_OK,
                          "a recorded frame");
            messages += m.type == LONELY_B2S_RECEIVE_STREAM && m.as.stream.part_id == 0;
            if (m.type == LONELY_B2S_CONFIRM_NOTIFY)
                assert_int_equal(notified[confirmed++], m.as.confirm_notify.subscribers);
        }
        vec_bytes_free(&bytes);
    }
    assert_int_equal(n_notified, confirmed);
    for (i = 0; i < messages; i++) {
        assert_int_equal(lonely_subscription_next(s, 0, &d), LONELY_CLIENT_OK);
        lonely_delivery_release(d);
    }
    assert_int_equal(lonely_subscription_next(s, 0, &d), LONELY_CLIENT_TIMED_OUT);
    assert_int_equal(next_drawn, n_drawn);
}

static void replay_frames(struct lonely_subscription *s, const json_t *frames)
{
    json_t *frame;
    size_t i;

    json_array_foreach(frames, i, frame)
    {
        struct vec_bytes bytes = vec_get_bytes(frame, "hex");

        if (strcmp(vec_str(frame, "from"), "subscriber") == 0) {
            struct lonely_message m = parse(vec_span(&bytes));

            do_as(s, &m);
            assert_same(sb_next_bytes(), &m, vec_span(&bytes));
        } else {
            sb_send_bytes(vec_span(&bytes));
            sb_work(lonely_client_fd(cf.client), 0);
        }
        vec_bytes_free(&bytes);
    }
    sb_idle();
}

static void replay(void **state)
{
    const char *file = *state;
    char path[128];
    json_t *index = vec_load_json("sessions/index.json"), *frames;
    struct lonely_subscription *s;

    snprintf(path, sizeof(path), "sessions/%s", file);
    frames = vec_load_json(path);
    note_drawn(frames, strncmp(file, "none", 4) != 0);
    n_notified = 0;
    sb_listen();
    open_as_recorded(vec_get(index, file), frames);
    assert_int_equal(lonely_subscription_create(cf.client, NULL, &s), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscription_enter(s, 0), LONELY_CLIENT_OK);
    sb_accept();
    replay_frames(s, frames);
    check_results(s, frames);
    lonely_subscription_destroy(s);
    sb_hang_up();
    cf_close();
    sb_close();
    unlink(dictionary + 4);
    forget_drawn();
    json_decref(frames);
    json_decref(index);
}

/* Whose clock is two minutes off believes nobody, and says what is wrong. */
static void wrong_clock(void **state)
{
    json_t *index = vec_load_json("sessions/index.json");
    json_t *frames = vec_load_json("sessions/hmac_basic.json");
    struct vec_bytes answer = vec_get_bytes(json_array_get(frames, 1), "hex");
    struct lonely_client_why why;

    (void)state;
    note_drawn(frames, true);
    sb_listen();
    open_as_recorded(vec_get(index, "hmac_basic.json"), frames);
    sb_accept();
    sb_next(LONELY_S2B_CONFIGURE);
    next_drawn = n_drawn; /* the recording is over */
    atomic_store(&cf.slow_ns, 121000000000);
    sb_send_bytes(vec_span(&answer));
    sb_expect_end();
    assert_true(sb_work(sb.listener, SB_PATIENCE_MS)); /* it tries again */
    assert_int_equal(lonely_client_last_error(cf.client, &why), LONELY_CLIENT_FORBIDDEN);
    assert_non_null(strstr(why.text, "authorization"));
    cf_close();
    sb_close();
    atomic_store(&cf.slow_ns, 0);
    unlink(dictionary + 4);
    forget_drawn();
    vec_bytes_free(&answer);
    json_decref(frames);
    json_decref(index);
}

static const char *const files[] = {
    "none_basic_minimal.json",   "none_basic_expanded.json", "token_basic.json",
    "hmac_basic.json",           "hmac_basic_expanded.json", "none_stream_receiver.json",
    "hmac_stream_receiver.json", "none_missed.json",         "hmac_missed.json",
    "none_zstd_standard.json",   "none_zstd_preset.json",
};

int main(void)
{
    struct CMUnitTest tests[TABLE_LEN(files) + 1];

    for (size_t i = 0; i < TABLE_LEN(files); i++)
        tests[i] = (struct CMUnitTest){ .name = files[i],
                                        .test_func = replay,
                                        .initial_state = (void *)(uintptr_t)files[i] };
    tests[TABLE_LEN(files)] =
        (struct CMUnitTest){ .name = "wrong clock", .test_func = wrong_clock };
    return cmocka_run_group_tests_name("client_sessions", tests, NULL, NULL);
}
