/*
 * The parts of the rqlite backend and what they share. Threads: the writer makes every change; the
 * reader computes etags; the feeder reads the change log and used macs. Each has a queue and a
 * connection of its own.
 */
#ifndef RQLITE_STORE_H
#define RQLITE_STORE_H

#include "rqlite_conn.h"
#include "rqlite_schema.h"
#include "store_mac_queue.h"
#include "store_place.h"
#include "store_process.h"
#include "store_request.h"

/* --- transactions (rqlite_batch.c) --------------------------------------------------------- */

#define RQLITE_BODY_MAX  (16u << 20)
#define RQLITE_BODY_FULL (1u << 20) /* a transaction of that size gets no more */

/*
 * Writes of one process. Every transaction has a number, ascending, and a time until which it is of
 * use; the first statement of each notes them, and fails when it was noted before, or a later one
 * was, or a time beyond its own was seen. So a transaction whose answer is lost can be sent again,
 * and one that was given up can not be done later, when others have acted on its absence.
 *
 * The time is the latest that any process has noted: their clocks need not agree.
 */
struct rqlite_batches {
    struct rqlite_conn conn;
    int64_t process_id;               /* random, not 0 */
    char process[STORE_PROCESS_SIZE]; /* who that is */
    bool keeps_macs;
    int64_t number;             /* of the last one */
    int64_t time_ahead_ms;      /* of the time that others noted to our clock; never less than 0 */
    struct rqlite_body body;    /* what the caller adds statements to */
    struct rqlite_body request; /* with the first statement in front */
    bool schema_is_missing;
};

enum rqlite_outcome {
    RQLITE_DONE,    /* committed; `*results` of the caller's statements, from 0 */
    RQLITE_APPLIED, /* committed, and the answer lost; no results */
    RQLITE_FAILED,  /* a statement failed; nothing was changed */
    RQLITE_UNKNOWN /* not reached in time; from the next transaction on it cannot be done any more */
};

bool rqlite_batches_open(struct rqlite_batches *b, struct rqlite_cluster *cluster, bool keeps_macs,
                         char error[256]);
void rqlite_batches_close(struct rqlite_batches *b);
/* Sends body, which has statements or none (then only the mark of the process is refreshed), and
 * clears it. */
enum rqlite_outcome rqlite_batch_run(struct rqlite_batches *b, uint64_t until_ms, json_t **results);
int64_t rqlite_batch_time_ms(const struct rqlite_batches *b);
/* After RQLITE_APPLIED: the changes it made, columns kind, op, url, key. NULL: not known. */
json_t *rqlite_batch_changes(struct rqlite_batches *b, uint64_t until_ms);

/* --- rows of a url (rqlite_scan.c) ---------------------------------------------------------- */

/* In the order of the protocol (exact topics, then globs, each ascending as bytes), a page at a time;
 * what others change behind its position meanwhile, it sees. */
struct rqlite_scan {
    struct rqlite_conn *conn;
    struct lonely_span url;
    struct store_place place; /* behind what the page holds */
    bool ended;               /* nothing behind the page */
    json_t *page;
    enum store_kind kind; /* of the page */
    size_t at, count;
    struct rqlite_text text;
    struct store_row row; /* at `at`, when at < count */
};

void rqlite_scan_init(struct rqlite_scan *s, struct rqlite_conn *conn, struct lonely_span url);
void rqlite_scan_fini(struct rqlite_scan *s);
/* Reads the next page, when this one is used up and there is one. Then at == count means the end.
 * false: not reached in time. */
bool rqlite_scan_fill(struct rqlite_scan *s, uint64_t until_ms);
/* Goes to the next row of the page. */
void rqlite_scan_next(struct rqlite_scan *s);

/* --- change log -> feed (rqlite_feed.c, rqlite_load.c) -------------------------------------- */

struct rqlite_feed {
    struct rqlite_conn conn;
    struct store_feed to;
    struct store_macs macs;
    int64_t applied;           /* the last number of the log that `to` has seen */
    atomic_llong macs_applied; /* the last number of the used macs that `macs` has seen */
    struct rqlite_text text;
    struct store_queue queue; /* SYNC */
    struct list asking;       /* SYNC, taken from the queue */
    uv_thread_t thread;
    bool running;
};

