/*
 * See rqlite_json.h. Called by all parts of the rqlite backend.
 */
#include "rqlite_json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- statements ----------------------------------------------------------------------------- */

void rqlite_body_init(struct rqlite_body *b, size_t max)
{
    buf_init(&b->text, max);
    rqlite_body_clear(b);
}

void rqlite_body_fini(struct rqlite_body *b)
{
    buf_fini(&b->text);
}

void rqlite_body_clear(struct rqlite_body *b)
{
    buf_clear(&b->text);
    b->count = 0;
    b->failed = false;
}

static void put(struct rqlite_body *b, const char *text)
{
    b->failed = b->failed || !buf_append_str(&b->text, text);
}

void rqlite_body_statement(struct rqlite_body *b, const char *sql)
{
    put(b, b->count == 0 ? "[[\"" : "],[\"");
    put(b, sql);
    put(b, "\"");
    b->count++;
}

void rqlite_body_int(struct rqlite_body *b, int64_t n)
{
    char text[24];

    snprintf(text, sizeof text, ",%" PRId64, n);
    put(b, text);
}

void rqlite_body_bytes(struct rqlite_body *b, struct lonely_span bytes)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t *to;

    put(b, ",\"x'");
    to = b->failed ? NULL : buf_reserve(&b->text, bytes.len * 2);
    if (to == NULL) {
        b->failed = true;
        return;
    }
    for (size_t i = 0; i < bytes.len; i++) {
        *to++ = (uint8_t)digits[bytes.ptr[i] >> 4];
        *to++ = (uint8_t)digits[bytes.ptr[i] & 15];
    }
    buf_commit(&b->text, bytes.len * 2);
    put(b, "'\"");
}

void rqlite_body_bytes_or_null(struct rqlite_body *b, struct lonely_span bytes)
{
    if (bytes.len == 0)
        put(b, ",null");
    else
        rqlite_body_bytes(b, bytes);
}

bool rqlite_body_end(struct rqlite_body *b)
{
    put(b, b->count == 0 ? "[]" : "]]");
    return !b->failed;
}

/* --- results -------------------------------------------------------------------------------- */

const char *rqlite_error(json_t *results)
{
    for (size_t i = 0; i < json_array_size(results); i++) {
        json_t *error = json_object_get(json_array_get(results, i), "error");

        if (error != NULL)
            return json_is_string(error) ? json_string_value(error) : "unknown error";
    }
    return NULL;
}

int64_t rqlite_rows_affected(json_t *results, size_t statement)
{
    /* Absent when it is 0. */
    return json_integer_value(json_object_get(json_array_get(results, statement), "rows_affected"));
}

int64_t rqlite_last_insert_id(json_t *results, size_t statement)
{
    return json_integer_value(
        json_object_get(json_array_get(results, statement), "last_insert_id"));
}

static json_t *rows_of(json_t *results, size_t statement)
{
    return json_object_get(json_array_get(results, statement), "values");
}

size_t rqlite_row_count(json_t *results, size_t statement)
{
    return json_array_size(rows_of(results, statement));
}

json_t *rqlite_row(json_t *results, size_t statement, size_t row)
{
    return json_array_get(rows_of(results, statement), row);
}

bool rqlite_int(json_t *row, size_t column, int64_t *out)
{
    json_t *value = json_array_get(row, column);

    *out = json_integer_value(value);
    return json_is_integer(value);
}

/* --- bytes ---------------------------------------------------------------------------------- */

#define TEXT_MAX ((size_t)RQLITE_SPANS_MAX << 20)

void rqlite_text_init(struct rqlite_text *t)
{
    buf_init(&t->bytes, TEXT_MAX);
}

void rqlite_text_fini(struct rqlite_text *t)
{
    buf_fini(&t->bytes);
}

static int digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool rqlite_digits_decode(struct lonely_span digits, struct buf *out)
{
    size_t len = digits.len / 2;
    uint8_t *to = buf_reserve(out, len);

    if (to == NULL || digits.len % 2 != 0)
        return false;
    for (size_t i = 0; i < len; i++) {
        int high = digit(digits.ptr[2 * i]), low = digit(digits.ptr[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        to[i] = (uint8_t)(high << 4 | low);
    }
    buf_commit(out, len);
    return true;
}

unsigned rqlite_text_read(struct rqlite_text *t, json_t *row, size_t first, size_t n,
                          struct lonely_span out[RQLITE_SPANS_MAX])
{
    struct lonely_span digits[RQLITE_SPANS_MAX];
    unsigned present = 0;
    size_t need = 0;

    for (size_t i = 0; i < n; i++) {
        json_t *value = json_array_get(row, first + i);

        digits[i] = (struct lonely_span){ (const uint8_t *)json_string_value(value),
                                          json_string_length(value) };
        need += digits[i].len / 2;
    }
    buf_clear(&t->bytes);
    if (buf_reserve(&t->bytes, need + 1) == NULL) /* so that it does not move */
        n = 0;
    for (size_t i = 0; i < RQLITE_SPANS_MAX; i++)
        out[i] = (struct lonely_span){ 0 };
    for (size_t i = 0; i < n; i++) {
        size_t at = t->bytes.len;

        if (digits[i].ptr == NULL || !rqlite_digits_decode(digits[i], &t->bytes))
            continue;
        out[i] = (struct lonely_span){ t->bytes.ptr + at, t->bytes.len - at };
        present |= 1u << i;
    }
    return present;
}
