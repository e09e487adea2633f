/*
 * Base64 (RFC 4648): encoding, strict decoding, and the lenient one for secrets. Called for each
 * signature, so the strict decoder looks for errors only once, at the end.
 */
#include "base64.h"

static const char alphabets[2][65] = {
    [BASE64_STANDARD] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    [BASE64_URL] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
};

/* A character's value in the low six bits; above them the alphabets it is not in. */
#define NOT_URL      0x40
#define NOT_STANDARD 0x80
#define NOT_BASE64   (NOT_URL | NOT_STANDARD)

static const uint8_t not_in[2] = { [BASE64_STANDARD] = NOT_STANDARD, [BASE64_URL] = NOT_URL };

/* clang-format off */
static const uint8_t values[256] = {
    0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0x7e, 0xc0, 0xbe, 0xc0, 0x7f,
    0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    0xc0, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e,
    0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0xc0, 0xc0, 0xc0, 0xc0, 0xbf,
    0xc0, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f, 0x30, 0x31, 0x32, 0x33, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
    0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0,
};
/* clang-format on */

size_t base64_encode_unpadded(enum base64_alphabet alphabet, struct lonely_span in, uint8_t *out)
{
    const char *const letters = alphabets[alphabet];
    const uint8_t *p = in.ptr;
    uint8_t *q = out;
    size_t left = in.len;

    for (; left >= 3; left -= 3, p += 3) {
        const uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];

        *q++ = (uint8_t)letters[bits >> 18];
        *q++ = (uint8_t)letters[bits >> 12 & 63];
        *q++ = (uint8_t)letters[bits >> 6 & 63];
        *q++ = (uint8_t)letters[bits & 63];
    }
    if (left > 0) {
        const uint32_t bits = (uint32_t)p[0] << 16 | (left > 1 ? (uint32_t)p[1] << 8 : 0);

        *q++ = (uint8_t)letters[bits >> 18];
        *q++ = (uint8_t)letters[bits >> 12 & 63];
        if (left > 1)
            *q++ = (uint8_t)letters[bits >> 6 & 63];
    }
    return (size_t)(q - out);
}

size_t base64_encode(enum base64_alphabet alphabet, struct lonely_span in, uint8_t *out)
{
    size_t len = base64_encode_unpadded(alphabet, in, out);

    while (len % 4 != 0)
        out[len++] = '=';
    return len;
}

/* The last group without its padding: 2 characters give 1 byte, 3 give 2. Returns what must be free
 * of bits: those of the characters, and unused low ones, as NOT_BASE64. */
static uint8_t decode_tail(const uint8_t *p, size_t n_chars, uint8_t *out)
{
    const uint8_t a = values[p[0]], b = values[p[1]], c = n_chars == 3 ? values[p[2]] : 0;
    const uint32_t bits =
        (uint32_t)(a & 63) << 18 | (uint32_t)(b & 63) << 12 | (uint32_t)(c & 63) << 6;
    const uint32_t unused = n_chars == 3 ? bits & 0xff : bits & 0xffff;

    out[0] = (uint8_t)(bits >> 16);
    if (n_chars == 3)
        out[1] = (uint8_t)(bits >> 8);
    return (uint8_t)(((a | b | c) & NOT_BASE64) | (unused != 0 ? NOT_BASE64 : 0));
}

size_t base64_decode(enum base64_alphabet alphabet, struct lonely_span in, uint8_t *out, size_t cap)
{
    const uint8_t *p = in.ptr;
    uint8_t *q = out;
    uint8_t bad = 0;
    size_t padding = 0, len;

    if (in.len == 0)
        return 0;
    if (in.len % 4 != 0)
        return BASE64_BAD;
    while (padding < 2 && p[in.len - 1 - padding] == '=')
        padding++;
    len = in.len / 4 * 3 - padding;
    if (len > cap)
        return BASE64_BAD;

    for (size_t left = len / 3; left > 0; left--, p += 4) {
        const uint8_t a = values[p[0]], b = values[p[1]], c = values[p[2]];
        const uint8_t d = values[p[3]];
        const uint32_t bits = (uint32_t)(a & 63) << 18 | (uint32_t)(b & 63) << 12 |
                              (uint32_t)(c & 63) << 6 | (d & 63);

        bad |= a | b | c | d;
        *q++ = (uint8_t)(bits >> 16);
        *q++ = (uint8_t)(bits >> 8);
        *q++ = (uint8_t)bits;
    }
    if (padding > 0)
        bad |= decode_tail(p, 4 - padding, q);
    return (bad & not_in[alphabet]) != 0 ? BASE64_BAD : len;
}

size_t base64_decode_lenient(struct lonely_span in, uint8_t *out, size_t cap)
{
    uint32_t bits = 0; /* the characters since the last whole group, low end last */
    size_t n_chars = 0, len = 0;

    for (size_t i = 0; i < in.len; i++) {
        const uint8_t value = values[in.ptr[i]];

        if ((value & NOT_BASE64) == NOT_BASE64)
            continue;
        bits = bits << 6 | (value & 63);
        /* Of four characters the first gives no byte, each other completes one. */
        if (n_chars++ % 4 == 0)
            continue;
        if (len == cap)
            return BASE64_BAD;
        out[len++] = (uint8_t)(bits >> (6 - 2 * ((n_chars - 1) % 4)));
    }
    return n_chars % 4 == 1 ? BASE64_BAD : len;
}
