/*
 * Every broadcaster scenario of http.jsonl, and the calls of the sweep, against the daemon's own code: a
 * broadcaster with the clock of the vectors and their randomness, on a SQLite file of its own. What it
 * posts goes to a scripted subscriber instead of the network, its websocket clients only count.
 * (tests/vectors/README.md)
 *
 * Linked with --wrap: outbox_add is the subscriber, worker_random and gate_create hand out the identifiers
 * and nonces that the vectors show, gate_asks and gate_check make authorization unavailable where a scenario says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <lonely/etag.h>
#include <lonely/stateless.h>

#include "base64.h"
#include "broadcaster.h"
#include "forwarding.h"
#include "mem.h"
#include "outbox.h"
#include "receivers.h"
#include "secrets.h"
#include "tables.h"
#include "vectors.h"
#include "worker.h"

/* As many as there are: none is skipped unseen. */
enum { SCENARIOS = 22, STEPS = 276, MISSED_CALLS = 9 };

static size_t steps_run;

/* ---- The clock ---- */

static double now_s;

static int64_t wall_ns(void *arg)
{
    (void)arg;
    return (int64_t)(now_s * 1e9);
}

static uint64_t mono_ms(void *arg)
{
    (void)arg;
    return clock_mono_ms(&clock_system);
}

static uint64_t mono_ns(void *arg)
{
    (void)arg;
    return clock_mono_ns(&clock_system);
}

static const struct clock fixed_clock = { wall_ns, mono_ms, mono_ns, NULL };

/* ---- What is scripted of the present step ----
 * Written between requests, while the worker has nothing to do, and read by it during them. */

enum { DRAWS_MAX = 8, CALLS_MAX = 8 };

static struct {
    json_t *calls; /* an array, or NULL */
    bool made[CALLS_MAX];
    size_t unplanned, wrong;
    char what[256];                    /* about the first of these */
    uint8_t identifiers[DRAWS_MAX][8]; /* to be drawn */
    uint8_t nonces[DRAWS_MAX][4];
    size_t n_identifiers, n_nonces, identifiers_drawn, nonces_drawn;
    bool unavailable_to_broadcaster, unavailable_to_subscriber;
    json_t *missed;  /* the call of a sweep, or NULL */
    uv_sem_t called; /* it was made */
} script;

static void script_reset(void)
{
    script.calls = NULL;
    memset(script.made, 0, sizeof(script.made));
    script.unplanned = script.wrong = 0;
    script.n_identifiers = script.n_nonces = 0;
    script.identifiers_drawn = script.nonces_drawn = 0;
}

static void complain(size_t *count, const char *what, const char *about)
{
    if (script.wrong + script.unplanned == 0)
        snprintf(script.what, sizeof(script.what), "%s: %s", what, about);
    ++*count;
}

/* ---- Randomness ---- */

void __wrap_worker_random(struct worker *w, uint8_t *to, size_t len);
void __wrap_worker_random(struct worker *w, uint8_t *to, size_t len)
{
    (void)w;
    memset(to, 0, len);
    if (len == 8 && script.identifiers_drawn < script.n_identifiers)
        memcpy(to, script.identifiers[script.identifiers_drawn++], len);
    else if (len == 4 && script.nonces_drawn < script.n_nonces)
        memcpy(to, script.nonces[script.nonces_drawn++], len);
}

static void draw(void *arg, uint8_t *to, size_t len)
{
    __wrap_worker_random(arg, to, len);
}

/* Nonces are drawn within worker.c, where worker_random cannot be replaced. */
struct gate *__real_gate_create(const struct gate_conf *conf);
struct gate *__wrap_gate_create(const struct gate_conf *conf);
struct gate *__wrap_gate_create(const struct gate_conf *conf)
{
    struct gate_conf scripted = *conf;

    scripted.random = draw;
    return __real_gate_create(&scripted);
}

/* The next nonce is that of `authorization`; under other schemes none is drawn. */
static void plan_nonce(const char *authorization)
{
    const char *nonce;

    if (authorization == NULL || strncmp(authorization, "X-HMAC ", 7) != 0)
        return;
    nonce = strchr(authorization, ':') + 1;
    assert_true(script.n_nonces < DRAWS_MAX);
    assert_int_equal(
        base64_decode_lenient((struct lonely_span){ (const uint8_t *)nonce, strcspn(nonce, ":") },
                              script.nonces[script.n_nonces++], 4),
        4);
}

static const char *text_of(const json_t *object, const char *key)
{
    return object != NULL ? json_string_value(json_object_get(object, key)) : NULL;
}

/* ---- Authorization that cannot be checked ---- */

static bool is_unavailable(bool as_subscriber)
{
    return as_subscriber ? script.unavailable_to_subscriber : script.unavailable_to_broadcaster;
}

bool __real_gate_asks(struct gate *g, bool as_subscriber);
bool __wrap_gate_asks(struct gate *g, bool as_subscriber);
bool __wrap_gate_asks(struct gate *g, bool as_subscriber)
{
    return is_unavailable(as_subscriber) || __real_gate_asks(g, as_subscriber);
}

