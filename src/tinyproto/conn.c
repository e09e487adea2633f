/*
 * The life of a connection: made by server.c or client.c, connected by opening.c, served each time
 * its socket or the program has something, ended, told, freed. Also what the program may ask of it
 * (tinyproto/conn.h).                                     (doc/protocol/tinyproto.md, 2, 4, 5 and 9)
 */
#include "conn_private.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mem.h"

/* ---- Made ---- */

static bool make_id(char out[TINYPROTO_ID_MAX])
{
    uint8_t b[16];

    if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b))
        return false;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* version 4 */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(out, TINYPROTO_ID_MAX,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
             b[15]);
    return true;
}

static bool set_handler(struct tinyproto_conn *c, const struct tinyproto_handler *handler)
{
    bool passing = handler != NULL && handler->loop_pass != NULL;
    void *data = NULL;

    if (handler != NULL && handler->data_size > 0) {
        data = mem_try_calloc(1, handler->data_size);
        if (data == NULL)
            return false;
    }
    mem_free(c->data);
    c->data = data;
    c->handler = handler;
    c->owner->n_passing += (size_t)passing - (size_t)c->is_passing;
    c->is_passing = passing;
    endpoint_update_tick(c->owner);
    return true;
}

struct tinyproto_conn *conn_create(struct endpoint *owner, bool is_refusal, const char *peer_text)
{
    struct tinyproto_conn *c = mem_try_calloc(1, sizeof(*c));
    size_t len = strlen(peer_text) + 1;

    if (c == NULL)
        return NULL;
    c->owner = owner;
    c->fd = -1;
    c->is_refusal = is_refusal;
    c->open_ms = owner->options.open_timeout_ms;
    c->stall_ms = owner->options.stall_timeout_ms;
    c->idle_ms = owner->options.idle_timeout_ms;
    outgoing_init(&c->out);
    tinyproto_frame_init(&c->frame, owner->options.receive_max);
    c->peer_text = mem_try_alloc(len);
    if (c->peer_text == NULL || !make_id(c->id) ||
        (!is_refusal && !set_handler(c, owner->handler))) {
        mem_free(c->peer_text);
        mem_free(c);
        return NULL;
    }
    memcpy(c->peer_text, peer_text, len);
    list_init(&c->dirty);
    list_init(&c->mail);
    list_push_back(&owner->conns, &c->node);
    if (is_refusal) {
        owner->n_refused++;
    } else {
        owner->count++;
        (void)map_insert(&owner->by_id, &c->by_id, c->id, TINYPROTO_ID_MAX - 1);
    }
    return c;
}

enum tinyproto_error conn_open_plugins(struct tinyproto_conn *c)
{
    enum tinyproto_error err = TINYPROTO_OK;

    for (size_t i = 0; i < c->owner->n_plugins && err == TINYPROTO_OK; i++)
        err = plugins_add(c, &c->owner->plugins[i]);
    return err;
}

/* ---- The socket ---- */

bool conn_poll_open(struct tinyproto_conn *c, int fd)
{
    if (uv_poll_init(c->owner->loop, &c->poll, fd) != 0) {
        close(fd);
        return false;
    }
    c->fd = fd;
    c->poll.data = c;
    c->has_poll = true;
    c->pending++;
    return true;
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct tinyproto_conn *c = handle->data;

    c->pending--;
    if (c->opening != NULL && conn_is_alive(c))
        opening_next(c);
    else
        endpoint_mark(c->owner, &c->dirty);
}

void conn_poll_close(struct tinyproto_conn *c)
{
    if (!c->has_poll)
        return;
    c->has_poll = false;
    c->events = 0;
    uv_close((uv_handle_t *)&c->poll, on_poll_closed);
    close(c->fd); /* libuv watches no more */
    c->fd = -1;
}

