/*
 * The queues of the outbox, over an HTTP client that is a list of calls: the test ends them as it likes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http_client.h"
#include "mem.h"
#include "outbox.h"

/* ---- The client ---- */

struct http_call {
    struct list node;
    char *url;
    http_call_done_fn *done;
    void *arg;
    unsigned resumed;
};

static struct list calls = LIST_INIT(calls);

struct http_call *http_client_post(struct http_client *client,
                                   const struct http_call_request *request, http_call_done_fn *done,
                                   void *arg)
{
    struct http_call *call = mem_calloc(1, sizeof(*call));

    (void)client;
    call->url = mem_strdup(request->url);
    call->done = done;
    call->arg = arg;
    list_push_back(&calls, &call->node);
    return call;
}

static void call_end(struct http_call *call, enum http_call_status status)
{
    http_call_done_fn *done = call->done;
    void *arg = call->arg;

    list_remove(&call->node);
    mem_free(call->url);
    mem_free(call);
    done(arg, &(struct http_reply){ .status = status, .detail = "" });
}

void http_call_cancel(struct http_call *call)
{
    call_end(call, HTTP_CALL_CANCELLED);
}

void http_call_resume(struct http_call *call)
{
    call->resumed++;
}

static size_t running(const char *url)
{
    size_t n = 0;

    list_foreach (&calls, node, next)
        n += url == NULL || strcmp(list_entry(node, struct http_call, node)->url, url) == 0;
    return n;
}

static void end_first(const char *url)
{
    list_foreach (&calls, node, next) {
        struct http_call *call = list_entry(node, struct http_call, node);

        if (strcmp(call->url, url) == 0) {
            call_end(call, HTTP_CALL_REPLIED);
            return;
        }
    }
    fail_msg("no call to %s", url);
}

/* ---- The posts ---- */

struct post {
    struct outbox_post post;
    struct outbox_post *then_add; /* when this one is done */
    bool refuse_start;
    unsigned done;
    enum http_call_status status;
};

static bool on_start(struct outbox_post *post, struct http_call_request *request)
{
    (void)request;
    return !((struct post *)post)->refuse_start;
}

static void on_done(struct outbox_post *post, const struct http_reply *reply)
{
    struct post *p = (struct post *)post;

    p->done++;
    p->status = reply->status;
    if (p->then_add != NULL)
        outbox_add(post->outbox, p->then_add);
}

static const struct outbox_post_ops ops = { on_start, on_done };

static atomic_size_t all_queued;

static struct outbox *open_outbox(size_t in_flight, size_t per_origin, size_t per_url,
                                  size_t queued)
{
    const struct outbox_limits limits = { in_flight, per_origin, per_url, queued };

    return outbox_create(&limits, NULL, &all_queued);
}

static void add(struct outbox *o, struct post *p, const char *url)
{
    p->post.ops = &ops;
    p->post.url = url;
    p->post.url_len = strlen(url);
    outbox_add(o, &p->post);
}

static void close_outbox(struct outbox *o)
{
    outbox_close(o);
    assert_int_equal(outbox_running(o), 0);
    assert_int_equal(outbox_queued(o), 0);
    outbox_destroy(o);
}

#define A1 "http://a:1/x"
#define A2 "HTTP://A:1/y?z"
#define B  "http://b:1/"

static void test_limits(void **state)
{
    struct outbox *o = open_outbox(5, 3, 2, 100);
    struct post posts[12] = { 0 };

    (void)state;
    for (size_t i = 0; i < 4; i++)
        add(o, &posts[i], A1);
    assert_int_equal(running(A1), 2); /* a URL */
    for (size_t i = 4; i < 8; i++)
        add(o, &posts[i], A2);
    assert_int_equal(running(A2), 1); /* the origin, whatever its case */
    for (size_t i = 8; i < 12; i++)
        add(o, &posts[i], B);
    assert_int_equal(running(B), 2);
    assert_int_equal(outbox_running(o), 5);
    assert_int_equal(outbox_queued(o), 7);
    end_first(B);
    assert_int_equal(running(B), 2); /* its next one, since the origin of A1 and A2 is full */
    end_first(A1);
    assert_int_equal(running(A1) + running(A2), 3);
    close_outbox(o);
    for (size_t i = 0; i < 12; i++)
        assert_int_equal(posts[i].done, 1);
}

/* One origin has many spellings. */
static void test_origins(void **state)
{
    static const char *const same[] = { "http://a/1", "HTTP://A:80/2", "http://u:p@a?q",
                                        "http://@a#f", "http://x@y@a:80" };
    static const char *const others[] = {
        "https://a/", "http://a:8080", "http://a.b", "https://a:80", "http://a:", "a", ""
    };
    struct outbox *o = open_outbox(100, 1, 1, 100);
    struct post posts[12] = { 0 };

    (void)state;
    for (size_t i = 0; i < 5; i++)
        add(o, &posts[i], same[i]);
    assert_int_equal(outbox_running(o), 1);
    for (size_t i = 0; i < 7; i++)
        add(o, &posts[5 + i], others[i]);
    assert_int_equal(outbox_running(o), 8);
    close_outbox(o);
}

