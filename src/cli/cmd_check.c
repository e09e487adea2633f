/*
 * `lonelypsc check`: which of address, TLS, clock, secret and reachability is wrong, asked from the
 * bottom up: what is below must be right before what is above can be judged.
 */
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>

#include "clock.h"
#include "commands.h"
#include "mem.h"
#include "probe.h"
#include "waiter.h"

#define LOOK_MS             10
#define TOLERATED_S         120.0 /* macs of other times are refused (doc/protocol/auth.md, 3) */
#define DEFAULT_PATIENCE_MS 10000

static const struct cli_option options[] = {
    { "transport", "http|ws|tcp", "whatever the URL of --broadcaster begins with" },
    { "timeout", "SECONDS", "for each answer that is waited for (default: 10)" },
    { NULL, NULL, NULL },
};

struct check {
    struct cli_args *args;
    struct waiter waiter;
    const char *url;
    bool http;
    int64_t patience_ms;
    enum cli_code code; /* the first that was wrong */
    struct probe probe;
    struct lonely_client *client;
    struct lonely_subscription *subscription;
    char topic[64];
    /* Of the notify, from the library's thread; `done` last: */
    enum lonely_client_error err;
    uint64_t notified;
    atomic_bool done;
};

/* ---- What is said ---- */

__attribute__((format(printf, 3, 4))) static void say(const char *name, const char *verdict,
                                                      const char *format, ...)
{
    va_list args;

    printf("  %-8s  %-5s  ", name, verdict);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

static bool wrong(struct check *k, enum cli_code code)
{
    if (k->code == CLI_GOOD)
        k->code = code;
    return false;
}

/* ---- Address, TLS, clock ---- */

static bool check_address(struct check *k)
{
    const char *peer = k->probe.peer;

    switch (k->probe.result) {
    case PROBE_ADDRESS:
        say("address", "WRONG", "%s; is the broadcaster running, is --broadcaster right?",
            k->probe.why);
        return wrong(k, CLI_UNREACHABLE);
    case PROBE_PROTOCOL:
        say("address", "WRONG", "%s: %s; is it TLS (https, wss), or TCP (tcp), or no broadcaster?",
            peer, k->probe.why);
        return wrong(k, CLI_UNREACHABLE);
    case PROBE_GOOD:
    case PROBE_TLS:
        break;
    }
    say("address", "ok", "%s", peer);
    return true;
}

static bool check_tls(struct check *k)
{
    const char *colon = strchr(k->url, ':');

    if (k->probe.result == PROBE_TLS) {
        say("tls", "WRONG", "%s; see --ca, --cert and --key", k->probe.why);
        return wrong(k, CLI_UNREACHABLE);
    }
    if (colon[-1] == 's' && strncmp(k->url, "ws:", 3) != 0)
        say("tls", "ok", "the certificate is trusted");
    else
        say("tls", "-", "not used");
    return true;
}

static bool clock_is_wrong(const struct check *k)
{
    return k->probe.has_clock && fabs(k->probe.ahead_s) > TOLERATED_S - 1;
}

static void check_clock(struct check *k)
{
    double ahead_s = k->probe.ahead_s;

    if (!k->probe.has_clock) {
        say("clock", "-", "the broadcaster does not tell its time");
    } else if (clock_is_wrong(k)) {
        say("clock", "WRONG", "%.0f seconds %s the broadcaster's; more than 120 are refused",
            fabs(ahead_s), ahead_s > 0 ? "ahead of" : "behind");
        wrong(k, CLI_FORBIDDEN);
    } else {
        say("clock", "ok", "%.0f seconds %s the broadcaster's", fabs(ahead_s),
            ahead_s > 0 ? "ahead of" : "behind");
    }
}

static const char *unless_none(const char *value)
{
    return value != NULL && strcmp(value, "none") != 0 ? value : NULL;
}

static bool is_stopped(void *arg)
{
    struct check *k = arg;

    waiter_wait(&k->waiter, -1, 0);
    return k->waiter.stopped;
}

static void run_probe(struct check *k)
{
    const struct probe_conf conf = {
        .url = k->url,
        .ca = unless_none(cli_value(k->args, "ca")),
        .cert = unless_none(cli_value(k->args, "cert")),
        .key = unless_none(cli_value(k->args, "key")),
        .proxy = unless_none(cli_value(k->args, "proxy")),
        .timeout_ms = k->patience_ms,
        .is_stopped = is_stopped,
        .arg = k,
    };

    probe_run(&conf, &k->probe);
}

/* ---- Waiting ---- */

/* False: not in time, or a signal came. */
static bool until(struct check *k, bool (*ready)(struct check *k))
{
    uint64_t end_ms = clock_mono_ms(&clock_system) + (uint64_t)k->patience_ms;

    while (!ready(k)) {
        if (k->waiter.stopped || clock_mono_ms(&clock_system) >= end_ms)
            return false;
        waiter_wait(&k->waiter, -1, LOOK_MS);
    }
    return true;
}

static bool is_settled(struct check *k)
{
    return lonely_client_status(k->client) != LONELY_CLIENT_LOST;
}

static bool is_done(struct check *k)
{
    return atomic_load(&k->done);
}

static bool has_come(struct check *k)
{
    struct lonely_delivery *d;

    if (lonely_subscription_next(k->subscription, 0, &d) != LONELY_CLIENT_OK)
        return false;
    lonely_delivery_release(d);
    return true;
}

/* ---- Secret ---- */

static void on_done(void *arg, enum lonely_client_error err, uint64_t notified)
{
    struct check *k = arg;

    k->err = err;
    k->notified = notified;
    atomic_store(&k->done, true);
    waiter_wake(&k->waiter);
}

/* A message on a topic that nobody else has. */
static enum lonely_client_error notify(struct check *k)
{
    struct lonely_notify n;
    enum lonely_client_error err;

    lonely_notify_init(&n);
    n.topic = (struct lonely_span){ (const uint8_t *)k->topic, strlen(k->topic) };
    n.bytes = (struct lonely_span){ (const uint8_t *)"check", 5 };
    atomic_store(&k->done, false);
    err = lonely_client_notify_start(k->client, &n, on_done, k);
    if (err != LONELY_CLIENT_OK)
        return err;
    return until(k, is_done) ? k->err : LONELY_CLIENT_TIMED_OUT;
}

static const char *last_why(struct check *k)
{
    static struct lonely_client_why why; /* for the one line that is being printed */

    lonely_client_last_error(k->client, &why);
    return why.text;
}

static bool check_secret(struct check *k)
{
    enum lonely_client_error err;
    enum cli_code code;

    if (!until(k, is_settled))
        err = LONELY_CLIENT_TIMED_OUT;
    else
        err = notify(k);
    if (err == LONELY_CLIENT_OK) {
        say("secret", "ok", "%s",
            cli_value(k->args, "secrets") != NULL ? "accepted" : "none is needed");
        return true;
    }
    code = cli_code_of(k->client, err);
    if (code == CLI_FORBIDDEN && clock_is_wrong(k))
        say("secret", "-", "cannot be told while the clock is wrong");
    else if (code == CLI_FORBIDDEN)
        say("secret", "WRONG", "refused (%s); see --secrets%s", last_why(k),
            k->probe.has_clock ? "" : ", and compare the clocks");
    else
        say("secret", "?", "cannot be told: %s (%s)", lonely_client_error_str(err), last_why(k));
    return wrong(k, code);
}

/* ---- There and back ---- */

static bool is_entered(struct check *k)
{
    struct lonely_delivery *d;
    enum lonely_client_error err;

    if (lonely_client_status(k->client) == LONELY_CLIENT_LOST)
        return false;
    err = lonely_subscription_next(k->subscription, 0, &d);
    k->err = err == LONELY_CLIENT_TIMED_OUT ? LONELY_CLIENT_OK : err;
    return true;
}

static enum lonely_client_error subscribe(struct check *k)
{
    const struct lonely_span topic = { (const uint8_t *)k->topic, strlen(k->topic) };
    const struct lonely_span nobody = { (const uint8_t *)"", 0 };
    enum lonely_client_error err = lonely_subscription_create(k->client, NULL, &k->subscription);

    if (err == LONELY_CLIENT_OK)
        err = lonely_subscription_add_exact(k->subscription, topic, 0);
    if (err == LONELY_CLIENT_OK)
        err = lonely_subscription_enter(k->subscription, 0);
    if (err != LONELY_CLIENT_OK)
        return err;
    /* Done after what was asked before, and does nothing. */
    (void)lonely_subscription_remove_glob(k->subscription, nobody, -1);
    if (!until(k, is_entered))
        return LONELY_CLIENT_TIMED_OUT;
    return k->err == LONELY_CLIENT_STATE ? lonely_client_last_error(k->client, NULL) : k->err;
}

static void not_delivered(struct check *k, const char *name, enum lonely_client_error why)
{
    const char *url = lonely_client_url(k->client);

    if (!k->http)
        say(name, "WRONG", "a message to ourselves did not come back");
    else if (why == LONELY_CLIENT_FORBIDDEN)
        say(name, "WRONG", "reached at %s, but %s; see --secrets", url, last_why(k));
    else
        say(name, "WRONG", "the broadcaster cannot post to %s; see --host and --bind", url);
    wrong(k, k->http && why == LONELY_CLIENT_FORBIDDEN ? CLI_FORBIDDEN : CLI_FAILED);
}

static void check_delivery(struct check *k)
{
    const char *name = k->http ? "host" : "delivery";
    enum lonely_client_error err = subscribe(k);
    uint64_t began_ms;

    if (err != LONELY_CLIENT_OK) {
        say(name, "WRONG", "cannot subscribe: %s (%s)", lonely_client_error_str(err), last_why(k));
        wrong(k, cli_code_of(k->client, err));
        return;
    }
    began_ms = clock_mono_ms(&clock_system);
    err = notify(k);
    if (err == LONELY_CLIENT_OK && k->notified > 0 && until(k, has_come)) {
        say(name, "ok", "%s%sa message to ourselves came back in %llu ms",
            k->http ? lonely_client_url(k->client) : "", k->http ? ": " : "",
            (unsigned long long)(clock_mono_ms(&clock_system) - began_ms));
        return;
    }
    not_delivered(k, name, lonely_client_last_error(k->client, NULL));
}

/* ---- One broadcaster ---- */

/* Whoever gave neither --bind nor --host asks about the broadcaster; 3002 may be in use. */
static void set_defaults(struct cli_args *args)
{
    if (cli_value(args, "host") == NULL)
        cli_default(args, "bind", "127.0.0.1:0");
    cli_default(args, "outgoing_initial_connect_retries", "0");
    cli_default(args, "outgoing_retries_per_broadcaster", "1");
}

static void make_topic(struct check *k)
{
    uint64_t number[2] = { 0, clock_mono_ns(&clock_system) };
    ssize_t ignored = getrandom(number, sizeof(number), 0);

    (void)ignored;
    snprintf(k->topic, sizeof(k->topic), "lonelypsc-check/%016llx%016llx",
             (unsigned long long)number[0], (unsigned long long)number[1]);
}

static void check_library(struct check *k)
{
    enum cli_code code;

    set_defaults(k->args);
    k->client = cli_open(k->args, &code);
    if (k->client == NULL) {
        wrong(k, code);
        return;
    }
    k->waiter.client = k->client;
    if (check_secret(k) && !(k->http && lonely_client_url(k->client) == NULL))
        check_delivery(k);
    lonely_subscription_destroy(k->subscription);
    lonely_client_close(k->client);
    k->client = k->waiter.client = NULL;
    k->subscription = NULL;
}

static void check_one(struct check *k)
{
    k->http = strncmp(k->url, "http", 4) == 0;
    make_topic(k);
    printf("%s\n", k->url);
    run_probe(k);
    if (k->waiter.stopped || !check_address(k) || !check_tls(k))
        return;
    check_clock(k);
    check_library(k);
}

static enum cli_code run_all(struct check *k)
{
    char *url;

    for (size_t at = 0; !k->waiter.stopped && (url = cli_next_broadcaster(k->args, &at)) != NULL;) {
        bool good = cli_only_broadcaster(k->args, url);

        url[strcspn(url, " ")] = '\0'; /* without its priority */
        k->url = url;
        if (good)
            check_one(k);
        mem_free(url);
    }
    if (!k->waiter.stopped)
        return k->code;
    cli_complain("interrupted");
    return CLI_FAILED;
}

static enum cli_code run(struct cli_args *args)
{
    struct check k = { .args = args, .patience_ms = DEFAULT_PATIENCE_MS };

    if (!cli_seconds(args, "timeout", &k.patience_ms))
        return CLI_USAGE;
    if (k.patience_ms == 0)
        k.patience_ms = 1;
    if (!waiter_init(&k.waiter, -1))
        return CLI_FAILED;
    k.code = run_all(&k);
    waiter_fini(&k.waiter);
    return k.code;
}

const struct cli_command cmd_check = {
    .name = "check",
    .usage = "--broadcaster URL... [OPTION]...",
    .meaning = "Says what is wrong: address, TLS, clock, secret, or the way back to --host.",
    .options = options,
    .takes_client_options = true,
    .run = run,
};
