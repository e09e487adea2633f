/*
 * lonelypss --setup: makes what a broadcaster needs to start.       (doc/protocol/auth.md, 7)
 */
#ifndef SETUP_H
#define SETUP_H

#include <stdio.h>

struct setup {
    const char *dir; /* NULL: the current folder; made if absent, not its parents */
    const char *db;  /* NULL: sqlite */
    /* Of postgres and rqlite: where it is. A password in it goes into a file of its own,
     * `database-password`, readable by the owner only, and not into the configuration. */
    const char *db_url;
    const char *db_password_file; /* that is there already, or will be; NULL: none */
    /* "hmac", "token" or "none"; NULL: hmac. Secrets: NULL, a new one is made. */
    const char *to_broadcasters_auth, *to_broadcasters_secret;
    const char *to_subscribers_auth, *to_subscribers_secret;
};

/*
 * Writes lonelypss.ini, broadcaster-secrets.json and subscriber-secrets.json, perhaps
 * database-password, and tells on `out` what to do next. No file is ever overwritten: with one of them
 * there nothing is written, and after a failure nothing is left.
 *
 * Returns the exit code: 0, 1 (the file system failed), 2 (an argument is wrong, or a file exists),
 * the latter two with one line on `err`.
 */
int setup_run(const struct setup *s, FILE *out, FILE *err);

#endif
