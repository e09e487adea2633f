/*
 * Points as they come, and the thread that writes (trace_file.h). Called by client.c; the rows are
 * trace_rows.c's.
 */
#include "trace_file.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include <lonely/tracing.h>

#include "mem.h"
#include "trace_rows.h"

#define KEPT_S          (90.0 * 86400)
#define DELETE_EACH_S   3600.0
#define MAX_QUEUED      4096 /* traces that wait for the disk */
#define MAX_POINTS      8192 /* of one trace */
#define NAME_MAX_BYTES  128
#define EXTRA_MAX_BYTES 4096

struct trace_file {
    struct trace_rows *rows; /* the thread's */
    const struct clock *clock;
    struct map traces; /* the loop's: of notifies under way */
    double deleted_at_s;
    uv_thread_t thread;
    uv_mutex_t lock;
    uv_cond_t changed;
    struct list queue; /* lock */
    size_t queued;     /* lock */
    bool closing;      /* lock */
};

/* ---- Writing ---- */

static void free_all(struct list *traces)
{
    struct list *node;

    while ((node = list_pop_front(traces)) != NULL)
        trace_free(list_entry(node, struct trace, node));
}

static void delete_old(struct trace_file *f)
{
    double now_s = clock_wall_s(f->clock);

    if (now_s - f->deleted_at_s < DELETE_EACH_S)
        return;
    f->deleted_at_s = now_s;
    trace_rows_delete_before(f->rows, now_s - KEPT_S);
}

/* Everything that is queued shares a commit. */
static void write_queue(void *arg)
{
    struct trace_file *f = arg;
    bool closing = false;

    while (!closing) {
        struct list due;

        list_init(&due);
        delete_old(f);
        uv_mutex_lock(&f->lock);
        while (f->queued == 0 && !f->closing)
            uv_cond_wait(&f->changed, &f->lock);
        list_move_all(&due, &f->queue);
        f->queued = 0;
        closing = f->closing;
        uv_mutex_unlock(&f->lock);
        if (!list_is_empty(&due))
            (void)trace_rows_add(f->rows, &due); /* dropped, where that fails */
        free_all(&due);
    }
}

static void enqueue(struct trace_file *f, struct trace *t)
{
    bool full;

    uv_mutex_lock(&f->lock);
    full = f->queued >= MAX_QUEUED;
    if (!full) {
        list_push_back(&f->queue, &t->node);
        f->queued++;
        uv_cond_signal(&f->changed);
    }
    uv_mutex_unlock(&f->lock);
    if (full)
        trace_free(t);
}

/* ---- Points ---- */

static struct trace *find(struct trace_file *f, uint64_t id)
{
    struct map_node *node = map_find(&f->traces, &id, sizeof(id));

    return node != NULL ? map_entry(node, struct trace, map) : NULL;
}

/* Takes `extra`. */
static void add(struct trace *t, const char *prefix, char *name, char *extra, double occurred_at_s,
                double raw_s)
{
    if (t->count == t->cap) {
        t->cap = t->cap == 0 ? 8 : 2 * t->cap;
        t->points = mem_realloc(t->points, t->cap * sizeof(*t->points));
    }
    t->points[t->count++] = (struct trace_point){ prefix, name, extra, occurred_at_s, raw_s };
}

__attribute__((format(printf, 4, 5))) static void
add_local(struct trace_file *f, uint64_t id, const char *name, const char *extra_format, ...)
{
    struct trace *t = find(f, id);
    double now_s = clock_wall_s(f->clock);
    char extra[EXTRA_MAX_BYTES];
    va_list args;

    if (t == NULL || t->count >= MAX_POINTS)
        return;
    va_start(args, extra_format);
    vsnprintf(extra, sizeof(extra), extra_format, args);
    va_end(args);
    add(t, "", mem_strdup(name), mem_strdup(extra), now_s, now_s);
}

