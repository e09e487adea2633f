/*
 * The blocking calls (tinyproto/sync.h): a client with one connection, on a loop that runs only
 * within the calls.
 */
#include <tinyproto/sync.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include <tinyproto/client.h>

#include "list.h"
#include "mem.h"

#define STALL_MS       5000
#define KEPT_MAX_BYTES (64u * 1024 * 1024) /* messages that came during a transmit */
#define KEPT_OVERHEAD  1024                /* and so much for each, whatever its size */

struct kept {
    struct list node;
    void *ptr; /* malloc'ed */
    size_t len;
};

struct tinyproto_sync {
    uv_loop_t loop;
    uv_timer_t timer;
    bool timer_is_open;
    struct tinyproto_handler handler;
    struct tinyproto_client *client;
    struct tinyproto_conn *conn;  /* NULL: over */
    struct tinyproto_cause cause; /* of the end; TINYPROTO_OK: in order */
    struct list kept;
    size_t kept_bytes;
    char peer[TINYPROTO_ADDRESS_TEXT_MAX];
    /* the call that waits */
    bool is_late;
    bool is_ready;
    bool is_sent;
    bool in_transmit;
    enum tinyproto_error sent;
    tinyproto_sync_data_fn *data; /* NULL: the next message is received whole */
    void *data_arg;
    uint64_t size;    /* of a message in pieces */
    bool is_complete; /* it is there */
    bool client_is_open;
};

/* ---- Hooks ---- */

static struct tinyproto_sync *of_conn(const struct tinyproto_conn *conn)
{
    return tinyproto_conn_arg(conn);
}

/* Between calls nothing is read, so that a message begins in the call that wants it. */
static void on_pre_loop(struct tinyproto_conn *conn)
{
    of_conn(conn)->is_ready = true;
    tinyproto_conn_pause(conn);
}

static enum tinyproto_delivery on_begin(struct tinyproto_conn *conn, size_t size)
{
    struct tinyproto_sync *s = of_conn(conn);

    if (s->data == NULL || s->is_complete)
        return TINYPROTO_WHOLE;
    s->size = size;
    return TINYPROTO_PIECES;
}

static void on_data(struct tinyproto_conn *conn, const uint8_t *ptr, size_t len)
{
    struct tinyproto_sync *s = of_conn(conn);

    if (s->data != NULL && !s->data(s->data_arg, ptr, len))
        tinyproto_abort(conn);
}

static void on_end(struct tinyproto_conn *conn)
{
    of_conn(conn)->is_complete = true;
    tinyproto_conn_pause(conn);
}

static void end_with(struct tinyproto_sync *s, enum tinyproto_error err)
{
    s->cause.err = err;
    tinyproto_abort(s->conn);
}

/* In kept_bytes; one message is kept whatever its size. */
static size_t kept_cost(size_t len)
{
    return len < KEPT_MAX_BYTES - KEPT_OVERHEAD ? len + KEPT_OVERHEAD : KEPT_MAX_BYTES;
}

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    struct tinyproto_sync *s = of_conn(conn);
    bool fits =
        list_is_empty(&s->kept) || kept_cost(message->len) <= KEPT_MAX_BYTES - s->kept_bytes;
    struct kept *k = fits ? mem_try_calloc(1, sizeof(*k)) : NULL;

    if (k != NULL)
        k->ptr = tinyproto_message_take(message);
    if (k == NULL || k->ptr == NULL) {
        mem_free(k);
        end_with(s, fits ? TINYPROTO_E_MEMORY : TINYPROTO_E_QUEUE_FULL);
        return;
    }
    k->len = message->len;
    s->kept_bytes += kept_cost(message->len);
    list_push_back(&s->kept, &k->node);
    if (!s->in_transmit)
        tinyproto_conn_pause(conn);
}

static void on_shutdown(struct tinyproto_client *client, struct tinyproto_conn *conn,
                        const struct tinyproto_cause *why)
{
    struct tinyproto_sync *s = tinyproto_client_arg(client);

    (void)conn;
    s->conn = NULL;
    if (s->cause.err == TINYPROTO_OK)
        s->cause = *why;
}

static void on_client_over(struct tinyproto_client *client)
{
    struct tinyproto_sync *s = tinyproto_client_arg(client);

    s->client_is_open = false;
}

static void on_sent(void *arg, struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    struct tinyproto_sync *s = arg;

    (void)conn;
    s->is_sent = true;
    s->sent = why->err;
}

/* ---- Waiting ---- */

static void on_timer(uv_timer_t *timer)
{
    struct tinyproto_sync *s = timer->data;

    s->is_late = true;
}

