/*
 * Listening sockets: TCP ones by net's listener.c, Unix ones here. server.c accepts on them.
 */
#include "listening.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "listener.h"

static struct sockaddr_un unix_address(const struct tinyproto_address *address)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    memcpy(un.sun_path, address->host, strlen(address->host)); /* it is valid, so it fits */
    return un;
}

static int unix_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* A socket file at which nobody listens any more. Anything else stays. */
static bool is_stale(const struct sockaddr_un *un)
{
    struct stat st;
    bool refused;
    int fd;

    if (lstat(un->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
        return false;
    fd = unix_socket();
    if (fd < 0)
        return false;
    refused = connect(fd, (const struct sockaddr *)un, sizeof(*un)) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static bool bind_unix(int fd, const struct sockaddr_un *un)
{
    if (bind(fd, (const struct sockaddr *)un, sizeof(*un)) == 0)
        return true;
    if (errno != EADDRINUSE)
        return false;
    if (is_stale(un) && unlink(un->sun_path) == 0)
        return bind(fd, (const struct sockaddr *)un, sizeof(*un)) == 0;
    errno = EADDRINUSE;
    return false;
}

static int open_unix(const struct tinyproto_address *address, char error[LISTENING_ERROR_MAX])
{
    const struct sockaddr_un un = unix_address(address);
    int fd = unix_socket(), kept;

    if (fd >= 0 && bind_unix(fd, &un) && listen(fd, SOMAXCONN) == 0)
        return fd;
    kept = errno;
    if (fd >= 0)
        close(fd);
    snprintf(error, LISTENING_ERROR_MAX, "cannot listen on unix:%.107s: %s", address->host,
             strerror(kept));
    errno = kept;
    return -1;
}

int listening_open(const struct tinyproto_address *address, char bound[TINYPROTO_ADDRESS_TEXT_MAX],
                   char error[LISTENING_ERROR_MAX])
{
    char text[TINYPROTO_ADDRESS_TEXT_MAX];
    int fd = -1;

    tinyproto_address_print(address, text);
    if (address->is_unix) {
        strcpy(bound, text);
        return open_unix(address, error);
    }
    errno = 0;
    return listener_open(text, SOMAXCONN, 1, &fd, bound, error) ? fd : -1;
}

void listening_remove(const struct tinyproto_address *address)
{
    if (address->is_unix)
        (void)unlink(address->host);
}
