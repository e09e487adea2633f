/*
 * Clients: any number of connections, to any servers, on one loop.  (doc/protocol/tinyproto.md, 8)
 * Programs that want to wait in each call instead: <tinyproto/sync.h>.
 *
 *     struct tinyproto_client *client;
 *
 *     tinyproto_client_new(NULL, NULL, NULL, &client);
 *     tinyproto_client_set_handler(client, &handler);
 *     conn = tinyproto_client_connect(client, "localhost", 8088);
 *     tinyproto_transmit(conn, "hello", 5);
 *     tinyproto_client_run(client);
 *     tinyproto_client_free(client);
 *
 * Threads: the loop's, but for tinyproto_client_stop() and tinyproto_client_post_transmit().
 */
#ifndef TINYPROTO_CLIENT_H
#define TINYPROTO_CLIENT_H

#include <tinyproto/conn.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uv_loop_s; /* uv_loop_t */

/** Every hook may be NULL. */
struct tinyproto_client_hooks {
    void *arg; /**< the program's: tinyproto_client_arg() */

    /** Once, when its loop runs for the first time. */
    void (*pre_loop)(struct tinyproto_client *client);
    /** Every turn of the loop, and at least every interval_ms. */
    void (*loop_pass)(struct tinyproto_client *client);
    /** Once, when it has stopped: no connection is left, nothing of it is in the loop. The last
     * callback: here or afterwards, on the caller's loop, it may be freed. */
    void (*post_loop)(struct tinyproto_client *client);

    /** Exactly once for each connection, the last hook of it. */
    void (*conn_shutdown)(struct tinyproto_client *client, struct tinyproto_conn *conn,
                          const struct tinyproto_cause *why);
};

/** The defaults. */
TINYPROTO_API void tinyproto_client_options(struct tinyproto_options *options);

/**
 * @param hooks    copied; NULL: none
 * @param options  copied; NULL: the defaults
 * @param loop     the caller's, which outlives the client and stays alive until that is stopped;
 *                 NULL: one of its own, for _run()
 * @return         TINYPROTO_E_ARGUMENT, _E_MEMORY, _E_SYSTEM: `*out` is NULL
 */
TINYPROTO_API enum tinyproto_error tinyproto_client_new(const struct tinyproto_client_hooks *hooks,
                                                        const struct tinyproto_options *options,
                                                        struct uv_loop_s *loop,
                                                        struct tinyproto_client **out);

/** Frees it. On the caller's loop it is not running: post_loop was called. On its own loop, outside
 * of _run(), what is still open is aborted, with the hooks of these connections. NULL is allowed. */
TINYPROTO_API void tinyproto_client_free(struct tinyproto_client *client);

/** The handler of connections made from now on; must outlive them. */
TINYPROTO_API void tinyproto_client_set_handler(struct tinyproto_client *client,
                                                const struct tinyproto_handler *handler);

/** For connections made from now on: the time to connect and shake hands, and the stall time. */
TINYPROTO_API void tinyproto_client_set_timeout(struct tinyproto_client *client, uint32_t ms);

/** Copied; for connections made from now on. TINYPROTO_E_MEMORY. */
TINYPROTO_API enum tinyproto_error
tinyproto_client_add_plugin(struct tinyproto_client *client, const struct tinyproto_plugin *plugin);

/**
 * Makes a connection, which resolves, tries all addresses in turn and shakes hands as the loop runs;
 * messages may be transmitted at once. Its handler's pre_loop or failed tells.
 *
 * @return  NULL: `host` or `port` (1 .. 65535) is wrong, the client is stopping, its connection limit
 *          is reached, or no memory
 */
TINYPROTO_API struct tinyproto_conn *tinyproto_client_connect(struct tinyproto_client *client,
                                                              const char *host, int port);
TINYPROTO_API struct tinyproto_conn *
tinyproto_client_connect_address(struct tinyproto_client *client,
                                 const struct tinyproto_address *address);

/** Runs its own loop until it is stopped. TINYPROTO_E_STATE: on the caller's loop. */
TINYPROTO_API enum tinyproto_error tinyproto_client_run(struct tinyproto_client *client);

/** Stops: connections are closed in order and, after stop_timeout_ms, aborted; then post_loop. Returns
 * at once. From any hook, any thread, a signal handler, at any time between new and free. On its own
 * loop it may run again afterwards; on the caller's it is over. */
TINYPROTO_API void tinyproto_client_stop(struct tinyproto_client *client);

TINYPROTO_API void *tinyproto_client_arg(const struct tinyproto_client *client);

/** Connections that are not closed yet. */
TINYPROTO_API size_t tinyproto_client_count(const struct tinyproto_client *client);

/** Calls `fn` for each connection until it returns false. `fn` may close, abort and transmit. */
TINYPROTO_API void tinyproto_client_each(struct tinyproto_client *client,
                                         bool (*fn)(void *arg, struct tinyproto_conn *conn),
                                         void *arg);

/** NULL: no connection has this id. */
TINYPROTO_API struct tinyproto_conn *tinyproto_client_find(const struct tinyproto_client *client,
                                                           const char *id);

/** As tinyproto_server_post_transmit(). */
TINYPROTO_API enum tinyproto_error tinyproto_client_post_transmit(struct tinyproto_client *client,
                                                                  const char *id, const void *ptr,
                                                                  size_t len);

#ifdef __cplusplus
}
#endif

#endif
