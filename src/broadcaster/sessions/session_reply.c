/*
 * What is owed to the peer: one answer a request, in their order, whatever gets ready first. Notifies
 * overlap; a change of a subscription waits for all that is in front of it, and nothing behind it is read
 * before it is done. (doc/protocol/session.md, 2.2, 3.4 and 3.5)
 */
#include "session_private.h"

#include <string.h>

#include "hub.h"

#define FREE_REPLIES 1024 /* kept by a worker */

/* ---- Replies ---- */

static struct reply *take_free(struct sessions *all)
{
    struct list *node = list_pop_front(&all->free_replies);

    if (node == NULL)
        return mem_alloc(sizeof(struct reply));
    all->free_reply_count--;
    return list_entry(node, struct reply, node);
}

struct reply *reply_create(struct session *s, enum lonely_b2s type, struct lonely_span identifier,
                           struct lonely_span topic)
{
    struct reply *r = take_free(s->all);
    uint8_t *at = topic.len <= sizeof(r->topic_own) ? r->topic_own : mem_alloc(topic.len);

    list_init(&r->node);
    r->session = s;
    r->type = type;
    r->state = REPLY_RUNNING;
    r->identifier_len = identifier.len;
    if (identifier.len > 0)
        memcpy(r->identifier, identifier.ptr, identifier.len);
    if (topic.len > 0)
        memcpy(at, topic.ptr, topic.len);
    r->topic = (struct lonely_span){ at, topic.len };
    return r;
}

static void free_topic(struct reply *r)
{
    if (r->topic.len > sizeof(r->topic_own))
        mem_free((void *)(uintptr_t)r->topic.ptr); /* const only for readers */
}

void reply_free(struct reply *r)
{
    struct sessions *all = r->session->all;

    free_topic(r);
    if (all->free_reply_count == FREE_REPLIES) {
        mem_free(r);
        return;
    }
    all->free_reply_count++;
    list_push_front(&all->free_replies, &r->node);
}

void sessions_free_replies(struct sessions *all)
{
    struct list *node;

    while ((node = list_pop_front(&all->free_replies)) != NULL)
        mem_free(list_entry(node, struct reply, node));
}

/* More requests than are read otherwise can come only while a message that is half sent is in their way. */
static bool is_too_much(const struct session *s)
{
    const struct sessions *all = s->all;

    return all->max_unprocessed != UINT64_MAX && all->max_pending != UINT64_MAX &&
           s->reply_count > all->max_unprocessed + all->max_pending;
}

void session_owe(struct session *s, struct reply *r)
{
    list_push_back(&s->replies, &r->node);
    s->reply_count++;
    if (r->state == REPLY_RUNNING)
        s->running++;
    if (is_too_much(s))
        session_end(s, METRICS_SESSION_OVERLOAD, "too many requests behind a message");
    session_update_reading(s);
}

static void settle(struct session *s, struct reply *r)
{
    list_remove(&r->node);
    s->reply_count--;
    reply_free(r);
}

/* Those that are running are settled when they come back. */
void session_drop_replies(struct session *s)
{
    list_foreach (&s->replies, node, next) {
        struct reply *r = list_entry(node, struct reply, node);

        if (r->state != REPLY_RUNNING)
            settle(s, r);
    }
}

/* What was running has come back. false: it is of no use any more; the session may be gone. */
static bool came_back(struct session *s, struct reply *r)
{
    bool alive = !s->ended;

    s->running--;
    r->state = REPLY_READY;
    if (!alive)
        settle(s, r);
    session_release(s);
    return alive;
}

/* ---- Sending them ---- */

void session_confirm_configure(struct session *s)
{
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_STATEFUL_CONFIRM_CONFIGURE,
        .nonce = { s->broadcaster_nonce, sizeof(s->broadcaster_nonce) },
    };
    struct lonely_message m = {
        .type = LONELY_B2S_CONFIRM_CONFIGURE,
        .as.confirm_configure.broadcaster_nonce = in.nonce,
    };

    if (session_sign(s, &in, &m.as.confirm_configure.authorization))
        session_put(s, &m);
}

static struct lonely_span identifier_of(const struct reply *r)
{
    return (struct lonely_span){ r->identifier, r->identifier_len };
}

