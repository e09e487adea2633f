/*
 * POST /v1/missed_for_websockets: another broadcaster could not deliver a message to this one; its sessions
 * are told. (doc/protocol/http.md, 10)
 */
#include <string.h>

#include "forwarding.h"
#include "own_urls.h"
#include "routes.h"

struct missed_request {
    struct request request;         /* first */
    struct lonely_stateless fields; /* point into what was collected */
};

static struct lonely_span own_url(const struct missed_request *m)
{
    const char *url = forwarding_missed_url(m->request.worker->b->forwarding);

    return (struct lonely_span){ (const uint8_t *)url, strlen(url) };
}

static void on_told(void *arg, uint32_t count)
{
    struct missed_request *m = arg;

    (void)count; /* confirmed also when nobody wants it */
    request_answer_body(&m->request, LONELY_STATELESS_RESPONSE_CONFIRM_MISSED,
                        &(struct lonely_stateless){ 0 },
                        &(struct lonely_auth_input){
                            .op = LONELY_AUTH_CONFIRM_MISSED,
                            .topic = m->fields.topic,
                            .url = own_url(m),
                        });
    request_free(&m->request);
}

static void on_authorized(struct request *request, int status)
{
    struct missed_request *m = (struct missed_request *)request;
    struct worker *w = request->worker;

    if (status != 0)
        request_end(&m->request, status);
    else
        forwarding_missed(w->b->forwarding, w, m->fields.topic, on_told, m);
}

static void authorize(struct missed_request *m)
{
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_MISSED,
        .tracing = m->fields.tracing,
        .recovery = own_url(m),
        .topic = m->fields.topic,
    };
    int status = request_authorize(&m->request, &in, on_authorized);

    if (status != REQUEST_LATER)
        on_authorized(&m->request, status);
}

static void on_end(void *arg)
{
    struct missed_request *m = arg;
    const struct lonely_span body = { m->request.collected.ptr, m->request.collected.len };

    if (m->request.no_memory)
        request_end(&m->request, 503);
    else if (lonely_stateless_parse(LONELY_STATELESS_MISSED, body, &m->fields).err != LONELY_OK)
        request_end(&m->request, 400);
    else
        authorize(m);
}

void route_missed(struct worker *w, struct http_exchange *x, const struct route *route)
{
    static const struct http_body_ops ops = { request_on_fields, on_end, request_on_abort };
    static const char refusal[] = "{\"unsubscribe\": true, \"reason\": \"invalid missed URL\"}";
    struct missed_request *m = request_create(w, x, route, sizeof(*m));
    const struct forwarding *f = w->b->forwarding;
    const char *url = f != NULL ? forwarding_missed_url(f) : NULL;

    if (url != NULL && own_urls_is(x, url, w->b->tls == NULL)) {
        http_exchange_read_body(x, &ops, m);
        return;
    }
    request_answer_with(&m->request, 400, "application/json; charset=utf-8",
                        (struct lonely_span){ (const uint8_t *)refusal, sizeof(refusal) - 1 });
    request_free(&m->request);
}
