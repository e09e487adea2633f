/*
 * Tests of compression in a session: what is announced, what comes compressed and is refused, what goes out
 * and in which form, dictionaries of its own, and the ends of all that.
 */
#include "session_fixture.h"

#include <zstd.h>

#include <lonely/auth.h>
#include <lonely/connection.h>

#include "session_peer.h"
#include "session_private.h"

#define SIGNED_TO_SUBSCRIBER                                          \
    "{\"version\": \"2\", \"to-broadcaster\": {\"type\": \"none\"}, " \
    "\"to-subscriber\": {\"type\": \"hmac\", \"secret\": \"" SECRET_SUBSCRIBER "\"}}"

enum { SHORT = 1000, LONG = 300000, MUCH = 400000 };

static uint8_t plain[MUCH], packed[MUCH];

static int setup(void **state)
{
    (void)state;
    fx_init();
    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)((i / 100) * 7 + (i % 100 < 50 ? i % 10 : 0));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fx_fini();
    return 0;
}

static void assert_ended(enum transport_code code)
{
    fx_run_pool();
    assert_true(fx.t.closed);
    assert_int_equal(fx.t.code, code);
}

static void configure(bool zstd, bool training, uint64_t initial_dict)
{
    static const uint8_t nonce[LONELY_NONCE_BYTES] = { 1 };

    fx_send((struct lonely_message){
        .type = LONELY_S2B_CONFIGURE,
        .as.configure = { .subscriber_nonce = { nonce, sizeof(nonce) },
                          .enable_zstd = zstd,
                          .enable_training = training,
                          .initial_dict = initial_dict },
    });
    fx_next(LONELY_B2S_CONFIRM_CONFIGURE);
}

/* A session with compressor 1, and nothing put that was not looked at. */
static void open_plain(bool training)
{
    fx_compress();
    fx_open(NULL, TRANSPORT_WEBSOCKET, false);
    configure(true, training, 0);
    assert_int_equal(fx_next(LONELY_B2S_ENABLE_ZSTD_PRESET).as.enable_zstd.identifier, 1);
    fx_no_more();
}

/* ---- What is announced ---- */

static void add_preset(void)
{
    char path[80], option[128];
    struct conf_error error;
    FILE *file;

    snprintf(path, sizeof(path), "%s/dictionary", fx.folder);
    file = fopen(path, "w");
    table_require(file != NULL && fwrite(plain, 1, 3000, file) == 3000, path);
    fclose(file);
    snprintf(option, sizeof(option), "compression.dictionary=2 5 %s", path);
    table_require(conf_set(&fx.conf, option, &error), error.text);
    fx_compress();
    unlink(path);
}

static void what_is_announced(void **state)
{
    static const struct {
        bool allowed, zstd;
        uint64_t initial_dict;
        unsigned enables;
    } rows[] = {
        { true, true, 0, 1 },  { true, true, 1, 1 },     { true, true, 2, 2 },
        { true, true, 3, 1 },  { true, true, 65535, 1 }, /* B8 */
        { true, false, 2, 0 }, { false, true, 2, 0 },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(rows); i++) {
        if (i > 0)
            fx_init();
        if (rows[i].allowed)
            add_preset();
        fx_open(NULL, TRANSPORT_WEBSOCKET, false);
        configure(rows[i].zstd, true, rows[i].initial_dict);
        for (unsigned j = 0; j < rows[i].enables; j++) {
            struct lonely_message m = fx_next(LONELY_B2S_ENABLE_ZSTD_PRESET);

            assert_int_equal(m.as.enable_zstd.identifier, j + 1);
            assert_int_equal(m.as.enable_zstd.compression_level, j == 0 ? 3 : 5);
            assert_int_equal(m.as.enable_zstd.min_size, j == 0 ? 16384 : 32);
            assert_true(m.as.enable_zstd.max_size == UINT64_MAX);
        }
        fx_no_more();
        if (i + 1 < TABLE_LEN(rows))
            fx_fini();
    }
}

/* ---- What comes ---- */

