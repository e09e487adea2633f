/* Resolving names: a resolver that does not answer holds nobody up, and many are asked a few at a time
 * (doc/protocol/tinyproto.md, 8). The resolver is this file's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <netdb.h>

#include "tiny_peer.h"

/* ---- A resolver that waits until it is told to answer ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool may_answer;
static size_t n_asked, n_waiting, n_waiting_max;

static void wait_for_answer(void)
{
    (void)pthread_mutex_lock(&mutex);
    n_asked++;
    n_waiting++;
    if (n_waiting > n_waiting_max)
        n_waiting_max = n_waiting;
    (void)pthread_cond_broadcast(&changed);
    while (!may_answer)
        (void)pthread_cond_wait(&changed, &mutex);
    n_waiting--;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&mutex);
}

static void answer(bool may)
{
    (void)pthread_mutex_lock(&mutex);
    may_answer = may;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&mutex);
}

static void wait_until_asked(size_t n)
{
    (void)pthread_mutex_lock(&mutex);
    while (n_asked < n)
        (void)pthread_cond_wait(&changed, &mutex);
    (void)pthread_mutex_unlock(&mutex);
}

static size_t count(const size_t *n)
{
    size_t now;

    (void)pthread_mutex_lock(&mutex);
    now = *n;
    (void)pthread_mutex_unlock(&mutex);
    return now;
}

static void wait_until_left(void)
{
    (void)pthread_mutex_lock(&mutex);
    while (n_waiting > 0)
        (void)pthread_cond_wait(&changed, &mutex);
    (void)pthread_mutex_unlock(&mutex);
}

/* Instead of the system's, which is asked for numbers only. "slow" is this machine, "nobody" unknown. */
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                struct addrinfo **list)
{
    int (*system_s)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    void *found = dlsym(RTLD_NEXT, "getaddrinfo");

    memcpy(&system_s, &found, sizeof(found));
    if (strcmp(host, "slow") != 0 && strcmp(host, "nobody") != 0)
        return system_s(host, port, hints, list);
    if ((hints->ai_flags & AI_NUMERICHOST) != 0)
        return EAI_NONAME;
    wait_for_answer();
    return strcmp(host, "slow") == 0 ? system_s("127.0.0.1", port, hints, list) : EAI_NONAME;
}

static int set_up(void **state)
{
    (void)state;
    (void)pthread_mutex_lock(&mutex);
    may_answer = false;
    n_asked = 0;
    n_waiting_max = 0;
    (void)pthread_mutex_unlock(&mutex);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    answer(true);
    wait_until_left();
    return 0;
}

/* ---- Tests ---- */

static void a_blocking_connect_keeps_to_its_time(void **state)
{
    struct tinyproto_address address;
    struct tinyproto_sync *sync;
    struct tinyproto_cause why;

    (void)state;
    assert_int_equal(tinyproto_address_set(&address, "slow", 1), TINYPROTO_OK);
    assert_int_equal(tinyproto_sync_connect(&address, 50, &sync, &why), TINYPROTO_E_TIMEOUT);
    wait_until_asked(1);
    assert_int_equal(count(&n_waiting), 1); /* it was left behind */
}

#define MANY 40
#define FEW  16

struct clients {
    struct tinyproto_client *client;
    size_t n_failed, n_over;
    enum tinyproto_error err;
    int system;
};

static void on_failed(struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    struct clients *all = tinyproto_conn_arg(conn);

    all->n_failed++;
    all->err = why->err;
    all->system = why->system;
}

static void on_shutdown(struct tinyproto_client *client, struct tinyproto_conn *conn,
                        const struct tinyproto_cause *why)
{
    struct clients *all = tinyproto_client_arg(client);

    (void)conn;
    (void)why;
    if (++all->n_over == MANY)
        tinyproto_client_stop(client);
}

static void *answer_when_few_ask(void *arg)
{
    (void)arg;
    wait_until_asked(FEW);
    answer(true);
    return NULL;
}

static void connect_many(struct clients *all, const struct tinyproto_handler *handler,
                         uint32_t timeout_ms)
{
    const struct tinyproto_client_hooks hooks = { .arg = all, .conn_shutdown = on_shutdown };

    table_require(tinyproto_client_new(&hooks, NULL, NULL, &all->client) == TINYPROTO_OK, "client");
    tinyproto_client_set_handler(all->client, handler);
    tinyproto_client_set_timeout(all->client, timeout_ms);
    for (int i = 0; i < MANY; i++)
        assert_non_null(tinyproto_client_connect(all->client, "nobody", 1));
}

static void many_names_are_asked_for_a_few_at_a_time(void **state)
{
    struct clients all = { .n_failed = 0 };
    const struct tinyproto_handler handler = { .arg = &all, .failed = on_failed };
    pthread_t thread;

    (void)state;
    connect_many(&all, &handler, 20000);
    table_require(pthread_create(&thread, NULL, answer_when_few_ask, NULL) == 0, "thread");
    (void)tinyproto_client_run(all.client);
    (void)pthread_join(thread, NULL);
    tinyproto_client_free(all.client);
    assert_int_equal(all.n_failed, MANY);
    assert_int_equal(all.err, TINYPROTO_E_RESOLVE);
    assert_int_equal(all.system, EAI_NONAME);
    assert_int_equal(count(&n_asked), MANY);
    assert_int_equal(count(&n_waiting_max), FEW);
}

static void those_that_wait_for_others_time_out_too(void **state)
{
    struct clients all = { .n_failed = 0 };
    const struct tinyproto_handler handler = { .arg = &all, .failed = on_failed };

    (void)state;
    connect_many(&all, &handler, 50);
    (void)tinyproto_client_run(all.client);
    tinyproto_client_free(all.client);
    assert_int_equal(all.n_failed, MANY);
    assert_int_equal(all.err, TINYPROTO_E_TIMEOUT);
}

static void to_free_a_client_waits_for_no_resolver(void **state)
{
    struct clients all = { .n_failed = 0 };
    const struct tinyproto_handler handler = { .arg = &all, .failed = on_failed };

    (void)state;
    connect_many(&all, &handler, 20000);
    tinyproto_client_free(all.client);
    assert_int_equal(all.n_failed, MANY);
    assert_int_equal(all.err, TINYPROTO_E_STOPPED);
}

static void *greet(void *arg)
{
    int fd = peer_accept(*(int *)arg);

    peer_send(fd, "ff");
    close(fd);
    return NULL;
}

static void a_name_is_connected_to(void **state)
{
    struct tinyproto_address address;
    struct tinyproto_sync *sync;
    pthread_t thread;
    int port, listener = peer_listen(&port);

    (void)state;
    answer(true);
    table_require(pthread_create(&thread, NULL, greet, &listener) == 0, "thread");
    assert_int_equal(tinyproto_address_set(&address, "slow", port), TINYPROTO_OK);
    assert_int_equal(tinyproto_sync_connect(&address, 20000, &sync, NULL), TINYPROTO_OK);
    tinyproto_sync_close(sync);
    (void)pthread_join(thread, NULL);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_blocking_connect_keeps_to_its_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_names_are_asked_for_a_few_at_a_time, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(those_that_wait_for_others_time_out_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(to_free_a_client_waits_for_no_resolver, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_name_is_connected_to, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
