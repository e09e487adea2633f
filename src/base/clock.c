/*
 * The system's clock: the one place that reads it.
 */
#include "clock.h"

#include <time.h>

static int64_t system_wall_ns(void *arg)
{
    struct timespec now;

    (void)arg;
    clock_gettime(CLOCK_REALTIME, &now); /* cannot fail with this clock and a valid pointer */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static uint64_t system_mono_ns(void *arg)
{
    struct timespec now;

    (void)arg;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t system_mono_ms(void *arg)
{
    return system_mono_ns(arg) / 1000000;
}

const struct clock clock_system = { .wall_ns = system_wall_ns,
                                    .mono_ms = system_mono_ms,
                                    .mono_ns = system_mono_ns };
