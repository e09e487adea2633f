/*
 * The options of the broadcaster (conf.h): the table, and what is made of it. Called by options.c
 * and setup.c. How a single value is written is in conf_value.c, how a file is cut into lines in
 * ini.c.
 */
#include "conf.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "conf_value.h"
#include "database_url.h"
#include "ini.h"
#include "log.h"
#include "mem.h"

#define MAX_MS    UINT64_C(31536000000) /* a year: no timeout needs more, and sums cannot wrap */
#define MAX_BYTES (UINT64_C(1) << 40)

/* Trained dictionaries are used on the loop, and samples are in memory while one is made. */
#define MAX_TRAINED   (1 << 16)
#define MAX_WATERMARK (1 << 28)

#define OPT(s, k, t, f)          .section = #s, .key = #k, .type = t, .field = offsetof(struct conf, s.f)
#define TIME(s, k)               OPT(s, k, CONF_TIME_MS, k##_ms), .min = 1, .max = MAX_MS
#define SIZE(s, k, least, most)  OPT(s, k, CONF_SIZE, k), .min = least, .max = most
#define REAL(s, k, least, most)  OPT(s, k, CONF_REAL, k), .min = least, .max = most
#define COUNT(s, k, least, most) OPT(s, k, CONF_COUNT, k), .min = least, .max = most

