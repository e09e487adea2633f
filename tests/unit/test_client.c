/* The client without a network: commands, wants, subscriptions, messages; over a link of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "link.h"
#include "mem.h"
#include "tables.h"

/* ---- A link that does what the test says ---- */

struct fake {
    struct link link;
    enum lonely_client_error answer; /* to what is wanted: OK, or an error over "HTTP" */
    bool mute;                       /* answers nothing */
    struct list notifies;
    unsigned flushes, rooms;
};

static struct fake *fake_of(struct lonely_client *c)
{
    return (struct fake *)c->link;
}

static enum lonely_client_error fake_open(struct lonely_client *c, struct link **out,
                                          struct lonely_client_why *why)
{
    struct fake *f = mem_calloc(1, sizeof(*f));

    (void)why;
    f->link.client = c;
    f->link.ops =
        client_scheme_is_http(c->conf.broadcasters[0].scheme) ? &link_http : &link_stateful;
    list_init(&f->notifies);
    *out = &f->link;
    return LONELY_CLIENT_OK;
}

static void fake_start(struct link *l)
{
    client_link_up(l->client);
}

static void answer(struct fake *f, struct want *w)
{
    if (f->mute || want_is_settled(w))
        return;
    if (f->answer != LONELY_CLIENT_OK)
        want_failed(f->link.client, w, f->answer);
    else
        want_enter(f->link.client, w, w->refs > 0 ? WANT_ON : WANT_OFF);
}

static void fake_flush(struct link *l, struct list *dirty)
{
    struct fake *f = (struct fake *)l;
    struct list *node;

    f->flushes++;
    while ((node = list_pop_front(dirty)) != NULL)
        answer(f, list_entry(node, struct want, dirty));
}

static void fake_notify(struct link *l, struct notify *n)
{
    struct fake *f = (struct fake *)l;

    if (f->mute)
        list_push_back(&f->notifies, &n->node);
    else
        notify_done(n, LONELY_CLIENT_OK, n->size);
}

static void fake_room(struct link *l)
{
    ((struct fake *)l)->rooms++;
}

static void fake_close(struct link *l, void (*on_closed)(struct lonely_client *c))
{
    struct fake *f = (struct fake *)l;
    struct lonely_client *c = l->client;
    struct list *node;

    while ((node = list_pop_front(&f->notifies)) != NULL)
        notify_done(list_entry(node, struct notify, node), LONELY_CLIENT_AMBIGUOUS, 0);
    wants_abandon(c, LONELY_CLIENT_ABANDONED);
    mem_free(f);
    on_closed(c);
}

#define FAKE_OPS                                                                            \
    {                                                                                       \
        .open = fake_open, .start = fake_start, .flush = fake_flush, .notify = fake_notify, \
        .room_again = fake_room, .close = fake_close                                        \
    }
const struct link_ops link_http = FAKE_OPS;
const struct link_ops link_stateful = FAKE_OPS;

const char *link_http_bound(const struct link *l)
{
    (void)l;
    return "127.0.0.1:3002";
}

struct lonely_mount *link_http_mount(const struct link *l)
{
    (void)l;
    return NULL;
}

const char *link_http_url(const struct link *l)
{
    (void)l;
    return "http://127.0.0.1:3002/v1/receive";
}

/* ---- What the tests do on the client's loop ---- */

struct job {
    struct command cmd;
    void (*fn)(struct lonely_client *c, void *arg);
    void *arg;
};

static void run_job(struct command *cmd)
{
    struct job *job = (struct job *)cmd;

    job->fn(cmd->client, job->arg);
    command_done(cmd, LONELY_CLIENT_OK);
}

static void on_loop(struct lonely_client *c, void (*fn)(struct lonely_client *c, void *arg),
                    void *arg)
{
    struct job *job = command_create(c, sizeof(*job), run_job);

    job->fn = fn;
    job->arg = arg;
    assert_int_equal(client_submit(&job->cmd, -1), LONELY_CLIENT_OK);
}

struct arrival {
    const char *topic, *text;
};

