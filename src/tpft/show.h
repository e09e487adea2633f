/*
 * Lines on standard error. What came from a peer has its control characters replaced.
 */
#ifndef TPFT_SHOW_H
#define TPFT_SHOW_H

#include <stddef.h>

#define SHOW_MAX 256 /* a text that may be cut */

/* `ptr` may be NULL when `len` is 0. Returns `out`. */
const char *show_text(const char *ptr, size_t len, char out[SHOW_MAX]);

/* "tpft: ", the line, a newline; in one piece. */
__attribute__((format(printf, 1, 2))) void show_line(const char *format, ...);

#endif
