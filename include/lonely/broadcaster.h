/*
 * liblonelypss: the broadcaster of the Lonely Pub-Sub System inside a program. It listens itself, or is
 * mounted in the program's own HTTP server (<lonely/mount.h>), or both. The daemon lonelypss(8) is the same
 * code behind a command line.
 *
 *     struct lonely_broadcaster_options *o = lonely_broadcaster_options_create();
 *     lonely_broadcaster_options_set(o, "broadcaster.listen", "127.0.0.1:0", &why);
 *     lonely_broadcaster_options_set(o, "database.type", "memory", &why);
 *     lonely_broadcaster_options_set(o, "auth.secrets", "none", &why);
 *     if (lonely_broadcaster_open(o, &b, &why) != LONELY_BROADCASTER_OK ||
 *         lonely_broadcaster_start(b, &why) != LONELY_BROADCASTER_OK)
 *         ... why.text ...
 *     lonely_broadcaster_options_destroy(o);
 *     ... lonely_broadcaster_address(b, 0)->bound ...
 *     lonely_broadcaster_drain(b);
 *     lonely_broadcaster_join(b);
 *     lonely_broadcaster_close(b);
 *
 * A process may have several broadcasters; they share nothing. The library has no state of its own, handles
 * no signals and changes no limits of the process: its threads have all signals blocked, and the caller
 * raises RLIMIT_NOFILE if it wants many connections (limits.max_connections is capped by it).
 *
 * Threads: unless it says otherwise, a function may be called from any thread; open, start, join and close
 * of one broadcaster one after another. A broadcaster has broadcaster.workers threads, and those of its
 * database. Not after fork() in the child.
 */
#ifndef LONELY_BROADCASTER_H
#define LONELY_BROADCASTER_H

#include <stdbool.h>
#include <stddef.h>

#include <lonely/mount.h>
#include <lonely/span.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What calls return. Append only: the numbers are ABI. */
#define LONELY_BROADCASTER_ERROR_MAP(X)                                                        \
    X(LONELY_BROADCASTER_OK, "success")                                                        \
    X(LONELY_BROADCASTER_CONFIGURATION, "an option, or a file that one names, cannot be used") \
    X(LONELY_BROADCASTER_MACHINE, "an address, the database or the file system failed")

enum lonely_broadcaster_error {
#define LONELY_X_(name, text) name,
    LONELY_BROADCASTER_ERROR_MAP(LONELY_X_)
#undef LONELY_X_
};

/** The text of an error: static, one line, never NULL. */
LONELY_API const char *lonely_broadcaster_error_str(enum lonely_broadcaster_error err);

/** One line that says what failed, for people; filled in on failure, NULL is allowed. */
struct lonely_broadcaster_why {
    char text[640];
};

/* ---- Options ---- */

struct lonely_broadcaster_options;

/** All defaults, those of lonelypss.ini(5): an SQLite file and a folder `spool` where the process is,
 * broadcaster-secrets.json, and port 3003. */
LONELY_API struct lonely_broadcaster_options *lonely_broadcaster_options_create(void);
/** NULL is allowed. */
LONELY_API void lonely_broadcaster_options_destroy(struct lonely_broadcaster_options *o);

/** A configuration file as the daemon has it; read by open, and again by reload. Copied; NULL: none. */
LONELY_API void lonely_broadcaster_options_set_file(struct lonely_broadcaster_options *o,
                                                    const char *path);

/**
 * Sets an option of lonelypss.ini(5); wins over the file, as --set of the daemon. A list that is given so
 * replaces that of the file or the default, given again it grows.
 *
 * @param name   "section.key"
 * @param value  as in the file: "10M", "30s", "none"
 * @return LONELY_BROADCASTER_OK, _CONFIGURATION (no such option, or not such a value; nothing is changed)
 */
LONELY_API enum lonely_broadcaster_error
lonely_broadcaster_options_set(struct lonely_broadcaster_options *o, const char *name,
                               const char *value, struct lonely_broadcaster_why *why);

/**
 * The broadcaster is mounted in a server of the program, under this prefix: "/pubsub" serves
 * /pubsub/v1/notify and the rest. "" is the root. broadcaster.listen may be `none` then, and the paths of
 * broadcaster.receiver_url and missed_url may begin with the prefix; without a listener of its own
 * websockets are served only when receiver_url is given.
 *
 * @return LONELY_BROADCASTER_OK, _CONFIGURATION (not an absolute path of printable ASCII without query)
 */
