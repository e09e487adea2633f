/*
 * The length-prefixed frames of byte streams (doc/protocol/stateful.md, 2.2). Called by the TCP
 * transport and the client. Keeps four bytes of length and counts; never holds frame bytes.
 */
#include <lonely/framing.h>

enum lonely_error lonely_framing_init(struct lonely_framing *f, size_t limit_bytes)
{
    *f = (struct lonely_framing){ .limit_bytes = limit_bytes };
    if (limit_bytes < LONELY_FRAME_LIMIT_MIN_BYTES || limit_bytes > LONELY_FRAME_LIMIT_MAX_BYTES)
        f->err = LONELY_E_ARGUMENT;
    return f->err;
}

/* Takes bytes of the length, as far as there are any. Returns how many. */
static size_t feed_length(struct lonely_framing *f, struct lonely_span in)
{
    size_t i = 0;

    for (; i < in.len && f->length_bytes < LONELY_FRAMING_LENGTH_BYTES; i++) {
        f->length = f->length << 8 | in.ptr[i];
        f->length_bytes++;
    }
    if (f->length_bytes < LONELY_FRAMING_LENGTH_BYTES)
        return i;
    if (f->length < LONELY_FRAME_MIN_BYTES || f->length > f->limit_bytes)
        f->err = LONELY_E_FRAME_SIZE;
    else
        f->frame_bytes = f->length;
    return i;
}

static void begin_next(struct lonely_framing *f)
{
    f->frame_bytes = 0;
    f->received_bytes = 0;
    f->length = 0;
    f->length_bytes = 0;
}

enum lonely_error lonely_framing_feed(struct lonely_framing *f, struct lonely_span in,
                                      struct lonely_framing_step *out)
{
    struct lonely_framing_step step = { 0 };
    size_t n;

    *out = step;
    if (f->err == LONELY_OK && f->frame_bytes == 0)
        step.consumed_bytes = feed_length(f, in);
    if (f->err != LONELY_OK)
        return f->err;
    n = in.len - step.consumed_bytes;
    if (f->frame_bytes > 0 && n > 0) {
        if (n > f->frame_bytes - f->received_bytes)
            n = f->frame_bytes - f->received_bytes;
        step.first = f->received_bytes == 0;
        step.piece = (struct lonely_span){ in.ptr + step.consumed_bytes, n };
        step.consumed_bytes += n;
        f->received_bytes += (uint32_t)n;
        step.complete = f->received_bytes == f->frame_bytes;
    }
    if (step.complete)
        begin_next(f);
    *out = step;
    return LONELY_OK;
}

size_t lonely_framing_needed(const struct lonely_framing *f)
{
    if (f->frame_bytes == 0)
        return LONELY_FRAMING_LENGTH_BYTES - f->length_bytes;
    return f->frame_bytes - f->received_bytes;
}

enum lonely_error lonely_framing_finish(const struct lonely_framing *f)
{
    if (f->err != LONELY_OK)
        return f->err;
    return f->length_bytes == 0 ? LONELY_OK : LONELY_E_TRUNCATED;
}

enum lonely_error lonely_framing_announce(size_t frame_bytes, size_t limit_bytes,
                                          uint8_t out[LONELY_FRAMING_LENGTH_BYTES])
{
    if (frame_bytes < LONELY_FRAME_MIN_BYTES || frame_bytes > limit_bytes ||
        frame_bytes > LONELY_FRAME_LIMIT_MAX_BYTES)
        return LONELY_E_FRAME_SIZE;
    for (int i = 0; i < LONELY_FRAMING_LENGTH_BYTES; i++)
        out[i] = (uint8_t)(frame_bytes >> (24 - 8 * i));
    return LONELY_OK;
}
