/* Log lines: src/base/log.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"
#include "tables.h"

/* 2025-01-31T12:00:00.123456789Z */
static int64_t wall_ns = INT64_C(1738324800123456789);
static uint64_t mono_ms = 1000;

static int64_t fake_wall_ns(void *arg)
{
    (void)arg;
    return wall_ns;
}

static uint64_t fake_mono_ms(void *arg)
{
    (void)arg;
    return mono_ms;
}

static const struct clock fake_clock = { .wall_ns = fake_wall_ns, .mono_ms = fake_mono_ms };

static struct log tested;
static char written[1 << 20];

/* Lines go to a file in memory. */
static void open_log(enum log_level level, enum log_format format)
{
    int fd = memfd_create("log", MFD_CLOEXEC);

    table_require(fd >= 0, "memfd_create");
    log_init(&tested, fd, level, format, &fake_clock);
}

/* What was written, which is then forgotten. */
static const char *take(void)
{
    ssize_t n = pread(tested.fd, written, sizeof written - 1, 0);

    table_require(n >= 0, "pread");
    written[n] = '\0';
    table_require(ftruncate(tested.fd, 0) == 0 && lseek(tested.fd, 0, SEEK_SET) == 0, "ftruncate");
    return written;
}

static void close_log(void)
{
    close(tested.fd);
    log_fini(&tested);
}

static void a_line_of_text(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_info(&tested, "started", LOG_END);
    assert_string_equal(take(), "2025-01-31T12:00:00.123Z info started\n");
    log_warn(&tested, "all_kinds", LOG_STR("s", "a b"), LOG_SPAN("t", "x/y\0", 4), LOG_U64("u", 7),
             LOG_I64("i", -7), LOG_F64("f", 0.25), LOG_BOOL("yes", true), LOG_BOOL("no", false),
             LOG_STR("null", NULL), LOG_END);
    assert_string_equal(take(), "2025-01-31T12:00:00.123Z warn all_kinds s=\"a b\" t=\"x/y\\x00\" "
                                "u=7 i=-7 f=0.25 yes=true no=false null=\"\"\n");
    close_log();
}

static void a_line_of_json(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_DEBUG, LOG_FORMAT_JSON);
    log_debug(&tested, "started", LOG_END);
    assert_string_equal(take(), "{\"time\":\"2025-01-31T12:00:00.123Z\",\"level\":\"debug\","
                                "\"event\":\"started\"}\n");
    log_error(&tested, "e", LOG_STR("s", "a\"\\\n"), LOG_U64("u", UINT64_MAX), LOG_F64("f", 1.5),
              LOG_F64("g", INFINITY), LOG_BOOL("b", true), LOG_STR("z", NULL), LOG_END);
    assert_string_equal(take(), "{\"time\":\"2025-01-31T12:00:00.123Z\",\"level\":\"error\","
                                "\"event\":\"e\",\"s\":\"a\\\\x22\\\\x5c\\\\x0a\","
                                "\"u\":18446744073709551615,\"f\":1.5,\"g\":\"inf\",\"b\":true,"
                                "\"z\":\"\"}\n");
    close_log();
}

static const struct value_case {
    const char *value, *text;
} value_cases[] = {
    { "plain/topic-1.2:3", "plain/topic-1.2:3" },
    { "", "\"\"" },
    { "two words", "\"two words\"" },
    { "k=v", "\"k=v\"" },
    { "say \"hi\"", "\"say \\x22hi\\x22\"" },
    { "back\\slash", "\"back\\x5cslash\"" },
    { "x\r\n2025 error forged", "\"x\\x0d\\x0a2025 error forged\"" },
    { "\x1b[31mred\x7f", "\"\\x1b[31mred\\x7f\"" },
    { "caf\xc3\xa9", "\"caf\\xc3\\xa9\"" },
};

static void values_cannot_break_a_line(void **state)
{
    char expected[256];

    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (size_t i = 0; i < TABLE_LEN(value_cases); i++) {
        log_info(&tested, "e", LOG_STR("k", value_cases[i].value), LOG_END);
        snprintf(expected, sizeof expected, "2025-01-31T12:00:00.123Z info e k=%s\n",
                 value_cases[i].text);
        assert_string_equal(take(), expected);
    }
    close_log();
}

