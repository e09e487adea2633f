/*
 * Requests of another HTTP server in this program (<lonely/mount.h>), as exchanges of http.h on one loop:
 * beside http_server.c the second of its kind. A broadcaster has a port a worker, a client one.
 *
 * Threads: all functions on the thread of the loop, except where stated.
 */
#ifndef MOUNT_PORT_H
#define MOUNT_PORT_H

#include <uv.h>

#include <lonely/mount.h>

#include "http.h"

struct mount_port;

/* `max`: exchanges not freed, and streams given away. NULL: no descriptors for a wakeup. */
struct mount_port *mount_port_create(uv_loop_t *loop, size_t max, http_on_request_fn *on_request,
                                     void *app);

/* From now on requests are answered 503. `on_drained` runs once, later, when those that came before have
 * their answers; not after mount_port_close. */
void mount_port_drain(struct mount_port *port, void (*on_drained)(void *arg), void *arg);

/* Ends everything at once, as http_server_close does; hosts that still wait are answered 503. `on_closed`
 * runs later, once the streams that were given away are closed. */
void mount_port_close(struct mount_port *port, void (*on_closed)(void *arg), void *arg);

/* Is it an absolute path, or empty, that could stand on a request line? */
bool mount_prefix_is_good(const char *prefix);

/* Spreads requests under `prefix` (a slash at its end means nothing) over `n` ports. It keeps their memory,
 * but does not hold them open. Any thread. */
struct lonely_mount *mount_create(const char *prefix, struct mount_port *const *ports, size_t n);
void mount_destroy(struct lonely_mount *m); /* NULL is allowed */

#endif
