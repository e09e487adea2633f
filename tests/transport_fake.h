/*
 * For tests of transports: a stream in memory, which takes as much as the test lets it, and a user
 * that writes down what it is told. Header only.
 *
 * The log: "[616263]" a frame with those bytes ("[70000 bytes]" a long one), "end 1002;" "drained;"
 * "closed;".
 */
#ifndef TESTS_TRANSPORT_FAKE_H
#define TESTS_TRANSPORT_FAKE_H

#include "http_peer.h"
#include "transport.h"

#define LOG_FRAME_MAX 300 /* bytes of a frame that are written down */

struct fake_stream {
    struct stream stream;
    uint8_t *out; /* all that was sent */
    size_t len;
    size_t takes; /* what the peer will take at once */
    struct lonely_span parts[STREAM_PARTS_MAX];
    size_t count, sends, tries;
    bool reading, sending, shut, closed, lost, unread;
};

struct user {
    uv_loop_t loop;
    struct transport_group *group;
    struct transport *t; /* NULL: closed */
    struct fake_stream fake;
    char *log;
    size_t log_len;
    uint8_t *frame;
    size_t frame_len, frame_cap;
    uint64_t frame_bytes;
    unsigned pieces, ends, drains, released;
    bool open, group_closed;
    bool close_at_end; /* with this code: */
    unsigned close_code;
    bool stop_at_piece;
    void (*at_piece)(struct user *u); /* NULL: nothing */
};

static inline void fake_keep(struct fake_stream *f, struct lonely_span bytes)
{
    f->out = realloc(f->out, f->len + bytes.len + 1);
    table_require(f->out != NULL, "memory of a stream");
    if (bytes.len > 0)
        memcpy(f->out + f->len, bytes.ptr, bytes.len);
    f->len += bytes.len;
}

static inline void fake_read_start(struct stream *s)
{
    ((struct fake_stream *)s)->reading = true;
}

static inline void fake_read_stop(struct stream *s)
{
    ((struct fake_stream *)s)->reading = false;
}

static inline ptrdiff_t fake_try_send(struct stream *s, const struct lonely_span *parts,
                                      size_t count)
{
    struct fake_stream *f = (struct fake_stream *)s;
    size_t taken = 0;

    f->tries++;
    table_require(count <= STREAM_PARTS_MAX && !f->closed && !f->shut, "a stream used rightly");
    if (f->lost)
        return STREAM_LOST;
    if (f->sending)
        return 0;
    for (size_t i = 0; i < count && f->takes > 0; i++) {
        size_t n = parts[i].len < f->takes ? parts[i].len : f->takes;

        fake_keep(f, (struct lonely_span){ parts[i].ptr, n });
        f->takes -= n;
        taken += n;
    }
    return (ptrdiff_t)taken;
}

static inline void fake_send(struct stream *s, const struct lonely_span *parts, size_t count)
{
    struct fake_stream *f = (struct fake_stream *)s;

    table_require(!f->sending && count > 0 && count <= STREAM_PARTS_MAX && !f->closed && !f->shut,
                  "a stream used rightly");
    f->sending = true;
    f->sends++;
    f->count = count;
    memcpy(f->parts, parts, count * sizeof(*parts));
}

static inline void fake_shutdown(struct stream *s)
{
    struct fake_stream *f = (struct fake_stream *)s;

    table_require(!f->sending && !f->shut, "a stream shut rightly");
    f->shut = true;
}

static inline bool fake_has_unread(struct stream *s)
{
    return ((struct fake_stream *)s)->unread;
}

static inline void fake_close(struct stream *s)
{
    struct fake_stream *f = (struct fake_stream *)s;

    table_require(!f->closed, "a stream closed once");
    f->closed = true;
}

static const struct stream_ops fake_ops = { .read_start = fake_read_start,
                                            .read_stop = fake_read_stop,
                                            .try_send = fake_try_send,
                                            .send = fake_send,
                                            .shutdown = fake_shutdown,
                                            .close = fake_close,
                                            .has_unread = fake_has_unread };

/* The peer takes what is being sent. */
static inline void fake_take(struct user *u)
{
    struct fake_stream *f = &u->fake;

    table_require(f->sending, "something being sent");
    for (size_t i = 0; i < f->count; i++)
        fake_keep(f, f->parts[i]);
    f->sending = false;
    f->stream.events->on_sent(f->stream.arg);
}

static inline void user_log(struct user *u, const char *text)
{
    size_t len = strlen(text);

    u->log = realloc(u->log, u->log_len + len + 1);
    table_require(u->log != NULL, "memory of a log");
    memcpy(u->log + u->log_len, text, len + 1);
    u->log_len += len;
}