/* How a compressed message comes: in one frame, or in two parts. */
static void send_packed(uint64_t compressor, struct lonely_span body, uint64_t size, bool stream)
{
    struct lonely_message m = peer_notify("n", "t", body);
    size_t half = body.len / 2;

    m.as.notify.compressor = compressor;
    m.as.notify.decompressed_length = size;
    if (!stream) {
        fx_send(m);
        return;
    }
    m.type = LONELY_S2B_NOTIFY_STREAM;
    m.body.len = half;
    m.as.stream = (struct lonely_msg_stream){
        .identifier = peer_span("n"),
        .topic = LIT_INIT("t"),
        .compressor = compressor,
        .compressed_length = body.len,
        .decompressed_length = size,
        .compressed_sha512 = { peer_sha512, sizeof(peer_sha512) },
    };
    fx_send(m);
    if (fx.t.closed || body.len == 0)
        return;
    m.as.stream = (struct lonely_msg_stream){ .identifier = peer_span("n"), .part_id = 1 };
    m.body = (struct lonely_span){ body.ptr + half, body.len - half };
    fx_send(m);
}

/* One frame of `len` bytes of `plain`. */
static size_t pack(size_t len)
{
    size_t n = ZSTD_compress(packed, sizeof(packed), plain, len, 3);

    table_require(!ZSTD_isError(n), "ZSTD_compress");
    return n;
}

static size_t pack_with_window(size_t len, int log)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    ZSTD_outBuffer out = { packed, sizeof(packed), 0 };
    ZSTD_inBuffer in = { plain, len, 0 };

    ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, log);
    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
    ZSTD_compressStream2(c, &out, &in, ZSTD_e_flush); /* the size is not known yet */
    ZSTD_compressStream2(c, &out, &in, ZSTD_e_end);
    ZSTD_freeCCtx(c);
    return out.pos;
}

static size_t good(size_t len)
{
    return pack(len);
}

static size_t two_frames(size_t len)
{
    size_t first = pack(len / 2);

    return first +
           ZSTD_compress(packed + first, sizeof(packed) - first, plain + len / 2, len - len / 2, 3);
}

static size_t trailing_garbage(size_t len)
{
    size_t n = pack(len);

    memcpy(packed + n, "rest", 4);
    return n + 4;
}

static size_t cut_short(size_t len)
{
    return pack(len) - 1;
}

static size_t garbage(size_t len)
{
    memset(packed, 'x', len / 10);
    return len / 10;
}

static size_t empty(size_t len)
{
    (void)len;
    return 0;
}

static size_t shorter(size_t len)
{
    return pack(len - 1);
}

static size_t longer(size_t len)
{
    return pack(len + 1);
}

/* Zeros: a few bytes that would be a gigabyte. */
static size_t bomb(size_t len)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    ZSTD_outBuffer out = { packed, sizeof(packed), 0 };
    uint8_t *zeros = mem_calloc(1, 1 << 20);

    (void)len;
    for (int i = 0; i < 1024; i++) {
        ZSTD_inBuffer in = { zeros, 1 << 20, 0 };

        ZSTD_compressStream2(c, &out, &in, i == 1023 ? ZSTD_e_end : ZSTD_e_continue);
    }
    ZSTD_freeCCtx(c);
    mem_free(zeros);
    return out.pos;
}

static size_t widest(size_t len)
{
    return pack_with_window(len, 23);
}

static size_t too_wide(size_t len)
{
    return pack_with_window(len, 24);
}

static size_t with_a_dictionary(size_t len)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    uint8_t other[2000];
    size_t n;

    memset(other, 'q', sizeof(other));
    memcpy(other, plain + 100, 1500);
    n = ZSTD_compress_usingDict(c, packed, sizeof(packed), plain, len, other, sizeof(other), 3);
    ZSTD_freeCCtx(c);
    return n;
}

