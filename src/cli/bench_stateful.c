/*
 * Our protocol on the bare sockets of bench_load.c: websockets and raw TCP. (doc/protocol/session.md, 6;
 * doc/protocol/stateful.md)
 */
#include "bench_wire.h"

#include <lonely/framing.h>
#include <lonely/message.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#include "websocket.h"
#include "websocket_handshake.h"

#define HEAD_MAX 8192 /* of a frame of ours: the topic is at most 4,096 bytes */

enum { STAGE_UPGRADE, STAGE_CONFIGURE, STAGE_SUBSCRIBE, STAGE_OPEN };

static struct lonely_span topic_of(const struct bench_load *l)
{
    return (struct lonely_span){ (const uint8_t *)l->set->topic, strlen(l->set->topic) };
}

/* ---- Frames out ---- */

static bool is_websocket(const struct bench_peer *p)
{
    return p->load->set->wire == &bench_websocket;
}

static bool sign(struct bench_load *l, const struct lonely_auth_input *in, struct lonely_span *out)
{
    static uint8_t room[LONELY_AUTH_MAX_BYTES];
    uint8_t nonce[LONELY_AUTH_NONCE_BYTES], number[4];
    uint32_t id = l->next_id++;
    size_t len;

    *out = (struct lonely_span){ 0 };
    if (l->auth == NULL)
        return true;
    memcpy(number, &id, sizeof(number));
    lonely_auth_nonce_text(number, nonce);
    if (lonely_auth_sign(l->auth, l->secrets.to_broadcaster, in, l->epoch_s,
                         (struct lonely_span){ nonce, sizeof(nonce) }, room, sizeof(room),
                         &len) != LONELY_OK) {
        bench_failed(l, "a message cannot be signed");
        return false;
    }
    *out = (struct lonely_span){ room, len };
    return true;
}

/* A frame: what goes before it, its head, and `body`. */
static void put_frame(struct bench_peer *p, struct lonely_message *m, struct lonely_span body)
{
    uint8_t *at = bench_put_room(p, WEBSOCKET_HEAD_MAX + HEAD_MAX + body.len), *frame;
    uint8_t head[WEBSOCKET_HEAD_MAX];
    size_t before, len;

    m->direction = LONELY_S2B;
    m->minimal = true;
    frame = at + WEBSOCKET_HEAD_MAX;
    if (lonely_message_serialize_head(m, frame, HEAD_MAX, &len) != LONELY_OK) {
        bench_failed(p->load, "a message cannot be written");
        return;
    }
    if (body.len > 0)
        memcpy(frame + len, body.ptr, body.len);
    len += body.len;
    if (is_websocket(p)) {
        before = websocket_write_head(head, WEBSOCKET_BINARY, len, p->mask);
        websocket_mask(frame, len, p->mask, 0);
    } else {
        before = LONELY_FRAMING_LENGTH_BYTES;
        (void)lonely_framing_announce(len, LONELY_FRAME_LIMIT_MAX_BYTES, head);
    }
    memcpy(at, head, before);
    memmove(at + before, frame, len);
    bench_put_done(p, before + len);
}

static struct lonely_span url_of(struct bench_peer *p)
{
    static char url[LONELY_CONNECTION_URL_MAX_BYTES];
    int64_t number;
    size_t len;

    if (lonely_connection_take(&p->connection, LONELY_COUNTER_SUBSCRIBER, &number) != LONELY_OK ||
        p->load->auth == NULL)
        return (struct lonely_span){ 0 };
    len = lonely_connection_url(&p->connection, number, url);
    return (struct lonely_span){ (const uint8_t *)url, len };
}

/* ---- Opening ---- */

static void put_configure(struct bench_peer *p)
{
    struct lonely_auth_input in = { .op = LONELY_AUTH_STATEFUL_CONFIGURE };
    struct lonely_message m = { .type = LONELY_S2B_CONFIGURE };

    p->stage = STAGE_CONFIGURE;
    if (RAND_bytes(p->nonce, sizeof(p->nonce)) != 1 || RAND_bytes(p->mask, sizeof(p->mask)) != 1)
        bench_failed(p->load, "no random numbers");
    in.nonce = (struct lonely_span){ p->nonce, sizeof(p->nonce) };
    m.as.configure.subscriber_nonce = in.nonce;
    if (sign(p->load, &in, &m.as.configure.authorization))
        put_frame(p, &m, (struct lonely_span){ 0 });
}

static void put_subscribe(struct bench_peer *p)
{
    struct lonely_auth_input in = { .op = LONELY_AUTH_SUBSCRIBE_EXACT };
    struct lonely_message m = { .type = LONELY_S2B_SUBSCRIBE_EXACT };

    p->stage = STAGE_SUBSCRIBE;
    in.url = url_of(p);
    m.as.subscription.topic = in.topic = topic_of(p->load);
    if (sign(p->load, &in, &m.as.subscription.authorization))
        put_frame(p, &m, (struct lonely_span){ 0 });
}