enum lonely_auth_result __real_gate_check(struct gate *g, const struct lonely_auth_input *in,
                                          const struct lonely_span *authorization,
                                          struct gate_wait **wait, gate_done_fn *done, void *arg);
enum lonely_auth_result __wrap_gate_check(struct gate *g, const struct lonely_auth_input *in,
                                          const struct lonely_span *authorization,
                                          struct gate_wait **wait, gate_done_fn *done, void *arg);
enum lonely_auth_result __wrap_gate_check(struct gate *g, const struct lonely_auth_input *in,
                                          const struct lonely_span *authorization,
                                          struct gate_wait **wait, gate_done_fn *done, void *arg)
{
    *wait = NULL;
    if (is_unavailable(in->op == LONELY_AUTH_RECEIVE || in->op == LONELY_AUTH_MISSED))
        return LONELY_AUTH_UNAVAILABLE;
    return __real_gate_check(g, in, authorization, wait, done, arg);
}

/* ---- The store that is down ---- */

struct later {
    uv_timer_t timer;
    void (*run)(struct later *l);
    store_done_fn *done;
    store_etag_fn *etag;
    void *arg;
    struct outbox_post *post;
    struct vec_bytes reply;
    int http_status;
};

static uv_loop_t *worker_loop;

static void on_later_closed(uv_handle_t *handle)
{
    mem_free(handle->data);
}

static void on_later(uv_timer_t *timer)
{
    struct later *l = timer->data;

    l->run(l);
    uv_close((uv_handle_t *)timer, on_later_closed);
}

/* Runs in a turn of its own, as the contracts promise. */
static struct later *later(void (*run)(struct later *l))
{
    struct later *l = mem_calloc(1, sizeof(*l));

    l->run = run;
    uv_timer_init(worker_loop, &l->timer);
    l->timer.data = l;
    uv_timer_start(&l->timer, on_later, 0, 0);
    return l;
}

static void say_unavailable(struct later *l)
{
    if (l->etag != NULL)
        l->etag(l->arg, STORE_UNAVAILABLE, NULL);
    else
        l->done(l->arg, STORE_UNAVAILABLE);
}

static enum store_status down_sync(struct store_client *c, store_done_fn *done, void *arg)
{
    (void)c, (void)done, (void)arg;
    return STORE_UNAVAILABLE;
}

static void down_write(struct store_client *c, const struct store_row *row, store_done_fn *done,
                       void *arg)
{
    struct later *l = later(say_unavailable);

    (void)c, (void)row;
    l->done = done;
    l->arg = arg;
}

static void down_set(struct store_client *c, struct lonely_span url, const struct store_list *list,
                     store_done_fn *done, void *arg)
{
    (void)url, (void)list;
    down_write(c, NULL, done, arg);
}

static void down_check(struct store_client *c, struct lonely_span url, store_etag_fn *done,
                       void *arg)
{
    struct later *l = later(say_unavailable);

    (void)c, (void)url;
    l->etag = done;
    l->arg = arg;
}

/* ---- The scripted subscriber ---- */

static void reply_to_post(struct later *l)
{
    const struct http_reply reply = {
        .status = l->reply.ptr != NULL ? HTTP_CALL_REPLIED : HTTP_CALL_CONNECT,
        .http_status = l->http_status,
        .body = { l->reply.ptr, l->reply.len },
        .detail = "scripted",
    };
    struct vec_bytes bytes = l->reply;

    l->post->ops->done(l->post, &reply);
    if (bytes.ptr != NULL)
        vec_bytes_free(&bytes);
}

/* The whole body that is posted, on the heap. */
static struct lonely_span body_of(const struct http_call_request *request)
{
    uint64_t rest = request->source != NULL ? request->source->size : 0;
    uint8_t *body = mem_alloc(request->prefix.len + rest);
    size_t at = request->prefix.len;

    memcpy(body, request->prefix.ptr, at);
    while (at < request->prefix.len + rest) {
        ptrdiff_t n = request->source->read(request->source->arg, at - request->prefix.len,
                                            body + at, request->prefix.len + rest - at);
        table_require(n > 0, "a body in memory");
        at += (size_t)n;
    }
    return (struct lonely_span){ body, at };
}

/* Are they these, but for Content-Length, which is libcurl's? */
static bool headers_are(const struct http_call_request *request, json_t *headers)
{
    size_t found = 0, expected = json_object_size(headers) -
                                 (json_object_get(headers, "Content-Length") != NULL ? 1 : 0);
    const char *name;
    json_t *value;

    json_object_foreach(headers, name, value)
    {
        char line[512];

        snprintf(line, sizeof(line), "%s: %s", name, json_string_value(value));
        for (size_t i = 0; i < request->header_count; i++)
            found += strcmp(request->headers[i], line) == 0;
    }
    return found == expected && request->header_count == expected;
}

/* The planned call to that url which has not been made. */
static json_t *planned_call(const char *url)
{
    for (size_t i = 0; i < json_array_size(script.calls); i++) {
        json_t *call = json_array_get(script.calls, i);

        if (!script.made[i] && strcmp(vec_str(call, "url"), url) == 0) {
            script.made[i] = true;
            return call;
        }
    }
    return NULL;
}