static const struct conf_option options[] = {
    { OPT(broadcaster, listen, CONF_LISTEN_LIST, listen), .none = true, .def = "127.0.0.1:3003",
      .meaning = "Addresses for HTTP and websocket; port 0: any free. none: only as lonelypss(3) "
                 "mounts it." },
    { OPT(broadcaster, tls_listen, CONF_LISTEN_LIST, tls_listen), .none = true, .def = "none",
      .meaning = "The same for HTTPS, with the certificate of [tls]." },
    { OPT(broadcaster, admin_listen, CONF_LISTEN, admin_listen), .none = true, .def = "none",
      .meaning = "Address for GET /healthz, /readyz and /metrics, for operators only." },
    { COUNT(broadcaster, workers, 0, 1024), .def = "1",
      .meaning = "Loops, one thread each; 0: one per core." },
    { OPT(broadcaster, receiver_url, CONF_URL, receiver_url), .choices = "derived",
      .def = "derived",
      .meaning =
          "How other broadcasters reach this one; derived: at the first address of listen." },
    { OPT(broadcaster, missed_url, CONF_URL, missed_url), .choices = "derived", .none = true,
      .def = "derived",
      .meaning = "The same for what was missed; derived: beside receiver_url. none: never told." },
    { OPT(broadcaster, spool_dir, CONF_PATH, spool_dir), .def = "spool",
      .meaning = "Folder for temporary bodies, made if absent." },
    { OPT(broadcaster, drain_timeout, CONF_TIME_MS, drain_timeout_ms), .max = MAX_MS, .def = "10s",
      .meaning = "After SIGTERM: finish what was taken, for at most so long." },

    { TIME(http, header_timeout), .def = "10s",
      .meaning = "Longest time for a whole request head, also when it drips." },
    { TIME(http, body_idle_timeout), .none = true, .def = "30s",
      .meaning = "Longest time without a byte of a body." },
    { TIME(http, keepalive_timeout), .def = "75s",
      .meaning = "Longest time that a connection idles." },
    { TIME(http, body_timeout), .none = true, .def = "none",
      .meaning = "Longest time for a whole body." },
    { SIZE(http, discard_bytes, 0, MAX_BYTES), .def = "1M",
      .meaning =
          "So much of a refused body is read and thrown away, so that the peer sees the answer." },
    { SIZE(http, max_header_bytes, 1024, 1 << 20), .def = "16K",
      .meaning = "Longest request line and headers together." },

    { OPT(tcp, listen, CONF_LISTEN_LIST, listen), .none = true, .def = "none",
      .meaning = "Addresses for raw TCP: sessions without a websocket around them." },
    { OPT(tcp, tls_listen, CONF_LISTEN_LIST, tls_listen), .none = true, .def = "none",
      .meaning = "The same under TLS, with the certificate of [tls]." },
    { SIZE(tcp, max_frame, 262144, UINT32_MAX), .def = "16M",
      .meaning = "Longest frame taken from a peer; a longer one ends the session." },
    { SIZE(tcp, outgoing_max_message_size, 512, UINT32_MAX), .none = true, .def = "16M",
      .meaning = "Longest frame sent; longer messages go in parts." },
    { OPT(tcp, user_timeout, CONF_TIME_MS, user_timeout_ms), .min = 1000, .max = 3600000,
      .def = "40s", .meaning = "A peer that acknowledges no byte for so long is gone." },

    { OPT(tls, certificate, CONF_PATH, certificate), .none = true, .def = "none",
      .meaning =
          "PEM file: the certificate of tls_listen, then those between it and an authority." },
    { OPT(tls, key, CONF_PATH, key), .none = true, .def = "none",
      .meaning = "PEM file of its private key, without a passphrase." },
    { OPT(tls, client_ca, CONF_PATH, client_ca), .none = true, .def = "none",
      .meaning = "PEM file of the authorities that may sign certificates of clients." },
    { OPT(tls, client_certificate, CONF_CHOICE, client_certificate),
      .choices = "none optional required", .def = "none",
      .meaning = "Whether clients are asked for a certificate, and must have one." },

    { OPT(database, type, CONF_CHOICE, type), .choices = "sqlite postgres rqlite memory",
      .def = "sqlite",
      .meaning = "Where subscriptions are kept. memory: nothing survives a restart." },
    { OPT(database, path, CONF_PATH, path), .def = "subscriptions.db",
      .meaning = "File of sqlite." },
    { OPT(database, url, CONF_DATABASE_URLS, url), .none = true, .def = "none",
      .meaning = "postgresql://... of postgres; http://HOST:PORT of each node of rqlite." },
    { OPT(database, password_file, CONF_PATH, password_file), .none = true, .def = "none",
      .meaning = "File with the password, instead of one in the URL." },
    { TIME(database, timeout), .def = "5s",
      .meaning = "Longest wait for the database before a request is answered 503." },
    { OPT(database, missed_lock_time, CONF_TIME_S, missed_lock_time_s), .min = 1, .max = 86400,
      .def = "30s",
      .meaning =
          "So long a missed message is one broadcaster's to retry; above the HTTP timeout." },
    { OPT(database, index_max_staleness, CONF_TIME_MS, index_max_staleness_ms), .max = 3600000,
      .def = "0",
      .meaning = "A notify may overlook changes that are younger; 0: it asks the database first." },
    { OPT(database, rqlite_read, CONF_CHOICE, rqlite_read), .choices = "linearizable weak",
      .def = "linearizable",
      .meaning = "How rqlite is asked. weak: a leader that was replaced may answer for a moment." },

    { OPT(auth, secrets, CONF_PATH, secrets), .none = true, .def = "broadcaster-secrets.json",
      .meaning = "Secrets file. none: authorization none both ways." },
    { OPT(auth, also_accept, CONF_PATH_LIST, also_accept), .none = true, .def = "none",
      .meaning = "More secrets files: their secrets are accepted, never used to sign." },
    { OPT(auth, strict_permissions, CONF_BOOL, strict_permissions), .def = "no",
      .meaning = "Refuse to start, and not only warn, when others may read a secrets file." },
    { OPT(auth, replay_store, CONF_CHOICE, replay_store), .choices = "database memory none",
      .def = "database",
      .meaning = "Where used macs are remembered. none: a message may be replayed." },

    { TIME(webhook, outgoing_http_timeout_total), .none = true, .def = "30s",
      .meaning = "Longest time for a whole delivery." },
    { TIME(webhook, outgoing_http_timeout_connect), .none = true, .def = "none",
      .meaning = "Longest time to connect, all attempts." },
    { TIME(webhook, outgoing_http_timeout_sock_connect), .none = true, .def = "5s",
      .meaning = "Longest time to connect, one attempt." },
    { TIME(webhook, outgoing_http_timeout_sock_read), .none = true, .def = "5s",
      .meaning = "Longest time without a byte received or sent." },
    { COUNT(webhook, max_in_flight, 1, 1 << 20), .def = "1024",
      .meaning = "Deliveries running at once; the rest queues." },
    { COUNT(webhook, max_per_origin, 1, 1 << 20), .def = "64",
      .meaning = "The same, to one scheme, host and port." },
    { COUNT(webhook, max_per_url, 1, 1 << 20), .def = "8", .meaning = "The same, to one URL." },
    { COUNT(webhook, max_queued, 1, 1 << 28), .def = "65536",
      .meaning =
          "Deliveries waiting; beyond it a notify is answered 503 before anything is sent." },
    { SIZE(webhook, max_reply_bytes, 1, 1 << 30), .def = "256K",
      .meaning = "Longest reply of a receiver; longer ones are failures." },
    { OPT(webhook, allow, CONF_CIDR_LIST, allow), .def = "0.0.0.0/0 ::/0",
      .meaning = "Addresses that may be connected to, after DNS; repeat the key for several." },
    { OPT(webhook, deny, CONF_CIDR_LIST, deny),
      .def = "0.0.0.0/8 169.254.0.0/16 224.0.0.0/4 255.255.255.255/32 ::/128 fe80::/10 ff00::/8",
      .meaning = "And that may not: the longer prefix wins, deny on a tie." },
    { OPT(webhook, ca_file, CONF_PATH, ca_file), .none = true, .def = "none",
      .meaning = "PEM file of the authorities to trust instead of the system's." },
    { OPT(webhook, proxy, CONF_PROXY, proxy), .none = true, .def = "none",
      .meaning = "Proxy for deliveries; the environment's proxies are ignored." },

    { TIME(websocket, websocket_accept_timeout), .none = true, .def = "2s",
      .meaning = "Longest time for the answer to an upgrade request to leave." },
    { TIME(websocket, configure_timeout), .none = true, .def = "10s",
      .meaning = "Longest wait for the first frame, CONFIGURE; for TCP too." },
    { COUNT(websocket, websocket_max_pending_sends, 1, 1 << 24), .none = true, .def = "255",
      .meaning = "Messages that may wait for one session; beyond it ends, for TCP too." },
    { COUNT(websocket, websocket_max_unprocessed_receives, 1, 1 << 24), .none = true, .def = "255",
      .meaning = "Unanswered frames of a session; then no more are read, for TCP too." },
    { COUNT(websocket, websocket_send_max_unacknowledged, 1, 1 << 24), .none = true, .def = "64",
      .meaning = "Parts of messages that may await their acknowledgement, for TCP too." },
    { OPT(websocket, websocket_minimal_headers, CONF_BOOL, websocket_minimal_headers), .def = "yes",
      .meaning = "Send headers without names, for TCP too. Both are understood." },
    { OPT(websocket, websocket_large_direct_send_timeout, CONF_TIME_MS,
          websocket_large_direct_send_timeout_ms),
      .max = MAX_MS, .none = true, .def = "300ms",
      .meaning = "Understood because the Python broadcaster has it; has no effect." },
    { SIZE(websocket, outgoing_max_ws_message_size, 512, MAX_BYTES), .none = true, .def = "4194303",
      .meaning = "Longest frame sent; longer messages go in parts." },
    { SIZE(websocket, max_frame, 1024, UINT32_MAX), .def = "16M",
      .meaning = "Longest frame taken from a peer; a longer one ends the session." },
    { OPT(websocket, websocket_count_parts, CONF_CHOICE, websocket_count_parts),
      .choices = "auto each first", .def = "auto",
      .meaning = "Whether each part of a message has a number of its own, or only the first." },
    { TIME(websocket, ping_interval), .none = true, .def = "20s",
      .meaning = "A websocket that is silent for so long is pinged." },
    { TIME(websocket, ping_timeout), .none = true, .def = "20s",
      .meaning = "And is gone when it is still silent so long after." },
    { OPT(websocket, allowed_origins, CONF_ORIGIN_LIST, allowed_origins), .def = "*",
      .meaning = "Origins of the web pages that may connect; *: all." },

    { OPT(compression, compression_allowed, CONF_BOOL, compression_allowed), .def = "yes",
      .meaning = "Compress messages with Zstandard for sessions that ask for it." },
    { OPT(compression, dictionary, CONF_DICTIONARY_LIST, dictionary), .none = true, .def = "none",
      .meaning =
          "Dictionaries that both ends have, for those who ask; repeat the key for several." },
    { OPT(compression, allow_training, CONF_BOOL, allow_training), .def = "yes",
      .meaning = "Train dictionaries for single sessions, out of their messages." },
    { SIZE(compression, compression_min_size, 1, MAX_TRAINED), .def = "32",
      .meaning = "Shorter messages go without a dictionary, and train none." },
    { SIZE(compression, compression_trained_max_size, 1, MAX_TRAINED), .def = "16K",
      .meaning = "From here on messages train none, and go without a trained one." },
    { SIZE(compression, compression_training_low_watermark, 1, MAX_WATERMARK), .def = "100K",
      .meaning = "Messages in all that make a session's first dictionary, of 16K." },
    { SIZE(compression, compression_training_high_watermark, 1, MAX_WATERMARK), .def = "10M",
      .meaning = "The same for its second one, of 64K, and those that follow." },
    { OPT(compression, compression_retrain_interval_seconds, CONF_TIME_S,
          compression_retrain_interval_seconds),
      .max = MAX_MS / 1000, .def = "60h",
      .meaning = "Time from then on until messages are collected for the next." },
    { SIZE(compression, decompression_max_window_size, 0, 1 << 27), .def = "8M",
      .meaning = "Messages that need a larger window are refused; 0: the most there is, 128M." },

    { TIME(missed, sweep_missed_interval), .def = "10s",
      .meaning = "Pause between two looks for missed messages that are due." },
    { REAL(missed, expo_factor, 0, 86400), .def = "1",
      .meaning =
          "A retry waits expo_factor * expo_base ^ min(expo_max, attempts) + constant seconds." },
    { REAL(missed, expo_base, 0, 100), .def = "2", .meaning = "See expo_factor." },
    { REAL(missed, expo_max, 0, 1000), .def = "10", .meaning = "See expo_factor." },
    { COUNT(missed, max_retries, 0, 1 << 20), .def = "20",
      .meaning = "After so many retries a missed message is given up." },
    { REAL(missed, constant, 0, 86400), .def = "1", .meaning = "See expo_factor." },
    { REAL(missed, jitter, 0, 86400), .def = "2",
      .meaning = "Each wait is longer by a random part of so many seconds." },

    { SIZE(limits, message_body_spool_size, 0, MAX_BYTES), .def = "10M",
      .meaning = "Longer bodies wait in a file of broadcaster.spool_dir." },
    { SIZE(limits, max_body_memory, 1 << 20, MAX_BYTES), .def = "256M",
      .meaning = "All bodies in memory together; beyond it smaller ones go to files too." },
    { SIZE(limits, max_message_bytes, 1, CONF_NONE - 1), .none = true, .def = "none",
      .meaning = "Longest message; longer ones are answered 413." },
    { SIZE(limits, max_topic_bytes, 1, 65535), .def = "65535",
      .meaning = "Longest topic; longer ones are answered 400." },
    { SIZE(limits, max_glob_bytes, 1, 65535), .def = "65535",
      .meaning = "Longest glob; longer ones are answered 400." },
    { SIZE(limits, max_url_bytes, 1, 65535), .def = "65535",
      .meaning = "Longest subscriber URL; longer ones are answered 400." },
    { COUNT(limits, max_connections, 1, 1 << 24), .def = "65536",
      .meaning = "Connections at once, capped by the descriptor limit; then accepting pauses." },
    { COUNT(limits, max_connections_per_address, 1, 1 << 24), .none = true, .def = "none",
      .meaning = "The same from one IPv4 address or IPv6 /64; more are closed at once." },
    { OPT(limits, retry_after, CONF_TIME_S, retry_after_s), .min = 1, .max = 86400, .def = "1s",
      .meaning = "What Retry-After says in an answer 503." },

    { OPT(log, level, CONF_CHOICE, level), .choices = "error warn info debug", .def = "info",
      .meaning = "The least important lines that are written." },
    { OPT(log, format, CONF_CHOICE, format), .choices = "text json", .def = "text",
      .meaning = "How lines are written to standard error." },
    { OPT(log, access, CONF_BOOL, access), .def = "no", .meaning = "A line a request." },
};

