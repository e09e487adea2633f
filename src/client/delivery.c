/*
 * Messages: those at hand, and those that still arrive. Small ones are recycled through the client; large
 * ones, and what is beyond the client's budget, live in unlinked files of the spool folder.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "buf.h"
#include "core.h"
#include "fd.h"
#include "mem.h"

/* ---- Whole ones ---- */

static struct lonely_delivery *take_spare(struct lonely_client *c)
{
    struct lonely_delivery *d;

    uv_mutex_lock(&c->lock);
    d = c->spares;
    if (d != NULL) {
        c->spares = d->next_spare;
        c->spare_count--;
    }
    uv_mutex_unlock(&c->lock);
    return d != NULL ? d : mem_try_alloc(sizeof(*d));
}

/* Without message; `topic` is copied to `at`, which has room for it. */
static void init(struct lonely_delivery *d, struct lonely_client *c, struct lonely_span topic,
                 uint8_t *at)
{
    atomic_init(&d->refs, 1);
    d->client = c;
    d->size = 0;
    d->fd = -1;
    if (topic.len > 0)
        memcpy(at, topic.ptr, topic.len);
    d->topic = (struct lonely_span){ at, topic.len };
    d->bytes = at + topic.len;
}

/* Room for the topic and `len` bytes of message. */
static struct lonely_delivery *delivery_alloc(struct lonely_client *c, struct lonely_span topic,
                                              size_t len)
{
    struct lonely_delivery *d = take_spare(c);

    if (d == NULL)
        return NULL;
    d->allocated = NULL;
    if (topic.len + len > sizeof(d->inlined)) {
        d->allocated = mem_try_alloc(topic.len + len);
        if (d->allocated == NULL) {
            mem_free(d);
            return NULL;
        }
    }
    init(d, c, topic, d->allocated != NULL ? d->allocated : d->inlined);
    return d;
}

static void hold_memory(struct lonely_delivery *d)
{
    uv_mutex_lock(&d->client->lock);
    d->client->queued_bytes += d->size;
    uv_mutex_unlock(&d->client->lock);
}

struct lonely_delivery *delivery_create(struct lonely_client *c, struct lonely_span topic,
                                        struct lonely_span bytes,
                                        const uint8_t sha512[LONELY_SHA512_BYTES])
{
    struct lonely_delivery *d = delivery_alloc(c, topic, bytes.len);

    if (d == NULL)
        return NULL;
    if (bytes.len > 0)
        memcpy(d->bytes, bytes.ptr, bytes.len);
    memcpy(d->sha512, sha512, sizeof(d->sha512));
    d->size = bytes.len;
    hold_memory(d);
    return d;
}

void lonely_delivery_ref(struct lonely_delivery *d)
{
    atomic_fetch_add(&d->refs, 1);
}

void lonely_delivery_release(struct lonely_delivery *d)
{
    struct lonely_client *c;
    bool kept = false;

    if (d == NULL || atomic_fetch_sub(&d->refs, 1) != 1)
        return;
    c = d->client;
    mem_free(d->allocated);
    if (d->fd >= 0)
        close(d->fd);
    uv_mutex_lock(&c->lock);
    if (d->fd < 0)
        c->queued_bytes -= d->size;
    if (c->spare_count < DELIVERY_SPARES) {
        d->next_spare = c->spares;
        c->spares = d;
        c->spare_count++;
        kept = true;
    }
    uv_mutex_unlock(&c->lock);
    if (!kept)
        mem_free(d);
}

void delivery_pool_fini(struct lonely_client *c)
{
    while (c->spares != NULL) {
        struct lonely_delivery *d = c->spares;

        c->spares = d->next_spare;
        mem_free(d);
    }
}

struct lonely_span lonely_delivery_topic(const struct lonely_delivery *d)
{
    return d->topic;
}

uint64_t lonely_delivery_size(const struct lonely_delivery *d)
{
    return d->size;
}

const uint8_t *lonely_delivery_sha512(const struct lonely_delivery *d)
{
    return d->sha512;
}

struct lonely_span lonely_delivery_span(const struct lonely_delivery *d)
{
    return d->fd >= 0 ? (struct lonely_span){ NULL, 0 }
                      : (struct lonely_span){ d->bytes, (size_t)d->size };
}

ptrdiff_t lonely_delivery_read(const struct lonely_delivery *d, uint64_t at, void *to, size_t cap)
{
    ssize_t n;

    if (at >= d->size)
        return 0;
    if (cap > d->size - at)
        cap = (size_t)(d->size - at);
    if (d->fd < 0) {
        memcpy(to, d->bytes + at, cap);
        return (ptrdiff_t)cap;
    }
    do
        n = pread(d->fd, to, cap, (off_t)at);
    while (n < 0 && errno == EINTR);
    return n == 0 ? -1 : n; /* a file that is shorter than it was */
}

int lonely_delivery_fd(const struct lonely_delivery *d)
{
    return d->fd;
}

/* ---- Arriving ones ---- */

