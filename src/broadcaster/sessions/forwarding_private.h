/*
 * Inside of forwarding: shared by forwarding.c (the rows), forwarding_feed.c (what the store says of
 * them) and forwarding_deliver.c (the way of a message). Nobody else includes it.
 */
#ifndef FORWARDING_PRIVATE_H
#define FORWARDING_PRIVATE_H

#include <stdatomic.h>

#include "forwarding.h"
#include "index.h"
#include "list.h"
#include "mailbox.h"
#include "map.h"

/*
 * A topic or glob, while somebody wants it, or its row may be in the store. At most one store call for
 * it is under way at a time, so that adding and removing it take effect in order.
 */
struct forwarding_row {
    struct map_node node; /* of forwarding.rows */
    struct list suspect;  /* of forwarding.suspects: for the sweep to look at */
    enum store_kind kind;
    struct lonely_span key; /* stored behind the structure */
    size_t holders;         /* sessions that were told STORE_OK */
    struct list waiting;    /* letters of those that want it and wait to be told */
    struct list leaving;    /* and of those that wait for its end */
    bool wanted;            /* by a holder or one who waits */
    bool stored;            /* as far as our calls tell */
    bool seen;              /* as far as the store's feed tells */
    bool busy;              /* a store call is under way */
    uint64_t load;          /* the last load of the whole content that had it */
};

struct forwarding {
    char *url;
    size_t url_len;
    char *missed_url; /* NULL: none */

    uv_mutex_t lock;    /* of all that follows; never held during a call to the store */
    struct map rows[2]; /* by enum store_kind */
    struct list suspects;
    size_t calls;        /* to the store, under way */
    bool ended;          /* no more are to be made */
    struct index *globs; /* those that are wanted; to be matched without the lock */
    struct store_feed globs_feed;
    atomic_size_t wanted[2]; /* rows, by enum store_kind; read without the lock */

    struct store_feed inner; /* what our feed passes on to */
    uint64_t load;           /* of the whole content: how many there were */
    bool loading;

    /* Of forwarding_end. */
    struct letter end_letter;
    struct worker *end_worker;
    void (*end_done)(void *arg);
    void *end_arg;
};

/* NULL: there is none. Under the lock, as the next ones. */
struct forwarding_row *forwarding_row_find(const struct forwarding *f, enum store_kind kind,
                                           struct lonely_span key);
struct forwarding_row *forwarding_row_create(struct forwarding *f, enum store_kind kind,
                                             struct lonely_span key);
/* For the sweep to look at. */
void forwarding_row_suspect(struct forwarding *f, struct forwarding_row *row);

#endif
