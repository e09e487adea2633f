/*
 * The two sorted lists of SET_SUBSCRIPTIONS (doc/protocol/http.md, 2.4), one entry at a time in
 * constant memory. The reader serves the broadcaster, which reads the lists twice (once to check
 * them, once to store them), the writer the client. The etag over the lists is in etag.c.
 */
#include <lonely/stateless.h>

#include "key_order.h"
#include "reader.h"
#include "utf8.h"
#include "writer.h"

void lonely_set_reader_init(struct lonely_set_reader *r, uint32_t topics)
{
    r->kind = LONELY_SET_TOPIC;
    r->in_count = false;
    r->left = topics;
    r->err = LONELY_OK;
    r->held = 0;
    r->last.any = false;
}

/* How long the unit (an entry, or the count of globs) is whose start is in `have`, as far as these
 * bytes can tell. */
static size_t unit_size(const struct lonely_set_reader *r, struct lonely_span have)
{
    struct reader ahead = reader_of(have);
    size_t key, recovery;

    if (r->in_count)
        return 4;
    if (have.len < 2)
        return 2;
    key = reader_u16(&ahead);
    if (have.len < 2 + key + 2)
        return 2 + key + 2;
    reader_take(&ahead, key);
    recovery = reader_u16(&ahead);
    return 2 + key + 2 + recovery;
}

/* Takes the next unit: a view into the piece if it is there as a whole, else put together in
 * `part`. False: the piece is read up. */
static bool unit_take(struct lonely_set_reader *r, struct lonely_span *in, struct lonely_span *unit)
{
    size_t size = unit_size(r, *in);

    if (r->held == 0 && size <= in->len) {
        *unit = (struct lonely_span){ in->ptr, size };
        in->ptr += size;
        in->len -= size;
        return true;
    }
    for (;;) {
        size_t n;

        size = unit_size(r, (struct lonely_span){ r->part, r->held });
        if (r->held == size)
            break;
        if (in->len == 0)
            return false;
        n = size - r->held < in->len ? size - r->held : in->len;
        memcpy(r->part + r->held, in->ptr, n);
        r->held += (uint32_t)n;
        in->ptr += n;
        in->len -= n;
    }
    *unit = (struct lonely_span){ r->part, size };
    r->held = 0;
    return true;
}

/* Takes apart a whole entry and checks it against the one before. */
static enum lonely_error entry_parse(struct lonely_set_reader *r, struct lonely_span unit,
                                     struct lonely_set_entry *out)
{
    struct reader fields = reader_of(unit);
    struct lonely_set_entry e = { .kind = r->kind };

    e.key = reader_b16(&fields);
    e.recovery = reader_b16(&fields);
    if ((e.kind == LONELY_SET_GLOB && !utf8_is_valid(e.key)) || !utf8_is_valid(e.recovery))
        return LONELY_E_UTF8;
    if (!order_ascends(&r->last, e.key))
        return LONELY_E_ORDER;
    order_keep(&r->last, e.key);
    r->left--;
    *out = e;
    return LONELY_OK;
}

enum lonely_error lonely_set_reader_next(struct lonely_set_reader *r, struct lonely_span *in,
                                         struct lonely_set_entry *out)
{
    struct lonely_span unit;

    if (r->err != LONELY_OK)
        return r->err;
    if (r->kind == LONELY_SET_TOPIC && r->left == 0) {
        struct reader count;

        r->in_count = true;
        if (!unit_take(r, in, &unit))
            return LONELY_E_TRUNCATED;
        count = reader_of(unit);
        r->kind = LONELY_SET_GLOB;
        r->in_count = false;
        r->left = reader_u32(&count);
        r->last.any = false;
    }
    if (r->kind == LONELY_SET_GLOB && r->left == 0)
        r->kind = LONELY_SET_END;
    if (r->kind == LONELY_SET_END) {
        *out = (struct lonely_set_entry){ .kind = LONELY_SET_END };
        return LONELY_OK;
    }
    if (!unit_take(r, in, &unit))
        return LONELY_E_TRUNCATED;
    r->err = entry_parse(r, unit, out);
    return r->err;
}

void lonely_set_writer_init(struct lonely_set_writer *w, uint32_t topics, uint32_t globs)
{
    w->kind = LONELY_SET_TOPIC;
    w->left = topics;
    w->globs = globs;
    w->last.any = false;
}

/* Whether an entry of `kind` may come now: lists in order, neither too long nor too short. */
static bool writer_expects(const struct lonely_set_writer *w, enum lonely_set_kind kind)
{
    uint32_t globs_left = w->kind == LONELY_SET_GLOB ? w->left : w->globs;
    bool topics_done = w->kind != LONELY_SET_TOPIC || w->left == 0;

    if (w->kind == LONELY_SET_END)
        return false;
    if (kind == LONELY_SET_TOPIC)
        return !topics_done;
    if (kind == LONELY_SET_GLOB)
        return topics_done && globs_left > 0;
    return kind == LONELY_SET_END && topics_done && globs_left == 0;
}

static enum lonely_error writer_check(const struct lonely_set_writer *w,
                                      const struct lonely_set_entry *e)
{
    if (!writer_expects(w, e->kind))
        return LONELY_E_STATE;
    if (e->kind == LONELY_SET_END)
        return LONELY_OK;
    if (e->key.len > LONELY_FIELD16_MAX_BYTES || e->recovery.len > LONELY_FIELD16_MAX_BYTES)
        return LONELY_E_FIELD_SIZE;
    if ((e->kind == LONELY_SET_GLOB && !utf8_is_valid(e->key)) || !utf8_is_valid(e->recovery))
        return LONELY_E_UTF8;
    return e->kind != w->kind || order_ascends(&w->last, e->key) ? LONELY_OK : LONELY_E_ORDER;
}

struct lonely_result lonely_set_writer_add(struct lonely_set_writer *w,
                                           const struct lonely_set_entry *entry, uint8_t *buf,
                                           size_t cap)
{
    struct writer to = writer_of(buf, buf != NULL ? cap : 0);
    bool ends_topics = w->kind == LONELY_SET_TOPIC && entry->kind != LONELY_SET_TOPIC;
    enum lonely_error err = writer_check(w, entry);

    if (err != LONELY_OK)
        return (struct lonely_result){ err, 0 };
    if (ends_topics)
        writer_u32(&to, w->globs);
    if (entry->kind != LONELY_SET_END) {
        writer_b16(&to, entry->key);
        writer_b16(&to, entry->recovery);
    }
    if (to.at > to.cap)
        return (struct lonely_result){ LONELY_E_NO_SPACE, to.at };
    if (ends_topics)
        w->left = w->globs;
    w->kind = entry->kind;
    if (entry->kind != LONELY_SET_END) {
        w->left--;
        order_keep(&w->last, entry->key);
    }
    return (struct lonely_result){ LONELY_OK, to.at };
}
