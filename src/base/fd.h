/*
 * Descriptors, as far as libc makes them awkward. Header only.
 */
#ifndef FD_H
#define FD_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

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

#endif
