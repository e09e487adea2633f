/* auth.h beyond the vectors: limits, rotation, the window, what must be stored, hostile strings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lonely/auth.h>
#include <math.h>
#include <openssl/evp.h>
#include <pthread.h>

#include "auth_bytes.h"
#include "tables.h"

#define NOW UINT64_C(1760000000)

static const char secret_text[] =
    "AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dzj6vH4_wYNFBsiKTA3PkVMU1phaG92fYSLkpmgp661vA";
static const char other_text[] =
    "-gUQGyYxPEdSXWhzfomUn6q1wMvW4ez3Ag0YIy45RE9aZXB7hpGcp7K9yNPe6fT_ChUgKzZBTFdibXiDjpmkrw";

static uint8_t zeros[65536];
static struct lonely_auth_ctx *ctx;
static struct lonely_auth_key *none, *token, *hmac, *other;
static struct guard guard;

static struct lonely_span zero_span(size_t len)
{
    return (struct lonely_span){ zeros, len };
}

/* An input that every operation takes. */
static struct lonely_auth_input sample(enum lonely_auth_op op)
{
    return (struct lonely_auth_input){
        .op = op,
        .tracing = LIT("trace"),
        .url = LIT("http://192.0.2.0:3002/v1/receive"),
        .recovery = LIT("http://192.0.2.0:3002/v1/recover"),
        .topic = LIT("foo/bar"),
        .identifier = LIT("abcd"),
        .hash = zero_span(64),
        .nonce = zero_span(32),
        .subscribers = 1,
        .part_id = 2,
        .compressor = 3,
        .level = 4,
        .min_size = 5,
        .max_size = 6,
        .initial_dict = 7,
        .enable_zstd = true,
    };
}

static struct lonely_span sign(const struct lonely_auth_key *key,
                               const struct lonely_auth_input *in, uint8_t *out, size_t cap)
{
    size_t len;

    assert_int_equal(lonely_auth_sign(ctx, key, in, NOW, LIT("AAAAAA"), out, cap, &len), LONELY_OK);
    return (struct lonely_span){ out, len };
}

static enum lonely_auth_result verify(const struct lonely_auth_key *key,
                                      const struct lonely_auth_input *in, struct lonely_span given,
                                      double now)
{
    struct lonely_auth_verified v;

    return lonely_auth_verify(ctx, &key, 1, in, &given, now, &v);
}

/* ---- Keys ---- */

static void keys_refuse_unusable_secrets(void **state)
{
    const struct {
        const char *name;
        enum lonely_auth_scheme scheme;
        struct lonely_span secret;
        enum lonely_error err;
    } cases[] = {
        { "token", LONELY_AUTH_TOKEN, LIT("a b"), LONELY_OK },
        { "empty token", LONELY_AUTH_TOKEN, LIT(""), LONELY_E_SECRET },
        { "control character", LONELY_AUTH_TOKEN, LIT("a\nb"), LONELY_E_SECRET },
        { "DEL", LONELY_AUTH_TOKEN, LIT("a\x7f"), LONELY_E_SECRET },
        { "not ASCII", LONELY_AUTH_TOKEN, LIT("\xc3\xa9"), LONELY_E_SECRET },
        { "space at the end", LONELY_AUTH_TOKEN, LIT("ab "), LONELY_E_SECRET },
        { "no secret for hmac", LONELY_AUTH_HMAC, { NULL, 0 }, LONELY_E_SECRET },
        { "no secret for none", LONELY_AUTH_NONE, { NULL, 0 }, LONELY_OK },
        { "no such scheme", (enum lonely_auth_scheme)3, LIT("a"), LONELY_E_ARGUMENT },
    };
    struct lonely_auth_key *key;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        print_message("# %s\n", cases[i].name);
        assert_int_equal(lonely_auth_key_create(cases[i].scheme, cases[i].secret, &key),
                         cases[i].err);
        assert_int_equal(key != NULL, cases[i].err == LONELY_OK);
        lonely_auth_key_destroy(key);
    }
}

