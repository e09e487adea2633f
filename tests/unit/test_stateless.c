/*
 * The bodies of the stateless API: what parsers refuse and where, sizes, and the lists of
 * SET_SUBSCRIPTIONS in any pieces. Good bodies are checked by tests/vectors.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <lonely/stateless.h>

#include "tables.h"

#define HASH                                                            \
    "00010203040506070809101112131415 00010203040506070809101112131415" \
    "00010203040506070809101112131415 00010203040506070809101112131415"

static uint8_t long_bytes[65536];

/* For LONELY_E_TRUNCATED `at` is the length to come back with. */
static const struct parse_case {
    const char *name;
    enum lonely_stateless_type type;
    const char *hex;
    enum lonely_error err;
    size_t at;
} parse_cases[] = {
    { "no such type", (enum lonely_stateless_type)0, "0000", LONELY_E_TYPE, 0 },
    { "the bit is no type", LONELY_STATELESS_B2S, "0000", LONELY_E_TYPE, 0 },
    { "beyond the types", (enum lonely_stateless_type)22, "0000", LONELY_E_TYPE, 0 },
    { "a hole in the types", (enum lonely_stateless_type)11, "0000", LONELY_E_TYPE, 0 },
    { "nothing", LONELY_STATELESS_SUBSCRIBE_EXACT, "", LONELY_E_TRUNCATED, 2 },
    { "half a length", LONELY_STATELESS_SUBSCRIBE_EXACT, "ff", LONELY_E_TRUNCATED, 2 },
    { "no url", LONELY_STATELESS_SUBSCRIBE_EXACT, "ffff", LONELY_E_TRUNCATED, 65537 },
    { "no topic", LONELY_STATELESS_SUBSCRIBE_EXACT, "000161", LONELY_E_TRUNCATED, 5 },
    { "subscribe, bytes behind", LONELY_STATELESS_SUBSCRIBE_EXACT, "0000 0000 0000 0000 ff",
      LONELY_OK, 8 },
    { "bad url, rest to come", LONELY_STATELESS_SUBSCRIBE_EXACT, "0001ff", LONELY_E_UTF8, 0 },
    { "topic of any bytes", LONELY_STATELESS_SUBSCRIBE_EXACT, "0000 0001ff 0000 0000", LONELY_OK,
      9 },
    { "glob of any bytes", LONELY_STATELESS_SUBSCRIBE_GLOB, "0000 0001ff 0000 0000", LONELY_E_UTF8,
      2 },
    { "bad recovery", LONELY_STATELESS_SUBSCRIBE_GLOB, "0000 000161 0002c3c3", LONELY_E_UTF8, 5 },
    { "tracing of any bytes", LONELY_STATELESS_SUBSCRIBE_GLOB, "0000 0000 0000 0001ff", LONELY_OK,
      9 },
    { "unsubscribe, bad glob", LONELY_STATELESS_UNSUBSCRIBE_GLOB, "0000 0001ff 0000", LONELY_E_UTF8,
      2 },
    { "check, bad url", LONELY_STATELESS_CHECK_SUBSCRIPTIONS, "0001ff 0001ff", LONELY_E_UTF8, 3 },
    { "notify, no hash", LONELY_STATELESS_NOTIFY, "000161 00", LONELY_E_TRUNCATED, 67 },
    { "notify, no identifier", LONELY_STATELESS_NOTIFY, "0000 " HASH " 0000 ff", LONELY_E_TRUNCATED,
      2 + 64 + 2 + 256 },
    { "notify, half of M", LONELY_STATELESS_NOTIFY, "0000 " HASH " 0000 00 00000000",
      LONELY_E_TRUNCATED, 77 },
    { "notify, all of the head", LONELY_STATELESS_NOTIFY,
      "0000 " HASH " 0000 00 ffffffffffffffff 00", LONELY_OK, 77 },
    { "set, format", LONELY_STATELESS_SET_SUBSCRIPTIONS, "0000 0000 01", LONELY_E_ETAG_FORMAT, 4 },
    { "set, no format", LONELY_STATELESS_SET_SUBSCRIPTIONS, "0000 0000", LONELY_E_TRUNCATED, 5 },
    { "set, no count", LONELY_STATELESS_SET_SUBSCRIPTIONS, "0000 0000 00" HASH, LONELY_E_TRUNCATED,
      73 },
    { "set, all of the head", LONELY_STATELESS_SET_SUBSCRIPTIONS, "0000 0000 00" HASH "ffffffff",
      LONELY_OK, 73 },
    { "wrong code", LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE, "000a", LONELY_E_TYPE, 0 },
    { "a code of the other side", LONELY_STATELESS_RESPONSE_CONFIRM_MISSED, "0019 0000 0000",
      LONELY_E_TYPE, 0 },
    { "unsubscribe, bytes behind", LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE, "000aff",
      LONELY_OK, 2 },
    { "authorization", LONELY_STATELESS_RESPONSE_GENERIC, "0003 0001ff 0000", LONELY_E_UTF8, 2 },
    { "response, format", LONELY_STATELESS_RESPONSE_CHECK_SUBSCRIPTIONS, "0005 0000 0000 ff",
      LONELY_E_ETAG_FORMAT, 6 },
};

