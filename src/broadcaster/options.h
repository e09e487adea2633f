/*
 * The command line of lonelypss. Called by main.c, which only runs what comes out.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "conf.h"

enum options_action {
    OPTIONS_RUN, /* start with `conf` */
    OPTIONS_CHECK, /* --check-config: `conf` is good; look at the rest that can be looked at, and end */
    OPTIONS_EXIT /* all is done or said: end with `exit_code` */
};

struct options {
    struct conf conf; /* read and checked; not after OPTIONS_EXIT */
    int exit_code;
    const char *config; /* the file that was read: borrowed; NULL: none */
    const char *mount;  /* as in struct conf; NULL: none */
    char **assignments; /* --set and --listen, for options_read_again */
    size_t n_assignments;
};

/*
 * Reads the command line, the configuration file and what wins over it; does --setup, --help and
 * --version itself. Errors are one line on `err`; what was asked for goes to `out`. argv must
 * outlive `o`. `o` is to be given to options_fini whatever comes back.
 */
enum options_action options_parse(int argc, char **argv, FILE *out, FILE *err, struct options *o);

/* One more that wins over the file: prefix + text, "section.key=value". Copied. */
void options_assign(struct options *o, const char *prefix, const char *text);

/* Reads the file, and what wins over it, and checks the whole. `c` is filled here and is the caller's to
 * conf_fini when true is returned; on failure nothing is to be freed. */
bool options_read(const struct options *o, struct conf *c, struct conf_error *error);

/* Reads the same file again, under the same --set and --listen (SIGHUP); what is no regular file, such as
 * a pipe, cannot be. Else as options_read. */
bool options_read_again(const struct options *o, struct conf *c, struct conf_error *error);

void options_fini(struct options *o);

#endif
