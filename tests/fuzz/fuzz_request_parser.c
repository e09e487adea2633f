/*
 * The request parser gives the same events however the bytes are cut. The first two bytes of an
 * input seed the cuts, the rest is what the peer sends.
 */
#include "request_transcript.h"

#define HEAD_MAX 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Mostly small sizes, from a generator that needs no state but its last number. */
static size_t next_size(void *arg)
{
    uint32_t *seed = (uint32_t *)arg;

    *seed = *seed * 1664525u + 1013904223u;
    return 1 + (*seed >> 16) % ((*seed >> 24) % 4 == 0 ? 64 : 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct guard g;
    uint32_t seed;
    char *whole, *cut;

    if (size < 2 || size > 8192)
        return 0;
    g = guard_create(size);
    seed = (uint32_t)(data[0] << 8 | data[1]);
    whole = transcript_of(&g, (struct lonely_span){ data + 2, size - 2 }, HEAD_MAX, NULL, NULL);
    cut = transcript_of(&g, (struct lonely_span){ data + 2, size - 2 }, HEAD_MAX, next_size, &seed);
    if (strcmp(whole, cut) != 0) {
        fprintf(stderr, "whole: %s\ncut:   %s\n", whole, cut);
        abort();
    }
    free(whole);
    free(cut);
    guard_destroy(&g);
    return 0;
}
