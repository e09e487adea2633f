/*
 * Waiting calls over the loop (peer.h). client.c calls it.
 */
#include "peer.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "acked.h"
#include "show.h"

#define OPEN_MS           5000u
#define IDLE_BYTES_PER_MS (16u * 1024) /* what a slow disk reads or writes */
#define LEAVE_MS          100u

/* ---- Waiting ---- */

static void wait_for(struct peer *p, bool (*is_done)(const struct peer *p))
{
    while (!is_done(p) && p->conn != NULL)
        (void)uv_run(&p->loop, UV_RUN_ONCE);
}

uint64_t peer_now_ms(const struct peer *p)
{
    return uv_now(&p->loop);
}

static void on_work(uv_work_t *work)
{
    struct peer *p = work->data;

    p->job(p->job_arg);
}

static void on_worked(uv_work_t *work, int status)
{
    struct peer *p = work->data;

    (void)status;
    p->is_working = false;
}

void peer_work(struct peer *p, void (*job)(void *arg), void *arg)
{
    p->job = job;
    p->job_arg = arg;
    p->work.data = p;
    p->is_working = true;
    if (p->conn != NULL)
        tinyproto_conn_set_idle_timeout(p->conn, 0);
    (void)uv_queue_work(&p->loop, &p->work, on_work, on_worked);
    while (p->is_working)
        (void)uv_run(&p->loop, UV_RUN_ONCE);
}

static void be_patient(struct peer *p, uint64_t bytes)
{
    uint64_t ms = p->patience_ms + bytes / IDLE_BYTES_PER_MS;

    tinyproto_conn_set_idle_timeout(p->conn, ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX);
}

/* ---- Hooks ---- */

static struct peer *of_conn(const struct tinyproto_conn *conn)
{
    return tinyproto_conn_arg(conn);
}

static void on_ready(struct tinyproto_conn *conn)
{
    of_conn(conn)->is_ready = true;
}

static enum tinyproto_delivery on_begin(struct tinyproto_conn *conn, size_t size)
{
    const struct peer *p = of_conn(conn);

    if (p->sink == NULL)
        return size <= LETTER_MAX && p->n_kept < PEER_LETTERS ? TINYPROTO_WHOLE : TINYPROTO_REFUSE;
    return size > 0 && size <= p->sink->size - p->sink->got ? TINYPROTO_PIECES : TINYPROTO_REFUSE;
}

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    struct peer *p = of_conn(conn);
    void *ptr = tinyproto_message_take(message);

    if (ptr == NULL)
        tinyproto_abort(conn);
    else
        p->kept[p->n_kept++] = (struct tinyproto_message){ .ptr = ptr, .len = message->len };
}

static void on_data(struct tinyproto_conn *conn, const uint8_t *ptr, size_t len)
{
    struct peer *p = of_conn(conn);

    if (!is_fault(p->sink_fault))
        p->sink_fault = sink_write(p->sink, ptr, len);
    if (is_fault(p->sink_fault))
        tinyproto_abort(conn); /* the chunks cannot be stopped otherwise */
    else if (p->sink->got == p->sink->size)
        p->sink = NULL; /* what follows is a letter */
}

static const struct tinyproto_handler handler_hooks = {
    .pre_loop = on_ready,
    .begin = on_begin,
    .transmission_received = on_message,
    .data = on_data,
};

static void on_shutdown(struct tinyproto_client *client, struct tinyproto_conn *conn,
                        const struct tinyproto_cause *why)
{
    struct peer *p = tinyproto_client_arg(client);

    if (conn != p->conn)
        return;
    p->conn = NULL;
    p->cause = *why;
    if (p->cause.err == TINYPROTO_OK)
        p->cause.err = TINYPROTO_E_CLOSED;
}

static void on_client_over(struct tinyproto_client *client)
{
    struct peer *p = tinyproto_client_arg(client);

    p->is_client_over = true;
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct peer *p = handle->data;

    (void)number;
    atomic_store(&p->is_stopped, true);
    if (p->conn != NULL)
        tinyproto_abort(p->conn);
}

/* ---- Progress ---- */

static uint64_t acked(const struct peer *p)
{
    return acked_bytes(tinyproto_conn_fd(p->conn));
}

static void on_tick(uv_timer_t *tick)
{
    struct peer *p = tick->data;
    uint64_t done = p->sent;

    if (!p->progress.is_running)
        return;
    if (p->sink != NULL)
        done = p->sink->got;
    else if (p->is_sending && p->conn != NULL && acked(p) > p->acked_before)
        done += acked(p) - p->acked_before;
    progress_show(&p->progress, done, peer_now_ms(p));
}

/* ---- Begin and end ---- */

