/*
 * Frames of a connection: how they are taken apart and answered, and what is wanted in the order in which
 * it is asked for (stateful.h).
 */
#include "stateful.h"

#include <string.h>

#include "mem.h"

/* A dictionary, and all that may go before it. */
#define FRAME_MAX_BYTES (LONELY_MESSAGE_HEAD_MAX_BYTES + ((size_t)1 << 20))

#define SMALL_BYTES 512 /* acknowledgements, most of all */

/* ---- Authorization ---- */

static struct lonely_span url_of(const struct stateful_link *l, int64_t number,
                                 char out[LONELY_CONNECTION_URL_MAX_BYTES])
{
    size_t len = lonely_connection_url(&l->connection, number, out);

    return (struct lonely_span){ (const uint8_t *)out, len };
}

bool stateful_sign(struct stateful_link *l, struct lonely_auth_input *in, int64_t number,
                   uint8_t *out, struct lonely_span *authorization)
{
    char url[LONELY_CONNECTION_URL_MAX_BYTES];

    if (number != 0 && client_signs(stateful_client(l)))
        in->url = url_of(l, number, url);
    if (client_sign(stateful_client(l), in, out, authorization))
        return true;
    stateful_fail(l, TRANSPORT_FAILED, "cannot sign: OpenSSL failed");
    return false;
}

bool stateful_verify(struct stateful_link *l, struct lonely_auth_input *in, bool numbered,
                     struct lonely_span authorization)
{
    char url[LONELY_CONNECTION_URL_MAX_BYTES];
    int64_t number;

    if (numbered) {
        if (lonely_connection_take(&l->connection, LONELY_COUNTER_BROADCASTER, &number) !=
            LONELY_OK) {
            stateful_fail(l, TRANSPORT_FAILED, "the connection's numbers are used up");
            return false;
        }
        if (!client_asks(stateful_client(l)))
            return true;
        in->url = url_of(l, number, url);
        in->recovery = in->op == LONELY_AUTH_MISSED ? in->url : in->recovery;
    }
    if (client_verify(stateful_client(l), in, lonely_auth_field(&authorization)) == LONELY_AUTH_OK)
        return true;
    stateful_fail(l, TRANSPORT_POLICY, "the authorization of a frame is wrong");
    return false;
}

/* ---- Output ---- */

void stateful_send(struct stateful_link *l, struct lonely_message *m)
{
    uint8_t small[SMALL_BYTES], *room;
    size_t len = 0;

    m->direction = LONELY_S2B;
    m->minimal = stateful_client(l)->conf.websocket_minimal_headers;
    if (m->body.len == 0 &&
        lonely_message_serialize_head(m, small, sizeof(small), &len) == LONELY_OK) {
        transport_put_frame(l->transport, (struct lonely_span){ small, len });
        return;
    }
    if (lonely_message_serialize_head(m, NULL, 0, &len) != LONELY_OK || len > 65536) {
        room = mem_alloc(LONELY_MESSAGE_HEAD_MAX_BYTES);
        if (lonely_message_serialize_head(m, room, LONELY_MESSAGE_HEAD_MAX_BYTES, &len) ==
            LONELY_OK) {
            transport_frame(l->transport, len + m->body.len);
            transport_put(l->transport, (struct lonely_span){ room, len });
            transport_put(l->transport, m->body);
        } else {
            stateful_fail(l, TRANSPORT_FAILED, "a frame cannot be written");
        }
        mem_free(room);
        return;
    }
    transport_frame(l->transport, len + m->body.len);
    room = transport_reserve(l->transport, len);
    if (room == NULL)
        return; /* the connection is ending */
    lonely_message_serialize_head(m, room, len, &len);
    transport_commit(l->transport, len);
    if (m->body.len > 0)
        transport_put(l->transport, m->body);
}

