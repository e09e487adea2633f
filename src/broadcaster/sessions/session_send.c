/*
 * Messages going out: RECEIVE_STREAM in parts, within the window of acknowledgements, and MISSED. Called by
 * the receivers, by acknowledgements, and whenever something could go on. (doc/protocol/session.md, 3.7)
 *
 * What does not differ between sessions is encoded once a message: a parcel holds the frame with an empty
 * authorization, and each session puts its own in between. Longer bodies are not copied: those in memory
 * are lent to the transport, those in files are read by the pool, a chunk at a time, as the peer takes them.
 */
#include "session_private.h"

#include <assert.h>
#include <string.h>

#define COPIED_BYTES 4096 /* bodies up to this are copied behind their head */
#define CHUNK_BYTES  262144
#define FREE_CHUNKS  4
#define LEAST_PART   512 /* of a body, however long the head is */

/* Where the length of the authorization stands in a RECEIVE_STREAM, whose first header it is: behind the
 * prefix, and the count and the name. (doc/protocol/stateful.md, 4 and 6.4) */
#define AUTHORIZATION_AT(minimal) ((minimal) ? 4u : 4u + 2u + 2u + 13u)

struct missed_topic {
    size_t len;
    uint8_t bytes[];
};

/* ---- Parcels ---- */

void session_parcel_unref(struct parcel *p)
{
    if (--p->refs > 0)
        return;
    if (p->recoding != NULL)
        recoding_cancel(p->recoding);
    if (p->body != p->message->body)
        body_unref(p->body);
    outgoing_unref(p->message);
    mem_free(p->bytes);
    mem_free(p);
}

void sessions_drop_parcel(struct sessions *all)
{
    if (all->parcel != NULL)
        session_parcel_unref(all->parcel);
    all->parcel = NULL;
    if (!list_is_empty(&all->packed))
        sessions_drop_packed(all);
}

static void encode(struct sessions *all, struct parcel *p)
{
    const struct body *body = p->body;
    const struct lonely_message m = {
        .direction = LONELY_B2S,
        .type = LONELY_B2S_RECEIVE_STREAM,
        .minimal = all->minimal,
        .as.stream = {
            .identifier = { p->message->identifier, sizeof(p->message->identifier) },
            .topic = p->message->topic,
            .compressor = p->compressor,
            .compressed_length = body_size(body),
            .decompressed_length = body_size(p->message->body),
            .compressed_sha512 = { body_sha512(body), LONELY_SHA512_BYTES },
        },
    };
    size_t copied =
        body_in_memory(body) && body_size(body) <= COPIED_BYTES ? (size_t)body_size(body) : 0;
    enum lonely_error err = lonely_message_serialize_head(
        &m, all->scratch, LONELY_MESSAGE_HEAD_MAX_BYTES, &p->head_len);

    assert(err == LONELY_OK); /* all of it came out of a frame or request */
    (void)err;
    p->len = p->head_len + copied;
    p->bytes = mem_alloc(p->len);
    memcpy(p->bytes, all->scratch, p->head_len);
    if (copied > 0)
        memcpy(p->bytes + p->head_len, body_span(body).ptr, copied);
}

struct parcel *session_parcel_create(struct outgoing *m)
{
    struct parcel *p = mem_calloc(1, sizeof(*p));

    p->refs = 1;
    p->message = m;
    p->body = m->body;
    list_init(&p->waiters);
    list_init(&p->node);
    outgoing_ref(m);
    return p;
}

void session_parcel_fill(struct sessions *all, struct parcel *p, struct body *body)
{
    if (body != NULL)
        p->body = body;
    else
        p->compressor = 0;
    encode(all, p);
}

/* The one of `m`, which most often is the last one. */
static struct parcel *parcel_of(struct sessions *all, struct outgoing *m)
{
    struct parcel *p = all->parcel;

    if (p != NULL && p->message == m)
        return p;
    sessions_drop_parcel(all);
    p = session_parcel_create(m);
    encode(all, p);
    all->parcel = p;
    sessions_later(all); /* which drops it: nothing of a message is kept longer than it takes */
    return p;
}