static void parses_and_refuses(void **state)
{
    struct guard g = guard_create(256);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(parse_cases); i++) {
        const struct parse_case *c = &parse_cases[i];
        uint8_t bytes[256];
        struct lonely_span span = { bytes, table_unhex(c->hex, bytes, sizeof(bytes)) };
        struct lonely_stateless before, out;
        struct lonely_result r;

        memset(&out, 0xa5, sizeof(out));
        before = out;
        r = lonely_stateless_parse(c->type, guard_lay(&g, span), &out);
        if (r.err != c->err || r.at != c->at)
            fail_msg("%s: %s at %zu", c->name, lonely_error_name(r.err), r.at);
        if (r.err != LONELY_OK && memcmp(&out, &before, sizeof(out)) != 0)
            fail_msg("%s: out was written", c->name);
    }
    guard_destroy(&g);
}

static void clears_the_fields_a_body_has_not(void **state)
{
    const struct lonely_stateless zero = { 0 };
    struct lonely_stateless out;

    (void)state;
    memset(&out, 0xa5, sizeof(out));
    assert_int_equal(
        lonely_stateless_parse(LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE, LIT("\0\x0a"), &out)
            .err,
        LONELY_OK);
    assert_memory_equal(&out, &zero, sizeof(out));
}

static struct lonely_stateless longest_fields(void)
{
    struct lonely_span b16 = { long_bytes, LONELY_FIELD16_MAX_BYTES };

    return (struct lonely_stateless){ .authorization = b16,
                                      .tracing = b16,
                                      .url = b16,
                                      .topic = b16,
                                      .recovery = b16,
                                      .identifier = { long_bytes,
                                                      LONELY_STATELESS_IDENTIFIER_MAX_BYTES },
                                      .hash = { long_bytes, LONELY_SHA512_BYTES },
                                      .message_len = UINT64_MAX,
                                      .count = UINT32_MAX };
}

