/*
 * Names, before any file is touched: paths that a peer asks for, and the arguments of a user.
 *                                                      (doc/protocol/tinyproto.md, 14.1 and 14.4)
 * Pure.
 */
#ifndef TPFT_PATH_H
#define TPFT_PATH_H

#include <stdint.h>

#include "fault.h"
#include "json.h"

#define PATH_BYTES_MAX 4096
#define PATH_NAME_MAX  255
#define PATH_RESERVED  ".tpft-" /* temporary files; nobody else's business */
#define PATH_HOST_MAX  256
#define TPFT_PORT      8088

/*
 * The path below a root, its components joined by single slashes: no "", ".", "..".
 *
 * @param roots  `n_roots` absolute names of the root; an absolute path must begin with one of them
 * @param out    room for PATH_BYTES_MAX + 1
 * @return       FAULT_PATH_EMPTY, _LONG, _NUL, _OUTSIDE (absolute elsewhere, or `..`), _RESERVED,
 *               FAULT_NOT_REGULAR (it ends in `/` or `.`, or is the root itself)
 */
struct fault path_below(struct json_text path, const char *const *roots, size_t n_roots, char *out);

/* The last component; never contains a slash. */
const char *path_name(const char *path);

/* An argument with a `:` is remote, unless it begins with `/`, `./` or `../`. */
bool path_is_remote(const char *argument);

struct path_remote {
    char host[PATH_HOST_MAX];
    int port;
    const char *path; /* into the argument; "" where none was given */
};

/* "HOST", "HOST:PORT", "[IPV6]", "[IPV6]:PORT"; the default port is TPFT_PORT, 0 is allowed. */
bool path_parse_address(const char *text, struct path_remote *out);

/* "HOST:PATH", "HOST:PORT:PATH", the host also in brackets; the path is not empty. false: it is not
 * that: another colon, an empty part, a port that is no number from 1 to 65535. */
bool path_parse_remote(const char *argument, struct path_remote *out);

#endif
