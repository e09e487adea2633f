/*
 * Calls to an rqlite cluster: the nodes of database.url, and for each thread of the store a
 * connection, which finds the leader, goes on to another node when one fails, and bounds every wait.
 *
 * Requests, and the name and password with them, go to nodes of database.url alone. A node that is
 * not the leader names it; when that is a node of ours by its address, we go there, else the node is
 * asked to forward the request itself.
 */
#ifndef RQLITE_CONN_H
#define RQLITE_CONN_H

#include <stdatomic.h>

#include <curl/curl.h>

#include "rqlite_json.h"
#include "store_request.h"

struct rqlite_node {
    char *base;     /* "http://host:port" */
    char *user;     /* NULL: none */
    char *password; /* NULL: that of the file or the environment */
    char *ca_file;  /* NULL: the system's */
};

/* What the threads share. */
struct rqlite_cluster {
    struct rqlite_node *nodes;
    size_t count;
    char *password_file; /* for store_password_read */
    char *ca_file;       /* NULL: the system's */
    struct log *log;
    uint64_t timeout_ms;
    bool weak;
    atomic_bool down;           /* the last call found no node that works: calls are not begun */
    atomic_size_t leader;       /* the node that worked last */
    struct store_queue *prober; /* of the thread that tries while it is down; NULL: none yet */
};

/* false: one line in `error`, without passwords; nothing is to be freed. */
bool rqlite_cluster_init(struct rqlite_cluster *c, const struct store_conf *conf, char error[256]);
void rqlite_cluster_fini(struct rqlite_cluster *c);
/* For those who look before they call. */
static inline bool rqlite_is_down(struct rqlite_cluster *c)
{
    return atomic_load_explicit(&c->down, memory_order_relaxed);
}

enum rqlite_path { RQLITE_READ, RQLITE_READ_NEWS, RQLITE_WRITE };

enum rqlite_result {
    RQLITE_OK,       /* `*results`; those of a statement may be an error */
    RQLITE_DOWN,     /* no node did it in time; a write may have been done, or be done later */
    RQLITE_REFUSED,  /* not authorized, or not understood: nothing was done */
    RQLITE_TOO_LONG, /* the reply; a write was done */
};

struct rqlite_conn {
    struct rqlite_cluster *cluster;
    CURL *easy; /* NULL: not open */
    struct curl_slist *headers;
    char *password; /* for user names that have none; read again when it is refused */
    struct buf reply;
    bool too_long;
    size_t statements; /* that the call sends */
    size_t node;
    bool forwards;                 /* the leader is not one of ours: `node` forwards */
    uint64_t forwards_ms;          /* since */
    char trouble[CURL_ERROR_SIZE]; /* why the last call failed */
};

/* false: one line in `error`, and nothing is to be closed. */
bool rqlite_conn_open(struct rqlite_conn *c, struct rqlite_cluster *cluster, char error[256]);
void rqlite_conn_close(struct rqlite_conn *c);

/* Sends the statements and waits, until `until_ms` (monotonic) at most. `*results` is for
 * json_decref, NULL unless RQLITE_OK. Writes are one transaction. */
enum rqlite_result rqlite_call(struct rqlite_conn *c, enum rqlite_path path,
                               const struct rqlite_body *body, uint64_t until_ms, json_t **results);
/* The same; statements that fail are RQLITE_REFUSED too, and told in the log. */
enum rqlite_result rqlite_read(struct rqlite_conn *c, enum rqlite_path path,
                               const struct rqlite_body *body, uint64_t until_ms, json_t **results);
/* Writes a log line: what could not be done, and why. */
void rqlite_failed(struct rqlite_conn *c, const char *doing, const char *why);

uint64_t rqlite_now_ms(void); /* monotonic */

#endif
