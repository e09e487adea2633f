/*
 * The turn of the loop of servers and clients: connections that have something are served, passes
 * are made, stopping goes on. Called by libuv; set up by server.c and client.c.
 */
#include "endpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "conn_private.h"
#include "mem.h"

struct letter {
    struct list node;
    char id[TINYPROTO_ID_MAX];
    uint8_t *ptr; /* malloc'ed */
    size_t len;
};

/* ---- Made and unmade ---- */

enum tinyproto_error endpoint_init(struct endpoint *e, const struct endpoint_ops *ops,
                                   const struct tinyproto_options *options, uv_loop_t *loop)
{
    e->ops = ops;
    e->options = *options;
    e->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (e->wake_fd < 0)
        return TINYPROTO_E_SYSTEM;
    e->owns_loop = loop == NULL;
    e->loop = e->owns_loop ? &e->own_loop : loop;
    if (e->owns_loop && uv_loop_init(&e->own_loop) != 0) {
        close(e->wake_fd);
        return TINYPROTO_E_SYSTEM;
    }
    list_init(&e->conns);
    list_init(&e->dirty);
    list_init(&e->unresolved);
    list_init(&e->mail);
    map_init(&e->by_id);
    atomic_init(&e->stop_asked, false);
    (void)pthread_mutex_init(&e->mutex, NULL);
    return TINYPROTO_OK;
}

void endpoint_fini(struct endpoint *e)
{
    if (e->owns_loop) {
        (void)uv_run(&e->own_loop, UV_RUN_DEFAULT); /* what was closed last */
        (void)uv_loop_close(&e->own_loop);
    }
    close(e->wake_fd);
    map_fini(&e->by_id);
    mem_free(e->plugins);
    (void)pthread_mutex_destroy(&e->mutex);
}

/* ---- The turn ---- */

static void on_idle(uv_idle_t *idle);

void endpoint_mark(struct endpoint *e, struct list *dirty)
{
    if (!list_is_linked(dirty))
        list_push_back(&e->dirty, dirty);
    if (e->is_open && !e->is_closing && !uv_is_active((uv_handle_t *)&e->idle))
        (void)uv_idle_start(&e->idle, on_idle);
}

static void serve_dirty(struct endpoint *e)
{
    struct list now = LIST_INIT(now), *node;

    list_move_all(&now, &e->dirty); /* what these mark has its turn next time */
    while ((node = list_pop_front(&now)) != NULL) {
        struct tinyproto_conn *c = list_entry(node, struct tinyproto_conn, dirty);

        if (conn_is_alive(c))
            conn_service(c, false);
        else
            conn_finalise(c);
    }
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct endpoint *e = handle->data;

    if (--e->open_handles > 0)
        return;
    e->is_open = false;
    e->is_stopping = false;
    e->is_closing = false;
    mem_free(e->scratch);
    e->scratch = NULL;
    e->ops->post_loop(e);
}

static void clear_mail(struct list *mail)
{
    struct list *node;

    while ((node = list_pop_front(mail)) != NULL) {
        struct letter *l = list_entry(node, struct letter, node);

        free(l->ptr);
        mem_free(l);
    }
}

static void close_handles(struct endpoint *e)
{
    struct list mail = LIST_INIT(mail);

    (void)pthread_mutex_lock(&e->mutex);
    e->takes_mail = false;
    list_move_all(&mail, &e->mail);
    e->mail_bytes = 0;
    (void)pthread_mutex_unlock(&e->mutex);
    clear_mail(&mail);
    e->is_closing = true;
    deadline_clear(&e->stop_due);
    uv_close((uv_handle_t *)&e->check, on_handle_closed);
    uv_close((uv_handle_t *)&e->idle, on_handle_closed);
    uv_close((uv_handle_t *)&e->tick, on_handle_closed);
    uv_close((uv_handle_t *)&e->wake, on_handle_closed);
    deadlines_close(&e->deadlines, on_handle_closed);
}

static bool close_one(void *arg, struct tinyproto_conn *c)
{
    (void)arg;
    tinyproto_close(c);
    return true;
}

static bool abort_one(void *arg, struct tinyproto_conn *c)
{
    (void)arg;
    tinyproto_abort(c);
    return true;
}

void endpoint_abort_all(struct endpoint *e)
{
    list_foreach (&e->conns, node, next)
        (void)abort_one(NULL, list_entry(node, struct tinyproto_conn, node));
}

static void begin_stop(struct endpoint *e)
{
    e->is_stopping = true;
    e->ops->stopping(e);
    endpoint_each(e, close_one, NULL);
    if (e->options.stop_timeout_ms == 0)
        endpoint_abort_all(e);
    deadline_set(&e->deadlines, DUE_STOP, &e->stop_due, e->options.stop_timeout_ms);
}

