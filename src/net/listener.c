/*
 * Listening sockets from the addresses of the configuration. Called at start, before the loops run:
 * names are looked up by the blocking resolver. Who accepts is acceptor.c.
 */
#include "listener.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mem.h"

#define HOST_MAX 256

static bool fail(char error[256], const char *address, const char *why)
{
    snprintf(error, 256, "cannot listen on %.100s: %s", address, why);
    return false;
}

static bool is_port(const char *s)
{
    unsigned long port = 0;

    for (size_t i = 0; s[i] != '\0'; i++) {
        if (s[i] < '0' || s[i] > '9' || i == 5)
            return false;
        port = port * 10 + (unsigned long)(s[i] - '0');
    }
    return s[0] != '\0' && port <= 65535;
}

/* Cuts "HOST:PORT" or "[v6]:PORT". A bare v6 address is refused: its last group might be a port. */
static bool split(const char *address, char host[HOST_MAX], const char **port)
{
    const char *colon = strrchr(address, ':'), *begin = address, *end = colon;

    if (colon == NULL)
        return false;
    if (address[0] == '[') {
        begin++;
        end = strchr(address, ']');
        if (end == NULL || end + 1 != colon)
            return false;
    } else if (memchr(address, ':', (size_t)(colon - address)) != NULL) {
        return false;
    }
    if (end == begin || (size_t)(end - begin) >= HOST_MAX)
        return false;
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = '\0';
    *port = colon + 1;
    return is_port(*port);
}

/* One socket bound to `sa`, not yet listening; -1 with errno. */
static int bind_one(const struct sockaddr *sa, socklen_t len, bool share)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

    if (fd < 0)
        return -1;
    /* "[::]" means v6 only, whatever the system's default: v4 has an address of its own. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        (!share || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0) &&
        (sa->sa_family != AF_INET6 ||
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) == 0) &&
        bind(fd, sa, len) == 0)
        return fd;
    on = errno;
    close(fd);
    errno = on;
    return -1;
}

static void close_all(const int *fds, size_t count)
{
    int kept = errno;

    for (size_t i = 0; i < count; i++)
        close(fds[i]);
    errno = kept;
}

static void print_address(const struct sockaddr *sa, socklen_t len,
                          char bound[LISTENER_ADDRESS_MAX])
{
    char host[LISTENER_ADDRESS_MAX - 16] = "", port[8] = "";

    (void)getnameinfo(sa, len, host, sizeof(host), port, sizeof(port),
                      NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(bound, LISTENER_ADDRESS_MAX, sa->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
             port);
}

/*
 * Binds `count` sockets to one address and has them listen. The port is tried plainly first: with
 * SO_REUSEPORT alone, another process of the same user that has set it too would not be noticed. A
 * bound socket that does not listen yet gives way to sharing, once the option is set on it.
 */
static bool bind_all(const struct addrinfo *ai, int backlog, size_t count, int *fds,
                     char bound[LISTENER_ADDRESS_MAX])
{
    struct sockaddr_storage real;
    socklen_t len = sizeof(real);
    int on = 1;

    fds[0] = bind_one(ai->ai_addr, ai->ai_addrlen, false);
    if (fds[0] < 0)
        return false;
    if (getsockname(fds[0], (struct sockaddr *)&real, &len) != 0 ||
        (count > 1 && setsockopt(fds[0], SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0)) {
        close_all(fds, 1);
        return false;
    }
    for (size_t i = 1; i < count; i++) {
        fds[i] = bind_one((struct sockaddr *)&real, len, true);
        if (fds[i] < 0) {
            close_all(fds, i);
            return false;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (listen(fds[i], backlog) != 0) {
            close_all(fds, count);
            return false;
        }
    }
    print_address((struct sockaddr *)&real, len, bound);
    return true;
}

/* The first address that this machine has. One that it has but whose port is taken is an error,
 * even if the name has others. */
static bool bind_first(const struct addrinfo *list, int backlog, size_t count, int *fds,
                       char bound[LISTENER_ADDRESS_MAX])
{
    for (const struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next) {
        if (bind_all(ai, backlog, count, fds, bound))
            return true;
        if (errno != EADDRNOTAVAIL && errno != EAFNOSUPPORT)
            return false;
    }
    return false;
}

bool listener_open(const char *address, int backlog, size_t count, int *fds,
                   char bound[LISTENER_ADDRESS_MAX], char error[256])
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *list;
    char host[HOST_MAX];
    const char *port;
    int *opened, err;
    bool ok;

    if (!split(address, host, &port))
        return fail(error, address, "not HOST:PORT or [IPV6]:PORT");
    err = getaddrinfo(host, port, &hints, &list);
    if (err != 0)
        return fail(error, address, err == EAI_SYSTEM ? strerror(errno) : gai_strerror(err));
    opened = mem_calloc(count, sizeof(*opened));
    ok = bind_first(list, backlog, count, opened, bound);
    if (ok)
        memcpy(fds, opened, count * sizeof(*opened));
    else
        fail(error, address, strerror(errno));
    mem_free(opened);
    freeaddrinfo(list);
    return ok;
}