static const struct value_case url_cases[] = {
    { "http://host/path", "http://host/path" },
    { "http://user:pass@host:80/p@q?r@s#t@u", "http://***@host:80/p@q?r@s#t@u" },
    { "http://user@host", "http://***@host" },
    { "http://a@b:c@d@host/", "http://***@host/" },
    { "http://@host/", "http://***@host/" },
    { "http://host/a@b", "http://host/a@b" },
    { "http://host?a://b@c", "http://host?a://b@c" },
    { "http://host#a@b", "http://host#a@b" },
    { "user:pass@host", "***@host" },
    { "/http://user:pass@host", "/http://user:pass@host" },
    { "//user@host", "//user@host" },
    { "http://us\"er@ho\"st", "\"http://***@ho\\x22st\"" },
    { "x", "x" },
    { "@", "***@" },
    { "", "\"\"" },
};

static void urls_do_not_tell_user_and_password(void **state)
{
    char expected[256];

    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (size_t i = 0; i < TABLE_LEN(url_cases); i++) {
        const struct value_case *c = &url_cases[i];

        log_info(&tested, "e", LOG_URL("k", c->value, strlen(c->value)), LOG_END);
        snprintf(expected, sizeof expected, "2025-01-31T12:00:00.123Z info e k=%s\n", c->text);
        assert_string_equal(take(), expected);
    }
    close_log();
}

/* Wherever the user begins and ends, what a value has room for is all that is read or written. */
static void long_urls_do_not_either(void **state)
{
    static char url[3 * LOG_VALUE_MAX];

    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (size_t scheme = 0; scheme < 2 * LOG_VALUE_MAX; scheme += 7) {
        for (size_t user = 0; scheme + user + 4 < sizeof url; user += 101) {
            const char *line;

            memset(url, 'h', sizeof url);
            memset(url, 's', scheme);
            memcpy(url + scheme, "://", 3);
            memset(url + scheme + 3, 'U', user);
            url[scheme + 3 + user] = '@';
            log_info(&tested, "e", LOG_URL("k", url, sizeof url), LOG_END);
            line = take();
            assert_null(strchr(line, 'U'));
            assert_true(strlen(line) < LOG_VALUE_MAX + 64);
            if (scheme < LOG_VALUE_MAX - 3)
                assert_non_null(strstr(line, "://***"));
        }
    }
    close_log();
}

/* Whatever byte is logged, the line is printable ASCII with one newline, in either format. */
static void every_byte_is_escaped_or_printable(void **state)
{
    (void)state;
    for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
        open_log(LOG_LEVEL_INFO, (enum log_format)format);
        for (int byte = 0; byte < 256; byte++) {
            const uint8_t value = (uint8_t)byte;
            const char *line;

            log_info(&tested, "e", LOG_SPAN("k", &value, 1), LOG_END);
            line = take();
            for (size_t i = 0; line[i + 1] != '\0'; i++)
                assert_in_range(line[i], 0x20, 0x7e);
            assert_int_equal(line[strlen(line) - 1], '\n');
        }
        close_log();
    }
}

static void a_long_value_is_cut(void **state)
{
    static uint8_t bytes[70000];
    const char *line, *value;

    (void)state;
    memset(bytes, 'a', sizeof bytes);
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_info(&tested, "e", LOG_SPAN("k", bytes, LOG_VALUE_MAX), LOG_STR("after", "1"), LOG_END);
    assert_null(strstr(take(), "..."));
    log_info(&tested, "e", LOG_SPAN("k", bytes, sizeof bytes), LOG_STR("after", "1"), LOG_END);
    line = take();
    value = strchr(line, '"') + 1;
    assert_int_equal(strspn(value, "a"), LOG_VALUE_MAX);
    assert_string_equal(value + LOG_VALUE_MAX, "\\...\" after=1\n");
    close_log();
}

