/*
 * Authorization: keys, signing, verifying with several secrets, the window of time. Dispatches to
 * the schemes (auth_none.c, auth_token.c, auth_hmac.c).             (doc/protocol/auth.md, 1 to 3)
 */
#include "auth_scheme.h"
#include "base64.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <string.h>

static const struct auth_scheme *const schemes[] = {
    [LONELY_AUTH_NONE] = &auth_none,
    [LONELY_AUTH_TOKEN] = &auth_token,
    [LONELY_AUTH_HMAC] = &auth_hmac,
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const char *name_of(const char *const *names, size_t n, size_t i)
{
    return i < n && names[i] != NULL ? names[i] : "unknown";
}

const char *lonely_auth_scheme_str(enum lonely_auth_scheme scheme)
{
    static const char *const names[] = { "none", "token", "hmac" };

    return name_of(names, COUNT(names), (size_t)scheme);
}

const char *lonely_auth_result_str(enum lonely_auth_result result)
{
    static const char *const names[] = { "ok", "unauthorized", "forbidden", "unavailable" };

    return name_of(names, COUNT(names), (size_t)result);
}

const char *lonely_auth_op_str(enum lonely_auth_op op)
{
#define NAME(op) [LONELY_AUTH_##op] = #op
    static const char *const names[] = {
        NAME(SUBSCRIBE_EXACT),
        NAME(SUBSCRIBE_GLOB),
        NAME(NOTIFY),
        NAME(STATEFUL_CONFIGURE),
        NAME(CHECK_SUBSCRIPTIONS),
        NAME(SET_SUBSCRIPTIONS),
        NAME(STATEFUL_CONTINUE_RECEIVE),
        NAME(CONFIRM_RECEIVE),
        NAME(CONFIRM_MISSED),
        NAME(RECEIVE),
        NAME(MISSED),
        NAME(CONFIRM_SUBSCRIBE_EXACT),
        NAME(CONFIRM_SUBSCRIBE_GLOB),
        NAME(CONFIRM_NOTIFY),
        NAME(CHECK_SUBSCRIPTIONS_RESPONSE),
        NAME(SET_SUBSCRIPTIONS_RESPONSE),
        NAME(STATEFUL_CONFIRM_CONFIGURE),
        NAME(STATEFUL_ENABLE_ZSTD_PRESET),
        NAME(STATEFUL_ENABLE_ZSTD_CUSTOM),
        NAME(STATEFUL_DISABLE_ZSTD_CUSTOM),
        NAME(STATEFUL_CONTINUE_NOTIFY),
    };
#undef NAME

    return name_of(names, COUNT(names), (size_t)op);
}

/* OpenSSL keeps a queue of errors for each thread. One left there by us would be taken for one of a
 * TLS connection of the same thread. */
static enum lonely_error crypto_failed(void)
{
    ERR_clear_error();
    return LONELY_E_CRYPTO;
}

/* ---- Keys ---- */

enum lonely_error lonely_auth_key_create(enum lonely_auth_scheme scheme, struct lonely_span secret,
                                         struct lonely_auth_key **out)
{
    struct lonely_auth_key *key;
    enum lonely_error err;

    *out = NULL;
    if ((size_t)scheme >= COUNT(schemes))
        return LONELY_E_ARGUMENT;
    key = OPENSSL_zalloc(sizeof *key);
    if (key == NULL)
        return crypto_failed();
    key->scheme = schemes[scheme];
    err = key->scheme->key_init(key, secret);
    if (err != LONELY_OK) {
        lonely_auth_key_destroy(key);
        return err == LONELY_E_CRYPTO ? crypto_failed() : err;
    }
    *out = key;
    return LONELY_OK;
}

void lonely_auth_key_destroy(struct lonely_auth_key *key)
{
    if (key == NULL)
        return;
    key->scheme->key_fini(key);
    OPENSSL_clear_free(key, sizeof *key);
}

enum lonely_auth_scheme lonely_auth_key_scheme(const struct lonely_auth_key *key)
{
    return key->scheme->id;
}

void lonely_auth_secret_text(const uint8_t random[LONELY_AUTH_HMAC_KEY_BYTES],
                             uint8_t out[LONELY_AUTH_SECRET_BYTES])
{
    base64_encode_unpadded(BASE64_URL, (struct lonely_span){ random, LONELY_AUTH_HMAC_KEY_BYTES },
                           out);
}

enum lonely_error lonely_auth_ctx_create(struct lonely_auth_ctx **out)
{
    struct lonely_auth_ctx *ctx = OPENSSL_zalloc(sizeof *ctx);

    *out = NULL;
    if (ctx == NULL)
        return crypto_failed();
    ctx->work = EVP_MD_CTX_new();
    if (ctx->work == NULL) {
        lonely_auth_ctx_destroy(ctx);
        return crypto_failed();
    }
    *out = ctx;
    return LONELY_OK;
}

void lonely_auth_ctx_destroy(struct lonely_auth_ctx *ctx)
{
    if (ctx == NULL)
        return;
    EVP_MD_CTX_free(ctx->work); /* wipes what is left of a key's state */
    OPENSSL_free(ctx);
}

/* ---- Signing ---- */

void lonely_auth_nonce_text(const uint8_t random[4], uint8_t out[LONELY_AUTH_NONCE_BYTES])
{
    base64_encode_unpadded(BASE64_URL, (struct lonely_span){ random, 4 }, out);
}

size_t lonely_auth_sign_max(const struct lonely_auth_key *key)
{
    return key->scheme->sign_max(key);
}

enum lonely_error lonely_auth_sign(struct lonely_auth_ctx *ctx, const struct lonely_auth_key *key,
                                   const struct lonely_auth_input *in, uint64_t now_epoch_s,
                                   struct lonely_span nonce, uint8_t *out, size_t cap,
                                   size_t *out_len)
{
    const struct auth_stamp stamp = { .now_epoch_s = now_epoch_s, .nonce = nonce };
    enum lonely_error err;

    *out_len = 0;
    err = key->scheme->sign(ctx, key, in, &stamp, out, cap, out_len);
    return err == LONELY_E_CRYPTO ? crypto_failed() : err;
}

/* ---- Verifying ---- */

enum lonely_auth_result lonely_auth_verify(struct lonely_auth_ctx *ctx,
                                           const struct lonely_auth_key *const *keys, size_t n_keys,
                                           const struct lonely_auth_input *in,
                                           const struct lonely_span *authorization,
                                           double now_epoch_s, struct lonely_auth_verified *out)
{
    enum lonely_auth_result worst = LONELY_AUTH_OK;

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n_keys; i++) {
        const enum lonely_auth_result result =
            keys[i]->scheme->verify(ctx, keys[i], in, authorization, now_epoch_s, out);

        if (result == LONELY_AUTH_OK) {
            out->key = i;
            return LONELY_AUTH_OK;
        }
        if (result == LONELY_AUTH_UNAVAILABLE)
            crypto_failed();
        if (result > worst) /* a key that could not be tried may have been the right one */
            worst = result;
    }
    return n_keys == 0 ? LONELY_AUTH_UNAVAILABLE : worst;
}

bool lonely_auth_in_window(uint64_t timestamp_epoch_s, double now_epoch_s)
{
    const double distance = now_epoch_s - (double)timestamp_epoch_s;

    return distance >= -LONELY_AUTH_WINDOW_S && distance <= LONELY_AUTH_WINDOW_S;
}

uint64_t lonely_auth_keep_until(uint64_t timestamp_epoch_s)
{
    const uint64_t more = LONELY_AUTH_WINDOW_S + 1;

    return timestamp_epoch_s > UINT64_MAX - more ? UINT64_MAX : timestamp_epoch_s + more;
}