/* ---- Frames ---- */

static void count_frame(struct session *s, uint64_t bytes)
{
    struct metrics *metrics = s->worker->metrics;

    metrics_add(&metrics->session_frames[s->peer.kind][METRICS_OUT], 1);
    metrics_add(&metrics->session_bytes[s->peer.kind][METRICS_OUT], bytes);
}

static void begin_frame(struct session *s, uint64_t bytes)
{
    count_frame(s, bytes);
    transport_frame(s->transport, bytes);
}

static void put_frame(struct session *s, struct lonely_span frame)
{
    count_frame(s, frame.len);
    transport_put_frame(s->transport, frame);
}

/* The frame, but for its body, in sessions.scratch. */
static struct lonely_span head_of(struct session *s, const struct lonely_message *m)
{
    uint8_t *scratch = s->all->scratch;
    struct lonely_message out = *m;
    enum lonely_error err;
    size_t len;

    out.direction = LONELY_B2S;
    out.minimal = s->all->minimal;
    err = lonely_message_serialize_head(&out, scratch, LONELY_MESSAGE_HEAD_MAX_BYTES, &len);
    assert(err == LONELY_OK);
    (void)err;
    return (struct lonely_span){ scratch, len };
}

void session_put(struct session *s, const struct lonely_message *m)
{
    put_frame(s, head_of(s, m));
}

void session_put_with_body(struct session *s, const struct lonely_message *m,
                           void (*release)(void *arg), void *arg)
{
    struct lonely_span head = head_of(s, m);

    begin_frame(s, head.len + m->body.len);
    transport_put(s->transport, head);
    transport_put_shared(s->transport, m->body, release, arg);
}

/* The first `len` bytes of a parcel, with the authorization put in between. */
static void put_parcel(struct session *s, const struct parcel *p, size_t len,
                       struct lonely_span authorization)
{
    size_t at = AUTHORIZATION_AT(s->all->minimal);
    uint8_t size[2] = { (uint8_t)(authorization.len >> 8), (uint8_t)authorization.len };

    if (authorization.len == 0) {
        transport_put(s->transport, (struct lonely_span){ p->bytes, len });
        return;
    }
    transport_put(s->transport, (struct lonely_span){ p->bytes, at });
    transport_put(s->transport, (struct lonely_span){ size, sizeof(size) });
    transport_put(s->transport, authorization);
    at += sizeof(size);
    transport_put(s->transport, (struct lonely_span){ p->bytes + at, len - at });
}

/* All of a parcel that is a whole frame, with its authorization: in one piece, which is cheaper than four. It
 * fits: parcels have heads without an authorization, and of their bodies COPIED_BYTES at most. */
static struct lonely_span whole_frame(struct session *s, const struct parcel *p,
                                      struct lonely_span authorization)
{
    size_t at = AUTHORIZATION_AT(s->all->minimal), behind = at + 2;
    uint8_t *out = s->all->scratch;

    if (authorization.len == 0)
        return (struct lonely_span){ p->bytes, p->len };
    memcpy(out, p->bytes, at);
    out[at] = (uint8_t)(authorization.len >> 8);
    out[at + 1] = (uint8_t)authorization.len;
    memcpy(out + behind, authorization.ptr, authorization.len);
    memcpy(out + behind + authorization.len, p->bytes + behind, p->len - behind);
    return (struct lonely_span){ out, p->len + authorization.len };
}

static void release_body(void *body)
{
    body_unref(body);
}

/* Lends bytes of a body in memory. */
static void put_shared(struct session *s, struct body *body, uint64_t at, uint64_t len)
{
    struct lonely_span bytes = body_span(body);

    body_ref(body);
    transport_put_shared(s->transport, (struct lonely_span){ bytes.ptr + at, (size_t)len },
                         release_body, body);
}

/* ---- Acknowledgements ---- */

static void expect(struct session *s, const struct outgoing *m, uint64_t part_id, bool last)
{
    union ring_slot *slot = ring_push(&s->expected);

    memcpy(slot->ack.identifier, m->identifier, sizeof(slot->ack.identifier));
    slot->ack.part_id = part_id;
    slot->ack.last = last;
}

