/*
 * Confinement (root.h). Blocks: the server calls it in the thread pool.
 */
#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FOLDER_FLAGS (O_PATH | O_DIRECTORY | O_CLOEXEC)

struct fault root_open(struct root *root, const char *folder)
{
    struct fault fault;

    *root = (struct root){ .fd = open(folder, FOLDER_FLAGS) };
    if (root->fd < 0)
        return fault_errno();
    root->names[0] = realpath(folder, NULL);
    fault = root->names[0] != NULL ? fault_of(FAULT_NONE) : fault_errno();
    if (!is_fault(fault) && folder[0] == '/') {
        root->names[1] = strdup(folder);
        if (root->names[1] == NULL)
            fault = fault_of(FAULT_MEMORY);
    }
    if (is_fault(fault))
        root_close(root);
    return fault;
}

void root_close(struct root *root)
{
    (void)close(root->fd);
    free(root->names[0]);
    free(root->names[1]);
    *root = (struct root){ .fd = -1 };
}

struct fault root_below(const struct root *root, struct json_text path, char *out)
{
    const char *const names[] = { root->names[0], root->names[1] };

    return path_below(path, names, root->names[1] != NULL ? 2 : 1, out);
}

/* Cuts `path` before its last component. */
static void split(const char *path, char *folder, const char **name)
{
    *name = path_name(path);
    if (*name == path) {
        (void)strcpy(folder, "."); // NOLINT: it has room
        return;
    }
    memcpy(folder, path, (size_t)(*name - path) - 1);
    folder[*name - path - 1] = '\0';
}

struct fault root_enter(const struct root *root, const char *path, int *folder, const char **name)
{
    struct open_how how = { .flags = FOLDER_FLAGS,
                            .resolve =
                                RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
    char way[PATH_BYTES_MAX + 1];
    long fd;

    split(path, way, name);
    do
        fd = syscall(SYS_openat2, root->fd, way, &how, sizeof(how));
    while (fd < 0 && (errno == EINTR || errno == EAGAIN)); /* EAGAIN: something was being moved */
    *folder = (int)fd;
    if (fd >= 0)
        return fault_of(FAULT_NONE);
    /* Kernels before 5.6 do not know the call, and filters of system calls may not. */
    return errno == ENOSYS || errno == EPERM ? root_walk(root, path, folder, name) : fault_errno();
}

struct fault root_walk(const struct root *root, const char *path, int *folder, const char **name)
{
    char way[PATH_BYTES_MAX + 1], *next = way, *component;
    struct fault fault;
    int fd, deeper;

    split(path, way, name);
    fd = openat(root->fd, ".", FOLDER_FLAGS);
    while (fd >= 0 && (component = strsep(&next, "/")) != NULL) {
        /* With O_DIRECTORY a symbolic link is ENOTDIR, also if it leads to a folder. */
        deeper = openat(fd, component, FOLDER_FLAGS | O_NOFOLLOW);
        fault = deeper < 0 ? fault_errno() : fault_of(FAULT_NONE);
        (void)close(fd);
        if (is_fault(fault))
            return fault;
        fd = deeper;
    }
    *folder = fd;
    return fd >= 0 ? fault_of(FAULT_NONE) : fault_errno();
}
