/*
 * liblonelypsc: the subscriber's end of the Lonely Pub-Sub System. One client type over three ways to the
 * broadcasters:
 *
 *     HTTP       no connection is held: broadcasters post messages to a listener of this process
 *     websocket  one connection to one broadcaster at a time
 *     raw TCP    the same without HTTP in front
 *
 * Which one the URLs of the broadcasters say: http:// https:// ws:// wss:// tcp:// tcps://. All of one
 * client are of one kind. (doc/protocol/session.md, 6 to 10; doc/protocol/http.md, 5)
 *
 *     struct lonely_client_options *o = lonely_client_options_create();
 *     lonely_client_options_set(o, "broadcaster", "http://127.0.0.1:3003", NULL);
 *     err = lonely_client_open(o, &client, &why);
 *     err = lonely_subscribe_exact(client, topic, NULL, &sub);
 *     while (lonely_subscription_next(sub, -1, &delivery) == LONELY_CLIENT_OK) {
 *         ... lonely_delivery_read(delivery, 0, buffer, sizeof(buffer)) ...
 *         lonely_delivery_release(delivery);
 *     }
 *     lonely_subscription_destroy(sub);
 *     lonely_client_close(client);
 *
 * Threads: unless it says otherwise, a function may be called from any thread at any time; one
 * subscription or delivery is used by one thread at a time. By default a client has a thread of its own
 * for its sockets ("io" = "thread"). With "io" = "caller" it has none: see lonely_client_process.
 *
 * Callbacks run on the client's thread (or inside lonely_client_process and the calls that wait) and must
 * not wait; they may call every function here that does not wait, but not lonely_client_close.
 *
 * Waiting: `timeout_ms` is -1 (no limit of its own), 0 (do not wait) or milliseconds.
 */
#ifndef LONELY_CLIENT_H
#define LONELY_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lonely/span.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What calls return. Append only: the numbers are ABI. (doc/protocol/session.md, 9) */
#define LONELY_CLIENT_ERROR_MAP(X)                                                              \
    X(LONELY_CLIENT_OK, "success")                                                              \
    X(LONELY_CLIENT_TIMED_OUT, "nothing came in time")                                          \
    X(LONELY_CLIENT_AMBIGUOUS, "it may or may not have been done")                              \
    X(LONELY_CLIENT_RETRIES_EXHAUSTED, "every broadcaster was unavailable at every attempt")    \
    X(LONELY_CLIENT_UNREACHABLE, "no broadcaster could be reached")                             \
    X(LONELY_CLIENT_REFUSED, "refused; do not repeat")                                          \
    X(LONELY_CLIENT_FORBIDDEN, "the authorization of the request or of its answer is wrong")    \
    X(LONELY_CLIENT_ABANDONED, "the client has no connection and makes no more attempts")       \
    X(LONELY_CLIENT_QUEUE_FULL, "a queue of the client is full; nothing was done")              \
    X(LONELY_CLIENT_STATE, "not allowed in this state")                                         \
    X(LONELY_CLIENT_NOT_SUBSCRIBED, "no such topic or glob in this subscription")               \
    X(LONELY_CLIENT_ARGUMENT, "an argument is outside its documented range")                    \
    X(LONELY_CLIENT_SOURCE, "the message to be sent could not be read, or changed meanwhile")   \
    X(LONELY_CLIENT_SPOOL, "a message could not be written to the spool folder, or read again") \
    X(LONELY_CLIENT_CALLBACK, "a callback said no")                                             \
    X(LONELY_CLIENT_NO_MEMORY, "out of memory")

enum lonely_client_error {
#define LONELY_X_(name, text) name,
    LONELY_CLIENT_ERROR_MAP(LONELY_X_)
#undef LONELY_X_
};

/** The text of an error: static, one line, never NULL. */
LONELY_API const char *lonely_client_error_str(enum lonely_client_error err);

/** One line that says what failed and what to do; filled in by calls that take it, NULL is allowed. */
struct lonely_client_why {
    char text[512];
};

/* ---- Options ---- */

struct lonely_client_options;

/** All defaults. NULL: no memory. */
LONELY_API struct lonely_client_options *lonely_client_options_create(void);
LONELY_API void
lonely_client_options_destroy(struct lonely_client_options *o); /**< NULL is allowed */