/* Identifiers were drawn in the order of the calls; when another url got this one, the reply echoes it. */
static void echo(struct vec_bytes *reply, json_t *call, struct lonely_span body)
{
    struct vec_bytes planned = vec_get_bytes(vec_get(call, "decoded"), "identifier_hex");
    struct lonely_stateless fields;

    if (lonely_stateless_parse(LONELY_STATELESS_RECEIVE, body, &fields).err != LONELY_OK ||
        fields.identifier.len != planned.len)
        complain(&script.wrong, "identifier", vec_str(call, "url"));
    else
        for (size_t i = 0; i + planned.len <= reply->len; i++)
            if (memcmp(reply->ptr + i, planned.ptr, planned.len) == 0)
                memcpy(reply->ptr + i, fields.identifier.ptr, planned.len);
    vec_bytes_free(&planned);
}

static bool body_is(json_t *call, struct lonely_span body)
{
    struct vec_bytes wanted = vec_get_bytes(call, "body_hex");
    struct vec_bytes own = vec_get_bytes(call, "body_hex");
    struct lonely_stateless a = { 0 }, b = { 0 };
    bool same;

    /* The same but for the identifier. */
    same = wanted.len == body.len &&
           lonely_stateless_parse(LONELY_STATELESS_RECEIVE, vec_span(&own), &a).err == LONELY_OK &&
           lonely_stateless_parse(LONELY_STATELESS_RECEIVE, body, &b).err == LONELY_OK &&
           a.identifier.len == b.identifier.len;
    if (same) {
        memcpy(own.ptr + (a.identifier.ptr - own.ptr), b.identifier.ptr, b.identifier.len);
        same = memcmp(own.ptr, body.ptr, body.len) == 0;
    }
    vec_bytes_free(&wanted);
    vec_bytes_free(&own);
    return same;
}

static void check_missed(const char *url, const struct http_call_request *request,
                         struct lonely_span body)
{
    struct vec_bytes wanted = vec_get_bytes(script.missed, "body_hex");

    if (strcmp(url, vec_str(script.missed, "recovery")) != 0)
        complain(&script.wrong, "recovery", url);
    if (!headers_are(request, vec_get(script.missed, "headers")))
        complain(&script.wrong, "headers", url);
    if (wanted.len != body.len || memcmp(wanted.ptr, body.ptr, body.len) != 0)
        complain(&script.wrong, "body", url);
    vec_bytes_free(&wanted);
    uv_sem_post(&script.called);
}

void __wrap_outbox_add(struct outbox *outbox, struct outbox_post *post);
void __wrap_outbox_add(struct outbox *outbox, struct outbox_post *post)
{
    struct http_call_request request = { .url = post->url };
    struct later *l = later(reply_to_post);
    struct lonely_span body;
    json_t *call;

    (void)outbox;
    l->post = post;
    if (!post->ops->start(post, &request)) {
        complain(&script.wrong, "not to be posted", post->url);
        return;
    }
    body = body_of(&request);
    if (script.missed != NULL) {
        check_missed(post->url, &request, body);
        mem_free((void *)(uintptr_t)body.ptr);
        return;
    }
    call = planned_call(post->url);
    if (call == NULL) {
        complain(&script.unplanned, "unplanned call", post->url);
    } else {
        json_t *reply = vec_get(call, "reply");

        if (!headers_are(&request, vec_get(call, "headers")))
            complain(&script.wrong, "headers", post->url);
        if (!body_is(call, body))
            complain(&script.wrong, "body", post->url);
        if (!vec_has(reply, "error")) {
            l->reply = vec_get_bytes(reply, "body_hex");
            l->http_status = (int)vec_u64(reply, "status");
            echo(&l->reply, call, body);
        }
    }
    mem_free((void *)(uintptr_t)body.ptr);
}

/* ---- The broadcaster of a scenario ---- */

enum { CLIENTS_MAX = 2 };

struct client {
    struct receiver r; /* first */
    atomic_uint messages;
};

static struct server {
    char dir[32], database[64], secrets[64];
    struct conf conf;
    struct log log;
    struct broadcaster *b;
    struct store_ops down;
    sqlite3 *db;
    struct client clients[CLIENTS_MAX];
    size_t n_clients;
    uv_sem_t subscribed;
    struct secrets keys; /* to verify what it signs */
    json_t *updated;     /* recovery urls that SET changed, by identity (http.md, Q15) */
} server;

static void set_option(const char *option, const char *folder, const char *value)
{
    char assignment[512];
    struct conf_error error;

    snprintf(assignment, sizeof(assignment), "%s=%s%s", option, folder, value);
    if (!conf_set(&server.conf, assignment, &error))
        fail_msg("%s", error.text);
}

/* `unavailable` is not a scheme: none, and the check is made unavailable. */
static void add_direction(json_t *file, const json_t *auth, const char *from, const char *to,
                          bool *unavailable)
{
    json_t *direction = vec_get(auth, from);

    *unavailable = strcmp(vec_str(direction, "type"), "unavailable") == 0;
    if (!*unavailable)
        json_object_set(file, to, direction);
}

