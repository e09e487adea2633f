/* secrets.h: both versions of the file, each side's point of view, what is refused, and writing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "secrets.h"
#include "tables.h"

/* Twice 86 characters, of 64 bytes each. */
#define A16   "AAAAAAAAAAAAAAAA"
#define KEY_A A16 A16 A16 A16 A16 "AAAAAA"

static char folder[] = "/tmp/lonely-secrets-XXXXXX";

static const char *path_of(const char *name)
{
    static char path[sizeof(folder) + 64];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

/* What a key sends tells which secret it holds: "" for none, "hmac", or the token. */
static const char *what(const struct lonely_auth_key *key)
{
    static char text[LONELY_AUTH_MAX_BYTES + 1];
    size_t len;

    if (key == NULL)
        return "no key";
    if (lonely_auth_key_scheme(key) == LONELY_AUTH_HMAC)
        return "hmac";
    assert_int_equal(
        lonely_auth_sign(NULL, key, NULL, 0, LIT(""), (uint8_t *)text, sizeof(text) - 1, &len),
        LONELY_OK);
    text[len] = '\0';
    return len == 0 ? "" : text + strlen("Bearer ");
}

static const struct good_case {
    const char *name, *json;
    enum secrets_owner owner;
    const char *to_broadcaster, *to_subscriber;
} good_cases[] = {
    { "version 2, the broadcaster's",
      "{\"version\": \"2\", \"to-broadcaster\": {\"type\": \"token\", \"secret\": \"b\"},"
      " \"to-subscriber\": {\"type\": \"token\", \"secret\": \"s\"}}",
      SECRETS_BROADCASTER, "b", "s" },
    { "version 2, the subscriber's",
      "{\"version\": \"2\", \"to-broadcaster\": {\"type\": \"token\", \"secret\": \"b\"},"
      " \"to-subscriber\": {\"type\": \"token\", \"secret\": \"s\"}}",
      SECRETS_SUBSCRIBER, "b", "s" },
    { "version 1, the broadcaster's",
      "{\"version\": \"1\", \"incoming\": {\"type\": \"token\", \"secret\": \"in\"},"
      " \"outgoing\": {\"type\": \"token\", \"secret\": \"out\"}}",
      SECRETS_BROADCASTER, "in", "out" },
    { "version 1, the subscriber's",
      "{\"version\": \"1\", \"incoming\": {\"type\": \"token\", \"secret\": \"in\"},"
      " \"outgoing\": {\"type\": \"token\", \"secret\": \"out\"}}",
      SECRETS_SUBSCRIBER, "out", "in" },
    { "hmac and an absent direction",
      "{\"to-subscriber\": {\"secret\": \"" KEY_A "\", \"type\": \"hmac\"}, \"version\": \"2\"}",
      SECRETS_BROADCASTER, "", "hmac" },
    { "hmac, padded",
      "{\"version\": \"1\", \"incoming\": {\"type\": \"hmac\", \"secret\": \"" KEY_A "==\"}}",
      SECRETS_SUBSCRIBER, "", "hmac" },
    { "none, with a secret that is not looked at",
      "{\"version\": \"2\", \"to-broadcaster\": {\"type\": \"none\", \"secret\": 3}}",
      SECRETS_BROADCASTER, "", "" },
    { "no direction", "{\"version\": \"2\"}", SECRETS_BROADCASTER, "", "" },
    { "white space and escapes",
      " {\n\t\"version\" : "
      "\"2\",\r\n\"to-broadcaster\":{\"type\":\"token\",\"secret\":\"\\u0061\\\"\\\\\"}}\n",
      SECRETS_BROADCASTER, "a\"\\", "" },
    { "another member of a direction",
      "{\"version\": \"2\", \"to-broadcaster\": {\"type\": \"token\", \"secret\": \"b\", \"x\": "
      "1}}",
      SECRETS_BROADCASTER, "b", "" },
};

static void reads_both_versions(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(good_cases); i++) {
        const struct good_case *c = &good_cases[i];
        struct secrets_error err;
        struct secrets s;

        print_message("# %s\n", c->name);
        assert_true(secrets_parse(c->json, strlen(c->json), "f", c->owner, &s, &err));
        assert_string_equal(what(s.to_broadcaster), c->to_broadcaster);
        assert_string_equal(what(s.to_subscriber), c->to_subscriber);
        assert_false(s.readable_by_others);
        secrets_fini(&s);
        assert_null(s.to_broadcaster);
        secrets_fini(&s);
    }
}

