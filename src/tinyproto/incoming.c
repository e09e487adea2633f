/*
 * What a connection receives: input goes through the frame (frame.c), messages to plugins and hooks.
 * conn_service() and the socket call it.                 (doc/protocol/tinyproto.md, 3, 4, 5 and 9)
 *
 * A message that came whole is shown where it lies, in the scratch buffer; of a larger one the body
 * is collected, read straight into its place, in memory that grows with what came.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "conn_private.h"
#include "mem.h"

#define READS_A_TURN 8
#define BODY_FIRST   (16u * 1024)
#define BODY_FACTOR  4 /* room for so many times what came */

/* What message_take() works on. */
struct offered {
    uint8_t *owned; /* NULL: the bytes are borrowed */
};

/* ---- Memory ---- */

static void body_free(struct tinyproto_conn *c)
{
    free(c->in.body);
    c->owner->incoming_bytes -= c->in.cap;
    c->in.body = NULL;
    c->in.len = 0;
    c->in.cap = 0;
    c->in.borrowed = NULL;
}

/* Room for `n` more bytes, `n` > 0, at least; not for all that was announced. */
static bool body_grow(struct tinyproto_conn *c, size_t n)
{
    struct incoming *in = &c->in;
    size_t need = in->len + n, cap = in->cap;
    uint8_t *grown = NULL;

    if (need <= in->cap)
        return true;
    while (cap < need) { /* which is never more than the size */
        cap = cap == 0                             ? BODY_FIRST
              : cap <= c->frame.size / BODY_FACTOR ? cap * BODY_FACTOR
                                                   : c->frame.size;
        if (cap > c->frame.size)
            cap = c->frame.size;
    }
    if (cap - in->cap <= c->owner->options.incoming_max_bytes &&
        c->owner->incoming_bytes <= c->owner->options.incoming_max_bytes - (cap - in->cap))
        grown = realloc(in->body, cap);
    if (grown == NULL) {
        conn_end(c, TINYPROTO_E_MEMORY, 0);
        return false;
    }
    c->owner->incoming_bytes += cap - in->cap;
    in->body = grown;
    in->cap = cap;
    return true;
}

void incoming_drop(struct tinyproto_conn *c)
{
    body_free(c);
    c->in.dropping = true;
}

void incoming_fini(struct tinyproto_conn *c)
{
    body_free(c);
    mem_free(c->in.stash);
}

/* ---- Delivering ---- */

void *tinyproto_message_take(struct tinyproto_message *message)
{
    struct offered *offered = message->private_;
    uint8_t *taken = offered->owned;

    if (taken == NULL) {
        taken = malloc(message->len > 0 ? message->len : 1);
        if (taken != NULL && message->len > 0)
            memcpy(taken, message->ptr, message->len);
    }
    offered->owned = NULL;
    return taken;
}

static void hand_over(struct tinyproto_conn *c, struct tinyproto_message *message, bool for_once)
{
    const struct tinyproto_handler *h = c->handler;
    tinyproto_receive_fn *once = c->in.once;

    if (for_once && once != NULL) {
        c->in.once = NULL;
        once(c->in.once_arg, c, message, NULL);
    } else if (c->in.delivery == TINYPROTO_PIECES && !for_once) {
        if (h->data != NULL && message->len > 0)
            h->data(c, message->ptr, message->len);
        if (c->state == TINYPROTO_OPEN && h->end != NULL)
            h->end(c);
    } else if (h != NULL && h->transmission_received != NULL) {
        h->transmission_received(c, message);
    }
}

static bool apply_plugins(struct tinyproto_conn *c, uint8_t **owned, size_t *len)
{
    const uint8_t *from = c->in.borrowed;

    if (c->in.n_plugins == 0)
        return true;
    if (*owned == NULL) {
        *owned = malloc(*len > 0 ? *len : 1);
        if (*owned == NULL) {
            conn_end(c, TINYPROTO_E_MEMORY, 0);
            return false;
        }
        if (*len > 0)
            memcpy(*owned, from, *len);
    }
    if (plugins_receive(c, c->in.n_plugins, owned, len))
        return true;
    conn_end_orderly(c, TINYPROTO_E_PLUGIN);
    return false;
}

/* The message is complete, in `body` or borrowed. */
static void deliver_whole(struct tinyproto_conn *c)
{
    struct offered offered = { .owned = c->in.body };
    struct tinyproto_message message = { .private_ = &offered };
    size_t len = c->in.len;
    bool for_once = c->in.for_once;

    c->in.body = NULL; /* ours now, or whose it will be */
    c->owner->incoming_bytes -= c->in.cap;
    c->in.cap = 0;
    c->in.len = 0;
    c->in.for_once = false;
    if (apply_plugins(c, &offered.owned, &len) && c->state == TINYPROTO_OPEN) {
        message.ptr = offered.owned != NULL    ? offered.owned
                      : c->in.borrowed != NULL ? c->in.borrowed
                                               : (const uint8_t *)"";
        message.len = len;
        c->in.borrowed = NULL;
        hand_over(c, &message, for_once);
    }
    c->in.borrowed = NULL;
    free(offered.owned);
}

