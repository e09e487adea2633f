/*
 * The outgoing POSTs of one worker: how many run at once, a URL, an origin and in all, and how many may
 * wait. What is posted and what the reply means is the business of whoever posts (delivery.c, missed.c).
 *
 * Fair: origins take turns, and within an origin its URLs; a URL's own posts run in order of arrival.
 * So a slow subscriber delays nobody else.
 *
 * Threads: everything on the worker's loop.
 */
#ifndef OUTBOX_H
#define OUTBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http_client.h"
#include "list.h"

struct outbox;

struct outbox_limits {
    size_t max_in_flight;  /* POSTs running at once */
    size_t max_per_origin; /* of those to one scheme, host and port */
    size_t max_per_url;
    size_t max_queued; /* waiting beside the running ones, of all workers together */
};

struct outbox_post;

struct outbox_post_ops {
    /* Its turn has come: says what to post. What `request` points at must live until `done`. false:
     * it cannot be posted; `done` runs with HTTP_CALL_URL. */
    bool (*start)(struct outbox_post *post, struct http_call_request *request);
    /* The end of a post, exactly once. Runs before outbox_add returns when the URL cannot be used,
     * `start` says false, or the outbox is closed. May free the post. */
    void (*done)(struct outbox_post *post, const struct http_reply *reply);
};

/* The caller's structure begins with this. `ops` and the url (which must live until `done`) are set by
 * the caller, the rest by the outbox. */
struct outbox_post {
    const struct outbox_post_ops *ops;
    const char *url; /* `url_len` bytes and a NUL; may hold other NULs: such a URL cannot be used */
    size_t url_len;

    struct outbox *outbox;
    struct outbox_target *target;
    struct list node;       /* in the queue of its target, or among the running */
    struct http_call *call; /* while it runs */
};

/* `all_queued` counts what waits in the outboxes of all workers; it must outlive the outbox. */
struct outbox *outbox_create(const struct outbox_limits *limits, struct http_client *client,
                             atomic_size_t *all_queued);

/* After outbox_close. NULL is allowed. */
void outbox_destroy(struct outbox *outbox);

/* May so many more wait? To be asked before the first of a group is added. */
bool outbox_has_room(const struct outbox *outbox, size_t count);

/* Queues a post, over the bound too: asking outbox_has_room first is the caller's promise. */
void outbox_add(struct outbox *outbox, struct outbox_post *post);

/* The source of a running post, which said HTTP_SOURCE_WAIT, can be read again. */
void outbox_resume(struct outbox_post *post);

/* Cancels what runs and what waits; every `done` runs, with HTTP_CALL_CANCELLED, before this returns. What
 * is added later ends so at once. */
void outbox_close(struct outbox *outbox);

size_t outbox_running(const struct outbox *outbox);
size_t outbox_queued(const struct outbox *outbox); /* of all workers */

#endif
