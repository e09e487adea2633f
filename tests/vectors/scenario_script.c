/*
 * The outside of the broadcaster under test (scenario.h): randomness, subscribers, and what is unavailable.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <lonely/stateless.h>

#include "base64.h"
#include "mem.h"
#include "outbox.h"
#include "scenario.h"
#include "tables.h"
#include "worker.h"

struct script script;

void script_reset(void)
{
    script.calls = NULL;
    memset(script.made, 0, sizeof(script.made));
    script.unplanned = script.wrong = 0;
    script.n_identifiers = script.n_nonces = 0;
    script.identifiers_drawn = script.nonces_drawn = 0;
}

static void complain(size_t *count, const char *what, const char *about)
{
    if (script.wrong + script.unplanned == 0)
        snprintf(script.what, sizeof(script.what), "%s: %s", what, about);
    ++*count;
}

/* ---- Randomness ---- */

void __wrap_worker_random(struct worker *w, uint8_t *to, size_t len);
void __wrap_worker_random(struct worker *w, uint8_t *to, size_t len)
{
    (void)w;
    memset(to, 0, len);
    if (len == 8 && script.identifiers_drawn < script.n_identifiers)
        memcpy(to, script.identifiers[script.identifiers_drawn++], len);
    else if (len == 4 && script.nonces_drawn < script.n_nonces)
        memcpy(to, script.nonces[script.nonces_drawn++], len);
}

static void draw(void *arg, uint8_t *to, size_t len)
{
    __wrap_worker_random(arg, to, len);
}

/* Nonces are drawn within worker.c, where worker_random cannot be replaced. */
struct gate *__real_gate_create(const struct gate_conf *conf);
struct gate *__wrap_gate_create(const struct gate_conf *conf);
struct gate *__wrap_gate_create(const struct gate_conf *conf)
{
    struct gate_conf scripted = *conf;

    scripted.random = draw;
    return __real_gate_create(&scripted);
}

void script_plan_nonce(const char *authorization)
{
    const char *nonce;

    if (authorization == NULL || strncmp(authorization, "X-HMAC ", 7) != 0)
        return;
    nonce = strchr(authorization, ':') + 1;
    assert_true(script.n_nonces < SCRIPT_DRAWS_MAX);
    assert_int_equal(
        base64_decode_lenient((struct lonely_span){ (const uint8_t *)nonce, strcspn(nonce, ":") },
                              script.nonces[script.n_nonces++], 4),
        4);
}

/* ---- Authorization that cannot be checked ---- */

static bool is_unavailable(bool as_subscriber)
{
    return as_subscriber ? script.unavailable_to_subscriber : script.unavailable_to_broadcaster;
}

bool __real_gate_asks(struct gate *g, bool as_subscriber);
bool __wrap_gate_asks(struct gate *g, bool as_subscriber);
bool __wrap_gate_asks(struct gate *g, bool as_subscriber)
{
    return is_unavailable(as_subscriber) || __real_gate_asks(g, as_subscriber);
}

enum lonely_auth_result __real_gate_check(struct gate *g, const struct lonely_auth_input *in,
                                          const struct lonely_span *authorization,
                                          struct gate_wait **wait, gate_done_fn *done, void *arg);
enum lonely_auth_result __wrap_gate_check(struct gate *g, const struct lonely_auth_input *in,
                                          const struct lonely_span *authorization,
                                          struct gate_wait **wait, gate_done_fn *done, void *arg);
enum lonely_auth_result __wrap_gate_check(struct gate *g, const struct lonely_auth_input *in,
                                          const struct lonely_span *authorization,
                                          struct gate_wait **wait, gate_done_fn *done, void *arg)
{
    *wait = NULL;
    if (is_unavailable(in->op == LONELY_AUTH_RECEIVE || in->op == LONELY_AUTH_MISSED))
        return LONELY_AUTH_UNAVAILABLE;
    return __real_gate_check(g, in, authorization, wait, done, arg);
}

/* ---- The store that is down ---- */

