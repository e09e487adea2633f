/*
 * The life of a session: opened by routes.c or a TCP listener, through its states, to its end. Frames come
 * from session_frame.c; what they mean is in the states' tables and the other session_*.c.
 * (doc/protocol/session.md, 3)
 *
 * The end comes in two steps, since it may come inside anybody's call: session_end tells the peer and stops
 * everything; in the next turn of the loop the session leaves the receivers and drops what it holds. It is
 * freed when its transport is gone and no call is under way.
 */
#include "routes.h"
#include "session_private.h"

#include <stdio.h>

/* ---- States ---- */

static session_state_fn st_waiting_configure, st_open, st_closing; /* the whole machine, in order */

static void enter(struct session *s, session_state_fn *state)
{
    s->state = state;
}

static void on_configured(struct session *s)
{
    deadline_clear(&s->deadline);
    enter(s, st_open);
    receivers_join(s->worker->receivers, &s->receiver);
    s->joined = true;
    session_confirm_configure(s);
    if (s->zstd != NULL)
        session_announce(s);
    session_pump(s);
}

static void st_waiting_configure(struct session *s, const struct lonely_message *m, bool whole)
{
    const struct lonely_msg_configure *c = &m->as.configure;
    struct lonely_auth_input in;

    (void)whole; /* CONFIGURE always is */
    if (m->type != LONELY_S2B_CONFIGURE) {
        session_end(s, METRICS_SESSION_VIOLATION, "the first frame is not CONFIGURE");
        return;
    }
    worker_random(s->worker, s->broadcaster_nonce, sizeof(s->broadcaster_nonce));
    if (lonely_connection_init(&s->connection, c->subscriber_nonce,
                               (struct lonely_span){ s->broadcaster_nonce,
                                                     sizeof(s->broadcaster_nonce) }) != LONELY_OK) {
        session_end(s, METRICS_SESSION_FAILED, "no connection nonce");
        return;
    }
    in = (struct lonely_auth_input){
        .op = LONELY_AUTH_STATEFUL_CONFIGURE,
        .tracing = c->tracing,
        .nonce = c->subscriber_nonce,
        .initial_dict = (uint16_t)c->initial_dict,
        .enable_zstd = c->enable_zstd,
        .enable_training = c->enable_training,
    };
    session_negotiate(s, c);
    if (session_check(s, &in, c->authorization, on_configured) == SESSION_PASSED)
        on_configured(s);
}

static void on_configure_again(struct session *s, const struct lonely_message *m, bool whole)
{
    (void)m;
    (void)whole;
    session_end(s, METRICS_SESSION_VIOLATION, "CONFIGURE again");
}

static void st_open(struct session *s, const struct lonely_message *m, bool whole)
{
    static session_state_fn *const handlers[] = {
        [LONELY_S2B_CONFIGURE] = on_configure_again,
        [LONELY_S2B_SUBSCRIBE_EXACT] = session_on_subscription,
        [LONELY_S2B_SUBSCRIBE_GLOB] = session_on_subscription,
        [LONELY_S2B_UNSUBSCRIBE_EXACT] = session_on_subscription,
        [LONELY_S2B_UNSUBSCRIBE_GLOB] = session_on_subscription,
        [LONELY_S2B_NOTIFY] = session_on_notify,
        [LONELY_S2B_NOTIFY_STREAM] = session_on_notify_stream,
        [LONELY_S2B_CONTINUE_RECEIVE] = session_on_acknowledgement,
        [LONELY_S2B_CONFIRM_RECEIVE] = session_on_acknowledgement,
    };

    handlers[m->type](s, m, whole);
}

/* What the peer sent before it saw the end. */
static void st_closing(struct session *s, const struct lonely_message *m, bool whole)
{
    (void)s;
    (void)m;
    (void)whole;
}

/* ---- Authorization ---- */

static enum session_verdict judge(struct session *s, enum lonely_auth_result result)
{
    switch (result) {
    case LONELY_AUTH_OK:
        return SESSION_PASSED;
    case LONELY_AUTH_UNAUTHORIZED:
    case LONELY_AUTH_FORBIDDEN:
        session_end(s, METRICS_SESSION_UNAUTHORIZED, lonely_auth_result_str(result));
        break;
    case LONELY_AUTH_UNAVAILABLE:
        session_end(s, METRICS_SESSION_UNAVAILABLE, "the authorization cannot be checked now");
        break;
    }
    return SESSION_REFUSED;
}

