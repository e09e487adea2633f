/*
 * Message bodies: one immutable, counted body a message, shared by all its deliveries. In memory up
 * to limits.message_body_spool_size, else in an unlinked file of limits.spool_dir. Its SHA-512 is
 * computed once, while it arrives; large pieces in the thread pool.
 *
 * Threads: a bodies (the budget) is shared by all loops; a writer belongs to one loop; a finished
 * body may be referenced and read from any loop.
 */
#ifndef BODY_H
#define BODY_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include <lonely/span.h>

struct bodies;
struct bodies_conf {
    const char *spool_dir; /* made if absent (its parent must exist); copied */
    uint64_t spool_size;   /* longer bodies go to a file */
    uint64_t max_memory;   /* all bodies in memory together; beyond it smaller ones are spooled */
};

/* NULL, with one line in `error`, when spool_dir cannot be made or written. */
struct bodies *bodies_create(const struct bodies_conf *conf, char error[256]);
void bodies_destroy(struct bodies *bodies);          /* after the last body */
uint64_t bodies_memory(const struct bodies *bodies); /* bytes held in memory now */
/* Could a body go to a file now? Blocks, so for the thread pool. */
bool bodies_can_spool(const struct bodies *bodies);

enum body_error {
    BODY_OK,
    BODY_NO_ROOM, /* the disk is full, or a quota or a limit is reached: 507 */
    BODY_IO,      /* the file could not be written or read */
    BODY_BUSY     /* too much is on its way to files, or no descriptor is left: 503 */
};

struct body;
void body_ref(struct body *b);
void body_unref(struct body *b); /* NULL is allowed */
uint64_t body_size(const struct body *b);
const uint8_t *body_sha512(const struct body *b); /* 64 bytes */
bool body_in_memory(const struct body *b);
struct lonely_span body_span(const struct body *b); /* of a body in memory */
/* Reads a spooled body; blocks, so for the thread pool. Bytes read (less than len only at the end),
 * or -1. */
ptrdiff_t body_pread(const struct body *b, uint64_t at, uint8_t *to, size_t len);
int body_fd(const struct body *b); /* of a spooled body: for reading, at given offsets */
/* Are these bytes of a spooled body at hand, so that reading them would not wait for a disk? As far as
 * samples of them tell; never blocks. False also where the file system does not say. */
bool body_is_cached(const struct body *b, uint64_t at, size_t len);

/*
 * The body of a message that is here in one piece, and whose SHA-512 the caller has checked; both are
 * copied. With one reference, the caller's. NULL: it does not belong in memory (spool_size, max_memory), or
 * there is none left; a writer takes it.
 */
struct body *body_create(struct bodies *bodies, struct lonely_span bytes, const uint8_t sha512[64]);

/*
 * What the writers of one loop share: how much may be held on its way to files. Beyond `max_memory`
 * they are told to wait, and what they hold is written at once; until each has been told, a piece of
 * each comes on top.
 */
struct body_lane;
struct body_lane *body_lane_create(struct bodies *bodies, uv_loop_t *loop, uint64_t max_memory);
void body_lane_destroy(struct body_lane *lane); /* after its last writer; NULL is allowed */
uint64_t body_lane_memory(const struct body_lane *lane);

/*
 * Writes one body. `expected` is the size that the peer announced, or UINT64_MAX: a hint that
 * decides early between memory and file, never an allocation by itself.
 */
struct body_writer;
struct body_writer *body_writer_create(struct body_lane *lane, uint64_t expected);

enum body_add {
    BODY_ADD_MORE,  /* the writer can take more now */
    BODY_ADD_WAIT,  /* stop until `on_ready` runs (once, later, on the loop) */
    BODY_ADD_FAILED /* body_writer_error says why; what is added is dropped */
};

/* Adds bytes (copied). `on_ready` may add, finish or abort. What is added while it is waited for is
 * kept in memory all the same, so pieces should be small. The writer holds two chunks of 256 KiB at
 * most, and a piece. */
enum body_add body_writer_add(struct body_writer *w, struct lonely_span bytes,
                              void (*on_ready)(void *arg), void *arg);
enum body_error body_writer_error(const struct body_writer *w);

/*
 * Ends it and frees the writer. `done` runs exactly once, on the loop, possibly before this returns
 * (a small body has nothing to wait for). On BODY_OK the body comes with one reference, the
 * receiver's.
 */
typedef void body_done_fn(void *arg, enum body_error err, struct body *b);
void body_writer_finish(struct body_writer *w, body_done_fn *done, void *arg);

/* Gives up: nothing runs any more, memory and file are freed as soon as the pool lets go. */
void body_writer_abort(struct body_writer *w);

#endif
