/*
 * Connection nonce, counters and urls (doc/protocol/stateful.md, 9). Called by both ends of a
 * stateful connection; auth_hmac.c signs the urls made here.
 */
#include "sha.h" /* first: chooses the OpenSSL interface */

#include <lonely/connection.h>

#include <string.h>

#include "base64.h"

enum lonely_error lonely_connection_init(struct lonely_connection *c,
                                         struct lonely_span subscriber_nonce,
                                         struct lonely_span broadcaster_nonce)
{
    *c = (struct lonely_connection){ .next_subscriber = -1, .next_broadcaster = 1 };
    if (subscriber_nonce.len != LONELY_NONCE_BYTES || broadcaster_nonce.len != LONELY_NONCE_BYTES)
        return LONELY_E_NONCE_SIZE;
    return sha256(subscriber_nonce, broadcaster_nonce, c->nonce) ? LONELY_OK : LONELY_E_CRYPTO;
}

enum lonely_counter lonely_connection_counter(enum lonely_direction direction, unsigned type)
{
    static const uint8_t s2b[] = {
        [LONELY_S2B_SUBSCRIBE_EXACT] = LONELY_COUNTER_SUBSCRIBER,
        [LONELY_S2B_SUBSCRIBE_GLOB] = LONELY_COUNTER_SUBSCRIBER,
        [LONELY_S2B_UNSUBSCRIBE_EXACT] = LONELY_COUNTER_SUBSCRIBER,
        [LONELY_S2B_UNSUBSCRIBE_GLOB] = LONELY_COUNTER_SUBSCRIBER,
        [LONELY_S2B_CONTINUE_RECEIVE] = LONELY_COUNTER_SUBSCRIBER,
        [LONELY_S2B_CONFIRM_RECEIVE] = LONELY_COUNTER_SUBSCRIBER,
    };
    static const uint8_t b2s[] = {
        [LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT] = LONELY_COUNTER_REQUEST,
        [LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB] = LONELY_COUNTER_REQUEST,
        [LONELY_B2S_CONFIRM_UNSUBSCRIBE_EXACT] = LONELY_COUNTER_REQUEST,
        [LONELY_B2S_CONFIRM_UNSUBSCRIBE_GLOB] = LONELY_COUNTER_REQUEST,
        [LONELY_B2S_RECEIVE_STREAM] = LONELY_COUNTER_BROADCASTER,
        [LONELY_B2S_ENABLE_ZSTD_PRESET] = LONELY_COUNTER_BROADCASTER,
        [LONELY_B2S_ENABLE_ZSTD_CUSTOM] = LONELY_COUNTER_BROADCASTER,
        [LONELY_B2S_DISABLE_ZSTD_CUSTOM] = LONELY_COUNTER_BROADCASTER,
        [LONELY_B2S_MISSED] = LONELY_COUNTER_BROADCASTER,
    };

    if (direction == LONELY_S2B && type < sizeof(s2b))
        return (enum lonely_counter)s2b[type];
    if (direction == LONELY_B2S && type < sizeof(b2s))
        return (enum lonely_counter)b2s[type];
    return LONELY_COUNTER_NONE;
}

/* The last number of either counter is followed by 0, which stands for "no more". */
enum lonely_error lonely_connection_take(struct lonely_connection *c, enum lonely_counter counter,
                                         int64_t *number)
{
    int64_t *next = counter == LONELY_COUNTER_SUBSCRIBER    ? &c->next_subscriber
                    : counter == LONELY_COUNTER_BROADCASTER ? &c->next_broadcaster
                                                            : NULL;

    if (next == NULL)
        return LONELY_E_ARGUMENT;
    if (*next == 0)
        return LONELY_E_COUNTER;
    *number = *next;
    if (*next == INT64_MIN || *next == INT64_MAX)
        *next = 0;
    else
        *next += *next < 0 ? -1 : 1;
    return LONELY_OK;
}

size_t lonely_connection_url(const struct lonely_connection *c, int64_t number,
                             char out[LONELY_CONNECTION_URL_MAX_BYTES])
{
    static const char scheme[] = "websocket:";
    const struct lonely_span nonce = { c->nonce, sizeof(c->nonce) };
    uint64_t magnitude = number < 0 ? -(uint64_t)number : (uint64_t)number;
    char *p = out + sizeof(scheme) - 1;
    int digits = 1;

    memcpy(out, scheme, sizeof(scheme) - 1);
    p += base64_encode(BASE64_STANDARD, nonce, (uint8_t *)p); /* not the URL-safe one (Q8) */
    *p++ = ':';
    if (number < 0)
        *p++ = '-';
    while (digits < 16 && magnitude >> (4 * digits) != 0)
        digits++;
    while (digits-- > 0)
        *p++ = "0123456789abcdef"[magnitude >> (4 * digits) & 0xf];
    *p = '\0';
    return (size_t)(p - out);
}
