/*
 * What peers call this broadcaster: broadcaster.receiver_url and missed_url, and whether a request was sent
 * to that name. (doc/protocol/http.md, 10)
 */
#ifndef OWN_URLS_H
#define OWN_URLS_H

#include <stdbool.h>

#include "conf.h"
#include "http.h"

#define OWN_URLS_RECEIVE_PATH "/v1/receive_for_websockets"
#define OWN_URLS_MISSED_PATH  "/v1/missed_for_websockets"

/*
 * As configured, or derived from `bound`, the first address that is listened on. The caller frees both
 * with mem_free; `*missed` NULL: none. false: `bound` is every address of the machine, or NULL, so nothing
 * can be derived; both are NULL.
 */
bool own_urls_make(const struct conf *conf, const char *bound, char **receiver, char **missed);

/*
 * Was the request, whose head has just come, sent to `url`? `tls_elsewhere`: no listener of ours speaks
 * TLS, so to an https url somebody in front of us does.
 */
bool own_urls_is(const struct http_exchange *x, const char *url, bool tls_elsewhere);

#endif
