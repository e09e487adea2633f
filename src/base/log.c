/*
 * Log lines (log.h). A line is put together on the stack and written at once; the only state that
 * threads share is the counting of repeated events.
 */
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fd.h"

/* What the end of a line can need: `,"truncated":true}` and the newline. */
#define LOG_TAIL_MAX 20

struct line {
    char text[LOG_LINE_MAX + 1]; /* and a NUL for a sink */
    size_t len;
    size_t cap; /* writes beyond it set full and add nothing */
    bool full;
    bool json;
};

static const char *const level_names[] = { "error", "warn", "info", "debug" };
static const char *const format_names[] = { "text", "json" };

static int name_index(const char *const *names, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

bool log_level_parse(const char *name, enum log_level *out)
{
    int i = name_index(level_names, 4, name);

    if (i >= 0)
        *out = (enum log_level)i;
    return i >= 0;
}

bool log_format_parse(const char *name, enum log_format *out)
{
    int i = name_index(format_names, 2, name);

    if (i >= 0)
        *out = (enum log_format)i;
    return i >= 0;
}

void log_init(struct log *log, int fd, enum log_level level, enum log_format format,
              const struct clock *clock)
{
    *log = (struct log){ .fd = fd, .clock = clock };
    atomic_init(&log->format, (int)format);
    atomic_init(&log->level, (int)level);
    pthread_mutex_init(&log->mutex, NULL);
}

void log_fini(struct log *log)
{
    pthread_mutex_destroy(&log->mutex);
}

void log_set_sink(struct log *log, log_sink_fn *sink, void *arg)
{
    log->sink = sink;
    log->sink_arg = arg;
}

void log_set_level(struct log *log, enum log_level level)
{
    atomic_store_explicit(&log->level, (int)level, memory_order_relaxed);
}

void log_set_format(struct log *log, enum log_format format)
{
    atomic_store_explicit(&log->format, (int)format, memory_order_relaxed);
}

static void put(struct line *l, const char *bytes, size_t len)
{
    if (l->full || len > l->cap - l->len) {
        l->full = true;
        return;
    }
    memcpy(l->text + l->len, bytes, len);
    l->len += len;
}

static void put_str(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

/* Writes one byte of a value as text; returns its length. In JSON the backslash is doubled. */
static size_t escape(uint8_t byte, bool json, char out[6])
{
    static const char hex[] = "0123456789abcdef";
    size_t n = 0;

    if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\') {
        out[0] = (char)byte;
        return 1;
    }
    if (json)
        out[n++] = '\\';
    out[n++] = '\\';
    out[n++] = 'x';
    out[n++] = hex[byte >> 4];
    out[n++] = hex[byte & 15];
    return n;
}

void log_escape(const void *ptr, size_t len, char *out, size_t cap)
{
    static const char cut[] = "\\...";
    const uint8_t *p = ptr;
    size_t at = 0, cut_at = 0; /* the last place where `cut` still fits */

    for (size_t i = 0; i < len; i++) {
        char text[6];
        size_t n = escape(p[i], false, text);

        if (at + n >= cap) {
            memcpy(out + cut_at, cut, sizeof cut);
            return;
        }
        memcpy(out + at, text, n);
        at += n;
        if (at + sizeof cut <= cap)
            cut_at = at;
    }
    out[at] = '\0';
}

/* Quotes keep a text line readable where a value could be taken for several. */
static bool needs_quotes(const uint8_t *p, size_t len)
{
    if (len == 0 || len > LOG_VALUE_MAX)
        return true;
    for (size_t i = 0; i < len; i++)
        if (p[i] <= 0x20 || p[i] >= 0x7f || p[i] == '"' || p[i] == '\\' || p[i] == '=')
            return true;
    return false;
}

static void put_bytes(struct line *l, const void *ptr, size_t len)
{
    const uint8_t *p = ptr;
    bool quotes = l->json || needs_quotes(p, len);
    size_t written = 0;

    if (quotes)
        put(l, "\"", 1);
    for (size_t i = 0; i < len; i++) {
        char out[6];
        size_t n = escape(p[i], l->json, out);

        if (written + n > LOG_VALUE_MAX) {
            put_str(l, l->json ? "\\\\..." : "\\...");
            break;
        }
        put(l, out, n);
        written += n;
    }
    if (quotes)
        put(l, "\"", 1);
}

static bool ends_authority(char c)
{
    return c == '/' || c == '?' || c == '#';
}

/* Where in a URL user and password are; false: it has none. */
static bool find_userinfo(const char *url, size_t len, size_t *start, size_t *end)
{
    const char *at;

    *start = 0;
    for (size_t i = 0; i + 3 <= len && !ends_authority(url[i]); i++)
        if (memcmp(url + i, "://", 3) == 0)
            *start = i + 3;
    *end = *start;
    while (*end < len && !ends_authority(url[*end]))
        ++*end;
    at = memrchr(url + *start, '@', *end - *start);
    if (at == NULL)
        return false;
    *end = (size_t)(at - url);
    return true;
}

/* Enough of the URL to fill a value, without its user and password. */
static void put_url(struct line *l, const char *url, size_t len)
{
    static const char hidden[] = "***";
    const size_t hidden_len = sizeof hidden - 1;
    char text[LOG_VALUE_MAX + 1];
    size_t start, end, rest;

    if (len == 0 || !find_userinfo(url, len, &start, &end)) {
        put_bytes(l, url, len);
        return;
    }
    if (start > sizeof text - hidden_len)
        start = sizeof text - hidden_len;
    memcpy(text, url, start);
    memcpy(text + start, hidden, hidden_len);
    rest = len - end;
    if (rest > sizeof text - start - hidden_len)
        rest = sizeof text - start - hidden_len;
    memcpy(text + start + hidden_len, url + end, rest);
    put_bytes(l, text, start + hidden_len + rest);
}

static void put_double(struct line *l, double x)
{
    char text[32];

    snprintf(text, sizeof text, "%.9g", x);
    /* JSON has no infinities and no NaN. */
    if (l->json && strspn(text, "+-.0123456789e") != strlen(text))
        put_bytes(l, text, strlen(text));
    else
        put_str(l, text);
}

static void put_value(struct line *l, const struct log_field *f)
{
    char text[24];

    switch (f->type) {
    case LOG_TYPE_STR:
        put_bytes(l, f->value.str, f->value.str == NULL ? 0 : strlen(f->value.str));
        break;
    case LOG_TYPE_SPAN:
        put_bytes(l, f->value.span.ptr, f->value.span.len);
        break;
    case LOG_TYPE_URL:
        put_url(l, f->value.span.ptr, f->value.span.len);
        break;
    case LOG_TYPE_U64:
        snprintf(text, sizeof text, "%" PRIu64, f->value.u64);
        put_str(l, text);
        break;
    case LOG_TYPE_I64:
        snprintf(text, sizeof text, "%" PRId64, f->value.i64);
        put_str(l, text);
        break;
    case LOG_TYPE_F64:
        put_double(l, f->value.f64);
        break;
    case LOG_TYPE_BOOL:
        put_str(l, f->value.b ? "true" : "false");
        break;
    case LOG_TYPE_END:
        break;
    }
}

static void put_field(struct line *l, const struct log_field *f)
{
    size_t start = l->len;

    put_str(l, l->json ? ",\"" : " ");
    put_str(l, f->key);
    put_str(l, l->json ? "\":" : "=");
    put_value(l, f);
    if (l->full)
        l->len = start; /* a field is written whole or not at all */
}

static void put_head(struct line *l, const struct clock *clock, enum log_level level,
                     const char *event)
{
    int64_t now_ns = clock_wall_ns(clock);
    int64_t ms = now_ns / 1000000 - (now_ns % 1000000 < 0); /* rounds down before 1970 too */
    int64_t below = (ms % 1000 + 1000) % 1000;
    time_t seconds = (time_t)((ms - below) / 1000);
    struct tm tm = { 0 };
    char day[40], fraction[8];

    gmtime_r(&seconds, &tm);
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(fraction, sizeof fraction, ".%03dZ", (int)below);
    put_str(l, l->json ? "{\"time\":\"" : "");
    put_str(l, day);
    put_str(l, fraction);
    put_str(l, l->json ? "\",\"level\":\"" : " ");
    put_str(l, level_names[level]);
    put_str(l, l->json ? "\",\"event\":\"" : " ");
    put_str(l, event);
    put_str(l, l->json ? "\"" : "");
}

static void write_line(struct log *log, enum log_level level, const char *event,
                       uint64_t suppressed, const struct log_field *f)
{
    struct line l;
    int saved = errno; /* logging an error must not change it */

    l.len = 0;
    l.cap = LOG_LINE_MAX - LOG_TAIL_MAX;
    l.full = false;
    l.json = atomic_load_explicit(&log->format, memory_order_relaxed) == LOG_FORMAT_JSON;
    put_head(&l, log->clock, level, event);
    if (suppressed > 0)
        put_field(&l, &LOG_U64("suppressed", suppressed));
    for (; f->type != LOG_TYPE_END && !l.full; f++)
        put_field(&l, f);
    l.cap = LOG_LINE_MAX;
    if (l.full) {
        l.full = false;
        put_str(&l, l.json ? ",\"truncated\":true" : " truncated=true");
    }
    put_str(&l, l.json ? "}\n" : "\n");
    if (log->sink != NULL) {
        l.text[l.len] = '\0';
        log->sink(log->sink_arg, level, l.text);
    } else {
        (void)fd_write_all(log->fd, l.text, l.len); /* nowhere to complain to */
    }
    errno = saved;
}

void log_write(struct log *log, enum log_level level, const char *event,
               const struct log_field *fields)
{
    if (log != NULL)
        write_line(log, level, event, 0, fields);
}

/* The slot of `event`: its own, else a free one, else the one whose window is the oldest. */
static struct log_limit *limit_of(struct log *log, const char *event, uint64_t now_ms)
{
    struct log_limit *oldest = &log->limits[0];

    for (size_t i = 0; i < LOG_LIMIT_EVENTS; i++) {
        struct log_limit *slot = &log->limits[i];

        if (slot->event != NULL && strcmp(slot->event, event) == 0)
            return slot;
        if (oldest->event != NULL && (slot->event == NULL || slot->since_ms < oldest->since_ms))
            oldest = slot;
    }
    *oldest = (struct log_limit){ .event = event, .since_ms = now_ms };
    return oldest;
}

void log_write_limited(struct log *log, enum log_level level, const char *event,
                       const struct log_field *fields)
{
    struct log_limit *slot;
    uint64_t now_ms, suppressed;
    bool write;

    if (log == NULL)
        return;
    now_ms = clock_mono_ms(log->clock);
    pthread_mutex_lock(&log->mutex);
    slot = limit_of(log, event, now_ms);
    if (now_ms - slot->since_ms >= LOG_LIMIT_WINDOW_MS) {
        slot->since_ms = now_ms;
        slot->lines = 0;
    }
    write = slot->lines++ < LOG_LIMIT_LINES;
    suppressed = slot->suppressed;
    slot->suppressed = write ? 0 : suppressed + 1;
    pthread_mutex_unlock(&log->mutex);
    if (write)
        write_line(log, level, event, suppressed, fields);
}