static bool is_window_open(const struct session *s)
{
    return s->expected.count < s->all->max_unacknowledged;
}

bool session_is_stuck(const struct session *s)
{
    return s->sending != NULL && s->sending->frame_left == 0 && !is_window_open(s);
}

static bool is_expected(const struct session *s, struct lonely_span identifier, bool last,
                        uint64_t part_id)
{
    const union ring_slot *slot;

    if (s->expected.count == 0)
        return false;
    slot = ring_front(&s->expected);
    return slot->ack.last == last && (last || slot->ack.part_id == part_id) &&
           identifier.len == sizeof(slot->ack.identifier) &&
           memcmp(identifier.ptr, slot->ack.identifier, identifier.len) == 0;
}

/* The shape that both kinds have in common. */
static void read_acknowledgement(const struct lonely_message *m, struct lonely_auth_input *in,
                                 struct lonely_span *authorization)
{
    const struct lonely_msg_continuation *part = &m->as.continuation;
    const struct lonely_msg_confirm_receive *last = &m->as.confirm_receive;

    if (m->type == LONELY_S2B_CONFIRM_RECEIVE) {
        *in = (struct lonely_auth_input){ .op = LONELY_AUTH_CONFIRM_RECEIVE,
                                          .tracing = last->tracing,
                                          .identifier = last->identifier,
                                          .subscribers = last->num_subscribers };
        *authorization = last->authorization;
    } else {
        *in = (struct lonely_auth_input){ .op = LONELY_AUTH_STATEFUL_CONTINUE_RECEIVE,
                                          .tracing = part->tracing,
                                          .identifier = part->identifier,
                                          .part_id = part->part_id };
        *authorization = part->authorization;
    }
}

static bool check_acknowledgement(struct session *s, const struct lonely_message *m, int64_t number)
{
    struct lonely_auth_input in;
    struct lonely_span authorization;

    read_acknowledgement(m, &in, &authorization);
    in.url = session_url(s, number);
    return session_check(s, &in, authorization, NULL) == SESSION_PASSED; /* bound: never LATER */
}

void session_on_acknowledgement(struct session *s, const struct lonely_message *m, bool whole)
{
    const struct lonely_msg_continuation *part = &m->as.continuation;
    bool last = m->type == LONELY_S2B_CONFIRM_RECEIVE;
    int64_t number;

    (void)whole; /* always */
    if (!is_expected(s, last ? m->as.confirm_receive.identifier : part->identifier, last,
                     last ? 0 : part->part_id)) {
        session_end(s, METRICS_SESSION_VIOLATION, "an acknowledgement that was not due");
        return;
    }
    if (!session_take_number(s, LONELY_COUNTER_SUBSCRIBER, &number))
        return;
    if (gate_asks(s->worker->gate, false) && !check_acknowledgement(s, m, number))
        return;
    ring_pop(&s->expected);
    if (s->sending != NULL || s->pending.count > 0)
        session_pump(s);
}

/* ---- One message ---- */

static bool is_full(const struct session *s)
{
    return transport_queued(s->transport) >= SESSION_HIGH_BYTES;
}

static bool may_begin(const struct session *s)
{
    return is_window_open(s) && !is_full(s);
}

bool session_may_put(const struct session *s)
{
    return s->sending == NULL && !is_full(s);
}

/* The authorization of a part, when there is to be one. */
static bool make_signature(struct session *s, const struct parcel *p, int64_t number,
                           struct lonely_span *authorization)
{
    const struct outgoing *m = p->message;
    struct lonely_auth_input in = { .op = LONELY_AUTH_RECEIVE };

    in.url = session_url(s, number);
    in.topic = m->topic;
    in.identifier = (struct lonely_span){ m->identifier, sizeof(m->identifier) };
    in.hash = (struct lonely_span){ body_sha512(p->body), LONELY_SHA512_BYTES };
    return session_sign(s, &in, authorization);
}

/* Without one nothing of it is made: most messages go this way. */
static bool sign_part(struct session *s, const struct parcel *p, int64_t number,
                      struct lonely_span *authorization)
{
    *authorization = (struct lonely_span){ 0 };
    return !gate_signs(s->worker->gate) || make_signature(s, p, number, authorization);
}

