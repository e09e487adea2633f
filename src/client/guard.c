/*
 * Authorization as a client uses it: signs what goes to broadcasters, checks what comes from them. The
 * schemes are the library's. (doc/protocol/auth.md)
 */
#include <stdio.h>
#include <string.h>

#include "core.h"
#include "replay.h"

#define USED_MACS_MAX ((size_t)1 << 20) /* about 32 bytes each */

enum lonely_client_error guard_init(struct lonely_client *c, struct lonely_client_why *why)
{
    struct secrets_error error;
    bool good;

    if (c->conf.secrets != NULL)
        good = secrets_load(c->conf.secrets, SECRETS_SUBSCRIBER, &c->secrets, &error);
    else
        good = secrets_parse("{\"version\":\"2\"}", 15, "(none)", SECRETS_SUBSCRIBER, &c->secrets,
                             &error);
    if (!good) {
        snprintf(why->text, sizeof(why->text), "%.*s", (int)sizeof(why->text) - 1, error.text);
        return LONELY_CLIENT_ARGUMENT;
    }
    if (lonely_auth_ctx_create(&c->auth) != LONELY_OK)
        return LONELY_CLIENT_NO_MEMORY;
    c->used_macs = replay_create(USED_MACS_MAX);
    return LONELY_CLIENT_OK;
}

void guard_fini(struct lonely_client *c)
{
    replay_destroy(c->used_macs);
    lonely_auth_ctx_destroy(c->auth);
    secrets_fini(&c->secrets);
}

bool client_sign(struct lonely_client *c, const struct lonely_auth_input *in, uint8_t *out,
                 struct lonely_span *authorization)
{
    uint8_t random[4], nonce[LONELY_AUTH_NONCE_BYTES];
    size_t len = 0;
    bool good;

    *authorization = (struct lonely_span){ 0 };
    if (!client_signs(c))
        return true;
    client_random(c, random, sizeof(random));
    lonely_auth_nonce_text(random, nonce);
    good =
        lonely_auth_sign(c->auth, c->secrets.to_broadcaster, in, (uint64_t)clock_wall_s(c->clock),
                         (struct lonely_span){ nonce, sizeof(nonce) }, out, LONELY_AUTH_MAX_BYTES,
                         &len) == LONELY_OK;
    *authorization = (struct lonely_span){ out, len };
    return good;
}

enum lonely_auth_result client_verify(struct lonely_client *c, const struct lonely_auth_input *in,
                                      const struct lonely_span *authorization)
{
    const struct lonely_auth_key *keys[] = { c->secrets.to_subscriber };
    struct lonely_auth_verified verified;
    struct store_mac mac;
    enum lonely_auth_result result;
    double now_s;

    if (!client_asks(c))
        return LONELY_AUTH_OK;
    now_s = clock_wall_s(c->clock);
    result = lonely_auth_verify(c->auth, keys, 1, in, authorization, now_s, &verified);
    if (result != LONELY_AUTH_OK || !verified.store)
        return result;
    memcpy(mac.code, verified.mac, sizeof(mac.code));
    mac.keep_until_s = verified.keep_until_epoch_s;
    switch (replay_take(c->used_macs, &mac, now_s)) {
    case REPLAY_NEW:
        return LONELY_AUTH_OK;
    case REPLAY_USED:
        return LONELY_AUTH_FORBIDDEN;
    case REPLAY_NOT_KNOWN:
        break;
    }
    return LONELY_AUTH_UNAVAILABLE;
}