LONELY_API enum lonely_broadcaster_error
lonely_broadcaster_options_set_mount(struct lonely_broadcaster_options *o, const char *prefix,
                                     struct lonely_broadcaster_why *why);

enum lonely_broadcaster_level {
    LONELY_BROADCASTER_LOG_ERROR,
    LONELY_BROADCASTER_LOG_WARN,
    LONELY_BROADCASTER_LOG_INFO,
    LONELY_BROADCASTER_LOG_DEBUG
};

/** A line of the log, as log.level and log.format make it, with the newline. It dies on return. Any thread,
 * several at once; must not wait, nor call a function of this header. */
typedef void lonely_broadcaster_log_fn(void *arg, enum lonely_broadcaster_level level,
                                       const char *line);

/** Where the log goes; NULL, as at first: to standard error. */
LONELY_API void lonely_broadcaster_options_set_log(struct lonely_broadcaster_options *o,
                                                   lonely_broadcaster_log_fn *fn, void *arg);

/* ---- Life ---- */

struct lonely_broadcaster;

/**
 * Everything that can be wrong shows here: checks the options, reads secrets and certificates, binds the
 * listeners, makes the spool folder, opens the database and loads the subscriptions. The options may be
 * destroyed afterwards. Waits for the database, at most database.timeout a step.
 *
 * @return LONELY_BROADCASTER_OK, _CONFIGURATION, _MACHINE
 *         On failure `*out` is NULL, nothing is left open, and `why` says in one line what is wrong.
 */
LONELY_API enum lonely_broadcaster_error
lonely_broadcaster_open(const struct lonely_broadcaster_options *o, struct lonely_broadcaster **out,
                        struct lonely_broadcaster_why *why);

/** Starts the threads; from now on requests are answered. LONELY_BROADCASTER_OK, or _MACHINE: no thread
 * could be started, and it is only to be closed; or it was started before, which changes nothing. */
LONELY_API enum lonely_broadcaster_error
lonely_broadcaster_start(struct lonely_broadcaster *b, struct lonely_broadcaster_why *why);

/** An address that is listened on. */
struct lonely_broadcaster_address {
    const char *scheme; /**< "http", "https", "tcp", "tcps", "admin" */
    const char *bound;  /**< "127.0.0.1:3003", port 0 replaced by the real one */
};

/** They are numbered from 0 in the order of the options: listen, tls_listen, those of [tcp], admin_listen.
 * NULL: there are no more. Good until close. */
LONELY_API const struct lonely_broadcaster_address *
lonely_broadcaster_address(const struct lonely_broadcaster *b, size_t i);

/** Where the program's own server gives requests in; NULL without lonely_broadcaster_options_set_mount.
 * Before start they wait. While it drains, and after it has ended, they are answered 503. */
LONELY_API struct lonely_mount *lonely_broadcaster_mount(struct lonely_broadcaster *b);

/**
 * Reads file and secrets again, as SIGHUP has the daemon do: secrets, certificates and the options of [log]
 * count from now on, the rest does not. On failure nothing is changed. Waits for the disk. The log is
 * told, too.
 *
 * @return LONELY_BROADCASTER_OK, _CONFIGURATION
 */
LONELY_API enum lonely_broadcaster_error
lonely_broadcaster_reload(struct lonely_broadcaster *b, struct lonely_broadcaster_why *why);

/** Accepts no more, finishes what was taken, for at most broadcaster.drain_timeout; then its threads end.
 * Does not wait. Before start, or while it runs: takes effect as soon as the threads are there. */
LONELY_API void lonely_broadcaster_drain(struct lonely_broadcaster *b);

/** Ends everything now: what was taken is cancelled. Also during a drain, and before start as drain. Does
 * not wait. */
LONELY_API void lonely_broadcaster_stop(struct lonely_broadcaster *b);

/** Is any of its threads still at work? False before start. */
LONELY_API bool lonely_broadcaster_is_running(struct lonely_broadcaster *b);

/** Waits for its threads to end, after drain or stop; again it does nothing. Not from on_ready of an
 * exchange, which runs on such a thread; nor close. */
LONELY_API void lonely_broadcaster_join(struct lonely_broadcaster *b);

/** Frees; stops and joins first where that was not done. Its mount is gone with it; exchanges that are not
 * freed yet stay good. NULL is allowed. */
LONELY_API void lonely_broadcaster_close(struct lonely_broadcaster *b);

#ifdef __cplusplus
}
#endif

#endif
