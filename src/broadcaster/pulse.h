/*
 * What a worker lets others see of it, when there is an admin listener: how much is under way, written
 * before each wait for events, and that its loop still turns, written every second.
 *
 * Threads: pulse_lag_ms from any; the rest on the worker's.
 */
#ifndef PULSE_H
#define PULSE_H

#include <stdatomic.h>
#include <stdint.h>
#include <uv.h>

struct worker;

struct pulse {
    struct worker *worker;
    uv_prepare_t prepare;
    uv_timer_t timer;
    _Atomic uint64_t beat_ms; /* monotonic; UINT64_MAX: there is no loop that should beat */
};

/* Before the worker's thread starts. Its handles do not keep the loop running. */
void pulse_init(struct pulse *p, struct worker *w);
void pulse_close(struct pulse *p);

/* For how long the loop has not shown up; 0 when it is not expected to. */
uint64_t pulse_lag_ms(const struct pulse *p, uint64_t now_ms);

#endif
