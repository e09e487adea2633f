/*
 * Transports (transport.h): groups, the life of a transport and its input. Its output is
 * transport_out.c's, the grammar of websocket frames websocket.c's.
 *
 * Input is looked at where it lies, in the stream's read buffer. What the user does not take, since
 * it stopped reading in the middle, is kept and looked at in a turn of its own when it starts again:
 * the stream is read no more until then.
 *
 * The end. transport_end says that no piece follows, and why; a websocket's close frame is queued then.
 * After transport_close the queue leaves. Then a websocket waits for the close frame of its peer, the
 * server closes first, and everybody else shuts its side and waits for the end of the stream:
 * closing with bytes unread would reset the connection and might take our last words with it.
 */
#include <assert.h>
#include <string.h>

#include "mem.h"
#include "transport_private.h"

/* ---- Turns ---- */

/* Keeps the loop from sleeping, too: what other handles queue after on_prepare waits for no event. */
static void on_idle(uv_idle_t *idle);

static void on_prepare(uv_prepare_t *prepare)
{
    struct transport_group *g = prepare->data;
    struct list turn;

    list_init(&turn);
    list_move_all(&turn, &g->dirty);
    while (!list_is_empty(&turn)) {
        struct transport *t = list_entry(turn.next, struct transport, dirty_node);

        list_remove(&t->dirty_node);
        transport_flush(t);
    }
    if (g->closing || !list_is_empty(&g->dirty))
        return;
    (void)uv_prepare_stop(&g->prepare);
    if (list_is_empty(&g->ready))
        (void)uv_idle_stop(&g->idle);
}

void transport_start_turn(struct transport_group *g)
{
    if (g->closing)
        return;
    (void)uv_idle_start(&g->idle, on_idle);
    (void)uv_prepare_start(&g->prepare, on_prepare);
}

void transport_wake(struct transport *t)
{
    if (!list_is_linked(&t->ready_node))
        list_push_back(&t->group->ready, &t->ready_node);
    transport_start_turn(t->group);
}

/* ---- The end ---- */

static void destroy(struct transport *t)
{
    struct transport_group *g = t->group;

    list_remove(&t->ready_node);
    mem_free(t->kept);
    g->transports--;
    t->events->on_closed(t->arg);
    mem_free(t);
}

void transport_drop_stream(struct transport *t)
{
    if (t->stream_closing)
        return;
    t->stream_closing = true;
    t->ended = true;
    deadline_clear(&t->due);
    list_remove(&t->dirty_node);
    stream_close(t->stream);
}

static void set_stream_reading(struct transport *t, bool on)
{
    if (t->stream_closing || t->stream_reading == on)
        return;
    t->stream_reading = on;
    if (on)
        stream_read_start(t->stream);
    else
        stream_read_stop(t->stream);
}

static bool awaits_close_frame(const struct transport *t)
{
    return t->close_queued && t->peer_code == 0 && !t->deaf;
}

void transport_settle(struct transport *t)
{
    if (!t->closing || t->stream_closing || t->queued > 0)
        return;
    if (t->peer_ended || t->mute) {
        transport_drop_stream(t);
        return;
    }
    if (awaits_close_frame(t))
        return;
    if (t->role == TRANSPORT_SERVER && t->close_queued && t->peer_code != 0 &&
        !stream_has_unread(t->stream)) {
        transport_drop_stream(t);
        return;
    }
    if (!t->shut)
        stream_shutdown(t->stream);
    t->shut = true;
    t->deaf = true;
}

void transport_end(struct transport *t, enum transport_code code)
{
    if (t->ended)
        return;
    t->ended = true;
    t->end_late = false;
    t->end_code = (uint16_t)code;
    deadline_clear(&t->due);
    set_stream_reading(t, false);
    if (code != TRANSPORT_LOST)
        transport_queue_close(t, t->end_code);
    t->events->on_end(t->arg, code);
}

void transport_abort(struct transport *t)
{
    t->closing = true;
    if (t->stream == NULL)
        transport_wake(t);
    else
        transport_drop_stream(t);
}

/* ---- Deadlines ---- */

/* While nothing is read no pong can come: but what we send has to leave, in the time that a ping and its pong
 * would have. */
