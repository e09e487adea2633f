/*
 * The password of a database server: in a file (option database.password_file) or in the
 * environment, so that it is in no URL. Called by backends whenever they connect, so that a new
 * password counts without a restart.
 */
#ifndef STORE_PASSWORD_H
#define STORE_PASSWORD_H

#include <stdbool.h>

#define STORE_PASSWORD_ENV "LONELYPSS_DATABASE_PASSWORD"
#define STORE_PASSWORD_MAX 4096 /* bytes of it */

/*
 * The first line of `file`, or with NULL the environment variable. `*out` is NULL when there is none,
 * else it belongs to the caller: store_password_free.
 * false: the file cannot be read or holds no password; one line in `error`.
 */
bool store_password_read(const char *file, char **out, char error[256]);
void store_password_free(char *password); /* wipes it; NULL is allowed */

#endif
