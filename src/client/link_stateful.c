/*
 * The link over websocket and TCP: one connection to one broadcaster, made again when it ends. The order of
 * broadcasters and the pauses between passes are order.h's. (doc/protocol/session.md, 6)
 */
#include <stdio.h>
#include <string.h>

#include "mem.h"
#include "stateful.h"
#include "tls.h"

#define JITTER_MS 250 /* after a good connection: not all at once to the next broadcaster */

static void try_next(struct stateful_link *l);
static void part_closed(struct stateful_link *l);

static uint64_t none_to_zero(uint64_t value)
{
    return value == CONF_NONE ? 0 : value;
}

static bool is_websocket(const struct stateful_link *l)
{
    return l->broadcaster->scheme == CLIENT_WS || l->broadcaster->scheme == CLIENT_WSS;
}

static bool is_tls(const struct stateful_link *l)
{
    return l->broadcaster->scheme == CLIENT_WSS || l->broadcaster->scheme == CLIENT_TCPS;
}

/* ---- Trying again ---- */

static void random_bytes(void *arg, uint8_t *to, size_t len)
{
    client_random(arg, to, len);
}

static double random_part(struct stateful_link *l)
{
    uint32_t number;

    client_random(stateful_client(l), (uint8_t *)&number, sizeof(number));
    return (double)number / 4294967296.0;
}

static void on_timer(uv_timer_t *timer);

static void wait_for(struct stateful_link *l, uint64_t ms)
{
    l->state = STATEFUL_WAITING;
    uv_timer_start(&l->timer, on_timer, ms, 0);
}

static void give_up(struct stateful_link *l)
{
    struct lonely_client_why why;

    l->state = STATEFUL_DEAD;
    stateful_notify_abandon(l);
    lonely_client_last_error(stateful_client(l), &why);
    client_link_dead(stateful_client(l), l->worst, why.text);
}

/* Everybody was tried in this pass. */
static void end_pass(struct stateful_link *l)
{
    const struct client_conf *conf = &stateful_client(l)->conf;

    if (l->pass >
        (l->stood ? conf->outgoing_reconnect_retries : conf->outgoing_initial_connect_retries)) {
        give_up(l);
        return;
    }
    wait_for(l, order_delay_ms(l->pass, random_part(l)));
}

static void begin_pass(struct stateful_link *l)
{
    l->pass++;
    order_shuffle(&l->order, random_bytes, stateful_client(l));
}

/* The attempt, or the connection, is over. `err` says what it ended with. */
static void attempt_failed(struct stateful_link *l, enum lonely_client_error err, const char *why)
{
    char text[512];

    snprintf(text, sizeof(text), "%s: %s", l->broadcaster->url, why);
    client_tell(stateful_client(l), err, text);
    if (l->worst != LONELY_CLIENT_FORBIDDEN) /* the one that tells most */
        l->worst = err;
    if (l->closing)
        return;
    try_next(l);
}

/* ---- The connection ---- */

static void on_piece(void *arg, const struct transport_piece *piece)
{
    struct stateful_link *l = arg;

    if (l->state == STATEFUL_CONFIGURING || l->state == STATEFUL_OPEN)
        stateful_on_piece(l, piece);
}

static void set_reading(struct stateful_link *l)
{
    if (l->state != STATEFUL_OPEN || l->reading ||
        transport_queued(l->transport) > STATEFUL_HIGH_WATER)
        return;
    l->reading = true;
    transport_read_start(l->transport);
}

static void on_drained(void *arg)
{
    struct stateful_link *l = arg;

    if (l->state != STATEFUL_OPEN)
        return;
    set_reading(l);
    stateful_pump(l);
}

/* `err`: what it ended with, unless it stood. */
static void connection_lost(struct stateful_link *l, enum transport_code code,
                            enum lonely_client_error err, const char *why)
{
    bool was_open = l->state == STATEFUL_OPEN;
    uint64_t now_ms = clock_mono_ms(stateful_client(l)->clock);
    uint64_t stood_ms = was_open ? now_ms - l->opened_ms : 0;

    uv_timer_stop(&l->timer);
    l->stable = was_open && stood_ms >= stateful_client(l)->conf.outgoing_min_reconnect_interval_ms;
    l->lost_as = was_open ? LONELY_CLIENT_UNREACHABLE : err;
    l->state = STATEFUL_ENDING;
    snprintf(l->lost_why, sizeof(l->lost_why), "%s", why);
    if (was_open)
        client_link_down(stateful_client(l), l->lost_as, why);
    transport_close(l->transport, code);
}

