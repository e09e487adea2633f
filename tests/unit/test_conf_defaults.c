/* The defaults of the broadcaster's options: src/broadcaster/conf.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>
#include <sys/mman.h>

#include "conf.h"
#include "mem.h"
#include "tables.h"

#define N_OPTIONS 89

static struct conf c;

static int make_defaults(void **state)
{
    (void)state;
    conf_init(&c);
    return 0;
}

static int free_defaults(void **state)
{
    (void)state;
    conf_fini(&c);
    return 0;
}

static void listeners(void **state)
{
    (void)state;
    assert_int_equal(c.broadcaster.listen.count, 1);
    assert_string_equal(c.broadcaster.listen.items[0], "127.0.0.1:3003");
    assert_int_equal(c.broadcaster.tls_listen.count, 0);
    assert_null(c.broadcaster.admin_listen);
    assert_true(c.broadcaster.workers == 1);
    assert_string_equal(c.broadcaster.receiver_url, "derived");
    assert_string_equal(c.broadcaster.missed_url, "derived");
    assert_string_equal(c.broadcaster.spool_dir, "spool");
    assert_true(c.broadcaster.drain_timeout_ms == 10000);
    assert_true(c.http.header_timeout_ms == 10000);
    assert_true(c.http.body_idle_timeout_ms == 30000);
    assert_true(c.http.keepalive_timeout_ms == 75000);
    assert_true(c.http.body_timeout_ms == CONF_NONE);
    assert_true(c.http.discard_bytes == 1048576);
    assert_true(c.http.max_header_bytes == 16384);
    assert_int_equal(c.tcp.listen.count, 0);
    assert_int_equal(c.tcp.tls_listen.count, 0);
    assert_true(c.tcp.max_frame == 16777216);
    assert_true(c.tcp.outgoing_max_message_size == 16777216);
    assert_true(c.tcp.user_timeout_ms == 40000);
    assert_null(c.tls.certificate);
    assert_null(c.tls.key);
    assert_null(c.tls.client_ca);
    assert_string_equal(c.tls.client_certificate, "none");
    assert_true(c.limits.message_body_spool_size == 10485760);
    assert_true(c.limits.max_body_memory == 268435456);
    assert_true(c.limits.max_message_bytes == CONF_NONE);
    assert_true(c.limits.max_topic_bytes == 65535);
    assert_true(c.limits.max_glob_bytes == 65535);
    assert_true(c.limits.max_url_bytes == 65535);
    assert_true(c.limits.max_connections == 65536);
    assert_true(c.limits.max_connections_per_address == CONF_NONE);
    assert_true(c.limits.retry_after_s == 1);
    assert_string_equal(c.log.level, "info");
    assert_string_equal(c.log.format, "text");
    assert_false(c.log.access);
}

static void data_and_messages(void **state)
{
    (void)state;
    assert_string_equal(c.database.type, "sqlite");
    assert_string_equal(c.database.path, "subscriptions.db");
    assert_int_equal(c.database.url.count, 0);
    assert_null(c.database.password_file);
    assert_true(c.database.timeout_ms == 5000);
    assert_true(c.database.missed_lock_time_s == 30);
    assert_true(c.database.index_max_staleness_ms == 0);
    assert_string_equal(c.database.rqlite_read, "linearizable");
    assert_string_equal(c.auth.secrets, "broadcaster-secrets.json");
    assert_int_equal(c.auth.also_accept.count, 0);
    assert_false(c.auth.strict_permissions);
    assert_string_equal(c.auth.replay_store, "database");
    assert_true(c.webhook.outgoing_http_timeout_total_ms == 30000);
    assert_true(c.webhook.outgoing_http_timeout_connect_ms == CONF_NONE);
    assert_true(c.webhook.outgoing_http_timeout_sock_connect_ms == 5000);
    assert_true(c.webhook.outgoing_http_timeout_sock_read_ms == 5000);
    assert_true(c.webhook.max_in_flight == 1024);
    assert_true(c.webhook.max_per_origin == 64);
    assert_true(c.webhook.max_per_url == 8);
    assert_true(c.webhook.max_queued == 65536);
    assert_true(c.webhook.max_reply_bytes == 262144);
    assert_int_equal(c.webhook.allow.count, 2);
    assert_string_equal(c.webhook.allow.items[0], "0.0.0.0/0");
    assert_string_equal(c.webhook.allow.items[1], "::/0");
    assert_int_equal(c.webhook.deny.count, 7);
    assert_string_equal(c.webhook.deny.items[6], "ff00::/8");
    assert_null(c.webhook.ca_file);
    assert_null(c.webhook.proxy);
    assert_true(c.missed.sweep_missed_interval_ms == 10000);
    assert_true(c.missed.max_retries == 20);
    assert_float_equal(c.missed.expo_factor, 1, 0);
    assert_float_equal(c.missed.expo_base, 2, 0);
    assert_float_equal(c.missed.expo_max, 10, 0);
    assert_float_equal(c.missed.constant, 1, 0);
    assert_float_equal(c.missed.jitter, 2, 0);
}

static void sessions(void **state)
{
    (void)state;
    assert_true(c.websocket.websocket_accept_timeout_ms == 2000);
    assert_true(c.websocket.configure_timeout_ms == 10000);
    assert_true(c.websocket.websocket_max_pending_sends == 255);
    assert_true(c.websocket.websocket_max_unprocessed_receives == 255);
    assert_true(c.websocket.websocket_send_max_unacknowledged == 64);
    assert_true(c.websocket.websocket_minimal_headers);
    assert_true(c.websocket.websocket_large_direct_send_timeout_ms == 300);
    assert_true(c.websocket.outgoing_max_ws_message_size == 4194303);
    assert_true(c.websocket.max_frame == 16777216);
    assert_string_equal(c.websocket.websocket_count_parts, "auto");
    assert_true(c.websocket.ping_interval_ms == 20000);
    assert_true(c.websocket.ping_timeout_ms == 20000);
    assert_int_equal(c.websocket.allowed_origins.count, 1);
    assert_string_equal(c.websocket.allowed_origins.items[0], "*");
    assert_true(c.compression.compression_allowed);
    assert_int_equal(c.compression.dictionary.count, 0);
    assert_true(c.compression.allow_training);
    assert_true(c.compression.compression_min_size == 32);
    assert_true(c.compression.compression_trained_max_size == 16384);
    assert_true(c.compression.compression_training_low_watermark == 102400);
    assert_true(c.compression.compression_training_high_watermark == 10485760);
    assert_true(c.compression.compression_retrain_interval_seconds == 216000);
    assert_true(c.compression.decompression_max_window_size == 8388608);
}

/* The table of conf.c has no other option than those. */
static void no_option_is_forgotten_above(void **state)
{
    char *help = NULL;
    size_t len, n = 0;
    FILE *f = open_memstream(&help, &len);

    (void)state;
    conf_print_help(f);
    fclose(f);
    for (const char *at = help; (at = strstr(at, "(default ")) != NULL; at++)
        n++;
    assert_int_equal(n, N_OPTIONS);
    free(help);
}

