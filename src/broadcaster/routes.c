/*
 * The table of routes, and the answers that all of them give. The routes themselves are in route_*.c.
 */
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "mem.h"
#include "own_urls.h"
#include "routes.h"

static const struct route routes[] = {
    { "/v1/notify", route_notify, LONELY_STATELESS_NOTIFY, METRICS_ROUTE_NOTIFY },
    { "/v1/subscribe/exact", route_fields, LONELY_STATELESS_SUBSCRIBE_EXACT,
      METRICS_ROUTE_SUBSCRIBE_EXACT },
    { "/v1/subscribe/glob", route_fields, LONELY_STATELESS_SUBSCRIBE_GLOB,
      METRICS_ROUTE_SUBSCRIBE_GLOB },
    { "/v1/unsubscribe/exact", route_fields, LONELY_STATELESS_UNSUBSCRIBE_EXACT,
      METRICS_ROUTE_UNSUBSCRIBE_EXACT },
    { "/v1/unsubscribe/glob", route_fields, LONELY_STATELESS_UNSUBSCRIBE_GLOB,
      METRICS_ROUTE_UNSUBSCRIBE_GLOB },
    { "/v1/check_subscriptions", route_fields, LONELY_STATELESS_CHECK_SUBSCRIPTIONS,
      METRICS_ROUTE_CHECK_SUBSCRIPTIONS },
    { "/v1/set_subscriptions", route_set, LONELY_STATELESS_SET_SUBSCRIPTIONS,
      METRICS_ROUTE_SET_SUBSCRIPTIONS },
    { OWN_URLS_RECEIVE_PATH, route_receive, LONELY_STATELESS_RECEIVE, METRICS_ROUTE_RECEIVE },
    { OWN_URLS_MISSED_PATH, route_missed, LONELY_STATELESS_MISSED, METRICS_ROUTE_MISSED },
};

static bool span_is(struct lonely_span span, const char *text)
{
    return span.len == strlen(text) && memcmp(span.ptr, text, span.len) == 0;
}

static struct lonely_span path_of(struct lonely_span target)
{
    const uint8_t *query = memchr(target.ptr, '?', target.len);

    return (struct lonely_span){ target.ptr,
                                 query == NULL ? target.len : (size_t)(query - target.ptr) };
}

static const struct route *find_route(struct lonely_span path)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (span_is(path, routes[i].path))
            return &routes[i];
    }
    return NULL;
}

/* ---- What is told of a request ---- */

static void count_rejected(struct worker *w, enum metrics_reason reason)
{
    if (reason != METRICS_REASON_NONE)
        metrics_add(&w->metrics->rejected[reason], 1);
}

static bool logs_access(const struct worker *w)
{
    return atomic_load_explicit(&w->b->log_access, memory_order_relaxed);
}

static void log_access(struct worker *w, const struct http_exchange *x, struct lonely_span method,
                       struct lonely_span path, int status, uint64_t ns)
{
    char peer[PEER_TEXT_MAX];

    peer_print(x->peer, peer);
    log_info(w->b->log, "request", LOG_STR("peer", peer),
             LOG_SPAN("method", method.ptr, method.len), LOG_SPAN("path", path.ptr, path.len),
             LOG_I64("status", status), LOG_U64("bytes_in", x->received),
             LOG_F64("seconds", (double)ns / 1e9), LOG_END);
}

/* Before the exchange ends. `status` 0: its body never became complete. */
static void tell(struct request *r, int status)
{
    static const struct lonely_span method = { (const uint8_t *)"POST", 4 };
    struct worker *w = r->worker;
    enum metrics_route route = r->route->metric;
    uint64_t ns = clock_mono_ns(w->b->clock) - r->started_mono_ns;

    if (status == 0) {
        metrics_add(&w->metrics->aborted[route], 1);
    } else {
        metrics_add(&w->metrics->requests[route][metrics_status_of(status)], 1);
        metrics_observe(&w->metrics->request_time[route], ns);
        count_rejected(w, r->reason == METRICS_REASON_NONE ? metrics_reason_of(status) : r->reason);
    }
    if (logs_access(w))
        log_access(w, r->exchange, method,
                   (struct lonely_span){ (const uint8_t *)r->route->path, strlen(r->route->path) },
                   status, ns);
}

