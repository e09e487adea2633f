/*
 * The folder that a server serves, out of which no name leads.   (doc/protocol/tinyproto.md, 14.4)
 */
#ifndef TPFT_ROOT_H
#define TPFT_ROOT_H

#include "fault.h"
#include "json.h"
#include "path.h"

struct root {
    int fd;
    char *names[2]; /* absolute: resolved, and as given if that is absolute; NULL: none */
};

/* FAULT_SYSTEM, _MEMORY: nothing is to be closed. */
struct fault root_open(struct root *root, const char *folder);
void root_close(struct root *root);

/* path_below() for this root. */
struct fault root_below(const struct root *root, struct json_text path, char *out);

/*
 * Opens the folder in which `path` (of root_below) is, for the *at() calls; no symbolic link is
 * followed on the way. `*name`, the last component, points into `path`. The kernel confines the way
 * where it can (openat2), whatever is moved meanwhile; else root_walk() is taken.
 */
struct fault root_enter(const struct root *root, const char *path, int *folder, const char **name);

/* The same, component by component. */
struct fault root_walk(const struct root *root, const char *path, int *folder, const char **name);

#endif
