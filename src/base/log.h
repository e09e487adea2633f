/*
 * Log lines: one event a line, its name first, then fields; text or JSON; one write(2) a line, so
 * lines of several threads (or processes) never mix.
 *
 *     log_warn(log, "webhook_failed", LOG_SPAN("topic", topic.ptr, topic.len),
 *              LOG_U64("status", status), LOG_STR("error", text), LOG_END);
 *
 *     2025-01-31T12:00:00.123Z warn webhook_failed topic=a/b status=502 error="reply too long"
 *     {"time":"2025-01-31T12:00:00.123Z","level":"warn","event":"webhook_failed","topic":"a/b",...}
 *
 * Event and keys are literals of our code: lower case letters, digits, `_`. Values may be a peer's
 * bytes: everything but printable ASCII, and `"` and `\`, is written as \xNN (in JSON: "\\xNN").
 * A value of more than LOG_VALUE_MAX written bytes ends with `\...`; a line is at most LOG_LINE_MAX
 * bytes with its newline: fields that do not fit are left out and truncated=true says so. Secrets
 * are never passed.
 *
 * Any thread may write. A line that cannot be written (a full, non-blocking pipe) is lost.
 */
#ifndef LOG_H
#define LOG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clock.h"

#define LOG_LINE_MAX        4096 /* PIPE_BUF: a pipe takes it whole */
#define LOG_VALUE_MAX       512
#define LOG_LIMIT_EVENTS    32     /* events whose repetition is watched at once */
#define LOG_LIMIT_LINES     5      /* of one event ... */
#define LOG_LIMIT_WINDOW_MS 10000u /* ... in such a time; the rest is only counted */

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* "error", "warn", "info", "debug"; "text", "json". false: none of them, `*out` untouched. */
bool log_level_parse(const char *name, enum log_level *out);
bool log_format_parse(const char *name, enum log_format *out);

struct log_limit {
    const char *event; /* NULL: free */
    uint64_t since_ms;
    uint64_t lines;      /* in this window, written or not */
    uint64_t suppressed; /* not written since the last one that was */
};

/* Takes a line instead of a descriptor: `line` ends with a newline and a NUL; any thread, several at
 * once. Must not log. */
typedef void log_sink_fn(void *arg, enum log_level level, const char *line);

struct log {
    int fd;
    log_sink_fn *sink; /* NULL: `fd` */
    void *sink_arg;
    atomic_int level;
    atomic_int format; /* an enum log_format */
    const struct clock *clock;
    pthread_mutex_t mutex; /* guards limits */
    struct log_limit limits[LOG_LIMIT_EVENTS];
};

/* `fd` and `clock` stay the caller's and must outlive the log. */
void log_init(struct log *log, int fd, enum log_level level, enum log_format format,
              const struct clock *clock);
void log_fini(struct log *log);
/* Lines go to `sink` instead of the descriptor. Before anybody logs. */
void log_set_sink(struct log *log, log_sink_fn *sink, void *arg);
/* At any time, from any thread. */
void log_set_level(struct log *log, enum log_level level);
void log_set_format(struct log *log, enum log_format format);

/* Is a line of this level written? A NULL log writes nothing. */
static inline bool log_enabled(struct log *log, enum log_level level)
{
    return log != NULL && (int)level <= atomic_load_explicit(&log->level, memory_order_relaxed);
}

/* Writes a peer's bytes into `out` as a line would show them, cut with `\...` when `cap` (at least 8)
 * is too small, and a NUL. For messages that go elsewhere. */
void log_escape(const void *ptr, size_t len, char *out, size_t cap);

enum log_type {
    LOG_TYPE_END,
    LOG_TYPE_STR,
    LOG_TYPE_SPAN,
    LOG_TYPE_URL,
    LOG_TYPE_U64,
    LOG_TYPE_I64,
    LOG_TYPE_F64,
    LOG_TYPE_BOOL
};

struct log_field {
    const char *key;
    enum log_type type;
    union {
        struct {
            const void *ptr;
            size_t len;
        } span;
        const char *str;
        uint64_t u64;
        int64_t i64;
        double f64;
        bool b;
    } value;
};

#define LOG_FIELD_(k, t, member, ...) \
    ((struct log_field){ .key = (k), .type = (t), .value = { .member = __VA_ARGS__ } })
#define LOG_STR(key_, s)           LOG_FIELD_(key_, LOG_TYPE_STR, str, (s)) /* NULL is written as nothing */
#define LOG_SPAN(key_, ptr_, len_) LOG_FIELD_(key_, LOG_TYPE_SPAN, span, { (ptr_), (len_) })
/* A span that is a URL, perhaps: what stands before an `@` in its authority, user and password, is
 * written as `***`. */
#define LOG_URL(key_, ptr_, len_) LOG_FIELD_(key_, LOG_TYPE_URL, span, { (ptr_), (len_) })
#define LOG_U64(key_, n)          LOG_FIELD_(key_, LOG_TYPE_U64, u64, (n))
#define LOG_I64(key_, n)          LOG_FIELD_(key_, LOG_TYPE_I64, i64, (n))
#define LOG_F64(key_, x)          LOG_FIELD_(key_, LOG_TYPE_F64, f64, (x))
#define LOG_BOOL(key_, b_)        LOG_FIELD_(key_, LOG_TYPE_BOOL, b, (b_))
#define LOG_END                   ((struct log_field){ .type = LOG_TYPE_END })

/* Writes a line, whatever its level; `fields` ends with LOG_END. For the macros below. */
void log_write(struct log *log, enum log_level level, const char *event,
               const struct log_field *fields);

/* The same for what a peer can repeat at will: of one event at most LOG_LIMIT_LINES lines in
 * LOG_LIMIT_WINDOW_MS; the next line after that tells `suppressed=N`. */
void log_write_limited(struct log *log, enum log_level level, const char *event,
                       const struct log_field *fields);

/* The fields are not evaluated when the level is not written. The last argument is LOG_END. */
#define LOG_AT_(write_, log_, level_, event_, ...)                                         \
    do {                                                                                   \
        if (log_enabled((log_), (level_)))                                                 \
            write_((log_), (level_), (event_), (const struct log_field[]){ __VA_ARGS__ }); \
    } while (0)

#define log_error(log_, event_, ...) LOG_AT_(log_write, log_, LOG_LEVEL_ERROR, event_, __VA_ARGS__)
#define log_warn(log_, event_, ...)  LOG_AT_(log_write, log_, LOG_LEVEL_WARN, event_, __VA_ARGS__)
#define log_info(log_, event_, ...)  LOG_AT_(log_write, log_, LOG_LEVEL_INFO, event_, __VA_ARGS__)
#define log_debug(log_, event_, ...) LOG_AT_(log_write, log_, LOG_LEVEL_DEBUG, event_, __VA_ARGS__)

#define log_error_limited(log_, event_, ...) \
    LOG_AT_(log_write_limited, log_, LOG_LEVEL_ERROR, event_, __VA_ARGS__)
#define log_warn_limited(log_, event_, ...) \
    LOG_AT_(log_write_limited, log_, LOG_LEVEL_WARN, event_, __VA_ARGS__)
#define log_info_limited(log_, event_, ...) \
    LOG_AT_(log_write_limited, log_, LOG_LEVEL_INFO, event_, __VA_ARGS__)

#endif