static void arrive(struct lonely_client *c, void *arg)
{
    static const uint8_t sha512[LONELY_SHA512_BYTES] = { 7 };
    const struct arrival *a = arg;
    struct lonely_span topic = { (const uint8_t *)a->topic, strlen(a->topic) };
    struct lonely_span text = { (const uint8_t *)a->text, strlen(a->text) };
    struct lonely_delivery *d = delivery_create(c, topic, text, sha512);

    client_deliver(c, d);
    lonely_delivery_release(d);
}

static void message(struct lonely_client *c, const char *topic, const char *text)
{
    on_loop(c, arrive, &(struct arrival){ topic, text });
}

static void go_down(struct lonely_client *c, void *arg)
{
    (void)arg;
    client_link_down(c, LONELY_CLIENT_UNREACHABLE, "gone");
}

static void settle(struct lonely_client *c, struct list *wants)
{
    list_foreach (wants, node, next)
        answer(fake_of(c), list_entry(node, struct want, all));
}

static void go_up(struct lonely_client *c, void *arg)
{
    (void)arg;
    client_link_up(c);
    settle(c, &c->exacts);
    settle(c, &c->globs);
}

static void die(struct lonely_client *c, void *arg)
{
    (void)arg;
    client_link_dead(c, LONELY_CLIENT_UNREACHABLE, "no broadcaster");
}

static void mute(struct lonely_client *c, void *arg)
{
    fake_of(c)->mute = arg != NULL;
}

static void refuse(struct lonely_client *c, void *arg)
{
    fake_of(c)->answer = *(enum lonely_client_error *)arg;
}

static void miss(struct lonely_client *c, void *arg)
{
    client_missed(c, *(struct lonely_span *)arg);
}

/* ---- Fixtures ---- */

static struct lonely_client *open_with(const char *url, const char *io, const char *name,
                                       const char *value)
{
    struct lonely_client_options *o = lonely_client_options_create();
    struct lonely_client_why why;
    struct lonely_client *c;

    assert_int_equal(lonely_client_options_set(o, "broadcaster", url, &why), LONELY_CLIENT_OK);
    assert_int_equal(lonely_client_options_set(o, "io", io, &why), LONELY_CLIENT_OK);
    if (name != NULL)
        assert_int_equal(lonely_client_options_set(o, name, value, &why), LONELY_CLIENT_OK);
    assert_int_equal(lonely_client_open(o, &c, &why), LONELY_CLIENT_OK);
    lonely_client_options_destroy(o);
    return c;
}

static const char *const modes[] = { "thread", "caller" };
static unsigned mode; /* the tests run once in each */

static struct lonely_client *open_client(void)
{
    return open_with("ws://127.0.0.1:3003", modes[mode], NULL, NULL);
}

static void assert_next(struct lonely_subscription *s, const char *text)
{
    struct lonely_delivery *d;
    char read[64];

    assert_int_equal(lonely_subscription_next(s, 5000, &d), LONELY_CLIENT_OK);
    assert_int_equal(lonely_delivery_size(d), strlen(text));
    assert_int_equal(lonely_delivery_read(d, 0, read, sizeof(read)), strlen(text));
    assert_memory_equal(read, text, strlen(text));
    assert_int_equal(lonely_delivery_read(d, strlen(text), read, sizeof(read)), 0);
    lonely_delivery_release(d);
}

static void assert_nothing(struct lonely_subscription *s, enum lonely_client_error err)
{
    struct lonely_delivery *d;

    assert_int_equal(lonely_subscription_next(s, 0, &d), err);
    assert_null(d);
}

/* ---- Tests ---- */

