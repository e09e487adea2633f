/*
 * Input of any size as a regular file.
 */
#ifndef SPOOL_H
#define SPOOL_H

#include "cli.h"
#include "waiter.h"

/* A descriptor that can be read at any offset, of what is left of `fd` from its present offset: itself
 * when it is a regular file, else a copy without a name in the spool folder, and `fd` is closed. -1:
 * complained, or the waiter is stopped or timed out. */
int spool_fd(const struct cli_args *args, struct waiter *w, int fd, const char *name);

#endif
