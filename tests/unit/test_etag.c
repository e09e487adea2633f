/* The strong etag: order, states, sizes. Its values are checked by tests/vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <lonely/etag.h>

#include "tables.h"

static struct lonely_etag etag;
static const struct lonely_span none = { 0 };

/* SHA-512 of "URL" 0000 "\nEXACT" 0001 61 0000 "\nGLOB" 0002 612a 0001 72 "\n", made with
 * coreutils' sha512sum. */
static const char known[] = "32d304dbd275a08a6d194274fb452a75c880a35faf53dd9224b4aedbbbdd2f87318f89"
                            "fe9827b4ee4ad799a0562f9917b51b222f7051d2550fd9a921bf8a3580";

static void equals_the_hash_of_the_document(void **state)
{
    uint8_t got[LONELY_ETAG_BYTES];
    char hex[2 * LONELY_ETAG_BYTES + 1];

    (void)state;
    for (int round = 0; round < 2; round++) { /* the second one on a struct that was used */
        assert_int_equal(lonely_etag_init(&etag, none), LONELY_OK);
        assert_int_equal(lonely_etag_add_topic(&etag, LIT("a"), none), LONELY_OK);
        assert_int_equal(lonely_etag_add_glob(&etag, LIT("a*"), LIT("r")), LONELY_OK);
        assert_int_equal(lonely_etag_final(&etag, got), LONELY_OK);
        table_hex((struct lonely_span){ got, sizeof(got) }, hex);
        assert_string_equal(hex, known);
    }
}

static const struct order_case {
    struct lonely_span first, second;
    enum lonely_error err;
} order_cases[] = {
    { LIT_INIT(""), LIT_INIT(""), LONELY_E_ORDER },
    { LIT_INIT(""), LIT_INIT("a"), LONELY_OK },
    { LIT_INIT("a"), LIT_INIT(""), LONELY_E_ORDER },
    { LIT_INIT("a"), LIT_INIT("a"), LONELY_E_ORDER },
    { LIT_INIT("a"), LIT_INIT("aa"), LONELY_OK },
    { LIT_INIT("aa"), LIT_INIT("a"), LONELY_E_ORDER },
    { LIT_INIT("a\0"), LIT_INIT("a\0\0"), LONELY_OK },
    { LIT_INIT("\x7f"), LIT_INIT("\x80"), LONELY_OK },
    { LIT_INIT("\xff"), LIT_INIT("\x01"), LONELY_E_ORDER },
    { LIT_INIT("ab"), LIT_INIT("b"), LONELY_OK },
};

static void refuses_lists_out_of_order(void **state)
{
    uint8_t got[LONELY_ETAG_BYTES];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(order_cases); i++) {
        const struct order_case *c = &order_cases[i];
        enum lonely_error end = c->err == LONELY_OK ? LONELY_OK : LONELY_E_STATE;

        assert_int_equal(lonely_etag_init(&etag, none), LONELY_OK);
        assert_int_equal(lonely_etag_add_topic(&etag, c->first, none), LONELY_OK);
        assert_int_equal(lonely_etag_add_topic(&etag, c->second, none), c->err);
        assert_int_equal(lonely_etag_final(&etag, got), end);

        assert_int_equal(lonely_etag_init(&etag, none), LONELY_OK);
        assert_int_equal(lonely_etag_add_topic(&etag, LIT("zzz"), none), LONELY_OK);
        assert_int_equal(lonely_etag_add_glob(&etag, c->first, none), LONELY_OK);
        assert_int_equal(lonely_etag_add_glob(&etag, c->second, none), c->err);
        assert_int_equal(lonely_etag_final(&etag, got), end);
    }
}

/* The last key is a copy: the caller's row may be gone. */
static void remembers_the_last_key_itself(void **state)
{
    uint8_t row[] = { 'b' };
    struct lonely_span span = { row, 1 };

    (void)state;
    assert_int_equal(lonely_etag_init(&etag, none), LONELY_OK);
    assert_int_equal(lonely_etag_add_topic(&etag, span, none), LONELY_OK);
    row[0] = 'a';
    assert_int_equal(lonely_etag_add_topic(&etag, span, none), LONELY_E_ORDER);
}

static void keeps_the_order_of_calls(void **state)
{
    uint8_t got[LONELY_ETAG_BYTES];

    (void)state;
    assert_int_equal(lonely_etag_init(&etag, none), LONELY_OK);
    assert_int_equal(lonely_etag_add_glob(&etag, LIT("a"), none), LONELY_OK);
    assert_int_equal(lonely_etag_add_topic(&etag, LIT("b"), none), LONELY_E_STATE);
    assert_int_equal(lonely_etag_add_glob(&etag, LIT("b"), none), LONELY_E_STATE);

    assert_int_equal(lonely_etag_init(&etag, none), LONELY_OK);
    assert_int_equal(lonely_etag_final(&etag, got), LONELY_OK);
    assert_int_equal(lonely_etag_final(&etag, got), LONELY_E_STATE);
    assert_int_equal(lonely_etag_add_topic(&etag, LIT("a"), none), LONELY_E_STATE);
}

static void knows_how_long_fields_are(void **state)
{
    static uint8_t bytes[65536];
    struct lonely_span longest = { bytes, 65535 }, longer = { bytes, 65536 };

    (void)state;
    assert_int_equal(lonely_etag_init(&etag, longer), LONELY_E_FIELD_SIZE);
    assert_int_equal(lonely_etag_add_topic(&etag, none, none), LONELY_E_STATE);
    assert_int_equal(lonely_etag_init(&etag, longest), LONELY_OK);
    assert_int_equal(lonely_etag_add_topic(&etag, longest, longest), LONELY_OK);
    assert_int_equal(lonely_etag_add_topic(&etag, longest, none), LONELY_E_ORDER);
    assert_int_equal(lonely_etag_init(&etag, none), LONELY_OK);
    assert_int_equal(lonely_etag_add_topic(&etag, longer, none), LONELY_E_FIELD_SIZE);
    assert_int_equal(lonely_etag_init(&etag, none), LONELY_OK);
    assert_int_equal(lonely_etag_add_glob(&etag, none, longer), LONELY_E_FIELD_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_hash_of_the_document),
        cmocka_unit_test(refuses_lists_out_of_order),
        cmocka_unit_test(remembers_the_last_key_itself),
        cmocka_unit_test(keeps_the_order_of_calls),
        cmocka_unit_test(knows_how_long_fields_are),
    };

    return cmocka_run_group_tests_name("etag", tests, NULL, NULL);
}
