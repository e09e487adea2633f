/*
 * The signed bytes of the 21 operations, walked from one table that reads as the table of the
 * specification (doc/protocol/auth.md, 4). Called by auth_hmac.c; knows no key and no MAC.
 */
#include "auth_bytes.h"

#include <endian.h>
#include <string.h>

enum kind {
    END,
    BYTES8,  /* span: u8 length and the bytes */
    BYTES16, /* span: u16 length and the bytes */
    HASH,    /* span of exactly 64 bytes, no length */
    ETAG,    /* the same behind the format byte 0 */
    NONCE,   /* span of exactly 32 bytes behind its u8 length */
    FLAG,    /* bool as u8 */
    INT16,   /* uint16_t */
    INT32,   /* uint64_t that fits u32 */
    INT64,   /* uint64_t */
    PART8,   /* uint64_t, the low 8 bits [A6] */
    LEVEL    /* int64_t that fits u32, or its two's complement [A7] */
};

struct field {
    uint8_t kind;
    uint8_t offset; /* in struct lonely_auth_input */
};

#define MAX_FIELDS 6
#define F(kind, member)                                  \
    {                                                    \
        kind, offsetof(struct lonely_auth_input, member) \
    }

#define URL          F(BYTES16, url)
#define RECOVERY     F(BYTES16, recovery)
#define TOPIC        F(BYTES16, topic)
#define IDENTIFIER   F(BYTES8, identifier)
#define SHA          F(HASH, hash)
#define STRONG_ETAG  F(ETAG, hash)
#define CONN_NONCE   F(NONCE, nonce)
#define SUBSCRIBERS  F(INT32, subscribers)
#define COMPRESSOR   F(INT32, compressor)
#define PRESET_SIZES F(LEVEL, level), F(INT64, min_size), F(INT64, max_size)

static const struct field operations[][MAX_FIELDS] = {
    [LONELY_AUTH_SUBSCRIBE_EXACT] = { URL, RECOVERY, TOPIC },
    [LONELY_AUTH_SUBSCRIBE_GLOB] = { URL, RECOVERY, TOPIC },
    [LONELY_AUTH_NOTIFY] = { TOPIC, IDENTIFIER, SHA },
    [LONELY_AUTH_STATEFUL_CONFIGURE] = { CONN_NONCE, F(FLAG, enable_zstd), F(FLAG, enable_training),
                                         F(INT16, initial_dict) },
    [LONELY_AUTH_CHECK_SUBSCRIPTIONS] = { URL },
    [LONELY_AUTH_SET_SUBSCRIPTIONS] = { URL, STRONG_ETAG },
    [LONELY_AUTH_STATEFUL_CONTINUE_RECEIVE] = { IDENTIFIER, F(PART8, part_id), URL },
    [LONELY_AUTH_CONFIRM_RECEIVE] = { IDENTIFIER, SUBSCRIBERS, URL },
    [LONELY_AUTH_CONFIRM_MISSED] = { TOPIC, URL },
    [LONELY_AUTH_RECEIVE] = { URL, TOPIC, IDENTIFIER, SHA },
    [LONELY_AUTH_MISSED] = { RECOVERY, TOPIC },
    [LONELY_AUTH_CONFIRM_SUBSCRIBE_EXACT] = { URL, RECOVERY, TOPIC },
    [LONELY_AUTH_CONFIRM_SUBSCRIBE_GLOB] = { URL, RECOVERY, TOPIC },
    [LONELY_AUTH_CONFIRM_NOTIFY] = { IDENTIFIER, SUBSCRIBERS, TOPIC, SHA },
    [LONELY_AUTH_CHECK_SUBSCRIPTIONS_RESPONSE] = { STRONG_ETAG },
    [LONELY_AUTH_SET_SUBSCRIPTIONS_RESPONSE] = { STRONG_ETAG },
    [LONELY_AUTH_STATEFUL_CONFIRM_CONFIGURE] = { CONN_NONCE },
    [LONELY_AUTH_STATEFUL_ENABLE_ZSTD_PRESET] = { URL, COMPRESSOR, PRESET_SIZES },
    [LONELY_AUTH_STATEFUL_ENABLE_ZSTD_CUSTOM] = { URL, COMPRESSOR, PRESET_SIZES, SHA },
    [LONELY_AUTH_STATEFUL_DISABLE_ZSTD_CUSTOM] = { COMPRESSOR, URL },
    [LONELY_AUTH_STATEFUL_CONTINUE_NOTIFY] = { IDENTIFIER, F(INT32, part_id) },
};

#define N_OPERATIONS (sizeof operations / sizeof operations[0])

_Static_assert(sizeof(struct lonely_auth_input) <= UINT8_MAX, "field.offset is too narrow");

/* Small writes are gathered in `buf`, because a call into OpenSSL costs as much as hashing 30 bytes. */
struct stream {
    auth_sink_fn *sink;
    void *arg;
    enum lonely_error err; /* the first one; nothing is written after it */
    size_t len;
    uint8_t buf[512];
};

static void stream_fail(struct stream *s, enum lonely_error err)
{
    if (s->err == LONELY_OK)
        s->err = err;
}