static const struct {
    enum lonely_stateless_type type;
    size_t max;
} maxima[] = {
    { LONELY_STATELESS_NOTIFY, LONELY_STATELESS_NOTIFY_MAX_BYTES },
    { LONELY_STATELESS_SUBSCRIBE_EXACT, LONELY_STATELESS_SUBSCRIBE_MAX_BYTES },
    { LONELY_STATELESS_SUBSCRIBE_GLOB, LONELY_STATELESS_SUBSCRIBE_MAX_BYTES },
    { LONELY_STATELESS_UNSUBSCRIBE_EXACT, LONELY_STATELESS_UNSUBSCRIBE_MAX_BYTES },
    { LONELY_STATELESS_UNSUBSCRIBE_GLOB, LONELY_STATELESS_UNSUBSCRIBE_MAX_BYTES },
    { LONELY_STATELESS_CHECK_SUBSCRIPTIONS, LONELY_STATELESS_CHECK_SUBSCRIPTIONS_MAX_BYTES },
    { LONELY_STATELESS_SET_SUBSCRIPTIONS, LONELY_STATELESS_SET_SUBSCRIPTIONS_MAX_BYTES },
    { LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE,
      LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE_MAX_BYTES },
    { LONELY_STATELESS_RESPONSE_CONFIRM_MISSED,
      LONELY_STATELESS_RESPONSE_CONFIRM_MISSED_MAX_BYTES },
    { LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE,
      LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE_MAX_BYTES },
    { LONELY_STATELESS_RECEIVE, LONELY_STATELESS_RECEIVE_MAX_BYTES },
    { LONELY_STATELESS_MISSED, LONELY_STATELESS_MISSED_MAX_BYTES },
    { LONELY_STATELESS_RESPONSE_GENERIC, LONELY_STATELESS_RESPONSE_GENERIC_MAX_BYTES },
    { LONELY_STATELESS_RESPONSE_NOTIFY, LONELY_STATELESS_RESPONSE_NOTIFY_MAX_BYTES },
    { LONELY_STATELESS_RESPONSE_CHECK_SUBSCRIPTIONS,
      LONELY_STATELESS_RESPONSE_CHECK_SUBSCRIPTIONS_MAX_BYTES },
};

/* Each body at its longest: measured, refused one byte short, written, read back; and a reader that
 * waits for as many bytes as it is told has to come back a few times only. */
static void bodies_of_maximum_size(void **state)
{
    const struct lonely_stateless m = longest_fields();
    struct guard g = guard_create(LONELY_STATELESS_SUBSCRIBE_MAX_BYTES);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(maxima); i++) {
        enum lonely_stateless_type type = maxima[i].type;
        size_t max = maxima[i].max;
        uint8_t *buf = guard_room(&g, max);
        struct lonely_result r = lonely_stateless_write(type, &m, NULL, 0);
        struct lonely_stateless out;

        assert_int_equal(lonely_stateless_max(type), max);
        assert_true(r.err == LONELY_E_NO_SPACE && r.at == max);
        r = lonely_stateless_write(type, &m, buf + 1, max - 1);
        assert_true(r.err == LONELY_E_NO_SPACE && r.at == max);
        r = lonely_stateless_write(type, &m, buf, max);
        assert_true(r.err == LONELY_OK && r.at == max);
        r = (struct lonely_result){ LONELY_E_TRUNCATED, 0 };
        for (int calls = 0; r.err == LONELY_E_TRUNCATED; calls++) {
            assert_true(r.at <= max && calls < 12);
            r = lonely_stateless_parse(type, (struct lonely_span){ buf, r.at }, &out);
        }
        assert_true(r.err == LONELY_OK && r.at == max);
    }
    assert_int_equal(lonely_stateless_max(LONELY_STATELESS_B2S), 0);
    assert_int_equal(lonely_stateless_max((enum lonely_stateless_type)99), 0);
    guard_destroy(&g);
}

