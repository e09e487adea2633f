/*
 * The webhook receiver of a client: POST /v1/receive and /v1/recover. (doc/protocol/http.md, 5.1)
 */
#ifndef CLIENT_RECEIVER_H
#define CLIENT_RECEIVER_H

#include "core.h"
#include "http.h"

struct receiver;

struct receiver *receiver_create(struct lonely_client *c);
/* Where broadcasters post to, as registered, fragment included; copied. Before the first request. */
void receiver_set_urls(struct receiver *r, const char *receive, const char *recover);
/* Every exchange is over. */
void receiver_destroy(struct receiver *r);

/* http_on_request_fn; `app` is the receiver. */
void receiver_on_request(void *app, struct http_exchange *x);

/* From now on everything is answered 503; what waits for room, too. */
void receiver_stop(struct receiver *r);
/* client_has_room had said no: who waits is answered. */
void receiver_room_again(struct receiver *r);

#endif
