/*
 * How a client's connection comes to be connected: resolving without blocking the loop, then all
 * addresses in turn.                                          (doc/protocol/tinyproto.md, 8)
 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "conn_private.h"
#include "mem.h"

#define ATTEMPT_MIN_MS 250

struct opening {
    uv_getaddrinfo_t req;
    struct tinyproto_conn *conn; /* NULL: ended while the resolver was at work */
    bool is_resolving;
    struct sockaddr_un un;
    struct addrinfo *list, *next;
    int error; /* of the last attempt */
};

static void opening_free(struct opening *o)
{
    if (o->list != NULL)
        freeaddrinfo(o->list);
    mem_free(o);
}

void opening_cancel(struct tinyproto_conn *c)
{
    struct opening *o = c->opening;

    c->opening = NULL;
    if (o == NULL)
        return;
    o->conn = NULL;
    if (o->is_resolving)
        (void)uv_cancel((uv_req_t *)&o->req); /* freed by on_resolved, soon or late */
    else
        opening_free(o);
}

static void note_peer(struct tinyproto_conn *c)
{
    socklen_t len = sizeof(c->peer);
    char text[PEER_TEXT_MAX], *copy;

    if (getpeername(c->fd, &c->peer.sa, &len) != 0 || c->peer.sa.sa_family == AF_UNIX)
        return;
    peer_print(&c->peer.sa, text);
    copy = mem_try_alloc(strlen(text) + 1);
    if (copy == NULL)
        return; /* the target stays */
    mem_free(c->peer_text);
    c->peer_text = strcpy(copy, text);
}

static void connected(struct tinyproto_conn *c)
{
    opening_cancel(c);
    deadline_clear(&c->extra);
    note_peer(c);
    conn_handshake(c);
}

static void on_connecting(uv_poll_t *poll, int status, int events)
{
    struct tinyproto_conn *c = poll->data;
    socklen_t len = sizeof(c->opening->error);

    (void)events;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &c->opening->error, &len) != 0)
        c->opening->error = errno;
    if (c->opening->error == 0 && status < 0)
        c->opening->error = -status;
    if (c->opening->error != 0) {
        deadline_clear(&c->extra);
        conn_poll_close(c); /* and on to the next */
        return;
    }
    (void)conn_watch(c, 0, NULL);
    connected(c);
    conn_service(c, false);
}

/* The rest of the time is shared by the addresses that are left. */
static void limit_attempt(struct tinyproto_conn *c)
{
    uint64_t now = uv_now(c->owner->loop), left = 0, n = 1;

    if (!c->life.set || c->opening->next == NULL)
        return; /* no limit, or the whole rest */
    for (const struct addrinfo *ai = c->opening->next; ai != NULL; ai = ai->ai_next)
        n++;
    if (c->life.at_ms > now)
        left = (c->life.at_ms - now) / n;
    deadline_set(&c->owner->deadlines, DUE_ATTEMPT, &c->extra,
                 left > ATTEMPT_MIN_MS ? left : ATTEMPT_MIN_MS);
}

/* false: this one cannot be, `error` says why. */
static bool attempt(struct tinyproto_conn *c, const struct sockaddr *sa, socklen_t len)
{
    struct opening *o = c->opening;
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    o->error = errno;
    if (fd < 0)
        return false;
    if (connect(fd, sa, len) == 0) {
        o->error = ENOMEM;
        if (!conn_poll_open(c, fd))
            return false;
        connected(c);
        return true;
    }
    o->error = errno;
    if (o->error != EINPROGRESS) {
        close(fd);
        return false;
    }
    o->error = ETIMEDOUT; /* if nothing else is heard */
    if (!conn_poll_open(c, fd))
        return false;
    limit_attempt(c);
    return conn_watch(c, UV_WRITABLE, on_connecting);
}

void opening_next(struct tinyproto_conn *c)
{
    struct opening *o = c->opening;

    while (o->next != NULL) {
        const struct addrinfo *ai = o->next;

        o->next = ai->ai_next;
        if (attempt(c, ai->ai_addr, ai->ai_addrlen))
            return;
    }
    conn_end(c, TINYPROTO_E_CONNECT, o->error);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct opening *o = req->data;
    struct tinyproto_conn *c = o->conn;

    o->is_resolving = false;
    o->list = list;
    o->next = list;
    if (c == NULL) {
        opening_free(o);
    } else if (status != 0) {
        conn_end(c, TINYPROTO_E_RESOLVE,
                 status == UV_EAI_NONAME || status == UV_EAI_NODATA ? EAI_NONAME
                 : status == UV_EAI_AGAIN                           ? EAI_AGAIN
                                                                    : EAI_FAIL);
    } else {
        opening_next(c);
    }
}

static void resolve(struct tinyproto_conn *c, const struct tinyproto_address *address)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
                              .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
    struct opening *o = c->opening;
    char port[8];

    snprintf(port, sizeof(port), "%u", (unsigned)address->port);
    if (getaddrinfo(address->host, port, &hints, &o->list) == 0) { /* asks nobody */
        o->next = o->list;
        opening_next(c);
        return;
    }
    hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
    o->list = NULL;
    o->req.data = o;
    if (uv_getaddrinfo(c->owner->loop, &o->req, on_resolved, address->host, port, &hints) != 0) {
        conn_end(c, TINYPROTO_E_RESOLVE, EAI_MEMORY);
        return;
    }
    o->is_resolving = true;
}

void opening_start(struct tinyproto_conn *c, const struct tinyproto_address *address)
{
    struct opening *o = mem_try_calloc(1, sizeof(*o));

    if (o == NULL) {
        conn_end(c, TINYPROTO_E_MEMORY, 0);
        return;
    }
    c->opening = o;
    o->conn = c;
    c->life_kind = DUE_OPEN;
    deadline_set(&c->owner->deadlines, DUE_OPEN, &c->life, c->open_ms);
    if (!address->is_unix) {
        resolve(c, address);
        return;
    }
    o->un.sun_family = AF_UNIX;
    memcpy(o->un.sun_path, address->host, strnlen(address->host, sizeof(o->un.sun_path) - 1));
    if (!attempt(c, (const struct sockaddr *)&o->un, sizeof(o->un)))
        conn_end(c, TINYPROTO_E_CONNECT, o->error);
}
