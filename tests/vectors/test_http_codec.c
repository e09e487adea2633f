/*
 * The bodies of the stateless API against http.jsonl: every `codec` line, and everything that the
 * scenarios show decoded (responses, calls, tracing).            (tests/vectors/README.md)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <lonely/etag.h>
#include <lonely/stateless.h>
#include <lonely/tracing.h>

#include "tables.h"
#include "vectors.h"

/* Names as in the vectors, and the members of `fields` that hold topic and hash. */
static const struct body {
    const char *message;
    enum lonely_stateless_type type;
    const char *topic, *hash, *count;
} bodies[] = {
    { "NOTIFY", LONELY_STATELESS_NOTIFY, "topic_hex", "message_sha512_hex", NULL },
    { "SUBSCRIBE_EXACT", LONELY_STATELESS_SUBSCRIBE_EXACT, "exact_hex", NULL, NULL },
    { "SUBSCRIBE_GLOB", LONELY_STATELESS_SUBSCRIBE_GLOB, "glob", NULL, NULL },
    { "UNSUBSCRIBE_EXACT", LONELY_STATELESS_UNSUBSCRIBE_EXACT, "exact_hex", NULL, NULL },
    { "UNSUBSCRIBE_GLOB", LONELY_STATELESS_UNSUBSCRIBE_GLOB, "glob", NULL, NULL },
    { "CHECK_SUBSCRIPTIONS", LONELY_STATELESS_CHECK_SUBSCRIPTIONS, NULL, NULL, NULL },
    { "SET_SUBSCRIPTIONS", LONELY_STATELESS_SET_SUBSCRIPTIONS, NULL, "etag_hex", NULL },
    { "RECEIVE", LONELY_STATELESS_RECEIVE, "topic_hex", NULL, NULL },
    { "MISSED", LONELY_STATELESS_MISSED, "topic_hex", NULL, NULL },
    { "RESPONSE_GENERIC", LONELY_STATELESS_RESPONSE_GENERIC, NULL, NULL, NULL },
    { "RESPONSE_NOTIFY", LONELY_STATELESS_RESPONSE_NOTIFY, NULL, NULL, "subscribers" },
    { "RESPONSE_CHECK_SUBSCRIPTIONS", LONELY_STATELESS_RESPONSE_CHECK_SUBSCRIPTIONS, NULL,
      "etag_hex", NULL },
    { "RESPONSE_CONFIRM_RECEIVE", LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE, NULL, NULL,
      "num_subscribers" },
    { "RESPONSE_CONFIRM_MISSED", LONELY_STATELESS_RESPONSE_CONFIRM_MISSED, NULL, NULL, NULL },
    { "RESPONSE_UNSUBSCRIBE_IMMEDIATE", LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE, NULL, NULL,
      NULL },
};

static struct guard guard;
static struct lonely_set_reader set_reader;
static struct lonely_set_writer set_writer;
static struct lonely_etag etag;

static const struct body *body_named(const char *message)
{
    for (size_t i = 0; i < TABLE_LEN(bodies); i++) {
        if (strcmp(bodies[i].message, message) == 0)
            return &bodies[i];
    }
    fail_msg("no body is named %s", message);
    return NULL;
}

/* A text member's UTF-8, or with "_hex" at the end of `key` the bytes; absent and null: nothing. */
static struct vec_bytes member(const json_t *fields, const char *key)
{
    size_t len = key != NULL ? strlen(key) : 0;
    json_t *text = key != NULL ? json_object_get(fields, key) : NULL;
    struct vec_bytes b = { malloc(1), 0 };

    if (text == NULL || json_is_null(text))
        return b;
    free(b.ptr);
    if (len > 4 && strcmp(key + len - 4, "_hex") == 0)
        return vec_bytes(text);
    b.len = json_string_length(text);
    b.ptr = malloc(b.len + 1);
    assert_non_null(b.ptr);
    memcpy(b.ptr, json_string_value(text), b.len);
    return b;
}

static void assert_member(struct lonely_span got, const json_t *fields, const char *key)
{
    struct vec_bytes want = member(fields, key);

    assert_int_equal(got.len, want.len);
    if (want.len > 0)
        assert_memory_equal(got.ptr, want.ptr, want.len);
    vec_bytes_free(&want);
}

