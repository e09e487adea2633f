/*
 * The bodies of the stateless HTTP API: requests, responses, the calls that a broadcaster makes and
 * their replies. Bytes <-> structs only: paths, statuses and headers are the caller's, except for
 * the value of Repr-Digest.                                          (doc/protocol/http.md, 1 to 5)
 *
 * Every function here is pure: no allocation, clock, errno or global state; safe on hostile input
 * and callable from any thread.
 */
#ifndef LONELY_STATELESS_H
#define LONELY_STATELESS_H

#include <stdbool.h>

#include <lonely/error.h>
#include <lonely/span.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The bodies. The low four bits are the message type code of http.md, 1; LONELY_STATELESS_B2S is
 * set for what a broadcaster sends. Only the six bodies that answer something (marked) carry their
 * code on the wire.
 */
enum lonely_stateless_type {
    LONELY_STATELESS_NOTIFY = 1, /**< head only, the message follows */
    LONELY_STATELESS_SUBSCRIBE_EXACT = 2,
    LONELY_STATELESS_SUBSCRIBE_GLOB = 3,
    LONELY_STATELESS_UNSUBSCRIBE_EXACT = 4,
    LONELY_STATELESS_UNSUBSCRIBE_GLOB = 5,
    LONELY_STATELESS_CHECK_SUBSCRIPTIONS = 6,
    LONELY_STATELESS_SET_SUBSCRIPTIONS = 7,               /**< head only, see lonely_set_reader */
    LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE = 8,        /**< carries its code */
    LONELY_STATELESS_RESPONSE_CONFIRM_MISSED = 9,         /**< carries its code */
    LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE = 10, /**< carries its code */

    LONELY_STATELESS_B2S = 16,                           /**< the bit, no body */
    LONELY_STATELESS_RECEIVE = LONELY_STATELESS_B2S + 1, /**< head only, the message follows */
    LONELY_STATELESS_MISSED = LONELY_STATELESS_B2S + 2,
    LONELY_STATELESS_RESPONSE_GENERIC = LONELY_STATELESS_B2S + 3, /**< carries its code */
    LONELY_STATELESS_RESPONSE_NOTIFY = LONELY_STATELESS_B2S + 4,  /**< carries its code */
    LONELY_STATELESS_RESPONSE_CHECK_SUBSCRIPTIONS =
        LONELY_STATELESS_B2S + 5 /**< carries its code */
};

/** Most bytes of a field with a 16-bit length: topics, globs, urls, tracing, authorization. */
#define LONELY_FIELD16_MAX_BYTES 65535

/** Most bytes of an identifier here; in the frames of message.h it is less. */
#define LONELY_STATELESS_IDENTIFIER_MAX_BYTES 255

/**
 * The longest body of each type (for the three heads: without what follows the head). A peer that
 * has sent that many bytes and still gets LONELY_E_TRUNCATED does not exist, so this is the size
 * of the buffer to collect one in. lonely_stateless_max() gives the same numbers.
 */
#define LONELY_STATELESS_NOTIFY_MAX_BYTES                         131402
#define LONELY_STATELESS_SUBSCRIBE_MAX_BYTES                      262148
#define LONELY_STATELESS_UNSUBSCRIBE_MAX_BYTES                    196611
#define LONELY_STATELESS_CHECK_SUBSCRIPTIONS_MAX_BYTES            131074
#define LONELY_STATELESS_SET_SUBSCRIPTIONS_MAX_BYTES              131143
#define LONELY_STATELESS_RECEIVE_MAX_BYTES                        131338
#define LONELY_STATELESS_MISSED_MAX_BYTES                         131074
#define LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE_MAX_BYTES       131336
#define LONELY_STATELESS_RESPONSE_CONFIRM_MISSED_MAX_BYTES        131076
#define LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE_MAX_BYTES 2
#define LONELY_STATELESS_RESPONSE_GENERIC_MAX_BYTES               131076
#define LONELY_STATELESS_RESPONSE_NOTIFY_MAX_BYTES                131336
#define LONELY_STATELESS_RESPONSE_CHECK_SUBSCRIPTIONS_MAX_BYTES   131141

