/*
 * A visit from within: visit.c is its letters and its end, visit_upload.c and visit_download.c the two
 * kinds of transfer.
 *
 * Files are touched in the thread pool only, by one job at a time. A job sees no connection, so that
 * it may outlive it: then its end is the visit's.
 */
#ifndef TPFT_VISIT_PRIVATE_H
#define TPFT_VISIT_PRIVATE_H

#include "file.h"
#include "letter.h"
#include "visit.h"

/* What the peer may send next. */
enum visit_phase {
    VISIT_IDLE,         /* a request */
    VISIT_WORKING,      /* nothing: it is not read */
    VISIT_AWAIT_OFFSET, /* where a resumed upload begins */
    VISIT_RECEIVING,    /* chunks */
    VISIT_AWAIT_SUM,    /* of an upload */
    VISIT_AWAIT_ACCEPT, /* that a download may begin */
    VISIT_SENDING,      /* nothing but its end */
    VISIT_AWAIT_VERDICT /* how the download went */
};

struct visit_buffer {
    uint8_t *ptr;
    size_t len, cap;
};

struct visit {
    struct shop *shop;
    struct tinyproto_conn *conn; /* NULL: gone */
    enum visit_phase phase;

    uv_work_t work;
    void (*job)(struct visit *v);   /* in the pool */
    void (*after)(struct visit *v); /* on the loop, if the connection is still there */
    bool is_working, is_paused;
    struct fault fault; /* of the job */

    char path[PATH_BYTES_MAX + 1]; /* below the root */

    struct sink sink;
    struct sink_wish wish;
    uint64_t received;
    struct fault trouble; /* what comes is dropped; told when it is through */
    struct visit_buffer filling, writing;
    uint8_t peer_sum[SUM_BYTES];

    struct source source;
    struct sum *sum; /* of what was sent; NULL: none is wanted */
    uint64_t sent, chunk;
};

/* Runs a job while the connection goes on. */
void visit_work(struct visit *v, void (*job)(struct visit *v), void (*after)(struct visit *v));
/* The same while nothing is read from the connection. */
void visit_work_alone(struct visit *v, void (*job)(struct visit *v),
                      void (*after)(struct visit *v));
void visit_pause(struct visit *v);
void visit_resume(struct visit *v);

/* The peer may take its time in proportion to this. */
void visit_be_patient(struct visit *v, uint64_t bytes);

void visit_say(struct visit *v, const struct letter *letter);
void visit_reject(struct visit *v, struct fault fault); /* the next request may come */
void visit_reject_and_close(struct visit *v, struct fault fault);
/* A line on standard error, if that is wanted. */
__attribute__((format(printf, 2, 3))) void visit_note(const struct visit *v, const char *format,
                                                      ...);

void upload_request(struct visit *v, const struct letter *letter);
void upload_offset(struct visit *v, const struct letter *letter);
void upload_sum(struct visit *v, const struct letter *letter);
enum tinyproto_delivery upload_begin(struct visit *v, size_t size);
void upload_data(struct visit *v, const uint8_t *ptr, size_t len);

void download_request(struct visit *v, const struct letter *letter);
void download_accepted(struct visit *v, const struct letter *letter);
void download_verdict(struct visit *v, const struct letter *letter);

#endif
