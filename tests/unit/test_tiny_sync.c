/* The blocking calls of tinyproto against a server of ours and against scripted peers
 * (doc/protocol/tinyproto.md, 8), addresses, and the texts of errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>

#include "tiny_peer.h"

static void echo(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    size_t len = message->len;
    void *ptr = tinyproto_message_take(message);

    if (ptr == NULL || tinyproto_transmit_take(conn, ptr, len, NULL, NULL) != TINYPROTO_OK) {
        free(ptr);
        tinyproto_abort(conn);
    }
}

static const struct tinyproto_handler echo_handler = { .transmission_received = echo };

static struct tinyproto_sync *connected(const char *text)
{
    struct tinyproto_address address;
    struct tinyproto_sync *sync;

    assert_int_equal(tinyproto_address_parse(text, &address), TINYPROTO_OK);
    assert_int_equal(tinyproto_sync_connect(&address, 10000, &sync, NULL), TINYPROTO_OK);
    return sync;
}

static bool add_up(void *arg, const uint8_t *ptr, size_t len)
{
    uint64_t *sum = arg;

    for (size_t i = 0; i < len; i++)
        *sum += ptr[i];
    return true;
}

static void says_and_hears(void **state)
{
    static const size_t sizes[] = { 0, 1, 2, 255, 256, 65535, 65536, 1 << 20, 5000000 };
    struct served served;
    struct tinyproto_sync *sync;

    (void)state;
    served_start(&served, NULL, &echo_handler, NULL);
    served_run(&served);
    sync = connected(served.address);
    assert_string_equal(tinyproto_sync_peer(sync), served.address);
    for (size_t i = 0; i < TABLE_LEN(sizes); i++) {
        uint8_t *bytes = malloc(sizes[i] + 1);
        uint64_t sum = 0, size;
        void *ptr;
        size_t len;

        table_require(bytes != NULL, "memory");
        memset(bytes, 1, sizes[i]);
        assert_int_equal(tinyproto_sync_transmit(sync, bytes, sizes[i], 20000, NULL), TINYPROTO_OK);
        assert_int_equal(tinyproto_sync_receive(sync, 20000, &ptr, &len, NULL), TINYPROTO_OK);
        assert_int_equal(len, sizes[i]);
        assert_memory_equal(ptr, bytes, len);
        free(ptr);
        assert_int_equal(tinyproto_sync_transmit(sync, bytes, sizes[i], 20000, NULL), TINYPROTO_OK);
        assert_int_equal(tinyproto_sync_receive_to(sync, 20000, add_up, &sum, &size, NULL),
                         TINYPROTO_OK);
        assert_int_equal(size, sizes[i]);
        assert_int_equal(sum, sizes[i]);
        free(bytes);
    }
    tinyproto_sync_close(sync);
    served_stop(&served);
}

/* What a peer does, from its accept on; and what a receive with 300 ms says then. */
static const struct peer_case {
    const char *name, *sends;
    bool ends;
    enum tinyproto_error connect, receive;
} peers[] = {
    { "limit", "fe", true, TINYPROTO_E_LIMIT, TINYPROTO_OK },
    { "garbage", "41", true, TINYPROTO_E_NOT_TINYPROTO, TINYPROTO_OK },
    { "vanishes at once", "", true, TINYPROTO_E_CLOSED_HANDSHAKE, TINYPROTO_OK },
    { "silence", "", false, TINYPROTO_E_TIMEOUT, TINYPROTO_OK },
    { "ends in order", "ff", true, TINYPROTO_OK, TINYPROTO_E_CLOSED },
    { "vanishes in a message", "ff 00000003 61", true, TINYPROTO_OK, TINYPROTO_E_CLOSED_INSIDE },
    { "says nothing", "ff", false, TINYPROTO_OK, TINYPROTO_E_TIMEOUT },
    { "stalls in a message", "ff 00000003 61", false, TINYPROTO_OK, TINYPROTO_E_TIMEOUT },
    { "says something", "ff 00000003 616263", false, TINYPROTO_OK, TINYPROTO_OK },
};

struct peer {
    const struct peer_case *c;
    int listener;
    int fd;
};

static void *play(void *arg)
{
    struct peer *p = arg;

    p->fd = peer_accept(p->listener);
    peer_send(p->fd, p->c->sends);
    if (p->c->ends)
        (void)shutdown(p->fd, SHUT_WR);
    return NULL;
}

