/*
 * The header tables of doc/protocol/stateful.md, 6 and 7, in the order of minimal mode. message.c
 * reads and writes by them, connection.c and programs that print frames ask them for names.
 */
#include "message_table.h"

#include <stddef.h>

#define FIELD(member) offsetof(struct lonely_message, as.member)
#define H(name, kind, limit, member)                                       \
    {                                                                      \
        name, sizeof(name) - 1, HEADER_##kind, limit, false, FIELD(member) \
    }
#define OPTIONAL(name, kind, limit, member)                               \
    {                                                                     \
        name, sizeof(name) - 1, HEADER_##kind, limit, true, FIELD(member) \
    }

static const struct header configure[] = {
    H("x-subscriber-nonce", NONCE, 0, configure.subscriber_nonce),
    H("x-enable-zstd", BOOL, 0, configure.enable_zstd),
    H("x-enable-training", BOOL, 0, configure.enable_training),
    OPTIONAL("x-initial-dict", FIX, 2, configure.initial_dict), /* Q1 */
    H("authorization", TEXT, 0, configure.authorization),
    H("x-tracing", BYTES, 0, configure.tracing),
};

static const struct header request_exact[] = {
    H("authorization", TEXT, 0, subscription.authorization),
    H("x-tracing", BYTES, 0, subscription.tracing),
    H("x-topic", BYTES, 0, subscription.topic),
};

static const struct header request_glob[] = {
    H("authorization", TEXT, 0, subscription.authorization),
    H("x-tracing", BYTES, 0, subscription.tracing),
    H("x-glob", TEXT, 0, subscription.topic),
};

/* In the confirmations the topic or glob comes first. */
static const struct header confirm_exact[] = {
    H("x-topic", BYTES, 0, subscription.topic),
    H("authorization", TEXT, 0, subscription.authorization),
    H("x-tracing", BYTES, 0, subscription.tracing),
};

static const struct header confirm_glob[] = {
    H("x-glob", TEXT, 0, subscription.topic),
    H("authorization", TEXT, 0, subscription.authorization),
    H("x-tracing", BYTES, 0, subscription.tracing),
};

static const struct header notify[] = {
    H("authorization", TEXT, 0, notify.authorization),
    H("x-tracing", BYTES, 0, notify.tracing),
    H("x-identifier", ID, 0, notify.identifier),
    H("x-topic", BYTES, 0, notify.topic),
    H("x-compressor", MINZ, 8, notify.compressor),
    H("x-compressed-length", MIN, 8, notify.compressed_length),
    H("x-decompressed-length", MIN, 8, notify.decompressed_length),
    H("x-compressed-sha512", HASH, 0, notify.compressed_sha512),
};

static const struct header stream[] = {
    H("authorization", TEXT, 0, stream.authorization),
    H("x-tracing", BYTES, 0, stream.tracing),
    H("x-identifier", ID, 0, stream.identifier),
    H("x-part-id", MINZ, 8, stream.part_id),
    H("x-topic", BYTES, 0, stream.topic),
    H("x-compressor", MINZ, 8, stream.compressor),
    H("x-compressed-length", MIN, 8, stream.compressed_length),
    H("x-decompressed-length", MIN, 8, stream.decompressed_length),
    H("x-compressed-sha512", HASH, 0, stream.compressed_sha512),
};

/* Here, unlike in the streams, part 0 is written empty (Q7). */
static const struct header continuation[] = {
    H("x-identifier", ID, 0, continuation.identifier),
    H("x-part-id", MIN, 8, continuation.part_id),
    H("authorization", TEXT, 0, continuation.authorization),
    H("x-tracing", BYTES, 0, continuation.tracing),
};

static const struct header confirm_receive[] = {
    H("x-identifier", ID, 0, confirm_receive.identifier),
    H("authorization", TEXT, 0, confirm_receive.authorization),
    H("x-tracing", BYTES, 0, confirm_receive.tracing),
    H("x-num-subscribers", FIX, 4, confirm_receive.num_subscribers),
};

static const struct header confirm_configure[] = {
    H("x-broadcaster-nonce", NONCE, 0, confirm_configure.broadcaster_nonce),
    H("authorization", TEXT, 0, confirm_configure.authorization),
    H("x-tracing", BYTES, 0, confirm_configure.tracing),
};

static const struct header confirm_notify[] = {
    H("x-identifier", ID, 0, confirm_notify.identifier),
    H("x-subscribers", MIN, 8, confirm_notify.subscribers),
    H("authorization", TEXT, 0, confirm_notify.authorization),
    H("x-tracing", BYTES, 0, confirm_notify.tracing),
};

