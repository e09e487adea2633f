/*
 * POSTs of one loop by libcurl's multi interface, driven by its socket callbacks; most of those to plain
 * http:// go over its connections by http_direct.c. Called by whoever delivers (webhooks, rqlite);
 * which calls are made, and how many at once, is left to them, and the rules about addresses to
 * conf.allow_address.
 *
 * All waits are timed here, by one timer a client: libcurl knows neither one attempt to connect nor
 * the silence of a peer, and after a stop of the process it would blame the peers. Each wait has a
 * constant length, so that a list in order of time is all that is needed.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "deadline.h"
#include "http_direct.h"
#include "mem.h"
#include "tls.h"

enum {
    POOLED_CALLS_MAX = 256,       /* idle easy handles kept: about 6 KiB each */
    POOLED_REPLY_BYTES_MAX = 4096 /* buffer for the reply kept with them */
};

/* Keeps the first trouble: later ones follow from it. */
void http_call_trouble(struct http_call *call, enum http_call_status status, const char *reason)
{
    if (call->trouble != HTTP_CALL_REPLIED)
        return;
    call->trouble = status;
    call->reason = reason;
}

/* ---- time ---- */

/* Attempts to connect that took too long end here; libcurl then tries the next address. */
static void expire_attempts(struct http_client *client, uint64_t now_ms)
{
    uint64_t limit_ms = client->conf.timeout_sock_connect_ms;
    struct list *node;

    while ((node = list_first(&client->attempts)) != NULL) {
        struct http_sock *s = list_entry(node, struct http_sock, of_attempts);

        if (now_ms - s->opened_ms < limit_ms) {
            http_client_wake(client, s->opened_ms + limit_ms);
            return;
        }
        list_remove(node);
        if (s->call != NULL)
            s->call->attempt_expired = true;
        /* Resets a socket that is still connecting, ends the input of one in a TLS handshake. */
        shutdown(s->fd, SHUT_RDWR);
    }
}

static void expire_silent(struct http_client *client, uint64_t now_ms)
{
    uint64_t limit_ms = client->conf.timeout_sock_read_ms;
    struct list *node;
    char detail[80];

    while ((node = list_first(&client->silent)) != NULL) {
        struct http_call *call = list_entry(node, struct http_call, of_silent);

        if (now_ms - call->active_ms < limit_ms) {
            http_client_wake(client, call->active_ms + limit_ms);
            return;
        }
        snprintf(detail, sizeof detail, "no byte received or sent for %llu ms",
                 (unsigned long long)limit_ms);
        http_call_end(call, HTTP_CALL_TIMEOUT, detail);
    }
}

/* The times of whole calls and of connecting, in order as those above. */
static void expire_calls(struct http_client *client, uint64_t now_ms)
{
    uint64_t limit_ms = client->conf.timeout_total_ms;
    struct list *node;
    char detail[80];

    while (limit_ms != 0 && (node = list_first(&client->all)) != NULL) {
        struct http_call *call = list_entry(node, struct http_call, of_all);

        if (now_ms - call->started_ms < limit_ms) {
            http_client_wake(client, call->started_ms + limit_ms);
            return;
        }
        snprintf(detail, sizeof detail, "timed out after %llu ms", (unsigned long long)limit_ms);
        http_call_end(call, HTTP_CALL_TIMEOUT, detail);
    }
}

static void expire_connecting(struct http_client *client, uint64_t now_ms)
{
    uint64_t limit_ms = client->conf.timeout_connect_ms;
    struct list *node;
    char detail[80];

    while ((node = list_first(&client->connecting)) != NULL) {
        struct http_call *call = list_entry(node, struct http_call, of_connecting);

        if (now_ms - call->connect_ms < limit_ms) {
            http_client_wake(client, call->connect_ms + limit_ms);
            return;
        }
        snprintf(detail, sizeof detail, "connecting timed out after %llu ms",
                 (unsigned long long)limit_ms);
        http_call_end(call, HTTP_CALL_TIMEOUT, detail);
    }
}

/*
 * libcurl 7.88 prepares the next address when one fails, but neither opens its socket nor sets a
 * timer, and would wait for good. A change of pause is what makes it look at a call at once.
 */
