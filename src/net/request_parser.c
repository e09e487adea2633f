/*
 * Requests by http-parser 2.9. The library reads heads only: Debian builds it with
 * HTTP_PARSER_STRICT=0, where it takes any byte for the LF behind a CR and for the CR LF behind a
 * chunk. So the head's lines are checked again once it is complete, and chunks are read here.
 *
 * The library refuses unknown methods, which are the application's to refuse: the method is read
 * here and a stand-in is given to the library.
 */
#include "request_parser.h"

#include <http_parser.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>

#include "mem.h"

enum phase {
    PHASE_HEAD,
    PHASE_LENGTH,           /* `left` bytes of body */
    PHASE_CHUNK_SIZE_FIRST, /* a digit must come */
    PHASE_CHUNK_SIZE,
    PHASE_CHUNK_BLANK, /* blanks behind the size: only an extension or the end of the line */
    PHASE_CHUNK_EXTENSION,
    PHASE_CHUNK_LINE_LF,
    PHASE_CHUNK_DATA, /* `left` bytes */
    PHASE_CHUNK_DATA_CR,
    PHASE_CHUNK_DATA_LF,
    PHASE_TRAILER_FIRST, /* at the beginning of a trailer line, or of the last, empty one */
    PHASE_TRAILER,
    PHASE_TRAILER_LF,
    PHASE_LAST_LF,
    PHASE_END, /* the end is still to be reported */
    PHASE_BAD
};

struct request_scratch {
    http_parser lib;
    const uint8_t *base; /* first byte of the head; only while the library runs */
    uint32_t method_len; /* 0: not complete */
    uint32_t parsed;     /* offset of the first byte that the library has not seen */
    uint32_t target_at, target_len;
    uint32_t count; /* of names */
    int status;     /* why a callback failed */
    bool in_value;  /* the next name is a new one */
    bool complete;
    bool keep_alive;
    struct {
        uint32_t at, len;
    } names[REQUEST_HEADERS_MAX];
};

/* The library's own bound of a head, 80 KiB, is the whole process's: it would cut ours. */
static void raise_library_bound(void)
{
    http_parser_set_max_header_size(UINT32_MAX);
}

void request_pool_init(struct request_pool *pool)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, raise_library_bound);
    pool->spare = NULL;
}

void request_pool_fini(struct request_pool *pool)
{
    mem_free(pool->spare);
    pool->spare = NULL;
}

void request_parser_init(struct request_parser *p, struct request_pool *pool,
                         uint32_t max_head_bytes)
{
    *p = (struct request_parser){ .pool = pool, .max_head_bytes = max_head_bytes };
}

/* One scratch is kept: heads that come in one read never need a second. */
static void give_back_scratch(struct request_parser *p)
{
    if (p->pool->spare == NULL)
        p->pool->spare = p->scratch;
    else
        mem_free(p->scratch);
    p->scratch = NULL;
}

void request_parser_fini(struct request_parser *p)
{
    if (p->scratch != NULL)
        give_back_scratch(p);
}

uint64_t request_parser_left(const struct request_parser *p)
{
    if (p->phase == PHASE_LENGTH)
        return p->left;
    if (p->phase == PHASE_HEAD || p->phase == PHASE_END)
        return 0;
    return HTTP_LENGTH_UNKNOWN;
}

/* Callbacks of the library: they note offsets, for the head may move before it is complete. */

static int on_url(http_parser *lib, const char *at, size_t len)
{
    struct request_scratch *s = lib->data;

    if (s->target_len == 0)
        s->target_at = (uint32_t)((const uint8_t *)at - s->base);
    s->target_len += (uint32_t)len;
    return 0;
}

static int on_header_field(http_parser *lib, const char *at, size_t len)
{
    struct request_scratch *s = lib->data;

    if (s->count == 0 || s->in_value) {
        if (s->count == REQUEST_HEADERS_MAX) {
            s->status = 431;
            return -1;
        }
        s->names[s->count].at = (uint32_t)((const uint8_t *)at - s->base);
        s->names[s->count].len = 0;
        s->count++;
        s->in_value = false;
    }
    s->names[s->count - 1].len += (uint32_t)len;
    return 0;
}

