/*
 * POSTs over kept connections without libcurl (http_direct.h). Called by http_client.c, which has
 * the timeouts, and makes connections by libcurl.
 *
 * A small request is in one piece and leaves in one write, most often. A large body is sent from where
 * its source shows it: out of a file by sendfile, without a copy of it here. Where a reply ends is
 * told by http-parser; a connection is used again only if its reply said so, ended where the bytes
 * ended, and came after the whole request. So what a peer sends too much answers nobody else's request.
 */
#include "http_direct.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include <http_parser.h>

#include "http_url.h"
#include "mem.h"

enum {
    READ_BYTES = 16384,
    COPY_BYTES = 16384,
    TURN_BYTES = 1048576, /* sent at once, so that others get their turn */
    IDLE_MAX_MS = 118000  /* what lies between may have forgotten an older one; as libcurl's */
};

/* Host and port of kept connections, in lower case; lives while it has any. */
struct http_origin {
    struct map_node node; /* in client.origins */
    struct list idle;     /* the one used last comes first */
    size_t conns;
    size_t name_len;
    char name[];
};

struct http_direct {
    uv_poll_t poll;
    struct http_client *client;
    struct http_origin *origin;
    struct http_call *call; /* NULL: idle */
    struct list of_origin;  /* while idle ... */
    struct list of_idle;    /* ... in client.idle, too */
    struct sockaddr_storage address;
    uint64_t idle_since_ms;
    int fd;
    int armed;     /* events that the poll waits for */
    bool used;     /* has carried a request before this one */
    bool answered; /* a byte of the reply has come */
    bool complete; /* all of the reply has come */
    bool keep;     /* and the connection may be used again */
    bool refused;  /* its head has come, an error: no more of the body is sent */
    bool copies;   /* the file of the body cannot be sent from where it lies */
    http_parser parser;
};

/* ---- connections ---- */

static void on_poll(uv_poll_t *poll, int status, int events);

static void arm(struct http_direct *d, int events)
{
    if (d->armed == events)
        return;
    d->armed = events;
    (void)uv_poll_start(&d->poll, events, on_poll); /* fails on a bad descriptor only */
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct http_direct *d = handle->data;
    struct http_client *client = d->client;

    mem_free(d);
    http_client_handle_closed(client);
}

static void direct_close(struct http_direct *d)
{
    struct http_origin *origin = d->origin;

    list_remove(&d->of_origin);
    list_remove(&d->of_idle);
    d->client->direct_count--;
    if (--origin->conns == 0) {
        map_remove(&d->client->origins, &origin->node);
        mem_free(origin);
    }
    uv_close((uv_handle_t *)&d->poll, on_poll_closed); /* leaves epoll at once, before ... */
    close(d->fd);
}

static struct http_origin *origin_get(struct http_client *client, struct lonely_span name)
{
    struct map_node *found = map_find(&client->origins, name.ptr, name.len);
    struct http_origin *origin;

    if (found != NULL)
        return map_entry(found, struct http_origin, node);
    origin = mem_alloc(sizeof *origin + name.len);
    origin->conns = 0;
    origin->name_len = name.len;
    memcpy(origin->name, name.ptr, name.len);
    list_init(&origin->idle);
    map_insert(&client->origins, &origin->node, origin->name, name.len);
    return origin;
}

void http_direct_forget(struct http_client *client)
{
    struct list *node;

    while ((node = list_first(&client->idle)) != NULL)
        direct_close(list_entry(node, struct http_direct, of_idle));
}

/* Half of the connections that may be kept are for this way; those that work come before idle ones. */
static void trim(struct http_client *client)
{
    struct list *node;

    while (client->direct_count > client->conf.max_connections / 2 &&
           (node = list_first(&client->idle)) != NULL)
        direct_close(list_entry(node, struct http_direct, of_idle));
}

static void make_idle(struct http_direct *d)
{
    struct http_client *client = d->client;

    d->call = NULL;
    d->used = true;
    d->idle_since_ms = uv_now(client->loop);
    arm(d, UV_READABLE); /* to see its end */
    uv_unref((uv_handle_t *)&d->poll);
    list_push_front(&d->origin->idle, &d->of_origin);
    list_push_back(&client->idle, &d->of_idle);
    trim(client);
}

