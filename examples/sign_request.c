/*
 * Signs a request to subscribe to a topic, and checks it as a broadcaster would.
 *
 *     sign_request SECRET URL TOPIC [EPOCH-SECONDS NONCE]
 *
 * SECRET is that of `to-broadcaster` in a secrets file of type hmac. Prints the header for
 * POST /v1/subscribe/exact. Without EPOCH-SECONDS and NONCE it takes the clock and random bytes.
 * Build: cc sign_request.c $(pkg-config --cflags --libs lonelypsp)
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <lonely/auth.h>

static struct lonely_span span_of(const char *text)
{
    return (struct lonely_span){ (const uint8_t *)text, strlen(text) };
}

static enum lonely_error sign_and_check(struct lonely_auth_ctx *ctx,
                                        const struct lonely_auth_key *key,
                                        const struct lonely_auth_input *in, uint64_t now,
                                        struct lonely_span nonce)
{
    uint8_t text[LONELY_AUTH_MAX_BYTES];
    struct lonely_span authorization = { text, 0 };
    struct lonely_auth_verified verified;
    enum lonely_auth_result result;
    enum lonely_error err =
        lonely_auth_sign(ctx, key, in, now, nonce, text, sizeof text, &authorization.len);

    if (err != LONELY_OK)
        return err;
    printf("Authorization: %.*s\n", (int)authorization.len, (const char *)text);

    /* A broadcaster builds the same input from the request it received. During a change of secrets
     * it accepts several. */
    result = lonely_auth_verify(ctx, &key, 1, in, &authorization, (double)now, &verified);
    printf("verified: %s", lonely_auth_result_str(result));
    if (verified.store)
        printf(", refuse it a second time until %" PRIu64, verified.keep_until_epoch_s);
    putchar('\n');
    return LONELY_OK;
}

int main(int argc, char **argv)
{
    uint8_t random[4], nonce_text[LONELY_AUTH_NONCE_BYTES];
    struct lonely_span nonce = { nonce_text, sizeof nonce_text };
    struct lonely_auth_ctx *ctx = NULL;
    struct lonely_auth_key *key = NULL;
    struct lonely_auth_input in = { .op = LONELY_AUTH_SUBSCRIBE_EXACT };
    uint64_t now = (uint64_t)time(NULL);
    enum lonely_error err;

    if ((argc != 4 && argc != 6) || getrandom(random, sizeof random, 0) != sizeof random) {
        fprintf(stderr, "usage: %s SECRET URL TOPIC [EPOCH-SECONDS NONCE]\n", argv[0]);
        return 2;
    }
    lonely_auth_nonce_text(random, nonce_text);
    if (argc == 6) {
        now = strtoull(argv[4], NULL, 10);
        nonce = span_of(argv[5]);
    }
    in.url = span_of(argv[2]);
    in.topic = span_of(argv[3]);

    err = lonely_auth_ctx_create(&ctx);
    if (err == LONELY_OK)
        err = lonely_auth_key_create(LONELY_AUTH_HMAC, span_of(argv[1]), &key);
    if (err == LONELY_OK)
        err = sign_and_check(ctx, key, &in, now, nonce);
    if (err != LONELY_OK)
        fprintf(stderr, "sign_request: %s\n", lonely_error_str(err));
    lonely_auth_key_destroy(key);
    lonely_auth_ctx_destroy(ctx);
    return err == LONELY_OK ? 0 : 1;
}
