/*
 * Waiting for everything at once: signals, the library's threads, a descriptor, an end in time. Ends
 * of commands in order begin here.
 */
#ifndef WAITER_H
#define WAITER_H

#include <stdbool.h>
#include <stdint.h>

#include <lonely/client.h>

struct waiter {
    struct lonely_client *client; /* does its work here when it has no thread; NULL: none yet */
    int signals;                  /* a signalfd */
    int wakeup;                   /* an eventfd */
    uint64_t until_ms;            /* UINT64_MAX: no end */
    bool stopped;                 /* SIGINT, SIGTERM or SIGHUP came */
};

/* From now on these signals only make `stopped` (SIGHUP not under nohup), SIGPIPE and SIGXFSZ make nothing,
 * and children that end wake up: before any thread begins. `timeout_ms` -1: none. False: complained. */
bool waiter_init(struct waiter *w, int64_t timeout_ms);
void waiter_fini(struct waiter *w);

/* Until a signal, waiter_wake, `fd` is readable (-1: none), or so many milliseconds (-1: any). */
void waiter_wait(struct waiter *w, int fd, int64_t at_most_ms);
bool waiter_timed_out(const struct waiter *w);
void waiter_wake(struct waiter *w); /* any thread */

#endif
