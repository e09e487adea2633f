/*
 * The index: what the store feeds goes in under a lock, what matches comes out with references.
 * Called by the store (index_feed) and by the workers (index_match). The tables are in
 * topic_index.c and glob_index.c, the objects in subscription.c and subscribers.c.
 *
 * Locking: readers share the lock while they look, never while a slow pattern is matched: patterns
 * that do not come to an end within a share of time are judged after the lock is released, on
 * references. The writer prepares changes (memory, urls, hashes) outside the lock and applies them
 * in batches; what became superfluous is freed outside again.
 */
#include "index.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "glob_index.h"
#include "map.h"
#include "mem.h"
#include "subscribers.h"
#include "subscription.h"
#include "topic_index.h"

enum {
    BATCH_MAX = 1024,       /* changes applied under one lock; smaller batches are atomic */
    LOCKED_STEPS = 200000,  /* spent on globs under the lock by one match */
    SLICE_STEPS = 20000000, /* of a long match, between two looks whether it is to stop */
    STEPS_SUBSCRIPTION = 60 /* taking a reference for later */
};

/* One whole content; replaced by a load. */
struct content {
    struct url_pool urls; /* the writer's, not locked */
    struct subscriber_places places;
    struct topic_index topics;
    struct glob_index globs;
    struct index_counts counts; /* without urls */
    size_t subscription_bytes;
    atomic_size_t n_urls, url_bytes;
};

struct change {
    bool add;
    uint64_t hash;
    struct subscription *given; /* to add, or one like that to be removed */
    struct subscription *left;  /* to be freed afterwards */
};

struct secrets {
    uint8_t topic[16], glob[16], url[16];
    uint8_t anchor[32];
    uint64_t place;
};

struct index {
    pthread_rwlock_t lock;
    struct content *live; /* what it points to is read under the lock */
    struct secrets secrets;

    /* The writer's. */
    struct content *target; /* `live`, or the one being loaded; NULL between calls */
    struct change *changes; /* BATCH_MAX of them */
    size_t n_changes;
};

/* Content. */

static struct content *content_create(const struct secrets *secrets)
{
    struct content *c = mem_calloc(1, sizeof(*c));

    c->urls.seed = secrets->url;
    c->places.seed = secrets->place;
    glob_index_init(&c->globs, secrets->anchor);
    return c;
}

static void content_destroy(struct content *c)
{
    if (c == NULL)
        return;
    topic_index_fini(&c->topics);
    glob_index_fini(&c->globs);
    index_table_fini(&c->places.table);
    url_pool_fini(&c->urls);
    mem_free(c);
}

static struct subscription *content_put(struct content *c, uint64_t hash, struct subscription *s)
{
    bool exact = s->kind == STORE_EXACT;
    struct subscription *left = exact ? topic_index_put(&c->topics, &c->places, hash, s)
                                      : glob_index_put(&c->globs, &c->places, hash, s);

    if (left == NULL) {
        c->subscription_bytes += subscription_bytes(s);
        *(exact ? &c->counts.exacts : &c->counts.globs) += 1;
    }
    return left;
}

static struct subscription *content_take(struct content *c, uint64_t hash,
                                         const struct subscription *like)
{
    bool exact = like->kind == STORE_EXACT;
    struct subscription *taken = exact ? topic_index_take(&c->topics, &c->places, hash, like)
                                       : glob_index_take(&c->globs, &c->places, hash, like);

    if (taken != NULL) {
        c->subscription_bytes -= subscription_bytes(taken);
        *(exact ? &c->counts.exacts : &c->counts.globs) -= 1;
    }
    return taken;
}

/* Under the lock, or nobody reads yet. */
static void content_count(struct content *c)
{
    size_t slots = c->topics.topics.slots + c->globs.globs.slots + c->globs.anchors.slots +
                   c->places.table.slots;

    c->counts.bytes = sizeof(*c) + slots * sizeof(struct index_slot) + c->subscription_bytes +
                      c->places.group_bytes + c->globs.bytes;
}

/* The urls change outside the lock. */
static void content_count_urls(struct content *c)
{
    atomic_store(&c->n_urls, c->urls.urls.count);
    atomic_store(&c->url_bytes, c->urls.bytes + c->urls.urls.slots * sizeof(struct index_slot));
}

/* The feed. */

static void apply(struct content *c, struct change *changes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct change *ch = &changes[i];
        ch->left =
            ch->add ? content_put(c, ch->hash, ch->given) : content_take(c, ch->hash, ch->given);
    }
}

