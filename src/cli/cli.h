/*
 * What the commands of lonelypsc have in common: their tables, the command line, exit codes and
 * diagnostics. A command is a `struct cli_command` in a file cmd_<name>.c, listed in main.c; its long
 * options and those of the library (lonely_client_option_table) make the parser, --help and the
 * completion alike.
 */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <lonely/client.h>

enum cli_code {
    CLI_GOOD,
    CLI_FAILED,      /* the machine, a port, a disk; or the broadcaster refused */
    CLI_USAGE,       /* anything wrong in arguments or configuration */
    CLI_TIMED_OUT,   /* --timeout is over */
    CLI_FORBIDDEN,   /* refused by authorization */
    CLI_UNREACHABLE, /* no broadcaster reached */
};

struct cli_option {
    const char *name;
    /* NULL: takes none. FILE, DIR and a|b|c are completed; what else it says is for --help. */
    const char *value;
    const char *meaning;
};

struct cli_args;

struct cli_command {
    const char *name;
    const char *usage; /* behind the name */
    const char *meaning;
    const struct cli_option *options; /* its own; `name` NULL ends them */
    bool takes_client_options;
    size_t max_operands;
    enum cli_code (*run)(struct cli_args *args);
};

/* Ended by NULL. */
extern const struct cli_command *const cli_commands[];

/* One option as it was given. */
struct cli_given {
    const char *name;  /* with `-` */
    const char *value; /* NULL: takes none */
    bool of_client;
};

struct cli_args {
    const struct cli_command *command;
    struct lonely_client_options *options; /* as the command line says, once it is parsed */
    struct cli_given *given;
    size_t given_count;
    const char **operands;
    size_t operand_count;
};

/* Parses what follows the command's name, complains, and sets what is of the library. */
bool cli_args_init(struct cli_args *args, const struct cli_command *command, int argc, char **argv);
void cli_args_fini(struct cli_args *args);

/* The last value of an option ("" for one that takes none), NULL: not given. */
const char *cli_value(const struct cli_args *args, const char *name);
/* Each value of an option in its turn; `*at` begins at 0. NULL: that was all. */
const char *cli_next_value(const struct cli_args *args, const char *name, size_t *at);
/* The same for --broadcaster, with the scheme of --transport; the caller frees it. */
char *cli_next_broadcaster(const struct cli_args *args, size_t *at);
/* From now on `options` has this one alone, and no cli_default. False: complained. */
bool cli_only_broadcaster(struct cli_args *args, const char *url);
/* Sets an option of the library, named with `_`, unless it was given. */
void cli_default(struct cli_args *args, const char *name, const char *value);

/* Numbers; `*out` is left alone when the option was not given. False: complained. */
bool cli_number(const struct cli_args *args, const char *name, uint64_t min, uint64_t max,
                uint64_t *out);
bool cli_seconds(const struct cli_args *args, const char *name, int64_t *out_ms);
/* One of the words of "a|b|c": its place; `fallback` when not given, -1: complained. */
int cli_choice(const struct cli_args *args, const char *name, const char *words, int fallback);
/* Hexadecimal digits, two a byte, whose bytes the caller frees with mem_free. False: complained. */
bool cli_hex(const char *name, const char *digits, struct lonely_span *out);

/* Is it one of the words of "a|b|c"? Its place, or -1. */
int cli_word_index(const char *words, const char *word, size_t len);

/* One line on standard error, control characters escaped. */
__attribute__((format(printf, 1, 2))) void cli_complain(const char *format, ...);

/* Opens the client; complains. NULL: `*code` says what to end with. */
struct lonely_client *cli_open(const struct cli_args *args, enum cli_code *code);
/* What a command ends with for an error of the library, and a line that says why. `what` failed. */
enum cli_code cli_explain(struct lonely_client *c, enum lonely_client_error err, const char *what);
enum cli_code cli_code_of(struct lonely_client *c, enum lonely_client_error err);

void cli_print_help(FILE *out);
void cli_print_command_help(FILE *out, const struct cli_command *command);
/* "--max-frame" of "max_frame". */
void cli_option_name(const char *name, char out[64]);

/* Writes out what standard output holds; complains. */
bool cli_flush(void);

#endif