static void assert_fields(const struct lonely_stateless *m, const struct body *b,
                          const json_t *fields)
{
    assert_member(m->authorization, fields, "authorization");
    assert_member(m->tracing, fields, "tracing_hex");
    assert_member(m->url, fields, "url");
    assert_member(m->topic, fields, b->topic);
    assert_member(m->recovery, fields, "recovery");
    assert_member(m->identifier, fields, "identifier_hex");
    assert_member(m->hash, fields, b->hash);
    if (b->count != NULL)
        assert_true(m->count == vec_u64(fields, b->count));
    if (vec_has(fields, "message_length"))
        assert_true(m->message_len == vec_u64(fields, "message_length"));
}

/* Whatever is missing at the end, the parser asks for more, and for no more than there is. */
static void prefix_is_truncated(struct lonely_span prefix, void *arg)
{
    const struct lonely_result *whole = ((void **)arg)[0];
    const enum lonely_stateless_type *type = ((void **)arg)[1];
    struct lonely_stateless m;
    struct lonely_result r = lonely_stateless_parse(*type, prefix, &m);

    assert_int_equal(r.err, LONELY_E_TRUNCATED);
    assert_true(r.at > prefix.len && r.at <= whole->at);
}

/* Parses, compares, cuts at every byte, writes and compares again; returns the bytes consumed. */
static size_t check_valid(const struct body *b, struct lonely_span bytes, const json_t *fields)
{
    struct lonely_stateless m;
    struct lonely_result r = lonely_stateless_parse(b->type, guard_lay(&guard, bytes), &m);
    enum lonely_stateless_type type = b->type;
    void *arg[] = { &r, &type };
    size_t head = r.at;
    uint8_t *written = malloc(head);

    assert_int_equal(r.err, LONELY_OK);
    assert_non_null(written);
    assert_fields(&m, b, fields);
    assert_true(lonely_stateless_parse(b->type, bytes, &m).err == LONELY_OK);
    r = lonely_stateless_write(b->type, &m, written, head);
    assert_int_equal(r.err, LONELY_OK);
    assert_int_equal(r.at, head);
    assert_memory_equal(written, bytes.ptr, head);
    free(written);
    guard_each_prefix(&guard, (struct lonely_span){ bytes.ptr, head }, prefix_is_truncated, arg);
    return head;
}

static void check_entry(const struct lonely_set_entry *e, const json_t *want, const char *key,
                        struct lonely_span *expected_bytes)
{
    uint8_t written[4096];
    struct lonely_result r = lonely_set_writer_add(&set_writer, e, written, sizeof(written));

    if (want != NULL) {
        assert_member(e->key, want, key);
        assert_member(e->recovery, want, "recovery");
    }
    assert_int_equal(r.err, LONELY_OK);
    assert_true(r.at <= expected_bytes->len);
    assert_memory_equal(written, expected_bytes->ptr, r.at);
    expected_bytes->ptr += r.at;
    expected_bytes->len -= r.at;
}

static enum lonely_error next_in_pieces(struct lonely_span *rest, size_t piece,
                                        struct lonely_set_entry *e)
{
    for (;;) {
        struct lonely_span in = { rest->ptr, rest->len < piece ? rest->len : piece };
        size_t before = in.len;
        enum lonely_error err = lonely_set_reader_next(&set_reader, &in, e);

        rest->ptr += before - in.len;
        rest->len -= before - in.len;
        if (err != LONELY_E_TRUNCATED || rest->len == 0)
            return err;
    }
}