bool peer_init(struct peer *p, uint32_t patience_ms)
{
    static const int numbers[] = { SIGINT, SIGTERM };
    const struct tinyproto_client_hooks hooks = { .arg = p,
                                                  .post_loop = on_client_over,
                                                  .conn_shutdown = on_shutdown };
    struct tinyproto_options options;

    tinyproto_client_options(&options);
    options.open_timeout_ms = OPEN_MS;
    p->patience_ms = patience_ms;
    options.stall_timeout_ms = patience_ms;
    if (uv_loop_init(&p->loop) != 0) {
        show_line("cannot make an event loop");
        return false;
    }
    if (tinyproto_client_new(&hooks, &options, &p->loop, &p->client) != TINYPROTO_OK) {
        (void)uv_loop_close(&p->loop);
        show_line("cannot make a client");
        return false;
    }
    for (size_t i = 0; i < 2; i++) {
        (void)uv_signal_init(&p->loop, &p->signals[i]);
        p->signals[i].data = p;
        (void)uv_signal_start(&p->signals[i], on_signal, numbers[i]);
        uv_unref((uv_handle_t *)&p->signals[i]);
    }
    (void)uv_timer_init(&p->loop, &p->tick);
    p->tick.data = p;
    /* Always: it also keeps the loop going until the client has stopped, which alone does not. */
    (void)uv_timer_start(&p->tick, on_tick, PROGRESS_MS, PROGRESS_MS);
    return true;
}

static void forget_letters(struct peer *p)
{
    for (size_t i = 0; i < p->n_kept; i++)
        free((void *)(uintptr_t)p->kept[i].ptr);
    p->n_kept = 0;
}

void peer_fini(struct peer *p)
{
    tinyproto_client_stop(p->client);
    while (!p->is_client_over)
        (void)uv_run(&p->loop, UV_RUN_ONCE);
    tinyproto_client_free(p->client);
    for (size_t i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&p->signals[i], NULL);
    uv_close((uv_handle_t *)&p->tick, NULL);
    (void)uv_run(&p->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&p->loop);
    forget_letters(p);
}

static bool is_ready(const struct peer *p)
{
    return p->is_ready;
}

bool peer_connect(struct peer *p, const char *host, int port)
{
    p->handler = handler_hooks;
    p->handler.arg = p;
    forget_letters(p);
    p->is_ready = false;
    p->is_sending = false;
    p->sink = NULL;
    p->cause = (struct tinyproto_cause){ .err = TINYPROTO_E_MEMORY };
    tinyproto_client_set_handler(p->client, &p->handler);
    p->conn = tinyproto_client_connect(p->client, host, port);
    wait_for(p, is_ready);
    return p->conn != NULL;
}

static bool is_never_done(const struct peer *p)
{
    (void)p;
    return false;
}

void peer_abort(struct peer *p)
{
    if (p->conn == NULL)
        return;
    tinyproto_abort(p->conn);
    wait_for(p, is_never_done);
}

/* The tick wakes it. */
static bool is_late(const struct peer *p)
{
    return peer_now_ms(p) >= p->leave_by_ms;
}

void peer_leave(struct peer *p)
{
    const struct letter close = { .type = LETTER_CLOSE };

    if (p->conn == NULL || !peer_say(p, &close))
        return;
    p->leave_by_ms = peer_now_ms(p) + LEAVE_MS;
    wait_for(p, is_late);
}

/* ---- Letters ---- */

bool peer_say(struct peer *p, const struct letter *letter)
{
    size_t len = letter_print(letter, p->said, sizeof(p->said));

    if (p->conn == NULL)
        return false;
    if (len == 0 || tinyproto_transmit(p->conn, p->said, len) != TINYPROTO_OK)
        peer_abort(p);
    return p->conn != NULL;
}

static bool has_letter(const struct peer *p)
{
    return p->n_kept > 0;
}

bool peer_hear(struct peer *p, struct letter *out, uint64_t bytes)
{
    struct tinyproto_message first;
    bool is_good;

    if (p->conn != NULL)
        be_patient(p, bytes);
    wait_for(p, has_letter);
    if (p->n_kept == 0)
        return false;
    first = p->kept[0];
    p->n_kept--;
    memmove(p->kept, p->kept + 1, p->n_kept * sizeof(first));
    is_good = letter_parse(first.ptr, first.len, p->text, out);
    free((void *)(uintptr_t)first.ptr);
    if (is_good)
        return true;
    show_line("the server sent something else than a letter");
    peer_abort(p);
    return false;
}

/* ---- Chunks ---- */

static void on_sent(void *arg, struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    struct peer *p = arg;

    (void)conn;
    p->is_sending = false;
    p->is_sent = why->err == TINYPROTO_OK;
}

static bool is_through(const struct peer *p)
{
    return !p->is_sending;
}

bool peer_send(struct peer *p, const struct source *source, uint64_t offset, uint64_t len)
{
    if (p->conn == NULL)
        return false;
    be_patient(p, 0);
    p->sent = offset;
    p->is_sent = false;
    p->is_sending = true;
    p->acked_before = p->progress.is_running ? acked(p) : 0;
    if (tinyproto_transmit_fd(p->conn, source->fd, (int64_t)offset, len, on_sent, p) !=
        TINYPROTO_OK)
        peer_abort(p);
    wait_for(p, is_through);
    if (!p->is_sent)
        wait_for(p, is_never_done);
    p->sent = offset + len;
    return p->is_sent;
}

static bool is_received(const struct peer *p)
{
    return p->sink == NULL;
}

bool peer_receive(struct peer *p, struct sink *sink)
{
    p->sink_fault = fault_of(FAULT_NONE);
    if (sink->got == sink->size)
        return true;
    p->sink = sink;
    be_patient(p, 0);
    wait_for(p, is_received);
    p->sink = NULL;
    return sink->got == sink->size;
}
