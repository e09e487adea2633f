/*
 * Notifies over HTTP: so many at once, the rest waits. (doc/protocol/http.md, 2.5)
 */
#ifndef CLIENT_HTTP_NOTIFY_H
#define CLIENT_HTTP_NOTIFY_H

#include "http_job.h"

#define HTTP_NOTIFIES_RUNNING 64

struct http_notifies {
    struct http_jobs *jobs;
    struct list waiting; /* notify.node */
    size_t running, n_waiting;
};

void http_notifies_init(struct http_notifies *all, struct http_jobs *jobs);
void http_notifies_add(struct http_notifies *all, struct notify *n);
/* Those that wait are abandoned; those that run end with their jobs. */
void http_notifies_abandon(struct http_notifies *all);

#endif
