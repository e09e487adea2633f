/*
 * A byte stream fed whole and fed in pieces gives the same frames and the same verdict, and the
 * frames announced again are the stream again. The first byte of the input is the size of the
 * pieces, the rest is the stream.
 */
#include <stdlib.h>
#include <string.h>

#include <lonely/framing.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    uint8_t *rebuilt; /* the lengths and frames seen, as they would be sent */
    size_t len, frame_at;
    enum lonely_error err, end;
};

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* The length of a frame is known again when the frame is complete. */
static void rebuild(struct outcome *o, const struct lonely_framing_step *step)
{
    if (step->first) {
        o->frame_at = o->len;
        o->len += LONELY_FRAMING_LENGTH_BYTES;
    }
    if (step->piece.len > 0)
        memcpy(o->rebuilt + o->len, step->piece.ptr, step->piece.len);
    o->len += step->piece.len;
    if (step->complete)
        require(lonely_framing_announce(o->len - o->frame_at - LONELY_FRAMING_LENGTH_BYTES,
                                        LONELY_FRAME_LIMIT_MIN_BYTES,
                                        o->rebuilt + o->frame_at) == LONELY_OK);
}

static void feed_piece(struct lonely_framing *f, struct lonely_span in, struct outcome *o)
{
    while (in.len > 0 && o->err == LONELY_OK) {
        struct lonely_framing_step step;
        size_t needed = lonely_framing_needed(f);

        o->err = lonely_framing_feed(f, in, &step);
        require(step.consumed_bytes <= in.len && step.piece.len <= step.consumed_bytes);
        require(o->err == LONELY_OK ? step.consumed_bytes > 0 : step.consumed_bytes == 0);
        require(!step.complete || in.len >= needed);
        rebuild(o, &step);
        in.ptr += step.consumed_bytes;
        in.len -= step.consumed_bytes;
    }
}

static struct outcome run(struct lonely_span in, size_t piece)
{
    struct outcome o = { .rebuilt = malloc(in.len + LONELY_FRAMING_LENGTH_BYTES) };
    struct lonely_framing f;

    require(o.rebuilt != NULL);
    require(lonely_framing_init(&f, LONELY_FRAME_LIMIT_MIN_BYTES) == LONELY_OK);
    for (size_t at = 0; at < in.len && o.err == LONELY_OK; at += piece) {
        size_t n = in.len - at < piece ? in.len - at : piece;

        feed_piece(&f, (struct lonely_span){ in.ptr + at, n }, &o);
    }
    o.end = lonely_framing_finish(&f);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, pieces;
    struct lonely_span stream;

    if (size < 2)
        return 0;
    stream = (struct lonely_span){ data + 1, size - 1 };
    whole = run(stream, stream.len);
    pieces = run(stream, 1 + data[0] % 16);
    require(whole.err == pieces.err && whole.end == pieces.end);
    require(whole.len == pieces.len && whole.frame_at == pieces.frame_at);
    if (whole.end == LONELY_OK) {
        require(whole.len == stream.len);
        require(memcmp(whole.rebuilt, stream.ptr, whole.len) == 0);
        require(memcmp(pieces.rebuilt, stream.ptr, whole.len) == 0);
    }
    free(whole.rebuilt);
    free(pieces.rebuilt);
    return 0;
}