bool conn_watch(struct tinyproto_conn *c, int events, uv_poll_cb cb)
{
    if (events == c->events)
        return true;
    c->events = events;
    return events == 0 ? uv_poll_stop(&c->poll) == 0 : uv_poll_start(&c->poll, events, cb) == 0;
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct tinyproto_conn *c = poll->data;
    bool fresh = false;

    if (status < 0) { /* libuv has stopped watching; the socket's own error is told by recv */
        c->events = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    if ((events & UV_WRITABLE) != 0)
        c->out.blocked = false;
    if ((events & UV_READABLE) != 0 && !c->in.paused && !c->in.eof)
        fresh = incoming_read(c);
    if (conn_is_alive(c) && status < 0 && (c->in.paused || c->in.eof))
        conn_end_broken(c, ECONNRESET);
    conn_service(c, fresh);
}

static void life_set(struct tinyproto_conn *c, enum deadline_kind kind, uint32_t after_ms)
{
    c->life_kind = kind;
    deadline_set(&c->owner->deadlines, kind, &c->life, after_ms);
}

void conn_handshake(struct tinyproto_conn *c)
{
    const uint8_t byte = c->is_refusal ? TINYPROTO_BYTE_LIMIT : TINYPROTO_BYTE_OK;
    const int on = 1;

    /* Of no use to a Unix socket, which says so. */
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    c->state = c->is_refusal || c->own_close ? TINYPROTO_CLOSING : TINYPROTO_HANDSHAKE;
    if (!c->life.set)
        life_set(c, DUE_OPEN, c->open_ms);
    outgoing_control(c, &byte, 1);
    endpoint_mark(c->owner, &c->dirty);
}

/* ---- Served ---- */

/* In an orderly close: when everything is written, the end of the stream, then the peer's. */
static void progress_close(struct tinyproto_conn *c)
{
    if (c->state != TINYPROTO_CLOSING || c->is_shut || !outgoing_is_empty(&c->out))
        return;
    if (c->in.eof || (!c->frame.ready && !c->is_refusal)) {
        conn_end(c, c->frame.ready ? TINYPROTO_OK : TINYPROTO_E_STOPPED, 0);
        return;
    }
    c->is_shut = true;
    c->in.paused = false; /* what comes is dropped */
    if (shutdown(c->fd, SHUT_WR) != 0 || c->owner->options.linger_ms == 0)
        conn_end(c, TINYPROTO_OK, 0);
    else
        life_set(c, DUE_LINGER, c->owner->options.linger_ms);
}

static void settle_timers(struct tinyproto_conn *c)
{
    bool lone_zero = tinyproto_frame_is_lone_zero(&c->frame) && !c->in.paused;

    if (!lone_zero)
        deadline_clear(&c->extra);
    else if (!c->extra.set)
        deadline_set(&c->owner->deadlines, DUE_GRACE, &c->extra, c->owner->options.grace_ms);
    if (!c->frame.ready || c->is_shut)
        return; /* one time for all of it, which runs already */
    if (c->in.paused) {
        deadline_clear(&c->life);
    } else if (tinyproto_frame_is_waiting(&c->frame) || outgoing_is_flowing(&c->out)) {
        if (c->moved || !c->life.set || c->life_kind != DUE_STALL)
            life_set(c, DUE_STALL, c->stall_ms);
    } else if (c->moved || !c->life.set || c->life_kind != DUE_IDLE) {
        life_set(c, DUE_IDLE, c->idle_ms);
    }
    c->moved = false;
}

/* Does input wait that nothing holds back any more? */
static bool may_unstash(const struct tinyproto_conn *c)
{
    return c->in.is_held && !c->in.paused && !outgoing_is_busy(&c->out);
}

static void settle(struct tinyproto_conn *c)
{
    int events = 0;

    settle_timers(c);
    if (!c->in.eof && !c->in.paused && !outgoing_is_busy(&c->out))
        events |= UV_READABLE;
    if (c->out.blocked)
        events |= UV_WRITABLE;
    if (!conn_watch(c, events, on_socket))
        conn_end(c, TINYPROTO_E_SYSTEM, EBADF);
    else if (may_unstash(c)) /* the socket may have nothing more to wake it with */
        endpoint_mark(c->owner, &c->dirty);
}

/* Between two messages of a peer that pipelines, own ones have their turn, so input is read to its
 * end first (4.1). */
static void announce(struct tinyproto_conn *c, bool fresh)
{
    if (!outgoing_wants_announce(c))
        return;
    if (!fresh)
        fresh = incoming_read(c);
    if (conn_is_alive(c) && fresh && outgoing_wants_announce(c))
        outgoing_announce(c);
    if (conn_is_alive(c))
        outgoing_flush(c);
}

static void on_drained(struct tinyproto_conn *c)
{
    c->out.was_full = false;
    if (c->handler != NULL && c->handler->drained != NULL && c->state == TINYPROTO_OPEN)
        c->handler->drained(c);
    endpoint_deliver_kept(c);
}

void conn_service(struct tinyproto_conn *c, bool fresh)
{
    if (!conn_is_alive(c) || !c->has_poll || c->state == TINYPROTO_CONNECTING)
        return;
    list_remove(&c->dirty);
    /* First, so that what goes on flowing and the next size leave in one packet. */
    if (fresh && outgoing_wants_announce(c))
        outgoing_announce(c);
    outgoing_flush(c);
    if (conn_is_alive(c) && may_unstash(c)) {
        incoming_unstash(c);
        if (conn_is_alive(c))
            outgoing_flush(c);
        fresh = false;
    }
    if (conn_is_alive(c))
        announce(c, fresh);
    if (conn_is_alive(c) && c->out.was_full && list_is_empty(&c->out.queue))
        on_drained(c);
    if (conn_is_alive(c))
        progress_close(c);
    if (conn_is_alive(c))
        settle(c);
}

void conn_on_due(struct tinyproto_conn *c, enum deadline_kind kind)
{
    switch (kind) {
    case DUE_ATTEMPT:
        conn_poll_close(c); /* and the next address, when that is done */
        break;
    case DUE_GRACE:
        conn_end_orderly(c, TINYPROTO_E_REFUSED);
        endpoint_mark(c->owner, &c->dirty);
        break;
    case DUE_STALL:
        conn_end(c, c->frame.crossing ? TINYPROTO_E_CONFLICT : TINYPROTO_E_TIMEOUT, ETIMEDOUT);
        break;
    case DUE_LINGER:
        conn_end(c, TINYPROTO_OK, 0);
        break;
    case DUE_OPEN:
    case DUE_IDLE:
    case DUE_STOP:
        conn_end(c, TINYPROTO_E_TIMEOUT, ETIMEDOUT);
        break;
    }
}

/* ---- Ended ---- */

static void note_cause(struct tinyproto_conn *c, enum tinyproto_error err, int system)
{
    if (c->cause.err == TINYPROTO_OK)
        c->cause = cause_of(err, system);
}

void conn_end(struct tinyproto_conn *c, enum tinyproto_error err, int system)
{
    struct transmission *first;

    if (!conn_is_alive(c))
        return;
    note_cause(c, err, system);
    c->state = TINYPROTO_CLOSED;
    deadline_clear(&c->life);
    deadline_clear(&c->extra);
    opening_cancel(c);
    conn_poll_close(c);
    list_foreach (&c->out.queue, node, next) {
        first = list_entry(node, struct transmission, node);
        if (first->source != NULL)
            source_cancel(first->source);
    }
    if (c->is_refusal) {
        c->owner->n_refused--;
    } else {
        c->owner->count--;
        map_remove(&c->owner->by_id, &c->by_id);
        if (c->is_passing)
            c->owner->n_passing--;
        endpoint_update_tick(c->owner);
    }
    endpoint_mark(c->owner, &c->dirty);
}

void conn_end_orderly(struct tinyproto_conn *c, enum tinyproto_error err)
{
    if (!conn_is_alive(c))
        return;
    note_cause(c, err, 0);
    outgoing_drop_waiting(c);
    incoming_drop(c);
    c->state = TINYPROTO_CLOSING;
}

void conn_end_broken(struct tinyproto_conn *c, int error)
{
    if (!c->frame.ready)
        conn_end(c, TINYPROTO_E_CLOSED_HANDSHAKE, error);
    else if (c->is_shut)
        conn_end(c, TINYPROTO_OK, 0); /* everything was said */
    else if (tinyproto_frame_is_lone_zero(&c->frame))
        conn_end(c, TINYPROTO_E_REFUSED, 0);
    else if (tinyproto_frame_is_waiting(&c->frame) || outgoing_is_flowing(&c->out))
        conn_end(c, TINYPROTO_E_CLOSED_INSIDE, error);
    else
        conn_end(c, TINYPROTO_E_CLOSED, error);
}

/* What ended, in the words of those who waited for something. */
static struct tinyproto_cause loss_of(const struct tinyproto_conn *c)
{
    if (c->cause.err != TINYPROTO_OK)
        return c->cause;
    return cause_of(c->own_close ? TINYPROTO_E_STOPPED : TINYPROTO_E_CLOSED, 0);
}

static void tell(struct tinyproto_conn *c)
{
    const struct tinyproto_cause loss = loss_of(c);
    tinyproto_receive_fn *once = c->in.once;

    outgoing_fail_all(c, &loss);
    c->in.once = NULL;
    if (once != NULL)
        once(c->in.once_arg, c, NULL, &loss);
    if (c->handler != NULL && c->was_ready && c->handler->post_loop != NULL)
        c->handler->post_loop(c, &c->cause);
    if (c->handler != NULL && !c->was_ready && c->handler->failed != NULL)
        c->handler->failed(c, &loss);
    c->owner->ops->conn_shutdown(c->owner, c, c->was_ready ? &c->cause : &loss);
}

void conn_finalise(struct tinyproto_conn *c)
{
    if (c->pending > 0)
        return; /* marked again when it is done */
    endpoint_deliver_kept(c);
    if (c->is_introduced)
        tell(c);
    else
        outgoing_fail_all(c, &c->cause);
    list_remove(&c->dirty);
    list_remove(&c->node);
    incoming_fini(c);
    plugins_close(c);
    mem_free(c->data);
    mem_free(c->peer_text);
    mem_free(c);
}

void tinyproto_close(struct tinyproto_conn *c)
{
    if (c->state == TINYPROTO_CLOSED || c->state == TINYPROTO_CLOSING)
        return;
    c->own_close = true;
    incoming_drop(c);
    c->in.paused = false; /* statuses are to be read */
    if (c->state == TINYPROTO_CONNECTING && list_is_empty(&c->out.queue))
        conn_end(c, TINYPROTO_E_STOPPED, 0);
    else if (c->state == TINYPROTO_CONNECTING)
        c->in.dropping = true; /* connects first; closes when the handshake is done */
    else
        c->state = TINYPROTO_CLOSING;
    endpoint_mark(c->owner, &c->dirty);
}

void tinyproto_abort(struct tinyproto_conn *c)
{
    if (!conn_is_alive(c))
        return;
    c->own_close = true;
    conn_end(c, TINYPROTO_E_STOPPED, 0);
}

/* ---- Asking and setting ---- */

enum tinyproto_state tinyproto_conn_state(const struct tinyproto_conn *c)
{
    return c->own_close && conn_is_alive(c) ? TINYPROTO_CLOSING : c->state;
}

const char *tinyproto_conn_id(const struct tinyproto_conn *c)
{
    return c->id;
}

void *tinyproto_conn_data(const struct tinyproto_conn *c)
{
    return c->data;
}

void *tinyproto_conn_arg(const struct tinyproto_conn *c)
{
    return c->handler != NULL ? c->handler->arg : NULL;
}

const char *tinyproto_conn_peer(const struct tinyproto_conn *c)
{
    return c->peer_text;
}

const struct sockaddr *tinyproto_conn_sockaddr(const struct tinyproto_conn *c, size_t *len)
{
    *len = 0;
    if (c->peer.sa.sa_family == AF_INET)
        *len = sizeof(c->peer.in);
    else if (c->peer.sa.sa_family == AF_INET6)
        *len = sizeof(c->peer.in6);
    else if (c->peer.sa.sa_family == AF_UNIX)
        *len = sizeof(c->peer.sa.sa_family); /* peers of Unix sockets have no name */
    return *len > 0 ? &c->peer.sa : NULL;
}

int tinyproto_conn_fd(const struct tinyproto_conn *c)
{
    return c->fd;
}

struct tinyproto_server *tinyproto_conn_server(const struct tinyproto_conn *c)
{
    return c->owner->is_server ? (void *)c->owner : NULL; /* its first member */
}

struct tinyproto_client *tinyproto_conn_client(const struct tinyproto_conn *c)
{
    return c->owner->is_server ? NULL : (void *)c->owner;
}

enum tinyproto_error tinyproto_conn_set_handler(struct tinyproto_conn *c,
                                                const struct tinyproto_handler *handler)
{
    if (c->was_ready || !conn_is_alive(c))
        return TINYPROTO_E_STATE;
    return set_handler(c, handler) ? TINYPROTO_OK : TINYPROTO_E_MEMORY;
}

enum tinyproto_error tinyproto_conn_add_plugin(struct tinyproto_conn *c,
                                               const struct tinyproto_plugin *plugin)
{
    return plugins_add(c, plugin);
}

void tinyproto_conn_set_timeout(struct tinyproto_conn *c, uint32_t stall_ms)
{
    c->stall_ms = stall_ms;
    c->moved = true; /* sets it anew */
    endpoint_mark(c->owner, &c->dirty);
}

void tinyproto_conn_set_idle_timeout(struct tinyproto_conn *c, uint32_t idle_ms)
{
    c->idle_ms = idle_ms;
    c->moved = true;
    endpoint_mark(c->owner, &c->dirty);
}

void tinyproto_conn_set_receive_max(struct tinyproto_conn *c, uint32_t bytes)
{
    tinyproto_frame_set_receive_max(&c->frame, bytes);
}

void tinyproto_conn_pause(struct tinyproto_conn *c)
{
    if (tinyproto_conn_state(c) >= TINYPROTO_CLOSING)
        return;
    c->in.paused = true;
    if (c->frame.ready) { /* at once: the loop may stand still until it is resumed (sync.c) */
        deadline_clear(&c->life);
        deadline_clear(&c->extra);
    }
    endpoint_mark(c->owner, &c->dirty);
}

void tinyproto_conn_resume(struct tinyproto_conn *c)
{
    if (c->in.paused) {
        c->in.paused = false;
        c->moved = true;
        endpoint_mark(c->owner, &c->dirty);
    }
}
