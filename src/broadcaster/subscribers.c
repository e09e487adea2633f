/*
 * The subscriptions of one key. Alone, a subscription costs nothing but a pointer. A group is a
 * plain array, quick to hand out; in a small one a url is found by looking, in a large one by the
 * table of places, so that a hundred thousand urls on one topic do not make every change slow. Used
 * by the topic and the glob index.
 */
#include "subscribers.h"

#include <assert.h>
#include <string.h>

#include "mem.h"

enum {
    GROUP_MIN_CAP = 4,
    GROUP_LOOK_MAX = 8 /* larger groups are in the table of places */
};

struct group {
    uint64_t id; /* in the table of places; 0: not there */
    uint32_t count;
    uint32_t cap;
    struct subscription *items[];
};

static struct group *group_of(struct subscribers all)
{
    uintptr_t bits = (uintptr_t)all.any;

    return (bits & 1) != 0 ? (struct group *)(void *)((char *)all.any - 1) : NULL;
}

static void *tagged(struct group *g)
{
    return (char *)g + 1;
}

static size_t group_bytes(uint32_t cap)
{
    return sizeof(struct group) + cap * sizeof(struct subscription *);
}

static struct group *group_resize(struct group *g, struct subscriber_places *places, uint32_t cap)
{
    places->group_bytes += group_bytes(cap) - (g != NULL ? group_bytes(g->cap) : 0);
    g = mem_realloc(g, group_bytes(cap));
    g->cap = cap;
    return g;
}

