/*
 * lonelypss --setup (setup.h). Called by options.c. The secrets files are written by secrets.c, the
 * text of the sample comes from conf.c.
 */
#include "setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf.h"
#include "database_url.h"
#include "mem.h"
#include "secrets.h"

enum { FILE_INI, FILE_BROADCASTER, FILE_SUBSCRIBER, FILE_PASSWORD, N_FILES };

static const char *const file_names[N_FILES] = {
    [FILE_INI] = "lonelypss.ini",
    [FILE_BROADCASTER] = "broadcaster-secrets.json",
    [FILE_SUBSCRIBER] = "subscriber-secrets.json",
    [FILE_PASSWORD] = "database-password",
};

struct job {
    const struct setup *setup;
    FILE *err;
    char *paths[N_FILES];
    bool written[N_FILES];
    bool dir_made;
    struct conf conf; /* what the configuration will say */
    char *password;   /* of the database; NULL: none was in its URL */
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

/* Is the file to be made? */
static bool is_wanted(const struct job *j, size_t file)
{
    return file != FILE_PASSWORD || j->password != NULL;
}

/* Sets "database.KEY=VALUE". What is wrong with a value is said without it: it may be a secret. */
static int set_database(struct job *j, const char *option, const char *key, const char *value)
{
    size_t size = strlen("database.=") + strlen(key) + strlen(value) + 1;
    char *assignment = mem_alloc(size);
    struct conf_error error;
    bool good;

    snprintf(assignment, size, "database.%s=%s", key, value);
    good = conf_set(&j->conf, assignment, &error);
    explicit_bzero(assignment, size);
    mem_free(assignment);
    return good ? 0 : fail(j, 2, option, "is not one that the configuration takes");
}

/* The URL goes into the configuration without its password. */
static int set_url(struct job *j, const char *url)
{
    char *bare, *password;
    int code;

    if (strpbrk(url, " \t\r\n") != NULL && database_url_has_password(url))
        return fail(j, 2, "--db-url",
                    "of several nodes must have no password; use --db-password-file");
    if (!database_url_split(url, &bare, &password))
        return fail(j, 2, "--db-url", "has a password of a strange kind; use --db-password-file");
    j->password = password;
    code = set_database(j, "--db-url", "url", bare);
    mem_free(bare);
    return code;
}

/* The daemon may be started elsewhere: an absolute path. */
static int set_password_file(struct job *j, const char *path)
{
    char *folder = path[0] == '/' ? NULL : getcwd(NULL, 0);
    char *whole;
    int code;

    if (j->password != NULL) {
        free(folder);
        return fail(j, 2, "--db-password-file", "the password is in --db-url already");
    }
    if (path[0] != '/' && folder == NULL)
        return fail(j, 1, "--db-password-file", strerror(errno));
    whole = folder == NULL ? mem_strdup(path) : join(folder, path);
    code = set_database(j, "--db-password-file", "password_file", whole);
    mem_free(whole);
    free(folder);
    return code;
}

static int set_db(struct job *j)
{
    const struct setup *s = j->setup;
    struct conf_error error;
    int code;

    if (s->db == NULL || strcmp(s->db, "sqlite") == 0) {
        if (s->db_url != NULL)
            return fail(j, 2, "--db-url", "sqlite is a file, it has no URL");
        if (s->db_password_file != NULL)
            return fail(j, 2, "--db-password-file", "sqlite is a file, it has no password");
        return 0;
    }
    if (strcmp(s->db, "rqlite") != 0 && strcmp(s->db, "postgres") != 0)
        return fail(j, 2, "--db", "must be sqlite, rqlite or postgres");
    if (s->db_url == NULL)
        return fail(j, 2, "--db-url", "is needed with this --db");
    code = set_database(j, "--db", "type", s->db);
    if (code == 0)
        code = set_url(j, s->db_url);
    if (code == 0 && s->db_password_file != NULL)
        code = set_password_file(j, s->db_password_file);
    if (code == 0 && j->password != NULL)
        code = set_database(j, "--db-url", "password_file", file_names[FILE_PASSWORD]);
    if (code == 0 && !conf_check(&j->conf, &error))
        code = fail(j, 2, "--db-url", error.text);
    return code;
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
        if (!is_wanted(j, i))
            continue;
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
static int write_text(struct job *j, size_t file, mode_t mode)
{
    const char *path = j->paths[file];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    bool good;

    j->written[file] = fd >= 0;
    if (f == NULL) {
        int code = fail(j, 1, path, strerror(errno));

        if (fd >= 0)
            close(fd);
        return code;
    }
    if (file == FILE_PASSWORD)
        fprintf(f, "%s\n", j->password);
    else
        conf_print_sample(f, &j->conf);
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
    if (code == 0 && is_wanted(j, FILE_PASSWORD))
        code = write_text(j, FILE_PASSWORD, 0600);
    if (code == 0)
        code = write_text(j, FILE_INI, 0666);
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
        if (is_wanted(j, i))
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
    int code = set_db(j);

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
    conf_init(&j.conf);
    code = run(&j, &text, out);
    secrets_text_wipe(&text);
    conf_fini(&j.conf);
    if (j.password != NULL)
        explicit_bzero(j.password, strlen(j.password));
    mem_free(j.password);
    for (size_t i = 0; i < N_FILES; i++)
        mem_free(j.paths[i]);
    return code;
}
