/* The options of the broadcaster: src/broadcaster/conf.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/stat.h>

#include "conf.h"
#include "mem.h"
#include "tables.h"

static char folder[] = "/tmp/test_conf.XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    table_require(mkdtemp(folder) != NULL, "mkdtemp");
    snprintf(path, sizeof path, "%s/x.ini", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* Reads `text` as a file; the error begins behind the folder's name. */
static bool read_text(struct conf *c, const char *text, size_t len, const char **wrong)
{
    static struct conf_error error;
    FILE *f = fopen(path, "w");

    table_require(f != NULL && fwrite(text, 1, len, f) == len && fclose(f) == 0, "file");
    conf_init(c);
    *wrong = error.text + strlen(folder) + 1;
    return conf_read_file(c, path, &error);
}

/* Paths of a list, too, begin at the folder of the file; `none` empties the list. */
static void lists_of_paths(void **state)
{
    static const char text[] = "[auth]\n"
                               "also_accept = old.json\t/etc/older.json\n"
                               "also_accept = oldest.json\n";
    const char *wrong;
    char first[600];
    struct conf c;
    struct conf_error error;

    (void)state;
    assert_true(read_text(&c, text, strlen(text), &wrong));
    snprintf(first, sizeof first, "%s/old.json", folder);
    assert_int_equal(c.auth.also_accept.count, 3);
    assert_string_equal(c.auth.also_accept.items[0], first);
    assert_string_equal(c.auth.also_accept.items[1], "/etc/older.json");
    assert_true(conf_set(&c, "auth.also_accept=none", &error));
    assert_int_equal(c.auth.also_accept.count, 0);
    assert_true(conf_set(&c, "auth.also_accept=a b", &error));
    assert_int_equal(c.auth.also_accept.count, 2);
    assert_false(conf_set(&c, "auth.also_accept=a none", &error));
    assert_int_equal(c.auth.also_accept.count, 2);
    conf_fini(&c);
}

/* Three words each; only the path is one. */
static void lists_of_dictionaries(void **state)
{
    static const char text[] = "[compression]\n"
                               "dictionary = 2 5 old.dict\t65535  22\t/etc/other.dict\n"
                               "dictionary = 300 1 third\n";
    static const char *const wrong_ones[] = {
        "",      "2",       "2 5",     "0 5 a",   "1 5 a",    "65536 5 a",
        "2 0 a", "2 23 a",  "2 -1 a",  "-2 5 a",  "2 5 a 3",  "2 5 a 3 5",
        "a 2 5", "2 5.5 a", "2.0 5 a", "0x2 5 a", "none 5 a", "4294967298 5 a",
    };
    const char *wrong;
    char first[600];
    struct conf_dictionary d;
    struct conf_error error;
    struct conf c;

    (void)state;
    assert_true(read_text(&c, text, strlen(text), &wrong));
    snprintf(first, sizeof first, "2 5 %s/old.dict", folder);
    assert_int_equal(c.compression.dictionary.count, 3);
    assert_string_equal(c.compression.dictionary.items[0], first);
    assert_string_equal(c.compression.dictionary.items[1], "65535 22 /etc/other.dict");
    assert_true(conf_dictionary_parse(c.compression.dictionary.items[1], &d));
    assert_true(d.id == 65535 && d.level == 22);
    assert_string_equal(d.path, "/etc/other.dict");
    assert_true(conf_check(&c, &error));
    for (size_t i = 0; i < TABLE_LEN(wrong_ones); i++) {
        snprintf(first, sizeof first, "compression.dictionary=%s", wrong_ones[i]);
        assert_false(conf_set(&c, first, &error));
        assert_non_null(strstr(error.text, "ID LEVEL PATH"));
    }
    assert_int_equal(c.compression.dictionary.count, 3);
    assert_true(conf_set(&c, "compression.dictionary=2 5 a 2 6 b", &error));
    assert_false(conf_check(&c, &error));
    assert_string_equal(error.text, "compression.dictionary: id 2 is given twice");
    conf_fini(&c);
}

static void limits_of_compression(void **state)
{
    static const char *const wrong_ones[] = {
        "compression_min_size=0",
        "compression_trained_max_size=65537",
        "compression_min_size=16385",
        "compression_training_low_watermark=11M",
        "compression_training_high_watermark=257M",
        "decompression_max_window_size=129M",
    };
    struct conf_error error;
    char text[128];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(wrong_ones); i++) {
        struct conf c;

        conf_init(&c);
        snprintf(text, sizeof text, "compression.%s", wrong_ones[i]);
        assert_false(conf_set(&c, text, &error) && conf_check(&c, &error));
        conf_fini(&c);
    }
}

