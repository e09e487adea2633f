/*
 * Addresses of peers (peer.h). Called by whoever accepts connections (http_server.c) or names a peer
 * in a log line.
 */
#include "peer.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "map.h"
#include "mem.h"

#define V6_PREFIX_BYTES 8 /* a /64 */

void peer_print(const struct sockaddr *peer, char out[PEER_TEXT_MAX])
{
    char host[INET6_ADDRSTRLEN];
    union peer_address address;

    strcpy(out, "-");
    if (peer == NULL)
        return;
    if (peer->sa_family == AF_INET) {
        memcpy(&address.in, peer, sizeof address.in);
        if (inet_ntop(AF_INET, &address.in.sin_addr, host, sizeof host) != NULL)
            snprintf(out, PEER_TEXT_MAX, "%s:%u", host, (unsigned)ntohs(address.in.sin_port));
    } else if (peer->sa_family == AF_INET6) {
        memcpy(&address.in6, peer, sizeof address.in6);
        if (inet_ntop(AF_INET6, &address.in6.sin6_addr, host, sizeof host) != NULL)
            snprintf(out, PEER_TEXT_MAX, "[%s]:%u", host, (unsigned)ntohs(address.in6.sin6_port));
    }
}

/* What is counted together: the bytes of an IPv4 address, or of an IPv6 prefix. */
struct peer_key {
    uint8_t bytes[V6_PREFIX_BYTES];
    size_t len; /* 0: not to be counted */
};

struct peer_count {
    struct map_node node;
    struct peer_key key;
    uint64_t connections;
};

struct peer_limit {
    pthread_mutex_t lock;
    struct map counts; /* peer_count, of those that hold a connection */
    uint64_t max;
};

static struct peer_key key_of(const struct sockaddr *peer)
{
    struct peer_key key = { .len = 0 };
    union peer_address address;

    if (peer->sa_family == AF_INET) {
        memcpy(&address.in, peer, sizeof address.in);
        key.len = sizeof address.in.sin_addr;
        memcpy(key.bytes, &address.in.sin_addr, key.len);
    } else if (peer->sa_family == AF_INET6) {
        const uint8_t *bytes = address.in6.sin6_addr.s6_addr;

        memcpy(&address.in6, peer, sizeof address.in6);
        if (IN6_IS_ADDR_V4MAPPED(&address.in6.sin6_addr)) {
            bytes += 12;
            key.len = 4;
        } else {
            key.len = V6_PREFIX_BYTES;
        }
        memcpy(key.bytes, bytes, key.len);
    }
    return key;
}

struct peer_limit *peer_limit_create(uint64_t max)
{
    struct peer_limit *limit = mem_calloc(1, sizeof *limit);

    pthread_mutex_init(&limit->lock, NULL);
    map_init(&limit->counts);
    limit->max = max;
    return limit;
}

void peer_limit_destroy(struct peer_limit *limit)
{
    struct map_node *node;

    if (limit == NULL)
        return;
    while ((node = map_first(&limit->counts)) != NULL) {
        map_remove(&limit->counts, node);
        mem_free(map_entry(node, struct peer_count, node));
    }
    map_fini(&limit->counts);
    pthread_mutex_destroy(&limit->lock);
    mem_free(limit);
}

/* The count of `key`, made with 0 if there is none. NULL: no memory. Under the lock. */
static struct peer_count *count_get(struct peer_limit *limit, const struct peer_key *key)
{
    struct map_node *found = map_find(&limit->counts, key->bytes, key->len);
    struct peer_count *count;

    if (found != NULL)
        return map_entry(found, struct peer_count, node);
    count = mem_try_calloc(1, sizeof *count);
    if (count == NULL)
        return NULL;
    count->key = *key;
    map_insert(&limit->counts, &count->node, count->key.bytes, count->key.len);
    return count;
}

bool peer_limit_take(struct peer_limit *limit, const struct sockaddr *peer)
{
    struct peer_key key = key_of(peer);
    struct peer_count *count;
    bool may;

    if (key.len == 0)
        return true;
    pthread_mutex_lock(&limit->lock);
    count = count_get(limit, &key);
    may = count != NULL && count->connections < limit->max;
    if (may)
        count->connections++;
    pthread_mutex_unlock(&limit->lock);
    return may;
}

void peer_limit_release(struct peer_limit *limit, const struct sockaddr *peer)
{
    struct peer_key key = key_of(peer);
    struct map_node *found;

    if (key.len == 0)
        return;
    pthread_mutex_lock(&limit->lock);
    found = map_find(&limit->counts, key.bytes, key.len);
    if (found != NULL && --map_entry(found, struct peer_count, node)->connections == 0) {
        map_remove(&limit->counts, found);
        mem_free(map_entry(found, struct peer_count, node));
    }
    pthread_mutex_unlock(&limit->lock);
}