/**
 * Sets an option by name, as the command line does: names, units and defaults are listed in
 * lonelypsc(3). Options that are lists (`broadcaster`, `dictionary`) grow by each call. A broadcaster is
 * `URL` or `URL PRIORITY`: lower ones are tried first, those without a priority last.
 *
 * @return LONELY_CLIENT_OK, _ARGUMENT (no such option, or not such a value: `why` says which)
 */
LONELY_API enum lonely_client_error lonely_client_options_set(struct lonely_client_options *o,
                                                              const char *name, const char *value,
                                                              struct lonely_client_why *why);

/** One option, for programs that print or complete them. */
struct lonely_client_option {
    const char *name;
    const char *unit;          /**< "ms", "bytes", "count", "yes|no", "URL", "path", ... */
    const char *default_value; /**< NULL: none */
    const char *meaning;       /**< a line */
    bool list;
};

/** The table of all options, in the order of the manual; static. */
LONELY_API const struct lonely_client_option *lonely_client_option_table(size_t *count);

/* ---- Tracing ---- (doc/protocol/tracing.md) */

/**
 * Told what happens to a notify, point by point. All members may be NULL. They must not wait, and must not
 * keep pointers. Never changes what is sent, but for the bytes that `sending` returns.
 */
struct lonely_client_tracer {
    void *arg;
    /** A notify begins; `id` is good until `end`. `hash_known`: it came with its SHA-512. */
    void (*start)(void *arg, uint64_t id, struct lonely_span topic, uint64_t size, bool from_file,
                  bool hash_known);
    void (*hashed)(void *arg, uint64_t id);
    /** Writes at most `cap` bytes of tracing to go with the request; returns how many. */
    size_t (*sending)(void *arg, uint64_t id, const char *broadcaster,
                      struct lonely_span identifier, uint8_t *to, size_t cap);
    void (*network_error)(void *arg, uint64_t id);
    void (*response_received)(void *arg, uint64_t id, int http_status); /**< 0: not HTTP */
    void (*bad_response)(void *arg, uint64_t id);
    void (*bad_authorization)(void *arg, uint64_t id, const char *result);
    void (*accepted)(void *arg, uint64_t id, struct lonely_span tracing, uint64_t notified);
    void (*waiting_to_retry)(void *arg, uint64_t id);
    void (*retrying)(void *arg, uint64_t id);
    void (*end)(void *arg, uint64_t id, enum lonely_client_error err);
};

/** Copied. Unset: nobody is told. */
LONELY_API void lonely_client_options_set_tracer(struct lonely_client_options *o,
                                                 const struct lonely_client_tracer *tracer);

/* ---- Client ---- */

struct lonely_client;

/**
 * Opens a client: checks the options, reads secrets, binds the receiver (HTTP), and begins to connect in
 * the background (websocket, TCP). The options may be destroyed afterwards.
 *
 * With "io" = "caller" the program ignores SIGPIPE; a thread of the client's own does not let it through.
 *
 * @return LONELY_CLIENT_OK
 *         _ARGUMENT   an option is missing, contradicts another, or names a file that cannot be used
 *         _REFUSED    the receiver's address cannot be bound
 *         _NO_MEMORY
 *         On failure `*out` is NULL and `why` says what.
 */
LONELY_API enum lonely_client_error lonely_client_open(const struct lonely_client_options *o,
                                                       struct lonely_client **out,
                                                       struct lonely_client_why *why);

/**
 * Ends it: HTTP: the broadcasters are told that nothing is subscribed any more (bounded by
 * close_timeout); websocket, TCP: the connection is closed in order. Notifies that have not left end with
 * ABANDONED, those without their confirmation with AMBIGUOUS; other threads that wait inside such calls are
 * waited for. Status handlers are told DEAD. Subscriptions and deliveries must have been destroyed and
 * released. NULL is allowed.
 *
 * @return the client's final error, if it had died of one, else LONELY_CLIENT_OK
 */
LONELY_API enum lonely_client_error lonely_client_close(struct lonely_client *c);

