/*
 * Hash table from byte keys to elements. Nodes and keys live in the elements, so inserting never
 * fails: without memory for a larger table its chains grow longer. SipHash-2-4 under a random key
 * of each map: a peer cannot choose keys that collide. One thread at a time.
 */
#ifndef MAP_H
#define MAP_H

#include <stddef.h>
#include <stdint.h>

struct map_node {
    struct map_node *next;
    uint64_t hash;
    const void *key; /* owned by the element, unchanged while it is in the map */
    size_t key_len;
};

struct map {
    struct map_node **buckets;
    size_t n_buckets; /* a power of two */
    size_t count;     /* elements */
    uint8_t seed[16];
};

/* The element that holds `node` as its `member`. */
#define map_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

void map_init(struct map *m);
void map_fini(struct map *m); /* frees the table; the elements are the caller's */

/* NULL: none. Keys are equal when their bytes are. */
struct map_node *map_find(const struct map *m, const void *key, size_t key_len);

/* Inserts `node` under `key`. With the key already there nothing changes and its node is returned,
 * else NULL. */
struct map_node *map_insert(struct map *m, struct map_node *node, const void *key, size_t key_len);

void map_remove(struct map *m, struct map_node *node); /* which must be in it */

/*
 * Walks in no order; NULL ends it. An element may be removed once the one after it was asked for:
 *
 *     for (struct map_node *n = map_first(m), *next; n != NULL; n = next) {
 *         next = map_next(m, n);
 *         ...
 *     }
 *
 * Inserting on the way may show elements twice or never.
 */
struct map_node *map_first(const struct map *m);
struct map_node *map_next(const struct map *m, const struct map_node *node);

/* SipHash-2-4, for whoever needs a hash that peers cannot steer. */
uint64_t map_siphash(const uint8_t seed[16], const void *ptr, size_t len);

#endif