static int on_header_value(http_parser *lib, const char *at, size_t len)
{
    struct request_scratch *s = lib->data;

    (void)at;
    (void)len;
    s->in_value = true;
    return 0;
}

static int on_headers_complete(http_parser *lib)
{
    struct request_scratch *s = lib->data;

    s->complete = true;
    s->keep_alive = (lib->flags & F_CONNECTION_CLOSE) == 0 &&
                    (lib->http_minor == 1 || (lib->flags & F_CONNECTION_KEEP_ALIVE) != 0);
    http_parser_pause(lib, 1); /* the body is not the library's */
    return 0;
}

static const http_parser_settings callbacks = {
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
};

/* Hands `len` bytes at `at` to the library. false: s->status says why not. */
static bool feed_library(struct request_scratch *s, const void *at, size_t len)
{
    size_t used = http_parser_execute(&s->lib, &callbacks, at, len);
    enum http_errno err = HTTP_PARSER_ERRNO(&s->lib);

    if (s->complete) {
        s->parsed += (uint32_t)used + 1; /* it stops in front of the last LF */
        return true;
    }
    s->parsed += (uint32_t)len;
    if (err == HPE_OK)
        return true;
    if (s->status == 0)
        s->status = err == HPE_HEADER_OVERFLOW ? 431 : 400;
    return false;
}

/* A letter, a digit, or one of `others`. */
static bool is_one_of(uint8_t c, const char *others)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c != '\0' && strchr(others, c) != NULL);
}

static bool is_token_byte(uint8_t c) /* (RFC 9110, 5.6.2) */
{
    return is_one_of(c, "!#$%&'*+-.^_`|~");
}

/* Bytes of the empty lines in front of a request. */
static size_t count_empty_lines(struct lonely_span in)
{
    size_t at = 0;

    while (at < in.len && (in.ptr[at] == '\n' ||
                           (at + 1 < in.len && in.ptr[at] == '\r' && in.ptr[at + 1] == '\n')))
        at += in.ptr[at] == '\n' ? 1 : 2;
    return at;
}

/* Finds the method and starts the library. false: status says why not; true with method_len 0: more
 * bytes are needed. */
static bool start_head(struct request_scratch *s, const uint8_t *in, size_t len)
{
    size_t end = 0;
    bool connect;

    while (end < len && end <= REQUEST_METHOD_MAX && is_token_byte(in[end]))
        end++;
    if (end == len || (len == 1 && in[0] == '\r'))
        return true;
    if (in[end] != ' ' || end == 0 || end > REQUEST_METHOD_MAX) {
        s->status = 400;
        return false;
    }
    connect = end == 7 && memcmp(in, "CONNECT", 7) == 0;
    s->method_len = (uint32_t)end;
    http_parser_init(&s->lib, HTTP_REQUEST);
    feed_library(s, connect ? "CONNECT" : "POST", connect ? 7 : 4);
    s->parsed = (uint32_t)end;
    return true;
}

