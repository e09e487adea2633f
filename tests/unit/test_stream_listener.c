/*
 * The listener of raw TCP: stream_listener.h, over real sockets. A stream that was given out sends back
 * what it reads, and closes at the peer's end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "stream_listener.h"
#include "tls_client.h"

struct fixture {
    uv_loop_t loop;
    struct stream_listener *listener;
    uint16_t port;
    unsigned accepted, rejected;
    bool closed;
    int fd; /* of the last accepted, still open */
};

struct echo {
    struct stream *stream;
};

static void on_read(void *arg, struct lonely_span bytes)
{
    struct echo *e = arg;

    table_require(stream_try_send(e->stream, &bytes, 1) == (ptrdiff_t)bytes.len, "room");
}

static void on_end(void *arg)
{
    stream_close(((struct echo *)arg)->stream);
}

static void on_sent(void *arg)
{
    (void)arg;
}

static const struct stream_events echo_events = {
    .on_read = on_read, .on_end = on_end, .on_sent = on_sent, .on_lost = on_end, .on_closed = free
};

static void on_accept(void *arg, struct stream *stream, const union peer_address *peer)
{
    struct fixture *f = arg;
    struct echo *e = malloc(sizeof *e);

    table_require(e != NULL && peer->sa.sa_family == AF_INET, "a connection");
    f->accepted++;
    e->stream = stream;
    stream_attach(stream, &echo_events, e);
    stream_read_start(stream);
}

static void on_reject(void *arg, const struct sockaddr *peer)
{
    (void)peer;
    ((struct fixture *)arg)->rejected++;
}