static void watch_output(struct transport *t)
{
    const struct transport_conf *conf = &t->group->conf;
    bool pings = conf->ping_interval_ms > 0 && conf->ping_timeout_ms > 0;

    t->ping_seen = t->sent;
    t->ping_at = t->sent + t->queued;
    deadline_set(&t->group->deadlines, DEADLINE_STALL, &t->due,
                 pings ? conf->ping_interval_ms + conf->ping_timeout_ms : 0);
}

/* A byte has come, or reading starts or stops: the peer has its time anew. */
static void set_alarm(struct transport *t)
{
    struct transport_group *g = t->group;

    if (t->kind != TRANSPORT_WEBSOCKET || t->ended)
        return;
    if (!t->reading)
        watch_output(t);
    else if (t->pinged)
        deadline_set(&g->deadlines, DEADLINE_PONG, &t->due, g->conf.ping_timeout_ms);
    else
        deadline_set(&g->deadlines, DEADLINE_PING, &t->due, g->conf.ping_interval_ms);
}

static void ping(struct transport *t)
{
    struct transport_group *g = t->group;

    t->pinged = transport_queue_ping(t);
    if (g->conf.ping_timeout_ms > 0)
        deadline_set(&g->deadlines, DEADLINE_PONG, &t->due, g->conf.ping_timeout_ms);
    else if (!t->pinged)
        set_alarm(t);
}

/* Not the peer's fault while it still takes what was queued before the ping, or when the ping could
 * not be sent since the user has not completed a frame. */
static void on_no_pong(struct transport *t)
{
    bool moves = t->ping_seen < t->ping_at && t->sent > t->ping_seen;

    if (!t->pinged && (moves || t->queued == 0)) {
        ping(t);
    } else if (moves) {
        t->ping_seen = t->sent;
        set_alarm(t);
    } else {
        transport_end(t, TRANSPORT_FAILED);
    }
}

static void on_stall(struct transport *t)
{
    if (t->ping_seen < t->ping_at && t->sent == t->ping_seen)
        transport_end(t, TRANSPORT_FAILED);
    else
        watch_output(t);
}

static void on_due(void *arg, unsigned kind, struct deadline *d)
{
    struct transport *t = list_entry(d, struct transport, due);

    (void)arg;
    if (kind == DEADLINE_PING)
        ping(t);
    else if (kind == DEADLINE_PONG)
        on_no_pong(t);
    else if (kind == DEADLINE_STALL)
        on_stall(t);
    else
        transport_drop_stream(t);
}

/* ---- Input ---- */

static bool takes_input(const struct transport *t)
{
    if (t->stream_closing || t->end_late)
        return false;
    return t->closing || (t->reading && !t->ended);
}

static void give(struct transport *t, const struct transport_piece *piece)
{
    if (!t->closing)
        t->events->on_piece(t->arg, piece);
}

/* Not what may be sent: nothing that follows can be understood. */
static void refuse(struct transport *t, enum transport_code code)
{
    t->deaf = true;
    if (t->closing)
        transport_settle(t);
    else
        transport_end(t, code);
}

static void on_close_frame(struct transport *t, uint16_t code)
{
    t->peer_code = code;
    if (t->closing)
        transport_settle(t);
    else
        transport_end(t, code);
}

static size_t look_at_websocket(struct transport *t, uint8_t *in, size_t len)
{
    struct websocket_step step = websocket_next(&t->in.websocket, in, len);
    const struct transport_piece piece = { step.bytes, step.message_bytes, step.first, step.last };

    switch (step.event) {
    case WEBSOCKET_ON_MORE:
    case WEBSOCKET_ON_PONG:
        break;
    case WEBSOCKET_ON_PIECE:
        give(t, &piece);
        break;
    case WEBSOCKET_ON_PING:
        transport_answer_ping(t, step.bytes);
        break;
    case WEBSOCKET_ON_CLOSE:
        on_close_frame(t, step.code);
        break;
    case WEBSOCKET_ON_BAD:
        refuse(t, step.code);
        break;
    }
    return step.used;
}

static size_t look_at_tcp(struct transport *t, uint8_t *in, size_t len)
{
    struct lonely_framing *f = &t->in.tcp;
    struct lonely_framing_step step;
    uint64_t frame_bytes = f->frame_bytes;

    if (lonely_framing_feed(f, (struct lonely_span){ in, len }, &step) != LONELY_OK) {
        refuse(t, f->length < LONELY_FRAME_MIN_BYTES ? TRANSPORT_MALFORMED : TRANSPORT_TOO_BIG);
        return len;
    }
    if (frame_bytes == 0) /* the length came with this piece; a complete one is forgotten */
        frame_bytes = step.complete ? step.piece.len : f->frame_bytes;
    if (step.piece.len > 0)
        give(t, &(struct transport_piece){ step.piece, frame_bytes, step.first, step.complete });
    return step.consumed_bytes;
}

