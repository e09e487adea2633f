/*
 * The sessions' subscriptions of one worker (receivers.h): a group for each topic and glob, a link for
 * each session in it. Filled by the sessions, asked by forwarding.c, which knows what globs match.
 */
#include "receivers.h"

#include <string.h>

#include "map.h"
#include "mem.h"

/* All who are subscribed to one topic or glob. */
struct group {
    struct map_node node; /* of receivers.groups */
    struct list links;
    enum store_kind kind;
    struct lonely_span key; /* stored behind the structure */
};

/* Who is in which group: the key of a link, so that one is found at once in groups of many and among many
 * subscriptions of one session. */
struct pair {
    struct group *group;
    struct receiver *receiver;
};

struct link {
    struct map_node node; /* of receivers.links */
    struct pair pair;
    struct list of_group, of_receiver;
};

struct receivers {
    struct map groups[2]; /* by enum store_kind */
    struct map links;
    struct list members;
    size_t count; /* of members */
    atomic_size_t keys;
    uint64_t stamp; /* of the last message */
};

/* ---- Messages ---- */

struct outgoing *outgoing_create(struct lonely_span topic, struct body *body,
                                 const uint8_t identifier[4])
{
    struct outgoing *m = mem_alloc(sizeof(*m) + topic.len);
    uint8_t *text = (uint8_t *)(m + 1);

    atomic_init(&m->refs, 1);
    m->body = body;
    body_ref(body);
    memcpy(m->identifier, identifier, sizeof(m->identifier));
    if (topic.len > 0)
        memcpy(text, topic.ptr, topic.len);
    m->topic = (struct lonely_span){ text, topic.len };
    return m;
}

void outgoing_ref(struct outgoing *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
}

