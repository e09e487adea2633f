/*
 * POST /v1/receive_for_websockets: a message from another broadcaster, for the sessions of this one.
 * (doc/protocol/http.md, 10; doc/protocol/session.md, 5.3)
 *
 * Who is told to unsubscribe deletes our row, so only what shows that the row is of no use is answered so;
 * the order of the checks is the protocol's. A lonelypss is never told: while it deletes the row a session may
 * come and be confirmed, whose messages would then be lost. The row of nobody goes by our own sweep, in
 * turn with what sessions ask for (forwarding.c).
 */
#include <string.h>
#include <strings.h>

#include "forwarding.h"
#include "mem.h"
#include "own_urls.h"
#include "upload.h"

struct receive_request {
    struct upload upload;                /* first */
    uint8_t sha512[LONELY_SHA512_BYTES]; /* of the header */
    size_t head_needed;                  /* bytes with which to try again */
    bool parsed;
    bool from_lonelypss;
    bool nobody; /* wants it; only a lonelypss comes to be told how many that are */
    struct lonely_stateless fields; /* point into what was collected */
    struct match *match;            /* under way; NULL: none */
};

/* Asks whether anybody wants the message; outlives the request when the peer leaves. */
struct match {
    struct receive_request *request; /* NULL: gone */
    bool asking;                     /* forwarding_match has not returned */
    bool answered;
    uint32_t count;
};

/* What a check says instead of a status: 400, and the row is of no use. */
#define NOBODY_WANTS_IT (-2)

static struct lonely_span own_url(const struct receive_request *r)
{
    const char *url = forwarding_url(r->upload.request.worker->b->forwarding);

    return (struct lonely_span){ (const uint8_t *)url, strlen(url) };
}

static void release(struct request *request)
{
    struct receive_request *r = (struct receive_request *)request;

    if (r->match != NULL)
        r->match->request = NULL;
    upload_release(request);
}

/* ---- The message is here ---- */

static void on_delivered(void *arg, uint32_t count)
{
    struct receive_request *r = arg;

    request_answer_body(&r->upload.request, LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE,
                        &(struct lonely_stateless){
                            .identifier = r->fields.identifier,
                            .count = count,
                        },
                        &(struct lonely_auth_input){
                            .op = LONELY_AUTH_CONFIRM_RECEIVE,
                            .identifier = r->fields.identifier,
                            .subscribers = count,
                            .url = own_url(r),
                        });
    request_free(&r->upload.request);
}

static void on_body(struct upload *u)
{
    struct receive_request *r = (struct receive_request *)u;
    struct worker *w = u->request.worker;

    if (memcmp(body_sha512(u->body), r->sha512, sizeof(r->sha512)) != 0)
        request_end(&u->request, 400);
    else
        forwarding_deliver(w->b->forwarding, w, r->fields.topic, u->body, on_delivered, r);
}

static void on_end(void *arg)
{
    struct receive_request *r = arg;

    upload_end_message(&r->upload, on_body);
}

/* ---- Checks ---- */

/* Does that status tell the peer that it may drop our row? Then the request is answered and gone. */
static bool unsubscribe(struct receive_request *r, int status)
{
    static const uint8_t body[] = { 0, LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE };

    if (r->from_lonelypss || (status != NOBODY_WANTS_IT && status != 401 && status != 403))
        return false;
    request_answer_with(&r->upload.request, status == NOBODY_WANTS_IT ? 400 : status,
                        "application/octet-stream", (struct lonely_span){ body, sizeof(body) });
    request_free(&r->upload.request);
    return true;
}

/* Is there no need of the message? Then the request is answered and gone. */
static bool answer_early(struct receive_request *r, int status)
{
    if (status != 0 || !r->nobody)
        return unsubscribe(r, status);
    on_delivered(r, 0);
    return true;
}

static void on_checked(struct request *request, int status)
{
    if (!answer_early((struct receive_request *)request, status))
        upload_authorized(request, status);
}

/* As request_authorize; `count` sessions want it. */
static int authorize(struct receive_request *r, uint32_t count)
{
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_RECEIVE,
        .tracing = r->fields.tracing,
        .url = own_url(r),
        .topic = r->fields.topic,
        .identifier = r->fields.identifier,
        .hash = { r->sha512, sizeof(r->sha512) },
    };

    r->nobody = count == 0;
    if (r->nobody && !r->from_lonelypss)
        return NOBODY_WANTS_IT;
    return request_authorize(&r->upload.request, &in, on_checked);
}