static void test_messages_reach_who_wants_them_once(void **state)
{
    struct lonely_client *c = open_client();
    struct lonely_subscription *exact, *glob, *both;

    (void)state;
    assert_int_equal(lonely_subscribe_exact(c, LIT("a/b"), NULL, &exact), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscribe_glob(c, LIT("a/*"), NULL, &glob), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscription_create(c, NULL, &both), LONELY_CLIENT_OK);
    assert_nothing(both, LONELY_CLIENT_STATE);
    assert_int_equal(lonely_subscription_add_exact(both, LIT("a/b"), 0), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscription_add_exact(both, LIT("a/b"), 0), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscription_add_glob(both, LIT("*b"), 0), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscription_enter(both, -1), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscription_enter(both, -1), LONELY_CLIENT_STATE);
    message(c, "a/b", "one");
    message(c, "a/c", "two");
    assert_next(exact, "one");
    assert_nothing(exact, LONELY_CLIENT_TIMED_OUT);
    assert_next(glob, "one");
    assert_next(glob, "two");
    assert_next(both, "one");
    assert_nothing(both, LONELY_CLIENT_TIMED_OUT);
    assert_int_equal(lonely_subscription_remove_exact(both, LIT("a/b"), -1), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscription_remove_exact(both, LIT("a/b"), -1),
                     LONELY_CLIENT_NOT_SUBSCRIBED);
    assert_int_equal(lonely_subscription_remove_glob(both, LIT("*b"), -1), LONELY_CLIENT_OK);
    message(c, "a/b", "three");
    assert_nothing(both, LONELY_CLIENT_TIMED_OUT);
    assert_next(exact, "three"); /* others still hold it */
    lonely_subscription_destroy(exact);
    lonely_subscription_destroy(glob);
    lonely_subscription_destroy(both);
    assert_int_equal(lonely_client_close(c), LONELY_CLIENT_OK);
}

static bool count_calls(void *arg)
{
    ++*(int *)arg;
    return true;
}

static void test_gaps_run_on_receiving(void **state)
{
    struct lonely_client *c = open_client();
    struct lonely_subscription *s;
    struct lonely_span topic = LIT("t");
    int calls = 0;

    (void)state;
    assert_int_equal(
        lonely_subscribe_exact(c, topic, &(struct lonely_on_receiving){ count_calls, &calls }, &s),
        LONELY_CLIENT_OK);
    message(c, "t", "1");
    assert_next(s, "1");
    assert_int_equal(calls, 1);
    message(c, "t", "2");
    message(c, "t", "3");
    assert_next(s, "2");
    assert_int_equal(calls, 1);
    on_loop(c, go_down, NULL);
    assert_int_equal(lonely_client_status(c), LONELY_CLIENT_LOST);
    assert_nothing(s, LONELY_CLIENT_TIMED_OUT); /* though a message waits */
    on_loop(c, go_up, NULL);
    assert_int_equal(lonely_client_wait_connected(c, 5000), LONELY_CLIENT_OK);
    assert_next(s, "3");
    assert_int_equal(calls, 2);
    on_loop(c, miss, &topic);
    assert_nothing(s, LONELY_CLIENT_TIMED_OUT);
    assert_int_equal(calls, 3);
    lonely_subscription_destroy(s);
    lonely_client_close(c);
}

static bool say_no(void *arg)
{
    return ++*(int *)arg > 1;
}

static void test_a_callback_that_says_no_is_asked_again(void **state)
{
    struct lonely_client *c = open_client();
    struct lonely_subscription *s;
    int calls = 0;

    (void)state;
    assert_int_equal(
        lonely_subscribe_exact(c, LIT("t"), &(struct lonely_on_receiving){ say_no, &calls }, &s),
        LONELY_CLIENT_OK);
    message(c, "t", "1");
    assert_nothing(s, LONELY_CLIENT_CALLBACK);
    assert_next(s, "1");
    assert_int_equal(calls, 2);
    lonely_subscription_destroy(s);
    lonely_client_close(c);
}

static void test_what_is_not_confirmed_times_out_and_stays_wanted(void **state)
{
    struct lonely_client *c = open_client();
    struct lonely_subscription *s;

    (void)state;
    on_loop(c, mute, c);
    assert_int_equal(lonely_subscription_create(c, NULL, &s), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscription_add_exact(s, LIT("t"), 0), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscription_enter(s, 20), LONELY_CLIENT_TIMED_OUT);
    assert_int_equal(lonely_client_status(c), LONELY_CLIENT_LOST);
    assert_int_equal(lonely_client_wait_connected(c, 20), LONELY_CLIENT_TIMED_OUT);
    on_loop(c, mute, NULL);
    on_loop(c, go_up, NULL);
    assert_int_equal(lonely_client_wait_connected(c, 5000), LONELY_CLIENT_OK);
    message(c, "t", "1");
    assert_next(s, "1");
    lonely_subscription_destroy(s);
    lonely_client_close(c);
}

