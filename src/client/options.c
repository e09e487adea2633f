/*
 * The table of options, and the checks that need more than one of them. Called by the public setters and
 * by client.c; how a value is written is conf_value.c's business.
 */
#include "options.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

#define MAX_MS    UINT64_C(31536000000)
#define MAX_BYTES (UINT64_C(1) << 40)
#define MAX_COUNT (UINT64_C(1) << 24)

#define URL_MAX_BYTES ((size_t)8192)

/* What the options have in common with each other: unit, least, most. */
#define TIME_MS "ms|s|m|h", CONF_TIME_MS
#define SIZE    "bytes", CONF_SIZE
#define COUNT   "count", CONF_COUNT
#define YES_NO  "yes|no", CONF_BOOL
#define PATH    "path", CONF_PATH

/* X(key, field, unit and type, default, min, max, may be none, meaning) */
#define OPTIONS(X)                                                                                 \
    X(io, io, "thread|caller", CONF_CHOICE, "thread", 0, 0, false,                                 \
      "Whose thread does the work: one of the client's own, or the caller's "                      \
      "(lonely_client_process)")                                                                   \
    X(secrets, secrets, PATH, "none", 0, 0, true,                                                  \
      "Secrets file (subscriber-secrets.json); none: authorization none both ways")                \
    X(bind, bind, "HOST:PORT", CONF_LISTEN, "127.0.0.1:3002", 0, 0, true,                          \
      "HTTP: where the receiver listens; port 0: any free; none: only notify, or, with host, the " \
      "program's own server receives")                                                             \
    X(host, host, "URL", CONF_PATH, "none", 0, 0, true,                                            \
      "HTTP: how broadcasters reach the receiver, path and fragment allowed; none: made of bind")  \
    X(ca, ca, PATH, "none", 0, 0, true,                                                            \
      "TLS: trust the authorities of this PEM file instead of the system's")                       \
    X(cert, cert, PATH, "none", 0, 0, true, "TLS: PEM file of the client's certificate")           \
    X(key, key, PATH, "none", 0, 0, true, "TLS: PEM file of its private key")                      \
    X(receiver_cert, receiver_cert, PATH, "none", 0, 0, true,                                      \
      "HTTP: PEM file of the receiver's certificate, which then speaks HTTPS")                     \
    X(receiver_key, receiver_key, PATH, "none", 0, 0, true, "HTTP: PEM file of its private key")   \
    X(proxy, proxy, "URL", CONF_PROXY, "none", 0, 0, true,                                         \
      "Proxy on the way to broadcasters; the environment's are ignored")                           \
    X(spool_dir, spool_dir, PATH, "none", 0, 0, true,                                              \
      "Folder for large messages; none: $TMPDIR, or /tmp")                                         \
    X(tracing, tracing, PATH, "none", 0, 0, true, "SQLite file in which notifies are traced")      \
    X(message_body_spool_size, message_body_spool_size, SIZE, "10M", 0, MAX_BYTES, false,          \
      "HTTP: larger received messages go to a file")                                               \
    X(max_received, max_received, COUNT, "1024", 1, MAX_COUNT, false,                              \
      "Messages that wait in one subscription; then broadcasters are acknowledged no more")        \
    X(max_received_bytes, max_received_bytes, SIZE, "64M", 0, MAX_BYTES, false,                    \
      "Messages held in memory together; beyond it they go to files")                              \
    X(outgoing_retries_per_broadcaster, outgoing_retries_per_broadcaster, COUNT, "2", 1, 1000,     \
      false, "HTTP: passes over the broadcasters in all")                                          \
    X(outgoing_http_timeout_total, outgoing_http_timeout_total_ms, TIME_MS, "30s", 1, MAX_MS,      \
      true, "HTTP: a whole call")                                                                  \
    X(outgoing_http_timeout_connect, outgoing_http_timeout_connect_ms, TIME_MS, "none", 1, MAX_MS, \
      true, "HTTP: connecting, all attempts")                                                      \
    X(outgoing_http_timeout_sock_read, outgoing_http_timeout_sock_read_ms, TIME_MS, "none", 1,     \
      MAX_MS, true, "HTTP: no byte received or sent")                                              \
    X(outgoing_http_timeout_sock_connect, outgoing_http_timeout_sock_connect_ms, TIME_MS, "5s", 1, \
      MAX_MS, true, "HTTP: connecting, one attempt")                                               \
    X(outgoing_retry_ambiguous, outgoing_retry_ambiguous, YES_NO, "yes", 0, 0, false,              \
      "HTTP: try the next broadcaster when it is not known whether one has done it")               \
    X(resubscribe_interval, resubscribe_interval_ms, TIME_MS, "300s", 1, MAX_MS, false,            \
      "HTTP: compare what broadcasters have stored with what is wanted, and repair it")            \
    X(outgoing_initial_connect_retries, outgoing_initial_connect_retries, COUNT, "5", 0, 1000000,  \
      false, "Websocket, TCP: passes over the broadcasters after the first, before giving up")     \
    X(outgoing_reconnect_retries, outgoing_reconnect_retries, COUNT, "5", 0, 1000000, true,        \
      "The same once a connection has stood; none: never give up")                                 \
    X(outgoing_min_reconnect_interval, outgoing_min_reconnect_interval_ms, TIME_MS, "10s", 0,      \
      MAX_MS, false, "A connection that stood so long was good: its loss starts a new first pass") \
    X(max_websocket_message_size, max_websocket_message_size, SIZE, "1M", 4096, 16777216, true,    \
      "Websocket, TCP: largest frame sent; larger messages go out in parts. And larger received "  \
      "ones go to a file")                                                                         \
    X(max_frame, max_frame, SIZE, "16M", 262144, UINT32_MAX, false,                                \
      "Websocket, TCP: largest frame accepted")                                                    \
    X(websocket_open_timeout, websocket_open_timeout_ms, TIME_MS, "5s", 1, MAX_MS, true,           \
      "Websocket, TCP: to connect, and again until the broadcaster's first frame")                 \
    X(websocket_close_timeout, websocket_close_timeout_ms, TIME_MS, "5s", 1, MAX_MS, true,         \
      "For an orderly end")                                                                        \
    X(websocket_heartbeat_interval, websocket_heartbeat_interval_ms, TIME_MS, "10s", 1, MAX_MS,    \
      true, "Websocket: ping after so long a silence; dead when no pong comes in half of it")      \
    X(tcp_user_timeout, tcp_user_timeout_ms, TIME_MS, "40s", 1, MAX_MS, true,                      \
      "TCP: a broadcaster that vanished is noticed after so long")                                 \
    X(websocket_minimal_headers, websocket_minimal_headers, YES_NO, "yes", 0, 0, false,            \
      "Websocket, TCP: encoding of own frames")                                                    \
    X(check_confirmations, check_confirmations, YES_NO, "no", 0, 0, false,                         \
      "Websocket, TCP: also check the authorization of confirmations")                             \
    X(max_sent_notifications, max_sent_notifications, COUNT, "1024", 1, MAX_COUNT, true,           \
      "Websocket, TCP: notifies sent and not confirmed")                                           \
    X(max_unsent_notifications, max_unsent_notifications, COUNT, "1024", 1, MAX_COUNT, true,       \
      "Notifies that wait; one more is refused (queue full)")                                      \
    X(max_expected_acks, max_expected_acks, COUNT, "none", 1, MAX_COUNT, true,                     \
      "Websocket, TCP: frames of all kinds that wait for their answer")                            \
    X(max_unsent_acks, max_unsent_acks, COUNT, "1024", 1, MAX_COUNT, true,                         \
      "Websocket, TCP: acknowledgements kept back while max_received is reached; one more ends "   \
      "the connection")                                                                            \
    X(allow_compression, allow_compression, YES_NO, "yes", 0, 0, false,                            \
      "Websocket, TCP: willing to receive and send Zstandard bodies")                              \
    X(allow_training_compression, allow_training_compression, YES_NO, "yes", 0, 0, false,          \
      "Websocket, TCP: willing to receive dictionaries trained for this connection")               \
    X(initial_compression_dict_id, initial_compression_dict_id, COUNT, "none", 2, 65535, true,     \
      "Websocket, TCP: preset dictionary to ask for")                                              \
    X(decompression_max_window_size, decompression_max_window_size, SIZE, "8M", 0,                 \
      UINT64_C(1) << 31, false, "Largest window of received bodies; 0: the library's limit")

