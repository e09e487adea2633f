/*
 * Reader of INI text: sections, `key = value`, whole-line comments. Knows no option; conf.c does.
 *
 * - `[section]` alone on a line; a section may come again.
 * - `key = value`; white space around both is dropped, the rest of the value is kept as it is: no
 *   quotes, no escapes, no continuation lines, no comment behind a value.
 * - A line whose first visible character is `#` or `;` is a comment.
 * - Lines end with LF or CR LF; a UTF-8 byte order mark is skipped.
 */
#ifndef INI_H
#define INI_H

#include <stdbool.h>
#include <stddef.h>

#define INI_FILE_MAX ((size_t)4 << 20)   /* bytes */
#define INI_LINE_MAX ((size_t)128 << 10) /* bytes, without the line's end */

struct ini_line {
    unsigned number;
    const char *section;
    const char *key; /* NULL: the line is the section's header */
    const char *value;
};

/* false stops the reading; who returns it keeps the reason. Strings die with the text. */
typedef bool ini_line_fn(void *arg, const struct ini_line *line);

struct ini_error {
    unsigned line;    /* 0: `fn` returned false */
    const char *text; /* static */
};

/*
 * Reads `text`, `len` bytes and writable: it is cut into strings. text[len] must be NUL.
 * Pure but for `fn`, which is called once a section header and once a key, in order.
 */
bool ini_parse(char *text, size_t len, ini_line_fn *fn, void *arg, struct ini_error *error);

/*
 * Reads a whole file, at most INI_FILE_MAX bytes, into memory that the caller frees (mem_free);
 * a NUL follows the *len bytes. NULL: `*why` says what failed (static, or of strerror).
 */
char *ini_read_file(const char *path, size_t *len, const char **why);

#endif
