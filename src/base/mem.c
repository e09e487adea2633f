/*
 * The only callers of malloc, so that running out of memory is decided in one place. Called from
 * everywhere but core, which does not allocate.
 */
#include "mem.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Uses no memory of its own, hence no log. */
static _Noreturn void out_of_memory(size_t size)
{
    char line[64];
    int len = snprintf(line, sizeof line, "out_of_memory bytes=%zu\n", size);

    if (write(STDERR_FILENO, line, (size_t)len) < 0) {
        /* Nobody is left to be told. */
    }
    abort();
}

/* malloc(0) may be NULL, which would look like a failure. */
static size_t at_least_1(size_t size)
{
    return size == 0 ? 1 : size;
}

void *mem_alloc(size_t size)
{
    void *p = mem_try_alloc(size);

    if (p == NULL)
        out_of_memory(size);
    return p;
}

void *mem_calloc(size_t n, size_t size)
{
    void *p = mem_try_calloc(n, size);

    if (p == NULL)
        out_of_memory(n > 0 && size > SIZE_MAX / n ? SIZE_MAX : n * size);
    return p;
}

void *mem_realloc(void *p, size_t size)
{
    void *grown = mem_try_realloc(p, size);

    if (grown == NULL)
        out_of_memory(size);
    return grown;
}

char *mem_strdup(const char *s)
{
    return mem_dup(s, strlen(s) + 1);
}

void *mem_dup(const void *ptr, size_t len)
{
    void *copy = mem_alloc(len);

    if (len > 0)
        memcpy(copy, ptr, len);
    return copy;
}

void *mem_try_alloc(size_t size)
{
    return malloc(at_least_1(size));
}

void *mem_try_calloc(size_t n, size_t size)
{
    return calloc(at_least_1(n), at_least_1(size));
}

void *mem_try_realloc(void *p, size_t size)
{
    return realloc(p, at_least_1(size));
}

void mem_free(void *p)
{
    free(p);
}
