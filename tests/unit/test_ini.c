/* The INI reader: src/broadcaster/ini.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "ini.h"
#include "mem.h"
#include "tables.h"

/* What was read, as "line:section.key=value;" or "line:[section];". */
static char seen[4096];
static int stop_after; /* so many lines */

static bool on_line(void *arg, const struct ini_line *l)
{
    size_t at = strlen(seen);

    assert_string_equal(arg, "arg");
    if (l->key == NULL)
        snprintf(seen + at, sizeof seen - at, "%u:[%s];", l->number, l->section);
    else
        snprintf(seen + at, sizeof seen - at, "%u:%s.%s=%s;", l->number, l->section, l->key,
                 l->value);
    return --stop_after != 0;
}

static bool parse(const char *bytes, size_t len, struct ini_error *error)
{
    /* Exactly as long as it says, so that a sanitizer sees a read beyond. */
    char *text = mem_alloc(len + 1), arg[] = "arg";
    bool good;

    memcpy(text, bytes, len);
    text[len] = '\0';
    seen[0] = '\0';
    good = ini_parse(text, len, on_line, arg, error);
    mem_free(text);
    return good;
}

static const struct good_case {
    const char *name, *text, *seen;
} good_cases[] = {
    { "nothing", "", "" },
    { "blank lines", "\n \t\n\r\n", "" },
    { "a key", "[a]\nk = v\n", "1:[a];2:a.k=v;" },
    { "no newline at the end", "[a]\nk=v", "1:[a];2:a.k=v;" },
    { "comments", "# c\n;d\n[a]\n  # [b]\n\t; k=v\nk=v\n", "3:[a];6:a.k=v;" },
    { "white space", "  [ a ] \n\t k \t=\t v w \t\n", "1:[a];2:a.k=v w;" },
    { "CR LF", "[a]\r\nk = v\r\n", "1:[a];2:a.k=v;" },
    { "byte order mark", "\xef\xbb\xbf[a]\nk=v\n", "1:[a];2:a.k=v;" },
    { "empty value", "[a]\nk=\nl = \n", "1:[a];2:a.k=;3:a.l=;" },
    { "no comment behind a value", "[a]\nk = v # w ; x\n", "1:[a];2:a.k=v # w ; x;" },
    { "the first = separates", "[a]\nk = v = w\n", "1:[a];2:a.k=v = w;" },
    { "quotes and backslashes are kept", "[a]\nk = \"v\\\nl = 'x'\n",
      "1:[a];2:a.k=\"v\\;3:a.l='x';" },
    { "sections and keys come again", "[a]\nk=1\nk=2\n[b]\n[a]\nk=3\n",
      "1:[a];2:a.k=1;3:a.k=2;4:[b];5:[a];6:a.k=3;" },
    { "case is kept", "[A]\nK=V\n", "1:[A];2:A.K=V;" },
    { "empty section", "[]\n", "1:[];" },
    { "Latin-1", "[a]\n# \xe9\nk=\xe9\n", "1:[a];3:a.k=\xe9;" },
};

static void reads(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(good_cases); i++) {
        struct ini_error error;

        if (!parse(good_cases[i].text, strlen(good_cases[i].text), &error))
            fail_msg("%s: line %u: %s", good_cases[i].name, error.line, error.text);
        assert_string_equal(seen, good_cases[i].seen);
        assert_int_equal(error.line, 0);
        assert_null(error.text);
    }
}

#define EXPECTED "expected [section], key = value, or a comment that begins with # or ;"