static void tokens_have_a_limit(void **state)
{
    static uint8_t text[LONELY_AUTH_TOKEN_MAX_BYTES + 1], out[LONELY_AUTH_MAX_BYTES];
    struct lonely_auth_key *key;
    size_t len;

    (void)state;
    memset(text, 'x', sizeof(text));
    assert_int_equal(
        lonely_auth_key_create(LONELY_AUTH_TOKEN, (struct lonely_span){ text, sizeof(text) }, &key),
        LONELY_E_SECRET);
    assert_int_equal(lonely_auth_key_create(LONELY_AUTH_TOKEN,
                                            (struct lonely_span){ text, sizeof(text) - 1 }, &key),
                     LONELY_OK);
    assert_int_equal(lonely_auth_sign_max(key), LONELY_AUTH_MAX_BYTES);
    assert_int_equal(
        lonely_auth_sign(ctx, key, NULL, 0, LIT(""), out, LONELY_AUTH_MAX_BYTES - 1, &len),
        LONELY_E_NO_SPACE);
    assert_int_equal(len, 0);
    assert_int_equal(lonely_auth_sign(ctx, key, NULL, 0, LIT(""), out, LONELY_AUTH_MAX_BYTES, &len),
                     LONELY_OK);
    assert_int_equal(len, LONELY_AUTH_MAX_BYTES);
    lonely_auth_key_destroy(key);
}

static void random_bytes_become_text(void **state)
{
    static const uint8_t four[4] = { 0xfb, 0xff, 0xbf, 0xff };
    uint8_t nonce[LONELY_AUTH_NONCE_BYTES], text[LONELY_AUTH_SECRET_BYTES];
    struct lonely_auth_key *key;

    (void)state;
    lonely_auth_nonce_text(four, nonce);
    assert_memory_equal(nonce, "-_-__w", 6);
    lonely_auth_secret_text(zeros, text);
    for (size_t i = 0; i < sizeof(text); i++)
        assert_int_equal(text[i], 'A');
    assert_int_equal(
        lonely_auth_key_create(LONELY_AUTH_HMAC, (struct lonely_span){ text, sizeof(text) }, &key),
        LONELY_OK);
    lonely_auth_key_destroy(key);
}

/* ---- Signing ---- */

static void none_sends_nothing(void **state)
{
    size_t len = 1;

    (void)state;
    assert_int_equal(lonely_auth_sign_max(none), 0);
    assert_int_equal(lonely_auth_sign(ctx, none, NULL, NOW, LIT(""), NULL, 0, &len), LONELY_OK);
    assert_int_equal(len, 0);
}

static void signing_needs_exactly_its_room(void **state)
{
    const struct lonely_auth_input in = sample(LONELY_AUTH_RECEIVE);
    size_t len;

    (void)state;
    for (size_t cap = 0; cap < 113; cap++) {
        assert_int_equal(lonely_auth_sign(ctx, hmac, &in, NOW, LIT("AAAAAA"),
                                          guard_room(&guard, cap), cap, &len),
                         LONELY_E_NO_SPACE);
        assert_int_equal(len, 0);
    }
    assert_int_equal(sign(hmac, &in, guard_room(&guard, 113), 113).len, 113);

    memset(zeros, 'n', 255);
    assert_int_equal(lonely_auth_sign_max(hmac), LONELY_AUTH_HMAC_MAX_BYTES);
    assert_int_equal(lonely_auth_sign(ctx, hmac, &in, UINT64_MAX, zero_span(255),
                                      guard_room(&guard, LONELY_AUTH_HMAC_MAX_BYTES),
                                      LONELY_AUTH_HMAC_MAX_BYTES, &len),
                     LONELY_OK);
    assert_int_equal(len, LONELY_AUTH_HMAC_MAX_BYTES);
    memset(zeros, 0, 255);
}

static void signing_refuses_unusable_nonces(void **state)
{
    const struct lonely_span bad[] = { LIT(""), LIT(":"), LIT("ab:"), zero_span(256) };
    const struct lonely_auth_input in = sample(LONELY_AUTH_RECEIVE);
    uint8_t out[LONELY_AUTH_MAX_BYTES];
    size_t len;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(bad); i++)
        assert_int_equal(lonely_auth_sign(ctx, hmac, &in, NOW, bad[i], out, sizeof(out), &len),
                         LONELY_E_ARGUMENT);
}

