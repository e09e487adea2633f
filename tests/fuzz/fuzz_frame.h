/*
 * The property of a frame, in either direction: what parses, written in either mode and parsed
 * again, is equal; what was written once is written the same again; and a view never leaves its
 * frame. fuzz_frame_s2b.c and fuzz_frame_b2s.c are its users.
 */
#ifndef FUZZ_FRAME_H
#define FUZZ_FRAME_H

#include <stdlib.h>
#include <string.h>

#include <lonely/message.h>

#include "message_table.h"

static inline void fuzz_require(bool ok)
{
    if (!ok)
        abort();
}

static inline bool fuzz_spans_equal(struct lonely_span a, struct lonely_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool fuzz_field_equal(const struct header *h, const void *a, const void *b)
{
    switch (h->kind) {
    case HEADER_BYTES:
    case HEADER_TEXT:
    case HEADER_ID:
    case HEADER_NONCE:
    case HEADER_HASH:
        return fuzz_spans_equal(*(const struct lonely_span *)a, *(const struct lonely_span *)b);
    case HEADER_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case HEADER_FIX:
    case HEADER_MIN:
    case HEADER_MINZ:
        return *(const uint64_t *)a == *(const uint64_t *)b;
    case HEADER_SFIX:
        return *(const int *)a == *(const int *)b;
    }
    return false;
}

/* Fields that a part lacks are zero on both sides, so all of them can be compared. */
static inline bool fuzz_messages_equal(const struct lonely_message *a,
                                       const struct lonely_message *b)
{
    const struct message_spec *spec = message_spec(a->direction, a->type);

    if (a->direction != b->direction || a->type != b->type || !fuzz_spans_equal(a->body, b->body))
        return false;
    for (size_t i = 0; i < spec->n; i++) {
        size_t offset = spec->headers[i].offset;

        if (!fuzz_field_equal(&spec->headers[i], (const char *)a + offset,
                              (const char *)b + offset))
            return false;
    }
    return true;
}

/* Writes into an exactly sized block, so that a sanitizer sees one byte too many. */
static inline uint8_t *fuzz_write(const struct lonely_message *m, size_t *len)
{
    uint8_t *out;
    size_t written;

    fuzz_require(lonely_message_serialize(m, NULL, 0, len) == LONELY_OK);
    out = malloc(*len);
    fuzz_require(out != NULL);
    fuzz_require(lonely_message_serialize(m, out, *len, &written) == LONELY_OK);
    fuzz_require(written == *len);
    return out;
}

static inline void fuzz_round_trip(const struct lonely_message *m, unsigned flags)
{
    for (int minimal = 0; minimal < 2; minimal++) {
        struct lonely_message out = *m, again;
        uint8_t *first, *second;
        size_t first_len, second_len;

        out.minimal = minimal != 0;
        first = fuzz_write(&out, &first_len);
        fuzz_require(lonely_message_parse_with(
                         m->direction, (struct lonely_span){ first, first_len }, flags, &again)
                         .err == LONELY_OK);
        fuzz_require(fuzz_messages_equal(m, &again) && again.minimal == out.minimal);
        second = fuzz_write(&again, &second_len);
        fuzz_require(second_len == first_len && memcmp(first, second, first_len) == 0);
        free(first);
        free(second);
    }
}

/* Without the hash, which no mutation hits; then the verdict with it may only be stricter. */
static inline void fuzz_frame(enum lonely_direction direction, const uint8_t *data, size_t size)
{
    struct lonely_span frame = { data, size };
    struct lonely_message m, strict;
    struct lonely_result r = lonely_message_parse_with(direction, frame, LONELY_PARSE_NO_HASH, &m);
    struct lonely_result s = lonely_message_parse(direction, frame, &strict);

    fuzz_require(r.at <= size && s.at <= size);
    if (r.err != LONELY_OK) {
        fuzz_require(s.err != LONELY_OK);
        return;
    }
    fuzz_require(s.err == LONELY_OK || s.err == LONELY_E_BODY_HASH);
    fuzz_require(m.body.len == 0 || m.body.ptr + m.body.len == data + size);
    fuzz_require(s.err != LONELY_OK || fuzz_messages_equal(&m, &strict));
    fuzz_round_trip(&m, LONELY_PARSE_NO_HASH);
}

#endif
