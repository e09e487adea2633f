/*
 * Where webhooks may go (policy.h). worker.c has the HTTP client ask for each address that it is about
 * to connect to, after DNS; the routes ask for a URL before they store it. Only the former protects,
 * since names change; the latter tells the subscriber at once.
 */
#include "policy.h"

#include <assert.h>
#include <string.h>

#include "cidr.h"
#include "http_url.h"
#include "mem.h"

struct ranges {
    struct cidr *items;
    size_t count;
};

struct policy {
    struct ranges allow, deny;
};

static struct ranges ranges_of(const struct conf_list *list)
{
    struct ranges out = { mem_calloc(list->count, sizeof(*out.items)), list->count };
    const char *why;

    for (size_t i = 0; i < list->count; i++) {
        bool good = cidr_parse(list->items[i], strlen(list->items[i]), &out.items[i], &why);

        assert(good);
        (void)good;
    }
    return out;
}

struct policy *policy_create(const struct conf_list *allow, const struct conf_list *deny)
{
    struct policy *p = mem_alloc(sizeof(*p));

    p->allow = ranges_of(allow);
    p->deny = ranges_of(deny);
    return p;
}

void policy_destroy(struct policy *p)
{
    if (p == NULL)
        return;
    mem_free(p->allow.items);
    mem_free(p->deny.items);
    mem_free(p);
}

/* Bits of the longest range that holds the address; -1: none does. */
static int longest(const struct ranges *ranges, const struct ip_address *address)
{
    int best = -1;

    for (size_t i = 0; i < ranges->count; i++)
        if ((int)ranges->items[i].bits > best && cidr_holds(&ranges->items[i], address))
            best = (int)ranges->items[i].bits;
    return best;
}

bool policy_allows(const struct policy *p, const struct sockaddr *address)
{
    struct ip_address ip;

    return ip_address_of(address, &ip) && longest(&p->allow, &ip) > longest(&p->deny, &ip);
}

/* The URL as libcurl will get it, or NULL: no memory. */
static char *as_delivered(struct lonely_span url)
{
    char *text = mem_try_alloc(url.len + 1), *clean = NULL;

    if (text != NULL) {
        memcpy(text, url.ptr, url.len);
        text[url.len] = '\0';
        clean = mem_try_alloc(http_url_clean(text, NULL));
    }
    if (clean != NULL)
        http_url_clean(text, clean);
    mem_free(text);
    return clean;
}

enum policy_verdict policy_judge_url(const struct policy *p, struct lonely_span url)
{
    enum policy_verdict verdict = POLICY_LATER;
    struct sockaddr_storage address;
    char *text;

    if (url.len == 0 || memchr(url.ptr, 0, url.len) != NULL) /* outbox.c posts to no such URL */
        return POLICY_LATER;
    text = as_delivered(url);
    if (text == NULL)
        return POLICY_LATER;
    switch (http_url_read(text, &address)) {
    case HTTP_URL_MALFORMED:
    case HTTP_URL_NAME:
    case HTTP_URL_FOREIGN_NAME:
        break;
    case HTTP_URL_SCHEME:
        verdict = POLICY_SCHEME;
        break;
    case HTTP_URL_ADDRESS:
        verdict =
            policy_allows(p, (const struct sockaddr *)&address) ? POLICY_ALLOW : POLICY_ADDRESS;
        break;
    }
    mem_free(text);
    return verdict;
}
