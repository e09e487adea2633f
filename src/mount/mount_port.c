/*
 * The loop's end of mounted requests: takes what hosts have left in their exchanges, and gives it to the
 * application as http_server.c would. Woken by an async handle; a look at an exchange is a turn of its own,
 * so that no callback of the application runs inside its own call.
 */
#include <stdlib.h>

#include "mem.h"
#include "mount_private.h"

/* ---- Due exchanges ---- */

void mount_port_ref(struct mount_port *port)
{
    atomic_fetch_add(&port->refs, 1);
}

void mount_port_unref(struct mount_port *port)
{
    if (atomic_fetch_sub(&port->refs, 1) != 1)
        return;
    uv_cond_destroy(&port->told);
    uv_mutex_destroy(&port->lock);
    mem_free(port);
}

void mount_port_schedule(struct lonely_exchange *e)
{
    struct mount_port *port = e->port;

    if (port->closed || list_is_linked(&e->due) || !list_is_linked(&e->node))
        return;
    e->refs++;
    list_push_back(&port->due, &e->due);
    uv_async_send(&port->wakeup);
}

static void schedule(struct lonely_exchange *e)
{
    uv_mutex_lock(&e->port->lock);
    mount_port_schedule(e);
    uv_mutex_unlock(&e->port->lock);
}

bool mount_port_add(struct mount_port *port, struct lonely_exchange *e)
{
    bool good;

    uv_mutex_lock(&port->lock);
    good = !port->draining && !port->closed && port->exchanges + port->streams <= port->max;
    if (good) {
        e->life = EXCHANGE_NEW;
        e->refs++;
        list_push_back(&port->all, &e->node);
        mount_port_schedule(e);
    }
    uv_mutex_unlock(&port->lock);
    return good;
}

/* The application is done with it. */
static void finish(struct lonely_exchange *e)
{
    struct mount_port *port = e->port;

    e->life = EXCHANGE_OVER;
    uv_mutex_lock(&port->lock);
    list_remove(&e->node);
    if (port->draining && !port->closed && list_is_empty(&port->all))
        uv_async_send(&port->wakeup);
    uv_mutex_unlock(&port->lock);
    exchange_unref(e);
}

/* ---- What the application may do with its exchange ---- */

static struct lonely_exchange *of(struct http_exchange *x)
{
    return list_entry(x, struct lonely_exchange, x);
}

static void exchange_read_body(struct http_exchange *x, const struct http_body_ops *ops, void *arg)
{
    struct lonely_exchange *e = of(x);

    e->body_ops = ops;
    e->body_arg = arg;
    e->life = EXCHANGE_BODY;
    uv_mutex_lock(&e->port->lock);
    e->reads = true;
    exchange_tell(e);
    uv_mutex_unlock(&e->port->lock);
}

static void exchange_pause(struct http_exchange *x)
{
    struct lonely_exchange *e = of(x);

    if (e->life == EXCHANGE_BODY)
        e->life = EXCHANGE_PAUSED;
}

static void exchange_resume(struct http_exchange *x)
{
    struct lonely_exchange *e = of(x);

    if (e->life != EXCHANGE_PAUSED)
        return;
    e->life = EXCHANGE_BODY;
    schedule(e);
}

static void exchange_respond(struct http_exchange *x, const struct http_response *response)
{
    struct lonely_exchange *e = of(x);

    if (e->life != EXCHANGE_AWAITED)
        exchange_answer(e, response);
    finish(e);
}

static bool exchange_upgrade(struct http_exchange *x, const char *headers,
                             http_on_upgraded_fn *on_upgraded, void *arg)
{
    struct lonely_exchange *e = of(x);

    if (e->life == EXCHANGE_AWAITED) {
        finish(e);
        return false;
    }
    e->life = EXCHANGE_SWITCHING;
    e->on_upgraded = on_upgraded;
    e->upgraded_arg = arg;
    exchange_answer(e, &(struct http_response){ .status = 101, .headers = headers });
    return true;
}

static const struct http_exchange_ops exchange_ops = {
    .read_body = exchange_read_body,
    .pause = exchange_pause,
    .resume = exchange_resume,
    .respond = exchange_respond,
    .upgrade = exchange_upgrade,
};

/* ---- Looking at one ---- */