static void test_over_http_a_failure_changes_nothing(void **state)
{
    struct lonely_client *c = open_with("http://127.0.0.1:3003", modes[mode], NULL, NULL);
    enum lonely_client_error no = LONELY_CLIENT_REFUSED, yes = LONELY_CLIENT_OK;
    struct lonely_subscription *s;

    (void)state;
    assert_int_equal(lonely_subscription_create(c, NULL, &s), LONELY_CLIENT_OK);
    assert_int_equal(lonely_subscription_add_exact(s, LIT("t"), 0), LONELY_CLIENT_OK);
    on_loop(c, refuse, &no);
    assert_int_equal(lonely_subscription_enter(s, -1), LONELY_CLIENT_REFUSED);
    assert_int_equal(lonely_client_status(c), LONELY_CLIENT_CONNECTED);
    assert_nothing(s, LONELY_CLIENT_STATE); /* not entered, and may be again */
    on_loop(c, refuse, &yes);
    assert_int_equal(lonely_subscription_enter(s, -1), LONELY_CLIENT_OK);
    on_loop(c, refuse, &no);
    assert_int_equal(lonely_subscription_add_exact(s, LIT("u"), -1), LONELY_CLIENT_REFUSED);
    on_loop(c, refuse, &yes);
    message(c, "u", "no");
    message(c, "t", "yes");
    assert_next(s, "yes");
    assert_nothing(s, LONELY_CLIENT_TIMED_OUT);
    lonely_subscription_destroy(s);
    lonely_client_close(c);
}

static void test_a_dead_client_says_so(void **state)
{
    struct lonely_client *c = open_client();
    struct lonely_subscription *s, *late;
    struct lonely_client_why why;
    struct lonely_notify n;

    (void)state;
    assert_int_equal(lonely_subscribe_exact(c, LIT("t"), NULL, &s), LONELY_CLIENT_OK);
    message(c, "t", "1");
    on_loop(c, die, NULL);
    assert_nothing(s, LONELY_CLIENT_ABANDONED); /* also with a message in it */
    assert_int_equal(lonely_client_last_error(c, &why), LONELY_CLIENT_UNREACHABLE);
    assert_string_equal(why.text, "no broadcaster");
    assert_int_equal(lonely_subscribe_exact(c, LIT("u"), NULL, &late), LONELY_CLIENT_ABANDONED);
    assert_null(late);
    lonely_notify_init(&n);
    assert_int_equal(lonely_client_notify(c, &n, -1, NULL), LONELY_CLIENT_ABANDONED);
    lonely_subscription_destroy(s);
    assert_int_equal(lonely_client_close(c), LONELY_CLIENT_UNREACHABLE);
}

static void test_descriptors(void **state)
{
    struct lonely_client *c = open_client();
    struct lonely_subscription *s;
    struct pollfd p = { .events = POLLIN };

    (void)state;
    assert_int_equal(lonely_subscribe_exact(c, LIT("t"), NULL, &s), LONELY_CLIENT_OK);
    p.fd = lonely_subscription_fd(s);
    assert_int_equal(poll(&p, 1, 0), 0);
    message(c, "t", "1");
    assert_int_equal(poll(&p, 1, 0), 1);
    assert_next(s, "1");
    assert_int_equal(poll(&p, 1, 0), 0);
    on_loop(c, go_down, NULL);
    message(c, "t", "2");
    assert_int_equal(poll(&p, 1, 0), 0);
    on_loop(c, go_up, NULL);
    assert_int_equal(poll(&p, 1, 0), 1);
    assert_next(s, "2");
    on_loop(c, die, NULL);
    assert_int_equal(poll(&p, 1, 0), 1);
    lonely_subscription_destroy(s);
    lonely_client_close(c);
}

static void rooms(struct lonely_client *c, void *arg)
{
    *(unsigned *)arg = fake_of(c)->rooms;
}

static void test_full_queues_hold_the_link(void **state)
{
    struct lonely_client *c = open_with("ws://h", modes[mode], "max_received", "4");
    struct lonely_subscription *s;
    unsigned told = 0;

    (void)state;
    assert_int_equal(lonely_subscribe_exact(c, LIT("t"), NULL, &s), LONELY_CLIENT_OK);
    for (int i = 0; i < 3; i++)
        message(c, "t", "x");
    assert_true(client_has_room(c));
    message(c, "t", "x");
    assert_false(client_has_room(c));
    assert_next(s, "x");
    assert_false(client_has_room(c));
    assert_next(s, "x");
    assert_true(client_has_room(c));
    on_loop(c, rooms, &told);
    assert_int_equal(told, 1);
    lonely_subscription_destroy(s);
    lonely_client_close(c);
}

