/*
 * Output of a transport: a queue of parts, each memory of our own, to which small output is copied one
 * behind the other, or bytes that somebody shares. It leaves when the group's turn ends (transport.c
 * calls transport_flush), as many parts in one writev as the system takes; the rest goes as the peer
 * reads. Memory of our own comes from the group's pool and goes back as soon as it is sent.
 *
 * Pongs, pings and the close frame are put between frames. Of pongs PONGS_MAX are in the queue at most;
 * of the pings that come meanwhile the latest is answered (RFC 6455, 5.5.3), so that a flood of them
 * costs nothing but its own bytes.
 */
#include <assert.h>
#include <openssl/rand.h>
#include <string.h>

#include "mem.h"
#include "transport_private.h"

#define PART_BYTES  4096         /* of a part in the pool */
#define SMALL_BYTES 512          /* of one between shared parts, most likely a head */
#define PART_MAX    (64u * 1024) /* of one for much output */
#define SPARES_MAX  64
#define COMPACT_BYTES \
    1024 /* frames up to this are put in one piece: little of a part is left unused */
#define SHARE_BYTES  2048 /* less is cheaper to copy than to send as a part of its own */
#define FLUSH_ROUNDS 8    /* writevs for one transport in one turn */
#define PONGS_MAX    16   /* in the queue of one */

struct part {
    struct list node;
    const uint8_t *ptr; /* not sent yet */
    size_t len;
    size_t room; /* of bytes; 0: shared */
    void (*release)(void *arg);
    void *arg;
    uint8_t bytes[];
};

static struct part *part_of(struct list *node)
{
    return list_entry(node, struct part, node);
}

/* ---- Memory ---- */

/* NULL: no memory. */
static struct part *make_part(struct transport_group *g, size_t room)
{
    struct part *p;

    if (room == PART_BYTES && g->spares > 0) {
        g->spares--;
        p = part_of(g->spare.next);
        list_remove(&p->node);
    } else {
        p = mem_try_alloc(sizeof(*p) + room);
        if (p == NULL)
            return NULL;
        p->room = room;
    }
    p->ptr = p->bytes;
    p->len = 0;
    p->release = NULL;
    return p;
}

static void free_part(struct transport_group *g, struct part *p)
{
    if (p->release != NULL)
        p->release(p->arg);
    if (p->room == PART_BYTES && g->spares < SPARES_MAX) {
        g->spares++;
        list_push_front(&g->spare, &p->node);
    } else {
        mem_free(p);
    }
}

void transport_group_free_parts(struct transport_group *g)
{
    struct list *node;

    while ((node = list_pop_front(&g->spare)) != NULL)
        mem_free(part_of(node));
    g->spares = 0;
}

/* The next bytes of a generator that nobody can guess: what a mask is for (RFC 6455, 10.3). */
static void make_mask(struct transport_group *g, uint8_t mask[4])
{
    if (g->random_at + 4 > sizeof(g->random)) {
        if (RAND_bytes(g->random, sizeof(g->random)) != 1)
            abort();
        g->random_at = 0;
    }
    memcpy(mask, g->random + g->random_at, 4);
    g->random_at += 4;
}

/* ---- The queue ---- */

void transport_make_dirty(struct transport *t)
{
    if (t->stream_closing || list_is_linked(&t->dirty_node))
        return;
    list_push_back(&t->group->dirty, &t->dirty_node);
    transport_start_turn(t->group);
}

static size_t tail_room(const struct part *p)
{
    return p->room == 0 ? 0 : (size_t)(p->bytes + p->room - (p->ptr + p->len));
}

/* Room for at least `least` bytes behind all others. NULL: no memory. */
static struct part *tail_for(struct transport *t, size_t least, size_t wanted)
{
    struct list *last = list_last(&t->out);
    size_t room = PART_BYTES;
    struct part *p;

