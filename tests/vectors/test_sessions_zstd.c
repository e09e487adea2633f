/*
 * The recorded conversations of sessions/ that are compressed, held against our broadcaster's session. What
 * Zstandard makes is another release's, and the dictionaries that are trained are ours: so frames are equal
 * but for compressed bodies, which decompress to the same, and what the subscriber compressed with a trained
 * dictionary is compressed anew with ours. When a training ends is chance: frames that announce dictionaries
 * are in order among themselves, and so are all others.
 */
#include "session_fixture.h"
#include "vectors.h"

#include <openssl/sha.h>

enum { MAX_COMPRESSORS = 8, MAX_PLAIN = 65536 };

static const struct conversation {
    const char *file;
    uint64_t max_frame; /* of what the broadcaster sends; 0: as usual */
} conversations[] = {
    { "none_zstd_standard.json", 0 },
    { "none_zstd_preset.json", 0 },
    { "none_zstd_trained.json", 0 },
    { "none_reference_client.json", 4000 },
};

/* The compressors of one side, as its frames announced them. */
struct announced {
    struct compressor *list[MAX_COMPRESSORS];
    size_t count;
};

static struct recording {
    struct vec_bytes preset;
    struct announced theirs, ours;
} rec;

static bool is_training(const struct lonely_message *m)
{
    return m->type == LONELY_B2S_ENABLE_ZSTD_CUSTOM || m->type == LONELY_B2S_DISABLE_ZSTD_CUSTOM;
}

static struct lonely_message parse(enum lonely_direction direction, struct lonely_span frame)
{
    struct lonely_message m;

    table_require(lonely_message_parse(direction, frame, &m).err == LONELY_OK, "a frame");
    return m;
}

/* ---- Compressors ---- */

static void learn(struct announced *a, const struct lonely_message *m)
{
    const struct lonely_msg_enable_zstd *e = &m->as.enable_zstd;
    struct lonely_span dictionary = m->body;

    if (m->type != LONELY_B2S_ENABLE_ZSTD_PRESET && m->type != LONELY_B2S_ENABLE_ZSTD_CUSTOM)
        return;
    if (e->identifier == 2)
        dictionary = vec_span(&rec.preset);
    table_require(a->count < MAX_COMPRESSORS, "MAX_COMPRESSORS");
    a->list[a->count] = compressor_create(e->identifier, dictionary, e->compression_level);
    table_require(a->list[a->count++] != NULL, "a dictionary");
}

static struct compressor *find(const struct announced *a, uint64_t id)
{
    size_t i = 0;

    while (i < a->count && compressor_id(a->list[i]) != id)
        i++;
    table_require(i < a->count, "a compressor that was announced");
    return a->list[i];
}

static void forget(struct announced *a)
{
    for (size_t i = 0; i < a->count; i++)
        compressor_unref(a->list[i]);
    a->count = 0;
}

static struct lonely_span unpack(const struct announced *a, uint64_t id, struct lonely_span packed,
                                 uint64_t size)
{
    static uint8_t plain[MAX_PLAIN];

    table_require(size <= sizeof(plain), "MAX_PLAIN");
    if (id == 0)
        return packed;
    assert_int_equal(compressor_decompress(find(a, id), packed, 8 << 20, plain, (size_t)size),
                     DECOMPRESS_OK);
    return (struct lonely_span){ plain, (size_t)size };
}

/* ---- What we say ---- */

static void same_bytes(struct lonely_span a, struct lonely_span b)
{
    assert_int_equal(a.len, b.len);
    if (a.len > 0)
        assert_memory_equal(a.ptr, b.ptr, a.len);
}

static void same_messages(const struct lonely_msg_stream *a, struct lonely_span a_body,
                          const struct lonely_msg_stream *b, struct lonely_span b_body)
{
    uint8_t *copy = mem_alloc(MAX_PLAIN);
    struct lonely_span plain = unpack(&rec.ours, a->compressor, a_body, a->decompressed_length);

    same_bytes(a->identifier, b->identifier);
    same_bytes(a->topic, b->topic);
    assert_int_equal(a->part_id, b->part_id);
    assert_int_equal(a->compressor, b->compressor);
    assert_int_equal(a->decompressed_length, b->decompressed_length);
    memcpy(copy, plain.ptr, plain.len);
    same_bytes((struct lonely_span){ copy, plain.len },
               unpack(&rec.theirs, b->compressor, b_body, b->decompressed_length));
    mem_free(copy);
}

