/*
 * The lists of SET_SUBSCRIPTIONS from a peer. Properties: entries, order of errors and bytes left
 * over do not depend on how the input is cut; what is read is ascending, and written again gives
 * the bytes that were read.
 *
 * Input: one byte of how to cut, one byte of how many topics, the rest is the lists.
 */
#include <stdlib.h>
#include <string.h>

#include <lonely/stateless.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* Reads in pieces, the next of which is always a fresh block of its own size. */
struct feed {
    struct lonely_set_reader reader;
    struct lonely_span rest; /* of the input */
    size_t piece;
    uint8_t *block;
    struct lonely_span in;
};

static enum lonely_error feed_next(struct feed *f, struct lonely_set_entry *e)
{
    for (;;) {
        enum lonely_error err = lonely_set_reader_next(&f->reader, &f->in, e);
        size_t n = f->piece < f->rest.len ? f->piece : f->rest.len;

        if (err != LONELY_E_TRUNCATED)
            return err;
        require(f->in.len == 0);
        if (n == 0)
            return err;
        free(f->block);
        f->block = malloc(n);
        require(f->block != NULL);
        memcpy(f->block, f->rest.ptr, n);
        f->in = (struct lonely_span){ f->block, n };
        f->rest.ptr += n;
        f->rest.len -= n;
    }
}

static bool equal(struct lonely_span a, struct lonely_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Where the whole-input feed stands. */
static size_t consumed(const struct feed *f, size_t size)
{
    return size - f->rest.len - f->in.len;
}

/* The entry that was read between two offsets of the input, written again. */
static void write_again(struct lonely_set_writer *w, const struct lonely_set_entry *e,
                        struct lonely_span was)
{
    uint8_t *buf = malloc(was.len + 1);
    struct lonely_result r;

    require(buf != NULL);
    r = lonely_set_writer_add(w, e, buf, was.len);
    require(r.err == LONELY_OK && r.at == was.len);
    require(was.len == 0 || memcmp(buf, was.ptr, was.len) == 0);
    free(buf);
}

/* The writer has to know the number of globs beforehand: a pass that stops where they start. */
static uint32_t count_globs(struct feed *f, struct lonely_span lists, uint32_t topics)
{
    struct lonely_set_entry e;

    lonely_set_reader_init(&f->reader, topics);
    while (lonely_set_reader_next(&f->reader, &lists, &e) == LONELY_OK) {
        if (e.kind == LONELY_SET_GLOB)
            return f->reader.left + 1;
        if (e.kind == LONELY_SET_END)
            return 0;
    }
    return f->reader.left; /* cut in the first glob, or never got there: not written */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct feed whole, cut;
    static struct lonely_set_writer writer;
    struct lonely_set_entry a, b;
    enum lonely_error err, cut_err;
    struct lonely_span lists;
    size_t at = 0;

    if (size < 2)
        return 0;
    lists = (struct lonely_span){ data + 2, size - 2 };
    lonely_set_writer_init(&writer, data[1], count_globs(&whole, lists, data[1]));
    whole.rest = cut.rest = lists;
    whole.piece = SIZE_MAX;
    cut.piece = data[0] + 1U;
    whole.in = cut.in = (struct lonely_span){ 0 };
    lonely_set_reader_init(&whole.reader, data[1]);
    lonely_set_reader_init(&cut.reader, data[1]);
    do {
        err = feed_next(&whole, &a);
        cut_err = feed_next(&cut, &b);
        require(err == cut_err);
        if (err != LONELY_OK)
            break;
        require(a.kind == b.kind && equal(a.key, b.key) && equal(a.recovery, b.recovery));
        require(consumed(&whole, lists.len) == consumed(&cut, lists.len));
        write_again(&writer, &a,
                    (struct lonely_span){ lists.ptr + at, consumed(&whole, lists.len) - at });
        at = consumed(&whole, lists.len);
    } while (a.kind != LONELY_SET_END);
    free(whole.block);
    free(cut.block);
    whole.block = cut.block = NULL;
    return 0;
}