void stateful_fail(struct stateful_link *l, enum transport_code code, const char *why)
{
    if (l->state == STATEFUL_CONFIGURING || l->state == STATEFUL_OPEN)
        connection_lost(l, code,
                        code == TRANSPORT_POLICY ? LONELY_CLIENT_FORBIDDEN : LONELY_CLIENT_REFUSED,
                        why);
}

/* Is that how an authorization is refused? Some broadcasters say no more than good bye. */
static bool is_refusal(enum transport_code code)
{
    return code == TRANSPORT_NORMAL || code == TRANSPORT_NO_CODE || code == TRANSPORT_POLICY;
}

/* Of the broadcaster, or the network: nothing that was sent is to blame. */
static bool is_own_trouble(enum transport_code code)
{
    return code == TRANSPORT_LOST || code == TRANSPORT_GOING_AWAY || code == TRANSPORT_RESTART ||
           code == TRANSPORT_OVERLOAD;
}

static void on_end(void *arg, enum transport_code code)
{
    struct stateful_link *l = arg;
    bool refused = l->state == STATEFUL_CONFIGURING && is_refusal(code);
    char why[128];

    if (l->state != STATEFUL_CONFIGURING && l->state != STATEFUL_OPEN) {
        transport_close(l->transport, TRANSPORT_NORMAL);
        return;
    }
    if (refused)
        snprintf(why, sizeof(why),
                 "closed in answer to CONFIGURE (code %d): is the secret right, and the clock?",
                 (int)code);
    else if (code == TRANSPORT_LOST)
        snprintf(why, sizeof(why), "the connection broke");
    else
        snprintf(why, sizeof(why), "closed by the broadcaster (code %d)", (int)code);
    l->rejected = l->state == STATEFUL_OPEN && !is_own_trouble(code);
    connection_lost(l, TRANSPORT_NORMAL,
                    refused ? LONELY_CLIENT_FORBIDDEN : LONELY_CLIENT_UNREACHABLE, why);
}

static void on_transport_closed(void *arg)
{
    struct stateful_link *l = arg;

    l->transport = NULL;
    stateful_forget(l);
    if (l->closing) {
        part_closed(l);
        return;
    }
    if (l->stable) { /* it was a good one: from the beginning, and soon */
        l->pass = 0;
        begin_pass(l);
        wait_for(l, (uint64_t)(random_part(l) * JITTER_MS));
        return;
    }
    attempt_failed(l, l->lost_as, l->lost_why);
}

static const struct transport_events transport_events = {
    .on_piece = on_piece,
    .on_drained = on_drained,
    .on_end = on_end,
    .on_closed = on_transport_closed,
};

/* The bytes of the peer from now on are frames. */
static void begin_frames(struct stateful_link *l, struct stream *stream, struct lonely_span rest)
{
    l->transport =
        transport_open(l->group, stream, is_websocket(l) ? TRANSPORT_WEBSOCKET : TRANSPORT_TCP,
                       TRANSPORT_CLIENT, rest, &transport_events, l);
    l->state = STATEFUL_CONFIGURING;
    l->reading = true;
    transport_read_start(l->transport);
    stateful_begin(l);
}

void stateful_opened(struct stateful_link *l)
{
    struct lonely_client *c = stateful_client(l);
    struct list *const lists[] = { &c->exacts, &c->globs };

    uv_timer_stop(&l->timer);
    l->state = STATEFUL_OPEN;
    l->stood = true;
    l->worst = LONELY_CLIENT_UNREACHABLE;
    l->opened_ms = clock_mono_ms(c->clock);
    for (size_t i = 0; i < 2; i++) {
        list_foreach (lists[i], node, next) {
            struct want *w = list_entry(node, struct want, all);

            list_remove(&w->dirty);
            if (!want_is_settled(w))
                list_push_back(&c->dirty, &w->dirty);
        }
    }
    client_link_up(c);
    stateful_pump(l);
    set_reading(l);
}

/* ---- The websocket's handshake ---- */

static void on_stream_closed(void *arg)
{
    struct stateful_link *l = arg;

    l->stream = NULL;
    buf_fini(&l->reply);
    buf_fini(&l->request);
    if (l->closing)
        part_closed(l);
    else
        attempt_failed(l, l->lost_as, l->lost_why);
}

