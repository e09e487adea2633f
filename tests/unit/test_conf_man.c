/* lonelypss.ini(5) and the table of conf.c name the same options, in the same order, with the same
 * kinds and defaults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "conf.h"
#include "tables.h"

#define MAX_OPTIONS 256

struct option_line {
    char text[160]; /* "section.key = KIND default VALUE" */
};

static struct option_line in_table[MAX_OPTIONS], in_page[MAX_OPTIONS];

/* Appends a word; lines of the table and the page are compared word by word. */
static void add_word(struct option_line *line, const char *word)
{
    size_t at = strlen(line->text);
    int n = snprintf(line->text + at, sizeof line->text - at, "%s%s", at > 0 ? " " : "", word);

    table_require(n >= 0 && (size_t)n < sizeof line->text - at, "a longer option_line");
}

/* From "  section.key=KIND (default VALUE)". */
static size_t read_table(void)
{
    static char help[32768];
    FILE *f = fmemopen(help, sizeof help, "w");
    size_t n = 0;

    conf_print_help(f);
    fclose(f);
    for (char *rest = help, *line; (line = strsep(&rest, "\n")) != NULL;) {
        char *equals = strchr(line, '=');

        if (line[0] != ' ' || line[2] == ' ' || equals == NULL)
            continue;
        table_require(n < MAX_OPTIONS, "MAX_OPTIONS");
        *equals = '\0';
        add_word(&in_table[n], line + 2);
        add_word(&in_table[n], "=");
        for (char *at = equals + 1, *word; (word = strsep(&at, " ()")) != NULL;)
            if (*word != '\0')
                add_word(&in_table[n], word);
        n++;
    }
    return n;
}

static bool is_macro(const char *word)
{
    static const char *const macros[] = { ".It", "Cm", "No", "Ar", "Pq" };

    for (size_t i = 0; i < TABLE_LEN(macros); i++)
        if (strcmp(word, macros[i]) == 0)
            return true;
    return false;
}

/* From ".Ss [section]" and ".It Cm key No = ...", behind ".Sh OPTIONS". */
static size_t read_page(void)
{
    FILE *f = fopen(MAN_PAGE, "r");
    char line[512], section[64] = "";
    bool in_options = false;
    size_t n = 0;

    table_require(f != NULL, MAN_PAGE);
    while (fgets(line, sizeof line, f) != NULL) {
        char *rest = line, *word;

        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, ".Sh ", 4) == 0)
            in_options = strcmp(line, ".Sh OPTIONS") == 0;
        if (in_options && sscanf(line, ".Ss [%60[a-z]]", section) == 1)
            strcat(section, ".");
        if (!in_options || strncmp(line, ".It Cm ", 7) != 0)
            continue;
        table_require(n < MAX_OPTIONS, "MAX_OPTIONS");
        strcpy(in_page[n].text, section);
        strsep(&rest, " ");
        strsep(&rest, " ");
        strcat(in_page[n].text, strsep(&rest, " "));
        while ((word = strsep(&rest, " ")) != NULL)
            if (!is_macro(word))
                add_word(&in_page[n], word);
        n++;
    }
    fclose(f);
    return n;
}

static void the_page_says_what_the_table_says(void **state)
{
    size_t n_table = read_table(), n_page = read_page();

    (void)state;
    assert_true(n_table > 0);
    for (size_t i = 0; i < n_table && i < n_page; i++)
        assert_string_equal(in_page[i].text, in_table[i].text);
    assert_int_equal(n_page, n_table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_says_what_the_table_says),
    };

    return cmocka_run_group_tests_name("conf_man", tests, NULL, NULL);
}
