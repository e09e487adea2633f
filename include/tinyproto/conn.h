/*
 * Connections, their handlers and plugins: the same for servers and clients.
 *                                                              (doc/protocol/tinyproto.md, 5, 9, 10)
 *
 * A connection is made by a server that accepts or by tinyproto_client_connect(), lives on its
 * loop, and is freed when the last hook, conn_shutdown of the server or client, has returned. All
 * functions here are for the loop's thread; to transmit from another see
 * tinyproto_server_post_transmit(). Every function may be called in any hook and callback, and for
 * any connection of the loop; no hook or callback runs inside a call.
 *
 * The order of a connection's hooks:
 *
 *     conn_init (servers)
 *     pre_loop, (begin | data | end | transmission_received | loop_pass | drained)*, post_loop
 *         or, if it was never ready: failed
 *     conn_shutdown
 *
 * Transmissions that did not get through and a pending tinyproto_receive() are told before
 * post_loop or failed.
 */
#ifndef TINYPROTO_CONN_H
#define TINYPROTO_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tinyproto/address.h>
#include <tinyproto/error.h>
#include <tinyproto/frame.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sockaddr;
struct tinyproto_client;
struct tinyproto_server;
struct tinyproto_conn; /**< opaque */

/** Bytes of an id: a random UUID (version 4) as text, with a NUL. */
#define TINYPROTO_ID_MAX 37

/* ---- Messages ---- */

/** A received message. The bytes are valid during the hook unless they are taken over. */
struct tinyproto_message {
    const uint8_t *ptr;
    size_t len;
    void *private_; /* the library's */
};

/** Takes the bytes over: `len` of them, which the caller frees with free(), or hands on to
 * tinyproto_transmit_take(). Large messages are not copied. Once a message; NULL: no memory. */
TINYPROTO_API void *tinyproto_message_take(struct tinyproto_message *message);

/** How a message is to be received. */
enum tinyproto_delivery {
    TINYPROTO_WHOLE,  /**< collected in memory, then transmission_received */
    TINYPROTO_PIECES, /**< data for each piece as it comes, then end: any size in bounded memory */
    TINYPROTO_REFUSE  /**< status 00, then an orderly close with TINYPROTO_E_REFUSED */
};

/* ---- Handler ---- */

/**
 * What a connection does. Every hook may be NULL. The struct must outlive the connections.
 *
 * `why` of failed, post_loop and conn_shutdown: TINYPROTO_OK when the connection ended in order (the
 * peer closed it between transmissions, or tinyproto_close() was called), else the cause.
 */
struct tinyproto_handler {
    void *arg;        /**< the program's: tinyproto_conn_arg() */
    size_t data_size; /**< bytes, zeroed, made with each connection: tinyproto_conn_data() */

    /** Once, when the handshake is done. */
    void (*pre_loop)(struct tinyproto_conn *conn);

    /** Instead of pre_loop and post_loop: it was not possible to connect or to shake hands. */
    void (*failed)(struct tinyproto_conn *conn, const struct tinyproto_cause *why);

    /** A message of `size` bytes (0 .. the receive limit) is announced. Without it: WHOLE. Not asked
     * while a tinyproto_receive() waits: that is WHOLE too. */
    enum tinyproto_delivery (*begin)(struct tinyproto_conn *conn, size_t size);

    /** Each message that is WHOLE, in order, after plugins. */
    void (*transmission_received)(struct tinyproto_conn *conn, struct tinyproto_message *message);

    /** A part of a message received in PIECES, in order; the bytes die on return. With plugins the
     * message is collected first and is one piece. */
    void (*data)(struct tinyproto_conn *conn, const uint8_t *ptr, size_t len);

    /** The message received in PIECES is complete. Without it the connection ended inside, and
     * post_loop says why. */
    void (*end)(struct tinyproto_conn *conn);

    /** After each message, and every interval_ms. Not after close was asked for. */
    void (*loop_pass)(struct tinyproto_conn *conn);

    /** The send queue, which was full, is empty again. */
    void (*drained)(struct tinyproto_conn *conn);

    /** Once, if pre_loop was called: the connection is over. Its socket is closed or closing. */
    void (*post_loop)(struct tinyproto_conn *conn, const struct tinyproto_cause *why);
};

/* ---- Plugins ---- */

