/*
 * The JSON that letters are made of, as a cursor over bytes. Strings are bytes here: what is not UTF-8
 * travels as \udc80 .. \udcff and comes back.        (doc/protocol/tinyproto.md, 14.2)
 *
 * The cursor keeps that something was wrong; after it every read yields nothing. Pure: no allocation.
 */
#ifndef TPFT_JSON_H
#define TPFT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 32

/* Bytes, perhaps with NULs among them; borrowed. */
struct json_text {
    const char *ptr;
    size_t len;
};

struct json {
    const uint8_t *ptr;
    size_t len, at;
    char *text; /* decoded strings; room for `len` bytes, which is never too little */
    size_t text_len;
    unsigned depth;
    bool is_bad;
};

/* ---- Reading ---- */

/* What the next value is, by its first byte: `{`, `[`, `"`, `t`, `f`, `n`, `0` for any number; NUL:
 * the end, or no value. */
char json_peek(struct json *j);

void json_string(struct json *j, struct json_text *out);

/* A number. true: it is an integer from 0 to 2^63-1 written without sign, fraction and exponent. */
bool json_integer(struct json *j, uint64_t *out);

/* Any value, validated and dropped. */
void json_skip(struct json *j);

/* Goes over an object: begin, then next until false; after each true the member's value is to be read. */
void json_object_begin(struct json *j);
bool json_object_next(struct json *j, bool *is_first, struct json_text *key);

/* Nothing but white space is left, and all was well. */
bool json_is_done(struct json *j);

/* ---- Writing ---- */

/* Never beyond its room; `is_full` tells that something did not fit. */
struct json_out {
    char *ptr;
    size_t len, cap;
    bool is_full;
};

void json_put(struct json_out *o, const char *raw); /* as it is */
void json_put_string(struct json_out *o, struct json_text text);
void json_put_integer(struct json_out *o, uint64_t value);

#endif