#define LIST_BROADCASTER "A broadcaster: URL, or URL PRIORITY (lower first); give it again for more"
#define LIST_DICTIONARY  "A preset dictionary: ID LEVEL PATH, ID from 2 to 65535; again for more"

static const struct lonely_client_option table[] = {
    { "broadcaster", "URL [PRIORITY]", NULL, LIST_BROADCASTER, true },
#define X(key, field, unit_and_type, ...)                  ROW(key, unit_and_type, __VA_ARGS__)
#define ROW(key, unit, type, def, min, max, none, meaning) { #key, unit, def, meaning, false },
    OPTIONS(X)
#undef X
#undef ROW
        { "dictionary", "ID LEVEL PATH", NULL, LIST_DICTIONARY, true },
};

static const struct conf_option values[] = {
#define X(key, field, unit_and_type, ...) ROW(key, field, unit_and_type, __VA_ARGS__)
#define ROW(key_, field_, unit, type_, def_, min_, max_, none_, meaning_) \
    {                                                                     \
        .key = #key_,                                                     \
        .type = type_,                                                    \
        .field = offsetof(struct client_conf, field_),                    \
        .def = def_,                                                      \
        .min = min_,                                                      \
        .max = max_,                                                      \
        .none = none_,                                                    \
        .choices = type_ == CONF_CHOICE ? "thread caller" : NULL,         \
        .meaning = meaning_,                                              \
    },
    OPTIONS(X)
#undef X
#undef ROW
};