/* For every length of the fields: never longer than the limit, never without its end. */
static void a_long_line_leaves_fields_out(void **state)
{
    static char value[LOG_VALUE_MAX + 1];
    size_t longest = 0;

    (void)state;
    for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
        const char *mark =
            format == LOG_FORMAT_TEXT ? " truncated=true\n" : ",\"truncated\":true}\n";

        open_log(LOG_LEVEL_INFO, (enum log_format)format);
        for (size_t len = 300; len <= LOG_VALUE_MAX; len++) {
            const char *line;
            size_t n;

            memset(value, 'v', len);
            value[len] = '\0';
            log_info(&tested, "e", LOG_STR("a", value), LOG_STR("b", value), LOG_STR("c", value),
                     LOG_STR("d", value), LOG_STR("e", value), LOG_STR("f", value),
                     LOG_STR("g", value), LOG_STR("h", value), LOG_STR("i", value), LOG_END);
            line = take();
            n = strlen(line);
            longest = n > longest ? n : longest;
            assert_true(n <= LOG_LINE_MAX);
            if (n < 9 * len)
                assert_string_equal(line + n - strlen(mark), mark);
            assert_int_equal(strcspn(line, "\n"), n - 1);
        }
        close_log();
    }
    assert_true(longest > LOG_LINE_MAX - 100);
}