static ptrdiff_t read_alphabet(void *arg, uint64_t at, void *to, size_t cap)
{
    (void)arg;
    for (size_t i = 0; i < cap; i++)
        ((uint8_t *)to)[i] = (uint8_t)('a' + (at + i) % 26);
    return (ptrdiff_t)cap;
}

static ptrdiff_t read_nothing(void *arg, uint64_t at, void *to, size_t cap)
{
    (void)arg, (void)at, (void)to, (void)cap;
    return -1;
}

static void test_sources_of_a_notify(void **state)
{
    struct lonely_client *c = open_client();
    struct lonely_notify n;
    uint64_t notified; /* the fake answers the size */
    FILE *file = tmpfile();

    (void)state;
    lonely_notify_init(&n);
    n.topic = LIT("t");
    assert_int_equal(lonely_client_notify(c, &n, -1, &notified), LONELY_CLIENT_OK);
    assert_int_equal(notified, 0);
    n.bytes = LIT("hello");
    assert_int_equal(lonely_client_notify(c, &n, -1, &notified), LONELY_CLIENT_OK);
    assert_int_equal(notified, 5);
    n.read = read_alphabet;
    n.size = 1000000;
    assert_int_equal(lonely_client_notify(c, &n, -1, &notified), LONELY_CLIENT_OK);
    assert_int_equal(notified, 1000000);
    n.read = read_nothing;
    assert_int_equal(lonely_client_notify(c, &n, -1, &notified), LONELY_CLIENT_SOURCE);
    n.read = NULL;
    fputs("0123456789", file);
    fflush(file);
    n.fd = fileno(file);
    lseek(n.fd, 4, SEEK_SET);
    n.size = UINT64_MAX;
    assert_int_equal(lonely_client_notify(c, &n, -1, &notified), LONELY_CLIENT_OK);
    assert_int_equal(notified, 6); /* from its offset on */
    n.size = 7;
    assert_int_equal(lonely_client_notify(c, &n, -1, &notified), LONELY_CLIENT_SOURCE);
    n.topic.len = 65536;
    assert_int_equal(lonely_client_notify(c, &n, -1, &notified), LONELY_CLIENT_ARGUMENT);
    fclose(file);
    lonely_client_close(c);
}

static void remember(void *arg, enum lonely_client_error err, uint64_t notified)
{
    (void)notified;
    *(enum lonely_client_error *)arg = err;
}

static void test_what_is_under_way_at_the_end_is_ambiguous(void **state)
{
    struct lonely_client *c = open_client();
    enum lonely_client_error err = LONELY_CLIENT_OK;
    struct lonely_notify n;

    (void)state;
    on_loop(c, mute, c);
    lonely_notify_init(&n);
    n.topic = LIT("t");
    assert_int_equal(lonely_client_notify_start(c, &n, remember, &err), LONELY_CLIENT_OK);
    lonely_client_close(c);
    assert_int_equal(err, LONELY_CLIENT_AMBIGUOUS);
}

struct heard {
    int messages, changes;
    enum lonely_client_status last;
};

static void on_message(void *arg, struct lonely_delivery *d)
{
    (void)d;
    ((struct heard *)arg)->messages++;
}

static void on_status(void *arg, enum lonely_client_status status, struct lonely_span missed)
{
    struct heard *heard = arg;

    (void)missed;
    heard->changes++;
    heard->last = status;
}

