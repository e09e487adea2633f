/*
 * Commands for messages (exec.h). Called by cmd_subscribe.c.
 *
 * A message is handed over as a file, so that a command which reads none of it, or slowly, disturbs
 * nobody: small ones as a memfd, spooled ones as the file in which they already are.
 */
#include "exec.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "mem.h"
#include "text.h"

#define HEX_TOPIC_MAX_BYTES 32768

extern char **environ;

/* ---- Words ---- */

/* Takes one word from `*from` to `*to`, both inside one buffer. False: a quote that does not end. */
static bool take_word(char **from, char **to)
{
    char quote = '\0';

    for (; **from != '\0' && (quote != '\0' || strchr(" \t\n", **from) == NULL); ++*from) {
        char c = **from;

        if (c == '\\' && quote != '\'' && (*from)[1] != '\0')
            *(*to)++ = *++*from;
        else if (quote == '\0' && (c == '\'' || c == '"'))
            quote = c;
        else if (c == quote)
            quote = '\0';
        else
            *(*to)++ = c;
    }
    return quote == '\0';
}

static bool split(struct executor *e, const char *command)
{
    size_t count = 0;
    char *from, *to;

    e->text = mem_strdup(command);
    e->words = mem_calloc(strlen(command) + 2, sizeof(*e->words));
    for (from = to = e->text; *(from += strspn(from, " \t\n")) != '\0';) {
        char *word = to;

        if (!take_word(&from, &to)) {
            cli_complain("--exec: %s: a quotation mark is missing", command);
            return false;
        }
        from += *from != '\0'; /* before the end of the word is written over it */
        *to++ = '\0';
        e->words[count++] = word;
    }
    if (count == 0)
        cli_complain("--exec: a command is needed");
    return count > 0;
}