static void write_secrets(const json_t *auth)
{
    json_t *file = json_pack("{s:s}", "version", "2");
    struct secrets_error error;

    add_direction(file, auth, "to_broadcaster", "to-broadcaster",
                  &script.unavailable_to_broadcaster);
    add_direction(file, auth, "to_subscriber", "to-subscriber", &script.unavailable_to_subscriber);
    assert_int_equal(json_dump_file(file, server.secrets, 0), 0);
    json_decref(file);
    if (!secrets_load(server.secrets, SECRETS_BROADCASTER, &server.keys, &error))
        fail_msg("%s", error.text);
}

static void configure(const json_t *line)
{
    const json_t *websockets = json_object_get(line, "websockets");

    conf_init(&server.conf);
    set_option("broadcaster.listen", "", "127.0.0.1:0");
    set_option("broadcaster.spool_dir", server.dir, "/spool");
    set_option("database.path", server.database, "");
    set_option("auth.secrets", server.secrets, "");
    set_option("missed.sweep_missed_interval", "", script.missed != NULL ? "10ms" : "1h");
    if (websockets != NULL) {
        set_option("broadcaster.receiver_url", "", vec_str(websockets, "receiver_url"));
        set_option("broadcaster.missed_url", "", vec_str(websockets, "missed_url"));
    }
}

static bool on_message(struct receiver *r, struct outgoing *m)
{
    (void)m;
    atomic_fetch_add(&((struct client *)r)->messages, 1);
    return true;
}

static bool on_missed(struct receiver *r, struct lonely_span topic)
{
    (void)topic;
    atomic_fetch_add(&((struct client *)r)->messages, 1);
    return true;
}

static void on_subscribed(void *arg, enum store_status status)
{
    (void)arg;
    if (status == STORE_OK)
        uv_sem_post(&server.subscribed);
}

/* Before the thread runs, so that the calls may be made here. How many answers are to come. */
static size_t subscribe_clients(const json_t *websockets)
{
    static const struct receiver_ops ops = { on_message, on_missed };
    struct worker *w = server.b->workers[0];
    size_t wanted = 0, i;
    json_t *value;

    server.n_clients = websockets != NULL ? vec_u64(websockets, "clients") : 0;
    assert_true(server.n_clients <= CLIENTS_MAX);
    for (size_t n = 0; n < server.n_clients; n++) {
        struct receiver *r = &server.clients[n].r;

        r->ops = &ops;
        receivers_join(w->receivers, r);
        json_array_foreach(vec_get(websockets, "exact_hex"), i, value)
        {
            struct vec_bytes topic = vec_bytes(value);

            forwarding_add(server.b->forwarding, w, STORE_EXACT, vec_span(&topic), on_subscribed,
                           NULL);
            receivers_subscribe(w->receivers, r, STORE_EXACT, vec_span(&topic));
            vec_bytes_free(&topic);
            wanted++;
        }
        json_array_foreach(vec_get(websockets, "globs"), i, value)
        {
            struct lonely_span glob = { (const uint8_t *)json_string_value(value),
                                        json_string_length(value) };

            forwarding_add(server.b->forwarding, w, STORE_GLOB, glob, on_subscribed, NULL);
            receivers_subscribe(w->receivers, r, STORE_GLOB, glob);
            wanted++;
        }
    }
    return wanted;
}

static void take_store_down(void)
{
    server.down = *server.b->store_ops;
    server.down.sync = down_sync;
    server.down.subscribe = server.down.unsubscribe = down_write;
    server.down.set = down_set;
    server.down.check = down_check;
    server.b->store_ops = &server.down;
}

static void server_create(const json_t *line)
{
    struct keys_error keys_error;
    struct keys *keys;
    char error[256];

    now_s = json_number_value(vec_get(line, "now"));
    strcpy(server.dir, "/tmp/scenario-XXXXXX");
    assert_non_null(mkdtemp(server.dir));
    snprintf(server.database, sizeof(server.database), "%s/db", server.dir);
    snprintf(server.secrets, sizeof(server.secrets), "%s/secrets", server.dir);
    write_secrets(vec_get(line, "auth"));
    configure(line);
    log_init(&server.log, 2, LOG_LEVEL_ERROR, LOG_FORMAT_TEXT, &clock_system);
    keys = keys_load(&server.conf, &server.log, &keys_error);
    assert_non_null(keys);
    if (!broadcaster_create(&server.conf, keys, &fixed_clock, &server.log, &server.b, error))
        fail_msg("%s", error);
    keys_unref(keys);
    worker_loop = &server.b->workers[0]->loop;
    assert_int_equal(sqlite3_open(server.database, &server.db), SQLITE_OK);
    sqlite3_busy_timeout(server.db, 5000);
    server.updated = json_object();
    uv_sem_init(&server.subscribed, 0);
}

static void server_start(const json_t *line)
{
    size_t wanted = subscribe_clients(json_object_get(line, "websockets"));
    char error[256];

    if (vec_has(line, "store"))
        take_store_down();
    if (!broadcaster_start(server.b, error))
        fail_msg("%s", error);
    for (; wanted > 0; wanted--)
        uv_sem_wait(&server.subscribed);
}

