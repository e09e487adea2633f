/*
 * Messages that come compressed: whole already, their hash compared and their authorization checked, so that
 * nothing is decompressed for a stranger. What is short is done at once, the rest in the pool, into memory or a
 * file as any message; never more comes out than was announced. Called by session_notify.c.
 * (doc/protocol/session.md, 3.5, 3.6 and 4.2)
 */
#include "session_private.h"

#include <string.h>

#include <openssl/evp.h>

/* The body is no such message. */
static void end_for_status(struct session *s, enum decompress_status status)
{
    enum metrics_session_end reason = METRICS_SESSION_MALFORMED;

    if (status == DECOMPRESS_WINDOW)
        reason = METRICS_SESSION_TOO_LARGE;
    else if (status == DECOMPRESS_NO_MEMORY)
        reason = METRICS_SESSION_BUSY;
    session_end(s, reason, decompress_status_str(status));
}

static void count(struct session *s, uint64_t packed, uint64_t plain)
{
    struct metrics *metrics = s->worker->metrics;

    metrics_add(&metrics->compressed_messages[METRICS_IN], 1);
    metrics_add(&metrics->compressed_bytes[METRICS_IN], packed);
    metrics_add(&metrics->uncompressed_bytes[METRICS_IN], plain);
}

struct body *session_unpack_now(struct session *s, struct compressor *c, struct lonely_span packed,
                                uint64_t plain_size)
{
    const struct broadcaster *b = s->worker->b;
    struct sessions *all = s->all;
    uint8_t sha512[LONELY_SHA512_BYTES];
    struct lonely_span plain;
    enum decompress_status status;
    struct body *body;

    if (plain_size > SESSION_INLINE_BYTES || packed.len > SESSION_INLINE_BYTES)
        return NULL;
    if (all->unpacked == NULL)
        all->unpacked = mem_alloc(SESSION_INLINE_BYTES);
    plain = (struct lonely_span){ all->unpacked, (size_t)plain_size };
    status = compressor_decompress(c, packed, b->conf->compression.decompression_max_window_size,
                                   all->unpacked, plain.len);
    if (status != DECOMPRESS_OK) {
        end_for_status(s, status);
        return NULL;
    }
    if (EVP_Digest(plain.ptr, plain.len, sha512, NULL, EVP_sha512(), NULL) != 1) {
        session_end(s, METRICS_SESSION_FAILED, "a message cannot be hashed");
        return NULL;
    }
    body = body_create(b->bodies, plain, sha512);
    if (body != NULL)
        count(s, packed.len, plain.len);
    return body;
}

/* It is plain. A NOTIFY is confirmed over what was in it, a stream over what was sent. */
static void notify(struct session *s, struct intake *i, struct body *plain)
{
    struct reply *r = i->reply;

    i->reply = NULL;
    if (!i->is_stream)
        memcpy(r->sha512, body_sha512(plain), sizeof(r->sha512));
    session_free_intake(i);
    session_notify(s, r, plain);
    session_update_reading(s);
}

static void on_unpacked(void *arg, const struct recoded *result)
{
    struct intake *i = arg;
    struct session *s = i->reply->session;

    s->finishing = false;
    s->zstd->unpacking = NULL;
    i->recoding = NULL;
    if (result->status == DECOMPRESS_OK && result->error == BODY_OK && !s->ended) {
        count(s, i->announced, i->plain_size);
        notify(s, i, result->body);
        return;
    }
    body_unref(result->body);
    session_free_intake(i);
    if (result->error != BODY_OK)
        session_end_for(s, result->error);
    else if (result->status != DECOMPRESS_OK)
        end_for_status(s, result->status);
}

void session_unpack(struct session *s, struct intake *i, struct body *packed)
{
    struct body *plain = NULL;

    if (body_in_memory(packed))
        plain = session_unpack_now(s, i->compressor, body_span(packed), i->plain_size);
    if (plain != NULL) {
        notify(s, i, plain);
    } else if (s->ended) {
        session_free_intake(i);
    } else { /* nothing is read meanwhile, so there is one at a time */
        s->finishing = true;
        s->zstd->unpacking = i;
        i->recoding = recode_decompress(s->all->recoder, i->compressor, packed, i->plain_size,
                                        on_unpacked, i);
        session_update_reading(s);
    }
    body_unref(packed);
}

void session_drop_unpacking(struct session *s)
{
    session_free_intake(s->zstd->unpacking);
    s->zstd->unpacking = NULL;
}
