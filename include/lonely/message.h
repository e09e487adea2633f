/*
 * The messages of the stateful protocol: their types, one struct for each, and the way between a
 * struct and the bytes of a frame (doc/protocol/stateful.md). Says nothing of the order of
 * messages nor of how a frame is carried (framing.h, or one binary websocket message a frame).
 *
 * All functions here are pure: no allocation, clock, errno or global state; safe on hostile input
 * and from any thread.
 */
#ifndef LONELY_MESSAGE_H
#define LONELY_MESSAGE_H

#include <stdbool.h>

#include <lonely/error.h>
#include <lonely/span.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LONELY_NONCE_BYTES          32
#define LONELY_IDENTIFIER_MAX_BYTES 64
#define LONELY_HEADER_MAX_BYTES     65535 /**< any header value */

/** Room for the prefix and header section of any message, in either mode; the body not counted. */
#define LONELY_MESSAGE_HEAD_MAX_BYTES 196928

/** Who speaks. Each direction has type numbers of its own, so a reader has to know its role. */
enum lonely_direction {
    LONELY_S2B, /**< subscriber to broadcaster */
    LONELY_B2S  /**< broadcaster to subscriber */
};

/** Message types, subscriber to broadcaster. (doc/protocol/stateful.md, 6) */
enum lonely_s2b {
    LONELY_S2B_CONFIGURE = 1,         /**< as.configure */
    LONELY_S2B_SUBSCRIBE_EXACT = 2,   /**< as.subscription */
    LONELY_S2B_SUBSCRIBE_GLOB = 3,    /**< as.subscription */
    LONELY_S2B_UNSUBSCRIBE_EXACT = 4, /**< as.subscription */
    LONELY_S2B_UNSUBSCRIBE_GLOB = 5,  /**< as.subscription */
    LONELY_S2B_NOTIFY = 6,            /**< as.notify, body */
    LONELY_S2B_NOTIFY_STREAM = 7,     /**< as.stream, body */
    LONELY_S2B_CONTINUE_RECEIVE = 8,  /**< as.continuation */
    LONELY_S2B_CONFIRM_RECEIVE = 9    /**< as.confirm_receive */
};

/** Message types, broadcaster to subscriber. (doc/protocol/stateful.md, 7) */
enum lonely_b2s {
    LONELY_B2S_CONFIRM_CONFIGURE = 1,         /**< as.confirm_configure */
    LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT = 2,   /**< as.subscription */
    LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB = 3,    /**< as.subscription */
    LONELY_B2S_CONFIRM_UNSUBSCRIBE_EXACT = 4, /**< as.subscription */
    LONELY_B2S_CONFIRM_UNSUBSCRIBE_GLOB = 5,  /**< as.subscription */
    LONELY_B2S_CONFIRM_NOTIFY = 6,            /**< as.confirm_notify */
    LONELY_B2S_CONTINUE_NOTIFY = 7,           /**< as.continuation */
    LONELY_B2S_RECEIVE_STREAM = 8,            /**< as.stream, body */
    LONELY_B2S_ENABLE_ZSTD_PRESET = 9,        /**< as.enable_zstd */
    LONELY_B2S_ENABLE_ZSTD_CUSTOM = 10,       /**< as.enable_zstd, body: the dictionary */
    LONELY_B2S_DISABLE_ZSTD_CUSTOM = 11,      /**< as.disable_zstd */
    LONELY_B2S_MISSED = 12                    /**< as.missed */
};

/*
 * One struct for each shape of header section. In all of them
 *   authorization  strict UTF-8; empty means absent, there is no "present but empty"
 *   tracing        opaque, usually empty (doc/protocol/tracing.md)
 *   identifier     0 to 64 opaque bytes, where it is a span
 *   nonce, sha512  exactly 32 and 64 bytes
 * and every span is at most 65,535 bytes. An empty span that was parsed has a NULL pointer.
 */

/** CONFIGURE. (doc/protocol/stateful.md, 6.1) */
struct lonely_msg_configure {
    struct lonely_span subscriber_nonce;
    bool enable_zstd;
    bool enable_training;
    uint64_t initial_dict; /**< 16 bits; 0: no wish, 2 and above: the preset asked for */
    struct lonely_span authorization;
    struct lonely_span tracing;
};

