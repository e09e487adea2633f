/*
 * One request without authorization, or only a connection (probe.h). Called by cmd_check.c.
 */
#include "probe.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <curl/curl.h>

#include "clock.h"

#define TCP_PORT 3004L

/* HTTP: the Date of the reply. It is cut to whole seconds. */
static size_t on_header(char *ptr, size_t size, size_t n, void *arg)
{
    struct probe *p = arg;
    char text[64];
    time_t date;

    if (n > 5 && n < sizeof(text) && strncasecmp(ptr, "Date:", 5) == 0) {
        memcpy(text, ptr + 5, n - 5);
        text[n - 5] = '\0';
        date = curl_getdate(text, NULL);
        if (date >= 0) {
            double now_s = (double)clock_wall_ns(&clock_system) / 1e9;

            p->has_clock = true;
            p->ahead_s = now_s - (double)date - 0.5;
        }
    }
    return size * n;
}

static size_t on_body(char *ptr, size_t size, size_t n, void *arg)
{
    (void)ptr, (void)arg;
    return size * n;
}

static enum probe_result result_of(CURLcode code)
{
    switch ((int)code) { /* libcurl's list grows */
    case CURLE_OK:
        return PROBE_GOOD;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
        return PROBE_TLS;
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return PROBE_PROTOCOL;
    default:
        return PROBE_ADDRESS;
    }
}

/* The URL as libcurl knows it. True: it is plain TCP, whose port is another. */
static bool translate(const char *url, char out[2048])
{
    const char *rest = strstr(url, "://") + 3;
    bool secure = rest[-4] == 's' && strncmp(url, "ws:", 3) != 0;
    bool tcp = strncmp(url, "tcp", 3) == 0;

    snprintf(out, 2048, "%s://%s%s", secure ? "https" : "http", rest, tcp ? "" : "/");
    return tcp;
}

static bool has_port(const char *url)
{
    const char *host = strstr(url, "://") + 3, *bracket = strrchr(host, ']');

    return strchr(bracket != NULL ? bracket : host, ':') != NULL;
}

static int on_progress(void *arg, curl_off_t all, curl_off_t now, curl_off_t all_up, curl_off_t up)
{
    const struct probe_conf *conf = arg;

    (void)all, (void)now, (void)all_up, (void)up;
    return conf->is_stopped(conf->arg); /* not 0: the end */
}

static void set_options(CURL *curl, const struct probe_conf *conf, struct probe *out)
{
    char url[2048];
    bool tcp = translate(conf->url, url);

    curl_easy_setopt(curl, CURLOPT_URL, url);
    if (tcp) {
        curl_easy_setopt(curl, CURLOPT_CONNECT_ONLY, 1L);
        if (!has_port(conf->url))
            curl_easy_setopt(curl, CURLOPT_PORT, TCP_PORT);
    }
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_PROXY, conf->proxy != NULL ? conf->proxy : "");
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "");
    curl_easy_setopt(curl, CURLOPT_HTTPPROXYTUNNEL, tcp ? 1L : 0L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)conf->timeout_ms);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, conf);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "lonelypsc/" LONELY_VERSION);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, out);
    if (conf->ca != NULL) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, conf->ca);
        curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    }
    if (conf->cert != NULL)
        curl_easy_setopt(curl, CURLOPT_SSLCERT, conf->cert);
    if (conf->key != NULL)
        curl_easy_setopt(curl, CURLOPT_SSLKEY, conf->key);
}

void probe_run(const struct probe_conf *conf, struct probe *out)
{
    CURL *curl = curl_easy_init();
    char detail[CURL_ERROR_SIZE] = "";
    char *address = NULL;
    long port = 0;
    CURLcode code = CURLE_OUT_OF_MEMORY;

    *out = (struct probe){ 0 };
    if (curl != NULL) {
        set_options(curl, conf, out);
        curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
        code = curl_easy_perform(curl);
        curl_easy_getinfo(curl, CURLINFO_PRIMARY_IP, &address);
        curl_easy_getinfo(curl, CURLINFO_PRIMARY_PORT, &port);
        if (address != NULL && address[0] != '\0')
            snprintf(out->peer, sizeof(out->peer), "%s port %ld", address, port);
    }
    out->result = result_of(code);
    snprintf(out->why, sizeof(out->why), "%s",
             detail[0] != '\0' ? detail : curl_easy_strerror(code));
    if (curl != NULL)
        curl_easy_cleanup(curl);
}
