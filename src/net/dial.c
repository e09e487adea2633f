/*
 * Connections by libcurl's CONNECT_ONLY (dial.h), and the stream over such a connection: libcurl keeps TLS
 * to itself, so bytes go through it. The links of the subscriber use it.
 */
#include "dial.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "list.h"
#include "mem.h"

/* ---- The stream ---- */

struct curl_stream {
    struct stream stream;
    uv_poll_t poll;  /* poll.data is this */
    uv_idle_t again; /* runs while libcurl may hold bytes that the socket does not show */
    CURL *easy;
    struct stream_buffer *buffer;
    bool reading, over;
    struct lonely_span parts[STREAM_PARTS_MAX]; /* of a stream_send under way */
    size_t part_count;
    unsigned handles;
};

static struct curl_stream *of_stream(struct stream *s)
{
    return list_entry(s, struct curl_stream, stream);
}

static void update_poll(struct curl_stream *t);

/* One read's worth. False: nothing more for now, or the stream is over. */
static bool read_some(struct curl_stream *t)
{
    struct stream *s = &t->stream;
    char *bytes = t->buffer->bytes;
    size_t n = 0;
    CURLcode code = curl_easy_recv(t->easy, bytes, sizeof(t->buffer->bytes), &n);
    bool more = code == CURLE_OK && n > 0;

    if (more) {
        s->events->on_read(s->arg, (struct lonely_span){ (const uint8_t *)bytes, n });
    } else if (code != CURLE_AGAIN) {
        t->over = true;
        t->reading = false;
        update_poll(t);
        if (code == CURLE_OK)
            s->events->on_end(s->arg);
        else
            s->events->on_lost(s->arg);
    }
    return more;
}

static void on_again(uv_idle_t *idle)
{
    struct curl_stream *t = idle->data;

    if (!t->reading || !read_some(t))
        uv_idle_stop(idle);
}

/* Bytes taken, or STREAM_LOST. */
static ptrdiff_t send_parts(struct curl_stream *t, const struct lonely_span *parts, size_t count)
{
    size_t sent = 0;

    for (size_t i = 0; i < count; i++) {
        size_t at = 0;

        while (at < parts[i].len) {
            size_t n = 0;
            CURLcode code = curl_easy_send(t->easy, parts[i].ptr + at, parts[i].len - at, &n);

            if (code == CURLE_AGAIN)
                return (ptrdiff_t)(sent + at);
            if (code != CURLE_OK)
                return STREAM_LOST;
            at += n;
        }
        sent += at;
    }
    return (ptrdiff_t)sent;
}

static void drop_sent(struct curl_stream *t, size_t sent)
{
    size_t first = 0;

    while (first < t->part_count && sent >= t->parts[first].len)
        sent -= t->parts[first++].len;
    memmove(t->parts, t->parts + first, (t->part_count - first) * sizeof(t->parts[0]));
    t->part_count -= first;
    if (t->part_count > 0) {
        t->parts[0].ptr += sent;
        t->parts[0].len -= sent;
    }
}

static void on_writable(struct curl_stream *t)
{
    struct stream *s = &t->stream;
    ptrdiff_t sent = send_parts(t, t->parts, t->part_count);

    if (sent < 0) {
        t->part_count = 0;
        update_poll(t);
        s->events->on_lost(s->arg);
        return;
    }
    drop_sent(t, (size_t)sent);
    update_poll(t);
    if (t->part_count == 0)
        s->events->on_sent(s->arg);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct curl_stream *t = poll->data;

    if (status < 0)
        events = UV_READABLE | UV_WRITABLE; /* the calls will say what it is */
    if ((events & UV_WRITABLE) != 0 && t->part_count > 0)
        on_writable(t);
    if ((events & UV_READABLE) != 0 && t->reading && !uv_is_closing((uv_handle_t *)poll) &&
        read_some(t) && t->reading)
        uv_idle_start(&t->again, on_again);
}

