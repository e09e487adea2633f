/*
 * SHA-256 and SHA-512 without an allocation and without looking the algorithm up: the low-level
 * functions of libcrypto keep their state on the caller's stack, which EVP cannot. They are
 * marked deprecated since OpenSSL 3.0 in favour of EVP, hence the compatibility level.
 */
#ifndef CORE_SHA_H
#define CORE_SHA_H

#ifndef OPENSSL_API_COMPAT
#define OPENSSL_API_COMPAT 0x10100000L /* before any OpenSSL header: include sha.h first */
#endif
#include <openssl/sha.h>

#include <stdbool.h>

#include <lonely/span.h>

/* False if libcrypto fails. `b` follows `a`; either may be empty. */
static inline bool sha256(struct lonely_span a, struct lonely_span b, uint8_t out[32])
{
    SHA256_CTX c;

    return SHA256_Init(&c) == 1 && SHA256_Update(&c, a.ptr, a.len) == 1 &&
           SHA256_Update(&c, b.ptr, b.len) == 1 && SHA256_Final(out, &c) == 1;
}

static inline bool sha512(struct lonely_span a, uint8_t out[64])
{
    SHA512_CTX c;

    return SHA512_Init(&c) == 1 && SHA512_Update(&c, a.ptr, a.len) == 1 &&
           SHA512_Final(out, &c) == 1;
}

#endif