static void stream_flush(struct stream *s)
{
    if (s->err == LONELY_OK && s->len > 0 && !s->sink(s->arg, s->buf, s->len))
        stream_fail(s, LONELY_E_CRYPTO);
    s->len = 0;
}

static void put_bytes(struct stream *s, const uint8_t *bytes, size_t len)
{
    if (len > sizeof s->buf - s->len)
        stream_flush(s);
    if (len > sizeof s->buf) {
        if (s->err == LONELY_OK && !s->sink(s->arg, bytes, len))
            stream_fail(s, LONELY_E_CRYPTO);
    } else if (len > 0) {
        memcpy(s->buf + s->len, bytes, len);
        s->len += len;
    }
}

/* Big-endian, the low `width` bytes of `value`. Writes eight bytes into the buffer whatever the
 * width: one store is faster than a loop, and what is too much is overwritten or not sent. */
static inline void put_uint(struct stream *s, uint64_t value, size_t width)
{
    const uint64_t big_endian = htobe64(value << (64 - 8 * width));

    if (sizeof s->buf - s->len < sizeof big_endian)
        stream_flush(s);
    memcpy(s->buf + s->len, &big_endian, sizeof big_endian);
    s->len += width;
}

static void put_checked(struct stream *s, uint64_t value, size_t width)
{
    if (value >> (8 * width) != 0)
        stream_fail(s, LONELY_E_FIELD_SIZE);
    put_uint(s, value, width);
}

static void put_span(struct stream *s, struct lonely_span span, size_t width)
{
    put_checked(s, span.len, width);
    if (s->err == LONELY_OK)
        put_bytes(s, span.ptr, span.len);
}

static void put_exactly(struct stream *s, struct lonely_span span, size_t len)
{
    if (span.len != len)
        stream_fail(s, LONELY_E_FIELD_SIZE);
    else
        put_bytes(s, span.ptr, len);
}

static void put_level(struct stream *s, int64_t level)
{
    if (level < INT32_MIN || level > UINT32_MAX)
        stream_fail(s, LONELY_E_FIELD_SIZE);
    put_uint(s, (uint64_t)level, 4);
}

static void put_field(struct stream *s, enum kind kind, const void *field)
{
    switch (kind) {
    case END:
        break;
    case BYTES8:
        put_span(s, *(const struct lonely_span *)field, 1);
        break;
    case BYTES16:
        put_span(s, *(const struct lonely_span *)field, 2);
        break;
    case ETAG:
        put_uint(s, 0, 1);
        put_exactly(s, *(const struct lonely_span *)field, 64);
        break;
    case HASH:
        put_exactly(s, *(const struct lonely_span *)field, 64);
        break;
    case NONCE:
        put_uint(s, 32, 1);
        put_exactly(s, *(const struct lonely_span *)field, 32);
        break;
    case FLAG:
        put_uint(s, *(const bool *)field, 1);
        break;
    case INT16:
        put_uint(s, *(const uint16_t *)field, 2);
        break;
    case INT32:
        put_checked(s, *(const uint64_t *)field, 4);
        break;
    case INT64:
        put_uint(s, *(const uint64_t *)field, 8);
        break;
    case PART8:
        put_uint(s, *(const uint64_t *)field, 1);
        break;
    case LEVEL:
        put_level(s, *(const int64_t *)field);
        break;
    }
}

enum lonely_error auth_bytes(const struct lonely_auth_input *in, uint64_t timestamp_epoch_s,
                             struct lonely_span nonce, auth_sink_fn *sink, void *arg)
{
    struct stream s; /* not initialized: clearing `buf` would cost as much as the walk */

    if (in == NULL || in->op < LONELY_AUTH_SUBSCRIBE_EXACT || (size_t)in->op >= N_OPERATIONS)
        return LONELY_E_ARGUMENT;

    s.sink = sink;
    s.arg = arg;
    s.err = LONELY_OK;
    s.len = 0;
    put_uint(&s, (uint64_t)in->op, 1);
    put_uint(&s, timestamp_epoch_s, 8);
    put_span(&s, nonce, 1);
    put_span(&s, in->tracing, 2);
    for (size_t i = 0; i < MAX_FIELDS && s.err == LONELY_OK; i++) {
        const struct field *f = &operations[in->op][i];

        put_field(&s, f->kind, (const char *)in + f->offset);
    }
    stream_flush(&s);
    return s.err;
}

bool auth_bytes_level_is_negative(const struct lonely_auth_input *in)
{
    return (in->op == LONELY_AUTH_STATEFUL_ENABLE_ZSTD_PRESET ||
            in->op == LONELY_AUTH_STATEFUL_ENABLE_ZSTD_CUSTOM) &&
           in->level < 0;
}

struct lonely_span auth_bytes_url(const struct lonely_auth_input *in)
{
    if (in->op == LONELY_AUTH_MISSED)
        return in->recovery;
    for (size_t i = 0; i < MAX_FIELDS; i++) {
        const struct field *f = &operations[in->op][i];

        if (f->kind != END && f->offset == offsetof(struct lonely_auth_input, url))
            return in->url;
    }
    return (struct lonely_span){ 0 };
}
