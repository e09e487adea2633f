/*
 * The wire format without I/O: feed what the peer sent, get events. The state machine of crossing
 * announcements. Servers, clients and the blocking calls use it; a program with transport of its
 * own may do the same.                                         (doc/protocol/tinyproto.md, 1 to 4)
 *
 * Pure: no allocation, clock, errno or global state. One thread at a time for each frame.
 */
#ifndef TINYPROTO_FRAME_H
#define TINYPROTO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tinyproto/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Handshake bytes and statuses. */
enum tinyproto_byte {
    TINYPROTO_BYTE_ERROR = 0x00,    /**< status: refused */
    TINYPROTO_BYTE_CONFLICT = 0xfd, /**< never sent */
    TINYPROTO_BYTE_LIMIT = 0xfe,    /**< in place of the handshake: connection limit reached */
    TINYPROTO_BYTE_OK = 0xff        /**< handshake; status: go on */
};

/** The largest message, in bytes. */
#define TINYPROTO_MESSAGE_MAX UINT32_C(0xf0ffffff)

/** Bytes of an announcement. */
#define TINYPROTO_SIZE_BYTES 4

/** One connection's state. The fields are private; no memory is behind them. */
struct tinyproto_frame {
    uint32_t receive_max;
    uint32_t size;  /* the announcement being collected, then the message's size */
    uint32_t owed;  /* payload bytes to come */
    uint8_t n_size; /* bytes of `size` collected */
    uint8_t failed; /* an enum tinyproto_error, once there was one */
    bool ready;     /* the peer's handshake byte was read */
    bool receiving; /* a size was accepted, its message is not delivered yet */
    bool announced; /* own size sent, its status not read */
    bool crossing;  /* the peer's size came while `announced` */
};

enum tinyproto_event {
    TINYPROTO_EVENT_MORE,  /**< nothing to report; all input is used: read more */
    TINYPROTO_EVENT_READY, /**< the handshake byte came: announcing is possible */
    TINYPROTO_EVENT_BEGIN, /**< a message of `len` bytes is announced: send TINYPROTO_BYTE_OK, or
                                TINYPROTO_BYTE_ERROR and close */
    TINYPROTO_EVENT_DATA,  /**< `len` payload bytes at `ptr`, in the input */
    TINYPROTO_EVENT_END,   /**< the message is complete */
    TINYPROTO_EVENT_GO,    /**< the status of the own announcement: send the payload */
    TINYPROTO_EVENT_FAIL /**< `err`; with TINYPROTO_E_TOO_LARGE send TINYPROTO_BYTE_ERROR. Close */
};

struct tinyproto_step {
    enum tinyproto_event event;
    enum tinyproto_error err; /**< of TINYPROTO_EVENT_FAIL, else TINYPROTO_OK */
    size_t used;              /**< bytes of the input to drop before the next feed */
    const uint8_t *ptr;       /**< of TINYPROTO_EVENT_DATA */
    size_t len;               /**< of TINYPROTO_EVENT_DATA and _BEGIN (there: up to 2^32-1) */
};

/** Ready for the handshake byte. @param receive_max  larger announcements fail; at most
 * TINYPROTO_MESSAGE_MAX */
TINYPROTO_API void tinyproto_frame_init(struct tinyproto_frame *frame, uint32_t receive_max);

/** The limit of announcements that come from now on. */
TINYPROTO_API void tinyproto_frame_set_receive_max(struct tinyproto_frame *frame,
                                                   uint32_t receive_max);

/**
 * Takes input up to the first thing to report. Call it again with the rest, and after anything but
 * TINYPROTO_EVENT_MORE also without a rest, until it says TINYPROTO_EVENT_MORE or _FAIL.
 *
 * TINYPROTO_EVENT_FAIL repeats for ever, with nothing used. Its errors: before the handshake
 * TINYPROTO_E_LIMIT, _E_REFUSED, _E_NOT_TINYPROTO; then _E_TOO_LARGE (an announcement), _E_REFUSED
 * and _E_CONFLICT (a status).
 */
TINYPROTO_API struct tinyproto_step tinyproto_frame_feed(struct tinyproto_frame *frame,
                                                         const uint8_t *ptr, size_t len);

/** The peer's end of stream, after all input was fed. TINYPROTO_OK: between transmissions, in order.
 * Else TINYPROTO_E_CLOSED_HANDSHAKE, _E_CLOSED_INSIDE, or _E_REFUSED for a lone 00 (section 4). */
TINYPROTO_API enum tinyproto_error tinyproto_frame_end(const struct tinyproto_frame *frame);

/** May a message be announced now? That all readable input was fed is the caller's to see to (4.1). */
TINYPROTO_API bool tinyproto_frame_may_announce(const struct tinyproto_frame *frame);

/** Announces a message of `size` bytes and writes what is to be sent. `size` is at most
 * TINYPROTO_MESSAGE_MAX and tinyproto_frame_may_announce() was true: else TINYPROTO_E_TOO_LARGE or
 * TINYPROTO_E_STATE, with nothing changed. */
TINYPROTO_API enum tinyproto_error tinyproto_frame_announce(struct tinyproto_frame *frame,
                                                            uint64_t size,
                                                            uint8_t out[TINYPROTO_SIZE_BYTES]);

/** Is a 00 waiting to be told from the first byte of a crossing announcement? If nothing follows in
 * the grace time it was a refusal (section 4). */
TINYPROTO_API bool tinyproto_frame_is_lone_zero(const struct tinyproto_frame *frame);

/** Is a handshake, a size, a payload or a status awaited? Then the stall time runs (section 5). */
TINYPROTO_API bool tinyproto_frame_is_waiting(const struct tinyproto_frame *frame);

#ifdef __cplusplus
}
#endif

#endif