#define N_OPTIONS (sizeof options / sizeof options[0])

/* The first limit may not be above the second; none is above all. */
static const struct order {
    const char *low_name, *high_name;
    size_t low, high;
} orders[] = {
#define ORDER(a, b)                                                \
    {                                                              \
#a, #b, offsetof(struct conf, a), offsetof(struct conf, b) \
    }
    ORDER(webhook.max_per_url, webhook.max_per_origin),
    ORDER(webhook.max_per_origin, webhook.max_in_flight),
    ORDER(limits.message_body_spool_size, limits.max_body_memory),
    ORDER(compression.compression_min_size, compression.compression_trained_max_size),
    ORDER(compression.compression_training_low_watermark,
          compression.compression_training_high_watermark),
#undef ORDER
};

static void *field_of(struct conf *c, const struct conf_option *o)
{
    return (char *)c + o->field;
}

static const void *const_field_of(const struct conf *c, const struct conf_option *o)
{
    return (const char *)c + o->field;
}

static const struct conf_option *find(const char *section, const char *key)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (strcmp(options[i].section, section) == 0 && strcmp(options[i].key, key) == 0)
            return &options[i];
    return NULL;
}

static bool is_section(const char *name)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        if (strcmp(options[i].section, name) == 0)
            return true;
    return false;
}

