/*
 * Arguments (options.h). What is wrong is told in one line, with status 2.
 */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tinyproto/tinyproto.h>

#include "program.h"
#include "show.h"

#define CHUNK_BYTES      4194304
#define MAX_CONNECTIONS  256
#define CLIENT_TIMEOUT_S 90 /* as the reference */
#define SERVER_TIMEOUT_S 60
#define LONGEST_S        86400

static const char usage[] = "usage: tpft -l HOST[:PORT]... [OPTION]...\n"
                            "       tpft [OPTION]... LOCAL... HOST[:PORT]:REMOTE\n"
                            "       tpft [OPTION]... HOST[:PORT]:REMOTE... LOCAL\n";

static const char help[] =
    "\nTransfers files over TCP, also from and to the Python tool tpft.\n"
    "No authentication, no encryption: listen on loopback, inside SSH or inside a VPN.\n"
    "\n"
    "A server, until SIGINT or SIGTERM; prints `ready tcp HOST:PORT` for each address:\n"
    "  -l, --listen HOST[:PORT]  address to listen on, also [IPV6]:PORT; port 8088, 0 is any\n"
    "                            free one; may be repeated\n"
    "  --root DIR                serve the files below DIR (the current folder) and no others\n"
    "  --read-only               reject every upload\n"
    "  --max-connections N       refuse more than so many at a time (256)\n"
    "\n"
    "A client. An argument with a colon is remote, unless it begins with `/`, `./` or `../`. With\n"
    "several sources, or a remote path that ends in `/`, or a LOCAL that is a folder, files keep\n"
    "their names:\n"
    "  -p, --progress            print `Progress: N%` as the file moves; without it a bar is "
    "shown\n"
    "                            if standard error is a terminal\n"
    "  --chunk-size N            bytes of a transmission of file data, 1 to 4043309055 (4194304);\n"
    "                            of servers too\n"
    "  --checksum                fail unless the receiver found the SHA-256 of the file right\n"
    "  --resume                  go on where a transfer with --resume broke off, and keep what "
    "came\n"
    "                            if this one breaks off; the whole is checked by its SHA-256.\n"
    "                            A server that cannot do that gets all of it\n"
    "\n"
    "Both:\n"
    "  --timeout SECONDS         give up a peer that makes no progress for so long (90, a server "
    "60)\n"
    "  -v, --verbose             say on standard error what happens\n"
    "  -h, --help, --version\n"
    "\n"
    "Exit status: 0 every file is complete at its destination, 1 failed, 2 wrong usage,\n"
    "3 timed out, 5 no server reached.\n";

enum {
    OPT_ROOT = 256,
    OPT_READ_ONLY,
    OPT_MAX_CONNECTIONS,
    OPT_CHUNK,
    OPT_CHECKSUM,
    OPT_RESUME,
    OPT_TIMEOUT,
    OPT_VERSION
};

static const struct option long_options[] = {
    { "listen", required_argument, NULL, 'l' },
    { "verbose", no_argument, NULL, 'v' },
    { "progress", no_argument, NULL, 'p' },
    { "help", no_argument, NULL, 'h' },
    { "root", required_argument, NULL, OPT_ROOT },
    { "read-only", no_argument, NULL, OPT_READ_ONLY },
    { "max-connections", required_argument, NULL, OPT_MAX_CONNECTIONS },
    { "chunk-size", required_argument, NULL, OPT_CHUNK },
    { "checksum", no_argument, NULL, OPT_CHECKSUM },
    { "resume", no_argument, NULL, OPT_RESUME },
    { "timeout", required_argument, NULL, OPT_TIMEOUT },
    { "version", no_argument, NULL, OPT_VERSION },
    { NULL, 0, NULL, 0 },
};

/* ---- Values ---- */

static bool parse_number(const char *text, uint64_t max, uint32_t *out)
{
    size_t len = strlen(text);
    unsigned long long value;

    if (len == 0 || len > 10 || strspn(text, "0123456789") != len)
        return false;
    value = strtoull(text, NULL, 10);
    *out = (uint32_t)value;
    return value >= 1 && value <= max;
}

static int wrong(const char *what, const char *text)
{
    char shown[SHOW_MAX];

    show_line("%s: %s", show_text(text, strlen(text), shown), what);
    return EXIT_USAGE;
}

