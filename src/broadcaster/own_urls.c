/*
 * See own_urls.h. Called by broadcaster.c at start, and by the two routes for other broadcasters.
 */
#include "own_urls.h"

#include <string.h>

#include "mem.h"

static char *join(const char *a, size_t a_len, const char *b, size_t b_len, const char *c)
{
    size_t c_len = strlen(c);
    char *out = mem_alloc(a_len + b_len + c_len + 1);

    memcpy(out, a, a_len);
    memcpy(out + a_len, b, b_len);
    memcpy(out + a_len + b_len, c, c_len + 1);
    return out;
}

static bool is_derived(const char *url)
{
    return strcmp(url, "derived") == 0;
}

static bool is_wildcard(const char *bound)
{
    return strncmp(bound, "0.0.0.0:", 8) == 0 || strncmp(bound, "[::]:", 5) == 0;
}

/* Up to the path of the route, with which conf_check has seen that it ends. */
static size_t base_len(const char *url)
{
    return strcspn(url, "?") - strlen(OWN_URLS_RECEIVE_PATH);
}

bool own_urls_make(const struct conf *conf, const char *bound, char **receiver, char **missed)
{
    const char *given = conf->broadcaster.receiver_url;
    const char *missed_given = conf->broadcaster.missed_url;

    *receiver = *missed = NULL;
    if (!is_derived(given))
        *receiver = mem_strdup(given);
    else if (bound != NULL && !is_wildcard(bound))
        *receiver = join("http://", 7, bound, strlen(bound), OWN_URLS_RECEIVE_PATH);
    if (*receiver == NULL)
        return false;
    if (missed_given != NULL)
        *missed = !is_derived(missed_given)
                      ? mem_strdup(missed_given)
                      : join(*receiver, base_len(*receiver), "", 0, OWN_URLS_MISSED_PATH);
    return true;
}

/* Takes `part` off the beginning of what is left of the url. */
static bool take(const char **url, const uint8_t *part, size_t len)
{
    if (strncmp(*url, (const char *)part, len) != 0 || strlen(*url) < len)
        return false;
    *url += len;
    return true;
}

static bool take_text(const char **url, const char *text)
{
    return take(url, (const uint8_t *)text, strlen(text));
}

static bool take_span(const char **url, struct lonely_span span)
{
    return span.len == 0 || take(url, span.ptr, span.len);
}

bool own_urls_is(const struct http_exchange *x, const char *url, bool tls_elsewhere)
{
    const struct http_header *host = http_head_find(&x->head, "Host");
    struct lonely_span target = x->head.target;

    if (host == NULL)
        return false;
    if (target.len > 0 && target.ptr[target.len - 1] == '?') /* an empty query is none */
        target.len--;
    return (take_text(&url, x->secure ? "https://" : "http://") ||
            (!x->secure && tls_elsewhere && take_text(&url, "https://"))) &&
           take_span(&url, host->value) && take_span(&url, x->head.mounted) &&
           take_span(&url, target) && *url == '\0';
}