__attribute__((format(printf, 2, 3))) static bool fail(struct conf_error *error, const char *format,
                                                       ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return false;
}

/* A user's text in an error: printable and short. */
struct shown {
    char text[64];
};

static struct shown show_up_to(const char *s, const char *ends)
{
    struct shown out = { "" };

    log_escape(s, strcspn(s, ends), out.text, sizeof out.text);
    return out;
}

static struct shown show(const char *s)
{
    return show_up_to(s, "");
}

/* The same for a value, between quotes; of one that may hold a password nothing. */
struct quoted {
    char text[sizeof(struct shown) + 4];
};

static struct quoted quote(const struct conf_option *o, const char *value)
{
    struct quoted out = { "" };

    if (o->type != CONF_DATABASE_URLS && (o->type != CONF_PROXY || strchr(value, '@') == NULL))
        snprintf(out.text, sizeof out.text, "\"%s\": ", show(value).text);
    return out;
}

/* The end of a path, so that what follows it in an error is never cut off. */
static const char *show_path(const char *path)
{
    size_t len = strlen(path);

    return len > 200 ? path + len - 200 : path;
}

void conf_init(struct conf *c)
{
    char why[256];

    *c = (struct conf){ 0 };
    for (size_t i = 0; i < N_OPTIONS; i++) {
        bool good = conf_value_set(field_of(c, &options[i]), &options[i], options[i].def, why);

        assert(good);
        (void)good;
    }
}

