/*
 * URLs that a subscriber chooses: whatever they hold, there is a verdict, and it is that on the scheme
 * and address which libcurl's parser and the resolver's own reading of numbers yield. The rules allow
 * or deny by the input's first byte, so that both verdicts are seen.
 */
#include <curl/curl.h>
#include <netdb.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "conf.h"
#include "http_url.h"
#include "mem.h"
#include "policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool good)
{
    if (!good)
        abort();
}

static struct policy *policy_by(uint8_t choice)
{
    static char any_v4[] = "0.0.0.0/0", any_v6[] = "::/0", ten[] = "10.0.0.0/8",
                high[] = "8000::/1", link_local[] = "169.254.0.0/16", one[] = "127.0.0.1/32";
    char *allow[] = { any_v4, any_v6, ten }, *deny[] = { link_local, high, one };
    const struct conf_list lists[2] = { { allow, 3, false }, { deny, 3, false } };

    return choice % 2 == 0 ? policy_create(&lists[0], &lists[1])
                           : policy_create(&lists[1], &lists[0]);
}

/* What getaddrinfo makes of a host without asking anybody; it is what libcurl calls. */
static enum policy_verdict verdict_on_host(const struct policy *p, char *host)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM }, *found;
    enum policy_verdict verdict = POLICY_LATER;
    size_t len = strlen(host);

    if (len > 1 && host[0] == '[') {
        host[len - 1] = '\0';
        host++;
    } else if (len > 0 && host[len - 1] == '.') {
        host[len - 1] = '\0';
    }
    if (getaddrinfo(host, NULL, &hints, &found) != 0)
        return POLICY_LATER;
    verdict = policy_allows(p, found->ai_addr) ? POLICY_ALLOW : POLICY_ADDRESS;
    freeaddrinfo(found);
    return verdict;
}

static enum policy_verdict expected(const struct policy *p, const char *url)
{
    char *clean = mem_alloc(http_url_clean(url, NULL)), *scheme = NULL, *host = NULL;
    enum policy_verdict verdict = POLICY_LATER;
    CURLU *parsed = curl_url();

    http_url_clean(url, clean);
    if (curl_url_set(parsed, CURLUPART_URL, clean, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK) {
        curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0);
        curl_url_get(parsed, CURLUPART_HOST, &host, 0);
        if (strcasecmp(scheme, "http") != 0 && strcasecmp(scheme, "https") != 0)
            verdict = POLICY_SCHEME;
        else if (host != NULL)
            verdict = verdict_on_host(p, host);
    }
    curl_free(scheme);
    curl_free(host);
    curl_url_cleanup(parsed);
    mem_free(clean);
    return verdict;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct policy *p;
    char *url;

    if (size == 0)
        return 0;
    p = policy_by(data[0]);
    url = mem_alloc(size);
    memcpy(url, data + 1, size - 1);
    url[size - 1] = '\0';
    require(policy_judge_url(p, (struct lonely_span){ data + 1, size - 1 }) ==
            (strlen(url) < size - 1 ? POLICY_LATER : expected(p, url)));
    mem_free(url);
    policy_destroy(p);
    return 0;
}
