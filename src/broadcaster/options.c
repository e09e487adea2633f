/*
 * The command line of lonelypss (options.h). What options of the file there are, and what they mean,
 * is in conf.c; --setup is in setup.c.
 */
#include "options.h"

#include <getopt.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"
#include "setup.h"

#define DEFAULT_CONFIG "lonelypss.ini"
#define LISTEN_KEY     "broadcaster.listen="
#define EXIT_USAGE     2

/* From FLAG_DIR on: only with --setup. */
enum flag {
    FLAG_CONFIG = 1,
    FLAG_LISTEN,
    FLAG_SET,
    FLAG_CHECK_CONFIG,
    FLAG_VERSION,
    FLAG_HELP,
    FLAG_SETUP,
    FLAG_DIR,
    FLAG_DB,
    FLAG_DB_URL,
    FLAG_DB_PASSWORD_FILE,
    FLAG_TO_BROADCASTERS_AUTH,
    FLAG_TO_BROADCASTERS_SECRET,
    FLAG_TO_SUBSCRIBERS_AUTH,
    FLAG_TO_SUBSCRIBERS_SECRET
};

static const struct option flags[] = {
    { "config", required_argument, NULL, FLAG_CONFIG },
    { "listen", required_argument, NULL, FLAG_LISTEN },
    { "set", required_argument, NULL, FLAG_SET },
    { "check-config", no_argument, NULL, FLAG_CHECK_CONFIG },
    { "version", no_argument, NULL, FLAG_VERSION },
    { "help", no_argument, NULL, FLAG_HELP },
    { "setup", no_argument, NULL, FLAG_SETUP },
    { "dir", required_argument, NULL, FLAG_DIR },
    { "db", required_argument, NULL, FLAG_DB },
    { "db-url", required_argument, NULL, FLAG_DB_URL },
    { "db-password-file", required_argument, NULL, FLAG_DB_PASSWORD_FILE },
    { "to-broadcasters-auth", required_argument, NULL, FLAG_TO_BROADCASTERS_AUTH },
    { "to-broadcasters-secret", required_argument, NULL, FLAG_TO_BROADCASTERS_SECRET },
    { "to-subscribers-auth", required_argument, NULL, FLAG_TO_SUBSCRIBERS_AUTH },
    { "to-subscribers-secret", required_argument, NULL, FLAG_TO_SUBSCRIBERS_SECRET },
    { "incoming-auth", required_argument, NULL, FLAG_TO_BROADCASTERS_AUTH },
    { "incoming-auth-token", required_argument, NULL, FLAG_TO_BROADCASTERS_SECRET },
    { "outgoing-auth", required_argument, NULL, FLAG_TO_SUBSCRIBERS_AUTH },
    { "outgoing-auth-token", required_argument, NULL, FLAG_TO_SUBSCRIBERS_SECRET },
    { NULL, 0, NULL, 0 },
};

static const char help_head[] =
    "Usage: lonelypss [--config FILE] [--listen HOST:PORT]... [--set SECTION.KEY=VALUE]...\n"
    "       lonelypss --setup [--dir DIR] [--db sqlite|postgres|rqlite] [--db-url URL]\n"
    "                 [--db-password-file FILE]\n"
    "                 [--to-broadcasters-auth hmac|token|none] [--to-broadcasters-secret SECRET]\n"
    "                 [--to-subscribers-auth hmac|token|none] [--to-subscribers-secret SECRET]\n"
    "\n"
    "Runs the broadcaster in the foreground, or makes its configuration and secrets.\n"
    "\n"
    "  --config FILE          configuration; without it ./lonelypss.ini\n"
    "  --listen HOST:PORT     replaces broadcaster.listen of the file; may be repeated\n"
    "  --set SECTION.KEY=VALUE  wins over the file; may be repeated\n"
    "  --check-config         only check the configuration\n"
    "  --setup                write lonelypss.ini, broadcaster-secrets.json and\n"
    "                         subscriber-secrets.json; never overwrites a file\n"
    "  --dir DIR              where to; made if absent (default: here)\n"
    "  --db sqlite|postgres|rqlite  the database (default sqlite)\n"
    "  --db-url URL           where postgres or rqlite is; several nodes of rqlite as one "
    "argument. A\n"
    "                         password in it is moved to the file database-password\n"
    "  --db-password-file FILE  the file with the password instead; it may also be in the "
    "environment\n"
    "                         variable LONELYPSS_DATABASE_PASSWORD whenever the broadcaster runs\n"
    "  --to-broadcasters-auth, --to-subscribers-auth\n"
    "                         authorization of either direction (default hmac); older names:\n"
    "                         --incoming-auth, --outgoing-auth\n"
    "  --to-broadcasters-secret, --to-subscribers-secret\n"
    "                         its secret (default: a new one); older names:\n"
    "                         --incoming-auth-token, --outgoing-auth-token\n"
    "  --version, --help\n"
    "\n"
    "Options of the configuration file, also for --set:\n"
    "\n";

