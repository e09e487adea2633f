/*
 * The set of used macs (replay.h): shards by the first byte of the mac, each with a lock and a few
 * buckets of time, each a hash table with open addressing. A mac is random, so it is its own hash.
 * Called by gate.c and, for the macs of others, by the store's threads.
 */
#include "replay.h"

#include <string.h>
#include <uv.h>

#include <lonely/auth.h>

#include "mem.h"

#define SHARDS       16u /* a power of two */
#define BUCKETS      64u /* 17 are alive at once, more only when the clock jumps */
#define BUCKET_S     16u
#define TABLE_LEAST  64u
#define KEPT_AHEAD_S (LONELY_AUTH_WINDOW_S + 1) /* from the timestamp to the expiry */

struct code {
    uint8_t bytes[STORE_MAC_SIZE];
};

struct bucket {
    uint64_t number; /* of the expiry; meaningless while `cap` is 0 */
    size_t count, cap;
    struct code *codes; /* all zero: free */
};

struct shard {
    uv_mutex_t lock;
    size_t count, max;
    uint64_t newest;    /* bucket number; dropping is thought of when it grows */
    uint64_t forgotten; /* what expires in this bucket or before it is not known any more */
    struct bucket buckets[BUCKETS];
};

struct replay {
    struct shard shards[SHARDS];
    double start_epoch_s; /* 0: the past is known */
};

static const struct code no_code;

struct replay *replay_create(size_t max)
{
    struct replay *r = mem_calloc(1, sizeof *r);

    for (size_t i = 0; i < SHARDS; i++) {
        uv_mutex_init(&r->shards[i].lock);
        r->shards[i].max = max / SHARDS + 1;
    }
    return r;
}

void replay_destroy(struct replay *r)
{
    if (r == NULL)
        return;
    for (size_t i = 0; i < SHARDS; i++) {
        for (size_t j = 0; j < BUCKETS; j++)
            mem_free(r->shards[i].buckets[j].codes);
        uv_mutex_destroy(&r->shards[i].lock);
    }
    mem_free(r);
}

/* ---- One table ---- */

static struct code code_of(const struct store_mac *mac)
{
    struct code code;

    memcpy(code.bytes, mac->code, sizeof code.bytes);
    if (memcmp(&code, &no_code, sizeof code) == 0) /* zeros mark what is free */
        code.bytes[0] = 1;
    return code;
}

/* The place of `code`, or the free one where it belongs. `cap` is a power of two. */
static struct code *find(struct code *codes, size_t cap, const struct code *code)
{
    uint64_t hash;

    memcpy(&hash, code->bytes + sizeof code->bytes - sizeof hash, sizeof hash);
    for (size_t at = (size_t)hash & (cap - 1);; at = (at + 1) & (cap - 1))
        if (memcmp(&codes[at], code, sizeof *code) == 0 ||
            memcmp(&codes[at], &no_code, sizeof no_code) == 0)
            return &codes[at];
}

static bool grow(struct bucket *b)
{
    size_t cap = b->cap == 0 ? TABLE_LEAST : b->cap * 2;
    struct code *codes = mem_try_alloc(cap * sizeof *codes);

    if (codes == NULL)
        return false;
    memset(codes, 0, cap * sizeof *codes);
    for (size_t i = 0; i < b->cap; i++)
        if (memcmp(&b->codes[i], &no_code, sizeof no_code) != 0)
            *find(codes, cap, &b->codes[i]) = b->codes[i];
    mem_free(b->codes);
    b->codes = codes;
    b->cap = cap;
    return true;
}

/* ---- Buckets ---- */

static void drop_expired(struct shard *s, double now_epoch_s)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        struct bucket *b = &s->buckets[i];

        if (b->cap == 0 || (double)((b->number + 1) * BUCKET_S) > now_epoch_s)
            continue;
        if (b->number > s->forgotten)
            s->forgotten = b->number;
        s->count -= b->count;
        mem_free(b->codes);
        *b = (struct bucket){ 0 };
    }
}

/* The bucket of that number, perhaps a new one. NULL: none is free, or memory is out. */
static struct bucket *bucket_get(struct shard *s, uint64_t number)
{
    struct bucket *unused = NULL;

    for (size_t i = 0; i < BUCKETS; i++) {
        struct bucket *b = &s->buckets[(number + i) % BUCKETS];

        if (b->cap != 0 && b->number == number)
            return b;
        if (b->cap == 0 && unused == NULL)
            unused = b;
        if (i == 0 && unused != NULL && number > s->newest)
            break; /* a new one: nowhere else */
    }
    if (unused == NULL || !grow(unused))
        return NULL;
    unused->number = number;
    return unused;
}

static enum replay_verdict take(struct shard *s, const struct store_mac *mac, double now_epoch_s)
{
    const struct code code = code_of(mac);
    uint64_t number = mac->keep_until_s / BUCKET_S;
    struct bucket *b;
    struct code *place;

    if (number > s->newest || s->count >= s->max)
        drop_expired(s, now_epoch_s);
    if (number <= s->forgotten)
        return REPLAY_USED;
    b = bucket_get(s, number);
    if (b == NULL)
        return REPLAY_NOT_KNOWN;
    if (number > s->newest)
        s->newest = number;
    place = find(b->codes, b->cap, &code);
    if (memcmp(place, &code, sizeof code) == 0)
        return REPLAY_USED;
    if (s->count >= s->max)
        return REPLAY_NOT_KNOWN;
    if ((b->count + 1) * 4 > b->cap * 3) {
        if (!grow(b))
            return REPLAY_NOT_KNOWN;
        place = find(b->codes, b->cap, &code);
    }
    *place = code;
    b->count++;
    s->count++;
    return REPLAY_NEW;
}

enum replay_verdict replay_take(struct replay *r, const struct store_mac *mac, double now_epoch_s)
{
    struct shard *s = &r->shards[mac->code[0] & (SHARDS - 1)];
    double stamp_s = (double)mac->keep_until_s - KEPT_AHEAD_S;
    enum replay_verdict verdict;

    if (mac->keep_until_s / BUCKET_S == UINT64_MAX / BUCKET_S) /* sums below must not wrap */
        return REPLAY_NOT_KNOWN;
    uv_mutex_lock(&s->lock);
    verdict = take(s, mac, now_epoch_s);
    uv_mutex_unlock(&s->lock);
    if (verdict == REPLAY_NEW && stamp_s < r->start_epoch_s)
        verdict = stamp_s + 1 > r->start_epoch_s ? REPLAY_NOT_KNOWN : REPLAY_USED;
    return verdict;
}

void replay_forget_past(struct replay *r, double start_epoch_s)
{
    r->start_epoch_s = start_epoch_s;
}

size_t replay_count(struct replay *r)
{
    size_t count = 0;

    for (size_t i = 0; i < SHARDS; i++) {
        uv_mutex_lock(&r->shards[i].lock);
        count += r->shards[i].count;
        uv_mutex_unlock(&r->shards[i].lock);
    }
    return count;
}