/**
 * The fields of any body. Which ones a body has, in wire order:
 *
 *   NOTIFY                       topic hash tracing identifier message_len
 *   SUBSCRIBE_EXACT, _GLOB       url topic recovery tracing
 *   UNSUBSCRIBE_EXACT, _GLOB     url topic tracing
 *   CHECK_SUBSCRIPTIONS          tracing url
 *   SET_SUBSCRIPTIONS            tracing url (etag format 0) hash count
 *   RECEIVE                      tracing topic identifier message_len
 *   MISSED                       tracing topic
 *   RESPONSE_GENERIC             (code) authorization tracing
 *   RESPONSE_NOTIFY              (code) authorization tracing count identifier
 *   RESPONSE_CHECK_SUBSCRIPTIONS (code) authorization tracing (etag format 0) hash
 *   RESPONSE_CONFIRM_RECEIVE     (code) authorization tracing identifier count
 *   RESPONSE_CONFIRM_MISSED      (code) authorization tracing
 *   RESPONSE_UNSUBSCRIBE_IMMEDIATE (code)
 *
 * A parser sets the fields that the body does not have to zero; a serializer ignores them.
 */
struct lonely_stateless {
    struct lonely_span authorization; /**< UTF-8; length 0: the scheme `none` */
    struct lonely_span tracing;       /**< any bytes */
    struct lonely_span url;           /**< UTF-8 */
    struct lonely_span topic;         /**< any bytes; in the two _GLOB bodies the glob, UTF-8 */
    struct lonely_span recovery;      /**< UTF-8; length 0: none */
    struct lonely_span identifier;    /**< any bytes, at most 255 */
    struct lonely_span hash;          /**< 64 bytes: SHA-512 of the message, or strong etag */
    uint64_t message_len;             /**< bytes of the message that follow the head */
    uint32_t count;                   /**< notified, num_subscribers, or number of topics of SET */
};

/**
 * Parses one body, or the head of NOTIFY, SET_SUBSCRIPTIONS, RECEIVE. To be called again with more
 * bytes after LONELY_E_TRUNCATED.
 *
 * @param bytes  the body as far as it has arrived
 * @param out    filled on LONELY_OK only; its spans point into `bytes`, which must outlive it
 * @return  the first error in wire order:
 *   LONELY_OK             .at: bytes consumed. What follows is the message (NOTIFY, RECEIVE), the
 *                         list of topics (SET_SUBSCRIPTIONS), or to be ignored
 *   LONELY_E_TRUNCATED    .at: the least length of `bytes` with which to call again, greater than
 *                         bytes.len. Who waits for it parses a body at most a dozen times, however
 *                         small the pieces. At the end of the body: it is too short
 *   LONELY_E_TYPE         the body carries another code, or `type` is no body; .at: 0. A reply that
 *                         is not the expected one is then tried as _UNSUBSCRIBE_IMMEDIATE
 *   LONELY_E_UTF8         url, glob, recovery or authorization; .at: where that field starts
 *   LONELY_E_ETAG_FORMAT  it is not 0; .at: where it is
 */
LONELY_API struct lonely_result lonely_stateless_parse(enum lonely_stateless_type type,
                                                       struct lonely_span bytes,
                                                       struct lonely_stateless *out);

/**
 * Writes one body, or the head of NOTIFY, SET_SUBSCRIPTIONS, RECEIVE, to `buf`.
 *
 * @return  LONELY_OK             .at: bytes written
 *          LONELY_E_NO_SPACE     .at: bytes needed. To measure: `buf` NULL, which counts as `cap` 0
 *          LONELY_E_TYPE         `type` is no body: .at 0
 *          LONELY_E_FIELD_SIZE   a field over 65,535 bytes:   .at: where the field would start
 *          LONELY_E_IDENTIFIER_SIZE  over 255 bytes:          the same
 *          LONELY_E_HASH_SIZE    `hash` is not of 64 bytes:   the same
 *          LONELY_E_UTF8         a text field is not UTF-8:   the same
 * After an error the contents of `buf` are undefined. `buf` must not overlap the fields.
 */
LONELY_API struct lonely_result lonely_stateless_write(enum lonely_stateless_type type,
                                                       const struct lonely_stateless *body,
                                                       uint8_t *buf, size_t cap);

/** The longest body (or head) of a type, in bytes; 0 when `type` is no body. */
LONELY_API size_t lonely_stateless_max(enum lonely_stateless_type type);

/* ---- The lists of SET_SUBSCRIPTIONS (doc/protocol/http.md, 2.4) ------------------------------ */

enum lonely_set_kind { LONELY_SET_TOPIC, LONELY_SET_GLOB, LONELY_SET_END };

struct lonely_set_entry {
    enum lonely_set_kind kind;
    struct lonely_span key;      /**< topic: any bytes; glob: UTF-8; at most 65,535 bytes */
    struct lonely_span recovery; /**< UTF-8, at most 65,535 bytes; length 0: none */
};

/** Most bytes of one entry on the wire. */
#define LONELY_SET_ENTRY_MAX_BYTES 131074

/** The last key, to see that the next one is greater. Private: for the structs that hold it. */
struct lonely_set_order {
    bool any; /**< there was one */
    uint32_t len;
    uint8_t key[LONELY_FIELD16_MAX_BYTES];
};

