/* Mounted requests with the loop on a thread of its own and hosts on others, which stop at any point: what
 * the thread sanitizer is to look at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "mount_fixture.h"

#define HOSTS    4
#define REQUESTS 300

/* The application: each request has its own answer, the length of its body. */
struct job {
    struct http_exchange *x;
    size_t len;
};

static void job_on_piece(void *arg, struct lonely_span piece)
{
    ((struct job *)arg)->len += piece.len;
}

static void job_on_end(void *arg)
{
    struct job *job = arg;

    http_exchange_respond(job->x, &(struct http_response){
                                      .status = 200,
                                      .body = { (const uint8_t *)&job->len, sizeof(job->len) },
                                  });
    mem_free(job);
}

static void job_on_abort(void *arg)
{
    mem_free(arg);
}

static void on_request(void *app, struct http_exchange *x)
{
    static const struct http_body_ops ops = { job_on_piece, job_on_end, job_on_abort };
    struct job *job = mem_calloc(1, sizeof(*job));

    (void)app;
    job->x = x;
    http_exchange_read_body(x, &ops, job);
}

/* The hosts: each has a thread, and waits for on_ready under a lock of its own. */
struct host {
    struct lonely_mount *mount;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool ready;
    unsigned number, answered, refused;
};

static void on_host_ready(void *arg)
{
    struct host *h = arg;

    pthread_mutex_lock(&h->lock);
    h->ready = true;
    pthread_cond_signal(&h->cond);
    pthread_mutex_unlock(&h->lock);
}

static void wait_for(struct host *h, struct lonely_exchange *x)
{
    h->ready = false;
    if (!lonely_exchange_wait(x))
        return;
    pthread_mutex_lock(&h->lock);
    while (!h->ready)
        pthread_cond_wait(&h->cond, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

/* One step; false: it is answered. */
static bool step(struct host *h, struct lonely_exchange *x, size_t *left)
{
    static const uint8_t bytes[50000];
    size_t n = *left < sizeof(bytes) ? *left : sizeof(bytes);

    switch (lonely_exchange_state(x)) {
    case LONELY_EXCHANGE_WAITS:
        wait_for(h, x);
        return true;
    case LONELY_EXCHANGE_READS:
        *left -= lonely_exchange_write(x, bytes, n);
        if (*left == 0)
            lonely_exchange_end(x);
        return true;
    case LONELY_EXCHANGE_ANSWERED:
    case LONELY_EXCHANGE_UPGRADES:
        break;
    }
    return false;
}

static void run_request(struct host *h, unsigned i)
{
    const struct lonely_exchange_request request = {
        .method = text_span("POST"),
        .target = text_span("/p/x"),
        .content_length = LONELY_EXCHANGE_LENGTH_UNKNOWN,
    };
    struct lonely_exchange *x = lonely_mount_begin(h->mount, &request, on_host_ready, h);
    size_t size = i % 7 == 0 ? 700000 : i % 1000, left = size, got;
    unsigned steps = i % 3 == 0 ? i % 11 : UINT32_MAX; /* every third is given up */

    table_require(x != NULL, "an exchange");
    while (steps-- > 0 && step(h, x, &left))
        ;
    if (i % 3 == 0 && i % 2 == 0)
        (void)lonely_exchange_wait(x); /* on_ready races with the end */
    else if (i % 3 != 0 && lonely_exchange_response(x)->status == 200) {
        memcpy(&got, lonely_exchange_response(x)->body.ptr, sizeof(got));
        table_require(got == size, "a whole body");
        h->answered++;
    } else if (i % 3 != 0) {
        table_require(lonely_exchange_response(x)->status == 503, "200, or 503 at the end");
        h->refused++;
    }
    lonely_exchange_free(x);
}

static void *run_host(void *arg)
{
    struct host *h = arg;

    for (unsigned i = 0; i < REQUESTS; i++)
        run_request(h, i * HOSTS + h->number);
    return NULL;
}

struct server {
    uv_loop_t loop;
    uv_async_t stop;
    struct mount_port *port;
    bool closed;
};

static void on_port_closed(void *arg)
{
    ((struct server *)arg)->closed = true;
}

static void on_stop(uv_async_t *stop)
{
    struct server *s = stop->data;

    mount_port_close(s->port, on_port_closed, s);
    uv_close((uv_handle_t *)stop, NULL);
}

static void *run_loop(void *arg)
{
    uv_run(&((struct server *)arg)->loop, UV_RUN_DEFAULT);
    return NULL;
}

/* `early`: the loop ends while the hosts are at work. */
static void run_all(bool early)
{
    struct server s = { 0 };
    struct host hosts[HOSTS] = { 0 };
    struct lonely_mount *mount;
    unsigned answered = 0, refused = 0;
    pthread_t thread;

    assert_int_equal(uv_loop_init(&s.loop), 0);
    assert_int_equal(uv_async_init(&s.loop, &s.stop, on_stop), 0);
    s.stop.data = &s;
    s.port = mount_port_create(&s.loop, 100, on_request, NULL);
    mount = mount_create("/p", &s.port, 1);
    assert_int_equal(pthread_create(&thread, NULL, run_loop, &s), 0);
    for (unsigned i = 0; i < HOSTS; i++) {
        hosts[i] = (struct host){ .mount = mount, .number = i };
        pthread_mutex_init(&hosts[i].lock, NULL);
        pthread_cond_init(&hosts[i].cond, NULL);
        assert_int_equal(pthread_create(&hosts[i].thread, NULL, run_host, &hosts[i]), 0);
    }
    if (early)
        uv_async_send(&s.stop);
    for (unsigned i = 0; i < HOSTS; i++) {
        pthread_join(hosts[i].thread, NULL);
        pthread_cond_destroy(&hosts[i].cond);
        pthread_mutex_destroy(&hosts[i].lock);
        answered += hosts[i].answered;
        refused += hosts[i].refused;
    }
    if (!early)
        uv_async_send(&s.stop);
    pthread_join(thread, NULL);
    assert_true(s.closed);
    assert_int_equal(answered + refused, HOSTS * REQUESTS * 2 / 3);
    assert_true(early || refused == 0);
    mount_destroy(mount);
    assert_int_equal(uv_loop_close(&s.loop), 0);
}

static void many_hosts(void **state)
{
    (void)state;
    run_all(false);
}

static void the_loop_ends_under_many_hosts(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        run_all(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_hosts),
        cmocka_unit_test(the_loop_ends_under_many_hosts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
