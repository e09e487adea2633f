/*
 * The value of the header Repr-Digest that goes with RECEIVE (doc/protocol/http.md, 3, 5.1 and
 * Q21): written in exactly one form, read in any form that a peer or a standard would send.
 */
#include <string.h>

#include <lonely/stateless.h>

#include "base64.h"

static const char prefix[] = "sha-512=";
#define PREFIX_LEN (sizeof prefix - 1)

/* 64 bytes make 86 characters and two of padding. */
#define DIGEST_CHARS BASE64_UNPADDED_LEN(LONELY_SHA512_BYTES)

void lonely_repr_digest_write(const uint8_t sha512[LONELY_SHA512_BYTES],
                              char out[LONELY_REPR_DIGEST_BYTES])
{
    struct lonely_span digest = { sha512, LONELY_SHA512_BYTES };
    size_t n = PREFIX_LEN;

    memcpy(out, prefix, PREFIX_LEN);
    n += base64_encode(BASE64_STANDARD, digest, (uint8_t *)out + n);
    out[n] = '\0';
}

static bool is_base64(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
}

static enum lonely_error digest_decode(struct lonely_span text, uint8_t sha512[LONELY_SHA512_BYTES])
{
    uint8_t chars[DIGEST_CHARS];
    size_t n = 0;

    for (size_t i = 0; i < text.len; i++) {
        if (!is_base64(text.ptr[i]))
            continue;
        if (n == sizeof chars)
            return LONELY_E_HASH_SIZE;
        chars[n++] = text.ptr[i];
    }
    if (n != sizeof chars)
        return LONELY_E_HASH_SIZE;
    n = base64_decode_lenient((struct lonely_span){ chars, n }, sha512, LONELY_SHA512_BYTES);
    return n == LONELY_SHA512_BYTES ? LONELY_OK : LONELY_E_HASH_SIZE;
}

/* Cuts the first element off `list`, without the white space around it. */
static struct lonely_span next_element(struct lonely_span *list)
{
    const uint8_t *comma = memchr(list->ptr, ',', list->len);
    size_t len = comma != NULL ? (size_t)(comma - list->ptr) : list->len;
    struct lonely_span e = { list->ptr, len };

    len += comma != NULL;
    list->ptr += len;
    list->len -= len;
    while (e.len > 0 && (e.ptr[0] == ' ' || e.ptr[0] == '\t')) {
        e.ptr++;
        e.len--;
    }
    while (e.len > 0 && (e.ptr[e.len - 1] == ' ' || e.ptr[e.len - 1] == '\t'))
        e.len--;
    return e;
}

enum lonely_error lonely_repr_digest_parse(struct lonely_span value,
                                           uint8_t sha512[LONELY_SHA512_BYTES])
{
    struct lonely_span digest = { 0 };

    while (value.len > 0) {
        struct lonely_span e = next_element(&value);

        if (e.len >= PREFIX_LEN && memcmp(e.ptr, prefix, PREFIX_LEN) == 0)
            digest = (struct lonely_span){ e.ptr + PREFIX_LEN, e.len - PREFIX_LEN };
    }
    if (digest.ptr == NULL)
        return LONELY_E_HEADER_MISSING;
    return digest_decode(digest, sha512);
}
