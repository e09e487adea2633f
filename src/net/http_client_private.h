/*
 * What the three files of the HTTP client share; nobody else includes it.
 *
 *     http_client.c    client and calls: begin, time, end
 *     http_request.c   what a call tells libcurl: URL, headers, body, options
 *     http_sock.c      descriptors: polls, addresses
 *     http_direct.c    plain http:// over kept connections, without libcurl
 */
#ifndef NET_HTTP_CLIENT_PRIVATE_H
#define NET_HTTP_CLIENT_PRIVATE_H

#include <curl/curl.h>

#include "buf.h"
#include "http_client.h"
#include "list.h"
#include "map.h"

struct http_direct;

#define HTTP_REPLY_HEAD_BYTES_MAX 65536 /* all heads of a call together, of 1xx replies too */
#define HTTP_SMALL_BODY_BYTES     16384 /* copied, so that head and body leave in one segment */

struct http_client {
    uv_loop_t *loop;
    CURLM *multi;                 /* NULL: closing */
    struct http_client_conf conf; /* owns its strings */
    uv_timer_t curl_timer;        /* libcurl's */
    uv_timer_t own_timer;         /* for failed, retries and all waits */
    uint64_t own_due_ms;          /* when own_timer, if active, runs */
    bool polls_first;             /* own_timer was late, and waits for one look at the sockets */
    struct http_sock **socks;     /* by descriptor */
    size_t sock_cap;
    struct list calls;      /* given to libcurl */
    struct list failed;     /* ended before they began; told in the next turn */
    struct list all;        /* calls by started_ms */
    struct list connecting; /* calls without a connection, by connect_ms */
    struct list silent;     /* calls that wait for the peer, by active_ms */
    struct list attempts;   /* sockets not yet usable, by opened_ms */
    struct list retries;    /* calls that have to go on to the next address */
    struct list pool;
    size_t pool_len;
    struct map origins;  /* of http_direct.c ... */
    struct list idle;    /* ... and its connections without a call, the one used last behind */
    size_t direct_count; /* those with one, too */
    size_t handles;      /* that libuv has not closed yet */
    void (*on_closed)(void *arg);
    void *closed_arg;
};

/* A descriptor that libcurl wants watched: a connection, or the pipe of its resolver thread. */
struct http_sock {
    uv_poll_t poll;
    struct http_client *client;
    struct http_call *call; /* that uses it; NULL: a kept connection */
    struct list of_call;
    struct list of_attempts;
    uint64_t opened_ms;
    int fd;
    int wanted;       /* events that libcurl waits for */
    int armed;        /* events that the poll waits for */
    bool own;         /* made by http_sock_open */
    bool established; /* a connection: lives until http_sock_close */
    bool has_poll;
    bool closing;
};

struct http_call {
    struct http_client *client;
    CURL *easy;
    struct list of_client; /* calls, failed or pool */
    struct list of_all;
    struct list of_connecting;
    struct list of_silent;
    struct list of_retries;
    struct list socks;
    uint64_t started_ms;
    uint64_t connect_ms;            /* when connecting began */
    uint64_t active_ms;             /* when the last byte came or went */
    struct http_direct *direct;     /* its connection, when not libcurl's */
    struct lonely_span direct_name; /* host and port; in the block */
    size_t direct_head;             /* bytes of the request at the beginning of the block, ... */
    uint64_t direct_len;            /* ... and in all: the rest is the source's; 0: libcurl's way */
    unsigned http_status;           /* of a reply that did not come through libcurl */
    bool retried;                   /* has been sent over a kept connection in vain */
    bool easy_used;
    bool in_multi;
    http_call_done_fn *done;
    void *arg;
    struct lonely_span prefix;
    const struct http_source *source;
    uint64_t at; /* bytes of the body that libcurl has, or of the request that were sent */
    void *block; /* request or header list, header lines, URL and small body: one allocation */
    size_t block_bytes;
    const char *url;   /* in the block */
    size_t head_bytes; /* of the reply, so far */
    bool head_ended;
    struct buf reply;
    enum http_call_status trouble; /* found here, not by libcurl; HTTP_CALL_REPLIED: none */
    bool failing;                  /* by http_call_fail_later: the trouble is not forgotten */
    bool sending;                  /* connected: the request may be sent */
    bool attempt_expired;          /* a connection took longer than timeout_sock_connect */
    bool source_waits;             /* HTTP_SOURCE_WAIT, and not yet resumed */
    bool paused;                   /* what sends the body, libcurl or http_direct.c, waits for it */
    const char *reason;            /* for the trouble: a literal */
    char detail[CURL_ERROR_SIZE];  /* libcurl's text */
};

