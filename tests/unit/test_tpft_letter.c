/* Letters of tpft: what is read, cut at every byte too, and what is written, byte for byte
 * (doc/protocol/tinyproto.md, 14.2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "letter.h"
#include "tables.h"

/* `bytes`: what the text members hold, each followed by `|`; "malformed" if it is no letter. */
static const struct read_case {
    const char *name, *json;
    enum letter_type type;
    unsigned given;
    uint64_t number; /* of file_size or offset */
    const char *bytes;
} reads[] = {
#define UPLOAD(members) "{\"type\":\"upload-request\",\"letter\":{" members "}}"
#define SIZE(text)      UPLOAD("\"file_size\":" text)
#define PATH(text)      UPLOAD("\"destination_path\":\"" text "\"")
#define NO_SIZE(text)   text, SIZE(text), LETTER_UPLOAD_REQUEST, 0, 0, ""
#define BAD(text)       text, text, LETTER_UNKNOWN, 0, 0, "malformed"
    { "as the reference writes it", UPLOAD("\"file_size\":13,\"destination_path\":\"dest.txt\""),
      LETTER_UPLOAD_REQUEST, LETTER_FILE_SIZE | LETTER_DESTINATION, 13, "dest.txt|" },
    { "white space, another order, unknown keys",
      " { \"x\" : [ 1, {\"y\":null}, -1.5e+3, true ] ,\n\"letter\":\t{ \"z\":{}, \"offset\" : 7 } "
      ", "
      "\"type\":\"confirmed\" }\r\n",
      LETTER_CONFIRMED, LETTER_OFFSET, 7, "" },
    { "the last of two counts", UPLOAD("\"file_size\":1,\"file_size\":2"), LETTER_UPLOAD_REQUEST,
      LETTER_FILE_SIZE, 2, "" },
    { "the last of two is of a wrong type", UPLOAD("\"file_size\":1,\"file_size\":\"2\""),
      LETTER_UPLOAD_REQUEST, 0, 1, "" },
    { "the last of two letters", "{\"type\":\"close\",\"letter\":{\"offset\":1},\"letter\":{}}",
      LETTER_CLOSE, 0, 1, "" },
    { "a later type that is none", "{\"type\":\"close\",\"letter\":{},\"type\":1}", LETTER_UNKNOWN,
      0, 0, "malformed" },
    { "unknown type", "{\"type\":\"list\",\"letter\":{}}", LETTER_UNKNOWN, 0, 0, "" },
    { "largest size", SIZE("9223372036854775807"), LETTER_UPLOAD_REQUEST, LETTER_FILE_SIZE,
      INT64_MAX, "" },
    { NO_SIZE("9223372036854775808") },
    { NO_SIZE("99999999999999999999999999") },
    { NO_SIZE("-1") },
    { NO_SIZE("-0") },
    { NO_SIZE("1.0") },
    { NO_SIZE("1e2") },
    { NO_SIZE("true") },
    { NO_SIZE("null") },
    { NO_SIZE("\"13\"") },
    { NO_SIZE("[13]") },
    { "a path that is a number", UPLOAD("\"destination_path\":1"), LETTER_UPLOAD_REQUEST, 0, 0,
      "" },
    { "escapes", PATH("\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041"), LETTER_UPLOAD_REQUEST,
      LETTER_DESTINATION, 0, "\"\\/\b\f\n\r\tA|" },
    { "non-ASCII, escaped and raw", PATH("gr\\u00fc\xc3\x9f \\ud83d\\ude00"), LETTER_UPLOAD_REQUEST,
      LETTER_DESTINATION, 0, "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80|" },
    { "bytes that are not UTF-8", PATH("a\\udcff\\udc80b"), LETTER_UPLOAD_REQUEST,
      LETTER_DESTINATION, 0,
      "a\xff\x80"
      "b|" },
    { "flags", UPLOAD("\"checksum\":\"sha256\",\"resume\":true"), LETTER_UPLOAD_REQUEST,
      LETTER_CHECKSUM | LETTER_RESUME, 0, "" },
    { "other flags", UPLOAD("\"checksum\":\"md5\",\"resume\":false"), LETTER_UPLOAD_REQUEST, 0, 0,
      "" },
    { "a sum that is too short", "{\"type\":\"confirmed\",\"letter\":{\"sha256\":\"00ff\"}}",
      LETTER_CONFIRMED, 0, 0, "" },
    { BAD("") },
    { BAD("{}") },
    { BAD("[]") },
    { BAD("\"close\"") },
    { BAD("{\"type\":\"close\"}") },
    { BAD("{\"type\":1,\"letter\":{}}") },
    { BAD("{\"type\":\"close\",\"letter\":[]}") },
    { BAD("{\"type\":\"close\",\"letter\":{}}x") },
    { BAD("{\"type\":\"close\",\"letter\":{},}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":01}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":+1}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":.5}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":1.}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":1e}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":tru}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":[1,]}}") },
    { BAD("{\"type\":\"close\",\"letter\":{a:1}}") },
    { BAD("{'type':'close','letter':{}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":\"\n\"}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":\"\\x\"}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":\"\\u12g4\"}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":\"\\ud800\"}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":\"\\ud83d\\u0041\"}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":\"\\udd00\"}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":\"\xff\"}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":\"\xed\xa0\x80\"}}") },
    { BAD("{\"type\":\"close\",\"letter\":{\"a\":\"\xc0\x80\"}}") },
};