    if (last != NULL && tail_room(part_of(last)) >= least)
        return part_of(last);
    if (wanted > PART_BYTES)
        room = wanted < PART_MAX ? wanted : PART_MAX;
    else if (wanted <= SMALL_BYTES && last != NULL && part_of(last)->room == 0)
        room = SMALL_BYTES;
    p = make_part(t->group, room);
    if (p != NULL)
        list_push_back(&t->out, &p->node);
    return p;
}

static void added(struct transport *t, size_t len)
{
    t->queued += len;
    if (t->queued > t->group->conf.low_water_bytes)
        t->above = true;
    transport_make_dirty(t);
}

static uint8_t *part_end(struct part *p)
{
    return p->bytes + (p->ptr - p->bytes) + p->len;
}

/* Copies, and masks if `key` says so, from its byte `at` on. false: no memory. */
static bool append(struct transport *t, struct lonely_span bytes, const uint8_t *key, size_t at)
{
    while (bytes.len > 0) {
        struct part *p = tail_for(t, 1, bytes.len);
        size_t n;

        if (p == NULL)
            return false;
        n = tail_room(p) < bytes.len ? tail_room(p) : bytes.len;
        memcpy(part_end(p), bytes.ptr, n);
        if (key != NULL)
            websocket_mask(part_end(p), n, key, at);
        p->len += n;
        at += n;
        added(t, n);
        bytes.ptr += n;
        bytes.len -= n;
    }
    return true;
}

/* Drops bytes that have left, and releases what is done with. */
static void consume(struct transport *t, size_t len)
{
    t->queued -= len;
    t->sent += len;
    while (len > 0) {
        struct part *p = part_of(t->out.next);
        size_t n = p->len < len ? p->len : len;

        p->ptr += n;
        p->len -= n;
        len -= n;
        if (p->len > 0)
            break;
        list_remove(&p->node);
        free_part(t->group, p);
    }
}

void transport_forget_output(struct transport *t)
{
    struct list *node;

    if (t->flying > 0)
        return; /* until on_sent or the end of the stream */
    while ((node = list_pop_front(&t->out)) != NULL)
        free_part(t->group, part_of(node));
    t->queued = 0;
}

/* ---- Control frames ---- */

/* false: not now, but inside of a frame; or no memory. */
static bool queue_control(struct transport *t, enum websocket_opcode opcode,
                          struct lonely_span payload)
{
    uint8_t head[WEBSOCKET_HEAD_MAX], key[4];
    bool masks = t->role == TRANSPORT_CLIENT;
    struct lonely_span head_span = { head, 0 };

    if (t->frame_left > 0 || t->mute)
        return false;
    if (masks)
        make_mask(t->group, key);
    head_span.len = websocket_write_head(head, opcode, payload.len, masks ? key : NULL);
    if (tail_for(t, head_span.len + payload.len, head_span.len + payload.len) == NULL)
        return false;
    return append(t, head_span, NULL, 0) && append(t, payload, masks ? key : NULL, 0);
}

/* Answers the ping that is due, unless too many answers still wait in the queue. */
static void queue_pong(struct transport *t)
{
    if (t->sent >= t->pong_at)
        t->pongs = 0;
    if (!t->pong_due || t->ended || t->pongs == PONGS_MAX ||
        !queue_control(t, WEBSOCKET_PONG, (struct lonely_span){ t->pong, t->pong_len }))
        return;
    t->pong_due = false;
    t->pongs++;
    t->pong_at = t->sent + t->queued;
}

void transport_answer_ping(struct transport *t, struct lonely_span payload)
{
    if (t->ended)
        return;
    memcpy(t->pong, payload.ptr, payload.len);
    t->pong_len = (uint8_t)payload.len;
    t->pong_due = true;
    queue_pong(t);
    transport_make_dirty(t);
}

bool transport_queue_ping(struct transport *t)
{
    bool done = queue_control(t, WEBSOCKET_PING, (struct lonely_span){ 0 });

    t->ping_seen = t->sent;
    t->ping_at = t->sent + t->queued;
    return done;
}

