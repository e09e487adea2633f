/*
 * Which patterns may match a topic; see glob_index.h for the idea. Anchors are known by a 64 bit
 * hash only: should two ever be equal, a pattern more is tried. Whether a pattern matches is
 * decided elsewhere (index.c, lonely_glob_match). What is literal in a pattern, and that U+FFFD to
 * U+FFFF are not, lonely_glob_compile says.
 */
#include "glob_index.h"

#include <assert.h>
#include <string.h>

#include "mem.h"

enum anchor_kind { ANCHOR_NONE, ANCHOR_ALWAYS, ANCHOR_PREFIX, ANCHOR_SUFFIX, ANCHOR_GRAM };

/* Hashes of anchors.
 *
 * Prefixes and suffixes are hashed byte by byte, so that one pass over a topic yields the hash at
 * every length: two polynomials modulo 2^31-1 at secret points. Their collisions are at worst
 * (length / 2^31)^2 likely, and a peer cannot look for them without the points. */

struct rolling {
    uint64_t a, b;
};

static const struct rolling rolling_start = { 1, 1 };

static inline uint64_t rolling_lane(uint64_t h, uint64_t point, uint8_t byte)
{
    const uint64_t prime = (UINT64_C(1) << 31) - 1;
    uint64_t x = h * point + byte; /* h stays below 2^32 since the points are below 2^30 */

    return (x & prime) + (x >> 31);
}

static inline struct rolling rolling_add(const struct glob_index *g, struct rolling r, uint8_t byte)
{
    return (struct rolling){ rolling_lane(r.a, g->secret[2], byte),
                             rolling_lane(r.b, g->secret[3], byte) };
}

static inline uint64_t mix(const struct glob_index *g, uint64_t x, enum anchor_kind kind,
                           uint32_t len)
{
    uint64_t h = x ^ g->secret[0] ^ (uint64_t)kind << 60 ^ (uint64_t)len << 40;

    h = (h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93);
    h = (h ^ h >> 32) * g->secret[1];
    h ^= h >> 32;
    return h + (h == 0); /* 0 marks a free place in a set of hashes */
}

static inline uint64_t rolling_hash(const struct glob_index *g, struct rolling r,
                                    enum anchor_kind kind, uint32_t len)
{
    return mix(g, r.a << 32 ^ r.b, kind, len);
}

static uint64_t prefix_hash(const struct glob_index *g, struct lonely_span text)
{
    struct rolling r = rolling_start;

    for (size_t i = 0; i < text.len; i++)
        r = rolling_add(g, r, text.ptr[i]);
    return rolling_hash(g, r, ANCHOR_PREFIX, (uint32_t)text.len);
}

static uint64_t suffix_hash(const struct glob_index *g, struct lonely_span text)
{
    struct rolling r = rolling_start;

    for (size_t i = text.len; i-- > 0;)
        r = rolling_add(g, r, text.ptr[i]);
    return rolling_hash(g, r, ANCHOR_SUFFIX, (uint32_t)text.len);
}

/* The bytes of a gram as a number, the first lowest; what came before them goes out below. */
static inline uint64_t gram_slide(uint64_t gram, uint8_t byte, uint32_t len)
{
    return gram >> 8 | (uint64_t)byte << (8 * (len - 1));
}

static inline uint64_t gram_hash(const struct glob_index *g, uint64_t gram, uint32_t len)
{
    return mix(g, gram, ANCHOR_GRAM, len);
}

static uint64_t always_hash(const struct glob_index *g)
{
    return mix(g, 0, ANCHOR_ALWAYS, 0);
}

/* Choosing an anchor. */

struct anchor {
    enum anchor_kind kind;
    uint32_t len;
    uint64_t hash;
    uint64_t cost;
};

static uint32_t anchor_load(const struct glob_index *g, uint64_t hash)
{
    const struct index_slot *slot = index_table_find(&g->anchors, hash);

    return slot != NULL ? ((const struct glob *)slot->item)->anchor_count : 0;
}