void conf_fini(struct conf *c)
{
    for (size_t i = 0; i < N_OPTIONS; i++)
        conf_value_clear(field_of(c, &options[i]), &options[i]);
}

/* Sets one option; a list is replaced, or grows. On failure the field is as before. */
static bool assign(struct conf *c, const struct conf_option *o, const char *text, bool replace,
                   char why[256])
{
    struct conf_list fresh = { 0 };

    if (!conf_value_is_list(o) || !replace)
        return conf_value_set(field_of(c, o), o, text, why);
    if (!conf_value_set(&fresh, o, text, why))
        return false;
    conf_value_clear(field_of(c, o), o);
    *(struct conf_list *)field_of(c, o) = fresh;
    return true;
}

/* What is known while a file is read. */
struct reading {
    struct conf *c;
    const char *path; /* as errors show it */
    struct conf_error *error;
    unsigned seen[N_OPTIONS]; /* the line that set it first; 0: none yet */
};

static bool on_line(void *arg, const struct ini_line *line)
{
    struct reading *r = arg;
    const struct conf_option *o;
    char why[256];
    unsigned *seen;

    if (line->key == NULL)
        return is_section(line->section) || fail(r->error, "%s:%u: unknown section [%s]", r->path,
                                                 line->number, show(line->section).text);
    o = find(line->section, line->key);
    if (o == NULL)
        return fail(r->error, "%s:%u: unknown key \"%s\" in [%s]", r->path, line->number,
                    show(line->key).text, line->section);
    seen = &r->seen[o - options];
    if (*seen != 0 && !conf_value_is_list(o))
        return fail(r->error, "%s:%u: %s.%s is given twice, first in line %u", r->path,
                    line->number, o->section, o->key, *seen);
    if (!assign(r->c, o, line->value, *seen == 0, why))
        return fail(r->error, "%s:%u: %s.%s: %s%s", r->path, line->number, o->section, o->key,
                    quote(o, line->value).text, why);
    if (*seen == 0)
        *seen = line->number;
    return true;
}