static void open_tcp(struct bench_peer *p)
{
    put_configure(p);
}

/* The nonce of the request is in p->nonce until the answer has come. */
static void open_websocket(struct bench_peer *p)
{
    char host[BENCH_HOST_MAX + 8];
    struct websocket_request request = { .host = host, .target = "/v1/websocket" };
    struct buf text;

    p->stage = STAGE_UPGRADE;
    snprintf(host, sizeof(host), "%s:%s", p->load->set->host, p->load->set->port);
    if (RAND_bytes(p->nonce, WEBSOCKET_NONCE_BYTES) != 1)
        bench_failed(p->load, "no random numbers");
    memcpy(request.nonce, p->nonce, WEBSOCKET_NONCE_BYTES);
    buf_init(&text, HEAD_MAX);
    if (websocket_write_request(&text, &request))
        bench_put(p, text.ptr, text.len);
    buf_fini(&text);
}

static size_t take_upgrade(struct bench_peer *p, const uint8_t *in, size_t len)
{
    struct websocket_reply_result r =
        websocket_check_reply((struct lonely_span){ in, len }, p->nonce);

    if (r.reply == WEBSOCKET_REPLY_MORE)
        return 0;
    if (r.reply == WEBSOCKET_REPLY_OPEN) {
        put_configure(p);
        return r.used;
    }
    bench_failed(p->load, "the broadcaster refused a websocket");
    return len;
}

/* ---- Publishing ---- */

static struct lonely_span next_identifier(struct bench_load *l)
{
    static uint32_t id;

    id = l->next_id++;
    return (struct lonely_span){ (const uint8_t *)&id, sizeof(id) };
}

static void publish_whole(struct bench_peer *p)
{
    struct bench_load *l = p->load;
    struct lonely_auth_input in = { .op = LONELY_AUTH_NOTIFY };
    struct lonely_message m = { .type = LONELY_S2B_NOTIFY };
    struct lonely_msg_notify *n = &m.as.notify;
    uint8_t hash[SHA512_DIGEST_LENGTH];

    SHA512(l->payload, l->payload_len, hash);
    n->compressed_sha512 = in.hash = (struct lonely_span){ hash, sizeof(hash) };
    n->compressed_length = n->decompressed_length = l->payload_len;
    n->topic = in.topic = topic_of(l);
    n->identifier = in.identifier = next_identifier(l);
    if (sign(l, &in, &n->authorization))
        put_frame(p, &m, (struct lonely_span){ l->payload, l->payload_len });
}

static void publish_part(struct bench_peer *p)
{
    struct bench_load *l = p->load;
    struct lonely_auth_input in = { .op = LONELY_AUTH_NOTIFY };
    struct lonely_message m = { .type = LONELY_S2B_NOTIFY_STREAM };
    struct lonely_msg_stream *part = &m.as.stream;
    uint64_t left = l->set->size - p->sent;
    size_t len = left < l->set->part_bytes ? (size_t)left : (size_t)l->set->part_bytes;

    if (p->sent == 0) {
        p->sent_id = l->next_id++;
        p->part_id = 0;
    }
    part->identifier = in.identifier = (struct lonely_span){ (const uint8_t *)&p->sent_id, 4 };
    part->part_id = p->part_id++;
    part->topic = in.topic = topic_of(l);
    part->compressed_length = part->decompressed_length = l->set->size;
    part->compressed_sha512 = in.hash = (struct lonely_span){ l->hash, sizeof(l->hash) };
    if (sign(l, &in, &part->authorization))
        put_frame(p, &m, (struct lonely_span){ l->payload, len });
    p->sent = len == left ? 0 : p->sent + len;
}

static void publish(struct bench_peer *p)
{
    if (p->load->set->size > p->load->set->part_bytes)
        publish_part(p);
    else
        publish_whole(p);
}

static void end_write(struct bench_peer *p, unsigned messages)
{
    (void)p;
    (void)messages;
}

/* ---- Receiving ---- */

static void acknowledge(struct bench_peer *p, const struct lonely_msg_stream *part, bool last)
{
    struct lonely_auth_input in = { .op = last ? LONELY_AUTH_CONFIRM_RECEIVE
                                               : LONELY_AUTH_STATEFUL_CONTINUE_RECEIVE };
    struct lonely_message m = { .type = last ? LONELY_S2B_CONFIRM_RECEIVE
                                             : LONELY_S2B_CONTINUE_RECEIVE };
    struct lonely_span authorization;

    in.url = url_of(p);
    in.identifier = part->identifier;
    in.subscribers = 1;
    in.part_id = part->part_id;
    if (!sign(p->load, &in, &authorization))
        return;
    if (last)
        m.as.confirm_receive = (struct lonely_msg_confirm_receive){ .identifier = part->identifier,
                                                                    .authorization = authorization,
                                                                    .num_subscribers = 1 };
    else
        m.as.continuation = (struct lonely_msg_continuation){ .identifier = part->identifier,
                                                              .authorization = authorization,
                                                              .part_id = part->part_id };
    put_frame(p, &m, (struct lonely_span){ 0 });
}

