/*
 * A worker's life: made by broadcaster.c, runs routes.c on its HTTP server, drained and stopped by
 * commands from other threads.
 *
 * The end in order: draining waits for connections; stopping closes them and cancels posts; when the last
 * hold is released, closing takes down client, store and handles, and the loop has nothing left to run.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "body.h"
#include "forwarding.h"
#include "hub.h"
#include "mem.h"
#include "missed.h"
#include "mount_port.h"
#include "receivers.h"
#include "routes.h"
#include "session.h"
#include "store_meter.h"
#include "worker.h"

static uint64_t none_to_zero(uint64_t value)
{
    return value == CONF_NONE ? 0 : value;
}

/* A worker's share of a limit of the whole process: at least one. */
static size_t share(const struct broadcaster *b, uint64_t limit)
{
    uint64_t part = limit / b->worker_count;

    return part > 0 ? (size_t)part : 1;
}

/* ---- The end ---- */

static void on_store_closed(void *arg)
{
    struct worker *w = arg;

    mailbox_close(&w->mailbox);
    uv_close((uv_handle_t *)&w->wakeup, NULL);
    uv_close((uv_handle_t *)&w->drain_timer, NULL);
    if (w->pulse.worker != NULL)
        pulse_close(&w->pulse);
    uv_close((uv_handle_t *)&w->turn_end, NULL);
    uv_close((uv_handle_t *)&w->no_wait, NULL);
}

static void on_client_closed(void *arg)
{
    struct worker *w = arg;

    if (w->store != NULL)
        w->b->store_ops->client_close(w->store, on_store_closed, w);
    else
        on_store_closed(w);
}

static void close_when_idle(struct worker *w)
{
    if (w->state != WORKER_STOPPING || w->holds > 0 || !w->http_closed || !w->mount_closed ||
        !w->sessions_closed)
        return;
    w->state = WORKER_CLOSING;
    if (w->client != NULL)
        http_client_close(w->client, on_client_closed, w);
    else
        on_client_closed(w);
}

static void on_http_closed(void *arg)
{
    struct worker *w = arg;

    w->http_closed = true;
    close_when_idle(w);
}

static void on_mount_closed(void *arg)
{
    struct worker *w = arg;

    w->mount_closed = true;
    close_when_idle(w);
}

static void on_sessions_closed(void *arg)
{
    struct worker *w = arg;

    w->sessions_closed = true;
    close_when_idle(w);
}

static void stop(struct worker *w)
{
    if (w->state >= WORKER_STOPPING)
        return;
    w->state = WORKER_STOPPING;
    atomic_store(&w->stopping, true);
    uv_timer_stop(&w->drain_timer);
    if (w->sweeper != NULL)
        missed_sweeper_close(w->sweeper);
    if (w->outbox != NULL)
        outbox_close(w->outbox);
    if (w->sessions != NULL)
        sessions_close(w->sessions, on_sessions_closed, w);
    else
        on_sessions_closed(w);
    if (w->mount != NULL)
        mount_port_close(w->mount, on_mount_closed, w);
    else
        on_mount_closed(w);
    if (w->http != NULL)
        http_server_close(w->http, on_http_closed, w);
    else
        on_http_closed(w);
}

static void on_drained(void *arg)
{
    struct worker *w = arg;

    if (--w->drains == 0)
        stop(w);
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct worker *w = timer->data;

    log_warn(w->b->log, "drain_timeout", LOG_U64("under_way", w->holds), LOG_END);
    stop(w);
}

static void drain(struct worker *w)
{
    if (w->state != WORKER_RUNNING)
        return;
    w->state = WORKER_DRAINING;
    uv_timer_start(&w->drain_timer, on_drain_timeout, w->b->conf->broadcaster.drain_timeout_ms, 0);
    w->drains = 1;
    /* First of all, so that peers send no more. */
    if (w->b->forwarding != NULL && w == w->b->workers[0]) {
        w->drains++;
        forwarding_end(w->b->forwarding, w, on_drained, w);
    }
    if (w->sessions != NULL) {
        w->drains++;
        sessions_drain(w->sessions, on_drained, w);
    }
    if (w->mount != NULL) {
        w->drains++;
        mount_port_drain(w->mount, on_drained, w);
    }
    http_server_drain(w->http, on_drained, w);
}

static void on_wakeup(uv_async_t *wakeup)
{
    struct worker *w = wakeup->data;
    int command = atomic_load(&w->command);

    if (command == WORKER_DRAINING)
        drain(w);
    else if (command == WORKER_STOPPING)
        stop(w);
}

void worker_command(struct worker *w, enum worker_state to)
{
    int now = atomic_load(&w->command);

    while (now < (int)to && !atomic_compare_exchange_weak(&w->command, &now, (int)to))
        ;
    uv_async_send(&w->wakeup);
}

/* ---- The beginning ---- */

