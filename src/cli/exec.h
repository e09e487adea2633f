/*
 * `--exec`: a command a message, never through a shell.
 */
#ifndef EXEC_H
#define EXEC_H

#include <sys/types.h>

#include "cli.h"

struct exec_child {
    pid_t pid;
    char topic[128]; /* for the diagnostics */
};

struct executor {
    char **words; /* NULL: there is no --exec */
    char *text;   /* what they point into */
    struct exec_child *children;
    size_t max, running;
    bool failed; /* one of them did */
};

/* Splits at blanks; '...' and "..." hold a word together, \ takes the next character as it is. False:
 * complained, also when there is no such program. */
bool executor_init(struct executor *e, const char *command, size_t max);
void executor_fini(struct executor *e);

static inline bool executor_has_room(const struct executor *e)
{
    return e->running < e->max;
}

/* With room: its standard input is the message; LONELY_TOPIC (unless it holds a zero byte),
 * LONELY_TOPIC_HEX (up to 32 KiB of topic), LONELY_SIZE and LONELY_SHA512 are in its environment. False:
 * it cannot be started, complained. */
bool executor_start(struct executor *e, const struct lonely_delivery *d);
/* Tells of those that have ended. */
void executor_reap(struct executor *e);

#endif
