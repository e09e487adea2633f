/*
 * The host's end of a request (<lonely/mount.h>): what it says lies in the exchange until the loop takes
 * it (mount_port.c), and what the loop says until the host asks.
 */
#include <string.h>
#include <unistd.h>

#include "mem.h"
#include "mount_private.h"

struct lonely_exchange *exchange_create(struct mount_port *port)
{
    struct lonely_exchange *e = mem_try_calloc(1, sizeof(*e));

    if (e == NULL)
        return NULL;
    e->port = port;
    e->refs = 1;
    e->fd = -1;
    e->life = EXCHANGE_OVER;
    e->peer.sa.sa_family = AF_UNSPEC;
    list_init(&e->node);
    list_init(&e->due);
    buf_init(&e->inbox, LONELY_EXCHANGE_BUFFER);
    buf_init(&e->taken, LONELY_EXCHANGE_BUFFER);
    buf_init(&e->rest, LONELY_EXCHANGE_BUFFER);
    mount_port_ref(port);
    uv_mutex_lock(&port->lock);
    port->exchanges++;
    uv_mutex_unlock(&port->lock);
    return e;
}

static void destroy(struct lonely_exchange *e)
{
    struct mount_port *port = e->port;

    if (e->fd >= 0)
        close(e->fd);
    buf_fini(&e->inbox);
    buf_fini(&e->taken);
    buf_fini(&e->rest);
    mem_free(e->head);
    mem_free((void *)(uintptr_t)e->response.headers); /* the whole answer */
    mem_free(e);
    mount_port_unref(port);
}

void exchange_unref(struct lonely_exchange *e)
{
    struct mount_port *port = e->port;
    bool last;

    uv_mutex_lock(&port->lock);
    last = --e->refs == 0;
    port->exchanges -= last;
    uv_mutex_unlock(&port->lock);
    if (last)
        destroy(e);
}

/* ---- What the host looks at ---- */

enum lonely_exchange_state exchange_state(const struct lonely_exchange *e)
{
    if (e->answered)
        return e->response.status == 101 ? LONELY_EXCHANGE_UPGRADES : LONELY_EXCHANGE_ANSWERED;
    if (e->reads && !e->ended && e->bad == 0 && e->inbox.len < LONELY_EXCHANGE_BUFFER)
        return LONELY_EXCHANGE_READS;
    return LONELY_EXCHANGE_WAITS;
}

enum lonely_exchange_state lonely_exchange_state(struct lonely_exchange *x)
{
    enum lonely_exchange_state state;

    uv_mutex_lock(&x->port->lock);
    state = exchange_state(x);
    uv_mutex_unlock(&x->port->lock);
    return state;
}

bool lonely_exchange_wait(struct lonely_exchange *x)
{
    bool waits;

    uv_mutex_lock(&x->port->lock);
    waits = exchange_state(x) == LONELY_EXCHANGE_WAITS;
    x->waiting = waits;
    uv_mutex_unlock(&x->port->lock);
    return waits;
}

void exchange_tell(struct lonely_exchange *e)
{
    struct mount_port *port = e->port;

    if (!e->waiting || exchange_state(e) == LONELY_EXCHANGE_WAITS)
        return;
    e->waiting = false;
    port->telling = e;
    port->teller = uv_thread_self();
    uv_mutex_unlock(&port->lock);
    e->on_ready(e->ready_arg);
    uv_mutex_lock(&port->lock);
    port->telling = NULL;
    uv_cond_broadcast(&port->told);
}

const struct lonely_exchange_response *lonely_exchange_response(struct lonely_exchange *x)
{
    bool answered;

    uv_mutex_lock(&x->port->lock);
    answered = x->answered;
    uv_mutex_unlock(&x->port->lock);
    return answered ? &x->response : NULL;
}

/* ---- The answer ---- */

static size_t count_lines(const char *headers)
{
    size_t n = 0;

    for (const char *at = headers; at != NULL && (at = strstr(at, "\r\n")) != NULL; at += 2)
        n++;
    return n;
}

/* Cuts "Name: value\r\n" lines, which are our own code's. */
static size_t cut_lines(char *at, struct lonely_exchange_header *to)
{
    size_t n = 0;

    for (char *end; (end = strstr(at, "\r\n")) != NULL; at = end + 2) {
        char *colon = strchr(at, ':');

        to[n].name = (struct lonely_span){ (uint8_t *)at, (size_t)(colon - at) };
        colon += 1 + strspn(colon + 1, " ");
        to[n++].value = (struct lonely_span){ (uint8_t *)colon, (size_t)(end - colon) };
    }
    return n;
}

