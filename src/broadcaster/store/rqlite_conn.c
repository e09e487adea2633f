/*
 * Calls to the cluster (rqlite_conn.h): libcurl's easy interface on the store's threads, which may
 * wait. What is asked and what the results mean is left to the callers.
 */
#include "rqlite_conn.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "clock.h"
#include "log.h"
#include "store_password.h"

#define REPLY_MAX        (64u << 20)
#define REPLY_KEPT       (1u << 20) /* memory kept for the next reply */
#define PAUSE_FIRST_MS   10u
#define PAUSE_MAX_MS     100u
#define MOVES_MAX        3 /* redirects followed in a row */
#define ATTEMPT_LEAST_MS 100u
#define FORWARDS_MS      10000u /* then we look for the leader again */

enum step {
    STEP_DONE,
    STEP_REFUSED,
    STEP_TOO_LONG,
    STEP_MOVED,   /* another node, or another way: at once */
    STEP_CONNECT, /* nobody listens there */
    STEP_RETRY    /* no leader, broken, too slow */
};

uint64_t rqlite_now_ms(void)
{
    return clock_mono_ms(&clock_system);
}

/* --- the handle ----------------------------------------------------------------------------- */

static size_t on_reply(char *ptr, size_t size, size_t n, void *arg)
{
    struct rqlite_conn *c = arg;

    if (buf_append(&c->reply, ptr, size * n))
        return size * n;
    c->too_long = true;
    return 0;
}

static bool set_options(struct rqlite_conn *c)
{
    CURL *e = c->easy;

    c->headers = curl_slist_append(NULL, "Content-Type: application/json");
    return c->headers != NULL && curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_NOPROXY, "*") == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->headers) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_EXPECT_100_TIMEOUT_MS, 0L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_reply) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_WRITEDATA, c) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->trouble) == CURLE_OK &&
           (c->cluster->ca_file == NULL ||
            curl_easy_setopt(e, CURLOPT_CAINFO, c->cluster->ca_file) == CURLE_OK);
}

bool rqlite_conn_open(struct rqlite_conn *c, struct rqlite_cluster *cluster, char error[256])
{
    *c = (struct rqlite_conn){ .cluster = cluster, .easy = curl_easy_init() };
    buf_init(&c->reply, REPLY_MAX);
    if (c->easy == NULL || !set_options(c)) {
        snprintf(error, 256, "rqlite: libcurl cannot be set up");
        rqlite_conn_close(c);
        return false;
    }
    if (!store_password_read(cluster->password_file, &c->password, error)) {
        rqlite_conn_close(c);
        return false;
    }
    return true;
}

void rqlite_conn_close(struct rqlite_conn *c)
{
    curl_easy_cleanup(c->easy);
    curl_slist_free_all(c->headers);
    store_password_free(c->password);
    buf_fini(&c->reply);
}

void rqlite_failed(struct rqlite_conn *c, const char *doing, const char *why)
{
    log_warn_limited(c->cluster->log, "store_failed",
                     LOG_STR("node", c->cluster->nodes[c->node].base), LOG_STR("doing", doing),
                     LOG_STR("error", why), LOG_END);
}

static void set_trouble(struct rqlite_conn *c, const char *text, long number)
{
    if (number != 0)
        snprintf(c->trouble, sizeof c->trouble, "%s %ld", text, number);
    else
        snprintf(c->trouble, sizeof c->trouble, "%s", text);
}

/* --- one request to one node ---------------------------------------------------------------- */

static void set_url(struct rqlite_conn *c, enum rqlite_path path)
{
    const struct rqlite_node *n = &c->cluster->nodes[c->node];
    bool weak = path == RQLITE_READ_NEWS && c->cluster->weak;
    const char *what = path == RQLITE_WRITE ? "execute?transaction&noparse"
                       : weak               ? "query?level=weak&noparse"
                                            : "query?level=linearizable&noparse";
    char url[1024];

    snprintf(url, sizeof url, "%s/db/%s%s", n->base, what, c->forwards ? "" : "&redirect");
    curl_easy_setopt(c->easy, CURLOPT_URL, url);
    curl_easy_setopt(c->easy, CURLOPT_USERNAME, n->user);
    curl_easy_setopt(c->easy, CURLOPT_PASSWORD,
                     n->user == NULL       ? NULL
                     : n->password != NULL ? n->password
                                           : c->password);
}