static void flush(struct index *index)
{
    struct content *c = index->target;
    bool shared = c == index->live;

    if (shared)
        pthread_rwlock_wrlock(&index->lock);
    apply(c, index->changes, index->n_changes);
    content_count(c);
    if (shared)
        pthread_rwlock_unlock(&index->lock);
    for (size_t i = 0; i < index->n_changes; i++) {
        subscription_drop(&c->urls, index->changes[i].left);
        if (!index->changes[i].add)
            subscription_drop(&c->urls, index->changes[i].given);
    }
    index->n_changes = 0;
    content_count_urls(c);
}

static void feed_row(struct index *index, const struct store_row *row, bool add)
{
    assert(index->target != NULL); /* the store said begin */

    struct change *ch = &index->changes[index->n_changes++];
    const uint8_t *seed = row->kind == STORE_EXACT ? index->secrets.topic : index->secrets.glob;
    ch->add = add;
    ch->hash = map_siphash(seed, row->key.ptr, row->key.len);
    ch->given = subscription_create(&index->target->urls, row);
    ch->left = NULL;
    if (index->n_changes == BATCH_MAX)
        flush(index);
}

static void feed_add(void *arg, const struct store_row *row)
{
    feed_row(arg, row, true);
}

static void feed_remove(void *arg, const struct store_row *row)
{
    feed_row(arg, row, false);
}

static void feed_change_begin(void *arg)
{
    struct index *index = arg;

    assert(index->target == NULL);
    index->target = index->live;
}

static void feed_change_end(void *arg)
{
    struct index *index = arg;

    if (index->n_changes > 0)
        flush(index);
    index->target = NULL;
}

static void feed_load_begin(void *arg)
{
    struct index *index = arg;

    assert(index->target == NULL);
    index->target = content_create(&index->secrets);
}

static void feed_load_end(void *arg)
{
    struct index *index = arg;
    struct content *old = index->live;

    flush(index);
    pthread_rwlock_wrlock(&index->lock);
    index->live = index->target;
    pthread_rwlock_unlock(&index->lock);
    index->target = NULL;
    content_destroy(old);
}

static void feed_load_abort(void *arg)
{
    struct index *index = arg;

    flush(index);
    content_destroy(index->target);
    index->target = NULL;
}

struct store_feed index_feed(struct index *index)
{
    return (struct store_feed){
        .load_begin = feed_load_begin,
        .load_end = feed_load_end,
        .load_abort = feed_load_abort,
        .change_begin = feed_change_begin,
        .change_end = feed_change_end,
        .add = feed_add,
        .remove = feed_remove,
        .arg = index,
    };
}

/* Life. */

static void draw_secrets(struct secrets *secrets)
{
    if (getentropy(secrets, sizeof(*secrets)) != 0) {
        perror("getentropy");
        abort();
    }
}

struct index *index_create(void)
{
    struct index *index = mem_calloc(1, sizeof(*index));
    pthread_rwlockattr_t attr;

