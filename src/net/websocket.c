/*
 * The websocket codec (websocket.h). transport.c feeds it what it reads, and asks it for the heads of
 * what it sends; tests/fuzz/fuzz_websocket.c compares it with another implementation.
 */
#include "websocket.h"

#include <string.h>

#define FIN      0x80
#define RESERVED 0x70
#define OPCODE   0x0f
#define MASKED   0x80
#define LENGTH   0x7f
#define LENGTH16 126
#define LENGTH64 127

void websocket_init(struct websocket *w, bool masked, bool accepts_text, uint64_t max_bytes)
{
    *w = (struct websocket){ .masked = masked,
                             .accepts_text = accepts_text,
                             .max_bytes = max_bytes };
}

/* ---- Payloads ---- */

void websocket_mask(uint8_t *bytes, size_t len, const uint8_t key[4], size_t at)
{
    uint8_t turned[8];
    uint64_t mask, word;
    size_t i = 0;

    for (; i < 8; i++)
        turned[i] = key[(at + i) & 3];
    memcpy(&mask, turned, 8);
    for (i = 0; len - i >= 8; i += 8) {
        memcpy(&word, bytes + i, 8);
        word ^= mask;
        memcpy(bytes + i, &word, 8);
    }
    for (; i < len; i++)
        bytes[i] ^= turned[i & 7];
}

/* The first byte of a character: how many must follow, and the bounds of the next, where overlong
 * forms, surrogates and what is above U+10FFFF fall out (RFC 3629). */
static bool begin_character(struct websocket_utf8 *u, uint8_t b)
{
    u->lo = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    u->hi = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    u->missing = b < 0x80 ? 0 : b < 0xe0 ? 1 : b < 0xf0 ? 2 : 3;
    return b < 0x80 || (b >= 0xc2 && b <= 0xf4);
}

bool websocket_check_utf8(struct websocket_utf8 *u, struct lonely_span text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t b = text.ptr[i];

        if (u->missing == 0) {
            if (!begin_character(u, b))
                return false;
            continue;
        }
        if (b < u->lo || b > u->hi)
            return false;
        u->missing--;
        u->lo = 0x80;
        u->hi = 0xbf;
    }
    return true;
}

/* ---- Heads ---- */

size_t websocket_write_head(uint8_t out[WEBSOCKET_HEAD_MAX], enum websocket_opcode opcode,
                            uint64_t payload_bytes, const uint8_t *key)
{
    unsigned length_bytes = payload_bytes < LENGTH16 ? 0 : payload_bytes <= UINT16_MAX ? 2 : 8;
    size_t len = 2 + length_bytes;

    out[0] = (uint8_t)(FIN | opcode);
    out[1] = length_bytes == 0 ? (uint8_t)payload_bytes : length_bytes == 2 ? LENGTH16 : LENGTH64;
    for (unsigned i = 0; i < length_bytes; i++)
        out[2 + i] = (uint8_t)(payload_bytes >> (8 * (length_bytes - 1 - i)));
    if (key != NULL) {
        out[1] |= MASKED;
        memcpy(out + len, key, 4);
        len += 4;
    }
    return len;
}

static struct websocket_step refuse(struct websocket *w, size_t used, enum websocket_code code)
{
    w->bad = (uint16_t)code;
    return (struct websocket_step){ .event = WEBSOCKET_ON_BAD, .used = used, .code = w->bad };
}

static bool is_control(const struct websocket *w)
{
    return (w->head[0] & 0x08) != 0;
}

static bool is_final(const struct websocket *w)
{
    return (w->head[0] & FIN) != 0;
}

/* What the first two bytes tell. 0: they are good. */
static int check_beginning(const struct websocket *w)
{
    unsigned opcode = w->head[0] & OPCODE;

    if ((w->head[0] & RESERVED) != 0 || ((w->head[1] & MASKED) != 0) != w->masked)
        return WEBSOCKET_MALFORMED;
    if (is_control(w))
        return opcode <= WEBSOCKET_PONG && is_final(w) &&
                       (w->head[1] & LENGTH) <= WEBSOCKET_CONTROL_MAX
                   ? 0
                   : WEBSOCKET_MALFORMED;
    if (opcode > WEBSOCKET_BINARY || (opcode == WEBSOCKET_CONTINUATION) != w->in_message)
        return WEBSOCKET_MALFORMED;
    return opcode == WEBSOCKET_TEXT && !w->accepts_text ? WEBSOCKET_NOT_TEXT : 0;
}

static size_t head_bytes(const struct websocket *w)
{
    unsigned length = w->head[1] & LENGTH;

    return 2u + (length == LENGTH16 ? 2 : length == LENGTH64 ? 8 : 0) + (w->masked ? 4 : 0);
}

/* Begins the payload of the frame whose head is complete. 0: it may be taken. */
static int begin_payload(struct websocket *w)
{
    unsigned length_bytes = (unsigned)head_bytes(w) - 2 - (w->masked ? 4 : 0);
    uint64_t len = w->head[1] & LENGTH;

    if (length_bytes > 0) {
        len = 0;
        for (unsigned i = 0; i < length_bytes; i++)
            len = len << 8 | w->head[2 + i];
        if (len < LENGTH16 || (length_bytes == 8 && (len <= UINT16_MAX || len >> 63 != 0)))
            return WEBSOCKET_MALFORMED;
    }
    memcpy(w->key, w->head + 2 + length_bytes, w->masked ? 4 : 0);
    w->key_at = 0;
    w->left = len;
    w->control_len = 0;
    w->in_frame = true;
    if (is_control(w))
        return 0;
    if (!w->in_message) {
        w->in_message = true;
        w->begun = false;
        w->message = 0;
        w->text = (w->head[0] & OPCODE) == WEBSOCKET_TEXT;
        w->whole = is_final(w) ? len : WEBSOCKET_LENGTH_UNKNOWN;
        w->utf8 = (struct websocket_utf8){ 0 };
    }
    if (len > w->max_bytes - w->message)
        return WEBSOCKET_TOO_LONG;
    w->message += len;
    return 0;
}