/* Runs the loop until `is_done`, the connection is over, or the time (negative: none). */
static void wait_for(struct tinyproto_sync *s, bool (*is_done)(const struct tinyproto_sync *s),
                     int timeout_ms)
{
    s->is_late = false;
    uv_update_time(&s->loop);
    if (timeout_ms >= 0)
        (void)uv_timer_start(&s->timer, on_timer, (uint64_t)timeout_ms, 0);
    if (s->conn != NULL)
        tinyproto_conn_resume(s->conn);
    while (!is_done(s) && s->conn != NULL && !s->is_late)
        (void)uv_run(&s->loop, UV_RUN_ONCE);
    (void)uv_timer_stop(&s->timer);
    if (s->conn != NULL)
        tinyproto_conn_pause(s->conn);
}

static bool is_never_done(const struct tinyproto_sync *s)
{
    (void)s;
    return false;
}

static bool is_ready(const struct tinyproto_sync *s)
{
    return s->is_ready;
}

static bool is_sent(const struct tinyproto_sync *s)
{
    return s->is_sent;
}

static bool has_message(const struct tinyproto_sync *s)
{
    return !list_is_empty(&s->kept) || (s->data != NULL && s->is_complete);
}

static enum tinyproto_error tell(struct tinyproto_cause *why, enum tinyproto_error err, int system)
{
    if (why != NULL)
        *why = (struct tinyproto_cause){ .err = err, .system = system };
    return err;
}

/* The connection is over: how? */
static enum tinyproto_error tell_end(const struct tinyproto_sync *s, struct tinyproto_cause *why)
{
    return s->cause.err == TINYPROTO_OK ? tell(why, TINYPROTO_E_CLOSED, 0)
                                        : tell(why, s->cause.err, s->cause.system);
}

/* The call is over and the connection with it. */
static enum tinyproto_error give_up(struct tinyproto_sync *s, enum tinyproto_error err,
                                    struct tinyproto_cause *why)
{
    if (s->conn != NULL)
        end_with(s, err);
    wait_for(s, is_never_done, -1); /* for the end, which waits for nobody */
    return tell(why, err, 0);
}

/* ---- Connecting ---- */

static void on_timer_closed(uv_handle_t *handle)
{
    struct tinyproto_sync *s = handle->data;

    s->timer_is_open = false;
}

static void destroy(struct tinyproto_sync *s)
{
    struct list *node;

    if (s->timer_is_open)
        uv_close((uv_handle_t *)&s->timer, on_timer_closed);
    if (s->client != NULL)
        tinyproto_client_stop(s->client);
    while (s->timer_is_open || s->client_is_open)
        (void)uv_run(&s->loop, UV_RUN_ONCE);
    tinyproto_client_free(s->client);
    (void)uv_run(&s->loop, UV_RUN_DEFAULT); /* what was closed last */
    (void)uv_loop_close(&s->loop);
    while ((node = list_pop_front(&s->kept)) != NULL) {
        struct kept *k = list_entry(node, struct kept, node);

        free(k->ptr);
        mem_free(k);
    }
    mem_free(s);
}

static struct tinyproto_sync *create(enum tinyproto_error *err)
{
    struct tinyproto_sync *s = mem_try_calloc(1, sizeof(*s));
    struct tinyproto_client_hooks hooks = { .arg = s,
                                            .post_loop = on_client_over,
                                            .conn_shutdown = on_shutdown };

    *err = TINYPROTO_E_MEMORY;
    if (s == NULL)
        return NULL;
    list_init(&s->kept);
    s->handler = (struct tinyproto_handler){ .arg = s,
                                             .pre_loop = on_pre_loop,
                                             .begin = on_begin,
                                             .transmission_received = on_message,
                                             .data = on_data,
                                             .end = on_end };
    *err = TINYPROTO_E_SYSTEM;
    if (uv_loop_init(&s->loop) != 0) {
        mem_free(s);
        return NULL;
    }
    (void)uv_timer_init(&s->loop, &s->timer);
    s->timer.data = s;
    s->timer_is_open = true;
    *err = tinyproto_client_new(&hooks, NULL, &s->loop, &s->client);
    if (*err != TINYPROTO_OK) {
        destroy(s);
        return NULL;
    }
    s->client_is_open = true;
    return s;
}

enum tinyproto_error tinyproto_sync_connect(const struct tinyproto_address *address, int timeout_ms,
                                            struct tinyproto_sync **out,
                                            struct tinyproto_cause *why)
{
    enum tinyproto_error err;
    struct tinyproto_sync *s = create(&err);

    *out = NULL;
    if (s == NULL)
        return tell(why, err, err == TINYPROTO_E_SYSTEM ? errno : 0);
    tinyproto_client_set_handler(s->client, &s->handler);
    tinyproto_client_set_timeout(s->client, timeout_ms > 0 ? (uint32_t)timeout_ms : 0);
    s->conn = tinyproto_client_connect_address(s->client, address);
    if (s->conn == NULL) {
        destroy(s);
        return tell(why, TINYPROTO_E_ARGUMENT, 0);
    }
    wait_for(s, is_ready, timeout_ms);
    if (s->conn != NULL && s->is_ready) {
        tinyproto_conn_set_timeout(s->conn, STALL_MS);
        snprintf(s->peer, sizeof(s->peer), "%s", tinyproto_conn_peer(s->conn));
        *out = s;
        return TINYPROTO_OK;
    }
    err = s->conn == NULL ? tell_end(s, why) : tell(why, TINYPROTO_E_TIMEOUT, 0);
    destroy(s);
    return err;
}

