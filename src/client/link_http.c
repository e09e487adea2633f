/*
 * The link over HTTP: a receiver in this process, calls to broadcasters one after another. What is wanted
 * is made so by single calls or by SET, and compared with what broadcasters have every
 * resubscribe_interval. (doc/protocol/session.md, 8)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lonely/etag.h>

#include "buf.h"
#include "http_notify.h"
#include "http_server.h"
#include "link.h"
#include "listener.h"
#include "mem.h"
#include "mount_port.h"
#include "receiver.h"
#include "tls.h"

/* A list of all that is wanted costs as much as so many single calls would. */
#define BULK_PER_CHANGE UINT64_C(65536)
#define BULK_PER_ENTRY  UINT64_C(128)

/* Of the receiver, or requests of the program's own server. */
#define MAX_CONNECTIONS 4096

enum call_kind { CALL_SINGLE, CALL_SET, CALL_CHECK };

struct http_link {
    struct link link; /* first */
    struct http_jobs *jobs;
    struct http_notifies notifies;
    struct receiver *receiver; /* NULL: only notifies; else it is served by one of these: */
    struct http_server *server;
    struct mount_port *port;
    struct lonely_mount *mount; /* of `port` */
    struct tls_server *tls;
    char *bound, *url, *recovery;
    uv_timer_t reconcile;
    uv_timer_t patience; /* of the end */
    bool calling;        /* a subscription call is under way */
    bool closing;
    bool ending;    /* the last call is under way */
    unsigned parts; /* that are not closed */
    void (*on_closed)(struct lonely_client *c);
};

/* A call about subscriptions. */
struct sub_call {
    struct http_job job; /* first */
    struct http_link *l;
    enum call_kind kind;
    struct want *want; /* CALL_SINGLE */
    bool add;
    bool reconciles;
    uint8_t etag[LONELY_ETAG_BYTES];
    uint8_t theirs[LONELY_ETAG_BYTES]; /* of CHECK */
    uint8_t *head;
    uint32_t topics; /* of SET */
    uint8_t *lists;
    size_t lists_len;
};

static void pump(struct http_link *l);

static struct lonely_span text(const char *s)
{
    return (struct lonely_span){ (const uint8_t *)s, strlen(s) };
}

/* ---- The lists ---- */

static int compare_wants(const void *a, const void *b)
{
    struct lonely_span x = (*(struct want *const *)a)->key, y = (*(struct want *const *)b)->key;
    size_t len = x.len < y.len ? x.len : y.len;
    int order = len > 0 ? memcmp(x.ptr, y.ptr, len) : 0;

    return order != 0 ? order : (x.len > y.len) - (x.len < y.len);
}

/* What is wanted of one kind, ascending; the caller frees it. */
static struct want **sorted(struct list *all, size_t *count)
{
    struct want **items;
    size_t n = 0;

    list_foreach (all, node, next)
        n++;
    items = mem_calloc(n + 1, sizeof(*items));
    *count = 0;
    list_foreach (all, node, next) {
        struct want *w = list_entry(node, struct want, all);

        if (w->refs > 0)
            items[(*count)++] = w;
    }
    qsort(items, *count, sizeof(struct want *), compare_wants);
    return items;
}

struct lists {
    struct want **exacts, **globs;
    size_t n_exacts, n_globs;
};

static void lists_init(struct lists *lists, struct lonely_client *c)
{
    lists->exacts = sorted(&c->exacts, &lists->n_exacts);
    lists->globs = sorted(&c->globs, &lists->n_globs);
}

static void lists_fini(struct lists *lists)
{
    mem_free(lists->exacts);
    mem_free(lists->globs);
}

static bool compute_etag(const struct http_link *l, const struct lists *lists,
                         uint8_t etag[LONELY_ETAG_BYTES])
{
    struct lonely_etag *e = mem_alloc(sizeof(*e));
    bool good = lonely_etag_init(e, text(l->url)) == LONELY_OK;

    for (size_t i = 0; good && i < lists->n_exacts; i++)
        good = lonely_etag_add_topic(e, lists->exacts[i]->key, text(l->recovery)) == LONELY_OK;
    for (size_t i = 0; good && i < lists->n_globs; i++)
        good = lonely_etag_add_glob(e, lists->globs[i]->key, text(l->recovery)) == LONELY_OK;
    good = good && lonely_etag_final(e, etag) == LONELY_OK;
    mem_free(e);
    return good;
}

