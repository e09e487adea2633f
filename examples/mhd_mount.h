/*
 * Between libmicrohttpd and <lonely/mount.h>: a server of the program's own that answers what is below a
 * prefix through a mount, and everything else itself. For the examples mount_broadcaster.c and
 * mount_subscriber.c.
 *
 * The daemon has one thread, on poll: with epoll libmicrohttpd 0.9.75 may overlook, until its timeout, that
 * a peer has left which had just sent something. While an exchange waits its connection is suspended;
 * lonely_exchange_wait comes behind the suspending, so that on_ready never comes too early.
 */
#ifndef MHD_MOUNT_H
#define MHD_MOUNT_H

#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <lonely/mount.h>

struct mhd_mount {
    struct MHD_Daemon *daemon;
    const char *prefix;
    pthread_mutex_t lock;
    struct lonely_mount *mount; /* lock; NULL: not yet, or no more */
};

/* One request. */
struct mhd_call {
    struct MHD_Connection *connection;
    struct lonely_exchange *x;
    bool reading;  /* libmicrohttpd gives us the body */
    char target[]; /* as it was sent */
};

/* On a thread of the library. */
static inline void mhd_on_ready(void *arg)
{
    MHD_resume_connection(((struct mhd_call *)arg)->connection);
}

/* The first to see a request; what it returns is *con_cls of the others. */
static inline void *mhd_on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
    struct mhd_call *call = calloc(1, sizeof(*call) + strlen(target) + 1);

    (void)cls;
    if (call == NULL)
        return NULL;
    call->connection = connection;
    strcpy(call->target, target);
    return call;
}

static inline void mhd_on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                                    enum MHD_RequestTerminationCode why)
{
    struct mhd_call *call = *con_cls;

    (void)cls;
    (void)connection;
    (void)why;
    if (call == NULL)
        return;
    lonely_exchange_free(call->x);
    free(call);
    *con_cls = NULL;
}

/* ---- The request ---- */

struct mhd_head {
    struct lonely_exchange_header headers[LONELY_EXCHANGE_HEADERS_MAX + 1];
    struct lonely_exchange_request request;
};

static inline struct lonely_span mhd_span(const char *text)
{
    return (struct lonely_span){ (const uint8_t *)text, text == NULL ? 0 : strlen(text) };
}

static inline enum MHD_Result mhd_on_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                            size_t name_len, const char *value, size_t value_len)
{
    struct mhd_head *head = cls;
    struct lonely_exchange_request *r = &head->request;

    (void)kind;
    if (strcasecmp(name, "Content-Length") == 0)
        r->content_length = strtoull(value, NULL, 10);
    else if (strcasecmp(name, "Transfer-Encoding") == 0)
        r->content_length = LONELY_EXCHANGE_LENGTH_UNKNOWN;
    head->headers[r->header_count++] =
        (struct lonely_exchange_header){ { (const uint8_t *)name, name_len },
                                         { (const uint8_t *)value, value_len } };
    return r->header_count <= LONELY_EXCHANGE_HEADERS_MAX ? MHD_YES : MHD_NO;
}

static inline struct lonely_exchange *mhd_begin(struct mhd_mount *m, struct mhd_call *call,
                                                const char *method, const char *version)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    struct lonely_exchange *x = NULL;
    struct mhd_head head = { .request = { .method = mhd_span(method),
                                          .target = mhd_span(call->target),
                                          .peer = info->client_addr,
                                          .version_1_0 = strcmp(version, "HTTP/1.0") == 0 } };

    head.request.headers = head.headers;
    MHD_get_connection_values_n(call->connection, MHD_HEADER_KIND, mhd_on_header, &head);
    pthread_mutex_lock(&m->lock);
    if (m->mount != NULL)
        x = lonely_mount_begin(m->mount, &head.request, mhd_on_ready, call);
    pthread_mutex_unlock(&m->lock);
    return x;
}

/* ---- The answer ---- */

static inline enum MHD_Result mhd_send(struct MHD_Connection *connection, int status,
                                       struct MHD_Response *response)
{
    enum MHD_Result result = MHD_queue_response(connection, (unsigned)status, response);

    MHD_destroy_response(response);
    return result;
}

static inline enum MHD_Result mhd_send_text(struct MHD_Connection *connection, int status,
                                            const char *text)
{
    return mhd_send(connection, status,
                    MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text,
                                                    MHD_RESPMEM_MUST_COPY));
}

/* The 101 has left. libmicrohttpd closes its descriptor, and we keep a copy of it. */
static inline void mhd_on_upgraded(void *cls, struct MHD_Connection *connection, void *con_cls,
                                   const char *extra, size_t extra_len, MHD_socket sock,
                                   struct MHD_UpgradeResponseHandle *handle)
{
    struct mhd_call *call = cls;
    int fd = dup(sock);

