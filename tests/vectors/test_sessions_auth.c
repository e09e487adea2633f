/*
 * Every authorization in the recorded conversations of sessions/: both counters are followed, and
 * each frame is verified with the url that it has at its place. (doc/protocol/auth.md, 5)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lonely/auth.h>
#include <lonely/connection.h>
#include <lonely/message.h>

#include "tables.h"
#include "vectors.h"

#define MAX_FRAMES 32

static const struct session_case {
    const char *file;
    enum lonely_auth_scheme scheme;
    size_t authorized; /* frames with an authorization */
    size_t to_store;   /* of them, those whose mac must be stored */
} session_cases[] = {
    { "hmac_basic.json", LONELY_AUTH_HMAC, 16, 6 },
    { "hmac_basic_expanded.json", LONELY_AUTH_HMAC, 16, 6 },
    { "hmac_missed.json", LONELY_AUTH_HMAC, 10, 4 },
    { "hmac_stream_notifier.json", LONELY_AUTH_HMAC, 8, 8 },
    { "hmac_stream_receiver.json", LONELY_AUTH_HMAC, 12, 2 },
    { "token_basic.json", LONELY_AUTH_TOKEN, 16, 0 },
};

/* Urls or notifications in the order they went one way, to be taken up by the answers. */
struct queue {
    size_t put, taken;
    int64_t number[MAX_FRAMES]; /* of a subscription's url */
    struct lonely_span topic[MAX_FRAMES], hash[MAX_FRAMES];
};

struct session {
    struct vec_bytes frame[MAX_FRAMES];
    size_t n_frames;
    struct lonely_connection connection;
    struct lonely_span subscriber_nonce;
    struct queue subscriptions, notifications;
    struct lonely_msg_stream first[2]; /* the first part of a stream each way; it counts for all */
    char url[LONELY_CONNECTION_URL_MAX_BYTES];
};

static struct lonely_auth_ctx *ctx;

static int64_t queue_take_number(struct queue *q)
{
    assert_true(q->taken < q->put);
    return q->number[q->taken++];
}

/* The url that a frame signs, empty if none. Keeps the counters. */
static struct lonely_span url_of(struct session *s, const struct lonely_message *m)
{
    const enum lonely_counter counter = lonely_connection_counter(m->direction, m->type);
    int64_t number;

    if (counter == LONELY_COUNTER_NONE)
        return (struct lonely_span){ 0 };
    if (counter == LONELY_COUNTER_REQUEST)
        number = queue_take_number(&s->subscriptions);
    else
        assert_int_equal(lonely_connection_take(&s->connection, counter, &number), LONELY_OK);
    if (m->direction == LONELY_S2B && m->type >= LONELY_S2B_SUBSCRIBE_EXACT &&
        m->type <= LONELY_S2B_UNSUBSCRIBE_GLOB)
        s->subscriptions.number[s->subscriptions.put++] = number;
    return (struct lonely_span){ (const uint8_t *)s->url,
                                 lonely_connection_url(&s->connection, number, s->url) };
}

static void queue_notification(struct queue *q, struct lonely_span topic, struct lonely_span hash)
{
    q->topic[q->put] = topic;
    q->hash[q->put++] = hash;
}