/* Commented out, the defaults are still what the file means once they are not. */
static void the_sample_of_the_defaults_sets_nothing(void **state)
{
    struct conf again;
    struct conf_error error;
    char *text = NULL, path[64];
    size_t len, n = 0;
    FILE *f = open_memstream(&text, &len);
    int fd = memfd_create("sample", 0);

    (void)state;
    conf_print_sample(f, &c);
    fclose(f);
    for (char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        assert_true(*line == '#' || *line == '[' || *line == '\n' || *line == '\0');
        if (*line == '#' && line[1] != ' ') {
            *line = ' ';
            n++;
        }
    }
    assert_int_equal(n, N_OPTIONS);
    table_require(fd >= 0 && write(fd, text, len) == (ssize_t)len, "memfd_create");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    conf_init(&again);
    assert_true(conf_read_file(&again, path, &error));
    assert_true(again.http.discard_bytes == 1048576);
    conf_fini(&again);
    close(fd);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listeners),
        cmocka_unit_test(data_and_messages),
        cmocka_unit_test(sessions),
        cmocka_unit_test(no_option_is_forgotten_above),
        cmocka_unit_test(the_sample_of_the_defaults_sets_nothing),
    };

    return cmocka_run_group_tests_name("conf_defaults", tests, make_defaults, free_defaults);
}