/* How likely it is that a topic has the anchor, roughly: a place counts for something. */
static uint64_t anchor_weight(enum anchor_kind kind, uint32_t len)
{
    static const uint8_t gram[GLOB_GRAM_MAX + 1] = { 0, 64, 16, 8, 4, 4, 4, 4, 2 };
    static const uint8_t end[] = { 0, 16, 4, 2, 1 };

    if (kind == ANCHOR_GRAM)
        return gram[len];
    return end[len < sizeof(end) ? len : sizeof(end) - 1];
}

/* What a topic without a match pays for the pattern there, compared with other anchors. */
static void anchor_consider(const struct glob_index *g, struct anchor *best, enum anchor_kind kind,
                            uint32_t len, uint64_t hash)
{
    uint64_t cost = (UINT64_C(1) + anchor_load(g, hash)) * anchor_weight(kind, len);

    if (best->kind == ANCHOR_ALWAYS || cost < best->cost)
        *best = (struct anchor){ kind, len, hash, cost };
}

enum { GRAMS_CONSIDERED = 512 }; /* of a pattern, spread over all that it has */

/* Few lengths, since a topic is searched for grams of each. */
static uint32_t gram_len(size_t run)
{
    if (run >= GLOB_GRAM_MAX)
        return GLOB_GRAM_MAX;
    return run < 4 ? (uint32_t)run : 4;
}

static void consider_grams(const struct glob_index *g, struct anchor *best,
                           const struct lonely_glob *glob)
{
    struct lonely_span run;
    size_t longest = 0, total = 0, seen = 0;

    for (size_t at = 0; lonely_glob_next_literal(glob, &at, &run); total += run.len)
        longest = run.len > longest ? run.len : longest;
    if (longest == 0)
        return;

    uint32_t len = gram_len(longest);

    size_t stride = 1 + total / GRAMS_CONSIDERED;
    for (size_t at = 0; lonely_glob_next_literal(glob, &at, &run);) {
        uint64_t gram = 0;
        for (size_t i = 0; i < run.len; i++) {
            gram = gram_slide(gram, run.ptr[i], len);
            if (i + 1 >= len && seen++ % stride == 0)
                anchor_consider(g, best, ANCHOR_GRAM, len, gram_hash(g, gram, len));
        }
    }
}

static struct anchor anchor_choose(const struct glob_index *g, const struct lonely_glob *glob)
{
    struct anchor best = { ANCHOR_ALWAYS, 0, always_hash(g), 0 };

    if (glob->prefix.len > 0)
        anchor_consider(g, &best, ANCHOR_PREFIX, (uint32_t)glob->prefix.len,
                        prefix_hash(g, glob->prefix));
    if (glob->suffix.len > 0 && best.cost != 1)
        anchor_consider(g, &best, ANCHOR_SUFFIX, (uint32_t)glob->suffix.len,
                        suffix_hash(g, glob->suffix));
    if (best.kind == ANCHOR_ALWAYS || best.cost > anchor_weight(ANCHOR_GRAM, GLOB_GRAM_MAX))
        consider_grams(g, &best, glob);
    return best;
}

/* Hanging patterns to anchors. */

static void lengths_add(struct glob_lengths *l, uint32_t len)
{
    size_t i = 0;

    while (i < l->count && l->items[i].len < len)
        i++;
    if (i == l->count || l->items[i].len != len) {
        if (l->count == l->cap) {
            l->cap = l->cap > 0 ? l->cap * 2 : 8;
            l->items = mem_realloc(l->items, l->cap * sizeof(*l->items));
        }
        memmove(l->items + i + 1, l->items + i, (l->count - i) * sizeof(*l->items));
        l->items[i] = (struct glob_length){ len, 0 };
        l->count++;
    }
    l->items[i].users++;
}