static inline void user_log_frame(struct user *u)
{
    char text[2 * LOG_FRAME_MAX + 32];
    size_t len = 1;

    if (u->frame_len > LOG_FRAME_MAX) {
        snprintf(text, sizeof text, "[%zu bytes]", u->frame_len);
    } else {
        text[0] = '[';
        table_hex((struct lonely_span){ u->frame, u->frame_len }, text + 1);
        len = strlen(text);
        memcpy(text + len, "]", 2);
    }
    user_log(u, text);
}

static inline void user_on_piece(void *arg, const struct transport_piece *piece)
{
    struct user *u = arg;

    table_require(piece->bytes.len > 0 || piece->last, "no empty piece but at the end");
    table_require(piece->first == !u->open, "a first piece first");
    if (piece->first)
        u->frame_len = 0;
    u->open = !piece->last;
    u->frame_bytes = piece->frame_bytes;
    if (u->frame_len + piece->bytes.len > u->frame_cap) {
        u->frame_cap = 2 * (u->frame_len + piece->bytes.len);
        u->frame = realloc(u->frame, u->frame_cap);
        table_require(u->frame != NULL, "memory of a frame");
    }
    if (piece->bytes.len > 0)
        memcpy(u->frame + u->frame_len, piece->bytes.ptr, piece->bytes.len);
    u->frame_len += piece->bytes.len;
    u->pieces++;
    if (piece->last) {
        table_require(piece->frame_bytes == UINT64_MAX || piece->frame_bytes == u->frame_len,
                      "the length that was told");
        user_log_frame(u);
    }
    if (u->stop_at_piece)
        transport_read_stop(u->t);
    if (u->at_piece != NULL)
        u->at_piece(u);
}

static inline void user_on_drained(void *arg)
{
    struct user *u = arg;

    u->drains++;
    user_log(u, "drained;");
}

static inline void user_on_end(void *arg, enum transport_code code)
{
    struct user *u = arg;
    char text[32];

    u->ends++;
    snprintf(text, sizeof text, "end %d;", (int)code);
    user_log(u, text);
    if (u->close_at_end)
        transport_close(u->t, (enum transport_code)u->close_code);
}

static inline void user_on_closed(void *arg)
{
    struct user *u = arg;

    u->t = NULL;
    user_log(u, "closed;");
}

static const struct transport_events user_events = { user_on_piece, user_on_drained, user_on_end,
                                                     user_on_closed };

static inline void user_on_group_closed(void *arg)
{
    ((struct user *)arg)->group_closed = true;
}

static inline void user_release(void *arg)
{
    ((struct user *)arg)->released++;
}

static inline void user_init(struct user *u, const struct transport_conf *conf)
{
    memset(u, 0, sizeof *u);
    table_require(uv_loop_init(&u->loop) == 0, "a loop");
    u->group = transport_group_create(&u->loop, conf);
    user_log(u, "");
}

/* With the stream in memory. */
static inline void user_open(struct user *u, const struct transport_conf *conf,
                             enum transport_kind kind, enum transport_role role)
{
    user_init(u, conf);
    u->fake.stream.ops = &fake_ops;
    u->fake.takes = SIZE_MAX;
    u->t = transport_open(u->group, &u->fake.stream, kind, role, (struct lonely_span){ 0 },
                          &user_events, u);
    transport_read_start(u->t);
}

static inline void user_come(struct user *u, const void *bytes, size_t len)
{
    uint8_t *copy = malloc(len); /* of its own, so that a look beyond its end is seen */

    table_require(copy != NULL && u->fake.reading, "a stream that is read");
    memcpy(copy, bytes, len);
    u->fake.stream.events->on_read(u->fake.stream.arg, (struct lonely_span){ copy, len });
    memset(copy, 0xdd, len);
    free(copy);
}

/* What waits for a turn of the loop happens. */
static inline void user_turn(struct user *u)
{
    for (int i = 0; i < 3; i++)
        uv_run(&u->loop, UV_RUN_NOWAIT);
}

static inline void user_fake_closed(struct user *u)
{
    table_require(u->fake.closed, "a closed stream");
    u->fake.stream.events->on_closed(u->fake.stream.arg);
    user_turn(u);
}

/* Closes what is open. Nothing may be left. */
static inline void user_close(struct user *u)
{
    if (u->t != NULL) {
        if (u->fake.stream.arg == NULL || !u->fake.closed)
            transport_abort(u->t);
        if (u->fake.closed)
            user_fake_closed(u);
    }
    table_require(u->t == NULL, "a transport that closes");
    transport_group_close(u->group, user_on_group_closed, u);
    while (!u->group_closed)
        uv_run(&u->loop, UV_RUN_ONCE);
    table_require(uv_loop_close(&u->loop) == 0, "an empty loop");
    free(u->log);
    free(u->frame);
    free(u->fake.out);
}

#endif