static bool write_lists(const struct http_link *l, const struct lists *lists, struct buf *out)
{
    struct lonely_set_writer *writer = mem_alloc(sizeof(*writer));
    bool good = true;

    lonely_set_writer_init(writer, (uint32_t)lists->n_exacts, (uint32_t)lists->n_globs);
    for (size_t i = 0; good && i <= lists->n_exacts + lists->n_globs; i++) {
        bool glob = i >= lists->n_exacts, end = i == lists->n_exacts + lists->n_globs;
        struct lonely_set_entry entry = { .kind = end    ? LONELY_SET_END
                                                  : glob ? LONELY_SET_GLOB
                                                         : LONELY_SET_TOPIC };
        struct lonely_result written;
        uint8_t *room;

        if (!end) {
            entry.key = glob ? lists->globs[i - lists->n_exacts]->key : lists->exacts[i]->key;
            entry.recovery = text(l->recovery);
        }
        room = buf_reserve(out, entry.key.len + entry.recovery.len + 8);
        if (room == NULL)
            break;
        written =
            lonely_set_writer_add(writer, &entry, room, entry.key.len + entry.recovery.len + 8);
        good = written.err == LONELY_OK;
        buf_commit(out, good ? written.at : 0);
    }
    mem_free(writer);
    return good;
}

/* ---- One call ---- */

static ptrdiff_t read_lists(void *arg, uint64_t at, uint8_t *to, size_t len)
{
    const struct sub_call *call = arg;

    if (len > call->lists_len - (size_t)at)
        len = call->lists_len - (size_t)at;
    memcpy(to, call->lists + at, len);
    return (ptrdiff_t)len;
}

static enum lonely_stateless_type request_type(const struct sub_call *call)
{
    bool glob = call->want != NULL && call->want->kind == WANT_GLOB;

    switch (call->kind) {
    case CALL_SET:
        return LONELY_STATELESS_SET_SUBSCRIPTIONS;
    case CALL_CHECK:
        return LONELY_STATELESS_CHECK_SUBSCRIPTIONS;
    case CALL_SINGLE:
        break;
    }
    if (call->add)
        return glob ? LONELY_STATELESS_SUBSCRIBE_GLOB : LONELY_STATELESS_SUBSCRIBE_EXACT;
    return glob ? LONELY_STATELESS_UNSUBSCRIBE_GLOB : LONELY_STATELESS_UNSUBSCRIBE_EXACT;
}

static const char *path_of(const struct sub_call *call)
{
    static const char *const singles[2][2] = {
        { "/v1/unsubscribe/exact", "/v1/unsubscribe/glob" },
        { "/v1/subscribe/exact", "/v1/subscribe/glob" },
    };

    if (call->kind == CALL_SINGLE)
        return singles[call->add][call->want->kind == WANT_GLOB];
    return call->kind == CALL_SET ? "/v1/set_subscriptions" : "/v1/check_subscriptions";
}

/* What its request is signed over, and its answer: they differ in the operation. */
static struct lonely_auth_input signed_fields(const struct sub_call *call, bool answer)
{
    struct lonely_auth_input in = { .url = text(call->l->url) };
    bool glob = call->want != NULL && call->want->kind == WANT_GLOB;

    switch (call->kind) {
    case CALL_SET:
        in.op = answer ? LONELY_AUTH_SET_SUBSCRIPTIONS_RESPONSE : LONELY_AUTH_SET_SUBSCRIPTIONS;
        in.hash = (struct lonely_span){ call->etag, LONELY_ETAG_BYTES };
        return in;
    case CALL_CHECK:
        in.op = answer ? LONELY_AUTH_CHECK_SUBSCRIPTIONS_RESPONSE : LONELY_AUTH_CHECK_SUBSCRIPTIONS;
        in.hash = (struct lonely_span){ call->theirs, LONELY_ETAG_BYTES };
        return in;
    case CALL_SINGLE:
        break;
    }
    if (answer)
        in.op = glob ? LONELY_AUTH_CONFIRM_SUBSCRIBE_GLOB : LONELY_AUTH_CONFIRM_SUBSCRIBE_EXACT;
    else
        in.op = glob ? LONELY_AUTH_SUBSCRIBE_GLOB : LONELY_AUTH_SUBSCRIBE_EXACT;
    in.topic = call->want->key;
    if (call->add)
        in.recovery = text(call->l->recovery);
    return in;
}

