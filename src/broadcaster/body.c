/*
 * Message bodies: memory, or an unlinked file written in the thread pool. Called by whatever takes
 * a message in (routes, sessions) and by the deliveries that send it. When to stop reading from a
 * peer, and what to answer it, is left to them.
 *
 * A writer begins in memory, whatever the peer announced, unless that is more than spool_size; it
 * moves to a file when the bytes that came, or the memory of all bodies, say so. In a file it has
 * two chunks at most: one fills while the pool hashes and writes the other. When the chunks of a
 * lane take more than they may, each goes to the pool whatever is in it, is freed afterwards, and
 * no writer is asked for more before there is room: so slow peers do not keep memory from others.
 */
#include "body.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "buf.h"
#include "fd.h"
#include "list.h"
#include "mem.h"

enum {
    CHUNK_BYTES = 262144,
    PIECE_BYTES = 65536,         /* what a writer is given at once, most often */
    INLINE_HASH_BYTES = 65536,   /* hashed at once: about 0.1 ms */
    SLOW_CLOSE_BYTES = 16777216, /* files from here on are closed by a thread */
    FIRST_BYTES = 4096,          /* a buffer that has to grow starts here */
    CACHE_SAMPLE_BYTES = 32768,  /* the page cache fills, and empties, in runs */
    SHA512_BYTES = 64
};

struct bodies {
    char *spool_dir;
    uint64_t spool_size;
    uint64_t max_memory;
    atomic_uint_fast64_t memory;
    atomic_uint_fast64_t alive; /* bodies and writers: destroy asserts that there are none */
    EVP_MD *sha512;             /* fetched once: a fetch takes locks */
};

struct body {
    struct bodies *bodies;
    atomic_uint refs;
    int fd; /* -1: in memory */
    uint64_t size;
    uint8_t *ptr;
    size_t cap; /* of ptr, charged to bodies->memory */
    uint8_t sha512[SHA512_BYTES];
    uint8_t own[]; /* of body_create: ptr is here */
};

struct body_lane {
    struct bodies *bodies;
    uv_loop_t *loop;
    uint64_t used, max;  /* memory of chunks */
    struct list writers; /* that write to files */
    struct list waiting; /* those that were told to wait for others */
    bool waking;
};

/* While `working`, `busy`, the body's memory and file, `hash` and `pool_err` are the pool's. */
struct body_writer {
    struct body_lane *lane;
    struct list of_lane, of_waiting;
    uv_work_t work;
    struct body *body;
    uint64_t expected;
    EVP_MD_CTX *hash;
    struct buf fill, busy;
    size_t memory_len; /* bytes in the body's memory, not yet in the file */
    uint64_t written;  /* bytes of the file */
    enum body_error err;
    enum body_error pool_err;
    bool spooled; /* what comes goes to the file */
    bool working;
    bool hashed; /* the hash has seen a body in memory */
    bool aborted;
    bool finishing;
    void (*on_ready)(void *arg); /* NULL: nobody waits */
    void *ready_arg;
    body_done_fn *done;
    void *done_arg;
};

/* ---- files ---- */

static enum body_error error_of(int err)
{
    if (err == EMFILE || err == ENFILE) /* other bodies will give some back */
        return BODY_BUSY;
    return err == ENOSPC || err == EDQUOT || err == EFBIG ? BODY_NO_ROOM : BODY_IO;
}

static bool write_all(int fd, uint64_t at, const uint8_t *ptr, size_t len)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, ptr, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (n == 0)
                errno = ENOSPC;
            return false;
        }
        ptr += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

ptrdiff_t body_pread(const struct body *b, uint64_t at, uint8_t *to, size_t len)
{
    size_t got = 0;

    if (at >= b->size)
        return 0;
    if (len > b->size - at)
        len = (size_t)(b->size - at);
    while (got < len) {
        ssize_t n = pread(b->fd, to + got, len - got, (off_t)(at + got));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* a file that became shorter is an error, too */
            return -1;
        got += (size_t)n;
    }
    return (ptrdiff_t)got;
}

int body_fd(const struct body *b)
{
    return b->fd;
}

static bool byte_is_cached(int fd, uint64_t at)
{
    uint8_t byte;
    struct iovec to = { .iov_base = &byte, .iov_len = 1 };

    return preadv2(fd, &to, 1, (off_t)at, RWF_NOWAIT) == 1;
}

