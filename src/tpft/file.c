/*
 * Sources and sinks (file.h). The visits of a server and client.c call it.
 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define ATTEMPTS 16 /* at a name that others take at the same time */

/* ---- Source ---- */

struct fault source_open(struct source *source, int folder, const char *name, bool follow)
{
    struct stat st;
    struct fault fault = fault_of(FAULT_NONE);

    source->fd = -1;
    /* Looked at before it is opened: opening alone does something to some devices. */
    if (fstatat(folder, name, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
        return fault_errno();
    if (S_ISLNK(st.st_mode))
        return fault_of(FAULT_PATH_LINK);
    if (!S_ISREG(st.st_mode))
        return fault_of(FAULT_NOT_REGULAR);
    source->fd = openat(folder, name,
                        O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
    if (source->fd < 0)
        return fault_errno();
    if (fstat(source->fd, &st) != 0)
        fault = fault_errno();
    else if (!S_ISREG(st.st_mode))
        fault = fault_of(FAULT_NOT_REGULAR);
    else
        source->size = (uint64_t)st.st_size;
    if (is_fault(fault))
        source_close(source);
    return fault;
}

void source_close(struct source *source)
{
    if (source->fd >= 0)
        (void)close(source->fd);
    source->fd = -1;
}

struct fault source_check(const struct source *source)
{
    struct stat st;

    if (fstat(source->fd, &st) != 0)
        return fault_errno();
    return fault_of((uint64_t)st.st_size == source->size ? FAULT_NONE : FAULT_CHANGED);
}

/* ---- Sink: the name ---- */

/* May this name become a file that is complete? */
static struct fault check_target(const struct sink *sink)
{
    struct stat st;

    if (fstatat(sink->folder, sink->name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? fault_of(FAULT_NONE) : fault_errno();
    if (S_ISLNK(st.st_mode))
        return fault_of(FAULT_PATH_LINK);
    if (!S_ISREG(st.st_mode))
        return fault_of(FAULT_NOT_REGULAR);
    /* Replacing it needs no such right, but the owner has said that it is not to be written. */
    return faccessat(sink->folder, sink->name, W_OK, AT_EACCESS) == 0 ? fault_of(FAULT_NONE)
                                                                      : fault_errno();
}

/* Is there room? Reserving it would let a peer fill the disk with one letter. */
static struct fault check_room(const struct sink *sink)
{
    struct statvfs fs;

    /* File systems of programs may know nothing of it: 0 blocks. */
    if (sink->size != SINK_SIZE_UNKNOWN && fstatvfs(sink->fd, &fs) == 0 && fs.f_frsize > 0 &&
        fs.f_blocks > 0 && (sink->size - sink->got) / fs.f_frsize > (uint64_t)fs.f_bavail) {
        errno = ENOSPC;
        return fault_errno();
    }
    return fault_of(FAULT_NONE);
}

static struct fault make_temporary(struct sink *sink)
{
    for (int i = 0; i < ATTEMPTS; i++) {
        uint64_t number;

        if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
            return fault_errno();
        (void)snprintf(sink->temporary, sizeof(sink->temporary), PATH_RESERVED "%016" PRIx64,
                       number);
        sink->fd = openat(sink->folder, sink->temporary,
                          O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (sink->fd >= 0 || errno != EEXIST)
            break;
    }
    return sink->fd >= 0 ? fault_of(FAULT_NONE) : fault_errno();
}

/* ---- Sink: resuming ---- */

/* The name that both a broken transfer and the one that resumes it derive from the file's. */
static struct fault name_partial(struct sink *sink)
{
    uint8_t digest[SUM_BYTES];
    struct sum *sum = sum_create(NULL);
    char *to = sink->temporary;

    if (sum == NULL)
        return fault_of(FAULT_MEMORY);
    sum_add(sum, sink->name, strlen(sink->name));
    sum_read(sum, digest);
    sum_destroy(sum);
    to += snprintf(to, SINK_TEMPORARY_MAX, "%s", PATH_RESERVED);
    for (size_t i = 0; i < 16; i++)
        to += snprintf(to, 3, "%02x", digest[i]);
    (void)snprintf(to, 6, "-part");
    return fault_of(FAULT_NONE);
}

/* Only a file of our own is gone on with, which nobody else has open for that. */
static struct fault lock_partial(struct sink *sink, bool *is_ours)
{
    struct stat st, named;

    *is_ours = false;
    if (flock(sink->fd, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK ? fault_of(FAULT_BUSY) : fault_errno();
    if (fstat(sink->fd, &st) != 0)
        return fault_errno();
    if (!S_ISREG(st.st_mode) || st.st_nlink > 1 || st.st_uid != geteuid())
        return fault_of(FAULT_NOT_REGULAR);
    /* Another transfer may have completed it between opening and locking. */
    *is_ours = fstatat(sink->folder, sink->temporary, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
               named.st_dev == st.st_dev && named.st_ino == st.st_ino;
    sink->got = (uint64_t)st.st_size;
    return fault_of(FAULT_NONE);
}

static struct fault open_partial(struct sink *sink)
{
    struct fault fault = name_partial(sink);
    bool is_ours = false;

    for (int i = 0; i < ATTEMPTS && !is_fault(fault) && !is_ours; i++) {
        if (sink->fd >= 0)
            (void)close(sink->fd);
        sink->fd = openat(sink->folder, sink->temporary,
                          O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
        fault = sink->fd >= 0 ? lock_partial(sink, &is_ours) : fault_errno();
    }
    if (is_fault(fault))
        return fault;
    if (!is_ours)
        return fault_of(FAULT_BUSY);
    sink->is_kept = true;
    if (sink->got > sink->size)
        return sink_restart(sink);
    if (lseek(sink->fd, 0, SEEK_END) < 0)
        return fault_errno();
    return sum_add_file(sink->sum, sink->fd, 0, sink->got);
}

struct fault sink_set_size(struct sink *sink, uint64_t size)
{
    sink->size = size;
    return sink->got > size ? sink_restart(sink) : check_room(sink);
}

struct fault sink_restart(struct sink *sink)
{
    sink->got = 0;
    sum_reset(sink->sum);
    if (ftruncate(sink->fd, 0) != 0 || lseek(sink->fd, 0, SEEK_SET) < 0)
        return fault_errno();
    return check_room(sink);
}

/* ---- Sink: its life ---- */

static void sink_close(struct sink *sink)
{
    if (sink->fd >= 0)
        (void)close(sink->fd);
    (void)close(sink->folder);
    sum_destroy(sink->sum);
    sink->fd = -1;
    sink->folder = -1;
    sink->sum = NULL;
}

struct fault sink_open(struct sink *sink, int folder, const char *name,
                       const struct sink_wish *wish)
{
    struct fault fault;

    memset(sink, 0, sizeof(*sink));
    sink->folder = folder;
    sink->fd = -1;
    sink->size = wish->size;
    sink->mode = wish->mode;
    (void)snprintf(sink->name, sizeof(sink->name), "%s", name);
    fault = strlen(name) > PATH_NAME_MAX ? fault_of(FAULT_PATH_LONG) : check_target(sink);
    if (!is_fault(fault) && (wish->checksum || wish->resume)) {
        sink->sum = sum_create(wish->stop);
        fault = fault_of(sink->sum != NULL ? FAULT_NONE : FAULT_MEMORY);
    }
    if (is_fault(fault)) {
        sink_close(sink);
        return fault;
    }
    fault = wish->resume ? open_partial(sink) : make_temporary(sink);
    if (!is_fault(fault))
        fault = check_room(sink);
    if (!is_fault(fault))
        return fault;
    if (sink->fd < 0 || (wish->resume && !sink->is_kept))
        sink_close(sink); /* another transfer's, or not a file of ours: not to be removed */
    else
        sink_drop(sink);
    return fault;
}

struct fault sink_write(struct sink *sink, const void *ptr, size_t len)
{
    const char *from = ptr;

    while (len > 0) {
        ssize_t n = write(sink->fd, from, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fault_errno();
        if (sink->sum != NULL)
            sum_add(sink->sum, from, (size_t)n);
        from += n;
        len -= (size_t)n;
        sink->got += (uint64_t)n;
    }
    return fault_of(FAULT_NONE);
}

/* So that a crash cannot undo the renaming. Where the folder may not be read, that is as it is. */
static void sync_folder(const struct sink *sink)
{
    int fd = openat(sink->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return;
    (void)fsync(fd);
    (void)close(fd);
}

static struct fault name_it(struct sink *sink)
{
    struct fault fault = check_target(sink);

    if (is_fault(fault))
        return fault;
    if (fchmod(sink->fd, sink->mode) != 0 || fsync(sink->fd) != 0 ||
        renameat(sink->folder, sink->temporary, sink->folder, sink->name) != 0)
        return fault_errno();
    sync_folder(sink);
    return fault_of(FAULT_NONE);
}

struct fault sink_commit(struct sink *sink, const uint8_t *sum)
{
    struct fault fault = fault_of(FAULT_NONE);
    uint8_t own[SUM_BYTES];

    if (sum != NULL) {
        sum_read(sink->sum, own);
        if (memcmp(own, sum, SUM_BYTES) != 0)
            fault = fault_of(FAULT_CHECKSUM);
    }
    if (!is_fault(fault))
        fault = name_it(sink);
    if (is_fault(fault)) {
        sink->is_kept = false;
        sink_drop(sink);
        return fault;
    }
    sink_close(sink);
    return fault;
}

void sink_drop(struct sink *sink)
{
    if (sink->fd < 0)
        return;
    if (!sink->is_kept || sink->got == 0)
        (void)unlinkat(sink->folder, sink->temporary, 0);
    sink_close(sink);
}
