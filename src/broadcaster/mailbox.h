/*
 * Letters from one worker to another: the only way in which workers talk to each other.
 *
 * A letter lives in the structure that it is about, so posting takes no memory and never fails for
 * want of room. There are never more letters than requests under way, since whoever posts one waits
 * for its answer before it goes on.
 */
#ifndef MAILBOX_H
#define MAILBOX_H

#include <stdbool.h>
#include <uv.h>

#include "list.h"

struct letter {
    struct list node;
    /* Runs on the loop of the mailbox, once; the letter may be posted again from it, or be freed. */
    void (*open)(struct letter *l);
};

struct mailbox {
    uv_async_t wakeup;
    uv_mutex_t lock;
    struct list letters; /* in the order of their posting */
    bool closed;
    struct list taken; /* of these; being opened. The loop's own */
};

/* 0, or an error of libuv: then nothing is to be closed. */
int mailbox_init(struct mailbox *m, uv_loop_t *loop);
/* Opens the letters that wait, and takes no more. On the loop's thread; from a letter, too. */
void mailbox_close(struct mailbox *m);
/* After the loop has closed its handles and nobody posts any more. */
void mailbox_fini(struct mailbox *m);

/* false: it is closed, and the letter is the caller's still. Any thread. */
bool mailbox_post(struct mailbox *m, struct letter *l);

#endif
