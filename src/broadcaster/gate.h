/*
 * Authorization as a worker uses it: checks what arrives, signs what leaves. The schemes are the
 * library's (lonely/auth.h), the secrets keys.h's; the gate adds clock, nonces and used macs.
 * (doc/protocol/auth.md)
 *
 * Every mac that fitted is stored, but for those of frames over a url of their connection and counter,
 * which fit once as it is. A url that begins with `websocket:` in an HTTP body is bound to nothing.
 *
 * Threads: a gate belongs to one loop; everything on that loop's thread.
 */
#ifndef GATE_H
#define GATE_H

#include <lonely/auth.h>

#include "clock.h"
#include "keys.h"
#include "log.h"
#include "replay.h"
#include "store.h"

/* All are borrowed for the life of the gate. */
struct gate_conf {
    struct key_ring *keys;
    struct replay *replay; /* NULL: replays are not detected */
    const struct store_ops *store_ops;
    struct store_client *store; /* where others' used macs come from; NULL: only `replay` counts */
    const struct clock *clock;
    struct log *log;
    void (*random)(void *arg, uint8_t *to, size_t len);
    void *random_arg;
};

struct gate;

/* NULL: OpenSSL failed. */
struct gate *gate_create(const struct gate_conf *conf);
void gate_destroy(struct gate *g); /* NULL is allowed; no check may be waiting */

/* Does the scheme need to see what came: to the broadcaster, or, for what another broadcaster sends to us
 * as a subscriber (RECEIVE, MISSED), the one to subscribers? Never under none. */
bool gate_asks(struct gate *g, bool as_subscriber);
/* Does the scheme to subscribers make anything? */
bool gate_signs(struct gate *g);

/* A check that waits for the store. */
struct gate_wait;
typedef void gate_done_fn(void *arg, enum lonely_auth_result result);

/*
 * Checks what was sent to us: over `in`, which may die on return, with the secret to the way that its
 * operation travels.
 * `authorization` NULL: absent. Nearly always the result is returned and `*wait` is NULL. Else `*wait`
 * is not NULL, the returned value means nothing, and `done` runs later, unless gate_forget came first.
 */
enum lonely_auth_result gate_check(struct gate *g, const struct lonely_auth_input *in,
                                   const struct lonely_span *authorization, struct gate_wait **wait,
                                   gate_done_fn *done, void *arg);

/* The same for a frame, whose url, if its operation has one, the caller made of its connection's nonce and
 * counter: such a mac is not stored. */
enum lonely_auth_result gate_check_frame(struct gate *g, const struct lonely_auth_input *in,
                                         const struct lonely_span *authorization,
                                         struct gate_wait **wait, gate_done_fn *done, void *arg);

/* `done` will not run. */
void gate_forget(struct gate_wait *wait);

/* What goes with a message of ours, with the secret as above: `out` has room for LONELY_AUTH_MAX_BYTES bytes, which the
 * returned span points into; empty under none. false: OpenSSL failed, or a field does not fit. */
bool gate_sign(struct gate *g, const struct lonely_auth_input *in, uint8_t *out,
               struct lonely_span *authorization);

/* The same as a header line, "Authorization: ...", which the caller frees with gate_header_free; NULL
 * under none. */
bool gate_header(struct gate *g, const struct lonely_auth_input *in, char **line);

/* Wipes it first: under token it holds the secret. NULL is allowed. */
void gate_header_free(char *line);

/* The HTTP status that refuses a request: 401, 403 or 503; 0 for OK. */
int gate_status(enum lonely_auth_result result);

#endif
