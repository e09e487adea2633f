/*
 * A way to the broadcasters: link_http.c, or link_stateful.c for websocket and TCP. Everything on the
 * client's loop.
 *
 * A link tells the client by the functions of core.h: client_link_up, _down, _dead; want_enter and
 * want_failed; client_deliver; client_missed; notify_done. Never from inside a call of the client into
 * the link, but for `notify` and `flush`.
 */
#ifndef CLIENT_LINK_H
#define CLIENT_LINK_H

#include "core.h"

struct link_ops {
    /* Makes it, and binds what it listens on; connects later. On failure says why. */
    enum lonely_client_error (*open)(struct lonely_client *c, struct link **out,
                                     struct lonely_client_why *why);
    /* The loop runs: it may connect. */
    void (*start)(struct link *l);
    /* Wants that are not settled (see want.dirty) are in lonely_client.exacts and .globs: those whose
     * `dirty` is linked in `dirty` are new to the link, which empties the list. */
    void (*flush)(struct link *l, struct list *dirty);
    /* Sends it, some day; its end is notify_done. Over the bound: notify_done with QUEUE_FULL. */
    void (*notify)(struct link *l, struct notify *n);
    /* client_has_room had said no. */
    void (*room_again)(struct link *l);
    /* The end: in order, bounded by close_timeout. Pending notifies are done with. Then `on_closed`, and the
     * link is gone. */
    void (*close)(struct link *l, void (*on_closed)(struct lonely_client *c));
};

struct link {
    const struct link_ops *ops;
    struct lonely_client *client;
};

extern const struct link_ops link_http, link_stateful;

/* What the process is reached at; NULL: not HTTP. (link_http.c) */
const char *link_http_bound(const struct link *l);
const char *link_http_url(const struct link *l);
struct lonely_mount *link_http_mount(const struct link *l); /* NULL: it has a listener */

#endif