static void a_file_sets_values(void **state)
{
    static const char text[] = "# comment\n"
                               "[http]\n"
                               "header_timeout = 500ms\n"
                               "body_idle_timeout = none\n"
                               "[broadcaster]\n"
                               "listen = 0.0.0.0:80\n"
                               "listen = [::1]:0\tlocalhost:65535\n"
                               "workers = 0\n"
                               "[log]\n"
                               "access = yes\n"
                               "level = debug\n"
                               "[http]\n"
                               "max_header_bytes = 64K\n";
    const char *wrong;
    struct conf c;

    (void)state;
    assert_true(read_text(&c, text, strlen(text), &wrong));
    assert_true(c.http.header_timeout_ms == 500);
    assert_true(c.http.body_idle_timeout_ms == CONF_NONE);
    assert_true(c.http.max_header_bytes == 65536);
    assert_true(c.http.keepalive_timeout_ms == 75000);
    assert_int_equal(c.broadcaster.listen.count, 3);
    assert_string_equal(c.broadcaster.listen.items[0], "0.0.0.0:80");
    assert_string_equal(c.broadcaster.listen.items[1], "[::1]:0");
    assert_string_equal(c.broadcaster.listen.items[2], "localhost:65535");
    assert_true(c.broadcaster.workers == 0);
    assert_true(c.log.access);
    assert_string_equal(c.log.level, "debug");
    conf_fini(&c);
}

#define TIME_ERROR(min, max, none)                                                         \
    "expected a time such as 10, 1.5, 500ms, 30s, 2m or 1h (without a unit: s), from " min \
    " to " max none

static const struct file_error_case {
    const char *text, *error;
} file_errors[] = {
    { "[http]\nheader_timeout = 5 s\n",
      "x.ini:2: http.header_timeout: \"5 s\": " TIME_ERROR("1ms", "8760h", "") },
    { "[htpp]\n", "x.ini:1: unknown section [htpp]" },
    { "[\x1b[31m]\n", "x.ini:1: unknown section [\\x1b[31m]" },
    { "[http]\n\nheader_timeuot = 5\n", "x.ini:3: unknown key \"header_timeuot\" in [http]" },
    { "[http]\nlisten = a:1\n", "x.ini:2: unknown key \"listen\" in [http]" },
    { "[http]\nHeader_timeout = 5\n", "x.ini:2: unknown key \"Header_timeout\" in [http]" },
    { "[broadcaster]\ntls_listen = a\n",
      "x.ini:2: broadcaster.tls_listen: \"a\": expected HOST:PORT "
      "with a port from 0 to 65535, or none" },
    { "[tls]\ncertificate =\n", "x.ini:2: tls.certificate: \"\": expected a path, or none" },
    { "[tls]\nclient_certificate = yes\n", "x.ini:2: tls.client_certificate: \"yes\": expected one "
                                           "of: none optional required" },
    { "[log]\nlevel = warn\n[http]\n[log]\nlevel = warn\n",
      "x.ini:5: log.level is given twice, first in line 2" },
    { "[log]\nlevel = loud\n",
      "x.ini:2: log.level: \"loud\": expected one of: error warn info debug" },
    { "[log]\nlevel =\n", "x.ini:2: log.level: \"\": expected one of: error warn info debug" },
    { "[log]\naccess = on\n",
      "x.ini:2: log.access: \"on\": expected yes, no, true, false, 1 or 0" },
    { "[database]\ntype = mysql\n",
      "x.ini:2: database.type: \"mysql\": expected one of: sqlite postgres rqlite memory" },
    { "[database]\npath =\n", "x.ini:2: database.path: \"\": expected a path" },
    { "[auth]\nsecrets =\n", "x.ini:2: auth.secrets: \"\": expected a path, or none" },
    { "[broadcaster]\nlisten =\n", "x.ini:2: broadcaster.listen: \"\": expected HOST:PORT with a "
                                   "port from 0 to 65535, or none" },
    { "level = info\n", "x.ini:1: a key before the first [section]" },
    { "[log]\nlevel\n", "x.ini:2: expected [section], key = value, or a comment that begins with # "
                        "or ;" },
    { "[database]\nurl = ftp://u:hush@x\n",
      "x.ini:2: database.url: expected postgresql://HOST/NAME, or http://HOST:PORT of each node of "
      "rqlite, or none" },
    { "[webhook]\nproxy = ftp://x\n",
      "x.ini:2: webhook.proxy: \"ftp://x\": expected http://HOST:PORT (or https, socks4, socks4a, "
      "socks5, socks5h), or none" },
    { "[webhook]\nproxy = http://u:hush@x y\n",
      "x.ini:2: webhook.proxy: expected http://HOST:PORT (or https, socks4, socks4a, socks5, "
      "socks5h), or none" },
    { "[webhook]\ndeny =\n", "x.ini:2: webhook.deny: \"\": expected ADDRESS/BITS such as "
                             "10.0.0.0/8 or fd00::/8" },
    { "[webhook]\nallow = ::/0\nallow = 10.0.0.0/8 10.0.0.1\n",
      "x.ini:3: webhook.allow: \"10.0.0.0/8 10.0.0.1\": 10.0.0.1: expected ADDRESS/BITS such as "
      "10.0.0.0/8 or fd00::/8" },
    { "[webhook]\nallow = 10.1.0.0/8\n",
      "x.ini:2: webhook.allow: \"10.1.0.0/8\": 10.1.0.0/8: bits are set behind the prefix" },
    { "[webhook]\ndeny = none\n", "x.ini:2: webhook.deny: \"none\": none: expected ADDRESS/BITS "
                                  "such as 10.0.0.0/8 or fd00::/8" },
    { "[webhook]\ndeny = 64:ff9b::/96\n",
      "x.ini:2: webhook.deny: \"64:ff9b::/96\": 64:ff9b::/96: these addresses are judged as IPv4; "
      "give the IPv4 range" },
    { "[limits]\nmax_topic_bytes = 64K\n", "x.ini:2: limits.max_topic_bytes: \"64K\": expected a "
                                           "size in bytes such as 4096, 64K, 10M or "
                                           "1G, from 1 to 65535" },
    { "[webhook]\nmax_queued = -1\n",
      "x.ini:2: webhook.max_queued: \"-1\": expected a number, from 1 to 268435456" },
    { "[missed]\njitter = nan\n", "x.ini:2: missed.jitter: \"nan\": expected a number such as 2 or "
                                  "0.5, at most 6 decimals, from 0 to 86400" },
    { "[log]\nlevel = "
      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
      "x.ini:2: log.level: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\\...\": "
      "expected one of: error warn info debug" },
};

