/*
 * Descriptors of the HTTP client: libcurl's socket callbacks on polls of libuv. A poll lives as
 * long as its descriptor, not as long as a transfer, which halves the cost of a POST. Addresses are
 * judged here before a descriptor is made. Called by libcurl, with options set in http_request.c.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "http_client_private.h"
#include "mem.h"

static struct http_sock *sock_find(const struct http_client *client, int fd)
{
    return fd >= 0 && (size_t)fd < client->sock_cap ? client->socks[fd] : NULL;
}

static struct http_sock *sock_create(struct http_client *client, int fd)
{
    struct http_sock *s = mem_calloc(1, sizeof *s);

    if ((size_t)fd >= client->sock_cap) {
        size_t cap = ((size_t)fd + 1) * 2;

        client->socks = mem_realloc(client->socks, cap * sizeof *client->socks);
        memset(client->socks + client->sock_cap, 0,
               (cap - client->sock_cap) * sizeof *client->socks);
        client->sock_cap = cap;
    }
    client->socks[fd] = s;
    s->client = client;
    s->fd = fd;
    list_init(&s->of_call);
    list_init(&s->of_attempts);
    return s;
}

static void on_sock_closed(uv_handle_t *handle)
{
    struct http_sock *s = handle->data;
    struct http_client *client = s->client;

    mem_free(s);
    http_client_handle_closed(client);
}

void http_sock_destroy(struct http_sock *s)
{
    s->client->socks[s->fd] = NULL;
    s->closing = true;
    s->call = NULL;
    list_remove(&s->of_call);
    list_remove(&s->of_attempts);
    if (s->has_poll)
        uv_close((uv_handle_t *)&s->poll, on_sock_closed);
    else
        mem_free(s);
}

static void sock_arm(struct http_sock *s);

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct http_sock *s = poll->data;
    struct http_client *client = s->client;
    int flags = 0, running;

    if (status < 0) {
        s->armed = 0; /* libuv has stopped it */
        flags = CURL_CSELECT_ERR;
    }
    if (s->wanted == 0) { /* a kept connection that the peer closes */
        uv_poll_stop(poll);
        s->armed = 0;
        return;
    }
    if ((events & UV_READABLE) != 0)
        flags |= CURL_CSELECT_IN;
    if ((events & UV_WRITABLE) != 0)
        flags |= CURL_CSELECT_OUT;
    if (s->call != NULL && list_is_linked(&s->call->of_silent))
        http_call_touch(s->call);
    curl_multi_socket_action(client->multi, s->fd, flags, &running);
    /* libcurl does not ask again for what it takes to be armed. `s` lives at least until libuv
     * runs closing callbacks. */
    if (!s->closing && s->wanted != 0)
        sock_arm(s);
    http_client_drain(client);
}

static void sock_arm(struct http_sock *s)
{
    int err = 0;

    if (!s->has_poll) {
        err = uv_poll_init(s->client->loop, &s->poll, s->fd);
        if (err == 0) {
            s->has_poll = true;
            s->poll.data = s;
            s->client->handles++;
        }
    }
    if (err == 0 && s->armed != s->wanted)
        err = uv_poll_start(&s->poll, s->wanted, on_poll);
    if (err == 0) {
        s->armed = s->wanted;
        uv_ref((uv_handle_t *)&s->poll);
    } else if (s->call != NULL) { /* an error told to libcurl would end all its transfers */
        http_call_trouble(s->call, HTTP_CALL_BROKEN, uv_strerror(err));
        http_call_fail_later(s->call);
    }
}

void http_sock_give(struct http_sock *s, struct http_call *call)
{
    if (s->call == call)
        return;
    list_remove(&s->of_call);
    s->call = call;
    if (call != NULL)
        list_push_back(&call->socks, &s->of_call);
}

static void sock_end(struct http_sock *s)
{
    if (s->own && !s->established && s->call != NULL)
        http_call_retry_later(s->call);
    http_sock_destroy(s);
}

/*
 * libcurl says what it waits for. The poll of a connection stays when libcurl is done with a
 * transfer. The others end here: the pipe of a resolver thread, and attempts to connect, since
 * libcurl closes a descriptor that never was a connection without asking http_sock_close (and even
 * before it says that it waits no more, which does no harm: epoll has forgotten it by itself).
 */
