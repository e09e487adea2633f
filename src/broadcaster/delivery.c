/*
 * One RECEIVE over HTTP: head, body source, reply. Queued by outbox.c; called by hub.c, which acts on
 * the outcome.
 */
#include <string.h>

#include "delivery.h"
#include "log.h"
#include "mem.h"

/* What of a spooled body is not at hand is read in the thread pool, so much at a time: less when many
 * deliveries read at once, so that all their chunks together stay near CHUNKS_BYTES a worker. */
#define CHUNK_MAX_BYTES ((size_t)256 * 1024)
#define CHUNK_MIN_BYTES ((size_t)16 * 1024)
#define CHUNKS_BYTES    ((size_t)16 * 1024 * 1024)

/* The part of a spooled body that is at hand. Outlives its delivery while the pool reads into it. */
struct chunk {
    uv_work_t work;
    struct delivery *delivery; /* NULL: gone meanwhile */
    struct worker *worker;
    struct body *body;
    uint64_t at;
    ptrdiff_t len; /* negative: could not be read */
    bool reading;
    size_t cap; /* of `bytes` */
    uint8_t *bytes;
};

#define IDENTIFIER_BYTES 8

struct delivery {
    struct outbox_post post; /* first: the outbox hands it back */
    struct worker *worker;
    const struct delivery_message *message;
    struct subscription *subscription;
    uint64_t queued_ns; /* monotonic */
    delivery_done_fn *done;
    void *arg;
    struct http_source source;
    struct chunk *chunk; /* spooled body only */
    const char *headers[3];
    char *authorization;          /* the header line; NULL: none */
    uint8_t *head;                /* up to and including the length of the message */
    enum http_call_status status; /* how the call ended */
    uint32_t count;               /* of a reply whose authorization is being checked */
};

static void chunk_release(struct chunk *c)
{
    c->worker->chunks--;
    body_unref(c->body);
    mem_free(c->bytes);
    mem_free(c);
}

static void read_in_pool(uv_work_t *work)
{
    struct chunk *c = work->data;

    c->len = body_pread(c->body, c->at, c->bytes, c->cap);
}

static void on_chunk_read(uv_work_t *work, int status)
{
    struct chunk *c = work->data;
    struct worker *w = c->worker;

    (void)status; /* never cancelled */
    c->reading = false;
    if (c->len == 0)
        c->len = -1; /* the file is shorter than it was: not to be asked for again and again */
    if (c->delivery != NULL)
        outbox_resume(&c->delivery->post);
    else
        chunk_release(c);
    worker_release(w);
}

/* Fits the buffer to the number of deliveries that read at once. */
static void chunk_resize(struct chunk *c)
{
    size_t cap = CHUNKS_BYTES / c->worker->chunks;

    cap = cap > CHUNK_MAX_BYTES ? CHUNK_MAX_BYTES : cap < CHUNK_MIN_BYTES ? CHUNK_MIN_BYTES : cap;
    if (cap == c->cap)
        return;
    mem_free(c->bytes);
    c->bytes = mem_alloc(cap);
    c->cap = cap;
}

/* Asks the pool for the chunk that begins at `at`. */
static ptrdiff_t chunk_fetch(struct delivery *d, uint64_t at)
{
    struct chunk *c = d->chunk;

    if (c->reading)
        return HTTP_SOURCE_WAIT;
    chunk_resize(c);
    c->at = at;
    c->len = 0;
    if (uv_queue_work(&d->worker->loop, &c->work, read_in_pool, on_chunk_read) != 0)
        return HTTP_SOURCE_FAIL;
    c->reading = true;
    worker_hold(d->worker);
    return HTTP_SOURCE_WAIT;
}

static ptrdiff_t read_spooled(void *arg, uint64_t at, uint8_t *to, size_t len)
{
    struct delivery *d = arg;
    struct chunk *c = d->chunk;
    uint64_t have;

    if (c->len < 0)
        return HTTP_SOURCE_FAIL;
    if (c->reading || at < c->at || at - c->at >= (uint64_t)c->len)
        return chunk_fetch(d, at);
    have = (uint64_t)c->len - (at - c->at);
    if (have < len)
        len = (size_t)have;
    memcpy(to, c->bytes + (at - c->at), len);
    return (ptrdiff_t)len;
}

/* What is in the page cache is sent out of it; what is not is read by the pool first, and is then. A
 * piece that leaves the cache in between makes the loop wait for the disk, once. */
