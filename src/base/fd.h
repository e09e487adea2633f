/*
 * Descriptors, as far as libc makes them awkward. Header only.
 */
#ifndef FD_H
#define FD_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"

/* Writes all of it, whatever interrupts. false: errno says why not; a part may have been written. */
static inline bool fd_write_all(int fd, const char *ptr, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, ptr, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        ptr += n;
        len -= (size_t)n;
    }
    return true;
}

/* A file without a name in that folder; for a moment it has one where the file system knows no other way. -1:
 * errno says why not. */
static inline int fd_open_unnamed(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    size_t len = strlen(dir) + sizeof("/lonely-XXXXXX");
    char *path;

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    path = mem_alloc(len);
    snprintf(path, len, "%s/lonely-XXXXXX", dir);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    mem_free(path);
    return fd;
}

#endif
