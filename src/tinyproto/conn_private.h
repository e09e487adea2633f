/*
 * A connection from within. conn.c is its life, opening.c how it comes to be connected, incoming.c
 * and outgoing.c its two directions, plugins.c what transforms messages.
 *
 * Hooks run only in conn_service(), incoming_read() and what these call: never inside a function
 * that the program calls.
 */
#ifndef TINYPROTO_CONN_PRIVATE_H
#define TINYPROTO_CONN_PRIVATE_H

#include <uv.h>

#include <tinyproto/conn.h>

#include "endpoint.h"
#include "peer.h"

#define CONTROL_MAX  24 /* handshake, statuses and sizes that wait for the socket */
#define CONTROL_BUSY 12 /* so many: read on when some are written */

/* ---- Outgoing ---- */

enum transmission_state { WAITS, ANNOUNCED, ADMITTED };

struct source; /* outgoing_source.c */

struct transmission {
    struct list node;
    enum transmission_state state;
    bool owned; /* `ptr` is freed with it */
    const uint8_t *ptr;
    struct source *source; /* instead of `ptr` */
    uint64_t size, sent;
    size_t cost; /* in the send queue */
    tinyproto_done_fn *done;
    void *arg;
};

struct control {
    uint8_t bytes[CONTROL_MAX];
    uint8_t n;
};

struct outgoing {
    struct control head; /* before the payload of the first transmission */
    struct control tail; /* after it */
    struct list queue;
    struct list lost; /* given up, to be told when the connection ends */
    size_t queued;
    bool blocked; /* the socket takes no more now */
    bool was_full;
};

void outgoing_init(struct outgoing *out);
void outgoing_control(struct tinyproto_conn *c, const uint8_t *ptr, uint8_t n);
bool outgoing_is_busy(const struct outgoing *out); /* too many control bytes: do not read */
bool outgoing_is_empty(const struct outgoing *out);
bool outgoing_is_flowing(const struct outgoing *out); /* bytes are to be written, now or soon */
bool outgoing_wants_announce(const struct tinyproto_conn *c);
void outgoing_announce(struct tinyproto_conn *c);
void outgoing_go(struct tinyproto_conn *c); /* the peer's status came */
void outgoing_flush(struct tinyproto_conn *c);
/* Gives up what was not admitted by the peer. */
void outgoing_drop_waiting(struct tinyproto_conn *c);
/* Tells and frees everything that is left. */
void outgoing_fail_all(struct tinyproto_conn *c, const struct tinyproto_cause *why);

struct source *source_create(struct tinyproto_conn *c, int fd, int64_t offset, uint64_t size);
void source_destroy(struct source *s); /* not reading; NULL is allowed */
void source_start(struct source *s);
void source_cancel(struct source *s); /* a read under way ends soon, unheard */
size_t source_peek(const struct source *s, const uint8_t **ptr);
void source_consume(struct source *s, size_t n);

/* ---- Incoming ---- */

struct incoming {
    enum tinyproto_delivery delivery;
    bool for_once; /* the message goes to `once` */
    bool dropping; /* the message goes nowhere */
    bool paused;
    bool eof;
    uint8_t *body; /* of a message of which a part came */
    size_t len, cap;
    const uint8_t *borrowed; /* the whole message, in the input */
    bool is_held;            /* by a pause, or by control bytes that cannot be written */
    uint8_t *stash;          /* input that came before that; from stash_at on it is to be fed */
    size_t stash_at, stash_len;
    size_t n_plugins; /* when it began */
    tinyproto_receive_fn *once;
    void *once_arg;
};

/* Reads what is there, in bounded time. true: no more is there now. */
bool incoming_read(struct tinyproto_conn *c);
void incoming_unstash(struct tinyproto_conn *c); /* goes on after a pause */
void incoming_drop(struct tinyproto_conn *c);    /* the message under way */
void incoming_fini(struct tinyproto_conn *c);

/* ---- Plugins ---- */

struct plugin_use {
    struct tinyproto_plugin plugin;
    void *state;
};