static void pass_loop(struct tinyproto_conn *c)
{
    if (c->state == TINYPROTO_OPEN && c->handler != NULL && c->handler->loop_pass != NULL)
        c->handler->loop_pass(c);
}

/* ---- Events of the frame ---- */

static void on_ready(struct tinyproto_conn *c)
{
    deadline_clear(&c->life); /* of the handshake */
    if (c->state == TINYPROTO_HANDSHAKE)
        c->state = TINYPROTO_OPEN;
    c->was_ready = true;
    if (c->handler != NULL && c->handler->pre_loop != NULL)
        c->handler->pre_loop(c);
}

static void on_begin(struct tinyproto_conn *c, size_t size)
{
    const uint8_t ok = TINYPROTO_BYTE_OK, refused = TINYPROTO_BYTE_ERROR;
    struct incoming *in = &c->in;

    in->dropping = c->state != TINYPROTO_OPEN;
    in->for_once = in->once != NULL;
    in->delivery = TINYPROTO_WHOLE;
    in->n_plugins = c->n_plugins;
    if (!in->dropping && !in->for_once && c->handler != NULL && c->handler->begin != NULL)
        in->delivery = c->handler->begin(c, size);
    if (!conn_is_alive(c))
        return;
    if (c->state == TINYPROTO_OPEN && in->delivery == TINYPROTO_REFUSE) {
        conn_end_orderly(c, TINYPROTO_E_REFUSED);
        outgoing_control(c, &refused, 1);
        return;
    }
    in->dropping = c->state != TINYPROTO_OPEN;
    outgoing_control(c, &ok, 1);
}

static void on_data(struct tinyproto_conn *c, const uint8_t *ptr, size_t len)
{
    struct incoming *in = &c->in;

    if (in->dropping)
        return;
    if (in->delivery == TINYPROTO_PIECES && in->n_plugins == 0) {
        if (c->handler->data != NULL)
            c->handler->data(c, ptr, len);
    } else if (in->body == NULL && len == c->frame.size) {
        in->borrowed = ptr; /* until the end, which follows at once */
        in->len = len;
    } else if (in->body != NULL && ptr == in->body + in->len) {
        in->len += len; /* was read into its place */
    } else if (body_grow(c, len)) {
        memcpy(in->body + in->len, ptr, len);
        in->len += len;
    }
}

static void on_end(struct tinyproto_conn *c)
{
    if (c->in.dropping) {
        body_free(c);
        c->in.dropping = c->state != TINYPROTO_OPEN;
        return;
    }
    if (c->in.delivery == TINYPROTO_PIECES && c->in.n_plugins == 0) {
        if (c->handler->end != NULL)
            c->handler->end(c);
    } else {
        deliver_whole(c);
    }
    pass_loop(c);
}

static void on_fail(struct tinyproto_conn *c, enum tinyproto_error err)
{
    const uint8_t refused = TINYPROTO_BYTE_ERROR;

    if (!c->frame.ready) {
        conn_end(c, err, 0);
        return;
    }
    conn_end_orderly(c, err);
    if (err == TINYPROTO_E_TOO_LARGE)
        outgoing_control(c, &refused, 1);
}

static void on_step(struct tinyproto_conn *c, const struct tinyproto_step *step)
{
    switch (step->event) {
    case TINYPROTO_EVENT_READY:
        on_ready(c);
        break;
    case TINYPROTO_EVENT_BEGIN:
        on_begin(c, step->len);
        break;
    case TINYPROTO_EVENT_DATA:
        on_data(c, step->ptr, step->len);
        break;
    case TINYPROTO_EVENT_END:
        on_end(c);
        break;
    case TINYPROTO_EVENT_GO:
        outgoing_go(c);
        break;
    case TINYPROTO_EVENT_FAIL:
        on_fail(c, step->err);
        break;
    case TINYPROTO_EVENT_MORE:
        break;
    }
}