static const struct coming {
    const char *name;
    size_t (*make)(size_t len);
    uint64_t compressor;
    enum transport_code code; /* 0: it is taken */
} comings[] = {
    { "one frame", good, 1, 0 },
    { "two frames", two_frames, 1, 0 },
    { "the widest window", widest, 1, 0 },
    { "a wider window", too_wide, 1, TRANSPORT_TOO_BIG },
    { "bytes behind the frame", trailing_garbage, 1, TRANSPORT_MALFORMED },
    { "cut short", cut_short, 1, TRANSPORT_MALFORMED },
    { "no frame", garbage, 1, TRANSPORT_MALFORMED },
    { "nothing", empty, 1, TRANSPORT_MALFORMED },
    { "shorter than announced", shorter, 1, TRANSPORT_MALFORMED },
    { "longer than announced", longer, 1, TRANSPORT_MALFORMED },
    { "a bomb", bomb, 1, TRANSPORT_MALFORMED },
    { "made with a dictionary", with_a_dictionary, 1, TRANSPORT_MALFORMED },
    { "a preset that was not asked for", good, 2, TRANSPORT_POLICY },
    { "no dictionary was trained", good, 65536, TRANSPORT_POLICY },
    { "the largest id", good, UINT64_MAX, TRANSPORT_POLICY },
};

static void check_coming(const struct coming *row, size_t len, bool stream)
{
    size_t n = row->make(len);

    open_plain(false);
    send_packed(row->compressor, (struct lonely_span){ packed, n }, len, stream);
    fx_run_pool();
    if (row->code != 0) {
        assert_ended(row->code);
        assert_int_equal(fx.notify_count, 0);
        return;
    }
    assert_int_equal(fx.notify_count, 1);
    assert_int_equal(body_size(fx.notifies[0].body), len);
    peer_hash((struct lonely_span){ plain, len }, peer_sha512);
    assert_memory_equal(body_sha512(fx.notifies[0].body), peer_sha512, sizeof(peer_sha512));
    if (stream)
        fx_next(LONELY_B2S_CONTINUE_NOTIFY);
    fx_no_more(); /* before the message was handed over */
    fx_notified(0, HUB_OK, 3);
    assert_int_equal(fx_next(LONELY_B2S_CONFIRM_NOTIFY).as.confirm_notify.subscribers, 3);
    assert_int_equal(atomic_load(&fx.metrics.compressed_messages[METRICS_IN].value), 1);
    assert_int_equal(atomic_load(&fx.metrics.compressed_bytes[METRICS_IN].value), n);
    assert_int_equal(atomic_load(&fx.metrics.uncompressed_bytes[METRICS_IN].value), len);
}

static void what_comes(void **state)
{
    static const size_t lengths[] = { SHORT, LONG };

    (void)state;
    fx_open(NULL, TRANSPORT_WEBSOCKET, false);
    for (size_t i = 0; i < TABLE_LEN(comings); i++) {
        for (size_t j = 0; j < 2 * TABLE_LEN(lengths); j++) {
            print_message("# %s, %zu\n", comings[i].name, j);
            fx_fini();
            fx_init();
            check_coming(&comings[i], lengths[j / 2], j % 2 != 0);
        }
    }
}

static void without_zstd_no_id_is_known(void **state)
{
    size_t n = good(SHORT);

    (void)state;
    fx_compress();
    fx_open(NULL, TRANSPORT_WEBSOCKET, false);
    configure(false, true, 2);
    send_packed(1, (struct lonely_span){ packed, n }, SHORT, false);
    assert_ended(TRANSPORT_POLICY);
}

static void announced_lengths_are_limited(void **state)
{
    static const uint64_t sizes[] = { LONG + 1, UINT64_MAX };
    size_t n = good(SHORT);

    (void)state;
    for (size_t i = 0; i < 2 * TABLE_LEN(sizes); i++) {
        if (i > 0)
            fx_init();
        fx.conf.limits.max_message_bytes = LONG;
        open_plain(false);
        send_packed(1, (struct lonely_span){ packed, n }, sizes[i / 2], i % 2 != 0);
        assert_ended(TRANSPORT_TOO_BIG);
        if (i + 1 < 2 * TABLE_LEN(sizes))
            fx_fini();
    }
}

/* Without a limit what was announced is only compared. */
static void an_announced_length_takes_nothing(void **state)
{
    size_t n = good(SHORT);

    (void)state;
    open_plain(false);
    send_packed(1, (struct lonely_span){ packed, n }, UINT64_MAX, false);
    assert_ended(TRANSPORT_MALFORMED);
}

static void an_empty_message_compressed(void **state)
{
    size_t n = pack(0);

    (void)state;
    open_plain(false);
    send_packed(1, (struct lonely_span){ packed, n }, 0, false);
    fx_run_pool();
    assert_int_equal(body_size(fx.notifies[0].body), 0);
}

