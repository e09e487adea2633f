/*
 * The table of routes, and the answers that all of them give. The routes themselves are in route_*.c.
 */
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "mem.h"
#include "routes.h"

static const struct route routes[] = {
    { "/v1/notify", route_notify, LONELY_STATELESS_NOTIFY },
    { "/v1/subscribe/exact", route_fields, LONELY_STATELESS_SUBSCRIBE_EXACT },
    { "/v1/subscribe/glob", route_fields, LONELY_STATELESS_SUBSCRIBE_GLOB },
    { "/v1/unsubscribe/exact", route_fields, LONELY_STATELESS_UNSUBSCRIBE_EXACT },
    { "/v1/unsubscribe/glob", route_fields, LONELY_STATELESS_UNSUBSCRIBE_GLOB },
    { "/v1/check_subscriptions", route_fields, LONELY_STATELESS_CHECK_SUBSCRIPTIONS },
    { "/v1/set_subscriptions", route_set, LONELY_STATELESS_SET_SUBSCRIPTIONS },
};

static bool span_is(struct lonely_span span, const char *text)
{
    return span.len == strlen(text) && memcmp(span.ptr, text, span.len) == 0;
}

static const struct route *find_route(struct lonely_span target)
{
    const uint8_t *query = memchr(target.ptr, '?', target.len);

    if (query != NULL)
        target.len = (size_t)(query - target.ptr);
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (span_is(target, routes[i].path))
            return &routes[i];
    }
    return NULL;
}

static void log_access(struct worker *w, const char *path, int status, uint64_t started_ns)
{
    if (!w->b->conf->log.access)
        return;
    log_info(w->b->log, "request", LOG_STR("path", path), LOG_I64("status", status),
             LOG_F64("seconds", (double)(clock_wall_ns(w->b->clock) - (int64_t)started_ns) / 1e9),
             LOG_END);
}

static void refuse(struct worker *w, struct http_exchange *x, int status, const char *json)
{
    log_access(w, "unknown", status, (uint64_t)clock_wall_ns(w->b->clock));
    http_exchange_respond(x, &(struct http_response){
                                 .status = status,
                                 .content_type = "application/json",
                                 .headers = status == 405 ? "Allow: POST\r\n" : NULL,
                                 .body = { (const uint8_t *)json, strlen(json) },
                             });
}

void routes_on_request(void *app, struct http_exchange *x)
{
    struct worker *w = app;
    const struct route *route = find_route(x->head.target);

    if (route == NULL)
        refuse(w, x, 404, "{\"detail\":\"Not Found\"}");
    else if (!span_is(x->head.method, "POST"))
        refuse(w, x, 405, "{\"detail\":\"Method Not Allowed\"}");
    else
        route->on_request(w, x, route);
}

void *request_create(struct worker *w, struct http_exchange *x, const struct route *route,
                     size_t size)
{
    struct request *r = mem_calloc(1, size);

    r->worker = w;
    r->exchange = x;
    r->route = route;
    r->started_ns = (uint64_t)clock_wall_ns(w->b->clock);
    worker_hold(w);
    return r;
}

bool request_url_allowed(const struct request *r, struct lonely_span url)
{
    const struct broadcaster *b = r->worker->b;
    enum policy_verdict verdict = policy_judge_url(b->policy, url);

    if (verdict == POLICY_LATER || verdict == POLICY_ALLOW)
        return true;
    log_warn_limited(b->log, "subscribe_refused", LOG_SPAN("url", url.ptr, url.len),
                     LOG_STR("reason", verdict == POLICY_SCHEME ? "neither http nor https"
                                                                : "address not allowed"),
                     LOG_END);
    return false;
}

void request_free(struct request *r)
{
    worker_release(r->worker);
    mem_free(r);
}

static void respond(struct request *r, const struct http_response *response)
{
    struct http_exchange *x = r->exchange;

    log_access(r->worker, r->route->path, response->status, r->started_ns);
    r->exchange = NULL;
    http_exchange_respond(x, response);
}

void request_answer(struct request *r, int status)
{
    char retry[64];

    snprintf(retry, sizeof(retry), "Retry-After: %llu\r\n",
             (unsigned long long)r->worker->b->conf->limits.retry_after_s);
    respond(r,
            &(struct http_response){ .status = status, .headers = status == 503 ? retry : NULL });
}

void request_answer_body(struct request *r, enum lonely_stateless_type type,
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
        respond(r, &(struct http_response){ .status = 500 });
    if (bytes != small)
        mem_free(bytes);
}

void request_answer_generic(struct request *r)
{
    request_answer_body(r, LONELY_STATELESS_RESPONSE_GENERIC, &(struct lonely_stateless){ 0 });
}