/* A peer's text, at most so much of it: printable ASCII. */
static char *copy_text(struct lonely_span text, size_t max)
{
    size_t len = text.len < max ? text.len : max;
    char *copy = mem_alloc(len + 1);

    for (size_t i = 0; i < len; i++)
        copy[i] = text.ptr[i] >= 0x20 && text.ptr[i] < 0x7f ? (char)text.ptr[i] : '?';
    copy[len] = '\0';
    return copy;
}

/*
 * How far the broadcaster's clock is ahead of ours, by Cristian's algorithm: the way there and the way
 * back are taken to be equally long, and together what the exchange took for us without what it took
 * there. (doc/protocol/tracing.md, T3)
 */
static double offset_of(const struct trace *t, const struct lonely_tracing *theirs)
{
    double received_s = (double)theirs->received_ns / 1e9;
    double spent_there_s = theirs->sent_ns > theirs->received_ns
                               ? (double)(theirs->sent_ns - theirs->received_ns) / 1e9
                               : 0;
    double round_trip_s = t->answered_at_s - t->sent_at_s - spent_there_s;
    double one_way_s = round_trip_s > 0 ? round_trip_s / 2 : 0;

    return received_s - (t->sent_at_s + one_way_s);
}

/* Of whatever a broadcaster sends, as much as makes sense. */
static void add_remote(struct trace *t, struct lonely_span tracing)
{
    struct lonely_tracing theirs;
    struct lonely_tracing_entry entry;
    double offset_s;

    if (lonely_tracing_parse(tracing, &theirs).err != LONELY_OK)
        return;
    offset_s = offset_of(t, &theirs);
    while (t->count < MAX_POINTS && lonely_tracing_next(&theirs, &entry)) {
        if (!isfinite(entry.occurred_s))
            continue;
        add(t, "remote_", copy_text(entry.name, NAME_MAX_BYTES),
            entry.extra.len <= EXTRA_MAX_BYTES ? copy_text(entry.extra, EXTRA_MAX_BYTES)
                                               : mem_strdup("{}"),
            entry.occurred_s - offset_s, entry.occurred_s);
    }
}

/* ---- The tracer ---- */

static void on_start(void *arg, uint64_t id, struct lonely_span topic, uint64_t size,
                     bool from_file, bool hash_known)
{
    struct trace_file *f = arg;
    struct trace *t = mem_calloc(1, sizeof(*t));
    uint8_t random[16] = { 0 };

    (void)from_file;
    t->id = id;
    list_init(&t->node);
    (void)uv_random(NULL, NULL, random, sizeof(random), 0, NULL); /* a double is dropped */
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(t->uid + 2 * i, 3, "%02x", random[i]);
    t->topic = mem_dup(topic.ptr, topic.len);
    t->topic_len = topic.len;
    t->length = size;
    t->created_at_s = clock_wall_s(f->clock);
    map_insert(&f->traces, &t->map, &t->id, sizeof(t->id));
    add_local(f, id, hash_known ? "start_with_hash" : "start_without_hash", "{}");
}

static void on_hashed(void *arg, uint64_t id)
{
    add_local(arg, id, "hashed", "{}");
}

static size_t on_sending(void *arg, uint64_t id, const char *broadcaster,
                         struct lonely_span identifier, uint8_t *to, size_t cap)
{
    struct trace_file *f = arg;
    struct trace *t = find(f, id);
    char shown[2048];

    (void)identifier, (void)to, (void)cap;
    snprintf(shown, sizeof(shown), "%s", broadcaster);
    for (char *c = shown; *c != '\0';
         c++) { /* what else JSON minds is in no URL that was accepted */
        if (*c == '"' || *c == '\\')
            *c = '?';
    }
    add_local(f, id, "sending_request", "{\"broadcaster\": \"%s\"}", shown);
    if (t != NULL)
        t->sent_at_s = clock_wall_s(f->clock);
    return 0;
}