static void lengths_remove(struct glob_lengths *l, uint32_t len)
{
    size_t i = 0;

    while (l->items[i].len != len)
        i++;
    if (--l->items[i].users > 0)
        return;
    memmove(l->items + i, l->items + i + 1, (l->count - i - 1) * sizeof(*l->items));
    if (--l->count == 0) {
        mem_free(l->items);
        *l = (struct glob_lengths){ 0 };
    }
}

/* Most grams of a topic are no anchors. A table of small counts that stays in the cache says so of
 * nearly all, without the branches of a search; full counts stay full. */
enum { FILTER_SIZE = 1 << 18 };

static inline uint8_t *filter_at(const struct glob_index *g, uint64_t hash)
{
    return &g->gram_filter[hash >> 20 & (FILTER_SIZE - 1)];
}

static void filter_add(struct glob_index *g, uint64_t hash)
{
    if (g->gram_anchors++ == 0) {
        g->gram_filter = mem_calloc(FILTER_SIZE, 1);
        g->bytes += FILTER_SIZE;
    }
    uint8_t *count = filter_at(g, hash);
    *count = (uint8_t)(*count + (*count < UINT8_MAX));
}

static void filter_remove(struct glob_index *g, uint64_t hash)
{
    uint8_t *count = filter_at(g, hash);

    *count = (uint8_t)(*count - (*count < UINT8_MAX));
    if (--g->gram_anchors == 0) {
        mem_free(g->gram_filter);
        g->gram_filter = NULL;
        g->bytes -= FILTER_SIZE;
    }
}

static void anchor_count(struct glob_index *g, const struct glob *glob,
                         void (*count)(struct glob_lengths *l, uint32_t len), bool added)
{
    if (glob->anchor_kind == ANCHOR_PREFIX)
        count(&g->prefixes, glob->anchor_len);
    else if (glob->anchor_kind == ANCHOR_SUFFIX)
        count(&g->suffixes, glob->anchor_len);
    else if (glob->anchor_kind == ANCHOR_GRAM)
        g->grams[glob->anchor_len] += added ? 1 : (size_t)-1;
}

static void hang(struct glob_index *g, struct glob *glob)
{
    if (glob->compiled.never)
        return;

    struct anchor a = anchor_choose(g, &glob->compiled);
    struct index_slot *slot = index_table_find(&g->anchors, a.hash);
    struct glob *first = slot != NULL ? slot->item : NULL;
    glob->anchor_kind = (uint8_t)a.kind;
    glob->anchor_len = a.len;
    glob->anchor = a.hash;
    glob->anchor_count = first != NULL ? first->anchor_count + 1 : 1;
    glob->next = first;
    if (first != NULL) {
        first->prev = glob;
        slot->item = glob;
    } else {
        index_table_add(&g->anchors, a.hash, glob);
        if (a.kind == ANCHOR_GRAM)
            filter_add(g, a.hash);
    }
    anchor_count(g, glob, lengths_add, true);
}

static void unhang(struct glob_index *g, struct glob *glob)
{
    if (glob->compiled.never)
        return;

    struct index_slot *slot = index_table_find(&g->anchors, glob->anchor);
    assert(slot != NULL); /* it hangs there */
    uint32_t left = ((struct glob *)slot->item)->anchor_count - 1;
    if (glob->next != NULL)
        glob->next->prev = glob->prev;
    if (glob->prev != NULL)
        glob->prev->next = glob->next;
    else
        slot->item = glob->next;
    if (left > 0)
        ((struct glob *)slot->item)->anchor_count = left;
    else {
        index_table_remove(&g->anchors, slot);
        if (glob->anchor_kind == ANCHOR_GRAM)
            filter_remove(g, glob->anchor);
    }
    anchor_count(g, glob, lengths_remove, false);
}

/* Patterns by their text. */

static struct glob *glob_create(struct lonely_span text)
{
    struct glob *glob = mem_calloc(1, sizeof(*glob) + text.len);

