/*
 * UTF-8 read strictly, and escapes (text.h). Called by print.c.
 */
#include "text.h"

#include <stdint.h>

enum { CHAR_BAD = 0, CHAR_CUT = -1 };

/* The bytes of the character at the beginning, CHAR_BAD, or CHAR_CUT: it may be one with more bytes. No
 * surrogates, no overlong forms (RFC 3629, 4). */
static int decode(struct lonely_span in, uint32_t *out)
{
    uint8_t first = in.ptr[0];
    int len = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    uint32_t c = len == 1 ? first : (uint32_t)(first & (0x7f >> len));

    if ((first >= 0x80 && first < 0xc2) || first > 0xf4)
        return CHAR_BAD;
    for (int i = 1; i < len; i++) {
        if ((size_t)i == in.len)
            return CHAR_CUT;
        if ((in.ptr[i] & 0xc0) != 0x80)
            return CHAR_BAD;
        c = c << 6 | (in.ptr[i] & 0x3f);
    }
    if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return CHAR_BAD;
    *out = c;
    return len;
}

/* Neither control characters nor what turns a terminal's line around. */
static bool is_printable(uint32_t c)
{
    return !(c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 ||
             (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff ||
             (c & 0xfffe) == 0xfffe);
}

size_t text_print(FILE *out, struct lonely_span bytes, bool more)
{
    size_t at = 0;

    while (at < bytes.len) {
        uint32_t c = 0;
        struct lonely_span rest = { bytes.ptr + at, bytes.len - at };
        int len = decode(rest, &c);

        if (len == CHAR_CUT && more)
            break;
        if (len > 0 && is_printable(c)) {
            fwrite(rest.ptr, 1, (size_t)len, out);
            at += (size_t)len;
        } else {
            fprintf(out, "\\x%02x", rest.ptr[0]);
            at++;
        }
    }
    return at;
}

static bool is_utf8(struct lonely_span bytes)
{
    uint32_t ignored;

    for (size_t at = 0; at < bytes.len;) {
        int len = decode((struct lonely_span){ bytes.ptr + at, bytes.len - at }, &ignored);

        if (len <= 0)
            return false;
        at += (size_t)len;
    }
    return true;
}

void text_print_json(FILE *out, struct lonely_span bytes)
{
    if (!is_utf8(bytes)) {
        fputs("null", out);
        return;
    }
    fputc('"', out);
    for (size_t i = 0; i < bytes.len; i++) {
        uint8_t c = bytes.ptr[i];

        if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

void text_print_hex(FILE *out, struct lonely_span bytes)
{
    for (size_t i = 0; i < bytes.len; i++)
        fprintf(out, "%02x", bytes.ptr[i]);
}

void text_print_base64(FILE *out, struct lonely_span bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t at = 0; at < bytes.len; at += 3) {
        size_t n = bytes.len - at < 3 ? bytes.len - at : 3;
        uint32_t bits = (uint32_t)bytes.ptr[at] << 16;

        if (n > 1)
            bits |= (uint32_t)bytes.ptr[at + 1] << 8;
        if (n > 2)
            bits |= bytes.ptr[at + 2];
        for (size_t i = 0; i < 4; i++)
            fputc(i <= n ? digits[bits >> (18 - 6 * i) & 0x3f] : '=', out);
    }
}
