/* Every option of the library: its default is a value, bad ones are refused and named, and what does not go together
 * is refused when opening. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "options.h"
#include "order.h"
#include "tables.h"

static struct lonely_client_why why;

static enum lonely_client_error set(const char *name, const char *value)
{
    struct lonely_client_options *o = lonely_client_options_create();
    enum lonely_client_error err;

    why.text[0] = '\0';
    err = lonely_client_options_set(o, name, value, &why);
    lonely_client_options_destroy(o);
    return err;
}

static void test_defaults_are_values(void **state)
{
    size_t count;
    const struct lonely_client_option *table = lonely_client_option_table(&count);

    (void)state;
    for (size_t i = 0; i < count; i++) {
        assert_non_null(table[i].unit);
        assert_true(strlen(table[i].meaning) > 10);
        assert_int_equal(table[i].list, table[i].default_value == NULL);
        if (!table[i].list)
            assert_int_equal(set(table[i].name, table[i].default_value), LONELY_CLIENT_OK);
    }
}

static const struct {
    const char *name, *good, *bad; /* values with '|' between them */
} values[] = {
    { "broadcaster",
      "http://h|https://h:1/p|ws://[::1]:3003|wss://h|tcp://h|tcps://h:3004 -5|ws://h 2",
      "|h:1|ftp://h|http://|http://h?q|http://h#f|ws://h x|ws://h 1 2|ws://h\t|ws://\xc3\xbc" },
    { "dictionary", "2 1 /d|65535 22 /d e", "1 3 /d|65536 3 /d|2 0 /d|2 23 /d|2 3|2 3 |x 3 /d" },
    { "io", "thread|caller", "|both|none" },
    { "secrets", "none|/a/b", "" },
    { "bind", "none|127.0.0.1:0|[::1]:3002|0.0.0.0:65535", "127.0.0.1|:65536|h:x" },
    { "host", "none|http://h", "" },
    { "ca", "none|/ca.pem", "" },
    { "cert", "none|/c.pem", "" },
    { "key", "none|/k.pem", "" },
    { "receiver_cert", "none|/c.pem", "" },
    { "receiver_key", "none|/k.pem", "" },
    { "proxy", "none|http://h:1|socks5h://h:1", "h|ftp://h:1" },
    { "spool_dir", "none|/tmp", "" },
    { "tracing", "none|/t.db", "" },
    { "message_body_spool_size", "0|4096|64K|10M|1G", "none|-1|1T|x|64k|1025G" },
    { "max_received", "1|16777216", "0|16777217|none" },
    { "max_received_bytes", "0|64M", "none|x" },
    { "outgoing_retries_per_broadcaster", "1|1000", "0|1001|none" },
    { "outgoing_http_timeout_total", "none|1ms|30s", "" },
    { "outgoing_http_timeout_connect", "none|1ms|2m", "0|x" },
    { "outgoing_http_timeout_sock_read", "none|1ms|1h", "0|x" },
    { "outgoing_http_timeout_sock_connect", "none|5s", "0|x" },
    { "outgoing_retry_ambiguous", "yes|no|true|false|1|0", "maybe|none" },
    { "resubscribe_interval", "1ms|300s", "0|none" },
    { "outgoing_initial_connect_retries", "0|1000000", "1000001|-1" },
    { "outgoing_reconnect_retries", "0|none", "1000001|-1" },
    { "outgoing_min_reconnect_interval", "0|10s", "none|x" },
    { "max_websocket_message_size", "4096|16M|none", "4095|16777217" },
    { "max_frame", "256K|4294967295", "262143|4294967296|none" },
    { "websocket_open_timeout", "1ms|none", "0" },
    { "websocket_close_timeout", "1ms|none", "0" },
    { "websocket_heartbeat_interval", "1ms|none", "0" },
    { "tcp_user_timeout", "1ms|none", "0" },
    { "websocket_minimal_headers", "yes|no", "none" },
    { "check_confirmations", "yes|no", "none" },
    { "max_sent_notifications", "1|none", "0" },
    { "max_unsent_notifications", "1|none", "0" },
    { "max_expected_acks", "1|none", "0" },
    { "max_unsent_acks", "1|none", "0" },
    { "allow_compression", "yes|no", "none" },
    { "allow_training_compression", "yes|no", "none" },
    { "initial_compression_dict_id", "2|65535|none", "1|65536" },
    { "decompression_max_window_size", "0|8M|2G", "none|2147483649" },
};

static void check_all(const char *name, const char *list, enum lonely_client_error expected)
{
    char text[512], *rest = text, *value;

    strcpy(text, list);
    while ((value = strsep(&rest, "|")) != NULL) {
        if (set(name, value) != expected)
            fail_msg("%s = \"%s\": %s", name, value, why.text);
        if (expected != LONELY_CLIENT_OK && strncmp(why.text, name, strlen(name)) != 0)
            fail_msg("%s = \"%s\" is refused as \"%s\"", name, value, why.text);
    }
}

