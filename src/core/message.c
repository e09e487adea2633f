/*
 * One frame into one struct lonely_message and back, by the tables of message_table.c
 * (doc/protocol/stateful.md, 3 to 5 and 10). Called by whoever carries frames. Leaves to others:
 * the order of messages, authorization, and all that spans more than one frame.
 */
#include "sha.h" /* first: chooses the OpenSSL interface */

#include <lonely/message.h>

#include <string.h>

#include "message_table.h"
#include "reader.h"
#include "utf8.h"
#include "writer.h"

enum { FLAG_MINIMAL = 1, TYPE_OFFSET = 2 };

/* A header value as found in a frame: where, for the report of an error, and what. */
struct found {
    struct lonely_span value;
    size_t at;
    bool present;
};

/* Headers that a message has: a part of a stream after the first has no start headers. */
static size_t headers_of(const struct message_spec *spec, uint64_t part_id)
{
    return (spec->rules & RULE_STREAM) != 0 && part_id > 0 ? STREAM_HEADERS : spec->n;
}

static uint64_t big_endian(struct lonely_span s)
{
    struct reader r = reader_of(s);

    return reader_uint(&r, s.len);
}

/* --- Reading: first the section, then the values, in the order of faults of section 10. --- */

static struct found read_value(struct reader *r)
{
    struct lonely_span v = reader_b16(r);

    return (struct found){ v, r->at - v.len, true };
}

static void read_minimal(struct reader *r, const struct message_spec *spec, struct found *found)
{
    size_t n = spec->n;

    for (size_t i = 0; i < n && reader_ok(r); i++) {
        found[i] = read_value(r);
        if ((spec->rules & RULE_STREAM) == 0 || i != STREAM_PART_ID)
            continue;
        if (found[i].value.len > sizeof(uint64_t))
            reader_fail_at(r, LONELY_E_INTEGER_SIZE, found[i].at);
        else
            n = headers_of(spec, big_endian(found[i].value));
    }
}

static bool is_ascii(struct lonely_span name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] >= 0x80)
            return false;
    return true;
}

/* Folds A-Z only, then compares the whole name. */
static bool name_matches(const struct header *h, struct lonely_span name)
{
    if (name.len != h->name_len)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.ptr[i];

        if (c >= 'A' && c <= 'Z')
            c = (uint8_t)(c - 'A' + 'a');
        if (c != (uint8_t)h->name[i])
            return false;
    }
    return true;
}

/* Keeps the headers that the message knows, the last of each, and skips the rest. */
static void read_expanded(struct reader *r, const struct message_spec *spec, struct found *found)
{
    unsigned count = reader_u16(r);

    for (unsigned k = 0; k < count && reader_ok(r); k++) {
        size_t at = r->at;
        struct lonely_span name = reader_b16(r);
        struct found value;

        if (!is_ascii(name))
            reader_fail_at(r, LONELY_E_HEADER_NAME, at);
        value = read_value(r);
        for (size_t i = 0; i < spec->n; i++)
            if (name_matches(&spec->headers[i], name))
                found[i] = value;
    }
}

/* What a span has to be, in either direction of travel. */
static enum lonely_error check_span(const struct header *h, struct lonely_span v)
{
    if (h->kind == HEADER_TEXT && !utf8_is_valid(v))
        return LONELY_E_UTF8;
    if (h->kind == HEADER_ID && v.len > LONELY_IDENTIFIER_MAX_BYTES)
        return LONELY_E_IDENTIFIER_SIZE;
    if (h->kind == HEADER_NONCE && v.len != LONELY_NONCE_BYTES)
        return LONELY_E_NONCE_SIZE;
    if (h->kind == HEADER_HASH && v.len != LONELY_SHA512_BYTES)
        return LONELY_E_HASH_SIZE;
    return LONELY_OK;
}

/* Two's complement of 0 to 2 bytes, extended from the top bit of the first byte present. */
static int signed_value(struct lonely_span v)
{
    int n = (int)big_endian(v);

    return v.len > 0 && v.ptr[0] >= 0x80 ? n - (1 << (8 * v.len)) : n;
}

/* Checks one value and stores it in the field that its header says. */
static enum lonely_error decode(const struct header *h, struct lonely_span v, void *field)
{
    switch (h->kind) {
    case HEADER_BYTES:
    case HEADER_TEXT:
    case HEADER_ID:
    case HEADER_NONCE:
    case HEADER_HASH:
        *(struct lonely_span *)field = v;
        return check_span(h, v);
    case HEADER_BOOL: /* anything else is quietly false (Q3) */
        *(bool *)field = v.len == 1 && v.ptr[0] == 1;
        return LONELY_OK;
    case HEADER_FIX:
    case HEADER_MIN:
    case HEADER_MINZ:
        if (v.len > h->limit)
            return LONELY_E_INTEGER_SIZE;
        *(uint64_t *)field = big_endian(v);
        return LONELY_OK;
    case HEADER_SFIX:
        if (v.len > h->limit)
            return LONELY_E_INTEGER_SIZE;
        *(int *)field = signed_value(v);
        return LONELY_OK;
    }
    return LONELY_E_ARGUMENT;
}

