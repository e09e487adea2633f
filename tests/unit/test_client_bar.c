/*
 * The progress bar of lonelypsc, on a terminal of the test's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pty.h>
#include <string.h>
#include <unistd.h>

#include "bar.h"
#include "tables.h"

static const struct bar_case {
    const char *name;
    uint64_t done, size;
    const char *said;
} cases[] = {
    { "nothing yet", 0, 2 << 20, "\r[                              ]   0%  0.0 of 2.0 MiB  " },
    { "half", 1 << 20, 2 << 20, "\r[###############               ]  50%  1.0 of 2.0 MiB  " },
    { "all", 2 << 20, 2 << 20, "\r[##############################] 100%  2.0 of 2.0 MiB  " },
    { "more than there was", UINT64_C(1) << 40, 2 << 20,
      "\r[##############################] 100%  2.0 of 2.0 MiB  " },
    { "not large", 1000, 1000, "" },
};

static void draws(void **state)
{
    int ours, theirs, saved = dup(STDERR_FILENO);

    (void)state;
    table_require(openpty(&ours, &theirs, NULL, NULL, NULL) == 0, "a terminal");
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        char said[256] = "";
        struct bar b;

        dup2(theirs, STDERR_FILENO);
        bar_init(&b, cases[i].size);
        atomic_store(&b.done, cases[i].done);
        bar_draw(&b);
        dup2(saved, STDERR_FILENO);
        if (b.shown)
            assert_true(read(ours, said, sizeof(said) - 1) > 0);
        if (strncmp(said, cases[i].said, strlen(cases[i].said)) != 0 ||
            b.shown != (said[0] != '\0'))
            fail_msg("%s: %s", cases[i].name, said);
    }
    close(saved);
    close(ours);
    close(theirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(draws) };

    return cmocka_run_group_tests_name("client_bar", tests, NULL, NULL);
}
