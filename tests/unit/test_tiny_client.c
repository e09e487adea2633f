/* A tinyproto client against a scripted peer, and client and server of ours together: connecting,
 * failing, queues, large messages from descriptors and in pieces, crossing
 * (doc/protocol/tinyproto.md, 3, 4, 8 and 9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/un.h>
#include <uv.h>

#include "tiny_peer.h"

/* ---- A client that logs its hooks and ends with its connection ---- */

struct fixture {
    struct hook_log log;
    struct tinyproto_client *client;
    struct tinyproto_handler handler;
    pthread_t thread;
    int listener, port;
    uint64_t received, sum;
};

static struct fixture *of_conn(const struct tinyproto_conn *conn)
{
    return tinyproto_conn_arg(conn);
}

static void on_pre(struct tinyproto_conn *conn)
{
    hook_log(&of_conn(conn)->log, "pre");
}

static void on_failed(struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    hook_log(&of_conn(conn)->log, "failed:%d", (int)why->err);
}

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    hook_log(&of_conn(conn)->log, "message:%zu", message->len);
}

static void on_post(struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    hook_log(&of_conn(conn)->log, "post:%d", (int)why->err);
}

static void on_done(void *arg, struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    (void)conn;
    hook_log(arg, "done:%d", (int)why->err);
}

static void on_shutdown(struct tinyproto_client *client, struct tinyproto_conn *conn,
                        const struct tinyproto_cause *why)
{
    struct fixture *f = tinyproto_client_arg(client);

    (void)conn;
    hook_log(&f->log, "shutdown:%d", (int)why->err);
    tinyproto_client_stop(client);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const struct tinyproto_client_hooks hooks = { .arg = f, .conn_shutdown = on_shutdown };

    table_require(f != NULL, "memory");
    f->log = (struct hook_log)HOOK_LOG_INIT;
    f->handler = (struct tinyproto_handler){ .arg = f,
                                             .pre_loop = on_pre,
                                             .failed = on_failed,
                                             .transmission_received = on_message,
                                             .post_loop = on_post };
    f->listener = peer_listen(&f->port);
    table_require(tinyproto_client_new(&hooks, NULL, NULL, &f->client) == TINYPROTO_OK, "client");
    tinyproto_client_set_handler(f->client, &f->handler);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    tinyproto_client_free(f->client);
    close(f->listener);
    free(f);
    return 0;
}

static void *client_main(void *arg)
{
    (void)tinyproto_client_run(arg);
    return NULL;
}

static int run(struct fixture *f)
{
    table_require(pthread_create(&f->thread, NULL, client_main, f->client) == 0, "thread");
    return peer_accept(f->listener);
}

static void join(struct fixture *f)
{
    (void)pthread_join(f->thread, NULL);
}

/* ---- Connecting ---- */

static void queues_before_the_handshake(void **state)
{
    struct fixture *f = *state;
    struct tinyproto_conn *conn = tinyproto_client_connect(f->client, "127.0.0.1", f->port);
    int fd;

    assert_non_null(conn);
    assert_int_equal(tinyproto_conn_state(conn), TINYPROTO_CONNECTING);
    assert_int_equal(tinyproto_transmit_then(conn, "one", 3, on_done, &f->log), TINYPROTO_OK);
    assert_int_equal(tinyproto_transmit_then(conn, "", 0, on_done, &f->log), TINYPROTO_OK);
    fd = run(f);
    peer_expect(fd, "ff");
    peer_send(fd, "ff");
    peer_expect(fd, "00000003");
    peer_send(fd, "ff");
    peer_expect(fd, "6f6e65 00000000");
    peer_send(fd, "ff");
    hook_log_wait(&f->log, "done:0 done:0");
    close(fd);
    join(f);
    assert_string_equal(f->log.text, "pre done:0 done:0 post:0 shutdown:0 ");
}