static bool prepare(struct http_job *job, struct lonely_auth_input *in)
{
    struct sub_call *call = (struct sub_call *)job;
    struct lonely_auth_input fields = signed_fields(call, false);
    struct lonely_stateless request = {
        .url = fields.url,
        .topic = fields.topic,
        .recovery = fields.recovery,
        .hash = fields.hash,
        .count = call->topics,
    };

    *in = fields;
    if (call->head == NULL) { /* the same for every attempt: only the signature is new */
        enum lonely_stateless_type type = request_type(call);
        size_t len = lonely_stateless_write(type, &request, NULL, 0).at;

        call->head = mem_alloc(len);
        if (lonely_stateless_write(type, &request, call->head, len).err != LONELY_OK)
            return false;
        job->body = (struct lonely_span){ call->head, len };
    }
    if (call->kind == CALL_SET)
        job->source =
            (struct http_source){ .size = call->lists_len, .read = read_lists, .arg = call };
    return true;
}

static enum http_verdict judge_answer(struct sub_call *call, struct lonely_span body)
{
    struct lonely_stateless answer;
    struct lonely_auth_input in;
    enum lonely_stateless_type type = call->kind == CALL_CHECK
                                          ? LONELY_STATELESS_RESPONSE_CHECK_SUBSCRIPTIONS
                                          : LONELY_STATELESS_RESPONSE_GENERIC;
    enum lonely_auth_result result;

    if (lonely_stateless_parse(type, body, &answer).err != LONELY_OK)
        return HTTP_JOB_BAD;
    if (call->kind == CALL_CHECK)
        memcpy(call->theirs, answer.hash.ptr, sizeof(call->theirs));
    in = signed_fields(call, true);
    in.tracing = answer.tracing;
    result = client_verify(call->l->link.client, &in, lonely_auth_field(&answer.authorization));
    if (result == LONELY_AUTH_OK)
        return HTTP_JOB_DONE;
    return result == LONELY_AUTH_UNAVAILABLE ? HTTP_JOB_BAD : HTTP_JOB_FORGED;
}

static enum http_verdict judge(struct http_job *job, int http_status, struct lonely_span body,
                               enum lonely_client_error *err)
{
    struct sub_call *call = (struct sub_call *)job;

    if (http_status == 409 && call->kind == CALL_SINGLE)
        return HTTP_JOB_DONE;
    if (http_status >= 200 && http_status < 300)
        return judge_answer(call, body);
    if (http_status >= 502 && http_status <= 504)
        return HTTP_JOB_UNAVAILABLE;
    *err =
        http_status == 401 || http_status == 403 ? LONELY_CLIENT_FORBIDDEN : LONELY_CLIENT_REFUSED;
    return HTTP_JOB_STOP;
}

/* ---- What came of it ---- */

static void settle(struct lonely_client *c, struct want *w, enum lonely_client_error err)
{
    enum want_state aimed = w->state == WANT_ADDING ? WANT_ON : WANT_OFF;
    enum want_state before = w->state == WANT_ADDING ? WANT_OFF : WANT_ON;

    if (err == LONELY_CLIENT_OK)
        want_enter(c, w, aimed);
    else if (want_enter(c, w, before))
        want_failed(c, w, err);
}

static void settle_all(struct lonely_client *c, enum lonely_client_error err)
{
    struct list *const lists[] = { &c->exacts, &c->globs };

    wants_keep(c);
    for (size_t i = 0; i < 2; i++) {
        list_foreach (lists[i], node, next) {
            struct want *w = list_entry(node, struct want, all);

            if (w->state == WANT_ADDING || w->state == WANT_REMOVING)
                settle(c, w, err);
        }
    }
    wants_let_go(c);
}

static void finish_closing(struct http_link *l);
static void start_set(struct http_link *l, bool reconciles);

static void on_checked(struct http_link *l, const struct sub_call *call)
{
    struct lists lists;
    uint8_t ours[LONELY_ETAG_BYTES];
    bool differs;

    lists_init(&lists, l->link.client);
    differs = compute_etag(l, &lists, ours) && memcmp(ours, call->theirs, sizeof(ours)) != 0;
    lists_fini(&lists);
    if (differs)
        start_set(l, true);
}

