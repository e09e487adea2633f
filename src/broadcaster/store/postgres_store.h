/*
 * The parts of the PostgreSQL backend and what they share. Threads: the writer makes every change;
 * the reader computes etags; the feeder loads everything, reads what the loops cannot, and connects
 * for them. Each has a connection of its own; so has each loop, for its looks at the change log.
 */
#ifndef POSTGRES_STORE_H
#define POSTGRES_STORE_H

#include "postgres_schema.h"
#include "store_front.h"
#include "store_mac_queue.h"
#include "store_page.h"
#include "store_process.h"
#include "store_request.h"

/* --- change log -> feed (postgres_feed.c) --------------------------------------------------- */

/* The last row of the log that was applied. Those behind it are the news, as long as it is there. */
struct postgres_position {
    int64_t seq, mark;
    uint64_t loads; /* how often everything was loaded before */
};

struct postgres_slot;

struct postgres_feed {
    struct store_feed to;
    struct store_macs macs;
    uv_mutex_t lock;    /* held while `to` is called */
    uv_mutex_t at_lock; /* guards `at`; held shortly */
    struct postgres_position at;
    atomic_llong macs_applied; /* the last number of the used macs that `macs` has seen */
    struct store_queue queue;  /* SYNC that a loop could not answer itself */
    struct postgres_conn conn;
    uint64_t macs_read_for; /* conn.opened, when all used macs were read last */
    atomic_bool suspect;    /* a loop had no answer: see whether the server is there */
    uv_mutex_t slots_lock;
    struct list slots;
    uint64_t slots_retry_ms; /* the last connection for a loop failed: none before */
    uv_thread_t thread;
    bool running;
};

bool postgres_feed_open(struct postgres_feed *f, struct postgres_place *place,
                        const struct store_conf *conf, const struct store_feed *to,
                        char error[256]); /* feeds the whole content */
bool postgres_feed_start(struct postgres_feed *f);
void postgres_feed_close(struct postgres_feed *f);

/* What the feeder and the looks send; the first two are the same for both. */
enum feed_statement { F_NEWS, F_MACS, F_LOOK_COUNT, F_NEWEST = F_LOOK_COUNT, F_COUNT };

enum postgres_news {
    NEWS_NONE, /* the feed has seen everything */
    NEWS_SOME, /* there is, or may be, more */
    NEWS_GAP   /* the last row that was applied is gone */
};

struct postgres_position postgres_feed_at(struct postgres_feed *f);
void postgres_news_params(struct postgres_params *p, const struct postgres_position *asked);
/* What a result of F_NEWS says. */
enum postgres_news postgres_news_of(const PGresult *result, const struct postgres_position *asked);
/* Applies it; the caller holds `lock`. */
enum postgres_news postgres_news_apply(struct postgres_feed *f, const PGresult *result,
                                       const struct postgres_position *asked);
/* Applies a result of F_MACS. */
enum postgres_news postgres_macs_apply(struct postgres_feed *f, const PGresult *result);

/* --- connections for the loops (postgres_slot.c) -------------------------------------------- */

/* A loop's wish for a connection, which the feeder fulfils: looking up names, and so connecting, may
 * block. `arrived` tells the loop of one. */
struct postgres_slot *postgres_slot_open(struct postgres_feed *f, uv_async_t *arrived);
void postgres_slot_want(struct postgres_feed *f, struct postgres_slot *slot);
PGconn *postgres_slot_take(struct postgres_feed *f,
                           struct postgres_slot *slot); /* NULL: none yet */
void postgres_slot_close(struct postgres_feed *f, struct postgres_slot *slot);
/* On the feeder's thread. false: one could not be made. */
bool postgres_slots_serve(struct postgres_feed *f);

/* --- a loop's own looks (postgres_look.c) --------------------------------------------------- */

