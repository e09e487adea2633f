/*
 * Deadlines of many connections by one timer. A deadline has a kind, and those of a kind have (most
 * often) one duration, so that a list a kind is in order by itself: setting, moving and clearing
 * cost no more than linking, and the timer is touched only when it fires.
 *
 * Threads: everything on the thread of the loop.
 */
#ifndef NET_DEADLINE_H
#define NET_DEADLINE_H

#include <stdbool.h>
#include <uv.h>

#include "list.h"

#define DEADLINE_KINDS 8

/*
 * libuv runs timers before it looks at sockets. When the process has been stopped for a while, what
 * came in time lies there unread: so a timer that is late by more than DEADLINE_SLACK_MS is put off
 * once, by DEADLINE_POLL_MS, for the sockets to be looked at before anybody is blamed.
 */
#define DEADLINE_SLACK_MS 100
#define DEADLINE_POLL_MS  1 /* 0 would run before the sockets again */

static inline bool deadline_is_late(const uv_loop_t *loop, uint64_t due_ms)
{
    return uv_now(loop) > due_ms + DEADLINE_SLACK_MS;
}

/* Lives in the connection. Zeroed: not set. */
struct deadline {
    struct list node;
    uint64_t at_ms; /* of the loop's clock */
    bool set;
};

struct deadlines {
    uv_timer_t timer;
    uint64_t armed_ms; /* when the timer fires; UINT64_MAX: it does not */
    bool polls_first;  /* it was late, and waits for one look at the sockets */
    struct list lists[DEADLINE_KINDS];
    void (*on_due)(void *arg, unsigned kind, struct deadline *d); /* d is cleared before */
    void *arg;
};

void deadlines_init(struct deadlines *all, uv_loop_t *loop,
                    void (*on_due)(void *arg, unsigned kind, struct deadline *d), void *arg);

/* Closes the timer; no on_due follows. `on_closed` gets the timer, whose data is `arg` of init. */
void deadlines_close(struct deadlines *all, uv_close_cb on_closed);

/* Sets `d` anew, `after_ms` from now (0: clears it). One that is due sooner than others of its kind
 * set before costs a step for each of them. */
void deadline_set(struct deadlines *all, unsigned kind, struct deadline *d, uint64_t after_ms);

static inline void deadline_clear(struct deadline *d)
{
    if (!d->set)
        return;
    d->set = false;
    list_remove(&d->node);
}

#endif
