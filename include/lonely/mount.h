/*
 * Requests that another HTTP server has received, for a broadcaster (<lonely/broadcaster.h>) or a
 * subscriber's receiver (<lonely/client.h>) in the same program. No server in particular: the host, the
 * program with the server, gives in method, target, headers and the pieces of the body, and takes out a
 * status, headers and a body; or gives its socket away, for a websocket. (doc/protocol/http.md, 2 and 5)
 *
 *     x = lonely_mount_begin(mount, &request, on_ready, me);
 *     again:
 *     switch (lonely_exchange_state(x)) {
 *     case LONELY_EXCHANGE_WAITS:    if (lonely_exchange_wait(x)) return, to go on after on_ready;
 *                                    goto again;
 *     case LONELY_EXCHANGE_READS:    ... lonely_exchange_write(x, piece, len) ... or _end(x)
 *     case LONELY_EXCHANGE_ANSWERED: ... send lonely_exchange_response(x) ... lonely_exchange_free(x)
 *     case LONELY_EXCHANGE_UPGRADES: ... send the 101 ... lonely_exchange_upgrade(x, dup(fd), rest)
 *     }
 *
 * Threads: every function may be called from any thread; one exchange by one thread at a time. on_ready
 * runs on a thread of the library: of a worker of the broadcaster, of the client, or with the client's
 * "io" = "caller" inside lonely_client_process. It must not wait. It may call the functions here, also
 * lonely_exchange_free; usually it wakes the host's loop.
 *
 * Back-pressure: of a body at most LONELY_EXCHANGE_BUFFER bytes wait for the library and as many are being
 * looked at; then lonely_exchange_write takes less than it was given. An answer waits for the host for as
 * long as it likes. Exchanges that are not freed and sockets given away count together against the
 * broadcaster's limits.max_connections (4096 of a client); one more is answered 503.
 *
 * Time: how long a peer may take for its head and body, and to read its answer, is the host's to bound, and
 * so are connections an address: the options of [http] and limits.max_connections_per_address are about the
 * library's own listeners. What the library does itself is bounded.
 *
 * Both liblonelypss and liblonelypsc have these functions: a program that uses both links the same version
 * of them.
 */
#ifndef LONELY_MOUNT_H
#define LONELY_MOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lonely/span.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sockaddr; /* of <sys/socket.h> */

/** Where requests go in: lonely_broadcaster_mount or lonely_client_mount gives it. Never freed by the
 * host; good until that broadcaster or client is closed. */
struct lonely_mount;

/** One request and its one answer. */
struct lonely_exchange;

/** Bytes of a body that wait for the library. */
#define LONELY_EXCHANGE_BUFFER 262144

/** Target, names and values of the headers together, and how many headers; more is answered 431. */
#define LONELY_EXCHANGE_HEAD_MAX    65536
#define LONELY_EXCHANGE_HEADERS_MAX 256

/** content_length of a body whose size was not announced (chunked). */
#define LONELY_EXCHANGE_LENGTH_UNKNOWN UINT64_MAX

struct lonely_exchange_header {
    struct lonely_span name, value;
};

/** What the host has received. All of it is copied by lonely_mount_begin. */
struct lonely_exchange_request {
    struct lonely_span method; /**< "POST" */
    /** As on the request line: not decoded, with the prefix under which it was mounted and the query. */
    struct lonely_span target;
    /** All of them, in order, each line one; blanks around values removed. Of these Authorization,
     * Repr-Digest, Host, Origin, User-Agent and those of a websocket's handshake are looked at. */
    const struct lonely_exchange_header *headers;
    size_t header_count;
    const struct sockaddr *peer; /**< who asks, for the log; NULL: not known */
    bool secure;                 /**< it came over TLS */
    bool version_1_0;            /**< HTTP/1.0: no upgrade */
    uint64_t content_length;     /**< 0: no body; or LONELY_EXCHANGE_LENGTH_UNKNOWN */
};

/** What the host sends. Good until the exchange is freed or given its socket. Content-Length, Date and
 * Connection are the host's to add (but for a 101, which has Upgrade and Connection). */
struct lonely_exchange_response {
    int status;
    const struct lonely_exchange_header *headers;
    size_t header_count;
    struct lonely_span body;
};

/**
 * Something is to be done: the state is another than LONELY_EXCHANGE_WAITS. Runs once for each
 * lonely_exchange_wait that has returned true, and not after lonely_exchange_free (or _upgrade) has
 * returned; these wait for one that is running, unless it is they that are called from it. So it must not
 * want a lock that is held around them.
 */
typedef void lonely_exchange_ready_fn(void *arg);

/**
 * Gives a request in. What comes of it, also 404 for a target that is not under the mount's prefix, 413, 431
 * or 503, is told as an answer.
 *
 * @return the exchange, to be freed by lonely_exchange_free, or lonely_exchange_upgrade.
 *         NULL: no memory; answer 503.
 */
LONELY_API struct lonely_exchange *lonely_mount_begin(struct lonely_mount *m,
                                                      const struct lonely_exchange_request *request,
                                                      lonely_exchange_ready_fn *on_ready,
                                                      void *arg);

enum lonely_exchange_state {
    LONELY_EXCHANGE_WAITS, /**< nothing to do for the host: lonely_exchange_wait */
    LONELY_EXCHANGE_READS, /**< the body is wanted (the time for 100 Continue), and there is room */
    LONELY_EXCHANGE_ANSWERED, /**< there is a response, perhaps before the body has come whole */
    LONELY_EXCHANGE_UPGRADES  /**< the same, a 101; then the socket is the library's */
};

LONELY_API enum lonely_exchange_state lonely_exchange_state(struct lonely_exchange *x);

/** Has on_ready called when the state is another than WAITS. False: it is that now, and on_ready will not
 * run. */
LONELY_API bool lonely_exchange_wait(struct lonely_exchange *x);

/**
 * The next bytes of the body; copied. Returns how many were taken: 0 in state WAITS, less than `len` when
 * there is no room for more, all of them (and thrown away) once there is an answer. Not after
 * lonely_exchange_end.
 */
LONELY_API size_t lonely_exchange_write(struct lonely_exchange *x, const void *ptr, size_t len);

/** The body is complete. To be called for each body, also one without a byte; not needed, but harmless,
 * when content_length was 0. A body of another size than announced is answered 400. */
LONELY_API void lonely_exchange_end(struct lonely_exchange *x);

/** The answer: NULL before the state is ANSWERED or UPGRADES. */
LONELY_API const struct lonely_exchange_response *
lonely_exchange_response(struct lonely_exchange *x);

/**
 * In state UPGRADES, once the 101 has left: gives the library a socket, and what the peer has sent behind
 * its request already (copied; at most LONELY_EXCHANGE_BUFFER bytes). Frees the exchange.
 *
 * @param fd  a connected stream socket that nobody else reads or writes any more; the library's from now on,
 *            also on failure: a dup() where the server closes its own. It may be one end of a socketpair,
 *            whose other end the host pumps (as it must where its server speaks TLS itself).
 * @return false: not in this state, or no memory; `fd` is closed
 */
LONELY_API bool lonely_exchange_upgrade(struct lonely_exchange *x, int fd, struct lonely_span rest);

/** Frees it; whatever it waits for is given up: the peer has left, or has its answer. At any time, also
 * after the broadcaster or client was closed. NULL is allowed. */
LONELY_API void lonely_exchange_free(struct lonely_exchange *x);

#ifdef __cplusplus
}
#endif

#endif