static ptrdiff_t look_spooled(void *arg, uint64_t at, struct http_piece *piece)
{
    struct delivery *d = arg;
    struct chunk *c = d->chunk;
    uint64_t left = body_size(c->body) - at;

    if (c->len < 0)
        return HTTP_SOURCE_FAIL;
    if (c->reading)
        return HTTP_SOURCE_WAIT;
    *piece = (struct http_piece){ .fd = body_fd(c->body) };
    if (at >= c->at && at - c->at < (uint64_t)c->len)
        return c->len - (ptrdiff_t)(at - c->at);
    if (left > CHUNK_MAX_BYTES)
        left = CHUNK_MAX_BYTES;
    return body_is_cached(c->body, at, (size_t)left) ? (ptrdiff_t)left : chunk_fetch(d, at);
}

static ptrdiff_t read_memory(void *arg, uint64_t at, uint8_t *to, size_t len)
{
    const struct delivery *d = arg;
    struct lonely_span bytes = body_span(d->message->body);

    if (len > bytes.len - (size_t)at)
        len = bytes.len - (size_t)at;
    memcpy(to, bytes.ptr + at, len);
    return (ptrdiff_t)len;
}

static ptrdiff_t look_memory(void *arg, uint64_t at, struct http_piece *piece)
{
    const struct delivery *d = arg;
    struct lonely_span bytes = body_span(d->message->body);

    *piece = (struct http_piece){ .ptr = bytes.ptr + at, .fd = -1 };
    return (ptrdiff_t)(bytes.len - (size_t)at);
}

static void source_init(struct delivery *d)
{
    struct body *body = d->message->body;

    d->source = (struct http_source){
        .size = body_size(body), .read = read_memory, .look = look_memory, .arg = d
    };
    if (body_in_memory(body))
        return;
    d->source.read = read_spooled;
    d->source.look = look_spooled;
    d->chunk = mem_calloc(1, sizeof(*d->chunk));
    d->chunk->work.data = d->chunk;
    d->chunk->delivery = d;
    d->chunk->worker = d->worker;
    d->chunk->body = body;
    d->worker->chunks++;
    body_ref(body);
}

/* Signed anew for each post, over the url as it is stored. */
static bool sign(struct delivery *d, struct lonely_span identifier)
{
    const struct index_url *url = d->subscription->url;
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_RECEIVE,
        .url = { (const uint8_t *)url->text, url->len },
        .topic = d->message->topic,
        .identifier = identifier,
        .hash = { body_sha512(d->message->body), LONELY_SHA512_BYTES },
    };

    return gate_header(d->worker->gate, &in, &d->authorization);
}

static bool on_start(struct outbox_post *post, struct http_call_request *request)
{
    struct delivery *d = (struct delivery *)post;
    uint8_t identifier[IDENTIFIER_BYTES];
    struct lonely_stateless head = {
        .topic = d->message->topic,
        .identifier = { identifier, sizeof(identifier) },
        .message_len = body_size(d->message->body),
    };
    size_t len = lonely_stateless_write(LONELY_STATELESS_RECEIVE, &head, NULL, 0).at;

    worker_random(d->worker, identifier, sizeof(identifier));
    d->head = mem_alloc(len);
    if (lonely_stateless_write(LONELY_STATELESS_RECEIVE, &head, d->head, len).err != LONELY_OK ||
        !sign(d, head.identifier))
        return false;
    source_init(d);
    d->headers[0] = "Content-Type: application/octet-stream";
    d->headers[1] = d->message->repr_digest;
    d->headers[2] = d->authorization;
    request->headers = d->headers;
    request->header_count = d->authorization != NULL ? 3 : 2;
    request->prefix = (struct lonely_span){ d->head, len };
    request->source = &d->source;
    return true;
}

static void delivery_free(struct delivery *d)
{
    if (d->chunk != NULL) {
        d->chunk->delivery = NULL;
        if (!d->chunk->reading)
            chunk_release(d->chunk);
    }
    gate_header_free(d->authorization);
    mem_free(d->head);
    mem_free(d);
}

static void log_failure(const struct delivery *d, int http_status, const char *reason)
{
    const struct index_url *url = d->subscription->url;

    log_warn_limited(d->worker->b->log, "delivery_failed", LOG_URL("url", url->text, url->len),
                     LOG_SPAN("topic", d->message->topic.ptr, d->message->topic.len),
                     LOG_I64("status", http_status), LOG_STR("reason", reason), LOG_END);
}

