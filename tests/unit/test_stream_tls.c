/*
 * The TLS stream alone (stream_tls.h): whatever its user does and wherever the socket stops, nothing
 * is lost, sent twice or told inside of a call.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mem.h"
#include "stream_tls.h"
#include "tls_client.h"

struct fixture {
    uv_loop_t loop;
    struct tls_server *tls;
    uint16_t port;
};

struct user {
    struct fixture *f;
    struct tls_loop *shared;
    struct stream *stream;
    struct stream_buffer buffer;
    const uint8_t *bytes; /* to send */
    size_t len, at;
    bool open, sending, ended, lost, gone, loop_gone;
    bool in_call; /* no event may come */
    unsigned ends, sends;
    size_t got;
    bool stops; /* reading, at each on_read */
};

static void user_on_read(void *arg, struct lonely_span bytes)
{
    struct user *u = arg;

    assert_false(u->in_call);
    u->got += bytes.len;
    if (u->stops)
        stream_read_stop(u->stream);
}

static void user_on_end(void *arg)
{
    struct user *u = arg;

    assert_false(u->in_call);
    u->ends++;
}

static void user_on_sent(void *arg)
{
    struct user *u = arg;

    assert_false(u->in_call);
    u->sending = false;
}

static void user_close(struct user *u)
{
    u->in_call = true;
    stream_close(u->stream);
    u->in_call = false;
}

static void user_on_lost(void *arg)
{
    struct user *u = arg;

    assert_false(u->in_call);
    u->lost = true;
    user_close(u);
}

static void user_on_closed(void *arg)
{
    ((struct user *)arg)->gone = true;
}

static void user_on_open(void *arg)
{
    ((struct user *)arg)->open = true;
}

static const struct stream_events user_events = {
    .on_read = user_on_read,
    .on_end = user_on_end,
    .on_sent = user_on_sent,
    .on_lost = user_on_lost,
    .on_closed = user_on_closed,
    .on_open = user_on_open,
};

/* Before the handshake. */
static void user_begin(struct fixture *f, struct user *u, struct client *c)
{
    int listening, fd, small = 4096;

    memset(f, 0, sizeof *f);
    memset(u, 0, sizeof *u);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->tls = make_server(TLS_CLIENT_NONE);
    listening = listen_anywhere(&f->port);
    client_open(&f->loop, f->port, c, 0, ALL);
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0)
        ;
    close(listening);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    u->f = f;
    u->shared = tls_loop_create(&f->loop, NULL);
    u->stream = stream_tls_open(u->shared, f->tls, fd, &u->buffer, &user_events, u);
    assert_non_null(u->stream);
    assert_int_equal(
        stream_try_send(u->stream, &(struct lonely_span){ (const uint8_t *)"x", 1 }, 1),
        0); /* not before the handshake */
    stream_read_start(u->stream);
}

static void user_open(struct fixture *f, struct user *u, struct client *c)
{
    user_begin(f, u, c);
    client_await(&f->loop, c, 0);
}

static void user_on_loop_closed(void *arg)
{
    ((struct user *)arg)->loop_gone = true;
}

static bool user_is_gone(void *arg)
{
    return ((struct user *)arg)->loop_gone;
}

static void user_end(struct fixture *f, struct user *u, struct client *c)
{
    if (!u->lost)
        user_close(u);
    tls_loop_close(u->shared, user_on_loop_closed, u);
    peer_until(&f->loop, user_is_gone, u);
    assert_true(u->gone);
    client_close(&f->loop, c);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    tls_server_destroy(f->tls);
}

/* Sends the next bytes in parts of `part` bytes, as far as they go; sometimes without trying. */
static void user_send_more(struct user *u, size_t part)
{
    struct lonely_span parts[STREAM_PARTS_MAX];
    size_t count = 0, at = u->at;

    while (count < STREAM_PARTS_MAX && at < u->len) {
        size_t n = part < u->len - at ? part : u->len - at;

        parts[count++] = (struct lonely_span){ u->bytes + at, n };
        at += n;
    }
    u->in_call = true;
    if (u->sends++ % 3 != 0) {
        ptrdiff_t sent = stream_try_send(u->stream, parts, count);

        assert_true(sent >= 0 && (size_t)sent <= at - u->at);
        u->at += (size_t)sent;
    } else {
        stream_send(u->stream, parts, count);
        assert_int_equal(stream_try_send(u->stream, parts, count), 0);
        u->sending = true;
        u->at = at;
    }
    u->in_call = false;
}

struct transfer {
    struct user *u;
    struct client *c;
    size_t part;
};

static bool is_transferred(void *arg)
{
    struct transfer *t = arg;

    client_step(t->c);
    while (!t->u->sending && t->u->at < t->u->len) {
        size_t before = t->u->at;

        user_send_more(t->u, t->part);
        if (t->u->at == before && !t->u->sending)
            continue; /* the next call sends */
    }
    return t->c->got_len == t->u->len && !t->u->sending;
}

