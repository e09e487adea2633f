/*
 * What a connection sends: control bytes and the payloads that the peer has admitted, in one stream
 * that is first in, first out; and the queue of transmissions behind it. conn_service() decides
 * when.                                                     (doc/protocol/tinyproto.md, 3 and 4)
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "conn_private.h"
#include "mem.h"

#define TURN_BYTES     (4u * 1024 * 1024) /* then the others have their turn */
#define TOGETHER_BYTES (16u * 1024) /* a payload up to this leaves with the next announcement */

void outgoing_init(struct outgoing *out)
{
    list_init(&out->queue);
    list_init(&out->lost);
}

static struct transmission *first_of(const struct outgoing *out)
{
    struct list *node = list_first(&out->queue);

    return node != NULL ? list_entry(node, struct transmission, node) : NULL;
}

static struct transmission *flowing_of(const struct outgoing *out)
{
    struct transmission *t = first_of(out);

    return t != NULL && t->state == ADMITTED ? t : NULL;
}

/* The first that the peer has not admitted: announced, or still waiting for that. */
static struct transmission *next_of(const struct outgoing *out)
{
    list_foreach (&out->queue, node, next) {
        struct transmission *t = list_entry(node, struct transmission, node);

        if (t->state != ADMITTED)
            return t;
    }
    return NULL;
}

/* ---- Control bytes ---- */

/* A status never goes into the middle of a payload: it waits behind it. There is room: reading stops
 * at CONTROL_BUSY, and one announcement at most is added. */
void outgoing_control(struct tinyproto_conn *c, const uint8_t *ptr, uint8_t n)
{
    struct control *to = flowing_of(&c->out) != NULL ? &c->out.tail : &c->out.head;

    assert(n <= CONTROL_MAX - to->n);
    memcpy(to->bytes + to->n, ptr, n);
    to->n = (uint8_t)(to->n + n);
}

bool outgoing_is_busy(const struct outgoing *out)
{
    return out->head.n >= CONTROL_BUSY || out->tail.n >= CONTROL_BUSY;
}

bool outgoing_is_empty(const struct outgoing *out)
{
    return list_is_empty(&out->queue) && out->head.n == 0 && out->tail.n == 0;
}

bool outgoing_is_flowing(const struct outgoing *out)
{
    return flowing_of(out) != NULL || out->head.n > 0;
}

/* ---- The queue ---- */

static void transmission_destroy(struct transmission *t)
{
    if (t->owned)
        free((void *)(uintptr_t)t->ptr); /* malloc'ed by the program */
    source_destroy(t->source);
    mem_free(t);
}

static void lose(struct outgoing *out, struct transmission *t)
{
    list_remove(&t->node);
    out->queued -= t->cost;
    list_push_back(&out->lost, &t->node);
}

void outgoing_drop_waiting(struct tinyproto_conn *c)
{
    list_foreach (&c->out.queue, node, next) {
        struct transmission *t = list_entry(node, struct transmission, node);

        if (t->state != ADMITTED)
            lose(&c->out, t);
    }
}

void outgoing_fail_all(struct tinyproto_conn *c, const struct tinyproto_cause *why)
{
    struct list *node;

    list_move_all(&c->out.lost, &c->out.queue);
    c->out.queued = 0;
    while ((node = list_pop_front(&c->out.lost)) != NULL) {
        struct transmission *t = list_entry(node, struct transmission, node);

        if (t->done != NULL)
            t->done(t->arg, c, why);
        transmission_destroy(t);
    }
}

static size_t cost_of(size_t len)
{
    return len <= TINYPROTO_MESSAGE_MAX ? len + sizeof(struct transmission) : len;
}

static bool is_too_large(const struct tinyproto_conn *c, uint64_t size)
{
    return size > c->owner->options.send_max || size > TINYPROTO_MESSAGE_MAX;
}

/* May a transmission be queued? */
static enum tinyproto_error find_room(struct tinyproto_conn *c, size_t cost)
{
    const size_t max = c->owner->options.queue_max_bytes;

    if (tinyproto_conn_state(c) >= TINYPROTO_CLOSING)
        return TINYPROTO_E_STATE;
    if (!list_is_empty(&c->out.queue) && (cost > max || c->out.queued > max - cost)) {
        c->out.was_full = true;
        return TINYPROTO_E_QUEUE_FULL;
    }
    return TINYPROTO_OK;
}

static enum tinyproto_error admit(struct tinyproto_conn *c, uint64_t size, size_t cost)
{
    return is_too_large(c, size) ? TINYPROTO_E_TOO_LARGE : find_room(c, cost);
}

static void enqueue(struct tinyproto_conn *c, struct transmission *t, uint64_t size, size_t cost,
                    tinyproto_done_fn *done, void *arg)
{
    t->size = size;
    t->cost = cost;
    t->done = done;
    t->arg = arg;
    c->out.queued += cost;
    list_push_back(&c->out.queue, &t->node);
    endpoint_mark(c->owner, &c->dirty);
}

