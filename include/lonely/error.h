/*
 * Every error of liblonelypsp, once: number, name and text.
 */
#ifndef LONELY_ERROR_H
#define LONELY_ERROR_H

#include <lonely/span.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Append only: the numbers are ABI. */
#define LONELY_ERROR_MAP(X)                                                            \
    X(LONELY_OK, "success")                                                            \
    X(LONELY_E_TRUNCATED, "input ends inside a field")                                 \
    X(LONELY_E_TYPE, "unknown message type for this direction")                        \
    X(LONELY_E_HEADER_NAME, "header name holds a byte above 0x7f")                     \
    X(LONELY_E_HEADER_MISSING, "a required header is missing")                         \
    X(LONELY_E_NONCE_SIZE, "nonce is not 32 bytes long")                               \
    X(LONELY_E_HASH_SIZE, "hash is not 64 bytes long")                                 \
    X(LONELY_E_INTEGER_SIZE, "integer is wider than its limit")                        \
    X(LONELY_E_IDENTIFIER_SIZE, "identifier is longer than its limit")                 \
    X(LONELY_E_UTF8, "text is not valid UTF-8")                                        \
    X(LONELY_E_BODY_LENGTH, "body length differs from the announced length")           \
    X(LONELY_E_BODY_HASH, "body hash differs from the announced hash")                 \
    X(LONELY_E_LENGTH_PAIR, "uncompressed body, but the two announced lengths differ") \
    X(LONELY_E_FIELD_SIZE, "a value is too long for its field")                        \
    X(LONELY_E_NO_SPACE, "output buffer is too small")                                 \
    X(LONELY_E_FRAME_SIZE, "frame length is outside the limits")                       \
    X(LONELY_E_ETAG_FORMAT, "unknown etag format")                                     \
    X(LONELY_E_ORDER, "list is not strictly ascending")                                \
    X(LONELY_E_SECRET, "secret is malformed or has the wrong size")                    \
    X(LONELY_E_STATE, "not allowed in this state")                                     \
    X(LONELY_E_COUNTER, "connection counter is exhausted")                             \
    X(LONELY_E_CRYPTO, "the cryptographic library failed")                             \
    X(LONELY_E_ARGUMENT, "an argument is outside its documented range")

enum lonely_error {
#define LONELY_X_(name, text) name,
    LONELY_ERROR_MAP(LONELY_X_)
#undef LONELY_X_
};

/** What a parser or serializer says: the error and where. `at` is documented with each function. */
struct lonely_result {
    enum lonely_error err;
    size_t at;
};

/** The text of an error: static, one line, never NULL, also for values outside the list. */
LONELY_API const char *lonely_error_str(enum lonely_error err);

/** The name of an error, such as "LONELY_E_TRUNCATED": static, never NULL. */
LONELY_API const char *lonely_error_name(enum lonely_error err);

#ifdef __cplusplus
}
#endif

#endif
