/*
 * What a peer sends over a websocket gives the same messages, control frames and verdict whole and in
 * pieces; and the same as wslay, another implementation, takes from it (where the build found it).
 * The first byte of the input is the size of the pieces; its top bit says that text is accepted.
 *
 * Complaints are not compared, which wslay words otherwise. It knows no close codes from 1012 on.
 */
#include <stdlib.h>
#include <string.h>
#ifdef HAVE_WSLAY
#include <wslay/wslay.h>
#endif

#include "websocket.h"

#define MAX_BYTES 1000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What came, one behind the other: opcode, length, bytes. */
struct record {
    uint8_t *bytes;
    size_t len, cap;
    size_t body_at;      /* of the message that has begun */
    unsigned messages;   /* complete, with control frames */
    unsigned code;       /* of the complaint; 0: none */
    unsigned close_code; /* 0: not closed */
};

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void record_bytes(struct record *r, const void *ptr, size_t len)
{
    if (r->len + len > r->cap) {
        r->cap = 2 * (r->len + len);
        r->bytes = realloc(r->bytes, r->cap);
        require(r->bytes != NULL);
    }
    if (len > 0)
        memcpy(r->bytes + r->len, ptr, len);
    r->len += len;
}

static void record_end(struct record *r, uint8_t opcode, size_t len)
{
    uint32_t n = (uint32_t)len;

    record_bytes(r, &n, sizeof n);
    record_bytes(r, &opcode, 1);
    r->messages++;
}

static void record_control(struct record *r, uint8_t opcode, const void *ptr, size_t len)
{
    record_bytes(r, ptr, len);
    record_end(r, opcode, len);
}

/* ---- Ours ---- */

struct ours {
    struct websocket w;
    struct record messages, controls;
    size_t message_len;
};

static void take(struct ours *o, const struct websocket_step *step)
{
    switch (step->event) {
    case WEBSOCKET_ON_MORE:
        break;
    case WEBSOCKET_ON_PIECE:
        require(step->bytes.len > 0 || step->last);
        require(step->first == (o->message_len == 0) || step->bytes.len == 0);
        record_bytes(&o->messages, step->bytes.ptr, step->bytes.len);
        o->message_len += step->bytes.len;
        require(o->message_len <= MAX_BYTES);
        if (!step->last)
            break;
        require(step->message_bytes == WEBSOCKET_LENGTH_UNKNOWN ||
                step->message_bytes == o->message_len);
        record_end(&o->messages, step->text ? WEBSOCKET_TEXT : WEBSOCKET_BINARY, o->message_len);
        o->message_len = 0;
        break;
    case WEBSOCKET_ON_PING:
        record_control(&o->controls, WEBSOCKET_PING, step->bytes.ptr, step->bytes.len);
        break;
    case WEBSOCKET_ON_PONG:
        record_control(&o->controls, WEBSOCKET_PONG, step->bytes.ptr, step->bytes.len);
        break;
    case WEBSOCKET_ON_CLOSE:
        record_control(&o->controls, WEBSOCKET_CLOSE, step->bytes.ptr, step->bytes.len);
        o->controls.close_code = step->code;
        break;
    case WEBSOCKET_ON_BAD:
        require(step->code >= 1002);
        o->messages.code = step->code;
        break;
    }
}

static struct ours run_ours(const uint8_t *in, size_t size, size_t piece, bool text)
{
    struct ours o = { 0 };

    websocket_init(&o.w, true, text, MAX_BYTES);
    for (size_t at = 0; at < size && o.messages.code == 0;) {
        size_t n = piece < size - at ? piece : size - at, used = 0;
        uint8_t *copy = malloc(n);

        require(copy != NULL);
        memcpy(copy, in + at, n);
        while (used < n && o.messages.code == 0) {
            struct websocket_step step = websocket_next(&o.w, copy + used, n - used);

            require(step.used <= n - used && (step.used > 0 || step.event == WEBSOCKET_ON_BAD));
            used += step.used;
            take(&o, &step);
        }
        free(copy);
        at += n;
    }
    return o;
}

static void free_ours(struct ours *o)
{
    free(o->messages.bytes);
    free(o->controls.bytes);
}

static bool same(const struct record *a, const struct record *b)
{
    return a->code == b->code && a->messages == b->messages && a->close_code == b->close_code;
}