#define HIDDEN "hunter2"
#define B      "\"to-broadcaster\": "

static const struct bad_case {
    const char *name, *json, *text; /* `text`: somewhere in the error */
} bad_cases[] = {
    { "empty", "", "not valid JSON" },
    { "not JSON", "{\"version\": " HIDDEN, "line 1, column " },
    { "an end too early", "{\"version\": \"2\", " B "{\"type\": \"token\", \"secret\": \"" HIDDEN,
      "not valid JSON" },
    { "something behind", "{\"version\": \"2\"} x", "not valid JSON" },
    { "a key twice", "{\"version\": \"2\", \"version\": \"2\"}", "a key twice" },
    { "not an object", "[\"" HIDDEN "\"]", "not a JSON object" },
    { "no version", "{}", "\"version\"" },
    { "version as a number", "{\"version\": 2}", "\"version\"" },
    { "version 3", "{\"version\": \"3\"}", "\"version\"" },
    { "misspelt direction", "{\"version\": \"2\", \"to-broadcasters\": {\"type\": \"none\"}}",
      "a key other than" },
    { "names of version 1", "{\"version\": \"2\", \"incoming\": {\"type\": \"none\"}}",
      "a key other than" },
    { "names of version 2", "{\"version\": \"1\", " B "{\"type\": \"none\"}}", "a key other than" },
    { "secret as a key", "{\"version\": \"2\", \"" HIDDEN "\": 1}", "a key other than" },
    { "direction is null", "{\"version\": \"2\", " B "null}", "\"to-broadcaster\" is not" },
    { "direction is a string", "{\"version\": \"2\", " B "\"" HIDDEN "\"}", "is not an object" },
    { "no type", "{\"version\": \"2\", " B "{\"secret\": \"" HIDDEN "\"}}", "\"type\" of" },
    { "type is a number", "{\"version\": \"2\", " B "{\"type\": 1}}", "\"type\" of" },
    { "unknown type", "{\"version\": \"2\", " B "{\"type\": \"HMAC\", \"secret\": \"" HIDDEN "\"}}",
      "\"type\" of" },
    { "no secret", "{\"version\": \"2\", " B "{\"type\": \"token\"}}", "\"secret\" of" },
    { "secret is a number", "{\"version\": \"2\", " B "{\"type\": \"token\", \"secret\": 1}}",
      "\"secret\" of" },
    { "empty token", "{\"version\": \"2\", " B "{\"type\": \"token\", \"secret\": \"\"}}",
      "a secret for token must" },
    { "hmac of 63 bytes",
      "{\"version\": \"2\", " B "{\"type\": \"hmac\", \"secret\": \"" HIDDEN "\"}}",
      "a secret for hmac must" },
    { "second direction",
      "{\"version\": \"2\", " B "{\"type\": \"token\", \"secret\": \"good\"},"
      " \"to-subscriber\": {\"type\": \"hmac\", \"secret\": \"" HIDDEN "\"}}",
      "\"to-subscriber\": a secret for hmac must" },
    { "not UTF-8", "{\"version\": \"2\", " B "{\"type\": \"token\", \"secret\": \"\xff\"}}",
      "not valid JSON" },
    { "NUL in a secret",
      "{\"version\": \"2\", " B "{\"type\": \"token\", \"secret\": \"a\\u0000b\"}}",
      "not valid JSON" },
};

static void names_the_file_and_what_is_wrong_but_no_secret(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(bad_cases); i++) {
        const struct bad_case *c = &bad_cases[i];
        struct secrets_error err;
        struct secrets s;

        print_message("# %s\n", c->name);
        assert_false(
            secrets_parse(c->json, strlen(c->json), "the.json", SECRETS_BROADCASTER, &s, &err));
        assert_null(s.to_broadcaster);
        assert_null(s.to_subscriber);
        assert_memory_equal(err.text, "the.json: ", 10);
        if (strstr(err.text, c->text) == NULL)
            fail_msg("%s", err.text);
        assert_null(strstr(err.text, HIDDEN));
        assert_null(strchr(err.text, '\n'));
    }
}

