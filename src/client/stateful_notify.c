/*
 * Messages that leave: whole, or in parts; sent again, in their order, when a connection ended before their
 * confirmation. Called by link_stateful.c and stateful_frame.c.
 */
#include "stateful.h"

#include <string.h>

#include <lonely/framing.h>

#include "mem.h"

#define FRAME_MARGIN   128 /* a message and so much must fit one frame to go whole */
#define PART_MIN_BYTES 512 /* of a part's body, even where its head leaves less of the frame */

/* How far a notify is. Lives until its end. */
struct sending {
    uint8_t identifier[4];
    struct compressor *compressor; /* NULL: plain */
    uint8_t *packed;
    uint64_t length; /* as sent */
    uint8_t sha512[LONELY_SHA512_BYTES];
    uint64_t at;   /* the next byte to send */
    bool was_sent; /* over a connection that is gone */
    uint64_t part_id;
    unsigned losses; /* connections that ended while it was the first without answer */
};

static struct sending *sending_of(const struct notify *n)
{
    return n->link_data;
}

static void drop_packed(struct sending *s)
{
    compressor_unref(s->compressor);
    mem_free(s->packed);
    s->compressor = NULL;
    s->packed = NULL;
}

static void finish(struct notify *n, enum lonely_client_error err, uint64_t notified)
{
    struct sending *s = sending_of(n);

    list_remove(&n->node);
    drop_packed(s);
    mem_free(s);
    n->link_data = NULL;
    notify_done(n, err, notified);
}

void stateful_notify_add(struct stateful_link *l, struct notify *n)
{
    struct sending *s;

    if (l->n_unsent >= stateful_client(l)->conf.max_unsent_notifications) {
        notify_done(n, LONELY_CLIENT_QUEUE_FULL, 0);
        return;
    }
    s = mem_calloc(1, sizeof(*s));
    client_random(stateful_client(l), s->identifier, sizeof(s->identifier));
    n->link_data = s;
    list_push_back(&l->unsent, &n->node);
    l->n_unsent++;
    stateful_pump(l);
}

/* ---- What to send ---- */

static uint64_t frame_limit(const struct stateful_link *l)
{
    uint64_t limit = stateful_client(l)->conf.max_websocket_message_size;

    return limit < LONELY_FRAME_LIMIT_DEFAULT_BYTES ? limit : LONELY_FRAME_LIMIT_DEFAULT_BYTES;
}

/* Compressed if it is at hand, not too long, and the broadcaster has offered to. */
static void pack(struct stateful_link *l, const struct notify *n, struct sending *s)
{
    struct lonely_span plain = notify_span(n);
    struct compressor *c = stateful_choose(l, n->size);
    size_t bound = compressor_bound(plain.len), len;

    s->length = n->size;
    memcpy(s->sha512, n->sha512, sizeof(s->sha512));
    if (c == NULL || plain.ptr == NULL || plain.len == 0 || plain.len > frame_limit(l))
        return;
    s->packed = mem_try_alloc(bound);
    len = s->packed == NULL ? 0 : compressor_compress(c, plain, s->packed, bound);
    if (len == 0 || EVP_Digest(s->packed, len, s->sha512, NULL, EVP_sha512(), NULL) != 1) {
        memcpy(s->sha512, n->sha512, sizeof(s->sha512));
        mem_free(s->packed);
        s->packed = NULL;
        return;
    }
    compressor_ref(c);
    s->compressor = c;
    s->length = len;
}

