/*
 * What the example programs share (program.h).
 */
#include "program.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Arguments ---- */

static const struct option options[] = {
    { "listen", required_argument, NULL, 'l' },
    { "connect", required_argument, NULL, 'c' },
    { "max-connections", required_argument, NULL, 'm' },
    { "commands", no_argument, NULL, 'o' },
    { "quit", no_argument, NULL, 'q' },
    { "srvquit", no_argument, NULL, 's' },
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'v' },
    { NULL, 0, NULL, 0 },
};

void program_complain(const struct program *p, const char *format, ...)
{
    char line[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    (void)fprintf(stderr, "%s: %s\n", p->name, line);
}

static int usage(const struct program *p)
{
    (void)fprintf(stderr, "usage: %s %s\n", p->name, p->usage);
    return EXIT_USAGE;
}

static int show_help(const struct program *p)
{
    (void)printf("usage: %s %s\n\n%s", p->name, p->usage, p->help);
    return fflush(stdout) == 0 ? EXIT_GOOD : EXIT_FAILED;
}

static int add_address(const struct program *p, const char *text, struct program_args *out)
{
    if (out->n_addresses == PROGRAM_ADDRESSES) {
        program_complain(p, "more than %d addresses", PROGRAM_ADDRESSES);
        return EXIT_USAGE;
    }
    if (tinyproto_address_parse(text, &out->addresses[out->n_addresses]) != TINYPROTO_OK) {
        program_complain(p, "%.200s: not HOST:PORT, [IPV6]:PORT or unix:PATH", text);
        return EXIT_USAGE;
    }
    out->n_addresses++;
    return -1;
}

static int set_limit(const struct program *p, const char *text, struct program_args *out)
{
    size_t len = strlen(text);

    if (len == 0 || len > 9 || strspn(text, "0123456789") != len || atol(text) == 0) {
        program_complain(p, "--max-connections %.200s: not a number from 1 to 999999999", text);
        return EXIT_USAGE;
    }
    out->max_connections = (uint32_t)atol(text);
    return -1;
}

static unsigned taken_by(int option)
{
    switch (option) {
    case 'l':
        return TAKES_LISTEN;
    case 'c':
        return TAKES_CONNECT;
    case 'm':
        return TAKES_LIMIT;
    case 'o':
        return TAKES_COMMANDS;
    default:
        return TAKES_QUIT;
    }
}

static int take_option(const struct program *p, int option, struct program_args *out)
{
    switch (option) {
    case 'l':
    case 'c':
        return add_address(p, optarg, out);
    case 'm':
        return set_limit(p, optarg, out);
    case 'o':
        out->commands = true;
        return -1;
    case 'q':
        out->quit = true;
        return -1;
    default:
        out->srvquit = true;
        return -1;
    }
}

int program_parse(const struct program *p, int argc, char **argv, struct program_args *out)
{
    int option, code = -1;

    memset(out, 0, sizeof(*out));
    while (code < 0 && (option = getopt_long(argc, argv, "hl:c:", options, NULL)) != -1) {
        if (option == '?')
            return usage(p); /* getopt has said what is wrong */
        if (option == 'h')
            return show_help(p);
        if (option == 'v')
            return printf("%s %s\n", p->name, LONELY_VERSION) > 0 && fflush(stdout) == 0
                       ? EXIT_GOOD
                       : EXIT_FAILED;
        if ((p->takes & taken_by(option)) == 0)
            return usage(p);
        code = take_option(p, option, out);
    }
    if (code < 0 && optind < argc) {
        program_complain(p, "what is %.200s?", argv[optind]);
        return usage(p);
    }
    if (code < 0 &&
        (out->n_addresses == 0 || ((p->takes & TAKES_CONNECT) != 0 && out->n_addresses > 1)))
        return usage(p);
    return code;
}

int program_exit_of(enum tinyproto_error err)
{
    if (err == TINYPROTO_OK)
        return EXIT_GOOD;
    if (err == TINYPROTO_E_TIMEOUT)
        return EXIT_TIMED_OUT;
    if (err == TINYPROTO_E_CONNECT || err == TINYPROTO_E_RESOLVE)
        return EXIT_UNREACHABLE;
    return EXIT_FAILED;
}

/* ---- Servers ---- */

struct serving {
    struct tinyproto_server *server;
    uv_signal_t signals[2];
};

static void on_signal(uv_signal_t *handle, int number)
{
    struct serving *s = handle->data;

    (void)number;
    tinyproto_server_stop(s->server);
}

static bool say_ready(const struct program_args *args, const struct tinyproto_server *server)
{
    for (size_t i = 0; i < args->n_addresses; i++) {
        const char *bound = tinyproto_server_addr(server, i);

        if (args->addresses[i].is_unix)
            (void)printf("ready unix %s\n", args->addresses[i].host);
        else
            (void)printf("ready tcp %s\n", bound);
    }
    return fflush(stdout) == 0;
}

static void watch_signals(struct serving *s, uv_loop_t *loop)
{
    static const int numbers[] = { SIGINT, SIGTERM };

    (void)signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < 2; i++) {
        (void)uv_signal_init(loop, &s->signals[i]);
        s->signals[i].data = s;
        (void)uv_signal_start(&s->signals[i], on_signal, numbers[i]);
        uv_unref((uv_handle_t *)&s->signals[i]); /* the server keeps the loop going */
    }
}

static int run(const struct program *p, const struct program_args *args, struct serving *s,
               uv_loop_t *loop)
{
    struct tinyproto_cause why;

    for (size_t i = 0; i < args->n_addresses; i++)
        (void)tinyproto_server_add_address(s->server, &args->addresses[i]);
    why = tinyproto_server_start(s->server);
    if (why.err != TINYPROTO_OK) {
        program_complain(p, "%s", tinyproto_server_error(s->server));
        return EXIT_FAILED;
    }
    watch_signals(s, loop);
    if (!say_ready(args, s->server))
        tinyproto_server_stop(s->server); /* nobody will learn where it listens */
    (void)uv_run(loop, UV_RUN_DEFAULT);
    for (size_t i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&s->signals[i], NULL);
    (void)uv_run(loop, UV_RUN_DEFAULT);
    return EXIT_GOOD;
}

int program_serve(const struct program *p, const struct program_args *args,
                  const struct tinyproto_server_hooks *hooks,
                  const struct tinyproto_handler *handler, struct tinyproto_options *server_options)
{
    struct serving s;
    uv_loop_t loop;
    int code;

    server_options->connection_limit = args->max_connections;
    if (uv_loop_init(&loop) != 0) {
        program_complain(p, "cannot make an event loop");
        return EXIT_FAILED;
    }
    if (tinyproto_server_new(hooks, server_options, &loop, &s.server) != TINYPROTO_OK) {
        program_complain(p, "cannot make a server");
        (void)uv_loop_close(&loop);
        return EXIT_FAILED;
    }
    tinyproto_server_set_handler(s.server, handler);
    code = run(p, args, &s, &loop);
    tinyproto_server_free(s.server);
    (void)uv_loop_close(&loop);
    return code;
}