void http_direct_release(struct http_call *call)
{
    struct http_direct *d = call->direct;

    call->direct = NULL;
    if (d->complete && d->keep)
        make_idle(d);
    else
        direct_close(d);
}

/* ---- replies ---- */

static int on_headers_complete(http_parser *parser)
{
    struct http_direct *d = parser->data;
    struct http_call *call = d->call;

    call->head_ended = true;
    if (parser->upgrade) {
        http_call_trouble(call, HTTP_CALL_BROKEN, "reply in another protocol");
        return -1;
    }
    if (parser->content_length != UINT64_MAX &&
        parser->content_length > call->client->conf.max_reply_bytes) {
        http_call_trouble(call, HTTP_CALL_REPLY_SIZE, "reply too long");
        return -1;
    }
    d->refused = parser->status_code >= 300 && call->at < call->direct_len;
    return 0;
}

static int on_body(http_parser *parser, const char *at, size_t len)
{
    struct http_direct *d = parser->data;

    return http_call_take_reply(d->call, at, len) ? 0 : -1;
}

/* 1xx are heads before the head. */
static int on_message_complete(http_parser *parser)
{
    struct http_direct *d = parser->data;

    if (parser->status_code < 200) {
        d->call->head_ended = false;
        return 0;
    }
    d->complete = true;
    d->keep = http_should_keep_alive(parser) != 0;
    d->call->http_status = parser->status_code;
    http_parser_pause(parser, 1); /* nothing may follow */
    return 0;
}

