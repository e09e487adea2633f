/*
 * The admin listener (admin.h): its thread, and what it answers. Made by broadcaster.c. What makes a
 * broadcaster ready is readiness.c's, what it counts metrics.c's.
 *
 * The end in order: the server closes its connections, then the store's client, then the handles; the
 * loop has nothing left to run.
 */
#include "admin.h"

#include <stdlib.h>
#include <string.h>

#include "http_server.h"
#include "mem.h"
#include "readiness.h"
#include "store_meter.h"
#include "worker.h"

#define BACKLOG         128
#define MAX_CONNECTIONS 64    /* at once; well within the descriptors that broadcaster.c reserves */
#define STUCK_MS        10000 /* a worker beats every second */

struct admin {
    struct broadcaster *b;
    uv_loop_t loop;
    uv_thread_t thread;
    uv_async_t wakeup; /* to end */
    struct http_server *http;
    struct store_client *store;
    struct readiness readiness;
    struct metrics *metrics; /* its thread's */
    char bound[LISTENER_ADDRESS_MAX];
    bool started, ending;
};

/* ---- Answers ---- */

static void answer(struct http_exchange *x, int status, const char *text)
{
    http_exchange_respond(x, &(struct http_response){
                                 .status = status,
                                 .content_type = "text/plain; charset=utf-8",
                                 .headers = status == 405 ? "Allow: GET, HEAD\r\n" : NULL,
                                 .body = { (const uint8_t *)text, strlen(text) },
                             });
}

static void on_healthz(struct admin *a, struct http_exchange *x)
{
    uint64_t now_ms = clock_mono_ms(a->b->clock);
    char text[64];

    for (size_t i = 0; i < a->b->worker_count; i++) {
        uint64_t lag_ms = pulse_lag_ms(&a->b->workers[i]->pulse, now_ms);

        if (lag_ms >= STUCK_MS) {
            snprintf(text, sizeof(text), "worker %zu is stuck for %llu s\n", i,
                     (unsigned long long)lag_ms / 1000);
            answer(x, 503, text);
            return;
        }
    }
    answer(x, 200, "ok\n");
}

static void on_looked(void *arg, const char *reasons)
{
    answer(arg, reasons[0] == '\0' ? 200 : 503, reasons[0] == '\0' ? "ready\n" : reasons);
}

static void on_readyz(struct admin *a, struct http_exchange *x)
{
    if (atomic_load(&a->b->draining))
        answer(x, 503, "draining\n");
    else
        readiness_ask(&a->readiness, on_looked, x);
}

static void print_metrics(struct admin *a, FILE *out)
{
    const struct broadcaster *b = a->b;
    const struct metrics_process process = {
        .version = LONELY_VERSION,
        .started_s = b->started_s,
        .workers = b->worker_count,
        .index = index_counts(b->index),
        .body_bytes = bodies_memory(b->bodies),
    };
    const struct metrics **threads = mem_calloc(b->worker_count + 1, sizeof(*threads));

    for (size_t i = 0; i < b->worker_count; i++)
        threads[i] = b->workers[i]->metrics;
    threads[b->worker_count] = a->metrics;
    metrics_print(out, threads, b->worker_count + 1, &process);
    mem_free(threads);
}

static void on_metrics(struct admin *a, struct http_exchange *x)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    if (out != NULL) {
        print_metrics(a, out);
        if (fclose(out) != 0)
            len = 0;
    }
    if (len > 0)
        http_exchange_respond(x, &(struct http_response){
                                     .status = 200,
                                     .content_type = METRICS_CONTENT_TYPE,
                                     .body = { (const uint8_t *)text, len },
                                 });
    else
        answer(x, 503, "no memory\n");
    free(text);
}

static const struct page {
    const char *path;
    void (*on_request)(struct admin *a, struct http_exchange *x);
} pages[] = {
    { "/healthz", on_healthz },
    { "/readyz", on_readyz },
    { "/metrics", on_metrics },
};

static bool span_is(struct lonely_span span, const char *text)
{
    return span.len == strlen(text) && memcmp(span.ptr, text, span.len) == 0;
}