void routes_on_reject(void *app, int status, const struct sockaddr *peer)
{
    struct worker *w = app;
    char text[PEER_TEXT_MAX];

    count_rejected(w, status == 0 ? METRICS_REASON_ADDRESS_LIMIT : metrics_reason_of(status));
    if (status != 0 && !logs_access(w))
        return;
    peer_print(peer, text);
    if (status == 0)
        log_warn_limited(w->b->log, "connection_refused", LOG_STR("peer", text),
                         LOG_STR("reason", "limits.max_connections_per_address"), LOG_END);
    else
        log_info(w->b->log, "no_request", LOG_STR("peer", text), LOG_I64("status", status),
                 LOG_END);
}

/* ---- Requests ---- */

void routes_tell(struct worker *w, const struct http_exchange *x, enum metrics_route route,
                 int status)
{
    metrics_add(&w->metrics->requests[route][metrics_status_of(status)], 1);
    count_rejected(w, metrics_reason_of(status));
    if (logs_access(w))
        log_access(w, x, x->head.method, path_of(x->head.target), status, 0);
}

void routes_refuse(struct worker *w, struct http_exchange *x, enum metrics_route route, int status,
                   const char *headers)
{
    const char *json = status == 404   ? "{\"detail\":\"Not Found\"}"
                       : status == 405 ? "{\"detail\":\"Method Not Allowed\"}"
                                       : "";

    routes_tell(w, x, route, status);
    http_exchange_respond(x, &(struct http_response){
                                 .status = status,
                                 .content_type = json[0] == '\0' ? NULL : "application/json",
                                 .headers = headers[0] == '\0' ? NULL : headers,
                                 .body = { (const uint8_t *)json, strlen(json) },
                             });
}

void routes_on_request(void *app, struct http_exchange *x)
{
    struct worker *w = app;
    struct lonely_span path = path_of(x->head.target);
    const struct route *route = find_route(path);

    if (span_is(path, "/v1/websocket"))
        route_websocket(w, x);
    else if (route == NULL)
        routes_refuse(w, x, METRICS_ROUTE_UNKNOWN, 404, "");
    else if (!span_is(x->head.method, "POST"))
        routes_refuse(w, x, route->metric, 405, "Allow: POST\r\n");
    else
        route->on_request(w, x, route);
}

/* Of the head, which dies soon, only what a scheme needs is kept. */
static void keep_authorization(struct request *r)
{
    const struct http_header *header;

    r->asks = gate_asks(r->worker->gate, r->route->type == LONELY_STATELESS_RECEIVE ||
                                             r->route->type == LONELY_STATELESS_MISSED);
    header = r->asks ? http_head_find(&r->exchange->head, "Authorization") : NULL;
    if (header == NULL)
        return;
    /* One that is there but empty has an address, too. */
    r->authorization_copy = mem_alloc(header->value.len + 1);
    if (header->value.len > 0)
        memcpy(r->authorization_copy, header->value.ptr, header->value.len);
    r->authorization = (struct lonely_span){ r->authorization_copy, header->value.len };
}

void *request_create(struct worker *w, struct http_exchange *x, const struct route *route,
                     size_t size)
{
    struct request *r = mem_calloc(1, size);

    r->worker = w;
    r->exchange = x;
    r->route = route;
    r->started_ns = (uint64_t)clock_wall_ns(w->b->clock);
    r->started_mono_ns = clock_mono_ns(w->b->clock);
    r->reason = METRICS_REASON_NONE;
    buf_init(&r->collected, lonely_stateless_max(route->type));
    keep_authorization(r);
    worker_hold(w);
    return r;
}

bool request_url_allowed(const struct request *r, struct lonely_span url)
{
    const struct broadcaster *b = r->worker->b;
    enum policy_verdict verdict = policy_judge_url(b->policy, url);

    if (verdict == POLICY_LATER || verdict == POLICY_ALLOW)
        return true;
    log_warn_limited(b->log, "subscribe_refused", LOG_URL("url", url.ptr, url.len),
                     LOG_STR("reason", verdict == POLICY_SCHEME ? "neither http nor https"
                                                                : "address not allowed"),
                     LOG_END);
    return false;
}

bool request_collect(struct request *r, const uint8_t *ptr, size_t len)
{
    struct worker *w = r->worker;
    size_t before = r->collected.cap;
    bool appended = buf_append(&r->collected, ptr, len);

    w->collected_bytes += r->collected.cap - before;
    return appended && w->collected_bytes <= w->max_collected_bytes;
}

bool request_collect_until(struct request *r, size_t needed, struct lonely_span *piece)
{
    size_t take = needed - r->collected.len;

    if (take > piece->len)
        take = piece->len;
    if (!request_collect(r, piece->ptr, take))
        return false;
    piece->ptr += take;
    piece->len -= take;
    return true;
}