static void signing_refuses_unknown_operations(void **state)
{
    static const unsigned bad[] = { 0, 22, 255, UINT32_MAX };
    struct lonely_auth_input in = sample(LONELY_AUTH_RECEIVE);
    uint8_t out[LONELY_AUTH_MAX_BYTES];
    size_t len;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(bad); i++) {
        in.op = (enum lonely_auth_op)bad[i];
        assert_int_equal(lonely_auth_sign(ctx, hmac, &in, NOW, LIT("n"), out, sizeof(out), &len),
                         LONELY_E_ARGUMENT);
        assert_string_equal(lonely_auth_op_str(in.op), "unknown");
    }
    assert_int_equal(lonely_auth_sign(ctx, hmac, NULL, NOW, LIT("n"), out, sizeof(out), &len),
                     LONELY_E_ARGUMENT);
}

/* Makes one field wrong, at its limit or beyond. */
typedef void spoil_fn(struct lonely_auth_input *in, bool beyond);

static void spoil_tracing(struct lonely_auth_input *in, bool beyond)
{
    in->tracing = zero_span(65535 + beyond);
}

static void spoil_url(struct lonely_auth_input *in, bool beyond)
{
    in->url = zero_span(65535 + beyond);
}

static void spoil_recovery(struct lonely_auth_input *in, bool beyond)
{
    in->recovery = zero_span(65535 + beyond);
}

static void spoil_topic(struct lonely_auth_input *in, bool beyond)
{
    in->topic = zero_span(65535 + beyond);
}

static void spoil_identifier(struct lonely_auth_input *in, bool beyond)
{
    in->identifier = zero_span(255 + beyond);
}

static void spoil_hash(struct lonely_auth_input *in, bool beyond)
{
    in->hash = zero_span(64 + beyond);
}

static void spoil_nonce(struct lonely_auth_input *in, bool beyond)
{
    in->nonce = zero_span(32u - beyond);
}

static void spoil_subscribers(struct lonely_auth_input *in, bool beyond)
{
    in->subscribers = UINT64_C(0xffffffff) + beyond;
}

static void spoil_part_id(struct lonely_auth_input *in, bool beyond)
{
    in->part_id = beyond ? UINT64_C(0x1ffffffff) : UINT64_C(0xffffffff); /* same low byte */
}

static void spoil_compressor(struct lonely_auth_input *in, bool beyond)
{
    in->compressor = UINT64_C(0xffffffff) + beyond;
}

static void spoil_level(struct lonely_auth_input *in, bool beyond)
{
    in->level = INT64_C(0xffffffff) + beyond;
}

static const struct fit_case {
    const char *name;
    spoil_fn *spoil;
    const char *has; /* a character an operation from 1 on: whether it signs the field */
} fit_cases[] = {
    { "tracing", spoil_tracing, "xxxxxxxxxxxxxxxxxxxxx" },
    { "url", spoil_url, "xx..xxxxxx.xx....xxx." },
    { "recovery", spoil_recovery, "xx........xxx........" },
    { "topic", spoil_topic, "xxx.....xxxxxx......." },
    { "identifier", spoil_identifier, "..x...xx.x...x......x" },
    { "hash", spoil_hash, "..x..x...x...xxx..x.." },
    { "nonce", spoil_nonce, "...x............x...." },
    { "subscribers", spoil_subscribers, ".......x.....x......." },
    { "part_id", spoil_part_id, "....................x" },
    { "compressor", spoil_compressor, ".................xxx." },
    { "level", spoil_level, ".................xx.." },
};

