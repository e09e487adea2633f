/*
 * Transports over real sockets, a server's and a client's on one loop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <malloc.h>

#include "http_server.h"
#include "list.h"
#include "stream_listener.h"
#include "stream_tcp.h"
#include "tls_client.h"
#include "transport.h"
#include "websocket_handshake.h"

#define IDLE_COUNT   400
#define IDLE_BYTES   3072 /* of memory, for a websocket that is idle */
#define FLOOD_FRAMES 200000
#define LARGE_BYTES  (16u << 20)

struct fixture;

struct end {
    struct fixture *f;
    struct transport *t; /* NULL: closed */
    struct list node;    /* of the servers' */
    uint8_t *frame;      /* the one that is coming */
    size_t len, cap;
    unsigned frames, ends, drains;
    size_t wanted; /* frames */
};

struct fixture {
    uv_loop_t loop;
    struct transport_group *group;
    struct stream_listener *listener;
    struct stream_buffer buffer; /* of clients */
    enum transport_kind kind;
    uint16_t port;
    struct list servers;
    struct end client;
    unsigned accepted, released;
    unsigned ended_frames; /* of the last end that was told of the end */
    enum transport_code ended_code;
    bool echoes, listener_closed, group_closed;
};

static struct end *server_of(struct fixture *f)
{
    return list_entry(f->servers.next, struct end, node);
}

static void on_piece(void *arg, const struct transport_piece *piece)
{
    struct end *e = arg;

    if (piece->first)
        e->len = 0;
    if (e->len + piece->bytes.len > e->cap) {
        e->cap = 2 * (e->len + piece->bytes.len);
        e->frame = realloc(e->frame, e->cap);
        table_require(e->frame != NULL, "memory of a frame");
    }
    if (piece->bytes.len > 0)
        memcpy(e->frame + e->len, piece->bytes.ptr, piece->bytes.len);
    e->len += piece->bytes.len;
    if (!piece->last)
        return;
    e->frames++;
    if (e == &e->f->client || !e->f->echoes)
        return;
    transport_frame(e->t, e->len);
    transport_put(e->t, (struct lonely_span){ e->frame, e->len });
}

static void on_drained(void *arg)
{
    ((struct end *)arg)->drains++;
}

static void on_end(void *arg, enum transport_code code)
{
    struct end *e = arg;

    e->ends++;
    e->f->ended_code = code;
    e->f->ended_frames = e->frames;
    transport_close(e->t, TRANSPORT_NORMAL);
}

static void on_closed(void *arg)
{
    struct end *e = arg;

    e->t = NULL;
    free(e->frame);
    e->frame = NULL;
    if (e == &e->f->client)
        return;
    list_remove(&e->node);
    free(e);
}

static const struct transport_events events = { on_piece, on_drained, on_end, on_closed };

static void open_server(struct fixture *f, struct stream *stream, struct lonely_span rest)
{
    struct end *e = calloc(1, sizeof *e);

    table_require(e != NULL, "memory");
    e->f = f;
    list_push_back(&f->servers, &e->node);
    f->accepted++;
    e->t = transport_open(f->group, stream, f->kind, TRANSPORT_SERVER, rest, &events, e);
    transport_read_start(e->t);
}

static void on_accept(void *arg, struct stream *stream, const union peer_address *peer)
{
    (void)peer;
    open_server(arg, stream, (struct lonely_span){ 0 });
}

static const struct transport_conf patient = { .max_frame_bytes = LARGE_BYTES,
                                               .ping_interval_ms = 60000,
                                               .ping_timeout_ms = 60000,
                                               .close_timeout_ms = 60000,
                                               .low_water_bytes = 65536 };

static void start(struct fixture *f, enum transport_kind kind, const struct transport_conf *conf,
                  struct tls_server *tls)
{
    const struct stream_listener_conf listening = { .max_connections = 1000 };
    int fd;

