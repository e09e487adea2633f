/*
 * SHA-256 of a file as it comes and goes.
 */
#ifndef TPFT_SUM_H
#define TPFT_SUM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fault.h"

#define SUM_BYTES 32

struct sum; /* opaque */

/* `stop` (NULL: none) ends a long sum_add_file early. NULL: no memory. */
struct sum *sum_create(const atomic_bool *stop);
void sum_destroy(struct sum *sum);
void sum_reset(struct sum *sum);
void sum_add(struct sum *sum, const void *ptr, size_t len);
/* Of what was added so far; more may be added. */
void sum_read(const struct sum *sum, uint8_t out[SUM_BYTES]);

/* Adds the bytes `from` .. `to` of a file. FAULT_CHANGED: it is shorter. FAULT_STOPPED. */
struct fault sum_add_file(struct sum *sum, int fd, uint64_t from, uint64_t to);

#endif
