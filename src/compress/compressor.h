/*
 * Compressors of the stateful protocol: Zstandard, with or without a dictionary, as both ends use it.
 * (doc/protocol/session.md, 4)
 *
 * A compressor is immutable and counted: any thread, several at once. Contexts are pooled, for one
 * compressor or for many: at most COMPRESSOR_IDLE_MAX lie idle for each direction, none of more than
 * COMPRESSOR_IDLE_BYTES. A stream belongs to one thread at a time.
 */
#ifndef COMPRESSOR_H
#define COMPRESSOR_H

#include <stdbool.h>
#include <stdint.h>

#include <lonely/span.h>

#define COMPRESSOR_PLAIN       1 /* without dictionary */
#define COMPRESSOR_PRESET_MIN  2 /* dictionaries from the configuration */
#define COMPRESSOR_PRESET_MAX  65535
#define COMPRESSOR_CUSTOM_MIN  65536 /* dictionaries trained for one connection */
#define COMPRESSOR_LEVEL_MAX   22
#define COMPRESSOR_IDLE_MAX    5
#define COMPRESSOR_IDLE_BYTES  ((size_t)2 << 20)
#define COMPRESSOR_WINDOW_MIN  1024 /* the least that Zstandard knows, in bytes */
#define COMPRESSOR_LEVEL_PLAIN 3

struct compressor;

/*
 * `dictionary`: copied; len 0: none. As zstd makes them, or any content. `level`: 1 to 22; others are
 * clamped. Takes about 2 ms and 1 MiB for a dictionary at a high level: for the thread pool, beyond
 * start. NULL: not usable as a dictionary, or no memory. One reference.
 */
struct compressor *compressor_create(uint64_t id, struct lonely_span dictionary, int level);

/* Contexts that many compressors share; any thread. One reference, the caller's; a compressor takes one. */
struct compressor_contexts;
struct compressor_contexts *compressor_contexts_create(void); /* NULL: no memory */
void compressor_contexts_unref(struct compressor_contexts *contexts);
/* The same as compressor_create, with these. */
struct compressor *compressor_create_in(struct compressor_contexts *contexts, uint64_t id,
                                        struct lonely_span dictionary, int level);
void compressor_ref(struct compressor *c);
void compressor_unref(struct compressor *c); /* NULL is allowed */
uint64_t compressor_id(const struct compressor *c);
int compressor_level(const struct compressor *c);
struct lonely_span compressor_dictionary(const struct compressor *c);
size_t compressor_memory(const struct compressor *c); /* that it takes, without contexts */

/*
 * Compresses what lies in memory to one frame: no checksum, no content size, no dictionary id; a window
 * no larger than the input needs, nor than the 8 MiB that every peer takes. `to` has room for
 * compressor_bound(in.len) bytes. Returns the length, or 0 when there is no memory.
 */
size_t compressor_bound(size_t len);
size_t compressor_compress(struct compressor *c, struct lonely_span in, uint8_t *to, size_t cap);

enum decompress_status {
    DECOMPRESS_OK,
    DECOMPRESS_MORE,      /* streams: give more input, or more room */
    DECOMPRESS_MALFORMED, /* no frames of this compressor, or bytes behind the last */
    DECOMPRESS_LENGTH,    /* more or less than was announced */
    DECOMPRESS_WINDOW,    /* it asks for a larger window than is allowed */
    DECOMPRESS_NO_MEMORY
};
const char *decompress_status_str(enum decompress_status status); /* static, one line */

/* Decompresses what lies in memory; `to` has room for exactly the announced `len`. `max_window`: bytes; 0:
 * the library's own limit (128 MiB). */
enum decompress_status compressor_decompress(struct compressor *c, struct lonely_span in,
                                             uint64_t max_window, uint8_t *to, size_t len);

/* One body, piece by piece. */
struct compress_stream;

/* `size` of all that will come; NULL: no memory. */
struct compress_stream *compress_stream_begin(struct compressor *c, uint64_t size);
struct compress_stream *decompress_stream_begin(struct compressor *c, uint64_t size,
                                                uint64_t max_window);
void compress_stream_end(struct compress_stream *s); /* at any time; NULL is allowed */

/*
 * Takes bytes from the front of `in` (which moves) and writes at most `cap` to `to`; `*len` says how many.
 * `last`: no input follows. DECOMPRESS_OK: all is written, the body is complete. DECOMPRESS_MORE: call
 * again, with room, and with input once `in` is empty. Anything else: it failed (compressing: for want of
 * memory, or because not exactly `size` bytes came).
 */
enum decompress_status compress_stream_step(struct compress_stream *s, struct lonely_span *in,
                                            bool last, uint8_t *to, size_t cap, size_t *len);

#endif
