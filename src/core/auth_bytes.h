/*
 * The signed bytes of a message, as a stream. Used by the scheme hmac, and by tests that compare
 * the bytes themselves.                                              (doc/protocol/auth.md, 4)
 */
#ifndef AUTH_BYTES_H
#define AUTH_BYTES_H

#include <lonely/auth.h>

/* Takes the next `len` bytes, `len` > 0. False stops the stream with LONELY_E_CRYPTO. */
typedef bool auth_sink_fn(void *arg, const uint8_t *bytes, size_t len);

/* Streams the signed bytes into `sink`, usually in one piece, never assembling them in a heap.
 * LONELY_OK, LONELY_E_FIELD_SIZE, LONELY_E_ARGUMENT (no such operation) or LONELY_E_CRYPTO; the sink
 * may have been called before an error. */
enum lonely_error auth_bytes(const struct lonely_auth_input *in, uint64_t timestamp_epoch_s,
                             struct lonely_span nonce, auth_sink_fn *sink, void *arg);

/* Whether the operation signs a compression level that the reference cannot sign [A7]. */
bool auth_bytes_level_is_negative(const struct lonely_auth_input *in);

/* The url that the operation signs, of MISSED its recovery; empty if it signs none. `in` must be one
 * that auth_bytes took. */
struct lonely_span auth_bytes_url(const struct lonely_auth_input *in);

#endif