/* A field beyond its limit is refused by both sides, and only where the operation signs it. */
static void fields_must_fit(void **state)
{
    static uint8_t out[LONELY_AUTH_MAX_BYTES], good[LONELY_AUTH_MAX_BYTES];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(fit_cases) * 21; i++) {
        const struct fit_case *c = &fit_cases[i / 21];
        const unsigned op = (unsigned)(i % 21) + 1;
        const bool has = c->has[op - 1] == 'x';
        struct lonely_auth_input in = sample((enum lonely_auth_op)op);
        struct lonely_span signature;
        size_t len;

        if (op == 1)
            print_message("# %s\n", c->name);
        c->spoil(&in, false);
        signature = sign(hmac, &in, good, sizeof(good));
        c->spoil(&in, true);
        assert_int_equal(lonely_auth_sign(ctx, hmac, &in, NOW, LIT("n"), out, sizeof(out), &len),
                         has ? LONELY_E_FIELD_SIZE : LONELY_OK);
        assert_int_equal(verify(hmac, &in, signature, NOW),
                         has ? LONELY_AUTH_FORBIDDEN : LONELY_AUTH_OK);
    }
}

static void part_id_of_continue_receive_is_one_byte(void **state)
{
    struct lonely_auth_input in = sample(LONELY_AUTH_STATEFUL_CONTINUE_RECEIVE);
    uint8_t a[LONELY_AUTH_MAX_BYTES], b[LONELY_AUTH_MAX_BYTES];
    struct lonely_span low, high;

    (void)state;
    low = sign(hmac, &in, a, sizeof(a));
    in.part_id += 256;
    high = sign(hmac, &in, b, sizeof(b));
    assert_true(table_span_equal(low, high));
    in.part_id = UINT64_MAX;
    sign(hmac, &in, b, sizeof(b));
}

static void negative_levels_verify_as_twos_complement(void **state)
{
    static const enum lonely_auth_op ops[] = { LONELY_AUTH_STATEFUL_ENABLE_ZSTD_PRESET,
                                               LONELY_AUTH_STATEFUL_ENABLE_ZSTD_CUSTOM };
    uint8_t out[LONELY_AUTH_MAX_BYTES];
    size_t len;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(ops); i++) {
        struct lonely_auth_input in = sample(ops[i]);
        struct lonely_span signature;

        in.level = UINT32_MAX - 2;
        signature = sign(hmac, &in, out, sizeof(out));
        in.level = -3;
        assert_int_equal(verify(hmac, &in, signature, NOW), LONELY_AUTH_OK);
        in.level = -4;
        assert_int_equal(verify(hmac, &in, signature, NOW), LONELY_AUTH_FORBIDDEN);
        in.level = -3 - (INT64_C(1) << 32); /* the same 32 bits, out of range */
        assert_int_equal(verify(hmac, &in, signature, NOW), LONELY_AUTH_FORBIDDEN);
        assert_int_equal(lonely_auth_sign(ctx, hmac, &in, NOW, LIT("n"), out, sizeof(out), &len),
                         LONELY_E_ARGUMENT);
    }
    struct lonely_auth_input receive = sample(LONELY_AUTH_RECEIVE);
    receive.level = -1; /* not a field of it */
    sign(hmac, &receive, out, sizeof(out));
}

struct hashed {
    EVP_MAC_CTX *mac;
    size_t calls, fail_at; /* 0: never */
};

static bool hash_sink(void *arg, const uint8_t *bytes, size_t len)
{
    struct hashed *h = arg;

    if (++h->calls == h->fail_at)
        return false;
    return h->mac == NULL || EVP_MAC_update(h->mac, bytes, len) == 1;
}

