/*
 * The bodies of the stateless API: one table of fields a body, walked by one parser and one
 * serializer. Called by the broadcaster's routes and deliveries, by the client and by its receiver.
 * What follows a head is left to others: the lists of SET_SUBSCRIPTIONS to set.c, messages to the
 * caller; and so is everything of HTTP but Repr-Digest (repr_digest.c).
 */
#include <lonely/stateless.h>

#include "reader.h"
#include "utf8.h"
#include "writer.h"

enum field_kind {
    END, /* of a body's fields */
    CODE,
    BYTES16,
    TEXT16,
    BYTES8,
    HASH,
    FORMAT,
    U32,
    U64
};

struct field {
    enum field_kind kind;
    size_t offset; /* in struct lonely_stateless; CODE and FORMAT are constants and not kept */
};

#define FIELD(kind, member)                             \
    {                                                   \
        kind, offsetof(struct lonely_stateless, member) \
    }
#define TYPE_CODE     FIELD(CODE, hash)
#define AUTHORIZATION FIELD(TEXT16, authorization)
#define TRACING       FIELD(BYTES16, tracing)
#define URL           FIELD(TEXT16, url)
#define TOPIC         FIELD(BYTES16, topic)
#define GLOB          FIELD(TEXT16, topic)
#define RECOVERY      FIELD(TEXT16, recovery)
#define IDENTIFIER    FIELD(BYTES8, identifier)
#define SHA512        FIELD(HASH, hash)
#define ETAG          FIELD(FORMAT, hash), FIELD(HASH, hash)
#define COUNT         FIELD(U32, count)
#define LENGTH        FIELD(U64, message_len)
#define FIELDS_MAX    6 /* five, and END */

static const struct field bodies[][FIELDS_MAX] = {
    [LONELY_STATELESS_NOTIFY] = { TOPIC, SHA512, TRACING, IDENTIFIER, LENGTH },
    [LONELY_STATELESS_SUBSCRIBE_EXACT] = { URL, TOPIC, RECOVERY, TRACING },
    [LONELY_STATELESS_SUBSCRIBE_GLOB] = { URL, GLOB, RECOVERY, TRACING },
    [LONELY_STATELESS_UNSUBSCRIBE_EXACT] = { URL, TOPIC, TRACING },
    [LONELY_STATELESS_UNSUBSCRIBE_GLOB] = { URL, GLOB, TRACING },
    [LONELY_STATELESS_CHECK_SUBSCRIPTIONS] = { TRACING, URL },
    [LONELY_STATELESS_SET_SUBSCRIPTIONS] = { TRACING, URL, ETAG, COUNT },
    [LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE] = { TYPE_CODE, AUTHORIZATION, TRACING, IDENTIFIER,
                                                    COUNT },
    [LONELY_STATELESS_RESPONSE_CONFIRM_MISSED] = { TYPE_CODE, AUTHORIZATION, TRACING },
    [LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE] = { TYPE_CODE },
    [LONELY_STATELESS_RECEIVE] = { TRACING, TOPIC, IDENTIFIER, LENGTH },
    [LONELY_STATELESS_MISSED] = { TRACING, TOPIC },
    [LONELY_STATELESS_RESPONSE_GENERIC] = { TYPE_CODE, AUTHORIZATION, TRACING },
    [LONELY_STATELESS_RESPONSE_NOTIFY] = { TYPE_CODE, AUTHORIZATION, TRACING, COUNT, IDENTIFIER },
    [LONELY_STATELESS_RESPONSE_CHECK_SUBSCRIPTIONS] = { TYPE_CODE, AUTHORIZATION, TRACING, ETAG },
};

/* Bytes of a field on the wire, without those that its length announces, and the most of these. */
static const struct {
    size_t fixed, counted_max;
} sizes[] = {
    [END] = { 0, 0 },
    [CODE] = { 2, 0 },
    [BYTES16] = { 2, LONELY_FIELD16_MAX_BYTES },
    [TEXT16] = { 2, LONELY_FIELD16_MAX_BYTES },
    [BYTES8] = { 1, LONELY_STATELESS_IDENTIFIER_MAX_BYTES },
    [HASH] = { LONELY_SHA512_BYTES, 0 },
    [FORMAT] = { 1, 0 },
    [U32] = { 4, 0 },
    [U64] = { 8, 0 },
};

/* NULL when `type` is no body. */
static const struct field *body_fields(enum lonely_stateless_type type)
{
    size_t i = (size_t)type;

    if (i >= sizeof bodies / sizeof *bodies || bodies[i][0].kind == END)
        return NULL;
    return bodies[i];
}

static uint16_t type_code(enum lonely_stateless_type type)
{
    return (uint16_t)((unsigned)type & (LONELY_STATELESS_B2S - 1U));
}

/* How long the field is that starts at the cursor, as far as the bytes that are there can tell. */
static size_t field_size(enum field_kind kind, struct reader ahead)
{
    size_t size = sizes[kind].fixed;

    if (sizes[kind].counted_max > 0 && reader_left(&ahead) >= size)
        size += (size_t)reader_uint(&ahead, size);
    return size;
}

