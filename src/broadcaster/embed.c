/*
 * liblonelypss (<lonely/broadcaster.h>): options, log and secrets around a struct broadcaster. Its users are
 * programs, and main.c.
 */
#include "embed.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "admin.h"
#include "keys.h"
#include "mem.h"
#include "mount_port.h"

const char *lonely_broadcaster_error_str(enum lonely_broadcaster_error err)
{
    switch (err) {
#define LONELY_X_(name, text) \
    case name:                \
        return text;
        LONELY_BROADCASTER_ERROR_MAP(LONELY_X_)
#undef LONELY_X_
    }
    return "unknown error";
}

static enum lonely_broadcaster_error fail(enum lonely_broadcaster_error err,
                                          struct lonely_broadcaster_why *why, const char *text)
{
    if (why != NULL)
        snprintf(why->text, sizeof(why->text), "%s", text);
    return err;
}

/* ---- Options ---- */

struct lonely_broadcaster_options {
    struct options options; /* of which only the assignments are used */
    char *config, *mount;
    struct conf scratch; /* where values are tried */
    lonely_broadcaster_log_fn *log;
    void *log_arg;
};

struct lonely_broadcaster_options *lonely_broadcaster_options_create(void)
{
    struct lonely_broadcaster_options *o = mem_calloc(1, sizeof(*o));

    conf_init(&o->scratch);
    return o;
}

void lonely_broadcaster_options_destroy(struct lonely_broadcaster_options *o)
{
    if (o == NULL)
        return;
    conf_fini(&o->scratch);
    options_fini(&o->options);
    mem_free(o->config);
    mem_free(o->mount);
    mem_free(o);
}

static void replace(char **text, const char *by)
{
    mem_free(*text);
    *text = by == NULL ? NULL : mem_strdup(by);
}

void lonely_broadcaster_options_set_file(struct lonely_broadcaster_options *o, const char *path)
{
    replace(&o->config, path);
}

enum lonely_broadcaster_error lonely_broadcaster_options_set(struct lonely_broadcaster_options *o,
                                                             const char *name, const char *value,
                                                             struct lonely_broadcaster_why *why)
{
    size_t name_len = strlen(name), value_size = strlen(value) + 1;
    char *assignment = mem_alloc(name_len + 1 + value_size);
    struct conf_error error;
    bool good;

    memcpy(assignment, name, name_len);
    assignment[name_len] = '=';
    memcpy(assignment + name_len + 1, value, value_size);
    good = conf_set(&o->scratch, assignment, &error);
    if (good)
        options_assign(&o->options, "", assignment);
    mem_free(assignment);
    return good ? LONELY_BROADCASTER_OK : fail(LONELY_BROADCASTER_CONFIGURATION, why, error.text);
}

enum lonely_broadcaster_error
lonely_broadcaster_options_set_mount(struct lonely_broadcaster_options *o, const char *prefix,
                                     struct lonely_broadcaster_why *why)
{
    if (!mount_prefix_is_good(prefix))
        return fail(LONELY_BROADCASTER_CONFIGURATION, why,
                    "a prefix is empty, or an absolute path without query");
    replace(&o->mount, prefix);
    return LONELY_BROADCASTER_OK;
}

void lonely_broadcaster_options_set_log(struct lonely_broadcaster_options *o,
                                        lonely_broadcaster_log_fn *fn, void *arg)
{
    o->log = fn;
    o->log_arg = arg;
}

/* ---- Beginning ---- */

/* Threads have the mask of who starts them: the library's shall take no signals. */
static void block_signals(sigset_t *before)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, before);
}

