/*
 * One poll for all (waiter.h). Called by the commands that talk to broadcasters.
 */
#include "waiter.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli.h"
#include "clock.h"

static uint64_t now_ms(void)
{
    return clock_mono_ms(&clock_system);
}

bool waiter_init(struct waiter *w, int64_t timeout_ms)
{
    static const int heard[] = { SIGINT, SIGTERM, SIGCHLD };
    struct sigaction hangup;
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(heard) / sizeof(heard[0]); i++)
        sigaddset(&set, heard[i]);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaddset(&set, SIGHUP); /* else of nohup(1): a signalfd would hear it all the same */
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGCHLD, SIG_DFL); /* inherited as ignored, no child would be left to wait for */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of files is a full disk */
    *w = (struct waiter){
        .signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
        .wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .until_ms = timeout_ms < 0 ? UINT64_MAX : now_ms() + (uint64_t)timeout_ms,
    };
    if (w->signals >= 0 && w->wakeup >= 0)
        return true;
    cli_complain("cannot wait: %s", strerror(errno));
    waiter_fini(w);
    return false;
}

void waiter_fini(struct waiter *w)
{
    if (w->signals >= 0)
        close(w->signals);
    if (w->wakeup >= 0)
        close(w->wakeup);
    w->signals = w->wakeup = -1;
}

bool waiter_timed_out(const struct waiter *w)
{
    return w->until_ms != UINT64_MAX && now_ms() >= w->until_ms;
}

void waiter_wake(struct waiter *w)
{
    uint64_t one = 1;
    ssize_t ignored = write(w->wakeup, &one, sizeof(one));

    (void)ignored; /* full: it is awake */
}

static int shorter(int a, int64_t b)
{
    if (b < 0)
        return a;
    if (b > 60000)
        b = 60000; /* waking up for nothing now and then harms nobody */
    return a < 0 || b < a ? (int)b : a;
}

static int timeout_of(const struct waiter *w, int64_t at_most_ms)
{
    int timeout = shorter(-1, at_most_ms);
    uint64_t now;

    if (w->client != NULL)
        timeout = shorter(timeout, lonely_client_timeout_ms(w->client));
    if (w->until_ms == UINT64_MAX)
        return timeout;
    now = now_ms();
    return shorter(timeout, now < w->until_ms ? (int64_t)(w->until_ms - now) : 0);
}

static void read_signals(struct waiter *w)
{
    struct signalfd_siginfo info;

    while (read(w->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
        w->stopped = w->stopped || info.ssi_signo != SIGCHLD;
}

void waiter_wait(struct waiter *w, int fd, int64_t at_most_ms)
{
    struct pollfd fds[] = {
        { .fd = w->signals, .events = POLLIN },
        { .fd = w->wakeup, .events = POLLIN },
        { .fd = fd, .events = POLLIN },
        { .fd = w->client != NULL ? lonely_client_fd(w->client) : -1, .events = POLLIN },
    };
    uint64_t count;
    ssize_t ignored;

    (void)poll(fds, sizeof(fds) / sizeof(fds[0]), timeout_of(w, at_most_ms));
    read_signals(w);
    ignored = read(w->wakeup, &count, sizeof(count));
    (void)ignored; /* nothing there: it was another */
    if (w->client != NULL)
        lonely_client_process(w->client);
}