static size_t add_text(struct json_text text, char *out, size_t at)
{
    if (text.ptr != NULL) {
        memcpy(out + at, text.ptr, text.len);
        at += text.len;
        out[at++] = '|';
    }
    return at;
}

static void check_read(const struct read_case *c)
{
    size_t len = strlen(c->json), n = 0;
    char *text = malloc(len + 1), bytes[256];
    struct letter letter;
    bool is_letter = letter_parse(c->json, len, text, &letter);

    assert_int_equal(is_letter, strcmp(c->bytes, "malformed") != 0);
    if (is_letter) {
        n = add_text(letter.destination, bytes, n);
        assert_int_equal(letter.type, c->type);
        assert_int_equal(letter.given, c->given);
        assert_int_equal(letter.file_size + letter.offset, c->number);
        assert_int_equal(n, strlen(c->bytes));
        assert_memory_equal(bytes, c->bytes, n);
    }
    free(text);
}

static void test_reading(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(reads); i++) {
        print_message("# case %zu\n", i);
        check_read(&reads[i]);
    }
}

/* A letter that is cut short is none: each ends with its last brace. */
static void test_cut_short(void **state)
{
    struct letter letter;
    char text[512];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(reads); i++) {
        size_t last = strlen(reads[i].json);

        while (last > 0 && reads[i].json[last - 1] != '}')
            last--;
        for (size_t n = 0; n + 1 < last; n++) {
            char *exact = malloc(n + 1);

            memcpy(exact, reads[i].json, n);
            assert_false(letter_parse(exact, n, text, &letter));
            free(exact);
        }
    }
}

static void test_a_nul_is_kept(void **state)
{
    const char json[] = PATH("a\\u0000b");
    char text[sizeof(json)];
    struct letter letter;

    (void)state;
    assert_true(letter_parse(json, sizeof(json) - 1, text, &letter));
    assert_int_equal(letter.destination.len, 3);
    assert_memory_equal(letter.destination.ptr, "a\0b", 3);
}

static void test_nesting_is_bounded(void **state)
{
    static const struct {
        unsigned depth;
        bool is_good;
    } cases[] = { { JSON_DEPTH_MAX - 2, true }, { JSON_DEPTH_MAX - 1, false }, { 30000, false } };
    static char json[LETTER_MAX], text[LETTER_MAX];
    struct letter letter;

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        unsigned n = cases[i].depth;
        int len = snprintf(json, sizeof(json), "{\"type\":\"close\",\"letter\":{\"a\":");

        memset(json + len, '[', n);
        memset(json + len + n, ']', n);
        strcpy(json + len + n + n, "}}");
        assert_int_equal(letter_parse(json, strlen(json), text, &letter), cases[i].is_good);
    }
}

static void check_written(const struct letter *letter, const char *want)
{
    char out[512];
    size_t len = letter_print(letter, out, sizeof(out));

    assert_int_equal(len, strlen(want));
    assert_memory_equal(out, want, len);
    for (size_t cap = 0; cap < len; cap++)
        assert_int_equal(letter_print(letter, out, cap), 0);
}

static void test_writing(void **state)
{
    static const char odd[] =
        "gr\xc3\xbc\xc3\x9f\x01\"\\/\b\f\n\r\t\x7f\xff\xf0\x9f\x98\x80\xed\xa0\x80";
    struct letter letter = { .type = LETTER_UPLOAD_REQUEST,
                             .given = LETTER_FILE_SIZE | LETTER_DESTINATION,
                             .file_size = 13,
                             .destination = { "dest.txt", 8 } };

    (void)state;
    check_written(&letter, "{\"type\":\"upload-request\",\"letter\":{\"file_size\":13,"
                           "\"destination_path\":\"dest.txt\"}}");
    letter.given |= LETTER_CHECKSUM | LETTER_RESUME;
    check_written(&letter,
                  "{\"type\":\"upload-request\",\"letter\":{\"file_size\":13,"
                  "\"destination_path\":\"dest.txt\",\"checksum\":\"sha256\",\"resume\":true}}");
    letter.given = LETTER_DESTINATION;
    letter.destination = (struct json_text){ odd, sizeof(odd) - 1 };
    check_written(&letter,
                  PATH("gr\\u00fc\\u00df\\u0001\\\"\\\\/\\b\\f\\n\\r\\t\x7f\\udcff\\ud83d\\ude00"
                       "\\udced\\udca0\\udc80"));
    letter = (struct letter){ .type = LETTER_CLOSE };
    check_written(&letter, "{\"type\":\"close\",\"letter\":{}}");
    letter =
        (struct letter){ .type = LETTER_CONFIRMED, .given = LETTER_SUM, .sum = { 0x01, 0xff } };
    check_written(&letter, "{\"type\":\"confirmed\",\"letter\":{\"sha256\":\"01ff"
                           "000000000000000000000000000000000000000000000000000000000000\"}}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reading),       cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_a_nul_is_kept), cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test(test_writing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
