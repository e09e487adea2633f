/* A tinyproto server against a scripted peer: hooks, limits, ends, time, stopping
 * (doc/protocol/tinyproto.md, 2 to 5, 7 and 9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tiny_peer.h"

/* ---- An echo server that logs its hooks ---- */

struct fixture {
    struct served served;
    struct hook_log log;
    struct tinyproto_server_hooks hooks;
    struct tinyproto_handler handler;
    struct tinyproto_options options;
};

static struct hook_log *log_of(const struct tinyproto_conn *conn)
{
    return tinyproto_conn_arg(conn);
}

static struct hook_log *log_of_server(const struct tinyproto_server *server)
{
    return tinyproto_server_arg(server);
}

static void on_server_pre(struct tinyproto_server *server)
{
    hook_log(log_of_server(server), "start");
}

static void on_server_post(struct tinyproto_server *server)
{
    hook_log(log_of_server(server), "stop:%zu", tinyproto_server_count(server));
}

static bool on_init(struct tinyproto_server *server, struct tinyproto_conn *conn)
{
    hook_log(log_of_server(server), "init:%zu", tinyproto_server_count(server));
    return tinyproto_server_find(server, tinyproto_conn_id(conn)) == conn;
}

static void on_shutdown(struct tinyproto_server *server, struct tinyproto_conn *conn,
                        const struct tinyproto_cause *why)
{
    size_t len;

    hook_log(log_of_server(server), "shutdown:%d", (int)why->err);
    if (strncmp(tinyproto_conn_peer(conn), "127.0.0.1:", 10) != 0 ||
        tinyproto_conn_sockaddr(conn, &len) == NULL)
        hook_log(log_of_server(server), "no address");
}

static void on_pre(struct tinyproto_conn *conn)
{
    hook_log(log_of(conn), "pre");
}

static void on_failed(struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    hook_log(log_of(conn), "failed:%d", (int)why->err);
}

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    hook_log(log_of(conn), "message:%zu", message->len);
    (void)tinyproto_transmit(conn, message->ptr, message->len);
}

