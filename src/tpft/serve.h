/*
 * What main() chooses between.
 */
#ifndef TPFT_SERVE_H
#define TPFT_SERVE_H

#include <sys/types.h>

#include "options.h"

/* Runs a server until SIGINT or SIGTERM. Returns the exit status. */
int serve(const struct options *o, mode_t mode);

/* Transfers the files of a client. Returns the exit status. */
int transfer(const struct options *o, mode_t mode);

#endif