static void server_end(void)
{
    char command[128];

    broadcaster_stop(server.b);
    broadcaster_join(server.b);
    for (size_t n = 0; n < server.n_clients; n++)
        receivers_leave(server.b->workers[0]->receivers, &server.clients[n].r);
    broadcaster_destroy(server.b);
    sqlite3_close(server.db);
    secrets_fini(&server.keys);
    conf_fini(&server.conf);
    log_fini(&server.log);
    json_decref(server.updated);
    uv_sem_destroy(&server.subscribed);
    snprintf(command, sizeof(command), "rm -r '%s'", server.dir);
    assert_int_equal(system(command), 0);
    memset(&server, 0, sizeof(server));
}

/* ---- Requests ---- */

struct answer {
    uint8_t bytes[65536];
    size_t len;
    int status;
    char content_type[64]; /* empty: none */
    struct lonely_span body;
};

static int connect_to_server(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port =
        htons((uint16_t)strtoul(strrchr(server.b->listeners[0].bound, ':') + 1, NULL, 10));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void send_all(int fd, const void *ptr, size_t len)
{
    const char *at = ptr;

    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        if (n <= 0) /* refused before it was read whole */
            return;
        at += n;
        len -= (size_t)n;
    }
}

static void parse_answer(struct answer *a)
{
    static const char name[] = "\r\nContent-Type: ";
    char *text = (char *)a->bytes, *end, *type;

    a->bytes[a->len] = '\0';
    end = strstr(text, "\r\n\r\n");
    assert_non_null(end);
    assert_int_equal(sscanf(text, "HTTP/1.1 %d", &a->status), 1);
    type = strcasestr(text, name);
    a->content_type[0] = '\0';
    if (type != NULL && type < end)
        snprintf(a->content_type, sizeof(a->content_type), "%.*s",
                 (int)strcspn(type + sizeof(name) - 1, "\r"), type + sizeof(name) - 1);
    a->body = (struct lonely_span){ (uint8_t *)end + 4, a->len - (size_t)(end + 4 - text) };
}

static void ask(const json_t *line, const json_t *request, struct answer *a)
{
    const char *host = text_of(request, "host"), *name;
    struct vec_bytes body = vec_get_bytes(request, "body_hex");
    char head[4096];
    int at, fd = connect_to_server();
    json_t *value;
    ssize_t n;

    at = snprintf(head, sizeof(head),
                  "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %zu\r\n",
                  vec_str(request, "method"), vec_str(request, "path"),
                  host != NULL ? host : vec_str(line, "host"), body.len);
    json_object_foreach(vec_get(request, "headers"), name, value) at += snprintf(
        head + at, sizeof(head) - (size_t)at, "%s: %s\r\n", name, json_string_value(value));
    at += snprintf(head + at, sizeof(head) - (size_t)at, "\r\n");
    assert_true((size_t)at < sizeof(head));
    send_all(fd, head, (size_t)at);
    send_all(fd, body.ptr, body.len);
    vec_bytes_free(&body);
    for (a->len = 0; (n = recv(fd, a->bytes + a->len, sizeof(a->bytes) - 1 - a->len, 0)) > 0;)
        a->len += (size_t)n;
    close(fd);
    parse_answer(a);
}

/* ---- The store ---- */

static char *identity(char to[1024], const char *kind, const char *url, struct lonely_span key)
{
    int at = snprintf(to, 1024, "%s %s ", kind, url);

    for (size_t i = 0; i < key.len && at < 1020; i++)
        at += snprintf(to + at, 1024 - (size_t)at, "%02x", key.ptr[i]);
    return to;
}

static struct lonely_span column(sqlite3_stmt *st, int i)
{
    const void *ptr = sqlite3_column_blob(st, i);

    return (struct lonely_span){ ptr, (size_t)sqlite3_column_bytes(st, i) };
}

/* "recovery attempts topic" of every row, by identity, as the vectors have it. */
static void add_rows(json_t *rows, const char *kind, const char *sql)
{
    sqlite3_stmt *st;
    char id[1024], value[2048];

    assert_int_equal(sqlite3_prepare_v2(server.db, sql, -1, &st, NULL), SQLITE_OK);
    while (sqlite3_step(st) == SQLITE_ROW) {
        const char *recovery = (const char *)sqlite3_column_text(st, 2);
        char pending[1024] = "-";

        if (sqlite3_column_type(st, 3) != SQLITE_NULL)
            identity(pending, "", (const char *)sqlite3_column_text(st, 4), column(st, 5));
        snprintf(value, sizeof(value), "%s %s", recovery != NULL ? recovery : "-", pending);
        json_object_set_new(
            rows, identity(id, kind, (const char *)sqlite3_column_text(st, 0), column(st, 1)),
            json_string(value));
    }
    sqlite3_finalize(st);
}

static json_t *stored_rows(void)
{
    json_t *rows = json_object();

    add_rows(rows, "exact",
             "SELECT url, exact, missed_url, missed_next_retry_at, missed_attempts, exact"
             " FROM httppubsub_subscription_exacts");
    add_rows(rows, "glob",
             "SELECT url, glob, missed_url, missed_next_retry_at, missed_attempts, missed_topic"
             " FROM httppubsub_subscription_globs");
    return rows;
}