/* Reads a field that is known to be there as a whole. */
static void field_read(struct reader *r, const struct field *f, enum lonely_stateless_type type,
                       struct lonely_stateless *out)
{
    char *to = (char *)out + f->offset;
    struct lonely_span *span = (struct lonely_span *)(void *)to;
    size_t start = r->at;

    switch (f->kind) {
    case CODE:
        if (reader_u16(r) != type_code(type))
            reader_fail_at(r, LONELY_E_TYPE, start);
        break;
    case FORMAT:
        if (reader_u8(r) != 0)
            reader_fail_at(r, LONELY_E_ETAG_FORMAT, start);
        break;
    case BYTES16:
        *span = reader_b16(r);
        break;
    case TEXT16:
        *span = reader_b16(r);
        if (!utf8_is_valid(*span))
            reader_fail_at(r, LONELY_E_UTF8, start);
        break;
    case BYTES8:
        *span = reader_b8(r);
        break;
    case HASH:
        *span = reader_take(r, LONELY_SHA512_BYTES);
        break;
    case U32:
        *(uint32_t *)(void *)to = reader_u32(r);
        break;
    case U64:
        *(uint64_t *)(void *)to = reader_u64(r);
        break;
    case END:
        break;
    }
}

struct lonely_result lonely_stateless_parse(enum lonely_stateless_type type,
                                            struct lonely_span bytes, struct lonely_stateless *out)
{
    const struct field *f = body_fields(type);
    struct reader r = reader_of(bytes);
    struct lonely_stateless body = { 0 };

    if (f == NULL)
        return (struct lonely_result){ LONELY_E_TYPE, 0 };
    for (; f->kind != END && reader_ok(&r); f++) {
        size_t size = field_size(f->kind, r);

        if (size > reader_left(&r))
            return (struct lonely_result){ LONELY_E_TRUNCATED, r.at + size };
        field_read(&r, f, type, &body);
    }
    if (reader_ok(&r))
        *out = body;
    return (struct lonely_result){ r.err, r.at };
}

static enum lonely_error text_check(struct lonely_span text)
{
    if (text.len > LONELY_FIELD16_MAX_BYTES)
        return LONELY_E_FIELD_SIZE;
    return utf8_is_valid(text) ? LONELY_OK : LONELY_E_UTF8;
}

/* Writes a field, or returns what is wrong with its value. Missing room is left to the writer. */
static enum lonely_error field_write(struct writer *w, const struct field *f,
                                     enum lonely_stateless_type type,
                                     const struct lonely_stateless *body)
{
    const char *from = (const char *)body + f->offset;
    const struct lonely_span *span = (const struct lonely_span *)(const void *)from;
    enum lonely_error err = LONELY_OK;

    switch (f->kind) {
    case CODE:
        writer_u16(w, type_code(type));
        break;
    case FORMAT:
        writer_u8(w, 0);
        break;
    case TEXT16:
        err = text_check(*span);
        writer_b16(w, *span);
        break;
    case BYTES16:
        err = span->len > LONELY_FIELD16_MAX_BYTES ? LONELY_E_FIELD_SIZE : LONELY_OK;
        writer_b16(w, *span);
        break;
    case BYTES8:
        err = span->len > LONELY_STATELESS_IDENTIFIER_MAX_BYTES ? LONELY_E_IDENTIFIER_SIZE
                                                                : LONELY_OK;
        writer_b8(w, *span);
        break;
    case HASH:
        err = span->len != LONELY_SHA512_BYTES ? LONELY_E_HASH_SIZE : LONELY_OK;
        writer_span(w, *span);
        break;
    case U32:
        writer_u32(w, *(const uint32_t *)(const void *)from);
        break;
    case U64:
        writer_u64(w, *(const uint64_t *)(const void *)from);
        break;
    case END:
        break;
    }
    return err;
}

struct lonely_result lonely_stateless_write(enum lonely_stateless_type type,
                                            const struct lonely_stateless *body, uint8_t *buf,
                                            size_t cap)
{
    const struct field *f = body_fields(type);
    struct writer w = writer_of(buf, buf != NULL ? cap : 0);

    if (f == NULL)
        return (struct lonely_result){ LONELY_E_TYPE, 0 };
    for (; f->kind != END; f++) {
        size_t start = w.at;
        enum lonely_error err = field_write(&w, f, type, body);

        if (err != LONELY_OK)
            return (struct lonely_result){ err, start };
    }
    if (w.at > w.cap) /* a writer without a buffer only counts */
        w.err = LONELY_E_NO_SPACE;
    return (struct lonely_result){ w.err, w.at };
}

size_t lonely_stateless_max(enum lonely_stateless_type type)
{
    const struct field *f = body_fields(type);
    size_t max = 0;

    for (; f != NULL && f->kind != END; f++)
        max += sizes[f->kind].fixed + sizes[f->kind].counted_max;
    return max;
}
