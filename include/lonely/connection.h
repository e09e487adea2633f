/*
 * What the two ends of a stateful connection have to agree on and never send: the connection
 * nonce, the two counters, and the url made of both that authorizations cover
 * (doc/protocol/stateful.md, 9).
 *
 * No allocation, clock, errno or global state. One connection belongs to one thread at a time.
 */
#ifndef LONELY_CONNECTION_H
#define LONELY_CONNECTION_H

#include <stdbool.h>

#include <lonely/error.h>
#include <lonely/message.h>
#include <lonely/span.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Room for the longest url and its NUL. */
#define LONELY_CONNECTION_URL_MAX_BYTES 73

/** Which counter a message uses. (doc/protocol/stateful.md, 9) */
enum lonely_counter {
    LONELY_COUNTER_NONE,        /**< its authorization covers no url */
    LONELY_COUNTER_SUBSCRIBER,  /**< -1, -2, -3, ... */
    LONELY_COUNTER_BROADCASTER, /**< 1, 2, 3, ... */
    LONELY_COUNTER_REQUEST      /**< none: the number of the request that it confirms, again */
};

/** The shared state of a connection. Read the nonce freely; leave the counters to the functions. */
struct lonely_connection {
    uint8_t nonce[LONELY_NONCE_BYTES];
    int64_t next_subscriber;  /**< 0: used up */
    int64_t next_broadcaster; /**< 0: used up */
};

/**
 * Starts the counters and makes the nonce, SHA-256 of the subscriber's nonce followed by the
 * broadcaster's. LONELY_E_NONCE_SIZE: a nonce is not 32 bytes long; LONELY_E_CRYPTO.
 */
LONELY_API enum lonely_error lonely_connection_init(struct lonely_connection *c,
                                                    struct lonely_span subscriber_nonce,
                                                    struct lonely_span broadcaster_nonce);

/** The counter that messages of a type use; LONELY_COUNTER_NONE for a type that does not exist. */
LONELY_API enum lonely_counter lonely_connection_counter(enum lonely_direction direction,
                                                         unsigned type);

/**
 * Uses up the next number of a counter. The sender does so in one step with queueing the frame;
 * the receiver when it handles the frame, before checking authorization; both whatever the
 * authorization, also if absent, and for every part of a stream (Q10).
 *
 * @param counter  LONELY_COUNTER_SUBSCRIBER or _BROADCASTER
 * @param number   never 0; untouched on error
 * @return LONELY_OK
 *         LONELY_E_COUNTER   all 2^63 are used: close the connection
 *         LONELY_E_ARGUMENT  `counter` is another one
 */
LONELY_API enum lonely_error lonely_connection_take(struct lonely_connection *c,
                                                    enum lonely_counter counter, int64_t *number);

/**
 * Writes `websocket:<nonce>:<number>` and a NUL: 56 to 72 characters of ASCII.
 *
 * @param number  as taken: lower-case hexadecimal, with a `-` when negative; not 0
 * @return the length without the NUL
 */
LONELY_API size_t lonely_connection_url(const struct lonely_connection *c, int64_t number,
                                        char out[LONELY_CONNECTION_URL_MAX_BYTES]);

#ifdef __cplusplus
}
#endif

#endif