/* Ours against OpenSSL's own HMAC, with fields longer than any buffer inside. */
static void long_fields_are_signed_like_any_other(void **state)
{
    struct lonely_auth_input in = sample(LONELY_AUTH_SUBSCRIBE_EXACT);
    EVP_MAC *fetched = EVP_MAC_fetch(NULL, "HMAC", NULL);
    struct hashed h = { .mac = EVP_MAC_CTX_new(fetched) };
    OSSL_PARAM params[] = { OSSL_PARAM_construct_utf8_string("digest", (char[]){ "SHA512" }, 0),
                            OSSL_PARAM_construct_end() };
    uint8_t key[64], mac[64], text[89], out[LONELY_AUTH_MAX_BYTES];
    struct lonely_span got;
    size_t len;

    (void)state;
    memset(zeros, 0xa5, sizeof(zeros));
    in.topic = zero_span(65535);
    in.recovery = zero_span(512);
    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(3 + 7 * i); /* secret_text, decoded */
    assert_int_equal(EVP_MAC_init(h.mac, key, sizeof(key), params), 1);
    assert_int_equal(auth_bytes(&in, NOW, LIT("AAAAAA"), hash_sink, &h), LONELY_OK);
    assert_int_equal(EVP_MAC_final(h.mac, mac, &len, sizeof(mac)), 1);
    EVP_EncodeBlock(text, mac, sizeof(mac));
    got = sign(hmac, &in, out, sizeof(out));
    assert_int_equal(got.len, 113);
    assert_memory_equal(got.ptr + 25, text, 88);
    EVP_MAC_CTX_free(h.mac);
    EVP_MAC_free(fetched);

    h = (struct hashed){ .calls = 0 };
    assert_int_equal(auth_bytes(&in, NOW, LIT("AAAAAA"), hash_sink, &h), LONELY_OK);
    assert_true(h.calls > 1);
    for (size_t n = h.calls; n > 0; n--) {
        h = (struct hashed){ .fail_at = n };
        assert_int_equal(auth_bytes(&in, NOW, LIT("AAAAAA"), hash_sink, &h), LONELY_E_CRYPTO);
        assert_int_equal(h.calls, n);
    }
    memset(zeros, 0, sizeof(zeros));
}

static bool broken_sink(void *arg, const uint8_t *bytes, size_t len)
{
    (void)bytes;
    (void)len;
    ++*(int *)arg;
    return false;
}

/* The buffer is flushed for the format byte of the etag, whose hash is then too short. */
static void the_first_error_of_a_stream_stays(void **state)
{
    struct lonely_auth_input in = sample(LONELY_AUTH_CHECK_SUBSCRIPTIONS_RESPONSE);
    int calls = 0;

    (void)state;
    in.hash = zero_span(63);
    in.tracing = zero_span(490);
    assert_int_equal(auth_bytes(&in, NOW, LIT("AAAAAA"), broken_sink, &calls), LONELY_E_CRYPTO);
    assert_int_equal(calls, 1);
}

/* ---- Verifying ---- */

static void every_operation_verifies(void **state)
{
    uint8_t out[LONELY_AUTH_MAX_BYTES];

    (void)state;
    for (unsigned op = 1; op <= LONELY_AUTH_STATEFUL_CONTINUE_NOTIFY; op++) {
        struct lonely_auth_input in = sample((enum lonely_auth_op)op);
        struct lonely_span signature = sign(hmac, &in, out, sizeof(out));

        assert_int_equal(verify(hmac, &in, signature, NOW), LONELY_AUTH_OK);
        assert_int_equal(verify(other, &in, signature, NOW), LONELY_AUTH_FORBIDDEN);
        in.op = (enum lonely_auth_op)(op == 1 ? 21 : op - 1);
        assert_int_equal(verify(hmac, &in, signature, NOW), LONELY_AUTH_FORBIDDEN);
    }
}

static const struct lonely_auth_input *damaged_input;

static void is_forbidden(struct lonely_span prefix, void *arg)
{
    (void)arg;
    assert_int_equal(verify(hmac, damaged_input, prefix, NOW), LONELY_AUTH_FORBIDDEN);
}

static void damaged_strings_are_forbidden(void **state)
{
    const struct lonely_auth_input in = sample(LONELY_AUTH_RECEIVE);
    uint8_t out[LONELY_AUTH_MAX_BYTES];
    const struct lonely_span good = sign(hmac, &in, out, sizeof(out));
    struct lonely_span laid = guard_lay(&guard, good);

    (void)state;
    assert_int_equal(verify(hmac, &in, laid, NOW), LONELY_AUTH_OK);
    damaged_input = &in;
    guard_each_prefix(&guard, good, is_forbidden, NULL);
    for (size_t i = 0; i < good.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            out[i] ^= (uint8_t)(1u << bit);
            assert_int_equal(verify(hmac, &in, guard_lay(&guard, good), NOW),
                             LONELY_AUTH_FORBIDDEN);
            out[i] ^= (uint8_t)(1u << bit);
        }
    }
    out[good.len] = 'A';
    assert_int_equal(verify(hmac, &in, (struct lonely_span){ out, good.len + 1 }, NOW),
                     LONELY_AUTH_FORBIDDEN);
}