void stateful_begin(struct stateful_link *l)
{
    const struct client_conf *conf = &stateful_client(l)->conf;
    uint8_t authorization[LONELY_AUTH_MAX_BYTES];
    struct lonely_message m = { .type = LONELY_S2B_CONFIGURE };
    struct lonely_msg_configure *f = &m.as.configure;
    struct lonely_auth_input in = { .op = LONELY_AUTH_STATEFUL_CONFIGURE };

    client_random(stateful_client(l), l->nonce, sizeof(l->nonce));
    f->subscriber_nonce = (struct lonely_span){ l->nonce, sizeof(l->nonce) };
    f->enable_zstd = conf->allow_compression;
    f->enable_training = conf->allow_compression && conf->allow_training_compression;
    if (conf->allow_compression && conf->initial_compression_dict_id != CONF_NONE)
        f->initial_dict = conf->initial_compression_dict_id;
    in.nonce = f->subscriber_nonce;
    in.enable_zstd = f->enable_zstd;
    in.enable_training = f->enable_training;
    in.initial_dict = (uint16_t)f->initial_dict;
    if (stateful_sign(l, &in, 0, authorization, &f->authorization))
        stateful_send(l, &m);
}

/* ---- Answers that are due ---- */

bool stateful_may_ask(const struct stateful_link *l)
{
    uint64_t max = stateful_client(l)->conf.max_expected_acks;

    return l->state == STATEFUL_OPEN && l->expected_len < STATEFUL_EXPECTED_MAX &&
           l->expected_len < max;
}

void stateful_expect(struct stateful_link *l, const struct expected *e)
{
    size_t at = (l->expected_first + l->expected_len++) % (STATEFUL_EXPECTED_MAX + 1);

    l->expected[at] = *e;
    if (e->kind == EXPECT_CONTINUE || e->kind == EXPECT_NOTIFIED)
        l->parts_out++;
}

/* The answer that is due next, if it is of that kind. False: the connection is failing. */
static bool take_expected(struct stateful_link *l, enum expected_kind kind, struct expected *out)
{
    if (l->expected_len == 0 || l->expected[l->expected_first].kind != kind) {
        stateful_fail(l, TRANSPORT_MALFORMED, "the broadcaster answered what was not asked");
        return false;
    }
    *out = l->expected[l->expected_first];
    l->expected_first = (l->expected_first + 1) % (STATEFUL_EXPECTED_MAX + 1);
    l->expected_len--;
    if (kind == EXPECT_CONTINUE || kind == EXPECT_NOTIFIED)
        l->parts_out--;
    return true;
}

/* ---- What is wanted ---- */

static uint16_t request_type(const struct want *w)
{
    bool glob = w->kind == WANT_GLOB;

    if (w->refs > 0)
        return glob ? LONELY_S2B_SUBSCRIBE_GLOB : LONELY_S2B_SUBSCRIBE_EXACT;
    return glob ? LONELY_S2B_UNSUBSCRIBE_GLOB : LONELY_S2B_UNSUBSCRIBE_EXACT;
}

static void ask(struct stateful_link *l, struct want *w)
{
    uint8_t authorization[LONELY_AUTH_MAX_BYTES];
    struct lonely_message m = { .type = request_type(w) };
    struct expected e = { .kind = w->refs > 0 ? EXPECT_SUBSCRIBED : EXPECT_UNSUBSCRIBED,
                          .want = w };
    struct lonely_auth_input in = {
        .op = w->kind == WANT_GLOB ? LONELY_AUTH_SUBSCRIBE_GLOB : LONELY_AUTH_SUBSCRIBE_EXACT,
        .topic = w->key,
    };

    if (lonely_connection_take(&l->connection, LONELY_COUNTER_SUBSCRIBER, &e.number) != LONELY_OK) {
        stateful_fail(l, TRANSPORT_FAILED, "the connection's numbers are used up");
        return;
    }
    m.as.subscription.topic = w->key;
    if (!stateful_sign(l, &in, e.number, authorization, &m.as.subscription.authorization))
        return;
    stateful_expect(l, &e);
    stateful_send(l, &m);
    want_enter(stateful_client(l), w, w->refs > 0 ? WANT_ADDING : WANT_REMOVING);
}