static void on_checked(void *arg, enum lonely_auth_result result)
{
    struct session *s = arg;

    s->wait = NULL;
    s->checking = false;
    if (s->ended || judge(s, result) != SESSION_PASSED)
        return;
    s->checked(s);
    session_pump(s);
}

enum session_verdict session_check(struct session *s, const struct lonely_auth_input *in,
                                   struct lonely_span authorization,
                                   void (*checked)(struct session *s))
{
    enum lonely_auth_result result = gate_check_frame(
        s->worker->gate, in, lonely_auth_field(&authorization), &s->wait, on_checked, s);

    if (s->wait == NULL)
        return judge(s, result);
    s->checking = true;
    s->checked = checked;
    session_update_reading(s);
    return SESSION_LATER;
}

bool session_take_number(struct session *s, enum lonely_counter counter, int64_t *number)
{
    if (lonely_connection_take(&s->connection, counter, number) == LONELY_OK)
        return true;
    session_end(s, METRICS_SESSION_FAILED, "the counter is used up");
    return false;
}

struct lonely_span session_url(struct session *s, int64_t number)
{
    char *url = s->all->url;
    size_t len = lonely_connection_url(&s->connection, number, url);

    return (struct lonely_span){ (const uint8_t *)url, len };
}

bool session_sign(struct session *s, const struct lonely_auth_input *in,
                  struct lonely_span *authorization)
{
    if (gate_sign(s->worker->gate, in, s->all->authorization, authorization))
        return true;
    session_end(s, METRICS_SESSION_FAILED, "an answer cannot be signed");
    return false;
}

/* ---- Reading ---- */

static bool wants_to_read(const struct session *s)
{
    return !s->ended && !s->all->draining && !s->checking && !s->body_writing && !s->finishing &&
           !session_is_changing(s) &&
           (s->reply_count < s->all->max_unprocessed || session_is_stuck(s));
}

void session_update_reading(struct session *s)
{
    bool reads = wants_to_read(s);

    if (reads == s->reads || s->ended)
        return;
    s->reads = reads;
    if (reads)
        transport_read_start(s->transport);
    else
        transport_read_stop(s->transport);
}

/* ---- The end ---- */

#define X(name, text, code) code,
static const enum transport_code end_codes[] = { METRICS_SESSION_ENDS(X) };
#undef X

static void tell_end(struct session *s, enum metrics_session_end reason, const char *why)
{
    struct log *log = s->worker->b->log;
    bool usual = reason == METRICS_SESSION_CLOSED || reason == METRICS_SESSION_LOST ||
                 reason == METRICS_SESSION_SHUTDOWN;

    metrics_add(&s->worker->metrics->session_ends[reason], 1);
    if (reason == METRICS_SESSION_OVERLOAD)
        log_warn_limited(log, "session_overflow", LOG_STR("peer", s->name), LOG_STR("reason", why),
                         LOG_END);
    else if (atomic_load_explicit(&s->worker->b->log_access, memory_order_relaxed))
        log_info(log, "session_ended", LOG_STR("peer", s->name),
                 LOG_STR("reason", metrics_session_end_str(reason)), LOG_STR("detail", why),
                 LOG_END);
    else if (!usual)
        log_info_limited(log, "session_ended", LOG_STR("peer", s->name),
                         LOG_STR("reason", metrics_session_end_str(reason)), LOG_STR("detail", why),
                         LOG_END);
}

void session_end(struct session *s, enum metrics_session_end reason, const char *why)
{
    if (s->ended)
        return;
    s->ended = true;
    enter(s, st_closing);
    tell_end(s, reason, why);
    deadline_clear(&s->deadline);
    if (reason == METRICS_SESSION_LOST)
        transport_abort(s->transport);
    else
        transport_close(s->transport, end_codes[reason]);
    list_remove(&s->node);
    list_push_back(&s->all->ended, &s->node);
    sessions_later(s->all);
}

