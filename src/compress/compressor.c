/*
 * Zstandard behind compressor.h. Sessions of the broadcaster and of the subscriber use it; which
 * compressor a message takes, and the frames that announce one, are theirs.
 */
#include "compressor.h"

#include <stdatomic.h>
#include <string.h>
#include <uv.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "mem.h"

#define WINDOW_LOG_MAX 27 /* the library's own limit when decompressing */

/* 8 MiB, which is what peers take (doc/protocol/session.md, 4.2). Levels from 20 on would take more. */
#define WINDOW_LOG_SENT   23
#define LEVEL_WIDE_WINDOW 20

struct idle {
    void *contexts[COMPRESSOR_IDLE_MAX];
    size_t count;
};

/* They keep nothing of the compressor that used them: each sets up all that matters. */
struct compressor_contexts {
    atomic_uint refs;
    uv_mutex_t lock;
    struct idle compressing, decompressing;
};

struct compressor {
    atomic_uint refs;
    uint64_t id;
    int level;
    struct compressor_contexts *contexts;
    ZSTD_CDict *cdict; /* NULL: no dictionary */
    ZSTD_DDict *ddict;
    size_t dictionary_len;
    uint8_t dictionary[];
};

static int clamp_level(int level)
{
    return level < 1 ? 1 : level > COMPRESSOR_LEVEL_MAX ? COMPRESSOR_LEVEL_MAX : level;
}

static bool load_dictionary(struct compressor *c)
{
    if (c->dictionary_len == 0)
        return true;
    c->cdict = ZSTD_createCDict(c->dictionary, c->dictionary_len, c->level);
    c->ddict = ZSTD_createDDict(c->dictionary, c->dictionary_len);
    return c->cdict != NULL && c->ddict != NULL;
}

struct compressor_contexts *compressor_contexts_create(void)
{
    struct compressor_contexts *contexts = mem_try_calloc(1, sizeof(*contexts));

    if (contexts == NULL)
        return NULL;
    atomic_init(&contexts->refs, 1);
    if (uv_mutex_init(&contexts->lock) == 0)
        return contexts;
    mem_free(contexts);
    return NULL;
}

void compressor_contexts_unref(struct compressor_contexts *contexts)
{
    if (contexts == NULL || atomic_fetch_sub(&contexts->refs, 1) != 1)
        return;
    for (size_t i = 0; i < contexts->compressing.count; i++)
        ZSTD_freeCCtx(contexts->compressing.contexts[i]);
    for (size_t i = 0; i < contexts->decompressing.count; i++)
        ZSTD_freeDCtx(contexts->decompressing.contexts[i]);
    uv_mutex_destroy(&contexts->lock);
    mem_free(contexts);
}

struct compressor *compressor_create(uint64_t id, struct lonely_span dictionary, int level)
{
    struct compressor_contexts *contexts = compressor_contexts_create();
    struct compressor *c =
        contexts == NULL ? NULL : compressor_create_in(contexts, id, dictionary, level);

    compressor_contexts_unref(contexts);
    return c;
}

struct compressor *compressor_create_in(struct compressor_contexts *contexts, uint64_t id,
                                        struct lonely_span dictionary, int level)
{
    struct compressor *c = mem_try_calloc(1, sizeof(*c) + dictionary.len);

    if (c == NULL)
        return NULL;
    atomic_init(&c->refs, 1);
    c->contexts = contexts;
    atomic_fetch_add(&contexts->refs, 1);
    c->id = id;
    c->level = clamp_level(level);
    c->dictionary_len = dictionary.len;
    if (dictionary.len > 0)
        memcpy(c->dictionary, dictionary.ptr, dictionary.len);
    if (!load_dictionary(c)) {
        compressor_unref(c);
        return NULL;
    }
    return c;
}

void compressor_ref(struct compressor *c)
{
    atomic_fetch_add(&c->refs, 1);
}

void compressor_unref(struct compressor *c)
{
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    compressor_contexts_unref(c->contexts);
    ZSTD_freeCDict(c->cdict);
    ZSTD_freeDDict(c->ddict);
    mem_free(c);
}

uint64_t compressor_id(const struct compressor *c)
{
    return c->id;
}

int compressor_level(const struct compressor *c)
{
    return c->level;
}

struct lonely_span compressor_dictionary(const struct compressor *c)
{
    return (struct lonely_span){ c->dictionary, c->dictionary_len };
}

size_t compressor_memory(const struct compressor *c)
{
    return sizeof(*c) + c->dictionary_len + ZSTD_sizeof_CDict(c->cdict) +
           ZSTD_sizeof_DDict(c->ddict);
}

const char *decompress_status_str(enum decompress_status status)
{
    static const char *const texts[] = {
        [DECOMPRESS_OK] = "complete",
        [DECOMPRESS_MORE] = "more is needed",
        [DECOMPRESS_MALFORMED] = "not a body of this compressor",
        [DECOMPRESS_LENGTH] = "not as long as announced",
        [DECOMPRESS_WINDOW] = "needs a larger window than is allowed",
        [DECOMPRESS_NO_MEMORY] = "no memory",
    };

    return texts[status];
}

