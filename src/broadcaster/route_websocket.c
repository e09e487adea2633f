/*
 * GET /v1/websocket: the upgrade to a session. (doc/protocol/session.md, 1)
 *
 * Called by routes.c. The handshake is websocket_handshake.c's, what happens on the connection session.c's.
 */
#include <string.h>

#include "log.h"
#include "mem.h"
#include "routes.h"
#include "session.h"
#include "websocket_handshake.h"

/* One whose 101 is leaving. */
struct upgrade {
    struct worker *worker;
    char peer[PEER_TEXT_MAX];
    bool counts_first;
};

static bool allows_any(const struct conf_list *origins)
{
    for (size_t i = 0; i < origins->count; i++)
        if (strcmp(origins->items[i], "*") == 0)
            return true;
    return false;
}

static bool begins_with(struct lonely_span text, const char *prefix)
{
    size_t len = strlen(prefix);

    return text.len >= len && memcmp(text.ptr, prefix, len) == 0;
}

/* The reference's client numbers only the first part of a message. (doc/protocol/stateful.md, Q10) */
static bool counts_first(const struct conf *conf, const struct http_head *head)
{
    const char *counting = conf->websocket.websocket_count_parts;
    const struct http_header *agent = http_head_find(head, "User-Agent");

    if (strcmp(counting, "auto") != 0)
        return strcmp(counting, "first") == 0;
    return agent != NULL && begins_with(agent->value, "Python/") &&
           memmem(agent->value.ptr, agent->value.len, "aiohttp/", 8) != NULL;
}

static void on_upgraded(void *arg, struct stream *stream, struct lonely_span rest)
{
    struct upgrade *u = arg;
    struct worker *w = u->worker;
    const struct session_peer peer = {
        .kind = TRANSPORT_WEBSOCKET,
        .name = u->peer,
        .counts_first = u->counts_first,
    };

    if (stream != NULL)
        sessions_open(w->sessions, stream, rest, &peer);
    mem_free(u);
    worker_release(w);
}

static void upgrade(struct worker *w, struct http_exchange *x, const char *headers)
{
    struct upgrade *u = mem_calloc(1, sizeof(*u));

    u->worker = w;
    u->counts_first = counts_first(w->b->conf, &x->head);
    peer_print(x->peer, u->peer);
    worker_hold(w);
    if (http_exchange_upgrade(x, headers, on_upgraded, u))
        return;
    mem_free(u);
    worker_release(w);
}

void route_websocket(struct worker *w, struct http_exchange *x)
{
    const struct conf_list *allowed = &w->b->conf->websocket.allowed_origins;
    const struct websocket_origins origins = {
        .list = (const char *const *)allowed->items,
        .count = allowed->count,
        .any = allows_any(allowed),
    };
    char headers[WEBSOCKET_ANSWER_MAX] = "";
    int status = websocket_check_request(&x->head, &origins, headers);

    if (status == 101 && (w->sessions == NULL || w->state != WORKER_RUNNING)) {
        status = 503;
        headers[0] = '\0';
        if (w->sessions == NULL)
            log_warn_limited(w->b->log, "websocket_refused",
                             LOG_STR("reason", "broadcaster.receiver_url is not given"), LOG_END);
    }
    if (status == 101) {
        routes_tell(w, x, METRICS_ROUTE_WEBSOCKET, status);
        upgrade(w, x, headers);
    } else {
        routes_refuse(w, x, METRICS_ROUTE_WEBSOCKET, status, headers);
    }
}
