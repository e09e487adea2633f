/*
 * Copies input that cannot be read twice into the spool folder (spool.h). Called by cmd_notify.c: what
 * is sent is hashed first.
 */
#include "spool.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "mem.h"

#define COPY_BYTES ((size_t)256 * 1024)

static const char *folder_of(const struct cli_args *args)
{
    const char *folder = cli_value(args, "spool-dir"), *tmp = getenv("TMPDIR");

    if (folder != NULL && strcmp(folder, "none") != 0)
        return folder;
    return tmp != NULL && tmp[0] == '/' ? tmp : "/tmp";
}

/* One piece. 1: go on, 0: the end, -1: failed, complained. */
static int copy_piece(int from, int to, char *buffer, const char *name, const char *folder)
{
    ssize_t n = read(from, buffer, COPY_BYTES);

    if (n == 0)
        return 0;
    if (n < 0) {
        if (errno == EINTR || errno == EAGAIN)
            return 1;
        cli_complain("%s: %s", name, strerror(errno));
        return -1;
    }
    if (fd_write_all(to, buffer, (size_t)n))
        return 1;
    cli_complain("cannot keep the message in %s: %s; see --spool-dir", folder, strerror(errno));
    return -1;
}

static bool copy(struct waiter *w, int from, int to, const char *name, const char *folder)
{
    char *buffer = mem_alloc(COPY_BYTES);
    int more = 1;

    while (more == 1 && !w->stopped && !waiter_timed_out(w)) {
        waiter_wait(w, from, -1);
        if (poll(&(struct pollfd){ .fd = from, .events = POLLIN }, 1, 0) != 0)
            more = copy_piece(from, to, buffer, name, folder);
    }
    mem_free(buffer);
    return more == 0;
}

int spool_fd(const struct cli_args *args, struct waiter *w, int fd, const char *name)
{
    const char *folder = folder_of(args);
    struct stat st;
    int to;

    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    to = fd_open_unnamed(folder);
    if (to < 0)
        cli_complain("cannot keep the message in %s: %s; see --spool-dir", folder, strerror(errno));
    else if (copy(w, fd, to, name, folder) && lseek(to, 0, SEEK_SET) == 0) {
        close(fd);
        return to;
    }
    if (to >= 0)
        close(to);
    close(fd);
    return -1;
}