/* The lists behind the head of SET_SUBSCRIPTIONS: entries, etag, and the writer's bytes. */
static void check_lists(const struct lonely_stateless *m, struct lonely_span lists,
                        const json_t *fields, size_t piece)
{
    const json_t *exact = json_object_get(fields, "exact"),
                 *globs = json_object_get(fields, "globs");
    size_t n_exact = json_array_size(exact), n_globs = json_array_size(globs);
    struct lonely_span expected = lists;
    struct lonely_set_entry e;
    uint8_t digest[LONELY_ETAG_BYTES];

    lonely_set_reader_init(&set_reader, m->count);
    lonely_set_writer_init(&set_writer, m->count, (uint32_t)n_globs);
    assert_int_equal(lonely_etag_init(&etag, m->url), LONELY_OK);
    assert_int_equal(m->count, n_exact);
    for (size_t i = 0; i < n_exact; i++) {
        assert_int_equal(next_in_pieces(&lists, piece, &e), LONELY_OK);
        assert_int_equal(e.kind, LONELY_SET_TOPIC);
        check_entry(&e, json_array_get(exact, i), "topic_hex", &expected);
        assert_int_equal(lonely_etag_add_topic(&etag, e.key, e.recovery), LONELY_OK);
    }
    for (size_t i = 0; i < n_globs; i++) {
        assert_int_equal(next_in_pieces(&lists, piece, &e), LONELY_OK);
        assert_int_equal(e.kind, LONELY_SET_GLOB);
        check_entry(&e, json_array_get(globs, i), "glob", &expected);
        assert_int_equal(lonely_etag_add_glob(&etag, e.key, e.recovery), LONELY_OK);
    }
    assert_int_equal(next_in_pieces(&lists, piece, &e), LONELY_OK);
    assert_int_equal(e.kind, LONELY_SET_END);
    check_entry(&e, NULL, NULL, &expected);
    assert_int_equal(expected.len, lists.len);
    assert_int_equal(lonely_etag_final(&etag, digest), LONELY_OK);
    assert_memory_equal(digest, m->hash.ptr, LONELY_ETAG_BYTES);
    assert_member(lists, fields, "trailing_hex");
}

/* What follows the head: the message, the lists, or trailing bytes. */
static void check_rest(const struct body *b, struct lonely_span bytes, size_t head,
                       const json_t *fields)
{
    struct lonely_span rest = { bytes.ptr + head, bytes.len - head };
    struct lonely_stateless m;

    lonely_stateless_parse(b->type, bytes, &m);
    if (b->type == LONELY_STATELESS_SET_SUBSCRIPTIONS) {
        check_lists(&m, rest, fields, SIZE_MAX);
        check_lists(&m, rest, fields, 1);
        return;
    }
    if (b->type == LONELY_STATELESS_NOTIFY || b->type == LONELY_STATELESS_RECEIVE) {
        assert_true(m.message_len <= rest.len);
        assert_member((struct lonely_span){ rest.ptr, (size_t)m.message_len }, fields,
                      "message_hex");
        rest.ptr += m.message_len;
        rest.len -= (size_t)m.message_len;
    }
    assert_member(rest, fields, "trailing_hex");
}

/* A body that is refused: by the parser, or because what should follow the head does not. */
static void check_invalid(const struct body *b, struct lonely_span bytes)
{
    struct lonely_span laid = guard_lay(&guard, bytes);
    struct lonely_stateless m;
    struct lonely_result r = lonely_stateless_parse(b->type, laid, &m);
    struct lonely_set_entry e = { .kind = LONELY_SET_TOPIC };
    enum lonely_error err = LONELY_OK;

    if (r.err != LONELY_OK)
        return;
    laid.ptr += r.at;
    laid.len -= r.at;
    if (b->type == LONELY_STATELESS_SET_SUBSCRIPTIONS) {
        lonely_set_reader_init(&set_reader, m.count);
        while (err == LONELY_OK && e.kind != LONELY_SET_END)
            err = lonely_set_reader_next(&set_reader, &laid, &e);
        assert_int_not_equal(err, LONELY_OK);
        return;
    }
    assert_true(b->type == LONELY_STATELESS_NOTIFY || b->type == LONELY_STATELESS_RECEIVE);
    assert_true(m.message_len > laid.len);
}

static void check_codec(const json_t *line)
{
    const struct body *b = body_named(vec_str(line, "message"));
    struct vec_bytes bytes = vec_get_bytes(line, "hex");
    struct lonely_span span = vec_span(&bytes);

    if (vec_bool(line, "valid")) {
        const json_t *fields = vec_get(line, "fields");

        check_rest(b, span, check_valid(b, span, fields), fields);
    } else {
        check_invalid(b, span);
    }
    vec_bytes_free(&bytes);
}

