/*
 * Requests of broadcasters (receiver.h): the head is collected until it parses, the message goes on into an
 * `incoming`; it is confirmed once it lies in the queues of those who want it. Called by the HTTP server
 * of link_http.c.
 *
 * A wrong hash, length or authorization is answered without UNSUBSCRIBE_IMMEDIATE: it is no wish to
 * unsubscribe. (http.md, Q29)
 */
#include "receiver.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <lonely/stateless.h>

#include "buf.h"
#include "mem.h"

struct receiver {
    struct lonely_client *client;
    char *urls[2][2]; /* of receive and recover: as registered, and without fragment or NULL */
    struct list full; /* call.node: whose message waits for room */
    bool stopped;
};

enum { RECEIVE, RECOVER };

/* One request under way. */
struct call {
    struct receiver *receiver;
    struct http_exchange *exchange;
    int kind;
    struct list node;
    struct buf head;    /* its fields, as far as they have come */
    size_t head_needed; /* bytes with which to try again */
    bool parsed;
    struct lonely_stateless fields; /* spans into `head` */
    uint8_t sha512[LONELY_SHA512_BYTES];
    struct lonely_span authorization; /* ptr NULL: absent */
    uint8_t *authorization_copy;
    const char *url; /* that was signed */
    struct incoming *incoming;
    struct lonely_delivery *delivery;
    uint64_t received;
};

static void call_free(struct call *call)
{
    list_remove(&call->node);
    incoming_abort(call->incoming);
    lonely_delivery_release(call->delivery);
    buf_fini(&call->head);
    mem_free(call->authorization_copy);
    mem_free(call);
}

static void answer(struct call *call, int status, struct lonely_span body)
{
    http_exchange_respond(call->exchange,
                          &(struct http_response){
                              .status = status,
                              .content_type = body.len > 0 ? "application/octet-stream" : NULL,
                              .body = body,
                          });
    call_free(call);
}

static void refuse(struct call *call, int status)
{
    answer(call, status, (struct lonely_span){ 0 });
}

/* ---- Authorization ---- */

static bool authorized_by(struct call *call, const char *url, enum lonely_auth_result *result)
{
    struct lonely_span text = { (const uint8_t *)url, strlen(url) };
    struct lonely_auth_input in = {
        .op = call->kind == RECEIVE ? LONELY_AUTH_RECEIVE : LONELY_AUTH_MISSED,
        .tracing = call->fields.tracing,
        .topic = call->fields.topic,
        .identifier = call->fields.identifier,
        .hash = { call->sha512, LONELY_SHA512_BYTES },
    };

    if (call->kind == RECEIVE)
        in.url = text;
    else
        in.recovery = text;
    call->url = url;
    *result = client_verify(call->receiver->client, &in,
                            call->authorization.ptr == NULL ? NULL : &call->authorization);
    return *result == LONELY_AUTH_OK;
}

/* Broadcasters sign the url as it is stored; some without its fragment. (http.md, Q13) */
static int check_authorization(struct call *call)
{
    enum lonely_auth_result result = LONELY_AUTH_FORBIDDEN;
    int status = 403;
    char why[128];

    for (int i = 0; i < 2; i++) {
        const char *url = call->receiver->urls[call->kind][i];

        if (url == NULL)
            continue;
        if (authorized_by(call, url, &result))
            return 0;
        if (result == LONELY_AUTH_UNAVAILABLE)
            status = 503;
    }
    snprintf(why, sizeof(why), "a broadcaster's message was refused: %s",
             lonely_auth_result_str(result));
    client_tell(call->receiver->client, LONELY_CLIENT_FORBIDDEN, why);
    return status;
}

/* Signs what confirms, and answers it. */
static void confirm(struct call *call)
{
    struct lonely_span url = { (const uint8_t *)call->url, strlen(call->url) };
    uint8_t authorization[LONELY_AUTH_MAX_BYTES];
    uint8_t reply[LONELY_AUTH_MAX_BYTES + LONELY_STATELESS_IDENTIFIER_MAX_BYTES + 64];
    struct lonely_stateless fields = { .identifier = call->fields.identifier, .count = 1 };
    struct lonely_auth_input in = { 0 };
    enum lonely_stateless_type type = LONELY_STATELESS_RESPONSE_CONFIRM_RECEIVE;
    struct lonely_result written;

    in.op = LONELY_AUTH_CONFIRM_RECEIVE;
    in.identifier = fields.identifier;
    in.subscribers = fields.count;
    in.url = url;
    if (call->kind == RECOVER) {
        in.op = LONELY_AUTH_CONFIRM_MISSED;
        in.topic = call->fields.topic;
        in.recovery = url;
        type = LONELY_STATELESS_RESPONSE_CONFIRM_MISSED;
    }
    if (!client_sign(call->receiver->client, &in, authorization, &fields.authorization)) {
        refuse(call, 500);
        return;
    }
    written = lonely_stateless_write(type, &fields, reply, sizeof(reply));
    if (written.err == LONELY_OK)
        answer(call, 200, (struct lonely_span){ reply, written.at });
    else
        refuse(call, 500);
}

