/*
 * The five requests whose body is a few fields: subscribe and unsubscribe, exact and glob, and
 * check_subscriptions. (doc/protocol/http.md, 2.1 to 2.3)
 *
 * The body is collected up to the longest that its fields can have; what follows them is ignored, as the
 * protocol wants.
 */
#include <lonely/auth.h>

#include "mem.h"
#include "routes.h"

struct fields_request {
    struct request request;         /* first */
    struct lonely_stateless fields; /* point into what was collected */
};

static bool is_glob(const struct fields_request *f)
{
    return f->request.route->type == LONELY_STATELESS_SUBSCRIBE_GLOB ||
           f->request.route->type == LONELY_STATELESS_UNSUBSCRIBE_GLOB;
}

/* What request and reply sign. Unsubscribing is signed as subscribing without recovery, which is what
 * its body has. (doc/protocol/auth.md, 5) */
static struct lonely_auth_input signed_input(const struct fields_request *f,
                                             enum lonely_auth_op exact, enum lonely_auth_op glob)
{
    return (struct lonely_auth_input){
        .op = is_glob(f) ? glob : exact,
        .tracing = f->fields.tracing,
        .url = f->fields.url,
        .recovery = f->fields.recovery,
        .topic = f->fields.topic,
    };
}

static void answer_generic(struct fields_request *f)
{
    struct lonely_auth_input in =
        signed_input(f, LONELY_AUTH_CONFIRM_SUBSCRIBE_EXACT, LONELY_AUTH_CONFIRM_SUBSCRIBE_GLOB);

    request_answer_generic(&f->request, &in);
}

static void on_stored(void *arg, enum store_status status)
{
    struct fields_request *f = arg;

    switch (status) {
    case STORE_OK:
        answer_generic(f);
        break;
    case STORE_CONFLICT:
    case STORE_NOT_FOUND:
        request_answer(&f->request, 409);
        break;
    case STORE_UNAVAILABLE:
    case STORE_PENDING:
        request_answer(&f->request, 503);
        break;
    }
    request_free(&f->request);
}

static void on_checked(void *arg, enum store_status status, const uint8_t etag[64])
{
    struct fields_request *f = arg;

    const struct lonely_span hash = { etag, LONELY_SHA512_BYTES };

    if (status == STORE_OK)
        request_answer_body(&f->request, LONELY_STATELESS_RESPONSE_CHECK_SUBSCRIPTIONS,
                            &(struct lonely_stateless){ .hash = hash },
                            &(struct lonely_auth_input){
                                .op = LONELY_AUTH_CHECK_SUBSCRIPTIONS_RESPONSE, .hash = hash });
    else
        request_answer(&f->request, 503);
    request_free(&f->request);
}

/* Our own limits; the protocol's are in the width of the length fields. What was subscribed under others
 * can be unsubscribed. */
static bool within_limits(const struct fields_request *f)
{
    const struct conf *conf = f->request.worker->b->conf;
    const struct lonely_stateless *fields = &f->fields;

    if (f->request.route->type == LONELY_STATELESS_UNSUBSCRIBE_EXACT ||
        f->request.route->type == LONELY_STATELESS_UNSUBSCRIBE_GLOB)
        return true;
    return fields->url.len <= conf->limits.max_url_bytes &&
           fields->recovery.len <= conf->limits.max_url_bytes &&
           fields->topic.len <=
               (is_glob(f) ? conf->limits.max_glob_bytes : conf->limits.max_topic_bytes);
}

/* Only what would be stored: an old subscription may always be checked and removed. */
static bool urls_allowed(const struct request *r, const struct lonely_stateless *fields)
{
    if (r->route->type != LONELY_STATELESS_SUBSCRIBE_EXACT &&
        r->route->type != LONELY_STATELESS_SUBSCRIBE_GLOB)
        return true;
    return request_url_allowed(r, fields->url) && request_url_allowed(r, fields->recovery);
}

static void act(struct fields_request *f)
{
    struct worker *w = f->request.worker;
    const struct store_ops *store = w->b->store_ops;
    const struct lonely_stateless *fields = &f->fields;
    enum lonely_stateless_type type = f->request.route->type;
    const struct store_row row = {
        .kind = is_glob(f) ? STORE_GLOB : STORE_EXACT,
        .url = fields->url,
        .key = fields->topic,
        .recovery = fields->recovery,
    };

    if (!urls_allowed(&f->request, fields))
        request_end(&f->request, 400);
    else if (type == LONELY_STATELESS_CHECK_SUBSCRIPTIONS)
        store->check(w->store, fields->url, on_checked, f);
    else if (type == LONELY_STATELESS_SUBSCRIBE_EXACT || type == LONELY_STATELESS_SUBSCRIBE_GLOB)
        store->subscribe(w->store, &row, on_stored, f);
    else
        store->unsubscribe(w->store, &row, on_stored, f);
}

static void on_authorized(struct request *r, int status)
{
    struct fields_request *f = (struct fields_request *)r;

    if (status != 0)
        request_end(&f->request, status);
    else
        act(f);
}

static void authorize(struct fields_request *f)
{
    struct lonely_auth_input in =
        signed_input(f, LONELY_AUTH_SUBSCRIBE_EXACT, LONELY_AUTH_SUBSCRIBE_GLOB);
    int status;

    if (f->request.route->type == LONELY_STATELESS_CHECK_SUBSCRIPTIONS)
        in.op = LONELY_AUTH_CHECK_SUBSCRIPTIONS;
    status = request_authorize(&f->request, &in, on_authorized);
    if (status != REQUEST_LATER)
        on_authorized(&f->request, status);
}

static void on_end(void *arg)
{
    struct fields_request *f = arg;
    struct lonely_result result = lonely_stateless_parse(
        f->request.route->type,
        (struct lonely_span){ f->request.collected.ptr, f->request.collected.len }, &f->fields);

    if (f->request.no_memory)
        request_end(&f->request, 503);
    else if (result.err != LONELY_OK || !within_limits(f))
        request_end(&f->request, 400);
    else
        authorize(f);
}

void route_fields(struct worker *w, struct http_exchange *x, const struct route *route)
{
    static const struct http_body_ops ops = { request_on_fields, on_end, request_on_abort };
    struct fields_request *f = request_create(w, x, route, sizeof(*f));

    http_exchange_read_body(x, &ops, f);
}
