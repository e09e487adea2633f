/*
 * Growable byte buffer with a maximum (buf.h). Called wherever bytes gather whose number is known
 * only at the end.
 */
#include "buf.h"

#include <assert.h>
#include <string.h>

#include "mem.h"

#define BUF_FIRST_CAP 64

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){ .max = max };
}

void buf_fini(struct buf *b)
{
    mem_free(b->ptr);
    buf_init(b, b->max);
}

/* Doubles, so that n appends cost O(n); never beyond the maximum. */
static size_t next_cap(const struct buf *b, size_t need)
{
    size_t cap = b->cap < BUF_FIRST_CAP ? BUF_FIRST_CAP : b->cap;

    while (cap < need)
        cap = cap > b->max / 2 ? b->max : cap * 2;
    return cap > b->max ? b->max : cap;
}

uint8_t *buf_reserve(struct buf *b, size_t n)
{
    size_t need;

    if (n > buf_room(b))
        return NULL;
    need = b->len + n;
    if (need > b->cap || b->ptr == NULL) {
        size_t cap = next_cap(b, need);
        uint8_t *grown = mem_try_realloc(b->ptr, cap);

        if (grown == NULL)
            return NULL;
        b->ptr = grown;
        b->cap = cap;
    }
    return b->ptr + b->len;
}

void buf_commit(struct buf *b, size_t n)
{
    assert(n <= b->cap - b->len);
    b->len += n;
}

bool buf_append(struct buf *b, const void *ptr, size_t len)
{
    uint8_t *to = buf_reserve(b, len);

    if (to == NULL)
        return false;
    if (len > 0)
        memcpy(to, ptr, len);
    b->len += len;
    return true;
}

bool buf_append_str(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

bool buf_append_byte(struct buf *b, uint8_t byte)
{
    return buf_append(b, &byte, 1);
}

void buf_consume(struct buf *b, size_t n)
{
    assert(n <= b->len);
    if (n == 0)
        return;
    b->len -= n;
    memmove(b->ptr, b->ptr + n, b->len);
}

uint8_t *buf_detach(struct buf *b, size_t *len)
{
    uint8_t *ptr = b->ptr;

    *len = b->len;
    buf_init(b, b->max);
    return ptr;
}
