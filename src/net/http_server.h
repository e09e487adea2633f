/*
 * HTTP/1.1 server of one loop: connections on streams, grammar by request_parser.c, answers in request
 * order. Speaks to the application through http.h only.
 *
 * Threads: all functions on the thread of the loop given to create, except where stated.
 */
#ifndef NET_HTTP_SERVER_H
#define NET_HTTP_SERVER_H

#include <uv.h>

#include "clock.h"
#include "http.h"
#include "log.h"
#include "peer.h"
#include "tls.h"

struct http_server_conf {
    /* Whole request head, from its first byte, also when it drips. As long is waited for a TLS
     * handshake, for a peer to read its answer, and to send the rest of a body that is thrown away. */
    uint64_t header_timeout_ms;
    uint64_t body_idle_timeout_ms; /* no byte of a body; 0: none */
    uint64_t body_timeout_ms;      /* whole body; 0: none */
    uint64_t upgrade_timeout_ms;   /* for a 101 to leave; 0: none */
    uint64_t keepalive_timeout_ms; /* idle connection, also a new one that sends nothing */
    uint64_t discard_bytes;        /* of a refused body are read and thrown away, then closed */
    uint32_t max_header_bytes;     /* request line and headers; more: 431 (or 414) */
    uint32_t max_connections;      /* of this server; at the cap accepting pauses */
    struct log *log;               /* NULL: none; must outlive the server */
    const struct clock *clock;     /* for Date; NULL: answers have none; must outlive the server */
    struct peer_limit *peers;      /* connections an address; NULL: no limit; must outlive it too */
    /* Tells `app` what the server turned away by itself: the status with which it answered what was
     * no request, or came too slowly (408, also after on_abort); 0: a connection closed at once,
     * since its address has its share. Must not call the server. NULL: nobody is told. */
    void (*on_reject)(void *app, int status, const struct sockaddr *peer);
};

struct http_server;

/* Makes a server without listeners. `conf` is copied. Aborts when memory is out, never fails. */
struct http_server *http_server_create(uv_loop_t *loop, const struct http_server_conf *conf,
                                       http_on_request_fn *on_request, void *app);

/* Accepts on `fd`, a bound and listening non-blocking TCP socket, which the server owns from now
 * on, also when it fails. Returns 0 or a negative libuv error. */
int http_server_listen(struct http_server *server, int fd);

/* The same for HTTPS. `tls` must outlive the server's listeners; their connections count as the
 * others do. */
int http_server_listen_tls(struct http_server *server, int fd, struct tls_server *tls);

/* Stops accepting, closes idle connections, lets running exchanges finish (their answers say
 * Connection: close). `on_drained` runs once, later, when no connection is left but upgraded ones,
 * which it leaves alone; not after http_server_close. */
void http_server_drain(struct http_server *server, void (*on_drained)(void *arg), void *arg);

/* Closes everything at once (on_abort runs for exchanges whose body was being read; an exchange
 * that still awaits its answer may be answered later, into nothing) and frees the server once the
 * loop has run its closing callbacks and the streams that were given away by an upgrade are closed,
 * which is their users' to do: they read through the server's memory. `on_closed` runs then. */
void http_server_close(struct http_server *server, void (*on_closed)(void *arg), void *arg);

/* Connections open now, upgraded ones too, and those whose peer has left while their answer is still
 * awaited. */
uint32_t http_server_connections(const struct http_server *server);

#endif