/* On the loop's thread. One look, for all who ask while it waits for its turn, is under way. */
struct postgres_look {
    struct postgres_feed *feed;
    uv_loop_t *loop;
    struct postgres_slot *slot;
    PGconn *pg;         /* NULL: none; the feeder makes one */
    uv_poll_t *poll;    /* of its socket */
    uv_prepare_t turn;  /* when all of a turn's calls were made */
    uv_async_t arrived; /* a connection */
    uv_timer_t timer;   /* expiry, and waking */
    struct list asked;  /* store_request */
    struct list looking;
    unsigned wants, doing; /* LOOK_... */
    bool under_way;
    bool forward; /* what the look was for, the feeder must do */
    bool woken;   /* by NOTIFY */
    bool closing;
    struct postgres_position asked_at;
    uint64_t deadline_ms;
    int open_handles;
    void (*on_closed)(void *arg);
    void *arg;
};

#define LOOK_NEWS 1u
#define LOOK_MACS 2u

extern const struct postgres_kind postgres_kind_of_look;

/* The loop has an async handle already, so that nothing can fail. */
void postgres_look_open(struct postgres_look *l, struct postgres_feed *f, uv_loop_t *loop);
/* Answers all who wait. */
void postgres_look_close(struct postgres_look *l, void (*on_closed)(void *arg), void *arg);
/* Takes over a SYNC; `wants` says what for. */
void postgres_look_ask(struct postgres_look *l, unsigned wants, struct store_request *r);
static inline bool postgres_look_is_ready(const struct postgres_look *l)
{
    return l->pg != NULL && !l->closing;
}

/* --- CHECK (postgres_reader.c) -------------------------------------------------------------- */

struct postgres_reader {
    struct store_queue queue;
    struct postgres_conn conn;
    struct list active; /* struct check */
    size_t n_active;
    uv_thread_t thread;
    bool running;
};

bool postgres_reader_open(struct postgres_reader *r, struct postgres_place *place,
                          const struct store_conf *conf, char error[256]);
bool postgres_reader_start(struct postgres_reader *r);
void postgres_reader_close(struct postgres_reader *r);

/* The statement of a page of sorted rows of a url, from a key on: url, key. It ends with the row that
 * exceeds STORE_PAGE_BYTES; `total` is of the bytes up to a row. And a result of it as a page, without
 * the row that `from` stands behind. `*ended`: of that kind there are no more. */
#define PAGE_ROWS(table, key)                                                                 \
    "SELECT " key " AS key, missed_url, " SIZE_OF(key) " + " SIZE_OF(                         \
        "missed_url") " AS size FROM " table                                                  \
                      " WHERE " OF_URL("$1") " AND " SORTED_BY(key) " >= " SORTED_BY(         \
                          "$2::bytea") " AND " key " >= $2 ORDER BY " SORTED_BY(key) ", " key \
                                                                                     " LIMIT 1001"
/* The sum goes along the rows as they come: another sort would read all of every key. */
#define SQL_PAGE(table, key)                                                        \
    "SELECT key, missed_url, total FROM (SELECT *, sum(size) OVER (ROWS UNBOUNDED " \
    "PRECEDING) AS total FROM (" PAGE_ROWS(table, key) ") AS listed) AS summed "    \
                                                       "WHERE total - size < 1048576"
void postgres_page_params(struct postgres_params *p, struct lonely_span url,
                          const struct store_place *from);
bool postgres_page_read(const PGresult *result, const struct store_place *from,
                        struct store_page *page, bool *ended); /* false: no memory */

/* For sessions that find rows by their indices: statistics may lag behind tables that grow. */
#define SQL_USE_INDICES \
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off"

/* --- writes (postgres_writer.c) ------------------------------------------------------------- */

enum writer_statement {
    W_BEGIN,
    W_COMMIT,
    W_ROLLBACK,
    W_GUARD,
    W_LOCK,
    W_LOG_PRUNE,
    W_MAC_LOCK,
    W_MAC_INSERT,
    W_MAC_PRUNE,
    W_MARKS,
    W_MARK,
    W_UNMARK,
    W_MISSED_LOCK,
    /* From here on a pair each: for exacts, for globs; use W_OF. */
    W_INSERT,
    W_DELETE = W_INSERT + 2,
    W_MISSED_UPSERT = W_DELETE + 2,
    W_MISSED_CLEAR = W_MISSED_UPSERT + 2,
    W_MISSED_RETRY = W_MISSED_CLEAR + 2,
    W_PAGE = W_MISSED_RETRY + 2,
    W_SET_INSERT = W_PAGE + 2,
    W_SET_DELETE = W_SET_INSERT + 2,
    W_SET_RECOVERY = W_SET_DELETE + 2,
    W_COUNT = W_SET_RECOVERY + 2
};
#define W_OF(pair, kind) ((size_t)(pair) + (size_t)(kind))

