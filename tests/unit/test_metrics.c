/*
 * The text of the metrics: format, escaping, sums over threads, buckets; and what counts as what.
 * (Whether promtool likes it, and whether the counts move, is in tests/integration/test_admin.py.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "metrics.h"
#include "tables.h"

static const struct metrics_process process = {
    .version = "1.2",
    .started_s = 1234567890.5,
    .workers = 2,
    .index = { .exacts = 3, .globs = 4, .urls = 5, .bytes = 6 },
    .body_bytes = 7,
};

/* The text; to be freed. */
static char *print(const struct metrics *const *threads, size_t count,
                   const struct metrics_process *p)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    assert_non_null(out);
    metrics_print(out, threads, count, p);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void assert_line(const char *text, const char *line)
{
    char between[512];

    snprintf(between, sizeof between, "\n%s\n", line);
    if (strstr(text, between) == NULL)
        fail_msg("no line %s", line);
}

static struct metrics *metrics_create(void)
{
    struct metrics *m = calloc(1, sizeof *m);

    assert_non_null(m);
    return m;
}

/* ---- The text ---- */

static void test_sums_over_threads(void **state)
{
    struct metrics *a = metrics_create(), *b = metrics_create();
    const struct metrics *both[] = { a, b };
    char *text;

    (void)state;
    metrics_add(&a->requests[METRICS_ROUTE_NOTIFY][METRICS_STATUS_200], 3);
    metrics_add(&b->requests[METRICS_ROUTE_NOTIFY][METRICS_STATUS_200], 4);
    metrics_add(&b->requests[METRICS_ROUTE_UNKNOWN][METRICS_STATUS_404], 1);
    metrics_add(&a->message_bytes, UINT64_C(1) << 40);
    metrics_set(&a->connections, 5);
    metrics_set(&a->connections, 2);
    metrics_set(&b->connections, 1);
    metrics_add(&b->store_pending[METRICS_STORE_SET], 2);
    metrics_add(&b->store_pending[METRICS_STORE_SET], UINT64_MAX);
    text = print(both, 2, &process);
    assert_line(text, "lonelypss_http_requests_total{route=\"/v1/notify\",status=\"200\"} 7");
    assert_line(text, "lonelypss_http_requests_total{route=\"/v1/notify\",status=\"400\"} 0");
    assert_line(text, "lonelypss_http_requests_total{route=\"unknown\",status=\"404\"} 1");
    assert_line(text, "lonelypss_http_requests_total{route=\"unknown\",status=\"other\"} 0");
    assert_line(text, "lonelypss_message_received_bytes_total 1099511627776");
    assert_line(text, "lonelypss_connections 3");
    assert_line(text, "lonelypss_store_pending{operation=\"set\"} 1");
    assert_line(text, "lonelypss_store_pending{operation=\"check\"} 0");
    free(text);
    free(a);
    free(b);
}

static void test_process(void **state)
{
    static const char *const lines[] = {
        "lonelypss_subscriptions{kind=\"exact\"} 3",
        "lonelypss_subscriptions{kind=\"glob\"} 4",
        "lonelypss_subscriber_urls 5",
        "lonelypss_index_bytes 6",
        "lonelypss_body_memory_bytes 7",
        "lonelypss_workers 2",
        "lonelypss_start_time_seconds 1234567890.500",
        "lonelypss_build_info{version=\"1.2\"} 1",
    };
    char *text = print(NULL, 0, &process);

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_line(text, lines[i]);
    free(text);
}