static void upgrade_failed(struct stateful_link *l, enum lonely_client_error err, const char *why)
{
    if (l->state != STATEFUL_UPGRADING)
        return;
    uv_timer_stop(&l->timer);
    l->state = STATEFUL_ENDING;
    l->lost_as = err;
    snprintf(l->lost_why, sizeof(l->lost_why), "%s", why);
    stream_close(l->stream);
}

static void on_reply(void *arg, struct lonely_span bytes)
{
    struct stateful_link *l = arg;
    struct websocket_reply_result result;
    struct stream *stream = l->stream;
    char why[64];

    if (l->state != STATEFUL_UPGRADING)
        return;
    if (!buf_append(&l->reply, bytes.ptr, bytes.len)) {
        upgrade_failed(l, LONELY_CLIENT_REFUSED, "an answer to the upgrade that is too long");
        return;
    }
    result = websocket_check_reply((struct lonely_span){ l->reply.ptr, l->reply.len },
                                   l->handshake_nonce);
    switch (result.reply) {
    case WEBSOCKET_REPLY_MORE:
        return;
    case WEBSOCKET_REPLY_OPEN:
        l->stream = NULL;
        stream_read_stop(stream);
        begin_frames(
            l, stream,
            (struct lonely_span){ l->reply.ptr + result.used, l->reply.len - result.used });
        buf_fini(&l->reply);
        buf_fini(&l->request);
        return;
    case WEBSOCKET_REPLY_REFUSED:
        snprintf(why, sizeof(why), "the upgrade was refused with status %d", result.status);
        upgrade_failed(l,
                       result.status == 401 || result.status == 403 ? LONELY_CLIENT_FORBIDDEN
                                                                    : LONELY_CLIENT_REFUSED,
                       why);
        return;
    case WEBSOCKET_REPLY_BAD:
        upgrade_failed(l, LONELY_CLIENT_REFUSED, "not a websocket's answer to the upgrade");
        return;
    }
}

static void on_reply_end(void *arg)
{
    upgrade_failed(arg, LONELY_CLIENT_UNREACHABLE, "closed in answer to the upgrade");
}

static void on_stream_lost(void *arg)
{
    struct stateful_link *l = arg;

    if (l->state == STATEFUL_UPGRADING)
        upgrade_failed(l, LONELY_CLIENT_UNREACHABLE, "the connection broke");
}

static void on_request_sent(void *arg)
{
    (void)arg;
}

static const struct stream_events upgrade_events = {
    .on_read = on_reply,
    .on_end = on_reply_end,
    .on_sent = on_request_sent,
    .on_lost = on_stream_lost,
    .on_closed = on_stream_closed,
};

/* Splits "ws://HOST:PORT/PATH": host, and the target below the path. */
static void split_url(const char *url, struct buf *host, struct buf *target)
{
    const char *at = strstr(url, "://") + 3;
    size_t len = strcspn(at, "/");

    buf_append(host, at, len);
    buf_append_byte(host, '\0');
    buf_append_str(target, at + len);
    buf_append_str(target, "/v1/websocket");
    buf_append_byte(target, '\0');
}

static void upgrade(struct stateful_link *l, struct stream *stream)
{
    struct websocket_request request = { 0 };
    struct buf host, target;
    struct lonely_span bytes;
    ptrdiff_t sent;

    buf_init(&host, 65536);
    buf_init(&target, 65536);
    split_url(l->broadcaster->url, &host, &target);
    client_random(stateful_client(l), l->handshake_nonce, sizeof(l->handshake_nonce));
    memcpy(request.nonce, l->handshake_nonce, sizeof(request.nonce));
    request.host = (const char *)host.ptr;
    request.target = (const char *)target.ptr;
    request.headers = "User-Agent: lonelypsc/" LONELY_VERSION "\r\n";
    l->stream = stream;
    l->state = STATEFUL_UPGRADING;
    stream_attach(stream, &upgrade_events, l);
    websocket_write_request(&l->request, &request);
    buf_fini(&host);
    buf_fini(&target);
    bytes = (struct lonely_span){ l->request.ptr, l->request.len };
    sent = stream_try_send(stream, &bytes, 1);
    if (sent == STREAM_LOST) {
        upgrade_failed(l, LONELY_CLIENT_UNREACHABLE, "the connection broke");
        return;
    }
    bytes.ptr += sent;
    bytes.len -= (size_t)sent;
    if (bytes.len > 0)
        stream_send(stream, &bytes, 1);
    stream_read_start(stream);
}

/* ---- Connecting ---- */