    draw_secrets(&index->secrets);
    index->changes = mem_alloc(BATCH_MAX * sizeof(*index->changes));
    index->live = content_create(&index->secrets);
    content_count(index->live);
    pthread_rwlockattr_init(&attr);
    /* A change must not wait for a gap between readers that never comes. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&index->lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    return index;
}

void index_destroy(struct index *index)
{
    if (index == NULL)
        return;
    content_destroy(index->live);
    pthread_rwlock_destroy(&index->lock);
    mem_free(index->changes);
    mem_free(index);
}

struct index_counts index_counts(struct index *index)
{
    pthread_rwlock_rdlock(&index->lock);
    struct content *c = index->live;
    struct index_counts counts = c->counts;
    counts.urls = atomic_load(&c->n_urls);
    counts.bytes += atomic_load(&c->url_bytes);
    pthread_rwlock_unlock(&index->lock);
    return counts;
}

/* Matching. */

/* Subscriptions, each with a reference. */
struct collection {
    struct subscription **items;
    size_t count, cap;
};

/* The subscribers of one undecided glob, a part of match.held. */
struct deferred {
    size_t first, count;
};

struct match {
    struct lonely_glob_topic topic;
    const atomic_bool *stop; /* NULL: nobody will */
    uint64_t steps;          /* left */
    uint64_t locked_steps;   /* left of LOCKED_STEPS */
    struct collection found;
    struct collection held; /* of globs to be judged without the lock */
    struct deferred *deferred;
    size_t n_deferred, cap_deferred;
};

/* Room for `n` more. */
static struct subscription **collection_reserve(struct collection *c, size_t n)
{
    if (c->cap - c->count < n) {
        size_t cap = c->cap * 2 > c->count + n ? c->cap * 2 : c->count + n;
        c->items = mem_realloc(c->items, cap * sizeof(*c->items));
        c->cap = cap;
    }
    return c->items + c->count;
}

static void collect(struct collection *c, struct subscribers all)
{
    size_t n = subscribers_count(all);

    if (n == 0)
        return;
    subscribers_copy(all, collection_reserve(c, n));
    c->count += n;
}

static void release(struct subscription **items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        subscription_unref(items[i]);
}

static void collection_fini(struct collection *c)
{
    release(c->items, c->count);
    mem_free(c->items);
    *c = (struct collection){ 0 };
}

/* False: that would be beyond the steps. */
static bool defer(struct match *m, const struct glob *glob)
{
    size_t n = subscribers_count(glob->subscribers);

    if (m->steps / STEPS_SUBSCRIPTION <= n)
        return false;
    m->steps -= n * STEPS_SUBSCRIPTION;
    if (m->n_deferred == m->cap_deferred) {
        m->cap_deferred = m->cap_deferred > 0 ? m->cap_deferred * 2 : 16;
        m->deferred = mem_realloc(m->deferred, m->cap_deferred * sizeof(*m->deferred));
    }
    m->deferred[m->n_deferred++] = (struct deferred){ m->held.count, n };
    collect(&m->held, glob->subscribers);
    return true;
}

/* Judges a candidate under the lock, or puts that off. False: the steps are used up. */
static bool judge_now(void *arg, const struct glob *glob)
{
    struct match *m = arg;
    uint64_t given = m->steps < m->locked_steps ? m->steps : m->locked_steps;
    uint64_t left = given;
    enum lonely_glob_verdict verdict = LONELY_GLOB_MORE;

    if (given > 0)
        verdict = lonely_glob_match(&glob->compiled, &m->topic, NULL, &left);
    m->steps -= given - left;
    m->locked_steps -= given - left;
    if (verdict == LONELY_GLOB_MATCH)
        collect(&m->found, glob->subscribers);
    return verdict != LONELY_GLOB_MORE || defer(m, glob);
}

/* The subscriptions hold the text of their glob, which the index may have forgotten by now. */
static bool judge_later(struct match *m, const struct deferred *d)
{
    struct subscription **items = m->held.items + d->first;
    struct lonely_glob glob;

    if (m->steps == 0 || lonely_glob_compile(items[0]->key, &glob) != LONELY_OK)
        return false;

    struct lonely_glob_state state = { 0 };
    enum lonely_glob_verdict verdict;
    do {
        uint64_t given = m->steps < SLICE_STEPS ? m->steps : SLICE_STEPS;
        uint64_t left = given;
        verdict = lonely_glob_match(&glob, &m->topic, &state, &left);
        m->steps -= given - left;
    } while (verdict == LONELY_GLOB_MORE && m->steps > 0 &&
             (m->stop == NULL || !atomic_load_explicit(m->stop, memory_order_relaxed)));
    if (verdict == LONELY_GLOB_MATCH) {
        struct subscription **out = collection_reserve(&m->found, d->count);
        for (size_t i = 0; i < d->count; i++) {
            subscription_ref(items[i]);
            out[i] = items[i];
        }
        m->found.count += d->count;
    }
    return verdict != LONELY_GLOB_MORE;
}

static bool match_deferred(struct match *m)
{
    bool ok = true;

    for (size_t i = 0; i < m->n_deferred && ok; i++)
        ok = judge_later(m, &m->deferred[i]);
    return ok;
}

static bool match(struct index *index, struct lonely_span topic, uint64_t max_steps,
                  const atomic_bool *stop, struct index_matches *out)
{
    struct match m = { .stop = stop, .steps = max_steps, .locked_steps = LOCKED_STEPS };
    uint64_t hash = map_siphash(index->secrets.topic, topic.ptr, topic.len);
    bool may_match_globs = lonely_glob_topic_init(topic, &m.topic);
    bool ok = true;

    pthread_rwlock_rdlock(&index->lock);
    const struct content *c = index->live;
    collect(&m.found, topic_index_find(&c->topics, hash, topic));
    if (may_match_globs && c->counts.globs > 0)
        ok = glob_index_search(&c->globs, m.topic.text, &m.steps, judge_now, &m);
    pthread_rwlock_unlock(&index->lock);

    ok = ok && match_deferred(&m);
    if (!ok)
        collection_fini(&m.found);
    collection_fini(&m.held);
    mem_free(m.deferred);
    *out = (struct index_matches){ m.found.items, m.found.count };
    return ok;
}

bool index_match(struct index *index, struct lonely_span topic, uint64_t max_steps,
                 struct index_matches *out)
{
    return match(index, topic, max_steps, NULL, out);
}

bool index_match_long(struct index *index, struct lonely_span topic, const atomic_bool *stop,
                      struct index_matches *out)
{
    return match(index, topic, UINT64_MAX, stop, out);
}

void index_matches_release(struct index_matches *matches)
{
    release(matches->items, matches->count);
    mem_free(matches->items);
    *matches = (struct index_matches){ 0 };
}
