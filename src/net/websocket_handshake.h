/*
 * The HTTP request that begins a websocket, and the answer to it (RFC 6455, 4), for either end. No
 * extension is offered or accepted, and no subprotocol.
 *
 * Pure but for OpenSSL's SHA-1; any thread.
 */
#ifndef NET_WEBSOCKET_HANDSHAKE_H
#define NET_WEBSOCKET_HANDSHAKE_H

#include "buf.h"
#include "http.h"

#define WEBSOCKET_ANSWER_MAX  160 /* header lines of an answer, and a NUL */
#define WEBSOCKET_NONCE_BYTES 16

/* Whose pages may connect: values of the header Origin, compared without case. A request without
 * the header, which is not a browser's, may always. */
struct websocket_origins {
    const char *const *list;
    size_t count;
    bool any; /* every page may; the list is not looked at */
};

/*
 * The server's side. What to answer: 101 is for http_exchange_upgrade, everything else for
 * http_exchange_respond, with `headers` both times.
 *
 *     101  all is well
 *     400  a malformed handshake, or a body with it
 *     403  the page's origin is not allowed
 *     404  does not ask for a websocket
 *     405  asks by another method than GET
 *     426  another version than 13; `headers` says which
 */
int websocket_check_request(const struct http_head *head, const struct websocket_origins *origins,
                            char headers[WEBSOCKET_ANSWER_MAX]);

/* The client's side. */

struct websocket_request {
    const char *host;                     /* "example.org:3003" */
    const char *target;                   /* "/v1/websocket" */
    const char *headers;                  /* more lines, each ending in "\r\n"; NULL: none */
    uint8_t nonce[WEBSOCKET_NONCE_BYTES]; /* random */
};

/* false: no room or memory in `out`. */
bool websocket_write_request(struct buf *out, const struct websocket_request *request);

enum websocket_reply {
    WEBSOCKET_REPLY_MORE,    /* more bytes are needed */
    WEBSOCKET_REPLY_OPEN,    /* the websocket is open */
    WEBSOCKET_REPLY_REFUSED, /* a status other than 101 */
    WEBSOCKET_REPLY_BAD      /* not an answer to this request */
};

struct websocket_reply_result {
    enum websocket_reply reply;
    int status;  /* of OPEN and REFUSED */
    size_t used; /* of OPEN: bytes of the head; what follows are frames */
};

/* `in`: all that has come. How long to wait for MORE, and how much, is the caller's to bound. */
struct websocket_reply_result websocket_check_reply(struct lonely_span in,
                                                    const uint8_t nonce[WEBSOCKET_NONCE_BYTES]);

#endif