static void errors_name_file_and_line(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(file_errors); i++) {
        const char *wrong;
        struct conf c;

        assert_false(read_text(&c, file_errors[i].text, strlen(file_errors[i].text), &wrong));
        assert_string_equal(wrong, file_errors[i].error);
        conf_fini(&c);
    }
}

static void a_nul_byte_is_an_error(void **state)
{
    static const char text[] = "[log]\nlevel = info\0x\n";
    const char *wrong;
    struct conf c;

    (void)state;
    assert_false(read_text(&c, text, sizeof text - 1, &wrong));
    assert_string_equal(wrong, "x.ini:2: the line holds a NUL byte");
    conf_fini(&c);
}

static void files_that_cannot_be_read(void **state)
{
    struct conf_error error;
    static char long_path[5000];
    struct conf c;

    (void)state;
    conf_init(&c);
    assert_false(conf_read_file(&c, "/nonexistent/x.ini", &error));
    assert_string_equal(error.text,
                        "/nonexistent/x.ini: cannot be read: No such file or directory");
    assert_false(conf_read_file(&c, "/", &error));
    assert_string_equal(error.text, "/: cannot be read: Is a directory");
    memset(long_path, 'x', sizeof long_path - 1);
    assert_false(conf_read_file(&c, long_path, &error));
    assert_string_equal(error.text + 200, ": cannot be read: File name too long");
    conf_fini(&c);
}

static void relative_paths_begin_at_the_file(void **state)
{
    static const char text[] =
        "[database]\npath = sub/x.db\n[broadcaster]\nspool_dir = /var/spool\n";
    char expected[128];
    struct conf_error error;
    const char *wrong;
    struct conf c;

    (void)state;
    assert_true(read_text(&c, text, strlen(text), &wrong));
    snprintf(expected, sizeof expected, "%s/sub/x.db", folder);
    assert_string_equal(c.database.path, expected);
    assert_string_equal(c.broadcaster.spool_dir, "/var/spool");
    snprintf(expected, sizeof expected, "%s/broadcaster-secrets.json", folder); /* defaults too */
    assert_string_equal(c.auth.secrets, expected);
    assert_null(c.webhook.ca_file);
    assert_true(conf_set(&c, "database.path=y.db", &error)); /* but not what --set says */
    assert_string_equal(c.database.path, "y.db");
    conf_fini(&c);
}

