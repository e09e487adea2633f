/*
 * The wire format: the table of doc/protocol/tinyproto.md, 4.2, as a push parser. conn.c feeds it
 * and does what it says; when to announce is decided there.
 */
#include <tinyproto/frame.h>

#include <string.h>

static uint32_t cap_max(uint32_t receive_max)
{
    return receive_max < TINYPROTO_MESSAGE_MAX ? receive_max : TINYPROTO_MESSAGE_MAX;
}

void tinyproto_frame_init(struct tinyproto_frame *frame, uint32_t receive_max)
{
    memset(frame, 0, sizeof(*frame));
    frame->receive_max = cap_max(receive_max);
}

void tinyproto_frame_set_receive_max(struct tinyproto_frame *frame, uint32_t receive_max)
{
    frame->receive_max = cap_max(receive_max);
}

static struct tinyproto_step report(enum tinyproto_event event, size_t used)
{
    return (struct tinyproto_step){ .event = event, .used = used };
}

static struct tinyproto_step fail(struct tinyproto_frame *frame, enum tinyproto_error err,
                                  size_t used)
{
    frame->failed = (uint8_t)err;
    return (struct tinyproto_step){ .event = TINYPROTO_EVENT_FAIL, .err = err, .used = used };
}

/* Row 1 of the table. */
static struct tinyproto_step take_handshake(struct tinyproto_frame *frame, uint8_t byte)
{
    switch (byte) {
    case TINYPROTO_BYTE_OK:
        frame->ready = true;
        return report(TINYPROTO_EVENT_READY, 1);
    case TINYPROTO_BYTE_LIMIT:
        return fail(frame, TINYPROTO_E_LIMIT, 1);
    case TINYPROTO_BYTE_ERROR: /* what 2.0.1 sends at its limit */
        return fail(frame, TINYPROTO_E_REFUSED, 1);
    default:
        return fail(frame, TINYPROTO_E_NOT_TINYPROTO, 1);
    }
}

/* Row 2: is it a status? Else it is the first byte of a crossing announcement. */
static bool is_status(const struct tinyproto_frame *frame, uint8_t byte)
{
    return frame->announced && frame->n_size == 0 &&
           (frame->crossing || byte > (uint8_t)(TINYPROTO_MESSAGE_MAX >> 24));
}

static struct tinyproto_step take_status(struct tinyproto_frame *frame, uint8_t byte)
{
    if (byte != TINYPROTO_BYTE_OK)
        return fail(
            frame, byte == TINYPROTO_BYTE_CONFLICT ? TINYPROTO_E_CONFLICT : TINYPROTO_E_REFUSED, 1);
    frame->announced = false;
    frame->crossing = false;
    return report(TINYPROTO_EVENT_GO, 1);
}

/* Row 3. */
static struct tinyproto_step take_payload(struct tinyproto_frame *frame, const uint8_t *ptr,
                                          size_t len)
{
    size_t n = len < frame->owed ? len : frame->owed;

    frame->owed -= (uint32_t)n;
    return (
        struct tinyproto_step){ .event = TINYPROTO_EVENT_DATA, .used = n, .ptr = ptr, .len = n };
}

/* Row 4. */
static struct tinyproto_step take_size(struct tinyproto_frame *frame, const uint8_t *ptr,
                                       size_t len)
{
    size_t n = 0;

    while (n < len && frame->n_size < TINYPROTO_SIZE_BYTES) {
        frame->size = frame->size << 8 | ptr[n++];
        frame->n_size++;
    }
    if (frame->n_size < TINYPROTO_SIZE_BYTES)
        return report(TINYPROTO_EVENT_MORE, n);
    frame->n_size = 0;
    if (frame->size > frame->receive_max)
        return fail(frame, TINYPROTO_E_TOO_LARGE, n);
    frame->receiving = true;
    frame->owed = frame->size;
    frame->crossing = frame->announced;
    return (struct tinyproto_step){ .event = TINYPROTO_EVENT_BEGIN, .used = n, .len = frame->size };
}

struct tinyproto_step tinyproto_frame_feed(struct tinyproto_frame *frame, const uint8_t *ptr,
                                           size_t len)
{
    if (frame->failed != TINYPROTO_OK)
        return fail(frame, (enum tinyproto_error)frame->failed, 0);
    if (frame->receiving && frame->owed == 0 && !frame->announced) {
        frame->receiving = false;
        frame->size = 0;
        return report(TINYPROTO_EVENT_END, 0);
    }
    if (len == 0)
        return report(TINYPROTO_EVENT_MORE, 0);
    if (!frame->ready)
        return take_handshake(frame, ptr[0]);
    if (is_status(frame, ptr[0]))
        return take_status(frame, ptr[0]);
    if (frame->receiving)
        return take_payload(frame, ptr, len);
    return take_size(frame, ptr, len);
}

enum tinyproto_error tinyproto_frame_end(const struct tinyproto_frame *frame)
{
    if (frame->failed != TINYPROTO_OK)
        return (enum tinyproto_error)frame->failed;
    if (!frame->ready)
        return TINYPROTO_E_CLOSED_HANDSHAKE;
    if (tinyproto_frame_is_lone_zero(frame))
        return TINYPROTO_E_REFUSED;
    return tinyproto_frame_is_waiting(frame) ? TINYPROTO_E_CLOSED_INSIDE : TINYPROTO_OK;
}

bool tinyproto_frame_may_announce(const struct tinyproto_frame *frame)
{
    return frame->failed == TINYPROTO_OK && !tinyproto_frame_is_waiting(frame);
}

enum tinyproto_error tinyproto_frame_announce(struct tinyproto_frame *frame, uint64_t size,
                                              uint8_t out[TINYPROTO_SIZE_BYTES])
{
    if (size > TINYPROTO_MESSAGE_MAX)
        return TINYPROTO_E_TOO_LARGE;
    if (!tinyproto_frame_may_announce(frame))
        return TINYPROTO_E_STATE;
    frame->announced = true;
    for (int i = 0; i < TINYPROTO_SIZE_BYTES; i++)
        out[i] = (uint8_t)(size >> (24 - 8 * i));
    return TINYPROTO_OK;
}

bool tinyproto_frame_is_lone_zero(const struct tinyproto_frame *frame)
{
    return frame->announced && !frame->crossing && frame->n_size == 1 && frame->size == 0;
}

bool tinyproto_frame_is_waiting(const struct tinyproto_frame *frame)
{
    return !frame->ready || frame->receiving || frame->n_size > 0 || frame->announced;
}