/* Returns how many bytes are done with. */
static size_t look_at(struct transport *t, uint8_t *in, size_t len)
{
    size_t at = 0;

    t->looking = true;
    while (at < len && takes_input(t)) {
        if (t->deaf || (t->closing && t->kind == TRANSPORT_TCP))
            at = len;
        else if (t->kind == TRANSPORT_WEBSOCKET)
            at += look_at_websocket(t, in + at, len - at);
        else
            at += look_at_tcp(t, in + at, len - at);
    }
    t->looking = false;
    return at;
}

/* false: no memory. */
static bool keep(struct transport *t, struct lonely_span bytes)
{
    t->kept = mem_try_alloc(bytes.len);
    if (t->kept == NULL)
        return false;
    memcpy(t->kept, bytes.ptr, bytes.len);
    t->kept_at = 0;
    t->kept_len = bytes.len;
    return true;
}

static void drop_kept(struct transport *t)
{
    mem_free(t->kept);
    t->kept = NULL;
}

/* Whether the stream is to be read, after anything that may have changed it. */
static void update_reading(struct transport *t)
{
    if (t->stream_closing || t->looking)
        return;
    if (t->kept != NULL && takes_input(t))
        transport_wake(t);
    set_stream_reading(t, t->kept == NULL && takes_input(t) && !t->peer_ended);
}

static void look_at_kept(struct transport *t)
{
    t->kept_at += look_at(t, t->kept + t->kept_at, t->kept_len - t->kept_at);
    if (t->kept_at == t->kept_len || t->ended)
        drop_kept(t);
}

static void on_read(void *arg, struct lonely_span bytes)
{
    struct transport *t = arg;
    size_t used;

    t->pinged = false;
    set_alarm(t);
    used = look_at(t, (uint8_t *)(uintptr_t)bytes.ptr, bytes.len);
    if (used < bytes.len && !t->ended &&
        !keep(t, (struct lonely_span){ bytes.ptr + used, bytes.len - used }))
        transport_end(t, TRANSPORT_OVERLOAD);
    update_reading(t);
}

static void on_end(void *arg)
{
    struct transport *t = arg;
    bool clean =
        t->kind == TRANSPORT_TCP && !t->ended && lonely_framing_finish(&t->in.tcp) == LONELY_OK;

    t->peer_ended = true;
    t->stream_reading = false;
    if (t->closing)
        transport_settle(t);
    else
        transport_end(t, clean ? TRANSPORT_NO_CODE : TRANSPORT_LOST);
}

static void on_sent(void *arg)
{
    transport_on_sent(arg);
}

static void on_lost(void *arg)
{
    struct transport *t = arg;

    t->mute = true;
    if (!t->ended)
        transport_end(t, TRANSPORT_LOST);
    transport_drop_stream(t);
}

static void on_closed(void *arg)
{
    struct transport *t = arg;

    t->stream = NULL;
    t->flying = 0;
    transport_forget_output(t);
    if (t->closing)
        destroy(t);
}

static const struct stream_events stream_events = {
    .on_read = on_read,
    .on_end = on_end,
    .on_sent = on_sent,
    .on_lost = on_lost,
    .on_closed = on_closed,
};

/* ---- Turns of one transport ---- */

static void take_turn(struct transport *t)
{
    if (t->stream == NULL) {
        if (t->closing)
            destroy(t);
        return;
    }
    if (t->end_late)
        transport_end(t, t->end_code);
    if (t->kept != NULL && takes_input(t))
        look_at_kept(t);
    update_reading(t);
}

static void on_idle(uv_idle_t *idle)
{
    struct transport_group *g = idle->data;
    struct list turn;

    list_init(&turn);
    list_move_all(&turn, &g->ready);
    while (!list_is_empty(&turn)) {
        struct transport *t = list_entry(turn.next, struct transport, ready_node);

        list_remove(&t->ready_node);
        take_turn(t);
    }
    if (!g->closing && list_is_empty(&g->ready) && list_is_empty(&g->dirty)) {
        (void)uv_idle_stop(&g->idle);
        (void)uv_prepare_stop(&g->prepare);
    }
}

/* ---- What the user does ---- */

