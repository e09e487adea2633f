/*
 * What is said to rqlite and what it answers: JSON arrays of parameterized statements, and of their
 * results. (doc/protocol/http.md, 13)
 *
 * Bytes travel as hexadecimal digits both ways, which is exact for all of them: a parameter "x'..'"
 * arrives as a BLOB (CAST makes it TEXT where the column is), and columns are asked for as hex(...).
 * JSON strings would lose NULs and bytes that are not UTF-8; and rqlite takes for text what a TEXT
 * column gives, even through a CAST.
 */
#ifndef RQLITE_JSON_H
#define RQLITE_JSON_H

#include <jansson.h>

#include <lonely/span.h>

#include "buf.h"

/* Statements, `[["SQL", parameter, ...], ...]`. After the first that did not fit nothing is added. */
struct rqlite_body {
    struct buf text;
    size_t count; /* of statements */
    bool failed;  /* beyond the maximum, or no memory */
};

void rqlite_body_init(struct rqlite_body *b, size_t max);
void rqlite_body_fini(struct rqlite_body *b);
void rqlite_body_clear(struct rqlite_body *b);
/* `sql` is a literal of ours without characters that JSON escapes. The parameters follow. */
void rqlite_body_statement(struct rqlite_body *b, const char *sql);
void rqlite_body_int(struct rqlite_body *b, int64_t n);
void rqlite_body_bytes(struct rqlite_body *b, struct lonely_span bytes);
void rqlite_body_bytes_or_null(struct rqlite_body *b, struct lonely_span bytes); /* len 0: NULL */
/* Ends the array. false: something did not fit; there is nothing to send. */
bool rqlite_body_end(struct rqlite_body *b);

/* The results of a call, one a statement. Indices beyond what is there give nothing, not a crash. */
const char *rqlite_error(json_t *results); /* of the first that failed; NULL: none did */
int64_t rqlite_rows_affected(json_t *results, size_t statement);
int64_t rqlite_last_insert_id(json_t *results, size_t statement);
size_t rqlite_row_count(json_t *results, size_t statement);
json_t *rqlite_row(json_t *results, size_t statement, size_t row);
/* false: the column is NULL or no integer; `*out` is 0. */
bool rqlite_int(json_t *row, size_t column, int64_t *out);

/* Some columns of a row, decoded. */
struct rqlite_text {
    struct buf bytes;
};
#define RQLITE_SPANS_MAX 4
void rqlite_text_init(struct rqlite_text *t);
void rqlite_text_fini(struct rqlite_text *t);
/* Decodes the columns [first, first + n) of a row, which may be NULL, into `out`, until the next call;
 * what is absent or no hexadecimal digits has len 0, and its bit in the result is not set (bit 0: the
 * first). */
unsigned rqlite_text_read(struct rqlite_text *t, json_t *row, size_t first, size_t n,
                          struct lonely_span out[RQLITE_SPANS_MAX]);

/* Appends what the digits stand for. false: they are none, or `out` has no room. */
bool rqlite_digits_decode(struct lonely_span digits, struct buf *out);

#endif
