/*
 * The table of metrics and their text (metrics.h). The counts are kept where things happen; admin.c asks
 * for the text.
 */
#include "metrics.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

/* Upper bounds of the buckets, as numbers and as text. */
static const struct bound {
    uint64_t ns;
    const char *le;
} bounds[METRICS_BUCKETS] = {
    { 50000, "0.00005" },  { 100000, "0.0001" },  { 250000, "0.00025" }, { 500000, "0.0005" },
    { 1000000, "0.001" },  { 2500000, "0.0025" }, { 5000000, "0.005" },  { 10000000, "0.01" },
    { 25000000, "0.025" }, { 50000000, "0.05" },  { 100000000, "0.1" },  { 250000000, "0.25" },
    { 500000000, "0.5" },  { 1000000000, "1" },   { 2500000000, "2.5" }, { 5000000000, "5" },
    { 10000000000, "10" },
};

/* A label and all its values. */
struct label {
    const char *name; /* NULL: no label, one value */
    const char *const *values;
    size_t count;
};

#define X(name, text) text,
static const char *const route_values[] = { METRICS_ROUTES(X) };
static const char *const status_values[] = { METRICS_STATUSES(X) };
static const char *const reason_values[] = { METRICS_REASONS(X) };
static const char *const notify_values[] = { METRICS_NOTIFIES(X) };
static const char *const delivery_values[] = { METRICS_DELIVERIES(X) };
static const char *const missed_values[] = { METRICS_MISSED(X) };
static const char *const store_values[] = { METRICS_STORE_OPS(X) };
static const char *const transport_values[] = { METRICS_TRANSPORTS(X) };
static const char *const direction_values[] = { METRICS_DIRECTIONS(X) };
static const char *const dictionary_values[] = { METRICS_DICTIONARIES(X) };
#undef X
#define X(name, text, code) text,
static const char *const session_end_values[] = { METRICS_SESSION_ENDS(X) };
#undef X

#define LABEL(n, v)                                                 \
    {                                                               \
        .name = n, .values = v, .count = sizeof(v) / sizeof((v)[0]) \
    }

#define KNOWN_ROUTES                                                            \
    {                                                                           \
        .name = "route", .values = route_values, .count = METRICS_ROUTE_UNKNOWN \
    }

enum metric_type { COUNTER, GAUGE, HISTOGRAM };
static const char *const type_names[] = { "counter", "gauge", "histogram" };

/* One row a metric: the cells at `offset`, the values of the second label running fastest. */
static const struct metric {
    const char *name;
    enum metric_type type;
    size_t offset; /* in struct metrics */
    const char *help;
    struct label labels[2];
} table[] = {
#define METRIC(n, t, f) .name = "lonelypss_" n, .type = t, .offset = offsetof(struct metrics, f)
    { METRIC("http_requests_total", COUNTER, requests),
      .help = "Requests answered, by route and status.",
      .labels = { LABEL("route", route_values), LABEL("status", status_values) } },
    { METRIC("http_request_duration_seconds", HISTOGRAM, request_time),
      .help = "From the complete head of a request to its answer.", .labels = { KNOWN_ROUTES } },
    { METRIC("http_requests_aborted_total", COUNTER, aborted),
      .help = "Requests whose body never became complete.", .labels = { KNOWN_ROUTES } },
    { METRIC("rejected_total", COUNTER, rejected),
      .help = "Requests and connections turned away, by reason.",
      .labels = { LABEL("reason", reason_values) } },
    { METRIC("connections", GAUGE, connections),
      .help = "Connections open to the public listeners." },
    { METRIC("notifies_total", COUNTER, notifies),
      .help = "Notifies whose message came whole, by outcome.",
      .labels = { LABEL("outcome", notify_values) } },
    { METRIC("message_received_bytes_total", COUNTER, message_bytes),
      .help = "Bytes of messages in notifies, complete or not." },
    { METRIC("deliveries_total", COUNTER, deliveries),
      .help = "Messages posted to one subscription, by outcome.",
      .labels = { LABEL("outcome", delivery_values) } },
    { METRIC("delivery_duration_seconds", HISTOGRAM, delivery_time),
      .help = "From the queueing of a delivery to its end." },
    { METRIC("outbox_running", GAUGE, outbox_running), .help = "Outgoing posts under way." },
    { METRIC("outbox_queued", GAUGE, outbox_queued), .help = "Outgoing posts that wait." },
    { METRIC("sessions", GAUGE, sessions), .help = "Sessions open, by transport.",
      .labels = { LABEL("transport", transport_values) } },
    { METRIC("sessions_opened_total", COUNTER, sessions_opened),
      .help = "Sessions opened, by transport.",
      .labels = { LABEL("transport", transport_values) } },
    { METRIC("sessions_ended_total", COUNTER, session_ends), .help = "Sessions ended, by reason.",
      .labels = { LABEL("reason", session_end_values) } },
    { METRIC("session_frames_total", COUNTER, session_frames),
      .help = "Frames of sessions, by transport and direction.",
      .labels = { LABEL("transport", transport_values), LABEL("direction", direction_values) } },
    { METRIC("session_bytes_total", COUNTER, session_bytes),
      .help = "Bytes of these frames, without what carries them.",
      .labels = { LABEL("transport", transport_values), LABEL("direction", direction_values) } },
    { METRIC("session_messages_total", COUNTER, session_messages),
      .help = "Messages sent to sessions, or begun." },
    { METRIC("session_compressed_messages_total", COUNTER, compressed_messages),
      .help = "Messages decompressed (in), and compressed forms made (out), each once a worker.",
      .labels = { LABEL("direction", direction_values) } },
    { METRIC("session_compressed_bytes_total", COUNTER, compressed_bytes),
      .help = "Their bytes, compressed.", .labels = { LABEL("direction", direction_values) } },
    { METRIC("session_uncompressed_bytes_total", COUNTER, uncompressed_bytes),
      .help = "Their bytes, not compressed.", .labels = { LABEL("direction", direction_values) } },
    { METRIC("session_dictionaries_total", COUNTER, dictionaries),
      .help = "Dictionaries trained for one session, by outcome.",
      .labels = { LABEL("outcome", dictionary_values) } },
    { METRIC("missed_scheduled_total", COUNTER, missed_scheduled),
      .help = "Failed deliveries noted for a MISSED." },
    { METRIC("missed_sent_total", COUNTER, missed_sent), .help = "MISSED posts begun." },
    { METRIC("missed_results_total", COUNTER, missed), .help = "MISSED posts ended, by outcome.",
      .labels = { LABEL("outcome", missed_values) } },
    { METRIC("missed_running", GAUGE, missed_running),
      .help = "MISSED calls under way: queued, posted, or being noted in the store." },
    { METRIC("store_duration_seconds", HISTOGRAM, store_time),
      .help = "From a call of the store to its answer, by operation.",
      .labels = { LABEL("operation", store_values) } },
    { METRIC("store_failures_total", COUNTER, store_failures),
      .help = "Calls that the store could not answer, by operation.",
      .labels = { LABEL("operation", store_values) } },
    { METRIC("store_pending", GAUGE, store_pending),
      .help = "Calls of the store that wait for their answer, by operation.",
      .labels = { LABEL("operation", store_values) } },
#undef METRIC
};

