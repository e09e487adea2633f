/*
 * Borrowed bytes, and the attribute that exports a function. Included by every other header.
 */
#ifndef LONELY_SPAN_H
#define LONELY_SPAN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define LONELY_API __attribute__((visibility("default")))
#else
#define LONELY_API
#endif

/**
 * `len` bytes at `ptr`, owned by somebody else and never freed through the span. Not a C string:
 * NUL is an ordinary byte and none follows. With `len` 0 the pointer may be NULL.
 */
struct lonely_span {
    const uint8_t *ptr;
    size_t len;
};

/** Bytes of a SHA-512: of a message, of a body, of a strong etag. */
#define LONELY_SHA512_BYTES 64

#ifdef __cplusplus
}
#endif

#endif