/* How much of the body goes behind a head of that length. */
static uint64_t part_bytes(const struct session *s, size_t head, uint64_t left)
{
    uint64_t room = s->max_part > head + LEAST_PART ? s->max_part - head : LEAST_PART;

    return room < left ? room : left;
}

/* Sends the message in that form, or its first part. There is room, and the window is open. */
static void send_parcel(struct session *s, struct parcel *p)
{
    const struct outgoing *m = p->message;
    struct lonely_span authorization;
    uint64_t size = body_size(p->body), first;
    bool copied = p->len - p->head_len == size;
    int64_t number;

    if (!session_take_number(s, LONELY_COUNTER_BROADCASTER, &number) ||
        !sign_part(s, p, number, &authorization))
        return;
    first = part_bytes(s, p->head_len + authorization.len, size);
    metrics_add(&s->worker->metrics->session_messages, 1);
    expect(s, m, 0, first == size);
    if (first == size && copied) {
        put_frame(s, whole_frame(s, p, authorization));
        return;
    }
    begin_frame(s, p->head_len + authorization.len + first);
    put_parcel(s, p, p->head_len, authorization);
    if (first == size && body_in_memory(p->body)) {
        put_shared(s, p->body, 0, size);
        return;
    }
    s->sending = mem_alloc(sizeof(*s->sending));
    *s->sending = (struct sending){
        .parcel = p, .sent = first, .frame_left = first, .part_id = 1, .number = number
    };
    p->refs++;
}

/* Sends the message: as it is, or made with a dictionary that only this session has. */
static void send_message(struct session *s, struct parcel *p)
{
    struct parcel *own;

    if (s->zstd == NULL) {
        send_parcel(s, p);
        return;
    }
    own = session_own_parcel(s, p);
    send_parcel(s, own != NULL ? own : p);
    if (own != NULL)
        session_parcel_unref(own);
    if (!s->ended)
        session_sample(s, p->message->body);
}

/* Begins the next part. */
static void begin_part(struct session *s)
{
    struct sending *g = s->sending;
    const struct outgoing *message = g->parcel->message;
    uint64_t left = body_size(g->parcel->body) - g->sent;
    struct lonely_message m = {
        .direction = LONELY_B2S,
        .type = LONELY_B2S_RECEIVE_STREAM,
        .minimal = s->all->minimal,
        .as.stream = {
            .identifier = { message->identifier, sizeof(message->identifier) },
            .part_id = g->part_id,
        },
    };
    int64_t number = g->number;
    enum lonely_error err;
    size_t head;

    if (!s->peer.counts_first && !session_take_number(s, LONELY_COUNTER_BROADCASTER, &number))
        return;
    if (!sign_part(s, g->parcel, number, &m.as.stream.authorization))
        return;
    err = lonely_message_serialize_head(&m, s->all->scratch, LONELY_MESSAGE_HEAD_MAX_BYTES, &head);
    assert(err == LONELY_OK);
    (void)err;
    g->frame_left = part_bytes(s, head, left);
    g->sent += g->frame_left;
    expect(s, message, g->part_id++, g->frame_left == left);
    begin_frame(s, head + g->frame_left);
    transport_put(s->transport, (struct lonely_span){ s->all->scratch, head });
}

/* ---- Bodies in files ---- */

/* A piece of a file on its way to one session. */
struct chunk {
    struct list node; /* of sessions.free_chunks */
    uv_work_t work;
    struct sessions *all;
    struct session *session;
    struct body *body;
    uint64_t at;
    size_t len;
    ptrdiff_t got;
    uint8_t bytes[CHUNK_BYTES];
};

static void chunk_free(struct chunk *c)
{
    struct sessions *all = c->all;

    if (all->free_chunk_count == FREE_CHUNKS) {
        mem_free(c);
        return;
    }
    all->free_chunk_count++;
    list_push_front(&all->free_chunks, &c->node);
}

