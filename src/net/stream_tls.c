/*
 * TLS between a plain stream (stream_tcp.c) and its user (stream_tls.h). OpenSSL reads and writes
 * through a BIO of our own: it reads from the bytes that have just come, which are decrypted whole
 * before anything else happens, and writes into memory that all streams of the loop share, which is
 * sent before the call ends. Only what the socket did not take is kept with the stream: at most
 * CHUNK bytes of data and what TLS adds, or a handshake's flight.
 *
 * A record that has been made cannot be unmade, yet stream_try_send may not count what has not left.
 * So when the socket stops within a record the last byte is not counted (`owed`): the user comes
 * back with it by stream_send, which skips it and ends when all has left.
 */
#include "stream_tls.h"

#include <assert.h>
#include <openssl/err.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "list.h"
#include "mem.h"

#define RECORD      16384                /* bytes of data in a record, at most */
#define CHUNK       ((size_t)4 * RECORD) /* encrypted before the socket is asked */
#define CHUNKS_TURN 16                   /* of one stream; then the others have their turn */
#define PLAIN_MAX   (sizeof(struct stream_buffer) + 2 * RECORD) /* what came, and a record begun */
#define OUT_MAX     (512u << 10) /* a chunk, or the certificates of a handshake */
#define LATE_MAX    4096         /* answers to key updates; more: the peer floods */

struct tls_loop {
    uv_loop_t *loop;
    struct log *log;
    BIO_METHOD *method;
    uv_idle_t idle;    /* runs while `ready` has members */
    struct list ready; /* stream_tls.ready_node: something to tell outside of the user's calls */
    size_t streams;
    bool closing, idle_closed;
    void (*on_closed)(void *arg);
    void *closed_arg;
    struct buf out; /* encrypted bytes of the call that is running; empty between calls */
    uint8_t plain[PLAIN_MAX];
    uint8_t gather[RECORD]; /* small parts become one record */
};

/* Where we are in an array of parts. */
struct cursor {
    const struct lonely_span *parts;
    size_t count, offset; /* parts left; bytes of the first that are done */
};

/* A stream_send under way. */
struct pending {
    struct cursor at;
    struct lonely_span parts[];
};

struct stream_tls {
    struct stream stream;
    struct tls_loop *shared;
    struct stream *inner;
    SSL *ssl;
    struct list ready_node;
    struct lonely_span in;   /* of the read that is running */
    uint8_t *in_flight;      /* encrypted bytes that `inner` is sending; NULL: none */
    struct buf late;         /* encrypted bytes to send behind them */
    struct pending *pending; /* NULL: none */
    bool open;               /* the handshake is done */
    bool reading;            /* the user wants to be told */
    bool ended;              /* the peer sends no more */
    bool broken;             /* on_lost is due, or has been told */
    bool shut, closing;      /* the user has called shutdown, close */
    bool owed;               /* the last byte was sent and not counted */
};

static struct stream_tls *of_stream(struct stream *s)
{
    return list_entry(s, struct stream_tls, stream);
}

/* ---- OpenSSL's view: a BIO on memory ---- */

static int bio_read(BIO *bio, char *to, size_t len, size_t *got)
{
    struct stream_tls *t = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    *got = len < t->in.len ? len : t->in.len;
    if (*got == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    memcpy(to, t->in.ptr, *got);
    t->in.ptr += *got;
    t->in.len -= *got;
    return 1;
}

static int bio_write(BIO *bio, const char *bytes, size_t len, size_t *written)
{
    struct stream_tls *t = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    *written = len;
    return buf_append(t->in_flight != NULL ? &t->late : &t->shared->out, bytes, len);
}

static long bio_ctrl(BIO *bio, int command, long number, void *arg)
{
    (void)bio;
    (void)number;
    (void)arg;
    return command == BIO_CTRL_FLUSH; /* we flush when OpenSSL has returned */
}

static BIO_METHOD *make_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");

    if (m != NULL && BIO_meth_set_read_ex(m, bio_read) == 1 &&
        BIO_meth_set_write_ex(m, bio_write) == 1 && BIO_meth_set_ctrl(m, bio_ctrl) == 1)
        return m;
    BIO_meth_free(m);
    return NULL;
}

/* ---- Telling the user ---- */

static void pump(struct stream_tls *t);

static bool is_sent(const struct stream_tls *t)
{
    return t->pending != NULL && t->pending->at.count == 0 && t->in_flight == NULL;
}