/* ---- The message ---- */

static void deliver(struct call *call)
{
    client_deliver(call->receiver->client, call->delivery);
    confirm(call);
}

static void on_receive_end(struct call *call)
{
    struct receiver *r = call->receiver;
    struct lonely_delivery *d;

    if (call->received != call->fields.message_len) {
        refuse(call, 400);
        return;
    }
    d = incoming_finish(call->incoming);
    call->incoming = NULL;
    if (d == NULL) {
        client_lost_one(r->client, call->fields.topic);
        refuse(call, 507);
        return;
    }
    call->delivery = d;
    if (memcmp(d->sha512, call->sha512, sizeof(call->sha512)) != 0)
        refuse(call, 403);
    else if (!client_has_room(r->client))
        list_push_back(&r->full, &call->node);
    else
        deliver(call);
}

static void add_message(struct call *call, struct lonely_span bytes)
{
    if (bytes.len > call->fields.message_len - call->received) {
        refuse(call, 400);
        return;
    }
    call->received += bytes.len;
    if (bytes.len > 0 && !incoming_add(call->incoming, bytes)) {
        client_lost_one(call->receiver->client, call->fields.topic);
        refuse(call, 507);
    }
}

static void on_missed_end(struct call *call)
{
    client_missed(call->receiver->client, call->fields.topic);
    confirm(call);
}

/* ---- Input ---- */

/* The fields are complete; `rest` is of the message. */
static void on_fields(struct call *call, struct lonely_span rest)
{
    int status = check_authorization(call);

    call->parsed = true;
    if (status == 503)
        client_gap(call->receiver->client); /* what this was about is not known (session.md, 8) */
    if (status != 0) {
        refuse(call, status);
        return;
    }
    if (call->kind == RECOVER)
        return;
    call->incoming =
        incoming_begin(call->receiver->client, call->fields.topic, call->fields.message_len);
    if (call->incoming == NULL)
        refuse(call, 503);
    else
        add_message(call, rest);
}

static enum lonely_stateless_type type_of(const struct call *call)
{
    return call->kind == RECEIVE ? LONELY_STATELESS_RECEIVE : LONELY_STATELESS_MISSED;
}

static void on_piece(void *arg, struct lonely_span piece)
{
    struct call *call = arg;
    struct lonely_result parsed;
    struct lonely_span head;

    if (call->parsed) {
        if (call->kind == RECEIVE)
            add_message(call, piece);
        return;
    }
    if (!buf_append(&call->head, piece.ptr, piece.len)) {
        refuse(call, 503);
        return;
    }
    if (call->head.len < call->head_needed)
        return;
    head = (struct lonely_span){ call->head.ptr, call->head.len };
    parsed = lonely_stateless_parse(type_of(call), head, &call->fields);
    if (parsed.err == LONELY_OK)
        on_fields(call, (struct lonely_span){ head.ptr + parsed.at, head.len - parsed.at });
    else if (parsed.err == LONELY_E_TRUNCATED)
        call->head_needed = parsed.at;
    else
        refuse(call, 400);
}

static void on_end(void *arg)
{
    struct call *call = arg;

    if (!call->parsed)
        refuse(call, 400);
    else if (call->kind == RECEIVE)
        on_receive_end(call);
    else
        on_missed_end(call);
}

static void on_abort(void *arg)
{
    call_free(arg);
}

static bool span_is(struct lonely_span span, const char *text)
{
    return span.len == strlen(text) && memcmp(span.ptr, text, span.len) == 0;
}

static int kind_of(struct lonely_span target)
{
    const uint8_t *query = memchr(target.ptr, '?', target.len);

    if (query != NULL)
        target.len = (size_t)(query - target.ptr);
    return span_is(target, "/v1/receive") ? RECEIVE : span_is(target, "/v1/recover") ? RECOVER : -1;
}