static void tells_why_it_could_not_connect(void **state)
{
    static const struct {
        const char *name, *handshake; /* NULL: nobody listens */
        int err;
    } cases[] = {
        { "nobody", NULL, TINYPROTO_E_CONNECT },
        { "limit", "fe", TINYPROTO_E_LIMIT },
        { "limit of 2.0.1", "0000000000", TINYPROTO_E_REFUSED },
        { "another protocol", "485454502f312e31", TINYPROTO_E_NOT_TINYPROTO },
        { "the end", "", TINYPROTO_E_CLOSED_HANDSHAKE },
    };

    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct fixture *f;
        char want[64];
        int fd;

        (void)tear_down(state);
        (void)set_up(state);
        f = *state;
        print_message("# %s\n", cases[i].name);
        if (cases[i].handshake == NULL) { /* a port that nobody listens on any more */
            close(f->listener);
            assert_non_null(tinyproto_client_connect(f->client, "127.0.0.1", f->port));
            f->listener = -1;
            (void)tinyproto_client_run(f->client);
        } else {
            struct tinyproto_conn *conn = tinyproto_client_connect(f->client, "127.0.0.1", f->port);

            assert_int_equal(tinyproto_transmit_then(conn, "x", 1, on_done, &f->log), TINYPROTO_OK);
            fd = run(f);
            peer_send(fd, cases[i].handshake);
            (void)shutdown(fd, SHUT_WR);
            join(f);
            close(fd);
        }
        snprintf(want, sizeof(want), "failed:%d shutdown:%d ", cases[i].err, cases[i].err);
        assert_non_null(strstr(f->log.text, want));
        assert_null(strstr(f->log.text, "pre"));
        assert_true(cases[i].handshake == NULL || strncmp(f->log.text, "done:", 5) == 0);
    }
}

static void gives_up_when_nobody_answers(void **state)
{
    struct fixture *f = *state;
    int fd;

    tinyproto_client_set_timeout(f->client, 50);
    assert_non_null(tinyproto_client_connect(f->client, "127.0.0.1", f->port));
    fd = run(f);
    join(f);
    close(fd);
    assert_string_equal(f->log.text, "failed:9 shutdown:9 ");
}

static void says_that_a_name_is_unknown(void **state)
{
    struct fixture *f = *state;

    assert_null(tinyproto_client_connect(f->client, "", 1));
    assert_null(tinyproto_client_connect(f->client, "127.0.0.1", 0));
    assert_null(tinyproto_client_connect(f->client, "127.0.0.1", 65536));
    assert_non_null(tinyproto_client_connect(f->client, "no such name", 1));
    assert_int_equal(tinyproto_client_run(f->client), TINYPROTO_OK);
    assert_string_equal(f->log.text, "failed:7 shutdown:7 ");
}

static void resolves_names(void **state)
{
    struct fixture *f = *state;
    int fd;

    assert_non_null(tinyproto_client_connect(f->client, "localhost", f->port));
    fd = run(f); /* if ::1 comes first, nobody listens there, and the next address is tried */
    peer_send(fd, "ff");
    peer_expect(fd, "ff");
    hook_log_wait(&f->log, "pre");
    close(fd);
    join(f);
}

static void is_freed_in_the_middle_of_it(void **state)
{
    struct fixture *f = *state;
    struct tinyproto_conn *conn = tinyproto_client_connect(f->client, "127.0.0.1", f->port);

    assert_int_equal(tinyproto_transmit_then(conn, "x", 1, on_done, &f->log), TINYPROTO_OK);
    tinyproto_client_free(f->client);
    f->client = NULL;
    assert_string_equal(f->log.text, "done:19 failed:19 shutdown:19 ");
}

static void note_the_end(struct tinyproto_client *client)
{
    hook_log(tinyproto_client_arg(client), "over");
}