static void on_network_error(void *arg, uint64_t id)
{
    add_local(arg, id, "network_error", "{}");
}

static void on_response(void *arg, uint64_t id, int http_status)
{
    struct trace_file *f = arg;
    struct trace *t = find(f, id);

    if (http_status != 0)
        add_local(f, id, "response_received", "{\"status_code\": %d}", http_status);
    else
        add_local(f, id, "response_received", "{}");
    if (t != NULL)
        t->answered_at_s = clock_wall_s(f->clock);
}

static void on_bad_response(void *arg, uint64_t id)
{
    add_local(arg, id, "bad_response", "{}");
}

static void on_bad_authorization(void *arg, uint64_t id, const char *result)
{
    add_local(arg, id, "bad_auth_result", "{\"result\": \"%s\"}", result);
}

static void on_accepted(void *arg, uint64_t id, struct lonely_span tracing, uint64_t notified)
{
    struct trace *t = find(arg, id);

    (void)notified;
    if (t != NULL)
        add_remote(t, tracing);
}

static void on_waiting(void *arg, uint64_t id)
{
    add_local(arg, id, "waiting_to_retry", "{}");
}

static void on_retrying(void *arg, uint64_t id)
{
    add_local(arg, id, "retrying", "{}");
}

static void on_end(void *arg, uint64_t id, enum lonely_client_error err)
{
    struct trace_file *f = arg;
    struct trace *t = find(f, id);

    if (t == NULL)
        return;
    if (err == LONELY_CLIENT_RETRIES_EXHAUSTED || err == LONELY_CLIENT_UNREACHABLE)
        add_local(f, id, "retries_exhausted", "{}");
    else if (err != LONELY_CLIENT_OK)
        add_local(f, id, "retry_prevented", "{}");
    map_remove(&f->traces, &t->map);
    t->finished_at_s = clock_wall_s(f->clock);
    enqueue(f, t);
}

void trace_file_tracer(struct trace_file *f, struct lonely_client_tracer *out)
{
    *out = (struct lonely_client_tracer){
        .arg = f,
        .start = on_start,
        .hashed = on_hashed,
        .sending = on_sending,
        .network_error = on_network_error,
        .response_received = on_response,
        .bad_response = on_bad_response,
        .bad_authorization = on_bad_authorization,
        .accepted = on_accepted,
        .waiting_to_retry = on_waiting,
        .retrying = on_retrying,
        .end = on_end,
    };
}

/* ---- Life ---- */

struct trace_file *trace_file_open(const char *path, const struct clock *clock,
                                   struct lonely_client_why *why)
{
    struct trace_rows *rows = trace_rows_open(path, why);
    struct trace_file *f;

    if (rows == NULL)
        return NULL;
    f = mem_calloc(1, sizeof(*f));
    f->rows = rows;
    f->clock = clock;
    map_init(&f->traces);
    list_init(&f->queue);
    uv_mutex_init(&f->lock);
    uv_cond_init(&f->changed);
    if (uv_thread_create(&f->thread, write_queue, f) == 0)
        return f;
    snprintf(why->text, sizeof(why->text), "tracing: cannot start a thread");
    trace_rows_close(rows);
    mem_free(f);
    return NULL;
}

void trace_file_close(struct trace_file *f)
{
    if (f == NULL)
        return;
    uv_mutex_lock(&f->lock);
    f->closing = true;
    uv_cond_signal(&f->changed);
    uv_mutex_unlock(&f->lock);
    uv_thread_join(&f->thread);
    for (struct map_node *node = map_first(&f->traces), *next; node != NULL; node = next) {
        next = map_next(&f->traces, node);
        trace_free(map_entry(node, struct trace, map));
    }
    map_fini(&f->traces);
    trace_rows_close(f->rows);
    uv_cond_destroy(&f->changed);
    uv_mutex_destroy(&f->lock);
    mem_free(f);
}