/* Asked for each address that a delivery or MISSED is about to connect to. */
static bool allow_address(void *arg, const char *url, const struct sockaddr *address)
{
    const struct worker *w = arg;
    char text[INET6_ADDRSTRLEN] = "";
    bool allowed = policy_allows(w->b->policy, address);

    if (!allowed) {
        uv_ip_name(address, text, sizeof(text));
        log_warn_limited(w->b->log, "webhook_refused", LOG_URL("url", url, strlen(url)),
                         LOG_STR("address", text), LOG_END);
    }
    return allowed;
}

static bool create_client(struct worker *w, char error[256])
{
    const struct conf *conf = w->b->conf;
    size_t in_flight = share(w->b, conf->webhook.max_in_flight);
    const struct http_client_conf client = {
        .timeout_total_ms = none_to_zero(conf->webhook.outgoing_http_timeout_total_ms),
        .timeout_connect_ms = none_to_zero(conf->webhook.outgoing_http_timeout_connect_ms),
        .timeout_sock_connect_ms =
            none_to_zero(conf->webhook.outgoing_http_timeout_sock_connect_ms),
        .timeout_sock_read_ms = none_to_zero(conf->webhook.outgoing_http_timeout_sock_read_ms),
        .max_reply_bytes = (size_t)conf->webhook.max_reply_bytes,
        .max_connections =
            (uint32_t)(2 *
                       in_flight), /* and half as many direct ones: three times it is reserved */
        .ca_file = conf->webhook.ca_file,
        .proxy = conf->webhook.proxy,
        .user_agent = "lonelypss/" LONELY_VERSION,
        .allow_address = allow_address,
        .allow_arg = w,
    };
    const struct outbox_limits limits = {
        .max_in_flight = in_flight,
        .max_per_origin = share(w->b, conf->webhook.max_per_origin),
        .max_per_url = share(w->b, conf->webhook.max_per_url),
        .max_queued = (size_t)conf->webhook.max_queued,
    };

    w->client = http_client_create(&w->loop, &client, error);
    if (w->client == NULL)
        return false;
    w->outbox = outbox_create(&limits, w->client, &w->b->posts_queued);
    return true;
}

uint32_t worker_max_connections(const struct broadcaster *b)
{
    return (uint32_t)share(b, b->max_connections);
}

struct http_server_conf worker_server_conf(const struct broadcaster *b)
{
    const struct conf *conf = b->conf;

    return (struct http_server_conf){
        .header_timeout_ms = conf->http.header_timeout_ms,
        .body_idle_timeout_ms = none_to_zero(conf->http.body_idle_timeout_ms),
        .body_timeout_ms = none_to_zero(conf->http.body_timeout_ms),
        .keepalive_timeout_ms = conf->http.keepalive_timeout_ms,
        .discard_bytes = conf->http.discard_bytes,
        .max_header_bytes = (uint32_t)conf->http.max_header_bytes,
        .upgrade_timeout_ms = none_to_zero(conf->websocket.websocket_accept_timeout_ms),
        .max_connections = worker_max_connections(b),
        .log = b->log,
        .clock = b->clock,
        .peers = b->peers,
        .on_reject = routes_on_reject,
    };
}

static int listen_on(struct worker *w, const struct broadcaster_listener *l, int fd)
{
    if (l->tcp)
        return sessions_listen(w->sessions, fd, l->tls ? w->b->tls : NULL);
    return l->tls ? http_server_listen_tls(w->http, fd, w->b->tls)
                  : http_server_listen(w->http, fd);
}

static bool create_server(struct worker *w, size_t number, char error[256])
{
    const struct http_server_conf server = worker_server_conf(w->b);

    w->http = http_server_create(&w->loop, &server, routes_on_request, w);
    if (w->b->forwarding != NULL)
        w->sessions = sessions_create(w);
    for (size_t i = 0; i < w->b->listener_count; i++) {
        struct broadcaster_listener *l = &w->b->listeners[i];
        int fd = l->fds[number], err;

        if (l->tcp && w->sessions == NULL) {
            snprintf(error, 256, "tcp.listen needs broadcaster.receiver_url");
            return false;
        }
        l->fds[number] = -1;
        err = listen_on(w, l, fd);
        if (err != 0) {
            snprintf(error, 256, "cannot listen on %s: %s", l->bound, uv_strerror(err));
            return false;
        }
    }
    return true;
}

static bool create_mount_port(struct worker *w, char error[256])
{
    if (w->b->conf->mount == NULL)
        return true;
    w->mount = mount_port_create(&w->loop, worker_max_connections(w->b), routes_on_request, w);
    if (w->mount == NULL)
        snprintf(error, 256, "cannot prepare the mount: no descriptors");
    return w->mount != NULL;
}

static void random_bytes(void *arg, uint8_t *to, size_t len)
{
    worker_random(arg, to, len);
}

static bool create_gate(struct worker *w, char error[256])
{
    struct broadcaster *b = w->b;
    const struct gate_conf gate = {
        .keys = &b->keys,
        .replay = b->replay,
        .store_ops = b->store_ops,
        .store = strcmp(b->conf->auth.replay_store, "database") == 0 ? w->store : NULL,
        .clock = b->clock,
        .log = b->log,
        .random = random_bytes,
        .random_arg = w,
    };

    w->gate = gate_create(&gate);
    if (w->gate == NULL)
        snprintf(error, 256, "cannot prepare authorization: OpenSSL failed");
    return w->gate != NULL;
}

