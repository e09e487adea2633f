/* Tests of gate.c and keys.c: secrets that are loaded and changed, checks, signatures, used macs. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "gate.h"
#include "keys.h"
#include "mem.h"
#include "tables.h"

#define SPAN(literal) ((struct lonely_span){ (const uint8_t *)(literal), sizeof(literal) - 1 })

/* 64 bytes each. */
#define SECRET_A \
    "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQQ"
#define SECRET_B \
    "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQg"

#define PART(direction, type, secret) \
    "\"" direction "\": {\"type\": \"" type "\", \"secret\": \"" secret "\"}"
#define BOTH(type, secret)                                                                        \
    "{\"version\": \"2\", " PART("to-broadcaster", type, secret) ", " PART("to-subscriber", type, \
                                                                           secret) "}"
#define OPEN "{\"version\": \"2\"}"

static const struct lonely_auth_input input = {
    .op = LONELY_AUTH_CHECK_SUBSCRIPTIONS,
    .url = { (const uint8_t *)"http://a/", 9 },
};
/* What the gate signs, the other direction's key being the same, is good for itself. */

/* ---- A clock, a random source and a store of the test ---- */

struct fixture {
    char folder[64], first[80], second[80];
    struct conf conf;
    struct clock clock;
    double now_s;
    uint8_t random;
    struct key_ring ring;
    struct gate *gate;
    struct gate_conf gate_conf;
};

static int64_t wall_ns(void *arg)
{
    return (int64_t)(((struct fixture *)arg)->now_s * 1e9);
}

static void random_bytes(void *arg, uint8_t *to, size_t len)
{
    memset(to, ((struct fixture *)arg)->random++, len);
}

/* A store whose answers the test gives. There is one at a time. */
struct store_client {
    enum store_status status; /* of sync_macs */
    store_done_fn *done;
    void *arg;
    size_t room, added;
};

static enum store_status fake_sync(struct store_client *c, store_done_fn *done, void *arg)
{
    c->done = done;
    c->arg = arg;
    return c->status;
}

static bool fake_add(struct store_client *c, const struct store_mac *mac)
{
    (void)mac;
    c->added++;
    return c->added <= c->room;
}

static const struct store_ops fake_store = { .sync_macs = fake_sync, .add_mac = fake_add };

static void put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    table_require(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0 && chmod(path, 0600) == 0,
                  path);
}

static struct keys *load(struct fixture *f, const char *first, const char *second)
{
    struct keys_error error;
    struct keys *keys;
    char *accept[] = { f->second };

    put_file(f->first, first);
    f->conf.auth.secrets = f->first;
    f->conf.auth.also_accept = (struct conf_list){ accept, second != NULL, false };
    if (second != NULL)
        put_file(f->second, second);
    keys = keys_load(&f->conf, NULL, &error);
    table_require(keys != NULL, error.text);
    return keys;
}

static void open_gate(struct fixture *f, const char *first, const char *second)
{
    key_ring_init(&f->ring, load(f, first, second));
    f->gate = gate_create(&f->gate_conf);
    assert_non_null(f->gate);
}

static int setup(void **state)
{
    struct fixture *f = mem_calloc(1, sizeof *f);

    strcpy(f->folder, "/tmp/lonely-gate-XXXXXX");
    table_require(mkdtemp(f->folder) != NULL, "mkdtemp");
    snprintf(f->first, sizeof f->first, "%s/1.json", f->folder);
    snprintf(f->second, sizeof f->second, "%s/2.json", f->folder);
    f->now_s = 1700000000.25;
    f->clock = (struct clock){ .wall_ns = wall_ns, .arg = f };
    f->gate_conf = (struct gate_conf){ .keys = &f->ring,
                                       .replay = replay_create(1000),
                                       .clock = &f->clock,
                                       .random = random_bytes,
                                       .random_arg = f };
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->gate != NULL) {
        gate_destroy(f->gate);
        key_ring_fini(&f->ring);
    }
    replay_destroy(f->gate_conf.replay);
    unlink(f->first);
    unlink(f->second);
    rmdir(f->folder);
    mem_free(f);
    return 0;
}