static void turn(struct endpoint *e)
{
    if (!e->pre_loop_ran) {
        e->pre_loop_ran = true;
        e->ops->pre_loop(e);
    }
    if (atomic_load(&e->stop_asked) && !e->is_stopping)
        begin_stop(e);
    serve_dirty(e);
    opening_look_up(e);
    if (e->is_stopping && !e->is_closing && list_is_empty(&e->conns) && e->holds == 0)
        close_handles(e);
}

static void on_idle(uv_idle_t *idle)
{
    struct endpoint *e = idle->data;

    turn(e);
    if (list_is_empty(&e->dirty) && !e->is_closing)
        (void)uv_idle_stop(idle);
}

static void on_check(uv_check_t *check)
{
    struct endpoint *e = check->data;

    turn(e);
    if (e->wants_passes && !e->is_stopping)
        e->ops->loop_pass(e);
}

void endpoint_release(struct endpoint *e)
{
    e->holds--;
    (void)uv_idle_start(&e->idle, on_idle); /* that may have been the last */
}

/* ---- Passes ---- */

static void on_tick(uv_timer_t *tick)
{
    struct endpoint *e = tick->data;

    if (e->wants_passes && !e->is_stopping)
        e->ops->loop_pass(e);
    if (e->n_passing == 0)
        return;
    list_foreach (&e->conns, node, next) { /* none is freed before the turn */
        struct tinyproto_conn *c = list_entry(node, struct tinyproto_conn, node);

        if (c->is_passing && tinyproto_conn_state(c) == TINYPROTO_OPEN)
            c->handler->loop_pass(c);
    }
}

void endpoint_update_tick(struct endpoint *e)
{
    const uint32_t ms = e->options.interval_ms;
    bool wanted = (e->wants_passes || e->n_passing > 0) && ms > 0;

    if (!e->is_open || e->is_closing || wanted == (bool)uv_is_active((uv_handle_t *)&e->tick))
        return;
    if (wanted)
        (void)uv_timer_start(&e->tick, on_tick, ms, ms);
    else
        (void)uv_timer_stop(&e->tick);
}

/* ---- Deadlines ---- */

static void on_due(void *arg, unsigned kind, struct deadline *d)
{
    struct endpoint *e = arg;

    if (kind == DUE_STOP)
        endpoint_abort_all(e);
    else if (kind == DUE_ATTEMPT || kind == DUE_GRACE)
        conn_on_due(list_entry(d, struct tinyproto_conn, extra), (enum deadline_kind)kind);
    else
        conn_on_due(list_entry(d, struct tinyproto_conn, life), (enum deadline_kind)kind);
}

/* ---- Other threads ---- */

static void ring(struct endpoint *e)
{
    const uint64_t one = 1;
    ssize_t n = write(e->wake_fd, &one, sizeof(one)); /* fails only if it rings already */

    (void)n;
}

void endpoint_ask_stop(struct endpoint *e)
{
    int kept = errno; /* of what a signal handler interrupts */

    atomic_store(&e->stop_asked, true);
    ring(e);
    errno = kept;
}

enum tinyproto_error endpoint_post(struct endpoint *e, const char *id, const void *ptr, size_t len)
{
    size_t id_len = strlen(id);
    struct letter *l;
    enum tinyproto_error err = TINYPROTO_OK;

    if (id_len != TINYPROTO_ID_MAX - 1)
        return TINYPROTO_E_ARGUMENT;
    if (len > e->options.send_max)
        return TINYPROTO_E_TOO_LARGE;
    l = mem_try_calloc(1, sizeof(*l));
    if (l != NULL)
        l->ptr = malloc(len > 0 ? len : 1);
    if (l == NULL || l->ptr == NULL) {
        mem_free(l);
        return TINYPROTO_E_MEMORY;
    }
    memcpy(l->id, id, id_len);
    if (len > 0)
        memcpy(l->ptr, ptr, len);
    l->len = len;
    (void)pthread_mutex_lock(&e->mutex);
    if (!e->takes_mail)
        err = TINYPROTO_E_STATE;
    else if (e->mail_bytes > 0 &&
             (len > e->options.queue_max_bytes || e->mail_bytes > e->options.queue_max_bytes - len))
        err = TINYPROTO_E_QUEUE_FULL;
    if (err == TINYPROTO_OK) {
        list_push_back(&e->mail, &l->node);
        e->mail_bytes += len + sizeof(*l);
    }
    (void)pthread_mutex_unlock(&e->mutex);
    if (err == TINYPROTO_OK) {
        ring(e);
        return TINYPROTO_OK;
    }
    free(l->ptr);
    mem_free(l);
    return err;
}

static void letter_destroy(struct endpoint *e, struct letter *l)
{
    (void)pthread_mutex_lock(&e->mutex);
    e->mail_bytes -= l->len + sizeof(*l);
    (void)pthread_mutex_unlock(&e->mutex);
    free(l->ptr);
    mem_free(l);
}

