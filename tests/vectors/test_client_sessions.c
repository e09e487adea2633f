/*
 * The recorded conversations of sessions/ from the subscriber's end: our client does what the recorded one did, with
 * its clock, nonces and identifiers, and says the same, byte for byte; but for what it compresses, which must
 * be the same once decompressed. Every file is replayed; of none_two_broadcasters.json the three websocket
 * connections, one after another: what else it shows is between broadcasters.
 */
#include "client_fixture.h"

#include "compressor.h"
#include "scripted_broadcaster.h"
#include "stateful.h"

static const struct transcript {
    const char *file;
    const char *channel; /* NULL: the file has one */
    bool waits;          /* for CONTINUE_NOTIFY after each part, which ours need not */
    bool chooses;        /* by topic what it compresses, and not by size */
} transcripts[] = {
    { .file = "none_basic_minimal.json" },
    { .file = "none_basic_expanded.json" },
    { .file = "token_basic.json" },
    { .file = "hmac_basic.json" },
    { .file = "hmac_basic_expanded.json" },
    { .file = "none_stream_notifier.json", .waits = true },
    { .file = "hmac_stream_notifier.json", .waits = true },
    { .file = "none_stream_receiver.json" },
    { .file = "hmac_stream_receiver.json" },
    { .file = "none_missed.json" },
    { .file = "hmac_missed.json" },
    { .file = "none_zstd_standard.json" },
    { .file = "none_zstd_preset.json" },
    { .file = "none_zstd_trained.json", .chooses = true },
    { .file = "none_reference_client.json" },
    { .file = "none_two_broadcasters.json", .channel = "ws: subscriber 1 at broadcaster 1" },
    { .file = "none_two_broadcasters.json", .channel = "ws: subscriber 2 at broadcaster 2" },
    { .file = "none_two_broadcasters.json", .channel = "ws: notifier at broadcaster 1" },
};

/* What the recorded subscriber drew, in its order. */
enum { MAX_DRAWN = 1024 };

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
        if (m.type == LONELY_S2B_NOTIFY_STREAM && m.as.stream.part_id == 0)
            add_drawn(m.as.stream.identifier, NULL);
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

static void open_as_recorded(const struct transcript *t, const json_t *info, const json_t *frames)
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
        "max_expected_acks",
        t->waits ? "1" : "none",
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

static uint64_t notified[1024];
static size_t n_notified;

static void on_notified(void *arg, enum lonely_client_error err, uint64_t count)
{
    (void)arg;
    assert_int_equal(err, LONELY_CLIENT_OK);
    notified[n_notified++] = count;
}

/* ---- What a recorded notify holds ---- */

/* NOTIFY, or the first part of NOTIFY_STREAM. */
struct said {
    struct lonely_span topic, identifier, body;
    uint64_t compressor, packed_len, plain_len;
};

static struct said said_of(const struct lonely_message *m)
{
    const struct lonely_msg_notify *n = &m->as.notify;
    const struct lonely_msg_stream *s = &m->as.stream;

    if (m->type == LONELY_S2B_NOTIFY)
        return (struct said){ n->topic,      n->identifier,        m->body,
                              n->compressor, n->compressed_length, n->decompressed_length };
    return (struct said){ s->topic,      s->identifier,        m->body,
                          s->compressor, s->compressed_length, s->decompressed_length };
}

static bool is_notify(const struct lonely_message *m)
{
    return m->type == LONELY_S2B_NOTIFY ||
           (m->type == LONELY_S2B_NOTIFY_STREAM && m->as.stream.part_id == 0);
}

/* Dictionaries that the broadcaster has sent. */
static struct dictionary_sent {
    uint64_t id;
    struct vec_bytes frame;
    struct lonely_span bytes; /* in the frame */
} dictionaries_sent[8];
static size_t n_dictionaries_sent;

/* True: it has taken the frame. */
static bool note_dictionary(const struct vec_bytes *frame)
{
    struct lonely_message m;

    table_require(lonely_message_parse(LONELY_B2S, vec_span(frame), &m).err == LONELY_OK,
                  "a recorded frame");
    if (m.type != LONELY_B2S_ENABLE_ZSTD_CUSTOM)
        return false;
    table_require(n_dictionaries_sent < TABLE_LEN(dictionaries_sent), "dictionaries_sent");
    dictionaries_sent[n_dictionaries_sent++] =
        (struct dictionary_sent){ m.as.enable_zstd.identifier, *frame, m.body };
    return true;
}

static void forget_dictionaries(void)
{
    while (n_dictionaries_sent > 0)
        vec_bytes_free(&dictionaries_sent[--n_dictionaries_sent].frame);
}