/* Forms that no sender makes. The signature is good for all of them. */
static void strange_timestamps_are_forbidden(void **state)
{
    static const struct {
        const char *timestamp;
        enum lonely_auth_result want;
    } cases[] = {
        { "1760000000", LONELY_AUTH_OK },
        { "0000000001760000000", LONELY_AUTH_OK }, /* 19 digits */
        { "00000000001760000000", LONELY_AUTH_FORBIDDEN },
        { "+1760000000", LONELY_AUTH_FORBIDDEN },
        { " 1760000000", LONELY_AUTH_FORBIDDEN },
        { "1760000000 ", LONELY_AUTH_FORBIDDEN },
        { "1_760_000_000", LONELY_AUTH_FORBIDDEN },
        { "-1760000000", LONELY_AUTH_FORBIDDEN },
        { "1760000000.0", LONELY_AUTH_FORBIDDEN },
        { "", LONELY_AUTH_FORBIDDEN },
        { "9999999999999999999", LONELY_AUTH_FORBIDDEN },
        { "18446744075469551616", LONELY_AUTH_FORBIDDEN }, /* the good one modulo 2^64 */
    };
    const struct lonely_auth_input in = sample(LONELY_AUTH_RECEIVE);
    uint8_t out[LONELY_AUTH_MAX_BYTES];
    const struct lonely_span good = sign(hmac, &in, out, sizeof(out));

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        char text[256];
        const int len = snprintf(text, sizeof(text), "X-HMAC %s:AAAAAA:%.88s", cases[i].timestamp,
                                 (const char *)good.ptr + 25);

        print_message("# %s\n", cases[i].timestamp);
        assert_int_equal(
            verify(hmac, &in, (struct lonely_span){ (const uint8_t *)text, (size_t)len }, NOW),
            cases[i].want);
    }
}

static void absent_is_not_empty(void **state)
{
    const struct lonely_auth_input in = sample(LONELY_AUTH_RECEIVE);
    const struct lonely_auth_key *const keys[] = { none, token, hmac };
    const struct lonely_span empty = { NULL, 0 }, x = LIT("x");
    struct lonely_auth_verified v;

    (void)state;
    assert_null(lonely_auth_field(&empty));
    assert_ptr_equal(lonely_auth_field(&x), &x);
    assert_int_equal(lonely_auth_verify(ctx, keys, 1, &in, NULL, NOW, &v), LONELY_AUTH_OK);
    assert_int_equal(lonely_auth_verify(ctx, keys, 1, NULL, &empty, NOW, &v), LONELY_AUTH_OK);
    for (size_t i = 1; i < TABLE_LEN(keys); i++) {
        assert_int_equal(lonely_auth_verify(ctx, keys + i, 1, &in, NULL, NOW, &v),
                         LONELY_AUTH_UNAUTHORIZED);
        assert_int_equal(lonely_auth_verify(ctx, keys + i, 1, &in, &empty, NOW, &v),
                         LONELY_AUTH_FORBIDDEN);
    }
}

static void any_accepted_secret_fits(void **state)
{
    const struct lonely_auth_input in = sample(LONELY_AUTH_RECEIVE);
    const struct lonely_auth_key *const rotating[] = { other, token, hmac, none };
    uint8_t out[LONELY_AUTH_MAX_BYTES], text[LONELY_AUTH_MAX_BYTES];
    struct lonely_span signature = sign(hmac, &in, out, sizeof(out));
    struct lonely_span bearer = sign(token, NULL, text, sizeof(text));
    struct lonely_auth_verified v;

    (void)state;
    assert_int_equal(lonely_auth_verify(ctx, rotating, 3, &in, &signature, NOW, &v),
                     LONELY_AUTH_OK);
    assert_int_equal(v.key, 2);
    assert_true(v.store);
    assert_int_equal(v.keep_until_epoch_s, NOW + 121);
    assert_int_equal(lonely_auth_verify(ctx, rotating, 3, &in, &bearer, NOW, &v), LONELY_AUTH_OK);
    assert_int_equal(v.key, 1);
    assert_false(v.store);
    assert_int_equal(lonely_auth_verify(ctx, rotating, 2, &in, &signature, NOW, &v),
                     LONELY_AUTH_FORBIDDEN);
    assert_false(v.store);
    assert_int_equal(v.keep_until_epoch_s, 0);
    assert_int_equal(lonely_auth_verify(ctx, rotating, 3, &in, NULL, NOW, &v),
                     LONELY_AUTH_UNAUTHORIZED);
    assert_int_equal(lonely_auth_verify(ctx, rotating, 4, &in, NULL, NOW, &v), LONELY_AUTH_OK);
    assert_int_equal(v.key, 3);
    assert_int_equal(lonely_auth_verify(ctx, NULL, 0, &in, &signature, NOW, &v),
                     LONELY_AUTH_UNAVAILABLE);
}

