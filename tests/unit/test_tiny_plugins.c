/* Plugins of tinyproto: order, sizes, failures, state of each connection
 * (doc/protocol/tinyproto.md, 10). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tiny_peer.h"

struct fixture {
    struct served served;
    struct hook_log log;
    struct tinyproto_handler handler;
    struct tinyproto_plugin plugin;
    struct tinyproto_options options;
};

/* Every byte twice on the way out, every second byte on the way in. */
static bool doubled(void *state, uint8_t **ptr, size_t *len)
{
    uint8_t *twice = malloc(*len * 2 + 1);

    (void)state;
    if (twice == NULL)
        return false;
    for (size_t i = 0; i < *len; i++)
        twice[2 * i] = twice[2 * i + 1] = (*ptr)[i];
    free(*ptr);
    *ptr = twice;
    *len *= 2;
    return true;
}

static bool halved(void *state, uint8_t **ptr, size_t *len)
{
    (void)state;
    if (*len % 2 != 0)
        return false;
    *len /= 2;
    for (size_t i = 0; i < *len; i++)
        (*ptr)[i] = (*ptr)[2 * i];
    return true;
}

/* A state of each connection: counts its messages in their first byte. */
static bool open_counter(void *arg, struct tinyproto_conn *conn, void **state)
{
    (void)conn;
    hook_log(arg, "open");
    *state = calloc(1, 1 + sizeof(arg));
    if (*state == NULL)
        return false;
    memcpy((uint8_t *)*state + 1, &arg, sizeof(arg));
    return true;
}

static bool count(void *state, uint8_t **ptr, size_t *len)
{
    if (*len > 0)
        (*ptr)[0] = ++*(uint8_t *)state;
    return true;
}

static void close_counter(void *state)
{
    struct hook_log *log;

    memcpy(&log, (uint8_t *)state + 1, sizeof(log));
    hook_log(log, "close:%d", *(uint8_t *)state);
    free(state);
}

static bool fails_to_open(void *arg, struct tinyproto_conn *conn, void **state)
{
    (void)arg;
    (void)conn;
    (void)state;
    return false;
}

static bool fails(void *state, uint8_t **ptr, size_t *len)
{
    (void)state;
    (void)ptr;
    (void)len;
    return false;
}

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    struct fixture *f = tinyproto_conn_arg(conn);
    enum tinyproto_error err = tinyproto_transmit(conn, message->ptr, message->len);

    hook_log(&f->log, "message:%.*s:%d", (int)message->len, (const char *)message->ptr, (int)err);
    if (tinyproto_transmit_fd(conn, 0, 0, 1, NULL, NULL) != TINYPROTO_E_PLUGIN &&
        f->plugin.transmit != NULL)
        hook_log(&f->log, "from a descriptor");
}

