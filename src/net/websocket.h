/*
 * Websocket frames (RFC 6455, 5 and 7): bytes in, events out, and the bytes that go before what is
 * sent. transport.c calls it; the handshake is websocket_handshake.c's.
 *
 * No extensions: a frame with a reserved bit is refused. Neither allocates nor keeps bytes of messages,
 * whatever their length; what a control frame holds is gathered here.
 *
 * Pure: no clock, errno or global state. One thread at a time.
 */
#ifndef NET_WEBSOCKET_H
#define NET_WEBSOCKET_H

#include <stdbool.h>

#include <lonely/span.h>

#define WEBSOCKET_HEAD_MAX       14
#define WEBSOCKET_CONTROL_MAX    125 /* payload of a ping, pong or close */
#define WEBSOCKET_LENGTH_UNKNOWN UINT64_MAX

enum websocket_opcode {
    WEBSOCKET_CONTINUATION = 0,
    WEBSOCKET_TEXT = 1,
    WEBSOCKET_BINARY = 2,
    WEBSOCKET_CLOSE = 8,
    WEBSOCKET_PING = 9,
    WEBSOCKET_PONG = 10
};

/* Codes of close frames that the parser gives (RFC 6455, 7.4.1). */
enum websocket_code {
    WEBSOCKET_MALFORMED = 1002,
    WEBSOCKET_NOT_TEXT = 1003,
    WEBSOCKET_NO_CODE = 1005, /* a close frame without one; never sent */
    WEBSOCKET_BAD_UTF8 = 1007,
    WEBSOCKET_TOO_LONG = 1009
};

/* UTF-8 that comes in pieces. Zeroed: at its beginning. */
struct websocket_utf8 {
    uint8_t missing; /* bytes of the present character */
    uint8_t lo, hi;  /* bounds of the next of them */
};

/* What comes from the peer. The fields are the parser's. */
struct websocket {
    uint64_t max_bytes;
    uint64_t left;    /* payload bytes of the present frame that have not come */
    uint64_t message; /* bytes that the frames of the present message have announced */
    uint64_t whole;   /* of the message, when its first frame is its last */
    uint16_t bad;     /* sticks; 0: good */
    uint8_t head[WEBSOCKET_HEAD_MAX];
    uint8_t head_len;
    uint8_t key[4];
    uint8_t key_at; /* of the mask: the next byte */
    uint8_t control_len;
    uint8_t control[WEBSOCKET_CONTROL_MAX];
    bool masked, accepts_text;
    bool in_frame;   /* the head is complete, the payload is not */
    bool in_message; /* a continuation is due, or going on */
    bool begun;      /* a piece of the message has been given */
    bool text;       /* the message is */
    bool over;       /* a close frame has come */
    struct websocket_utf8 utf8;
};

/* Frames of the peer must be masked, or must not be: `masked`. `max_bytes` bounds a message. */
void websocket_init(struct websocket *w, bool masked, bool accepts_text, uint64_t max_bytes);

enum websocket_event {
    WEBSOCKET_ON_MORE,  /* nothing more to say about these bytes; all are done with */
    WEBSOCKET_ON_PIECE, /* bytes of a message; empty only at its end */
    WEBSOCKET_ON_PING,
    WEBSOCKET_ON_PONG,
    WEBSOCKET_ON_CLOSE, /* what comes behind it is thrown away */
    WEBSOCKET_ON_BAD    /* not what a websocket may send; comes again ever after */
};

struct websocket_step {
    enum websocket_event event;
    uint16_t code;            /* of CLOSE: the peer's, perhaps NO_CODE; of BAD: for the peer */
    size_t used;              /* bytes at the beginning of `in` that are done with */
    struct lonely_span bytes; /* of a piece: points into `in`; payload of PING, PONG: into `w` */
    uint64_t message_bytes;   /* of the whole message, WEBSOCKET_LENGTH_UNKNOWN with fragments */
    bool first, last, text;   /* of a piece: it begins, ends its message, which is text */
};

/*
 * The next event of the bytes `in`, which are unmasked in place. Call it with what is left until all
 * is used. Events do not depend on how the bytes were cut, but for the pieces (and how much of a text
 * is given before a fault behind it): tests/fuzz/fuzz_websocket.c.
 */
struct websocket_step websocket_next(struct websocket *w, uint8_t *in, size_t len);

/* Masks or unmasks bytes that lie `at` bytes behind the beginning of a payload. */
void websocket_mask(uint8_t *bytes, size_t len, const uint8_t key[4], size_t at);

/* The head of an unfragmented frame. `key`: NULL: not masked. Returns its length. */
size_t websocket_write_head(uint8_t out[WEBSOCKET_HEAD_MAX], enum websocket_opcode opcode,
                            uint64_t payload_bytes, const uint8_t *key);

/* false: not UTF-8. The text is whole when, at its end, utf8->missing is 0. */
bool websocket_check_utf8(struct websocket_utf8 *utf8, struct lonely_span text);

#endif