/* One block: the array of headers, their lines, the body. */
static struct lonely_exchange_response copy_response(const struct http_response *r)
{
    static const char name[] = "Content-Type";
    const char *lines = r->headers == NULL ? "" : r->headers;
    const char *type = r->content_type == NULL ? "" : r->content_type;
    size_t count = count_lines(lines) + 1;
    size_t lines_size = strlen(lines) + 1, type_len = strlen(type);
    struct lonely_exchange_header *headers = mem_alloc(count * sizeof(*headers) + lines_size +
                                                       sizeof(name) - 1 + type_len + r->body.len);
    char *at = (char *)(headers + count);
    size_t n;

    memcpy(at, lines, lines_size);
    n = cut_lines(at, headers);
    at += lines_size;
    if (type_len > 0) {
        memcpy(at, name, sizeof(name) - 1);
        memcpy(at + sizeof(name) - 1, type, type_len);
        headers[n].name = (struct lonely_span){ (uint8_t *)at, sizeof(name) - 1 };
        at += sizeof(name) - 1;
        headers[n++].value = (struct lonely_span){ (uint8_t *)at, type_len };
        at += type_len;
    }
    if (r->body.len > 0)
        memcpy(at, r->body.ptr, r->body.len);
    return (struct lonely_exchange_response){
        .status = r->status,
        .headers = headers,
        .header_count = n,
        .body = { (uint8_t *)at, r->body.len },
    };
}

void exchange_answer(struct lonely_exchange *e, const struct http_response *r)
{
    struct lonely_exchange_response response = copy_response(r);

    uv_mutex_lock(&e->port->lock);
    e->response = response;
    e->answered = true;
    buf_fini(&e->inbox); /* what is still to come is thrown away */
    exchange_tell(e);
    uv_mutex_unlock(&e->port->lock);
}

/* ---- The body ---- */

/* The loop says so, when it comes to it. Under lock. */
static void spoil(struct lonely_exchange *x, int status)
{
    x->bad = status;
    mount_port_schedule(x);
}

/* Under lock. */
static size_t take(struct lonely_exchange *x, const void *ptr, size_t len)
{
    uint64_t announced = x->x.head.content_length;

    if (announced != HTTP_LENGTH_UNKNOWN && len > announced - x->written) {
        spoil(x, 400);
        return 0;
    }
    if (len > buf_room(&x->inbox))
        len = buf_room(&x->inbox);
    if (len == 0)
        return 0;
    if (!buf_append(&x->inbox, ptr, len)) {
        spoil(x, 503);
        return 0;
    }
    x->written += len;
    mount_port_schedule(x);
    return len;
}

size_t lonely_exchange_write(struct lonely_exchange *x, const void *ptr, size_t len)
{
    size_t taken = 0;

    uv_mutex_lock(&x->port->lock);
    if (x->answered)
        taken = len;
    else if (exchange_state(x) == LONELY_EXCHANGE_READS)
        taken = take(x, ptr, len);
    uv_mutex_unlock(&x->port->lock);
    return taken;
}

void lonely_exchange_end(struct lonely_exchange *x)
{
    uint64_t announced = x->x.head.content_length;

    uv_mutex_lock(&x->port->lock);
    if (!x->ended && !x->answered) {
        x->ended = true;
        if (announced != HTTP_LENGTH_UNKNOWN && x->written != announced)
            x->bad = 400;
        mount_port_schedule(x);
    }
    uv_mutex_unlock(&x->port->lock);
}

/* ---- The end ---- */

/* The host is gone from now on, and told nothing more. Under lock. */
static void leave(struct lonely_exchange *x)
{
    uv_thread_t self = uv_thread_self();
    struct mount_port *port = x->port;

    x->left = true;
    x->waiting = false;
    while (port->telling == x && !uv_thread_equal(&self, &port->teller))
        uv_cond_wait(&port->told, &port->lock);
    mount_port_schedule(x);
}

bool lonely_exchange_upgrade(struct lonely_exchange *x, int fd, struct lonely_span rest)
{
    bool good;

    uv_mutex_lock(&x->port->lock);
    good = exchange_state(x) == LONELY_EXCHANGE_UPGRADES && !x->port->closed &&
           buf_append(&x->rest, rest.ptr, rest.len);
    x->given = good;
    x->fd = good ? fd : -1;
    leave(x);
    uv_mutex_unlock(&x->port->lock);
    exchange_unref(x);
    if (!good)
        close(fd);
    return good;
}

void lonely_exchange_free(struct lonely_exchange *x)
{
    if (x == NULL)
        return;
    uv_mutex_lock(&x->port->lock);
    leave(x);
    uv_mutex_unlock(&x->port->lock);
    exchange_unref(x);
}