    memset(f, 0, sizeof *f);
    f->kind = kind;
    f->client.f = f;
    list_init(&f->servers);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    fd = listen_anywhere(&f->port);
    f->group = transport_group_create(&f->loop, conf);
    f->listener = stream_listener_create(&f->loop, &listening, on_accept, f);
    assert_int_equal(stream_listener_listen(f->listener, fd, tls), 0);
}

/* A transport that speaks to the server; it reads. */
static void connect_client(struct fixture *f)
{
    struct stream *stream;
    struct peer p;

    peer_open(&f->loop, &p, f->port);
    uv_close((uv_handle_t *)&p.poll, peer_on_closed);
    while (!p.closed)
        uv_run(&f->loop, UV_RUN_NOWAIT);
    stream = stream_tcp_open(&f->loop, p.fd, &f->buffer, NULL, NULL);
    assert_non_null(stream);
    f->client.t = transport_open(f->group, stream, f->kind, TRANSPORT_CLIENT,
                                 (struct lonely_span){ 0 }, &events, &f->client);
    transport_read_start(f->client.t);
}

static void on_listener_closed(void *arg)
{
    ((struct fixture *)arg)->listener_closed = true;
}

static void on_group_closed(void *arg)
{
    ((struct fixture *)arg)->group_closed = true;
}

static bool is_alone(void *arg)
{
    struct fixture *f = arg;

    return list_is_empty(&f->servers) && f->client.t == NULL;
}

static bool is_over(void *arg)
{
    struct fixture *f = arg;

    return f->listener_closed && f->group_closed;
}

static void stop(struct fixture *f)
{
    list_foreach (&f->servers, node, next)
        transport_abort(list_entry(node, struct end, node)->t);
    if (f->client.t != NULL)
        transport_abort(f->client.t);
    peer_until(&f->loop, is_alone, f);
    stream_listener_close(f->listener, on_listener_closed, f);
    transport_group_close(f->group, on_group_closed, f);
    peer_until(&f->loop, is_over, f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

static bool has_server(void *arg)
{
    return ((struct fixture *)arg)->accepted > 0;
}

static bool has_frames(void *arg)
{
    const struct end *e = arg;

    return e->frames >= e->wanted || e->ends > 0;
}

static void await_frames(struct fixture *f, struct end *e, size_t n)
{
    e->wanted = n;
    peer_until(&f->loop, has_frames, e);
    assert_int_equal(e->frames, n);
}

static void echoes_frames_of_every_size(void **state)
{
    static const size_t sizes[] = { 4, 125, 126, 127, 65535, 65536, 65537, 1000000, LARGE_BYTES };
    uint8_t *body = malloc(LARGE_BYTES);

    (void)state;
    table_require(body != NULL, "memory");
    fill(body, LARGE_BYTES);
    for (int kind = 0; kind < 2; kind++) {
        struct fixture f;

        start(&f, (enum transport_kind)kind, &patient, NULL);
        f.echoes = true;
        connect_client(&f);
        for (size_t i = 0; i < TABLE_LEN(sizes); i++) {
            transport_frame(f.client.t, sizes[i]);
            transport_put(f.client.t, (struct lonely_span){ body, sizes[i] });
            await_frames(&f, &f.client, i + 1);
            assert_int_equal(f.client.len, sizes[i]);
            assert_memory_equal(f.client.frame, body, sizes[i]);
        }
        stop(&f);
    }
    free(body);
}

static void closes_in_order_both_ways(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        bool is_websocket = i % 2 == 0;
        struct fixture f;
        struct transport *first;

        start(&f, is_websocket ? TRANSPORT_WEBSOCKET : TRANSPORT_TCP, &patient, NULL);
        connect_client(&f);
        peer_until(&f.loop, has_server, &f);
        first = i / 2 == 0 ? server_of(&f)->t : f.client.t;
        transport_frame(first, 5);
        transport_put(first, LIT("hello"));
        transport_close(first, TRANSPORT_GOING_AWAY);
        peer_until(&f.loop, is_alone, &f);
        assert_int_equal(f.ended_frames, 1); /* the other end was told */
        assert_int_equal(f.ended_code, is_websocket ? TRANSPORT_GOING_AWAY : TRANSPORT_NO_CODE);
        stop(&f);
    }
}

static void on_release(void *arg)
{
    ((struct fixture *)arg)->released++;
}

static bool is_drained(void *arg)
{
    struct fixture *f = arg;

    return server_of(f)->drains > 0;
}

static size_t memory_in_use(void)
{
    struct mallinfo2 m = mallinfo2();

    return m.uordblks + m.hblkhd;
}

/* A peer that does not read: the queue holds references, nothing is lost, and one is told when to go on. */
static void holds_what_a_slow_peer_does_not_take(void **state)
{
    static uint8_t body[1 << 20];

    (void)state;
    fill(body, sizeof body);
    for (int kind = 0; kind < 2; kind++) {
        struct fixture f;
        size_t before;

        start(&f, (enum transport_kind)kind, &patient, NULL);
        connect_client(&f);
        peer_until(&f.loop, has_server, &f);
        transport_read_stop(f.client.t);
        before = memory_in_use();
        for (int i = 0; i < 64; i++) {
            transport_frame(server_of(&f)->t, sizeof body);
            transport_put_shared(server_of(&f)->t, (struct lonely_span){ body, sizeof body },
                                 on_release, &f);
        }
        peer_let_pass(&f.loop, 30);
        assert_true(transport_queued(server_of(&f)->t) > 32u << 20);
        assert_true(f.released < 32);
        assert_int_equal(server_of(&f)->drains, 0);
        fprintf(stderr, "# queue of %zu bytes: %zu bytes\n", transport_queued(server_of(&f)->t),
                memory_in_use() - before);
        assert_true(memory_in_use() < before + 200000);
        transport_read_start(f.client.t);
        peer_until(&f.loop, is_drained, &f);
        await_frames(&f, &f.client, 64);
        assert_int_equal(f.released, 64);
        assert_memory_equal(f.client.frame, body, sizeof body);
        stop(&f);
    }
}

static void survives_a_flood_of_tiny_frames(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        struct fixture f;

        start(&f, (enum transport_kind)kind, &patient, NULL);
        f.echoes = true;
        connect_client(&f);
        for (int i = 0; i < FLOOD_FRAMES; i++) {
            transport_frame(f.client.t, 4);
            transport_put(f.client.t, LIT("tiny"));
        }
        await_frames(&f, &f.client, FLOOD_FRAMES);
        assert_int_equal(transport_queued(f.client.t), 0);
        stop(&f);
    }
}

