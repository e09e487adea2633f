/*
 * The read cursor of every parser of the protocol: big-endian integers and length-prefixed bytes
 * out of one span, as views. The first error sticks; after it every read yields nothing, so a
 * parser reads straight down and checks `err` once, at the end. Reads no byte outside its span,
 * whatever the input claims. What a value may look like is the caller's business.
 */
#ifndef CORE_READER_H
#define CORE_READER_H

#include <stdbool.h>

#include <lonely/error.h>
#include <lonely/span.h>

struct reader {
    struct lonely_span in;
    size_t at; /* bytes consumed; after an error the offset of the field that failed */
    enum lonely_error err;
};

static inline struct reader reader_of(struct lonely_span in)
{
    return (struct reader){ .in = in };
}

static inline void reader_fail(struct reader *r, enum lonely_error err)
{
    if (r->err == LONELY_OK)
        r->err = err;
}

/* Fails with `err` at an earlier offset: that of a field that was read, then found wrong. */
static inline void reader_fail_at(struct reader *r, enum lonely_error err, size_t at)
{
    if (r->err != LONELY_OK)
        return;
    r->err = err;
    r->at = at;
}

static inline bool reader_ok(const struct reader *r)
{
    return r->err == LONELY_OK;
}

static inline size_t reader_left(const struct reader *r)
{
    return r->in.len - r->at;
}

/* The next `n` bytes; an empty view has a NULL pointer. */
static inline struct lonely_span reader_take(struct reader *r, size_t n)
{
    if (n > r->in.len - r->at) /* never at + n: that can wrap */
        reader_fail(r, LONELY_E_TRUNCATED);
    if (r->err != LONELY_OK || n == 0)
        return (struct lonely_span){ 0 };
    r->at += n;
    return (struct lonely_span){ r->in.ptr + r->at - n, n };
}

/* All that is left, also if that is nothing. */
static inline struct lonely_span reader_rest(struct reader *r)
{
    return reader_take(r, reader_left(r));
}

/* An unsigned big-endian integer of 1 to 8 bytes; 0 after an error. */
static inline uint64_t reader_uint(struct reader *r, size_t n)
{
    struct lonely_span s = reader_take(r, n);
    uint64_t v = 0;

    for (size_t i = 0; i < s.len; i++)
        v = v << 8 | s.ptr[i];
    return v;
}

static inline uint8_t reader_u8(struct reader *r)
{
    return (uint8_t)reader_uint(r, 1);
}

static inline uint16_t reader_u16(struct reader *r)
{
    return (uint16_t)reader_uint(r, 2);
}

static inline uint32_t reader_u32(struct reader *r)
{
    return (uint32_t)reader_uint(r, 4);
}

static inline uint64_t reader_u64(struct reader *r)
{
    return reader_uint(r, 8);
}

/* A length of `n` bytes, then that many bytes. Cut short, `at` is the offset of the length. */
static inline struct lonely_span reader_counted(struct reader *r, size_t n)
{
    size_t start = r->at;
    bool was_ok = r->err == LONELY_OK;
    uint64_t len = reader_uint(r, n);
    struct lonely_span s;

    if (len > reader_left(r)) /* before the cast: a length may be wider than size_t */
        reader_fail(r, LONELY_E_TRUNCATED);
    s = reader_take(r, (size_t)len);
    if (was_ok && r->err != LONELY_OK)
        r->at = start;
    return s;
}

static inline struct lonely_span reader_b8(struct reader *r)
{
    return reader_counted(r, 1);
}

static inline struct lonely_span reader_b16(struct reader *r)
{
    return reader_counted(r, 2);
}

#endif
