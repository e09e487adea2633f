/*
 * lonelypss --setup (setup.h). Called by options.c. The secrets files are written by secrets.c, the
 * text of the sample comes from conf.c.
 */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf.h"
#include "mem.h"
#include "secrets.h"

enum { FILE_INI, FILE_BROADCASTER, FILE_SUBSCRIBER, N_FILES };

static const char *const file_names[N_FILES] = {
    [FILE_INI] = "lonelypss.ini",
    [FILE_BROADCASTER] = "broadcaster-secrets.json",
    [FILE_SUBSCRIBER] = "subscriber-secrets.json",
};

struct job {
    const struct setup *setup;
    FILE *err;
    char *paths[N_FILES];
    bool written[N_FILES];
    bool dir_made;
};

static int fail(const struct job *j, int exit_code, const char *what, const char *why)
{
    fprintf(j->err, "lonelypss: %s: %s\n", what, why);
    return exit_code;
}

static char *join(const char *dir, const char *name)
{
    size_t dir_len = strlen(dir), size = strlen(name) + 1;
    bool slash = dir_len > 0 && dir[dir_len - 1] != '/';
    char *path = mem_alloc(dir_len + slash + size);

    memcpy(path, dir, dir_len);
    path[dir_len] = '/';
    memcpy(path + dir_len + slash, name, size);
    return path;
}

/* Only sqlite has a store in this release. */
static int check_db(const struct job *j)
{
    const char *db = j->setup->db;

    if (db == NULL || strcmp(db, "sqlite") == 0)
        return 0;
    if (strcmp(db, "rqlite") == 0 || strcmp(db, "postgres") == 0)
        return fail(j, 2, "--db", "this release has no store but sqlite");
    return fail(j, 2, "--db", "must be sqlite, rqlite or postgres");
}

static int set_part(const struct job *j, struct secrets_text_part *part, const char *direction,
                    const char *auth, const char *secret)
{
    static const enum lonely_auth_scheme schemes[] = { LONELY_AUTH_HMAC, LONELY_AUTH_TOKEN,
                                                       LONELY_AUTH_NONE };
    struct secrets_error error;
    char option[64];

    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        if (auth != NULL && strcmp(auth, lonely_auth_scheme_str(schemes[i])) != 0)
            continue;
        snprintf(option, sizeof option, "--%s-secret", direction);
        if (secrets_text_set(part, schemes[i], secret, option, &error))
            return 0;
        fprintf(j->err, "lonelypss: %s\n", error.text);
        return 2;
    }
    snprintf(option, sizeof option, "--%s-auth", direction);
    return fail(j, 2, option, "must be hmac, token or none");
}

/* All files are looked for before the first is written. */
static int check_absent(const struct job *j)
{
    struct stat st;

    for (size_t i = 0; i < N_FILES; i++) {
        if (lstat(j->paths[i], &st) == 0)
            return fail(j, 2, j->paths[i], "exists already; nothing was written");
        if (errno != ENOENT)
            return fail(j, errno == ENOTDIR ? 2 : 1, j->paths[i], strerror(errno));
    }
    return 0;
}

static int make_dir(struct job *j)
{
    const char *dir = j->setup->dir;

    if (dir == NULL || mkdir(dir, 0777) != 0) {
        if (dir != NULL && errno != EEXIST)
            return fail(j, 1, dir, strerror(errno));
        return 0;
    }
    j->dir_made = true;
    return 0;
}

/* On disk when it returns 0. */
static int write_ini(struct job *j)
{
    const char *path = j->paths[FILE_INI];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    struct conf defaults;
    bool good;

    j->written[FILE_INI] = fd >= 0;
    if (f == NULL) {
        int code = fail(j, 1, path, strerror(errno));

        if (fd >= 0)
            close(fd);
        return code;
    }
    conf_init(&defaults);
    conf_print_sample(f, &defaults);
    conf_fini(&defaults);
    good = fflush(f) == 0 && ferror(f) == 0 && fsync(fd) == 0;
    good = fclose(f) == 0 && good;
    return good ? 0 : fail(j, 1, path, strerror(errno));
}

/* Secrets first: a broadcaster that finds an INI file finds its secrets too. */
static int write_files(struct job *j, const struct secrets_text *text)
{
    static const int secrets_files[] = { FILE_BROADCASTER, FILE_SUBSCRIBER };
    struct secrets_error error;
    int code = make_dir(j);

    for (size_t i = 0; code == 0 && i < 2; i++) {
        j->written[secrets_files[i]] = secrets_write(j->paths[secrets_files[i]], text, &error);
        if (!j->written[secrets_files[i]]) {
            fprintf(j->err, "lonelypss: %s\n", error.text);
            code = 1;
        }
    }
    if (code == 0)
        code = write_ini(j);
    for (size_t i = 0; code != 0 && i < N_FILES; i++)
        if (j->written[i])
            unlink(j->paths[i]);
    if (code != 0 && j->dir_made)
        rmdir(j->setup->dir);
    return code;
}

static void print_next(const struct job *j, FILE *out)
{
    for (size_t i = 0; i < N_FILES; i++)
        fprintf(out, "wrote %s\n", j->paths[i]);
    fprintf(out,
            "\nNext:\n"
            "  1. Read %s; the address is broadcaster.listen.\n"
            "  2. Start the broadcaster:\n"
            "       lonelypss --config %s\n"
            "  3. Give %s, over a private way, to whoever subscribes\n"
            "     or notifies. Keep both secrets files readable by their owners only.\n",
            j->paths[FILE_INI], j->paths[FILE_INI], j->paths[FILE_SUBSCRIBER]);
}

static int run(struct job *j, struct secrets_text *text, FILE *out)
{
    const struct setup *s = j->setup;
    int code = check_db(j);

    if (code == 0)
        code = set_part(j, &text->to_broadcaster, "to-broadcasters", s->to_broadcasters_auth,
                        s->to_broadcasters_secret);
    if (code == 0)
        code = set_part(j, &text->to_subscriber, "to-subscribers", s->to_subscribers_auth,
                        s->to_subscribers_secret);
    if (code == 0)
        code = check_absent(j);
    if (code == 0)
        code = write_files(j, text);
    if (code == 0)
        print_next(j, out);
    return code;
}

int setup_run(const struct setup *s, FILE *out, FILE *err)
{
    struct job j = { .setup = s, .err = err };
    struct secrets_text text = { 0 };
    int code;

    for (size_t i = 0; i < N_FILES; i++)
        j.paths[i] = join(s->dir == NULL ? "" : s->dir, file_names[i]);
    code = run(&j, &text, out);
    secrets_text_wipe(&text);
    for (size_t i = 0; i < N_FILES; i++)
        mem_free(j.paths[i]);
    return code;
}
