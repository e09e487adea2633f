/*
 * What lonelypsc says: diagnostics, exit codes for the library's errors, and the help that is made of
 * the tables.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "cli.h"
#include "log.h"

#define HELP_COLUMN 30

void cli_complain(const char *format, ...)
{
    char text[2048], shown[4096];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_escape(text, strlen(text), shown, sizeof(shown));
    fprintf(stderr, "lonelypsc: %s\n", shown);
}

bool cli_flush(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    if (errno != EPIPE) /* who has read enough knows */
        cli_complain("standard output: %s", strerror(errno));
    return false;
}

/* ---- Errors ---- */

enum cli_code cli_code_of(struct lonely_client *c, enum lonely_client_error err)
{
    if (err == LONELY_CLIENT_ABANDONED) /* because of what? */
        err = lonely_client_last_error(c, NULL);
    switch (err) {
    case LONELY_CLIENT_OK:
        return CLI_GOOD;
    case LONELY_CLIENT_TIMED_OUT:
        return CLI_TIMED_OUT;
    case LONELY_CLIENT_FORBIDDEN:
        return CLI_FORBIDDEN;
    case LONELY_CLIENT_UNREACHABLE:
        return CLI_UNREACHABLE;
    case LONELY_CLIENT_ARGUMENT:
        return CLI_USAGE;
    case LONELY_CLIENT_AMBIGUOUS:
    case LONELY_CLIENT_RETRIES_EXHAUSTED:
    case LONELY_CLIENT_REFUSED:
    case LONELY_CLIENT_ABANDONED:
    case LONELY_CLIENT_QUEUE_FULL:
    case LONELY_CLIENT_STATE:
    case LONELY_CLIENT_NOT_SUBSCRIBED:
    case LONELY_CLIENT_SOURCE:
    case LONELY_CLIENT_SPOOL:
    case LONELY_CLIENT_CALLBACK:
    case LONELY_CLIENT_NO_MEMORY:
        break;
    }
    return CLI_FAILED;
}

static const char *advice(enum cli_code code)
{
    switch (code) {
    case CLI_FORBIDDEN:
        return "; see --secrets, and compare the clocks";
    case CLI_UNREACHABLE:
        return "; is it running, and is --broadcaster right? Try: lonelypsc check";
    case CLI_GOOD:
    case CLI_FAILED:
    case CLI_USAGE:
    case CLI_TIMED_OUT:
        break;
    }
    return "";
}

enum cli_code cli_explain(struct lonely_client *c, enum lonely_client_error err, const char *what)
{
    struct lonely_client_why why = { "" };
    enum lonely_client_error last = lonely_client_last_error(c, &why);
    enum cli_code code = cli_code_of(c, err);

    if (err == LONELY_CLIENT_ABANDONED && last != LONELY_CLIENT_OK)
        err = last;
    cli_complain("%s: %s%s%s%s%s", what, lonely_client_error_str(err), why.text[0] ? " (" : "",
                 why.text, why.text[0] ? ")" : "", advice(code));
    return code;
}

/* ---- Help ---- */

static void print_option(FILE *out, const char *name, const char *value, const char *meaning,
                         const char *fallback)
{
    int width =
        fprintf(out, "  --%s%s%s", name, value != NULL ? " " : "", value != NULL ? value : "");

    if (width > HELP_COLUMN - 2) {
        fputc('\n', out);
        width = 0;
    }
    fprintf(out, "%*s%s", HELP_COLUMN - width, "", meaning);
    if (fallback != NULL)
        fprintf(out, " (default: %s)", fallback);
    fputc('\n', out);
}

static void print_client_options(FILE *out)
{
    size_t count;
    const struct lonely_client_option *table = lonely_client_option_table(&count);
    char name[64];

    fputs("\nOptions of the library:\n", out);
    for (size_t i = 0; i < count; i++) {
        cli_option_name(table[i].name, name);
        print_option(out, name + 2, table[i].unit, table[i].meaning, table[i].default_value);
    }
}

static const char exit_codes[] = "\nExit codes: 0 good, 1 failed, 2 wrong arguments or "
                                 "configuration, 3 timed out, 4 refused by\n"
                                 "authorization, 5 no broadcaster reachable. See lonelypsc(1).\n";

void cli_print_command_help(FILE *out, const struct cli_command *command)
{
    fprintf(out, "Usage: lonelypsc %s %s\n\n%s\n", command->name, command->usage, command->meaning);
    if (command->options[0].name != NULL)
        fputs("\nOptions:\n", out);
    for (const struct cli_option *o = command->options; o->name != NULL; o++)
        print_option(out, o->name, o->value, o->meaning, NULL);
    if (command->takes_client_options)
        print_client_options(out);
    fputs(exit_codes, out);
}

void cli_print_help(FILE *out)
{
    fputs(
        "Usage: lonelypsc COMMAND [OPTION]... [ARGUMENT]...\n"
        "       lonelypsc COMMAND --help\n"
        "       lonelypsc --version\n\n"
        "Subscribes to topics of Lonely Pub-Sub broadcasters, and notifies their subscribers.\n\n",
        out);
    for (size_t i = 0; cli_commands[i] != NULL; i++)
        fprintf(out, "  %-12s%s\n", cli_commands[i]->name, cli_commands[i]->meaning);
    fputs(exit_codes, out);
}