static const struct write_case {
    const char *name;
    enum lonely_stateless_type type;
    size_t field; /* offset of the span that is replaced */
    size_t len;
    bool utf8;
    enum lonely_error err;
    size_t at;
} write_cases[] = {
#define SPAN(m) offsetof(struct lonely_stateless, m)
    { "url", LONELY_STATELESS_SUBSCRIBE_EXACT, SPAN(url), 65536, true, LONELY_E_FIELD_SIZE, 0 },
    { "topic", LONELY_STATELESS_SUBSCRIBE_EXACT, SPAN(topic), 65536, true, LONELY_E_FIELD_SIZE, 2 },
    { "url not UTF-8", LONELY_STATELESS_SUBSCRIBE_EXACT, SPAN(url), 3, false, LONELY_E_UTF8, 0 },
    { "topic not UTF-8", LONELY_STATELESS_SUBSCRIBE_EXACT, SPAN(topic), 3, false, LONELY_OK, 11 },
    { "glob not UTF-8", LONELY_STATELESS_UNSUBSCRIBE_GLOB, SPAN(topic), 3, false, LONELY_E_UTF8,
      2 },
    { "recovery not UTF-8", LONELY_STATELESS_SUBSCRIBE_GLOB, SPAN(recovery), 3, false,
      LONELY_E_UTF8, 4 },
    { "no recovery in it", LONELY_STATELESS_UNSUBSCRIBE_GLOB, SPAN(recovery), 65536, false,
      LONELY_OK, 6 },
    { "identifier", LONELY_STATELESS_RECEIVE, SPAN(identifier), 256, true, LONELY_E_IDENTIFIER_SIZE,
      4 },
    { "short hash", LONELY_STATELESS_NOTIFY, SPAN(hash), 63, true, LONELY_E_HASH_SIZE, 2 },
    { "long etag", LONELY_STATELESS_SET_SUBSCRIPTIONS, SPAN(hash), 65, true, LONELY_E_HASH_SIZE,
      5 },
    { "authorization", LONELY_STATELESS_RESPONSE_NOTIFY, SPAN(authorization), 3, false,
      LONELY_E_UTF8, 2 },
    { "no body", LONELY_STATELESS_B2S, SPAN(hash), 0, true, LONELY_E_TYPE, 0 },
#undef SPAN
};

static void refuses_to_write_what_cannot_be_read(void **state)
{
    static uint8_t junk[65536], room[LONELY_STATELESS_SUBSCRIBE_MAX_BYTES];

    (void)state;
    memset(junk, 0xff, sizeof(junk));
    for (size_t i = 0; i < TABLE_LEN(write_cases); i++) {
        const struct write_case *c = &write_cases[i];
        struct lonely_stateless m = { .hash = { long_bytes, LONELY_SHA512_BYTES } };
        struct lonely_span bad = { c->utf8 ? long_bytes : junk, c->len };
        struct lonely_result r;

        memcpy((char *)&m + c->field, &bad, sizeof(bad));
        r = lonely_stateless_write(c->type, &m, room, sizeof(room));
        if (r.err != c->err || r.at != c->at)
            fail_msg("%s: %s at %zu", c->name, lonely_error_name(r.err), r.at);
    }
}

/* ---- SET_SUBSCRIPTIONS ---- */

static struct lonely_set_reader set_reader;

/* `count` topics, then what stands in hex. The good entries are told as text: T and G, the key,
 * a slash, the recovery, a comma. */
static const struct set_case {
    const char *name;
    uint32_t count;
    const char *hex, *entries;
    enum lonely_error err;
} set_cases[] = {
    { "empty", 0, "00000000", "", LONELY_OK },
    { "bytes behind", 0, "00000000 ff", "", LONELY_OK },
    { "both lists", 2, "000161 000172 00026161 0000 00000001 0000 0000", "Ta/r,Taa/,G/,",
      LONELY_OK },
    { "lists are ordered apart", 1, "00017a 0000 00000001 000161 0000", "Tz/,Ga/,", LONELY_OK },
    { "topic of any bytes", 1, "0001ff 0000 00000000", "T\xff/,", LONELY_OK },
    { "no count of globs", 0, "000000", "", LONELY_E_TRUNCATED },
    { "fewer topics", 2, "000161 0000", "Ta/,", LONELY_E_TRUNCATED },
    { "fewer globs", 0, "ffffffff 000161 0000", "Ga/,", LONELY_E_TRUNCATED },
    { "cut in a key", 1, "0003 6161", "", LONELY_E_TRUNCATED },
    { "the same topic", 2, "000161 0000 000161 0000 00000000", "Ta/,", LONELY_E_ORDER },
    { "two empty topics", 2, "0000 0000 0000 0000 00000000", "T/,", LONELY_E_ORDER },
    { "prefix after its longer one", 2, "00026161 0000 000161 0000", "Taa/,", LONELY_E_ORDER },
    { "bytes are unsigned", 2, "0001ff 0000 000101 0000", "T\xff/,", LONELY_E_ORDER },
    { "globs out of order", 0, "00000002 000162 0000 000161 0000", "Gb/,", LONELY_E_ORDER },
    { "glob not UTF-8", 0, "00000001 0001ff 0000", "", LONELY_E_UTF8 },
    { "recovery not UTF-8", 1, "000161 0001ff", "", LONELY_E_UTF8 },
    { "recovery of a glob not UTF-8", 0, "00000001 000161 0001ff", "", LONELY_E_UTF8 },
};

