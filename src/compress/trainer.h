/*
 * When a connection trains a dictionary, and out of what. (doc/protocol/session.md, 4.4)
 *
 * Samples are kept in an unlinked file of the spool folder behind a small buffer, so that a connection
 * below its high watermark costs little memory. Reads no clock.
 *
 * Threads: one at a time, but for trainer_build, which runs in the thread pool while nothing else is
 * called but trainer_wants and trainer_offer, which then keep nothing, and trainer_holds.
 */
#ifndef TRAINER_H
#define TRAINER_H

#include <stdbool.h>
#include <stdint.h>

#include <lonely/span.h>

struct trainer_conf {
    size_t min_size, max_size;              /* of a sample, below 4 GiB; max exclusive */
    uint64_t low_watermark, high_watermark; /* sums of sample lengths, bytes */
    uint64_t retrain_interval_ms;
    const char *spool_dir; /* must live as long as the trainer */
};

#define TRAINER_LOW_DICTIONARY_BYTES  16384
#define TRAINER_HIGH_DICTIONARY_BYTES 65536
#define TRAINER_LOW_LEVEL             3
#define TRAINER_HIGH_LEVEL            10

struct trainer;

/* `conf` is copied. Aborts when memory is out. */
struct trainer *trainer_create(const struct trainer_conf *conf);
void trainer_destroy(struct trainer *t); /* not while trainer_build runs. NULL is allowed */

/* Would a body of that length be kept now? Asked before a body is read for it. */
bool trainer_wants(const struct trainer *t, uint64_t size, uint64_t now_ms);

/* One plain body (copied). True: a dictionary is to be built now: trainer_build in the pool, then
 * trainer_done. What cannot be kept for want of disk is left out. */
bool trainer_offer(struct trainer *t, struct lonely_span sample, uint64_t now_ms);

/* Does it hold samples, in memory or in a file? */
bool trainer_holds(const struct trainer *t);
/* Drops them, to collect anew; not while a dictionary is built. */
void trainer_forget(struct trainer *t);

/* Builds from the samples present when trainer_offer said so. Bytes written to `to`, which has room for
 * TRAINER_HIGH_DICTIONARY_BYTES; 0: the samples yield none, or there is no memory. `*level` is to be used with it. */
size_t trainer_build(struct trainer *t, uint8_t *to, int *level);

/* On the loop again. Whether it yielded one or not, the next stage begins. */
void trainer_done(struct trainer *t, uint64_t now_ms);

#endif