static void add_expected(json_t *rows, const char *kind, json_t *list)
{
    char id[1024], value[2048], pending[1024], attempts[24];
    size_t i;
    json_t *row;

    json_array_foreach(list, i, row)
    {
        const char *glob = text_of(row, "glob"), *recovery = text_of(row, "recovery");
        struct vec_bytes key = { NULL, 0 }, topic;
        json_t *missed = vec_get(row, "missed");

        if (glob == NULL)
            key = vec_get_bytes(row, "topic_hex");
        identity(id, kind, vec_str(row, "url"),
                 glob != NULL ? (struct lonely_span){ (const uint8_t *)glob,
                                                      json_string_length(vec_get(row, "glob")) }
                              : vec_span(&key));
        if (json_object_get(server.updated, id) != NULL)
            recovery = json_string_value(json_object_get(server.updated, id));
        strcpy(pending, "-");
        if (!json_is_null(missed)) {
            topic = vec_get_bytes(missed, "topic_hex");
            snprintf(attempts, sizeof(attempts), "%llu",
                     (unsigned long long)vec_u64(missed, "attempts"));
            identity(pending, "", attempts, vec_span(&topic));
            vec_bytes_free(&topic);
        }
        snprintf(value, sizeof(value), "%s %s",
                 recovery != NULL && *recovery != '\0' ? recovery : "-", pending);
        json_object_set_new(rows, id, json_string(value));
        if (key.ptr != NULL)
            vec_bytes_free(&key);
    }
}

/* Ours updates the recovery urls of subscriptions that stay; the reference, and so the vectors, do not. */
static void note_recoveries(const json_t *request)
{
    static struct lonely_set_reader reader;
    struct vec_bytes body = vec_get_bytes(request, "body_hex");
    struct lonely_stateless fields;
    struct lonely_set_entry entry;
    struct lonely_result head =
        lonely_stateless_parse(LONELY_STATELESS_SET_SUBSCRIPTIONS, vec_span(&body), &fields);
    struct lonely_span lists = { body.ptr + head.at, body.len - head.at };
    char id[1024], url[256];

    assert_int_equal(head.err, LONELY_OK);
    snprintf(url, sizeof(url), "%.*s", (int)fields.url.len, (const char *)fields.url.ptr);
    lonely_set_reader_init(&reader, fields.count);
    while (lonely_set_reader_next(&reader, &lists, &entry) == LONELY_OK &&
           entry.kind != LONELY_SET_END)
        json_object_set_new(
            server.updated,
            identity(id, entry.kind == LONELY_SET_TOPIC ? "exact" : "glob", url, entry.key),
            json_stringn((const char *)entry.recovery.ptr, entry.recovery.len));
    vec_bytes_free(&body);
}

/* A recovery url lasts as long as its subscription. */
static void forget_recoveries(const json_t *rows)
{
    const char *id;
    json_t *value;
    void *next;

    json_object_foreach_safe(server.updated, next, id, value) if (json_object_get(rows, id) == NULL)
        json_object_del(server.updated, id);
}

static void assert_store(json_t *store)
{
    json_t *expected = json_object(), *rows = stored_rows();

    add_expected(expected, "exact", vec_get(store, "exacts"));
    add_expected(expected, "glob", vec_get(store, "globs"));
    if (!json_equal(expected, rows))
        fail_msg("the store has %s instead of %s", json_dumps(rows, JSON_SORT_KEYS),
                 json_dumps(expected, JSON_SORT_KEYS));
    forget_recoveries(rows);
    json_decref(expected);
    json_decref(rows);
}

/* The etag of what is stored for the url of a CHECK. */
static void stored_etag(const json_t *request, uint8_t hash[LONELY_SHA512_BYTES])
{
    static const char *const sql[] = {
        "SELECT exact, missed_url FROM httppubsub_subscription_exacts WHERE url = ?1 ORDER BY 1",
        "SELECT glob, missed_url FROM httppubsub_subscription_globs WHERE url = ?1 ORDER BY 1",
    };
    static struct lonely_etag etag;
    struct vec_bytes body = vec_get_bytes(request, "body_hex");
    struct lonely_stateless fields;

    lonely_stateless_parse(LONELY_STATELESS_CHECK_SUBSCRIPTIONS, vec_span(&body), &fields);
    assert_int_equal(lonely_etag_init(&etag, fields.url), LONELY_OK);
    for (size_t i = 0; i < TABLE_LEN(sql); i++) {
        sqlite3_stmt *st;

        assert_int_equal(sqlite3_prepare_v2(server.db, sql[i], -1, &st, NULL), SQLITE_OK);
        sqlite3_bind_text(st, 1, (const char *)fields.url.ptr, (int)fields.url.len, SQLITE_STATIC);
        while (sqlite3_step(st) == SQLITE_ROW)
            assert_int_equal((i == 0 ? lonely_etag_add_topic
                                     : lonely_etag_add_glob)(&etag, column(st, 0), column(st, 1)),
                             LONELY_OK);
        sqlite3_finalize(st);
    }
    assert_int_equal(lonely_etag_final(&etag, hash), LONELY_OK);
    vec_bytes_free(&body);
}

/* ---- Steps ---- */