static void on_post(struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    hook_log(log_of(conn), "post:%d", (int)why->err);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    table_require(f != NULL, "memory");
    f->log = (struct hook_log)HOOK_LOG_INIT;
    f->hooks = (struct tinyproto_server_hooks){ .arg = &f->log,
                                                .pre_loop = on_server_pre,
                                                .post_loop = on_server_post,
                                                .conn_init = on_init,
                                                .conn_shutdown = on_shutdown };
    f->handler = (struct tinyproto_handler){ .arg = &f->log,
                                             .pre_loop = on_pre,
                                             .failed = on_failed,
                                             .transmission_received = on_message,
                                             .post_loop = on_post };
    tinyproto_server_options(&f->options);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static void start(struct fixture *f)
{
    served_start(&f->served, &f->hooks, &f->handler, &f->options);
    served_run(&f->served);
}

/* Stops the server; what was logged since its start. */
static const char *stop(struct fixture *f)
{
    served_stop(&f->served);
    return f->log.text;
}

/* ---- Ends: what the peer does, what the server sends, what it logs ---- */

static const struct end_case {
    const char *name;
    const char *sends, *expects;
    const char *then_sends, *then_expects; /* NULL: nothing more */
    enum { THEN_FIN, THEN_RESET, THEN_WAIT } then;
    const char *log; /* between init and stop */
} ends[] = {
    { "handshake, then the end", "ff", "ff", NULL, NULL, THEN_FIN, "pre post:0 shutdown:0" },
    { "the end at once", "", "ff", NULL, NULL, THEN_FIN, "failed:15 shutdown:15" },
    { "limit byte from a client", "fe", "ff", NULL, NULL, THEN_WAIT, "failed:10 shutdown:10" },
    { "zero as handshake", "00", "ff", NULL, NULL, THEN_WAIT, "failed:11 shutdown:11" },
    { "garbage", "41", "ff", NULL, NULL, THEN_WAIT, "failed:12 shutdown:12" },
    { "an echo", "ff 00000002 6162", "ff ff 00000002", NULL, NULL, THEN_FIN,
      "pre message:2 post:16 shutdown:16" },
    { "the end in a size", "ff 0005", "ff", NULL, NULL, THEN_FIN, "pre post:16 shutdown:16" },
    { "the end in a payload", "ff 00000003 6162", "ff ff", NULL, NULL, THEN_FIN,
      "pre post:16 shutdown:16" },
    { "a reset in a payload", "ff 00000003 6162", "ff ff", NULL, NULL, THEN_RESET,
      "pre post:16 shutdown:16" },
    { "a reset between", "ff", "ff", NULL, NULL, THEN_RESET, "pre post:14 shutdown:14" },
    { "oversize", "ff f1000000 6162", "ff 00", NULL, NULL, THEN_WAIT, "pre post:3 shutdown:3" },
    { "refused echo", "ff 00000001 61", "ff ff 00000001", "fd", "", THEN_WAIT,
      "pre message:1 post:13 shutdown:13" },
    { "zero and the end", "ff 00000001 61", "ff ff 00000001", "00", "", THEN_FIN,
      "pre message:1 post:11 shutdown:11" },
    { "zero and silence", "ff 00000001 61", "ff ff 00000001", "00", "", THEN_WAIT,
      "pre message:1 post:11 shutdown:11" },
    { "crossing", "ff 00000001 61", "ff ff 00000001", "00000002 ff 6263", "ff 61 00000002",
      THEN_FIN, "pre message:1 message:2 post:16 shutdown:16" },
};

static void send_reset(int fd)
{
    const struct linger now = { .l_onoff = 1 };

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
}

static void end_one(void **state, const struct end_case *c)
{
    struct fixture *f;
    char want[256];
    int fd;

    print_message("# %s\n", c->name);
    (void)set_up(state);
    f = *state;
    f->options.grace_ms = 50;
    start(f);
    fd = peer_connect(f->served.address);
    peer_send(fd, c->sends);
    peer_expect(fd, c->expects);
    if (c->then_sends != NULL) {
        peer_send(fd, c->then_sends);
        peer_expect(fd, c->then_expects);
    }
    if (c->then == THEN_RESET)
        send_reset(fd);
    if (c->then == THEN_FIN)
        (void)shutdown(fd, SHUT_WR);
    if (c->then != THEN_RESET)
        peer_expect_end(fd);
    hook_log_wait(&f->log, "shutdown:");
    snprintf(want, sizeof(want), "start init:1 %s stop:0 ", c->log);
    assert_string_equal(stop(f), want);
    free(f);
    *state = NULL;
}

static void ends_as_specified(void **state)
{
    for (size_t i = 0; i < TABLE_LEN(ends); i++) {
        free(*state);
        *state = NULL;
        end_one(state, &ends[i]);
    }
}

/* ---- Limits ---- */

static void refuses_over_the_limit_and_serves_the_others(void **state)
{
    struct fixture *f = *state;
    int first, second, third;

    f->options.connection_limit = 1;
    start(f);
    first = peer_connect(f->served.address);
    peer_send(first, "ff");
    peer_expect(first, "ff");
    for (int i = 0; i < 40; i++) { /* more than lingering ones are bounded to */
        second = peer_connect(f->served.address);
        peer_expect(second, "fe");
        close(second);
    }
    second = peer_connect(f->served.address);
    peer_send(second, "ff");
    peer_expect(second, "fe");
    peer_expect_end(second);
    peer_send(first, "00000001 61");
    peer_expect(first, "ff 00000001");
    close(first);
    hook_log_wait(&f->log, "shutdown:16");
    third = peer_connect(f->served.address); /* the slot is free again */
    peer_send(third, "ff");
    peer_expect(third, "ff");
    close(third);
    hook_log_wait(&f->log, "shutdown:0");
    assert_string_equal(stop(f), "start init:1 pre message:1 post:16 shutdown:16 init:1 pre post:0 "
                                 "shutdown:0 stop:0 ");
}

/* The answers are more than what waits for a socket at a time; no other input follows to wake anybody. */
static void a_hundred_messages_may_come_in_one_segment(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[401] = { 0xff }, got[101];
    int fd;

    f->handler.transmission_received = NULL;
    start(f);
    fd = peer_connect(f->served.address);
    peer_write(fd, bytes, sizeof(bytes));
    assert_int_equal(peer_read(fd, got, sizeof(got)), sizeof(got));
    for (size_t i = 0; i < sizeof(got); i++)
        assert_int_equal(got[i], 0xff);
    close(fd);
    hook_log_wait(&f->log, "shutdown:0");
    (void)stop(f);
}

/* More than are ended in order at a time, and their handshakes have come: still nobody sees a reset. */
static void many_are_refused_without_a_reset(void **state)
{
    struct fixture *f = *state;
    int fds[60];

    f->options.connection_limit = 1;
    served_start(&f->served, &f->hooks, &f->handler, &f->options);
    for (size_t i = 0; i < TABLE_LEN(fds); i++) {
        fds[i] = peer_connect(f->served.address);
        peer_send(fds[i], "ff");
    }
    served_run(&f->served);
    peer_expect(fds[0], "ff");
    for (size_t i = 1; i < TABLE_LEN(fds); i++) {
        peer_expect(fds[i], "fe");
        peer_expect_end(fds[i]);
    }
    close(fds[0]);
    hook_log_wait(&f->log, "shutdown:0");
    (void)stop(f);
}

static void times_out(void **state)
{
    static const struct {
        const char *name, *sends, *expects, *log;
        uint32_t open_ms, stall_ms, idle_ms;
    } cases[] = {
        { "no handshake", "", "ff", "failed:9 shutdown:9", 50, 60000, 0 },
        { "a size that stalls", "ff 0000", "ff", "pre post:9 shutdown:9", 60000, 50, 0 },
        { "a payload that stalls", "ff 00000002 61", "ff ff", "pre post:9 shutdown:9", 60000, 50,
          0 },
        { "no status", "ff 00000001 61", "ff ff 00000001", "pre message:1 post:9 shutdown:9", 60000,
          50, 0 },
        { "idle", "ff", "ff", "pre post:9 shutdown:9", 60000, 60000, 50 },
    };

    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct fixture *f;
        char want[256];
        int fd;

        print_message("# %s\n", cases[i].name);
        free(*state);
        (void)set_up(state);
        f = *state;
        f->options.open_timeout_ms = cases[i].open_ms;
        f->options.stall_timeout_ms = cases[i].stall_ms;
        f->options.idle_timeout_ms = cases[i].idle_ms;
        start(f);
        fd = peer_connect(f->served.address);
        peer_send(fd, cases[i].sends);
        peer_expect(fd, cases[i].expects);
        peer_expect_end(fd);
        snprintf(want, sizeof(want), "start init:1 %s stop:0 ", cases[i].log);
        hook_log_wait(&f->log, "shutdown:");
        assert_string_equal(stop(f), want);
    }
}

