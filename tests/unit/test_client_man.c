/* lonelypsc(3) and the table of options.c name the same options, in the same order, with the same units and
 * defaults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include <lonely/client.h>

#include "tables.h"

/* The next ".It Cm ..." behind ".Sh OPTIONS". */
static bool next_item(FILE *page, char line[512])
{
    while (fgets(line, 512, page) != NULL && strncmp(line, ".Sh ", 4) != 0) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, ".It Cm ", 7) == 0)
            return true;
    }
    return false;
}

static void test_the_page_says_what_the_table_says(void **state)
{
    size_t count;
    const struct lonely_client_option *table = lonely_client_option_table(&count);
    FILE *page = fopen(MAN_PAGE, "re");
    char line[512] = "", expected[512];

    (void)state;
    table_require(page != NULL, MAN_PAGE);
    while (strcmp(line, ".Sh OPTIONS\n") != 0)
        table_require(fgets(line, sizeof(line), page) != NULL, "a section OPTIONS");
    for (size_t i = 0; i < count; i++) {
        const char *def = table[i].default_value;

        assert_true(next_item(page, line));
        snprintf(expected, sizeof(expected), ".It Cm %s No = Ar %s%s%s", table[i].name,
                 table[i].unit, def != NULL ? " Pq default Cm " : "", def != NULL ? def : "");
        assert_string_equal(line, expected);
    }
    assert_false(next_item(page, line));
    fclose(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_page_says_what_the_table_says),
    };

    return cmocka_run_group_tests_name("client_man", tests, NULL, NULL);
}
