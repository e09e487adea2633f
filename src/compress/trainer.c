/*
 * The stages of training, and the store of samples. The session offers the bodies, builds in the pool and
 * announces the dictionary.
 */
#include "trainer.h"

#include <string.h>
#include <unistd.h>
#include <zdict.h>

#include "buf.h"
#include "fd.h"
#include "mem.h"

#define BUFFER_BYTES ((size_t)64 * 1024)

enum stage { BEFORE_LOW, BEFORE_HIGH, WAITING };

/* Samples, each behind its length (uint32_t): in the file, then in the buffer. */
struct samples {
    int fd; /* -1: not needed yet */
    uint64_t in_file;
    struct buf tail;
    size_t count;
};

struct trainer {
    struct trainer_conf conf;
    enum stage stage;
    struct samples samples;
    uint64_t bytes; /* of all samples */
    uint64_t waits_until_ms;
    bool building;
    bool low;        /* the build is of the low stage */
    bool unreadable; /* the samples could not be read back, or there was no memory for them */
    /* Of the build, which only trainer_build looks at meanwhile: */
    size_t build_count;
    uint8_t *build_input;
    size_t *build_lengths;
};

static void samples_init(struct samples *s)
{
    s->fd = -1;
    s->in_file = 0;
    s->count = 0;
    buf_init(&s->tail, SIZE_MAX / 2);
}

static void samples_fini(struct samples *s)
{
    if (s->fd >= 0)
        close(s->fd);
    buf_fini(&s->tail);
}

static bool write_all(int fd, const uint8_t *ptr, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, ptr, len, (off_t)at);

        if (n <= 0)
            return false;
        ptr += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

static bool read_all(int fd, uint8_t *ptr, size_t len)
{
    off_t at = 0;

    while (len > 0) {
        ssize_t n = pread(fd, ptr, len, at);

        if (n <= 0)
            return false;
        ptr += n;
        len -= (size_t)n;
        at += n;
    }
    return true;
}

static bool flush_tail(struct trainer *t)
{
    struct samples *s = &t->samples;

    if (s->fd < 0)
        s->fd = fd_open_unnamed(t->conf.spool_dir);
    if (s->fd < 0 || !write_all(s->fd, s->tail.ptr, s->tail.len, s->in_file))
        return false;
    s->in_file += s->tail.len;
    buf_clear(&s->tail);
    return true;
}

static void keep(struct trainer *t, struct lonely_span sample)
{
    struct samples *s = &t->samples;
    uint32_t len = (uint32_t)sample.len;

    if (s->tail.len > 0 && s->tail.len + sizeof(len) + len > BUFFER_BYTES && !flush_tail(t))
        return;
    if (buf_reserve(&s->tail, sizeof(len) + len) == NULL)
        return;
    buf_append(&s->tail, &len, sizeof(len));
    buf_append(&s->tail, sample.ptr, len);
    s->count++;
    t->bytes += len;
}

static void drop_samples(struct trainer *t)
{
    samples_fini(&t->samples);
    samples_init(&t->samples);
    t->bytes = 0;
}

struct trainer *trainer_create(const struct trainer_conf *conf)
{
    struct trainer *t = mem_calloc(1, sizeof(*t));

    t->conf = *conf;
    samples_init(&t->samples);
    return t;
}

static void drop_build(struct trainer *t)
{
    mem_free(t->build_input);
    mem_free(t->build_lengths);
    t->build_input = NULL;
    t->build_lengths = NULL;
}

void trainer_destroy(struct trainer *t)
{
    if (t == NULL)
        return;
    drop_build(t);
    samples_fini(&t->samples);
    mem_free(t);
}

bool trainer_wants(const struct trainer *t, uint64_t size, uint64_t now_ms)
{
    return !t->building && size >= t->conf.min_size && size < t->conf.max_size &&
           (t->stage != WAITING || now_ms >= t->waits_until_ms);
}

/* Takes the lengths out from between the samples. */
static void part_samples(struct trainer *t)
{
    const uint8_t *from = t->build_input;
    uint8_t *to = t->build_input;

    for (size_t i = 0; i < t->build_count; i++) {
        uint32_t len;

        memcpy(&len, from, sizeof(len));
        memmove(to, from + sizeof(len), len);
        t->build_lengths[i] = len;
        from += sizeof(len) + len;
        to += len;
    }
}

/* The samples as the library wants them: side by side in memory. false: no memory, or the file cannot be
 * read. */
static bool prepare_build(struct trainer *t)
{
    const struct samples *s = &t->samples;
    size_t in_file = (size_t)s->in_file;

    t->build_count = s->count;
    t->build_input = mem_try_alloc(in_file + s->tail.len);
    t->build_lengths = mem_try_calloc(s->count, sizeof(*t->build_lengths));
    if (t->build_input == NULL || t->build_lengths == NULL ||
        (in_file > 0 && !read_all(s->fd, t->build_input, in_file)))
        return false;
    memcpy(t->build_input + in_file, s->tail.ptr, s->tail.len);
    part_samples(t);
    return true;
}

bool trainer_offer(struct trainer *t, struct lonely_span sample, uint64_t now_ms)
{
    if (!trainer_wants(t, sample.len, now_ms))
        return false;
    if (t->stage == WAITING)
        t->stage = BEFORE_HIGH;
    keep(t, sample);
    t->low = t->stage == BEFORE_LOW && t->bytes < t->conf.high_watermark;
    if (t->bytes < (t->low ? t->conf.low_watermark : t->conf.high_watermark))
        return false;
    t->building = true;
    return true;
}

bool trainer_holds(const struct trainer *t)
{
    return t->samples.count > 0;
}

void trainer_forget(struct trainer *t)
{
    drop_samples(t);
}

size_t trainer_build(struct trainer *t, uint8_t *to, int *level)
{
    size_t cap = t->low ? TRAINER_LOW_DICTIONARY_BYTES : TRAINER_HIGH_DICTIONARY_BYTES;
    unsigned count;
    size_t len;

    *level = t->low ? TRAINER_LOW_LEVEL : TRAINER_HIGH_LEVEL;
    t->unreadable = !prepare_build(t);
    if (t->unreadable)
        return 0;
    count = t->build_count > UINT32_MAX ? UINT32_MAX : (unsigned)t->build_count;
    len = ZDICT_trainFromBuffer(to, cap, t->build_input, t->build_lengths, count);
    return ZDICT_isError(len) ? 0 : len;
}

void trainer_done(struct trainer *t, uint64_t now_ms)
{
    drop_build(t);
    t->building = false;
    if (t->unreadable) { /* the same stage once more */
        t->unreadable = false;
        drop_samples(t);
        return;
    }
    if (t->low) {
        t->stage = BEFORE_HIGH;
        return;
    }
    t->stage = WAITING;
    t->waits_until_ms = now_ms + t->conf.retrain_interval_ms;
    drop_samples(t);
}