void sessions_free_chunks(struct sessions *all)
{
    struct list *node;

    while ((node = list_pop_front(&all->free_chunks)) != NULL)
        mem_free(list_entry(node, struct chunk, node));
    all->free_chunk_count = 0;
}

static struct chunk *chunk_create(struct sessions *all)
{
    struct list *node = list_pop_front(&all->free_chunks);

    if (node == NULL)
        return mem_alloc(sizeof(struct chunk));
    all->free_chunk_count--;
    return list_entry(node, struct chunk, node);
}

static void release_chunk(void *chunk)
{
    chunk_free(chunk);
}

static void read_in_pool(uv_work_t *work)
{
    struct chunk *c = work->data;

    c->got = body_pread(c->body, c->at, c->bytes, c->len);
}

static void on_read(uv_work_t *work, int status)
{
    struct chunk *c = work->data;
    struct session *s = c->session;

    body_unref(c->body);
    if (!s->ended && (status != 0 || c->got != (ptrdiff_t)c->len))
        session_end(s, METRICS_SESSION_FAILED, "a message could not be read from its file");
    if (s->ended) {
        chunk_free(c);
    } else {
        s->sending->reading = false;
        s->sending->frame_left -= c->len;
        transport_put_shared(s->transport, (struct lonely_span){ c->bytes, c->len }, release_chunk,
                             c);
        session_pump(s);
    }
    session_release(s);
}

static void start_read(struct session *s)
{
    struct sending *g = s->sending;
    struct chunk *c = chunk_create(s->all);
    int err;

    list_init(&c->node);
    c->all = s->all;
    c->session = s;
    c->body = g->parcel->body;
    c->at = g->sent - g->frame_left;
    c->len = g->frame_left < CHUNK_BYTES ? (size_t)g->frame_left : CHUNK_BYTES;
    c->work.data = c;
    body_ref(c->body);
    g->reading = true;
    session_hold(s);
    err = uv_queue_work(&s->worker->loop, &c->work, read_in_pool, on_read);
    assert(err == 0); /* fails without a function only */
    (void)err;
}

/* ---- Going on ---- */

/* Puts what is missing of the frame. false: not all of it can be put now. */
static bool put_body(struct session *s)
{
    struct sending *g = s->sending;
    struct body *body = g->parcel->body;

    if (body_in_memory(body)) {
        put_shared(s, body, g->sent - g->frame_left, g->frame_left);
        g->frame_left = 0;
        return true;
    }
    if (!g->reading && !is_full(s))
        start_read(s);
    return false;
}

static void drop_sending(struct session *s)
{
    if (s->sending == NULL)
        return;
    session_parcel_unref(s->sending->parcel);
    mem_free(s->sending);
    s->sending = NULL;
}

/* Goes on with the message that is half sent. true: it is sent. */
static bool go_on(struct session *s)
{
    struct sending *g = s->sending;

    while (!s->ended) {
        if (g->frame_left > 0) {
            if (!put_body(s))
                return false;
        } else if (g->sent == body_size(g->parcel->body)) {
            drop_sending(s);
            return true;
        } else if (may_begin(s)) {
            begin_part(s);
        } else {
            return false;
        }
    }
    return false;
}

static void send_missed(struct session *s, struct lonely_span topic)
{
    struct lonely_auth_input in = { .op = LONELY_AUTH_MISSED, .topic = topic };
    struct lonely_message m = { .type = LONELY_B2S_MISSED, .as.missed.topic = topic };
    int64_t number;

    if (!session_take_number(s, LONELY_COUNTER_BROADCASTER, &number))
        return;
    in.recovery = session_url(s, number);
    if (session_sign(s, &in, &m.as.missed.authorization))
        session_put(s, &m);
}

static void drop_send(union ring_slot slot)
{
    if (slot.send.kind == SEND_MESSAGE)
        session_parcel_unref(slot.send.what);
    else if (slot.send.kind == SEND_MISSED)
        mem_free(slot.send.what);
}

/* May it be sent now? There is room. */
static bool may_send(struct session *s, union ring_slot slot)
{
    struct parcel *p = slot.send.what;

    if (slot.send.kind != SEND_MESSAGE)
        return true;
    if (p->recoding != NULL)
        session_await(s, p);
    return p->recoding == NULL && is_window_open(s);
}