static struct lonely_span from_subscriber(struct session *s, const struct lonely_message *m,
                                          struct lonely_auth_input *in)
{
    switch ((enum lonely_s2b)m->type) {
    case LONELY_S2B_CONFIGURE:
        in->op = LONELY_AUTH_STATEFUL_CONFIGURE;
        in->tracing = m->as.configure.tracing;
        in->nonce = s->subscriber_nonce = m->as.configure.subscriber_nonce;
        in->enable_zstd = m->as.configure.enable_zstd;
        in->enable_training = m->as.configure.enable_training;
        in->initial_dict = (uint16_t)m->as.configure.initial_dict;
        return m->as.configure.authorization;
    case LONELY_S2B_SUBSCRIBE_EXACT:
    case LONELY_S2B_UNSUBSCRIBE_EXACT:
    case LONELY_S2B_SUBSCRIBE_GLOB:
    case LONELY_S2B_UNSUBSCRIBE_GLOB:
        in->op = m->type == LONELY_S2B_SUBSCRIBE_EXACT || m->type == LONELY_S2B_UNSUBSCRIBE_EXACT
                     ? LONELY_AUTH_SUBSCRIBE_EXACT
                     : LONELY_AUTH_SUBSCRIBE_GLOB;
        in->tracing = m->as.subscription.tracing;
        in->topic = m->as.subscription.topic;
        return m->as.subscription.authorization;
    case LONELY_S2B_NOTIFY:
        in->op = LONELY_AUTH_NOTIFY;
        in->tracing = m->as.notify.tracing;
        in->topic = m->as.notify.topic;
        in->identifier = m->as.notify.identifier;
        in->hash = m->as.notify.compressed_sha512;
        queue_notification(&s->notifications, in->topic, in->hash);
        return m->as.notify.authorization;
    case LONELY_S2B_NOTIFY_STREAM:
        if (m->as.stream.part_id == 0) {
            s->first[LONELY_S2B] = m->as.stream;
            queue_notification(&s->notifications, m->as.stream.topic,
                               m->as.stream.compressed_sha512);
        }
        in->op = LONELY_AUTH_NOTIFY;
        in->tracing = s->first[LONELY_S2B].tracing;
        in->topic = s->first[LONELY_S2B].topic;
        in->identifier = s->first[LONELY_S2B].identifier;
        in->hash = s->first[LONELY_S2B].compressed_sha512;
        return m->as.stream.authorization;
    case LONELY_S2B_CONTINUE_RECEIVE:
        in->op = LONELY_AUTH_STATEFUL_CONTINUE_RECEIVE;
        in->tracing = m->as.continuation.tracing;
        in->identifier = m->as.continuation.identifier;
        in->part_id = m->as.continuation.part_id;
        return m->as.continuation.authorization;
    case LONELY_S2B_CONFIRM_RECEIVE:
        in->op = LONELY_AUTH_CONFIRM_RECEIVE;
        in->tracing = m->as.confirm_receive.tracing;
        in->identifier = m->as.confirm_receive.identifier;
        in->subscribers = m->as.confirm_receive.num_subscribers;
        return m->as.confirm_receive.authorization;
    default:
        fail_msg("type %u", m->type);
        return (struct lonely_span){ 0 };
    }
}

static struct lonely_span from_broadcaster(struct session *s, const struct lonely_message *m,
                                           struct lonely_auth_input *in)
{
    struct queue *const notified = &s->notifications;

    switch ((enum lonely_b2s)m->type) {
    case LONELY_B2S_CONFIRM_CONFIGURE:
        in->op = LONELY_AUTH_STATEFUL_CONFIRM_CONFIGURE;
        in->tracing = m->as.confirm_configure.tracing;
        in->nonce = m->as.confirm_configure.broadcaster_nonce;
        assert_int_equal(lonely_connection_init(&s->connection, s->subscriber_nonce, in->nonce),
                         LONELY_OK);
        return m->as.confirm_configure.authorization;
    case LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT:
    case LONELY_B2S_CONFIRM_UNSUBSCRIBE_EXACT:
    case LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB:
    case LONELY_B2S_CONFIRM_UNSUBSCRIBE_GLOB:
        in->op = m->type == LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT ||
                         m->type == LONELY_B2S_CONFIRM_UNSUBSCRIBE_EXACT
                     ? LONELY_AUTH_CONFIRM_SUBSCRIBE_EXACT
                     : LONELY_AUTH_CONFIRM_SUBSCRIBE_GLOB;
        in->tracing = m->as.subscription.tracing;
        in->topic = m->as.subscription.topic;
        return m->as.subscription.authorization;
    case LONELY_B2S_CONFIRM_NOTIFY:
        assert_true(notified->taken < notified->put);
        in->op = LONELY_AUTH_CONFIRM_NOTIFY;
        in->tracing = m->as.confirm_notify.tracing;
        in->identifier = m->as.confirm_notify.identifier;
        in->subscribers = m->as.confirm_notify.subscribers;
        in->topic = notified->topic[notified->taken];
        in->hash = notified->hash[notified->taken++];
        return m->as.confirm_notify.authorization;
    case LONELY_B2S_CONTINUE_NOTIFY:
        in->op = LONELY_AUTH_STATEFUL_CONTINUE_NOTIFY;
        in->tracing = m->as.continuation.tracing;
        in->identifier = m->as.continuation.identifier;
        in->part_id = m->as.continuation.part_id;
        return m->as.continuation.authorization;
    case LONELY_B2S_RECEIVE_STREAM:
        if (m->as.stream.part_id == 0)
            s->first[LONELY_B2S] = m->as.stream;
        in->op = LONELY_AUTH_RECEIVE;
        in->tracing = m->as.stream.tracing;
        in->topic = s->first[LONELY_B2S].topic;
        in->identifier = s->first[LONELY_B2S].identifier;
        in->hash = s->first[LONELY_B2S].compressed_sha512;
        return m->as.stream.authorization;
    case LONELY_B2S_MISSED:
        in->op = LONELY_AUTH_MISSED;
        in->tracing = m->as.missed.tracing;
        in->topic = m->as.missed.topic;
        in->recovery = in->url;
        return m->as.missed.authorization;
    case LONELY_B2S_ENABLE_ZSTD_PRESET:
    case LONELY_B2S_ENABLE_ZSTD_CUSTOM:
    case LONELY_B2S_DISABLE_ZSTD_CUSTOM:
    default: /* the sessions with compressors have no authorization */
        fail_msg("type %u", m->type);
        return (struct lonely_span){ 0 };
    }
}

