/*
 * What servers and clients have in common: the loop, the connections on it, plugins, stopping, and
 * the mailbox of other threads. server.c and client.c embed it as their first member.
 *
 * Threads: the loop's, but for endpoint_ask_stop() and endpoint_post().
 */
#ifndef TINYPROTO_ENDPOINT_H
#define TINYPROTO_ENDPOINT_H

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include <tinyproto/conn.h>

#include "deadline.h"
#include "list.h"
#include "map.h"

/* Kinds of deadlines. Of a connection, the first four exclude each other (`life`), and so do the next
 * two (`extra`). */
enum deadline_kind { DUE_OPEN, DUE_STALL, DUE_IDLE, DUE_LINGER, DUE_ATTEMPT, DUE_GRACE, DUE_STOP };

#define SCRATCH_BYTES (256 * 1024) /* one read; shared, so that idle connections hold none */

struct endpoint;

/* What differs. All run on the loop, outside of calls. */
struct endpoint_ops {
    void (*pre_loop)(struct endpoint *e);
    void (*loop_pass)(struct endpoint *e); /* NULL in the table of those without this hook */
    void (*stopping)(struct endpoint *e);  /* accept nobody any more */
    void (*post_loop)(struct endpoint *e); /* the last: `e` may be freed in it */
    void (*conn_shutdown)(struct endpoint *e, struct tinyproto_conn *c,
                          const struct tinyproto_cause *why);
};

struct endpoint {
    bool is_server;
    bool owns_loop;
    bool is_open; /* its handles are in the loop */
    bool is_stopping;
    bool is_closing; /* its handles are being closed */
    bool pre_loop_ran;
    bool wants_passes; /* the program has a loop_pass */
    const struct endpoint_ops *ops;
    struct tinyproto_options options;
    const struct tinyproto_handler *handler;
    struct tinyproto_plugin *plugins;
    size_t n_plugins;

    uv_loop_t *loop, own_loop;
    uv_check_t check;
    uv_idle_t idle; /* active while `dirty` holds any */
    uv_timer_t tick;
    uv_poll_t wake;
    unsigned open_handles;
    struct deadlines deadlines;
    struct deadline stop_due;
    uint8_t *scratch;

    struct list conns; /* all that are not freed */
    struct map by_id;
    struct list dirty;      /* to be looked at this turn */
    size_t count;           /* connections whose socket is not closed; without refused ones */
    size_t n_refused;       /* over the limit, until their orderly close is done */
    size_t n_passing;       /* connections with a loop_pass */
    size_t holds;           /* things that must be closed before the handles are */
    size_t n_lookups;       /* host names being resolved */
    struct list unresolved; /* openings that wait for one of these to be over */
    uint64_t incoming_bytes;

    int wake_fd; /* an eventfd, from create to destroy: a signal handler may write to it */
    atomic_bool stop_asked;
    pthread_mutex_t mutex; /* guards the rest */
    bool takes_mail;
    struct list mail;
    size_t mail_bytes; /* with what waits for room in send queues */
};

/* `loop` NULL: its own. TINYPROTO_E_SYSTEM, _E_MEMORY: nothing is to be freed. */
enum tinyproto_error endpoint_init(struct endpoint *e, const struct endpoint_ops *ops,
                                   const struct tinyproto_options *options, uv_loop_t *loop);
void endpoint_fini(struct endpoint *e); /* not open */

/* Puts its handles into the loop. */
enum tinyproto_error endpoint_open(struct endpoint *e);
/* Runs its own loop until it is stopped. */
void endpoint_run(struct endpoint *e);
/* Any thread, signal handlers. */
void endpoint_ask_stop(struct endpoint *e);
void endpoint_abort_all(struct endpoint *e);
/* Something that `holds` counted is gone. */
void endpoint_release(struct endpoint *e);

/* Has the connection looked at this turn. */
void endpoint_mark(struct endpoint *e, struct list *dirty);
/* After n_passing or wants_passes changed. */
void endpoint_update_tick(struct endpoint *e);

/* Is it what tinyproto_address_set and _parse make? Programs may fill one by hand. (address.c) */
bool address_is_valid(const struct tinyproto_address *address);

enum tinyproto_error endpoint_add_plugin(struct endpoint *e, const struct tinyproto_plugin *p);
struct tinyproto_conn *endpoint_find(const struct endpoint *e, const char *id);
void endpoint_each(struct endpoint *e, bool (*fn)(void *arg, struct tinyproto_conn *c), void *arg);
/* Letters for this connection that wait for room in its send queue: as many as fit go there. When it is
 * closed they are dropped. */
void endpoint_deliver_kept(struct tinyproto_conn *c);
/* Any thread. */
enum tinyproto_error endpoint_post(struct endpoint *e, const char *id, const void *ptr, size_t len);

#endif
