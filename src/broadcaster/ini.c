/*
 * Reader of INI text (ini.h). ding-libs was tried: it loses what stands before the first section,
 * cuts values at a NUL, mixes keys that differ in case, knows no line of an unknown section, and
 * takes a minute for 100,000 keys.
 */
#include "ini.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"

struct parser {
    struct ini_line line;
    ini_line_fn *fn;
    void *arg;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

/* Drops white space at both ends; `end` is where the text ends, and gets a NUL. */
static char *trim(char *text, char *end)
{
    while (end > text && is_blank(end[-1]))
        end--;
    *end = '\0';
    while (is_blank(*text))
        text++;
    return text;
}

/* What is wrong with the line, or NULL. `end` points behind it, at a NUL. */
static const char *parse_line(struct parser *p, char *text, char *end, bool *go_on)
{
    char *equals;

    if ((size_t)(end - text) > INI_LINE_MAX)
        return "the line is too long (more than 131072 bytes)";
    if (memchr(text, '\0', (size_t)(end - text)) != NULL)
        return "the line holds a NUL byte";
    text = trim(text, end);
    if (*text == '\0' || *text == '#' || *text == ';')
        return NULL;
    end = text + strlen(text);
    p->line.key = p->line.value = NULL;
    if (*text == '[') {
        if (end[-1] != ']')
            return "a section must be written as [name]";
        p->line.section = trim(text + 1, end - 1);
    } else {
        equals = strchr(text, '=');
        if (equals == NULL || equals == text)
            return "expected [section], key = value, or a comment that begins with # or ;";
        if (p->line.section == NULL)
            return "a key before the first [section]";
        p->line.key = trim(text, equals);
        p->line.value = trim(equals + 1, end);
    }
    *go_on = p->fn(p->arg, &p->line);
    return NULL;
}

bool ini_parse(char *text, size_t len, ini_line_fn *fn, void *arg, struct ini_error *error)
{
    struct parser p = { .fn = fn, .arg = arg };
    char *at = text, *const end = text + len;
    bool go_on = true;

    *error = (struct ini_error){ 0 };
    if (len >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0)
        at += 3;
    while (at < end && go_on && error->text == NULL) {
        char *newline = memchr(at, '\n', (size_t)(end - at));
        char *line_end = newline == NULL ? end : newline;

        p.line.number++;
        *line_end = '\0';
        error->text = parse_line(&p, at, line_end, &go_on);
        at = line_end + 1;
    }
    error->line = error->text == NULL ? 0 : p.line.number;
    return go_on && error->text == NULL;
}

/* Until the end or `size` bytes; the number read, or -1. */
static ssize_t read_up_to(int fd, char *to, size_t size)
{
    size_t len = 0;
    ssize_t n = 1;

    while (n != 0 && len < size) {
        n = read(fd, to + len, size - len);
        if (n > 0)
            len += (size_t)n;
        else if (n < 0 && errno != EINTR)
            return -1;
    }
    return (ssize_t)len;
}

char *ini_read_file(const char *path, size_t *len, const char **why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text;
    ssize_t n;

    if (fd < 0) {
        *why = strerror(errno);
        return NULL;
    }
    text = mem_alloc(INI_FILE_MAX + 1);
    n = read_up_to(fd, text, INI_FILE_MAX + 1);
    *why = n < 0 ? strerror(errno) : (size_t)n > INI_FILE_MAX ? "larger than 4 MiB" : NULL;
    close(fd);
    if (*why != NULL) {
        mem_free(text);
        return NULL;
    }
    text[n] = '\0';
    *len = (size_t)n;
    return text;
}