static void retry_next_address(struct http_client *client)
{
    struct list *node;

    while ((node = list_pop_front(&client->retries)) != NULL) {
        struct http_call *call = list_entry(node, struct http_call, of_retries);

        curl_easy_pause(call->easy, CURLPAUSE_SEND);
        curl_easy_pause(call->easy, CURLPAUSE_CONT);
    }
}

static void on_own_timer(uv_timer_t *timer)
{
    struct http_client *client = timer->data;
    struct list *node;

    if (!client->polls_first && deadline_is_late(client->loop, client->own_due_ms)) {
        client->polls_first = true;
        uv_timer_start(timer, on_own_timer, DEADLINE_POLL_MS, 0);
        return;
    }
    client->polls_first = false;
    while ((node = list_first(&client->failed)) != NULL) {
        struct http_call *call = list_entry(node, struct http_call, of_client);

        http_call_end(call, call->trouble, call->reason);
    }
    retry_next_address(client);
    expire_attempts(client, uv_now(client->loop));
    expire_silent(client, uv_now(client->loop));
    expire_connecting(client, uv_now(client->loop));
    expire_calls(client, uv_now(client->loop));
}

/* The timer is never set too late; early is harmless, it then finds nothing due and is set again. */
void http_client_wake(struct http_client *client, uint64_t due_ms)
{
    uint64_t now_ms = uv_now(client->loop);

    if (due_ms < now_ms)
        due_ms = now_ms;
    if (uv_is_active((uv_handle_t *)&client->own_timer) &&
        (client->polls_first || client->own_due_ms <= due_ms))
        return;
    client->own_due_ms = due_ms;
    client->polls_first = false;
    uv_timer_start(&client->own_timer, on_own_timer, due_ms - now_ms, 0);
}

/* A byte came or went, or may from now on. */
void http_call_touch(struct http_call *call)
{
    struct http_client *client = call->client;

    if (client->conf.timeout_sock_read_ms == 0)
        return;
    call->active_ms = uv_now(client->loop);
    list_remove(&call->of_silent);
    list_push_back(&client->silent, &call->of_silent);
    http_client_wake(client, call->active_ms + client->conf.timeout_sock_read_ms);
}

void http_call_connecting(struct http_call *call)
{
    struct http_client *client = call->client;

    if (client->conf.timeout_connect_ms == 0 || list_is_linked(&call->of_connecting))
        return;
    call->connect_ms = uv_now(client->loop);
    list_push_back(&client->connecting, &call->of_connecting);
    http_client_wake(client, call->connect_ms + client->conf.timeout_connect_ms);
}

void http_call_retry_later(struct http_call *call)
{
    list_remove(&call->of_retries);
    list_push_back(&call->client->retries, &call->of_retries);
    http_client_wake(call->client, 0);
}

void http_call_fail_later(struct http_call *call)
{
    call->failing = true;
    list_remove(&call->of_client);
    list_push_back(&call->client->failed, &call->of_client);
    http_client_wake(call->client, 0);
}

/* ---- a call's life ---- */

static struct http_call *call_get(struct http_client *client)
{
    struct list *node = list_pop_front(&client->pool);
    struct http_call *call;

    if (node != NULL) {
        client->pool_len--;
        return list_entry(node, struct http_call, of_client);
    }
    call = mem_calloc(1, sizeof *call);
    call->client = client;
    list_init(&call->of_client);
    list_init(&call->of_all);
    list_init(&call->of_connecting);
    list_init(&call->of_silent);
    list_init(&call->of_retries);
    list_init(&call->socks);
    buf_init(&call->reply, client->conf.max_reply_bytes);
    call->easy = curl_easy_init();
    return call;
}

static void call_destroy(struct http_call *call)
{
    curl_easy_cleanup(call->easy);
    buf_fini(&call->reply);
    mem_free(call);
}

void http_call_wipe(struct http_call *call)
{
    if (call->block != NULL)
        explicit_bzero(call->block, call->block_bytes);
    mem_free(call->block);
    call->block = NULL;
    call->url = NULL;
    call->direct_head = 0;
    call->direct_len = 0;
}

