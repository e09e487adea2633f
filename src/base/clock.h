/*
 * Time as an argument: whoever needs it is given a clock. Nothing but clock.c reads the system's,
 * so a test ages a connection with one assignment.
 */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>

struct clock {
    int64_t (*wall_ns)(void *arg);  /* since 1970-01-01T00:00:00Z; may jump */
    uint64_t (*mono_ms)(void *arg); /* since some start; never goes back */
    uint64_t (*mono_ns)(void *arg); /* the same, for what takes less than a millisecond */
    void *arg;
};

/* The system's clock. Any thread. */
extern const struct clock clock_system;

static inline int64_t clock_wall_ns(const struct clock *c)
{
    return c->wall_ns(c->arg);
}

static inline double clock_wall_s(const struct clock *c)
{
    return (double)c->wall_ns(c->arg) / 1e9;
}

static inline uint64_t clock_mono_ms(const struct clock *c)
{
    return c->mono_ms(c->arg);
}

static inline uint64_t clock_mono_ns(const struct clock *c)
{
    return c->mono_ns(c->arg);
}

#endif