static void on_dialed(void *arg, struct stream *stream, const char *why)
{
    struct stateful_link *l = arg;
    uint64_t timeout_ms = none_to_zero(stateful_client(l)->conf.websocket_open_timeout_ms);

    l->dial = NULL;
    if (l->closing) {
        if (stream != NULL) {
            l->stream = stream;
            stream_attach(stream, &upgrade_events, l);
            stream_close(stream);
        } else {
            part_closed(l);
        }
        return;
    }
    if (stream == NULL) {
        attempt_failed(l, LONELY_CLIENT_UNREACHABLE, why);
        return;
    }
    if (timeout_ms > 0) /* for the handshake and CONFIRM_CONFIGURE together */
        uv_timer_start(&l->timer, on_timer, timeout_ms, 0);
    if (is_websocket(l))
        upgrade(l, stream);
    else
        begin_frames(l, stream, (struct lonely_span){ 0 });
}

/* libcurl connects to the host; the rest of the URL is ours. */
static void dial(struct stateful_link *l)
{
    const struct client_conf *conf = &stateful_client(l)->conf;
    const char *at = strstr(l->broadcaster->url, "://") + 3;
    size_t len = strcspn(at, "/");
    bool has_port = memchr(at, ':', len) != NULL && at[len - 1] != ']';
    const char *port = is_websocket(l) ? "" : ":3004";
    char *url = mem_alloc(len + 32);
    const struct dial_conf dial = {
        .url = url,
        .ca = conf->ca,
        .cert = conf->cert,
        .key = conf->key,
        .proxy = conf->proxy,
        .timeout_ms = none_to_zero(conf->websocket_open_timeout_ms),
        .user_timeout_ms = is_websocket(l) ? 0 : none_to_zero(conf->tcp_user_timeout_ms),
        .buffer = l->buffer,
    };

    snprintf(url, len + 32, "%s://%.*s%s", is_tls(l) ? "https" : "http", (int)len, at,
             has_port ? "" : port);
    l->state = STATEFUL_DIALING;
    l->dial = dial_start(&stateful_client(l)->loop, &dial, on_dialed, l);
    mem_free(url);
}

static void try_next(struct stateful_link *l)
{
    l->broadcaster = order_next(&l->order);
    if (l->broadcaster == NULL)
        end_pass(l);
    else
        dial(l);
}

static void on_timer(uv_timer_t *timer)
{
    struct stateful_link *l = timer->data;

    switch (l->state) {
    case STATEFUL_WAITING:
        if (l->order.next == l->order.count) /* a pass is over */
            begin_pass(l);
        try_next(l);
        break;
    case STATEFUL_UPGRADING:
        upgrade_failed(l, LONELY_CLIENT_UNREACHABLE, "no answer to the upgrade in time");
        break;
    case STATEFUL_CONFIGURING:
        connection_lost(l, TRANSPORT_POLICY, LONELY_CLIENT_UNREACHABLE,
                        "no answer to CONFIGURE in time");
        break;
    case STATEFUL_DIALING:
    case STATEFUL_OPEN:
    case STATEFUL_ENDING:
    case STATEFUL_DEAD:
        break;
    }
}

/* ---- What the client asks ---- */

static void flush(struct link *link, struct list *dirty)
{
    struct stateful_link *l = (struct stateful_link *)link;

    (void)dirty; /* asked for in their turn; all of them when a connection opens */
    stateful_pump(l);
}

static void notify(struct link *link, struct notify *n)
{
    stateful_notify_add((struct stateful_link *)link, n);
}

static void room_again(struct link *link)
{
    stateful_acknowledge_owed((struct stateful_link *)link);
}

static void start(struct link *link)
{
    struct stateful_link *l = (struct stateful_link *)link;

    begin_pass(l);
    try_next(l);
}

/* ---- The end ---- */

static void on_timer_closed(uv_handle_t *timer)
{
    struct stateful_link *l = timer->data;
    struct lonely_client *c = stateful_client(l);
    void (*on_closed)(struct lonely_client * c) = l->on_closed;

    for (size_t i = 0; i < c->conf.dictionary_count; i++)
        compressor_unref(l->presets[i]);
    mem_free(l->presets);
    stateful_receive_reset(l);
    buf_fini(&l->frame);
    order_fini(&l->order);
    mem_free(l->expected);
    mem_free(l->buffer);
    mem_free(l);
    on_closed(c);
}

static void on_group_closed(void *arg)
{
    struct stateful_link *l = arg;

    uv_close((uv_handle_t *)&l->timer, on_timer_closed);
}

/* The connection, or the attempt, is gone for good. */
static void part_closed(struct stateful_link *l)
{
    transport_group_close(l->group, on_group_closed, l);
}