static void test_escaping(void **state)
{
    static const struct {
        const char *version, *line;
    } cases[] = {
        { "a\"b", "lonelypss_build_info{version=\"a\\\"b\"} 1" },
        { "a\\b", "lonelypss_build_info{version=\"a\\\\b\"} 1" },
        { "a\nb", "lonelypss_build_info{version=\"a\\nb\"} 1" },
        { "\\n\n\"", "lonelypss_build_info{version=\"\\\\n\\n\\\"\"} 1" },
        { "", "lonelypss_build_info{version=\"\"} 1" },
        { "\xc3\xa4 {}=,", "lonelypss_build_info{version=\"\xc3\xa4 {}=,\"} 1" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct metrics_process p = process;
        char *text;

        p.version = cases[i].version;
        text = print(NULL, 0, &p);
        assert_line(text, cases[i].line);
        free(text);
    }
}

/* Each metric has one HELP and one TYPE right before its samples, a good name, and comes once. */
static void test_shape(void **state)
{
    struct metrics *m = metrics_create();
    const struct metrics *one[] = { m };
    char *text = print(one, 1, &process), *copy = strdup(text), *rest = text, *line;
    char name[128] = "", type[16];
    size_t metrics = 0, samples = 1;

    (void)state;
    assert_non_null(copy);
    while ((line = strsep(&rest, "\n")) != NULL && *line != '\0') {
        size_t len = strlen(name);

        if (strncmp(line, "# HELP ", 7) == 0) {
            char head[160];

            assert_true(samples > 0); /* of the one before */
            samples = 0;
            assert_int_equal(sscanf(line, "# HELP %127s %*s", name), 1);
            assert_int_equal(strncmp(name, "lonelypss_", 10), 0);
            assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz_"), strlen(name));
            snprintf(head, sizeof head, "# HELP %s ", name);
            assert_null(strstr(strstr(copy, head) + 1, head));
            line = strsep(&rest, "\n");
            assert_int_equal(sscanf(line, "# TYPE %*s %15s", type), 1);
            snprintf(head, sizeof head, "# TYPE %s %s", name, type);
            assert_string_equal(line, head);
            if (strcmp(type, "counter") == 0)
                assert_string_equal(name + strlen(name) - 6, "_total");
            metrics++;
            continue;
        }
        assert_int_equal(strncmp(line, name, len), 0);
        if (strcmp(type, "histogram") == 0)
            assert_true(strncmp(line + len, "_bucket{", 8) == 0 ||
                        strncmp(line + len, "_sum", 4) == 0 ||
                        strncmp(line + len, "_count", 6) == 0);
        else
            assert_true(line[len] == '{' || line[len] == ' ');
        samples++;
    }
    assert_null(rest == NULL ? NULL : strchr(rest, '#')); /* the text ends with its last line */
    assert_true(metrics > 20 && samples > 0);
    free(copy);
    free(text);
    free(m);
}

/* ---- Histograms ---- */

static const struct {
    uint64_t ns;
    const char *first; /* the lowest bucket that holds it */
    const char *below; /* the one under it; NULL: none */
} observations[] = {
    { 0, "0.00005", NULL },
    { 50000, "0.00005", NULL },
    { 50001, "0.0001", "0.00005" },
    { 1000000, "0.001", "0.0005" },
    { 1000001, "0.0025", "0.001" },
    { 999999999, "1", "0.5" },
    { UINT64_C(10000000000), "10", "5" },
    { UINT64_C(10000000001), "+Inf", "10" },
    { UINT64_MAX / 2, "+Inf", "10" },
};

static void test_bucket_of_each(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof observations / sizeof observations[0]; i++) {
        struct metrics *m = metrics_create();
        const struct metrics *one[] = { m };
        char *text, line[160];

        metrics_observe(&m->delivery_time, observations[i].ns);
        text = print(one, 1, &process);
        snprintf(line, sizeof line, "lonelypss_delivery_duration_seconds_bucket{le=\"%s\"} 1",
                 observations[i].first);
        assert_line(text, line);
        assert_line(text, "lonelypss_delivery_duration_seconds_bucket{le=\"+Inf\"} 1");
        assert_line(text, "lonelypss_delivery_duration_seconds_count 1");
        snprintf(line, sizeof line, "lonelypss_delivery_duration_seconds_sum %llu.%09llu",
                 (unsigned long long)observations[i].ns / 1000000000,
                 (unsigned long long)observations[i].ns % 1000000000);
        assert_line(text, line);
        if (observations[i].below != NULL) {
            snprintf(line, sizeof line, "lonelypss_delivery_duration_seconds_bucket{le=\"%s\"} 0",
                     observations[i].below);
            assert_line(text, line);
        }
        free(text);
        free(m);
    }
}

