/*
 * The write cursor of every serializer of the protocol: big-endian integers and length-prefixed
 * bytes into a caller's buffer. The first error sticks and nothing is written after it, but `at`
 * goes on counting, so that one pass tells how much room was wanted. With `buf` NULL nothing is
 * written and only the size is found. What a value may look like is the caller's business.
 */
#ifndef CORE_WRITER_H
#define CORE_WRITER_H

#include <string.h>

#include <lonely/error.h>
#include <lonely/span.h>

struct writer {
    uint8_t *buf; /* NULL: only count */
    size_t cap;
    size_t at; /* bytes written, or wanted: above `cap` after LONELY_E_NO_SPACE */
    enum lonely_error err;
};

static inline struct writer writer_of(uint8_t *buf, size_t cap)
{
    return (struct writer){ .buf = buf, .cap = cap };
}

static inline void writer_fail(struct writer *w, enum lonely_error err)
{
    if (w->err == LONELY_OK)
        w->err = err;
}

static inline void writer_put(struct writer *w, const void *ptr, size_t n)
{
    if (n > SIZE_MAX - w->at) {
        writer_fail(w, LONELY_E_FIELD_SIZE);
        return;
    }
    if (w->buf != NULL && w->err == LONELY_OK) {
        if (n > w->cap - w->at)
            writer_fail(w, LONELY_E_NO_SPACE);
        else if (n > 0)
            memcpy(w->buf + w->at, ptr, n);
    }
    w->at += n;
}

static inline void writer_span(struct writer *w, struct lonely_span s)
{
    writer_put(w, s.ptr, s.len);
}

/* The low `n` bytes of `v`, big-endian; `n` is 0 to 8. */
static inline void writer_uint(struct writer *w, uint64_t v, size_t n)
{
    uint8_t be[8];

    for (size_t i = 0; i < 8; i++)
        be[i] = (uint8_t)(v >> (56 - 8 * i));
    writer_put(w, be + 8 - n, n);
}

static inline void writer_u8(struct writer *w, uint8_t v)
{
    writer_uint(w, v, 1);
}

static inline void writer_u16(struct writer *w, uint16_t v)
{
    writer_uint(w, v, 2);
}

static inline void writer_u32(struct writer *w, uint32_t v)
{
    writer_uint(w, v, 4);
}

static inline void writer_u64(struct writer *w, uint64_t v)
{
    writer_uint(w, v, 8);
}

/* A one-byte length and the bytes; LONELY_E_FIELD_SIZE above 255 of them. */
static inline void writer_b8(struct writer *w, struct lonely_span s)
{
    if (s.len > UINT8_MAX)
        writer_fail(w, LONELY_E_FIELD_SIZE);
    writer_u8(w, (uint8_t)s.len);
    writer_span(w, s);
}

/* A two-byte length and the bytes; LONELY_E_FIELD_SIZE above 65,535 of them. */
static inline void writer_b16(struct writer *w, struct lonely_span s)
{
    if (s.len > UINT16_MAX)
        writer_fail(w, LONELY_E_FIELD_SIZE);
    writer_u16(w, (uint16_t)s.len);
    writer_span(w, s);
}

#endif