static void close_link(struct link *link, void (*on_closed)(struct lonely_client *c))
{
    struct stateful_link *l = (struct stateful_link *)link;
    enum stateful_state state = l->state;

    l->on_closed = on_closed;
    l->closing = true;
    l->state = STATEFUL_DEAD;
    uv_timer_stop(&l->timer);
    stateful_notify_abandon(l);
    wants_abandon(stateful_client(l), LONELY_CLIENT_ABANDONED);
    if (l->transport != NULL)
        transport_close(l->transport, TRANSPORT_NORMAL);
    else if (l->dial != NULL)
        dial_cancel(l->dial);
    else if (l->stream != NULL && state == STATEFUL_UPGRADING)
        stream_close(l->stream);
    else if (l->stream == NULL)
        part_closed(l);
}

/* ---- The beginning ---- */

/* false: it cannot be read, is empty, or longer than `out` may be. */
static bool read_file(const char *path, struct buf *out)
{
    FILE *file = fopen(path, "rbe");
    uint8_t *room = NULL;
    size_t n = 1;
    bool good;

    while (file != NULL && n > 0 && (room = buf_reserve(out, 65536)) != NULL) {
        n = fread(room, 1, 65536, file);
        buf_commit(out, n);
    }
    good = room != NULL && ferror(file) == 0 && out->len > 0;
    if (file != NULL)
        fclose(file);
    return good;
}

static bool load_dictionaries(struct stateful_link *l, struct lonely_client_why *why)
{
    const struct client_conf *conf = &stateful_client(l)->conf;

    l->presets = mem_calloc(conf->dictionary_count + 1, sizeof(*l->presets));
    for (size_t i = 0; i < conf->dictionary_count; i++) {
        const struct client_dictionary *d = &conf->dictionaries[i];
        struct buf bytes;

        buf_init(&bytes, (size_t)16 << 20);
        if (read_file(d->path, &bytes))
            l->presets[i] =
                compressor_create(d->id, (struct lonely_span){ bytes.ptr, bytes.len }, d->level);
        buf_fini(&bytes);
        if (l->presets[i] == NULL) {
            snprintf(why->text, sizeof(why->text), "dictionary %.400s: cannot be read or used",
                     d->path);
            return false;
        }
    }
    return true;
}

static bool check_tls(const struct client_conf *conf, struct lonely_client_why *why)
{
    return (conf->ca == NULL || tls_trust_is_good(conf->ca, why->text)) &&
           (conf->cert == NULL || tls_identity_is_good(conf->cert, conf->key, why->text));
}

static void init(struct stateful_link *l, struct lonely_client *c)
{
    const struct transport_conf transport = {
        .max_frame_bytes = c->conf.max_frame,
        .ping_interval_ms = none_to_zero(c->conf.websocket_heartbeat_interval_ms),
        .ping_timeout_ms = none_to_zero(c->conf.websocket_heartbeat_interval_ms) / 2,
        .close_timeout_ms = none_to_zero(c->conf.websocket_close_timeout_ms),
        .low_water_bytes = STATEFUL_LOW_WATER,
    };

    l->link.ops = &link_stateful;
    l->link.client = c;
    l->worst = LONELY_CLIENT_UNREACHABLE;
    list_init(&l->unsent);
    list_init(&l->sent);
    list_init(&l->enabled);
    list_init(&l->owed);
    buf_init(&l->reply, 65536);
    buf_init(&l->request, 65536);
    stateful_forget(l);
    order_init(&l->order, &c->conf);
    l->expected = mem_calloc(STATEFUL_EXPECTED_MAX + 1, sizeof(*l->expected));
    l->buffer = mem_alloc(sizeof(*l->buffer));
    l->group = transport_group_create(&c->loop, &transport);
    uv_timer_init(&c->loop, &l->timer);
    l->timer.data = l;
}

static enum lonely_client_error open_link(struct lonely_client *c, struct link **out,
                                          struct lonely_client_why *why)
{
    struct stateful_link *l = mem_calloc(1, sizeof(*l));

    init(l, c);
    *out = &l->link;
    return check_tls(&c->conf, why) && load_dictionaries(l, why) ? LONELY_CLIENT_OK
                                                                 : LONELY_CLIENT_ARGUMENT;
}

const struct link_ops link_stateful = {
    .open = open_link,
    .start = start,
    .flush = flush,
    .notify = notify,
    .room_again = room_again,
    .close = close_link,
};
