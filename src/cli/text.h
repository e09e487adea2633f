/*
 * Bytes of peers as text that a terminal and a JSON parser can bear.
 */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stdio.h>

#include <lonely/span.h>

#define TEXT_CUT_MAX_BYTES 3

/* Printable UTF-8 as it is, every other byte as \xHH. With `more` bytes to come, the at most
 * TEXT_CUT_MAX_BYTES at the end that may begin a character are left: returns what was printed. */
size_t text_print(FILE *out, struct lonely_span bytes, bool more);

/* A string with its quotes; `null` when it is not valid UTF-8. */
void text_print_json(FILE *out, struct lonely_span bytes);

void text_print_hex(FILE *out, struct lonely_span bytes);

/* Without padding when `len` is a multiple of 3, else it ends. */
void text_print_base64(FILE *out, struct lonely_span bytes);

#endif