static void call_put(struct http_call *call)
{
    struct http_client *client = call->client;

    http_call_wipe(call);
    if (client->multi == NULL || client->pool_len >= POOLED_CALLS_MAX || call->easy == NULL) {
        call_destroy(call);
        return;
    }
    if (call->easy_used)
        curl_easy_reset(call->easy);
    call->easy_used = false;
    if (call->reply.cap > POOLED_REPLY_BYTES_MAX)
        buf_fini(&call->reply);
    buf_clear(&call->reply);
    list_push_front(&client->pool, &call->of_client); /* the warmest first */
    client->pool_len++;
}

/* libcurl's texts quote peers: one printable line is left. */
static void make_printable(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || (unsigned char)*text > 0x7e)
            *text = '?';
}

/* libcurl has no more to do with it. */
static void call_leave_multi(struct http_call *call)
{
    if (!call->in_multi)
        return;
    call->in_multi = false;
    curl_easy_setopt(call->easy, CURLOPT_ERRORBUFFER, (char *)NULL);
    curl_multi_remove_handle(call->client->multi, call->easy);
}

static void forget_socks(struct http_call *call)
{
    list_foreach (&call->socks, node, next) {
        struct http_sock *s = list_entry(node, struct http_sock, of_call);

        if (s->established)
            http_sock_give(s, NULL);
        else
            http_sock_destroy(s);
    }
}

void http_call_end(struct http_call *call, enum http_call_status status, const char *detail)
{
    struct http_client *client = call->client;
    struct http_reply reply = { .status = status };
    long http_status = (long)call->http_status;

    if (detail != call->detail)
        snprintf(call->detail, sizeof call->detail, "%s", detail);
    make_printable(call->detail);
    list_remove(&call->of_all);
    list_remove(&call->of_connecting);
    list_remove(&call->of_silent);
    list_remove(&call->of_client);
    if (call->in_multi)
        curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &http_status);
    call_leave_multi(call);
    list_remove(&call->of_retries);
    forget_socks(call);
    if (call->direct != NULL)
        http_direct_release(call);
    if (list_is_empty(&client->calls) && list_is_empty(&client->failed))
        uv_timer_stop(&client->own_timer); /* it would keep the loop running */
    if (status == HTTP_CALL_REPLIED) {
        reply.http_status = (int)http_status;
        reply.body = (struct lonely_span){ call->reply.ptr, call->reply.len };
    } else {
        reply.detail = call->detail;
    }
    call->done(call->arg, &reply);
    call_put(call);
}

static enum http_call_status status_of(const struct http_call *call, CURLcode result)
{
    if (result == CURLE_FILESIZE_EXCEEDED)
        return HTTP_CALL_REPLY_SIZE;
    if (result == CURLE_OPERATION_TIMEDOUT)
        return HTTP_CALL_TIMEOUT;
    if (call->sending) /* afterwards some codes have another meaning, such as a reply in HTTP/0.9 */
        return HTTP_CALL_BROKEN;
    switch ((int)result) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return HTTP_CALL_URL;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_ENGINE_INITFAILED:
        return HTTP_CALL_TLS;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PROXY:
        return HTTP_CALL_CONNECT;
    default:
        return HTTP_CALL_BROKEN;
    }
}

/* libcurl's connection is taken from it: it closes its descriptor, and we keep another. */
static void take_connection(struct http_call *call)
{
    curl_socket_t theirs = CURL_SOCKET_BAD;
    int fd = -1;

    if (curl_easy_getinfo(call->easy, CURLINFO_ACTIVESOCKET, &theirs) == CURLE_OK)
        fd = fcntl(theirs, F_DUPFD_CLOEXEC, 0);
    call_leave_multi(call);
    forget_socks(call);
    if (fd >= 0)
        http_direct_send_over(call, fd);
    else
        http_call_end(call, HTTP_CALL_CONNECT, "no descriptor for the connection");
}

static void call_finish(struct http_call *call, CURLcode result)
{
    char detail[80];

    if (result == CURLE_OK && call->direct_len > 0) {
        take_connection(call);
        return;
    }
    if (result == CURLE_OK && !call->head_ended) {
        http_call_end(call, HTTP_CALL_BROKEN, "connection closed inside the head of the reply");
    } else if (result == CURLE_OK) {
        http_call_end(call, HTTP_CALL_REPLIED, "");
    } else if (call->attempt_expired && !call->sending) {
        snprintf(detail, sizeof detail, "no connection within %llu ms",
                 (unsigned long long)call->client->conf.timeout_sock_connect_ms);
        http_call_end(call, HTTP_CALL_TIMEOUT, detail);
    } else if (call->trouble != HTTP_CALL_REPLIED && result != CURLE_OPERATION_TIMEDOUT) {
        http_call_end(call, call->trouble, call->reason);
    } else {
        http_call_end(call, status_of(call, result),
                      call->detail[0] != '\0' ? call->detail : curl_easy_strerror(result));
    }
}