struct later {
    uv_timer_t timer;
    void (*run)(struct later *l);
    store_done_fn *done;
    store_etag_fn *etag;
    void *arg;
    struct outbox_post *post;
    struct vec_bytes reply;
    int http_status;
};

static void on_later_closed(uv_handle_t *handle)
{
    mem_free(handle->data);
}

static void on_later(uv_timer_t *timer)
{
    struct later *l = timer->data;

    l->run(l);
    uv_close((uv_handle_t *)timer, on_later_closed);
}

/* Runs in a turn of its own, as the contracts promise. */
static struct later *later(void (*run)(struct later *l))
{
    struct later *l = mem_calloc(1, sizeof(*l));

    l->run = run;
    uv_timer_init(script.loop, &l->timer);
    l->timer.data = l;
    uv_timer_start(&l->timer, on_later, 0, 0);
    return l;
}

static void say_unavailable(struct later *l)
{
    if (l->etag != NULL)
        l->etag(l->arg, STORE_UNAVAILABLE, NULL);
    else
        l->done(l->arg, STORE_UNAVAILABLE);
}

static enum store_status down_sync(struct store_client *c, store_done_fn *done, void *arg)
{
    (void)c, (void)done, (void)arg;
    return STORE_UNAVAILABLE;
}

static void down_write(struct store_client *c, const struct store_row *row, store_done_fn *done,
                       void *arg)
{
    struct later *l = later(say_unavailable);

    (void)c, (void)row;
    l->done = done;
    l->arg = arg;
}

static void down_set(struct store_client *c, struct lonely_span url, const struct store_list *list,
                     store_done_fn *done, void *arg)
{
    (void)url, (void)list;
    down_write(c, NULL, done, arg);
}

static void down_check(struct store_client *c, struct lonely_span url, store_etag_fn *done,
                       void *arg)
{
    struct later *l = later(say_unavailable);

    (void)c, (void)url;
    l->etag = done;
    l->arg = arg;
}

void script_take_store_down(struct store_ops *ops)
{
    ops->sync = down_sync;
    ops->subscribe = ops->unsubscribe = down_write;
    ops->set = down_set;
    ops->check = down_check;
}

/* ---- The scripted subscriber ---- */

static void reply_to_post(struct later *l)
{
    const struct http_reply reply = {
        .status = l->reply.ptr != NULL ? HTTP_CALL_REPLIED : HTTP_CALL_CONNECT,
        .http_status = l->http_status,
        .body = { l->reply.ptr, l->reply.len },
        .detail = "scripted",
    };
    struct vec_bytes bytes = l->reply;

    l->post->ops->done(l->post, &reply);
    if (bytes.ptr != NULL)
        vec_bytes_free(&bytes);
}

/* The whole body that is posted, on the heap. */
static struct lonely_span body_of(const struct http_call_request *request)
{
    uint64_t rest = request->source != NULL ? request->source->size : 0;
    uint8_t *body = mem_alloc(request->prefix.len + rest);
    size_t at = request->prefix.len;

    memcpy(body, request->prefix.ptr, at);
    while (at < request->prefix.len + rest) {
        ptrdiff_t n = request->source->read(request->source->arg, at - request->prefix.len,
                                            body + at, request->prefix.len + rest - at);
        table_require(n > 0, "a body in memory");
        at += (size_t)n;
    }
    return (struct lonely_span){ body, at };
}

/* Are they these, but for Content-Length, which is libcurl's? */
static bool headers_are(const struct http_call_request *request, json_t *headers)
{
    size_t found = 0, expected = json_object_size(headers) -
                                 (json_object_get(headers, "Content-Length") != NULL ? 1 : 0);
    const char *name;
    json_t *value;

    json_object_foreach(headers, name, value)
    {
        char line[512];

        snprintf(line, sizeof(line), "%s: %s", name, json_string_value(value));
        for (size_t i = 0; i < request->header_count; i++)
            found += strcmp(request->headers[i], line) == 0;
    }
    return found == expected && request->header_count == expected;
}

