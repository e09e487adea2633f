/* Every line of auth.jsonl: what is signed, and the verdicts on what is received. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lonely/auth.h>

#include "auth_bytes.h"
#include "base64.h"
#include "tables.h"
#include "vectors.h"

static struct lonely_auth_ctx *ctx;

static struct lonely_span text_of(const json_t *value)
{
    return (struct lonely_span){ (const uint8_t *)json_string_value(value),
                                 json_string_length(value) };
}

static struct lonely_auth_key *key_of(const char *scheme, const json_t *secret)
{
    enum lonely_auth_scheme id = strcmp(scheme, "hmac") == 0    ? LONELY_AUTH_HMAC
                                 : strcmp(scheme, "token") == 0 ? LONELY_AUTH_TOKEN
                                                                : LONELY_AUTH_NONE;
    struct lonely_auth_key *key;

    assert_int_equal(lonely_auth_key_create(id, text_of(secret), &key), LONELY_OK);
    assert_int_equal(lonely_auth_key_scheme(key), id);
    return key;
}

static enum lonely_auth_op op_of(const char *name)
{
    for (unsigned op = 1; op <= LONELY_AUTH_STATEFUL_CONTINUE_NOTIFY; op++) {
        if (strcmp(lonely_auth_op_str((enum lonely_auth_op)op), name) == 0)
            return (enum lonely_auth_op)op;
    }
    fail_msg("no operation %s", name);
    return 0;
}

/* An input and the decoded bytes its spans point to. */
struct input {
    struct lonely_auth_input in;
    struct vec_bytes bytes[5];
    size_t n_bytes;
};

static struct lonely_span hex_member(struct input *i, const json_t *inputs, const char *key)
{
    if (!vec_has(inputs, key))
        return (struct lonely_span){ 0 };
    assert_true(i->n_bytes < TABLE_LEN(i->bytes));
    i->bytes[i->n_bytes] = vec_get_bytes(inputs, key);
    return vec_span(&i->bytes[i->n_bytes++]);
}

/* Of several names for a field a line uses at most one. */
static struct lonely_span one_of(struct lonely_span a, struct lonely_span b)
{
    return a.ptr == NULL ? b : a;
}

static uint64_t int_member(const json_t *inputs, const char *key)
{
    return vec_has(inputs, key) ? vec_u64(inputs, key) : 0;
}

static void input_init(struct input *i, const json_t *line)
{
    const json_t *v = vec_get(line, "inputs"), *etag = json_object_get(v, "strong_etag");
    struct lonely_auth_input *in = &i->in;

    *i = (struct input){ .in.op = op_of(vec_str(line, "op")) };
    if (vec_has(line, "code"))
        assert_int_equal(in->op, vec_u64(line, "code"));
    in->tracing = hex_member(i, v, "tracing_hex");
    in->url = text_of(json_object_get(v, "url"));
    in->recovery = text_of(json_object_get(v, "recovery"));
    in->topic = one_of(one_of(hex_member(i, v, "topic_hex"), hex_member(i, v, "exact_hex")),
                       text_of(json_object_get(v, "glob")));
    in->identifier = hex_member(i, v, "identifier_hex");
    in->hash = one_of(hex_member(i, v, "message_sha512_hex"), hex_member(i, v, "sha512_hex"));
    if (etag != NULL)
        in->hash = hex_member(i, etag, "etag_hex");
    in->nonce =
        one_of(hex_member(i, v, "subscriber_nonce_hex"), hex_member(i, v, "broadcaster_nonce_hex"));
    in->subscribers = int_member(v, "num_subscribers") + int_member(v, "subscribers");
    in->part_id = int_member(v, "part_id");
    in->compressor = int_member(v, "compressor_identifier");
    in->level = (int64_t)int_member(v, "compression_level");
    in->min_size = int_member(v, "min_size");
    in->max_size = int_member(v, "max_size");
    in->initial_dict = (uint16_t)int_member(v, "initial_dict");
    in->enable_zstd = vec_has(v, "enable_zstd") && vec_bool(v, "enable_zstd");
    in->enable_training = vec_has(v, "enable_training") && vec_bool(v, "enable_training");
}

static void input_fini(struct input *i)
{
    for (size_t n = 0; n < i->n_bytes; n++)
        vec_bytes_free(&i->bytes[n]);
}