bool body_is_cached(const struct body *b, uint64_t at, size_t len)
{
    if (at >= b->size || len == 0)
        return false;
    if (len > b->size - at)
        len = (size_t)(b->size - at);
    for (size_t n = 0; n < len; n += CACHE_SAMPLE_BYTES)
        if (!byte_is_cached(b->fd, at + n))
            return false;
    return byte_is_cached(b->fd, at + len - 1);
}

/* ---- all bodies ---- */

struct bodies *bodies_create(const struct bodies_conf *conf, char error[256])
{
    struct bodies *bodies;
    int fd;

    if (mkdir(conf->spool_dir, 0700) != 0 && errno != EEXIST) {
        snprintf(error, 256, "spool_dir %.150s cannot be made: %s", conf->spool_dir,
                 strerror(errno));
        return NULL;
    }
    fd = fd_open_unnamed(conf->spool_dir);
    if (fd < 0) {
        snprintf(error, 256, "spool_dir %.150s cannot be written: %s", conf->spool_dir,
                 strerror(errno));
        return NULL;
    }
    close(fd);
    bodies = mem_calloc(1, sizeof *bodies);
    bodies->sha512 = EVP_MD_fetch(NULL, "SHA512", NULL);
    if (bodies->sha512 == NULL) {
        snprintf(error, 256, "OpenSSL has no SHA-512");
        mem_free(bodies);
        return NULL;
    }
    bodies->spool_dir = mem_strdup(conf->spool_dir);
    bodies->spool_size = conf->spool_size;
    bodies->max_memory = conf->max_memory;
    return bodies;
}

void bodies_destroy(struct bodies *bodies)
{
    if (bodies == NULL)
        return;
    assert(atomic_load(&bodies->alive) == 0);
    EVP_MD_free(bodies->sha512);
    mem_free(bodies->spool_dir);
    mem_free(bodies);
}

bool bodies_can_spool(const struct bodies *bodies)
{
    static const uint8_t block[4096];
    int fd = fd_open_unnamed(bodies->spool_dir);
    bool can =
        fd >= 0 && write_all(fd, 0, block, sizeof block); /* a full disk has room for a file */

    if (fd >= 0)
        close(fd);
    return can;
}

uint64_t bodies_memory(const struct bodies *bodies)
{
    return atomic_load_explicit(&bodies->memory, memory_order_relaxed);
}

/* Takes `n` bytes out of the common budget, or none. */
static bool charge(struct bodies *bodies, uint64_t n)
{
    uint_fast64_t now = atomic_load_explicit(&bodies->memory, memory_order_relaxed);

    do {
        if (n > bodies->max_memory || now > bodies->max_memory - n)
            return false;
    } while (!atomic_compare_exchange_weak(&bodies->memory, &now, now + n));
    return true;
}

static void refund(struct bodies *bodies, uint64_t n)
{
    atomic_fetch_sub(&bodies->memory, n);
}

/* ---- one body ---- */

void body_ref(struct body *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
}

static void *close_in_thread(void *arg)
{
    close((int)(intptr_t)arg);
    return NULL;
}

/* The last close of an unlinked file frees its blocks: 55 ms a GiB, too long for a loop, and here
 * is no loop that could ask the pool. */
static void close_file(int fd, uint64_t size)
{
    pthread_attr_t attr;
    pthread_t thread;
    bool closes = false;

    if (size >= SLOW_CLOSE_BYTES && pthread_attr_init(&attr) == 0) {
        closes = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED) == 0 &&
                 pthread_create(&thread, &attr, close_in_thread, (void *)(intptr_t)fd) == 0;
        pthread_attr_destroy(&attr);
    }
    if (!closes)
        close(fd);
}

static void body_drop_memory(struct body *b)
{
    if (b->ptr != b->own)
        mem_free(b->ptr);
    refund(b->bodies, b->cap);
    b->ptr = NULL;
    b->cap = 0;
}

