/*
 * Every line of stateful.jsonl and stateful_urls.jsonl, one test a line: the verdict and the kind
 * of error, all fields, writing, truncation, extension and over-reading (tests/vectors/README.md).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lonely/connection.h>
#include <lonely/message.h>

#include "tables.h"
#include "vectors.h"

enum { GUARD_BYTES = 1 << 20 };

static struct guard input, output;

/* --- A decoded message as the vectors show it: named fields. --- */

enum field_kind { SPAN, ABSENT_IF_EMPTY, BOOL, UINT, INT };

struct field {
    const char *name;
    enum field_kind kind;
    size_t offset;
};

#define F(name, kind, member)                                  \
    {                                                          \
        name, kind, offsetof(struct lonely_message, as.member) \
    }
#define END           \
    {                 \
        NULL, SPAN, 0 \
    }
#define AUTH_AND_TRACING(type) \
    F("authorization", ABSENT_IF_EMPTY, type.authorization), F("tracing", SPAN, type.tracing)

static const struct field configure[] = {
    F("subscriber_nonce", SPAN, configure.subscriber_nonce),
    F("enable_zstd", BOOL, configure.enable_zstd),
    F("enable_training", BOOL, configure.enable_training),
    F("initial_dict", UINT, configure.initial_dict),
    AUTH_AND_TRACING(configure),
    END,
};
static const struct field exact[] = {
    F("topic", SPAN, subscription.topic),
    AUTH_AND_TRACING(subscription),
    END,
};
static const struct field glob[] = {
    F("glob", SPAN, subscription.topic),
    AUTH_AND_TRACING(subscription),
    END,
};
static const struct field notify[] = {
    F("identifier", SPAN, notify.identifier),
    F("topic", SPAN, notify.topic),
    F("compressor", UINT, notify.compressor),
    F("compressed_length", UINT, notify.compressed_length),
    F("decompressed_length", UINT, notify.decompressed_length),
    F("compressed_sha512", SPAN, notify.compressed_sha512),
    AUTH_AND_TRACING(notify),
    END,
};
static const struct field later_part[] = {
    F("identifier", SPAN, stream.identifier),
    F("part_id", UINT, stream.part_id),
    AUTH_AND_TRACING(stream),
    END,
};
static const struct field first_part[] = {
    F("topic", SPAN, stream.topic),
    F("compressor", UINT, stream.compressor),
    F("compressed_length", UINT, stream.compressed_length),
    F("decompressed_length", UINT, stream.decompressed_length),
    F("compressed_sha512", SPAN, stream.compressed_sha512),
    F("identifier", SPAN, stream.identifier),
    F("part_id", UINT, stream.part_id),
    AUTH_AND_TRACING(stream),
    END,
};
static const struct field continuation[] = {
    F("identifier", SPAN, continuation.identifier),
    F("part_id", UINT, continuation.part_id),
    AUTH_AND_TRACING(continuation),
    END,
};
static const struct field confirm_receive[] = {
    F("identifier", SPAN, confirm_receive.identifier),
    F("num_subscribers", UINT, confirm_receive.num_subscribers),
    AUTH_AND_TRACING(confirm_receive),
    END,
};
static const struct field confirm_configure[] = {
    F("broadcaster_nonce", SPAN, confirm_configure.broadcaster_nonce),
    AUTH_AND_TRACING(confirm_configure),
    END,
};
static const struct field confirm_notify[] = {
    F("identifier", SPAN, confirm_notify.identifier),
    F("subscribers", UINT, confirm_notify.subscribers),
    AUTH_AND_TRACING(confirm_notify),
    END,
};
#define ENABLE_ZSTD                                                                           \
    F("identifier", UINT, enable_zstd.identifier),                                            \
        F("compression_level", INT, enable_zstd.compression_level),                           \
        F("min_size", UINT, enable_zstd.min_size), F("max_size", UINT, enable_zstd.max_size), \
        AUTH_AND_TRACING(enable_zstd)
static const struct field enable_preset[] = { ENABLE_ZSTD, END };
static const struct field enable_custom[] = {
    ENABLE_ZSTD,
    F("sha512", SPAN, enable_zstd.sha512),
    END,
};
static const struct field disable_zstd[] = {
    F("identifier", UINT, disable_zstd.identifier),
    AUTH_AND_TRACING(disable_zstd),
    END,
};
static const struct field missed[] = {
    F("topic", SPAN, missed.topic),
    AUTH_AND_TRACING(missed),
    END,
};

static const struct field *const fields_of[2][13] = {
    { NULL, configure, exact, glob, exact, glob, notify, first_part, continuation,
      confirm_receive },
    { NULL, confirm_configure, exact, glob, exact, glob, confirm_notify, continuation, first_part,
      enable_preset, enable_custom, disable_zstd, missed },
};

static const struct field *fields_in(const struct lonely_message *m)
{
    const struct field *f = fields_of[m->direction][m->type];

    return f == first_part && m->as.stream.part_id > 0 ? later_part : f;
}

/* --- Comparing. --- */

