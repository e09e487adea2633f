/*
 * A body through Zstandard, in the thread pool, into another body: for those that are too long to be done on
 * the loop. At most RECODER_RUNNING at once for each loop, the others wait; so contexts and buffers are
 * bounded, however many sessions there are. (doc/protocol/session.md, 3.5 to 3.7)
 *
 * Threads: everything on the loop.
 */
#ifndef RECODE_H
#define RECODE_H

#include <stdint.h>
#include <uv.h>

#include "body.h"
#include "compressor.h"

#define RECODER_RUNNING 2

struct recoder;

/* Borrows loop and lane. `max_window` as in compressor.h. */
struct recoder *recoder_create(uv_loop_t *loop, struct body_lane *lane, uint64_t max_window);
/* After the loop has run out. NULL is allowed. */
void recoder_destroy(struct recoder *all);

struct recoded {
    enum decompress_status status;
    enum body_error error; /* with DECOMPRESS_OK: could what came out be kept? */
    struct body *body;     /* if so; one reference, the receiver's */
};

typedef void recode_done_fn(void *arg, const struct recoded *result);

/* Both take references of their own; `done` runs once, later, and frees the recoding. */
struct recoding;
struct recoding *recode_compress(struct recoder *all, struct compressor *c, struct body *plain,
                                 recode_done_fn *done, void *arg);
/* `size`: what was announced; it is never exceeded. */
struct recoding *recode_decompress(struct recoder *all, struct compressor *c, struct body *packed,
                                   uint64_t size, recode_done_fn *done, void *arg);
/* `done` will not run. Not from inside it. */
void recoding_cancel(struct recoding *r);

#endif
