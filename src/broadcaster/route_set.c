/*
 * POST /v1/set_subscriptions: makes the subscriptions of a url equal to two sorted lists.
 * (doc/protocol/http.md, 2.4 and 9)
 *
 * The head is collected until it parses. The lists go into a body, in memory or in a file, and are read
 * twice from there: to check order, text and etag, then by the store. So memory does not grow with them.
 */
#include <string.h>

#include <lonely/etag.h>

#include "mem.h"
#include "upload.h"

/* Longer lists are checked in the thread pool. */
#define CHECK_ON_LOOP_BYTES 16384

/* How far the lists go, seen from their lengths alone: what follows is ignored and need not be kept. */
struct list_extent {
    uint64_t strings; /* of this list that are still to come: two an entry */
    bool globs;       /* it is the second list */
    bool ended;
    uint32_t skip;   /* bytes of the string at hand */
    uint32_t number; /* the length or count at hand, ... */
    unsigned have;   /* ... of which so many bytes have come */
};

/* One reading of the lists. */
struct list_reader {
    struct body *body;
    bool failed;             /* the file could not be read */
    uint64_t at;             /* of the next bytes of a spooled body */
    struct lonely_span rest; /* at hand */
    struct lonely_set_reader reader;
    uint8_t chunk[65536];
};

struct set_request {
    struct upload upload; /* first */
    size_t head_needed;
    bool parsed;
    struct lonely_stateless fields; /* point into what was collected */
    struct list_extent extent;
    struct list_reader *lists;
    struct store_list source;
    uv_work_t work;
    int status; /* of the check: 0 or the answer */
};

static void release(struct request *r)
{
    struct set_request *s = (struct set_request *)r;

    upload_release(r);
    mem_free(s->lists);
}

/* A length or a count is complete. */
static void extent_number(struct list_extent *e)
{
    if (e->strings > 0) {
        e->strings--;
        e->skip = e->number;
    } else {
        e->globs = true;
        e->strings = 2 * (uint64_t)e->number;
    }
    e->number = 0;
    e->have = 0;
}

/* How many of the next bytes belong to the lists. */
static size_t extent_take(struct list_extent *e, struct lonely_span bytes)
{
    size_t at = 0;

    while (at < bytes.len && !e->ended) {
        if (e->skip > 0) {
            size_t n = e->skip < bytes.len - at ? e->skip : bytes.len - at;

            e->skip -= (uint32_t)n;
            at += n;
        } else {
            e->number = e->number << 8 | bytes.ptr[at++];
            if (++e->have == (e->strings > 0 ? 2 : 4))
                extent_number(e);
        }
        e->ended = e->globs && e->strings == 0 && e->skip == 0 && e->have == 0;
    }
    return at;
}

static void lists_start(struct set_request *s)
{
    struct list_reader *l = s->lists;

    l->body = s->upload.body;
    l->failed = false;
    l->at = 0;
    l->rest = body_in_memory(l->body) ? body_span(l->body) : (struct lonely_span){ NULL, 0 };
    lonely_set_reader_init(&l->reader, s->fields.count);
}

/* False at the end of the body. */
static bool lists_refill(struct list_reader *l)
{
    ptrdiff_t len;

    if (body_in_memory(l->body))
        return false;
    len = body_pread(l->body, l->at, l->chunk, sizeof(l->chunk));
    l->failed = len < 0;
    if (len <= 0)
        return false;
    l->at += (uint64_t)len;
    l->rest = (struct lonely_span){ l->chunk, (size_t)len };
    return true;
}

static enum lonely_error lists_next(struct list_reader *l, struct lonely_set_entry *entry)
{
    for (;;) {
        enum lonely_error err = lonely_set_reader_next(&l->reader, &l->rest, entry);

        if (err != LONELY_E_TRUNCATED || !lists_refill(l))
            return err;
    }
}

/* store_list: the same lists once more, on a thread of the store. */
static int next_row(void *arg, struct store_row *row)
{
    struct set_request *s = arg;
    struct lonely_set_entry entry;

    if (atomic_load(&s->upload.request.worker->stopping) ||
        lists_next(s->lists, &entry) != LONELY_OK)
        return -1; /* it could be read before, so the file cannot */
    if (entry.kind == LONELY_SET_END)
        return 0;
    row->kind = entry.kind == LONELY_SET_GLOB ? STORE_GLOB : STORE_EXACT;
    row->key = entry.key;
    row->recovery = entry.recovery;
    return 1;
}

static bool entry_allowed(const struct set_request *s, const struct lonely_set_entry *entry)
{
    const struct conf *conf = s->upload.request.worker->b->conf;
    uint64_t max =
        entry->kind == LONELY_SET_GLOB ? conf->limits.max_glob_bytes : conf->limits.max_topic_bytes;

    return entry->key.len <= max && entry->recovery.len <= conf->limits.max_url_bytes &&
           request_url_allowed(&s->upload.request, entry->recovery);
}