/* Keeps what a pause leaves over. Events that need no input wait too, so it may be nothing. */
static void hold(struct tinyproto_conn *c, const uint8_t *ptr, size_t len)
{
    c->in.is_held = true;
    if (c->in.stash != NULL) /* it is the rest of that */
        c->in.stash_at = c->in.stash_len - len;
    if (c->in.stash != NULL || len == 0)
        return;
    c->in.stash = mem_try_alloc(len);
    if (c->in.stash == NULL) {
        conn_end(c, TINYPROTO_E_MEMORY, 0);
        return;
    }
    memcpy(c->in.stash, ptr, len);
    c->in.stash_at = 0;
    c->in.stash_len = len;
}

/* Is input looked at? Not after a failure, nor once everything of an orderly close was sent. */
static bool is_listening(const struct tinyproto_conn *c)
{
    return conn_is_alive(c) && !c->is_shut && !c->is_refusal && c->frame.failed == TINYPROTO_OK &&
           (c->state != TINYPROTO_CLOSING || c->cause.err == TINYPROTO_OK);
}

static void feed(struct tinyproto_conn *c, const uint8_t *ptr, size_t len)
{
    struct tinyproto_step step;

    c->moved = c->moved || len > 0;
    while (is_listening(c)) {
        if (c->in.paused || outgoing_is_busy(&c->out)) {
            hold(c, ptr, len);
            return;
        }
        step = tinyproto_frame_feed(&c->frame, ptr, len);
        ptr += step.used;
        len -= step.used;
        if (step.event == TINYPROTO_EVENT_MORE)
            return;
        on_step(c, &step);
    }
}

void incoming_unstash(struct tinyproto_conn *c)
{
    struct incoming *in = &c->in;

    in->is_held = false;
    if (in->stash != NULL)
        feed(c, in->stash + in->stash_at, in->stash_len - in->stash_at);
    else
        feed(c, (const uint8_t *)"", 0);
    if (in->is_held)
        return;
    mem_free(in->stash);
    in->stash = NULL;
}

/* ---- Reading ---- */

static void on_eof(struct tinyproto_conn *c)
{
    enum tinyproto_error err = tinyproto_frame_end(&c->frame);

    c->in.eof = true;
    if (c->is_shut || c->is_refusal)
        conn_end(c, TINYPROTO_OK, 0);
    else if (err != TINYPROTO_OK)
        conn_end(c, err, 0);
    else if (outgoing_is_flowing(&c->out))
        conn_end_orderly(c, TINYPROTO_OK); /* the peer has admitted it before its end */
    else
        conn_end(c, TINYPROTO_OK, 0);
}

/* Where to read to: the place of a body under way first. */
static int targets(struct tinyproto_conn *c, struct iovec iov[2])
{
    struct incoming *in = &c->in;
    int n = 0;

    if (in->body != NULL && c->frame.owed > 0 && in->len == in->cap && !body_grow(c, 1))
        return 0;
    if (in->body != NULL && c->frame.owed > 0)
        iov[n++] = (struct iovec){ .iov_base = in->body + in->len, .iov_len = in->cap - in->len };
    iov[n++] = (struct iovec){ .iov_base = c->owner->scratch, .iov_len = SCRATCH_BYTES };
    return n;
}

/* true: all that was there has been read. */
static bool read_once(struct tinyproto_conn *c)
{
    struct iovec iov[2];
    int n_iov = targets(c, iov);
    size_t direct, room;
    ssize_t n;

    if (n_iov == 0)
        return true;
    n = readv(c->fd, iov, n_iov);
    if (n < 0 && errno == EINTR)
        return false;
    if (n < 0 && errno == EAGAIN)
        return true;
    if (n < 0) {
        conn_end_broken(c, errno);
        return true;
    }
    if (n == 0) {
        on_eof(c);
        return true;
    }
    room = iov[0].iov_len + (n_iov > 1 ? iov[1].iov_len : 0);
    direct = n_iov == 1 ? 0 : (size_t)n < iov[0].iov_len ? (size_t)n : iov[0].iov_len;
    if (direct > 0)
        feed(c, iov[0].iov_base, direct);
    if ((size_t)n > direct)
        feed(c, c->owner->scratch, (size_t)n - direct);
    return (size_t)n < room;
}

bool incoming_read(struct tinyproto_conn *c)
{
    for (int i = 0; i < READS_A_TURN; i++) {
        if (!conn_is_alive(c) || c->in.paused || c->in.eof || c->in.is_held ||
            outgoing_is_busy(&c->out))
            return false;
        if (read_once(c))
            return !c->in.is_held;
    }
    return false;
}

enum tinyproto_error tinyproto_receive(struct tinyproto_conn *c, tinyproto_receive_fn *fn,
                                       void *arg)
{
    if (c->in.once != NULL || tinyproto_conn_state(c) >= TINYPROTO_CLOSING)
        return TINYPROTO_E_STATE;
    c->in.once = fn;
    c->in.once_arg = arg;
    return TINYPROTO_OK;
}