/* All headers of that name are one list. */
static bool read_digest(const struct http_head *head, uint8_t sha512[LONELY_SHA512_BYTES])
{
    struct buf list;
    bool good;

    buf_init(&list, 65536);
    for (size_t i = 0; i < head->header_count; i++) {
        const struct http_header *h = &head->headers[i];

        if (h->name.len == 11 && strncasecmp((const char *)h->name.ptr, "Repr-Digest", 11) == 0) {
            buf_append_byte(&list, ',');
            buf_append(&list, h->value.ptr, h->value.len);
        }
    }
    good = list.len > 0 &&
           lonely_repr_digest_parse((struct lonely_span){ list.ptr + 1, list.len - 1 }, sha512) ==
               LONELY_OK;
    buf_fini(&list);
    return good;
}

static struct call *call_create(struct receiver *r, struct http_exchange *x, int kind)
{
    const struct http_header *h = http_head_find(&x->head, "Authorization");
    struct call *call = mem_calloc(1, sizeof(*call));

    call->receiver = r;
    call->exchange = x;
    call->kind = kind;
    list_init(&call->node);
    /* A piece of the message may come along with the fields. */
    buf_init(&call->head, LONELY_STATELESS_RECEIVE_MAX_BYTES + ((size_t)1 << 20));
    if (h != NULL) {
        call->authorization_copy = mem_alloc(h->value.len + 1);
        if (h->value.len > 0)
            memcpy(call->authorization_copy, h->value.ptr, h->value.len);
        call->authorization = (struct lonely_span){ call->authorization_copy, h->value.len };
    }
    return call;
}

static void refuse_head(struct http_exchange *x, int status, const char *type, const char *body,
                        size_t len)
{
    http_exchange_respond(x, &(struct http_response){
                                 .status = status,
                                 .content_type = type,
                                 .headers = status == 405 ? "Allow: POST\r\n" : NULL,
                                 .body = { (const uint8_t *)body, len },
                             });
}

void receiver_on_request(void *app, struct http_exchange *x)
{
    static const struct http_body_ops body_ops = {
        .on_piece = on_piece,
        .on_end = on_end,
        .on_abort = on_abort,
    };
    static const char unsubscribe[] = { 0, LONELY_STATELESS_RESPONSE_UNSUBSCRIBE_IMMEDIATE };
    static const char unknown[] = "{\"detail\":\"Not Found\"}";
    static const char method[] = "{\"detail\":\"Method Not Allowed\"}";
    struct receiver *r = app;
    int kind = kind_of(x->head.target);
    uint8_t sha512[LONELY_SHA512_BYTES] = { 0 };
    struct call *call;

    if (kind < 0) {
        refuse_head(x, 404, "application/json", unknown, sizeof(unknown) - 1);
    } else if (!span_is(x->head.method, "POST")) {
        refuse_head(x, 405, "application/json", method, sizeof(method) - 1);
    } else if (r->stopped) {
        refuse_head(x, 503, NULL, NULL, 0);
    } else if (kind == RECEIVE && !read_digest(&x->head, sha512)) {
        refuse_head(x, 400, "application/octet-stream", unsubscribe, sizeof(unsubscribe));
    } else {
        call = call_create(r, x, kind);
        memcpy(call->sha512, sha512, sizeof(sha512));
        http_exchange_read_body(x, &body_ops, call);
    }
}

/* ---- Life ---- */

void receiver_stop(struct receiver *r)
{
    struct list *node;

    r->stopped = true;
    while ((node = list_pop_front(&r->full)) != NULL)
        refuse(list_entry(node, struct call, node), 503);
}

void receiver_room_again(struct receiver *r)
{
    struct list *node;

    while (client_has_room(r->client) && (node = list_pop_front(&r->full)) != NULL)
        deliver(list_entry(node, struct call, node));
}

static void set_url(char *urls[2], const char *url)
{
    size_t len = strcspn(url, "#");

    urls[0] = mem_strdup(url);
    urls[1] = NULL;
    if (url[len] == '#') {
        urls[1] = mem_strdup(url);
        urls[1][len] = '\0';
    }
}

struct receiver *receiver_create(struct lonely_client *c)
{
    struct receiver *r = mem_calloc(1, sizeof(*r));

    r->client = c;
    list_init(&r->full);
    return r;
}

void receiver_set_urls(struct receiver *r, const char *receive, const char *recover)
{
    set_url(r->urls[RECEIVE], receive);
    set_url(r->urls[RECOVER], recover);
}

void receiver_destroy(struct receiver *r)
{
    for (int kind = RECEIVE; kind <= RECOVER; kind++) {
        mem_free(r->urls[kind][0]);
        mem_free(r->urls[kind][1]);
    }
    mem_free(r);
}
