/*
 * The loader behind vectors.h. VECTORS_DIR comes from the build. Everything here trusts the files:
 * they are ours, and a mistake in them stops the run.
 */
#include "vectors.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tables.h"

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

static FILE *open_vector(const char *name)
{
    char path[4096];
    FILE *f;

    if (snprintf(path, sizeof(path), "%s/%s", VECTORS_DIR, name) >= (int)sizeof(path))
        die("vector file name too long: %s", name);
    f = fopen(path, "rb");
    if (f == NULL)
        die("cannot open %s: %s", path, strerror(errno));
    return f;
}

json_t *vec_load_lines(const char *name)
{
    FILE *f = open_vector(name);
    json_t *all = json_array();
    char *line = NULL;
    size_t cap = 0;

    for (size_t number = 1; getline(&line, &cap, f) > 0; number++) {
        json_error_t why;
        json_t *one = json_loads(line, JSON_ALLOW_NUL, &why);

        if (one == NULL || json_array_append_new(all, one) != 0)
            die("%s, line %zu: %s", name, number, why.text);
    }
    if (ferror(f) || json_array_size(all) == 0)
        die("%s: cannot be read, or empty", name);
    free(line);
    fclose(f);
    return all;
}

json_t *vec_load_json(const char *name)
{
    FILE *f = open_vector(name);
    json_error_t why;
    json_t *doc = json_loadf(f, 0, &why);

    if (doc == NULL)
        die("%s, line %d: %s", name, why.line, why.text);
    fclose(f);
    return doc;
}

static uint8_t *block(size_t len)
{
    uint8_t *p = malloc(len == 0 ? 1 : len);

    if (p == NULL)
        die("out of memory: %zu bytes", len);
    return p;
}

struct vec_bytes vec_load_file(const char *name)
{
    FILE *f = open_vector(name);
    struct vec_bytes b = { 0 };
    long size;

    if (fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) != 0)
        die("%s: cannot seek", name);
    b.len = (size_t)size;
    b.ptr = block(b.len);
    if (fread(b.ptr, 1, b.len, f) != b.len)
        die("%s: cannot read", name);
    fclose(f);
    return b;
}

/* Bytes that one element of a list stands for. */
static size_t element_len(const json_t *e)
{
    if (json_is_string(e))
        return json_string_length(e) / 2;
    return (size_t)vec_u64(e, "times") * strlen(vec_str(e, "repeat")) / 2;
}

static void element_put(const json_t *e, uint8_t *out, size_t len)
{
    const char *hex = json_is_string(e) ? json_string_value(e) : vec_str(e, "repeat");
    size_t once;

    if (len == 0)
        return;
    once = table_unhex(hex, out, len);
    for (size_t at = once; once > 0 && at < len; at++)
        out[at] = out[at - once];
}

struct vec_bytes vec_bytes(const json_t *value)
{
    struct vec_bytes b = { 0 };
    size_t at = 0, i;
    json_t *e;

    if (json_is_string(value)) {
        b.len = element_len(value);
        b.ptr = block(b.len);
        element_put(value, b.ptr, b.len);
        return b;
    }
    if (!json_is_array(value))
        die("bytes are neither a string nor a list");
    json_array_foreach(value, i, e) b.len += element_len(e);
    b.ptr = block(b.len);
    json_array_foreach(value, i, e)
    {
        element_put(e, b.ptr + at, element_len(e));
        at += element_len(e);
    }
    return b;
}

void vec_bytes_free(struct vec_bytes *b)
{
    free(b->ptr);
    *b = (struct vec_bytes){ 0 };
}

struct lonely_span vec_span(const struct vec_bytes *b)
{
    return (struct lonely_span){ b->ptr, b->len };
}

json_t *vec_get(const json_t *object, const char *key)
{
    json_t *v = json_object_get(object, key);

    if (v == NULL)
        die("a vector lacks \"%s\"", key);
    return v;
}

const char *vec_str(const json_t *object, const char *key)
{
    const char *s = json_string_value(vec_get(object, key));

    if (s == NULL)
        die("\"%s\" is not a string", key);
    return s;
}

bool vec_bool(const json_t *object, const char *key)
{
    const json_t *v = vec_get(object, key);

    if (!json_is_boolean(v))
        die("\"%s\" is not a boolean", key);
    return json_is_true(v);
}

struct vec_bytes vec_get_bytes(const json_t *object, const char *key)
{
    return vec_bytes(vec_get(object, key));
}

uint64_t vec_u64(const json_t *object, const char *key)
{
    const json_t *v = vec_get(object, key);
    char *end;
    unsigned long long n;

    if (json_is_integer(v) && json_integer_value(v) >= 0)
        return (uint64_t)json_integer_value(v);
    if (!json_is_string(v) || *json_string_value(v) == '-')
        die("\"%s\" is not an unsigned number", key);
    errno = 0;
    n = strtoull(json_string_value(v), &end, 10);
    if (errno != 0 || *end != '\0' || end == json_string_value(v))
        die("\"%s\" is not an unsigned number", key);
    return n;
}

int64_t vec_i64(const json_t *object, const char *key)
{
    const json_t *v = vec_get(object, key);
    char *end;
    long long n;

    if (json_is_integer(v))
        return json_integer_value(v);
    if (!json_is_string(v))
        die("\"%s\" is not a number", key);
    errno = 0;
    n = strtoll(json_string_value(v), &end, 10);
    if (errno != 0 || *end != '\0' || end == json_string_value(v))
        die("\"%s\" is not a number", key);
    return n;
}

bool vec_has(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);

    return v != NULL && !json_is_null(v);
}

int vec_run(const char *group, json_t *cases, const char *name_key, void (*fn)(void **state),
            int (*setup)(void **state), int (*teardown)(void **state))
{
    size_t n = json_array_size(cases), i;
    struct CMUnitTest *tests = calloc(n, sizeof(*tests));
    json_t *one;
    int rc;

    if (tests == NULL || n == 0)
        die("%s: no cases", group);
    json_array_foreach(cases, i, one) tests[i] = (struct CMUnitTest){
        .name = vec_str(one, name_key), .test_func = fn, .initial_state = one
    };
    rc = _cmocka_run_group_tests(group, tests, n, setup, teardown);
    free(tests);
    return rc;
}
