/* base64.h: both alphabets, the strict decoder and the lenient one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdbool.h>

#include "base64.h"
#include "tables.h"

static struct guard guard;

static const struct coded {
    const char *hex, *standard, *url;
} coded[] = {
    { "", "", "" }, /* RFC 4648, 10 */
    { "66", "Zg==", "Zg" },
    { "666f", "Zm8=", "Zm8" },
    { "666f6f", "Zm9v", "Zm9v" },
    { "666f6f62", "Zm9vYg==", "Zm9vYg" },
    { "666f6f6261", "Zm9vYmE=", "Zm9vYmE" },
    { "666f6f626172", "Zm9vYmFy", "Zm9vYmFy" },
    { "fbefff", "++//", "--__" },
    { "ff", "/w==", "_w" },
    { "0000", "AAA=", "AAA" },
};

static struct lonely_span text(const char *s)
{
    return (struct lonely_span){ (const uint8_t *)s, strlen(s) };
}

static void assert_text(const uint8_t *got, size_t len, const char *want)
{
    assert_int_equal(len, strlen(want));
    assert_memory_equal(got, want, len);
}

static void encodes(void **state)
{
    uint8_t raw[64];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(coded); i++) {
        const size_t n = table_unhex(coded[i].hex, raw, sizeof(raw));
        const size_t padded = BASE64_PADDED_LEN(n), bare = BASE64_UNPADDED_LEN(n);
        const struct lonely_span in = { raw, n };
        uint8_t *out = guard_room(&guard, padded);

        assert_text(out, base64_encode(BASE64_STANDARD, in, out), coded[i].standard);
        assert_int_equal(padded, strlen(coded[i].standard));
        out = guard_room(&guard, bare);
        assert_text(out, base64_encode_unpadded(BASE64_URL, in, out), coded[i].url);
        assert_int_equal(bare, strlen(coded[i].url));
    }
}

static void decodes_what_it_encodes(void **state)
{
    uint8_t raw[64], out[64];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(coded); i++) {
        const struct lonely_span in = guard_lay(&guard, text(coded[i].standard));
        const size_t n = table_unhex(coded[i].hex, raw, sizeof(raw));

        assert_int_equal(base64_decode(BASE64_STANDARD, in, out, n), n);
        assert_memory_equal(out, raw, n);
        if (n > 0)
            assert_true(base64_decode(BASE64_STANDARD, in, out, n - 1) == BASE64_BAD);
        assert_int_equal(base64_decode_lenient(in, out, n), n);
        assert_memory_equal(out, raw, n);
        assert_int_equal(base64_decode_lenient(text(coded[i].url), out, n), n);
        assert_memory_equal(out, raw, n);
        if (n > 0)
            assert_true(base64_decode_lenient(text(coded[i].url), out, n - 1) == BASE64_BAD);
    }
}

/* Every byte in every place of a group, so that each entry of the table is seen. */
static void strict_takes_exactly_its_alphabet(void **state)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        const bool common = c != 0 && strchr(letters, (int)c) != NULL;

        for (size_t place = 0; place < 4; place++) {
            uint8_t in[8] = "AAAAAAAA", out[6];
            const struct lonely_span span = { in, sizeof(in) };
            bool padding = c == '=' && place == 3;

            in[4 + place] = (uint8_t)c;
            assert_int_equal(base64_decode(BASE64_STANDARD, span, out, 6) != BASE64_BAD,
                             common || c == '+' || c == '/' || padding);
            assert_int_equal(base64_decode(BASE64_URL, span, out, 6) != BASE64_BAD,
                             common || c == '-' || c == '_' || padding);
            in[4 + place] = 'A';
            in[place] = (uint8_t)c; /* padding may not stand here at all */
            assert_int_equal(base64_decode(BASE64_STANDARD, span, out, 6) != BASE64_BAD,
                             common || c == '+' || c == '/');
        }
    }
}

static void strict_refuses_other_spellings(void **state)
{
    static const char *const bad[] = {
        "A",        "AA",
        "AAA",      "AAAAA",
        "=",        "==",
        "===",      "====",
        "A===",     "AA=A",
        "AA==AAAA", "AAAA====",
        "A=AA",     "Zh==",
        "Zm9=",     "Zm8=\n",
        "Zg",       "Zm8",
        " Zm9v",    "Zm9v Zm9v",
        "Zg= =Zg=", "\xff\xff\xff\xff",
    };
    uint8_t out[16];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(bad); i++) {
        print_message("# spelling %zu\n", i);
        assert_true(base64_decode(BASE64_STANDARD, guard_lay(&guard, text(bad[i])), out,
                                  sizeof(out)) == BASE64_BAD);
    }
}

static const struct lenient_case {
    const char *in, *hex; /* hex NULL: refused */
} lenient_cases[] = {
    { "Zm9v", "666f6f" },     { " Z\nm9\tv ", "666f6f" },
    { "Z!m*9v", "666f6f" },   { "-_+/", "fbffbf" },
    { "Zg==Zg==", "660660" }, { "Zh", "66" },
    { "====", "" },           { "Z", NULL },
    { "Zm9vZ", NULL },        { "\xc3\xa9Zg", "66" },
};

static void lenient_skips_what_is_not_base64(void **state)
{
    uint8_t want[16], out[16];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(lenient_cases); i++) {
        const struct lenient_case *c = &lenient_cases[i];
        const size_t n = base64_decode_lenient(guard_lay(&guard, text(c->in)), out, sizeof(out));

        print_message("# case %zu\n", i);
        if (c->hex == NULL) {
            assert_true(n == BASE64_BAD);
            continue;
        }
        assert_int_equal(n, table_unhex(c->hex, want, sizeof(want)));
        assert_memory_equal(out, want, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodes),
        cmocka_unit_test(decodes_what_it_encodes),
        cmocka_unit_test(strict_takes_exactly_its_alphabet),
        cmocka_unit_test(strict_refuses_other_spellings),
        cmocka_unit_test(lenient_skips_what_is_not_base64),
    };
    int failed;

    guard = guard_create(64);
    failed = cmocka_run_group_tests_name("base64", tests, NULL, NULL);
    guard_destroy(&guard);
    return failed;
}