static bool skip_line_end(const uint8_t *in, size_t end, size_t *at)
{
    if (*at < end && in[*at] == '\r')
        ++*at;
    return *at < end && in[(*at)++] == '\n';
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

/* The header line at `*at`, whose name the library has found; moves behind it. */
static bool split_header(const struct request_scratch *s, const uint8_t *in, size_t end,
                         uint32_t index, size_t *at, struct http_header *out)
{
    size_t name_len = s->names[index].len, first = *at + name_len + 1, last;
    const uint8_t *lf;

    if (s->names[index].at != *at || memchr(in + *at, ' ', name_len) != NULL ||
        in[first - 1] != ':')
        return false;
    lf = memchr(in + first, '\n', end - first);
    if (lf == NULL)
        return false;
    last = (size_t)(lf - in);
    if (last > first && in[last - 1] == '\r')
        last--;
    while (first < last && is_blank(in[first]))
        first++;
    while (first < last && is_blank(in[last - 1]))
        last--;
    out->name = (struct lonely_span){ in + *at, name_len };
    out->value = (struct lonely_span){ in + first, last - first };
    *at = (size_t)(lf - in) + 1;
    return true;
}

/* Cuts the complete head [0, end) into its parts. Every byte must belong to one: so nothing
 * that the library forgave gets through. */
static bool split_head(const struct request_scratch *s, const uint8_t *in, size_t end,
                       struct http_header *headers)
{
    size_t at = s->method_len + 1;

    if (at != s->target_at)
        return false;
    for (; at < s->target_at + s->target_len; at++)
        if (in[at] <= ' ' || in[at] >= 0x7f)
            return false;
    if (in[at] != ' ' || in[at + 1] != 'H')
        return false;
    at += strlen(" HTTP/1.1");
    if (!skip_line_end(in, end, &at))
        return false;
    for (uint32_t i = 0; i < s->count; i++)
        if (!split_header(s, in, end, i, &at, &headers[i]))
            return false;
    return skip_line_end(in, end, &at) && at == end;
}

static bool is_text(struct lonely_span s, const char *lower)
{
    size_t len = strlen(lower);

    return s.len == len && strncasecmp((const char *)s.ptr, lower, len) == 0;
}

static bool is_digits(struct lonely_span s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    return s.len > 0;
}

/* Could these bytes be HOST[:PORT]? An empty one is allowed (RFC 9112, 3.2). */
static bool is_host(struct lonely_span s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_one_of(s.ptr[i], "-._~!$&'()*+,;=%:[]"))
            return false;
    return true;
}

struct framing {
    unsigned hosts, lengths, codings;
    bool bad, unknown_expect;
};

static void look_at_header(struct request_parser *p, const struct http_header *h,
                           struct framing *out)
{
    if (is_text(h->name, "host")) {
        out->hosts++;
        out->bad |= !is_host(h->value);
    } else if (is_text(h->name, "content-length")) {
        out->lengths++;
        out->bad |= !is_digits(h->value);
    } else if (is_text(h->name, "transfer-encoding")) {
        out->codings++;
        out->bad |= !is_text(h->value, "chunked");
    } else if (is_text(h->name, "expect") && !p->version_1_0) {
        p->expect_continue = is_text(h->value, "100-continue");
        out->unknown_expect |= !p->expect_continue;
    }
}

/* How the body ends, from the headers. 0, or the status to refuse with. */
static int find_framing(struct request_parser *p, struct http_head *head)
{
    const http_parser *lib = &p->scratch->lib;
    struct framing f = { 0 };

    if (lib->http_major != 1 || lib->http_minor > 1)
        return 505;
    p->version_1_0 = lib->http_minor == 0;
    p->expect_continue = false;
    for (size_t i = 0; i < head->header_count; i++)
        look_at_header(p, &head->headers[i], &f);
    if (f.bad || f.hosts > 1 || (f.hosts == 0 && !p->version_1_0) || f.lengths + f.codings > 1 ||
        (f.codings > 0 && p->version_1_0))
        return 400;
    if (f.unknown_expect)
        return 417;
    head->content_length = 0;
    p->phase = PHASE_END;
    if (f.codings > 0) {
        head->content_length = HTTP_LENGTH_UNKNOWN;
        p->phase = PHASE_CHUNK_SIZE_FIRST;
        p->framing_bytes = 0;
    } else if (f.lengths > 0 && lib->content_length > 0) {
        head->content_length = lib->content_length;
        p->left = lib->content_length;
        p->phase = PHASE_LENGTH;
    }
    return 0;
}

/* The part of an absolute-form target behind scheme and authority: "http://host/a?b" is "/a?b". */
static struct lonely_span path_of(struct lonely_span target)
{
    const uint8_t *sep = memmem(target.ptr, target.len, "://", 3);
    size_t at;

    if (target.ptr[0] == '/' || sep == NULL)
        return target;
    at = (size_t)(sep - target.ptr) + 3;
    while (at < target.len && strchr("/?#", target.ptr[at]) == NULL)
        at++;
    if (at == target.len)
        return (struct lonely_span){ (const uint8_t *)"/", 1 };
    return (struct lonely_span){ target.ptr + at, target.len - at };
}