#define VALUE_COUNT (sizeof(values) / sizeof(values[0]))

const struct lonely_client_option *lonely_client_option_table(size_t *count)
{
    *count = sizeof(table) / sizeof(table[0]);
    return table;
}

__attribute__((format(printf, 2, 3))) static void explain(struct lonely_client_why *why,
                                                          const char *format, ...)
{
    va_list args;

    if (why == NULL)
        return;
    va_start(args, format);
    vsnprintf(why->text, sizeof(why->text), format, args);
    va_end(args);
}

static void *field_of(struct client_conf *conf, const struct conf_option *o)
{
    return (char *)conf + o->field;
}

/* ---- The lists ---- */

static void list_add(struct conf_list *list, const char *text)
{
    list->items = mem_realloc(list->items, (list->count + 1) * sizeof(*list->items));
    list->items[list->count++] = mem_strdup(text);
}

static void list_fini(struct conf_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        mem_free(list->items[i]);
    mem_free(list->items);
    *list = (struct conf_list){ 0 };
}

static void list_copy(struct conf_list *to, const struct conf_list *from)
{
    *to = (struct conf_list){ 0 };
    for (size_t i = 0; i < from->count; i++)
        list_add(to, from->items[i]);
}

static bool parse_scheme(const char *url, enum client_scheme *out)
{
    static const char *const names[] = {
        [CLIENT_HTTP] = "http://", [CLIENT_HTTPS] = "https://", [CLIENT_WS] = "ws://",
        [CLIENT_WSS] = "wss://",   [CLIENT_TCP] = "tcp://",     [CLIENT_TCPS] = "tcps://",
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strncmp(url, names[i], strlen(names[i])) == 0 && url[strlen(names[i])] != '\0') {
            *out = (enum client_scheme)i;
            return true;
        }
    }
    return false;
}

static bool has_control_bytes(const char *url)
{
    for (; *url != '\0'; url++) {
        if ((unsigned char)*url <= ' ' || (unsigned char)*url >= 0x7f)
            return true;
    }
    return false;
}

static bool parse_priority(const char *text, int64_t *out)
{
    char *end;

    *out = CLIENT_NO_PRIORITY;
    if (*text == '\0')
        return true;
    *out = strtoll(text, &end, 10);
    return end != text && *end == '\0';
}