/* A relative path begins at the folder of the file that names it, given or by default. `at`: where it stands
 * in the value. */
static void resolve_path(char **value, size_t at, const char *file)
{
    const char *slash = strrchr(file, '/');
    size_t folder = slash == NULL ? 0 : (size_t)(slash - file) + 1;
    char *joined;
    size_t size;

    if (folder == 0 || *value == NULL || (*value)[at] == '/')
        return;
    size = strlen(*value) + 1;
    joined = mem_alloc(folder + size);
    memcpy(joined, *value, at);
    memcpy(joined + at, file, folder);
    memcpy(joined + at + folder, *value + at, size - at);
    mem_free(*value);
    *value = joined;
}

static void resolve_dictionary(char **item, const char *file)
{
    struct conf_dictionary d;

    if (conf_dictionary_parse(*item, &d))
        resolve_path(item, (size_t)(d.path - *item), file);
}

static void resolve_paths(struct conf *c, const char *file)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        void *field = field_of(c, &options[i]);
        struct conf_list *list = field;

        if (options[i].type == CONF_PATH)
            resolve_path(field, 0, file);
        for (size_t j = 0; options[i].type == CONF_PATH_LIST && j < list->count; j++)
            resolve_path(&list->items[j], 0, file);
        for (size_t j = 0; options[i].type == CONF_DICTIONARY_LIST && j < list->count; j++)
            resolve_dictionary(&list->items[j], file);
    }
}

bool conf_read_file(struct conf *c, const char *path, struct conf_error *error)
{
    struct reading r = { .c = c, .path = show_path(path), .error = error };
    struct ini_error wrong;
    const char *why;
    size_t len;
    char *text = ini_read_file(path, &len, &why);
    bool good;

    if (text == NULL)
        return fail(error, "%s: cannot be read: %s", show_path(path), why);
    good = ini_parse(text, len, on_line, &r, &wrong);
    mem_free(text);
    if (wrong.text != NULL)
        fail(error, "%s:%u: %s", show_path(path), wrong.line, wrong.text);
    if (good)
        resolve_paths(c, path);
    return good;
}

/* Cuts "section.key=value" in a copy that the caller frees. NULL: it is not of that shape. */
static char *split(const char *assignment, const char **key, const char **value)
{
    char *copy = mem_strdup(assignment);
    char *equals = strchr(copy, '='), *dot = strchr(copy, '.');

    if (equals == NULL || dot == NULL || dot > equals) {
        mem_free(copy);
        return NULL;
    }
    *equals = *dot = '\0';
    *key = dot + 1;
    *value = equals + 1;
    return copy;
}

/* The first list replaces the file's, the next ones add to it. */
static bool assign_by_set(struct conf *c, const struct conf_option *o, const char *text,
                          char why[256])
{
    struct conf_list *list = conf_value_is_list(o) ? field_of(c, o) : NULL;
    bool good = assign(c, o, text, list == NULL || !list->by_set, why);

    if (list != NULL && good)
        list->by_set = true;
    return good;
}

bool conf_set(struct conf *c, const char *assignment, struct conf_error *error)
{
    const char *key, *value;
    char *section = split(assignment, &key, &value);
    const struct conf_option *o;
    char why[256];
    bool good;

    if (section == NULL)
        return fail(error, "\"%s\": expected section.key=value", show_up_to(assignment, "=").text);
    o = find(section, key);
    if (o == NULL)
        good = fail(error, "unknown option \"%s.%s\"", show(section).text, show(key).text);
    else
        good = assign_by_set(c, o, value, why);
    if (o != NULL && !good)
        fail(error, "%s.%s: %s%s", section, key, quote(o, value).text, why);
    mem_free(section);
    return good;
}

/* Is the item in the first `n` of a list? Port 0 may come again: each gets a port of its own. */
static bool is_taken(const char *item, const struct conf_list *l, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(item, l->items[i]) == 0 && strcmp(strrchr(item, ':'), ":0") != 0)
            return true;
    return false;
}