/* Sends the first that is pending. false: it may not be sent now. */
static bool send_next(struct session *s)
{
    union ring_slot slot;
    const struct missed_topic *missed;

    if (s->pending.count == 0)
        return false;
    slot = *ring_front(&s->pending);
    if (is_full(s) || !may_send(s, slot))
        return false;
    ring_pop(&s->pending);
    switch ((enum send_kind)slot.send.kind) {
    case SEND_MESSAGE:
        send_message(s, slot.send.what);
        break;
    case SEND_MISSED:
        missed = slot.send.what;
        send_missed(s, (struct lonely_span){ missed->bytes, missed->len });
        break;
    case SEND_ENABLE:
        session_send_enable(s, slot.send.what);
        break;
    case SEND_DISABLE:
        session_send_disable(s, slot.send.what);
        break;
    }
    drop_send(slot);
    return true;
}

/* A session is closed when the broadcaster stops, once all that it asked for is answered. */
static void end_if_drained(struct session *s)
{
    if (s->all->draining && !s->ended && s->running == 0 && !session_is_changing(s) &&
        !s->finishing && !s->checking)
        session_end(s, METRICS_SESSION_SHUTDOWN, "the broadcaster stops");
}

void session_pump(struct session *s)
{
    bool going = true;

    while (going && !s->ended) {
        if (s->sending != NULL)
            going = go_on(s);
        if (going && !s->ended) {
            session_answer(s);
            going = !s->ended && s->sending == NULL && !session_has_answer(s) && send_next(s);
        }
    }
    if (s->sending != NULL && !s->ended)
        session_answer(s); /* sends nothing, but a change may begin */
    session_update_reading(s);
    end_if_drained(s);
}

/* ---- What the receivers bring ---- */

/* Can something go out at once, in front of nothing? */
static bool is_idle(const struct session *s)
{
    return s->pending.count == 0 && session_may_put(s) && !session_has_answer(s);
}

/* Room for one more that waits; else the session has ended. The one that would be next counts as being
 * sent. */
static bool has_room(struct session *s)
{
    uint64_t limit = s->all->max_pending;

    if (limit == UINT64_MAX || s->pending.count < limit + (s->sending == NULL ? 1 : 0))
        return true;
    session_end(s, METRICS_SESSION_OVERLOAD, "websocket_max_pending_sends");
    return false;
}

bool session_on_message(struct session *s, struct outgoing *m)
{
    struct parcel *p;

    if (s->ended || s->all->draining)
        return false;
    p = parcel_of(s->all, m);
    if (s->zstd != NULL)
        p = session_shared_parcel(s, m, p);
    if (p->recoding == NULL && is_idle(s) && is_window_open(s)) {
        send_message(s, p);
        if (s->sending != NULL)
            session_pump(s);
        return !s->ended;
    }
    if (!has_room(s))
        return false;
    *ring_push(&s->pending) = (union ring_slot){ .send = { SEND_MESSAGE, p } };
    p->refs++;
    if (p->recoding != NULL && s->pending.count == 1)
        session_await(s, p);
    return true;
}

bool session_on_missed(struct session *s, struct lonely_span topic)
{
    struct missed_topic *missed;

    if (s->ended || s->all->draining)
        return false;
    if (is_idle(s)) {
        send_missed(s, topic);
        return !s->ended;
    }
    if (!has_room(s))
        return false;
    missed = mem_alloc(sizeof(*missed) + topic.len);
    missed->len = topic.len;
    if (topic.len > 0)
        memcpy(missed->bytes, topic.ptr, topic.len);
    *ring_push(&s->pending) = (union ring_slot){ .send = { SEND_MISSED, missed } };
    return true;
}

void session_drop_sends(struct session *s)
{
    if (s->zstd != NULL)
        list_remove(&s->zstd->waiting);
    while (s->pending.count > 0) {
        drop_send(*ring_front(&s->pending));
        ring_pop(&s->pending);
    }
    drop_sending(s); /* a read under way has all that it needs */
}