static struct request_step refuse(struct request_parser *p, int status)
{
    request_parser_fini(p);
    p->phase = PHASE_BAD;
    return (struct request_step){ .event = REQUEST_BAD, .status = status };
}

static struct request_step finish_head(struct request_parser *p, const uint8_t *in,
                                       struct http_head *head)
{
    const struct request_scratch *s = p->scratch;
    const uint8_t *target = in + s->target_at, *method = in;
    size_t end = s->parsed;
    bool connect = s->lib.method == HTTP_CONNECT;
    int status;

    if (!split_head(s, in, end, p->pool->headers))
        return refuse(p, 400);
    head->method = (struct lonely_span){ method, s->method_len };
    head->target = (struct lonely_span){ target, s->target_len };
    if (!connect)
        head->target = path_of(head->target);
    head->headers = p->pool->headers;
    head->header_count = s->count;
    head->version_1_0 = s->lib.http_minor == 0;
    status = find_framing(p, head);
    if (status != 0)
        return refuse(p, status);
    p->keep_alive = s->keep_alive;
    p->no_reply_body = s->method_len == 4 && memcmp(method, "HEAD", 4) == 0;
    give_back_scratch(p);
    return (struct request_step){ .event = REQUEST_HEAD, .used = end };
}

static struct request_scratch *take_scratch(struct request_parser *p)
{
    struct request_scratch *s = p->pool->spare;

    p->pool->spare = NULL;
    if (s == NULL)
        s = mem_try_alloc(sizeof(*s));
    if (s == NULL)
        return NULL;
    memset(s, 0, offsetof(struct request_scratch, names));
    s->lib.data = s;
    p->scratch = s;
    return s;
}

static struct request_step next_of_lines(struct request_parser *p, struct lonely_span in,
                                         struct http_head *head)
{
    struct request_scratch *s = p->scratch;
    size_t len = in.len < p->max_head_bytes ? in.len : p->max_head_bytes;

    if (in.len == 0)
        return (struct request_step){ .event = REQUEST_MORE };
    if (s == NULL)
        s = take_scratch(p);
    if (s == NULL)
        return refuse(p, 503);
    s->base = in.ptr;
    if (s->method_len == 0 && !start_head(s, in.ptr, len))
        return refuse(p, s->status);
    if (s->method_len != 0 && s->parsed < len &&
        !feed_library(s, in.ptr + s->parsed, len - s->parsed))
        return refuse(p, s->status);
    if (s->complete)
        return finish_head(p, in.ptr, head);
    if (len == p->max_head_bytes)
        return refuse(p, memchr(in.ptr, '\n', len) == NULL ? 414 : 431);
    return (struct request_step){ .event = REQUEST_MORE };
}

static struct request_step next_of_head(struct request_parser *p, struct lonely_span in,
                                        struct http_head *head)
{
    bool begun = p->scratch != NULL && p->scratch->method_len != 0;
    size_t skipped = begun ? 0 : count_empty_lines(in);
    struct request_step step;

