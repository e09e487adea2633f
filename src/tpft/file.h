/*
 * The files at the two ends of a transfer: a source, which is only read, and a sink, of which nothing
 * is seen under its name before it is complete.                  (doc/protocol/tinyproto.md, 14.4)
 *
 * All of these block: a server calls them in the thread pool, one at a time for a file.
 */
#ifndef TPFT_FILE_H
#define TPFT_FILE_H

#include <stdint.h>
#include <sys/types.h>

#include "fault.h"
#include "path.h"
#include "sum.h"

/* ---- Source ---- */

struct source {
    int fd;
    uint64_t size; /* when it was opened */
};

/* Opens a regular file: FAULT_NOT_REGULAR at once for anything else. Of `name` in `folder` (or
 * AT_FDCWD) links are followed only if `follow`. */
struct fault source_open(struct source *source, int folder, const char *name, bool follow);
void source_close(struct source *source);
/* FAULT_CHANGED: its size is another one now. */
struct fault source_check(const struct source *source);

/* ---- Sink ---- */

#define SINK_TEMPORARY_MAX 48
#define SINK_SIZE_UNKNOWN  UINT64_MAX

struct sink {
    int folder, fd; /* fd -1: not open */
    uint64_t size, got;
    struct sum *sum; /* of the first `got` bytes; NULL: none is wanted */
    bool is_kept;    /* what came stays when the transfer breaks off */
    mode_t mode;     /* of the complete file */
    char name[PATH_NAME_MAX + 1];
    char temporary[SINK_TEMPORARY_MAX];
};

struct sink_wish {
    uint64_t size;
    mode_t mode;
    bool checksum;           /* keep a sum */
    const atomic_bool *stop; /* as of sum_create() */
    bool resume;             /* go on with what an earlier transfer left; implies checksum */
};

/*
 * Makes a temporary file beside `name`, mode 0600, or goes on with the one that was left: then `got` is
 * its length. `folder` is taken over, also on failure.
 *
 * FAULT_NOT_REGULAR: something of another kind has the name. FAULT_BUSY: another transfer resumes it.
 * FAULT_SYSTEM: EACCES and ENOSPC too, found before a byte was sent.
 */
struct fault sink_open(struct sink *sink, int folder, const char *name,
                       const struct sink_wish *wish);

/* Once the size is known. More than that was left: begins anew. FAULT_SYSTEM: ENOSPC. */
struct fault sink_set_size(struct sink *sink, uint64_t size);

/* Begins anew: what an earlier transfer left is something else. */
struct fault sink_restart(struct sink *sink);

/* Appends; never beyond `size`, says the caller. */
struct fault sink_write(struct sink *sink, const void *ptr, size_t len);

/* The file takes its name, on the disk. `sum` (NULL: unknown) must match, else FAULT_CHECKSUM. After a
 * failure the name is as it was before, and nothing is kept. Closes. */
struct fault sink_commit(struct sink *sink, const uint8_t *sum);

/* Broken off: removes the temporary file, unless it is kept. Closes. Closed ones are allowed. */
void sink_drop(struct sink *sink);

#endif