static void levels_below_are_not_written_nor_evaluated(void **state)
{
    int evaluated = 0;

    (void)state;
    open_log(LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
    log_info(&tested, "e", LOG_I64("n", ++evaluated), LOG_END);
    log_debug(&tested, "e", LOG_I64("n", ++evaluated), LOG_END);
    log_info(NULL, "e", LOG_I64("n", ++evaluated), LOG_END);
    assert_int_equal(evaluated, 0);
    assert_string_equal(take(), "");
    log_write(NULL, LOG_LEVEL_ERROR, "e", &LOG_END);
    log_write_limited(NULL, LOG_LEVEL_ERROR, "e", &LOG_END);
    log_set_level(&tested, LOG_LEVEL_INFO);
    log_info(&tested, "e", LOG_I64("n", ++evaluated), LOG_END);
    assert_string_equal(take(), "2025-01-31T12:00:00.123Z info e n=1\n");
    close_log();
}

static void names_of_levels_and_formats(void **state)
{
    enum log_level level = LOG_LEVEL_INFO;
    enum log_format format = LOG_FORMAT_TEXT;

    (void)state;
    assert_true(log_level_parse("error", &level) && level == LOG_LEVEL_ERROR);
    assert_true(log_level_parse("debug", &level) && level == LOG_LEVEL_DEBUG);
    assert_false(log_level_parse("loud", &level) || level != LOG_LEVEL_DEBUG);
    assert_true(log_format_parse("json", &format) && format == LOG_FORMAT_JSON);
    assert_false(log_format_parse("", &format) || format != LOG_FORMAT_JSON);
}

static size_t count_lines(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += *text == '\n';
    return n;
}

static void repeated_events_are_counted_not_written(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (int i = 0; i < 1000; i++)
        log_warn_limited(&tested, "bad_peer", LOG_END);
    log_warn_limited(&tested, "other", LOG_END);
    assert_int_equal(count_lines(take()), LOG_LIMIT_LINES + 1);
    mono_ms += LOG_LIMIT_WINDOW_MS - 1;
    log_warn_limited(&tested, "bad_peer", LOG_END);
    assert_string_equal(take(), "");
    mono_ms += 1;
    log_warn_limited(&tested, "bad_peer", LOG_END);
    assert_string_equal(take(), "2025-01-31T12:00:00.123Z warn bad_peer suppressed=996\n");
    log_warn_limited(&tested, "bad_peer", LOG_END);
    assert_string_equal(take(), "2025-01-31T12:00:00.123Z warn bad_peer\n");
    close_log();
}

/* More events than are watched: the oldest is forgotten, none is lost. */
static void more_events_than_slots(void **state)
{
    static char names[LOG_LIMIT_EVENTS * 2][8];

    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (size_t i = 0; i < TABLE_LEN(names); i++) {
        snprintf(names[i], sizeof names[i], "e%zu", i);
        mono_ms++;
        log_info_limited(&tested, names[i], LOG_END);
    }
    assert_int_equal(count_lines(take()), TABLE_LEN(names));
    close_log();
}

static void *write_many(void *arg)
{
    for (int i = 0; i < 500; i++) {
        log_info(&tested, "from_thread", LOG_STR("name", arg), LOG_STR("end", "here"), LOG_END);
        log_info_limited(&tested, "limited", LOG_STR("name", arg), LOG_STR("end", "here"), LOG_END);
    }
    return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
    static char names[4][400];
    pthread_t threads[4];
    const char *line;

    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    table_require(fcntl(tested.fd, F_SETFL, O_APPEND) == 0, "O_APPEND");
    for (int i = 0; i < 4; i++) {
        memset(names[i], 'a' + i, sizeof names[i] - 1);
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, names[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    line = take();
    assert_int_equal(count_lines(line), 2000 + LOG_LIMIT_LINES);
    for (; *line != '\0'; line = strchr(line, '\n') + 1) {
        const char *name = strstr(line, "name=") + 5;

        assert_memory_equal(line, "2025-01-31T12:00:00.123Z info ", 30);
        assert_int_equal(strspn(name, (char[]){ *name, '\0' }), sizeof names[0] - 1);
        assert_memory_equal(name + sizeof names[0] - 1, " end=here\n", 10);
    }
    close_log();
}

static void a_full_pipe_loses_lines_and_blocks_nobody(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    log_init(&tested, ends[1], LOG_LEVEL_INFO, LOG_FORMAT_TEXT, &fake_clock);
    errno = EDOM;
    for (int i = 0; i < 5000; i++)
        log_info(&tested, "filling_the_pipe", LOG_END);
    assert_int_equal(errno, EDOM); /* logging an error does not change it */
    close(ends[0]);
    close_log();
}

static void times_before_1970_and_rounding(void **state)
{
    (void)state;
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    wall_ns = -1;
    log_info(&tested, "e", LOG_END);
    assert_string_equal(take(), "1969-12-31T23:59:59.999Z info e\n");
    wall_ns = INT64_C(999999999);
    log_info(&tested, "e", LOG_END);
    assert_string_equal(take(), "1970-01-01T00:00:00.999Z info e\n");
    wall_ns = INT64_C(1738324800123456789);
    close_log();
}

static void escapes_for_messages_elsewhere(void **state)
{
    static const struct escape_case {
        const char *in;
        size_t cap;
        const char *out;
    } cases[] = {
        { "plain", 8, "plain" },
        { "sevenby", 8, "sevenby" },
        { "eightbyt", 8, "eig\\..." },
        { "a\nb", 8, "a\\x0ab" },
        { "\n\n", 8, "\\..." },
        { "", 8, "" },
        { "ab\n\n\n", 12, "ab\\x0a\\..." },
    };
    char out[64];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        memset(out, '#', sizeof out);
        log_escape(cases[i].in, strlen(cases[i].in), out, cases[i].cap);
        assert_string_equal(out, cases[i].out);
        assert_int_equal(out[cases[i].cap], '#');
    }
}

static void the_system_clock_runs(void **state)
{
    int64_t wall = clock_wall_ns(&clock_system);
    uint64_t mono = clock_mono_ms(&clock_system);

    (void)state;
    assert_true(wall > INT64_C(1700000000) * 1000000000);
    assert_true(fabs(clock_wall_s(&clock_system) - (double)wall / 1e9) < 60);
    assert_true(clock_mono_ms(&clock_system) >= mono);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_of_text),
        cmocka_unit_test(a_line_of_json),
        cmocka_unit_test(values_cannot_break_a_line),
        cmocka_unit_test(urls_do_not_tell_user_and_password),
        cmocka_unit_test(long_urls_do_not_either),
        cmocka_unit_test(every_byte_is_escaped_or_printable),
        cmocka_unit_test(a_long_value_is_cut),
        cmocka_unit_test(a_long_line_leaves_fields_out),
        cmocka_unit_test(levels_below_are_not_written_nor_evaluated),
        cmocka_unit_test(names_of_levels_and_formats),
        cmocka_unit_test(repeated_events_are_counted_not_written),
        cmocka_unit_test(more_events_than_slots),
        cmocka_unit_test(lines_of_threads_do_not_mix),
        cmocka_unit_test(a_full_pipe_loses_lines_and_blocks_nobody),
        cmocka_unit_test(times_before_1970_and_rounding),
        cmocka_unit_test(escapes_for_messages_elsewhere),
        cmocka_unit_test(the_system_clock_runs),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