/* What ours does where the reference is not to be followed. */
static const struct quirk {
    const char *name, *path;
    int status;
    const char *content_type, *body_hex;
    unsigned messages;
} quirks[] = {
    { "Q18", "/v1/missed_for_websockets", 400, NULL, "", 0 },
    { "Q21", "/v1/receive_for_websockets", 200, "application/octet-stream",
      "0008 0000 0000 08 0102030405060708 00000002", 2 },
};

static const struct quirk *quirk_of(const json_t *step)
{
    const char *name = text_of(step, "quirk");

    for (size_t i = 0; name != NULL && i < TABLE_LEN(quirks); i++)
        if (strcmp(quirks[i].name, name) == 0 &&
            strcmp(quirks[i].path, vec_str(vec_get(step, "request"), "path")) == 0)
            return &quirks[i];
    return NULL;
}

static void assert_bytes(struct lonely_span got, struct lonely_span wanted)
{
    assert_int_equal(got.len, wanted.len);
    assert_memory_equal(got.ptr, wanted.ptr, wanted.len);
}

static void assert_hex(struct lonely_span got, const char *hex)
{
    uint8_t bytes[64];

    assert_bytes(got, (struct lonely_span){ bytes, table_unhex(hex, bytes, sizeof(bytes)) });
}

/* Its tracing is the server's own, so that under hmac what it signs is, too. */
static void assert_notified(struct lonely_span body, const json_t *step, const json_t *decoded)
{
    struct vec_bytes request = vec_get_bytes(vec_get(step, "request"), "body_hex");
    struct vec_bytes identifier = vec_get_bytes(decoded, "identifier_hex");
    struct lonely_stateless asked, got;
    struct lonely_auth_verified verified;
    struct lonely_auth_ctx *ctx;
    const struct lonely_auth_key *key = server.keys.to_subscriber;

    lonely_stateless_parse(LONELY_STATELESS_NOTIFY, vec_span(&request), &asked);
    assert_int_equal(lonely_stateless_parse(LONELY_STATELESS_RESPONSE_NOTIFY, body, &got).err,
                     LONELY_OK);
    assert_int_equal(got.count, vec_u64(decoded, "subscribers"));
    assert_bytes(got.identifier, vec_span(&identifier));
    assert_true(got.tracing.len > 0);
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_CONFIRM_NOTIFY,
        .tracing = got.tracing,
        .topic = asked.topic,
        .identifier = got.identifier,
        .hash = asked.hash,
        .subscribers = got.count,
    };
    assert_int_equal(lonely_auth_ctx_create(&ctx), LONELY_OK);
    assert_int_equal(lonely_auth_verify(ctx, &key, 1, &in, lonely_auth_field(&got.authorization),
                                        now_s, &verified),
                     LONELY_AUTH_OK);
    assert_int_equal(got.authorization.len == 0, lonely_auth_key_scheme(key) == LONELY_AUTH_NONE);
    lonely_auth_ctx_destroy(ctx);
    vec_bytes_free(&request);
    vec_bytes_free(&identifier);
}

static void assert_body(const struct answer *a, const json_t *step, const json_t *response)
{
    const json_t *request = vec_get(step, "request"), *decoded = vec_get(response, "decoded");
    const char *message = text_of(decoded, "message");
    struct vec_bytes body = vec_get_bytes(response, "body_hex");
    uint8_t etag[LONELY_SHA512_BYTES];

    if (message != NULL && strcmp(message, "RESPONSE_NOTIFY") == 0) {
        assert_notified(a->body, step, decoded);
    } else if (text_of(step, "quirk") != NULL &&
               strcmp(vec_str(request, "path"), "/v1/check_subscriptions") == 0) {
        stored_etag(request, etag); /* Q15: what was set is what is stored */
        assert_true(a->body.len > sizeof(etag));
        assert_memory_equal(a->body.ptr + a->body.len - sizeof(etag), etag, sizeof(etag));
    } else if (a->status != 404 && a->status != 405) {
        assert_bytes(a->body, vec_span(&body));
    }
    vec_bytes_free(&body);
}

static void assert_response(const struct answer *a, const json_t *step)
{
    const json_t *response = vec_get(step, "response");
    const struct quirk *quirk = quirk_of(step);
    const char *type = quirk != NULL ? quirk->content_type : text_of(response, "content_type");

    assert_int_equal(a->status, quirk != NULL ? quirk->status : (int)vec_u64(response, "status"));
    assert_string_equal(a->content_type, type != NULL ? type : "");
    if (quirk != NULL)
        assert_hex(a->body, quirk->body_hex);
    else
        assert_body(a, step, response);
}

/* The vectors' broadcaster posts to itself; ours hands over what is its own. */
static bool is_to_itself(const json_t *line, const json_t *calls)
{
    const json_t *websockets = json_object_get(line, "websockets");

    return websockets != NULL && json_array_size(calls) == 1 &&
           strcmp(vec_str(json_array_get(calls, 0), "url"), vec_str(websockets, "receiver_url")) ==
               0;
}