/* The value of one option after conf_set, as the sample prints it; NULL: refused. */
static const char *value_after(const char *assignment)
{
    static char line[256];
    const char *key = strchr(assignment, '.') + 1;
    size_t section_len = (size_t)(key - 1 - assignment);
    bool in_section = false;
    size_t key_len = (size_t)(strchr(key, '=') - key), len;
    char *sample = NULL;
    struct conf_error error;
    struct conf c;
    bool good;
    FILE *f;

    conf_init(&c);
    good = conf_set(&c, assignment, &error);
    f = open_memstream(&sample, &len);
    conf_print_sample(f, &c);
    fclose(f);
    line[0] = '\0';
    for (char *at = strtok(sample, "\n"); at != NULL; at = strtok(NULL, "\n")) {
        if (*at == '[')
            in_section =
                strncmp(at + 1, assignment, section_len) == 0 && at[section_len + 1] == ']';
        at += *at == '#';
        if (in_section && strncmp(at, key, key_len) == 0 && strncmp(at + key_len, " = ", 3) == 0)
            snprintf(line, sizeof line, "%s", at + key_len + 3);
    }
    free(sample);
    conf_fini(&c);
    return good ? line : NULL;
}

static const struct value_case {
    const char *assignment;
    const char *value; /* NULL: refused */
} values[] = {
    /* Times: units, fractions, boundaries. */
    { "http.header_timeout=10", "10s" },
    { "http.header_timeout=10s", "10s" },
    { "http.header_timeout=1500ms", "1500ms" },
    { "http.header_timeout=1.5", "1500ms" },
    { "http.header_timeout=0.001", "1ms" },
    { "http.header_timeout=2m", "2m" },
    { "http.header_timeout=120", "2m" },
    { "http.header_timeout=1h", "1h" },
    { "http.header_timeout=0.5h", "30m" },
    { "http.header_timeout=8760h", "8760h" },
    { "http.header_timeout=31536000001ms", NULL },
    { "http.header_timeout=0", NULL },
    { "http.header_timeout=0.0001", NULL },
    { "http.header_timeout=0.5ms", NULL },
    { "http.header_timeout=none", NULL },
    { "http.header_timeout=", NULL },
    { "http.header_timeout=s", NULL },
    { "http.header_timeout=.5", NULL },
    { "http.header_timeout=5.", NULL },
    { "http.header_timeout=1.2.3", NULL },
    { "http.header_timeout=-1", NULL },
    { "http.header_timeout=+1", NULL },
    { "http.header_timeout=1e3", NULL },
    { "http.header_timeout=0x10", NULL },
    { "http.header_timeout=10S", NULL },
    { "http.header_timeout=10 s", NULL },
    { "webhook.deny=10.0.0.0/8", "10.0.0.0/8" },
    { "webhook.deny=10.0.0.0/8\t::/0", "10.0.0.0/8 ::/0" },
    { "webhook.deny=none", NULL },
    { "webhook.deny=10.0.0.0/8,::/0", NULL },
    { "http.header_timeout=10d", NULL },
    { "http.header_timeout=10K", NULL },
    { "http.header_timeout=9999999999999999999", NULL },
    { "http.header_timeout=18446744073709552616", NULL }, /* 2^64 + 1000 */
    { "http.body_timeout=none", "none" },
    { "http.body_timeout=None", NULL },
    { "broadcaster.drain_timeout=0", "0" },
    { "limits.retry_after=2", "2s" },
    { "limits.retry_after=2000ms", "2s" },
    { "limits.retry_after=1m", "1m" },
    { "limits.retry_after=1500ms", NULL },
    { "limits.retry_after=24h", "24h" },
    { "limits.retry_after=86401", NULL },
    /* Sizes. */
    { "http.discard_bytes=0", "0" },
    { "http.discard_bytes=1", "1" },
    { "http.discard_bytes=1K", "1K" },
    { "http.discard_bytes=1025", "1025" },
    { "http.discard_bytes=1024K", "1M" },
    { "http.discard_bytes=1.5M", "1536K" },
    { "http.discard_bytes=1024G", "1024G" },
    { "http.discard_bytes=1025G", NULL },
    { "http.discard_bytes=17179869184G", NULL }, /* 2^64 */
    { "http.discard_bytes=1k", NULL },
    { "http.discard_bytes=1KB", NULL },
    { "http.discard_bytes=1T", NULL },
    { "http.discard_bytes=0.5", NULL },
    { "http.discard_bytes=none", NULL },
    { "http.max_header_bytes=1023", NULL },
    { "http.max_header_bytes=1M", "1M" },
    { "limits.max_message_bytes=none", "none" },
    { "limits.max_message_bytes=0", NULL },
    { "limits.max_topic_bytes=65535", "65535" },
    { "limits.max_topic_bytes=65536", NULL },
    /* Counts, numbers. */
    { "broadcaster.workers=0", "0" },
    { "broadcaster.workers=1024", "1024" },
    { "broadcaster.workers=1025", NULL },
    { "broadcaster.workers=1K", NULL },
    { "broadcaster.workers=1.5", NULL },
    { "limits.max_connections_per_address=none", "none" },
    { "limits.max_connections_per_address=1", "1" },
    { "limits.max_connections_per_address=0", NULL },
    { "broadcaster.receiver_url=derived", "derived" },
    { "broadcaster.receiver_url=http://a:1/b?c", "http://a:1/b?c" },
    { "broadcaster.receiver_url=https://[::1]/b", "https://[::1]/b" },
    { "broadcaster.receiver_url=none", NULL },
    { "broadcaster.receiver_url=", NULL },
    { "broadcaster.receiver_url=ftp://a/b", NULL },
    { "broadcaster.receiver_url=http://a", NULL },
    { "broadcaster.receiver_url=http:///b", NULL },
    { "broadcaster.receiver_url=http://a?b/c", NULL },
    { "broadcaster.receiver_url=http://a/b#c", NULL },
    { "broadcaster.receiver_url=http://u@a/b", NULL },
    { "broadcaster.receiver_url=http://a/b c", NULL },
    { "broadcaster.receiver_url=http://a/\xc3\xa9", NULL },
    { "broadcaster.missed_url=none", "none" },
    { "broadcaster.missed_url=derived", "derived" },
    { "broadcaster.admin_listen=none", "none" },
    { "broadcaster.admin_listen=[::1]:0", "[::1]:0" },
    { "broadcaster.admin_listen=127.0.0.1:65536", NULL },
    { "broadcaster.admin_listen=127.0.0.1:1 127.0.0.1:2", NULL },
    { "broadcaster.admin_listen=", NULL },
    { "tcp.max_frame=256K", "256K" },
    { "tcp.max_frame=262143", NULL },
    { "tcp.max_frame=4294967295", "4294967295" },
    { "tcp.max_frame=4G", NULL },
    { "tcp.outgoing_max_message_size=none", "none" },
    { "tcp.outgoing_max_message_size=511", NULL },
    { "tcp.user_timeout=999ms", NULL },
    { "websocket.websocket_send_max_unacknowledged=none", "none" },
    { "websocket.websocket_send_max_unacknowledged=0", NULL },
    { "websocket.websocket_count_parts=first", "first" },
    { "websocket.websocket_count_parts=all", NULL },
    { "websocket.allowed_origins=https://a.example http://b:8080",
      "https://a.example http://b:8080" },
    { "websocket.allowed_origins=* null", "* null" },
    { "websocket.allowed_origins=none", NULL },
    { "websocket.allowed_origins=a.example", NULL },
    { "websocket.allowed_origins=https://", NULL },
    { "websocket.allowed_origins=https://a/", NULL },
    { "missed.expo_base=1.5", "1.5" },
    { "missed.expo_base=0", "0" },
    { "missed.expo_base=100", "100" },
    { "missed.expo_base=0.000001", "0.000001" },
    { "missed.expo_base=0.0000001", NULL },
    { "missed.jitter=86399.999999", "86399.999999" },
    { "missed.expo_base=100.5", NULL },
    { "missed.expo_base=1.2.3", NULL },
    { "missed.expo_base=inf", NULL },
    { "missed.expo_base=0x2", NULL },
    { "missed.expo_base=1e1", NULL },
    { "missed.expo_base=", NULL },
    { "missed.expo_base=.", NULL },
    /* Switches, choices, strings. */
    { "log.access=yes", "yes" },
    { "log.access=true", "yes" },
    { "log.access=1", "yes" },
    { "log.access=no", "no" },
    { "log.access=false", "no" },
    { "log.access=0", "no" },
    { "log.access=YES", NULL },
    { "log.access=", NULL },
    { "log.format=json", "json" },
    { "log.format=jso", NULL },
    { "log.format=text json", NULL },
    { "database.type=memory", "memory" },
    { "auth.secrets=none", "none" },
    { "auth.secrets=a=b.json", "a=b.json" },
    { "database.path=none", "none" }, /* a file of that name: the option has no none */
    { "webhook.proxy=http://p:3128", "http://p:3128" },
    { "webhook.proxy=socks5h://p", "socks5h://p" },
    { "webhook.proxy=http://", NULL },
    { "webhook.proxy=http://a b", NULL },
    { "webhook.proxy=none", "none" },
    { "database.url=postgresql://u:p@h,i/d", "postgresql://u:p@h,i/d" },
    { "database.url=http://h:1  https://i:2", "http://h:1 https://i:2" },
    { "database.url=http://h:1 ftp://i:2", NULL },
    { "database.url=h", NULL },
    { "database.url=none", "none" },
    { "database.index_max_staleness=500ms", "500ms" },
    { "database.index_max_staleness=2h", NULL },
    { "database.rqlite_read=weak", "weak" },
    { "database.rqlite_read=none", NULL },
    /* Addresses. */
    { "broadcaster.listen=localhost:0", "localhost:0" },
    { "broadcaster.listen=a:1  b:2\tc:3", "a:1 b:2 c:3" },
    { "broadcaster.listen=[::1]:3003", "[::1]:3003" },
    { "broadcaster.listen=::1:3003", NULL },
    { "broadcaster.listen=[]:1", NULL },
    { "broadcaster.listen=[::1]", NULL },
    { "broadcaster.listen=localhost", NULL },
    { "broadcaster.listen=localhost:", NULL },
    { "broadcaster.listen=:80", NULL },
    { "broadcaster.listen=a:65536", NULL },
    { "broadcaster.listen=a:000080", NULL },
    { "broadcaster.listen=a:-1", NULL },
    { "broadcaster.listen=a:http", NULL },
    { "broadcaster.listen=a:1 b", NULL },
    { "broadcaster.listen=a\x01:1", NULL },
    { "broadcaster.listen=", NULL },
    { "broadcaster.listen= ", NULL },
    { "broadcaster.listen=none", "none" },
};