/** (UN)SUBSCRIBE_EXACT, (UN)SUBSCRIBE_GLOB and their confirmations. (6.2, 7.2) */
struct lonely_msg_subscription {
    struct lonely_span authorization;
    struct lonely_span tracing;
    struct lonely_span topic; /**< exact: the topic, any bytes; glob: the pattern, strict UTF-8 */
};

/** NOTIFY. (6.3) */
struct lonely_msg_notify {
    struct lonely_span authorization;
    struct lonely_span tracing;
    struct lonely_span identifier;
    struct lonely_span topic;
    uint64_t compressor;          /**< 0: not compressed; else the id of an enabled compressor */
    uint64_t compressed_length;   /**< bytes of the body as sent */
    uint64_t decompressed_length; /**< bytes after decompression */
    struct lonely_span compressed_sha512; /**< of the body as sent */
};

/**
 * NOTIFY_STREAM and RECEIVE_STREAM. (6.4) All after `part_id` is for part 0 only: zero when another
 * part was parsed, not looked at when one is written, so that one struct serves all parts.
 */
struct lonely_msg_stream {
    struct lonely_span authorization;
    struct lonely_span tracing;
    struct lonely_span identifier;
    uint64_t part_id;
    struct lonely_span topic;
    uint64_t compressor;
    uint64_t compressed_length;   /**< bytes of all parts together, as sent. Up to 2^64-1: */
    uint64_t decompressed_length; /**< never allocate from either */
    struct lonely_span compressed_sha512; /**< of all parts together, as sent */
};

/** CONTINUE_RECEIVE and CONTINUE_NOTIFY. (6.5, 7.4) */
struct lonely_msg_continuation {
    struct lonely_span identifier;
    uint64_t part_id; /**< the part that arrived */
    struct lonely_span authorization;
    struct lonely_span tracing;
};

/** CONFIRM_RECEIVE. (6.6) */
struct lonely_msg_confirm_receive {
    struct lonely_span identifier;
    struct lonely_span authorization;
    struct lonely_span tracing;
    uint64_t num_subscribers; /**< 32 bits */
};

/** CONFIRM_CONFIGURE. (7.1) */
struct lonely_msg_confirm_configure {
    struct lonely_span broadcaster_nonce;
    struct lonely_span authorization;
    struct lonely_span tracing;
};

/** CONFIRM_NOTIFY. (7.3) */
struct lonely_msg_confirm_notify {
    struct lonely_span identifier;
    uint64_t subscribers;
    struct lonely_span authorization;
    struct lonely_span tracing;
};

/**
 * ENABLE_ZSTD_PRESET and ENABLE_ZSTD_CUSTOM. (7.6, 7.7) Documented ranges are the session's
 * business: a frame with another identifier or level is valid. (Q5)
 */
struct lonely_msg_enable_zstd {
    uint64_t identifier;   /**< of the compressor */
    int compression_level; /**< 16 bits, signed */
    uint64_t min_size;     /**< 32 bits; bytes, inclusive */
    uint64_t max_size;     /**< bytes, exclusive; 2^64-1 (and 0, on read): none */
    struct lonely_span authorization;
    struct lonely_span tracing;
    struct lonely_span sha512; /**< CUSTOM only: of the body. Not compared when parsing (Q6) */
};

/** DISABLE_ZSTD_CUSTOM. (7.8) */
struct lonely_msg_disable_zstd {
    uint64_t identifier;
    struct lonely_span authorization;
    struct lonely_span tracing;
};

/** MISSED. (7.9) */
struct lonely_msg_missed {
    struct lonely_span authorization;
    struct lonely_span tracing;
    struct lonely_span topic;
};

/** One message. Plain data: nothing in it is owned. */
struct lonely_message {
    enum lonely_direction direction;
    uint16_t type; /**< enum lonely_s2b or enum lonely_b2s; says which member of `as` counts */
    bool minimal;  /**< headers without names; each end chooses for what it sends */
    union {
        struct lonely_msg_configure configure;
        struct lonely_msg_subscription subscription;
        struct lonely_msg_notify notify;
        struct lonely_msg_stream stream;
        struct lonely_msg_continuation continuation;
        struct lonely_msg_confirm_receive confirm_receive;
        struct lonely_msg_confirm_configure confirm_configure;
        struct lonely_msg_confirm_notify confirm_notify;
        struct lonely_msg_enable_zstd enable_zstd;
        struct lonely_msg_disable_zstd disable_zstd;
        struct lonely_msg_missed missed;
    } as;
    struct lonely_span body; /**< empty in messages that have none */
};