static bool ask_next(struct stateful_link *l)
{
    struct list *dirty = &stateful_client(l)->dirty;
    struct list *node;

    while (stateful_may_ask(l) && (node = list_pop_front(dirty)) != NULL) {
        struct want *w = list_entry(node, struct want, dirty);

        if ((w->state == WANT_OFF && w->refs > 0) || (w->state == WANT_ON && w->refs == 0)) {
            ask(l, w);
            return true;
        }
    }
    return false;
}

void stateful_pump(struct stateful_link *l)
{
    if (l->pumping)
        return; /* a callback asked for more: who runs sees to it */
    l->pumping = true;
    while (l->state == STATEFUL_OPEN && (ask_next(l) || stateful_notify_pump(l)))
        ;
    l->pumping = false;
}

static void on_subscription(struct stateful_link *l, const struct lonely_message *m)
{
    bool subscribed = m->type == LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT ||
                      m->type == LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB;
    bool glob = m->type == LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB ||
                m->type == LONELY_B2S_CONFIRM_UNSUBSCRIBE_GLOB;
    struct lonely_client *c = stateful_client(l);
    struct lonely_span topic = m->as.subscription.topic;
    char url[LONELY_CONNECTION_URL_MAX_BYTES];
    struct lonely_auth_input in = {
        .op = glob ? LONELY_AUTH_CONFIRM_SUBSCRIBE_GLOB : LONELY_AUTH_CONFIRM_SUBSCRIBE_EXACT,
        .tracing = m->as.subscription.tracing,
        .topic = topic,
    };
    struct expected e;

    if (!take_expected(l, subscribed ? EXPECT_SUBSCRIBED : EXPECT_UNSUBSCRIBED, &e))
        return;
    if (e.want->kind != (glob ? WANT_GLOB : WANT_EXACT) || e.want->key.len != topic.len ||
        (topic.len > 0 && memcmp(e.want->key.ptr, topic.ptr, topic.len) != 0)) {
        stateful_fail(l, TRANSPORT_MALFORMED, "the broadcaster confirmed another topic");
        return;
    }
    in.url = url_of(l, e.number, url);
    if (c->conf.check_confirmations &&
        !stateful_verify(l, &in, false, m->as.subscription.authorization))
        return;
    if (want_enter(c, e.want, subscribed ? WANT_ON : WANT_OFF) && !want_is_settled(e.want) &&
        !list_is_linked(&e.want->dirty))
        list_push_back(&c->dirty, &e.want->dirty); /* meanwhile the opposite is wanted */
    stateful_pump(l);
}

/* ---- Input ---- */

static void on_confirm_configure(struct stateful_link *l,
                                 const struct lonely_msg_confirm_configure *m)
{
    struct lonely_auth_input in = {
        .op = LONELY_AUTH_STATEFUL_CONFIRM_CONFIGURE,
        .tracing = m->tracing,
        .nonce = m->broadcaster_nonce,
    };

    if (lonely_connection_init(&l->connection, (struct lonely_span){ l->nonce, sizeof(l->nonce) },
                               m->broadcaster_nonce) != LONELY_OK) {
        stateful_fail(l, TRANSPORT_FAILED, "cannot make the connection's nonce");
        return;
    }
    if (stateful_verify(l, &in, false, m->authorization))
        stateful_opened(l);
}

static void on_missed(struct stateful_link *l, const struct lonely_msg_missed *m)
{
    struct lonely_auth_input in = {
        .op = LONELY_AUTH_MISSED,
        .tracing = m->tracing,
        .topic = m->topic,
    };

    if (stateful_verify(l, &in, true, m->authorization))
        client_missed(stateful_client(l), m->topic);
}

static void on_confirm_notify(struct stateful_link *l, const struct lonely_msg_confirm_notify *m)
{
    struct expected e;

    if (take_expected(l, EXPECT_NOTIFIED, &e))
        stateful_notify_confirmed(l, &e, m);
}

static void on_continue_notify(struct stateful_link *l, const struct lonely_msg_continuation *m)
{
    struct expected e;

    if (take_expected(l, EXPECT_CONTINUE, &e))
        stateful_notify_continued(l, &e, m);
}