/* A node gets a part of the time that is left, so that there is some for another. */
static void set_times(struct rqlite_conn *c, uint64_t left_ms)
{
    uint64_t limit_ms = c->cluster->count > 1 ? left_ms / 2 : left_ms;
    uint64_t connect_ms = c->cluster->timeout_ms / 5;

    if (limit_ms < ATTEMPT_LEAST_MS)
        limit_ms = left_ms;
    if (connect_ms > limit_ms || connect_ms < ATTEMPT_LEAST_MS)
        connect_ms = limit_ms;
    curl_easy_setopt(c->easy, CURLOPT_TIMEOUT_MS, (long)limit_ms);
    curl_easy_setopt(c->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
}

/* The node that a redirect names, if it is one of ours, else count. */
static size_t find_node(const struct rqlite_cluster *cluster, const char *url)
{
    size_t i = 0;

    for (; url != NULL && i < cluster->count; i++) {
        size_t len = strlen(cluster->nodes[i].base);

        if (strncasecmp(url, cluster->nodes[i].base, len) == 0 && url[len] == '/')
            return i;
    }
    return cluster->count;
}

static enum step follow(struct rqlite_conn *c)
{
    const char *url = NULL;
    size_t node;

    curl_easy_getinfo(c->easy, CURLINFO_REDIRECT_URL, &url);
    node = find_node(c->cluster, url);
    if (node == c->cluster->count || node == c->node) {
        if (c->forwards) {
            set_trouble(c, "a redirect that was not asked for", 0);
            return STEP_RETRY;
        }
        c->forwards = true;
        c->forwards_ms = rqlite_now_ms();
        return STEP_MOVED;
    }
    c->node = node;
    return STEP_MOVED;
}

/* A reply of status 200. Errors of the cluster stand beside the results, those of statements in
 * them. */
static enum step read_results(struct rqlite_conn *c, json_t **results)
{
    json_t *reply = json_loadb((const char *)c->reply.ptr, c->reply.len, JSON_ALLOW_NUL, NULL);
    json_t *found = json_object_get(reply, "results");
    const char *error = json_string_value(json_object_get(reply, "error"));
    /* A transaction ends with the statement that fails. */
    bool whole = json_array_size(found) == c->statements || rqlite_error(found) != NULL;

    if (error == NULL && json_is_array(found) && whole) {
        *results = json_incref(found);
        json_decref(reply);
        return STEP_DONE;
    }
    set_trouble(c, error != NULL ? error : "the reply is not rqlite's", 0);
    json_decref(reply);
    return STEP_RETRY;
}

/* Somebody may have changed it. true: it is another one than before. */
static bool read_new_password(struct rqlite_conn *c)
{
    char error[256];
    char *password = NULL;
    bool is_new = store_password_read(c->cluster->password_file, &password, error) &&
                  password != NULL && (c->password == NULL || strcmp(c->password, password) != 0);

    if (is_new) {
        store_password_free(c->password);
        c->password = password;
    } else {
        store_password_free(password);
    }
    return is_new;
}

static enum step judge_status(struct rqlite_conn *c, json_t **results)
{
    long status = 0;

    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status == 200)
        return read_results(c, results);
    if (status >= 300 && status < 400)
        return follow(c);
    if (status == 401 && read_new_password(c))
        return STEP_MOVED;
    set_trouble(c, status == 401 ? "name or password are refused: HTTP status" : "HTTP status",
                status);
    return status >= 400 && status < 500 && status != 408 && status != 429 ? STEP_REFUSED
                                                                           : STEP_RETRY;
}

static enum step attempt(struct rqlite_conn *c, enum rqlite_path path, uint64_t left_ms,
                         json_t **results)
{
    CURLcode code;
    long status = 0;

    set_url(c, path);
    set_times(c, left_ms);
    buf_clear(&c->reply);
    c->too_long = false;
    c->trouble[0] = '\0';
    code = curl_easy_perform(c->easy);
    if (code == CURLE_OK)
        return judge_status(c, results);
    if (c->trouble[0] == '\0')
        set_trouble(c, curl_easy_strerror(code), 0);
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    if (c->too_long && status == 200)
        return STEP_TOO_LONG;
    return code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST ||
                   code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE
               ? STEP_CONNECT
               : STEP_RETRY;
}

/* --- calls ---------------------------------------------------------------------------------- */