static void remove_row(void *arg, enum store_kind kind, struct lonely_span key)
{
    struct session *s = arg;

    forwarding_remove(s->worker->b->forwarding, s->worker, kind, key, NULL, NULL);
}

static void on_all_closed(struct sessions *all)
{
    if (--all->handles == 0)
        all->on_closed(all->closed_arg);
}

static void on_group_closed(void *arg)
{
    on_all_closed(arg);
}

static void on_handle_closed(uv_handle_t *handle)
{
    on_all_closed(handle->data);
}

/* The last session is gone. */
static void on_empty(struct sessions *all)
{
    if (all->closing && all->handles == 0) {
        all->handles = all->listener == NULL ? 4 : 5;
        if (all->listener != NULL)
            stream_listener_close(all->listener, on_group_closed, all);
        for (int kind = 0; kind < 2; kind++)
            transport_group_close(all->groups[kind], on_group_closed, all);
        deadlines_close(&all->deadlines, on_handle_closed);
        uv_close((uv_handle_t *)&all->later, on_handle_closed);
    } else if (!all->closing && all->draining) {
        sessions_later(all);
    }
}

static void free_if_gone(struct session *s)
{
    struct sessions *all = s->all;

    if (!s->detached || !s->transported || s->holds > 0)
        return;
    list_remove(&s->node);
    ring_fini(&s->expected);
    ring_fini(&s->pending);
    mem_free(s);
    if (--all->count == 0)
        on_empty(all);
}

/* Second step of the end. What is under way comes back to a session that is only held. */
static void detach(struct session *s)
{
    struct receivers *receivers = s->worker->receivers;
    struct sessions *all = s->all;

    s->detached = true;
    list_remove(&s->node);
    list_push_back(&all->leaving, &s->node);
    if (s->joined) {
        receivers_each(receivers, &s->receiver, remove_row, s);
        receivers_leave(receivers, &s->receiver);
    }
    if (s->wait != NULL)
        gate_forget(s->wait);
    session_drop_assembly(s);
    session_drop_intakes(s);
    session_drop_replies(s);
    session_drop_sends(s);
    if (s->zstd != NULL)
        session_drop_compression(s);
    metrics_set(&s->worker->metrics->sessions[s->peer.kind], --all->opened[s->peer.kind]);
    free_if_gone(s);
}

void session_hold(struct session *s)
{
    s->holds++;
}

void session_release(struct session *s)
{
    s->holds--;
    free_if_gone(s);
}

static void on_later(uv_timer_t *timer)
{
    struct sessions *all = timer->data;
    struct list *node;

    all->later_set = false;
    sessions_drop_parcel(all);
    while ((node = list_first(&all->ended)) != NULL)
        detach(list_entry(node, struct session, node));
    if (all->count == 0 && all->draining && !all->closing && all->on_drained != NULL) {
        void (*on_drained)(void *) = all->on_drained;

        all->on_drained = NULL;
        on_drained(all->drained_arg);
    }
}

void sessions_later(struct sessions *all)
{
    if (all->later_set || uv_is_closing((uv_handle_t *)&all->later))
        return;
    all->later_set = true;
    uv_timer_start(&all->later, on_later, 0, 0);
}

/* ---- What the transport tells ---- */

static void on_piece(void *arg, const struct transport_piece *piece)
{
    session_on_piece(arg, piece);
}

static void on_drained(void *arg)
{
    session_pump(arg);
}

static void on_end(void *arg, enum transport_code code)
{
    switch (code) {
    case TRANSPORT_LOST:
        session_end(arg, METRICS_SESSION_LOST, "the connection broke");
        break;
    case TRANSPORT_MALFORMED:
    case TRANSPORT_BAD_PAYLOAD:
        session_end(arg, METRICS_SESSION_MALFORMED, "malformed on the wire");
        break;
    case TRANSPORT_TEXT:
        session_end(arg, METRICS_SESSION_TEXT, "a text message");
        break;
    case TRANSPORT_TOO_BIG:
        session_end(arg, METRICS_SESSION_TOO_LARGE, "a frame above max_frame");
        break;
    case TRANSPORT_FAILED:
        session_end(arg, METRICS_SESSION_SILENT, "no answer to a ping, or nothing is read");
        break;
    case TRANSPORT_OVERLOAD:
        session_end(arg, METRICS_SESSION_BUSY, "no memory for what is to be sent");
        break;
    case TRANSPORT_NORMAL:
    case TRANSPORT_GOING_AWAY:
    case TRANSPORT_NO_CODE:
    case TRANSPORT_POLICY:
    case TRANSPORT_RESTART:
    default:
        session_end(arg, METRICS_SESSION_CLOSED, "closed by the peer");
        break;
    }
}