static struct lonely_span sign(struct fixture *f, uint8_t out[LONELY_AUTH_MAX_BYTES])
{
    struct lonely_span text;

    assert_true(gate_sign(f->gate, &input, out, &text));
    return text;
}

static enum lonely_auth_result check(struct fixture *f, const struct lonely_span *text)
{
    struct gate_wait *wait;
    enum lonely_auth_result result = gate_check(f->gate, &input, text, &wait, NULL, NULL);

    assert_null(wait);
    return result;
}

/* ---- Schemes ---- */

static void none(void **state)
{
    struct fixture *f = *state;
    uint8_t out[LONELY_AUTH_MAX_BYTES];
    char *line;

    open_gate(f, OPEN, NULL);
    assert_false(gate_asks(f->gate, false));
    assert_false(gate_signs(f->gate));
    assert_int_equal(sign(f, out).len, 0);
    assert_true(gate_header(f->gate, &input, &line));
    assert_null(line);
    assert_int_equal(check(f, NULL), LONELY_AUTH_OK);
    assert_int_equal(check(f, &SPAN("anything")), LONELY_AUTH_OK);
    assert_int_equal(f->random, 0);
}

static void no_file(void **state)
{
    struct fixture *f = *state;
    struct keys_error error;

    f->conf.auth.secrets = NULL;
    key_ring_init(&f->ring, keys_load(&f->conf, NULL, &error));
    f->gate = gate_create(&f->gate_conf);
    assert_false(gate_asks(f->gate, false));
    assert_int_equal(check(f, NULL), LONELY_AUTH_OK);
}

static void token(void **state)
{
    struct fixture *f = *state;
    char *line;

    open_gate(f, BOTH("token", "open sesame"), NULL);
    assert_true(gate_asks(f->gate, false));
    assert_true(gate_header(f->gate, &input, &line));
    assert_string_equal(line, "Authorization: Bearer open sesame");
    mem_free(line);
    for (int i = 0; i < 2; i++) /* no replay protection */
        assert_int_equal(check(f, &SPAN("Bearer open sesame")), LONELY_AUTH_OK);
    assert_int_equal(check(f, NULL), LONELY_AUTH_UNAUTHORIZED);
    assert_int_equal(check(f, &SPAN("")), LONELY_AUTH_FORBIDDEN);
    assert_int_equal(check(f, &SPAN("Bearer x")), LONELY_AUTH_FORBIDDEN);
    assert_int_equal(replay_count(f->gate_conf.replay), 0);
}

static void hmac(void **state)
{
    struct fixture *f = *state;
    uint8_t one[LONELY_AUTH_MAX_BYTES], two[LONELY_AUTH_MAX_BYTES], three[LONELY_AUTH_MAX_BYTES];
    struct lonely_span first, second, third;

    open_gate(f, BOTH("hmac", SECRET_A), NULL);
    first = sign(f, one);
    second = sign(f, two);
    third = sign(f, three);
    assert_int_equal(first.len, 113);
    assert_memory_equal(first.ptr, "X-HMAC 1700000000:", 18);
    assert_memory_not_equal(first.ptr, second.ptr, first.len);
    assert_int_equal(check(f, &first), LONELY_AUTH_OK);
    assert_int_equal(check(f, &first), LONELY_AUTH_FORBIDDEN);
    f->now_s += 119.75;
    assert_int_equal(check(f, &first), LONELY_AUTH_FORBIDDEN);
    assert_int_equal(check(f, &second), LONELY_AUTH_OK); /* 120 s exactly */
    f->now_s += 0.5;
    assert_int_equal(check(f, &third), LONELY_AUTH_FORBIDDEN); /* too old */
    assert_int_equal(check(f, NULL), LONELY_AUTH_UNAUTHORIZED);
    assert_int_equal(check(f, &SPAN("")), LONELY_AUTH_FORBIDDEN);
}

