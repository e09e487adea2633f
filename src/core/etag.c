/*
 * The strong etag (doc/protocol/http.md, 9): the document is hashed as it is made, nothing of it is
 * kept but the last key. Called by the stores for CHECK and SET, by the broadcaster to verify the
 * lists of SET, and by the client.
 */
#include "sha.h"

#include <assert.h>
#include <string.h>

#include <lonely/etag.h>

#include "key_order.h"

enum { IN_TOPICS, IN_GLOBS, DONE }; /* the states; DONE also after an error */

/* Rows up to this size are hashed with one call instead of four, which is twice as fast. */
#define SMALL_ROW 256

static_assert(sizeof(SHA512_CTX) <= sizeof(((struct lonely_etag *)0)->sha512) &&
                  _Alignof(SHA512_CTX) <= _Alignof(uint64_t),
              "the digest's state does not fit");

static SHA512_CTX *digest(struct lonely_etag *e)
{
    return (SHA512_CTX *)(void *)e->sha512;
}

static enum lonely_error fail(struct lonely_etag *e, enum lonely_error err)
{
    e->state = DONE;
    return err;
}

static bool hash(struct lonely_etag *e, const void *ptr, size_t len)
{
    return len == 0 || SHA512_Update(digest(e), ptr, len) == 1;
}

static size_t put_b16(uint8_t *to, struct lonely_span s)
{
    to[0] = (uint8_t)(s.len >> 8);
    to[1] = (uint8_t)s.len;
    if (s.len > 0)
        memcpy(to + 2, s.ptr, s.len);
    return 2 + s.len;
}

static bool hash_b16(struct lonely_etag *e, struct lonely_span s)
{
    uint8_t len[2] = { (uint8_t)(s.len >> 8), (uint8_t)s.len };

    return hash(e, len, sizeof len) && hash(e, s.ptr, s.len);
}

static bool hash_row(struct lonely_etag *e, struct lonely_span key, struct lonely_span recovery)
{
    uint8_t row[SMALL_ROW];
    size_t n;

    if (2 + key.len + 2 + recovery.len > sizeof row)
        return hash_b16(e, key) && hash_b16(e, recovery);
    n = put_b16(row, key);
    n += put_b16(row + n, recovery);
    return hash(e, row, n);
}

enum lonely_error lonely_etag_init(struct lonely_etag *e, struct lonely_span url)
{
    e->state = DONE;
    e->last.any = false;
    if (url.len > UINT16_MAX)
        return LONELY_E_FIELD_SIZE;
    if (SHA512_Init(digest(e)) != 1 || !hash(e, "URL", 3) || !hash_b16(e, url) ||
        !hash(e, "\nEXACT", 6))
        return LONELY_E_CRYPTO;
    e->state = IN_TOPICS;
    return LONELY_OK;
}

/* Adds a row to the list that is open. */
static enum lonely_error add(struct lonely_etag *e, struct lonely_span key,
                             struct lonely_span recovery)
{
    if (key.len > UINT16_MAX || recovery.len > UINT16_MAX)
        return fail(e, LONELY_E_FIELD_SIZE);
    if (!order_ascends(&e->last, key))
        return fail(e, LONELY_E_ORDER);
    if (!hash_row(e, key, recovery))
        return fail(e, LONELY_E_CRYPTO);
    order_keep(&e->last, key);
    return LONELY_OK;
}

enum lonely_error lonely_etag_add_topic(struct lonely_etag *e, struct lonely_span topic,
                                        struct lonely_span recovery)
{
    if (e->state != IN_TOPICS)
        return fail(e, LONELY_E_STATE);
    return add(e, topic, recovery);
}

/* Ends the list of topics, if it is open. */
static enum lonely_error to_globs(struct lonely_etag *e)
{
    if (e->state == IN_GLOBS)
        return LONELY_OK;
    if (e->state != IN_TOPICS)
        return fail(e, LONELY_E_STATE);
    if (!hash(e, "\nGLOB", 5))
        return fail(e, LONELY_E_CRYPTO);
    e->state = IN_GLOBS;
    e->last.any = false;
    return LONELY_OK;
}

enum lonely_error lonely_etag_add_glob(struct lonely_etag *e, struct lonely_span glob,
                                       struct lonely_span recovery)
{
    enum lonely_error err = to_globs(e);

    return err == LONELY_OK ? add(e, glob, recovery) : err;
}

enum lonely_error lonely_etag_final(struct lonely_etag *e, uint8_t etag[LONELY_ETAG_BYTES])
{
    enum lonely_error err = to_globs(e);

    if (err != LONELY_OK)
        return err;
    e->state = DONE;
    if (!hash(e, "\n", 1) || SHA512_Final(etag, digest(e)) != 1)
        return LONELY_E_CRYPTO;
    return LONELY_OK;
}
