/*
 * A letter that is read, written and read again is the same; a path that is let through has the shape
 * that is promised. The bytes are a letter, and a path too.
 */
#include <stdlib.h>
#include <string.h>

#include "letter.h"
#include "path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static bool is_same_text(struct json_text a, struct json_text b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* A member that is not given may hold what an earlier one of its name did. */
static bool is_same(const struct letter *a, const struct letter *b)
{
    const unsigned given = a->given;

    return a->type == b->type && given == b->given &&
           ((given & LETTER_FILE_SIZE) == 0 || a->file_size == b->file_size) &&
           ((given & LETTER_OFFSET) == 0 || a->offset == b->offset) &&
           ((given & LETTER_DESTINATION) == 0 || is_same_text(a->destination, b->destination)) &&
           ((given & LETTER_DOWNLOAD) == 0 || is_same_text(a->download, b->download)) &&
           ((given & LETTER_REASON) == 0 || is_same_text(a->reason, b->reason)) &&
           ((given & LETTER_SUM) == 0 || memcmp(a->sum, b->sum, sizeof(a->sum)) == 0);
}

static void check_letter(const uint8_t *data, size_t size)
{
    size_t cap = 6 * size + 1024, len;
    char *text = malloc(size + 1), *out = malloc(cap), *again = malloc(cap);
    struct letter first, second;

    require(text != NULL && out != NULL && again != NULL);
    if (letter_parse(data, size, text, &first) && first.type != LETTER_UNKNOWN) {
        len = letter_print(&first, out, cap);
        require(len > 0 && letter_parse(out, len, again, &second));
        require(is_same(&first, &second));
    }
    free(text);
    free(out);
    free(again);
}

static void check_path(const uint8_t *data, size_t size)
{
    static const char *const roots[] = { "/srv", "/" };
    char out[PATH_BYTES_MAX + 1], *next = out;
    const char *component;

    if (is_fault(path_below((struct json_text){ (const char *)data, size }, roots, 2, out)))
        return;
    require(strlen(out) <= size);
    while ((component = strsep(&next, "/")) != NULL)
        require(component[0] != '\0' && strcmp(component, ".") != 0 &&
                strcmp(component, "..") != 0 && strlen(component) <= PATH_NAME_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_letter(data, size);
    check_path(data, size);
    return 0;
}