static void update_poll(struct curl_stream *t)
{
    int events = (t->reading ? UV_READABLE : 0) | (t->part_count > 0 ? UV_WRITABLE : 0);

    if (uv_is_closing((uv_handle_t *)&t->poll))
        return;
    if (events == 0)
        uv_poll_stop(&t->poll);
    else
        uv_poll_start(&t->poll, events, on_poll);
}

static void curl_read_start(struct stream *s)
{
    struct curl_stream *t = of_stream(s);

    if (t->reading || t->over)
        return;
    t->reading = true;
    update_poll(t);
    uv_idle_start(&t->again, on_again); /* bytes may lie in libcurl since the last stop */
}

static void curl_read_stop(struct stream *s)
{
    struct curl_stream *t = of_stream(s);

    t->reading = false;
    uv_idle_stop(&t->again);
    update_poll(t);
}

static ptrdiff_t curl_try_send(struct stream *s, const struct lonely_span *parts, size_t count)
{
    struct curl_stream *t = of_stream(s);

    return t->part_count > 0 ? 0 : send_parts(t, parts, count);
}

static void curl_send(struct stream *s, const struct lonely_span *parts, size_t count)
{
    struct curl_stream *t = of_stream(s);

    t->part_count = count < STREAM_PARTS_MAX ? count : STREAM_PARTS_MAX;
    memcpy(t->parts, parts, t->part_count * sizeof(parts[0]));
    update_poll(t);
}

static int socket_of(CURL *easy)
{
    curl_socket_t fd = CURL_SOCKET_BAD;

    return curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK ? fd : -1;
}

static void curl_shutdown(struct stream *s)
{
    (void)shutdown(socket_of(of_stream(s)->easy), SHUT_WR);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct curl_stream *t = handle->data;

    if (--t->handles > 0)
        return;
    curl_easy_cleanup(t->easy);
    if (t->stream.events != NULL) {
        t->stream.events->on_closed(t->stream.arg);
        stream_gone(&t->stream);
    }
    mem_free(t);
}

static void curl_close(struct stream *s)
{
    struct curl_stream *t = of_stream(s);

    uv_close((uv_handle_t *)&t->poll, on_handle_closed);
    uv_close((uv_handle_t *)&t->again, on_handle_closed);
}

static bool curl_has_unread(struct stream *s)
{
    int bytes = 0;

    return ioctl(socket_of(of_stream(s)->easy), FIONREAD, &bytes) == 0 && bytes > 0;
}

static const struct stream_ops curl_ops = {
    .read_start = curl_read_start,
    .read_stop = curl_read_stop,
    .try_send = curl_try_send,
    .send = curl_send,
    .shutdown = curl_shutdown,
    .close = curl_close,
    .has_unread = curl_has_unread,
};

/* Through libcurl, which keeps TLS to itself. NULL: no descriptor to watch it with. */
static struct stream *open_through_curl(uv_loop_t *loop, CURL *easy, struct stream_buffer *buffer)
{
    struct curl_stream *t = mem_calloc(1, sizeof(*t));

    if (uv_poll_init(loop, &t->poll, socket_of(easy)) != 0) {
        curl_easy_cleanup(easy);
        mem_free(t);
        return NULL;
    }
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 1L); /* what they point at goes */
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
    t->stream.ops = &curl_ops;
    t->easy = easy;
    t->buffer = buffer;
    t->poll.data = t;
    t->handles = 2;
    uv_idle_init(loop, &t->again);
    t->again.data = t;
    return &t->stream;
}

/* Takes `easy`. `through_curl`: there is TLS on it. NULL: no descriptor left. */
static struct stream *stream_open(uv_loop_t *loop, CURL *easy, bool through_curl,
                                  struct stream_buffer *buffer)
{
    int fd;

    if (through_curl)
        return open_through_curl(loop, easy, buffer);
    fd = fcntl(socket_of(easy), F_DUPFD_CLOEXEC, 0);
    curl_easy_cleanup(easy); /* closes its own descriptor only */
    return fd < 0 ? NULL : stream_tcp_open(loop, fd, buffer, NULL, NULL);
}

/* ---- Connecting ---- */