static void plan(const json_t *line, const json_t *step)
{
    json_t *calls = json_object_get(step, "calls"), *call;
    const json_t *response = vec_get(step, "response");
    const char *message = text_of(vec_get(response, "decoded"), "message");
    size_t i;

    script_reset();
    if (calls != NULL && !json_is_null(calls) && !is_to_itself(line, calls))
        script.calls = calls;
    assert_true(json_array_size(script.calls) <= CALLS_MAX);
    json_array_foreach(script.calls, i, call)
    {
        struct vec_bytes identifier = vec_get_bytes(vec_get(call, "decoded"), "identifier_hex");

        assert_int_equal(identifier.len, 8);
        memcpy(script.identifiers[script.n_identifiers++], identifier.ptr, 8);
        vec_bytes_free(&identifier);
        plan_nonce(text_of(vec_get(call, "headers"), "Authorization"));
    }
    if (message != NULL && strcmp(message, "RESPONSE_CONFIRM_RECEIVE") == 0)
        script.n_nonces++; /* the identifier that the sessions are given */
    plan_nonce(text_of(vec_get(response, "decoded"), "authorization"));
}

static unsigned take_messages(void)
{
    unsigned n = 0;

    for (size_t i = 0; i < server.n_clients; i++)
        n += atomic_exchange(&server.clients[i].messages, 0);
    return n;
}

static unsigned expected_messages(const json_t *line, const json_t *step)
{
    const struct quirk *quirk = quirk_of(step);

    if (quirk != NULL)
        return quirk->messages;
    if (is_to_itself(line, json_object_get(step, "calls")))
        return (unsigned)vec_u64(vec_get(vec_get(step, "response"), "decoded"), "subscribers");
    return vec_has(step, "websocket_messages") ? (unsigned)vec_u64(step, "websocket_messages") : 0;
}

static void run_step(const json_t *line, const json_t *step)
{
    static struct answer answer;
    const json_t *request = vec_get(step, "request");

    print_message("# %s\n", vec_str(step, "note"));
    plan(line, step);
    ask(line, request, &answer);
    if (script.wrong + script.unplanned > 0)
        fail_msg("%s", script.what);
    for (size_t i = 0; i < json_array_size(script.calls); i++)
        assert_true(script.made[i]);
    assert_response(&answer, step);
    assert_int_equal(take_messages(), expected_messages(line, step));
    if (answer.status == 200 && strcmp(vec_str(request, "path"), "/v1/set_subscriptions") == 0)
        note_recoveries(request);
    if (vec_has(step, "store"))
        assert_store(vec_get(step, "store"));
    steps_run++;
}

static void test_scenario(void **state)
{
    const json_t *line = *state;
    size_t i;
    json_t *step;

    script_reset();
    server_create(line);
    server_start(line);
    json_array_foreach(vec_get(line, "steps"), i, step) run_step(line, step);
    server_end();
}

/* What the sweep sends. */
static void test_missed_call(void **state)
{
    static const char sql[] = "INSERT INTO httppubsub_subscription_exacts"
                              " (url, exact, missed_url, missed_attempts, missed_next_retry_at)"
                              " VALUES ('http://192.0.2.0:3002/v1/receive', ?1, ?2, 0, 1)";
    json_t *line = *state;
    struct vec_bytes topic = vec_get_bytes(line, "topic_hex");
    sqlite3_stmt *st;

    script_reset();
    script.missed = line;
    plan_nonce(text_of(vec_get(line, "headers"), "Authorization"));
    uv_sem_init(&script.called, 0);
    server_create(line);
    assert_int_equal(sqlite3_prepare_v2(server.db, sql, -1, &st, NULL), SQLITE_OK);
    sqlite3_bind_blob(st, 1, topic.ptr, (int)topic.len, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, vec_str(line, "recovery"), -1, SQLITE_STATIC);
    assert_int_equal(sqlite3_step(st), SQLITE_DONE);
    sqlite3_finalize(st);
    vec_bytes_free(&topic);
    server_start(line);
    uv_sem_wait(&script.called);
    server_end();
    uv_sem_destroy(&script.called);
    script.missed = NULL;
    if (script.wrong > 0)
        fail_msg("%s", script.what);
    steps_run++;
}

/* The lines of a type, those of subscribers left out. */
static json_t *lines_of(const char *type)
{
    json_t *all = vec_load_lines("http.jsonl"), *out = json_array(), *line;
    size_t i;

    json_array_foreach(all, i, line)
    {
        const char *of = text_of(line, "server");

        if (strcmp(vec_str(line, "type"), type) == 0 &&
            (of == NULL || strcmp(of, "broadcaster") == 0))
            json_array_append(out, line);
    }
    json_decref(all);
    return out;
}

int main(void)
{
    json_t *scenarios = lines_of("scenario"), *missed = lines_of("missed_call");
    int failed;

    if (json_array_size(scenarios) != SCENARIOS || json_array_size(missed) != MISSED_CALLS) {
        fprintf(stderr, "not as many scenarios as there were\n");
        return 1;
    }
    failed = vec_run("scenarios", scenarios, "id", test_scenario, NULL, NULL);
    failed += vec_run("missed calls", missed, "id", test_missed_call, NULL, NULL);
    if (failed == 0 && steps_run != STEPS + MISSED_CALLS) {
        fprintf(stderr, "%zu steps instead of %d\n", steps_run, STEPS + MISSED_CALLS);
        return 1;
    }
    json_decref(scenarios);
    json_decref(missed);
    return failed;
}
