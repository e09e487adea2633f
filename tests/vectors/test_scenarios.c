/*
 * Every broadcaster scenario of http.jsonl, and the calls of the sweep, against the daemon's own code
 * (scenario.h): answers, what is stored, what is posted and what websocket clients are given.
 * (tests/vectors/README.md)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <lonely/etag.h>
#include <lonely/stateless.h>

#include "scenario.h"
#include "tables.h"

/* As many as there are: none is skipped unseen. */
enum { SCENARIOS = 22, STEPS = 276, MISSED_CALLS = 9 };

static size_t steps_run;

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
                                        server.now_s, &verified),
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
    assert_true(json_array_size(script.calls) <= SCRIPT_CALLS_MAX);
    json_array_foreach(script.calls, i, call)
    {
        struct vec_bytes identifier = vec_get_bytes(vec_get(call, "decoded"), "identifier_hex");

        assert_int_equal(identifier.len, 8);
        memcpy(script.identifiers[script.n_identifiers++], identifier.ptr, 8);
        vec_bytes_free(&identifier);
        script_plan_nonce(text_of(vec_get(call, "headers"), "Authorization"));
    }
    if (message != NULL && strcmp(message, "RESPONSE_CONFIRM_RECEIVE") == 0)
        script.n_nonces++; /* the identifier that the sessions are given */
    script_plan_nonce(text_of(vec_get(response, "decoded"), "authorization"));
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
    script_plan_nonce(text_of(vec_get(line, "headers"), "Authorization"));
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

static void test_line(void **state)
{
    if (strcmp(vec_str(*state, "type"), "scenario") == 0)
        test_scenario(state);
    else
        test_missed_call(state);
}

/* Those of broadcasters, and how many are of which type. */
static json_t *load_lines(size_t *scenarios, size_t *missed_calls)
{
    json_t *all = vec_load_lines("http.jsonl"), *out = json_array(), *line;
    size_t i;

    json_array_foreach(all, i, line)
    {
        const char *type = vec_str(line, "type"), *side = text_of(line, "server");
        bool is_missed_call = strcmp(type, "missed_call") == 0;

        if (!is_missed_call && (strcmp(type, "scenario") != 0 || strcmp(side, "broadcaster") != 0))
            continue;
        *(is_missed_call ? missed_calls : scenarios) += 1;
        json_array_append(out, line);
    }
    json_decref(all);
    return out;
}

int main(void)
{
    size_t scenarios = 0, missed_calls = 0;
    json_t *lines = load_lines(&scenarios, &missed_calls);
    int failed = vec_run("scenarios", lines, "id", test_line, NULL, NULL);

    json_decref(lines);
    if (failed != 0)
        return failed;
    if (scenarios == SCENARIOS && missed_calls == MISSED_CALLS && steps_run == STEPS + MISSED_CALLS)
        return 0;
    fprintf(stderr, "%zu scenarios, %zu missed calls, %zu steps\n", scenarios, missed_calls,
            steps_run);
    return 1;
}
