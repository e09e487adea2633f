/*
 * For the tests of the rqlite store: another program's statements, by HTTP to LONELY_STORE_URL.
 */
#ifndef RQLITE_TOOL_H
#define RQLITE_TOOL_H

#include <stdint.h>

/* Runs a JSON array of statements at /db/execute?transaction; dies with a message when one fails. */
void rqlite_tool_run(const char *statements);
/* The same of one, which holds no quotation mark. */
void rqlite_tool_exec(const char *sql);
/* The first column of the first row as a number; -1 when there is none. */
int64_t rqlite_tool_number(const char *sql);

#define EXACTS "httppubsub_subscription_exacts"
#define GLOBS  "httppubsub_subscription_globs"

#endif