static bool parse_broadcaster(const char *text, struct client_broadcaster *out)
{
    size_t len = strcspn(text, " ");
    const char *rest = text + len;

    while (len > 0 && text[len - 1] == '/')
        len--;
    if (len > URL_MAX_BYTES)
        return false;
    out->url = mem_alloc(len + 1);
    memcpy(out->url, text, len);
    out->url[len] = '\0';
    if (parse_scheme(out->url, &out->scheme) && !has_control_bytes(out->url) &&
        strpbrk(out->url, "?#") == NULL && parse_priority(rest, &out->priority))
        return true;
    mem_free(out->url);
    return false;
}

static bool parse_dictionary(const char *text, struct client_dictionary *out)
{
    char *end;
    long level;

    out->id = strtoull(text, &end, 10);
    if (end == text || *end != ' ' || out->id < 2 || out->id > 65535)
        return false;
    text = end + 1;
    level = strtol(text, &end, 10);
    if (end == text || *end != ' ' || level < 1 || level > 22 || end[1] == '\0')
        return false;
    out->level = (int)level;
    out->path = mem_strdup(end + 1);
    return true;
}

static enum lonely_client_error set_broadcaster(struct client_conf *conf, const char *value,
                                                struct lonely_client_why *why)
{
    struct client_broadcaster b;

    if (!parse_broadcaster(value, &b)) {
        explain(why, "broadcaster: expected http(s)://, ws(s):// or tcp(s)://HOST[:PORT][/PATH], "
                     "perhaps a blank and a priority");
        return LONELY_CLIENT_ARGUMENT;
    }
    mem_free(b.url);
    list_add(&conf->broadcaster, value);
    return LONELY_CLIENT_OK;
}

static enum lonely_client_error set_dictionary(struct client_conf *conf, const char *value,
                                               struct lonely_client_why *why)
{
    struct client_dictionary d;

    if (!parse_dictionary(value, &d)) {
        explain(why, "dictionary: expected ID LEVEL PATH, ID from 2 to 65535, LEVEL from 1 to 22");
        return LONELY_CLIENT_ARGUMENT;
    }
    mem_free(d.path);
    list_add(&conf->dictionary, value);
    return LONELY_CLIENT_OK;
}

/* ---- Setting ---- */

static const struct conf_option *find(const char *name)
{
    for (size_t i = 0; i < VALUE_COUNT; i++) {
        if (strcmp(values[i].key, name) == 0)
            return &values[i];
    }
    return NULL;
}

enum lonely_client_error lonely_client_options_set(struct lonely_client_options *o,
                                                   const char *name, const char *value,
                                                   struct lonely_client_why *why)
{
    const struct conf_option *option = find(name);
    char expected[256];

    if (strcmp(name, "broadcaster") == 0)
        return set_broadcaster(&o->conf, value, why);
    if (strcmp(name, "dictionary") == 0)
        return set_dictionary(&o->conf, value, why);
    if (option == NULL) {
        explain(why, "there is no option %.64s", name);
        return LONELY_CLIENT_ARGUMENT;
    }
    if (conf_value_set(field_of(&o->conf, option), option, value, expected))
        return LONELY_CLIENT_OK;
    explain(why, "%s: %s", name, expected);
    return LONELY_CLIENT_ARGUMENT;
}

struct lonely_client_options *lonely_client_options_create(void)
{
    struct lonely_client_options *o = mem_try_calloc(1, sizeof(*o));
    char why[256];

    for (size_t i = 0; o != NULL && i < VALUE_COUNT; i++)
        conf_value_set(field_of(&o->conf, &values[i]), &values[i], values[i].def, why);
    return o;
}

void lonely_client_options_destroy(struct lonely_client_options *o)
{
    if (o == NULL)
        return;
    client_conf_fini(&o->conf);
    mem_free(o);
}

void lonely_client_options_set_tracer(struct lonely_client_options *o,
                                      const struct lonely_client_tracer *tracer)
{
    o->conf.tracer = *tracer;
    o->conf.has_tracer = true;
}

/* ---- As a whole ---- */

static bool is_string(const struct conf_option *o)
{
    return o->type == CONF_CHOICE || o->type == CONF_PATH || o->type == CONF_PROXY ||
           o->type == CONF_LISTEN;
}

static void copy(const struct client_conf *from, struct client_conf *to)
{
    *to = *from;
    list_copy(&to->broadcaster, &from->broadcaster);
    list_copy(&to->dictionary, &from->dictionary);
    for (size_t i = 0; i < VALUE_COUNT; i++) {
        char **field = field_of(to, &values[i]);

        if (is_string(&values[i]) && *field != NULL)
            *field = mem_strdup(*field);
    }
}