void tinyproto_sync_close(struct tinyproto_sync *s)
{
    if (s != NULL)
        destroy(s); /* stopping a client closes its connections in order */
}

/* ---- Settings ---- */

void tinyproto_sync_set_timeout(struct tinyproto_sync *s, uint32_t stall_ms)
{
    if (s->conn != NULL)
        tinyproto_conn_set_timeout(s->conn, stall_ms);
}

void tinyproto_sync_set_receive_max(struct tinyproto_sync *s, uint32_t bytes)
{
    if (s->conn != NULL)
        tinyproto_conn_set_receive_max(s->conn, bytes);
}

enum tinyproto_error tinyproto_sync_add_plugin(struct tinyproto_sync *s,
                                               const struct tinyproto_plugin *plugin)
{
    return s->conn != NULL ? tinyproto_conn_add_plugin(s->conn, plugin) : TINYPROTO_E_STATE;
}

const char *tinyproto_sync_peer(const struct tinyproto_sync *s)
{
    return s->peer;
}

/* ---- Transmitting ---- */

/* `err` is what the queueing call said. */
static enum tinyproto_error finish_transmit(struct tinyproto_sync *s, enum tinyproto_error err,
                                            int timeout_ms, struct tinyproto_cause *why)
{
    if (err != TINYPROTO_OK)
        return tell(why, err, 0);
    s->is_sent = false;
    s->in_transmit = true;
    wait_for(s, is_sent, timeout_ms);
    s->in_transmit = false;
    if (s->is_sent && s->sent == TINYPROTO_OK)
        return tell(why, TINYPROTO_OK, 0);
    if (s->conn == NULL) /* which knows better than `sent` why */
        return tell_end(s, why);
    return give_up(s, TINYPROTO_E_TIMEOUT, why);
}

enum tinyproto_error tinyproto_sync_transmit(struct tinyproto_sync *s, const void *ptr, size_t len,
                                             int timeout_ms, struct tinyproto_cause *why)
{
    if (s->conn == NULL)
        return tell_end(s, why);
    return finish_transmit(s, tinyproto_transmit_then(s->conn, ptr, len, on_sent, s), timeout_ms,
                           why);
}

enum tinyproto_error tinyproto_sync_transmit_fd(struct tinyproto_sync *s, int fd, int64_t offset,
                                                uint64_t size, int timeout_ms,
                                                struct tinyproto_cause *why)
{
    if (s->conn == NULL)
        return tell_end(s, why);
    return finish_transmit(s, tinyproto_transmit_fd(s->conn, fd, offset, size, on_sent, s),
                           timeout_ms, why);
}

/* ---- Receiving ---- */

static bool take_kept(struct tinyproto_sync *s, void **ptr, size_t *len)
{
    struct list *node = list_pop_front(&s->kept);
    struct kept *k;

    if (node == NULL)
        return false;
    k = list_entry(node, struct kept, node);
    *ptr = k->ptr;
    *len = k->len;
    s->kept_bytes -= kept_cost(k->len);
    mem_free(k);
    return true;
}

enum tinyproto_error tinyproto_sync_receive(struct tinyproto_sync *s, int timeout_ms, void **ptr,
                                            size_t *len, struct tinyproto_cause *why)
{
    if (list_is_empty(&s->kept) && s->conn != NULL)
        wait_for(s, has_message, timeout_ms);
    if (take_kept(s, ptr, len))
        return tell(why, TINYPROTO_OK, 0);
    return s->conn == NULL ? tell_end(s, why) : tell(why, TINYPROTO_E_TIMEOUT, 0);
}

enum tinyproto_error tinyproto_sync_receive_to(struct tinyproto_sync *s, int timeout_ms,
                                               tinyproto_sync_data_fn *data, void *arg,
                                               uint64_t *size, struct tinyproto_cause *why)
{
    void *ptr;
    size_t len;
    bool taken;

    s->data = data;
    s->data_arg = arg;
    s->is_complete = false;
    if (list_is_empty(&s->kept) && s->conn != NULL)
        wait_for(s, has_message, timeout_ms);
    s->data = NULL;
    *size = s->size;
    if (s->is_complete)
        return tell(why, TINYPROTO_OK, 0);
    if (take_kept(s, &ptr, &len)) { /* it had begun, whole, in an earlier call */
        taken = len == 0 || data(arg, ptr, len);
        *size = len;
        free(ptr);
        return taken ? tell(why, TINYPROTO_OK, 0) : give_up(s, TINYPROTO_E_STOPPED, why);
    }
    return s->conn == NULL ? tell_end(s, why) : give_up(s, TINYPROTO_E_TIMEOUT, why);
}
