/*
 * Frames out of the pieces that a transport brings. Nearly always a frame is one piece, and is parsed where
 * it lies. Of others the head is collected, as far as it may be long; the body of a NOTIFY or a part goes
 * on piece by piece. Called by session.c. (doc/protocol/stateful.md, 2 and 10)
 */
#include "session_private.h"

#include <string.h>

/* A frame of which not all has come. */
struct assembly {
    struct buf head;
    size_t try_at;  /* parse again with so many bytes */
    bool streaming; /* the head is done; what comes is body */
};

/* ---- Whole frames ---- */

static void on_frame(struct session *s, struct lonely_span frame)
{
    /* Of longer ones the body is hashed by its writer. */
    unsigned flags = frame.len <= SESSION_INLINE_BYTES ? 0 : LONELY_PARSE_NO_HASH;
    struct lonely_message m;
    enum lonely_error err = lonely_message_parse_with(LONELY_S2B, frame, flags, &m).err;

    s->hashed = flags == 0;
    if (err == LONELY_OK)
        s->state(s, &m, true);
    else
        session_end(s, METRICS_SESSION_MALFORMED, lonely_error_str(err));
}

/* ---- Frames in pieces ---- */

/* Bytes held by heads count with those of requests: limits.max_body_memory bounds them. */
static void account(struct session *s, size_t before, size_t after)
{
    s->worker->collected_bytes += after - before;
}

void session_drop_assembly(struct session *s)
{
    struct assembly *a = s->assembly;

    if (a == NULL)
        return;
    s->assembly = NULL;
    account(s, a->head.cap, 0);
    buf_fini(&a->head);
    mem_free(a);
}

static void begin_assembly(struct session *s)
{
    s->assembly = mem_calloc(1, sizeof(*s->assembly));
    buf_init(&s->assembly->head, LONELY_MESSAGE_HEAD_MAX_BYTES);
}

/* Only their bodies can be taken piece by piece. */
static bool has_long_body(struct lonely_span bytes)
{
    return bytes.len >= 4 && bytes.ptr[2] == 0 &&
           (bytes.ptr[3] == LONELY_S2B_NOTIFY || bytes.ptr[3] == LONELY_S2B_NOTIFY_STREAM);
}

/* Begins the message if its head is in `bytes`, and takes what there is of its body. */
static void try_head(struct session *s, struct lonely_span bytes)
{
    struct assembly *a = s->assembly;
    struct lonely_message m;
    enum lonely_error err;

    a->try_at = bytes.len < 4 ? 4 : 2 * bytes.len;
    if (!has_long_body(bytes))
        return;
    err = lonely_message_parse_with(LONELY_S2B, bytes, LONELY_PARSE_HEAD, &m).err;
    if (err == LONELY_E_TRUNCATED)
        return;
    if (err != LONELY_OK) {
        session_end(s, METRICS_SESSION_MALFORMED, lonely_error_str(err));
        return;
    }
    a->streaming = true;
    s->state(s, &m, false);
    if (!s->ended)
        session_take_body(s, m.body);
}

/* Adds bytes to the head, as many as it may have. */
static void collect(struct session *s, struct lonely_span *bytes)
{
    struct assembly *a = s->assembly;
    size_t n = buf_room(&a->head) < bytes->len ? buf_room(&a->head) : bytes->len;
    size_t before = a->head.cap;
    bool appended;

    if (n == 0) {
        session_end(s, METRICS_SESSION_TOO_LARGE, "a head above any that is possible");
        return;
    }
    appended = buf_append(&a->head, bytes->ptr, n);
    account(s, before, a->head.cap);
    bytes->ptr += n;
    bytes->len -= n;
    if (!appended || s->worker->collected_bytes > s->worker->max_collected_bytes)
        session_end(s, METRICS_SESSION_BUSY, "no memory for the head of a frame");
    else if (a->head.len >= a->try_at || buf_room(&a->head) == 0)
        try_head(s, (struct lonely_span){ a->head.ptr, a->head.len });
}

static void drop_head(struct session *s)
{
    account(s, s->assembly->head.cap, 0);
    buf_fini(&s->assembly->head);
}

static void take(struct session *s, struct lonely_span bytes)
{
    struct assembly *a = s->assembly;

    if (a->streaming) {
        session_take_body(s, bytes);
        return;
    }
    if (a->head.len == 0)
        try_head(s, bytes); /* nothing need be copied */
    if (a->streaming)
        return;
    while (!s->ended && !a->streaming && bytes.len > 0)
        collect(s, &bytes);
    if (s->ended || !a->streaming)
        return;
    drop_head(s);
    session_take_body(s, bytes);
}

static void end_frame(struct session *s)
{
    struct assembly *a = s->assembly;

    if (a->streaming)
        session_end_body(s);
    else
        on_frame(s, (struct lonely_span){ a->head.ptr, a->head.len });
    session_drop_assembly(s);
}

void session_on_piece(struct session *s, const struct transport_piece *piece)
{
    struct metrics *metrics = s->worker->metrics;

    metrics_add(&metrics->session_bytes[s->peer.kind][METRICS_IN], piece->bytes.len);
    if (piece->last)
        metrics_add(&metrics->session_frames[s->peer.kind][METRICS_IN], 1);
    if (piece->first && piece->last) {
        on_frame(s, piece->bytes);
        return;
    }
    if (piece->first)
        begin_assembly(s);
    take(s, piece->bytes);
    if (!s->ended && piece->last)
        end_frame(s);
}