static void on_done(struct http_job *job, enum lonely_client_error err)
{
    struct sub_call *call = (struct sub_call *)job;
    struct http_link *l = call->l;
    struct lonely_client *c = l->link.client;
    bool was_missing = call->kind == CALL_SET && call->reconciles && err == LONELY_CLIENT_OK;

    l->calling = false;
    if (call->kind != CALL_CHECK)
        settle_all(c, err);
    if (was_missing)
        client_gap(c); /* what came while they were not there is missed */
    if (call->kind == CALL_CHECK && err == LONELY_CLIENT_OK && !l->closing)
        on_checked(l, call);
    mem_free(call->head);
    mem_free(call->lists);
    mem_free(call);
    if (!l->closing)
        pump(l);
    else if (l->ending)
        finish_closing(l);
}

static void start_call(struct http_link *l, struct sub_call *call)
{
    static const struct http_job_ops ops = { .prepare = prepare, .judge = judge, .done = on_done };

    call->job.ops = &ops;
    call->job.path = path_of(call);
    call->l = l;
    l->calling = true;
    http_job_start(l->jobs, &call->job);
}

/* ---- Which call ---- */

/* Makes the broadcasters' list of this URL equal to these. */
static void send_lists(struct http_link *l, const struct lists *lists, bool reconciles)
{
    struct sub_call *call = mem_calloc(1, sizeof(*call));
    struct buf out;

    call->kind = CALL_SET;
    call->reconciles = reconciles;
    buf_init(&out, SIZE_MAX / 2);
    if (!compute_etag(l, lists, call->etag) || !write_lists(l, lists, &out))
        buf_clear(&out); /* a list that does not fit its etag is refused by the broadcaster */
    call->topics = (uint32_t)lists->n_exacts;
    call->lists = buf_detach(&out, &call->lists_len);
    start_call(l, call);
}

static void start_set(struct http_link *l, bool reconciles)
{
    struct lonely_client *c = l->link.client;
    struct list *const all[] = { &c->exacts, &c->globs };
    struct lists lists;

    for (size_t i = 0; i < 2; i++) {
        list_foreach (all[i], node, next) {
            struct want *w = list_entry(node, struct want, all);

            list_remove(&w->dirty);
            if (!want_is_settled(w))
                want_enter(c, w, w->refs > 0 ? WANT_ADDING : WANT_REMOVING);
        }
    }
    lists_init(&lists, c);
    send_lists(l, &lists, reconciles);
    lists_fini(&lists);
}

static void start_single(struct http_link *l, struct want *w)
{
    struct sub_call *call = mem_calloc(1, sizeof(*call));

    list_remove(&w->dirty);
    call->kind = CALL_SINGLE;
    call->want = w;
    call->add = w->refs > 0;
    want_enter(l->link.client, w, call->add ? WANT_ADDING : WANT_REMOVING);
    start_call(l, call);
}

/* Begins the next call, if there is something to do and none runs. */
static void pump(struct http_link *l)
{
    struct lonely_client *c = l->link.client;
    struct want *first = NULL;
    uint64_t changes = 0;

    if (l->calling || l->closing)
        return;
    list_foreach (&c->dirty, node, next) {
        struct want *w = list_entry(node, struct want, dirty);

        if (want_is_settled(w)) {
            list_remove(&w->dirty);
            continue;
        }
        first = first == NULL ? w : first;
        changes++;
    }
    if (changes == 0)
        return;
    if (BULK_PER_CHANGE * changes >= BULK_PER_ENTRY * c->wanted)
        start_set(l, false);
    else
        start_single(l, first);
}

/* Have broadcasters anything of ours, as far as we know? */
static bool any_on(struct lonely_client *c)
{
    struct list *const lists[] = { &c->exacts, &c->globs };

    for (size_t i = 0; i < 2; i++) {
        list_foreach (lists[i], node, next) {
            if (list_entry(node, struct want, all)->state != WANT_OFF)
                return true;
        }
    }
    return false;
}

static void on_reconcile(uv_timer_t *timer)
{
    struct http_link *l = timer->data;
    struct sub_call *call;

    if (l->calling || l->closing || l->receiver == NULL || !any_on(l->link.client))
        return; /* with a call under way: at the next interval */
    call = mem_calloc(1, sizeof(*call));
    call->kind = CALL_CHECK;
    start_call(l, call);
}

/* ---- What the client asks ---- */

/* What is to be done stays in the list until its turn has come. */
static void flush(struct link *link, struct list *dirty)
{
    struct http_link *l = (struct http_link *)link;
    struct list *node;

    if (l->receiver != NULL) {
        pump(l);
        return;
    }
    while ((node = list_pop_front(dirty)) != NULL) { /* nobody could deliver it: no receiver */
        struct want *w = list_entry(node, struct want, dirty);

        if (!want_is_settled(w))
            want_failed(link->client, w, LONELY_CLIENT_STATE);
    }
}