/* Tells what is due; never inside a call of the user. One thing at a time may end the stream. */
static void tell(struct stream_tls *t)
{
    struct stream *s = &t->stream;

    if (t->broken) {
        s->events->on_lost(s->arg);
        return;
    }
    if (is_sent(t)) {
        mem_free(t->pending);
        t->pending = NULL;
        s->events->on_sent(s->arg);
    }
    if (t->ended && t->reading && !t->closing) {
        t->reading = false;
        s->events->on_end(s->arg);
    }
}

static void on_idle(uv_idle_t *idle)
{
    struct tls_loop *shared = idle->data;
    struct list turn;

    list_init(&turn);
    list_move_all(&turn, &shared->ready);
    while (!list_is_empty(&turn)) {
        struct stream_tls *t = list_entry(list_pop_front(&turn), struct stream_tls, ready_node);

        pump(t);
        tell(t);
    }
    if (list_is_empty(&shared->ready) && !shared->closing)
        (void)uv_idle_stop(&shared->idle);
}

static void schedule(struct stream_tls *t)
{
    if (t->shared->closing || t->closing || list_is_linked(&t->ready_node))
        return;
    list_push_back(&t->shared->ready, &t->ready_node);
    (void)uv_idle_start(&t->shared->idle, on_idle);
}

/* ---- Sending ---- */

/* Sends what OpenSSL has written in this call; what the socket does not take stays in flight. */
static void flush(struct stream_tls *t)
{
    struct buf *out = &t->shared->out;
    struct lonely_span bytes = { out->ptr, out->len };
    ptrdiff_t sent;

    if (bytes.len == 0)
        return;
    sent = stream_try_send(t->inner, &bytes, 1);
    if (sent == STREAM_LOST) {
        t->broken = true;
    } else if ((size_t)sent < bytes.len) {
        bytes.len -= (size_t)sent;
        t->in_flight = mem_dup(bytes.ptr + sent, bytes.len);
        bytes.ptr = t->in_flight;
        stream_send(t->inner, &bytes, 1);
    }
    buf_clear(out);
}

/* Moves on by `n` bytes, which the current part has, and over parts that are done or empty. */
static void cursor_advance(struct cursor *c, size_t n)
{
    c->offset += n;
    while (c->count > 0 && c->offset == c->parts->len) {
        c->parts++;
        c->count--;
        c->offset = 0;
    }
}

static struct cursor cursor_of(const struct lonely_span *parts, size_t count)
{
    struct cursor c = { parts, count < STREAM_PARTS_MAX ? count : STREAM_PARTS_MAX, 0 };

    cursor_advance(&c, 0);
    return c;
}

/* The data of the next record; empty at the end. */
static struct lonely_span next_record(struct tls_loop *shared, struct cursor *c)
{
    struct lonely_span piece = { 0 };
    size_t left;

    if (c->count == 0)
        return piece;
    left = c->parts->len - c->offset;
    if (left >= RECORD || c->count == 1) {
        piece.ptr = c->parts->ptr + c->offset;
        piece.len = left < RECORD ? left : RECORD;
        cursor_advance(c, piece.len);
        return piece;
    }
    piece.ptr = shared->gather;
    while (c->count > 0 && piece.len < RECORD) {
        size_t room = RECORD - piece.len, n = c->parts->len - c->offset;

        n = n < room ? n : room;
        memcpy(shared->gather + piece.len, c->parts->ptr + c->offset, n);
        piece.len += n;
        cursor_advance(c, n);
    }
    return piece;
}

/* Encrypts and sends up to a chunk. Returns how many bytes of data it was. */
static size_t send_chunk(struct stream_tls *t, struct cursor *c)
{
    struct lonely_span piece;
    size_t done = 0, n;

    ERR_clear_error();
    while (done < CHUNK && (piece = next_record(t->shared, c)).len > 0) {
        if (SSL_write_ex(t->ssl, piece.ptr, piece.len, &n) != 1) {
            t->broken = true;
            ERR_clear_error();
            break;
        }
        done += n;
    }
    flush(t);
    return done;
}

static size_t skip_owed(struct stream_tls *t, struct cursor *c)
{
    if (!t->owed || c->count == 0)
        return 0;
    t->owed = false;
    cursor_advance(c, 1);
    return 1;
}