static void restore_signals(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

static void init_log(struct log *log, const struct conf *conf)
{
    enum log_level level = LOG_LEVEL_INFO;
    enum log_format format = LOG_FORMAT_TEXT;

    log_level_parse(conf->log.level, &level);
    log_format_parse(conf->log.format, &format);
    log_init(log, STDERR_FILENO, level, format, &clock_system);
}

/* What the configuration names, beside the secrets. */
static enum lonely_broadcaster_error check_parts(const struct conf *conf,
                                                 struct lonely_broadcaster_why *why)
{
    char error[256];

    return broadcaster_check_tls(conf, error) && broadcaster_check_store(conf, error) &&
                   broadcaster_check_compression(conf, error)
               ? LONELY_BROADCASTER_OK
               : fail(LONELY_BROADCASTER_CONFIGURATION, why, error);
}

static void note_address(struct lonely_broadcaster *l, const char *scheme, const char *bound)
{
    l->addresses[l->address_count++] = (struct lonely_broadcaster_address){ scheme, bound };
}

static void note_addresses(struct lonely_broadcaster *l)
{
    const struct broadcaster *b = l->b;

    l->addresses = mem_calloc(b->listener_count + 1, sizeof(*l->addresses));
    for (size_t i = 0; i < b->listener_count; i++) {
        const struct broadcaster_listener *at = &b->listeners[i];

        note_address(l, at->tcp ? at->tls ? "tcps" : "tcp" : at->tls ? "https" : "http", at->bound);
    }
    if (b->admin != NULL)
        note_address(l, "admin", admin_bound(b->admin));
}

static enum lonely_broadcaster_error open_all(struct lonely_broadcaster *l,
                                              struct lonely_broadcaster_why *why)
{
    const struct conf *conf = &l->options.conf;
    enum lonely_broadcaster_error err = check_parts(conf, why);
    struct keys_error keys_error;
    struct keys *keys;
    char error[256];
    sigset_t before;

    if (err != LONELY_BROADCASTER_OK)
        return err;
    keys = keys_load(conf, &l->log, &keys_error);
    if (keys == NULL)
        return fail(LONELY_BROADCASTER_CONFIGURATION, why, keys_error.text);
    block_signals(&before);
    if (broadcaster_create(conf, keys, &clock_system, &l->log, &l->b, error))
        note_addresses(l);
    else
        err = fail(LONELY_BROADCASTER_MACHINE, why, error);
    restore_signals(&before);
    keys_unref(keys);
    return err;
}

/* On failure `l` is freed. */
static enum lonely_broadcaster_error finish_open(struct lonely_broadcaster *l,
                                                 struct lonely_broadcaster **out,
                                                 struct lonely_broadcaster_why *why)
{
    enum lonely_broadcaster_error err = open_all(l, why);

    *out = l;
    if (err == LONELY_BROADCASTER_OK)
        return err;
    *out = NULL;
    lonely_broadcaster_close(l);
    return err;
}

/* lonely_broadcaster_log_fn has the public names of the same levels. */
_Static_assert((int)LOG_LEVEL_DEBUG == (int)LONELY_BROADCASTER_LOG_DEBUG, "levels differ");

struct sink {
    lonely_broadcaster_log_fn *fn;
    void *arg;
};

static void to_sink(void *arg, enum log_level level, const char *line)
{
    const struct sink *sink = arg;

    sink->fn(sink->arg, (enum lonely_broadcaster_level)level, line);
}

static void set_sink(struct lonely_broadcaster *l, const struct lonely_broadcaster_options *o)
{
    const struct sink sink = { o->log, o->log_arg };

    if (o->log != NULL)
        log_set_sink(&l->log, to_sink, mem_dup(&sink, sizeof(sink)));
}

enum lonely_broadcaster_error lonely_broadcaster_open(const struct lonely_broadcaster_options *o,
                                                      struct lonely_broadcaster **out,
                                                      struct lonely_broadcaster_why *why)
{
    struct lonely_broadcaster *l = mem_calloc(1, sizeof(*l));
    struct options *options = &l->options;
    struct conf_error error;

    *out = NULL;
    replace(&l->config, o->config);
    replace(&l->mount, o->mount);
    options->config = l->config;
    options->mount = l->mount;
    for (size_t i = 0; i < o->options.n_assignments; i++)
        options_assign(options, "", o->options.assignments[i]);
    if (!options_read(options, &options->conf, &error)) {
        options->conf = (struct conf){ 0 };
        options_fini(options);
        mem_free(l->config);
        mem_free(l->mount);
        mem_free(l);
        return fail(LONELY_BROADCASTER_CONFIGURATION, why, error.text);
    }
    init_log(&l->log, &options->conf);
    set_sink(l, o);
    return finish_open(l, out, why);
}

enum lonely_broadcaster_error embed_open(struct options *o, struct lonely_broadcaster **out,
                                         struct lonely_broadcaster_why *why)
{
    struct lonely_broadcaster *l = mem_calloc(1, sizeof(*l));

    l->options = *o;
    *o = (struct options){ 0 };
    init_log(&l->log, &l->options.conf);
    return finish_open(l, out, why);
}

enum lonely_broadcaster_error embed_check(const struct options *o,
                                          struct lonely_broadcaster_why *why)
{
    enum lonely_broadcaster_error err = check_parts(&o->conf, why);
    struct keys_error keys_error;
    struct keys *keys;
    struct log log;

    if (err != LONELY_BROADCASTER_OK)
        return err;
    init_log(&log, &o->conf);
    keys = keys_load(&o->conf, &log, &keys_error);
    log_fini(&log);
    if (keys == NULL)
        return fail(LONELY_BROADCASTER_CONFIGURATION, why, keys_error.text);
    keys_unref(keys);
    return LONELY_BROADCASTER_OK;
}

static void log_started(struct lonely_broadcaster *l)
{
    struct index_counts counts = index_counts(l->b->index);

    log_info(&l->log, "started", LOG_STR("database", l->b->conf->database.type),
             LOG_U64("exacts", counts.exacts), LOG_U64("globs", counts.globs),
             LOG_U64("workers", l->b->worker_count), LOG_END);
}

enum lonely_broadcaster_error lonely_broadcaster_start(struct lonely_broadcaster *l,
                                                       struct lonely_broadcaster_why *why)
{
    char error[256];
    sigset_t before;
    bool good;

    if (l->started)
        return fail(LONELY_BROADCASTER_MACHINE, why, "it was started before");
    block_signals(&before);
    good = broadcaster_start(l->b, error);
    restore_signals(&before);
    l->started = true;
    l->joined = !good; /* those that began have ended */
    if (!good)
        return fail(LONELY_BROADCASTER_MACHINE, why, error);
    log_started(l);
    return LONELY_BROADCASTER_OK;
}

const struct lonely_broadcaster_address *
lonely_broadcaster_address(const struct lonely_broadcaster *l, size_t i)
{
    return i < l->address_count ? &l->addresses[i] : NULL;
}

struct lonely_mount *lonely_broadcaster_mount(struct lonely_broadcaster *l)
{
    return l->b->mount;
}

/* ---- Reload ---- */

static void apply_log(struct lonely_broadcaster *l, const struct conf *conf)
{
    enum log_level level;
    enum log_format format;

    if (log_level_parse(conf->log.level, &level))
        log_set_level(&l->log, level);
    if (log_format_parse(conf->log.format, &format))
        log_set_format(&l->log, format);
    atomic_store(&l->b->log_access, conf->log.access);
}

static enum lonely_broadcaster_error
refuse_reload(struct lonely_broadcaster *l, struct lonely_broadcaster_why *why, const char *text)
{
    log_error(&l->log, "reload_failed", LOG_STR("error", text), LOG_END);
    return fail(LONELY_BROADCASTER_CONFIGURATION, why, text);
}

static enum lonely_broadcaster_error reload_parts(struct lonely_broadcaster *l,
                                                  const struct conf *conf,
                                                  struct lonely_broadcaster_why *why)
{
    struct keys_error error;
    char tls_error[256];
    struct keys *keys = keys_load(conf, &l->log, &error);

    if (keys == NULL)
        return refuse_reload(l, why, error.text);
    if (!broadcaster_reload_tls(l->b, conf, tls_error)) {
        keys_unref(keys);
        return refuse_reload(l, why, tls_error);
    }
    broadcaster_set_keys(l->b, keys);
    apply_log(l, conf);
    log_info(&l->log, "reloaded", LOG_STR("level", conf->log.level), LOG_END);
    return LONELY_BROADCASTER_OK;
}

enum lonely_broadcaster_error lonely_broadcaster_reload(struct lonely_broadcaster *l,
                                                        struct lonely_broadcaster_why *why)
{
    enum lonely_broadcaster_error err;
    struct conf conf;
    struct conf_error error;

    if (!options_read_again(&l->options, &conf, &error))
        return refuse_reload(l, why, error.text);
    err = reload_parts(l, &conf, why);
    conf_fini(&conf);
    return err;
}

/* ---- End ---- */

void lonely_broadcaster_drain(struct lonely_broadcaster *l)
{
    broadcaster_drain(l->b);
}

void lonely_broadcaster_stop(struct lonely_broadcaster *l)
{
    broadcaster_stop(l->b);
}

bool lonely_broadcaster_is_running(struct lonely_broadcaster *l)
{
    return broadcaster_is_running(l->b);
}

void lonely_broadcaster_join(struct lonely_broadcaster *l)
{
    if (!l->started || l->joined)
        return;
    broadcaster_join(l->b);
    l->joined = true;
}

void lonely_broadcaster_close(struct lonely_broadcaster *l)
{
    if (l == NULL)
        return;
    if (l->started && !l->joined) {
        broadcaster_stop(l->b);
        lonely_broadcaster_join(l);
    }
    broadcaster_destroy(l->b);
    mem_free(l->addresses);
    mem_free(l->log.sink_arg);
    log_fini(&l->log);
    options_fini(&l->options);
    mem_free(l->config);
    mem_free(l->mount);
    mem_free(l);
}