static void macs_bound_to_a_connection_need_no_store(void **state)
{
    const struct lonely_span bound = LIT("websocket:x:1");
    static const struct {
        enum lonely_auth_op op;
        bool url, recovery; /* which of them is bound */
        bool store;
    } cases[] = {
        { LONELY_AUTH_RECEIVE, true, false, false },
        { LONELY_AUTH_RECEIVE, false, false, true },
        { LONELY_AUTH_SUBSCRIBE_EXACT, true, false, false },
        { LONELY_AUTH_SUBSCRIBE_EXACT, false, true, true },
        { LONELY_AUTH_STATEFUL_CONTINUE_RECEIVE, true, false, false },
        { LONELY_AUTH_STATEFUL_DISABLE_ZSTD_CUSTOM, true, false, false },
        { LONELY_AUTH_MISSED, false, true, false },
        { LONELY_AUTH_MISSED, true, false, true },
        { LONELY_AUTH_NOTIFY, true, true, true }, /* signs neither */
        { LONELY_AUTH_STATEFUL_CONFIGURE, true, true, true },
        { LONELY_AUTH_STATEFUL_CONTINUE_NOTIFY, true, true, true },
        { LONELY_AUTH_CONFIRM_NOTIFY, true, true, true },
    };
    uint8_t out[LONELY_AUTH_MAX_BYTES];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct lonely_auth_input in = sample(cases[i].op);
        struct lonely_auth_verified v;
        const struct lonely_auth_key *key = hmac;
        struct lonely_span signature;

        print_message("# %s\n", lonely_auth_op_str(in.op));
        in.url = cases[i].url ? bound : in.url;
        in.recovery = cases[i].recovery ? bound : in.recovery;
        signature = sign(key, &in, out, sizeof(out));
        assert_int_equal(lonely_auth_verify(ctx, &key, 1, &in, &signature, NOW, &v),
                         LONELY_AUTH_OK);
        assert_int_equal(v.store, cases[i].store);
    }
}

static void the_window_is_120_seconds_either_way(void **state)
{
    static const struct {
        uint64_t timestamp;
        double now;
        bool in;
    } cases[] = {
        { NOW, NOW, true },
        { NOW, NOW + 120.0, true },
        { NOW, NOW + 120.001, false },
        { NOW, NOW - 120.0, true },
        { NOW, NOW - 120.001, false },
        { 0, 0, true },
        { 0, -1, true },
        { UINT64_MAX, NOW, false },
        { NOW, NAN, false },
        { NOW, INFINITY, false },
        { NOW, -INFINITY, false },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++)
        assert_int_equal(lonely_auth_in_window(cases[i].timestamp, cases[i].now), cases[i].in);
    assert_int_equal(lonely_auth_keep_until(NOW), NOW + 121);
    assert_true(lonely_auth_keep_until(UINT64_MAX) == UINT64_MAX);
    assert_true(lonely_auth_keep_until(UINT64_MAX - 121) == UINT64_MAX);
    assert_true(lonely_auth_keep_until(UINT64_MAX - 122) == UINT64_MAX - 1);
}