static void values_with_units_and_boundaries(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(values); i++) {
        const char *value = value_after(values[i].assignment);

        if (value == NULL || values[i].value == NULL) {
            if (value != values[i].value)
                fail_msg("%s: %s", values[i].assignment, value == NULL ? "refused" : value);
        } else {
            assert_string_equal(value, values[i].value);
        }
    }
}

static const struct set_error_case {
    const char *assignment, *error;
} set_errors[] = {
    { "", "\"\": expected section.key=value" },
    { "log.level", "\"log.level\": expected section.key=value" },
    { "level=info", "\"level\": expected section.key=value" },
    { "url=postgresql://u:hush.hush@x", "\"url\": expected section.key=value" },
    { "log.loud=1", "unknown option \"log.loud\"" },
    { "logs.level=info", "unknown option \"logs.level\"" },
    { "log.level =info", "unknown option \"log.level \"" },
    { "log.level=\n", "log.level: \"\\x0a\": expected one of: error warn info debug" },
    { "http.body_timeout=x", "http.body_timeout: \"x\": " TIME_ERROR("1ms", "8760h", ", or none") },
};

static void errors_of_set(void **state)
{
    struct conf c;

    (void)state;
    conf_init(&c);
    for (size_t i = 0; i < TABLE_LEN(set_errors); i++) {
        struct conf_error error;

        assert_false(conf_set(&c, set_errors[i].assignment, &error));
        assert_string_equal(error.text, set_errors[i].error);
    }
    assert_string_equal(c.log.level, "info"); /* what was refused changed nothing */
    conf_fini(&c);
}