static void notify(struct link *link, struct notify *n)
{
    http_notifies_add(&((struct http_link *)link)->notifies, n);
}

static void room_again(struct link *link)
{
    struct http_link *l = (struct http_link *)link;

    if (l->receiver != NULL)
        receiver_room_again(l->receiver);
}

static void start(struct link *link)
{
    struct http_link *l = (struct http_link *)link;
    uint64_t interval_ms = link->client->conf.resubscribe_interval_ms;

    client_link_up(link->client);
    uv_timer_start(&l->reconcile, on_reconcile, interval_ms, interval_ms);
}

/* ---- The end ---- */

static void part_closed(struct http_link *l)
{
    struct lonely_client *c = l->link.client;
    void (*on_closed)(struct lonely_client * c) = l->on_closed;

    if (--l->parts > 0)
        return;
    if (l->receiver != NULL)
        receiver_destroy(l->receiver);
    mount_destroy(l->mount);
    tls_server_destroy(l->tls);
    mem_free(l->bound);
    mem_free(l->url);
    mem_free(l->recovery);
    mem_free(l);
    on_closed(c);
}

static void on_timer_closed(uv_handle_t *timer)
{
    part_closed(timer->data);
}

static void on_part_closed(void *arg)
{
    part_closed(arg);
}

static void finish_closing(struct http_link *l)
{
    if (l->parts > 0)
        return;
    l->parts = 3U + (l->server != NULL) + (l->port != NULL);
    http_jobs_close(l->jobs, on_part_closed, l);
    if (l->server != NULL)
        http_server_close(l->server, on_part_closed, l);
    if (l->port != NULL)
        mount_port_close(l->port, on_part_closed, l);
    uv_close((uv_handle_t *)&l->reconcile, on_timer_closed);
    uv_close((uv_handle_t *)&l->patience, on_timer_closed);
}

static void on_impatient(uv_timer_t *timer)
{
    finish_closing(timer->data);
}

/* Broadcasters are told that nothing is wanted any more, for as long as patience lasts. */
static void close_link(struct link *link, void (*on_closed)(struct lonely_client *c))
{
    struct http_link *l = (struct http_link *)link;
    struct lonely_client *c = link->client;
    uint64_t patience_ms = c->conf.websocket_close_timeout_ms;
    bool tell = l->receiver != NULL && (l->calling || any_on(c));

    l->on_closed = on_closed;
    l->closing = true;
    uv_timer_stop(&l->reconcile);
    if (l->receiver != NULL)
        receiver_stop(l->receiver);
    http_notifies_abandon(&l->notifies);
    list_foreach (&l->jobs->all, node, next)
        http_job_cancel(list_entry(node, struct http_job, node));
    wants_abandon(c, LONELY_CLIENT_ABANDONED);
    if (!tell) {
        finish_closing(l);
        return;
    }
    if (patience_ms != CONF_NONE)
        uv_timer_start(&l->patience, on_impatient, patience_ms, 0);
    l->ending = true;
    send_lists(l, &(struct lists){ 0 }, false);
}

/* ---- The beginning ---- */

static bool open_server(struct http_link *l, struct lonely_client_why *why)
{
    struct lonely_client *c = l->link.client;
    const struct http_server_conf conf = {
        .header_timeout_ms = 10000,
        .body_idle_timeout_ms = 30000,
        .keepalive_timeout_ms = 75000,
        .discard_bytes = 1 << 20,
        .max_header_bytes = 16384,
        .max_connections = MAX_CONNECTIONS,
        .clock = c->clock,
    };
    char bound[LISTENER_ADDRESS_MAX];
    int fd, err;

    if (!listener_open(c->conf.bind, 511, 1, &fd, bound, why->text))
        return false;
    l->bound = mem_strdup(bound);
    l->receiver = receiver_create(c);
    l->server = http_server_create(&c->loop, &conf, receiver_on_request, l->receiver);
    err = l->tls != NULL ? http_server_listen_tls(l->server, fd, l->tls)
                         : http_server_listen(l->server, fd);
    if (err != 0)
        snprintf(why->text, sizeof(why->text), "cannot listen on %s: %s", bound, uv_strerror(err));
    return err == 0;
}

