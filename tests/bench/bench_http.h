/*
 * What http_load.c and http_sink.c share: just enough HTTP/1.1 to be quick, between peers that we
 * start ourselves. Chunked bodies are not understood.
 */
#ifndef BENCH_HTTP_H
#define BENCH_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static inline void bench_require(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(1);
}

/* Bytes of the head with its empty line; 0 when it is not complete. */
static inline size_t bench_head_len(const char *bytes, size_t len)
{
    const char *end = memmem(bytes, len, "\r\n\r\n", 4);

    return end == NULL ? 0 : (size_t)(end - bytes) + 4;
}

/* The value of a header of a complete head, up to the end of its line, or NULL. `name` ends in a
 * colon. */
static inline const char *bench_header(const char *head, size_t head_len, const char *name)
{
    size_t name_len = strlen(name);
    const char *end = head + head_len, *line = head;

    while ((line = memchr(line, '\n', (size_t)(end - line))) != NULL) {
        line++;
        if ((size_t)(end - line) < name_len)
            break;
        if (strncasecmp(line, name, name_len) == 0) {
            line += name_len;
            return line + strspn(line, " "); /* the head ends in "\r\n\r\n" */
        }
    }
    return NULL;
}

/* Announced bytes of the body; false when there is no such header. */
static inline bool bench_content_length(const char *head, size_t head_len, size_t *out)
{
    const char *value = bench_header(head, head_len, "content-length:");

    if (value != NULL)
        *out = strtoul(value, NULL, 10);
    return value != NULL;
}

#endif
