/*
 * The inside of the link over websocket and TCP, shared by its files:
 *
 *     link_stateful.c     connecting, again and again; the end
 *     stateful_frame.c    frames in and out, what is wanted and its confirmations
 *     stateful_receive.c  messages that arrive, compressors
 *     stateful_notify.c   messages that leave
 *
 * (doc/protocol/session.md, 6; doc/protocol/stateful.md)
 */
#ifndef CLIENT_STATEFUL_H
#define CLIENT_STATEFUL_H

#include <openssl/evp.h>

#include <lonely/connection.h>
#include <lonely/message.h>

#include "buf.h"
#include "compressor.h"
#include "dial.h"
#include "link.h"
#include "order.h"
#include "transport.h"
#include "websocket_handshake.h"

/* Frames without their answer: a broadcaster drops who has more than 256. */
#define STATEFUL_EXPECTED_MAX 240
#define STATEFUL_PARTS_MAX    128 /* of those, parts of notifies */
#define STATEFUL_ENABLED_MAX  16  /* compressors: a broadcaster has four */
#define STATEFUL_LOSSES_MAX   3   /* connections that end over a notify before it is given up */

#define STATEFUL_LOW_WATER  ((size_t)64 * 1024)
#define STATEFUL_HIGH_WATER ((size_t)1024 * 1024) /* no further part is queued beyond it */

enum stateful_state {
    STATEFUL_WAITING, /* for the time to try again; or not begun */
    STATEFUL_DIALING,
    STATEFUL_UPGRADING,   /* websocket: the answer to its request is awaited */
    STATEFUL_CONFIGURING, /* CONFIRM_CONFIGURE is */
    STATEFUL_OPEN,
    STATEFUL_ENDING, /* the connection is being closed, to be followed by another or by nothing */
    STATEFUL_DEAD
};

/* An answer that is due, in the order of the frames that ask for it. */
struct expected {
    enum expected_kind {
        EXPECT_SUBSCRIBED,
        EXPECT_UNSUBSCRIBED,
        EXPECT_CONTINUE,
        EXPECT_NOTIFIED
    } kind;
    struct want *want;
    struct notify *notify;
    uint64_t part_id; /* EXPECT_CONTINUE */
    int64_t number;   /* of the request: (UN)SUBSCRIBE */
};

/* An acknowledgement that waits until the application has taken messages. */
struct owed {
    struct list node;
    bool last; /* CONFIRM_RECEIVE, else CONTINUE_RECEIVE */
    uint64_t part_id;
    size_t identifier_len;
    uint8_t identifier[LONELY_IDENTIFIER_MAX_BYTES];
};

/* A compressor that the broadcaster has enabled. */
struct enabled {
    struct list node;
    struct compressor *compressor;
    uint64_t min_size, max_size; /* plain bytes; max exclusive */
};

/* The message that arrives in parts. */
struct inbound {
    bool active;
    uint8_t identifier[LONELY_IDENTIFIER_MAX_BYTES];
    size_t identifier_len;
    uint64_t part_id; /* of the present part */
    struct buf topic;
    uint8_t sha512[LONELY_SHA512_BYTES]; /* of all parts, as sent */
    uint64_t length;                     /* of all parts, as sent */
    uint64_t plain_length;
    uint64_t received;
    struct incoming *incoming;      /* NULL: there was no disk */
    EVP_MD_CTX *hash;               /* of a compressed one */
    struct compress_stream *unpack; /* the same */
    bool unpacked;
};

struct stateful_link {
    struct link link; /* first */
    struct transport_group *group;
    struct stream_buffer *buffer;
    struct order order;
    const struct client_broadcaster *broadcaster;
    unsigned pass;
    enum stateful_state state;
    enum lonely_client_error worst; /* of the attempts since the last connection that opened */
    uv_timer_t timer;               /* of WAITING, and of what is awaited when connecting */
    uint64_t opened_ms;
    bool closing;
    bool stood;                       /* a connection was open once */
    bool stable;                      /* the connection that ended was a good one */
    bool rejected;                    /* the broadcaster ended it, and not for its own sake */
    enum lonely_client_error lost_as; /* and else: why it ended */
    char lost_why[256];
    struct dial *dial;
    struct stream *stream; /* UPGRADING */
    struct buf reply;
    struct buf request;
    uint8_t handshake_nonce[WEBSOCKET_NONCE_BYTES];
    struct transport *transport;
    bool reading;
    void (*on_closed)(struct lonely_client *c);