static void test_in_flight_bounds_all(void **state)
{
    struct outbox *o = open_outbox(1, 10, 10, 100);
    struct post first = { 0 }, second = { 0 };

    (void)state;
    add(o, &first, A1);
    add(o, &second, B);
    assert_int_equal(running(NULL), 1);
    end_first(A1);
    assert_int_equal(first.status, HTTP_CALL_REPLIED);
    assert_int_equal(running(B), 1);
    end_first(B);
    close_outbox(o);
}

static void test_origins_take_turns(void **state)
{
    struct outbox *o = open_outbox(1, 10, 10, 100);
    struct post slow[10] = { 0 }, other = { 0 };

    (void)state;
    for (size_t i = 0; i < 10; i++)
        add(o, &slow[i], A1);
    add(o, &other, B);
    end_first(A1);
    end_first(A1); /* at most one more of A before B has its turn */
    assert_true(other.done == 1 || running(B) == 1);
    close_outbox(o);
}

static void test_order_within_a_url(void **state)
{
    struct outbox *o = open_outbox(1, 1, 1, 100);
    struct post posts[3] = { 0 };

    (void)state;
    for (size_t i = 0; i < 3; i++)
        add(o, &posts[i], A1);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(posts[i].done, 0);
        end_first(A1);
        assert_int_equal(posts[i].done, 1);
    }
    close_outbox(o);
}

static void test_room(void **state)
{
    struct outbox *o = open_outbox(2, 2, 1, 3);
    struct post posts[4] = { 0 };

    (void)state;
    assert_true(outbox_has_room(o, 5)); /* two run, three wait */
    assert_false(outbox_has_room(o, 6));
    atomic_fetch_add(&all_queued, 2); /* in another worker */
    assert_true(outbox_has_room(o, 3));
    assert_false(outbox_has_room(o, 4));
    atomic_fetch_sub(&all_queued, 2);
    for (size_t i = 0; i < 4; i++)
        add(o, &posts[i], A1);
    assert_int_equal(outbox_queued(o), 3);
    assert_true(outbox_has_room(o, 1));
    assert_false(outbox_has_room(o, 2));
    close_outbox(o);
}

static void test_unusable(void **state)
{
    struct outbox *o = open_outbox(2, 2, 2, 10);
    struct post nul = { .post = { .ops = &ops, .url = "http://a\0b", .url_len = 10 } };
    struct post refused = { .refuse_start = true }, good = { 0 };

    (void)state;
    outbox_add(o, &nul.post);
    assert_int_equal(nul.status, HTTP_CALL_URL);
    add(o, &refused, A1);
    assert_int_equal(refused.done, 1);
    assert_int_equal(refused.status, HTTP_CALL_URL);
    add(o, &good, "no url at all");
    assert_int_equal(running("no url at all"), 1);
    close_outbox(o);
}

static void test_add_from_done(void **state)
{
    struct outbox *o = open_outbox(1, 1, 1, 10);
    struct post second = { .post = { .ops = &ops, .url = A1, .url_len = strlen(A1) } };
    struct post first = { .then_add = &second.post };

    (void)state;
    add(o, &first, A1);
    end_first(A1);
    assert_int_equal(running(A1), 1);
    first.then_add = NULL;
    close_outbox(o);
    assert_int_equal(second.status, HTTP_CALL_CANCELLED);
}

static void test_close(void **state)
{
    struct outbox *o = open_outbox(1, 1, 1, 10);
    struct post late = { .post = { .ops = &ops, .url = B, .url_len = strlen(B) } };
    struct post first = { .then_add = &late.post }, waiting = { 0 };

    (void)state;
    add(o, &first, A1);
    add(o, &waiting, A1);
    outbox_close(o);
    outbox_close(o);
    assert_int_equal(first.status, HTTP_CALL_CANCELLED);
    assert_int_equal(waiting.status, HTTP_CALL_CANCELLED);
    assert_int_equal(late.status, HTTP_CALL_CANCELLED); /* added while closing */
    assert_int_equal(late.done, 1);
    assert_int_equal(running(NULL), 0);
    outbox_destroy(o);
    outbox_destroy(NULL);
}

static void test_resume(void **state)
{
    struct outbox *o = open_outbox(1, 1, 1, 10);
    struct post running_post = { 0 }, waiting = { 0 };

    (void)state;
    add(o, &running_post, A1);
    add(o, &waiting, A1);
    outbox_resume(&running_post.post);
    outbox_resume(&waiting.post); /* not running: nothing to resume */
    assert_int_equal(list_entry(calls.next, struct http_call, node)->resumed, 1);
    close_outbox(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_in_flight_bounds_all),
        cmocka_unit_test(test_origins_take_turns),
        cmocka_unit_test(test_order_within_a_url),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_unusable),
        cmocka_unit_test(test_add_from_done),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_resume),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
