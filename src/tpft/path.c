/*
 * Names (path.h). options.c, client.c and root.c call it; root.c then opens what came of it, and trusts no
 * more in it than that it has the shape that the header promises.
 */
#include "path.h"

#include <string.h>

/* What follows the root's name in an absolute path; NULL: it begins otherwise. */
static const char *after_root(const char *path, const char *end, const char *root)
{
    size_t len = strlen(root);

    while (len > 0 && root[len - 1] == '/')
        len--;
    if ((size_t)(end - path) < len || memcmp(path, root, len) != 0)
        return NULL;
    return path + len == end || path[len] == '/' ? path + len : NULL;
}

static const char *enter(const char *ptr, const char *end, const char *const *roots, size_t n_roots)
{
    const char *inside = NULL;

    if (ptr[0] != '/')
        return ptr;
    for (size_t i = 0; i < n_roots && inside == NULL; i++)
        inside = after_root(ptr, end, roots[i]);
    return inside;
}

static struct fault check_bytes(struct json_text path)
{
    if (path.len == 0)
        return fault_of(FAULT_PATH_EMPTY);
    if (path.len > PATH_BYTES_MAX)
        return fault_of(FAULT_PATH_LONG);
    if (memchr(path.ptr, '\0', path.len) != NULL)
        return fault_of(FAULT_PATH_NUL);
    return fault_of(FAULT_NONE);
}

struct fault path_below(struct json_text path, const char *const *roots, size_t n_roots, char *out)
{
    const char *end = path.ptr + path.len, *ptr, *name = out;
    struct fault fault = check_bytes(path);
    bool names_file = false; /* the last component does */
    char *to = out;

    if (is_fault(fault))
        return fault;
    ptr = enter(path.ptr, end, roots, n_roots);
    if (ptr == NULL)
        return fault_of(FAULT_PATH_OUTSIDE);
    while (ptr < end) {
        const char *slash = memchr(ptr, '/', (size_t)(end - ptr));
        size_t len = (size_t)((slash != NULL ? slash : end) - ptr);

        names_file = len > 0 && !(len == 1 && ptr[0] == '.');
        if (len == 2 && memcmp(ptr, "..", 2) == 0)
            return fault_of(FAULT_PATH_OUTSIDE);
        if (len > PATH_NAME_MAX)
            return fault_of(FAULT_PATH_LONG);
        if (names_file) {
            if (to > out)
                *to++ = '/';
            name = to;
            memcpy(to, ptr, len);
            to += len;
        }
        ptr += len + (slash != NULL);
        names_file = names_file && slash == NULL;
    }
    *to = '\0';
    if (!names_file)
        return fault_of(FAULT_NOT_REGULAR);
    if (strncmp(name, PATH_RESERVED, strlen(PATH_RESERVED)) == 0)
        return fault_of(FAULT_PATH_RESERVED);
    return fault_of(FAULT_NONE);
}

const char *path_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

/* ---- Arguments ---- */

bool path_is_remote(const char *argument)
{
    return strchr(argument, ':') != NULL && argument[0] != '/' && strncmp(argument, "./", 2) != 0 &&
           strncmp(argument, "../", 3) != 0;
}

static bool parse_port(const char *ptr, size_t len, int *out)
{
    int port = 0;

    if (len == 0 || len > 5 || strspn(ptr, "0123456789") < len)
        return false;
    for (size_t i = 0; i < len; i++)
        port = port * 10 + (ptr[i] - '0');
    *out = port;
    return port <= 65535;
}

/* The host; what follows it, a colon or the end. NULL: there is none. */
static const char *parse_host(const char *text, char *out)
{
    const char *begin = text, *end;
    size_t len;

    if (text[0] == '[') {
        begin++;
        end = strchr(begin, ']');
        if (end == NULL)
            return NULL;
        text = end + 1;
    } else {
        end = text = text + strcspn(text, ":");
    }
    len = (size_t)(end - begin);
    if (len == 0 || len >= PATH_HOST_MAX || (text[0] != ':' && text[0] != '\0'))
        return NULL;
    memcpy(out, begin, len);
    out[len] = '\0';
    return text;
}

bool path_parse_address(const char *text, struct path_remote *out)
{
    const char *rest = parse_host(text, out->host);

    out->port = TPFT_PORT;
    out->path = "";
    return rest != NULL && (rest[0] == '\0' || parse_port(rest + 1, strlen(rest + 1), &out->port));
}

bool path_parse_remote(const char *argument, struct path_remote *out)
{
    const char *rest = parse_host(argument, out->host), *colon;

    if (rest == NULL || rest[0] != ':')
        return false;
    rest++;
    out->port = TPFT_PORT;
    colon = strchr(rest, ':');
    if (colon != NULL) {
        if (!parse_port(rest, (size_t)(colon - rest), &out->port) || out->port == 0)
            return false;
        rest = colon + 1;
    }
    out->path = rest;
    return rest[0] != '\0' && strchr(rest, ':') == NULL;
}
