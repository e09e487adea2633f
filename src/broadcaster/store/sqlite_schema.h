/*
 * Tables, indices and triggers of the SQLite file. (doc/protocol/http.md, 13)
 */
#ifndef SQLITE_SCHEMA_H
#define SQLITE_SCHEMA_H

#include <stdbool.h>

#include <sqlite3.h>

#define TABLE_EXACTS  "httppubsub_subscription_exacts"
#define TABLE_GLOBS   "httppubsub_subscription_globs"
#define TABLE_CHANGES "lonely_changes"
#define TABLE_MACS    "lonely_hmacs"     /* used macs */
#define TABLE_MARKS   "lonely_processes" /* those that take macs and have not ended in order */

/* lonely_changes.kind is an enum store_kind, lonely_changes.op one of these. */
enum change_op { CHANGE_NONE = 0, CHANGE_ADD = 1, CHANGE_REMOVE = 2 };

/*
 * Makes the first row of an empty change log. Its number is the time in seconds and six random
 * digits: a log that was emptied, or dropped and made again, so goes on with numbers that no reader
 * has seen.
 */
#define SQL_FIRST_CHANGE                                                       \
    "INSERT INTO " TABLE_CHANGES "(seq, at, kind, op) SELECT "                 \
    "1000000 * now + abs(random() % 1000000), now, 0, 0 FROM "                 \
    "(SELECT CAST(strftime('%s', 'now') AS INTEGER) AS now) WHERE NOT EXISTS " \
    "(SELECT 1 FROM " TABLE_CHANGES ")"

/* Makes sure that the file is ours, in WAL mode, and has everything; in one transaction. false: one
 * line in `error` that names `path`, and nothing was changed but perhaps the journal mode. */
bool sqlite_schema_ensure(sqlite3 *db, const char *path, char error[256]);

#endif