static void against(const struct peer_case *c)
{
    struct peer peer = { .c = c };
    struct tinyproto_address address;
    struct tinyproto_sync *sync;
    struct tinyproto_cause why;
    pthread_t thread;
    size_t len;
    void *ptr;
    int port;

    print_message("# %s\n", c->name);
    peer.listener = peer_listen(&port);
    table_require(pthread_create(&thread, NULL, play, &peer) == 0, "thread");
    assert_int_equal(tinyproto_address_set(&address, "127.0.0.1", port), TINYPROTO_OK);
    assert_int_equal(tinyproto_sync_connect(
                         &address, c->connect == TINYPROTO_E_TIMEOUT ? 100 : 10000, &sync, &why),
                     c->connect);
    if (c->connect == TINYPROTO_OK) {
        enum tinyproto_error err = tinyproto_sync_receive(sync, 300, &ptr, &len, &why);

        assert_int_equal(err, c->receive);
        if (err == TINYPROTO_OK) {
            assert_int_equal(len, 3);
            free(ptr);
        }
    } else {
        assert_null(sync);
        assert_int_equal(why.err, c->connect);
    }
    (void)pthread_join(thread, NULL);
    close(peer.fd);
    tinyproto_sync_close(sync);
    close(peer.listener);
}

static void tells_what_the_peer_did(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(peers); i++)
        against(&peers[i]);
}

static void a_receive_that_timed_out_goes_on(void **state)
{
    static const struct peer_case slow = { .name = "slow", .sends = "ff 00000003 61" };
    struct peer peer = { .c = &slow };
    struct tinyproto_address address;
    struct tinyproto_sync *sync;
    struct tinyproto_cause why;
    pthread_t thread;
    size_t len;
    void *ptr;
    int port;

    (void)state;
    peer.listener = peer_listen(&port);
    table_require(pthread_create(&thread, NULL, play, &peer) == 0, "thread");
    assert_int_equal(tinyproto_address_set(&address, "127.0.0.1", port), TINYPROTO_OK);
    assert_int_equal(tinyproto_sync_connect(&address, 10000, &sync, NULL), TINYPROTO_OK);
    assert_int_equal(tinyproto_sync_receive(sync, 50, &ptr, &len, &why), TINYPROTO_E_TIMEOUT);
    assert_int_equal(why.system, 0);
    (void)pthread_join(thread, NULL);
    peer_send(peer.fd, "6263");
    assert_int_equal(tinyproto_sync_receive(sync, 10000, &ptr, &len, &why), TINYPROTO_OK);
    assert_int_equal(len, 3);
    assert_memory_equal(ptr, "abc", 3);
    free(ptr);
    close(peer.fd);
    assert_int_equal(tinyproto_sync_receive(sync, 10000, &ptr, &len, &why), TINYPROTO_E_CLOSED);
    assert_int_equal(tinyproto_sync_transmit(sync, "x", 1, 100, &why), TINYPROTO_E_CLOSED);
    tinyproto_sync_close(sync);
    close(peer.listener);
}

/* The stall time does not run between calls, in which nobody looks. */
static void a_message_may_wait_for_the_next_call(void **state)
{
    static const struct peer_case slow = { .name = "slow", .sends = "ff 00000003 61" };
    struct peer peer = { .c = &slow };
    struct tinyproto_address address;
    struct tinyproto_sync *sync;
    pthread_t thread;
    size_t len;
    void *ptr;
    int port;

    (void)state;
    peer.listener = peer_listen(&port);
    table_require(pthread_create(&thread, NULL, play, &peer) == 0, "thread");
    assert_int_equal(tinyproto_address_set(&address, "127.0.0.1", port), TINYPROTO_OK);
    assert_int_equal(tinyproto_sync_connect(&address, 10000, &sync, NULL), TINYPROTO_OK);
    (void)pthread_join(thread, NULL);
    tinyproto_sync_set_timeout(sync, 300);
    assert_int_equal(tinyproto_sync_receive(sync, 100, &ptr, &len, NULL), TINYPROTO_E_TIMEOUT);
    (void)poll(NULL, 0, 250);
    peer_send(peer.fd, "6263");
    assert_int_equal(tinyproto_sync_receive(sync, 10000, &ptr, &len, NULL), TINYPROTO_OK);
    free(ptr);
    close(peer.fd);
    tinyproto_sync_close(sync);
    close(peer.listener);
}

#define FLOOD 70000