static struct compressor *compressor_of(uint64_t id)
{
    struct vec_bytes preset = vec_load_file("sessions/preset_2.dict");
    struct lonely_span content = id == 2 ? vec_span(&preset) : (struct lonely_span){ 0 };
    struct compressor *c;

    for (size_t i = 0; i < n_dictionaries_sent; i++)
        if (dictionaries_sent[i].id == id)
            content = dictionaries_sent[i].bytes;
    c = compressor_create(id, content, 3);
    vec_bytes_free(&preset);
    return c;
}

/* What all of the body was before it was compressed; the caller frees it. */
static struct lonely_span plain_of(const struct said *s)
{
    uint8_t *plain = malloc(s->plain_len + 1);
    struct compressor *c;

    table_require(s->body.len == s->packed_len, "a body of one part");
    if (s->compressor == 0) {
        if (s->body.len > 0)
            memcpy(plain, s->body.ptr, s->body.len);
    } else {
        c = compressor_of(s->compressor);
        assert_int_equal(compressor_decompress(c, s->body, 0, plain, s->plain_len), DECOMPRESS_OK);
        compressor_unref(c);
    }
    return (struct lonely_span){ plain, s->plain_len };
}

/* The bodies of all parts, from frame `i` on; the caller frees them. */
static struct lonely_span all_parts(const json_t *frames, size_t i, uint64_t len)
{
    uint8_t *all = malloc(len + 1);
    size_t at = 0;

    for (; at < len; i++) {
        const json_t *frame = json_array_get(frames, i);
        struct vec_bytes bytes = vec_get_bytes(frame, "hex");

        if (strcmp(vec_str(frame, "from"), "subscriber") == 0) {
            struct lonely_message m = parse(vec_span(&bytes));

            table_require(m.body.len <= len - at, "the parts of a recorded message");
            memcpy(all + at, m.body.ptr, m.body.len);
            at += m.body.len;
        }
        vec_bytes_free(&bytes);
    }
    return (struct lonely_span){ all, len };
}

static bool plain_is_due; /* of a subscriber that chooses by topic what it compresses */

struct compressor *__real_stateful_choose(const struct stateful_link *l, uint64_t length);
struct compressor *__wrap_stateful_choose(const struct stateful_link *l, uint64_t length);
struct compressor *__wrap_stateful_choose(const struct stateful_link *l, uint64_t length)
{
    return plain_is_due ? NULL : __real_stateful_choose(l, length);
}

static void send_notify(const struct transcript *t, const json_t *frames, size_t i,
                        const struct lonely_message *m)
{
    struct said s = said_of(m);
    struct lonely_span plain;
    struct lonely_notify n;

    s.body = all_parts(frames, i, s.packed_len);
    plain = plain_of(&s);
    plain_is_due = t->chooses && s.compressor == 0;
    lonely_notify_init(&n);
    n.topic = s.topic;
    n.bytes = plain;
    assert_int_equal(lonely_client_notify_start(cf.client, &n, on_notified, NULL),
                     LONELY_CLIENT_OK);
    free((void *)(uintptr_t)plain.ptr);
    free((void *)(uintptr_t)s.body.ptr);
}

/* The next part, at frame `i` or after it, is to be as long as the recorded one; what was streamed though it is
 * short once compressed was too long as it was. */
static void limit_frames(const json_t *frames, size_t i)
{
    const json_t *frame;

    while ((frame = json_array_get(frames, i++)) != NULL) {
        struct vec_bytes bytes;
        struct lonely_message m;

        if (strcmp(vec_str(frame, "from"), "subscriber") != 0)
            continue;
        bytes = vec_get_bytes(frame, "hex");
        m = parse(vec_span(&bytes));
        if (m.type == LONELY_S2B_NOTIFY_STREAM)
            cf.client->conf.max_websocket_message_size =
                m.as.stream.compressor == 0 ? bytes.len : m.as.stream.decompressed_length;
        vec_bytes_free(&bytes);
        return;
    }
}

/* ---- Doing and saying as recorded ---- */

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
    case LONELY_S2B_NOTIFY_STREAM: /* send_notify */
    case LONELY_S2B_CONFIGURE:
    case LONELY_S2B_CONTINUE_RECEIVE:
    case LONELY_S2B_CONFIRM_RECEIVE:
        break; /* by itself */
    }
}

static void assert_same(struct lonely_span said, const struct lonely_message *recorded,
                        struct lonely_span bytes)
{
    struct lonely_message m = parse(said);
    struct said ours, theirs;
    struct lonely_span our_plain, their_plain;