/* While one is decompressed in the pool nothing behind it is read, so that messages stay in order. */
static void nothing_is_read_meanwhile(void **state)
{
    size_t n = good(LONG);

    (void)state;
    open_plain(false);
    send_packed(1, (struct lonely_span){ packed, n }, LONG, false);
    assert_false(fx.t.reading);
    fx_run_pool();
    assert_true(fx.t.reading);
    peer_notifies("m", "t", "next");
    assert_int_equal(fx.notify_count, 2);
}

static void the_end_while_decompressing(void **state)
{
    size_t n = good(LONG);

    (void)state;
    for (int turns = 0; turns < 6; turns++) {
        if (turns > 0)
            fx_init();
        open_plain(false);
        send_packed(1, (struct lonely_span){ packed, n }, LONG, false);
        for (int i = 0; i < turns; i++)
            uv_run(&fx.worker.loop, UV_RUN_NOWAIT);
        peer_leaves(TRANSPORT_LOST);
        fx_run_pool();
        if (turns < 5)
            fx_fini();
    }
}

static void a_full_disk(void **state)
{
    size_t n = good(LONG);

    (void)state;
    open_plain(false);
    rmdir(fx.spool); /* what is longer than its spool_size cannot be kept */
    send_packed(1, (struct lonely_span){ packed, n }, LONG, false);
    assert_ended(TRANSPORT_FAILED);
    mkdir(fx.spool, 0700);
}

/* ---- What goes out ---- */

static void keep_body(void *arg, enum body_error err, struct body *body)
{
    assert_int_equal(err, BODY_OK);
    *(struct body **)arg = body;
}

static struct body *body_of(size_t len)
{
    struct body_writer *w = body_writer_create(fx.worker.lane, len);
    struct body *body = NULL;

    body_writer_add(w, (struct lonely_span){ plain, len }, NULL, NULL);
    body_writer_finish(w, keep_body, &body);
    while (body == NULL)
        uv_run(&fx.worker.loop, UV_RUN_ONCE);
    return body;
}

static bool deliver(size_t len, const char identifier[5])
{
    struct body *body = body_of(len);
    bool taken = fx_deliver(LIT("t"), body, identifier);

    body_unref(body);
    return taken;
}

/* The next message, which is `len` bytes of `plain`, in the parts that it has. */
static void receives(struct compressor *c, size_t len, const char *identifier)
{
    struct lonely_message m = fx_next(LONELY_B2S_RECEIVE_STREAM);
    uint64_t total = m.as.stream.compressed_length;
    uint8_t *bytes = mem_alloc((size_t)total), *out = mem_alloc(len);
    size_t at = 0;

    assert_memory_equal(m.as.stream.identifier.ptr, identifier, 4);
    assert_int_equal(m.as.stream.compressor, c == NULL ? 0 : compressor_id(c));
    assert_int_equal(m.as.stream.decompressed_length, len);
    memcpy(peer_sha512, m.as.stream.compressed_sha512.ptr, sizeof(peer_sha512));
    for (;; m = fx_next(LONELY_B2S_RECEIVE_STREAM)) {
        uint8_t sha512[LONELY_SHA512_BYTES];

        if (m.body.len > 0)
            memcpy(bytes + at, m.body.ptr, m.body.len);
        at += m.body.len;
        if (at < total)
            continue;
        peer_hash((struct lonely_span){ bytes, at }, sha512);
        assert_memory_equal(sha512, peer_sha512, sizeof(sha512));
        break;
    }
    if (c == NULL)
        memcpy(out, bytes, len);
    else
        assert_int_equal(
            compressor_decompress(c, (struct lonely_span){ bytes, at }, 8 << 20, out, len),
            DECOMPRESS_OK);
    assert_memory_equal(out, plain, len);
    mem_free(bytes);
    mem_free(out);
}

