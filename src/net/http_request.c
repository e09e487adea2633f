/*
 * What a call tells libcurl: URL, headers, body, options, and the callbacks through which libcurl
 * takes the body and gives the reply. Called by http_client.c.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "http_client_private.h"
#include "http_url.h"
#include "mem.h"

enum {
    LARGE_UPLOAD_BYTES = 262144, /* buffer of libcurl for large bodies ... */
    SMALL_UPLOAD_BYTES = 65536   /* ... and for those up to this size */
};

/* ---- what libcurl asks during a call ---- */

/* The connection, new or kept, is usable. A kept one is judged again, since http_sock_open was not
 * asked and the rules may have changed. */
static int on_ready(void *arg, char *ip, char *local_ip, int port, int local_port)
{
    struct http_call *call = arg;
    struct http_client *client = call->client;

    (void)local_ip;
    http_sock_established(call, local_port);
    call->sending = true;
    list_remove(&call->of_connecting);
    call->attempt_expired = false;
    if (call->failing) /* it ends in the next turn, with its trouble */
        return CURL_PREREQFUNC_ABORT;
    call->trouble = HTTP_CALL_REPLIED; /* of addresses tried in vain */
    if (client->conf.proxy == NULL && !http_literal_allowed(call, ip, port)) {
        http_call_trouble(call, HTTP_CALL_CONNECT, "address not allowed any more");
        return CURL_PREREQFUNC_ABORT;
    }
    http_call_touch(call);
    return CURL_PREREQFUNC_OK;
}

/* libcurl is content with a head that ends in the middle; so its end is watched for. */
static size_t on_head_line(char *line, size_t one, size_t len, void *arg)
{
    struct http_call *call = arg;

    (void)one;
    call->head_bytes += len;
    if (call->head_bytes > HTTP_REPLY_HEAD_BYTES_MAX) {
        http_call_trouble(call, HTTP_CALL_BROKEN, "reply head too long");
        return 0;
    }
    if (line[0] == '\r' || line[0] == '\n')
        call->head_ended = true;
    else if (len > 5 && memcmp(line, "HTTP/", 5) == 0)
        call->head_ended = false;
    return len;
}

bool http_call_take_reply(struct http_call *call, const char *ptr, size_t len)
{
    if (buf_append(&call->reply, ptr, len))
        return true;
    if (len > buf_room(&call->reply))
        http_call_trouble(call, HTTP_CALL_REPLY_SIZE, "reply too long");
    else
        http_call_trouble(call, HTTP_CALL_BROKEN, "no memory for the reply");
    return false;
}

static size_t on_reply(char *ptr, size_t one, size_t len, void *arg)
{
    (void)one;
    return http_call_take_reply(arg, ptr, len) ? len : 0;
}

/* What a source has answered when asked for `max` bytes. */
static ptrdiff_t source_result(struct http_call *call, ptrdiff_t n, uint64_t max)
{
    if (n == HTTP_SOURCE_WAIT)
        call->source_waits = true;
    else if (n <= 0 || (uint64_t)n > max) {
        http_call_trouble(call, HTTP_CALL_BROKEN, "the body could not be read");
        n = HTTP_SOURCE_FAIL;
    }
    return n;
}

ptrdiff_t http_call_source_read(struct http_call *call, uint64_t at, uint8_t *to, size_t len)
{
    const struct http_source *source = call->source;
    uint64_t left;

    at -= call->prefix.len;
    left = source->size - at;
    if (len > left)
        len = (size_t)left;
    return source_result(call, source->read(source->arg, at, to, len), len);
}

ptrdiff_t http_call_source_look(struct http_call *call, uint64_t at, struct http_piece *piece)
{
    const struct http_source *source = call->source;

    at -= call->prefix.len;
    return source_result(call, source->look(source->arg, at, piece), source->size - at);
}

uint64_t http_call_body_size(const struct http_call *call)
{
    return call->prefix.len + (call->source == NULL ? 0 : call->source->size);
}