/* A whole frame, but for RECEIVE_STREAM. */
static void on_message(struct stateful_link *l, const struct lonely_message *m)
{
    if ((l->state == STATEFUL_CONFIGURING) != (m->type == LONELY_B2S_CONFIRM_CONFIGURE)) {
        stateful_fail(l, TRANSPORT_MALFORMED, "a frame that is not allowed now");
        return;
    }
    switch ((enum lonely_b2s)m->type) {
    case LONELY_B2S_CONFIRM_CONFIGURE:
        on_confirm_configure(l, &m->as.confirm_configure);
        break;
    case LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT:
    case LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB:
    case LONELY_B2S_CONFIRM_UNSUBSCRIBE_EXACT:
    case LONELY_B2S_CONFIRM_UNSUBSCRIBE_GLOB:
        on_subscription(l, m);
        break;
    case LONELY_B2S_CONFIRM_NOTIFY:
        on_confirm_notify(l, &m->as.confirm_notify);
        break;
    case LONELY_B2S_CONTINUE_NOTIFY:
        on_continue_notify(l, &m->as.continuation);
        break;
    case LONELY_B2S_RECEIVE_STREAM:
        break; /* on_parsed has it */
    case LONELY_B2S_ENABLE_ZSTD_PRESET:
    case LONELY_B2S_ENABLE_ZSTD_CUSTOM:
        stateful_enable(l, m);
        break;
    case LONELY_B2S_DISABLE_ZSTD_CUSTOM:
        stateful_disable(l, &m->as.disable_zstd);
        break;
    case LONELY_B2S_MISSED:
        on_missed(l, &m->as.missed);
        break;
    }
}

static void malformed(struct stateful_link *l, enum lonely_error err)
{
    stateful_fail(l, TRANSPORT_MALFORMED, lonely_error_str(err));
}

static void begin_part(struct stateful_link *l, const struct lonely_message *m, bool last)
{
    if (l->state != STATEFUL_OPEN) {
        stateful_fail(l, TRANSPORT_MALFORMED, "a message before the connection was configured");
        return;
    }
    if (last && stateful_take_small(l, m))
        return;
    if (!stateful_part_begin(l, &m->as.stream) || !stateful_part_add(l, m->body))
        return;
    l->in_body = !last;
    if (last)
        stateful_part_end(l);
}

/* A frame whose first `bytes` are there; `last`: they are all of it. True: more are needed. */
static bool on_bytes(struct stateful_link *l, struct lonely_span bytes, bool last)
{
    struct lonely_message m;
    struct lonely_result parsed =
        lonely_message_parse_with(LONELY_B2S, bytes, last ? 0 : LONELY_PARSE_HEAD, &m);

    if (parsed.err == LONELY_OK && m.type == LONELY_B2S_RECEIVE_STREAM) {
        begin_part(l, &m, last);
        return false;
    }
    if (!last && (parsed.err == LONELY_OK || parsed.err == LONELY_E_TRUNCATED))
        return true;
    if (parsed.err == LONELY_OK)
        on_message(l, &m);
    else
        malformed(l, parsed.err);
    return false;
}

static void collect(struct stateful_link *l, const struct transport_piece *piece)
{
    if (!buf_append(&l->frame, piece->bytes.ptr, piece->bytes.len)) {
        stateful_fail(l, TRANSPORT_TOO_BIG, "a frame without a message is too long");
        return;
    }
    if (!on_bytes(l, (struct lonely_span){ l->frame.ptr, l->frame.len }, piece->last))
        buf_fini(&l->frame);
}

void stateful_on_piece(struct stateful_link *l, const struct transport_piece *piece)
{
    if (piece->first && piece->last) {
        on_bytes(l, piece->bytes, true);
    } else if (!l->in_body) {
        collect(l, piece);
    } else if (stateful_part_add(l, piece->bytes) && piece->last) {
        l->in_body = false;
        stateful_part_end(l);
    }
}

void stateful_forget(struct stateful_link *l)
{
    l->expected_len = 0;
    l->parts_out = 0;
    l->in_body = false;
    buf_fini(&l->frame);
    buf_init(&l->frame, FRAME_MAX_BYTES);
    stateful_receive_reset(l);
    stateful_notify_reset(l);
}
