/*
 * Bodies through Zstandard (recode.h), step by step: the pool fills a buffer, the loop gives it to the writer
 * of the new body, waits for it if need be, and has the pool go on. Used by session_unpack.c and
 * session_parcel.c.
 */
#include "recode.h"

#include <assert.h>

#include "list.h"
#include "mem.h"

#define PIECE_BYTES ((size_t)128 * 1024)
#define STEP_PIECES 32 /* of input, at most, for one step of the pool */

struct recoder {
    uv_loop_t *loop;
    struct body_lane *lane;
    uint64_t max_window;
    struct list waiting;
    unsigned running;
};

/* While `working`, everything from `stream` on is the pool's. */
struct recoding {
    struct recoder *all;
    struct list node; /* of recoder.waiting */
    uv_work_t work;
    struct compressor *compressor;
    struct body *from;
    bool compresses;
    uint64_t size; /* of the new body, when it decompresses */
    recode_done_fn *done;
    void *arg;
    bool started, working, cancelled;
    struct body_writer *writer; /* NULL: not begun, or given away */
    struct compress_stream *stream;
    uint64_t read; /* bytes of `from` */
    struct lonely_span in;
    uint8_t *input, *output; /* input NULL: `from` is in memory */
    size_t len;              /* of the output */
    enum decompress_status status;
    enum body_error error;
};

struct recoder *recoder_create(uv_loop_t *loop, struct body_lane *lane, uint64_t max_window)
{
    struct recoder *all = mem_calloc(1, sizeof(*all));

    all->loop = loop;
    all->lane = lane;
    all->max_window = max_window;
    list_init(&all->waiting);
    return all;
}

void recoder_destroy(struct recoder *all)
{
    assert(all == NULL || (all->running == 0 && list_is_empty(&all->waiting)));
    mem_free(all);
}

/* ---- In the pool ---- */

static void begin_stream(struct recoding *r)
{
    if (r->compresses)
        r->stream = compress_stream_begin(r->compressor, body_size(r->from));
    else
        r->stream = decompress_stream_begin(r->compressor, r->size, r->all->max_window);
    if (r->stream == NULL)
        r->status = DECOMPRESS_NO_MEMORY;
}

/* Finds the next input. */
static void refill(struct recoding *r)
{
    uint64_t left = body_size(r->from) - r->read;
    ptrdiff_t got;

    if (r->input == NULL) {
        r->in = body_span(r->from);
        r->read += r->in.len;
        return;
    }
    got = body_pread(r->from, r->read, r->input, left < PIECE_BYTES ? (size_t)left : PIECE_BYTES);
    if (got <= 0) {
        r->error = BODY_IO;
        return;
    }
    r->in = (struct lonely_span){ r->input, (size_t)got };
    r->read += (uint64_t)got;
}

/* Goes on until the output is full, all is done, or it takes too long. */
static void step(uv_work_t *work)
{
    struct recoding *r = work->data;

    r->len = 0;
    r->status = DECOMPRESS_MORE;
    if (r->stream == NULL)
        begin_stream(r);
    for (int i = 0; i < STEP_PIECES && r->len < PIECE_BYTES; i++) {
        size_t len;

        if (r->status == DECOMPRESS_MORE && r->in.len == 0 && r->read < body_size(r->from))
            refill(r);
        if (r->status != DECOMPRESS_MORE || r->error != BODY_OK)
            return;
        r->status = compress_stream_step(r->stream, &r->in, r->read == body_size(r->from),
                                         r->output + r->len, PIECE_BYTES - r->len, &len);
        r->len += len;
    }
}

/* ---- On the loop ---- */

static void start_next(struct recoder *all);

static void recoding_free(struct recoding *r)
{
    struct recoder *all = r->all;

    list_remove(&r->node);
    if (r->writer != NULL)
        body_writer_abort(r->writer);
    compress_stream_end(r->stream);
    compressor_unref(r->compressor);
    body_unref(r->from);
    mem_free(r->input);
    mem_free(r->output);
    if (r->started)
        all->running--;
    mem_free(r);
    start_next(all);
}

