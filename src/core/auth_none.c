/*
 * The scheme none: nothing is sent, everything is OK. Called by auth.c. (doc/protocol/auth.md, 2)
 */
#include "auth_scheme.h"

static enum lonely_error none_key_init(struct lonely_auth_key *key, struct lonely_span secret)
{
    (void)key;
    (void)secret;
    return LONELY_OK;
}

static void none_key_fini(struct lonely_auth_key *key)
{
    (void)key;
}

static size_t none_sign_max(const struct lonely_auth_key *key)
{
    (void)key;
    return 0;
}

static enum lonely_error none_sign(struct lonely_auth_ctx *ctx, const struct lonely_auth_key *key,
                                   const struct lonely_auth_input *in,
                                   const struct auth_stamp *stamp, uint8_t *out, size_t cap,
                                   size_t *out_len)
{
    (void)ctx;
    (void)key;
    (void)in;
    (void)stamp;
    (void)out;
    (void)cap;
    *out_len = 0;
    return LONELY_OK;
}

static enum lonely_auth_result none_verify(struct lonely_auth_ctx *ctx,
                                           const struct lonely_auth_key *key,
                                           const struct lonely_auth_input *in,
                                           const struct lonely_span *authorization,
                                           double now_epoch_s, struct lonely_auth_verified *out)
{
    (void)ctx;
    (void)key;
    (void)in;
    (void)authorization;
    (void)now_epoch_s;
    (void)out;
    return LONELY_AUTH_OK;
}

const struct auth_scheme auth_none = {
    .id = LONELY_AUTH_NONE,
    .key_init = none_key_init,
    .key_fini = none_key_fini,
    .sign_max = none_sign_max,
    .sign = none_sign,
    .verify = none_verify,
};