    glob->len = (uint32_t)text.len;
    if (text.len > 0)
        memcpy(glob->text, text.ptr, text.len);
    /* What is refused here no store should hold; it stays countable and matches nothing. */
    if (lonely_glob_compile((struct lonely_span){ glob->text, text.len }, &glob->compiled) !=
        LONELY_OK)
        glob->compiled.never = true;
    return glob;
}

static size_t glob_bytes(const struct glob *glob)
{
    return sizeof(*glob) + glob->len;
}

static struct index_slot *glob_slot(const struct glob_index *g, uint64_t hash,
                                    struct lonely_span text)
{
    struct index_slot *slot = index_table_find(&g->globs, hash);

    for (; slot != NULL; slot = index_table_next(&g->globs, hash, slot)) {
        const struct glob *glob = slot->item;
        if (glob->len == text.len && (text.len == 0 || memcmp(glob->text, text.ptr, text.len) == 0))
            break;
    }
    return slot;
}

void glob_index_init(struct glob_index *g, const uint8_t secret[32])
{
    memcpy(g->secret, secret, sizeof(g->secret));
    g->secret[1] |= 1; /* multiplying by an odd number loses nothing */
    g->secret[2] = g->secret[2] >> 34 | 1 << 16;
    g->secret[3] = g->secret[3] >> 34 | 1 << 16;
}

static void release(void *arg, void *item)
{
    struct glob *glob = item;

    (void)arg;
    subscribers_release(glob->subscribers);
    mem_free(glob);
}

void glob_index_fini(struct glob_index *g)
{
    index_table_each(&g->globs, release, NULL);
    index_table_fini(&g->globs);
    index_table_fini(&g->anchors);
    mem_free(g->gram_filter);
    mem_free(g->prefixes.items);
    mem_free(g->suffixes.items);
}

struct subscription *glob_index_put(struct glob_index *g, struct subscriber_places *places,
                                    uint64_t hash, struct subscription *s)
{
    struct index_slot *slot = glob_slot(g, hash, s->key);
    struct glob *glob = slot != NULL ? slot->item : glob_create(s->key);

    if (slot == NULL) {
        index_table_add(&g->globs, hash, glob);
        g->bytes += glob_bytes(glob);
        hang(g, glob);
    }
    return subscribers_put(&glob->subscribers, places, s);
}

struct subscription *glob_index_take(struct glob_index *g, struct subscriber_places *places,
                                     uint64_t hash, const struct subscription *like)
{
    struct index_slot *slot = glob_slot(g, hash, like->key);

    if (slot == NULL)
        return NULL;

    struct glob *glob = slot->item;
    struct subscription *taken = subscribers_take(&glob->subscribers, places, like->url);
    if (glob->subscribers.any == NULL) {
        unhang(g, glob);
        index_table_remove(&g->globs, slot);
        g->bytes -= glob_bytes(glob);
        mem_free(glob);
    }
    return taken;
}

/* Searching. */

enum {
    STEPS_PROBE = 8,      /* a look into the table of anchors */
    STEPS_BYTE = 4,       /* a byte hashed */
    STEPS_CANDIDATE = 40, /* a pattern fetched from memory */
    HITS_SMALL = 64
};

/* Grams that were found: each once, though a topic may repeat them. A set of hashes. */
struct hits {
    uint64_t *slots; /* `cap` of them, a power of two; 0: free */
    size_t count, cap;
    uint64_t small[HITS_SMALL];
};

struct search {
    const struct glob_index *g;
    struct lonely_span text;
    uint64_t *steps;
    glob_candidate_fn *fn;
    void *arg;
    struct hits *hits;
};

/* False: it was there. */
static bool hits_place(uint64_t *slots, size_t cap, uint64_t hash)
{
    size_t i = hash & (cap - 1);

    while (slots[i] != 0 && slots[i] != hash)
        i = (i + 1) & (cap - 1);
    if (slots[i] == hash)
        return false;
    slots[i] = hash;
    return true;
}