static void drop_head(struct lonely_exchange *e)
{
    mem_free(e->head);
    e->head = NULL;
    e->x.head.headers = NULL; /* a use after on_request shows at once */
    e->x.head.header_count = 0;
}

static void begin(struct lonely_exchange *e)
{
    struct mount_port *port = e->port;

    e->life = EXCHANGE_ASKED;
    e->x.ops = &exchange_ops;
    port->on_request(port->app, &e->x);
    drop_head(e);
}

/* Nobody is there any more for the answer, if there is to be one. */
static void abandon(struct lonely_exchange *e)
{
    enum exchange_life life = e->life;

    if (life == EXCHANGE_ASKED || life == EXCHANGE_ENDED) {
        e->life = EXCHANGE_AWAITED;
        return;
    }
    if (life == EXCHANGE_AWAITED || life == EXCHANGE_OVER)
        return;
    finish(e); /* it is held by who looks at it */
    if (life == EXCHANGE_BODY || life == EXCHANGE_PAUSED)
        e->body_ops->on_abort(e->body_arg);
    else if (life == EXCHANGE_SWITCHING)
        e->on_upgraded(e->upgraded_arg, NULL, (struct lonely_span){ 0 });
}

static void answer_status(struct lonely_exchange *e, int status)
{
    exchange_answer(
        e, &(struct http_response){ .status = status,
                                    .headers = status == 503 ? "Retry-After: 1\r\n" : NULL });
}

static void on_stream_gone(void *arg)
{
    struct mount_port *port = arg;

    uv_mutex_lock(&port->lock);
    port->streams--;
    if (port->closed)
        uv_async_send(&port->wakeup);
    uv_mutex_unlock(&port->lock);
}

static void hand_over(struct lonely_exchange *e)
{
    struct mount_port *port = e->port;
    struct stream *stream = stream_tcp_open(port->loop, e->fd, &port->buffer, NULL, NULL);
    struct lonely_span rest = { e->rest.ptr, e->rest.len };

    e->fd = -1;
    if (stream != NULL) {
        stream->on_gone = on_stream_gone;
        stream->gone_arg = port;
        uv_mutex_lock(&port->lock);
        port->streams++;
        uv_mutex_unlock(&port->lock);
    }
    finish(e);
    e->on_upgraded(e->upgraded_arg, stream, stream != NULL ? rest : (struct lonely_span){ 0 });
}

/* Takes what is there of the body into `taken`; the host may send more then. `*whole`: there is no more. */
static void take_body(struct lonely_exchange *e, bool *whole)
{
    struct buf empty = e->taken;

    uv_mutex_lock(&e->port->lock);
    e->taken = e->inbox;
    e->inbox = empty;
    *whole = e->ended;
    exchange_tell(e);
    uv_mutex_unlock(&e->port->lock);
}

static void read_on(struct lonely_exchange *e)
{
    bool whole;

    take_body(e, &whole);
    if (e->taken.len > 0) {
        e->x.received += e->taken.len;
        e->body_ops->on_piece(e->body_arg, (struct lonely_span){ e->taken.ptr, e->taken.len });
        buf_clear(&e->taken);
    }
    if (e->life == EXCHANGE_BODY && whole) {
        e->life = EXCHANGE_ENDED;
        e->body_ops->on_end(e->body_arg);
    }
}

static void look_at(struct lonely_exchange *e)
{
    bool left, given;
    int bad;

    uv_mutex_lock(&e->port->lock);
    left = e->left;
    given = e->given;
    bad = e->bad;
    uv_mutex_unlock(&e->port->lock);
    if (given && e->life == EXCHANGE_SWITCHING) {
        hand_over(e);
        return;
    }
    if (left) {
        abandon(e);
        return;
    }
    if (e->life == EXCHANGE_NEW)
        begin(e);
    if (bad != 0 && (e->life == EXCHANGE_BODY || e->life == EXCHANGE_PAUSED)) {
        answer_status(e, bad);
        abandon(e);
    } else if (e->life == EXCHANGE_BODY) {
        read_on(e);
    }
}

static struct lonely_exchange *next_due(struct mount_port *port, struct list *due)
{
    struct list *node;

