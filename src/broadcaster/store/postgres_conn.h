/*
 * One connection to the PostgreSQL server with its prepared statements, used by one thread, which
 * waits no longer than it says. After a failure that a new connection may cure it is opened anew at
 * the next use, with pauses that grow while the server cannot be reached.
 */
#ifndef POSTGRES_CONN_H
#define POSTGRES_CONN_H

#include <stdatomic.h>

#include <libpq-fe.h>

#include "log.h"
#include "store.h"

/* --- the server ----------------------------------------------------------------------------- */

/* What all connections of a store have in common. */
struct postgres_place {
    PQconninfoOption *options; /* of the URL */
    size_t n_hosts;            /* that it names; each attempt to connect is for one */
    atomic_size_t host;        /* the one that answered last */
    char *password_file;       /* may be NULL */
    char *shown;               /* how errors call it: host and port, never a secret */
    struct log *log;           /* may be NULL */
    uint64_t timeout_ms;
    atomic_ullong stop_by_ms; /* 0, or the store closes: no wait lasts longer */
};

/* Reads the URL. false: one line in `error`, and nothing is to be freed. */
bool postgres_place_init(struct postgres_place *p, const struct store_conf *conf, char error[256]);
void postgres_place_fini(struct postgres_place *p);

/* --- a connection --------------------------------------------------------------------------- */

#define POSTGRES_STATEMENTS_MAX 32

/* What connections of one purpose have in common; constant. */
struct postgres_kind {
    const char *const *sql; /* its statements, in the order of its enum */
    size_t n;               /* at most POSTGRES_STATEMENTS_MAX */
    const char *session;    /* commands run first, or NULL */
    bool schema;            /* creates what is absent */
    bool pipeline;          /* stays in pipeline mode */
};

struct postgres_conn {
    const struct postgres_kind *kind;
    struct postgres_place *place;
    PGconn *pg;        /* NULL: not open */
    uint64_t opened;   /* how often */
    atomic_bool down;  /* the server did not answer of late: nobody need wait for it */
    unsigned failures; /* to connect, in a row */
    uint64_t retry_ms; /* not before */
    bool told;         /* the failure is in the log */
    double clock_ms;   /* the server's clock less our monotonic one, or a little earlier */
};

/* `kind` and `place` must outlive it. Connects to nothing yet. */
void postgres_conn_init(struct postgres_conn *c, const struct postgres_kind *kind,
                        struct postgres_place *place);
/* Opens it, trying every host once. false: one line in `error`; it may be tried again. */
bool postgres_conn_open(struct postgres_conn *c, char error[256]);
/* Is it open, or could it be opened again? Not within a pause. */
bool postgres_conn_ready(struct postgres_conn *c);
/* How long until _ready is worth calling: 0 when it is open. */
uint64_t postgres_conn_pause_ms(const struct postgres_conn *c);
void postgres_conn_close(struct postgres_conn *c); /* also one that is not open */
/* Gives the libpq connection away; it is not open then. */
PGconn *postgres_conn_release(struct postgres_conn *c);
/* Closes it such that nothing that the server has not received yet will still be sent. */
void postgres_finish(PGconn *pg);

/* Has TLS decrypted more than libpq has taken? The socket does not tell of that. */
bool postgres_has_more(PGconn *pg);

/* --- statements ----------------------------------------------------------------------------- */

#define POSTGRES_PARAMS_MAX 6

/* The arguments of a statement, all in binary; what they point to must live until it is sent. */
struct postgres_params {
    int n;
    const char *values[POSTGRES_PARAMS_MAX];
    int lengths[POSTGRES_PARAMS_MAX];
    uint8_t numbers[POSTGRES_PARAMS_MAX][8];
};

void postgres_add_bytes(struct postgres_params *p, struct lonely_span bytes);
void postgres_add_bytes_or_null(struct postgres_params *p,
                                struct lonely_span bytes); /* len 0: NULL */
void postgres_add_number(struct postgres_params *p, int64_t number);

/* Queues a statement, or the end of a pipeline. false: no memory, or the connection is lost. */
bool postgres_send(PGconn *pg, size_t statement, const struct postgres_params *params);
bool postgres_sync(PGconn *pg);

/* Waits for the result of the next statement, or of the sync; the caller clears it. NULL: the
 * connection broke or nothing came by `until_ms`; it was closed. */
PGresult *postgres_take(struct postgres_conn *c, uint64_t until_ms);
/* Outside of pipeline mode: one statement and its result; on an error of the server NULL, too, after
 * postgres_conn_failed. */
PGresult *postgres_run(struct postgres_conn *c, size_t statement,
                       const struct postgres_params *params, uint64_t until_ms);
/* The same for a text without arguments. `expected` is what the result must be. */
PGresult *postgres_exec(struct postgres_conn *c, const char *sql, ExecStatusType expected,
                        uint64_t until_ms);
/* In a COPY: waits for the next piece, the caller's to free with PQfreemem. Its length; -1: the end;
 * -2: failed. */
int postgres_copy_take(struct postgres_conn *c, char **out, uint64_t until_ms);

uint64_t postgres_until(const struct postgres_conn *c); /* now and the store's timeout */

/* --- errors --------------------------------------------------------------------------------- */

enum postgres_fault {
    POSTGRES_FAULT_CONNECTION, /* a new connection may cure it */
    POSTGRES_FAULT_BUSY,       /* a lock, the disk, time: later */
    POSTGRES_FAULT_OWN         /* of the statement: the same again will not do better */
};

enum postgres_fault postgres_fault_of(const PGresult *result);
/* Takes note of a failed statement: logs it, and closes the connection if another may do better. */
enum postgres_fault postgres_conn_failed(struct postgres_conn *c, const char *doing,
                                         const PGresult *result);

/* --- values --------------------------------------------------------------------------------- */

int64_t postgres_number(const PGresult *result, int row, int column); /* NULL: 0 */
struct lonely_span postgres_bytes(const PGresult *result, int row, int column);

/* A one-dimensional array of bytea or bigint as a parameter. */
struct postgres_array {
    uint8_t *ptr;
    size_t len, cap;
    uint32_t count;
};

#define POSTGRES_OID_BYTEA  17
#define POSTGRES_OID_BIGINT 20

bool postgres_array_bytes(struct postgres_array *a,
                          struct lonely_span bytes); /* false: no memory */
bool postgres_array_bytes_or_null(struct postgres_array *a, struct lonely_span bytes);
bool postgres_array_number(struct postgres_array *a, int64_t number);
/* Completes the head; the array lives until it is cleared. Not for an empty one. */
void postgres_add_array(struct postgres_params *p, struct postgres_array *a, uint32_t oid);
void postgres_array_clear(struct postgres_array *a);
void postgres_array_fini(struct postgres_array *a);

#endif
