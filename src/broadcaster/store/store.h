/*
 * The store contract: subscriptions that outlive the process. One file a backend (store_sqlite.c,
 * store_memory.c, ...), one test suite run against all (tests/contract/).
 *
 * A store belongs to the process; a store_client is one loop's view of it. Callbacks of a client
 * run on its loop's thread, exactly once, never before the call that asked for it has returned, and
 * after client_close has been called still: with STORE_UNAVAILABLE for what had not begun, else
 * with what came of it. (doc/protocol/http.md, 12)
 *
 * The store is the truth; matching is done by an index in memory that the store feeds through
 * store_feed, at start and from its change log. (doc/architecture.md)
 */
#ifndef STORE_H
#define STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include <lonely/span.h>

#include "replay.h"

enum store_status {
    STORE_OK,
    STORE_CONFLICT,    /* subscribe: that (url, key) exists already; nothing changed */
    STORE_NOT_FOUND,   /* unsubscribe: no such (url, key) */
    STORE_UNAVAILABLE, /* not reached, locked too long, full, read-only, queue full; nothing changed
                        */
    STORE_PENDING      /* store_sync only: the callback will run */
};

const char *store_status_str(enum store_status status);

enum store_kind { STORE_EXACT = 0, STORE_GLOB = 1 };

/* One subscription. Identity: kind, url and key, bytewise. (doc/protocol/http.md, 7) */
struct store_row {
    enum store_kind kind;
    struct lonely_span url;
    struct lonely_span key;      /* the topic, any bytes; or the glob, UTF-8 */
    struct lonely_span recovery; /* len 0: none */
};

/*
 * Where the store sends what it holds: the index. All calls come in this order, serialised by the
 * store, from any thread:
 *   load_begin, add..., load_end       the whole content, replacing what was fed before; load_abort
 *                                      instead of load_end: keep what was fed before
 *   change_begin, add/remove..., change_end   news, to be applied before change_end returns
 * Spans die on return. `add` of a row that is there replaces its recovery url; `remove` of one that
 * is not there does nothing.
 */
struct store_feed {
    void (*load_begin)(void *arg);
    void (*load_end)(void *arg);
    void (*load_abort)(void *arg);
    void (*change_begin)(void *arg);
    void (*change_end)(void *arg);
    void (*add)(void *arg, const struct store_row *row);
    void (*remove)(void *arg, const struct store_row *row);
    void *arg;
};

/* Where the store sends used macs: the process's set. Any thread, also several at once. */
struct store_macs {
    /* One that this or another process used, or used before it was started; perhaps for the second
     * time, perhaps expired. NULL: the store keeps none, and the calls below do nothing. */
    void (*add)(void *arg, const struct store_mac *mac);
    /* During open: a process ended without close, so macs that it took may not be in the store. */
    void (*lost)(void *arg);
    void *arg;
};

struct log;

struct store_conf {
    const char *path;  /* sqlite: the database file */
    char *const *urls; /* postgres: one; rqlite: of each node */
    size_t n_urls;
    const char *password_file;   /* for store_password_read; NULL: none */
    bool rqlite_weak;            /* the leader does not ask whether it is, when news are read */
    uint64_t timeout_ms;         /* longest wait for the store before STORE_UNAVAILABLE */
    uint64_t missed_lock_time_s; /* lock on a row being swept */
    size_t max_queued;           /* writes waiting for a commit; more: STORE_UNAVAILABLE */
    struct log *log;             /* where failures of the database are told; NULL: nowhere */
    struct store_macs macs;      /* used macs; zero: none are kept */
};

struct store;
struct store_client;

typedef void store_done_fn(void *arg, enum store_status status);
typedef void store_etag_fn(void *arg, enum store_status status, const uint8_t etag[64]);

/*
 * The sorted lists of a SET, read once, on a thread of the store. `next` gives the next entry: all
 * exacts strictly ascending, then all globs; 1 and `row` (kind, key, recovery; its spans live until
 * the next call), 0 at the end, -1 when it cannot be read (the SET ends with STORE_UNAVAILABLE).
 */
struct store_list {
    int (*next)(void *arg, struct store_row *row);
    void *arg;
};

