/* The command line of lonelypss: src/broadcaster/options.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "options.h"
#include "tables.h"

#define MAX_ARGS 8

static char folder[] = "/tmp/test_options.XXXXXX";
static char out_text[32768], err_text[1024];
static struct options options;

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");

    table_require(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0, "file");
}

/* Tests run in a folder of their own, with these files. */
static int make_folder(void **state)
{
    (void)state;
    table_require(mkdtemp(folder) != NULL && chdir(folder) == 0, "mkdtemp");
    write_file("good.ini", "[broadcaster]\nlisten = a:1\nlisten = b:2\n[log]\nlevel = warn\n");
    write_file("bad.ini", "[broadcaster]\nlisten = a\n");
    return 0;
}

static int remove_folder(void **state)
{
    static const char *const names[] = { "good.ini",
                                         "bad.ini",
                                         "lonelypss.ini",
                                         "broadcaster-secrets.json",
                                         "d",
                                         "subscriber-secrets.json" };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(names); i++)
        unlink(names[i]);
    return rmdir(folder);
}

static enum options_action parse(const char *const args[MAX_ARGS])
{
    FILE *out = fmemopen(out_text, sizeof out_text, "w"),
         *err = fmemopen(err_text, sizeof err_text, "w");
    char *argv[MAX_ARGS + 2] = { strdup("lonelypss") };
    static char copies[MAX_ARGS][128];
    enum options_action action;
    int argc = 1;

    table_require(out != NULL && err != NULL, "fmemopen");
    out_text[0] = err_text[0] = '\0';
    for (; argc <= MAX_ARGS && args[argc - 1] != NULL; argc++) {
        snprintf(copies[argc - 1], sizeof copies[0], "%s", args[argc - 1]);
        argv[argc] = copies[argc - 1];
    }
    action = options_parse(argc, argv, out, err, &options);
    free(argv[0]);
    fclose(out);
    fclose(err);
    return action;
}

static const struct run_case {
    const char *args[MAX_ARGS];
    enum options_action action;
    const char *listen, *level;
} runs[] = {
    { { "--config", "good.ini" }, OPTIONS_RUN, "a:1 b:2", "warn" },
    { { "--config=good.ini" }, OPTIONS_RUN, "a:1 b:2", "warn" },
    { { "--config", "good.ini", "--check-config" }, OPTIONS_CHECK, "a:1 b:2", "warn" },
    { { "--listen", "c:3", "--config", "good.ini" }, OPTIONS_RUN, "c:3", "warn" },
    { { "--config", "good.ini", "--listen", "c:3", "--listen=d:4" },
      OPTIONS_RUN,
      "c:3 d:4",
      "warn" },
    { { "--config", "good.ini", "--set", "log.level=debug", "--set=broadcaster.listen=e:5 f:6" },
      OPTIONS_RUN,
      "e:5 f:6",
      "debug" },
    { { "--config", "good.ini", "--set", "log.level=debug", "--set", "log.level=error" },
      OPTIONS_RUN,
      "a:1 b:2",
      "error" },
    { { "--config", "good.ini", "--set", "auth.secrets=none", "--" },
      OPTIONS_RUN,
      "a:1 b:2",
      "warn" },
};

static void assert_conf(const struct conf *c, const struct run_case *expected)
{
    char listen[64] = "";

    for (size_t i = 0; i < c->broadcaster.listen.count; i++) {
        size_t at = strlen(listen);

        snprintf(listen + at, sizeof listen - at, "%s%s", i > 0 ? " " : "",
                 c->broadcaster.listen.items[i]);
    }
    assert_string_equal(listen, expected->listen);
    assert_string_equal(c->log.level, expected->level);
}

static void reads_file_and_what_wins_over_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(runs); i++) {
        struct conf_error error;
        struct conf again;

        assert_int_equal(parse(runs[i].args), runs[i].action);
        assert_string_equal(err_text, "");
        assert_string_equal(out_text, "");
        assert_conf(&options.conf, &runs[i]);
        assert_true(options_read_again(&options, &again, &error)); /* SIGHUP */
        assert_conf(&again, &runs[i]);
        conf_fini(&again);
        options_fini(&options);
    }
}

