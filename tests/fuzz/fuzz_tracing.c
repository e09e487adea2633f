/*
 * The tracing of RESPONSE_NOTIFY from a peer. Properties: a field that is accepted, written again
 * entry by entry, gives the same bytes unless it is longer than a writer makes them; a field that
 * is cut is refused.
 */
#include <stdlib.h>
#include <string.h>

#include <lonely/tracing.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void write_again(struct lonely_tracing t, struct lonely_span was)
{
    static uint8_t buf[65535];
    uint64_t received = t.received_ns, sent = t.sent_ns;
    struct lonely_tracing_writer w;
    struct lonely_tracing_entry e;
    unsigned n = t.count, seen = 0;

    require(lonely_tracing_writer_init(&w, buf, sizeof buf) == LONELY_OK);
    for (; lonely_tracing_next(&t, &e); seen++)
        lonely_tracing_writer_add(&w, e.name, e.extra, e.occurred_s);
    require(seen == n && t.entries.len == 0);
    require(lonely_tracing_writer_finish(&w, received, sent) == was.len);
    require(memcmp(buf + 1, was.ptr + 1, was.len - 1) == 0); /* the flag may differ */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lonely_tracing t, part;
    struct lonely_result r = lonely_tracing_parse((struct lonely_span){ data, size }, &t);

    require(r.at <= size && (r.err == LONELY_OK || r.err == LONELY_E_TRUNCATED));
    if (r.err != LONELY_OK)
        return 0;
    for (size_t n = 0; n < r.at; n = n * 2 + 1)
        require(lonely_tracing_parse((struct lonely_span){ data, n }, &part).err ==
                LONELY_E_TRUNCATED);
    if (r.at <= 65535)
        write_again(t, (struct lonely_span){ data, r.at });
    return 0;
}