/* Reads the lists into the etag; 0, or the status of the answer. */
static int check_entries(struct set_request *s, struct lonely_etag *etag)
{
    struct lonely_set_entry entry;
    uint8_t digest[LONELY_ETAG_BYTES];
    bool first = true; /* empty lists may be set for any url: that only removes */

    for (;; first = false) {
        enum lonely_error err = lists_next(s->lists, &entry);

        if (atomic_load(&s->upload.request.worker->stopping))
            return 503;
        if (err != LONELY_OK)
            return s->lists->failed ? 500 : 400;
        if (entry.kind == LONELY_SET_END)
            break;
        if ((first && !request_url_allowed(&s->upload.request, s->fields.url)) ||
            !entry_allowed(s, &entry))
            return 400;
        err = entry.kind == LONELY_SET_GLOB
                  ? lonely_etag_add_glob(etag, entry.key, entry.recovery)
                  : lonely_etag_add_topic(etag, entry.key, entry.recovery);
        if (err != LONELY_OK)
            return 500; /* the reader has refused all that a peer can do wrong */
    }
    if (lonely_etag_final(etag, digest) != LONELY_OK)
        return 500;
    return memcmp(digest, s->fields.hash.ptr, sizeof(digest)) == 0 ? 0 : 400;
}

static void check_lists(uv_work_t *work)
{
    struct set_request *s = work->data;
    struct lonely_etag *etag = mem_alloc(sizeof(*etag));

    lists_start(s);
    if (lonely_etag_init(etag, s->fields.url) == LONELY_OK)
        s->status = check_entries(s, etag);
    else
        s->status = 500;
    mem_free(etag);
}

static void on_stored(void *arg, enum store_status status)
{
    struct set_request *s = arg;

    if (status == STORE_OK)
        request_answer_generic(&s->upload.request, &(struct lonely_auth_input){
                                                       .op = LONELY_AUTH_SET_SUBSCRIPTIONS_RESPONSE,
                                                       .hash = s->fields.hash });
    else
        request_answer(&s->upload.request, 503);
    request_free(&s->upload.request);
}

static void on_lists_checked(uv_work_t *work, int status)
{
    struct set_request *s = work->data;
    struct worker *w = s->upload.request.worker;

    (void)status; /* never cancelled */
    if (s->status != 0) {
        request_end(&s->upload.request, s->status);
        return;
    }
    lists_start(s);
    s->source = (struct store_list){ next_row, s };
    w->b->store_ops->set(w->store, s->fields.url, &s->source, on_stored, s);
}

static void on_body(struct upload *u)
{
    struct set_request *s = (struct set_request *)u;

    s->lists = mem_alloc(sizeof(*s->lists));
    s->work.data = s;
    if (body_size(u->body) <= CHECK_ON_LOOP_BYTES) {
        check_lists(&s->work);
        on_lists_checked(&s->work, 0);
    } else if (uv_queue_work(&u->request.worker->loop, &s->work, check_lists, on_lists_checked) !=
               0) {
        request_end(&u->request, 503);
    }
}

static void on_end(void *arg)
{
    struct set_request *s = arg;

    if (!s->parsed)
        request_end(&s->upload.request, 400);
    else
        upload_end(&s->upload, on_body);
}

/* As request_authorize. */
static int authorize(struct set_request *s)
{
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_SET_SUBSCRIPTIONS,
        .tracing = s->fields.tracing,
        .url = s->fields.url,
        .hash = s->fields.hash,
    };

    return request_authorize(&s->upload.request, &in, upload_authorized);
}

/* Parses the head once enough is there. False: it has been refused and the request is gone. */
static bool parse_head(struct set_request *s)
{
    struct worker *w = s->upload.request.worker;
    struct lonely_result result = lonely_stateless_parse(
        LONELY_STATELESS_SET_SUBSCRIPTIONS,
        (struct lonely_span){ s->upload.request.collected.ptr, s->upload.request.collected.len },
        &s->fields);
    int status = 400;

    if (result.err == LONELY_E_TRUNCATED) {
        s->head_needed = result.at;
        return true;
    }
    if (result.err == LONELY_OK && s->fields.url.len <= w->b->conf->limits.max_url_bytes)
        status = authorize(s);
    if (!upload_begin(&s->upload, status, s->upload.request.exchange->head.content_length))
        return false;
    s->parsed = true;
    s->extent.strings = 2 * (uint64_t)s->fields.count;
    return true;
}

static void on_piece(void *arg, struct lonely_span piece)
{
    struct set_request *s = arg;

    while (!s->parsed && piece.len > 0) {
        if (!request_collect_until(&s->upload.request, s->head_needed, &piece)) {
            request_end(&s->upload.request, 503);
            return;
        }
        if (s->upload.request.collected.len == s->head_needed && !parse_head(s))
            return;
    }
    if (s->parsed) {
        piece.len = extent_take(&s->extent, piece);
        upload_add(&s->upload, piece);
    }
}

void route_set(struct worker *w, struct http_exchange *x, const struct route *route)
{
    static const struct http_body_ops ops = { on_piece, on_end, request_on_abort };
    struct set_request *s = request_create(w, x, route, sizeof(*s));

    s->upload.request.release = release;
    s->head_needed = 2;
    http_exchange_read_body(x, &ops, s);
}
