/*
 * The parts of the SQLite backend and what they share. Threads: the writer makes every change; the
 * reader computes etags; the feeder reads the change log when the loops cannot. Each has a queue
 * and a connection of its own.
 */
#ifndef SQLITE_STORE_H
#define SQLITE_STORE_H

#include "sqlite_conn.h"
#include "sqlite_scan.h"
#include "store_mac_queue.h"
#include "store_process.h"
#include "store_request.h"

/* --- change log -> feed (sqlite_feed.c) ---------------------------------------------------- */

struct sqlite_feed {
    struct store_feed to;
    struct store_macs macs;
    atomic_ullong macs_applied; /* the last number of the used macs that `macs` has seen */
    uv_mutex_t lock;            /* held while `to` is called */
    atomic_ullong applied; /* the last number of the log that `to` has seen; changed under lock */
    struct store_queue queue; /* SYNC that a loop could not answer itself */
    struct sqlite_conn conn;
    uv_thread_t thread;
    bool running;
};

bool sqlite_feed_open(struct sqlite_feed *f, struct sqlite_conn_place *place,
                      const struct store_conf *conf, const struct store_feed *to,
                      char error[256]); /* feeds the whole content */
bool sqlite_feed_start(struct sqlite_feed *f);
void sqlite_feed_close(struct sqlite_feed *f);
extern const struct sqlite_conn_kind sqlite_conn_of_client;
/* On a loop's thread and its own connection: STORE_OK, or STORE_PENDING: the feeder must do it. */
enum store_status sqlite_feed_sync(struct sqlite_feed *f, struct sqlite_conn *c);
enum store_status sqlite_feed_sync_macs(struct sqlite_feed *f, struct sqlite_conn *c);

/* --- CHECK (sqlite_reader.c) --------------------------------------------------------------- */

struct sqlite_reader {
    struct store_queue queue;
    struct sqlite_conn conn;
    struct list active; /* struct check */
    size_t n_active;
    uv_thread_t thread;
    bool running;
};

bool sqlite_reader_open(struct sqlite_reader *r, struct sqlite_conn_place *place,
                        const struct store_conf *conf, char error[256]);
bool sqlite_reader_start(struct sqlite_reader *r);
void sqlite_reader_close(struct sqlite_reader *r);

/* --- writes (sqlite_writer.c) -------------------------------------------------------------- */

enum writer_statement {
    W_BEGIN,
    W_COMMIT,
    W_ROLLBACK,
    W_LOG_OLDEST,
    W_LOG_NEWEST,
    W_LOG_PRUNE,
    W_MAC_INSERT,
    W_MAC_NEWEST,
    W_MAC_STALE,
    W_MAC_PRUNE,
    W_MARKS,
    W_MARK,
    W_UNMARK,
    /* From here on a pair each: for exacts, for globs; use W_OF. */
    W_INSERT,
    W_DELETE = W_INSERT + 2,
    W_RECOVERY = W_DELETE + 2,
    W_MISSED_UPSERT = W_RECOVERY + 2,
    W_MISSED_DUE = W_MISSED_UPSERT + 2,
    W_MISSED_LOCK = W_MISSED_DUE + 2,
    W_MISSED_CLEAR = W_MISSED_LOCK + 2,
    W_MISSED_RETRY = W_MISSED_CLEAR + 2,
    W_PAGE = W_MISSED_RETRY + 2,
    W_COUNT = W_PAGE + 2
};
#define W_OF(pair, kind) ((size_t)(pair) + (size_t)(kind))

/* Used macs on their way into the file (sqlite_macs.c). */
struct sqlite_macs {
    struct store_mac_queue queue;
    uint64_t before, last;  /* row numbers around the batch */
    atomic_ullong *applied; /* of the feed */
    int64_t id;             /* of our mark */
    char process[STORE_PROCESS_SIZE];
    uint64_t marked_at_ms;
};

struct sqlite_writer {
    struct sqlite_macs macs;
    bool macs_failed; /* alone, the last time */
    struct store_queue queue;
    struct sqlite_conn conn;
    struct list sets; /* struct sqlite_set, those under way; one transaction in turn */
    size_t n_sets;
    struct sqlite_scan scan; /* of the SET whose turn it is */
    uint64_t timeout_ms;
    uint64_t window_at_ms, idle_ms; /* how much it waited for work of late */
    uint64_t prune_at_ms;           /* next look at the change log */
    uv_thread_t thread;
    bool running;
};

bool sqlite_writer_open(struct sqlite_writer *w, struct sqlite_conn_place *place,
                        const struct store_conf *conf,
                        char error[256]); /* creates the file if need be */
bool sqlite_writer_start(struct sqlite_writer *w);
void sqlite_writer_close(struct sqlite_writer *w);

/* Waits for the write lock and begins. Requests that grow too old meanwhile are answered; gives up
 * when none is left, or at `until_ms` (0: none). SQLITE_OK, or the error. */
int sqlite_writer_begin(struct sqlite_writer *w, uint64_t until_ms);
int sqlite_writer_commit(struct sqlite_writer *w); /* on failure rolls back and returns the error */
void sqlite_writer_rollback(struct sqlite_writer *w);
/* Executes a statement of one row's change; the number of rows changed in `*changed`. */
int sqlite_writer_change(struct sqlite_writer *w, size_t statement, int *changed);

/* --- used macs (sqlite_macs.c) ------------------------------------------------------------- */

#define MAC_PRUNE_BATCH 1000

/* Marks the process as one that takes macs; tells conf->macs.lost. */
bool sqlite_macs_open(struct sqlite_writer *w, const struct store_conf *conf, char error[256]);
void sqlite_macs_close(struct sqlite_writer *w); /* writes what waits, takes the mark away */
/* Writes a batch inside the transaction; after its commit _written, else they will come again. */
int sqlite_macs_write(struct sqlite_writer *w);
void sqlite_macs_written(struct sqlite_writer *w);
/* Deletes some that have expired. true: there may be more. */
bool sqlite_macs_prune(struct sqlite_writer *w);

/* --- operations (sqlite_ops.c) ------------------------------------------------------------- */

extern const char *const sqlite_writer_sql[W_COUNT];
/* Executes one request inside the transaction. SQLITE_OK and its answer in r->status, or the error
 * of the statement. */
int sqlite_op_run(struct sqlite_writer *w, struct store_request *r);
/* The three changes of one row. `*changed`: 0 or 1. */
int sqlite_op_insert(struct sqlite_writer *w, const struct store_row *row, int *changed);
int sqlite_op_delete(struct sqlite_writer *w, const struct store_row *row, int *changed);
int sqlite_op_recovery(struct sqlite_writer *w, const struct store_row *row, int *changed);

/* --- SET (sqlite_set.c) -------------------------------------------------------------------- */

#define SETS_ACTIVE_MAX 16

struct sqlite_set;
/* Takes over the request; it is answered by sqlite_set_turn. */
struct sqlite_set *sqlite_set_create(struct store_request *r);
/* One transaction of the set. true: it has ended, was answered and is freed. */
bool sqlite_set_turn(struct sqlite_writer *w, struct sqlite_set *s);
struct list *sqlite_set_node(struct sqlite_set *s);
struct sqlite_set *sqlite_set_of_node(struct list *node);

#endif
