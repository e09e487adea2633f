/* The hash table of src/base/map.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "map.h"
#include "tables.h"

struct entry {
    struct map_node node;
    char key[16];
    int walked;
};

/* Published with the algorithm: key 00..0f, input 00, 00 01, ... of that length. */
static const struct siphash_case {
    size_t len;
    uint64_t hash;
} siphash_cases[] = {
    { 0, UINT64_C(0x726fdb47dd0e0e31) },  { 1, UINT64_C(0x74f839c593dc67fd) },
    { 7, UINT64_C(0xab0200f58b01d137) },  { 8, UINT64_C(0x93f5f5799a932462) },
    { 15, UINT64_C(0xa129ca6149be45e5) }, { 63, UINT64_C(0x958a324ceb064572) },
};

static void siphash_is_the_published_one(void **state)
{
    uint8_t seed[16], input[64];

    (void)state;
    for (uint8_t i = 0; i < 64; i++)
        input[i] = i;
    memcpy(seed, input, sizeof seed);
    for (size_t i = 0; i < TABLE_LEN(siphash_cases); i++)
        assert_true(map_siphash(seed, input, siphash_cases[i].len) == siphash_cases[i].hash);
}

static void keys_are_bytes(void **state)
{
    static const char a[] = "k\0a", b[] = "k\0b";
    struct map m;
    struct map_node nodes[3];

    (void)state;
    map_init(&m);
    assert_null(map_find(&m, a, 3));
    assert_null(map_first(&m));
    assert_null(map_insert(&m, &nodes[0], a, 3));
    assert_null(map_insert(&m, &nodes[1], b, 3));
    assert_null(map_insert(&m, &nodes[2], NULL, 0)); /* the empty key */
    assert_ptr_equal(map_find(&m, a, 3), &nodes[0]);
    assert_ptr_equal(map_find(&m, b, 3), &nodes[1]);
    assert_ptr_equal(map_find(&m, "", 0), &nodes[2]);
    assert_null(map_find(&m, a, 2));
    assert_int_equal(m.count, 3);
    map_fini(&m);
}

static void a_key_is_there_once(void **state)
{
    struct map m;
    struct map_node first, second;

    (void)state;
    map_init(&m);
    assert_null(map_insert(&m, &first, "k", 1));
    assert_ptr_equal(map_insert(&m, &second, "k", 1), &first);
    assert_int_equal(m.count, 1);
    map_remove(&m, &first);
    assert_null(map_find(&m, "k", 1));
    assert_null(map_insert(&m, &second, "k", 1));
    assert_ptr_equal(map_find(&m, "k", 1), &second);
    map_fini(&m);
}

#define N 5000

static struct entry entries[N];

static void fill(struct map *m)
{
    map_init(m);
    for (int i = 0; i < N; i++) {
        struct entry *e = &entries[i];

        e->walked = 0;
        snprintf(e->key, sizeof e->key, "%d", i);
        assert_null(map_insert(m, &e->node, e->key, strlen(e->key)));
    }
}

static void grows_and_finds_every_key(void **state)
{
    struct map m;

    (void)state;
    fill(&m);
    assert_int_equal(m.count, N);
    assert_true(m.n_buckets >= N); /* chains stay short */
    for (int i = 0; i < N; i++)
        assert_ptr_equal(map_find(&m, entries[i].key, strlen(entries[i].key)), &entries[i].node);
    assert_null(map_find(&m, "5000", 4));
    map_fini(&m);
}

static void a_walk_sees_each_once_and_may_remove(void **state)
{
    struct map m;

    (void)state;
    fill(&m);
    for (struct map_node *n = map_first(&m), *next; n != NULL; n = next) {
        struct entry *e = map_entry(n, struct entry, node);

        next = map_next(&m, n);
        e->walked++;
        if (strlen(e->key) % 2 == 0) {
            map_remove(&m, n);
            memset(n, 0xee, sizeof *n); /* what was removed is not read again */
        }
    }
    for (int i = 0; i < N; i++) {
        size_t len = strlen(entries[i].key);

        assert_int_equal(entries[i].walked, 1);
        assert_int_equal(map_find(&m, entries[i].key, len) != NULL, len % 2 == 1);
    }
    assert_int_equal(m.count, 10 + 900);
    map_fini(&m);
}

static void every_map_has_its_own_seed(void **state)
{
    struct map a, b;

    (void)state;
    map_init(&a);
    map_init(&b);
    assert_memory_not_equal(a.seed, b.seed, sizeof a.seed);
    map_fini(&a);
    map_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(siphash_is_the_published_one),
        cmocka_unit_test(keys_are_bytes),
        cmocka_unit_test(a_key_is_there_once),
        cmocka_unit_test(grows_and_finds_every_key),
        cmocka_unit_test(a_walk_sees_each_once_and_may_remove),
        cmocka_unit_test(every_map_has_its_own_seed),
    };

    return cmocka_run_group_tests_name("map", tests, NULL, NULL);
}