/* Reads lists in pieces of `piece` bytes, each laid against the page; tells the entries. */
static enum lonely_error tell_entries(const struct guard *g, struct lonely_span lists, size_t piece,
                                      char *told)
{
    struct lonely_span in = { 0 };
    struct lonely_set_entry e;

    *told = '\0';
    for (;;) {
        enum lonely_error err = lonely_set_reader_next(&set_reader, &in, &e);

        if (err == LONELY_OK && e.kind == LONELY_SET_END)
            return LONELY_OK;
        if (err == LONELY_OK) {
            told += sprintf(told, "%c%.*s/%.*s,", e.kind == LONELY_SET_TOPIC ? 'T' : 'G',
                            (int)e.key.len, e.key.len > 0 ? (const char *)e.key.ptr : "",
                            (int)e.recovery.len,
                            e.recovery.len > 0 ? (const char *)e.recovery.ptr : "");
            continue;
        }
        if (err != LONELY_E_TRUNCATED || lists.len == 0)
            return err;
        assert_int_equal(in.len, 0);
        in = (struct lonely_span){ lists.ptr, piece < lists.len ? piece : lists.len };
        lists.ptr += in.len;
        lists.len -= in.len;
        in = guard_lay(g, in);
    }
}

static void reads_lists_in_any_pieces(void **state)
{
    struct guard g = guard_create(256);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(set_cases); i++) {
        const struct set_case *c = &set_cases[i];
        uint8_t bytes[256];
        struct lonely_span lists = { bytes, table_unhex(c->hex, bytes, sizeof(bytes)) };

        for (size_t piece = 1; piece <= lists.len; piece++) {
            char told[256];
            enum lonely_error err;

            lonely_set_reader_init(&set_reader, c->count);
            err = tell_entries(&g, lists, piece, told);
            if (err != c->err || strcmp(told, c->entries) != 0)
                fail_msg("%s in pieces of %zu: %s, %s", c->name, piece, lonely_error_name(err),
                         told);
        }
    }
    guard_destroy(&g);
}

static void errors_and_the_end_of_lists_stick(void **state)
{
    struct lonely_span in = LIT("\0\0\0\1\0\1\xff\0\0"), good = LIT("\0\0\0\0rest");
    struct lonely_set_entry e;

    (void)state;
    lonely_set_reader_init(&set_reader, 0);
    assert_int_equal(lonely_set_reader_next(&set_reader, &in, &e), LONELY_E_UTF8);
    assert_int_equal(lonely_set_reader_next(&set_reader, &good, &e), LONELY_E_UTF8);
    lonely_set_reader_init(&set_reader, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lonely_set_reader_next(&set_reader, &good, &e), LONELY_OK);
        assert_int_equal(e.kind, LONELY_SET_END);
        assert_true(table_span_equal(good, LIT("rest")));
    }
}