/* Gathers the head. Returns what is wrong with it, or 0; then it is complete if w->in_frame. */
static int take_head(struct websocket *w, const uint8_t *in, size_t len, size_t *used)
{
    size_t want = w->head_len < 2 ? 2 : head_bytes(w);
    int wrong;

    for (;;) {
        size_t n = want - w->head_len;

        if (n > len - *used)
            n = len - *used;
        memcpy(w->head + w->head_len, in + *used, n);
        w->head_len = (uint8_t)(w->head_len + n);
        *used += n;
        if (w->head_len < want)
            return 0;
        if (want == 2 && (wrong = check_beginning(w)) != 0)
            return wrong;
        if (want == head_bytes(w))
            break;
        want = head_bytes(w);
    }
    w->head_len = 0;
    return begin_payload(w);
}

/* ---- Events ---- */

/* (RFC 6455, 7.4; those from 1012 on are in IANA's registry) */
static bool may_be_sent(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

static struct websocket_step take_close(struct websocket *w, size_t used)
{
    struct websocket_utf8 utf8 = { 0 };
    struct websocket_step step = { .event = WEBSOCKET_ON_CLOSE,
                                   .code = WEBSOCKET_NO_CODE,
                                   .used = used };
    unsigned code;

    w->over = true;
    if (w->control_len == 0)
        return step;
    code = w->control_len == 1 ? 0 : (unsigned)w->control[0] << 8 | w->control[1];
    if (!may_be_sent(code))
        return refuse(w, used, WEBSOCKET_MALFORMED);
    step.code = (uint16_t)code;
    step.bytes = (struct lonely_span){ w->control + 2, w->control_len - 2u };
    if (!websocket_check_utf8(&utf8, step.bytes) || utf8.missing > 0)
        return refuse(w, used, WEBSOCKET_BAD_UTF8);
    return step;
}

/* Payload of the present frame that is at hand, unmasked. */
static struct lonely_span take_payload(struct websocket *w, uint8_t *in, size_t len)
{
    size_t n = len < w->left ? len : (size_t)w->left;

    if (w->masked) {
        websocket_mask(in, n, w->key, w->key_at);
        w->key_at = (w->key_at + n) & 3;
    }
    w->left -= n;
    w->in_frame = w->left > 0;
    return (struct lonely_span){ in, n };
}

static struct websocket_step take_control(struct websocket *w, uint8_t *in, size_t len, size_t used)
{
    struct lonely_span bytes = take_payload(w, in + used, len - used);

    memcpy(w->control + w->control_len, bytes.ptr, bytes.len);
    w->control_len = (uint8_t)(w->control_len + bytes.len);
    used += bytes.len;
    if (w->in_frame)
        return (struct websocket_step){ .event = WEBSOCKET_ON_MORE, .used = used };
    if ((w->head[0] & OPCODE) == WEBSOCKET_CLOSE)
        return take_close(w, used);
    return (struct websocket_step){
        .event = (w->head[0] & OPCODE) == WEBSOCKET_PING ? WEBSOCKET_ON_PING : WEBSOCKET_ON_PONG,
        .used = used,
        .bytes = { w->control, w->control_len },
    };
}

static struct websocket_step take_piece(struct websocket *w, uint8_t *in, size_t len, size_t used)
{
    struct websocket_step step = { .event = WEBSOCKET_ON_PIECE, .text = w->text };

    step.bytes = take_payload(w, in + used, len - used);
    step.used = used + step.bytes.len;
    step.first = !w->begun;
    step.last = !w->in_frame && is_final(w);
    step.message_bytes = w->whole;
    w->in_message = !step.last;
    if (step.bytes.len == 0 && !step.last)
        step.event = WEBSOCKET_ON_MORE;
    else
        w->begun = true;
    if (w->text &&
        (!websocket_check_utf8(&w->utf8, step.bytes) || (step.last && w->utf8.missing > 0)))
        return refuse(w, step.used, WEBSOCKET_BAD_UTF8);
    return step;
}

struct websocket_step websocket_next(struct websocket *w, uint8_t *in, size_t len)
{
    struct websocket_step step = { .event = WEBSOCKET_ON_MORE };

    if (w->bad != 0)
        return refuse(w, 0, w->bad);
    if (w->over)
        return (struct websocket_step){ .event = WEBSOCKET_ON_MORE, .used = len };
    while (step.event == WEBSOCKET_ON_MORE && step.used < len) {
        int wrong = w->in_frame ? 0 : take_head(w, in, len, &step.used);

        if (wrong != 0)
            return refuse(w, step.used, (enum websocket_code)wrong);
        if (!w->in_frame)
            break;
        step =
            is_control(w) ? take_control(w, in, len, step.used) : take_piece(w, in, len, step.used);
    }
    return step;
}