enum lonely_client_status {
    LONELY_CLIENT_LOST, /**< connecting, waiting, or not everything is confirmed: messages may be missed */
    LONELY_CLIENT_CONNECTED, /**< all that is subscribed is in force */
    LONELY_CLIENT_DEAD       /**< no more attempts; calls end with ABANDONED */
};

/** The best belief. */
LONELY_API enum lonely_client_status lonely_client_status(struct lonely_client *c);

/** Waits until everything that was subscribed before the call is confirmed. OK, TIMED_OUT, ABANDONED, or
 * the error of which the client died. */
LONELY_API enum lonely_client_error lonely_client_wait_connected(struct lonely_client *c,
                                                                 int64_t timeout_ms);

/** What went wrong last, until it is connected again or a call over HTTP succeeds; then OK and an empty text. */
LONELY_API enum lonely_client_error lonely_client_last_error(struct lonely_client *c,
                                                             struct lonely_client_why *why);

/** HTTP: where the receiver listens ("127.0.0.1:3002", port 0 replaced), and the URL under which this
 * process subscribes. Good until the client is closed; NULL for other transports. */
LONELY_API const char *lonely_client_bound(struct lonely_client *c);
LONELY_API const char *lonely_client_url(struct lonely_client *c);

struct lonely_mount;

/**
 * HTTP, with "bind" = none and a "host": where the program's own HTTP server gives in what it receives under
 * the path of `host` (<lonely/mount.h>): POST .../v1/receive and .../v1/recover. NULL: the client has a
 * listener, no receiver, or another transport. Good until the client is closed.
 */
LONELY_API struct lonely_mount *lonely_client_mount(struct lonely_client *c);

/**
 * "io" = "caller": the client does its work only in lonely_client_process, and in calls that wait. Watch
 * `lonely_client_fd` for reading (poll, epoll, any loop), wait at most `lonely_client_timeout_ms`, then
 * process. All calls must then come from one thread, or one at a time.
 */
LONELY_API int lonely_client_fd(struct lonely_client *c); /**< -1 with a thread of its own */
LONELY_API int lonely_client_timeout_ms(struct lonely_client *c); /**< -1: no limit */
LONELY_API void lonely_client_process(struct lonely_client *c);   /**< never waits */

/* ---- Subscriptions ---- (doc/protocol/session.md, 7) */

struct lonely_subscription;

/**
 * Runs inside lonely_subscription_next before the first message, and again after each gap during which
 * messages may have been missed; meanwhile messages are buffered. The place to rebuild state by asking
 * its source. May wait. False: `next` returns LONELY_CLIENT_CALLBACK; it runs again at the next call.
 */
typedef bool lonely_on_receiving_fn(void *arg);
struct lonely_on_receiving {
    lonely_on_receiving_fn *fn;
    void *arg;
};

/**
 * An empty subscription, not entered. `on_receiving` NULL: none. Topics and globs may be added and removed
 * before and after entering it.
 */
LONELY_API enum lonely_client_error
lonely_subscription_create(struct lonely_client *c, const struct lonely_on_receiving *on_receiving,
                           struct lonely_subscription **out);

/** Ends it: what it alone wanted is unsubscribed in the background, what it buffered is dropped. A delivery
 * of it that was not released stays good. NULL is allowed. */
LONELY_API void lonely_subscription_destroy(struct lonely_subscription *s);

/**
 * Adds or removes. Adding what is there does nothing. Once entered the broadcaster is told: with
 * `timeout_ms` 0 later, else the call waits for its confirmation. When that fails over HTTP nothing is
 * changed (H4); over websocket and TCP it stays wanted, and is asked for again after each reconnect. A call
 * that timed out goes on in the background.
 *
 * @param topic  at most 65,535 bytes; glob: valid UTF-8, at most 65,535 bytes
 * @return LONELY_CLIENT_OK, _ARGUMENT, _NOT_SUBSCRIBED (removing), _QUEUE_FULL, _TIMED_OUT, _ABANDONED,
 *         and over HTTP _AMBIGUOUS, _RETRIES_EXHAUSTED, _UNREACHABLE, _REFUSED, _FORBIDDEN
 */
LONELY_API enum lonely_client_error lonely_subscription_add_exact(struct lonely_subscription *s,
                                                                  struct lonely_span topic,
                                                                  int64_t timeout_ms);
