/*
 * Addresses to listen on: "HOST:PORT", "[v6]:PORT", names looked up once, at start.
 */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include <stdbool.h>
#include <stddef.h>

/* Room for any printed address with port, brackets included. */
#define LISTENER_ADDRESS_MAX 80

/*
 * Binds and listens on `address`: non-blocking, close-on-exec, SO_REUSEADDR. A port in use is an
 * error. With `count` > 1 makes that many sockets on one and the same port (SO_REUSEPORT), one for
 * each worker: the first is bound plainly, to notice a port in use, before the others share it.
 *
 * @param fds    `count` descriptors, owned by the caller on success; untouched on failure
 * @param bound  the address really bound, port 0 replaced: "127.0.0.1:3003", "[::1]:3003"
 * @param error  on failure one line that names the address and the reason
 */
bool listener_open(const char *address, int backlog, size_t count, int *fds,
                   char bound[LISTENER_ADDRESS_MAX], char error[256]);

#endif