static bool is_program(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* As posix_spawnp will look for it. */
static bool is_found(const char *name)
{
    const char *at = getenv("PATH");
    char path[4096];

    if (strchr(name, '/') != NULL)
        return is_program(name);
    for (at = at != NULL ? at : "/bin:/usr/bin"; at != NULL; at = strchr(at, ':')) {
        at += *at == ':';
        snprintf(path, sizeof(path), "%.*s%s%s", (int)strcspn(at, ":"), at,
                 strcspn(at, ":") > 0 ? "/" : "", name);
        if (is_program(path))
            return true;
    }
    return false;
}

bool executor_init(struct executor *e, const char *command, size_t max)
{
    *e = (struct executor){ .max = max };
    if (command == NULL)
        return true;
    e->children = mem_calloc(max, sizeof(*e->children));
    if (!split(e, command))
        return false;
    if (is_found(e->words[0]))
        return true;
    cli_complain("--exec: %s: there is no such program", e->words[0]);
    return false;
}

void executor_fini(struct executor *e)
{
    mem_free(e->words);
    mem_free(e->text);
    mem_free(e->children);
    *e = (struct executor){ 0 };
}

/* ---- Starting ---- */

/* The message as a file at its beginning. -1: errno. */
static int open_body(const struct lonely_delivery *d)
{
    struct lonely_span bytes = lonely_delivery_span(d);
    char path[64];
    int fd;

    if (bytes.ptr == NULL && lonely_delivery_fd(d) >= 0) { /* with an offset of its own */
        snprintf(path, sizeof(path), "/proc/self/fd/%d", lonely_delivery_fd(d));
        return open(path, O_RDONLY | O_CLOEXEC);
    }
    fd = memfd_create("message", MFD_CLOEXEC);
    if (fd >= 0 && fd_write_all(fd, (const char *)bytes.ptr, bytes.len) &&
        lseek(fd, 0, SEEK_SET) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

struct environment {
    char **all;
    size_t count, own; /* the last `own` are ours to free */
};

/* "NAME=" and what `print` writes. */
static void add_variable(struct environment *env, const char *name,
                         void (*print)(FILE *out, struct lonely_span bytes),
                         struct lonely_span bytes)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        return;
    fprintf(out, "%s=", name);
    print(out, bytes);
    if (fclose(out) == 0) {
        env->all[env->count++] = text;
        env->own++;
    }
}

static void print_bytes(FILE *out, struct lonely_span bytes)
{
    if (bytes.len > 0)
        fwrite(bytes.ptr, 1, bytes.len, out);
}

static void environment_init(struct environment *env, const struct lonely_delivery *d)
{
    struct lonely_span topic = lonely_delivery_topic(d);
    char size[32];
    size_t n = 0;

    while (environ[n] != NULL)
        n++;
    *env = (struct environment){ .all = mem_calloc(n + 8, sizeof(*env->all)) };
    for (size_t i = 0; i < n; i++) {
        if (strncmp(environ[i], "LONELY_", 7) != 0)
            env->all[env->count++] = environ[i];
    }
    snprintf(size, sizeof(size), "%" PRIu64, lonely_delivery_size(d));
    if (topic.len == 0 || memchr(topic.ptr, 0, topic.len) == NULL)
        add_variable(env, "LONELY_TOPIC", print_bytes, topic);
    if (topic.len <= HEX_TOPIC_MAX_BYTES)
        add_variable(env, "LONELY_TOPIC_HEX", text_print_hex, topic);
    add_variable(env, "LONELY_SIZE", print_bytes,
                 (struct lonely_span){ (const uint8_t *)size, strlen(size) });
    add_variable(env, "LONELY_SHA512", text_print_hex,
                 (struct lonely_span){ lonely_delivery_sha512(d), 64 });
}

static void environment_fini(struct environment *env)
{
    for (size_t i = 0; i < env->own; i++)
        free(env->all[env->count - env->own + i]);
    mem_free(env->all);
}

/* With the signals as they were before waiter_init. 0, or an errno. */
static int spawn(const struct executor *e, int input, char **env, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, ignored;
    int err;

    sigemptyset(&none);
    sigemptyset(&ignored);
    sigaddset(&ignored, SIGPIPE);
    sigaddset(&ignored, SIGXFSZ);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1); /* libcurl's sockets */
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &ignored);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    err = posix_spawnp(pid, e->words[0], &actions, &attr, e->words, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return err;
}

static void name_topic(struct exec_child *child, struct lonely_span topic)
{
    FILE *out = fmemopen(child->topic, sizeof(child->topic), "w");

    child->topic[0] = '\0';
    if (out == NULL)
        return;
    text_print(out, topic, false);
    fclose(out); /* cut where it is longer */
    child->topic[sizeof(child->topic) - 1] = '\0';
}

bool executor_start(struct executor *e, const struct lonely_delivery *d)
{
    struct exec_child *child = &e->children[e->running];
    int input = open_body(d), err;
    struct environment env;

    if (input < 0) {
        cli_complain("--exec: cannot hand the message over: %s", strerror(errno));
        return false;
    }
    environment_init(&env, d);
    err = spawn(e, input, env.all, &child->pid);
    environment_fini(&env);
    close(input);
    if (err != 0) {
        cli_complain("--exec: %s: %s", e->words[0], strerror(err));
        return false;
    }
    name_topic(child, lonely_delivery_topic(d));
    e->running++;
    return true;
}

/* ---- Ends ---- */

static void tell(struct executor *e, const struct exec_child *child, int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    e->failed = true;
    if (WIFEXITED(status))
        cli_complain("--exec: %s: exit status %d for a message on %s", e->words[0],
                     WEXITSTATUS(status), child->topic);
    else
        cli_complain("--exec: %s: ended by signal %d for a message on %s", e->words[0],
                     WTERMSIG(status), child->topic);
}

void executor_reap(struct executor *e)
{
    for (size_t i = 0; i < e->running;) {
        int status;

        if (waitpid(e->children[i].pid, &status, WNOHANG) <= 0) {
            i++;
            continue;
        }
        tell(e, &e->children[i], status);
        e->children[i] = e->children[--e->running];
    }
}