static size_t on_body(char *to, size_t one, size_t cap, void *arg)
{
    struct http_call *call = arg;
    size_t n = 0;
    ptrdiff_t got;

    (void)one;
    if (call->at < call->prefix.len) {
        n = call->prefix.len - (size_t)call->at;
        if (n > cap)
            n = cap;
        memcpy(to, call->prefix.ptr + call->at, n);
        call->at += n;
    }
    if (n == cap || call->at == http_call_body_size(call))
        return n;
    got = call->source_waits ? HTTP_SOURCE_WAIT
                             : http_call_source_read(call, call->at, (uint8_t *)to + n, cap - n);
    if (got > 0) {
        call->at += (uint64_t)got;
        return n + (size_t)got;
    }
    if (got == HTTP_SOURCE_FAIL)
        return CURL_READFUNC_ABORT;
    if (n > 0)
        return n;
    call->paused = true;
    list_remove(&call->of_silent); /* the peer is not to blame */
    return CURL_READFUNC_PAUSE;
}

/* A kept connection turned out to be closed: the body is sent again, over a new one. */
static int on_seek(void *arg, curl_off_t at, int origin)
{
    struct http_call *call = arg;

    if (origin != SEEK_SET || at < 0 || (uint64_t)at > http_call_body_size(call))
        return CURL_SEEKFUNC_FAIL;
    call->at = (uint64_t)at;
    return CURL_SEEKFUNC_OK;
}

/* ---- preparing a call ---- */

/* libcurl would guess a missing scheme. */
static bool url_has_scheme(const char *url)
{
    return strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0;
}

bool http_header_is_valid(const char *line)
{
    for (const char *p = line; *p != '\0'; p++)
        if (((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f)
            return false;
    return line[0] != ':' && strchr(line, ':') != NULL;
}

/* libcurl leaves a header without a value out, unless it ends with ';' in place of ':'. */
static char *header_copy(const char *line, char *to)
{
    size_t len = strlen(line) + 1;
    char *colon;

    memcpy(to, line, len);
    colon = strchr(to, ':');
    if (colon[1 + strspn(colon + 1, " \t")] == '\0')
        memcpy(colon, ";", 2);
    return to + len;
}

/* Headers that libcurl would add by itself are named with nothing behind to leave them out. */
static const char *const left_out[] = { "Expect:", "Content-Type:" };
enum { LEFT_OUT_LEN = sizeof left_out / sizeof left_out[0] };

static struct curl_slist *slist_add(struct curl_slist *at, char *line)
{
    at->data = line;
    at->next = at + 1;
    return at + 1;
}

/* Fills the header list at the beginning of the block, its lines at `to`; returns behind them. */
static char *headers_copy(struct http_call *call, const struct http_call_request *request, char *to)
{
    struct curl_slist *node = call->block;

    for (size_t i = 0; i < request->header_count; i++) {
        node = slist_add(node, to);
        to = header_copy(request->headers[i], to);
    }
    for (size_t i = 0; i < LEFT_OUT_LEN; i++) {
        size_t len = strlen(left_out[i]);
        bool given = false;

        for (size_t j = 0; j < request->header_count && !given; j++)
            given = strncasecmp(request->headers[j], left_out[i], len) == 0;
        if (given)
            continue;
        node = slist_add(node, to);
        memcpy(to, left_out[i], len + 1);
        to += len + 1;
    }
    if (node != call->block)
        node[-1].next = NULL;
    return to;
}

bool http_call_copy_body(struct http_call *call, uint8_t *to)
{
    uint64_t at = call->prefix.len, size = http_call_body_size(call);

    if (call->prefix.len > 0)
        memcpy(to, call->prefix.ptr, call->prefix.len);
    while (at < size) {
        ptrdiff_t n = http_call_source_read(call, at, to + at, (size_t)(size - at));

        if (n < 0)
            return false;
        at += (uint64_t)n;
    }
    return true;
}

static bool set_body(struct http_call *call, uint8_t *copy)
{
    CURL *easy = call->easy;
    uint64_t size = http_call_body_size(call);
    const void *fields = NULL;
    CURLcode err;

    if (copy != NULL && !call->source_waits && http_call_copy_body(call, copy))
        fields = copy;
    else if (call->source == NULL)
        fields = call->prefix.len > 0 ? (const void *)call->prefix.ptr : "";
    err = curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)size);
    if (err == CURLE_OK)
        err = curl_easy_setopt(easy, CURLOPT_POSTFIELDS, fields);
    if (err == CURLE_OK && fields == NULL)
        err = curl_easy_setopt(
            easy, CURLOPT_UPLOAD_BUFFERSIZE,
            (long)(size > SMALL_UPLOAD_BYTES ? LARGE_UPLOAD_BYTES : SMALL_UPLOAD_BYTES));
    return err == CURLE_OK;
}