/**
 * Transforms whole messages: transmit in the order of registration, receive in reverse order; the
 * announced size, and so every limit, is of the result. Either function may be NULL.
 *
 * A function gets `*ptr` (malloc'ed, `*len` bytes) and may change it in place or replace it by
 * another malloc'ed block (freeing the old one). Returning false fails the one transmission, or
 * ends the receiving connection, with TINYPROTO_E_PLUGIN; the block is freed by the caller.
 *
 * The struct is copied. `state` is shared by all connections, or, with `open`, of each connection:
 * `open` makes it (false: the connection ends with TINYPROTO_E_PLUGIN), `close` (may be NULL) frees it.
 */
struct tinyproto_plugin {
    bool (*transmit)(void *state, uint8_t **ptr, size_t *len);
    bool (*receive)(void *state, uint8_t **ptr, size_t *len);
    bool (*open)(void *arg, struct tinyproto_conn *conn, void **state);
    void (*close)(void *state);
    void *arg; /**< for `open`; without `open` it is the state itself */
};

/** Adds a plugin to this connection, after those of its server or client; for messages that are
 * handed to transmit, or announced by the peer, from now on. TINYPROTO_E_MEMORY, _E_PLUGIN (open). */
TINYPROTO_API enum tinyproto_error tinyproto_conn_add_plugin(struct tinyproto_conn *conn,
                                                             const struct tinyproto_plugin *plugin);

/* ---- Transmitting ---- */

/**
 * Tells what became of a transmission, exactly once: TINYPROTO_OK when all its bytes were handed to
 * the kernel (whether the peer gets them, its own answer must say), else why it was lost. Not called
 * if the transmitting call itself failed.
 */
typedef void tinyproto_done_fn(void *arg, struct tinyproto_conn *conn,
                               const struct tinyproto_cause *why);

/**
 * Queues a message, copied, and returns. Order is kept; before the handshake it waits for it. The
 * send queue is bounded by queue_max_bytes, yet takes one message of any size.
 *
 * @return  TINYPROTO_E_TOO_LARGE (above the send limit, after plugins), _E_QUEUE_FULL (drained will
 *          tell), _E_STATE (closing or closed), _E_MEMORY, _E_PLUGIN: nothing is sent
 */
TINYPROTO_API enum tinyproto_error tinyproto_transmit(struct tinyproto_conn *conn, const void *ptr,
                                                      size_t len);

/** The same, and `done` (NULL: nobody) is told. */
TINYPROTO_API enum tinyproto_error tinyproto_transmit_then(struct tinyproto_conn *conn,
                                                           const void *ptr, size_t len,
                                                           tinyproto_done_fn *done, void *arg);

/** The same without a copy: `ptr` is malloc'ed and, on success, freed by the library. On failure it
 * stays the caller's. */
TINYPROTO_API enum tinyproto_error tinyproto_transmit_take(struct tinyproto_conn *conn, void *ptr,
                                                           size_t len, tinyproto_done_fn *done,
                                                           void *arg);

/**
 * The same from a descriptor: `size` bytes from `offset` on (of a pipe or socket: -1, from where it
 * is). It is read in the thread pool, piece by piece, so memory does not grow with the size; counts
 * as little in the send queue. The descriptor stays the caller's, unread by others until `done` ran.
 *
 * If it ends or fails early, what was announced cannot be delivered any more: the connection is
 * aborted, with TINYPROTO_E_SOURCE or _E_SYSTEM.
 *
 * @return  as tinyproto_transmit; TINYPROTO_E_PLUGIN if the connection has a plugin with `transmit`:
 *          it would need the whole message
 */
TINYPROTO_API enum tinyproto_error tinyproto_transmit_fd(struct tinyproto_conn *conn, int fd,
                                                         int64_t offset, uint64_t size,
                                                         tinyproto_done_fn *done, void *arg);

/** Bytes in the send queue. */
TINYPROTO_API size_t tinyproto_conn_queued(const struct tinyproto_conn *conn);

/* ---- Receiving ---- */

/** `message` NULL: the connection ended first, `*why` says how; else `why` is NULL. */
typedef void tinyproto_receive_fn(void *arg, struct tinyproto_conn *conn,
                                  struct tinyproto_message *message,
                                  const struct tinyproto_cause *why);

/** Gives the next message that begins to `fn` instead of the handler; once. TINYPROTO_E_STATE: one
 * waits already, or the connection is closing. */
TINYPROTO_API enum tinyproto_error tinyproto_receive(struct tinyproto_conn *conn,
                                                     tinyproto_receive_fn *fn, void *arg);

/** Stops reading: no message, data or end until tinyproto_conn_resume(), and no stall time runs. Own
 * transmissions wait too, since a status cannot be read. For receivers that are slower than their
 * peers. Pausing twice is pausing once. */
