/*
 * Addresses of peers: printed, and counted to bound how many connections one address may hold.
 */
#ifndef NET_PEER_H
#define NET_PEER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

union peer_address {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

#define PEER_TEXT_MAX 56 /* "[v6]:port" and a NUL */

/* "192.0.2.1:4711", "[2001:db8::1]:4711"; "-" when it is neither, or NULL. */
void peer_print(const struct sockaddr *peer, char out[PEER_TEXT_MAX]);

/*
 * Connections by address: each IPv4 address, and each IPv6 /64 (the least that one customer has),
 * may hold so many. IPv4-mapped addresses count as IPv4; what is no IP address is not counted.
 *
 * Threads: any; the workers of a process share one.
 */
struct peer_limit;

struct peer_limit *peer_limit_create(uint64_t max);
void peer_limit_destroy(struct peer_limit *limit); /* NULL is allowed; forgets what was taken */

/* One more connection of `peer`. false: it has its share, or there is no memory to count it. */
bool peer_limit_take(struct peer_limit *limit, const struct sockaddr *peer);
/* One less, which was taken before. */
void peer_limit_release(struct peer_limit *limit, const struct sockaddr *peer);

#endif
