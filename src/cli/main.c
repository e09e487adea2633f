/*
 * lonelypsc: subscribes, notifies and checks from the shell. The table of its commands; what they do is
 * in cmd_<name>.c.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "commands.h"

const struct cli_command *const cli_commands[] = {
    &cmd_subscribe, &cmd_notify, &cmd_check, &cmd_trace, &cmd_bench, &cmd_completion, NULL,
};

static const struct cli_command *find(const char *name)
{
    for (size_t i = 0; cli_commands[i] != NULL; i++) {
        if (strcmp(cli_commands[i]->name, name) == 0)
            return cli_commands[i];
    }
    return NULL;
}

/* `--help` anywhere before `--`; a value of that text is written --name=--help. */
static bool asks_for_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0)
            return true;
    }
    return false;
}

static enum cli_code run(const struct cli_command *command, int argc, char **argv)
{
    struct cli_args args;
    enum cli_code code = CLI_USAGE;

    if (asks_for_help(argc, argv)) {
        cli_print_command_help(stdout, command);
        return CLI_GOOD;
    }
    if (cli_args_init(&args, command, argc, argv))
        code = command->run(&args);
    cli_args_fini(&args);
    return code;
}

static enum cli_code run_line(int argc, char **argv)
{
    const struct cli_command *command = argc > 1 ? find(argv[1]) : NULL;

    if (command != NULL)
        return run(command, argc - 2, argv + 2);
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("lonelypsc %s\n", LONELY_VERSION);
        return CLI_GOOD;
    }
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)) {
        cli_print_help(stdout);
        return CLI_GOOD;
    }
    if (argc > 1)
        cli_complain("%s: there is no such command; see lonelypsc --help", argv[1]);
    else
        cli_complain("a command is needed; see lonelypsc --help");
    return CLI_USAGE;
}

/* Whoever was started without one of the three must not get a socket or a database in its place. They are
 * open the wrong way round: using them fails, as it would without. */
static bool open_missing(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    enum cli_code code;

    if (!open_missing())
        return CLI_FAILED;
    code = run_line(argc, argv);
    return code == CLI_GOOD && !cli_flush() ? CLI_FAILED : (int)code; /* else it was told before */
}
