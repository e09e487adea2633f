/*
 * What a broadcaster counts, and its text for Prometheus. The table of metrics is in metrics.c.
 *
 * Each thread has a struct metrics of its own and is the only one to write it; readers sum over all.
 * So counting is a plain load, addition and store: no locked instruction, no shared cache line, no
 * memory taken.
 */
#ifndef METRICS_H
#define METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "http_client.h"
#include "index.h"

/* Values of labels: name, text. A route of routes.c names its own. */
#define METRICS_ROUTES(X)                                                      \
    X(NOTIFY, "/v1/notify")                                                    \
    X(SUBSCRIBE_EXACT, "/v1/subscribe/exact")                                  \
    X(SUBSCRIBE_GLOB, "/v1/subscribe/glob")                                    \
    X(UNSUBSCRIBE_EXACT, "/v1/unsubscribe/exact")                              \
    X(UNSUBSCRIBE_GLOB, "/v1/unsubscribe/glob")                                \
    X(CHECK_SUBSCRIPTIONS, "/v1/check_subscriptions")                          \
    X(SET_SUBSCRIPTIONS, "/v1/set_subscriptions")                              \
    X(RECEIVE, "/v1/receive_for_websockets")                                   \
    X(MISSED, "/v1/missed_for_websockets")                                     \
    X(UNKNOWN, "unknown") /* from here on: answered at once, without a body */ \
    X(WEBSOCKET, "/v1/websocket")

#define METRICS_STATUSES(X) \
    X(101, "101")           \
    X(200, "200")           \
    X(400, "400")           \
    X(401, "401")           \
    X(403, "403")           \
    X(404, "404")           \
    X(405, "405")           \
    X(409, "409")           \
    X(413, "413")           \
    X(500, "500")           \
    X(503, "503")           \
    X(507, "507")           \
    X(OTHER, "other")

#define METRICS_REASONS(X)                                                       \
    X(MALFORMED, "malformed")           /* 400 */                                \
    X(UNAUTHORIZED, "unauthorized")     /* 401, 403 */                           \
    X(NOT_FOUND, "not_found")           /* 404, 405 */                           \
    X(TOO_SLOW, "too_slow")             /* 408 */                                \
    X(TOO_LARGE, "too_large")           /* 413: the message */                   \
    X(HEAD_TOO_LARGE, "head_too_large") /* 414, 431 */                           \
    X(BUSY, "busy")                     /* 503: the outbox is full */            \
    X(UNAVAILABLE, "unavailable")       /* 503: the store, or memory */          \
    X(NO_SPACE, "no_space")             /* 507 */                                \
    X(ADDRESS_LIMIT, "address_limit")   /* limits.max_connections_per_address */ \
    X(OTHER, "other")

#define METRICS_NOTIFIES(X) \
    X(OK, "ok")             \
    X(BUSY, "busy")         \
    X(UNAVAILABLE, "unavailable")

#define METRICS_DELIVERIES(X)                                              \
    X(CONFIRMED, "confirmed")                                              \
    X(UNSUBSCRIBED, "unsubscribed")                                        \
    X(UNCONFIRMED, "unconfirmed") /* a reply that confirms nothing */      \
    X(URL, "url")                 /* from here on enum http_call_status */ \
    X(CONNECT, "connect")                                                  \
    X(TLS, "tls")                                                          \
    X(TIMEOUT, "timeout")                                                  \
    X(REPLY_SIZE, "reply_size")                                            \
    X(BROKEN, "broken")                                                    \
    X(CANCELLED, "cancelled")

#define METRICS_MISSED(X)                                 \
    X(CONFIRMED, "confirmed")                             \
    X(UNSUBSCRIBED, "unsubscribed")                       \
    X(RETRIED, "retried") /* failed, to be tried again */ \
    X(GIVEN_UP, "given_up")                               \
    X(CANCELLED, "cancelled")