static void test_direct(void **state)
{
    struct lonely_client *c = open_client();
    struct heard heard = { 0 };
    uint64_t messages, statuses, topic, glob;

    (void)state;
    assert_int_equal(lonely_client_wait_connected(c, 5000), LONELY_CLIENT_OK);
    assert_int_equal(lonely_client_on_message(c, on_message, &heard, &messages), LONELY_CLIENT_OK);
    assert_int_equal(lonely_client_on_status(c, on_status, &heard, &statuses), LONELY_CLIENT_OK);
    assert_int_equal(heard.changes, 1);
    assert_int_equal(heard.last, LONELY_CLIENT_CONNECTED);
    assert_int_equal(lonely_client_direct_subscribe_exact(c, LIT("t"), -1, &topic),
                     LONELY_CLIENT_OK);
    assert_int_equal(lonely_client_direct_subscribe_glob(c, LIT("\xff"), -1, &glob),
                     LONELY_CLIENT_ARGUMENT);
    assert_int_equal(lonely_client_direct_subscribe_glob(c, LIT("*"), -1, &glob), LONELY_CLIENT_OK);
    message(c, "t", "1");
    assert_int_equal(heard.messages, 1);
    assert_int_equal(lonely_client_direct_unsubscribe(c, topic, -1), LONELY_CLIENT_OK);
    assert_int_equal(lonely_client_direct_unsubscribe(c, topic, -1), LONELY_CLIENT_OK);
    lonely_client_off(c, messages);
    message(c, "t", "2");
    assert_int_equal(heard.messages, 1);
    on_loop(c, go_down, NULL);
    assert_int_equal(heard.last, LONELY_CLIENT_LOST);
    lonely_client_off(c, statuses);
    lonely_client_close(c);
}

static void large(struct lonely_client *c, void *arg)
{
    static uint8_t chunk[100000];
    struct incoming *in = incoming_begin(c, LIT("t"), UINT64_MAX);
    struct lonely_delivery *d;

    (void)arg;
    for (unsigned i = 0; i < 40; i++) {
        memset(chunk, (int)i, sizeof(chunk));
        assert_true(incoming_add(in, (struct lonely_span){ chunk, sizeof(chunk) }));
    }
    d = incoming_finish(in);
    assert_non_null(d);
    client_deliver(c, d);
    lonely_delivery_release(d);
}

static void on_arriving(void *arg, struct lonely_span topic, uint64_t received, uint64_t size)
{
    uint64_t *heard = arg;

    assert_true(topic.len == 1 && size == UINT64_C(1) << 20);
    assert_true(received == 0 || received > *heard);
    *heard = received;
}

/* `arg`: whether all of it comes. */
static void arrive_large(struct lonely_client *c, void *arg)
{
    static uint8_t chunk[1 << 16];
    struct incoming *in = incoming_begin(c, LIT("t"), 16 * sizeof(chunk));
    unsigned chunks = *(const bool *)arg ? 16 : 15;

    for (unsigned i = 0; i < chunks; i++)
        assert_true(incoming_add(in, (struct lonely_span){ chunk, sizeof(chunk) }));
    if (chunks == 16)
        lonely_delivery_release(incoming_finish(in));
    else
        incoming_abort(in);
}

static void test_arriving(void **state)
{
    struct lonely_client *c = open_client();
    uint64_t heard = 1, id;
    bool all = true;

    (void)state;
    assert_int_equal(lonely_client_on_arriving(c, on_arriving, &heard, &id), LONELY_CLIENT_OK);
    on_loop(c, arrive_large, &all);
    assert_int_equal(heard, 1 << 20);
    heard = 1;
    all = false;
    on_loop(c, arrive_large, &all);
    assert_int_equal(heard, 0);
    lonely_client_off(c, id);
    lonely_client_close(c);
}

static void test_large_messages_go_to_files(void **state)
{
    struct lonely_client *c = open_client();
    struct lonely_subscription *s;
    struct lonely_delivery *d;
    uint8_t byte;

    (void)state;
    assert_int_equal(lonely_subscribe_exact(c, LIT("t"), NULL, &s), LONELY_CLIENT_OK);
    on_loop(c, large, NULL);
    assert_int_equal(lonely_subscription_next(s, 5000, &d), LONELY_CLIENT_OK);
    assert_int_equal(lonely_delivery_size(d), 4000000);
    assert_true(lonely_delivery_fd(d) >= 0);
    assert_null(lonely_delivery_span(d).ptr);
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(lonely_delivery_read(d, i * 100000 + 17, &byte, 1), 1);
        assert_int_equal(byte, i);
    }
    assert_int_equal(lonely_delivery_read(d, 4000000, &byte, 1), 0);
    lonely_subscription_destroy(s);
    assert_int_equal(lonely_delivery_read(d, 0, &byte, 1), 1); /* it outlives its subscription */
    lonely_delivery_release(d);
    lonely_client_close(c);
}