static int add_listen(struct options *o, const char *text)
{
    if (o->n_listen == OPTIONS_LISTEN_MAX)
        return wrong("too many addresses", text);
    if (!path_parse_address(text, &o->listen[o->n_listen]))
        return wrong("not HOST, HOST:PORT or [IPV6]:PORT", text);
    o->n_listen++;
    return -1;
}

static int say(const char *first, const char *second)
{
    return printf("%s%s", first, second) > 0 && fflush(stdout) == 0 ? EXIT_GOOD : EXIT_FAILED;
}

static int take_number(int option, struct options *o)
{
    if (option == OPT_CHUNK)
        return parse_number(optarg, TINYPROTO_MESSAGE_MAX, &o->chunk_bytes)
                   ? -1
                   : wrong("not a chunk size from 1 to 4043309055", optarg);
    if (option == OPT_TIMEOUT)
        return parse_number(optarg, LONGEST_S, &o->timeout_s)
                   ? -1
                   : wrong("not a number of seconds from 1 to 86400", optarg);
    return parse_number(optarg, 1000000, &o->max_connections)
               ? -1
               : wrong("not a number of connections from 1 to 1000000", optarg);
}

static int take(int option, struct options *o)
{
    switch (option) {
    case 'l':
        return add_listen(o, optarg);
    case 'v':
        o->is_verbose = true;
        return -1;
    case 'p':
        o->shows_progress = true;
        return -1;
    case 'h':
        return say(usage, help);
    case OPT_VERSION:
        return say("tpft ", LONELY_VERSION "\n");
    case OPT_ROOT:
        o->root = optarg;
        return -1;
    case OPT_READ_ONLY:
        o->is_read_only = true;
        return -1;
    case OPT_CHECKSUM:
        o->wants_checksum = true;
        return -1;
    case OPT_RESUME:
        o->wants_resume = true;
        return -1;
    case OPT_CHUNK:
    case OPT_MAX_CONNECTIONS:
    case OPT_TIMEOUT:
        return take_number(option, o);
    default: /* getopt has said what is wrong */
        (void)fputs(usage, stderr);
        return EXIT_USAGE;
    }
}

/* ---- Paths ---- */

static int check_source(struct options *o, const char *source)
{
    struct path_remote remote;

    if (path_is_remote(source) == o->is_upload)
        return wrong(o->is_upload ? "the source and the destination are both remote"
                                  : "the source and the destination are both local",
                     source);
    if (o->is_upload)
        return *path_name(source) != '\0' ? -1 : wrong("not the name of a file", source);
    if (!path_parse_remote(source, &remote))
        return wrong("not HOST:PATH or HOST:PORT:PATH", source);
    if (o->server.host[0] != '\0' &&
        (strcmp(o->server.host, remote.host) != 0 || o->server.port != remote.port))
        return wrong("the sources are on different servers", source);
    o->server = remote;
    return *path_name(remote.path) != '\0' ? -1 : wrong("not the name of a file", source);
}

static int check_paths(struct options *o, char **paths, size_t n)
{
    const char *destination;
    int code = -1;

    if (n < 2) {
        (void)fputs(usage, stderr);
        return EXIT_USAGE;
    }
    o->paths = paths;
    o->n_sources = n - 1;
    destination = paths[n - 1];
    o->is_upload = path_is_remote(destination);
    if (o->is_upload && !path_parse_remote(destination, &o->server))
        return wrong("not HOST:PATH or HOST:PORT:PATH", destination);
    if (destination[0] == '\0')
        return wrong("not a path", "''");
    for (size_t i = 0; i < o->n_sources && code < 0; i++)
        code = check_source(o, paths[i]);
    return code;
}

int options_parse(struct options *o, int argc, char **argv)
{
    int option, code = -1;

    *o = (struct options){ .root = ".",
                           .chunk_bytes = CHUNK_BYTES,
                           .max_connections = MAX_CONNECTIONS };
    while (code < 0 && (option = getopt_long(argc, argv, "l:vph", long_options, NULL)) != -1)
        code = take(option, o);
    if (code >= 0)
        return code;
    if (o->timeout_s == 0)
        o->timeout_s = o->n_listen > 0 ? SERVER_TIMEOUT_S : CLIENT_TIMEOUT_S;
    if (o->n_listen == 0)
        return check_paths(o, argv + optind, (size_t)(argc - optind));
    return optind == argc ? -1 : wrong("a server takes no paths", argv[optind]);
}