/* Over HTTP no url is bound to a connection. */
static void websocket_urls_are_remembered(void **state)
{
    struct fixture *f = *state;
    const struct lonely_auth_input in = { .op = LONELY_AUTH_CHECK_SUBSCRIPTIONS,
                                          .url = SPAN("websocket:n:1") };
    uint8_t out[LONELY_AUTH_MAX_BYTES];
    struct lonely_span text;
    struct gate_wait *wait;

    open_gate(f, BOTH("hmac", SECRET_A), NULL);
    assert_true(gate_sign(f->gate, &in, out, &text));
    assert_int_equal(gate_check(f->gate, &in, &text, &wait, NULL, NULL), LONELY_AUTH_OK);
    assert_int_equal(gate_check(f->gate, &in, &text, &wait, NULL, NULL), LONELY_AUTH_FORBIDDEN);
}

static void frames_bound_to_a_connection_are_not_remembered(void **state)
{
    struct fixture *f = *state;
    const struct lonely_auth_input bound = { .op = LONELY_AUTH_CONFIRM_RECEIVE,
                                             .url = SPAN("websocket:n:1") };
    const struct lonely_auth_input unbound = { .op = LONELY_AUTH_NOTIFY,
                                               .hash = { (const uint8_t *)SECRET_A, 64 } };
    uint8_t out[LONELY_AUTH_MAX_BYTES];
    struct lonely_span text;
    struct gate_wait *wait;

    open_gate(f, BOTH("hmac", SECRET_A), NULL);
    assert_true(gate_sign(f->gate, &bound, out, &text));
    for (int i = 0; i < 2; i++)
        assert_int_equal(gate_check_frame(f->gate, &bound, &text, &wait, NULL, NULL),
                         LONELY_AUTH_OK);
    assert_int_equal(replay_count(f->gate_conf.replay), 0);
    assert_true(gate_sign(f->gate, &unbound, out, &text));
    assert_int_equal(gate_check_frame(f->gate, &unbound, &text, &wait, NULL, NULL), LONELY_AUTH_OK);
    assert_int_equal(gate_check_frame(f->gate, &unbound, &text, &wait, NULL, NULL),
                     LONELY_AUTH_FORBIDDEN);
}

static void no_replay_store(void **state)
{
    struct fixture *f = *state;
    uint8_t out[LONELY_AUTH_MAX_BYTES];
    struct lonely_span text;

    replay_destroy(f->gate_conf.replay);
    f->gate_conf.replay = NULL;
    open_gate(f, BOTH("hmac", SECRET_A), NULL);
    text = sign(f, out);
    for (int i = 0; i < 2; i++)
        assert_int_equal(check(f, &text), LONELY_AUTH_OK);
}

static void statuses(void **state)
{
    (void)state;
    assert_int_equal(gate_status(LONELY_AUTH_OK), 0);
    assert_int_equal(gate_status(LONELY_AUTH_UNAUTHORIZED), 401);
    assert_int_equal(gate_status(LONELY_AUTH_FORBIDDEN), 403);
    assert_int_equal(gate_status(LONELY_AUTH_UNAVAILABLE), 503);
}

static void what_cannot_be_signed(void **state)
{
    static uint8_t bytes[65536];
    struct fixture *f = *state;
    const struct lonely_auth_input in = { .op = LONELY_AUTH_CHECK_SUBSCRIPTIONS,
                                          .url = { bytes, sizeof bytes } };
    uint8_t out[LONELY_AUTH_MAX_BYTES];
    struct lonely_span text;
    char *line;

    open_gate(f, BOTH("hmac", SECRET_A), NULL);
    assert_false(gate_sign(f->gate, &in, out, &text));
    assert_int_equal(text.len, 0);
    assert_false(gate_header(f->gate, &in, &line));
    assert_null(line);
}

/* ---- The store ---- */

struct answer {
    int calls;
    enum lonely_auth_result result;
};