bool rqlite_feed_open(struct rqlite_feed *f, struct rqlite_cluster *cluster,
                      const struct store_conf *conf, const struct store_feed *to,
                      char error[256]); /* feeds the whole content */
bool rqlite_feed_start(struct rqlite_feed *f);
void rqlite_feed_close(struct rqlite_feed *f);
/* Everything, anew; the log then goes on behind it. false: not now, and `to` keeps what it had. */
bool rqlite_load(struct rqlite_feed *f);
/* Answers SYNCs that have waited too long. */
void rqlite_feed_expire(struct rqlite_feed *f);

/* --- CHECK (rqlite_reader.c) ---------------------------------------------------------------- */

struct rqlite_reader {
    struct rqlite_conn conn;
    struct store_queue queue;
    struct list active; /* struct check */
    size_t n_active;
    uv_thread_t thread;
    bool running;
};

bool rqlite_reader_open(struct rqlite_reader *r, struct rqlite_cluster *cluster,
                        const struct store_conf *conf, char error[256]);
bool rqlite_reader_start(struct rqlite_reader *r);
void rqlite_reader_close(struct rqlite_reader *r);

/* --- writes (rqlite_writer.c) --------------------------------------------------------------- */

/* Used macs on their way into the database (rqlite_macs.c). */
struct rqlite_macs {
    struct store_mac_queue queue;
    size_t statement;      /* the first of the transaction */
    atomic_llong *applied; /* of the feed */
};

struct rqlite_writer {
    struct rqlite_batches batches;
    struct rqlite_macs macs;
    bool macs_failed; /* alone, the last time */
    struct store_queue queue;
    struct list sets; /* struct rqlite_set, those under way; one transaction in turn */
    size_t n_sets;
    uint64_t timeout_ms;
    uint64_t prune_at_ms; /* next look at the change log */
    uv_thread_t thread;
    bool running;
};

/* Creates tables, marks the process, tells conf->macs.lost. */
bool rqlite_writer_open(struct rqlite_writer *w, struct rqlite_cluster *cluster,
                        const struct store_conf *conf, char error[256]);
bool rqlite_writer_start(struct rqlite_writer *w);
void rqlite_writer_close(struct rqlite_writer *w);
/* Creates what is missing, when a transaction has found that something is. false: not now. */
bool rqlite_writer_ready(struct rqlite_writer *w);

/* Adds a statement that writes some; after its commit _written, else they will come again. */
void rqlite_macs_add(struct rqlite_macs *m, struct rqlite_body *body);
void rqlite_macs_written(struct rqlite_macs *m, json_t *results); /* NULL: not known */

/* --- operations (rqlite_ops.c) -------------------------------------------------------------- */

/* Adds the statements of a request. */
void rqlite_op_add(struct rqlite_batches *b, struct store_request *r);
/* The changes of one row. */
void rqlite_op_put(struct rqlite_body *body, const struct store_row *row); /* also its recovery */
void rqlite_op_delete(struct rqlite_body *body, const struct store_row *row);
/* Fills the answers of the requests from the results of the transaction, or from what it changed. */
void rqlite_ops_done(struct rqlite_batches *b, struct list *requests, json_t *results,
                     uint64_t until_ms);
void rqlite_ops_applied(struct rqlite_batches *b, struct list *requests, uint64_t until_ms);

/* --- SET (rqlite_set.c) --------------------------------------------------------------------- */

#define RQLITE_SETS_MAX 16

struct rqlite_set;
/* Takes over the request; it is answered by rqlite_set_turn. */
struct rqlite_set *rqlite_set_create(struct rqlite_writer *w, struct store_request *r);
/* One transaction of the set. true: it has ended, was answered and is freed. */
bool rqlite_set_turn(struct rqlite_writer *w, struct rqlite_set *s);
struct list *rqlite_set_node(struct rqlite_set *s);
struct rqlite_set *rqlite_set_of_node(struct list *node);

#endif