static const char help_tail[] =
    "\n"
    "SIZE takes K, M, G; TIME takes ms, s, m, h. See lonelypss(8) and lonelypss.ini(5).\n"
    "Exit codes: 0 good, 1 the machine, a port or the database failed, 2 wrong arguments or\n"
    "configuration.\n";

/* What the command line says, before anything is done. */
struct line {
    FILE *out, *err;
    struct setup setup;
    const char *setup_only; /* a flag seen that needs --setup */
    const char *run_only;   /* a flag seen that must not stand beside it */
    bool does_setup, checks, helps, tells_version;
};

static enum options_action exit_with(struct options *o, int exit_code)
{
    o->exit_code = exit_code;
    return OPTIONS_EXIT;
}

/* "lonelypss: --x: why", where x is the user's. What follows a `=` may be a secret. */
static bool refuse(const struct line *l, const char *what, const char *why)
{
    char shown[200];

    log_escape(what, strcspn(what, "="), shown, sizeof shown);
    fprintf(l->err, "lonelypss: %s: %s\n", shown, why);
    return false;
}

static bool refuse_flag(const struct line *l, const char *name, const char *why)
{
    fprintf(l->err, "lonelypss: --%s: %s\n", name, why);
    return false;
}

void options_assign(struct options *o, const char *prefix, const char *text)
{
    size_t prefix_len = strlen(prefix), size = strlen(text) + 1;
    char *copy = mem_alloc(prefix_len + size);

    memcpy(copy, prefix, prefix_len);
    memcpy(copy + prefix_len, text, size);
    o->assignments = mem_realloc(o->assignments, (o->n_assignments + 1) * sizeof *o->assignments);
    o->assignments[o->n_assignments++] = copy;
}

static const char **setup_field(struct line *l, enum flag flag)
{
    switch (flag) {
    case FLAG_DIR:
        return &l->setup.dir;
    case FLAG_DB:
        return &l->setup.db;
    case FLAG_DB_URL:
        return &l->setup.db_url;
    case FLAG_DB_PASSWORD_FILE:
        return &l->setup.db_password_file;
    case FLAG_TO_BROADCASTERS_AUTH:
        return &l->setup.to_broadcasters_auth;
    case FLAG_TO_BROADCASTERS_SECRET:
        return &l->setup.to_broadcasters_secret;
    case FLAG_TO_SUBSCRIBERS_AUTH:
        return &l->setup.to_subscribers_auth;
    case FLAG_TO_SUBSCRIBERS_SECRET:
        return &l->setup.to_subscribers_secret;
    case FLAG_CONFIG:
    case FLAG_LISTEN:
    case FLAG_SET:
    case FLAG_CHECK_CONFIG:
    case FLAG_VERSION:
    case FLAG_HELP:
    case FLAG_SETUP:
        break;
    }
    return NULL;
}

static void take_flag(struct line *l, struct options *o, enum flag flag, const char *name,
                      const char *value)
{
    const char **field = setup_field(l, flag);

    if (field != NULL) {
        *field = value;
        l->setup_only = name;
        return;
    }
    if (flag == FLAG_CONFIG)
        o->config = value;
    else if (flag == FLAG_LISTEN)
        options_assign(o, LISTEN_KEY, value);
    else if (flag == FLAG_SET)
        options_assign(o, "", value);
    l->checks |= flag == FLAG_CHECK_CONFIG;
    l->helps |= flag == FLAG_HELP;
    l->tells_version |= flag == FLAG_VERSION;
    l->does_setup |= flag == FLAG_SETUP;
    if (flag <= FLAG_CHECK_CONFIG)
        l->run_only = name;
}