enum tinyproto_error plugins_add(struct tinyproto_conn *c, const struct tinyproto_plugin *p);
bool plugins_transmit(const struct tinyproto_conn *c, uint8_t **ptr, size_t *len);
bool plugins_receive(const struct tinyproto_conn *c, size_t n, uint8_t **ptr, size_t *len);
bool plugins_have_transmit(const struct tinyproto_conn *c);
void plugins_close(struct tinyproto_conn *c);

/* ---- The connection ---- */

struct opening; /* opening.c */

struct tinyproto_conn {
    struct endpoint *owner;
    struct list node;  /* in owner->conns */
    struct list dirty; /* in owner->dirty */
    struct map_node by_id;
    char id[TINYPROTO_ID_MAX];
    enum tinyproto_state state;
    bool is_refusal;    /* over the limit: no hooks, not counted */
    bool is_introduced; /* the program knows it: hooks are owed */
    bool was_ready;     /* pre_loop was called */
    bool own_close;     /* by tinyproto_close() or _abort() */
    bool is_shut;       /* our end of the stream is closed */
    bool has_poll;
    bool moved;      /* bytes since the stall time was set */
    bool is_passing; /* counted in owner->n_passing */
    int events;      /* that `poll` watches */
    int fd;
    unsigned pending; /* callbacks of libuv to come before it may be freed */
    uv_poll_t poll;
    enum deadline_kind life_kind;
    struct deadline life, extra;
    uint32_t open_ms, stall_ms, idle_ms;
    struct tinyproto_cause cause; /* once it is known */
    struct tinyproto_frame frame;
    struct incoming in;
    struct outgoing out;
    struct plugin_use *plugins;
    size_t n_plugins;
    struct opening *opening;
    const struct tinyproto_handler *handler;
    void *data;
    union peer_address peer;
    char *peer_text;
    struct list mail; /* of other threads, that waits for room in the send queue (endpoint.c) */
};

/* NULL: no memory. `handler` and plugins are its owner's. */
struct tinyproto_conn *conn_create(struct endpoint *owner, bool is_refusal, const char *peer_text);
enum tinyproto_error conn_open_plugins(struct tinyproto_conn *c);
/* Takes a socket over; closes it on failure. */
bool conn_poll_open(struct tinyproto_conn *c, int fd);
void conn_poll_close(struct tinyproto_conn *c);
bool conn_watch(struct tinyproto_conn *c, int events, uv_poll_cb cb);
/* The socket is connected: sends the handshake byte, soon. */
void conn_handshake(struct tinyproto_conn *c);

/* Flushes, announces, closes: whatever is possible now. `fresh`: all readable input was just read. */
void conn_service(struct tinyproto_conn *c, bool fresh);
/* When nothing of libuv is pending: tells what is to be told, and frees. Otherwise later. */
void conn_finalise(struct tinyproto_conn *c);

/* Ends it at once. A cause that was noted before stays. */
void conn_end(struct tinyproto_conn *c, enum tinyproto_error err, int system);
/* Notes the cause; sends what is under way and ends in order. */
void conn_end_orderly(struct tinyproto_conn *c, enum tinyproto_error err);
/* The socket failed with errno. */
void conn_end_broken(struct tinyproto_conn *c, int error);
void conn_on_due(struct tinyproto_conn *c, enum deadline_kind kind);

static inline bool conn_is_alive(const struct tinyproto_conn *c)
{
    return c->state != TINYPROTO_CLOSED;
}

static inline struct tinyproto_cause cause_of(enum tinyproto_error err, int system)
{
    return (struct tinyproto_cause){ .err = err, .system = system };
}

/* Starts resolving and connecting. Failures are told later. */
void opening_start(struct tinyproto_conn *c, const struct tinyproto_address *address);
void opening_cancel(struct tinyproto_conn *c); /* or nothing */
void opening_next(struct tinyproto_conn *c);   /* this attempt took too long */
void opening_look_up(struct endpoint *e);      /* names that waited for others to be resolved */

#endif