static void which_messages_are_compressed(void **state)
{
    static const struct {
        uint64_t initial_dict;
        size_t len;
        uint64_t id;
    } rows[] = {
        { 0, 16383, 0 }, { 0, 16384, 1 }, { 0, LONG, 1 },  { 2, 0, 0 },
        { 2, 31, 0 },    { 2, 32, 2 },    { 2, 16384, 2 }, { 2, LONG, 2 },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(rows); i++) {
        if (i > 0)
            fx_init();
        add_preset();
        fx_open(NULL, TRANSPORT_TCP, false);
        configure(true, false, rows[i].initial_dict);
        fx.read_count = fx.frame_count;
        assert_true(deliver(rows[i].len, "abcd"));
        fx_run_pool();
        receives(rows[i].id == 0   ? NULL
                 : rows[i].id == 1 ? compression_plain(fx.b.compression)
                                   : compression_preset(fx.b.compression, 2),
                 rows[i].len, "abcd");
        fx_no_more();
        if (i + 1 < TABLE_LEN(rows))
            fx_fini();
    }
}

/* Those behind a long one wait for it. */
static void messages_stay_in_order(void **state)
{
    static const struct {
        size_t len;
        const char *identifier;
        bool compressed;
    } rows[] = { { LONG, "aaaa", true },
                 { 10, "bbbb", false },
                 { MUCH, "cccc", true },
                 { 20000, "dddd", true } };
    struct body *bodies[TABLE_LEN(rows)];
    struct compressor *c;

    (void)state;
    open_plain(false);
    c = compression_plain(fx.b.compression);
    for (size_t i = 0; i < TABLE_LEN(rows); i++)
        bodies[i] = body_of(rows[i].len);
    for (size_t i = 0; i < TABLE_LEN(rows); i++) {
        assert_true(fx_deliver(LIT("t"), bodies[i], rows[i].identifier));
        body_unref(bodies[i]);
    }
    assert_true(fx.receiver->ops->on_missed(fx.receiver, LIT("t")));
    fx_no_more();
    fx_run_pool();
    for (size_t i = 0; i < TABLE_LEN(rows); i++)
        receives(rows[i].compressed ? c : NULL, rows[i].len, rows[i].identifier);
    fx_next(LONELY_B2S_MISSED);
    fx_no_more();
}

static void compressed_messages_have_parts(void **state)
{
    (void)state;
    fx.conf.websocket.outgoing_max_ws_message_size = 700;
    fx.conf.websocket.websocket_send_max_unacknowledged = CONF_NONE;
    open_plain(false);
    assert_true(deliver(MUCH, "aaaa"));
    fx_run_pool();
    assert_true(fx.frame_count - fx.read_count > 2);
    receives(compression_plain(fx.b.compression), MUCH, "aaaa");
}

static void the_end_while_compressing(void **state)
{
    (void)state;
    for (int turns = 0; turns < 6; turns++) {
        if (turns > 0)
            fx_init();
        open_plain(false);
        assert_true(deliver(LONG, "aaaa"));
        assert_true(deliver(MUCH, "bbbb"));
        for (int i = 0; i < turns; i++)
            uv_run(&fx.worker.loop, UV_RUN_NOWAIT);
        peer_leaves(TRANSPORT_LOST);
        fx_run_pool();
        if (turns < 5)
            fx_fini();
    }
}

/* ---- Dictionaries of its own ---- */

static void small_watermarks(void)
{
    fx.conf.compression.compression_training_low_watermark = 10000;
    fx.conf.compression.compression_training_high_watermark = 20000;
    fx.conf.compression.compression_retrain_interval_seconds = 0;
}

static unsigned next_sample;

/* Sends a message like others, but not equal to them; the hub has it at once. */
static void notify_sample(void)
{
    char text[300];
    unsigned h = ++next_sample * 2654435761u;

    snprintf(text, sizeof(text),
             "{\"event\": \"purchase\", \"user\": %10u, \"host\": \"web-%03u.example.internal\", "
             "\"t\": 17%08u, \"items\": [%10u, %10u], \"currency\": \"EUR\", \"total\": %10u.00}",
             h % 100000, h % 997, h % 99999999, h >> 3, h >> 7, h % 4711);
    peer_notifies("s", "t", text);
    fx_run_pool();
    fx_notified(fx.notify_count - 1, HUB_OK, 0);
}

/* Skips answers; the next frame of that type, or none within many samples. */
static bool train_until(unsigned type, struct lonely_message *m)
{
    for (int i = 0; i < 400; i++) {
        while (fx.read_count < fx.frame_count) {
            const struct fx_frame *f = &fx.frames[fx.read_count];

            if (f->bytes[3] == type) {
                *m = fx_next(type);
                return true;
            }
            fx.read_count++;
        }
        notify_sample();
    }
    return false;
}

