/*
 * Messages that go out compressed. With a compressor that many sessions have, a message is compressed once
 * for all those of a worker: short ones at once, others in the pool, while their sessions wait for that
 * message, in order. With a session's own dictionary it is compressed when it is sent, so that it never
 * stands before the ENABLE of its dictionary or behind the DISABLE. Called by session_send.c.
 * (doc/protocol/session.md, 3.7 and 4.3)
 */
#include "session_private.h"

#include <openssl/evp.h>

static void count(struct sessions *all, const struct parcel *p)
{
    struct metrics *metrics = all->worker->metrics;

    metrics_add(&metrics->compressed_messages[METRICS_OUT], 1);
    metrics_add(&metrics->compressed_bytes[METRICS_OUT], body_size(p->body));
    metrics_add(&metrics->uncompressed_bytes[METRICS_OUT], body_size(p->message->body));
}

/* Compresses what is in memory and short. NULL: it cannot be done now. */
static struct body *pack_now(struct sessions *all, struct compressor *c, const struct body *plain)
{
    size_t cap = compressor_bound(SESSION_INLINE_BYTES), len;
    uint8_t sha512[LONELY_SHA512_BYTES];

    if (all->repacked == NULL)
        all->repacked = mem_alloc(cap);
    len = compressor_compress(c, body_span(plain), all->repacked, cap);
    if (len == 0 || EVP_Digest(all->repacked, len, sha512, NULL, EVP_sha512(), NULL) != 1)
        return NULL;
    return body_create(all->worker->b->bodies, (struct lonely_span){ all->repacked, len }, sha512);
}

/* Does it take no longer than about a millisecond? Higher levels are up to a hundred times slower. */
static bool is_short(const struct compressor *c, const struct body *body)
{
    int level = compressor_level(c);
    size_t limit = level <= 4 ? SESSION_INLINE_BYTES : level <= 10 ? 16384 : 2048;

    return body_in_memory(body) && body_size(body) <= limit;
}

/* ---- Shared forms ---- */

/* The form is there; `body` NULL: it could not be made, so the message goes as it is. */
static void fill(struct sessions *all, struct parcel *p, struct body *body)
{
    session_parcel_fill(all, p, body);
    if (body != NULL)
        count(all, p);
    else
        log_warn_limited(all->worker->b->log, "message_not_compressed",
                         LOG_U64("bytes", body_size(p->message->body)), LOG_END);
}

/* Those who wait for it go on. */
static void on_packed(void *arg, const struct recoded *result)
{
    struct parcel *p = arg;
    struct list *node;

    p->refs++;
    p->recoding = NULL;
    fill(p->all, p, result->body);
    while ((node = list_pop_front(&p->waiters)) != NULL)
        session_pump(list_entry(node, struct session_zstd, waiting)->session);
    session_parcel_unref(p);
}

/* The form of `m` that was made already; NULL: none. */
static struct parcel *find_packed(struct sessions *all, const struct outgoing *m, uint64_t id)
{
    struct list *first = list_first(&all->packed);

    if (first != NULL && list_entry(first, struct parcel, node)->message != m)
        sessions_drop_packed(all);
    list_foreach (&all->packed, node, next) {
        struct parcel *p = list_entry(node, struct parcel, node);

        if (p->made_with == id)
            return p;
    }
    return NULL;
}

static struct parcel *create_packed(struct sessions *all, struct outgoing *m, struct compressor *c)
{
    struct parcel *p = session_parcel_create(m);

    p->all = all;
    p->made_with = p->compressor = compressor_id(c);
    list_push_back(&all->packed, &p->node);
    if (is_short(c, m->body))
        fill(all, p, pack_now(all, c, m->body));
    else
        p->recoding = recode_compress(all->recoder, c, m->body, on_packed, p);
    return p;
}

struct parcel *session_shared_parcel(struct session *s, struct outgoing *m, struct parcel *plain)
{
    uint64_t size = body_size(m->body);
    struct compressor *c;
    struct parcel *p;

    if (session_own_compressor(s, size) != NULL)
        return plain;
    c = session_shared_compressor(s, size);
    if (c == NULL)
        return plain;
    p = find_packed(s->all, m, compressor_id(c));
    return p != NULL ? p : create_packed(s->all, m, c);
}

void session_await(struct session *s, struct parcel *p)
{
    if (!list_is_linked(&s->zstd->waiting))
        list_push_back(&p->waiters, &s->zstd->waiting);
}

void sessions_drop_packed(struct sessions *all)
{
    struct list *node;

    while ((node = list_pop_front(&all->packed)) != NULL)
        session_parcel_unref(list_entry(node, struct parcel, node));
}

/* ---- A session's own forms ---- */

struct parcel *session_own_parcel(struct session *s, const struct parcel *p)
{
    const struct body *plain = p->message->body;
    struct compressor *c = p->compressor == 0 ? session_own_compressor(s, body_size(plain)) : NULL;
    struct body *body;
    struct parcel *own;

    if (c == NULL || !body_in_memory(plain))
        return NULL;
    body = pack_now(s->all, c, plain);
    if (body == NULL)
        return NULL;
    own = session_parcel_create(p->message);
    own->compressor = compressor_id(c);
    session_parcel_fill(s->all, own, body);
    count(s->all, own);
    return own;
}