    uv_mutex_lock(&port->lock);
    node = list_pop_front(due);
    uv_mutex_unlock(&port->lock);
    return node == NULL ? NULL : list_entry(node, struct lonely_exchange, due);
}

static void look_at_all(struct mount_port *port)
{
    struct lonely_exchange *e;
    struct list due; /* what becomes due meanwhile has the next turn */

    list_init(&due);
    uv_mutex_lock(&port->lock);
    list_move_all(&due, &port->due);
    uv_mutex_unlock(&port->lock);
    while ((e = next_due(port, &due)) != NULL) {
        look_at(e);
        exchange_unref(e);
    }
}

/* ---- The end ---- */

static void check_drained(struct mount_port *port)
{
    void (*on_drained)(void *arg) = port->on_drained;
    bool drained;

    uv_mutex_lock(&port->lock);
    drained = port->draining && !port->closed && list_is_empty(&port->all);
    uv_mutex_unlock(&port->lock);
    if (!drained || on_drained == NULL)
        return;
    port->on_drained = NULL;
    on_drained(port->drained_arg);
}

static void on_wakeup_closed(uv_handle_t *wakeup)
{
    struct mount_port *port = wakeup->data;
    void (*on_closed)(void *arg) = port->on_closed;
    void *arg = port->closed_arg;

    mount_port_unref(port);
    on_closed(arg);
}

static void check_closed(struct mount_port *port)
{
    bool closed;

    uv_mutex_lock(&port->lock);
    closed = port->closed && port->streams == 0 && !port->wakeup_closed;
    uv_mutex_unlock(&port->lock);
    if (!closed)
        return;
    port->wakeup_closed = true;
    uv_close((uv_handle_t *)&port->wakeup, on_wakeup_closed);
}

static void on_wakeup(uv_async_t *wakeup)
{
    struct mount_port *port = wakeup->data;

    look_at_all(port);
    check_drained(port);
    check_closed(port);
}

void mount_port_drain(struct mount_port *port, void (*on_drained)(void *arg), void *arg)
{
    port->on_drained = on_drained;
    port->drained_arg = arg;
    uv_mutex_lock(&port->lock);
    port->draining = true;
    uv_mutex_unlock(&port->lock);
    uv_async_send(&port->wakeup);
}

static struct lonely_exchange *next_open(struct mount_port *port, struct list *open)
{
    struct lonely_exchange *e = NULL;
    struct list *node;

    uv_mutex_lock(&port->lock);
    node = list_pop_front(open);
    if (node != NULL) {
        list_push_back(&port->all, node);
        e = list_entry(node, struct lonely_exchange, node);
        e->refs++;
    }
    uv_mutex_unlock(&port->lock);
    return e;
}

void mount_port_close(struct mount_port *port, void (*on_closed)(void *arg), void *arg)
{
    struct lonely_exchange *e;
    struct list open, due; /* an on_abort may answer, and so end, any other exchange */

    list_init(&open);
    list_init(&due);
    port->on_closed = on_closed;
    port->closed_arg = arg;
    uv_mutex_lock(&port->lock);
    port->closed = true;
    list_move_all(&due, &port->due);
    list_move_all(&open, &port->all);
    uv_mutex_unlock(&port->lock);
    while ((e = next_open(port, &open)) != NULL) {
        if (e->life != EXCHANGE_SWITCHING && e->life != EXCHANGE_AWAITED)
            answer_status(e, 503);
        abandon(e);
        exchange_unref(e);
    }
    while ((e = next_due(port, &due)) != NULL)
        exchange_unref(e);
    uv_async_send(&port->wakeup); /* goes on in on_wakeup */
}

struct mount_port *mount_port_create(uv_loop_t *loop, size_t max, http_on_request_fn *on_request,
                                     void *app)
{
    struct mount_port *port = mem_calloc(1, sizeof(*port));

    if (uv_async_init(loop, &port->wakeup, on_wakeup) != 0) {
        mem_free(port);
        return NULL;
    }
    port->wakeup.data = port;
    port->loop = loop;
    port->max = max;
    port->on_request = on_request;
    port->app = app;
    atomic_init(&port->refs, 1);
    uv_mutex_init(&port->lock);
    uv_cond_init(&port->told);
    list_init(&port->all);
    list_init(&port->due);
    return port;
}