static void writes_and_reads_the_longest_entries(void **state)
{
    static struct lonely_set_writer w;
    struct guard g = guard_create(2 * LONELY_SET_ENTRY_MAX_BYTES + 8);
    uint8_t *buf = guard_room(&g, 2 * LONELY_SET_ENTRY_MAX_BYTES + 4);
    struct lonely_span all = { buf, 2 * LONELY_SET_ENTRY_MAX_BYTES + 4 };
    struct lonely_set_entry e = { LONELY_SET_TOPIC,
                                  { long_bytes, LONELY_FIELD16_MAX_BYTES },
                                  { long_bytes, LONELY_FIELD16_MAX_BYTES } };
    char *told = malloc(5 * 65536);
    struct lonely_result r;

    (void)state;
    assert_non_null(told);
    memset(long_bytes, 'a', sizeof(long_bytes));
    lonely_set_writer_init(&w, 1, 1);
    r = lonely_set_writer_add(&w, &e, buf, LONELY_SET_ENTRY_MAX_BYTES - 1);
    assert_true(r.err == LONELY_E_NO_SPACE && r.at == LONELY_SET_ENTRY_MAX_BYTES);
    r = lonely_set_writer_add(&w, &e, buf, LONELY_SET_ENTRY_MAX_BYTES);
    assert_true(r.err == LONELY_OK && r.at == LONELY_SET_ENTRY_MAX_BYTES);
    e.kind = LONELY_SET_GLOB;
    r = lonely_set_writer_add(&w, &e, buf + r.at, LONELY_SET_ENTRY_MAX_BYTES + 3);
    assert_true(r.err == LONELY_E_NO_SPACE && r.at == LONELY_SET_ENTRY_MAX_BYTES + 4);
    r = lonely_set_writer_add(&w, &e, buf + LONELY_SET_ENTRY_MAX_BYTES,
                              LONELY_SET_ENTRY_MAX_BYTES + 4);
    assert_true(r.err == LONELY_OK && r.at == LONELY_SET_ENTRY_MAX_BYTES + 4);
    for (size_t piece = 1; piece <= all.len; piece = piece * 7 + 3) {
        struct guard pieces = guard_create(piece);

        lonely_set_reader_init(&set_reader, 1);
        assert_int_equal(tell_entries(&pieces, all, piece, told), LONELY_OK);
        assert_int_equal(strlen(told), 2 * (2 * 65535 + 3));
        guard_destroy(&pieces);
    }
    memset(long_bytes, 0, sizeof(long_bytes));
    free(told);
    guard_destroy(&g);
}

/* What the writer is given in turn: T, G or E(nd), key, and the result. */
static const struct write_list_case {
    const char *name;
    uint32_t topics, globs;
    struct {
        char kind;
        struct lonely_span key, recovery;
        enum lonely_error err;
        size_t at;
    } add[4];
} write_list_cases[] = {
    { "empty",
      0,
      0,
      { { 'E', LIT_INIT(""), LIT_INIT(""), LONELY_OK, 4 },
        { 'E', LIT_INIT(""), LIT_INIT(""), LONELY_E_STATE, 0 } } },
    { "one of each",
      1,
      1,
      { { 'T', LIT_INIT("b"), LIT_INIT("r"), LONELY_OK, 6 },
        { 'G', LIT_INIT("a"), LIT_INIT(""), LONELY_OK, 4 + 5 },
        { 'E', LIT_INIT(""), LIT_INIT(""), LONELY_OK, 0 } } },
    { "missing topic",
      1,
      0,
      { { 'E', LIT_INIT(""), LIT_INIT(""), LONELY_E_STATE, 0 },
        { 'G', LIT_INIT(""), LIT_INIT(""), LONELY_E_STATE, 0 },
        { 'T', LIT_INIT(""), LIT_INIT(""), LONELY_OK, 4 },
        { 'E', LIT_INIT(""), LIT_INIT(""), LONELY_OK, 4 } } },
    { "one topic too many",
      0,
      1,
      { { 'T', LIT_INIT(""), LIT_INIT(""), LONELY_E_STATE, 0 },
        { 'E', LIT_INIT(""), LIT_INIT(""), LONELY_E_STATE, 0 },
        { 'G', LIT_INIT(""), LIT_INIT(""), LONELY_OK, 8 },
        { 'G', LIT_INIT("a"), LIT_INIT(""), LONELY_E_STATE, 0 } } },
    { "order",
      2,
      0,
      { { 'T', LIT_INIT("b"), LIT_INIT(""), LONELY_OK, 5 },
        { 'T', LIT_INIT("b"), LIT_INIT(""), LONELY_E_ORDER, 0 },
        { 'T', LIT_INIT("c"), LIT_INIT(""), LONELY_OK, 5 },
        { 'E', LIT_INIT(""), LIT_INIT(""), LONELY_OK, 4 } } },
    { "UTF-8",
      1,
      1,
      { { 'T', LIT_INIT("\xff"), LIT_INIT("\xff"), LONELY_E_UTF8, 0 },
        { 'T', LIT_INIT("\xff"), LIT_INIT(""), LONELY_OK, 5 },
        { 'G', LIT_INIT("\xff"), LIT_INIT(""), LONELY_E_UTF8, 0 },
        { 'G', LIT_INIT(""), LIT_INIT(""), LONELY_OK, 8 } } },
    { "sizes",
      1,
      0,
      { { 'T', { long_bytes, 65536 }, LIT_INIT(""), LONELY_E_FIELD_SIZE, 0 },
        { 'T', LIT_INIT(""), { long_bytes, 65536 }, LONELY_E_FIELD_SIZE, 0 } } },
};