#define TABLE_COUNT (sizeof table / sizeof table[0])

void metrics_observe(struct metrics_histogram *h, uint64_t ns)
{
    size_t i = 0;

    while (i < METRICS_BUCKETS && ns > bounds[i].ns)
        i++;
    metrics_add(&h->buckets[i], 1);
    metrics_add(&h->sum_ns, ns);
}

enum metrics_status metrics_status_of(int status)
{
    static const int numbers[METRICS_STATUS_OTHER] = { 101, 200, 400, 401, 403, 404,
                                                       405, 409, 413, 500, 503, 507 };
    int i = 0;

    while (i < METRICS_STATUS_OTHER && numbers[i] != status)
        i++;
    return (enum metrics_status)i;
}

enum metrics_reason metrics_reason_of(int status)
{
    static const struct {
        int status;
        enum metrics_reason reason;
    } reasons[] = {
        { 400, METRICS_REASON_MALFORMED },      { 401, METRICS_REASON_UNAUTHORIZED },
        { 403, METRICS_REASON_UNAUTHORIZED },   { 404, METRICS_REASON_NOT_FOUND },
        { 405, METRICS_REASON_NOT_FOUND },      { 408, METRICS_REASON_TOO_SLOW },
        { 409, METRICS_REASON_NONE }, /* a good request; the answer is how things are */
        { 413, METRICS_REASON_TOO_LARGE },      { 414, METRICS_REASON_HEAD_TOO_LARGE },
        { 431, METRICS_REASON_HEAD_TOO_LARGE }, { 503, METRICS_REASON_UNAVAILABLE },
        { 507, METRICS_REASON_NO_SPACE },
    };

    if (status < 400)
        return METRICS_REASON_NONE;
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return METRICS_REASON_OTHER;
}

enum metrics_delivery metrics_delivery_of(enum http_call_status status)
{
    switch (status) {
    case HTTP_CALL_REPLIED:
        return METRICS_DELIVERY_UNCONFIRMED;
    case HTTP_CALL_URL:
        return METRICS_DELIVERY_URL;
    case HTTP_CALL_CONNECT:
        return METRICS_DELIVERY_CONNECT;
    case HTTP_CALL_TLS:
        return METRICS_DELIVERY_TLS;
    case HTTP_CALL_TIMEOUT:
        return METRICS_DELIVERY_TIMEOUT;
    case HTTP_CALL_REPLY_SIZE:
        return METRICS_DELIVERY_REPLY_SIZE;
    case HTTP_CALL_BROKEN:
        return METRICS_DELIVERY_BROKEN;
    case HTTP_CALL_CANCELLED:
        return METRICS_DELIVERY_CANCELLED;
    }
    return METRICS_DELIVERY_BROKEN;
}

const char *metrics_session_end_str(enum metrics_session_end reason)
{
    return session_end_values[reason];
}

/* ---- The text ---- */