/*
 * Through a proxy only addresses that stand in the URL can be judged. What a proxy makes of a name is
 * its own affair; but one beyond ASCII may be digits in disguise.
 */
static bool proxied_allowed(struct http_call *call)
{
    struct sockaddr_storage address;

    switch (http_url_read(call->url, &address)) {
    case HTTP_URL_MALFORMED:
    case HTTP_URL_SCHEME:
        http_call_trouble(call, HTTP_CALL_URL, "the URL cannot be read");
        return false;
    case HTTP_URL_ADDRESS:
        if (http_address_allowed(call, (const struct sockaddr *)&address))
            break;
        http_call_trouble(call, HTTP_CALL_CONNECT, "address not allowed");
        return false;
    case HTTP_URL_FOREIGN_NAME:
        http_call_trouble(call, HTTP_CALL_URL, "the host is not ASCII");
        return false;
    case HTTP_URL_NAME:
        break;
    }
    return true;
}

/* Bytes of the block: list, lines, URL, small body; 0: a header is unusable. */
static size_t block_size(const struct http_call_request *request, size_t body_bytes)
{
    size_t size = (request->header_count + LEFT_OUT_LEN) * sizeof(struct curl_slist);

    for (size_t i = 0; i < LEFT_OUT_LEN; i++)
        size += strlen(left_out[i]) + 1;
    for (size_t i = 0; i < request->header_count; i++) {
        if (!http_header_is_valid(request->headers[i]))
            return 0;
        size += strlen(request->headers[i]) + 1;
    }
    return size + http_url_clean(request->url, NULL) + body_bytes;
}

/*
 * libcurl gives an address half of what is left of its time, if there are others: needed where an
 * attempt has no time of its own. Else it knows of no time, since it would take a process that was
 * stopped for a while for a peer that is late. (It takes milliseconds as a long up to INT_MAX, and
 * 0 as its default.)
 */
static long connect_timeout(const struct http_client_conf *conf)
{
    uint64_t ms = conf->timeout_sock_connect_ms == 0 ? conf->timeout_connect_ms : 0;

    return ms == 0 || ms > INT_MAX ? INT_MAX : (long)ms;
}

static bool set_numbers(struct http_call *call)
{
    const struct http_client_conf *conf = &call->client->conf;
    const struct {
        CURLoption option;
        long value;
    } numbers[] = {
        { CURLOPT_POST, 1 },
        { CURLOPT_NOSIGNAL, 1 },
        { CURLOPT_FOLLOWLOCATION, 0 },
        { CURLOPT_PATH_AS_IS, 1 },
        { CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1 }, /* a transfer a connection */
        { CURLOPT_SUPPRESS_CONNECT_HEADERS, 1 },
        { CURLOPT_TIMEOUT_MS, INT_MAX }, /* http_client.c has the time */
        { CURLOPT_CONNECTTIMEOUT_MS, connect_timeout(conf) },
#if LIBCURL_VERSION_NUM >= 0x075700
        /* Without it the end of a call would wait, and the loop with it, for its resolver thread. */
        { CURLOPT_QUICK_EXIT, 1 },
#endif
    };

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (curl_easy_setopt(call->easy, numbers[i].option, numbers[i].value) != CURLE_OK)
            return false;
    return true;
}