LONELY_API enum lonely_client_error lonely_subscription_add_glob(struct lonely_subscription *s,
                                                                 struct lonely_span glob,
                                                                 int64_t timeout_ms);
LONELY_API enum lonely_client_error lonely_subscription_remove_exact(struct lonely_subscription *s,
                                                                     struct lonely_span topic,
                                                                     int64_t timeout_ms);
LONELY_API enum lonely_client_error lonely_subscription_remove_glob(struct lonely_subscription *s,
                                                                    struct lonely_span glob,
                                                                    int64_t timeout_ms);

/** Puts it in force and begins to buffer its messages; all its topics and globs in one call where that is
 * possible. Waits and fails as adding does. STATE: it was entered before. */
LONELY_API enum lonely_client_error lonely_subscription_enter(struct lonely_subscription *s,
                                                              int64_t timeout_ms);

/** Create, add, enter (waiting for the confirmation for the client's own time limits); on failure `*out` is
 * NULL. */
LONELY_API enum lonely_client_error
lonely_subscribe_exact(struct lonely_client *c, struct lonely_span topic,
                       const struct lonely_on_receiving *on_receiving,
                       struct lonely_subscription **out);
LONELY_API enum lonely_client_error
lonely_subscribe_glob(struct lonely_client *c, struct lonely_span glob,
                      const struct lonely_on_receiving *on_receiving,
                      struct lonely_subscription **out);

/* ---- Messages ---- */

/** One message: immutable; in memory, or in a file of the spool folder when it is large. */
struct lonely_delivery;

/**
 * The next message, to be released by the caller. While the client is LOST it waits, also when messages are
 * buffered, until the connection stands again and `on_receiving` has run. (doc/protocol/session.md, 7)
 *
 * @return LONELY_CLIENT_OK, _TIMED_OUT, _ABANDONED, _CALLBACK, _STATE (not entered), _SPOOL (a message
 *         was lost for lack of disk; the next call goes on)
 */
LONELY_API enum lonely_client_error lonely_subscription_next(struct lonely_subscription *s,
                                                             int64_t timeout_ms,
                                                             struct lonely_delivery **out);

/** A descriptor that is readable while `next` would not wait. Owned by the subscription; -1: none left. */
LONELY_API int lonely_subscription_fd(struct lonely_subscription *s);

LONELY_API struct lonely_span lonely_delivery_topic(const struct lonely_delivery *d);
LONELY_API uint64_t lonely_delivery_size(const struct lonely_delivery *d);
LONELY_API const uint8_t *lonely_delivery_sha512(const struct lonely_delivery *d); /**< 64 bytes */
/** The whole message when it is in memory; ptr NULL and len 0 when it is spooled. */
LONELY_API struct lonely_span lonely_delivery_span(const struct lonely_delivery *d);
/** Reads at most `cap` bytes at an offset: how many, 0 at the end, -1: the spool file cannot be read. Any
 * thread. */
LONELY_API ptrdiff_t lonely_delivery_read(const struct lonely_delivery *d, uint64_t at, void *to,
                                          size_t cap);
/** A descriptor of the spool file, for reading only, at any offset; -1 when it is in memory. */
LONELY_API int lonely_delivery_fd(const struct lonely_delivery *d);
LONELY_API void lonely_delivery_ref(struct lonely_delivery *d);
LONELY_API void lonely_delivery_release(struct lonely_delivery *d); /**< NULL is allowed */

/* ---- Notify ---- */

/** What to send. Exactly one of the three sources. */
struct lonely_notify {
    struct lonely_span topic;
    struct lonely_span bytes; /**< in memory: used when `fd` is -1 and `read` NULL; copied */
    int fd; /**< else a seekable descriptor, or -1: from its present offset, `size` bytes or to its end
             * (UINT64_MAX). Must stay open and unchanged until the call is done; its offset is not moved */
    /** else: reads at most `cap` bytes of the `size` at `at`; bytes (0 only at the end), or -1. May be
     * asked for an offset again. Runs on a thread of the client, one call at a time. */
    ptrdiff_t (*read)(void *arg, uint64_t at, void *to, size_t cap);
    void *read_arg;
    uint64_t size; /**< of fd and read; read: must be known */
    const uint8_t
        *sha512; /**< 64 bytes when known; NULL: it is computed by reading everything first */
    /** Told how many bytes have left, on the client's thread; NULL: nobody. */
    void (*progress)(void *arg, uint64_t sent, uint64_t size);
    void *progress_arg;
};