static void test_buckets_of_a_label(void **state)
{
    struct metrics *a = metrics_create(), *b = metrics_create();
    const struct metrics *both[] = { a, b };
    char *text;

    (void)state;
    metrics_observe(&a->store_time[METRICS_STORE_CHECK], 2000000);
    metrics_observe(&b->store_time[METRICS_STORE_CHECK], 2000000000);
    metrics_observe(&b->store_time[METRICS_STORE_PROBE], 1);
    text = print(both, 2, &process);
#define CHECK "lonelypss_store_duration_seconds_bucket{operation=\"check\",le="
    assert_line(text, CHECK "\"0.001\"} 0");
    assert_line(text, CHECK "\"0.0025\"} 1");
    assert_line(text, CHECK "\"1\"} 1");
    assert_line(text, CHECK "\"2.5\"} 2");
    assert_line(text, CHECK "\"+Inf\"} 2");
    assert_line(text, "lonelypss_store_duration_seconds_sum{operation=\"check\"} 2.002000000");
    assert_line(text, "lonelypss_store_duration_seconds_count{operation=\"check\"} 2");
    assert_line(text, "lonelypss_store_duration_seconds_count{operation=\"set\"} 0");
    assert_line(text, "lonelypss_store_duration_seconds_count{operation=\"probe\"} 1");
    free(text);
    free(a);
    free(b);
}

/* ---- What counts as what ---- */

static void test_statuses(void **state)
{
    static const struct {
        int status;
        enum metrics_status label;
        enum metrics_reason reason;
    } cases[] = {
        { 200, METRICS_STATUS_200, METRICS_REASON_NONE },
        { 400, METRICS_STATUS_400, METRICS_REASON_MALFORMED },
        { 401, METRICS_STATUS_401, METRICS_REASON_UNAUTHORIZED },
        { 403, METRICS_STATUS_403, METRICS_REASON_UNAUTHORIZED },
        { 404, METRICS_STATUS_404, METRICS_REASON_NOT_FOUND },
        { 405, METRICS_STATUS_405, METRICS_REASON_NOT_FOUND },
        { 408, METRICS_STATUS_OTHER, METRICS_REASON_TOO_SLOW },
        { 409, METRICS_STATUS_409, METRICS_REASON_NONE },
        { 413, METRICS_STATUS_413, METRICS_REASON_TOO_LARGE },
        { 414, METRICS_STATUS_OTHER, METRICS_REASON_HEAD_TOO_LARGE },
        { 431, METRICS_STATUS_OTHER, METRICS_REASON_HEAD_TOO_LARGE },
        { 500, METRICS_STATUS_500, METRICS_REASON_OTHER },
        { 501, METRICS_STATUS_OTHER, METRICS_REASON_OTHER },
        { 503, METRICS_STATUS_503, METRICS_REASON_UNAVAILABLE },
        { 507, METRICS_STATUS_507, METRICS_REASON_NO_SPACE },
        { 204, METRICS_STATUS_OTHER, METRICS_REASON_NONE },
        { 0, METRICS_STATUS_OTHER, METRICS_REASON_NONE },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(metrics_status_of(cases[i].status), cases[i].label);
        assert_int_equal(metrics_reason_of(cases[i].status), cases[i].reason);
    }
}

static void test_calls(void **state)
{
    static const struct {
        enum http_call_status status;
        const char *label;
    } cases[] = {
        { HTTP_CALL_REPLIED, "unconfirmed" },     { HTTP_CALL_URL, "url" },
        { HTTP_CALL_CONNECT, "connect" },         { HTTP_CALL_TLS, "tls" },
        { HTTP_CALL_TIMEOUT, "timeout" },         { HTTP_CALL_REPLY_SIZE, "reply_size" },
        { HTTP_CALL_BROKEN, "broken" },           { HTTP_CALL_CANCELLED, "cancelled" },
        { (enum http_call_status)100, "broken" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct metrics *m = metrics_create();
        const struct metrics *one[] = { m };
        char *text, line[128];

        metrics_add(&m->deliveries[metrics_delivery_of(cases[i].status)], 1);
        text = print(one, 1, &process);
        snprintf(line, sizeof line, "lonelypss_deliveries_total{outcome=\"%s\"} 1", cases[i].label);
        assert_line(text, line);
        free(text);
        free(m);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_over_threads), cmocka_unit_test(test_process),
        cmocka_unit_test(test_escaping),          cmocka_unit_test(test_shape),
        cmocka_unit_test(test_bucket_of_each),    cmocka_unit_test(test_buckets_of_a_label),
        cmocka_unit_test(test_statuses),          cmocka_unit_test(test_calls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