static void set_replaces_the_list_of_the_file_then_adds(void **state)
{
    static const char text[] = "[broadcaster]\nlisten = a:1\nlisten = b:2\n";
    struct conf_error error;
    const char *wrong;
    struct conf c;

    (void)state;
    assert_true(read_text(&c, text, strlen(text), &wrong));
    assert_int_equal(c.broadcaster.listen.count, 2);
    assert_false(conf_set(&c, "broadcaster.listen=c", &error));
    assert_int_equal(c.broadcaster.listen.count, 2);
    assert_true(conf_set(&c, "broadcaster.listen=c:3", &error));
    assert_int_equal(c.broadcaster.listen.count, 1);
    assert_true(conf_set(&c, "broadcaster.listen=d:4", &error));
    assert_int_equal(c.broadcaster.listen.count, 2);
    assert_string_equal(c.broadcaster.listen.items[0], "c:3");
    assert_string_equal(c.broadcaster.listen.items[1], "d:4");
    conf_fini(&c);
}

static const struct check_case {
    const char *first, *second;
    const char *error; /* NULL: good */
} checks[] = {
    { "broadcaster.admin_listen=127.0.0.1:3003", NULL,
      "broadcaster.admin_listen: \"127.0.0.1:3003\" is in broadcaster.listen too" },
    { "broadcaster.admin_listen=127.0.0.1:3004", NULL, NULL },
    { "broadcaster.receiver_url=http://a/v1/receive_for_websockets?b",
      "broadcaster.missed_url=https://b:1/v1/missed_for_websockets", NULL },
    { "broadcaster.missed_url=none", NULL, NULL },
    { "broadcaster.listen=none", NULL,
      "broadcaster.listen is none, which is for programs that embed the broadcaster" },
    { "broadcaster.receiver_url=http://a/x/v1/receive_for_websockets", NULL,
      "broadcaster.receiver_url: its path must be /v1/receive_for_websockets" },
    { "broadcaster.receiver_url=http://a/v1/receive_for_websocketss", NULL,
      "broadcaster.receiver_url: its path must be /v1/receive_for_websockets" },
    { "broadcaster.missed_url=http://a/v1/receive_for_websockets", NULL,
      "broadcaster.missed_url: its path must be /v1/missed_for_websockets" },
    { "broadcaster.listen=127.0.0.1:0", "broadcaster.admin_listen=127.0.0.1:0", NULL },
    { "log.level=info", NULL, NULL },
    { "webhook.max_per_url=65", NULL, "webhook.max_per_url is above webhook.max_per_origin" },
    { "webhook.max_per_url=64", NULL, NULL },
    { "webhook.max_in_flight=63", NULL, "webhook.max_per_origin is above webhook.max_in_flight" },
    { "limits.message_body_spool_size=257M", NULL,
      "limits.message_body_spool_size is above limits.max_body_memory" },
    { "broadcaster.listen=a:1 b:1 a:1", NULL, "broadcaster.listen: \"a:1\" is given twice" },
    { "broadcaster.listen=a:0 a:0", NULL, NULL },
    { "broadcaster.tls_listen=a:1 a:1", NULL, "broadcaster.tls_listen: \"a:1\" is given twice" },
    { "broadcaster.listen=a:1", "broadcaster.tls_listen=b:1 a:1",
      "broadcaster.tls_listen: \"a:1\" is in broadcaster.listen too" },
    { "broadcaster.tls_listen=a:0 a:0", "tls.certificate=x",
      "broadcaster.tls_listen needs tls.certificate and tls.key" },
    { "broadcaster.tls_listen=a:1", "broadcaster.tls_listen=none", NULL },
    { "tcp.listen=127.0.0.1:3003", NULL,
      "tcp.listen: \"127.0.0.1:3003\" is in broadcaster.listen too" },
    { "tcp.listen=a:1", "broadcaster.admin_listen=a:1",
      "broadcaster.admin_listen: \"a:1\" is in tcp.listen too" },
    { "tcp.tls_listen=a:1", NULL, "tcp.tls_listen needs tls.certificate and tls.key" },
    { "tcp.listen=a:1", "tcp.tls_listen=a:1", "tcp.tls_listen: \"a:1\" is in tcp.listen too" },
    { "tls.client_certificate=required", NULL, NULL },
    { "missed.expo_max=1000", NULL,
      "missed.expo_factor, expo_base and expo_max: a wait would exceed a year" },
    { "missed.expo_max=1000", "missed.expo_base=1", NULL },
    { "missed.expo_max=24", NULL, NULL },
    { "missed.expo_max=25", NULL,
      "missed.expo_factor, expo_base and expo_max: a wait would exceed a year" },
    { "missed.expo_max=1000", "missed.expo_base=100",
      "missed.expo_factor, expo_base and expo_max: a wait would exceed a year" },
    { "missed.expo_factor=0", "missed.expo_base=100", NULL },
    { "database.type=postgres", NULL, "database.type = postgres needs database.url" },
    { "database.type=rqlite", NULL, "database.type = rqlite needs database.url" },
    { "database.type=memory", "database.url=http://h", NULL },
    { "database.url=postgresql://h/d", NULL,
      "database.url does not go with database.type = sqlite" },
    { "database.type=postgres", "database.url=postgresql://h/d", NULL },
    { "database.type=postgres", "database.url=postgres:///d", NULL },
    { "database.type=postgres", "database.url=postgres://h/a postgres://h/b",
      "database.url: postgres takes one URL, which may name several hosts" },
    { "database.type=postgres", "database.url=http://h",
      "database.url: database.type = postgres needs postgresql://..." },
    { "database.type=rqlite", "database.url=http://h:4001 https://i:4001", NULL },
    { "database.type=rqlite", "database.url=http://h:4001 postgres://i/d",
      "database.url: database.type = rqlite needs http://HOST:PORT" },
};