static void assert_span(struct lonely_span got, const json_t *want)
{
    struct vec_bytes b = vec_bytes(want);

    assert_int_equal(got.len, b.len);
    assert_true(table_span_equal(got, vec_span(&b)));
    vec_bytes_free(&b);
}

static void assert_field(const struct field *f, const struct lonely_message *m,
                         const json_t *fields)
{
    const void *p = (const char *)m + f->offset;
    const struct lonely_span *span = p;

    switch (f->kind) {
    case ABSENT_IF_EMPTY:
        assert_int_equal(span->len == 0, json_is_null(vec_get(fields, f->name)));
        if (span->len > 0)
            assert_span(*span, vec_get(fields, f->name));
        break;
    case SPAN:
        assert_span(*span, vec_get(fields, f->name));
        break;
    case BOOL:
        assert_int_equal(*(const bool *)p, vec_bool(fields, f->name));
        break;
    case UINT:
        assert_true(*(const uint64_t *)p == vec_u64(fields, f->name));
        break;
    case INT:
        assert_true(*(const int *)p == vec_i64(fields, f->name));
        break;
    }
}

/* All of them, and no more than them. */
static void assert_fields(const struct lonely_message *m, const json_t *fields)
{
    size_t n = 0;

    for (const struct field *f = fields_in(m); f->name != NULL; f++, n++)
        assert_field(f, m, fields);
    if (vec_has(fields, "body")) {
        assert_true(lonely_message_has_body(m->direction, m->type));
        assert_span(m->body, vec_get(fields, "body"));
        n++;
    } else {
        assert_null(m->body.ptr);
        assert_int_equal(m->body.len, 0);
    }
    assert_int_equal(json_object_size(fields), n);
}

/* --- One line of stateful.jsonl. --- */

struct line {
    const json_t *json;
    enum lonely_direction direction;
    struct vec_bytes frame;
    json_t *fields; /* what is to come out of a valid frame */
    bool canonical;
};

static void writes_the_message(const struct line *l, const struct lonely_message *m)
{
    struct lonely_message again;
    size_t len = 0, head = 0;
    uint8_t *out;

    assert_int_equal(lonely_message_serialize(m, NULL, 0, &len), LONELY_OK);
    out = guard_room(&output, len);
    assert_int_equal(lonely_message_serialize(m, out, len, &len), LONELY_OK);
    if (l->canonical) {
        assert_int_equal(len, l->frame.len);
        assert_memory_equal(out, l->frame.ptr, len);
    }
    assert_int_equal(
        lonely_message_parse(l->direction, (struct lonely_span){ out, len }, &again).err,
        LONELY_OK);
    assert_int_equal(again.minimal, m->minimal);
    assert_fields(&again, l->fields);
    assert_int_equal(lonely_message_serialize_head(m, NULL, 0, &head), LONELY_OK);
    assert_int_equal(head, len - m->body.len);
    assert_true(head <= LONELY_MESSAGE_HEAD_MAX_BYTES);
}

/* The same message in the other mode has the same fields. */
static void writes_the_other_mode(const struct line *l, const struct lonely_message *m)
{
    struct lonely_message other = *m, again;
    size_t len = 0;
    uint8_t *out;

    other.minimal = !m->minimal;
    assert_int_equal(lonely_message_serialize(&other, NULL, 0, &len), LONELY_OK);
    out = guard_room(&output, len);
    assert_int_equal(lonely_message_serialize(&other, out, len, &len), LONELY_OK);
    assert_int_equal(
        lonely_message_parse(l->direction, (struct lonely_span){ out, len }, &again).err,
        LONELY_OK);
    assert_int_equal(again.minimal, other.minimal);
    assert_fields(&again, l->fields);
}

/* Every length; laid against the page while that is cheap, then with growing steps. */
static void refuses_strict_prefixes(const struct line *l)
{
    struct lonely_message m;
    size_t next_laid = 0;

    for (size_t n = 0; n < l->frame.len; n++) {
        struct lonely_span cut = { l->frame.ptr, n };

        if (n == next_laid || n == l->frame.len - 1) {
            cut = guard_lay(&input, cut);
            next_laid += n < 600 ? 1 : n / 61;
        }
        assert_int_not_equal(lonely_message_parse(l->direction, cut, &m).err, LONELY_OK);
    }
}

static void ignores_an_extension(const struct line *l)
{
    size_t len = l->frame.len + 3;
    uint8_t *to = guard_room(&input, len);
    struct lonely_message m;

    memcpy(to, l->frame.ptr, l->frame.len);
    memset(to + l->frame.len, 0xa5, 3);
    assert_int_equal(lonely_message_parse(l->direction, (struct lonely_span){ to, len }, &m).err,
                     LONELY_OK);
    assert_fields(&m, l->fields);
}

