/*
 * Just enough blocking HTTP for the examples: one POST, one reply, one connection. Uses memmem:
 * define _GNU_SOURCE before any #include.
 */
#ifndef BLOCKING_HTTP_H
#define BLOCKING_HTTP_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* A connection to "HOST:PORT" or "[IPV6]:PORT", whichever address of the host takes it, that waits at most 10
 * seconds for anything; or -1. */
static inline int http_connect(const char *address)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    const struct timeval patience = { .tv_sec = 10 };
    const char *colon = strrchr(address, ':');
    size_t len = colon != NULL ? (size_t)(colon - address) : 0;
    struct addrinfo *found;
    char host[256];
    int fd = -1;

    if (colon == NULL || len >= sizeof(host))
        return -1;
    if (len > 2 && address[0] == '[' && address[len - 1] == ']') {
        address++;
        len -= 2;
    }
    snprintf(host, sizeof(host), "%.*s", (int)len, address);
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
        return -1;
    for (const struct addrinfo *at = found; fd < 0 && at != NULL; at = at->ai_next) {
        fd = socket(at->ai_family, SOCK_STREAM, 0);
        if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0 ||
                        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0 ||
                        connect(fd, at->ai_addr, at->ai_addrlen) != 0)) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

static inline bool http_send(int fd, const void *bytes, size_t len)
{
    const char *at = bytes;

    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

/* The value of a header in a NUL-terminated head, or NULL. */
static inline const char *http_header(const char *head, const char *name)
{
    size_t len = strlen(name);

    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, len) == 0 && line[len] == ':')
            return line + len + 1 + strspn(line + len + 1, " ");
    }
    return NULL;
}

/*
 * Reads one request or reply with a Content-Length into `buf`: the head, ended by a NUL in place of
 * the last line feed, then the body. False when the connection ends before, or it does not fit.
 */
static inline bool http_receive(int fd, char *buf, size_t cap, const char **body, size_t *body_len)
{
    size_t have = 0, head_len = 0, need = 0;

    while (head_len == 0 || have < need) {
        ssize_t n = have < cap ? recv(fd, buf + have, cap - have, 0) : 0;
        const char *end;

        if (n <= 0)
            return false;
        have += (size_t)n;
        end = memmem(buf, have, "\r\n\r\n", 4);
        if (head_len == 0 && end != NULL) {
            const char *length;
            size_t announced;

            head_len = (size_t)(end - buf) + 4;
            buf[head_len - 1] = 0;
            length = http_header(buf, "content-length");
            announced = length != NULL ? strtoul(length, NULL, 10) : 0;
            if (announced > cap - head_len)
                return false;
            need = head_len + announced;
        }
    }
    *body = buf + head_len;
    *body_len = need - head_len;
    return true;
}

/* Posts `len` bytes to http://ADDRESS/PATH; the status of the reply, or -1. */
static inline int http_post(const char *address, const char *path, const void *bytes, size_t len,
                            char *buf, size_t cap, const char **body, size_t *body_len)
{
    int fd = http_connect(address);
    char head[512];
    int status = -1;

    if (fd < 0)
        return -1;
    snprintf(head, sizeof(head),
             "POST %s HTTP/1.1\r\nHost: %.128s\r\nContent-Type: application/octet-stream\r\n"
             "Content-Length: %zu\r\nConnection: close\r\n\r\n",
             path, address, len);
    if (http_send(fd, head, strlen(head)) && http_send(fd, bytes, len) &&
        http_receive(fd, buf, cap, body, body_len))
        sscanf(buf, "HTTP/1.%*d %d", &status);
    close(fd);
    return status;
}

#endif