/* A peer of the reference announces at the same time and then gives up. */
static void a_conflict_ends_after_the_stall_time(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->options.stall_timeout_ms = 200;
    start(f);
    fd = peer_connect(f->served.address);
    peer_send(fd, "ff 00000001 61");
    peer_expect(fd, "ff ff 00000001");
    peer_send(fd, "00000001");
    peer_expect(fd, "ff");
    peer_expect_end(fd);
    hook_log_wait(&f->log, "shutdown:");
    assert_string_equal(stop(f), "start init:1 pre message:1 post:13 shutdown:13 stop:0 ");
}

static void slow_peers_that_move_are_served(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->options.stall_timeout_ms = 400;
    start(f);
    fd = peer_connect(f->served.address);
    peer_send(fd, "ff 00000008");
    peer_expect(fd, "ff ff");
    for (int i = 0; i < 8; i++) { /* 0.8 s in all */
        (void)poll(NULL, 0, 100);
        peer_send(fd, "61");
    }
    peer_expect(fd, "00000008");
    peer_send(fd, "ff");
    peer_expect(fd, "6161616161616161");
    close(fd);
    hook_log_wait(&f->log, "shutdown:0");
    (void)stop(f);
}

/* Memory follows what came, not what was announced. */
static void refuses_more_than_the_memory_for_incomplete_messages(void **state)
{
    struct fixture *f = *state;
    uint8_t block[65536] = { 0 };
    ssize_t n = 0;
    int fd;

    f->options.incoming_max_bytes = 1 << 20;
    start(f);
    fd = peer_connect(f->served.address);
    peer_send(fd, "ff f0ffffff");
    peer_expect(fd, "ff ff");
    for (int i = 0; i < 64 && n >= 0; i++)
        n = send(fd, block, sizeof(block), MSG_NOSIGNAL);
    close(fd);
    hook_log_wait(&f->log, "shutdown:5");
    assert_string_equal(stop(f), "start init:1 pre post:5 shutdown:5 stop:0 ");
}

/* ---- Stopping and starting ---- */