void request_drop_collected(struct request *r)
{
    r->worker->collected_bytes -= r->collected.cap;
    buf_fini(&r->collected);
}

void request_on_fields(void *arg, struct lonely_span piece)
{
    struct request *r = arg;
    size_t room = buf_room(&r->collected);

    if (r->no_memory || room == 0)
        return;
    r->no_memory = !request_collect(r, piece.ptr, piece.len < room ? piece.len : room);
    if (r->no_memory)
        request_drop_collected(r);
}

void request_free(struct request *r)
{
    if (r->release != NULL)
        r->release(r);
    request_drop_collected(r);
    if (r->exchange != NULL)
        tell(r, 0);
    if (r->wait != NULL)
        gate_forget(r->wait);
    if (r->authorization_copy != NULL) /* under token it is the secret */
        explicit_bzero(r->authorization_copy, r->authorization.len);
    mem_free(r->authorization_copy);
    worker_release(r->worker);
    mem_free(r);
}

static int authorized(const struct request *r, enum lonely_auth_result result)
{
    if (result != LONELY_AUTH_OK)
        log_info_limited(r->worker->b->log, "request_refused", LOG_STR("path", r->route->path),
                         LOG_STR("authorization", lonely_auth_result_str(result)), LOG_END);
    return gate_status(result);
}

static void on_authorized(void *arg, enum lonely_auth_result result)
{
    struct request *r = arg;

    r->wait = NULL;
    r->then(r, authorized(r, result));
}

int request_authorize(struct request *r, const struct lonely_auth_input *in,
                      void (*then)(struct request *r, int status))
{
    enum lonely_auth_result result;

    if (!r->asks)
        return 0;
    r->then = then;
    result =
        gate_check(r->worker->gate, in, r->authorization.ptr != NULL ? &r->authorization : NULL,
                   &r->wait, on_authorized, r);
    return r->wait != NULL ? REQUEST_LATER : authorized(r, result);
}

static void respond(struct request *r, const struct http_response *response)
{
    struct http_exchange *x = r->exchange;

    tell(r, response->status);
    r->exchange = NULL;
    http_exchange_respond(x, response);
}

void request_answer(struct request *r, int status)
{
    static const char failed[] = "Internal Server Error";
    char retry[64];

    snprintf(retry, sizeof(retry), "Retry-After: %llu\r\n",
             (unsigned long long)r->worker->b->conf->limits.retry_after_s);
    if (status == 500)
        respond(r, &(struct http_response){ .status = status,
                                            .content_type = "text/plain; charset=utf-8",
                                            .body = { (const uint8_t *)failed, strlen(failed) } });
    else
        respond(r, &(struct http_response){ .status = status,
                                            .headers = status == 503 ? retry : NULL });
}

void request_end(struct request *r, int status)
{
    request_answer(r, status);
    request_free(r);
}

void request_on_abort(void *arg)
{
    request_free(arg);
}

void request_answer_with(struct request *r, int status, const char *content_type,
                         struct lonely_span body)
{
    respond(
        r, &(struct http_response){ .status = status, .content_type = content_type, .body = body });
}

static void answer_signed(struct request *r, enum lonely_stateless_type type,
                          const struct lonely_stateless *body)
{
    uint8_t small[1024]; /* holds all but the strangest answers */
    size_t len = lonely_stateless_write(type, body, NULL, 0).at;
    uint8_t *bytes = len <= sizeof(small) ? small : mem_alloc(len);

    if (lonely_stateless_write(type, body, bytes, len).err == LONELY_OK)
        respond(r, &(struct http_response){ .status = 200,
                                            .content_type = "application/octet-stream",
                                            .body = { bytes, len } });
    else
        request_answer(r, 500);
    if (bytes != small)
        mem_free(bytes);
}

void request_answer_body(struct request *r, enum lonely_stateless_type type,
                         struct lonely_stateless *body, struct lonely_auth_input *in)
{
    uint8_t authorization[LONELY_AUTH_MAX_BYTES];

    in->tracing = body->tracing;
    if (gate_sign(r->worker->gate, in, authorization, &body->authorization))
        answer_signed(r, type, body);
    else
        request_answer(r, 500);
}

void request_answer_generic(struct request *r, struct lonely_auth_input *in)
{
    request_answer_body(r, LONELY_STATELESS_RESPONSE_GENERIC, &(struct lonely_stateless){ 0 }, in);
}