static const struct bad_case {
    const char *text;
    size_t len;
    unsigned line;
    const char *error, *seen;
} bad_cases[] = {
#define TEXT(s) s, sizeof(s) - 1
    { TEXT("k = v\n"), 1, "a key before the first [section]", "" },
    { TEXT("[a]\nk\n"), 2, EXPECTED, "1:[a];" },
    { TEXT("[a]\n= v\n"), 2, EXPECTED, "1:[a];" },
    { TEXT("[a]\n\n [a\n"), 3, "a section must be written as [name]", "1:[a];" },
    { TEXT("["), 1, "a section must be written as [name]", "" },
    { TEXT("[a] # c\n"), 1, "a section must be written as [name]", "" },
    { TEXT("[a]\nk = v\0w\n"), 2, "the line holds a NUL byte", "1:[a];" },
    { TEXT("[a]\n# \0\n"), 2, "the line holds a NUL byte", "1:[a];" },
#undef TEXT
};

static void says_what_is_wrong_and_where(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(bad_cases); i++) {
        struct ini_error error;

        assert_false(parse(bad_cases[i].text, bad_cases[i].len, &error));
        assert_string_equal(error.text, bad_cases[i].error);
        assert_int_equal(error.line, bad_cases[i].line);
        assert_string_equal(seen, bad_cases[i].seen);
    }
}

static void the_callee_may_stop(void **state)
{
    static const char text[] = "[a]\nk=1\nl=2\n";
    struct ini_error error;

    (void)state;
    stop_after = 2;
    assert_false(parse(text, strlen(text), &error));
    assert_string_equal(seen, "1:[a];2:a.k=1;");
    assert_int_equal(error.line, 0);
    assert_null(error.text);
    stop_after = 0;
}

static size_t value_len;

static bool measure(void *arg, const struct ini_line *l)
{
    (void)arg;
    if (l->key != NULL)
        value_len = strlen(l->value);
    return true;
}

static void long_lines_are_whole_or_refused(void **state)
{
    static char text[INI_LINE_MAX + 16];
    struct ini_error error;

    (void)state;
    memcpy(text, "[a]\nk=", 6);
    memset(text + 6, 'v', INI_LINE_MAX);
    assert_true(ini_parse(text, 4 + INI_LINE_MAX, measure, NULL, &error));
    assert_int_equal(value_len, INI_LINE_MAX - 2);
    memcpy(text, "[a]\nk=", 6);
    memset(text + 6, 'v', INI_LINE_MAX);
    assert_false(ini_parse(text, 4 + INI_LINE_MAX + 1, measure, NULL, &error));
    assert_string_equal(error.text, "the line is too long (more than 131072 bytes)");
    assert_int_equal(error.line, 2);
}

static void reads_files_up_to_a_limit(void **state)
{
    char path[] = "/tmp/test_ini.XXXXXX";
    int fd = mkstemp(path);
    const char *why = NULL;
    size_t len = 0;
    char *text;

    (void)state;
    table_require(fd >= 0 && write(fd, "[a]\n", 4) == 4, "mkstemp");
    text = ini_read_file(path, &len, &why);
    assert_non_null(text);
    assert_int_equal(len, 4);
    assert_string_equal(text, "[a]\n");
    mem_free(text);

    assert_int_equal(ftruncate(fd, INI_FILE_MAX), 0);
    text = ini_read_file(path, &len, &why);
    assert_non_null(text);
    assert_int_equal(len, INI_FILE_MAX);
    assert_int_equal(text[len], 0);
    mem_free(text);

    assert_int_equal(ftruncate(fd, INI_FILE_MAX + 1), 0);
    assert_null(ini_read_file(path, &len, &why));
    assert_string_equal(why, "larger than 4 MiB");
    close(fd);
    unlink(path);
    assert_null(ini_read_file(path, &len, &why));
    assert_string_equal(why, "No such file or directory");
    assert_null(ini_read_file("/", &len, &why));
    assert_string_equal(why, "Is a directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads),
        cmocka_unit_test(says_what_is_wrong_and_where),
        cmocka_unit_test(the_callee_may_stop),
        cmocka_unit_test(long_lines_are_whole_or_refused),
        cmocka_unit_test(reads_files_up_to_a_limit),
    };

    return cmocka_run_group_tests_name("ini", tests, NULL, NULL);
}