static bool write_confirm_notify(struct session *s, const struct reply *r, struct lonely_message *m)
{
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_CONFIRM_NOTIFY,
        .topic = r->topic,
        .identifier = identifier_of(r),
        .hash = { r->sha512, sizeof(r->sha512) },
        .subscribers = r->subscribers,
    };

    m->as.confirm_notify = (struct lonely_msg_confirm_notify){
        .identifier = in.identifier,
        .subscribers = r->subscribers,
    };
    return session_sign(s, &in, &m->as.confirm_notify.authorization);
}

static bool write_continue_notify(struct session *s, const struct reply *r,
                                  struct lonely_message *m)
{
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_STATEFUL_CONTINUE_NOTIFY,
        .identifier = identifier_of(r),
        .part_id = r->part_id,
    };

    m->as.continuation = (struct lonely_msg_continuation){
        .identifier = in.identifier,
        .part_id = r->part_id,
    };
    return session_sign(s, &in, &m->as.continuation.authorization);
}

static bool is_glob(const struct reply *r)
{
    return r->type == LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB ||
           r->type == LONELY_B2S_CONFIRM_UNSUBSCRIBE_GLOB;
}

/* Over the url of the request. (doc/protocol/stateful.md, Q11) */
static bool write_subscription(struct session *s, const struct reply *r, struct lonely_message *m)
{
    const struct lonely_auth_input in = {
        .op = is_glob(r) ? LONELY_AUTH_CONFIRM_SUBSCRIBE_GLOB : LONELY_AUTH_CONFIRM_SUBSCRIBE_EXACT,
        .url = session_url(s, r->number),
        .topic = r->topic,
    };

    m->as.subscription = (struct lonely_msg_subscription){ .topic = r->topic };
    return session_sign(s, &in, &m->as.subscription.authorization);
}

static void send_reply(struct session *s, const struct reply *r)
{
    struct lonely_message m = { .type = (uint16_t)r->type };
    bool signs;

    if (r->type == LONELY_B2S_CONFIRM_NOTIFY)
        signs = write_confirm_notify(s, r, &m);
    else if (r->type == LONELY_B2S_CONTINUE_NOTIFY)
        signs = write_continue_notify(s, r, &m);
    else
        signs = write_subscription(s, r, &m);
    if (signs)
        session_put(s, &m);
}

/* ---- Notifies ---- */

static void on_notified(void *arg, enum hub_status status, uint32_t notified)
{
    struct reply *r = arg;
    struct session *s = r->session;

    if (!came_back(s, r))
        return;
    r->subscribers = notified;
    if (status == HUB_OK)
        session_pump(s);
    else if (status == HUB_BUSY)
        session_end(s, METRICS_SESSION_BUSY, "too many deliveries wait");
    else
        session_end(s, METRICS_SESSION_UNAVAILABLE, "the store did not answer");
}

void session_notify(struct session *s, struct reply *r, struct body *body)
{
    if (s->zstd != NULL)
        session_sample(s, body);
    session_owe(s, r);
    session_hold(s);
    hub_notify(s->worker, r->topic, body, on_notified, r);
    body_unref(body);
}

/* ---- Subscriptions ---- */

bool session_is_changing(const struct session *s)
{
    return s->changing != NULL;
}

static bool is_subscribe(const struct reply *r)
{
    return r->type == LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT ||
           r->type == LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB;
}

static enum store_kind kind_of(const struct reply *r)
{
    return is_glob(r) ? STORE_GLOB : STORE_EXACT;
}

/* The row is stored, or not; a subscription counts from here on. Its messages wait behind its
 * confirmation, since answers go first. */
static void on_added(void *arg, enum store_status status)
{
    struct reply *r = arg;
    struct session *s = r->session;

    s->changing = NULL;
    if (s->ended && status == STORE_OK)
        forwarding_remove(s->worker->b->forwarding, s->worker, kind_of(r), r->topic, NULL, NULL);
    if (!came_back(s, r))
        return;
    if (status == STORE_OK) {
        receivers_subscribe(s->worker->receivers, &s->receiver, kind_of(r), r->topic);
        session_pump(s);
    } else {
        session_end(s, METRICS_SESSION_UNAVAILABLE, "the subscription could not be stored");
    }
}

