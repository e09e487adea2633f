/*
 * lonelypss: starts the broadcaster, waits for signals, stops it. No logic lives here.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "embed.h"

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

/* As many connections as the machine lets us have. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void print_ready(const struct lonely_broadcaster *b)
{
    const struct lonely_broadcaster_address *at;

    for (size_t i = 0; (at = lonely_broadcaster_address(b, i)) != NULL; i++)
        printf("ready %s %s\n", at->scheme, at->bound);
    fflush(stdout);
}

/* The first signal to end drains, a second one ends at once. */
static void wait_for_end(struct lonely_broadcaster *b, const sigset_t *set)
{
    const struct timespec pause = { .tv_nsec = END_POLL_NS };
    int number;

    for (sigwait(set, &number); number == SIGHUP; sigwait(set, &number))
        (void)lonely_broadcaster_reload(b, NULL); /* the log has it */
    log_info(&b->log, "draining", LOG_STR("signal", number == SIGTERM ? "SIGTERM" : "SIGINT"),
             LOG_END);
    lonely_broadcaster_drain(b);
    while (lonely_broadcaster_is_running(b)) {
        number = sigtimedwait(set, NULL, &pause);
        if (number == SIGTERM || number == SIGINT)
            lonely_broadcaster_stop(b);
    }
    lonely_broadcaster_join(b);
    log_info(&b->log, "stopped", LOG_END);
}

static int fail_with(enum lonely_broadcaster_error err, const struct lonely_broadcaster_why *why)
{
    return fail(err == LONELY_BROADCASTER_CONFIGURATION ? EXIT_CONFIGURATION : EXIT_MACHINE,
                why->text);
}

static int run(struct options *options)
{
    struct lonely_broadcaster *b;
    struct lonely_broadcaster_why why;
    enum lonely_broadcaster_error err;
    sigset_t set;

    take_signals(&set);
    raise_descriptor_limit();
    err = embed_open(options, &b, &why);
    if (err == LONELY_BROADCASTER_OK)
        err = lonely_broadcaster_start(b, &why);
    if (err == LONELY_BROADCASTER_OK) {
        print_ready(b);
        wait_for_end(b, &set);
    }
    lonely_broadcaster_close(b);
    return err == LONELY_BROADCASTER_OK ? 0 : fail_with(err, &why);
}

static int check(const struct options *options)
{
    struct lonely_broadcaster_why why;
    enum lonely_broadcaster_error err = embed_check(options, &why);

    return err == LONELY_BROADCASTER_OK ? 0 : fail_with(err, &why);
}

int main(int argc, char **argv)
{
    struct options options;
    enum options_action action;
    int code;

    fill_standard_descriptors();
    action = options_parse(argc, argv, stdout, stderr, &options);
    code = options.exit_code;
    if (action != OPTIONS_EXIT)
        code = action == OPTIONS_RUN ? run(&options) : check(&options);
    options_fini(&options);
    return code;
}
