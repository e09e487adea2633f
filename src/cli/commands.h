/*
 * The commands, each in cmd_<name>.c.
 */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "cli.h"

extern const struct cli_command cmd_subscribe, cmd_notify, cmd_check, cmd_trace, cmd_bench,
    cmd_completion;

#endif