static const struct refused_case {
    const char *args[MAX_ARGS];
    const char *error;
} refused[] = {
    { { NULL }, "no --config, and no ./lonelypss.ini; make one with: lonelypss --setup" },
    { { "--check-config" },
      "no --config, and no ./lonelypss.ini; make one with: lonelypss --setup" },
    { { "--listen", "a:1" },
      "no --config, and no ./lonelypss.ini; make one with: lonelypss --setup" },
    { { "--config" }, "--config: needs a value" },
    { { "--check-config", "--set" }, "--set: needs a value" },
    { { "--config", "none.ini" }, "none.ini: cannot be read: No such file or directory" },
    { { "--config", "bad.ini" },
      "bad.ini:2: broadcaster.listen: \"a\": expected HOST:PORT with a port from 0 to 65535, or "
      "none" },
    { { "--config", "bad.ini", "--listen", "a:1" },
      "bad.ini:2: broadcaster.listen: \"a\": expected HOST:PORT with a port from 0 to 65535, or "
      "none" },
    { { "--config", "good.ini", "--set", "log.level" },
      "\"log.level\": expected section.key=value" },
    { { "--config", "good.ini", "--set", "log.loud=1" }, "unknown option \"log.loud\"" },
    { { "--config", "good.ini", "--listen", "a" },
      "broadcaster.listen: \"a\": expected HOST:PORT with a port from 0 to 65535, or none" },
    { { "--config", "good.ini", "--set", "webhook.max_per_url=65" },
      "webhook.max_per_url is above webhook.max_per_origin" },
    { { "--unknown" }, "--unknown: unknown option; see --help" },
    { { "--to-broadcaster-secret=hush" }, "--to-broadcaster-secret: unknown option; see --help" },
    { { "--check-config", "--un\x1bknown" }, "--un\\x1bknown: unknown option; see --help" },
    { { "-x" }, "-x: unknown option; see --help" },
    { { "-xyz" }, "-xyz: unknown option; see --help" },
    { { "--help=x" }, "--help: takes no value" },
    { { "extra" }, "extra: unexpected argument; see --help" },
    { { "--config", "good.ini", "extra" }, "extra: unexpected argument; see --help" },
    { { "--", "extra" }, "extra: unexpected argument; see --help" },
    { { "--dir", "d" }, "--dir: is an option of --setup" },
    { { "--incoming-auth", "hmac" }, "--incoming-auth: is an option of --setup" },
    { { "--setup", "--config", "d" }, "--config: does not go with --setup" },
    { { "--set", "a.b=c", "--setup" }, "--set: does not go with --setup" },
    { { "--setup", "--db-url", "http://n" }, "--db-url: sqlite is a file, it has no URL" },
    { { "--setup", "--db", "rqlite" }, "--db-url: is needed with this --db" },
    { { "--db-password-file", "f" }, "--db-password-file: is an option of --setup" },
    { { "--setup", "--incoming-auth", "md5" },
      "--to-broadcasters-auth: must be hmac, token or none" },
    { { "--setup", "--outgoing-auth", "md5" },
      "--to-subscribers-auth: must be hmac, token or none" },
    { { "--setup", "--incoming-auth-token", "hush" },
      "--to-broadcasters-secret: a secret for hmac must be base64 of exactly 64 bytes" },
    { { "--setup", "--outgoing-auth-token", "hush" },
      "--to-subscribers-secret: a secret for hmac must be base64 of exactly 64 bytes" },
};

static void refuses_in_one_line_with_2(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(refused); i++) {
        char expected[512];

        assert_int_equal(parse(refused[i].args), OPTIONS_EXIT);
        assert_int_equal(options.exit_code, 2);
        snprintf(expected, sizeof expected, "lonelypss: %s\n", refused[i].error);
        assert_string_equal(err_text, expected);
        assert_string_equal(out_text, "");
        options_fini(&options);
    }
}

static void help_lists_every_option(void **state)
{
    static char table[32768];
    FILE *f = fmemopen(table, sizeof table, "w");

    (void)state;
    assert_int_equal(parse((const char *const[MAX_ARGS]){ "--help" }), OPTIONS_EXIT);
    assert_int_equal(options.exit_code, 0);
    assert_string_equal(err_text, "");
    conf_print_help(f);
    fclose(f);
    assert_non_null(strstr(out_text, table));
    assert_memory_equal(out_text, "Usage: lonelypss ", 17);
    options_fini(&options);
}

static void version_is_told(void **state)
{
    (void)state;
    assert_int_equal(parse((const char *const[MAX_ARGS]){ "--version" }), OPTIONS_EXIT);
    assert_int_equal(options.exit_code, 0);
    assert_string_equal(out_text, "lonelypss " LONELY_VERSION "\n");
    options_fini(&options);
}

/* Under the older names too; afterwards no --config is needed. The last test: it leaves files. */
static void setup_makes_a_configuration_that_runs(void **state)
{
    (void)state;
    assert_int_equal(parse((const char *const[MAX_ARGS]){ "--setup", "--incoming-auth", "token",
                                                          "--incoming-auth-token", "x",
                                                          "--outgoing-auth", "none" }),
                     OPTIONS_EXIT);
    assert_string_equal(err_text, "");
    assert_int_equal(options.exit_code, 0);
    assert_memory_equal(out_text, "wrote lonelypss.ini\n", 20);
    options_fini(&options);
    assert_int_equal(parse((const char *const[MAX_ARGS]){ NULL }), OPTIONS_RUN);
    assert_string_equal(options.config, "lonelypss.ini");
    assert_string_equal(options.conf.auth.secrets, "broadcaster-secrets.json");
    options_fini(&options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_file_and_what_wins_over_it),
        cmocka_unit_test(refuses_in_one_line_with_2),
        cmocka_unit_test(help_lists_every_option),
        cmocka_unit_test(version_is_told),
        cmocka_unit_test(setup_makes_a_configuration_that_runs),
    };

    return cmocka_run_group_tests_name("options", tests, make_folder, remove_folder);
}