static void put_file(const char *path, const char *text, size_t len, mode_t mode)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void tells_who_else_may_read_the_file(void **state)
{
    static const struct {
        mode_t mode;
        bool others;
    } cases[] = {
        { 0600, false }, { 0400, false }, { 0640, true }, { 0604, true }, { 0644, true }
    };
    static const char json[] = "{\"version\": \"2\"}";
    const char *path = path_of("mode.json");
    struct secrets_error err;
    struct secrets s;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        unlink(path);
        put_file(path, json, sizeof(json) - 1, cases[i].mode);
        assert_true(secrets_load(path, SECRETS_BROADCASTER, &s, &err));
        assert_int_equal(s.readable_by_others, cases[i].others);
        secrets_fini(&s);
    }
}

static void refuses_what_is_not_a_small_regular_file(void **state)
{
    static char spaces[SECRETS_FILE_MAX + 1];
    static const char json[] = "{\"version\": \"2\"}";
    struct secrets_error err;
    struct secrets s;

    (void)state;
    assert_false(secrets_load(path_of("absent.json"), SECRETS_BROADCASTER, &s, &err));
    assert_non_null(strstr(err.text, "cannot be opened: No such file"));
    assert_false(secrets_load(folder, SECRETS_BROADCASTER, &s, &err));
    assert_non_null(strstr(err.text, "not a regular file"));
    assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
    assert_false(secrets_load(path_of("fifo"), SECRETS_BROADCASTER, &s, &err));
    assert_non_null(strstr(err.text, "not a regular file"));

    memset(spaces, ' ', sizeof(spaces));
    memcpy(spaces, json, sizeof(json) - 1);
    put_file(path_of("large.json"), spaces, sizeof(spaces) - 1, 0600);
    assert_true(secrets_load(path_of("large.json"), SECRETS_BROADCASTER, &s, &err));
    secrets_fini(&s);
    put_file(path_of("large.json"), spaces, sizeof(spaces), 0600);
    assert_false(secrets_load(path_of("large.json"), SECRETS_BROADCASTER, &s, &err));
    assert_non_null(strstr(err.text, "larger than 32768 bytes"));
}