static void set_down(struct rqlite_conn *c, bool down)
{
    struct rqlite_cluster *cluster = c->cluster;
    const char *base = cluster->nodes[c->node].base;

    if (rqlite_is_down(cluster) == down || atomic_exchange(&cluster->down, down) == down)
        return;
    if (down && cluster->prober != NULL)
        store_queue_nudge(cluster->prober);
    if (down)
        log_warn(cluster->log, "store_down", LOG_STR("node", base), LOG_STR("error", c->trouble),
                 LOG_END);
    else
        log_info(cluster->log, "store_up", LOG_STR("node", base), LOG_END);
}

static void next_node(struct rqlite_conn *c)
{
    c->node = (c->node + 1) % c->cluster->count;
    c->forwards = false;
}

static void begin(struct rqlite_conn *c, const struct rqlite_body *body)
{
    size_t leader = atomic_load_explicit(&c->cluster->leader, memory_order_relaxed);

    if (c->node != leader || (c->forwards && rqlite_now_ms() - c->forwards_ms > FORWARDS_MS))
        c->forwards = false;
    c->node = leader;
    if (c->reply.cap > REPLY_KEPT)
        buf_fini(&c->reply);
    curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->text.len);
    curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, (const char *)body->text.ptr);
}

/* Attempts until one node does it, none listens, or the time is over. */
static enum step attempts(struct rqlite_conn *c, enum rqlite_path path, uint64_t until_ms,
                          json_t **results)
{
    uint64_t now_ms = rqlite_now_ms();
    uint64_t pause_ms = PAUSE_FIRST_MS;
    size_t unconnected = 0, refusals = 0;
    bool perhaps_done = false;
    int moves = 0;

    for (; now_ms < until_ms; now_ms = rqlite_now_ms()) {
        enum step step = attempt(c, path, until_ms - now_ms, results);

        if (step == STEP_DONE || step == STEP_TOO_LONG)
            return step;
        if (step == STEP_MOVED && ++moves <= MOVES_MAX)
            continue;
        moves = 0;
        perhaps_done = perhaps_done || step == STEP_RETRY;
        if (step == STEP_REFUSED) { /* another may know the new password, or not be a stranger */
            if (++refusals == c->cluster->count)
                return perhaps_done ? STEP_RETRY : STEP_REFUSED;
            next_node(c);
            continue;
        }
        unconnected = step == STEP_CONNECT ? unconnected + 1 : 0;
        next_node(c);
        if (unconnected == c->cluster->count)
            return STEP_CONNECT;
        if (step != STEP_CONNECT && rqlite_now_ms() + pause_ms < until_ms) {
            uv_sleep((unsigned)pause_ms);
            pause_ms = pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause_ms * 2;
        }
    }
    return STEP_RETRY;
}

enum rqlite_result rqlite_call(struct rqlite_conn *c, enum rqlite_path path,
                               const struct rqlite_body *body, uint64_t until_ms, json_t **results)
{
    uint64_t began_ms = rqlite_now_ms();
    enum step step;

    *results = NULL;
    set_trouble(c, "no time is left", 0);
    c->statements = body->count;
    begin(c, body);
    step = attempts(c, path, until_ms, results);
    if (step == STEP_CONNECT || step == STEP_RETRY) {
        /* A call that had hardly any time tells nothing about the nodes. */
        if (step == STEP_CONNECT || rqlite_now_ms() - began_ms >= c->cluster->timeout_ms / 2)
            set_down(c, true);
        return RQLITE_DOWN;
    }
    atomic_store_explicit(&c->cluster->leader, c->node, memory_order_relaxed);
    set_down(c, false);
    return step == STEP_DONE ? RQLITE_OK : step == STEP_REFUSED ? RQLITE_REFUSED : RQLITE_TOO_LONG;
}

enum rqlite_result rqlite_read(struct rqlite_conn *c, enum rqlite_path path,
                               const struct rqlite_body *body, uint64_t until_ms, json_t **results)
{
    enum rqlite_result result = rqlite_call(c, path, body, until_ms, results);
    const char *error = rqlite_error(*results);

    if (result == RQLITE_OK && error != NULL) {
        rqlite_failed(c, "read", error);
        set_trouble(c, error, 0);
        json_decref(*results);
        *results = NULL;
        return RQLITE_REFUSED;
    }
    if (result != RQLITE_OK)
        rqlite_failed(c, "read", c->trouble);
    return result;
}
