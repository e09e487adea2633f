/*
 * SHA-256 (sum.h), by OpenSSL. Its failures, which only a lack of memory causes, make a sum that
 * matches nothing.
 */
#include "sum.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#define PIECE_BYTES (256u * 1024)

struct sum {
    EVP_MD_CTX *ctx, *copy;
    const atomic_bool *stop;
    bool is_bad;
    uint8_t piece[PIECE_BYTES]; /* of a file */
};

struct sum *sum_create(const atomic_bool *stop)
{
    struct sum *sum = calloc(1, sizeof(*sum));

    if (sum == NULL)
        return NULL;
    sum->stop = stop;
    sum->ctx = EVP_MD_CTX_new();
    sum->copy = EVP_MD_CTX_new();
    if (sum->ctx == NULL || sum->copy == NULL) {
        sum_destroy(sum);
        return NULL;
    }
    sum_reset(sum);
    return sum;
}

void sum_destroy(struct sum *sum)
{
    if (sum == NULL)
        return;
    EVP_MD_CTX_free(sum->ctx);
    EVP_MD_CTX_free(sum->copy);
    free(sum);
}

void sum_reset(struct sum *sum)
{
    sum->is_bad = EVP_DigestInit_ex(sum->ctx, EVP_sha256(), NULL) != 1;
}

void sum_add(struct sum *sum, const void *ptr, size_t len)
{
    if (EVP_DigestUpdate(sum->ctx, ptr, len) != 1)
        sum->is_bad = true;
}

void sum_read(const struct sum *sum, uint8_t out[SUM_BYTES])
{
    if (sum->is_bad || EVP_MD_CTX_copy_ex(sum->copy, sum->ctx) != 1 ||
        EVP_DigestFinal_ex(sum->copy, out, NULL) != 1)
        memset(out, 0, SUM_BYTES);
}

struct fault sum_add_file(struct sum *sum, int fd, uint64_t from, uint64_t to)
{
    while (from < to) {
        size_t want = to - from < PIECE_BYTES ? (size_t)(to - from) : PIECE_BYTES;
        ssize_t n = pread(fd, sum->piece, want, (off_t)from);

        if (sum->stop != NULL && atomic_load(sum->stop))
            return fault_of(FAULT_STOPPED);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fault_errno();
        if (n == 0)
            return fault_of(FAULT_CHANGED);
        sum_add(sum, sum->piece, (size_t)n);
        from += (uint64_t)n;
    }
    return fault_of(FAULT_NONE);
}