static void same_enables(const struct lonely_msg_enable_zstd *a,
                         const struct lonely_msg_enable_zstd *b)
{
    assert_int_equal(a->identifier, b->identifier);
    assert_int_equal(a->compression_level, b->compression_level);
    assert_int_equal(a->min_size, b->min_size);
    assert_true(a->max_size == b->max_size);
}

/* Our next frame of the same kind as the recorded one must say the same. */
static void hear(const struct lonely_message *theirs, size_t *at)
{
    struct lonely_message ours;

    do {
        assert_true(*at < fx.frame_count);
        ours = parse(LONELY_B2S, (struct lonely_span){ fx.frames[*at].bytes, fx.frames[*at].len });
        ++*at;
    } while (is_training(&ours) != is_training(theirs));
    assert_int_equal(ours.type, theirs->type);
    switch (ours.type) {
    case LONELY_B2S_RECEIVE_STREAM:
        same_messages(&ours.as.stream, ours.body, &theirs->as.stream, theirs->body);
        break;
    case LONELY_B2S_ENABLE_ZSTD_PRESET:
    case LONELY_B2S_ENABLE_ZSTD_CUSTOM:
        same_enables(&ours.as.enable_zstd, &theirs->as.enable_zstd);
        learn(&rec.ours, &ours);
        break;
    case LONELY_B2S_DISABLE_ZSTD_CUSTOM:
        assert_int_equal(ours.as.disable_zstd.identifier, theirs->as.disable_zstd.identifier);
        break;
    case LONELY_B2S_CONFIRM_NOTIFY:
        same_bytes(ours.as.confirm_notify.identifier, theirs->as.confirm_notify.identifier);
        assert_int_equal(ours.as.confirm_notify.subscribers, theirs->as.confirm_notify.subscribers);
        break;
    default:
        break;
    }
}

/* ---- What others did ---- */

/* The body that begins in the frame `i`, of all its parts. */
static struct lonely_span gather(const json_t *frames, size_t i, uint64_t size)
{
    static uint8_t whole[MAX_PLAIN];
    size_t len = 0;

    for (; len < size; i++) {
        const json_t *frame = json_array_get(frames, i);
        struct vec_bytes bytes = vec_get_bytes(frame, "hex");
        struct lonely_message m;

        if (strcmp(vec_str(frame, "from"), "broadcaster") == 0) {
            m = parse(LONELY_B2S, vec_span(&bytes));
            table_require(m.type == LONELY_B2S_RECEIVE_STREAM && m.body.len <= MAX_PLAIN - len,
                          "a part of a message");
            memcpy(whole + len, m.body.ptr, m.body.len);
            len += m.body.len;
        }
        vec_bytes_free(&bytes);
    }
    return (struct lonely_span){ whole, len };
}

/* The hub has the messages: those that the recording says were received reach the session, too. */
static void deliver(const struct lonely_message *theirs, const json_t *frames, size_t i)
{
    const struct lonely_msg_stream *m = &theirs->as.stream;
    struct lonely_span plain =
        unpack(&rec.theirs, m->compressor, gather(frames, i, m->compressed_length),
               m->decompressed_length);
    uint8_t sha512[LONELY_SHA512_BYTES];
    struct body *body;

    SHA512(plain.ptr, plain.len, sha512);
    body = body_create(fx.b.bodies, plain, sha512);
    assert_true(fx_deliver(m->topic, body, (const char *)m->identifier.ptr));
    body_unref(body);
    fx_run_pool();
}

static void answer(const struct lonely_message *theirs, const json_t *frames, size_t i)
{
    if (theirs->type == LONELY_B2S_RECEIVE_STREAM && theirs->as.stream.part_id == 0)
        deliver(theirs, frames, i);
    if (theirs->type != LONELY_B2S_CONFIRM_NOTIFY)
        return;
    assert_true(fx.notify_done < fx.notify_count);
    fx_notified(fx.notify_done, HUB_OK, (uint32_t)theirs->as.confirm_notify.subscribers);
    fx_run_pool();
}

/* ---- What the subscriber said ---- */

