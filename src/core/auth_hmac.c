/*
 * The scheme hmac: HMAC-SHA-512 over the content of the message, a timestamp and a nonce. Called by
 * auth.c; the bytes come from auth_bytes.c.                          (doc/protocol/auth.md, 3)
 *
 * HMAC is done here from two SHA-512 states that have taken the padded key already and are copied
 * for each message: that is the fastest way OpenSSL 3.0 offers (tests/bench/bench_auth.c).
 */
#include "auth_bytes.h"
#include "auth_scheme.h"
#include "base64.h"

#include <openssl/crypto.h>
#include <string.h>

static const char prefix[] = "X-HMAC ";
#define PREFIX_LEN (sizeof prefix - 1)

#define BLOCK_SIZE       128 /* of SHA-512 */
#define MAC_TEXT_LEN     BASE64_PADDED_LEN(LONELY_AUTH_MAC_BYTES)
#define TIMESTAMP_DIGITS 19 /* more than any time has, and no more than a u64 takes */

_Static_assert(PREFIX_LEN + 20 + 1 + 255 + 1 + MAC_TEXT_LEN == LONELY_AUTH_HMAC_MAX_BYTES,
               "the maximum in the header is wrong");

static EVP_MD_CTX *padded_key_state(const EVP_MD *sha512, const uint8_t *secret, uint8_t pad)
{
    uint8_t block[BLOCK_SIZE];
    EVP_MD_CTX *state = EVP_MD_CTX_new();

    for (size_t i = 0; i < BLOCK_SIZE; i++)
        block[i] = (uint8_t)((i < LONELY_AUTH_HMAC_KEY_BYTES ? secret[i] : 0) ^ pad);
    if (state != NULL && (EVP_DigestInit_ex2(state, sha512, NULL) != 1 ||
                          EVP_DigestUpdate(state, block, BLOCK_SIZE) != 1)) {
        EVP_MD_CTX_free(state);
        state = NULL;
    }
    OPENSSL_cleanse(block, sizeof block);
    return state;
}

static enum lonely_error hmac_key_init(struct lonely_auth_key *key, struct lonely_span secret)
{
    uint8_t bytes[LONELY_AUTH_HMAC_KEY_BYTES];
    enum lonely_error err = LONELY_E_SECRET;

    if (base64_decode_lenient(secret, bytes, sizeof bytes) == sizeof bytes) {
        EVP_MD *sha512 = EVP_MD_fetch(NULL, "SHA512", NULL);

        if (sha512 != NULL) {
            key->hmac.inner = padded_key_state(sha512, bytes, 0x36);
            key->hmac.outer = padded_key_state(sha512, bytes, 0x5c);
        }
        EVP_MD_free(sha512); /* the states hold their own references */
        err = key->hmac.inner == NULL || key->hmac.outer == NULL ? LONELY_E_CRYPTO : LONELY_OK;
    }
    OPENSSL_cleanse(bytes, sizeof bytes);
    return err;
}

static void hmac_key_fini(struct lonely_auth_key *key)
{
    EVP_MD_CTX_free(key->hmac.inner); /* wipes the state */
    EVP_MD_CTX_free(key->hmac.outer);
}

static size_t hmac_sign_max(const struct lonely_auth_key *key)
{
    (void)key;
    return LONELY_AUTH_HMAC_MAX_BYTES;
}

static bool digest_sink(void *arg, const uint8_t *bytes, size_t len)
{
    return EVP_DigestUpdate(arg, bytes, len) == 1;
}

static enum lonely_error hmac_compute(struct lonely_auth_ctx *ctx,
                                      const struct lonely_auth_key *key,
                                      const struct lonely_auth_input *in,
                                      const struct auth_stamp *stamp,
                                      uint8_t mac[LONELY_AUTH_MAC_BYTES])
{
    enum lonely_error err;

    if (EVP_MD_CTX_copy_ex(ctx->work, key->hmac.inner) != 1)
        return LONELY_E_CRYPTO;
    err = auth_bytes(in, stamp->now_epoch_s, stamp->nonce, digest_sink, ctx->work);
    if (err != LONELY_OK)
        return err;
    if (EVP_DigestFinal_ex(ctx->work, mac, NULL) != 1 ||
        EVP_MD_CTX_copy_ex(ctx->work, key->hmac.outer) != 1 ||
        EVP_DigestUpdate(ctx->work, mac, LONELY_AUTH_MAC_BYTES) != 1 ||
        EVP_DigestFinal_ex(ctx->work, mac, NULL) != 1)
        return LONELY_E_CRYPTO;
    return LONELY_OK;
}

