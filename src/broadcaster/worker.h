/*
 * One loop on one thread, with its own listeners, connections, HTTP client and outbox. Workers share
 * nothing but what struct broadcaster holds.
 */
#ifndef WORKER_H
#define WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "broadcaster.h"
#include "gate.h"
#include "http_client.h"
#include "http_server.h"
#include "list.h"
#include "mailbox.h"
#include "metrics.h"
#include "outbox.h"
#include "pulse.h"
#include "store.h"

struct mount_port;

/* In order of life; only worker.c changes the state. */
enum worker_state {
    WORKER_RUNNING,
    WORKER_DRAINING, /* no new connections; what was taken is finished */
    WORKER_STOPPING, /* what was taken is cancelled; until the last hold is released */
    WORKER_CLOSING   /* handles close, the loop ends */
};

#define WORKER_RANDOM_POOL 4096

struct worker {
    struct broadcaster *b;
    uv_loop_t loop;
    uv_thread_t thread;
    uv_async_t wakeup;  /* a command was left in `command` */
    atomic_int command; /* a worker_state to go to */
    uv_timer_t drain_timer;
    enum worker_state state;
    struct metrics *metrics; /* its thread's */
    struct pulse pulse;      /* when there is an admin listener */
    struct http_server *http;
    struct mount_port *mount; /* NULL: the program has no server of its own for us */
    struct http_client *client;
    struct store_client *store;
    struct gate *gate;
    struct outbox *outbox;
    struct sessions *sessions;      /* NULL: none are served */
    struct missed_sweeper *sweeper; /* the first worker's only */
    struct body_lane *lane;         /* of bodies on their way to files */
    size_t chunks;                  /* deliveries that hold a part of a spooled body */
    struct list long_matches;       /* of hub.c: notifies that wait for the one in the pool */
    bool matching;                  /* one is in the pool */
    struct mailbox mailbox;         /* for letters of the other workers */
    struct receivers *receivers;    /* its sessions' subscriptions */
    struct list long_errands;       /* of forwarding_deliver.c: as long_matches */
    bool matching_errand;
    size_t drains;              /* what a drain still waits for */
    atomic_bool stopping;       /* for threads of the pool and the store: give up long work */
    size_t holds;               /* requests, chunks being read, and calls of a sweep under way */
    struct list unsynced;       /* notifies of this turn, hub.c's */
    uint64_t synced_at_ms;      /* the index holds all that was committed before; hub.c's */
    uv_check_t turn_end;        /* runs after the poll while there are any ... */
    uv_idle_t no_wait;          /* ... and keeps the poll from waiting */
    size_t collected_bytes;     /* held for requests whose fields are not complete */
    size_t max_collected_bytes; /* this worker's share of limits.max_body_memory */
    bool http_closed, mount_closed, sessions_closed;
    uint8_t random[WORKER_RANDOM_POOL];
    size_t random_left;
};

/* Makes the worker and all that belongs to its loop. `number` picks its listening sockets. */
bool worker_create(struct broadcaster *b, size_t number, struct worker **out, char error[256]);
/* Starts its thread. false: errno text in `error`. */
bool worker_start(struct worker *w, char error[256]);
/* Leaves a command: WORKER_DRAINING or WORKER_STOPPING. Any thread. */
void worker_command(struct worker *w, enum worker_state to);
/* Waits for its thread. */
void worker_join(struct worker *w);
/* Frees. A worker that never started is closed first. NULL is allowed. */
void worker_destroy(struct worker *w);

/* While held, the worker keeps its outbox, store and loop. On the worker's thread. */
void worker_hold(struct worker *w);
void worker_release(struct worker *w);

/* A worker's share of the connections of one kind, HTTP or raw TCP. */
uint32_t worker_max_connections(const struct broadcaster *b);

/* What every HTTP server of the broadcaster has in common, and the rest as for the public ones. */
struct http_server_conf worker_server_conf(const struct broadcaster *b);

/* Puts a notify into `unsynced`; hub_turn_end is called once all input of this turn was read. */
void worker_at_turn_end(struct worker *w, struct list *node);

/* Random bytes from the system's generator, few at a time. On the worker's thread. */
void worker_random(struct worker *w, uint8_t *to, size_t len);

#endif
