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
#include "lookup.h"
#include "mem.h"

#define ATTEMPT_MIN_MS 250
#define LOOKUPS_MAX    16 /* of a client at a time; each is a thread */

struct opening {
    struct tinyproto_conn *conn;
    struct list waiting;   /* in owner->unresolved */
    struct lookup *lookup; /* at work */
    struct tinyproto_address target;
    struct addrinfo *list, *next;
    int error; /* of the last attempt */
};

void opening_cancel(struct tinyproto_conn *c)
{
    struct opening *o = c->opening;

    c->opening = NULL;
    if (o == NULL)
        return;
    list_remove(&o->waiting);
    if (o->lookup != NULL) {
        lookup_cancel(o->lookup);
        c->owner->n_lookups--; /* another's turn comes with the loop's */
    }
    if (o->list != NULL)
        freeaddrinfo(o->list);
    mem_free(o);
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

static void on_looked_up(void *arg, int status, struct addrinfo *list)
{
    struct opening *o = arg;
    struct endpoint *owner = o->conn->owner;

    o->lookup = NULL;
    owner->n_lookups--;
    o->list = list;
    o->next = list;
    if (status == 0)
        opening_next(o->conn);
    else
        conn_end(o->conn, TINYPROTO_E_RESOLVE, status);
    opening_look_up(owner);
}

static void print_port(const struct opening *o, char out[8])
{
    snprintf(out, 8, "%u", (unsigned)o->target.port);
}

void opening_look_up(struct endpoint *e)
{
    struct list *node;
    char port[8];

    while (e->n_lookups < LOOKUPS_MAX && (node = list_pop_front(&e->unresolved)) != NULL) {
        struct opening *o = list_entry(node, struct opening, waiting);

        print_port(o, port);
        o->lookup = lookup_start(e->loop, o->target.host, port, on_looked_up, o);
        if (o->lookup != NULL)
            e->n_lookups++;
        else
            conn_end(o->conn, TINYPROTO_E_RESOLVE, EAI_MEMORY);
    }
}

static void resolve(struct tinyproto_conn *c)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
    struct opening *o = c->opening;
    char port[8];

    print_port(o, port);
    if (getaddrinfo(o->target.host, port, &hints, &o->list) == 0) { /* asks nobody */
        o->next = o->list;
        opening_next(c);
        return;
    }
    o->list = NULL;
    list_push_back(&c->owner->unresolved, &o->waiting);
    opening_look_up(c->owner);
}

void opening_start(struct tinyproto_conn *c, const struct tinyproto_address *address)
{
    struct opening *o = mem_try_calloc(1, sizeof(*o));
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    if (o == NULL) {
        conn_end(c, TINYPROTO_E_MEMORY, 0);
        return;
    }
    c->opening = o;
    o->conn = c;
    o->target = *address;
    list_init(&o->waiting);
    c->life_kind = DUE_OPEN;
    deadline_set(&c->owner->deadlines, DUE_OPEN, &c->life, c->open_ms);
    if (!address->is_unix) {
        resolve(c);
        return;
    }
    memcpy(un.sun_path, address->host, strlen(address->host));
    if (!attempt(c, (const struct sockaddr *)&un, sizeof(un)))
        conn_end(c, TINYPROTO_E_CONNECT, o->error);
}