/* Bytes of an incomplete message may be more or less, before a fault in its text. */
static void compare_cuts(const struct ours *whole, const struct ours *cut)
{
    require(same(&whole->messages, &cut->messages) && same(&whole->controls, &cut->controls));
    require(whole->controls.len == cut->controls.len &&
            (cut->controls.len == 0 ||
             memcmp(whole->controls.bytes, cut->controls.bytes, cut->controls.len) == 0));
    if (whole->messages.code != WEBSOCKET_BAD_UTF8)
        require(whole->messages.len == cut->messages.len &&
                (cut->messages.len == 0 ||
                 memcmp(whole->messages.bytes, cut->messages.bytes, cut->messages.len) == 0));
}

/* ---- wslay ---- */

#ifdef HAVE_WSLAY
struct theirs {
    struct lonely_span in;
    struct record messages, controls;
};

static ssize_t on_recv(wslay_event_context_ptr ctx, uint8_t *to, size_t len, int flags, void *arg)
{
    struct theirs *t = arg;

    (void)flags;
    if (t->in.len == 0) {
        wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    len = len < t->in.len ? len : t->in.len;
    memcpy(to, t->in.ptr, len);
    t->in.ptr += len;
    t->in.len -= len;
    return (ssize_t)len;
}

static void on_message(wslay_event_context_ptr ctx, const struct wslay_event_on_msg_recv_arg *m,
                       void *arg)
{
    struct theirs *t = arg;

    (void)ctx;
    if (m->opcode == WSLAY_CONNECTION_CLOSE) {
        size_t code_len = m->msg_length < 2 ? m->msg_length : 2;

        record_control(&t->controls, m->opcode, code_len > 0 ? m->msg + code_len : NULL,
                       m->msg_length - code_len);
        t->controls.close_code = m->status_code == 0 ? WEBSOCKET_NO_CODE : m->status_code;
    } else if (wslay_is_ctrl_frame(m->opcode)) {
        record_control(&t->controls, m->opcode, m->msg, m->msg_length);
    } else {
        record_control(&t->messages, m->opcode, m->msg, m->msg_length);
    }
}

/* All that wslay takes, we take; and where we do not complain nor refuse text, the other way too. */
static void compare_wslay(const struct ours *o, const uint8_t *in, size_t size, bool text)
{
    const struct wslay_event_callbacks callbacks = { .recv_callback = on_recv,
                                                     .on_msg_recv_callback = on_message };
    struct theirs t = { .in = { in, size } };
    wslay_event_context_ptr ctx;
    size_t common;
    bool is_good = o->messages.code == 0;

    require(wslay_event_context_server_init(&ctx, &callbacks, &t) == 0);
    wslay_event_config_set_max_recv_msg_length(ctx, MAX_BYTES);
    (void)wslay_event_recv(ctx);
    require(!is_good || t.messages.messages == o->messages.messages);
    require(!is_good || t.controls.messages == o->controls.messages);
    require(!is_good || t.controls.close_code == o->controls.close_code);
    if (o->messages.code != WEBSOCKET_NOT_TEXT && o->messages.code != WEBSOCKET_TOO_LONG)
        require(t.messages.messages == o->messages.messages);
    common = t.messages.len < o->messages.len ? t.messages.len : o->messages.len;
    if (is_good || text)
        require(common == 0 || memcmp(t.messages.bytes, o->messages.bytes, common) == 0);
    common = t.controls.len < o->controls.len ? t.controls.len : o->controls.len;
    require(common == 0 || memcmp(t.controls.bytes, o->controls.bytes, common) == 0);
    wslay_event_context_free(ctx);
    free(t.messages.bytes);
    free(t.controls.bytes);
}
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool text = size > 0 && (data[0] & 0x80) != 0;
    size_t piece = size > 0 ? 1 + (data[0] & 0x7f) : 1;
    struct ours whole, cut;

    if (size < 2)
        return 0;
    whole = run_ours(data + 1, size - 1, size, text);
    cut = run_ours(data + 1, size - 1, piece, text);
    compare_cuts(&whole, &cut);
#ifdef HAVE_WSLAY
    if (whole.controls.close_code < 1012 || whole.controls.close_code > 1014)
        compare_wslay(&whole, data + 1, size - 1, text);
#endif
    free_ours(&whole);
    free_ours(&cut);
    return 0;
}