/* The planned call to that url which has not been made. */
static json_t *planned_call(const char *url)
{
    for (size_t i = 0; i < json_array_size(script.calls); i++) {
        json_t *call = json_array_get(script.calls, i);

        if (!script.made[i] && strcmp(vec_str(call, "url"), url) == 0) {
            script.made[i] = true;
            return call;
        }
    }
    return NULL;
}

/* Identifiers were drawn in the order of the calls; when another url got this one, the reply echoes it. */
static void echo(struct vec_bytes *reply, json_t *call, struct lonely_span body)
{
    struct vec_bytes planned = vec_get_bytes(vec_get(call, "decoded"), "identifier_hex");
    struct lonely_stateless fields;

    if (lonely_stateless_parse(LONELY_STATELESS_RECEIVE, body, &fields).err != LONELY_OK ||
        fields.identifier.len != planned.len)
        complain(&script.wrong, "identifier", vec_str(call, "url"));
    else
        for (size_t i = 0; i + planned.len <= reply->len; i++)
            if (memcmp(reply->ptr + i, planned.ptr, planned.len) == 0)
                memcpy(reply->ptr + i, fields.identifier.ptr, planned.len);
    vec_bytes_free(&planned);
}

static bool body_is(json_t *call, struct lonely_span body)
{
    struct vec_bytes wanted = vec_get_bytes(call, "body_hex");
    struct vec_bytes own = vec_get_bytes(call, "body_hex");
    struct lonely_stateless a = { 0 }, b = { 0 };
    bool same;

    /* The same but for the identifier. */
    same = wanted.len == body.len &&
           lonely_stateless_parse(LONELY_STATELESS_RECEIVE, vec_span(&own), &a).err == LONELY_OK &&
           lonely_stateless_parse(LONELY_STATELESS_RECEIVE, body, &b).err == LONELY_OK &&
           a.identifier.len == b.identifier.len;
    if (same) {
        memcpy(own.ptr + (a.identifier.ptr - own.ptr), b.identifier.ptr, b.identifier.len);
        same = memcmp(own.ptr, body.ptr, body.len) == 0;
    }
    vec_bytes_free(&wanted);
    vec_bytes_free(&own);
    return same;
}

static void check_missed(const char *url, const struct http_call_request *request,
                         struct lonely_span body)
{
    struct vec_bytes wanted = vec_get_bytes(script.missed, "body_hex");

    if (strcmp(url, vec_str(script.missed, "recovery")) != 0)
        complain(&script.wrong, "recovery", url);
    if (!headers_are(request, vec_get(script.missed, "headers")))
        complain(&script.wrong, "headers", url);
    if (wanted.len != body.len || memcmp(wanted.ptr, body.ptr, body.len) != 0)
        complain(&script.wrong, "body", url);
    vec_bytes_free(&wanted);
    uv_sem_post(&script.called);
}

void __wrap_outbox_add(struct outbox *outbox, struct outbox_post *post);
void __wrap_outbox_add(struct outbox *outbox, struct outbox_post *post)
{
    struct http_call_request request = { .url = post->url };
    struct later *l = later(reply_to_post);
    struct lonely_span body;
    json_t *call;

    (void)outbox;
    l->post = post;
    if (!post->ops->start(post, &request)) {
        complain(&script.wrong, "not to be posted", post->url);
        return;
    }
    body = body_of(&request);
    if (script.missed != NULL) {
        check_missed(post->url, &request, body);
        mem_free((void *)(uintptr_t)body.ptr);
        return;
    }
    call = planned_call(post->url);
    if (call == NULL) {
        complain(&script.unplanned, "unplanned call", post->url);
    } else {
        json_t *reply = vec_get(call, "reply");

        if (!headers_are(&request, vec_get(call, "headers")))
            complain(&script.wrong, "headers", post->url);
        if (!body_is(call, body))
            complain(&script.wrong, "body", post->url);
        if (!vec_has(reply, "error")) {
            l->reply = vec_get_bytes(reply, "body_hex");
            l->http_status = (int)vec_u64(reply, "status");
            echo(&l->reply, call, body);
        }
    }
    mem_free((void *)(uintptr_t)body.ptr);
}