static enum tinyproto_error enqueue_owned(struct tinyproto_conn *c, uint8_t *ptr, size_t len,
                                          tinyproto_done_fn *done, void *arg)
{
    struct transmission *t = mem_try_calloc(1, sizeof(*t));

    if (t == NULL)
        return TINYPROTO_E_MEMORY;
    t->ptr = ptr;
    t->owned = true;
    enqueue(c, t, len, cost_of(len), done, arg);
    return TINYPROTO_OK;
}

/* What plugins made of a message is queued even if it has grown: they may have counted it. */
static enum tinyproto_error enqueue_made(struct tinyproto_conn *c, uint8_t *ptr, size_t len,
                                         tinyproto_done_fn *done, void *arg)
{
    if (is_too_large(c, len))
        return TINYPROTO_E_TOO_LARGE;
    if (tinyproto_conn_state(c) >= TINYPROTO_CLOSING) /* a plugin has closed it */
        return TINYPROTO_E_STATE;
    return enqueue_owned(c, ptr, len, done, arg);
}

/* Plugins get a block of their own: if one fails, the caller's bytes are as they were. */
static enum tinyproto_error transmit_through_plugins(struct tinyproto_conn *c, const void *ptr,
                                                     size_t len, tinyproto_done_fn *done, void *arg)
{
    enum tinyproto_error err = find_room(c, cost_of(len));
    uint8_t *copy = NULL;

    if (err == TINYPROTO_OK) {
        copy = malloc(len > 0 ? len : 1);
        err = copy != NULL ? TINYPROTO_OK : TINYPROTO_E_MEMORY;
    }
    if (err != TINYPROTO_OK)
        return err;
    if (len > 0)
        memcpy(copy, ptr, len);
    err = plugins_transmit(c, &copy, &len) ? enqueue_made(c, copy, len, done, arg)
                                           : TINYPROTO_E_PLUGIN;
    if (err != TINYPROTO_OK)
        free(copy);
    return err;
}

enum tinyproto_error tinyproto_transmit_then(struct tinyproto_conn *c, const void *ptr, size_t len,
                                             tinyproto_done_fn *done, void *arg)
{
    size_t cost = cost_of(len);
    enum tinyproto_error err;
    struct transmission *t;

    if (plugins_have_transmit(c))
        return transmit_through_plugins(c, ptr, len, done, arg);
    err = admit(c, len, cost);
    if (err != TINYPROTO_OK)
        return err;
    t = mem_try_alloc(cost); /* one block for both */
    if (t == NULL)
        return TINYPROTO_E_MEMORY;
    memset(t, 0, sizeof(*t));
    t->ptr = (uint8_t *)(t + 1);
    if (len > 0)
        memcpy(t + 1, ptr, len);
    enqueue(c, t, len, cost, done, arg);
    return TINYPROTO_OK;
}

enum tinyproto_error tinyproto_transmit(struct tinyproto_conn *c, const void *ptr, size_t len)
{
    return tinyproto_transmit_then(c, ptr, len, NULL, NULL);
}

enum tinyproto_error tinyproto_transmit_take(struct tinyproto_conn *c, void *ptr, size_t len,
                                             tinyproto_done_fn *done, void *arg)
{
    enum tinyproto_error err;

    if (!plugins_have_transmit(c)) {
        err = admit(c, len, cost_of(len));
        return err == TINYPROTO_OK ? enqueue_owned(c, ptr, len, done, arg) : err;
    }
    err = transmit_through_plugins(c, ptr, len, done, arg);
    if (err == TINYPROTO_OK)
        free(ptr);
    return err;
}

enum tinyproto_error tinyproto_transmit_fd(struct tinyproto_conn *c, int fd, int64_t offset,
                                           uint64_t size, tinyproto_done_fn *done, void *arg)
{
    enum tinyproto_error err = admit(c, size, sizeof(struct transmission));
    struct transmission *t;

    if (err != TINYPROTO_OK)
        return err;
    if (plugins_have_transmit(c))
        return TINYPROTO_E_PLUGIN;
    t = mem_try_calloc(1, sizeof(*t));
    if (t == NULL)
        return TINYPROTO_E_MEMORY;
    t->source = source_create(c, fd, offset, size);
    if (t->source == NULL) {
        mem_free(t);
        return TINYPROTO_E_MEMORY;
    }
    enqueue(c, t, size, sizeof(*t), done, arg);
    return TINYPROTO_OK;
}

size_t tinyproto_conn_queued(const struct tinyproto_conn *c)
{
    return c->out.queued;
}

/* ---- Announcing ---- */

/* Whatever is written before it shortens the time in which announcements can cross, so there is
 * little of it. */
