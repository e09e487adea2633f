/*
 * Inside of the HTTP server: shared by http_server.c (listeners, drain, close), http_conn.c (the
 * life of a connection, its input), http_answer.c (its output) and http_upgrade.c (how it is given
 * away). Nobody else includes it.
 */
#ifndef NET_HTTP_CONN_H
#define NET_HTTP_CONN_H

#include "acceptor.h"
#include "buf.h"
#include "deadline.h"
#include "http_response.h"
#include "http_server.h"
#include "list.h"
#include "peer.h"
#include "request_parser.h"
#include "stream_tls.h"

#define HTTP_ANSWER_SCRATCH 4096 /* answers up to here are built without allocating */

enum conn_deadline {
    DEADLINE_HANDSHAKE,
    DEADLINE_KEEPALIVE,
    DEADLINE_HEADER,
    DEADLINE_BODY_IDLE,
    DEADLINE_BODY_TOTAL,
    DEADLINE_LINGER,
    DEADLINE_UPGRADE
};

/* In the order of a request's life. */
enum conn_state {
    CONN_IDLE,      /* no byte of a request has come */
    CONN_HEAD,      /* a part of a head has */
    CONN_ASKED,     /* the application has the head and has asked for nothing */
    CONN_BODY,      /* pieces go to the application */
    CONN_PAUSED,    /* the application wants no pieces now */
    CONN_ENDED,     /* the application has the body; its answer is awaited */
    CONN_SWITCHING, /* 101 is leaving; then the stream is given away */
    CONN_ANSWERED,  /* the answer is leaving, or the rest of the body is thrown away, or both */
    CONN_LINGER,    /* our side is shut; what the peer sends is thrown away until it closes */
    CONN_CLOSED     /* the stream is closed or closing; the answer may still be awaited */
};

struct http_server {
    uv_loop_t *loop;
    struct http_server_conf conf;
    http_on_request_fn *on_request;
    void *app;
    struct acceptor *acceptor;
    struct deadlines deadlines;
    uv_idle_t idle;    /* runs while `ready` has members, or on_drained is to be called */
    struct list conns; /* http_conn.node */
    struct list ready; /* http_conn.ready_node: input to look at outside of any callback */
    uint32_t count;    /* of conns */
    uint32_t upgraded; /* given away and not closed */
    uint32_t streams;  /* not closed, of both */
    unsigned handles;  /* own ones, not closed; so is `tls` */
    bool draining, closing;
    void (*on_drained)(void *arg);
    void *drained_arg;
    void (*on_closed)(void *arg);
    void *closed_arg;
    struct request_pool pool;
    char date[HTTP_DATE_SIZE]; /* formatted; good before date_until_ms (uv_now) */
    uint64_t date_until_ms;
    struct stream_buffer buffer;
    struct tls_loop *tls; /* NULL: no TLS listener */
    uint8_t scratch[HTTP_ANSWER_SCRATCH];
};

struct http_conn {
    struct http_exchange x;
    union peer_address peer;
    struct http_server *server; /* NULL: freed before the answer came */
    struct stream *stream;      /* NULL: closed */
    struct list node, ready_node;
    struct deadline due, due_total;
    struct request_parser parser;
    struct buf kept; /* input that cannot be looked at yet, or is part of a head */
    const struct http_body_ops *body_ops;
    void *body_arg;
    http_on_upgraded_fn *on_upgraded;
    void *upgraded_arg;
    uint64_t body_ms;       /* spent on this body before the last pause */
    uint64_t body_since_ms; /* when it began, or was resumed */
    uint64_t discarded;     /* bytes thrown away behind an answer */
    enum conn_state state;
    bool advancing;    /* conn_advance is running: it looks at the state itself */
    bool reading;      /* the stream is being read */
    bool peer_ended;   /* the peer sends no more */
    bool more_input;   /* bytes follow the head that on_request is being told */
    bool body_done;    /* the request has come whole */
    bool keep;         /* the connection is to live on behind the answer */
    bool deaf;         /* whatever comes is thrown away unread */
    bool awaited;      /* closed with the answer outstanding */
    bool abort_late;   /* closed before its body was asked for */
    bool lost;         /* while switching: to be closed in a turn of its own */
    bool sending;      /* a stream_send is under way, of out */
    uint8_t *out;      /* its memory; NULL: static */
    uint8_t *out_next; /* to send behind it */
    size_t out_next_len;
};

/* http_conn.c */
extern const struct stream_events http_conn_events; /* for the stream; its arg is the connection */
/* Owns fd. `tls`: NULL for plain. `peer` has been counted and is released by the connection. */
void http_conn_open(struct http_server *server, int fd, struct tls_server *tls,
                    const union peer_address *peer);
struct http_conn *http_conn_create(struct http_server *server);   /* NULL: no memory */
void http_conn_begin(struct http_conn *c, struct stream *stream); /* owns stream */
void http_conn_enter(struct http_conn *c, enum conn_state state);
void http_conn_wake(struct http_conn *c);     /* after the state has changed: looks at kept input */
void http_conn_schedule(struct http_conn *c); /* asks for a turn, without more ado */
void http_conn_stop_reading(struct http_conn *c);
void http_conn_ready(struct http_conn *c);   /* the turn that wake asked for */
void http_conn_close(struct http_conn *c);   /* on_abort first, if the body was being read */
void http_conn_release(struct http_conn *c); /* frees it when nobody needs it any more */
void http_conn_on_due(void *server, unsigned kind, struct deadline *d);

/* http_upgrade.c */
bool http_upgrade(struct http_exchange *x, const char *headers, http_on_upgraded_fn *on_upgraded,
                  void *arg);
void http_upgrade_go_on(struct http_conn *c); /* in a turn of its own */

/* http_answer.c */
bool http_answer_switch(struct http_conn *c, const char *headers); /* false: the peer is lost */
void http_answer_continue(struct http_conn *c);
void http_answer_respond(struct http_exchange *x, const struct http_response *response);
void http_answer_error(struct http_conn *c, int status);
void http_answer_sent(struct http_conn *c);
void http_answer_settle(struct http_conn *c); /* after output or input of CONN_ANSWERED ended */

/* http_server.c */
void http_server_schedule(struct http_server *server); /* runs the idle callback soon */
void http_server_conn_gone(struct http_server *server);
void http_server_peer_gone(struct http_server *server, const union peer_address *peer);
void http_server_check_closed(struct http_server *server);

#endif
