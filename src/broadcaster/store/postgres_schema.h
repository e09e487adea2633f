/*
 * Tables, indices, triggers and the view of the PostgreSQL database. (doc/protocol/http.md, 13)
 */
#ifndef POSTGRES_SCHEMA_H
#define POSTGRES_SCHEMA_H

#include "postgres_conn.h"

#define TABLE_EXACTS  "httppubsub_subscription_exacts"
#define TABLE_GLOBS   "httppubsub_subscription_globs"
#define TABLE_CHANGES "lonely_changes"
#define TABLE_MACS    "lonely_hmacs"     /* used macs */
#define TABLE_MARKS   "lonely_processes" /* those that take macs and have not ended in order */

/* Never written; who holds its lock may take numbers of lonely_changes, or of lonely_hmacs, and holds
 * it until the commit: so a number is never seen after a larger one. The first lock comes first. */
#define LOCK_CHANGES "LOCK TABLE lonely_change_order IN EXCLUSIVE MODE"
#define LOCK_MACS    "LOCK TABLE lonely_hmac_order IN EXCLUSIVE MODE"

#define CHANNEL_CHANGES "lonely_changes" /* NOTIFY: there is news */

/* lonely_changes.kind is an enum store_kind, lonely_changes.op one of these. */
enum change_op { CHANGE_NONE = 0, CHANGE_ADD = 1, CHANGE_REMOVE = 2 };

/* Makes the first row of an empty change log; in a transaction that holds the lock. */
#define SQL_FIRST_CHANGE                                                     \
    "INSERT INTO " TABLE_CHANGES " (kind, op) SELECT 0, 0 WHERE NOT EXISTS " \
    "(SELECT FROM " TABLE_CHANGES ")"

/* Keys may be longer than an entry of an index: rows are found by their hash, and sorted by so many
 * bytes in the index and then by all. */
#define SORTED_BYTES   "1000"
#define SORTED_BY(key) "substring(" key ", 1, " SORTED_BYTES ")"
#define OF_URL(url)    "sha256(url) = sha256(" url ") AND url = " url

/* At most 65,536, of what is longer too, and of NULL 0; for results that are bounded in bytes. */
#define SIZE_OF(column) "least(greatest(octet_length(" column "), 0), 65536)"

/* Makes sure that everything is there, and of this version. false: one line in `error`. */
bool postgres_schema_ensure(struct postgres_conn *c, char error[256]);

#endif