/** Flags of lonely_message_parse_with(). */
enum lonely_parse_flags {
    /** Do not hash the body of a NOTIFY: the caller has, or will. */
    LONELY_PARSE_NO_HASH = 1,
    /**
     * `frame` may be only the beginning of one: neither the length nor the hash of a NOTIFY's body
     * is checked, and `body` is what there is of it. LONELY_E_TRUNCATED may then mean that more
     * bytes are needed.
     */
    LONELY_PARSE_HEAD = 2
};

/**
 * Parses one frame.                                        (doc/protocol/stateful.md, 3 to 10)
 *
 * @param direction  who sent it
 * @param frame      one whole frame, of any length
 * @param out        filled on LONELY_OK only; its spans point into `frame`, which must outlive it
 * @return .err LONELY_OK, or the first fault in the order of section 10:
 *              _E_TRUNCATED      a field reaches past the end of the frame
 *              _E_TYPE           the direction has no such type
 *              _E_HEADER_NAME    a header name holds a byte of 0x80 or more
 *              _E_HEADER_MISSING an expanded header section lacks a header
 *              _E_NONCE_SIZE, _E_HASH_SIZE, _E_INTEGER_SIZE, _E_IDENTIFIER_SIZE, _E_UTF8
 *                                the value of a header
 *              _E_BODY_LENGTH, _E_BODY_HASH  NOTIFY: the body is not the one announced
 *              _E_LENGTH_PAIR    not compressed, and yet the two lengths differ
 *              _E_CRYPTO         the hash could not be computed
 *         .at  the offset of the body on LONELY_OK, else of the field, value or body at fault
 *
 * Any fault means: close the connection. Bytes after the headers of a message that has no body,
 * unknown flag bits and unknown expanded headers are ignored. Hashes the body of a NOTIFY
 * (SHA-512).
 */
LONELY_API struct lonely_result lonely_message_parse(enum lonely_direction direction,
                                                     struct lonely_span frame,
                                                     struct lonely_message *out);

/** The same with `flags` of enum lonely_parse_flags, or 0. */
LONELY_API struct lonely_result lonely_message_parse_with(enum lonely_direction direction,
                                                          struct lonely_span frame, unsigned flags,
                                                          struct lonely_message *out);

/**
 * Writes one frame, in the mode that `m->minimal` says.    (doc/protocol/stateful.md, 3 to 7)
 *
 * @param buf  where to; NULL only asks for the size (`cap` is then ignored)
 * @param cap  room at `buf`
 * @param len  bytes written; on LONELY_E_NO_SPACE bytes needed; on any other error 0
 * @return LONELY_OK, or the first of (Q16: nothing is written that a reader would refuse)
 *         _E_TYPE             no such direction or type
 *         _E_FIELD_SIZE       a span above 65,535 bytes
 *         _E_NONCE_SIZE, _E_HASH_SIZE, _E_IDENTIFIER_SIZE, _E_UTF8
 *         _E_INTEGER_SIZE     an integer beyond the bits of its header
 *         _E_BODY_LENGTH      NOTIFY: `compressed_length` is not the body's
 *         _E_LENGTH_PAIR      compressor 0, and yet the two lengths differ
 *         _E_ARGUMENT         a body in a message that has none
 *         _E_NO_SPACE         `cap` is too small
 *
 * The hash of a NOTIFY is not computed: that the body matches it is the caller's promise. After
 * an error the content of `buf` is undefined.
 */
LONELY_API enum lonely_error lonely_message_serialize(const struct lonely_message *m, uint8_t *buf,
                                                      size_t cap, size_t *len);

/**
 * The same without the body, which the caller sends right behind it: from another buffer, a file,
 * or to many. `m->body` is not looked at, so neither _E_BODY_LENGTH nor _E_ARGUMENT is returned.
 * At most LONELY_MESSAGE_HEAD_MAX_BYTES.
 */
LONELY_API enum lonely_error lonely_message_serialize_head(const struct lonely_message *m,
                                                           uint8_t *buf, size_t cap, size_t *len);

/** The name of a type, such as "RECEIVE_STREAM"; static; NULL if the direction has no such type. */
LONELY_API const char *lonely_message_name(enum lonely_direction direction, unsigned type);

/** Whether messages of the type carry a body: notifications, their parts, a custom dictionary. */
LONELY_API bool lonely_message_has_body(enum lonely_direction direction, unsigned type);

#ifdef __cplusplus
}
#endif

#endif
