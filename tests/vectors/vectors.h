/*
 * Reading the vector files (tests/vectors/README.md) for cmocka programs: JSON lines, bytes in
 * hexadecimal, 64-bit integers in decimal strings. A file that is absent or malformed aborts the
 * program with a line on standard error: it must not look like a passed test.
 */
#ifndef TESTS_VECTORS_H
#define TESTS_VECTORS_H

#include <stdbool.h>

#include <jansson.h>
#include <lonely/span.h>

/* Bytes on the heap; `ptr` is an exactly sized block, never NULL. Freed by vec_bytes_free(). */
struct vec_bytes {
    uint8_t *ptr;
    size_t len;
};

/* Every line of a .jsonl file, in an array. `name` is relative to the folder of the vectors. */
json_t *vec_load_lines(const char *name);

/* One JSON document. */
json_t *vec_load_json(const char *name);

/* A whole file as bytes, for example a dictionary. */
struct vec_bytes vec_load_file(const char *name);

/* A hex string, or a list of hex strings and {"repeat": hex, "times": n}, one after another. */
struct vec_bytes vec_bytes(const json_t *value);
void vec_bytes_free(struct vec_bytes *b);
struct lonely_span vec_span(const struct vec_bytes *b);

/* Members that have to be there, or the program aborts. */
json_t *vec_get(const json_t *object, const char *key);
const char *vec_str(const json_t *object, const char *key);
bool vec_bool(const json_t *object, const char *key);
struct vec_bytes vec_get_bytes(const json_t *object, const char *key);

/* A member that is a JSON integer or a decimal string, from -2^63 and up to 2^64-1. */
uint64_t vec_u64(const json_t *object, const char *key);
int64_t vec_i64(const json_t *object, const char *key);

/* Whether a member is there and not null. */
bool vec_has(const json_t *object, const char *key);

/*
 * Runs `fn` as a cmocka test for every element of `cases`, its json_t in `*state`, and named by
 * the element's member `name_key`. Returns what main() should. `setup`, `teardown`: NULL or those
 * of the whole group, with no state of their own.
 */
int vec_run(const char *group, json_t *cases, const char *name_key, void (*fn)(void **state),
            int (*setup)(void **state), int (*teardown)(void **state));

#endif