/* Nothing else is in the loop, and no hook runs: the stop is noticed all the same. */
static void stops_on_a_loop_without_anything_else(void **state)
{
    struct hook_log log = HOOK_LOG_INIT;
    const struct tinyproto_client_hooks hooks = { .arg = &log, .post_loop = note_the_end };
    struct tinyproto_client *client;
    uv_loop_t loop;

    (void)state;
    table_require(uv_loop_init(&loop) == 0, "loop");
    for (int turns = 0; turns < 2; turns++) { /* before its first turn, and after */
        table_require(tinyproto_client_new(&hooks, NULL, &loop, &client) == TINYPROTO_OK, "client");
        for (int i = 0; i < turns * 3; i++)
            (void)uv_run(&loop, UV_RUN_NOWAIT);
        assert_true(uv_loop_alive(&loop));
        tinyproto_client_stop(client);
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        tinyproto_client_free(client);
    }
    assert_string_equal(log.text, "over over ");
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* Its time to connect begins with the connection, not with the loop's last turn. */
static void may_connect_long_after_it_was_made(void **state)
{
    struct fixture *f = *state;
    int fd;

    tinyproto_client_set_timeout(f->client, 600);
    (void)poll(NULL, 0, 800);
    assert_non_null(tinyproto_client_connect(f->client, "127.0.0.1", f->port));
    fd = run(f);
    peer_expect(fd, "ff");
    (void)poll(NULL, 0, 40);
    peer_send(fd, "ff");
    close(fd);
    join(f);
    assert_string_equal(f->log.text, "pre post:0 shutdown:0 ");
}

static void wakes_the_loop(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

static void run_for(uv_loop_t *loop, uint64_t ms)
{
    uv_timer_t timer;
    bool is_over = false;

    (void)uv_timer_init(loop, &timer);
    timer.data = &is_over;
    (void)uv_timer_start(&timer, wakes_the_loop, ms, 0);
    while (!is_over)
        (void)uv_run(loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    (void)uv_run(loop, UV_RUN_NOWAIT);
}

/* 00 is a refusal if nothing follows: while paused that cannot be known. */
static void a_pause_puts_off_what_a_lone_zero_means(void **state)
{
    struct fixture *f = *state;
    const struct tinyproto_client_hooks hooks = { .arg = f, .conn_shutdown = on_shutdown };
    struct tinyproto_options options;
    struct tinyproto_conn *conn;
    struct tinyproto_client *client;
    uv_loop_t loop;
    int fd;

    tinyproto_client_options(&options);
    options.grace_ms = 400;
    table_require(uv_loop_init(&loop) == 0, "loop");
    table_require(tinyproto_client_new(&hooks, &options, &loop, &client) == TINYPROTO_OK, "client");
    tinyproto_client_set_handler(client, &f->handler);
    conn = tinyproto_client_connect(client, "127.0.0.1", f->port);
    assert_int_equal(tinyproto_transmit(conn, "x", 1), TINYPROTO_OK);
    fd = peer_accept(f->listener);
    peer_send(fd, "ff");
    run_for(&loop, 50);
    peer_expect(fd, "ff 00000001");
    peer_send(fd, "00");
    run_for(&loop, 50);
    tinyproto_conn_pause(conn);
    run_for(&loop, 800);
    assert_int_equal(tinyproto_conn_state(conn), TINYPROTO_OPEN);
    tinyproto_conn_resume(conn);
    peer_send(fd, "000002 ff 6263");
    run_for(&loop, 50);
    peer_expect(fd, "ff 78");
    close(fd);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_string_equal(f->log.text, "pre message:2 post:0 shutdown:0 ");
    tinyproto_client_free(client);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* A close that waits for the handshake needs to read: nothing can pause it any more. */
static void a_pause_after_the_close_is_none(void **state)
{
    struct fixture *f = *state;
    struct tinyproto_conn *conn = tinyproto_client_connect(f->client, "127.0.0.1", f->port);
    int fd;

    assert_int_equal(tinyproto_transmit(conn, "x", 1), TINYPROTO_OK);
    tinyproto_close(conn);
    tinyproto_conn_pause(conn);
    fd = run(f);
    peer_expect(fd, "ff");
    peer_send(fd, "ff");
    peer_expect(fd, "00000001");
    peer_send(fd, "ff");
    peer_expect(fd, "78");
    peer_expect_end(fd);
    join(f);
    assert_string_equal(f->log.text, "pre post:0 shutdown:0 ");
}

static void its_queue_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct tinyproto_conn *conn = tinyproto_client_connect(f->client, "127.0.0.1", f->port);
    size_t large = (size_t)80 * 1024 * 1024;
    void *block = calloc(1, large);

    table_require(block != NULL, "memory");
    assert_int_equal(tinyproto_transmit_take(conn, block, large, NULL, NULL), TINYPROTO_OK);
    assert_int_equal(tinyproto_transmit(conn, "x", 1), TINYPROTO_E_QUEUE_FULL);
    assert_int_equal(tinyproto_transmit(conn, block, (size_t)TINYPROTO_MESSAGE_MAX + 1),
                     TINYPROTO_E_TOO_LARGE);
    assert_true(tinyproto_conn_queued(conn) >= large);
    tinyproto_abort(conn);
    assert_int_equal(tinyproto_transmit(conn, "x", 1), TINYPROTO_E_STATE);
}

static void on_received(void *arg, struct tinyproto_conn *conn, struct tinyproto_message *message,
                        const struct tinyproto_cause *why)
{
    struct fixture *f = arg;

    hook_log(&f->log, message != NULL ? "receive:%zu" : "ended:%zu",
             message != NULL ? message->len : (size_t)why->err);
    if (message != NULL && message->len == 1)
        assert_int_equal(tinyproto_receive(conn, on_received, f), TINYPROTO_OK);
}

static void receive_goes_before_the_hook(void **state)
{
    struct fixture *f = *state;
    struct tinyproto_conn *conn = tinyproto_client_connect(f->client, "127.0.0.1", f->port);
    int fd;

    assert_int_equal(tinyproto_receive(conn, on_received, f), TINYPROTO_OK);
    assert_int_equal(tinyproto_receive(conn, on_received, f), TINYPROTO_E_STATE);
    fd = run(f);
    peer_expect(fd, "ff");
    peer_send(fd, "ff 00000002 6161 00000003 616161");
    peer_expect(fd, "ffff");
    close(fd);
    join(f);
    assert_string_equal(f->log.text, "pre receive:2 message:3 post:0 shutdown:0 ");
}

static void receive_is_told_of_the_end(void **state)
{
    struct fixture *f = *state;
    struct tinyproto_conn *conn = tinyproto_client_connect(f->client, "127.0.0.1", f->port);
    int fd;

    assert_int_equal(tinyproto_receive(conn, on_received, f), TINYPROTO_OK);
    fd = run(f);
    peer_expect(fd, "ff");
    peer_send(fd, "ff 00000001 61");
    peer_expect(fd, "ff");
    close(fd);
    join(f);
    assert_string_equal(f->log.text, "pre receive:1 ended:14 post:0 shutdown:0 ");
}

/* ---- In pieces, from descriptors ---- */

static enum tinyproto_delivery in_pieces(struct tinyproto_conn *conn, size_t size)
{
    (void)conn;
    return size == 1 ? TINYPROTO_WHOLE : size == 2 ? TINYPROTO_REFUSE : TINYPROTO_PIECES;
}

static void on_data(struct tinyproto_conn *conn, const uint8_t *ptr, size_t len)
{
    struct fixture *f = of_conn(conn);

    f->received += len;
    for (size_t i = 0; i < len; i++)
        f->sum += ptr[i];
}

static void on_end(struct tinyproto_conn *conn)
{
    struct fixture *f = of_conn(conn);

    hook_log(&f->log, "end:%llu:%llu", (unsigned long long)f->received, (unsigned long long)f->sum);
}

static void receives_in_pieces_what_it_wants(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->handler.begin = in_pieces;
    f->handler.data = on_data;
    f->handler.end = on_end;
    assert_non_null(tinyproto_client_connect(f->client, "127.0.0.1", f->port));
    fd = run(f);
    peer_expect(fd, "ff");
    peer_send(fd, "ff 00000003 01");
    peer_expect(fd, "ff");
    peer_send(fd, "0203 00000001 61 00000000");
    peer_expect(fd, "ffff");
    peer_send(fd, "00000002");
    peer_expect(fd, "00");
    peer_expect_end(fd);
    join(f);
    assert_string_equal(f->log.text, "pre end:3:6 message:1 end:3:6 post:11 shutdown:11 ");
}

static void pause_a_moment(struct tinyproto_conn *conn, const uint8_t *ptr, size_t len)
{
    on_data(conn, ptr, len);
    tinyproto_conn_pause(conn);
}

static bool resume_one(void *arg, struct tinyproto_conn *conn)
{
    (void)arg;
    tinyproto_conn_resume(conn);
    return true;
}

static void on_client_pass(struct tinyproto_client *client)
{
    tinyproto_client_each(client, resume_one, NULL);
}

/* Each piece pauses, each turn of the loop goes on: nothing is lost, also not the end. */
static void pausing_in_every_piece_loses_nothing(void **state)
{
    struct fixture *f = *state;
    const struct tinyproto_client_hooks hooks = { .arg = f,
                                                  .loop_pass = on_client_pass,
                                                  .conn_shutdown = on_shutdown };
    uint8_t block[4096];
    int fd;

    tinyproto_client_free(f->client);
    table_require(tinyproto_client_new(&hooks, NULL, NULL, &f->client) == TINYPROTO_OK, "client");
    tinyproto_client_set_handler(f->client, &f->handler);
    f->handler.begin = in_pieces;
    f->handler.data = pause_a_moment;
    f->handler.end = on_end;
    assert_non_null(tinyproto_client_connect(f->client, "127.0.0.1", f->port));
    fd = run(f);
    memset(block, 1, sizeof(block));
    peer_send(fd, "ff 00100000");
    for (int i = 0; i < 256; i++)
        peer_write(fd, block, sizeof(block));
    peer_send(fd, "00000001 61");
    hook_log_wait(&f->log, "end:1048576:1048576 message:1");
    close(fd);
    join(f);
}

static void transmits_from_descriptors(void **state)
{
    struct fixture *f = *state;
    struct tinyproto_conn *conn = tinyproto_client_connect(f->client, "127.0.0.1", f->port);
    const size_t size = 1000003;
    uint8_t *bytes = malloc(size), *got = malloc(size);
    FILE *file = tmpfile();
    int pipes[2], fd;

    table_require(bytes != NULL && got != NULL && file != NULL && pipe(pipes) == 0, "set-up");
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    table_require(fwrite(bytes, 1, size, file) == size && fflush(file) == 0, "file");
    assert_int_equal(tinyproto_transmit_fd(conn, fileno(file), 3, size - 3, on_done, &f->log),
                     TINYPROTO_OK);
    assert_int_equal(tinyproto_transmit_fd(conn, pipes[0], -1, 5, on_done, &f->log), TINYPROTO_OK);
    assert_int_equal(tinyproto_transmit_fd(conn, fileno(file), 0, 0, on_done, &f->log),
                     TINYPROTO_OK);
    assert_int_equal(
        tinyproto_transmit_fd(conn, fileno(file), (int64_t)size - 2, 3, on_done, &f->log),
        TINYPROTO_OK); /* a byte more than there is */
    fd = run(f);
    peer_expect(fd, "ff");
    peer_send(fd, "ff");
    peer_expect(fd, "000f4240");
    peer_send(fd, "ff");
    assert_int_equal(peer_read(fd, got, size - 3), size - 3);
    assert_memory_equal(got, bytes + 3, size - 3);
    peer_expect(fd, "00000005");
    peer_send(fd, "ff");
    table_require(write(pipes[1], "abc", 3) == 3, "pipe");
    peer_expect(fd, "616263");
    table_require(write(pipes[1], "de", 2) == 2, "pipe");
    peer_expect(fd, "6465 00000000");
    peer_send(fd, "ff");
    peer_expect(fd, "00000003");
    peer_send(fd, "ff");
    (void)peer_read(fd, got, 3);
    join(f);
    assert_string_equal(f->log.text, "pre done:0 done:0 done:0 done:18 post:18 shutdown:18 ");
    close(fd);
    close(pipes[0]);
    close(pipes[1]);
    (void)fclose(file);
    free(bytes);
    free(got);
}

static void an_end_does_not_wait_for_a_silent_pipe(void **state)
{
    struct fixture *f = *state;
    struct tinyproto_conn *conn = tinyproto_client_connect(f->client, "127.0.0.1", f->port);
    int pipes[2], fd;

    table_require(pipe(pipes) == 0, "pipe");
    assert_int_equal(tinyproto_transmit_fd(conn, pipes[0], -1, 5, on_done, &f->log), TINYPROTO_OK);
    fd = run(f);
    peer_send(fd, "ff");
    peer_expect(fd, "ff 00000005");
    peer_send(fd, "ff");
    (void)poll(NULL, 0,
               50); /* most often the thread waits for the pipe by now; either way is good */
    tinyproto_client_stop(f->client);
    join(f);
    assert_non_null(strstr(f->log.text, "done:19 "));
    close(fd);
    close(pipes[0]);
    close(pipes[1]);
}

/* ---- Client and server of ours on one loop, both talking at once ---- */

#define ROUNDS 200

struct talk {
    struct tinyproto_server *server;
    struct tinyproto_client *client;
    size_t sent, received; /* of both sides */
    bool failed;
};

static void say(struct tinyproto_conn *conn)
{
    struct talk *talk = tinyproto_conn_arg(conn);

    for (size_t i = 0; i < ROUNDS; i++) { /* sizes from nothing to more than a socket buffer */
        size_t len = i % 50 == 49 ? 5000000 : i * 37 % 5000;
        void *block = calloc(1, len + 1);

        table_require(block != NULL, "memory");
        if (tinyproto_transmit_take(conn, block, len, NULL, NULL) != TINYPROTO_OK)
            talk->failed = true;
        talk->sent += len;
    }
}

static void hear(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    struct talk *talk = tinyproto_conn_arg(conn);

    talk->received += message->len;
    if (talk->received == talk->sent && talk->sent > 0) {
        tinyproto_client_stop(talk->client);
        tinyproto_server_stop(talk->server);
    }
}

static void fall_silent(struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    struct talk *talk = tinyproto_conn_arg(conn);

    if (why->err != TINYPROTO_OK)
        talk->failed = true;
}

/* Every announcement may cross one of the other side; with the reference the first would end it. */
static void both_may_talk_at_once(void **state)
{
    struct talk talk = { .failed = false };
    const struct tinyproto_handler handler = {
        .arg = &talk, .pre_loop = say, .transmission_received = hear, .post_loop = fall_silent
    };
    struct tinyproto_options options;
    uv_loop_t loop;
    char address[TINYPROTO_ADDRESS_TEXT_MAX];

    (void)state;
    tinyproto_server_options(&options);
    options.queue_max_bytes = SIZE_MAX / 4;
    table_require(uv_loop_init(&loop) == 0, "loop");
    table_require(tinyproto_server_new(NULL, &options, &loop, &talk.server) == TINYPROTO_OK &&
                      tinyproto_client_new(NULL, &options, &loop, &talk.client) == TINYPROTO_OK,
                  "ends");
    tinyproto_server_set_handler(talk.server, &handler);
    tinyproto_client_set_handler(talk.client, &handler);
    snprintf(address, sizeof(address), "unix:/tmp/test_tiny_client.%d", (int)getpid());
    {
        struct tinyproto_address a;

        assert_int_equal(tinyproto_address_parse(address, &a), TINYPROTO_OK);
        assert_int_equal(tinyproto_server_add_address(talk.server, &a), TINYPROTO_OK);
        assert_int_equal(tinyproto_server_start(talk.server).err, TINYPROTO_OK);
        assert_string_equal(tinyproto_server_addr(talk.server, 0), address);
        assert_non_null(tinyproto_client_connect_address(talk.client, &a));
    }
    assert_int_equal(tinyproto_server_run(talk.server).err, TINYPROTO_E_STATE);
    assert_int_equal(tinyproto_client_run(talk.client), TINYPROTO_E_STATE);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_false(talk.failed);
    assert_true(talk.received > 0);
    assert_int_equal(talk.received, talk.sent);
    tinyproto_server_free(talk.server);
    tinyproto_client_free(talk.client);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_not_equal(access(address + 5, F_OK), 0); /* the socket's file is gone */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(queues_before_the_handshake, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tells_why_it_could_not_connect, set_up, tear_down),
        cmocka_unit_test_setup_teardown(gives_up_when_nobody_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(says_that_a_name_is_unknown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(resolves_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_freed_in_the_middle_of_it, set_up, tear_down),
        cmocka_unit_test(stops_on_a_loop_without_anything_else),
        cmocka_unit_test_setup_teardown(may_connect_long_after_it_was_made, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_pause_puts_off_what_a_lone_zero_means, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_pause_after_the_close_is_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(its_queue_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(receive_goes_before_the_hook, set_up, tear_down),
        cmocka_unit_test_setup_teardown(receive_is_told_of_the_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(receives_in_pieces_what_it_wants, set_up, tear_down),
        cmocka_unit_test_setup_teardown(pausing_in_every_piece_loses_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(transmits_from_descriptors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_end_does_not_wait_for_a_silent_pipe, set_up, tear_down),
        cmocka_unit_test(both_may_talk_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
