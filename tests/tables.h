/*
 * What table-driven tests of parsers share: hexadecimal in, input laid against an unreadable page,
 * and every way to cut an input short. Header only.
 */
#ifndef TESTS_TABLES_H
#define TESTS_TABLES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <lonely/span.h>

#define TABLE_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* The span of a string literal, without its NUL. */
#define LIT(s) ((struct lonely_span){ (const uint8_t *)(s), sizeof(s) - 1 })

/* The same as an initializer in a static table, where C17 wants constants. */
#define LIT_INIT(s)                         \
    {                                       \
        (const uint8_t *)(s), sizeof(s) - 1 \
    }

/* A test that cannot be set up is a broken test, not a failed one. */
static inline void table_require(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "test set-up failed: %s\n", what);
    abort();
}

static inline int table_nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/*
 * Decodes lower-case hexadecimal; spaces between digits, and `|`, are ignored. Returns the number
 * of bytes; aborts when they do not fit `cap` or something else stands there.
 */
static inline size_t table_unhex(const char *hex, uint8_t *out, size_t cap)
{
    size_t digits = 0;

    for (; *hex != '\0'; hex++) {
        int v = table_nibble(*hex);

        if (*hex == ' ' || *hex == '|')
            continue;
        table_require(v >= 0 && digits / 2 < cap, "hexadecimal of a table");
        out[digits / 2] = (uint8_t)(digits % 2 == 0 ? v << 4 : out[digits / 2] | v);
        digits++;
    }
    table_require(digits % 2 == 0, "half a byte in a table");
    return digits / 2;
}

/* Writes 2 * len lower-case digits and a NUL. */
static inline void table_hex(struct lonely_span s, char *out)
{
    for (size_t i = 0; i < s.len; i++)
        sprintf(out + 2 * i, "%02x", (unsigned)s.ptr[i]);
    out[2 * s.len] = '\0';
}

static inline int table_span_equal(struct lonely_span a, struct lonely_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/*
 * Memory whose end touches an unreadable page, so that one byte read too far is a crash. One guard
 * serves many inputs, each of which invalidates the one before.
 */
struct guard {
    uint8_t *map;
    size_t cap;       /* bytes before the unreadable page */
    size_t map_bytes; /* with it */
};

static inline struct guard guard_create(size_t cap)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (cap + page) / page * page; /* at least one page */
    struct guard g = { .cap = room, .map_bytes = room + page };

    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    table_require(g.map != MAP_FAILED, "mmap of a guard");
    table_require(mprotect(g.map + room, page, PROT_NONE) == 0, "mprotect of a guard");
    return g;
}

static inline void guard_destroy(struct guard *g)
{
    munmap(g->map, g->map_bytes);
}

/* The last `len` bytes before the page, writable. */
static inline uint8_t *guard_room(const struct guard *g, size_t len)
{
    table_require(len <= g->cap, "input larger than its guard");
    return g->map + g->cap - len;
}

/* A copy of `s` that ends at the page. */
static inline struct lonely_span guard_lay(const struct guard *g, struct lonely_span s)
{
    uint8_t *to = guard_room(g, s.len);

    if (s.len > 0)
        memmove(to, s.ptr, s.len);
    return (struct lonely_span){ to, s.len };
}

/* Calls `fn` with every strict prefix of `s`, the empty one first, each laid against the page. */
static inline void guard_each_prefix(const struct guard *g, struct lonely_span s,
                                     void (*fn)(struct lonely_span prefix, void *arg), void *arg)
{
    for (size_t n = 0; n < s.len; n++)
        fn(guard_lay(g, (struct lonely_span){ s.ptr, n }), arg);
}

#endif