struct flood {
    struct hook_log log;
    int listener;
};

static void *pour(void *arg)
{
    static const uint8_t messages[4 * FLOOD];
    struct flood *flood = arg;
    const int size = 400000;
    int fd = peer_accept(flood->listener);
    uint8_t answers[4096];

    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    peer_send(fd, "ff");
    peer_write(fd, messages, sizeof(messages) / 2);
    hook_log(&flood->log, "flooded");
    peer_write(fd, messages, sizeof(messages) / 2);
    while (recv(fd, answers, sizeof(answers), 0) > 0)
        ;
    close(fd);
    return NULL;
}

/* A transmit keeps what comes in the meantime, also messages without a byte, but not without end. */
static void empty_messages_are_bounded_too(void **state)
{
    struct flood flood = { .log = HOOK_LOG_INIT };
    struct tinyproto_address address;
    struct tinyproto_sync *sync;
    pthread_t thread;
    int port;

    (void)state;
    flood.listener = peer_listen(&port);
    table_require(pthread_create(&thread, NULL, pour, &flood) == 0, "thread");
    assert_int_equal(tinyproto_address_set(&address, "127.0.0.1", port), TINYPROTO_OK);
    assert_int_equal(tinyproto_sync_connect(&address, 10000, &sync, NULL), TINYPROTO_OK);
    hook_log_wait(&flood.log, "flooded");
    assert_int_equal(tinyproto_sync_transmit(sync, "x", 1, 20000, NULL), TINYPROTO_E_QUEUE_FULL);
    tinyproto_sync_close(sync);
    (void)pthread_join(thread, NULL);
    close(flood.listener);
}

static void reads_and_prints_addresses(void **state)
{
    static const struct {
        const char *text, *host;
        int port;
        bool is_unix;
    } cases[] = {
        { "127.0.0.1:80", "127.0.0.1", 80, false },
        { "[::1]:0", "::1", 0, false },
        { "host:65535", "host", 65535, false },
        { "unix:/a/b:c", "/a/b:c", 0, true },
        { "host", NULL, 0, false },
        { "host:", NULL, 0, false },
        { ":1", NULL, 0, false },
        { "::1:1", NULL, 0, false },
        { "[::1]", NULL, 0, false },
        { "[::1]1:1", NULL, 0, false },
        { "[]:1", NULL, 0, false },
        { "host:65536", NULL, 0, false },
        { "host:-1", NULL, 0, false },
        { "host:1x", NULL, 0, false },
        { "host:000001", NULL, 0, false },
        { "unix:", NULL, 0, false },
        { "", NULL, 0, false },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct tinyproto_address a;
        char text[TINYPROTO_ADDRESS_TEXT_MAX];
        enum tinyproto_error err = tinyproto_address_parse(cases[i].text, &a);

        print_message("# %s\n", cases[i].text);
        assert_int_equal(err, cases[i].host != NULL ? TINYPROTO_OK : TINYPROTO_E_ARGUMENT);
        if (err != TINYPROTO_OK)
            continue;
        assert_string_equal(a.host, cases[i].host);
        assert_int_equal(a.port, cases[i].port);
        assert_int_equal(a.is_unix, cases[i].is_unix);
        assert_string_equal(tinyproto_address_print(&a, text), cases[i].text);
    }
}

static void every_error_has_a_text(void **state)
{
    const struct tinyproto_cause why = { .err = TINYPROTO_E_CONNECT, .system = ECONNREFUSED };
    char text[TINYPROTO_CAUSE_MAX];

    (void)state;
    for (int i = TINYPROTO_OK; i <= TINYPROTO_E_STOPPED; i++)
        assert_string_not_equal(tinyproto_strerror((enum tinyproto_error)i), "unknown error");
    assert_string_equal(tinyproto_strerror((enum tinyproto_error)999), "unknown error");
    assert_string_equal(tinyproto_cause_print(&why, text, sizeof(text)),
                        "cannot connect: Connection refused");
    assert_string_equal(tinyproto_cause_print(&why, text, 7), "cannot");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_and_hears),
        cmocka_unit_test(tells_what_the_peer_did),
        cmocka_unit_test(a_receive_that_timed_out_goes_on),
        cmocka_unit_test(a_message_may_wait_for_the_next_call),
        cmocka_unit_test(empty_messages_are_bounded_too),
        cmocka_unit_test(reads_and_prints_addresses),
        cmocka_unit_test(every_error_has_a_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