static void a_long_path_does_not_hide_the_reason(void **state)
{
    static const char reason[] = ": cannot be opened: File name too long";
    char path[2000];
    struct secrets_error err;
    struct secrets s;

    (void)state;
    memset(path, 'p', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    assert_false(secrets_load(path, SECRETS_BROADCASTER, &s, &err));
    assert_int_equal(strncmp(err.text, "pppp", 4), 0);
    assert_true(strlen(err.text) > sizeof(reason));
    assert_string_equal(err.text + strlen(err.text) - (sizeof(reason) - 1), reason);
}

static void writes_what_it_reads(void **state)
{
    const char *path = path_of("new.json");
    static struct secrets_text text;
    struct secrets_error err;
    struct secrets s;
    struct stat st;

    (void)state;
    assert_true(secrets_text_set(&text.to_broadcaster, LONELY_AUTH_HMAC, NULL, "o", &err));
    assert_int_equal(strlen(text.to_broadcaster.secret), LONELY_AUTH_SECRET_BYTES);
    assert_true(secrets_text_set(&text.to_subscriber, LONELY_AUTH_TOKEN, "q\"b\\", "o", &err));
    assert_true(secrets_write(path, &text, &err));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_true(secrets_load(path, SECRETS_SUBSCRIBER, &s, &err));
    assert_string_equal(what(s.to_broadcaster), "hmac");
    assert_string_equal(what(s.to_subscriber), "q\"b\\");
    assert_false(s.readable_by_others);
    secrets_fini(&s);

    assert_false(secrets_write(path, &text, &err));
    assert_non_null(strstr(err.text, "cannot be made: File exists"));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(symlink("nowhere", path_of("link.json")), 0);
    assert_false(secrets_write(path_of("link.json"), &text, &err));
    assert_false(secrets_write(path_of("no/folder.json"), &text, &err));

    secrets_text_wipe(&text);
    for (size_t i = 0; i < sizeof(text); i++)
        assert_int_equal(((const uint8_t *)&text)[i], 0);
}

static void a_file_that_cannot_be_written_is_not_left(void **state)
{
    static struct secrets_text text;
    struct rlimit before, few;
    struct secrets_error err;
    struct stat st;
    bool written;

    (void)state;
    assert_true(secrets_text_set(&text.to_subscriber, LONELY_AUTH_TOKEN, "t", "o", &err));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    few = (struct rlimit){ 10, before.rlim_max };
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
    written = secrets_write(path_of("cut.json"), &text, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_false(written);
    assert_non_null(strstr(err.text, "cut.json: cannot be written: File too large"));
    assert_int_equal(stat(path_of("cut.json"), &st), -1);
}

static void the_longest_secrets_fit_a_file(void **state)
{
    static char secret[LONELY_AUTH_TOKEN_MAX_BYTES + 2];
    static struct secrets_text text;
    struct secrets_error err;
    struct secrets s;

    (void)state;
    memset(secret, '"', LONELY_AUTH_TOKEN_MAX_BYTES);
    assert_true(secrets_text_set(&text.to_broadcaster, LONELY_AUTH_TOKEN, secret, "o", &err));
    assert_true(secrets_text_set(&text.to_subscriber, LONELY_AUTH_TOKEN, secret, "o", &err));
    assert_true(secrets_write(path_of("long.json"), &text, &err));
    assert_true(secrets_load(path_of("long.json"), SECRETS_BROADCASTER, &s, &err));
    assert_string_equal(what(s.to_subscriber), secret);
    secrets_fini(&s);
    secret[LONELY_AUTH_TOKEN_MAX_BYTES] = '"';
    assert_false(secrets_text_set(&text.to_broadcaster, LONELY_AUTH_TOKEN, secret, "o", &err));
}

static void given_secrets_are_checked(void **state)
{
    static const struct {
        const char *name;
        enum lonely_auth_scheme scheme;
        const char *secret;
        bool good;
    } cases[] = {
        { "hmac", LONELY_AUTH_HMAC, KEY_A, true },
        { "hmac, padded", LONELY_AUTH_HMAC, KEY_A "==", true },
        { "hmac, too short", LONELY_AUTH_HMAC, "AAAA", false },
        { "hmac, control character", LONELY_AUTH_HMAC, KEY_A "\n", false },
        { "token", LONELY_AUTH_TOKEN, "t", true },
        { "token, not ASCII", LONELY_AUTH_TOKEN, "\xc3\xa9", false },
        { "token, empty", LONELY_AUTH_TOKEN, "", false },
    };
    static struct secrets_text_part part, again;
    struct secrets_error err;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        print_message("# %s\n", cases[i].name);
        assert_int_equal(
            secrets_text_set(&part, cases[i].scheme, cases[i].secret, "--option", &err),
            cases[i].good);
        assert_string_equal(part.secret, cases[i].good ? cases[i].secret : "");
        if (!cases[i].good)
            assert_memory_equal(err.text, "--option: a secret for ", 23);
    }
    assert_true(secrets_text_set(&part, LONELY_AUTH_NONE, "ignored", "--option", &err));
    assert_string_equal(part.secret, "");
    assert_true(secrets_text_set(&part, LONELY_AUTH_TOKEN, NULL, "--option", &err));
    assert_true(secrets_text_set(&again, LONELY_AUTH_TOKEN, NULL, "--option", &err));
    assert_string_not_equal(part.secret, again.secret);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = { "mode.json", "fifo",      "large.json",
                                         "new.json",  "link.json", "long.json" };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(names); i++)
        unlink(path_of(names[i]));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_both_versions),
        cmocka_unit_test(names_the_file_and_what_is_wrong_but_no_secret),
        cmocka_unit_test(tells_who_else_may_read_the_file),
        cmocka_unit_test(refuses_what_is_not_a_small_regular_file),
        cmocka_unit_test(a_long_path_does_not_hide_the_reason),
        cmocka_unit_test(writes_what_it_reads),
        cmocka_unit_test(a_file_that_cannot_be_written_is_not_left),
        cmocka_unit_test(the_longest_secrets_fit_a_file),
        cmocka_unit_test(given_secrets_are_checked),
    };

    return cmocka_run_group_tests_name("secrets", tests, set_up, tear_down);
}
