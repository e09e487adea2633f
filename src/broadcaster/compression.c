/*
 * The compressors that sessions share (compression.h). Made by broadcaster.c; what a session does with them,
 * and the dictionaries that are trained for a single one, are in sessions/session_zstd.c.
 */
#include "compression.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "mem.h"

/* Zstandard takes shorter ones, and does not use them. */
#define DICTIONARY_MIN_BYTES 8
/* More than that no window reaches back into. */
#define DICTIONARY_MAX_BYTES ((size_t)8 << 20)

struct compression {
    struct compressor_contexts *contexts;
    struct compressor *plain;
    struct compressor **presets; /* in no order: they are few */
    size_t preset_count;
};

/* NULL, or why not. */
static const char *read_file(const char *path, struct buf *out)
{
    FILE *file = fopen(path, "rbe");
    const char *why = NULL;
    uint8_t *room;
    size_t n;

    if (file == NULL)
        return strerror(errno);
    do {
        room = buf_reserve(out, 65536);
        n = room == NULL ? 0 : fread(room, 1, 65536, file);
        if (n > 0)
            buf_commit(out, n);
    } while (n > 0 && out->len <= DICTIONARY_MAX_BYTES);
    if (ferror(file))
        why = strerror(errno);
    else if (room == NULL)
        why = "no memory";
    else if (out->len < DICTIONARY_MIN_BYTES)
        why = "shorter than 8 bytes";
    else if (out->len > DICTIONARY_MAX_BYTES)
        why = "longer than 8M";
    fclose(file);
    return why;
}

/* The end of a path, so that what follows it in an error is never cut off. */
static const char *show_path(const char *path)
{
    size_t len = strlen(path);

    return len > 120 ? path + len - 120 : path;
}

static bool add_preset(struct compression *c, const struct conf_dictionary *d, char error[256])
{
    struct compressor *preset = NULL;
    struct buf bytes;
    const char *why;

    buf_init(&bytes, DICTIONARY_MAX_BYTES + 65536);
    why = read_file(d->path, &bytes);
    if (why == NULL) {
        preset = compressor_create_in(c->contexts, d->id,
                                      (struct lonely_span){ bytes.ptr, bytes.len }, d->level);
        why = preset == NULL ? "not a dictionary of Zstandard" : NULL;
    }
    buf_fini(&bytes);
    if (why != NULL)
        snprintf(error, 256, "compression.dictionary %u: %s: %s", (unsigned)d->id,
                 show_path(d->path), why);
    else
        c->presets[c->preset_count++] = preset;
    return why == NULL;
}

static bool add_presets(struct compression *c, const struct conf_list *list, char error[256])
{
    struct conf_dictionary d;

    c->presets = mem_calloc(list->count + 1, sizeof(struct compressor *));
    for (size_t i = 0; i < list->count; i++)
        if (conf_dictionary_parse(list->items[i], &d) && !add_preset(c, &d, error))
            return false;
    return true;
}

struct compression *compression_create(const struct conf *conf, char error[256])
{
    struct compression *c = mem_calloc(1, sizeof(*c));

    c->contexts = compressor_contexts_create();
    if (c->contexts != NULL)
        c->plain = compressor_create_in(c->contexts, COMPRESSOR_PLAIN, (struct lonely_span){ 0 },
                                        COMPRESSOR_LEVEL_PLAIN);
    if (c->plain == NULL)
        snprintf(error, 256, "no memory for compression");
    if (c->plain != NULL && add_presets(c, &conf->compression.dictionary, error))
        return c;
    compression_destroy(c);
    return NULL;
}

void compression_destroy(struct compression *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->preset_count; i++)
        compressor_unref(c->presets[i]);
    mem_free(c->presets);
    compressor_unref(c->plain);
    compressor_contexts_unref(c->contexts);
    mem_free(c);
}

struct compressor *compression_plain(const struct compression *c)
{
    return c->plain;
}

struct compressor *compression_preset(const struct compression *c, uint64_t id)
{
    for (size_t i = 0; i < c->preset_count; i++)
        if (compressor_id(c->presets[i]) == id)
            return c->presets[i];
    return NULL;
}

struct compressor_contexts *compression_contexts(const struct compression *c)
{
    return c->contexts;
}
