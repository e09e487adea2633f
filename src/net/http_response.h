/*
 * The bytes of an HTTP/1.1 answer. Used by http_answer.c only.
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

#define HTTP_DATE_SIZE 30 /* "Sun, 06 Nov 1994 08:49:37 GMT" and a NUL */

/* The time as the header Date has it (RFC 9110, 5.6.7). `unix_s`: of the years 1970 to 9999. */
void http_date_format(int64_t unix_s, char to[HTTP_DATE_SIZE]);

/* Writes the whole answer to `to`; returns its length. `date`: NULL: none. `no_body`: it answers a
 * HEAD, so that the length is announced and the body left out. */
size_t http_response_write(const struct http_response *r, enum http_response_connection connection,
                           const char *date, bool no_body, uint8_t *to);

#endif
