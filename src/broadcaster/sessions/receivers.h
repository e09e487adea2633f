/*
 * Who of this worker's sessions is subscribed to what, and the way of a message to them. A session is
 * given each message once, however many of its subscriptions match. (doc/protocol/session.md, 5)
 *
 * Which globs match a topic is found once for the process, by forwarding.c; here they are looked up
 * by their text, like topics. So offering a message costs what its takers cost, whatever is
 * subscribed to.
 *
 * Threads: a receivers belongs to one worker; everything on its loop. An outgoing may be shared by
 * the workers.
 */
#ifndef RECEIVERS_H
#define RECEIVERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <lonely/span.h>

#include "body.h"
#include "index.h"
#include "list.h"
#include "store.h"

/*
 * A message on its way to sessions: immutable, counted. `identifier` is the one of its RECEIVE_STREAM,
 * the same for every session. What sessions may share of its encoded forms is kept beside it
 * (session_send.c), by each worker for itself.
 */
struct outgoing {
    atomic_uint refs;
    struct body *body;
    uint8_t identifier[4];
    struct lonely_span topic; /* stored behind the structure */
};

/* Takes a reference to `body`, copies `topic`. One reference, the caller's. */
struct outgoing *outgoing_create(struct lonely_span topic, struct body *body,
                                 const uint8_t identifier[4]);
void outgoing_ref(struct outgoing *m);
void outgoing_unref(struct outgoing *m); /* NULL is allowed */

struct receiver;

struct receiver_ops {
    /* Queues the message, of which it takes a reference. false: it was not taken (the session is
     * ending), and does not count. May end the session, but must not free it nor change what
     * anybody is subscribed to before it returns. */
    bool (*on_message)(struct receiver *r, struct outgoing *m);
    bool (*on_missed)(struct receiver *r, struct lonely_span topic);
};

/* The session's part in it. Zeroed but for `ops`, then receivers_join. */
struct receiver {
    const struct receiver_ops *ops;
    struct list node;  /* of all receivers of the worker */
    struct list links; /* its subscriptions */
    uint64_t stamp;    /* of the last message that was offered */
};

struct receivers;

struct receivers *receivers_create(void);
/* After the last receiver has left. NULL is allowed. */
void receivers_destroy(struct receivers *all);

void receivers_join(struct receivers *all, struct receiver *r);
/* Ends all its subscriptions here (the rows are forwarding.h's, through receivers_each) and forgets it. */
void receivers_leave(struct receivers *all, struct receiver *r);

/* false: that receiver has it already. A glob reaches nobody before forwarding_add has counted it. */
bool receivers_subscribe(struct receivers *all, struct receiver *r, enum store_kind kind,
                         struct lonely_span key);
/* false: it has not. */
bool receivers_unsubscribe(struct receivers *all, struct receiver *r, enum store_kind kind,
                           struct lonely_span key);
bool receivers_has(const struct receivers *all, const struct receiver *r, enum store_kind kind,
                   struct lonely_span key);
/* Calls `fn` for each subscription of `r`; `fn` must not change them. */
void receivers_each(const struct receivers *all, const struct receiver *r,
                    void (*fn)(void *arg, enum store_kind kind, struct lonely_span key), void *arg);

/* Is anybody subscribed to the topic, or to one of the globs (those that match it; NULL: none)? */
bool receivers_match(const struct receivers *all, struct lonely_span topic,
                     const struct index_matches *globs);
/* Offers the message to everybody who is. How many took it. */
uint32_t receivers_deliver(struct receivers *all, struct outgoing *m,
                           const struct index_matches *globs);
uint32_t receivers_missed(struct receivers *all, struct lonely_span topic,
                          const struct index_matches *globs);

/* The worker's sessions, for closing them: calls `fn` for each; it may leave. */
void receivers_each_receiver(struct receivers *all, void (*fn)(void *arg, struct receiver *r),
                             void *arg);
size_t receivers_count(const struct receivers *all);
/* How many different topics and globs its sessions are subscribed to. Any thread. */
size_t receivers_keys(const struct receivers *all);

#endif
