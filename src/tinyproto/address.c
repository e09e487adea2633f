/*
 * Addresses as text and as values. Servers and clients turn them into sockets.
 */
#include <tinyproto/address.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "endpoint.h"

enum tinyproto_error tinyproto_address_set(struct tinyproto_address *address, const char *host,
                                           int port)
{
    size_t len = host != NULL ? strlen(host) : 0;

    if (len == 0 || len >= sizeof(address->host) || port < 0 || port > 65535)
        return TINYPROTO_E_ARGUMENT;
    memset(address, 0, sizeof(*address));
    memcpy(address->host, host, len);
    address->port = (uint16_t)port;
    return TINYPROTO_OK;
}

static enum tinyproto_error set_unix(struct tinyproto_address *address, const char *path)
{
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return TINYPROTO_E_ARGUMENT;
    memset(address, 0, sizeof(*address));
    memcpy(address->host, path, len);
    address->is_unix = true;
    return TINYPROTO_OK;
}

bool address_is_valid(const struct tinyproto_address *address)
{
    size_t max =
        address->is_unix ? sizeof(((struct sockaddr_un *)0)->sun_path) : sizeof(address->host);
    size_t len = strnlen(address->host, max);

    return len > 0 && len < max;
}

/* 0 .. 65535 in at most five digits; -1: anything else. */
static int parse_port(const char *text)
{
    size_t len = strlen(text);

    if (len == 0 || len > 5 || strspn(text, "0123456789") != len)
        return -1;
    return (int)strtol(text, NULL, 10);
}

enum tinyproto_error tinyproto_address_parse(const char *text, struct tinyproto_address *address)
{
    char host[TINYPROTO_HOST_MAX];
    const char *colon, *begin = text, *end;

    if (strncmp(text, "unix:", 5) == 0)
        return set_unix(address, text + 5);
    colon = strrchr(text, ':');
    if (colon == NULL)
        return TINYPROTO_E_ARGUMENT;
    end = colon;
    if (text[0] == '[') {
        begin++;
        end = strchr(text, ']');
        if (end == NULL || end + 1 != colon)
            return TINYPROTO_E_ARGUMENT;
    } else if (memchr(text, ':', (size_t)(colon - text)) != NULL) {
        return TINYPROTO_E_ARGUMENT; /* IPv6 without brackets: its last group might be a port */
    }
    if ((size_t)(end - begin) >= sizeof(host))
        return TINYPROTO_E_ARGUMENT;
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = '\0';
    return tinyproto_address_set(address, host, parse_port(colon + 1));
}

const char *tinyproto_address_print(const struct tinyproto_address *address,
                                    char out[TINYPROTO_ADDRESS_TEXT_MAX])
{
    if (address->is_unix)
        snprintf(out, TINYPROTO_ADDRESS_TEXT_MAX, "unix:%s", address->host);
    else
        snprintf(out, TINYPROTO_ADDRESS_TEXT_MAX,
                 strchr(address->host, ':') != NULL ? "[%s]:%u" : "%s:%u", address->host,
                 (unsigned)address->port);
    return out;
}