/* What a frame carries and what it should have signed. */
static struct lonely_span frame_read(struct session *s, const json_t *entry,
                                     struct lonely_auth_input *in)
{
    const bool subscriber = strcmp(vec_str(entry, "from"), "subscriber") == 0;
    struct lonely_message m;
    struct lonely_result r;

    assert_true(s->n_frames < MAX_FRAMES);
    s->frame[s->n_frames] = vec_get_bytes(entry, "hex");
    r = lonely_message_parse(subscriber ? LONELY_S2B : LONELY_B2S,
                             vec_span(&s->frame[s->n_frames++]), &m);
    assert_int_equal(r.err, LONELY_OK);
    *in = (struct lonely_auth_input){ .url = url_of(s, &m) };
    return subscriber ? from_subscriber(s, &m, in) : from_broadcaster(s, &m, in);
}

static struct lonely_auth_key *key_of(const json_t *info, const char *direction,
                                      enum lonely_auth_scheme scheme)
{
    const char *secret = vec_str(vec_get(vec_get(info, "auth"), direction), "secret");
    struct lonely_auth_key *key;

    assert_int_equal(
        lonely_auth_key_create(
            scheme, (struct lonely_span){ (const uint8_t *)secret, strlen(secret) }, &key),
        LONELY_OK);
    return key;
}

/* A frame must verify, and with another url, if it has one, it must not. */
static bool frame_check(const struct lonely_auth_key *key, const struct lonely_auth_input *in,
                        struct lonely_span authorization, double now)
{
    struct lonely_auth_input moved = *in;
    struct lonely_auth_verified v;

    assert_int_equal(lonely_auth_verify(ctx, &key, 1, in, &authorization, now, &v), LONELY_AUTH_OK);
    if (lonely_auth_key_scheme(key) == LONELY_AUTH_HMAC && in->url.len > 0) {
        struct lonely_auth_verified unused;

        moved.url.len--;
        moved.recovery.len -= in->op == LONELY_AUTH_MISSED;
        assert_int_equal(lonely_auth_verify(ctx, &key, 1, &moved, &authorization, now, &unused),
                         LONELY_AUTH_FORBIDDEN);
    }
    return v.store;
}

static void session_verifies(void **state)
{
    const struct session_case *c = *state;
    char path[64];
    json_t *index = vec_load_json("sessions/index.json"), *frames, *entry;
    const json_t *info = vec_get(index, c->file);
    struct lonely_auth_key *keys[] = { key_of(info, "to_broadcaster", c->scheme),
                                       key_of(info, "to_subscriber", c->scheme) };
    const double now = (double)vec_u64(info, "recorded_at");
    struct session s = { .n_frames = 0 };
    size_t i, authorized = 0, to_store = 0;

    snprintf(path, sizeof(path), "sessions/%s", c->file);
    frames = vec_load_json(path);
    json_array_foreach(frames, i, entry)
    {
        struct lonely_auth_input in;
        const struct lonely_span authorization = frame_read(&s, entry, &in);
        const bool subscriber = strcmp(vec_str(entry, "from"), "subscriber") == 0;

        print_message("# %s\n", vec_str(entry, "note"));
        if (authorization.len == 0)
            continue;
        to_store += frame_check(keys[subscriber ? 0 : 1], &in, authorization, now);
        authorized++;
    }
    assert_int_equal(authorized, c->authorized);
    assert_int_equal(to_store, c->to_store);
    for (i = 0; i < s.n_frames; i++)
        vec_bytes_free(&s.frame[i]);
    lonely_auth_key_destroy(keys[0]);
    lonely_auth_key_destroy(keys[1]);
    json_decref(frames);
    json_decref(index);
}

int main(void)
{
    struct CMUnitTest tests[TABLE_LEN(session_cases)];
    int failed;

    for (size_t i = 0; i < TABLE_LEN(session_cases); i++)
        tests[i] = (struct CMUnitTest){
            .name = session_cases[i].file,
            .test_func = session_verifies,
            .initial_state = (void *)(uintptr_t)&session_cases[i],
        };
    if (lonely_auth_ctx_create(&ctx) != LONELY_OK)
        return 1;
    failed = cmocka_run_group_tests_name("sessions_auth", tests, NULL, NULL);
    lonely_auth_ctx_destroy(ctx);
    return failed;
}