static bool set_strings(struct http_call *call)
{
    const struct http_client_conf *conf = &call->client->conf;
    const struct {
        CURLoption option;
        const char *value;
    } strings[] = {
        { CURLOPT_PROTOCOLS_STR, "http,https" },
        { CURLOPT_PROXY, conf->proxy == NULL ? "" : conf->proxy }, /* "": not the environment's */
        { CURLOPT_NOPROXY, conf->proxy == NULL ? NULL : "" },
        { CURLOPT_USERAGENT, conf->user_agent },
        { CURLOPT_SSLCERT, conf->cert_file },
        { CURLOPT_SSLKEY, conf->key_file },
    };
    static const CURLoption trust[][2] = {
        { CURLOPT_CAINFO, CURLOPT_CAPATH },
        { CURLOPT_PROXY_CAINFO, CURLOPT_PROXY_CAPATH },
    };

    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++)
        if (curl_easy_setopt(call->easy, strings[i].option, strings[i].value) != CURLE_OK)
            return false;
    for (size_t i = 0; i < 2 && conf->ca_file != NULL; i++)
        if (curl_easy_setopt(call->easy, trust[i][0], conf->ca_file) != CURLE_OK ||
            curl_easy_setopt(call->easy, trust[i][1], (char *)NULL) != CURLE_OK)
            return false;
    return true;
}

static bool set_callbacks(struct http_call *call)
{
    CURL *easy = call->easy;
    curl_off_t max = (curl_off_t)(call->client->conf.max_reply_bytes & INT64_MAX);

    return curl_easy_setopt(easy, CURLOPT_PRIVATE, call) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->detail) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, http_sock_open) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, call) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, http_sock_close) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, call->client) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_ready) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_PREREQDATA, call) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head_line) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_HEADERDATA, call) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_reply) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_WRITEDATA, call) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_body) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_READDATA, call) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_SEEKDATA, call) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, max) == CURLE_OK;
}

static bool set_common(struct http_call *call)
{
    call->easy_used = true;
    if (set_numbers(call) && set_strings(call) && set_callbacks(call))
        return true;
    http_call_trouble(call, HTTP_CALL_BROKEN, "libcurl has no memory");
    return false;
}

void http_call_prepare_connect(struct http_call *call)
{
    if (set_common(call) && (curl_easy_setopt(call->easy, CURLOPT_URL, call->url) != CURLE_OK ||
                             curl_easy_setopt(call->easy, CURLOPT_CONNECT_ONLY, 1L) != CURLE_OK))
        http_call_trouble(call, HTTP_CALL_URL, "URL too long");
}

void http_call_prepare(struct http_call *call, const struct http_call_request *request)
{
    bool small = call->source != NULL && http_call_body_size(call) <= HTTP_SMALL_BODY_BYTES;
    size_t size = block_size(request, small ? (size_t)http_call_body_size(call) : 0);
    char *url, *body;

    if (!set_common(call))
        return;
    if (!url_has_scheme(request->url)) {
        http_call_trouble(call, HTTP_CALL_URL, "neither http:// nor https://");
        return;
    }
    if (size == 0) {
        http_call_trouble(call, HTTP_CALL_BROKEN, "not a header line");
        return;
    }
    call->block_bytes = size;
    call->block = mem_try_alloc(size);
    if (call->block == NULL) {
        http_call_trouble(call, HTTP_CALL_BROKEN, "no memory");
        return;
    }
    url = headers_copy(call, request,
                       (char *)call->block +
                           (request->header_count + LEFT_OUT_LEN) * sizeof(struct curl_slist));
    body = url + http_url_clean(request->url, url);
    call->url = url;
    if (call->client->conf.proxy != NULL && !proxied_allowed(call))
        return;
    if (curl_easy_setopt(call->easy, CURLOPT_URL, url) != CURLE_OK)
        http_call_trouble(call, HTTP_CALL_URL, "URL too long");
    else if (curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->block) != CURLE_OK ||
             !set_body(call, small ? (uint8_t *)body : NULL))
        http_call_trouble(call, HTTP_CALL_BROKEN, "no memory");
}