static void expand_lists(struct client_conf *conf)
{
    conf->broadcasters = mem_calloc(conf->broadcaster.count + 1, sizeof(*conf->broadcasters));
    for (size_t i = 0; i < conf->broadcaster.count; i++)
        parse_broadcaster(conf->broadcaster.items[i], &conf->broadcasters[i]);
    conf->broadcaster_count = conf->broadcaster.count;
    conf->dictionaries = mem_calloc(conf->dictionary.count + 1, sizeof(*conf->dictionaries));
    for (size_t i = 0; i < conf->dictionary.count; i++)
        parse_dictionary(conf->dictionary.items[i], &conf->dictionaries[i]);
    conf->dictionary_count = conf->dictionary.count;
}

/* How the process is reached must be a URL that broadcasters can use as it is. */
static const char *wrong_host(const char *host)
{
    enum client_scheme scheme;
    size_t len = strcspn(host, "#");

    if (!parse_scheme(host, &scheme) || !client_scheme_is_http(scheme) ||
        strlen(host) > URL_MAX_BYTES || has_control_bytes(host))
        return "host: expected http://HOST[:PORT][/PATH] or https://...";
    if (memchr(host, '?', len) != NULL)
        return "host: a query would break the paths below it";
    if (host[len - 1] == '/')
        return "host: without a slash at its end";
    return NULL;
}

static bool has_dictionary(const struct client_conf *conf, uint64_t id)
{
    for (size_t i = 0; i < conf->dictionary_count; i++) {
        if (conf->dictionaries[i].id == id)
            return true;
    }
    return false;
}

static const char *wrong_whole(const struct client_conf *conf)
{
    if (conf->broadcaster_count == 0)
        return "broadcaster: at least one is needed";
    for (size_t i = 1; i < conf->broadcaster_count; i++) {
        enum client_scheme a = conf->broadcasters[0].scheme, b = conf->broadcasters[i].scheme;

        if (a / 2 != b / 2)
            return "broadcaster: all of one client must be http(s), or ws(s), or tcp(s)";
    }
    if (conf->host != NULL && wrong_host(conf->host) != NULL)
        return wrong_host(conf->host);
    if ((conf->cert == NULL) != (conf->key == NULL))
        return "cert, key: one is of no use without the other";
    if ((conf->receiver_cert == NULL) != (conf->receiver_key == NULL))
        return "receiver_cert, receiver_key: one is of no use without the other";
    if (conf->initial_compression_dict_id != CONF_NONE &&
        !has_dictionary(conf, conf->initial_compression_dict_id))
        return "initial_compression_dict_id: no dictionary of that number is given";
    if (conf->tracing != NULL && conf->has_tracer)
        return "tracing: not beside a tracer of the program";
    return NULL;
}

bool client_conf_finish(const struct lonely_client_options *o, struct client_conf *out,
                        struct lonely_client_why *why)
{
    const char *wrong;

    copy(&o->conf, out);
    if (out->spool_dir == NULL) {
        const char *tmp = getenv("TMPDIR");

        out->spool_dir = mem_strdup(tmp != NULL && tmp[0] == '/' ? tmp : "/tmp");
    }
    expand_lists(out);
    wrong = wrong_whole(out);
    if (wrong == NULL)
        return true;
    explain(why, "%s", wrong);
    client_conf_fini(out);
    return false;
}

void client_conf_fini(struct client_conf *conf)
{
    for (size_t i = 0; i < VALUE_COUNT; i++)
        conf_value_clear(field_of(conf, &values[i]), &values[i]);
    list_fini(&conf->broadcaster);
    list_fini(&conf->dictionary);
    for (size_t i = 0; i < conf->broadcaster_count; i++)
        mem_free(conf->broadcasters[i].url);
    for (size_t i = 0; i < conf->dictionary_count; i++)
        mem_free(conf->dictionaries[i].path);
    mem_free(conf->broadcasters);
    mem_free(conf->dictionaries);
    *conf = (struct client_conf){ 0 };
}
