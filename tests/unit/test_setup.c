/* lonelypss --setup: src/broadcaster/setup.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf.h"
#include "secrets.h"
#include "setup.h"
#include "tables.h"

static char folder[32];
static char dir[64]; /* of the set-up: not there before it */
static char out_text[4096], err_text[1024];

static const char *const names[] = { "lonelypss.ini", "broadcaster-secrets.json",
                                     "subscriber-secrets.json" };

#define SECRET \
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

static const char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static bool exists(const char *name)
{
    struct stat st;

    return lstat(path_of(name), &st) == 0;
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/test_setup.XXXXXX");
    table_require(mkdtemp(folder) != NULL, "mkdtemp");
    snprintf(dir, sizeof dir, "%s/d", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    chmod(folder, 0700);
    for (size_t i = 0; i < TABLE_LEN(names); i++)
        unlink(path_of(names[i]));
    rmdir(dir);
    return rmdir(folder);
}

static int run(const struct setup *s)
{
    FILE *out = fmemopen(out_text, sizeof out_text, "w"),
         *err = fmemopen(err_text, sizeof err_text, "w");
    int code;

    table_require(out != NULL && err != NULL, "fmemopen");
    out_text[0] = err_text[0] = '\0';
    code = setup_run(s, out, err);
    fclose(out);
    fclose(err);
    return code;
}

static void assert_nothing_written(void)
{
    struct stat st;

    assert_int_equal(lstat(dir, &st), -1);
    assert_string_equal(out_text, "");
}

static const struct scheme_case {
    struct setup setup;
    enum lonely_auth_scheme to_broadcaster, to_subscriber;
} schemes[] = {
    { { 0 }, LONELY_AUTH_HMAC, LONELY_AUTH_HMAC },
    { { .db = "sqlite" }, LONELY_AUTH_HMAC, LONELY_AUTH_HMAC },
    { { .to_broadcasters_auth = "none", .to_subscribers_auth = "none" },
      LONELY_AUTH_NONE,
      LONELY_AUTH_NONE },
    { { .to_broadcasters_auth = "token", .to_broadcasters_secret = "given" },
      LONELY_AUTH_TOKEN,
      LONELY_AUTH_HMAC },
    { { .to_subscribers_auth = "token", .to_broadcasters_secret = SECRET },
      LONELY_AUTH_HMAC,
      LONELY_AUTH_TOKEN },
    { { .to_broadcasters_auth = "none", .to_broadcasters_secret = "ignored" },
      LONELY_AUTH_NONE,
      LONELY_AUTH_HMAC },
};

static void assert_secrets(const char *name, enum secrets_owner owner,
                           const struct scheme_case *expected)
{
    struct secrets_error error;
    struct secrets secrets;
    struct stat st;

    assert_int_equal(stat(path_of(name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_true(secrets_load(path_of(name), owner, &secrets, &error));
    assert_int_equal(lonely_auth_key_scheme(secrets.to_broadcaster), expected->to_broadcaster);
    assert_int_equal(lonely_auth_key_scheme(secrets.to_subscriber), expected->to_subscriber);
    assert_false(secrets.readable_by_others);
    secrets_fini(&secrets);
}

static size_t read_whole(const char *name, char *to, size_t size)
{
    FILE *f = fopen(path_of(name), "r");
    size_t n;

    table_require(f != NULL, "fopen");
    n = fread(to, 1, size - 1, f);
    to[n] = '\0';
    fclose(f);
    return n;
}

static void writes_what_a_broadcaster_needs(void **state)
{
    for (size_t i = 0; i < TABLE_LEN(schemes); i++) {
        char a[1024], b[1024], expected[128];
        struct setup s = schemes[i].setup;
        struct conf_error error;
        struct conf conf;

        s.dir = dir;
        assert_int_equal(run(&s), 0);
        assert_string_equal(err_text, "");
        assert_secrets(names[1], SECRETS_BROADCASTER, &schemes[i]);
        assert_secrets(names[2], SECRETS_SUBSCRIBER, &schemes[i]);
        assert_int_equal(read_whole(names[1], a, sizeof a), read_whole(names[2], b, sizeof b));
        assert_string_equal(a, b);
        if (s.to_broadcasters_secret != NULL)
            assert_int_equal(strstr(a, s.to_broadcasters_secret) != NULL,
                             schemes[i].to_broadcaster != LONELY_AUTH_NONE);

        conf_init(&conf);
        assert_true(conf_read_file(&conf, path_of(names[0]), &error));
        assert_true(conf_check(&conf, &error));
        snprintf(expected, sizeof expected, "%s/broadcaster-secrets.json", dir);
        assert_string_equal(conf.auth.secrets, expected);
        conf_fini(&conf);
        remove_folder(state);
        make_folder(state);
    }
}

static void assert_no_such_file(const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(access(path, F_OK), -1);
}

static const struct database_case {
    struct setup setup;
    const char *url, *password, *password_file; /* NULL: none is written, none is named */
} databases[] = {
    { { .db = "postgres", .db_url = "postgresql://u:p%40%3aw:x@h1:1,h2:2/d?sslmode=require" },
      "postgresql://u@h1:1,h2:2/d?sslmode=require",
      "p@:w:x\n",
      "database-password" },
    { { .db = "postgres", .db_url = "postgres:///d?host=/run" },
      "postgres:///d?host=/run",
      NULL,
      NULL },
    { { .db = "postgres", .db_url = "postgresql://u@h/d", .db_password_file = "/run/secret" },
      "postgresql://u@h/d",
      NULL,
      "/run/secret" },
    { { .db = "rqlite", .db_url = "http://u:hush@a:4001" },
      "http://u@a:4001",
      "hush\n",
      "database-password" },
    { { .db = "rqlite", .db_url = "http://a:4001 https://b:4001" }, "http://a:4001", NULL, NULL },
};

static void passwords_of_databases_get_their_own_file(void **state)
{
    for (size_t i = 0; i < TABLE_LEN(databases); i++) {
        const struct database_case *c = &databases[i];
        char text[32768], expected[160];
        struct setup s = c->setup;
        struct conf_error error;
        struct conf conf;
        struct stat st;

        s.dir = dir;
        assert_int_equal(run(&s), 0);
        assert_string_equal(err_text, "");
        if (c->password != NULL) {
            read_whole("database-password", text, sizeof text);
            assert_string_equal(text, c->password);
            assert_int_equal(stat(path_of("database-password"), &st), 0);
            assert_int_equal(st.st_mode & 07777, 0600);
            assert_int_equal(unlink(path_of("database-password")), 0);
        } else {
            assert_no_such_file("database-password");
        }
        read_whole(names[0], text, sizeof text);
        assert_null(strstr(text, "hush"));
        assert_null(strstr(out_text, "hush"));

        conf_init(&conf);
        assert_true(conf_read_file(&conf, path_of(names[0]), &error));
        assert_true(conf_check(&conf, &error));
        assert_string_equal(conf.database.type, s.db);
        assert_string_equal(conf.database.url.items[0], c->url);
        snprintf(expected, sizeof expected, "%s%s%s", c->password != NULL ? dir : "",
                 c->password != NULL ? "/" : "", c->password_file == NULL ? "" : c->password_file);
        if (c->password_file == NULL)
            assert_null(conf.database.password_file);
        else
            assert_string_equal(conf.database.password_file, expected);
        conf_fini(&conf);
        remove_folder(state);
        make_folder(state);
    }
}

static void tells_what_to_do_next(void **state)
{
    (void)state;
    assert_int_equal(mkdir(dir, 0700), 0); /* a folder that is there is used */
    assert_int_equal(run(&(struct setup){ .dir = dir }), 0);
    for (size_t i = 0; i < TABLE_LEN(names); i++) {
        char line[256];

        snprintf(line, sizeof line, "wrote %s\n", path_of(names[i]));
        assert_non_null(strstr(out_text, line));
    }
    assert_non_null(strstr(out_text, "lonelypss --config "));
}

static void secrets_are_new_each_time(void **state)
{
    char first[1024], second[1024];

    assert_int_equal(run(&(struct setup){ .dir = dir }), 0);
    read_whole(names[1], first, sizeof first);
    assert_null(strstr(out_text, "secret\":"));
    remove_folder(state);
    make_folder(state);
    assert_int_equal(run(&(struct setup){ .dir = dir }), 0);
    read_whole(names[1], second, sizeof second);
    assert_string_not_equal(first, second);
}

static void never_overwrites_a_file(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(names); i++)
        for (int dangling = 0; dangling <= 1; dangling++) {
            char expected[256];
            FILE *f = NULL;

            assert_int_equal(mkdir(dir, 0700), 0);
            if (dangling)
                assert_int_equal(symlink("nowhere", path_of(names[i])), 0);
            else
                f = fopen(path_of(names[i]), "w");
            if (f != NULL)
                fclose(f);
            assert_int_equal(run(&(struct setup){ .dir = dir }), 2);
            snprintf(expected, sizeof expected,
                     "lonelypss: %s: exists already; nothing was written\n", path_of(names[i]));
            assert_string_equal(err_text, expected);
            assert_string_equal(out_text, "");
            assert_true(exists(names[i]));
            unlink(path_of(names[i]));
            assert_int_equal(rmdir(dir), 0); /* so it was alone */
        }
}

#define HMAC_ERROR "a secret for hmac must be base64 of exactly 64 bytes"

static const struct refused_case {
    struct setup setup;
    const char *error;
} refused[] = {
    { { .db = "rqlite" }, "--db-url: is needed with this --db" },
    { { .db = "postgres" }, "--db-url: is needed with this --db" },
    { { .db_url = "postgresql://h/d" }, "--db-url: sqlite is a file, it has no URL" },
    { { .db_password_file = "f" }, "--db-password-file: sqlite is a file, it has no password" },
    { { .db = "postgres", .db_url = "ftp://u:hush@h/d" },
      "--db-url: is not one that the configuration takes" },
    { { .db = "postgres", .db_url = "postgresql://u@h/d?password=hush" },
      "--db-url: has a password of a strange kind; use --db-password-file" },
    { { .db = "postgres", .db_url = "postgresql://u:hu%0ash@h/d" },
      "--db-url: has a password of a strange kind; use --db-password-file" },
    { { .db = "postgres", .db_url = "postgresql://u:hush@h/d", .db_password_file = "f" },
      "--db-password-file: the password is in --db-url already" },
    { { .db = "postgres", .db_url = "http://h:4001" },
      "--db-url: database.url: database.type = postgres needs postgresql://..." },
    { { .db = "rqlite", .db_url = "postgresql://h/d" },
      "--db-url: database.url: database.type = rqlite needs http://HOST:PORT" },
    { { .db = "rqlite", .db_url = "http://u:hush@a:4001 http://b:4001" },
      "--db-url: of several nodes must have no password; use --db-password-file" },
    { { .db = "x" }, "--db: must be sqlite, rqlite or postgres" },
    { { .db = "" }, "--db: must be sqlite, rqlite or postgres" },
    { { .to_broadcasters_auth = "md5" }, "--to-broadcasters-auth: must be hmac, token or none" },
    { { .to_subscribers_auth = "" }, "--to-subscribers-auth: must be hmac, token or none" },
    { { .to_broadcasters_secret = "short" }, "--to-broadcasters-secret: " HMAC_ERROR },
    { { .to_subscribers_secret = "" }, "--to-subscribers-secret: " HMAC_ERROR },
};

static void refuses_wrong_arguments_before_writing(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(refused); i++) {
        struct setup s = refused[i].setup;
        char expected[256];

        s.dir = dir;
        assert_int_equal(run(&s), 2);
        snprintf(expected, sizeof expected, "lonelypss: %s\n", refused[i].error);
        assert_string_equal(err_text, expected);
        assert_nothing_written();
    }
}

static void a_folder_that_cannot_be_made(void **state)
{
    char parent[128], expected[256];

    (void)state;
    snprintf(parent, sizeof parent, "%s/no/such", folder);
    assert_int_equal(run(&(struct setup){ .dir = parent }), 1);
    snprintf(expected, sizeof expected, "lonelypss: %s: No such file or directory\n", parent);
    assert_string_equal(err_text, expected);
    assert_nothing_written();
    assert_int_equal(run(&(struct setup){ .dir = "/dev/null" }), 2);
    assert_string_equal(err_text, "lonelypss: /dev/null/lonelypss.ini: Not a directory\n");
}

/* Files may hold so many bytes: the secrets (300 each) are written, the INI file is not. */
static void leaves_nothing_after_a_failure(void **state)
{
    static const rlim_t limits[] = { 0, 200, 1000 };
    struct rlimit before;
    char expected[256];

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    for (size_t i = 0; i < TABLE_LEN(limits); i++) {
        int code;

        setrlimit(RLIMIT_FSIZE, &(struct rlimit){ limits[i], before.rlim_max });
        code = run(&(struct setup){ .dir = dir });
        setrlimit(RLIMIT_FSIZE, &before);
        assert_int_equal(code, 1);
        snprintf(expected, sizeof expected, "lonelypss: %s: %s%s\n",
                 path_of(names[limits[i] < 300 ? 1 : 0]),
                 limits[i] < 300 ? "cannot be written: " : "", strerror(EFBIG));
        assert_string_equal(err_text, expected);
        assert_nothing_written();
    }
    assert_int_equal(run(&(struct setup){ .dir = dir }), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
        TEST(writes_what_a_broadcaster_needs), TEST(passwords_of_databases_get_their_own_file),
        TEST(tells_what_to_do_next),           TEST(secrets_are_new_each_time),
        TEST(never_overwrites_a_file),         TEST(refuses_wrong_arguments_before_writing),
        TEST(a_folder_that_cannot_be_made),    TEST(leaves_nothing_after_a_failure),
#undef TEST
    };

    return cmocka_run_group_tests_name("setup", tests, NULL, NULL);
}