/* Whatever the sizes of parts and the places where the socket stops, what comes is what was sent. */
static void nothing_is_lost_or_sent_twice(void **state)
{
    static const size_t sizes[] = { 1, 2, 1000, 16384, 16385, 100000, 3000000 };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(sizes); i++) {
        struct fixture f;
        struct client c;
        struct user u;
        struct transfer t = { &u, &c, sizes[i] };
        size_t len = sizes[i] < 100 ? 3000 : 1 << 20;
        uint8_t *bytes = malloc(len);

        fill(bytes, len);
        user_open(&f, &u, &c);
        u.bytes = bytes;
        u.len = len;
        peer_until(&f.loop, is_transferred, &t);
        assert_memory_equal(c.got, bytes, len);
        user_end(&f, &u, &c);
        free(bytes);
    }
}

static bool has_ends(void *arg)
{
    struct user *u = arg;

    return u->ends > 0 || u->lost;
}

static bool user_has_sent(void *arg)
{
    return !((struct user *)arg)->sending;
}

static bool has_bytes(void *arg)
{
    return ((struct user *)arg)->got > 0;
}

/* Data and close_notify in one read: the end waits until it may be told. */
static void no_end_while_stopped(void **state)
{
    struct fixture f;
    struct client c;
    struct user u;

    (void)state;
    user_open(&f, &u, &c);
    assert_true(u.open);
    u.stops = true;
    SSL_write(c.ssl, "hello", 5);
    SSL_shutdown(c.ssl);
    client_flush(&c);
    peer_until(&f.loop, has_bytes, &u);
    assert_int_equal(u.got, 5);
    peer_let_pass(&f.loop, 10);
    assert_int_equal(u.ends, 0);
    u.in_call = true;
    stream_read_start(u.stream);
    u.in_call = false;
    peer_until(&f.loop, has_ends, &u);
    assert_int_equal(u.ends, 1);
    u.at = u.len = 0;
    assert_int_equal(stream_try_send(u.stream, &(struct lonely_span){ (const uint8_t *)"x", 1 }, 1),
                     1); /* the other way is open */
    client_step(&c);
    user_end(&f, &u, &c);
}

/* Fills the socket. The last byte is not counted, as it has not left yet. */
static size_t send_until_full(struct user *u)
{
    static uint8_t bytes[10000];
    const struct lonely_span part = { bytes, sizeof bytes };
    size_t all = 0;
    ptrdiff_t sent;

    do {
        sent = stream_try_send(u->stream, &part, 1);
        assert_true(sent > 0);
        all += (size_t)sent;
    } while (sent == sizeof bytes);
    assert_int_equal(sent, sizeof bytes - 1);
    assert_int_equal(stream_try_send(u->stream, &part, 1), 0);
    return all;
}

/* One byte is owed until the user comes back with it, however late. */
static void what_has_not_left_is_not_counted(void **state)
{
    static const uint8_t rest[1] = { 0 };
    const struct lonely_span part = { rest, 1 };
    enum { SENDS, TRIES, CLOSES, SHUTS, ENDS };

    (void)state;
    for (int then = 0; then < ENDS; then++) {
        struct fixture f;
        struct client c;
        struct user u;
        size_t len;

        user_open(&f, &u, &c);
        len = send_until_full(&u);
        if (then == SHUTS) /* behind what is still leaving */
            stream_shutdown(u.stream);
        client_await(&f.loop, &c, len + 1); /* the byte has come all the same */
        peer_let_pass(&f.loop, 10);
        if (then == SENDS) {
            u.sending = true;
            stream_send(u.stream, &part, 1);
            assert_true(u.sending);
            peer_until(&f.loop, user_has_sent, &u);
        } else if (then == TRIES) {
            assert_int_equal(stream_try_send(u.stream, &part, 1), 1);
        } else if (then == CLOSES) {
            user_close(&u);
            u.lost = true;
        }
        if (then == CLOSES || then == SHUTS) {
            peer_until(&f.loop, client_is_over, &c);
            assert_int_equal(c.ended, then == SHUTS);
        } else {
            assert_int_equal(stream_try_send(u.stream, &part, 1), 1);
            client_await(&f.loop, &c, len + 2);
        }
        assert_int_equal(c.got_len, then <= TRIES ? len + 2 : len + 1);
        user_end(&f, &u, &c);
    }
}

static void empty_parts_are_nothing(void **state)
{
    const struct lonely_span parts[] = { { NULL, 0 }, { (const uint8_t *)"ab", 2 }, { NULL, 0 },
                                         { NULL, 0 }, { (const uint8_t *)"c", 1 },  { NULL, 0 } };
    struct fixture f;
    struct client c;
    struct user u;

    (void)state;
    user_open(&f, &u, &c);
    assert_int_equal(stream_try_send(u.stream, parts, TABLE_LEN(parts)), 3);
    assert_int_equal(stream_try_send(u.stream, parts, 1), 0);
    u.sending = true;
    stream_send(u.stream, parts, TABLE_LEN(parts));
    peer_until(&f.loop, user_has_sent, &u);
    client_await(&f.loop, &c, 6);
    assert_string_equal((char *)c.got, "abcabc");
    user_end(&f, &u, &c);
}