static void the_whole_is_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(checks); i++) {
        struct conf_error error = { "" };
        struct conf c;

        conf_init(&c);
        assert_true(conf_set(&c, checks[i].first, &error));
        assert_true(checks[i].second == NULL || conf_set(&c, checks[i].second, &error));
        assert_int_equal(conf_check(&c, &error), checks[i].error == NULL);
        assert_string_equal(error.text, checks[i].error == NULL ? "" : checks[i].error);
        conf_fini(&c);
    }
}

/* And none of the errors about a password shows it. */
static void a_password_is_given_once(void **state)
{
    static const struct {
        const char *url;
        bool has_password;
    } urls[] = {
        { "postgresql://u:hush@h/d", true },
        { "postgresql://:hush@h/d", true },
        { "postgresql://u@h:5432/d:x@y", false },
        { "postgresql://h/d?password=hush", true },
        { "postgresql://h/d?a=b&password=hush", true },
        { "postgresql://h/d?passwords=b", false },
        { "postgresql://u@h/d", false },
        { "postgresql://h1:1,h2:2/d", false },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(urls); i++) {
        struct conf_error error = { "" };
        char assignment[128];
        struct conf c;

        conf_init(&c);
        snprintf(assignment, sizeof assignment, "database.url=%s", urls[i].url);
        assert_true(conf_set(&c, "database.type=postgres", &error));
        assert_true(conf_set(&c, assignment, &error));
        assert_true(conf_check(&c, &error));
        assert_true(conf_set(&c, "database.password_file=f", &error));
        assert_int_equal(conf_check(&c, &error), !urls[i].has_password);
        assert_null(strstr(error.text, "hush"));
        conf_fini(&c);
    }
}