/* ---- Contexts ---- */

static void *take_idle(struct compressor_contexts *contexts, struct idle *idle)
{
    void *context = NULL;

    uv_mutex_lock(&contexts->lock);
    if (idle->count > 0)
        context = idle->contexts[--idle->count];
    uv_mutex_unlock(&contexts->lock);
    return context;
}

/* false: there are enough, or it is too large to lie idle. */
static bool put_idle(struct compressor_contexts *contexts, struct idle *idle, void *context,
                     size_t size)
{
    bool kept = false;

    if (size > COMPRESSOR_IDLE_BYTES)
        return false;
    uv_mutex_lock(&contexts->lock);
    if (idle->count < COMPRESSOR_IDLE_MAX) {
        idle->contexts[idle->count++] = context;
        kept = true;
    }
    uv_mutex_unlock(&contexts->lock);
    return kept;
}

static void put_cctx(struct compressor *c, ZSTD_CCtx *context)
{
    ZSTD_CCtx_reset(context, ZSTD_reset_session_only);
    if (!put_idle(c->contexts, &c->contexts->compressing, context, ZSTD_sizeof_CCtx(context)))
        ZSTD_freeCCtx(context);
}

static void put_dctx(struct compressor *c, ZSTD_DCtx *context)
{
    ZSTD_DCtx_reset(context, ZSTD_reset_session_only);
    if (!put_idle(c->contexts, &c->contexts->decompressing, context, ZSTD_sizeof_DCtx(context)))
        ZSTD_freeDCtx(context);
}

static bool set_up_cctx(struct compressor *c, ZSTD_CCtx *context)
{
    int window = c->level < LEVEL_WIDE_WINDOW ? 0 : WINDOW_LOG_SENT; /* 0: the level's */

    return !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, c->level)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 0)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(context, ZSTD_c_dictIDFlag, 0)) &&
           !ZSTD_isError(ZSTD_CCtx_refCDict(context, c->cdict));
}

static ZSTD_CCtx *take_cctx(struct compressor *c)
{
    ZSTD_CCtx *context = take_idle(c->contexts, &c->contexts->compressing);

    if (context == NULL)
        context = ZSTD_createCCtx();
    if (context != NULL && !set_up_cctx(c, context)) {
        ZSTD_freeCCtx(context);
        context = NULL;
    }
    return context;
}

static int window_log(uint64_t max_window)
{
    int log = 10; /* COMPRESSOR_WINDOW_MIN */

    if (max_window == 0)
        return WINDOW_LOG_MAX;
    while (log < WINDOW_LOG_MAX && (UINT64_C(2) << log) <= max_window)
        log++;
    return log;
}

static ZSTD_DCtx *take_dctx(struct compressor *c, uint64_t max_window)
{
    ZSTD_DCtx *context = take_idle(c->contexts, &c->contexts->decompressing);

    if (context == NULL)
        context = ZSTD_createDCtx();
    if (context == NULL)
        return NULL;
    if (ZSTD_isError(ZSTD_DCtx_refDDict(context, c->ddict)) ||
        ZSTD_isError(
            ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, window_log(max_window)))) {
        ZSTD_freeDCtx(context);
        return NULL;
    }
    return context;
}

/* ---- In memory: compressing ---- */

size_t compressor_bound(size_t len)
{
    return ZSTD_compressBound(len);
}

size_t compressor_compress(struct compressor *c, struct lonely_span in, uint8_t *to, size_t cap)
{
    ZSTD_CCtx *context = take_cctx(c);
    size_t len;

    if (context == NULL)
        return 0;
    len = ZSTD_compress2(context, to, cap, in.ptr, in.len);
    put_cctx(c, context);
    return ZSTD_isError(len) ? 0 : len;
}

/* ---- Streams ---- */

struct compress_stream {
    struct compressor *compressor;
    ZSTD_CCtx *cctx; /* one of the two */
    ZSTD_DCtx *dctx;
    uint64_t left; /* plain bytes to come: in, or out */
    bool in_frame; /* decompressing: a frame has begun and not ended */
    bool begun;
};

static struct compress_stream *stream_create(struct compressor *c)
{
    struct compress_stream *s = mem_try_calloc(1, sizeof(*s));

    if (s != NULL) {
        s->compressor = c;
        compressor_ref(c);
    }
    return s;
}

struct compress_stream *compress_stream_begin(struct compressor *c, uint64_t size)
{
    struct compress_stream *s = stream_create(c);

    if (s == NULL)
        return NULL;
    s->left = size;
    s->cctx = take_cctx(c);
    if (s->cctx == NULL || ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(s->cctx, size))) {
        compress_stream_end(s);
        return NULL;
    }
    return s;
}

struct compress_stream *decompress_stream_begin(struct compressor *c, uint64_t size,
                                                uint64_t max_window)
{
    struct compress_stream *s = stream_create(c);

    if (s == NULL)
        return NULL;
    s->left = size;
    s->dctx = take_dctx(c, max_window);
    if (s->dctx == NULL) {
        compress_stream_end(s);
        return NULL;
    }
    return s;
}

