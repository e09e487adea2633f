/*
 * Passwords in URLs of databases: SCHEME://USER:PASSWORD@HOST... What else is in them is the
 * backend's. Used by conf.c and setup.c.
 */
#ifndef DATABASE_URL_H
#define DATABASE_URL_H

#include <stdbool.h>

/* Has the URL a password, also as a parameter? */
bool database_url_has_password(const char *url);

/*
 * Takes the password out of a URL. `*bare` is the rest, `*password` what was taken, with its percent
 * escapes resolved, or NULL; the caller frees both with mem_free.
 * false: it is a parameter, or holds a line end or NUL; nothing is to be freed.
 */
bool database_url_split(const char *url, char **bare, char **password);

#endif
