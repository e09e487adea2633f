/*
 * Frames on a byte stream: a four-byte big-endian length, then the frame, again and again
 * (doc/protocol/stateful.md, 2.2). A push parser that is fed whatever pieces arrive; it keeps no
 * bytes of a frame, so memory is the caller's, and grows with what has arrived.
 *
 * Pure: no allocation, clock, errno or global state. A parser belongs to one stream; different
 * ones may be used from different threads.
 */
#ifndef LONELY_FRAMING_H
#define LONELY_FRAMING_H

#include <stdbool.h>

#include <lonely/error.h>
#include <lonely/span.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LONELY_FRAMING_LENGTH_BYTES 4
#define LONELY_FRAME_MIN_BYTES      4 /**< a bare prefix: flags and type */

/** Bounds of the largest frame an end accepts: the default, the least and the most allowed. */
#define LONELY_FRAME_LIMIT_DEFAULT_BYTES 16777216
#define LONELY_FRAME_LIMIT_MIN_BYTES     262144
#define LONELY_FRAME_LIMIT_MAX_BYTES     4294967295

/** One direction of one stream. The fields are for reading only. */
struct lonely_framing {
    size_t limit_bytes;      /**< largest frame accepted */
    uint32_t frame_bytes;    /**< announced length of the present frame; 0: not known yet */
    uint32_t received_bytes; /**< bytes of the present frame fed so far */
    uint32_t length;         /**< of the announcement, what was fed of it */
    unsigned length_bytes;   /**< how many bytes that was, 0 to 4 */
    enum lonely_error err;   /**< sticks */
};

/** What one call to lonely_framing_feed() found. */
struct lonely_framing_step {
    size_t consumed_bytes;    /**< of the input; call again with the rest */
    struct lonely_span piece; /**< frame bytes, a view into the input; may be empty: ptr NULL */
    bool first;               /**< the piece begins a frame */
    bool complete;            /**< the piece ends the frame */
};

/**
 * Starts at the beginning of a stream. LONELY_E_ARGUMENT: `limit_bytes` outside its bounds; then
 * lonely_framing_feed and _finish return it too, until an init that succeeds.
 */
LONELY_API enum lonely_error lonely_framing_init(struct lonely_framing *f, size_t limit_bytes);

/**
 * Takes bytes of the stream, up to the end of the present frame at most. Usual loop:
 *
 *     while (in.len > 0) {
 *         err = lonely_framing_feed(&f, in, &step);
 *         if (err != LONELY_OK) ... close the connection
 *         if (step.first && step.complete) ... the whole frame is step.piece, parse it in place
 *         else ... append step.piece to the frame's buffer; if (step.complete) parse that
 *         in.ptr += step.consumed_bytes; in.len -= step.consumed_bytes;
 *     }
 *
 * Consumes at least one byte of an input that is not empty.
 *
 * @return LONELY_OK
 *         LONELY_E_FRAME_SIZE  an announced length below 4 or above the limit. It is found with the
 *                              fourth byte of the length, before any byte of the frame; every later
 *                              call returns it again and takes nothing
 *         LONELY_E_ARGUMENT    the init failed
 */
LONELY_API enum lonely_error lonely_framing_feed(struct lonely_framing *f, struct lonely_span in,
                                                 struct lonely_framing_step *out);

/** Bytes still missing of the present length (1 to 4) or frame: a bound for what to read next. */
LONELY_API size_t lonely_framing_needed(const struct lonely_framing *f);

/**
 * The stream has ended. LONELY_OK between frames, LONELY_E_TRUNCATED inside a length or a frame,
 * LONELY_E_FRAME_SIZE or LONELY_E_ARGUMENT after that error.
 */
LONELY_API enum lonely_error lonely_framing_finish(const struct lonely_framing *f);

/**
 * Writes the length that goes before a frame of `frame_bytes`. LONELY_E_FRAME_SIZE (and nothing
 * written) below 4 or above `limit_bytes` or 2^32-1: the peer would refuse it.
 */
LONELY_API enum lonely_error lonely_framing_announce(size_t frame_bytes, size_t limit_bytes,
                                                     uint8_t out[LONELY_FRAMING_LENGTH_BYTES]);

#ifdef __cplusplus
}
#endif

#endif
