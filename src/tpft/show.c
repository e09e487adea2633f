/*
 * Texts for people (show.h).
 */
#include "show.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

const char *show_text(const char *ptr, size_t len, char out[SHOW_MAX])
{
    const size_t room = SHOW_MAX - sizeof("...");
    size_t n = len < room ? len : room;

    n = n > 0 ? text_make_printable((const uint8_t *)ptr, n, out) : 0;
    (void)snprintf(out + n, SHOW_MAX - n, "%s", len > room ? "..." : "");
    return out;
}

void show_line(const char *format, ...)
{
    char line[1024];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    (void)fprintf(stderr, "tpft: %s\n", line);
}