void transport_queue_close(struct transport *t, uint16_t code)
{
    const uint8_t payload[] = { (uint8_t)(code >> 8), (uint8_t)code };
    bool is_sent = code != TRANSPORT_NO_CODE && code != TRANSPORT_LOST; /* (RFC 6455, 7.4.1) */

    if (t->kind == TRANSPORT_WEBSOCKET && !t->close_queued)
        t->close_queued = queue_control(
            t, WEBSOCKET_CLOSE, (struct lonely_span){ payload, is_sent ? sizeof(payload) : 0 });
}

/* ---- Sending ---- */

static size_t gather(struct transport *t, struct lonely_span parts[STREAM_PARTS_MAX], size_t *bytes)
{
    size_t n = 0;

    *bytes = 0;
    list_foreach (&t->out, node, next) {
        if (n == STREAM_PARTS_MAX)
            break;
        parts[n] = (struct lonely_span){ part_of(node)->ptr, part_of(node)->len };
        *bytes += parts[n++].len;
    }
    return n;
}

static void check_drained(struct transport *t)
{
    if (!t->above || t->queued > t->group->conf.low_water_bytes)
        return;
    t->above = false;
    if (!t->closing)
        t->events->on_drained(t->arg);
}

/* Nothing of ours arrives any more. What the peer has sent before may still be read, and its end. */
static void lose_output(struct transport *t)
{
    t->mute = true;
    t->frame_left = 0;
    transport_forget_output(t);
    if (t->closing || t->ended)
        transport_drop_stream(t);
    else
        check_drained(t);
}

/* false: no more can be sent now. */
static bool send_some(struct transport *t, bool may_try)
{
    struct lonely_span parts[STREAM_PARTS_MAX];
    size_t bytes, count = gather(t, parts, &bytes);
    ptrdiff_t sent = may_try ? stream_try_send(t->stream, parts, count) : 0;

    if (sent == STREAM_LOST) {
        lose_output(t);
        return false;
    }
    consume(t, (size_t)sent);
    if ((size_t)sent == bytes)
        return true;
    count = gather(t, parts, &t->flying);
    stream_send(t->stream, parts, count);
    return false;
}

void transport_flush(struct transport *t)
{
    if (t->stream_closing || t->flying > 0)
        return;
    queue_pong(t);
    for (int i = 0; t->queued > 0 && send_some(t, i < FLUSH_ROUNDS); i++)
        ;
    if (t->stream_closing)
        return;
    check_drained(t);
    if (t->queued == 0 && t->pong_due && !t->ended && !t->mute && t->frame_left == 0)
        transport_make_dirty(t); /* it waited for the one before */
    transport_settle(t);
}

void transport_on_sent(struct transport *t)
{
    size_t flown = t->flying;

    t->flying = 0;
    consume(t, flown);
    transport_flush(t);
}

/* ---- What the user puts ---- */

static bool takes_output(const struct transport *t)
{
    return !t->ended && !t->end_late && !t->mute;
}

/* The frame cannot be completed. */
static void starve(struct transport *t)
{
    t->end_late = true;
    t->end_code = TRANSPORT_OVERLOAD;
    t->frame_left = 1; /* it is cut: nothing may stand behind it */
    transport_wake(t);
}

void transport_frame(struct transport *t, uint64_t frame_bytes)
{
    uint8_t head[WEBSOCKET_HEAD_MAX];
    struct lonely_span span = { head, LONELY_FRAMING_LENGTH_BYTES };
    bool masks = t->kind == TRANSPORT_WEBSOCKET && t->role == TRANSPORT_CLIENT;

    if (!takes_output(t))
        return;
    assert(t->frame_left == 0);
    if (t->kind == TRANSPORT_WEBSOCKET) {
        queue_pong(t);
        if (masks)
            make_mask(t->group, t->mask);
        t->mask_at = 0;
        span.len = websocket_write_head(head, t->opcode, frame_bytes, masks ? t->mask : NULL);
    } else if (lonely_framing_announce(frame_bytes, LONELY_FRAME_LIMIT_MAX_BYTES, head) !=
               LONELY_OK) {
        abort(); /* the user made it */
    }
    t->frame_left = frame_bytes;
    if (!append(t, span, NULL, 0))
        starve(t);
}

