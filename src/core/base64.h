/*
 * Base64 (RFC 4648), standard and URL-safe. Used for macs, nonces, secrets and connection urls.
 * Pure: no allocation, no errno. Internal to the programs: not installed.
 */
#ifndef BASE64_H
#define BASE64_H

#include <lonely/span.h>

enum base64_alphabet {
    BASE64_STANDARD, /* ends with + and / */
    BASE64_URL       /* ends with - and _ */
};

/* Characters for n bytes, with padding and without. */
#define BASE64_PADDED_LEN(n)   (((n) + 2) / 3 * 4)
#define BASE64_UNPADDED_LEN(n) (((n)*4 + 2) / 3)
/* Room for the bytes of n characters, at most. */
#define BASE64_DECODED_MAX(n) ((n) / 4 * 3 + 2)

/* What decoders return when the text is not acceptable or the bytes do not fit. */
#define BASE64_BAD SIZE_MAX

/* Writes BASE64_PADDED_LEN(in.len) characters, or BASE64_UNPADDED_LEN(in.len) without padding, to
 * `out`, no NUL behind them. Returns the number of characters. */
size_t base64_encode(enum base64_alphabet alphabet, struct lonely_span in, uint8_t *out);
size_t base64_encode_unpadded(enum base64_alphabet alphabet, struct lonely_span in, uint8_t *out);

/* Decodes exactly what base64_encode writes: padded, this alphabet, unused low bits zero. So two
 * texts that are accepted are equal if and only if their bytes are. Returns the number of bytes, or
 * BASE64_BAD also if they are more than `cap`. */
size_t base64_decode(enum base64_alphabet alphabet, struct lonely_span in, uint8_t *out,
                     size_t cap);

/* Decodes what people put in files: either alphabet, even mixed; every other byte, padding and
 * white space among them, is skipped; unused low bits are ignored. BASE64_BAD if one character is
 * left over at the end, or if there are more than `cap` bytes. */
size_t base64_decode_lenient(struct lonely_span in, uint8_t *out, size_t cap);

#endif