static void on_part(struct bench_peer *p, const struct lonely_message *m)
{
    const struct lonely_msg_stream *part = &m->as.stream;

    if (part->part_id == 0) {
        p->received = 0;
        p->announced = part->compressed_length;
    }
    p->received += m->body.len;
    if (p->received == p->announced)
        bench_delivered(p, m->body, p->announced);
    acknowledge(p, part, p->received == p->announced);
}

static void on_configured(struct bench_peer *p, const struct lonely_message *m)
{
    if (lonely_connection_init(&p->connection, (struct lonely_span){ p->nonce, sizeof(p->nonce) },
                               m->as.confirm_configure.broadcaster_nonce) != LONELY_OK)
        bench_failed(p->load, "no connection nonce");
    p->stage = STAGE_OPEN;
    if (p->role == BENCH_SUBSCRIBER)
        put_subscribe(p);
    else
        bench_peer_ready(p);
}

static void on_frame(struct bench_peer *p, struct lonely_span frame)
{
    struct lonely_message m;

    if (lonely_message_parse_with(LONELY_B2S, frame, LONELY_PARSE_NO_HASH, &m).err != LONELY_OK) {
        bench_failed(p->load, "the broadcaster sent what is no frame");
        return;
    }
    switch (m.type) {
    case LONELY_B2S_CONFIRM_CONFIGURE:
        on_configured(p, &m);
        break;
    case LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT:
        p->stage = STAGE_OPEN;
        bench_peer_ready(p);
        break;
    case LONELY_B2S_CONFIRM_NOTIFY:
        bench_confirmed(p->load, 1, m.as.confirm_notify.subscribers);
        break;
    case LONELY_B2S_RECEIVE_STREAM:
        on_part(p, &m);
        break;
    default: /* CONTINUE_NOTIFY, MISSED: nothing to do */
        break;
    }
}

/* ---- Frames in ---- */

static uint64_t big_endian(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

static size_t take_tcp(struct bench_peer *p, uint8_t *in, size_t len, size_t *wanted)
{
    size_t at = 0;

    while (len - at >= LONELY_FRAMING_LENGTH_BYTES) {
        size_t frame = (size_t)big_endian(in + at, LONELY_FRAMING_LENGTH_BYTES);

        *wanted = LONELY_FRAMING_LENGTH_BYTES + frame;
        if (len - at < *wanted)
            break;
        on_frame(p, (struct lonely_span){ in + at + LONELY_FRAMING_LENGTH_BYTES, frame });
        at += *wanted;
    }
    return at;
}

/* A pong, with what the ping held. */
static void put_pong(struct bench_peer *p, struct lonely_span payload)
{
    uint8_t *at = bench_put_room(p, WEBSOCKET_HEAD_MAX + payload.len);
    size_t head = websocket_write_head(at, WEBSOCKET_PONG, payload.len, p->mask);

    if (payload.len > 0)
        memcpy(at + head, payload.ptr, payload.len);
    websocket_mask(at + head, payload.len, p->mask, 0);
    bench_put_done(p, head + payload.len);
}

static void on_websocket_frame(struct bench_peer *p, uint8_t first, struct lonely_span payload)
{
    if (first == (0x80 | WEBSOCKET_BINARY))
        on_frame(p, payload);
    else if (first == (0x80 | WEBSOCKET_PING))
        put_pong(p, payload);
    else if (first != (0x80 | WEBSOCKET_PONG))
        bench_failed(p->load, "the broadcaster closed a websocket, or sent fragments");
}

static size_t take_websocket(struct bench_peer *p, uint8_t *in, size_t len, size_t *wanted)
{
    size_t at = p->stage == STAGE_UPGRADE ? take_upgrade(p, in, len) : 0;

    if (p->stage == STAGE_UPGRADE)
        return at;
    while (len - at >= 2) {
        unsigned size = in[at + 1] & 0x7f, more = size == 126 ? 2 : size == 127 ? 8 : 0;
        uint64_t payload;

        if (len - at < 2 + more)
            break;
        payload = more > 0 ? big_endian(in + at + 2, more) : size;
        *wanted = 2 + more + (size_t)payload;
        if (len - at < *wanted)
            break;
        on_websocket_frame(p, in[at], (struct lonely_span){ in + at + 2 + more, (size_t)payload });
        at += *wanted;
    }
    return at;
}

const struct bench_wire bench_websocket = { "ws", open_websocket, take_websocket, publish,
                                            end_write };
const struct bench_wire bench_tcp = { "tcp", open_tcp, take_tcp, publish, end_write };