struct collected {
    uint8_t *ptr;
    size_t len, cap;
};

static bool collect(void *arg, const uint8_t *bytes, size_t len)
{
    struct collected *c = arg;

    if (len > c->cap - c->len)
        return false;
    memcpy(c->ptr + c->len, bytes, len);
    c->len += len;
    return true;
}

static void assert_spans(struct lonely_span got, struct lonely_span want)
{
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.ptr, want.ptr, want.len);
}

static void check_sign(const json_t *line)
{
    const uint64_t now = (uint64_t)json_number_value(vec_get(line, "now"));
    const struct lonely_span nonce = text_of(vec_get(line, "nonce"));
    struct lonely_auth_key *key = key_of("hmac", vec_get(line, "secret"));
    struct vec_bytes want = vec_get_bytes(line, "to_sign_hex");
    struct collected got = { malloc(want.len), 0, want.len };
    uint8_t out[LONELY_AUTH_HMAC_MAX_BYTES];
    struct input i;
    size_t len;

    input_init(&i, line);
    assert_int_equal(auth_bytes(&i.in, now, nonce, collect, &got), LONELY_OK);
    assert_spans((struct lonely_span){ got.ptr, got.len }, vec_span(&want));
    assert_int_equal(lonely_auth_sign(ctx, key, &i.in, now, nonce, out, sizeof(out), &len),
                     LONELY_OK);
    assert_spans((struct lonely_span){ out, len }, text_of(vec_get(line, "authorization")));
    free(got.ptr);
    vec_bytes_free(&want);
    input_fini(&i);
    lonely_auth_key_destroy(key);
}

/* The caller's store of used macs. */
struct used_macs {
    uint8_t mac[16][LONELY_AUTH_MAC_BYTES];
    size_t n;
};

static enum lonely_auth_result use(struct used_macs *used, const struct lonely_auth_verified *v)
{
    if (!v->store)
        return LONELY_AUTH_OK;
    for (size_t i = 0; i < used->n; i++) {
        if (memcmp(used->mac[i], v->mac, LONELY_AUTH_MAC_BYTES) == 0)
            return LONELY_AUTH_FORBIDDEN;
    }
    assert_true(used->n < TABLE_LEN(used->mac));
    memcpy(used->mac[used->n++], v->mac, LONELY_AUTH_MAC_BYTES);
    return LONELY_AUTH_OK;
}

static enum lonely_auth_result verdict(const json_t *line, const char *scheme, const char *secret,
                                       struct used_macs *used)
{
    struct lonely_auth_key *key = key_of(scheme, secret == NULL ? NULL : vec_get(line, secret));
    const struct lonely_auth_key *keys[] = { key };
    const struct lonely_span given = text_of(vec_get(line, "authorization"));
    struct lonely_auth_verified v;
    enum lonely_auth_result r;
    struct input i = { 0 };
    double now = 0;

    if (vec_has(line, "inputs")) {
        input_init(&i, line);
        now = json_number_value(vec_get(line, "now"));
    }
    r = lonely_auth_verify(ctx, keys, 1, &i.in, given.ptr == NULL ? NULL : &given, now, &v);
    if (r == LONELY_AUTH_OK)
        r = use(used, &v);
    input_fini(&i);
    lonely_auth_key_destroy(key);
    return r;
}

/* What the reference answers with a failure is FORBIDDEN here. (auth.md, A4) */
static void assert_verdict(const json_t *line, enum lonely_auth_result got)
{
    static const struct {
        const char *name;
        enum lonely_auth_result want;
    } names[] = {
        { "OK", LONELY_AUTH_OK },
        { "UNAUTHORIZED", LONELY_AUTH_UNAUTHORIZED },
        { "FORBIDDEN", LONELY_AUTH_FORBIDDEN },
        { "ERROR", LONELY_AUTH_FORBIDDEN },
    };
    const json_t *canonical = json_object_get(line, "canonical");
    const char *want = vec_str(line, "verdict");

    /* Accepted by the reference, made by nobody: either is fine. */
    if (json_is_false(canonical) && strcmp(want, "OK") == 0) {
        assert_true(got == LONELY_AUTH_OK || got == LONELY_AUTH_FORBIDDEN);
        return;
    }
    for (size_t i = 0; i < TABLE_LEN(names); i++) {
        if (strcmp(names[i].name, want) == 0) {
            assert_string_equal(lonely_auth_result_str(got), lonely_auth_result_str(names[i].want));
            return;
        }
    }
    fail_msg("no verdict %s", want);
}

