/*
 * What the example programs share: arguments, the line when listening, signals, exit codes.
 */
#ifndef TINYPROTO_PROGRAM_H
#define TINYPROTO_PROGRAM_H

#include <uv.h>

#include <tinyproto/tinyproto.h>

#define PROGRAM_ADDRESSES 16

/* (design of the command lines) */
enum program_exit {
    EXIT_GOOD = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_TIMED_OUT = 3,
    EXIT_UNREACHABLE = 5
};

/* Which options a program takes. */
enum program_takes {
    TAKES_LISTEN = 1,
    TAKES_CONNECT = 2,
    TAKES_LIMIT = 4,
    TAKES_COMMANDS = 8,
    TAKES_QUIT = 16
};

struct program {
    const char *name;
    const char *help; /* after the usage line */
    const char *usage;
    unsigned takes;
};

struct program_args {
    struct tinyproto_address
        addresses[PROGRAM_ADDRESSES]; /* to listen on; the first to connect to */
    size_t n_addresses;
    uint32_t max_connections;
    bool commands;
    bool quit, srvquit;
};

/* -1: go on; else exit with that. */
int program_parse(const struct program *p, int argc, char **argv, struct program_args *out);

/* One line on standard error. */
__attribute__((format(printf, 2, 3))) void program_complain(const struct program *p,
                                                            const char *format, ...);

/* Which status belongs to a connection that ended this way. */
int program_exit_of(enum tinyproto_error err);

/* Runs a server on the addresses of `args` until SIGINT or SIGTERM; `ready tcp HOST:PORT` for each when
 * all of them listen. Returns the exit status. */
int program_serve(const struct program *p, const struct program_args *args,
                  const struct tinyproto_server_hooks *hooks,
                  const struct tinyproto_handler *handler, struct tinyproto_options *options);

#endif
