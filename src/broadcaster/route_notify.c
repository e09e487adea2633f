/*
 * POST /v1/notify: head, message, fan-out, count. (doc/protocol/http.md, 2.5)
 *
 * The head is collected in a buffer until it parses; the message goes on into a body, in memory or in a
 * file. Nothing is delivered before length and hash are right.
 */
#include <string.h>

#include <lonely/tracing.h>

#include "hub.h"
#include "mem.h"
#include "upload.h"

struct notify_request {
    struct upload upload; /* first */
    size_t head_needed;   /* bytes with which to try again */
    bool parsed;
    uint64_t head_len;
    struct lonely_stateless fields; /* topic, identifier and hash point into `kept` */
    uint8_t *kept;
    double accepted_s;
};

static void release(struct request *r)
{
    struct notify_request *n = (struct notify_request *)r;

    upload_release(r);
    mem_free(n->kept);
}

static void on_notified(void *arg, enum hub_status status, uint32_t notified)
{
    struct notify_request *n = arg;
    const struct clock *clock = n->upload.request.worker->b->clock;
    uint8_t tracing[LONELY_TRACING_MINIMAL_BYTES];
    uint64_t now_ns = (uint64_t)clock_wall_ns(clock);

    if (status == HUB_BUSY)
        n->upload.request.reason = METRICS_REASON_BUSY;
    if (status != HUB_OK) {
        request_end(&n->upload.request, 503);
        return;
    }
    lonely_tracing_minimal(n->accepted_s, (double)now_ns / 1e9, n->upload.request.started_ns,
                           now_ns, tracing);
    request_answer_body(&n->upload.request, LONELY_STATELESS_RESPONSE_NOTIFY,
                        &(struct lonely_stateless){
                            .tracing = { tracing, sizeof(tracing) },
                            .count = notified,
                            .identifier = n->fields.identifier,
                        },
                        &(struct lonely_auth_input){
                            .op = LONELY_AUTH_CONFIRM_NOTIFY,
                            .topic = n->fields.topic,
                            .identifier = n->fields.identifier,
                            .hash = n->fields.hash,
                            .subscribers = notified,
                        });
    request_free(&n->upload.request);
}

static void on_body(struct upload *u)
{
    struct notify_request *n = (struct notify_request *)u;
    struct worker *w = u->request.worker;

    if (memcmp(body_sha512(u->body), n->fields.hash.ptr, LONELY_SHA512_BYTES) != 0) {
        request_end(&u->request, 400);
        return;
    }
    n->accepted_s = clock_wall_s(w->b->clock);
    hub_notify(w, n->fields.topic, u->body, on_notified, n);
}

static void on_end(void *arg)
{
    struct notify_request *n = arg;

    upload_end_message(&n->upload, on_body);
}

/* Copies what is needed after the head is gone: topic, identifier, hash. */
static void keep_fields(struct notify_request *n, const struct lonely_stateless *fields)
{
    struct lonely_span *spans[] = { &n->fields.topic, &n->fields.identifier, &n->fields.hash };
    uint8_t *at = mem_alloc(fields->topic.len + fields->identifier.len + fields->hash.len);

    n->kept = at;
    n->fields = *fields;
    n->fields.tracing = (struct lonely_span){ NULL, 0 };
    for (size_t i = 0; i < sizeof(spans) / sizeof(spans[0]); i++) {
        if (spans[i]->len > 0)
            memcpy(at, spans[i]->ptr, spans[i]->len);
        spans[i]->ptr = at;
        at += spans[i]->len;
    }
}

/* 0, or the status that refuses a request whose head says this. */
static int judge_head(const struct notify_request *n, const struct lonely_stateless *fields)
{
    const struct conf *conf = n->upload.request.worker->b->conf;
    uint64_t announced = n->upload.request.exchange->head.content_length;

    if (fields->topic.len > conf->limits.max_topic_bytes)
        return 400;
    if (fields->message_len > conf->limits.max_message_bytes)
        return 413;
    if (announced != HTTP_LENGTH_UNKNOWN && announced - n->head_len != fields->message_len)
        return 400;
    return 0;
}

/* Over the claimed hash, before more is read. As request_authorize. */
static int authorize(struct notify_request *n, const struct lonely_stateless *fields)
{
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_NOTIFY,
        .tracing = fields->tracing,
        .topic = fields->topic,
        .identifier = fields->identifier,
        .hash = fields->hash,
    };

    return request_authorize(&n->upload.request, &in, upload_authorized);
}

enum head_verdict { HEAD_DONE, HEAD_MORE, HEAD_REFUSED };

/* Tries to parse the head from `bytes`. HEAD_REFUSED: the request has been answered and is gone. */
static enum head_verdict parse_head(struct notify_request *n, struct lonely_span bytes)
{
    struct lonely_stateless fields;
    struct lonely_result result = lonely_stateless_parse(LONELY_STATELESS_NOTIFY, bytes, &fields);
    int status;

    if (result.err == LONELY_E_TRUNCATED) {
        n->head_needed = result.at;
        return HEAD_MORE;
    }
    n->head_len = result.at;
    status = result.err != LONELY_OK ? 400 : judge_head(n, &fields);
    if (status == 0)
        status = authorize(n, &fields);
    if (!upload_begin_message(&n->upload, status, fields.message_len))
        return HEAD_REFUSED;
    n->parsed = true;
    keep_fields(n, &fields);
    return HEAD_DONE;
}

/* Takes the head, or more of it, off the piece. False: the message does not begin in this piece, or
 * the request is gone. */
static bool take_head(struct notify_request *n, struct lonely_span *piece)
{
    struct request *r = &n->upload.request;
    enum head_verdict verdict = HEAD_MORE;

    if (r->collected.len == 0) { /* nearly always it comes in one piece and need not be copied */
        verdict = parse_head(n, *piece);
        if (verdict == HEAD_DONE) {
            piece->ptr += n->head_len;
            piece->len -= (size_t)n->head_len;
        }
    }
    while (verdict == HEAD_MORE && piece->len > 0) {
        if (!request_collect_until(r, n->head_needed, piece)) {
            request_end(r, 503);
            return false;
        }
        if (r->collected.len == n->head_needed)
            verdict = parse_head(n, (struct lonely_span){ r->collected.ptr, r->collected.len });
    }
    if (verdict == HEAD_DONE)
        request_drop_collected(r);
    return verdict == HEAD_DONE;
}

static void on_piece(void *arg, struct lonely_span piece)
{
    struct notify_request *n = arg;

    if (n->parsed || take_head(n, &piece))
        upload_add_message(&n->upload, piece);
}

void route_notify(struct worker *w, struct http_exchange *x, const struct route *route)
{
    static const struct http_body_ops ops = { on_piece, on_end, request_on_abort };
    struct notify_request *n = request_create(w, x, route, sizeof(*n));

    n->upload.request.release = release;
    http_exchange_read_body(x, &ops, n);
}
