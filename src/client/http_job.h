/*
 * One call of the HTTP API, tried on one broadcaster after another until one has done it, in passes with
 * pauses between them. (doc/protocol/session.md, 8; doc/protocol/http.md, 5.3)
 */
#ifndef CLIENT_HTTP_JOB_H
#define CLIENT_HTTP_JOB_H

#include <lonely/stateless.h>

#include "core.h"
#include "deadline.h"
#include "http_client.h"
#include "order.h"

struct http_jobs {
    struct lonely_client *client;
    struct http_client *http;
    struct deadlines pauses;
    struct list all; /* http_job.node */
    void (*on_closed)(void *arg);
    void *closed_arg;
};

enum http_verdict {
    HTTP_JOB_DONE,
    HTTP_JOB_UNAVAILABLE, /* the next broadcaster may do it */
    HTTP_JOB_BAD,         /* the same, but this one was not down: no use waiting for it */
    HTTP_JOB_FORGED,      /* the same: an answer whose authorization is wrong */
    HTTP_JOB_STOP         /* no broadcaster will: `err` says why */
};

struct http_job;

struct http_job_ops {
    /* Makes the body for the next attempt, and what is signed: anew each time. The body's parts must
     * live until the next prepare or the end. false: it cannot be made; the end is ARGUMENT. */
    bool (*prepare)(struct http_job *job, struct lonely_auth_input *in);
    enum http_verdict (*judge)(struct http_job *job, int http_status, struct lonely_span body,
                               enum lonely_client_error *err);
    void (*failed)(struct http_job *job,
                   enum http_call_status status); /* no reply; NULL: nobody asks */
    void (*waiting)(struct http_job *job);        /* NULL */
    /* The end, once. May free the job. */
    void (*done)(struct http_job *job, enum lonely_client_error err);
};

/* The asker's structure begins with it; it sets `ops` and `path`, and the parts in prepare. */
struct http_job {
    const struct http_job_ops *ops;
    const char *path;
    struct lonely_span body;   /* the whole, or what goes before the source */
    struct http_source source; /* read NULL: none */

    struct http_jobs *jobs;
    struct list node;
    struct order order;
    const struct client_broadcaster *broadcaster;
    unsigned pass;
    struct deadline pause;
    struct http_call *call;
    char *url;
    char *authorization; /* the header line */
    const char *headers[2];
    bool ambiguous, reached, bad, forged;
    bool source_failed; /* set by the source: nobody will be sent the whole */
};

/* NULL: `why` says what is wrong. */
struct http_jobs *http_jobs_create(struct lonely_client *c, struct lonely_client_why *why);
/* Ends all (AMBIGUOUS while a call runs, else ABANDONED), then `on_closed`, and it is gone. */
void http_jobs_close(struct http_jobs *jobs, void (*on_closed)(void *arg), void *arg);

void http_job_start(struct http_jobs *jobs, struct http_job *job);
/* Ends it as http_jobs_close does. */
void http_job_cancel(struct http_job *job);

#endif
