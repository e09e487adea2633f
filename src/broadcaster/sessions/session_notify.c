/*
 * Messages coming in: NOTIFY, and NOTIFY_STREAM part by part. A small NOTIFY becomes a body at once; of
 * others the bytes go to a body_writer. Called by the states; what is complete goes to session_reply.c, or
 * to session_unpack.c before.
 * (doc/protocol/session.md, 3.5 and 3.6)
 */
#include "session_private.h"

#include <string.h>

/* ---- Intakes ---- */

/* `c` NULL: it comes plain. */
static struct intake *intake_create(struct session *s, struct lonely_span identifier,
                                    struct lonely_span topic, struct lonely_span sha512,
                                    uint64_t announced, struct compressor *c, uint64_t plain_size)
{
    struct intake *i = mem_calloc(1, sizeof(*i));

    i->reply = reply_create(s, LONELY_B2S_CONFIRM_NOTIFY, identifier, topic);
    memcpy(i->reply->sha512, sha512.ptr, sizeof(i->reply->sha512));
    i->writer = body_writer_create(s->worker->lane, announced);
    i->announced = announced;
    i->compressor = c;
    if (c != NULL)
        compressor_ref(c);
    i->plain_size = plain_size;
    return i;
}

void session_free_intake(struct intake *i)
{
    if (i == NULL)
        return;
    if (i->writer != NULL)
        body_writer_abort(i->writer);
    if (i->recoding != NULL)
        recoding_cancel(i->recoding);
    if (i->reply != NULL)
        reply_free(i->reply);
    compressor_unref(i->compressor);
    mem_free(i->tracing);
    mem_free(i);
}

void session_drop_intakes(struct session *s)
{
    if (s->intake != s->stream)
        session_free_intake(s->intake);
    session_free_intake(s->stream);
    s->intake = s->stream = NULL;
}

/* ---- Heads ---- */

/* What the heads of both kinds say of a message. */
struct announced {
    struct lonely_span topic;
    uint64_t compressor, length, plain_length;
};

/* May a message of this kind come? Else the session has ended. `*c`: what it is compressed with. */
static bool judge_head(struct session *s, const struct announced *a, struct compressor **c)
{
    const struct conf *conf = s->worker->b->conf;
    uint64_t length = a->length > a->plain_length ? a->length : a->plain_length;

    *c = a->compressor == 0 ? NULL : session_find_compressor(s, a->compressor);
    if (a->compressor != 0 && *c == NULL)
        session_end(s, METRICS_SESSION_VIOLATION, "a compressor that was not enabled");
    else if (a->topic.len > conf->limits.max_topic_bytes)
        session_end(s, METRICS_SESSION_TOO_LARGE, "a topic above limits.max_topic_bytes");
    else if (length > conf->limits.max_message_bytes)
        session_end(s, METRICS_SESSION_TOO_LARGE, "a message above limits.max_message_bytes");
    return !s->ended;
}

/* The authorization of the frame whose body is coming fits. */
static void on_checked(struct session *s)
{
    if (!s->body_ended)
        return;
    s->body_ended = false;
    session_end_body(s);
}

/* A message that is here: its hash was right when it was parsed. false: it does not fit in memory. */
static bool take_at_once(struct session *s, const struct lonely_message *m)
{
    const struct lonely_msg_notify *n = &m->as.notify;
    struct body *body = body_create(s->worker->b->bodies, m->body, n->compressed_sha512.ptr);
    struct reply *r;

    if (body == NULL)
        return false;
    metrics_add(&s->worker->metrics->message_bytes, m->body.len);
    r = reply_create(s, LONELY_B2S_CONFIRM_NOTIFY, n->identifier, n->topic);
    memcpy(r->sha512, n->compressed_sha512.ptr, sizeof(r->sha512));
    session_notify(s, r, body);
    return true;
}

/* The same when it is compressed, and nothing that takes time. Its confirmation is signed over the hash of
 * what was in it. (doc/protocol/session.md, 3.5) */
static bool unpack_at_once(struct session *s, const struct lonely_message *m, struct compressor *c)
{
    const struct lonely_msg_notify *n = &m->as.notify;
    struct body *body = session_unpack_now(s, c, m->body, n->decompressed_length);
    struct reply *r;

    if (body == NULL)
        return s->ended;
    metrics_add(&s->worker->metrics->message_bytes, m->body.len);
    r = reply_create(s, LONELY_B2S_CONFIRM_NOTIFY, n->identifier, n->topic);
    memcpy(r->sha512, body_sha512(body), sizeof(r->sha512));
    session_notify(s, r, body);
    return true;
}

void session_on_notify(struct session *s, const struct lonely_message *m, bool whole)
{
    const struct lonely_msg_notify *n = &m->as.notify;
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_NOTIFY,
        .tracing = n->tracing,
        .topic = n->topic,
        .identifier = n->identifier,
        .hash = n->compressed_sha512,
    };
    const struct announced announced = { n->topic, n->compressor, n->compressed_length,
                                         n->decompressed_length };
    enum session_verdict verdict;
    struct compressor *c;

    if (!judge_head(s, &announced, &c))
        return;
    verdict = session_check(s, &in, n->authorization, on_checked);
    if (verdict == SESSION_REFUSED)
        return;
    if (verdict == SESSION_PASSED && whole && s->hashed &&
        (c == NULL ? take_at_once(s, m) : unpack_at_once(s, m, c)))
        return;
    s->intake = intake_create(s, n->identifier, n->topic, n->compressed_sha512,
                              n->compressed_length, c, n->decompressed_length);
    if (!whole)
        return;
    session_take_body(s, m->body);
    session_end_body(s);
}