/* Bytes that no websocket sends, cut where the sockets cut them. */
static void tells_a_peer_what_is_wrong(void **state)
{
    struct fixture f;
    struct peer p;

    (void)state;
    start(&f, TRANSPORT_WEBSOCKET, &patient, NULL);
    peer_open(&f.loop, &p, f.port);
    peer_send_bytes(&p, "\x81\x81\0\0\0\0a and so on", 18);
    peer_expect(&f.loop, &p, "\x88\2\3\xeb");
    peer_expect_end(&f.loop, &p);
    peer_close(&f.loop, &p, false);
    peer_until(&f.loop, is_alone, &f);
    stop(&f);
}

static void notices_a_half_open_peer(void **state)
{
    struct transport_conf conf = patient;
    struct fixture f;
    struct peer p;

    (void)state;
    conf.ping_interval_ms = 20;
    conf.ping_timeout_ms = 20;
    conf.close_timeout_ms = 20;
    start(&f, TRANSPORT_WEBSOCKET, &conf, NULL);
    peer_open(&f.loop, &p, f.port);
    peer_until(&f.loop, has_server, &f);
    peer_expect(&f.loop, &p, "\x89");
    peer_until(&f.loop, is_alone, &f);
    peer_close(&f.loop, &p, false);
    stop(&f);
}