static const http_parser_settings reply_settings = {
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

static void direct_fail(struct http_direct *d, const char *reason)
{
    struct http_call *call = d->call;

    if (call->trouble != HTTP_CALL_REPLIED)
        http_call_end(call, call->trouble, call->reason);
    else
        http_call_end(call, HTTP_CALL_BROKEN, reason);
}

/* The peer has closed. A kept connection that it closed before it had answered anything may have
 * been closed before the request came: that is sent once more, over a new one. */
static void on_lost(struct http_direct *d, const char *reason)
{
    struct http_call *call = d->call;

    if (d->used && !d->answered && !call->retried) {
        call->retried = true;
        http_direct_release(call);
        http_call_connect(call);
        return;
    }
    direct_fail(d, reason);
}

/* What is to be waited for. Behind an early reply that is no error the peer still reads what it has
 * confirmed: that is sent to the end. */
static void arm_for_call(struct http_direct *d)
{
    const struct http_call *call = d->call;
    bool sends = call->at < call->direct_len && !d->refused && !call->paused && !call->failing;

    arm(d, (d->complete ? 0 : UV_READABLE) | (sends || d->complete ? UV_WRITABLE : 0));
}

static void on_complete(struct http_direct *d, bool clean)
{
    struct http_call *call = d->call;
    bool sent = call->at == call->direct_len;

    d->keep = d->keep && clean && sent;
    if (sent || d->refused)
        http_call_end(call, HTTP_CALL_REPLIED, "");
    else
        arm_for_call(d);
}

/* `len` 0: the end, which may be that of the reply. */
static void take_reply(struct http_direct *d, const char *bytes, size_t len)
{
    struct http_call *call = d->call;
    size_t used;

    d->answered = d->answered || len > 0;
    used = http_parser_execute(&d->parser, &reply_settings, bytes, len);
    if (d->complete) {
        on_complete(d, used == len && len > 0);
        return;
    }
    if (d->parser.http_errno == HPE_INVALID_CONTENT_LENGTH)
        http_call_trouble(call, HTTP_CALL_REPLY_SIZE, "reply too long, or of no known length");
    if (d->parser.http_errno != HPE_OK && len > 0) {
        direct_fail(d, "the reply is not HTTP");
    } else if (len == 0) {
        on_lost(d, call->head_ended ? "connection closed inside the reply"
                                    : "connection closed before the end of the reply's head");
    } else if (!call->head_ended && (call->head_bytes += len) > HTTP_REPLY_HEAD_BYTES_MAX) {
        direct_fail(d, "reply head too long");
    } else {
        arm_for_call(d);
        if (!call->paused || d->refused)
            http_call_touch(call);
    }
}

/* ---- requests ---- */

enum sent { SENT, SENT_NO_SOURCE, SENT_LOST };

/* Of what send and sendfile return. */
static enum sent count_sent(struct http_call *call, ssize_t n)
{
    if (n > 0)
        call->at += (size_t)n;
    return n >= 0 || errno == EAGAIN || errno == EINTR ? SENT : SENT_LOST;
}

static enum sent send_block(struct http_direct *d)
{
    struct http_call *call = d->call;
    const uint8_t *bytes = call->block;
    int more = call->direct_head < call->direct_len ? MSG_MORE : 0;

    return count_sent(call, send(d->fd, bytes + call->at, call->direct_head - (size_t)call->at,
                                 MSG_NOSIGNAL | more));
}

static enum sent send_copied(struct http_direct *d, uint64_t at)
{
    uint8_t bytes[COPY_BYTES];
    ptrdiff_t len = http_call_source_read(d->call, at, bytes, sizeof bytes);

    if (len < 0)
        return SENT_NO_SOURCE;
    return count_sent(d->call, send(d->fd, bytes, (size_t)len, MSG_NOSIGNAL));
}

/* Sends from body offset `at` a part of `len` bytes of a file. When it fails, a copy tells whether that
 * was the file system, which may not know of sending, the disk or the peer. */
static enum sent send_file(struct http_direct *d, int fd, uint64_t at, size_t len)
{
    off_t offset = (off_t)(at - d->call->prefix.len);
    ssize_t n = sendfile(d->fd, fd, &offset, len);

    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return count_sent(d->call, n);
    d->copies = true;
    return send_copied(d, at);
}

static enum sent send_source(struct http_direct *d)
{
    struct http_call *call = d->call;
    uint64_t at = call->prefix.len + (call->at - call->direct_head);
    struct http_piece piece = { 0 };
    ptrdiff_t len;

    if (call->source_waits)
        return SENT_NO_SOURCE;
    if (d->copies)
        return send_copied(d, at);
    len = http_call_source_look(call, at, &piece);
    if (len < 0)
        return SENT_NO_SOURCE;
    if (len > TURN_BYTES)
        len = TURN_BYTES;
    if (piece.ptr == NULL)
        return send_file(d, piece.fd, at, (size_t)len);
    return count_sent(call, send(d->fd, piece.ptr, (size_t)len, MSG_NOSIGNAL));
}

/* Sends what is left, as far as it goes now. False: the connection is of no use. */
static bool send_more(struct http_direct *d)
{
    struct http_call *call = d->call;
    enum sent sent = SENT;

    if (call->at < call->direct_head)
        sent = send_block(d);
    if (sent == SENT && call->at >= call->direct_head && call->at < call->direct_len && !d->refused)
        sent = send_source(d);
    if (sent == SENT_LOST)
        return false;
    if (sent == SENT_NO_SOURCE && !call->source_waits) {
        http_call_fail_later(call);
    } else if (sent == SENT_NO_SOURCE) {
        call->paused = true;
        list_remove(&call->of_silent); /* the peer is not to blame */
    }
    arm_for_call(d);
    return true;
}

void http_direct_resume(struct http_call *call)
{
    struct http_direct *d = call->direct;

    if (!send_more(d))
        arm_for_call(d); /* the reason is read in the next turn */
}

/* The peer takes more. False: the call has ended. */
static bool on_writable(struct http_direct *d, int *events)
{
    http_call_touch(d->call);
    if (!send_more(d)) {
        if (d->complete) {
            direct_fail(d, "connection closed before the end of the request");
            return false;
        }
        *events |= UV_READABLE; /* which tells why, or has a reply */
    } else if (d->complete && d->call->at == d->call->direct_len) {
        http_call_end(d->call, HTTP_CALL_REPLIED, "");
        return false;
    }
    return true;
}

static void on_readable(struct http_direct *d)
{
    char bytes[READ_BYTES];
    ssize_t n = recv(d->fd, bytes, sizeof bytes, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        if (d->call != NULL)
            arm_for_call(d);
        else
            arm(d, UV_READABLE);
    } else if (d->call == NULL) {
        direct_close(d); /* closed, or talking out of turn */
    } else if (n < 0) {
        on_lost(d, uv_strerror(uv_translate_sys_error(errno)));
    } else {
        take_reply(d, bytes, (size_t)n);
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct http_direct *d = poll->data;

    if (status !=
        0) { /* the calls will say what it is; and what the peer sent before is still there */
        d->armed = 0; /* libuv has stopped it */
        events = d->call != NULL && d->complete ? UV_WRITABLE : UV_READABLE;
    }
    if ((events & UV_WRITABLE) != 0 && d->call != NULL && !on_writable(d, &events))
        return;
    if ((events & UV_READABLE) != 0)
        on_readable(d);
}

static void begin(struct http_direct *d, struct http_call *call)
{
    d->call = call;
    d->answered = d->complete = d->keep = d->refused = d->copies = false;
    http_parser_init(&d->parser, HTTP_RESPONSE);
    d->parser.data = d;
    call->direct = d;
    call->at = 0;
    call->sending = true;
    call->paused = false;
    call->head_bytes = 0;
    call->head_ended = false;
    http_call_touch(call);
    if (!send_more(d))
        arm(d, UV_READABLE); /* the reason is read in the next turn */
}

static bool may_use(const struct http_direct *d, const struct http_call *call)
{
    return uv_now(d->client->loop) - d->idle_since_ms <= IDLE_MAX_MS &&
           http_address_allowed(call, (const struct sockaddr *)&d->address);
}

bool http_direct_send(struct http_call *call)
{
    struct http_client *client = call->client;
    struct map_node *found =
        map_find(&client->origins, call->direct_name.ptr, call->direct_name.len);
    struct list *node;

    while (found != NULL &&
           (node = list_first(&map_entry(found, struct http_origin, node)->idle)) != NULL) {
        struct http_direct *d = list_entry(node, struct http_direct, of_origin);
        bool last = d->origin->conns == 1;

        if (may_use(d, call)) {
            list_remove(&d->of_origin);
            list_remove(&d->of_idle);
            uv_ref((uv_handle_t *)&d->poll);
            begin(d, call);
            return true;
        }
        direct_close(d);
        if (last)
            break;
    }
    return false;
}

void http_direct_send_over(struct http_call *call, int fd)
{
    struct http_direct *d = mem_calloc(1, sizeof *d);
    socklen_t len = sizeof d->address;
    int err;

    d->client = call->client;
    d->fd = fd;
    list_init(&d->of_origin);
    list_init(&d->of_idle);
    err = getpeername(fd, (struct sockaddr *)&d->address, &len) == 0
              ? uv_poll_init(call->client->loop, &d->poll, fd)
              : UV_ENOTCONN;
    if (err != 0) {
        close(fd);
        mem_free(d);
        http_call_end(call, HTTP_CALL_BROKEN, uv_strerror(err));
        return;
    }
    d->poll.data = d;
    call->client->handles++;
    d->origin = origin_get(call->client, call->direct_name);
    d->origin->conns++;
    call->client->direct_count++;
    trim(call->client);
    begin(d, call);
}

/* ---- preparing a call ---- */

/* The parts of a URL of the plain kind: http://HOST[:PORT][PATH], nothing in it that would have to be
 * decoded or judged. False: another kind, perhaps a wrong one. */
static bool url_split(const char *url, struct lonely_span *authority, const char **path)
{
    static const char host_chars[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    const char *host = url + 7, *at;
    unsigned long port = 80;

    if (strncasecmp(url, "http://", 7) != 0)
        return false;
    at = host + (host[0] == '[' ? strspn(host + 1, "0123456789abcdefABCDEF:.") + 1
                                : strspn(host, host_chars));
    if (host[0] == '[' && *at++ != ']')
        return false;
    authority->ptr = (const uint8_t *)host;
    authority->len = (size_t)(at - host);
    if (*at == ':') {
        size_t digits = strspn(at + 1, "0123456789");

        port = digits > 0 && digits <= 5 ? strtoul(at + 1, NULL, 10) : 0;
        at += 1 + digits;
        if (port != 80)
            authority->len = (size_t)(at - host);
    }
    for (const char *p = at; *p != '\0'; p++)
        if ((unsigned char)*p <= 0x20 || *p == 0x7f)
            return false;
    *path = at;
    return host != at && port > 0 && port <= 65535 && (*at == '\0' || *at == '/' || *at == '?');
}

/* A header that this file writes, or that would change how the request is to be read. */
static bool is_special(const char *line)
{
    static const char *const names[] = {
        "host:", "user-agent:",        "accept:",  "content-length:", "connection:", "expect:",
        "te:",   "transfer-encoding:", "upgrade:", "trailer:"
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strncasecmp(line, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* What surrounds the headers. */
#define HEAD_FORMAT   "POST %s%s HTTP/1.1\r\nHost: %.*s\r\n%s%s%sAccept: */*\r\n"
#define LENGTH_FORMAT "Content-Length: %" PRIu64 "\r\n\r\n"

static size_t headers_size(const struct http_call_request *request)
{
    size_t size = 0;

    for (size_t i = 0; i < request->header_count; i++) {
        if (!http_header_is_valid(request->headers[i]) || is_special(request->headers[i]))
            return 0;
        size += strlen(request->headers[i]) + 2;
    }
    return size + 1;
}

static char *headers_write(const struct http_call_request *request, char *to)
{
    for (size_t i = 0; i < request->header_count; i++) {
        size_t len = strlen(request->headers[i]);

        while (len > 0 && memchr(" \t", request->headers[i][len - 1], 2) != NULL)
            len--;
        memcpy(to, request->headers[i], len);
        memcpy(to + len, "\r\n", 2);
        to += len + 2;
    }
    return to;
}

/* The key of the connections: lower case, so that one host has one. */
static void name_write(struct http_call *call, struct lonely_span authority, char *to)
{
    for (size_t i = 0; i < authority.len; i++)
        to[i] = (char)(authority.ptr[i] >= 'A' && authority.ptr[i] <= 'Z' ? authority.ptr[i] + 32
                                                                          : authority.ptr[i]);
    call->direct_name = (struct lonely_span){ (uint8_t *)to, authority.len };
}

/* In the block as a whole, so that it leaves together with its head; else only its prefix is. */
static bool body_is_small(const struct http_call *call)
{
    return http_call_body_size(call) <= HTTP_SMALL_BODY_BYTES;
}

/* Writes the request to the beginning of the block; `url` is in it, too. False: not for this way. */
static bool request_write(struct http_call *call, const struct http_call_request *request,
                          size_t head_max, const char *url)
{
    const char *agent = call->client->conf.user_agent, *path;
    struct lonely_span host;
    char *at = call->block;

    if (!url_split(url, &host, &path))
        return false;
    name_write(call, host, (char *)(uintptr_t)url + strlen(url) + 1);
    at += snprintf(at, head_max, HEAD_FORMAT, path[0] == '/' ? "" : "/", path, (int)host.len,
                   (const char *)host.ptr,
                   agent == NULL ? "" : "User-Agent: ", agent == NULL ? "" : agent,
                   agent == NULL ? "" : "\r\n");
    at = headers_write(request, at);
    at += snprintf(at, head_max - (size_t)(at - (char *)call->block), LENGTH_FORMAT,
                   http_call_body_size(call));
    call->direct_head = (size_t)(at - (char *)call->block);
    call->direct_len = call->direct_head + http_call_body_size(call);
    if (body_is_small(call)) {
        call->direct_head = (size_t)call->direct_len;
        return http_call_copy_body(call, (uint8_t *)at);
    }
    if (call->prefix.len > 0)
        memcpy(at, call->prefix.ptr, call->prefix.len);
    call->direct_head += call->prefix.len;
    return true;
}

bool http_direct_prepare(struct http_call *call, const struct http_call_request *request)
{
    const struct http_client_conf *conf = &call->client->conf;
    size_t headers = headers_size(request), url_size = http_url_clean(request->url, NULL);
    size_t head_max = sizeof HEAD_FORMAT + sizeof LENGTH_FORMAT + 2 * url_size + headers + 64 +
                      (conf->user_agent == NULL ? 0 : strlen(conf->user_agent));
    bool small = body_is_small(call);
    size_t body = small ? (size_t)http_call_body_size(call) : call->prefix.len;
    char *url;

    if (conf->proxy != NULL || headers == 0 ||
        !(small || (call->source != NULL && call->source->look != NULL)))
        return false;
    call->block_bytes = head_max + body + 2 * url_size;
    call->block = mem_try_alloc(call->block_bytes);
    if (call->block == NULL)
        return false;
    url = (char *)call->block + head_max + body;
    (void)http_url_clean(request->url, url);
    call->url = url;
    if (request_write(call, request, head_max, url))
        return true;
    http_call_wipe(call);
    return false;
}
