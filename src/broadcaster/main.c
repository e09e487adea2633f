/*
 * lonelypss: starts the broadcaster, waits for signals, stops it. No logic lives here.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "admin.h"
#include "broadcaster.h"
#include "options.h"
#include "secrets.h"

/* Exit codes: the machine, a port or the database failed; anything wrong in arguments or
 * configuration. */
enum { EXIT_MACHINE = 1, EXIT_CONFIGURATION = 2 };

/* How often the end of the workers is looked for while a second signal is waited for. */
#define END_POLL_NS 20000000L

static int fail(int code, const char *text)
{
    fprintf(stderr, "lonelypss: %s\n", text);
    return code;
}

/* Signals are taken by this thread alone, with sigwait; the workers inherit the mask. */
static void take_signals(sigset_t *set)
{
    const struct sigaction ignore = { .sa_handler = SIG_IGN };

    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, set, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

/* Reads the secrets. This release knows authorization `none` only, and refuses what asks for more. */
static int check_secrets(const struct conf *conf, struct log *log)
{
    struct secrets secrets;
    struct secrets_error error;
    int code = 0;

    if (conf->auth.secrets == NULL)
        return 0;
    if (!secrets_load(conf->auth.secrets, SECRETS_BROADCASTER, &secrets, &error))
        return fail(EXIT_CONFIGURATION, error.text);
    if (secrets.readable_by_others && conf->auth.strict_permissions)
        code = fail(EXIT_CONFIGURATION,
                    "auth.secrets: the file is readable by group or others; chmod 600 it");
    else if (secrets.readable_by_others)
        log_warn(log, "secrets_readable_by_others", LOG_STR("file", conf->auth.secrets), LOG_END);
    if (code == 0 && (lonely_auth_key_scheme(secrets.to_broadcaster) != LONELY_AUTH_NONE ||
                      lonely_auth_key_scheme(secrets.to_subscriber) != LONELY_AUTH_NONE))
        code = fail(EXIT_CONFIGURATION,
                    "auth.secrets: this release can only run with authorization none; make the "
                    "files with --to-broadcasters-auth none --to-subscribers-auth none");
    secrets_fini(&secrets);
    return code;
}

static int check_tls(const struct conf *conf)
{
    char error[256];

    return broadcaster_check_tls(conf, error) ? 0 : fail(EXIT_CONFIGURATION, error);
}

static void print_ready(const struct broadcaster *b)
{
    for (size_t i = 0; i < b->listener_count; i++)
        printf("ready %s %s\n", b->listeners[i].tls ? "https" : "http", b->listeners[i].bound);
    if (b->admin != NULL)
        printf("ready admin %s\n", admin_bound(b->admin));
    fflush(stdout);
}

static void log_started(const struct broadcaster *b)
{
    struct index_counts counts = index_counts(b->index);

    log_info(b->log, "started", LOG_STR("database", b->conf->database.type),
             LOG_U64("exacts", counts.exacts), LOG_U64("globs", counts.globs),
             LOG_U64("workers", b->worker_count), LOG_END);
}

/* SIGHUP: the configuration is read again; its log level and the files of [tls] count from now on.
 * What cannot be read changes nothing. */
static void reload(struct broadcaster *b, const struct options *options)
{
    struct conf conf;
    struct conf_error error;
    enum log_level level;

    if (!options_read(options, &conf, &error)) {
        log_warn(b->log, "reload_failed", LOG_STR("error", error.text), LOG_END);
        return;
    }
    if (!broadcaster_reload_tls(b, &conf, error.text)) {
        log_warn(b->log, "reload_failed", LOG_STR("error", error.text), LOG_END);
    } else {
        if (log_level_parse(conf.log.level, &level))
            log_set_level(b->log, level);
        log_info(b->log, "reloaded", LOG_STR("level", conf.log.level), LOG_END);
    }
    conf_fini(&conf);
}

/* The first signal to end drains, a second one ends at once. */
static void wait_for_end(struct broadcaster *b, const struct options *options, const sigset_t *set)
{
    const struct timespec pause = { .tv_nsec = END_POLL_NS };
    int number;

    for (sigwait(set, &number); number == SIGHUP; sigwait(set, &number))
        reload(b, options);
    log_info(b->log, "draining", LOG_STR("signal", number == SIGTERM ? "SIGTERM" : "SIGINT"),
             LOG_END);
    broadcaster_drain(b);
    while (broadcaster_is_running(b)) {
        number = sigtimedwait(set, NULL, &pause);
        if (number == SIGTERM || number == SIGINT)
            broadcaster_stop(b);
    }
    broadcaster_join(b);
    log_info(b->log, "stopped", LOG_END);
}

static int run(const struct options *options, struct log *log)
{
    struct broadcaster *b;
    char error[256];
    sigset_t set;

    take_signals(&set);
    if (!broadcaster_create(&options->conf, &clock_system, log, &b, error))
        return fail(EXIT_MACHINE, error);
    if (!broadcaster_start(b, error)) {
        broadcaster_destroy(b);
        return fail(EXIT_MACHINE, error);
    }
    log_started(b);
    print_ready(b);
    wait_for_end(b, options, &set);
    broadcaster_destroy(b);
    return 0;
}

int main(int argc, char **argv)
{
    struct options options;
    enum options_action action = options_parse(argc, argv, stdout, stderr, &options);
    enum log_level level = LOG_LEVEL_INFO;
    enum log_format format = LOG_FORMAT_TEXT;
    struct log log;
    int code = options.exit_code;

    if (action != OPTIONS_EXIT) {
        log_level_parse(options.conf.log.level, &level);
        log_format_parse(options.conf.log.format, &format);
        log_init(&log, STDERR_FILENO, level, format, &clock_system);
        code = check_secrets(&options.conf, &log);
        if (code == 0)
            code = check_tls(&options.conf);
        if (code == 0 && action == OPTIONS_RUN)
            code = run(&options, &log);
        log_fini(&log);
    }
    options_fini(&options);
    return code;
}