struct http_call *http_call_of(CURL *easy)
{
    char *call = NULL;

    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &call);
    return (void *)call;
}

/* Tells the ended calls. Outside of libcurl, so that `done` may post, cancel or close. */
void http_client_drain(struct http_client *client)
{
    CURLMsg *msg;
    int left;

    while (client->multi != NULL && (msg = curl_multi_info_read(client->multi, &left)) != NULL)
        if (msg->msg == CURLMSG_DONE)
            call_finish(http_call_of(msg->easy_handle), msg->data.result);
}

static void call_add(struct http_call *call)
{
    call->in_multi = call->trouble == HTTP_CALL_REPLIED &&
                     curl_multi_add_handle(call->client->multi, call->easy) == CURLM_OK;
    if (!call->in_multi) {
        http_call_trouble(call, HTTP_CALL_BROKEN, "libcurl does not take the call");
        http_call_fail_later(call);
    }
}

void http_call_connect(struct http_call *call)
{
    call->sending = call->paused = false;
    list_remove(&call->of_silent);
    http_call_connecting(call);
    if (call->easy == NULL)
        http_call_trouble(call, HTTP_CALL_BROKEN, "libcurl has no memory");
    else
        http_call_prepare_connect(call);
    call_add(call);
}

static void call_start(struct http_call *call, const struct http_call_request *request)
{
    struct http_client *client = call->client;

    if (client->conf.timeout_total_ms != 0) {
        call->started_ms = uv_now(client->loop);
        list_push_back(&client->all, &call->of_all);
        http_client_wake(client, call->started_ms + client->conf.timeout_total_ms);
    }
    if (http_direct_prepare(call, request)) {
        if (!http_direct_send(call))
            http_call_connect(call);
        return;
    }
    http_call_connecting(call);
    if (call->easy == NULL)
        http_call_trouble(call, HTTP_CALL_BROKEN, "libcurl has no memory");
    else if (call->trouble == HTTP_CALL_REPLIED)
        http_call_prepare(call, request);
    call_add(call);
}

struct http_call *http_client_post(struct http_client *client,
                                   const struct http_call_request *request, http_call_done_fn *done,
                                   void *arg)
{
    struct http_call *call = call_get(client);

    call->done = done;
    call->arg = arg;
    call->prefix = request->prefix;
    call->source = request->source;
    call->at = 0;
    call->trouble = HTTP_CALL_REPLIED;
    call->failing = call->sending = call->attempt_expired = false;
    call->source_waits = call->paused = call->head_ended = false;
    call->head_bytes = 0;
    call->detail[0] = '\0';
    call->direct_head = 0;
    call->direct_len = 0;
    call->http_status = 0;
    call->retried = false;
    list_push_back(&client->calls, &call->of_client);
    call_start(call, request);
    return call;
}

void http_call_resume(struct http_call *call)
{
    call->source_waits = false;
    if (!call->paused)
        return;
    call->paused = false;
    http_call_touch(call);
    if (call->direct != NULL) {
        http_direct_resume(call);
    } else if (curl_easy_pause(call->easy, CURLPAUSE_CONT) != CURLE_OK) {
        http_call_trouble(call, HTTP_CALL_BROKEN, "libcurl cannot go on");
        http_call_fail_later(call);
    }
}

void http_call_cancel(struct http_call *call)
{
    http_call_end(call, HTTP_CALL_CANCELLED, "cancelled");
}

/* ---- the client ---- */

static void on_curl_timer(uv_timer_t *timer)
{
    struct http_client *client = timer->data;
    int running;

    curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    http_client_drain(client);
}

