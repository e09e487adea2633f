/*
 * A peer's text on a terminal.
 */
#ifndef TINYPROTO_TEXT_H
#define TINYPROTO_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Writes `len` bytes of UTF-8 to `out` (room for `len`), with `?` for each control character (C0, DEL,
 * C1) and each byte that is not UTF-8. Returns how many bytes it wrote. */
size_t text_make_printable(const uint8_t *ptr, size_t len, char *out);

#endif