static void start(struct fixture *f, struct stream_listener_conf conf, struct tls_server *tls)
{
    int fd;

    memset(f, 0, sizeof *f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    fd = listen_anywhere(&f->port);
    conf.on_reject = on_reject;
    f->listener = stream_listener_create(&f->loop, &conf, on_accept, f);
    assert_int_equal(stream_listener_listen(f->listener, fd, tls), 0);
}

static const struct stream_listener_conf patient = { .handshake_timeout_ms = 60000,
                                                     .user_timeout_ms = 40000,
                                                     .max_connections = 10 };

static void on_closed(void *arg)
{
    ((struct fixture *)arg)->closed = true;
}

static bool is_closed(void *arg)
{
    return ((struct fixture *)arg)->closed;
}

static bool is_alone(void *arg)
{
    return stream_listener_connections(((struct fixture *)arg)->listener) == 0;
}

static bool has_one(void *arg)
{
    return stream_listener_connections(((struct fixture *)arg)->listener) == 1;
}

static void stop(struct fixture *f)
{
    stream_listener_close(f->listener, on_closed, f);
    peer_until(&f->loop, is_closed, f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

static void gives_out_plain_streams(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, patient, NULL);
    peer_open(&f.loop, &p, f.port);
    peer_send(&p, "hello");
    peer_expect(&f.loop, &p, "hello");
    assert_int_equal(f.accepted, 1);
    stream_listener_stop(f.listener);
    peer_send(&p, "again");
    peer_expect(&f.loop, &p, "again");
    stream_listener_close(f.listener, on_closed, &f); /* waits for the stream */
    peer_let_pass(&f.loop, 5);
    assert_false(f.closed);
    peer_send(&p, "still");
    peer_expect(&f.loop, &p, "still");
    peer_close(&f.loop, &p, false);
    peer_until(&f.loop, is_closed, &f);
    assert_int_equal(uv_loop_close(&f.loop), 0);
}

/* Also when the first data comes in the segment that ends the handshake. */
static void gives_out_tls_streams(void **state)
{
    static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };
    static const size_t pieces[] = { 1, 7, ALL };
    struct tls_server *tls = make_server(TLS_CLIENT_NONE);

    (void)state;
    for (int i = 0; i < 6; i++) {
        struct fixture f;
        struct client c;

        start(&f, patient, tls);
        client_open(&f.loop, f.port, &c, versions[i / 3], pieces[i % 3]);
        client_say(&c, "hello", 5);
        client_expect(&f.loop, &c, "hello");
        assert_int_equal(f.accepted, 1);
        client_close(&f.loop, &c);
        peer_until(&f.loop, is_alone, &f);
        stop(&f);
    }
    tls_server_destroy(tls);
}

static void bounds_handshakes(void **state)
{
    struct tls_server *tls = make_server(TLS_CLIENT_NONE);
    struct stream_listener_conf conf = patient;
    struct fixture f;
    struct peer p;

    (void)state;
    conf.handshake_timeout_ms = 20;
    start(&f, conf, tls);
    peer_open(&f.loop, &p, f.port);
    peer_send_bytes(&p, "\x16\3\1", 3);
    peer_until(&f.loop, peer_has_ended, &p);
    peer_close(&f.loop, &p, false);
    peer_until(&f.loop, is_alone, &f);
    peer_open(&f.loop, &p, f.port); /* nonsense, and one that leaves */
    peer_send(&p, "GET / HTTP/1.1\r\n\r\n");
    peer_until(&f.loop, peer_has_ended, &p);
    peer_close(&f.loop, &p, false);
    peer_open(&f.loop, &p, f.port);
    peer_until(&f.loop, has_one, &f);
    peer_close(&f.loop, &p, false);
    peer_until(&f.loop, is_alone, &f);
    peer_open(&f.loop, &p, f.port);
    peer_until(&f.loop, has_one, &f);
    assert_int_equal(f.accepted, 0);
    stream_listener_close(f.listener, on_closed, &f); /* with a handshake under way */
    peer_until(&f.loop, is_closed, &f);
    peer_close(&f.loop, &p, false);
    assert_int_equal(uv_loop_close(&f.loop), 0);
    tls_server_destroy(tls);
}

static void bounds_connections(void **state)
{
    struct stream_listener_conf conf = patient;

    (void)state;
    for (int by_address = 0; by_address < 2; by_address++) {
        struct peer first, second;
        struct fixture f;

        conf.peers = by_address ? peer_limit_create(1) : NULL;
        conf.max_connections = by_address ? 10 : 1;
        start(&f, conf, NULL);
        peer_open(&f.loop, &first, f.port);
        peer_send(&first, "a");
        peer_expect(&f.loop, &first, "a");
        peer_open(&f.loop, &second, f.port);
        if (by_address) {
            peer_until(&f.loop, peer_has_ended, &second);
            assert_int_equal(f.rejected, 1);
        } else {
            peer_send(&second, "b");
            peer_let_pass(&f.loop, 20);
            assert_int_equal(second.len, 0);
        }
        peer_close(&f.loop, &first, false);
        if (by_address)
            peer_until(&f.loop, is_alone, &f);
        else
            peer_expect(&f.loop, &second, "b");
        peer_close(&f.loop, &second, false);
        peer_until(&f.loop, is_alone, &f);
        stop(&f);
        peer_limit_destroy(conf.peers);
    }
}

/* On the accepted socket, which is the one whose peer is ours. */
static void on_accept_options(void *arg, struct stream *stream, const union peer_address *peer)
{
    struct fixture *f = arg;
    struct sockaddr_in at;

    for (int fd = 3; fd < 256; fd++) {
        socklen_t len = sizeof at;

        if (getpeername(fd, (struct sockaddr *)&at, &len) == 0 && at.sin_family == AF_INET &&
            at.sin_port == peer->in.sin_port)
            f->fd = fd;
    }
    on_accept(arg, stream, peer);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;

    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static bool has_fd(void *arg)
{
    return ((struct fixture *)arg)->fd > 0;
}

static void notices_dead_peers(void **state)
{
    struct fixture f;
    struct peer p;
    int fd;

    (void)state;
    memset(&f, 0, sizeof f);
    assert_int_equal(uv_loop_init(&f.loop), 0);
    fd = listen_anywhere(&f.port);
    f.listener = stream_listener_create(&f.loop, &patient, on_accept_options, &f);
    assert_int_equal(stream_listener_listen(f.listener, fd, NULL), 0);
    peer_open(&f.loop, &p, f.port);
    peer_until(&f.loop, has_fd, &f);
    assert_int_equal(option(f.fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 40000);
    assert_int_equal(option(f.fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(option(f.fd, IPPROTO_TCP, TCP_KEEPIDLE), 20);
    assert_int_equal(option(f.fd, IPPROTO_TCP, TCP_KEEPINTVL), 10);
    assert_int_equal(option(f.fd, IPPROTO_TCP, TCP_NODELAY), 1);
    peer_close(&f.loop, &p, false);
    peer_until(&f.loop, is_alone, &f);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_out_plain_streams), cmocka_unit_test(gives_out_tls_streams),
        cmocka_unit_test(bounds_handshakes),       cmocka_unit_test(bounds_connections),
        cmocka_unit_test(notices_dead_peers),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