/** All zero, but `fd` -1. */
LONELY_API void lonely_notify_init(struct lonely_notify *n);

/**
 * Sends a message and waits for the broadcaster's confirmation.
 *
 * @param notified  how many subscribers the broadcaster handed it to; NULL is allowed
 * Over websocket and TCP a broadcaster that does not take a message can only end the connection: after three
 * connections that ended over it the call returns AMBIGUOUS.
 *
 * @return LONELY_CLIENT_OK (with `timeout_ms` 0 also: it goes on in the background), _TIMED_OUT (the same: what
 *         `n` points at beside topic and bytes must stay), _AMBIGUOUS, _UNREACHABLE, _REFUSED, _FORBIDDEN,
 *         _RETRIES_EXHAUSTED, _ABANDONED, _QUEUE_FULL, _SOURCE, _ARGUMENT (a topic above 65,535 bytes, two
 *         sources, no size)
 */
LONELY_API enum lonely_client_error lonely_client_notify(struct lonely_client *c,
                                                         const struct lonely_notify *n,
                                                         int64_t timeout_ms, uint64_t *notified);

/** The same without waiting: `done` runs exactly once, if this returns OK; in a callback, and with "io" =
 * "caller", perhaps before it returns. What `n` points at (beside topic and bytes, which are copied) must
 * live until then. */
typedef void lonely_notify_done_fn(void *arg, enum lonely_client_error err, uint64_t notified);
LONELY_API enum lonely_client_error lonely_client_notify_start(struct lonely_client *c,
                                                               const struct lonely_notify *n,
                                                               lonely_notify_done_fn *done,
                                                               void *arg);

/* ---- Direct: callbacks instead of subscriptions ---- (doc/protocol/session.md, 9) */

/** Counted as subscriptions are. `*id` names it for direct_unsubscribe, also after TIMED_OUT; an unknown id does
 * nothing. */
LONELY_API enum lonely_client_error lonely_client_direct_subscribe_exact(struct lonely_client *c,
                                                                         struct lonely_span topic,
                                                                         int64_t timeout_ms,
                                                                         uint64_t *id);
LONELY_API enum lonely_client_error lonely_client_direct_subscribe_glob(struct lonely_client *c,
                                                                        struct lonely_span glob,
                                                                        int64_t timeout_ms,
                                                                        uint64_t *id);
LONELY_API enum lonely_client_error
lonely_client_direct_unsubscribe(struct lonely_client *c, uint64_t id, int64_t timeout_ms);

/** Every message that arrives, whoever wanted it. `d` is good until the callback returns, longer with a
 * reference of its own. */
typedef void lonely_on_message_fn(void *arg, struct lonely_delivery *d);
LONELY_API enum lonely_client_error lonely_client_on_message(struct lonely_client *c,
                                                             lonely_on_message_fn *fn, void *arg,
                                                             uint64_t *id);

/** Changes of the status; told the present one at once unless that is LOST. MISSED, too, is LOST and then
 * CONNECTED; `missed` is the topic then, else its ptr is NULL. */
typedef void lonely_on_status_fn(void *arg, enum lonely_client_status status,
                                 struct lonely_span missed);
LONELY_API enum lonely_client_error
lonely_client_on_status(struct lonely_client *c, lonely_on_status_fn *fn, void *arg, uint64_t *id);
/** How far a large message has come: `received` of its `size` bytes, about each 256 KiB and at its end; 0 when
 * it does not come to an end here. Over HTTP several may come at once. Must not wait. */
typedef void lonely_on_arriving_fn(void *arg, struct lonely_span topic, uint64_t received,
                                   uint64_t size);
LONELY_API enum lonely_client_error lonely_client_on_arriving(struct lonely_client *c,
                                                              lonely_on_arriving_fn *fn, void *arg,
                                                              uint64_t *id);
/** Ends any of them. Called on another thread it returns after a callback under way. */
LONELY_API void lonely_client_off(struct lonely_client *c, uint64_t id);

#ifdef __cplusplus
}
#endif

#endif
