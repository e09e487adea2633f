/*
 * Tables, indices and triggers in rqlite. Subscriptions are kept as in the SQLite file
 * (sqlite_schema.h), so that what an operator knows of one serves for the other.
 * (doc/protocol/http.md, 13)
 */
#ifndef RQLITE_SCHEMA_H
#define RQLITE_SCHEMA_H

#include "rqlite_conn.h"

#define RQ_EXACTS    "httppubsub_subscription_exacts"
#define RQ_GLOBS     "httppubsub_subscription_globs"
#define RQ_CHANGES   "lonely_changes"
#define RQ_MACS      "lonely_hmacs"
#define RQ_PROCESSES "lonely_processes" /* broadcasters, and their last transaction */
#define RQ_SCHEMA    "lonely_schema"    /* one row: the version of all this */

#define RQLITE_SCHEMA_VERSION 1

enum rqlite_change { RQLITE_CHANGE_NONE = 0, RQLITE_CHANGE_ADD = 1, RQLITE_CHANGE_REMOVE = 2 };

/* What the trigger of RQ_PROCESSES says when it ends a transaction (rqlite_batch.c). */
#define RQLITE_SAYS_REPEATED "lonely: repeated"
#define RQLITE_SAYS_LATE     "lonely: late"

/* A column's bytes as hex(), or NULL: not of that type, or longer than the protocol has them. */
#define RQ_HEX(column, type)                                                                  \
    "CASE WHEN typeof(" column ")=" type " AND length(CAST(" column " AS BLOB))<=65535 THEN " \
    "hex(" column ") END"
#define RQ_TEXT(column) RQ_HEX(column, "'text'")
#define RQ_BLOB(column) RQ_HEX(column, "'blob'")

/* How many bytes RQ_HEX gives at most, halved; for pages that are bounded in bytes. */
#define RQ_SIZE(column) "min(coalesce(length(CAST(" column " AS BLOB)),0),65535)"

/* Creates what is absent, in one transaction. RQLITE_OK, or with RQLITE_REFUSED one line in `error`
 * when this is not for us: a newer release's, or not permitted. */
enum rqlite_result rqlite_schema_ensure(struct rqlite_conn *c, uint64_t until_ms, char error[256]);
/* Is this the error of a statement that missed something of ours? */
bool rqlite_schema_is_missing(const char *error);

#endif
