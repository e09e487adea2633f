/*
 * HTTP client of one loop: POSTs by libcurl multi, connections and their polls kept. Knows nothing
 * of queues and limits; the caller bounds how many calls it makes.
 *
 * Threads: all functions and callbacks on the thread of the loop given to create.
 */
#ifndef NET_HTTP_CLIENT_H
#define NET_HTTP_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

#include <lonely/span.h>

struct http_client;
struct http_call;

struct http_client_conf {
    uint64_t timeout_total_ms;        /* whole call; 0: none */
    uint64_t timeout_connect_ms;      /* all attempts to connect, DNS included; 0: none */
    uint64_t timeout_sock_connect_ms; /* one attempt: one address, TLS included; 0: none */
    uint64_t timeout_sock_read_ms;    /* once connected, no byte received or sent; 0: none. Does not
                                         run while the source of the body waits */
    size_t max_reply_bytes;           /* a longer reply body is HTTP_CALL_REPLY_SIZE */
    uint32_t max_connections;         /* kept open; must exceed the calls made at once */
    const char *ca_file;              /* trust this instead of the system's; NULL: the system's */
    const char *cert_file, *key_file; /* PEM: the client's certificate and its key; NULL: none */
    const char *proxy;                /* NULL: none; the environment is ignored always. A proxy is
                                         the operator's: its address is not judged, nor are names
                                         that it looks up, but literal addresses in URLs are */
    const char *user_agent;
    /* May this address be connected to, for `url`? Judged after DNS, before each connect and again
     * before each call on a kept connection; IPv4-mapped addresses are unmapped. Must not call the
     * client. NULL: all may. */
    bool (*allow_address)(void *arg, const char *url, const struct sockaddr *address);
    void *allow_arg;
};

/*
 * Where the second part of a body comes from. `read` copies up to `len` bytes (at least 1) at
 * offset `at` into `to` and returns how many, or HTTP_SOURCE_WAIT when they are not at hand: then
 * http_call_resume must be called when they are, or HTTP_SOURCE_FAIL. Until then it is not asked
 * again. Small bodies are read before http_client_post returns. `at` can go back to any earlier
 * offset: libcurl sends again what went to a kept connection that had been closed before. `read`
 * must not call the client.
 *
 * `look`, which may be NULL, shows where the bytes at `at` lie, so that a large body need not be
 * copied: it fills `piece` and returns how many bytes lie there (at least 1), or what `read` returns
 * on the same terms. They stay as they are until the call has ended. Which of the two is asked is
 * up to the client.
 */
#define HTTP_SOURCE_WAIT (-1)
#define HTTP_SOURCE_FAIL (-2)
struct http_piece {
    const uint8_t *ptr; /* in memory; NULL: in a file, at the same offset ... */
    int fd;             /* ... of this descriptor; to be at hand, not on a disk first */
};
struct http_source {
    uint64_t size;
    ptrdiff_t (*read)(void *arg, uint64_t at, uint8_t *to, size_t len);
    ptrdiff_t (*look)(void *arg, uint64_t at, struct http_piece *piece);
    void *arg;
};

struct http_call_request {
    /* NUL-terminated; only http and https. Its fragment is not sent; spaces and bytes above 0x7f of
     * path and query are percent-encoded; otherwise it is sent as it is, dot segments too. */
    const char *url;
    /* Header lines without line ends ("Name: value"; the value may be empty), `header_count` of
     * them. A line with control characters or without a colon: HTTP_CALL_BROKEN. */
    const char *const *headers;
    size_t header_count;
    struct lonely_span prefix;        /* beginning of the body; must live until done */
    const struct http_source *source; /* rest of the body; NULL: none; must live until done */
};

enum http_call_status {
    HTTP_CALL_REPLIED,    /* a whole reply, whatever its HTTP status */
    HTTP_CALL_URL,        /* the URL cannot be used */
    HTTP_CALL_CONNECT,    /* no connection, or name not found, or address refused */
    HTTP_CALL_TLS,        /* TLS handshake or certificate */
    HTTP_CALL_TIMEOUT,    /* one of the timeouts */
    HTTP_CALL_REPLY_SIZE, /* reply longer than max_reply_bytes */
    HTTP_CALL_BROKEN,     /* connection lost, malformed reply, source failed */
    HTTP_CALL_CANCELLED   /* http_client_close or http_call_cancel */
};

struct http_reply {
    enum http_call_status status;
    int http_status;         /* with HTTP_CALL_REPLIED */
    struct lonely_span body; /* with HTTP_CALL_REPLIED; dies on return of done */
    const char *detail;      /* otherwise: one line for the log, never NULL; dies with done */
};

/* Runs exactly once for each call, never before http_client_post has returned. May post, cancel
 * other calls and close the client; with HTTP_CALL_CANCELLED it must not post. */
typedef void http_call_done_fn(void *arg, const struct http_reply *reply);

/* NULL when libcurl cannot be initialised, ca_file holds no readable certificate, or cert_file and
 * key_file no certificate and its key (`error` says why). `conf` is copied with its strings. The program
 * ignores SIGPIPE. */
struct http_client *http_client_create(uv_loop_t *loop, const struct http_client_conf *conf,
                                       char error[256]);

/* Starts a POST. `request` itself and its URL and headers are copied. Redirects are not followed,
 * compressed replies not asked for. Never fails: troubles arrive through `done`. */
struct http_call *http_client_post(struct http_client *client,
                                   const struct http_call_request *request, http_call_done_fn *done,
                                   void *arg);

/* After HTTP_SOURCE_WAIT: the source can be read again, or has failed. */
void http_call_resume(struct http_call *call);

/* Ends a call; `done` runs with HTTP_CALL_CANCELLED before this returns. */
void http_call_cancel(struct http_call *call);

/* Drops kept connections: they are not used again, and closed when libcurl next looks at them.
 * Running calls go on, and keep theirs. */
void http_client_forget_connections(struct http_client *client);

/* Cancels all calls (their done runs before this returns), then frees the client once the loop has
 * run its closing callbacks; `on_closed` runs then. */
void http_client_close(struct http_client *client, void (*on_closed)(void *arg), void *arg);

#endif
