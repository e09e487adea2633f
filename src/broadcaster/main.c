/*
 * lonelypss: starts the broadcaster, waits for signals, stops it. No logic lives here.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "admin.h"
#include "broadcaster.h"
#include "keys.h"
#include "options.h"

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

/* Signals are taken by this thread alone, with sigwait; the workers inherit the mask. What writing may
 * raise is ignored: the error number tells. */
static void take_signals(sigset_t *set)
{
    const struct sigaction ignore = { .sa_handler = SIG_IGN };

    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, set, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL);
}

/* Where one of the first three descriptors is closed, what is opened next would take its place, and log
 * lines go into it. */
static void fill_standard_descriptors(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

/* What the configuration names, beside the secrets. */
static int check_parts(const struct conf *conf)
{
    char error[256];

    return broadcaster_check_tls(conf, error) && broadcaster_check_store(conf, error) &&
                   broadcaster_check_compression(conf, error)
               ? 0
               : fail(EXIT_CONFIGURATION, error);
}

static void print_ready(const struct broadcaster *b)
{
    for (size_t i = 0; i < b->listener_count; i++)
        printf("ready %s%s %s\n", b->listeners[i].tcp ? "tcp" : "http",
               b->listeners[i].tls ? "s" : "", b->listeners[i].bound);
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

static void apply_log(struct broadcaster *b, const struct conf *conf)
{
    enum log_level level;
    enum log_format format;

    if (log_level_parse(conf->log.level, &level))
        log_set_level(b->log, level);
    if (log_format_parse(conf->log.format, &format))
        log_set_format(b->log, format);
    atomic_store(&b->log_access, conf->log.access);
}

/* SIGHUP: configuration and secrets are read again; secrets, log options and the files of [tls] count
 * from now on. What cannot be read changes nothing. */
static void reload(struct broadcaster *b, const struct options *options)
{
    struct conf conf;
    struct conf_error conf_error;
    struct keys_error error;
    struct keys *keys;

    if (!options_read_again(options, &conf, &conf_error)) {
        log_error(b->log, "reload_failed", LOG_STR("error", conf_error.text), LOG_END);
        return;
    }
    keys = keys_load(&conf, b->log, &error);
    if (keys == NULL) {
        log_error(b->log, "reload_failed", LOG_STR("error", error.text), LOG_END);
    } else if (!broadcaster_reload_tls(b, &conf, conf_error.text)) {
        keys_unref(keys);
        log_error(b->log, "reload_failed", LOG_STR("error", conf_error.text), LOG_END);
    } else {
        broadcaster_set_keys(b, keys);
        apply_log(b, &conf);
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

static int run(const struct options *options, struct keys *keys, struct log *log)
{
    struct broadcaster *b;
    char error[256];
    sigset_t set;

    take_signals(&set);
    if (!broadcaster_create(&options->conf, keys, &clock_system, log, &b, error))
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

/* The secrets are checked also when nothing else is done. */
static int start(const struct options *options, bool runs, struct log *log)
{
    struct keys_error error;
    struct keys *keys = keys_load(&options->conf, log, &error);
    int code = 0;

    if (keys == NULL)
        return fail(EXIT_CONFIGURATION, error.text);
    if (runs)
        code = run(options, keys, log);
    keys_unref(keys);
    return code;
}

int main(int argc, char **argv)
{
    struct options options;
    enum options_action action;
    enum log_level level = LOG_LEVEL_INFO;
    enum log_format format = LOG_FORMAT_TEXT;
    struct log log;
    int code;

    fill_standard_descriptors();
    action = options_parse(argc, argv, stdout, stderr, &options);
    code = options.exit_code;
    if (action != OPTIONS_EXIT) {
        log_level_parse(options.conf.log.level, &level);
        log_format_parse(options.conf.log.format, &format);
        log_init(&log, STDERR_FILENO, level, format, &clock_system);
        code = check_parts(&options.conf);
        if (code == 0)
            code = start(&options, action == OPTIONS_RUN, &log);
        log_fini(&log);
    }
    options_fini(&options);
    return code;
}