static ptrdiff_t tls_try_send(struct stream *s, const struct lonely_span *parts, size_t count)
{
    struct stream_tls *t = of_stream(s);
    struct cursor c = cursor_of(parts, count);
    size_t taken;

    if (!t->open || t->in_flight != NULL || t->pending != NULL)
        return t->broken ? STREAM_LOST : 0;
    taken = skip_owed(t, &c);
    while (!t->broken && t->in_flight == NULL && c.count > 0)
        taken += send_chunk(t, &c);
    if (t->broken) {
        schedule(t); /* for a user that reads on */
        return STREAM_LOST;
    }
    t->owed = t->in_flight != NULL;
    return (ptrdiff_t)(taken - t->owed);
}

/* Goes on with a stream_send, if there is one, as far as the socket and fairness allow. */
static void pump(struct stream_tls *t)
{
    for (int i = 0; i < CHUNKS_TURN; i++) {
        if (t->pending == NULL || t->pending->at.count == 0)
            return;
        if (!t->open || t->broken || t->in_flight != NULL)
            return;
        (void)send_chunk(t, &t->pending->at);
    }
    schedule(t);
}

static void tls_send(struct stream *s, const struct lonely_span *parts, size_t count)
{
    struct stream_tls *t = of_stream(s);
    struct pending *p = mem_alloc(sizeof(*p) + count * sizeof(*parts));

    memcpy(p->parts, parts, count * sizeof(*parts));
    p->at = cursor_of(p->parts, count);
    (void)skip_owed(t, &p->at);
    t->pending = p;
    pump(t);
    if (t->broken || is_sent(t))
        schedule(t);
}

static void send_close_notify(struct stream_tls *t)
{
    if (!t->open || t->broken || t->shut)
        return;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
    flush(t);
}

static void tls_shutdown(struct stream *s)
{
    struct stream_tls *t = of_stream(s);

    send_close_notify(t);
    t->shut = true;
    if (t->in_flight == NULL)
        stream_shutdown(t->inner);
}

static void on_inner_sent(void *arg)
{
    struct stream_tls *t = arg;

    mem_free(t->in_flight);
    t->in_flight = NULL;
    if (t->late.len > 0) {
        struct lonely_span bytes = { NULL, 0 };

        t->in_flight = buf_detach(&t->late, &bytes.len);
        bytes.ptr = t->in_flight;
        stream_send(t->inner, &bytes, 1);
        return;
    }
    if (t->shut)
        stream_shutdown(t->inner);
    pump(t);
    tell(t);
}

/* ---- Receiving ---- */

static void log_failure(const struct stream_tls *t)
{
    if (!t->open)
        log_debug(t->shared->log, "tls_handshake_failed", LOG_STR("error", tls_reason()), LOG_END);
}

/* Decrypts all that has come; how many bytes of data are in `plain` now. */
static size_t decrypt(struct stream_tls *t)
{
    struct tls_loop *shared = t->shared;
    size_t len = 0, n;
    int error = SSL_ERROR_SSL; /* of a peer that packs more than can be */

    ERR_clear_error();
    while (len < PLAIN_MAX) {
        if (SSL_read_ex(t->ssl, shared->plain + len, PLAIN_MAX - len, &n) == 1) {
            len += n;
            continue;
        }
        error = SSL_get_error(t->ssl, 0);
        break;
    }
    if (error == SSL_ERROR_ZERO_RETURN) {
        t->ended = true;
    } else if (error != SSL_ERROR_WANT_READ) {
        t->broken = true;
        log_failure(t);
        ERR_clear_error();
    }
    return len;
}

/* After a failure too: an alert tells the peer what is wrong. */
static void on_inner_read(void *arg, struct lonely_span bytes)
{
    struct stream_tls *t = arg;
    struct stream *s = &t->stream;
    size_t len = 0;

    if (!t->broken && !t->ended) {
        t->in = bytes;
        len = decrypt(t);
        t->in = (struct lonely_span){ 0 };
        flush(t);
    }
    if (!t->open && !t->broken && SSL_is_init_finished(t->ssl)) {
        t->open = true;
        if (s->events->on_open != NULL)
            s->events->on_open(s->arg);
        if (!t->closing)
            pump(t);
    }
    if (t->ended && !t->closing)
        stream_read_stop(t->inner); /* what comes behind a close_notify is nobody's */
    if (len > 0 && !t->closing)
        s->events->on_read(s->arg, (struct lonely_span){ t->shared->plain, len });
    if (!t->closing)
        tell(t);
}

static void on_inner_end(void *arg)
{
    struct stream_tls *t = arg;

    t->ended = true;
    if (!t->open || SSL_has_pending(t->ssl) == 1)
        t->broken = true;
    tell(t);
}