static void stops_with_connections_in_every_state(void **state)
{
    struct fixture *f = *state;
    int fresh, open, inside, waiting;

    f->options.stop_timeout_ms = 200;
    start(f);
    fresh = peer_connect(f->served.address);
    peer_expect(fresh, "ff");
    open = peer_connect(f->served.address);
    peer_send(open, "ff");
    inside = peer_connect(f->served.address);
    peer_send(inside, "ff 00000005 61");
    peer_expect(inside, "ff ff");
    waiting = peer_connect(f->served.address);
    peer_send(waiting, "ff 00000001 61");
    peer_expect(waiting, "ff ff 00000001"); /* and no status */
    served_stop(&f->served);
    peer_expect(open, "ff");
    peer_expect_end(open);
    peer_expect_end(inside);
    close(fresh);
    close(waiting);
    assert_non_null(strstr(f->log.text, "stop:0 "));
    for (int i = 0; i < 4; i++) { /* a shutdown for each init */
        char *at = strstr(f->log.text, "shutdown:");

        assert_non_null(at);
        *at = 'S';
    }
    assert_null(strstr(f->log.text, "shutdown:"));
}

static void starts_again(void **state)
{
    struct fixture *f = *state;

    served_start(&f->served, &f->hooks, &f->handler, &f->options);
    for (int i = 0; i < 3; i++) {
        int fd;

        served_run(&f->served);
        hook_log_wait(&f->log, "start");
        if (i == 0) {
            fd = peer_connect(f->served.address);
            peer_send(fd, "ff");
            peer_expect(fd, "ff");
            close(fd);
            hook_log_wait(&f->log, "shutdown:0");
        }
        f->log.text[0] = '\0';
        f->log.len = 0;
        tinyproto_server_stop(f->served.server);
        (void)pthread_join(f->served.thread, NULL);
        assert_string_equal(f->log.text, "stop:0 ");
        f->log.text[0] = '\0';
        f->log.len = 0;
    }
    tinyproto_server_stop(f->served.server); /* not running: nothing */
    tinyproto_server_free(f->served.server);
}

/* Programs may fill an address by hand; this path would be cut, and be another's file. */
static void a_path_that_does_not_fit_is_an_error(void **state)
{
    struct tinyproto_address address = { .is_unix = true };
    struct tinyproto_server *server;

    (void)state;
    memset(address.host, 'x', 108);
    table_require(tinyproto_server_new(NULL, NULL, NULL, &server) == TINYPROTO_OK, "server");
    assert_int_equal(tinyproto_server_add_address(server, &address), TINYPROTO_E_ARGUMENT);
    address.host[107] = '\0';
    assert_int_equal(tinyproto_server_add_address(server, &address), TINYPROTO_OK);
    address.is_unix = false;
    memset(address.host, 'x', sizeof(address.host));
    assert_int_equal(tinyproto_server_add_address(server, &address), TINYPROTO_E_ARGUMENT);
    address.host[0] = '\0';
    assert_int_equal(tinyproto_server_add_address(server, &address), TINYPROTO_E_ARGUMENT);
    tinyproto_server_free(server);
}

static void says_which_address_is_taken(void **state)
{
    struct fixture *f = *state;
    struct tinyproto_server *other;
    struct tinyproto_cause why;

    start(f);
    table_require(tinyproto_server_new(NULL, NULL, NULL, &other) == TINYPROTO_OK, "server");
    why = tinyproto_server_start(other);
    assert_int_equal(why.err, TINYPROTO_E_STATE);
    assert_string_equal(tinyproto_server_error(other), "no address to listen on");
    assert_int_equal(
        tinyproto_server_add_addr(other, "127.0.0.1", atoi(strchr(f->served.address, ':') + 1)),
        TINYPROTO_OK);
    why = tinyproto_server_run(other);
    assert_int_equal(why.err, TINYPROTO_E_SYSTEM);
    assert_int_equal(why.system, EADDRINUSE);
    assert_non_null(strstr(tinyproto_server_error(other), f->served.address));
    assert_int_equal(tinyproto_server_add_addr(other, "", 1), TINYPROTO_E_ARGUMENT);
    assert_int_equal(tinyproto_server_add_addr(other, "x", 65536), TINYPROTO_E_ARGUMENT);
    tinyproto_server_free(other);
    (void)stop(f);
}

/* ---- From other threads ---- */

