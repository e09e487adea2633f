/*
 * Authorization strings from a peer, against each scheme. Properties: what we sign verifies; a
 * changed signature does not; whatever verifies carries exactly the mac that we would sign.
 *
 * Input: one byte chooses the operation, one how the rest is used: as the string itself, or as
 * changes to a string that we signed, pairs of a place and what to flip there.
 */
#include <lonely/auth.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define NOW UINT64_C(1760000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct lonely_auth_ctx *ctx;
static struct lonely_auth_key *keys[3]; /* by scheme */
static const uint8_t field[64] = "all fields of the input are a part of this text";

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void set_up(void)
{
    static const uint8_t raw[LONELY_AUTH_HMAC_KEY_BYTES] = "a key";
    uint8_t secret[LONELY_AUTH_SECRET_BYTES];
    const struct lonely_span span = { secret, sizeof secret };

    lonely_auth_secret_text(raw, secret);
    require(lonely_auth_ctx_create(&ctx) == LONELY_OK);
    for (unsigned scheme = 0; scheme < 3; scheme++)
        require(lonely_auth_key_create((enum lonely_auth_scheme)scheme, span, &keys[scheme]) ==
                LONELY_OK);
}

static struct lonely_auth_input input_of(uint8_t choice)
{
    return (struct lonely_auth_input){
        .op = (enum lonely_auth_op)(choice % 21 + 1),
        .tracing = { field, choice % 3u },
        .url = { field, 20 },
        .recovery = { field, choice % 2u },
        .topic = { field, 30 },
        .identifier = { field, 4 },
        .hash = { field, 64 },
        .nonce = { field, 32 },
        .part_id = choice,
    };
}

static enum lonely_auth_result verify(enum lonely_auth_scheme scheme,
                                      const struct lonely_auth_input *in,
                                      const struct lonely_span *given,
                                      struct lonely_auth_verified *v)
{
    const struct lonely_auth_key *key = keys[scheme];
    const enum lonely_auth_result result =
        lonely_auth_verify(ctx, &key, 1, in, given, (double)NOW, v);

    require(result == LONELY_AUTH_OK || result == LONELY_AUTH_FORBIDDEN);
    require(result == LONELY_AUTH_OK || (!v->store && v->keep_until_epoch_s == 0));
    return result;
}

/* Signs again with the timestamp and nonce of an accepted string: the mac must be the same. */
static void check_accepted(const struct lonely_auth_input *in, struct lonely_span given,
                           const struct lonely_auth_verified *v)
{
    const uint8_t *const end = given.ptr + given.len;
    const uint8_t *const nonce = (const uint8_t *)memchr(given.ptr, ':', given.len) + 1;
    const uint8_t *const mac = (const uint8_t *)memchr(nonce, ':', (size_t)(end - nonce)) + 1;
    const struct lonely_span nonce_span = { nonce, (size_t)(mac - 1 - nonce) };
    uint8_t text[LONELY_AUTH_HMAC_MAX_BYTES], decoded[68];
    size_t len;

    require(v->keep_until_epoch_s >= NOW + 1 && v->keep_until_epoch_s <= NOW + 241);
    require(end - mac == 88 && EVP_DecodeBlock(decoded, mac, 88) == 66);
    require(memcmp(decoded, v->mac, sizeof v->mac) == 0);
    if (nonce_span.len == 0) /* accepted, but we do not sign so */
        return;
    require(lonely_auth_sign(ctx, keys[LONELY_AUTH_HMAC], in, v->keep_until_epoch_s - 121,
                             nonce_span, text, sizeof text, &len) == LONELY_OK);
    require(len >= 88 && memcmp(text + len - 88, mac, 88) == 0);
}

static void try_string(const struct lonely_auth_input *in, struct lonely_span given)
{
    struct lonely_auth_verified v;
    uint8_t bearer[LONELY_AUTH_MAX_BYTES];
    size_t len;

    require(verify(LONELY_AUTH_NONE, in, &given, &v) == LONELY_AUTH_OK);
    require(lonely_auth_sign(ctx, keys[LONELY_AUTH_TOKEN], in, NOW, given, bearer, sizeof bearer,
                             &len) == LONELY_OK);
    require((verify(LONELY_AUTH_TOKEN, in, &given, &v) == LONELY_AUTH_OK) ==
            (given.len == len && memcmp(given.ptr, bearer, len) == 0));
    if (verify(LONELY_AUTH_HMAC, in, &given, &v) == LONELY_AUTH_OK)
        check_accepted(in, given, &v);
}

/* Signs, flips bits, and verifies: good if and only if nothing is different in the end. */
static void try_changes(const struct lonely_auth_input *in, const uint8_t *data, size_t size)
{
    uint8_t text[LONELY_AUTH_HMAC_MAX_BYTES], copy[LONELY_AUTH_HMAC_MAX_BYTES],
        nonce[LONELY_AUTH_NONCE_BYTES];
    struct lonely_auth_verified v;
    struct lonely_span given = { copy, 0 };

    lonely_auth_nonce_text(field, nonce);
    require(lonely_auth_sign(ctx, keys[LONELY_AUTH_HMAC], in, NOW,
                             (struct lonely_span){ nonce, sizeof nonce }, text, sizeof text,
                             &given.len) == LONELY_OK);
    memcpy(copy, text, given.len);
    for (size_t i = 0; i + 1 < size; i += 2)
        copy[data[i] % given.len] ^= data[i + 1];
    require((verify(LONELY_AUTH_HMAC, in, &given, &v) == LONELY_AUTH_OK) ==
            (memcmp(copy, text, given.len) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lonely_auth_input in;

    if (ctx == NULL)
        set_up();
    if (size < 2)
        return 0;
    in = input_of(data[0]);
    if (data[1] % 2 == 0)
        try_string(&in, (struct lonely_span){ data + 2, size - 2 });
    else
        try_changes(&in, data + 2, size - 2);
    return 0;
}
