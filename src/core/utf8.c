/*
 * The strict UTF-8 check that authorizations, globs and the topics that a glob may match have to
 * pass (doc/protocol/stateful.md, 5). Leaves decoding to those who want code points.
 */
#include "utf8.h"

#include <string.h>

/*
 * Bytes in the sequence that starts here, 0 if it is invalid. `*lo` and `*hi` bound the second
 * byte; this is where overlong forms, surrogates and values above U+10FFFF fall out.
 */
static size_t lead(uint8_t b, uint8_t *lo, uint8_t *hi)
{
    *lo = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    *hi = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    if (b < 0xc2)
        return 0;
    if (b < 0xe0)
        return 2;
    if (b < 0xf0)
        return 3;
    return b < 0xf5 ? 4 : 0;
}

/* Bytes in the valid multi-byte sequence at `p`, of which `left` may be read; 0 if invalid. */
static size_t sequence(const uint8_t *p, size_t left)
{
    uint8_t lo, hi;
    size_t n = lead(p[0], &lo, &hi);

    if (n == 0 || n > left || p[1] < lo || p[1] > hi)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

bool utf8_is_valid(struct lonely_span s)
{
    size_t i = 0;

    while (i < s.len) {
        uint64_t eight;
        size_t n;

        if (s.len - i >= sizeof(eight)) {
            memcpy(&eight, s.ptr + i, sizeof(eight));
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof(eight);
                continue;
            }
        }
        n = s.ptr[i] < 0x80 ? 1 : sequence(s.ptr + i, s.len - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}