int http_sock_watch(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
    struct http_client *client = arg;
    struct http_sock *s = sock_find(client, fd);

    (void)unused;
    if (what == CURL_POLL_REMOVE) {
        if (s == NULL)
            return 0;
        s->wanted = 0;
        if (!s->established)
            sock_end(s);
        else if (s->has_poll)
            uv_unref((uv_handle_t *)&s->poll);
        return 0;
    }
    if (s == NULL)
        s = sock_create(client, fd);
    http_sock_give(s, http_call_of(easy));
    s->wanted = 0;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
        s->wanted |= UV_READABLE;
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
        s->wanted |= UV_WRITABLE;
    sock_arm(s);
    return 0;
}

bool http_address_allowed(const struct http_call *call, const struct sockaddr *address)
{
    const struct http_client_conf *conf = &call->client->conf;
    struct sockaddr_in v4 = { .sin_family = AF_INET };
    struct sockaddr_in6 v6;

    if (conf->allow_address == NULL)
        return true;
    if (address->sa_family == AF_INET6) {
        memcpy(&v6, address, sizeof v6);
        if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
            v4.sin_port = v6.sin6_port;
            memcpy(&v4.sin_addr, v6.sin6_addr.s6_addr + 12, 4);
            address = (const struct sockaddr *)&v4;
        }
    }
    return conf->allow_address(conf->allow_arg, call->url, address);
}

bool http_literal_allowed(const struct http_call *call, const char *host, int port)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };

    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1)
        return http_address_allowed(call, (const struct sockaddr *)&v4);
    if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1)
        return http_address_allowed(call, (const struct sockaddr *)&v6);
    return true;
}

/*
 * When an attempt fails, libcurl closes its descriptor without a word, and the next attempt mostly
 * gets the same number: libcurl then believes that it is being watched already.
 */
static struct http_sock *sock_replace(struct http_client *client, int fd)
{
    struct http_sock *old = sock_find(client, fd), *s;
    int wanted = 0;

    if (old != NULL) {
        wanted = old->wanted;
        http_sock_destroy(old);
    }
    s = sock_create(client, fd);
    s->wanted = wanted;
    if (wanted != 0)
        sock_arm(s);
    return s;
}

curl_socket_t http_sock_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_call *call = arg;
    struct http_client *client = call->client;
    struct http_sock *s;
    int fd;

    (void)purpose;
    if (client->conf.proxy == NULL && !http_address_allowed(call, &address->addr)) {
        http_call_trouble(call, HTTP_CALL_CONNECT, "address not allowed");
        http_call_retry_later(call);
        return CURL_SOCKET_BAD;
    }
    fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                address->protocol);
    if (fd < 0) {
        http_call_trouble(call, HTTP_CALL_CONNECT, uv_strerror(uv_translate_sys_error(errno)));
        http_call_retry_later(call);
        return CURL_SOCKET_BAD;
    }
    s = sock_replace(client, fd);
    http_sock_give(s, call);
    s->own = true;
    s->opened_ms = uv_now(client->loop);
    if (client->conf.timeout_sock_connect_ms != 0) {
        list_push_back(&client->attempts, &s->of_attempts);
        http_client_wake(client, s->opened_ms + client->conf.timeout_sock_connect_ms);
    }
    http_call_connecting(call);
    call->sending = false; /* again, when libcurl replaces a kept connection that has died */
    list_remove(&call->of_silent);
    return fd;
}

int http_sock_close(void *arg, curl_socket_t fd)
{
    struct http_sock *s = sock_find(arg, fd);

    if (s != NULL)
        sock_end(s);
    return close(fd);
}

static int local_port_of(int fd)
{
    struct sockaddr_storage address;
    struct sockaddr_in6 v6;
    struct sockaddr_in v4;
    socklen_t len = sizeof address;

    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        return -1;
    memcpy(&v4, &address, sizeof v4);
    memcpy(&v6, &address, sizeof v6);
    return ntohs(address.ss_family == AF_INET6 ? v6.sin6_port : v4.sin_port);
}

void http_sock_established(struct http_call *call, int local_port)
{
    list_foreach (&call->socks, node, next) {
        struct http_sock *s = list_entry(node, struct http_sock, of_call);

        list_remove(&s->of_attempts);
        if (s->established)
            continue;
        if (local_port_of(s->fd) == local_port)
            s->established = true;
        else
            http_sock_destroy(s); /* lost to another address, and closed */
    }
}
