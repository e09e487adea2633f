/*
 * The short way of the HTTP client: bodies to plain http:// go over connections that libcurl has made
 * (DNS, addresses in turn, their judging, timeouts) and then leaves to us. What a small POST costs falls
 * by half; a large one is sent from where it lies, if its source shows that (http_client.h: look).
 * Private to the client; whatever does not fit goes libcurl's way.
 *
 * Threads: everything on the thread of the loop.
 */
#ifndef NET_HTTP_DIRECT_H
#define NET_HTTP_DIRECT_H

#include "http_client_private.h"

/* Writes the request of `call` into its block, head and small body. False: not for this way; nothing has
 * changed but call->source_waits, and the trouble of a source that fails. */
bool http_direct_prepare(struct http_call *call, const struct http_call_request *request);

/* Sends it over a kept connection. False: there is none that may be used. Failures show later. */
bool http_direct_send(struct http_call *call);

/* The same over `fd`, a new connection, which is the client's from now on. */
void http_direct_send_over(struct http_call *call, int fd);

/* The source of the call can be asked again. Failures show later. */
void http_direct_resume(struct http_call *call);

/* The call ends: its connection is kept when its reply is complete and allows it, else closed. */
void http_direct_release(struct http_call *call);

/* Closes the connections that no call uses. */
void http_direct_forget(struct http_client *client);

#endif