/* The program has a server of its own, which broadcasters reach at `host`. */
static bool open_mount(struct http_link *l, struct lonely_client_why *why)
{
    struct lonely_client *c = l->link.client;
    const char *path = strchr(strstr(c->conf.host, "://") + 3, '/');
    char *prefix = mem_strdup(path == NULL ? "" : path);
    bool good;

    prefix[strcspn(prefix, "#")] = '\0';
    good = mount_prefix_is_good(prefix);
    if (good) {
        l->receiver = receiver_create(c);
        l->port = mount_port_create(&c->loop, MAX_CONNECTIONS, receiver_on_request, l->receiver);
    }
    if (l->port != NULL)
        l->mount = mount_create(prefix, &l->port, 1);
    else
        snprintf(why->text, sizeof(why->text), "%s",
                 good ? "cannot prepare the receiver: no descriptors"
                      : "host: its path must be printable ASCII");
    mem_free(prefix);
    return l->port != NULL;
}

/* (doc/protocol/http.md, 5.2) */
static void make_urls(struct http_link *l)
{
    const struct client_conf *conf = &l->link.client->conf;
    char host[LISTENER_ADDRESS_MAX + 16];
    const char *base = conf->host;
    size_t base_len, len;

    if (base == NULL) {
        snprintf(host, sizeof(host), "%s://%s", l->tls != NULL ? "https" : "http", l->bound);
        base = host;
    }
    base_len = strcspn(base, "#");
    len = strlen(base) + sizeof("/v1/receive");
    l->url = mem_alloc(len);
    l->recovery = mem_alloc(len);
    snprintf(l->url, len, "%.*s/v1/receive%s", (int)base_len, base, base + base_len);
    snprintf(l->recovery, len, "%.*s/v1/recover%s", (int)base_len, base, base + base_len);
}

/* Nobody is reached at an address that stands for all. */
static bool is_wildcard(const char *bound)
{
    return strncmp(bound, "0.0.0.0:", 8) == 0 || strncmp(bound, "[::]:", 5) == 0;
}

static enum lonely_client_error open_receiver(struct http_link *l, struct lonely_client_why *why)
{
    const struct client_conf *conf = &l->link.client->conf;

    if (conf->receiver_cert != NULL && conf->bind != NULL) {
        const struct tls_files files = { .certificate = conf->receiver_cert,
                                         .key = conf->receiver_key };

        l->tls = tls_server_create(&files, why->text);
        if (l->tls == NULL)
            return LONELY_CLIENT_ARGUMENT;
    }
    if (conf->bind == NULL && !open_mount(l, why))
        return LONELY_CLIENT_ARGUMENT;
    if (conf->bind != NULL && !open_server(l, why))
        return LONELY_CLIENT_REFUSED;
    if (conf->host == NULL && is_wildcard(l->bound)) {
        snprintf(why->text, sizeof(why->text),
                 "host: needed with bind %s, to say how broadcasters reach it", l->bound);
        return LONELY_CLIENT_ARGUMENT;
    }
    make_urls(l);
    receiver_set_urls(l->receiver, l->url, l->recovery);
    return LONELY_CLIENT_OK;
}

static enum lonely_client_error open_link(struct lonely_client *c, struct link **out,
                                          struct lonely_client_why *why)
{
    struct http_jobs *jobs = http_jobs_create(c, why);
    struct http_link *l;

    if (jobs == NULL)
        return LONELY_CLIENT_ARGUMENT;
    l = mem_calloc(1, sizeof(*l));
    l->link.ops = &link_http;
    l->link.client = c;
    l->jobs = jobs;
    *out = &l->link;
    uv_timer_init(&c->loop, &l->reconcile);
    uv_timer_init(&c->loop, &l->patience);
    l->reconcile.data = l;
    l->patience.data = l;
    http_notifies_init(&l->notifies, l->jobs);
    if (c->conf.bind == NULL && c->conf.host == NULL) /* only notifies */
        return LONELY_CLIENT_OK;
    return open_receiver(l, why);
}

const char *link_http_bound(const struct link *l)
{
    return ((const struct http_link *)l)->bound;
}

struct lonely_mount *link_http_mount(const struct link *l)
{
    return ((const struct http_link *)l)->mount;
}

const char *link_http_url(const struct link *l)
{
    return ((const struct http_link *)l)->url;
}

const struct link_ops link_http = {
    .open = open_link,
    .start = start,
    .flush = flush,
    .notify = notify,
    .room_again = room_again,
    .close = close_link,
};
