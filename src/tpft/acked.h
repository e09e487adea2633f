/*
 * How much of what was sent on a TCP connection has arrived.
 */
#ifndef TPFT_ACKED_H
#define TPFT_ACKED_H

#include <stdint.h>

/* Bytes that the other end's kernel has acknowledged; 0: not known. */
uint64_t acked_bytes(int fd);

#endif