static struct compressor *next_dictionary(uint64_t id, int level)
{
    struct lonely_message m;
    uint8_t sha512[LONELY_SHA512_BYTES];
    struct compressor *c;

    assert_true(train_until(LONELY_B2S_ENABLE_ZSTD_CUSTOM, &m));
    assert_int_equal(m.as.enable_zstd.identifier, id);
    assert_int_equal(m.as.enable_zstd.compression_level, level);
    assert_int_equal(m.as.enable_zstd.min_size, 32);
    assert_int_equal(m.as.enable_zstd.max_size, 16384);
    peer_hash(m.body, sha512);
    assert_memory_equal(m.as.enable_zstd.sha512.ptr, sha512, sizeof(sha512));
    c = compressor_create(id, m.body, level);
    assert_non_null(c);
    return c;
}

static void notify_with(struct compressor *c, size_t len)
{
    struct lonely_span body = { packed, compressor_compress(c, (struct lonely_span){ plain, len },
                                                            packed, sizeof(packed)) };

    send_packed(compressor_id(c), body, len, false);
    fx_run_pool();
}

/* A message that goes out now is made with that. */
static void delivered_with(struct compressor *c, const char identifier[5])
{
    fx.read_count = fx.frame_count;
    assert_true(deliver(500, identifier));
    receives(c, 500, identifier);
}

static void dictionaries_follow_one_another(void **state)
{
    struct compressor *c[3];
    struct lonely_message m;
    struct list *oldest;

    (void)state;
    small_watermarks();
    open_plain(true);
    c[0] = next_dictionary(65536, 3);
    delivered_with(c[0], "aaaa");
    c[1] = next_dictionary(65537, 10);
    delivered_with(c[1], "bbbb");
    notify_with(c[0], 400); /* both are understood */
    notify_with(c[1], 600);
    assert_false(fx.t.closed);
    assert_true(train_until(LONELY_B2S_DISABLE_ZSTD_CUSTOM, &m));
    assert_int_equal(m.as.disable_zstd.identifier, 65536);
    notify_with(c[0], 400); /* was under way */
    assert_false(fx.t.closed);
    c[2] = next_dictionary(65538, 10);
    oldest = list_last(&list_entry(fx.receiver, struct session, receiver)->zstd->customs);
    session_forget_custom(
        list_entry(oldest, struct custom, node)); /* as after SESSION_RETIRED_MS */
    notify_with(c[2], 400);
    assert_false(fx.t.closed);
    assert_int_equal(atomic_load(&fx.metrics.dictionaries[METRICS_DICTIONARY_TRAINED].value), 3);
    notify_with(c[0], 400);
    assert_ended(TRANSPORT_POLICY);
    for (size_t i = 0; i < TABLE_LEN(c); i++)
        compressor_unref(c[i]);
}

/* What waits when a dictionary comes is made with it only behind its ENABLE. (doc/protocol/session.md, B1) */
static void enable_comes_first(void **state)
{
    struct compressor *c;

    (void)state;
    small_watermarks();
    fx.conf.websocket.websocket_send_max_unacknowledged = 1;
    open_plain(true);
    assert_true(deliver(500, "aaaa"));
    receives(NULL, 500, "aaaa");
    assert_true(deliver(501, "bbbb")); /* waits for the window, */
    assert_true(deliver(502, "cccc"));
    while (fx.metrics.dictionaries[METRICS_DICTIONARY_TRAINED].value == 0)
        notify_sample();
    assert_true(deliver(503, "dddd")); /* and the dictionary behind it */
    fx.read_count = fx.frame_count;
    peer_confirms("aaaa");
    receives(NULL, 501, "bbbb");
    fx_no_more();
    peer_confirms("bbbb");
    receives(NULL, 502, "cccc");
    c = next_dictionary(65536, 3);
    peer_confirms("cccc");
    receives(c, 503, "dddd");
    compressor_unref(c);
}