    (void)connection;
    (void)con_cls;
    if (fd >= 0) {
        lonely_exchange_upgrade(call->x, fd,
                                (struct lonely_span){ (const uint8_t *)extra, extra_len });
        call->x = NULL;
    }
    MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}

static inline enum MHD_Result mhd_answer(struct mhd_call *call)
{
    const struct lonely_exchange_response *r = lonely_exchange_response(call->x);
    struct MHD_Response *response =
        r->status == 101 ? MHD_create_response_for_upgrade(mhd_on_upgraded, call)
                         : MHD_create_response_from_buffer(
                               r->body.len, (void *)(uintptr_t)r->body.ptr, MHD_RESPMEM_MUST_COPY);

    for (size_t i = 0; i < r->header_count; i++) {
        char name[64], value[256];

        snprintf(name, sizeof(name), "%.*s", (int)r->headers[i].name.len, r->headers[i].name.ptr);
        snprintf(value, sizeof(value), "%.*s", (int)r->headers[i].value.len,
                 r->headers[i].value.ptr);
        if (strcasecmp(name, "Connection") != 0) /* libmicrohttpd says so itself */
            MHD_add_response_header(response, name, value);
    }
    return mhd_send(call->connection, r->status, response);
}

static inline enum MHD_Result mhd_wait(struct mhd_call *call)
{
    MHD_suspend_connection(call->connection);
    if (!lonely_exchange_wait(call->x))
        MHD_resume_connection(call->connection);
    return MHD_YES; /* the handler is called again */
}

/* ---- The handler ---- */

/* A part of the body, its end (`*len` 0), or again what was not taken. */
static inline enum MHD_Result mhd_on_body(struct mhd_call *call, const char *bytes, size_t *len)
{
    if (*len == 0) {
        lonely_exchange_end(call->x);
        return lonely_exchange_state(call->x) == LONELY_EXCHANGE_WAITS ? mhd_wait(call)
                                                                       : mhd_answer(call);
    }
    *len -= lonely_exchange_write(call->x, bytes, *len);
    return *len > 0 ? mhd_wait(call) : MHD_YES;
}

static inline enum MHD_Result mhd_on_request(void *cls, struct MHD_Connection *connection,
                                             const char *url, const char *method,
                                             const char *version, const char *body, size_t *len,
                                             void **con_cls)
{
    struct mhd_mount *m = cls;
    struct mhd_call *call = *con_cls;
    size_t prefix_len = strlen(m->prefix);

    if (call == NULL)
        return MHD_NO;
    if (strncmp(url, m->prefix, prefix_len) != 0 || url[prefix_len] != '/')
        return mhd_send_text(connection, 200, "The program's own page\n");
    if (call->reading)
        return mhd_on_body(call, body, len);
    if (call->x == NULL)
        call->x = mhd_begin(m, call, method, version);
    if (call->x == NULL)
        return mhd_send_text(connection, 503, "");
    switch (lonely_exchange_state(call->x)) {
    case LONELY_EXCHANGE_WAITS:
        return mhd_wait(call);
    case LONELY_EXCHANGE_READS: /* so that libmicrohttpd says 100 Continue, and reads */
        call->reading = true;
        return MHD_YES;
    case LONELY_EXCHANGE_ANSWERED:
    case LONELY_EXCHANGE_UPGRADES:
        break;
    }
    return mhd_answer(call);
}

/* ---- Life ---- */

/* Listens on 127.0.0.1:`port` (0: any); the mount may be set later. Returns the port, or 0. */
static inline unsigned mhd_mount_start(struct mhd_mount *m, const char *prefix, unsigned port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    m->prefix = prefix;
    pthread_mutex_init(&m->lock, NULL);
    m->daemon = MHD_start_daemon(
        MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE, 0, NULL, NULL,
        mhd_on_request, m, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_URI_LOG_CALLBACK,
        mhd_on_target, NULL, MHD_OPTION_NOTIFY_COMPLETED, mhd_on_completed, NULL,
        MHD_OPTION_CONNECTION_TIMEOUT, 30U, MHD_OPTION_END);
    return m->daemon == NULL ? 0 : MHD_get_daemon_info(m->daemon, MHD_DAEMON_INFO_BIND_PORT)->port;
}

/* From now on requests go to `mount`; NULL: they are answered 503. */
static inline void mhd_mount_set(struct mhd_mount *m, struct lonely_mount *mount)
{
    pthread_mutex_lock(&m->lock);
    m->mount = mount;
    pthread_mutex_unlock(&m->lock);
}

/* When nothing waits any more: after the broadcaster has ended, or the client is closed. */
static inline void mhd_mount_stop(struct mhd_mount *m)
{
    MHD_stop_daemon(m->daemon);
    pthread_mutex_destroy(&m->lock);
}

#endif