static int set_curl_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct http_client *client = arg;

    (void)multi;
    if (timeout_ms < 0)
        uv_timer_stop(&client->curl_timer);
    else
        uv_timer_start(&client->curl_timer, on_curl_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

static bool multi_configure(struct http_client *client)
{
    CURLM *multi = client->multi;
    long max = client->conf.max_connections > INT_MAX ? INT_MAX : client->conf.max_connections;

    return curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, http_sock_watch) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, client) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_curl_timer) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_TIMERDATA, client) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, max) == CURLM_OK;
}

static char *dup_or_null(const char *s)
{
    return s == NULL ? NULL : mem_strdup(s);
}

/* A conf shows its strings as const; those of the client are its own. */
static void free_string(const char *s)
{
    mem_free((void *)(uintptr_t)s);
}

static void client_free(struct http_client *client)
{
    free_string(client->conf.ca_file);
    free_string(client->conf.cert_file);
    free_string(client->conf.key_file);
    free_string(client->conf.proxy);
    free_string(client->conf.user_agent);
    mem_free(client->socks);
    map_fini(&client->origins);
    mem_free(client);
    curl_global_cleanup();
}

struct http_client *http_client_create(uv_loop_t *loop, const struct http_client_conf *conf,
                                       char error[256])
{
    struct http_client *client;

    if (conf->ca_file != NULL && !tls_trust_is_good(conf->ca_file, error))
        return NULL;
    if (conf->cert_file != NULL && !tls_identity_is_good(conf->cert_file, conf->key_file, error))
        return NULL;
    /* Counted, and safe from several threads, in every libcurl that meson.build accepts. */
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        snprintf(error, 256, "libcurl cannot be initialised");
        return NULL;
    }
    client = mem_calloc(1, sizeof *client);
    client->loop = loop;
    client->conf = *conf;
    client->conf.ca_file = dup_or_null(conf->ca_file);
    client->conf.cert_file = dup_or_null(conf->cert_file);
    client->conf.key_file = dup_or_null(conf->key_file);
    client->conf.proxy = dup_or_null(conf->proxy);
    client->conf.user_agent = dup_or_null(conf->user_agent);
    list_init(&client->calls);
    list_init(&client->failed);
    list_init(&client->all);
    list_init(&client->connecting);
    list_init(&client->silent);
    list_init(&client->attempts);
    list_init(&client->retries);
    list_init(&client->pool);
    list_init(&client->idle);
    map_init(&client->origins);
    client->multi = curl_multi_init();
    if (client->multi == NULL || !multi_configure(client)) {
        snprintf(error, 256, "libcurl cannot be initialised");
        curl_multi_cleanup(client->multi);
        client_free(client);
        return NULL;
    }
    uv_timer_init(loop, &client->curl_timer);
    uv_timer_init(loop, &client->own_timer);
    client->curl_timer.data = client->own_timer.data = client;
    client->handles = 2;
    return client;
}

/* libcurl cannot be told to close them, but finds them dead before it would use them again. */
void http_client_forget_connections(struct http_client *client)
{
    http_direct_forget(client);
    for (size_t i = 0; i < client->sock_cap; i++)
        if (client->socks[i] != NULL && client->socks[i]->call == NULL)
            shutdown((int)i, SHUT_RDWR);
}

void http_client_handle_closed(struct http_client *client)
{
    void (*on_closed)(void *) = client->on_closed;
    void *arg = client->closed_arg;

    if (--client->handles > 0)
        return;
    client_free(client);
    if (on_closed != NULL)
        on_closed(arg);
}

static void on_timer_closed(uv_handle_t *handle)
{
    http_client_handle_closed(handle->data);
}

static void cancel_all(struct list *calls)
{
    struct list *node;

    while ((node = list_first(calls)) != NULL)
        http_call_cancel(list_entry(node, struct http_call, of_client));
}

void http_client_close(struct http_client *client, void (*on_closed)(void *arg), void *arg)
{
    struct list *node;

    client->on_closed = on_closed;
    client->closed_arg = arg;
    cancel_all(&client->calls);
    cancel_all(&client->failed);
    http_direct_forget(client);
    while ((node = list_pop_front(&client->pool)) != NULL)
        call_destroy(list_entry(node, struct http_call, of_client));
    client->pool_len = 0;
    curl_multi_cleanup(client->multi);
    client->multi = NULL;
    uv_close((uv_handle_t *)&client->curl_timer, on_timer_closed);
    uv_close((uv_handle_t *)&client->own_timer, on_timer_closed);
}
