/*
 * What test_scenarios.c runs the vectors in: a broadcaster whose clock, randomness, subscribers and
 * websocket clients are the script's.
 *
 * Linked with --wrap: outbox_add is the subscriber, worker_random and gate_create hand out the identifiers
 * and nonces that the vectors show, gate_asks and gate_check make authorization unavailable where a
 * scenario says so.
 */
#ifndef SCENARIO_H
#define SCENARIO_H

#include <sqlite3.h>
#include <stdatomic.h>

#include "broadcaster.h"
#include "receivers.h"
#include "secrets.h"
#include "vectors.h"

/* ---- scenario_script.c: what is scripted of the present step ----
 * Written between requests, while the worker has nothing to do, and read by it during them. */

enum { SCRIPT_DRAWS_MAX = 8, SCRIPT_CALLS_MAX = 8 };

extern struct script {
    json_t *calls; /* an array, or NULL */
    bool made[SCRIPT_CALLS_MAX];
    size_t unplanned, wrong;
    char what[256];                           /* about the first of these */
    uint8_t identifiers[SCRIPT_DRAWS_MAX][8]; /* to be drawn */
    uint8_t nonces[SCRIPT_DRAWS_MAX][4];
    size_t n_identifiers, n_nonces, identifiers_drawn, nonces_drawn;
    bool unavailable_to_broadcaster, unavailable_to_subscriber;
    json_t *missed;  /* the call of a sweep, or NULL */
    uv_sem_t called; /* it was made */
    uv_loop_t *loop; /* the worker's */
} script;

void script_reset(void); /* the next step */
/* The next nonce is that of `authorization`; under other schemes none is drawn. */
void script_plan_nonce(const char *authorization);
/* Replaces the calls to the store that scenarios make: it is not reached. */
void script_take_store_down(struct store_ops *ops);

/* ---- scenario_server.c: the broadcaster ---- */

enum { SERVER_CLIENTS_MAX = 2 };

extern struct server {
    char dir[32], database[64], secrets[64];
    struct conf conf;
    struct log log;
    struct broadcaster *b;
    struct store_ops down;
    sqlite3 *db;
    struct server_client {
        struct receiver r; /* first */
        atomic_uint messages;
    } clients[SERVER_CLIENTS_MAX];
    size_t n_clients;
    uv_sem_t subscribed;
    double now_s;
    struct secrets keys; /* to verify what it signs */
    json_t *updated;     /* recovery urls that SET changed, by identity (http.md, Q15) */
} server;

/* Of a line of http.jsonl; between the two its database may be changed. */
void server_create(const json_t *line);
void server_start(const json_t *line);
void server_end(void);

/* A text member, or NULL. */
static inline const char *text_of(const json_t *object, const char *key)
{
    return object != NULL ? json_string_value(json_object_get(object, key)) : NULL;
}

#endif
