/*
 * The `simple` tracing of RESPONSE_NOTIFY (doc/protocol/tracing.md, 3). Written by the broadcaster's
 * notify route, read by the client for its log. What the points are and when they are passed is the
 * callers' business.
 */
#include <string.h>

#include <lonely/tracing.h>

#include "reader.h"
#include "writer.h"

#define HEAD_LEN  3  /* flag and count */
#define TIMES_LEN 16 /* the two clock values behind the entries */

static uint64_t double_bits(double d)
{
    uint64_t bits;

    _Static_assert(sizeof bits == sizeof d, "occurred_at is an IEEE 754 double");
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

static double double_of_bits(uint64_t bits)
{
    double d;

    memcpy(&d, &bits, sizeof d);
    return d;
}

enum lonely_error lonely_tracing_writer_init(struct lonely_tracing_writer *w, uint8_t *buf,
                                             size_t cap)
{
    if (cap < HEAD_LEN + TIMES_LEN)
        return LONELY_E_NO_SPACE;
    cap -= TIMES_LEN;
    *w = (struct lonely_tracing_writer){
        .buf = buf,
        .limit = cap < LONELY_TRACING_ENTRIES_MAX_BYTES ? cap : LONELY_TRACING_ENTRIES_MAX_BYTES,
        .len = HEAD_LEN,
    };
    return LONELY_OK;
}

void lonely_tracing_writer_add(struct lonely_tracing_writer *w, struct lonely_span name,
                               struct lonely_span extra, double occurred_s)
{
    struct writer to = writer_of(w->buf + w->len, w->limit - w->len);

    if (w->truncated)
        return;
    writer_b16(&to, name);
    writer_b16(&to, extra);
    writer_u64(&to, double_bits(occurred_s));
    if (to.err != LONELY_OK) {
        w->truncated = true;
        return;
    }
    w->len += to.at;
    w->count++; /* 65,518 bytes hold 5,459 entries at most */
}

size_t lonely_tracing_writer_finish(struct lonely_tracing_writer *w, uint64_t received_ns,
                                    uint64_t sent_ns)
{
    struct writer head = writer_of(w->buf, HEAD_LEN);
    struct writer times = writer_of(w->buf + w->len, TIMES_LEN);

    writer_u8(&head, w->truncated);
    writer_u16(&head, w->count);
    writer_u64(&times, received_ns);
    writer_u64(&times, sent_ns);
    return w->len + times.at;
}

/* Adds an entry without extra; `name` is a literal. */
static void add_plain(struct lonely_tracing_writer *w, const char *name, double occurred_s)
{
    static const uint8_t nothing[] = { '{', '}' };

    lonely_tracing_writer_add(w, (struct lonely_span){ (const uint8_t *)name, strlen(name) },
                              (struct lonely_span){ nothing, sizeof nothing }, occurred_s);
}

void lonely_tracing_minimal(double accepted_s, double finished_s, uint64_t received_ns,
                            uint64_t sent_ns, uint8_t out[LONELY_TRACING_MINIMAL_BYTES])
{
    struct lonely_tracing_writer w;

    lonely_tracing_writer_init(&w, out, LONELY_TRACING_MINIMAL_BYTES);
    add_plain(&w, "auth_accepted", accepted_s);
    add_plain(&w, "no_more_subscribers", finished_s);
    lonely_tracing_writer_finish(&w, received_ns, sent_ns);
}

static void read_entry(struct reader *r, struct lonely_tracing_entry *e)
{
    e->name = reader_b16(r);
    e->extra = reader_b16(r);
    e->occurred_s = double_of_bits(reader_u64(r));
}

struct lonely_result lonely_tracing_parse(struct lonely_span field, struct lonely_tracing *out)
{
    struct reader r = reader_of(field);
    struct lonely_tracing t = { 0 };
    struct lonely_tracing_entry e;

    t.truncated = reader_u8(&r) != 0;
    t.count = reader_u16(&r);
    for (unsigned i = 0; i < t.count && reader_ok(&r); i++)
        read_entry(&r, &e);
    if (reader_ok(&r))
        t.entries = (struct lonely_span){ field.ptr + HEAD_LEN, r.at - HEAD_LEN };
    t.received_ns = reader_u64(&r);
    t.sent_ns = reader_u64(&r);
    if (reader_ok(&r))
        *out = t;
    return (struct lonely_result){ r.err, r.at };
}

bool lonely_tracing_next(struct lonely_tracing *t, struct lonely_tracing_entry *out)
{
    struct reader r = reader_of(t->entries);

    if (t->count == 0)
        return false;
    read_entry(&r, out);
    if (!reader_ok(&r))
        return false; /* not made by lonely_tracing_parse */
    t->count--;
    t->entries.ptr += r.at;
    t->entries.len -= r.at;
    return true;
}