/* Short, and copied as it is: head and frame go to one place, which is looked for once. */
void transport_put_frame(struct transport *t, struct lonely_span frame)
{
    bool masks = t->kind == TRANSPORT_WEBSOCKET && t->role == TRANSPORT_CLIENT;
    size_t len = LONELY_FRAMING_LENGTH_BYTES;
    struct part *p;
    uint8_t *at;

    if (masks || frame.len > COMPACT_BYTES) {
        transport_frame(t, frame.len);
        transport_put(t, frame);
        return;
    }
    if (!takes_output(t))
        return;
    assert(t->frame_left == 0);
    if (t->pong_due)
        queue_pong(t);
    p = tail_for(t, WEBSOCKET_HEAD_MAX + frame.len, WEBSOCKET_HEAD_MAX + frame.len);
    if (p == NULL) {
        starve(t);
        return;
    }
    at = part_end(p);
    if (t->kind == TRANSPORT_WEBSOCKET)
        len = websocket_write_head(at, t->opcode, frame.len, NULL);
    else if (lonely_framing_announce(frame.len, LONELY_FRAME_LIMIT_MAX_BYTES, at) != LONELY_OK)
        abort(); /* the user made it */
    if (frame.len > 0)
        memcpy(at + len, frame.ptr, frame.len);
    p->len += len + frame.len;
    added(t, len + frame.len);
}

static const uint8_t *mask_of(const struct transport *t)
{
    return t->kind == TRANSPORT_WEBSOCKET && t->role == TRANSPORT_CLIENT ? t->mask : NULL;
}

/* `len` bytes of the frame have been put. */
static void advance_frame(struct transport *t, size_t len)
{
    t->frame_left -= len;
    t->mask_at = (t->mask_at + len) & 3;
}

void transport_put(struct transport *t, struct lonely_span bytes)
{
    if (!takes_output(t))
        return;
    assert(bytes.len <= t->frame_left);
    if (!append(t, bytes, mask_of(t), t->mask_at))
        starve(t);
    else
        advance_frame(t, bytes.len);
}

uint8_t *transport_reserve(struct transport *t, size_t len)
{
    struct part *p;

    assert(len <= PART_MAX);
    if (!takes_output(t))
        return NULL;
    p = tail_for(t, len, len);
    if (p != NULL)
        return part_end(p);
    starve(t);
    return NULL;
}

void transport_commit(struct transport *t, size_t len)
{
    struct part *p = part_of(t->out.prev);

    assert(len <= t->frame_left && len <= tail_room(p));
    if (mask_of(t) != NULL)
        websocket_mask(part_end(p), len, t->mask, t->mask_at);
    p->len += len;
    advance_frame(t, len);
    added(t, len);
}

void transport_put_shared(struct transport *t, struct lonely_span bytes, void (*release)(void *arg),
                          void *arg)
{
    struct part *p;

    if (!takes_output(t) || bytes.len < SHARE_BYTES || mask_of(t) != NULL) {
        transport_put(t, bytes);
        release(arg);
        return;
    }
    assert(bytes.len <= t->frame_left);
    p = mem_try_alloc(sizeof(*p));
    if (p == NULL) {
        release(arg);
        starve(t);
        return;
    }
    p->ptr = bytes.ptr;
    p->len = bytes.len;
    p->room = 0;
    p->release = release;
    p->arg = arg;
    list_push_back(&t->out, &p->node);
    advance_frame(t, bytes.len);
    added(t, bytes.len);
}

size_t transport_queued(const struct transport *t)
{
    return t->queued;
}