static void count(const struct delivery *d, enum delivery_outcome outcome)
{
    struct metrics *m = d->worker->metrics;
    enum metrics_delivery metric = metrics_delivery_of(d->status);

    if (outcome == DELIVERY_CONFIRMED)
        metric = METRICS_DELIVERY_CONFIRMED;
    else if (outcome == DELIVERY_UNSUBSCRIBE)
        metric = METRICS_DELIVERY_UNSUBSCRIBED;
    metrics_add(&m->deliveries[metric], 1);
    metrics_observe(&m->delivery_time, clock_mono_ns(d->worker->b->clock) - d->queued_ns);
}

static void conclude(struct delivery *d, enum delivery_outcome outcome)
{
    struct subscription *s = d->subscription;
    delivery_done_fn *done = d->done;
    void *arg = d->arg;
    uint32_t notified = outcome == DELIVERY_CONFIRMED ? d->count : 0;

    count(d, outcome);
    delivery_free(d);
    done(arg, s, outcome, notified);
    subscription_unref(s);
}

static void on_checked(void *arg, enum lonely_auth_result result)
{
    static const char *const reasons[] = {
        [LONELY_AUTH_UNAUTHORIZED] = "the reply lacks its authorization",
        [LONELY_AUTH_FORBIDDEN] = "the authorization of the reply is wrong",
        [LONELY_AUTH_UNAVAILABLE] = "the authorization of the reply cannot be checked",
    };
    struct delivery *d = arg;

    if (result != LONELY_AUTH_OK)
        log_failure(d, 0, reasons[result]);
    conclude(d, result == LONELY_AUTH_OK ? DELIVERY_CONFIRMED : DELIVERY_FAILED);
}

/* Checked over what the reply echoes, and the url as it is stored. (doc/protocol/http.md, 3) */
static void check_confirmation(struct delivery *d, const struct lonely_stateless *reply)
{
    const struct index_url *url = d->subscription->url;
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_CONFIRM_RECEIVE,
        .tracing = reply->tracing,
        .identifier = reply->identifier,
        .subscribers = reply->count,
        .url = { (const uint8_t *)url->text, url->len },
    };
    struct gate_wait *wait;
    enum lonely_auth_result result;

    d->count = reply->count;
    result = gate_check(d->worker->gate, &in, lonely_auth_field(&reply->authorization), &wait,
                        on_checked, d);
    if (wait == NULL)
        on_checked(d, result);
}

/* What a subscriber's reply means; its HTTP status is not looked at. (doc/protocol/http.md, 3) */
static void judge(struct delivery *d, const struct http_reply *reply)
{
    struct lonely_stateless body;

    if (lonely_stateless_parse(LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE, reply->body, &body).err ==
        LONELY_OK) {
        check_confirmation(d, &body);
    } else if (lonely_stateless_parse(LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE, reply->body,
                                      &body)
                   .err == LONELY_OK) {
        conclude(d, DELIVERY_UNSUBSCRIBE);
    } else {
        log_failure(d, reply->http_status, "the reply confirms nothing");
        conclude(d, DELIVERY_FAILED);
    }
}

static void on_done(struct outbox_post *post, const struct http_reply *reply)
{
    struct delivery *d = (struct delivery *)post;

    d->status = reply->status;
    if (reply->status == HTTP_CALL_REPLIED) {
        judge(d, reply);
    } else if (reply->status == HTTP_CALL_CANCELLED) {
        conclude(d, DELIVERY_CANCELLED);
    } else {
        log_failure(d, reply->http_status, reply->detail);
        conclude(d, DELIVERY_FAILED);
    }
}

void delivery_start(struct worker *w, const struct delivery_message *message,
                    struct subscription *s, delivery_done_fn *done, void *arg)
{
    static const struct outbox_post_ops ops = { .start = on_start, .done = on_done };
    struct delivery *d = mem_calloc(1, sizeof(*d));

    d->post.ops = &ops;
    d->post.url = s->url->text;
    d->post.url_len = s->url->len;
    d->worker = w;
    d->message = message;
    d->subscription = s;
    d->queued_ns = clock_mono_ns(w->b->clock);
    d->done = done;
    d->arg = arg;
    subscription_ref(s);
    outbox_add(w->outbox, &d->post);
}
