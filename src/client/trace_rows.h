/*
 * Traces of notifies as rows of SQLite tables. Called by trace_file.c's thread.
 */
#ifndef CLIENT_TRACE_ROWS_H
#define CLIENT_TRACE_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include <lonely/client.h>

#include "list.h"
#include "map.h"

#define TRACE_UID_BYTES 33

/* Times are seconds since 1970. */
struct trace_point {
    const char *prefix; /* "" or "remote_" */
    char *name;         /* ASCII */
    char *extra;        /* a JSON object */
    double occurred_at_s, raw_s;
};

/* One notify. */
struct trace {
    struct list node;    /* in a queue, */
    struct map_node map; /* after it was found by `id` */
    uint64_t id;
    char uid[TRACE_UID_BYTES];
    uint8_t *topic;
    size_t topic_len;
    uint64_t length;
    double created_at_s, finished_at_s;
    double sent_at_s, answered_at_s; /* of the present attempt */
    struct trace_point *points;
    size_t count, cap;
};

void trace_free(struct trace *t);

struct trace_rows;

/* NULL: `why`. */
struct trace_rows *trace_rows_open(const char *path, struct lonely_client_why *why);
void trace_rows_close(struct trace_rows *r); /* NULL is allowed */
/* All of a list of struct trace in one commit, or none; they stay. */
bool trace_rows_add(struct trace_rows *r, const struct list *traces);
void trace_rows_delete_before(struct trace_rows *r, double created_at_s);

#endif