static void writes_lists_as_announced(void **state)
{
    static struct lonely_set_writer w;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(write_list_cases); i++) {
        lonely_set_writer_init(&w, write_list_cases[i].topics, write_list_cases[i].globs);
        for (size_t k = 0; k < 4 && write_list_cases[i].add[k].kind != '\0'; k++) {
            char kind = write_list_cases[i].add[k].kind;
            struct lonely_set_entry e = { kind == 'T'   ? LONELY_SET_TOPIC
                                          : kind == 'G' ? LONELY_SET_GLOB
                                                        : LONELY_SET_END,
                                          write_list_cases[i].add[k].key,
                                          write_list_cases[i].add[k].recovery };
            uint8_t buf[64];
            struct lonely_result r = lonely_set_writer_add(&w, &e, buf, sizeof(buf));

            if (r.err != write_list_cases[i].add[k].err || r.at != write_list_cases[i].add[k].at)
                fail_msg("%s, %zu: %s at %zu", write_list_cases[i].name, k,
                         lonely_error_name(r.err), r.at);
        }
    }
}

/* NULL measures, whatever `cap` says, and changes nothing. */
static void a_null_buffer_has_no_room(void **state)
{
    static struct lonely_set_writer w;
    const struct lonely_stateless body = { .tracing = LIT("t"), .topic = LIT("topic") };
    const struct lonely_set_entry topic = { LONELY_SET_TOPIC, LIT("a"), LIT("") };
    const struct lonely_set_entry end = { .kind = LONELY_SET_END };
    static const size_t caps[] = { 0, 1, 64, SIZE_MAX };
    uint8_t buf[64];

    (void)state;
    lonely_set_writer_init(&w, 1, 0);
    for (size_t i = 0; i < TABLE_LEN(caps); i++) {
        struct lonely_result r =
            lonely_stateless_write(LONELY_STATELESS_MISSED, &body, NULL, caps[i]);

        assert_true(r.err == LONELY_E_NO_SPACE && r.at == 3 + 7);
        r = lonely_set_writer_add(&w, &topic, NULL, caps[i]);
        assert_true(r.err == LONELY_E_NO_SPACE && r.at == 5);
    }
    assert_int_equal(lonely_set_writer_add(&w, &topic, buf, sizeof(buf)).err, LONELY_OK);
    assert_int_equal(lonely_set_writer_add(&w, &end, NULL, 64).err, LONELY_E_NO_SPACE);
    assert_int_equal(lonely_set_writer_add(&w, &end, buf, sizeof(buf)).at, 4);
}