/* The lists of public addresses, in the order in which they are opened. */
static const struct listen_list {
    const char *name;
    size_t field;
} listen_lists[] = {
#define LISTEN(name)                       \
    {                                      \
#name, offsetof(struct conf, name) \
    }
    LISTEN(broadcaster.listen),
    LISTEN(broadcaster.tls_listen),
    LISTEN(tcp.listen),
    LISTEN(tcp.tls_listen),
#undef LISTEN
};

#define N_LISTEN_LISTS (sizeof listen_lists / sizeof listen_lists[0])

static const struct conf_list *listen_list(const struct conf *c, size_t i)
{
    return (const void *)((const char *)c + listen_lists[i].field);
}

/* Is the item in a list before its own, or earlier in its own? */
static bool check_address(const struct conf *c, size_t list, size_t item, struct conf_error *error)
{
    const char *address = listen_list(c, list)->items[item];

    for (size_t i = 0; i < list; i++)
        if (is_taken(address, listen_list(c, i), listen_list(c, i)->count))
            return fail(error, "%s: \"%s\" is in %s too", listen_lists[list].name,
                        show(address).text, listen_lists[i].name);
    return !is_taken(address, listen_list(c, list), item) ||
           fail(error, "%s: \"%s\" is given twice", listen_lists[list].name, show(address).text);
}

static bool check_listen(const struct conf *c, struct conf_error *error)
{
    if (c->broadcaster.listen.count == 0 && c->mount == NULL)
        return fail(error, "broadcaster.listen is none, which is for programs that embed the "
                           "broadcaster");
    for (size_t i = 0; i < N_LISTEN_LISTS; i++)
        for (size_t j = 0; j < listen_list(c, i)->count; j++)
            if (!check_address(c, i, j, error))
                return false;
    return true;
}

static bool path_is(const char *url, const char *prefix, const char *path)
{
    const char *at = strchr(strstr(url, "://") + 3, '/');
    size_t prefix_len = strlen(prefix), len = strlen(path);

    while (prefix_len > 0 && prefix[prefix_len - 1] == '/')
        prefix_len--;
    return strncmp(at, prefix, prefix_len) == 0 && strncmp(at + prefix_len, path, len) == 0 &&
           strchr("?", at[prefix_len + len]) != NULL; /* also at the end */
}

/* Peers know a broadcaster's URL by its path, and here it is found by it: at a listener of its own, or
 * where it is mounted. */
static bool check_own_url(const struct conf *c, const char *name, const char *url, const char *path,
                          struct conf_error *error)
{
    if (url == NULL || strstr(url, "://") == NULL) /* none, or derived */
        return true;
    return path_is(url, "", path) || (c->mount != NULL && path_is(url, c->mount, path)) ||
           fail(error, "broadcaster.%s: its path must be %s%s", name,
                c->mount != NULL ? c->mount : "", path);
}

static bool check_own_urls(const struct conf *c, struct conf_error *error)
{
    return check_own_url(c, "receiver_url", c->broadcaster.receiver_url,
                         "/v1/receive_for_websockets", error) &&
           check_own_url(c, "missed_url", c->broadcaster.missed_url, "/v1/missed_for_websockets",
                         error);
}

static bool check_tls(const struct conf *c, struct conf_error *error)
{
    const char *who = c->broadcaster.tls_listen.count > 0 ? "broadcaster" : "tcp";

    if (c->broadcaster.tls_listen.count + c->tcp.tls_listen.count == 0)
        return true;
    if (c->tls.certificate == NULL || c->tls.key == NULL)
        return fail(error, "%s.tls_listen needs tls.certificate and tls.key", who);
    return c->tls.client_ca != NULL || strcmp(c->tls.client_certificate, "none") == 0 ||
           fail(error, "tls.client_certificate = %s needs tls.client_ca",
                c->tls.client_certificate);
}

/* What is for operators is never served where the public is. */
static bool check_admin(const struct conf *c, struct conf_error *error)
{
    const char *admin = c->broadcaster.admin_listen;

    for (size_t i = 0; admin != NULL && i < N_LISTEN_LISTS; i++)
        if (is_taken(admin, listen_list(c, i), listen_list(c, i)->count))
            return fail(error, "broadcaster.admin_listen: \"%s\" is in %s too", show(admin).text,
                        listen_lists[i].name);
    return true;
}