static void works_over_tls(void **state)
{
    static const size_t pieces[] = { 1, 100, ALL };
    struct tls_server *tls = make_server(TLS_CLIENT_NONE);

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct fixture f;
        struct client c;

        start(&f, TRANSPORT_TCP, &patient, tls);
        f.echoes = true;
        client_open(&f.loop, f.port, &c, 0, pieces[i]);
        client_say(&c, "\0\0\0\7overtls\0\0\0\4next", 19);
        client_await(&f.loop, &c, 19);
        assert_memory_equal(c.got, "\0\0\0\7overtls\0\0\0\4next", 19);
        assert_true(transport_is_tls(server_of(&f)->t));
        transport_close(server_of(&f)->t, TRANSPORT_NORMAL);
        client_close(&f.loop, &c);
        peer_until(&f.loop, is_alone, &f);
        stop(&f);
    }
    tls_server_destroy(tls);
}

/* ---- What an idle websocket costs, from the accept on ---- */

static void on_upgraded(void *arg, struct stream *stream, struct lonely_span rest)
{
    open_server(arg, stream, rest);
}

static void on_request(void *app, struct http_exchange *x)
{
    const struct websocket_origins any = { .any = true };
    char headers[WEBSOCKET_ANSWER_MAX];

    assert_int_equal(websocket_check_request(&x->head, &any, headers), 101);
    assert_true(http_exchange_upgrade(x, headers, on_upgraded, app));
}

static bool has_all(void *arg)
{
    return ((struct fixture *)arg)->accepted == IDLE_COUNT;
}

static bool have_all_frames(void *arg)
{
    struct fixture *f = arg;
    unsigned frames = 0;

    list_foreach (&f->servers, node, next)
        frames += list_entry(node, struct end, node)->frames;
    return frames == IDLE_COUNT;
}

static int plain_socket(uint16_t port)
{
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    table_require(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0, "a connection");
    return fd;
}

static void an_idle_websocket_is_small(void **state)
{
    static const char ask[] = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
                              "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                              "\x82\x84\0\0\0\0text";
    const struct http_server_conf http = { .header_timeout_ms = 60000,
                                           .keepalive_timeout_ms = 60000,
                                           .max_header_bytes = 16384,
                                           .max_connections = 2 * IDLE_COUNT };
    struct http_server *server;
    struct fixture f;
    int fds[IDLE_COUNT], fd;
    size_t before, each;

    (void)state;
    start(&f, TRANSPORT_WEBSOCKET, &patient, NULL);
    f.echoes = true;
    fd = listen_anywhere(&f.port);
    server = http_server_create(&f.loop, &http, on_request, &f);
    assert_int_equal(http_server_listen(server, fd), 0);
    before = memory_in_use();
    for (int i = 0; i < IDLE_COUNT; i++) {
        fds[i] = plain_socket(f.port);
        assert_int_equal(send(fds[i], ask, sizeof ask - 1, MSG_NOSIGNAL), sizeof ask - 1);
        uv_run(&f.loop, UV_RUN_NOWAIT);
    }
    peer_until(&f.loop, has_all, &f);
    peer_until(&f.loop, have_all_frames, &f);
    peer_let_pass(&f.loop, 5);
    list_foreach (&f.servers, node, next) {
        struct end *e = list_entry(node, struct end, node);

        free(e->frame); /* the test's own */
        e->frame = NULL;
        e->cap = 0;
    }
    each = (memory_in_use() - before) / IDLE_COUNT;
    fprintf(stderr, "# an idle websocket: %zu bytes\n", each);
    assert_true(each < IDLE_BYTES);
    for (int i = 0; i < IDLE_COUNT; i++)
        close(fds[i]);
    peer_until(&f.loop, is_alone, &f);
    http_server_close(server, NULL, NULL);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echoes_frames_of_every_size),
        cmocka_unit_test(closes_in_order_both_ways),
        cmocka_unit_test(holds_what_a_slow_peer_does_not_take),
        cmocka_unit_test(survives_a_flood_of_tiny_frames),
        cmocka_unit_test(tells_a_peer_what_is_wrong),
        cmocka_unit_test(notices_a_half_open_peer),
        cmocka_unit_test(works_over_tls),
        cmocka_unit_test(an_idle_websocket_is_small),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