/* 0, or an error of libuv: then nothing is left open. */
static int open_loop(struct worker *w)
{
    int err = uv_loop_init(&w->loop);

    if (err != 0)
        return err;
    err = uv_async_init(&w->loop, &w->wakeup, on_wakeup);
    if (err == 0) {
        w->wakeup.data = w;
        err = mailbox_init(&w->mailbox, &w->loop);
        if (err != 0)
            uv_close((uv_handle_t *)&w->wakeup, NULL);
    }
    if (err != 0) {
        uv_run(&w->loop, UV_RUN_DEFAULT);
        uv_loop_close(&w->loop);
    }
    return err;
}

bool worker_create(struct broadcaster *b, size_t number, struct worker **out, char error[256])
{
    struct worker *w = mem_calloc(1, sizeof(*w));
    int err = open_loop(w);

    *out = NULL;
    w->b = b;
    if (err != 0) {
        snprintf(error, 256, "cannot make an event loop: %s", uv_strerror(err));
        mem_free(w);
        return false;
    }
    uv_check_init(&w->loop, &w->turn_end);
    uv_idle_init(&w->loop, &w->no_wait);
    w->turn_end.data = w;
    w->receivers = receivers_create();
    list_init(&w->unsynced);
    uv_timer_init(&w->loop, &w->drain_timer);
    w->drain_timer.data = w;
    list_init(&w->long_matches);
    list_init(&w->long_errands);
    w->max_collected_bytes = share(b, b->conf->limits.max_body_memory);
    w->lane = body_lane_create(b->bodies, &w->loop, w->max_collected_bytes);
    w->metrics = mem_calloc(1, sizeof(*w->metrics));
    if (!store_meter_open(b->backend, b->store, &w->loop, b->clock, w->metrics, &w->store, error) ||
        !create_gate(w, error) || !create_client(w, error) || !create_server(w, number, error) ||
        !create_mount_port(w, error)) {
        worker_destroy(w);
        return false;
    }
    if (number == 0)
        w->sweeper = missed_sweeper_create(w);
    if (b->conf->broadcaster.admin_listen != NULL)
        pulse_init(&w->pulse, w);
    *out = w;
    return true;
}

static void run(void *arg)
{
    struct worker *w = arg;

    uv_run(&w->loop, UV_RUN_DEFAULT);
    atomic_fetch_sub(&w->b->running, 1);
}

bool worker_start(struct worker *w, char error[256])
{
    int err;

    atomic_fetch_add(&w->b->running, 1);
    err = uv_thread_create(&w->thread, run, w);
    if (err != 0) {
        atomic_fetch_sub(&w->b->running, 1);
        snprintf(error, 256, "cannot start a thread: %s", uv_strerror(err));
    }
    return err == 0;
}

void worker_join(struct worker *w)
{
    uv_thread_join(&w->thread);
}

void worker_destroy(struct worker *w)
{
    if (w == NULL)
        return;
    stop(w); /* nothing to do when its thread has run */
    uv_run(&w->loop, UV_RUN_DEFAULT);
    sessions_destroy(w->sessions);
    outbox_destroy(w->outbox);
    body_lane_destroy(w->lane);
    gate_destroy(w->gate);
    uv_loop_close(&w->loop);
    mailbox_fini(&w->mailbox);
    receivers_destroy(w->receivers);
    mem_free(w->metrics);
    mem_free(w);
}

/* ---- Services ---- */

static void on_no_wait(uv_idle_t *idle)
{
    (void)idle;
}

static void on_turn_end(uv_check_t *check)
{
    struct worker *w = check->data;

    uv_check_stop(&w->turn_end);
    uv_idle_stop(&w->no_wait);
    hub_turn_end(w);
}

void worker_at_turn_end(struct worker *w, struct list *node)
{
    if (list_is_empty(&w->unsynced)) {
        uv_check_start(&w->turn_end, on_turn_end);
        uv_idle_start(&w->no_wait, on_no_wait);
    }
    list_push_back(&w->unsynced, node);
}

void worker_hold(struct worker *w)
{
    w->holds++;
}

void worker_release(struct worker *w)
{
    w->holds--;
    close_when_idle(w);
}

void worker_random(struct worker *w, uint8_t *to, size_t len)
{
    if (w->random_left < len) {
        int err = uv_random(NULL, NULL, w->random, sizeof(w->random), 0, NULL);

        if (err != 0) { /* identifiers that repeat would be worse than no broadcaster */
            log_error(w->b->log, "no_random_bytes", LOG_STR("error", uv_strerror(err)), LOG_END);
            abort();
        }
        w->random_left = sizeof(w->random);
    }
    w->random_left -= len;
    memcpy(to, w->random + w->random_left, len);
}