/* How the URLs of a type begin. */
static bool check_scheme(const char *type, const char *url)
{
    bool is_http = strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;

    return is_http == (strcmp(type, "rqlite") == 0);
}

static bool check_database(const struct conf *c, struct conf_error *error)
{
    const struct conf_list *urls = &c->database.url;
    const char *type = c->database.type;
    bool is_postgres = strcmp(type, "postgres") == 0;

    if (!is_postgres && strcmp(type, "rqlite") != 0)
        return urls->count == 0 || strcmp(type, "memory") == 0 ||
               fail(error, "database.url does not go with database.type = %s", type);
    if (urls->count == 0)
        return fail(error, "database.type = %s needs database.url", type);
    if (is_postgres && urls->count > 1)
        return fail(error, "database.url: postgres takes one URL, which may name several hosts");
    for (size_t i = 0; i < urls->count; i++) {
        if (!check_scheme(type, urls->items[i]))
            return fail(error, "database.url: database.type = %s needs %s", type,
                        is_postgres ? "postgresql://..." : "http://HOST:PORT");
        if (c->database.password_file != NULL && database_url_has_password(urls->items[i]))
            return fail(error, "database.url has a password, and there is database.password_file");
    }
    return true;
}

/* Keeps the arithmetic of retries finite. */
static bool check_missed(const struct conf *c, struct conf_error *error)
{
    double longest_s = c->missed.expo_factor * pow(c->missed.expo_base, c->missed.expo_max) +
                       c->missed.constant + c->missed.jitter;

    /* Not `>`: 0 times infinity is no number. */
    return longest_s <= (double)MAX_MS / 1000 ||
           fail(error, "missed.expo_factor, expo_base and expo_max: a wait would exceed a year");
}

/* Is the id of a dictionary another's, too? What is in their files is looked at by compression.c. */
static bool check_dictionaries(const struct conf *c, struct conf_error *error)
{
    const struct conf_list *list = &c->compression.dictionary;
    struct conf_dictionary a, b;

    for (size_t i = 0; i < list->count; i++)
        for (size_t j = 0; j < i; j++)
            if (conf_dictionary_parse(list->items[i], &a) &&
                conf_dictionary_parse(list->items[j], &b) && a.id == b.id)
                return fail(error, "compression.dictionary: id %u is given twice", (unsigned)a.id);
    return true;
}

bool conf_check(const struct conf *c, struct conf_error *error)
{
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        const uint64_t *low = (const void *)((const char *)c + orders[i].low);
        const uint64_t *high = (const void *)((const char *)c + orders[i].high);

        if (*low > *high)
            return fail(error, "%s is above %s", orders[i].low_name, orders[i].high_name);
    }
    return check_missed(c, error) && check_listen(c, error) && check_own_urls(c, error) &&
           check_tls(c, error) && check_admin(c, error) && check_database(c, error) &&
           check_dictionaries(c, error);
}

void conf_print_help(FILE *out)
{
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct conf_option *o = &options[i];

        fprintf(out, "  %s.%s=", o->section, o->key);
        conf_value_print_kind(out, o);
        fprintf(out, " (default %s)\n      %s\n", o->def, o->meaning);
    }
}

/* The value as text, or NULL without memory; the caller frees it with free(). */
static char *value_text(const struct conf *c, const struct conf_option *o)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    if (f == NULL)
        return NULL;
    conf_value_print(f, const_field_of(c, o), o);
    fclose(f);
    return text;
}

void conf_print_sample(FILE *out, const struct conf *c)
{
    const char *section = "";

    fputs("# Configuration of lonelypss; see lonelypss.ini(5). A line without # wins over the "
          "default.\n"
          "# Relative paths begin at the folder of this file.\n",
          out);
    for (size_t i = 0; i < N_OPTIONS; i++) {
        const struct conf_option *o = &options[i];
        char *text = value_text(c, o);
        bool is_default = text != NULL && strcmp(text, o->def) == 0;

        if (strcmp(section, o->section) != 0)
            fprintf(out, "\n[%s]\n", section = o->section);
        fprintf(out, "# %s ", o->meaning);
        conf_value_print_kind(out, o);
        fprintf(out, ".\n%s%s = %s\n", is_default ? "#" : "", o->key, text == NULL ? "" : text);
        free(text);
    }
}
