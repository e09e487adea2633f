/*
 * The scheme token: `Bearer ` and the secret, for every message. Called by auth.c.
 *                                                                    (doc/protocol/auth.md, 2)
 */
#include "auth_scheme.h"

#include <openssl/crypto.h>
#include <string.h>

static const char prefix[] = "Bearer ";
#define PREFIX_LEN (sizeof prefix - 1)

/* A header cannot carry other bytes, and a receiver trims spaces at its end. */
static bool fits_a_header(struct lonely_span secret)
{
    for (size_t i = 0; i < secret.len; i++) {
        if (secret.ptr[i] < 0x20 || secret.ptr[i] > 0x7e)
            return false;
    }
    return secret.len > 0 && secret.ptr[secret.len - 1] != ' ';
}

static enum lonely_error token_key_init(struct lonely_auth_key *key, struct lonely_span secret)
{
    if (secret.len > LONELY_AUTH_TOKEN_MAX_BYTES || !fits_a_header(secret))
        return LONELY_E_SECRET;
    memcpy(key->token.text, prefix, PREFIX_LEN);
    memcpy(key->token.text + PREFIX_LEN, secret.ptr, secret.len);
    key->token.len = PREFIX_LEN + secret.len;
    return LONELY_OK;
}

/* The text is wiped with the rest of the key. */
static void token_key_fini(struct lonely_auth_key *key)
{
    (void)key;
}

static size_t token_sign_max(const struct lonely_auth_key *key)
{
    return key->token.len;
}

static enum lonely_error token_sign(struct lonely_auth_ctx *ctx, const struct lonely_auth_key *key,
                                    const struct lonely_auth_input *in,
                                    const struct auth_stamp *stamp, uint8_t *out, size_t cap,
                                    size_t *out_len)
{
    (void)ctx;
    (void)in;
    (void)stamp;
    if (key->token.len > cap)
        return LONELY_E_NO_SPACE;
    memcpy(out, key->token.text, key->token.len);
    *out_len = key->token.len;
    return LONELY_OK;
}

static enum lonely_auth_result token_verify(struct lonely_auth_ctx *ctx,
                                            const struct lonely_auth_key *key,
                                            const struct lonely_auth_input *in,
                                            const struct lonely_span *authorization,
                                            double now_epoch_s, struct lonely_auth_verified *out)
{
    (void)ctx;
    (void)in;
    (void)now_epoch_s;
    (void)out;
    if (authorization == NULL)
        return LONELY_AUTH_UNAUTHORIZED;
    /* The length is no secret: it is that of every message on the wire. */
    if (authorization->len != key->token.len ||
        CRYPTO_memcmp(authorization->ptr, key->token.text, key->token.len) != 0)
        return LONELY_AUTH_FORBIDDEN;
    return LONELY_AUTH_OK;
}

const struct auth_scheme auth_token = {
    .id = LONELY_AUTH_TOKEN,
    .key_init = token_key_init,
    .key_fini = token_key_fini,
    .sign_max = token_sign_max,
    .sign = token_sign,
    .verify = token_verify,
};