/* A pending MISSED that this process has locked. Spans live as long as the item. */
struct store_missed {
    enum store_kind kind;
    struct lonely_span url;
    struct lonely_span key;
    struct lonely_span recovery;
    struct lonely_span topic; /* of the message that was missed */
    uint32_t attempts;
    int64_t lock_id;
};

/* STORE_OK and an item, STORE_NOT_FOUND and NULL (nothing is due), or STORE_UNAVAILABLE and NULL.
 * The item dies on return. */
typedef void store_missed_fn(void *arg, enum store_status status, const struct store_missed *item);

struct store_ops {
    const char *name; /* of the option database.type */

    /* Looks for mistakes in `conf` without a connection. false: one line in `error`. NULL: nothing to
     * check. */
    bool (*conf_check)(const struct store_conf *conf, char error[256]);

    /* Opens, creates what is absent, feeds the whole content to `feed`. On failure returns false
     * with one line in `error` and nothing is to be freed. `conf` and `feed` are copied. */
    bool (*open)(const struct store_conf *conf, const struct store_feed *feed, struct store **out,
                 char error[256]);
    /* After all clients are closed. NULL is allowed. */
    void (*close)(struct store *store);

    bool (*client_open)(struct store *store, uv_loop_t *loop, struct store_client **out,
                        char error[256]);
    /* Every callback still owed runs first, on the loop; then `on_closed`. */
    void (*client_close)(struct store_client *c, void (*on_closed)(void *arg), void *arg);

    /*
     * Brings the feed up to date with every change that was committed, by anybody, before the call.
     * STORE_OK: done, `done` will not run. STORE_PENDING: `done` runs later. STORE_UNAVAILABLE: the
     * feed may be stale.
     */
    enum store_status (*sync)(struct store_client *c, store_done_fn *done, void *arg);

    /*
     * The same for used macs: makes sure that store_macs.add has seen every one that was committed,
     * by anybody, before the call.
     */
    enum store_status (*sync_macs)(struct store_client *c, store_done_fn *done, void *arg);
    /* Keeps a used mac, which is written with the next group of writes; nobody waits for that. false:
     * too many wait (conf.max_queued) or the client is closing. */
    bool (*add_mac)(struct store_client *c, const struct store_mac *mac);

    /* Writes; answered after the durable commit. Everything in the row is copied. */
    void (*subscribe)(struct store_client *c, const struct store_row *row, store_done_fn *done,
                      void *arg);
    void (*unsubscribe)(struct store_client *c, const struct store_row *row, store_done_fn *done,
                        void *arg);
    /* Makes the subscriptions of `url` equal to the list, which must live until `done`. Those that
     * stay get the recovery url of the list and keep their pending MISSED. (http.md, 9) */
    void (*set)(struct store_client *c, struct lonely_span url, const struct store_list *list,
                store_done_fn *done, void *arg);
    /* The strong etag of the subscriptions of `url`. (http.md, 9) */
    void (*check)(struct store_client *c, struct lonely_span url, store_etag_fn *done, void *arg);

    /* Notes that a message on `topic` was missed by the subscription of `row`: attempts, when to
     * try (seconds since 1970, fractions rounded up), any lock removed. STORE_OK also when the
     * subscription is gone. (http.md, 11) */
    void (*missed_upsert)(struct store_client *c, const struct store_row *row,
                          struct lonely_span topic, uint32_t attempts, double next_retry_at,
                          store_done_fn *done, void *arg);
    /* Locks the item longest due at `now`. */
    void (*missed_lock)(struct store_client *c, double now, store_missed_fn *done, void *arg);
    /* Ends the lock, if `lock_id` still holds it (else STORE_CONFLICT, nothing changed): clears
     * what is pending, or stores attempts and the next time. */
    void (*missed_clear)(struct store_client *c, const struct store_missed *item,
                         store_done_fn *done, void *arg);
    void (*missed_retry)(struct store_client *c, const struct store_missed *item, uint32_t attempts,
                         double next_retry_at, store_done_fn *done, void *arg);
};

extern const struct store_ops store_sqlite;
extern const struct store_ops store_rqlite;
extern const struct store_ops store_memory;
extern const struct store_ops store_postgres;

/* The backend of that name, or NULL. */
const struct store_ops *store_find(const char *name);

#endif
