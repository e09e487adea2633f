/*
 * How the HTTP client reads a URL (http_url.h). Called by http_request.c, and by whoever judges a URL
 * before it is posted to.
 */
#include "http_url.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

static bool is_sent_as_is(unsigned char c)
{
    return c != ' ' && c < 0x80;
}

size_t http_url_clean(const char *url, char *to)
{
    static const char hex[] = "0123456789ABCDEF";
    const char *host = strstr(url, "://");
    size_t host_end, n = 0;

    host = host == NULL ? url : host + 3;
    host_end = (size_t)(host - url) + strcspn(host, "/?#");
    for (size_t i = 0; url[i] != '\0' && url[i] != '#'; i++) {
        unsigned char c = (unsigned char)url[i];
        bool as_is = i < host_end || is_sent_as_is(c);

        if (to != NULL && as_is)
            to[n] = (char)c;
        else if (to != NULL)
            memcpy(to + n, (char[3]){ '%', hex[c >> 4], hex[c & 15] }, 3);
        n += as_is ? 1 : 3;
    }
    if (to != NULL)
        to[n] = '\0';
    return n + 1;
}

/*
 * libcurl makes dotted addresses of most that inet_aton() takes; what it leaves, such as a
 * percent-encoded "0x7f%2e1", its resolver gives to inet_aton(). A dot behind makes a name of an
 * address, but one that nobody can mean otherwise.
 */
static bool read_v4(char *host, struct sockaddr_storage *address)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET };
    size_t len = strlen(host);

    if (len > 0 && host[len - 1] == '.')
        host[len - 1] = '\0';
    if (inet_aton(host, &v4.sin_addr) == 0)
        return false;
    memcpy(address, &v4, sizeof(v4));
    return true;
}

/* "[::1]"; the zone has been cut off by libcurl. */
static bool read_v6(char *host, struct sockaddr_storage *address)
{
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
    size_t len = strlen(host);

    if (len < 2 || host[0] != '[' || host[len - 1] != ']')
        return false;
    host[len - 1] = '\0';
    if (inet_pton(AF_INET6, host + 1, &v6.sin6_addr) != 1)
        return false;
    memcpy(address, &v6, sizeof(v6));
    return true;
}

static bool is_ascii(const char *s)
{
    while (*s != '\0' && (unsigned char)*s < 0x80)
        s++;
    return *s == '\0';
}

static enum http_url_kind kind_of(const char *scheme, char *host, struct sockaddr_storage *address)
{
    if (strcasecmp(scheme, "http") != 0 && strcasecmp(scheme, "https") != 0)
        return HTTP_URL_SCHEME;
    if (host == NULL)
        return HTTP_URL_MALFORMED;
    memset(address, 0, sizeof(*address));
    if (read_v6(host, address) || read_v4(host, address))
        return HTTP_URL_ADDRESS;
    return is_ascii(host) ? HTTP_URL_NAME : HTTP_URL_FOREIGN_NAME;
}

enum http_url_kind http_url_read(const char *url, struct sockaddr_storage *address)
{
    enum http_url_kind kind = HTTP_URL_MALFORMED;
    CURLU *parsed = curl_url();
    char *scheme = NULL, *host = NULL;

    /* With the flags that a transfer parses with. */
    if (parsed != NULL &&
        curl_url_set(parsed, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME | CURLU_PATH_AS_IS) ==
            CURLUE_OK &&
        curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK) {
        curl_url_get(parsed, CURLUPART_HOST, &host, 0); /* file:///x has none */
        kind = kind_of(scheme, host, address);
    }
    curl_free(scheme);
    curl_free(host);
    curl_url_cleanup(parsed);
    return kind;
}