/* ---- http_client.c ---- */

/* Says why the call will fail; the first reason counts. `reason` is a literal. */
void http_call_trouble(struct http_call *call, enum http_call_status status, const char *reason);
/* A byte came or went, or may from now on. */
void http_call_touch(struct http_call *call);
/* Ends a call that has a trouble in the next turn. */
void http_call_fail_later(struct http_call *call);
/* Waits for a connection from now on, unless it does already. */
void http_call_connecting(struct http_call *call);
/* Has libcurl make a connection for a call of http_direct.c. */
void http_call_connect(struct http_call *call);
/* Takes the call from libcurl and from every list, then tells its owner. `detail` may be the
 * call's own. */
void http_call_end(struct http_call *call, enum http_call_status status, const char *detail);
/* Overwrites what may hold an Authorization, and frees it. */
void http_call_wipe(struct http_call *call);
/* An attempt to connect has failed: the next address is tried in the next turn, if there is one. */
void http_call_retry_later(struct http_call *call);
/* Has the client look at its waits at `due_ms` (uv_now) or before. */
void http_client_wake(struct http_client *client, uint64_t due_ms);
/* Tells the ended calls. Not inside libcurl: `done` may post, cancel or close. */
void http_client_drain(struct http_client *client);
void http_client_handle_closed(struct http_client *client);
struct http_call *http_call_of(CURL *easy);

/* ---- http_request.c ---- */

/* Checks the request, copies it into one block and tells libcurl. Trouble shows in the call. */
void http_call_prepare(struct http_call *call, const struct http_call_request *request);
/* The same for a connection alone; call->url is set. */
void http_call_prepare_connect(struct http_call *call);
uint64_t http_call_body_size(const struct http_call *call);
/* A small body out of its source. False: not at hand, or it fails, which is the call's trouble. */
bool http_call_copy_body(struct http_call *call, uint8_t *to);
/* Copies from the source, or looks at it, at body offset `at`, behind the prefix. Returns bytes,
 * HTTP_SOURCE_WAIT, or _FAIL, which is the call's trouble. */
ptrdiff_t http_call_source_read(struct http_call *call, uint64_t at, uint8_t *to, size_t len);
ptrdiff_t http_call_source_look(struct http_call *call, uint64_t at, struct http_piece *piece);
/* Appends to the reply. False: the trouble says why. */
bool http_call_take_reply(struct http_call *call, const char *ptr, size_t len);
bool http_header_is_valid(const char *line);

/* ---- http_sock.c: callbacks of libcurl, and ---- */

int http_sock_watch(CURL *easy, curl_socket_t fd, int what, void *client, void *unused);
curl_socket_t http_sock_open(void *call, curlsocktype purpose, struct curl_sockaddr *address);
int http_sock_close(void *client, curl_socket_t fd);
/* The connection of the call is the one with this local port; its other attempts are over. */
void http_sock_established(struct http_call *call, int local_port);
/* Forgets it; does not close the descriptor. Before close() where possible: libuv takes it out of
 * epoll at once. */
void http_sock_destroy(struct http_sock *s);
/* Notes who uses it; NULL: nobody, it is a kept connection. */
void http_sock_give(struct http_sock *s, struct http_call *call);
/* What conf.allow_address says. */
bool http_address_allowed(const struct http_call *call, const struct sockaddr *address);
/* The same of `host` when it is a literal address. */
bool http_literal_allowed(const struct http_call *call, const char *host, int port);

#endif