/* The tracing of a RESPONSE_NOTIFY: read, compared, and written to the same bytes. */
static void check_tracing(const json_t *decoded)
{
    const json_t *want = vec_get(decoded, "tracing"), *entries = vec_get(want, "traces");
    struct vec_bytes bytes = vec_get_bytes(decoded, "tracing_hex");
    uint8_t written[65535];
    struct lonely_tracing t;
    struct lonely_tracing_writer w;
    struct lonely_tracing_entry e;
    struct lonely_result r = lonely_tracing_parse(guard_lay(&guard, vec_span(&bytes)), &t);
    uint64_t received, sent;

    assert_int_equal(r.err, LONELY_OK);
    assert_int_equal(r.at, bytes.len);
    assert_int_equal(t.truncated, vec_bool(want, "truncated"));
    assert_int_equal(t.count, json_array_size(entries));
    received = t.received_ns;
    sent = t.sent_ns;
    assert_true(received == vec_u64(want, "request_received_at_ns"));
    assert_true(sent == vec_u64(want, "response_sent_at_ns"));
    assert_int_equal(lonely_tracing_writer_init(&w, written, sizeof(written)), LONELY_OK);
    for (size_t i = 0; lonely_tracing_next(&t, &e); i++) {
        const json_t *one = json_array_get(entries, i);

        assert_member(e.name, one, "name");
        assert_member(e.extra, one, "extra");
        assert_memory_equal(&e.occurred_s,
                            &(double){ json_number_value(vec_get(one, "occurred_at")) },
                            sizeof(double));
        lonely_tracing_writer_add(&w, e.name, e.extra, e.occurred_s);
    }
    assert_int_equal(lonely_tracing_writer_finish(&w, received, sent), bytes.len);
    assert_memory_equal(written, bytes.ptr, bytes.len);
    vec_bytes_free(&bytes);
}

static void check_decoded(const json_t *shown, const char *message)
{
    const json_t *decoded = json_object_get(shown, "decoded");
    struct vec_bytes bytes;
    const struct body *b;

    if (decoded == NULL || json_is_null(decoded))
        return;
    b = body_named(message != NULL ? message : vec_str(decoded, "message"));
    bytes = vec_get_bytes(shown, "body_hex");
    check_rest(b, vec_span(&bytes), check_valid(b, vec_span(&bytes), decoded), decoded);
    if (vec_has(decoded, "tracing"))
        check_tracing(decoded);
    vec_bytes_free(&bytes);
}

/* The digest that the reference sends is the one that we send, and can be read. */
static void check_call_digest(const json_t *call)
{
    const char *value = vec_str(vec_get(call, "headers"), "Repr-Digest");
    uint8_t digest[LONELY_SHA512_BYTES];
    char written[LONELY_REPR_DIGEST_BYTES];

    assert_int_equal(lonely_repr_digest_parse(
                         (struct lonely_span){ (const uint8_t *)value, strlen(value) }, digest),
                     LONELY_OK);
    lonely_repr_digest_write(digest, written);
    assert_string_equal(written, value);
}

static void check_scenario(const json_t *line)
{
    size_t i, k;
    json_t *step, *call;

    json_array_foreach(vec_get(line, "steps"), i, step)
    {
        check_decoded(vec_get(step, "response"), NULL);
        json_array_foreach(json_object_get(step, "calls"), k, call)
        {
            check_decoded(call, "RECEIVE");
            check_call_digest(call);
        }
    }
}

static void check_line(void **state)
{
    const json_t *line = *state;
    const char *type = vec_str(line, "type");

    if (strcmp(type, "codec") == 0)
        check_codec(line);
    else if (strcmp(type, "scenario") == 0)
        check_scenario(line);
    else if (strcmp(type, "missed_call") == 0)
        check_decoded(line, "MISSED");
    else
        fail_msg("unknown type %s", type);
}

int main(void)
{
    json_t *lines = vec_load_lines("http.jsonl");
    int failed;

    guard = guard_create(1 << 18);
    failed = vec_run("http.jsonl: bodies", lines, "id", check_line, NULL, NULL);
    guard_destroy(&guard);
    json_decref(lines);
    return failed;
}
