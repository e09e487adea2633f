/*
 * The broadcaster: what all workers share. Everything hangs off this structure; there are no globals.
 *
 * Life: create (opens listeners, store and spool folder: whatever can be wrong shows here), start, drain
 * or stop, join, destroy.
 */
#ifndef BROADCASTER_H
#define BROADCASTER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "body.h"
#include "clock.h"
#include "conf.h"
#include "index.h"
#include "keys.h"
#include "listener.h"
#include "log.h"
#include "peer.h"
#include "policy.h"
#include "replay.h"
#include "store.h"
#include "tls.h"

struct admin;
struct compression;
struct forwarding;
struct lonely_mount;
struct worker;

/* An address that the broadcaster listens on. */
struct broadcaster_listener {
    char bound[LISTENER_ADDRESS_MAX]; /* port 0 replaced by the real one */
    int *fds;                         /* one for each worker; -1 once the worker owns it */
    bool tls;                         /* https, tcps */
    bool tcp;                         /* sessions without a websocket */
};

struct broadcaster {
    const struct conf *conf;
    const struct clock *clock;
    struct log *log;
    const struct store_ops *backend;   /* opens and closes */
    const struct store_ops *store_ops; /* the calls of the workers' clients, measured */
    struct store *store;
    struct index *index;
    struct key_ring keys;
    struct replay *replay; /* NULL: replays are not detected */
    struct bodies *bodies;
    struct compression *compression; /* NULL: sessions compress nothing */
    struct policy *policy;           /* where webhooks may go */
    struct broadcaster_listener *listeners;
    size_t listener_count;
    struct tls_server *tls;     /* NULL: no tls_listen */
    struct lonely_mount *mount; /* NULL: no program has mounted it in its own server */
    struct worker **workers;
    size_t worker_count;
    /* NULL: peers would not know how to reach us, so there are no sessions. */
    struct forwarding *forwarding;
    struct admin *admin;        /* NULL: none */
    struct peer_limit *peers;   /* NULL: no limit */
    double started_s;           /* wall clock */
    atomic_bool log_access;     /* log.access; SIGHUP changes it */
    atomic_bool draining;       /* or stopping */
    uint64_t max_connections;   /* limits.max_connections, capped by the descriptor limit */
    atomic_size_t posts_queued; /* waiting in the outboxes of all workers */
    atomic_size_t running;      /* threads that have not ended */
    size_t started;             /* workers whose thread runs */
};

/* Can the certificate, key and authorities be used, as far as `conf` needs them? false: `error` says
 * which file is wrong. */
bool broadcaster_check_tls(const struct conf *conf, char error[256]);

/* Can the dictionaries be used? false: `error` says which file is wrong. */
bool broadcaster_check_compression(const struct conf *conf, char error[256]);

/* Is [database] of a form that its backend takes? Connects to nothing. */
bool broadcaster_check_store(const struct conf *conf, char error[256]);

/* Reads them anew, as `conf` says, for connections to come (SIGHUP). false: all stays as it is. Does
 * nothing without a TLS listener. Any thread. */
bool broadcaster_reload_tls(struct broadcaster *b, const struct conf *conf, char error[256]);

/* `conf`, `clock` and `log` are borrowed for the life of the broadcaster; of `keys` it takes a reference
 * of its own. false: nothing is left open, and `error` says in one line what failed. */
bool broadcaster_create(const struct conf *conf, struct keys *keys, const struct clock *clock,
                        struct log *log, struct broadcaster **out, char error[256]);

/* From now on these secrets count. Takes the caller's reference. Any thread. */
void broadcaster_set_keys(struct broadcaster *b, struct keys *keys);

/* Starts the threads of the workers; from now on requests are answered. */
bool broadcaster_start(struct broadcaster *b, char error[256]);

/* Stops accepting, finishes what was taken, at most for broadcaster.drain_timeout. Any thread, as the next
 * one; before start it takes effect with it. */
void broadcaster_drain(struct broadcaster *b);

/* Ends everything now: what was taken is cancelled. Any thread. */
void broadcaster_stop(struct broadcaster *b);

/* Is any worker's thread still at work? Any thread. */
bool broadcaster_is_running(struct broadcaster *b);

/* Waits for the workers to end; after drain or stop. */
void broadcaster_join(struct broadcaster *b);

/* Frees; after join, or instead of start. NULL is allowed. */
void broadcaster_destroy(struct broadcaster *b);

#endif