#define METRICS_STORE_OPS(X)          \
    X(SYNC, "sync")                   \
    X(SYNC_MACS, "sync_macs")         \
    X(SUBSCRIBE, "subscribe")         \
    X(UNSUBSCRIBE, "unsubscribe")     \
    X(SET, "set")                     \
    X(CHECK, "check")                 \
    X(MISSED_UPSERT, "missed_upsert") \
    X(MISSED_LOCK, "missed_lock")     \
    X(MISSED_CLEAR, "missed_clear")   \
    X(MISSED_RETRY, "missed_retry")   \
    X(PROBE, "probe") /* by GET /readyz */

#define METRICS_DICTIONARIES(X) \
    X(TRAINED, "trained")       \
    X(FAILED, "failed")

#define METRICS_TRANSPORTS(X) /* as enum transport_kind */ \
    X(WEBSOCKET, "websocket")                              \
    X(TCP, "tcp")

#define METRICS_DIRECTIONS(X) \
    X(IN, "in")               \
    X(OUT, "out")

/* Why a session ended, and the code with which the broadcaster ends it (transport.h). */
#define METRICS_SESSION_ENDS(X)                                                          \
    X(CLOSED, "closed", TRANSPORT_NORMAL) /* by the peer, in order */                    \
    X(LOST, "lost", TRANSPORT_LOST)                                                      \
    X(MALFORMED, "malformed", TRANSPORT_MALFORMED)                                       \
    X(TEXT, "text", TRANSPORT_TEXT)                                                      \
    X(UNAUTHORIZED, "unauthorized", TRANSPORT_POLICY)                                    \
    X(VIOLATION, "violation", TRANSPORT_POLICY) /* a frame that is not allowed now */    \
    X(TOO_SLOW, "too_slow", TRANSPORT_POLICY)   /* no CONFIGURE */                       \
    X(TOO_LARGE, "too_large", TRANSPORT_TOO_BIG)                                         \
    X(SILENT, "silent", TRANSPORT_FAILED)           /* no pong */                        \
    X(OVERLOAD, "overload", TRANSPORT_OVERLOAD)     /* the peer does not keep up */      \
    X(BUSY, "busy", TRANSPORT_OVERLOAD)             /* outbox, disk or memory is full */ \
    X(UNAVAILABLE, "unavailable", TRANSPORT_FAILED) /* the store */                      \
    X(FAILED, "failed", TRANSPORT_FAILED)           /* a file, or OpenSSL */             \
    X(SHUTDOWN, "shutdown", TRANSPORT_RESTART)

enum metrics_route {
#define X(name, text) METRICS_ROUTE_##name,
    METRICS_ROUTES(X)
#undef X
        METRICS_ROUTE_COUNT
};
enum metrics_status {
#define X(name, text) METRICS_STATUS_##name,
    METRICS_STATUSES(X)
#undef X
        METRICS_STATUS_COUNT
};
enum metrics_reason {
#define X(name, text) METRICS_REASON_##name,
    METRICS_REASONS(X)
#undef X
        METRICS_REASON_COUNT,
    METRICS_REASON_NONE = METRICS_REASON_COUNT
};
enum metrics_notify {
#define X(name, text) METRICS_NOTIFY_##name,
    METRICS_NOTIFIES(X)
#undef X
        METRICS_NOTIFY_COUNT
};
enum metrics_delivery {
#define X(name, text) METRICS_DELIVERY_##name,
    METRICS_DELIVERIES(X)
#undef X
        METRICS_DELIVERY_COUNT
};
enum metrics_missed {
#define X(name, text) METRICS_MISSED_##name,
    METRICS_MISSED(X)
#undef X
        METRICS_MISSED_COUNT
};
enum metrics_store_op {
#define X(name, text) METRICS_STORE_##name,
    METRICS_STORE_OPS(X)
#undef X
        METRICS_STORE_COUNT
};

