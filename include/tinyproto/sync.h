/*
 * A connection for small programs: each call waits, no callbacks, no loop.
 *                                                                   (doc/protocol/tinyproto.md, 8)
 *
 *     s = NULL;
 *     if (tinyproto_sync_connect(&address, 5000, &s, &why) == TINYPROTO_OK &&
 *         tinyproto_sync_transmit(s, "hello", 5, 10000, &why) == TINYPROTO_OK &&
 *         tinyproto_sync_receive(s, 60000, &ptr, &len, &why) == TINYPROTO_OK)
 *         ...
 *     tinyproto_sync_close(s);
 *
 * `timeout_ms` bounds the whole call (negative: no bound); the stall time, see
 * tinyproto_sync_set_timeout(), what happens inside a transmission. `why` (may be NULL) is filled on
 * failure. One thread at a time.
 */
#ifndef TINYPROTO_SYNC_H
#define TINYPROTO_SYNC_H

#include <tinyproto/conn.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tinyproto_sync; /**< opaque */

/** Connects and shakes hands. On failure `*out` is NULL and nothing is to be freed: TINYPROTO_E_ARGUMENT,
 * _E_MEMORY, _E_SYSTEM, _E_RESOLVE, _E_CONNECT, _E_TIMEOUT, _E_LIMIT, _E_REFUSED, _E_NOT_TINYPROTO,
 * _E_CLOSED_HANDSHAKE. */
TINYPROTO_API enum tinyproto_error tinyproto_sync_connect(const struct tinyproto_address *address,
                                                          int timeout_ms,
                                                          struct tinyproto_sync **out,
                                                          struct tinyproto_cause *why);

/** Stall time; 5 s at first; 0: none. */
TINYPROTO_API void tinyproto_sync_set_timeout(struct tinyproto_sync *sync, uint32_t stall_ms);

/** Limit of messages announced by the peer from now on. */
TINYPROTO_API void tinyproto_sync_set_receive_max(struct tinyproto_sync *sync, uint32_t bytes);

/** Copied, between two calls. TINYPROTO_E_MEMORY, _E_PLUGIN, _E_STATE (the connection is over). */
TINYPROTO_API enum tinyproto_error tinyproto_sync_add_plugin(struct tinyproto_sync *sync,
                                                             const struct tinyproto_plugin *plugin);

/**
 * Transmits one message; returns when the kernel has all of it. Messages that the peer sends in the
 * meantime are kept for tinyproto_sync_receive(), up to 64 MiB (and 1 KiB for each) or one; beyond it
 * TINYPROTO_E_QUEUE_FULL.
 * After any failure but TINYPROTO_E_TOO_LARGE, _E_MEMORY and _E_PLUGIN the connection is over.
 */
TINYPROTO_API enum tinyproto_error tinyproto_sync_transmit(struct tinyproto_sync *sync,
                                                           const void *ptr, size_t len,
                                                           int timeout_ms,
                                                           struct tinyproto_cause *why);

/** The same from a descriptor, as tinyproto_transmit_fd(). */
TINYPROTO_API enum tinyproto_error tinyproto_sync_transmit_fd(struct tinyproto_sync *sync, int fd,
                                                              int64_t offset, uint64_t size,
                                                              int timeout_ms,
                                                              struct tinyproto_cause *why);

/**
 * Receives one message. `*ptr` is the caller's, who frees it with free(); never NULL on success, also
 * if `*len` is 0. On TINYPROTO_E_TIMEOUT with why->system 0 the connection is as before, and a message
 * of which a part came goes on with the next call; after other failures it is over.
 * TINYPROTO_E_CLOSED: the peer ended it in order.
 */
TINYPROTO_API enum tinyproto_error tinyproto_sync_receive(struct tinyproto_sync *sync,
                                                          int timeout_ms, void **ptr, size_t *len,
                                                          struct tinyproto_cause *why);

/** Takes one piece of a message; false ends the connection with TINYPROTO_E_STOPPED. */
typedef bool tinyproto_sync_data_fn(void *arg, const uint8_t *ptr, size_t len);

/** Receives one message in pieces, in bounded memory; `*size` is the message's size. A call that times
 * out ends the connection. Pieces may have been given to `data` before a failure. */
TINYPROTO_API enum tinyproto_error
tinyproto_sync_receive_to(struct tinyproto_sync *sync, int timeout_ms, tinyproto_sync_data_fn *data,
                          void *arg, uint64_t *size, struct tinyproto_cause *why);

/** The peer's address as text. */
TINYPROTO_API const char *tinyproto_sync_peer(const struct tinyproto_sync *sync);

/** Closes in order, waiting at most the linger time (1 s), and frees. NULL is allowed. */
TINYPROTO_API void tinyproto_sync_close(struct tinyproto_sync *sync);

#ifdef __cplusplus
}
#endif

#endif
