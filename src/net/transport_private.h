/*
 * Inside of the transports: shared by transport.c (groups, the life of a transport, its input) and
 * transport_out.c (its output). Nobody else includes it.
 */
#ifndef NET_TRANSPORT_PRIVATE_H
#define NET_TRANSPORT_PRIVATE_H

#include <lonely/framing.h>

#include "deadline.h"
#include "list.h"
#include "transport.h"
#include "websocket.h"

enum transport_deadline { DEADLINE_PING, DEADLINE_PONG, DEADLINE_STALL, DEADLINE_CLOSE };

struct transport_group {
    uv_loop_t *loop;
    struct transport_conf conf;
    uv_idle_t idle; /* runs while `ready` or `dirty` has members, so that the loop does not sleep */
    uv_prepare_t prepare; /* runs while `dirty` has members */
    struct deadlines deadlines;
    struct list ready;  /* transport.ready_node: something to do outside of the user's calls */
    struct list dirty;  /* transport.dirty_node: output to send in this turn */
    struct list spare;  /* struct part, of PART_BYTES each */
    unsigned spares;    /* of them */
    unsigned handles;   /* not closed */
    size_t transports;  /* not gone */
    uint8_t random[64]; /* for masks, used up to random_at */
    unsigned random_at;
    bool closing;
    void (*on_closed)(void *arg);
    void *closed_arg;
};

struct transport {
    struct transport_group *group;
    struct stream *stream; /* NULL: closed */
    const struct transport_events *events;
    void *arg;
    struct list ready_node, dirty_node;
    struct deadline due;
    uint8_t kind, role; /* enum transport_kind, transport_role */

    /* Input. */
    union {
        struct websocket websocket;
        struct lonely_framing tcp;
    } in;
    uint8_t *kept; /* read, but not looked at; NULL: nothing */
    size_t kept_at, kept_len;
    uint16_t end_code;  /* told, or to be told, by on_end */
    uint16_t peer_code; /* of the peer's close frame; 0: none has come */

    /* Output (transport_out.c). */
    struct list out;     /* struct part, none empty */
    size_t queued;       /* bytes of them */
    size_t flying;       /* of those, the first ones, which a stream_send has */
    uint64_t sent;       /* bytes that have left, ever */
    uint64_t frame_left; /* of the announced frame, to be put */
    uint64_t pong_at;    /* value of `sent` when the last pong of the queue has left */
    uint64_t ping_at; /* the same for what was queued with our last ping, or at the last look ... */
    uint64_t ping_seen; /* ... for the pong, or at whether output leaves: `sent` then */
    uint8_t mask[4];    /* a client's, of the present frame */
    uint8_t mask_at;
    uint8_t opcode;          /* of messages: WEBSOCKET_BINARY, but for tests */
    uint8_t pong_len, pongs; /* of the payload to answer; in the queue */
    uint8_t pong[WEBSOCKET_CONTROL_MAX];

    bool reading;        /* the user wants pieces */
    bool stream_reading; /* the stream is being read */
    bool looking;        /* input is being looked at */
    bool pinged;         /* our ping is queued or sent, and no byte of the peer has come since */
    bool pong_due;
    bool above;          /* the queue was above the low water mark */
    bool ended;          /* no piece follows, and no output */
    bool end_late;       /* on_end is due, in a turn of its own */
    bool closing;        /* the user has closed it */
    bool close_queued;   /* our close frame */
    bool deaf;           /* what comes is thrown away without a look */
    bool mute;           /* sending has failed */
    bool peer_ended;     /* the peer sends no more */
    bool shut;           /* we send no more */
    bool stream_closing; /* stream_close was called */
};

/* transport.c */
void transport_start_turn(struct transport_group *g); /* for `ready` or `dirty` */
void transport_wake(struct transport *t);             /* its turn comes soon, outside of any call */
/* No piece follows, because of `code`. Not inside a call of the user. */
void transport_end(struct transport *t, enum transport_code code);
void transport_settle(struct transport *t); /* after output or input of a closing one has ended */
void transport_drop_stream(struct transport *t); /* closes it at once */

/* transport_out.c */
void transport_flush(struct transport *t);
void transport_on_sent(struct transport *t);
void transport_answer_ping(struct transport *t, struct lonely_span payload);
bool transport_queue_ping(struct transport *t);                 /* false: not inside of a frame */
void transport_queue_close(struct transport *t, uint16_t code); /* if a frame may begin here */
void transport_forget_output(struct transport *t);              /* all that no stream_send has */
void transport_make_dirty(struct transport *t);
void transport_group_free_parts(struct transport_group *g);

#endif