static void checks_valid(const struct line *l, struct lonely_span frame)
{
    struct lonely_message m;
    struct lonely_result r = lonely_message_parse(l->direction, frame, &m);

    assert_int_equal(r.err, LONELY_OK);
    assert_int_equal(m.direction, l->direction);
    assert_true(m.type == vec_u64(l->json, "type"));
    assert_int_equal(m.minimal, vec_bool(l->json, "minimal"));
    assert_string_equal(lonely_message_name(m.direction, m.type), vec_str(l->json, "type_name"));
    assert_true(r.at <= frame.len);
    if (m.body.len > 0)
        assert_int_equal(r.at, frame.len - m.body.len);
    assert_fields(&m, l->fields);
    writes_the_message(l, &m);
    writes_the_other_mode(l, &m);
    if (l->canonical && !lonely_message_has_body(m.direction, m.type)) {
        refuses_strict_prefixes(l);
        ignores_an_extension(l);
    }
}

static enum lonely_error error_of_kind(const char *kind)
{
    static const struct {
        const char *kind;
        enum lonely_error err;
    } kinds[] = {
        { "underflow", LONELY_E_TRUNCATED },
        { "unknown-type", LONELY_E_TYPE },
        { "header-name-not-ascii", LONELY_E_HEADER_NAME },
        { "missing-header", LONELY_E_HEADER_MISSING },
        { "nonce-size", LONELY_E_NONCE_SIZE },
        { "integer-too-long", LONELY_E_INTEGER_SIZE },
        { "identifier-too-long", LONELY_E_IDENTIFIER_SIZE },
        { "not-utf8", LONELY_E_UTF8 },
        { "hash-size", LONELY_E_HASH_SIZE },
        { "body-length", LONELY_E_BODY_LENGTH },
        { "hash-mismatch", LONELY_E_BODY_HASH },
        { "length-pair", LONELY_E_LENGTH_PAIR },
    };

    for (size_t i = 0; i < TABLE_LEN(kinds); i++)
        if (strcmp(kind, kinds[i].kind) == 0)
            return kinds[i].err;
    fail_msg("unknown kind of error: %s", kind);
    return LONELY_OK;
}

/* Refused for the right reason, and nothing of it is seen. */
static void checks_invalid(const struct line *l, struct lonely_span frame)
{
    struct lonely_message m, untouched;
    struct lonely_result r;

    memset(&m, 0xa5, sizeof(m));
    memcpy(&untouched, &m, sizeof(m));
    r = lonely_message_parse(l->direction, frame, &m);
    assert_int_equal(r.err, error_of_kind(vec_str(vec_get(l->json, "fields"), "error_kind")));
    assert_true(r.at <= frame.len);
    assert_memory_equal(&m, &untouched, sizeof(m));
}

static void frame_line(void **state)
{
    const json_t *json = *state;
    struct line l = {
        .json = json,
        .direction = strcmp(vec_str(json, "direction"), "s2b") == 0 ? LONELY_S2B : LONELY_B2S,
        .frame = vec_get_bytes(json, "hex"),
        .fields = json_copy(vec_get(json, "fields")),
    };
    struct lonely_span frame = guard_lay(&input, vec_span(&l.frame));

    assert_int_equal(l.frame.len, vec_u64(json, "length"));
    if (vec_has(json, "recommended_fields"))
        json_object_update(l.fields, vec_get(json, "recommended_fields"));
    if (vec_bool(json, "valid")) {
        l.canonical = vec_bool(json, "canonical");
        checks_valid(&l, frame);
    } else {
        checks_invalid(&l, frame);
    }
    json_decref(l.fields);
    vec_bytes_free(&l.frame);
}

/* --- One line of stateful_urls.jsonl. --- */

static void url_line(void **state)
{
    const json_t *json = *state;
    struct vec_bytes s = vec_get_bytes(json, "subscriber_nonce");
    struct vec_bytes b = vec_get_bytes(json, "broadcaster_nonce");
    struct lonely_connection c;
    char *url = (char *)guard_room(&output, LONELY_CONNECTION_URL_MAX_BYTES);
    size_t len;

    assert_int_equal(lonely_connection_init(&c, vec_span(&s), vec_span(&b)), LONELY_OK);
    assert_span((struct lonely_span){ c.nonce, sizeof(c.nonce) },
                vec_get(json, "connection_nonce"));
    len = lonely_connection_url(&c, vec_i64(json, "counter"), url);
    assert_string_equal(url, vec_str(json, "url"));
    assert_int_equal(len, strlen(url));
    assert_non_null(strstr(url, vec_str(json, "connection_nonce_base64")));
    vec_bytes_free(&s);
    vec_bytes_free(&b);
}

static void line(void **state)
{
    if (vec_has(*state, "url"))
        url_line(state);
    else
        frame_line(state);
}

int main(void)
{
    json_t *all = vec_load_lines("stateful.jsonl");
    json_t *urls = vec_load_lines("stateful_urls.jsonl");
    int failed;

    table_require(json_array_extend(all, urls) == 0, "joining the vectors");
    input = guard_create(GUARD_BYTES);
    output = guard_create(GUARD_BYTES);
    failed = vec_run("stateful", all, "name", line, NULL, NULL);
    json_decref(urls);
    json_decref(all);
    guard_destroy(&input);
    guard_destroy(&output);
    return failed;
}
