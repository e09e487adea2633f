/*
 * Grammar of HTTP/1.0 and 1.1 requests: bytes in, events out; no socket, no clock. http_conn.c calls
 * it. Which library reads the head is known to request_parser.c only.
 *
 * What it refuses beyond its library, because two readers of one request must not disagree about
 * where it ends: blanks in header names, folded lines, more than one blank in the request line, bare
 * LF or sloppy line ends between chunks, any Transfer-Encoding but `chunked` (and that one in
 * HTTP/1.0 or beside a Content-Length), a missing or second Host in HTTP/1.1, bytes in the target
 * that are not printable ASCII. A bare LF ends a line of the head, as it does for most servers.
 *
 * One thread at a time.
 */
#ifndef NET_REQUEST_PARSER_H
#define NET_REQUEST_PARSER_H

#include <stdbool.h>

#include "http.h"

#define REQUEST_HEADERS_MAX 100 /* headers of one request; more: 431 */
#define REQUEST_METHOD_MAX  32  /* bytes; longer: 400 */

struct request_scratch; /* what is known of one unfinished head */

/* Shared by the parsers of one loop, so that an idle connection holds none of it. */
struct request_pool {
    struct request_scratch *spare;
    struct http_header headers[REQUEST_HEADERS_MAX]; /* of the head reported last */
};

void request_pool_init(struct request_pool *pool); /* any thread */
void request_pool_fini(struct request_pool *pool); /* after its parsers */

struct request_parser {
    struct request_pool *pool;
    struct request_scratch *scratch; /* NULL unless a head is unfinished */
    uint64_t left;                   /* bytes to come of the body or of its chunk */
    uint32_t max_head_bytes;
    uint32_t framing_bytes; /* read since the data of the last chunk */
    uint8_t phase;
    /* Of the head reported last: */
    bool keep_alive;      /* as its version and Connection headers ask */
    bool version_1_0;     /* must be told of a kept connection */
    bool expect_continue; /* sends its body only after 100 Continue */
    bool no_reply_body;   /* HEAD */
};

enum request_event {
    REQUEST_MORE,  /* nothing more to say about these bytes */
    REQUEST_HEAD,  /* a head is complete */
    REQUEST_PIECE, /* bytes of its body, at least one */
    REQUEST_END,   /* the body, perhaps an empty one, is complete */
    REQUEST_BAD    /* not a request that is served; the parser is of no further use */
};

struct request_step {
    enum request_event event;
    int status;               /* of REQUEST_BAD: the answer, 400, 414, 417, 431 or 505 */
    size_t used;              /* bytes at the beginning of `in` that are done with */
    struct lonely_span piece; /* of REQUEST_PIECE; points into `in` */
};

/* `max_head_bytes` bounds request line and headers, and the bytes between two chunks. */
void request_parser_init(struct request_parser *p, struct request_pool *pool,
                         uint32_t max_head_bytes);
void request_parser_fini(struct request_parser *p);

/*
 * The next event. Call it until it says REQUEST_MORE, dropping the `used` bytes each time; then
 * come back with the bytes that were left and new ones behind them. Empty lines in front of a head
 * are used up. Of an unfinished head no byte is, so that a head lies in one piece when it is
 * reported; what was looked at already is not looked at again.
 *
 * @param head  filled on REQUEST_HEAD: spans into `in` and `pool`, good until the next call on any
 *              parser of the pool. An absolute-form target is given from its path on.
 *
 * Events do not depend on how the bytes were cut (tests/fuzz/fuzz_request_parser.c).
 */
struct request_step request_parser_next(struct request_parser *p, struct lonely_span in,
                                        struct http_head *head);

/* Bytes of the present body still to come; HTTP_LENGTH_UNKNOWN when it is chunked and not over. */
uint64_t request_parser_left(const struct request_parser *p);

#endif
