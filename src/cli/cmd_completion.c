/*
 * `lonelypsc completion`: what bash or zsh must know to complete the command line, made of the tables.
 */
#include <string.h>

#include "commands.h"

static const struct cli_option options[] = {
    { NULL, NULL, NULL },
};

/* ---- bash ---- */

enum value_kind { VALUE_NONE, VALUE_FILE, VALUE_DIR, VALUE_WORDS, VALUE_OTHER };

static enum value_kind kind_of(const char *value)
{
    if (value == NULL)
        return VALUE_NONE;
    if (strcmp(value, "FILE") == 0 || strcmp(value, "path") == 0)
        return VALUE_FILE;
    if (strcmp(value, "DIR") == 0)
        return VALUE_DIR;
    /* Times are no words to choose from. */
    return strchr(value, '|') != NULL && strcmp(value, "ms|s|m|h") != 0 ? VALUE_WORDS : VALUE_OTHER;
}

/* Calls `fn` for each option of a command. */
static void each_option(const struct cli_command *command,
                        void (*fn)(const char *name, const char *value, const char *meaning))
{
    size_t count;
    const struct lonely_client_option *table = lonely_client_option_table(&count);
    char name[64];

    for (const struct cli_option *o = command->options; o->name != NULL; o++)
        fn(o->name, o->value, o->meaning);
    for (size_t i = 0; command->takes_client_options && i < count; i++) {
        cli_option_name(table[i].name, name);
        fn(name + 2, table[i].unit, table[i].meaning);
    }
    fn("help", NULL, "what there is");
}

static void bash_value(const char *name, const char *value, const char *meaning)
{
    (void)meaning;
    switch (kind_of(value)) {
    case VALUE_FILE:
        printf("        --%s) compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); return "
               ";;\n",
               name);
        break;
    case VALUE_DIR:
        printf("        --%s) compopt -o filenames; COMPREPLY=($(compgen -d -- \"$cur\")); return "
               ";;\n",
               name);
        break;
    case VALUE_WORDS:
        printf("        --%s) COMPREPLY=($(compgen -W '", name);
        for (; *value != '\0'; value++)
            putchar(*value == '|' ? ' ' : *value);
        fputs("' -- \"$cur\")); return ;;\n", stdout);
        break;
    case VALUE_OTHER:
        printf("        --%s) return ;;\n", name);
        break;
    case VALUE_NONE:
        break;
    }
}

static void bash_name(const char *name, const char *value, const char *meaning)
{
    (void)value, (void)meaning;
    printf(" --%s", name);
}

static void print_bash_command(const struct cli_command *command)
{
    printf("    %s)\n        case $prev in\n", command->name);
    each_option(command, bash_value);
    fputs("        esac\n        words='", stdout);
    if (command == &cmd_completion)
        fputs("bash zsh", stdout);
    each_option(command, bash_name);
    fputs("' ;;\n", stdout);
}

static void print_bash(void)
{
    fputs("# Completion of lonelypsc(1) for bash; made by `lonelypsc completion bash`.\n"
          "_lonelypsc()\n{\n"
          "    local cur=$2 prev=$3 words\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        COMPREPLY=($(compgen -W '--help --version",
          stdout);
    for (size_t i = 0; cli_commands[i] != NULL; i++)
        printf(" %s", cli_commands[i]->name);
    fputs("' -- \"$cur\"))\n        return\n    fi\n"
          "    # `--name=value` comes as three words.\n"
          "    if [ \"$prev\" = = ]; then\n"
          "        prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
          "    elif [ \"$cur\" = = ]; then\n"
          "        prev=${COMP_WORDS[COMP_CWORD - 1]} cur=\n"
          "    fi\n"
          "    case ${COMP_WORDS[1]} in\n",
          stdout);
    for (size_t i = 0; cli_commands[i] != NULL; i++)
        print_bash_command(cli_commands[i]);
    fputs("    esac\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
          "    if [[ $cur != -* && ${COMP_WORDS[1]} == trace ]]; then\n"
          "        compopt -o filenames\n"
          "        COMPREPLY=($(compgen -f -- \"$cur\"))\n"
          "    fi\n"
          "}\n"
          "complete -F _lonelypsc lonelypsc\n",
          stdout);
}

/* ---- zsh ---- */

/* Inside '...[...]' of _arguments. */
static void print_zsh_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (strchr("[]:\\", *text) != NULL)
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void zsh_option(const char *name, const char *value, const char *meaning)
{
    printf("            '*--%s%s[", name, value != NULL ? "=" : "");
    print_zsh_text(meaning);
    putchar(']');
    if (value != NULL) {
        putchar(':');
        print_zsh_text(value);
        putchar(':');
    }
    switch (kind_of(value)) {
    case VALUE_FILE:
        fputs("_files", stdout);
        break;
    case VALUE_DIR:
        fputs("_files -/", stdout);
        break;
    case VALUE_WORDS:
        putchar('(');
        for (; *value != '\0'; value++)
            putchar(*value == '|' ? ' ' : *value);
        putchar(')');
        break;
    case VALUE_OTHER:
    case VALUE_NONE:
        break;
    }
    fputs("' \\\n", stdout);
}

static void print_zsh(void)
{
    fputs("#compdef lonelypsc\n"
          "# Completion of lonelypsc(1) for zsh; made by `lonelypsc completion zsh`.\n"
          "if (( CURRENT == 2 )); then\n"
          "    local -a commands=(\n",
          stdout);
    for (size_t i = 0; cli_commands[i] != NULL; i++) {
        printf("        '%s:", cli_commands[i]->name);
        print_zsh_text(cli_commands[i]->meaning);
        fputs("'\n", stdout);
    }
    fputs("    )\n    _describe command commands\n    return\nfi\n"
          "local command=$words[2]\n"
          "shift words\n(( CURRENT-- ))\ncase $command in\n",
          stdout);
    for (size_t i = 0; cli_commands[i] != NULL; i++) {
        printf("    %s)\n        _arguments \\\n", cli_commands[i]->name);
        each_option(cli_commands[i], zsh_option);
        if (cli_commands[i] == &cmd_completion)
            fputs("            '1:shell:(bash zsh)' ;;\n", stdout);
        else if (cli_commands[i] == &cmd_trace)
            fputs("            '1:file:_files' ;;\n", stdout);
        else
            fputs("            ;;\n",
                  stdout); /* a message about operands would keep options from being completed */
    }
    fputs("esac\n", stdout);
}

static enum cli_code run(struct cli_args *args)
{
    const char *shell = args->operand_count > 0 ? args->operands[0] : "";

    if (strcmp(shell, "bash") == 0)
        print_bash();
    else if (strcmp(shell, "zsh") == 0)
        print_zsh();
    else
        cli_complain("completion: expected bash or zsh");
    return strcmp(shell, "bash") == 0 || strcmp(shell, "zsh") == 0 ? CLI_GOOD : CLI_USAGE;
}

const struct cli_command cmd_completion = {
    .name = "completion",
    .usage = "bash|zsh",
    .meaning = "Prints what a shell needs to complete the command line.",
    .options = options,
    .max_operands = 1,
    .run = run,
};
