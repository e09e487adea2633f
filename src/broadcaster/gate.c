/*
 * Checking and signing for one loop (gate.h). Called by the routes, delivery.c and missed.c.
 */
#include "gate.h"

#include <string.h>

#include "mem.h"

struct gate {
    struct gate_conf conf;
    struct lonely_auth_ctx *ctx;
    struct keys *keys;
    unsigned generation; /* of `keys` */
};

/* Lives until the store has answered. */
struct gate_wait {
    struct gate *gate;
    struct store_mac mac;
    gate_done_fn *done; /* NULL: forgotten */
    void *arg;
};

struct gate *gate_create(const struct gate_conf *conf)
{
    struct gate *g = mem_calloc(1, sizeof *g);

    g->conf = *conf;
    if (lonely_auth_ctx_create(&g->ctx) != LONELY_OK) {
        mem_free(g);
        return NULL;
    }
    g->keys = key_ring_take(conf->keys, &g->generation);
    return g;
}

void gate_destroy(struct gate *g)
{
    if (g == NULL)
        return;
    lonely_auth_ctx_destroy(g->ctx);
    keys_unref(g->keys);
    mem_free(g);
}

/* The present secrets: one load and a comparison when nothing changed. */
static const struct keys *keys_now(struct gate *g)
{
    struct key_ring *ring = g->conf.keys;

    if (atomic_load_explicit(&ring->generation, memory_order_acquire) != g->generation) {
        keys_unref(g->keys);
        g->keys = key_ring_take(ring, &g->generation);
    }
    return g->keys;
}

/* The operations up to CONFIRM_MISSED travel to a broadcaster, the others to a subscriber. We are on both
 * ends of both ways, since broadcasters are each other's subscribers. (doc/protocol/auth.md, 4) */
static const struct keys_direction *direction_of(struct gate *g, enum lonely_auth_op op)
{
    const struct keys *keys = keys_now(g);

    return op <= LONELY_AUTH_CONFIRM_MISSED ? &keys->to_broadcaster : &keys->to_subscriber;
}

bool gate_asks(struct gate *g, bool as_subscriber)
{
    enum lonely_auth_op op = as_subscriber ? LONELY_AUTH_RECEIVE : LONELY_AUTH_NOTIFY;

    return lonely_auth_key_scheme(direction_of(g, op)->sign) != LONELY_AUTH_NONE;
}

bool gate_signs(struct gate *g)
{
    return lonely_auth_key_scheme(keys_now(g)->to_subscriber.sign) != LONELY_AUTH_NONE;
}

int gate_status(enum lonely_auth_result result)
{
    switch (result) {
    case LONELY_AUTH_OK:
        return 0;
    case LONELY_AUTH_UNAUTHORIZED:
        return 401;
    case LONELY_AUTH_FORBIDDEN:
        return 403;
    case LONELY_AUTH_UNAVAILABLE:
        break;
    }
    return 503;
}

/* ---- Used macs ---- */

/* The store has told what others used: decides at once, for good. */
static enum lonely_auth_result take_mac(struct gate *g, const struct store_mac *mac)
{
    const struct gate_conf *c = &g->conf;

    switch (replay_take(c->replay, mac, clock_wall_s(c->clock))) {
    case REPLAY_USED:
        log_warn_limited(c->log, "replay_refused", LOG_END);
        return LONELY_AUTH_FORBIDDEN;
    case REPLAY_NOT_KNOWN:
        return LONELY_AUTH_UNAVAILABLE;
    case REPLAY_NEW:
        break;
    }
    if (c->store != NULL && !c->store_ops->add_mac(c->store, mac)) {
        log_warn_limited(c->log, "used_macs_wait", LOG_STR("reason", "the store is behind"),
                         LOG_END);
        return LONELY_AUTH_UNAVAILABLE;
    }
    return LONELY_AUTH_OK;
}

static enum lonely_auth_result after_sync(struct gate *g, enum store_status status,
                                          const struct store_mac *mac)
{
    return status == STORE_OK ? take_mac(g, mac) : LONELY_AUTH_UNAVAILABLE;
}

static void on_synced(void *arg, enum store_status status)
{
    struct gate_wait *wait = arg;

    if (wait->done != NULL)
        wait->done(wait->arg, after_sync(wait->gate, status, &wait->mac));
    mem_free(wait);
}

void gate_forget(struct gate_wait *wait)
{
    wait->done = NULL;
}

static enum lonely_auth_result check_mac(struct gate *g, const struct store_mac *mac,
                                         struct gate_wait **out, gate_done_fn *done, void *arg)
{
    const struct gate_conf *c = &g->conf;
    struct gate_wait *wait;
    enum store_status status;