/* Step 4. `end` is where the header section ends: the place of a header that is missing. */
static struct lonely_result decode_all(const struct message_spec *spec, const struct found *found,
                                       size_t end, struct lonely_message *m)
{
    size_t n = spec->n;

    for (size_t i = 0; i < n; i++) {
        const struct header *h = &spec->headers[i];
        enum lonely_error err;

        if (!found[i].present && !h->optional)
            return (struct lonely_result){ LONELY_E_HEADER_MISSING, end };
        err = decode(h, found[i].value, (char *)m + h->offset);
        if (err != LONELY_OK)
            return (struct lonely_result){ err, found[i].at };
        if ((spec->rules & RULE_STREAM) != 0 && i == STREAM_PART_ID)
            n = headers_of(spec, m->as.stream.part_id);
    }
    return (struct lonely_result){ LONELY_OK, end };
}

/* Step 7, also for writing: what is not compressed has one length. */
static bool lengths_agree(const struct message_spec *spec, const struct lonely_message *m)
{
    const struct lonely_msg_notify *n = &m->as.notify;
    const struct lonely_msg_stream *s = &m->as.stream;

    if ((spec->rules & RULE_NOTIFY) != 0)
        return n->compressor != 0 || n->compressed_length == n->decompressed_length;
    if ((spec->rules & RULE_STREAM) != 0 && s->part_id == 0)
        return s->compressor != 0 || s->compressed_length == s->decompressed_length;
    return true;
}

static enum lonely_error check_hash(const struct lonely_message *m)
{
    uint8_t got[LONELY_SHA512_BYTES];

    if (!sha512(m->body, got))
        return LONELY_E_CRYPTO;
    return memcmp(got, m->as.notify.compressed_sha512.ptr, sizeof(got)) == 0 ? LONELY_OK
                                                                             : LONELY_E_BODY_HASH;
}

/* Steps 5 to 7. */
static enum lonely_error check_body(const struct message_spec *spec, unsigned flags,
                                    const struct lonely_message *m)
{
    enum lonely_error err = LONELY_OK;

    if ((spec->rules & RULE_NOTIFY) != 0 && (flags & LONELY_PARSE_HEAD) == 0) {
        if (m->body.len != m->as.notify.compressed_length)
            return LONELY_E_BODY_LENGTH;
        if ((flags & LONELY_PARSE_NO_HASH) == 0)
            err = check_hash(m);
    }
    if (err == LONELY_OK && !lengths_agree(spec, m))
        err = LONELY_E_LENGTH_PAIR;
    return err;
}

struct lonely_result lonely_message_parse_with(enum lonely_direction direction,
                                               struct lonely_span frame, unsigned flags,
                                               struct lonely_message *out)
{
    struct reader r = reader_of(frame);
    struct lonely_message m = { .direction = direction };
    struct found found[HEADERS_MAX] = { 0 };
    const struct message_spec *spec;
    struct lonely_result result;

    m.minimal = (reader_u16(&r) & FLAG_MINIMAL) != 0; /* other flags mean nothing (Q4) */
    m.type = reader_u16(&r);
    spec = message_spec(direction, m.type);
    if (spec == NULL) {
        reader_fail_at(&r, LONELY_E_TYPE, TYPE_OFFSET); /* unless it was cut: that came first */
        return (struct lonely_result){ r.err, r.at };
    }
    if (m.minimal)
        read_minimal(&r, spec, found);
    else
        read_expanded(&r, spec, found);
    if (!reader_ok(&r))
        return (struct lonely_result){ r.err, r.at };
    result = decode_all(spec, found, r.at, &m);
    if (result.err != LONELY_OK)
        return result;
    if ((spec->rules & RULE_BODY) != 0) /* else what follows is ignored (Q2) */
        m.body = reader_rest(&r);
    result.err = check_body(spec, flags, &m);
    if (result.err == LONELY_OK)
        *out = m;
    return result;
}

struct lonely_result lonely_message_parse(enum lonely_direction direction, struct lonely_span frame,
                                          struct lonely_message *out)
{
    return lonely_message_parse_with(direction, frame, 0, out);
}

/* --- Writing. --- */

/* The low `n` bytes of `v` as a value. */
static struct lonely_span int_value(uint64_t v, size_t n, uint8_t scratch[8])
{
    struct writer w = writer_of(scratch, 8);