/* A preset has all but the last. */
static const struct header enable_zstd[] = {
    H("x-identifier", MIN, 8, enable_zstd.identifier),
    H("x-compression-level", SFIX, 2, enable_zstd.compression_level),
    H("x-min-size", MIN, 4, enable_zstd.min_size),
    H("x-max-size", MIN, 8, enable_zstd.max_size),
    H("authorization", TEXT, 0, enable_zstd.authorization),
    H("x-tracing", BYTES, 0, enable_zstd.tracing),
    H("x-sha512", HASH, 0, enable_zstd.sha512),
};

static const struct header disable_zstd[] = {
    H("x-identifier", MIN, 8, disable_zstd.identifier),
    H("authorization", TEXT, 0, disable_zstd.authorization),
    H("x-tracing", BYTES, 0, disable_zstd.tracing),
};

static const struct header missed[] = {
    H("authorization", TEXT, 0, missed.authorization),
    H("x-tracing", BYTES, 0, missed.tracing),
    H("x-topic", BYTES, 0, missed.topic),
};

#define N(headers)      (sizeof(headers) / sizeof((headers)[0]))
#define M(prefix, name) [LONELY_##prefix##_##name]
#define ALL(name, headers)           \
    {                                \
        name, headers, N(headers), 0 \
    }

_Static_assert(N(stream) == HEADERS_MAX, "the stream messages have the most headers");

static const struct message_spec s2b[] = {
    M(S2B, CONFIGURE) = ALL("CONFIGURE", configure),
    M(S2B, SUBSCRIBE_EXACT) = ALL("SUBSCRIBE_EXACT", request_exact),
    M(S2B, SUBSCRIBE_GLOB) = ALL("SUBSCRIBE_GLOB", request_glob),
    M(S2B, UNSUBSCRIBE_EXACT) = ALL("UNSUBSCRIBE_EXACT", request_exact),
    M(S2B, UNSUBSCRIBE_GLOB) = ALL("UNSUBSCRIBE_GLOB", request_glob),
    M(S2B, NOTIFY) = { "NOTIFY", notify, N(notify), RULE_BODY | RULE_NOTIFY },
    M(S2B, NOTIFY_STREAM) = { "NOTIFY_STREAM", stream, N(stream), RULE_BODY | RULE_STREAM },
    M(S2B, CONTINUE_RECEIVE) = ALL("CONTINUE_RECEIVE", continuation),
    M(S2B, CONFIRM_RECEIVE) = ALL("CONFIRM_RECEIVE", confirm_receive),
};

static const struct message_spec b2s[] = {
    M(B2S, CONFIRM_CONFIGURE) = ALL("CONFIRM_CONFIGURE", confirm_configure),
    M(B2S, CONFIRM_SUBSCRIBE_EXACT) = ALL("CONFIRM_SUBSCRIBE_EXACT", confirm_exact),
    M(B2S, CONFIRM_SUBSCRIBE_GLOB) = ALL("CONFIRM_SUBSCRIBE_GLOB", confirm_glob),
    M(B2S, CONFIRM_UNSUBSCRIBE_EXACT) = ALL("CONFIRM_UNSUBSCRIBE_EXACT", confirm_exact),
    M(B2S, CONFIRM_UNSUBSCRIBE_GLOB) = ALL("CONFIRM_UNSUBSCRIBE_GLOB", confirm_glob),
    M(B2S, CONFIRM_NOTIFY) = ALL("CONFIRM_NOTIFY", confirm_notify),
    M(B2S, CONTINUE_NOTIFY) = ALL("CONTINUE_NOTIFY", continuation),
    M(B2S, RECEIVE_STREAM) = { "RECEIVE_STREAM", stream, N(stream), RULE_BODY | RULE_STREAM },
    M(B2S, ENABLE_ZSTD_PRESET) = { "ENABLE_ZSTD_PRESET", enable_zstd, N(enable_zstd) - 1, 0 },
    M(B2S, ENABLE_ZSTD_CUSTOM) = { "ENABLE_ZSTD_CUSTOM", enable_zstd, N(enable_zstd), RULE_BODY },
    M(B2S, DISABLE_ZSTD_CUSTOM) = ALL("DISABLE_ZSTD_CUSTOM", disable_zstd),
    M(B2S, MISSED) = ALL("MISSED", missed),
};

const struct message_spec *message_spec(enum lonely_direction direction, unsigned type)
{
    if (direction == LONELY_S2B && type > 0 && type < N(s2b))
        return &s2b[type];
    if (direction == LONELY_B2S && type > 0 && type < N(b2s))
        return &b2s[type];
    return NULL;
}

const char *lonely_message_name(enum lonely_direction direction, unsigned type)
{
    const struct message_spec *spec = message_spec(direction, type);

    return spec == NULL ? NULL : spec->name;
}

bool lonely_message_has_body(enum lonely_direction direction, unsigned type)
{
    const struct message_spec *spec = message_spec(direction, type);

    return spec != NULL && (spec->rules & RULE_BODY) != 0;
}