static void hits_grow(struct hits *h)
{
    size_t cap = h->cap * 2;
    uint64_t *slots = mem_calloc(cap, sizeof(*slots));

    for (size_t i = 0; i < h->cap; i++)
        if (h->slots[i] != 0)
            hits_place(slots, cap, h->slots[i]);
    if (h->slots != h->small)
        mem_free(h->slots);
    h->slots = slots;
    h->cap = cap;
}

static bool hits_add(struct hits *h, uint64_t hash)
{
    if (h->cap == 0) {
        memset(h->small, 0, sizeof(h->small));
        h->slots = h->small;
        h->cap = HITS_SMALL;
    }
    if (h->count >= h->cap / 2)
        hits_grow(h);
    if (!hits_place(h->slots, h->cap, hash))
        return false;
    h->count++;
    return true;
}

static void hits_fini(struct hits *h)
{
    if (h->cap > HITS_SMALL)
        mem_free(h->slots);
}

static bool spend(uint64_t *steps, uint64_t n)
{
    bool enough = *steps >= n;

    *steps = enough ? *steps - n : 0;
    return enough;
}

static bool try_all(const struct search *s, const struct index_slot *slot)
{
    if (slot == NULL)
        return true;
    for (const struct glob *glob = slot->item; glob != NULL; glob = glob->next)
        if (!spend(s->steps, STEPS_CANDIDATE) || !s->fn(s->arg, glob))
            return false;
    return true;
}

/* The beginnings of the topic at all lengths in use, or, backwards, its ends. */
static bool search_ends(const struct search *s, enum anchor_kind kind, const struct glob_lengths *l)
{
    struct rolling r = rolling_start;
    size_t at = 0;

    for (size_t i = 0; i < l->count && l->items[i].len <= s->text.len; i++) {
        uint32_t len = l->items[i].len;
        if (!spend(s->steps, (len - at) * STEPS_BYTE + STEPS_PROBE))
            return false;
        for (; at < len; at++)
            r = rolling_add(s->g, r,
                            s->text.ptr[kind == ANCHOR_PREFIX ? at : s->text.len - 1 - at]);
        if (!try_all(s, index_table_find(&s->g->anchors, rolling_hash(s->g, r, kind, len))))
            return false;
    }
    return true;
}

static bool search_grams(const struct search *s, uint32_t len)
{
    if (s->g->grams[len] == 0 || s->text.len < len)
        return true;
    if (!spend(s->steps, (s->text.len - len + 1) * STEPS_PROBE))
        return false;

    uint64_t gram = 0;
    for (size_t i = 0; i < s->text.len; i++) {
        gram = gram_slide(gram, s->text.ptr[i], len);
        if (i + 1 < len)
            continue;
        uint64_t hash = gram_hash(s->g, gram, len);
        if (*filter_at(s->g, hash) == 0)
            continue;
        const struct index_slot *slot = index_table_find(&s->g->anchors, hash);
        if (slot != NULL && hits_add(s->hits, hash) && !try_all(s, slot))
            return false;
    }
    return true;
}

bool glob_index_search(const struct glob_index *g, struct lonely_span text, uint64_t *steps,
                       glob_candidate_fn *fn, void *arg)
{
    struct hits hits;
    struct search s = { g, text, steps, fn, arg, &hits };
    bool ok;

    hits.count = hits.cap = 0;
    ok = try_all(&s, index_table_find(&g->anchors, always_hash(g))) &&
         search_ends(&s, ANCHOR_PREFIX, &g->prefixes) &&
         search_ends(&s, ANCHOR_SUFFIX, &g->suffixes);
    for (uint32_t len = GLOB_GRAM_MAX; len > 0 && ok; len--)
        ok = search_grams(&s, len);
    hits_fini(&hits);
    return ok;
}