static void on_inner_lost(void *arg)
{
    struct stream_tls *t = arg;

    t->broken = true;
    tell(t);
}

static void tls_read_start(struct stream *s)
{
    struct stream_tls *t = of_stream(s);

    t->reading = true;
    if (t->broken || t->ended)
        schedule(t);
    else
        stream_read_start(t->inner);
}

static void tls_read_stop(struct stream *s)
{
    struct stream_tls *t = of_stream(s);

    t->reading = false;
    stream_read_stop(t->inner);
}

/* ---- The end ---- */

static void check_closed(struct tls_loop *shared)
{
    void (*on_closed)(void *arg) = shared->on_closed;
    void *arg = shared->closed_arg;

    if (!shared->idle_closed || shared->streams > 0)
        return;
    BIO_meth_free(shared->method);
    buf_fini(&shared->out);
    mem_free(shared);
    on_closed(arg);
}

static void on_inner_closed(void *arg)
{
    struct stream_tls *t = arg;
    struct tls_loop *shared = t->shared;

    SSL_free(t->ssl);
    mem_free(t->in_flight);
    buf_fini(&t->late);
    mem_free(t->pending);
    t->stream.events->on_closed(t->stream.arg);
    stream_gone(&t->stream);
    mem_free(t);
    shared->streams--;
    check_closed(shared);
}

static void tls_close(struct stream *s)
{
    struct stream_tls *t = of_stream(s);

    if (t->in_flight == NULL && t->pending == NULL && !t->owed)
        send_close_notify(t);
    t->closing = true;
    list_remove(&t->ready_node);
    stream_close(t->inner);
}

static const struct stream_ops tls_ops = {
    .read_start = tls_read_start,
    .read_stop = tls_read_stop,
    .try_send = tls_try_send,
    .send = tls_send,
    .shutdown = tls_shutdown,
    .close = tls_close,
    .is_tls = true,
};

static const struct stream_events inner_events = {
    .on_read = on_inner_read,
    .on_end = on_inner_end,
    .on_sent = on_inner_sent,
    .on_lost = on_inner_lost,
    .on_closed = on_inner_closed,
};

static struct stream_tls *make(struct tls_loop *shared, struct tls_server *server)
{
    struct stream_tls *t = mem_try_calloc(1, sizeof(*t));
    SSL *ssl = t == NULL ? NULL : tls_server_connection(server);
    BIO *bio = ssl == NULL ? NULL : BIO_new(shared->method);

    if (bio == NULL) {
        ERR_clear_error();
        SSL_free(ssl);
        mem_free(t);
        return NULL;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    t->shared = shared;
    t->ssl = ssl;
    list_init(&t->ready_node);
    buf_init(&t->late, LATE_MAX);
    return t;
}

struct stream *stream_tls_open(struct tls_loop *shared, struct tls_server *server, int fd,
                               struct stream_buffer *buffer, const struct stream_events *events,
                               void *arg)
{
    struct stream_tls *t = make(shared, server);

    if (t == NULL) {
        close(fd);
        return NULL;
    }
    t->stream = (struct stream){ .ops = &tls_ops, .events = events, .arg = arg };
    t->inner = stream_tcp_open(shared->loop, fd, buffer, &inner_events, t);
    if (t->inner == NULL) {
        SSL_free(t->ssl);
        mem_free(t);
        return NULL;
    }
    shared->streams++;
    return &t->stream;
}

struct tls_loop *tls_loop_create(uv_loop_t *loop, struct log *log)
{
    struct tls_loop *shared = mem_calloc(1, sizeof(*shared));

    shared->loop = loop;
    shared->log = log;
    shared->method = make_method();
    if (shared->method == NULL)
        abort(); /* no memory */
    list_init(&shared->ready);
    buf_init(&shared->out, OUT_MAX);
    (void)uv_idle_init(loop, &shared->idle);
    shared->idle.data = shared;
    return shared;
}

static void on_idle_closed(uv_handle_t *handle)
{
    struct tls_loop *shared = handle->data;

    shared->idle_closed = true;
    check_closed(shared);
}

void tls_loop_close(struct tls_loop *shared, void (*on_closed)(void *arg), void *arg)
{
    shared->closing = true;
    shared->on_closed = on_closed;
    shared->closed_arg = arg;
    uv_close((uv_handle_t *)&shared->idle, on_idle_closed);
}
