/*
 * The bytes of an HTTP/1.1 answer. Used by http_conn.c only.
 */
#ifndef NET_HTTP_RESPONSE_H
#define NET_HTTP_RESPONSE_H

#include <stdbool.h>

#include "http.h"

enum http_response_connection {
    HTTP_CONNECTION_UNSAID,
    HTTP_CONNECTION_CLOSE,
    HTTP_CONNECTION_KEEP_ALIVE /* HTTP/1.0 must be told */
};

/* The reason phrase, "Unknown" for a status that has none here. */
const char *http_status_text(int status);

/* Room that any answer `r` fits in. */
size_t http_response_room(const struct http_response *r);

/* Writes the whole answer to `to`; returns its length. `no_body`: it answers a HEAD, so that the
 * length is announced and the body left out. */
size_t http_response_write(const struct http_response *r, enum http_response_connection connection,
                           bool no_body, uint8_t *to);

#endif
