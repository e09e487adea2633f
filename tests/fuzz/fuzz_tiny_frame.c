/*
 * A stream fed to a tinyproto frame whole and in pieces gives the same events; what is used and
 * pointed at lies in the input. The first byte of the input is the size of the pieces and whether an
 * own message is announced as soon as that may be, the rest is the stream.
 */
#include <stdlib.h>

#include <tinyproto/frame.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    uint64_t hash; /* of the events, data merged */
    uint64_t payload;
    enum tinyproto_error err, end;
};

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void mix(struct outcome *o, uint64_t value)
{
    o->hash = (o->hash ^ value) * UINT64_C(0x100000001b3);
}

static void note(struct outcome *o, const struct tinyproto_step *step)
{
    if (step->event == TINYPROTO_EVENT_DATA) {
        for (size_t i = 0; i < step->len; i++)
            mix(o, step->ptr[i]);
        o->payload += step->len;
    } else if (step->event != TINYPROTO_EVENT_MORE) {
        mix(o, (uint64_t)step->event << 32 | step->len);
    }
    o->err = step->err;
}

/* Announcing depends on the end of the input read so far, so it is tried once, when it is ready. */
static void feed(struct tinyproto_frame *f, const uint8_t *ptr, size_t len, bool announces,
                 struct outcome *o)
{
    struct tinyproto_step step;
    uint8_t out[TINYPROTO_SIZE_BYTES];

    do {
        step = tinyproto_frame_feed(f, ptr, len);
        require(step.used <= len);
        require(step.event != TINYPROTO_EVENT_DATA || (step.ptr == ptr && step.len == step.used));
        require(step.event != TINYPROTO_EVENT_MORE || step.used == len);
        require((step.event == TINYPROTO_EVENT_FAIL) == (step.err != TINYPROTO_OK));
        ptr += step.used;
        len -= step.used;
        note(o, &step);
        if (step.event == TINYPROTO_EVENT_READY && announces)
            require(tinyproto_frame_announce(f, 7, out) == TINYPROTO_OK);
    } while (step.event != TINYPROTO_EVENT_MORE && step.event != TINYPROTO_EVENT_FAIL);
}

static struct outcome run(const uint8_t *ptr, size_t len, size_t piece, bool announces)
{
    struct outcome o = { .hash = UINT64_C(0xcbf29ce484222325) };
    struct tinyproto_frame f;

    tinyproto_frame_init(&f, 1 << 20);
    for (size_t at = 0; at < len && o.err == TINYPROTO_OK; at += piece)
        feed(&f, ptr + at, len - at < piece ? len - at : piece, announces, &o);
    o.end = tinyproto_frame_end(&f);
    require(o.payload <= len);
    require(tinyproto_frame_may_announce(&f) == (o.end == TINYPROTO_OK));
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, pieces;
    bool announces;

    if (size < 2)
        return 0;
    announces = (data[0] & 0x80) != 0;
    whole = run(data + 1, size - 1, size - 1, announces);
    pieces = run(data + 1, size - 1, 1 + data[0] % 16, announces);
    require(whole.hash == pieces.hash && whole.payload == pieces.payload);
    require(whole.err == pieces.err && whole.end == pieces.end);
    return 0;
}
