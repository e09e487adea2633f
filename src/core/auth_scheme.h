/*
 * What a scheme of authorization is: implemented by auth_none.c, auth_token.c and auth_hmac.c,
 * called by auth.c.                                                  (doc/protocol/auth.md, 2, 3)
 */
#ifndef AUTH_SCHEME_H
#define AUTH_SCHEME_H

#include <lonely/auth.h>
#include <openssl/evp.h>

struct auth_scheme;

struct lonely_auth_key {
    const struct auth_scheme *scheme;
    struct {
        EVP_MD_CTX *inner, *outer; /* SHA-512 that has taken the padded key: copied, never used */
    } hmac;
    struct {
        size_t len;
        uint8_t text[LONELY_AUTH_MAX_BYTES]; /* with "Bearer " */
    } token;
};

struct lonely_auth_ctx {
    EVP_MD_CTX *work;
};

/* The arguments of lonely_auth_sign that a scheme may need. */
struct auth_stamp {
    uint64_t now_epoch_s;
    struct lonely_span nonce;
};

struct auth_scheme {
    enum lonely_auth_scheme id;

    /* `key` is all zero but for `scheme`; key_fini runs after a failure too. */
    enum lonely_error (*key_init)(struct lonely_auth_key *key, struct lonely_span secret);
    void (*key_fini)(struct lonely_auth_key *key);
    size_t (*sign_max)(const struct lonely_auth_key *key);
    enum lonely_error (*sign)(struct lonely_auth_ctx *ctx, const struct lonely_auth_key *key,
                              const struct lonely_auth_input *in, const struct auth_stamp *stamp,
                              uint8_t *out, size_t cap, size_t *out_len);
    /* `out` is all zero and is filled on OK only. */
    enum lonely_auth_result (*verify)(struct lonely_auth_ctx *ctx,
                                      const struct lonely_auth_key *key,
                                      const struct lonely_auth_input *in,
                                      const struct lonely_span *authorization, double now_epoch_s,
                                      struct lonely_auth_verified *out);
};

extern const struct auth_scheme auth_none, auth_token, auth_hmac;

#endif
