/*
 * See database_url.h.
 */
#include "database_url.h"

#include <stddef.h>
#include <string.h>

#include "mem.h"

/* The password with its ':' in front: [*from, *to) of `url`; false: there is none. */
static bool find(const char *url, size_t *from, size_t *to)
{
    const char *scheme_end = strstr(url, "://");
    const char *begin = scheme_end == NULL ? url : scheme_end + 3;
    size_t len = strcspn(begin, "/?#");
    const char *at = memrchr(begin, '@', len);
    const char *colon = at == NULL ? NULL : memchr(begin, ':', (size_t)(at - begin));

    if (colon == NULL)
        return false;
    *from = (size_t)(colon - url);
    *to = (size_t)(at - url);
    return true;
}

/* ?password=... of libpq. */
static bool is_parameter(const char *url)
{
    const char *at = strchr(url, '?');

    for (; at != NULL; at = strchr(at + 1, '&'))
        if (strncmp(at + 1, "password=", 9) == 0)
            return true;
    return false;
}

bool database_url_has_password(const char *url)
{
    size_t from, to;

    return is_parameter(url) || find(url, &from, &to);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place. false: what a line of a file cannot hold. */
static bool unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; from++, to++) {
        int high = *from == '%' ? hex_digit(from[1]) : -1;
        int low = high >= 0 ? hex_digit(from[2]) : -1;

        *to = *from;
        if (low >= 0) {
            *to = (char)(high << 4 | low);
            from += 2;
        }
        if (*to == '\0' || *to == '\n' || *to == '\r')
            return false;
    }
    *to = '\0';
    return true;
}

bool database_url_split(const char *url, char **bare, char **password)
{
    size_t from = 0, to = 0, len = strlen(url);

    *bare = *password = NULL;
    if (is_parameter(url))
        return false;
    if (find(url, &from, &to)) {
        *password = mem_dup(url + from + 1, to - from); /* with the '@' */
        (*password)[to - from - 1] = '\0';
        if (!unescape(*password)) {
            mem_free(*password);
            *password = NULL;
            return false;
        }
    }
    *bare = mem_alloc(len + 1);
    memcpy(*bare, url, from);
    memcpy(*bare + from, url + to, len - to + 1);
    return true;
}