static bool remember_id(struct tinyproto_server *server, struct tinyproto_conn *conn)
{
    hook_log(log_of_server(server), "id=%s", tinyproto_conn_id(conn));
    return true;
}

static void transmits_from_other_threads(void **state)
{
    struct fixture *f = *state;
    char id[TINYPROTO_ID_MAX];
    int fd;

    f->hooks.conn_init = remember_id;
    start(f);
    fd = peer_connect(f->served.address);
    peer_send(fd, "ff");
    peer_expect(fd, "ff");
    hook_log_wait(&f->log, "pre");
    memcpy(id, strstr(f->log.text, "id=") + 3, sizeof(id) - 1);
    id[sizeof(id) - 1] = '\0';
    assert_int_equal(id[14], '4'); /* version of the UUID */
    assert_int_equal(tinyproto_server_post_transmit(f->served.server, id, "abc", 3), TINYPROTO_OK);
    assert_int_equal(tinyproto_server_post_transmit(f->served.server, "x", "abc", 3),
                     TINYPROTO_E_ARGUMENT);
    peer_expect(fd, "00000003");
    peer_send(fd, "ff");
    peer_expect(fd, "616263");
    close(fd);
    hook_log_wait(&f->log, "shutdown:0");
    id[0] = id[0] == '0' ? '1' : '0'; /* nobody: it is dropped */
    assert_int_equal(tinyproto_server_post_transmit(f->served.server, id, "abc", 3), TINYPROTO_OK);
    (void)stop(f);
}

static void fill_the_queue(struct tinyproto_conn *conn)
{
    uint8_t bytes[900] = { 0 };

    on_pre(conn);
    assert_int_equal(tinyproto_transmit(conn, bytes, sizeof(bytes)), TINYPROTO_OK);
    hook_log(log_of(conn), "full");
}

/* Takes a message of this size. */
static void take(int fd, size_t size)
{
    uint8_t bytes[1024];

    assert_int_equal(peer_read(fd, bytes, 4), 4);
    assert_int_equal(bytes[2] << 8 | bytes[3], size);
    peer_send(fd, "ff");
    assert_int_equal(peer_read(fd, bytes, size), size);
}

/* A post that was taken is not lost because the send queue is full; what waits is bounded. */
static void what_other_threads_post_waits_for_room(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[200] = { 0 };
    char id[TINYPROTO_ID_MAX];
    int fd;

    f->hooks.conn_init = remember_id;
    f->handler.pre_loop = fill_the_queue;
    f->options.queue_max_bytes = 1000;
    start(f);
    fd = peer_connect(f->served.address);
    peer_send(fd, "ff");
    peer_expect(fd, "ff");
    hook_log_wait(&f->log, "full");
    memcpy(id, strstr(f->log.text, "id=") + 3, sizeof(id) - 1);
    id[sizeof(id) - 1] = '\0';
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(
            tinyproto_server_post_transmit(f->served.server, id, bytes, sizeof(bytes) - i),
            TINYPROTO_OK);
    assert_int_equal(tinyproto_server_post_transmit(f->served.server, id, bytes, sizeof(bytes)),
                     TINYPROTO_E_QUEUE_FULL);
    take(fd, 900);
    for (size_t i = 0; i < 3; i++)
        take(fd, sizeof(bytes) - i);
    assert_int_equal(tinyproto_server_post_transmit(f->served.server, id, bytes, 1), TINYPROTO_OK);
    take(fd, 1);
    close(fd);
    hook_log_wait(&f->log, "shutdown:0");
    (void)stop(f);
}

/* What waits for a connection goes with it. */
static void what_other_threads_post_may_be_too_late(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[200] = { 0 };
    char id[TINYPROTO_ID_MAX];
    int fd;

    f->hooks.conn_init = remember_id;
    f->handler.pre_loop = fill_the_queue;
    f->options.queue_max_bytes = 1000;
    start(f);
    fd = peer_connect(f->served.address);
    peer_send(fd, "ff");
    hook_log_wait(&f->log, "full");
    memcpy(id, strstr(f->log.text, "id=") + 3, sizeof(id) - 1);
    id[sizeof(id) - 1] = '\0';
    for (int i = 0; i < 3; i++)
        assert_int_equal(tinyproto_server_post_transmit(f->served.server, id, bytes, sizeof(bytes)),
                         TINYPROTO_OK);
    close(fd);
    hook_log_wait(&f->log, "shutdown:");
    for (int i = 0; i < 3; i++) /* the room is there again */
        assert_int_equal(tinyproto_server_post_transmit(f->served.server, id, bytes, sizeof(bytes)),
                         TINYPROTO_OK);
    (void)stop(f);
}