/* ---- Repr-Digest ---- */

#define ZERO_64 \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define ONE_64 \
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ"

/* `fill` is the byte of which the digest that is read consists. */
static const struct digest_case {
    const char *value;
    enum lonely_error err;
    uint8_t fill;
} digest_cases[] = {
    { "sha-512=" ONE_64 "==", LONELY_OK, 1 },
    { "sha-512=" ONE_64, LONELY_OK, 1 },
    { "sha-512=:" ONE_64 "==:", LONELY_OK, 1 },
    { " \tsha-512=" ONE_64 "== \t", LONELY_OK, 1 },
    { "sha-256=abcd, sha-512=" ONE_64 "==", LONELY_OK, 1 },
    { "sha-512=" ZERO_64 "==,sha-512=" ONE_64 "==", LONELY_OK, 1 },
    { "sha-512=:" ONE_64 "==:, sha-512=:" ZERO_64 "==:", LONELY_OK, 0 },
    { "sha-512=" ONE_64 "==,,", LONELY_OK, 1 },
    { "sha-512=" ONE_64 "==,sha-512=a", LONELY_E_HASH_SIZE, 0 },
    { "sha-512=", LONELY_E_HASH_SIZE, 0 },
    { "sha-512=" ONE_64 "A==", LONELY_E_HASH_SIZE, 0 },
    { "sha-512=" ONE_64 "AA==", LONELY_E_HASH_SIZE, 0 },
    { "sha-512=A", LONELY_E_HASH_SIZE, 0 },
    { "", LONELY_E_HEADER_MISSING, 0 },
    { ",", LONELY_E_HEADER_MISSING, 0 },
    { "sha-512", LONELY_E_HEADER_MISSING, 0 },
    { "sha512=" ONE_64 "==", LONELY_E_HEADER_MISSING, 0 },
    { "SHA-512=" ONE_64 "==", LONELY_E_HEADER_MISSING, 0 },
    { "xsha-512=" ONE_64 "==", LONELY_E_HEADER_MISSING, 0 },
};

static void reads_digests(void **state)
{
    struct guard g = guard_create(512);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(digest_cases); i++) {
        const struct digest_case *c = &digest_cases[i];
        struct lonely_span value = { (const uint8_t *)c->value, strlen(c->value) };
        uint8_t got[LONELY_SHA512_BYTES], want[LONELY_SHA512_BYTES];

        memset(want, c->fill, sizeof(want));
        if (lonely_repr_digest_parse(guard_lay(&g, value), got) != c->err)
            fail_msg("%s", c->value);
        if (c->err == LONELY_OK)
            assert_memory_equal(got, want, sizeof(want));
    }
    guard_destroy(&g);
}

static void writes_digests(void **state)
{
    uint8_t ones[LONELY_SHA512_BYTES];
    char got[LONELY_REPR_DIGEST_BYTES];

    (void)state;
    memset(ones, 1, sizeof(ones));
    lonely_repr_digest_write(ones, got);
    assert_string_equal(got, "sha-512=" ONE_64 "==");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_and_refuses),
        cmocka_unit_test(clears_the_fields_a_body_has_not),
        cmocka_unit_test(bodies_of_maximum_size),
        cmocka_unit_test(refuses_to_write_what_cannot_be_read),
        cmocka_unit_test(reads_lists_in_any_pieces),
        cmocka_unit_test(errors_and_the_end_of_lists_stick),
        cmocka_unit_test(writes_and_reads_the_longest_entries),
        cmocka_unit_test(writes_lists_as_announced),
        cmocka_unit_test(a_null_buffer_has_no_room),
        cmocka_unit_test(reads_digests),
        cmocka_unit_test(writes_digests),
    };

    return cmocka_run_group_tests_name("stateless", tests, NULL, NULL);
}
