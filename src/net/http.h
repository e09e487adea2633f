/*
 * What the broadcaster sees of an HTTP server, whoever runs it: one exchange is one request and
 * its one answer. http_server.c implements it on our own listener; a program that embeds the
 * broadcaster implements it on its own server.
 *
 * Threads: every function and callback of an exchange runs on the thread of the loop that it
 * belongs to.
 *
 * Life of an exchange: the server calls on_request with a complete head. The application answers
 * at once (http_exchange_respond), or asks for the body (http_exchange_read_body) and answers at
 * any later time, exactly once; or it takes the connection over (http_exchange_upgrade). After the
 * answer, or after on_abort, the exchange is gone and its pointer must not be used.
 */
#ifndef NET_HTTP_H
#define NET_HTTP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <lonely/span.h>

struct stream;

struct http_header {
    struct lonely_span name, value; /* as received, blanks around the value removed */
};

struct http_head {
    struct lonely_span method; /* "POST" */
    struct lonely_span target; /* as on the request line, query included; of an absolute form
                                * ("http://host/path") only the part from the path on */
    const struct http_header *headers;
    size_t header_count;
    /* What stood in front of `target`, the prefix under which the application is mounted; else empty. */
    struct lonely_span mounted;
    bool version_1_0; /* HTTP/1.0; else it is 1.1 */
    /* Announced size of the body; 0 when there is none, UINT64_MAX when it is chunked. */
    uint64_t content_length;
};

#define HTTP_LENGTH_UNKNOWN UINT64_MAX

struct http_body_ops {
    /* The next bytes of the body, at least one; they die on return. */
    void (*on_piece)(void *arg, struct lonely_span piece);
    /* The body is complete. Never before http_exchange_read_body has returned. */
    void (*on_end)(void *arg);
    /* The body will never be complete: the peer left, sent nonsense or was too slow. The exchange
     * is gone; nothing is to be answered. May come while paused. */
    void (*on_abort)(void *arg);
};

struct http_response {
    int status;
    const char *content_type; /* NULL: none */
    const char *headers;      /* more header lines, each ending in "\r\n"; NULL: none */
    struct lonely_span body;  /* copied before http_exchange_respond returns */
};

/*
 * The connection is no longer HTTP. `stream` is the receiver's, who attaches to it before it returns;
 * reading is stopped. `rest`: what the peer has sent behind its request; it dies on return. `stream` NULL:
 * the connection was lost.
 */
typedef void http_on_upgraded_fn(void *arg, struct stream *stream, struct lonely_span rest);

struct http_exchange;

struct http_exchange_ops {
    void (*read_body)(struct http_exchange *x, const struct http_body_ops *ops, void *arg);
    void (*pause)(struct http_exchange *x);
    void (*resume)(struct http_exchange *x);
    void (*respond)(struct http_exchange *x, const struct http_response *response);
    bool (*upgrade)(struct http_exchange *x, const char *headers, http_on_upgraded_fn *on_upgraded,
                    void *arg);
};

/* The public beginning of a server's own structure. What it says may be read until the exchange is
 * answered, or on_abort has returned. */
struct http_exchange {
    const struct http_exchange_ops *ops;
    struct http_head head;       /* valid until on_request returns; later only content_length is */
    const struct sockaddr *peer; /* who asks; NULL: not known, or no IP address */
    bool secure;                 /* over TLS, as the server sees it */
    uint64_t received;           /* bytes of the body that on_piece has been given, or is */
};

/* What a server calls. `app` is the pointer that came with the handler. */
typedef void http_on_request_fn(void *app, struct http_exchange *x);

/* Asks for the body (and says 100 Continue if the peer waits for it). Only from on_request. */
static inline void http_exchange_read_body(struct http_exchange *x, const struct http_body_ops *ops,
                                           void *arg)
{
    x->ops->read_body(x, ops, arg);
}

/* Stops and restarts on_piece: after pause returns no piece arrives until resume. on_end also waits
 * for resume. Pausing stops reading from the socket; the body timeouts do not run meanwhile. */
static inline void http_exchange_pause(struct http_exchange *x)
{
    x->ops->pause(x);
}

static inline void http_exchange_resume(struct http_exchange *x)
{
    x->ops->resume(x);
}

/* Answers. Allowed from on_request, from on_piece, after on_end, and while the body is still
 * coming (the server then discards the rest up to its bound, so that the peer sees the answer). No
 * callback of the exchange runs afterwards. */
static inline void http_exchange_respond(struct http_exchange *x,
                                         const struct http_response *response)
{
    x->ops->respond(x, response);
}

/*
 * Answers 101 with these header lines (each ending in "\r\n"; copied) and gives the connection away:
 * `on_upgraded` runs once, after this has returned, or in the server's own closing. Allowed instead of an
 * answer, from on_request or later, to a request without a body. The exchange is gone. false: so is the
 * peer already, and on_upgraded does not run.
 */
static inline bool http_exchange_upgrade(struct http_exchange *x, const char *headers,
                                         http_on_upgraded_fn *on_upgraded, void *arg)
{
    return x->ops->upgrade(x, headers, on_upgraded, arg);
}

/* The value of the first header of that name (compared without case), or NULL. In on_request. */
const struct http_header *http_head_find(const struct http_head *head, const char *name);

#endif