/* ---- Hooks that act ---- */

static bool refuse(struct tinyproto_server *server, struct tinyproto_conn *conn)
{
    (void)conn;
    hook_log(log_of_server(server), "refuse");
    return false;
}

static void conn_init_may_refuse(void **state)
{
    struct fixture *f = *state;

    f->hooks.conn_init = refuse;
    start(f);
    peer_expect_end(peer_connect(f->served.address));
    hook_log_wait(&f->log, "shutdown:19");
    assert_string_equal(stop(f), "start refuse failed:19 shutdown:19 stop:0 ");
}

static void tell_done(void *arg, struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    (void)conn;
    hook_log(arg, "done:%d", (int)why->err);
}

static bool greet_and_close(struct tinyproto_server *server, struct tinyproto_conn *conn)
{
    struct hook_log *log = log_of_server(server);

    (void)tinyproto_transmit_then(conn, "hi", 2, tell_done, log);
    (void)tinyproto_transmit_then(conn, "", 0, tell_done, log);
    tinyproto_close(conn);
    if (tinyproto_transmit(conn, "late", 4) == TINYPROTO_E_STATE)
        hook_log(log, "late");
    return true;
}

static void what_is_queued_goes_out_before_the_close(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->hooks.conn_init = greet_and_close;
    start(f);
    fd = peer_connect(f->served.address);
    peer_expect(fd, "ff");
    peer_send(fd, "ff");
    peer_expect(fd, "00000002");
    peer_send(fd, "ff");
    peer_expect(fd, "6869 00000000");
    peer_send(fd, "ff");
    peer_expect_end(fd);
    hook_log_wait(&f->log, "shutdown:0");
    assert_string_equal(stop(f), "start late pre done:0 done:0 post:0 shutdown:0 stop:0 ");
}

static void pause_at_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    hook_log(log_of(conn), "message:%zu", message->len);
    if (message->len == 1)
        tinyproto_conn_pause(conn);
}

static void count_passes(struct tinyproto_server *server)
{
    if (tinyproto_server_count(server) > 0)
        hook_log(log_of_server(server), "p");
}

static void a_paused_connection_keeps_what_came(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->handler.transmission_received = pause_at_message;
    f->options.stall_timeout_ms = 50; /* does not run while paused */
    start(f);
    fd = peer_connect(f->served.address);
    peer_send(fd, "ff 00000001 61 00000002 6162");
    peer_expect(fd, "ff ff");
    (void)poll(NULL, 0, 200);
    assert_int_equal(recv(fd, &(char){ 0 }, 1, MSG_DONTWAIT), -1);
    close(fd);
    assert_string_equal(stop(f), "start init:1 pre message:1 post:0 shutdown:0 stop:0 ");
}

static void passes_are_made_when_idle(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->hooks.loop_pass = count_passes;
    f->options.interval_ms = 5;
    start(f);
    fd = peer_connect(f->served.address);
    hook_log_wait(&f->log, "p p p p p ");
    f->options.interval_ms = 0;
    close(fd);
    (void)stop(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ends_as_specified, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_over_the_limit_and_serves_the_others, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_hundred_messages_may_come_in_one_segment, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(many_are_refused_without_a_reset, set_up, tear_down),
        cmocka_unit_test_setup_teardown(times_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_conflict_ends_after_the_stall_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(slow_peers_that_move_are_served, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_more_than_the_memory_for_incomplete_messages,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(stops_with_connections_in_every_state, set_up, tear_down),
        cmocka_unit_test_setup_teardown(starts_again, set_up, tear_down),
        cmocka_unit_test(a_path_that_does_not_fit_is_an_error),
        cmocka_unit_test_setup_teardown(says_which_address_is_taken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(transmits_from_other_threads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_other_threads_post_waits_for_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_other_threads_post_may_be_too_late, set_up, tear_down),
        cmocka_unit_test_setup_teardown(conn_init_may_refuse, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_queued_goes_out_before_the_close, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_paused_connection_keeps_what_came, set_up, tear_down),
        cmocka_unit_test_setup_teardown(passes_are_made_when_idle, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