    step = next_of_lines(p, (struct lonely_span){ in.ptr + skipped, in.len - skipped }, head);
    step.used += skipped;
    return step;
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static enum phase chunk_size_byte(struct request_parser *p, uint8_t c)
{
    int digit = hex_value(c);

    if (digit >= 0) {
        if (p->phase == PHASE_CHUNK_SIZE_FIRST)
            p->left = 0;
        if (p->left >> 60 != 0)
            return PHASE_BAD;
        p->left = p->left << 4 | (uint64_t)digit;
        return PHASE_CHUNK_SIZE;
    }
    if (p->phase == PHASE_CHUNK_SIZE_FIRST)
        return PHASE_BAD;
    if (c == '\r')
        return PHASE_CHUNK_LINE_LF;
    if (c == ';')
        return PHASE_CHUNK_EXTENSION;
    return is_blank(c) ? PHASE_CHUNK_BLANK : PHASE_BAD;
}

/* Text up to a CR, as in chunk extensions and trailers, whose meaning nobody asks for. */
static enum phase skipped_byte(uint8_t c, enum phase same, enum phase behind_cr)
{
    if (c == '\r')
        return behind_cr;
    return (c < ' ' && c != '\t') || c == 0x7f ? PHASE_BAD : same;
}

/* What comes behind one byte between the data of two chunks. */
static enum phase framing_byte(struct request_parser *p, uint8_t c)
{
    switch ((enum phase)p->phase) {
    case PHASE_CHUNK_SIZE_FIRST:
    case PHASE_CHUNK_SIZE:
        return chunk_size_byte(p, c);
    case PHASE_CHUNK_BLANK:
        return is_blank(c)             ? PHASE_CHUNK_BLANK
               : c == ';' || c == '\r' ? chunk_size_byte(p, c)
                                       : PHASE_BAD;
    case PHASE_CHUNK_EXTENSION:
        return skipped_byte(c, PHASE_CHUNK_EXTENSION, PHASE_CHUNK_LINE_LF);
    case PHASE_CHUNK_LINE_LF:
        return c != '\n' ? PHASE_BAD : p->left > 0 ? PHASE_CHUNK_DATA : PHASE_TRAILER_FIRST;
    case PHASE_CHUNK_DATA_CR:
        return c == '\r' ? PHASE_CHUNK_DATA_LF : PHASE_BAD;
    case PHASE_CHUNK_DATA_LF:
        return c == '\n' ? PHASE_CHUNK_SIZE_FIRST : PHASE_BAD;
    case PHASE_TRAILER_FIRST:
        return skipped_byte(c, PHASE_TRAILER, PHASE_LAST_LF);
    case PHASE_TRAILER:
        return skipped_byte(c, PHASE_TRAILER, PHASE_TRAILER_LF);
    case PHASE_TRAILER_LF:
        return c == '\n' ? PHASE_TRAILER_FIRST : PHASE_BAD;
    case PHASE_LAST_LF:
        return c == '\n' ? PHASE_END : PHASE_BAD;
    case PHASE_HEAD:
    case PHASE_LENGTH:
    case PHASE_CHUNK_DATA:
    case PHASE_END:
    case PHASE_BAD:
        break;
    }
    return PHASE_BAD;
}

/* Up to `left` bytes of body beginning at `at`; `behind` follows their last one. */
static struct request_step take_piece(struct request_parser *p, struct lonely_span in, size_t at,
                                      enum phase behind)
{
    size_t n = in.len - at < p->left ? in.len - at : (size_t)p->left;

    if (n == 0)
        return (struct request_step){ .event = REQUEST_MORE, .used = at };
    p->left -= n;
    if (p->left == 0)
        p->phase = (uint8_t)behind;
    return (
        struct request_step){ .event = REQUEST_PIECE, .used = at + n, .piece = { in.ptr + at, n } };
}

static struct request_step end_message(struct request_parser *p, size_t used)
{
    p->phase = PHASE_HEAD;
    return (struct request_step){ .event = REQUEST_END, .used = used };
}

static struct request_step next_of_chunks(struct request_parser *p, struct lonely_span in)
{
    size_t at = 0;

    while (at < in.len && p->phase != PHASE_CHUNK_DATA && p->phase != PHASE_END) {
        p->phase = (uint8_t)framing_byte(p, in.ptr[at++]);
        if (p->phase == PHASE_BAD || ++p->framing_bytes > p->max_head_bytes)
            return refuse(p, 400);
    }
    if (p->phase == PHASE_END)
        return end_message(p, at);
    if (p->phase != PHASE_CHUNK_DATA)
        return (struct request_step){ .event = REQUEST_MORE, .used = at };
    p->framing_bytes = 0;
    return take_piece(p, in, at, PHASE_CHUNK_DATA_CR);
}

struct request_step request_parser_next(struct request_parser *p, struct lonely_span in,
                                        struct http_head *head)
{
    if (p->phase == PHASE_HEAD)
        return next_of_head(p, in, head);
    if (p->phase == PHASE_LENGTH)
        return take_piece(p, in, 0, PHASE_END);
    if (p->phase == PHASE_END)
        return end_message(p, 0);
    if (p->phase == PHASE_BAD)
        return refuse(p, 400);
    return next_of_chunks(p, in);
}