    if (c->replay == NULL)
        return LONELY_AUTH_OK;
    if (c->store == NULL)
        return take_mac(g, mac);
    wait = mem_alloc(sizeof *wait);
    *wait = (struct gate_wait){ .gate = g, .mac = *mac, .done = done, .arg = arg };
    status = c->store_ops->sync_macs(c->store, on_synced, wait);
    if (status == STORE_PENDING) {
        *out = wait;
        return LONELY_AUTH_UNAVAILABLE;
    }
    mem_free(wait);
    return after_sync(g, status, mac);
}

/* ---- Both directions ---- */

/* Does it fit a secret? `*uses_mac`: by a mac of `verified`. */
static enum lonely_auth_result verify(struct gate *g, const struct lonely_auth_input *in,
                                      const struct lonely_span *authorization,
                                      struct lonely_auth_verified *verified, bool *uses_mac)
{
    const struct keys_direction *keys = direction_of(g, in->op);
    enum lonely_auth_result result;

    *uses_mac = false;
    if (lonely_auth_key_scheme(keys->sign) == LONELY_AUTH_NONE)
        return LONELY_AUTH_OK;
    result = lonely_auth_verify(g->ctx, keys->accept, keys->n_accept, in, authorization,
                                clock_wall_s(g->conf.clock), verified);
    if (result != LONELY_AUTH_OK)
        return result;
    if (verified->key > 0)
        log_info_limited(g->conf.log, "older_secret_used", LOG_U64("also_accept", verified->key),
                         LOG_END);
    *uses_mac = lonely_auth_key_scheme(keys->accept[verified->key]) == LONELY_AUTH_HMAC;
    return LONELY_AUTH_OK;
}

static enum lonely_auth_result use_mac(struct gate *g, const struct lonely_auth_verified *verified,
                                       struct gate_wait **wait, gate_done_fn *done, void *arg)
{
    struct store_mac mac = { .keep_until_s = verified->keep_until_epoch_s };

    memcpy(mac.code, verified->mac, sizeof mac.code);
    return check_mac(g, &mac, wait, done, arg);
}

enum lonely_auth_result gate_check(struct gate *g, const struct lonely_auth_input *in,
                                   const struct lonely_span *authorization, struct gate_wait **wait,
                                   gate_done_fn *done, void *arg)
{
    struct lonely_auth_verified verified;
    bool uses_mac;
    enum lonely_auth_result result = verify(g, in, authorization, &verified, &uses_mac);

    *wait = NULL;
    return uses_mac ? use_mac(g, &verified, wait, done, arg) : result;
}

enum lonely_auth_result gate_check_frame(struct gate *g, const struct lonely_auth_input *in,
                                         const struct lonely_span *authorization,
                                         struct gate_wait **wait, gate_done_fn *done, void *arg)
{
    struct lonely_auth_verified verified;
    bool uses_mac;
    enum lonely_auth_result result = verify(g, in, authorization, &verified, &uses_mac);

    *wait = NULL;
    return uses_mac && verified.store ? use_mac(g, &verified, wait, done, arg) : result;
}

bool gate_sign(struct gate *g, const struct lonely_auth_input *in, uint8_t *out,
               struct lonely_span *authorization)
{
    const struct lonely_auth_key *key = direction_of(g, in->op)->sign;
    uint8_t random[4], nonce[LONELY_AUTH_NONCE_BYTES];
    enum lonely_error err;

    *authorization = (struct lonely_span){ out, 0 };
    if (lonely_auth_key_scheme(key) == LONELY_AUTH_NONE)
        return true;
    g->conf.random(g->conf.random_arg, random, sizeof random);
    lonely_auth_nonce_text(random, nonce);
    err = lonely_auth_sign(g->ctx, key, in, (uint64_t)clock_wall_s(g->conf.clock),
                           (struct lonely_span){ nonce, sizeof nonce }, out, LONELY_AUTH_MAX_BYTES,
                           &authorization->len);
    if (err != LONELY_OK)
        log_error_limited(g->conf.log, "signing_failed",
                          LOG_STR("message", lonely_auth_op_str(in->op)),
                          LOG_STR("error", lonely_error_str(err)), LOG_END);
    return err == LONELY_OK;
}

bool gate_header(struct gate *g, const struct lonely_auth_input *in, char **line)
{
    static const char name[] = "Authorization: ";
    uint8_t text[LONELY_AUTH_MAX_BYTES];
    struct lonely_span authorization;
    size_t at = sizeof name - 1;

    *line = NULL;
    if (!gate_sign(g, in, text, &authorization))
        return false;
    if (authorization.len == 0)
        return true;
    *line = mem_alloc(at + authorization.len + 1);
    memcpy(*line, name, at);
    memcpy(*line + at, authorization.ptr, authorization.len);
    (*line)[at + authorization.len] = '\0';
    explicit_bzero(text, authorization.len);
    return true;
}

void gate_header_free(char *line)
{
    if (line != NULL)
        explicit_bzero(line, strlen(line));
    mem_free(line);
}
