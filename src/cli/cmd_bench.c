/*
 * lonelypsc bench: loads a broadcaster, and says how fast it was. The command line of bench.h.
 */
#include <string.h>

#include "bench.h"
#include "cli.h"
#include "commands.h"

static const struct cli_option options[] = {
    { "transport", "http|ws|tcp", "whatever the URL of --broadcaster begins with" },
    { "publishers", "N", "connections that publish (1)" },
    { "subscribers", "N", "connections that are subscribed (1)" },
    { "idle", "N", "connections that do nothing (0)" },
    { "topic", "TOPIC", "of the messages (lonely/bench)" },
    { "size", "BYTES", "of a message (128)" },
    { "part-size", "BYTES", "larger messages are sent in parts (1048576)" },
    { "window", "N", "messages not confirmed, or not delivered to all, at most (128)" },
    { "batch", "N", "messages in one write (16)" },
    { "rate", "N", "messages a second, in all; else as many as get through" },
    { "messages", "N", "end after so many were sent" },
    { "expect", "N", "end after so many were delivered" },
    { "seconds", "S", "end after so long (5)" },
    { "library", NULL, "through the library, as programs do; always so over HTTP and TLS" },
    { "json", NULL, "a line of JSON, behind one that says that all connections stand" },
    { NULL, NULL, NULL },
};

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* "http", "ws" or "tcp", with or without TLS. */
static const char *transport_of(const struct cli_args *args, const char *url)
{
    const char *given = cli_value(args, "transport");

    if (given != NULL)
        return given;
    return begins(url, "http") ? "http" : begins(url, "ws") ? "ws" : "tcp";
}

/* On bare sockets where that is possible. */
static bool set_broadcaster(struct cli_args *args, struct bench_settings *set)
{
    const char *url = cli_value(args, "broadcaster");
    const char *host = url != NULL ? strstr(url, "://") : NULL, *transport;
    bool has_tls;

    if (host == NULL || host == url) {
        cli_complain("a broadcaster is needed: --broadcaster ws://HOST:PORT");
        return false;
    }
    transport = transport_of(args, url);
    has_tls = host[-1] == 's' && !begins(url, "ws:");
    set->receives_posts = strcmp(transport, "http") == 0;
    if (has_tls || set->receives_posts || cli_value(args, "library") != NULL)
        set->options = args->options;
    if (set->receives_posts)
        cli_default(args, "bind", "127.0.0.1:0");
    set->wire = strcmp(transport, "ws") == 0 ? &bench_websocket : &bench_tcp;
    if (bench_set_address(set, host + 3, set->wire == &bench_websocket ? "3003" : "3004"))
        return true;
    cli_complain("--broadcaster %s: no HOST:PORT", url);
    return false;
}

static bool set_own(const struct cli_args *args, struct bench_settings *set)
{
    for (size_t i = 0; i < args->given_count; i++) {
        const struct cli_given *g = &args->given[i];

        if (g->of_client || g->value[0] == '\0' || strcmp(g->name, "transport") == 0 ||
            bench_set(set, g->name, g->value))
            continue;
        cli_complain("--%s %s: not such a value", g->name, g->value);
        return false;
    }
    if (set->options == NULL || (set->idle == 0 && set->size <= BENCH_LIBRARY_SIZE_MAX))
        return true;
    cli_complain("through the library there is neither --idle nor a --size above 1 GiB");
    return false;
}

static enum cli_code run(struct cli_args *args)
{
    struct bench_settings set = bench_defaults;
    struct bench_results results = { 0 };

    set.json = cli_value(args, "json") != NULL;
    set.secrets = cli_value(args, "secrets");
    if (!set_broadcaster(args, &set) || !set_own(args, &set))
        return CLI_USAGE;
    if (bench_run(&set, &results))
        return CLI_GOOD;
    cli_complain("bench: %s", results.error);
    return results.unreachable ? CLI_UNREACHABLE : CLI_FAILED;
}

const struct cli_command cmd_bench = {
    .name = "bench",
    .usage = "--broadcaster URL [OPTION]...",
    .meaning =
        "Loads a broadcaster: so many publish, so many are subscribed. Prints rates, and the "
        "times from publishing to delivery.",
    .options = options,
    .takes_client_options = true,
    .run = run,
};
