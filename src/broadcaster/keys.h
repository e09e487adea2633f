/*
 * The secrets of both directions, as loaded: an immutable set that is counted, and the ring from which
 * the workers take the present one. (doc/protocol/auth.md, 1 and 6)
 */
#ifndef KEYS_H
#define KEYS_H

#include <stdatomic.h>
#include <uv.h>

#include <lonely/auth.h>

#include "conf.h"
#include "log.h"

struct keys_direction {
    const struct lonely_auth_key *sign;    /* the present secret; of the first file */
    const struct lonely_auth_key **accept; /* that one, then those of auth.also_accept */
    size_t n_accept;
};

struct keys {
    struct keys_direction to_broadcaster, to_subscriber;
    atomic_size_t refs;
    struct secrets *files;
    size_t n_files;
};

/* One line, ready to be printed. */
struct keys_error {
    char text[640];
};

/*
 * Reads the files of [auth]. Blocking. A direction that a file of auth.also_accept does not name adds
 * nothing: it must not open the door. NULL: `error`. Warnings go to `log`. The caller has the only
 * reference.
 */
struct keys *keys_load(const struct conf *conf, struct log *log, struct keys_error *error);

/* Any thread. */
void keys_ref(struct keys *keys);
void keys_unref(struct keys *keys); /* NULL is allowed */

/* The present set. `generation` grows with each new one, so that who has taken the present one sees
 * without a lock that it still is. */
struct key_ring {
    uv_mutex_t lock;
    struct keys *now;
    atomic_uint generation;
};

void key_ring_init(struct key_ring *ring, struct keys *keys); /* takes the caller's reference */
void key_ring_fini(struct key_ring *ring);

/* Any thread. */
void key_ring_set(struct key_ring *ring, struct keys *keys); /* takes the caller's reference */
struct keys *key_ring_take(struct key_ring *ring, unsigned *generation); /* with a reference */

#endif
