/*
 * The strong etag of a url's subscriptions: SHA-512 over a document that is hashed while the rows
 * come in, so its size does not matter.                               (doc/protocol/http.md, 9)
 */
#ifndef LONELY_ETAG_H
#define LONELY_ETAG_H

#include <lonely/error.h>
#include <lonely/span.h>
#include <lonely/stateless.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Bytes of a strong etag, without its format byte. */
#define LONELY_ETAG_BYTES LONELY_SHA512_BYTES

/** The format byte that goes with every etag on the wire. */
#define LONELY_ETAG_FORMAT 0

/**
 * One computation. Holds a copy of the last key, so that it can refuse unsorted input whatever
 * becomes of the caller's row: about 64 KiB, better allocated than on a stack. Nothing here
 * allocates, the digest's state is inside too; so there is no fini. One thread at a time. The
 * fields are private.
 */
struct lonely_etag {
    uint64_t sha512[32]; /**< room for libcrypto's SHA512_CTX */
    int state;
    struct lonely_set_order last;
};

/**
 * Starts, or starts anew, with `url` (at most 65,535 bytes; not checked to be UTF-8).
 *
 * @return LONELY_OK, LONELY_E_FIELD_SIZE or LONELY_E_CRYPTO; after an error only init makes sense
 */
LONELY_API enum lonely_error lonely_etag_init(struct lonely_etag *e, struct lonely_span url);

/**
 * Adds an exact subscription or a glob: all topics first, then all globs, each list strictly
 * ascending as bytes (unsigned, a prefix first). `recovery` of length 0 means none.
 *
 * @return LONELY_OK
 *         LONELY_E_ORDER       not greater than the one before
 *         LONELY_E_FIELD_SIZE  over 65,535 bytes
 *         LONELY_E_STATE       a topic after a glob, or anything after final or an error
 *         LONELY_E_CRYPTO
 *         After an error only init makes sense.
 */
LONELY_API enum lonely_error lonely_etag_add_topic(struct lonely_etag *e, struct lonely_span topic,
                                                   struct lonely_span recovery);
LONELY_API enum lonely_error lonely_etag_add_glob(struct lonely_etag *e, struct lonely_span glob,
                                                  struct lonely_span recovery);

/** Writes the etag. LONELY_OK, LONELY_E_STATE (after final or an error) or LONELY_E_CRYPTO. */
LONELY_API enum lonely_error lonely_etag_final(struct lonely_etag *e,
                                               uint8_t etag[LONELY_ETAG_BYTES]);

#ifdef __cplusplus
}
#endif

#endif