struct printing {
    FILE *out;
    const struct metrics *const *threads;
    size_t count;
};

static uint64_t sum(const struct printing *p, size_t offset)
{
    uint64_t total = 0;

    for (size_t i = 0; i < p->count; i++) {
        const struct metrics_cell *cell = (const void *)((const char *)p->threads[i] + offset);

        total += atomic_load_explicit(&cell->value, memory_order_relaxed);
    }
    return total;
}

/* A label's value between quotes; any bytes. */
static void print_quoted(FILE *out, const char *value)
{
    fputc('"', out);
    for (const char *at = value; *at != '\0'; at++) {
        if (*at == '\\' || *at == '"')
            fputc('\\', out);
        fputs(*at == '\n' ? "\\n" : (const char[2]){ *at }, out);
    }
    fputc('"', out);
}

static void print_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* "{route="...",le="..."}", or nothing. `le` NULL: none. */
static void print_labels(FILE *out, const struct metric *m, size_t first, size_t second,
                         const char *le)
{
    const size_t at[2] = { first, second };
    const char *before = "{";

    for (int i = 0; i < 2 && m->labels[i].name != NULL; i++) {
        fprintf(out, "%s%s=", before, m->labels[i].name);
        print_quoted(out, m->labels[i].values[at[i]]);
        before = ",";
    }
    if (le != NULL) {
        fprintf(out, "%sle=\"%s\"", before, le);
        before = ",";
    }
    if (before[0] == ',')
        fputc('}', out);
}

static void print_histogram(const struct printing *p, const struct metric *m, size_t first)
{
    size_t at = m->offset + first * sizeof(struct metrics_histogram);
    uint64_t below = 0, sum_ns;

    for (size_t i = 0; i <= METRICS_BUCKETS; i++) {
        below += sum(p, at + offsetof(struct metrics_histogram, buckets) +
                            i * sizeof(struct metrics_cell));
        fprintf(p->out, "%s_bucket", m->name);
        print_labels(p->out, m, first, 0, i < METRICS_BUCKETS ? bounds[i].le : "+Inf");
        fprintf(p->out, " %" PRIu64 "\n", below);
    }
    sum_ns = sum(p, at + offsetof(struct metrics_histogram, sum_ns));
    fprintf(p->out, "%s_sum", m->name);
    print_labels(p->out, m, first, 0, NULL);
    fprintf(p->out, " %" PRIu64 ".%09" PRIu64 "\n%s_count", sum_ns / 1000000000,
            sum_ns % 1000000000, m->name);
    print_labels(p->out, m, first, 0, NULL);
    fprintf(p->out, " %" PRIu64 "\n", below);
}

static size_t values_of(const struct label *label)
{
    return label->name == NULL ? 1 : label->count;
}

static void print_metric(const struct printing *p, const struct metric *m)
{
    size_t firsts = values_of(&m->labels[0]), seconds = values_of(&m->labels[1]);

    print_head(p->out, m->name, type_names[m->type], m->help);
    for (size_t i = 0; i < firsts * seconds; i++) {
        if (m->type == HISTOGRAM) {
            print_histogram(p, m, i);
            continue;
        }
        fputs(m->name, p->out);
        print_labels(p->out, m, i / seconds, i % seconds, NULL);
        fprintf(p->out, " %" PRIu64 "\n", sum(p, m->offset + i * sizeof(struct metrics_cell)));
    }
}

static void print_gauge(FILE *out, const char *name, const char *help, uint64_t value)
{
    print_head(out, name, "gauge", help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

static void print_process(FILE *out, const struct metrics_process *process)
{
    static const char subscriptions[] = "lonelypss_subscriptions";

    print_head(out, subscriptions, "gauge", "Subscriptions in the index, by kind.");
    fprintf(out, "%s{kind=\"exact\"} %" PRIu64 "\n%s{kind=\"glob\"} %" PRIu64 "\n", subscriptions,
            process->index.exacts, subscriptions, process->index.globs);
    print_gauge(out, "lonelypss_subscriber_urls", "Different URLs in the index, recovery included.",
                process->index.urls);
    print_gauge(out, "lonelypss_index_bytes", "About what the index occupies.",
                process->index.bytes);
    print_gauge(out, "lonelypss_body_memory_bytes", "Bodies held in memory.", process->body_bytes);
    print_gauge(out, "lonelypss_workers", "Loops, one thread each.", process->workers);
    print_head(out, "lonelypss_start_time_seconds", "gauge",
               "When the broadcaster started, in seconds since 1970.");
    fprintf(out, "lonelypss_start_time_seconds %.3f\n", process->started_s);
    print_head(out, "lonelypss_build_info", "gauge", "Always 1; the version is in the label.");
    fputs("lonelypss_build_info{version=", out);
    print_quoted(out, process->version);
    fputs("} 1\n", out);
}

void metrics_print(FILE *out, const struct metrics *const *threads, size_t count,
                   const struct metrics_process *process)
{
    const struct printing p = { out, threads, count };

    for (size_t i = 0; i < TABLE_COUNT; i++)
        print_metric(&p, &table[i]);
    print_process(out, process);
}