static void sends_once_the_handshake_is_done(void **state)
{
    const struct lonely_span part = { (const uint8_t *)"hello", 5 };
    struct fixture f;
    struct client c;
    struct user u;

    (void)state;
    user_begin(&f, &u, &c);
    u.sending = true;
    stream_send(u.stream, &part, 1);
    assert_false(u.open);
    client_await(&f.loop, &c, 5);
    assert_string_equal((char *)c.got, "hello");
    peer_until(&f.loop, user_has_sent, &u);
    user_end(&f, &u, &c);
}

/* A peer that ends, in good order or within a record. */
static void an_end_within_a_record_is_a_loss(void **state)
{
    (void)state;
    for (int within = 0; within < 2; within++) {
        struct fixture f;
        struct client c;
        struct user u;

        user_open(&f, &u, &c);
        SSL_write(c.ssl, "hello", 5);
        if (within)
            c.piece = (size_t)BIO_pending(c.to_peer) - 1;
        client_flush(&c);
        shutdown(c.peer.fd, SHUT_WR);
        peer_until(&f.loop, has_ends, &u);
        assert_int_equal(u.lost, within);
        assert_int_equal(u.ends, !within);
        assert_int_equal(u.got, within ? 0 : 5);
        user_end(&f, &u, &c);
    }
}

/* A close in the midst of sending is no close_notify: the peer must not take it for the end. */
static void a_cut_answer_does_not_look_whole(void **state)
{
    static uint8_t bytes[4 << 20];
    const struct lonely_span part = { bytes, sizeof bytes };
    struct fixture f;
    struct client c;
    struct user u;

    (void)state;
    for (int tries = 0; tries < 2; tries++) {
        user_open(&f, &u, &c);
        if (tries)
            assert_true(stream_try_send(u.stream, &part, 1) < (ptrdiff_t)sizeof bytes);
        else
            stream_send(u.stream, &part, 1);
        user_close(&u);
        u.lost = true;
        peer_until(&f.loop, client_is_over, &c);
        assert_false(c.ended);
        assert_true(c.got_len < sizeof bytes);
        user_end(&f, &u, &c);
    }
}

static void update_keys(struct client *c, int times)
{
    for (int i = 0; i < times; i++) {
        SSL_key_update(c->ssl, SSL_KEY_UPDATE_REQUESTED);
        SSL_do_handshake(c->ssl);
        client_flush(c);
    }
}

/* Answers to key updates gather behind what the peer does not read, up to a bound. */
static void endless_key_updates_are_refused(void **state)
{
    static uint8_t bytes[8 << 20];
    const struct lonely_span part = { bytes, sizeof bytes };

    (void)state;
    for (int endless = 0; endless < 2; endless++) {
        struct fixture f;
        struct client c;
        struct user u;

        user_open(&f, &u, &c);
        uv_poll_stop(&c.peer.poll);
        stream_send(u.stream, &part, 1);
        peer_let_pass(&f.loop, 50);
        update_keys(&c, 100);
        peer_let_pass(&f.loop, 50);
        assert_false(u.lost);
        if (endless) {
            update_keys(&c, 1000);
            peer_until(&f.loop, has_ends, &u);
            assert_true(u.lost);
        } else {
            uv_poll_start(&c.peer.poll, UV_READABLE, peer_on_poll);
            client_await(&f.loop, &c, sizeof bytes);
        }
        user_end(&f, &u, &c);
    }
}

static void shutdown_says_goodbye_and_reads_on(void **state)
{
    struct fixture f;
    struct client c;
    struct user u;

    (void)state;
    user_open(&f, &u, &c);
    stream_shutdown(u.stream);
    peer_until(&f.loop, client_is_over, &c);
    assert_true(c.ended);
    SSL_write(c.ssl, "hello", 5);
    client_flush(&c);
    peer_until(&f.loop, has_bytes, &u);
    assert_int_equal(u.got, 5);
    user_end(&f, &u, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_or_sent_twice),
        cmocka_unit_test(what_has_not_left_is_not_counted),
        cmocka_unit_test(empty_parts_are_nothing),
        cmocka_unit_test(sends_once_the_handshake_is_done),
        cmocka_unit_test(an_end_within_a_record_is_a_loss),
        cmocka_unit_test(no_end_while_stopped),
        cmocka_unit_test(a_cut_answer_does_not_look_whole),
        cmocka_unit_test(endless_key_updates_are_refused),
        cmocka_unit_test(shutdown_says_goodbye_and_reads_on),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