struct incoming {
    struct lonely_client *client;
    EVP_MD_CTX *hash;
    uint64_t size;
    uint64_t announced; /* that it is to become */
    uint64_t told;      /* of that, to handlers */
    uint64_t threshold; /* beyond it to a file */
    struct buf memory;  /* what is not in the file */
    int fd;
    uint64_t in_file;
    bool failed;
    size_t topic_len;
    uint8_t topic[];
};

#define FILE_CHUNK_BYTES ((size_t)256 * 1024)

/* How much may lie in memory: less when others hold the client's budget. */
static uint64_t threshold_of(struct lonely_client *c)
{
    uint64_t threshold = client_scheme_is_http(c->conf.broadcasters[0].scheme)
                             ? c->conf.message_body_spool_size
                             : c->conf.max_websocket_message_size;
    bool full;

    uv_mutex_lock(&c->lock);
    full = c->queued_bytes >= c->conf.max_received_bytes;
    uv_mutex_unlock(&c->lock);
    return full && threshold > DELIVERY_INLINE_BYTES ? DELIVERY_INLINE_BYTES : threshold;
}

struct incoming *incoming_begin(struct lonely_client *c, struct lonely_span topic, uint64_t size)
{
    struct incoming *in = mem_try_calloc(1, sizeof(*in) + topic.len);

    if (in == NULL)
        return NULL;
    in->hash = EVP_MD_CTX_new();
    if (in->hash == NULL || EVP_DigestInit_ex(in->hash, EVP_sha512(), NULL) != 1) {
        EVP_MD_CTX_free(in->hash);
        mem_free(in);
        return NULL;
    }
    in->client = c;
    in->announced = size;
    in->fd = -1;
    in->threshold = threshold_of(c);
    if (size >= in->threshold && size > DELIVERY_INLINE_BYTES)
        in->threshold = 0; /* to the file at once */
    buf_init(&in->memory, SIZE_MAX / 2);
    in->topic_len = topic.len;
    if (topic.len > 0)
        memcpy(in->topic, topic.ptr, topic.len);
    return in;
}

static bool flush_to_file(struct incoming *in)
{
    const uint8_t *at = in->memory.ptr;
    size_t left = in->memory.len;

    if (in->fd < 0)
        in->fd = fd_open_unnamed(in->client->conf.spool_dir);
    while (left > 0 && in->fd >= 0) {
        ssize_t n = pwrite(in->fd, at, left, (off_t)in->in_file);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        left -= (size_t)n;
        in->in_file += (uint64_t)n;
    }
    buf_clear(&in->memory);
    return in->fd >= 0;
}

static void tell_arriving(struct incoming *in, uint64_t received)
{
    in->told = received;
    handlers_tell_arriving(in->client, (struct lonely_span){ in->topic, in->topic_len }, received,
                           in->announced);
}

bool incoming_add(struct incoming *in, struct lonely_span bytes)
{
    if (in->failed)
        return false;
    in->size += bytes.len;
    in->failed = EVP_DigestUpdate(in->hash, bytes.ptr, bytes.len) != 1 ||
                 !buf_append(&in->memory, bytes.ptr, bytes.len) ||
                 (in->size > in->threshold && in->size > DELIVERY_INLINE_BYTES &&
                  in->memory.len >= FILE_CHUNK_BYTES && !flush_to_file(in));
    if (!in->failed && in->size - in->told >= FILE_CHUNK_BYTES)
        tell_arriving(in, in->size);
    return !in->failed;
}

uint64_t incoming_size(const struct incoming *in)
{
    return in->size;
}

void incoming_abort(struct incoming *in)
{
    if (in == NULL)
        return;
    if (in->told > 0)
        tell_arriving(in, 0);
    if (in->fd >= 0)
        close(in->fd);
    EVP_MD_CTX_free(in->hash);
    buf_fini(&in->memory);
    mem_free(in);
}

static struct lonely_delivery *finish_in_file(struct incoming *in, struct lonely_span topic,
                                              const uint8_t sha512[LONELY_SHA512_BYTES])
{
    struct lonely_delivery *d = delivery_alloc(in->client, topic, 0);

    if (d == NULL || !flush_to_file(in)) {
        lonely_delivery_release(d);
        return NULL;
    }
    memcpy(d->sha512, sha512, sizeof(d->sha512));
    d->size = in->size;
    d->fd = in->fd;
    in->fd = -1;
    return d;
}

struct lonely_delivery *incoming_finish(struct incoming *in)
{
    struct lonely_span topic = { in->topic, in->topic_len };
    struct lonely_delivery *d = NULL;
    uint8_t sha512[LONELY_SHA512_BYTES];

    if (!in->failed && EVP_DigestFinal_ex(in->hash, sha512, NULL) == 1) {
        if (in->fd >= 0 || (in->size > in->threshold && in->size > DELIVERY_INLINE_BYTES))
            d = finish_in_file(in, topic, sha512);
        else
            d = delivery_create(in->client, topic,
                                (struct lonely_span){ in->memory.ptr, in->memory.len }, sha512);
    }
    if (d != NULL && in->told > 0 && in->told < in->size)
        tell_arriving(in, in->size);
    if (d != NULL)
        in->told = 0; /* it has come */
    incoming_abort(in);
    return d;
}