/* false: there is no room in the send queue. */
static bool deliver(struct tinyproto_conn *c, struct letter *l)
{
    enum tinyproto_error err = tinyproto_transmit_take(c, l->ptr, l->len, NULL, NULL);

    if (err == TINYPROTO_E_QUEUE_FULL)
        return false;
    if (err == TINYPROTO_OK)
        l->ptr = NULL;
    letter_destroy(c->owner, l);
    return true;
}

void endpoint_deliver_kept(struct tinyproto_conn *c)
{
    struct list *node;

    while ((node = list_pop_front(&c->mail)) != NULL) {
        if (!deliver(c, list_entry(node, struct letter, node))) {
            list_push_front(&c->mail, node);
            return;
        }
    }
}

static void deliver_mail(struct endpoint *e)
{
    struct list mail = LIST_INIT(mail), *node;

    (void)pthread_mutex_lock(&e->mutex);
    list_move_all(&mail, &e->mail);
    (void)pthread_mutex_unlock(&e->mutex);
    while ((node = list_pop_front(&mail)) != NULL) {
        struct letter *l = list_entry(node, struct letter, node);
        struct tinyproto_conn *c = endpoint_find(e, l->id);

        if (c == NULL)
            letter_destroy(e, l);
        else if (!list_is_empty(&c->mail) || !deliver(c, l))
            list_push_back(&c->mail, node); /* in order, behind those before it */
    }
}

static void on_wake(uv_poll_t *wake, int status, int events)
{
    struct endpoint *e = wake->data;
    uint64_t count;
    ssize_t n = read(e->wake_fd, &count, sizeof(count));

    (void)n;
    (void)status;
    (void)events;
    deliver_mail(e);
    (void)uv_idle_start(&e->idle, on_idle); /* stopping is a matter of the turn */
}

/* ---- Open ---- */

static bool init_handles(struct endpoint *e)
{
    if (uv_poll_init(e->loop, &e->wake, e->wake_fd) != 0)
        return false;
    (void)uv_check_init(e->loop, &e->check);
    (void)uv_idle_init(e->loop, &e->idle);
    (void)uv_timer_init(e->loop, &e->tick);
    deadlines_init(&e->deadlines, e->loop, on_due, e);
    e->wake.data = e;
    e->check.data = e;
    e->idle.data = e;
    e->tick.data = e;
    e->open_handles = 5;
    (void)uv_poll_start(&e->wake, UV_READABLE, on_wake);
    (void)uv_check_start(&e->check, on_check);
    (void)uv_idle_start(&e->idle, on_idle); /* for pre_loop */
    /* `wake` keeps the loop alive, since a stop may come at any time. */
    uv_unref((uv_handle_t *)&e->check);
    uv_unref((uv_handle_t *)&e->tick);
    return true;
}

enum tinyproto_error endpoint_open(struct endpoint *e)
{
    uint64_t count;
    ssize_t n;

    if (e->is_open)
        return TINYPROTO_E_STATE;
    e->scratch = mem_try_alloc(SCRATCH_BYTES);
    if (e->scratch == NULL)
        return TINYPROTO_E_MEMORY;
    atomic_store(&e->stop_asked, false);
    n = read(e->wake_fd, &count, sizeof(count)); /* forgets a stop that came before */
    (void)n;
    if (!init_handles(e)) {
        mem_free(e->scratch);
        e->scratch = NULL;
        return TINYPROTO_E_SYSTEM;
    }
    e->pre_loop_ran = false;
    e->is_open = true;
    (void)pthread_mutex_lock(&e->mutex);
    e->takes_mail = true;
    (void)pthread_mutex_unlock(&e->mutex);
    endpoint_update_tick(e);
    return TINYPROTO_OK;
}

void endpoint_run(struct endpoint *e)
{
    while (e->is_open)
        (void)uv_run(e->loop, UV_RUN_ONCE);
}

/* ---- Connections ---- */

enum tinyproto_error endpoint_add_plugin(struct endpoint *e, const struct tinyproto_plugin *p)
{
    struct tinyproto_plugin *grown =
        mem_try_realloc(e->plugins, (e->n_plugins + 1) * sizeof(*e->plugins));

    if (grown == NULL)
        return TINYPROTO_E_MEMORY;
    e->plugins = grown;
    e->plugins[e->n_plugins++] = *p;
    return TINYPROTO_OK;
}

struct tinyproto_conn *endpoint_find(const struct endpoint *e, const char *id)
{
    struct map_node *node = map_find(&e->by_id, id, strlen(id));

    return node != NULL ? map_entry(node, struct tinyproto_conn, by_id) : NULL;
}

void endpoint_each(struct endpoint *e, bool (*fn)(void *arg, struct tinyproto_conn *c), void *arg)
{
    list_foreach (&e->conns, node, next) { /* none is freed before the turn */
        struct tinyproto_conn *c = list_entry(node, struct tinyproto_conn, node);

        if (!c->is_refusal && conn_is_alive(c) && !fn(arg, c))
            return;
    }
}