enum metrics_transport {
#define X(name, text) METRICS_TRANSPORT_##name,
    METRICS_TRANSPORTS(X)
#undef X
        METRICS_TRANSPORT_COUNT
};
enum metrics_direction {
#define X(name, text) METRICS_##name,
    METRICS_DIRECTIONS(X)
#undef X
        METRICS_DIRECTION_COUNT
};
enum metrics_dictionary {
#define X(name, text) METRICS_DICTIONARY_##name,
    METRICS_DICTIONARIES(X)
#undef X
        METRICS_DICTIONARY_COUNT
};
enum metrics_session_end {
#define X(name, text, code) METRICS_SESSION_##name,
    METRICS_SESSION_ENDS(X)
#undef X
        METRICS_SESSION_END_COUNT
};

/* Written by one thread. A gauge of the process is the sum of what its threads say. */
struct metrics_cell {
    _Atomic uint64_t value;
};

#define METRICS_BUCKETS 17 /* and one without bound */

struct metrics_histogram {
    struct metrics_cell buckets[METRICS_BUCKETS + 1];
    struct metrics_cell sum_ns;
};

/* What one thread counts. Zeroed memory is a good beginning. */
struct metrics {
    struct metrics_cell requests[METRICS_ROUTE_COUNT][METRICS_STATUS_COUNT];
    struct metrics_cell aborted[METRICS_ROUTE_UNKNOWN];
    struct metrics_cell rejected[METRICS_REASON_COUNT];
    struct metrics_cell notifies[METRICS_NOTIFY_COUNT];
    struct metrics_cell message_bytes;
    struct metrics_cell deliveries[METRICS_DELIVERY_COUNT];
    struct metrics_cell sessions[METRICS_TRANSPORT_COUNT];
    struct metrics_cell sessions_opened[METRICS_TRANSPORT_COUNT];
    struct metrics_cell session_ends[METRICS_SESSION_END_COUNT];
    struct metrics_cell session_frames[METRICS_TRANSPORT_COUNT][METRICS_DIRECTION_COUNT];
    struct metrics_cell session_bytes[METRICS_TRANSPORT_COUNT][METRICS_DIRECTION_COUNT];
    struct metrics_cell session_messages;
    struct metrics_cell compressed_messages[METRICS_DIRECTION_COUNT];
    struct metrics_cell compressed_bytes[METRICS_DIRECTION_COUNT];
    struct metrics_cell uncompressed_bytes[METRICS_DIRECTION_COUNT];
    struct metrics_cell dictionaries[METRICS_DICTIONARY_COUNT];
    struct metrics_cell missed_scheduled, missed_sent;
    struct metrics_cell missed[METRICS_MISSED_COUNT];
    struct metrics_cell store_failures[METRICS_STORE_COUNT];
    struct metrics_cell store_pending[METRICS_STORE_COUNT];
    struct metrics_cell connections, outbox_running, outbox_queued, missed_running; /* pulse.c */
    struct metrics_histogram request_time[METRICS_ROUTE_UNKNOWN];
    struct metrics_histogram delivery_time;
    struct metrics_histogram store_time[METRICS_STORE_COUNT];
};

/* What is asked for when the text is made. */
struct metrics_process {
    const char *version;
    double started_s; /* wall clock */
    uint64_t workers;
    struct index_counts index;
    uint64_t body_bytes;
};

static inline void metrics_set(struct metrics_cell *cell, uint64_t value)
{
    atomic_store_explicit(&cell->value, value, memory_order_relaxed);
}

static inline void metrics_add(struct metrics_cell *cell, uint64_t n)
{
    metrics_set(cell, atomic_load_explicit(&cell->value, memory_order_relaxed) + n);
}

void metrics_observe(struct metrics_histogram *h, uint64_t ns);

enum metrics_status metrics_status_of(int status);
/* Why a request that got this answer was turned away; METRICS_REASON_NONE: it was not. */
enum metrics_reason metrics_reason_of(int status);
/* What a call that brought no whole reply counts as. */
enum metrics_delivery metrics_delivery_of(enum http_call_status status);

const char *metrics_session_end_str(enum metrics_session_end reason);

/* Writes everything in Prometheus's text format (version 0.0.4), summed over `count` threads. */
void metrics_print(FILE *out, const struct metrics *const *threads, size_t count,
                   const struct metrics_process *process);

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
