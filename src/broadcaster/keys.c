/*
 * Loading the secrets files into an immutable set, and handing it to the workers (keys.h). Called by
 * main.c at start and on SIGHUP; read by gate.c.
 */
#include "keys.h"

#include <stdio.h>
#include <string.h>

#include "mem.h"
#include "secrets.h"

/* The end of a path, so that what follows it is never cut off. */
static const char *path_end(const char *path)
{
    size_t len = strlen(path);

    return len > 300 ? path + len - 300 : path;
}

static bool load_file(struct keys *keys, const struct conf *conf, const char *path, struct log *log,
                      struct keys_error *error)
{
    struct secrets_error why;
    struct secrets *file = &keys->files[keys->n_files];

    if (!secrets_load(path, SECRETS_BROADCASTER, file, &why)) {
        snprintf(error->text, sizeof error->text, "%s", why.text);
        return false;
    }
    keys->n_files++;
    if (!file->readable_by_others)
        return true;
    if (conf->auth.strict_permissions) {
        snprintf(error->text, sizeof error->text,
                 "%s: group or others may read it; chmod 600 it, or unset auth.strict_permissions",
                 path_end(path));
        return false;
    }
    log_warn(log, "secrets_readable_by_others", LOG_STR("file", path), LOG_END);
    return true;
}

/* Without a file: authorization none. */
static bool load_none(struct keys *keys, struct keys_error *error)
{
    struct secrets *file = &keys->files[0];
    const struct lonely_span no_secret = { NULL, 0 };

    if (lonely_auth_key_create(LONELY_AUTH_NONE, no_secret, &file->to_broadcaster) == LONELY_OK &&
        lonely_auth_key_create(LONELY_AUTH_NONE, no_secret, &file->to_subscriber) == LONELY_OK) {
        keys->n_files++;
        return true;
    }
    secrets_fini(file);
    snprintf(error->text, sizeof error->text, "cannot make keys: no memory");
    return false;
}

static bool load_all(struct keys *keys, const struct conf *conf, struct log *log,
                     struct keys_error *error)
{
    const struct conf_list *more = &conf->auth.also_accept;
    bool good = conf->auth.secrets == NULL ? load_none(keys, error)
                                           : load_file(keys, conf, conf->auth.secrets, log, error);

    for (size_t i = 0; good && i < more->count; i++)
        good = load_file(keys, conf, more->items[i], log, error);
    return good;
}

static void add_key(struct keys_direction *d, const struct lonely_auth_key *key)
{
    if (d->sign == NULL)
        d->sign = key;
    else if (lonely_auth_key_scheme(key) == LONELY_AUTH_NONE)
        return;
    d->accept[d->n_accept++] = key;
}

static void direction_init(struct keys_direction *d, size_t max)
{
    d->accept = mem_calloc(max, sizeof(struct lonely_auth_key *));
}

struct keys *keys_load(const struct conf *conf, struct log *log, struct keys_error *error)
{
    size_t max = conf->auth.also_accept.count + 1;
    struct keys *keys = mem_calloc(1, sizeof *keys);

    atomic_init(&keys->refs, 1);
    keys->files = mem_calloc(max, sizeof *keys->files);
    direction_init(&keys->to_broadcaster, max);
    direction_init(&keys->to_subscriber, max);
    if (!load_all(keys, conf, log, error)) {
        keys_unref(keys);
        return NULL;
    }
    for (size_t i = 0; i < keys->n_files; i++) {
        add_key(&keys->to_broadcaster, keys->files[i].to_broadcaster);
        add_key(&keys->to_subscriber, keys->files[i].to_subscriber);
    }
    return keys;
}

void keys_ref(struct keys *keys)
{
    atomic_fetch_add(&keys->refs, 1);
}

void keys_unref(struct keys *keys)
{
    if (keys == NULL || atomic_fetch_sub(&keys->refs, 1) != 1)
        return;
    for (size_t i = 0; i < keys->n_files; i++)
        secrets_fini(&keys->files[i]);
    mem_free(keys->files);
    mem_free(keys->to_broadcaster.accept);
    mem_free(keys->to_subscriber.accept);
    mem_free(keys);
}

void key_ring_init(struct key_ring *ring, struct keys *keys)
{
    uv_mutex_init(&ring->lock);
    ring->now = keys;
    atomic_init(&ring->generation, 1);
}

void key_ring_fini(struct key_ring *ring)
{
    keys_unref(ring->now);
    uv_mutex_destroy(&ring->lock);
}

void key_ring_set(struct key_ring *ring, struct keys *keys)
{
    struct keys *old;

    uv_mutex_lock(&ring->lock);
    old = ring->now;
    ring->now = keys;
    atomic_fetch_add(&ring->generation, 1);
    uv_mutex_unlock(&ring->lock);
    keys_unref(old);
}

struct keys *key_ring_take(struct key_ring *ring, unsigned *generation)
{
    struct keys *keys;

    uv_mutex_lock(&ring->lock);
    keys = ring->now;
    keys_ref(keys);
    *generation = atomic_load(&ring->generation);
    uv_mutex_unlock(&ring->lock);
    return keys;
}
