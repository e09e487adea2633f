/*
 * What a subscriber or publisher says, in few words. For tests of sessions, over session_fixture.h, without
 * authorization. Header only.
 */
#ifndef TESTS_SESSION_PEER_H
#define TESTS_SESSION_PEER_H

#include <openssl/sha.h>

#include "session_fixture.h"

static uint8_t peer_sha512[LONELY_SHA512_BYTES]; /* of the present message */
static uint64_t peer_length;                     /* of the present stream */

static inline struct lonely_span peer_span(const char *text)
{
    return (struct lonely_span){ (const uint8_t *)text, strlen(text) };
}

static inline void peer_hash(struct lonely_span bytes, uint8_t out[LONELY_SHA512_BYTES])
{
    SHA512(bytes.ptr, bytes.len, out);
}

static inline void peer_sends_configure(void)
{
    static const uint8_t nonce[LONELY_NONCE_BYTES] = { 1 };

    fx_send((struct lonely_message){
        .type = LONELY_S2B_CONFIGURE,
        .as.configure.subscriber_nonce = { nonce, sizeof(nonce) },
    });
}

static inline void peer_configures(void)
{
    peer_sends_configure();
    fx_next(LONELY_B2S_CONFIRM_CONFIGURE);
}

static inline void peer_subscribes(enum lonely_s2b type, const char *topic)
{
    fx_send((struct lonely_message){ .type = (uint16_t)type,
                                     .as.subscription.topic = peer_span(topic) });
}

static inline struct lonely_message peer_notify(const char *identifier, const char *topic,
                                                struct lonely_span body)
{
    peer_hash(body, peer_sha512);
    return (struct lonely_message){
        .type = LONELY_S2B_NOTIFY,
        .as.notify = {
            .identifier = peer_span(identifier),
            .topic = peer_span(topic),
            .compressed_length = body.len,
            .decompressed_length = body.len,
            .compressed_sha512 = { peer_sha512, sizeof(peer_sha512) },
        },
        .body = body,
    };
}

static inline void peer_notifies(const char *identifier, const char *topic, const char *body)
{
    fx_send(peer_notify(identifier, topic, peer_span(body)));
}

static inline void peer_notifies_bytes(const char *identifier, const char *topic,
                                       const uint8_t *bytes, size_t len)
{
    fx_send(peer_notify(identifier, topic, (struct lonely_span){ bytes, len }));
}

/* The parts that follow belong to this. */
static inline void peer_begins_stream(uint64_t length, const char *content)
{
    peer_length = length;
    peer_hash(peer_span(content), peer_sha512);
}

static inline void peer_sends_part(const char *identifier, uint64_t part_id, const char *body)
{
    if (fx.t.closed)
        return;
    fx_send((struct lonely_message){
        .type = LONELY_S2B_NOTIFY_STREAM,
        .as.stream = {
            .identifier = peer_span(identifier),
            .part_id = part_id,
            .topic = LIT_INIT("t"),
            .compressed_length = peer_length,
            .decompressed_length = peer_length,
            .compressed_sha512 = { peer_sha512, sizeof(peer_sha512) },
        },
        .body = peer_span(body),
    });
}

static inline void peer_continues(const char *identifier, uint64_t part_id)
{
    fx_send((struct lonely_message){
        .type = LONELY_S2B_CONTINUE_RECEIVE,
        .as.continuation = { .identifier = peer_span(identifier), .part_id = part_id },
    });
}

static inline void peer_confirms(const char *identifier)
{
    fx_send((struct lonely_message){
        .type = LONELY_S2B_CONFIRM_RECEIVE,
        .as.confirm_receive = { .identifier = peer_span(identifier), .num_subscribers = 1 },
    });
}

/* The transport tells that it is over. */
static inline void peer_leaves(enum transport_code code)
{
    fx.t.events->on_end(fx.t.arg, code);
}

#endif
