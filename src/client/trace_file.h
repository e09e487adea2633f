/*
 * The option `tracing`: the points of notifies in an SQLite file.      (doc/protocol/tracing.md, 3)
 *
 * Points are collected on the client's loop; when a notify has ended its trace goes to a thread that
 * writes. A trace that cannot be written, or for which there is no room in the queue, is dropped:
 * nothing here fails a notify, or makes it wait.
 */
#ifndef CLIENT_TRACE_FILE_H
#define CLIENT_TRACE_FILE_H

#include <lonely/client.h>

#include "clock.h"

struct trace_file;

/* Opens or makes the file. NULL: `why`. */
struct trace_file *trace_file_open(const char *path, const struct clock *clock,
                                   struct lonely_client_why *why);
/* What is queued is written; NULL is allowed. */
void trace_file_close(struct trace_file *f);

/* To be told of the points, on one thread. */
void trace_file_tracer(struct trace_file *f, struct lonely_client_tracer *out);

#endif