/**
 * Reads what follows the head, piece by piece and entry by entry, in constant memory however long
 * the lists. About 192 KiB: allocate it, do not put it on a stack. Needs no fini. The fields are
 * private.
 */
struct lonely_set_reader {
    enum lonely_set_kind kind;
    bool in_count; /**< the 4 bytes of the number of globs come next */
    uint32_t left; /**< entries of this list that are still to come */
    enum lonely_error err;
    uint32_t held; /**< bytes of an unfinished entry or count in `part` */
    uint8_t part[LONELY_SET_ENTRY_MAX_BYTES];
    struct lonely_set_order last;
};

/** Starts at the first topic. `topics` is `count` of the parsed head. */
LONELY_API void lonely_set_reader_init(struct lonely_set_reader *r, uint32_t topics);

/**
 * Gives the next entry.
 *
 * @param in   bytes not yet read; advanced past what was read. The result does not depend on how
 *             the lists are cut into pieces
 * @param out  filled on LONELY_OK: an entry, or kind LONELY_SET_END (again at every further call);
 *             then `in` starts with the bytes after the lists, which the protocol ignores. Spans
 *             point into the piece or into `r` and die with the next call or the piece
 * @return  LONELY_OK
 *          LONELY_E_TRUNCATED  `in` is read up; call again with the next piece. At the end of the
 *                              body: it is too short
 *          LONELY_E_ORDER      key is not greater (bytewise) than the one before in its list
 *          LONELY_E_UTF8       glob or recovery is not UTF-8
 *          The last two stick: every later call returns them.
 */
LONELY_API enum lonely_error lonely_set_reader_next(struct lonely_set_reader *r,
                                                    struct lonely_span *in,
                                                    struct lonely_set_entry *out);

/** Writes what follows the head. About 64 KiB. Needs no fini. The fields are private. */
struct lonely_set_writer {
    enum lonely_set_kind kind;
    uint32_t left;  /**< entries of this list that are still owed */
    uint32_t globs; /**< length of the second list */
    struct lonely_set_order last;
};

/** Starts with the first topic; `topics` must be `count` of the head that was written. */
LONELY_API void lonely_set_writer_init(struct lonely_set_writer *w, uint32_t topics,
                                       uint32_t globs);

/**
 * Writes one entry: all topics first, then all globs, each in ascending order; at the end one call
 * with kind LONELY_SET_END. LONELY_SET_ENTRY_MAX_BYTES + 4 bytes of room are always enough.
 *
 * @return  LONELY_OK            .at: bytes written, 0 is possible for LONELY_SET_END
 *          LONELY_E_NO_SPACE    .at: bytes needed. Nothing changed: call again with more room.
 *                               `buf` NULL counts as `cap` 0
 *          LONELY_E_STATE       more or fewer entries than announced, or a list in the wrong place
 *          LONELY_E_ORDER       key is not greater than the one before
 *          LONELY_E_FIELD_SIZE  key or recovery is over 65,535 bytes
 *          LONELY_E_UTF8        glob or recovery is not UTF-8
 * .at is 0 with the last four; they change nothing either.
 */
LONELY_API struct lonely_result lonely_set_writer_add(struct lonely_set_writer *w,
                                                      const struct lonely_set_entry *entry,
                                                      uint8_t *buf, size_t cap);

/* ---- Repr-Digest (doc/protocol/http.md, 3 and Q21) ------------------------------------------- */

/** `sha-512=`, 88 characters of base64 and a NUL. */
#define LONELY_REPR_DIGEST_BYTES 97

/** Writes the value of Repr-Digest that goes with RECEIVE: without colons, NUL-terminated. */
LONELY_API void lonely_repr_digest_write(const uint8_t sha512[LONELY_SHA512_BYTES],
                                         char out[LONELY_REPR_DIGEST_BYTES]);

/**
 * Reads the value of a Repr-Digest header; several headers are to be joined with commas first. Of
 * the comma-separated elements the last that starts with `sha-512=` counts; spaces and tabs around
 * an element are allowed, and so are missing padding and characters outside the alphabet (such as
 * the colons of RFC 9530) in the base64.
 *
 * @return  LONELY_OK                sha512 is filled
 *          LONELY_E_HEADER_MISSING  no such element
 *          LONELY_E_HASH_SIZE       it is not base64 of 64 bytes
 */
LONELY_API enum lonely_error lonely_repr_digest_parse(struct lonely_span value,
                                                      uint8_t sha512[LONELY_SHA512_BYTES]);

#ifdef __cplusplus
}
#endif

#endif