static void on_answer(void *arg, enum lonely_auth_result result)
{
    struct answer *a = arg;

    a->calls++;
    a->result = result;
}

static void the_store_is_asked_first(void **state)
{
    static const struct {
        enum store_status status, later;
        size_t room;
        enum lonely_auth_result result;
        size_t added;
    } cases[] = {
        { STORE_OK, STORE_OK, 1, LONELY_AUTH_OK, 1 },
        { STORE_OK, STORE_OK, 0, LONELY_AUTH_UNAVAILABLE, 1 }, /* its queue is full */
        { STORE_UNAVAILABLE, STORE_OK, 1, LONELY_AUTH_UNAVAILABLE, 0 },
        { STORE_PENDING, STORE_OK, 1, LONELY_AUTH_OK, 1 },
        { STORE_PENDING, STORE_OK, 0, LONELY_AUTH_UNAVAILABLE, 1 },
        { STORE_PENDING, STORE_UNAVAILABLE, 1, LONELY_AUTH_UNAVAILABLE, 0 },
    };
    struct fixture *f = *state;
    struct store_client client;

    f->gate_conf.store = &client;
    f->gate_conf.store_ops = &fake_store;
    open_gate(f, BOTH("hmac", SECRET_A), NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t out[LONELY_AUTH_MAX_BYTES];
        struct lonely_span text = sign(f, out);
        struct answer answer = { 0 };
        struct gate_wait *wait;
        enum lonely_auth_result result;

        client = (struct store_client){ .status = cases[i].status, .room = cases[i].room };
        result = gate_check(f->gate, &input, &text, &wait, on_answer, &answer);
        assert_int_equal(wait != NULL, cases[i].status == STORE_PENDING);
        if (wait != NULL) {
            assert_int_equal(answer.calls, 0);
            client.done(client.arg, cases[i].later);
            assert_int_equal(answer.calls, 1);
            result = answer.result;
        }
        assert_int_equal(result, cases[i].result);
        assert_int_equal(client.added, cases[i].added);
        assert_int_equal(answer.calls, cases[i].status == STORE_PENDING);
    }
}

static void a_check_is_forgotten(void **state)
{
    struct fixture *f = *state;
    struct store_client client = { .status = STORE_PENDING, .room = 1 };
    uint8_t out[LONELY_AUTH_MAX_BYTES];
    struct lonely_span text;
    struct answer answer = { 0 };
    struct gate_wait *wait;

    f->gate_conf.store = &client;
    f->gate_conf.store_ops = &fake_store;
    open_gate(f, BOTH("hmac", SECRET_A), NULL);
    text = sign(f, out);
    gate_check(f->gate, &input, &text, &wait, on_answer, &answer);
    assert_non_null(wait);
    gate_forget(wait);
    client.done(client.arg, STORE_OK);
    assert_int_equal(answer.calls, 0);
    assert_int_equal(client.added, 0);
}

/* ---- Secrets that change ---- */

static void rotation(void **state)
{
    struct fixture *f = *state;
    uint8_t a[3][LONELY_AUTH_MAX_BYTES], b[LONELY_AUTH_MAX_BYTES];
    struct lonely_span old[3], new;

    open_gate(f, BOTH("hmac", SECRET_A), NULL);
    for (int i = 0; i < 3; i++)
        old[i] = sign(f, a[i]);
    key_ring_set(&f->ring, load(f, BOTH("hmac", SECRET_B), BOTH("hmac", SECRET_A)));
    assert_int_equal(check(f, &old[0]), LONELY_AUTH_OK);
    new = sign(f, b);
    key_ring_set(&f->ring, load(f, BOTH("hmac", SECRET_B), NULL));
    assert_int_equal(check(f, &old[0]), LONELY_AUTH_FORBIDDEN);
    assert_int_equal(check(f, &old[1]), LONELY_AUTH_FORBIDDEN);
    assert_int_equal(check(f, &new), LONELY_AUTH_OK);
    key_ring_set(&f->ring, load(f, BOTH("token", "t"), BOTH("hmac", SECRET_A)));
    assert_int_equal(check(f, &old[2]), LONELY_AUTH_OK); /* schemes may differ */
    assert_int_equal(check(f, &SPAN("Bearer t")), LONELY_AUTH_OK);
}