/* A program that mounts the broadcaster needs no listener, and peers find it under the prefix. */
static void a_mount_allows_more(void **state)
{
    static const struct {
        const char *mount, *assignment, *error;
    } cases[] = {
        { "/p", "broadcaster.listen=none", "" },
        { "", "broadcaster.listen=none", "" },
        { "/p", "broadcaster.receiver_url=http://a/p/v1/receive_for_websockets?b", "" },
        { "/p/", "broadcaster.receiver_url=http://a/p/v1/receive_for_websockets", "" },
        { "/p", "broadcaster.receiver_url=http://a/v1/receive_for_websockets", "" },
        { "/p", "broadcaster.missed_url=http://a/p/v1/missed_for_websockets", "" },
        { "/p", "broadcaster.receiver_url=http://a/q/v1/receive_for_websockets",
          "broadcaster.receiver_url: its path must be /p/v1/receive_for_websockets" },
        { "/p", "broadcaster.receiver_url=http://a/p/v1/receive_for_websockets/x",
          "broadcaster.receiver_url: its path must be /p/v1/receive_for_websockets" },
        { "", "broadcaster.receiver_url=http://a/p/v1/receive_for_websockets",
          "broadcaster.receiver_url: its path must be /v1/receive_for_websockets" },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct conf_error error = { "" };
        struct conf c;

        conf_init(&c);
        c.mount = cases[i].mount;
        assert_true(conf_set(&c, cases[i].assignment, &error));
        assert_int_equal(conf_check(&c, &error), cases[i].error[0] == '\0');
        assert_string_equal(error.text, cases[i].error);
        conf_fini(&c);
    }
}

static void an_empty_list_of_addresses_is_found(void **state)
{
    struct conf_error error;
    struct conf c;

    (void)state;
    conf_init(&c);
    c.broadcaster.listen.count = 0;
    assert_false(conf_check(&c, &error));
    assert_string_equal(error.text,
                        "broadcaster.listen is none, which is for programs that embed the "
                        "broadcaster");
    c.broadcaster.listen.count = 1;
    conf_fini(&c);
}

static char *sample_of(const struct conf *c)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    conf_print_sample(f, c);
    fclose(f);
    return text;
}

/* The sample of any configuration is a file that reads as that configuration. */
static void the_sample_is_read_as_what_it_shows(void **state)
{
    static const char *const changes[] = {
        "broadcaster.listen=a:1 [::]:2",
        "http.body_timeout=90",
        "auth.secrets=none",
        "webhook.proxy=http://p:1",
        "missed.jitter=0.1",
        "log.access=yes",
        "limits.retry_after=2",
        "broadcaster.spool_dir=/var/spool/lonely",
        "database.path=/var/lib/x.db",
        "limits.max_message_bytes=1G",
    };
    struct conf_error error;
    struct conf c, again;
    const char *wrong;
    char *text, *text_again;

    (void)state;
    conf_init(&c);
    for (size_t i = 0; i < TABLE_LEN(changes); i++)
        assert_true(conf_set(&c, changes[i], &error));
    text = sample_of(&c);
    assert_true(read_text(&again, text, strlen(text), &wrong));
    text_again = sample_of(&again);
    assert_string_equal(text, text_again);
    free(text);
    free(text_again);
    conf_fini(&c);
    conf_fini(&again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_of_paths),
        cmocka_unit_test(lists_of_dictionaries),
        cmocka_unit_test(limits_of_compression),
        cmocka_unit_test(a_file_sets_values),
        cmocka_unit_test(errors_name_file_and_line),
        cmocka_unit_test(a_nul_byte_is_an_error),
        cmocka_unit_test(files_that_cannot_be_read),
        cmocka_unit_test(relative_paths_begin_at_the_file),
        cmocka_unit_test(values_with_units_and_boundaries),
        cmocka_unit_test(errors_of_set),
        cmocka_unit_test(set_replaces_the_list_of_the_file_then_adds),
        cmocka_unit_test(the_whole_is_checked),
        cmocka_unit_test(a_password_is_given_once),
        cmocka_unit_test(a_mount_allows_more),
        cmocka_unit_test(an_empty_list_of_addresses_is_found),
        cmocka_unit_test(the_sample_is_read_as_what_it_shows),
    };

    return cmocka_run_group_tests_name("conf", tests, make_folder, remove_folder);
}