/* How a transaction ended. */
enum postgres_outcome {
    OUTCOME_DONE,
    OUTCOME_OWN_FAULT, /* of a statement: undone; the others may do better without it */
    OUTCOME_FAILED     /* undone, or never to be done */
};

struct postgres_writer {
    struct store_mac_queue macs;
    bool macs_failed; /* alone, the last time */
    struct postgres_array mac_codes, mac_times;
    atomic_llong *macs_applied; /* of the feed */
    int64_t mark_id;
    char process[STORE_PROCESS_SIZE];
    struct store_queue queue;
    struct postgres_conn conn;
    struct list sets; /* struct postgres_set, those under way; one transaction in turn */
    size_t n_sets;
    uint64_t timeout_ms;
    uint64_t prune_at_ms; /* next look at the log, and next sign of life */
    /* Of the transaction under way. */
    uint64_t until_ms;
    enum postgres_outcome outcome;
    int n_heads, n_tail; /* results that are nobody's: of its beginning and end */
    uv_thread_t thread;
    bool running;
};

bool postgres_writer_open(struct postgres_writer *w, struct postgres_place *place,
                          const struct store_conf *conf, char error[256]); /* creates the tables */
bool postgres_writer_start(struct postgres_writer *w);
void postgres_writer_close(struct postgres_writer *w);

/*
 * A transaction: _begin, statements with _send, a _take for each in that order after _flush (which may
 * come several times, each with the _takes of what was sent since), then _end, which commits. What is
 * sent later than `until_ms` by the server's clock is undone by itself.
 */
void postgres_tx_begin(struct postgres_writer *w, bool lock, uint64_t until_ms);
void postgres_tx_send(struct postgres_writer *w, size_t statement,
                      const struct postgres_params *params);
void postgres_tx_flush(struct postgres_writer *w);
/* NULL: it failed. The caller clears it. */
PGresult *postgres_tx_take(struct postgres_writer *w);
void postgres_tx_send_end(struct postgres_writer *w); /* then flush and take what is left, then: */
enum postgres_outcome postgres_tx_end(struct postgres_writer *w);
void postgres_tx_fail(struct postgres_writer *w); /* will be undone */

/* --- operations (postgres_ops.c) ------------------------------------------------------------ */

extern const char *const postgres_writer_sql[W_COUNT];
/* Sends what a request takes, one statement; and puts the answer into r->status. */
void postgres_op_send(struct postgres_writer *w, struct store_request *r);
void postgres_op_take(struct postgres_writer *w, struct store_request *r);
size_t postgres_op_size(const struct store_request *r); /* bytes that it sends */

/* --- used macs (postgres_macs.c) ------------------------------------------------------------ */

/* Marks the process as one that takes macs; tells conf->macs.lost. */
bool postgres_macs_open(struct postgres_writer *w, const struct store_conf *conf, char error[256]);
void postgres_macs_close(struct postgres_writer *w); /* writes what waits, takes the mark away */
/* Sends a batch inside the transaction. Returns whether there was one; then _take. */
bool postgres_macs_send(struct postgres_writer *w);
/* What came of it: applied when the transaction is done. */
struct postgres_macs_batch {
    long long before, last; /* the newest numbers around it */
};
struct postgres_macs_batch postgres_macs_take(struct postgres_writer *w);
void postgres_macs_written(struct postgres_writer *w, const struct postgres_macs_batch *batch);
void postgres_macs_sign_of_life(struct postgres_writer *w);

/* --- SET (postgres_set.c) ------------------------------------------------------------------- */

#define POSTGRES_SETS_MAX 16

struct postgres_set;
/* Takes over the request; it is answered by postgres_set_turn. */
struct postgres_set *postgres_set_create(struct store_request *r);
/* One transaction of the set. true: it has ended, was answered and is freed. */
bool postgres_set_turn(struct postgres_writer *w, struct postgres_set *s);
struct list *postgres_set_node(struct postgres_set *s);
struct postgres_set *postgres_set_of_node(struct list *node);

#endif