static void on_transport_closed(void *arg)
{
    struct session *s = arg;

    s->transported = true;
    free_if_gone(s);
}

static const struct transport_events transport_events = {
    .on_piece = on_piece,
    .on_drained = on_drained,
    .on_end = on_end,
    .on_closed = on_transport_closed,
};

static bool on_message(struct receiver *r, struct outgoing *m)
{
    return session_on_message(session_of(r), m);
}

static bool on_missed(struct receiver *r, struct lonely_span topic)
{
    return session_on_missed(session_of(r), topic);
}

static const struct receiver_ops receiver_ops = { on_message, on_missed };

/* ---- The beginning ---- */

static uint64_t longest_part(const struct conf *conf, enum transport_kind kind)
{
    uint64_t limit = conf->websocket.outgoing_max_ws_message_size;

    if (kind != TRANSPORT_TCP)
        return limit;
    limit = conf->tcp.outgoing_max_message_size;
    return limit < UINT32_MAX ? limit : UINT32_MAX; /* what its length can say */
}

void sessions_open(struct sessions *all, struct stream *stream, struct lonely_span rest,
                   const struct session_peer *peer)
{
    const struct conf *conf = all->worker->b->conf;
    struct session *s = mem_calloc(1, sizeof(*s));

    s->all = all;
    s->worker = all->worker;
    s->peer = *peer;
    s->peer.name = NULL; /* dies on return */
    snprintf(s->name, sizeof(s->name), "%s", peer->name);
    s->receiver.ops = &receiver_ops;
    s->max_part = longest_part(conf, peer->kind);
    list_init(&s->replies);
    list_push_back(&all->open, &s->node);
    all->count++;
    metrics_add(&s->worker->metrics->sessions_opened[peer->kind], 1);
    metrics_set(&s->worker->metrics->sessions[peer->kind], ++all->opened[peer->kind]);
    if (atomic_load_explicit(&s->worker->b->log_access, memory_order_relaxed))
        log_info(s->worker->b->log, "session_opened", LOG_STR("peer", s->name),
                 LOG_STR("transport", peer->kind == TRANSPORT_TCP ? "tcp" : "websocket"), LOG_END);
    enter(s, st_waiting_configure);
    if (conf->websocket.configure_timeout_ms != CONF_NONE)
        deadline_set(&all->deadlines, DEADLINE_CONFIGURE, &s->deadline,
                     conf->websocket.configure_timeout_ms);
    s->transport = transport_open(all->groups[peer->kind], stream, peer->kind, TRANSPORT_SERVER,
                                  rest, &transport_events, s);
    if (all->draining)
        session_end(s, METRICS_SESSION_SHUTDOWN, "the broadcaster stops");
    session_update_reading(s);
}

static void on_due(void *arg, unsigned kind, struct deadline *d)
{
    (void)arg;
    if (kind == DEADLINE_RETIRED)
        session_forget_custom(list_entry(d, struct custom, forget));
    else
        session_end(list_entry(d, struct session, deadline), METRICS_SESSION_TOO_SLOW,
                    "no CONFIGURE");
}

static uint64_t none_to_zero(uint64_t value)
{
    return value == CONF_NONE ? 0 : value;
}

struct sessions *sessions_create(struct worker *w)
{
    const struct conf *conf = w->b->conf;
    struct sessions *all = mem_calloc(1, sizeof(*all));
    struct transport_conf transport = {
        .max_frame_bytes = conf->websocket.max_frame,
        .ping_interval_ms = none_to_zero(conf->websocket.ping_interval_ms),
        .ping_timeout_ms = none_to_zero(conf->websocket.ping_timeout_ms),
        .close_timeout_ms = SESSION_CLOSE_TIMEOUT_MS,
        .low_water_bytes = SESSION_LOW_BYTES,
    };

