/*
 * Growable byte buffer that knows its maximum. Appending fails cleanly beyond it, or without
 * memory: the buffer then holds what it held. One thread at a time.
 */
#ifndef BUF_H
#define BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *ptr; /* NULL before the first byte */
    size_t len;   /* bytes held */
    size_t cap;   /* bytes of memory */
    size_t max;   /* len never exceeds it */
};

void buf_init(struct buf *b, size_t max); /* takes no memory yet */
void buf_fini(struct buf *b);             /* frees; ready for use again, with the same maximum */

static inline void buf_clear(struct buf *b) /* keeps the memory */
{
    b->len = 0;
}

static inline size_t buf_room(const struct buf *b) /* bytes until the maximum */
{
    return b->max - b->len;
}

/* Room for `n` more bytes behind the held ones; buf_commit makes them count. NULL: beyond the
 * maximum, or no memory. The pointer dies with the next call that is not buf_commit. */
uint8_t *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n); /* at most what was reserved */

/* `ptr` may be NULL when `len` is 0; it must not point into the buffer. */
bool buf_append(struct buf *b, const void *ptr, size_t len);
bool buf_append_str(struct buf *b, const char *s); /* without its NUL */
bool buf_append_byte(struct buf *b, uint8_t byte);

/* Drops the first `n` bytes (at most len); the rest moves to the front. */
void buf_consume(struct buf *b, size_t n);

/* Gives the memory away: the caller frees it with mem_free. NULL when nothing was ever reserved. */
uint8_t *buf_detach(struct buf *b, size_t *len);

#endif