void compress_stream_end(struct compress_stream *s)
{
    if (s == NULL)
        return;
    if (s->cctx != NULL)
        put_cctx(s->compressor, s->cctx);
    if (s->dctx != NULL)
        put_dctx(s->compressor, s->dctx);
    compressor_unref(s->compressor);
    mem_free(s);
}

/* An empty span may have no pointer to move. */
static void consume(struct lonely_span *in, size_t n)
{
    if (n == 0)
        return;
    in->ptr += n;
    in->len -= n;
}

static enum decompress_status compress_step(struct compress_stream *s, struct lonely_span *in,
                                            bool last, uint8_t *to, size_t cap, size_t *len)
{
    ZSTD_inBuffer input = { in->ptr, in->len, 0 };
    ZSTD_outBuffer output = { to, cap, 0 };
    size_t rest;

    *len = 0;
    if (in->len > s->left || (last && in->len < s->left))
        return DECOMPRESS_LENGTH;
    rest = ZSTD_compressStream2(s->cctx, &output, &input, last ? ZSTD_e_end : ZSTD_e_continue);
    if (ZSTD_isError(rest))
        return DECOMPRESS_NO_MEMORY;
    consume(in, input.pos);
    s->left -= input.pos;
    *len = output.pos;
    return last && rest == 0 && in->len == 0 ? DECOMPRESS_OK : DECOMPRESS_MORE;
}

static enum decompress_status failure_of(size_t code)
{
    ZSTD_ErrorCode error = ZSTD_getErrorCode(code);

    if (error == ZSTD_error_frameParameter_windowTooLarge)
        return DECOMPRESS_WINDOW;
    return error == ZSTD_error_memory_allocation ? DECOMPRESS_NO_MEMORY : DECOMPRESS_MALFORMED;
}

/* One call of the library. With no room left a single byte tells whether more would come out. */
static enum decompress_status decompress_some(struct compress_stream *s, ZSTD_inBuffer *input,
                                              ZSTD_outBuffer *output)
{
    uint8_t beyond;
    ZSTD_outBuffer probe = { &beyond, 1, 0 };
    ZSTD_outBuffer *out = s->left > 0 ? output : &probe;
    size_t before = out->pos;
    size_t hint = ZSTD_decompressStream(s->dctx, out, input);

    if (ZSTD_isError(hint))
        return failure_of(hint);
    s->begun = true;
    s->in_frame = hint != 0;
    if (out == &probe)
        return probe.pos > 0 ? DECOMPRESS_LENGTH : DECOMPRESS_OK;
    s->left -= out->pos - before;
    return DECOMPRESS_OK;
}

static enum decompress_status judge_end(const struct compress_stream *s, bool room)
{
    if (s->in_frame && s->left > 0 && !room)
        return DECOMPRESS_MORE;
    if (s->in_frame || !s->begun)
        return DECOMPRESS_MALFORMED; /* cut short */
    return s->left == 0 ? DECOMPRESS_OK : DECOMPRESS_LENGTH;
}

static enum decompress_status decompress_step(struct compress_stream *s, struct lonely_span *in,
                                              bool last, uint8_t *to, size_t cap, size_t *len)
{
    ZSTD_inBuffer input = { in->ptr, in->len, 0 };
    ZSTD_outBuffer output = { to, cap < s->left ? cap : (size_t)s->left, 0 };
    enum decompress_status status = DECOMPRESS_OK;
    size_t before;

    do {
        before = input.pos + output.pos;
        if (s->left > 0 && output.pos == output.size)
            break; /* room is needed */
        if (input.pos == input.size && !s->in_frame)
            break;
        status = decompress_some(s, &input, &output);
    } while (status == DECOMPRESS_OK && input.pos + output.pos > before);
    consume(in, input.pos);
    *len = output.pos;
    if (status != DECOMPRESS_OK)
        return status;
    if (!last || in->len > 0)
        return DECOMPRESS_MORE;
    return judge_end(s, output.pos < output.size);
}

enum decompress_status compress_stream_step(struct compress_stream *s, struct lonely_span *in,
                                            bool last, uint8_t *to, size_t cap, size_t *len)
{
    if (s->cctx != NULL)
        return compress_step(s, in, last, to, cap, len);
    return decompress_step(s, in, last, to, cap, len);
}

/* ---- In memory: decompressing ---- */

enum decompress_status compressor_decompress(struct compressor *c, struct lonely_span in,
                                             uint64_t max_window, uint8_t *to, size_t len)
{
    struct compress_stream s = { .dctx = take_dctx(c, max_window), .left = len };
    enum decompress_status status;
    size_t done;

    if (s.dctx == NULL)
        return DECOMPRESS_NO_MEMORY;
    status = decompress_step(&s, &in, true, to, len, &done);
    put_dctx(c, s.dctx);
    return status == DECOMPRESS_MORE ? DECOMPRESS_LENGTH : status;
}