    all->worker = w;
    all->groups[TRANSPORT_WEBSOCKET] = transport_group_create(&w->loop, &transport);
    transport.max_frame_bytes = conf->tcp.max_frame;
    all->groups[TRANSPORT_TCP] = transport_group_create(&w->loop, &transport);
    deadlines_init(&all->deadlines, &w->loop, on_due, all);
    uv_timer_init(&w->loop, &all->later);
    all->later.data = all;
    list_init(&all->open);
    list_init(&all->ended);
    list_init(&all->leaving);
    list_init(&all->free_replies);
    list_init(&all->free_chunks);
    list_init(&all->packed);
    list_init(&all->trainers);
    list_init(&all->trainings);
    all->recoder =
        recoder_create(&w->loop, w->lane, conf->compression.decompression_max_window_size);
    all->scratch = mem_alloc(LONELY_MESSAGE_HEAD_MAX_BYTES);
    all->max_unacknowledged = conf->websocket.websocket_send_max_unacknowledged;
    all->max_pending = conf->websocket.websocket_max_pending_sends;
    all->max_unprocessed = conf->websocket.websocket_max_unprocessed_receives;
    all->minimal = conf->websocket.websocket_minimal_headers;
    return all;
}

static void on_accept(void *arg, struct stream *stream, const union peer_address *address)
{
    char name[PEER_TEXT_MAX];

    peer_print(&address->sa, name);
    sessions_open(arg, stream, (struct lonely_span){ 0 },
                  &(struct session_peer){ .kind = TRANSPORT_TCP, .name = name });
}

static void on_reject(void *arg, const struct sockaddr *peer)
{
    struct sessions *all = arg;

    routes_on_reject(all->worker, 0, peer);
}

int sessions_listen(struct sessions *all, int fd, struct tls_server *tls)
{
    const struct broadcaster *b = all->worker->b;
    const struct stream_listener_conf conf = {
        .handshake_timeout_ms = b->conf->http.header_timeout_ms,
        .user_timeout_ms = b->conf->tcp.user_timeout_ms,
        .max_connections = worker_max_connections(b),
        .log = b->log,
        .peers = b->peers,
        .on_reject = on_reject,
    };

    if (all->listener == NULL)
        all->listener = stream_listener_create(&all->worker->loop, &conf, on_accept, all);
    return stream_listener_listen(all->listener, fd, tls);
}

uint32_t sessions_tcp_connections(const struct sessions *all)
{
    return all->listener == NULL ? 0 : stream_listener_connections(all->listener);
}

size_t sessions_count(const struct sessions *all)
{
    return all->count;
}

void sessions_drain(struct sessions *all, void (*on_all_drained)(void *arg), void *arg)
{
    all->draining = true;
    if (all->listener != NULL)
        stream_listener_stop(all->listener);
    all->on_drained = on_all_drained;
    all->drained_arg = arg;
    list_foreach (&all->open, node, next)
        session_pump(list_entry(node, struct session, node));
    sessions_later(all);
}

static void abort_all(struct list *sessions)
{
    list_foreach (sessions, node, next) {
        struct session *s = list_entry(node, struct session, node);

        if (!s->transported)
            transport_abort(s->transport);
    }
}

void sessions_close(struct sessions *all, void (*on_closed)(void *arg), void *arg)
{
    all->draining = all->closing = true;
    if (all->listener != NULL)
        stream_listener_stop(all->listener);
    all->on_closed = on_closed;
    all->closed_arg = arg;
    list_foreach (&all->open, node, next)
        session_end(list_entry(node, struct session, node), METRICS_SESSION_SHUTDOWN,
                    "the broadcaster stops");
    abort_all(&all->ended);
    abort_all(&all->leaving);
    if (all->count == 0)
        on_empty(all);
}

void sessions_destroy(struct sessions *all)
{
    if (all == NULL)
        return;
    sessions_drop_parcel(all);
    sessions_free_replies(all);
    sessions_free_chunks(all);
    recoder_destroy(all->recoder);
    mem_free(all->unpacked);
    mem_free(all->repacked);
    mem_free(all->scratch);
    mem_free(all);
}
