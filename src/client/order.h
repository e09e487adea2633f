/*
 * In which order broadcasters are tried, and how long between two passes. (doc/protocol/session.md, 6)
 */
#ifndef CLIENT_ORDER_H
#define CLIENT_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "options.h"

struct order {
    const struct client_broadcaster **items;
    size_t count, next;
};

/* Random numbers come from `random`: 4 bytes a call. */
void order_init(struct order *o, const struct client_conf *conf);
void order_fini(struct order *o);
/* A new pass: by priority, those without one last, at random among equals. */
void order_shuffle(struct order *o, void (*random)(void *arg, uint8_t *to, size_t len), void *arg);
/* The next of this pass; NULL: the pass is over. */
const struct client_broadcaster *order_next(struct order *o);

/* The wait after pass `n` (1, 2, ...): 2^(n-1) s and up to one more; `random` is from [0, 1). */
uint64_t order_delay_ms(unsigned n, double random);

#endif