/* The messages that are sent count as those that come. */
static void deliveries_are_samples(void **state)
{
    (void)state;
    fx.conf.websocket.websocket_send_max_unacknowledged = CONF_NONE;
    small_watermarks();
    open_plain(true);
    for (int i = 0; i < 9; i++)
        assert_true(deliver(1000, "aaaa"));
    assert_null(fx.worker.sessions->training);
    assert_true(deliver(1000, "aaaa"));
    assert_non_null(fx.worker.sessions->training);
}

/* Equal samples make no dictionary: nothing changes for the session. */
static void a_training_that_fails(void **state)
{
    (void)state;
    small_watermarks();
    open_plain(true);
    for (int i = 0; i < 2; i++) {
        peer_notifies_bytes("n", "t", plain, 10000);
        fx_run_pool();
    }
    assert_int_equal(atomic_load(&fx.metrics.dictionaries[METRICS_DICTIONARY_FAILED].value), 2);
    fx_no_more();
    assert_false(fx.t.closed);
}

static void who_does_not_train(void **state)
{
    enum { NOT_ASKED, NOT_ALLOWED, NO_ZSTD, SMALL_FRAMES, TOO_MANY, TOO_MUCH, CASES };

    (void)state;
    for (int i = 0; i < CASES; i++) {
        if (i > 0)
            fx_init();
        small_watermarks();
        fx.conf.compression.allow_training = i != NOT_ALLOWED;
        if (i == SMALL_FRAMES)
            fx.conf.websocket.outgoing_max_ws_message_size = 70000;
        fx_compress();
        fx_open(NULL, TRANSPORT_WEBSOCKET, false);
        configure(i != NO_ZSTD, i != NOT_ASKED, 0);
        if (i == TOO_MANY)
            fx.worker.sessions->trainer_count = SESSIONS_TRAINERS_MAX;
        else if (i == TOO_MUCH)
            fx.worker.sessions->custom_bytes = fx.worker.max_collected_bytes;
        for (int j = 0; j < 60; j++)
            notify_sample();
        assert_int_equal(atomic_load(&fx.metrics.dictionaries[METRICS_DICTIONARY_TRAINED].value),
                         0);
        if (i + 1 < CASES)
            fx_fini();
    }
}

/* Nothing is held for a session before its first sample, and nothing once it has ended. */
static void what_training_holds(void **state)
{
    struct session *s;

    (void)state;
    small_watermarks();
    open_plain(true);
    s = list_entry(fx.receiver, struct session, receiver);
    peer_notifies("n", "t", "too short to be a sample");
    assert_null(s->zstd->trainer);
    assert_int_equal(fx.worker.sessions->trainer_count, 0);
    notify_sample();
    assert_non_null(s->zstd->trainer);
    assert_int_equal(fx.worker.sessions->trainer_count, 1);
    compressor_unref(next_dictionary(65536, 3));
    assert_int_equal(fx.worker.sessions->trainer_count, 1);
    assert_true(fx.worker.sessions->custom_bytes > 16384);
    compressor_unref(next_dictionary(65537, 10));
    assert_int_equal(fx.worker.sessions->trainer_count, 0); /* the samples are dropped */
    peer_leaves(TRANSPORT_LOST);
    fx_run_pool();
    assert_int_equal(fx.worker.sessions->custom_bytes, 0);
}

static void the_end_while_training(void **state)
{
    (void)state;
    small_watermarks();
    open_plain(true);
    for (int i = 0; i < 10; i++)
        peer_notifies_bytes("n", "t", plain + i, 1000);
    assert_non_null(fx.worker.sessions->training);
    peer_leaves(TRANSPORT_LOST);
    fx_run_pool();
    assert_null(fx.worker.sessions->training);
    assert_int_equal(fx.worker.sessions->trainer_count, 0);
}

/* ---- Authorization ---- */

static struct lonely_auth_ctx *auth_ctx;
static struct lonely_auth_key *auth_key;

static bool fits(struct lonely_auth_input in, struct lonely_span authorization)
{
    const struct lonely_auth_key *keys[] = { auth_key };
    struct lonely_auth_verified verified;

    return lonely_auth_verify(auth_ctx, keys, 1, &in, &authorization, fx.now_s, &verified) ==
           LONELY_AUTH_OK;
}

/* CONFIRM_NOTIFY is signed over what was in a NOTIFY, and over what was sent as a stream; ENABLE over its
 * fields and number. (doc/protocol/session.md, 3.5) */