void outgoing_unref(struct outgoing *m)
{
    if (m == NULL || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    body_unref(m->body);
    mem_free(m);
}

/* ---- Life ---- */

struct receivers *receivers_create(void)
{
    struct receivers *all = mem_calloc(1, sizeof(*all));

    map_init(&all->groups[STORE_EXACT]);
    map_init(&all->groups[STORE_GLOB]);
    map_init(&all->links);
    list_init(&all->members);
    atomic_init(&all->keys, 0);
    return all;
}

void receivers_destroy(struct receivers *all)
{
    if (all == NULL)
        return;
    map_fini(&all->groups[STORE_EXACT]);
    map_fini(&all->groups[STORE_GLOB]);
    map_fini(&all->links);
    mem_free(all);
}

void receivers_join(struct receivers *all, struct receiver *r)
{
    list_init(&r->links);
    r->stamp = 0;
    list_push_back(&all->members, &r->node);
    all->count++;
}

/* ---- Subscriptions ---- */

static struct group *group_find(const struct receivers *all, enum store_kind kind,
                                struct lonely_span key)
{
    struct map_node *node = map_find(&all->groups[kind], key.ptr, key.len);

    return node != NULL ? map_entry(node, struct group, node) : NULL;
}

static struct group *group_create(struct receivers *all, enum store_kind kind,
                                  struct lonely_span key)
{
    struct group *group = mem_alloc(sizeof(*group) + key.len);
    uint8_t *text = (uint8_t *)(group + 1);

    if (key.len > 0)
        memcpy(text, key.ptr, key.len);
    list_init(&group->links);
    group->kind = kind;
    group->key = (struct lonely_span){ text, key.len };
    map_insert(&all->groups[kind], &group->node, text, key.len);
    atomic_fetch_add(&all->keys, 1);
    return group;
}

static struct link *link_find(const struct receivers *all, const struct group *group,
                              const struct receiver *r)
{
    const void *const pair[] = { group, r }; /* as struct pair lies in memory */
    struct map_node *node = group != NULL ? map_find(&all->links, pair, sizeof(pair)) : NULL;

    return node != NULL ? map_entry(node, struct link, node) : NULL;
}

static void link_free(struct receivers *all, struct group *group, struct link *link)
{
    map_remove(&all->links, &link->node);
    list_remove(&link->of_group);
    list_remove(&link->of_receiver);
    mem_free(link);
    if (!list_is_empty(&group->links))
        return;
    map_remove(&all->groups[group->kind], &group->node);
    atomic_fetch_sub(&all->keys, 1);
    mem_free(group);
}

bool receivers_has(const struct receivers *all, const struct receiver *r, enum store_kind kind,
                   struct lonely_span key)
{
    return link_find(all, group_find(all, kind, key), r) != NULL;
}

bool receivers_subscribe(struct receivers *all, struct receiver *r, enum store_kind kind,
                         struct lonely_span key)
{
    struct group *group = group_find(all, kind, key);
    struct link *link;

    if (link_find(all, group, r) != NULL)
        return false;
    if (group == NULL)
        group = group_create(all, kind, key);
    link = mem_alloc(sizeof(*link));
    link->pair = (struct pair){ group, r };
    map_insert(&all->links, &link->node, &link->pair, sizeof(link->pair));
    list_push_back(&group->links, &link->of_group);
    list_push_back(&r->links, &link->of_receiver);
    return true;
}

bool receivers_unsubscribe(struct receivers *all, struct receiver *r, enum store_kind kind,
                           struct lonely_span key)
{
    struct group *group = group_find(all, kind, key);
    struct link *link = link_find(all, group, r);

    if (link == NULL)
        return false;
    link_free(all, group, link);
    return true;
}

void receivers_leave(struct receivers *all, struct receiver *r)
{
    struct list *node;

    while ((node = list_first(&r->links)) != NULL) {
        struct link *link = list_entry(node, struct link, of_receiver);

        link_free(all, link->pair.group, link);
    }
    list_remove(&r->node);
    all->count--;
}

void receivers_each(const struct receivers *all, const struct receiver *r,
                    void (*fn)(void *arg, enum store_kind kind, struct lonely_span key), void *arg)
{
    (void)all;
    list_foreach (&r->links, node, next) {
        const struct group *group = list_entry(node, struct link, of_receiver)->pair.group;

        fn(arg, group->kind, group->key);
    }
}

/* ---- The way of a message ---- */

bool receivers_match(const struct receivers *all, struct lonely_span topic,
                     const struct index_matches *globs)
{
    if (group_find(all, STORE_EXACT, topic) != NULL)
        return true;
    for (size_t i = 0; globs != NULL && i < globs->count; i++) {
        if (group_find(all, STORE_GLOB, globs->items[i]->key) != NULL)
            return true;
    }
    return false;
}

/* What is being offered: a message, or that one on `topic` was missed. */
struct offer {
    struct receivers *all;
    struct outgoing *message; /* NULL: MISSED */
    struct lonely_span topic;
    uint32_t taken;
};

static void offer_to_group(struct offer *o, const struct group *group)
{
    if (group == NULL)
        return;
    list_foreach (&group->links, node, next) {
        struct receiver *r = list_entry(node, struct link, of_group)->pair.receiver;

        if (r->stamp == o->all->stamp)
            continue;
        r->stamp = o->all->stamp;
        o->taken +=
            o->message != NULL ? r->ops->on_message(r, o->message) : r->ops->on_missed(r, o->topic);
    }
}

static uint32_t offer(struct offer *o, const struct index_matches *globs)
{
    o->all->stamp++;
    offer_to_group(o, group_find(o->all, STORE_EXACT, o->topic));
    for (size_t i = 0; globs != NULL && i < globs->count; i++)
        offer_to_group(o, group_find(o->all, STORE_GLOB, globs->items[i]->key));
    return o->taken;
}

uint32_t receivers_deliver(struct receivers *all, struct outgoing *m,
                           const struct index_matches *globs)
{
    return offer(&(struct offer){ .all = all, .message = m, .topic = m->topic }, globs);
}

uint32_t receivers_missed(struct receivers *all, struct lonely_span topic,
                          const struct index_matches *globs)
{
    return offer(&(struct offer){ .all = all, .topic = topic }, globs);
}

/* ---- All of them ---- */

void receivers_each_receiver(struct receivers *all, void (*fn)(void *arg, struct receiver *r),
                             void *arg)
{
    list_foreach (&all->members, node, next) {
        fn(arg, list_entry(node, struct receiver, node));
    }
}

size_t receivers_count(const struct receivers *all)
{
    return all->count;
}

size_t receivers_keys(const struct receivers *all)
{
    return atomic_load(&all->keys);
}
