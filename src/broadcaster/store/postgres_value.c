/*
 * Values of PostgreSQL in its binary format: big-endian numbers, bytea as it is, arrays of both
 * (postgres_conn.h).
 */
#include <endian.h>
#include <string.h>

#include "mem.h"
#include "postgres_conn.h"
#include "store_place.h"

#define ARRAY_HEAD 20 /* dimensions, has NULLs, oid, count, first subscript: 4 bytes each */

static void add(struct postgres_params *p, const void *ptr, size_t len)
{
    p->values[p->n] = ptr;
    p->lengths[p->n] = (int)len;
    p->n++;
}

void postgres_add_bytes(struct postgres_params *p, struct lonely_span bytes)
{
    add(p, bytes.len == 0 ? (const void *)"" : bytes.ptr, bytes.len); /* a NULL pointer is a NULL */
}

void postgres_add_bytes_or_null(struct postgres_params *p, struct lonely_span bytes)
{
    add(p, bytes.len == 0 ? NULL : bytes.ptr, bytes.len);
}

void postgres_add_number(struct postgres_params *p, int64_t number)
{
    uint64_t big = htobe64((uint64_t)number);

    memcpy(p->numbers[p->n], &big, 8);
    add(p, p->numbers[p->n], 8);
}

int64_t postgres_number(const PGresult *result, int row, int column)
{
    const uint8_t *at = (const uint8_t *)PQgetvalue(result, row, column);
    int len = PQgetisnull(result, row, column) ? 0 : PQgetlength(result, row, column);
    uint64_t number = 0;

    if (len != 1 && len != 2 && len != 4 && len != 8)
        return 0;
    for (int i = 0; i < len; i++)
        number = number << 8 | at[i];
    if (len == 8 || at[0] < 0x80)
        return (int64_t)number;
    return (int64_t)(number | UINT64_MAX << (8 * len));
}

struct lonely_span postgres_bytes(const PGresult *result, int row, int column)
{
    return (struct lonely_span){ (const uint8_t *)PQgetvalue(result, row, column),
                                 (size_t)PQgetlength(result, row, column) };
}

static void put(uint8_t *to, uint32_t number)
{
    uint32_t big = htobe32(number);

    memcpy(to, &big, 4);
}

/* Appends an element of `len` bytes; NULL `ptr`: a NULL. */
static bool append(struct postgres_array *a, const void *ptr, size_t len)
{
    size_t at = a->len == 0 ? ARRAY_HEAD : a->len;

    if (!store_grow(&a->ptr, &a->cap, at + 4 + len))
        return false;
    put(a->ptr + at, ptr == NULL ? UINT32_MAX : (uint32_t)len);
    if (len > 0)
        memcpy(a->ptr + at + 4, ptr, len);
    a->len = at + 4 + len;
    a->count++;
    return true;
}

bool postgres_array_bytes(struct postgres_array *a, struct lonely_span bytes)
{
    return append(a, bytes.len == 0 ? (const void *)"" : bytes.ptr, bytes.len);
}

bool postgres_array_bytes_or_null(struct postgres_array *a, struct lonely_span bytes)
{
    return append(a, bytes.len == 0 ? NULL : bytes.ptr, bytes.len);
}

bool postgres_array_number(struct postgres_array *a, int64_t number)
{
    uint64_t big = htobe64((uint64_t)number);

    return append(a, &big, 8);
}

void postgres_add_array(struct postgres_params *p, struct postgres_array *a, uint32_t oid)
{
    put(a->ptr, 1);
    put(a->ptr + 4, 1); /* perhaps */
    put(a->ptr + 8, oid);
    put(a->ptr + 12, a->count);
    put(a->ptr + 16, 1);
    add(p, a->ptr, a->len);
}

void postgres_array_clear(struct postgres_array *a)
{
    a->len = 0;
    a->count = 0;
}

void postgres_array_fini(struct postgres_array *a)
{
    mem_free(a->ptr);
    *a = (struct postgres_array){ 0 };
}