static void say(struct lonely_span frame)
{
    struct lonely_message m = parse(LONELY_S2B, frame);
    struct lonely_msg_notify *n = &m.as.notify;
    static uint8_t packed[MAX_PLAIN];
    uint8_t sha512[LONELY_SHA512_BYTES];
    struct lonely_span plain;

    if (m.type != LONELY_S2B_NOTIFY || n->compressor < COMPRESSOR_CUSTOM_MIN) {
        fx_feed(frame.ptr, frame.len);
    } else {
        plain = unpack(&rec.theirs, n->compressor, m.body, n->decompressed_length);
        m.body.ptr = packed;
        m.body.len =
            compressor_compress(find(&rec.ours, n->compressor), plain, packed, sizeof(packed));
        SHA512(packed, m.body.len, sha512);
        n->compressed_length = m.body.len;
        n->compressed_sha512.ptr = sha512;
        fx_send(m);
    }
    fx_run_pool();
}

/* ---- Replaying ---- */

static void save(const char *path, struct lonely_span bytes)
{
    FILE *file = fopen(path, "w");

    table_require(file != NULL && fwrite(bytes.ptr, 1, bytes.len, file) == bytes.len, path);
    fclose(file);
}

static void open_as_recorded(const json_t *info, uint64_t max_frame)
{
    char path[80], option[128];
    struct conf_error error;

    fx_init();
    rec.preset = (struct vec_bytes){ 0 };
    if (vec_has(info, "dictionary_file")) {
        snprintf(path, sizeof(path), "sessions/%s", vec_str(info, "dictionary_file"));
        rec.preset = vec_load_file(path);
        snprintf(path, sizeof(path), "%s/dictionary", fx.folder);
        save(path, vec_span(&rec.preset));
        snprintf(option, sizeof(option), "compression.dictionary=2 5 %s", path);
        table_require(conf_set(&fx.conf, option, &error), error.text);
    }
    if (vec_has(info, "training_low_watermark")) {
        fx.conf.compression.compression_training_low_watermark =
            vec_u64(info, "training_low_watermark");
        fx.conf.compression.compression_training_high_watermark =
            vec_u64(info, "training_high_watermark");
        fx.conf.compression.compression_retrain_interval_seconds = 0;
    }
    if (max_frame > 0)
        fx.conf.websocket.outgoing_max_ws_message_size = max_frame;
    fx_compress();
    if (rec.preset.len > 0)
        unlink(path);
    fx_open(NULL, TRANSPORT_WEBSOCKET, false);
}

/* From `at` on we said nothing but what comes of a training. */
static void nothing_else(size_t at)
{
    for (; at < fx.frame_count; at++) {
        struct lonely_message m =
            parse(LONELY_B2S, (struct lonely_span){ fx.frames[at].bytes, fx.frames[at].len });

        assert_true(is_training(&m));
    }
}

static void replay(void **state)
{
    const struct conversation *c = *state;
    char path[128];
    json_t *index = vec_load_json("sessions/index.json"), *frames, *frame;
    size_t i, at[2] = { 0, 0 };

    snprintf(path, sizeof(path), "sessions/%s", c->file);
    frames = vec_load_json(path);
    open_as_recorded(vec_get(index, c->file), c->max_frame);
    json_array_foreach(frames, i, frame)
    {
        struct vec_bytes bytes = vec_get_bytes(frame, "hex");
        struct lonely_message theirs;

        if (strcmp(vec_str(frame, "from"), "subscriber") == 0) {
            say(vec_span(&bytes));
        } else {
            theirs = parse(LONELY_B2S, vec_span(&bytes));
            learn(&rec.theirs, &theirs);
            answer(&theirs, frames, i);
            hear(&theirs, &at[is_training(&theirs)]);
        }
        assert_false(fx.t.closed);
        vec_bytes_free(&bytes);
    }
    nothing_else(at[false]);
    fx_fini();
    forget(&rec.ours);
    forget(&rec.theirs);
    vec_bytes_free(&rec.preset);
    json_decref(frames);
    json_decref(index);
}

int main(void)
{
    struct CMUnitTest tests[TABLE_LEN(conversations)];

    for (size_t i = 0; i < TABLE_LEN(conversations); i++)
        tests[i] = (struct CMUnitTest){ .name = conversations[i].file,
                                        .test_func = replay,
                                        .initial_state = (void *)(uintptr_t)&conversations[i] };
    return cmocka_run_group_tests_name("sessions_zstd", tests, NULL, NULL);
}