static void check_verify(const json_t *line)
{
    struct used_macs used = { 0 };

    assert_verdict(line, verdict(line, "hmac", "secret", &used));
}

static void check_replay(const json_t *line)
{
    struct used_macs used = { 0 };
    json_t *step;
    size_t i;

    json_array_foreach(vec_get(line, "steps"), i, step)
    {
        print_message("# %s\n", vec_str(step, "note"));
        assert_verdict(step, verdict(step, "hmac", "secret", &used));
    }
}

static void check_secret(const json_t *line)
{
    const struct lonely_span secret = text_of(vec_get(line, "secret"));
    const bool good = vec_has(line, "key_hex");
    uint8_t bytes[LONELY_AUTH_HMAC_KEY_BYTES];
    struct lonely_auth_key *key;

    assert_int_equal(lonely_auth_key_create(LONELY_AUTH_HMAC, secret, &key),
                     good ? LONELY_OK : LONELY_E_SECRET);
    assert_int_equal(key != NULL, good);
    if (good) {
        struct vec_bytes want = vec_get_bytes(line, "key_hex");
        const size_t len = base64_decode_lenient(secret, bytes, sizeof(bytes));

        assert_spans((struct lonely_span){ bytes, len }, vec_span(&want));
        vec_bytes_free(&want);
    }
    lonely_auth_key_destroy(key);
}

static void check_token(const json_t *line)
{
    assert_verdict(line, verdict(line, "token", "token", NULL));
}

static void check_none(const json_t *line)
{
    assert_verdict(line, verdict(line, "none", NULL, NULL));
}

static void check_line(void **state)
{
    static const struct {
        const char *type;
        void (*check)(const json_t *line);
    } types[] = {
        { "sign", check_sign },     { "verify", check_verify }, { "replay", check_replay },
        { "secret", check_secret }, { "token", check_token },   { "none", check_none },
    };
    const char *type = vec_str(*state, "type");

    for (size_t i = 0; i < TABLE_LEN(types); i++) {
        if (strcmp(types[i].type, type) == 0) {
            types[i].check(*state);
            return;
        }
    }
    fail_msg("no type %s", type);
}

/* 2^64-1 and 2^64-2 stand in this file as numbers, which the JSON library cannot read: put quotes
 * around them, as vec_u64 also takes a string. */
static json_t *load_line(const char *line, size_t len)
{
    static const char number[] = ": 1844674407370955161"; /* and a digit */
    const char *at = memmem(line, len, number, sizeof(number) - 1);
    char *quoted = malloc(len + 2);
    const size_t before = at == NULL ? len : (size_t)(at - line) + 2;
    const size_t digits = 20;
    json_error_t why;
    json_t *one;

    table_require(quoted != NULL, "memory of a line");
    memcpy(quoted, line, before);
    if (at != NULL) {
        quoted[before] = '"';
        memcpy(quoted + before + 1, line + before, digits);
        quoted[before + 1 + digits] = '"';
        memcpy(quoted + before + digits + 2, line + before + digits, len - before - digits);
    }
    one = json_loadb(quoted, at == NULL ? len : len + 2, 0, &why);
    table_require(one != NULL, why.text);
    free(quoted);
    return one;
}

static json_t *load_lines(void)
{
    struct vec_bytes file = vec_load_file("auth.jsonl");
    const char *line = (const char *)file.ptr, *end = line + file.len;
    json_t *all = json_array();

    while (line < end) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));

        table_require(newline != NULL, "a line without its end");
        json_array_append_new(all, load_line(line, (size_t)(newline - line)));
        line = newline + 1;
    }
    vec_bytes_free(&file);
    return all;
}

static int set_up(void **state)
{
    (void)state;
    return lonely_auth_ctx_create(&ctx) == LONELY_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    lonely_auth_ctx_destroy(ctx);
    return 0;
}

int main(void)
{
    json_t *lines = load_lines();
    const int failed = vec_run("auth", lines, "id", check_line, set_up, tear_down);

    json_decref(lines);
    return failed;
}