static void finish(struct recoding *r, struct body *body)
{
    const struct recoded result = { r->status, r->error, body };
    recode_done_fn *done = r->done;
    void *arg = r->arg;

    recoding_free(r);
    done(arg, &result);
}

static void on_stepped(uv_work_t *work, int status);

static void go_on(void *arg)
{
    struct recoding *r = arg;
    int err = uv_queue_work(r->all->loop, &r->work, step, on_stepped);

    assert(err == 0); /* fails without a function only */
    (void)err;
    r->working = true;
}

static void on_body(void *arg, enum body_error error, struct body *body)
{
    struct recoding *r = arg;

    r->working = false;
    r->error = error;
    if (r->cancelled) {
        body_unref(body);
        recoding_free(r);
    } else {
        finish(r, body);
    }
}

static void complete(struct recoding *r)
{
    struct body_writer *writer = r->writer;

    r->writer = NULL;
    r->working = true; /* the writer is; it cannot be given up any more */
    body_writer_finish(writer, on_body, r);
}

static void on_stepped(uv_work_t *work, int status)
{
    struct recoding *r = work->data;
    enum body_add added = BODY_ADD_MORE;

    r->working = false;
    if (r->cancelled) {
        recoding_free(r);
        return;
    }
    if (status != 0)
        r->error = BODY_IO;
    if (r->error == BODY_OK && r->len > 0 &&
        (r->status == DECOMPRESS_OK || r->status == DECOMPRESS_MORE))
        added = body_writer_add(r->writer, (struct lonely_span){ r->output, r->len }, go_on, r);
    if (added == BODY_ADD_FAILED)
        r->error = body_writer_error(r->writer);
    if (r->error != BODY_OK || (r->status != DECOMPRESS_OK && r->status != DECOMPRESS_MORE))
        finish(r, NULL);
    else if (r->status == DECOMPRESS_OK)
        complete(r);
    else if (added == BODY_ADD_MORE)
        go_on(r);
}

static void start(struct recoding *r)
{
    r->started = true;
    r->all->running++;
    if (!body_in_memory(r->from))
        r->input = mem_alloc(PIECE_BYTES);
    r->output = mem_alloc(PIECE_BYTES);
    r->writer = body_writer_create(r->all->lane, r->compresses ? UINT64_MAX : r->size);
    go_on(r);
}

static void start_next(struct recoder *all)
{
    struct list *node;

    while (all->running < RECODER_RUNNING && (node = list_pop_front(&all->waiting)) != NULL)
        start(list_entry(node, struct recoding, node));
}

static struct recoding *create(struct recoder *all, struct compressor *c, struct body *from,
                               recode_done_fn *done, void *arg)
{
    struct recoding *r = mem_calloc(1, sizeof(*r));

    r->all = all;
    r->work.data = r;
    r->compressor = c;
    compressor_ref(c);
    r->from = from;
    body_ref(from);
    r->done = done;
    r->arg = arg;
    list_push_back(&all->waiting, &r->node);
    return r;
}

struct recoding *recode_compress(struct recoder *all, struct compressor *c, struct body *plain,
                                 recode_done_fn *done, void *arg)
{
    struct recoding *r = create(all, c, plain, done, arg);

    r->compresses = true;
    start_next(all);
    return r;
}

struct recoding *recode_decompress(struct recoder *all, struct compressor *c, struct body *packed,
                                   uint64_t size, recode_done_fn *done, void *arg)
{
    struct recoding *r = create(all, c, packed, done, arg);

    r->size = size;
    start_next(all);
    return r;
}

void recoding_cancel(struct recoding *r)
{
    if (r->working)
        r->cancelled = true;
    else
        recoding_free(r);
}