/* The argument that getopt could not use. It may have stepped behind it already. */
static const char *bad_argument(char **argv, int before)
{
    return argv[optind > before ? optind - 1 : before];
}

static bool parse_line(int argc, char **argv, struct line *l, struct options *o)
{
    int id, before, index = 0;

    opterr = 0; /* the messages are ours */
    for (optind = 0, before = 1; (id = getopt_long(argc, argv, "+:", flags, &index)) != -1;
         before = optind) {
        if (id == ':')
            return refuse(l, bad_argument(argv, before), "needs a value");
        if (id == '?' && optopt != 0 && strchr(bad_argument(argv, before), '=') != NULL &&
            optopt < 0x20)
            return refuse(l, bad_argument(argv, before), "takes no value");
        if (id == '?')
            return refuse(l, bad_argument(argv, before), "unknown option; see --help");
        take_flag(l, o, (enum flag)id, flags[index].name, optarg);
    }
    if (optind < argc)
        return refuse(l, argv[optind], "unexpected argument; see --help");
    return true;
}

/* What only the whole line shows. */
static bool check_line(const struct line *l)
{
    if (l->setup_only != NULL && !l->does_setup)
        return refuse_flag(l, l->setup_only, "is an option of --setup");
    if (l->run_only != NULL && l->does_setup)
        return refuse_flag(l, l->run_only, "does not go with --setup");
    return true;
}

bool options_read(const struct options *o, struct conf *c, struct conf_error *error)
{
    bool good;

    conf_init(c);
    c->mount = o->mount;
    good = o->config == NULL || conf_read_file(c, o->config, error);
    for (size_t i = 0; good && i < o->n_assignments; i++)
        good = conf_set(c, o->assignments[i], error);
    good = good && conf_check(c, error);
    if (!good)
        conf_fini(c);
    return good;
}

static enum options_action read_conf(const struct line *l, struct options *o)
{
    struct conf_error error;

    if (o->config == NULL) {
        o->config = DEFAULT_CONFIG;
        if (access(o->config, F_OK) != 0) {
            fputs("lonelypss: no --config, and no ./lonelypss.ini; make one with: "
                  "lonelypss --setup\n",
                  l->err);
            return exit_with(o, EXIT_USAGE);
        }
    }
    if (!options_read(o, &o->conf, &error)) {
        o->conf = (struct conf){ 0 };
        fprintf(l->err, "lonelypss: %s\n", error.text);
        return exit_with(o, EXIT_USAGE);
    }
    return l->checks ? OPTIONS_CHECK : OPTIONS_RUN;
}

enum options_action options_parse(int argc, char **argv, FILE *out, FILE *err, struct options *o)
{
    struct line l = { .out = out, .err = err };

    *o = (struct options){ 0 };
    if (!parse_line(argc, argv, &l, o))
        return exit_with(o, EXIT_USAGE);
    if (l.helps) {
        fputs(help_head, out);
        conf_print_help(out);
        fputs(help_tail, out);
        return exit_with(o, 0);
    }
    if (l.tells_version) {
        fprintf(out, "lonelypss %s\n", LONELY_VERSION);
        return exit_with(o, 0);
    }
    if (!check_line(&l))
        return exit_with(o, EXIT_USAGE);
    if (l.does_setup)
        return exit_with(o, setup_run(&l.setup, out, err));
    return read_conf(&l, o);
}

bool options_read_again(const struct options *o, struct conf *c, struct conf_error *error)
{
    struct stat st;

    /* Opening a pipe without a writer would wait, and no signal end the process any more. */
    if (o->config != NULL && stat(o->config, &st) == 0 && !S_ISREG(st.st_mode)) {
        snprintf(error->text, sizeof error->text,
                 "the configuration came from no regular file: it cannot be read again");
        return false;
    }
    return options_read(o, c, error);
}

void options_fini(struct options *o)
{
    conf_fini(&o->conf);
    for (size_t i = 0; i < o->n_assignments; i++)
        mem_free(o->assignments[i]);
    mem_free(o->assignments);
    *o = (struct options){ 0 };
}