    if (!is_notify(recorded) || said_of(recorded).compressor == 0) {
        assert_int_equal(said.len, bytes.len);
        assert_memory_equal(said.ptr, bytes.ptr, bytes.len);
        return;
    }
    assert_int_equal(m.type, recorded->type);
    ours = said_of(&m);
    theirs = said_of(recorded);
    assert_int_equal(ours.compressor, theirs.compressor);
    assert_true(table_span_equal(ours.topic, theirs.topic));
    assert_true(table_span_equal(ours.identifier, theirs.identifier));
    our_plain = plain_of(&ours);
    their_plain = plain_of(&theirs);
    assert_true(table_span_equal(our_plain, their_plain));
    free((void *)(uintptr_t)our_plain.ptr);
    free((void *)(uintptr_t)their_plain.ptr);
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

/* The client works until it has read what was sent. */
static void take_all(void)
{
    struct pollfd fd = { .fd = lonely_client_fd(cf.client), .events = POLLIN };

    while (poll(&fd, 1, 0) > 0)
        lonely_client_process(cf.client);
}

static void replay_frames(const struct transcript *t, struct lonely_subscription *s,
                          const json_t *frames)
{
    json_t *frame;
    size_t i;

    json_array_foreach(frames, i, frame)
    {
        struct vec_bytes bytes = vec_get_bytes(frame, "hex");

        limit_frames(frames, i);
        if (strcmp(vec_str(frame, "from"), "subscriber") == 0) {
            struct lonely_message m = parse(vec_span(&bytes));

            do_as(s, &m);
            if (is_notify(&m))
                send_notify(t, frames, i, &m);
            assert_same(sb_next_bytes(), &m, vec_span(&bytes));
        } else {
            sb_send_bytes(vec_span(&bytes));
            take_all();
            if (note_dictionary(&bytes))
                continue;
        }
        vec_bytes_free(&bytes);
    }
    sb_idle();
}

/* The frames of a file, or of one of its channels. */
static json_t *frames_of(const struct transcript *t)
{
    char path[128];
    json_t *all, *some, *frame;
    size_t i;

    snprintf(path, sizeof(path), "sessions/%s", t->file);
    all = vec_load_json(path);
    if (t->channel == NULL)
        return all;
    some = json_array();
    json_array_foreach(all, i, frame) if (strcmp(vec_str(frame, "channel"), t->channel) == 0)
        json_array_append(some, frame);
    json_decref(all);
    table_require(json_array_size(some) > 0, "a recorded channel");
    return some;
}

static void replay(void **state)
{
    const struct transcript *t = *state;
    json_t *index = vec_load_json("sessions/index.json"), *frames = frames_of(t);
    struct lonely_subscription *s;

    note_drawn(frames, strncmp(t->file, "none", 4) != 0);
    n_notified = 0;
    plain_is_due = false;
    sb_listen();
    open_as_recorded(t, vec_get(index, t->file), frames);
    assert_int_equal(lonely_subscription_create(cf.client, NULL, &s), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscription_enter(s, 0), LONELY_CLIENT_OK);
    sb_accept();
    replay_frames(t, s, frames);
    check_results(s, frames);
    lonely_subscription_destroy(s);
    sb_hang_up();
    cf_close();
    sb_close();
    unlink(dictionary + 4);
    forget_drawn();
    forget_dictionaries();
    json_decref(frames);
    json_decref(index);
}

/* Each recording there is, and each connection in it. */
static void all_are_replayed(void **state)
{
    json_t *index = vec_load_json("sessions/index.json"), *info;
    const char *file;

    (void)state;
    json_object_foreach(index, file, info)
    {
        size_t found = 0;

        for (size_t i = 0; i < TABLE_LEN(transcripts); i++)
            found += strcmp(transcripts[i].file, file) == 0;
        if (found == 0)
            fail_msg("%s is not replayed", file);
    }
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
    open_as_recorded(&(struct transcript){ .file = "hmac_basic.json" },
                     vec_get(index, "hmac_basic.json"), frames);
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

int main(void)
{
    struct CMUnitTest tests[TABLE_LEN(transcripts) + 2];
    size_t n = 0;

    for (; n < TABLE_LEN(transcripts); n++)
        tests[n] = (struct CMUnitTest){
            .name = transcripts[n].channel != NULL ? transcripts[n].channel : transcripts[n].file,
            .test_func = replay,
            .initial_state = (void *)(uintptr_t)&transcripts[n],
        };
    tests[n++] = (struct CMUnitTest){ .name = "all are replayed", .test_func = all_are_replayed };
    tests[n++] = (struct CMUnitTest){ .name = "wrong clock", .test_func = wrong_clock };
    return cmocka_run_group_tests_name("client_sessions", tests, NULL, NULL);
}