static void what_is_signed(void **state)
{
    static const size_t lengths[] = { SHORT, LONG };
    static const uint8_t nonce[LONELY_NONCE_BYTES] = { 1 };
    char url[LONELY_CONNECTION_URL_MAX_BYTES];
    struct lonely_connection connection;
    struct lonely_message m;
    struct lonely_auth_input in;

    (void)state;
    assert_int_equal(lonely_auth_ctx_create(&auth_ctx), LONELY_OK);
    assert_int_equal(lonely_auth_key_create(LONELY_AUTH_HMAC, LIT(SECRET_SUBSCRIBER), &auth_key),
                     LONELY_OK);
    small_watermarks();
    fx_compress();
    fx_open(SIGNED_TO_SUBSCRIBER, TRANSPORT_WEBSOCKET, false);
    configure(true, true, 0);
    fx.read_count = 0;
    m = fx_next(LONELY_B2S_CONFIRM_CONFIGURE);
    lonely_connection_init(&connection, (struct lonely_span){ nonce, sizeof(nonce) },
                           m.as.confirm_configure.broadcaster_nonce);
    m = fx_next(LONELY_B2S_ENABLE_ZSTD_PRESET);
    in = (struct lonely_auth_input){
        .op = LONELY_AUTH_STATEFUL_ENABLE_ZSTD_PRESET,
        .url = { (uint8_t *)url, lonely_connection_url(&connection, 1, url) },
        .compressor = 1,
        .level = 3,
        .min_size = 16384,
        .max_size = UINT64_MAX,
    };
    assert_true(fits(in, m.as.enable_zstd.authorization));
    for (size_t i = 0; i < 2 * TABLE_LEN(lengths); i++) {
        size_t len = lengths[i / 2], n = pack(len);
        bool stream = i % 2 != 0;

        send_packed(1, (struct lonely_span){ packed, n }, len, stream);
        fx_run_pool();
        fx_notified(i, HUB_OK, 7);
        if (stream)
            fx_next(LONELY_B2S_CONTINUE_NOTIFY);
        else
            peer_hash((struct lonely_span){ plain, len }, peer_sha512);
        m = fx_next(LONELY_B2S_CONFIRM_NOTIFY);
        in = (struct lonely_auth_input){ .op = LONELY_AUTH_CONFIRM_NOTIFY,
                                         .topic = LIT("t"),
                                         .identifier = LIT("n"),
                                         .hash = { peer_sha512, sizeof(peer_sha512) },
                                         .subscribers = 7 };
        assert_true(fits(in, m.as.confirm_notify.authorization));
    }
    assert_true(train_until(LONELY_B2S_ENABLE_ZSTD_CUSTOM, &m));
    in = (struct lonely_auth_input){
        .op = LONELY_AUTH_STATEFUL_ENABLE_ZSTD_CUSTOM,
        .url = { (uint8_t *)url, lonely_connection_url(&connection, 2, url) },
        .compressor = 65536,
        .level = 3,
        .min_size = 32,
        .max_size = 16384,
        .hash = m.as.enable_zstd.sha512,
    };
    assert_true(fits(in, m.as.enable_zstd.authorization));
    lonely_auth_ctx_destroy(auth_ctx);
    lonely_auth_key_destroy(auth_key);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_announced),
        TEST(what_comes),
        TEST(without_zstd_no_id_is_known),
        TEST(announced_lengths_are_limited),
        TEST(an_announced_length_takes_nothing),
        TEST(an_empty_message_compressed),
        TEST(nothing_is_read_meanwhile),
        TEST(the_end_while_decompressing),
        TEST(a_full_disk),
        TEST(which_messages_are_compressed),
        TEST(messages_stay_in_order),
        TEST(compressed_messages_have_parts),
        TEST(the_end_while_compressing),
        TEST(dictionaries_follow_one_another),
        TEST(enable_comes_first),
        TEST(deliveries_are_samples),
        TEST(a_training_that_fails),
        TEST(who_does_not_train),
        TEST(what_training_holds),
        TEST(the_end_while_training),
        TEST(what_is_signed),
    };

    return cmocka_run_group_tests_name("session_zstd", tests, NULL, NULL);
}