struct dial {
    uv_work_t work;
    CURL *easy;
    CURLcode code;
    atomic_bool cancelled;
    bool through_curl;
    uint64_t user_timeout_ms;
    struct stream_buffer *buffer;
    char error[CURL_ERROR_SIZE];
    dial_done_fn *done;
    void *arg;
};

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct dial *dial = arg;

    (void)a, (void)b, (void)c, (void)d;
    return atomic_load(&dial->cancelled) ? 1 : 0;
}

static int on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
    const struct dial *d = arg;
    int one = 1, seconds = (int)(d->user_timeout_ms / 2000) + 1, probes = 2;
    unsigned ms = (unsigned)d->user_timeout_ms;

    (void)purpose;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (d->user_timeout_ms > 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    }
    return CURL_SOCKOPT_OK;
}

static bool set_strings(CURL *easy, const struct dial_conf *conf)
{
    const struct {
        CURLoption option;
        const char *value;
        bool set;
    } strings[] = {
        { CURLOPT_URL, conf->url, true },
        { CURLOPT_PROXY, conf->proxy != NULL ? conf->proxy : "", true },
        { CURLOPT_NOPROXY, "", true },
        { CURLOPT_CAINFO, conf->ca, conf->ca != NULL },
        { CURLOPT_CAPATH, NULL, conf->ca != NULL },
        { CURLOPT_PROXY_CAINFO, conf->ca, conf->ca != NULL },
        { CURLOPT_PROXY_CAPATH, NULL, conf->ca != NULL },
        { CURLOPT_SSLCERT, conf->cert, conf->cert != NULL },
        { CURLOPT_SSLKEY, conf->key, conf->cert != NULL },
    };

    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        if (strings[i].set &&
            curl_easy_setopt(easy, strings[i].option, strings[i].value) != CURLE_OK)
            return false;
    return true;
}

static void set_rest(struct dial *d, const struct dial_conf *conf)
{
    CURL *easy = d->easy;

    curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_ENABLE_ALPN, 0L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)conf->timeout_ms);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)conf->timeout_ms);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, d->error);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, d);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, d);
}

static void connect_in_pool(uv_work_t *work)
{
    struct dial *d = work->data;

    d->code = d->easy == NULL ? CURLE_OUT_OF_MEMORY : curl_easy_perform(d->easy);
}

static void after_connect(uv_work_t *work, int status)
{
    struct dial *d = work->data;
    struct stream *stream = NULL;

    (void)status; /* never cancelled there */
    if (d->code == CURLE_OK && !atomic_load(&d->cancelled)) {
        stream = stream_open(work->loop, d->easy, d->through_curl, d->buffer);
        d->easy = NULL;
        if (stream == NULL)
            strcpy(d->error, "no descriptor left");
    } else if (d->error[0] == '\0') {
        strcpy(d->error, curl_easy_strerror(d->code));
    }
    curl_easy_cleanup(d->easy);
    d->done(d->arg, stream, d->error);
    mem_free(d);
}

/* libcurl does not tell it of a connection that it has handed out, and bytes in the clear must never follow a
 * handshake. */
static bool is_tls(const char *url)
{
    return strncasecmp(url, "https:", 6) == 0;
}

struct dial *dial_start(uv_loop_t *loop, const struct dial_conf *conf, dial_done_fn *done,
                        void *arg)
{
    struct dial *d = mem_calloc(1, sizeof(*d));

    d->work.data = d;
    d->done = done;
    d->arg = arg;
    d->user_timeout_ms = conf->user_timeout_ms;
    d->buffer = conf->buffer;
    d->through_curl = is_tls(conf->url) || (conf->proxy != NULL && is_tls(conf->proxy));
    atomic_init(&d->cancelled, false);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK)
        d->easy = curl_easy_init();
    if (d->easy != NULL) {
        set_rest(d, conf);
        if (!set_strings(d->easy, conf)) {
            curl_easy_cleanup(d->easy);
            d->easy = NULL;
        }
    }
    uv_queue_work(loop, &d->work, connect_in_pool, after_connect);
    return d;
}

void dial_cancel(struct dial *d)
{
    atomic_store(&d->cancelled, true);
}