/* Urls are shared, so their address stands for them. */
static uint64_t place_hash(const struct subscriber_places *places, uint64_t id,
                           const struct index_url *url)
{
    uint64_t h = (uint64_t)(uintptr_t)url ^ places->seed;

    h = (h ^ h >> 32 ^ id) * UINT64_C(0x9e3779b97f4a7c15);
    h = (h ^ h >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    return h ^ h >> 32;
}

/* A place is kept as its number plus one, in the clothes of a pointer. */
static void *place_item(uint32_t at)
{
    return (void *)((uintptr_t)at + 1);
}

static void place_add(struct subscriber_places *places, const struct group *g, uint32_t at)
{
    index_table_add(&places->table, place_hash(places, g->id, g->items[at]->url), place_item(at));
}

static struct index_slot *place_find(struct subscriber_places *places, const struct group *g,
                                     const struct index_url *url)
{
    uint64_t hash = place_hash(places, g->id, url);
    struct index_slot *slot = index_table_find(&places->table, hash);

    for (; slot != NULL; slot = index_table_next(&places->table, hash, slot)) {
        uintptr_t at = (uintptr_t)slot->item - 1;
        if (at < g->count && g->items[at]->url == url)
            break; /* of two entries that are equal in all respects either will do */
    }
    return slot;
}

/* The place of `url`, or the count: it is not there. */
static uint32_t group_find(const struct group *g, struct subscriber_places *places,
                           const struct index_url *url)
{
    uint32_t at = 0;

    if (g->id != 0) {
        struct index_slot *slot = place_find(places, g, url);
        return slot != NULL ? (uint32_t)((uintptr_t)slot->item - 1) : g->count;
    }
    while (at < g->count && g->items[at]->url != url)
        at++;
    return at;
}

static struct group *group_append(struct group *g, struct subscriber_places *places,
                                  struct subscription *s)
{
    if (g->count == g->cap)
        g = group_resize(g, places, g->cap * 2);
    g->items[g->count++] = s;
    if (g->id != 0)
        place_add(places, g, g->count - 1);
    else if (g->count > GROUP_LOOK_MAX) {
        g->id = ++places->last_id;
        for (uint32_t i = 0; i < g->count; i++)
            place_add(places, g, i);
    }
    return g;
}

static void place_move(struct subscriber_places *places, const struct group *g, uint32_t from,
                       uint32_t to)
{
    struct index_slot *slot = place_find(places, g, g->items[from]->url);

    assert(slot != NULL);
    slot->item = place_item(to);
}

static void place_forget(struct subscriber_places *places, const struct group *g, uint32_t at)
{
    struct index_slot *slot = place_find(places, g, g->items[at]->url);

    assert(slot != NULL);
    index_table_remove(&places->table, slot);
}

/* The last one moves into the hole. */
static void group_cut(struct group *g, struct subscriber_places *places, uint32_t at)
{
    uint32_t last = g->count - 1;

    if (g->id != 0) {
        place_forget(places, g, at);
        if (at != last)
            place_move(places, g, last, at);
    }
    g->items[at] = g->items[last];
    g->count = last;
    if (g->id != 0 && g->count <= GROUP_LOOK_MAX / 2) {
        for (uint32_t i = 0; i < g->count; i++)
            place_forget(places, g, i);
        g->id = 0;
    }
}

/* Gives back memory after a removal: a smaller array, or none for a last subscription. */
static void *group_trim(struct group *g, struct subscriber_places *places)
{
    if (g->count == 1) {
        struct subscription *last = g->items[0];
        places->group_bytes -= group_bytes(g->cap);
        mem_free(g);
        return last;
    }
    if (g->cap > GROUP_MIN_CAP && g->count <= g->cap / 4)
        g = group_resize(g, places, g->cap / 2);
    return tagged(g);
}

size_t subscribers_count(struct subscribers all)
{
    const struct group *g = group_of(all);

    return g != NULL ? g->count : all.any != NULL;
}

struct subscription *subscribers_first(struct subscribers all)
{
    const struct group *g = group_of(all);

    return g != NULL ? g->items[0] : all.any;
}

void subscribers_copy(struct subscribers all, struct subscription **out)
{
    const struct group *g = group_of(all);
    size_t n = subscribers_count(all);

    if (g != NULL)
        memcpy(out, g->items, n * sizeof(struct subscription *));
    else if (n == 1)
        out[0] = all.any;
    for (size_t i = 0; i < n; i++)
        subscription_ref(out[i]);
}

static struct subscription *replace(struct subscription **at, struct subscription *s)
{
    struct subscription *old = *at;

    if (old->recovery == s->recovery)
        return s;
    *at = s;
    return old;
}

struct subscription *subscribers_put(struct subscribers *all, struct subscriber_places *places,
                                     struct subscription *s)
{
    struct group *g = group_of(*all);
    struct subscription *one = g == NULL ? all->any : NULL;

    if (g == NULL && one == NULL) {
        all->any = s;
        return NULL;
    }
    if (one != NULL && one->url == s->url) {
        struct subscription *left = replace(&one, s);
        all->any = one;
        return left;
    }
    if (one != NULL) {
        g = group_resize(NULL, places, GROUP_MIN_CAP);
        g->id = 0;
        g->count = 1;
        g->items[0] = one;
    }
    uint32_t at = group_find(g, places, s->url);
    if (at < g->count)
        return replace(&g->items[at], s);
    all->any = tagged(group_append(g, places, s));
    return NULL;
}

struct subscription *subscribers_take(struct subscribers *all, struct subscriber_places *places,
                                      const struct index_url *url)
{
    struct group *g = group_of(*all);
    struct subscription *taken = subscribers_first(*all);

    if (g != NULL) {
        uint32_t at = group_find(g, places, url);
        if (at == g->count)
            return NULL;
        taken = g->items[at];
        group_cut(g, places, at);
        all->any = group_trim(g, places);
    } else if (taken != NULL && taken->url == url)
        all->any = NULL;
    else
        taken = NULL;
    return taken;
}

void subscribers_release(struct subscribers all)
{
    struct group *g = group_of(all);

    if (g == NULL) {
        subscription_unref(all.any);
        return;
    }
    for (uint32_t i = 0; i < g->count; i++)
        subscription_unref(g->items[i]);
    mem_free(g);
}