static void on_removed(void *arg, enum store_status status)
{
    struct reply *r = arg;
    struct session *s = r->session;

    s->changing = NULL;
    if (!came_back(s, r))
        return;
    if (status == STORE_OK)
        session_pump(s);
    else
        session_end(s, METRICS_SESSION_UNAVAILABLE, "the subscription could not be removed");
}

/* Begins the change, once nothing in front of it is under way. */
static void start_change(struct session *s)
{
    struct reply *r = s->changing;
    struct worker *w = s->worker;
    bool has, adds;

    if (r == NULL || r->state != REPLY_WAITING || s->running > 0)
        return;
    adds = is_subscribe(r);
    has = receivers_has(w->receivers, &s->receiver, kind_of(r), r->topic);
    if (has == adds) {
        session_end(s, METRICS_SESSION_VIOLATION, adds ? "subscribed already" : "not subscribed");
        return;
    }
    r->state = REPLY_RUNNING;
    s->running++;
    session_hold(s);
    if (adds) {
        forwarding_add(w->b->forwarding, w, kind_of(r), r->topic, on_added, r);
    } else {
        receivers_unsubscribe(w->receivers, &s->receiver, kind_of(r), r->topic);
        forwarding_remove(w->b->forwarding, w, kind_of(r), r->topic, on_removed, r);
    }
}

void session_on_subscription(struct session *s, const struct lonely_message *m, bool whole)
{
    static const enum lonely_b2s answers[] = {
        [LONELY_S2B_SUBSCRIBE_EXACT] = LONELY_B2S_CONFIRM_SUBSCRIBE_EXACT,
        [LONELY_S2B_SUBSCRIBE_GLOB] = LONELY_B2S_CONFIRM_SUBSCRIBE_GLOB,
        [LONELY_S2B_UNSUBSCRIBE_EXACT] = LONELY_B2S_CONFIRM_UNSUBSCRIBE_EXACT,
        [LONELY_S2B_UNSUBSCRIBE_GLOB] = LONELY_B2S_CONFIRM_UNSUBSCRIBE_GLOB,
    };
    const struct lonely_msg_subscription *sub = &m->as.subscription;
    const struct conf *conf = s->worker->b->conf;
    bool glob = m->type == LONELY_S2B_SUBSCRIBE_GLOB || m->type == LONELY_S2B_UNSUBSCRIBE_GLOB;
    struct lonely_auth_input in = {
        .op = glob ? LONELY_AUTH_SUBSCRIBE_GLOB : LONELY_AUTH_SUBSCRIBE_EXACT,
        .tracing = sub->tracing,
        .topic = sub->topic,
    };
    struct reply *r;
    int64_t number;

    (void)whole; /* always */
    if (!session_take_number(s, LONELY_COUNTER_SUBSCRIBER, &number))
        return;
    in.url = session_url(s, number);
    if (session_check(s, &in, sub->authorization, NULL) != SESSION_PASSED) /* bound: never LATER */
        return;
    if (sub->topic.len > (glob ? conf->limits.max_glob_bytes : conf->limits.max_topic_bytes)) {
        session_end(s, METRICS_SESSION_TOO_LARGE, "a topic or glob above its limit");
        return;
    }
    r = reply_create(s, answers[m->type], (struct lonely_span){ 0 }, sub->topic);
    r->state = REPLY_WAITING;
    r->number = number;
    s->changing = r;
    session_owe(s, r);
    session_pump(s);
}

/* ---- Going on ---- */

/* The answer that comes next, if it is ready; else NULL. */
static struct reply *next_answer(const struct session *s)
{
    struct list *first = list_first(&s->replies);
    struct reply *r = first == NULL ? NULL : list_entry(first, struct reply, node);

    return r != NULL && r->state == REPLY_READY ? r : NULL;
}

bool session_has_answer(const struct session *s)
{
    return next_answer(s) != NULL;
}

void session_answer(struct session *s)
{
    struct reply *r;

    while (!s->ended && session_may_put(s) && (r = next_answer(s)) != NULL) {
        send_reply(s, r);
        settle(s, r);
    }
    if (!s->ended)
        start_change(s);
}