static bool read_body(const struct notify *n, uint8_t *to, size_t len)
{
    const struct sending *s = sending_of(n);
    size_t done = 0;

    if (s->packed != NULL) {
        memcpy(to, s->packed + s->at, len);
        return true;
    }
    while (done < len) {
        ptrdiff_t got = notify_read(n, s->at + done, to + done, len - done);

        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

static bool sign(struct stateful_link *l, const struct notify *n, uint8_t *authorization,
                 struct lonely_span *out)
{
    const struct sending *s = sending_of(n);
    struct lonely_auth_input in = {
        .op = LONELY_AUTH_NOTIFY,
        .topic = n->topic,
        .identifier = { s->identifier, sizeof(s->identifier) },
        .hash = { s->sha512, sizeof(s->sha512) },
    };

    return stateful_sign(l, &in, 0, authorization, out);
}

static void expect(struct stateful_link *l, struct notify *n, bool last)
{
    stateful_expect(l, &(struct expected){
                           .kind = last ? EXPECT_NOTIFIED : EXPECT_CONTINUE,
                           .notify = n,
                           .part_id = sending_of(n)->part_id,
                       });
}

/* The frame's body is put piece by piece from the source. False: it cannot be read any more. */
static bool put_body(struct stateful_link *l, const struct notify *n, size_t len)
{
    struct sending *s = sending_of(n);
    struct lonely_span plain = notify_span(n);

    if (s->packed == NULL && plain.ptr != NULL) {
        transport_put(l->transport, (struct lonely_span){ plain.ptr + s->at, len });
        s->at += len;
        return true;
    }
    while (len > 0) {
        size_t piece = len < 65536 ? len : 65536;
        uint8_t *room = transport_reserve(l->transport, piece);

        if (room == NULL)
            return true; /* the connection is ending: on_end will tell */
        if (!read_body(n, room, piece))
            return false;
        transport_commit(l->transport, piece);
        s->at += piece;
        len -= piece;
    }
    return true;
}

/* What is left to send, as far as it goes into a frame with a head of that length: a part may be less. */
static uint64_t body_room(const struct stateful_link *l, const struct notify *n, bool in_parts,
                          size_t head_len)
{
    const struct sending *s = sending_of(n);
    uint64_t limit = frame_limit(l), left = s->length - s->at;
    uint64_t most = limit > head_len + PART_MIN_BYTES ? limit - head_len : PART_MIN_BYTES;

    return in_parts && left > most ? most : left;
}

/* False: the message cannot be read any more. */
static bool send_frame(struct stateful_link *l, struct notify *n, struct lonely_message *m)
{
    const struct sending *s = sending_of(n);
    uint8_t *head = mem_alloc(LONELY_MESSAGE_HEAD_MAX_BYTES);
    size_t len = 0, body_len;
    bool good, last;

    m->direction = LONELY_S2B;
    m->minimal = stateful_client(l)->conf.websocket_minimal_headers;
    good = lonely_message_serialize_head(m, head, LONELY_MESSAGE_HEAD_MAX_BYTES, &len) == LONELY_OK;
    if (good) {
        body_len = (size_t)body_room(l, n, m->type == LONELY_S2B_NOTIFY_STREAM, len);
        last = s->at + body_len == s->length;
        l->streaming = last ? NULL : n;
        expect(l, n, last);
        transport_frame(l->transport, len + body_len);
        transport_put(l->transport, (struct lonely_span){ head, len });
        good = put_body(l, n, body_len);
    }
    mem_free(head);
    return good;
}

/* The source failed inside a frame: the connection is of no further use, and the notify is over. */
static void source_failed(struct stateful_link *l, struct notify *n)
{
    l->n_sent--;
    if (l->streaming == n)
        l->streaming = NULL;
    stateful_fail(l, TRANSPORT_GOING_AWAY, "the message to be sent could not be read");
    finish(n, LONELY_CLIENT_SOURCE, 0);
}

static bool send_whole(struct stateful_link *l, struct notify *n)
{
    struct sending *s = sending_of(n);
    uint8_t authorization[LONELY_AUTH_MAX_BYTES];
    struct lonely_message m = { .type = LONELY_S2B_NOTIFY };
    struct lonely_msg_notify *f = &m.as.notify;

    f->identifier = (struct lonely_span){ s->identifier, sizeof(s->identifier) };
    f->topic = n->topic;
    f->compressor = s->compressor != NULL ? compressor_id(s->compressor) : 0;
    f->compressed_length = s->length;
    f->decompressed_length = n->size;
    f->compressed_sha512 = (struct lonely_span){ s->sha512, sizeof(s->sha512) };
    if (!sign(l, n, authorization, &f->authorization))
        return false;
    if (!send_frame(l, n, &m))
        source_failed(l, n);
    else
        notify_progress(n, n->size);
    return true;
}

static bool send_part(struct stateful_link *l, struct notify *n)
{
    struct sending *s = sending_of(n);
    uint8_t authorization[LONELY_AUTH_MAX_BYTES];
    struct lonely_message m = { .type = LONELY_S2B_NOTIFY_STREAM };
    struct lonely_msg_stream *f = &m.as.stream;

    f->identifier = (struct lonely_span){ s->identifier, sizeof(s->identifier) };
    f->part_id = s->part_id;
    f->topic = n->topic;
    f->compressor = s->compressor != NULL ? compressor_id(s->compressor) : 0;
    f->compressed_length = s->length;
    f->decompressed_length = n->size;
    f->compressed_sha512 = (struct lonely_span){ s->sha512, sizeof(s->sha512) };
    if (!sign(l, n, authorization, &f->authorization))
        return false;
    if (!send_frame(l, n, &m)) {
        source_failed(l, n);
        return true;
    }
    s->part_id++;
    notify_progress(n, s->packed != NULL ? n->size : s->at);
    return true;
}

static struct notify *next_unsent(struct stateful_link *l)
{
    struct list *node = list_first(&l->unsent);

    if (node == NULL || l->n_sent >= stateful_client(l)->conf.max_sent_notifications)
        return NULL;
    return list_entry(node, struct notify, node);
}

static void trace_sending(struct stateful_link *l, const struct notify *n)
{
    const struct lonely_client_tracer *tracer = &stateful_client(l)->conf.tracer;
    const struct sending *s = sending_of(n);
    uint8_t none[1];

    if (tracer->sending != NULL) /* its bytes are not sent: all parts must carry the same */
        tracer->sending(tracer->arg, n->trace_id, l->broadcaster->url,
                        (struct lonely_span){ s->identifier, sizeof(s->identifier) }, none, 0);
}

bool stateful_notify_pump(struct stateful_link *l)
{
    struct notify *n = l->streaming;
    struct sending *s;

    if (!stateful_may_ask(l) || l->parts_out >= STATEFUL_PARTS_MAX ||
        transport_queued(l->transport) > STATEFUL_HIGH_WATER)
        return false;
    if (n != NULL)
        return send_part(l, n);
    n = next_unsent(l);
    if (n == NULL)
        return false;
    list_remove(&n->node);
    list_push_back(&l->sent, &n->node);
    l->n_unsent--;
    l->n_sent++;
    s = sending_of(n);
    trace_sending(l, n);
    pack(l, n, s);
    if (n->size + n->topic.len + FRAME_MARGIN + LONELY_AUTH_HMAC_MAX_BYTES + 512 < frame_limit(l) &&
        s->length + n->topic.len + LONELY_AUTH_HMAC_MAX_BYTES + 512 < frame_limit(l))
        return send_whole(l, n);
    return send_part(l, n);
}

/* ---- Answers ---- */

static bool is_of(const struct notify *n, struct lonely_span identifier)
{
    const struct sending *s = sending_of(n);

    return identifier.len == sizeof(s->identifier) &&
           memcmp(identifier.ptr, s->identifier, sizeof(s->identifier)) == 0;
}

void stateful_notify_continued(struct stateful_link *l, const struct expected *e,
                               const struct lonely_msg_continuation *m)
{
    struct lonely_auth_input in = {
        .op = LONELY_AUTH_STATEFUL_CONTINUE_NOTIFY,
        .tracing = m->tracing,
        .identifier = m->identifier,
        .part_id = m->part_id,
    };

    if (!is_of(e->notify, m->identifier) || m->part_id != e->part_id) {
        stateful_fail(l, TRANSPORT_MALFORMED, "the broadcaster continues another message");
        return;
    }
    if (!stateful_client(l)->conf.check_confirmations ||
        stateful_verify(l, &in, false, m->authorization))
        stateful_pump(l);
}

/* Over the plain hash, or over that of what was sent: both are in use. (session.md, 3.5 and C9) */
static bool is_authorized(struct stateful_link *l, const struct notify *n,
                          const struct lonely_msg_confirm_notify *m)
{
    const struct sending *s = sending_of(n);
    struct lonely_auth_input in = {
        .op = LONELY_AUTH_CONFIRM_NOTIFY,
        .tracing = m->tracing,
        .topic = n->topic,
        .identifier = m->identifier,
        .hash = { n->sha512, LONELY_SHA512_BYTES },
        .subscribers = m->subscribers,
    };

    if (!stateful_client(l)->conf.check_confirmations ||
        client_verify(stateful_client(l), &in, lonely_auth_field(&m->authorization)) ==
            LONELY_AUTH_OK)
        return true;
    in.hash = (struct lonely_span){ s->sha512, sizeof(s->sha512) };
    return stateful_verify(l, &in, false, m->authorization);
}

void stateful_notify_confirmed(struct stateful_link *l, const struct expected *e,
                               const struct lonely_msg_confirm_notify *m)
{
    const struct lonely_client_tracer *tracer = &stateful_client(l)->conf.tracer;

    if (!is_of(e->notify, m->identifier)) {
        stateful_fail(l, TRANSPORT_MALFORMED, "the broadcaster confirms another message");
        return;
    }
    if (!is_authorized(l, e->notify, m))
        return;
    if (tracer->response_received != NULL)
        tracer->response_received(tracer->arg, e->notify->trace_id, 0);
    if (tracer->accepted != NULL)
        tracer->accepted(tracer->arg, e->notify->trace_id, m->tracing, m->subscribers);
    l->n_sent--;
    finish(e->notify, LONELY_CLIENT_OK, m->subscribers);
    stateful_pump(l);
}

/* ---- The connection is gone ---- */

/* A broadcaster that does not like a notify has no other answer than to end the connection; the others are
 * not to suffer for it. */
static void give_up_first(struct stateful_link *l)
{
    struct list *node = list_first(&l->sent);

    if (node == NULL || !l->rejected ||
        ++sending_of(list_entry(node, struct notify, node))->losses < STATEFUL_LOSSES_MAX)
        return;
    finish(list_entry(node, struct notify, node), LONELY_CLIENT_AMBIGUOUS, 0);
}

void stateful_notify_reset(struct stateful_link *l)
{
    struct list *node;

    l->streaming = NULL;
    give_up_first(l);
    l->rejected = false;
    while ((node = list_last(&l->sent)) != NULL) { /* in front of the others, in their order */
        struct sending *s = sending_of(list_entry(node, struct notify, node));

        list_remove(node);
        list_push_front(&l->unsent, node);
        l->n_unsent++;
        drop_packed(s);
        s->at = 0;
        s->part_id = 0;
        s->was_sent = true;
    }
    l->n_sent = 0;
}

/* Those that were never sent are abandoned; of the others it is not known. */
void stateful_notify_abandon(struct stateful_link *l)
{
    struct list *node;

    stateful_notify_reset(l);
    while ((node = list_first(&l->unsent)) != NULL) {
        struct notify *n = list_entry(node, struct notify, node);

        l->n_unsent--;
        finish(n, sending_of(n)->was_sent ? LONELY_CLIENT_AMBIGUOUS : LONELY_CLIENT_ABANDONED, 0);
    }
}
