/*
 * The payload of a transmission from a descriptor: read one piece ahead of the socket; on the loop
 * what a file has in memory, in the thread pool what has to be waited for. outgoing.c takes the pieces.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <unistd.h>

#include "conn_private.h"
#include "mem.h"

#define PIECE_BYTES    (256u * 1024)
#define CANCEL_POLL_MS 100 /* so long a pipe without input holds a thread after the end */

struct piece {
    uint8_t *ptr;
    size_t at, len; /* at == len: free */
};

struct source {
    uv_work_t work;
    struct tinyproto_conn *conn;
    int fd;
    int64_t offset; /* -1: from where the descriptor is */
    uint64_t left;  /* to be read */
    struct piece pieces[2];
    unsigned filling, sending; /* which */
    bool is_reading;
    atomic_bool is_cancelled;
    ssize_t result; /* of the last read: bytes, 0 at the end, or -errno */
};

struct source *source_create(struct tinyproto_conn *c, int fd, int64_t offset, uint64_t size)
{
    struct source *s = mem_try_calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    s->work.data = s;
    s->conn = c;
    s->fd = fd;
    s->offset = offset < 0 ? -1 : offset;
    s->left = size;
    atomic_init(&s->is_cancelled, false);
    return s;
}

void source_destroy(struct source *s)
{
    if (s == NULL)
        return;
    mem_free(s->pieces[0].ptr);
    mem_free(s->pieces[1].ptr);
    mem_free(s);
}

/* Waits for a pipe or socket, but not for ever. */
static ssize_t read_stream(struct source *s, uint8_t *ptr, size_t len)
{
    struct pollfd pfd = { .fd = s->fd, .events = POLLIN };

    while (!atomic_load(&s->is_cancelled)) {
        int n = poll(&pfd, 1, CANCEL_POLL_MS);
        ssize_t got;

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n <= 0)
            continue;
        got = read(s->fd, ptr, len);
        if (got >= 0)
            return got;
        if (errno != EINTR && errno != EAGAIN)
            return -errno;
    }
    return -ECANCELED;
}

static ssize_t read_file(const struct source *s, uint8_t *ptr, size_t len, int64_t offset)
{
    ssize_t n;

    do {
        n = pread(s->fd, ptr, len, offset);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* In a thread of the pool. */
static void on_work(uv_work_t *work)
{
    struct source *s = work->data;
    struct piece *p = &s->pieces[s->filling];
    size_t want = s->left < PIECE_BYTES ? (size_t)s->left : PIECE_BYTES, len = 0;
    ssize_t n = 1;

    while (len < want && n > 0) {
        if (s->offset < 0)
            n = read_stream(s, p->ptr + len, want - len);
        else
            n = read_file(s, p->ptr + len, want - len, s->offset + (int64_t)len);
        if (n > 0)
            len += (size_t)n;
        if (s->offset < 0)
            break; /* what a pipe has goes on its way */
    }
    s->result = len > 0 ? (ssize_t)len : n;
}

static void fill(struct source *s);

/* The piece being filled has its bytes. */
static void filled(struct source *s, size_t len)
{
    s->pieces[s->filling].at = 0;
    s->pieces[s->filling].len = len;
    s->filling ^= 1;
    s->left -= len;
    if (s->offset >= 0)
        s->offset += (int64_t)len;
}

static void on_worked(uv_work_t *work, int status)
{
    struct source *s = work->data;
    struct tinyproto_conn *c = s->conn;

    s->is_reading = false;
    c->pending--;
    if (!conn_is_alive(c)) {
        endpoint_mark(c->owner, &c->dirty); /* it waits for this only */
        return;
    }
    if (status < 0 || s->result < 0) {
        conn_end(c, TINYPROTO_E_SYSTEM, status < 0 ? -status : (int)-s->result);
        return;
    }
    if (s->result == 0) {
        conn_end(c, TINYPROTO_E_SOURCE, 0);
        return;
    }
    filled(s, (size_t)s->result);
    fill(s);
    conn_service(c, false);
}

/* From memory, without waiting for a disk: spares two trips between threads a piece. */
static bool fill_cached(struct source *s, struct piece *p)
{
    struct iovec iov = { .iov_base = p->ptr,
                         .iov_len = s->left < PIECE_BYTES ? (size_t)s->left : PIECE_BYTES };
    ssize_t n = s->offset >= 0 ? preadv2(s->fd, &iov, 1, s->offset, RWF_NOWAIT) : -1;

    if (n <= 0)
        return false; /* also the end and errors: the pool tells them */
    filled(s, (size_t)n);
    return true;
}

/* Reads the next pieces, if there are any and room for them. */
static void fill(struct source *s)
{
    struct tinyproto_conn *c = s->conn;

    while (!s->is_reading && s->left > 0 && conn_is_alive(c)) {
        struct piece *p = &s->pieces[s->filling];

        if (p->at < p->len)
            return;
        if (p->ptr == NULL)
            p->ptr = mem_try_alloc(s->left < PIECE_BYTES ? (size_t)s->left : PIECE_BYTES);
        if (p->ptr != NULL && fill_cached(s, p))
            continue;
        if (p->ptr == NULL || uv_queue_work(c->owner->loop, &s->work, on_work, on_worked) != 0) {
            conn_end(c, TINYPROTO_E_MEMORY, 0);
            return;
        }
        s->is_reading = true;
        c->pending++;
    }
}

void source_start(struct source *s)
{
    fill(s);
}

void source_cancel(struct source *s)
{
    atomic_store(&s->is_cancelled, true);
}

size_t source_peek(const struct source *s, const uint8_t **ptr)
{
    const struct piece *p = &s->pieces[s->sending];

    if (p->at == p->len)
        return 0;
    *ptr = p->ptr + p->at;
    return p->len - p->at;
}

void source_consume(struct source *s, size_t n)
{
    struct piece *p = &s->pieces[s->sending];

    p->at += n;
    if (p->at < p->len)
        return;
    s->sending ^= 1;
    fill(s);
}