static const struct page *find_page(struct lonely_span target)
{
    const uint8_t *query = memchr(target.ptr, '?', target.len);

    if (query != NULL)
        target.len = (size_t)(query - target.ptr);
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
        if (span_is(target, pages[i].path))
            return &pages[i];
    }
    return NULL;
}

static void on_request(void *app, struct http_exchange *x)
{
    const struct page *page = find_page(x->head.target);

    if (page == NULL)
        answer(x, 404, "not found\n");
    else if (!span_is(x->head.method, "GET") && !span_is(x->head.method, "HEAD"))
        answer(x, 405, "method not allowed\n");
    else
        page->on_request(app, x);
}

/* ---- The end ---- */

static void on_store_closed(void *arg)
{
    struct admin *a = arg;

    uv_close((uv_handle_t *)&a->wakeup, NULL);
}

static void on_http_closed(void *arg)
{
    struct admin *a = arg;

    if (a->store != NULL)
        a->b->store_ops->client_close(a->store, on_store_closed, a);
    else
        on_store_closed(a);
}

static void end(struct admin *a)
{
    if (a->ending)
        return;
    a->ending = true;
    if (a->store != NULL)
        readiness_close(&a->readiness);
    if (a->http != NULL)
        http_server_close(a->http, on_http_closed, a);
    else
        on_http_closed(a);
}

static void on_wakeup(uv_async_t *wakeup)
{
    end(wakeup->data);
}

/* ---- The beginning ---- */

static bool open_server(struct admin *a, char error[256])
{
    struct http_server_conf server = worker_server_conf(a->b);
    int fd, err;

    if (!listener_open(a->b->conf->broadcaster.admin_listen, BACKLOG, 1, &fd, a->bound, error))
        return false;
    server.max_connections = MAX_CONNECTIONS;
    server.peers = NULL;
    server.on_reject = NULL;
    a->http = http_server_create(&a->loop, &server, on_request, a);
    err = http_server_listen(a->http, fd);
    if (err != 0)
        snprintf(error, 256, "cannot listen on %s: %s", a->bound, uv_strerror(err));
    return err == 0;
}

bool admin_create(struct broadcaster *b, struct admin **out, char error[256])
{
    struct admin *a = mem_calloc(1, sizeof(*a));
    int err = uv_loop_init(&a->loop);

    *out = NULL;
    a->b = b;
    if (err == 0) {
        err = uv_async_init(&a->loop, &a->wakeup, on_wakeup);
        if (err != 0)
            uv_loop_close(&a->loop);
    }
    if (err != 0) {
        snprintf(error, 256, "cannot make an event loop: %s", uv_strerror(err));
        mem_free(a);
        return false;
    }
    a->wakeup.data = a;
    a->metrics = mem_calloc(1, sizeof(*a->metrics));
    if (!store_meter_open(b->backend, b->store, &a->loop, b->clock, a->metrics, &a->store, error)) {
        admin_destroy(a);
        return false;
    }
    readiness_init(&a->readiness, b, &a->loop, a->store);
    if (!open_server(a, error)) {
        admin_destroy(a);
        return false;
    }
    *out = a;
    return true;
}

static void run(void *arg)
{
    struct admin *a = arg;

    uv_run(&a->loop, UV_RUN_DEFAULT);
}

bool admin_start(struct admin *a, char error[256])
{
    int err = uv_thread_create(&a->thread, run, a);

    if (err != 0)
        snprintf(error, 256, "cannot start a thread: %s", uv_strerror(err));
    a->started = err == 0;
    return a->started;
}

void admin_join(struct admin *a)
{
    if (a == NULL || !a->started)
        return;
    uv_async_send(&a->wakeup);
    uv_thread_join(&a->thread);
    a->started = false;
}

void admin_destroy(struct admin *a)
{
    if (a == NULL)
        return;
    end(a); /* nothing to do when its thread has run */
    uv_run(&a->loop, UV_RUN_DEFAULT);
    uv_loop_close(&a->loop);
    mem_free(a->metrics);
    mem_free(a);
}

const char *admin_bound(const struct admin *a)
{
    return a->bound;
}