static void on_matched(void *arg, uint32_t count)
{
    struct match *match = arg;
    struct receive_request *r = match->request;
    int status;

    match->answered = true;
    match->count = count;
    if (match->asking)
        return;
    mem_free(match);
    if (r == NULL)
        return;
    r->match = NULL;
    status = authorize(r, count);
    if (status != REQUEST_LATER)
        on_checked(&r->upload.request, status);
}

/* 0, a status, NOBODY_WANTS_IT, or REQUEST_LATER: then on_checked runs. */
static int check(struct receive_request *r)
{
    struct worker *w = r->upload.request.worker;
    struct match *match;
    int status = REQUEST_LATER;

    if (r->fields.message_len > w->b->conf->limits.max_message_bytes)
        return 413;
    match = mem_calloc(1, sizeof(*match));
    match->request = r;
    match->asking = true;
    forwarding_match(w->b->forwarding, w, r->fields.topic, on_matched, match);
    match->asking = false;
    if (match->answered) {
        status = authorize(r, match->count);
        mem_free(match);
    } else {
        r->match = match;
    }
    return status;
}

/* ---- The body ---- */

/* Takes the head, or more of it, off the piece. 0, or the status to refuse it with. */
static int take_head(struct receive_request *r, struct lonely_span *piece)
{
    struct buf *head = &r->upload.request.collected;
    struct lonely_result result = { LONELY_E_TRUNCATED, r->head_needed };

    while (result.err == LONELY_E_TRUNCATED && piece->len > 0) {
        if (!request_collect_until(&r->upload.request, result.at, piece))
            return 503;
        if (head->len == result.at)
            result = lonely_stateless_parse(
                LONELY_STATELESS_RECEIVE, (struct lonely_span){ head->ptr, head->len }, &r->fields);
    }
    r->head_needed = result.at;
    r->parsed = result.err == LONELY_OK;
    return r->parsed || result.err == LONELY_E_TRUNCATED ? 0 : 400;
}

/* The head is known. false: the request is gone. */
static bool begin(struct receive_request *r)
{
    int status = check(r);

    return !answer_early(r, status) &&
           upload_begin_message(&r->upload, status, r->fields.message_len);
}

static void on_piece(void *arg, struct lonely_span piece)
{
    struct receive_request *r = arg;

    if (!r->parsed) {
        int status = take_head(r, &piece);

        if (status != 0) {
            request_end(&r->upload.request, status);
            return;
        }
        if (!r->parsed || !begin(r))
            return;
    }
    upload_add_message(&r->upload, piece);
}

/* Of several headers as if they were one: the last element counts. */
static bool read_digest(const struct http_head *head, uint8_t sha512[LONELY_SHA512_BYTES])
{
    static const char name[] = "Repr-Digest";
    enum lonely_error err = LONELY_E_HEADER_MISSING;

    for (size_t i = 0; i < head->header_count; i++) {
        const struct http_header *h = &head->headers[i];
        enum lonely_error next;

        if (h->name.len != sizeof(name) - 1 ||
            strncasecmp((const char *)h->name.ptr, name, h->name.len) != 0)
            continue;
        next = lonely_repr_digest_parse(h->value, sha512);
        if (next != LONELY_E_HEADER_MISSING)
            err = next;
    }
    return err == LONELY_OK;
}

static bool is_from_lonelypss(const struct http_head *head)
{
    static const char product[] = "lonelypss/";
    const struct http_header *agent = http_head_find(head, "User-Agent");

    return agent != NULL && agent->value.len >= sizeof(product) - 1 &&
           memcmp(agent->value.ptr, product, sizeof(product) - 1) == 0;
}

void route_receive(struct worker *w, struct http_exchange *x, const struct route *route)
{
    static const struct http_body_ops ops = { on_piece, on_end, request_on_abort };
    struct receive_request *r = request_create(w, x, route, sizeof(*r));
    const struct forwarding *f = w->b->forwarding;

    r->upload.request.release = release;
    r->head_needed = 1;
    if (read_digest(&x->head, r->sha512) && f != NULL &&
        own_urls_is(x, forwarding_url(f), w->b->tls == NULL)) {
        r->from_lonelypss = is_from_lonelypss(&x->head);
        http_exchange_read_body(x, &ops, r);
    } else {
        unsubscribe(r, NOBODY_WANTS_IT);
    }
}