static void on_post(struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    struct fixture *f = tinyproto_conn_arg(conn);

    hook_log(&f->log, "post:%d", (int)why->err);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    table_require(f != NULL, "memory");
    f->log = (struct hook_log)HOOK_LOG_INIT;
    f->handler = (struct tinyproto_handler){
        .arg = f, .transmission_received = on_message, .failed = on_post, .post_loop = on_post
    };
    f->plugin = (struct tinyproto_plugin){ .transmit = doubled, .receive = halved };
    tinyproto_server_options(&f->options);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static int start(struct fixture *f)
{
    served_start(&f->served, NULL, &f->handler, &f->options);
    assert_int_equal(tinyproto_server_add_plugin(f->served.server, &f->plugin), TINYPROTO_OK);
    served_run(&f->served);
    return peer_connect(f->served.address);
}

static void the_size_is_that_after_plugins(void **state)
{
    struct fixture *f = *state;
    int fd = start(f);

    peer_send(fd, "ff 00000004 61616262");
    peer_expect(fd, "ff ff 00000004");
    peer_send(fd, "ff");
    peer_expect(fd, "61616262");
    close(fd);
    hook_log_wait(&f->log, "post:");
    served_stop(&f->served);
    assert_string_equal(f->log.text, "message:ab:0 post:0 ");
}

/* The block comes in many reads, so it is collected, not borrowed. */
static void large_messages_pass_too(void **state)
{
    struct fixture *f = *state;
    const size_t size = 2000000;
    uint8_t *bytes = malloc(size);
    int fd;

    table_require(bytes != NULL, "memory");
    memset(bytes, 'x', size);
    f->plugin.receive = NULL;
    f->handler.transmission_received = NULL;
    f->handler.begin = NULL;
    fd = start(f);
    peer_send(fd, "ff 001e8480");
    peer_write(fd, bytes, size);
    peer_expect(fd, "ff ff");
    close(fd);
    hook_log_wait(&f->log, "post:0");
    served_stop(&f->served);
    free(bytes);
}

static void a_failure_on_receiving_ends_the_connection(void **state)
{
    struct fixture *f = *state;
    int fd = start(f);

    peer_send(fd, "ff 00000003 616161");
    peer_expect(fd, "ff ff");
    peer_expect_end(fd);
    hook_log_wait(&f->log, "post:");
    served_stop(&f->served);
    assert_string_equal(f->log.text, "post:17 ");
}

static void a_failure_on_transmitting_fails_that_one(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->plugin = (struct tinyproto_plugin){ .transmit = fails };
    fd = start(f);
    peer_send(fd, "ff 00000001 61");
    peer_expect(fd, "ff ff");
    hook_log_wait(&f->log, "message:a:17");
    close(fd);
    hook_log_wait(&f->log, "post:0");
    served_stop(&f->served);
}

static void a_result_beyond_the_limit_fails_locally(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->options.send_max = 3;
    f->plugin.receive = NULL;
    fd = start(f);
    peer_send(fd, "ff 00000002 6161");
    peer_expect(fd, "ff ff");
    hook_log_wait(&f->log, "message:aa:3");
    close(fd);
    hook_log_wait(&f->log, "post:0");
    served_stop(&f->served);
}

static void state_may_be_of_each_connection(void **state)
{
    struct fixture *f = *state;
    int first, second;

    f->plugin = (struct tinyproto_plugin){
        .transmit = count, .open = open_counter, .close = close_counter, .arg = &f->log
    };
    first = start(f);
    peer_send(first, "ff 00000001 61");
    peer_expect(first, "ff ff 00000001");
    peer_send(first, "ff 00000001 61");
    peer_expect(first, "01 ff 00000001");
    peer_send(first, "ff");
    peer_expect(first, "02");
    second = peer_connect(f->served.address);
    peer_send(second, "ff 00000001 61");
    peer_expect(second, "ff ff 00000001");
    peer_send(second, "ff");
    peer_expect(second, "01");
    close(first);
    hook_log_wait(&f->log, "close:2");
    close(second);
    hook_log_wait(&f->log, "close:1");
    served_stop(&f->served);
}

/* A count that goes on for what was not queued would be out of step with the peer's. */
static void what_finds_no_room_does_not_reach_the_plugin(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->plugin = (struct tinyproto_plugin){
        .transmit = count, .open = open_counter, .close = close_counter, .arg = &f->log
    };
    f->options.queue_max_bytes = 10;
    fd = start(f);
    peer_send(fd, "ff 00000001 61 00000001 62");
    hook_log_wait(&f->log, "message:b:4 ");
    close(fd);
    hook_log_wait(&f->log, "close:1");
    served_stop(&f->served);
}

static bool opens_another(void *arg, struct tinyproto_conn *conn, void **state)
{
    const struct tinyproto_plugin other = { .receive = halved };

    *state = arg;
    for (int i = 0; i < 8; i++)
        assert_int_equal(tinyproto_conn_add_plugin(conn, &other), TINYPROTO_OK);
    return true;
}

static void one_may_add_others_when_it_opens(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[4 + 256] = { [2] = 1 };
    int fd;

    f->plugin = (struct tinyproto_plugin){ .open = opens_another };
    memset(bytes + 4, 'a', 256);
    fd = start(f);
    peer_send(fd, "ff");
    peer_write(fd, bytes, sizeof(bytes));
    hook_log_wait(&f->log, "message:a:0"); /* halved eight times */
    close(fd);
    hook_log_wait(&f->log, "post:");
    served_stop(&f->served);
}

static bool remember_conn(void *arg, struct tinyproto_conn *conn, void **state)
{
    (void)arg;
    *state = conn;
    return true;
}

static bool aborts(void *state, uint8_t **ptr, size_t *len)
{
    (void)ptr;
    (void)len;
    tinyproto_abort(state);
    return true;
}

static void one_that_aborts_ends_the_hooks(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->plugin = (struct tinyproto_plugin){ .receive = aborts, .open = remember_conn };
    fd = start(f);
    peer_send(fd, "ff 00000001 61");
    hook_log_wait(&f->log, "post:");
    close(fd);
    served_stop(&f->served);
    assert_string_equal(f->log.text, "post:19 "); /* no message before */
}

static void who_cannot_open_ends(void **state)
{
    struct fixture *f = *state;

    f->plugin.open = fails_to_open;
    peer_expect_end(start(f));
    served_stop(&f->served);
    assert_string_equal(f->log.text, ""); /* no conn_init, so no other hook */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_size_is_that_after_plugins, set_up, tear_down),
        cmocka_unit_test_setup_teardown(large_messages_pass_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failure_on_receiving_ends_the_connection, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_failure_on_transmitting_fails_that_one, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_result_beyond_the_limit_fails_locally, set_up, tear_down),
        cmocka_unit_test_setup_teardown(state_may_be_of_each_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_finds_no_room_does_not_reach_the_plugin, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(one_may_add_others_when_it_opens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_that_aborts_ends_the_hooks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_cannot_open_ends, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