struct transport *transport_open(struct transport_group *g, struct stream *stream,
                                 enum transport_kind kind, enum transport_role role,
                                 struct lonely_span rest, const struct transport_events *events,
                                 void *arg)
{
    struct transport *t = mem_calloc(1, sizeof(*t));
    uint64_t max = g->conf.max_frame_bytes;

    t->group = g;
    t->stream = stream;
    t->kind = (uint8_t)kind;
    t->role = (uint8_t)role;
    t->opcode = WEBSOCKET_BINARY;
    t->events = events;
    t->arg = arg;
    list_init(&t->ready_node);
    list_init(&t->dirty_node);
    list_init(&t->out);
    if (kind == TRANSPORT_WEBSOCKET) {
        websocket_init(&t->in.websocket, role == TRANSPORT_SERVER, false, max);
    } else {
        if (max < LONELY_FRAME_LIMIT_MIN_BYTES)
            max = LONELY_FRAME_LIMIT_MIN_BYTES;
        else if (max > LONELY_FRAME_LIMIT_MAX_BYTES)
            max = LONELY_FRAME_LIMIT_MAX_BYTES;
        (void)lonely_framing_init(&t->in.tcp, (size_t)max); /* within its bounds */
    }
    g->transports++;
    stream_attach(stream, &stream_events, t);
    if (rest.len > 0 && !keep(t, rest)) {
        t->end_late = true;
        t->end_code = TRANSPORT_OVERLOAD;
        transport_wake(t);
    }
    return t;
}

void transport_attach(struct transport *t, const struct transport_events *events, void *arg)
{
    t->events = events;
    t->arg = arg;
}

void transport_read_start(struct transport *t)
{
    if (t->reading)
        return;
    t->reading = true;
    set_alarm(t);
    update_reading(t);
}

/* The peer is not to blame for what nobody reads, only for what it does not read itself. */
void transport_read_stop(struct transport *t)
{
    if (!t->reading)
        return;
    t->reading = false;
    if (!t->closing)
        set_alarm(t);
    update_reading(t);
}

enum transport_kind transport_kind_of(const struct transport *t)
{
    return (enum transport_kind)t->kind;
}

bool transport_is_tls(const struct transport *t)
{
    return t->stream != NULL && t->stream->ops->is_tls;
}

void transport_close(struct transport *t, enum transport_code code)
{
    struct transport_group *g = t->group;
    uint64_t ms = g->conf.close_timeout_ms;

    if (t->closing)
        return;
    t->closing = true;
    if (t->stream == NULL) {
        transport_wake(t);
        return;
    }
    if (t->stream_closing)
        return;
    if (!t->ended)
        transport_queue_close(t, (uint16_t)code);
    t->ended = true;
    if (t->frame_left > 0)
        t->deaf = true; /* a frame is cut: no close frame will be answered */
    deadline_set(&g->deadlines, DEADLINE_CLOSE, &t->due, ms > 0 ? ms : 1);
    transport_make_dirty(t);
    update_reading(t);
}

/* ---- Groups ---- */

struct transport_group *transport_group_create(uv_loop_t *loop, const struct transport_conf *conf)
{
    struct transport_group *g = mem_calloc(1, sizeof(*g));

    g->loop = loop;
    g->conf = *conf;
    g->random_at = sizeof(g->random);
    list_init(&g->ready);
    list_init(&g->dirty);
    list_init(&g->spare);
    deadlines_init(&g->deadlines, loop, on_due, g);
    (void)uv_idle_init(loop, &g->idle);
    (void)uv_prepare_init(loop, &g->prepare);
    g->idle.data = g;
    g->prepare.data = g;
    g->handles = 3;
    return g;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct transport_group *g = handle->data;
    void (*on_group_closed)(void *arg) = g->on_closed;
    void *arg = g->closed_arg;

    if (--g->handles > 0)
        return;
    transport_group_free_parts(g);
    mem_free(g);
    if (on_group_closed != NULL)
        on_group_closed(arg);
}

void transport_group_close(struct transport_group *g, void (*on_closed_fn)(void *arg), void *arg)
{
    assert(g->transports == 0);
    g->closing = true;
    g->on_closed = on_closed_fn;
    g->closed_arg = arg;
    deadlines_close(&g->deadlines, on_handle_closed);
    uv_close((uv_handle_t *)&g->idle, on_handle_closed);
    uv_close((uv_handle_t *)&g->prepare, on_handle_closed);
}
