/*
 * A mount: the prefix, and which loop gets a request. Called by hosts, through <lonely/mount.h>, and by
 * broadcaster and client, which have one each.
 */
#include <string.h>

#include "mem.h"
#include "mount_private.h"

#define PREFIX_MAX 1024

struct lonely_mount {
    char *prefix; /* without a slash at its end */
    size_t prefix_len;
    struct mount_port **ports;
    size_t n;
    atomic_size_t next; /* they take turns */
};

bool mount_prefix_is_good(const char *prefix)
{
    size_t len = strlen(prefix);

    if (len == 0)
        return true;
    for (size_t i = 0; i < len; i++) {
        if (prefix[i] <= 0x20 || prefix[i] >= 0x7f || prefix[i] == '?' || prefix[i] == '#')
            return false;
    }
    return prefix[0] == '/' && len <= PREFIX_MAX;
}

struct lonely_mount *mount_create(const char *prefix, struct mount_port *const *ports, size_t n)
{
    struct lonely_mount *m = mem_calloc(1, sizeof(*m));

    m->prefix = mem_strdup(prefix);
    m->prefix_len = strlen(prefix);
    while (m->prefix_len > 0 && prefix[m->prefix_len - 1] == '/')
        m->prefix_len--;
    m->ports = mem_calloc(n, sizeof(struct mount_port *));
    m->n = n;
    atomic_init(&m->next, 0);
    for (size_t i = 0; i < n; i++) {
        m->ports[i] = ports[i];
        mount_port_ref(ports[i]);
    }
    return m;
}

void mount_destroy(struct lonely_mount *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->n; i++)
        mount_port_unref(m->ports[i]);
    mem_free(m->ports);
    mem_free(m->prefix);
    mem_free(m);
}

/* Of an absolute form ("http://host/path") the part from the path on. */
static struct lonely_span path_on(struct lonely_span target)
{
    const uint8_t *at;

    if (target.len == 0 || target.ptr[0] == '/')
        return target;
    at = memmem(target.ptr, target.len, "://", 3);
    if (at == NULL)
        return target;
    target.len -= (size_t)(at + 3 - target.ptr);
    target.ptr = at + 3;
    at = memchr(target.ptr, '/', target.len);
    if (at == NULL)
        return (struct lonely_span){ 0 };
    target.len -= (size_t)(at - target.ptr);
    target.ptr = at;
    return target;
}

/* Takes the prefix off. */
static bool is_under(const struct lonely_mount *m, struct lonely_span *target)
{
    if (target->len <= m->prefix_len || target->ptr[m->prefix_len] != '/' ||
        memcmp(target->ptr, m->prefix, m->prefix_len) != 0)
        return false;
    target->ptr += m->prefix_len;
    target->len -= m->prefix_len;
    return true;
}

/* ---- The copy of a head ---- */

/* 0: too much. */
static size_t head_bytes(const struct lonely_exchange_request *r)
{
    size_t left = LONELY_EXCHANGE_HEAD_MAX;

    if (r->header_count > LONELY_EXCHANGE_HEADERS_MAX || r->target.len > left ||
        r->method.len > left - r->target.len)
        return 0;
    left -= r->target.len + r->method.len;
    for (size_t i = 0; i < r->header_count; i++) {
        const struct lonely_exchange_header *h = &r->headers[i];

        if (h->name.len > left || h->value.len > left - h->name.len)
            return 0;
        left -= h->name.len + h->value.len;
    }
    return LONELY_EXCHANGE_HEAD_MAX - left + 1; /* an empty head is one, too */
}

static struct lonely_span copy_span(uint8_t **to, struct lonely_span from)
{
    struct lonely_span copy = { *to, from.len };

    if (from.len > 0)
        memcpy(*to, from.ptr, from.len);
    *to += from.len;
    return copy;
}

/* false: no memory. */
static bool copy_head(struct lonely_exchange *e, const struct lonely_mount *m,
                      const struct lonely_exchange_request *r, size_t bytes)
{
    struct http_head *head = &e->x.head;
    struct http_header *headers;
    uint8_t *to;

    e->head = mem_try_alloc(r->header_count * sizeof(*headers) + bytes);
    if (e->head == NULL)
        return false;
    headers = e->head;
    to = (uint8_t *)(headers + r->header_count);
    head->method = copy_span(&to, r->method);
    head->target = path_on(copy_span(&to, r->target));
    head->headers = headers;
    head->header_count = r->header_count;
    head->version_1_0 = r->version_1_0;
    head->content_length = r->content_length;
    for (size_t i = 0; i < r->header_count; i++) {
        headers[i].name = copy_span(&to, r->headers[i].name);
        headers[i].value = copy_span(&to, r->headers[i].value);
    }
    head->mounted = (struct lonely_span){ head->target.ptr, m->prefix_len };
    return true;
}

static void copy_peer(struct lonely_exchange *e, const struct sockaddr *peer)
{
    if (peer == NULL)
        return;
    if (peer->sa_family == AF_INET)
        memcpy(&e->peer.in, peer, sizeof(e->peer.in));
    else if (peer->sa_family == AF_INET6)
        memcpy(&e->peer.in6, peer, sizeof(e->peer.in6));
    else
        return;
    e->x.peer = &e->peer.sa;
}

/* ---- Requests ---- */

static void refuse(struct lonely_exchange *e, int status)
{
    static const char unknown[] = "{\"detail\":\"Not Found\"}";
    bool says = status == 404;

    exchange_answer(e, &(struct http_response){
                           .status = status,
                           .content_type = says ? "application/json" : NULL,
                           .headers = status == 503 ? "Retry-After: 1\r\n" : NULL,
                           .body = { (const uint8_t *)unknown, says ? sizeof(unknown) - 1 : 0 },
                       });
}

struct lonely_exchange *lonely_mount_begin(struct lonely_mount *m,
                                           const struct lonely_exchange_request *request,
                                           lonely_exchange_ready_fn *on_ready, void *arg)
{
    size_t turn = atomic_fetch_add_explicit(&m->next, 1, memory_order_relaxed) % m->n;
    struct lonely_exchange *e = exchange_create(m->ports[turn]);
    size_t bytes = head_bytes(request);

    if (e == NULL)
        return NULL;
    e->on_ready = on_ready;
    e->ready_arg = arg;
    e->ended = request->content_length == 0;
    e->x.secure = request->secure;
    copy_peer(e, request->peer);
    if (bytes == 0)
        refuse(e, 431);
    else if (!copy_head(e, m, request, bytes))
        refuse(e, 503);
    else if (!is_under(m, &e->x.head.target))
        refuse(e, 404);
    else if (!mount_port_add(e->port, e))
        refuse(e, 503);
    return e;
}
