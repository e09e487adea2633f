/*
 * Servers: any number of addresses and connections on one loop.  (doc/protocol/tinyproto.md, 7)
 *
 *     struct tinyproto_options options;
 *     struct tinyproto_server *server;
 *     struct tinyproto_cause why;
 *
 *     tinyproto_server_options(&options);
 *     tinyproto_server_new(NULL, &options, NULL, &server);
 *     tinyproto_server_set_handler(server, &handler);
 *     tinyproto_server_add_addr(server, "127.0.0.1", 8088);
 *     why = tinyproto_server_run(server);
 *     tinyproto_server_free(server);
 *
 * Threads: the loop's, but for tinyproto_server_stop() and tinyproto_server_post_transmit().
 */
#ifndef TINYPROTO_SERVER_H
#define TINYPROTO_SERVER_H

#include <tinyproto/conn.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uv_loop_s; /* uv_loop_t */

/** Every hook may be NULL. */
struct tinyproto_server_hooks {
    void *arg; /**< the program's: tinyproto_server_arg() */

    /** Once after each start, on the loop, before anybody is accepted. */
    void (*pre_loop)(struct tinyproto_server *server);
    /** Every turn of the loop, and at least every interval_ms. */
    void (*loop_pass)(struct tinyproto_server *server);
    /** Once, when it has stopped: no connection is left, nothing of it is in the loop. The last
     * callback: here or afterwards it may be started again or, on the caller's loop, freed. */
    void (*post_loop)(struct tinyproto_server *server);

    /** Accepted, before the handshake: set handler, plugins, limits; transmit (it goes out after the
     * handshake). false: the connection is closed; conn_shutdown follows. */
    bool (*conn_init)(struct tinyproto_server *server, struct tinyproto_conn *conn);
    /** Exactly once for each conn_init, the last hook of a connection. */
    void (*conn_shutdown)(struct tinyproto_server *server, struct tinyproto_conn *conn,
                          const struct tinyproto_cause *why);
};

/** The defaults. */
TINYPROTO_API void tinyproto_server_options(struct tinyproto_options *options);

/**
 * @param hooks    copied; NULL: none
 * @param options  copied; NULL: the defaults
 * @param loop     the caller's, which outlives the server; NULL: one of its own, for _run()
 * @return         TINYPROTO_E_ARGUMENT, _E_MEMORY, _E_SYSTEM: `*out` is NULL
 */
TINYPROTO_API enum tinyproto_error tinyproto_server_new(const struct tinyproto_server_hooks *hooks,
                                                        const struct tinyproto_options *options,
                                                        struct uv_loop_s *loop,
                                                        struct tinyproto_server **out);

/** Frees it. It is not running: never started, or post_loop was called, or _run() has returned. NULL
 * is allowed. */
TINYPROTO_API void tinyproto_server_free(struct tinyproto_server *server);

/** The handler of connections that are accepted from now on; must outlive them. */
TINYPROTO_API void tinyproto_server_set_handler(struct tinyproto_server *server,
                                                const struct tinyproto_handler *handler);

/** Of connections that are accepted from now on. 0: none. */
TINYPROTO_API void tinyproto_server_set_limit(struct tinyproto_server *server,
                                              uint32_t connections);

/** Copied; for connections that are accepted from now on. TINYPROTO_E_MEMORY. */
TINYPROTO_API enum tinyproto_error
tinyproto_server_add_plugin(struct tinyproto_server *server, const struct tinyproto_plugin *plugin);

/** One more address to listen on; names are resolved by start, which blocks for it, and the first
 * result counts. TINYPROTO_E_ARGUMENT, _E_STATE (running), _E_MEMORY. */
TINYPROTO_API enum tinyproto_error tinyproto_server_add_addr(struct tinyproto_server *server,
                                                             const char *host, int port);
TINYPROTO_API enum tinyproto_error
tinyproto_server_add_address(struct tinyproto_server *server,
                             const struct tinyproto_address *address);

/** While running: the address really bound, of the `i`th added, port 0 replaced: "127.0.0.1:8088",
 * "[::1]:8088", "unix:/path". NULL: not running, or no such address. Dies with the next stop. */
TINYPROTO_API const char *tinyproto_server_addr(const struct tinyproto_server *server, size_t i);

/**
 * Listens on all addresses; connections are accepted as the loop runs. On failure nothing listens:
 * TINYPROTO_E_STATE (running, or no address), _E_SYSTEM (an address is taken or cannot be resolved),
 * _E_MEMORY, and tinyproto_server_error() names the address and the reason.
 */
TINYPROTO_API struct tinyproto_cause tinyproto_server_start(struct tinyproto_server *server);

/** The line about the last start that failed; "" if none did. */
TINYPROTO_API const char *tinyproto_server_error(const struct tinyproto_server *server);

/** On a loop of its own: starts, unless that was done, and returns when stopped. Errors of start, and
 * TINYPROTO_E_STATE on the caller's loop. */
TINYPROTO_API struct tinyproto_cause tinyproto_server_run(struct tinyproto_server *server);

/**
 * Stops: nobody is accepted any more, open connections are closed in order and, after
 * stop_timeout_ms, aborted; then post_loop. Returns at once. From any hook, any thread, a signal
 * handler, at any time between new and free; if not running, nothing happens.
 */
TINYPROTO_API void tinyproto_server_stop(struct tinyproto_server *server);

TINYPROTO_API void *tinyproto_server_arg(const struct tinyproto_server *server);

/** Connections from accept to close. */
TINYPROTO_API size_t tinyproto_server_count(const struct tinyproto_server *server);

/** Calls `fn` for each connection until it returns false. `fn` may close, abort and transmit. */
TINYPROTO_API void tinyproto_server_each(struct tinyproto_server *server,
                                         bool (*fn)(void *arg, struct tinyproto_conn *conn),
                                         void *arg);

/** NULL: no connection has this id. */
TINYPROTO_API struct tinyproto_conn *tinyproto_server_find(const struct tinyproto_server *server,
                                                           const char *id);

/**
 * From any thread: transmits (a copy) on the loop, if the connection is still there then. What waits
 * for the loop, or for room in send queues, is bounded by queue_max_bytes in all.
 * TINYPROTO_E_TOO_LARGE, _E_QUEUE_FULL, _E_MEMORY, _E_STATE (not running).
 */
TINYPROTO_API enum tinyproto_error tinyproto_server_post_transmit(struct tinyproto_server *server,
                                                                  const char *id, const void *ptr,
                                                                  size_t len);

#ifdef __cplusplus
}
#endif

#endif