static void enums_have_names(void **state)
{
    (void)state;
    assert_string_equal(lonely_auth_scheme_str(LONELY_AUTH_HMAC), "hmac");
    assert_string_equal(lonely_auth_scheme_str((enum lonely_auth_scheme)3), "unknown");
    assert_string_equal(lonely_auth_result_str(LONELY_AUTH_UNAVAILABLE), "unavailable");
    assert_string_equal(lonely_auth_result_str((enum lonely_auth_result)4), "unknown");
    assert_string_equal(lonely_auth_op_str(LONELY_AUTH_RECEIVE), "RECEIVE");
}

/* ---- Threads ---- */

static void *sign_and_verify(void *arg)
{
    const struct lonely_auth_input in = sample(LONELY_AUTH_RECEIVE);
    uint8_t out[LONELY_AUTH_HMAC_MAX_BYTES];
    struct lonely_auth_verified v;
    struct lonely_auth_ctx *own;
    const struct lonely_auth_key *key = hmac;
    size_t *good = arg;

    if (lonely_auth_ctx_create(&own) != LONELY_OK)
        return NULL;
    for (size_t i = 0; i < 500; i++) {
        struct lonely_span s = { out, 0 };

        if (lonely_auth_sign(own, key, &in, NOW + i, LIT("n"), out, sizeof(out), &s.len) ==
                LONELY_OK &&
            lonely_auth_verify(own, &key, 1, &in, &s, (double)NOW + (double)i, &v) ==
                LONELY_AUTH_OK)
            ++*good;
    }
    lonely_auth_ctx_destroy(own);
    return NULL;
}

static void threads_share_a_key(void **state)
{
    pthread_t threads[3];
    size_t good[TABLE_LEN(threads)] = { 0 };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, sign_and_verify, &good[i]), 0);
    for (size_t i = 0; i < TABLE_LEN(threads); i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(good[i], 500);
    }
}

static int set_up(void **state)
{
    (void)state;
    guard = guard_create(4096);
    if (lonely_auth_ctx_create(&ctx) != LONELY_OK ||
        lonely_auth_key_create(LONELY_AUTH_NONE, LIT(""), &none) != LONELY_OK ||
        lonely_auth_key_create(LONELY_AUTH_TOKEN, LIT("token"), &token) != LONELY_OK ||
        lonely_auth_key_create(LONELY_AUTH_HMAC, LIT(secret_text), &hmac) != LONELY_OK ||
        lonely_auth_key_create(LONELY_AUTH_HMAC, LIT(other_text), &other) != LONELY_OK)
        return -1;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    lonely_auth_key_destroy(none);
    lonely_auth_key_destroy(token);
    lonely_auth_key_destroy(hmac);
    lonely_auth_key_destroy(other);
    lonely_auth_key_destroy(NULL);
    lonely_auth_ctx_destroy(ctx);
    lonely_auth_ctx_destroy(NULL);
    guard_destroy(&guard);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_error_of_a_stream_stays),
        cmocka_unit_test(keys_refuse_unusable_secrets),
        cmocka_unit_test(tokens_have_a_limit),
        cmocka_unit_test(random_bytes_become_text),
        cmocka_unit_test(none_sends_nothing),
        cmocka_unit_test(signing_needs_exactly_its_room),
        cmocka_unit_test(signing_refuses_unusable_nonces),
        cmocka_unit_test(signing_refuses_unknown_operations),
        cmocka_unit_test(fields_must_fit),
        cmocka_unit_test(part_id_of_continue_receive_is_one_byte),
        cmocka_unit_test(negative_levels_verify_as_twos_complement),
        cmocka_unit_test(long_fields_are_signed_like_any_other),
        cmocka_unit_test(every_operation_verifies),
        cmocka_unit_test(damaged_strings_are_forbidden),
        cmocka_unit_test(strange_timestamps_are_forbidden),
        cmocka_unit_test(absent_is_not_empty),
        cmocka_unit_test(any_accepted_secret_fits),
        cmocka_unit_test(macs_bound_to_a_connection_need_no_store),
        cmocka_unit_test(the_window_is_120_seconds_either_way),
        cmocka_unit_test(enums_have_names),
        cmocka_unit_test(threads_share_a_key),
    };

    return cmocka_run_group_tests_name("auth", tests, set_up, tear_down);
}
