/*
 * See store_password.h.
 */
#include "store_password.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

/* The end of a path, so that what follows it is never cut off. */
static const char *shown(const char *path)
{
    size_t len = strlen(path);

    return len > 150 ? path + len - 150 : path;
}

static bool fail(char error[256], const char *file, const char *why)
{
    snprintf(error, 256, "%s: cannot read the password of the database: %s", shown(file), why);
    return false;
}

static bool read_file(const char *file, char **out, char error[256])
{
    char line[STORE_PASSWORD_MAX + 2];
    FILE *f = fopen(file, "re");
    char *got;
    size_t len;

    if (f == NULL)
        return fail(error, file, strerror(errno));
    setvbuf(f, NULL, _IONBF, 0); /* no copy of it stays in a buffer */
    got = fgets(line, sizeof line, f);
    fclose(f);
    len = got == NULL ? 0 : strcspn(line, "\r\n");
    if (len > 0 && len <= STORE_PASSWORD_MAX) {
        line[len] = '\0';
        *out = mem_strdup(line);
    }
    explicit_bzero(line, sizeof line);
    return *out != NULL || fail(error, file, len == 0 ? "the first line is empty" : "too long");
}

bool store_password_read(const char *file, char **out, char error[256])
{
    const char *value;

    *out = NULL;
    if (file != NULL)
        return read_file(file, out, error);
    value = getenv(STORE_PASSWORD_ENV);
    if (value != NULL && value[0] != '\0')
        *out = mem_strdup(value);
    return true;
}

void store_password_free(char *password)
{
    if (password == NULL)
        return;
    explicit_bzero(password, strlen(password));
    mem_free(password);
}
