/*
 * Hash table with chains of intrusive nodes (map.h). Called wherever something is looked up by a
 * peer's bytes: topics, origins, URLs.
 */
#include "map.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "mem.h"

#define MAP_FIRST_BUCKETS 8

static uint64_t rotate(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static void sip_rounds(uint64_t v[4], int n)
{
    while (n-- > 0) {
        v[0] += v[1];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[0] = rotate(v[0], 32);
        v[2] += v[3];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[2] = rotate(v[2], 32);
    }
}

static uint64_t load_le(const uint8_t *p, size_t n)
{
    uint64_t x = 0;

    while (n > 0)
        x = x << 8 | p[--n];
    return x;
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_rounds(v, 2);
    v[0] ^= word;
}

uint64_t map_siphash(const uint8_t seed[16], const void *ptr, size_t len)
{
    uint64_t k0 = load_le(seed, 8), k1 = load_le(seed + 8, 8);
    uint64_t v[4] = { k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                      k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573) };
    const uint8_t *p = ptr;
    size_t left = len;

    for (; left >= 8; left -= 8, p += 8)
        sip_word(v, load_le(p, 8));
    sip_word(v, (uint64_t)len << 56 | load_le(p, left));
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void map_init(struct map *m)
{
    *m = (struct map){ .n_buckets = MAP_FIRST_BUCKETS };
    m->buckets = mem_calloc(MAP_FIRST_BUCKETS, sizeof *m->buckets);
    /* Up to 256 bytes come whole or not at all; not at all only on a kernel without the call. */
    if (getrandom(m->seed, sizeof m->seed, 0) != (ssize_t)sizeof m->seed) {
        perror("getrandom");
        abort();
    }
}

void map_fini(struct map *m)
{
    mem_free(m->buckets);
    *m = (struct map){ 0 };
}

static struct map_node **bucket(const struct map *m, uint64_t hash)
{
    return &m->buckets[hash & (m->n_buckets - 1)];
}

static struct map_node *find(const struct map *m, uint64_t hash, const void *key, size_t len)
{
    struct map_node *n = *bucket(m, hash);

    while (n != NULL &&
           (n->hash != hash || n->key_len != len || (len > 0 && memcmp(n->key, key, len) != 0)))
        n = n->next;
    return n;
}

struct map_node *map_find(const struct map *m, const void *key, size_t key_len)
{
    return find(m, map_siphash(m->seed, key, key_len), key, key_len);
}

static void link_node(struct map *m, struct map_node *node)
{
    struct map_node **head = bucket(m, node->hash);

    node->next = *head;
    *head = node;
}

/* Keeps the chains at one node on average. */
static void grow(struct map *m)
{
    struct map larger = *m;
    struct map_node *next;

    larger.n_buckets = m->n_buckets * 2;
    larger.buckets = mem_try_calloc(larger.n_buckets, sizeof *larger.buckets);
    if (larger.buckets == NULL)
        return;
    for (size_t i = 0; i < m->n_buckets; i++)
        for (struct map_node *n = m->buckets[i]; n != NULL; n = next) {
            next = n->next;
            link_node(&larger, n);
        }
    mem_free(m->buckets);
    *m = larger;
}

struct map_node *map_insert(struct map *m, struct map_node *node, const void *key, size_t key_len)
{
    uint64_t hash = map_siphash(m->seed, key, key_len);
    struct map_node *present = find(m, hash, key, key_len);

    if (present != NULL)
        return present;
    if (m->count >= m->n_buckets)
        grow(m);
    node->hash = hash;
    node->key = key;
    node->key_len = key_len;
    link_node(m, node);
    m->count++;
    return NULL;
}

void map_remove(struct map *m, struct map_node *node)
{
    struct map_node **at = bucket(m, node->hash);

    while (*at != node) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = node->next;
    node->next = NULL;
    m->count--;
}

static struct map_node *first_from(const struct map *m, size_t i)
{
    for (; i < m->n_buckets; i++)
        if (m->buckets[i] != NULL)
            return m->buckets[i];
    return NULL;
}

struct map_node *map_first(const struct map *m)
{
    return first_from(m, 0);
}

struct map_node *map_next(const struct map *m, const struct map_node *node)
{
    if (node->next != NULL)
        return node->next;
    return first_from(m, (node->hash & (m->n_buckets - 1)) + 1);
}