static bool is_same(struct lonely_span a, const struct reply *r)
{
    return a.len == r->identifier_len && (a.len == 0 || memcmp(a.ptr, r->identifier, a.len) == 0);
}

/* Finds or makes the stream that the part belongs to. NULL: the session has ended. */
static struct intake *stream_of(struct session *s, const struct lonely_msg_stream *part)
{
    const struct announced announced = { part->topic, part->compressor, part->compressed_length,
                                         part->decompressed_length };
    struct intake *i = s->stream;
    struct compressor *c;

    if (part->part_id > 0) {
        if (i != NULL && is_same(part->identifier, i->reply) && part->part_id == i->part_id + 1) {
            i->part_id++;
            return i;
        }
        session_end(s, METRICS_SESSION_VIOLATION, "a part of a NOTIFY_STREAM out of order");
        return NULL;
    }
    if (i != NULL) {
        session_end(s, METRICS_SESSION_VIOLATION, "a NOTIFY_STREAM within another");
        return NULL;
    }
    if (!judge_head(s, &announced, &c))
        return NULL;
    i = intake_create(s, part->identifier, part->topic, part->compressed_sha512,
                      part->compressed_length, c, part->decompressed_length);
    i->is_stream = true;
    i->tracing = mem_dup(part->tracing.ptr, part->tracing.len);
    i->tracing_len = part->tracing.len;
    return s->stream = i;
}

void session_on_notify_stream(struct session *s, const struct lonely_message *m, bool whole)
{
    struct intake *i = stream_of(s, &m->as.stream);
    struct lonely_auth_input in = { .op = LONELY_AUTH_NOTIFY };

    if (i == NULL)
        return;
    s->intake = i;
    in.tracing = (struct lonely_span){ i->tracing, i->tracing_len };
    in.topic = i->reply->topic;
    in.identifier = (struct lonely_span){ i->reply->identifier, i->reply->identifier_len };
    in.hash = (struct lonely_span){ i->reply->sha512, sizeof(i->reply->sha512) };
    if (session_check(s, &in, m->as.stream.authorization, on_checked) == SESSION_REFUSED || !whole)
        return;
    session_take_body(s, m->body);
    session_end_body(s);
}

/* ---- Bodies ---- */

void session_end_for(struct session *s, enum body_error err)
{
    bool full = err == BODY_NO_ROOM || err == BODY_BUSY;

    session_end(s, full ? METRICS_SESSION_BUSY : METRICS_SESSION_FAILED,
                "a message could not be kept");
}

static void on_ready(void *arg)
{
    struct session *s = arg;

    s->body_writing = false;
    session_update_reading(s);
}

void session_take_body(struct session *s, struct lonely_span bytes)
{
    struct intake *i = s->intake;

    if (bytes.len > i->announced - i->received) {
        session_end(s, METRICS_SESSION_MALFORMED, "a body longer than announced");
        return;
    }
    i->received += bytes.len;
    metrics_add(&s->worker->metrics->message_bytes, bytes.len);
    if (bytes.len == 0)
        return;
    switch (body_writer_add(i->writer, bytes, on_ready, s)) {
    case BODY_ADD_MORE:
        break;
    case BODY_ADD_WAIT:
        s->body_writing = true;
        session_update_reading(s);
        break;
    case BODY_ADD_FAILED:
        session_end_for(s, body_writer_error(i->writer));
        break;
    }
}

/* The body is whole, or could not be kept. */
static void on_body(void *arg, enum body_error err, struct body *body)
{
    struct intake *i = arg;
    struct session *s = i->reply->session;
    struct reply *r = i->reply;

    s->finishing = false;
    if (s->ended) {
        body_unref(body);
    } else if (err != BODY_OK) {
        session_end_for(s, err);
    } else if (memcmp(body_sha512(body), r->sha512, sizeof(r->sha512)) != 0) {
        body_unref(body);
        session_end(s, METRICS_SESSION_MALFORMED, lonely_error_str(LONELY_E_BODY_HASH));
    } else if (i->compressor != NULL) {
        session_unpack(s, i, body);
        i = NULL;
    } else {
        i->reply = NULL;
        session_notify(s, r, body);
        session_update_reading(s);
    }
    session_free_intake(i);
    session_release(s);
}

static void finish(struct session *s, struct intake *i)
{
    struct body_writer *writer = i->writer;

    if (i == s->stream)
        s->stream = NULL;
    i->writer = NULL;
    s->body_writing = false;
    s->finishing = true;
    session_hold(s);
    body_writer_finish(writer, on_body, i);
    session_update_reading(s);
}

static void acknowledge_part(struct session *s, const struct intake *i)
{
    const struct reply *final = i->reply;
    struct reply *r = reply_create(s, LONELY_B2S_CONTINUE_NOTIFY,
                                   (struct lonely_span){ final->identifier, final->identifier_len },
                                   (struct lonely_span){ 0 });

    r->part_id = i->part_id;
    r->state = REPLY_READY;
    session_owe(s, r);
    session_pump(s);
}

void session_end_body(struct session *s)
{
    struct intake *i = s->intake;

    if (s->ended)
        return;
    if (s->checking) {
        s->body_ended = true;
        return;
    }
    s->intake = NULL;
    if (i->received == i->announced) {
        finish(s, i);
    } else if (i->is_stream) {
        acknowledge_part(s, i);
    } else {
        session_free_intake(i);
        session_end(s, METRICS_SESSION_MALFORMED, lonely_error_str(LONELY_E_BODY_LENGTH));
    }
}