static void test_values(void **state)
{
    size_t count;
    const struct lonely_client_option *table = lonely_client_option_table(&count);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(values); i++) {
        check_all(values[i].name, values[i].good, LONELY_CLIENT_OK);
        if (values[i].bad[0] != '\0')
            check_all(values[i].name, values[i].bad, LONELY_CLIENT_ARGUMENT);
    }
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;

        while (at < TABLE_LEN(values) && strcmp(values[at].name, table[i].name) != 0)
            at++;
        if (at == TABLE_LEN(values))
            fail_msg("%s is not in this table", table[i].name);
    }
    assert_int_equal(set("no_such", "1"), LONELY_CLIENT_ARGUMENT);
    assert_non_null(strstr(why.text, "no_such"));
}

/* ---- Together ---- */

static const struct {
    const char *name;
    const char *options[9]; /* name, value, ... */
    const char *why;        /* its beginning; NULL: good */
} wholes[] = {
    { "no broadcaster", { NULL }, "broadcaster: at least one" },
    { "one", { "broadcaster", "ws://h" }, NULL },
    { "with and without TLS", { "broadcaster", "ws://h", "broadcaster", "wss://h" }, NULL },
    { "of two kinds", { "broadcaster", "ws://h", "broadcaster", "tcp://h" }, "broadcaster: all" },
    { "cert alone", { "broadcaster", "ws://h", "cert", "/c" }, "cert, key" },
    { "key alone", { "broadcaster", "ws://h", "key", "/c" }, "cert, key" },
    { "receiver_cert alone",
      { "broadcaster", "http://h", "receiver_cert", "/c" },
      "receiver_cert, receiver_key" },
    { "host of another kind", { "broadcaster", "http://h", "host", "ws://h" }, "host: expected" },
    { "host with a query", { "broadcaster", "http://h", "host", "http://h?q" }, "host: a query" },
    { "host with a slash", { "broadcaster", "http://h", "host", "http://h/" }, "host: without" },
    { "host with a blank", { "broadcaster", "http://h", "host", "http://h /" }, "host: expected" },
    { "host with a fragment", { "broadcaster", "http://h", "host", "http://h/p#1?/" }, NULL },
    { "preset without dictionary",
      { "broadcaster", "ws://h", "initial_compression_dict_id", "3" },
      "initial_compression_dict_id" },
    { "preset",
      { "broadcaster", "ws://h", "initial_compression_dict_id", "3", "dictionary", "3 1 /d" },
      NULL },
};

static void test_wholes(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(wholes); i++) {
        struct lonely_client_options *o = lonely_client_options_create();
        struct client_conf conf = { 0 };
        bool good;

        for (size_t j = 0; wholes[i].options[j] != NULL; j += 2)
            assert_int_equal(
                lonely_client_options_set(o, wholes[i].options[j], wholes[i].options[j + 1], &why),
                LONELY_CLIENT_OK);
        why.text[0] = '\0';
        good = client_conf_finish(o, &conf, &why);
        lonely_client_options_destroy(o);
        if (good != (wholes[i].why == NULL) ||
            (!good && strncmp(why.text, wholes[i].why, strlen(wholes[i].why)) != 0))
            fail_msg("%s: %s", wholes[i].name, why.text);
        client_conf_fini(&conf);
    }
}

/* ---- The order of broadcasters (order.c) ---- */

static uint32_t draws;

static void draw(void *arg, uint8_t *to, size_t len)
{
    uint32_t value = draws++ * 2654435761u;

    (void)arg;
    assert_int_equal(len, sizeof(value));
    memcpy(to, &value, len);
}

static void test_order(void **state)
{
    static const char *const broadcasters[] = { "ws://n1",   "ws://b1 2", "ws://a 1",
                                                "ws://n2",   "ws://b2 2", "ws://first -1",
                                                "ws://b3 2", "ws://n3" };
    static const char expected[] = "fabbbnnn"; /* by priority, those without one last */
    struct lonely_client_options *o = lonely_client_options_create();
    bool seen[3][3] = { { false } }; /* each of the b's in each place */
    struct client_conf conf;
    struct order order;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(broadcasters); i++)
        lonely_client_options_set(o, "broadcaster", broadcasters[i], NULL);
    assert_true(client_conf_finish(o, &conf, &why));
    lonely_client_options_destroy(o);
    order_init(&order, &conf);
    assert_null(order_next(&order)); /* before the first pass */
    for (int pass = 0; pass < 100; pass++) {
        order_shuffle(&order, draw, NULL);
        for (size_t i = 0; i < TABLE_LEN(broadcasters); i++) {
            const struct client_broadcaster *b = order_next(&order);

            assert_int_equal(b->url[5], expected[i]);
            if (b->url[5] == 'b')
                seen[b->url[6] - '1'][i - 2] = true;
        }
        assert_null(order_next(&order));
    }
    for (int i = 0; i < 9; i++)
        assert_true(seen[i / 3][i % 3]);
    order_fini(&order);
    client_conf_fini(&conf);
}

static void test_delays(void **state)
{
    (void)state;
    assert_int_equal(order_delay_ms(1, 0), 1000);
    assert_int_equal(order_delay_ms(1, 0.999), 1999);
    assert_int_equal(order_delay_ms(2, 0.5), 2500);
    assert_int_equal(order_delay_ms(6, 0), 32000);
    assert_int_equal(order_delay_ms(1000000, 0), 32768000); /* no overflow */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_values),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_wholes),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_delays),
    };

    return cmocka_run_group_tests_name("client_options", tests, NULL, NULL);
}