    writer_uint(&w, v, n);
    return (struct lonely_span){ scratch, n };
}

static size_t bytes_needed(uint64_t v)
{
    size_t n = 0;

    for (; v != 0; v >>= 8)
        n++;
    return n;
}

static enum lonely_error encode_uint(const struct header *h, uint64_t v, uint8_t scratch[8],
                                     struct lonely_span *out)
{
    size_t n = bytes_needed(v);

    if (n > h->limit)
        return LONELY_E_INTEGER_SIZE;
    if (h->kind == HEADER_FIX)
        n = h->limit;
    else if (h->kind == HEADER_MINZ && n == 0)
        n = 1;
    *out = int_value(v, n, scratch);
    return LONELY_OK;
}

static enum lonely_error encode_int(const struct header *h, int v, uint8_t scratch[8],
                                    struct lonely_span *out)
{
    if (v < INT16_MIN || v > INT16_MAX)
        return LONELY_E_INTEGER_SIZE;
    *out = int_value((uint64_t)(int64_t)v, h->limit, scratch);
    return LONELY_OK;
}

/* The bytes of one field, checked as the reader checks them (Q16). */
static enum lonely_error encode(const struct header *h, const void *field, uint8_t scratch[8],
                                struct lonely_span *out)
{
    switch (h->kind) {
    case HEADER_BYTES:
    case HEADER_TEXT:
    case HEADER_ID:
    case HEADER_NONCE:
    case HEADER_HASH:
        *out = *(const struct lonely_span *)field;
        if (out->len > LONELY_HEADER_MAX_BYTES &&
            (h->kind == HEADER_BYTES || h->kind == HEADER_TEXT))
            return LONELY_E_FIELD_SIZE;
        return check_span(h, *out);
    case HEADER_BOOL:
        *out = int_value(*(const bool *)field, 1, scratch);
        return LONELY_OK;
    case HEADER_FIX:
    case HEADER_MIN:
    case HEADER_MINZ:
        return encode_uint(h, *(const uint64_t *)field, scratch, out);
    case HEADER_SFIX:
        return encode_int(h, *(const int *)field, scratch, out);
    }
    return LONELY_E_ARGUMENT;
}

static enum lonely_error write_headers(struct writer *w, const struct message_spec *spec,
                                       const struct lonely_message *m)
{
    size_t n = headers_of(spec, (spec->rules & RULE_STREAM) != 0 ? m->as.stream.part_id : 0);

    if (!m->minimal)
        writer_u16(w, (uint16_t)n);
    for (size_t i = 0; i < n; i++) {
        const struct header *h = &spec->headers[i];
        struct lonely_span value;
        uint8_t scratch[8];
        enum lonely_error err = encode(h, (const char *)m + h->offset, scratch, &value);

        if (err != LONELY_OK)
            return err;
        if (!m->minimal)
            writer_b16(w, (struct lonely_span){ (const uint8_t *)h->name, h->name_len });
        writer_b16(w, value);
    }
    return lengths_agree(spec, m) ? LONELY_OK : LONELY_E_LENGTH_PAIR;
}

static enum lonely_error write_body(struct writer *w, const struct message_spec *spec,
                                    const struct lonely_message *m)
{
    if ((spec->rules & RULE_NOTIFY) != 0 && m->body.len != m->as.notify.compressed_length)
        return LONELY_E_BODY_LENGTH;
    if ((spec->rules & RULE_BODY) == 0 && m->body.len > 0)
        return LONELY_E_ARGUMENT;
    writer_span(w, m->body);
    return LONELY_OK;
}

/* What is wrong with the message comes before what is wrong with the buffer. */
static enum lonely_error serialize(const struct lonely_message *m, bool with_body, uint8_t *buf,
                                   size_t cap, size_t *len)
{
    const struct message_spec *spec = message_spec(m->direction, m->type);
    struct writer w = writer_of(buf, cap);
    enum lonely_error err;

    *len = 0;
    if (spec == NULL)
        return LONELY_E_TYPE;
    writer_u16(&w, m->minimal ? FLAG_MINIMAL : 0);
    writer_u16(&w, m->type);
    err = write_headers(&w, spec, m);
    if (err == LONELY_OK && with_body)
        err = write_body(&w, spec, m);
    if (err != LONELY_OK)
        return err;
    if (w.err == LONELY_OK || w.err == LONELY_E_NO_SPACE)
        *len = w.at;
    return w.err;
}

enum lonely_error lonely_message_serialize(const struct lonely_message *m, uint8_t *buf, size_t cap,
                                           size_t *len)
{
    return serialize(m, true, buf, cap, len);
}

enum lonely_error lonely_message_serialize_head(const struct lonely_message *m, uint8_t *buf,
                                                size_t cap, size_t *len)
{
    return serialize(m, false, buf, cap, len);
}