void body_unref(struct body *b)
{
    if (b == NULL || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    body_drop_memory(b);
    if (b->fd >= 0)
        close_file(b->fd, b->size);
    atomic_fetch_sub(&b->bodies->alive, 1);
    mem_free(b);
}

struct body *body_create(struct bodies *bodies, struct lonely_span bytes,
                         const uint8_t sha512[SHA512_BYTES])
{
    struct body *b;

    if (bytes.len > bodies->spool_size || !charge(bodies, bytes.len))
        return NULL;
    b = mem_try_alloc(sizeof *b + bytes.len);
    if (b == NULL) {
        refund(bodies, bytes.len);
        return NULL;
    }
    *b = (struct body){ .bodies = bodies, .fd = -1, .size = bytes.len, .cap = bytes.len };
    atomic_init(&b->refs, 1);
    b->ptr = b->own;
    if (bytes.len > 0)
        memcpy(b->own, bytes.ptr, bytes.len);
    memcpy(b->sha512, sha512, SHA512_BYTES);
    atomic_fetch_add(&bodies->alive, 1);
    return b;
}

uint64_t body_size(const struct body *b)
{
    return b->size;
}

const uint8_t *body_sha512(const struct body *b)
{
    return b->sha512;
}

bool body_in_memory(const struct body *b)
{
    return b->fd < 0;
}

struct lonely_span body_span(const struct body *b)
{
    return (struct lonely_span){ b->ptr, (size_t)b->size };
}

/* ---- in the pool ---- */

static void pool_spool(struct body_writer *w, const uint8_t *ptr, size_t len)
{
    if (w->pool_err != BODY_OK || len == 0)
        return;
    if (EVP_DigestUpdate(w->hash, ptr, len) != 1)
        w->pool_err = BODY_IO;
    else if (!write_all(w->body->fd, w->written, ptr, len))
        w->pool_err = error_of(errno);
    else
        w->written += len;
}

/* A whole body in memory is hashed; else what is in memory goes to the file first. */
static void on_work(uv_work_t *work)
{
    struct body_writer *w = work->data;
    struct body *b = w->body;

    if (!w->spooled) {
        if (EVP_DigestUpdate(w->hash, b->ptr, w->memory_len) != 1)
            w->pool_err = BODY_IO;
        return;
    }
    if (b->fd < 0) {
        b->fd = fd_open_unnamed(b->bodies->spool_dir);
        if (b->fd < 0)
            w->pool_err = error_of(errno);
    }
    pool_spool(w, b->ptr, w->memory_len);
    body_drop_memory(b);
    pool_spool(w, w->busy.ptr, w->busy.len);
}

/* ---- lanes ---- */

struct body_lane *body_lane_create(struct bodies *bodies, uv_loop_t *loop, uint64_t max_memory)
{
    struct body_lane *lane = mem_calloc(1, sizeof *lane);

    lane->bodies = bodies;
    lane->loop = loop;
    lane->max = max_memory;
    list_init(&lane->writers);
    list_init(&lane->waiting);
    return lane;
}

void body_lane_destroy(struct body_lane *lane)
{
    assert(lane == NULL || (lane->used == 0 && list_is_empty(&lane->writers)));
    mem_free(lane);
}

uint64_t body_lane_memory(const struct body_lane *lane)
{
    return lane->used;
}

static bool lane_has_room(const struct body_lane *lane, uint64_t more)
{
    return lane->used + more < lane->max || lane->used + more == 0;
}

/* Lets as many go on as there is room for a piece of each. Their callbacks may free writers, which
 * comes here again. */
static void lane_wake(struct body_lane *lane)
{
    uint64_t awaited = 0;
    struct list *node;

    if (lane->waking)
        return;
    lane->waking = true;
    while (lane_has_room(lane, awaited) && (node = list_pop_front(&lane->waiting)) != NULL) {
        struct body_writer *w = list_entry(node, struct body_writer, of_waiting);
        void (*on_ready)(void *) = w->on_ready;

        w->on_ready = NULL;
        awaited += PIECE_BYTES;
        on_ready(w->ready_arg);
    }
    lane->waking = false;
}

/* ---- the writer ---- */

static void chunk_free(struct body_writer *w, struct buf *chunk)
{
    w->lane->used -= chunk->cap;
    buf_fini(chunk);
}

static bool chunk_append(struct body_writer *w, struct lonely_span bytes)
{
    size_t before = w->fill.cap;
    bool good = buf_append(&w->fill, bytes.ptr, bytes.len);

    w->lane->used += w->fill.cap - before;
    return good;
}

static void writer_free(struct body_writer *w)
{
    struct body_lane *lane = w->lane;

    list_remove(&w->of_lane);
    list_remove(&w->of_waiting);
    EVP_MD_CTX_free(w->hash);
    chunk_free(w, &w->fill);
    chunk_free(w, &w->busy);
    body_unref(w->body);
    mem_free(w);
    lane_wake(lane);
}

/* What is held and what still comes is dropped. */
static void writer_fail(struct body_writer *w, enum body_error err)
{
    if (w->err == BODY_OK)
        w->err = err;
    chunk_free(w, &w->fill);
    if (!w->working)
        chunk_free(w, &w->busy);
}

static void hash_begin(struct body_writer *w)
{
    w->hash = EVP_MD_CTX_new();
    if (w->hash == NULL || EVP_DigestInit_ex2(w->hash, w->lane->bodies->sha512, NULL) != 1)
        writer_fail(w, BODY_IO);
}

/* Returns memory that growing took in vain. */
static void writer_trim(struct body_writer *w)
{
    struct body *b = w->body;
    uint8_t *ptr;

    if (b->cap - w->memory_len <= w->memory_len / 4 + 64)
        return;
    ptr = mem_try_realloc(b->ptr, w->memory_len);
    if (ptr == NULL)
        return;
    refund(b->bodies, b->cap - w->memory_len);
    b->ptr = ptr;
    b->cap = w->memory_len;
}

static void writer_complete(struct body_writer *w)
{
    body_done_fn *done = w->done;
    void *arg = w->done_arg;
    struct body *b = w->body;
    enum body_error err;

    if (w->err == BODY_OK && !w->spooled && !w->hashed) {
        hash_begin(w);
        if (w->err == BODY_OK && w->memory_len > 0 &&
            EVP_DigestUpdate(w->hash, b->ptr, w->memory_len) != 1)
            writer_fail(w, BODY_IO);
    }
    if (w->err == BODY_OK && EVP_DigestFinal_ex(w->hash, b->sha512, NULL) != 1)
        writer_fail(w, BODY_IO);
    err = w->err;
    if (err == BODY_OK)
        w->body = NULL; /* its reference is the receiver's from now on */
    writer_free(w);
    done(arg, err, err == BODY_OK ? b : NULL);
}

/* No further piece fits into the chunk without its growing. */
static bool writer_is_filled(const struct body_writer *w)
{
    return w->fill.len > CHUNK_BYTES - PIECE_BYTES;
}

static bool writer_is_full(const struct body_writer *w)
{
    return w->err == BODY_OK && w->spooled &&
           ((w->working && writer_is_filled(w)) || !lane_has_room(w->lane, 0));
}

static bool writer_wants_pool(const struct body_writer *w)
{
    if (w->err != BODY_OK)
        return false;
    if (!w->spooled)
        return w->finishing && !w->hashed && w->memory_len > INLINE_HASH_BYTES;
    return writer_is_filled(w) || w->memory_len > 0 ||
           (w->fill.len > 0 && (w->finishing || !lane_has_room(w->lane, 0)));
}

static void on_worked(uv_work_t *work, int status);

/* Has the pool work on what was filled. */
static void writer_work(struct body_writer *w)
{
    struct buf filled = w->fill;
    int err;

    if (!w->spooled) {
        hash_begin(w);
        w->hashed = true;
        if (w->err != BODY_OK)
            return;
    }
    w->fill = w->busy;
    w->busy = filled;
    w->work.data = w;
    w->working = true;
    err = uv_queue_work(w->lane->loop, &w->work, on_work, on_worked);
    assert(err == 0); /* fails without a function only */
    (void)err;
}

/* Does what can be done now; may free the writer. */
static void writer_advance(struct body_writer *w)
{
    void (*on_ready)(void *) = w->on_ready;

    if (!w->working && writer_wants_pool(w))
        writer_work(w);
    if (w->finishing) {
        if (!w->working)
            writer_complete(w);
    } else if (on_ready != NULL && !list_is_linked(&w->of_waiting)) {
        if (!writer_is_full(w)) {
            w->on_ready = NULL;
            on_ready(w->ready_arg);
        } else if (!w->working) {
            list_push_back(&w->lane->waiting, &w->of_waiting);
        }
    }
}

/* There is no more room: has all chunks written that are not yet, and frees the empty ones. */
static void lane_flush(struct body_lane *lane)
{
    list_foreach (&lane->writers, node, next) {
        struct body_writer *w = list_entry(node, struct body_writer, of_lane);

        if (w->working)
            continue;
        chunk_free(w, &w->busy);
        if (writer_wants_pool(w))
            writer_work(w);
        else if (w->fill.len == 0)
            chunk_free(w, &w->fill);
    }
}

static void on_worked(uv_work_t *work, int status)
{
    struct body_writer *w = work->data;
    struct body_lane *lane = w->lane;

    w->working = false;
    if (w->aborted) {
        writer_free(w);
        return;
    }
    if (status != 0)
        writer_fail(w, BODY_IO);
    if (w->pool_err != BODY_OK)
        writer_fail(w, w->pool_err);
    if (w->spooled)
        w->memory_len = 0;
    buf_clear(&w->busy);
    if (w->busy.cap > CHUNK_BYTES ||
        !lane_has_room(lane, 0)) /* after a large piece, or for others */
        chunk_free(w, &w->busy);
    if (w->fill.len == 0 && !lane_has_room(lane, 0))
        chunk_free(w, &w->fill);
    writer_advance(w);
    lane_wake(lane);
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Room for `len` more bytes in the body's memory; false: it has to go to a file. */
static bool memory_grow(struct body_writer *w, size_t len)
{
    struct body *b = w->body;
    uint64_t need = w->memory_len + len, cap;
    uint8_t *ptr;

    if (need > b->bodies->spool_size)
        return false;
    if (need <= b->cap)
        return true;
    cap = max_size(2 * b->cap, FIRST_BYTES);
    if (w->expected >= need && cap > w->expected)
        cap = w->expected;
    if (cap > b->bodies->spool_size)
        cap = b->bodies->spool_size;
    if (cap < need)
        cap = need;
    if (!charge(b->bodies, cap - b->cap))
        return false;
    ptr = mem_try_realloc(b->ptr, (size_t)cap);
    if (ptr == NULL) {
        refund(b->bodies, cap - b->cap);
        return false;
    }
    b->ptr = ptr;
    b->cap = (size_t)cap;
    return true;
}

struct body_writer *body_writer_create(struct body_lane *lane, uint64_t expected)
{
    struct body_writer *w = mem_calloc(1, sizeof *w);

    w->lane = lane;
    list_init(&w->of_lane);
    list_init(&w->of_waiting);
    w->expected = expected;
    buf_init(&w->fill, SIZE_MAX);
    buf_init(&w->busy, SIZE_MAX);
    w->body = mem_calloc(1, sizeof *w->body);
    w->body->bodies = lane->bodies;
    w->body->fd = -1;
    atomic_init(&w->body->refs, 1);
    atomic_fetch_add(&lane->bodies->alive, 1);
    return w;
}

enum body_error body_writer_error(const struct body_writer *w)
{
    return w->err;
}

/* From now on to the file. Many that begin at once could fill the memory before the first of them
 * is written: so a second helping of it is all that they get. */
static void writer_spool(struct body_writer *w, size_t len)
{
    struct body_lane *lane = w->lane;

    w->spooled = true;
    list_push_back(&lane->writers, &w->of_lane);
    if (!lane_has_room(lane, 0) && lane->used + len > 2 * lane->max)
        writer_fail(w, BODY_BUSY);
    else
        hash_begin(w);
}

static void writer_take(struct body_writer *w, struct lonely_span bytes)
{
    struct bodies *bodies = w->lane->bodies;
    bool announced_large = w->expected != UINT64_MAX && w->expected > bodies->spool_size;

    if (!w->spooled && (announced_large || !memory_grow(w, bytes.len)))
        writer_spool(w, bytes.len);
    if (w->err == BODY_OK && w->spooled) {
        bool had_room = lane_has_room(w->lane, 0);

        if (!chunk_append(w, bytes))
            writer_fail(w, BODY_NO_ROOM);
        else if (had_room && !lane_has_room(w->lane, 0))
            lane_flush(w->lane);
    } else if (w->err == BODY_OK) {
        memcpy(w->body->ptr + w->memory_len, bytes.ptr, bytes.len);
        w->memory_len += bytes.len;
    }
    w->body->size += bytes.len;
}

enum body_add body_writer_add(struct body_writer *w, struct lonely_span bytes,
                              void (*on_ready)(void *arg), void *arg)
{
    if (w->err == BODY_OK && bytes.len > 0) {
        w->on_ready = NULL;
        list_remove(&w->of_waiting);
        writer_take(w, bytes);
        writer_advance(w);
    }
    if (w->err != BODY_OK)
        return BODY_ADD_FAILED;
    if (!writer_is_full(w))
        return BODY_ADD_MORE;
    w->on_ready = on_ready;
    w->ready_arg = arg;
    writer_advance(w); /* joins those that wait for others, if nothing of its own is under way */
    return BODY_ADD_WAIT;
}

void body_writer_finish(struct body_writer *w, body_done_fn *done, void *arg)
{
    w->finishing = true;
    w->on_ready = NULL;
    list_remove(&w->of_waiting);
    w->done = done;
    w->done_arg = arg;
    if (!w->spooled && w->memory_len > 0)
        writer_trim(w);
    writer_advance(w);
}

void body_writer_abort(struct body_writer *w)
{
    if (!w->working) {
        writer_free(w);
        return;
    }
    w->aborted = true;
    list_remove(&w->of_waiting);
    uv_cancel((uv_req_t *)&w->work); /* if it has not begun; on_worked runs in any case */
}
