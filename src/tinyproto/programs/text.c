/*
 * A peer's text on a terminal (text.h): no escape sequence may get there.
 */
#include "text.h"

#include <stdbool.h>
#include <string.h>

/* Bytes of the UTF-8 character at `ptr`; 0: there is none. */
static size_t char_len(const uint8_t *ptr, size_t len)
{
    static const struct {
        uint8_t first, last; /* lead byte */
        uint8_t low, high;   /* second byte: no overlong forms, no surrogates, nothing too high */
        size_t n;
    } forms[] = {
        { 0x00, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
        { 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
        { 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
    };

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        size_t n = forms[i].n;

        if (ptr[0] < forms[i].first || ptr[0] > forms[i].last)
            continue;
        if (n > len || (n > 1 && (ptr[1] < forms[i].low || ptr[1] > forms[i].high)))
            return 0;
        for (size_t k = 2; k < n; k++)
            if (ptr[k] < 0x80 || ptr[k] > 0xbf)
                return 0;
        return n;
    }
    return 0;
}

static bool is_control(const uint8_t *ptr, size_t n)
{
    return (n == 1 && (ptr[0] < 0x20 || ptr[0] == 0x7f)) ||
           (n == 2 && ptr[0] == 0xc2 && ptr[1] < 0xa0);
}

size_t text_make_printable(const uint8_t *ptr, size_t len, char *out)
{
    size_t written = 0;

    while (len > 0) {
        size_t n = char_len(ptr, len), used = n > 0 ? n : 1;

        if (n == 0 || is_control(ptr, n)) {
            out[written++] = '?';
        } else {
            memcpy(out + written, ptr, n);
            written += n;
        }
        ptr += used;
        len -= used;
    }
    return written;
}