/* Writes `value` in decimal, without leading zeros, and returns the number of digits. */
static size_t decimal_write(uint64_t value, uint8_t out[20])
{
    uint8_t digits[20];
    size_t n = 0;

    do {
        digits[sizeof digits - ++n] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    memcpy(out, digits + sizeof digits - n, n);
    return n;
}

static enum lonely_error hmac_sign(struct lonely_auth_ctx *ctx, const struct lonely_auth_key *key,
                                   const struct lonely_auth_input *in,
                                   const struct auth_stamp *stamp, uint8_t *out, size_t cap,
                                   size_t *out_len)
{
    const struct lonely_span nonce = stamp->nonce;
    uint8_t timestamp[20], mac[LONELY_AUTH_MAC_BYTES];
    const size_t timestamp_len = decimal_write(stamp->now_epoch_s, timestamp);
    enum lonely_error err;
    uint8_t *p = out;

    if (in == NULL || auth_bytes_level_is_negative(in) || nonce.len == 0 || nonce.len > 255 ||
        memchr(nonce.ptr, ':', nonce.len) != NULL)
        return LONELY_E_ARGUMENT;
    if (cap < PREFIX_LEN + timestamp_len + 1 + nonce.len + 1 + MAC_TEXT_LEN)
        return LONELY_E_NO_SPACE;
    err = hmac_compute(ctx, key, in, stamp, mac);
    if (err != LONELY_OK)
        return err;

    memcpy(p, prefix, PREFIX_LEN);
    p += PREFIX_LEN;
    memcpy(p, timestamp, timestamp_len);
    p += timestamp_len;
    *p++ = ':';
    memcpy(p, nonce.ptr, nonce.len);
    p += nonce.len;
    *p++ = ':';
    p += base64_encode(BASE64_STANDARD, (struct lonely_span){ mac, sizeof mac }, p);
    *out_len = (size_t)(p - out);
    return LONELY_OK;
}

/* Takes what stands before the next colon off `rest`. False: there is no colon in its first
 * `max` + 1 bytes. */
static bool take_to_colon(struct lonely_span *rest, size_t max, struct lonely_span *out)
{
    const size_t look = rest->len < max + 1 ? rest->len : max + 1;
    const uint8_t *colon = look == 0 ? NULL : memchr(rest->ptr, ':', look);

    if (colon == NULL)
        return false;
    *out = (struct lonely_span){ rest->ptr, (size_t)(colon - rest->ptr) };
    rest->ptr = colon + 1;
    rest->len -= out->len + 1;
    return true;
}

static bool decimal_read(struct lonely_span text, uint64_t *out)
{
    uint64_t value = 0;

    if (text.len == 0 || text.len > TIMESTAMP_DIGITS)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    *out = value;
    return true;
}

/* `X-HMAC <timestamp>:<nonce>:<mac>` into its parts. */
static bool hmac_parse(struct lonely_span text, struct auth_stamp *stamp, struct lonely_span *mac)
{
    struct lonely_span timestamp;

    if (text.len < PREFIX_LEN || memcmp(text.ptr, prefix, PREFIX_LEN) != 0)
        return false;
    text.ptr += PREFIX_LEN;
    text.len -= PREFIX_LEN;
    if (!take_to_colon(&text, TIMESTAMP_DIGITS, &timestamp) ||
        !take_to_colon(&text, 255, &stamp->nonce) || !decimal_read(timestamp, &stamp->now_epoch_s))
        return false;
    *mac = text;
    return true;
}

/* A frame with such a url is bound to its connection and counter: it needs no store of used macs. */
static bool is_bound_to_a_connection(const struct lonely_auth_input *in)
{
    static const char scheme[] = "websocket:";
    const size_t len = sizeof scheme - 1;
    const struct lonely_span url = auth_bytes_url(in);

    return url.len >= len && memcmp(url.ptr, scheme, len) == 0;
}

static enum lonely_auth_result hmac_verify(struct lonely_auth_ctx *ctx,
                                           const struct lonely_auth_key *key,
                                           const struct lonely_auth_input *in,
                                           const struct lonely_span *authorization,
                                           double now_epoch_s, struct lonely_auth_verified *out)
{
    uint8_t given[LONELY_AUTH_MAC_BYTES], expected[LONELY_AUTH_MAC_BYTES];
    struct auth_stamp stamp;
    struct lonely_span mac;
    enum lonely_error err;
    bool equal;

    if (authorization == NULL)
        return LONELY_AUTH_UNAUTHORIZED;
    if (!hmac_parse(*authorization, &stamp, &mac) ||
        !lonely_auth_in_window(stamp.now_epoch_s, now_epoch_s) ||
        base64_decode(BASE64_STANDARD, mac, given, sizeof given) != sizeof given)
        return LONELY_AUTH_FORBIDDEN;

    err = hmac_compute(ctx, key, in, &stamp, expected);
    if (err != LONELY_OK)
        return err == LONELY_E_CRYPTO ? LONELY_AUTH_UNAVAILABLE : LONELY_AUTH_FORBIDDEN;
    equal = CRYPTO_memcmp(given, expected, sizeof given) == 0;
    OPENSSL_cleanse(expected, sizeof expected); /* would be good for a message that was refused */
    if (!equal)
        return LONELY_AUTH_FORBIDDEN;

    memcpy(out->mac, given, sizeof out->mac);
    out->store = !is_bound_to_a_connection(in);
    out->keep_until_epoch_s = lonely_auth_keep_until(stamp.now_epoch_s);
    return LONELY_AUTH_OK;
}

const struct auth_scheme auth_hmac = {
    .id = LONELY_AUTH_HMAC,
    .key_init = hmac_key_init,
    .key_fini = hmac_key_fini,
    .sign_max = hmac_sign_max,
    .sign = hmac_sign,
    .verify = hmac_verify,
};