TINYPROTO_API void tinyproto_conn_pause(struct tinyproto_conn *conn);
TINYPROTO_API void tinyproto_conn_resume(struct tinyproto_conn *conn);

/* ---- Ending ---- */

/** Orderly close: what is queued is sent (within the stall time), then the end of the stream; a
 * message that is coming in is dropped. May be called again. (section 5) */
TINYPROTO_API void tinyproto_close(struct tinyproto_conn *conn);

/** Closes at once; what is queued is lost, told as TINYPROTO_E_STOPPED. */
TINYPROTO_API void tinyproto_abort(struct tinyproto_conn *conn);

/* ---- Asking and setting ---- */

enum tinyproto_state {
    TINYPROTO_CONNECTING, /**< resolving or connecting */
    TINYPROTO_HANDSHAKE,
    TINYPROTO_OPEN,
    TINYPROTO_CLOSING, /**< close was asked for, by either side */
    TINYPROTO_CLOSED
};

TINYPROTO_API enum tinyproto_state tinyproto_conn_state(const struct tinyproto_conn *conn);
TINYPROTO_API const char *tinyproto_conn_id(const struct tinyproto_conn *conn);
/** The handler's data_size bytes, aligned for anything; NULL if it asked for none. */
TINYPROTO_API void *tinyproto_conn_data(const struct tinyproto_conn *conn);
TINYPROTO_API void *tinyproto_conn_arg(const struct tinyproto_conn *conn); /**< the handler's */
/** The peer's address as text: "192.0.2.1:4711", "[::1]:4711", "unix:/path"; until connected the
 * target. Never NULL, also in conn_shutdown. */
TINYPROTO_API const char *tinyproto_conn_peer(const struct tinyproto_conn *conn);
/** The peer's address; NULL and `*len` 0 until connected. Valid as long as the connection. */
TINYPROTO_API const struct sockaddr *tinyproto_conn_sockaddr(const struct tinyproto_conn *conn,
                                                             size_t *len);
/** The descriptor, to look at; -1: none. */
TINYPROTO_API int tinyproto_conn_fd(const struct tinyproto_conn *conn);
TINYPROTO_API struct tinyproto_server *tinyproto_conn_server(const struct tinyproto_conn *conn);
TINYPROTO_API struct tinyproto_client *tinyproto_conn_client(const struct tinyproto_conn *conn);

/** Another handler than its server's or client's, data included. Only before the first hook of the
 * handler: in conn_init, or after tinyproto_client_connect(). TINYPROTO_E_STATE, _E_MEMORY. */
TINYPROTO_API enum tinyproto_error
tinyproto_conn_set_handler(struct tinyproto_conn *conn, const struct tinyproto_handler *handler);

/** Stall time: the longest time without a byte moved inside a handshake or transmission, or while a
 * status is awaited. 0: none. */
TINYPROTO_API void tinyproto_conn_set_timeout(struct tinyproto_conn *conn, uint32_t stall_ms);
/** The longest time between transmissions. 0: none. */
TINYPROTO_API void tinyproto_conn_set_idle_timeout(struct tinyproto_conn *conn, uint32_t idle_ms);
/** Limit of messages announced by the peer from now on; capped at TINYPROTO_MESSAGE_MAX. */
TINYPROTO_API void tinyproto_conn_set_receive_max(struct tinyproto_conn *conn, uint32_t bytes);

/* ---- Options of servers and clients ---- */

/** Fill it with tinyproto_server_options() or tinyproto_client_options(), then change fields. */
struct tinyproto_options {
    uint32_t connection_limit;   /**< 0: none but what descriptors there are, less a reserve */
    uint32_t receive_max;        /**< bytes of a message; TINYPROTO_MESSAGE_MAX */
    uint32_t send_max;           /**< the same */
    size_t queue_max_bytes;      /**< send queue of a connection; 64 MiB */
    uint64_t incoming_max_bytes; /**< memory for incomplete messages, all connections; 4 GiB */
    uint32_t open_timeout_ms; /**< handshake; of clients with resolving and connecting. 10 s, 5 s */
    uint32_t stall_timeout_ms; /**< 60 s, of clients 5 s; 0: none */
    uint32_t idle_timeout_ms;  /**< 0: none */
    uint32_t grace_ms;         /**< for a lone 00; 2 s */
    uint32_t linger_ms;        /**< of an orderly close; 1 s */
    uint32_t stop_timeout_ms;  /**< until what is still open is aborted when stopping; 2 s */
    uint32_t interval_ms;      /**< of loop_pass; 30 ms; 0: only after messages and turns */
};

#ifdef __cplusplus
}
#endif

#endif