    uint8_t nonce[LONELY_NONCE_BYTES]; /* ours */
    struct lonely_connection connection;
    struct buf frame; /* of a frame in pieces: its head, or all of one without a body */
    bool in_body;     /* pieces are of the message that arrives */

    struct expected *expected; /* a ring of STATEFUL_EXPECTED_MAX + 1 */
    size_t expected_first, expected_len;
    size_t parts_out; /* of those, parts of notifies */

    struct list unsent, sent; /* notify.node, in order */
    size_t n_unsent, n_sent;
    struct notify *streaming; /* has parts to go; it is in `sent` */
    bool pumping;

    struct list owed; /* owed.node, in the order of the parts */
    size_t n_owed;

    struct list enabled;
    size_t n_enabled;
    struct compressor **presets; /* by conf.dictionaries */
    struct inbound in;
};

static inline struct lonely_client *stateful_client(const struct stateful_link *l)
{
    return l->link.client;
}

/* link_stateful.c: the connection ends, for that reason, to be made anew. */
void stateful_fail(struct stateful_link *l, enum transport_code code, const char *why);
void stateful_opened(struct stateful_link *l);

/* stateful_frame.c */
void stateful_begin(struct stateful_link *l); /* the transport stands: CONFIGURE */
void stateful_on_piece(struct stateful_link *l, const struct transport_piece *piece);
/* Signs over `in`, whose tracing and url are set here, and puts the string into `out`. `number` 0: no url.
 * False: the connection is failing. */
bool stateful_sign(struct stateful_link *l, struct lonely_auth_input *in, int64_t number,
                   uint8_t *out, struct lonely_span *authorization);
/* Takes the broadcaster's next number and checks; false: the connection is failing. */
bool stateful_verify(struct stateful_link *l, struct lonely_auth_input *in, bool numbered,
                     struct lonely_span authorization);
void stateful_send(struct stateful_link *l, struct lonely_message *m);
/* Room for one more frame that is answered? */
bool stateful_may_ask(const struct stateful_link *l);
void stateful_expect(struct stateful_link *l, const struct expected *e);
void stateful_pump(struct stateful_link *l);   /* sends what waits, as far as it may */
void stateful_forget(struct stateful_link *l); /* the connection is gone */

/* stateful_receive.c */
/* A small message that is one frame: allocates nothing. False: it is none, nothing was done. */
bool stateful_take_small(struct stateful_link *l, const struct lonely_message *m);
/* The head of a part; its body follows in pieces. False: the connection is failing. */
bool stateful_part_begin(struct stateful_link *l, const struct lonely_msg_stream *m);
bool stateful_part_add(struct stateful_link *l, struct lonely_span bytes);
void stateful_part_end(struct stateful_link *l);
void stateful_enable(struct stateful_link *l, const struct lonely_message *m);
void stateful_disable(struct stateful_link *l, const struct lonely_msg_disable_zstd *m);
/* What a body of that length is to be sent with; NULL: plain. */
struct compressor *stateful_choose(const struct stateful_link *l, uint64_t length);
void stateful_receive_reset(struct stateful_link *l);
/* client_has_room says yes again: what waits is acknowledged. */
void stateful_acknowledge_owed(struct stateful_link *l);

/* stateful_notify.c */
void stateful_notify_add(struct stateful_link *l, struct notify *n);
bool stateful_notify_pump(struct stateful_link *l); /* false: nothing to send, or no room */
void stateful_notify_continued(struct stateful_link *l, const struct expected *e,
                               const struct lonely_msg_continuation *m);
void stateful_notify_confirmed(struct stateful_link *l, const struct expected *e,
                               const struct lonely_msg_confirm_notify *m);
/* What was sent is to be sent again; but not what connections end over. */
void stateful_notify_reset(struct stateful_link *l);
void stateful_notify_abandon(struct stateful_link *l);

#endif