static int own_thread(void **state)
{
    (void)state;
    mode = 0;
    return 0;
}

static int callers_thread(void **state)
{
    (void)state;
    mode = 1;
    return 0;
}

#define IN_BOTH(test) \
    cmocka_unit_test_setup(test, own_thread), cmocka_unit_test_setup(test, callers_thread)

/* ---- Several threads ---- */

struct waiter {
    uv_thread_t thread;
    struct lonely_client *client;
    enum lonely_client_error err;
};

static void notify_and_wait(void *arg)
{
    struct waiter *w = arg;
    struct lonely_notify n;

    lonely_notify_init(&n);
    n.topic = LIT("t");
    w->err = lonely_client_notify(w->client, &n, -1, NULL);
}

static void count_notifies(struct lonely_client *c, void *arg)
{
    *(size_t *)arg = 0;
    list_foreach (&fake_of(c)->notifies, node, next)
        ++*(size_t *)arg;
}

/* The client stays until all of them have left it. */
static void test_closing_under_waiting_threads(void **state)
{
    struct lonely_client *c = open_with("ws://127.0.0.1:3003", "thread", NULL, NULL);
    struct waiter waiters[8];
    size_t under_way = 0;

    (void)state;
    on_loop(c, mute, c);
    for (size_t i = 0; i < TABLE_LEN(waiters); i++) {
        waiters[i].client = c;
        assert_int_equal(uv_thread_create(&waiters[i].thread, notify_and_wait, &waiters[i]), 0);
    }
    while (under_way < TABLE_LEN(waiters))
        on_loop(c, count_notifies, &under_way);
    assert_int_equal(lonely_client_close(c), LONELY_CLIENT_OK);
    for (size_t i = 0; i < TABLE_LEN(waiters); i++) {
        uv_thread_join(&waiters[i].thread);
        assert_int_equal(waiters[i].err, LONELY_CLIENT_AMBIGUOUS);
    }
}

static void on_last_status(void *arg, enum lonely_client_status status, struct lonely_span missed)
{
    (void)missed;
    *(enum lonely_client_status *)arg = status;
}

/* An id is known before the loop has made what it names; the end is told. */
static void test_direct_without_waiting(void **state)
{
    struct lonely_client *c = open_client();
    enum lonely_client_status status = LONELY_CLIENT_LOST;
    uint64_t ids[3];

    (void)state;
    assert_int_equal(lonely_client_on_status(c, on_last_status, &status, &ids[0]), 0);
    assert_int_equal(lonely_client_direct_subscribe_exact(c, LIT("a"), 0, &ids[1]), 0);
    assert_int_equal(lonely_client_direct_subscribe_glob(c, LIT("a*"), 0, &ids[2]), 0);
    assert_true(ids[0] != ids[1] && ids[1] != ids[2] && ids[1] != 0 && ids[2] != 0);
    assert_int_equal(lonely_client_direct_unsubscribe(c, ids[1], -1), 0);
    assert_int_equal(lonely_client_wait_connected(c, -1), LONELY_CLIENT_OK);
    assert_int_equal(lonely_client_close(c), LONELY_CLIENT_OK);
    assert_int_equal(status, LONELY_CLIENT_DEAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_BOTH(test_messages_reach_who_wants_them_once),
        IN_BOTH(test_gaps_run_on_receiving),
        IN_BOTH(test_a_callback_that_says_no_is_asked_again),
        IN_BOTH(test_what_is_not_confirmed_times_out_and_stays_wanted),
        IN_BOTH(test_over_http_a_failure_changes_nothing),
        IN_BOTH(test_a_dead_client_says_so),
        IN_BOTH(test_descriptors),
        IN_BOTH(test_full_queues_hold_the_link),
        IN_BOTH(test_sources_of_a_notify),
        IN_BOTH(test_what_is_under_way_at_the_end_is_ambiguous),
        IN_BOTH(test_direct),
        IN_BOTH(test_arriving),
        IN_BOTH(test_large_messages_go_to_files),
        IN_BOTH(test_direct_without_waiting),
        cmocka_unit_test(test_closing_under_waiting_threads),
    };

    return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