static void an_accepted_file_opens_nothing(void **state)
{
    struct fixture *f = *state;

    open_gate(f, BOTH("token", "t"), OPEN);
    assert_int_equal(check(f, NULL), LONELY_AUTH_UNAUTHORIZED);
    assert_int_equal(check(f, &SPAN("Bearer x")), LONELY_AUTH_FORBIDDEN);
}

static void files_that_are_refused(void **state)
{
    static const char *const texts[] = {
        "", "{", "[]", "{\"version\": \"3\"}", BOTH("hmac", "c2hvcnQ"), BOTH("what", "x")
    };
    struct fixture *f = *state;
    struct keys_error error;

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char *accept[] = { f->second };

        put_file(f->first, texts[i]);
        put_file(f->second, texts[i]);
        f->conf.auth.secrets = f->first;
        assert_null(keys_load(&f->conf, NULL, &error));
        assert_non_null(strstr(error.text, f->first));
        f->conf.auth.also_accept = (struct conf_list){ accept, 1, false };
        put_file(f->first, BOTH("hmac", SECRET_A));
        assert_null(keys_load(&f->conf, NULL, &error));
        assert_non_null(strstr(error.text, f->second));
        assert_null(strchr(error.text, '\n'));
        f->conf.auth.also_accept.count = 0;
    }
}

static void strict_permissions(void **state)
{
    struct fixture *f = *state;
    struct keys_error error;
    char *accept[] = { f->second };

    keys_unref(load(f, OPEN, OPEN));
    f->conf.auth.also_accept.items = accept;
    chmod(f->second, 0640);
    keys_unref(keys_load(&f->conf, NULL, &error)); /* a warning */
    f->conf.auth.strict_permissions = true;
    assert_null(keys_load(&f->conf, NULL, &error));
    assert_non_null(strstr(error.text, f->second));
    assert_non_null(strstr(error.text, "chmod 600"));
    chmod(f->second, 0600);
    chmod(f->first, 0604);
    assert_null(keys_load(&f->conf, NULL, &error));
    assert_non_null(strstr(error.text, f->first));
}

/* Workers take new secrets while others still use the old ones. */
enum { THREADS = 3, ROUNDS = 300 };

static void *use_gate(void *arg)
{
    struct gate *gate = gate_create(arg);
    struct gate_wait *wait;

    for (int i = 0; i < ROUNDS * 20; i++)
        if (gate_check(gate, &input, &SPAN("Bearer t"), &wait, NULL, NULL) != LONELY_AUTH_OK)
            abort();
    gate_destroy(gate);
    return NULL;
}

static void threads(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[THREADS];

    open_gate(f, BOTH("token", "t"), NULL);
    for (int i = 0; i < THREADS; i++)
        table_require(pthread_create(&threads[i], NULL, use_gate, &f->gate_conf) == 0, "thread");
    for (int i = 0; i < ROUNDS; i++)
        key_ring_set(&f->ring, load(f, BOTH("token", "t"), i % 2 == 0 ? NULL : OPEN));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(none),
        TEST(no_file),
        TEST(token),
        TEST(hmac),
        TEST(websocket_urls_are_remembered),
        TEST(frames_bound_to_a_connection_are_not_remembered),
        TEST(no_replay_store),
        TEST(statuses),
        TEST(what_cannot_be_signed),
        TEST(the_store_is_asked_first),
        TEST(a_check_is_forgotten),
        TEST(rotation),
        TEST(an_accepted_file_opens_nothing),
        TEST(files_that_are_refused),
        TEST(strict_permissions),
        TEST(threads),
    };

    return cmocka_run_group_tests_name("gate", tests, NULL, NULL);
}