bool outgoing_wants_announce(const struct tinyproto_conn *c)
{
    const struct transmission *t = flowing_of(&c->out), *next = next_of(&c->out);
    bool little = t == NULL || (t->source == NULL && t->size - t->sent <= TOGETHER_BYTES);

    return little && !c->out.blocked && !c->is_shut && !c->in.eof && !c->in.paused &&
           !outgoing_is_busy(&c->out) && tinyproto_frame_may_announce(&c->frame) && next != NULL &&
           next->state == WAITS;
}

void outgoing_announce(struct tinyproto_conn *c)
{
    struct transmission *t = next_of(&c->out);
    uint8_t size[TINYPROTO_SIZE_BYTES];

    if (t == NULL || tinyproto_frame_announce(&c->frame, t->size, size) != TINYPROTO_OK)
        return;
    outgoing_control(c, size, sizeof(size));
    t->state = ANNOUNCED;
}

void outgoing_go(struct tinyproto_conn *c)
{
    struct transmission *t = next_of(&c->out);

    if (t == NULL || t->state != ANNOUNCED)
        return; /* given up since */
    t->state = ADMITTED;
    if (t->source != NULL && t == first_of(&c->out))
        source_start(t->source);
}

/* ---- Writing ---- */

struct batch {
    struct iovec iov[3];
    size_t n;
    size_t len;     /* bytes in all */
    size_t payload; /* of the first transmission */
};

static void batch_add(struct batch *b, const uint8_t *ptr, size_t len)
{
    if (len == 0)
        return;
    b->iov[b->n++] = (struct iovec){ .iov_base = (void *)(uintptr_t)ptr, .iov_len = len };
    b->len += len;
}

static struct batch gather(const struct outgoing *out)
{
    const struct transmission *t = flowing_of(out);
    struct batch b = { .n = 0 };
    const uint8_t *ptr = NULL;

    batch_add(&b, out->head.bytes, out->head.n);
    if (t == NULL)
        return b;
    if (t->source != NULL) {
        b.payload = source_peek(t->source, &ptr);
    } else {
        ptr = t->ptr + t->sent;
        b.payload = (size_t)(t->size - t->sent);
    }
    batch_add(&b, ptr, b.payload);
    if (b.payload == t->size - t->sent)
        batch_add(&b, out->tail.bytes, out->tail.n);
    return b;
}

static size_t control_drop(struct control *control, size_t n)
{
    size_t dropped = n < control->n ? n : control->n;

    memmove(control->bytes, control->bytes + dropped, control->n - dropped);
    control->n = (uint8_t)(control->n - dropped);
    return dropped;
}

static void finish(struct tinyproto_conn *c, struct transmission *t)
{
    struct transmission *next;

    list_remove(&t->node);
    c->out.queued -= t->cost;
    c->out.head = c->out.tail; /* the head was written before the payload */
    c->out.tail.n = 0;
    next = flowing_of(&c->out);
    if (next != NULL && next->source != NULL)
        source_start(next->source);
    if (t->done != NULL)
        t->done(t->arg, c, &(struct tinyproto_cause){ .err = TINYPROTO_OK });
    transmission_destroy(t);
}

/* `n` bytes of the batch were written. */
static void written(struct tinyproto_conn *c, const struct batch *b, size_t n)
{
    struct transmission *t = flowing_of(&c->out);
    size_t payload;

    n -= control_drop(&c->out.head, n);
    if (t == NULL)
        return;
    payload = n < b->payload ? n : b->payload;
    t->sent += payload;
    if (t->source != NULL && payload > 0)
        source_consume(t->source, payload);
    (void)control_drop(&c->out.tail, n - payload);
    if (t->sent == t->size && c->out.head.n == 0)
        finish(c, t);
}

/* The peer may have said why, and gone: that is read first. */
static void write_failed(struct tinyproto_conn *c, int error)
{
    if (!c->in.paused && !c->in.eof)
        (void)incoming_read(c);
    if (conn_is_alive(c))
        conn_end_broken(c, error);
}

static ssize_t write_batch(int fd, struct batch *b)
{
    const struct msghdr msg = { .msg_iov = b->iov, .msg_iovlen = b->n };
    ssize_t n;

    do {
        n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n;
}

void outgoing_flush(struct tinyproto_conn *c)
{
    size_t moved = 0;

    while (conn_is_alive(c) && !c->out.blocked) {
        struct batch b = gather(&c->out);
        ssize_t n = 0;

        if (b.n == 0 &&
            (flowing_of(&c->out) == NULL || flowing_of(&c->out)->sent < flowing_of(&c->out)->size))
            return;
        if (b.n > 0 && moved < TURN_BYTES)
            n = write_batch(c->fd, &b);
        if ((n < 0 && errno == EAGAIN) || moved >= TURN_BYTES) {
            c->out.blocked = true; /* until the socket says that it is writable */
        } else if (n < 0) {
            write_failed(c, errno);
        } else {
            moved += (size_t)n;
            c->moved = true;
            c->out.blocked = (size_t)n < b.len; /* the socket is full */
            written(c, &b, (size_t)n);
        }
    }
}
