/*
 * Secrets files. Properties: either two usable keys and no error, or no key and one line that
 * names the file. The first byte of the input chooses whose file it is.
 */
#include <stdlib.h>
#include <string.h>

#include "secrets.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check_key(struct lonely_auth_ctx *ctx, const struct lonely_auth_key *key)
{
    static const uint8_t zeros[64];
    const struct lonely_auth_input in = { .op = LONELY_AUTH_CHECK_SUBSCRIPTIONS_RESPONSE,
                                          .hash = { zeros, sizeof zeros } };
    static uint8_t text[LONELY_AUTH_MAX_BYTES];
    struct lonely_span given = { text, 0 };
    struct lonely_auth_verified v;

    require(key != NULL);
    require(lonely_auth_sign(ctx, key, &in, 0, (struct lonely_span){ (const uint8_t *)"n", 1 },
                             text, sizeof text, &given.len) == LONELY_OK);
    require(given.len <= lonely_auth_sign_max(key));
    require(lonely_auth_verify(ctx, &key, 1, &in, &given, 0, &v) == LONELY_AUTH_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct lonely_auth_ctx *ctx;
    struct secrets_error err = { .text = "" };
    struct secrets s;

    if (ctx == NULL)
        require(lonely_auth_ctx_create(&ctx) == LONELY_OK);
    if (size < 1)
        return 0;
    if (secrets_parse((const char *)data + 1, size - 1, "f",
                      data[0] % 2 == 0 ? SECRETS_BROADCASTER : SECRETS_SUBSCRIBER, &s, &err)) {
        check_key(ctx, s.to_broadcaster);
        check_key(ctx, s.to_subscriber);
        require(err.text[0] == '\0');
    } else {
        require(s.to_broadcaster == NULL && s.to_subscriber == NULL);
        require(strncmp(err.text, "f: ", 3) == 0 && strchr(err.text, '\n') == NULL);
    }
    secrets_fini(&s);
    secrets_fini(&s);
    return 0;
}
