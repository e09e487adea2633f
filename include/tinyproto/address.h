/*
 * Addresses as values: a host and a port, or a Unix socket.
 */
#ifndef TINYPROTO_ADDRESS_H
#define TINYPROTO_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include <tinyproto/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Longest host name, with a NUL. */
#define TINYPROTO_HOST_MAX 256

/** Room for any address as tinyproto_address_print writes it. */
#define TINYPROTO_ADDRESS_TEXT_MAX (TINYPROTO_HOST_MAX + 16)

struct tinyproto_address {
    char host[TINYPROTO_HOST_MAX]; /**< IPv4, IPv6 (no brackets) or name; if is_unix a path of at
                                        most 107 bytes */
    uint16_t port;                 /**< 0: when listening, any free one */
    bool is_unix;
};

/** TINYPROTO_E_ARGUMENT: host NULL, empty or too long, or port not 0 .. 65535. Nothing is resolved. */
TINYPROTO_API enum tinyproto_error tinyproto_address_set(struct tinyproto_address *address,
                                                         const char *host, int port);

/** Reads "HOST:PORT", "[IPv6]:PORT" or "unix:PATH" (a path of at most 107 bytes).
 * TINYPROTO_E_ARGUMENT: anything else. Nothing is resolved. */
TINYPROTO_API enum tinyproto_error tinyproto_address_parse(const char *text,
                                                           struct tinyproto_address *address);

/** Writes what tinyproto_address_parse reads, with a NUL. Returns `out`. */
TINYPROTO_API const char *tinyproto_address_print(const struct tinyproto_address *address,
                                                  char out[TINYPROTO_ADDRESS_TEXT_MAX]);

#ifdef __cplusplus
}
#endif

#endif
