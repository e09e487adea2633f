/*
 * One host name, resolved in a thread of its own: a resolver that gets no answer may take far longer
 * than anybody wants to wait, and can only be left behind. libuv waits for its threads, at the latest
 * when the process ends.
 *
 * Threads: the loop's.
 */
#ifndef TINYPROTO_LOOKUP_H
#define TINYPROTO_LOOKUP_H

#include <netdb.h>
#include <uv.h>

struct lookup;

/* `status`: 0 or an EAI_* value. `list` is the receiver's. */
typedef void lookup_fn(void *arg, int status, struct addrinfo *list);

/* `done` runs later, once. NULL: no memory or no thread. */
struct lookup *lookup_start(uv_loop_t *loop, const char *host, const char *port, lookup_fn *done,
                            void *arg);

/* Before `done`, which does not run then. Returns at once. */
void lookup_cancel(struct lookup *l);

#endif
