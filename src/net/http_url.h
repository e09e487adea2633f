/*
 * How the HTTP client reads a URL: with libcurl's own parser, so that what is judged beforehand is what
 * will be connected to. Pure.
 */
#ifndef NET_HTTP_URL_H
#define NET_HTTP_URL_H

#include <stddef.h>
#include <sys/socket.h>

/*
 * The URL without its fragment, and what RFC 3986 does not allow in path and query
 * percent-encoded. Control characters stay: libcurl refuses them. Returns the bytes of it, with the
 * NUL; `to` NULL: only counts.
 */
size_t http_url_clean(const char *url, char *to);

enum http_url_kind {
    HTTP_URL_MALFORMED,    /* not an absolute URL, or there is no memory to read it */
    HTTP_URL_SCHEME,       /* an absolute URL, but neither http nor https */
    HTTP_URL_NAME,         /* the host is to be looked up */
    HTTP_URL_FOREIGN_NAME, /* the same; it is not ASCII, and its digits may be mapped to such */
    HTTP_URL_ADDRESS       /* the host is an address */
};

/*
 * Reads a cleaned URL. `*address` is filled with HTTP_URL_ADDRESS: dotted, with fewer than four
 * parts, octal, hexadecimal, percent-encoded, in brackets, with a zone (which is left out) or a dot
 * behind. Its port is 0.
 */
enum http_url_kind http_url_read(const char *url, struct sockaddr_storage *address);

#endif
